//! Means and covariances of embeddings in f64.

use super::Rows;
use rayon::prelude::*;

/// Rows brought to f64 at a time: amortises a task, while the buffer (8 `CHUNK` dim bytes) stays small.
const CHUNK: usize = 1024;

/// Side of the tiles of the covariance matrix that tasks own.
const TILE: usize = 128;

/// Mean and covariance of the columns of a matrix.
pub(crate) struct Covariance {
    /// dim.
    pub mean: Vec<f64>,
    /// dim x dim, symmetric, division by the number of rows.
    pub matrix: Vec<f64>,
}

impl Covariance {
    /// Of the rows numbered `chosen` (at least one). Cost: n dim^2 flops (the lower triangle), one pass over the rows
    /// for the mean and one for the products. Bits do not depend on the number of threads: each tile is summed over
    /// the rows in order.
    pub fn new(rows: Rows, chosen: &[u32]) -> Self {
        let dim = rows.dim;
        let mean = chosen_mean(rows, chosen);
        let side = dim.div_ceil(TILE);
        let mut tiles: Vec<(usize, usize, Vec<f64>)> =
            (0..side).flat_map(|i| (0..=i).map(move |j| (i, j, vec![0.0; TILE * TILE]))).collect();
        let mut centred = vec![0.0; CHUNK.min(chosen.len()) * dim];
        for chunk in chosen.chunks(CHUNK) {
            let centred = &mut centred[..chunk.len() * dim];
            centred.par_chunks_mut(dim).zip(chunk).for_each(|(to, &row)| {
                to.iter_mut().zip(rows.row(row as usize)).zip(&mean).for_each(|((to, &v), m)| *to = f64::from(v) - m);
            });
            tiles.par_iter_mut().for_each(|(i, j, tile)| add_products(tile, centred, dim, *i * TILE, *j * TILE));
        }
        let mut matrix = vec![0.0; dim * dim];
        for (i, j, tile) in tiles {
            for (a, row) in (i * TILE..dim.min((i + 1) * TILE)).zip(tile.chunks(TILE)) {
                for (b, &v) in (j * TILE..dim.min((j + 1) * TILE)).zip(row) {
                    matrix[a * dim + b] = v / chosen.len() as f64;
                    matrix[b * dim + a] = v / chosen.len() as f64;
                }
            }
        }
        Covariance { mean, matrix }
    }

    /// Variance of every column.
    pub fn variances(&self) -> impl Iterator<Item = f64> {
        let step = self.mean.len() + 1;
        self.matrix.iter().step_by(step).copied()
    }
}

/// Mean of the chosen rows; tasks own columns, so that sums run over the rows in order.
fn chosen_mean(rows: Rows, chosen: &[u32]) -> Vec<f64> {
    const LANE: usize = 32;
    let mut mean = vec![0.0; rows.dim];
    mean.par_chunks_mut(LANE).enumerate().for_each(|(lane, mean)| {
        for &row in chosen {
            let values = &rows.row(row as usize)[lane * LANE..][..mean.len()];
            mean.iter_mut().zip(values).for_each(|(m, &v)| *m += f64::from(v));
        }
        mean.iter_mut().for_each(|m| *m /= chosen.len() as f64);
    });
    mean
}

/// Adds to `tile` (row-major, side [`TILE`]) the products of columns `i..` and `j..` of `centred` (rows of `dim`).
fn add_products(tile: &mut [f64], centred: &[f64], dim: usize, i: usize, j: usize) {
    let (m, n, k) = (TILE.min(dim - i), TILE.min(dim - j), centred.len() / dim);
    assert!(tile.len() == TILE * TILE && centred.len() == k * dim && k > 0);
    // SAFETY: element (a, b) of the m x n output is tile[a * TILE + b], with m, n <= TILE; of the two inputs, elements
    // (c, i + a) and (c, j + b) of the k x dim matrix `centred` are read, with i + m, j + n <= dim. Lengths are asserted.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            tile.as_mut_ptr(),
            1,
            TILE as isize,
            true,
            centred[i..].as_ptr(),
            dim as isize,
            1,
            centred[j..].as_ptr(),
            1,
            dim as isize,
            1.0f64,
            1.0f64,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn it_is_the_covariance_at_any_number_of_threads() {
        // More than one chunk and more than one tile, neither full; every second row left out.
        let (count, dim) = (2 * CHUNK + 77, TILE + 13);
        let mut random = stream(1, Purpose::Probe, 0, 0, 0);
        let values: Vec<f32> = (0..count * dim).map(|i| (100.0 + random.normal() * (i % dim) as f64) as f32).collect();
        let rows = Rows::new("test", &values, dim).unwrap();
        let chosen: Vec<u32> = (0..count as u32).step_by(2).collect();
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Covariance::new(rows, &chosen))
        };
        let one = at(1);
        for (a, b) in [(0, 0), (5, 3), (dim - 1, dim - 1), (dim - 1, 2), (2, dim - 1)] {
            let n = chosen.len() as f64;
            let value = |row: u32, column: usize| f64::from(rows.row(row as usize)[column]);
            let mean = |column| chosen.iter().map(|&r| value(r, column)).sum::<f64>() / n;
            let (ma, mb) = (mean(a), mean(b));
            let expected = chosen.iter().map(|&r| (value(r, a) - ma) * (value(r, b) - mb)).sum::<f64>() / n;
            // Sums of n terms of size up to (6 deviations)^2 in f64: n u of their size at most.
            assert!((one.matrix[a * dim + b] - expected).abs() < n * 1e-16 * 36.0 * (1 + a * b) as f64);
            assert!((one.mean[a] - ma).abs() < n * 1e-16 * 1000.0);
        }
        for threads in [2, 3] {
            let many = at(threads);
            assert!(one.matrix == many.matrix && one.mean == many.mean);
        }
        assert_eq!(one.variances().nth(7), Some(one.matrix[7 * dim + 7]));
    }
}
