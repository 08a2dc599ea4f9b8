//! The partition on the host, in threads: see [`Partition`].

use rayon::prelude::*;

use super::assign::{Assignment, Block, Move, NONE, Workspace};
use super::partition::{Partition, Target};
use super::points::{Points, direct_distance};
use crate::Result;

/// Labels, margins and sums in the host's memory.
pub struct HostPartition<'a> {
    points: &'a Points<'a>,
    clusters: usize,
    runs: usize,
    /// points x runs.
    labels: Vec<u32>,
    /// points x runs: see [`Block`].
    margins: Vec<f32>,
    /// Sums of the points of every cluster: ranges of points x runs x clusters x dim.
    sums: Vec<f64>,
    /// Points in each cluster: runs x clusters.
    counts: Vec<u64>,
    /// Blocks in a range of points.
    range: usize,
}

impl<'a> HostPartition<'a> {
    /// No point has a cluster yet.
    pub fn new(points: &'a Points<'a>, clusters: usize, runs: usize) -> Self {
        let (ranges, range) = points.ranges(clusters);
        HostPartition {
            points,
            clusters,
            runs,
            labels: vec![NONE; points.rows.count * runs],
            margins: vec![-1.0; points.rows.count * runs],
            sums: vec![0.0; ranges * runs * clusters * points.rows.dim],
            counts: vec![0; runs * clusters],
            range,
        }
    }

    /// Moves points between the clusters' sums. A range's sums belong to one task, which adds in the order of the rows.
    fn apply(&mut self, moves: &[Vec<Move>]) -> Vec<usize> {
        let (rows, clusters, runs) = (self.points.rows, self.clusters, self.runs);
        let ranges = self.sums.par_chunks_mut(runs * clusters * rows.dim).zip(moves.par_chunks(self.range));
        ranges.for_each(|(sums, moves)| {
            for m in moves.iter().flatten() {
                let (row, first) = (rows.row(m.row as usize), m.run as usize * clusters);
                let to = &mut sums[(first + m.to as usize) * rows.dim..][..rows.dim];
                to.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
                if m.from != NONE {
                    let from = &mut sums[(first + m.from as usize) * rows.dim..][..rows.dim];
                    from.iter_mut().zip(row).for_each(|(sum, &v)| *sum -= f64::from(v));
                }
            }
        });
        let mut moved = vec![0; runs];
        for m in moves.iter().flatten() {
            let counts = &mut self.counts[m.run as usize * clusters..][..clusters];
            moved[m.run as usize] += 1;
            counts[m.to as usize] += 1;
            if m.from != NONE {
                counts[m.from as usize] -= 1;
            }
        }
        moved
    }

    /// Squared distance of point `row` to the centre of its cluster in run `r`.
    fn distance(&self, row: usize, label: u32, centers: &[f64]) -> f64 {
        let dim = self.points.rows.dim;
        direct_distance(self.points.rows.row(row), &centers[label as usize * dim..][..dim])
    }
}

impl Partition for HostPartition<'_> {
    fn assign(&mut self, targets: &[Target]) -> Result<Vec<usize>> {
        let (points, runs) = (self.points, self.runs);
        let assignment = Assignment::new(points, self.clusters, targets);
        let size = points.block * runs;
        let blocks = self.labels.par_chunks_mut(size).zip(self.margins.par_chunks_mut(size)).enumerate();
        let moves: Vec<Vec<Move>> = blocks
            .map_init(Workspace::default, |workspace, (number, (labels, margins))| {
                let mut block = Block { start: number * points.block, labels, margins, runs };
                assignment.assign(&mut block, workspace)
            })
            .collect();
        let moved = self.apply(&moves);
        Ok(targets.iter().map(|target| moved[target.run]).collect())
    }

    fn counts(&self, run: usize) -> &[u64] {
        &self.counts[run * self.clusters..][..self.clusters]
    }

    fn sums(&self, runs: &[usize]) -> Result<Vec<Vec<f64>>> {
        let size = self.clusters * self.points.rows.dim;
        let total = |&run: &usize| {
            let mut total = vec![0.0; size];
            for sums in self.sums.chunks(self.runs * size) {
                total.iter_mut().zip(&sums[run * size..]).for_each(|(total, sum)| *total += sum);
            }
            total
        };
        Ok(runs.iter().map(total).collect())
    }

    fn labels(&self, run: usize) -> Result<Vec<u32>> {
        Ok(self.labels.iter().skip(run).step_by(self.runs).copied().collect())
    }

    fn distances(&self, run: usize, centers: &[f64]) -> Result<Vec<f64>> {
        let labels = self.labels.par_chunks(self.runs).enumerate();
        Ok(labels.map(|(row, labels)| self.distance(row, labels[run], centers)).collect())
    }

    fn inertias(&self, centers: &[&[f64]]) -> Result<Vec<f64>> {
        let (runs, block) = (self.runs, self.points.block);
        let of_block = |(number, labels): (usize, &[u32])| {
            let mut sums = vec![0.0; runs];
            for (offset, labels) in labels.chunks(runs).enumerate() {
                let row = number * block + offset;
                sums.iter_mut().enumerate().for_each(|(r, sum)| *sum += self.distance(row, labels[r], centers[r]));
            }
            sums
        };
        let partial: Vec<Vec<f64>> = self.labels.par_chunks(block * runs).enumerate().map(of_block).collect();
        Ok((0..runs).map(|run| partial.iter().map(|sums| sums[run]).sum()).collect())
    }
}
