use super::points::direct_distance;
use super::*;
use crate::rng::{Purpose, stream};

/// `count` points around `centers` well separated places (`apart` standard deviations), moved by `offset`.
fn blobs(count: usize, dim: usize, centers: usize, apart: f64, offset: f64) -> (Vec<f32>, Vec<u32>) {
    let mut random = stream(7, Purpose::Shapes, 0, 0, 0);
    let places: Vec<f64> = (0..centers * dim).map(|_| apart * random.normal()).collect();
    let labels: Vec<u32> = (0..count).map(|_| random.below(centers as u32)).collect();
    let of = |&label: &u32| places[label as usize * dim..][..dim].to_vec();
    let points = labels.iter().flat_map(of).map(|place| (place + random.normal() + offset) as f32).collect();
    (points, labels)
}

/// Lloyd's algorithm as the textbook has it, in f64, with direct distances.
fn textbook(points: &[f32], dim: usize, mut centers: Vec<f64>) -> (Vec<u32>, Vec<f64>) {
    let clusters = centers.len() / dim;
    loop {
        let nearest = |x: &[f32]| {
            let distance =
                |c: usize| x.iter().zip(&centers[c * dim..]).map(|(&x, c)| (f64::from(x) - c).powi(2)).sum::<f64>();
            (0..clusters).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap()
        };
        let labels: Vec<usize> = points.chunks(dim).map(nearest).collect();
        let mut new = vec![0.0; clusters * dim];
        for (x, &label) in points.chunks(dim).zip(&labels) {
            x.iter().zip(&mut new[label * dim..]).for_each(|(&x, sum)| *sum += f64::from(x));
        }
        for c in 0..clusters {
            let count = labels.iter().filter(|&&l| l == c).count() as f64;
            assert!(count > 0.0, "choose centres that keep their points");
            new[c * dim..][..dim].iter_mut().for_each(|v| *v /= count);
        }
        if new.iter().zip(&centers).all(|(a, b)| (a - b).abs() < 1e-12) {
            return (labels.iter().map(|&l| l as u32).collect(), new);
        }
        centers = new;
    }
}

#[test]
fn lloyd_is_the_textbooks_also_far_from_the_origin() {
    // Overlapping blobs, so that many points lie near a border; sizes that fill neither blocks nor lanes. An offset of
    // 4096 leaves the points 2^-11 in f32 and would leave the squared lengths only 2^4 of the distances' 2^7.
    for (count, dim, offset) in [(700, 37, 0.0), (300, 5, 4096.0), (513, 64, -4096.0)] {
        let (points, _) = blobs(count, dim, 6, 0.5, offset);
        let initial: Vec<f64> = points[..6 * dim].iter().map(|&v| f64::from(v)).collect();
        let (labels, centers) = textbook(&points, dim, initial.clone());
        let ours = lloyd(&points, dim, &initial, 1000, 0.0).unwrap();
        assert_eq!(ours.labels, labels);
        // Both are means of the same f32 numbers in f64; ours collects up to 2 roundings a move.
        assert!(ours.centers.iter().zip(&centers).all(|(a, b)| (a - b).abs() < 1e-10 * (1.0 + b.abs())));
        let of = |l: u32| &centers[l as usize * dim..][..dim];
        let inertia: f64 = points.chunks(dim).zip(&labels).map(|(x, &l)| direct_distance(x, of(l))).sum();
        assert!((ours.inertia - inertia).abs() < 1e-9 * inertia);
    }
}

#[test]
fn near_ties_are_decided_in_f64() {
    // One feature, centres at 1 and 1 + 2^-20, points 2^-24 to either side of the border: f32 products see no difference.
    let (near, far) = (1.0f32, 1.0f32 + 2.0f32.powi(-20));
    let border = f64::midpoint(near.into(), far.into());
    let points = [near, far, (border - 2.0f64.powi(-22)) as f32, (border + 2.0f64.powi(-22)) as f32, 3.0];
    let centers = [f64::from(near), f64::from(far), 3.0];
    assert_eq!(lloyd(&points, 1, &centers, 0, 0.0).unwrap().labels, [0, 1, 0, 1, 2]);
}

#[test]
fn any_magnitude_will_do() {
    let (points, truth) = blobs(200, 4, 3, 30.0, 0.0);
    for scale in [1e-40f32, 1e-30, 1.0, 1e30] {
        let scaled: Vec<f32> = points.iter().map(|v| v * scale).collect();
        let found = KMeans::new(3).fit(&scaled, 4).unwrap();
        assert_eq!(crate::eval::metrics::acc(&truth, &found.labels).unwrap(), 1.0, "scale {scale}");
    }
    // One point far out: the others' products underflow beside it, their differences must not.
    let mut with_outlier = points.clone();
    with_outlier.extend([1e30f32; 4]);
    let found = KMeans::new(4).fit(&with_outlier, 4).unwrap();
    assert_eq!(found.labels.iter().filter(|&&l| l == found.labels[200]).count(), 1);
}

#[test]
fn the_same_bits_at_any_number_of_threads() {
    // Several blocks, groups of restarts that do not fit one product, and a relocation or two.
    for (count, dim, clusters, apart) in [(1500, 33, 7, 0.4), (700, 8, 60, 1.0)] {
        let (points, _) = blobs(count, dim, clusters, apart, 10.0);
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| KMeans::new(clusters).fit(&points, dim).unwrap())
        };
        let one = at(1);
        for threads in [2, 3] {
            let many = at(threads);
            assert_eq!(one, many);
            assert_eq!(one.inertia.to_bits(), many.inertia.to_bits());
        }
    }
}

