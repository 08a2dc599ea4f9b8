//! The loader: what it gives depends on (seed, epoch, step) alone, its memory goes round, and it always ends.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use disentangle::data::augment::AugmentConfig;
use disentangle::data::loader::{Batch, Loader, LoaderConfig, Position, steps_per_epoch};
use disentangle::data::source::{self, SourceOptions};
use disentangle::data::{Dataset, DatasetOptions};
use disentangle::{Error, Result};
use image::RgbImage;

/// Images of the procedural set; not a multiple of the batch.
const SAMPLES: usize = 53;

/// A loader that waits for itself would wait for ever; everything here takes well under a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn shapes() -> Arc<Dataset> {
    load(&format!("shapes:{SAMPLES}"), usize::MAX)
}

fn load(location: &str, cache_bytes: usize) -> Arc<Dataset> {
    let source = source::open(location, &SourceOptions::default()).unwrap();
    Arc::new(Dataset::load(source, &DatasetOptions { cache_bytes }, &|_, _| ()).unwrap())
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
    let mut loader = Loader::start(Arc::clone(dataset), config.clone()).unwrap();
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
    for threads in [1, 2, 3, 8] {
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
    let mut loader = Loader::start(shapes(), LoaderConfig { epochs: 10, ..config() }).unwrap();
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

/// `count` small pictures in `folder`.
fn write_pictures(folder: &Path, count: u8) {
    for i in 0..count {
        let picture = RgbImage::from_fn(9, 7, |x, y| image::Rgb([i, 20 * x as u8, 30 * y as u8]));
        picture.save(folder.join(format!("{i:02}.png"))).unwrap();
    }
}

/// What a loader gives in the end, and how often, after `spoil` has had its way with a folder of 20 uncached pictures.
fn end_of(spoil: impl FnOnce(&Path)) -> Vec<Result<Option<usize>>> {
    let folder = tempfile::tempdir().unwrap();
    write_pictures(folder.path(), 20);
    let dataset = load(folder.path().to_str().unwrap(), 0);
    spoil(folder.path());
    in_time(move || {
        let mut loader = Loader::start(dataset, LoaderConfig { batch_size: 5, ..config() }).unwrap();
        let mut ends = Vec::new();
        for _ in 0..40 {
            match loader.next_batch() {
                Ok(Some(batch)) => loader.recycle(batch),
                end => ends.push(end.map(|batch| batch.map(|batch| batch.samples.len()))),
            }
        }
        ends
    })
}

#[test]
fn an_image_that_can_no_longer_be_read_ends_the_run() {
    let missing = end_of(|folder| std::fs::remove_file(folder.join("07.png")).unwrap());
    assert!(matches!(&missing[0], Err(Error::Io { path, .. }) if path.ends_with("07.png")), "{:?}", missing[0]);
    let damaged = end_of(|folder| std::fs::write(folder.join("07.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap());
    assert!(matches!(&damaged[0], Err(Error::Format { path, .. }) if path.ends_with("07.png")), "{:?}", damaged[0]);
    let resized = end_of(|folder| RgbImage::new(7, 9).save(folder.join("07.png")).unwrap());
    assert!(resized[0].as_ref().unwrap_err().to_string().contains("changed on disk"), "{:?}", resized[0]);
    // Several errors in a row, as when a disk goes: one is told, then it is over.
    let gone = end_of(|folder| (0..20).for_each(|i| std::fs::remove_file(folder.join(format!("{i:02}.png"))).unwrap()));
    for ends in [missing, damaged, resized, gone] {
        assert!(ends[0].is_err() && ends[1..].iter().all(|end| matches!(end, Ok(None))), "{ends:?}");
    }
}

#[test]
fn a_loader_can_be_dropped_at_any_time() {
    let dataset = shapes();
    in_time(move || {
        for taken in 0..8 {
            let mut loader = Loader::start(Arc::clone(&dataset), LoaderConfig { epochs: 1000, ..config() }).unwrap();
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
    let too_large = Loader::start(shapes(), LoaderConfig { batch_size: SAMPLES + 1, ..config() });
    let error = too_large.err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("53 images do not fill a batch of 54"), "{error}");
    let exact = LoaderConfig { batch_size: SAMPLES, ..config() };
    assert_eq!(batches(&shapes(), &exact).len(), 3);
}
