//! Counter-based randomness: a stream is named by what it is for, not by what was drawn before it.
//!
//! A stream is ChaCha8 keyed with `(seed, purpose, epoch, sample, view)`. ChaCha is a block function of key and counter,
//! so streams need no state: the crop of sample 17 in epoch 3 is the same on any thread, in any order, after any resume.
//! The conversions to numbers are ours and frozen: a new release of a distribution crate must not change a run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What a stream is for; keeps streams with equal counters apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; `sample` is the parameter's position.
    Init = 1,
    /// Order of the samples in an epoch.
    Order = 2,
    /// Augmentation of one view of one sample.
    Augment = 3,
    /// k-means++ seeding; `epoch` is the restart.
    KMeans = 4,
    /// The procedural `shapes` data set; `sample` is the image.
    Shapes = 5,
    /// Held-out splits of the factor probe.
    Probe = 6,
    /// First directions of an iteration for principal components.
    Components = 20,
    /// First positions of a t-SNE map where the points give none.
    Map = 21,
    /// Images chosen at random to be shown or measured; `epoch` tells choices apart.
    Choice = 22,
    /// Structureless reference data for the number of clusters; `epoch` is the draw, `sample` the point.
    Reference = 23,
    /// Perturbed images of an explanation; `epoch` is the image, `sample` the perturbation.
    Perturb = 24,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

/// The stream of `purpose` at a position. Unused coordinates are 0.
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, sample: u64, view: u32) -> Stream {
    let mut key = [0u8; 32];
    key[0..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&(purpose as u32).to_le_bytes());
    key[12..16].copy_from_slice(&view.to_le_bytes());
    key[16..24].copy_from_slice(&epoch.to_le_bytes());
    key[24..32].copy_from_slice(&sample.to_le_bytes());
    Stream(ChaCha8Rng::from_seed(key))
}

impl Stream {
    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform integer in 0..n, unbiased (Lemire 2019); 0 when n is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        let threshold = if n == 0 { return 0 } else { n.wrapping_neg() % n };
        loop {
            let product = u64::from(self.bits()) * u64::from(n);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box and Muller 1958, cosine branch).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// A uniformly random order of 0..N (Fisher and Yates).
    pub fn permutation<const N: usize>(&mut self) -> [usize; N] {
        let mut order = std::array::from_fn(|i| i);
        for i in (1..N).rev() {
            order.swap(i, self.below(i as u32 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_not_drawn() {
        let mut a = stream(42, Purpose::Augment, 3, 17, 1);
        let first: Vec<u32> = (0..5).map(|_| a.bits()).collect();
        let mut again = stream(42, Purpose::Augment, 3, 17, 1);
        assert_eq!(first, (0..5).map(|_| again.bits()).collect::<Vec<_>>());
        for other in [
            stream(43, Purpose::Augment, 3, 17, 1),
            stream(42, Purpose::Order, 3, 17, 1),
            stream(42, Purpose::Augment, 4, 17, 1),
            stream(42, Purpose::Augment, 3, 18, 1),
            stream(42, Purpose::Augment, 3, 17, 0),
        ] {
            let mut other = other;
            assert_ne!(first[0], other.bits());
        }
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut s = stream(1, Purpose::Init, 0, 0, 0);
        let n = 200_000;
        let normals: Vec<f64> = (0..n).map(|_| s.normal()).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let var = normals.iter().map(|x| x * x).sum::<f64>() / n as f64;
        // Six standard errors: 6/sqrt(n) for the mean, 6*sqrt(2/n) for the variance.
        assert!(mean.abs() < 6.0 / (n as f64).sqrt() && (var - 1.0).abs() < 6.0 * (2.0 / n as f64).sqrt());
        let mut counts = [0usize; 7];
        (0..n).for_each(|_| counts[s.below(7) as usize] += 1);
        let expected = n as f64 / 7.0;
        assert!(counts.iter().all(|&c| (c as f64 - expected).abs() < 6.0 * expected.sqrt()));
        assert_eq!(s.below(0), 0);
        let mut order = s.permutation::<4>();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
    }
}
