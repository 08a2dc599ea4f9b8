//! How well a ground-truth factor (shape, colour, position, ...) is read from an embedding: a linear probe.
//!
//! The score of a factor is defined as follows. The images are split 80 : 20 by a random order that depends on the seed
//! alone. On the larger part, regularised linear discriminant analysis is fitted: with features divided by their
//! standard deviation, class means `m_c`, shares `p_c` and the covariance `W` within the classes,
//!
//! ```text
//! class(x) = argmax_c  x . v_c - m_c . v_c / 2 + ln p_c,     (W + RIDGE I) v_c = m_c
//! ```
//!
//! (Hastie, Tibshirani and Friedman 2009, section 4.3; `x` and `m_c` relative to the overall mean.) `accuracy` is its
//! share of right answers on the smaller part, `chance` that of always answering the larger part's commonest class, and
//! `score = (accuracy - chance) / (1 - chance)`: 0 for an embedding that knows nothing, 1 for one in which hyperplanes
//! separate the classes. Discriminant analysis rather than least squares on indicator vectors, because the latter cannot
//! see the middle classes of an ordered factor (size, position) that is encoded along one line.
//!
//! Cost: n dim^2 + factors x dim^3 / 3 flops, closed form, nothing to tune and nothing random but the split.

use super::Rows;
use super::cholesky::Cholesky;
use super::covariance::Covariance;
use super::metrics::ranks;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Added to the variance 1 of every feature: directions with less than a hundredth of a feature's variance are
/// believed in proportion. Keeps singular covariances (fewer images than features, duplicate features) solvable.
const RIDGE: f64 = 1e-2;

/// How well one factor is read from an embedding; see the [module](self) for the definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactorScore {
    /// Name of the factor.
    pub factor: String,
    /// Distinct values the factor takes.
    pub classes: usize,
    /// Share of the held-out images whose value is read right.
    pub accuracy: f64,
    /// The same for always answering the commonest value.
    pub chance: f64,
    /// `(accuracy - chance) / (1 - chance)`; at most 1, negative if worse than chance. 0 if chance is already 1.
    pub score: f64,
}

/// One ground-truth factor.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value for every image; any ids.
    pub values: &'a [u32],
}

/// Reads every factor from `embedding` (n x `dim`, row-major, n at least 5), in the order given.
///
/// # Errors
/// [`Error::Shape`] if the embedding is not rows of `dim`, has fewer than 5 rows, or a factor has another number of
/// values; [`Error::NonFinite`] naming the first row with an infinite number or NaN.
pub fn probe(embedding: &[f32], dim: usize, factors: &[Factor], seed: u64) -> Result<Vec<FactorScore>> {
    let rows = Rows::new("probe", embedding, dim)?;
    if rows.count < 5 {
        return Err(Error::shape("probe", format!("{} rows, at least 5 are needed to hold some out", rows.count)));
    }
    if let Some(f) = factors.iter().find(|f| f.values.len() != rows.count) {
        let problem = format!("factor {} has {} values for {} rows", f.name, f.values.len(), rows.count);
        return Err(Error::shape("probe", problem));
    }
    let mut order = shuffled(rows.count as u32, seed);
    let (train, test) = order.split_at_mut(rows.count * 4 / 5);
    // Rows are read in the order of memory.
    train.sort_unstable();
    test.sort_unstable();
    let total = Covariance::new(rows, train);
    factors.iter().map(|factor| score(rows, &total, factor, train, test)).collect()
}

/// A random order of 0..`count` (Fisher and Yates).
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut random = stream(seed, Purpose::Probe, 0, 0, 0);
    let mut order: Vec<u32> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i as usize, random.below(i + 1) as usize);
    }
    order
}

/// Fits one factor on `train` and judges it on `test`.
fn score(rows: Rows, total: &Covariance, factor: &Factor, train: &[u32], test: &[u32]) -> Result<FactorScore> {
    let (values, all) = ranks(factor.values);
    let classes = all.len();
    let mut counts = vec![0u64; classes];
    train.iter().for_each(|&row| counts[values[row as usize]] += 1);
    let commonest = (0..classes).max_by_key(|&c| (counts[c], std::cmp::Reverse(c))).unwrap_or(0);
    let share = |right: usize| right as f64 / test.len() as f64;
    let chance = share(test.iter().filter(|&&row| values[row as usize] == commonest).count());
    let means = class_means(rows, total, &values, &counts, train);
    let rule = Discriminant::new(total, &means, &counts)?;
    let right = test.par_iter().filter(|&&row| rule.class(rows.row(row as usize)) == values[row as usize]).count();
    let accuracy = share(right);
    let score = if chance < 1.0 { (accuracy - chance) / (1.0 - chance) } else { 0.0 };
    Ok(FactorScore { factor: factor.name.to_owned(), classes, accuracy, chance, score })
}

