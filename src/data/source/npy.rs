//! Images and labels in NumPy arrays, read in place.
//!
//! `NAME.npy` holds uint8, C order, of shape N,H,W,3 (RGB), N,H,W,4 (an alpha channel, dropped), N,H,W,1 or N,H,W (grey).
//! The labels are whole numbers of any width, N or N,1 of them, in the first of these files beside it that is there:
//! `NAME_labels.npy`; NAME with `images` replaced by `labels` (`train_images.npy`: `train_labels.npy`); `labels.npy`, if it
//! is as long. A label of -1 is none; the classes are the numbers that occur, in their order.
//!
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::files::{Block, printable};
use super::{Excluded, MAX_PIXELS, Source, counted};
use crate::data::Image;
use crate::{Error, Result};

/// What every file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Whether `bytes` begin like a NumPy array.
pub fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// The images of an array.
pub struct Arrays {
    path: PathBuf,
    /// The file's name, for the images' names.
    name: String,
    block: Block,
    /// Where the array begins in `block`; it lies inside.
    start: usize,
    height: usize,
    width: usize,
    channels: usize,
    /// Per image that is kept: its index in the array, and its class.
    kept: Vec<(usize, Option<u32>)>,
    classes: Vec<String>,
    excluded: Vec<Excluded>,
    files: Vec<PathBuf>,
}

impl Arrays {
    /// Opens the array at `path`, whose content is `block`, and its labels.
    ///
    /// # Errors
    /// If it is no array of images, holds fewer bytes than its header says, or its labels do not fit it.
    pub fn open(path: &Path, block: Block) -> Result<Arrays> {
        let array = Array::parse(&block).map_err(|problem| Error::format(path, problem))?;
        let (height, width, channels) = picture_shape(&array).map_err(|problem| Error::format(path, problem))?;
        let count = array.shape[0];
        let mut excluded = Vec::new();
        let file_name = printable(path.file_name().unwrap_or_default().as_encoded_bytes());
        if array.start + array.bytes < block.len() {
            let more = counted(block.len() - array.start - array.bytes, "byte", "bytes");
            excluded.push(Excluded::ignored(&file_name, format!("{more} after the array")));
        }
        let mut files = vec![path.to_path_buf()];
        let labels = match find_labels(path) {
            None => None,
            Some((beside, certain)) => {
                let labels = read_labels(&beside)?;
                if labels.len() == count {
                    files.push(beside);
                    Some(labels)
                } else {
                    let problem = format!(
                        "{} for {} in {file_name}",
                        counted(labels.len(), "label", "labels"),
                        counted(count, "image", "images")
                    );
                    if certain {
                        return Err(Error::format(beside, problem));
                    }
                    excluded.push(Excluded::ignored("labels.npy", format!("{problem}: taken for another array's")));
                    None
                }
            }
        };
        let (kept, classes) = classify(count, labels.as_deref(), &file_name, &mut excluded);
        if kept.is_empty() {
            let first = excluded.iter().find(|e| e.name.contains('#')).map_or("", |e| &e.reason);
            return Err(Error::format(path, format!("no image of it can be used ({first})")));
        }
        let start = array.start;
        Ok(Arrays {
            path: path.to_path_buf(),
            name: file_name,
            block,
            start,
            height,
            width,
            channels,
            kept,
            classes,
            excluded,
            files,
        })
    }
}

impl Source for Arrays {
    fn len(&self) -> usize {
        self.kept.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        Cow::Owned(format!("{}#{}", self.name, self.kept[i].0))
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.kept[i].1
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let samples = self.height * self.width * self.channels;
        let at = self.start + self.kept[i].0 * samples;
        let samples = self.block.get(at..at + samples).ok_or_else(|| Error::format(&self.path, "it has shrunk"))?;
        let pixels = match self.channels {
            3 => samples.to_vec(),
            1 => samples.iter().flat_map(|&v| [v; 3]).collect(),
            _ => samples.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        };
        Image::new(self.width, self.height, pixels)
    }

    fn check(&self) -> Result<()> {
        self.block.check()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn kind(&self) -> &'static str {
        "NumPy array"
    }
}

