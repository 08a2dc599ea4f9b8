//! Tar archives, indexed in place: entries are ranges of a memory map (`.tar`) or of an inflated buffer (`.tar.gz`).
//! Nothing is unpacked, so an entry's name cannot lead anywhere; odd names are reported and left out all the same.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::files::{Block, Entry, Files, Location, Span, printable};
use super::{Excluded, WHAT_TO_GIVE};
use crate::{Error, Result};

/// How many times its size a `.tar.gz` may inflate to, beyond [`FREE_INFLATED`]: images are compressed already, and what
/// gzip shrinks more than this is no data set.
const MAX_RATIO: usize = 64;
/// Inflated bytes below which the ratio does not count.
const FREE_INFLATED: usize = 64 << 20;

/// Whether `bytes` are gzip data or begin with a tar header.
pub fn is_archive(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b]) || is_tar(bytes)
}

/// Lists the archive at `path`, whose content is `block`; a compressed one may inflate to `max_inflated` bytes.
///
/// # Errors
/// [`Error::Format`] if the file is no tar archive, or is cut short; [`Error::Io`] if it cannot be read.
pub fn index(path: &Path, block: Block, max_inflated: usize) -> Result<Files> {
    if block.starts_with(&[0x1f, 0x8b]) {
        let inflated = Block::Inflated(inflate(path, &block, max_inflated)?);
        if !is_tar(&inflated) {
            return Err(Error::format(path, "gzip, but not of a tar archive: give a .tar.gz of an image folder"));
        }
        return index_tar(path, "tar.gz archive of images", inflated);
    }
    if is_tar(&block) {
        return index_tar(path, "tar archive of images", block);
    }
    Err(Error::format(path, not_an_archive(&block)))
}

/// What to tell someone whose file is not a tar archive.
fn not_an_archive(bytes: &[u8]) -> String {
    let magics: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "a zip archive: unpack it and give the folder (of an .npz the .npy)"),
        (b"\xfd7zXZ\0", "compressed with xz: decompress it and give the .tar"),
        (b"BZh", "compressed with bzip2: decompress it and give the .tar"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd: decompress it and give the .tar"),
        (b"\xff\xd8\xff", "a single JPEG image: give the folder that holds the images"),
        (b"\x89PNG\r\n\x1a\n", "a single PNG image: give the folder that holds the images"),
        (b"RIFF", "a single WebP image: give the folder that holds the images"),
        (b"\x89HDF", "an HDF5 file: save its arrays as .npy"),
    ];
    match magics.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, what)) => (*what).to_string(),
        None if bytes.is_empty() => format!("the file is empty: give {WHAT_TO_GIVE}"),
        None => format!("not a tar archive: give {WHAT_TO_GIVE}"),
    }
}

/// Of tar, in bytes.
const BLOCK: usize = 512;

/// Inflates a gzip file, in steps, so that neither a bomb nor a small machine ends in an abort.
fn inflate(path: &Path, compressed: &[u8], max_inflated: usize) -> Result<Vec<u8>> {
    const STEP: usize = 1 << 20;
    let most = max_inflated.min(FREE_INFLATED.saturating_add(compressed.len().saturating_mul(MAX_RATIO)));
    let mut decoder = MultiGzDecoder::new(compressed);
    let mut bytes = Vec::new();
    loop {
        if bytes.len() > most || bytes.try_reserve(STEP).is_err() {
            let problem = format!("inflates to over {} MiB, too much for memory: give the .tar instead", most >> 20);
            return Err(Error::format(path, problem));
        }
        let read = (&mut decoder).take(STEP as u64).read_to_end(&mut bytes);
        match read {
            Ok(0) => return Ok(bytes),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                let problem =
                    format!("the archive is cut short after {} bytes: copy or download it again", compressed.len());
                return Err(Error::format(path, problem));
            }
            Err(e) => return Err(Error::format(path, format!("damaged gzip data ({e}): copy or download it again"))),
        }
    }
}

