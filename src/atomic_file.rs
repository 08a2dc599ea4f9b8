//! Files that are either whole or not there: a reader, a crash or a full disk never meets half of one.

use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

/// Bytes gathered before they go to the operating system; large, because arrays are written in short pieces.
const BUFFER: usize = 1 << 18;

/// How the names of files begin that are not complete yet.
pub const TEMPORARY: &str = ".writing-";

/// What a file is written through: buffered; seeking writes the buffer out.
pub trait WriteSeek: Write + Seek + Send {}

impl<W: Write + Seek + Send> WriteSeek for W {}

/// Writes a whole file at `path` through `write`, or leaves what was there untouched.
///
/// The bytes go (buffered) to a temporary file in the same folder, are synced to the disk, and only then take the
/// name `path` by a rename, which replaces an existing file in one step; last the folder is synced, so that the new
/// name survives a power cut as well. If anything fails the temporary file is removed. The file gets the permissions
/// of any newly created file (0666 less the umask).
///
/// # Errors
/// [`Error::Io`] with `path` when the folder is missing or not writable, the disk is full, `write` fails, or `path` is
/// a folder.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn WriteSeek) -> std::io::Result<()>) -> Result<()> {
    replace(path, write).map_err(Error::io("write", path))
}

/// [`write_atomically`] with the operating system's errors.
fn replace(path: &Path, write: impl FnOnce(&mut dyn WriteSeek) -> std::io::Result<()>) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    let builder = {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private by default, but this one is about to become an ordinary file.
        builder.permissions(std::fs::Permissions::from_mode(0o666))
    };
    let mut beside = builder.tempfile_in(folder)?;
    let mut buffered = BufWriter::with_capacity(BUFFER, beside.as_file_mut());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    // Before the rename: a name that points to bytes still in memory would be an empty file after a power cut.
    beside.as_file().sync_all()?;
    let (file, temporary) = beside.keep().map_err(|failed| failed.error)?;
    drop(file);
    if let Err(refused) = std::fs::rename(&temporary, path) {
        // What is left is only clutter; the reason is the refusal.
        let _ = std::fs::remove_file(&temporary);
        return Err(refused);
    }
    sync_folder(folder)
}

/// Removes from `folder` what writers that were killed left behind: ordinary files with a temporary name. Nobody may be
/// writing there. Gives the paths that are gone.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be read, or a file not removed.
pub fn remove_leftovers(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_str().is_some_and(is_temporary) {
            std::fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
            removed.push(entry.path());
        }
    }
    Ok(removed)
}

/// Whether a name is of the form that [`write_atomically`] draws: the prefix and a few letters and digits.
fn is_temporary(name: &str) -> bool {
    let drawn = name.strip_prefix(TEMPORARY);
    drawn.is_some_and(|drawn| !drawn.is_empty() && drawn.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Makes the folder's entries durable. Only Unix can open a folder as a file; elsewhere the rename must do.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync a folder, and need not.
        Err(e) if e.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in a folder.
    fn entries(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn the_new_content_replaces_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        for content in [&b"first"[..], b"second, longer", b""] {
            write_atomically(&path, |w| w.write_all(content)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        assert_eq!(entries(folder.path()), ["numbers"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_debris() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        std::fs::write(&path, b"old").unwrap();
        let failed = write_atomically(&path, |w| {
            w.write_all(&vec![7; 3 * BUFFER])?;
            Err(std::io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), format!("cannot write {}: disk full", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["numbers"]);
    }

    #[test]
    fn a_missing_folder_and_a_folder_as_target_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing").join("file");
        assert!(matches!(write_atomically(&missing, |_| Ok(())), Err(Error::Io { path, .. }) if path == missing));
        let taken = folder.path().join("taken");
        std::fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(matches!(write_atomically(&taken, |_| Ok(())), Err(Error::Io { .. })));
        assert_eq!(entries(folder.path()), ["taken"]);
    }

    #[test]
    fn leftovers_go_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let others = [".writing-", ".writing-a.b", ".writings", "a.writing-abcdef", "numbers"];
        for name in others.into_iter().chain([".writing-aB3dE9"]) {
            std::fs::write(folder.path().join(name), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join(".writing-folder")).unwrap();
        assert_eq!(remove_leftovers(folder.path()).unwrap(), [folder.path().join(".writing-aB3dE9")]);
        assert_eq!(entries(folder.path()).len(), others.len() + 1);
        assert!(remove_leftovers(&folder.path().join("missing")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_as_readable_as_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomically(&ours, |_| Ok(())).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
