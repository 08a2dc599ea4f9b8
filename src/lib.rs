//! Contrastive Disentangling, as a training engine: ResNet representations learnt from unlabelled images with an
//! instance-level contrastive loss, a feature-level contrastive loss over sigmoid heads, and their entropy, without class
//! priors.
//!
//! Most people want the program (`disentangle train --help`). As a library it reads from the outside in:
//!
//! | to see | read |
//! |---|---|
//! | the paper's Algorithm 1, and a step of it | [`train`](mod@train), [`trainer`] |
//! | the network and the loss | [`model`], [`loss`], [`nn`] |
//! | one operation: formula, shapes, backward | [`ops`], a file each |
//! | what a device must do, and how the CPU does it | [`backend`] |
//! | what is recorded and walked back | [`autograd`] |
//! | from files to two views of a batch | [`data`] |
//! | what a data set holds, in numbers and pictures | [`inspect`] |
//! | fetching published data sets | [`download`] |
//! | k-means, NMI, ARI, ACC, embeddings | [`eval`] |
//! | what a run leaves behind | [`run`], [`checkpoint`], [`log`] |
//! | steps that are not finite: found, explained, repeated | [`nonfinite`] |
//!
//! A gradient in ten lines:
//!
//! ```
//! use disentangle::autograd::{Grads, Tape};
//! use disentangle::backend::{Backend, Samples, cpu::Cpu};
//! use disentangle::tensor::Shape;
//!
//! let cpu = Cpu::<f64>::new();
//! let mut tape = Tape::new(cpu.clone());
//! // Two views of one sample: the positive is the only other row, so the loss is 0.
//! let z = tape.leaf(cpu.upload(Shape::from([2, 3]), &[1.0, 0.0, 0.0, 0.6, 0.8, 0.0])?);
//! let loss = tape.nt_xent(z, Samples::Rows, 0.5)?;
//! assert!(tape.scalar(loss)?.abs() < 1e-12);
//! let mut grads = Grads::new();
//! tape.backward(loss, &mut grads)?;
//! assert!(cpu.download(grads.of(z).expect("z is a leaf"))?.iter().all(|g| g.abs() < 1e-12));
//! # Ok::<(), disentangle::Error>(())
//! ```

pub mod atomic_file;
pub mod autograd;
pub mod backend;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod download;
pub mod error;
pub mod eval;
pub mod inspect;
pub mod log;
pub mod loss;
pub mod model;
mod named;
pub mod nn;
pub mod nonfinite;
pub mod ops;
pub mod optim;
pub mod rng;
pub mod run;
pub mod snapshot;
pub mod tensor;
pub mod train;
pub mod trainer;

pub use error::{Error, Result};
