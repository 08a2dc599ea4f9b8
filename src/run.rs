//! The folder of a run: what it holds, and what is written to it as training goes.
//!
//! ```text
//! config.toml                        the configuration in full
//! quarantine.jsonl                   files that were set aside, with reasons (only if there are any)
//! baselines.json                     scores of raw pixels and of the network before training (only with labels)
//! metrics.jsonl                      a line a step, an epoch, an evaluation
//! checkpoint-epochNNNN.safetensors   the newest ones: weights under torchvision's names, optimiser, position
//! results.json                       the last evaluation
//! ```

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::atomic_file::write_atomically;
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint, DataStamp, Meta};
use crate::config::Config;
use crate::data::{Dataset, Excluded};
use crate::eval::embed::embed;
use crate::eval::{Baselines, Evaluation, Evaluator};
use crate::log::{EpochRecord, EvalRecord, MetricsLog, Plan, Progress, Record, StepRecord};
use crate::snapshot;
use crate::trainer::Trainer;
use crate::{Error, Result};

const CONFIG: &str = "config.toml";
const METRICS: &str = "metrics.jsonl";
const BASELINES: &str = "baselines.json";
const RESULTS: &str = "results.json";
const QUARANTINE: &str = "quarantine.jsonl";

/// An open run folder with its log and its display.
pub struct Run {
    folder: PathBuf,
    log: MetricsLog,
    progress: Progress,
    baselines: Baselines,
    evaluation: Option<Evaluation>,
    epoch_started: Instant,
}

/// Makes the folder of a new run and writes its configuration. Errors with [`Error::Usage`] if a run is there already.
pub fn create(folder: &Path, config: &Config) -> Result<()> {
    if folder.join(CONFIG).exists() || folder.join(METRICS).exists() {
        return Err(Error::Usage(format!(
            "{} holds a run already: add --resume to go on with it, or choose another --out",
            folder.display()
        )));
    }
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    save_config(folder, config)
}

/// Writes the configuration of the run, in full.
pub fn save_config(folder: &Path, config: &Config) -> Result<()> {
    write_atomically(&folder.join(CONFIG), |file| file.write_all(config.to_toml().as_bytes()))
}

/// The configuration of the run in `folder`. Errors with [`Error::Usage`] if there is none.
pub fn config(folder: &Path) -> Result<Config> {
    let path = folder.join(CONFIG);
    if !path.exists() {
        return Err(Error::Usage(format!("{} holds no run (no {CONFIG}): nothing to resume", folder.display())));
    }
    Config::from_file(&path)
}

/// The run in `root` that was written to last. Errors with [`Error::Usage`] if there is none.
pub fn latest(root: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let runs = entries.filter_map(|entry| {
        let changed = std::fs::metadata(entry.path().join(METRICS)).and_then(|m| m.modified()).ok()?;
        Some((changed, entry.path()))
    });
    let newest = runs.max().map(|(_, path)| path);
    newest.ok_or_else(|| Error::Usage(format!("no run in {}/: nothing to resume", root.display())))
}

/// A folder under `root` that does not exist yet: `name`, `name-2`, `name-3`, ...
pub fn fresh(root: &Path, name: &str) -> PathBuf {
    let candidates = (1..).map(|i| if i == 1 { root.join(name) } else { root.join(format!("{name}-{i}")) });
    candidates.into_iter().find(|path| !path.exists()).unwrap_or_else(|| root.join(name))
}

/// Writes what was set aside, a JSON line each; no file if nothing was.
pub fn write_quarantine(folder: &Path, excluded: &[Excluded]) -> Result<()> {
    if excluded.is_empty() { Ok(()) } else { write_excluded(&folder.join(QUARANTINE), excluded) }
}

/// Writes a JSON line for each thing set aside to a file at `path`.
pub fn write_excluded(path: &Path, excluded: &[Excluded]) -> Result<()> {
    write_atomically(path, |file| excluded.iter().try_for_each(|excluded| writeln!(file, "{}", json(excluded))))
}

