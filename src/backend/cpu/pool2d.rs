//! Max pooling and global average pooling on the CPU, channels innermost.

use rayon::prelude::*;

use super::pool::Buffer;
use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::Window;
use crate::tensor::Shape;

/// See [`crate::backend::Backend::max_pool_forward`]. The position is the tap's index `r S + s` in its window.
pub fn max_forward<T: Real>(cpu: &Cpu<T>, x: &CpuTensor<T>, window: Window) -> Result<(CpuTensor<T>, Buffer<u8>)> {
    let [n, h, w, c] = image_dims(x.shape());
    let size = |axis, size| window.output(axis, size).unwrap_or(0);
    let (p, q) = (size(0, h), size(1, w));
    let shape = Shape::from([n, p, q, c]);
    let (mut y, mut argmax) = (cpu.tensor(shape), cpu.byte_scratch(shape.elems()));
    let x = x.buffer().read();
    let rows = y.buffer_mut().write()?.par_chunks_mut(q * c).zip(argmax.write()?.par_chunks_mut(q * c));
    rows.enumerate().for_each(|(row, (y, argmax))| {
        let image = &x[row / p * h * w * c..][..h * w * c];
        for (q, (y, argmax)) in y.chunks_exact_mut(c).zip(argmax.chunks_exact_mut(c)).enumerate() {
            let taps = || taps(window, [h, w], [row % p, q]).map(|(tap, position)| (tap, &image[position * c..][..c]));
            for (i, (y, argmax)) in y.chunks_mut(LANES).zip(argmax.chunks_mut(LANES)).enumerate() {
                let channels = i * LANES..i * LANES + y.len();
                largest(taps().map(|(tap, pixel)| (tap, &pixel[channels.clone()])), y, argmax);
            }
        }
    });
    Ok((y, argmax))
}

/// Channels at once: few enough to stay in registers.
const LANES: usize = 16;

/// The largest of `taps` in each of up to [`LANES`] channels.
fn largest<'a, T: Real>(taps: impl Iterator<Item = (u8, &'a [T])>, y: &mut [T], argmax: &mut [u8]) {
    let mut best = [T::from_f64(f64::NEG_INFINITY); LANES];
    // As wide as the values, so that both are selected by one mask.
    let mut index = [0u32; LANES];
    for (i, (tap, values)) in taps.enumerate() {
        if i == 0 {
            index = [tap.into(); LANES];
        }
        if let Ok(values) = <&[T; LANES]>::try_from(values) {
            for j in 0..LANES {
                keep_larger(values[j], tap, &mut best[j], &mut index[j]);
            }
        } else {
            for (j, &value) in values.iter().enumerate() {
                keep_larger(value, tap, &mut best[j], &mut index[j]);
            }
        }
    }
    y.copy_from_slice(&best[..y.len()]);
    argmax.iter_mut().zip(index).for_each(|(argmax, index)| *argmax = index as u8);
}

#[inline(always)]
fn keep_larger<T: Real>(value: T, tap: u8, best: &mut T, index: &mut u32) {
    let larger = value > *best || value.is_nan();
    *index = if larger { tap.into() } else { *index };
    *best = if larger { value } else { *best };
}

/// Taps of the window at output `[p, q]` that lie on the image, with their position `row W + column`, row-major.
fn taps(window: Window, [h, w]: [usize; 2], [p, q]: [usize; 2]) -> impl Iterator<Item = (u8, usize)> {
    let Window { kernel: [r_count, s_count], stride, padding } = window;
    (0..r_count * s_count).filter_map(move |tap| {
        let row = (p * stride + tap / s_count).checked_sub(padding)?;
        let column = (q * stride + tap % s_count).checked_sub(padding)?;
        (row < h && column < w).then_some((tap as u8, row * w + column))
    })
}

/// See [`crate::backend::Backend::max_pool_backward`].
pub fn max_backward<T: Real>(
    cpu: &Cpu<T>,
    dy: &CpuTensor<T>,
    argmax: &Buffer<u8>,
    x_shape: Shape,
    window: Window,
) -> Result<CpuTensor<T>> {
    let [_, h, w, c] = image_dims(x_shape);
    let [_, p, q, _] = image_dims(dy.shape());
    let mut dx = cpu.tensor(x_shape);
    let outputs = dy.buffer().read().par_chunks(p * q * c).zip(argmax.read().par_chunks(p * q * c));
    dx.buffer_mut().write()?.par_chunks_mut(h * w * c).zip(outputs).for_each(|(dx, (dy, argmax))| {
        dx.fill(T::ZERO);
        for (pixel, (dy, argmax)) in dy.chunks_exact(c).zip(argmax.chunks_exact(c)).enumerate() {
            let corner = [pixel / q * window.stride, pixel % q * window.stride];
            for j in 0..c {
                let tap = usize::from(argmax[j]);
                let row = corner[0] + tap / window.kernel[1] - window.padding;
                let column = corner[1] + tap % window.kernel[1] - window.padding;
                dx[(row * w + column) * c + j] += dy[j];
            }
        }
    });
    Ok(dx)
}

/// See [`crate::backend::Backend::global_avg_pool_forward`].
pub fn avg_forward<T: Real>(cpu: &Cpu<T>, x: &CpuTensor<T>) -> Result<CpuTensor<T>> {
    let [n, h, w, c] = image_dims(x.shape());
    let mut y = cpu.tensor(Shape::from([n, c]));
    let share = T::from_f64(1.0 / (h * w) as f64);
    let images = x.buffer().read().par_chunks(h * w * c);
    y.buffer_mut().write()?.par_chunks_mut(c).zip(images).for_each(|(y, image)| {
        y.fill(T::ZERO);
        for pixel in image.chunks_exact(c) {
            y.iter_mut().zip(pixel).for_each(|(y, &x)| *y += x);
        }
        y.iter_mut().for_each(|y| *y = *y * share);
    });
    Ok(y)
}

/// See [`crate::backend::Backend::global_avg_pool_backward`].
pub fn avg_backward<T: Real>(cpu: &Cpu<T>, dy: &CpuTensor<T>, x_shape: Shape) -> Result<CpuTensor<T>> {
    let [_, h, w, c] = image_dims(x_shape);
    let mut dx = cpu.tensor(x_shape);
    let share = T::from_f64(1.0 / (h * w) as f64);
    let images = dx.buffer_mut().write()?.par_chunks_mut(h * w * c);
    images.zip(dy.buffer().read().par_chunks(c)).for_each(|(dx, dy)| {
        for pixel in dx.chunks_exact_mut(c) {
            pixel.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = dy * share);
        }
    });
    Ok(dx)
}

/// N, H, W, C.
fn image_dims(shape: Shape) -> [usize; 4] {
    let dims = shape.dims();
    [dims[0], dims[1], dims[2], dims[3]]
}
