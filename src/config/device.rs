//! Where to compute.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The fastest device there is.
    Auto,
    /// The CPU.
    Cpu,
}
crate::named::named!(Device);
