//! The kernels of k-means, to the bit: plain loops here are what the host does.

use disentangle::backend::cuda::kernel::{Slice, SliceMut};
use disentangle::backend::cuda::kmeans::{Assign, Distances, Gather, Move, Prepare, Sizes};

use crate::{Device, UNIT, device, numbers};

const NONE: u32 = u32::MAX;

/// Points, features, clusters, targets, runs: one of each, primes, tails of eight features, more features than a block's.
const SHAPES: [[usize; 5]; 6] =
    [[1, 1, 1, 1, 1], [7, 3, 2, 1, 2], [203, 37, 5, 2, 3], [64, 8, 9, 3, 3], [130, 131, 4, 2, 2], [300, 16, 1, 2, 5]];

/// Runs of the targets: not in order, and not the first ones.
fn runs(targets: usize, all: usize) -> Vec<u32> {
    (0..targets).map(|target| (all - 1 - target) as u32).collect()
}

/// Squared distance: eight sums side by side, then the rest.
fn squared(x: &[f32], center: &[f64]) -> f64 {
    let square = |(&x, &c): (&f32, &f64)| (f64::from(x) - c) * (f64::from(x) - c);
    let whole = x.len() / 8 * 8;
    let mut lanes = [0.0; 8];
    x[..whole].iter().zip(center).enumerate().for_each(|(i, pair)| lanes[i % 8] += square(pair));
    let rest = x[whole..].iter().zip(&center[whole..]).map(square).fold(0.0, |sum, d| sum + d);
    lanes.iter().fold(0.0, |sum, lane| sum + lane) + rest
}

fn labels(count: usize, clusters: usize, seed: f64) -> Vec<u32> {
    numbers(count, seed).iter().map(|v| (v.abs() * 1e3) as u32 % clusters as u32).collect()
}

#[test]
fn points_are_prepared_as_on_the_host() {
    let device = device();
    for [count, dim, ..] in SHAPES {
        let (x, shift, scale) = (numbers(count * dim, 3.0), numbers(dim, 0.5), 0.25f32);
        let (on_device, shift_there) = (device.upload(&x), device.upload(&shift));
        let mut y = device.unwritten::<f32>(x.len());
        let prepare = Prepare {
            x: Slice::of(&on_device, &device.stream),
            shift: Slice::of(&shift_there, &device.stream),
            y: SliceMut::of(&mut y, &device.stream),
            count: x.len() as u64,
            dim: dim as u32,
            scale: scale.into(),
        };
        prepare.launch(&device.kernels).unwrap();
        let exact: Vec<f32> = x.iter().enumerate().map(|(i, v)| v * scale - shift[i % dim]).collect();
        assert_eq!(device.download(&y), exact, "{count} x {dim}");
    }
}

/// Points between two centres, as near to the middle as f32 can tell and nearer, and products that are wrong by as much as they may
/// be: those alone would put points into the wrong clusters.
struct Assignment {
    x: Vec<f32>,
    lengths: Vec<f64>,
    dots: Vec<f32>,
    half: Vec<f64>,
    longest: Vec<f64>,
    centers: Vec<f64>,
    nearest: Vec<u32>,
    /// Points that the products would misplace.
    misled: usize,
}

impl Assignment {
    fn new([count, dim, clusters, targets, _]: [usize; 5]) -> Self {
        let centers: Vec<f64> = numbers(targets * clusters * dim, 1.0).into_iter().map(f64::from).collect();
        let center = |target: usize, c: usize| &centers[(target * clusters + c) * dim..][..dim];
        let near = |i: usize| {
            let (a, b) = (center(i % targets, i % clusters), center(i % targets, (i + 1) % clusters));
            let small = [0.0, 1e-7, 1e-5, 1.0][i % 4];
            (0..dim).map(move |f| ((a[f] + b[f]) / 2.0) as f32 + small * noise_at(f)).collect::<Vec<f32>>()
        };
        let x: Vec<f32> = (0..count).flat_map(near).collect();
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>();
        let lengths: Vec<f64> =
            x.chunks(dim).map(|row| length(&mut row.iter().map(|&v| f64::from(v))).sqrt()).collect();
        let half: Vec<f64> = centers.chunks(dim).map(|c| length(&mut c.iter().copied()) / 2.0).collect();
        let longest: Vec<f64> =
            half.chunks(clusters).map(|run| run.iter().fold(0.0f64, |a, &b| a.max(2.0 * b)).sqrt()).collect();
        let (mut dots, mut nearest, mut misled) = (Vec::new(), Vec::new(), 0);
        for (i, row) in x.chunks(dim).enumerate() {
            for target in 0..targets {
                // As wrong as the sum of `dim` products in f32 may be, one up, one down.
                let error = 0.9 * dim as f64 * UNIT * lengths[i] * longest[target];
                let first = dots.len();
                for c in 0..clusters {
                    let exact: f64 = row.iter().zip(center(target, c)).map(|(&x, c)| f64::from(x) * c).sum();
                    dots.push((exact + if (i + c).is_multiple_of(2) { error } else { -error }) as f32);
                }
                let least =
                    |key: &dyn Fn(usize) -> f64| (0..clusters).min_by(|&a, &b| key(a).total_cmp(&key(b))).unwrap_or(0);
                let label = least(&|c| squared(row, center(target, c)));
                let shown = least(&|c| half[target * clusters + c] - f64::from(dots[first + c]));
                misled += usize::from(label != shown);
                nearest.push(label as u32);
            }
        }
        Assignment { x, lengths, dots, half, longest, centers, nearest, misled }
    }
}

