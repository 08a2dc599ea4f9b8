//! Convolution on the CPU by strided matrix products, without lowering (im2col) and without touching padding.
//!
//! In NHWC the taps (s, c) of one filter row that an output pixel sees are contiguous in the input, and the same pixel of
//! all images is at a fixed stride. So for each output pixel and filter row r one product does all images at once:
//!
//! ```text
//! y[:, p, q, :]            += x[:, h, w0..w1, :]     . w[:, r, s0..s1, :]^T       images x (taps C) . (taps C) x K
//! dx[:, h, w0..w1, :]      += dy[:, p, q, :]         . w[:, r, s0..s1, :]         images x K . K x (taps C)
//! dw[:, r, s0..s1, :]      += dy[:, p, q, :]^T       . x[:, h, w0..w1, :]         K x images . images x (taps C)
//! ```
//!
//! Taps that fall into the padding are left out of the range s0..s1, exactly: at 32 px they are 45% of ResNet-18's
//! multiplications. Where there are fewer images than inner columns, the columns of a row take the images' place as the
//! rows of the product (they are `stride C` apart). Filters with few input channels (the stem) are lowered first: their
//! rows are too short for a product each.
//!
//! Work is cut by shape, never by the number of threads, and each output element is summed in one task in one order: the
//! result is the same on any number of threads.

mod geometry;
mod lowered;

use std::ops::Range;

use rayon::prelude::*;

use self::geometry::{Geometry, IMAGES};
use super::matmul::{Layout, Output, Write};
use super::real::Real;
use super::{Cpu, CpuTensor};
use crate::Result;
use crate::backend::Window;
use crate::tensor::Shape;

/// Tasks to cut a convolution into, where its shape allows: enough to balance many cores.
const TASKS: usize = 16;

/// See [`crate::backend::Backend::conv2d_forward`].
pub fn forward<T: Real>(cpu: &Cpu<T>, x: &CpuTensor<T>, w: &CpuTensor<T>, window: Window) -> Result<CpuTensor<T>> {
    let (xs, ws) = (x.shape(), w.shape());
    let size = |axis: usize| window.output(axis, xs.dims()[axis + 1]).unwrap_or(0);
    let y_shape = Shape::from([xs.dims()[0], size(0), size(1), ws.dims()[0]]);
    let g = Geometry::new(xs, ws, y_shape, window);
    let mut y = cpu.tensor(y_shape);
    if g.narrow() {
        lowered::forward(cpu, &g, x.buffer().read(), w.buffer().read(), y.buffer_mut().write()?);
    } else if g.p * g.q < MANY_PIXELS {
        let filters = Filters { values: w.buffer().read(), tap: g.c, channel: 1, filter: g.taps() * g.c };
        forward_groups(&g, x.buffer().read(), filters, y.buffer_mut().write()?);
    } else {
        let mut rsck = cpu.scratch(ws.elems());
        filters_last(&g, w.buffer().read(), rsck.write()?);
        let filters = Filters { values: rsck.read(), tap: g.c * g.k, channel: g.k, filter: 1 };
        forward_groups(&g, x.buffer().read(), filters, y.buffer_mut().write()?);
    }
    Ok(y)
}

/// Output pixels from which on it pays to lay the filters out for the product once, instead of in every product.
const MANY_PIXELS: usize = 4;

/// Filters with their strides: between taps (r S + s), input channels, and filters.
#[derive(Clone, Copy)]
struct Filters<'a, T> {
    values: &'a [T],
    tap: usize,
    channel: usize,
    filter: usize,
}

/// Filters with output channels innermost, `[R, S, C, K]`: the product then reads them along its vector direction.
fn filters_last<T: Real>(g: &Geometry, w: &[T], rsck: &mut [T]) {
    /// A cache line: read whole from each of as many filters, written whole.
    const TILE: usize = 16;
    let (rsc, k) = (g.taps() * g.c, g.k);
    rsck.par_chunks_mut(TILE * k).enumerate().for_each(|(tile, out)| {
        let (first, width) = (tile * TILE, out.len() / k);
        for filters in (0..k).step_by(TILE).map(|j| j..k.min(j + TILE)) {
            for i in 0..width {
                for (j, out) in filters.clone().zip(&mut out[i * k + filters.start..i * k + filters.end]) {
                    *out = w[j * rsc + first + i];
                }
            }
        }
    });
}

