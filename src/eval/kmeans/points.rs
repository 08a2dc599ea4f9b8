//! The points of a k-means problem, made ready for matrix products that can be trusted.
//!
//! `|x - c|^2 = |x|^2 - 2 x.c + |c|^2` turns all distances into one matrix product, but in f32 it loses digits: all of
//! them when the points lie far from the origin compared with their distances. So the product sees points moved to
//! their mean and scaled by a power of two, and every use of it comes with a bound of its error. Where the bound does
//! not decide, the distance is taken directly, in f64 from the original numbers. A label therefore never depends on
//! how a matrix product rounds: not on the instruction set, and not on the blocks.

use super::super::Rows;
use crate::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Numbers of a block of rows: 512 KiB, what half of a core's second-level cache holds.
const BLOCK: usize = 1 << 17;

/// Relative error of rounding to f32.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

/// Sums of clusters are kept for at most this many ranges of points, each the work of one task, ...
const RANGES: usize = 16;

/// ... as long as the sums of all ranges of a run take no more numbers than this (64 MiB).
const SUMS: usize = 1 << 23;

/// Points with their origin, scale and lengths. A prepared point is the one given, times `scale`, less `shift`.
pub struct Points<'a> {
    /// The points as given.
    pub(crate) rows: Rows<'a>,
    /// Mean of the variances of the features (division by n): the unit of the stopping tolerance.
    pub(super) variance: f64,
    /// Rows of a block; depends on the shape alone.
    pub(crate) block: usize,
    /// Power of two that brings the largest magnitude near 1.
    pub(crate) scale: f32,
    /// The scaled mean.
    pub(crate) shift: Vec<f32>,
    /// Euclidean length of every prepared row, in f64.
    pub(crate) lengths: Vec<f64>,
}

/// Vectors the points are multiplied with: centres, or candidates for one.
pub(crate) struct Columns {
    /// `count` x `dim`, moved and scaled as the points are.
    pub values: Vec<f32>,
    /// How many.
    pub count: usize,
    /// Squared length of each, in f64 before rounding.
    pub squared: Vec<f64>,
    /// Length of each.
    pub lengths: Vec<f64>,
}

impl Columns {
    /// Half the squared length of each.
    pub fn half(&self) -> Vec<f64> {
        self.squared.iter().map(|s| s / 2.0).collect()
    }

    /// Length of the longest of every `clusters` of them.
    pub fn longest(&self, clusters: usize) -> Vec<f64> {
        self.lengths.chunks(clusters).map(|run| run.iter().fold(0.0, |a: f64, &b| a.max(b))).collect()
    }
}

/// Memory of one thread, for one block.
#[derive(Default)]
pub(super) struct Scratch {
    rows: Vec<f32>,
    dots: Vec<f32>,
}

impl<'a> Points<'a> {
    /// Of `values`, rows of `dim`. Errors as [`KMeans::fit`](super::KMeans::fit).
    pub fn new(values: &'a [f32], dim: usize) -> Result<Self> {
        let rows = Rows::new("kmeans", values, dim)?;
        let largest = values.par_iter().map(|v| v.abs()).reduce(|| 0.0, f32::max);
        let exponent = if largest > 0.0 { largest.log2().floor().clamp(-120.0, 120.0) } else { 0.0 };
        let scale = (-exponent).exp2();
        let mean: Vec<f64> = rows.mean().iter().map(|m| m * f64::from(scale)).collect();
        let shift: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
        let squares: Vec<f64> = values.par_chunks(dim).map(|row| prepared_square(row, &shift, scale)).collect();
        // The shift is the mean only to f32, hence the second term.
        let off: f64 = mean.iter().zip(&shift).map(|(m, &s)| (m - f64::from(s)).powi(2)).sum();
        let total = squares.iter().sum::<f64>() / rows.count as f64 - off;
        let variance = total.max(0.0) / dim as f64 / f64::from(scale).powi(2);
        let lengths = squares.into_iter().map(f64::sqrt).collect();
        let block = (BLOCK / dim).clamp(16, 256);
        Ok(Points { rows, variance, block, scale, shift, lengths })
    }

    /// In how many ranges of points, of how many blocks, the sums of `clusters` clusters are kept: from the shape of one run alone,
    /// so that a run's sums do not depend on the runs beside it.
    pub(crate) fn ranges(&self, clusters: usize) -> (usize, usize) {
        let blocks = self.rows.count.div_ceil(self.block);
        let range = blocks.div_ceil((SUMS / (clusters * self.rows.dim)).clamp(1, RANGES));
        (blocks.div_ceil(range), range)
    }

    /// Makes columns of `vectors`: rows of `dim`, in the points' units.
    pub(crate) fn columns(&self, vectors: impl Iterator<Item = f64>) -> Columns {
        let scale = f64::from(self.scale);
        let moved: Vec<f64> =
            vectors.zip(self.shift.iter().cycle()).map(|(v, &shift)| v * scale - f64::from(shift)).collect();
        let squared: Vec<f64> = moved.chunks(self.rows.dim).map(|c| c.iter().map(|v| v * v).sum()).collect();
        let lengths = squared.iter().map(|s| s.sqrt()).collect();
        Columns { count: squared.len(), values: moved.into_iter().map(|v| v as f32).collect(), squared, lengths }
    }

