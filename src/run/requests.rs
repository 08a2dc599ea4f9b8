//! What can be asked of a run from outside while it goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was asked: set by whoever listens for signals, read by the run between its steps.
#[derive(Debug)]
pub struct Requests {
    stop: AtomicBool,
    checkpoint: AtomicBool,
    now: Mutex<OnStop>,
}

/// What a request to stop means at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// Nothing is lost if the process ends at once.
    EndAtOnce(LastWords),
    /// It ends as soon as it can; this says what comes first.
    Wait(&'static str),
}

/// What a process that ends at once leaves to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// For stdout; may be empty.
    pub out: String,
    /// For stderr.
    pub err: String,
}

impl Requests {
    /// Nothing is asked, and nothing would be lost.
    pub const fn new() -> Requests {
        let nothing = LastWords { out: String::new(), err: String::new() };
        Requests {
            stop: AtomicBool::new(false),
            checkpoint: AtomicBool::new(false),
            now: Mutex::new(OnStop::EndAtOnce(nothing)),
        }
    }

    /// Asks to stop; the answer says whether to end the process now, and with which words.
    pub fn ask_stop(&self) -> OnStop {
        let now = self.lock();
        self.stop.store(true, Ordering::Relaxed);
        now.clone()
    }

    /// Asks for a checkpoint.
    pub fn ask_checkpoint(&self) {
        self.checkpoint.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// [`Requests::stop`] as work that knows nothing of runs wants it.
    pub fn stop_flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether a checkpoint was asked for since the last call.
    pub fn take_checkpoint(&self) -> bool {
        self.checkpoint.swap(false, Ordering::Relaxed)
    }

    /// From now on a stop waits, as `what` says. A stop that was asked for before still counts.
    pub fn wait(&self, what: &'static str) {
        *self.lock() = OnStop::Wait(what);
    }

    /// From now on a stop ends the process at once, with these words.
    pub fn end_at_once(&self, words: LastWords) {
        *self.lock() = OnStop::EndAtOnce(words);
    }

    fn lock(&self) -> MutexGuard<'_, OnStop> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Requests {
    fn default() -> Self {
        Requests::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_answered_by_what_is_going_on() {
        let requests = Requests::new();
        requests.wait("after this step");
        assert!(!requests.stop() && !requests.take_checkpoint());
        assert_eq!(requests.ask_stop(), OnStop::Wait("after this step"));
        assert!(requests.stop());
        let words = LastWords { out: "weights".into(), err: "stopped".into() };
        requests.end_at_once(words.clone());
        assert_eq!(requests.ask_stop(), OnStop::EndAtOnce(words));
        requests.ask_checkpoint();
        assert!(requests.take_checkpoint() && !requests.take_checkpoint());
    }
}
