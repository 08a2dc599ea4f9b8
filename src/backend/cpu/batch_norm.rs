//! Batch norm on the CPU: statistics per view, with the residual add and ReLU that follow in the same pass.
//!
//! Statistics take one pass over memory: each block of rows (a few ten KiB, so it stays in the first-level cache) gives its
//! mean and, in a second pass over the cached block, its sum of squared deviations; blocks are combined in double precision
//! by the pairwise update of Chan, Golub and LeVeque (1983), in order. No E[x^2] - E[x]^2: a channel of mean 500 and
//! deviation 0.05 keeps its digits. For the same reason the output is computed as `(x - mean) scale + bias`.

use rayon::prelude::*;

use super::pool::Buffer;
use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::{Activation, Affine, BatchNormGrads, BatchStats, Residual, RunningStats};
use crate::tensor::Shape;

/// Elements of a block: 32 KiB of f32.
const BLOCK: usize = 8192;

/// A view's rows and how they are cut into blocks.
#[derive(Clone, Copy)]
struct Rows {
    channels: usize,
    /// Rows of one view.
    view: usize,
    block: usize,
}

impl Rows {
    fn new(x: Shape, views: usize) -> Self {
        let channels = x.last();
        Rows { channels, view: x.rows() / views.max(1), block: (BLOCK / channels.max(1)).max(1) }
    }

    fn blocks_per_view(&self) -> usize {
        self.view.div_ceil(self.block)
    }
}

/// Sums over blocks, `[view][block][2][channel]`, and the function that adds blocks up in order.
fn reduce_blocks<T: Real>(
    cpu: &Cpu<T>,
    rows: Rows,
    views: usize,
    block: impl Fn(usize, usize, &mut [f64], &mut [f64]) + Sync,
) -> Result<Buffer<f64>> {
    let (c, blocks) = (rows.channels, rows.blocks_per_view());
    let mut partial = cpu.wide_scratch(views * blocks * 2 * c);
    partial.write()?.par_chunks_mut(2 * c).enumerate().for_each(|(i, out)| {
        let (first, second) = out.split_at_mut(c);
        let start = (i / blocks) * rows.view + (i % blocks) * rows.block;
        let count = rows.block.min(rows.view - (i % blocks) * rows.block);
        block(start, count, first, second);
    });
    Ok(partial)
}

/// Adds `values` of each row of a block to `sums` by channel, in the element type four rows at a time (short enough to keep
/// its digits), then in double precision.
fn column_sums<T: Real>(rows: &[T], channels: usize, sums: &mut [f64], value: impl Fn(usize, T) -> T) {
    sums.fill(0.0);
    let quads = rows.chunks_exact(4 * channels);
    for row in quads.remainder().chunks_exact(channels) {
        for (c, (sum, &x)) in sums.iter_mut().zip(row).enumerate() {
            *sum += value(c, x).to_f64();
        }
    }
    for quad in quads {
        let (a, rest) = quad.split_at(channels);
        let (b, rest) = rest.split_at(channels);
        let (c, d) = rest.split_at(channels);
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum += ((value(i, a[i]) + value(i, b[i])) + (value(i, c[i]) + value(i, d[i]))).to_f64();
        }
    }
}

/// Mean and biased variance per view and channel, `[view][2][channel]`.
fn statistics<T: Real>(cpu: &Cpu<T>, x: &[T], rows: Rows, views: usize) -> Result<Buffer<f64>> {
    let c = rows.channels;
    cpu.reserve_scratch(c);
    let partial = reduce_blocks(cpu, rows, views, |start, count, mean, m2| {
        let block = &x[start * c..(start + count) * c];
        column_sums(block, c, mean, |_, x| x);
        mean.iter_mut().for_each(|m| *m /= count as f64);
        let mut center = cpu.scratch(c);
        let Ok(center) = center.write() else { unreachable!("a new buffer has one handle") };
        center.iter_mut().zip(mean.iter_mut()).for_each(|(center, m)| *center = T::from_f64(*m));
        let center = &*center;
        column_sums(block, c, m2, |i, x| (x - center[i]) * (x - center[i]));
        for ((m2, mean), center) in m2.iter_mut().zip(mean.iter()).zip(center) {
            // The deviations were taken from the rounded mean.
            let shift = *mean - center.to_f64();
            *m2 -= count as f64 * shift * shift;
        }
    })?;
    let mut result = cpu.wide_scratch(views * 2 * c);
    let partial = partial.read();
    for (view, out) in result.write()?.chunks_exact_mut(2 * c).enumerate() {
        let (mean, m2) = out.split_at_mut(c);
        mean.fill(0.0);
        m2.fill(0.0);
        let mut seen = 0.0;
        for (i, block) in
            partial.chunks_exact(2 * c).skip(view * rows.blocks_per_view()).take(rows.blocks_per_view()).enumerate()
        {
            let count = rows.block.min(rows.view - i * rows.block) as f64;
            let share = count / (seen + count);
            for j in 0..c {
                let delta = block[j] - mean[j];
                mean[j] += delta * share;
                m2[j] += block[c + j] + delta * delta * seen * share;
            }
            seen += count;
        }
        m2.iter_mut().for_each(|m2| *m2 = (*m2 / seen).max(0.0));
    }
    Ok(result)
}