/// A number of either sign for a feature.
fn noise_at(f: usize) -> f32 {
    [0.7, -1.3, 0.2, -0.4, 1.1][f % 5]
}

#[test]
fn products_that_mislead_decide_no_label() {
    let device = device();
    for shape @ [count, dim, clusters, targets, all] in SHAPES {
        let a = Assignment::new(shape);
        let run = runs(targets, all);
        let stream = &device.stream;
        let (x, lengths, half) = (device.upload(&a.x), device.upload(&a.lengths), device.upload(&a.half));
        let (longest, centers, runs) = (device.upload(&a.longest), device.upload(&a.centers), device.upload(&run));
        let was = labels(count * all, clusters, 5.0);
        let (mut labels, mut before) = (device.upload(&was), device.upload(&vec![NONE; count * all]));
        let sizes = Sizes::new(count, dim, clusters, [targets, all]).unwrap();
        // In two parts, as points come that are too many for one product.
        let cut = count / 3;
        for (first, rows) in [(0, cut), (cut, count - cut)].into_iter().filter(|(_, rows)| *rows > 0) {
            let dots = device.upload(&a.dots[first * targets * clusters..][..rows * targets * clusters]);
            let assign = Assign {
                x: Slice::of(&x, stream),
                lengths: Slice::of(&lengths, stream),
                dots: Slice::of(&dots, stream),
                half: Slice::of(&half, stream),
                longest: Slice::of(&longest, stream),
                centers: Slice::of(&centers, stream),
                run: Slice::of(&runs, stream),
                labels: SliceMut::of(&mut labels, stream),
                before: SliceMut::of(&mut before, stream),
                sizes: sizes.part(first, rows),
            };
            assign.launch(&device.kernels).unwrap();
        }
        let (labels, before) = (device.download(&labels), device.download(&before));
        for row in 0..count {
            for r in 0..all {
                let at = row * all + r;
                match run.iter().position(|&run| run as usize == r) {
                    Some(target) => {
                        assert_eq!(labels[at], a.nearest[row * targets + target], "{shape:?} point {row} run {r}");
                        assert_eq!(before[at], was[at]);
                    }
                    None => assert_eq!((labels[at], before[at]), (was[at], NONE), "a run that is not at hand"),
                }
            }
        }
        assert!(clusters == 1 || count < 20 || a.misled > count / 20, "{shape:?}: {} misled", a.misled);
    }
}

/// Sums, counts and numbers of points that moved, after two assignments.
fn moved_twice(device: &Device, [count, dim, clusters, targets, all]: [usize; 5]) -> [Vec<f64>; 4] {
    let (stream, kernels) = (&device.stream, &device.kernels);
    let (rows, x) = (count.div_ceil(3), numbers(count * dim, 2.0));
    let ranges = count.div_ceil(rows);
    let sizes = Sizes::new(count, dim, clusters, [targets, all]).unwrap();
    let run = runs(targets, all);
    let history = [vec![NONE; count * all], labels(count * all, clusters, 1.0), labels(count * all, clusters, 2.0)];
    let (points, there) = (device.upload(&x), device.upload(&run));
    let mut sums = device.upload(&vec![0.0f64; ranges * all * clusters * dim]);
    let mut counts = device.upload(&vec![0u32; ranges * all * clusters]);
    let mut moved = device.unwritten::<u32>(ranges * targets);
    for pair in history.windows(2) {
        let (before, labels) = (device.upload(&pair[0]), device.upload(&pair[1]));
        let step = Move {
            x: Slice::of(&points, stream),
            labels: Slice::of(&labels, stream),
            before: Slice::of(&before, stream),
            run: Slice::of(&there, stream),
            sums: SliceMut::of(&mut sums, stream),
            counts: SliceMut::of(&mut counts, stream),
            moved: SliceMut::of(&mut moved, stream),
            range_rows: rows as u64,
            sizes,
        };
        step.launch(kernels).unwrap();
        stream.synchronize().unwrap();
    }
    let mut total = device.unwritten::<f64>(targets * clusters * dim);
    let gather = Gather {
        sums: Slice::of(&sums, stream),
        run: Slice::of(&there, stream),
        total: SliceMut::of(&mut total, stream),
        ranges: ranges as u32,
        sizes,
    };
    gather.launch(kernels).unwrap();
    let [counts, moved] = [&counts, &moved].map(|m| device.download(m).into_iter().map(f64::from).collect());
    [device.download(&sums), counts, moved, device.download(&total)]
}

