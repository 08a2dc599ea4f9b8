//! Principal components: the directions in which the rows of a matrix vary most (Pearson 1901; Jolliffe 2002, ch. 1).
//!
//! The leading eigenvectors of the covariance matrix, by subspace iteration with a Rayleigh-Ritz step (Golub and Van
//! Loan 2013, section 8.2.4): only matrix products are large, and only as many directions as are asked for are formed.

use super::Rows;
use super::covariance::Covariance;
use super::products::{dots, dots_parallel};
use crate::rng::{Purpose, stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// Directions iterated beyond those asked for: the error of the last one asked for shrinks by the ratio of its eigenvalue
/// to the first one left out.
const SPARE: usize = 10;
/// The iteration ends when the variance captured by the directions asked for grows by less than this share of itself.
const TOLERANCE: f64 = 1e-10;
/// Iterations at most.
const ITERATIONS: usize = 300;
/// Rows projected by a task.
const BLOCK: usize = 256;

/// The leading principal components of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    /// Mean of every column: dim.
    pub mean: Vec<f64>,
    /// Orthonormal directions, most variance first: count x dim, row-major. The largest entry of each is positive.
    pub directions: Vec<f64>,
    /// Variance of the rows along each direction (division by n), falling.
    pub variances: Vec<f64>,
}

impl Components {
    /// The leading `count` components (at most dim) of `points` (n x `dim`, row-major). Same bits at any number of threads.
    ///
    /// # Errors
    /// [`Error::Shape`] if `points` are not one or more rows of `dim`, or `count` is 0; [`Error::NonFinite`] naming the
    /// first row with a number that is not finite, or if the numbers are too large to be squared.
    pub fn new(points: &[f32], dim: usize, count: usize) -> Result<Self> {
        let rows = Rows::new("pca", points, dim)?;
        if count == 0 {
            return Err(Error::shape("pca", "no components asked for"));
        }
        let chosen: Vec<u32> = (0..rows.count as u32).collect();
        let covariance = Covariance::new(rows, &chosen);
        let (directions, variances) = leading(&covariance.matrix, dim, count.min(dim));
        if !variances.iter().all(|v| v.is_finite()) {
            return Err(Error::NonFinite("pca: the covariance is too large for a number".into()));
        }
        Ok(Components { mean: covariance.mean, directions, variances })
    }

    /// Coordinates of `points` (n x dim) along the directions, from the mean: n x count, row-major.
    pub fn project(&self, points: &[f32]) -> Vec<f64> {
        let (dim, count) = (self.mean.len(), self.variances.len());
        let mut out = vec![0.0; points.len() / dim * count];
        out.par_chunks_mut(BLOCK * count).zip(points.par_chunks(BLOCK * dim)).for_each(|(out, points)| {
            let centred: Vec<f64> =
                points.iter().zip(self.mean.iter().cycle()).map(|(&p, m)| f64::from(p) - m).collect();
            dots(&centred, &self.directions, dim, out);
        });
        out
    }
}

/// The `count` eigenvectors (rows) of the symmetric positive semidefinite `matrix` (`dim` x `dim`) with the largest
/// eigenvalues, and those.
fn leading(matrix: &[f64], dim: usize, count: usize) -> (Vec<f64>, Vec<f64>) {
    let width = (count + SPARE).min(dim);
    let mut random = stream(0, Purpose::Components, 0, 0, 0);
    let mut basis: Vec<f64> = (0..width * dim).map(|_| random.normal()).collect();
    let mut values = vec![0.0; width];
    let mut captured = f64::NEG_INFINITY;
    for _ in 0..ITERATIONS {
        orthonormalise(&mut basis, dim);
        let mut image = vec![0.0; width * dim];
        dots_parallel(&basis, matrix, dim, &mut image);
        let mut small = vec![0.0; width * width];
        dots(&image, &basis, dim, &mut small);
        let rotation;
        (values, rotation) = eigen(small, width);
        basis = rotated(&basis, &rotation, dim);
        let now: f64 = values[..count].iter().sum();
        if now.is_nan() || now - captured <= TOLERANCE * now.abs() {
            break;
        }
        captured = now;
        // A step of the power method on the rotated basis: the images of its vectors, by linearity.
        let next = rotated(&image, &rotation, dim);
        // What the matrix maps to nothing has no image to go on from.
        let scale = f64::EPSILON * values[0];
        for (row, image) in basis.chunks_mut(dim).zip(next.chunks(dim)) {
            if image.iter().any(|v| v.abs() > scale) {
                row.copy_from_slice(image);
            }
        }
    }
    orthonormalise(&mut basis, dim);
    basis.truncate(count * dim);
    values.truncate(count);
    values.iter_mut().for_each(|v| *v = v.max(0.0));
    for row in basis.chunks_mut(dim) {
        let largest = row.iter().fold(0.0f64, |a, &b| if b.abs() > a.abs() { b } else { a });
        if largest < 0.0 {
            row.iter_mut().for_each(|v| *v = -*v);
        }
    }
    (basis, values)
}

