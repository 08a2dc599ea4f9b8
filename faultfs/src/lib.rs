//! A file system that fails as told, under an unmodified program on Linux (x86-64).
//!
//! The library is loaded before the program (`LD_PRELOAD`). It has the kernel trap every system call that can change a file
//! (a seccomp filter), wherever in the program it is made: also those of crates that call the kernel without the C
//! library, which a library of replaced functions would never see. Calls on other paths than those below one folder go on
//! as they are. Those below it are *operations*: they are numbered from 1, one at a time, in the order in which they happen,
//! written down if asked, and a script says which of them fail, are cut short, or are the last thing the process does.
//!
//! Not caught are writes through shared memory maps. Reading is never touched. `io_uring` and `io_submit` are refused as if the
//! kernel had neither. Programs that start others are not supported.
//!
//! # The script
//!
//! Rules, separated by `;`. A script that is not understood ends the program with [`BAD_SCRIPT`] before its first line.
//!
//! ```text
//! kill before N        SIGKILL instead of operation N
//! kill within N        a write stores half its bytes, then SIGKILL; of any other operation there is no half: before it
//! kill after N         SIGKILL as soon as operation N is done
//! cut ... N            the same three, and the power fails with it: what no fsync has put on the disk is gone (see trap/power.rs)
//! fail ERROR WHICH     the operation does nothing but return ENOSPC, EIO, EROFS, EDQUOT, EACCES or EINTR
//! short BYTES WHICH    a write stores this many bytes at most (1 or more), and says so
//! space BYTES          room for so much more; a write beyond it is short, the next one fails with ENOSPC; what is
//!                      removed or replaced makes room
//!
//! WHICH: at N                                   that operation
//!        each KIND NAME [from M] [times K]      those of a kind on files of a name, from the Mth such (1), K times (for ever)
//! KIND:  create write truncate sync rename link remove mkdir any
//! NAME:  the last part of the path, or of what it is renamed to; * stands for any number of characters
//! ```
//!
//! Of several rules that fit an operation the first in the script holds. `create` is an open that may make or empty a file;
//! `sync` is fsync or fdatasync, of files and of folders.
//!
//! # The record
//!
//! One line an operation, tab-separated: number, kind, bytes asked for, outcome (bytes or 0, a negative error number, or
//! `killed`), path relative to the folder, and for `rename` and `link` the new path.

mod script;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod trap;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use script::Kind;

/// The variable with the folder whose operations count; absolute, without symbolic links.
pub const ROOT: &str = "FAULTFS_ROOT";
/// The variable with the script; none: nothing fails.
pub const SCRIPT: &str = "FAULTFS_SCRIPT";
/// The variable with the file that operations are appended to, outside the folder; none: they are not.
pub const RECORD: &str = "FAULTFS_RECORD";

/// Exit code of a program whose variables were not understood, or whose system calls cannot be trapped here.
pub const BAD_SCRIPT: i32 = 125;

/// Has `command` run over this library: operations below `root` are written to the file `record` and go as `script` says.
///
/// # Errors
/// If the library is not where cargo puts it, or `root` does not exist.
pub fn attach(command: &mut Command, root: &Path, script: &str, record: Option<&Path>) -> io::Result<()> {
    command.env("LD_PRELOAD", library()?).env(ROOT, root.canonicalize()?).env(SCRIPT, script);
    match record {
        Some(record) => command.env(RECORD, record),
        None => command.env_remove(RECORD),
    };
    Ok(())
}

/// The shared library: cargo builds it for whoever depends on this crate, into `deps`, where tests are too.
fn library() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().unwrap_or(Path::new("."));
    let places = [folder.to_path_buf(), folder.join("deps")].map(|folder| folder.join("libfaultfs.so"));
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("none of {places:?} exists"));
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(missing)
}

/// A line of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// From 1, in the order in which they happened.
    pub number: u64,
    /// What was done.
    pub kind: Kind,
    /// Bytes that a write was given; 0 for the rest.
    pub bytes: usize,
    /// What came of it.
    pub outcome: Outcome,
    /// To what, relative to the folder; the folder itself is empty.
    pub path: PathBuf,
    /// What `path` is called afterwards, for renames and links.
    pub target: Option<PathBuf>,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; of a write so many bytes, else 0.
    Done(usize),
    /// Refused, with an error number.
    Failed(i32),
    /// The process ended before or within it.
    Killed,
}

impl Operation {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The last part of the new path.
    pub fn new_name(&self) -> &str {
        self.target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn to_line(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Done(bytes) => bytes.to_string(),
            Outcome::Failed(error) => format!("-{error}"),
            Outcome::Killed => "killed".to_owned(),
        };
        let (path, target) = (self.path.display(), self.target.iter().map(|target| format!("\t{}", target.display())));
        let target: String = target.collect();
        format!("{}\t{}\t{}\t{outcome}\t{path}{target}\n", self.number, self.kind.word(), self.bytes)
    }

    fn from_line(line: &str) -> Option<Operation> {
        let fields: Vec<&str> = line.split('\t').collect();
        let (&[number, kind, bytes, outcome, path], target) = fields.split_first_chunk()?;
        let outcome = match (outcome, outcome.strip_prefix('-')) {
            ("killed", _) => Outcome::Killed,
            (_, Some(error)) => Outcome::Failed(error.parse().ok()?),
            (bytes, None) => Outcome::Done(bytes.parse().ok()?),
        };
        Some(Operation {
            number: number.parse().ok()?,
            kind: Kind::of_word(kind)?,
            bytes: bytes.parse().ok()?,
            outcome,
            path: path.into(),
            target: target.first().map(PathBuf::from),
        })
    }
}

/// The operations in the file `record`; none if it does not exist.
///
/// # Errors
/// If it cannot be read, or holds other lines.
pub fn read_record(record: &Path) -> io::Result<Vec<Operation>> {
    if !record.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(record)?;
    let bad = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {line:?}", record.display()));
    text.lines().map(|line| Operation::from_line(line).ok_or_else(|| bad(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back() {
        for (outcome, target) in
            [(Outcome::Done(3), None), (Outcome::Failed(28), Some("b/c".into())), (Outcome::Killed, None)]
        {
            let path = PathBuf::from("a/.hidden b");
            let operation = Operation { number: 7, kind: Kind::Write, bytes: 5, outcome, path, target };
            let line = operation.to_line();
            assert_eq!(Operation::from_line(line.trim_end_matches('\n')), Some(operation));
        }
        for line in ["", "7\twrite\t5\t5", "x\twrite\t5\t5\tp", "7\tread\t5\t5\tp", "7\twrite\t5\tdead\tp"] {
            assert_eq!(Operation::from_line(line), None, "{line}");
        }
    }
}
