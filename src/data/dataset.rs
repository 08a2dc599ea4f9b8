//! A data set ready for use: a catalog, and its images' bytes in memory or in a packed file.

use std::path::Path;

use super::catalog::{Catalog, Encoding, Sample};
use super::gather::{GatherOptions, gather};
use super::packed::Packed;
use super::source::{Excluded, Factor, Source, decode_into};
use super::{ImageRef, packed};
use crate::{Error, Result};

/// Images in a fixed order, with their labels.
pub struct Dataset {
    catalog: Catalog,
    payload: Payload,
}

/// Where the bytes are.
enum Payload {
    Memory(Vec<u8>),
    File(Packed),
}

impl Dataset {
    /// Decodes every image of `source` into memory, on all threads, and sets the unusable ones aside. `progress` is called
    /// with (images decoded, images in all), from any thread.
    ///
    /// # Errors
    /// If no image is usable or too many are lost (the message gives the first reasons), or memory does not suffice.
    pub fn load(
        source: Box<dyn Source>,
        options: &GatherOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Dataset> {
        let mut payload = InMemory(Vec::new());
        let catalog = gather(&*source, options, &mut payload, progress)?;
        payload.0.shrink_to_fit();
        Ok(Dataset { catalog, payload: Payload::Memory(payload.0) })
    }

    /// Opens the packed file at `path` in place: its header and tables are checked, its images are not touched.
    ///
    /// # Errors
    /// See [`packed::open`].
    pub fn open(path: &Path) -> Result<Dataset> {
        let (catalog, payload) = packed::open(path)?;
        Ok(Dataset { catalog, payload: Payload::File(payload) })
    }

    /// Images, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.catalog.samples.len()
    }

    /// Image `i`: where it lies, or decoded to `buffer` if it is kept as a JPEG. `buffer` grows to the largest image and
    /// is not allocated anew after that. Panics if out of range.
    ///
    /// # Errors
    /// [`Error::Format`] if the packed file is damaged there. What another process does to it meanwhile shows in
    /// [`Dataset::check`], which is to be asked before anything made of the pixels is used.
    pub fn image<'a>(&'a self, i: usize, buffer: &'a mut Vec<u8>) -> Result<ImageRef<'a>> {
        let sample = &self.catalog.samples[i];
        let bytes = self.bytes(sample)?;
        let (width, height) = sample.size();
        if sample.encoding() != Some(Encoding::Jpeg) {
            return ImageRef::new(width, height, bytes);
        }
        match decode_into(bytes, buffer) {
            Ok(size) if size == (width, height) => ImageRef::new(width, height, buffer),
            Ok(size) => Err(self.damaged(i, format!("{size:?} pixels instead of {:?}", (width, height)))),
            Err(reason) => Err(self.damaged(i, reason)),
        }
    }

    fn bytes(&self, sample: &Sample) -> Result<&[u8]> {
        match &self.payload {
            // In range: the catalog and the bytes were made together.
            Payload::Memory(bytes) => Ok(&bytes[sample.range().start as usize..sample.range().end as usize]),
            Payload::File(packed) => packed.bytes(sample.range()),
        }
    }

    fn damaged(&self, i: usize, reason: String) -> Error {
        let place = match &self.payload {
            Payload::Memory(_) => Path::new("memory"),
            Payload::File(packed) => packed.path(),
        };
        Error::format(place, format!("image {}: {reason}", self.name(i)))
    }

    /// `Ok` if all pixels read so far were the data set's own: a packed file that another process cuts short or changes is
    /// an error from here on.
    pub fn check(&self) -> Result<()> {
        match &self.payload {
            Payload::Memory(_) => Ok(()),
            Payload::File(packed) => packed.check(),
        }
    }

    /// What is known of the images without their pixels.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Width and height of image `i` in pixels, without decoding it. Panics if out of range.
    pub fn size(&self, i: usize) -> (usize, usize) {
        self.catalog.samples[i].size()
    }

    /// Class of image `i`, an index into [`Dataset::classes`]; `None` if it has none. Panics if out of range.
    pub fn label(&self, i: usize) -> Option<u32> {
        self.catalog.samples[i].label()
    }

    /// The class of every image; `None` unless all have one.
    pub fn labels(&self) -> Option<Vec<u32>> {
        self.catalog.samples.iter().map(Sample::label).collect()
    }

    /// Names of the classes; empty if unlabelled.
    pub fn classes(&self) -> &[String] {
        &self.catalog.classes
    }

    /// Ground truth beside the class, one label per image of this data set.
    pub fn factors(&self) -> &[Factor] {
        &self.catalog.factors
    }

    /// Unique name of image `i`. Panics if out of range.
    pub fn name(&self, i: usize) -> &str {
        self.catalog.name(i)
    }

    /// What was found and is not part of the data set: first what the listing left out, then what could not be decoded.
    pub fn excluded(&self) -> &[Excluded] {
        &self.catalog.excluded
    }

    /// CRC-32 over names, labels, sizes and pixels of the images, in order: equal for equal data.
    pub fn fingerprint(&self) -> u32 {
        self.catalog.fingerprint
    }

    /// One phrase for people: `CIFAR-10 binary, 2,500 images, 10 classes; 3 bad, set aside`.
    pub fn describe(&self) -> String {
        self.catalog.describe()
    }
}

/// A payload in memory. Running out of memory is an error, as a full disk is.
struct InMemory(Vec<u8>);

impl std::io::Write for InMemory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.try_reserve(bytes.len()).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
