//! The range of every value. A message names the key, its value and what is allowed.

use super::Config;
use crate::{Error, Result};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Largest seed: TOML's integers are signed.
const LARGEST_SEED: u64 = i64::MAX as u64;
/// Smallest positive value for numbers that must not be 0.
const POSITIVE: f64 = f64::MIN_POSITIVE;
/// Largest number below 1.
const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

/// `Ok` if `value` lies in `range`; `allowed` words it. NaN lies in no range.
fn within<T: PartialOrd + Display>(key: &str, value: T, range: RangeInclusive<T>, allowed: &str) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("{key} = {value}: must be {allowed}")))
}

impl Config {
    /// Checks every value's range, the `[augment]` table's by its own rules. [`Error::Usage`] names the first bad key.
    pub fn validate(&self) -> Result<()> {
        if self.data.is_empty() || self.data.iter().any(String::is_empty) {
            let hint = "give --data PATH (a folder of images, a .tar, CIFAR) or --data shapes";
            return Err(Error::Usage(format!("no data to work on: {hint}")));
        }
        self.validate_model()?;
        self.validate_optimisation()?;
        within("max_bad", self.max_bad, 0.0..=1.0, "0 to 1")?;
        within("threads", self.threads, 0..=4096, "0 (all cores) to 4096")?;
        within("log_every", self.log_every, 1..=usize::MAX, "1 or more")?;
        self.augment.validate()?;
        let clusters = self.eval.clusters.unwrap_or(2);
        within("eval.clusters", clusters, 2..=65536, "2 to 65536, or 0 for the number of classes")?;
        within("eval.restarts", self.eval.restarts, 1..=1000, "1 to 1000")?;
        within("eval.seed", self.eval.seed, 0..=LARGEST_SEED, "0 to 2^63 - 1")
    }

    fn validate_model(&self) -> Result<()> {
        within("image_size", self.image_size, 8..=2048, "8 to 2048 pixels")?;
        within("base_width", self.base_width, 1..=1024, "1 to 1024")?;
        let allowed = "2 to 65536, or 0 for the batch size";
        within("projection_dim", self.projection_dim.unwrap_or(2), 2..=65536, allowed)?;
        within("feature_num", self.feature_num.unwrap_or(2), 2..=65536, allowed)?;
        within("alpha", self.alpha, 0.0..=1000.0, "0 to 1000")?;
        within("temperature_instance", self.temperature_instance, 0.001..=1000.0, "0.001 to 1000")?;
        within("temperature_feature", self.temperature_feature, 0.001..=1000.0, "0.001 to 1000")
    }

    fn validate_optimisation(&self) -> Result<()> {
        within("batch_size", self.batch_size, 2..=65536, "2 to 65536 (a contrast needs two images)")?;
        within("epochs", self.epochs, 1..=1_000_000, "1 to 1000000")?;
        within("learning_rate", self.learning_rate, POSITIVE..=10.0, "above 0, to 10")?;
        within("beta1", self.beta1, 0.0..=BELOW_ONE, "0 to below 1")?;
        within("beta2", self.beta2, 0.0..=BELOW_ONE, "0 to below 1")?;
        // Smaller ones are 0 in single precision, and a parameter without a gradient would become 0 / 0.
        within("adam_eps", self.adam_eps, f64::from(f32::MIN_POSITIVE)..=1.0, "1.2e-38 to 1")?;
        within("weight_decay", self.weight_decay, 0.0..=1.0, "0 to 1")?;
        within("clip_norm", self.clip_norm, 0.0..=1e6, "0 (no clipping) to 1000000")?;
        within("seed", self.seed, 0..=LARGEST_SEED, "0 to 2^63 - 1")
    }
}
