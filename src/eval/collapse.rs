//! Figures that need no labels: has the embedding collapsed, and are the feature heads alive?

use std::fmt;

use super::Rows;
use super::covariance::Covariance;
use super::embed::{Embeddings, embed_samples};
use crate::Result;
use crate::backend::Backend;
use crate::data::Dataset;
use crate::data::sampler::Permutation;
use crate::model::Model;
use crate::nn::Params;
use serde::{Deserialize, Serialize};

/// A head whose standard deviation over the images is below this says the same about every image. Outputs lie in
/// 0..1; a hundredth of that range is far above rounding and far below any feature that splits the images.
pub const CONSTANT_HEAD: f64 = 1e-2;

/// Images that [`Health::measure`] looks at, at most. Their deviations are known to 1/sqrt(2 x 512), 3 %. After
/// one epoch of 11 steps on `shapes`, heads deviate by 0.043 (none is constant), 0.037 of the features' mean square is variance,
/// and their effective rank is 3.0: all far from the thresholds below.
const SAMPLE: usize = 512;
/// And at least, if there are so many.
const SMALLEST_SAMPLE: usize = 64;

/// Any fixed order will do.
const SAMPLE_SEED: u64 = 1;

/// Share of constant heads from which on the heads have collapsed. A few dead heads are usual where there are more heads than
/// the images have features; a batch norm stands before the sigmoid, so that no head of an untrained network is
/// constant.
const CONSTANT_HEADS: f64 = 0.9;

/// Share of the features' mean square that is variance, below which all images have one and the same feature vector. 1e-4 is a
/// deviation of a hundredth of their size, as for heads; rounding to bf16 (8 bits) alone gives 1.3e-6, and untrained networks,
/// whose features all point the same way, have 1e-2.
const NO_VARIANCE: f64 = 1e-4;

/// Dimensions in use beyond the first, as a share of all, below which the features lie on a line: less than one in 2,000. Where
/// one direction has the variance 1 and all others together t, spread over many, the effective rank is about 1 + 2 t: of 512
/// dimensions it must be 1.26, and t 0.13.
const ON_A_LINE: f64 = 5e-4;

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

/// Steps before which nothing is called a collapse: evaluation takes running statistics, in which two updates a step by a tenth
/// leave 0.9^44, 1 %, of the meaningless first ones.
pub const SETTLED_STEPS: u64 = 22;

/// What of a representation is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Collapse {
    /// The feature heads say the same about every image.
    Heads,
    /// All images have the same features.
    Variance,
    /// The features vary along one direction.
    Rank,
}

/// Figures of a network on a fixed sample of images, in evaluation mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Images in the sample.
    pub images: usize,
    /// Of the backbone's features h.
    pub spread: Spread,
    /// Variance of h over its mean square, both summed over the dimensions; in 0..=1.
    pub variance_share: f64,
    /// Of the feature heads y.
    pub heads: HeadActivity,
    /// What has collapsed; nothing in a healthy network.
    pub collapsed: Vec<Collapse>,
}

impl Health {
    /// Of up to 512 images of the data set, always the same ones. Errors with
    /// [`Error::NonFinite`](crate::Error::NonFinite) if an embedding is not finite.
    pub fn measure<B: Backend>(
        model: &Model,
        params: &mut Params<B>,
        dataset: &Dataset,
        image_size: usize,
    ) -> Result<Health> {
        let order = Permutation::of_epoch(SAMPLE_SEED, 0, dataset.len());
        // A quarter of a small data set: it is done once an epoch.
        let count = (dataset.len() / 4).clamp(SMALLEST_SAMPLE, SAMPLE).min(dataset.len());
        let samples: Vec<usize> = (0..count).map(|i| order.at(i)).collect();
        Health::of(&embed_samples(model, params, dataset, &samples, image_size, &mut |_| ())?)
    }

