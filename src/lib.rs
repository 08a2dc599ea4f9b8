//! Contrastive Disentangling, as a training engine.

pub mod atomic_file;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod log;
pub mod rng;

pub use error::{Error, Result};
