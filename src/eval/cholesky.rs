//! Cholesky factorisation of symmetric positive definite matrices in f64, blocked so that its cubic part is matrix
//! products: n^3 / 3 flops.

use rayon::prelude::*;

/// Columns factored at a time.
const BLOCK: usize = 64;

/// Lower triangular L with L L^T = A.
pub(crate) struct Cholesky {
    side: usize,
    /// Row-major; what lies above the diagonal is left over from A.
    factor: Vec<f64>,
}

impl Cholesky {
    /// Factors `matrix` (row-major, `side` x `side`; the upper triangle is not read). `None` if a pivot is not positive:
    /// the matrix is not positive definite, or not finite.
    pub fn new(mut matrix: Vec<f64>, side: usize) -> Option<Self> {
        assert_eq!(matrix.len(), side * side);
        for start in (0..side).step_by(BLOCK) {
            let width = BLOCK.min(side - start);
            let (above, below) = matrix.split_at_mut(start * side);
            debug_assert_eq!(above.len(), start * side);
            let diagonal = start + width;
            let (corner, rest) = below.split_at_mut(width * side);
            let pivots: Vec<f64> = corner.chunks(side).flat_map(|row| &row[..start]).copied().collect();
            subtract_products(corner, side, start, width, &pivots);
            factor_corner(corner, side, start, width)?;
            let triangle: Vec<f64> = corner.chunks(side).flat_map(|row| &row[start..diagonal]).copied().collect();
            rest.par_chunks_mut(BLOCK * side).for_each(|rows| {
                subtract_products(rows, side, start, width, &pivots);
                for row in rows.chunks_mut(side) {
                    forward(&triangle, width, &mut row[start..diagonal]);
                }
            });
        }
        Some(Cholesky { side, factor: matrix })
    }

    /// Solves A x = b in place.
    pub fn solve(&self, b: &mut [f64]) {
        let (n, factor) = (self.side, &self.factor);
        forward(factor, n, b);
        for i in (0..n).rev() {
            b[i] /= factor[i * n + i];
            let (known, value) = b.split_at_mut(i);
            known.iter_mut().zip(&factor[i * n..]).for_each(|(b, l)| *b -= l * value[0]);
        }
    }
}

/// Subtracts from columns `start..start + width` of `rows` (rows of `side`) the products of their first `start` columns
/// with `pivots` (`width` x `start`).
fn subtract_products(rows: &mut [f64], side: usize, start: usize, width: usize, pivots: &[f64]) {
    let count = rows.len() / side;
    assert!(rows.len() == count * side && start + width <= side && pivots.len() == width * start);
    if start == 0 {
        return;
    }
    let base = rows.as_mut_ptr();
    // SAFETY: of the count x side matrix `rows`, columns 0..start are read and columns start..start + width written:
    // disjoint elements of one buffer, both reached from the one pointer derived from its unique borrow; `pivots` is
    // width x start, read transposed, a different buffer. Lengths are asserted above.
    unsafe {
        gemm::gemm(
            count,
            width,
            start,
            base.add(start),
            1,
            side as isize,
            true,
            base.cast_const(),
            1,
            side as isize,
            pivots.as_ptr(),
            start as isize,
            1,
            1.0f64,
            -1.0f64,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Unblocked factorisation of the `width` x `width` corner at column `start` of `rows` (rows of `side`).
fn factor_corner(rows: &mut [f64], side: usize, start: usize, width: usize) -> Option<()> {
    for j in 0..width {
        for i in j..width {
            let (a, b) = (&rows[i * side + start..][..j], &rows[j * side + start..][..j]);
            let rest = rows[i * side + start + j] - a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            rows[i * side + start + j] = if i > j {
                rest / rows[j * side + start + j]
            } else if rest > 0.0 && rest.is_finite() {
                rest.sqrt()
            } else {
                return None;
            };
        }
    }
    Some(())
}

/// Solves L x = b in place for the lower triangle of `factor` (`side` x `side`).
fn forward(factor: &[f64], side: usize, b: &mut [f64]) {
    for i in 0..side {
        let row = &factor[i * side..][..=i];
        let known: f64 = row.iter().zip(&b[..i]).map(|(l, b)| l * b).sum();
        b[i] = (b[i] - known) / row[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn solutions_solve() {
        let mut random = stream(2, Purpose::Probe, 0, 0, 0);
        for side in [1, 2, 63, 64, 65, 200] {
            // I + G G^T / side, eigenvalues between 1 and about 5: errors stay near side * 1e-16.
            let g: Vec<f64> = (0..side * side).map(|_| random.normal()).collect();
            let product = |i: usize, j: usize| -> f64 { (0..side).map(|k| g[i * side + k] * g[j * side + k]).sum() };
            let entry = |i, j| product(i, j) / side as f64 + f64::from(u8::from(i == j));
            let matrix: Vec<f64> = (0..side * side).map(|at| entry(at / side, at % side)).collect();
            let x: Vec<f64> = (0..side).map(|_| random.normal()).collect();
            let mut b: Vec<f64> = matrix.chunks(side).map(|row| row.iter().zip(&x).map(|(a, x)| a * x).sum()).collect();
            Cholesky::new(matrix, side).unwrap().solve(&mut b);
            assert!(b.iter().zip(&x).all(|(b, x)| (b - x).abs() < 1e-12), "{side}");
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_refused() {
        for bad in
            [[1.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, f64::NAN], [f64::INFINITY, 0.0, 0.0, 1.0]]
        {
            assert!(Cholesky::new(bad.to_vec(), 2).is_none());
        }
    }
}
