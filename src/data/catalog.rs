//! What a data set knows of its images without touching a pixel: names, labels, sizes, and where the bytes are.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use super::source::{Excluded, ExclusionKind, Factor, describe};

/// Everything but the pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// What the images came from, for people: `CIFAR-10 binary`.
    pub kind: String,
    /// Names of the classes; empty if unlabelled.
    pub classes: Vec<String>,
    /// Ground truth beside the class, one label per image.
    pub factors: Vec<Factor>,
    /// What was found and is not part of the data set: first what the listing left out, then what could not be decoded.
    pub excluded: Vec<Excluded>,
    /// CRC-32 over names, labels, sizes and pixels of the images, in order: equal for equal data.
    pub fingerprint: u32,
    /// The images, in order.
    pub samples: Vec<Sample>,
    /// The images' names, one after the other.
    pub names: String,
}

/// One image; also the record of it in a packed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// First byte in the payload.
    pub offset: u64,
    /// End of the name in [`Catalog::names`]; it begins where the one before ends.
    pub name_end: u64,
    /// Bytes in the payload.
    pub bytes: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// Class, an index into [`Catalog::classes`]; [`Sample::NO_LABEL`] if it has none.
    pub label: u32,
    /// [`Encoding`] as a number.
    pub encoding: u32,
    /// Always 0.
    pub reserved: u32,
}

/// How the bytes of an image are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[repr(u32)]
pub enum Encoding {
    /// Decoded: uint8 height x width x 3.
    #[default]
    Raw = 0,
    /// A JPEG file; other pictures are raw also where this is asked for.
    Jpeg = 1,
}

crate::named::named!(Encoding);

impl Sample {
    /// The label of an image without a class.
    pub const NO_LABEL: u32 = u32::MAX;

    /// The class, if it has one.
    pub fn label(&self) -> Option<u32> {
        (self.label != Self::NO_LABEL).then_some(self.label)
    }

    /// Columns and rows.
    pub fn size(&self) -> (usize, usize) {
        (self.width as usize, self.height as usize)
    }

    /// Bytes of the decoded picture: height x width x 3.
    pub fn raw_bytes(&self) -> u64 {
        3 * u64::from(self.width) * u64::from(self.height)
    }

    /// How the bytes are to be read; `None` for a number that means nothing.
    pub fn encoding(&self) -> Option<Encoding> {
        [Encoding::Raw, Encoding::Jpeg].into_iter().find(|&encoding| encoding as u32 == self.encoding)
    }

    /// Where the bytes are in the payload.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.bytes)
    }
}

impl Catalog {
    /// The name of image `i`, unique. Panics if out of range.
    pub fn name(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.samples[i - 1].name_end };
        &self.names[start as usize..self.samples[i].name_end as usize]
    }

    /// Adds image `i`, whose pixels have this CRC-32, to the fingerprint in the making.
    pub(super) fn stamp_sample(&self, i: usize, pixels_crc: u32, stamp: &mut crc32fast::Hasher) {
        let sample = &self.samples[i];
        stamp.update(self.name(i).as_bytes());
        // No class is -1; the fixed-length tail also ends the name.
        let numbers =
            [sample.label().map_or(-1, i64::from), sample.width.into(), sample.height.into(), pixels_crc.into()];
        numbers.iter().for_each(|number: &i64| stamp.update(&number.to_le_bytes()));
    }

    /// Bytes of the payload.
    pub fn payload_bytes(&self) -> u64 {
        self.samples.last().map_or(0, |last| last.range().end)
    }

    /// Which images have bytes in this part of the payload, for people.
    pub fn images_in(&self, part: Range<u64>) -> String {
        let first = self.samples.partition_point(|sample| sample.range().end <= part.start);
        let end = self.samples.partition_point(|sample| sample.offset < part.end);
        match end.saturating_sub(first) {
            0 => "no image there".into(),
            1 => format!("image {}", self.name(first)),
            n => format!("{n} images, {} to {}", self.name(first), self.name(end - 1)),
        }
    }

    /// Images that were lost.
    pub fn bad(&self) -> usize {
        self.excluded.iter().filter(|excluded| excluded.kind == ExclusionKind::Bad).count()
    }

    /// One phrase for people: `CIFAR-10 binary, 2,500 images, 10 classes; 3 bad, set aside`.
    pub fn describe(&self) -> String {
        let mut text = describe(&self.kind, self.samples.len(), self.classes.len());
        let bad = self.bad();
        for (n, what) in [(bad, "bad, set aside"), (self.excluded.len() - bad, "ignored")] {
            if n > 0 {
                text += &format!("; {n} {what}");
            }
        }
        text
    }
}
