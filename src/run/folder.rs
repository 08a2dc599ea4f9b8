//! What lies in a run's folder, whether or not a process is writing it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::lock::RunLock;
use super::stamp::{RunStamp, STAMP};
use crate::atomic_file::{remove_leftovers, sync_folder, write_atomically};
use crate::checkpoint::{self, DataStamp};
use crate::config::Config;
use crate::data::{Dataset, Excluded};
use crate::eval::{Baselines, Evaluation};
use crate::log::say;
use crate::{Error, Result};

pub(super) const CONFIG: &str = "config.toml";
pub(super) const METRICS: &str = "metrics.jsonl";
pub(super) const TIMING: &str = "timing.jsonl";
pub(super) const BASELINES: &str = "baselines.json";
pub(super) const RESULTS: &str = "results.json";
const QUARANTINE: &str = "quarantine.jsonl";

/// Makes the folder of a new run, locks it and writes what does not change: configuration, what was set aside, `run.json`.
/// The configuration comes first: a folder that has it can be resumed wherever this was cut short, and one without it
/// can be used again.
///
/// # Errors
/// [`Error::Usage`] if a file of a run is there already, whatever run it is of, or another process is at work there;
/// [`Error::Io`].
pub fn create(folder: &Path, config: &Config, dataset: &Dataset) -> Result<RunLock> {
    // Before anything is written, and again when nobody else can write.
    refuse_taken(folder)?;
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    let lock = RunLock::take(folder)?;
    refuse_taken(folder)?;
    remove_leftovers(folder)?;
    sync_parent(folder);
    save_config(folder, config)?;
    write_quarantine(folder, dataset.excluded())?;
    RunStamp::new(stamp(dataset)).write(folder)?;
    Ok(lock)
}

/// Makes a new folder's name durable. A file system that cannot do it keeps it all the same, as long as the power stays.
fn sync_parent(folder: &Path) {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let _ = sync_folder(parent.unwrap_or(Path::new(".")));
}

/// Errors with [`Error::Usage`] if the folder holds a file with a name of a run's.
fn refuse_taken(folder: &Path) -> Result<()> {
    if folder.join(CONFIG).exists() {
        return Err(Error::Usage(format!(
            "{} holds a run already: add --resume to go on with it, or choose another --out",
            folder.display()
        )));
    }
    let mut names = [STAMP, METRICS, TIMING, BASELINES, RESULTS, QUARANTINE].map(|name| folder.join(name)).into_iter();
    let checkpoints = if folder.is_dir() { checkpoint::list(folder)? } else { Vec::new() };
    match names.find(|path| path.exists()).or(checkpoints.into_iter().next().map(|(_, path)| path)) {
        Some(path) => Err(Error::Usage(format!(
            "{} is there already, though no {CONFIG}: nothing is overwritten; choose another --out",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Locks the run in `folder` to go on with it, and removes what writers that were killed left there.
///
/// # Errors
/// [`Error::Usage`] if there is no run, or another process is at work on it; [`Error::Io`].
pub fn reopen(folder: &Path) -> Result<RunLock> {
    exists(folder)?;
    let lock = RunLock::take(folder)?;
    remove_leftovers(folder)?;
    Ok(lock)
}

/// Errors with [`Error::Usage`] if there is no run in `folder`.
fn exists(folder: &Path) -> Result<()> {
    if folder.join(CONFIG).exists() {
        return Ok(());
    }
    Err(Error::Usage(format!("{} holds no run (no {CONFIG})", folder.display())))
}

/// Writes the configuration of the run, in full, unless the file says the same.
pub fn save_config(folder: &Path, config: &Config) -> Result<()> {
    let (path, text) = (folder.join(CONFIG), config.to_toml());
    if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    write_atomically(&path, |file| file.write_all(text.as_bytes()))
}

/// The configuration of the run in `folder`. Errors with [`Error::Usage`] if there is none.
pub fn config(folder: &Path) -> Result<Config> {
    exists(folder)?;
    Config::from_file(&folder.join(CONFIG))
}

/// The run in `root` that was written to last. Errors with [`Error::Usage`] if there is none.
pub fn latest(root: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let changed = |path: PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let runs = entries.filter_map(|entry| {
        let path = entry.path();
        let begun = changed(path.join(CONFIG))?;
        Some((changed(path.join(METRICS)).map_or(begun, |written| written.max(begun)), path))
    });
    let newest = runs.max().map(|(_, path)| path);
    newest.ok_or_else(|| Error::Usage(format!("no run in {}/: nothing to resume", root.display())))
}

/// Makes a new folder under `root`: `name`, `name-2`, `name-3`, ...
pub fn fresh(root: &Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(root).map_err(Error::io("create the folder", root))?;
    sync_parent(root);
    let mut number = 1;
    loop {
        let path = if number == 1 { root.join(name) } else { root.join(format!("{name}-{number}")) };
        match std::fs::create_dir(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|()| path.clone()).map_err(Error::io("create the folder", &path)),
        }
    }
}

/// Writes what was set aside, a JSON line each, unless it is there; no file if nothing was.
pub fn write_quarantine(folder: &Path, excluded: &[Excluded]) -> Result<()> {
    let path = folder.join(QUARANTINE);
    if excluded.is_empty() { Ok(()) } else { write_excluded(&path, excluded) }
}

/// Writes a JSON line for each thing set aside to a file at `path`.
pub fn write_excluded(path: &Path, excluded: &[Excluded]) -> Result<()> {
    write_atomically(path, |file| excluded.iter().try_for_each(|excluded| writeln!(file, "{}", json(excluded))))
}

/// Completes a run's folder whose creation was cut short, and says so if that may matter.
pub fn complete(folder: &Path, dataset: &Dataset, stamp_there: bool) -> Result<()> {
    if !folder.join(QUARANTINE).exists() {
        write_quarantine(folder, dataset.excluded())?;
    }
    if stamp_there { Ok(()) } else { RunStamp::new(stamp(dataset)).write(folder) }
}

/// The last evaluation that the run in `folder` kept.
pub fn results(folder: &Path) -> Option<Evaluation> {
    let text = std::fs::read_to_string(folder.join(RESULTS)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The scores training has to beat, as an earlier process of this run found them.
pub fn baselines(folder: &Path) -> Option<Baselines> {
    let text = std::fs::read_to_string(folder.join(BASELINES)).ok()?;
    let read = serde_json::from_str(&text);
    if let Err(problem) = &read {
        say(&format!("{} is damaged ({problem})", folder.join(BASELINES).display()));
    }
    read.ok()
}

/// What a checkpoint and a run say about their data.
pub fn stamp(dataset: &Dataset) -> DataStamp {
    DataStamp {
        description: dataset.describe(),
        images: dataset.len() as u64,
        fingerprint: u64::from(dataset.fingerprint()),
    }
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
}
