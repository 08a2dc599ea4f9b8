//! The order of an epoch, as a function: which sample stands at a position. Nothing is shuffled and nothing stored, so a
//! run goes on at any (epoch, step) without its history.
//!
//! A permutation of 0..n is a Feistel network on the smallest even number of bits that holds n, applied again while the
//! result is n or more ("cycle walking", Black and Rogaway 2002); round keys come from the epoch's random stream.

use crate::rng::{Purpose, stream};

/// Rounds of the network; four make a pseudorandom permutation (Luby and Rackoff 1988), six for small domains.
const ROUNDS: usize = 6;

/// A random order of `0..len`.
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The order of `epoch` in the run with this seed.
    pub fn of_epoch(seed: u64, epoch: u64, len: usize) -> Self {
        let mut stream = stream(seed, Purpose::Order, epoch, 0, 0);
        let keys = std::array::from_fn(|_| u64::from(stream.bits()) << 32 | u64::from(stream.bits()));
        let bits = u64::BITS - (len as u64).saturating_sub(1).leading_zeros();
        Permutation { len: len as u64, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// The sample at `position`, which is below `len`.
    pub fn at(&self, position: usize) -> usize {
        debug_assert!((position as u64) < self.len);
        let mut value = position as u64;
        // The network permutes a domain of less than 4 len: a walk takes fewer than 4 steps on average.
        loop {
            value = self.network(value);
            if value < self.len {
                return value as usize;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_once_in_another_order_each_epoch() {
        for len in [1, 2, 3, 4, 5, 17, 64, 1000, 1025] {
            let order = |epoch| {
                let permutation = Permutation::of_epoch(42, epoch, len);
                (0..len).map(|i| permutation.at(i)).collect::<Vec<_>>()
            };
            let mut sorted = order(0);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..len).collect::<Vec<_>>(), "{len}");
            if len >= 17 {
                assert_ne!(order(0), order(1));
            }
        }
    }

    #[test]
    fn positions_are_uniform() {
        // Where sample 0 lands over 7,000 epochs of 7 samples: each place 1,000 times, six standard deviations are 176.
        let mut counts = [0i32; 7];
        for epoch in 0..7000 {
            let permutation = Permutation::of_epoch(1, epoch, 7);
            counts[(0..7).position(|i| permutation.at(i) == 0).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (count - 1000).abs() < 176), "{counts:?}");
    }
}
