//! One pass over memory: sigmoid, sums, Adam.

use rayon::prelude::*;

use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::{AdamArgs, AdamTensors};

/// Elements a task takes.
pub const CHUNK: usize = 1 << 14;

/// Partial sums of a reduction, at most: they live on the stack.
const PARTS: usize = 64;

/// Sum of `f` over all elements in double precision: the same on any number of threads.
pub fn sum<T: Real>(x: &[T], f: impl Fn(T) -> f64 + Sync) -> f64 {
    let mut parts = [0.0; PARTS];
    let part = x.len().div_ceil(PARTS).max(1024);
    parts.par_iter_mut().zip(x.par_chunks(part)).for_each(|(sum, x)| {
        // Four running sums, so that additions do not wait for each other.
        let mut lanes = [0.0; 4];
        let quads = x.chunks_exact(4);
        let rest: f64 = quads.remainder().iter().map(|&x| f(x)).sum();
        quads.for_each(|quad| lanes.iter_mut().zip(quad).for_each(|(lane, &x)| *lane += f(x)));
        *sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]) + rest;
    });
    parts.iter().sum()
}

/// `y = f(x)`.
pub fn map<T: Real>(cpu: &Cpu<T>, x: &CpuTensor<T>, f: impl Fn(T) -> T + Sync) -> Result<CpuTensor<T>> {
    let mut y = cpu.tensor(x.shape());
    let chunks = y.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(x.buffer().read().par_chunks(CHUNK));
    chunks.for_each(|(y, x)| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)));
    Ok(y)
}

/// `z = f(x, y)`.
pub fn zip<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    y: &CpuTensor<T>,
    f: impl Fn(T, T) -> T + Sync,
) -> Result<CpuTensor<T>> {
    let mut z = cpu.tensor(x.shape());
    let inputs = x.buffer().read().par_chunks(CHUNK).zip(y.buffer().read().par_chunks(CHUNK));
    z.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(inputs).for_each(|(z, (x, y))| {
        z.iter_mut().zip(x).zip(y).for_each(|((z, &x), &y)| *z = f(x, y));
    });
    Ok(z)
}

/// `1 / (1 + e^-x)` from `e^-|x|`, which cannot overflow.
pub fn sigmoid<T: Real>(x: T) -> T {
    let t = (-x.abs()).exp();
    if x < T::ZERO { t / (T::ONE + t) } else { T::ONE / (T::ONE + t) }
}

/// Adam on one parameter; see [`crate::backend::Backend::adam`].
pub fn adam<T: Real>(tensors: AdamTensors<Cpu<T>>, args: &AdamArgs) -> Result<()> {
    let AdamTensors { param, grad, exp_avg, exp_avg_sq } = tensors;
    let bias1 = 1.0 - args.beta1.powi(args.step.min(i32::MAX as u64) as i32);
    let bias2 = 1.0 - args.beta2.powi(args.step.min(i32::MAX as u64) as i32);
    let real = T::from_f64;
    let (beta1, beta2, rest1, rest2) =
        (real(args.beta1), real(args.beta2), real(1.0 - args.beta1), real(1.0 - args.beta2));
    let (rate, root, eps) = (real(args.learning_rate / bias1), real(1.0 / bias2.sqrt()), real(args.eps));
    let (decay, scale) = (real(args.weight_decay), real(args.grad_scale));
    let params = param.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(grad.buffer().read().par_chunks(CHUNK));
    let moments =
        exp_avg.buffer_mut().write()?.par_chunks_mut(CHUNK).zip(exp_avg_sq.buffer_mut().write()?.par_chunks_mut(CHUNK));
    params.zip(moments).for_each(|((p, g), (m, v))| {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = scale * g + decay * *p;
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * g * g;
            *p = *p - rate * *m / ((*v).sqrt() * root + eps);
        }
    });
    Ok(())
}
