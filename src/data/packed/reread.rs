//! A packed file as a source among others: to be joined, chosen from, or packed again in another form.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::{Packed, open};
use crate::data::Image;
use crate::data::catalog::{Catalog, Encoding};
use crate::data::source::{Excluded, Factor, PictureKind, Source, decode, picture_kind};
use crate::{Error, Result};

/// The images of a packed file.
pub struct PackedSource {
    catalog: Catalog,
    packed: Packed,
}

impl PackedSource {
    /// Opens the file at `path`. Errors as [`open`].
    pub fn open(path: &Path) -> Result<PackedSource> {
        let (catalog, packed) = open(path)?;
        Ok(PackedSource { catalog, packed })
    }
}

impl Source for PackedSource {
    fn len(&self) -> usize {
        self.catalog.samples.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        Cow::Borrowed(self.catalog.name(i))
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.catalog.samples[i].label()
    }

    fn classes(&self) -> &[String] {
        &self.catalog.classes
    }

    fn factors(&self) -> &[Factor] {
        &self.catalog.factors
    }

    fn excluded(&self) -> &[Excluded] {
        &self.catalog.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let sample = &self.catalog.samples[i];
        let bytes = self.packed.bytes(sample.range())?;
        let image = match sample.encoding() {
            Some(Encoding::Jpeg) => decode(bytes)
                .map_err(|reason| Error::format(self.packed.path(), format!("{}: {reason}", self.name(i))))?,
            _ => Image::new(sample.size().0, sample.size().1, bytes.to_vec())?,
        };
        Ok(image)
    }

    fn jpeg(&self, i: usize) -> Result<Option<Cow<'_, [u8]>>> {
        let sample = &self.catalog.samples[i];
        let bytes = self.packed.bytes(sample.range())?;
        Ok((sample.encoding() == Some(Encoding::Jpeg)).then_some(Cow::Borrowed(bytes)))
    }

    fn picture_kind(&self, i: usize) -> Option<PictureKind> {
        picture_kind(&self.jpeg(i).ok()??)
    }

    fn check(&self) -> Result<()> {
        self.packed.check()
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.packed.path().to_path_buf()]
    }

    fn kind(&self) -> &'static str {
        "packed file"
    }
}
