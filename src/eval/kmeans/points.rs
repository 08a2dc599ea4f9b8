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

/// Points with their origin, scale and lengths.
pub(super) struct Points<'a> {
    /// The points as given.
    pub rows: Rows<'a>,
    /// Mean of the variances of the features (division by n): the unit of the stopping tolerance.
    pub variance: f64,
    /// Rows of a block; depends on the shape alone.
    pub block: usize,
    /// Power of two that brings the largest magnitude near 1.
    scale: f32,
    /// The scaled mean.
    shift: Vec<f32>,
    /// Euclidean length of every prepared row, in f64.
    lengths: Vec<f64>,
}

/// Vectors the points are multiplied with: centres, or candidates for one.
pub(super) struct Columns {
    /// `count` x `dim`, moved and scaled as the points are.
    values: Vec<f32>,
    /// How many.
    pub count: usize,
    /// Squared length of each, in f64 before rounding.
    pub squared: Vec<f64>,
}

/// Memory of one thread, for one block.
#[derive(Default)]
pub(super) struct Scratch {
    rows: Vec<f32>,
    dots: Vec<f32>,
}

impl<'a> Points<'a> {
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

    /// Makes columns of `vectors`: rows of `dim`, in the points' units.
    pub fn columns(&self, vectors: impl Iterator<Item = f64>) -> Columns {
        let scale = f64::from(self.scale);
        let moved: Vec<f64> =
            vectors.zip(self.shift.iter().cycle()).map(|(v, &shift)| v * scale - f64::from(shift)).collect();
        let squared: Vec<f64> = moved.chunks(self.rows.dim).map(|c| c.iter().map(|v| v * v).sum()).collect();
        Columns { count: squared.len(), values: moved.into_iter().map(|v| v as f32).collect(), squared }
    }

    /// Products of every prepared row of `range` with every column: `range.len()` x `columns.count`, row-major.
    pub fn dots<'s>(&self, range: Range<usize>, columns: &Columns, scratch: &'s mut Scratch) -> &'s [f32] {
        let (m, n, k) = (range.len(), columns.count, self.rows.dim);
        scratch.rows.resize(m * k, 0.0);
        scratch.dots.resize(m * n, 0.0);
        for (prepared, row) in scratch.rows.chunks_exact_mut(k).zip(self.rows.slice(range).chunks_exact(k)) {
            for ((to, &v), &shift) in prepared.iter_mut().zip(row).zip(&self.shift) {
                *to = v * self.scale - shift;
            }
        }
        assert!(columns.values.len() == n * k);
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
                columns.values.as_ptr(),
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

    /// Bound of the error of `dots` for row `index` and a column of squared length at most `squared`.
    ///
    /// Rounding the row and the column to f32 costs a relative u = 2^-24 each, and a dot product of `dim` terms at most
    /// dim u relative to the product of the lengths, whatever the order of its sums (Higham 2002, section 3.1). The
    /// other two terms cover f64 rounding of the squared length, and underflow.
    pub fn error(&self, index: usize, squared: f64) -> f64 {
        let (unit, dim) = (f64::from(f32::EPSILON) / 2.0, self.rows.dim as f64);
        1.01 * (dim + 4.0) * unit * self.lengths[index] * squared.sqrt() + 1e-15 * squared + dim * 1e-37
    }

    /// Squared distance of point `index` to a column, in prepared units, from its product `dot` with the row.
    /// `vector` is the column in the points' units: used where the product would leave less than two digits.
    pub fn squared_distance(&self, index: usize, dot: f32, squared: f64, vector: &[f32]) -> f64 {
        let estimate = self.lengths[index].powi(2) - 2.0 * f64::from(dot) + squared;
        if estimate > 200.0 * self.error(index, squared) {
            return estimate;
        }
        let direct: f64 =
            self.rows.row(index).iter().zip(vector).map(|(&x, &c)| (f64::from(x) - f64::from(c)).powi(2)).sum();
        direct * f64::from(self.scale).powi(2)
    }
}

/// Squared length of `row * scale - shift` as the matrix product will see it (each element rounded to f32), in f64.
fn prepared_square(row: &[f32], shift: &[f32], scale: f32) -> f64 {
    row.iter().zip(shift).map(|(&v, &s)| f64::from(v * scale - s).powi(2)).sum()
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
