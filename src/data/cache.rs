//! Packed copies of sources, kept between runs: a source is decoded once, and afterwards opens at once.
//!
//! A copy is named by the content of its source: names, labels, and every byte of the files behind them. To not read all
//! of those each time, a note beside the copies remembers the content of files by their path, size and times.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use super::catalog::Encoding;
use super::dataset::Dataset;
use super::gather::GatherOptions;
use super::packed;
use super::source::Source;
use crate::atomic_file::{TEMPORARY, write_atomically};
use crate::{Error, Result};

/// Environment variable that names the folder of copies.
pub const CACHE_VARIABLE: &str = "DISENTANGLE_CACHE";

/// Files whose times are this young may change again without showing it.
const SETTLED: Duration = Duration::from_secs(2);

/// A file being written is written to more often than this.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Images decoded to estimate the size of all.
const PROBES: usize = 64;

/// A place for packed copies.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// A hash of everything that a copy holds, and of what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content(u128);

impl Cache {
    /// Copies in `folder`, which is created when the first one is written.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// The user's: `DISENTANGLE_CACHE`, or `disentangle` in the system's folder for caches; `None` if there is none.
    pub fn of_user() -> Option<Cache> {
        let named = std::env::var_os(CACHE_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        Some(Cache::at(named.or_else(|| Some(dirs::cache_dir()?.join("disentangle")))?))
    }

    /// Where the copies are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The content of `source`: equal for equal names, labels and files.
    ///
    /// # Errors
    /// [`Error::Io`] if a file of the source cannot be read.
    pub fn content(&self, source: &dyn Source) -> Result<Content> {
        let mut hash = Xxh3::new();
        hash_listing(source, &mut hash);
        hash.update(&self.content_of(&source.files())?.to_le_bytes());
        Ok(Content(hash.digest128()))
    }

    /// Where the copy of this content with these options is, or will be.
    pub fn path(&self, content: Content, options: &GatherOptions) -> PathBuf {
        let short = options.resize_short.map_or(String::new(), |short| format!("-{short}"));
        self.folder.join(format!("{:032x}-{}{short}.{}.pack", content.0, options.payload, packed::VERSION))
    }

    /// Bytes of all copies, and how many there are.
    pub fn size(&self) -> (u64, usize) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let copies = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pack"));
        copies.fold((0, 0), |(bytes, n), copy| (bytes + copy.metadata().map_or(0, |metadata| metadata.len()), n + 1))
    }

    /// Removes what packing left that was killed: files with a temporary name that nobody has written to for long.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let temporary = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
            let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if temporary && age.is_some_and(|age| age > ABANDONED) {
                // If it cannot be removed it is no worse than before.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// A hash of the content of `files`, in order; remembered for as long as they look the same.
    fn content_of(&self, files: &[PathBuf]) -> Result<u128> {
        let (looks, settled) = looks(files)?;
        let note = self.folder.join(format!("{looks:032x}.content"));
        let known = fs::read_to_string(&note).ok().and_then(|text| u128::from_str_radix(text.trim(), 16).ok());
        if let Some(content) = known {
            return Ok(content);
        }
        let hashes: Vec<u128> = files.par_iter().map(|path| hash_file(path)).collect::<Result<_>>()?;
        let mut hash = Xxh3::new();
        hashes.iter().for_each(|one| hash.update(&one.to_le_bytes()));
        let content = hash.digest128();
        if settled {
            // Only a saving of time: without the note the files are read again.
            let _ = fs::create_dir_all(&self.folder)
                .is_ok()
                .then(|| write_atomically(&note, |file| writeln!(file, "{content:032x}")));
        }
        Ok(content)
    }

    /// Opens the packed copy of `source` at `path` (from [`Cache::path`]), making it first if it is not there or damaged.
    /// `progress` is called with (images decoded, images in all), from any thread.
    ///
    /// # Errors
    /// As [`packed::pack`].
    pub fn open(
        &self,
        path: &Path,
        source: &dyn Source,
        options: &GatherOptions,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Dataset> {
        if let Ok(dataset) = Dataset::open(path) {
            return Ok(dataset);
        }
        fs::create_dir_all(&self.folder).map_err(Error::io("create the folder", &self.folder))?;
        self.sweep();
        packed::pack(source, options, path, progress)?;
        Dataset::open(path)
    }
}

/// How to keep the images of `source`: raw, unless its JPEGs would then take over `raw_bytes` in all, as far as a sample of
/// them tells.
pub fn payload_for(source: &dyn Source, raw_bytes: u64) -> Encoding {
    let probes = source.len().min(PROBES);
    let probe = |p: usize| {
        let i = p * source.len() / probes;
        let jpeg = source.jpeg(i).is_ok_and(|jpeg| jpeg.is_some());
        (jpeg, source.read(i).map_or(0, |image| image.as_ref().pixels().len() as u64))
    };
    let found: Vec<(bool, u64)> = (0..probes).into_par_iter().map(probe).collect();
    let mean = found.iter().map(|(_, bytes)| bytes).sum::<u64>() / (probes as u64).max(1);
    let large = mean.saturating_mul(source.len() as u64) > raw_bytes;
    if large && found.iter().any(|(jpeg, _)| *jpeg) { Encoding::Jpeg } else { Encoding::Raw }
}

/// Names, labels, classes and factors: what a copy holds beside the pixels.
fn hash_listing(source: &dyn Source, hash: &mut Xxh3) {
    let mut text = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    text(source.kind());
    source.classes().iter().for_each(|class| text(class));
    for factor in source.factors() {
        text(&factor.name);
        factor.values.iter().for_each(|value| text(value));
    }
    for excluded in source.excluded() {
        text(&excluded.name);
        text(&excluded.reason);
    }
    (0..source.len()).for_each(|i| text(&source.name(i)));
    let counts = [source.len(), source.classes().len(), source.factors().len()];
    counts.iter().for_each(|count| hash.update(&(*count as u64).to_le_bytes()));
    (0..source.len()).for_each(|i| hash.update(&source.label(i).map_or(-1, i64::from).to_le_bytes()));
    source.factors().iter().for_each(|factor| hash.update(bytemuck::cast_slice(&factor.labels)));
}

/// A hash of how `files` look from outside, and whether they have been so for long enough to be told from a later state.
fn looks(files: &[PathBuf]) -> Result<(u128, bool)> {
    let (mut hash, mut settled) = (Xxh3::new(), true);
    let now = SystemTime::now();
    for path in files {
        let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
        let whole = fs::canonicalize(path).map_err(Error::io("read", path))?;
        hash.update(whole.as_os_str().as_encoded_bytes());
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        settled &= now.duration_since(modified).is_ok_and(|age| age > SETTLED);
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        hash.update(&(metadata.len() as u128).to_le_bytes());
        hash.update(&since.as_nanos().to_le_bytes());
        #[cfg(unix)]
        {
            // The time of the last change of any kind, which nobody can set back.
            use std::os::unix::fs::MetadataExt;
            [metadata.ctime(), metadata.ctime_nsec()].iter().for_each(|part| hash.update(&part.to_le_bytes()));
            settled &= now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as i64
                - metadata.ctime()
                > SETTLED.as_secs() as i64;
        }
    }
    Ok((hash.digest128(), settled))
}

fn hash_file(path: &Path) -> Result<u128> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(hash.digest128()),
            read => hash.update(&buffer[..read]),
        }
    }
}
