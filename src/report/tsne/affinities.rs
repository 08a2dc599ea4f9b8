//! Similarities of points for t-SNE, over their nearest neighbours.
//!
//! `p_j|i = exp(-b_i d_ij^2) / sum_k exp(-b_i d_ik^2)` over the `3 perplexity + 1` nearest neighbours of i, with `b_i` such
//! that its entropy is `ln perplexity`; `p_ij = (p_j|i + p_i|j) / 2n` (van der Maaten 2014, equations 1, 2 and 6).

use crate::eval::dots;
use rayon::prelude::*;

/// Points whose neighbours a task finds.
const QUERIES: usize = 64;
/// Points they are compared with at a time: the products of the two stay in the cache.
const TILE: usize = 1024;
/// The entropy is met to within this, in nats.
const ENTROPY_TOLERANCE: f64 = 1e-8;

/// A symmetric sparse matrix of similarities that sum to 1; no entry on the diagonal.
pub(super) struct Affinities {
    /// Where each row begins in the other two: n + 1 numbers.
    starts: Vec<usize>,
    neighbours: Vec<u32>,
    values: Vec<f64>,
}

impl Affinities {
    /// Of `points` (n x `dim`, n at least 2).
    pub fn new(points: &[f64], dim: usize, perplexity: f64) -> Self {
        let n = points.len() / dim;
        let k = ((3.0 * perplexity + 1.0) as usize).clamp(1, n - 1);
        let mut neighbours = nearest(points, dim, k);
        neighbours.par_iter_mut().for_each(|row| conditional(row, perplexity));
        symmetric(&neighbours)
    }

    /// Number of points.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The neighbours of point `i`, ascending, with their similarities.
    pub fn row(&self, i: usize) -> impl Iterator<Item = (usize, f64)> {
        let range = self.starts[i]..self.starts[i + 1];
        self.neighbours[range.clone()].iter().map(|&j| j as usize).zip(self.values[range].iter().copied())
    }
}

/// A neighbour, with its squared distance and later its conditional similarity.
type Neighbour = (f64, u32);

/// The `k` nearest other points of every point, nearest first, the first of equals first; with squared distances.
fn nearest(points: &[f64], dim: usize, k: usize) -> Vec<Vec<Neighbour>> {
    let squares: Vec<f64> = points.par_chunks(dim).map(|x| x.iter().map(|v| v * v).sum()).collect();
    let block = |(block, queries): (usize, &[f64])| {
        let mut best = vec![Nearest { k, found: Vec::new(), limit: f64::INFINITY }; queries.len() / dim];
        let mut products = vec![0.0; best.len() * TILE];
        for (tile, others) in points.chunks(TILE * dim).enumerate() {
            let width = others.len() / dim;
            let products = &mut products[..best.len() * width];
            dots(queries, others, dim, products);
            for (q, (best, products)) in best.iter_mut().zip(products.chunks(width)).enumerate() {
                let (own, first) = (block * QUERIES + q, tile * TILE);
                for (j, product) in products.iter().enumerate() {
                    let distance = squares[own] + squares[first + j] - 2.0 * product;
                    if distance <= best.limit && first + j != own {
                        best.offer(distance, (first + j) as u32);
                    }
                }
            }
        }
        let exact = |(q, best): (usize, Nearest)| {
            let own = &queries[q * dim..][..dim];
            let distance = |j: u32| {
                let other = &points[j as usize * dim..][..dim];
                own.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
            };
            let mut row: Vec<Neighbour> = best.finish().into_iter().map(|(_, j)| (distance(j), j)).collect();
            row.sort_unstable_by(order);
            row
        };
        best.into_iter().enumerate().map(exact).collect::<Vec<_>>()
    };
    points.par_chunks(QUERIES * dim).enumerate().flat_map_iter(block).collect()
}

/// Nearest first, the first of equals first.
fn order(a: &Neighbour, b: &Neighbour) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The `k` nearest of what was offered so far, and others.
#[derive(Clone)]
struct Nearest {
    k: usize,
    found: Vec<Neighbour>,
    /// Nothing further away than this is among the nearest.
    limit: f64,
}

impl Nearest {
    fn offer(&mut self, distance: f64, point: u32) {
        self.found.push((distance, point));
        if self.found.len() >= 2 * self.k + 64 {
            self.keep();
        }
    }

    fn keep(&mut self) {
        if self.found.len() > self.k {
            self.found.select_nth_unstable_by(self.k - 1, order);
            self.found.truncate(self.k);
            self.limit = self.found[self.k - 1].0;
        }
    }

    fn finish(mut self) -> Vec<Neighbour> {
        self.keep();
        self.found
    }
}

/// Replaces the squared distances of a point's neighbours (nearest first) by conditional similarities.
fn conditional(row: &mut [Neighbour], perplexity: f64) {
    // Distances beyond the nearest: the same similarities, and no exponential of all of them vanishes.
    let nearest = row[0].0;
    row.iter_mut().for_each(|(distance, _)| *distance -= nearest);
    let mean = row.iter().map(|(distance, _)| distance).sum::<f64>() / row.len() as f64;
    // Equally far neighbours are equally similar whatever the precision.
    let mut precision = if mean > 0.0 { 1.0 / mean } else { 0.0 };
    let [mut low, mut high] = [0.0, f64::INFINITY];
    let wanted = perplexity.ln();
    for _ in 0..200 {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (distance, _) in row.iter() {
            let similarity = (-precision * distance).exp();
            sum += similarity;
            weighted += similarity * distance;
        }
        let entropy = f64::ln(sum) + precision * weighted / sum;
        if (entropy - wanted).abs() < ENTROPY_TOLERANCE || mean == 0.0 {
            break;
        }
        if entropy > wanted {
            low = precision;
            precision = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * precision };
        } else {
            high = precision;
            precision = (low + high) / 2.0;
        }
        if !precision.is_finite() {
            // As many equally near neighbours as this, or more, whatever the precision.
            precision = low;
            break;
        }
    }
    row.iter_mut().for_each(|(distance, _)| *distance = (-precision * *distance).exp());
    let sum: f64 = row.iter().map(|(similarity, _)| similarity).sum();
    row.iter_mut().for_each(|(similarity, _)| *similarity /= sum);
}

