//! What the folder of a run says of it, without a look at its network or its data.

use std::path::{Path, PathBuf};

use super::history::History;
use crate::checkpoint;
use crate::config::Config;
use crate::eval::{Baselines, Evaluation};
use crate::{Result, run};

/// A run, as far as its files tell.
pub struct RunFiles {
    /// Its folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: Config,
    /// Its logs.
    pub history: History,
    /// What training has to beat, if it was scored.
    pub baselines: Baselines,
    /// The last evaluation, if there was one.
    pub evaluation: Option<Evaluation>,
    /// The newest checkpoint, if there is one.
    pub checkpoint: Option<PathBuf>,
}

impl RunFiles {
    /// Reads the files in `folder`. Errors with [`crate::Error::Usage`] if there is no run in it.
    pub fn read(folder: &Path) -> Result<RunFiles> {
        Ok(RunFiles {
            config: run::config(folder)?,
            history: History::read(folder)?,
            baselines: run::baselines(folder).unwrap_or_default(),
            evaluation: run::results(folder),
            checkpoint: checkpoint::newest(folder)?,
            folder: folder.to_path_buf(),
        })
    }

    /// The folder's own name.
    pub fn name(&self) -> String {
        let real = std::fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        real.file_name().unwrap_or(real.as_os_str()).to_string_lossy().into_owned()
    }

    /// How far it came, in words: `28 of 28 epochs`, `3 of 28 epochs and 17 steps`.
    pub fn progress(&self) -> String {
        let (epochs, steps) = self.history.end();
        let wanted = self.config.epochs;
        let at_end = self.history.of("epoch").map(|entry| entry.step).max().unwrap_or(0);
        let more = match steps.saturating_sub(at_end) {
            0 => String::new(),
            more => format!(" and {}", super::page::count(more as usize, "step")),
        };
        format!("{epochs} of {wanted} epochs{more}")
    }
}