/// Row i becomes the sum over j of `rotation[j][i]` times row j.
fn rotated(rows: &[f64], rotation: &[f64], dim: usize) -> Vec<f64> {
    let width = rows.len() / dim;
    let mut out = vec![0.0; rows.len()];
    out.par_chunks_mut(dim).enumerate().for_each(|(i, out)| {
        for (j, row) in rows.chunks(dim).enumerate() {
            let factor = rotation[j * width + i];
            out.iter_mut().zip(row).for_each(|(o, v)| *o += factor * v);
        }
    });
    out
}

/// Makes the rows orthonormal, in order (Gram and Schmidt, twice, which is enough: Giraud and others 2005). A row that
/// lies in the span of those before is replaced by the first axis that does not.
fn orthonormalise(rows: &mut [f64], dim: usize) {
    let mut axis = 0;
    for i in 0..rows.len() / dim {
        let (before, row) = rows.split_at_mut(i * dim);
        let row = &mut row[..dim];
        while !reduce(before, row) {
            row.fill(0.0);
            row[axis % dim] = 1.0;
            axis += 1;
        }
    }
}

/// Takes from `row` its part in the span of the orthonormal rows `before` and gives it length 1; false if nothing is left.
fn reduce(before: &[f64], row: &mut [f64]) -> bool {
    let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
    let whole = norm(row);
    if whole == 0.0 {
        return false;
    }
    row.iter_mut().for_each(|v| *v /= whole);
    for _ in 0..2 {
        for other in before.chunks(row.len()) {
            let along: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
    }
    let left = norm(row);
    row.iter_mut().for_each(|v| *v /= left);
    left > 1e-10 || left.is_nan()
}

/// Eigenvalues (falling) and eigenvectors (columns, in that order) of the symmetric `matrix` of `side`, by Jacobi's
/// rotations (Golub and Van Loan 2013, section 8.5).
fn eigen(mut matrix: Vec<f64>, side: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; side * side];
    vectors.iter_mut().step_by(side + 1).for_each(|v| *v = 1.0);
    for _ in 0..50 {
        let square = |(i, v): (usize, &f64)| if i % (side + 1) == 0 { [v * v, 0.0] } else { [0.0, v * v] };
        let [on, off] = matrix.iter().enumerate().map(square).fold([0.0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        if off.is_nan() || off <= 1e-30 * on {
            break;
        }
        for (p, q) in (0..side).flat_map(|p| (p + 1..side).map(move |q| (p, q))) {
            rotate(&mut matrix, &mut vectors, side, p, q);
        }
    }
    let mut order: Vec<usize> = (0..side).collect();
    order.sort_by(|&a, &b| matrix[b * side + b].total_cmp(&matrix[a * side + a]));
    let values = order.iter().map(|&i| matrix[i * side + i]).collect();
    let sorted = (0..side).flat_map(|row| order.iter().map(move |&i| row * side + i));
    (values, sorted.map(|at| vectors[at]).collect())
}

/// Jacobi's rotation that brings the entry (p, q) to zero.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], side: usize, p: usize, q: usize) {
    let off = matrix[p * side + q];
    if off == 0.0 {
        return;
    }
    let theta = (matrix[q * side + q] - matrix[p * side + p]) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    let turn = |a: &mut f64, b: &mut f64| (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
    for k in 0..side {
        let (mut a, mut b) = (matrix[k * side + p], matrix[k * side + q]);
        turn(&mut a, &mut b);
        (matrix[k * side + p], matrix[k * side + q]) = (a, b);
    }
    for k in 0..side {
        let (mut a, mut b) = (matrix[p * side + k], matrix[q * side + k]);
        turn(&mut a, &mut b);
        (matrix[p * side + k], matrix[q * side + k]) = (a, b);
        let (mut a, mut b) = (vectors[k * side + p], vectors[k * side + q]);
        turn(&mut a, &mut b);
        (vectors[k * side + p], vectors[k * side + q]) = (a, b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that vary by known deviations along known directions (a rotation of the first two axes by 0.6).
    fn points(count: usize, dim: usize) -> Vec<f32> {
        let mut random = stream(4, Purpose::Probe, 0, 0, 0);
        let (c, s) = (0.6f64.cos(), 0.6f64.sin());
        let mut points = Vec::new();
        for _ in 0..count {
            let own: Vec<f64> = (0..dim).map(|d| random.normal() * 8.0 / (1 + d) as f64).collect();
            points.extend([c * own[0] - s * own[1], s * own[0] + c * own[1]].map(|v| (100.0 + v) as f32));
            points.extend(own[2..].iter().map(|&v| v as f32));
        }
        points
    }

    #[test]
    fn they_are_eigenvectors_in_order() {
        for (count, dim, wanted) in [(500, 5, 5), (500, 80, 12), (7, 40, 12)] {
            let points = points(count, dim);
            let got = Components::new(&points, dim, wanted).unwrap();
            let rows = Rows::new("test", &points, dim).unwrap();
            let matrix = Covariance::new(rows, &(0..count as u32).collect::<Vec<_>>()).matrix;
            for (i, (v, value)) in got.directions.chunks(dim).zip(&got.variances).enumerate() {
                for (j, w) in got.directions.chunks(dim).enumerate() {
                    let product: f64 = v.iter().zip(w).map(|(a, b)| a * b).sum();
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
                let image = matrix.chunks(dim).map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum::<f64>());
                let error: f64 = image.zip(v).map(|(m, v)| (m - value * v).powi(2)).sum::<f64>().sqrt();
                // The iteration ends at 1e-10 of the variance; the residual of a vector is of the order of its root.
                assert!(error < 1e-4 * got.variances[0], "{count} x {dim}: component {i} off by {error}");
            }
            assert!(got.variances.is_sorted_by(|a, b| a >= b));
            let projected = got.project(&points);
            let variance =
                |d: usize| projected.iter().skip(d).step_by(wanted).map(|v| v * v).sum::<f64>() / count as f64;
            assert!((0..wanted).all(|d| (variance(d) - got.variances[d]).abs() < 1e-9 * got.variances[0]));
        }
    }

    #[test]
    fn it_finds_the_direction_at_any_number_of_threads() {
        let points = points(20_000, 30);
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Components::new(&points, 30, 3).unwrap())
        };
        let one = at(1);
        assert_eq!(one, at(3));
        // The estimate's error is of order sqrt(l1 l2 / n) / (l1 - l2) = 0.005 at 64 and 16.
        assert!((one.directions[0] - 0.6f64.cos()).abs() < 0.03 && (one.directions[1] - 0.6f64.sin()).abs() < 0.03);
        assert!((one.variances[0] / 64.0 - 1.0).abs() < 0.06, "{:?}", one.variances);
    }

    #[test]
    fn degenerate_input_does_not_break_it() {
        let constant = Components::new(&[2.5; 60], 3, 2).unwrap();
        assert_eq!(constant.variances, [0.0, 0.0]);
        assert!(constant.project(&[2.5; 60]).iter().all(|&v| v == 0.0));
        assert_eq!(Components::new(&[1.0, 2.0], 1, 50).unwrap().variances, [0.25]);
        assert!(Components::new(&[1.0, f32::NAN], 1, 1).unwrap_err().to_string().contains("row 1"));
        assert!(Components::new(&[1.0, 2.0], 2, 0).is_err() && Components::new(&[], 2, 1).is_err());
    }
}
