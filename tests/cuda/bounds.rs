//! How far a result may be from the one in double precision, by argument.
//!
//! Inputs are numbers that the precision's products take as they are, so that all start from the same. What is left:
//!
//! - f32: twice the largest error of the CPU's f32, and a floor, since that error may happen to be 0.
//! - tf32 and bf16: products of 11 or 8 bits are exact in f32. Tensor cores add at least four of them at a time and cut off
//!   instead of rounding: an error of up to two units of f32, 2^-23 of what is summed up, each time, all of one sign.
//! - bf16: a result is rounded once more, to 8 bits.

use disentangle::config::Precision;

/// Half the distance of two neighbours among f32, relative, at most.
pub const UNIT: f64 = 1.0 / 16_777_216.0;

/// What rounding a result to the type of activations costs, relative, at most.
pub fn rounding(precision: Precision) -> f64 {
    match precision {
        Precision::F32 | Precision::Tf32 => 0.0,
        Precision::Bf16 => 1.0 / 256.0,
    }
}

/// What rounding an input that is not held costs, relative, at most: hardware may cut off what tf32 has not.
pub fn input_rounding(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2.0 * UNIT,
        Precision::Tf32 => 1.0 / 1024.0,
        Precision::Bf16 => 1.0 / 256.0,
    }
}

/// The largest magnitude.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The largest distance of two lists; NaN must meet NaN, and an infinity its own.
pub fn distance(found: &[f64], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let apart = |(&f, &e): (&f64, &f64)| match f == e || f.is_nan() && e.is_nan() {
        true => 0.0,
        false if f.is_finite() && e.is_finite() => (f - e).abs(),
        false => f64::INFINITY,
    };
    found.iter().zip(exact).map(apart).fold(0.0, f64::max)
}

/// Fails where a number is further from the exact one than `bound` says.
#[track_caller]
pub fn within(what: &str, found: &[f64], exact: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(found.len(), exact.len(), "{what}: number of elements");
    for (i, (&found, &exact)) in found.iter().zip(exact).enumerate() {
        let same = found == exact || found.is_nan() && exact.is_nan();
        let bound = bound(i);
        assert!(same || (found - exact).abs() <= bound, "{what} [{i}]: {found} instead of {exact}, bound {bound:e}");
    }
}

/// A result that is a sum of products of held numbers.
pub struct Sums<'a> {
    pub precision: Precision,
    pub found: &'a [f64],
    pub exact: &'a [f64],
    /// From the CPU in f32.
    pub plain: &'a [f64],
    /// The same sums of magnitudes.
    pub magnitudes: &'a [f64],
    /// Products in a sum, at most.
    pub terms: usize,
    /// Relative error of the products, at most, where inputs are not held.
    pub inputs: f64,
}

impl Sums<'_> {
    /// The floor in f32 is that of a random walk: a rounding of the magnitude for each term, in the root of the sum of squares.
    #[track_caller]
    pub fn check(&self, what: &str) {
        let Sums { precision, found, exact, plain, magnitudes, terms, inputs } = *self;
        let terms = terms as f64;
        let (fixed, share) = match precision {
            Precision::F32 => (2.0 * distance(plain, exact), UNIT * terms.sqrt()),
            Precision::Tf32 | Precision::Bf16 => (0.0, 2.0 * UNIT * (terms / 4.0 + 4.0)),
        };
        within(what, found, exact, |i| {
            let sum = fixed + (share + inputs) * magnitudes[i];
            sum + rounding(precision) * (exact[i].abs() + sum)
        });
    }
}

/// Any other result: `rounded` where it is of the type of activations.
#[track_caller]
pub fn parity(what: &str, found: &[f64], [exact, plain]: [&[f64]; 2], floor: f64, rounded: f64) {
    let bound = 2.0 * distance(plain, exact) + floor;
    within(what, found, exact, |i| bound + rounded * (exact[i].abs() + bound));
}
