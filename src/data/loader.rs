//! Two views of every sample, ahead of the step that needs them.
//!
//! ```text
//!            free slots                          full slots
//!   step  ---------------->  loader thread  ---------------->  step
//!         (recycle)          order, augment (rayon)   (next)
//! ```
//!
//! A fixed number of slots goes round: the loader fills a free one and blocks when there is none, so it is never more than
//! that far ahead and allocates nothing after the first round. The memory of the slots is the caller's: plain vectors, or
//! whatever a device can copy from fastest. What a slot holds depends on (seed, epoch, step) alone.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rayon::prelude::*;

use super::Dataset;
use super::augment::{AugmentConfig, Scratch, Size, render};
use super::sampler::Permutation;
use crate::config::Config;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};

/// Slots that go round on the CPU: one in use, the others full or being filled.
const SLOTS: usize = 3;

/// Memory for the views of one batch.
pub trait Slot: AsRef<[u8]> + AsMut<[u8]> + Send + 'static {}

impl<S: AsRef<[u8]> + AsMut<[u8]> + Send + 'static> Slot for S {}

/// A place in a run: the step about to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step within the epoch, from 0.
    pub step: u64,
}

/// What to load.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Images in a batch; the incomplete last batch of an epoch is dropped.
    pub batch_size: usize,
    /// Side of a view in pixels.
    pub image_size: usize,
    /// How views are drawn.
    pub augment: AugmentConfig,
    /// Where to begin.
    pub start: Position,
    /// Epochs in the run.
    pub epochs: u64,
}

impl LoaderConfig {
    /// The rest, from `start` on, of the run that `config` asks for.
    pub fn new(config: &Config, start: Position) -> LoaderConfig {
        LoaderConfig {
            seed: config.seed,
            batch_size: config.batch_size,
            image_size: config.image_size,
            augment: config.augment.clone(),
            start,
            epochs: config.epochs as u64,
        }
    }

    /// Bytes of a batch's views: 2 x N x S x S x 3.
    pub fn slot_bytes(&self) -> usize {
        2 * self.batch_size * self.image_size * self.image_size * 3
    }

    /// Slots in plain memory, as many as keep the CPU busy.
    pub fn plain_slots(&self) -> Vec<Vec<u8>> {
        vec![vec![0; self.slot_bytes()]; SLOTS]
    }
}

/// Two views of N samples.
#[derive(Clone, Debug)]
pub struct Batch<S = Vec<u8>> {
    /// Which step this is for.
    pub position: Position,
    /// The N samples.
    pub samples: Vec<usize>,
    /// uint8 `[2N, S, S, 3]`: view 1 of all samples, then view 2.
    pub views: S,
}

/// Complete batches of `batch_size` in an epoch of `samples`.
pub fn steps_per_epoch(samples: usize, batch_size: usize) -> u64 {
    samples.checked_div(batch_size).unwrap_or(0) as u64
}

