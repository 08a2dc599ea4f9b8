//! The convolutions of ResNet-18: forward, gradient of the input, gradient of the filter, each beside the plain way to do
//! it (im2col, a product over all pixels, col2im) in the same run. Throughput is in useful flops: "Gelem/s" reads Gflop/s.
//!
//! Floor. A tap that falls into the padding multiplies by zero and need not be computed; what remains are
//! `2 N C K (valid row taps) (valid column taps)` flops per direction, and 4 bytes for each element of x, w and y. Useful
//! Gflop, their share of all taps, and MB:
//!
//! | layer             | filters            | 32 px, 256 images         | 224 px, 16 images           |
//! |-------------------|--------------------|---------------------------|-----------------------------|
//! | conv1             | 3 -> 64, 7x7/2     | 32 -> 16: 1.105 .90 20.0  | 224 -> 112: 3.719 .98 61.1  |
//! | layer1            | 64 -> 64, 3x3/1    | 8 -> 8:   1.015 .84  8.5  | 56 -> 56:   3.612 .98 25.8  |
//! | layer2.0.conv1    | 64 -> 128, 3x3/2   | 8 -> 4:   0.508 .84  6.6  | 56 -> 28:   1.806 .98 19.6  |
//! | layer2.downsample | 64 -> 128, 1x1/2   | 8 -> 4:   0.067 1.0  6.3  | 56 -> 28:   0.206 1.0 19.3  |
//! | layer2            | 128 -> 128, 3x3/1  | 4 -> 4:   0.839 .69  4.8  | 28 -> 28:   3.525 .95 13.4  |
//! | layer3.0.conv1    | 128 -> 256, 3x3/2  | 4 -> 2:   0.419 .69  4.3  | 28 -> 14:   1.763 .95 10.8  |
//! | layer3.downsample | 128 -> 256, 1x1/2  | 4 -> 2:   0.067 1.0  3.3  | 28 -> 14:   0.206 1.0  9.8  |
//! | layer3            | 256 -> 256, 3x3/1  | 2 -> 2:   0.537 .44  4.5  | 14 -> 14:   3.355 .91  8.8  |
//! | layer4.0.conv1    | 256 -> 512, 3x3/2  | 2 -> 1:   0.268 .44  6.3  | 14 -> 7:    1.678 .91  9.5  |
//! | layer4.downsample | 256 -> 512, 1x1/2  | 2 -> 1:   0.067 1.0  2.1  | 14 -> 7:    0.206 1.0  5.3  |
//! | layer4            | 512 -> 512, 3x3/1  | 1 -> 1:   0.134 .11 10.5  | 7 -> 7:     3.028 .82 12.7  |
//!
//! A core does 32 flops a cycle with AVX2 and 64 with AVX-512, so two at 3 GHz have 192 or 384 Gflop/s, if they are two
//! cores and not two threads of one: `peak` measures what a large square product reaches here, which no convolution will
//! pass. At 20 GB/s the bytes take longer than the flops only for the downsamples and for layer4 at 32 px.

#![allow(missing_docs)] // criterion's macros make public functions

use std::hint::black_box;
use std::time::Duration;

use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Backend, Window};
use disentangle::rng::{Purpose, stream};
use disentangle::tensor::{Shape, Tensor};
use rayon::prelude::*;

/// A convolution of square images.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    images: usize,
    side: usize,
    inputs: usize,
    outputs: usize,
    window: Window,
}

/// ResNet-18's distinct convolutions at this resolution.
fn cases(px: usize, images: usize) -> Vec<Case> {
    let case = |name, side, inputs, outputs, [kernel, stride]: [usize; 2]| Case {
        name,
        images,
        side,
        inputs,
        outputs,
        window: Window { kernel: [kernel; 2], stride, padding: kernel / 2 },
    };
    // After stem and pooling; each stage halves it.
    let side = px / 4;
    vec![
        case("conv1", px, 3, 64, [7, 2]),
        case("layer1", side, 64, 64, [3, 1]),
        case("layer2.0.conv1", side, 64, 128, [3, 2]),
        case("layer2.downsample", side, 64, 128, [1, 2]),
        case("layer2", side / 2, 128, 128, [3, 1]),
        case("layer3.0.conv1", side / 2, 128, 256, [3, 2]),
        case("layer3.downsample", side / 2, 128, 256, [1, 2]),
        case("layer3", side / 4, 256, 256, [3, 1]),
        case("layer4.0.conv1", side / 4, 256, 512, [3, 2]),
        case("layer4.downsample", side / 4, 256, 512, [1, 2]),
        case("layer4", side / 8, 512, 512, [3, 1]),
    ]
}

impl Case {
    /// Rows and columns of the output.
    fn output(&self) -> usize {
        self.window.output(0, self.side).expect("the kernel fits")
    }

