//! `cvt`, and the instructions that compare and choose.

use super::alu::{Form, bank_of, form};
use super::registers::{Ftz, Lane, NONE, Operands, Registers, each_lane};
use crate::float::{Bf16, F16, Narrow, Rounding, SINGLE, flush, integral, narrow};
use crate::ptx::{Bank, Type};

/// What modifiers say about a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modifiers {
    /// Rounding, if written.
    pub rounding: Option<Rounding>,
    /// To an integral value (`.rni` and its like).
    pub integral: bool,
    /// `.rna`: ties away from zero (tf32).
    pub away: bool,
    /// `.ftz`
    pub flush: bool,
    /// `.sat` of an integer result; of a float result the decoder adds a step.
    pub saturate: bool,
}

/// Writes out a form for each rounding, since a function over lanes captures nothing.
macro_rules! rounded {
    ($rounding:expr, $r:ident => $form:expr) => {
        match $rounding {
            Rounding::Nearest => {
                const $r: Rounding = Rounding::Nearest;
                $form
            }
            Rounding::Zero => {
                const $r: Rounding = Rounding::Zero;
                $form
            }
            Rounding::Down => {
                const $r: Rounding = Rounding::Down;
                $form
            }
            Rounding::Up => {
                const $r: Rounding = Rounding::Up;
                $form
            }
        }
    };
}

macro_rules! for_integers {
    ($ty:expr, $t:ident => $e:expr) => {
        match $ty {
            Type::U8 | Type::B8 => {
                type $t = u8;
                Some($e)
            }
            Type::S8 => {
                type $t = i8;
                Some($e)
            }
            Type::U16 | Type::B16 => {
                type $t = u16;
                Some($e)
            }
            Type::S16 => {
                type $t = i16;
                Some($e)
            }
            Type::U32 | Type::B32 => {
                type $t = u32;
                Some($e)
            }
            Type::S32 => {
                type $t = i32;
                Some($e)
            }
            Type::U64 | Type::B64 => {
                type $t = u64;
                Some($e)
            }
            Type::S64 => {
                type $t = i64;
                Some($e)
            }
            _ => None,
        }
    };
}

/// `cvt.dst.src` with one input.
pub fn convert(dst: Type, src: Type, m: Modifiers) -> Option<Form> {
    if for_integers!(src, T => size_of::<T>()).is_some() {
        return from_integer(dst, src, m);
    }
    match src {
        Type::F32 if m.flush => from_float(dst, m, FloatSource::Flushed),
        Type::F32 => from_float(dst, m, FloatSource::Single),
        Type::F64 => from_float(dst, m, FloatSource::Double),
        Type::F16 => from_float(dst, m, FloatSource::Half),
        Type::Bf16 => from_float(dst, m, FloatSource::Bfloat),
        _ => None,
    }
}

fn from_integer(dst: Type, src: Type, m: Modifiers) -> Option<Form> {
    let rounding = m.rounding.unwrap_or(Rounding::Nearest);
    let exact = src.size() <= 4 || rounding == Rounding::Nearest;
    for_integers!(src, S => match dst {
        Type::F32 if rounding == Rounding::Nearest => Some(form!(S => f32, |x| x as f32)),
        Type::F32 if exact => Some(rounded!(rounding, R => form!(S => f32, |x| narrow(x as f64, SINGLE, R)))),
        Type::F64 if exact => Some(form!(S => f64, |x| x as f64)),
        Type::F16 if exact => Some(rounded!(rounding, R => form!(S => F16, |x| F16::round(x as f64, R)))),
        Type::Bf16 if src.size() <= 4 => Some(rounded!(rounding, R => form!(S => Bf16, |x| Bf16::round(x as f64, R)))),
        _ if m.saturate => for_integers!(dst, D => {
            form!(S => D, |x| (x as i128).clamp(D::MIN as i128, D::MAX as i128) as D)
        }),
        _ => for_integers!(dst, D => form!(S => D, |x| x as D)),
    })?
}

#[derive(Clone, Copy)]
enum FloatSource {
    Single,
    Flushed,
    Double,
    Half,
    Bfloat,
}

/// A float read as `f64`, exactly.
trait Exact: Lane {
    fn value(self) -> f64;
}
impl Exact for f32 {
    fn value(self) -> f64 {
        self as f64
    }
}
impl Exact for Ftz {
    fn value(self) -> f64 {
        self.0 as f64
    }
}
impl Exact for f64 {
    fn value(self) -> f64 {
        self
    }
}
impl Exact for F16 {
    fn value(self) -> f64 {
        self.widen() as f64
    }
}
impl Exact for Bf16 {
    fn value(self) -> f64 {
        self.widen() as f64
    }
}

