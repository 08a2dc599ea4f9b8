//! Figures that need no labels: has the embedding collapsed, and are the feature heads alive?

use super::Rows;
use super::covariance::Covariance;
use crate::Result;
use serde::{Deserialize, Serialize};

/// A head whose standard deviation over the images is below this says the same about every image. Outputs lie in
/// 0..1; a hundredth of that range is far above rounding and far below any feature that splits the images.
pub const CONSTANT_HEAD: f64 = 1e-2;

/// How an embedding fills its space.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean of the variances of the dimensions (division by n).
    pub variance: f64,
    /// Participation ratio of the covariance matrix C: `trace(C)^2 / |C|_F^2`, that is (sum of the eigenvalues)^2 over
    /// the sum of their squares. Between 1 (all on a line) and dim (the same variance in every direction); 0 if nothing
    /// varies. A smooth count of dimensions in use that needs no eigenvalues.
    pub effective_rank: f64,
}

/// What the feature heads do over a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadActivity {
    /// Mean of all outputs, in 0..=1; entropy is largest at 0.5.
    pub mean: f64,
    /// Mean over the heads of their standard deviation over the images; at most 0.5. 0 in the trivial solution.
    pub deviation: f64,
    /// Heads whose standard deviation over the images is below [`CONSTANT_HEAD`].
    pub constant_heads: usize,
}

/// Spread of `embedding` (n x `dim`, row-major). Errors if it is not one or more rows of `dim` finite numbers.
pub fn spread(embedding: &[f32], dim: usize) -> Result<Spread> {
    let rows = Rows::new("spread", embedding, dim)?;
    let chosen: Vec<u32> = (0..rows.count as u32).collect();
    let covariance = Covariance::new(rows, &chosen);
    let trace: f64 = covariance.variances().sum();
    let squares: f64 = covariance.matrix.iter().map(|v| v * v).sum();
    let effective_rank = if squares > 0.0 { trace * trace / squares } else { 0.0 };
    Ok(Spread { variance: trace / dim as f64, effective_rank })
}

/// Activity of the feature heads with outputs `y` (n x `heads`, row-major). Errors if `y` is not one or more rows of
/// `heads` finite numbers.
pub fn head_activity(y: &[f32], heads: usize) -> Result<HeadActivity> {
    let rows = Rows::new("head activity", y, heads)?;
    let means = rows.mean();
    let mut squares = vec![0.0; heads];
    for row in y.chunks_exact(heads) {
        squares.iter_mut().zip(row).zip(&means).for_each(|((s, &v), m)| *s += (f64::from(v) - m).powi(2));
    }
    let deviations: Vec<f64> = squares.iter().map(|s| (s / rows.count as f64).sqrt()).collect();
    Ok(HeadActivity {
        mean: means.iter().sum::<f64>() / heads as f64,
        deviation: deviations.iter().sum::<f64>() / heads as f64,
        constant_heads: deviations.iter().filter(|&&d| d < CONSTANT_HEAD).count(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn effective_rank_counts_directions() {
        let mut random = stream(3, Purpose::Probe, 0, 0, 0);
        let (count, dim) = (20_000, 12);
        let latent: Vec<[f64; 3]> = (0..count).map(|_| std::array::from_fn(|_| random.normal())).collect();
        // Three equal directions inside twelve dimensions, at an offset. Eigenvalues 4 with relative deviations of
        // sqrt(2 / n): the ratio is 3 to second order in these; the mean variance 3 * 4 / 12.
        let inside: Vec<f32> = latent.iter().flat_map(|l| (0..dim).map(|d| (50.0 + l[d % 3]) as f32)).collect();
        let three = spread(&inside, dim).unwrap();
        assert!((three.effective_rank - 3.0).abs() < 0.01, "{three:?}");
        assert!((three.variance - 1.0).abs() < 6.0 * (2.0 / (3.0 * count as f64)).sqrt());
        let line: Vec<f32> = latent.iter().flat_map(|l| (0..dim).map(|d| l[0] as f32 * d as f32)).collect();
        assert!((spread(&line, dim).unwrap().effective_rank - 1.0).abs() < 1e-9);
        assert_eq!(spread(&[0.7; 24], dim).unwrap(), Spread { variance: 0.0, effective_rank: 0.0 });
        assert!(spread(&[1.0; 5], 2).is_err());
    }

    #[test]
    fn heads_that_say_nothing_are_counted() {
        // Heads: constant, half of the images 0.2 and half 0.6, barely moving.
        let y: Vec<f32> =
            (0..1000).flat_map(|i| if i % 2 == 0 { [0.5, 0.2, 0.9] } else { [0.5, 0.6, 0.901] }).collect();
        let got = head_activity(&y, 3).unwrap();
        assert_eq!(got.constant_heads, 2);
        assert!((got.mean - (0.5 + 0.4 + 0.9005) / 3.0).abs() < 1e-7);
        assert!((got.deviation - (0.2 + 0.0005) / 3.0).abs() < 1e-7);
        assert!(head_activity(&[f32::NAN], 1).is_err());
    }
}
