//! The ten shapes as signed distance functions: negative inside, in units of the shape's radius.
//!
//! Distances need to be right only near the outline, where they become coverage. All shapes lie within a radius of 1.06 and
//! have areas between 1.3 and 2.15.

/// Names of the classes, by label.
pub const NAMES: [&str; 10] =
    ["circle", "square", "triangle", "star", "cross", "ring", "crescent", "heart", "arrow", "hourglass"];

/// Radius that holds every shape.
pub const EXTENT: f32 = 1.06;

type Point = (f32, f32);

const SQUARE: [Point; 4] = [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)];
const TRIANGLE: [Point; 3] = [(0.0, -1.06), (0.918, 0.53), (-0.918, 0.53)];
/// Five points at radius 1.06, five notches at 0.48.
const STAR: [Point; 10] = [
    (0.0, -1.06),
    (0.282, -0.388),
    (1.008, -0.328),
    (0.457, 0.148),
    (0.623, 0.858),
    (0.0, 0.48),
    (-0.623, 0.858),
    (-0.457, 0.148),
    (-1.008, -0.328),
    (-0.282, -0.388),
];
const CROSS: [Point; 12] = [
    (-0.3, -0.98),
    (0.3, -0.98),
    (0.3, -0.3),
    (0.98, -0.3),
    (0.98, 0.3),
    (0.3, 0.3),
    (0.3, 0.98),
    (-0.3, 0.98),
    (-0.3, 0.3),
    (-0.98, 0.3),
    (-0.98, -0.3),
    (-0.3, -0.3),
];
const ARROW: [Point; 7] =
    [(0.0, -1.05), (0.84, -0.06), (0.33, -0.06), (0.33, 1.0), (-0.33, 1.0), (-0.33, -0.06), (-0.84, -0.06)];
const HOURGLASS: [Point; 6] = [(-0.66, -0.83), (0.66, -0.83), (0.14, 0.0), (0.66, 0.83), (-0.66, 0.83), (-0.14, 0.0)];

/// Signed distance from `(x, y)` to the outline of the class `shape`; y points down.
pub fn distance(shape: usize, x: f32, y: f32) -> f32 {
    match shape {
        0 => length(x, y) - 0.78,
        1 => polygon(&SQUARE, x, y),
        2 => polygon(&TRIANGLE, x, y),
        3 => polygon(&STAR, x, y),
        4 => polygon(&CROSS, x, y),
        5 => (length(x, y) - 0.68).abs() - 0.24,
        6 => crescent(x, y),
        7 => heart(x, y),
        8 => polygon(&ARROW, x, y),
        _ => polygon(&HOURGLASS, x, y),
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// A disc with another disc bitten out of its right side.
fn crescent(x: f32, y: f32) -> f32 {
    let (disc, bite) = (length(x, y) - 1.0, length(x - 0.52, y) - 0.78);
    disc.max(-bite)
}

/// A square on its corner, and a disc on each of its upper sides.
fn heart(x: f32, y: f32) -> f32 {
    const HALF: f32 = 0.54;
    const DIAGONAL: f32 = 0.707_106_77;
    let (x, y) = (x.abs(), y - 0.16);
    // The square's own axes.
    let (u, v) = ((x + y) * DIAGONAL, (x - y) * DIAGONAL);
    let square = (u.abs() - HALF).max(v.abs() - HALF);
    square.min(length(u, v - HALF) - HALF)
}

/// Distance to the nearest edge; inside by the number of edges crossed to the right (the even-odd rule).
fn polygon(vertices: &[Point], x: f32, y: f32) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut from = vertices[vertices.len() - 1];
    for &to in vertices {
        let (ex, ey) = (to.0 - from.0, to.1 - from.1);
        let (px, py) = (x - from.0, y - from.1);
        let along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (px - ex * along, py - ey * along);
        nearest = nearest.min(dx * dx + dy * dy);
        if (from.1 > y) != (to.1 > y) && px * ey.abs() < ex * py * ey.signum() {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_stated_areas_and_extent() {
        const STEPS: i32 = 400;
        for (shape, name) in NAMES.iter().enumerate() {
            let mut inside = 0;
            for i in 0..STEPS * STEPS {
                let at = |k: i32| (k as f32 + 0.5) / STEPS as f32 * 2.4 - 1.2;
                let (x, y) = (at(i % STEPS), at(i / STEPS));
                if distance(shape, x, y) < 0.0 {
                    inside += 1;
                    assert!(length(x, y) <= EXTENT, "{name} reaches ({x}, {y})");
                }
            }
            let area = inside as f32 * (2.4 / STEPS as f32).powi(2);
            assert!((1.3..2.15).contains(&area), "{name}: area {area}");
        }
    }

    #[test]
    fn distances_change_as_fast_as_the_point_moves() {
        // Coverage is taken from the distance within half a pixel of the outline: there its slope must be 1 (a corner's
        // medial axis excepted, hence the share), and never above 1, anywhere.
        const H: f32 = 1e-3;
        for (shape, name) in NAMES.iter().enumerate() {
            let (mut near, mut exact) = (0, 0);
            for i in 0..10_000 {
                let (x, y) = ((i % 100) as f32 / 49.3 - 1.0, (i / 100) as f32 / 49.3 - 1.0);
                let d = distance(shape, x, y);
                let (dx, dy) = (distance(shape, x + H, y) - d, distance(shape, x, y + H) - d);
                // 1 %: rounding of the differences, 1e-7 / H, and more.
                assert!(dx.abs().max(dy.abs()) < 1.01 * H, "{name}: too steep at ({x}, {y})");
                let gradient = length(dx, dy) / H;
                if d.abs() < 0.05 {
                    near += 1;
                    exact += i32::from((gradient - 1.0).abs() < 0.02);
                }
            }
            assert!(exact * 100 > near * 85, "{name}: slope 1 at {exact} of {near}");
        }
    }
}