fn forward_groups<T: Real>(g: &Geometry, x: &[T], filters: Filters<T>, y: &mut [T]) {
    let blocks = g.image_blocks(1);
    let channels = g.channel_blocks(TASKS / (g.p * blocks.len()).max(1));
    let out = Output::new(y);
    let tasks = blocks.len() * g.p * channels.len();
    (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
        let (rest, channels) = (task / channels.len(), channels.at(task % channels.len()));
        let (images, p) = (blocks.at(rest / g.p), rest % g.p);
        let (rows, h) = g.valid(0, p);
        let mut write = Write::Overwrite;
        for (i, r) in rows.enumerate() {
            g.groups(images.clone(), p, h + i, |group| {
                let inner = group.taps.len() * g.c;
                let filter =
                    (r * g.window.kernel[1] + group.taps.start) * filters.tap + channels.start * filters.filter;
                let y = Layout { offset: group.y.offset + channels.start, ..group.y };
                let w = Layout { offset: filter, row_stride: filters.channel, column_stride: filters.filter };
                let size = (group.count, channels.len(), inner);
                // SAFETY: tasks differ in images, output row or channels, so their output elements do.
                unsafe { out.write_product(size, y, write, (x, group.x), (filters.values, w)) };
            });
            write = Write::Accumulate;
        }
    });
}

/// See [`crate::backend::Backend::conv2d_backward_data`].
pub fn backward_data<T: Real>(
    cpu: &Cpu<T>,
    w: &CpuTensor<T>,
    dy: &CpuTensor<T>,
    x_shape: Shape,
    window: Window,
) -> Result<CpuTensor<T>> {
    let g = Geometry::new(x_shape, w.shape(), dy.shape(), window);
    let (w, dy) = (w.buffer().read(), dy.buffer().read());
    let mut dx = cpu.tensor(x_shape);
    let out = Output::new(dx.buffer_mut().write()?);
    let blocks = g.image_blocks(TASKS.div_ceil(g.h));
    (0..blocks.len() * g.h).into_par_iter().with_max_len(1).for_each(|task| {
        backward_data_row(&g, w, dy, &out, blocks.at(task / g.h), task % g.h);
    });
    Ok(dx)
}

/// Row `h` of the input's gradient for some images: every filter row r with an output row p at `p stride + r = h + padding`.
fn backward_data_row<T: Real>(g: &Geometry, w: &[T], dy: &[T], out: &Output<T>, images: Range<usize>, h: usize) {
    let row = g.w * g.c;
    for image in images.clone() {
        // SAFETY: tasks differ in images or input row, so their gradient rows do; the borrow ends here.
        unsafe { out.slice((image * g.h + h) * row, row) }.fill(T::ZERO);
    }
    let rsc = g.taps() * g.c;
    for r in 0..g.window.kernel[0] {
        let Some(shifted) = (h + g.window.padding).checked_sub(r) else { continue };
        let p = shifted / g.window.stride;
        if shifted % g.window.stride != 0 || p >= g.p {
            continue;
        }
        g.groups(images.clone(), p, h, |group| {
            // Neighbouring columns of a row share inputs unless the stride passes the filter: then tap by tap, whose
            // targets are apart.
            let overlap = group.count > 1 && group.x.row_stride < group.taps.len() * g.c;
            let (pieces, width) = if overlap { (group.taps.len(), g.c) } else { (1, group.taps.len() * g.c) };
            for piece in 0..pieces {
                let filter = (r * g.window.kernel[1] + group.taps.start + piece) * g.c;
                let x = Layout { offset: group.x.offset + piece * g.c, ..group.x };
                // SAFETY: as above; the rows of one product do not overlap.
                unsafe {
                    out.write_product(
                        (group.count, width, g.k),
                        x,
                        Write::Accumulate,
                        (dy, group.y),
                        (w, Layout::rows(filter, rsc)),
                    );
                }
            }
        });
    }
}

