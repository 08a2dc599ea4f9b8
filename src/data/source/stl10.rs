//! STL-10 in its official binary layout (<https://cs.stanford.edu/~acoates/stl10/>), read in place.
//!
//! `train_X.bin`, `test_X.bin` and `unlabeled_X.bin` are runs of images: 96 x 96, as three planes R, G, B, each
//! column after column. `train_y.bin` and `test_y.bin` hold a byte an image, 1 to 10, in the order of `class_names.txt`.

use std::borrow::Cow;
use std::path::PathBuf;

use super::cifar::class_names;
use super::files::{Entry, Files, Span};
use super::options::Part;
use super::{Excluded, Source, SourceOptions, counted};
use crate::data::Image;
use crate::{Error, Result};

/// Pixels on a side.
const SIDE: usize = 96;
/// Bytes of one colour plane.
const PLANE: usize = SIDE * SIDE;
/// Bytes of an image.
const RECORD: usize = 3 * PLANE;
/// Classes.
const CLASSES: u8 = 10;

/// Each part with the files of its images and of its labels.
const PARTS: [(Part, &str, Option<&str>); 3] = [
    (Part::Train, "train_X.bin", Some("train_y.bin")),
    (Part::Test, "test_X.bin", Some("test_y.bin")),
    (Part::Unlabeled, "unlabeled_X.bin", None),
];

/// Looks for images at the top of `files` or one folder down; gives the folder.
///
/// # Errors
/// If there are two such data sets.
pub fn detect(files: &Files) -> Result<Option<String>> {
    let is_images = |entry: &&Entry| PARTS.iter().any(|(_, images, _)| entry.file_name() == *images);
    let mut folders: Vec<&str> = files.entries.iter().filter(is_images).map(Entry::folder).collect();
    folders.retain(|folder| !folder.contains('/'));
    folders.sort_unstable();
    folders.dedup();
    match folders[..] {
        [] => Ok(None),
        [folder] => Ok(Some(folder.to_owned())),
        [first, second, ..] => {
            let problem = format!("two STL-10 data sets, in `{first}` and `{second}`: give one of the folders");
            Err(Error::format(&files.root, problem))
        }
    }
}

/// STL-10, or some of its parts.
pub struct Stl10 {
    /// File name and content of each part's images.
    parts: Vec<(&'static str, Span)>,
    /// Per image: part, record in it, and class.
    records: Vec<(usize, usize, Option<u8>)>,
    classes: Vec<String>,
    excluded: Vec<Excluded>,
    files: Vec<PathBuf>,
}

impl Stl10 {
    /// Opens the parts in `folder` that `options.split` asks for. A cut-off last image and images with labels out of range
    /// are set aside; without a file of labels a part is unlabelled, which is noted.
    ///
    /// # Errors
    /// If a file cannot be read, the numbers of images and labels differ, or no image remains.
    pub fn open(files: &Files, folder: &str, options: &SourceOptions) -> Result<Stl10> {
        let find = |name: &str| files.entries.iter().find(|e| e.folder() == folder && e.file_name() == name);
        let names = find("class_names.txt").map(Entry::bytes).transpose()?;
        let mut stl10 = Stl10 {
            parts: Vec::new(),
            records: Vec::new(),
            classes: class_names(names.as_deref().unwrap_or_default(), usize::from(CLASSES)),
            excluded: files.excluded.clone(),
            files: files.on_disk(),
        };
        let mut missing = Vec::new();
        for (part, images, labels) in PARTS {
            match find(images) {
                Some(entry) if options.split.takes(part) => {
                    let labels = labels.map(|name| (name, find(name)));
                    stl10.add(files, images, entry.span()?, labels)?;
                }
                Some(entry) if part == Part::Unlabeled => {
                    let images = counted(entry.span()?.len() / RECORD, "image", "images");
                    let reason = format!(
                        "{images} without labels are not part of split = \"{}\": \"all+unlabeled\" takes them as well",
                        options.split
                    );
                    stl10.excluded.push(Excluded::ignored(entry.file_name(), reason));
                }
                None if options.split.takes(part) && part != Part::Unlabeled => missing.push(images),
                None if options.split.takes(part) => {
                    let problem = format!("{} has no {images}: use split = \"all\"", files.root.display());
                    return Err(Error::Usage(problem));
                }
                _ => {}
            }
        }
        if stl10.records.is_empty() {
            let problem = match stl10.excluded.iter().find(|e| e.name.contains('#')) {
                Some(first) => format!("no whole STL-10 image; {}: {}", first.name, first.reason),
                None if !missing.is_empty() => {
                    format!("no STL-10 image in the parts asked for ({} not there)", missing.join(" and "))
                }
                None => "no STL-10 image in the parts asked for".into(),
            };
            return Err(Error::format(&files.root, problem));
        }
        if stl10.records.iter().all(|(_, _, class)| class.is_none()) {
            stl10.classes.clear();
        }
        let note = |name: &&str| Excluded::ignored(*name, format!("not there: split = \"{}\" lacks it", options.split));
        stl10.excluded.extend(missing.iter().map(note));
        Ok(stl10)
    }

    /// Takes the images of one part; `labels`: the name of their file, and where it is.
    fn add(
        &mut self,
        files: &Files,
        name: &'static str,
        images: Span,
        labels: Option<(&'static str, Option<&Entry>)>,
    ) -> Result<()> {
        let count = images.len().div_ceil(RECORD);
        let labels = match labels {
            None => None,
            Some((missing, None)) => {
                self.excluded.push(Excluded::ignored(missing, format!("not there: {name} is unlabelled")));
                None
            }
            Some((file, Some(entry))) => {
                let bytes = entry.span()?;
                if bytes.len() != count {
                    let problem = format!(
                        "{} in {file} for {} in {name}: copy or download it again",
                        counted(bytes.len(), "label", "labels"),
                        counted(count, "image", "images"),
                    );
                    return Err(Error::format(files.root.join(&entry.name), problem));
                }
                Some(bytes)
            }
        };
        for (record, content) in images.chunks(RECORD).enumerate() {
            let label = labels.as_ref().map(|labels| labels[record]);
            let problem = match label {
                _ if content.len() < RECORD => {
                    format!("image cut short after {} of {RECORD} bytes", content.len())
                }
                Some(label) if !(1..=CLASSES).contains(&label) => format!("label {label}: they are 1 to {CLASSES}"),
                _ => {
                    self.records.push((self.parts.len(), record, label.map(|label| label - 1)));
                    continue;
                }
            };
            self.excluded.push(Excluded::bad(format!("{name}#{record}"), problem));
        }
        self.parts.push((name, images));
        Ok(())
    }
}

impl Source for Stl10 {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let (part, record, _) = self.records[i];
        Cow::Owned(format!("{}#{record}", self.parts[part].0))
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.records[i].2.map(u32::from)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let (part, record, _) = self.records[i];
        let planes = &self.parts[part].1[record * RECORD..][..RECORD];
        let mut pixels = Vec::with_capacity(RECORD);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let at = x * SIDE + y; // columns are contiguous
                pixels.extend_from_slice(&[planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
            }
        }
        Image::new(SIDE, SIDE, pixels)
    }

    fn check(&self) -> Result<()> {
        self.parts.iter().try_for_each(|(_, bytes)| bytes.check())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn kind(&self) -> &'static str {
        "STL-10 binary"
    }
}