    /// Products of the prepared points `rows` with the columns `which`: `rows.len()` x `which.len()`, row-major.
    pub(super) fn dots<'s>(
        &self,
        rows: impl ExactSizeIterator<Item = usize>,
        columns: &Columns,
        which: Range<usize>,
        scratch: &'s mut Scratch,
    ) -> &'s [f32] {
        let (m, n, k) = (rows.len(), which.len(), self.rows.dim);
        let columns = &columns.values[which.start * k..which.end * k];
        scratch.rows.resize(m * k, 0.0);
        scratch.dots.resize(m * n, 0.0);
        for (prepared, row) in scratch.rows.chunks_exact_mut(k).zip(rows) {
            for ((to, &v), &shift) in prepared.iter_mut().zip(self.rows.row(row)).zip(&self.shift) {
                *to = v * self.scale - shift;
            }
        }
        assert!(columns.len() == n * k);
        // SAFETY: the three matrices are m x n, m x k and n x k (read transposed), dense and row-major, in buffers of
        // exactly these lengths (resized or asserted above); the output overlaps neither input.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                scratch.dots.as_mut_ptr(),
                1,
                n as isize,
                false,
                scratch.rows.as_ptr(),
                1,
                k as isize,
                columns.as_ptr(),
                k as isize,
                1,
                0.0f32,
                1.0f32,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        &scratch.dots
    }

    /// Bound of the error of a product of point `row` with a column no longer than `length`.
    ///
    /// Rounding the row and the column to f32 costs a relative u = 2^-24 each, and a dot product of `dim` terms at most
    /// dim u relative to the product of the lengths, whatever the order of its sums (Higham 2002, section 3.1). The
    /// other two terms cover f64 rounding of the squared length, and underflow.
    pub(super) fn error(&self, row: usize, length: f64) -> f64 {
        let dim = self.rows.dim as f64;
        1.01 * (dim + 4.0) * UNIT * self.lengths[row] * length + 1e-15 * length * length + dim * 1e-37
    }

    /// Squared length of prepared point `row`.
    pub(super) fn square(&self, row: usize) -> f64 {
        self.lengths[row] * self.lengths[row]
    }

    /// Bound of the error of `square` against the exact point: each element was rounded to f32.
    pub(super) fn square_error(&self, row: usize) -> f64 {
        3.0 * UNIT * self.square(row)
    }

    /// By how much the margin of a point can shrink, per cluster of the point, when centres move by the square roots of
    /// `shifts`: its own centre away, the fastest other one closer. In prepared units, rounded up.
    pub(super) fn drift(&self, shifts: &[f64]) -> Vec<f32> {
        let ways: Vec<f64> = shifts.iter().map(|s| s.sqrt() * f64::from(self.scale) * (1.0 + 1e-12)).collect();
        let fastest = (0..ways.len()).max_by(|&a, &b| ways[a].total_cmp(&ways[b])).unwrap_or(0);
        let without = |c: usize| ways.iter().enumerate().filter(|&(o, _)| o != c).fold(0.0, |a: f64, (_, &b)| a.max(b));
        let second = without(fastest);
        let other = |c| if c == fastest { second } else { ways[fastest] };
        (0..ways.len()).map(|c| ((ways[c] + other(c)) as f32).next_up()).collect()
    }

    /// Squared distance of point `row` to a column, in prepared units, from their product `dot`. `vector` is the column
    /// in the points' units: used where the product would leave less than two digits.
    pub(super) fn squared_distance(&self, row: usize, dot: f32, squared: f64, length: f64, vector: &[f32]) -> f64 {
        let estimate = self.square(row) - 2.0 * f64::from(dot) + squared;
        if estimate > 200.0 * self.error(row, length) { estimate } else { self.direct(row, vector) }
    }

    /// Squared distance of point `row` to `vector`, in prepared units, from the points as given.
    #[cold]
    fn direct(&self, row: usize, vector: &[f32]) -> f64 {
        let vector: Vec<f64> = vector.iter().map(|&v| f64::from(v)).collect();
        direct_distance(self.rows.row(row), &vector) * f64::from(self.scale).powi(2)
    }
}

/// Squared length of `row * scale - shift` as the matrix product will see it (each element rounded to f32), in f64.
fn prepared_square(row: &[f32], shift: &[f32], scale: f32) -> f64 {
    let mut lanes = [0.0; 8];
    let ((x, x_rest), (s, s_rest)) = (row.as_chunks::<8>(), shift.as_chunks::<8>());
    for (x, s) in x.iter().zip(s) {
        for lane in 0..8 {
            let value = f64::from(x[lane] * scale - s[lane]);
            lanes[lane] += value * value;
        }
    }
    let rest: f64 = x_rest.iter().zip(s_rest).map(|(&x, &s)| f64::from(x * scale - s).powi(2)).sum();
    lanes.iter().sum::<f64>() + rest
}

/// Squared distance in f64, the sum over eight interleaved lanes: a fixed order that a compiler can vectorise.
pub(super) fn direct_distance(x: &[f32], center: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((x, x_rest), (c, c_rest)) = (x.as_chunks::<8>(), center.as_chunks::<8>());
    for (x, c) in x.iter().zip(c) {
        for lane in 0..8 {
            let difference = f64::from(x[lane]) - c[lane];
            lanes[lane] += difference * difference;
        }
    }
    let rest: f64 = x_rest.iter().zip(c_rest).map(|(&x, &c)| (f64::from(x) - c).powi(2)).sum();
    lanes.iter().sum::<f64>() + rest
}
