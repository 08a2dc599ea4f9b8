//! Convolutions by plain sums in f32.
//!
//! Tensors are packed by images [n, h, w, c] and filters [k, r, s, c]. The summands of every result come in pieces: for images
//! and their gradients a tap of the filter and half of the channels, for the filter's gradient a line of an image. Engines
//! differ in the order of the pieces alone.

use crate::operation::{Convolution, Convolve, Direction};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use vgpu_library::driver::Memory;
use vgpu_library::number::{Number, tf32};
use vgpu_library::product::{Rows, accumulate};

/// How summands are ordered, and rounded before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Plain,
    /// The first half into the workspace, the second apart, then both together.
    Halves,
    /// From this piece on, and around.
    From(usize),
    /// In order, with inputs rounded to TF32.
    Tf32,
}

/// Sizes of a convolution.
struct Sizes {
    images: usize,
    channels: usize,
    input: [usize; 2],
    filters: usize,
    taps: [usize; 2],
    output: [usize; 2],
    convolution: Convolution,
}

/// A part of the summands.
#[derive(Clone, Debug)]
enum Piece {
    /// A tap of the filter, and some channels of what is summed over.
    Tap { r: usize, s: usize, channels: Range<usize> },
    /// A line of the results' image: image and row.
    Line { n: usize, p: usize },
}

impl Sizes {
    fn of(c: &Convolve) -> Sizes {
        let size = |d: &[u64]| [d[2] as usize, d[3] as usize];
        let (x, w, y) = (c.x.dims(), c.w.dims(), c.y.dims());
        Sizes {
            images: x[0] as usize,
            channels: x[1] as usize,
            input: size(x),
            filters: w[0] as usize,
            taps: size(w),
            output: size(y),
            convolution: Convolution::clone(&c.convolution),
        }
    }

    /// The row (axis 0) or column of the image that tap `t` of result `o` meets, if it is not padding.
    fn meets(&self, axis: usize, o: usize, t: usize) -> Option<usize> {
        let c = &self.convolution;
        let at = (o * c.stride[axis] as usize + t * c.dilation[axis] as usize).checked_sub(c.before[axis] as usize)?;
        (at < self.input[axis]).then_some(at)
    }

    /// The results along a line that tap `s` meets the image for, and the column that the first of them meets.
    fn columns(&self, s: usize) -> Option<(Range<usize>, usize)> {
        let mut inside = (0..self.output[1]).filter_map(|q| Some((q, self.meets(1, q, s)?)));
        let (first, column) = inside.next()?;
        Some((first..inside.next_back().map_or(first, |(q, _)| q) + 1, column))
    }

    /// From the column that one result meets to the next one's.
    fn step(&self) -> usize {
        self.convolution.stride[1] as usize
    }

    fn pieces(&self, direction: Direction) -> Vec<Piece> {
        let taps = || (0..self.taps[0]).flat_map(|r| (0..self.taps[1]).map(move |s| (r, s)));
        let depth = match direction {
            Direction::Forward => self.channels,
            Direction::BackwardData => self.filters,
            Direction::BackwardFilter => {
                let lines = (0..self.images).flat_map(|n| (0..self.output[0]).map(move |p| Piece::Line { n, p }));
                return lines.collect();
            }
        };
        let halves = [0..depth / 2, depth / 2..depth];
        let piece = |(r, s)| halves.clone().map(|channels| Piece::Tap { r, s, channels });
        taps().flat_map(piece).collect()
    }

    /// Results [n, p, q, k]; `w` is packed [r, s, c, k].
    fn forward(&self, x: &[f32], w: &[f32], pieces: &[Piece]) -> Vec<f32> {
        let [height, width] = self.output;
        let (depth, k) = (self.channels, self.filters);
        let mut out = vec![0.0; self.images * height * width * k];
        out.par_chunks_mut(width * k).enumerate().for_each(|(line, out)| {
            let (n, p) = (line / height, line % height);
            for piece in pieces {
                let Piece::Tap { r, s, channels } = piece else { continue };
                let (Some(row), Some((q, column))) = (self.meets(0, p, *r), self.columns(*s)) else { continue };
                let first = ((n * self.input[0] + row) * self.input[1] + column) * depth;
                let rows: Vec<&[f32]> =
                    (0..q.len()).map(|i| &x[first + i * self.step() * depth..][channels.clone()]).collect();
                let b = &w[((r * self.taps[1] + s) * depth + channels.start) * k..];
                accumulate(&mut out[q.start * k..], k, k, &rows, Rows { values: b, pitch: k });
            }
        });
        out
    }

    /// Gradient of the images [n, h, w, c]; `w` is packed [r, s, k, c].
    fn backward_data(&self, dy: &[f32], w: &[f32], pieces: &[Piece]) -> Vec<f32> {
        let [height, width] = self.input;
        let (depth, c) = (self.filters, self.channels);
        let mut out = vec![0.0; self.images * height * width * c];
        out.par_chunks_mut(width * c).enumerate().for_each(|(line, out)| {
            let (n, row) = (line / height, line % height);
            for piece in pieces {
                let Piece::Tap { r, s, channels } = piece else { continue };
                let p = (0..self.output[0]).find(|p| self.meets(0, *p, *r) == Some(row));
                let (Some(p), Some((q, column))) = (p, self.columns(*s)) else { continue };
                let first = ((n * self.output[0] + p) * self.output[1] + q.start) * depth;
                let rows: Vec<&[f32]> = (0..q.len()).map(|i| &dy[first + i * depth..][channels.clone()]).collect();
                let b = &w[((r * self.taps[1] + s) * depth + channels.start) * c..];
                accumulate(&mut out[column * c..], self.step() * c, c, &rows, Rows { values: b, pitch: c });
            }
        });
        out
    }

