//! A source, decoded: every image is read once, the unusable ones are set aside, the others kept packed in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::source::{Excluded, ExclusionKind, Factor, Source, describe};
use super::{Image, ImageRef};
use crate::{Error, Result};

/// Images that are decoded side by side before they are packed, in order.
const CHUNK: usize = 512;

/// How a data set is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetOptions {
    /// Bytes of decoded pixels to keep in memory. Images that do not fit are decoded again whenever they are used.
    pub cache_bytes: usize,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        DatasetOptions { cache_bytes: 6 << 30 }
    }
}

/// Decodable images in a fixed order, with their labels.
pub struct Dataset {
    /// Only as long as some image is not in memory.
    source: Option<Box<dyn Source>>,
    kind: &'static str,
    samples: Vec<Sample>,
    /// Cached pixels, back to back.
    pixels: Vec<u8>,
    classes: Vec<String>,
    factors: Vec<Factor>,
    excluded: Vec<Excluded>,
    fingerprint: u32,
}

struct Sample {
    name: String,
    label: Option<u32>,
    width: usize,
    height: usize,
    place: Place,
}

/// Where the pixels of a sample are.
#[derive(Clone, Copy)]
enum Place {
    /// From this byte of `pixels` on.
    Cached(usize),
    /// At this index of the source.
    Source(usize),
}

/// An image of a [`Dataset`]: borrowed from its cache, or decoded for the occasion.
#[derive(Clone, Debug)]
pub enum DatasetImage<'a> {
    /// In memory.
    Cached(ImageRef<'a>),
    /// Beyond the cache's budget.
    Decoded(Image),
}

impl DatasetImage<'_> {
    /// The picture, borrowed.
    pub fn as_ref(&self) -> ImageRef<'_> {
        match self {
            DatasetImage::Cached(image) => *image,
            DatasetImage::Decoded(image) => image.as_ref(),
        }
    }
}

impl Dataset {
    /// Decodes every image of `source` once, on all threads, and sets the unusable ones aside. The result does not depend
    /// on the number of threads. `progress` is called with (images decoded, images in all), from any thread.
    ///
    /// # Errors
    /// If no image is usable; the message gives the first reasons.
    pub fn load(
        source: Box<dyn Source>,
        options: &DatasetOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Dataset> {
        let total = source.len();
        let done = AtomicUsize::new(0);
        let mut loader = Loader::new(&*source, options.cache_bytes);
        for start in (0..total).step_by(CHUNK) {
            let end = (start + CHUNK).min(total);
            let decoded: Vec<_> = (start..end)
                .into_par_iter()
                .map(|i| {
                    let image = source.read(i).map(|image| (crc32fast::hash(image.as_ref().pixels()), image));
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                    image
                })
                .collect();
            decoded.into_iter().enumerate().for_each(|(offset, image)| loader.add(start + offset, image));
        }
        let Loader { samples, kept, mut pixels, mut excluded, stamp, .. } = loader;
        if samples.is_empty() {
            return Err(nothing_left(&*source, &excluded));
        }
        pixels.shrink_to_fit();
        let listing = source.excluded().to_vec();
        excluded.splice(0..0, listing);
        let all_cached = samples.iter().all(|sample| matches!(sample.place, Place::Cached(_)));
        Ok(Dataset {
            kind: source.kind(),
            classes: source.classes().to_vec(),
            factors: source.factors().iter().map(|factor| select(factor, &kept)).collect(),
            source: (!all_cached).then_some(source),
            samples,
            pixels,
            excluded,
            fingerprint: stamp.finalize(),
        })
    }

    /// Images, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Image `i`; no allocation if it is cached. Panics if out of range.
    ///
    /// # Errors
    /// If it is not cached and can no longer be read as it was.
    pub fn image(&self, i: usize) -> Result<DatasetImage<'_>> {
        let sample = &self.samples[i];
        match (sample.place, &self.source) {
            (Place::Source(index), Some(source)) => {
                let image = source.read(index)?;
                let (width, height) = (image.as_ref().width(), image.as_ref().height());
                if (width, height) != (sample.width, sample.height) {
                    return Err(Error::format(&sample.name, "changed on disk since the data set was loaded"));
                }
                Ok(DatasetImage::Decoded(image))
            }
            (Place::Cached(start), _) | (Place::Source(start), None) => {
                let pixels = &self.pixels[start..start + sample.width * sample.height * 3];
                Ok(DatasetImage::Cached(ImageRef::new(sample.width, sample.height, pixels)?))
            }
        }
    }

