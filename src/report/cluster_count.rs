//! Proposes a number of clusters where nobody knows one.
//!
//! The criterion is the mean silhouette (Rousseeuw 1987) of k-means for every K, less what it is for data of the same
//! spread without structure: the idea of the gap statistic (Tibshirani, Walther and Hastie 2001), applied to a figure that
//! does not improve by mere division. K is where the difference is largest.
//!
//! Why so. A silhouette alone always names some K, also for a single cloud, and prefers small K because dividing any
//! elongated cloud in two is easy; the reference says how easy, for each K. Inertia (elbow, the plain gap) falls with every K
//! and its gap keeps rising where clusters are not round. Prediction strength asks that the worst cluster be reproduced,
//! which with ten or more overlapping clusters never happens.
//!
//! The reference is uniform along each principal component of the points, with their deviation: it has their spread and
//! shape but nothing in which points gather. [`ClusterCount::draws`] of them are made; there is structure if the points'
//! largest difference is larger than that of every draw (each taken against the others). Points that come from the
//! reference pass that with a probability of 1 in draws + 1: a rank test. Otherwise no K is proposed.
//!
//! All is computed on a sample of the points along their leading [`DIMENSIONS`] principal components.

use crate::eval::Rows;
use crate::eval::dots;
use crate::eval::kmeans::KMeans;
use crate::eval::pca::Components;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::neighbours::choose;

/// Principal components that count, at most.
pub const DIMENSIONS: usize = 50;
/// Restarts of each k-means.
const RESTARTS: usize = 5;
/// Points a task works on.
const BLOCK: usize = 64;

/// How a number of clusters is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterCount {
    /// Largest K that is tried, at least 2; K is also below the number of points.
    pub largest: usize,
    /// Points looked at, at most: chosen at random by the seed.
    pub sample: usize,
    /// Sets of reference points, at least 2.
    pub draws: usize,
    /// Seed of the sample, the reference and k-means.
    pub seed: u64,
}

impl Default for ClusterCount {
    /// K up to 20 on 2,000 points; 19 draws, so that points without structure are given clusters in 1 of 20 cases.
    fn default() -> Self {
        ClusterCount { largest: 20, sample: 2000, draws: 19, seed: 42 }
    }
}

/// One K.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// K.
    pub clusters: usize,
    /// Mean silhouette of the points, in -1..=1: 1 if clusters are tight and far apart, 0 if points lie between them.
    pub silhouette: f64,
    /// The mean of that over the reference draws.
    pub reference: f64,
    /// Its standard deviation over the draws.
    pub deviation: f64,
    /// `silhouette - reference`: the criterion.
    pub gap: f64,
}

/// A proposed number of clusters, and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The K of the largest gap, the first of equals; `None` if the points are not more clustered than reference points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// Every K that was tried, ascending. Empty if there are too few points.
    pub curve: Vec<Candidate>,
    /// The gap that would have to be exceeded: the largest of any reference draw.
    pub threshold: f64,
    /// Points it was computed on.
    pub sample: usize,
}

impl ClusterCount {
    /// Proposes a number of clusters for `points` (n x `dim`, row-major). Same result at any number of threads.
    ///
    /// # Errors
    /// [`Error::Shape`] if `points` are not one or more rows of `dim`; [`Error::NonFinite`] naming the first row with a
    /// number that is not finite; [`Error::Usage`] for parameters out of range.
    pub fn propose(&self, points: &[f32], dim: usize) -> Result<Proposal> {
        if self.largest < 2 || self.sample < 4 || self.draws < 2 {
            let problem = "number of clusters: largest K and draws must be at least 2, the sample at least 4";
            return Err(Error::Usage(problem.into()));
        }
        let rows = Rows::new("number of clusters", points, dim)?;
        let mut chosen = choose(rows.count, self.sample, self.seed);
        chosen.sort_unstable();
        let sample: Vec<f32> = chosen.iter().flat_map(|&i| rows.row(i)).copied().collect();
        let width = dim.min(DIMENSIONS);
        let components = Components::new(&sample, dim, width)?;
        let counts: Vec<usize> = (2..=self.largest.min(chosen.len().saturating_sub(1))).collect();
        if counts.is_empty() {
            return Ok(Proposal { clusters: None, curve: Vec::new(), threshold: 0.0, sample: chosen.len() });
        }
        let own = self.silhouettes(&components.project(&sample), width, &counts)?;
        let deviations: Vec<f64> = components.variances.iter().map(|v| v.sqrt()).collect();
        let draw = |draw| self.silhouettes(&self.reference(&deviations, chosen.len(), draw), width, &counts);
        let draws: Vec<Vec<f64>> = (0..self.draws).map(draw).collect::<Result<_>>()?;
        let curve: Vec<Candidate> = (0..counts.len()).map(|k| candidate(counts[k], own[k], k, &draws)).collect();
        let threshold = (0..draws.len()).map(|d| largest_gap(&draws, d)).fold(f64::NEG_INFINITY, f64::max);
        let best = curve.iter().copied().reduce(|best, c| if c.gap > best.gap { c } else { best });
        let clusters = best.filter(|best| best.gap > threshold).map(|best| best.clusters);
        Ok(Proposal { clusters, curve, threshold, sample: chosen.len() })
    }

