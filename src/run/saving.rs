//! What a run saves, and what it does when the disk refuses.

use super::folder::stamp;
use super::{Run, Saved};
use crate::atomic_file::write_atomically;
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint, Meta, NamedTensor, weights_hash};
use crate::config::Config;
use crate::data::Dataset;
use crate::data::loader::Position;
use crate::log::JsonLines;
use crate::trainer::Trainer;
use crate::{Error, Result, snapshot};

impl Run {
    /// Writes a checkpoint of the trainer's state. That the disk refuses is said and no error: the older ones stay, and it is
    /// tried again some steps later.
    pub fn checkpoint<B: Backend>(&mut self, trainer: &Trainer<B>, dataset: &Dataset) -> Result<()> {
        if self.refused == Some(trainer.position) {
            return Ok(());
        }
        match self.save(trainer, dataset) {
            Err(refused @ Error::Io { .. }) => {
                self.refused = Some(trainer.position);
                let steps = self.due.failed(trainer.position);
                let left = self.newest_in_words();
                self.say(&format!("not saved: {refused}; {left}; trying again in {steps} steps"));
                Ok(())
            }
            done => done,
        }
    }

    /// Writes a checkpoint of the trainer's state, unless there is one, and then removes those that are too old to keep.
    pub fn save<B: Backend>(&mut self, trainer: &Trainer<B>, dataset: &Dataset) -> Result<()> {
        let (position, step) = (trainer.position, trainer.steps());
        if step == 0 || self.saved.as_ref().is_some_and(|saved| saved.position == position) {
            return Ok(());
        }
        self.sync();
        let tensors = snapshot::tensors(&trainer.params, &trainer.adam)?;
        self.weights = Some((position, weights_hash(&tensors)));
        let path = checkpoint::path_at(&self.folder, position);
        state(trainer, dataset, tensors).save(&path)?;
        self.due.wrote();
        for damaged in std::mem::take(&mut self.damaged).into_iter().filter(|damaged| *damaged != path) {
            if let Err(refused) = std::fs::remove_file(&damaged) {
                self.say(&format!("cannot remove the damaged {}: {refused}", damaged.display()));
            }
        }
        self.saved = Some(Saved { path, position, step });
        self.prune(trainer.config.keep);
        self.write_unwritten();
        Ok(())
    }

    /// Removes checkpoints beyond those to keep; that it cannot is only said.
    pub(super) fn prune(&self, keep: usize) {
        if let Err(refused) = checkpoint::prune(&self.folder, keep) {
            self.say(&format!("old checkpoints stay: {refused}"));
        }
    }

    /// Ends the display, after a checkpoint of the state at hand if there is none, and what could not be written before.
    ///
    /// # Errors
    /// [`Error::Unsaved`] with all that is missing in the folder, and what is there.
    pub fn finish<B: Backend>(&mut self, trainer: &Trainer<B>, dataset: &Dataset) -> Result<()> {
        self.progress.finish();
        let mut missing = Vec::new();
        match self.save(trainer, dataset) {
            Err(refused @ Error::Io { .. }) => {
                missing.push(format!("not saved: {refused}; {}", self.newest_in_words()))
            }
            done => done?,
        }
        self.write_unwritten();
        self.sync();
        missing.extend(
            self.unwritten.keys().map(|name| format!("{} could not be written", self.folder.join(name).display())),
        );
        missing.extend([&self.metrics, &self.timing].into_iter().filter_map(JsonLines::missing));
        if missing.is_empty() { Ok(()) } else { Err(Error::Unsaved(missing.join("; "))) }
    }

    /// Whether nothing is lost if the process ends now.
    pub(super) fn all_saved(&self, position: Position) -> bool {
        self.saved.as_ref().is_some_and(|saved| saved.position == position)
            && self.unwritten.is_empty()
            && self.metrics.missing().is_none()
            && self.timing.missing().is_none()
    }

    /// The newest checkpoint, in words.
    pub(crate) fn newest_in_words(&self) -> String {
        match &self.saved {
            Some(Saved { path, step, .. }) => format!("the newest checkpoint is {} of step {step}", path.display()),
            None => "there is no checkpoint before it".to_owned(),
        }
    }

    /// Writes a small file as a whole. If the disk refuses, that is said, and it is tried again later.
    pub(super) fn write(&mut self, name: &'static str, text: String) {
        let path = self.folder.join(name);
        match write_atomically(&path, |file| writeln!(file, "{text}")) {
            Ok(()) => drop(self.unwritten.remove(name)),
            Err(refused) => {
                self.say(&format!("{refused}; the run goes on, and tries again"));
                self.unwritten.insert(name, text);
            }
        }
    }

    fn write_unwritten(&mut self) {
        for (name, text) in std::mem::take(&mut self.unwritten) {
            let path = self.folder.join(name);
            match write_atomically(&path, |file| writeln!(file, "{text}")) {
                Ok(()) => self.say(&format!("{} is written now", path.display())),
                // It was said.
                Err(_) => drop(self.unwritten.insert(name, text)),
            }
        }
    }
}

/// The trainer's state as a checkpoint.
pub(super) fn state<B: Backend>(trainer: &Trainer<B>, dataset: &Dataset, tensors: Vec<NamedTensor>) -> Checkpoint {
    // Where a run lies, how many threads it has and what it leaves behind is not part of its state: the same state, the same
    // bytes.
    let Config { checkpoint_every, keep, on_nan, log_every, .. } = Config::default();
    let config =
        Config { out: String::new(), threads: 0, checkpoint_every, keep, on_nan, log_every, ..trainer.config.clone() };
    let meta = Meta {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        config,
        epoch: trainer.position.epoch,
        step: trainer.adam.steps(),
        step_in_epoch: trainer.position.step,
        data: stamp(dataset),
        losses: trainer.epoch_losses,
    };
    Checkpoint { tensors, meta }
}
