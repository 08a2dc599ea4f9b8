//! From a scene to pixels: one pass, coverage from signed distances instead of supersampling.

use crate::Result;
use crate::data::Image;

use super::outline;
use super::scene::{Colour, KNOTS, Scene};

/// Paints `scene` at `px` x `px` pixels.
pub fn paint(scene: &Scene, px: usize) -> Result<Image> {
    // One pixel in half image sides.
    let pixel = 2.0 / px as f32;
    let strokes = if scene.background == 4 { rasterise_clutter(scene, px, pixel) } else { Vec::new() };
    let mut pixels = Vec::with_capacity(px * px * 3);
    for row in 0..px {
        for column in 0..px {
            let (x, y) = ((column as f32 + 0.5) * pixel - 1.0, (row as f32 + 0.5) * pixel - 1.0);
            let ground = match scene.background {
                4 => strokes[row * px + column],
                _ => background(scene, x, y),
            };
            let mut colour = mix(scene.ground[0], scene.ground[1], ground);
            // Into the shape's own axes and unit.
            let (dx, dy) = ((x - scene.centre.0) / scene.radius, (y - scene.centre.1) / scene.radius);
            let pixel = pixel / scene.radius;
            let reach = outline::EXTENT + pixel;
            if dx * dx + dy * dy < reach * reach {
                let (cos, sin) = scene.rotation;
                let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
                let coverage = (0.5 - outline::distance(scene.shape, u, v) / pixel).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    let object = mix(scene.paint[0], scene.paint[1], texture(scene, u, v, pixel));
                    colour = mix(colour, object, coverage);
                }
            }
            pixels.extend(colour.map(|channel| (channel * 255.0 + 0.5) as u8));
        }
    }
    Image::new(px, px, pixels)
}

fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

/// Triangle wave of period 1 through 0..1.
fn wave(t: f32) -> f32 {
    ((t - t.floor()) * 2.0 - 1.0).abs()
}

/// 0 below the edge at 0, 1 above, a ramp of one pixel between; `t` changes by `per_pixel` from pixel to pixel.
fn step(t: f32, per_pixel: f32) -> f32 {
    (t / per_pixel + 0.5).clamp(0.0, 1.0)
}

/// Mix of the shape's two colours at `(u, v)`, in its axes; `pixel` is a pixel's size there.
fn texture(scene: &Scene, u: f32, v: f32, pixel: f32) -> f32 {
    /// Periods of a texture per radius.
    const WAVES: f32 = 1.9;
    // A wave runs from 0 to 1 and back in one period: slope 2.
    let per_pixel = 2.0 * WAVES * pixel;
    let (u, v) = (u * WAVES + scene.phase.0, v * WAVES + scene.phase.1);
    match scene.texture {
        0 => 0.0,
        1 => step(wave(u) - 0.5, per_pixel),
        2 => {
            // Distance from the middle of the cell, in periods.
            let (a, b) = (u - u.floor() - 0.5, v - v.floor() - 0.5);
            step(0.3 - (a * a + b * b).sqrt(), WAVES * pixel)
        }
        3 => {
            let (a, b) = (step(wave(u) - 0.5, per_pixel), step(wave(v) - 0.5, per_pixel));
            a + b - 2.0 * a * b
        }
        _ => ((v - scene.phase.1) / WAVES * 0.6 + 0.5).clamp(0.0, 1.0),
    }
}

/// Mix of the background's two colours at `(x, y)`, but for clutter.
fn background(scene: &Scene, x: f32, y: f32) -> f32 {
    let along = x * scene.ground_direction.0 + y * scene.ground_direction.1;
    match scene.background {
        0 => 0.0,
        1 => (along * 0.4 + 0.5).clamp(0.0, 1.0),
        2 => clouds(&scene.clouds, x, y),
        _ => {
            let (waves, shift) = scene.ground_waves;
            let t = wave(along * 0.5 * waves + shift);
            t * t * (3.0 - 2.0 * t)
        }
    }
}

/// Value noise: the knots' values, blended smoothly (Perlin's cubic) between the four around the point.
fn clouds(knots: &[[f32; KNOTS]; KNOTS], x: f32, y: f32) -> f32 {
    let cells = (KNOTS - 1) as f32;
    let (x, y) = ((x + 1.0) * 0.5 * cells, (y + 1.0) * 0.5 * cells);
    let (column, row) = ((x as usize).min(KNOTS - 2), (y as usize).min(KNOTS - 2));
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (a, b) = (smooth(x - column as f32), smooth(y - row as f32));
    let top = knots[row][column] + (knots[row][column + 1] - knots[row][column]) * a;
    let bottom = knots[row + 1][column] + (knots[row + 1][column + 1] - knots[row + 1][column]) * a;
    top + (bottom - top) * b
}

/// Strokes and blobs over each other, each within its bounding box.
fn rasterise_clutter(scene: &Scene, px: usize, pixel: f32) -> Vec<f32> {
    let mut mixes = vec![0.0f32; px * px];
    for &([x0, y0, x1, y1], thick, tone) in &scene.clutter {
        // The box in pixels; casts from float saturate at 0.
        let first = |a: f32, b: f32| ((a.min(b) - thick + 1.0) / pixel - 1.0) as usize;
        let last = |a: f32, b: f32| (((a.max(b) + thick + 1.0) / pixel + 2.0) as usize).min(px);
        let (ex, ey) = (x1 - x0, y1 - y0);
        let square = (ex * ex + ey * ey).max(1e-12);
        for row in first(y0, y1)..last(y0, y1) {
            for column in first(x0, x1)..last(x0, x1) {
                let (dx, dy) = ((column as f32 + 0.5) * pixel - 1.0 - x0, (row as f32 + 0.5) * pixel - 1.0 - y0);
                let along = ((dx * ex + dy * ey) / square).clamp(0.0, 1.0);
                let (dx, dy) = (dx - ex * along, dy - ey * along);
                let coverage = step(thick - (dx * dx + dy * dy).sqrt(), pixel);
                let mix = &mut mixes[row * px + column];
                *mix += (tone - *mix) * coverage;
            }
        }
    }
    mixes
}