/// Height, width and channels of the pictures in an array, or why it is not one of pictures.
fn picture_shape(array: &Array) -> Result<(usize, usize, usize), String> {
    let shown = array.shown();
    if array.kind != 'u' || array.width != 1 {
        return Err(format!("an array of {}: images are uint8, 0 to 255; convert them and save again", array.descr));
    }
    let (height, width, channels) = match array.shape[..] {
        [_, 3, _, width] if width > 4 => {
            return Err(format!("shape {shown}: channels come last; save images.transpose(0, 2, 3, 1)"));
        }
        [_, height, width, channels @ (1 | 3 | 4)] => (height, width, channels),
        [_, _, 3] => return Err(format!("shape {shown} is that of one image: save images[None]")),
        [_, height, width] => (height, width, 1),
        _ => return Err(format!("shape {shown}: images are N,H,W,3 or N,H,W")),
    };
    if array.fortran && array.shape.len() > 1 {
        return Err("in Fortran order: save numpy.ascontiguousarray(images)".into());
    }
    match (height as u64).saturating_mul(width as u64) {
        0 => Err(format!("shape {shown}: images without pixels")),
        pixels if pixels > MAX_PIXELS => {
            Err(format!("{width} x {height} pixels, over the limit of {} million", MAX_PIXELS / 1_000_000))
        }
        _ if array.shape[0] == 0 => Err(format!("shape {shown}: no images")),
        _ => Ok((height, width, channels)),
    }
}

/// The file of labels that belongs to the images at `path`, if there is one, and whether that is certain.
fn find_labels(path: &Path) -> Option<(PathBuf, bool)> {
    let stem = path.file_stem()?.to_str()?;
    let mut names = vec![(format!("{stem}_labels.npy"), true)];
    if stem.contains("images") {
        names.push((format!("{}.npy", stem.replace("images", "labels")), true));
    }
    names.push(("labels.npy".into(), false));
    names.dedup_by(|later, earlier| later.0 == earlier.0);
    let places = names.into_iter().map(|(name, certain)| (path.with_file_name(name), certain));
    places.into_iter().find(|(beside, _)| beside != path && beside.is_file())
}

/// Reads the whole numbers in the array at `path`.
fn read_labels(path: &Path) -> Result<Vec<i64>> {
    let block = Block::map(path)?;
    let bad = |problem: String| Error::format(path, problem);
    if !is_npy(&block) {
        return Err(bad("not a NumPy array".into()));
    }
    let array = Array::parse(&block).map_err(bad)?;
    if !matches!(array.shape[..], [_] | [_, 1]) {
        return Err(bad(format!("shape {}: labels are N numbers", array.shown())));
    }
    if !matches!(array.kind, 'i' | 'u' | 'b') || !matches!(array.width, 1 | 2 | 4 | 8) {
        return Err(bad(format!("an array of {}: labels are whole numbers; save labels.astype('int64')", array.descr)));
    }
    let number = |bytes: &[u8]| {
        let high = if array.big_endian { bytes[0] } else { bytes[bytes.len() - 1] };
        let negative = array.kind == 'i' && high >= 0x80;
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        if array.big_endian {
            wide[..bytes.len()].reverse();
        }
        // Beyond 2^63 - 1 there is no class; as a negative number it is refused with its image.
        i64::from_le_bytes(wide)
    };
    Ok(block[array.start..array.start + array.bytes].chunks_exact(array.width).map(number).collect())
}

/// Per usable image its index and class, and the names of the classes.
fn classify(
    count: usize,
    labels: Option<&[i64]>,
    name: &str,
    excluded: &mut Vec<Excluded>,
) -> (Vec<(usize, Option<u32>)>, Vec<String>) {
    let Some(labels) = labels else { return ((0..count).map(|i| (i, None)).collect(), Vec::new()) };
    let classes: Vec<i64> = labels.iter().copied().filter(|&l| l >= 0).collect::<BTreeSet<_>>().into_iter().collect();
    let mut kept = Vec::with_capacity(count);
    for (i, label) in labels.iter().enumerate() {
        match classes.binary_search(label) {
            Ok(class) => kept.push((i, Some(class as u32))),
            Err(_) if *label == -1 => kept.push((i, None)),
            Err(_) => excluded.push(Excluded::bad(
                format!("{name}#{i}"),
                format!("label {label}: classes are 0 or more, and -1 is none"),
            )),
        }
    }
    (kept, classes.iter().map(i64::to_string).collect())
}

