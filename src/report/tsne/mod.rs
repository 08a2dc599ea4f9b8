//! t-SNE: a map of high-dimensional points in the plane that keeps neighbours together (van der Maaten and Hinton 2008).
//!
//! With `p_ij` the similarities of points i and j (see `affinities`) and those of their places y in the map
//!
//! ```text
//! q_ij = w_ij / Z,   w_ij = 1 / (1 + |y_i - y_j|^2),   Z = sum_{k != l} w_kl,
//! ```
//!
//! the map minimises the Kullback-Leibler divergence `KL = sum_ij p_ij ln(p_ij / q_ij)` by gradient descent with
//!
//! ```text
//! dKL / dy_i = 4 sum_j (p_ij - q_ij) w_ij (y_i - y_j).
//! ```
//!
//! The part with `p` is a sum over neighbours; that with `q`, over all pairs, is approximated with a quadtree (Barnes and
//! Hut 1986; van der Maaten 2014): a cell of width s at distance d counts as one place if `s < theta d`. Conventions are
//! scikit-learn's (`TSNE(init="pca")`): at most 50 principal components as input, the first two, scaled to a deviation
//! of 1e-4, as the first map, early exaggeration, learning rate `max(n / (4 exaggeration), 50)`, momentum 0.5 and later
//! 0.8, gains per coordinate. What differs: neighbours are exact, all is computed in f64, all iterations are made, and
//! the divergence reported is the formula itself, over all pairs.
//!
//! Same bits at any number of threads: every sum is formed by one task or over fixed ranges. Cost for n points, k
//! neighbours: n^2 x 50 products for the neighbours, then per iteration about 2 n k terms of neighbours and a few hundred
//! n of cells. Memory: about 40 n k bytes.
//!
//! Why not a crate: `bhtsne` 0.7, the one that is kept up, draws from the operating system's entropy without a seed, sums
//! in an order that depends on the number of threads, and searches neighbours with a metric tree, which in hundreds of
//! dimensions looks at every pair one by one.

mod affinities;
mod descent;
mod quadtree;

use crate::eval::Rows;
use crate::eval::pca::Components;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};
use affinities::Affinities;
use serde::{Deserialize, Serialize};

/// Dimensions that the neighbours are searched in, at most.
const DIMENSIONS: usize = 50;
/// Deviation of the first map along its first axis.
const INITIAL: f64 = 1e-4;
/// Along an axis with less than this share of the first one's variance, points do not vary but by rounding.
const FLAT: f64 = 1e-20;
/// Largest theta: a cell's own points are at most `sqrt(2)` widths from its centre of mass, and must not accept it.
const MAX_THETA: f64 = 0.7;

/// The parameters of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tsne {
    /// Neighbours that count, smoothly; at most a third of the other points is used, see [`Map::perplexity`].
    pub perplexity: f64,
    /// Width over distance at which a cell of the quadtree counts as one place, 0 (exact, quadratic time) to 0.7.
    pub theta: f64,
    /// Factor on the attraction in the first iterations, at least 1: lets clusters form and pass each other.
    pub exaggeration: f64,
    /// How many these are.
    pub exaggerated: usize,
    /// Iterations in all.
    pub iterations: usize,
    /// Where the points begin.
    pub init: Init,
    /// Seed of random beginnings; without effect where the principal components give one.
    pub seed: u64,
}

/// Where the points begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// At their first two principal components; at random if the points do not vary.
    Pca,
    /// At random, normally distributed.
    Random,
}

impl Default for Tsne {
    /// scikit-learn's defaults, seed 42.
    fn default() -> Self {
        Tsne {
            perplexity: 30.0,
            theta: 0.5,
            exaggeration: 12.0,
            exaggerated: 250,
            iterations: 1000,
            init: Init::Pca,
            seed: 42,
        }
    }
}

/// A map of points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// The place of every point, in the order of the points. Units mean nothing.
    pub positions: Vec<[f64; 2]>,
    /// Kullback-Leibler divergence of the map in nats, at least 0: how much of the neighbourhoods it loses.
    pub kl_divergence: f64,
    /// The perplexity that was used: as asked for, or (n - 1) / 3 if that is less, but never below 2 (or n - 1).
    pub perplexity: f64,
}

impl Tsne {
    /// Maps `points` (n x `dim`, row-major).
    ///
    /// # Errors
    /// [`Error::Shape`] if `points` are not one or more rows of `dim`; [`Error::NonFinite`] naming the first row with an
    /// infinite number or NaN, or if numbers are too large to be squared; [`Error::Usage`] for parameters out of range.
    pub fn map(&self, points: &[f32], dim: usize) -> Result<Map> {
        self.check()?;
        let rows = Rows::new("t-SNE", points, dim)?;
        let n = rows.count;
        let perplexity = self.perplexity.min((n - 1) as f64 / 3.0).max(2.0f64.min((n - 1) as f64));
        if n == 1 {
            return Ok(Map { positions: vec![[0.0; 2]], kl_divergence: 0.0, perplexity });
        }
        let width = dim.min(DIMENSIONS);
        let coordinates = Components::new(points, dim, width)?.project(points);
        let affinities = Affinities::new(&coordinates, width, perplexity);
        let positions = descent::descend(self, &affinities, self.first(&coordinates, width));
        if positions.iter().flatten().any(|v| !v.is_finite()) {
            return Err(Error::NonFinite("t-SNE: the map diverged: check the scale of the points".into()));
        }
        let kl_divergence = descent::divergence(&affinities, &positions);
        Ok(Map { positions, kl_divergence, perplexity })
    }

    fn check(&self) -> Result<()> {
        let problem = match self {
            Tsne { perplexity: p, .. } if !(1.0..f64::INFINITY).contains(p) => format!("perplexity = {p}: at least 1"),
            Tsne { theta: t, .. } if !(0.0..=MAX_THETA).contains(t) => format!("theta = {t}: 0 to {MAX_THETA}"),
            Tsne { exaggeration: e, .. } if !(1.0..f64::INFINITY).contains(e) => {
                format!("exaggeration = {e}: at least 1")
            }
            _ => return Ok(()),
        };
        Err(Error::Usage(format!("t-SNE: {problem}")))
    }

    /// The first map of points with `coordinates` along `width` principal components. An axis along which they do not vary
    /// begins at random: on a line, points could not pass each other.
    fn first(&self, coordinates: &[f64], width: usize) -> Vec<[f64; 2]> {
        let n = coordinates.len() / width;
        let variance = |axis: usize| {
            let along = coordinates.iter().skip(axis).step_by(width);
            if axis < width { along.map(|v| v * v).sum::<f64>() / n as f64 } else { 0.0 }
        };
        let variances = [variance(0), variance(1)];
        let scale = INITIAL / variances[0].sqrt();
        let place = |(i, row): (usize, &[f64])| {
            let mut random = stream(self.seed, Purpose::Map, 0, i as u64, 0);
            [0, 1].map(|axis| {
                let known = self.init == Init::Pca && variances[axis] > FLAT * variances[0];
                let drawn = INITIAL * random.normal();
                if known { scale * row[axis] } else { drawn }
            })
        };
        coordinates.chunks(width).enumerate().map(place).collect()
    }
}

#[cfg(test)]
mod tests;
