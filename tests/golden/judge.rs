//! What counts as agreement.
//!
//! Bounds are given in units of the roundoff u of the precision under test (2^-24 for f32, 2^-53 for f64), element by
//! element, from a worst-case argument at the place of use: sums of n terms err by at most `gamma_n = n u / (1 - n u)` times
//! the sum of the terms' magnitudes (Higham 2002, section 3.1), in any order.
//!
//! f32 must keep to its bound element by element. f64 must agree to 1e-9 in the norm over the tensor, plus the bound where
//! a result that is zero in exact arithmetic leaves no norm to be relative to. A reference that was itself rounded to f32
//! may be off by its own half unit, 2^-24 of each element.

use disentangle::backend::Backend;
use disentangle::backend::cpu::Real;
use disentangle::tensor::{Shape, Tensor};

use crate::reader::{Array, Golden};

/// A precision under test.
pub trait Precision: Real {
    /// Its name.
    const NAME: &str;
    /// Its unit roundoff.
    const ROUNDOFF: f64;
    /// Relative error, in the norm over a tensor, that is always allowed.
    const NORMWISE: f64;
}

impl Precision for f32 {
    const NAME: &str = "f32";
    const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;
    const NORMWISE: f64 = 0.0;
}

impl Precision for f64 {
    const NAME: &str = "f64";
    const ROUNDOFF: f64 = f64::EPSILON / 2.0;
    const NORMWISE: f64 = 1e-9;
}

/// Half a unit in the last place of a reference stored in f32.
const STORED: f64 = f32::EPSILON as f64 / 2.0;

/// Collects comparisons of one file in one precision.
pub struct Judge<'a> {
    golden: &'a Golden,
    precision: &'static str,
    compared: usize,
    worst: (f64, String),
    failures: Vec<String>,
}

impl<'a> Judge<'a> {
    pub fn new<T: Precision>(golden: &'a Golden) -> Self {
        Self::named(golden, T::NAME)
    }

    /// Of a precision that goes by another name.
    pub fn named(golden: &'a Golden, precision: &'static str) -> Self {
        Judge { golden, precision, compared: 0, worst: (0.0, "nothing".into()), failures: Vec::new() }
    }

    /// Compares element by element; `bound` gives the error allowed to element i in units of the roundoff.
    pub fn elements<T: Precision>(&mut self, name: &str, got: &[f64], expected: &Array, bound: impl Fn(usize) -> f64) {
        assert_eq!(got.len(), expected.values.len(), "{name}: number of elements");
        let errors: Vec<f64> =
            got.iter().zip(&expected.values).map(|(g, e)| beyond_storage(g, e, expected.single)).collect();
        if T::NORMWISE > 0.0 {
            let slack = norm((0..got.len()).map(|i| bound(i) * T::ROUNDOFF));
            let allowed = T::NORMWISE * norm(expected.values.iter().copied()) + slack;
            return self.at_most(name, norm(errors.into_iter()), allowed);
        }
        let ratio = |i: usize| ratio(errors[i], bound(i) * T::ROUNDOFF);
        let worst = (0..got.len()).max_by(|&i, &j| ratio(i).total_cmp(&ratio(j)));
        if let Some(i) = worst {
            self.at_most(&format!("{name}[{i}]"), errors[i], bound(i) * T::ROUNDOFF);
        }
    }

    /// Compares in the norm over the tensor: the error may be `relative` of the reference's norm, and `more`.
    pub fn normwise(&mut self, name: &str, got: &[f64], expected: &Array, relative: f64, more: f64) {
        assert_eq!(got.len(), expected.values.len(), "{name}: number of elements");
        let errors = got.iter().zip(&expected.values).map(|(g, e)| beyond_storage(g, e, expected.single));
        self.at_most(name, norm(errors), relative * norm(expected.values.iter().copied()) + more);
    }

    /// Notes an error and what was allowed.
    pub fn at_most(&mut self, name: &str, error: f64, allowed: f64) {
        self.compared += 1;
        let ratio = ratio(error, allowed);
        if ratio > self.worst.0 || ratio.is_nan() {
            self.worst = (ratio, format!("{name}, error {error:.1e}"));
        }
        if ratio > 1.0 || ratio.is_nan() {
            self.failures.push(format!("{name}: error {error:.3e}, allowed {allowed:.3e}"));
        }
    }

    /// Prints the worst comparison; fails if one was out of bounds, or if there was none.
    pub fn finish(self) {
        let Judge { golden, precision, compared, worst, failures } = self;
        let place = golden.path.display();
        println!("{place} {precision}: {compared} comparisons, worst at {:.3} of its bound: {}", worst.0, worst.1);
        assert!(compared > 0, "{place}: nothing to compare");
        assert!(failures.is_empty(), "{place} {precision}: {} failures\n{}", failures.len(), failures.join("\n"));
    }
}

/// The error beyond what the reference's own rounding explains.
fn beyond_storage(got: &f64, expected: &f64, single: bool) -> f64 {
    let error = (got - expected).abs();
    let stored = if single { STORED * expected.abs() } else { 0.0 };
    // Not `max`, which would drop a NaN.
    if error <= stored { 0.0 } else { error - stored }
}

fn ratio(error: f64, allowed: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / allowed }
}

/// Euclidean norm.
pub fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// Puts an array on the device, with its shape.
pub fn upload<B: Backend>(backend: &B, array: &Array) -> Tensor<B> {
    let shape = match *array.shape.as_slice() {
        [] => Shape::SCALAR,
        [a] => Shape::from([a]),
        [a, b] => Shape::from([a, b]),
        [a, b, c] => Shape::from([a, b, c]),
        [a, b, c, d] => Shape::from([a, b, c, d]),
        _ => panic!("more than four dimensions: {:?}", array.shape),
    };
    backend.upload(shape, &array.values).unwrap()
}
