//! Contrastive Disentangling, as a training engine.

pub mod atomic_file;
pub mod data;
pub mod error;
pub mod eval;
pub mod rng;

pub use error::{Error, Result};