    /// The input row (or column) that tap `r` of output `p` sees, if it is not padding.
    fn input(&self, p: usize, r: usize) -> Option<usize> {
        (p * self.window.stride + r).checked_sub(self.window.padding).filter(|&h| h < self.side)
    }

    fn useful_flops(&self) -> u64 {
        let positions = (0..self.output()).flat_map(|p| (0..self.window.kernel[0]).map(move |r| (p, r)));
        let taps = positions.filter(|&(p, r)| self.input(p, r).is_some()).count();
        (2 * self.images * self.inputs * self.outputs * taps * taps) as u64
    }

    fn x(&self) -> Shape {
        Shape::from([self.images, self.side, self.side, self.inputs])
    }

    fn w(&self) -> Shape {
        Shape::from([self.outputs, self.window.kernel[0], self.window.kernel[1], self.inputs])
    }

    fn y(&self) -> Shape {
        Shape::from([self.images, self.output(), self.output(), self.outputs])
    }
}

/// Random tensors of a convolution.
struct Data {
    cpu: Cpu<f32>,
    x: Tensor<Cpu<f32>>,
    w: Tensor<Cpu<f32>>,
    dy: Tensor<Cpu<f32>>,
}

impl Data {
    fn new(case: &Case) -> Data {
        let cpu = Cpu::new();
        let mut random = stream(1, Purpose::Init, 0, 0, 0);
        let mut tensor = |shape: Shape| {
            let values: Vec<f64> = (0..shape.elems()).map(|_| random.uniform_in(-1.0, 1.0)).collect();
            cpu.upload(shape, &values).expect("it fits")
        };
        let [x, w, dy] = [case.x(), case.w(), case.y()].map(&mut tensor);
        Data { cpu, x, w, dy }
    }
}

/// The plain way: every receptive field a row of a matrix, one product over all pixels.
struct Im2col {
    case: Case,
    /// `[N P Q, R S C]`
    columns: Vec<f32>,
    out: Vec<f32>,
}

impl Im2col {
    fn new(case: &Case) -> Im2col {
        let (rows, fields) = (case.y().rows(), case.w().elems() / case.outputs);
        let out = case.x().elems().max(case.y().elems()).max(case.w().elems());
        Im2col { case: *case, columns: vec![0.0; rows * fields], out: vec![0.0; out] }
    }

    /// N P Q, K and R S C.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.case.y().rows(), self.case.outputs, self.case.w().elems() / self.case.outputs)
    }

    fn fill(&mut self, x: &[f32]) {
        let Im2col { case, columns, .. } = self;
        let (side, c, [kernel, _]) = (case.side, case.inputs, case.window.kernel);
        let width = kernel * kernel * c;
        columns.par_chunks_mut(case.output() * width).enumerate().for_each(|(row, columns)| {
            let (image, p) = (row / case.output(), row % case.output());
            for (q, field) in columns.chunks_exact_mut(width).enumerate() {
                for (tap, out) in field.chunks_exact_mut(c).enumerate() {
                    match (case.input(p, tap / kernel), case.input(q, tap % kernel)) {
                        (Some(h), Some(w)) => out.copy_from_slice(&x[((image * side + h) * side + w) * c..][..c]),
                        _ => out.fill(0.0),
                    }
                }
            }
        });
    }

    fn forward(&mut self, x: &[f32], w: &[f32]) -> &[f32] {
        let (rows, k, width) = self.sizes();
        self.fill(x);
        product((rows, k, width), &mut self.out, (&self.columns, [width, 1]), (w, [1, width]));
        &self.out[..rows * k]
    }

    fn backward_filter(&mut self, x: &[f32], dy: &[f32]) -> &[f32] {
        let (rows, k, width) = self.sizes();
        self.fill(x);
        product((k, width, rows), &mut self.out, (dy, [1, k]), (&self.columns, [width, 1]));
        &self.out[..k * width]
    }

    fn backward_data(&mut self, w: &[f32], dy: &[f32]) -> &[f32] {
        let (rows, k, width) = self.sizes();
        product((rows, width, k), &mut self.columns, (dy, [k, 1]), (w, [width, 1]));
        let Im2col { case, columns, out } = self;
        let (side, c, [kernel, _]) = (case.side, case.inputs, case.window.kernel);
        let dx = &mut out[..case.x().elems()];
        dx.par_chunks_mut(side * side * c).enumerate().for_each(|(image, dx)| {
            dx.fill(0.0);
            let pixels = case.output() * case.output();
            for (pixel, field) in columns.chunks_exact(width).skip(image * pixels).take(pixels).enumerate() {
                let (p, q) = (pixel / case.output(), pixel % case.output());
                for (tap, field) in field.chunks_exact(c).enumerate() {
                    if let (Some(h), Some(w)) = (case.input(p, tap / kernel), case.input(q, tap % kernel)) {
                        dx[(h * side + w) * c..][..c].iter_mut().zip(field).for_each(|(dx, value)| *dx += value);
                    }
                }
            }
        });
        dx
    }
}

