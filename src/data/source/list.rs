//! A list file: a line an image, its path and perhaps its label.
//!
//! - `.txt`, `.lst`: `PATH`, or `PATH LABEL` with a tab, a comma or spaces between. Where a path holds such a character the
//!   end of its image extension (`.jpg`) tells.
//! - `.csv`, `.tsv`: the first two columns, quoted as usual; or, below a header, the columns `path` (or `file`, `filename`,
//!   `image`) and `label` (or `class`, `target`), wherever they are.
//!
//! Empty lines and lines that begin with `#` are skipped. Paths are relative to the list's folder, or absolute. A label is a
//! name or a number; none, or -1, is no label. The classes are the labels that occur: in the order of the numbers if all
//! are numbers, else of the text. What is not there or is listed twice is set aside, with its line.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::decode::{HEAD_BYTES, ImageFormat};
use super::files::{Entry, Location, printable};
use super::{Excluded, Original, PictureKind, Source, decode, picture_kind};
use crate::data::Image;
use crate::{Error, Result};

/// How the lines of a list are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Path, separator, label.
    Plain,
    /// Columns, with this between.
    Columns(u8),
}

impl Style {
    /// From the extension; `None` if it is not one of a list.
    pub fn of(path: &Path) -> Option<Style> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" | "lst" => Some(Style::Plain),
            "csv" => Some(Style::Columns(b',')),
            "tsv" => Some(Style::Columns(b'\t')),
            _ => None,
        }
    }
}

/// The images of a list.
pub struct List {
    path: PathBuf,
    entries: Vec<Entry>,
    labels: Vec<Option<u32>>,
    classes: Vec<String>,
    excluded: Vec<Excluded>,
}

/// A line that names an image.
struct Line<'a> {
    /// From 1.
    number: u64,
    path: Cow<'a, [u8]>,
    label: Option<String>,
}

impl List {
    /// Reads the list at `path`, whose content is `bytes`, and looks whether its files are there.
    ///
    /// # Errors
    /// If it is no text, or names no file that is there.
    pub fn open(path: &Path, bytes: &[u8], style: Style) -> Result<List> {
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            return Err(Error::format(path, "a list in UTF-16: save it as UTF-8"));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let lines = match style {
            Style::Plain => plain_lines(bytes),
            Style::Columns(delimiter) => columns(bytes, delimiter).map_err(|problem| Error::format(path, problem))?,
        };
        let mut list = List {
            path: path.to_path_buf(),
            entries: Vec::new(),
            labels: Vec::new(),
            classes: classes(&lines),
            excluded: Vec::new(),
        };
        let position: HashMap<String, u32> = list.classes.iter().cloned().zip(0..).collect();
        let mut seen: HashMap<Vec<u8>, (u64, Option<u32>)> = HashMap::new();
        for line in lines {
            let name = printable(&line.path);
            let shown = shortened(&name);
            let label = line.label.as_ref().and_then(|label| position.get(label)).copied();
            match seen.get(&line.path[..]) {
                Some((first, known)) => list.excluded.push(match *known == label {
                    true => Excluded::ignored(shown, format!("line {}: listed in line {first} already", line.number)),
                    false => Excluded::bad(shown, format!("line {}: another label than in line {first}", line.number)),
                }),
                None => {
                    match find(path, &line.path) {
                        Ok(file) => {
                            list.entries.push(Entry { name, location: Location::Disk(file) });
                            list.labels.push(label);
                        }
                        Err(reason) => {
                            list.excluded.push(Excluded::bad(shown, format!("line {}: {reason}", line.number)))
                        }
                    }
                    seen.insert(line.path.into_owned(), (line.number, label));
                }
            }
        }
        if list.entries.is_empty() {
            let first = list.excluded.iter().take(3).map(|e| format!("{}: {}", e.name, e.reason)).collect::<Vec<_>>();
            let found = if first.is_empty() { "no line names one".into() } else { first.join("; ") };
            return Err(Error::format(path, format!("a list without images ({found})")));
        }
        Ok(list)
    }
}

impl Source for List {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn name(&self, i: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.entries[i].name)
    }

    fn label(&self, i: usize) -> Option<u32> {
        self.labels[i]
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    fn read(&self, i: usize) -> Result<Image> {
        let entry = &self.entries[i];
        decode(&entry.bytes()?).map_err(|reason| Error::format(&entry.name, reason))
    }

    fn jpeg(&self, i: usize) -> Result<Option<Cow<'_, [u8]>>> {
        let bytes = self.entries[i].bytes()?;
        Ok((ImageFormat::of(&bytes) == Some(ImageFormat::Jpeg)).then_some(bytes))
    }

    fn original(&self, i: usize) -> Result<Option<Original<'_>>> {
        Ok(Some(self.entries[i].original()))
    }

    fn picture_kind(&self, i: usize) -> Option<PictureKind> {
        picture_kind(&self.entries[i].head(HEAD_BYTES).ok()?)
    }

    fn files(&self) -> Vec<PathBuf> {
        let own = self.entries.iter().filter_map(|entry| match &entry.location {
            Location::Disk(path) => Some(path.clone()),
            Location::Archived(_) => None,
        });
        std::iter::once(self.path.clone()).chain(own).collect()
    }

    fn kind(&self) -> &'static str {
        "list of files"
    }
}

