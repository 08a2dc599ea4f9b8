//! NT-Xent on the CPU, a block of rows of the similarity matrix at a time: O(R d) memory.

use rayon::prelude::*;

use super::matmul::{Layout, product};
use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::{NtXentSaved, Samples};
use crate::tensor::Shape;

/// Rows of the similarity matrix at once.
const BLOCK: usize = 32;

/// Norms are clamped from below at this, as `torch.nn.functional.normalize` does.
const MIN_NORM: f64 = 1e-12;

/// How the samples lie in the input.
#[derive(Clone, Copy)]
struct Gather {
    samples: Samples,
    rows: usize,
    columns: usize,
}

impl Gather {
    fn new(z: Shape, samples: Samples) -> Self {
        Gather { samples, rows: z.rows(), columns: z.last() }
    }

    /// Samples (2R) and their dimension (d).
    fn unit_shape(&self) -> [usize; 2] {
        match self.samples {
            Samples::Rows => [self.rows, self.columns],
            Samples::Columns => [2 * self.columns, self.rows / 2],
        }
    }

    /// Position in the input of element `j` of sample `i`.
    fn at(&self, i: usize, j: usize) -> usize {
        match self.samples {
            Samples::Rows => i * self.columns + j,
            Samples::Columns => (i / self.columns * (self.rows / 2) + j) * self.columns + i % self.columns,
        }
    }
}

/// See [`crate::backend::Backend::nt_xent_forward`].
pub fn forward<T: Real>(
    cpu: &Cpu<T>,
    z: &CpuTensor<T>,
    samples: Samples,
    temperature: f64,
) -> Result<(CpuTensor<T>, NtXentSaved<Cpu<T>>)> {
    let gather = Gather::new(z.shape(), samples);
    let [count, dim] = gather.unit_shape();
    let (mut unit, mut norm) = (cpu.tensor(Shape::from([count, dim])), cpu.tensor(Shape::from([count])));
    normalise(gather, z.buffer().read(), unit.buffer_mut().write()?, norm.buffer_mut().write()?);
    let mut lse = cpu.tensor(Shape::from([count]));
    let mut losses = cpu.wide_scratch(count);
    cpu.reserve_scratch(BLOCK * count);
    let u = unit.buffer().read();
    let blocks = lse.buffer_mut().write()?.par_chunks_mut(BLOCK).zip(losses.write()?.par_chunks_mut(BLOCK));
    blocks.enumerate().for_each(|(block, (lse, losses))| {
        let mut scores = cpu.scratch(BLOCK * count);
        let Ok(scores) = scores.write() else { unreachable!("a new buffer has one handle") };
        similarities(u, dim, block * BLOCK, lse.len(), scores);
        for (i, row) in scores.chunks_exact(count).take(lse.len()).enumerate() {
            let sample = block * BLOCK + i;
            let value = log_sum_exp(row, sample, temperature);
            lse[i] = T::from_f64(value);
            losses[i] = value - row[positive(sample, count)].to_f64() / temperature;
        }
    });
    let loss = losses.read().iter().sum::<f64>() / count as f64;
    Ok((cpu.full_tensor(Shape::SCALAR, loss)?, NtXentSaved { unit, norm, lse }))
}

/// The other view of sample `i` of `count`.
fn positive(i: usize, count: usize) -> usize {
    (i + count / 2) % count
}

fn normalise<T: Real>(gather: Gather, z: &[T], unit: &mut [T], norm: &mut [T]) {
    let [_, dim] = gather.unit_shape();
    unit.par_chunks_mut(dim).zip(norm).enumerate().for_each(|(i, (unit, norm))| {
        let mut sum = 0.0;
        for (j, u) in unit.iter_mut().enumerate() {
            *u = z[gather.at(i, j)];
            sum += u.to_f64() * u.to_f64();
        }
        let length = sum.sqrt();
        *norm = T::from_f64(length);
        let length = length.max(MIN_NORM);
        unit.iter_mut().for_each(|u| *u = T::from_f64(u.to_f64() / length));
    });
}

/// Cosines of samples `first .. first + rows` with all samples.
fn similarities<T: Real>(unit: &[T], dim: usize, first: usize, rows: usize, scores: &mut [T]) {
    let count = unit.len() / dim;
    let all = (unit, Layout::rows(0, dim).transposed());
    product((rows, count, dim), scores, (unit, Layout::rows(first * dim, dim)), all);
}

