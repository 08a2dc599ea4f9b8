//! Packed files: a data set in one file that is read in place, through a memory map, without a copy.
//!
//! ```text
//! offset          what
//! 0               header, 80 bytes: magic "\x89CDPACK\n", byte order, version, counts, checksums; zeros up to 4096
//! 4096            payload: the images' bytes, back to back, each raw uint8 HWC or a JPEG file
//! (multiple of 64) tables: a record an image (offset, bytes, width, height, label, encoding, end of name),
//!                 factor labels (u32), a CRC-32 for every 256 KiB of payload, names (UTF-8),
//!                 and a description in JSON (kind, classes, factors, what was left out and why)
//! ```
//!
//! Numbers are in the byte order of the machine that wrote them, which the header tells; a machine of the other order
//! refuses the file. Opening reads and checks the header and the tables, nothing else. A block of payload is checked
//! against its CRC when it is first used, so damage is an error before it is a pixel. A file that is cut short or changed
//! while it is mapped is an error as well (see [`mapped`](crate::data::mapped)).

mod layout;
mod pack;
mod reread;

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

pub use layout::VERSION;
pub use pack::pack;
pub use reread::PackedSource;

use self::layout::{BLOCK_BYTES, PAYLOAD_START};
use super::catalog::{Catalog, Encoding};
use super::mapped::{Change, MappedFile};
use super::source::decode;
use crate::{Error, Result};

/// The payload of a packed file.
pub struct Packed {
    file: MappedFile,
    block_crcs: Vec<u32>,
    /// Blocks that were found to be right.
    checked: Vec<AtomicBool>,
    payload_bytes: usize,
}

/// True if the file at `path` begins as a packed file does.
pub fn is_packed(path: &Path) -> bool {
    let mut magic = [0; layout::MAGIC.len()];
    // Not for folders, and not for pipes: they would block, and lose what was read.
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    regular
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == layout::MAGIC
}

/// Opens the packed file at `path`; takes time for its tables, not for its images.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is no packed file, of another version, cut short, or says
/// something that is not so.
pub fn open(path: &Path) -> Result<(Catalog, Packed)> {
    let file = MappedFile::open(path)?;
    let contents = layout::decode(&file);
    // Before the verdict: tables that changed while they were read are not the writer's fault.
    file.check()?;
    let layout::Contents { catalog, block_crcs } = contents.map_err(|problem| Error::format(path, problem))?;
    let checked = block_crcs.iter().map(|_| AtomicBool::new(false)).collect();
    let payload_bytes = catalog.payload_bytes() as usize;
    Ok((catalog, Packed { file, block_crcs, checked, payload_bytes }))
}

/// Reads bytes as a packed file, for what can be known without the images' content: what opening a file does.
///
/// # Errors
/// What is wrong with them, for people.
pub fn parse(bytes: &[u8]) -> Result<Catalog, String> {
    layout::decode(bytes).map(|contents| contents.catalog)
}

impl Packed {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Bytes of the payload, checked against their blocks' CRCs the first time.
    ///
    /// # Errors
    /// [`Error::Format`] if a block is damaged.
    pub fn bytes(&self, range: Range<u64>) -> Result<&[u8]> {
        let (start, end) = (range.start as usize, range.end as usize);
        for block in start / BLOCK_BYTES as usize..end.div_ceil(BLOCK_BYTES as usize) {
            if !self.checked[block].load(Ordering::Relaxed) {
                self.check_block(block)?;
                self.checked[block].store(true, Ordering::Relaxed);
            }
        }
        Ok(&self.file[PAYLOAD_START + start..PAYLOAD_START + end])
    }

    /// The bytes of the payload that a block holds.
    fn block(&self, block: usize) -> Range<u64> {
        let start = block * BLOCK_BYTES as usize;
        start as u64..(start + BLOCK_BYTES as usize).min(self.payload_bytes) as u64
    }

