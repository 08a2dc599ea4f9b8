//! Training: the paper's Algorithm 1, and the state it moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::autograd::{Grads, Tape};
use crate::backend::Backend;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::loader::{Batch, Loader, LoaderConfig, Position, steps_per_epoch};
use crate::log::StepRecord;
use crate::loss::{LossValues, LossWeights, losses};
use crate::model::{Architecture, Model};
use crate::nn::{Forward, Mode, Params};
use crate::optim::{Adam, AdamConfig};
use crate::run::Run;
use crate::tensor::Shape;
use crate::{Error, Result};

/// Share of new batch statistics in the running ones, PyTorch's default.
const MOMENTUM: f64 = 0.1;

/// Two views.
const VIEWS: usize = 2;

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and left a checkpoint.
    Interrupted,
}

/// A network with its optimiser and its position in the run.
pub struct Trainer<B: Backend> {
    /// What to do.
    pub config: Config,
    /// The layers.
    pub model: Model,
    /// Their numbers.
    pub params: Params<B>,
    /// Moments.
    pub adam: Adam<B>,
    /// The step about to be taken.
    pub position: Position,
    /// Mean losses of the epoch in progress or, at its end, of the one just done.
    pub epoch_losses: LossValues,
    tape: Tape<B>,
    grads: Grads<B>,
    steps_per_epoch: u64,
    started: Instant,
}

/// Algorithm 1: for each batch draw two views, encode, project, predict, and descend on
/// `L_inst + L_feat - alpha L_entropy`.
pub fn train<B: Backend>(
    trainer: &mut Trainer<B>,
    dataset: &Arc<Dataset>,
    run: &mut Run,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let config = LoaderConfig::new(&trainer.config, trainer.position);
    let slots = config.plain_slots();
    let mut loader = Loader::start(Arc::clone(dataset), config, slots)?;
    let mut clock = Instant::now();
    while let Some(batch) = loader.next_batch()? {
        let mut record = trainer.step(&batch)?;
        // What a user waits for: the step, and the loader where it is slower.
        record.views_per_s = (VIEWS * batch.samples.len()) as f64 / clock.elapsed().as_secs_f64();
        loader.recycle(batch);
        run.after_step(&record)?;
        if trainer.position.step == 0 {
            run.after_epoch(trainer, dataset, &record)?;
        }
        if interrupted.load(Ordering::Relaxed) && trainer.position.epoch < trainer.config.epochs as u64 {
            run.save(trainer, dataset)?;
            return Ok(Outcome::Interrupted);
        }
        clock = Instant::now();
    }
    Ok(Outcome::Finished)
}

impl<B: Backend> Trainer<B> {
    /// A fresh network for `config`, to be trained on `samples` images.
    pub fn new(backend: B, config: Config, samples: usize) -> Result<Self> {
        let mut params = Params::new(backend.clone(), config.seed);
        let model = Model::new(&mut params, &architecture(&config))?;
        let adam = Adam::new(&params, adam_config(&config))?;
        Ok(Trainer {
            steps_per_epoch: steps_per_epoch(samples, config.batch_size),
            config,
            model,
            params,
            adam,
            position: Position { epoch: 0, step: 0 },
            epoch_losses: LossValues::UNKNOWN,
            tape: Tape::new(backend),
            grads: Grads::new(),
            started: Instant::now(),
        })
    }

    /// One step: both views forward, losses, backward, clip, Adam. A loss or gradient that is not finite is an error, and
    /// leaves the parameters as they were.
    pub fn step(&mut self, batch: &Batch) -> Result<StepRecord> {
        let clock = Instant::now();
        let loss = self.forward_backward(batch)?;
        let learning_rate = self.learning_rate();
        let grad_norm = self.adam.step(&mut self.params, &self.grads, learning_rate);
        let grad_norm = grad_norm.map_err(|error| match error {
            Error::NonFinite(problem) => diverged(&problem, batch.position),
            error => error,
        })?;
        self.grads.clear();
        let epoch = self.position.epoch;
        self.advance(loss);
        Ok(StepRecord {
            epoch: epoch + 1,
            step: self.adam.steps(),
            loss: loss.total,
            loss_instance: loss.instance,
            loss_feature: loss.feature,
            entropy: loss.entropy,
            learning_rate,
            grad_norm,
            views_per_s: (VIEWS * batch.samples.len()) as f64 / clock.elapsed().as_secs_f64(),
            seconds: self.started.elapsed().as_secs_f64(),
        })
    }

    fn forward_backward(&mut self, batch: &Batch) -> Result<LossValues> {
        let size = self.config.image_size;
        let shape = Shape::from([VIEWS * batch.samples.len(), size, size, 3]);
        self.tape.clear();
        let images = self.params.backend().upload_images(shape, &batch.views)?;
        let images = self.tape.input(images);
        let mode = Mode::Train { views: VIEWS, momentum: MOMENTUM };
        let mut forward = Forward { tape: &mut self.tape, params: &mut self.params, mode };
        let outputs = self.model.forward(&mut forward, images)?;
        let recorded = losses(&mut self.tape, &outputs, &loss_weights(&self.config))?;
        let loss = LossValues::read(&self.tape, &recorded)?;
        if !loss.total.is_finite() {
            let LossValues { total, instance, feature, entropy } = loss;
            let problem = format!("the loss is {total} (instance {instance}, feature {feature}, entropy {entropy})");
            return Err(diverged(&problem, batch.position));
        }
        self.tape.backward(recorded.total, &mut self.grads)?;
        Ok(loss)
    }

    fn advance(&mut self, loss: LossValues) {
        self.position.step += 1;
        self.epoch_losses = self.epoch_losses.running_mean(loss, self.position.step);
        if self.position.step == self.steps_per_epoch {
            self.position = Position { epoch: self.position.epoch + 1, step: 0 };
        }
    }

    /// The learning rate of the epoch in progress.
    pub fn learning_rate(&self) -> f64 {
        let Config { schedule, learning_rate, epochs, .. } = &self.config;
        schedule.learning_rate(*learning_rate, self.position.epoch, *epochs as u64)
    }

    /// Sets the clock of the run to this many seconds.
    pub fn resume_clock(&mut self, seconds: f64) {
        if let Ok(before) = std::time::Duration::try_from_secs_f64(seconds) {
            let now = Instant::now();
            self.started = now.checked_sub(before).unwrap_or(now);
        }
    }
}

/// The error that ends a run whose numbers are no longer finite.
fn diverged(problem: &str, Position { epoch, step }: Position) -> Error {
    Error::NonFinite(format!(
        "{problem} in epoch {}, step {}; the last checkpoint is intact: try a smaller learning_rate",
        epoch + 1,
        step + 1
    ))
}

/// The network a configuration asks for.
pub fn architecture(config: &Config) -> Architecture {
    Architecture {
        backbone: config.backbone,
        stem: config.stem,
        base_width: config.base_width,
        projection_dim: config.projection_dim(),
        feature_num: config.feature_num(),
    }
}

fn loss_weights(config: &Config) -> LossWeights {
    LossWeights {
        alpha: config.alpha,
        temperature_instance: config.temperature_instance,
        temperature_feature: config.temperature_feature,
    }
}

fn adam_config(config: &Config) -> AdamConfig {
    AdamConfig {
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.adam_eps,
        weight_decay: config.weight_decay,
        clip_norm: config.clip_norm,
    }
}
