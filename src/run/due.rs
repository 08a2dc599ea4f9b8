//! Whether a checkpoint is due.

use std::time::{Duration, Instant};

use crate::config::CheckpointEvery;
use crate::data::loader::Position;

/// Steps after which a checkpoint that could not be written is tried again for the first time; each failure doubles them.
const FIRST_RETRY: u64 = 16;
/// Steps between two tries, at most.
const LONGEST_RETRY: u64 = 1024;

/// Says when the next checkpoint is due.
#[derive(Debug)]
pub(super) struct Due {
    every: CheckpointEvery,
    steps_per_epoch: u64,
    /// When the last one was written, or the process began.
    since: Instant,
    retry: Option<Retry>,
}

/// A checkpoint that failed and is still wanted.
#[derive(Clone, Copy, Debug)]
struct Retry {
    /// The step from which on it is tried again.
    at: u64,
    /// Steps waited until then.
    wait: u64,
}

impl Due {
    pub(super) fn new(every: CheckpointEvery, steps_per_epoch: u64) -> Due {
        Due { every, steps_per_epoch, since: Instant::now(), retry: None }
    }

    /// Steps of the run before `position`.
    fn steps(&self, position: Position) -> u64 {
        position.epoch * self.steps_per_epoch + position.step
    }

    /// Whether a checkpoint is due after the step before `position`. While one has failed and waits to be tried again, only an
    /// epoch's end comes before it.
    pub(super) fn at(&self, position: Position) -> bool {
        let CheckpointEvery { epochs, steps, seconds } = self.every;
        let falls_on = |every: u64, count: u64| every > 0 && count.is_multiple_of(every);
        if position.step == 0 && falls_on(epochs, position.epoch) {
            return true;
        }
        match self.retry {
            Some(retry) => self.steps(position) >= retry.at,
            None => {
                falls_on(steps, self.steps(position))
                    || (seconds > 0 && self.since.elapsed() >= Duration::from_secs(seconds))
            }
        }
    }

    /// A checkpoint was written.
    pub(super) fn wrote(&mut self) {
        self.since = Instant::now();
        self.retry = None;
    }

    /// A checkpoint could not be written after the step before `position`; gives the steps until it is tried again.
    pub(super) fn failed(&mut self, position: Position) -> u64 {
        let wait = self.retry.map_or(FIRST_RETRY, |retry| (2 * retry.wait).min(LONGEST_RETRY));
        self.retry = Some(Retry { at: self.steps(position) + wait, wait });
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps, of 40 in epochs of 10, after which a checkpoint is due.
    fn due(text: &str, fails: bool) -> Vec<u64> {
        let mut due = Due::new(text.parse().unwrap(), 10);
        let mut steps = Vec::new();
        for step in 1..=40 {
            let position = Position { epoch: step / 10, step: step % 10 };
            if due.at(position) {
                steps.push(step);
                if fails {
                    due.failed(position);
                } else {
                    due.wrote();
                }
            }
        }
        steps
    }

    #[test]
    fn by_epochs_and_steps() {
        assert_eq!(due("1epoch", false), [10, 20, 30, 40]);
        assert_eq!(due("2epochs,15steps", false), [15, 20, 30, 40]);
        assert!(due("end", false).is_empty());
        assert!(due("1h", false).is_empty());
    }

    #[test]
    fn a_failure_is_not_tried_again_at_every_step() {
        assert_eq!(due("1step", true), [1, 17]);
        assert_eq!(due("1epoch", true), [10, 20, 30, 40]);
        let mut due = Due::new("1step".parse().unwrap(), 10);
        let at = |step| Position { epoch: 0, step };
        assert_eq!([1, 2, 3].map(|step| due.failed(at(step))), [16, 32, 64]);
        assert!(!due.at(at(5)));
        due.wrote();
        assert!(due.at(at(5)));
    }
}
