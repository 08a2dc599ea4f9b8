//! The folder of a run: what it holds, and what is written to it as training goes.
//!
//! ```text
//! config.toml       the configuration in full
//! run.json          which version began it, on which data
//! run.lock          locked while a process writes the run; names it
//! quarantine.jsonl  files that were set aside, with reasons (only if there are any)
//! baselines.json    scores of raw pixels and of the network before training (only with labels)
//! metrics.jsonl     a line a step, an epoch, an evaluation: equal runs, equal bytes
//! timing.jsonl      what the clock said at each of them
//! checkpoint-epochNNNN.safetensors, checkpoint-epochNNNN-stepNNNNNN.safetensors
//!                   at an epoch's end and inside one, the newest and the best: weights, optimiser, position
//! results.json      the last evaluation, and the hash of the weights it is of
//! nonfinite-stepNNNNNN.json, nonfinite-stepNNNNNN.safetensors
//!                   what there is to say of a step that was not finite, and the state before it
//! left-out.jsonl    the batches on which no step is made, as it would not be finite
//! ```
//!
//! A process may be killed at any instant. So a checkpoint is written after the lines of the steps before it and before
//! anything that takes long, and what stands in the logs behind a checkpoint is removed when the run goes on from it. A disk
//! that refuses does not end the run: what could not be written is said, kept, and tried again.

mod bad_step;
mod due;
mod folder;
mod lock;
mod requests;
mod saving;
mod stamp;

pub use bad_step::{GoOn, restore};
pub use folder::{
    baselines, complete, config, create, fresh, latest, reopen, save_config, stamp, write_excluded, write_quarantine,
};
pub use lock::RunLock;
pub use requests::{LastWords, OnStop, Requests};
pub use stamp::RunStamp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use self::due::Due;
use self::folder::{BASELINES, METRICS, RESULTS, TIMING, json};
use crate::backend::Backend;
use crate::checkpoint::weights_hash;
use crate::data::Dataset;
use crate::data::loader::Position;
use crate::eval::collapse::{Collapse, Health, SETTLED_STEPS};
use crate::eval::embed::embed;
use crate::eval::{Baselines, Evaluation, Evaluator};
use crate::log::{CollapseRecord, EpochRecord, EvalRecord, JsonLines, Plan, Progress, Record, StepRecord, Timing};
use crate::nonfinite::LeftOutBatches;
use crate::trainer::Trainer;
use crate::{Error, Result, snapshot};

/// What a stop that comes while steps are taken waits for.
pub(crate) const STOPPING: &str = "stopping after this step, with a checkpoint";

/// An open run folder with its logs and its display.
pub struct Run {
    folder: PathBuf,
    metrics: JsonLines,
    timing: JsonLines,
    progress: Progress,
    due: Due,
    baselines: Baselines,
    /// The evaluation of the state at hand, if there was one.
    evaluation: Option<Evaluation>,
    /// Whether it stands in the log.
    evaluation_logged: bool,
    saved: Option<Saved>,
    left_out: LeftOutBatches,
    /// What had collapsed when it was last measured.
    collapsed: Vec<Collapse>,
    /// Where the disk refused a checkpoint last.
    refused: Option<Position>,
    /// The last hash of weights, and the position it was taken at.
    weights: Option<(Position, String)>,
    /// Checkpoints that could not be read; they go when a new one is there.
    damaged: Vec<PathBuf>,
    /// Small files that could not be written, with what belongs into them.
    unwritten: BTreeMap<&'static str, String>,
    /// The clock of the run at the last step, in seconds, and when that was.
    clock: (f64, Instant),
    epoch_started: Instant,
    epoch_views: u64,
    _lock: RunLock,
}

/// The newest checkpoint.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Where it lies.
    pub path: PathBuf,
    /// The step that comes next.
    pub position: Position,
    /// Steps taken.
    pub step: u64,
}

/// What a run goes on from.
#[derive(Debug, Default)]
pub struct Resumed {
    /// The checkpoint that the trainer was restored from, and the hash of its weights; `None` to begin at the beginning.
    pub checkpoint: Option<(Saved, String)>,
    /// Newer ones that could not be read.
    pub damaged: Vec<PathBuf>,
}

/// `results.json`.
#[derive(Serialize)]
struct Results<'a> {
    #[serde(flatten)]
    evaluation: &'a Evaluation,
    weights: &'a str,
}

/// The file form of an evaluation of a model: what `results.json` holds and `eval --json` prints.
pub fn results_json(evaluation: &Evaluation, weights: &str) -> String {
    json(&Results { evaluation, weights })
}

