//! `train`: from images to a trained model, its scores, and what to do next.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::args::TrainArgs;
use super::{data, dry_run, fills_a_batch, interrupt, on_device, print, report};
use crate::backend::Backend;
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Overrides};
use crate::data::Dataset;
use crate::data::loader::{Position, steps_per_epoch};
use crate::eval::embed::{calibrate, embed};
use crate::eval::{Baselines, Evaluator};
use crate::log::say;
use crate::loss::trivial_feature_loss;
use crate::model::Model;
use crate::nn::Params;
use crate::run::{self, Run};
use crate::train::{Outcome, train};
use crate::trainer::{Trainer, architecture};
use crate::{Error, Result, snapshot};

/// Where runs go that were not given a folder.
const RUNS: &str = "runs";

/// Batches that calibrate the untrained network's batch norms.
const CALIBRATION_BATCHES: usize = 8;

/// Runs the command.
pub fn run(args: &TrainArgs) -> Result<Outcome> {
    if args.resume {
        return resume(args);
    }
    let config = args.overrides().resolve()?;
    if args.dry_run {
        print(&dry_run::report(&config)?);
        return Ok(Outcome::Finished);
    }
    on_device!(&config.clone(), backend => start(backend, config))
}

/// Begins a run.
fn start<B: Backend>(backend: B, config: Config) -> Result<Outcome> {
    let dataset = load(&config)?;
    let trainer = Trainer::new(backend, config, dataset.len())?;
    let folder = match trainer.config.out.as_str() {
        "" => run::fresh(Path::new(RUNS), &trainer.config.preset),
        out => PathBuf::from(out),
    };
    run::create(&folder, &trainer.config)?;
    run::write_quarantine(&folder, dataset.excluded())?;
    carry_out(trainer, &dataset, &folder)
}

/// Goes on with a run: its configuration, changed only where that is harmless or asked for.
fn resume(args: &TrainArgs) -> Result<Outcome> {
    let mut overrides = args.overrides();
    let given = overrides.options.iter().position(|(key, _)| *key == "out");
    let folder = match given.map(|i| overrides.options.remove(i).1) {
        Some(out) => PathBuf::from(out.as_str().unwrap_or_default()),
        None => run::latest(Path::new(RUNS))?,
    };
    let saved = run::config(&folder)?;
    let config = resumed_config(&overrides, &saved)?;
    if args.dry_run {
        print(&dry_run::report(&config)?);
        return Ok(Outcome::Finished);
    }
    on_device!(&config.clone(), backend => go_on(backend, config, &folder))
}

/// Goes on from the newest checkpoint in `folder`.
fn go_on<B: Backend>(backend: B, config: Config, folder: &Path) -> Result<Outcome> {
    let dataset = load(&config)?;
    let mut trainer = Trainer::new(backend, config, dataset.len())?;
    match checkpoint::newest(folder)? {
        Some(path) => restore(&mut trainer, &dataset, &path)?,
        None => say(&format!("no checkpoint in {} yet: starting from the beginning", folder.display())),
    }
    run::save_config(folder, &trainer.config)?;
    carry_out(trainer, &dataset, folder)
}

/// The data set, with images enough to train on and to evaluate: found out before anything is written.
fn load(config: &Config) -> Result<Arc<Dataset>> {
    let dataset = data::load(config)?;
    fills_a_batch(dataset.len(), config)?;
    Evaluator::new(&dataset, &config.eval)?;
    Ok(Arc::new(dataset))
}

/// The saved configuration with what the command line may change. Errors with [`Error::Usage`] listing what it may not.
fn resumed_config(overrides: &Overrides, saved: &Config) -> Result<Config> {
    let config = overrides.resolve_over(saved)?;
    let refused: Vec<String> = config
        .diff(saved)
        .into_iter()
        // More epochs are what one resumes for; other data are found out by their fingerprint.
        .filter(|difference| difference.changes_training() && !["epochs", "data"].contains(&difference.key.as_str()))
        .map(|difference| format!("{} is {} in the run, not {}", difference.key, difference.theirs, difference.mine))
        .collect();
    if refused.is_empty() {
        return Ok(config);
    }
    Err(Error::Usage(format!("cannot resume with another configuration ({}): start a new run", refused.join("; "))))
}

