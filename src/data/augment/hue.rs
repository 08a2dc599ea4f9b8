//! Rotation of the hue, bit for bit Pillow's RGB -> HSV -> RGB on 8 bits with torchvision's shift of H between.
//!
//! Pillow converts in a mix of f32 and f64 with a branch per sextant. Here both directions are straight-line f32, so that
//! several pixels go through one instruction; that the bytes are the same is not an estimate but a test over every
//! colour and every HSV triple (`hue_is_pillows_for_every_colour`).

use super::simd::{Floor, ROUNDER};

/// The shift of an 8-bit hue for a turn of `factor` in [-0.5, 0.5]: truncated toward 0, modulo 256.
pub(super) fn steps(factor: f64) -> u8 {
    (factor * 255.0) as i32 as u8
}

/// Shifts the hue of a pixel (red, green, blue: integers in 0..=255) by `steps` of 256.
#[inline(always)]
pub(super) fn rotate((red, green, blue): (f32, f32, f32), steps: f32, floor: impl Floor) -> (f32, f32, f32) {
    let (hue, saturation, value) = to_hsv(red, green, blue, floor);
    let hue = hue + steps;
    let hue = if hue > 255.0 { hue - 256.0 } else { hue };
    from_hsv(hue, saturation, value)
}

/// Hue, saturation and value, each an integer in 0..=255 held in f32.
#[inline(always)]
fn to_hsv(red: f32, green: f32, blue: f32, floor: impl Floor) -> (f32, f32, f32) {
    let (lower, upper) = (smaller(red, green), larger(red, green));
    let value = larger(upper, blue);
    let middle = larger(lower, smaller(upper, blue));
    let chroma = value - smaller(lower, blue);
    // Position on the circle in sextants: 0, 2 or 4 for the largest channel, one on towards the middle one, and back by
    // the middle one's share. Pillow subtracts quotients of which one is always 1, and its rounding follows from that.
    let (base, ahead) = if red == value {
        (0.0, green - blue)
    } else if green == value {
        (2.0, blue - red)
    } else {
        (4.0, red - green)
    };
    let direction = 1f32.copysign(ahead);
    let position = (base + direction) - direction * ((value - middle) / larger(chroma, 1.0));
    let turn = position / 6.0;
    let turn = if turn < 0.0 { turn + 1.0 } else { turn };
    // A grey pixel's hue does not matter: with saturation 0 every hue gives the same grey.
    (floor.floor(turn * 255.0), floor.floor(chroma / larger(value, 1.0) * 255.0), value)
}

/// The colour of an HSV triple of integers.
///
/// A sextant is 42.5 wide, and each channel is `value (1 - saturation w / (255 42.5))` where w climbs from 0 to 42.5 with
/// the distance of the hue from that channel's own third of the circle: Pillow's p, q and t in one formula.
#[inline(always)]
fn from_hsv(hue: f32, saturation: f32, value: f32) -> (f32, f32, f32) {
    let share = saturation * value * (1.0 / (255.0 * 42.5));
    let channel = |distance: f32| value - share * smaller(larger(distance, 0.0), 42.5) + ROUNDER - ROUNDER;
    let red = channel(85.0 - (hue - 127.5).abs());
    let green = channel((hue - 85.0).abs() - 42.5);
    let blue = channel((hue - 170.0).abs() - 42.5);
    (red, green, blue)
}

/// The larger of two numbers, neither a NaN; `f32::max` has to ask.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two numbers, neither a NaN.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::simd::{Instruction, Steps};

    /// Pillow's `rgb2hsv_row`, with its types and its order of operations.
    fn pillow_to_hsv(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        if max == min {
            return (0, 0, max);
        }
        let chroma = f32::from(max - min);
        let part = |c: u8| f32::from(max - c) / chroma;
        let (rc, gc, bc) = (part(r), part(g), part(b));
        let h = if r == max {
            bc - gc
        } else if g == max {
            (2.0 + f64::from(rc) - f64::from(bc)) as f32
        } else {
            (4.0 + f64::from(gc) - f64::from(rc)) as f32
        };
        let h = ((f64::from(h) / 6.0 + 1.0) % 1.0) as f32;
        ((f64::from(h) * 255.0) as u8, (f64::from(chroma / f32::from(max)) * 255.0) as u8, max)
    }

    /// Pillow's `hsv2rgb`.
    fn pillow_from_hsv(h: u8, s: u8, v: u8) -> (u8, u8, u8) {
        if s == 0 {
            return (v, v, v);
        }
        let sextant = (f64::from(h) * 6.0 / 255.0).floor();
        let f = (f64::from(h) * 6.0 / 255.0 - sextant) as f32;
        let fs = (f64::from(s) / 255.0) as f32;
        let level = |x: f64| (f64::from(v) * (1.0 - x)).round() as u8;
        let p = level(f64::from(fs));
        let q = level(f64::from(fs * f));
        let t = level(f64::from(fs) * (1.0 - f64::from(f)));
        match sextant as u8 % 6 {
            0 => (v, t, p),
            1 => (q, v, p),
            2 => (p, v, t),
            3 => (p, q, v),
            4 => (t, p, v),
            _ => (v, p, q),
        }
    }

    fn check_every_colour(floor: impl Floor) {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for c in 0..=255u8 {
                    let (h, s, v) = to_hsv(f32::from(a), f32::from(b), f32::from(c), floor);
                    let ours = (if s == 0.0 { 0 } else { h as u8 }, s as u8, v as u8);
                    assert_eq!(ours, pillow_to_hsv(a, b, c), "colour {a} {b} {c}");
                    let (red, green, blue) = from_hsv(f32::from(a), f32::from(b), f32::from(c));
                    let ours = (red as u8, green as u8, blue as u8);
                    assert_eq!(ours, pillow_from_hsv(a, b, c), "hsv {a} {b} {c}");
                }
            }
        }
    }

    #[test]
    fn hue_is_pillows_for_every_colour() {
        check_every_colour(Steps);
        check_every_colour(Instruction);
    }

    #[test]
    fn a_turn_becomes_steps_as_numpy_casts() {
        let cases = [(0.0, 0), (0.5, 127), (-0.5, 129), (0.1, 25), (-0.1, 231), (-0.003, 0)];
        for (factor, expected) in cases {
            assert_eq!(steps(factor), expected, "factor {factor}");
        }
    }
}