#[test]
fn restarts_are_named_by_their_number() {
    let (points, _) = blobs(400, 6, 8, 1.0, 0.0);
    let fit = |restarts| KMeans { restarts, tolerance: 0.0, ..KMeans::new(8) }.fit(&points, 6).unwrap();
    let inertias: Vec<f64> = [1, 2, 5, 40].into_iter().map(|r| fit(r).inertia).collect();
    // More restarts include the fewer.
    assert!(inertias.is_sorted_by(|a, b| a >= b), "{inertias:?}");
    let other = KMeans { seed: 43, restarts: 1, ..KMeans::new(8) }.fit(&points, 6).unwrap();
    assert_ne!(other.labels, fit(1).labels);
}

#[test]
fn separated_blobs_are_found() {
    // The nearest two of 12 places with standard normal coordinates times 8 in 16 dimensions are more than 20 standard
    // deviations apart with near certainty; greedy seeding then hits every one.
    let (points, truth) = blobs(2000, 16, 12, 8.0, 0.0);
    let found = KMeans::new(12).fit(&points, 16).unwrap();
    assert_eq!(crate::eval::metrics::acc(&truth, &found.labels).unwrap(), 1.0);
    // Sum of 2000 * 16 squared unit normals less the 12 * 16 fitted means: mean 31,808, deviation 252.
    assert!((found.inertia - 31_808.0).abs() < 6.0 * 252.0, "{}", found.inertia);
}

#[test]
fn degenerate_inputs_work() {
    let one = KMeans::new(1).fit(&[3.0, 4.0], 2).unwrap();
    assert_eq!((one.labels, one.centers, one.inertia), (vec![0], vec![3.0, 4.0], 0.0));
    let (points, _) = blobs(40, 3, 4, 2.0, 0.0);
    // As many clusters as points: every point its own centre.
    let mut all = KMeans::new(40).fit(&points, 3).unwrap();
    assert_eq!(all.inertia, 0.0);
    all.labels.sort_unstable();
    assert_eq!(all.labels, (0..40).collect::<Vec<u32>>());
    // All points the same, and only two distinct ones: clusters stay empty, nothing fails, nothing is lost.
    let same = KMeans::new(5).fit(&[0.1; 60], 3).unwrap();
    assert_eq!((same.inertia, same.labels.len()), (0.0, 20));
    assert!(same.centers.iter().all(|c| (c - f64::from(0.1f32)).abs() < 1e-15));
    let two: Vec<f32> = (0..30).map(|i| if i % 3 == 0 { 1.0 } else { 100.0 }).collect();
    let split = KMeans::new(4).fit(&two, 1).unwrap();
    assert_eq!(split.inertia, 0.0);
    assert!((0..30).all(|i| (split.labels[i] == split.labels[0]) == (i % 3 == 0)));
}

#[test]
fn an_empty_cluster_takes_the_farthest_point() {
    // All points are nearer to the first centre; the second then gets the farthest of them.
    let points = [0.0f32, 1.0, 2.0, 10.0];
    let found = lloyd(&points, 1, &[1.0, 1000.0], 100, 0.0).unwrap();
    assert_eq!((found.labels, found.centers, found.inertia), (vec![0, 0, 0, 1], vec![1.0, 10.0], 2.0));
}

#[test]
fn stopping_rules_stop() {
    let (points, _) = blobs(900, 10, 5, 0.5, 0.0);
    let initial: Vec<f64> = points[..50].iter().map(|&v| f64::from(v)).collect();
    let full = lloyd(&points, 10, &initial, 1000, 0.0).unwrap();
    let loose = lloyd(&points, 10, &initial, 1000, 1e-2).unwrap();
    let short = lloyd(&points, 10, &initial, 3, 0.0).unwrap();
    assert!(short.iterations == 3 && loose.iterations < full.iterations && full.iterations < 1000);
    assert!(short.inertia >= full.inertia && loose.inertia >= full.inertia);
    // However it ended, every point is with its nearest centre.
    for run in [&full, &loose, &short] {
        let again = lloyd(&points, 10, &run.centers, 0, 0.0).unwrap();
        assert_eq!(again.labels, run.labels);
    }
}

#[test]
fn bad_input_is_an_error() {
    let points = [0.0f32, 1.0, 2.0, f32::NAN];
    let says = |result: Result<Clustering>, text: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    says(KMeans::new(2).fit(&points, 2), "row 1");
    says(KMeans::new(0).fit(&points[..2], 1), "0 clusters");
    says(KMeans::new(3).fit(&points[..2], 1), "ask for 1 to 2");
    says(KMeans::new(1).fit(&points[..3], 2), "3 numbers");
    says(KMeans::new(1).fit(&[], 2), "0 numbers");
    says(KMeans::new(1).fit(&points[..2], 0), "rows of 0");
    says(KMeans { restarts: 0, ..KMeans::new(1) }.fit(&points[..2], 1), "restart");
    says(lloyd(&points[..2], 2, &[0.0; 3], 10, 0.0), "initial centres");
    says(lloyd(&points[..2], 2, &[0.0, f64::NAN], 10, 0.0), "initial centre 0");
    says(lloyd(&points[..2], 2, &[], 10, 0.0), "0 clusters");
}
