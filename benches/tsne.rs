//! t-SNE of 10,000 points x 512 features.
//!
//! Floor. Neighbours: 10,000^2 products of 50 dimensions, 10 Gflop in f64; principal components: 2.6 Gflop. An iteration
//! meets about 130 neighbours and a few hundred cells of the tree for each point, 5 M terms of a division and a dozen
//! multiplications each, about 15 ms of one core: 15 s for 1,000 iterations, 8 s on two cores.

// `criterion_group!` writes a function without a docstring.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use disentangle::report::tsne::Tsne;
use disentangle::rng::{Purpose, stream};
use std::time::Duration;

const DIM: usize = 512;

/// Ten overlapping clusters in 512 dimensions of falling variance.
fn points(count: usize) -> Vec<f32> {
    let mut random = stream(1, Purpose::Shapes, 0, 0, 0);
    let centres: Vec<f64> = (0..10 * DIM).map(|_| random.normal()).collect();
    let mut points = Vec::with_capacity(count * DIM);
    for _ in 0..count {
        let centre = &centres[random.below(10) as usize * DIM..][..DIM];
        let value = |(d, c): (usize, &f64)| ((random.normal() + c) * (1.0 + d as f64).powf(-0.5)) as f32;
        points.extend(centre.iter().enumerate().map(value).collect::<Vec<_>>());
    }
    points
}

fn tsne(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tsne");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    for count in [1_000, 10_000] {
        let points = points(count);
        group.bench_function(format!("{count} x {DIM}"), |bench| bench.iter(|| Tsne::default().map(&points, DIM)));
    }
    group.finish();
}

criterion_group!(benches, tsne);
criterion_main!(benches);
