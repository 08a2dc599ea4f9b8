//! Views per second: drawing the parameters and rendering, from decoded pictures to uint8 HWC, on one thread with every
//! instruction set of this machine and on two threads with the best one.
//!
//! What has to be done at least, in instructions on vectors of 32 bytes per pixel of the view (AVX2: eight lanes of 32 bits
//! or sixteen of 16; a load that widens is one), jitter taken with its probability 0.8:
//!
//! | part       | work                                                                         | instructions     |
//! |------------|------------------------------------------------------------------------------|------------------|
//! | down       | 3 channels x 2 taps x (load, multiply, add), shift and pack                  | 24 / 8 = 3.0     |
//! | across     | 3 x (2 x (multiply, add), 2 shifts, or) / 8, and turning rows into columns   | 7.4 rows / side  |
//! | to f32     | 2 passes x 3 x (2 in, 3 out)                                                 | 0.8 x 30 / 8     |
//! | brightness | 3 x (multiply, 2 cuts, floor), and 6 loads and stores                        | 0.8 x 18 / 8     |
//! | contrast   | the same with 2 operations more, and the mean: grey level 7, sum 3, load 3   | 0.8 x 37 / 8     |
//! | saturation | grey level 7, then as contrast                                               | 0.8 x 31 / 8     |
//! | hue        | order 8, sextant 11, 3 divisions and 14, back 3 x 8 + 3, and 6               | 0.8 x 71 / 8     |
//! | blur       | radius 2.9 at the mean: 3 x (along 5 x 2.9 + 4, down 12 x 2.9 + 10)          | 12 x probability |
//! | layout     | 96 bytes in 39 instructions                                                  | 1.2              |
//!
//! A core that retires three such instructions a cycle at 3 GHz has 9 G of them a second:
//!
//! | case                     | rows of the crop | instructions a view | floor, views/s | reached | two threads | scalar | bytes moved |
//! |--------------------------|------------------|---------------------|----------------|---------|-------------|--------|-------------|
//! | 32 -> 32                 | 23               | 0.03 M              | 300,000        | 81,600  | 155,000     | 52,000 | 21 KB       |
//! | 32 -> 224                | 23               | 1.2 M               | 7,500          | 4,090   | 7,630       | 1,400  | 0.9 MB      |
//! | 32 -> 224, fast          | 23               | 0.25 M              | 36,000         | 13,000  | 23,500      | 5,600  | 0.3 MB      |
//! | 256 -> 224               | 185              | 1.5 M               | 6,100          | 3,140   | 5,890       | 1,000  | 1.0 MB      |
//! | 256 -> 224, half blurred | 185              | 1.8 M               | 5,000          | 2,610   | 4,260       | 1,300  | 1.2 MB      |
//!
//! Reached: medians on an AMD EPYC (Zen 3, two virtual cores of a shared host, nothing else of ours running); the same core's
//! speed wanders by a third from minute to minute, and its best rounds gave 112,000, 5,150, 18,700, 4,100 and 3,300. Bytes do
//! not bind: the planes stay in the second-level cache, where 1 MB at 32 bytes a cycle takes 10 us. The instructions do,
//! spread over all parts: about 40 % resize, 45 % colours (first the hue's three divisions, which Pillow's roundings need),
//! 5 % layout. A view of 32 x 32 spends as long on drawing its thirty numbers (twenty exponentials) and on its filters as on
//! pixels. Threads share nothing but caches: two cores gave 1.9 times one.
//!
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
