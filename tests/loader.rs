//! The loader: what it gives depends on (seed, epoch, step) alone, its memory goes round, and it always ends.

use std::collections::HashSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use disentangle::Result;
use disentangle::data::augment::AugmentConfig;
use disentangle::data::loader::{Batch, Loader, LoaderConfig, Position, steps_per_epoch};
use disentangle::data::source::{self, SourceOptions};
use disentangle::data::{Dataset, GatherOptions, packed};

/// Images of the procedural set; not a multiple of the batch.
const SAMPLES: usize = 53;

/// A loader that waits for itself would wait for ever; everything here takes well under a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn shapes() -> Arc<Dataset> {
    let source = source::open(&format!("shapes:{SAMPLES}"), &SourceOptions::default()).unwrap();
    Arc::new(Dataset::load(source, &GatherOptions::default(), &|_, _| ()).unwrap())
}

/// A loader with slots in plain memory.
fn start(dataset: &Arc<Dataset>, config: LoaderConfig) -> Result<Loader> {
    let slots = config.plain_slots();
    Loader::start(Arc::clone(dataset), config, slots)
}

/// Three epochs of 6 batches of 8, with everything that augmentation can do.
fn config() -> LoaderConfig {
    LoaderConfig {
        seed: 7,
        batch_size: 8,
        image_size: 16,
        augment: AugmentConfig { blur: 0.5, blur_kernel: 5, vflip: 0.5, ..AugmentConfig::default() },
        start: Position { epoch: 0, step: 0 },
        epochs: 3,
    }
}

/// Everything a loader gives, copied.
fn batches(dataset: &Arc<Dataset>, config: &LoaderConfig) -> Vec<Batch> {
    let mut loader = start(dataset, config.clone()).unwrap();
    let mut all = Vec::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        all.push(batch.clone());
        loader.recycle(batch);
    }
    all
}

/// Runs `f` on a thread of its own and gives its result, or panics when that takes longer than [`PATIENCE`].
fn in_time<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || sender.send(f()));
    match receiver.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("the loader hangs"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// CRC-32 of all batches: order, samples and pixels.
fn digest(batches: &[Batch]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for Batch { position, samples, views } in batches {
        crc.update(format!("{position:?} {samples:?}").as_bytes());
        crc.update(views);
    }
    crc.finalize()
}

/// Marks the line of [`print_digest`] that is read.
const DIGEST: &str = "digest of all batches:";

/// Not a test but the other process of [`the_same_batches_on_any_number_of_threads`].
#[test]
#[ignore = "run by another test, in a process of its own"]
fn print_digest() {
    println!("{DIGEST} {:08x} on {} threads", digest(&batches(&shapes(), &config())), rayon::current_num_threads());
}

/// The loader's thread works on rayon's global pool, whose size is fixed once a process: hence processes.
#[test]
fn the_same_batches_on_any_number_of_threads() {
    let here = digest(&batches(&shapes(), &config()));
    for threads in [1, 2, 3, 8, 64] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "print_digest", "--ignored", "--nocapture"])
            .env("RAYON_NUM_THREADS", threads.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| Some(line.split_once(DIGEST)?.1.trim()));
        assert_eq!(line, Some(format!("{here:08x} on {threads} threads").as_str()), "{text}");
    }
}

#[test]
fn a_start_in_the_middle_gives_the_rest_of_the_whole() {
    let dataset = shapes();
    let whole = batches(&dataset, &config());
    let steps = steps_per_epoch(SAMPLES, 8);
    assert_eq!((steps, whole.len()), (6, 18));
    for (epoch, step) in [(0, 1), (1, 0), (1, 4), (2, 5), (3, 0)] {
        let rest = batches(&dataset, &LoaderConfig { start: Position { epoch, step }, ..config() });
        let expected = &whole[(epoch * steps + step) as usize..];
        assert_eq!(rest.len(), expected.len());
        for (rest, expected) in rest.iter().zip(expected) {
            assert_eq!((rest.position, &rest.samples), (expected.position, &expected.samples));
            assert!(rest.views == expected.views, "other views at {:?}", rest.position);
        }
    }
}

