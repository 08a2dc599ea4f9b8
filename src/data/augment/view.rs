//! Rendering a view from its parameters.

use super::blur::Blurrer;
use super::interleave::{deinterleave, interleave};
use super::resize::{Resizer, Source};
use super::simd::{Floor, Task};
use super::{Adjust, Blur, ColourOrder, CropBox, Flip, InstructionSet, colour};
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
    /// Whether colours may change before the resize.
    pub order: ColourOrder,
}

impl ViewParams {
    /// The whole picture of `width` x `height`, resized and nothing else: the evaluation transform.
    pub fn plain(width: usize, height: usize) -> Self {
        let crop = CropBox::whole(width, height);
        let (flip, order) = (Flip::NONE, ColourOrder::Exact);
        ViewParams { crop, flip, jitter: [None; 4], grayscale: false, blur: None, order }
    }

    /// True if the colours of a view of `size` change before the resize: see [`ColourOrder::Fast`].
    fn colours_first(&self, size: Size) -> bool {
        let few = self.crop.height * self.crop.width <= size.area() / 4;
        let coloured = self.grayscale || self.jitter.iter().flatten().next().is_some();
        self.order == ColourOrder::Fast && few && coloured
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

/// Buffers and filter tables of [`render`], for one thread, and the instruction set it runs on. Kept from call to call,
/// nothing is allocated once the largest sizes have been seen.
pub struct Scratch {
    set: InstructionSet,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    resizer: Resizer,
    blurrer: Blurrer,
    /// The view, channel by channel.
    planes: Vec<u8>,
    /// The crop with its colours changed, HWC: only for [`ColourOrder::Fast`].
    coloured: Vec<u8>,
}

impl Scratch {
    /// Empty buffers; the widest instruction set that this processor has.
    pub fn new() -> Self {
        Self::with(InstructionSet::best())
    }

    /// Empty buffers for a chosen instruction set. All give the same bytes.
    pub fn with(set: InstructionSet) -> Self {
        Scratch { set, buffers: Buffers::default() }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
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
    scratch.set.run(Render { image, params, size, buffers: &mut scratch.buffers, out });
    Ok(())
}

/// Squashes the whole of `image` to `size`: the evaluation transform. Layout and errors as [`render`].
pub fn resize(image: ImageRef, size: Size, scratch: &mut Scratch, out: &mut [u8]) -> Result<()> {
    render(image, &ViewParams::plain(image.width(), image.height()), size, scratch, out)
}

/// One call of [`render`], everything checked.
struct Render<'a> {
    image: ImageRef<'a>,
    params: &'a ViewParams,
    size: Size,
    buffers: &'a mut Buffers,
    out: &'a mut [u8],
}

impl Task for Render<'_> {
    #[inline(always)]
    fn run(self, floor: impl Floor) {
        let Render { image, params, size, buffers, out } = self;
        let Buffers { resizer, blurrer, planes, coloured } = buffers;
        let mut source = Source { pixels: image.pixels(), width: image.width(), crop: params.crop };
        let (mut jitter, mut grayscale) = (&params.jitter, params.grayscale);
        if params.colours_first(size) {
            let small = Size { width: params.crop.width, height: params.crop.height };
            planes.resize(3 * small.area(), 0);
            coloured.resize(3 * small.area(), 0);
            for row in 0..small.height {
                let targets = split(planes, small).map(|plane| &mut plane[row * small.width..][..small.width]);
                deinterleave(source.row(row), targets);
            }
            colour::apply(jitter, grayscale, split(planes, small), Some(coloured), floor);
            let crop = CropBox::whole(small.width, small.height);
            source = Source { pixels: coloured, width: small.width, crop };
            (jitter, grayscale) = (&[None; 4], false);
        }
        planes.resize(3 * size.area(), 0);
        resizer.run(source, params.flip, size, planes);
        let packed = params.blur.is_none().then_some(&mut *out);
        colour::apply(jitter, grayscale, split(planes, size), packed, floor);
        if let Some(blur) = params.blur {
            blurrer.run(blur, split(planes, size), size.width);
            interleave(split(planes, size).map(|plane| &*plane), out);
        }
    }
}

/// The three planes of a view.
#[inline(always)]
fn split(planes: &mut [u8], size: Size) -> [&mut [u8]; 3] {
    let (red, rest) = planes.split_at_mut(size.area());
    let (green, blue) = rest.split_at_mut(size.area());
    [red, green, blue]
}
