//! CIFAR-10 and CIFAR-100 in their official binary layout (<https://www.cs.toronto.edu/~kriz/cifar.html>), read in place.
//!
//! A batch file is a run of records: the label bytes (CIFAR-10: the class; CIFAR-100: coarse, then fine), then 3,072 bytes
//! of pixels, 32 x 32, row-major, as three planes R, G, B.

use std::borrow::Cow;
use std::path::PathBuf;

use super::files::{Entry, Files, Span, printable};
use super::options::Part;
use super::{Cifar100Labels, Excluded, Factor, Source, SourceOptions};
use crate::data::Image;
use crate::{Error, Result};

/// Pixels on a side.
const SIDE: usize = 32;
/// Bytes of one colour plane.
const PLANE: usize = SIDE * SIDE;

/// Which of the two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Cifar10,
    Cifar100,
}

impl Variant {
    /// Per label byte of a record: what it is, how many classes it has, and the file with their names.
    fn label_bytes(self) -> &'static [(&'static str, u8, &'static str)] {
        match self {
            Variant::Cifar10 => &[("class", 10, "batches.meta.txt")],
            Variant::Cifar100 => {
                &[("superclass", 20, "coarse_label_names.txt"), ("class", 100, "fine_label_names.txt")]
            }
        }
    }

    fn record_bytes(self) -> usize {
        self.label_bytes().len() + 3 * PLANE
    }

    fn title(self) -> &'static str {
        match self {
            Variant::Cifar10 => "CIFAR-10 binary",
            Variant::Cifar100 => "CIFAR-100 binary",
        }
    }
}

/// Where in a listing the data set lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    variant: Variant,
    folder: String,
}

/// The part a file name belongs to, if it names a batch.
fn batch(name: &str) -> Option<(Variant, Part)> {
    match name {
        "test_batch.bin" => Some((Variant::Cifar10, Part::Test)),
        "train.bin" => Some((Variant::Cifar100, Part::Train)),
        "test.bin" => Some((Variant::Cifar100, Part::Test)),
        _ => {
            let number = name.strip_prefix("data_batch_")?.strip_suffix(".bin")?;
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            is_number.then_some((Variant::Cifar10, Part::Train))
        }
    }
}

/// Looks for batches at the top of `files` or one folder down.
///
/// # Errors
/// If there are two such data sets (which one?), or only the edition for Python, which is made of pickles.
pub fn detect(files: &Files) -> Result<Option<Layout>> {
    let mut found: Option<Layout> = None;
    for entry in &files.entries {
        let folder = entry.folder();
        if folder.contains('/') {
            continue;
        }
        if matches!(entry.file_name(), "data_batch_1" | "test_batch") && entry.bytes()?.first() == Some(&0x80) {
            let problem = "the Python edition of CIFAR (pickles, not read here): get the binary version, \
                           cifar-10-binary.tar.gz or cifar-100-binary.tar.gz";
            return Err(Error::format(&files.root, problem));
        }
        let Some((variant, _)) = batch(entry.file_name()) else { continue };
        let layout = Layout { variant, folder: folder.to_string() };
        match &found {
            Some(first) if *first != layout => {
                let problem =
                    format!("two CIFAR data sets, in `{}` and `{folder}`: give one of the folders", first.folder);
                return Err(Error::format(&files.root, problem));
            }
            _ => found = Some(layout),
        }
    }
    Ok(found)
}

/// CIFAR-10 or CIFAR-100.
pub struct Cifar {
    variant: Variant,
    batches: Vec<(String, Span)>,
    /// Per image: batch, and record in it. Files' order, training batches first.
    records: Vec<(usize, usize)>,
    /// Which label byte is the class.
    label_byte: usize,
    classes: Vec<String>,
    factors: Vec<Factor>,
    excluded: Vec<Excluded>,
    files: Vec<PathBuf>,
}

