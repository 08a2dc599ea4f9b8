//! JPEG, PNG and WebP files in folders, on disk or in an archive.
//!
//! Folders that hold everything (`eurosat/`) are passed through. Where the images part, each folder is a class, in the
//! order of the names (as torchvision's `ImageFolder`); deeper folders belong to the class they are in. If the images do
//! not part they are unlabelled, and so is an image that lies beside the class folders. If all folders are called
//! `train`, `test` or the like, they are splits and the classes lie inside; a class of the same name in two splits is one,
//! and a split with nothing but a folder `images` is unlabelled. So ImageNet (`ILSVRC/Data/CLS-LOC/train/n01440764/`) and
//! Tiny ImageNet (`train/n01443537/images/`) have the identifiers as classes. Empty folders are no classes, and are listed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use super::decode::{HEAD_BYTES, ImageFormat};
use super::files::{Entry, Files};
use super::options::Part;
use super::{Excluded, Original, PictureKind, Source, Split, counted, decode, picture_kind};
use crate::data::Image;
use crate::{Error, Result};

/// Images in folders.
pub struct ImageFolder {
    files: Files,
    /// Per entry.
    labels: Vec<Option<u32>>,
    classes: Vec<String>,
}

impl ImageFolder {
    /// Takes the images among `files`; the others are reported as excluded.
    ///
    /// # Errors
    /// If there is no image, or `split` asks for a part where there are no parts.
    pub fn new(mut files: Files, split: Split) -> Result<ImageFolder> {
        split.refuse_unlabeled(files.root.display())?;
        let found = std::mem::take(&mut files.entries);
        for entry in found {
            match not_an_image(&entry) {
                Some(excluded) => files.excluded.push(excluded),
                None => files.entries.push(entry),
            }
        }
        if files.entries.is_empty() {
            return Err(no_images(&files));
        }
        let places = places(&files.entries);
        if split != Split::All && places.iter().all(|place| place.split.is_none()) {
            let problem = format!("{} has no train and test folders: use split = \"all\"", files.root.display());
            return Err(Error::Usage(problem));
        }
        let classes: BTreeSet<&str> = places.iter().filter_map(|place| place.class.as_deref()).collect();
        let classes: Vec<String> = classes.into_iter().map(String::from).collect();
        let mut labels = Vec::new();
        let mut kept = Vec::new();
        for (entry, place) in files.entries.drain(..).zip(&places) {
            if place.split.is_none_or(|part| split.takes(part)) {
                let class = place.class.as_ref().and_then(|class| classes.binary_search(class).ok());
                labels.push(class.map(|class| class as u32));
                kept.push(entry);
            }
        }
        files.entries = kept;
        if files.entries.is_empty() {
            return Err(Error::Usage(format!("{} has no images in that split", files.root.display())));
        }
        Ok(ImageFolder { files, labels, classes })
    }
}

impl Source for ImageFolder {
    fn len(&self) -> usize {
        self.files.entries.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.files.entries[i].name)
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.labels[i]
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn excluded(&self) -> &[Excluded] {
        &self.files.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let entry = &self.files.entries[i];
        decode(&entry.bytes()?).map_err(|reason| Error::format(self.files.root.join(&entry.name), reason))
    }

    fn jpeg(&self, i: usize) -> Result<Option<Cow<'_, [u8]>>> {
        let bytes = self.files.entries[i].bytes()?;
        Ok((ImageFormat::of(&bytes) == Some(ImageFormat::Jpeg)).then_some(bytes))
    }

    fn original(&self, i: usize) -> Result<Option<Original<'_>>> {
        Ok(Some(self.files.entries[i].original()))
    }

    fn picture_kind(&self, i: usize) -> Option<PictureKind> {
        picture_kind(&self.files.entries[i].head(HEAD_BYTES).ok()?)
    }

    fn check(&self) -> Result<()> {
        self.files.check()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.on_disk()
    }

    fn kind(&self) -> &'static str {
        self.files.kind
    }
}

/// Why a file is no candidate, if it is none: images are known by extension, and without one by their first bytes.
/// (That a `.jpg` is no JPEG is found on decoding, and then it is a lost image.)
fn not_an_image(entry: &Entry) -> Option<Excluded> {
    let extension = entry.file_name().rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "apng" | "webp" => None,
        "gif" | "bmp" | "tif" | "tiff" | "avif" | "heic" | "heif" | "jxl" | "jp2" | "ppm" => {
            Some(Excluded::bad(&entry.name, format!("{extension} images are not read: convert it to JPEG or PNG")))
        }
        "npy" => Some(Excluded::ignored(&entry.name, "a NumPy array: give the file itself")),
        _ => match entry.head(12) {
            Ok(bytes) if ImageFormat::of(&bytes).is_some() => None,
            Ok(_) => Some(Excluded::ignored(&entry.name, "not an image")),
            Err(e) => Some(Excluded::ignored(&entry.name, format!("not an image by its name, and unreadable: {e}"))),
        },
    }
}

fn no_images(files: &Files) -> Error {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    files.excluded.iter().for_each(|e| *reasons.entry(&e.reason).or_default() += 1);
    let reasons: Vec<String> =
        reasons.into_iter().take(3).map(|(reason, n)| format!("{}: {reason}", counted(n, "file", "files"))).collect();
    let found = if reasons.is_empty() { "it is empty".into() } else { reasons.join("; ") };
    Error::format(
        &files.root,
        format!("no JPEG, PNG or WebP image in it ({found}): give a folder or an archive of images"),
    )
}

/// What an image's folders say about it.
struct Place {
    split: Option<Part>,
    class: Option<String>,
}

fn split_of(folder: &str) -> Option<Part> {
    match folder.to_ascii_lowercase().as_str() {
        "train" | "training" => Some(Part::Train),
        "test" | "testing" | "val" | "valid" | "validation" => Some(Part::Test),
        _ => None,
    }
}

/// Reads the layout off the names of `entries` (at least one); one place per entry.
fn places(entries: &[Entry]) -> Vec<Place> {
    let folders: Vec<Vec<&str>> =
        entries.iter().map(|e| e.folder().split('/').filter(|part| !part.is_empty()).collect()).collect();
    let mut level = 0;
    while let Some(common) = folders[0].get(level).copied() {
        if split_of(common).is_some() || folders.iter().any(|f| f.get(level) != Some(&common)) {
            break;
        }
        level += 1;
    }
    let are_splits = folders.iter().all(|f| f.get(level).is_some_and(|folder| split_of(folder).is_some()));
    let class = |folders: &[&str]| folders.get(level + usize::from(are_splits)).map(|class| class.to_string());
    // A part with nothing but `images` in it has no classes (as the test part of Tiny ImageNet).
    let mut labelled: HashSet<&str> = HashSet::new();
    for folders in folders.iter().filter(|_| are_splits) {
        if class(folders).is_some_and(|class| class != "images") {
            labelled.insert(folders[level]);
        }
    }
    let has_classes = |folders: &[&str]| !are_splits || labelled.contains(folders[level]);
    folders
        .iter()
        .map(|folders| Place {
            split: folders.get(level).and_then(|folder| split_of(folder)).filter(|_| are_splits),
            class: class(folders).filter(|_| has_classes(folders)),
        })
        .collect()
}