/// The loader: an iterator over the rest of the run, with a thread behind it.
pub struct Loader<S = Vec<u8>> {
    full: Option<Receiver<Result<Batch<S>>>>,
    free: Option<SyncSender<Batch<S>>>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Slot> Loader<S> {
    /// Starts loading into `slots`, each of [`LoaderConfig::slot_bytes`]; it is at most so many batches ahead.
    ///
    /// # Errors
    /// If there are fewer samples than a batch needs, no slots or slots of another size, or no thread can be had.
    pub fn start(dataset: Arc<Dataset>, config: LoaderConfig, slots: Vec<S>) -> Result<Loader<S>> {
        let (samples, batch) = (dataset.len(), config.batch_size);
        if steps_per_epoch(samples, batch) == 0 {
            let problem =
                format!("{samples} images do not fill a batch of {batch}: set batch_size to {samples} or less");
            return Err(Error::Usage(problem));
        }
        let bytes = config.slot_bytes();
        if slots.is_empty() || slots.iter().any(|slot| slot.as_ref().len() != bytes) {
            return Err(Error::shape("loader", format!("slots of {bytes} bytes are needed, at least one")));
        }
        // Room for every slot, so that no send waits: the loader blocks on free slots alone.
        let (full_sender, full) = sync_channel(slots.len());
        let (free, free_receiver) = sync_channel(slots.len());
        for views in slots {
            let slot = Batch { position: config.start, samples: vec![0; batch], views };
            free.send(slot).map_err(|_| stopped())?;
        }
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(move || fill_all(&dataset, &config, &free_receiver, &full_sender))
            .map_err(Error::io("start a thread for", "the loader"))?;
        Ok(Loader { full: Some(full), free: Some(free), thread: Some(thread) })
    }

    /// The next batch, waiting for it if need be; `None` at the end of the run. Errors if an image can no longer be read;
    /// nothing comes after that.
    pub fn next_batch(&mut self) -> Result<Option<Batch<S>>> {
        match self.full.as_ref().map(Receiver::recv) {
            Some(Ok(batch)) => batch.map(Some),
            // The thread has gone: at the end of the run, or because it panicked.
            _ => match self.thread.take().map(JoinHandle::join) {
                Some(Err(_)) => Err(stopped()),
                _ => Ok(None),
            },
        }
    }

    /// Gives a batch's memory back.
    pub fn recycle(&mut self, batch: Batch<S>) {
        // At the end of the run nobody takes it.
        let _ = self.free.as_ref().map(|free| free.send(batch));
    }
}

impl<S> Drop for Loader<S> {
    fn drop(&mut self) {
        // Closing both channels ends the thread at its next send or receive.
        (self.full, self.free) = (None, None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn stopped() -> Error {
    Error::shape("loader", "the loader's thread stopped unexpectedly")
}

/// Fills slots until the run's end, the first error, or until nobody listens.
fn fill_all<S: Slot>(
    dataset: &Dataset,
    config: &LoaderConfig,
    free: &Receiver<Batch<S>>,
    full: &SyncSender<Result<Batch<S>>>,
) {
    let steps = steps_per_epoch(dataset.len(), config.batch_size);
    for epoch in config.start.epoch..config.epochs {
        let order = Permutation::of_epoch(config.seed, epoch, dataset.len());
        let first = if epoch == config.start.epoch { config.start.step } else { 0 };
        for step in first..steps {
            let Ok(mut batch) = free.recv() else { return };
            batch.position = Position { epoch, step };
            let filled = fill(dataset, config, &order, &mut batch);
            // A batch that failed does not come back as a free slot: going on would end in waiting for one for ever.
            let failed = filled.is_err();
            if full.send(filled.map(|()| batch)).is_err() || failed {
                return;
            }
        }
    }
}

/// The batch of a step by itself: the same as the loader gives.
///
/// # Errors
/// If an image can no longer be read, or there is not enough memory.
pub fn draw_batch(dataset: &Dataset, config: &LoaderConfig, position: Position) -> Result<Batch> {
    let order = Permutation::of_epoch(config.seed, position.epoch, dataset.len());
    let (bytes, mut views) = (config.slot_bytes(), Vec::new());
    let too_many = |_| Error::Usage(format!("not enough memory for the {bytes} bytes of a batch"));
    views.try_reserve_exact(bytes).map_err(too_many)?;
    views.resize(bytes, 0);
    let mut batch = Batch { position, samples: vec![0; config.batch_size], views };
    fill(dataset, config, &order, &mut batch)?;
    Ok(batch)
}

fn fill<S: Slot>(dataset: &Dataset, config: &LoaderConfig, order: &Permutation, batch: &mut Batch<S>) -> Result<()> {
    let Batch { position, samples, views } = batch;
    let first = position.step as usize * config.batch_size;
    samples.iter_mut().enumerate().for_each(|(i, sample)| *sample = order.at(first + i));
    let view_bytes = config.image_size * config.image_size * 3;
    let (view1, view2) = views.as_mut().split_at_mut(config.batch_size * view_bytes);
    let outputs = view1.par_chunks_mut(view_bytes).zip(view2.par_chunks_mut(view_bytes));
    outputs.zip(&*samples).try_for_each(|((view1, view2), &sample)| {
        draw_views(dataset, config, position.epoch, sample, [view1, view2])
    })?;
    // Only now is it certain that the pixels were those of the data set.
    dataset.check()
}

/// Draws both views of a sample as it is seen in `epoch`: each uint8 `[S, S, 3]`. One decoding serves both.
///
/// # Errors
/// If the image can no longer be read, or a view has another size.
pub fn draw_views(
    dataset: &Dataset,
    config: &LoaderConfig,
    epoch: u64,
    sample: usize,
    views: [&mut [u8]; 2],
) -> Result<()> {
    with_workspace(|Workspace { scratch, decoded }| {
        let image = dataset.image(sample, decoded)?;
        for (view, out) in views.into_iter().enumerate() {
            let mut stream = stream(config.seed, Purpose::Augment, epoch, sample as u64, view as u32);
            let params = config.augment.sample(&mut stream, image.width(), image.height());
            render(image, &params, Size::square(config.image_size), scratch, out)?;
        }
        Ok(())
    })
}

/// What a thread keeps from image to image, so that it allocates nothing once it has seen the largest.
#[derive(Default)]
pub struct Workspace {
    /// For augmentation.
    pub scratch: Scratch,
    /// Pixels of an image that had to be decoded.
    pub decoded: Vec<u8>,
}

/// Runs `f`, which must not call this again, with this thread's workspace.
pub fn with_workspace<R>(f: impl FnOnce(&mut Workspace) -> R) -> R {
    thread_local!(static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::default()));
    WORKSPACE.with_borrow_mut(f)
}
