//! LIME: how much each superpixel of an image speaks for a head (Ribeiro, Singh and Guestrin 2016).
//!
//! Samples of the image are made with about half of the superpixels, drawn at random, replaced by their mean colour. With
//! `z` in {0, 1}^k what is left of the image and `y(z)` the head's output, a linear model is fitted,
//!
//! ```text
//! min_{b, c}  sum_z w(z) (y(z) - c - b . z)^2 + ridge |b|^2,     w(z) = exp(-D(z)^2 / width^2)^(1/2),
//! ```
//!
//! with D the cosine distance of z from the whole image, `1 - sqrt(|z| / k)`; the first sample is the image itself. `b` is
//! the explanation. Kernel, width 0.25, ridge 1, mean colours and 5 regions shown are those of the authors' program; 5,000
//! samples are the paper's (appendix B).
//!
//! Sums are formed sample by sample, so that memory does not grow with their number, in a fixed order. Cost: as many
//! inferences as samples, for all heads together.

use super::Network;
use super::slic::Superpixels;
use crate::data::ImageRef;
use crate::eval::Cholesky;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Regions with less than this share of the largest weight are not shown: where few regions count, the others' weights are
/// the noise of the fit.
const WORTH_SHOWING: f64 = 0.1;

/// The parameters of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lime {
    /// Perturbed samples, the image itself among them; at least 2.
    pub samples: usize,
    /// Cosine distance at which a sample's weight has fallen to `exp(-1/2)`. Above 0.
    pub kernel_width: f64,
    /// Weight of the penalty on the coefficients. Above 0.
    pub ridge: f64,
    /// Regions that are shown, at most.
    pub shown: usize,
    /// Seed of the samples.
    pub seed: u64,
}

impl Default for Lime {
    /// 5,000 samples as in the paper, seed 42, the rest as in the authors' program.
    fn default() -> Self {
        Lime { samples: 5000, kernel_width: 0.25, ridge: 1.0, shown: 5, seed: 42 }
    }
}

/// Why a head answered an image as it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The head.
    pub head: usize,
    /// Its output for the image, in 0..=1.
    pub output: f64,
    /// b: by how much each superpixel raises the output.
    pub weights: Vec<f64>,
    /// c: the output with all of them covered, by the linear model.
    pub intercept: f64,
    /// Share of the weighted variance of the outputs that the linear model explains, at most 1. `None` if the head gives the
    /// same output whatever is covered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r2: Option<f64>,
    /// The superpixels that speak most for the head, most first: those with a positive weight of at least
    /// a tenth of the largest.
    pub shown: Vec<usize>,
}

