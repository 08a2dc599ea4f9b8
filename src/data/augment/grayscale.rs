//! The grey level, bit for bit Pillow's conversion to `L`.

use super::simd::Floor;

/// The grey level of a pixel of integers in 0..=255: `(19595 R + 38470 G + 7471 B + 2^15) / 2^16`, ITU-R 601-2 luma.
///
/// The weights sum to 2^16, so the sum stays below 2^24 and every step in f32 is exact.
#[inline(always)]
pub(super) fn luma(red: f32, green: f32, blue: f32, floor: impl Floor) -> f32 {
    const UNIT: f32 = 1.0 / 65536.0;
    floor.floor(red * (19595.0 * UNIT) + green * (38470.0 * UNIT) + blue * (7471.0 * UNIT) + 0.5)
}