/// Means of the classes relative to the overall mean: classes x dim; 0 for a class without training images. A class
/// belongs to one task, which adds its images in order.
fn class_means(rows: Rows, total: &Covariance, values: &[usize], counts: &[u64], train: &[u32]) -> Vec<f64> {
    let mut by_class = vec![Vec::new(); counts.len()];
    train.iter().for_each(|&row| by_class[values[row as usize]].push(row));
    let mut means = vec![0.0; counts.len() * rows.dim];
    means.par_chunks_mut(rows.dim).zip(&by_class).for_each(|(mean, images)| {
        for &row in images {
            let x = rows.row(row as usize).iter().zip(&total.mean);
            mean.iter_mut().zip(x).for_each(|(sum, (&x, m))| *sum += f64::from(x) - m);
        }
        mean.iter_mut().for_each(|v| *v /= images.len().max(1) as f64);
    });
    means
}

/// A fitted linear rule.
struct Discriminant {
    /// Weights of every class per feature as given: classes x dim.
    weights: Vec<f64>,
    /// Added to the product, per class; minus infinity for a class never seen.
    bias: Vec<f64>,
}

impl Discriminant {
    fn new(total: &Covariance, means: &[f64], counts: &[u64]) -> Result<Self> {
        let dim = total.mean.len();
        let images = counts.iter().sum::<u64>() as f64;
        let shares: Vec<f64> = counts.iter().map(|&c| c as f64 / images).collect();
        // A feature that varies by no more than the rounding of its mean is constant, and takes no part.
        let inverse = |(variance, mean): (f64, &f64)| {
            if variance > 1e-24 * mean * mean { variance.sqrt().recip() } else { 0.0 }
        };
        let inverse: Vec<f64> = total.variances().zip(&total.mean).map(inverse).collect();
        let mut weights: Vec<f64> = means.iter().zip(inverse.iter().cycle()).map(|(m, s)| m * s).collect();
        let mut within = total.matrix.clone();
        within.par_chunks_mut(dim).enumerate().for_each(|(i, row)| {
            for (v, s) in row.iter_mut().zip(&inverse) {
                *v *= s * inverse[i];
            }
            for (mean, share) in weights.chunks(dim).zip(&shares) {
                row.iter_mut().zip(mean).for_each(|(v, m)| *v -= share * mean[i] * m);
            }
            row[i] += RIDGE;
        });
        let singular = || Error::NonFinite("probe: the embedding's covariance is not a number".into());
        let factor = Cholesky::new(within, dim).ok_or_else(singular)?;
        let solve = |(weights, share): (&mut [f64], &f64)| {
            let mean = weights.to_vec();
            factor.solve(weights);
            let half = weights.iter().zip(&mean).map(|(w, m)| w * m).sum::<f64>() / 2.0;
            weights.iter_mut().zip(&inverse).for_each(|(w, s)| *w *= s);
            let centre: f64 = weights.iter().zip(&total.mean).map(|(w, m)| w * m).sum();
            share.ln() - half - centre
        };
        let bias = weights.par_chunks_mut(dim).zip(&shares).map(solve).collect();
        Ok(Discriminant { weights, bias })
    }

