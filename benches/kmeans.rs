//! k-means of 60,000 points x 512 features into 10 clusters with 10 restarts: CIFAR-10's features.
//!
//! Floor. An iteration of all ten restarts multiplies 60,000 x 512 with 512 x 100: 6.14 Gflop, and reads 123 MB. At the
//! 75 Gflop/s of a core in f32 (AVX2 at 2.4 GHz, the product alone) and 20 GB/s that is 82 ms of one core, 41 ms of two;
//! the memory's 6 ms hide behind it. Seeding draws 9 times 4 candidates for each restart: 22 Gflop, 0.3 s of one core. The
//! first iteration also adds every point to ten sums: 0.31 G additions in f64, 0.1 s. Without bounds, a fit whose ten
//! restarts take 30 iterations each costs 0.3 + 30 x 0.082 + 0.1 = 2.9 s of one core at least. Margins (see `assign`) then
//! leave out most of the later iterations, the more the better the clusters are separated.
//!
//! `iteration` is one assignment and update for one restart, and the assignment that ends every run: 2 x 0.61 Gflop, 16 ms
//! of one core; points are also checked, moved and measured on entry and their inertia is taken, in all six readings of
//! 123 MB, 37 ms. `fit` is the whole, with scikit-learn's tolerance.

// `criterion_group!` writes a function without a docstring.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use disentangle::eval::kmeans::{KMeans, lloyd};
use disentangle::rng::{Purpose, stream};
use rayon::prelude::*;
use std::time::Duration;

const COUNT: usize = 60_000;
const DIM: usize = 512;
const CLUSTERS: usize = 10;

/// Overlapping clusters as features show them: ten places in 64 directions of falling variance, through a random
/// layer with ReLU.
fn features() -> Vec<f32> {
    const LATENT: usize = 64;
    let mut random = stream(1, Purpose::Shapes, 0, 0, 0);
    let layer: Vec<f64> = (0..DIM * LATENT).map(|_| random.normal()).collect();
    let places: Vec<f64> = (0..CLUSTERS * LATENT).map(|_| 0.8 * random.normal()).collect();
    let mut points = vec![0.0; COUNT * DIM];
    points.par_chunks_mut(DIM).enumerate().for_each(|(row, point)| {
        let mut random = stream(2, Purpose::Shapes, 0, row as u64, 0);
        let place = &places[random.below(CLUSTERS as u32) as usize * LATENT..][..LATENT];
        let scale = |(d, place)| (random.normal() + place) * (1.0 + d as f64).powf(-0.7);
        let latent: Vec<f64> = place.iter().enumerate().map(scale).collect();
        for (value, weights) in point.iter_mut().zip(layer.chunks(LATENT)) {
            *value = (0.5 + weights.iter().zip(&latent).map(|(w, l)| w * l).sum::<f64>()).max(0.0) as f32;
        }
    });
    points
}

fn kmeans(criterion: &mut Criterion) {
    let points = features();
    let initial: Vec<f64> = points[..CLUSTERS * DIM].iter().map(|&v| f64::from(v)).collect();
    let mut group = criterion.benchmark_group("kmeans 60000x512 k=10");
    group.sample_size(10).measurement_time(Duration::from_secs(20));
    group.bench_function("iteration, 1 restart", |bench| bench.iter(|| lloyd(&points, DIM, &initial, 1, 0.0)));
    group.bench_function("fit, 10 restarts", |bench| bench.iter(|| KMeans::new(CLUSTERS).fit(&points, DIM)));
    group.finish();
}

criterion_group!(benches, kmeans);
criterion_main!(benches);
