//! Which batch fits in a device's memory, for those who asked for a larger one.

use super::probe;
use crate::backend::Memory;
use crate::backend::cuda::Cuda;
use crate::config::{Config, Device};
use crate::{Error, Result};

/// Blocks of the pool are at most this much larger than what is in them; at the sizes that were tried they may happen not to be.
const BLOCK_WASTE: f64 = 8.0 / 7.0;
/// Share of the memory that is left alone: workspaces of the engines that larger convolutions choose.
const RESERVE: f64 = 1.0 / 32.0;

/// An error that says which batch size would fit, where the device's memory did not suffice.
pub fn advise(error: Error, config: &Config) -> Error {
    let Error::OutOfMemory { problem, room } = error else { return error };
    let advice = match largest_batch(config, room) {
        Ok(Some(batch)) if batch < config.batch_size => {
            format!("by what smaller steps took, --batch-size {batch} fits")
        }
        Ok(Some(_)) => "by what smaller steps took this batch should fit: does another program use the device?".into(),
        Ok(None) | Err(Error::OutOfMemory { .. }) => {
            "not even a small batch fits: try a smaller --image-size or --backbone".into()
        }
        Err(other) => format!("a smaller --batch-size needs less ({other})"),
    };
    Error::OutOfMemory { problem: format!("{problem}; {advice}"), room }
}

/// The largest batch whose steps take no more than `room` bytes, by two small ones: what they take grows in proportion to the
/// batch, on top of weights, gradients, moments and the libraries' own. `None` if not even two images fit.
fn largest_batch(config: &Config, room: usize) -> Result<Option<usize>> {
    let ordinal = match config.device {
        Device::Cuda(ordinal) => ordinal as usize,
        Device::Auto | Device::Cpu => 0,
    };
    let taken = |images: usize| -> Result<f64> {
        let cuda = Cuda::new(ordinal, config.precision)?;
        let Memory { live_bytes, cached_bytes, .. } = probe::steps(cuda, &probe::with_batch(config, images))?.memory;
        Ok((live_bytes + cached_bytes) as f64)
    };
    let [small, large] = probe::sizes(config);
    let (least, most) = (taken(small)?, taken(large)?);
    let each = (most - least) / (large - small) as f64;
    let standing = least - each * small as f64;
    let batch = (room as f64 * (1.0 - RESERVE) - standing) / (each * BLOCK_WASTE).max(1.0);
    Ok((batch >= 2.0).then_some(batch as usize))
}
