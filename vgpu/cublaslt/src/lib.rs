//! A stand-in for cuBLASLt on the virtual GPU: matrix products on the CPU, strict about what they are given.
//!
//! Built as a shared library it answers for `libcublasLt.so.13`. Descriptors are numbers, so a stale one is recognised; what
//! the real library would leave undefined is refused and reported. `vgpu/README.md` says what is covered.
//!
//! - `attributes`: attributes of descriptors, with their sizes
//! - `entry`: handles and descriptors
//! - `problem`: whether a product's descriptors fit together, and what they say
//! - `algorithm`: the ways to compute it, and the heuristic that lists them
//! - `matmul`: `cublasLtMatmul`

mod algorithm;
mod attributes;
mod entry;
mod matmul;
mod problem;
