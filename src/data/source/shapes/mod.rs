//! `shapes`: the built-in data set. Nothing to download, every factor of variation known.
//!
//! Image `i` shows one textured, rotated, anti-aliased shape on a cluttered background; it is a function of `i` and of the
//! image size alone, drawn from `rng::stream(SEED, Purpose::Shapes, 0, i, 0)`. The class is the shape, `i % 10`, so classes
//! are balanced; colour, texture, size, position and background are independent of it, of each other, and uniform.
//! Rotation, exact place, tints and the clutter vary without a label.
//!
//! What a contrastive network learns first is what differs most between images and survives augmentation. So the shape is
//! made the strongest such thing: shapes are always lighter than the background, colours have similar lightness (jitter of
//! strength 1 and grayscale take most of them away), textures and backgrounds are low in contrast. To k-means on raw
//! pixels, on the other hand, colour says most: areas are similar, and rotation and place move the outline about.
//!
//! Only IEEE-exact operations (`+ - * /`, square root, `floor`) are used: the pixels are the same on every platform.

mod outline;
mod paint;
mod scene;

use std::borrow::Cow;

use super::{Factor, Source};
use crate::data::Image;
use crate::{Error, Result};

use scene::{FACTORS, Scene};

/// Images in `shapes` without a number: 400 a class, enough to learn from in the minutes of a first try.
pub const DEFAULT_COUNT: usize = 4_000;

/// Side in pixels. At 48 the thinnest parts (the star's points, the textures) of the smallest shapes still span about two
/// pixels, and crops of 32 pixels are seldom magnified.
pub const DEFAULT_PX: usize = 48;

/// Key of the streams; another key would be another data set.
const SEED: u64 = 0x5ba9e5;

/// The generator as a source.
pub struct Shapes {
    count: usize,
    px: usize,
    classes: Vec<String>,
    factors: Vec<Factor>,
}

impl Shapes {
    /// The first `count` images at `px` x `px` pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] if `count` is 0 or over 100 million, or `px` not in 16..=256.
    pub fn new(count: usize, px: usize) -> Result<Shapes> {
        if !(1..=100_000_000).contains(&count) {
            return Err(Error::Usage(format!("shapes: {count} images; ask for 1 to 100,000,000")));
        }
        if !(16..=256).contains(&px) {
            return Err(Error::Usage(format!("shapes: images of {px} pixels; ask for 16 to 256")));
        }
        let strings = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let mut factors: Vec<Factor> = FACTORS
            .iter()
            .map(|(name, values)| Factor {
                name: name.to_string(),
                values: strings(values),
                labels: Vec::with_capacity(count),
            })
            .collect();
        for i in 0..count {
            for (factor, value) in factors.iter_mut().zip(Scene::draw(i as u64).factors()) {
                factor.labels.push(value);
            }
        }
        Ok(Shapes { count, px, classes: strings(&outline::NAMES), factors })
    }
}

impl Source for Shapes {
    fn len(&self) -> usize {
        self.count
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        Cow::Owned(format!("shapes#{i}"))
    }

    fn label(&self, i: usize) -> Option<u32> {
        Some((i % outline::NAMES.len()) as u32)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn factors(&self) -> &[Factor] {
        &self.factors
    }

    fn read(&self, i: usize) -> Result<Image> {
        paint::paint(&Scene::draw(i as u64), self.px)
    }

    fn files(&self) -> Vec<std::path::PathBuf> {
        Vec::new()
    }

    fn kind(&self) -> &'static str {
        "procedural shapes"
    }
}
