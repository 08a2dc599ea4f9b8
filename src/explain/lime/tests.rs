use super::*;
use crate::data::Image;
use crate::explain::slic::Slic;

const SIDE: usize = 32;

/// An image of noise, whose superpixels all change when they are covered.
fn picture() -> Image {
    let mut random = stream(5, Purpose::Probe, 0, 0, 0);
    Image::new(SIDE, SIDE, (0..SIDE * SIDE * 3).map(|_| random.below(256) as u8).collect()).unwrap()
}

/// A grid of `columns` x `columns` superpixels.
fn grid(columns: usize) -> Superpixels {
    let cell = SIDE / columns;
    let labels = (0..SIDE * SIDE).map(|i| (i % SIDE / cell + columns * (i / SIDE / cell)) as u32).collect();
    Superpixels { width: SIDE, height: SIDE, labels, count: columns * columns }
}

/// Which superpixels of `image` are left in `pixels`.
fn left(image: &Image, superpixels: &Superpixels, pixels: &[u8]) -> Vec<bool> {
    let mut kept = vec![true; superpixels.count];
    for (i, (a, b)) in image.as_ref().pixels().chunks(3).zip(pixels.chunks(3)).enumerate() {
        kept[superpixels.labels[i] as usize] &= a == b;
    }
    kept
}

/// Explains heads of a network that sees which superpixels are left.
fn explain(
    lime: &Lime,
    superpixels: &Superpixels,
    batch: usize,
    heads: &[usize],
    see: &(dyn Fn(&[bool]) -> Vec<f32> + Sync),
) -> Result<Vec<Explanation>> {
    let image = picture();
    let mut answer = |pixels: &[u8]| {
        assert!(pixels.len() <= batch * SIDE * SIDE * 3, "more than a batch at once");
        Ok(pixels.chunks(SIDE * SIDE * 3).flat_map(|p| see(&left(&image, superpixels, p))).collect())
    };
    let all = see(&vec![true; superpixels.count]).len();
    let mut network = Network { side: SIDE, heads: all, batch, answer: &mut answer };
    lime.explain(&mut network, image.as_ref(), 3, superpixels, heads, &mut |_| ())
}

#[test]
fn a_linear_head_has_its_weights() {
    let truth: Vec<f64> = (0..16).map(|i| 0.01 * f64::from(i) - 0.03).collect();
    let linear = |kept: &[bool]| {
        let sum: f64 = truth.iter().zip(kept).filter(|(_, kept)| **kept).map(|(w, _)| w).sum();
        vec![0.5, (0.2 + sum) as f32]
    };
    let exact = Lime { samples: 400, ridge: 1e-9, ..Lime::default() };
    let got = explain(&exact, &grid(4), 64, &[1], &linear).unwrap().remove(0);
    // The model is the truth but for outputs rounded to f32 (3e-8 of 0.5) and a ridge of 1e-9 beside a weight of over 10.
    assert!(got.weights.iter().zip(&truth).all(|(a, b)| (a - b).abs() < 1e-6), "{:?}", got.weights);
    assert!((got.intercept - 0.2).abs() < 1e-6 && got.r2.unwrap() > 1.0 - 1e-9);
    assert!((got.output - (0.2 + truth.iter().sum::<f64>())).abs() < 1e-7 && got.head == 1);
    assert_eq!(got.shown, [15, 14, 13, 12, 11]);
    // Ridge 1 shrinks, in the mean, by ridge / (total weight x variance 1/4): 1,250 samples' worth of weight at least.
    let usual = explain(&Lime::default(), &grid(4), 64, &[1], &linear).unwrap().remove(0);
    assert!(usual.weights.iter().zip(&truth).all(|(a, b)| (a - b).abs() < 0.12 * 4.0 / 1250.0), "{:?}", usual.weights);
    assert!(usual.r2.unwrap() > 0.999);
}

#[test]
fn weights_are_those_of_the_normal_equations() {
    // A head that is not linear, on three superpixels with eight equally likely samples: the fit over many samples nears
    // the weighted regression over the eight, solved here by hand for products of two superpixels.
    let superpixels = Superpixels {
        width: SIDE,
        height: SIDE,
        labels: (0..SIDE * SIDE).map(|i| (i % SIDE / 11) as u32).collect(),
        count: 3,
    };
    let both = |kept: &[bool]| vec![f32::from(u8::from(kept[0] && kept[1]))];
    let lime = Lime { samples: 40_000, kernel_width: 1e6, ridge: 1e-9, ..Lime::default() };
    let got = explain(&lime, &superpixels, 500, &[0], &both).unwrap().remove(0);
    // Equal weights: y = z0 z1 has regression 1/2 on z0 and z1, 0 on z2, intercept -1/4, R^2 = 2 (1/4)(1/4) / (3/16).
    let expected = [0.5, 0.5, 0.0];
    // Deviation of a coefficient: residual 1/4 over sqrt(n / 4); six of them.
    let near = 6.0 * 0.25 / (40_000.0f64 / 4.0).sqrt();
    assert!(got.weights.iter().zip(expected).all(|(a, b)| (a - b).abs() < near), "{:?}", got.weights);
    assert!((got.intercept + 0.25).abs() < 2.0 * near && (got.r2.unwrap() - 2.0 / 3.0).abs() < 0.03);
}

