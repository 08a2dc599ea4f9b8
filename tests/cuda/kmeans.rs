//! k-means on the device is the host's, to the bit: labels, centres, inertia, iterations, errors.

use disentangle::config::Precision;
use disentangle::eval::kmeans::{KMeans, lloyd, lloyd_on};
use disentangle::rng::{Purpose, stream};

use crate::{Device, SEEDS, cuda};

/// `count` points around `centers` places (`apart` standard deviations), moved by `offset`.
fn blobs(count: usize, dim: usize, centers: usize, apart: f64, offset: f64) -> Vec<f32> {
    let mut random = stream(7, Purpose::Shapes, 0, 0, 0);
    let places: Vec<f64> = (0..centers * dim).map(|_| apart * random.normal()).collect();
    let labels: Vec<u32> = (0..count).map(|_| random.below(centers as u32)).collect();
    let of = |&label: &u32| places[label as usize * dim..][..dim].to_vec();
    labels.iter().flat_map(of).map(|place| (place + random.normal() + offset) as f32).collect()
}

#[track_caller]
fn same(cuda: &Device, kmeans: &KMeans, points: &[f32], dim: usize) {
    let (found, expected) = (kmeans.fit_on(&**cuda, points, dim).unwrap(), kmeans.fit(points, dim).unwrap());
    assert!(found == expected, "{kmeans:?} on {} points of {dim} features", points.len() / dim);
    assert_eq!(found.inertia.to_bits(), expected.inertia.to_bits());
}

/// In any precision of the network: k-means multiplies in f32.
#[test]
fn the_same_clusters_to_the_bit() {
    let f32 = &cuda(Precision::F32);
    // Sizes that fill neither blocks nor tiles, far from the origin, overlapping; groups of restarts that do not fit one product.
    for (count, dim, clusters, apart, offset) in
        [(700, 37, 6, 0.5, 0.0), (300, 5, 6, 0.5, 4096.0), (513, 64, 7, 0.4, -4096.0), (400, 8, 60, 1.0, 0.0)]
    {
        let points = blobs(count, dim, clusters, apart, offset);
        let kmeans = KMeans { restarts: 5, max_iterations: 10, ..KMeans::new(clusters) };
        same(f32, &kmeans, &points, dim);
        same(f32, &KMeans { tolerance: 0.0, seed: 3, restarts: 2, ..kmeans }, &points, dim);
    }
}

#[test]
fn the_same_clusters_beside_a_network_in_bf16() {
    let points = blobs(300, 16, 5, 0.5, 1.0);
    same(&cuda(Precision::Bf16), &KMeans { restarts: 3, ..KMeans::new(5) }, &points, 16);
}

#[test]
fn odd_problems_have_the_same_answers() {
    let cuda = &cuda(Precision::F32);
    same(cuda, &KMeans::new(1), &[3.0, 4.0], 2);
    let points = blobs(40, 3, 4, 2.0, 0.0);
    // As many clusters as points; all points the same; two distinct points for four clusters.
    same(cuda, &KMeans::new(40), &points, 3);
    same(cuda, &KMeans::new(5), &[0.1; 60], 3);
    let two: Vec<f32> = (0..30).map(|i| if i % 3 == 0 { 1.0 } else { 100.0 }).collect();
    same(cuda, &KMeans::new(4), &two, 1);
    for scale in [1e-40f32, 1e-30, 1e30] {
        same(cuda, &KMeans::new(3), &points.iter().map(|v| v * scale).collect::<Vec<_>>(), 3);
    }
    let mut with_outlier = points.clone();
    with_outlier.extend([1e30f32; 3]);
    same(cuda, &KMeans::new(4), &with_outlier, 3);
    // An empty cluster takes the farthest point.
    let found = lloyd_on(&**cuda, &[0.0, 1.0, 2.0, 10.0], 1, &[1.0, 1000.0], 100, 0.0).unwrap();
    assert_eq!((found.labels, found.centers, found.inertia), (vec![0, 0, 0, 1], vec![1.0, 10.0], 2.0));
}

/// One feature, two centres that f32 products cannot tell apart, points to either side of the border.
#[test]
fn near_ties_are_decided_in_f64() {
    let cuda = &cuda(Precision::Bf16);
    let (near, far) = (1.0f32, 1.0f32 + 2.0f32.powi(-20));
    let border = f64::midpoint(near.into(), far.into());
    let points = [near, far, (border - 2.0f64.powi(-22)) as f32, (border + 2.0f64.powi(-22)) as f32, 3.0];
    let centers = [f64::from(near), f64::from(far), 3.0];
    assert_eq!(lloyd_on(&**cuda, &points, 1, &centers, 0, 0.0).unwrap().labels, [0, 1, 0, 1, 2]);
}

#[test]
fn whatever_the_order_of_streams() {
    let cuda = &cuda(Precision::F32);
    let points = blobs(150, 6, 4, 0.5, 0.0);
    let initial: Vec<f64> = points[..24].iter().map(|&v| f64::from(v)).collect();
    let expected = lloyd(&points, 6, &initial, 10, 0.0).unwrap();
    for seed in 0..SEEDS {
        cuda.set_seed(seed);
        assert_eq!(lloyd_on(&**cuda, &points, 6, &initial, 10, 0.0).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn bad_input_is_the_same_error() {
    let cuda = &cuda(Precision::F32);
    let points = [0.0f32, 1.0, 2.0, f32::NAN];
    for (kmeans, points, dim) in [
        (KMeans::new(2), &points[..], 2),
        (KMeans::new(2), &[0.0, f32::INFINITY, 1.0], 1),
        (KMeans::new(0), &points[..2], 1),
        (KMeans::new(3), &points[..2], 1),
        (KMeans::new(1), &points[..3], 2),
        (KMeans::new(1), &[], 2),
        (KMeans { restarts: 0, ..KMeans::new(1) }, &points[..2], 1),
    ] {
        let [found, expected] = [kmeans.fit_on(&**cuda, points, dim), kmeans.fit(points, dim)];
        assert_eq!(found.unwrap_err().to_string(), expected.unwrap_err().to_string());
    }
}