    /// Points without structure: uniform, with these deviations along the axes.
    fn reference(&self, deviations: &[f64], count: usize, draw: usize) -> Vec<f64> {
        let point = |i: usize| {
            let mut random = stream(self.seed, Purpose::Reference, draw as u64, i as u64, 0);
            let half = 3f64.sqrt();
            deviations.iter().map(|d| d * random.uniform_in(-half, half)).collect::<Vec<_>>()
        };
        (0..count).into_par_iter().flat_map_iter(point).collect()
    }

    /// Mean silhouettes of k-means of `points` (n x `dim`) with each of the numbers of clusters.
    fn silhouettes(&self, points: &[f64], dim: usize, counts: &[usize]) -> Result<Vec<f64>> {
        // The scale means nothing; that of the first component is safe in f32.
        let scale = points.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        let points: Vec<f32> = points.iter().map(|v| if scale > 0.0 { (v / scale) as f32 } else { 0.0 }).collect();
        let distances = distances(&points, dim);
        let silhouette = |&clusters: &usize| {
            let kmeans = KMeans { restarts: RESTARTS, seed: self.seed, ..KMeans::new(clusters) };
            Ok(silhouette(&distances, &kmeans.fit(&points, dim)?.labels, clusters))
        };
        counts.par_iter().map(silhouette).collect()
    }
}

