//! Random views of an image: the settings.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How views are drawn (the `[augment]` table of the configuration).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentConfig {
    /// Share of the image's area that a crop takes: low, high.
    pub crop_scale: [f64; 2],
    /// Width / height of a crop: low, high.
    pub crop_ratio: [f64; 2],
    /// Probability of a horizontal flip.
    pub hflip: f64,
    /// Probability of a vertical flip.
    pub vflip: f64,
    /// Probability of colour jitter.
    pub jitter_probability: f64,
    /// Strength s of colour jitter: brightness, contrast and saturation 0.8 s, hue 0.2 s.
    pub jitter_strength: f64,
    /// Probability of grayscale.
    pub grayscale: f64,
    /// Probability of Gaussian blur.
    pub blur: f64,
    /// Side of the blur's kernel in pixels, odd.
    pub blur_kernel: usize,
    /// Standard deviation of the blur in pixels: low, high.
    pub blur_sigma: [f64; 2],
}

impl Default for AugmentConfig {
    fn default() -> Self {
        AugmentConfig {
            crop_scale: [0.08, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            hflip: 0.5,
            vflip: 0.0,
            jitter_probability: 0.8,
            jitter_strength: 0.5,
            grayscale: 0.2,
            blur: 0.0,
            blur_kernel: 23,
            blur_sigma: [0.1, 2.0],
        }
    }
}

impl AugmentConfig {
    /// Checks ranges; [`Error::Usage`] names the key.
    pub fn validate(&self) -> Result<()> {
        for (key, p) in [("hflip", self.hflip), ("vflip", self.vflip), ("blur", self.blur)] {
            if !(0.0..=1.0).contains(&p) {
                return Err(Error::Usage(format!("augment.{key} = {p}: must lie in [0, 1]")));
            }
        }
        Ok(())
    }
}
