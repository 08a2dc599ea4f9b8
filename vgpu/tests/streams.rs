//! Streams, events, captures, pools and page-locked memory through cudarc, unmodified, on the virtual GPU.

#[path = "common/gpu.rs"]
mod common;
use common::*;
use cudarc::driver::sys::{CUmemPool_attribute as Pool, CUresult as Status, CUstreamCaptureMode as Mode};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream, LaunchConfig, PushKernelArg, result, sys};
use std::ffi::c_void;
use std::sync::Arc;
use vgpu::Calls;

const FLAGS: sys::CUgraphInstantiate_flags =
    sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
const GLOBAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_GLOBAL;
const THREAD_LOCAL: Mode = Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
const RELAXED: Mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;

/// Two streams whose order is what events say.
fn two_streams(context: &Arc<CudaContext>) -> [Arc<CudaStream>; 2] {
    // SAFETY: the events are what these tests are about.
    unsafe { context.disable_event_tracking() };
    [context.new_stream().unwrap(), context.new_stream().unwrap()]
}

#[derive(Clone, Copy, PartialEq)]
enum Join {
    Event,
    Missing,
}

/// Captures `y1 += 2 x` on one stream, `y2 += 3 x` on a second that forks from it, and `y1 += y2` once they are joined;
/// replays three times and returns `y1` after each.
fn fork_and_join(context: &Arc<CudaContext>, join: Join) -> Result<Vec<f32>, Status> {
    let [one, two] = two_streams(context);
    let f = axpy(context);
    let x = one.clone_htod(&[1f32; 40]).unwrap();
    let (mut y1, mut y2) = (one.alloc_zeros::<f32>(40).unwrap(), one.alloc_zeros::<f32>(40).unwrap());
    one.synchronize().unwrap();
    one.begin_capture(THREAD_LOCAL).unwrap();
    two.wait(&one.record_event(None).unwrap()).unwrap();
    enqueue_axpy(&one, &f, 2.0, &x, &mut y1);
    enqueue_axpy(&two, &f, 3.0, &x, &mut y2);
    if join == Join::Event {
        one.wait(&two.record_event(None).unwrap()).unwrap();
    }
    enqueue_axpy(&one, &f, 1.0, &y2, &mut y1);
    let graph = one.end_capture(FLAGS).map_err(|e| e.0)?.expect("a graph");
    let replay = || {
        graph.launch().unwrap();
        one.clone_dtoh(&y1).unwrap()[39]
    };
    Ok((0..3).map(|_| replay()).collect())
}