impl Run {
    /// Opens the logs of the run in `folder`, rewound to the trainer's position, sets the trainer's clock by them, and starts
    /// the display. The trainer was restored from what `resumed` says.
    pub fn open<B: Backend>(
        folder: &Path,
        lock: RunLock,
        trainer: &mut Trainer<B>,
        steps_per_epoch: u64,
        resumed: Resumed,
    ) -> Result<Run> {
        let step = trainer.steps();
        let left_out = LeftOutBatches::load(folder)?;
        trainer.left_out = left_out.positions(steps_per_epoch);
        let (metrics, known) = JsonLines::resume(&folder.join(METRICS), step)?;
        let (timing, timed) = JsonLines::resume(&folder.join(TIMING), step)?;
        // Runs of earlier versions kept their times in the metrics.
        let seconds = timed.seconds.max(known.seconds);
        trainer.resume_clock(seconds);
        let config = &trainer.config;
        let plan = Plan {
            epochs: config.epochs as u64,
            steps: config.epochs as u64 * steps_per_epoch,
            steps_before: step,
            log_every: config.log_every as u64,
        };
        let (saved, weights) = resumed.checkpoint.unzip();
        let mut run = Run {
            folder: folder.to_path_buf(),
            metrics,
            timing,
            progress: Progress::new(plan),
            due: Due::new(config.checkpoint_every, steps_per_epoch),
            baselines: baselines(folder).unwrap_or_default(),
            evaluation: known.evaluation.map(|record| record.evaluation),
            evaluation_logged: known.evaluated,
            saved,
            left_out,
            collapsed: known.collapsed,
            refused: None,
            weights: weights.map(|weights| (trainer.position, weights)),
            damaged: resumed.damaged,
            unwritten: BTreeMap::new(),
            clock: (seconds, Instant::now()),
            epoch_started: Instant::now(),
            epoch_views: 0,
            _lock: lock,
        };
        if known.step < step {
            let (first, path) = (known.step + 1, folder.join(METRICS));
            run.say(&format!("{}: the lines of steps {first} to {step} are lost", path.display()));
        }
        if run.damaged.is_empty() {
            run.prune(config.keep);
        }
        run.say_what_is_ahead(config.on_nan, step);
        // Killed between the line and the file.
        if let Some((evaluation, (_, weights))) = run.evaluation.clone().zip(run.weights.clone()) {
            run.write(RESULTS, results_json(&evaluation, &weights));
        }
        Ok(run)
    }

    /// Keeps the scores training has to beat.
    pub fn save_baselines(&mut self, baselines: Baselines) {
        self.write(BASELINES, json(&baselines));
        self.baselines = baselines;
    }

    /// Logs and shows a step of so many views.
    pub fn after_step(&mut self, record: &StepRecord, views: usize) {
        self.progress.step(record);
        self.clock = (record.seconds, Instant::now());
        self.epoch_views += views as u64;
        (self.evaluation, self.evaluation_logged) = (None, false);
        self.log(&Record::Step(record.clone()));
        self.time(Timing {
            kind: "step",
            step: record.step,
            seconds: record.seconds,
            views_per_s: Some(record.views_per_s),
            took: None,
        });
    }

    /// Logs an epoch that is complete.
    pub fn after_epoch<B: Backend>(&mut self, trainer: &Trainer<B>) {
        let (loss, epoch, step) = (trainer.epoch_losses, trainer.position.epoch, trainer.steps());
        self.log(&Record::Epoch(EpochRecord {
            epoch,
            step,
            loss: loss.total,
            loss_instance: loss.instance,
            loss_feature: loss.feature,
            entropy: loss.entropy,
            learning_rate: trainer.learning_rate_in(epoch.saturating_sub(1)),
        }));
        let views_per_s = self.epoch_views as f64 / self.epoch_started.elapsed().as_secs_f64();
        self.time(Timing { kind: "epoch", step, seconds: self.clock.0, views_per_s: Some(views_per_s), took: None });
        (self.epoch_started, self.epoch_views) = (Instant::now(), 0);
    }

    /// Measures on a sample of images, without labels, whether the representation has collapsed, and logs it; says when it begins
    /// and when it ends.
    pub fn watch_collapse<B: Backend>(&mut self, trainer: &mut Trainer<B>, dataset: &Dataset) -> Result<()> {
        let begun = Instant::now();
        let (epoch, step, size) = (trainer.position.epoch, trainer.steps(), trainer.config.image_size);
        let mut health = match Health::measure(&trainer.model, &mut trainer.params, dataset, size) {
            Err(Error::NonFinite(problem)) => {
                self.say(&format!("warning: epoch {epoch}: collapse cannot be measured: {problem}"));
                return Ok(());
            }
            health => health?,
        };
        if trainer.adam.steps() < SETTLED_STEPS {
            health.collapsed.clear();
        }
        if health.collapsed.iter().any(|what| !self.collapsed.contains(what)) {
            self.say(&format!("warning: epoch {epoch}: collapse: {health}"));
        } else if health.collapsed.is_empty() && !self.collapsed.is_empty() {
            self.say(&format!("epoch {epoch}: the collapse is over: features and heads tell images apart again"));
        }
        self.collapsed.clone_from(&health.collapsed);
        self.log(&Record::Collapse(CollapseRecord { epoch, step, health }));
        self.time_now("collapse", step, Some(begun));
        Ok(())
    }

