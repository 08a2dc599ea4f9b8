//! NT-Xent, forward and backward, over rows (instance loss) and columns (feature loss) of a matrix, beside the plain way:
//! the whole matrix of similarities with its diagonal masked, softmax, its gradient, and transposed copies for columns.
//! Throughput counts samples.
//!
//! Floor for R samples of dimension d = 128. Similarities are symmetric: `R^2 d` flops and `R^2 / 2` exponentials; the
//! gradient is a product with a symmetric matrix of weights, `2 R^2 d` more, if they were kept. Kept they would be R^2
//! numbers; here they are computed again block by block, which makes `6 R^2 d` flops and `3 R^2` exponentials of it, and
//! O(R d) memory. At 2 x 96 Gflop/s (two cores with AVX2, 3 GHz) and 2 x 3 G exponentials a second (8 lanes, 8 cycles):
//!
//! | R     | flops, floor | exponentials, floor | time, floor | this way: flops, exponentials | bytes in and out |
//! |-------|--------------|---------------------|-------------|-------------------------------|------------------|
//! | 256   | 25 M         | 33 k                | 0.14 ms     | 50 M, 0.2 M                   | 0.26 MB          |
//! | 512   | 101 M        | 131 k               | 0.55 ms     | 201 M, 0.8 M                  | 0.52 MB          |
//! | 2,048 | 1.6 G        | 2.1 M               | 8.7 ms      | 3.2 G, 12.6 M                 | 2.1 MB           |
//!
//! For scale, the loss as the paper's authors wrote it (PyTorch 2.15 on two such cores): 1.8, 5.1 and 122 ms.

#![allow(missing_docs)] // criterion's macros make public functions

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use disentangle::backend::cpu::Cpu;
use disentangle::backend::{Backend, Samples};
use disentangle::rng::{Purpose, stream};
use disentangle::tensor::{Shape, Tensor};
use rayon::prelude::*;

/// Dimension of a sample.
const DIM: usize = 128;
const TEMPERATURE: f64 = 0.5;

fn ours(cpu: &Cpu<f32>, z: &Tensor<Cpu<f32>>, one: &Tensor<Cpu<f32>>, samples: Samples) -> (f64, Tensor<Cpu<f32>>) {
    let (loss, saved) = cpu.nt_xent_forward(z, samples, TEMPERATURE).expect("a loss");
    let dz = cpu.nt_xent_backward(&saved, one, z.shape(), samples, TEMPERATURE).expect("a gradient");
    (cpu.scalar(&loss).expect("a scalar"), dz)
}

/// `out = a b`, out `m x n` and a `m x k` row-major, b `k x n` with strides of its rows and columns; rows are shared out to
/// all threads.
fn product([m, n, k]: [usize; 3], out: &mut [f32], a: &[f32], b: &[f32], [row, column]: [usize; 2]) {
    assert!(out.len() == m * n && a.len() == m * k && b.len() > (k - 1) * row + (n - 1) * column);
    let block = m.div_ceil(4 * rayon::current_num_threads()).next_multiple_of(16);
    out.par_chunks_mut(block * n).zip(a.par_chunks(block * k)).for_each(|(out, a)| {
        let (rows, n_stride, k_stride, none) = (out.len() / n, n as isize, k as isize, gemm::Parallelism::None);
        let (row, column) = (row as isize, column as isize);
        let (out, a, b) = (out.as_mut_ptr(), a.as_ptr(), b.as_ptr());
        // SAFETY: out and a are `rows x n` and `rows x k`; b lies inside its slice by the assertion.
        unsafe {
            gemm::gemm(
                rows, n, k, out, 1, n_stride, false, a, 1, k_stride, b, column, row, 0.0, 1.0, false, false, false,
                none,
            );
        }
    });
}

