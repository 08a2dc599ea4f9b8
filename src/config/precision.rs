//! What a GPU computes in.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a GPU computes in; the CPU computes in f32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Precision {
    /// Activations and matrix inputs in bfloat16; parameters, statistics, losses and sums in f32.
    #[default]
    Bf16,
    /// f32 everywhere, but products of f32 are rounded to tf32's 10 bits on tensor cores.
    Tf32,
    /// f32 everywhere.
    F32,
}
crate::named::named!(Precision);
