//! Training: the paper's Algorithm 1.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::backend::Backend;
use crate::data::Dataset;
use crate::data::loader::{Loader, LoaderConfig};
use crate::run::Run;
use crate::trainer::{Trainer, VIEWS};
use crate::{Error, Result};

/// Batches that are full or being filled while others are under way.
const LOADER_SLOTS: usize = 2;

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and left a checkpoint.
    Interrupted,
}

/// Algorithm 1: for each batch draw two views, encode, project, predict, and descend on
/// `L_inst + L_feat - alpha L_entropy`. As many steps are under way at once as the device likes; their records come in order.
pub fn train<B: Backend>(
    trainer: &mut Trainer<B>,
    dataset: &Arc<Dataset>,
    run: &mut Run,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let backend = trainer.params.backend().clone();
    let config = LoaderConfig::new(&trainer.config, trainer.position);
    let slots = (0..LOADER_SLOTS + B::LANES).map(|_| backend.pixels(config.slot_bytes())).collect::<Result<_>>()?;
    let mut loader = Loader::start(Arc::clone(dataset), config, slots)?;
    let mut lanes = (0..B::LANES).map(|_| trainer.lane()).collect::<Result<Vec<_>>>()?;
    let mut under_way = VecDeque::with_capacity(B::LANES);
    let mut clock = Instant::now();
    while let Some(batch) = loader.next_batch()? {
        let lane = lanes.pop().ok_or_else(|| Error::Device("no lane is free".into()))?;
        under_way.push_back((trainer.start(lane, &batch)?, batch));
        let epoch_ends = trainer.position.step == 0;
        let stop = interrupted.load(Ordering::Relaxed) && trainer.position.epoch < trainer.config.epochs as u64;
        // At the end of an epoch, and to stop, the device comes to rest: what is saved is the state after this step.
        let leave = if epoch_ends || stop { 0 } else { B::LANES - 1 };
        while under_way.len() > leave {
            let Some((step, batch)) = under_way.pop_front() else { break };
            let (mut record, lane) = trainer.finish(step)?;
            // What a user waits for: the step, and the loader where it is slower.
            record.views_per_s = (VIEWS * batch.samples.len()) as f64 / clock.elapsed().as_secs_f64();
            clock = Instant::now();
            loader.recycle(batch);
            lanes.insert(0, lane);
            run.after_step(&record)?;
            if epoch_ends && under_way.is_empty() {
                run.after_epoch(trainer, dataset, &record)?;
                clock = Instant::now();
            }
        }
        if stop {
            run.save(trainer, dataset)?;
            return Ok(Outcome::Interrupted);
        }
    }
    Ok(Outcome::Finished)
}