/// Half of every conditional similarity goes to its pair in either direction.
fn symmetric(conditional: &[Vec<Neighbour>]) -> Affinities {
    let n = conditional.len();
    let mut back: Vec<Vec<(u32, f64)>> = vec![Vec::new(); n];
    for (i, row) in conditional.iter().enumerate() {
        row.iter().for_each(|&(p, j)| back[j as usize].push((i as u32, p)));
    }
    let merge = |(row, back): (&Vec<Neighbour>, Vec<(u32, f64)>)| {
        let mut all: Vec<(u32, f64)> = row.iter().map(|&(p, j)| (j, p)).chain(back).collect();
        // Stable, so that the two of a pair are added in one order.
        all.sort_by_key(|&(j, _)| j);
        all.chunk_by(|a, b| a.0 == b.0)
            .map(|same| (same[0].0, same.iter().map(|s| s.1).sum::<f64>() / (2 * n) as f64))
            .collect::<Vec<_>>()
    };
    let rows: Vec<Vec<(u32, f64)>> = conditional.par_iter().zip(back).map(merge).collect();
    let mut starts = vec![0];
    starts.extend(rows.iter().scan(0, |end, row| {
        *end += row.len();
        Some(*end)
    }));
    let (neighbours, values) = rows.into_iter().flatten().unzip();
    Affinities { starts, neighbours, values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn neighbours_are_the_nearest() {
        // More than a tile and a block; every tenth point stands where the one before it does.
        let (n, dim, k) = (TILE + 2 * QUERIES + 9, 3, 20);
        let mut random = stream(1, Purpose::Probe, 0, 0, 0);
        let mut points: Vec<f64> = (0..n * dim).map(|_| random.normal()).collect();
        for i in (10..n).step_by(10) {
            points.copy_within((i - 1) * dim..i * dim, i * dim);
        }
        let got = nearest(&points, dim, k);
        for i in (0..n).step_by(97).chain([10, n - 1]) {
            let distance =
                |j: usize| (0..dim).map(|d| (points[i * dim + d] - points[j * dim + d]).powi(2)).sum::<f64>();
            let mut all: Vec<Neighbour> = (0..n).filter(|&j| j != i).map(|j| (distance(j), j as u32)).collect();
            all.sort_by(order);
            assert_eq!(got[i], all[..k], "{i}");
        }
        assert_eq!(got[10][0], (0.0, 9));
    }

    #[test]
    fn similarities_have_the_perplexity_and_sum_to_one() {
        let mut random = stream(2, Purpose::Probe, 0, 0, 0);
        for scale in [1e-6, 1.0, 1e9] {
            let points: Vec<f64> = (0..500 * 4).map(|_| scale * random.normal()).collect();
            let mut rows = nearest(&points, 4, 61);
            for row in &mut rows {
                conditional(row, 20.0);
                let entropy: f64 = row.iter().map(|(p, _)| if *p > 0.0 { -p * p.ln() } else { 0.0 }).sum();
                assert!((entropy.exp() - 20.0).abs() < 1e-5 && row.is_sorted_by(|a, b| a.0 >= b.0));
            }
            let affinities = symmetric(&rows);
            let of = |i: usize, j: usize| affinities.row(i).find(|r| r.0 == j).map_or(0.0, |r| r.1);
            let total: f64 = (0..500).flat_map(|i| affinities.row(i)).map(|r| r.1).sum();
            assert!((total - 1.0).abs() < 1e-12);
            let given = |i: usize, j: usize| rows[i].iter().find(|r| r.1 as usize == j).map_or(0.0, |r| r.0);
            for (i, j) in (0..500).flat_map(|i| [(i, (i * 7 + 1) % 500), (i, rows[i][5].1 as usize)]) {
                assert_eq!(of(i, j), of(j, i));
                assert!((of(i, j) - (given(i, j) + given(j, i)) / 1000.0).abs() < 1e-18);
            }
            assert!((0..500).all(|i| of(i, i) == 0.0));
        }
    }

    #[test]
    fn equal_distances_are_equally_similar() {
        // More equally near neighbours than the perplexity: no precision tells them apart.
        for distances in [vec![0.0; 9], vec![4.0; 9], [vec![0.0; 6], vec![1.0; 3]].concat()] {
            let mut row: Vec<Neighbour> = distances.iter().copied().zip(0..).collect();
            conditional(&mut row, 3.0);
            assert!((row.iter().map(|r| r.0).sum::<f64>() - 1.0).abs() < 1e-12, "{row:?}");
            let near = distances.iter().filter(|&&d| d == distances[0]).count();
            assert!(row[..near].iter().all(|r| r.0 == row[0].0) && row[0].0 > 0.1, "{row:?}");
        }
    }
}
