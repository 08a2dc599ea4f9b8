//! `train --dry-run`: what a run would be, what it would need, how long it would take.

use super::probe::{self, Probe};
use super::{data, fills_a_batch, info, on_device};
use crate::Result;
use crate::config::Config;
use crate::data::loader::steps_per_epoch;

/// The report. Trains a few steps on noise to measure, but reads no image and writes nothing.
pub fn report(config: &Config) -> Result<String> {
    let source = data::open(config)?;
    let images = source.len();
    fills_a_batch(images, config)?;
    let steps = steps_per_epoch(images, config.batch_size) * config.epochs as u64;
    let view = 2 * config.image_size * config.image_size * 3;
    let [small, large] = probe::sizes(config);
    let (less, Probe { parameters, memory, seconds }) = on_device!(config, backend => {
        let steps = |images| probe::steps(backend.clone(), &probe::with_batch(config, images));
        (steps(small)?, steps(large)?)
    });
    // Buffers grow in proportion to the batch, on top of weights, gradients and moments.
    let slope = memory.peak_bytes.saturating_sub(less.memory.peak_bytes) as f64 / (large - small) as f64;
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
