//! Means and covariances of embeddings in f64.

use super::Rows;
use rayon::prelude::*;

/// Side of the tiles of the covariance matrix that tasks own, and width of the panels of columns they multiply.
const TILE: usize = 128;

/// Rows brought to f64 at a time. A panel of them (256 KiB) is contiguous and stays in the second-level cache.
const CHUNK: usize = 256;

/// Mean and covariance of the columns of a matrix.
pub(crate) struct Covariance {
    /// dim.
    pub mean: Vec<f64>,
    /// dim x dim, symmetric, division by the number of rows.
    pub matrix: Vec<f64>,
}

impl Covariance {
    /// Of the rows numbered `chosen` (at least one; in ascending order they are read fastest). Cost: n dim^2 flops (the
    /// lower triangle), one pass over the rows for the mean and one for the products. Bits do not depend on the number
    /// of threads: each tile is summed over the rows in order.
    pub fn new(rows: Rows, chosen: &[u32]) -> Self {
        let dim = rows.dim;
        let mean = rows.mean_of(chosen.len(), |index| chosen[index] as usize);
        let side = dim.div_ceil(TILE);
        let mut tiles: Vec<(usize, usize, Vec<f64>)> =
            (0..side).flat_map(|i| (0..=i).map(move |j| (i, j, vec![0.0; TILE * TILE]))).collect();
        let mut panels = vec![vec![0.0; CHUNK.min(chosen.len()) * TILE]; side];
        for chunk in chosen.chunks(CHUNK) {
            panels.par_iter_mut().enumerate().for_each(|(number, panel)| {
                let columns = number * TILE..dim.min((number + 1) * TILE);
                for (to, &row) in panel.chunks_mut(TILE).zip(chunk) {
                    let values = rows.row(row as usize)[columns.clone()].iter().zip(&mean[columns.clone()]);
                    to.iter_mut().zip(values).for_each(|(to, (&v, m))| *to = f64::from(v) - m);
                }
            });
            let size = chunk.len() * TILE;
            tiles.par_iter_mut().for_each(|(i, j, tile)| add_products(tile, &panels[*i][..size], &panels[*j][..size]));
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

/// Adds to `tile` the products of the columns of panel `a` with those of panel `b` ([`TILE`] columns each, row-major).
fn add_products(tile: &mut [f64], a: &[f64], b: &[f64]) {
    let depth = a.len() / TILE;
    assert!(tile.len() == TILE * TILE && a.len() == depth * TILE && b.len() == a.len());
    // SAFETY: the output is TILE x TILE, the inputs depth x TILE (the first read transposed), dense, row-major, of
    // exactly these lengths (asserted); the output is uniquely borrowed.
    unsafe {
        gemm::gemm(
            TILE,
            TILE,
            depth,
            tile.as_mut_ptr(),
            1,
            TILE as isize,
            true,
            a.as_ptr(),
            TILE as isize,
            1,
            b.as_ptr(),
            1,
            TILE as isize,
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
