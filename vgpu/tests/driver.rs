//! cudarc, unmodified, on the virtual GPU. One test at a time, since the context and its error are the process's.

mod common;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg, sys};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vgpu::{Preload, VirtualGpu, preload};

static ONE: Mutex<()> = Mutex::new(());

const AXPY: &str = include_str!("ptx/kernels.sm_80.ptx");

/// The virtual GPU with a clean slate; a real driver is no subject of these tests.
fn gpu() -> (MutexGuard<'static, ()>, VirtualGpu, Arc<CudaContext>) {
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

fn axpy(context: &Arc<CudaContext>) -> cudarc::driver::CudaFunction {
    context.load_module(cudarc::nvrtc::Ptx::from_src(AXPY)).unwrap().load_function("axpy").unwrap()
}

#[test]
fn a_program_runs() {
    let (_lock, gpu, context) = gpu();
    assert!(context.name().unwrap().starts_with("Virtual GPU"));
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    let stream = context.default_stream();
    let f = axpy(&context);
    let n = 1000u32;
    let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let dx = stream.clone_htod(&x).unwrap();
    let mut dy = stream.alloc_zeros::<f32>(n as usize).unwrap();
    let (count, a) = (n as i32, 3f32);
    let mut launch = stream.launch_builder(&f);
    launch.arg(&count).arg(&a).arg(&dx).arg(&mut dy);
    // SAFETY: the kernel's parameters.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }.unwrap();
    let y = stream.clone_dtoh(&dy).unwrap();
    assert!(y.iter().zip(&x).all(|(y, x)| *y == 3.0 * x));
    assert!(gpu.take_counts().thread_instructions > 1000);
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn a_fault_is_the_error_of_the_next_synchronisation_and_is_told() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    let x = stream.alloc_zeros::<f32>(10).unwrap();
    let mut y = stream.alloc_zeros::<f32>(10).unwrap();
    let (count, a) = (11i32, 1f32);
    let mut launch = stream.launch_builder(&f);
    launch.arg(&count).arg(&a).arg(&x).arg(&mut y);
    // SAFETY: wrong on purpose: the virtual GPU refuses the access.
    unsafe { launch.launch(LaunchConfig::for_num_elems(32)) }.unwrap();
    let error = stream.synchronize().unwrap_err();
    assert_eq!(error.0, sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(stream.synchronize().is_err(), "the error stays");
    let report = gpu.last_report();
    assert!(
        report.contains("out of bounds: kernel `axpy` at kernels.cu:8, block (0,0,0), thread (10,0,0)"),
        "{report}"
    );
    stream.synchronize().unwrap();
}

#[test]
fn wrong_launches_are_refused() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    let y = stream.alloc_zeros::<f32>(10).unwrap();
    let (count, a) = (10i32, 1f32);
    let refused = |report: &str, what: &str| {
        assert!(report.starts_with("bad launch: kernel `axpy`") && report.contains(what), "{report}")
    };
    let config = LaunchConfig::for_num_elems(10);
    let mut swapped = stream.launch_builder(&f);
    let number = 10u64;
    swapped.arg(&count).arg(&a).arg(&y).arg(&number);
    // SAFETY: wrong on purpose, here and below.
    assert!(unsafe { swapped.launch(config) }.is_err());
    refused(&gpu.last_report(), "argument 3 is used as an address");
    let mut empty = stream.launch_builder(&f);
    empty.arg(&count).arg(&a).arg(&y).arg(&y);
    // SAFETY: as above.
    assert!(unsafe { empty.launch(LaunchConfig { grid_dim: (0, 1, 1), ..config }) }.is_err());
    refused(&gpu.last_report(), "empty");
    // SAFETY: as above.
    assert!(unsafe { empty.launch(LaunchConfig { block_dim: (1025, 1, 1), ..config }) }.is_err());
    refused(&gpu.last_report(), "1025 threads");
    // SAFETY: as above.
    assert!(unsafe { empty.launch(LaunchConfig { shared_mem_bytes: 1 << 16, ..config }) }.is_err());
    refused(&gpu.last_report(), "dynamic shared memory");
    stream.synchronize().unwrap();
}

/// Writes through a slow stream, reads on another: with an event always right, without one wrong for some seeds.
fn exchange(gpu: &VirtualGpu, context: &Arc<CudaContext>, seed: u64, with_event: bool) -> Option<Vec<u32>> {
    gpu.set_seed(seed);
    let (one, two) = (context.new_stream().unwrap(), context.new_stream().unwrap());
    let mut d = one.alloc_zeros::<u32>(4).unwrap();
    one.synchronize().unwrap();
    one.memcpy_htod(&[1u32, 2, 3, 4], &mut d).unwrap();
    if with_event {
        two.wait(&one.record_event(None).unwrap()).unwrap();
    }
    let out = two.clone_dtoh(&d).ok();
    one.synchronize().unwrap();
    gpu.last_report();
    out
}

#[test]
fn a_missing_event_is_seen() {
    let (_lock, gpu, context) = gpu();
    // SAFETY: the events are what this test is about.
    unsafe { context.disable_event_tracking() };
    let right = Some(vec![1, 2, 3, 4]);
    assert!((0..20).all(|seed| exchange(&gpu, &context, seed, true) == right));
    let wrong = (0..20).filter(|&seed| exchange(&gpu, &context, seed, false) != right).count();
    assert!(wrong > 2, "{wrong} of 20 seeds show it");
}

#[test]
fn a_captured_graph_is_replayed() {
    let (_lock, gpu, context) = gpu();
    // SAFETY: one stream, in order.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    let n = 64i32;
    let x = stream.clone_htod(&[1f32; 64]).unwrap();
    let mut y = stream.clone_htod(&[0f32; 64]).unwrap();
    stream.synchronize().unwrap();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    let a = 2f32;
    for _ in 0..3 {
        let mut launch = stream.launch_builder(&f);
        launch.arg(&n).arg(&a).arg(&x).arg(&mut y);
        // SAFETY: the kernel's parameters.
        unsafe { launch.launch(LaunchConfig::for_num_elems(64)) }.unwrap();
    }
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap()[5], 0.0, "capturing runs nothing");
    for round in 1..=3 {
        graph.launch().unwrap();
        assert!(stream.clone_dtoh(&y).unwrap().iter().all(|v| *v == 6.0 * round as f32));
    }
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn a_synchronisation_spoils_a_capture() {
    let (_lock, _gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
    assert!(stream.synchronize().is_err());
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    assert!(stream.end_capture(flags).is_err());
    stream.synchronize().unwrap();
}

#[test]
fn memory_that_nobody_wrote_and_freed_memory() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    // SAFETY: read before it is written, on purpose.
    let d = unsafe { stream.alloc::<f32>(8) }.unwrap();
    assert!(stream.clone_dtoh(&d).is_err());
    assert!(gpu.last_report().starts_with("uninitialised read: a copy to the host"));
}

#[test]
fn what_is_not_ptx_is_refused() {
    let (_lock, _gpu, context) = gpu();
    assert!(context.load_module(cudarc::nvrtc::Ptx::from_src("nonsense")).is_err());
    let bad = ".version 7.5\n.target sm_80\n.address_size 64\n.visible .entry k() { frob.u32 %r1; ret; }";
    let error = context.load_module(cudarc::nvrtc::Ptx::from_src(bad)).unwrap_err();
    assert_eq!(error.0, sys::CUresult::CUDA_ERROR_INVALID_PTX);
}

#[test]
fn a_leak_is_told_at_the_end() {
    let (_lock, gpu, context) = gpu();
    drop(context);
    gpu.last_report();
    let context = CudaContext::new(0).unwrap();
    let stream = context.new_stream().unwrap();
    stream.alloc_zeros::<u8>(100).unwrap().leak();
    drop((stream, context));
    assert!(gpu.last_report().contains("leak: the context at its end: 100 bytes of device memory"));
    let context = CudaContext::new(0).unwrap();
    drop(context.new_stream().unwrap().alloc_zeros::<u8>(100).unwrap());
    drop(context);
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn pinned_memory_is_read_when_the_copy_happens() {
    let (_lock, _gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    // SAFETY: written below before it is read.
    let mut host = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
    host.as_mut_slice().unwrap().copy_from_slice(&[1, 2, 3, 4]);
    let d = stream.clone_htod(&host).unwrap();
    assert_eq!(stream.clone_dtoh(&d).unwrap(), [1, 2, 3, 4]);
}
