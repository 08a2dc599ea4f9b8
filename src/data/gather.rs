//! From a source to a catalog and a payload: every image is decoded once, on all threads, and the unusable ones are set
//! aside. What comes out does not depend on the number of threads.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::augment::{Size, resize};
use super::catalog::{Catalog, Encoding, Sample};
use super::image::Image;
use super::loader::with_workspace;
use super::source::{Excluded, ExclusionKind, Factor, Source, decode};
use crate::{Error, Result};

/// Decoded bytes that wait to be written at once; more images are decoded side by side when they are small.
const AHEAD_BYTES: usize = 256 << 20;
/// Most images decoded side by side.
const MAX_AHEAD: usize = 512;
/// Quality of JPEGs that have to be written anew because they shrink.
const JPEG_QUALITY: u8 = 95;

/// What to keep of the images.
#[derive(Clone, Copy, Debug)]
pub struct GatherOptions {
    /// How images are kept. With [`Encoding::Jpeg`] JPEG files keep their bytes (written anew, quality 95, only when they
    /// shrink), and all others are raw.
    pub payload: Encoding,
    /// Larger images shrink until their short side has this many pixels, at least 1; smaller ones stay as they are.
    pub resize_short: Option<usize>,
    /// Share of lost images above which something is wrong with the data set, 0 to 1.
    pub max_bad: f64,
    /// Set from outside to give up.
    pub stop: Option<&'static AtomicBool>,
}

impl Default for GatherOptions {
    fn default() -> Self {
        GatherOptions { payload: Encoding::Raw, resize_short: None, max_bad: 1.0, stop: None }
    }
}

/// One image, ready to be written.
struct Prepared {
    bytes: Vec<u8>,
    encoding: Encoding,
    width: usize,
    height: usize,
    /// CRC-32 of the decoded pixels.
    crc: u32,
}

/// Decodes every image of `source` and writes what is kept of it to `payload`. `progress` is called with (images decoded,
/// images in all), from any thread.
///
/// # Errors
/// [`Error::Interrupted`] if it was asked to stop. [`Error::Format`] if a file changed meanwhile (see [`Source::check`]). If no image is usable or more than the allowed share is lost (with the first reasons), if two images have one name, or
/// if `payload` cannot be written.
pub fn gather(
    source: &dyn Source,
    options: &GatherOptions,
    payload: &mut dyn Write,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Catalog> {
    let total = source.len();
    let done = AtomicUsize::new(0);
    let mut gathering = Gathering::new(source);
    let all = total + gathering.catalog.bad();
    let (mut start, mut ahead) = (0, rayon::current_num_threads().clamp(1, MAX_AHEAD));
    while start < total {
        if options.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(Error::Interrupted);
        }
        let end = (start + ahead).min(total);
        let prepare = |i| {
            let prepared = prepare(source, options, i);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            prepared
        };
        let prepared: Vec<_> = (start..end).into_par_iter().map(prepare).collect();
        // Before anything of it is kept: what was cut short meanwhile reads as zeros.
        source.check()?;
        let bytes: usize = prepared.iter().flatten().map(|image| image.bytes.len()).sum();
        for (offset, image) in prepared.into_iter().enumerate() {
            gathering.add(start + offset, image, payload)?;
        }
        check_bad(&gathering.catalog, all, options.max_bad)?;
        ahead = (AHEAD_BYTES / (bytes / (end - start)).max(1)).clamp(1, MAX_AHEAD);
        start = end;
    }
    gathering.finish()
}

/// Errors if a larger share than `max_bad` of `all` images is lost.
pub fn check_bad(catalog: &Catalog, all: usize, max_bad: f64) -> Result<()> {
    let bad = catalog.bad();
    if bad as f64 <= max_bad * all as f64 {
        return Ok(());
    }
    let reasons = first_reasons(&catalog.excluded);
    let problem = match bad == all {
        true => format!("none of the images can be used ({reasons})"),
        false => format!(
            "{bad} of {all} images cannot be used, more than max_bad = {}% ({reasons}): mend the data or raise --max-bad",
            max_bad * 100.0
        ),
    };
    Err(Error::format(&catalog.kind, problem))
}

/// The first lost images with their reasons.
fn first_reasons(excluded: &[Excluded]) -> String {
    let bad: Vec<&Excluded> = excluded.iter().filter(|e| e.kind == ExclusionKind::Bad).collect();
    let first: Vec<String> = bad.iter().take(3).map(|e| format!("{}: {}", e.name, e.reason)).collect();
    format!("{}{}", first.join("; "), if bad.len() > 3 { "; ..." } else { "" })
}

/// Reads image `i` and brings it into the form in which it is kept.
fn prepare(source: &dyn Source, options: &GatherOptions, i: usize) -> Result<Prepared> {
    let jpeg = match options.payload {
        Encoding::Raw => None,
        Encoding::Jpeg => source.jpeg(i)?,
    };
    let image = match &jpeg {
        Some(bytes) => decode(bytes).map_err(|reason| Error::format(&*source.name(i), reason))?,
        None => source.read(i)?,
    };
    let shrunk = options.resize_short.and_then(|short| shrink(&image, short)).transpose()?;
    match (jpeg, shrunk) {
        (None, shrunk) => Ok(raw(shrunk.unwrap_or(image))),
        (Some(bytes), None) => Ok(Prepared { bytes: bytes.into_owned(), encoding: Encoding::Jpeg, ..raw(image) }),
        (Some(_), Some(shrunk)) => {
            let bytes = encode_jpeg(&shrunk).map_err(|reason| Error::format(&*source.name(i), reason))?;
            let image = decode(&bytes).map_err(|reason| Error::format(&*source.name(i), reason))?;
            Ok(Prepared { bytes, encoding: Encoding::Jpeg, ..raw(image) })
        }
    }
}

