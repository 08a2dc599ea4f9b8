//! Random views against a plain reference: Pillow's and OpenCV's formulas on HWC bytes, one operation after the other, as
//! their sources state them. Every byte must be equal on every instruction set of this machine.

#[path = "augment/reference.rs"]
mod reference;

use disentangle::data::augment::{
    Adjust, AugmentConfig, Blur, ColourOrder, CropBox, Flip, InstructionSet, Scratch, Size, ViewParams, render,
};
use disentangle::data::{Image, ImageRef};
use disentangle::rng::{Purpose, Stream, stream};

/// Odd shapes, among them single pixels, single rows and columns, and two far longer than wide.
const SHAPES: [(usize, usize); 12] =
    [(1, 1), (1, 9), (13, 1), (1, 300), (300, 1), (2, 2), (3, 5), (32, 32), (31, 47), (130, 97), (3000, 2), (2, 3000)];

fn below(random: &mut Stream, n: usize) -> usize {
    random.below(n as u32) as usize
}

/// Noise, or blocks of few colours: the second has greys, equal channels and extremes, which noise lacks.
fn picture(width: usize, height: usize, random: &mut Stream) -> Image {
    let levels = if random.chance(0.5) { vec![0, 1, 127, 128, 254, 255] } else { (0..=255).collect::<Vec<u8>>() };
    let pixels = (0..3 * width * height).map(|_| levels[below(random, levels.len())]).collect();
    Image::new(width, height, pixels).unwrap()
}

fn adjust(random: &mut Stream) -> Option<Adjust> {
    let factor = match random.below(8) {
        0 => 0.0,
        1 => 1.0,
        2 => 40.0,
        3 => -0.7,
        _ => random.uniform_in(0.2, 1.8),
    };
    match random.below(5) {
        0 => Some(Adjust::Brightness(factor)),
        1 => Some(Adjust::Contrast(factor)),
        2 => Some(Adjust::Saturation(factor)),
        3 => Some(Adjust::Hue(random.uniform_in(-0.5, 0.5))),
        _ => None,
    }
}

fn params(width: usize, height: usize, random: &mut Stream) -> ViewParams {
    let (top, left) = (below(random, height), below(random, width));
    let crop = CropBox { top, left, height: 1 + below(random, height - top), width: 1 + below(random, width - left) };
    let blur = Blur { kernel: 1 + 2 * below(random, 16), sigma: random.uniform_in(0.1, 4.0) };
    ViewParams {
        crop: if random.chance(0.2) { CropBox::whole(width, height) } else { crop },
        flip: Flip { horizontal: random.chance(0.5), vertical: random.chance(0.5) },
        jitter: std::array::from_fn(|_| adjust(random)),
        grayscale: random.chance(0.2),
        blur: random.chance(0.3).then_some(blur),
        order: ColourOrder::Exact,
    }
}

fn size(random: &mut Stream) -> Size {
    let mut side = || if random.chance(0.1) { 1 + below(random, 260) } else { 1 + below(random, 70) };
    Size { width: side(), height: side() }
}

fn rendered(image: ImageRef, params: &ViewParams, size: Size, scratch: &mut Scratch) -> Vec<u8> {
    let mut out = vec![0; 3 * size.area()];
    render(image, params, size, scratch, &mut out).unwrap();
    out
}

#[test]
fn random_views_equal_the_reference_on_every_instruction_set() {
    let mut sets: Vec<_> = InstructionSet::available().into_iter().map(|set| (set, Scratch::with(set))).collect();
    for case in 0..600 {
        let mut random = stream(case, Purpose::Shapes, 0, 0, 0);
        let (width, height) = SHAPES[case as usize % SHAPES.len()];
        let (image, params, size) =
            (picture(width, height, &mut random), params(width, height, &mut random), size(&mut random));
        let expected = reference::view(image.as_ref(), &params, size);
        for (set, scratch) in &mut sets {
            let ours = rendered(image.as_ref(), &params, size, scratch);
            let wrong = ours.iter().zip(&expected).filter(|(ours, expected)| ours != expected).count();
            let place = format!("case {case} on {set:?}: {width} x {height} to {size:?}, {params:?}");
            assert_eq!(wrong, 0, "{place}: {wrong} of {} bytes differ", expected.len());
        }
    }
}

