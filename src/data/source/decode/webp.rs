//! WebP through the `image` crate.

use std::error::Error;
use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError};

use super::{Stored, check_size, one_line};

/// Unlike the others, WebP may hold any number of equal pixels in no bits at all. What goes beyond this and
/// [`ALWAYS_FINE`] is a bomb (or a picture of one colour, which is no loss).
const DENSEST: u64 = 4096;
/// Pixels that are never too many.
const ALWAYS_FINE: u64 = 1 << 21;

/// As [`super::decode_into`], not yet turned.
pub fn decode_into(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<Stored, String> {
    if !is_whole(bytes) {
        return Err("WebP cut short, or its lengths lie".into());
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let small = u64::from(width) * u64::from(height) <= ALWAYS_FINE;
    let count = check_size(width, height, bytes.len(), if small { u64::MAX } else { DENSEST })?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    if decoder.color_type() == ColorType::Rgb8 {
        pixels.resize(count * 3, 0);
        decoder.read_image(pixels).map_err(damaged)?;
    } else {
        let mut rgba = vec![0; count * 4];
        decoder.read_image(&mut rgba).map_err(damaged)?;
        pixels.reserve_exact(count * 3);
        rgba.chunks_exact(4).for_each(|p| pixels.extend_from_slice(&p[..3]));
    }
    Ok(Stored { width, height, orientation })
}

/// Whether all chunks lie inside the file. (The decoder takes what is there.)
fn is_whole(bytes: &[u8]) -> bool {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let Some(end) = number(4).and_then(|size| size.checked_add(8)).filter(|&end| end <= bytes.len()) else {
        return false;
    };
    let mut at = 12;
    while at + 8 <= end {
        match number(at + 4).and_then(|size| size.checked_add(at + 8)).filter(|&chunk_end| chunk_end <= end) {
            Some(chunk_end) => at = chunk_end.next_multiple_of(2),
            None => return false,
        }
    }
    true
}

/// The `image` crate wraps the reason in a sentence about the format, which is said already.
fn damaged(error: ImageError) -> String {
    let reason = error.source().map_or_else(|| error.to_string(), |source| source.to_string());
    format!("damaged WebP: {}", one_line(&reason))
}