#[test]
fn sums_follow_the_points_that_move() {
    let device = device();
    for shape @ [count, dim, clusters, targets, all] in SHAPES {
        let [sums, counts, moved, total] = moved_twice(&device, shape);
        let (rows, x) = (count.div_ceil(3), numbers(count * dim, 2.0));
        let ranges = count.div_ceil(rows);
        let history = [vec![NONE; count * all], labels(count * all, clusters, 1.0), labels(count * all, clusters, 2.0)];
        let (mut s, mut n) = (vec![0.0; sums.len()], vec![0.0; counts.len()]);
        let mut m = vec![0.0; moved.len()];
        for pair in history.windows(2) {
            m.fill(0.0);
            for row in 0..count {
                for (target, &run) in runs(targets, all).iter().enumerate() {
                    let at = row * all + run as usize;
                    let (range, [from, to]) = (row / rows, [pair[0][at], pair[1][at]]);
                    let place = |c: u32| (range * all + run as usize) * clusters + c as usize;
                    if from == to {
                        continue;
                    }
                    m[range * targets + target] += 1.0;
                    for (cluster, sign) in [(to, 1.0), (from, -1.0)].into_iter().filter(|(c, _)| *c != NONE) {
                        n[place(cluster)] += sign;
                        let sums = &mut s[place(cluster) * dim..][..dim];
                        sums.iter_mut().zip(&x[row * dim..]).for_each(|(sum, &v)| *sum += sign * f64::from(v));
                    }
                }
            }
        }
        assert_eq!((&sums, &counts, &moved), (&s, &n, &m), "{shape:?}");
        let size = clusters * dim;
        let exact: Vec<f64> = (runs(targets, all).iter())
            .flat_map(|&run| (0..size).map(move |i| (run as usize, i)))
            .map(|(run, i)| (0..ranges).map(|range| s[(range * all + run) * size + i]).fold(0.0, |a, b| a + b))
            .collect();
        assert_eq!(total, exact, "{shape:?}");
    }
}

/// Of all points to the centres of their clusters.
fn distances(device: &Device, [count, dim, clusters, targets, all]: [usize; 5]) -> Vec<f64> {
    let (stream, sizes) = (&device.stream, Sizes::new(count, dim, clusters, [targets, all]).unwrap());
    let (x, labels) = (device.upload(&numbers(count * dim, 2.0)), device.upload(&labels(count * all, clusters, 3.0)));
    let centers: Vec<f64> = numbers(targets * clusters * dim, 0.3).into_iter().map(|v| f64::from(v) / 3.0).collect();
    let (centers, run) = (device.upload(&centers), device.upload(&runs(targets, all)));
    let mut found = device.unwritten::<f64>(count * targets);
    let launch = Distances {
        x: Slice::of(&x, stream),
        labels: Slice::of(&labels, stream),
        centers: Slice::of(&centers, stream),
        run: Slice::of(&run, stream),
        distances: SliceMut::of(&mut found, stream),
        sizes,
    };
    launch.launch(&device.kernels).unwrap();
    device.download(&found)
}

#[test]
fn distances_are_the_hosts() {
    let device = device();
    for shape @ [count, dim, clusters, targets, all] in SHAPES {
        let (x, labels) = (numbers(count * dim, 2.0), labels(count * all, clusters, 3.0));
        let centers: Vec<f64> =
            numbers(targets * clusters * dim, 0.3).into_iter().map(|v| f64::from(v) / 3.0).collect();
        let run = runs(targets, all);
        let exact = |i: usize| {
            let (row, target) = (i / targets, i % targets);
            let label = labels[row * all + run[target] as usize] as usize;
            squared(&x[row * dim..][..dim], &centers[(target * clusters + label) * dim..][..dim])
        };
        let exact: Vec<f64> = (0..count * targets).map(exact).collect();
        assert_eq!(distances(&device, shape), exact, "{shape:?}");
    }
}

/// What determinism.rs repeats.
pub fn everything(device: &Device) -> Vec<Vec<f64>> {
    let shape = [203, 37, 5, 2, 3];
    let mut results = moved_twice(device, shape).to_vec();
    results.push(distances(device, shape));
    results
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    for [rows, dim, clusters, targets, runs] in
        [[0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 1, 0, 1], [1, 1, 1, 2, 1], [usize::MAX, 2, 1, 1, 1]]
    {
        assert!(Sizes::new(rows, dim, clusters, [targets, runs]).is_err());
    }
    let device = device();
    let x = device.upload(&[0.0f32; 12]);
    let mut y = device.unwritten::<f32>(12);
    let prepare = Prepare {
        x: Slice::of(&x, &device.stream),
        shift: Slice::of(&x, &device.stream),
        y: SliceMut::of(&mut y, &device.stream),
        count: 12,
        dim: 4,
        scale: 1.0,
    };
    let problem = prepare.launch(&device.kernels).unwrap_err().to_string();
    assert!(problem.contains("shift has 12 elements, not 4"), "{problem}");
}