    /// The class of an image.
    fn class(&self, x: &[f32]) -> usize {
        let value = |(weights, bias): (&[f64], &f64)| {
            let product: f64 = x.iter().zip(weights).map(|(&x, w)| f64::from(x) * w).sum();
            product + bias
        };
        let values = self.weights.chunks(x.len()).zip(&self.bias).map(value).enumerate();
        values.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(class, _)| class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal numbers: `count` x `dim`.
    fn noise(count: usize, dim: usize) -> Vec<f32> {
        let mut random = stream(5, Purpose::Shapes, 0, 0, 0);
        (0..count * dim).map(|_| random.normal() as f32).collect()
    }

    /// `count` random values below `classes`.
    fn random_factor(count: usize, classes: u32) -> Vec<u32> {
        let mut random = stream(6, Purpose::Shapes, 0, 0, 0);
        (0..count).map(|_| random.below(classes)).collect()
    }

    fn one(embedding: &[f32], dim: usize, values: &[u32]) -> FactorScore {
        probe(embedding, dim, &[Factor { name: "size", values }], 42).unwrap().remove(0)
    }

    #[test]
    fn a_linearly_encoded_factor_is_read_perfectly() {
        // Five ordered values along one direction, far off and in other units: the middle ones count too. Noise in the
        // nine other features. The values stand 2 apart without variance of their own, the ridge adds a hundredth of
        // 8 = Var(0, 2, .., 8): half the gap is 1 / 0.28 = 3.5 deviations inside, and only the noise's influence on the
        // weights, of order 1 / sqrt(n) of it, could cross.
        let (count, dim) = (4000, 10);
        let values = random_factor(count, 5);
        let mut embedding = noise(count, dim);
        for (row, &v) in embedding.chunks_mut(dim).zip(&values) {
            row[3] = 1e3 + 2.0 * v as f32;
        }
        let got = one(&embedding, dim, &values);
        assert_eq!((got.accuracy, got.score, got.classes), (1.0, 1.0, 5));
        // Mixed into all features by an invertible map, ids renamed, a constant and a duplicate feature added.
        let mixed: Vec<f32> = embedding
            .chunks(dim)
            .flat_map(|row| {
                let sum: f32 = row.iter().sum();
                row.iter().map(|v| v * 3.0 + sum).chain([7.5, row[0], row[0]]).collect::<Vec<_>>()
            })
            .collect();
        let renamed: Vec<u32> = values.iter().map(|v| 1000 - 7 * v).collect();
        assert_eq!(one(&mixed, dim + 3, &renamed).score, 1.0);
    }

    #[test]
    fn an_independent_factor_scores_nothing() {
        // 2,000 held-out answers, right with probability 1/4 whatever the rule: 6 deviations of accuracy and of chance
        // are 6 * sqrt(3/16 / 2000) = 0.058 each, and the score divides their difference by 1 - chance > 0.69.
        let got = one(&noise(10_000, 20), 20, &random_factor(10_000, 4));
        assert!((got.accuracy - 0.25).abs() < 0.058 && (got.chance - 0.25).abs() < 0.058, "{got:?}");
        assert!(got.score.abs() < 2.0 * 0.058 / 0.69);
    }

    #[test]
    fn two_gaussians_are_read_as_well_as_can_be() {
        // Means 2 apart, unit variance: the best rule errs with probability Phi(-1) = 0.1587. 6 deviations on 4,000
        // held-out images are 0.035; estimation costs far less.
        let values = random_factor(20_000, 2);
        let mut embedding = noise(20_000, 6);
        embedding.chunks_mut(6).zip(&values).for_each(|(row, &v)| row[2] += 2.0 * v as f32);
        assert!((one(&embedding, 6, &values).accuracy - 0.8413).abs() < 0.035);
    }

    #[test]
    fn degenerate_embeddings_and_factors_do_not_break_it() {
        let values = random_factor(50, 3);
        // Everything constant: no better than chance, which it is exactly.
        let constant = one(&[0.3; 50 * 4], 4, &values);
        assert_eq!((constant.accuracy, constant.score), (constant.chance, 0.0));
        // More features than images; a factor with one value; every image its own value.
        assert!(one(&noise(50, 200), 200, &values).score.is_finite());
        assert_eq!(one(&noise(50, 3), 3, &[9; 50]).score, 0.0);
        let own: Vec<u32> = (0..50).collect();
        assert_eq!(one(&noise(50, 3), 3, &own).accuracy, 0.0);
        let huge: Vec<f32> = noise(50, 3).iter().map(|v| v * 1e37).collect();
        assert_eq!(one(&huge, 3, &values), one(&noise(50, 3), 3, &values));
    }

    #[test]
    fn the_split_is_the_seeds_and_threads_do_not_matter() {
        let (embedding, values) = (noise(300, 70), random_factor(300, 3));
        let at = |threads: usize, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| probe(&embedding, 70, &[Factor { name: "a", values: &values }], seed).unwrap())
        };
        assert_eq!(at(1, 1), at(3, 1));
        assert_ne!(shuffled(300, 1), shuffled(300, 2));
    }

    #[test]
    fn bad_input_is_an_error() {
        let values = [0, 1, 0, 1, 0];
        let with = |embedding: &[f32], dim, values: &[u32]| probe(embedding, dim, &[Factor { name: "hue", values }], 1);
        assert!(with(&[1.0; 10], 2, &values).is_ok());
        assert!(with(&[1.0; 10], 2, &values[..4]).unwrap_err().to_string().contains("hue"));
        assert!(with(&[1.0; 8], 2, &values[..4]).unwrap_err().to_string().contains("at least 5"));
        assert!(with(&[f32::NAN; 10], 2, &values).unwrap_err().to_string().contains("row 0"));
        assert!(with(&[1.0; 10], 3, &values).is_err());
    }
}
