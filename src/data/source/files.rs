//! The files of a folder or an archive as one flat, sorted list; what they hold is for others to say.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Excluded, MAX_PIXELS, Original};
use crate::data::mapped::MappedFile;
use crate::{Error, Result};

/// Bytes above which a file is no picture: twice what the largest one takes in 16 bits with alpha, uncompressed.
const MAX_FILE: u64 = 16 * MAX_PIXELS;

/// A listing.
pub struct Files {
    /// The folder or archive.
    pub root: PathBuf,
    /// Sorted by name; no two alike.
    pub entries: Vec<Entry>,
    /// What the listing itself left out.
    pub excluded: Vec<Excluded>,
    /// `image folder`, `tar archive`, ...: for descriptions.
    pub kind: &'static str,
}

/// One regular file.
pub struct Entry {
    /// Path below the root, `/` between components, every component made printable by [`printable`].
    pub name: String,
    /// Where its bytes are.
    pub location: Location,
}

/// Where the bytes of a file are.
pub enum Location {
    /// A file of its own.
    Disk(PathBuf),
    /// A part of an archive; the range lies inside it.
    Archived(Span),
}

/// Part of a block of bytes that several owners share.
#[derive(Clone)]
pub struct Span {
    block: Arc<Block>,
    range: Range<usize>,
}

/// A whole file, mapped or in memory.
pub enum Block {
    /// Memory map of a file.
    Mapped(MappedFile),
    /// Inflated.
    Inflated(Vec<u8>),
}

impl Block {
    /// Maps the file at `path`. A file that is cut short meanwhile reads as zeros there, which every parser must take anyway.
    pub fn map(path: &Path) -> Result<Block> {
        MappedFile::open(path).map(Block::Mapped)
    }

    /// `Ok` if all that was read so far is what the file held when it was mapped.
    pub fn check(&self) -> Result<()> {
        match self {
            Block::Mapped(map) => map.check(),
            Block::Inflated(_) => Ok(()),
        }
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Block::Mapped(map) => map,
            Block::Inflated(bytes) => bytes,
        }
    }
}

impl Span {
    /// The bytes `range` of `block`; `None` if they are not all there.
    pub fn new(block: &Arc<Block>, range: Range<usize>) -> Option<Span> {
        block.get(range.clone())?;
        Some(Span { block: Arc::clone(block), range })
    }
}

impl Span {
    /// See [`Block::check`].
    pub fn check(&self) -> Result<()> {
        self.block.check()
    }
}

impl Deref for Span {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.range.clone()]
    }
}

impl Entry {
    /// The file's bytes; read from disk, or in place in an archive. For one picture: over [`MAX_FILE`] is an error.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.location {
            Location::Disk(path) => read_picture(path).map(Cow::Owned),
            Location::Archived(span) => Ok(Cow::Borrowed(span)),
        }
    }

    /// The file as its owner knows it.
    pub fn original(&self) -> Original<'_> {
        match &self.location {
            Location::Disk(path) => Original::File(path),
            Location::Archived(span) => Original::Entry(Cow::Borrowed(span)),
        }
    }

    /// The first `limit` bytes of the file, or all.
    pub fn head(&self, limit: usize) -> std::io::Result<Cow<'_, [u8]>> {
        match &self.location {
            Location::Disk(path) => {
                let mut bytes = Vec::new();
                File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
            Location::Archived(span) => Ok(Cow::Borrowed(&span[..limit.min(span.len())])),
        }
    }

    /// The file's bytes without a copy: for files that are large and stay open.
    pub fn span(&self) -> Result<Span> {
        match &self.location {
            Location::Disk(path) => {
                let block = Arc::new(Block::map(path)?);
                let range = 0..block.len();
                Ok(Span { block, range })
            }
            Location::Archived(span) => Ok(span.clone()),
        }
    }

    /// The folder part of the name, without the slash; empty at the top.
    pub fn folder(&self) -> &str {
        self.name.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The last component of the name.
    pub fn file_name(&self) -> &str {
        self.name.rsplit_once('/').map_or(self.name.as_str(), |(_, name)| name)
    }
}

