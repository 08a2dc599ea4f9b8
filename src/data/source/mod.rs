//! Where images come from: one trait, and [`open`], which chooses the source by what a path holds.
//!
//! | what the path is | source |
//! |---|---|
//! | the word `shapes`, or `shapes:N` | the built-in procedural data set ([`shapes`]), N images |
//! | a file made by `disentangle pack` | packed file ([`packed`](super::packed)) |
//! | `data_batch_*.bin`, `test_batch.bin` (here or one folder down) | CIFAR-10, official binary layout |
//! | `train.bin`, `test.bin` (here or one folder down) | CIFAR-100, official binary layout |
//! | anything else with JPEG or PNG files | image folder; a subfolder a class, or flat and unlabelled |
//!
//! The last three may be a folder, a `.tar` (read in place through a memory map) or a `.tar.gz` (inflated into memory);
//! the content decides, not the extension, and nothing is ever written to disk. What cannot be used is kept in a list
//! of [`Excluded`] with its reason: never fatal, never silent.

mod archive;
mod cifar;
mod decode;
mod files;
mod image_folder;
mod joined;
pub mod shapes;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use decode::{MAX_PIXELS, decode, decode_into};

use self::files::Files;
use super::{Image, packed};
use crate::{Error, Result};

/// A set of images that can be decoded in any order, from any thread.
pub trait Source: Send + Sync {
    /// How many images there are, before any was decoded.
    fn len(&self) -> usize;

    /// True without images. [`open`] never returns such a source.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Unique name of image `i`: `eurosat/Forest/Forest_1.jpg`, `data_batch_1.bin#17`, `shapes#17`. Panics if out of range.
    fn name(&self, i: usize) -> Cow<'_, str>;

    /// Class of image `i` as an index into [`Source::classes`]; `None` if it has none. Panics if out of range.
    fn label(&self, i: usize) -> Option<u32>;

    /// Names of the classes; empty if the images are unlabelled.
    fn classes(&self) -> &[String];

    /// Ground truth known beside the class; most sources have none.
    fn factors(&self) -> &[Factor] {
        &[]
    }

    /// What was found and left out while listing, before any image was decoded.
    fn excluded(&self) -> &[Excluded] {
        &[]
    }

    /// Decodes image `i`. Errors if its content is no image, or cannot be read any more. Panics if out of range.
    fn read(&self, i: usize) -> Result<Image>;

    /// The bytes of image `i` as they were found, where they are a JPEG; `None` for anything else. Panics if out of range.
    ///
    /// # Errors
    /// If they can no longer be read.
    fn jpeg(&self, _i: usize) -> Result<Option<Cow<'_, [u8]>>> {
        Ok(None)
    }

    /// The files on disk that the images are read from, each once: when none of them changed, nor did the images. Empty
    /// for images that are computed.
    fn files(&self) -> Vec<PathBuf>;

    /// What it is, for people: `CIFAR-10 binary`.
    fn kind(&self) -> &'static str;

    /// One phrase for people: `CIFAR-10 binary, 2,500 images, 10 classes`.
    fn describe(&self) -> String {
        describe(self.kind(), self.len(), self.classes().len())
    }
}

/// A ground-truth factor of variation beside the class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Factor {
    /// What varies: `colour`, `position`, ...
    pub name: String,
    /// The names of its values.
    pub values: Vec<String>,
    /// Per image, an index into `values`.
    pub labels: Vec<u32>,
}

/// Something that was found but is not part of the data set, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// The file, archive entry or record, named as [`Source::name`] names images.
    pub name: String,
    /// Whether an image was lost.
    pub kind: ExclusionKind,
    /// Why, for people.
    pub reason: String,
}

/// What an exclusion means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExclusionKind {
    /// Nothing was lost: hidden files, notes, links in archives, ...
    Ignored,
    /// It should have been an image, and is not usable.
    Bad,
}

impl Excluded {
    fn ignored(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Excluded { name: name.into(), kind: ExclusionKind::Ignored, reason: reason.into() }
    }

    pub(crate) fn bad(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Excluded { name: name.into(), kind: ExclusionKind::Bad, reason: reason.into() }
    }
}

