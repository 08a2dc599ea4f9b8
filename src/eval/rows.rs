//! A borrowed matrix of embeddings, checked once at the door.

use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Sums over all rows are formed over at most this many ranges of rows, each from first to last, and added in the
/// ranges' order. The number is fixed, so that a sum never depends on the number of threads.
const RANGES: usize = 64;

/// `count` x `dim` finite numbers, row-major, `count` and `dim` at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub values: &'a [f32],
    pub count: usize,
    pub dim: usize,
}

impl<'a> Rows<'a> {
    /// Checks `values` as rows of `dim` numbers for the operation `op`.
    pub fn new(op: &'static str, values: &'a [f32], dim: usize) -> Result<Self> {
        if dim == 0 || values.is_empty() || !values.len().is_multiple_of(dim) {
            let problem = format!("{} numbers are not one or more rows of {dim}", values.len());
            return Err(Error::shape(op, problem));
        }
        let count = values.len() / dim;
        if u32::try_from(count).is_err() {
            return Err(Error::shape(op, format!("{count} rows, at most {} can be numbered", u32::MAX)));
        }
        let unusable = |row: &[f32]| row.iter().any(|v| !v.is_finite());
        if let Some(row) = values.par_chunks(dim).position_first(unusable) {
            return Err(Error::NonFinite(format!("{op}: row {row} (of {count}) holds a number that is not finite")));
        }
        Ok(Rows { values, count, dim })
    }

    /// Row `index`: `dim` numbers.
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// Mean of every column, in f64.
    pub fn mean(&self) -> Vec<f64> {
        self.mean_of(self.count, |row| row)
    }

    /// Mean of every column over the `count` rows (at least one) that `row` numbers, in f64.
    pub fn mean_of(&self, count: usize, row: impl Fn(usize) -> usize + Sync) -> Vec<f64> {
        let sum = |range: Range<usize>| {
            let mut sum = vec![0.0; self.dim];
            for index in range {
                sum.iter_mut().zip(self.row(row(index))).for_each(|(s, &v)| *s += f64::from(v));
            }
            sum
        };
        let sums: Vec<Vec<f64>> = ranges(count).into_par_iter().map(sum).collect();
        let mut mean = vec![0.0; self.dim];
        for sum in sums {
            mean.iter_mut().zip(sum).for_each(|(m, s)| *m += s);
        }
        mean.iter_mut().for_each(|m| *m /= count as f64);
        mean
    }
}

/// `0..count` cut into at most [`RANGES`] ranges of nearly equal length.
fn ranges(count: usize) -> Vec<Range<usize>> {
    let length = count.div_ceil(RANGES).max(1);
    (0..count).step_by(length).map(|start| start..(start + length).min(count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_mean_and_bad_rows_are_named() {
        let mut values: Vec<f32> = (0..300).map(|i| i as f32).collect();
        assert_eq!(Rows::new("test", &values, 3).unwrap().mean(), [148.5, 149.5, 150.5]);
        assert_eq!(Rows::new("test", &values[..3], 3).unwrap().mean(), [0.0, 1.0, 2.0]);
        values[10] = f32::NAN;
        values[200] = f32::INFINITY;
        let problem = Rows::new("test", &values, 3).unwrap_err().to_string();
        assert_eq!(problem, "test: row 3 (of 100) holds a number that is not finite");
        for (count, dim) in [(0, 3), (4, 3), (3, 0)] {
            assert!(matches!(Rows::new("test", &values[..count], dim), Err(Error::Shape { .. })), "{count} {dim}");
        }
    }
}