/// See [`crate::backend::Backend::batch_norm_forward`].
pub fn forward<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    affine: Affine<Cpu<T>>,
    residual: Option<&CpuTensor<T>>,
    running: Option<RunningStats<Cpu<T>>>,
    views: usize,
    eps: f64,
    activation: Activation,
) -> Result<(CpuTensor<T>, BatchStats<Cpu<T>>)> {
    let rows = Rows::new(x.shape(), views);
    let c = rows.channels;
    let statistics = statistics(cpu, x.buffer().read(), rows, views)?;
    let statistics = statistics.read();
    let stats_shape = Shape::from([views, c]);
    let (mut mean, mut inv_std) = (cpu.tensor(stats_shape), cpu.tensor(stats_shape));
    {
        let (mean, inv_std) = (mean.buffer_mut().write()?, inv_std.buffer_mut().write()?);
        for (view, stats) in statistics.chunks_exact(2 * c).enumerate() {
            for j in 0..c {
                mean[view * c + j] = T::from_f64(stats[j]);
                inv_std[view * c + j] = T::from_f64(1.0 / (stats[c + j] + eps).sqrt());
            }
        }
    }
    if let Some(running) = running {
        update_running(running, statistics, rows)?;
    }
    let y = normalise(cpu, x, affine, residual, mean.buffer().read(), inv_std.buffer().read(), views, activation)?;
    Ok((y, BatchStats { mean, inv_std }))
}

fn update_running<T: Real>(running: RunningStats<Cpu<T>>, statistics: &[f64], rows: Rows) -> Result<()> {
    let (c, momentum) = (rows.channels, running.momentum);
    // PyTorch divides by n - 1; a single row has no unbiased variance and would give infinity there.
    let unbiased = rows.view as f64 / (rows.view as f64 - 1.0).max(1.0);
    let (mean, var) = (running.mean.buffer_mut().write()?, running.var.buffer_mut().write()?);
    for stats in statistics.chunks_exact(2 * c) {
        for j in 0..c {
            mean[j] = T::from_f64((1.0 - momentum) * mean[j].to_f64() + momentum * stats[j]);
            var[j] = T::from_f64((1.0 - momentum) * var[j].to_f64() + momentum * unbiased * stats[c + j]);
        }
    }
    Ok(())
}

/// `y = act((x - mean) inv_std weight + bias + residual)`, mean and inv_std `[views, C]`.
fn normalise<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    affine: Affine<Cpu<T>>,
    residual: Option<&CpuTensor<T>>,
    mean: &[T],
    inv_std: &[T],
    views: usize,
    activation: Activation,
) -> Result<CpuTensor<T>> {
    let rows = Rows::new(x.shape(), views);
    let c = rows.channels;
    let (weight, bias) = (affine.weight.buffer().read(), affine.bias.buffer().read());
    let mut scale = cpu.scratch(views * c);
    scale.write()?.iter_mut().enumerate().for_each(|(i, s)| *s = inv_std[i] * weight[i % c]);
    let (scale, x_values) = (scale.read(), x.buffer().read());
    let mut y = cpu.tensor(x.shape());
    y.buffer_mut().write()?.par_chunks_mut(rows.view * c).enumerate().for_each(|(view, y)| {
        let (mean, scale) = (&mean[view * c..][..c], &scale[view * c..][..c]);
        y.par_chunks_mut(rows.block * c).enumerate().for_each(|(block, y)| {
            let start = (view * rows.view + block * rows.block) * c;
            for (i, y) in y.chunks_exact_mut(c).enumerate() {
                let at = start + i * c;
                let x = &x_values[at..at + c];
                match residual {
                    Some(residual) => {
                        let residual = &residual.buffer().read()[at..at + c];
                        for j in 0..c {
                            y[j] = (x[j] - mean[j]) * scale[j] + bias[j] + residual[j];
                        }
                    }
                    None => {
                        for j in 0..c {
                            y[j] = (x[j] - mean[j]) * scale[j] + bias[j];
                        }
                    }
                }
                if activation == Activation::Relu {
                    // Written so that NaN stays NaN.
                    y.iter_mut().for_each(|y| *y = if *y < T::ZERO { T::ZERO } else { *y });
                }
            }
        });
    });
    Ok(y)
}

