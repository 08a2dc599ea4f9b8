//! Steps that are not finite: found in the step it happens, left out by the device itself (see
//! [`Backend::adam`](crate::backend::Backend::adam)), explained, and saved so that they can be repeated.
//!
//! ```text
//!   step t is not finite        the device leaves it out, and every step after it: the state stays that before t
//!   the host learns of it       steps under way end (one, or none); nothing has to be undone
//!   search                      the same step once more, operation by operation, every result looked at
//!   report                      nonfinite-stepNNNNNN.json and, with the state before, nonfinite-stepNNNNNN.safetensors
//!   policy                      stop; or go on behind the batch: from this state, or from the last checkpoint
//! ```
//!
//! `disentangle replay` reads both files, draws the batch again and repeats the search.

mod left_out;
mod number;
mod report;
mod search;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use left_out::LeftOutBatches;
pub use number::Number;
pub use report::{Report, Sample, Taken, path_at, state_path};
pub use search::{Found, Pass, Site, search};

/// What happens after a step that is not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OnNan {
    /// The run ends with an error.
    #[default]
    Stop,
    /// It goes on from the state before it, with the next batch.
    Skip,
    /// It goes on from the last checkpoint, and leaves the batch out when it comes again. On a machine without faults this
    /// gives what `skip` gives; where memory has changed by itself, the checkpoint has checksums.
    Rollback,
}

crate::named::named!(OnNan);

/// Batches in a row that may be left out: more are not bad luck but a bad state, which no batch will get past.
pub const MOST_IN_A_ROW: u64 = 10;

/// Reports that a run's folder may hold: each has a whole state beside it.
pub const MOST_REPORTS: usize = 10;
