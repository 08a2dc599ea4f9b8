//! What a power cut would take: everything that no fsync has put on the disk, in the worst case at once.
//!
//! Every operation that is not on the disk yet leaves an entry that says how to undo it. fsync of a file drops the entries of its
//! bytes, fsync of a folder those of its names. At the cut the entries that are left are undone, the last one first. Files
//! that were replaced or removed are kept until then by a second name outside the folder. Bytes that a truncation took
//! do not come back.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::system_call;
use crate::{Kind, Operation};

/// What is not on the disk.
#[derive(Debug, Default)]
pub struct Unsynced {
    root: PathBuf,
    /// Where replaced and removed files are kept; beside the root, on its disk.
    kept: PathBuf,
    count: usize,
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Entry {
    /// The file had this length, and perhaps another name.
    Length { inode: u64, path: PathBuf, bytes: u64 },
    /// There was no such name.
    Made { path: PathBuf },
    /// The file had another name, and this one was another file's, or nobody's.
    Renamed { path: PathBuf, target: PathBuf, kept: Option<PathBuf> },
    /// There was such a name.
    Removed { path: PathBuf, kept: PathBuf },
}

/// What an operation finds, before it is carried out.
pub struct Before {
    /// Of what it is done to.
    file: Option<libc::stat>,
    /// Second name of the file that it replaces or removes.
    kept: Option<PathBuf>,
}

impl Unsynced {
    /// Of a folder; makes another one beside it.
    pub fn below(root: &Path) -> Unsynced {
        let mut kept = root.as_os_str().to_owned();
        kept.push(".kept");
        let unsynced = Unsynced { root: root.into(), kept: kept.into(), ..Unsynced::default() };
        call(libc::SYS_mkdir, &[&unsynced.kept], 0o777);
        unsynced
    }

    /// To be called before an operation.
    pub fn before(&mut self, operation: &Operation) -> Before {
        let file = found(&self.root.join(&operation.path));
        let lost = match operation.kind {
            Kind::Remove => Some(&operation.path),
            Kind::Rename => operation.target.as_ref(),
            _ => None,
        };
        let kept = lost.and_then(|lost| {
            self.count += 1;
            let kept = self.kept.join(self.count.to_string());
            (call(libc::SYS_link, &[&self.root.join(lost), &kept], 0) == 0).then_some(kept)
        });
        Before { file, kept }
    }

    /// To be called after an operation that was carried out.
    pub fn after(&mut self, operation: &Operation, before: Before) {
        let (path, file) = (operation.path.clone(), before.file);
        match operation.kind {
            Kind::Create | Kind::Mkdir | Kind::Link if file.is_none() => {
                self.entries.push(Entry::Made { path: operation.target.clone().unwrap_or(path) });
            }
            Kind::Write => self.entries.extend(file.map(|file| Entry::Length {
                inode: file.st_ino,
                path,
                bytes: file.st_size as u64,
            })),
            Kind::Rename => {
                let target = operation.target.clone().unwrap_or_default();
                self.entries.push(Entry::Renamed { path, target, kept: before.kept });
            }
            Kind::Remove => self.entries.extend(before.kept.map(|kept| Entry::Removed { path, kept })),
            Kind::Sync => self.entries.retain(|entry| !entry.synced_with(&path, file.map(|file| file.st_ino))),
            _ => {}
        }
    }

    /// Undoes it all.
    pub fn cut(&mut self) {
        while let Some(entry) = self.entries.pop() {
            let at = |path: &Path| self.root.join(path);
            match entry {
                Entry::Length { path, bytes, .. } => {
                    // It may have been cut shorter since.
                    if found(&at(&path)).is_some_and(|file| file.st_size as u64 > bytes) {
                        call(libc::SYS_truncate, &[&at(&path)], bytes);
                    }
                }
                Entry::Made { path } => {
                    if call(libc::SYS_unlink, &[&at(&path)], 0) != 0 {
                        call(libc::SYS_rmdir, &[&at(&path)], 0);
                    }
                }
                Entry::Renamed { path, target, kept } => {
                    call(libc::SYS_rename, &[&at(&target), &at(&path)], 0);
                    kept.map(|kept| call(libc::SYS_link, &[&kept, &at(&target)], 0));
                }
                Entry::Removed { path, kept } => drop(call(libc::SYS_link, &[&kept, &at(&path)], 0)),
            }
        }
    }
}

impl Entry {
    /// Whether fsync of `path`, which is the file `inode`, puts this on the disk.
    fn synced_with(&self, path: &Path, inode: Option<u64>) -> bool {
        let inside = |name: &Path| name.parent() == Some(path);
        match self {
            Entry::Length { inode: file, .. } => Some(*file) == inode,
            Entry::Made { path } | Entry::Removed { path, .. } => inside(path),
            Entry::Renamed { path, target, .. } => inside(path) && inside(target),
        }
    }
}

/// A call on paths, with a number behind them.
fn call(number: i64, paths: &[&Path], last: u64) -> i64 {
    let paths: Vec<CString> = paths.iter().filter_map(|path| CString::new(path.as_os_str().as_bytes()).ok()).collect();
    let mut arguments = [last; 6];
    paths.iter().zip(&mut arguments).for_each(|(path, argument)| *argument = path.as_ptr() as u64);
    system_call(number, arguments)
}

/// What is at `path`; `None` if nothing is.
fn found(path: &Path) -> Option<libc::stat> {
    // SAFETY: an all-zero stat is one, and the kernel fills it.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let arguments = [path.as_ptr() as u64, &raw mut found as u64, 0, 0, 0, 0];
    (system_call(libc::SYS_lstat, arguments) == 0).then_some(found)
}