/// `out = a b`, out `m x n` row-major, a and b with strides of their rows and columns; rows are shared out to all threads.
fn product((m, n, k): (usize, usize, usize), out: &mut [f32], a: (&[f32], [usize; 2]), b: (&[f32], [usize; 2])) {
    let last = |rows: usize, columns: usize, [row, column]: [usize; 2]| (rows - 1) * row + (columns - 1) * column;
    assert!(last(m, k, a.1) < a.0.len() && last(k, n, b.1) < b.0.len());
    let block = m.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(16);
    out[..m * n].par_chunks_mut(block * n).enumerate().for_each(|(i, out)| {
        let (rows, a_block) = (out.len() / n, &a.0[i * block * a.1[0]..]);
        let [[a_row, a_column], [b_row, b_column]] = [a.1, b.1].map(|strides| strides.map(|stride| stride as isize));
        let (out, a, b) = (out.as_mut_ptr(), a_block.as_ptr(), b.0.as_ptr());
        let none = gemm::Parallelism::None;
        // SAFETY: `out` is `rows x n`; a and b lie inside their slices by the assertion.
        unsafe {
            gemm::gemm(
                rows, n, k, out, 1, n as isize, false, a, a_column, a_row, b, b_column, b_row, 0.0, 1.0, false, false,
                false, none,
            );
        }
    });
}

/// Both ways compute the same; sums of up to 200,000 products of numbers below 1 lose some 1e-4 of their size at most.
fn assert_close(ours: &[f32], plain: &[f32]) {
    let largest = plain.iter().fold(0f32, |m, v| m.max(v.abs()));
    let error = ours.iter().zip(plain).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(ours.len() == plain.len() && error <= 1e-3 * largest, "off by {error} of {largest}");
}

fn bench_case(group: &mut BenchmarkGroup<WallTime>, case: &Case) {
    let (data, mut plain) = (Data::new(case), Im2col::new(case));
    let Data { cpu, x, w, dy } = &data;
    let (window, name) = (case.window, case.name);
    let forward = || cpu.conv2d_forward(x, w, window).expect("a convolution");
    let data_grad = || cpu.conv2d_backward_data(w, dy, case.x(), window).expect("a convolution");
    let filter_grad = || cpu.conv2d_backward_filter(x, dy, case.w(), window).expect("a convolution");
    let [xs, ws, dys] = [x, w, dy].map(|tensor| cpu.values(tensor));
    assert_close(cpu.values(&forward()), plain.forward(xs, ws));
    assert_close(cpu.values(&data_grad()), plain.backward_data(ws, dys));
    assert_close(cpu.values(&filter_grad()), plain.backward_filter(xs, dys));
    group.throughput(Throughput::Elements(case.useful_flops()));
    group.bench_function(format!("{name}/forward"), |b| b.iter(forward));
    group.bench_function(format!("{name}/forward, im2col"), |b| b.iter(|| black_box(plain.forward(xs, ws)).len()));
    // Training needs no gradient of the images.
    if case.name != "conv1" {
        group.bench_function(format!("{name}/backward data"), |b| b.iter(data_grad));
        group.bench_function(format!("{name}/backward data, im2col"), |b| {
            b.iter(|| black_box(plain.backward_data(ws, dys)).len())
        });
    }
    group.bench_function(format!("{name}/backward filter"), |b| b.iter(filter_grad));
    group.bench_function(format!("{name}/backward filter, im2col"), |b| {
        b.iter(|| black_box(plain.backward_filter(xs, dys)).len())
    });
}

/// The product of two 1,024 x 1,024 matrices.
fn peak(criterion: &mut Criterion) {
    const N: usize = 1024;
    let (a, mut out) = (vec![0.5; N * N], vec![0.0; N * N]);
    let mut group = criterion.benchmark_group("peak");
    group.throughput(Throughput::Elements(2 * (N * N * N) as u64));
    group.bench_function("1024 x 1024 x 1024", |b| {
        b.iter(|| product((N, N, N), black_box(&mut out), (&a, [N, 1]), (&a, [N, 1])))
    });
    group.finish();
}

fn bench(criterion: &mut Criterion) {
    peak(criterion);
    for (px, images) in [(32, 256), (224, 16)] {
        let mut group = criterion.benchmark_group(format!("conv2d {px} px"));
        group.sampling_mode(SamplingMode::Flat);
        cases(px, images).iter().for_each(|case| bench_case(&mut group, case));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(250))
        .nresamples(2000);
    targets = bench
}
criterion_main!(benches);
