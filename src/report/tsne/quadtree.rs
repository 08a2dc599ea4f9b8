//! A quadtree over the places of a map: sums over all points in a few hundred terms (Barnes and Hut 1986).

/// Halvings of the square around all points: places closer than a millionth of its side share a leaf.
const LEVELS: u32 = 20;
/// A cell of this many points or fewer is not divided.
const LEAF: usize = 8;

/// A cell.
struct Cell {
    /// Centre of mass.
    x: f64,
    y: f64,
    /// Points in it.
    mass: f64,
    /// Square of its width.
    squared_width: f64,
    /// The cell that comes after all that is inside this one.
    next: u32,
    /// Its first point, in the tree's order, and how many they are if it is not divided, else 0.
    first: u32,
    leaf: u32,
}

/// The tree. Its cells lie in depth-first order.
pub(super) struct Quadtree {
    cells: Vec<Cell>,
    /// The points along a Z-curve.
    order: Vec<u32>,
    places: Vec<[f64; 2]>,
    codes: Vec<u64>,
    side: f64,
}

/// The sums at a place y over all points j of the map, itself left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Repulsion {
    /// `sum_j w^2 (y - y_j)` with `w = 1 / (1 + |y - y_j|^2)`.
    pub force: [f64; 2],
    /// `sum_j w`
    pub weight: f64,
}

impl Quadtree {
    /// Of finite places.
    pub fn new(places: &[[f64; 2]]) -> Self {
        let low = places.iter().fold([f64::INFINITY; 2], |a, b| [a[0].min(b[0]), a[1].min(b[1])]);
        let high = places.iter().fold([f64::NEG_INFINITY; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])]);
        let side = (high[0] - low[0]).max(high[1] - low[1]);
        let cells = f64::from(1u32 << LEVELS);
        let scale = if side > 0.0 { cells / side } else { 0.0 };
        let column = |v: f64, low: f64| ((v - low) * scale).min(cells - 1.0) as u64;
        let code =
            |(i, p): (usize, &[f64; 2])| (spread(column(p[0], low[0])) | spread(column(p[1], low[1])) << 1, i as u32);
        let mut keys: Vec<(u64, u32)> = places.iter().enumerate().map(code).collect();
        keys.sort_unstable();
        let mut tree = Quadtree {
            cells: Vec::with_capacity(places.len()),
            order: keys.iter().map(|key| key.1).collect(),
            places: keys.iter().map(|key| places[key.1 as usize]).collect(),
            codes: keys.iter().map(|key| key.0).collect(),
            side,
        };
        tree.divide(0, places.len(), 0);
        tree
    }

    /// The points along a curve through the map: those that follow each other visit nearly the same cells.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Adds the cell of the points `first..end`, which share the first `level` halvings, and all inside it.
    fn divide(&mut self, first: usize, end: usize, mut level: u32) {
        let quadrant = |code: u64, level: u32| code >> (2 * (LEVELS - 1 - level)) & 3;
        // A cell with all its points in one quadrant is that quadrant.
        while level < LEVELS && quadrant(self.codes[first], level) == quadrant(self.codes[end - 1], level) {
            level += 1;
        }
        let at = self.cells.len();
        let width = self.side / f64::from(1u32 << level.min(LEVELS));
        let leaf = end - first <= LEAF || level == LEVELS;
        let (first_u32, leaf_count) = (first as u32, if leaf { (end - first) as u32 } else { 0 });
        self.cells.push(Cell {
            x: 0.0,
            y: 0.0,
            mass: (end - first) as f64,
            squared_width: width * width,
            next: 0,
            first: first_u32,
            leaf: leaf_count,
        });
        let mut sum = [0.0; 2];
        if leaf {
            self.places[first..end].iter().for_each(|p| sum = [sum[0] + p[0], sum[1] + p[1]]);
        } else {
            let mut start = first;
            for q in 0..4 {
                let stop = start + self.codes[start..end].partition_point(|&code| quadrant(code, level) <= q);
                if start < stop {
                    let child = self.cells.len();
                    self.divide(start, stop, level + 1);
                    let child = &self.cells[child];
                    sum = [sum[0] + child.mass * child.x, sum[1] + child.mass * child.y];
                }
                start = stop;
            }
        }
        let next = self.cells.len() as u32;
        let cell = &mut self.cells[at];
        (cell.x, cell.y, cell.next) = (sum[0] / cell.mass, sum[1] / cell.mass, next);
    }

    /// The sums at `place`, which is one of the points. Exact for `theta` 0, otherwise cells narrower than `theta` times
    /// their distance count as one place.
    pub fn repulsion(&self, place: [f64; 2], theta: f64) -> Repulsion {
        let (mut force, mut weight) = ([0.0; 2], 0.0);
        let squared_theta = theta * theta;
        let mut at = 0;
        while let Some(cell) = self.cells.get(at) {
            let (dx, dy) = (place[0] - cell.x, place[1] - cell.y);
            let distance = dx * dx + dy * dy;
            if cell.squared_width < squared_theta * distance {
                let w = 1.0 / (1.0 + distance);
                let mass = cell.mass * w;
                weight += mass;
                force = [force[0] + mass * w * dx, force[1] + mass * w * dy];
                at = cell.next as usize;
            } else if cell.leaf > 0 {
                for other in &self.places[cell.first as usize..][..cell.leaf as usize] {
                    let (dx, dy) = (place[0] - other[0], place[1] - other[1]);
                    let w = 1.0 / (1.0 + dx * dx + dy * dy);
                    weight += w;
                    force = [force[0] + w * w * dx, force[1] + w * w * dy];
                }
                at = cell.next as usize;
            } else {
                at += 1;
            }
        }
        // The place itself was met once, at distance 0: weight 1, no force.
        Repulsion { force, weight: weight - 1.0 }
    }
}