    /// Whether a checkpoint is due after the step before `position`.
    pub fn checkpoint_due(&self, position: Position) -> bool {
        self.due.at(position)
    }

    /// Evaluates the network if that is due at this epoch's end and was not done, after a checkpoint: what takes long must not
    /// cost the epoch. A stop that is asked for meanwhile ends the process at once; the resumed run evaluates.
    pub fn evaluate_if_due<B: Backend>(
        &mut self,
        trainer: &mut Trainer<B>,
        dataset: &Dataset,
        requests: &Requests,
    ) -> Result<()> {
        let (Position { epoch, step }, every) = (trainer.position, trainer.config.eval.every as u64);
        let due = epoch == trainer.config.epochs as u64 || (every > 0 && epoch.is_multiple_of(every));
        if step > 0 || epoch == 0 || !due || self.evaluation.is_some() {
            return Ok(());
        }
        self.checkpoint(trainer, dataset)?;
        if self.all_saved(trainer.position) {
            requests.end_at_once(self.last_words());
        }
        let stopped_before = requests.stop();
        let evaluated = if stopped_before { Ok(()) } else { self.evaluate(trainer, dataset) };
        requests.wait(STOPPING);
        self.epoch_started = Instant::now();
        evaluated
    }

    /// Evaluates the network as it is. The file comes before the line in the log: whoever finds the line has both.
    fn evaluate<B: Backend>(&mut self, trainer: &mut Trainer<B>, dataset: &Dataset) -> Result<()> {
        let begun = Instant::now();
        let size = trainer.config.image_size;
        let embeddings = embed(&trainer.model, &mut trainer.params, dataset, size, &mut |_| ())?;
        let evaluation = Evaluator::new(dataset, &trainer.config.eval)?.evaluate(&embeddings, &self.baselines)?;
        let (epoch, step) = (trainer.position.epoch, trainer.steps());
        if let (Some(h), Some(y)) = (evaluation.backbone, evaluation.feature) {
            self.say(&format!("epoch {epoch}: NMI {:.3} backbone, {:.3} feature", h.nmi, y.nmi));
        }
        let weights = match &self.weights {
            Some((at, weights)) if *at == trainer.position => weights.clone(),
            _ => weights_hash(&snapshot::tensors(&trainer.params, &trainer.adam)?),
        };
        self.write(RESULTS, results_json(&evaluation, &weights));
        if !self.evaluation_logged {
            self.log(&Record::Eval(EvalRecord { epoch, step, evaluation: evaluation.clone() }));
            self.time_now("eval", step, Some(begun));
        }
        (self.evaluation, self.evaluation_logged) = (Some(evaluation), true);
        Ok(())
    }

    /// What a process says that is stopped while everything is saved.
    pub fn last_words(&self) -> LastWords {
        let out = self.weights().map_or(String::new(), |weights| format!("weights {weights}"));
        LastWords {
            out,
            err: format!("stopped; go on with: disentangle train --out {} --resume", self.folder.display()),
        }
    }

    /// The newest checkpoint.
    pub fn saved(&self) -> Option<&Saved> {
        self.saved.as_ref()
    }

    /// The hash of the weights that were saved or evaluated last.
    pub fn weights(&self) -> Option<&str> {
        self.weights.as_ref().map(|(_, weights)| weights.as_str())
    }

    /// The evaluation of the state at hand.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the scores training has to beat are still to be found.
    pub fn lacks_baselines(&self) -> bool {
        self.baselines == Baselines::default()
    }

    /// Prints a line beside the progress bar.
    pub fn say(&self, text: &str) {
        self.progress.say(text);
    }

    fn say_all<const N: usize>(&self, said: [Option<String>; N]) {
        said.into_iter().flatten().for_each(|text| self.say(&text));
    }

    fn log(&mut self, record: &Record) {
        let said = self.metrics.write(record.to_json());
        self.say_all([said]);
    }

    fn time(&mut self, timing: Timing) {
        let said = self.timing.write(timing.to_json());
        self.say_all([said]);
    }

    /// What the clock of the run says at a line that is no step's, and how long took what began at some time.
    fn time_now(&mut self, kind: &'static str, step: u64, begun: Option<Instant>) {
        let (seconds, at) = self.clock;
        let seconds = seconds + at.elapsed().as_secs_f64();
        let took = begun.map(|begun| begun.elapsed().as_secs_f64());
        self.time(Timing { kind, step, seconds, views_per_s: None, took });
    }

    fn sync(&mut self) {
        let said = [self.metrics.sync(), self.timing.sync()];
        self.say_all(said);
    }
}
