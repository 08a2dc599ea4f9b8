//! Agreement of a clustering with labels: NMI, ARI, ACC, in scikit-learn's conventions.
//!
//! Labels and clusters are any integer ids, with gaps or without; only which points share an id matters.

use crate::{Error, Result};
use pathfinding::prelude::{Matrix, kuhn_munkres};
use serde::{Deserialize, Serialize};

/// Cells of the largest table ACC is computed on: the assignment problem takes cubic time and a dense table.
const ASSIGNABLE: usize = 1 << 24;

/// How well a clustering agrees with labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Normalised mutual information, in 0..=1; see [`nmi`].
    pub nmi: f64,
    /// Adjusted Rand index, 0 for chance, at most 1; see [`ari`].
    pub ari: f64,
    /// Clustering accuracy, in 0..=1; see [`acc`].
    pub acc: f64,
}

impl Scores {
    /// All three scores. Errors as [`Contingency::new`] and [`Contingency::acc`].
    pub fn new<L: Copy + Ord, C: Copy + Ord>(labels: &[L], clusters: &[C]) -> Result<Self> {
        let table = Contingency::new(labels, clusters)?;
        Ok(Scores { nmi: table.nmi(), ari: table.ari(), acc: table.acc()? })
    }
}

/// Normalised mutual information `I(L; C) / ((H(L) + H(C)) / 2)` (arithmetic mean of the entropies, as scikit-learn's
/// default). 1 if both have a single group. Errors as [`Contingency::new`].
pub fn nmi<L: Copy + Ord, C: Copy + Ord>(labels: &[L], clusters: &[C]) -> Result<f64> {
    Ok(Contingency::new(labels, clusters)?.nmi())
}

/// Adjusted Rand index (Hubert and Arabie 1985) over pairs of points. Errors as [`Contingency::new`].
pub fn ari<L: Copy + Ord, C: Copy + Ord>(labels: &[L], clusters: &[C]) -> Result<f64> {
    Ok(Contingency::new(labels, clusters)?.ari())
}

/// Clustering accuracy: the share of points whose cluster is matched with their label, under the best one-to-one
/// matching (Hungarian algorithm on the contingency table padded to a square). Errors as [`Contingency::new`] and
/// [`Contingency::acc`].
pub fn acc<L: Copy + Ord, C: Copy + Ord>(labels: &[L], clusters: &[C]) -> Result<f64> {
    Contingency::new(labels, clusters)?.acc()
}

/// How many points each label shares with each cluster. Ids are replaced by their ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contingency {
    /// `(label, cluster, points)` where there are points; sorted.
    cells: Vec<(usize, usize, u64)>,
    /// Points of each label, none 0.
    label_counts: Vec<u64>,
    /// Points of each cluster, none 0.
    cluster_counts: Vec<u64>,
}

impl Contingency {
    /// Counts; sparse, so that any number of distinct ids is fine. Errors with [`Error::Shape`] if the lengths differ
    /// or there are no points.
    pub fn new<L: Copy + Ord, C: Copy + Ord>(labels: &[L], clusters: &[C]) -> Result<Self> {
        if labels.is_empty() || labels.len() != clusters.len() {
            let problem = format!("{} labels and {} cluster ids: one of each per point", labels.len(), clusters.len());
            return Err(Error::shape("contingency", problem));
        }
        let (labels, label_counts) = ranks(labels);
        let (clusters, cluster_counts) = ranks(clusters);
        let mut pairs: Vec<(usize, usize)> = labels.into_iter().zip(clusters).collect();
        pairs.sort_unstable();
        let cells = pairs.chunk_by(|a, b| a == b).map(|same| (same[0].0, same[0].1, same.len() as u64)).collect();
        Ok(Contingency { cells, label_counts, cluster_counts })
    }

    /// Number of distinct labels and of distinct clusters.
    pub fn shape(&self) -> (usize, usize) {
        (self.label_counts.len(), self.cluster_counts.len())
    }

