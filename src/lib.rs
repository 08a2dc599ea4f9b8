//! Contrastive Disentangling, as a training engine.

pub mod atomic_file;
pub mod autograd;
pub mod backend;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod error;
pub mod eval;
pub mod log;
pub mod loss;
pub mod model;
mod named;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod run;
pub mod snapshot;
pub mod tensor;
pub mod train;

pub use error::{Error, Result};