fn restore<B: Backend>(trainer: &mut Trainer<B>, dataset: &Dataset, path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::load(path)?;
    let (then, now) = (&checkpoint.meta.data, run::stamp(dataset));
    if then.fingerprint != now.fingerprint || then.images != now.images {
        return Err(Error::Usage(format!(
            "{} was trained on other data (then: {}; now: {})",
            path.display(),
            then.description,
            now.description
        )));
    }
    let context = |e: Error| Error::format(path, e.to_string());
    snapshot::restore_params(&mut trainer.params, &checkpoint).map_err(context)?;
    snapshot::restore_adam(&trainer.params, &mut trainer.adam, &checkpoint).map_err(context)?;
    trainer.position = Position { epoch: checkpoint.meta.epoch, step: checkpoint.meta.step_in_epoch };
    trainer.epoch_losses = checkpoint.meta.losses;
    say(&format!("resuming after step {} from {}", checkpoint.meta.step, path.display()));
    Ok(())
}

/// Baselines, training, and the last word.
fn carry_out<B: Backend>(mut trainer: Trainer<B>, dataset: &Arc<Dataset>, folder: &Path) -> Result<Outcome> {
    let clock = Instant::now();
    let steps = steps_per_epoch(dataset.len(), trainer.config.batch_size);
    let (config, parameters) = (&trainer.config, trainer.params.trained_elems());
    say(&format!(
        "model: {}, {:.1} M parameters, {} px; {} epochs of {steps} steps; run: {}",
        config.backbone,
        parameters as f64 / 1e6,
        config.image_size,
        config.epochs,
        folder.display()
    ));
    let mut run = Run::open(folder, &mut trainer, steps)?;
    if scores_exist(dataset) && run::baselines(folder).is_none() {
        run.say("scoring raw pixels and the untrained network, which training has to beat");
        run.save_baselines(baselines(&trainer, dataset)?)?;
    }
    let outcome =
        train(&mut trainer, dataset, &mut run, interrupt::flag("stopping after this step, with a checkpoint")?)?;
    run.finish();
    if outcome == Outcome::Interrupted {
        say(&format!("stopped; go on with: disentangle train --out {} --resume", folder.display()));
        return Ok(outcome);
    }
    // A resumed run may have had nothing left to do.
    if run.evaluation().is_none() {
        run.evaluate(&mut trainer, dataset)?;
    }
    if let Some(evaluation) = run.evaluation() {
        print(&format!("\n{}\n{}", evaluation.table(), last_word(&trainer, dataset, folder, clock)));
    }
    if trainer.config.report {
        report::after_training(&mut trainer, dataset, folder);
    }
    Ok(outcome)
}

/// Whether there is a ground truth to score against.
fn scores_exist(dataset: &Dataset) -> bool {
    dataset.labels().is_some() || !dataset.factors().is_empty()
}

/// Scores of raw pixels and of a network with the first weights of this run.
fn baselines<B: Backend>(trainer: &Trainer<B>, dataset: &Dataset) -> Result<Baselines> {
    let config = &trainer.config;
    let evaluator = Evaluator::new(dataset, &config.eval)?;
    let mut params = Params::new(trainer.params.backend().clone(), config.seed);
    let model = Model::new(&mut params, &architecture(config))?;
    calibrate(&model, &mut params, dataset, config.image_size, CALIBRATION_BATCHES)?;
    let untrained = embed(&model, &mut params, dataset, config.image_size, &mut |_| ())?;
    Ok(Baselines {
        pixels: evaluator.score_pixels(config.image_size)?,
        untrained: evaluator.score(&untrained.h, untrained.h_dim)?,
        untrained_factors: evaluator.read_factors(&untrained.h, untrained.h_dim)?,
    })
}

fn last_word<B: Backend>(trainer: &Trainer<B>, dataset: &Dataset, folder: &Path, clock: Instant) -> String {
    let config = &trainer.config;
    let losses = trainer.epoch_losses;
    let trivial = trivial_feature_loss(config.feature_num(), config.alpha);
    let heads = losses.feature - config.alpha * losses.entropy;
    let data = config.data.join(" --data ");
    let folder = folder.display();
    let next = match dataset.labels() {
        Some(_) => format!("disentangle eval {folder} --clusters K"),
        None => format!("disentangle eval {folder} --clusters K   (how many groups do you expect?)"),
    };
    let side = if heads <= trivial { "below" } else { "above" };
    format!(
        "feature loss - alpha entropy: {heads:.3}, {:.3} {side} the trivial solution of heads that always say 0.5 ({trivial:.3})\n\
         {:.0} s; run: {folder} (config.toml, metrics.jsonl, results.json, checkpoints)\n\
         next:\n  {next}\n  disentangle embed {folder} --data {data} --out {folder}/embeddings\n  \
         disentangle train --data YOUR_IMAGES   (a folder or a .tar; train --help for more)",
        (trivial - heads).abs(),
        clock.elapsed().as_secs_f64(),
    )
}
