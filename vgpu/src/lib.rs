//! A stand-in for the CUDA driver that interprets PTX on the CPU, for tests.
//!
//! Built as a shared library it answers for `libcuda.so.1`: an unmodified program loads modules, launches kernels, copies,
//! synchronises and captures graphs, and every instruction runs, checked for what a GPU would let pass. Built as a Rust
//! library it is what a test calls first: [`preload`] makes the shared library known to the program's loader.
//!
//! `README.md` says how a test uses it; the modules say how it works:
//! - [`ptx`]: text to pre-decoded instructions
//! - `driver`: the entry points, streams as queues, capture
//! - [`exec`]: instructions on warps, blocks on threads, shared memory and its races
//! - [`device`]: device memory; [`shadow`]: who wrote and read what of it
//! - [`report`]: what the checks found
//! - [`float`]: number formats and roundings

pub mod device;
mod driver;
pub mod exec;
pub mod float;
mod load;
pub mod ptx;
pub mod report;
pub mod shadow;
pub mod window;

pub use driver::Calls;
pub use load::{Preload, VirtualGpu, preload};
