//! Learning rate by epoch.

use std::f64::consts::PI;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the learning rate changes; it is set once per epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Schedule {
    /// From the base rate to 0 along half a cosine, without restarts (Loshchilov and Hutter 2017): the paper's.
    Cosine,
    /// Always the base rate.
    Constant,
}

crate::named::named!(Schedule);

impl Schedule {
    /// The rate in force during `epoch` (from 0) of `epochs`: `base (1 + cos(pi epoch / epochs)) / 2` for the cosine, the
    /// closed form of PyTorch's `CosineAnnealingLR` with `T_max = epochs`, `eta_min = 0`.
    pub fn learning_rate(self, base: f64, epoch: u64, epochs: u64) -> f64 {
        match self {
            Schedule::Cosine => base * (1.0 + (PI * epoch as f64 / epochs.max(1) as f64).cos()) / 2.0,
            Schedule::Constant => base,
        }
    }
}
