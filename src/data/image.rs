//! A decoded picture, owned or borrowed.

use crate::{Error, Result};

/// An RGB picture: `height` x `width` x 3, uint8, rows top to bottom, channels innermost (HWC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// A borrowed [`Image`]: same layout, same invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRef<'a> {
    width: usize,
    height: usize,
    pixels: &'a [u8],
}

/// `Ok` if `len` bytes are exactly `height * width * 3` and no side is 0.
fn check(width: usize, height: usize, len: usize) -> Result<()> {
    let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
    if width == 0 || height == 0 || expected != Some(len) {
        return Err(Error::shape("image", format!("{len} bytes for {width} x {height} x 3")));
    }
    Ok(())
}

impl Image {
    /// Wraps `pixels` (HWC). Errors if a side is 0 or the length is not `height * width * 3`.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        check(width, height, pixels.len())?;
        Ok(Image { width, height, pixels })
    }

    /// The bytes, HWC.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// The picture, borrowed.
    pub fn as_ref(&self) -> ImageRef<'_> {
        ImageRef { width: self.width, height: self.height, pixels: &self.pixels }
    }
}

impl<'a> ImageRef<'a> {
    /// Wraps `pixels` (HWC). Errors if a side is 0 or the length is not `height * width * 3`.
    pub fn new(width: usize, height: usize, pixels: &'a [u8]) -> Result<Self> {
        check(width, height, pixels.len())?;
        Ok(ImageRef { width, height, pixels })
    }

    /// Columns, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `height * width * 3` bytes, HWC.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }
}
