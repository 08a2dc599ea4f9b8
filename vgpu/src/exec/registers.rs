//! The register file of a warp, and functions applied to its lanes.

use crate::float::{Bf16, F16, flush};

/// Lanes of a warp.
pub const LANES: usize = 32;
/// The mask of all lanes.
pub const ALL: u32 = u32::MAX;
/// Index of a register in its bank.
pub type Reg = u16;
/// No register: an operand that is absent, or a result that is dropped (`_`).
pub const NONE: Reg = Reg::MAX;

/// Registers of 32 lanes: arrays of lanes, so that one instruction is one loop.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    /// 32 bits and fewer. Of narrower numbers the upper bits mean nothing.
    pub words: Vec<[u32; LANES]>,
    /// 64 bits.
    pub wides: Vec<[u64; LANES]>,
    /// A bit for each lane.
    pub preds: Vec<u32>,
}

/// Operands of an arithmetic instruction. Which bank an index belongs to is the instruction's business.
#[derive(Clone, Copy, Debug)]
pub struct Operands {
    /// Result.
    pub d: Reg,
    /// Second result.
    pub e: Reg,
    /// Inputs.
    pub a: Reg,
    /// Second input.
    pub b: Reg,
    /// Third input.
    pub c: Reg,
    /// What is part of the instruction itself: a truth table, a mode.
    pub imm: u32,
}

/// An arithmetic instruction: works on the lanes of the mask.
pub type Alu = fn(&mut Registers, &Operands, u32);

/// A type that a lane of a register can be read as.
pub trait Lane: Copy {
    /// A lane's bits in its bank.
    type Raw: Copy;
    /// From bits; upper bits that do not belong to the type are ignored.
    fn of(raw: Self::Raw) -> Self;
    /// To bits; small signed numbers are extended.
    fn raw(self) -> Self::Raw;
    /// A register.
    fn row(registers: &Registers, r: Reg) -> &[Self::Raw; LANES];
    /// A register to write.
    fn row_mut(registers: &mut Registers, r: Reg) -> &mut [Self::Raw; LANES];
}

macro_rules! lane {
    ($raw:ty, $bank:ident: $($t:ty, $of:expr, $to:expr;)*) => { $(
        impl Lane for $t {
            type Raw = $raw;
            #[inline(always)]
            fn of(raw: $raw) -> Self { let of: fn($raw) -> $t = $of; of(raw) }
            #[inline(always)]
            fn raw(self) -> $raw { let to: fn($t) -> $raw = $to; to(self) }
            #[inline(always)]
            fn row(registers: &Registers, r: Reg) -> &[$raw; LANES] { &registers.$bank[r as usize] }
            #[inline(always)]
            fn row_mut(registers: &mut Registers, r: Reg) -> &mut [$raw; LANES] { &mut registers.$bank[r as usize] }
        }
    )* };
}

/// `f32` whose subnormals are zeros, read and written (`.ftz`).
#[derive(Clone, Copy, Debug)]
pub struct Ftz(pub f32);

lane! { u32, words:
    u32, |r| r, |v| v;
    i32, |r| r as i32, |v| v as u32;
    u16, |r| r as u16, |v| v as u32;
    i16, |r| r as i16, |v| v as i32 as u32;
    u8, |r| r as u8, |v| v as u32;
    i8, |r| r as i8, |v| v as i32 as u32;
    f32, f32::from_bits, f32::to_bits;
    Ftz, |r| Ftz(flush(f32::from_bits(r))), |v| flush(v.0).to_bits();
    F16, |r| F16(r as u16), |v| v.0 as u32;
    Bf16, |r| Bf16(r as u16), |v| v.0 as u32;
}
lane! { u64, wides:
    u64, |r| r, |v| v;
    i64, |r| r as i64, |v| v as u64;
    f64, f64::from_bits, f64::to_bits;
}

/// Calls `f` for every lane of `mask`.
#[inline(always)]
pub fn each_lane(mask: u32, mut f: impl FnMut(usize)) {
    let mut left = mask;
    while left != 0 {
        f(left.trailing_zeros() as usize);
        left &= left - 1;
    }
}

/// The lanes of a result: new ones where the mask says so.
#[inline(always)]
fn row<D: Lane>(old: &[D::Raw; LANES], mask: u32, value: impl Fn(usize) -> D) -> [D::Raw; LANES] {
    let mut out = *old;
    if mask == ALL {
        for (lane, o) in out.iter_mut().enumerate() {
            *o = value(lane).raw();
        }
    } else {
        each_lane(mask, |lane| out[lane] = value(lane).raw());
    }
    out
}

impl Registers {
    /// `d = f(a)`.
    #[inline(always)]
    pub fn map1<A: Lane, D: Lane>(&mut self, o: &Operands, mask: u32, f: impl Fn(A) -> D) {
        let a = A::row(self, o.a);
        let out = row(D::row(self, o.d), mask, |l| f(A::of(a[l])));
        *D::row_mut(self, o.d) = out;
    }

    /// `d = f(a, b)`.
    #[inline(always)]
    pub fn map2<A: Lane, B: Lane, D: Lane>(&mut self, o: &Operands, mask: u32, f: impl Fn(A, B) -> D) {
        let (a, b) = (A::row(self, o.a), B::row(self, o.b));
        let out = row(D::row(self, o.d), mask, |l| f(A::of(a[l]), B::of(b[l])));
        *D::row_mut(self, o.d) = out;
    }

    /// `d = f(a, b, c)`.
    #[inline(always)]
    pub fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(&mut self, o: &Operands, mask: u32, f: impl Fn(A, B, C) -> D) {
        let (a, b, c) = (A::row(self, o.a), B::row(self, o.b), C::row(self, o.c));
        let out = row(D::row(self, o.d), mask, |l| f(A::of(a[l]), B::of(b[l]), C::of(c[l])));
        *D::row_mut(self, o.d) = out;
    }

    /// The predicate that `f(a, b)` makes of every lane, active or not.
    #[inline(always)]
    pub fn test2<A: Lane>(&self, o: &Operands, f: impl Fn(A, A) -> bool) -> u32 {
        let (a, b) = (A::row(self, o.a), A::row(self, o.b));
        let mut bits = 0;
        for lane in 0..LANES {
            bits |= (f(A::of(a[lane]), A::of(b[lane])) as u32) << lane;
        }
        bits
    }

    /// Writes a predicate's active lanes.
    #[inline(always)]
    pub fn set_pred(&mut self, d: Reg, mask: u32, bits: u32) {
        if d != NONE {
            let p = &mut self.preds[d as usize];
            *p = (*p & !mask) | (bits & mask);
        }
    }
}