/// A name that is no path may be as long as the file.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_owned(),
    }
}

/// The file that a line of the list at `list` means, or why it is none. It is not opened: a pipe would wait for its writer.
fn find(list: &Path, name: &[u8]) -> Result<PathBuf, String> {
    if name.contains(&0) {
        return Err("a NUL byte in the path".into());
    }
    if name.is_empty() {
        return Err("no path".into());
    }
    #[cfg(unix)]
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name);
    #[cfg(not(unix))]
    let name = std::str::from_utf8(name).map_err(|_| "not UTF-8".to_string())?;
    let path = list.parent().unwrap_or(Path::new("")).join(name);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(metadata) if metadata.is_dir() => Err("a folder".into()),
        Ok(_) => Err("not a regular file".into()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err("no such file".into()),
        Err(e) => Err(format!("cannot be read: {e}")),
    }
}

/// Labels that occur, in their order.
fn classes(lines: &[Line]) -> Vec<String> {
    let mut classes: Vec<&String> = lines.iter().filter_map(|line| line.label.as_ref()).collect();
    classes.sort();
    classes.dedup();
    let numbers: Option<Vec<u64>> = classes.iter().map(|label| label.parse().ok()).collect();
    if let Some(numbers) = numbers {
        let mut pairs: Vec<_> = numbers.into_iter().zip(classes).collect();
        pairs.sort();
        return pairs.into_iter().map(|(_, label)| label.clone()).collect();
    }
    classes.into_iter().cloned().collect()
}

/// A label as it is written, or none.
fn label(text: &[u8]) -> Option<String> {
    let text = printable(text.trim_ascii());
    (!text.is_empty() && text != "-1").then_some(text)
}

fn is_comment(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"#")
}

fn is_path_column(name: &[u8]) -> bool {
    const NAMES: [&str; 8] = ["path", "file", "filename", "file_name", "image", "image_path", "img_path", "filepath"];
    std::str::from_utf8(name).is_ok_and(|name| NAMES.iter().any(|n| name.trim().eq_ignore_ascii_case(n)))
}

fn is_label_column(name: &[u8]) -> bool {
    const NAMES: [&str; 5] = ["label", "class", "target", "category", "class_name"];
    std::str::from_utf8(name).is_ok_and(|name| NAMES.iter().any(|n| name.trim().eq_ignore_ascii_case(n)))
}

fn plain_lines(bytes: &[u8]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|&b| b == b'\n')) {
        let line = line.trim_ascii();
        if is_comment(line) {
            continue;
        }
        let (path, text) = split(line);
        if lines.is_empty() && is_path_column(path) && (text.is_empty() || is_label_column(text)) {
            continue;
        }
        lines.push(Line { number, path: Cow::Borrowed(path), label: label(text) });
    }
    lines
}

/// Parts a line into path and label (empty if there is none).
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let parted = |at: usize| (line[..at].trim_ascii_end(), line[at + 1..].trim_ascii());
    if let Some(tab) = line.iter().position(|&b| b == b'\t') {
        return parted(tab);
    }
    if ends_like_an_image(line) {
        return (line, b"");
    }
    let separators = || line.iter().enumerate().filter(|(_, b)| matches!(b, b',' | b' ')).map(|(at, _)| at);
    let after_extension = separators().find(|&at| ends_like_an_image(line[..at].trim_ascii_end()));
    match after_extension.or_else(|| separators().next_back()) {
        Some(at) => {
            // `a.jpg , cat` and `a.jpg   cat` alike.
            let (path, rest) = parted(at);
            (path, rest.strip_prefix(b",").unwrap_or(rest).trim_ascii())
        }
        None => (line, b""),
    }
}

fn ends_like_an_image(path: &[u8]) -> bool {
    let Some(dot) = path.iter().rposition(|&b| b == b'.') else { return false };
    let extension = path[dot + 1..].to_ascii_lowercase();
    matches!(&extension[..], b"jpg" | b"jpeg" | b"jpe" | b"jfif" | b"png" | b"apng" | b"webp")
}

/// Lines of a table. Errors with what is wrong if it is none.
fn columns(bytes: &[u8], delimiter: u8) -> Result<Vec<Line<'static>>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let mut lines = Vec::new();
    let (mut path_column, mut label_column) = (0, Some(1));
    let mut record = csv::ByteRecord::new();
    let mut first = true;
    while reader.read_byte_record(&mut record).map_err(|e| format!("no table of files: {e}"))? {
        let number = record.position().map_or(0, csv::Position::line);
        if std::mem::take(&mut first) && record.iter().any(is_path_column) {
            path_column = record.iter().position(is_path_column).unwrap_or(0);
            label_column = record.iter().position(is_label_column);
            continue;
        }
        let cell = |column: usize| record.get(column).unwrap_or_default().trim_ascii();
        if record.iter().all(|cell| cell.trim_ascii().is_empty()) {
            continue;
        }
        lines.push(Line {
            number,
            path: Cow::Owned(cell(path_column).to_vec()),
            label: label_column.and_then(|column| label(cell(column))),
        });
    }
    Ok(lines)
}