    fn check_block(&self, block: usize) -> Result<()> {
        let Range { start, end } = self.block(block);
        let (start, end) = (start as usize, end as usize);
        if crc32fast::hash(&self.file[PAYLOAD_START + start..PAYLOAD_START + end]) == self.block_crcs[block] {
            return Ok(());
        }
        let place = format!("bytes {} to {}", PAYLOAD_START + start, PAYLOAD_START + end);
        Err(Error::format(self.path(), format!("damaged between {place}: copy or pack it again")))
    }

    /// `Ok` if all bytes read so far were the file's own. A file that was written to is read again as a whole: if every
    /// block is still right, nothing has happened.
    ///
    /// # Errors
    /// [`Error::Format`] if it was cut short or changed.
    pub fn check(&self) -> Result<()> {
        match self.file.change() {
            Change::None => Ok(()),
            Change::Broken => self.file.check(),
            Change::Touched => {
                let changed = |e| Error::format(self.path(), format!("changed while it was being read ({e})"));
                (0..self.block_crcs.len()).into_par_iter().try_for_each(|b| self.check_block(b)).map_err(changed)?;
                self.file.accept();
                Ok(())
            }
        }
    }
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Of the data set, for people.
    pub description: String,
    /// What is wrong, a line each; empty if nothing is.
    pub problems: Vec<String>,
}

/// Checks all of the packed file at `path`: what opening checks, every block, every image, and the fingerprint. `progress` is
/// called with (images done, images in all), from any thread.
///
/// # Errors
/// As [`open`]; damage beyond that is listed in the result.
pub fn verify(path: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Verified> {
    let (catalog, packed) = open(path)?;
    let bad_blocks: Vec<(usize, Error)> = (0..packed.block_crcs.len())
        .into_par_iter()
        .filter_map(|block| Some((block, packed.check_block(block).err()?)))
        .collect();
    let mut problems: Vec<String> = bad_blocks
        .iter()
        .map(|(block, e)| format!("{} ({})", problem(e), catalog.images_in(packed.block(*block))))
        .collect();
    let done = AtomicUsize::new(0);
    let check_image = |i: usize| {
        let crc = image_crc(&catalog, &packed, i);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, catalog.samples.len());
        crc
    };
    let crcs: Vec<Result<u32, String>> = (0..catalog.samples.len()).into_par_iter().map(check_image).collect();
    let mut stamp = crc32fast::Hasher::new();
    for (i, crc) in crcs.into_iter().enumerate() {
        match crc {
            Ok(crc) => catalog.stamp_sample(i, crc, &mut stamp),
            // An image in a damaged block is named there.
            Err(reason) if packed.bytes(catalog.samples[i].range()).is_ok() => {
                problems.push(format!("image {}: {reason}", catalog.name(i)));
            }
            Err(_) => {}
        }
    }
    if problems.is_empty() && stamp.finalize() != catalog.fingerprint {
        problems.push("the pixels are not those the fingerprint was taken of".into());
    }
    problems.extend(packed.file.check().err().map(|e| problem(&e)));
    Ok(Verified { description: catalog.describe(), problems })
}

/// An error without the path, which is said already.
fn problem(error: &Error) -> String {
    match error {
        Error::Format { problem, .. } => problem.clone(),
        other => other.to_string(),
    }
}

/// CRC-32 of the pixels of image `i`.
fn image_crc(catalog: &Catalog, packed: &Packed, i: usize) -> Result<u32, String> {
    let sample = &catalog.samples[i];
    let bytes = packed.bytes(sample.range()).map_err(|e| problem(&e))?;
    if sample.encoding() != Some(Encoding::Jpeg) {
        return Ok(crc32fast::hash(bytes));
    }
    let image = decode(bytes)?;
    let size = (image.as_ref().width(), image.as_ref().height());
    if size != sample.size() {
        return Err(format!("{size:?} pixels instead of {:?}", sample.size()));
    }
    Ok(crc32fast::hash(image.as_ref().pixels()))
}
