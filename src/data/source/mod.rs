//! Where images come from: one trait, and [`open`], which chooses the source by what a path holds.
//!
//! | what the path is | source |
//! |---|---|
//! | the word `shapes`, or `shapes:N` | the built-in procedural data set ([`shapes`]), N images |
//! | a file made by `disentangle pack` | packed file ([`packed`]) |
//! | `data_batch_*.bin`, `test_batch.bin` (here or one folder down) | CIFAR-10, official binary layout |
//! | `train.bin`, `test.bin` (here or one folder down) | CIFAR-100, official binary layout |
//! | `train_X.bin`, `test_X.bin`, `unlabeled_X.bin` (here or one folder down) | STL-10, official binary layout |
//! | a NumPy array (`.npy`): N,H,W,3 or N,H,W, uint8 | its images; labels from `NAME_labels.npy` or `labels.npy` beside it |
//! | a `.txt`, `.lst`, `.csv` or `.tsv` file | a list: a line an image, its path and perhaps its label |
//! | anything else with JPEG, PNG or WebP files | image folder; a subfolder a class, or flat and unlabelled |
//!
//! CIFAR, STL-10 and image folders may be a folder, a `.tar` (read in place through a memory map) or a `.tar.gz`
//! (inflated into memory); the content decides, not the extension (but for lists, whose content says nothing), and
//! nothing is ever written to disk. What cannot be used is kept in a list of [`Excluded`] with its reason: never fatal,
//! never silent. Any source may be narrowed to some of its classes ([`SourceOptions::classes`]), and several are joined
//! ([`open_all`]).

mod archive;
mod chosen;
mod cifar;
pub mod decode;
mod files;
mod image_folder;
mod joined;
mod list;
mod npy;
mod options;
mod selected;
pub mod shapes;
mod stl10;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use chosen::IMAGENET_10;
pub use decode::{Colour, ImageFormat, MAX_PIXELS, PictureKind, decode, decode_into, picture_kind};
pub use options::{Cifar100Labels, SourceOptions, Split};

use self::files::{Block, Files};
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

    /// The file that image `i` was found as, unread; `None` where it is none (a record, computed). Panics if out of range.
    ///
    /// # Errors
    /// If it can no longer be read.
    fn original(&self, _i: usize) -> Result<Option<Original<'_>>> {
        Ok(None)
    }

    /// What the first bytes of image `i` say it is, without decoding it; `None` where images are no picture files.
    fn picture_kind(&self, _i: usize) -> Option<PictureKind> {
        None
    }

    /// `Ok` if all that was read so far is what the files held when the source was opened: for files that are mapped, which
    /// another process may cut short or write to meanwhile.
    ///
    /// # Errors
    /// [`Error::Format`] with the file that changed.
    fn check(&self) -> Result<()> {
        Ok(())
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

/// An image as its owner knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Original<'a> {
    /// A file of its own, by the path it was found at.
    File(&'a Path),
    /// A file inside an archive: its bytes.
    Entry(Cow<'a, [u8]>),
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

/// For messages: every kind of data.
const WHAT_TO_GIVE: &str = "a folder of images, a .tar or .tar.gz of one, CIFAR or STL-10 binaries, a .npy array, \
                            or a list of files (.txt, .csv, .tsv)";

/// Opens the built-in set `shapes` (`shapes:N` for N images; a folder of that name is `./shapes`) or the path
/// `location`, by what it holds (see the [module](self)). Lists and indexes, but decodes no image.
///
/// # Errors
/// [`Error::Usage`] if nothing is there or an option does not fit; [`Error::Format`] if what is there holds no images
/// or is cut short; [`Error::Io`] if it cannot be read.
pub fn open(location: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    selected::select(open_whole(location, options)?, location, &options.classes)
}

/// Opens one location, or several and joins them: see [`open`]. Errors as there, and with [`Error::Usage`] without any.
pub fn open_all(locations: &[String], options: &SourceOptions) -> Result<Box<dyn Source>> {
    match locations {
        [] => Err(Error::Usage("no data: give --data, or `shapes` for the built-in set".into())),
        [location] => open(location, options),
        several => {
            let open = |location: &String| Ok((location.clone(), open_whole(location, options)?));
            let joined = joined::Joined::new(several.iter().map(open).collect::<Result<_>>()?);
            selected::select(Box::new(joined), &several.join(", "), &options.classes)
        }
    }
}

/// [`open`] with all classes.
fn open_whole(location: &str, options: &SourceOptions) -> Result<Box<dyn Source>> {
    if location == "shapes" || location.starts_with("shapes:") {
        return Ok(Box::new(open_shapes(location, options)?));
    }
    let path = Path::new(location);
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Usage(format!("{location} does not exist: give {WHAT_TO_GIVE}, or `shapes` for the built-in set"))
        }
        _ => Error::io("read", path)(e),
    })?;
    if metadata.is_dir() {
        return open_files(Files::in_folder(path)?, options);
    }
    if !metadata.is_file() {
        return Err(Error::format(path, format!("neither a folder nor a regular file: give {WHAT_TO_GIVE}")));
    }
    if packed::is_packed(path) {
        options.refuse_split(location)?;
        return Ok(Box::new(packed::PackedSource::open(path)?));
    }
    let block = Block::map(path)?;
    if npy::is_npy(&block) {
        options.refuse_split(location)?;
        return Ok(Box::new(npy::Arrays::open(path, block)?));
    }
    if let Some(style) = list::Style::of(path).filter(|_| !archive::is_archive(&block)) {
        options.refuse_split(location)?;
        return Ok(Box::new(list::List::open(path, &block, style)?));
    }
    open_files(archive::index(path, block, options.max_inflated)?, options)
}

/// What a listing of files holds.
fn open_files(files: Files, options: &SourceOptions) -> Result<Box<dyn Source>> {
    match (cifar::detect(&files)?, stl10::detect(&files)?) {
        (Some(_), Some(_)) => Err(Error::format(
            &files.root,
            "both CIFAR and STL-10: give the folder of one, or each with its own --data",
        )),
        (Some(layout), None) => Ok(Box::new(cifar::Cifar::open(&files, &layout, options)?)),
        (None, Some(folder)) => Ok(Box::new(stl10::Stl10::open(&files, &folder, options)?)),
        (None, None) => Ok(Box::new(image_folder::ImageFolder::new(files, options.split)?)),
    }
}

fn open_shapes(location: &str, options: &SourceOptions) -> Result<shapes::Shapes> {
    options.refuse_split("`shapes`")?;
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
