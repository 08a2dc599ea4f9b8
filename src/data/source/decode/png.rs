//! PNG through the `png` crate itself, so that pixels of 8-bit RGB go straight to where they are wanted.

use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::{MAX_PIXELS, Stored, check_size, one_line};

/// Deflate cannot shrink more than this (258 bytes in 2 bits), and a byte of a row holds at most 8 pixels.
const DENSEST: u64 = 1032 * 8;

/// As [`super::decode_into`], not yet turned.
pub fn decode_into(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<Stored, String> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_PIXELS as usize });
    decoder.set_transformations(Transformations::EXPAND);
    // They can be large when inflated, and say nothing about the pixels.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let info = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = (info.width, info.height);
    let count = check_size(width, height, bytes.len(), DENSEST)?;
    if info.raw_bytes() as u64 > 1032 * (bytes.len() as u64 + 64) {
        return Err(format!("{width} x {height} pixels cannot be in a file of {} bytes", bytes.len()));
    }
    let mut reader = decoder.read_info().map_err(damaged)?;
    let orientation = reader.info().exif_metadata.as_deref().and_then(Orientation::from_exif_chunk);
    // The decoder panics on others.
    if let Some(palette) = reader.info().palette.as_ref().filter(|p| p.len() % 3 != 0 || !(3..=768).contains(&p.len()))
    {
        return Err(format!("damaged PNG: a palette of {} bytes", palette.len()));
    }
    let (colour, depth) = reader.output_color_type();
    if (colour, depth) == (ColorType::Rgb, BitDepth::Eight) {
        pixels.resize(count * 3, 0);
        reader.next_frame(pixels).map_err(damaged)?;
    } else {
        let mut samples = vec![0; reader.output_buffer_size().ok_or("damaged PNG: too large")?];
        reader.next_frame(&mut samples).map_err(damaged)?;
        if depth == BitDepth::Sixteen {
            let narrow = |pair: &[u8]| ((u32::from(pair[0]) * 256 + u32::from(pair[1]) + 128) / 257) as u8;
            samples = samples.chunks_exact(2).map(narrow).collect();
        }
        pixels.reserve_exact(count * 3);
        match colour {
            ColorType::Grayscale => samples.iter().for_each(|&v| pixels.extend([v; 3])),
            ColorType::GrayscaleAlpha => samples.chunks_exact(2).for_each(|p| pixels.extend([p[0]; 3])),
            ColorType::Rgb => pixels.extend_from_slice(&samples),
            ColorType::Rgba => samples.chunks_exact(4).for_each(|p| pixels.extend_from_slice(&p[..3])),
            ColorType::Indexed => return Err("damaged PNG: a palette that is not expanded".into()),
        }
    }
    Ok(Stored { width, height, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
}

fn damaged(error: DecodingError) -> String {
    format!("damaged PNG: {}", one_line(&error.to_string()))
}