fn from_float(dst: Type, m: Modifiers, source: FloatSource) -> Option<Form> {
    match source {
        FloatSource::Single => to_any::<f32>(dst, m),
        FloatSource::Flushed => to_any::<Ftz>(dst, m),
        FloatSource::Double => to_any::<f64>(dst, m),
        FloatSource::Half => to_any::<F16>(dst, m),
        FloatSource::Bfloat => to_any::<Bf16>(dst, m),
    }
}

fn to_any<S: Exact>(dst: Type, m: Modifiers) -> Option<Form> {
    let rounding = m.rounding.unwrap_or(Rounding::Nearest);
    if m.integral && matches!(dst, Type::F32 | Type::F64 | Type::F16 | Type::Bf16) {
        return Some(match dst {
            Type::F32 => rounded!(rounding, R => form!(S => f32, |x| integral(x.value(), R) as f32)),
            Type::F64 => rounded!(rounding, R => form!(S => f64, |x| integral(x.value(), R))),
            Type::F16 => rounded!(rounding, R => form!(S => F16, |x| F16::exact(integral(x.value(), R) as f32))),
            _ => rounded!(rounding, R => form!(S => Bf16, |x| Bf16::exact(integral(x.value(), R) as f32))),
        });
    }
    match dst {
        Type::F32 if m.flush => Some(rounded!(rounding, R => form!(S => f32, |x| flush(narrow(x.value(), SINGLE, R))))),
        Type::F32 => Some(rounded!(rounding, R => form!(S => f32, |x| narrow(x.value(), SINGLE, R)))),
        Type::F64 => Some(form!(S => f64, |x| x.value())),
        Type::F16 => Some(rounded!(rounding, R => form!(S => F16, |x| F16::round(x.value(), R)))),
        Type::Bf16 => Some(rounded!(rounding, R => form!(S => Bf16, |x| Bf16::round(x.value(), R)))),
        Type::Tf32 if m.away => Some(form!(S => u32, |x| tf32((x.value() as f32).to_bits(), 0x1000))),
        Type::Tf32 if m.rounding == Some(Rounding::Nearest) => Some(form!(S => u32, |x| {
            let bits = (x.value() as f32).to_bits();
            tf32(bits, 0xfff + (bits >> 13 & 1))
        })),
        _ => for_integers!(dst, D => rounded!(rounding, R => form!(S => D, |x| integral(x.value(), R) as D))),
    }
}

/// 10 bits of mantissa; the 13 below become zero.
fn tf32(bits: u32, add: u32) -> u32 {
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return 0x7fff_ffff;
    }
    if bits & 0x7f80_0000 == 0x7f80_0000 {
        return bits;
    }
    (bits + add) & 0xffff_e000
}

/// `cvt.rn.f16x2.f32 d, a, b`: `a` to the upper half, `b` to the lower.
pub fn convert_pair(dst: Type, m: Modifiers) -> Option<Form> {
    let rounding = m.rounding?;
    fn pack<T: Narrow>(high: f32, low: f32, rounding: Rounding, bits: fn(T) -> u16) -> u32 {
        let part = |x: f32| bits(T::round(x as f64, rounding)) as u32;
        part(low) | part(high) << 16
    }
    Some(match dst {
        Type::F16x2 => rounded!(rounding, R => form!(f32, f32 => u32, |a, b| pack::<F16>(a, b, R, |x| x.0))),
        Type::Bf16x2 => rounded!(rounding, R => form!(f32, f32 => u32, |a, b| pack::<Bf16>(a, b, R, |x| x.0))),
        _ => return None,
    })
}

/// Bits of `Operands::imm` of `setp`: how the comparison meets the third, predicate, operand.
pub const COMBINE_AND: u32 = 1;
/// See [`COMBINE_AND`].
pub const COMBINE_OR: u32 = 2;
/// See [`COMBINE_AND`].
pub const COMBINE_XOR: u32 = 3;
/// The third operand is negated.
pub const COMBINE_NOT: u32 = 4;

fn finish(r: &mut Registers, o: &Operands, mask: u32, bits: u32) {
    let (mut yes, mut no) = (bits, !bits);
    if o.c != NONE {
        let third = if o.imm & COMBINE_NOT != 0 { !r.preds[o.c as usize] } else { r.preds[o.c as usize] };
        let combine = |x: u32| match o.imm & 3 {
            COMBINE_AND => x & third,
            COMBINE_OR => x | third,
            _ => x ^ third,
        };
        (yes, no) = (combine(yes), combine(no));
    }
    r.set_pred(o.d, mask, yes);
    r.set_pred(o.e, mask, no);
}

