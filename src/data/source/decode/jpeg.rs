//! JPEG through `zune-jpeg` (what the `image` crate itself uses) in its strict mode: the `image` crate decodes a
//! truncated file without complaint and fills the rest with grey, which would train on grey.

use std::borrow::Cow;

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use super::header::{JpegHeader, jpeg_header};
use super::{Stored, check_size, one_line};

/// Pixels that a byte can hold: of each block of 8 x 8, some channel at full resolution has a DC code of a bit or more.
const DENSEST: u64 = 8 * 64;

/// As [`super::decode_into`], not yet turned.
pub fn decode_into(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<Stored, String> {
    let header = jpeg_header(bytes);
    header.map_or(Ok(()), refuse_unread)?;
    // Adobe marks RGB as transform 0, which the decoder takes for CMYK whatever the number of channels: it is told YCbCr,
    // and to give that unchanged.
    let plain_rgb = header
        .and_then(|h| h.adobe_transform_at)
        .filter(|&at| header.is_some_and(|h| h.channels == 3) && bytes.get(at) == Some(&0));
    let (bytes, colours) = match plain_rgb {
        Some(at) => {
            let mut marked = bytes.to_vec();
            marked[at] = 1;
            (Cow::Owned(marked), header.filter(|h| h.ids_are_rgb).map_or(ColorSpace::YCbCr, |_| ColorSpace::RGB))
        }
        None => (Cow::Borrowed(bytes), ColorSpace::RGB),
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(colours);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or("damaged JPEG: no frame header")?;
    let (width, height) = (width as u32, height as u32); // 16 bits in the file
    let count = check_size(width, height, bytes.len(), DENSEST)?;
    if !ends(&bytes) {
        return Err("JPEG cut short: no end-of-image marker".into());
    }
    // Zeros, not what the buffer held before: the result must not depend on it, whatever the decoder leaves unwritten.
    pixels.resize(count * 3, 0);
    decoder.decode_into(pixels).map_err(damaged)?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    Ok(Stored { width, height, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
}

/// Kinds of JPEG that no decoder for pictures of 8 bits reads.
fn refuse_unread(header: JpegHeader) -> Result<(), String> {
    let kind = match header.process {
        0xc3 => "lossless",
        0xc5..=0xc7 => "hierarchical",
        0xc9..=0xcf => "arithmetic-coded",
        _ if header.bits != 8 => return Err(format!("a JPEG of {} bits a channel: only 8 are read", header.bits)),
        _ => return Ok(()),
    };
    Err(format!("{kind} JPEG is not read: convert it to baseline or progressive JPEG, or to PNG"))
}

/// Whether an end-of-image marker follows the start of the first scan. (The decoder does not miss it when only the last
/// rows are cut off; earlier ones, as of thumbnails inside EXIF, do not count.)
fn ends(jpeg: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = jpeg.get(at..at + 4) {
        match marker {
            // From the end, where it nearly always is.
            0xda => return jpeg[at..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]),
            0xff => at += 1, // fill byte
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    true // Headers laid out in a way the decoder knows better than this walk: its judgement stands.
}

fn damaged(error: DecodeErrors) -> String {
    format!("damaged JPEG: {}", one_line(&error.to_string()))
}
