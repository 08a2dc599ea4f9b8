//! Rendering a view from its parameters.

use super::blur::Blurrer;
use super::grayscale::grayscale;
use super::resize::Resizer;
use super::{Adjust, Blur, CropBox, Flip};
use crate::data::ImageRef;
use crate::{Error, Result};

/// Width and height in pixels, both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Size {
    /// `side` x `side`.
    pub fn square(side: usize) -> Self {
        Size { width: side, height: side }
    }

    /// Pixels.
    pub fn area(self) -> usize {
        self.width * self.height
    }
}

/// Everything that was decided about one view.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ViewParams {
    /// The part of the picture that is shown.
    pub crop: CropBox,
    /// Mirroring, after the resize.
    pub flip: Flip,
    /// Colour adjustments in the order they are applied; all `None` without jitter.
    pub jitter: [Option<Adjust>; 4],
    /// Grey levels in place of colours, after the jitter.
    pub grayscale: bool,
    /// Gaussian blur, the last operation.
    pub blur: Option<Blur>,
}

impl ViewParams {
    /// The whole picture of `width` x `height`, resized and nothing else: the evaluation transform.
    pub fn plain(width: usize, height: usize) -> Self {
        let crop = CropBox::whole(width, height);
        ViewParams { crop, flip: Flip::NONE, jitter: [None; 4], grayscale: false, blur: None }
    }

    /// `Ok` if every number is in its range for a picture of this size.
    fn check(&self, image: ImageRef) -> Result<()> {
        let (width, height) = (image.width(), image.height());
        if !self.crop.fits(width, height) {
            return Err(Error::shape("augment", format!("{:?} is not within {width} x {height} pixels", self.crop)));
        }
        for adjust in self.jitter.iter().flatten() {
            let limit = if matches!(adjust, Adjust::Hue(_)) { 0.5 } else { f64::MAX };
            if adjust.factor().is_nan() || adjust.factor().abs() > limit {
                return Err(Error::shape("augment", format!("{adjust:?}: its factor is out of range")));
            }
        }
        match self.blur.filter(|blur| !blur.is_valid()) {
            Some(blur) => {
                let allowed = format!("the kernel must be odd and at most {}, sigma positive", Blur::MAX_KERNEL);
                Err(Error::shape("augment", format!("{blur:?}: {allowed}")))
            }
            None => Ok(()),
        }
    }
}

/// Buffers and filter tables of [`render`], for one thread. Kept from call to call, nothing is allocated once the largest
/// sizes have been seen.
#[derive(Default)]
pub struct Scratch {
    resizer: Resizer,
    blurrer: Blurrer,
    planes: Vec<u8>,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Renders the view `params` of `image` to `out`: `size.height` x `size.width` x 3 uint8, HWC.
///
/// Errors with [`Error::Shape`] if `out` has another length, the crop is not within the image, or a factor is out of its
/// range.
pub fn render(image: ImageRef, params: &ViewParams, size: Size, scratch: &mut Scratch, out: &mut [u8]) -> Result<()> {
    let bytes = size.width.checked_mul(size.height).and_then(|n| n.checked_mul(3));
    if bytes != Some(out.len()) || out.is_empty() {
        let problem = format!("{} bytes for a view of {} x {} x 3", out.len(), size.width, size.height);
        return Err(Error::shape("augment", problem));
    }
    params.check(image)?;
    scratch.planes.resize(out.len(), 0);
    scratch.resizer.run(image, params.crop, params.flip, size, &mut scratch.planes);
    for adjust in params.jitter.iter().flatten() {
        adjust.apply(split(&mut scratch.planes, size));
    }
    if params.grayscale {
        grayscale(split(&mut scratch.planes, size));
    }
    if let Some(blur) = params.blur {
        scratch.blurrer.run(blur, split(&mut scratch.planes, size), size.width);
    }
    interleave(split(&mut scratch.planes, size), out);
    Ok(())
}

/// Squashes the whole of `image` to `size`: the evaluation transform. Layout and errors as [`render`].
pub fn resize(image: ImageRef, size: Size, scratch: &mut Scratch, out: &mut [u8]) -> Result<()> {
    render(image, &ViewParams::plain(image.width(), image.height()), size, scratch, out)
}

/// The three planes of a view.
fn split(planes: &mut [u8], size: Size) -> [&mut [u8]; 3] {
    let (red, rest) = planes.split_at_mut(size.area());
    let (green, blue) = rest.split_at_mut(size.area());
    [red, green, blue]
}

/// Planes to HWC. Four pixels at a time, as three words of four bytes: a third of the stores.
fn interleave([red, green, blue]: [&mut [u8]; 3], out: &mut [u8]) {
    let (reds, last_reds) = red.as_chunks::<4>();
    let (greens, last_greens) = green.as_chunks::<4>();
    let (blues, last_blues) = blue.as_chunks::<4>();
    let (pixels, last_pixels) = out.split_at_mut(12 * reds.len());
    for (((pixels, red), green), blue) in pixels.as_chunks_mut::<12>().0.iter_mut().zip(reds).zip(greens).zip(blues) {
        let [r, g, b] = [red, green, blue].map(|four| u32::from_le_bytes(*four));
        let first = r & 0xff | (g & 0xff) << 8 | (b & 0xff) << 16 | (r & 0xff00) << 16;
        let second = (g >> 8) & 0xff | b & 0xff00 | r & 0xff_0000 | (g & 0xff_0000) << 8;
        let third = (b >> 16) & 0xff | (r >> 16) & 0xff00 | (g >> 8) & 0xff_0000 | b & 0xff00_0000;
        pixels[..4].copy_from_slice(&first.to_le_bytes());
        pixels[4..8].copy_from_slice(&second.to_le_bytes());
        pixels[8..].copy_from_slice(&third.to_le_bytes());
    }
    for (((pixel, red), green), blue) in last_pixels.chunks_exact_mut(3).zip(last_reds).zip(last_greens).zip(last_blues)
    {
        pixel.copy_from_slice(&[*red, *green, *blue]);
    }
}
