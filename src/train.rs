//! Training: the paper's Algorithm 1.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::Backend;
use crate::data::Dataset;
use crate::data::loader::{Batch, Loader, LoaderConfig};
use crate::run::{GoOn, Requests, Run, STOPPING};
use crate::trainer::{BadStep, Finished, Step, Trainer, VIEWS};
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
    loop {
        match leg(trainer, dataset, run, requests)? {
            Leg::Ended(outcome) => return Ok(outcome),
            Leg::Broken => run.roll_back(trainer, dataset)?,
        }
    }
}

/// How the taking of steps from one state on ended.
enum Leg {
    Ended(Outcome),
    /// A step was not finite, and the run goes on from an earlier state.
    Broken,
}

/// Takes steps from the trainer's position on.
fn leg<B: Backend>(
    trainer: &mut Trainer<B>,
    dataset: &Arc<Dataset>,
    run: &mut Run,
    requests: &Requests,
) -> Result<Leg> {
    let backend = trainer.params.backend().clone();
    let config = LoaderConfig::new(&trainer.config, trainer.position);
    let slots = (0..LOADER_SLOTS + B::LANES).map(|_| backend.pixels(config.slot_bytes())).collect::<Result<_>>()?;
    let mut steps = Steps::new(trainer, Loader::start(Arc::clone(dataset), config, slots)?)?;
    requests.wait(STOPPING);
    loop {
        let batch = match steps.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Leg::Ended(Outcome::Finished)),
            Err(error) => {
                steps.finish(trainer, run, 0)?;
                run.checkpoint(trainer, dataset)?;
                run.say(&run.newest_in_words());
                return Err(error);
            }
        };
        let mut bad = steps.take(trainer, run, batch)?;
        let asked = requests.take_checkpoint();
        // At the end of an epoch, to save and to stop, the device comes to rest: what is saved is the state after this step.
        let rest = asked || trainer.position.step == 0 || run.checkpoint_due(trainer.position) || requests.stop();
        if bad.is_none() {
            bad = steps.finish(trainer, run, if rest { 0 } else { B::LANES - 1 })?;
        }
        if let Some((bad, batch)) = bad
            && steps.leave_out(trainer, dataset, run, bad, batch)? == GoOn::FromCheckpoint
        {
            return Ok(Leg::Broken);
        }
        if !steps.under_way.is_empty() {
            continue;
        }
        // A step that was left out may have changed where the run stands.
        let (epoch_ends, checkpoint) = (trainer.position.step == 0, asked || run.checkpoint_due(trainer.position));
        if epoch_ends {
            run.after_epoch(trainer);
            run.watch_collapse(trainer, dataset)?;
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
            return Ok(Leg::Ended(Outcome::Interrupted));
        }
        steps.clock = Instant::now();
    }
}

/// A step that was left out, and its batch.
type Bad<B> = (BadStep, Batch<<B as Backend>::Pixels>);

/// Steps under way, oldest first, the lanes that are free, and where batches come from.
struct Steps<B: Backend> {
    loader: Loader<B::Pixels>,
    /// Batches whose steps were left out because of one before them: they come first.
    again: VecDeque<Batch<B::Pixels>>,
    lanes: Vec<B::Lane>,
    under_way: VecDeque<(Step<B>, Batch<B::Pixels>)>,
    /// When the last step was done.
    clock: Instant,
}

impl<B: Backend> Steps<B> {
    fn new(trainer: &Trainer<B>, loader: Loader<B::Pixels>) -> Result<Self> {
        let mut steps = Steps {
            loader,
            again: VecDeque::with_capacity(B::LANES),
            lanes: Vec::with_capacity(B::LANES),
            under_way: VecDeque::with_capacity(B::LANES),
            clock: Instant::now(),
        };
        steps.make_lanes(trainer)?;
        Ok(steps)
    }

    fn make_lanes(&mut self, trainer: &Trainer<B>) -> Result<()> {
        while self.lanes.len() < B::LANES {
            self.lanes.push(trainer.lane()?);
        }
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Option<Batch<B::Pixels>>> {
        self.again.pop_front().map_or_else(|| self.loader.next_batch(), |batch| Ok(Some(batch)))
    }

    /// Starts a step on a batch, unless it is known not to be finite: then all steps before it end, one of them perhaps badly.
    fn take(&mut self, trainer: &mut Trainer<B>, run: &mut Run, batch: Batch<B::Pixels>) -> Result<Option<Bad<B>>> {
        let Some(record) = run.left_out(trainer.steps() + 1).cloned() else {
            let lane = self.lanes.pop().ok_or_else(|| Error::Device("no lane is free".into()))?;
            self.under_way.push_back((trainer.start(lane, &batch)?, batch));
            return Ok(None);
        };
        let bad = self.finish(trainer, run, 0)?;
        if bad.is_some() {
            self.again.push_back(batch);
            return Ok(bad);
        }
        run.after_left_out(&record);
        trainer.leave_out(trainer.position)?;
        self.loader.recycle(batch);
        Ok(None)
    }

    /// Waits for all steps but the `leave` newest and logs them. Gives the first that was left out: those behind it come again,
    /// and the trainer stands before it.
    fn finish(&mut self, trainer: &mut Trainer<B>, run: &mut Run, leave: usize) -> Result<Option<Bad<B>>> {
        let mut first_bad: Option<Bad<B>> = None;
        while self.under_way.len() > if first_bad.is_some() { 0 } else { leave } {
            let Some((step, batch)) = self.under_way.pop_front() else { break };
            let (finished, lane) = trainer.finish(step)?;
            self.lanes.insert(0, lane);
            let mut record = match finished {
                Finished::Made(record) => record,
                Finished::LeftOut(bad) if first_bad.is_none() => {
                    trainer.position = bad.position;
                    first_bad = Some((bad, batch));
                    continue;
                }
                Finished::LeftOut(_) => {
                    self.again.push_back(batch);
                    continue;
                }
            };
            let views = VIEWS * batch.samples.len();
            // What a user waits for: the step, and the loader where it is slower.
            record.views_per_s = views as f64 / self.clock.elapsed().as_secs_f64();
            self.clock = Instant::now();
            self.loader.recycle(batch);
            run.after_step(&record, views);
        }
        Ok(first_bad)
    }

    /// Does what is to be done about a bad step.
    fn leave_out(
        &mut self,
        trainer: &mut Trainer<B>,
        dataset: &Dataset,
        run: &mut Run,
        bad: BadStep,
        batch: Batch<B::Pixels>,
    ) -> Result<GoOn> {
        // The step is repeated in the memory of the recorded ones.
        self.lanes.clear();
        let go_on = run.after_bad_step(trainer, dataset, bad, &batch)?;
        self.loader.recycle(batch);
        if go_on == GoOn::Here {
            self.make_lanes(trainer)?;
        }
        Ok(go_on)
    }
}