/// A header, checked against the file's length.
struct Array {
    /// As NumPy writes the type: `|u1`, `<i8`.
    descr: String,
    big_endian: bool,
    /// `u`, `i`, `f`, ...
    kind: char,
    /// Bytes of an element, at least 1.
    width: usize,
    fortran: bool,
    /// At least one dimension.
    shape: Vec<usize>,
    /// Offset of the first element.
    start: usize,
    /// Of all elements; they lie inside the file.
    bytes: usize,
}

impl Array {
    /// Reads the header of a file that [`is_npy`]. The error is for people, without the file's name.
    fn parse(file: &[u8]) -> Result<Array, String> {
        let cut = || "cut short inside its header: copy it again".to_string();
        let version = *file.get(6).ok_or_else(cut)?;
        let (len, at) = match version {
            1 => (file.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]]))), 10),
            2 | 3 => (file.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize), 12),
            _ => return Err(format!("version {version} of the format, which is not known here")),
        };
        let start = len.ok_or_else(cut)?.checked_add(at).ok_or_else(cut)?;
        let header = file.get(at..start).ok_or_else(cut)?;
        let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
        let value = |key: &str| {
            let (_, rest) =
                header.split_once(&format!("'{key}'")).or_else(|| header.split_once(&format!("\"{key}\"")))?;
            rest.trim_start().strip_prefix(':').map(str::trim_start)
        };
        let damaged = |key: &str| format!("damaged header: no valid '{key}'");
        let descr = value("descr").ok_or_else(|| damaged("descr"))?;
        let descr: String = match descr.strip_prefix(['\'', '"']) {
            Some(text) => text.chars().take_while(|c| !matches!(c, '\'' | '"')).take(32).collect(),
            None => return Err("a structured array: images are plain uint8".into()),
        };
        let (order, kind, width) = split_descr(&descr).ok_or_else(|| damaged("descr"))?;
        let fortran = match value("fortran_order").ok_or_else(|| damaged("fortran_order"))? {
            text if text.starts_with("True") => true,
            text if text.starts_with("False") => false,
            _ => return Err(damaged("fortran_order")),
        };
        let shape = value("shape").and_then(parse_shape).ok_or_else(|| damaged("shape"))?;
        let elements = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let bytes = elements.and_then(|n| n.checked_mul(width));
        let array = Array {
            descr,
            big_endian: order == '>',
            kind,
            width,
            fortran,
            shape,
            start,
            bytes: bytes.unwrap_or(usize::MAX),
        };
        let there = file.len() - start;
        if array.bytes > there {
            return Err(format!(
                "cut short, or its header lies: shape {} of {} needs {} bytes, {there} are there",
                array.shown(),
                array.descr,
                bytes.map_or("over 2^64".to_string(), |bytes| bytes.to_string())
            ));
        }
        Ok(array)
    }

    /// The shape as Python writes it.
    fn shown(&self) -> String {
        let numbers: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        format!("({})", numbers.join(", "))
    }
}

/// `<i8` as byte order, kind and width.
fn split_descr(descr: &str) -> Option<(char, char, usize)> {
    let mut chars = descr.chars();
    let (order, kind) =
        (chars.next().filter(|c| "<>|=".contains(*c))?, chars.next().filter(char::is_ascii_alphabetic)?);
    let width = chars.as_str().parse::<usize>().ok().filter(|&n| (1..=1 << 20).contains(&n))?;
    Some((order, kind, width))
}

/// `(2, 3, ...` up to the closing bracket; at most 32 dimensions, as in NumPy.
fn parse_shape(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let inside = inside.trim().strip_suffix(',').unwrap_or(inside.trim());
    let shape: Option<Vec<usize>> =
        inside.split(',').take(33).map(|n| n.trim().trim_end_matches('L').parse().ok()).collect();
    shape.filter(|shape| (1..=32).contains(&shape.len()))
}
