//! Gradients against finite differences, both through the kernels.
//!
//! A derivative is taken from four values, f(-2h), f(-h), f(h), f(2h), as (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h. If
//! each value is off by e, that is off by up to 18 e / 12h; and by h^4 f'''''/30, for a function that changes over a length
//! L about (h / L)^4 of the derivative. With f in f32, e is a few roundings of its size, so h is taken as large as L allows:
//! about L / 30, where the second is 1e-6. Inputs are multiples of 2^-10 and h is a power of two: x + h is exact.

use disentangle::backend::cuda::nt_xent::F32;
use disentangle::backend::{Activation, Residual};

use crate::batch_norm::{self, Problem};
use crate::binary_entropy;
use crate::nt_xent::{self, Input};
use crate::{UNIT, device, largest, numbers};

/// What a value of size 1 is off by, at most.
const VALUE: f64 = 16.0 * UNIT;

/// The derivative at 0, in steps of h.
fn derivative(h: f64, mut f: impl FnMut(f32) -> f64) -> f64 {
    let mut at = |steps: f64| f((steps * h) as f32);
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h)
}

/// Numbers to which a power of two above 2^-10 is added without rounding.
fn coarse(count: usize, size: f64) -> Vec<f32> {
    numbers(count, size).into_iter().map(|x| (x * 1024.0).round() / 1024.0).collect()
}

/// Compares a gradient with the derivative of `f` by each element of `x`, where f is of size `size`.
fn check(name: &str, x: &[f32], gradient: &[f64], h: f64, size: f64, mut f: impl FnMut(&[f32]) -> f64) {
    assert_eq!(gradient.len(), x.len(), "{name}");
    let bound = 18.0 / 12.0 * VALUE * size / h + 1e-5 * largest(gradient);
    assert!(bound < 0.01 * largest(gradient), "{name}: no test: bound {bound} for {}", largest(gradient));
    for (i, found) in gradient.iter().enumerate() {
        let mut moved = x.to_vec();
        let expected = derivative(h, |step| {
            moved[i] = x[i] + step;
            f(&moved)
        });
        assert!((found - expected).abs() <= bound, "{name} [{i}]: {found}, by differences {expected}, bound {bound}");
    }
}

#[test]
fn nt_xent_with_samples_in_rows_and_in_columns() {
    let device = device();
    // Norms of about 9 at a temperature of 1/2: a length of 4.
    for input in [Input::rows(&coarse(6 * 5, 4.0), [6, 5]), Input::columns(&coarse(10 * 3, 4.0), [10, 3])] {
        let (loss, gradient) = nt_xent::on_device::<F32>(&device, input, 1.0);
        check(&format!("{:?}", input.samples), input.z, &gradient, 0.125, loss, |z| {
            nt_xent::loss_on_device::<F32>(&device, Input { z, ..input })
        });
    }
}

#[test]
fn binary_entropy_by_its_logits() {
    let device = device();
    // The sigmoid changes over a length of about 3.
    let logits = coarse(5, 1.5);
    let (loss, _, gradient) = binary_entropy::on_device::<f32>(&device, &logits, 1.0);
    check("logits", &logits, &gradient, 0.125, loss, |logits| binary_entropy::on_device::<f32>(&device, logits, 1.0).0);
}

/// What of a problem is moved.
type Which = fn(&mut Problem) -> &mut Vec<f32>;

/// The loss is sum r y for some r, added up in double.
#[test]
fn batch_norm_by_its_input_residual_and_parameters() {
    let device = device();
    for activation in [Activation::Identity, Activation::Relu] {
        let mut p = Problem::new::<f32>([7, 3, 2], Residual::Added, activation);
        // A deviation of 4. The residual decides what the ReLU passes, so that no step crosses its corner.
        p.x = coarse(p.x.len(), 4.0);
        let signs = coarse(p.x.len(), 0.5);
        p.residual = Some(signs.iter().map(|r| if *r < 0.0 { r - 12.0 } else { r + 12.0 }).collect());
        [p.weight, p.bias] = [coarse(3, 1.0), coarse(3, 0.5)];
        p.dy = coarse(p.x.len(), 1.0);
        let ([y, ..], gradients) = batch_norm::on_device::<f32>(&device, &p);
        let loss = |y: &[f64], dy: &[f32]| y.iter().zip(dy).map(|(y, &r)| y * f64::from(r)).sum::<f64>();
        // Each y has an error of its own.
        let size = y.iter().zip(&p.dy).map(|(y, &r)| (y * f64::from(r)).powi(2)).sum::<f64>().sqrt();
        let passed: Vec<bool> = y.iter().map(|&y| y > 0.0).collect();
        let kinds: [(&str, Which); 4] = [
            ("x", |p| &mut p.x),
            ("weight", |p| &mut p.weight),
            ("bias", |p| &mut p.bias),
            ("residual", |p| p.residual.as_mut().unwrap()),
        ];
        for ((name, which), gradient) in kinds.into_iter().zip(&gradients) {
            let before = which(&mut p).clone();
            let name = format!("{name}, {activation:?}");
            check(&name, &before.clone(), gradient, 0.125, size, |moved| {
                which(&mut p).copy_from_slice(moved);
                let ([y, ..], _) = batch_norm::on_device::<f32>(&device, &p);
                assert!(activation == Activation::Identity || y.iter().map(|&y| y > 0.0).eq(passed.iter().copied()));
                loss(&y, &p.dy)
            });
            which(&mut p).copy_from_slice(&before);
        }
    }
}