/// See [`crate::backend::Backend::conv2d_backward_filter`].
pub fn backward_filter<T: Real>(
    cpu: &Cpu<T>,
    x: &CpuTensor<T>,
    dy: &CpuTensor<T>,
    w_shape: Shape,
    window: Window,
) -> Result<CpuTensor<T>> {
    let g = Geometry::new(x.shape(), w_shape, dy.shape(), window);
    let mut dw = cpu.tensor(w_shape);
    let (x, dy, out) = (x.buffer().read(), dy.buffer().read(), dw.buffer_mut().write()?);
    if g.narrow() {
        lowered::backward_filter(cpu, &g, x, dy, out)?;
    } else {
        backward_filter_groups(cpu, &g, x, dy, out)?;
    }
    Ok(dw)
}

/// Parts that a filter gradient is summed in where its own size gives too few tasks.
const FILTER_TASKS: usize = 12;

fn backward_filter_groups<T: Real>(cpu: &Cpu<T>, g: &Geometry, x: &[T], dy: &[T], dw: &mut [T]) -> Result<()> {
    let rows = g.window.kernel[0];
    let channels = g.channel_blocks(FILTER_TASKS.div_ceil(rows));
    // Positions (image block, output row) go round-robin to the parts.
    let positions = g.n.div_ceil(IMAGES) * g.p;
    let parts = FILTER_TASKS.div_ceil(rows * channels.len()).min(positions).max(1);
    let mut partial = cpu.scratch((parts - 1) * dw.len());
    let partial = partial.write()?;
    {
        let outputs = (Output::new(&mut *dw), Output::new(&mut *partial));
        let len = g.k * g.taps() * g.c;
        (0..parts * rows * channels.len()).into_par_iter().with_max_len(1).for_each(|task| {
            let (rest, channels) = (task / channels.len(), channels.at(task % channels.len()));
            let (part, r) = (rest / rows, rest % rows);
            let (out, start) = if part == 0 { (&outputs.0, 0) } else { (&outputs.1, (part - 1) * len) };
            filter_part(g, (x, dy), (out, start), channels, r, (part..positions).step_by(parts));
        });
    }
    let len = dw.len();
    dw.par_chunks_mut(SUM_CHUNK).enumerate().for_each(|(i, sum)| {
        for part in partial.chunks_exact(len) {
            sum.iter_mut().zip(&part[i * SUM_CHUNK..]).for_each(|(sum, &value)| *sum += value);
        }
    });
    Ok(())
}

/// Elements of a filter gradient whose parts one task adds up.
const SUM_CHUNK: usize = 1 << 14;

/// The part of a filter gradient at `start` of `out` for one filter row and some output channels: from the given positions.
fn filter_part<T: Real>(
    g: &Geometry,
    (x, dy): (&[T], &[T]),
    (out, start): (&Output<T>, usize),
    channels: Range<usize>,
    r: usize,
    positions: impl Iterator<Item = usize>,
) {
    let [_, kernel_columns] = g.window.kernel;
    let (rsc, row) = (g.taps() * g.c, kernel_columns * g.c);
    for k in channels.clone() {
        // SAFETY: tasks differ in part, filter row or output channel, so their gradients do; the borrow ends here.
        unsafe { out.slice(start + k * rsc + r * row, row) }.fill(T::ZERO);
    }
    for position in positions {
        let (block, p) = (position / g.p, position % g.p);
        let (rows, h) = g.valid(0, p);
        if !rows.contains(&r) {
            continue;
        }
        let images = block * IMAGES..g.n.min((block + 1) * IMAGES);
        g.groups(images, p, h + r - rows.start, |group| {
            let columns = group.taps.len() * g.c;
            let filter = start + channels.start * rsc + r * row + group.taps.start * g.c;
            let dy_block = Layout { offset: group.y.offset + channels.start, ..group.y };
            let size = (channels.len(), columns, group.count);
            let target = Layout::rows(filter, rsc);
            // SAFETY: as above.
            unsafe { out.write_product(size, target, Write::Accumulate, (dy, dy_block.transposed()), (x, group.x)) };
        });
    }
}
