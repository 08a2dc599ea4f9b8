//! Lloyd's iteration for several restarts side by side: one pass over the points serves them all.

use super::Clustering;
use super::points::{Points, Scratch, direct_distance};
use rayon::prelude::*;

/// Not yet in any cluster.
const NONE: u32 = u32::MAX;

/// Features summed by one task: two cache lines of a point, and sums that stay in the first-level cache.
const LANE: usize = 32;

/// A point that changed its cluster.
struct Move {
    row: u32,
    run: u32,
    from: u32,
    to: u32,
}

/// One restart.
struct Run {
    /// clusters x dim.
    centers: Vec<f64>,
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
    /// Sums of the points of every cluster in f64: lanes of features x runs x clusters x [`LANE`], the last lane padded.
    sums: Vec<f64>,
}

impl<'a> Lloyd<'a> {
    /// Runs from `initial` centres (each clusters x dim).
    pub fn new(points: &'a Points<'a>, clusters: usize, initial: Vec<Vec<f64>>) -> Self {
        let run = |centers| Run { centers, counts: vec![0; clusters], iterations: 0, state: State::Moving };
        let runs: Vec<Run> = initial.into_iter().map(run).collect();
        let labels = vec![NONE; points.rows.count * runs.len()];
        let sums = vec![0.0; points.rows.dim.div_ceil(LANE) * runs.len() * clusters * LANE];
        Lloyd { points, clusters, runs, labels, sums }
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
        let (points, clusters, runs) = (self.points, self.clusters, &self.runs);
        let columns = points.columns(active.iter().flat_map(|&r| runs[r].centers.iter().copied()));
        let half: Vec<f64> = columns.squared.iter().map(|s| s / 2.0).collect();
        let longest = |run: &[f64]| run.iter().fold(0.0f64, |a, &b| a.max(b));
        let longest: Vec<f64> = columns.squared.chunks(clusters).map(longest).collect();
        let moves: Vec<Vec<Move>> = self
            .labels
            .par_chunks_mut(points.block * runs.len())
            .enumerate()
            .map_init(Scratch::default, |scratch, (block, labels)| {
                let start = block * points.block;
                let dots = points.dots(start..start + labels.len() / runs.len(), &columns, scratch);
                let mut moves = Vec::new();
                for (offset, (labels, dots)) in
                    labels.chunks_mut(runs.len()).zip(dots.chunks(columns.count)).enumerate()
                {
                    let row = start + offset;
                    for (a, &r) in active.iter().enumerate() {
                        let part = a * clusters..(a + 1) * clusters;
                        let slack = 2.0 * points.error(row, longest[a]);
                        let to = match clear_winner(&dots[part.clone()], &half[part.clone()], slack) {
                            Winner::Clear(label) => label as u32,
                            Winner::Among(least) => {
                                let rivals = part.clone().filter(|&c| f64::from(dots[c]) - half[c] >= least);
                                nearest(points.rows.row(row), &runs[r].centers, rivals.map(|c| c - part.start))
                            }
                        };
                        let from = std::mem::replace(&mut labels[r], to);
                        if from != to {
                            moves.push(Move { row: row as u32, run: r as u32, from, to });
                        }
                    }
                }
                moves
            })
            .collect();
        self.apply(&moves)
    }

