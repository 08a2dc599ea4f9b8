//! Which cuDNN engine was the fastest for a convolution, remembered between runs.
//!
//! Engines round differently, and the timing that chooses among them is not the same twice: without a memory two runs of one
//! configuration could differ in their last bits. So the program keeps the choices for a device and a version of cuDNN in a file
//! beside the packed copies of data (`engines.json` in the cache folder); removing it has them made anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file::write_atomically;

/// Name of the user's file.
pub const FILE: &str = "engines.json";

/// An engine among cuDNN's proposals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Whether it was proposed as a last resort.
    pub fallback: bool,
    /// Position among the proposals.
    pub engine: usize,
}

/// Choices by device and library, then by convolution.
type Choices = BTreeMap<String, BTreeMap<String, Choice>>;

/// The choices for one device and library.
#[derive(Debug)]
pub struct Engines {
    path: Option<PathBuf>,
    device: String,
    known: BTreeMap<String, Choice>,
}

impl Engines {
    /// None yet for `device` (its name, with the library's version); new ones are remembered while this lives.
    pub fn new(device: String) -> Self {
        Engines { path: None, device, known: BTreeMap::new() }
    }

    /// Those that earlier runs kept in the file at `path`, if it is there; new ones will be kept in it.
    pub fn in_file(self, path: PathBuf) -> Self {
        let known = read(&path).remove(&self.device).unwrap_or_default();
        Engines { path: Some(path), known, ..self }
    }

    /// The device and library that the choices are for.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The choice for a convolution.
    pub fn get(&self, convolution: &str) -> Option<Choice> {
        self.known.get(convolution).copied()
    }

    /// Remembers a choice, on the disk when this returns: whoever goes on where this process was killed takes the same. Gives the
    /// one that holds, for another process may have been first, and a run may be under way with its choice. A cache that
    /// cannot be written is no error: then each run chooses for itself.
    pub fn settle(&mut self, convolution: String, choice: Choice) -> Choice {
        let mut all = self.path.as_deref().map(read).unwrap_or_default();
        let there = all.entry(self.device.clone()).or_default();
        // What was known when this process began, and is chosen anew, did not work.
        if let Some(&first) = there.get(&convolution).filter(|first| Some(*first) != self.known.get(&convolution)) {
            self.known.insert(convolution, first);
            return first;
        }
        there.insert(convolution.clone(), choice);
        self.known.insert(convolution, choice);
        if let Some(path) = &self.path {
            let _ = path.parent().map(std::fs::create_dir_all);
            let text = serde_json::to_string_pretty(&all).unwrap_or_default();
            let _ = write_atomically(path, |file| writeln!(file, "{text}"));
        }
        choice
    }
}

/// A file that is not there, or is no such file, says nothing.
fn read(path: &Path) -> Choices {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_come_back_and_the_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/engines.json");
        let open = |device: &str| Engines::new(device.into()).in_file(path.clone());
        let (mut one, mut two) = (open("a"), open("a"));
        let choice = |engine| Choice { fallback: false, engine };
        assert_eq!(one.settle("x".into(), choice(3)), choice(3));
        assert_eq!(two.settle("x".into(), choice(4)), choice(3), "another process was first");
        assert_eq!(two.settle("y".into(), choice(5)), choice(5));
        let mut known = open("a");
        assert_eq!((known.get("x"), known.get("y"), known.get("z")), (Some(choice(3)), Some(choice(5)), None));
        assert_eq!(known.settle("y".into(), choice(6)), choice(6), "what was known did not work");
        assert_eq!(open("a").get("y"), Some(choice(6)));
        assert_eq!(open("b").get("x"), None);
        std::fs::write(&path, "{ broken").unwrap();
        assert_eq!(open("a").get("x"), None);
    }
}
