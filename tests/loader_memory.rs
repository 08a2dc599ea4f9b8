//! The steady state of the loader: it allocates nothing per batch, and its process does not grow over 100 epochs.
//!
//! This file is one test, because it counts every allocation of its process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use disentangle::data::augment::AugmentConfig;
use disentangle::data::loader::{Loader, LoaderConfig, Position};
use disentangle::data::source::{self, SourceOptions};
use disentangle::data::{Dataset, GatherOptions, packed};

/// The system's allocator, with counters.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Resident memory in KiB.
#[cfg(target_os = "linux")]
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const EPOCHS: u64 = 100;

#[test]
fn a_hundred_epochs_in_the_memory_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.pack");
    let source = source::open("shapes:512", &SourceOptions::default()).unwrap();
    packed::pack(&*source, &GatherOptions::default(), &path, &|_, _| ()).unwrap();
    let config = LoaderConfig {
        seed: 1,
        batch_size: 64,
        image_size: 32,
        augment: AugmentConfig { blur: 0.5, blur_kernel: 5, ..AugmentConfig::default() },
        start: Position { epoch: 0, step: 0 },
        epochs: EPOCHS,
    };
    let slots = config.plain_slots();
    let mut loader = Loader::start(Arc::new(Dataset::open(&path).unwrap()), config, slots).unwrap();
    let mut batches = 0;
    #[cfg(target_os = "linux")]
    let mut warm_kib = 0;
    while let Some(batch) = loader.next_batch().unwrap() {
        if batch.position == (Position { epoch: 10, step: 0 }) {
            // Every page of the file was read and every thread has seen the largest crop.
            COUNT.store(0, Relaxed);
            BYTES.store(0, Relaxed);
            batches = 0;
            #[cfg(target_os = "linux")]
            {
                warm_kib = resident_kib();
            }
        }
        batches += 1;
        loader.recycle(batch);
    }
    assert_eq!(batches, 90 * 8);
    let (count, bytes) = (COUNT.load(Relaxed), BYTES.load(Relaxed));
    // Rayon's queue of work from outside its threads grows by a block every 63 pieces of work, and frees it again. Augmentation
    // itself may meet a larger crop than before on one of its threads now and then.
    assert!(count <= batches / 8, "{count} allocations, {bytes} bytes in {batches} batches");
    #[cfg(target_os = "linux")]
    {
        let now = resident_kib();
        assert!(now <= warm_kib + warm_kib / 100, "{warm_kib} KiB after 10 epochs, {now} KiB after {EPOCHS}");
    }
}
