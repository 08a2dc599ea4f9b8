//! What a device must do for k-means: keep every point's cluster in several runs side by side, and the sums of the clusters.

use crate::Result;

/// Centres to assign to: of one run.
pub struct Target<'a> {
    /// Which run.
    pub run: usize,
    /// clusters x dim, in the points' units.
    pub centers: &'a [f64],
    /// Per cluster, by how much a point's margin shrinks at most since the last assignment; in prepared units (see
    /// [`Points`](super::Points)).
    pub drift: &'a [f32],
}

/// The cluster of every point in several runs, and the sums of the clusters. Every device gives the same bits: a label is decided
/// by distances in f64 wherever a product could be wrong, and sums are added up in an order that the points' shape decides.
pub trait Partition {
    /// Puts every point into the cluster of its nearest centre (the first of equals) for the targets' runs, and brings sums and
    /// counts up to date. Returns how many points moved, per target.
    fn assign(&mut self, targets: &[Target]) -> Result<Vec<usize>>;
    /// Points in each cluster of a run.
    fn counts(&self, run: usize) -> &[u64];
    /// Sums of the points of every cluster, clusters x dim, for each of these runs.
    fn sums(&self, runs: &[usize]) -> Result<Vec<Vec<f64>>>;
    /// The cluster of every point in a run.
    fn labels(&self, run: usize) -> Result<Vec<u32>>;
    /// Squared distance of every point to the centre (of `centers`, clusters x dim) of its cluster in a run.
    fn distances(&self, run: usize, centers: &[f64]) -> Result<Vec<f64>>;
    /// Sum of these distances for each run, over the rows of a block and then over the blocks; `centers` of all runs.
    fn inertias(&self, centers: &[&[f64]]) -> Result<Vec<f64>>;
}
