use super::*;
use rayon::prelude::*;

/// Blobs in `dim` dimensions, and which each point is of.
fn blobs(n: usize, dim: usize, count: usize, spread: f64) -> (Vec<f32>, Vec<usize>) {
    let mut random = stream(9, Purpose::Probe, 0, 0, 0);
    let centres: Vec<f64> = (0..count * dim).map(|_| 3.0 * random.normal()).collect();
    let labels: Vec<usize> = (0..n).map(|_| random.below(count as u32) as usize).collect();
    let mut point = |label: usize| -> Vec<f32> {
        centres[label * dim..][..dim].iter().map(|c| (c + spread * random.normal()) as f32).collect()
    };
    (labels.iter().flat_map(|&l| point(l)).collect(), labels)
}

/// The divergence by its formula, over all ordered pairs.
fn direct(affinities: &Affinities, y: &[[f64; 2]]) -> f64 {
    let n = y.len();
    let w = |i: usize, j: usize| 1.0 / (1.0 + (y[i][0] - y[j][0]).powi(2) + (y[i][1] - y[j][1]).powi(2));
    let pairs = || (0..n).flat_map(move |i| (0..n).filter(move |&j| j != i).map(move |j| (i, j)));
    let z: f64 = pairs().map(|(i, j)| w(i, j)).sum();
    let p = |i: usize, j: usize| affinities.row(i).find(|r| r.0 == j).map_or(0.0, |r| r.1);
    let term = |(i, j)| {
        let p = p(i, j);
        if p > 0.0 { p * (p / (w(i, j) / z)).ln() } else { 0.0 }
    };
    pairs().map(term).sum()
}

fn affinities_of(points: &[f32], dim: usize, perplexity: f64) -> Affinities {
    Affinities::new(&points.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), dim, perplexity)
}

#[test]
fn the_divergence_is_its_formula() {
    let (points, _) = blobs(150, 6, 3, 0.7);
    let map = Tsne::default().map(&points, 6).unwrap();
    assert_eq!(map.perplexity, 30.0);
    // Similarities do not change with a rotation and a shift: those of the points are those of the components.
    let expected = direct(&affinities_of(&points, 6, 30.0), &map.positions);
    assert!((map.kl_divergence - expected).abs() < 1e-9, "{} {expected}", map.kl_divergence);
    assert!(map.kl_divergence > 0.01 && map.kl_divergence < 1.0);
}

#[test]
fn the_gradient_is_the_divergences() {
    let (points, _) = blobs(60, 4, 2, 1.0);
    let affinities = affinities_of(&points, 4, 10.0);
    let mut random = stream(3, Purpose::Probe, 1, 0, 0);
    let y: Vec<[f64; 2]> = (0..60).map(|_| [2.0 * random.normal(), random.normal()]).collect();
    let slopes = descent::gradient(&affinities, &y, 1.0, 0.0);
    let step = 1e-5;
    for (i, d) in (0..60).step_by(7).flat_map(|i| [(i, 0), (i, 1)]) {
        let at = |by: f64| {
            let mut y = y.clone();
            y[i][d] += by;
            direct(&affinities, &y)
        };
        // Central differences: a third derivative of order 1 times step^2, and rounding of order 1e-15 / step.
        let expected = (at(step) - at(-step)) / (2.0 * step);
        assert!((slopes[i][d] - expected).abs() < 1e-8, "{i} {d}: {} {expected}", slopes[i][d]);
    }
    // Exaggeration multiplies the attraction alone: linear in it.
    let [two, three] = [2.0, 3.0].map(|e| descent::gradient(&affinities, &y, e, 0.0));
    let linear = |i: usize| (0..2).all(|d| (three[i][d] - 2.0 * two[i][d] + slopes[i][d]).abs() < 1e-12);
    assert!((0..60).all(linear));
}

#[test]
fn clusters_stay_together() {
    let (points, labels) = blobs(600, 60, 5, 1.0);
    let map = Tsne::default().map(&points, 60).unwrap();
    let nearest = |i: usize| {
        let distance = |j: &usize| {
            let (a, b) = (map.positions[i], map.positions[*j]);
            (a[0] - b[0]).hypot(a[1] - b[1])
        };
        (0..600).filter(|&j| j != i).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
    };
    // Centres are 3 sqrt(2 x 60) = 33 apart, points 1 from theirs in every direction: no neighbour is of another blob.
    assert!((0..600).into_par_iter().all(|i| labels[nearest(i)] == labels[i]));
}

