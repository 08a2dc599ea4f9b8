//! Gradient descent on a map, and its divergence.

use super::Tsne;
use super::affinities::Affinities;
use super::quadtree::{Quadtree, Repulsion};
use rayon::prelude::*;

/// Points a task works on: ranges are fixed, so that sums over all points are formed in one order.
const BLOCK: usize = 128;
/// Momentum while the attraction is exaggerated, and after.
const MOMENTUM: [f64; 2] = [0.5, 0.8];
/// Least gain of a coordinate (Jacobs 1988).
const MIN_GAIN: f64 = 0.01;
/// Least learning rate.
const MIN_RATE: f64 = 50.0;

/// A coordinate's step and gain.
#[derive(Clone, Copy)]
struct Pace {
    step: f64,
    gain: f64,
}

/// Moves the `places` as `config` says.
pub(super) fn descend(config: &Tsne, affinities: &Affinities, mut places: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    let rate = (places.len() as f64 / config.exaggeration / 4.0).max(MIN_RATE);
    let exaggerated = config.exaggerated.min(config.iterations);
    let phases = [(exaggerated, config.exaggeration), (config.iterations - exaggerated, 1.0)];
    for ((iterations, exaggeration), momentum) in phases.into_iter().zip(MOMENTUM) {
        let mut paces = vec![[Pace { step: 0.0, gain: 1.0 }; 2]; places.len()];
        for _ in 0..iterations {
            let slopes = gradient(affinities, &places, exaggeration, config.theta);
            for ((place, paces), slopes) in places.iter_mut().zip(&mut paces).zip(&slopes) {
                for ((coordinate, pace), slope) in place.iter_mut().zip(paces).zip(slopes) {
                    let gain = if pace.step * slope < 0.0 { pace.gain + 0.2 } else { pace.gain * 0.8 };
                    pace.gain = gain.max(MIN_GAIN);
                    pace.step = momentum * pace.step - rate * pace.gain * slope;
                    *coordinate += pace.step;
                }
            }
            if places[0].iter().any(|v| !v.is_finite()) {
                return places;
            }
        }
    }
    places
}

/// The gradient of the divergence, with the similarities multiplied by `exaggeration`.
pub(super) fn gradient(affinities: &Affinities, places: &[[f64; 2]], exaggeration: f64, theta: f64) -> Vec<[f64; 2]> {
    let tree = Quadtree::new(places);
    let repulsion = |block: &[u32]| -> Vec<Repulsion> {
        block.iter().map(|&i| tree.repulsion(places[i as usize], theta)).collect()
    };
    let repulsions: Vec<Vec<Repulsion>> = tree.order().par_chunks(BLOCK).map(repulsion).collect();
    let total: f64 = repulsions.iter().map(|block| block.iter().map(|r| r.weight).sum::<f64>()).sum();
    let mut slopes = vec![[0.0; 2]; places.len()];
    for (&i, repulsion) in tree.order().iter().zip(repulsions.iter().flatten()) {
        slopes[i as usize] = repulsion.force.map(|force| -force / total);
    }
    slopes.par_chunks_mut(BLOCK).enumerate().for_each(|(block, slopes)| {
        for (offset, slope) in slopes.iter_mut().enumerate() {
            let own = places[block * BLOCK + offset];
            let mut attraction = [0.0; 2];
            for (j, p) in affinities.row(block * BLOCK + offset) {
                let d = [own[0] - places[j][0], own[1] - places[j][1]];
                let pw = p / (1.0 + d[0] * d[0] + d[1] * d[1]);
                attraction = [attraction[0] + pw * d[0], attraction[1] + pw * d[1]];
            }
            *slope = [0, 1].map(|d| 4.0 * (exaggeration * attraction[d] + slope[d]));
        }
    });
    slopes
}

/// `sum_ij p_ij ln(p_ij / q_ij)` over all pairs, exact.
pub(super) fn divergence(affinities: &Affinities, places: &[[f64; 2]]) -> f64 {
    let n = affinities.count();
    let weight = |a: [f64; 2], b: [f64; 2]| 1.0 / (1.0 + (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2));
    let sums = |block: usize| {
        let (mut weights, mut terms) = (0.0, 0.0);
        for i in block..(block + BLOCK).min(n) {
            weights += 2.0 * places[i + 1..].iter().map(|&other| weight(places[i], other)).sum::<f64>();
            let term = |(j, p): (usize, f64)| p * (p / weight(places[i], places[j])).ln();
            terms += affinities.row(i).filter(|r| r.1 > 0.0).map(term).sum::<f64>();
        }
        (weights, terms)
    };
    let blocks: Vec<usize> = (0..n).step_by(BLOCK).collect();
    let blocks: Vec<(f64, f64)> = blocks.into_par_iter().map(sums).collect();
    let (weights, terms) = blocks.iter().fold((0.0, 0.0), |sum, block| (sum.0 + block.0, sum.1 + block.1));
    // The similarities sum to 1. A perfect map leaves rounding, of either sign.
    (terms + f64::ln(weights)).max(0.0)
}