    /// The table with all its zeros: labels x clusters, row-major, in the order of the ids.
    pub fn dense(&self) -> Vec<u64> {
        let (rows, columns) = self.shape();
        let mut table = vec![0; rows * columns];
        self.cells.iter().for_each(|&(label, cluster, points)| table[label * columns + cluster] = points);
        table
    }

    /// See [`nmi`].
    pub fn nmi(&self) -> f64 {
        if self.shape() == (1, 1) {
            return 1.0;
        }
        let total = self.label_counts.iter().sum::<u64>() as f64;
        let shared = |&(label, cluster, points): &(usize, usize, u64)| {
            let expected = self.label_counts[label] as f64 * (self.cluster_counts[cluster] as f64 / total);
            points as f64 / total * (points as f64 / expected).ln()
        };
        let information: f64 = self.cells.iter().map(shared).sum();
        // Independence leaves rounding, of either sign.
        if information < f64::EPSILON {
            return 0.0;
        }
        // Mutual information exceeds no entropy, but its rounding may.
        (information / ((entropy(&self.label_counts) + entropy(&self.cluster_counts)) / 2.0)).min(1.0)
    }

    /// See [`ari`].
    pub fn ari(&self) -> f64 {
        // Ordered pairs of points, a point with itself included: exact integers, below 2^64 for 2^32 points.
        let squares =
            |counts: &mut dyn Iterator<Item = u64>| counts.map(|c| u128::from(c) * u128::from(c)).sum::<u128>() as i128;
        let together = squares(&mut self.cells.iter().map(|c| c.2));
        let by_label = squares(&mut self.label_counts.iter().copied());
        let by_cluster = squares(&mut self.cluster_counts.iter().copied());
        let points = self.label_counts.iter().sum::<u64>() as i128;
        let (only_cluster, only_label) = (by_cluster - together, by_label - together);
        if only_cluster == 0 && only_label == 0 {
            return 1.0;
        }
        let both = together - points;
        let neither = points * points - by_label - by_cluster + together;
        let [both, neither, only_cluster, only_label] = [both, neither, only_cluster, only_label].map(|v| v as f64);
        let chance = (both + only_label) * (only_label + neither) + (both + only_cluster) * (only_cluster + neither);
        2.0 * (both * neither - only_label * only_cluster) / chance
    }

    /// See [`acc`]. Errors with [`Error::Usage`] if labels x clusters exceeds 2^24, too many for the assignment.
    pub fn acc(&self) -> Result<f64> {
        let (rows, columns) = self.shape();
        if rows.saturating_mul(columns) > ASSIGNABLE {
            let problem = format!("accuracy of {columns} clusters against {rows} labels: too many to match one to one");
            return Err(Error::Usage(problem));
        }
        let profit: Vec<i64> = self.dense().into_iter().map(|points| points as i64).collect();
        let total: u64 = self.label_counts.iter().sum();
        Ok(assignment(&profit, rows, columns)?.0 as f64 / total as f64)
    }
}

/// The one-to-one matching of rows and columns with the largest total profit, by the Hungarian algorithm. `profit` is
/// `rows` x `columns`, row-major, not negative; the shorter side is matched completely, as if padded with zeros.
/// Returns the total and, per row, its column. Errors with [`Error::Shape`] if the sizes do not fit.
pub fn assignment(profit: &[i64], rows: usize, columns: usize) -> Result<(i64, Vec<Option<usize>>)> {
    if profit.is_empty() || rows.checked_mul(columns) != Some(profit.len()) {
        return Err(Error::shape("assignment", format!("{} profits for {rows} x {columns}", profit.len())));
    }
    let table =
        Matrix::from_vec(rows, columns, profit.to_vec()).map_err(|e| Error::shape("assignment", e.to_string()))?;
    if rows <= columns {
        let (total, matched) = kuhn_munkres(&table);
        return Ok((total, matched.into_iter().map(Some).collect()));
    }
    let (total, matched) = kuhn_munkres(&table.transposed());
    let mut by_row = vec![None; rows];
    matched.into_iter().enumerate().for_each(|(column, row)| by_row[row] = Some(column));
    Ok((total, by_row))
}

