//! Views per second on one thread: drawing the parameters and rendering, from decoded pictures to uint8 HWC.
//!
//! What has to be done at least, per view with n = side^2 pixels (3n bytes out), counting an arithmetic operation on one
//! byte's worth of data as one and taking jitter with its probability 0.8:
//!
//! | part       | operations                                                     | per pixel        |
//! |------------|----------------------------------------------------------------|------------------|
//! | resize     | 2 taps x 2 (multiply, add) x 3 channels, columns               | 12               |
//! |            | the same along rows, for source rows x side pixels             | 12 x rows / side |
//! | brightness | subtract, multiply, add, 2 cuts, truncate x 3                  | 0.8 x 18         |
//! | contrast   | grey level 7, then as brightness                               | 0.8 x 25         |
//! | saturation | grey level 7, then as brightness                               | 0.8 x 25         |
//! | hue        | max/min 4, sextant 12, 3 divisions, back 3 x 8                 | 0.8 x 43         |
//! | blur       | radius about 5 at the mean sigma: 2 x 3 x (11 adds, 6 multiplies) | 102 x probability |
//! | layout     | 6 bytes read or written                                        | 6                |
//!
//! So about 110 operations a pixel without blur and 220 with one. A core that retires two vectors of 16 bytes of such
//! mixed 8/16/32-bit work (8 lanes on average) a cycle at 3 GHz has 48 G of them a second:
//!
//! | case                      | pixels | operations | floor, views/s | bytes (source + planes twice + out) |
//! |---------------------------|--------|------------|----------------|-------------------------------------|
//! | 32 -> 32                  | 1,024  | 0.12 M     | 400,000        | 12 KB: first-level cache            |
//! | 32 -> 224                 | 50,176 | 5.4 M      | 8,900          | 0.46 MB: second-level cache         |
//! | 256 -> 224                | 50,176 | 5.9 M      | 8,100          | 0.6 MB: second-level cache          |
//! | 256 -> 224, every blurred | 50,176 | 11.0 M     | 4,400          | 0.9 MB: second-level cache          |
//!
//! Bytes do not bind: even 0.9 MB at 20 GB/s takes 45 us, under a fifth of the operations' time.
//! For scale, Pillow and torchvision on such a core: 3,100 views/s (32 -> 32), 409 (32 -> 224).

#![allow(missing_docs)] // criterion's macros make public functions

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disentangle::data::Image;
use disentangle::data::augment::{AugmentConfig, Scratch, Size, render};
use disentangle::rng::{Purpose, stream};
use std::hint::black_box;

/// Pictures a bench goes round.
const PICTURES: usize = 16;

/// A smooth picture with some noise: every branch of the hue, no two pixels alike.
fn picture(side: usize, index: usize) -> Image {
    let mut noise = stream(1, Purpose::Shapes, 0, index as u64, 0);
    let value = |at: usize, noise: f64| {
        let (x, y, channel) = (at / 3 % side, at / 3 / side, at % 3);
        let wave = ((x * (channel + 1) + y * (index + 1)) as f64 * 6.0 / side as f64 + channel as f64).sin();
        (128.0 + 90.0 * wave + 20.0 * noise) as u8
    };
    let pixels = (0..3 * side * side).map(|at| value(at, noise.normal())).collect();
    Image::new(side, side, pixels).expect("a picture")
}

fn bench(criterion: &mut Criterion) {
    let cifar = AugmentConfig::default();
    let plain = AugmentConfig { jitter_strength: 0.0, grayscale: 0.0, ..cifar.clone() };
    let strong = AugmentConfig { jitter_strength: 1.0, ..cifar.clone() };
    let half_blurred = AugmentConfig { blur: 0.5, ..strong.clone() };
    let blurred = AugmentConfig { blur: 1.0, ..strong.clone() };
    let cases = [
        ("32_to_32", 32, 32, &cifar),
        ("32_to_224", 32, 224, &cifar),
        ("32_to_224_crop_and_flip", 32, 224, &plain),
        ("256_to_224", 256, 224, &strong),
        ("256_to_224_blur_half", 256, 224, &half_blurred),
        ("256_to_224_blur_all", 256, 224, &blurred),
    ];
    let mut group = criterion.benchmark_group("augment");
    group.throughput(Throughput::Elements(1));
    for (name, source, side, config) in cases {
        let pictures: Vec<Image> = (0..PICTURES).map(|index| picture(source, index)).collect();
        let mut scratch = Scratch::new();
        let mut out = vec![0; 3 * side * side];
        let mut sample = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut random = stream(42, Purpose::Augment, 0, sample, 0);
                let params = config.sample(&mut random, source, source);
                let picture = pictures[sample as usize % PICTURES].as_ref();
                render(picture, &params, Size::square(side), &mut scratch, &mut out).expect("a view");
                black_box(&out);
                sample += 1;
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(3));
    targets = bench
}
criterion_main!(benches);
