//! JPEG, PNG and WebP to RGB, without trust in the file.
//!
//! What a person would expect of a picture happens to it, and what Pillow's `ImageOps.exif_transpose(image)
//! .convert("RGB")` gives comes out, save for rounding in JPEG and lossy WebP (a few units of 255):
//!
//! | the picture | what becomes of it |
//! |---|---|
//! | JPEG: baseline or progressive, any subsampling, restart markers; YCbCr or RGB | decoded |
//! | JPEG in CMYK or YCCK (ink inverted, as Adobe and all others write it) | each colour is its ink times black |
//! | 12-bit, lossless or arithmetic JPEG | refused by name |
//! | PNG of 16 bits a channel, WebP of any kind | scaled to 8 bits, rounded; WebP has 8 |
//! | PNG of 1, 2 or 4 bits, palettes, interlaced | expanded |
//! | grey, of any format | three equal channels |
//! | alpha, a transparent colour (tRNS) | dropped: the colour under it shows |
//! | animated PNG or WebP | its first frame (of a PNG its still picture, which need not be one of the frames) |
//! | EXIF orientation 2 to 8, in any format | applied |
//! | ICC profiles, gamma | not applied |
//! | over [`MAX_PIXELS`], or more than so short a file can hold | refused before anything is allocated for it |
//! | cut short, damaged, neither of the three | refused; damage that the format cannot show goes unseen |

mod header;
mod jpeg;
mod png;
mod webp;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

pub use header::{Colour, HEAD_BYTES, PictureKind, picture_kind};

use crate::data::Image;

/// Pixels above which a file is refused before anything is allocated for it.
pub const MAX_PIXELS: u64 = 100_000_000;

/// What the first bytes say a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageFormat {
    /// SOI marker and the start of the next one.
    Jpeg,
    /// The 8-byte signature.
    Png,
    /// A RIFF file of type WEBP.
    WebP,
}

impl ImageFormat {
    /// From the first 12 bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<ImageFormat> {
        if bytes.starts_with(b"\xff\xd8\xff") {
            Some(ImageFormat::Jpeg)
        } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(ImageFormat::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(ImageFormat::WebP)
        } else {
            None
        }
    }
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            ImageFormat::Jpeg => "JPEG",
            ImageFormat::Png => "PNG",
            ImageFormat::WebP => "WebP",
        })
    }
}

/// Decodes a JPEG, PNG or WebP to RGB8; the content decides which, and the [module](self) what becomes of odd ones.
///
/// # Errors
/// The reason, for people, if the bytes are no such image, are damaged or cut short, or hold over [`MAX_PIXELS`] pixels.
pub fn decode(bytes: &[u8]) -> Result<Image, String> {
    let mut pixels = Vec::new();
    let (width, height) = decode_into(bytes, &mut pixels)?;
    Image::new(width, height, pixels).map_err(|e| e.to_string())
}

/// [`decode()`] into `pixels`, which takes the picture's length (height x width x 3, HWC) and is not allocated anew when it
/// holds that much; gives width and height. Errors as there, and then `pixels` holds nothing of use.
pub fn decode_into(bytes: &[u8], pixels: &mut Vec<u8>) -> Result<(usize, usize), String> {
    let format = ImageFormat::of(bytes).ok_or_else(|| match bytes.len() {
        0 => "the file is empty".to_string(),
        _ => "not JPEG, PNG or WebP content".to_string(),
    })?;
    pixels.clear();
    // A panic in a decoder is a decoder's bug, but one file among millions must not end a run.
    let decoded = catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => jpeg::decode_into(bytes, pixels),
        ImageFormat::Png => png::decode_into(bytes, pixels),
        ImageFormat::WebP => webp::decode_into(bytes, pixels),
    }));
    let stored = decoded.unwrap_or_else(|_| Err("the decoder panicked on this file".into()))?;
    Ok(upright(stored, pixels))
}

/// What a decoder has put into the buffer: a picture as stored, before its EXIF orientation is applied.
struct Stored {
    width: u32,
    height: u32,
    orientation: Orientation,
}

/// Applies the orientation; gives the final width and height.
fn upright(stored: Stored, pixels: &mut [u8]) -> (usize, usize) {
    let size = (stored.width as usize, stored.height as usize);
    if stored.orientation == Orientation::NoTransforms {
        return size;
    }
    // The one case with a second copy; cameras write it, data sets seldom hold it.
    let Some(picture) = RgbImage::from_raw(stored.width, stored.height, pixels.to_vec()) else { return size };
    let mut picture = DynamicImage::ImageRgb8(picture);
    picture.apply_orientation(stored.orientation);
    let picture = picture.into_rgb8();
    pixels.copy_from_slice(picture.as_raw());
    (picture.width() as usize, picture.height() as usize)
}

/// The pixels that `width` x `height` are, if there are any, and not too many for us or (`densest`: the most pixels that a
/// byte of the format can hold) for a file of `len` bytes.
fn check_size(width: u32, height: u32, len: usize, densest: u64) -> Result<usize, String> {
    match u64::from(width) * u64::from(height) {
        0 => Err(format!("a size of {width} x {height} pixels")),
        pixels if pixels > MAX_PIXELS => {
            Err(format!("{width} x {height} pixels, over the limit of {} million", MAX_PIXELS / 1_000_000))
        }
        pixels if pixels > densest.saturating_mul(len as u64) => {
            Err(format!("{width} x {height} pixels cannot be in a file of {len} bytes"))
        }
        pixels => Ok(pixels as usize),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
