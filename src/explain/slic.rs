//! Superpixels: connected regions of similar colour and nearly equal size, by SLIC (Achanta and others 2012).
//!
//! k-means of the pixels by colour (CIELAB) and place from a regular grid of centres, each pixel compared only with centres
//! within a grid step; then pieces too small or cut off join their neighbours. Nothing is random: the same image gives the same
//! superpixels.

use crate::data::ImageRef;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// A piece below this share of the mean area joins a neighbour.
const SMALL: f64 = 0.25;
/// Not yet in any superpixel.
const NONE: u32 = u32::MAX;

/// The parameters of a segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slic {
    /// Superpixels to aim at, at least 1; there will be somewhat more or fewer.
    pub superpixels: usize,
    /// Weight of place against colour: the colour difference (CIELAB units) that counts as much as a grid step. Above 0.
    pub compactness: f64,
    /// Iterations of k-means.
    pub iterations: usize,
}

impl Default for Slic {
    /// 50 superpixels, about as many as LIME's own segmentation finds; compactness and iterations of the authors of SLIC.
    fn default() -> Self {
        Slic { superpixels: 50, compactness: 10.0, iterations: 10 }
    }
}

/// An image cut into connected regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superpixels {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Superpixel of every pixel, row-major, below `count`; numbered in the order of their first pixels.
    pub labels: Vec<u32>,
    /// Number of superpixels, at least 1.
    pub count: usize,
}

/// Colour and place, and for centres the number of pixels.
type Point = [f64; 5];

impl Slic {
    /// Cuts `image`.
    ///
    /// # Errors
    /// [`Error::Usage`] if more superpixels are asked for than there are pixels, or none, or the compactness is not above 0.
    pub fn segment(&self, image: ImageRef) -> Result<Superpixels> {
        let (width, height) = (image.width(), image.height());
        if self.superpixels == 0 || self.superpixels > width * height {
            let problem = format!(
                "{} superpixels of {width} x {height} pixels: ask for 1 or more, up to one a pixel",
                self.superpixels
            );
            return Err(Error::Usage(problem));
        }
        if !(self.compactness > 0.0 && self.compactness.is_finite()) {
            return Err(Error::Usage(format!("compactness of superpixels = {}: must be above 0", self.compactness)));
        }
        let pixels = points(image);
        let mut centres = grid(&pixels, width, height, self.superpixels);
        let step = ((width * height) as f64 / self.superpixels as f64).sqrt();
        let mut labels = vec![NONE; pixels.len()];
        for _ in 0..self.iterations.max(1) {
            assign(&pixels, width, &centres, step, self.compactness / step, &mut labels);
            update(&pixels, &labels, &mut centres);
        }
        let smallest = ((step * step * SMALL) as usize).max(1);
        Ok(connected(&labels, width, smallest))
    }
}

impl Superpixels {
    /// Pixels of each superpixel.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.count];
        self.labels.iter().for_each(|&label| sizes[label as usize] += 1);
        sizes
    }

    /// Mean colour of each superpixel of `image`, which has this size.
    pub fn mean_colours(&self, image: ImageRef) -> Vec<[u8; 3]> {
        let mut sums = vec![[0u64; 3]; self.count];
        for (&label, pixel) in self.labels.iter().zip(image.pixels().as_chunks::<3>().0) {
            sums[label as usize].iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += u64::from(v));
        }
        let mean = |(sum, size): ([u64; 3], usize)| sum.map(|s| ((s + size as u64 / 2) / size as u64) as u8);
        sums.into_iter().zip(self.sizes()).map(mean).collect()
    }
}

/// Colour and place of every pixel.
fn points(image: ImageRef) -> Vec<Point> {
    let linear: Vec<f64> = (0..=255).map(|v| f64::from(v) / 255.0).map(from_srgb).collect();
    let point = |(i, pixel): (usize, &[u8; 3])| {
        let [l, a, b] = lab(pixel.map(|v| linear[usize::from(v)]));
        [l, a, b, (i % image.width()) as f64, (i / image.width()) as f64]
    };
    image.pixels().as_chunks::<3>().0.iter().enumerate().map(point).collect()
}