fn raw(image: Image) -> Prepared {
    let (width, height) = (image.as_ref().width(), image.as_ref().height());
    let bytes = image.into_pixels();
    Prepared { crc: crc32fast::hash(&bytes), bytes, encoding: Encoding::Raw, width, height }
}

/// The image with a short side of `short` pixels, its aspect kept (the long side rounded down, as torchvision's `Resize`);
/// `None` if it is not larger.
fn shrink(image: &Image, short: usize) -> Option<Result<Image>> {
    let picture = image.as_ref();
    let (width, height) = (picture.width(), picture.height());
    let side = width.min(height);
    (side > short).then(|| {
        let size = Size { width: width * short / side, height: height * short / side };
        let mut pixels = vec![0; 3 * size.area()];
        with_workspace(|workspace| resize(picture, size, &mut workspace.scratch, &mut pixels))?;
        Image::new(size.width, size.height, pixels)
    })
}

fn encode_jpeg(image: &Image) -> Result<Vec<u8>, String> {
    let (picture, mut bytes) = (image.as_ref(), Vec::new());
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    let written =
        image::ImageEncoder::write_image(encoder, picture.pixels(), width, height, image::ExtendedColorType::Rgb8);
    written.map(|()| bytes).map_err(|e| format!("cannot be written as a JPEG: {e}"))
}

/// A catalog in the making.
struct Gathering<'a> {
    source: &'a dyn Source,
    catalog: Catalog,
    /// Source index of each sample.
    kept: Vec<usize>,
    stamp: crc32fast::Hasher,
    names: HashSet<String>,
}

impl<'a> Gathering<'a> {
    fn new(source: &'a dyn Source) -> Self {
        let visible_excluded =
            |e: &Excluded| Excluded { name: visible(&e.name), kind: e.kind, reason: visible(&e.reason) };
        let catalog = Catalog {
            kind: source.kind().into(),
            classes: source.classes().iter().map(|class| visible(class)).collect(),
            excluded: source.excluded().iter().map(visible_excluded).collect(),
            ..Catalog::default()
        };
        Gathering { source, catalog, kept: Vec::new(), stamp: crc32fast::Hasher::new(), names: HashSet::new() }
    }

    /// Takes in what image `i` gave: its bytes, or why there are none.
    fn add(&mut self, i: usize, prepared: Result<Prepared>, payload: &mut dyn Write) -> Result<()> {
        let name = visible(&self.source.name(i));
        let bytes = prepared.and_then(|image| Ok((u32::try_from(image.bytes.len()).map_err(|_| too_large())?, image)));
        let (bytes, image) = match bytes {
            Ok(prepared) => prepared,
            Err(e) => {
                let reason = if let Error::Format { problem, .. } = e { problem } else { e.to_string() };
                self.catalog.excluded.push(Excluded::bad(name, visible(&reason)));
                return Ok(());
            }
        };
        payload.write_all(&image.bytes).map_err(Error::io("write", "the packed images"))?;
        let catalog = &mut self.catalog;
        catalog.names.push_str(&name);
        catalog.samples.push(Sample {
            offset: catalog.payload_bytes(),
            name_end: catalog.names.len() as u64,
            bytes,
            width: image.width as u32,
            height: image.height as u32,
            label: self.source.label(i).unwrap_or(Sample::NO_LABEL),
            encoding: image.encoding as u32,
            reserved: 0,
        });
        catalog.stamp_sample(self.kept.len(), image.crc, &mut self.stamp);
        self.kept.push(i);
        if let Some(twice) = self.names.replace(name) {
            return Err(Error::format(&self.catalog.kind, format!("two images are called {twice}")));
        }
        Ok(())
    }

    fn finish(self) -> Result<Catalog> {
        let Gathering { source, mut catalog, kept, stamp, .. } = self;
        if catalog.samples.is_empty() {
            let problem = format!("none of the images can be used ({})", first_reasons(&catalog.excluded));
            return Err(Error::format(source.describe(), problem));
        }
        catalog.factors = source.factors().iter().map(|factor| select(factor, &kept)).collect();
        catalog.fingerprint = stamp.finalize();
        Ok(catalog)
    }
}

fn too_large() -> Error {
    Error::shape("pack", "over 4 GiB")
}

fn select(factor: &Factor, kept: &[usize]) -> Factor {
    let labels = kept.iter().map(|&i| factor.labels[i]).collect();
    Factor { name: visible(&factor.name), values: factor.values.iter().map(|value| visible(value)).collect(), labels }
}

/// `text` with control characters written as `\u{..}`: what is kept reaches terminals and files of lines. (Sources make their
/// own names printable; this holds for those that forget, and for words of the system and of decoders.)
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { visible.extend(c.escape_unicode()) } else { visible.push(c) }
    }
    visible
}
