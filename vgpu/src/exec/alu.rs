//! Integer and bit instructions, as a table from name and type to a function over lanes.
//!
//! A [`Form`] is such a function with the banks of its operands. Floating point is in `float` and `convert`.

use super::registers::{Alu, Lane, Operands, Registers};
use crate::ptx::{Bank, Type};
use crate::window;

/// An arithmetic instruction: what it computes, and where its result and its inputs lie.
#[derive(Clone, Copy)]
pub struct Form {
    /// The function.
    pub run: Alu,
    /// Bank of the result.
    pub d: Bank,
    /// Banks of the inputs.
    pub src: [Option<Bank>; 3],
}

/// Bank of a lane type.
pub const fn bank_of<T: Lane>() -> Bank {
    if size_of::<T::Raw>() == 8 { Bank::Wide } else { Bank::Word }
}

/// A [`Form`] from lane types and a function: `form!(u32, u32 => u64, |a, b| ...)`.
macro_rules! form {
    ($a:ty => $d:ty, $f:expr) => {
        $crate::exec::alu::Form {
            run: |r: &mut $crate::exec::registers::Registers, o: &$crate::exec::registers::Operands, m: u32| {
                r.map1::<$a, $d>(o, m, $f)
            },
            d: $crate::exec::alu::bank_of::<$d>(),
            src: [Some($crate::exec::alu::bank_of::<$a>()), None, None],
        }
    };
    ($a:ty, $b:ty => $d:ty, $f:expr) => {
        $crate::exec::alu::Form {
            run: |r: &mut $crate::exec::registers::Registers, o: &$crate::exec::registers::Operands, m: u32| {
                r.map2::<$a, $b, $d>(o, m, $f)
            },
            d: $crate::exec::alu::bank_of::<$d>(),
            src: [Some($crate::exec::alu::bank_of::<$a>()), Some($crate::exec::alu::bank_of::<$b>()), None],
        }
    };
    ($a:ty, $b:ty, $c:ty => $d:ty, $f:expr) => {
        $crate::exec::alu::Form {
            run: |r: &mut $crate::exec::registers::Registers, o: &$crate::exec::registers::Operands, m: u32| {
                r.map3::<$a, $b, $c, $d>(o, m, $f)
            },
            d: $crate::exec::alu::bank_of::<$d>(),
            src: [
                Some($crate::exec::alu::bank_of::<$a>()),
                Some($crate::exec::alu::bank_of::<$b>()),
                Some($crate::exec::alu::bank_of::<$c>()),
            ],
        }
    };
}
pub(crate) use form;

