//! k-means++ (Arthur and Vassilvitskii 2007) with greedy local trials, as scikit-learn seeds its k-means: each next
//! centre is the best of 2 + ln k points drawn with probability proportional to the squared distance to the nearest
//! centre so far; best is the one that leaves the smallest sum of these distances.

use super::points::{Points, Scratch};
use crate::rng::{Purpose, Stream, stream};
use rayon::prelude::*;

/// One restart's seeding in progress.
struct Seeding {
    random: Stream,
    /// Rows chosen as centres.
    chosen: Vec<usize>,
    /// Rows drawn as the next centre.
    trials: Vec<usize>,
}

/// What a pass over the points found for every trial of every restart (`width` of them).
struct Pass {
    /// Points x `width`: squared distance to the nearest centre, were the trial chosen. In prepared units.
    distances: Vec<f32>,
    /// Blocks x `width`: sums of `distances` over the block.
    potentials: Vec<f64>,
    width: usize,
}

/// The initial centres (k x dim, rows of the points) of `restarts`. A restart's centres depend on its number and the
/// seed, not on which restarts are computed beside it.
pub(super) fn seed(points: &Points, clusters: usize, seed: u64, restarts: std::ops::Range<usize>) -> Vec<Vec<f64>> {
    let count = points.rows.count;
    let trials = 2 + (clusters as f64).ln() as usize;
    let mut seedings: Vec<Seeding> = restarts
        .map(|restart| {
            let mut random = stream(seed, Purpose::KMeans, restart as u64, 0, 0);
            let first = random.below(count as u32) as usize;
            Seeding { random, chosen: Vec::with_capacity(clusters), trials: vec![first] }
        })
        .collect();
    let mut closest = vec![f32::INFINITY; count * seedings.len()];
    loop {
        let pass = evaluate(points, &seedings, &closest);
        let best: Vec<usize> = (0..seedings.len()).map(|r| pass.best(r, seedings[r].trials.len())).collect();
        for (seeding, &column) in seedings.iter_mut().zip(&best) {
            seeding.chosen.push(seeding.trials[column % seeding.trials.len()]);
        }
        if seedings.first().is_none_or(|s| s.chosen.len() == clusters) {
            break;
        }
        for (closest, distances) in closest.chunks_mut(best.len()).zip(pass.distances.chunks(pass.width)) {
            closest.iter_mut().zip(&best).for_each(|(to, &column)| *to = distances[column]);
        }
        for (seeding, &column) in seedings.iter_mut().zip(&best) {
            seeding.trials = (0..trials).map(|_| pass.draw(column, points.block, count, &mut seeding.random)).collect();
        }
    }
    let centers = |s: Seeding| s.chosen.iter().flat_map(|&row| points.rows.row(row)).map(|&v| f64::from(v)).collect();
    seedings.into_iter().map(centers).collect()
}

/// One pass over the points for the trials of all restarts side by side. `closest`: points x restarts.
fn evaluate(points: &Points, seedings: &[Seeding], closest: &[f32]) -> Pass {
    let rows: Vec<usize> = seedings.iter().flat_map(|s| s.trials.iter().copied()).collect();
    let width = rows.len();
    let per_restart = width / seedings.len();
    let columns = points.columns(rows.iter().flat_map(|&row| points.rows.row(row)).map(|&v| f64::from(v)));
    let mut distances = vec![0.0f32; points.rows.count * width];
    let potentials: Vec<Vec<f64>> = distances
        .par_chunks_mut(points.block * width)
        .enumerate()
        .map_init(Scratch::default, |scratch, (block, distances)| {
            let start = block * points.block;
            let range = start..start + distances.len() / width;
            let dots = points.dots(range, &columns, 0..width, scratch);
            let mut sums = vec![0.0; width];
            for (offset, (to, dots)) in distances.chunks_mut(width).zip(dots.chunks(width)).enumerate() {
                let (row, mut column) = (start + offset, 0);
                for &closest in &closest[row * seedings.len()..][..seedings.len()] {
                    for _ in 0..per_restart {
                        let (squared, length) = (columns.squared[column], columns.lengths[column]);
                        let vector = points.rows.row(rows[column]);
                        let distance = points.squared_distance(row, dots[column], squared, length, vector);
                        to[column] = closest.min(distance as f32);
                        sums[column] += f64::from(to[column]);
                        column += 1;
                    }
                }
            }
            sums
        })
        .collect();
    Pass { distances, potentials: potentials.concat(), width }
}

impl Pass {
    /// Sum over all points for one column, block after block.
    fn potential(&self, column: usize) -> f64 {
        self.potentials.iter().skip(column).step_by(self.width).sum()
    }

    /// The column of restart `restart` (of `trials` columns) with the smallest sum; the first of equals.
    fn best(&self, restart: usize, trials: usize) -> usize {
        let columns = restart * trials..(restart + 1) * trials;
        let best = columns.map(|c| (self.potential(c), c)).min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(0, |(_, column)| column)
    }

    /// Draws a row with probability proportional to its distance in `column`. If all are 0 (no more distinct points
    /// than centres) any row is as good: uniformly.
    fn draw(&self, column: usize, block: usize, count: usize, random: &mut Stream) -> usize {
        let total = self.potential(column);
        if total <= 0.0 {
            return random.below(count as u32) as usize;
        }
        let mut left = random.uniform() * total;
        let mut last = 0;
        for (number, sums) in self.potentials.chunks(self.width).enumerate() {
            // Rounding may leave a little at the end of a block: then its last possible row is meant.
            if sums[column] <= left || sums[column] == 0.0 {
                left -= sums[column];
                last = if sums[column] > 0.0 { number } else { last };
                continue;
            }
            return self.draw_within(column, number * block, block, left);
        }
        self.draw_within(column, last * block, block, f64::INFINITY)
    }

    /// The row of the block from `start` at which the running sum passes `left`, or the last row that adds to it.
    fn draw_within(&self, column: usize, start: usize, block: usize, mut left: f64) -> usize {
        let mut last = start;
        for (offset, distances) in self.distances[start * self.width..].chunks(self.width).take(block).enumerate() {
            let distance = f64::from(distances[column]);
            if distance > 0.0 {
                last = start + offset;
                if left < distance {
                    return last;
                }
                left -= distance;
            }
        }
        last
    }
}
