//! cudarc on the virtual GPU.
#![allow(dead_code)] // each test file takes what it needs

use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DriverError, LaunchConfig, PushKernelArg, sys};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vgpu::{Preload, VirtualGpu, preload};

static ONE: Mutex<()> = Mutex::new(());

pub const AXPY: &str = include_str!("../ptx/kernels.sm_80.ptx");

/// The virtual GPU with a clean slate; a real driver is no subject of these tests.
pub fn gpu() -> (MutexGuard<'static, ()>, VirtualGpu, Arc<CudaContext>) {
    let lock = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: every test comes through here first, under the lock, and nothing else reads the environment meanwhile.
    unsafe { std::env::set_var("VGPU", "1") };
    let gpu = match preload() {
        Preload::Virtual(gpu) => gpu,
        other => panic!("{other:?}"),
    };
    gpu.last_report();
    gpu.set_seed(0);
    let context = CudaContext::new(0).unwrap();
    (lock, gpu, context)
}

pub fn axpy(context: &Arc<CudaContext>) -> CudaFunction {
    context.load_module(cudarc::nvrtc::Ptx::from_src(AXPY)).unwrap().load_function("axpy").unwrap()
}

/// Puts `y += a x` on a stream.
pub fn enqueue_axpy(stream: &CudaStream, f: &CudaFunction, a: f32, x: &CudaSlice<f32>, y: &mut CudaSlice<f32>) {
    let n = x.len() as i32;
    let mut launch = stream.launch_builder(f);
    launch.arg(&n).arg(&a).arg(x).arg(y);
    // SAFETY: the kernel's parameters.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n as u32)) }.unwrap();
}

/// The error that a call must give.
pub fn refused<T: std::fmt::Debug>(result: Result<T, DriverError>) -> sys::CUresult {
    result.expect_err("a refusal").0
}
