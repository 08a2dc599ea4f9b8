//! cudarc, unmodified, on the virtual GPU. One test at a time, since the context and its error are the process's.

#[path = "common/gpu.rs"]
mod common;
use common::*;
use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg, result, sys};
use std::ffi::c_void;
use std::sync::Arc;
use vgpu::VirtualGpu;

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
fn memory_that_nobody_wrote() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    // SAFETY: read before it is written, on purpose.
    let d = unsafe { stream.alloc::<f32>(8) }.unwrap();
    assert!(stream.clone_dtoh(&d).is_err());
    assert!(gpu.last_report().starts_with("uninitialised read: a copy to the host"));
}

#[test]
fn freed_memory_is_seen_by_copies_and_by_kernels() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    let mut y = stream.alloc_zeros::<f32>(8).unwrap();
    let x = stream.alloc_zeros::<f32>(8).unwrap();
    let address = x.leak();
    // SAFETY: an allocation that nothing else frees; used afterwards on purpose.
    unsafe { result::free_async(address, stream.cu_stream()) }.unwrap();
    stream.synchronize().unwrap();
    let mut host = [0f32; 8];
    // SAFETY: the virtual GPU refuses the copy.
    assert!(unsafe { result::memcpy_dtoh_sync(&mut host, address) }.is_err());
    assert!(gpu.last_report().starts_with("use after free: a copy to the host"));
    let (n, a) = (8i32, 1f32);
    let mut launch = stream.launch_builder(&f);
    launch.arg(&n).arg(&a).arg(&address).arg(&mut y);
    // SAFETY: wrong on purpose: the virtual GPU refuses the access.
    unsafe { launch.launch(LaunchConfig::for_num_elems(8)) }.unwrap();
    assert_eq!(refused(stream.synchronize()), sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    let report = gpu.last_report();
    assert!(
        report.starts_with("use after free: kernel `axpy` at kernels.cu:8, block (0,0,0), thread (0,0,0)"),
        "{report}"
    );
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
    let (_lock, gpu, context) = gpu();
    // SAFETY: one stream, in order.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().unwrap();
    // SAFETY: written below before it is read.
    let mut host = unsafe { context.alloc_pinned::<u32>(4) }.unwrap();
    let place = host.as_mut_ptr().unwrap();
    let write = |values: [u32; 4]| {
        // SAFETY: four numbers, and nothing else writes.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), place, 4) }
    };
    write([1, 2, 3, 4]);
    let d = stream.clone_htod(&host).unwrap();
    assert_eq!(stream.clone_dtoh(&d).unwrap(), [1, 2, 3, 4]);
    // The program overwrites what it has not waited for: the copy takes the new numbers. Pageable memory is read at the call.
    write([5, 6, 7, 8]);
    let d = stream.clone_htod(&host).unwrap();
    write([9, 9, 9, 9]);
    assert_eq!(stream.clone_dtoh(&d).unwrap(), [9, 9, 9, 9]);
    let mut pageable = vec![5u32, 6, 7, 8];
    let d = stream.clone_htod(&pageable).unwrap();
    pageable.fill(9);
    assert_eq!(stream.clone_dtoh(&d).unwrap(), [5, 6, 7, 8]);
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn arguments_of_the_wrong_size_are_refused_where_it_shows() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    let x = stream.alloc_zeros::<f32>(4).unwrap();
    let address = x.leak();
    let numbers = [4u64, 0x3f80_0000, address]; // n; a; x and y
    // Each of the four, and what is wrong with the first that is.
    let place = |i: usize, byte: usize| -> *mut c_void { (numbers.as_ptr() as usize + 8 * i + byte) as *mut c_void };
    let right = [place(0, 0), place(1, 0), place(2, 0), place(2, 0)];
    let cases = [
        ([right[0], right[1], right[2], place(0, 4)], "argument 3 has 8 bytes, and a value at"),
        (
            [place(0, 4), right[1], place(0, 0), right[3]],
            "argument 2 has fewer than its 8 bytes: argument 0 begins within",
        ),
        ([right[0], right[1], right[2], std::ptr::null_mut()], "argument 3 of 4 is missing"),
        ([right[0], right[1], right[2], place(0, 0)], "argument 3 is used as an address, and 0x4 is none"),
    ];
    // SAFETY: all pointers are to `numbers`, or refused.
    let launch = |arguments: &mut [*mut c_void]| unsafe {
        result::launch_kernel(f.cu_function(), (1, 1, 1), (32, 1, 1), 0, stream.cu_stream(), arguments)
    };
    for (mut arguments, want) in cases {
        assert_eq!(refused(launch(&mut arguments)), sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        let report = gpu.last_report();
        assert!(report.starts_with("bad launch: kernel `axpy`") && report.contains(want), "{report} instead of {want}");
    }
    launch(&mut right.clone()).unwrap();
    stream.synchronize().unwrap();
    // A buffer says its size.
    let key = |n: usize| n as *mut c_void;
    let mut size = 20usize;
    let mut extra = [key(1), numbers.as_ptr() as *mut c_void, key(2), (&raw mut size).cast(), std::ptr::null_mut()];
    // SAFETY: a list as the driver takes it.
    let status = unsafe {
        sys::cuLaunchKernel(
            f.cu_function(),
            1,
            1,
            1,
            32,
            1,
            1,
            0,
            stream.cu_stream(),
            std::ptr::null_mut(),
            extra.as_mut_ptr(),
        )
    };
    assert_eq!(status, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    assert!(gpu.last_report().contains("20 bytes of arguments are given, 24 are wanted"));
    // SAFETY: allocated above.
    unsafe { result::free_async(address, stream.cu_stream()) }.unwrap();
}

#[test]
fn everything_left_at_the_end_is_told() {
    let (_lock, gpu, context) = gpu();
    drop(context);
    gpu.last_report();
    let context = CudaContext::new(0).unwrap();
    let stream = result::stream::create(result::stream::StreamKind::NonBlocking).unwrap();
    result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).unwrap();
    // SAFETY: left on purpose.
    unsafe { result::malloc_host(64, 0) }.unwrap();
    // SAFETY: as above.
    unsafe { result::malloc_sync(32) }.unwrap();
    // SAFETY: a stream that was just made, and a graph that is left on purpose.
    unsafe {
        result::stream::begin_capture(stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
        result::stream::end_capture(stream).unwrap();
    }
    let text = std::ffi::CString::new(AXPY).unwrap();
    // SAFETY: a text with a terminating zero.
    unsafe { result::module::load_data(text.as_ptr().cast()) }.unwrap();
    drop(context);
    let report = gpu.last_report();
    for what in ["32 bytes of device memory", "a stream", "an event", "64 bytes of page-locked", "a graph", "a module"]
    {
        let line = |l: &str| l.starts_with("leak: the context at its end: ") && l.contains(what);
        assert_eq!(report.lines().filter(|l| line(l)).count(), 1, "{what} in {report}");
    }
    assert_eq!(report.lines().count(), 6, "{report}");
}

/// Sums in an order that shows, and blocks that run side by side; prints a digest.
#[test]
fn a_program_with_atomics_and_many_blocks() {
    const TEXT: &str = ".version 7.5\n.target sm_80\n.address_size 64\n.visible .entry sum(.param .u64 x, .param .u64 to)\n{\n\
        .reg .b32 %r<8>;\n.reg .f32 %f<4>;\n.reg .b64 %rd<8>;\nld.param.u64 %rd1, [x];\nld.param.u64 %rd2, [to];\n\
        mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmov.u32 %r3, %tid.x;\nmad.lo.u32 %r4, %r1, %r2, %r3;\n\
        mul.wide.u32 %rd3, %r4, 4;\nadd.s64 %rd4, %rd1, %rd3;\nld.global.f32 %f1, [%rd4];\n\
        red.global.add.f32 [%rd2], %f1;\nret;\n}\n";
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    let sum = context.load_module(cudarc::nvrtc::Ptx::from_src(TEXT)).unwrap().load_function("sum").unwrap();
    let x: Vec<f32> = (0..1 << 14).map(|i| 1.0 / (i + 1) as f32).collect();
    let (x, mut y) = (stream.clone_htod(&x).unwrap(), stream.clone_htod(&x).unwrap());
    let mut total = stream.alloc_zeros::<f32>(1).unwrap();
    gpu.take_counts();
    enqueue_axpy(&stream, &f, 0.3, &x, &mut y);
    let mut launch = stream.launch_builder(&sum);
    launch.arg(&y).arg(&mut total);
    // SAFETY: the kernel's parameters: 2^14 elements.
    unsafe { launch.launch(LaunchConfig { grid_dim: (256, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 }) }
        .unwrap();
    let (y, total) = (stream.clone_dtoh(&y).unwrap(), stream.clone_dtoh(&total).unwrap()[0]);
    let exact: f64 = y.iter().map(|&y| f64::from(y)).sum();
    // Each of 2^14 sums below 16 is off by half a unit at most.
    assert!((f64::from(total) - exact).abs() < 16384.0 * 16.0 / 16_777_216.0, "{total} instead of {exact}");
    let counts = gpu.take_counts();
    let bits = y.iter().fold(total.to_bits() as u64, |sum, y| sum.wrapping_mul(31).wrapping_add(y.to_bits() as u64));
    println!("digest {bits:x} {counts:?}");
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn results_are_the_same_for_any_number_of_threads() {
    let digest = |threads: &str| {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "a_program_with_atomics_and_many_blocks", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads);
        let output = child.output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().find_map(|l| l.find("digest ").map(|at| l[at..].to_string())).expect("a digest")
    };
    let one = digest("1");
    assert_eq!(one, digest("2"));
    assert_eq!(one, digest("7"));
}
