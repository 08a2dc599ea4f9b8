//! The file in the making, with the digest of what it holds.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use super::Event;
use crate::atomic_file::sync_folder;
use crate::{Error, Result};

/// Bytes read from disk at a time.
const CHUNK: usize = 1 << 18;

/// `NAME.part`: a prefix of the file, locked against a second download.
pub struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    md5: Md5,
}

impl Part {
    /// Opens the part at `path`, or begins one, and takes the digest of what it holds. One that is longer than the file's
    /// `bytes` is emptied.
    ///
    /// # Errors
    /// If it cannot be written, is no regular file (a link would lead out of the folder), or another process writes it.
    pub fn open(path: &Path, bytes: u64, progress: &mut dyn FnMut(Event)) -> Result<Part> {
        if std::fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(Error::Usage(format!("{} is no regular file: move it away and try again", path.display())));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("write", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Usage(format!("{} is being written by another download", path.display())));
            }
            // File systems without locks: as safe as all downloaders that do not lock.
            Err(TryLockError::Error(_)) => {}
        }
        let (mut len, mut md5) = (0, Md5::new());
        if file.metadata().map_err(Error::io("look at", path))?.len() <= bytes {
            len = hash(&mut file, &mut md5, progress).map_err(Error::io("read", path))?;
        }
        let mut part = Part { path: path.to_path_buf(), file, len, md5 };
        if part.len == 0 {
            part.restart()?;
        }
        Ok(part)
    }

    /// Bytes it holds.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Digest of the bytes it holds.
    pub fn md5(&self) -> String {
        hex(self.md5.clone())
    }

    /// Adds bytes at its end.
    ///
    /// # Errors
    /// If the disk is full; what is there stays.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| full(&self.path, e))?;
        self.md5.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Empties it.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(Error::io("empty", &self.path))?;
        (self.len, self.md5) = (0, Md5::new());
        Ok(())
    }

    /// Removes it.
    pub fn discard(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }

    /// Makes it durable and gives it its name.
    pub fn finish(self, path: &Path) -> Result<()> {
        self.file.sync_all().map_err(|e| full(&self.path, e))?;
        std::fs::rename(&self.path, path).map_err(Error::io("rename to", path))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder).map_err(Error::io("sync", folder))
    }
}

/// What to say when writing failed.
fn full(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::format(path, format!("{error}; it is kept: make room, and the same command goes on from there"))
        }
        _ => Error::io("write", path)(error),
    }
}

/// The MD5 of the file at `path` in hexadecimal.
pub fn md5_of_file(path: &Path, progress: &mut dyn FnMut(Event)) -> Result<String> {
    let mut md5 = Md5::new();
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    hash(&mut file, &mut md5, progress).map_err(Error::io("read", path))?;
    Ok(hex(md5))
}

/// Takes in the rest of `file`; gives its length.
fn hash(file: &mut File, md5: &mut Md5, progress: &mut dyn FnMut(Event)) -> std::io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut len = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(len),
            Ok(n) => {
                md5.update(&buffer[..n]);
                len += n as u64;
                progress(Event::Checked(len));
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn hex(md5: Md5) -> String {
    md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let text = |kind: ErrorKind| full(Path::new("x.part"), kind.into()).to_string();
        assert!(text(ErrorKind::StorageFull).contains("it is kept: make room"), "{}", text(ErrorKind::StorageFull));
        assert!(text(ErrorKind::PermissionDenied).starts_with("cannot write x.part"));
    }
}
