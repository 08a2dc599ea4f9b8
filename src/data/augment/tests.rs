//! What must hold for any picture and any parameters; equality with the references is in `tests/augment.rs` and
//! `tests/golden/augment.rs`.

use super::*;
use crate::data::Image;
use crate::rng::{Purpose, Stream, stream};

/// Odd shapes, among them single pixels, single rows and columns, and one far longer than high.
const SHAPES: [(usize, usize); 9] = [(1, 1), (1, 7), (9, 1), (2, 2), (3, 5), (32, 32), (31, 47), (3000, 2), (2, 3000)];

fn noise(width: usize, height: usize, random: &mut Stream) -> Image {
    Image::new(width, height, (0..3 * width * height).map(|_| random.bits() as u8).collect()).unwrap()
}

fn rendered(image: &Image, params: &ViewParams, size: Size, scratch: &mut Scratch) -> Vec<u8> {
    let mut out = vec![0; 3 * size.area()];
    render(image.as_ref(), params, size, scratch, &mut out).unwrap();
    out
}

#[test]
fn any_picture_renders_and_old_buffers_do_not_show() {
    let everything = AugmentConfig { vflip: 0.5, blur: 0.7, jitter_strength: 1.0, ..AugmentConfig::default() };
    let mut random = stream(1, Purpose::Shapes, 0, 0, 0);
    let mut scratch = Scratch::new();
    for round in 0..20 {
        for (width, height) in SHAPES {
            let image = noise(width, height, &mut random);
            let params = everything.sample(&mut random, width, height);
            let size = Size { width: 1 + random.below(70) as usize, height: 1 + random.below(70) as usize };
            let reused = rendered(&image, &params, size, &mut scratch);
            let fresh = rendered(&image, &params, size, &mut Scratch::new());
            assert_eq!(reused, fresh, "round {round}: {width} x {height} to {size:?}, {params:?}");
        }
    }
}

#[test]
fn whole_picture_at_its_own_size_is_itself_and_flips_mirror_it() {
    let mut random = stream(2, Purpose::Shapes, 0, 0, 0);
    let mut scratch = Scratch::new();
    for (width, height) in SHAPES {
        let image = noise(width, height, &mut random);
        let pixels = image.as_ref().pixels().to_vec();
        let (size, plain) = (Size { width, height }, ViewParams::plain(width, height));
        assert_eq!(rendered(&image, &plain, size, &mut scratch), pixels);
        for (horizontal, vertical) in [(true, false), (false, true), (true, true)] {
            let flipped = ViewParams { flip: Flip { horizontal, vertical }, ..plain };
            let small = Size { width: 13, height: 6 };
            let (view, mirror) =
                (rendered(&image, &plain, small, &mut scratch), rendered(&image, &flipped, small, &mut scratch));
            for (at, pixel) in view.chunks_exact(3).enumerate() {
                let (x, y) = (at % small.width, at / small.width);
                let x = if horizontal { small.width - 1 - x } else { x };
                let y = if vertical { small.height - 1 - y } else { y };
                assert_eq!(pixel, &mirror[3 * (y * small.width + x)..][..3]);
            }
        }
    }
}

#[test]
fn resizing_and_blurring_keep_a_flat_colour() {
    let mut scratch = Scratch::new();
    for (width, height) in SHAPES {
        let image = Image::new(width, height, [255, 7, 0].repeat(width * height)).unwrap();
        let blur = Some(Blur { kernel: 23, sigma: 1.7 });
        let params = ViewParams { blur, ..ViewParams::plain(width, height) };
        let view = rendered(&image, &params, Size::square(17), &mut scratch);
        assert_eq!(view, [255, 7, 0].repeat(17 * 17), "{width} x {height}");
    }
}

#[test]
fn jitter_of_strength_zero_is_never_drawn() {
    let still = AugmentConfig { jitter_strength: 0.0, ..AugmentConfig::default() };
    let mut random = stream(3, Purpose::Augment, 0, 0, 0);
    assert!((0..100).all(|_| still.sample(&mut random, 32, 32).jitter == [None; 4]));
}

#[test]
fn switching_one_operation_off_leaves_the_others() {
    let full = AugmentConfig { blur: 0.5, vflip: 0.5, ..AugmentConfig::default() };
    let without = [
        AugmentConfig { hflip: 0.0, ..full.clone() },
        AugmentConfig { jitter_strength: 0.0, ..full.clone() },
        AugmentConfig { grayscale: 0.0, ..full.clone() },
        AugmentConfig { crop_scale: [1.0, 1.0], crop_ratio: [1.0, 1.0], ..full.clone() },
        AugmentConfig { order: ColourOrder::Fast, ..full.clone() },
    ];
    for sample in 0..50 {
        let draw = |config: &AugmentConfig| config.sample(&mut stream(4, Purpose::Augment, 0, sample, 0), 40, 30);
        let reference = draw(&full);
        let [unflipped, still, coloured, whole, fast] = without.each_ref().map(draw);
        let flip = Flip { horizontal: unflipped.flip.horizontal, ..reference.flip };
        assert_eq!(unflipped, ViewParams { flip, ..reference });
        assert_eq!(still, ViewParams { jitter: [None; 4], ..reference });
        assert_eq!(coloured, ViewParams { grayscale: false, ..reference });
        assert_eq!(whole, ViewParams { crop: whole.crop, ..reference });
        assert_eq!(fast, ViewParams { order: ColourOrder::Fast, ..reference });
    }
}