#[test]
fn a_capture_forks_and_joins() {
    let (_lock, gpu, context) = gpu();
    for seed in 0..20 {
        gpu.set_seed(seed);
        assert_eq!(fork_and_join(&context, Join::Event), Ok(vec![5.0, 13.0, 24.0]), "seed {seed}");
    }
    assert_eq!(fork_and_join(&context, Join::Missing), Err(Status::CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn branches_of_a_graph_run_in_any_order() {
    let (_lock, gpu, context) = gpu();
    let f = axpy(&context);
    let [one, two] = two_streams(&context);
    let run = |seed| {
        gpu.set_seed(seed);
        let (mut x, mut y) = (one.clone_htod(&[1f32]).unwrap(), one.clone_htod(&[1f32]).unwrap());
        one.synchronize().unwrap();
        one.begin_capture(GLOBAL).unwrap();
        two.wait(&one.record_event(None).unwrap()).unwrap();
        // y += x and x += y at the same time: which came first shows.
        enqueue_axpy(&one, &f, 1.0, &x, &mut y);
        enqueue_axpy(&two, &f, 1.0, &y, &mut x);
        one.wait(&two.record_event(None).unwrap()).unwrap();
        one.end_capture(FLAGS).unwrap().expect("a graph").launch().unwrap();
        one.clone_dtoh(&y).unwrap()[0]
    };
    let seen: Vec<f32> = (0..20).map(run).collect();
    assert!(seen.contains(&2.0) && seen.contains(&3.0), "{seen:?}");
}

fn doubling(context: &Arc<CudaContext>) -> (CudaGraph, Arc<CudaStream>, cudarc::driver::CudaSlice<f32>) {
    let [one, _] = two_streams(context);
    let f = axpy(context);
    let x = one.clone_htod(&[1f32; 3]).unwrap();
    let mut y = one.alloc_zeros::<f32>(3).unwrap();
    one.synchronize().unwrap();
    one.begin_capture(GLOBAL).unwrap();
    enqueue_axpy(&one, &f, 1.0, &x, &mut y);
    one.memset_zeros(&mut y.slice_mut(0..1)).unwrap();
    let graph = one.end_capture(FLAGS).unwrap().expect("a graph");
    x.leak();
    (graph, one, y)
}

#[test]
fn a_graph_is_replayed_many_times_and_the_calls_are_counted() {
    let (_lock, gpu, context) = gpu();
    let (graph, stream, y) = doubling(&context);
    graph.upload().unwrap();
    stream.synchronize().unwrap();
    gpu.take_calls();
    for _ in 0..500 {
        graph.launch().unwrap();
    }
    assert_eq!(gpu.take_calls(), Calls { graph_launches: 500, ..Calls::default() });
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [0.0, 500.0, 500.0]);
    let calls = gpu.take_calls();
    assert_eq!(calls, Calls { copies: 1, synchronisations: 1, ..Calls::default() }, "a copy to pageable memory waits");
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn calls_are_counted_by_kind() {
    let (_lock, gpu, context) = gpu();
    let [one, two] = two_streams(&context);
    let f = axpy(&context);
    gpu.take_calls();
    let x = one.clone_htod(&[1f32; 8]).unwrap(); // an allocation and a copy
    let mut y = one.alloc_zeros::<f32>(8).unwrap(); // an allocation and a fill
    for _ in 0..3 {
        enqueue_axpy(&one, &f, 1.0, &x, &mut y);
    }
    let event = one.record_event(None).unwrap();
    two.wait(&event).unwrap();
    event.synchronize().unwrap();
    one.synchronize().unwrap();
    context.synchronize().unwrap();
    drop((x, y));
    let want =
        Calls { allocations: 2, frees: 2, launches: 3, copies: 1, fills: 1, synchronisations: 3, ..Calls::default() };
    assert_eq!(gpu.take_calls(), want);
    assert_eq!(gpu.take_calls(), Calls::default());
}

/// A call that a capture does not allow.
type Forbidden = (&'static str, fn(&Arc<CudaContext>, &Arc<CudaStream>) -> Result<(), Status>);

#[test]
fn what_could_run_into_a_capture_is_refused_and_spoils_it() {
    let (_lock, _gpu, context) = gpu();
    let [one, two] = two_streams(&context);
    let calls: [Forbidden; 6] = [
        ("allocation", |_, _| {
            // SAFETY: refused, or taken back at once.
            unsafe { result::malloc_sync(64).and_then(|p| result::free_sync(p)) }.map_err(|e| e.0)
        }),
        ("host allocation", |_, _| {
            // SAFETY: as above.
            unsafe { result::malloc_host(64, 0).and_then(|p| result::free_host(p)) }.map_err(|e| e.0)
        }),
        ("stream", |_, s| s.synchronize().map_err(|e| e.0)),
        ("context", |c, _| c.synchronize().map_err(|e| e.0)),
        ("event", |_, s| s.record_event(None).unwrap().synchronize().map_err(|e| e.0)),
        ("stream-ordered allocation", |_, s| s.alloc_zeros::<u8>(8).map(drop).map_err(|e| e.0)),
    ];
    for (name, call) in calls {
        one.begin_capture(GLOBAL).unwrap();
        let status = call(&context, &one).expect_err(name);
        let allowed = [Status::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, Status::CUDA_ERROR_CAPTURED_EVENT];
        assert!(allowed.contains(&status), "{name}: {status:?}");
        let status = refused(one.end_capture(FLAGS).map(drop));
        assert_eq!(status, Status::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "{name}");
        one.synchronize().unwrap();
    }
    // Another stream may be waited for, memory may be taken where the capture is relaxed or another thread's.
    one.begin_capture(GLOBAL).unwrap();
    two.synchronize().unwrap();
    assert!(one.end_capture(FLAGS).unwrap().is_some());
    one.begin_capture(RELAXED).unwrap();
    calls[0].1(&context, &one).unwrap();
    calls[1].1(&context, &one).unwrap();
    assert!(one.end_capture(FLAGS).unwrap().is_some());
    one.begin_capture(THREAD_LOCAL).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            context.bind_to_thread().unwrap();
            // SAFETY: left for the end of the context, which nobody looks at here.
            unsafe { result::malloc_host(64, 0) }.unwrap();
        });
    });
    assert!(one.end_capture(FLAGS).unwrap().is_some());
    // An event from before the capture is no part of it.
    let event = two.record_event(None).unwrap();
    one.begin_capture(GLOBAL).unwrap();
    assert_eq!(refused(one.wait(&event)), Status::CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    assert!(one.end_capture(FLAGS).is_err());
}

#[test]
fn events_measure_time() {
    let (_lock, _gpu, context) = gpu();
    let (graph, stream, _y) = doubling(&context);
    let timing = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let start = stream.record_event(timing).unwrap();
    for _ in 0..50 {
        graph.launch().unwrap();
    }
    let end = stream.record_event(timing).unwrap();
    let unfinished = [start.cu_event(), end.cu_event()];
    // SAFETY: two events that live.
    let status = refused(unsafe { result::event::elapsed(unfinished[0], unfinished[1]) });
    assert_eq!(status, Status::CUDA_ERROR_NOT_READY);
    let milliseconds = start.elapsed_ms(&end).unwrap();
    assert!(milliseconds > 0.0 && milliseconds < 60_000.0, "{milliseconds}");
    assert!((end.elapsed_ms(&start).unwrap() + milliseconds).abs() < 1e-3);
    let untimed = stream.record_event(None).unwrap();
    assert_eq!(refused(start.elapsed_ms(&untimed)), Status::CUDA_ERROR_INVALID_HANDLE);
    let unrecorded = context.new_event(timing).unwrap();
    assert_eq!(refused(start.elapsed_ms(&unrecorded)), Status::CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn a_wait_orders_streams_in_both_directions() {
    let (_lock, gpu, context) = gpu();
    let [one, two] = two_streams(&context);
    let f = axpy(&context);
    for seed in 0..30 {
        gpu.set_seed(seed);
        let x = one.clone_htod(&[1f32; 16]).unwrap();
        let mut y = one.alloc_zeros::<f32>(16).unwrap();
        // y = 1, 3, 7, 15, ...: on the streams in turn, y += y + 1.
        for _ in 0..4 {
            for (here, there) in [(&one, &two), (&two, &one)] {
                here.wait(&there.record_event(None).unwrap()).unwrap();
                let copy = here.clone_dtod(&y).unwrap();
                enqueue_axpy(here, &f, 1.0, &copy, &mut y);
                enqueue_axpy(here, &f, 1.0, &x, &mut y);
            }
        }
        one.wait(&two.record_event(None).unwrap()).unwrap();
        assert_eq!(one.clone_dtoh(&y).unwrap(), [255.0; 16], "seed {seed}");
    }
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn copies_on_the_device_carry_what_was_written_and_what_was_not() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let bytes: Vec<u8> = (0..100).collect();
    let from = stream.clone_htod(&bytes).unwrap();
    // SAFETY: only what is copied there is read.
    let mut to = unsafe { stream.alloc::<u8>(100) }.unwrap();
    for (n, source, target) in [(9, 3, 6), (17, 20, 41), (16, 40, 64), (1, 99, 99)] {
        stream.memcpy_dtod(&from.slice(source..source + n), &mut to.slice_mut(target..target + n)).unwrap();
        assert_eq!(stream.clone_dtoh(&to.slice(target..target + n)).unwrap(), bytes[source..source + n]);
        assert_eq!(gpu.last_report(), "");
    }
    assert!(stream.clone_dtoh(&to.slice(5..7)).is_err(), "byte 5 was not written");
    assert!(gpu.last_report().contains("byte 5 of an allocation of 100 bytes was never written"));
    let _ = context.check_err(); // what cudarc met when it recorded its events after that
    let whole = stream.clone_dtod(&to).unwrap();
    assert_eq!(stream.clone_dtoh(&whole.slice(6..15)).unwrap(), bytes[3..12]);
    assert!(stream.clone_dtoh(&whole).is_err());
    assert!(gpu.last_report().contains("byte 0 of"), "what nobody wrote stays unwritten in a copy");
    let _ = context.check_err(); // as above
    let (at, _) = cudarc::driver::DevicePtr::device_ptr(&from, &stream);
    // SAFETY: within the allocation; that they overlap is what is seen.
    unsafe { result::memcpy_dtod_async(at, at + 8, 9, stream.cu_stream()) }.unwrap();
    assert_eq!(refused(stream.synchronize()), Status::CUDA_ERROR_LAUNCH_FAILED);
    assert!(gpu.last_report().starts_with("race: a copy at the driver: 9 bytes from"));
}

#[test]
fn fills_of_two_and_four_bytes() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    // SAFETY: written below.
    let d = unsafe { stream.alloc::<u16>(64) }.unwrap();
    let (at, s) = (d.leak(), stream.cu_stream());
    let mut host = [0u16; 64];
    // SAFETY: all of these are within the allocation, or refused.
    unsafe {
        sys::cuMemsetD16Async(at, 0xabcd, 32, s).result().unwrap();
        sys::cuMemsetD32Async(at + 64, 0x1234_5678, 16, s).result().unwrap();
        assert_eq!(refused(sys::cuMemsetD16Async(at + 1, 0, 1, s).result()), Status::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(refused(sys::cuMemsetD32Async(at + 2, 0, 1, s).result()), Status::CUDA_ERROR_INVALID_VALUE);
        result::memcpy_dtoh_async(&mut host, at, s).unwrap();
    }
    stream.synchronize().unwrap();
    assert_eq!(host[..32], [0xabcd; 32]);
    assert!(host[32..].chunks(2).all(|w| w == [0x5678, 0x1234]));
    // SAFETY: past the end on purpose, which the virtual GPU refuses.
    unsafe { sys::cuMemsetD16Async(at + 126, 7, 2, s).result().unwrap() };
    assert_eq!(refused(stream.synchronize()), Status::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(gpu.last_report().starts_with("out of bounds: a fill"));
    // SAFETY: allocated above.
    unsafe { result::free_async(at, s) }.unwrap();
}

#[test]
fn the_memory_pool_and_the_device_say_what_is_used() {
    let (_lock, _gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    stream.synchronize().unwrap();
    // SAFETY: the only device.
    let pool = unsafe { result::device::get_default_mem_pool(context.cu_device()) }.unwrap();
    let get = |attribute| {
        let mut value = 0u64;
        // SAFETY: an attribute of 64 bits.
        unsafe { result::mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) }.unwrap();
        value
    };
    let set = |attribute, mut value: u64| {
        // SAFETY: as above.
        unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()) }
    };
    set(Pool::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX).unwrap();
    assert_eq!(get(Pool::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD), u64::MAX);
    let (used, free) = (get(Pool::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), context.mem_get_info().unwrap().0);
    set(Pool::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0).unwrap();
    assert_eq!(get(Pool::CU_MEMPOOL_ATTR_USED_MEM_HIGH), used);
    assert!(set(Pool::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 5).is_err());
    let d = stream.alloc_zeros::<u8>(5000).unwrap();
    assert_eq!(get(Pool::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), used + 5000);
    assert_eq!(context.mem_get_info().unwrap().0, free - 5000);
    drop(d);
    stream.synchronize().unwrap();
    assert_eq!(get(Pool::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), used);
    assert_eq!(get(Pool::CU_MEMPOOL_ATTR_USED_MEM_HIGH), used + 5000);
    assert_eq!(context.mem_get_info().unwrap(), (free, context.total_mem().unwrap()));
    // SAFETY: the pool from above; memory that is given back below.
    unsafe {
        result::mem_pool::trim_to(pool, 0).unwrap();
        let at = result::mem_pool::alloc_async(pool, 64, stream.cu_stream()).unwrap();
        assert_eq!(get(Pool::CU_MEMPOOL_ATTR_USED_MEM_CURRENT), used + 64);
        result::free_async(at, stream.cu_stream()).unwrap();
    }
    assert!(stream.alloc_zeros::<u8>(9 << 30).is_err(), "more than there is");
}

#[test]
fn page_locked_memory_is_written_when_the_copy_happens() {
    let (_lock, gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let d = stream.clone_htod(&[7u32; 4]).unwrap();
    // SAFETY: memory of 16 bytes, freed once below and wrongly a second time, which is refused.
    unsafe {
        let host: *mut c_void = result::malloc_host(16, 0).unwrap();
        let numbers = std::slice::from_raw_parts_mut(host.cast::<u32>(), 4);
        let (at, _) = cudarc::driver::DevicePtr::device_ptr(&d, &stream);
        result::memcpy_dtoh_async(numbers, at, stream.cu_stream()).unwrap();
        assert_eq!(std::ptr::read_volatile(numbers.as_ptr()), 0, "nobody waited");
        stream.synchronize().unwrap();
        assert_eq!(std::ptr::read_volatile(numbers.as_ptr().add(3)), 7);
        result::free_host(host).unwrap();
        assert!(result::free_host(host).is_err());
    }
    assert_eq!(gpu.last_report(), "");
}

#[test]
fn occupancy_is_told_and_what_is_not_covered_is_refused() {
    let (_lock, _gpu, context) = gpu();
    let stream = context.new_stream().unwrap();
    let f = axpy(&context);
    assert_eq!(f.occupancy_max_active_blocks_per_multiprocessor(256, 0, None).unwrap(), 8);
    assert_eq!(f.occupancy_max_active_blocks_per_multiprocessor(64, 100 << 10, None).unwrap(), 1);
    assert!(f.occupancy_max_active_blocks_per_multiprocessor(2048, 0, None).is_err());
    extern "C" fn no_shared(_threads: i32) -> usize {
        0
    }
    assert_eq!(f.occupancy_max_potential_block_size(no_shared, 0, 0, None).unwrap(), (8, 1024));
    let (x, mut y) = (stream.alloc_zeros::<f32>(4).unwrap(), stream.alloc_zeros::<f32>(4).unwrap());
    let (n, a) = (4i32, 1f32);
    let mut launch = stream.launch_builder(&f);
    launch.arg(&n).arg(&a).arg(&x).arg(&mut y);
    // SAFETY: the kernel's parameters.
    let status = refused(unsafe { launch.launch_cooperative(LaunchConfig::for_num_elems(4)) });
    assert_eq!(status, Status::CUDA_ERROR_NOT_SUPPORTED);
}
