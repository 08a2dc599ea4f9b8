//! Between planes and packed pixels.

/// Pixels that are packed together: eight words of four bytes from each plane.
const RUN: usize = 32;

/// Planes to HWC.
///
/// Four pixels at a time, as three words made of a word of each plane: shifts and masks on words are what vectors are good
/// at, bytes three apart are not.
#[inline(always)]
pub(super) fn interleave([red, green, blue]: [&[u8]; 3], out: &mut [u8]) {
    let (reds, last_reds) = red.as_chunks::<RUN>();
    let (greens, last_greens) = green.as_chunks::<RUN>();
    let (blues, last_blues) = blue.as_chunks::<RUN>();
    let (runs, last) = out.split_at_mut(3 * RUN * reds.len());
    for (((run, red), green), blue) in runs.chunks_exact_mut(3 * RUN).zip(reds).zip(greens).zip(blues) {
        let mut packed = [[0u32; 3]; RUN / 4];
        let fours = red.as_chunks::<4>().0.iter().zip(green.as_chunks::<4>().0).zip(blue.as_chunks::<4>().0);
        for (packed, ((red, green), blue)) in packed.iter_mut().zip(fours) {
            let [r, g, b] = [red, green, blue].map(|four| u32::from_le_bytes(*four));
            *packed = [
                r & 0xff | (g & 0xff) << 8 | (b & 0xff) << 16 | r << 16 & 0xff00_0000,
                g >> 8 & 0xff | b & 0xff00 | r & 0xff_0000 | g << 8 & 0xff00_0000,
                b >> 16 & 0xff | r >> 16 & 0xff00 | g >> 8 & 0xff_0000 | b & 0xff00_0000,
            ]
            .map(u32::to_le);
        }
        run.copy_from_slice(bytemuck::bytes_of(&packed));
    }
    for (((pixel, red), green), blue) in last.chunks_exact_mut(3).zip(last_reds).zip(last_greens).zip(last_blues) {
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
