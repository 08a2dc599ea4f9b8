//! Files of known size and digest over HTTP: resumed where they broke off, and only given their name when they are right.
//!
//! ```text
//!   FOLDER/NAME.part --(append, running MD5)--> size and digest as published? --(sync, rename)--> FOLDER/NAME
//! ```
//!
//! The digest is what is trusted, not the server: whatever a server, a proxy or an interrupted run left in the part, a
//! file with other content never gets the name. MD5 is what the data sets' authors publish; it finds every accident.

mod catalogue;
mod part;
mod transfer;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use catalogue::Published;

use self::part::{Part, md5_of_file};
use self::transfer::Transfer;
use crate::{Error, Result};

/// A file as its publisher describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its name in the folder: one plain component. What servers call it has no influence.
    pub name: String,
    /// Where to get it: `http://` or `https://`.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Its MD5 digest, 32 lowercase hexadecimal digits.
    pub md5: String,
}

/// How long to wait, and how often to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a name to resolve, and for a connection to stand.
    pub connect: Duration,
    /// Without a byte from the server.
    pub stall: Duration,
    /// Tries in a row that bring less than [`Patience::PROGRESS`]; at least 1.
    pub attempts: u32,
    /// Before the second try; doubled for each one after that.
    pub pause: Duration,
    /// Redirections followed.
    pub redirects: u32,
}

impl Patience {
    /// New bytes that make a try count as success of its own, so that a large file may come over a connection that breaks
    /// often.
    pub const PROGRESS: u64 = 1 << 20;
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(60),
            attempts: 5,
            pause: Duration::from_secs(2),
            redirects: 8,
        }
    }
}

/// What happens meanwhile, for a progress display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many bytes of what is on disk have been read again for the digest.
    Checked(u64),
    /// So many bytes of the file are there.
    Received(u64),
    /// What was there has been dropped, for this reason: the file comes from its beginning.
    Restarted(String),
    /// A try has failed for this reason; the next one comes after the pause.
    Retrying(String, Duration),
}

/// How the file came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It was there, and right.
    AlreadyThere,
    /// It was downloaded, except for so many bytes that an earlier run had left.
    Downloaded {
        /// Bytes that were not asked for again.
        kept: u64,
    },
}

/// Puts `file` into `folder` (made if missing) and gives its path.
///
/// Bytes go to `NAME.part` beside the final name, which stays when the download fails or the process is killed; the next
/// call asks for the rest. Only a part of the published size and digest is synced and renamed. A part with another
/// digest is dropped (and, if it was put together from several answers, downloaded once more from the beginning).
/// Nothing else is written, and nothing outside `folder`.
///
/// # Errors
/// [`Error::Usage`] if `file.name` is no plain file name or something else already has that name; [`Error::Network`] if
/// the server cannot be reached, refuses, or has another file; [`Error::Io`] and [`Error::Format`] for the disk's side.
pub fn fetch(
    file: &RemoteFile,
    folder: &Path,
    patience: &Patience,
    progress: &mut dyn FnMut(Event),
) -> Result<(PathBuf, Fetched)> {
    let mut components = Path::new(&file.name).components();
    if !matches!((components.next(), components.next()), (Some(std::path::Component::Normal(_)), None)) {
        return Err(Error::Usage(format!("`{}` is not a plain file name", file.name)));
    }
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    let path = folder.join(&file.name);
    if is_there(file, &path, progress)? {
        return Ok((path, Fetched::AlreadyThere));
    }
    let mut part = Part::open(&folder.join(format!("{}.part", file.name)), file.bytes, progress)?;
    let kept = part.len();
    let mut transfer = Transfer::new(file, patience)?;
    if let Err(error) = transfer.run(&mut part, progress) {
        // An empty part is of no use to the next try.
        return Err(if part.len() == 0 { part.discard().err().unwrap_or(error) } else { error });
    }
    if part.md5() != file.md5 && (kept > 0 || transfer.resumed()) {
        let reason = "its pieces do not make up the published file: downloading it again from the beginning";
        progress(Event::Restarted(reason.into()));
        part.restart()?;
        transfer.run(&mut part, progress)?;
    }
    let md5 = part.md5();
    if md5 != file.md5 {
        part.discard()?;
        let problem = format!(
            "{} bytes came, but not of the published file (MD5 {md5}, published {}): they were thrown away",
            file.bytes, file.md5
        );
        return Err(Error::Network { url: file.url.clone(), problem });
    }
    part.finish(&path)?;
    Ok((path, Fetched::Downloaded { kept }))
}

/// Whether the right file is there. Errors with [`Error::Usage`] if something else has its name.
fn is_there(file: &RemoteFile, path: &Path, progress: &mut dyn FnMut(Event)) -> Result<bool> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io("look at", path)(e)),
    };
    let differs = if !metadata.is_file() {
        "it is no regular file".to_owned()
    } else if metadata.len() != file.bytes {
        format!("{} bytes, published {}", metadata.len(), file.bytes)
    } else {
        match md5_of_file(path, progress)? {
            md5 if md5 == file.md5 => return Ok(true),
            md5 => format!("MD5 {md5}, published {}", file.md5),
        }
    };
    let path = path.display();
    Err(Error::Usage(format!("{path} is there, but is not the published file ({differs}): move it away and try again")))
}
