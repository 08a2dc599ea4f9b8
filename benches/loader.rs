//! Views per second from packed files to batches: both views of every sample, drawn as the loader draws them, on one thread
//! and on two, and once through the whole loader with its channels.
//!
//! What has to be done at least, for each view:
//!
//! | case                 | read from the map          | written         | operations                              |
//! |----------------------|----------------------------|-----------------|-----------------------------------------|
//! | 32 -> 32, raw        | 3 KB / 2 (two views)       | 3 KB            | see `augment`: 0.12 M                   |
//! | 32 -> 224, raw       | 3 KB / 2                   | 150 KB          | 5.4 M                                   |
//! | 256 -> 224, raw      | 197 KB / 2                 | 150 KB          | 5.9 M; 8.5 M with every second blurred  |
//! | 256 -> 224, JPEG     | 24 KB / 2                  | 150 KB + 197 KB / 2 decoded | the same and half a decoding |
//!
//! Decoding a JPEG of 65,536 pixels takes 3,072 inverse transforms of 8 x 8 (1,536 where the colours are subsampled), entropy
//! decoding of 24 KB bit by bit, which is what binds, and the conversion of colours: 0.4 to 0.8 ms with `zune-jpeg` on the core
//! below, so that two views of a JPEG cost as much as three or four of a raw image. Bytes do not bind: 300 KB at 20 GB/s take
//! 15 us of the 290 us that 3,500 views/s allow.
//!
//! Reached (medians on an AMD EPYC, Zen 3, two virtual cores of a shared host), views/s on one and two threads: 69,000 and 81,000
//! (32 -> 32), 3,870 and 7,190 (32 -> 224), 2,770 and 5,250 (256 -> 224, raw), 2,610 and 4,260 (blurred), 1,340 and 2,610 (JPEG).
//!
//! Samples are independent, so n threads take 1/n of the time until the memory's bandwidth binds: at 2,500 views/s of 224 px
//! a thread moves under 1 GB/s.

#![allow(missing_docs)] // criterion's macros make public functions

use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disentangle::data::augment::AugmentConfig;
use disentangle::data::loader::{Loader, LoaderConfig, Position, draw_views};
use disentangle::data::source::{self, SourceOptions};
use disentangle::data::{Dataset, Encoding, GatherOptions, packed};
use disentangle::rng::{Purpose, stream};
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

/// Pictures in each packed file.
const PICTURES: usize = 64;

/// A JPEG of quality 90 with as much detail as a photograph of that size: 24 KB for 256 x 256 (real ones: 21 KB). Its colours are
/// not subsampled, because the encoder cannot: twice the transforms of a camera's file.
fn write_photograph(path: &Path, side: u32, index: usize) {
    let mut noise = stream(1, Purpose::Shapes, 0, index as u64, 0);
    let picture = RgbImage::from_fn(side, side, |x, y| {
        let texture = 4.0 * noise.normal();
        image::Rgb([1, 2, 3].map(|channel| {
            let wave =
                ((x * channel + y * (index as u32 + 1)) as f64 * 6.0 / f64::from(side) + f64::from(channel)).sin();
            (128.0 + 90.0 * wave + texture) as u8
        }))
    });
    let file = std::fs::File::create(path).expect("a file");
    picture.write_with_encoder(JpegEncoder::new_with_quality(file, 90)).expect("a JPEG");
}

/// Photographs of `side` x `side`, packed and opened.
fn photographs(folder: &Path, side: u32, payload: Encoding) -> Arc<Dataset> {
    let pictures = folder.join(format!("{side}"));
    std::fs::create_dir_all(&pictures).expect("a folder");
    (0..PICTURES).for_each(|i| write_photograph(&pictures.join(format!("{i}.jpg")), side, i));
    let source = source::open(&pictures.to_string_lossy(), &SourceOptions::default()).expect("a source");
    let path = folder.join(format!("{side}-{payload}.pack"));
    let options = GatherOptions { payload, ..GatherOptions::default() };
    packed::pack(&*source, &options, &path, &|_, _| ()).expect("a packed file");
    Arc::new(Dataset::open(&path).expect("a data set"))
}

fn config(image_size: usize, augment: &AugmentConfig) -> LoaderConfig {
    LoaderConfig {
        seed: 42,
        batch_size: PICTURES,
        image_size,
        augment: augment.clone(),
        start: Position { epoch: 0, step: 0 },
        epochs: u64::MAX,
    }
}

fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let small = photographs(folder.path(), 32, Encoding::Raw);
    let [raw, jpeg] = [Encoding::Raw, Encoding::Jpeg].map(|payload| photographs(folder.path(), 256, payload));
    let cifar = AugmentConfig::default();
    let strong = AugmentConfig { jitter_strength: 1.0, ..cifar.clone() };
    let blurred = AugmentConfig { blur: 0.5, ..strong.clone() };
    let cases = [
        ("cifar_32_to_32", &small, config(32, &cifar)),
        ("cifar_32_to_224", &small, config(224, &cifar)),
        ("photo_256_to_224_raw", &raw, config(224, &strong)),
        ("photo_256_to_224_raw_blur", &raw, config(224, &blurred)),
        ("photo_256_to_224_jpeg", &jpeg, config(224, &strong)),
        ("photo_256_to_224_jpeg_blur", &jpeg, config(224, &blurred)),
    ];
    let mut group = criterion.benchmark_group("loader");
    group.throughput(Throughput::Elements(2 * PICTURES as u64));
    for (name, dataset, config) in &cases {
        let view_bytes = config.slot_bytes() / (2 * PICTURES);
        let mut slot = config.plain_slots().remove(0);
        let (view1, view2) = slot.split_at_mut(PICTURES * view_bytes);
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let mut epoch = 0;
            group.bench_function(format!("{name}/{threads}_threads"), |bencher| {
                bencher.iter(|| {
                    epoch += 1;
                    let views = view1.par_chunks_mut(view_bytes).zip(view2.par_chunks_mut(view_bytes)).enumerate();
                    pool.install(|| {
                        views.for_each(|(sample, (view1, view2))| {
                            draw_views(dataset, config, epoch, sample, [view1, view2]).expect("two views");
                        });
                    });
                });
            });
        }
    }
    let (_, dataset, config) = &cases[2];
    let mut loader = Loader::start(Arc::clone(dataset), config.clone(), config.plain_slots()).expect("a loader");
    group.bench_function("photo_256_to_224_raw/whole_loader", |bencher| {
        bencher.iter(|| {
            let batch = loader.next_batch().expect("a batch").expect("a batch");
            loader.recycle(batch);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(3));
    targets = bench
}
criterion_main!(benches);
