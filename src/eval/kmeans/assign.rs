//! Puts points into the clusters of their nearest centres, without looking at those that cannot have changed.
//!
//! By how much a point is nearer to its own centre than to any other (its margin) shrinks, when centres move, by at most
//! the way its own centre went plus the longest way of another (Hamerly 2010). While it stays positive the label stands.
//! Margins start from distances known only to an error bound, and are rounded down, so this changes no label.

use super::partition::Target;
use super::points::{Columns, Points, Scratch, direct_distance};

/// Not yet in any cluster.
pub(crate) const NONE: u32 = u32::MAX;

/// A block in which at least one in `DENSE` pairs of a point and a run is open is computed whole: a product with the
/// centres of all runs is that much faster per pair than one with the centres of a single run.
const DENSE: usize = 3;

/// A point that changed its cluster.
pub(super) struct Move {
    pub row: u32,
    pub run: u32,
    pub from: u32,
    pub to: u32,
}

/// An assignment of all points, for several runs side by side.
pub(super) struct Assignment<'a> {
    points: &'a Points<'a>,
    targets: &'a [Target<'a>],
    clusters: usize,
    /// All centres of all targets.
    columns: Columns,
    /// Half the squared length of each.
    half: Vec<f64>,
    /// Length of the longest centre, per target.
    longest: Vec<f64>,
}

/// What is known of the points of a block, points x runs each.
pub(super) struct Block<'b> {
    /// The first point.
    pub start: usize,
    pub labels: &'b mut [u32],
    /// Prepared units; not positive if nothing is known.
    pub margins: &'b mut [f32],
    /// Number of runs.
    pub runs: usize,
}

/// Memory of one thread.
#[derive(Default)]
pub(super) struct Workspace {
    scratch: Scratch,
    /// Open points of the block, per target.
    open: Vec<Vec<usize>>,
}

impl<'a> Assignment<'a> {
    pub fn new(points: &'a Points<'a>, clusters: usize, targets: &'a [Target<'a>]) -> Self {
        let columns = points.columns(targets.iter().flat_map(|target| target.centers.iter().copied()));
        let (half, longest) = (columns.half(), columns.longest(clusters));
        Assignment { points, targets, clusters, columns, half, longest }
    }

    /// Brings a block up to date. Returns the points that moved, in an order that depends on labels alone.
    pub fn assign(&self, block: &mut Block, workspace: &mut Workspace) -> Vec<Move> {
        let Workspace { scratch, open } = workspace;
        open.resize(self.targets.len(), Vec::new());
        for (target, open) in self.targets.iter().zip(&mut *open) {
            block.find_open(target, open);
        }
        let mut moves = Vec::new();
        let count = block.labels.len() / block.runs;
        if open.iter().map(Vec::len).sum::<usize>() * DENSE >= count * self.targets.len() {
            let all = 0..self.columns.count;
            let dots = self.points.dots(block.start..block.start + count, &self.columns, all, scratch);
            for (offset, dots) in dots.chunks(self.columns.count).enumerate() {
                for (t, dots) in dots.chunks(self.clusters).enumerate() {
                    moves.extend(self.judge(block, offset, t, dots));
                }
            }
            return moves;
        }
        for (t, open) in open.iter().enumerate().filter(|(_, open)| !open.is_empty()) {
            let part = t * self.clusters..(t + 1) * self.clusters;
            let dots = self.points.dots(open.iter().map(|o| block.start + o), &self.columns, part, scratch);
            for (&offset, dots) in open.iter().zip(dots.chunks(self.clusters)) {
                moves.extend(self.judge(block, offset, t, dots));
            }
        }
        moves.sort_unstable_by_key(|m| (m.row, m.run));
        moves
    }

    /// Finds the nearest centre of target `t` for a point from the products with its centres, and its margin.
    ///
    /// The nearest centre has the largest score `x.c - |c|^2 / 2`, the squared distance being `|x|^2` less twice that.
    fn judge(&self, block: &mut Block, offset: usize, t: usize, dots: &[f32]) -> Option<Move> {
        let (row, target) = (block.start + offset, &self.targets[t]);
        let half = &self.half[t * self.clusters..][..self.clusters];
        let score = |c: usize| f64::from(dots[c]) - half[c];
        let (mut best, mut second, mut to) = (f64::NEG_INFINITY, f64::NEG_INFINITY, 0);
        for c in 0..self.clusters {
            let score = score(c);
            if score > best {
                (second, best, to) = (best, score, c);
            } else if score > second {
                second = score;
            }
        }
        let error = self.points.error(row, self.longest[t]);
        let at = offset * block.runs + target.run;
        block.margins[at] = if best - second > 2.0 * error {
            let (square, error) = (self.points.square(row), 2.0 * error + self.points.square_error(row));
            let own = (square - 2.0 * best + error).max(0.0).sqrt();
            let other = (square - 2.0 * second - error).max(0.0).sqrt();
            ((other - own) as f32).next_down()
        } else {
            // Too close for these products: the distances themselves decide, the first of equals wins.
            let rivals = (0..self.clusters).filter(|&c| score(c) >= best - 2.0 * error);
            let x = self.points.rows.row(row);
            let distances = rivals.map(|c| (direct_distance(x, &target.centers[c * x.len()..][..x.len()]), c));
            to = distances.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(to, |(_, c)| c);
            0.0
        };
        let from = std::mem::replace(&mut block.labels[at], to as u32);
        (from != to as u32).then_some(Move { row: row as u32, run: target.run as u32, from, to: to as u32 })
    }
}

impl Block<'_> {
    /// Shrinks the margins of a run and lists the points of which the label is open again.
    fn find_open(&mut self, target: &Target, open: &mut Vec<usize>) {
        open.clear();
        let margins = self.margins.iter_mut().skip(target.run).step_by(self.runs);
        let labels = self.labels.iter().skip(target.run).step_by(self.runs);
        for (offset, (margin, &label)) in margins.zip(labels).enumerate() {
            if *margin > 0.0 {
                *margin = (*margin - target.drift[label as usize]).next_down();
            }
            if *margin <= 0.0 {
                open.push(offset);
            }
        }
    }
}
