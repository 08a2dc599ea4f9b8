//! What views are drawn from: the `[augment]` table of the configuration.

use clap::ValueEnum;

use super::{Adjust, Blur, CropBox, Flip, ViewParams};
use crate::rng::Stream;
use crate::{Error, Result};

/// When a view's colours change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ColourOrder {
    /// After the resize, as torchvision does it: equal to it byte for byte.
    #[default]
    Exact,
    /// Before the resize where the crop has at most a quarter of the view's pixels, so that a quarter of them or less is
    /// worked on; elsewhere as `exact`. The crop, flips, factors and random streams are the same, the picture is not quite:
    /// every adjustment rounds and cuts at 0 and 255, and the contrast's mean is the crop's.
    ///
    /// Measured over 4,000 views: CIFAR-10 to 224 pixels at jitter strength 0.5 (1.0), bytes differ from the exact ones by
    /// 0.55 (0.75) of 255 on average, 99% by at most 6 (11), the furthest by 85 (116), at 3.6 times the speed. Photographs
    /// of 256 pixels to 224 at strength 1.0: one crop in seven is small, 0.09 on average, the furthest by 148, and hardly
    /// faster. `benches/augment.rs` prints the same for pictures of its own, which are noisy: that is the unkind case.
    Fast,
}

crate::named::named!(ColourOrder);

/// The distribution of views. The defaults are the paper's for CIFAR.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Share of the picture's area that a crop keeps: low and high, in (0, 1].
    pub crop_scale: [f64; 2],
    /// Aspect (width over height) of a crop: low and high, positive.
    pub crop_ratio: [f64; 2],
    /// Probability that left and right change places.
    pub hflip: f64,
    /// Probability that top and bottom change places (off in the paper; for pictures without an up, such as aerial ones).
    pub vflip: f64,
    /// Probability of colour jitter.
    pub jitter_probability: f64,
    /// Strength s of colour jitter: brightness, contrast and saturation by 0.8 s, hue by 0.2 s; in [0, 2.5], 0 is off.
    pub jitter_strength: f64,
    /// Probability of losing the colour.
    pub grayscale: f64,
    /// Probability of a Gaussian blur.
    pub blur: f64,
    /// Side of the blur's kernel in pixels, odd, at most 255.
    pub blur_kernel: usize,
    /// Standard deviation of the blur in pixels: low and high, positive.
    pub blur_sigma: [f64; 2],
    /// Whether colours may change before the resize, which is quicker and not the same.
    pub order: ColourOrder,
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
            order: ColourOrder::Exact,
        }
    }
}

impl AugmentConfig {
    /// Checks every value against its range. Errors with [`Error::Usage`] that names the key, the value and the range.
    pub fn validate(&self) -> Result<()> {
        range("crop_scale", self.crop_scale, 1.0, "0 < low <= high <= 1")?;
        range("crop_ratio", self.crop_ratio, f64::MAX, "0 < low <= high")?;
        range("blur_sigma", self.blur_sigma, f64::MAX, "0 < low <= high")?;
        number("hflip", self.hflip, 1.0)?;
        number("vflip", self.vflip, 1.0)?;
        number("jitter_probability", self.jitter_probability, 1.0)?;
        number("jitter_strength", self.jitter_strength, 2.5)?;
        number("grayscale", self.grayscale, 1.0)?;
        number("blur", self.blur, 1.0)?;
        if self.blur_kernel.is_multiple_of(2) || self.blur_kernel > Blur::MAX_KERNEL {
            let allowed = format!("must be odd and at most {}", Blur::MAX_KERNEL);
            return Err(Error::Usage(format!("augment.blur_kernel = {}: {allowed}", self.blur_kernel)));
        }
        Ok(())
    }

    /// Draws one view of a picture of `width` x `height` pixels.
    ///
    /// The distributions are those of torchvision's `RandomResizedCrop`, `RandomHorizontalFlip`, `ColorJitter` under
    /// `RandomApply`, `RandomGrayscale` and `GaussianBlur`. Every number is drawn whether or not it is used, in the same
    /// order, so switching one operation off leaves the others of the same stream as they were.
    pub fn sample(&self, stream: &mut Stream, width: usize, height: usize) -> ViewParams {
        let crop = CropBox::sample(stream, width, height, self.crop_scale, self.crop_ratio);
        let flip = Flip { horizontal: stream.chance(self.hflip), vertical: stream.chance(self.vflip) };
        let jitter = self.sample_jitter(stream);
        let grayscale = stream.chance(self.grayscale);
        let blurred = stream.chance(self.blur);
        let sigma = stream.uniform_in(self.blur_sigma[0], self.blur_sigma[1]);
        let blur = blurred.then_some(Blur { kernel: self.blur_kernel, sigma });
        ViewParams { crop, flip, jitter, grayscale, blur, order: self.order }
    }

    fn sample_jitter(&self, stream: &mut Stream) -> [Option<Adjust>; 4] {
        let applied = stream.chance(self.jitter_probability) && self.jitter_strength > 0.0;
        let order = stream.permutation::<4>();
        let reach = 0.8 * self.jitter_strength;
        let mut factor = || stream.uniform_in((1.0 - reach).max(0.0), 1.0 + reach);
        let (brightness, contrast, saturation) = (factor(), factor(), factor());
        let hue = stream.uniform_in(-0.2 * self.jitter_strength, 0.2 * self.jitter_strength);
        let adjustments = [
            Adjust::Brightness(brightness),
            Adjust::Contrast(contrast),
            Adjust::Saturation(saturation),
            Adjust::Hue(hue),
        ];
        order.map(|i| applied.then_some(adjustments[i]))
    }
}

/// `Ok` if `0 <= value <= high`.
fn number(key: &str, value: f64, high: f64) -> Result<()> {
    if (0.0..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("augment.{key} = {value}: must lie in [0, {high}]")))
}

/// `Ok` if `0 < low <= high <= limit`.
fn range(key: &str, [low, high]: [f64; 2], limit: f64, allowed: &str) -> Result<()> {
    if low > 0.0 && low <= high && high <= limit {
        return Ok(());
    }
    Err(Error::Usage(format!("augment.{key} = [{low}, {high}]: must be two numbers with {allowed}")))
}
