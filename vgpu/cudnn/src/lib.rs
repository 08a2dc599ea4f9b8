//! A stand-in for cuDNN on the virtual GPU: its graph API on the CPU, strict about what it is given.
//!
//! Built as a shared library it answers for `libcudnn.so.9`. Descriptors are numbers, so a stale one is recognised; what the
//! real library would leave undefined is refused and reported. `vgpu/README.md` says what is covered.
//!
//! - `entry`: the library's functions, and the state behind them
//! - `schema`: which attributes a descriptor has; `descriptor`: setting, asking and finalising them
//! - `tensor`, `operation`, `graph`: what finalised descriptors say
//! - `engine`: the ways to compute a graph, heuristics and plans
//! - `execute`: a plan on memory
//! - `convolve`, `pointwise`: the arithmetic

mod convolve;
mod descriptor;
mod engine;
mod entry;
mod execute;
mod graph;
mod operation;
mod pointwise;
mod schema;
mod status;
mod tensor;
