//! JPEG and PNG to RGB, without trust in the file.
//!
//! JPEG goes through `zune-jpeg` (what the `image` crate itself uses) in its strict mode: the `image` crate decodes a
//! truncated file without complaint and fills the rest with grey, which would train on grey.

use std::error::Error;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, Limits, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::data::Image;

/// Pixels above which a file is refused before anything is allocated for it.
pub const MAX_PIXELS: u64 = 100_000_000;

/// What the first bytes say a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// SOI marker and the start of the next one.
    Jpeg,
    /// The 8-byte signature.
    Png,
}

impl ImageFormat {
    /// From the first 8 bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<ImageFormat> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(ImageFormat::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(ImageFormat::Png)
        } else {
            None
        }
    }
}

/// Decodes a JPEG (baseline or progressive; grey, YCbCr, RGB, CMYK or YCCK) or PNG (any kind) to RGB8; the content
/// decides which. The EXIF orientation is applied. Grey becomes three equal channels, palettes are looked up, 16 bits are
/// scaled to 8 (rounded), an alpha channel is dropped as Pillow's `convert("RGB")` drops it (the colour under it shows).
///
/// # Errors
/// The reason, for people, if the bytes are no such image, are damaged or cut short, or hold over [`MAX_PIXELS`] pixels.
pub fn decode(bytes: &[u8]) -> Result<Image, String> {
    let format = ImageFormat::of(bytes).ok_or_else(|| match bytes.len() {
        0 => "the file is empty".to_string(),
        _ => "neither JPEG nor PNG content".to_string(),
    })?;
    // A panic in a decoder is a decoder's bug, but one file among millions must not end a run.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => decode_jpeg(bytes),
        ImageFormat::Png => decode_png(bytes),
    }));
    let (pixels, orientation) = decoded.unwrap_or_else(|_| Err("the decoder panicked on this file".into()))?;
    let mut picture = DynamicImage::ImageRgb8(pixels);
    picture.apply_orientation(orientation);
    let pixels = picture.into_rgb8();
    let (width, height) = pixels.dimensions();
    Image::new(width as usize, height as usize, pixels.into_raw()).map_err(|e| e.to_string())
}

/// [`decode`] into `pixels`, which takes the picture's length (height x width x 3, HWC) and is not allocated anew when it
/// holds that much; gives width and height. Errors as there, and then `pixels` holds nothing of use.
pub fn decode_into(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<(usize, usize), String> {
    let image = decode(bytes)?;
    let picture = image.as_ref();
    pixels.clear();
    pixels.extend_from_slice(picture.pixels());
    Ok((picture.width(), picture.height()))
}

fn check_size(width: u64, height: u64) -> Result<(), String> {
    match width.saturating_mul(height) {
        0 => Err(format!("a size of {width} x {height} pixels")),
        pixels if pixels > MAX_PIXELS => {
            Err(format!("{width} x {height} pixels, over the limit of {} million", MAX_PIXELS / 1_000_000))
        }
        _ => Ok(()),
    }
}

fn decode_jpeg(bytes: &[u8]) -> Result<(RgbImage, Orientation), String> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged_jpeg)?;
    let (width, height) = decoder.dimensions().ok_or("damaged JPEG: no frame header")?;
    check_size(width as u64, height as u64)?;
    if !ends(bytes) {
        return Err("JPEG cut short: no end-of-image marker".into());
    }
    let mut pixels = vec![0; width * height * 3];
    decoder.decode_into(&mut pixels).map_err(damaged_jpeg)?;
    let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let pixels =
        RgbImage::from_raw(width as u32, height as u32, pixels).ok_or("damaged JPEG: pixels of another size")?;
    Ok((pixels, orientation.unwrap_or(Orientation::NoTransforms)))
}

/// Whether an end-of-image marker follows the start of the first scan. (The decoder does not miss it when only the last
/// rows are cut off; earlier ones, as of thumbnails inside EXIF, do not count.)
fn ends(jpeg: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = jpeg.get(at..at + 4) {
        match marker {
            0xda => return jpeg[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            0xff => at += 1, // fill byte
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    true // Headers laid out in a way the decoder knows better than this walk: its judgement stands.
}

fn decode_png(bytes: &[u8]) -> Result<(RgbImage, Orientation), String> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_PIXELS * 8); // 16-bit RGBA
    let mut decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(damaged_png)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = DynamicImage::from_decoder(decoder).map_err(damaged_png)?.into_rgb8();
    Ok((pixels, orientation))
}

fn damaged_jpeg(error: DecodeErrors) -> String {
    format!("damaged JPEG: {}", one_line(&error.to_string()))
}

/// The `image` crate wraps the reason in a sentence about the format, which is said already.
fn damaged_png(error: ImageError) -> String {
    let reason = error.source().map_or_else(|| error.to_string(), |source| source.to_string());
    format!("damaged PNG: {}", one_line(&reason))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