/// Reads a file that should hold one picture.
fn read_picture(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let len = file.metadata().map_err(Error::io("read", path))?.len();
    if len > MAX_FILE {
        return Err(Error::format(path, format!("{} MiB, too large for a picture", len >> 20)));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

impl Files {
    /// Lists all files below the folder `root`. Symbolic links are followed, but no folder is visited twice, which ends
    /// loops; hidden files and folders are left out and reported.
    ///
    /// # Errors
    /// If `root` itself cannot be listed; a subfolder that cannot is reported in `excluded`.
    pub fn in_folder(root: &Path) -> Result<Files> {
        let mut walk = Walk::default();
        walk.pending.push((root.to_path_buf(), String::new()));
        fs::read_dir(root).map_err(Error::io("list", root))?;
        // Folders first and links to folders last: where both lead to the same place, the folder gives the name.
        while let Some((folder, name)) = walk.pending.pop().or_else(|| walk.links.pop()) {
            walk.visit(&folder, &name);
        }
        let mut files = Files::sorted(root, "image folder", walk.entries, walk.excluded);
        files.report_empty(walk.folders);
        Ok(files)
    }

    /// The files on disk behind the entries, each once: an archive is one file.
    pub fn on_disk(&self) -> Vec<PathBuf> {
        let own = |entry: &Entry| match &entry.location {
            Location::Disk(path) => Some(path.clone()),
            Location::Archived(_) => None,
        };
        let mut paths: Vec<PathBuf> = self.entries.iter().filter_map(own).collect();
        if paths.len() < self.entries.len() {
            paths.push(self.root.clone());
        }
        paths
    }

    /// Reports those of `folders` (names below the root) with nothing in them, not even what was left out.
    pub fn report_empty(&mut self, mut folders: Vec<String>) {
        folders.sort();
        folders.dedup();
        let names = self.entries.iter().map(|entry| &entry.name).chain(self.excluded.iter().map(|e| &e.name));
        let mut full: HashSet<&str> = HashSet::new();
        for name in names.chain(&folders) {
            let mut inner = name.as_str();
            // Upwards until a folder that is known: each folder is seen once.
            while let Some((folder, _)) = inner.rsplit_once('/').filter(|(folder, _)| full.insert(folder)) {
                inner = folder;
            }
        }
        let empty = folders.iter().filter(|folder| !folder.is_empty() && !full.contains(folder.as_str()));
        let empty: Vec<Excluded> = empty.map(|folder| Excluded::ignored(folder, "empty folder")).collect();
        self.excluded.extend(empty);
        self.excluded.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// See [`Block::check`]: of the archive, if it is one. (Files of their own are read whole or not at all.)
    pub fn check(&self) -> Result<()> {
        // All entries of an archive lie in one block.
        let archived = self.entries.iter().find_map(|entry| match &entry.location {
            Location::Archived(span) => Some(span),
            Location::Disk(_) => None,
        });
        archived.map_or(Ok(()), Span::check)
    }

    /// Puts a listing into its one order.
    pub fn sorted(root: &Path, kind: &'static str, mut entries: Vec<Entry>, mut excluded: Vec<Excluded>) -> Files {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        excluded.sort_by(|a, b| a.name.cmp(&b.name));
        Files { root: root.to_path_buf(), entries, excluded, kind }
    }
}

/// A folder being walked.
#[derive(Default)]
struct Walk {
    entries: Vec<Entry>,
    excluded: Vec<Excluded>,
    /// Real paths of the folders seen.
    visited: HashSet<PathBuf>,
    /// Folders to visit, with their names below the root.
    pending: Vec<(PathBuf, String)>,
    /// Symbolic links to folders, likewise.
    links: Vec<(PathBuf, String)>,
    /// Names of the folders that were listed.
    folders: Vec<String>,
}

impl Walk {
    /// Lists one folder.
    fn visit(&mut self, folder: &Path, name: &str) {
        if fs::canonicalize(folder).is_ok_and(|real| !self.visited.insert(real)) {
            return self.excluded.push(Excluded::ignored(name, "symbolic link to a folder that is listed already"));
        }
        let listing = fs::read_dir(folder).and_then(|children| children.collect::<std::io::Result<Vec<_>>>());
        let mut children = match listing {
            Ok(children) => children,
            Err(e) => return self.excluded.push(Excluded::bad(name, format!("folder cannot be listed: {e}"))),
        };
        self.folders.push(name.to_owned());
        // Which of two links to one folder counts must not depend on the file system's order. The stacks pop from the end.
        children.sort_by_key(|child| std::cmp::Reverse(child.file_name()));
        for child in children {
            let component = printable(child.file_name().as_encoded_bytes());
            let child_name = if name.is_empty() { component } else { format!("{name}/{component}") };
            self.visit_child(&child, child_name);
        }
    }

    fn visit_child(&mut self, child: &fs::DirEntry, name: String) {
        let path = child.path();
        if child.file_name().as_encoded_bytes().starts_with(b".") {
            return self.excluded.push(Excluded::ignored(name, "hidden"));
        }
        // `metadata` follows links; a loop of links or one that leads nowhere is an error here.
        let (is_link, target) = match (child.file_type(), fs::metadata(&path)) {
            (Ok(own), Ok(target)) => (own.is_symlink(), target),
            (Ok(own), Err(e)) if own.is_symlink() => {
                return self.excluded.push(Excluded::bad(name, format!("symbolic link that leads nowhere: {e}")));
            }
            (Err(e), _) | (_, Err(e)) => {
                return self.excluded.push(Excluded::bad(name, format!("cannot be read: {e}")));
            }
        };
        if target.is_dir() && is_link {
            self.links.push((path, name));
        } else if target.is_dir() {
            self.pending.push((path, name));
        } else if target.is_file() {
            self.entries.push(Entry { name, location: Location::Disk(path) });
        } else {
            self.excluded.push(Excluded::ignored(name, "not a regular file"));
        }
    }
}

/// A file name as text that is safe to print, and different for different names: bytes that are not UTF-8, control
/// characters and backslashes become `\xNN`.
pub fn printable(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    text
}
