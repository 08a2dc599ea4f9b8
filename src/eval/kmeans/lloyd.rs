//! Lloyd's iteration for several restarts side by side: one pass over the points serves them all.

use super::Clustering;
use super::partition::{Partition, Target};
use super::points::Points;
use crate::Result;

/// One restart.
struct Run {
    /// clusters x dim.
    centers: Vec<f64>,
    /// See [`Target`].
    drift: Vec<f32>,
    iterations: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Moving,
    /// Centres moved less than the tolerance after the last assignment: labels are one assignment behind.
    Settled,
    /// No point changed its cluster: labels, centres and means agree.
    Fixed,
}

/// All restarts of a fit.
pub(super) struct Lloyd<'a, P> {
    points: &'a Points<'a>,
    clusters: usize,
    runs: Vec<Run>,
    partition: P,
}

impl<'a, P: Partition> Lloyd<'a, P> {
    /// Runs from `initial` centres (each clusters x dim); no point of `partition` has a cluster yet.
    pub fn new(points: &'a Points<'a>, clusters: usize, initial: Vec<Vec<f64>>, partition: P) -> Self {
        let run = |centers| Run { centers, drift: vec![0.0; clusters], iterations: 0, state: State::Moving };
        Lloyd { points, clusters, runs: initial.into_iter().map(run).collect(), partition }
    }

    /// Iterates until no point moves, or the centres' squared shift is at most `threshold`, or `max_iterations`.
    pub fn run(mut self, max_iterations: usize, threshold: f64) -> Result<Vec<Clustering>> {
        for iteration in 1..=max_iterations {
            let active = self.in_state(|state| state == State::Moving);
            if active.is_empty() {
                break;
            }
            let moved = self.assign(&active)?;
            let (fixed, moving): (Vec<_>, Vec<_>) = active.iter().zip(moved).partition(|&(_, moved)| moved == 0);
            active.iter().for_each(|&r| self.runs[r].iterations = iteration);
            fixed.into_iter().for_each(|(&r, _)| self.runs[r].state = State::Fixed);
            let moving: Vec<usize> = moving.into_iter().map(|(&r, _)| r).collect();
            for (&r, sums) in moving.iter().zip(self.partition.sums(&moving)?) {
                if self.update(r, sums)? <= threshold {
                    self.runs[r].state = State::Settled;
                }
            }
        }
        let behind = self.in_state(|state| state != State::Fixed);
        if !behind.is_empty() {
            self.assign(&behind)?;
        }
        self.finish()
    }

    fn in_state(&self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        (0..self.runs.len()).filter(|&r| wanted(self.runs[r].state)).collect()
    }

    fn assign(&mut self, active: &[usize]) -> Result<Vec<usize>> {
        let target = |&run: &usize| Target { run, centers: &self.runs[run].centers, drift: &self.runs[run].drift };
        self.partition.assign(&active.iter().map(target).collect::<Vec<_>>())
    }

    /// Moves the centres of run `r` to the means of its clusters, of which `means` holds the sums. Returns the squared shift,
    /// summed over the centres.
    fn update(&mut self, r: usize, mut means: Vec<f64>) -> Result<f64> {
        let (dim, clusters) = (self.points.rows.dim, self.clusters);
        let mut counts = self.partition.counts(r).to_vec();
        if counts.contains(&0) {
            self.relocate(r, &mut means, &mut counts)?;
        }
        let largest = (0..clusters).max_by_key(|&c| (counts[c], std::cmp::Reverse(c))).unwrap_or(0);
        for (mean, &count) in means.chunks_mut(dim).zip(&counts).filter(|(_, count)| **count > 0) {
            mean.iter_mut().for_each(|v| *v /= count as f64);
        }
        // A cluster that stays empty (fewer distinct points than clusters) shares the place of the largest.
        for c in (0..clusters).filter(|&c| counts[c] == 0) {
            means.copy_within(largest * dim..(largest + 1) * dim, c * dim);
        }
        let run = &mut self.runs[r];
        let square = |(a, b): (&[f64], &[f64])| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        let shifts: Vec<f64> = run.centers.chunks(dim).zip(means.chunks(dim)).map(square).collect();
        run.centers = means;
        run.drift = self.points.drift(&shifts);
        Ok(shifts.iter().sum())
    }

    /// Gives every empty cluster one of the points farthest from their centres, taken out of their clusters' sums, as
    /// scikit-learn does; the point's label follows with the next assignment.
    fn relocate(&self, r: usize, sums: &mut [f64], counts: &mut [u64]) -> Result<()> {
        let dim = self.points.rows.dim;
        let distances = self.partition.distances(r, &self.runs[r].centers)?;
        let mut far: Vec<(f64, usize)> = distances.into_iter().zip(0..).collect();
        far.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if far[0].0 == 0.0 {
            return Ok(());
        }
        let labels = self.partition.labels(r)?;
        let empty: Vec<usize> = (0..self.clusters).filter(|&c| counts[c] == 0).collect();
        for (new, (_, row)) in empty.into_iter().zip(far) {
            let old = labels[row] as usize;
            for (feature, &v) in self.points.rows.row(row).iter().enumerate() {
                sums[old * dim + feature] -= f64::from(v);
                sums[new * dim + feature] = f64::from(v);
            }
            counts[old] -= 1;
            counts[new] = 1;
        }
        Ok(())
    }

    /// The results, with the inertia of every run from direct differences.
    fn finish(self) -> Result<Vec<Clustering>> {
        let centers: Vec<&[f64]> = self.runs.iter().map(|run| run.centers.as_slice()).collect();
        let inertias = self.partition.inertias(&centers)?;
        let labels = (0..self.runs.len()).map(|run| self.partition.labels(run)).collect::<Result<Vec<_>>>()?;
        let results = self.runs.into_iter().zip(inertias).zip(labels);
        Ok(results
            .map(|((run, inertia), labels)| Clustering {
                labels,
                centers: run.centers,
                inertia,
                iterations: run.iterations,
            })
            .collect())
    }
}