/// See [`crate::backend::Backend::batch_norm_inference`].
pub fn inference<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    affine: Affine<Cpu<T>>,
    residual: Option<&CpuTensor<T>>,
    mean: &CpuTensor<T>,
    var: &CpuTensor<T>,
    eps: f64,
    activation: Activation,
) -> Result<CpuTensor<T>> {
    let mut inv_std = cpu.scratch(x.shape().last());
    for (inv_std, var) in inv_std.write()?.iter_mut().zip(var.buffer().read()) {
        *inv_std = T::from_f64(1.0 / (var.to_f64() + eps).sqrt());
    }
    normalise(cpu, x, affine, residual, mean.buffer().read(), inv_std.read(), 1, activation)
}

/// See [`crate::backend::Backend::batch_norm_backward`]. With g the gradient behind the activation and m rows a view:
/// `dbias = sum g`, `dweight = sum g xhat`, `dx = weight inv_std (g - mean(g) - xhat mean(g xhat))`, xhat = (x - mean) inv_std;
/// the last two means are per view.
pub fn backward<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    y: &CpuTensor<T>,
    mut dy: CpuTensor<T>,
    weight: &CpuTensor<T>,
    stats: &BatchStats<Cpu<T>>,
    residual: Residual,
    activation: Activation,
) -> Result<BatchNormGrads<Cpu<T>>> {
    let views = stats.mean.shape().first();
    let rows = Rows::new(x.shape(), views);
    let c = rows.channels;
    if activation == Activation::Relu {
        dy = relu_backward(cpu, y, dy)?;
    }
    let (mean, inv_std) = (stats.mean.buffer().read(), stats.inv_std.buffer().read());
    let (x_values, g) = (x.buffer().read(), dy.buffer().read());
    let partial = reduce_blocks(cpu, rows, views, |start, count, sum, dot| {
        let mean = &mean[start / rows.view * c..][..c];
        let range = start * c..(start + count) * c;
        column_sums(&g[range.clone()], c, sum, |_, g| g);
        column_dots(&g[range.clone()], &x_values[range], mean, dot);
    })?;
    let totals = Totals::add_up(cpu, partial.read(), rows, views)?;
    let (mut dweight, mut dbias) = (cpu.tensor(weight.shape()), cpu.tensor(weight.shape()));
    totals.parameter_grads(inv_std, dweight.buffer_mut().write()?, dbias.buffer_mut().write()?);
    let coefficients = totals.coefficients(cpu, inv_std, weight.buffer().read())?;
    let dx = input_grad(cpu, x, &dy, mean, coefficients.read(), rows)?;
    let dresidual = (residual == Residual::Added).then_some(dy);
    Ok(BatchNormGrads { dx, dweight, dbias, dresidual })
}

/// `g = dy` where the ReLU passed, else 0; in place where `dy` is not shared.
fn relu_backward<T: Real>(cpu: &Cpu<T>, y: &CpuTensor<T>, mut dy: CpuTensor<T>) -> Result<CpuTensor<T>> {
    let y = y.buffer().read();
    let mask = |(g, y): (&mut [T], &[T])| {
        g.iter_mut().zip(y).for_each(|(g, &y)| *g = if y > T::ZERO { *g } else { T::ZERO });
    };
    if let Ok(g) = dy.buffer_mut().write() {
        g.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(mask);
        return Ok(dy);
    }
    let mut copy = cpu.tensor(dy.shape());
    let out = copy.buffer_mut().write()?;
    out.par_chunks_mut(BLOCK).zip(dy.buffer().read().par_chunks(BLOCK)).zip(y.par_chunks(BLOCK)).for_each(
        |((out, dy), y)| {
            out.copy_from_slice(dy);
            mask((out, y));
        },
    );
    Ok(copy)
}