/// The figures of one K, the `k`-th of those tried.
fn candidate(clusters: usize, silhouette: f64, k: usize, draws: &[Vec<f64>]) -> Candidate {
    let n = draws.len() as f64;
    let reference = draws.iter().map(|d| d[k]).sum::<f64>() / n;
    let deviation = (draws.iter().map(|d| (d[k] - reference).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    Candidate { clusters, silhouette, reference, deviation, gap: silhouette - reference }
}

/// The largest gap of draw `own` against the mean of the others.
fn largest_gap(draws: &[Vec<f64>], own: usize) -> f64 {
    let gap = |k: usize| {
        let others = draws.iter().enumerate().filter(|(d, _)| *d != own).map(|(_, s)| s[k]).sum::<f64>();
        draws[own][k] - others / (draws.len() - 1) as f64
    };
    (0..draws[own].len()).map(gap).fold(f64::NEG_INFINITY, f64::max)
}

/// Distances between all points: n x n.
fn distances(points: &[f32], dim: usize) -> Vec<f32> {
    let wide: Vec<f64> = points.iter().map(|&v| f64::from(v)).collect();
    let squares: Vec<f64> = wide.chunks(dim).map(|x| x.iter().map(|v| v * v).sum()).collect();
    let n = squares.len();
    let mut out = vec![0.0f32; n * n];
    out.par_chunks_mut(BLOCK * n).zip(wide.par_chunks(BLOCK * dim)).enumerate().for_each(|(block, (out, rows))| {
        let mut products = vec![0.0; out.len()];
        dots(rows, &wide, dim, &mut products);
        for (at, (out, product)) in out.iter_mut().zip(products).enumerate() {
            let (i, j) = (block * BLOCK + at / n, at % n);
            // The diagonal is 0 by definition, not by rounding.
            let squared = if i == j { 0.0 } else { squares[i] + squares[j] - 2.0 * product };
            *out = squared.max(0.0).sqrt() as f32;
        }
    });
    out
}

/// Mean over the points of `(b - a) / max(a, b)`, a the mean distance to the others of its cluster, b the least mean distance
/// to those of another (Rousseeuw 1987); 0 for a point alone in its cluster, or if there is one cluster.
fn silhouette(distances: &[f32], labels: &[u32], clusters: usize) -> f64 {
    let n = labels.len();
    let mut sizes = vec![0usize; clusters];
    labels.iter().for_each(|&l| sizes[l as usize] += 1);
    let of = |(i, row): (usize, &[f32])| {
        let mut sums = vec![0.0f64; clusters];
        row.iter().zip(labels).for_each(|(&d, &l)| sums[l as usize] += f64::from(d));
        let own = labels[i] as usize;
        let others = (0..clusters).filter(|&c| c != own && sizes[c] > 0).map(|c| sums[c] / sizes[c] as f64);
        let b = others.fold(f64::INFINITY, f64::min);
        if sizes[own] < 2 || b.is_infinite() {
            return 0.0;
        }
        let a = sums[own] / (sizes[own] - 1) as f64;
        if a.max(b) > 0.0 { (b - a) / a.max(b) } else { 0.0 }
    };
    let all: Vec<f64> = distances.par_chunks(n).enumerate().map(of).collect();
    all.iter().sum::<f64>() / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` blobs of unit deviation whose centres are normal with deviation `apart`.
    fn blobs(n: usize, dim: usize, count: usize, apart: f64) -> Vec<f32> {
        let mut random = stream(11, Purpose::Probe, count as u64, 0, 0);
        let centres: Vec<f64> = (0..count * dim).map(|_| apart * random.normal()).collect();
        let point = |i: usize| {
            let centre = &centres[i % count * dim..][..dim];
            centre.iter().map(|c| (c + random.normal()) as f32).collect::<Vec<_>>()
        };
        (0..n).flat_map(point).collect()
    }

    fn quick() -> ClusterCount {
        ClusterCount { largest: 12, sample: 300, draws: 19, seed: 42 }
    }

    #[test]
    fn silhouettes_by_hand() {
        // On a line at 0, 1, 5, 7 in two clusters, and a point alone in a third.
        let points = [0.0f32, 1.0, 5.0, 7.0, 20.0];
        let got = silhouette(&distances(&points, 1), &[0, 0, 1, 1, 2], 3);
        let expected = (5.0 / 6.0 + 4.0 / 5.0 + 2.5 / 4.5 + 4.5 / 6.5) / 5.0;
        // Distances are f32 of products in f64.
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
        assert_eq!(silhouette(&distances(&points, 1), &[0; 5], 1), 0.0);
        assert_eq!(silhouette(&distances(&[1.0; 4], 1), &[0, 0, 1, 1], 2), 0.0);
    }

    #[test]
    fn blobs_are_counted() {
        for (count, dim, apart) in [(2, 8, 3.0), (2, 60, 1.5), (3, 2, 8.0), (5, 8, 3.0), (10, 20, 3.0)] {
            let got = quick().propose(&blobs(600, dim, count, apart), dim).unwrap();
            assert_eq!(got.clusters, Some(count), "{dim} dimensions: {:#?}", got);
            assert_eq!((got.sample, got.curve.len(), got.curve[0].clusters), (300, 11, 2));
        }
    }

    #[test]
    fn one_cloud_has_no_number_of_clusters() {
        let mut random = stream(12, Purpose::Probe, 0, 0, 0);
        // Round, elongated, uniform.
        let round = blobs(600, 20, 1, 0.0);
        let long: Vec<f32> = (0..600 * 6).map(|i| (random.normal() * 9.0 / (1 + i % 6) as f64) as f32).collect();
        let uniform: Vec<f32> = (0..600 * 3).map(|_| random.uniform() as f32).collect();
        for (name, points, dim) in [("round", round, 20), ("long", long, 6), ("uniform", uniform, 3)] {
            let got = quick().propose(&points, dim).unwrap();
            assert_eq!(got.clusters, None, "{name}: {got:#?}");
        }
    }

    #[test]
    fn few_or_equal_points_have_none_either() {
        for points in [vec![1.0f32], vec![1.0, 2.0], vec![3.0; 50]] {
            assert_eq!(quick().propose(&points, 1).unwrap().clusters, None, "{points:?}");
        }
        assert!(quick().propose(&[1.0, f32::NAN], 1).is_err() && quick().propose(&[], 1).is_err());
        assert!(matches!(ClusterCount { largest: 1, ..quick() }.propose(&[1.0], 1), Err(Error::Usage(_))));
    }

    #[test]
    fn the_same_at_any_number_of_threads() {
        let points = blobs(200, 10, 3, 2.0);
        let quick = ClusterCount { largest: 4, draws: 3, sample: 150, seed: 1 };
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| quick.propose(&points, 10).unwrap())
        };
        assert_eq!(at(1), at(3));
    }
}
