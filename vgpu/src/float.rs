//! Number formats below `f64`, and arithmetic with a stated rounding.
//!
//! Every directed or narrow result is formed the same way: the exact result is rounded *to odd* in `f64`, whose 53 bits
//! are more than twice those of `f32` plus two, and then once to the format that was asked for. Rounding to odd keeps
//! the sticky bit, so the second rounding is the only one that counts (Boldo and Melquiond, 2008).

/// Rounding of a floating-point or integer result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even (`.rn`, `.rni`).
    Nearest,
    /// Toward zero (`.rz`, `.rzi`).
    Zero,
    /// Toward minus infinity (`.rm`, `.rmi`).
    Down,
    /// Toward plus infinity (`.rp`, `.rpi`).
    Up,
}

/// A binary format: significant bits with the hidden one, and the exponent of the smallest normal number.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    bits: i32,
    min_exponent: i32,
    max: f64,
}

/// IEEE binary32.
pub const SINGLE: Format = Format { bits: 24, min_exponent: -126, max: f32::MAX as f64 };
/// IEEE binary16.
pub const HALF: Format = Format { bits: 11, min_exponent: -14, max: 65504.0 };
/// bfloat16.
pub const BFLOAT: Format =
    Format { bits: 8, min_exponent: -126, max: 338_953_138_925_153_547_590_470_800_371_487_866_880.0 };

/// `x` rounded to an integral value.
pub fn integral(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// `x` rounded once to `format`; the result is exact as `f32`.
pub fn narrow(x: f64, format: Format, rounding: Rounding) -> f32 {
    if x == 0.0 || !x.is_finite() {
        return x as f32;
    }
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023; // f64 subnormals lie below every format: any quantum does
    let quantum = exponent.max(format.min_exponent) - (format.bits - 1);
    let step = f64::from_bits(((quantum + 1023) as u64) << 52);
    let value = integral(x / step, rounding) * step;
    if value.abs() <= format.max {
        return value as f32;
    }
    let to_max = match rounding {
        Rounding::Nearest => false,
        Rounding::Zero => true,
        Rounding::Down => x > 0.0,
        Rounding::Up => x < 0.0,
    };
    if to_max { (format.max as f32).copysign(x as f32) } else { f32::INFINITY.copysign(x as f32) }
}

/// The `f64` that stands for the exact value `sum + rest`, rounded to odd.
fn odd(sum: f64, rest: f64) -> f64 {
    if rest == 0.0 || !sum.is_finite() || !rest.is_finite() {
        return sum;
    }
    let toward_zero = if (rest > 0.0) == (sum > 0.0) { sum.to_bits() } else { sum.to_bits() - 1 };
    f64::from_bits(toward_zero | 1)
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// `a + b`, rounded to odd.
pub fn add_odd(a: f64, b: f64) -> f64 {
    let (sum, rest) = two_sum(a, b);
    odd(sum, rest)
}

/// `a * b + c` of numbers with at most 24 significant bits, rounded to odd.
pub fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    add_odd(a * b, c) // the product of two such numbers is exact
}

/// `a / b` of numbers with at most 24 significant bits, rounded to odd.
pub fn div_odd(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    let rest = (-quotient).mul_add(b, a);
    odd(quotient, if b < 0.0 { -rest } else { rest })
}

/// The square root, rounded to odd.
pub fn sqrt_odd(a: f64) -> f64 {
    let root = a.sqrt();
    odd(root, (-root).mul_add(root, a))
}

/// Rounds the exact value `value + rest`, whose nearest `f64` is `value`, in a direction.
fn directed(value: f64, rest: f64, rounding: Rounding) -> f64 {
    if rest == 0.0 || !value.is_finite() || !rest.is_finite() {
        return value;
    }
    match rounding {
        Rounding::Nearest => value,
        Rounding::Down if rest < 0.0 => value.next_down(),
        Rounding::Up if rest > 0.0 => value.next_up(),
        Rounding::Zero if (rest > 0.0) != (value > 0.0) => f64::from_bits(value.to_bits() - 1),
        _ => value,
    }
}

/// `a + b` in `f64` with a rounding.
pub fn add_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let (sum, rest) = two_sum(a, b);
    directed(sum, rest, rounding)
}

/// `a * b` in `f64` with a rounding (exact rests below the subnormals are lost, as in every such scheme).
pub fn mul_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let product = a * b;
    directed(product, a.mul_add(b, -product), rounding)
}

/// `a / b` in `f64` with a rounding.
pub fn div_f64(a: f64, b: f64, rounding: Rounding) -> f64 {
    let quotient = a / b;
    let rest = (-quotient).mul_add(b, a);
    directed(quotient, if b < 0.0 { -rest } else { rest }, rounding)
}

/// The square root in `f64` with a rounding.
pub fn sqrt_f64(a: f64, rounding: Rounding) -> f64 {
    let root = a.sqrt();
    directed(root, (-root).mul_add(root, a), rounding)
}

/// A subnormal becomes a zero of its sign (`.ftz`).
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// A 16-bit float.
pub trait Narrow: Copy {
    /// Its format.
    const FORMAT: Format;
    /// Exact value.
    fn widen(self) -> f32;
    /// Of a value that the format holds exactly; every NaN becomes the canonical one.
    fn exact(x: f32) -> Self;
    /// Rounded once.
    #[inline(always)]
    fn round(x: f64, rounding: Rounding) -> Self {
        Self::exact(narrow(x, Self::FORMAT, rounding))
    }
}

/// bfloat16, as its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(pub u16);

impl Narrow for Bf16 {
    const FORMAT: Format = BFLOAT;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
    #[inline(always)]
    fn exact(x: f32) -> Self {
        Bf16(if x.is_nan() { 0x7fff } else { (x.to_bits() >> 16) as u16 })
    }
}

/// IEEE binary16, as its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F16(pub u16);

impl Narrow for F16 {
    const FORMAT: Format = HALF;
    #[inline(always)]
    fn widen(self) -> f32 {
        let (sign, magnitude) = ((self.0 as u32 & 0x8000) << 16, self.0 as u32 & 0x7fff);
        let value = match magnitude >> 10 {
            0 => magnitude as f32 / 16_777_216.0, // subnormals are multiples of 2^-24
            31 => return f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13),
            _ => f32::from_bits((magnitude << 13) + (112 << 23)),
        };
        f32::from_bits(sign | value.to_bits())
    }
    #[inline(always)]
    fn exact(x: f32) -> Self {
        let sign = (x.to_bits() >> 16) as u16 & 0x8000;
        let magnitude = x.abs();
        F16(if x.is_nan() {
            0x7fff
        } else if magnitude.is_infinite() {
            sign | 0x7c00
        } else if magnitude < 6.103_515_6e-5 {
            sign | (magnitude * 16_777_216.0) as u16
        } else {
            sign | ((magnitude.to_bits() - (112 << 23)) >> 13) as u16
        })
    }
}