/// Integer arithmetic: `name` with its `.lo`, `.hi` or `.wide`.
pub fn integer(name: &str, ty: Type) -> Option<Form> {
    macro_rules! each {
        ($t:ty, $signed:ty, $double:ty) => {{
            const BITS: u32 = <$t>::BITS;
            match name {
                "add" => form!($t, $t => $t, |a, b| a.wrapping_add(b)),
                "sub" => form!($t, $t => $t, |a, b| a.wrapping_sub(b)),
                "mul.lo" => form!($t, $t => $t, |a, b| a.wrapping_mul(b)),
                "mul.hi" => form!($t, $t => $t, |a, b| ((a as $double * b as $double) >> BITS) as $t),
                "mad.lo" => form!($t, $t, $t => $t, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
                "mad.hi" => form!($t, $t, $t => $t, |a, b, c| {
                    (((a as $double * b as $double) >> BITS) as $t).wrapping_add(c)
                }),
                // Division by zero has no defined result on a device; all ones is what it gives.
                "div" => form!($t, $t => $t, |a, b| if b == 0 { !0 } else { a.wrapping_div(b) }),
                "rem" => form!($t, $t => $t, |a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
                "min" => form!($t, $t => $t, |a, b| a.min(b)),
                "max" => form!($t, $t => $t, |a, b| a.max(b)),
                "abs" => form!($t => $t, |a| if (a as $signed) < 0 { (0 as $t).wrapping_sub(a) } else { a }),
                "neg" => form!($t => $t, |a| (0 as $t).wrapping_sub(a)),
                "sad" => form!($t, $t, $t => $t, |a, b, c| c.wrapping_add(a.max(b).wrapping_sub(a.min(b)))),
                "shr" => form!($t, u32 => $t, |a, n| {
                    a.checked_shr(n).unwrap_or(if <$t>::MIN != 0 && (a as $signed) < 0 { !0 } else { 0 })
                }),
                "shl" => form!($t, u32 => $t, |a, n| a.checked_shl(n).unwrap_or(0)),
                _ => return None,
            }
        }};
    }
    Some(match (name, ty) {
        ("mul.wide", Type::U16) => form!(u16, u16 => u32, |a, b| a as u32 * b as u32),
        ("mul.wide", Type::S16) => form!(i16, i16 => i32, |a, b| a as i32 * b as i32),
        ("mul.wide", Type::U32) => form!(u32, u32 => u64, |a, b| a as u64 * b as u64),
        ("mul.wide", Type::S32) => form!(i32, i32 => i64, |a, b| a as i64 * b as i64),
        ("mad.wide", Type::U16) => form!(u16, u16, u32 => u32, |a, b, c| (a as u32 * b as u32).wrapping_add(c)),
        ("mad.wide", Type::S16) => form!(i16, i16, i32 => i32, |a, b, c| (a as i32 * b as i32).wrapping_add(c)),
        ("mad.wide", Type::U32) => form!(u32, u32, u64 => u64, |a, b, c| (a as u64 * b as u64).wrapping_add(c)),
        ("mad.wide", Type::S32) => form!(i32, i32, i64 => i64, |a, b, c| (a as i64 * b as i64).wrapping_add(c)),
        (_, Type::U16 | Type::B16) => each!(u16, i16, u32),
        (_, Type::S16) => each!(i16, i16, i32),
        (_, Type::U32 | Type::B32) => each!(u32, i32, u64),
        (_, Type::S32) => each!(i32, i32, i64),
        (_, Type::U64 | Type::B64) => each!(u64, i64, u128),
        (_, Type::S64) => each!(i64, i64, i128),
        _ => return None,
    })
}

/// Bitwise logic of numbers and predicates.
pub fn logic(name: &str, ty: Type) -> Option<Form> {
    macro_rules! pred {
        ($f:expr) => {
            Form {
                run: |r: &mut Registers, o: &Operands, m: u32| {
                    let f: fn(u32, u32) -> u32 = $f;
                    let bits = f(r.preds[o.a as usize], r.preds[o.b as usize]);
                    r.set_pred(o.d, m, bits);
                },
                d: Bank::Pred,
                src: [Some(Bank::Pred), Some(Bank::Pred), None],
            }
        };
    }
    macro_rules! each {
        ($t:ty) => {
            match name {
                "and" => form!($t, $t => $t, |a, b| a & b),
                "or" => form!($t, $t => $t, |a, b| a | b),
                "xor" => form!($t, $t => $t, |a, b| a ^ b),
                "not" => form!($t => $t, |a| !a),
                "cnot" => form!($t => $t, |a| (a == 0) as $t),
                _ => return None,
            }
        };
    }
    let not = Form {
        run: |r, o, m| {
            let bits = !r.preds[o.a as usize];
            r.set_pred(o.d, m, bits);
        },
        d: Bank::Pred,
        src: [Some(Bank::Pred), None, None],
    };
    Some(match ty {
        Type::Pred => match name {
            "and" => pred!(|a, b| a & b),
            "or" => pred!(|a, b| a | b),
            "xor" => pred!(|a, b| a ^ b),
            "not" => not,
            _ => return None,
        },
        Type::B16 => each!(u16),
        Type::B32 => each!(u32),
        Type::B64 => each!(u64),
        _ => return None,
    })
}

fn field_mask(len: u32) -> u64 {
    if len >= 64 { u64::MAX } else { (1 << len) - 1 }
}

/// `bfe`: a field of `len` bits at `pos`, of a number of `bits` bits, extended by its sign bit if `signed`.
fn extract(a: u64, pos: u32, len: u32, bits: u32, signed: bool) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    let sign_at = (pos + len).saturating_sub(1).min(bits - 1);
    let sign = signed && len > 0 && (a >> sign_at) & 1 == 1;
    let within = if pos >= bits { 0 } else { len.min(bits - pos) };
    let field = if within == 0 { 0 } else { (a >> pos) & field_mask(within) };
    if sign { field | !field_mask(within) } else { field }
}

/// `bfi`: `b` with `len` bits from `pos` on replaced by the low bits of `a`.
fn insert(a: u64, b: u64, pos: u32, len: u32, bits: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= bits || len == 0 {
        return b;
    }
    let mask = field_mask(len.min(bits - pos)) << pos;
    (b & !mask) | ((a << pos) & mask)
}

/// Position of the highest bit that differs from the sign, or all ones.
fn find_high(a: u64, bits: u32, signed: bool, shift: bool) -> u32 {
    let a = if signed && (a >> (bits - 1)) & 1 == 1 { !a & field_mask(bits) } else { a };
    match a {
        0 => u32::MAX,
        a => {
            let at = 63 - a.leading_zeros();
            if shift { bits - 1 - at } else { at }
        }
    }
}

/// `prmt` in its default mode: four bytes chosen from eight, or their signs.
pub fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = (a as u64) | (b as u64) << 32;
    (0..4).fold(0, |out, i| {
        let s = selector >> (4 * i) & 15;
        let byte = (bytes >> (8 * (s & 7))) as u8;
        let byte = if s & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out | (byte as u32) << (8 * i)
    })
}

