//! What a run does about a step that is not finite; see [`crate::nonfinite`].

use std::path::PathBuf;
use std::time::Instant;

use super::folder::{METRICS, TIMING};
use super::saving::state;
use super::{Run, Saved};
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint};
use crate::data::Dataset;
use crate::data::loader::Batch;
use crate::log::{JsonLines, NonFiniteRecord, Record};
use crate::nonfinite::{self, Found, MOST_IN_A_ROW, MOST_REPORTS, OnNan, Report, Taken, search, state_path};
use crate::trainer::{BadStep, Trainer};
use crate::{Error, Result, snapshot};

/// How a run goes on behind a step that was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoOn {
    /// With the next batch.
    Here,
    /// From the last checkpoint: [`Run::roll_back`].
    FromCheckpoint,
}

/// How reports are called.
const REPORTS: &str = "nonfinite-step";

impl Run {
    /// What is known of a step that is to be left out.
    pub fn left_out(&self, step: u64) -> Option<&NonFiniteRecord> {
        self.left_out.get(step)
    }

    /// Logs a batch on which no step is made, as it comes.
    pub fn after_left_out(&mut self, record: &NonFiniteRecord) {
        (self.evaluation, self.evaluation_logged) = (None, false);
        self.log(&Record::NonFinite(record.clone()));
        self.time_now("nonfinite", record.step, None);
    }

    /// What there is to do about a bad step. The device is at rest, the trainer has the state before the step, and there is
    /// memory for one.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if that ends the run.
    pub fn after_bad_step<B: Backend>(
        &mut self,
        trainer: &mut Trainer<B>,
        dataset: &Dataset,
        bad: BadStep,
        batch: &Batch<B::Pixels>,
    ) -> Result<GoOn> {
        let (policy, step) = (trainer.config.on_nan, trainer.steps_at(bad.position) + 1);
        let (problem, report) = self.explain(trainer, dataset, bad, batch)?;
        let name = report.as_ref().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let record = NonFiniteRecord { epoch: bad.position.epoch + 1, step, policy, problem, report: name };
        let where_to_look =
            report.map_or(String::new(), |path| format!("; repeat it with: disentangle replay {}", path.display()));
        if policy == OnNan::Stop {
            self.after_left_out(&record);
            return Err(Error::NonFinite(format!(
                "step {step} is not finite: {bad}; it has changed nothing, and the last checkpoint is intact{where_to_look}; go on \
                 behind it with --resume --on-nan skip, or begin anew with a smaller learning_rate"
            )));
        }
        let saved = self.saved.as_ref().map_or(0, |saved| saved.step);
        let (lost, what) = match policy {
            OnNan::Rollback => (self.left_out.after(saved) + 1, "batches after the last checkpoint"),
            _ => (self.left_out.in_a_row(step - 1) + 1, "batches in a row"),
        };
        if lost > MOST_IN_A_ROW {
            self.after_left_out(&record);
            return Err(Error::NonFinite(format!(
                "{lost} {what} gave steps that are not finite, the last of them step {step}{where_to_look}; it is not the data: \
                 begin anew with a smaller learning_rate"
            )));
        }
        if let Err(refused) = self.left_out.add(record.clone()) {
            // The resumed run will meet it again, and find the same.
            self.say(&format!("{refused}; the run goes on"));
        }
        if policy == OnNan::Rollback {
            self.say(&format!("going back to step {saved}, to leave out the batch of step {step}"));
            return Ok(GoOn::FromCheckpoint);
        }
        self.say(&format!("going on without the batch of step {step}"));
        self.after_left_out(&record);
        trainer.leave_out(bad.position)?;
        Ok(GoOn::Here)
    }

