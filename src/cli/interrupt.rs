//! Signals. The first SIGINT (Ctrl-C) or SIGTERM asks, the second ends the process at once; SIGUSR1 asks for a checkpoint.
//! Only Unix has them: elsewhere Ctrl-C ends the process at once, which loses no more than the steps since the last checkpoint.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::run::{LastWords, Requests};
use crate::{Error, Result};

/// What was asked of this process.
static REQUESTS: Requests = Requests::new();

/// The exit code of a stop that was asked for: 128 and the signal's number, as shells have it.
static CODE: AtomicU8 = AtomicU8::new(130);

/// Listens for signals from now on; gives what they ask.
///
/// # Errors
/// If the system does not let us listen.
pub fn listen() -> Result<&'static Requests> {
    #[cfg(unix)]
    unix::listen()?;
    Ok(&REQUESTS)
}

/// A flag that the first signal to stop sets, and what it says from now on.
///
/// # Errors
/// As [`listen`].
pub fn flag(says: &'static str) -> Result<&'static AtomicBool> {
    let requests = listen()?;
    requests.wait(says);
    Ok(requests.stop_flag())
}

/// From now on a signal to stop ends the process at once: nothing would be lost.
///
/// # Errors
/// [`Error::Interrupted`] if one came before.
pub fn at_once() -> Result<()> {
    REQUESTS.end_at_once(LastWords::default());
    if REQUESTS.stop() { Err(Error::Interrupted) } else { Ok(()) }
}

/// The exit code of the stop that was asked for.
pub fn code() -> u8 {
    CODE.load(Ordering::Relaxed)
}

#[cfg(unix)]
mod unix {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, OnceLock};

    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::Signals;
    use signal_hook::{flag, low_level};

    use super::{CODE, REQUESTS};
    use crate::cli::print;
    use crate::log::say;
    use crate::run::OnStop;
    use crate::{Error, Result};

    /// Listens once a process.
    pub(super) fn listen() -> Result<()> {
        static LISTENING: OnceLock<Result<(), String>> = OnceLock::new();
        let listening = LISTENING.get_or_init(|| start().map_err(|problem| problem.to_string()));
        listening.clone().map_err(|problem| Error::Usage(format!("cannot listen for signals: {problem}")))
    }

    fn start() -> std::io::Result<()> {
        // The second one ends the process in the handler itself: nothing that hangs can keep it from that.
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, exit_code(signal).into(), Arc::clone(&stopped))?;
            flag::register(signal, Arc::clone(&stopped))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(answer)).map(drop)
    }

    fn exit_code(signal: i32) -> u8 {
        128 + signal as u8
    }

    fn answer(signal: i32) {
        if signal == SIGUSR1 {
            return REQUESTS.ask_checkpoint();
        }
        CODE.store(exit_code(signal), Ordering::Relaxed);
        match REQUESTS.ask_stop() {
            OnStop::Wait(what) => say(&format!("{what}; a second signal (Ctrl-C) stops at once")),
            OnStop::EndAtOnce(words) => {
                if !words.out.is_empty() {
                    print(&words.out);
                }
                say(if words.err.is_empty() { "stopped" } else { &words.err });
                low_level::exit(exit_code(signal).into());
            }
        }
    }
}
