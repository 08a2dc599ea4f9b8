//! k-means: k-means++ seeding, Lloyd's iteration, best of several restarts. Same result at any number of threads.
//!
//! Conventions are scikit-learn's (`KMeans(algorithm="lloyd")`): greedy seeding, the stopping rule, empty clusters,
//! inertia. What differs is the work: all restarts run side by side, so that one pass over the points serves them all
//! as one matrix product; points whose cluster cannot have changed are left out; and sums of clusters are corrected by
//! the points that moved instead of being formed anew. None of this changes a label: each is decided by distances in
//! f64 wherever the f32 products could be wrong.
//!
//! Floor for n points of d features, k clusters and r restarts: a whole iteration computes 2 n r k d flops and reads
//! 4 n d bytes; at 60,000 x 512, k = 10, r = 10: 6.1 Gflop and 123 MB (see `benches/kmeans.rs`). Memory besides the
//! points: 8 n r bytes for labels and margins, 4 n r (2 + ln k) bytes while seeding.
//!
//! Points are seeded on the host. The iteration runs on a [`Backend`], whose [`Partition`] gives the same bits on every device.

mod assign;
mod host;
mod lloyd;
mod partition;
mod points;
mod seeding;

pub use host::HostPartition;
pub use partition::{Partition, Target};
pub use points::Points;

pub(crate) use assign::NONE;

use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::{Error, Result};
use lloyd::Lloyd;

/// Columns of one matrix product: as many restarts as fit run side by side. Enough to fill the multiplier, few enough
/// for a block's products to stay in the cache.
const COLUMNS: usize = 256;

/// The parameters of a clustering.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// Number of clusters k, at least 1.
    pub clusters: usize,
    /// Independent seedings, of which the one with the least inertia counts. At least 1.
    pub restarts: usize,
    /// Iterations after which a restart ends, converged or not.
    pub max_iterations: usize,
    /// A restart ends when the squared shift of its centres, summed, is at most this times the mean variance of the
    /// features. 0: only when no point changes its cluster.
    pub tolerance: f64,
    /// Seed of the random streams (`Purpose::KMeans`, epoch = restart).
    pub seed: u64,
}

/// A partition of points into clusters.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// The cluster of every point, in 0..k: the one whose centre is nearest.
    pub labels: Vec<u32>,
    /// k x dim, row-major, in the points' units.
    pub centers: Vec<f64>,
    /// Sum of the squared distances of the points to their centres.
    pub inertia: f64,
    /// Assignments of all points to centres until the iteration ended.
    pub iterations: usize,
}

impl KMeans {
    /// The paper's protocol: 10 restarts, seed 42; scikit-learn's 300 iterations and tolerance 1e-4.
    pub fn new(clusters: usize) -> Self {
        KMeans { clusters, restarts: 10, max_iterations: 300, tolerance: 1e-4, seed: 42 }
    }

    /// Clusters `points` (n x `dim`, row-major).
    ///
    /// # Errors
    /// [`Error::Shape`] if `points` are not one or more rows of `dim`; [`Error::NonFinite`] naming the first row with
    /// an infinite number or NaN; [`Error::Usage`] if there are no clusters, no restarts, or more clusters than points.
    pub fn fit(&self, points: &[f32], dim: usize) -> Result<Clustering> {
        self.fit_on(&Cpu::<f32>::new(), points, dim)
    }

    /// The same on a device: the same bits.
    ///
    /// # Errors
    /// As [`KMeans::fit`], and where the device fails or has not the memory.
    pub fn fit_on<B: Backend>(&self, backend: &B, points: &[f32], dim: usize) -> Result<Clustering> {
        let points = Points::new(points, dim)?;
        check_clusters(self.clusters, points.rows.count)?;
        let threshold = self.tolerance * points.variance;
        let together = (COLUMNS / self.clusters).max(1);
        let mut best: Option<Clustering> = None;
        for first in (0..self.restarts).step_by(together) {
            let restarts = first..(first + together).min(self.restarts);
            let initial = seeding::seed(&points, self.clusters, self.seed, restarts.clone());
            let partition = backend.partition(&points, self.clusters, restarts.len())?;
            for run in Lloyd::new(&points, self.clusters, initial, partition).run(self.max_iterations, threshold)? {
                // The first of equals, so that the choice depends on nothing but the inertias.
                if best.as_ref().is_none_or(|best| run.inertia < best.inertia) {
                    best = Some(run);
                }
            }
        }
        best.ok_or_else(|| Error::Usage("k-means needs at least one restart".into()))
    }
}

/// Lloyd's iteration on `points` (n x `dim`) from `initial_centers` (k x `dim`), with `max_iterations` and `tolerance`
/// as in [`KMeans`].
///
/// # Errors
/// As [`KMeans::fit`], and the same for `initial_centers`.
pub fn lloyd(
    points: &[f32],
    dim: usize,
    initial_centers: &[f64],
    max_iterations: usize,
    tolerance: f64,
) -> Result<Clustering> {
    lloyd_on(&Cpu::<f32>::new(), points, dim, initial_centers, max_iterations, tolerance)
}

/// The same on a device: the same bits.
///
/// # Errors
/// As [`lloyd`], and where the device fails or has not the memory.
pub fn lloyd_on<B: Backend>(
    backend: &B,
    points: &[f32],
    dim: usize,
    initial_centers: &[f64],
    max_iterations: usize,
    tolerance: f64,
) -> Result<Clustering> {
    let points = Points::new(points, dim)?;
    if !initial_centers.len().is_multiple_of(dim) {
        let problem = format!("{} numbers are not initial centres of {dim} each", initial_centers.len());
        return Err(Error::shape("kmeans", problem));
    }
    if let Some(index) = initial_centers.iter().position(|v| !v.is_finite()) {
        return Err(Error::NonFinite(format!("kmeans: initial centre {} is not finite", index / dim)));
    }
    let clusters = initial_centers.len() / dim;
    check_clusters(clusters, points.rows.count)?;
    let threshold = tolerance * points.variance;
    let partition = backend.partition(&points, clusters, 1)?;
    let runs = Lloyd::new(&points, clusters, vec![initial_centers.to_vec()], partition);
    Ok(runs.run(max_iterations, threshold)?.swap_remove(0))
}

/// `Ok` if `count` points can be put into `clusters` clusters.
fn check_clusters(clusters: usize, count: usize) -> Result<()> {
    if clusters == 0 || clusters > count {
        let problem = format!("cannot form {clusters} clusters of {count} points: ask for 1 to {count}");
        return Err(Error::Usage(problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