/// `log sum_{k != skip} exp(row[k] / temperature)`, from the largest term down.
fn log_sum_exp<T: Real>(row: &[T], skip: usize, temperature: f64) -> f64 {
    let others = || row[..skip].iter().chain(&row[skip + 1..]);
    // NaN must reach the loss: a maximum would drop it.
    let largest = others().fold(T::from_f64(f64::NEG_INFINITY), |m, &s| if s > m || s.is_nan() { s } else { m });
    let rate = T::from_f64(1.0 / temperature);
    let sum: f64 = others().map(|&s| ((s - largest) * rate).exp().to_f64()).sum();
    largest.to_f64() / temperature + sum.ln()
}

/// See [`crate::backend::Backend::nt_xent_backward`]. With `P_ik = exp(s_ik / t - lse_i)`, the gradient of unit sample i is
/// `dloss / (2R t) sum_{k != i} (P_ik + P_ki - 2 [k = pos(i)]) u_k`: each row gathers what it gives and what it receives, so
/// no two rows write the same place. Through the normalisation: `dz = (du - u (u . du)) / |z|`, and `du / 1e-12` for a row
/// whose norm was clamped.
pub fn backward<T: Real>(
    cpu: &Cpu<T>,
    saved: &NtXentSaved<Cpu<T>>,
    dloss: &CpuTensor<T>,
    z_shape: Shape,
    samples: Samples,
    temperature: f64,
) -> Result<CpuTensor<T>> {
    let gather = Gather::new(z_shape, samples);
    let [count, dim] = gather.unit_shape();
    let (u, lse, norm) = (saved.unit.buffer().read(), saved.lse.buffer().read(), saved.norm.buffer().read());
    let factor = dloss.buffer().read()[0].to_f64() / (count as f64 * temperature);
    let mut dsamples = cpu.scratch(count * dim);
    cpu.reserve_scratch(BLOCK * count);
    dsamples.write()?.par_chunks_mut(BLOCK * dim).enumerate().for_each(|(block, du)| {
        let (first, rows) = (block * BLOCK, du.len() / dim);
        let mut scores = cpu.scratch(BLOCK * count);
        let Ok(scores) = scores.write() else { unreachable!("a new buffer has one handle") };
        similarities(u, dim, first, rows, scores);
        for (i, row) in scores.chunks_exact_mut(count).take(rows).enumerate() {
            weights(row, first + i, lse, temperature);
        }
        product((rows, dim, count), du, (scores, Layout::rows(0, count)), (u, Layout::rows(0, dim)));
        for (i, du) in du.chunks_exact_mut(dim).enumerate() {
            let sample = first + i;
            through_norm(&u[sample * dim..][..dim], norm[sample].to_f64(), factor, du);
        }
    });
    let mut dz = cpu.tensor(z_shape);
    scatter(gather, dsamples.read(), dz.buffer_mut().write()?);
    Ok(dz)
}

/// Turns the similarities of sample `i` into the weights of the other samples in its gradient.
fn weights<T: Real>(row: &mut [T], i: usize, lse: &[T], temperature: f64) {
    let rate = T::from_f64(1.0 / temperature);
    let own = lse[i];
    for (s, &other) in row.iter_mut().zip(lse) {
        let scaled = *s * rate;
        *s = (scaled - own).exp() + (scaled - other).exp();
    }
    let positive = positive(i, row.len());
    row[positive] = row[positive] - T::from_f64(2.0);
    row[i] = T::ZERO;
}

fn through_norm<T: Real>(u: &[T], norm: f64, factor: f64, du: &mut [T]) {
    // A clamped norm is a constant: nothing to project out.
    let along: f64 = match norm < MIN_NORM {
        true => 0.0,
        false => u.iter().zip(&*du).map(|(u, du)| u.to_f64() * du.to_f64()).sum(),
    };
    let factor = factor / norm.max(MIN_NORM);
    for (du, u) in du.iter_mut().zip(u) {
        *du = T::from_f64((du.to_f64() - along * u.to_f64()) * factor);
    }
}

/// Puts sample gradients back where the samples came from.
fn scatter<T: Real>(gather: Gather, dsamples: &[T], dz: &mut [T]) {
    let [_, dim] = gather.unit_shape();
    match gather.samples {
        Samples::Rows => dz.copy_from_slice(dsamples),
        Samples::Columns => dz.par_chunks_mut(gather.columns).enumerate().for_each(|(row, dz)| {
            let (view, j) = (row / dim, row % dim);
            for (head, dz) in dz.iter_mut().enumerate() {
                *dz = dsamples[(view * gather.columns + head) * dim + j];
            }
        }),
    }
}