/// Replaces ids by their ranks among the distinct ids, and counts each.
pub(super) fn ranks<T: Copy + Ord>(ids: &[T]) -> (Vec<usize>, Vec<u64>) {
    let mut distinct = ids.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let mut counts = vec![0; distinct.len()];
    let rank = |id| {
        let rank = distinct.partition_point(|other| other < id);
        counts[rank] += 1;
        rank
    };
    (ids.iter().map(rank).collect(), counts)
}

/// Shannon entropy in nats of the distribution proportional to `counts`.
fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    counts.iter().map(|&c| c as f64 / total).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_cases_by_hand() {
        // Two by two: I = ln 2 - H(1/4), H(1/4) binary entropy; pairs counted on paper.
        let (labels, clusters) = ([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0]);
        let quarter = -(0.25f64 * 0.25f64.ln() + 0.75 * 0.75f64.ln());
        let two = std::f64::consts::LN_2;
        assert!((nmi(&labels, &clusters).unwrap() - (two - quarter) / two).abs() < 1e-15);
        assert_eq!(acc(&labels, &clusters).unwrap(), 0.75);
        // 6 of 12 within-label pairs are together; of 28 pairs 12 are in a label and 12 in a cluster.
        let expected = 12.0 * 12.0 / 28.0;
        assert!((ari(&labels, &clusters).unwrap() - (6.0 - expected) / (12.0 - expected)).abs() < 1e-15);
        let table = Contingency::new(&labels, &clusters).unwrap();
        assert_eq!((table.shape(), table.dense()), ((2, 2), vec![3, 1, 1, 3]));
    }

    #[test]
    fn ids_are_only_names() {
        let (labels, clusters) = ([5u8, 5, 200, 9, 9, 200], [-3i64, -3, 7, 7, 0, i64::MAX]);
        let scores = Scores::new(&labels, &clusters).unwrap();
        assert_eq!(scores, Scores::new(&[0, 0, 1, 2, 2, 1], &[9, 9, 4, 4, 3, 1]).unwrap());
        let exchanged = Scores::new(&clusters, &labels).unwrap();
        assert!(
            (scores.nmi - exchanged.nmi).abs() < 1e-15 && scores.ari == exchanged.ari && scores.acc == exchanged.acc
        );
    }

    #[test]
    fn degenerate_partitions_follow_scikit_learn() {
        let scores = |labels: &[u32], clusters: &[u32]| Scores::new(labels, clusters).unwrap();
        assert_eq!(scores(&[4], &[2]), Scores { nmi: 1.0, ari: 1.0, acc: 1.0 });
        assert_eq!(scores(&[1; 9], &[3; 9]), Scores { nmi: 1.0, ari: 1.0, acc: 1.0 });
        assert_eq!(scores(&[0, 0, 1, 1], &[0; 4]), Scores { nmi: 0.0, ari: 0.0, acc: 0.5 });
        assert_eq!(scores(&[0; 4], &[0, 1, 2, 3]), Scores { nmi: 0.0, ari: 0.0, acc: 0.25 });
        let many: Vec<u32> = (0..100_000).collect();
        assert!(nmi(&many, &many).is_ok() && matches!(acc(&many, &many), Err(Error::Usage(_))));
        assert!(matches!(Scores::new(&[1, 2], &[1]), Err(Error::Shape { .. })));
        assert!(matches!(nmi::<u32, u32>(&[], &[]), Err(Error::Shape { .. })));
    }

    #[test]
    fn assignment_matches_the_shorter_side() {
        assert_eq!(assignment(&[1, 5, 4, 6], 2, 2).unwrap(), (9, vec![Some(1), Some(0)]));
        assert_eq!(assignment(&[1, 5, 9, 6, 2, 4], 3, 2).unwrap(), (14, vec![Some(1), Some(0), None]));
        assert_eq!(assignment(&[1, 5, 9], 1, 3).unwrap(), (9, vec![Some(2)]));
        assert!(assignment(&[1, 2, 3], 2, 2).is_err() && assignment(&[], 0, 0).is_err());
    }
}
