//! Lloyd's iteration for several restarts side by side: one pass over the points serves them all.

use super::Clustering;
use super::assign::{Assignment, Block, Move, NONE, Target, Workspace};
use super::points::{Points, direct_distance};
use rayon::prelude::*;

/// Sums of clusters are kept for at most this many ranges of points, each the work of one task, ...
const RANGES: usize = 16;

/// ... as long as the sums of all ranges of a run take no more numbers than this (64 MiB).
const SUMS: usize = 1 << 23;

/// One restart.
struct Run {
    /// clusters x dim.
    centers: Vec<f64>,
    /// See [`Target`].
    drift: Vec<f32>,
    /// Points in each cluster.
    counts: Vec<u64>,
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
pub(super) struct Lloyd<'a> {
    points: &'a Points<'a>,
    clusters: usize,
    runs: Vec<Run>,
    /// points x runs.
    labels: Vec<u32>,
    /// points x runs: see [`Block`].
    margins: Vec<f32>,
    /// Sums of the points of every cluster: ranges of points x runs x clusters x dim.
    sums: Vec<f64>,
    /// Blocks in a range of points.
    range: usize,
}

impl<'a> Lloyd<'a> {
    /// Runs from `initial` centres (each clusters x dim).
    pub fn new(points: &'a Points<'a>, clusters: usize, initial: Vec<Vec<f64>>) -> Self {
        let run = |centers| Run {
            centers,
            drift: vec![0.0; clusters],
            counts: vec![0; clusters],
            iterations: 0,
            state: State::Moving,
        };
        let runs: Vec<Run> = initial.into_iter().map(run).collect();
        let (size, blocks) = (clusters * points.rows.dim, points.rows.count.div_ceil(points.block));
        // From the shape of one run alone, so that a run's sums do not depend on the runs beside it.
        let range = blocks.div_ceil((SUMS / size).clamp(1, RANGES));
        Lloyd {
            points,
            clusters,
            labels: vec![NONE; points.rows.count * runs.len()],
            margins: vec![-1.0; points.rows.count * runs.len()],
            sums: vec![0.0; blocks.div_ceil(range) * runs.len() * size],
            range,
            runs,
        }
    }

    /// Iterates until no point moves, or the centres' squared shift is at most `threshold`, or `max_iterations`.
    pub fn run(mut self, max_iterations: usize, threshold: f64) -> Vec<Clustering> {
        for iteration in 1..=max_iterations {
            let active = self.in_state(|state| state == State::Moving);
            if active.is_empty() {
                break;
            }
            let moved = self.assign(&active);
            for r in active {
                self.runs[r].iterations = iteration;
                if moved[r] == 0 {
                    self.runs[r].state = State::Fixed;
                } else if self.update(r) <= threshold {
                    self.runs[r].state = State::Settled;
                }
            }
        }
        let behind = self.in_state(|state| state != State::Fixed);
        if !behind.is_empty() {
            self.assign(&behind);
        }
        self.finish()
    }

    fn in_state(&self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        (0..self.runs.len()).filter(|&r| wanted(self.runs[r].state)).collect()
    }

    /// Puts every point into the cluster of its nearest centre (the first of equals) for the runs `active`, and brings
    /// sums and counts up to date. Returns how many points moved, per run.
    fn assign(&mut self, active: &[usize]) -> Vec<usize> {
        let (points, runs) = (self.points, self.runs.len());
        let target = |&run: &usize| Target { run, centers: &self.runs[run].centers, drift: &self.runs[run].drift };
        let assignment = Assignment::new(points, self.clusters, active.iter().map(target).collect());
        let size = points.block * runs;
        let blocks = self.labels.par_chunks_mut(size).zip(self.margins.par_chunks_mut(size)).enumerate();
        let moves: Vec<Vec<Move>> = blocks
            .map_init(Workspace::default, |workspace, (number, (labels, margins))| {
                let mut block = Block { start: number * points.block, labels, margins, runs };
                assignment.assign(&mut block, workspace)
            })
            .collect();
        self.apply(&moves)
    }