fn truth_table(a: u32, b: u32, c: u32, table: u32) -> u32 {
    (0..8).filter(|i| table >> i & 1 == 1).fold(0, |out, i| {
        let pick = |x: u32, bit: u32| if i & bit != 0 { x } else { !x };
        out | (pick(a, 4) & pick(b, 2) & pick(c, 1))
    })
}

/// `bfi` and `lop3` take a fourth number: `bfi`'s length lies in register `e`, `lop3`'s truth table in `imm`.
macro_rules! insert_form {
    ($t:ty) => {
        Form {
            run: |r, o, m| {
                let len = r.words[o.e as usize];
                let (a, b, pos) = (*<$t>::row(r, o.a), *<$t>::row(r, o.b), r.words[o.c as usize]);
                let row = <$t>::row_mut(r, o.d);
                super::registers::each_lane(m, |l| {
                    row[l] = insert(a[l] as u64, b[l] as u64, pos[l], len[l], <$t>::BITS) as $t;
                });
            },
            d: bank_of::<$t>(),
            src: [Some(bank_of::<$t>()), Some(bank_of::<$t>()), Some(Bank::Word)],
        }
    };
}

/// Instructions on single bits and bytes: `name` with its modifiers but the type.
pub fn bits(name: &str, ty: Type) -> Option<Form> {
    use Type::*;
    Some(match (name, ty) {
        ("popc", B32) => form!(u32 => u32, |a| a.count_ones()),
        ("popc", B64) => form!(u64 => u32, |a| a.count_ones()),
        ("clz", B32) => form!(u32 => u32, |a| a.leading_zeros()),
        ("clz", B64) => form!(u64 => u32, |a| a.leading_zeros()),
        ("brev", B32) => form!(u32 => u32, |a| a.reverse_bits()),
        ("brev", B64) => form!(u64 => u64, |a| a.reverse_bits()),
        ("bfind", U32) => form!(u32 => u32, |a| find_high(a as u64, 32, false, false)),
        ("bfind", S32) => form!(u32 => u32, |a| find_high(a as u64, 32, true, false)),
        ("bfind", U64) => form!(u64 => u32, |a| find_high(a, 64, false, false)),
        ("bfind", S64) => form!(u64 => u32, |a| find_high(a, 64, true, false)),
        ("bfind.shiftamt", U32) => form!(u32 => u32, |a| find_high(a as u64, 32, false, true)),
        ("bfind.shiftamt", S32) => form!(u32 => u32, |a| find_high(a as u64, 32, true, true)),
        ("bfind.shiftamt", U64) => form!(u64 => u32, |a| find_high(a, 64, false, true)),
        ("bfind.shiftamt", S64) => form!(u64 => u32, |a| find_high(a, 64, true, true)),
        ("bfe", U32) => form!(u32, u32, u32 => u32, |a, p, n| extract(a as u64, p, n, 32, false) as u32),
        ("bfe", S32) => form!(u32, u32, u32 => u32, |a, p, n| extract(a as u64, p, n, 32, true) as u32),
        ("bfe", U64) => form!(u64, u32, u32 => u64, |a, p, n| extract(a, p, n, 64, false)),
        ("bfe", S64) => form!(u64, u32, u32 => u64, |a, p, n| extract(a, p, n, 64, true)),
        ("bfi", B32) => insert_form!(u32),
        ("bfi", B64) => insert_form!(u64),
        ("prmt", B32) => form!(u32, u32, u32 => u32, permute),
        ("shf.l.wrap", B32) => form!(u32, u32, u32 => u32, |a, b, n| (wide(a, b) << (n & 31) >> 32) as u32),
        ("shf.l.clamp", B32) => form!(u32, u32, u32 => u32, |a, b, n| (wide(a, b) << n.min(32) >> 32) as u32),
        ("shf.r.wrap", B32) => form!(u32, u32, u32 => u32, |a, b, n| (wide(a, b) >> (n & 31)) as u32),
        ("shf.r.clamp", B32) => form!(u32, u32, u32 => u32, |a, b, n| (wide(a, b) >> n.min(32)) as u32),
        ("lop3", B32) => Form {
            run: |r, o, m| {
                let table = o.imm;
                r.map3::<u32, u32, u32, u32>(o, m, |a, b, c| truth_table(a, b, c, table));
            },
            d: Bank::Word,
            src: [Some(Bank::Word); 3],
        },
        _ => return None,
    })
}