/// Light of an sRGB value (IEC 61966-2-1).
fn from_srgb(v: f64) -> f64 {
    if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
}

/// CIELAB of linear RGB, white point D65.
fn lab([r, g, b]: [f64; 3]) -> [f64; 3] {
    let x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047;
    let y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b;
    let z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883;
    let [x, y, z] = [x, y, z].map(|t| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// The first centres: the middles of a grid of about `count` cells, each moved to where the colour changes least among the
/// pixels around it, away from edges and specks.
fn grid(pixels: &[Point], width: usize, height: usize, count: usize) -> Vec<Point> {
    let rows = ((count as f64 * height as f64 / width as f64).sqrt().round() as usize).clamp(1, height);
    let columns = ((count as f64 / rows as f64).round() as usize).clamp(1, width);
    let colour = |x: usize, y: usize| &pixels[y * width + x][..3];
    let change = |x: usize, y: usize| {
        let between = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let (left, right) = (x.saturating_sub(1), (x + 1).min(width - 1));
        let (up, down) = (y.saturating_sub(1), (y + 1).min(height - 1));
        between(colour(left, y), colour(right, y)) + between(colour(x, up), colour(x, down))
    };
    // With cells of less than three pixels a side, neighbouring centres could meet.
    let reach = usize::from(width / columns >= 3 && height / rows >= 3);
    let centre = |cell: usize| {
        let (row, column) = (cell / columns, cell % columns);
        let (y, x) = ((2 * row + 1) * height / (2 * rows), (2 * column + 1) * width / (2 * columns));
        let around = (y.saturating_sub(reach)..=(y + reach).min(height - 1))
            .flat_map(|y| (x.saturating_sub(reach)..=(x + reach).min(width - 1)).map(move |x| (x, y)));
        let least = around.min_by(|a, b| change(a.0, a.1).total_cmp(&change(b.0, b.1)));
        let (x, y) = least.unwrap_or((x, y));
        pixels[y * width + x]
    };
    (0..rows * columns).map(centre).collect()
}

/// Puts every pixel to the nearest centre within a step of it, in either direction; the first of equals wins.
fn assign(pixels: &[Point], width: usize, centres: &[Point], step: f64, place: f64, labels: &mut [u32]) {
    let height = pixels.len() / width;
    let mut nearest = vec![f64::INFINITY; pixels.len()];
    labels.fill(NONE);
    let range = |middle: f64, end: usize| {
        let reach = step.ceil() + 1.0;
        (middle - reach).max(0.0) as usize..((middle + reach) as usize + 1).min(end)
    };
    for (label, centre) in centres.iter().enumerate() {
        for y in range(centre[4], height) {
            for x in range(centre[3], width) {
                let (at, pixel) = (y * width + x, &pixels[y * width + x]);
                let colour: f64 = (0..3).map(|c| (pixel[c] - centre[c]).powi(2)).sum();
                let apart = (pixel[3] - centre[3]).powi(2) + (pixel[4] - centre[4]).powi(2);
                let distance = colour + place * place * apart;
                if distance < nearest[at] {
                    nearest[at] = distance;
                    labels[at] = label as u32;
                }
            }
        }
    }
}

/// Moves every centre to the mean of its pixels; one without stays.
fn update(pixels: &[Point], labels: &[u32], centres: &mut [Point]) {
    let mut sums = vec![([0.0; 5], 0usize); centres.len()];
    for (pixel, &label) in pixels.iter().zip(labels) {
        if let Some((sum, count)) = sums.get_mut(label as usize) {
            sum.iter_mut().zip(pixel).for_each(|(s, v)| *s += v);
            *count += 1;
        }
    }
    for (centre, (sum, count)) in centres.iter_mut().zip(sums).filter(|(_, (_, count))| *count > 0) {
        *centre = sum.map(|s| s / count as f64);
    }
}

/// Connected regions of what k-means labelled: of each label the largest connected piece, grown over what is left; then
/// regions of less than `smallest` pixels join the neighbour they share the longest border with.
fn connected(labels: &[u32], width: usize, smallest: usize) -> Superpixels {
    let pieces = pieces(labels, width);
    let mut largest: BTreeMap<u32, usize> = BTreeMap::new();
    for (number, piece) in pieces.iter().enumerate() {
        let kept = largest.entry(labels[piece[0]]).or_insert(number);
        if piece.len() > pieces[*kept].len() {
            *kept = number;
        }
    }
    let mut regions: Vec<Vec<usize>> = largest.values().map(|&number| pieces[number].clone()).collect();
    let mut of = vec![NONE; labels.len()];
    let mut queue: VecDeque<usize> = VecDeque::new();
    for (region, pixels) in regions.iter().enumerate() {
        pixels.iter().for_each(|&at| of[at] = region as u32);
        queue.extend(pixels);
    }
    while let Some(at) = queue.pop_front() {
        for next in around(at, width, of.len()) {
            if of[next] == NONE {
                of[next] = of[at];
                regions[of[at] as usize].push(next);
                queue.push_back(next);
            }
        }
    }
    for region in 0..regions.len() {
        if regions[region].len() < smallest {
            let mut borders: BTreeMap<u32, usize> = BTreeMap::new();
            let beside = regions[region].iter().flat_map(|&at| around(at, width, of.len()));
            beside.map(|at| of[at]).filter(|&r| r != region as u32).for_each(|r| *borders.entry(r).or_default() += 1);
            // The longest border; of equals the last, it does not matter which.
            let Some((&into, _)) = borders.iter().max_by_key(|(_, length)| **length) else { continue };
            let moved = std::mem::take(&mut regions[region]);
            moved.iter().for_each(|&at| of[at] = into);
            regions[into as usize].extend(moved);
        }
    }
    numbered(of, width)
}

/// The connected pieces of equal label, each as its pixels.
fn pieces(labels: &[u32], width: usize) -> Vec<Vec<usize>> {
    let mut seen = vec![false; labels.len()];
    let mut pieces = Vec::new();
    for first in 0..labels.len() {
        if std::mem::replace(&mut seen[first], true) {
            continue;
        }
        let mut piece = vec![first];
        let mut next = 0;
        while let Some(&at) = piece.get(next) {
            next += 1;
            for neighbour in around(at, width, labels.len()) {
                if !seen[neighbour] && labels[neighbour] == labels[first] {
                    seen[neighbour] = true;
                    piece.push(neighbour);
                }
            }
        }
        pieces.push(piece);
    }
    pieces
}

/// Numbers regions in the order of their first pixels.
fn numbered(regions: Vec<u32>, width: usize) -> Superpixels {
    let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
    let number = |region: u32| {
        let next = numbers.len() as u32;
        *numbers.entry(region).or_insert(next)
    };
    let labels: Vec<u32> = regions.into_iter().map(number).collect();
    Superpixels { width, height: labels.len() / width, count: numbers.len(), labels }
}

/// The pixels beside, above and below.
pub(super) fn around(at: usize, width: usize, pixels: usize) -> impl Iterator<Item = usize> {
    let beside = [(!at.is_multiple_of(width)).then(|| at - 1), (at % width + 1 < width).then_some(at + 1)];
    let across = [at.checked_sub(width), Some(at + width).filter(|&below| below < pixels)];
    beside.into_iter().chain(across).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Image;
    use crate::rng::{Purpose, stream};

    fn image(width: usize, height: usize, colour: impl FnMut(usize) -> [u8; 3]) -> Image {
        Image::new(width, height, (0..width * height).flat_map(colour).collect()).unwrap()
    }

    fn noise(width: usize, height: usize) -> Image {
        let mut random = stream(1, Purpose::Probe, 0, 0, 0);
        image(width, height, |_| std::array::from_fn(|_| random.below(256) as u8))
    }

    /// Every superpixel is one connected region, numbered by its first pixel, and all pixels are in one.
    fn assert_regions(s: &Superpixels) {
        let mut seen = vec![false; s.labels.len()];
        let mut regions = Vec::new();
        for first in 0..s.labels.len() {
            let mut stack = if seen[first] { vec![] } else { vec![first] };
            if !stack.is_empty() {
                regions.push(s.labels[first]);
                seen[first] = true;
            }
            while let Some(at) = stack.pop() {
                for n in around(at, s.width, s.labels.len()) {
                    if !seen[n] && s.labels[n] == s.labels[first] {
                        seen[n] = true;
                        stack.push(n);
                    }
                }
            }
        }
        assert_eq!(regions, (0..s.count as u32).collect::<Vec<_>>());
    }

    #[test]
    fn regions_are_connected_and_about_as_many_as_asked_for() {
        for (width, height, superpixels) in
            [(64, 64, 50), (64, 64, 1), (33, 90, 20), (8, 8, 64), (5, 5, 3), (1, 1, 1), (200, 3, 10)]
        {
            for image in [noise(width, height), image(width, height, |_| [90, 120, 30])] {
                let slic = Slic { superpixels, ..Slic::default() };
                let got = slic.segment(image.as_ref()).unwrap();
                assert_regions(&got);
                assert_eq!((got.width, got.height, got.labels.len()), (width, height, width * height));
                assert!(
                    got.count >= 1 && got.count <= 2 * superpixels,
                    "{width} x {height}: {} of {superpixels}",
                    got.count
                );
                assert_eq!(got, slic.segment(image.as_ref()).unwrap());
            }
        }
        // An even ground is cut into the grid.
        let even = Slic { superpixels: 64, ..Slic::default() }.segment(image(64, 64, |_| [7; 3]).as_ref()).unwrap();
        assert_eq!(even.count, 64);
        assert!(even.sizes().iter().all(|&size| (48..=80).contains(&size)), "{:?}", even.sizes());
    }

    #[test]
    fn regions_keep_to_edges() {
        // A red disc on blue: no superpixel holds much of both.
        let inside = |i: usize| (i % 60).abs_diff(30).pow(2) + (i / 60).abs_diff(28).pow(2) < 300;
        let picture = image(60, 60, |i| if inside(i) { [200, 30, 30] } else { [20, 40, 180] });
        let got = Slic { superpixels: 40, ..Slic::default() }.segment(picture.as_ref()).unwrap();
        let mut red = vec![0usize; got.count];
        got.labels.iter().enumerate().filter(|(i, _)| inside(*i)).for_each(|(_, &l)| red[l as usize] += 1);
        let mixed: usize = red.iter().zip(got.sizes()).map(|(&red, size)| red.min(size - red)).sum();
        assert!(mixed < 20, "{mixed} of 3,600 pixels are on the wrong side");
        let colours = got.mean_colours(picture.as_ref());
        let disc = got.labels[28 * 60 + 30] as usize;
        assert_eq!((colours[disc], colours[got.labels[0] as usize]), ([200, 30, 30], [20, 40, 180]));
    }

    #[test]
    fn colours_are_cielab() {
        // White, black and pure red, by the standard's own numbers.
        for (rgb, expected) in
            [([1.0; 3], [100.0, 0.0, 0.0]), ([0.0; 3], [0.0; 3]), ([1.0, 0.0, 0.0], [53.24, 80.09, 67.20])]
        {
            assert!(lab(rgb).iter().zip(expected).all(|(a, b): (&f64, f64)| (a - b).abs() < 0.02), "{:?}", lab(rgb));
        }
        assert!((from_srgb(0.5) - 0.21404).abs() < 1e-5);
    }

    #[test]
    fn bad_parameters_are_errors() {
        let small = noise(4, 4);
        for bad in [
            Slic { superpixels: 17, ..Slic::default() },
            Slic { superpixels: 0, ..Slic::default() },
            Slic { superpixels: 4, compactness: 0.0, ..Slic::default() },
            Slic { superpixels: 4, compactness: f64::NAN, ..Slic::default() },
        ] {
            assert!(matches!(bad.segment(small.as_ref()), Err(Error::Usage(_))), "{bad:?}");
        }
    }
}
