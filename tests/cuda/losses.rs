//! NT-Xent, heads with their entropy, and sums of losses.
//!
//! In f32 the bound is twice the error of the CPU's f32 and a few roundings. On tensor cores both factors of a product are
//! rounded to 11 (tf32) or 8 (bf16) bits, so a cosine is off by up to 2 u sum |a b| <= 2 u, a loss by twice that over the
//! temperature, and a gradient by a like share of its own size.

use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Backend, Samples};
use disentangle::config::Precision;
use disentangle::tensor::Shape;

use crate::bounds::{UNIT, distance, largest, parity, rounding, within};
use crate::{Layers, in_each_precision, numbers};

const FLOOR: f64 = 16.0 * UNIT;
const TEMPERATURE: f64 = 0.5;
/// Of the losses: not 1, which would hide that it is left out.
const DLOSS: f64 = 0.75;

/// Half the distance of two neighbours among the factors of products, relative, at most.
fn unit(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => UNIT,
        Precision::Tf32 => 1.0 / 2048.0,
        Precision::Bf16 => 1.0 / 256.0,
    }
}

/// Loss and gradient.
fn nt_xent<B: Layers>(backend: &B, shape: [usize; 2], samples: Samples, z: &[f64]) -> [Vec<f64>; 2] {
    let z = backend.activations(shape, z);
    let (loss, saved) = backend.nt_xent_forward(&z, samples, TEMPERATURE).unwrap();
    let dloss = backend.full(Shape::SCALAR, DLOSS).unwrap();
    let dz = backend.nt_xent_backward(&saved, &dloss, z.shape(), samples, TEMPERATURE).unwrap();
    assert_eq!((loss.shape(), dz.shape()), (Shape::SCALAR, z.shape()));
    [loss, dz].map(|result| backend.read(&result))
}

#[test]
fn nt_xent_is_the_cpus() {
    in_each_precision(|cuda, precision| {
        for shape in [[2, 1], [6, 5], [14, 33], [66, 17], [128, 64], [130, 128]] {
            for samples in [Samples::Rows, Samples::Columns] {
                let what = format!("{precision} {shape:?} {samples:?}");
                let z = numbers(precision, shape[0] * shape[1], 1.0);
                let [loss, dz] = nt_xent(&**cuda, shape, samples, &z);
                let [exact, dexact] = nt_xent(&Cpu::<f64>::new(), shape, samples, &z);
                let [plain, dplain] = nt_xent(&Cpu::<f32>::new(), shape, samples, &z);
                let size = largest(&dexact).max(1e-3);
                if precision == Precision::F32 {
                    parity(&what, &loss, [&exact, &plain], FLOOR, 0.0);
                    parity(&what, &dz, [&dexact, &dplain], FLOOR * size, 0.0);
                } else {
                    let share = 4.0 * unit(precision) / TEMPERATURE;
                    within(&what, &loss, &exact, |_| share);
                    assert!(distance(&dz, &dexact) <= 4.0 * share * size, "{what}: {}", distance(&dz, &dexact));
                }
            }
        }
    });
}

/// Entropy, its gradient, heads, and the gradient through them.
fn heads<B: Layers>(backend: &B, logits: &[f64], dy: &[f64]) -> [Vec<f64>; 4] {
    let shape = [logits.len() / 3, 3];
    let (a, dy) = (backend.activations(shape, logits), backend.activations(shape, dy));
    let loss = backend.binary_entropy_forward(&a).unwrap();
    let dloss = backend.full(Shape::SCALAR, DLOSS).unwrap();
    let da = backend.binary_entropy_backward(&a, &dloss).unwrap();
    let y = backend.sigmoid_forward(&a).unwrap();
    let dx = backend.sigmoid_backward(&y, &dy).unwrap();
    [loss, da, y, dx].map(|result| backend.read(&result))
}

/// A head is an exponential, a sum and a quotient; its product with 1 - y, and with the logit, has a few roundings more. In
/// bf16 the gradient through heads is taken from heads that were rounded: off by as much of y, near 1 of 1 - y.
#[test]
fn heads_and_their_entropy_are_the_cpus() {
    in_each_precision(|cuda, precision| {
        for (count, size) in [(3, 1.0), (3 * 257, 2.0), (3 * 1000, 12.0)] {
            let what = format!("{precision} {count} logits of size {size}");
            let (logits, dy) = (numbers(precision, count, size), numbers(precision, count, 1.0));
            let [loss, da, y, dx] = heads(&**cuda, &logits, &dy);
            let [exact, dexact, heads_exact, dx_exact] = heads(&Cpu::<f64>::new(), &logits, &dy);
            let [plain, dplain, heads_plain, _] = heads(&Cpu::<f32>::new(), &logits, &dy);
            let rounded = rounding(precision);
            parity(&what, &loss, [&exact, &plain], FLOOR, 0.0);
            parity(&what, &da, [&dexact, &dplain], FLOOR * largest(&dexact), rounded);
            parity(&what, &y, [&heads_exact, &heads_plain], FLOOR, rounded);
            let unit = 16.0 * UNIT + 2.0 * rounded;
            within(&what, &dx, &dx_exact, |i| unit * dy[i].abs() * heads_exact[i] + f64::from(f32::MIN_POSITIVE));
        }
    });
}

#[test]
fn losses_are_summed_up() {
    in_each_precision(|cuda, precision| {
        let values = [1.25, -3.5, 0.375];
        let weights = [1.0, 0.5, -0.1];
        let terms = values.map(|value| cuda.parameter(Shape::SCALAR, &[value]));
        for count in 1..=3 {
            let terms: Vec<_> = terms[..count].iter().collect();
            let sum = cuda.weighted_sum(&terms, &weights[..count]).unwrap();
            let exact: f64 = values.iter().zip(weights).take(count).map(|(value, weight)| value * weight).sum();
            let found = cuda.scalar(&sum).unwrap();
            assert!((found - exact).abs() <= 4.0 * UNIT * 5.0, "{precision}: {found} instead of {exact}");
        }
        assert!(cuda.weighted_sum(&[&terms[0]], &weights).is_err());
    });
}
