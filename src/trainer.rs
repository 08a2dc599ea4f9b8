//! The state that training moves, and one step of it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use crate::autograd::{Grads, Tape};
use crate::backend::Backend;
use crate::config::Config;
use crate::data::loader::{Batch, Position, steps_per_epoch};
use crate::log::StepRecord;
use crate::loss::{LossValues, LossWeights, Losses, losses};
use crate::model::{Architecture, Model};
use crate::nn::{Forward, Mode, Params};
use crate::optim::{Adam, AdamConfig};
use crate::tensor::Shape;
use crate::{Error, Result};

/// Share of new batch statistics in the running ones, PyTorch's default.
pub(crate) const MOMENTUM: f64 = 0.1;

/// Two views.
pub(crate) const VIEWS: usize = 2;

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
    /// Epoch and step, from 0, of the batches on which no step was made, as it would not have been finite.
    pub left_out: BTreeSet<(u64, u64)>,
    tape: Tape<B>,
    grads: Grads<B>,
    steps_per_epoch: u64,
    started: Instant,
}

/// A step that was started.
pub struct Step<B: Backend> {
    lane: B::Lane,
    position: Position,
    learning_rate: f64,
    clock: Instant,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// Its record.
    Made(StepRecord),
    /// A loss, a gradient or a running statistic was not finite, or a step before it was left out: nothing has changed.
    LeftOut(BadStep),
}

