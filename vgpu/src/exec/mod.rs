//! The executor: one instruction for up to 32 lanes at a time.
//!
//! A warp runs one group of lanes, the one with the smallest program counter, until it meets others there (so diverged
//! lanes join again as early as possible). A group parks at a warp-synchronous instruction until every lane that its
//! mask names has come. A block runs its warps in turn from barrier to barrier; a grid runs its blocks side by side.

mod access;
pub mod alu;
mod atomic;
mod block;
pub mod convert;
mod copy;
pub mod float;
mod global;
mod lanes;
mod launch;
mod matrix;
mod memory;
mod op;
mod print;
mod registers;
mod shared;
mod simd;
mod sync;
mod warp;

pub use atomic::atomic_covers;
pub use launch::{Counts, Launch, run};
pub use op::*;
pub use registers::{ALL, Alu, Lane, NONE, Operands, Reg, Registers};