/// Puts the lowest [`LEVELS`] bits on the even places.
fn spread(bits: u64) -> u64 {
    let mut v = bits;
    for (shift, mask) in [
        (16, 0x0000_FFFF_0000_FFFF),
        (8, 0x00FF_00FF_00FF_00FF),
        (4, 0x0F0F_0F0F_0F0F_0F0F),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555),
    ] {
        v = (v | v << shift) & mask;
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    /// Two clumps far apart, some places taken several times.
    fn places(n: usize) -> Vec<[f64; 2]> {
        let mut random = stream(1, Purpose::Probe, 0, 0, 0);
        let mut place = |i: usize| [random.normal() + 50.0 * (i % 2) as f64, 3.0 * random.normal()];
        let mut places: Vec<[f64; 2]> = (0..n).map(&mut place).collect();
        (20..n.min(60)).for_each(|i| places[i] = places[i % 3]);
        places
    }

    fn direct(places: &[[f64; 2]], own: usize) -> Repulsion {
        let mut sum = Repulsion::default();
        for (j, other) in places.iter().enumerate().filter(|(j, _)| *j != own) {
            assert_ne!(j, own);
            let d = [places[own][0] - other[0], places[own][1] - other[1]];
            let w = 1.0 / (1.0 + d[0] * d[0] + d[1] * d[1]);
            sum.weight += w;
            sum.force = [sum.force[0] + w * w * d[0], sum.force[1] + w * w * d[1]];
        }
        sum
    }

    #[test]
    fn without_approximation_it_is_the_sum_over_all() {
        for n in [1, 2, 3, 8, 9, 700] {
            let places = places(n);
            let tree = Quadtree::new(&places);
            let mut order = tree.order().to_vec();
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..n as u32));
            for own in 0..n {
                let (got, expected) = (tree.repulsion(places[own], 0.0), direct(&places, own));
                // n terms of at most 1, in two orders.
                let close = |a: f64, b: f64| (a - b).abs() < n as f64 * n as f64 * 2.3e-16;
                assert!(close(got.weight, expected.weight), "{n} {own}: {got:?} {expected:?}");
                assert!(close(got.force[0], expected.force[0]) && close(got.force[1], expected.force[1]));
            }
        }
        let same = vec![[3.0, -1.0]; 50];
        let got = Quadtree::new(&same).repulsion(same[0], 0.5);
        assert_eq!(got, Repulsion { force: [0.0; 2], weight: 49.0 });
    }

    #[test]
    fn approximation_costs_little() {
        let places = places(5000);
        let tree = Quadtree::new(&places);
        let error = |theta: f64| {
            let off = |own: usize| {
                let (got, expected) = (tree.repulsion(places[own], theta), direct(&places, own));
                let d = [got.force[0] - expected.force[0], got.force[1] - expected.force[1]];
                (d[0].hypot(d[1]), expected.force[0].hypot(expected.force[1]), got.weight / expected.weight)
            };
            let all: Vec<_> = (0..5000).step_by(50).map(off).collect();
            assert!(all.iter().all(|a| (a.2 - 1.0).abs() < 0.05 * theta), "{theta}");
            all.iter().map(|a| a.0).sum::<f64>() / all.iter().map(|a| a.1).sum::<f64>()
        };
        // A cell as its centre of mass leaves a term of second order in width over distance.
        let (fine, coarse) = (error(0.25), error(0.5));
        assert!(0.0 < fine && fine < 0.05 * 0.25 && fine < 0.5 * coarse && coarse < 0.05, "{fine} {coarse}");
    }
}
