//! `train`: from images to a trained model, its scores, and what to do next.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::args::TrainArgs;
use super::{data, dry_run, fills_a_batch, interrupt, on_device, print, resume};
use crate::backend::Backend;
use crate::checkpoint::{self, Newest};
use crate::config::Config;
use crate::data::Dataset;
use crate::data::loader::steps_per_epoch;
use crate::eval::embed::{calibrate, embed};
use crate::eval::{Baselines, Evaluator};
use crate::log::say;
use crate::loss::trivial_feature_loss;
use crate::model::Model;
use crate::nn::Params;
use crate::run::{self, LastWords, Requests, Resumed, Run, RunLock, RunStamp, Saved};
use crate::train::{Outcome, train};
use crate::trainer::{Trainer, architecture};
use crate::{Error, Result};

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
    let requests = interrupt::listen()?;
    on_device!(&config.clone(), backend => start(backend, config, requests))
}

/// Begins a run.
fn start<B: Backend>(backend: B, config: Config, requests: &Requests) -> Result<Outcome> {
    let dataset = load(&config)?;
    let mut trainer = Trainer::new(backend, config, dataset.len())?;
    let folder = match trainer.config.out.as_str() {
        "" => run::fresh(Path::new(RUNS), &trainer.config.preset)?,
        out => PathBuf::from(out),
    };
    let lock = run::create(&folder, &trainer.config, &dataset)?;
    let run = open(&folder, lock, &mut trainer, &dataset, Resumed::default())?;
    carry_out(trainer, &dataset, run, requests)
}

/// Goes on with a run: its configuration, changed only where that is harmless or asked for.
fn resume(args: &TrainArgs) -> Result<Outcome> {
    let mut overrides = args.overrides();
    let given = overrides.options.iter().position(|(key, _)| *key == "out");
    let folder = match given.map(|i| overrides.options.remove(i).1) {
        Some(out) => PathBuf::from(out.as_str().unwrap_or_default()),
        None => run::latest(Path::new(RUNS))?,
    };
    if args.dry_run {
        print(&dry_run::report(&resume::config(&overrides, &run::config(&folder)?, &folder)?)?);
        return Ok(Outcome::Finished);
    }
    let requests = interrupt::listen()?;
    let lock = run::reopen(&folder)?;
    // The version before what it may have changed.
    let stamp = RunStamp::read(&folder)?;
    let config = resume::config(&overrides, &run::config(&folder)?, &folder)?;
    let newest = resume::newest(&folder)?;
    let begun = Begun { folder, lock, stamp, newest };
    on_device!(&config.clone(), backend => go_on(backend, config, begun, requests))
}

/// What is there of a run that goes on.
struct Begun {
    folder: PathBuf,
    lock: RunLock,
    stamp: Option<RunStamp>,
    newest: Option<Newest>,
}

/// Goes on from the newest checkpoint.
fn go_on<B: Backend>(backend: B, config: Config, begun: Begun, requests: &Requests) -> Result<Outcome> {
    let Begun { folder, lock, stamp, newest } = begun;
    let dataset = load(&config)?;
    let now = run::stamp(&dataset);
    if let Some(stamp) = &stamp {
        resume::same_data(&folder, &stamp.data, &now)?;
    }
    let mut trainer = Trainer::new(backend, config, dataset.len())?;
    let resumed = match newest {
        Some(newest) => {
            resume::same_run(&trainer.config, &folder, &newest.checkpoint, &now)?;
            restore(&mut trainer, newest)?
        }
        None => {
            say(&format!("no checkpoint in {} yet: starting from the beginning", folder.display()));
            Resumed::default()
        }
    };
    run::save_config(&folder, &trainer.config)?;
    run::complete(&folder, &dataset, stamp.is_some())?;
    let run = open(&folder, lock, &mut trainer, &dataset, resumed)?;
    carry_out(trainer, &dataset, run, requests)
}

/// The data set, with images enough to train on and to evaluate: found out before anything is written.
fn load(config: &Config) -> Result<Arc<Dataset>> {
    let dataset = data::load(config)?;
    fills_a_batch(dataset.len(), config)?;
    Evaluator::new(&dataset, &config.eval)?;
    Ok(Arc::new(dataset))
}

/// Sets the trainer to where the checkpoint stands.
fn restore<B: Backend>(trainer: &mut Trainer<B>, newest: Newest) -> Result<Resumed> {
    let Newest { checkpoint, path, damaged } = newest;
    let context = |e: Error| Error::format(&path, e.to_string());
    run::restore(trainer, &checkpoint).map_err(context)?;
    say(&format!("resuming after step {} from {}", trainer.steps(), path.display()));
    let saved = Saved { path, position: trainer.position, step: trainer.steps() };
    let damaged = damaged.into_iter().map(|damaged| damaged.path).collect();
    Ok(Resumed { checkpoint: Some((saved, checkpoint.weights_hash())), damaged })
}

/// Says what is to be done, and opens the run's logs and display.
fn open<B: Backend>(
    folder: &Path,
    lock: RunLock,
    trainer: &mut Trainer<B>,
    dataset: &Dataset,
    resumed: Resumed,
) -> Result<Run> {
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
    Run::open(folder, lock, trainer, steps, resumed)
}

/// Baselines, training, and the last word.
fn carry_out<B: Backend>(
    mut trainer: Trainer<B>,
    dataset: &Arc<Dataset>,
    mut run: Run,
    requests: &Requests,
) -> Result<Outcome> {
    let clock = Instant::now();
    requests.end_at_once(run.last_words());
    if scores_exist(dataset) && run.lacks_baselines() {
        run.say("scoring raw pixels and the untrained network, which training has to beat");
        run.save_baselines(baselines(&trainer, dataset)?);
    }
    // Stopped or killed before the evaluation at an epoch's end.
    run.evaluate_if_due(&mut trainer, dataset, requests)?;
    let stopped = requests.stop();
    let outcome = if stopped { Outcome::Interrupted } else { train(&mut trainer, dataset, &mut run, requests)? };
    let finished = run.finish(&trainer, dataset);
    if let Some(evaluation) = run.evaluation().filter(|_| outcome == Outcome::Finished) {
        print(&format!("\n{}\n{}", evaluation.table(), last_word(&trainer, dataset, run.folder(), clock)));
    }
    let LastWords { out, err } = run.last_words();
    print(&out);
    if outcome == Outcome::Interrupted && finished.is_ok() {
        say(&err);
    }
    finished.map(|()| outcome)
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
    let best = match checkpoint::best(folder) {
        Ok(Some((path, loss))) => {
            format!("best checkpoint (lowest mean loss of an epoch, {loss:.4}): {}\n", path.display())
        }
        _ => String::new(),
    };
    let folder = folder.display();
    let next = match dataset.labels() {
        Some(_) => format!("disentangle eval {folder} --clusters K"),
        None => format!("disentangle eval {folder} --clusters K   (how many groups do you expect?)"),
    };
    let side = if heads <= trivial { "below" } else { "above" };
    format!(
        "feature loss - alpha entropy: {heads:.3}, {:.3} {side} the trivial solution of heads that always say 0.5 ({trivial:.3})\n\
         {best}{:.0} s; run: {folder} (config.toml, metrics.jsonl, results.json, checkpoints)\n\
         next:\n  {next}\n  disentangle embed {folder} --data {data} --out {folder}/embeddings\n  \
         disentangle train --data YOUR_IMAGES   (a folder or a .tar; train --help for more)",
        (trivial - heads).abs(),
        clock.elapsed().as_secs_f64(),
    )
}
