//! Between planes and packed pixels.

/// Words of four bytes that are made of each plane before any is written.
const RUN: usize = 64;

/// Planes to HWC.
///
/// Four pixels at a time, as three words made of a word of each plane: shifts and masks on words are what vectors are good
/// at, bytes three apart are not. All first words, all second and all third ones, and only then side by side.
#[inline(always)]
pub(super) fn interleave([red, green, blue]: [&[u8]; 3], out: &mut [u8]) {
    let (mut reds, last_reds) = red.as_chunks::<4>();
    let (mut greens, last_greens) = green.as_chunks::<4>();
    let (mut blues, last_blues) = blue.as_chunks::<4>();
    let (pixels, last_pixels) = out.split_at_mut(12 * reds.len());
    for fours in pixels.as_chunks_mut::<12>().0.chunks_mut(RUN) {
        let len = fours.len();
        let [mut firsts, mut seconds, mut thirds] = [[0; RUN]; 3];
        let words = firsts.iter_mut().zip(&mut seconds).zip(&mut thirds).zip(reds).zip(greens).zip(blues);
        for (((((first, second), third), red), green), blue) in words {
            let (r, g, b) = (u32::from_le_bytes(*red), u32::from_le_bytes(*green), u32::from_le_bytes(*blue));
            *first = r & 0xff | (g & 0xff) << 8 | (b & 0xff) << 16 | r << 16 & 0xff00_0000;
            *second = g >> 8 & 0xff | b & 0xff00 | r & 0xff_0000 | g << 8 & 0xff00_0000;
            *third = b >> 16 & 0xff | r >> 16 & 0xff00 | g >> 8 & 0xff_0000 | b & 0xff00_0000;
        }
        for (((four, first), second), third) in fours.iter_mut().zip(&firsts).zip(&seconds).zip(&thirds) {
            four[..4].copy_from_slice(&first.to_le_bytes());
            four[4..8].copy_from_slice(&second.to_le_bytes());
            four[8..].copy_from_slice(&third.to_le_bytes());
        }
        (reds, greens, blues) = (&reds[len..], &greens[len..], &blues[len..]);
    }
    let last = last_pixels.chunks_exact_mut(3).zip(last_reds).zip(last_greens).zip(last_blues);
    for (((pixel, red), green), blue) in last {
        pixel.copy_from_slice(&[*red, *green, *blue]);
    }
}

/// HWC to planes.
#[inline(always)]
pub(super) fn deinterleave(packed: &[u8], [red, green, blue]: [&mut [u8]; 3]) {
    for (((pixel, red), green), blue) in packed.chunks_exact(3).zip(red).zip(green).zip(blue) {
        (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
    }
}