/// What is known of a step that was left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadStep {
    /// Which it was.
    pub position: Position,
    /// Its losses.
    pub losses: LossValues,
    /// The gradient's norm before clipping; NaN also where a running statistic was not finite.
    pub grad_norm: f64,
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
            left_out: BTreeSet::new(),
            tape: Tape::new(backend),
            grads: Grads::new(),
            started: Instant::now(),
        })
    }

    /// A lane for steps of this run.
    pub fn lane(&self) -> Result<B::Lane> {
        let Config { batch_size, image_size, .. } = self.config;
        self.params.backend().lane(Shape::from([VIEWS * batch_size, image_size, image_size, 3]))
    }

    /// One step, waiting for it. One that is left out is an error, and the state is what it was before.
    pub fn step(&mut self, lane: B::Lane, batch: &Batch<B::Pixels>) -> Result<(StepRecord, B::Lane)> {
        let step = self.start(lane, batch)?;
        match self.finish(step)? {
            (Finished::Made(record), lane) => Ok((record, lane)),
            (Finished::LeftOut(bad), _) => {
                self.position = bad.position;
                self.adam.release(self.params.backend())?;
                Err(Error::NonFinite(bad.to_string()))
            }
        }
    }

    /// Starts a step: both views forward, losses, backward, clip, Adam. `batch` is in use until it is finished.
    pub fn start(&mut self, mut lane: B::Lane, batch: &Batch<B::Pixels>) -> Result<Step<B>> {
        let clock = Instant::now();
        let backend = self.params.backend().clone();
        let learning_rate = self.learning_rate();
        self.adam.set_learning_rate(&backend, learning_rate)?;
        let weights = loss_weights(&self.config);
        let Trainer { model, params, adam, tape, grads, .. } = self;
        backend.start(&mut lane, &batch.views, |images, report| {
            tape.clear();
            adam.keep(params)?;
            let images = tape.input(images);
            let mode = Mode::Train { views: VIEWS, momentum: MOMENTUM };
            let outputs = model.forward(&mut Forward { tape, params, mode }, images)?;
            let Losses { total, instance, feature, entropy } = losses(tape, &outputs, &weights)?;
            let values = [total, instance, feature, entropy].map(|loss| tape.value(loss).clone());
            tape.backward(total, grads)?;
            adam.start_step(params, grads, Some(&values[0]))?;
            grads.clear();
            backend.report(report, values.each_ref(), adam.state())
        })?;
        let position = self.position;
        self.position = self.after(position);
        Ok(Step { lane, position, learning_rate, clock })
    }

    /// Waits for a step, the oldest under way. Once one was left out, all that follow it are, so that the state stays what it
    /// was before: until [`Trainer::leave_out`].
    pub fn finish(&mut self, step: Step<B>) -> Result<(Finished, B::Lane)> {
        let Step { mut lane, position, learning_rate, clock } = step;
        let report = self.params.backend().finish(&mut lane)?;
        let [total, instance, feature, entropy] = report.losses;
        let (loss, grad_norm) = (LossValues { total, instance, feature, entropy }, report.adam.grad_norm);
        self.adam.note(&report.adam);
        if report.adam.left_out {
            return Ok((Finished::LeftOut(BadStep { position, losses: loss, grad_norm }), lane));
        }
        let left_out = self.left_out.range((position.epoch, 0)..(position.epoch, position.step)).count() as u64;
        self.epoch_losses = self.epoch_losses.running_mean(loss, position.step + 1 - left_out);
        let record = StepRecord {
            epoch: position.epoch + 1,
            step: self.steps_at(self.after(position)),
            loss: total,
            loss_instance: instance,
            loss_feature: feature,
            entropy,
            learning_rate,
            grad_norm,
            views_per_s: (VIEWS * self.config.batch_size) as f64 / clock.elapsed().as_secs_f64(),
            seconds: self.started.elapsed().as_secs_f64(),
        };
        Ok((Finished::Made(record), lane))
    }

    /// Goes on behind a batch on which no step is made.
    pub fn leave_out(&mut self, position: Position) -> Result<()> {
        self.left_out.insert((position.epoch, position.step));
        self.position = self.after(position);
        self.adam.release(self.params.backend())
    }

    /// Batches until now since the beginning of the run, those that were left out included.
    pub fn steps(&self) -> u64 {
        self.steps_at(self.position)
    }

    /// Batches before this place in the run.
    pub fn steps_at(&self, Position { epoch, step }: Position) -> u64 {
        epoch.saturating_mul(self.steps_per_epoch).saturating_add(step)
    }

    fn after(&self, Position { epoch, step }: Position) -> Position {
        if step + 1 == self.steps_per_epoch {
            Position { epoch: epoch + 1, step: 0 }
        } else {
            Position { epoch, step: step + 1 }
        }
    }

    /// The learning rate of the epoch in progress.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate_in(self.position.epoch)
    }

    /// The learning rate of an epoch, from 0.
    pub fn learning_rate_in(&self, epoch: u64) -> f64 {
        let Config { schedule, learning_rate, epochs, .. } = &self.config;
        schedule.learning_rate(*learning_rate, epoch, *epochs as u64)
    }

    /// Complete batches in an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Sets the clock of the run to this many seconds.
    pub fn resume_clock(&mut self, seconds: f64) {
        if let Ok(before) = std::time::Duration::try_from_secs_f64(seconds) {
            let now = Instant::now();
            self.started = now.checked_sub(before).unwrap_or(now);
        }
    }
}

impl fmt::Display for BadStep {
    /// What was not finite, and when.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LossValues { total, instance, feature, entropy } = self.losses;
        if total.is_finite() {
            write!(f, "the gradient norm is {}", self.grad_norm)?;
        } else {
            write!(f, "the loss is {total} (instance {instance}, feature {feature}, entropy {entropy})")?;
        }
        write!(f, " in epoch {}, step {}", self.position.epoch + 1, self.position.step + 1)
    }
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

pub(crate) fn loss_weights(config: &Config) -> LossWeights {
    LossWeights {
        alpha: config.alpha,
        temperature_instance: config.temperature_instance,
        temperature_feature: config.temperature_feature,
    }
}

pub(crate) fn adam_config(config: &Config) -> AdamConfig {
    AdamConfig {
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.adam_eps,
        weight_decay: config.weight_decay,
        clip_norm: config.clip_norm,
    }
}
