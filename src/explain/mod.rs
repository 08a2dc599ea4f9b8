//! Why a feature head answers as it does: which regions of an image it looks at.
//!
//! [`slic`] cuts an image into superpixels; [`lime`] finds how much each of them speaks for a head by covering some of them
//! at random; [`occlusion`] covers one square after the other, which needs no superpixels and checks the former;
//! [`pictures`] draws both; [`explained`] does all of it for an image. They know of a network only what [`Network`] lets
//! through.

pub mod explained;
pub mod lime;
pub mod occlusion;
pub mod pictures;
pub mod slic;

use crate::data::ImageRef;
use crate::{Error, Result};

/// A network as far as explanations see it: images in, outputs of its feature heads out.
pub struct Network<'a> {
    /// Side of its input in pixels, at least 1.
    pub side: usize,
    /// Number of heads, at least 1.
    pub heads: usize,
    /// Images that are shown to it at once, at most; bounds the memory. At least 1.
    pub batch: usize,
    /// Outputs in 0..=1, `[images, heads]` row-major, for uint8 images `[images, side, side, 3]` (at most `batch`).
    #[allow(clippy::type_complexity)]
    pub answer: &'a mut dyn FnMut(&[u8]) -> Result<Vec<f32>>,
}

impl Network<'_> {
    /// Bytes of an image.
    pub fn image_bytes(&self) -> usize {
        self.side * self.side * 3
    }

    /// The outputs for `images` (whole images, at most `batch`). Errors if they are not one finite number a head.
    pub fn answer(&mut self, images: &[u8]) -> Result<Vec<f32>> {
        let count = images.len() / self.image_bytes();
        let outputs = (self.answer)(images)?;
        if outputs.len() != count * self.heads {
            let problem = format!("{} outputs of {} heads for {count} images", outputs.len(), self.heads);
            return Err(Error::shape("explain", problem));
        }
        if outputs.iter().any(|y| !y.is_finite()) {
            return Err(Error::NonFinite("explain: the network's output is not a finite number".into()));
        }
        Ok(outputs)
    }

    /// Errors unless `image` is the network's input and the `heads` are some of its own.
    fn check(&self, image: ImageRef, heads: &[usize]) -> Result<()> {
        if (image.width(), image.height()) != (self.side, self.side) {
            let problem = format!("an image of {} x {} for an input of {}", image.width(), image.height(), self.side);
            return Err(Error::shape("explain", problem));
        }
        match heads.iter().find(|&&head| head >= self.heads) {
            Some(head) => Err(Error::Usage(format!("there is no head {head}: heads are 0 to {}", self.heads - 1))),
            None => Ok(()),
        }
    }
}

/// Mean colour of the pixels for which `of` holds; black if there are none.
fn mean_colour(image: ImageRef, of: impl Fn(usize) -> bool) -> [u8; 3] {
    let (mut sums, mut count) = ([0u64; 3], 0);
    for (_, pixel) in image.pixels().as_chunks::<3>().0.iter().enumerate().filter(|(i, _)| of(*i)) {
        sums.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += u64::from(v));
        count += 1;
    }
    sums.map(|sum| ((sum + count / 2) / count.max(1)) as u8)
}
