//! One process a run folder.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::log::say;
use crate::{Error, Result};

/// The file that is locked, and says by which process.
pub(super) const LOCK: &str = "run.lock";

/// Keeps other processes out of a run folder for as long as it lives. The system takes the lock back when the process ends,
/// however it ends; the file stays.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "held, not used")] File);

impl RunLock {
    /// Locks the run in `folder`.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the other process if one has it; [`Error::Io`] if the file cannot be made.
    pub fn take(folder: &Path) -> Result<RunLock> {
        let path = folder.join(LOCK);
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = options.map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let process = match file.read_to_string(&mut holder) {
                    Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
                    _ => "another process".to_owned(),
                };
                return Err(Error::Usage(format!(
                    "{} is in use: {process} writes this run; wait for it or stop it first",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(problem)) => say(&format!(
                "cannot lock {} ({problem}): see to it that no second process writes this run",
                path.display()
            )),
        }
        // Only for the words above: a full disk is no reason not to hold the lock.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(RunLock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK), "a longer text from before\n").unwrap();
        let first = RunLock::take(folder.path()).unwrap();
        let refused = RunLock::take(folder.path()).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains(&format!("in use: process {} writes", std::process::id())), "{refused}");
        drop(first);
        RunLock::take(folder.path()).unwrap();
        assert!(matches!(RunLock::take(&folder.path().join("missing")), Err(Error::Io { .. })));
    }
}
