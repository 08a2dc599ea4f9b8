//! `atom` and `red`.

use super::block::Block;
use super::launch::Step;
use super::memory::{Target, lane_address};
use super::op::{Atomic, AtomicOp};
use super::registers::{LANES, NONE};
use super::warp::Warp;
use crate::float::{Bf16, F16, Narrow, Rounding};
use crate::ptx::Type;
use std::sync::atomic::Ordering::Relaxed;

/// Whether an atomic of this type is covered.
pub fn atomic_covers(op: AtomicOp, ty: Type) -> bool {
    use AtomicOp::*;
    match ty {
        Type::F32 | Type::F64 | Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2 => op == Add,
        Type::U32 => matches!(op, Add | Min | Max | Inc | Dec | Exch | Cas | And | Or | Xor),
        Type::S32 | Type::S64 | Type::U64 => matches!(op, Add | Min | Max | Exch | Cas),
        Type::B32 | Type::B64 => matches!(op, And | Or | Xor | Exch | Cas),
        Type::B16 => op == Cas,
        _ => false,
    }
}

impl Block<'_> {
    /// `atom` and `red`: lanes one after the other.
    pub fn atomic(&mut self, w: &mut Warp, a: &Atomic, pc: u32, mask: u32) -> Step<()> {
        let n = a.ty.size();
        let read = |w: &Warp, r, lane: usize| match (r, n) {
            (NONE, _) => 0,
            (r, 8) => w.registers.wides[r as usize][lane],
            (r, _) => w.registers.words[r as usize][lane] as u64,
        };
        for lane in (0..LANES).filter(|l| mask >> l & 1 == 1) {
            let address = lane_address(&w.registers, &a.address, lane);
            let (x, y) = (read(w, a.a, lane), read(w, a.b, lane));
            let old = match self.target(w, a.address.space, address, n, pc, lane)? {
                Target::Global(i, offset) => self.atomic_global(w, a, i, offset, [x, y], pc, lane),
                Target::Shared(at) => {
                    if let Err(flaw) = self.shared.check_atomic(at, n) {
                        self.note_shared(w, flaw, at, pc, lane);
                    }
                    let old = self.shared.read(at, n)[0];
                    self.shared.write(at, n, &[apply(a.op, a.ty, old, x, y), 0, 0, 0]);
                    old
                }
                target => {
                    let old = self.fetch(w, target, n, pc, lane)[0];
                    self.put(w, target, n, &[apply(a.op, a.ty, old, x, y), 0, 0, 0], pc, lane)?;
                    old
                }
            };
            match (a.d, n) {
                (NONE, _) => {}
                (d, 8) => w.registers.wides[d as usize][lane] = old,
                (d, _) => w.registers.words[d as usize][lane] = old as u32,
            }
        }
        Ok(())
    }

    fn atomic_global(
        &mut self,
        w: &Warp,
        a: &Atomic,
        i: usize,
        offset: u64,
        [x, y]: [u64; 2],
        pc: u32,
        lane: usize,
    ) -> u64 {
        let (memory, n) = (&self.grid.memory[i], a.ty.size());
        self.counts.global_read += n as u64;
        self.counts.global_written += n as u64;
        let flaw = memory.shadow.read(offset, n as u64, self.accessor);
        memory.shadow.write_atomic(offset, n as u64);
        let change = |old: u64| apply(a.op, a.ty, old, x, y);
        // The closures never give up, so there is no error.
        let old = match n {
            2 => memory
                .cell16(offset)
                .fetch_update(Relaxed, Relaxed, |v| Some(change(v as u64) as u16))
                .map_or(0, u64::from),
            4 => memory
                .cell32(offset)
                .fetch_update(Relaxed, Relaxed, |v| Some(change(v as u64) as u32))
                .map_or(0, u64::from),
            _ => memory.cell64(offset).fetch_update(Relaxed, Relaxed, |v| Some(change(v))).unwrap_or(0),
        };
        if let Err(flaw) = flaw {
            self.note_global(w, flaw, i, offset, n, pc, lane);
        }
        old
    }
}

/// The new value of an atomic operation.
fn apply(op: AtomicOp, ty: Type, old: u64, x: u64, y: u64) -> u64 {
    use AtomicOp::*;
    fn add<T: Narrow>(a: T, b: T) -> T {
        T::round(a.widen() as f64 + b.widen() as f64, Rounding::Nearest)
    }
    let halves = |f: fn(u16, u16) -> u16| {
        f(old as u16, x as u16) as u64 | (f((old >> 16) as u16, (x >> 16) as u16) as u64) << 16
    };
    match (op, ty) {
        (Exch, _) => x,
        (Cas, Type::B16) => {
            if old as u16 == x as u16 {
                y
            } else {
                old
            }
        }
        (Cas, _) => {
            if old == x {
                y
            } else {
                old
            }
        }
        (And, _) => old & x,
        (Or, _) => old | x,
        (Xor, _) => old ^ x,
        (Inc, _) => {
            if old as u32 >= x as u32 {
                0
            } else {
                old + 1
            }
        }
        (Dec, _) => {
            if old as u32 == 0 || old as u32 > x as u32 {
                x
            } else {
                old - 1
            }
        }
        (Add, Type::F32) => (f32::from_bits(old as u32) + f32::from_bits(x as u32)).to_bits() as u64,
        (Add, Type::F64) => (f64::from_bits(old) + f64::from_bits(x)).to_bits(),
        (Add, Type::F16) => add(F16(old as u16), F16(x as u16)).0 as u64,
        (Add, Type::Bf16) => add(Bf16(old as u16), Bf16(x as u16)).0 as u64,
        (Add, Type::F16x2) => halves(|a, b| add(F16(a), F16(b)).0),
        (Add, Type::Bf16x2) => halves(|a, b| add(Bf16(a), Bf16(b)).0),
        (Add, Type::U64 | Type::S64) => old.wrapping_add(x),
        (Add, _) => (old as u32).wrapping_add(x as u32) as u64,
        (Min, Type::S32) => (old as i32).min(x as i32) as u32 as u64,
        (Max, Type::S32) => (old as i32).max(x as i32) as u32 as u64,
        (Min, Type::S64) => (old as i64).min(x as i64) as u64,
        (Max, Type::S64) => (old as i64).max(x as i64) as u64,
        (Min, _) => old.min(x),
        (Max, _) => old.max(x),
    }
}