    /// Width and height of image `i` in pixels, without decoding it. Panics if out of range.
    pub fn size(&self, i: usize) -> (usize, usize) {
        (self.samples[i].width, self.samples[i].height)
    }

    /// Class of image `i`, an index into [`Dataset::classes`]; `None` if it has none. Panics if out of range.
    pub fn label(&self, i: usize) -> Option<u32> {
        self.samples[i].label
    }

    /// The class of every image; `None` unless all have one.
    pub fn labels(&self) -> Option<Vec<u32>> {
        self.samples.iter().map(|sample| sample.label).collect()
    }

    /// Names of the classes; empty if unlabelled.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Ground truth beside the class, one label per image of this data set.
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// Unique name of image `i`. Panics if out of range.
    pub fn name(&self, i: usize) -> &str {
        &self.samples[i].name
    }

    /// What was found and is not part of the data set: first what the listing left out, then what could not be decoded.
    pub fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    /// CRC-32 over names, labels, sizes and pixels of the images, in order: equal for equal data.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Bytes of pixels in memory.
    pub fn cached_bytes(&self) -> usize {
        self.pixels.len()
    }

    /// One phrase for people: `CIFAR-10 binary, 2,500 images, 10 classes; 3 bad, set aside`.
    pub fn describe(&self) -> String {
        let mut text = describe(self.kind, self.len(), self.classes.len());
        for (kind, what) in [(ExclusionKind::Bad, "bad, set aside"), (ExclusionKind::Ignored, "ignored")] {
            let n = self.excluded.iter().filter(|e| e.kind == kind).count();
            if n > 0 {
                text += &format!("; {n} {what}");
            }
        }
        text
    }
}

/// A data set in the making.
struct Loader<'a> {
    source: &'a dyn Source,
    cache_bytes: usize,
    samples: Vec<Sample>,
    /// Source index of each sample.
    kept: Vec<usize>,
    pixels: Vec<u8>,
    excluded: Vec<Excluded>,
    stamp: crc32fast::Hasher,
}

impl<'a> Loader<'a> {
    fn new(source: &'a dyn Source, cache_bytes: usize) -> Self {
        Loader {
            source,
            cache_bytes,
            samples: Vec::new(),
            kept: Vec::new(),
            pixels: Vec::new(),
            excluded: Vec::new(),
            stamp: crc32fast::Hasher::new(),
        }
    }

    /// Takes in what decoding image `i` gave: the picture with its pixels' CRC, or why there is none.
    fn add(&mut self, i: usize, image: Result<(u32, Image)>) {
        let name = self.source.name(i).into_owned();
        let (crc, image) = match image {
            Ok(image) => image,
            Err(Error::Format { problem, .. }) => return self.excluded.push(Excluded::bad(name, problem)),
            Err(e) => return self.excluded.push(Excluded::bad(name, e.to_string())),
        };
        let picture = image.as_ref();
        let (width, height, bytes) = (picture.width(), picture.height(), picture.pixels());
        let label = self.source.label(i);
        self.stamp.update(name.as_bytes());
        // No class is -1; the fixed-length tail also ends the name.
        for number in [label.map_or(-1, i64::from), width as i64, height as i64, i64::from(crc)] {
            self.stamp.update(&number.to_le_bytes());
        }
        // `try_reserve`: a machine with less memory than the budget decodes again instead of aborting.
        let fits = self.cache_bytes.saturating_sub(self.pixels.len()) >= bytes.len();
        let place = if fits && self.pixels.try_reserve(bytes.len()).is_ok() {
            self.pixels.extend_from_slice(bytes);
            Place::Cached(self.pixels.len() - bytes.len())
        } else {
            Place::Source(i)
        };
        self.samples.push(Sample { name, label, width, height, place });
        self.kept.push(i);
    }
}

fn select(factor: &Factor, kept: &[usize]) -> Factor {
    let labels = kept.iter().map(|&i| factor.labels[i]).collect();
    Factor { name: factor.name.clone(), values: factor.values.clone(), labels }
}

fn nothing_left(source: &dyn Source, excluded: &[Excluded]) -> Error {
    let first: Vec<String> = excluded.iter().take(3).map(|e| format!("{}: {}", e.name, e.reason)).collect();
    let more = if excluded.len() > 3 { "; ..." } else { "" };
    Error::format(source.describe(), format!("none of the images can be used ({}{more})", first.join("; ")))
}