#[test]
fn every_sample_at_most_once_an_epoch_in_complete_batches() {
    let all = batches(&shapes(), &config());
    let mut orders = HashSet::new();
    for (epoch, batches) in all.chunks(6).enumerate() {
        for (step, batch) in batches.iter().enumerate() {
            assert_eq!(batch.position, Position { epoch: epoch as u64, step: step as u64 });
            assert_eq!((batch.samples.len(), batch.views.len()), (8, 2 * 8 * 16 * 16 * 3));
        }
        let order: Vec<usize> = batches.iter().flat_map(|batch| batch.samples.clone()).collect();
        let distinct: HashSet<&usize> = order.iter().collect();
        // 53 = 6 * 8 + 5: five samples are left out, other ones in each epoch.
        assert_eq!(distinct.len(), 48);
        assert!(order.iter().all(|&sample| sample < SAMPLES));
        orders.insert(order);
    }
    assert_eq!(orders.len(), 3, "each epoch has an order of its own");
}

#[test]
fn seeds_epochs_and_views_differ() {
    let dataset = shapes();
    let (a, b) = (batches(&dataset, &config()), batches(&dataset, &LoaderConfig { seed: 8, ..config() }));
    assert_ne!(a[0].samples, b[0].samples);
    // The same sample in another epoch, and in the other view, looks different.
    let view_bytes = 16 * 16 * 3;
    let views_of_sample = |sample: usize| -> HashSet<Vec<u8>> {
        let mut found = HashSet::new();
        for batch in &a {
            if let Some(i) = batch.samples.iter().position(|&s| s == sample) {
                found.extend([i, i + 8].map(|i| batch.views[i * view_bytes..][..view_bytes].to_vec()));
            }
        }
        found
    };
    let counted = |sample| 2 * a.iter().filter(|batch| batch.samples.contains(&sample)).count();
    (0..SAMPLES).for_each(|sample| assert_eq!(views_of_sample(sample).len(), counted(sample), "sample {sample}"));
}

#[test]
fn the_same_slots_go_round() {
    let mut loader = start(&shapes(), LoaderConfig { epochs: 10, ..config() }).unwrap();
    let mut seen = HashSet::new();
    let mut count = 0;
    while let Some(batch) = loader.next_batch().unwrap() {
        seen.insert((batch.views.as_ptr(), batch.views.capacity(), batch.samples.as_ptr(), batch.samples.capacity()));
        loader.recycle(batch);
        count += 1;
    }
    // Slots are allocated before the first batch and never again: 60 batches in the memory of 3.
    assert_eq!(count, 60);
    assert!(seen.len() <= 3, "{} different slots", seen.len());
}

/// What a loader gives in the end, and how often, when `spoil` has its way with the packed file it reads, after three batches.
fn end_of(spoil: impl FnOnce(&Path)) -> Vec<Result<Option<usize>>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.pack");
    let source = source::open("shapes:200", &SourceOptions::default()).unwrap();
    packed::pack(&*source, &GatherOptions::default(), &path, &|_, _| ()).unwrap();
    let dataset = Arc::new(Dataset::open(&path).unwrap());
    let mut loader = start(&dataset, LoaderConfig { batch_size: 5, ..config() }).unwrap();
    for _ in 0..3 {
        let batch = loader.next_batch().unwrap().unwrap();
        loader.recycle(batch);
    }
    spoil(&path);
    in_time(move || {
        let mut ends = Vec::new();
        for _ in 0..200 {
            match loader.next_batch() {
                Ok(Some(batch)) => loader.recycle(batch),
                end => ends.push(end.map(|batch| batch.map(|batch| batch.samples.len()))),
            }
        }
        ends
    })
}