/// Every order of the four adjustments, as training draws them: each breaks at the contrast elsewhere.
#[test]
fn drawn_views_equal_the_reference_on_every_instruction_set() {
    let config = AugmentConfig { jitter_strength: 1.0, jitter_probability: 1.0, blur: 0.3, ..AugmentConfig::default() };
    for set in InstructionSet::available() {
        let mut scratch = Scratch::with(set);
        for sample in 0..100 {
            let mut random = stream(7, Purpose::Augment, 0, sample, 0);
            let image = picture(48, 40, &mut random);
            let params = config.sample(&mut random, 48, 40);
            let size = Size::square(37);
            let ours = rendered(image.as_ref(), &params, size, &mut scratch);
            assert!(ours == reference::view(image.as_ref(), &params, size), "sample {sample} on {set:?}: {params:?}");
        }
    }
}

/// What `fast` is defined as: the crop at its own size with its colours changed, then resized, flipped and blurred.
#[test]
fn fast_is_colours_then_geometry_where_the_crop_is_small() {
    let mut scratch = Scratch::new();
    let (mut first, mut equal) = (0, 0);
    for case in 0..200 {
        let mut random = stream(case, Purpose::Augment, 0, 1, 0);
        let (width, height) = SHAPES[case as usize % SHAPES.len()];
        let (image, exact, size) =
            (picture(width, height, &mut random), params(width, height, &mut random), size(&mut random));
        let fast = ViewParams { order: ColourOrder::Fast, ..exact };
        let small = Size { width: exact.crop.width, height: exact.crop.height };
        let expected = if 4 * small.area() <= size.area() {
            first += 1;
            let colours = ViewParams { flip: Flip::NONE, blur: None, ..exact };
            let coloured = rendered(image.as_ref(), &colours, small, &mut scratch);
            let coloured = ImageRef::new(small.width, small.height, &coloured).unwrap();
            let geometry = ViewParams {
                crop: CropBox::whole(small.width, small.height),
                jitter: [None; 4],
                grayscale: false,
                ..exact
            };
            rendered(coloured, &geometry, size, &mut scratch)
        } else {
            equal += 1;
            rendered(image.as_ref(), &exact, size, &mut scratch)
        };
        assert!(rendered(image.as_ref(), &fast, size, &mut scratch) == expected, "case {case}: {fast:?} to {size:?}");
    }
    assert!(first > 30 && equal > 30, "{first} small crops, {equal} large ones");
}

/// One operation that cannot leave 0..=255 commutes with the resize up to rounding. Let R be the resize, each of whose two
/// passes rounds by at most 1/2, so |R(p) - L(p)| <= 1 for the linear map L, and let an operation be a linear map of norm 1
/// at most that rounds by r in all:
/// - brightness f <= 0.9 truncates: exact = f R(p) - [0, 1), fast = R(f p - [0, 1)). They differ by less than f + 1 + 1 < 3.
/// - grayscale rounds by 1/2: less than 1 + 1/2 + 1/2 + 1 = 3 or equal.
/// - saturation f in [0, 1] truncates a blend with a level rounded by 1/2: less than (1 + 1/2) + (1 + 1/2) + 1 = 4.
#[test]
fn fast_differs_by_rounding_where_nothing_is_cut() {
    let plain = |adjust| ([adjust, None, None, None], adjust.is_none());
    let mut scratch = Scratch::new();
    for case in 0..90 {
        let mut random = stream(case, Purpose::Augment, 0, 2, 0);
        let image = picture(16, 12, &mut random);
        let (adjust, bound) = match case % 3 {
            0 => (Some(Adjust::Brightness(random.uniform_in(0.0, 0.9))), 2),
            1 => (None, 3),
            _ => (Some(Adjust::Saturation(random.uniform())), 3),
        };
        let (jitter, grayscale) = plain(adjust);
        let exact = ViewParams { jitter, grayscale, ..ViewParams::plain(16, 12) };
        let fast = ViewParams { order: ColourOrder::Fast, ..exact };
        let [exact, fast] =
            [exact, fast].map(|params| rendered(image.as_ref(), &params, Size::square(64), &mut scratch));
        let largest = exact.iter().zip(&fast).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(largest <= bound, "{adjust:?}: {largest} of at most {bound}");
    }
}