/// How to read a source; sources ignore what is not about them, except where noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// CIFAR-100: which of its two labels is the class. The other one becomes a [`Factor`].
    pub cifar100_labels: Cifar100Labels,
    /// Which part of a data set that comes in parts. `train` and `test` are errors where there are no parts.
    pub split: Split,
    /// Image folders: the classes to take, by name; empty takes all. A name that is not there is an error.
    pub classes: Vec<String>,
    /// `shapes`: how many images when the name gives no number; at least 1.
    pub shapes_count: usize,
    /// `shapes`: side of the images in pixels, 16 to 256.
    pub shapes_px: usize,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            cifar100_labels: Cifar100Labels::Coarse,
            split: Split::All,
            classes: Vec::new(),
            shapes_count: shapes::DEFAULT_COUNT,
            shapes_px: shapes::DEFAULT_PX,
        }
    }
}

/// The class labels of CIFAR-100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Cifar100Labels {
    /// The 20 superclasses, as in the paper ("CIFAR-100-20").
    #[default]
    Coarse,
    /// The 100 classes.
    Fine,
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// Everything, as in the paper: clustering needs no held-out images.
    #[default]
    All,
    /// CIFAR's `data_batch_*`/`train.bin`; in an image folder what lies under `train` or `training`.
    Train,
    /// CIFAR's `test_batch`/`test.bin`; in an image folder what lies under `test`, `testing`, `val`, `valid`, `validation`.
    Test,
}

crate::named::named!(Cifar100Labels Split);

impl Split {
    /// Whether a file of the part `part` belongs to what was asked for.
    fn takes(self, part: Split) -> bool {
        self == Split::All || self == part
    }
}

/// Opens the built-in set `shapes` (`shapes:N` for N images; a folder of that name is `./shapes`) or the path
/// `location`, by what it holds (see the [module](self)). Lists and indexes, but decodes no image.
///
/// # Errors
/// [`Error::Usage`] if nothing is there or an option does not fit; [`Error::Format`] if what is there holds no images
/// or is cut short; [`Error::Io`] if it cannot be read.
pub fn open(location: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    if location == "shapes" || location.starts_with("shapes:") {
        return Ok(Box::new(open_shapes(location, options)?));
    }
    let path = Path::new(location);
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::Usage(format!(
            "{location} does not exist: give a folder or a .tar/.tar.gz archive of images, or `shapes` for the built-in set"
        )),
        _ => Error::io("read", path)(e),
    })?;
    if packed::is_packed(path) {
        if options.split != Split::All {
            return Err(Error::Usage(format!("{location} is packed and has no parts: use split = \"all\"")));
        }
        return Ok(Box::new(packed::PackedSource::open(path)?));
    }
    let files = if metadata.is_dir() { Files::in_folder(path)? } else { archive::index(path, &metadata)? };
    if let Some(layout) = cifar::detect(&files)? {
        return Ok(Box::new(cifar::Cifar::open(&files, &layout, options)?));
    }
    Ok(Box::new(image_folder::ImageFolder::new(files, options.split)?))
}

/// Opens one location, or several and joins them: see [`open`]. Errors as there, and with [`Error::Usage`] without any.
pub fn open_all(locations: &[String], options: &SourceOptions) -> Result<Box<dyn Source>> {
    match locations {
        [] => Err(Error::Usage("no data: give --data, or `shapes` for the built-in set".into())),
        [location] => open(location, options),
        several => {
            let open = |location: &String| Ok((location.clone(), open(location, options)?));
            Ok(Box::new(joined::Joined::new(several.iter().map(open).collect::<Result<_>>()?)))
        }
    }
}

fn open_shapes(location: &str, options: &SourceOptions) -> Result<shapes::Shapes> {
    if options.split != Split::All {
        return Err(Error::Usage("`shapes` has no train and test parts: use split = \"all\"".into()));
    }
    let count = match location.strip_prefix("shapes:") {
        None => options.shapes_count,
        Some(number) => number.parse().map_err(|_| {
            Error::Usage(format!("`{location}`: `{number}` is not a number of images; write for instance shapes:2000"))
        })?,
    };
    shapes::Shapes::new(count, options.shapes_px)
}

/// `n things`, with thousands separators and the plural it needs.
fn counted(n: usize, singular: &str, plural: &str) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if n == 1 { singular } else { plural })
}

/// `KIND, 2,500 images, 10 classes`.
pub(super) fn describe(kind: &str, images: usize, classes: usize) -> String {
    let classes = if classes == 0 { "unlabelled".into() } else { counted(classes, "class", "classes") };
    format!("{kind}, {}, {classes}", counted(images, "image", "images"))
}
