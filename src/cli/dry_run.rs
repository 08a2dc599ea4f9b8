//! `train --dry-run`: what a run would be, what it would need, how long it would take.

use std::time::Instant;

use super::{data, fills_a_batch, info, on_device};
use crate::Result;
use crate::backend::{Backend, Memory};
use crate::config::Config;
use crate::data::loader::{Batch, Position, steps_per_epoch};
use crate::trainer::Trainer;

/// Input elements of the steps that are timed: about a second on two cores for ResNet-18.
const PROBE_ELEMS: usize = 2 * 32 * 32 * 32 * 3;

/// The report. Trains a few steps on noise to measure, but reads no image and writes nothing.
pub fn report(config: &Config) -> Result<String> {
    let source = data::open(config)?;
    let images = source.len();
    fills_a_batch(images, config)?;
    let steps = steps_per_epoch(images, config.batch_size) * config.epochs as u64;
    let view = 2 * config.image_size * config.image_size * 3;
    let large = (PROBE_ELEMS / view).clamp(4, config.batch_size.max(4));
    let ((_, small_memory, _), (parameters, memory, seconds)) = on_device!(config, backend => {
        (probe(backend.clone(), config, large / 2)?, probe(backend, config, large)?)
    });
    // Buffers grow in proportion to the batch, on top of weights, gradients and moments.
    let slope = memory.peak_bytes.saturating_sub(small_memory.peak_bytes) as f64 / (large - large / 2) as f64;
    let tensors = memory.peak_bytes as f64 + slope * (config.batch_size as f64 - large as f64);
    let slots = (3 * config.batch_size * view) as f64;
    let hours = seconds * config.batch_size as f64 / large as f64 * steps as f64 / 3600.0;
    let available =
        info::memory().map_or(String::new(), |m| format!(" ({:.1} GiB available)", gib(m.available as f64)));
    Ok(format!(
        "{}\n# data        {}\n# parameters  {parameters} ({:.1} M)\n# steps       {steps}\n\
         # memory      about {:.2} GiB{available}\n\
         # time        about {} (measured on {large} images a step on this machine; evaluation not counted)",
        config.to_toml(),
        source.describe(),
        parameters as f64 / 1e6,
        gib(tensors + slots),
        duration(hours),
    ))
}

fn gib(bytes: f64) -> f64 {
    bytes / (1u64 << 30) as f64
}

fn duration(hours: f64) -> String {
    match hours {
        h if h < 1.0 / 60.0 => format!("{:.0} seconds", h * 3600.0),
        h if h < 1.0 => format!("{:.0} minutes", h * 60.0),
        h if h < 48.0 => format!("{h:.1} hours"),
        h => format!("{:.1} days", h / 24.0),
    }
}

/// Trained parameters, memory, and seconds of a step, for `images` images a step.
fn probe<B: Backend>(backend: B, config: &Config, images: usize) -> Result<(usize, Memory, f64)> {
    // The sizes of the heads follow the configured batch, not the probe's.
    let config = Config {
        projection_dim: Some(config.projection_dim()),
        feature_num: Some(config.feature_num()),
        batch_size: images,
        ..config.clone()
    };
    let side = config.image_size;
    let mut noise = backend.pixels(2 * images * side * side * 3)?;
    noise.as_mut().iter_mut().enumerate().for_each(|(i, p)| *p = (i.wrapping_mul(2_654_435_761) >> 13) as u8);
    let batch = Batch { position: Position { epoch: 0, step: 0 }, samples: vec![0; images], views: noise };
    let mut trainer = Trainer::new(backend, config, images * 1000)?;
    let lane = trainer.lane()?;
    let (_, lane) = trainer.step(lane, &batch)?;
    let clock = Instant::now();
    trainer.step(lane, &batch)?;
    let seconds = clock.elapsed().as_secs_f64();
    Ok((trainer.params.trained_elems(), trainer.params.backend().memory(), seconds))
}