    /// Moves points between the clusters' sums. A range's sums belong to one task, which adds in the order of the rows.
    fn apply(&mut self, moves: &[Vec<Move>]) -> Vec<usize> {
        let (rows, clusters, runs) = (self.points.rows, self.clusters, self.runs.len());
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
            let counts = &mut self.runs[m.run as usize].counts;
            moved[m.run as usize] += 1;
            counts[m.to as usize] += 1;
            if m.from != NONE {
                counts[m.from as usize] -= 1;
            }
        }
        moved
    }

    /// Moves the centres of run `r` to the means of its clusters. Returns the squared shift, summed over the centres.
    fn update(&mut self, r: usize) -> f64 {
        let (dim, clusters) = (self.points.rows.dim, self.clusters);
        let size = clusters * dim;
        let mut means = vec![0.0; size];
        for sums in self.sums.chunks(self.runs.len() * size) {
            means.iter_mut().zip(&sums[r * size..]).for_each(|(mean, sum)| *mean += sum);
        }
        let mut counts = self.runs[r].counts.clone();
        if counts.contains(&0) {
            self.relocate(r, &mut means, &mut counts);
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
        shifts.iter().sum()
    }

    /// Gives every empty cluster one of the points farthest from their centres, taken out of their clusters' sums, as
    /// scikit-learn does; the point's label follows with the next assignment.
    fn relocate(&self, r: usize, sums: &mut [f64], counts: &mut [u64]) {
        let dim = self.points.rows.dim;
        let mut far: Vec<(f64, usize)> = self.distances(r).into_iter().zip(0..).collect();
        far.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if far[0].0 == 0.0 {
            return;
        }
        let empty: Vec<usize> = (0..self.clusters).filter(|&c| counts[c] == 0).collect();
        for (new, (_, row)) in empty.into_iter().zip(far) {
            let old = self.labels[row * self.runs.len() + r] as usize;
            for (feature, &v) in self.points.rows.row(row).iter().enumerate() {
                sums[old * dim + feature] -= f64::from(v);
                sums[new * dim + feature] = f64::from(v);
            }
            counts[old] -= 1;
            counts[new] = 1;
        }
    }

    /// Squared distance of every point to its centre in run `r`.
    fn distances(&self, r: usize) -> Vec<f64> {
        let labels = self.labels.par_chunks(self.runs.len()).enumerate();
        labels.map(|(row, labels)| self.distance(row, r, labels[r])).collect()
    }

    /// Squared distance of point `row` to centre `label` of run `r`.
    fn distance(&self, row: usize, r: usize, label: u32) -> f64 {
        let dim = self.points.rows.dim;
        direct_distance(self.points.rows.row(row), &self.runs[r].centers[label as usize * dim..][..dim])
    }

    /// The results, with the inertia of every run from direct differences, summed over the rows of a block and then
    /// over the blocks.
    fn finish(self) -> Vec<Clustering> {
        let runs = self.runs.len();
        let inertia = |(number, labels): (usize, &[u32])| {
            let mut sums = vec![0.0; runs];
            for (offset, labels) in labels.chunks(runs).enumerate() {
                let row = number * self.points.block + offset;
                sums.iter_mut().enumerate().for_each(|(r, sum)| *sum += self.distance(row, r, labels[r]));
            }
            sums
        };
        let partial: Vec<Vec<f64>> =
            self.labels.par_chunks(self.points.block * runs).enumerate().map(inertia).collect();
        let results = self.runs.into_iter().enumerate().map(|(r, run)| Clustering {
            labels: self.labels.iter().skip(r).step_by(runs).copied().collect(),
            centers: run.centers,
            inertia: partial.iter().map(|sums| sums[r]).sum(),
            iterations: run.iterations,
        });
        results.collect()
    }
}
