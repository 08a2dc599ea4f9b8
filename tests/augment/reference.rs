//! A view by the book: HWC bytes, one operation after the other, f64 and wide integers, no thought of speed.

use disentangle::data::ImageRef;
use disentangle::data::augment::{Adjust, Blur, CropBox, Flip, Size, ViewParams};

type Pixels = Vec<[u8; 3]>;

/// What `render` must give.
pub fn view(image: ImageRef, params: &ViewParams, size: Size) -> Vec<u8> {
    let mut pixels = resize(&crop(image, params.crop), params.crop, size);
    flip(&mut pixels, size, params.flip);
    params.jitter.iter().flatten().for_each(|&adjust| apply(&mut pixels, adjust));
    if params.grayscale {
        pixels.iter_mut().for_each(|pixel| *pixel = [luma(*pixel); 3]);
    }
    if let Some(blur) = params.blur {
        pixels = blurred(&pixels, size, blur);
    }
    pixels.concat()
}

fn crop(image: ImageRef, CropBox { top, left, height, width }: CropBox) -> Pixels {
    let at = |x: usize, y: usize| 3 * (y * image.width() + x);
    let pixel = |x, y| image.pixels()[at(x, y)..at(x, y) + 3].try_into().unwrap();
    (top..top + height).flat_map(|y| (left..left + width).map(move |x| pixel(x, y))).collect()
}

/// Pillow's two passes, each rounded to 8 bits; since 13.0 down before across where the height shrinks much more.
fn resize(pixels: &Pixels, crop: CropBox, size: Size) -> Pixels {
    let (columns, rows) = (triangle(crop.width, size.width), triangle(crop.height, size.height));
    let across = |pixels: &Pixels, height: usize| -> Pixels {
        let target = |y: usize, weights: &[i64]| weigh(weights, |k| pixels[y * crop.width + k]);
        (0..height).flat_map(|y| columns.iter().map(move |weights| target(y, weights))).collect()
    };
    let down = |pixels: &Pixels, width: usize| -> Pixels {
        let target = |x: usize, weights: &[i64]| weigh(weights, |k| pixels[k * width + x]);
        rows.iter().flat_map(|weights| (0..width).map(move |x| target(x, weights))).collect()
    };
    let (lost_rows, lost_columns) =
        (crop.height as i64 - size.height as i64, (crop.width as i64 - size.width as i64).max(0));
    if lost_rows > 0 && lost_rows > 2 * lost_columns {
        across(&down(pixels, crop.width), size.height)
    } else {
        down(&across(pixels, crop.height), size.width)
    }
}

/// The weight, of 2^22, of every source position for every target position.
fn triangle(source: usize, target: usize) -> Vec<Vec<i64>> {
    let scale = source as f64 / target as f64;
    let support = scale.max(1.0);
    let row = |position: usize| {
        let center = (position as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(source);
        let distance = |x: usize| ((x as f64 - center + 0.5) * (1.0 / support)).abs();
        let weight = |x: usize| if (first..end).contains(&x) { (1.0 - distance(x)).max(0.0) } else { 0.0 };
        let sum: f64 = (first..end).map(weight).sum();
        (0..source).map(|x| (0.5 + weight(x) / sum * f64::from(1 << 22)) as i64).collect()
    };
    (0..target).map(row).collect()
}

fn weigh(weights: &[i64], pixel: impl Fn(usize) -> [u8; 3]) -> [u8; 3] {
    let mut sums = [1i64 << 21; 3];
    for (k, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
        for (sum, value) in sums.iter_mut().zip(pixel(k)) {
            *sum += weight * i64::from(value);
        }
    }
    sums.map(|sum| (sum >> 22).clamp(0, 255) as u8)
}

fn flip(pixels: &mut Pixels, size: Size, flip: Flip) {
    if flip.horizontal {
        pixels.chunks_exact_mut(size.width).for_each(<[_]>::reverse);
    }
    if flip.vertical {
        pixels.reverse();
        pixels.chunks_exact_mut(size.width).for_each(<[_]>::reverse);
    }
}

fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((19595 * u32::from(red) + 38470 * u32::from(green) + 7471 * u32::from(blue) + 0x8000) >> 16) as u8
}

/// `Image.blend`: f32, cut, truncated.
fn blend(degenerate: u8, value: u8, factor: f64) -> u8 {
    let blended = f32::from(degenerate) + factor as f32 * (f32::from(value) - f32::from(degenerate));
    blended.clamp(0.0, 255.0) as u8
}