/// torchvision's `get_params` as it stands there: stops at the first attempt that fits.
fn sequential_crop(random: &mut Stream, width: usize, height: usize) -> Option<(usize, usize, usize)> {
    (0..10).find_map(|_| {
        let target = (width * height) as f64 * random.uniform_in(0.08, 1.0);
        let aspect = random.uniform_in(0.75f64.ln(), (4.0f64 / 3.0).ln()).exp();
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        let fits = 0 < w && w <= width && 0 < h && h <= height;
        fits.then(|| (w, h, random.below((height - h + 1) as u32) as usize))
    })
}

#[test]
fn crops_have_torchvisions_distribution() {
    let (width, height, count) = (60, 40, 20_000);
    let config = AugmentConfig::default();
    let mut random = stream(5, Purpose::Augment, 0, 0, 0);
    let ours: Vec<[f64; 3]> = (0..count)
        .map(|_| config.sample(&mut random, width, height).crop)
        .map(|c| [c.width as f64, c.height as f64, c.top as f64])
        .collect();
    let theirs: Vec<[f64; 3]> = std::iter::repeat_with(|| sequential_crop(&mut random, width, height))
        .flatten()
        .take(count)
        .map(|(w, h, top)| [w as f64, h as f64, top as f64])
        .collect();
    for (axis, name) in ["width", "height", "top"].into_iter().enumerate() {
        let moments = |crops: &[[f64; 3]]| {
            let mean = crops.iter().map(|c| c[axis]).sum::<f64>() / count as f64;
            (mean, crops.iter().map(|c| (c[axis] - mean).powi(2)).sum::<f64>() / count as f64)
        };
        let ((mean, variance), (expected, _)) = (moments(&ours), moments(&theirs));
        // Five standard errors of the difference of two means; ten misses in a row are too rare to show.
        let bound = 5.0 * (2.0 * variance / count as f64).sqrt();
        assert!((mean - expected).abs() < bound, "{name}: {mean} against {expected} +- {bound}");
    }
}

#[test]
fn crops_that_never_fit_fall_back_to_the_centre() {
    let all = AugmentConfig { crop_scale: [1.0, 1.0], ..AugmentConfig::default() };
    let mut random = stream(6, Purpose::Augment, 0, 0, 0);
    let tall = all.sample(&mut random, 10, 100).crop;
    assert_eq!(tall, CropBox { top: 43, left: 0, height: 13, width: 10 });
    let wide = all.sample(&mut random, 100, 10).crop;
    assert_eq!(wide, CropBox { top: 0, left: 43, height: 10, width: 13 });
    assert_eq!(all.sample(&mut random, 1, 1).crop, CropBox::whole(1, 1));
}

#[test]
fn bad_configuration_is_named() {
    AugmentConfig::default().validate().unwrap();
    let base = AugmentConfig::default();
    let bad = [
        ("crop_scale = [0.5, 0.2]", AugmentConfig { crop_scale: [0.5, 0.2], ..base.clone() }),
        ("crop_scale = [0, 1]", AugmentConfig { crop_scale: [0.0, 1.0], ..base.clone() }),
        ("crop_ratio = [NaN, 1]", AugmentConfig { crop_ratio: [f64::NAN, 1.0], ..base.clone() }),
        ("hflip = 1.5", AugmentConfig { hflip: 1.5, ..base.clone() }),
        ("jitter_strength = 3", AugmentConfig { jitter_strength: 3.0, ..base.clone() }),
        ("blur_kernel = 22", AugmentConfig { blur_kernel: 22, ..base.clone() }),
        ("blur_sigma = [0, 2]", AugmentConfig { blur_sigma: [0.0, 2.0], ..base.clone() }),
    ];
    for (words, config) in bad {
        let problem = config.validate().unwrap_err().to_string();
        assert!(problem.starts_with(&format!("augment.{words}: must ")), "{problem}");
    }
    assert!(toml::from_str::<AugmentConfig>("hflop = 0.5").is_err());
    assert_eq!(toml::from_str::<AugmentConfig>("hflip = 0.0").unwrap().crop_scale, [0.08, 1.0]);
}

#[test]
fn impossible_views_are_errors() {
    let image = Image::new(4, 3, vec![9; 36]).unwrap();
    let plain = ViewParams::plain(4, 3);
    let attempt = |params: ViewParams, size: Size, len: usize| {
        render(image.as_ref(), &params, size, &mut Scratch::new(), &mut vec![0; len])
    };
    let crop = |top, left, height, width| ViewParams { crop: CropBox { top, left, height, width }, ..plain };
    let jitter = |adjust| ViewParams { jitter: [None, Some(adjust), None, None], ..plain };
    let blur = |kernel, sigma| ViewParams { blur: Some(Blur { kernel, sigma }), ..plain };
    let two = Size::square(2);
    assert!(attempt(plain, two, 12).is_ok());
    assert!(attempt(plain, two, 13).is_err());
    assert!(attempt(plain, Size { width: 0, height: 2 }, 0).is_err());
    assert!(attempt(plain, Size::square(usize::MAX), 12).is_err());
    for params in [crop(0, 0, 4, 4), crop(3, 0, 1, 1), crop(usize::MAX, 0, 2, 1), crop(0, 0, 0, 1)] {
        assert!(attempt(params, two, 12).is_err(), "{params:?}");
    }
    for params in [jitter(Adjust::Hue(0.6)), jitter(Adjust::Contrast(f64::NAN)), blur(4, 1.0), blur(5, 0.0)] {
        assert!(attempt(params, two, 12).is_err(), "{params:?}");
    }
}
