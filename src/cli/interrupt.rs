//! Ctrl-C: the first one asks, the second one ends the process at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::INTERRUPTED;
use crate::log::say;
use crate::{Error, Result};

/// What the first Ctrl-C says.
static ANSWER: Mutex<&str> = Mutex::new("");

/// A flag that the first Ctrl-C sets, and what it answers from now on.
///
/// # Errors
/// If the system does not let us listen.
pub fn flag(answer: &'static str) -> Result<&'static AtomicBool> {
    static FLAG: AtomicBool = AtomicBool::new(false);
    *ANSWER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = answer;
    let handler = || {
        if FLAG.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        let answer = *ANSWER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        say(&format!("{answer}; press Ctrl-C again to stop at once"));
    };
    match ctrlc::set_handler(handler) {
        // It was set before, in this process.
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(&FLAG),
        Err(e) => Err(Error::Usage(format!("cannot listen for Ctrl-C: {e}"))),
    }
}
