//! The checkpoints in a run's folder: their names, which is the newest that is whole, which is the best, which may go.

use std::path::{Path, PathBuf};

use super::{Checkpoint, Meta, Unfit};
use crate::data::loader::Position;
use crate::{Error, Result};

const PREFIX: &str = "checkpoint-epoch";
const STEP: &str = "-step";
const SUFFIX: &str = ".safetensors";

/// The checkpoint's path in the folder `run`, after `position.epoch` complete epochs and `position.step` steps of the next:
/// `checkpoint-epochNNNN.safetensors` at an epoch's end, else `checkpoint-epochNNNN-stepNNNNNN.safetensors`.
pub fn path_at(run: &Path, position: Position) -> PathBuf {
    let Position { epoch, step } = position;
    let step = if step == 0 { String::new() } else { format!("{STEP}{step:06}") };
    run.join(format!("{PREFIX}{epoch:04}{step}{SUFFIX}"))
}

/// The position in a name that [`path_at`] gives.
fn position_of(name: &str) -> Option<Position> {
    let place = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?;
    let position = match place.split_once(STEP) {
        None => Position { epoch: number(place)?, step: 0 },
        Some((epoch, step)) => Position { epoch: number(epoch)?, step: number(step).filter(|&step| step > 0)? },
    };
    Some(position)
}

/// The checkpoints in the folder `run` with their positions, oldest first. [`Error::Io`] if the folder cannot be read.
pub fn list(run: &Path) -> Result<Vec<(Position, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(run).map_err(Error::io("read", run))? {
        let entry = entry.map_err(Error::io("read", run))?;
        if let Some(position) = entry.file_name().to_str().and_then(position_of) {
            found.push((position, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint in the folder `run` by its name, if there is one. [`Error::Io`] if the folder cannot be read.
pub fn newest(run: &Path) -> Result<Option<PathBuf>> {
    Ok(list(run)?.pop().map(|(_, path)| path))
}

/// The newest checkpoint of a run that is whole.
#[derive(Debug)]
pub struct Newest {
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// Where it lies.
    pub path: PathBuf,
    /// Newer ones that cannot be used, newest first.
    pub damaged: Vec<Damaged>,
}

impl From<Newest> for (Checkpoint, PathBuf) {
    fn from(newest: Newest) -> Self {
        (newest.checkpoint, newest.path)
    }
}

/// A checkpoint that cannot be used.
#[derive(Debug)]
pub struct Damaged {
    /// Where it lies.
    pub path: PathBuf,
    /// What is wrong; the text names the path.
    pub reason: Error,
}

/// Reads the newest checkpoint in the folder `run` that is whole; `None` if there is no checkpoint at all.
///
/// # Errors
/// [`Error::Format`] if there are checkpoints but none is whole: it lists them all with their reasons. [`Error::Usage`] if a
/// newer version of the program wrote one: what it knew must not be passed over. [`Error::Io`] if the folder cannot be read.
pub fn load_newest(run: &Path) -> Result<Option<Newest>> {
    let mut damaged: Vec<Damaged> = Vec::new();
    for (_, path) in list(run)?.into_iter().rev() {
        let reason = match Checkpoint::read(&path) {
            Ok(Ok(checkpoint)) => return Ok(Some(Newest { checkpoint, path, damaged })),
            Ok(Err(Unfit::Newer(problem))) => return Err(Error::Usage(format!("{}: {problem}", path.display()))),
            Ok(Err(Unfit::Damaged(problem))) => Error::format(&path, problem),
            // Another process found it too old to keep.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
            Err(reason) => reason,
        };
        damaged.push(Damaged { path, reason });
    }
    if damaged.is_empty() {
        return Ok(None);
    }
    let reasons: Vec<String> = damaged.iter().map(|damaged| damaged.reason.to_string()).collect();
    Err(Error::format(run, format!("none of its checkpoints can be used: {}", reasons.join("; "))))
}

/// The checkpoint that `path` means: the file itself, or the newest in a run's folder, by its name.
///
/// Errors: [`Error::Usage`] if nothing is there or the folder holds no checkpoint; [`Error::Io`] if it cannot be read.
pub fn find(path: &Path) -> Result<PathBuf> {
    if !path.exists() {
        return Err(Error::Usage(format!("{} does not exist: give a run's folder or a checkpoint", path.display())));
    }
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let none = || Error::Usage(format!("{} holds no checkpoint (checkpoint-epochNNNN.safetensors)", path.display()));
    newest(path)?.ok_or_else(none)
}

/// The best checkpoint in the folder `run` and its loss: of those at an epoch's end the one whose epoch had the lowest mean
/// loss, the earlier of equals. No label has a say in it. Reads headers alone, and passes over files it cannot read.
pub fn best(run: &Path) -> Result<Option<(PathBuf, f64)>> {
    let mut best: Option<(PathBuf, f64)> = None;
    for (_, path) in list(run)?.into_iter().filter(|(position, _)| position.step == 0) {
        let Ok(loss) = Meta::read(&path).map(|meta| meta.losses.total) else { continue };
        if loss.is_finite() && best.as_ref().is_none_or(|(_, lowest)| loss < *lowest) {
            best = Some((path, loss));
        }
    }
    Ok(best)
}

/// Removes all but the `keep` newest checkpoints (0 keeps all) and the best one in the folder `run`, and returns what it
/// removed.
pub fn prune(run: &Path, keep: usize) -> Result<Vec<PathBuf>> {
    let mut removed = list(run)?.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
    removed.truncate(if keep == 0 { 0 } else { removed.len().saturating_sub(keep) });
    if removed.is_empty() {
        return Ok(removed);
    }
    let best = best(run)?.map(|(path, _)| path);
    removed.retain(|path| Some(path) != best.as_ref());
    for path in &removed {
        std::fs::remove_file(path).map_err(Error::io("remove", path))?;
    }
    Ok(removed)
}