/// Loss and gradient over the rows of `z` `[R, DIM]`, with R x R matrices.
fn plain(z: &[f32]) -> (f64, Vec<f32>) {
    let count = z.len() / DIM;
    let norms: Vec<f32> =
        z.chunks_exact(DIM).map(|row| row.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12)).collect();
    let unit: Vec<f32> =
        z.chunks_exact(DIM).zip(&norms).flat_map(|(row, norm)| row.iter().map(move |v| v / norm)).collect();
    let mut p = vec![0.0; count * count];
    product([count, count, DIM], &mut p, &unit, &unit, [1, DIM]);
    let rate = 1.0 / TEMPERATURE as f32;
    let losses = p.par_chunks_mut(count).enumerate().map(|(i, row)| {
        let positive = row[(i + count / 2) % count] * rate;
        row[i] = f32::NEG_INFINITY;
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v)) * rate;
        row.iter_mut().for_each(|v| *v = (*v * rate - largest).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
        row[(i + count / 2) % count] -= 1.0;
        f64::from(sum.ln() + largest - positive)
    });
    let loss = losses.collect::<Vec<_>>().iter().sum::<f64>() / count as f64;
    let mut both = vec![0.0; count * count];
    both.par_chunks_mut(count).enumerate().for_each(|(i, row)| {
        row.iter_mut().enumerate().for_each(|(j, v)| *v = p[i * count + j] + p[j * count + i]);
    });
    let mut dz = vec![0.0; z.len()];
    product([count, DIM, count], &mut dz, &both, &unit, [DIM, 1]);
    let factor = rate / count as f32;
    for ((dz, u), norm) in dz.chunks_exact_mut(DIM).zip(unit.chunks_exact(DIM)).zip(&norms) {
        let along: f32 = dz.iter().zip(u).map(|(d, u)| d * u).sum();
        dz.iter_mut().zip(u).for_each(|(d, u)| *d = (*d - along * u) * factor / norm);
    }
    (loss, dz)
}

/// View 1 over view 2, each `[rows, columns]`, as each view transposed.
fn transpose_views(z: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let views = z.chunks_exact(rows * columns);
    views.flat_map(|view| (0..columns).flat_map(move |j| (0..rows).map(move |i| view[i * columns + j]))).collect()
}

fn plain_columns(z: &[f32], heads: usize) -> (f64, Vec<f32>) {
    let (loss, gradient) = plain(&transpose_views(z, DIM, heads));
    (loss, transpose_views(&gradient, heads, DIM))
}

/// The two ways give the same: some hundred roundings of single precision apart.
fn assert_same(ours: (f64, &[f32]), plain: (f64, Vec<f32>)) {
    assert!((ours.0 - plain.0).abs() < 1e-5 * plain.0, "{} and {}", ours.0, plain.0);
    let largest = plain.1.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(ours.1.iter().zip(&plain.1).all(|(a, b)| (a - b).abs() < 1e-3 * largest), "other gradients");
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nt_xent");
    let cpu = Cpu::<f32>::new();
    let one = cpu.full(Shape::SCALAR, 1.0).expect("a scalar");
    for count in [256, 512, 2048] {
        group.throughput(Throughput::Elements(count as u64));
        let heads = count / 2;
        let mut random = stream(1, Purpose::Init, 0, count as u64, 0);
        let values: Vec<f64> = (0..count * DIM).map(|_| random.normal()).collect();
        let rows = cpu.upload(Shape::from([count, DIM]), &values).expect("it fits");
        let columns = cpu.upload(Shape::from([2 * DIM, heads]), &values).expect("it fits");
        let (row_values, column_values) = (cpu.values(&rows), cpu.values(&columns));
        let (loss, dz) = ours(&cpu, &rows, &one, Samples::Rows);
        assert_same((loss, cpu.values(&dz)), plain(row_values));
        let (loss, dz) = ours(&cpu, &columns, &one, Samples::Columns);
        assert_same((loss, cpu.values(&dz)), plain_columns(column_values, heads));
        group.bench_function(BenchmarkId::new("rows", count), |b| b.iter(|| ours(&cpu, &rows, &one, Samples::Rows)));
        group.bench_function(BenchmarkId::new("rows, plain", count), |b| b.iter(|| plain(black_box(row_values))));
        group.bench_function(BenchmarkId::new("columns", count), |b| {
            b.iter(|| ours(&cpu, &columns, &one, Samples::Columns))
        });
        group.bench_function(BenchmarkId::new("columns, plain", count), |b| {
            b.iter(|| plain_columns(black_box(column_values), heads))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = bench
}
criterion_main!(benches);