/// `dot[c] = sum over rows of g (x - mean[c])`.
fn column_dots<T: Real>(g: &[T], x: &[T], mean: &[T], dot: &mut [f64]) {
    let c = mean.len();
    dot.fill(0.0);
    let (g_pairs, x_pairs) = (g.chunks_exact(2 * c), x.chunks_exact(2 * c));
    for (j, (g, x)) in g_pairs.remainder().iter().zip(x_pairs.remainder()).enumerate() {
        dot[j] += (*g * (*x - mean[j])).to_f64();
    }
    for (g, x) in g_pairs.zip(x_pairs) {
        let ((g0, g1), (x0, x1)) = (g.split_at(c), x.split_at(c));
        for (j, dot) in dot.iter_mut().enumerate() {
            *dot += (g0[j] * (x0[j] - mean[j]) + g1[j] * (x1[j] - mean[j])).to_f64();
        }
    }
}

/// Sums per view, `[view][2][channel]`: of g, and of g (x - mean).
struct Totals {
    sums: Buffer<f64>,
    rows: Rows,
}

impl Totals {
    fn add_up<T: Real>(cpu: &Cpu<T>, partial: &[f64], rows: Rows, views: usize) -> Result<Self> {
        let width = 2 * rows.channels;
        let mut sums = cpu.wide_scratch(views * width);
        for (view, sum) in sums.write()?.chunks_exact_mut(width).enumerate() {
            sum.fill(0.0);
            for block in partial.chunks_exact(width).skip(view * rows.blocks_per_view()).take(rows.blocks_per_view()) {
                sum.iter_mut().zip(block).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(Totals { sums, rows })
    }

    fn parameter_grads<T: Real>(&self, inv_std: &[T], dweight: &mut [T], dbias: &mut [T]) {
        let c = self.rows.channels;
        for j in 0..c {
            let (mut weight, mut bias) = (0.0, 0.0);
            for (sums, inv_std) in self.sums.read().chunks_exact(2 * c).zip(inv_std.chunks_exact(c)) {
                bias += sums[j];
                weight += sums[c + j] * inv_std[j].to_f64();
            }
            dweight[j] = T::from_f64(weight);
            dbias[j] = T::from_f64(bias);
        }
    }

    /// Per view: `[3][channel]`: scale, mean of g, and `inv_std^2 mean(g (x - mean))`.
    fn coefficients<T: Real>(&self, cpu: &Cpu<T>, inv_std: &[T], weight: &[T]) -> Result<Buffer<T>> {
        let (c, m) = (self.rows.channels, self.rows.view as f64);
        let mut coefficients = cpu.scratch(inv_std.len() * 3);
        for (view, out) in coefficients.write()?.chunks_exact_mut(3 * c).enumerate() {
            let sums = &self.sums.read()[view * 2 * c..][..2 * c];
            for j in 0..c {
                let inv_std = inv_std[view * c + j].to_f64();
                out[j] = T::from_f64(weight[j].to_f64() * inv_std);
                out[c + j] = T::from_f64(sums[j] / m);
                out[2 * c + j] = T::from_f64(sums[c + j] / m * inv_std * inv_std);
            }
        }
        Ok(coefficients)
    }
}

fn input_grad<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    g: &CpuTensor<T>,
    mean: &[T],
    coefficients: &[T],
    rows: Rows,
) -> Result<CpuTensor<T>> {
    let c = rows.channels;
    let (x_values, g) = (x.buffer().read(), g.buffer().read());
    let mut dx = cpu.tensor(x.shape());
    dx.buffer_mut().write()?.par_chunks_mut(rows.view * c).enumerate().for_each(|(view, dx)| {
        let mean = &mean[view * c..][..c];
        let (scale, rest) = coefficients[view * 3 * c..][..3 * c].split_at(c);
        let (g_mean, slope) = rest.split_at(c);
        dx.par_chunks_mut(rows.block * c).enumerate().for_each(|(block, dx)| {
            let start = (view * rows.view + block * rows.block) * c;
            for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
                let at = start + i * c;
                let (x, g) = (&x_values[at..at + c], &g[at..at + c]);
                for j in 0..c {
                    dx[j] = scale[j] * (g[j] - g_mean[j] - (x[j] - mean[j]) * slope[j]);
                }
            }
        });
    });
    Ok(dx)
}
