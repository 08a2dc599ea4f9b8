//! Writing a packed file.

use std::io::{self, SeekFrom, Write};
use std::path::Path;

use super::layout::{BLOCK_BYTES, Contents, PAYLOAD_START, encode};
use crate::atomic_file::{WriteSeek, write_atomically};
use crate::data::catalog::Catalog;
use crate::data::gather::{GatherOptions, gather};
use crate::data::source::Source;
use crate::{Error, Result};

/// Packs the images of `source` to a file at `path`, which is there when it is complete and not before, and replaces one that
/// was there. `progress` is called with (images decoded, images in all), from any thread. The same images give the same bytes,
/// whatever the number of threads.
///
/// # Errors
/// As [`gather`], and [`Error::Io`] if the file cannot be written.
pub fn pack(
    source: &dyn Source,
    options: &GatherOptions,
    path: &Path,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Catalog> {
    let mut gathered = Err(Error::format(path, "nothing was written"));
    let written = write_atomically(path, |file| {
        gathered = write(source, options, file, progress);
        // The reason stays in `gathered`; this only keeps the file from taking its name.
        if gathered.is_ok() { Ok(()) } else { Err(io::Error::other("the images could not be packed")) }
    });
    match (gathered, written) {
        (Ok(catalog), Ok(())) => Ok(catalog),
        (Ok(_), Err(e)) => Err(e),
        (Err(Error::Io { source, .. }), _) => Err(Error::io("write", path)(source)),
        (Err(e), _) => Err(e),
    }
}

fn write(
    source: &dyn Source,
    options: &GatherOptions,
    file: &mut dyn WriteSeek,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Catalog> {
    let to_file = || Error::io("write", "the packed images");
    file.write_all(&[0; PAYLOAD_START]).map_err(to_file())?;
    let mut blocks = Blocks { file, open: crc32fast::Hasher::new(), filled: 0, crcs: Vec::new() };
    let catalog = gather(source, options, &mut blocks, progress)?;
    let block_crcs = blocks.finish();
    let contents = Contents { catalog, block_crcs };
    let (page, tables) = encode(&contents);
    file.write_all(&tables).map_err(to_file())?;
    file.seek(SeekFrom::Start(0)).map_err(to_file())?;
    file.write_all(&page).map_err(to_file())?;
    Ok(contents.catalog)
}

/// Passes bytes on and takes the CRC of each block.
struct Blocks<'a> {
    file: &'a mut dyn WriteSeek,
    open: crc32fast::Hasher,
    /// Bytes in the open block.
    filled: usize,
    crcs: Vec<u32>,
}

impl Blocks<'_> {
    fn finish(mut self) -> Vec<u32> {
        if self.filled > 0 {
            self.crcs.push(self.open.finalize());
        }
        self.crcs
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_BYTES as usize - self.filled;
        let written = self.file.write(&bytes[..bytes.len().min(room)])?;
        self.open.update(&bytes[..written]);
        self.filled += written;
        if self.filled == BLOCK_BYTES as usize {
            self.crcs.push(std::mem::take(&mut self.open).finalize());
            self.filled = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
