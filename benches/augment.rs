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

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disentangle::data::Image;
use disentangle::data::augment::{AugmentConfig, ColourOrder, InstructionSet, Scratch, Size, render};
use disentangle::rng::{Purpose, stream};

/// Pictures a bench goes round.
const PICTURES: usize = 16;

/// Views that are compared between the two orders.
const COMPARED: u64 = 500;

/// One row of the table: pictures of `source` x `source` pixels to views of `side` x `side`.
struct Case {
    name: &'static str,
    source: usize,
    side: usize,
    config: AugmentConfig,
}

fn cases() -> Vec<Case> {
    let cifar = AugmentConfig::default();
    let strong = AugmentConfig { jitter_strength: 1.0, ..cifar.clone() };
    let blurred = AugmentConfig { blur: 0.5, ..strong.clone() };
    let plain = AugmentConfig { jitter_strength: 0.0, grayscale: 0.0, ..cifar.clone() };
    let fast = |config: &AugmentConfig| AugmentConfig { order: ColourOrder::Fast, ..config.clone() };
    let case = |name, source, side, config| Case { name, source, side, config };
    vec![
        case("32_to_32", 32, 32, cifar.clone()),
        case("32_to_224", 32, 224, cifar.clone()),
        case("32_to_224_fast", 32, 224, fast(&cifar)),
        case("32_to_224_crop_and_flip", 32, 224, plain.clone()),
        case("256_to_224", 256, 224, strong.clone()),
        case("256_to_224_fast", 256, 224, fast(&strong)),
        case("256_to_224_blur_half", 256, 224, blurred),
        case("256_to_224_crop_and_flip", 256, 224, plain),
    ]
}

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

/// One thread's work: views of the pictures, one after the other.
struct Worker<'a> {
    case: &'a Case,
    pictures: &'a [Image],
    scratch: Scratch,
    out: Vec<u8>,
    sample: u64,
}

impl<'a> Worker<'a> {
    fn new(case: &'a Case, pictures: &'a [Image], set: InstructionSet) -> Self {
        let out = vec![0; 3 * case.side * case.side];
        Worker { case, pictures, scratch: Scratch::with(set), out, sample: 0 }
    }

    fn view(&mut self) {
        let mut random = stream(42, Purpose::Augment, 0, self.sample, 0);
        let params = self.case.config.sample(&mut random, self.case.source, self.case.source);
        let picture = self.pictures[self.sample as usize % PICTURES].as_ref();
        render(picture, &params, Size::square(self.case.side), &mut self.scratch, &mut self.out).expect("a view");
        black_box(&self.out);
        self.sample += 1;
    }
}

/// `count` views on each of two threads; the time from when both are ready to when the later one is done.
fn on_two_threads(case: &Case, pictures: &[Image], set: InstructionSet, count: u64) -> Duration {
    let ready = Barrier::new(2);
    let work = || {
        let mut worker = Worker::new(case, pictures, set);
        worker.view();
        ready.wait();
        let start = Instant::now();
        (0..count).for_each(|_| worker.view());
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work().max(other.join().expect("a thread"))
    })
}

/// Says how far the views of a case are from the exact order's.
fn print_difference(case: &Case, pictures: &[Image]) {
    let config = AugmentConfig { order: ColourOrder::Exact, ..case.config.clone() };
    let exact_case = Case { config, ..*case };
    let mut exact = Worker::new(&exact_case, pictures, InstructionSet::best());
    let mut fast = Worker::new(case, pictures, InstructionSet::best());
    let (mut sum, mut largest) = (0, 0);
    for _ in 0..COMPARED {
        exact.view();
        fast.view();
        for (a, b) in exact.out.iter().zip(&fast.out) {
            sum += u64::from(a.abs_diff(*b));
            largest = largest.max(a.abs_diff(*b));
        }
    }
    let mean = sum as f64 / (COMPARED * exact.out.len() as u64) as f64;
    println!("{}: {COMPARED} views differ from the exact order's by {mean:.2} of 255, at most {largest}", case.name);
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("augment");
    for case in cases() {
        let pictures: Vec<Image> = (0..PICTURES).map(|index| picture(case.source, index)).collect();
        if case.config.order == ColourOrder::Fast {
            print_difference(&case, &pictures);
        }
        group.throughput(Throughput::Elements(1));
        for set in InstructionSet::available() {
            let mut worker = Worker::new(&case, &pictures, set);
            group.bench_function(format!("{}/{}", case.name, set.name()), |bencher| bencher.iter(|| worker.view()));
        }
        group.throughput(Throughput::Elements(2));
        let best = InstructionSet::best();
        group.bench_function(format!("{}/{}_two_threads", case.name, best.name()), |bencher| {
            bencher.iter_custom(|count| on_two_threads(&case, &pictures, best, count));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);
