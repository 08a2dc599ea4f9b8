//! Colour jitter: brightness, contrast and saturation, bit for bit Pillow's `ImageEnhance`; the hue is in `hue.rs`.
//!
//! All three are `Image.blend(degenerate, image, factor)`: `d + factor (p - d)` in f32, cut to [0, 255], truncated, with
//! `d` black, the mean grey level, or the pixel's own grey level.

use super::simd::Floor;

/// One colour adjustment with its factor.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Adjust {
    /// Blend with black; 1 changes nothing, 0 is black.
    Brightness(f64),
    /// Blend with the picture's mean grey level; 1 changes nothing, 0 is a grey square.
    Contrast(f64),
    /// Blend with the picture's grey levels; 1 changes nothing, 0 is a grey picture.
    Saturation(f64),
    /// Turn of the colour circle in [-0.5, 0.5]. Not an identity at 0: the trip through 8-bit HSV rounds.
    Hue(f64),
}

impl Adjust {
    /// The factor, whatever it scales.
    pub fn factor(self) -> f64 {
        match self {
            Adjust::Brightness(f) | Adjust::Contrast(f) | Adjust::Saturation(f) | Adjust::Hue(f) => f,
        }
    }
}

/// `degenerate + factor (pixel - degenerate)`, cut to [0, 255] and truncated.
#[inline(always)]
pub(super) fn blend(degenerate: f32, pixel: f32, factor: f32, floor: impl Floor) -> f32 {
    let value = degenerate + factor * (pixel - degenerate);
    let value = if value > 0.0 { value } else { 0.0 };
    floor.floor(if value < 255.0 { value } else { 255.0 })
}