    /// Moves points between the clusters' sums, in the order of the rows. Tasks own features, so that the order of
    /// additions to any one sum is that of the rows whatever the number of threads.
    fn apply(&mut self, moves: &[Vec<Move>]) -> Vec<usize> {
        let (rows, clusters, runs) = (self.points.rows, self.clusters, self.runs.len());
        self.sums.par_chunks_mut(runs * clusters * LANE).enumerate().for_each(|(lane, sums)| {
            let features = lane * LANE..((lane + 1) * LANE).min(rows.dim);
            for m in moves.iter().flatten() {
                let values = &rows.row(m.row as usize)[features.clone()];
                let first = m.run as usize * clusters;
                let to = &mut sums[(first + m.to as usize) * LANE..][..LANE];
                to.iter_mut().zip(values).for_each(|(sum, &v)| *sum += f64::from(v));
                if m.from != NONE {
                    let from = &mut sums[(first + m.from as usize) * LANE..][..LANE];
                    from.iter_mut().zip(values).for_each(|(sum, &v)| *sum -= f64::from(v));
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
        let mut counts = self.runs[r].counts.clone();
        let mut means = vec![0.0; clusters * dim];
        for (lane, sums) in self.sums.chunks(self.runs.len() * clusters * LANE).enumerate() {
            let width = LANE.min(dim - lane * LANE);
            for (c, sum) in sums[r * clusters * LANE..].chunks(LANE).take(clusters).enumerate() {
                means[c * dim + lane * LANE..][..width].copy_from_slice(&sum[..width]);
            }
        }
        if counts.contains(&0) {
            self.relocate(r, &mut means, &mut counts);
        }
        let largest = (0..clusters).max_by_key(|&c| (counts[c], std::cmp::Reverse(c))).unwrap_or(0);
        for c in 0..clusters {
            let count = counts[c] as f64;
            means[c * dim..][..dim].iter_mut().for_each(|v| *v = if count > 0.0 { *v / count } else { 0.0 });
        }
        // A cluster that stays empty (fewer distinct points than clusters) shares the place of the largest.
        for c in (0..clusters).filter(|&c| counts[c] == 0) {
            means.copy_within(largest * dim..(largest + 1) * dim, c * dim);
        }
        let old = std::mem::replace(&mut self.runs[r].centers, means);
        old.iter().zip(&self.runs[r].centers).map(|(a, b)| (a - b) * (a - b)).sum()
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
        let (rows, centers) = (self.points.rows, &self.runs[r].centers);
        let labels = self.labels.par_chunks(self.runs.len());
        let distance = |(row, labels): (usize, &[u32])| {
            direct_distance(rows.row(row), &centers[labels[r] as usize * rows.dim..][..rows.dim])
        };
        labels.enumerate().map(distance).collect()
    }

    /// The results, with the inertia of every run from direct differences, summed over the rows of a block and then
    /// over the blocks.
    fn finish(self) -> Vec<Clustering> {
        let (rows, runs) = (self.points.rows, self.runs.len());
        let partial: Vec<Vec<f64>> = self
            .labels
            .par_chunks(self.points.block * runs)
            .enumerate()
            .map(|(block, labels)| {
                let mut sums = vec![0.0; runs];
                for (offset, labels) in labels.chunks(runs).enumerate() {
                    let x = rows.row(block * self.points.block + offset);
                    for (r, &label) in labels.iter().enumerate() {
                        sums[r] += direct_distance(x, &self.runs[r].centers[label as usize * rows.dim..][..rows.dim]);
                    }
                }
                sums
            })
            .collect();
        let results = self.runs.into_iter().enumerate().map(|(r, run)| Clustering {
            labels: self.labels.iter().skip(r).step_by(runs).copied().collect(),
            centers: run.centers,
            inertia: partial.iter().map(|sums| sums[r]).sum(),
            iterations: run.iterations,
        });
        results.collect()
    }
}

/// Outcome of comparing scores `x.c - |c|^2 / 2`: the nearest centre has the largest.
enum Winner {
    /// By more than the error of the scores.
    Clear(usize),
    /// Some centre with at least this score.
    Among(f64),
}

/// Compares the scores of all centres; `slack` bounds the error of a difference of two.
fn clear_winner(dots: &[f32], half: &[f64], slack: f64) -> Winner {
    let (mut best, mut second, mut label) = (f64::NEG_INFINITY, f64::NEG_INFINITY, 0);
    for (c, (&dot, half)) in dots.iter().zip(half).enumerate() {
        let score = f64::from(dot) - half;
        if score > best {
            (second, best, label) = (best, score, c);
        } else if score > second {
            second = score;
        }
    }
    if best - second > slack { Winner::Clear(label) } else { Winner::Among(best - slack) }
}

/// The nearest of the centres `rivals` in f64; the first of equals.
fn nearest(x: &[f32], centers: &[f64], rivals: impl Iterator<Item = usize>) -> u32 {
    let distance = |c: usize| direct_distance(x, &centers[c * x.len()..][..x.len()]);
    let best = rivals.map(|c| (distance(c), c)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.map_or(0, |(_, c)| c as u32)
}