/// The scores training has to beat, as an earlier process of this run found them.
pub fn baselines(folder: &Path) -> Option<Baselines> {
    let text = std::fs::read_to_string(folder.join(BASELINES)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The last evaluation that the run in `folder` kept.
pub fn results(folder: &Path) -> Option<Evaluation> {
    let text = std::fs::read_to_string(folder.join(RESULTS)).ok()?;
    serde_json::from_str(&text).ok()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
}

impl Run {
    /// Opens the log of the run in `folder`, rewound to the trainer's position, sets the trainer's clock by it, and starts
    /// the display.
    pub fn open<B: Backend>(folder: &Path, trainer: &mut Trainer<B>, steps_per_epoch: u64) -> Result<Run> {
        let (log, rewound) = MetricsLog::resume(&folder.join(METRICS), trainer.adam.steps())?;
        trainer.resume_clock(rewound.seconds);
        let config = &trainer.config;
        let plan = Plan {
            epochs: config.epochs as u64,
            steps: config.epochs as u64 * steps_per_epoch,
            steps_before: trainer.adam.steps(),
            log_every: config.log_every as u64,
        };
        Ok(Run {
            folder: folder.to_path_buf(),
            log,
            progress: Progress::new(plan),
            baselines: baselines(folder).unwrap_or_default(),
            evaluation: None,
            epoch_started: Instant::now(),
        })
    }

    /// Keeps the scores training has to beat.
    pub fn save_baselines(&mut self, baselines: Baselines) -> Result<()> {
        write_atomically(&self.folder.join(BASELINES), |file| writeln!(file, "{}", json(&baselines)))?;
        self.baselines = baselines;
        Ok(())
    }

    /// Logs and shows a step.
    pub fn after_step(&mut self, record: &StepRecord) -> Result<()> {
        self.progress.step(record);
        self.log.write(&Record::Step(record.clone()))
    }

    /// Logs an epoch that `last` completed; evaluates and checkpoints where they are due.
    pub fn after_epoch<B: Backend>(
        &mut self,
        trainer: &mut Trainer<B>,
        dataset: &Dataset,
        last: &StepRecord,
    ) -> Result<()> {
        let (epoch, epochs) = (trainer.position.epoch, trainer.config.epochs as u64);
        let views = 2 * trainer.config.batch_size as u64 * (dataset.len() / trainer.config.batch_size) as u64;
        let loss = trainer.epoch_losses;
        self.log.write(&Record::Epoch(EpochRecord {
            epoch,
            step: last.step,
            loss: loss.total,
            loss_instance: loss.instance,
            loss_feature: loss.feature,
            entropy: loss.entropy,
            learning_rate: last.learning_rate,
            views_per_s: views as f64 / self.epoch_started.elapsed().as_secs_f64(),
            seconds: last.seconds,
        }))?;
        let due = |every: usize| epoch == epochs || (every > 0 && epoch.is_multiple_of(every as u64));
        if due(trainer.config.eval.every) {
            self.evaluate(trainer, dataset)?;
        }
        if due(trainer.config.checkpoint_every) {
            self.save(trainer, dataset)?;
        }
        self.epoch_started = Instant::now();
        Ok(())
    }

    /// Evaluates the network as it is, and logs it.
    pub fn evaluate<B: Backend>(&mut self, trainer: &mut Trainer<B>, dataset: &Dataset) -> Result<&Evaluation> {
        let clock = Instant::now();
        let size = trainer.config.image_size;
        let embeddings = embed(&trainer.model, &mut trainer.params, dataset, size, &mut |_| ())?;
        let evaluation = Evaluator::new(dataset, &trainer.config.eval)?.evaluate(&embeddings, &self.baselines)?;
        if let (Some(h), Some(y)) = (evaluation.backbone, evaluation.feature) {
            let epoch = trainer.position.epoch;
            self.progress.say(&format!("epoch {epoch}: NMI {:.3} backbone, {:.3} feature", h.nmi, y.nmi));
        }
        self.log.write(&Record::Eval(EvalRecord {
            epoch: trainer.position.epoch,
            step: trainer.adam.steps(),
            evaluation: evaluation.clone(),
            seconds: clock.elapsed().as_secs_f64(),
        }))?;
        write_atomically(&self.folder.join(RESULTS), |file| writeln!(file, "{}", json(&evaluation)))?;
        Ok(self.evaluation.insert(evaluation))
    }

    /// Writes a checkpoint of the trainer's state and removes those that are too old to keep.
    pub fn save<B: Backend>(&mut self, trainer: &Trainer<B>, dataset: &Dataset) -> Result<()> {
        let meta = Meta {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            // Where a run lies and how many threads it has is not part of its state: the same state, the same bytes.
            config: Config { out: String::new(), threads: 0, ..trainer.config.clone() },
            epoch: trainer.position.epoch,
            step: trainer.adam.steps(),
            step_in_epoch: trainer.position.step,
            data: stamp(dataset),
            losses: trainer.epoch_losses,
        };
        let tensors = snapshot::tensors(&trainer.params, &trainer.adam)?;
        Checkpoint { tensors, meta }.save(&checkpoint::path_after(&self.folder, trainer.position.epoch))?;
        checkpoint::prune(&self.folder, trainer.config.keep)?;
        Ok(())
    }

    /// The last evaluation of this process.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation.as_ref()
    }

    /// Prints a line beside the progress bar.
    pub fn say(&self, text: &str) {
        self.progress.say(text);
    }

    /// Ends the display.
    pub fn finish(&self) {
        self.progress.finish();
    }
}

/// What a checkpoint says about its data.
pub fn stamp(dataset: &Dataset) -> DataStamp {
    DataStamp {
        description: dataset.describe(),
        images: dataset.len() as u64,
        fingerprint: u64::from(dataset.fingerprint()),
    }
}