/// Writes `byte` over a file at `offset`, in place.
fn overwrite(path: &Path, offset: u64, byte: u8) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn a_packed_file_that_changes_under_the_loader_ends_the_run() {
    let cut = |path: &Path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(10_000).unwrap();
    let changed = |path: &Path| overwrite(path, 500_000, !std::fs::read(path).unwrap()[500_000]);
    for (ends, reason) in [(end_of(cut), "cut short"), (end_of(changed), "damaged between")] {
        let error = ends[0].as_ref().unwrap_err().to_string();
        assert!(error.contains("images.pack") && error.contains(reason), "{error}");
        // One error is told, then it is over.
        assert!(ends[1..].iter().all(|end| matches!(end, Ok(None))), "{ends:?}");
    }
}

#[test]
fn a_packed_file_that_is_only_touched_or_removed_does_not() {
    let touched = end_of(|path| overwrite(path, 500_000, std::fs::read(path).unwrap()[500_000]));
    let removed = end_of(|path| std::fs::remove_file(path).unwrap());
    for ends in [touched, removed] {
        assert!(!ends.is_empty() && ends.iter().all(|end| matches!(end, Ok(None))), "{ends:?}");
    }
}

#[test]
fn a_packed_file_gives_the_batches_of_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.pack");
    let source = source::open(&format!("shapes:{SAMPLES}"), &SourceOptions::default()).unwrap();
    packed::pack(&*source, &GatherOptions::default(), &path, &|_, _| ()).unwrap();
    let packed = Arc::new(Dataset::open(&path).unwrap());
    assert_eq!(digest(&batches(&packed, &config())), digest(&batches(&shapes(), &config())));
}

#[test]
fn batches_go_to_the_callers_memory() {
    /// Stands for memory that a device can copy from.
    struct Pinned(Box<[u8]>);
    impl AsRef<[u8]> for Pinned {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl AsMut<[u8]> for Pinned {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }
    let slots = |count: usize, bytes: usize| (0..count).map(|_| Pinned(vec![0; bytes].into())).collect::<Vec<_>>();
    let expected = batches(&shapes(), &config());
    let bytes = config().slot_bytes();
    for count in [1, 2, 5] {
        let slots = slots(count, bytes);
        let places: HashSet<_> = slots.iter().map(|slot| slot.0.as_ptr()).collect();
        let mut loader = Loader::start(shapes(), config(), slots).unwrap();
        for expected in &expected {
            let batch = loader.next_batch().unwrap().unwrap();
            assert!(places.contains(&batch.views.0.as_ptr()));
            assert!(batch.position == expected.position && *batch.views.0 == *expected.views);
            loader.recycle(batch);
        }
        assert!(loader.next_batch().unwrap().is_none());
    }
    for wrong in [slots(0, bytes), slots(2, bytes - 1)] {
        assert!(Loader::start(shapes(), config(), wrong).err().unwrap().to_string().contains("slots of"));
    }
}

#[test]
fn a_loader_can_be_dropped_at_any_time() {
    let dataset = shapes();
    in_time(move || {
        for taken in 0..8 {
            let mut loader = start(&dataset, LoaderConfig { epochs: 1000, ..config() }).unwrap();
            let mut kept = Vec::new();
            for i in 0..taken {
                let batch = loader.next_batch().unwrap().unwrap();
                // Up to two slots in hands, then it must get some back to go on.
                if i < 2 { kept.push(batch) } else { loader.recycle(batch) }
            }
            drop(loader);
        }
    });
}

#[test]
fn a_batch_larger_than_the_data_set_is_bad_usage() {
    let too_large = start(&shapes(), LoaderConfig { batch_size: SAMPLES + 1, ..config() });
    let error = too_large.err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("53 images do not fill a batch of 54"), "{error}");
    let exact = LoaderConfig { batch_size: SAMPLES, ..config() };
    assert_eq!(batches(&shapes(), &exact).len(), 3);
}