    /// Finds out what was not finite and says it; saves report and state, unless there are many already. Gives what happened in a
    /// line, and where the report is.
    fn explain<B: Backend>(
        &self,
        trainer: &Trainer<B>,
        dataset: &Dataset,
        bad: BadStep,
        batch: &Batch<B::Pixels>,
    ) -> Result<(String, Option<PathBuf>)> {
        let step = trainer.steps_at(bad.position) + 1;
        let path = nonfinite::path_at(&self.folder, step);
        let others = self.reports().into_iter().filter(|(other, _)| *other != step).count();
        if others >= MOST_REPORTS {
            self.say(&format!("step {step}: {bad}; there are {others} reports already, and no more are written"));
            return Ok((bad.to_string(), None));
        }
        let state = state(trainer, dataset, snapshot::whole(&trainer.params, &trainer.adam)?);
        let views = batch.views.as_ref();
        let (found, unsearched) = match search(trainer.params.backend(), &trainer.config, &state, views) {
            Ok(found) => (found, None),
            Err(why) => (Found { losses: bad.losses, grad_norm: bad.grad_norm, site: None }, Some(why.to_string())),
        };
        let taken = Taken { bad, step, policy: trainer.config.on_nan, device: B::NAME, samples: &batch.samples, views };
        let mut report = Report::new(&taken, &found, dataset);
        report.unsearched = unsearched;
        self.say(&report.words());
        if path.exists() && Report::load(&path).is_ok_and(|before| before.differences(&report).is_empty()) {
            self.say(&format!("the same happened before: {}", path.display()));
        }
        let saved = state.save(&state_path(&path)).and_then(|()| report.save(&path));
        if let Err(refused) = &saved {
            self.say(&format!("no report: {refused}"));
        }
        Ok((report.problem(), saved.is_ok().then_some(path)))
    }

    /// The reports in the folder, by step.
    fn reports(&self) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let step = |name: &str| name.strip_prefix(REPORTS)?.strip_suffix(".json")?.parse().ok();
        let mut reports: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((step(entry.file_name().to_str()?)?, entry.path()))).collect();
        reports.sort();
        reports
    }

    /// Says that a run which stopped will do so again.
    pub(super) fn say_what_is_ahead(&self, policy: OnNan, step: u64) {
        let ahead = self.reports().into_iter().find(|(bad, _)| *bad > step && self.left_out.get(*bad).is_none());
        if let Some((bad, path)) = ahead.filter(|_| policy == OnNan::Stop) {
            self.say(&format!(
                "this run stopped at step {bad}, which was not finite ({}), and will meet it again: --on-nan skip or rollback \
                 gets past it",
                path.display()
            ));
        }
    }

    /// Sets the trainer back to the last checkpoint that is whole, or to the beginning, and the logs with it. No lane of its may
    /// be in use.
    pub fn roll_back<B: Backend>(&mut self, trainer: &mut Trainer<B>, dataset: &Dataset) -> Result<()> {
        let mut earlier = Trainer::new(trainer.params.backend().clone(), trainer.config.clone(), dataset.len())?;
        let newest = checkpoint::load_newest(&self.folder)?;
        (self.saved, self.weights) = (None, None);
        if let Some(newest) = newest {
            for damaged in newest.damaged {
                self.say(&format!("damaged checkpoint: {}; taking an earlier one", damaged.reason));
                self.damaged.push(damaged.path);
            }
            restore(&mut earlier, &newest.checkpoint).map_err(|e| Error::format(&newest.path, e.to_string()))?;
            let (position, step) = (earlier.position, earlier.steps());
            self.saved = Some(Saved { path: newest.path, position, step });
            self.weights = Some((position, newest.checkpoint.weights_hash()));
        }
        earlier.left_out = self.left_out.positions(earlier.steps_per_epoch());
        let (seconds, at) = self.clock;
        earlier.resume_clock(seconds + at.elapsed().as_secs_f64());
        *trainer = earlier;
        let step = trainer.steps();
        let (metrics, known) = JsonLines::resume(&self.folder.join(METRICS), step)?;
        let (timing, _) = JsonLines::resume(&self.folder.join(TIMING), step)?;
        (self.metrics, self.timing) = (metrics, timing);
        (self.evaluation, self.evaluation_logged) = (known.evaluation.map(|record| record.evaluation), known.evaluated);
        self.collapsed = known.collapsed;
        (self.epoch_started, self.epoch_views) = (Instant::now(), 0);
        Ok(())
    }
}

/// Sets a trainer to where a checkpoint stands.
pub fn restore<B: Backend>(trainer: &mut Trainer<B>, checkpoint: &Checkpoint) -> Result<()> {
    snapshot::restore_params(&mut trainer.params, checkpoint)?;
    snapshot::restore_adam(&trainer.params, &mut trainer.adam, checkpoint)?;
    trainer.position = checkpoint.meta.position();
    trainer.epoch_losses = checkpoint.meta.losses;
    Ok(())
}