fn apply(pixels: &mut Pixels, adjust: Adjust) {
    let levels = pixels.iter().map(|&pixel| f64::from(luma(pixel))).sum::<f64>();
    let mean = (levels / pixels.len() as f64 + 0.5) as u8;
    for pixel in pixels {
        *pixel = match adjust {
            Adjust::Brightness(factor) => pixel.map(|value| blend(0, value, factor)),
            Adjust::Contrast(factor) => pixel.map(|value| blend(mean, value, factor)),
            Adjust::Saturation(factor) => pixel.map(|value| blend(luma(*pixel), value, factor)),
            Adjust::Hue(factor) => {
                let [hue, saturation, value] = to_hsv(*pixel);
                from_hsv([hue.wrapping_add((factor * 255.0) as i32 as u8), saturation, value])
            }
        };
    }
}

/// Pillow's `rgb2hsv_row`.
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (largest, least) = (red.max(green).max(blue), red.min(green).min(blue));
    if largest == least {
        return [0, 0, largest];
    }
    let chroma = f32::from(largest - least);
    let [rc, gc, bc] = [red, green, blue].map(|value| f32::from(largest - value) / chroma);
    let sextants = if red == largest {
        bc - gc
    } else if green == largest {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let turn = ((f64::from(sextants) / 6.0 + 1.0) % 1.0) as f32;
    let saturation = f64::from(chroma / f32::from(largest)) * 255.0;
    [(f64::from(turn) * 255.0) as u8, saturation as u8, largest]
}

/// Pillow's `hsv2rgb`.
fn from_hsv([hue, saturation, value]: [u8; 3]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let sextant = (f64::from(hue) * 6.0 / 255.0).floor();
    let part = f64::from((f64::from(hue) * 6.0 / 255.0 - sextant) as f32);
    let share = f64::from((f64::from(saturation) / 255.0) as f32);
    let level = |lost: f64| (f64::from(value) * (1.0 - lost)).round() as u8;
    let (p, q, t) = (level(share), level(f64::from((share * part) as f32)), level(share * (1.0 - part)));
    match sextant as u8 % 6 {
        0 => [value, t, p],
        1 => [q, value, p],
        2 => [p, value, t],
        3 => [p, q, value],
        4 => [t, p, value],
        _ => [value, p, q],
    }
}

/// OpenCV's `GaussianBlur` on uint8: weights of 256 that sum to 256, exact sums both ways, one rounding; pixels past the rim
/// are those before it, the rim's own not repeated.
fn blurred(pixels: &Pixels, size: Size, blur: Blur) -> Pixels {
    let weights = kernel(blur);
    let radius = (weights.len() / 2) as i64;
    let inside = |position: i64, len: usize| {
        let (mut position, last) = (position, len as i64 - 1);
        while last > 0 && !(0..=last).contains(&position) {
            position = if position < 0 { -position } else { 2 * last - position };
        }
        position.clamp(0, last) as usize
    };
    let sums = |position: usize, len: usize, value: &dyn Fn(usize) -> [i64; 3]| {
        let mut sums = [0; 3];
        for (k, weight) in (-radius..).zip(&weights) {
            let values = value(inside(position as i64 + k, len));
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        sums
    };
    let across: Vec<[i64; 3]> = (0..pixels.len())
        .map(|at| sums(at % size.width, size.width, &|x| pixels[at / size.width * size.width + x].map(i64::from)))
        .collect();
    (0..pixels.len())
        .map(|at| sums(at / size.width, size.height, &|y| across[y * size.width + at % size.width]))
        .map(|sums| sums.map(|sum| ((sum + (1 << 15)) >> 16) as u8))
        .collect()
}

/// Each weight rounded half to even with the error of those before it, from the rim inwards; the centre takes the rest.
fn kernel(Blur { kernel, sigma }: Blur) -> Vec<i64> {
    let radius = kernel / 2;
    let exact: Vec<f64> = (0..radius)
        .map(|i| {
            let half_pixels = 2 * (radius - i);
            (-0.125 / (sigma * sigma) * (half_pixels * half_pixels) as f64).exp()
        })
        .collect();
    let sum = 2.0 * exact.iter().sum::<f64>() + 1.0;
    let mut error = 0.0;
    let mut weights = Vec::new();
    for weight in exact {
        let wanted = weight * (1.0 / sum) * 256.0 + error;
        weights.push(wanted.round_ties_even() as i64);
        error = wanted - wanted.round_ties_even();
    }
    let centre = 256 - 2 * weights.iter().sum::<i64>();
    let mirrored: Vec<i64> = weights.iter().rev().copied().collect();
    [weights, vec![centre], mirrored].concat()
}
