//! What an image of `shapes` shows: the labelled factors and the unlabelled rest, all drawn here and nowhere else.

use crate::rng::{self, Purpose, Stream};

use super::{SEED, outline};

/// The factors beside the class, and their values.
pub const FACTORS: [(&str, &[&str]); 5] = [
    ("colour", &["red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"]),
    ("texture", &["plain", "stripes", "dots", "checker", "gradient"]),
    ("size", &["small", "medium", "large"]),
    ("position", &["top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"]),
    ("background", &["plain", "gradient", "clouds", "stripes", "clutter"]),
];

/// RGB, each in 0..=1.
pub type Colour = [f32; 3];

const COLOURS: [Colour; 8] = [
    [0.90, 0.36, 0.36],
    [0.93, 0.60, 0.30],
    [0.90, 0.82, 0.34],
    [0.42, 0.74, 0.42],
    [0.36, 0.74, 0.78],
    [0.40, 0.54, 0.90],
    [0.66, 0.46, 0.86],
    [0.93, 0.60, 0.78],
];

/// Radius of the shape, in half image sides.
const RADII: [f32; 3] = [0.58, 0.68, 0.78];

/// Distance of the positions from the middle, in half image sides: the largest shape stays in the picture.
const OFFSET: f32 = 0.13;

/// Strokes and blobs of a cluttered background.
pub const CLUTTER: usize = 14;

/// Lattice of the clouds: knots on a side.
pub const KNOTS: usize = 6;

/// One image. Lengths are in half image sides, the origin is the middle of the image, y points down.
pub struct Scene {
    /// The class.
    pub shape: usize,
    /// Index into the factor's values, as all of these.
    pub colour: usize,
    pub texture: usize,
    pub size: usize,
    pub position: usize,
    pub background: usize,
    /// Middle of the shape.
    pub centre: (f32, f32),
    pub radius: f32,
    /// Cosine and sine of the shape's rotation.
    pub rotation: (f32, f32),
    /// The shape's two colours; the texture mixes them.
    pub paint: [Colour; 2],
    /// Shift of the texture, in its periods.
    pub phase: (f32, f32),
    /// The background's two colours; its pattern mixes them.
    pub ground: [Colour; 2],
    /// Direction of the background's gradient or stripes.
    pub ground_direction: (f32, f32),
    /// Periods of the background's stripes in the image, and their shift.
    pub ground_waves: (f32, f32),
    /// Values of the clouds at their lattice's knots, 0..1.
    pub clouds: [[f32; KNOTS]; KNOTS],
    /// The clutter: two ends, thickness, and the mix of the ground's colours, of each stroke.
    pub clutter: [([f32; 4], f32, f32); CLUTTER],
}

impl Scene {
    /// The scene of image `i`.
    pub fn draw(i: u64) -> Scene {
        let s = &mut rng::stream(SEED, Purpose::Shapes, 0, i, 0);
        let [colour, texture, size, position, background] =
            FACTORS.map(|(_, values)| s.below(values.len() as u32) as usize);
        let mut place = |cell: usize| (cell as f32 - 1.0) * OFFSET + between(s, -0.03, 0.03);
        let centre = (place(position % 3), place(position / 3));
        let base = COLOURS[colour].map(|channel| (channel + between(s, -0.04, 0.04)).clamp(0.0, 1.0));
        let shade = between(s, 0.68, 0.82);
        Scene {
            shape: (i % outline::NAMES.len() as u64) as usize,
            colour,
            texture,
            size,
            position,
            background,
            centre,
            radius: RADII[size] * between(s, 0.95, 1.02),
            rotation: direction(s),
            paint: [base, base.map(|channel| channel * shade)],
            phase: (between(s, 0.0, 1.0), between(s, 0.0, 1.0)),
            ground: ground(s),
            ground_direction: direction(s),
            ground_waves: (between(s, 2.0, 5.0), between(s, 0.0, 1.0)),
            clouds: std::array::from_fn(|_| std::array::from_fn(|_| between(s, 0.0, 1.0))),
            clutter: std::array::from_fn(|_| stroke(s)),
        }
    }

    /// Labels in the order of [`FACTORS`].
    pub fn factors(&self) -> [u32; 5] {
        [self.colour, self.texture, self.size, self.position, self.background].map(|value| value as u32)
    }
}

fn between(s: &mut Stream, low: f32, high: f32) -> f32 {
    s.uniform_in(f64::from(low), f64::from(high)) as f32
}

/// Uniform unit vector, without the sine and cosine that platforms round differently.
fn direction(s: &mut Stream) -> (f32, f32) {
    loop {
        let (x, y) = (between(s, -1.0, 1.0), between(s, -1.0, 1.0));
        let square = x * x + y * y;
        if (0.01..=1.0).contains(&square) {
            return (x / square.sqrt(), y / square.sqrt());
        }
    }
}

/// Two muted colours, darker than any shape.
fn ground(s: &mut Stream) -> [Colour; 2] {
    std::array::from_fn(|_| {
        let grey = between(s, 0.05, 0.32);
        std::array::from_fn(|_| (grey + between(s, -0.07, 0.07)).clamp(0.0, 1.0))
    })
}

/// A stroke of the clutter; every other one is so short that it is a blob.
fn stroke(s: &mut Stream) -> ([f32; 4], f32, f32) {
    let (x, y) = (between(s, -1.1, 1.1), between(s, -1.1, 1.1));
    let (dx, dy) = direction(s);
    let long = if s.chance(0.5) { between(s, 0.3, 1.0) } else { between(s, 0.0, 0.1) };
    let thick = if long > 0.2 { between(s, 0.02, 0.06) } else { between(s, 0.06, 0.16) };
    ([x, y, x + dx * long, y + dy * long], thick, between(s, 0.4, 1.0))
}