    /// Of embeddings.
    pub fn of(embeddings: &Embeddings) -> Result<Health> {
        let Embeddings { h, y, h_dim, y_dim, .. } = embeddings;
        let (spread, heads) = (spread(h, *h_dim)?, head_activity(y, *y_dim)?);
        let square = h.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / h.len() as f64;
        let variance_share = if square > 0.0 { spread.variance / square } else { 0.0 };
        // So few images cannot vary in more directions.
        let directions = (*h_dim).min(h.len() / h_dim - 1).max(1) as f64;
        let constant = heads.constant_heads as f64 >= CONSTANT_HEADS * *y_dim as f64;
        let varies = variance_share >= NO_VARIANCE;
        let line = varies && directions > 1.0 && spread.effective_rank < 1.0 + ON_A_LINE * directions;
        let found = [(constant, Collapse::Heads), (!varies, Collapse::Variance), (line, Collapse::Rank)];
        let collapsed = found.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
        Ok(Health { images: h.len() / h_dim, spread, variance_share, heads, collapsed })
    }
}

impl fmt::Display for Health {
    /// What has collapsed, what that means, and what to try.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { images, spread, variance_share, heads, collapsed } = self;
        for (i, what) in collapsed.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "; " })?;
            match what {
                Collapse::Heads => write!(
                    f,
                    "{} feature heads say the same about all {images} images (deviation {:.4} on average): they tell \
                     nothing apart. Try a larger alpha, a smaller learning_rate or a larger batch_size",
                    heads.constant_heads, heads.deviation
                )?,
                Collapse::Variance => write!(
                    f,
                    "all {images} images have nearly the same features (variance {variance_share:.1e} of their size): \
                     the network no longer tells images apart. Try a smaller learning_rate or weaker augmentation, and \
                     see with `inspect` whether the images differ"
                )?,
                Collapse::Rank => write!(
                    f,
                    "the features of {images} images lie on a line (effective rank {:.2}): all that is left is one \
                     number an image. Try a smaller learning_rate, a larger batch_size or a lower temperature_instance",
                    spread.effective_rank
                )?,
            }
        }
        Ok(())
    }
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
    fn a_collapse_is_told_from_health() {
        let mut random = stream(4, Purpose::Probe, 0, 0, 0);
        let (n, h_dim, y_dim) = (300, 64, 20);
        let mut rows = |dim: usize, value: &mut dyn FnMut(usize, usize, &[f64]) -> f64| -> Vec<f32> {
            (0..n)
                .flat_map(|i| {
                    let normals: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
                    (0..dim).map(|d| value(i, d, &normals) as f32).collect::<Vec<f32>>()
                })
                .collect()
        };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        // Features that point the same way, as an untrained network's do; heads of a batch norm.
        let h = rows(h_dim, &mut |_, _, normals| 1.0 + 0.15 * normals[0] + 0.1 * normals[1] + 0.05 * normals[2]);
        let spread_h = rows(h_dim, &mut |_, d, normals| 1.0 + 0.1 * normals[d]);
        let y = rows(y_dim, &mut |_, d, normals| sigmoid(normals[d]));
        let of = |h: &[f32], y: &[f32]| {
            let health = Health::of(&Embeddings { h: h.into(), y: y.into(), h_dim, y_dim, ..Embeddings::default() });
            let health = health.unwrap();
            assert_eq!(health.to_string().is_empty(), health.collapsed.is_empty());
            health.collapsed
        };
        assert_eq!(of(&spread_h, &y), []);
        // A few dead heads are no collapse; nearly all are.
        let dead = |from: usize| -> Vec<f32> {
            y.iter().enumerate().map(|(i, &y)| if i % y_dim < from { 0.5 + 0.001 * y } else { y }).collect()
        };
        assert_eq!([10, 17, 18, 20].map(|heads| of(&spread_h, &dead(heads)).len()), [0, 0, 1, 1]);
        assert_eq!(of(&spread_h, &dead(20)), [Collapse::Heads]);
        // All on a line: h holds the same number in every dimension.
        assert_eq!(of(&h, &y), [Collapse::Rank]);
        // Rounded to bf16 and otherwise constant.
        let rounded: Vec<f32> =
            spread_h.iter().map(|&x| 3.0 + f32::from_bits((1e-3 * x).to_bits() & 0xffff_0000)).collect();
        assert_eq!(of(&rounded, &dead(20)), [Collapse::Heads, Collapse::Variance]);
        assert_eq!(of(&vec![0.0; n * h_dim], &y), [Collapse::Variance]);
        assert!(
            Health::of(&Embeddings { h: vec![f32::NAN; 4], y: vec![0.5; 4], h_dim: 2, y_dim: 2, ..Default::default() })
                .is_err()
        );
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
