//! The procedural data set: always the same, balanced, its factors independent and true.

use disentangle::data::source::{self, shapes::Shapes};
use disentangle::data::{Factor, Source, SourceOptions};

#[test]
fn pixels_are_golden() {
    let stamp = |px| {
        let shapes = Shapes::new(300, px).unwrap();
        let mut crc = crc32fast::Hasher::new();
        (0..300).for_each(|i| crc.update(shapes.read(i).unwrap().as_ref().pixels()));
        (0..300).for_each(|i| shapes.factors().iter().for_each(|f| crc.update(&f.labels[i].to_le_bytes())));
        crc.finalize()
    };
    // A change of these is a change of the data set: every published number with it.
    assert_eq!([stamp(48), stamp(32)].map(|crc| format!("{crc:08x}")), ["163376ea", "623515cd"]);
}

#[test]
fn by_name() {
    let open = |name: &str| source::open(name, &SourceOptions::default());
    let small = open("shapes:30").unwrap();
    assert_eq!(small.describe(), "procedural shapes, 30 images, 10 classes");
    assert_eq!((small.name(17).as_ref(), small.label(17)), ("shapes#17", Some(7)));
    // More images are more of the same.
    let default = open("shapes").unwrap();
    assert_eq!((default.len(), default.read(29).unwrap()), (4000, small.read(29).unwrap()));
    for (name, says) in [("shapes:0", "0 images"), ("shapes:x", "`x` is not a number"), ("shapes:", "is not a number")]
    {
        let error = open(name).err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(says), "{error}");
    }
    for options in [
        SourceOptions { shapes_px: 8, ..Default::default() },
        SourceOptions { split: source::Split::Test, ..Default::default() },
    ] {
        assert_eq!(source::open("shapes", &options).err().unwrap().exit_code(), 2);
    }
}

#[test]
fn factors_are_uniform_and_independent() {
    const N: usize = 9_000;
    let shapes = Shapes::new(N, 16).unwrap();
    let class = Factor {
        name: "shape".into(),
        values: shapes.classes().to_vec(),
        labels: (0..N).map(|i| shapes.label(i).unwrap()).collect(),
    };
    let factors: Vec<&Factor> = std::iter::once(&class).chain(shapes.factors()).collect();
    assert_eq!(factors.len(), 6);
    // P(chi2 >= dof + 2 sqrt(dof t) + 2t) <= exp(-t) (Laurent and Massart 2000); t = 14 over 20 tests: below 2e-5.
    let bound = |dof: f64| dof + 2.0 * (dof * 14.0).sqrt() + 28.0;
    for (k, a) in factors.iter().enumerate() {
        let mut counts = vec![0.0; a.values.len()];
        a.labels.iter().for_each(|&v| counts[v as usize] += 1.0);
        let chi2 = chi_square(&counts, N as f64 / a.values.len() as f64);
        assert!(chi2 < bound(a.values.len() as f64 - 1.0), "{} is not uniform: {chi2}", a.name);
        for b in &factors[..k] {
            let mut counts = vec![0.0; a.values.len() * b.values.len()];
            a.labels.iter().zip(&b.labels).for_each(|(&v, &w)| counts[v as usize * b.values.len() + w as usize] += 1.0);
            let chi2 = chi_square(&counts, N as f64 / counts.len() as f64);
            assert!(chi2 < bound(counts.len() as f64 - 1.0), "{} depends on {}: {chi2}", a.name, b.name);
        }
    }
}

fn chi_square(counts: &[f64], expected: f64) -> f64 {
    counts.iter().map(|n| (n - expected).powi(2) / expected).sum()
}

/// What can be measured on an image: the pixels of the shape are the bright ones.
struct Measured {
    area: f64,
    /// Mean position, in half image sides from the middle.
    centre: [f64; 2],
    /// Mean colour, 0..1.
    colour: [f64; 3],
}

fn measure(shapes: &Shapes, i: usize, px: usize) -> Measured {
    let image = shapes.read(i).unwrap();
    let mut m = Measured { area: 0.0, centre: [0.0; 2], colour: [0.0; 3] };
    for (at, pixel) in image.as_ref().pixels().chunks(3).enumerate() {
        // The background's channels stay below 0.4, the shape's largest above 0.46.
        if pixel.iter().max() > Some(&110) {
            m.area += 1.0;
            m.centre[0] += (at % px) as f64 + 0.5;
            m.centre[1] += (at / px) as f64 + 0.5;
            (0..3).for_each(|c| m.colour[c] += f64::from(pixel[c]) / 255.0);
        }
    }
    m.centre = m.centre.map(|sum| sum / m.area * 2.0 / px as f64 - 1.0);
    m.colour = m.colour.map(|sum| sum / m.area);
    m
}

#[test]
fn labels_tell_what_is_seen() {
    const PX: usize = 64;
    const N: usize = 1_000;
    let shapes = Shapes::new(N, PX).unwrap();
    let [colour, texture, size, position, _] = shapes.factors() else { panic!("five factors") };
    let mut plain = vec![Vec::new(); colour.values.len()];
    // Circles: centre and area do not depend on their rotation.
    for i in (0..N).step_by(10) {
        let m = measure(&shapes, i, PX);
        let cell = m.centre.map(|c| {
            if c < -0.065 {
                0
            } else if c > 0.065 {
                2
            } else {
                1
            }
        });
        assert_eq!(cell[1] * 3 + cell[0], position.labels[i], "position of image {i}: {:?}", m.centre);
        let radius = (m.area / std::f64::consts::PI).sqrt() * 2.0 / PX as f64 / 0.78;
        let nearest = [0.58, 0.68, 0.78].iter().position(|r| (radius - r * 0.985).abs() < 0.04);
        assert_eq!(nearest, Some(size.labels[i] as usize), "size of image {i}: {radius}");
    }
    for i in (0..N).filter(|&i| texture.labels[i] == 0) {
        plain[colour.labels[i] as usize].push(measure(&shapes, i, PX).colour);
    }
    // Plain shapes of one colour look alike, and unlike those of any other.
    let means: Vec<[f64; 3]> = plain
        .iter()
        .map(|seen| std::array::from_fn(|c| seen.iter().map(|rgb| rgb[c]).sum::<f64>() / seen.len() as f64))
        .collect();
    let distance = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|c| (a[c] - b[c]).powi(2)).sum::<f64>().sqrt();
    for (value, seen) in plain.iter().enumerate() {
        for rgb in seen {
            let nearest =
                (0..means.len()).min_by(|&a, &b| distance(rgb, &means[a]).total_cmp(&distance(rgb, &means[b])));
            assert_eq!(nearest, Some(value), "{} looks {rgb:?}", colour.values[value]);
        }
    }
    // The names are right: which channels of the mean are above the middle of its range.
    let high = |rgb: &[f64; 3]| {
        let middle = (rgb.iter().cloned().fold(0.0, f64::max) + rgb.iter().cloned().fold(1.0, f64::min)) / 2.0;
        rgb.map(|v| v > middle)
    };
    let (t, f) = (true, false);
    for (name, expected) in [
        ("red", [t, f, f]),
        ("yellow", [t, t, f]),
        ("green", [f, t, f]),
        ("cyan", [f, t, t]),
        ("blue", [f, f, t]),
        ("purple", [t, f, t]),
    ] {
        let value = colour.values.iter().position(|v| v == name).unwrap();
        let seen = high(&means[value]);
        assert!(name == "purple" || seen == expected, "{name} looks {:?}", means[value]);
        assert!(name != "purple" || seen[2] && !seen[1], "{name} looks {:?}", means[value]);
    }
}