#[test]
fn a_head_that_looks_at_one_region_is_found_out() {
    // It sees how much of the square (8..20, 4..12) is as it was, through superpixels that know nothing of it.
    let image = picture();
    let superpixels = Slic { superpixels: 40, ..Slic::default() }.segment(image.as_ref()).unwrap();
    let inside = |i: usize| (8..20).contains(&(i % SIDE)) && (4..12).contains(&(i / SIDE));
    let mut answer = |pixels: &[u8]| {
        let one = |p: &[u8]| {
            let same = image.as_ref().pixels().chunks(3).zip(p.chunks(3)).enumerate();
            let left = same.filter(|(i, (a, b))| inside(*i) && a == b).count();
            left as f32 / 96.0
        };
        Ok(pixels.chunks(SIDE * SIDE * 3).map(one).collect())
    };
    let mut network = Network { side: SIDE, heads: 1, batch: 100, answer: &mut answer };
    let lime = Lime { samples: 1000, ..Lime::default() };
    let got = lime.explain(&mut network, image.as_ref(), 0, &superpixels, &[0], &mut |_| ()).unwrap().remove(0);
    let mut share = vec![0.0; superpixels.count];
    superpixels
        .labels
        .iter()
        .enumerate()
        .filter(|(i, _)| inside(*i))
        .for_each(|(_, &l)| share[l as usize] += 1.0 / 96.0);
    // Noise hardly ever meets its mean, so the head is linear in the superpixels; ridge 1 beside 100 of weight.
    assert!(got.weights.iter().zip(&share).all(|(a, b)| (a - b).abs() < 0.02), "{:?} {share:?}", got.weights);
    let best = |v: &[f64]| (0..v.len()).max_by(|&a, &b| v[a].total_cmp(&v[b])).unwrap();
    assert!(got.shown[0] == best(&share) && got.r2.unwrap() > 0.99 && got.output == 1.0);
    assert!(got.shown.iter().all(|&s| share[s] > 0.0));
}

#[test]
fn the_same_at_any_number_of_threads_and_batch() {
    let see = |kept: &[bool]| {
        vec![kept.iter().enumerate().map(|(i, &k)| if k { 0.5f32.powi(i as i32 + 1) } else { 0.0 }).sum()]
    };
    let lime = Lime { samples: 200, ..Lime::default() };
    let at = |threads: usize, batch: usize, lime: &Lime| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| explain(lime, &grid(4), batch, &[0], &see).unwrap())
    };
    let one = at(1, 32, &lime);
    assert!(one == at(3, 32, &lime) && one == at(2, 7, &lime) && one == at(1, 1000, &lime));
    assert_ne!(one, at(1, 32, &Lime { seed: 1, ..lime }));
}

#[test]
fn a_head_that_does_not_care_has_no_fit() {
    let got = explain(&Lime { samples: 50, ..Lime::default() }, &grid(2), 9, &[0], &|_| vec![0.7]).unwrap().remove(0);
    assert!(got.r2.is_none() && got.weights.iter().all(|w| w.abs() < 1e-9), "{got:?}");
    // One superpixel: the whole image, or nothing of it, which is so far away that it hardly counts.
    let one = explain(&Lime { samples: 50, ..Lime::default() }, &grid(1), 9, &[0], &|k| vec![f32::from(k[0])]).unwrap();
    assert!(one[0].shown == [0] && one[0].weights[0] > 0.0);
}

#[test]
fn bad_input_is_an_error() {
    let see = |_: &[bool]| vec![0.5, 0.5];
    let with = |lime: Lime, heads: &[usize]| explain(&lime, &grid(2), 8, heads, &see);
    let problem = with(Lime::default(), &[0, 2]).unwrap_err();
    assert!(matches!(problem, Error::Usage(_)) && problem.to_string() == "there is no head 2: heads are 0 to 1");
    for bad in [
        Lime { samples: 1, ..Lime::default() },
        Lime { kernel_width: 0.0, ..Lime::default() },
        Lime { ridge: f64::NAN, ..Lime::default() },
    ] {
        assert!(matches!(with(bad, &[0]), Err(Error::Usage(_))), "{bad:?}");
    }
    let image = picture();
    let mut short = |_: &[u8]| Ok(vec![0.5]);
    let mut network = Network { side: SIDE, heads: 2, batch: 4, answer: &mut short };
    let run = |network: &mut Network| Lime::default().explain(network, image.as_ref(), 0, &grid(2), &[0], &mut |_| ());
    assert!(matches!(run(&mut network), Err(Error::Shape { .. })));
    let mut nan = |p: &[u8]| Ok(vec![f32::NAN; p.len() / (SIDE * SIDE * 3)]);
    assert!(matches!(run(&mut Network { side: SIDE, heads: 1, batch: 4, answer: &mut nan }), Err(Error::NonFinite(_))));
}
