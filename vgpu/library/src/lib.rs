//! What stand-ins for CUDA's libraries (`vgpu-cudnn`, `vgpu-cublaslt`) share.
//!
//! A stand-in checks a call, names its operands (addresses, and which bytes of them it reads and writes) and hands its work
//! to the virtual driver, which queues it in a stream or records it in a capture, checks the operands when the stream comes
//! to it, and runs it on the host.
//!
//! - [`abi`]: the C interface between a stand-in and the virtual driver
//! - [`driver`]: that interface as Rust: [`driver::enqueue`], [`driver::refuse`]
//! - [`handles`]: handles and descriptors that are numbers, so that a stale one is recognised
//! - [`number`]: bf16, TF32 and f32
//! - [`strided`]: tensors and matrices in device memory
//! - [`product`]: sums of products in f32, in a stated order

pub mod abi;
pub mod driver;
pub mod handles;
pub mod number;
pub mod product;
pub mod strided;
