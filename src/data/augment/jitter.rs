//! Colour jitter: brightness, contrast and saturation, bit for bit Pillow's `ImageEnhance`; the hue is in `hue.rs`.
//!
//! All three are `Image.blend(degenerate, image, factor)`: `d + factor (p - d)` in f32, cut to [0, 255], truncated, with
//! `d` black, the mean grey level, or the pixel's own grey level.

use super::grayscale::luma;
use super::hue;

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

    /// Applies the adjustment to a view's planes, all of one length.
    pub(super) fn apply(self, planes: [&mut [u8]; 3]) {
        match self {
            Adjust::Brightness(factor) => planes.into_iter().for_each(|plane| blend_with(0, factor as f32, plane)),
            Adjust::Contrast(factor) => {
                let mean = mean_luma([&*planes[0], &*planes[1], &*planes[2]]);
                planes.into_iter().for_each(|plane| blend_with(mean, factor as f32, plane));
            }
            Adjust::Saturation(factor) => saturation(planes, factor as f32),
            Adjust::Hue(factor) => hue::rotate(planes, hue::steps(factor)),
        }
    }
}

/// Adding this to an f32 in [0, 2^22) rounds it to an integer and leaves that integer in the low bits.
pub(super) const ROUNDER: f32 = 8_388_608.0;

/// `d + factor (p - d)`, cut to [0, 255] and truncated.
///
/// Truncation by rounding and stepping back: a plain cast costs more, as it must be defined for values that cannot occur.
#[inline(always)]
fn blend(degenerate: f32, pixel: f32, factor: f32) -> u8 {
    let value = degenerate + factor * (pixel - degenerate);
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    let rounded = value + ROUNDER;
    (rounded.to_bits() - u32::from(rounded - ROUNDER > value)) as u8
}

/// Blends a plane with a constant.
fn blend_with(degenerate: u8, factor: f32, plane: &mut [u8]) {
    let degenerate = f32::from(degenerate);
    for value in plane {
        *value = blend(degenerate, f32::from(*value), factor);
    }
}

/// Blends each pixel with its own grey level.
fn saturation([red, green, blue]: [&mut [u8]; 3], factor: f32) {
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        let level = f32::from(luma(*red, *green, *blue));
        *red = blend(level, f32::from(*red), factor);
        *green = blend(level, f32::from(*green), factor);
        *blue = blend(level, f32::from(*blue), factor);
    }
}

/// The mean grey level, rounded half up.
fn mean_luma([red, green, blue]: [&[u8]; 3]) -> u8 {
    // Sums of 32 bits keep more pixels in a vector than sums of 64; a chunk's cannot overflow.
    const CHUNK: usize = 1 << 16;
    let sum_chunk = |((red, green), blue): ((&[u8], &[u8]), &[u8])| {
        let pixels = red.iter().zip(green).zip(blue);
        u64::from(pixels.map(|((&r, &g), &b)| u32::from(luma(r, g, b))).sum::<u32>())
    };
    let sum: u64 = red.chunks(CHUNK).zip(green.chunks(CHUNK)).zip(blue.chunks(CHUNK)).map(sum_chunk).sum();
    (sum as f64 / red.len() as f64 + 0.5) as u8
}