fn wide(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// `mov` between registers of the same width, and the parts of `mov` with braces.
pub fn moves(name: &str) -> Option<Form> {
    Some(match name {
        "word" => form!(u32 => u32, |a| a),
        "wide" => form!(u64 => u64, |a| a),
        "pred" => Form {
            run: |r, o, m| {
                let bits = r.preds[o.a as usize];
                r.set_pred(o.d, m, bits);
            },
            d: Bank::Pred,
            src: [Some(Bank::Pred), None, None],
        },
        "pack 32+32" => form!(u32, u32 => u64, wide),
        "pack 16+16" => form!(u16, u16 => u32, |a, b| a as u32 | (b as u32) << 16),
        "low 32" => form!(u64 => u32, |a| a as u32),
        "high 32" => form!(u64 => u32, |a| (a >> 32) as u32),
        "low 16" => form!(u32 => u16, |a| a as u16),
        "high 16" => form!(u32 => u16, |a| (a >> 16) as u16),
        _ => return None,
    })
}

/// `cvta` and `isspacep`: addresses between a space and the generic one.
pub fn spaces(name: &str) -> Option<Form> {
    macro_rules! within {
        ($from:expr, $to:expr) => {
            Form {
                run: |r, o, m| {
                    let bits = r.wides[o.a as usize]
                        .iter()
                        .enumerate()
                        .fold(0, |bits, (l, &a)| bits | (($from..$to).contains(&a) as u32) << l);
                    r.set_pred(o.d, m, bits);
                },
                d: Bank::Pred,
                src: [Some(Bank::Wide), None, None],
            }
        };
    }
    Some(match name {
        "cvta.global" | "cvta.to.global" | "cvta.const" | "cvta.to.const" | "cvta.param" => form!(u64 => u64, |a| a),
        "cvta.shared" => form!(u64 => u64, |a| a.wrapping_add(window::SHARED)),
        "cvta.to.shared" => form!(u64 => u64, |a| a.wrapping_sub(window::SHARED)),
        "cvta.local" => form!(u64 => u64, |a| a.wrapping_add(window::LOCAL)),
        "cvta.to.local" => form!(u64 => u64, |a| a.wrapping_sub(window::LOCAL)),
        "isspacep.shared" => within!(window::SHARED, window::SHARED + window::SIZE),
        "isspacep.local" => within!(window::LOCAL, window::LOCAL + window::SIZE),
        "isspacep.global" => within!(window::GLOBAL, u64::MAX),
        _ => return None,
    })
}