/// `setp.cmp.type`
pub fn compare(cmp: &str, ty: Type, ftz: bool) -> Option<Form> {
    macro_rules! test {
        ($t:ty, $a:ident, $b:ident, $e:expr) => {
            Form {
                run: |r, o, m| {
                    let bits = r.test2::<$t>(o, |$a, $b| $e);
                    finish(r, o, m, bits);
                },
                d: Bank::Pred,
                src: [Some(bank_of::<$t>()), Some(bank_of::<$t>()), None],
            }
        };
    }
    macro_rules! integers {
        ($t:ty) => {
            match cmp {
                "eq" => test!($t, a, b, a == b),
                "ne" => test!($t, a, b, a != b),
                "lt" | "lo" => test!($t, a, b, a < b),
                "le" | "ls" => test!($t, a, b, a <= b),
                "gt" | "hi" => test!($t, a, b, a > b),
                "ge" | "hs" => test!($t, a, b, a >= b),
                _ => return None,
            }
        };
    }
    macro_rules! floats {
        ($t:ty, $x:ident => $value:expr) => {{
            #[inline(always)]
            fn value($x: $t) -> f64 {
                $value as f64
            }
            match cmp {
                "eq" => test!($t, a, b, value(a) == value(b)),
                "ne" => test!($t, a, b, value(a) < value(b) || value(a) > value(b)),
                "lt" => test!($t, a, b, value(a) < value(b)),
                "le" => test!($t, a, b, value(a) <= value(b)),
                "gt" => test!($t, a, b, value(a) > value(b)),
                "ge" => test!($t, a, b, value(a) >= value(b)),
                "equ" => test!($t, a, b, !(value(a) < value(b) || value(a) > value(b))),
                "neu" => test!($t, a, b, value(a) != value(b)),
                "ltu" => test!($t, a, b, value(a).is_nan() || value(b).is_nan() || value(a) < value(b)),
                "leu" => test!($t, a, b, value(a).is_nan() || value(b).is_nan() || value(a) <= value(b)),
                "gtu" => test!($t, a, b, value(a).is_nan() || value(b).is_nan() || value(a) > value(b)),
                "geu" => test!($t, a, b, value(a).is_nan() || value(b).is_nan() || value(a) >= value(b)),
                "num" => test!($t, a, b, !value(a).is_nan() && !value(b).is_nan()),
                "nan" => test!($t, a, b, value(a).is_nan() || value(b).is_nan()),
                _ => return None,
            }
        }};
    }
    Some(match ty {
        Type::U16 | Type::B16 => integers!(u16),
        Type::S16 => integers!(i16),
        Type::U32 | Type::B32 => integers!(u32),
        Type::S32 => integers!(i32),
        Type::U64 | Type::B64 => integers!(u64),
        Type::S64 => integers!(i64),
        Type::F32 if ftz => floats!(Ftz, x => x.0),
        Type::F32 => floats!(f32, x => x),
        Type::F64 => floats!(f64, x => x),
        Type::F16 => floats!(F16, x => x.widen()),
        Type::Bf16 => floats!(Bf16, x => x.widen()),
        _ => return None,
    })
}

/// `selp`: `a` where the predicate `c` holds, else `b`.
pub fn select(ty: Type) -> Option<Form> {
    fn choose<T: Lane>(r: &mut Registers, o: &Operands, mask: u32) {
        let chosen = r.preds[o.c as usize];
        let (a, b) = (*T::row(r, o.a), *T::row(r, o.b));
        let row = T::row_mut(r, o.d);
        each_lane(mask, |l| row[l] = if chosen >> l & 1 == 1 { a[l] } else { b[l] });
    }
    let bank = ty.bank();
    let run = match bank {
        Bank::Word => choose::<u32>,
        Bank::Wide => choose::<u64>,
        Bank::Pred => return None,
    };
    Some(Form { run, d: bank, src: [Some(bank), Some(bank), Some(Bank::Pred)] })
}

/// `slct`: `a` where the number `c` is not negative, else `b`.
pub fn select_by_sign(ty: Type, of: Type) -> Option<Form> {
    Some(match (ty.bank(), of) {
        (Bank::Word, Type::S32) => form!(u32, u32, i32 => u32, |a, b, c| if c >= 0 { a } else { b }),
        (Bank::Wide, Type::S32) => form!(u64, u64, i32 => u64, |a, b, c| if c >= 0 { a } else { b }),
        (Bank::Word, Type::F32) => form!(u32, u32, f32 => u32, |a, b, c| if c >= 0.0 { a } else { b }),
        (Bank::Wide, Type::F32) => form!(u64, u64, f32 => u64, |a, b, c| if c >= 0.0 { a } else { b }),
        _ => return None,
    })
}
