//! The grey level, bit for bit Pillow's conversion to `L`.

/// `(19595 R + 38470 G + 7471 B + 2^15) / 2^16`: ITU-R 601-2 luma, the weights sum to 2^16.
#[inline(always)]
pub(super) fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 0x8000) >> 16) as u8
}

/// Replaces the three planes by their grey level (torchvision's `rgb_to_grayscale(image, 3)`).
pub(super) fn grayscale([red, green, blue]: [&mut [u8]; 3]) {
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        let level = luma(*red, *green, *blue);
        (*red, *green, *blue) = (level, level, level);
    }
}
