//! Steps on noise: what a run needs, found out before an image is read.

use std::time::Instant;

use crate::Result;
use crate::backend::{Backend, Memory};
use crate::config::Config;
use crate::data::loader::{Batch, Position};
use crate::trainer::Trainer;

/// Input elements of the steps that are timed: about a second on two cores for ResNet-18.
const ELEMS: usize = 2 * 32 * 32 * 32 * 3;

/// Two sizes of batch, in images, from which larger ones are told: the second is twice the first.
pub fn sizes(config: &Config) -> [usize; 2] {
    let view = 2 * config.image_size * config.image_size * 3;
    let large = (ELEMS / view).clamp(4, config.batch_size.max(4)) / 2 * 2;
    [large / 2, large]
}

/// What steps of so many images showed.
pub struct Probe {
    /// Trained numbers.
    pub parameters: usize,
    /// The pool behind the steps.
    pub memory: Memory,
    /// Of the fastest step.
    pub seconds: f64,
}

/// The configuration for another number of images a step. The sizes of the heads stay those that the configured batch gives.
pub fn with_batch(config: &Config, images: usize) -> Config {
    Config {
        projection_dim: Some(config.projection_dim()),
        feature_num: Some(config.feature_num()),
        batch_size: images,
        ..config.clone()
    }
}

/// A batch of noise, and a network to train on it.
pub fn prepare<B: Backend>(backend: B, config: &Config) -> Result<(Trainer<B>, Batch<B::Pixels>)> {
    let (images, side) = (config.batch_size, config.image_size);
    let mut views = backend.pixels(2 * images * side * side * 3)?;
    views.as_mut().iter_mut().enumerate().for_each(|(i, p)| *p = (i.wrapping_mul(2_654_435_761) >> 13) as u8);
    let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: vec![0; images], views };
    Ok((Trainer::new(backend, config.clone(), images * 1000)?, batch))
}

/// Takes steps as training does, until nothing new is allocated.
pub fn steps<B: Backend>(backend: B, config: &Config) -> Result<Probe> {
    let (mut trainer, batch) = prepare(backend, config)?;
    let mut lanes = (0..B::LANES).map(|_| trainer.lane()).collect::<Result<Vec<_>>>()?;
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        for lane in std::mem::take(&mut lanes) {
            let clock = Instant::now();
            let (_, lane) = trainer.step(lane, &batch)?;
            seconds = seconds.min(clock.elapsed().as_secs_f64());
            lanes.push(lane);
        }
    }
    let memory = trainer.params.backend().memory();
    Ok(Probe { parameters: trainer.params.trained_elems(), memory, seconds })
}
