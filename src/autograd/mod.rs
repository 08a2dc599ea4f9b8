//! Reverse-mode differentiation: a tape that records, gradients that accumulate, a check by finite differences.

pub mod gradcheck;
mod grads;
pub mod profile;
mod tape;

pub use grads::Grads;
pub(crate) use tape::Op;
pub use tape::{Tape, Var};