impl Cifar {
    /// Opens the data set at `layout`: maps the batches and checks every record's labels. A cut-off last record and
    /// records with labels out of range are set aside.
    ///
    /// # Errors
    /// If a batch cannot be read, or no record remains.
    pub fn open(files: &Files, layout: &Layout, options: &SourceOptions) -> Result<Cifar> {
        let variant = layout.variant;
        options.split.refuse_unlabeled(files.root.display())?;
        let here = || files.entries.iter().filter(|entry| entry.folder() == layout.folder);
        let mut batches: Vec<(Part, &Entry)> =
            here().filter_map(|e| batch(e.file_name()).map(|(_, part)| (part, e))).collect();
        batches.retain(|(part, _)| options.split.takes(*part));
        batches.sort_by_key(|(part, entry)| (*part == Part::Test, entry.file_name().len(), entry.file_name()));
        let label_byte = match (variant, options.cifar100_labels) {
            (Variant::Cifar100, Cifar100Labels::Fine) => 1,
            _ => 0,
        };
        let names = variant.label_bytes().iter().map(|&(_, count, file)| {
            let text = here().find(|entry| entry.file_name() == file).map(Entry::bytes).transpose()?;
            Ok(class_names(text.as_deref().unwrap_or_default(), usize::from(count)))
        });
        let mut names: Vec<Vec<String>> = names.collect::<Result<_>>()?;

        let mut cifar = Cifar {
            variant,
            batches: Vec::new(),
            records: Vec::new(),
            label_byte,
            classes: std::mem::take(&mut names[label_byte]),
            factors: Vec::new(),
            excluded: files.excluded.clone(),
            files: files.on_disk(),
        };
        for (_, entry) in batches {
            cifar.add_batch(entry)?;
        }
        if cifar.records.is_empty() {
            let problem = match cifar.excluded.iter().find(|e| e.name.contains('#')) {
                Some(first) => format!("no whole CIFAR record; {}: {}", first.name, first.reason),
                None => "no CIFAR record in the batches asked for".into(),
            };
            return Err(Error::format(&files.root, problem));
        }
        cifar.factors =
            (0..names.len()).filter(|&byte| byte != label_byte).map(|b| cifar.factor(b, &names[b])).collect();
        Ok(cifar)
    }

    fn add_batch(&mut self, entry: &Entry) -> Result<()> {
        let bytes = entry.span()?;
        let name = entry.file_name().to_string();
        let record_bytes = self.variant.record_bytes();
        let kinds = self.variant.label_bytes();
        for (record, content) in bytes.chunks(record_bytes).enumerate() {
            let problem = if content.len() < record_bytes {
                Some(format!("record cut short after {} of {record_bytes} bytes", content.len()))
            } else {
                let bad = kinds.iter().zip(content).find(|((_, count, _), label)| *label >= count);
                bad.map(|((kind, count, _), label)| format!("{kind} label {label}, but there are only {count}"))
            };
            match problem {
                Some(reason) => self.excluded.push(Excluded::bad(format!("{name}#{record}"), reason)),
                None => self.records.push((self.batches.len(), record)),
            }
        }
        self.batches.push((name, bytes));
        Ok(())
    }

    fn factor(&self, byte: usize, values: &[String]) -> Factor {
        let labels = (0..self.records.len()).map(|i| u32::from(self.record(i)[byte])).collect();
        Factor { name: self.variant.label_bytes()[byte].0.into(), values: values.to_vec(), labels }
    }

    fn record(&self, i: usize) -> &[u8] {
        let (batch, record) = self.records[i];
        let record_bytes = self.variant.record_bytes();
        &self.batches[batch].1[record * record_bytes..][..record_bytes]
    }
}

impl Source for Cifar {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        let (batch, record) = self.records[i];
        Cow::Owned(format!("{}#{record}", self.batches[batch].0))
    }

    fn label(&self, i: usize) -> Option<u32> {
        // `min`: the file is mapped, so another process may have changed it since the labels were checked.
        Some(u32::from(self.record(i)[self.label_byte]).min(self.classes.len() as u32 - 1))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn factors(&self) -> &[Factor] {
        &self.factors
    }

    fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let planes = &self.record(i)[self.variant.label_bytes().len()..];
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        let mut pixels = Vec::with_capacity(3 * PLANE);
        for ((&r, &g), &b) in red.iter().zip(green).zip(blue) {
            pixels.extend_from_slice(&[r, g, b]);
        }
        Image::new(SIDE, SIDE, pixels)
    }

    fn check(&self) -> Result<()> {
        self.batches.iter().try_for_each(|(_, bytes)| bytes.check())
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn kind(&self) -> &'static str {
        self.variant.title()
    }
}

/// The first `count` non-empty lines of `text`; numbers for names that are missing.
pub(super) fn class_names(text: &[u8], count: usize) -> Vec<String> {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let mut names: Vec<String> = lines.filter(|line| !line.is_empty()).map(printable).collect();
    names.truncate(count);
    (names.len()..count).for_each(|i| names.push(i.to_string()));
    names
}
