//! NT-Xent and the entropy beside it.

use disentangle::autograd::Tape;
use disentangle::backend::cpu::{Cpu, Real};
use disentangle::backend::{Backend, Samples};
use disentangle::loss::{LossWeights, losses, trivial_feature_loss};
use disentangle::model::Outputs;
use disentangle::tensor::Shape;

use super::{normal, random, upload};

/// The paper's equations 1-4 (and 5-8 with heads for rows) as they stand, over `samples` of both views, view 1 first.
fn nt_xent_loops(samples: &[Vec<f64>], temperature: f64) -> f64 {
    let cosine = |a: &[f64], b: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
    };
    let (count, mut total) = (samples.len(), 0.0);
    for i in 0..count {
        let positive = (i + count / 2) % count;
        let mut denominator = 0.0;
        for k in 0..count {
            if k != i {
                denominator += (cosine(&samples[i], &samples[k]) / temperature).exp();
            }
        }
        total -= ((cosine(&samples[i], &samples[positive]) / temperature).exp() / denominator).ln();
    }
    total / count as f64
}

/// The samples of a matrix `[2N, d]`: its rows, or each view's columns.
fn samples_of(z: &[f64], [rows, columns]: [usize; 2], samples: Samples) -> Vec<Vec<f64>> {
    match samples {
        Samples::Rows => z.chunks_exact(columns).map(<[f64]>::to_vec).collect(),
        Samples::Columns => {
            let column =
                |view: usize, k: usize| (0..rows / 2).map(|n| z[(view * rows / 2 + n) * columns + k]).collect();
            (0..2 * columns).map(|i| column(i / columns, i % columns)).collect()
        }
    }
}

fn nt_xent<T: Real>(z: &[f64], shape: [usize; 2], samples: Samples, temperature: f64) -> f64 {
    let cpu = Cpu::<T>::new();
    let (loss, _) = cpu.nt_xent_forward(&upload(&cpu, shape, z), samples, temperature).unwrap();
    cpu.scalar(&loss).unwrap()
}

#[test]
fn nt_xent_is_the_papers_formula() {
    for (case, n) in [1, 2, 3, 16, 17, 33, 70].into_iter().enumerate() {
        for d in [1, 2, 7, 32, 65] {
            let mut r = random(1, 100 * case as u64 + d as u64);
            let shape = [2 * n, d];
            let z = normal(&mut r, 2 * n * d);
            for samples in [Samples::Rows, Samples::Columns] {
                for temperature in [0.07, 0.5, 1.0, 3.0] {
                    let expected = nt_xent_loops(&samples_of(&z, shape, samples), temperature);
                    let double = nt_xent::<f64>(&z, shape, samples, temperature);
                    // Sums of some hundred terms of size 1/t; the loops exponentiate up to 1/t without a shift.
                    let scale = 1.0 / temperature + 10.0;
                    assert!((double - expected).abs() < 1e-13 * scale, "{samples:?} {shape:?}: {double}, {expected}");
                    let single = nt_xent::<f32>(&z, shape, samples, temperature);
                    // Two cosines over t, of vectors of d or n roundings, and a logarithm of as many as there are samples.
                    let roundings = 2.0 * (d.max(n) as f64 + 8.0) / temperature + 2.0 * scale;
                    let bound = f64::from(f32::EPSILON) * roundings;
                    assert!((single - expected).abs() < bound, "{samples:?} {shape:?}, f32: {single}, {expected}");
                }
            }
        }
    }
}

#[test]
fn nt_xent_of_equal_samples_is_chance() {
    // All cosines are 1: one term of 2R - 1 equal ones.
    for (rows, columns) in [(2, 3), (10, 7), (66, 40)] {
        let z: Vec<f64> = (0..rows).flat_map(|_| (0..columns).map(|k| (k + 1) as f64)).collect();
        for temperature in [0.5, 1.0] {
            let loss = nt_xent::<f64>(&z, [rows, columns], Samples::Rows, temperature);
            assert!((loss - ((rows - 1) as f64).ln()).abs() < 1e-13, "{rows} equal rows: {loss}");
        }
    }
}

#[test]
fn heads_that_say_a_half_have_the_trivial_loss() {
    for (n, k, alpha) in [(4, 3, 1.0), (16, 20, 1.0), (5, 7, 0.3)] {
        let cpu = Cpu::<f64>::new();
        let mut tape = Tape::new(cpu.clone());
        let logits = tape.leaf(cpu.full(Shape::from([2 * n, k]), 0.0).unwrap());
        let y = tape.sigmoid(logits).unwrap();
        let z = tape.input(upload(&cpu, [2 * n, k], &normal(&mut random(2, k as u64), 2 * n * k)));
        let weights = LossWeights { alpha, temperature_instance: 0.5, temperature_feature: 1.0 };
        let losses = losses(&mut tape, &Outputs { h: z, z, logits, y }, &weights).unwrap();
        let [feature, entropy] = [losses.feature, losses.entropy].map(|loss| tape.scalar(loss).unwrap());
        assert!((entropy - 1.0).abs() < 1e-14, "entropy {entropy}");
        let trivial = trivial_feature_loss(k, alpha);
        assert!((feature - alpha * entropy - trivial).abs() < 1e-13, "{feature} - {alpha} {entropy}, not {trivial}");
        if alpha == 1.0 {
            assert!((trivial - ((2.0 * k as f64 - 1.0).ln() - 1.0)).abs() < 1e-15);
        }
    }
}

#[test]
fn nt_xent_knows_neither_the_order_nor_the_scale_of_samples() {
    let (n, d) = (19, 11);
    let mut r = random(3, 0);
    let z = normal(&mut r, 2 * n * d);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, r.below(i as u32 + 1) as usize);
    }
    // The same order in both views: pairs stay pairs. And each row by a factor of its own.
    let rows: Vec<usize> = order.iter().copied().chain(order.iter().map(|i| n + i)).collect();
    let permuted: Vec<f64> = rows.iter().flat_map(|&i| z[i * d..][..d].to_vec()).collect();
    let scaled: Vec<f64> = z.iter().enumerate().map(|(i, x)| x * 10f64.powi((i / d) as i32 % 7 - 3)).collect();
    let loss = |z: &[f64]| nt_xent::<f64>(z, [2 * n, d], Samples::Rows, 0.5);
    assert!((loss(&z) - loss(&permuted)).abs() < 1e-13);
    assert!((loss(&z) - loss(&scaled)).abs() < 1e-13);
    // Two rows of view 1 exchanged, so that two pairs are torn apart: another loss.
    let mut torn = z.clone();
    (0..d).for_each(|j| torn.swap(j, d + j));
    assert!((loss(&z) - loss(&torn)).abs() > 1e-3);
    // Columns are the rows of the transposed views.
    let transposed: Vec<f64> = samples_of(&z, [2 * n, d], Samples::Columns).concat();
    let columns = nt_xent::<f64>(&z, [2 * n, d], Samples::Columns, 0.5);
    assert!((columns - nt_xent::<f64>(&transposed, [2 * d, n], Samples::Rows, 0.5)).abs() < 1e-13);
}

// -- Convolution --------------------------------------------------------------------------------------------------------
