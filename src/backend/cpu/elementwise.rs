//! One pass over memory: sigmoid, sums.

use rayon::prelude::*;

use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::NonFinite;

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

/// The elements that are infinite or NaN, if there are any.
pub fn non_finite<T: Real>(x: &[T]) -> Option<NonFinite> {
    let is_bad = |x: &T| !x.to_f64().is_finite();
    let first = x.iter().position(is_bad)?;
    Some(NonFinite { count: x[first..].iter().filter(|x| is_bad(x)).count(), first, value: x[first].to_f64() })
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
