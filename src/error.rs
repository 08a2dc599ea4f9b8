//! The one error type. Every variant says what was wrong and where; the text is for the person at the terminal.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, in the words a user reads.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation was given tensors that do not fit together.
    #[error("{op}: {problem}")]
    Shape {
        /// The operation, by its one stem (`conv2d`, `nt_xent`, ...).
        op: &'static str,
        /// Which shapes, and what was expected.
        problem: String,
    },
    /// The operating system refused something to do with a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file's content is not what its format asks for.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file (with the entry's name appended for archives).
        path: PathBuf,
        /// What is wrong, with the offset where one is known.
        problem: String,
    },
    /// The user asked for something that does not exist or does not fit: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A file could not be had from a server.
    #[error("{url}: {problem}")]
    Network {
        /// The address.
        url: String,
        /// What went wrong, and what to do where that is known.
        problem: String,
    },
    /// Training produced a number that is not finite.
    #[error("{0}")]
    NonFinite(String),
    /// The disk refused something that a run should have left: what is missing, and what is there.
    #[error("{0}")]
    Unsaved(String),
    /// A device refused or failed.
    #[error("{0}")]
    Device(String),
    /// A device has not the memory that was asked for.
    #[error("{problem}")]
    OutOfMemory {
        /// How much was asked for, and what has the rest.
        problem: String,
        /// Bytes of the device's memory that this program had or could have had.
        room: usize,
    },
    /// The user asked to stop, before there was anything to keep: exit code 130 (143 for SIGTERM).
    #[error("stopped")]
    Interrupted,
}

impl Error {
    /// Shape error of `op`.
    pub fn shape(op: &'static str, problem: impl Into<String>) -> Self {
        Error::Shape { op, problem: problem.into() }
    }

    /// Content error of the file at `path`.
    pub fn format(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_path_buf(), problem: problem.into() }
    }

    /// For `map_err`: an I/O error with the action and the path.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// The process exit code for this error: 2 for bad usage, 130 for a stop that was asked for, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Interrupted => 130,
            _ => 1,
        }
    }
}
