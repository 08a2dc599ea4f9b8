//! The CUDA backend: so far its kernels, as PTX.

pub mod ptx;