/// Whether `bytes` begin with a tar header (any dialect: its checksum fits) or with an empty archive's zeros.
fn is_tar(bytes: &[u8]) -> bool {
    let Some(block) = bytes.get(..512) else { return false };
    if block.iter().all(|&b| b == 0) {
        return true;
    }
    // The checksum is taken with its own field read as spaces.
    let sum: u32 =
        block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { 32 } else { u32::from(b) }).sum();
    tar::Header::from_byte_slice(block).cksum().is_ok_and(|stored| stored == sum)
}

fn index_tar(path: &Path, kind: &'static str, block: Block) -> Result<Files> {
    let block = Arc::new(block);
    let mut archive = tar::Archive::new(Cursor::new(&block[..]));
    let damaged = |count: usize, e: &std::io::Error| {
        Error::format(path, format!("damaged or cut short after {count} entries ({e}): copy or download it again"))
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut excluded = Vec::new();
    let mut folders = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut last = 0;
    for (count, entry) in archive.entries_with_seek().map_err(|e| damaged(0, &e))?.enumerate() {
        let entry = entry.map_err(|e| damaged(count, &e))?;
        let name = entry.path_bytes();
        let shown = printable(&name);
        let start = usize::try_from(entry.raw_file_position()).ok();
        let end = start.and_then(|start| start.checked_add(usize::try_from(entry.size()).ok()?));
        let Some(span) = start.zip(end).and_then(|(start, end)| Span::new(&block, start..end)) else {
            let problem = format!(
                "cut short: entry {shown} claims {} bytes, past the archive's end: copy or download it again",
                entry.size()
            );
            return Err(Error::format(path, problem));
        };
        last = end.unwrap_or(last);
        match admit(&name, entry.header().entry_type()) {
            Admission::Skip => {}
            Admission::Folder(name) => folders.push(name),
            Admission::Ignore(reason) => excluded.push(Excluded::ignored(shown, reason)),
            Admission::File(name) => {
                let new = Entry { name: name.clone(), location: Location::Archived(span) };
                match by_name.get(&name) {
                    // As when unpacking: the last of several entries of one name counts.
                    Some(&earlier) => {
                        excluded.push(Excluded::ignored(name, "replaced by a later entry of the same name"));
                        entries[earlier] = new;
                    }
                    None => {
                        by_name.insert(name, entries.len());
                        entries.push(new);
                    }
                }
            }
        }
    }
    // A block of zeros ends an archive: without it, what was cut off began with a whole entry.
    let zeros = last.checked_next_multiple_of(BLOCK).and_then(|end| block.get(end..end.checked_add(BLOCK)?));
    if !zeros.is_some_and(|zeros| zeros.iter().all(|&b| b == 0)) {
        let problem = format!(
            "cut short after {} files: the mark of its end is missing: copy or download it again",
            entries.len()
        );
        return Err(Error::format(path, problem));
    }
    let mut files = Files::sorted(path, kind, entries, excluded);
    files.report_empty(folders);
    Ok(files)
}

/// What to do with an archive's entry.
enum Admission {
    /// A regular file, under its name without `.` components.
    File(String),
    /// A folder, likewise.
    Folder(String),
    /// Left out, and reported.
    Ignore(&'static str),
    /// Not a thing of its own: the top folder, global headers.
    Skip,
}

fn admit(name: &[u8], kind: tar::EntryType) -> Admission {
    if kind.is_pax_global_extensions() {
        return Admission::Skip;
    }
    if kind.is_symlink() || kind.is_hard_link() {
        return Admission::Ignore("a link: links inside archives are not followed");
    }
    // Old tars mark folders by a trailing slash only.
    let is_folder = kind.is_dir() || name.ends_with(b"/");
    if !is_folder && !kind.is_file() && !kind.is_contiguous() {
        return Admission::Ignore("not a regular file");
    }
    let components: Vec<&[u8]> = name.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    if name.starts_with(b"/") || components.contains(&&b".."[..]) {
        return Admission::Ignore("its name leads out of the archive");
    }
    if components.is_empty() {
        return Admission::Skip;
    }
    if components.iter().any(|c| c.starts_with(b".") || *c == b"__MACOSX") {
        return Admission::Ignore("hidden");
    }
    let name = components.iter().map(|c| printable(c)).collect::<Vec<_>>().join("/");
    if is_folder { Admission::Folder(name) } else { Admission::File(name) }
}