impl Lime {
    /// Explains the outputs of `heads` for `image` (the network's input), cut into `superpixels`. `number` tells images
    /// apart: each has samples of its own. `progress` is called with the samples done.
    ///
    /// # Errors
    /// [`Error::Usage`] for parameters out of range or a head that does not exist; [`Error::Shape`] if sizes do not fit; what
    /// the network says.
    pub fn explain(
        &self,
        network: &mut Network,
        image: ImageRef,
        number: u64,
        superpixels: &Superpixels,
        heads: &[usize],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Explanation>> {
        self.check()?;
        network.check(image, heads)?;
        if superpixels.labels.len() * 3 != image.pixels().len() {
            return Err(Error::shape("lime", "superpixels of another image"));
        }
        let covers = superpixels.mean_colours(image);
        let size = network.image_bytes();
        let mut sums = Sums::new(superpixels.count, heads.len());
        let mut pixels = vec![0; network.batch.min(self.samples) * size];
        for first in (0..self.samples).step_by(network.batch) {
            let count = network.batch.min(self.samples - first);
            let pixels = &mut pixels[..count * size];
            let masks: Vec<Vec<bool>> =
                (first..first + count).map(|sample| self.mask(superpixels.count, number, sample)).collect();
            pixels
                .par_chunks_mut(size)
                .zip(&masks)
                .for_each(|(pixels, mask)| perturb(image, superpixels, &covers, mask, pixels));
            let outputs = network.answer(pixels)?;
            for (mask, outputs) in masks.iter().zip(outputs.chunks(network.heads)) {
                let left = mask.iter().filter(|&&kept| kept).count();
                let outputs: Vec<f64> = heads.iter().map(|&head| f64::from(outputs[head])).collect();
                sums.add(mask, self.weight(left, mask.len()), &outputs);
            }
            progress(first + count);
        }
        self.fit(&sums, heads)
    }

    fn check(&self) -> Result<()> {
        let positive = |v: f64| v > 0.0 && v.is_finite();
        if self.samples < 2 || !positive(self.kernel_width) || !positive(self.ridge) {
            let problem = "LIME: samples must be at least 2, kernel width and ridge above 0";
            return Err(Error::Usage(problem.into()));
        }
        Ok(())
    }

    /// What a sample keeps: all of it for the first, otherwise each superpixel with probability 1/2.
    fn mask(&self, count: usize, number: u64, sample: usize) -> Vec<bool> {
        let mut random = stream(self.seed, Purpose::Perturb, number, sample as u64, 0);
        (0..count).map(|_| sample == 0 || random.chance(0.5)).collect()
    }

    /// w for a sample that keeps `left` of `count` superpixels.
    fn weight(&self, left: usize, count: usize) -> f64 {
        let distance = 1.0 - (left as f64 / count as f64).sqrt();
        (-(distance / self.kernel_width).powi(2) / 2.0).exp()
    }

    fn fit(&self, sums: &Sums, heads: &[usize]) -> Result<Vec<Explanation>> {
        let k = sums.kept.len();
        let mean: Vec<f64> = sums.kept.iter().map(|s| s / sums.weight).collect();
        // Covariances times the total weight.
        let covariance: Vec<f64> =
            (0..k * k).map(|at| sums.both[at] - sums.weight * mean[at / k] * mean[at % k]).collect();
        let mut ridged = covariance.clone();
        ridged.iter_mut().step_by(k + 1).for_each(|v| *v += self.ridge);
        let singular = || Error::NonFinite("LIME: the samples do not determine a model".into());
        let factor = Cholesky::new(ridged, k).ok_or_else(singular)?;
        let one = |(i, &head): (usize, &usize)| {
            let output = sums.outputs[i] / sums.weight;
            let toward: Vec<f64> =
                sums.products[i].iter().zip(&mean).map(|(p, m)| p - sums.weight * m * output).collect();
            let mut weights = toward.clone();
            factor.solve(&mut weights);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let total = sums.squares[i] - sums.weight * output * output;
            let quadratic: f64 = covariance.chunks(k).zip(&weights).map(|(row, w)| w * dot(row, &weights)).sum();
            let rest = total - 2.0 * dot(&weights, &toward) + quadratic;
            // A variance below what rounding leaves of it is none.
            let varies = total > 1e-12 * sums.squares[i].max(f64::MIN_POSITIVE);
            Explanation {
                head,
                output: sums.whole[i],
                intercept: output - dot(&weights, &mean),
                r2: varies.then(|| 1.0 - rest / total),
                shown: shown(&weights, self.shown),
                weights,
            }
        };
        Ok(heads.iter().enumerate().map(one).collect())
    }
}

/// The superpixels with the largest weights, at most `count`; the first of equals first.
fn shown(weights: &[f64], count: usize) -> Vec<usize> {
    let least = WORTH_SHOWING * weights.iter().fold(0.0f64, |a, &b| a.max(b));
    let mut positive: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0 && weights[i] >= least).collect();
    positive.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    positive.truncate(count);
    positive
}

/// Writes `image` to `out` with the superpixels that `mask` does not keep in their mean colour.
fn perturb(image: ImageRef, superpixels: &Superpixels, covers: &[[u8; 3]], mask: &[bool], out: &mut [u8]) {
    let pixels = image.pixels().as_chunks::<3>().0;
    for ((out, pixel), &label) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels).zip(&superpixels.labels) {
        *out = if mask[label as usize] { *pixel } else { covers[label as usize] };
    }
}

/// Weighted sums over the samples, from which the model follows.
struct Sums {
    weight: f64,
    /// Per superpixel, of z.
    kept: Vec<f64>,
    /// Of z z^T: k x k.
    both: Vec<f64>,
    /// Per head, of y, of y^2, and of y z.
    outputs: Vec<f64>,
    squares: Vec<f64>,
    products: Vec<Vec<f64>>,
    /// Per head, the output for the first sample: the image itself.
    whole: Vec<f64>,
}

impl Sums {
    fn new(superpixels: usize, heads: usize) -> Self {
        Sums {
            weight: 0.0,
            kept: vec![0.0; superpixels],
            both: vec![0.0; superpixels * superpixels],
            outputs: vec![0.0; heads],
            squares: vec![0.0; heads],
            products: vec![vec![0.0; superpixels]; heads],
            whole: Vec::new(),
        }
    }

    fn add(&mut self, mask: &[bool], weight: f64, outputs: &[f64]) {
        let k = mask.len();
        if self.whole.is_empty() {
            self.whole = outputs.to_vec();
        }
        self.weight += weight;
        let kept: Vec<usize> = (0..k).filter(|&i| mask[i]).collect();
        for &i in &kept {
            self.kept[i] += weight;
            kept.iter().for_each(|&j| self.both[i * k + j] += weight);
        }
        for (head, &y) in outputs.iter().enumerate() {
            self.outputs[head] += weight * y;
            self.squares[head] += weight * y * y;
            kept.iter().for_each(|&i| self.products[head][i] += weight * y);
        }
    }
}

#[cfg(test)]
mod tests;
