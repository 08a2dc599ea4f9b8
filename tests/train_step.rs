//! The steady state of a training step: no tensor memory is allocated, nothing accumulates, nothing large comes and goes.
//!
//! This file is one test, because it counts every allocation of its process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

use disentangle::backend::Backend;
use disentangle::backend::cpu::Cpu;
use disentangle::config::{Config, Overrides};
use disentangle::data::loader::{Batch, Position};
use disentangle::trainer::Trainer;

/// The system's allocator, with counters.
struct Counting;

/// Bytes that live, [`VECTOR`]-aligned ones apart: `gemm` keeps a buffer as large as the second-level cache for each thread,
/// from whenever that thread happens to compute its first product.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static OURS: Counter = Counter::new();
static GEMM: Counter = Counter::new();

/// Allocations since it was reset.
struct Counter {
    count: AtomicUsize,
    largest: AtomicUsize,
}

impl Counter {
    const fn new() -> Counter {
        Counter { count: AtomicUsize::new(0), largest: AtomicUsize::new(0) }
    }

    fn add(&self, bytes: usize) {
        self.count.fetch_add(1, Relaxed);
        self.largest.fetch_max(bytes, Relaxed);
    }

    fn reset(&self) {
        self.count.store(0, Relaxed);
        self.largest.store(0, Relaxed);
    }
}

/// Alignment from which on an allocation is for vector instructions.
const VECTOR: usize = 32;

fn live(layout: Layout, sign: isize) {
    if layout.align() < VECTOR {
        LIVE.fetch_add(sign * layout.size() as isize, Relaxed);
    }
}

/// The crate `gemm` allocates in every product: a buffer for packed operands, aligned for vectors, and lists of flags, of
/// single zeroed bytes. Nothing else here is like either. (Backtraces of all allocations of a step say so: with one thread
/// every single one comes from there.)
fn count(layout: Layout, zeroed: bool) {
    live(layout, 1);
    let gemm = layout.align() >= VECTOR || zeroed && layout.align() == 1;
    if gemm { &GEMM } else { &OURS }.add(layout.size());
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, false);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout, true);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        live(layout, -1);
        count(Layout::from_size_align(size, layout.align()).unwrap_or(layout), false);
        // SAFETY: as above.
        unsafe { System.realloc(data, layout, size) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        live(layout, -1);
        // SAFETY: as above.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Steps before allocations are counted: lists of the pool, the tape and rayon find their lengths.
const WARM_UP: usize = 3;
/// Steps in which they are.
const STEPS: usize = 3;
/// What rayon may take in those steps to hand work from thread to thread, beyond what it gives back.
const RAYON_BYTES: usize = 1 << 16;

/// A network of 16 channels on 16 pictures of 48 px: its activations are of up to 1.2 MB.
fn config(set: &[&str]) -> Config {
    let fixed = ["data=shapes", "base_width=16", "image_size=48", "batch_size=16"];
    let set = fixed.iter().chain(set).map(|text| text.to_string()).collect();
    Overrides { set, ..Overrides::default() }.resolve().unwrap()
}

fn batch(config: &Config) -> Batch {
    let bytes = 2 * config.batch_size * config.image_size * config.image_size * 3;
    let views = (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    Batch { position: Position { epoch: 0, step: 0 }, samples: (0..config.batch_size).collect(), views }
}

/// Takes steps on `threads` threads and checks what they allocate.
fn check(config: &Config, threads: usize) {
    let what = format!("{}, {} stem, {threads} threads", config.backbone, config.stem);
    let cpu = Cpu::<f32>::new();
    let mut trainer = Trainer::new(cpu.clone(), config.clone(), 1_000_000).unwrap();
    let batch = batch(config);
    let mut lane = Some(trainer.lane().unwrap());
    let mut steps = |count: usize| {
        for _ in 0..count {
            let (record, free) = trainer.step(lane.take().unwrap(), &batch).unwrap();
            assert!(record.loss.is_finite());
            lane = Some(free);
        }
    };
    steps(1);
    let after_first = cpu.memory();
    steps(WARM_UP - 1);
    let live = LIVE.load(Relaxed);
    [&OURS, &GEMM].iter().for_each(|counter| counter.reset());
    steps(STEPS);
    let grown = LIVE.load(Relaxed) - live;
    let [ours, largest, gemm, largest_gemm] =
        [&OURS.count, &OURS.largest, &GEMM.count, &GEMM.largest].map(|counter| counter.load(Relaxed));
    println!(
        "{what}: {} tensor buffers, {:.1} MB; a step: {} allocations of at most {largest} B, in gemm {} of at most \
         {largest_gemm} B; {grown} B more live",
        after_first.allocations,
        after_first.peak_bytes as f64 / 1e6,
        ours / STEPS,
        gemm / STEPS
    );
    assert_eq!(
        cpu.memory().allocations,
        after_first.allocations,
        "{what}: tensor memory is allocated after the first step"
    );
    if threads == 1 {
        assert_eq!((ours, grown), (0, 0), "{what}");
    } else {
        assert!(largest <= RAYON_BYTES && grown <= RAYON_BYTES as isize, "{what}: {largest} B, {grown} B more");
    }
}

#[test]
fn a_step_allocates_nothing_that_lasts() {
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            check(&config(&["backbone=resnet18"]), threads);
            check(&config(&["backbone=resnet18", "stem=cifar", "image_size=32"]), threads);
            check(&config(&["backbone=resnet50"]), threads);
        });
    }
}