    /// Gradient of the filter [r, s, k, c]; `dy` is packed [n, p, k, q].
    fn backward_filter(&self, x: &[f32], dy: &[f32], pieces: &[Piece]) -> Vec<f32> {
        const FILTERS: usize = 16; // that a thread takes at once
        let (k, c, width) = (self.filters, self.channels, self.output[1]);
        let mut out = vec![0.0; self.taps[0] * self.taps[1] * k * c];
        let block = |(r, s): (usize, usize), from: usize, out: &mut [f32]| {
            let Some((q, column)) = self.columns(s) else { return };
            for piece in pieces {
                let Piece::Line { n, p } = piece else { continue };
                let Some(row) = self.meets(0, *p, r) else { continue };
                let line = (n * self.output[0] + p) * k;
                let rows: Vec<&[f32]> =
                    (from..from + out.len() / c).map(|k| &dy[(line + k) * width..][q.clone()]).collect();
                let b = &x[((n * self.input[0] + row) * self.input[1] + column) * c..];
                accumulate(out, c, c, &rows, Rows { values: b, pitch: self.step() * c });
            }
        };
        out.par_chunks_mut(k * c).enumerate().for_each(|(tap, out)| {
            let tap = (tap / self.taps[1], tap % self.taps[1]);
            out.par_chunks_mut(FILTERS * c).enumerate().for_each(|(i, out)| block(tap, i * FILTERS, out));
        });
        out
    }
}

/// Moves axes: `from` is packed by `dims`, the result by `dims[order[0]], dims[order[1]], ...`.
fn permuted(from: &[f32], dims: [usize; 4], order: [usize; 4]) -> Vec<f32> {
    let mut strides = [1; 4];
    for i in (0..3).rev() {
        strides[i] = strides[i + 1] * dims[i + 1];
    }
    let [a, b, c, d] = order;
    let mut out = Vec::with_capacity(from.len());
    for i in 0..dims[a] {
        for j in 0..dims[b] {
            for k in 0..dims[c] {
                let first = i * strides[a] + j * strides[b] + k * strides[c];
                out.extend((0..dims[d]).map(|l| from[first + l * strides[d]]));
            }
        }
    }
    out
}

/// Sums all pieces as the order says; `run` sums some of them.
fn sum(order: Order, pieces: Vec<Piece>, workspace: Option<&Memory>, run: impl Fn(&[Piece]) -> Vec<f32>) -> Vec<f32> {
    match (order, workspace) {
        (Order::Halves, Some(workspace)) => {
            let (first, second) = pieces.split_at(pieces.len() / 2);
            let bytes = Number::F32.store(&run(first));
            workspace.write(0, &bytes);
            let mut out = run(second);
            let first = Number::F32.load(&workspace.read(0, bytes.len()));
            out.iter_mut().zip(first).for_each(|(sum, first)| *sum += first);
            out
        }
        (Order::From(start), _) => {
            let mut pieces = pieces;
            let start = start % pieces.len();
            pieces.rotate_left(start);
            run(&pieces)
        }
        _ => run(&pieces),
    }
}

/// The result of a convolution, packed [n, h, w, c] or [k, r, s, c], from packed tensors.
pub fn convolve(c: &Convolve, order: Order, packed: &HashMap<i64, Vec<f32>>, workspace: Option<&Memory>) -> Vec<f32> {
    let sizes = Sizes::of(c);
    let pieces = sizes.pieces(c.direction);
    let input = |uid: i64| match order {
        Order::Tf32 => Cow::Owned(packed[&uid].iter().map(|v| tf32(*v)).collect::<Vec<f32>>()),
        _ => Cow::Borrowed(&packed[&uid]),
    };
    let [r, s] = sizes.taps;
    let filter = [sizes.filters, r, s, sizes.channels];
    match c.direction {
        Direction::Forward => {
            let (x, w) = (input(c.x.uid), permuted(&input(c.w.uid), filter, [1, 2, 3, 0]));
            sum(order, pieces, workspace, |pieces| sizes.forward(&x, &w, pieces))
        }
        Direction::BackwardData => {
            let (dy, w) = (input(c.y.uid), permuted(&input(c.w.uid), filter, [1, 2, 0, 3]));
            sum(order, pieces, workspace, |pieces| sizes.backward_data(&dy, &w, pieces))
        }
        Direction::BackwardFilter => {
            let [p, q] = sizes.output;
            let x = input(c.x.uid);
            let dy = permuted(&input(c.y.uid), [sizes.images, p, q, sizes.filters], [0, 1, 3, 2]);
            let dw = sum(order, pieces, workspace, |pieces| sizes.backward_filter(&x, &dy, pieces));
            permuted(&dw, [r, s, sizes.filters, sizes.channels], [2, 0, 1, 3])
        }
    }
}
