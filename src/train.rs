//! Training: the paper's Algorithm 1.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::Backend;
use crate::data::Dataset;
use crate::data::loader::{Batch, Loader, LoaderConfig};
use crate::log::StepRecord;
use crate::run::{Requests, Run, STOPPING};
use crate::trainer::{Finished, Step, Trainer, VIEWS};
use crate::{Error, Result};

/// Batches that are full or being filled while others are under way.
const LOADER_SLOTS: usize = 2;

/// How training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and stopped after a step; [`Run::finish`] leaves a checkpoint of it.
    Interrupted,
}

/// Algorithm 1: for each batch draw two views, encode, project, predict, and descend on
/// `L_inst + L_feat - alpha L_entropy`. As many steps are under way at once as the device likes; their records come in order.
///
/// # Errors
/// Whatever the loader or the device meets. If it is the loader, the last good step is saved first.
pub fn train<B: Backend>(
    trainer: &mut Trainer<B>,
    dataset: &Arc<Dataset>,
    run: &mut Run,
    requests: &Requests,
) -> Result<Outcome> {
    let backend = trainer.params.backend().clone();
    let config = LoaderConfig::new(&trainer.config, trainer.position);
    let slots = (0..LOADER_SLOTS + B::LANES).map(|_| backend.pixels(config.slot_bytes())).collect::<Result<_>>()?;
    let mut loader = Loader::start(Arc::clone(dataset), config, slots)?;
    let mut steps = Steps::new(trainer)?;
    requests.wait(STOPPING);
    loop {
        let batch = match loader.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Outcome::Finished),
            Err(error) => {
                steps.finish(trainer, &mut loader, run, 0)?;
                run.checkpoint(trainer, dataset)?;
                run.say(&run.newest_in_words());
                return Err(error);
            }
        };
        steps.start(trainer, batch)?;
        let epoch_ends = trainer.position.step == 0;
        let asked = requests.take_checkpoint();
        let checkpoint = asked || run.checkpoint_due(trainer.position);
        // At the end of an epoch, to save and to stop, the device comes to rest: what is saved is the state after this step.
        let rest = epoch_ends || checkpoint || requests.stop();
        let last = steps.finish(trainer, &mut loader, run, if rest { 0 } else { B::LANES - 1 })?;
        let Some(last) = last.filter(|_| rest) else { continue };
        if epoch_ends {
            run.after_epoch(trainer, &last);
        }
        if checkpoint {
            run.checkpoint(trainer, dataset)?;
        }
        if let Some(saved) = run.saved().filter(|saved| asked && saved.position == trainer.position) {
            run.say(&format!("checkpoint of step {}: {}", saved.step, saved.path.display()));
        }
        if epoch_ends {
            run.evaluate_if_due(trainer, dataset, requests)?;
        }
        let done = trainer.position.epoch == trainer.config.epochs as u64 && run.evaluation().is_some();
        if requests.stop() && !done {
            return Ok(Outcome::Interrupted);
        }
        steps.clock = Instant::now();
    }
}

/// Steps under way, oldest first, and the lanes that are free.
struct Steps<B: Backend> {
    lanes: Vec<B::Lane>,
    under_way: VecDeque<(Step<B>, Batch<B::Pixels>)>,
    /// When the last step was done.
    clock: Instant,
}

impl<B: Backend> Steps<B> {
    fn new(trainer: &Trainer<B>) -> Result<Self> {
        let lanes = (0..B::LANES).map(|_| trainer.lane()).collect::<Result<Vec<_>>>()?;
        Ok(Steps { lanes, under_way: VecDeque::with_capacity(B::LANES), clock: Instant::now() })
    }

    fn start(&mut self, trainer: &mut Trainer<B>, batch: Batch<B::Pixels>) -> Result<()> {
        let lane = self.lanes.pop().ok_or_else(|| Error::Device("no lane is free".into()))?;
        self.under_way.push_back((trainer.start(lane, &batch)?, batch));
        Ok(())
    }

    /// Waits for all steps but the `leave` newest and logs them; gives the last one's record.
    fn finish(
        &mut self,
        trainer: &mut Trainer<B>,
        loader: &mut Loader<B::Pixels>,
        run: &mut Run,
        leave: usize,
    ) -> Result<Option<StepRecord>> {
        let mut last = None;
        while self.under_way.len() > leave {
            let Some((step, batch)) = self.under_way.pop_front() else { break };
            let (mut record, lane) = match trainer.finish(step)? {
                (Finished::Made(record), lane) => (record, lane),
                (Finished::LeftOut(bad), _) => return Err(Error::NonFinite(bad.to_string())),
            };
            let views = VIEWS * batch.samples.len();
            // What a user waits for: the step, and the loader where it is slower.
            record.views_per_s = views as f64 / self.clock.elapsed().as_secs_f64();
            self.clock = Instant::now();
            loader.recycle(batch);
            self.lanes.insert(0, lane);
            run.after_step(&record, views);
            last = Some(record);
        }
        Ok(last)
    }
}