#[test]
fn the_same_bits_at_any_number_of_threads() {
    let (points, _) = blobs(700, 70, 4, 2.0);
    let tsne = Tsne { iterations: 300, ..Tsne::default() };
    let at = |threads: usize, tsne: &Tsne| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| tsne.map(&points, 70).unwrap())
    };
    let one = at(1, &tsne);
    assert!(one == at(2, &tsne) && one == at(3, &tsne));
    let random = Tsne { init: Init::Random, ..tsne };
    let other = Tsne { seed: 7, ..random.clone() };
    assert!(at(1, &random) == at(2, &random) && at(2, &random) != at(2, &other));
}

#[test]
fn few_points_get_a_map() {
    for n in 1..=8 {
        let (points, _) = blobs(n, 5, 2, 0.5);
        let map = Tsne::default().map(&points, 5).unwrap();
        assert_eq!(map.positions.len(), n);
        assert!(map.kl_divergence.is_finite() && map.kl_divergence >= 0.0, "{n}: {map:?}");
        assert_eq!(map.perplexity, [0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 7.0 / 3.0][n - 1]);
        let apart = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).all(|(i, j)| map.positions[i] != map.positions[j]);
        assert!(apart, "{n}");
    }
    // Two points: all the similarity is theirs, and all the weight.
    assert!(Tsne::default().map(&[1.0, 5.0], 1).unwrap().kl_divergence < 1e-12);
}

#[test]
fn identical_points_get_a_map() {
    for n in [2, 3, 40, 200] {
        let map = Tsne::default().map(&vec![0.25; n * 3], 3).unwrap();
        assert!(map.positions.iter().flatten().all(|v| v.is_finite()) && map.kl_divergence.is_finite(), "{n}");
    }
    // Every point twice: the two of a pair stay together.
    let (points, _) = blobs(100, 4, 3, 1.0);
    let map = Tsne::default().map(&points.chunks(4).flat_map(|p| [p, p].concat()).collect::<Vec<_>>(), 4).unwrap();
    let (low, high) = map.positions.iter().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p[0]), h.max(p[0])));
    assert!(map.positions.chunks(2).all(|p| (p[0][0] - p[1][0]).hypot(p[0][1] - p[1][1]) < 0.1 * (high - low)));
}

#[test]
fn one_dimension_and_odd_scales_get_a_map() {
    // Powers of two change no bit of the similarities, nor of the map.
    let at = |scale: f32| {
        let points: Vec<f32> = (0..50).map(|i| scale * ((i * 29) % 50) as f32).collect();
        Tsne { perplexity: 5.0, ..Tsne::default() }.map(&points, 1).unwrap()
    };
    let one = at(1.0);
    assert!(one.kl_divergence > 0.0 && one.kl_divergence < 0.7, "{}", one.kl_divergence);
    assert!(one == at(2.0f32.powi(-60)) && one == at(2.0f32.powi(50)));
}

#[test]
fn bad_input_is_an_error() {
    let map = |points: &[f32], dim| Tsne::default().map(points, dim);
    for bad in [f32::NAN, f32::INFINITY] {
        let problem = map(&[1.0, 2.0, 3.0, bad], 2).unwrap_err();
        assert!(matches!(problem, Error::NonFinite(_)) && problem.to_string().contains("row 1"), "{problem}");
    }
    assert!(matches!(map(&[1.0; 3], 2), Err(Error::Shape { .. })) && map(&[], 2).is_err());
    let default = Tsne::default;
    for bad in [
        Tsne { perplexity: 0.5, ..default() },
        Tsne { perplexity: f64::NAN, ..default() },
        Tsne { theta: 0.8, ..default() },
        Tsne { theta: -0.1, ..default() },
        Tsne { exaggeration: 0.0, ..default() },
    ] {
        assert!(matches!(bad.map(&[0.0, 1.0], 1), Err(Error::Usage(_))), "{bad:?}");
    }
}
