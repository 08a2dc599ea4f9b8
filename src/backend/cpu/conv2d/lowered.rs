//! Convolution of few input channels (the stem) by lowering: each output pixel's receptive field becomes a row.

use std::ops::Range;

use rayon::prelude::*;

use super::geometry::Geometry;
use crate::Result;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::matmul::{Layout, Output, Write, product};
use crate::backend::cpu::real::Real;

/// Copies the receptive field of each output pixel in `pixels` (flat N P Q index) to a row of `R S C` values.
fn lower<T: Real>(g: &Geometry, x: &[T], pixels: Range<usize>, rows: &mut [T]) {
    let [kernel_rows, kernel_columns] = g.window.kernel;
    for (pixel, row) in pixels.zip(rows.chunks_exact_mut(g.taps() * g.c)) {
        let (n, p, q) = (pixel / (g.p * g.q), pixel / g.q % g.p, pixel % g.q);
        let ((r_valid, h), (s_valid, w)) = (g.valid(0, p), g.valid(1, q));
        let taps = s_valid.start * g.c..s_valid.end * g.c;
        for r in 0..kernel_rows {
            let out = &mut row[r * kernel_columns * g.c..][..kernel_columns * g.c];
            if r_valid.contains(&r) && !taps.is_empty() {
                let from = ((n * g.h + h + r - r_valid.start) * g.w + w) * g.c;
                out[..taps.start].fill(T::ZERO);
                out[taps.clone()].copy_from_slice(&x[from..from + taps.len()]);
                out[taps.end..].fill(T::ZERO);
            } else {
                out.fill(T::ZERO);
            }
        }
    }
}

/// Output pixels that are lowered at once: their rows stay in the second-level cache.
const LOWERED_PIXELS: usize = 512;

/// See [`crate::backend::Backend::conv2d_forward`].
pub fn forward<T: Real>(cpu: &Cpu<T>, g: &Geometry, x: &[T], w: &[T], y: &mut [T]) {
    let inner = g.taps() * g.c;
    cpu.reserve_scratch(LOWERED_PIXELS * inner);
    y.par_chunks_mut(LOWERED_PIXELS * g.k).enumerate().for_each(|(block, y)| {
        let (first, count) = (block * LOWERED_PIXELS, y.len() / g.k);
        let mut rows = cpu.scratch(LOWERED_PIXELS * inner);
        let Ok(rows) = rows.write() else { unreachable!("a new buffer has one handle") };
        lower(g, x, first..first + count, rows);
        product((count, g.k, inner), y, (rows, Layout::rows(0, inner)), (w, Layout::rows(0, inner).transposed()));
    });
}

/// Partial sums of a lowered filter gradient: as many tasks, added up in order.
const PARTS: usize = 8;

/// See [`crate::backend::Backend::conv2d_backward_filter`].
pub fn backward_filter<T: Real>(cpu: &Cpu<T>, g: &Geometry, x: &[T], dy: &[T], dw: &mut [T]) -> Result<()> {
    let (inner, pixels) = (g.taps() * g.c, g.n * g.p * g.q);
    let part_pixels = pixels.div_ceil(PARTS).max(1);
    cpu.reserve_scratch(LOWERED_PIXELS * inner);
    let mut partial = cpu.scratch(PARTS * dw.len());
    partial.write()?.par_chunks_mut(dw.len()).enumerate().for_each(|(part, dw)| {
        dw.fill(T::ZERO);
        let mut rows = cpu.scratch(LOWERED_PIXELS * inner);
        let Ok(rows) = rows.write() else { unreachable!("a new buffer has one handle") };
        let (mut first, end) = (part * part_pixels, pixels.min((part + 1) * part_pixels));
        while first < end {
            let count = LOWERED_PIXELS.min(end - first);
            lower(g, x, first..first + count, rows);
            let dy = (dy, Layout::rows(first * g.k, g.k).transposed());
            let rows = (&*rows, Layout::rows(0, inner));
            // SAFETY: `dw` is this task's own part.
            unsafe {
                let out = Output::new(&mut *dw);
                out.write_product((g.k, inner, count), Layout::rows(0, inner), Write::Accumulate, dy, rows);
            }
            first += count;
        }
    });
    dw.fill(T::ZERO);
    for part in partial.read().chunks_exact(dw.len()) {
        dw.iter_mut().zip(part).for_each(|(sum, &value)| *sum += value);
    }
    Ok(())
}
