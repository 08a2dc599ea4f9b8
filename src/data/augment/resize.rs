//! Bilinear resizing with antialiasing, bit for bit Pillow's `Image.resize(size, BILINEAR)` on RGB.
//!
//! A triangle filter, widened by the scale when shrinking, is applied along rows and then along columns. Both passes work
//! in fixed point with 22 fraction bits and round to 8 bits (`Resample.c`). A row is filtered just before a column needs it
//! and kept in a ring of as many rows as the filter is tall, so that each source row is read once and the intermediate
//! stays in the first-level cache.

use super::{CropBox, Flip, Size};
use crate::data::ImageRef;

/// Fraction bits of a weight. A sum of 8-bit pixels under weights of sum 1 then fits in 31 bits.
const FRACTION_BITS: u32 = 22;
const HALF: u32 = 1 << (FRACTION_BITS - 1);

/// Columns whose sums are kept in registers by [`mix_many`].
const BLOCK: usize = 32;

/// The filter along one axis: for each target position the first source position and `count` weights.
///
/// Every position has the same count: shorter filters are padded with zeros, and a window that would reach past the
/// end starts earlier. That changes no sum and gives the inner loops a constant length (2 when enlarging).
#[derive(Default)]
struct Filter {
    count: usize,
    starts: Vec<usize>,
    weights: Vec<u32>,
    /// Weights of one position before normalisation.
    raw: Vec<f64>,
}

impl Filter {
    /// The triangle filter from `source` to `target` positions, both at least 1. The order of the floating-point
    /// operations is Pillow's (`precompute_coeffs`, `normalize_coeffs_8bpc`).
    fn compute(&mut self, source: usize, target: usize) {
        let scale = source as f64 / target as f64;
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        let widest = (2 * support.ceil() as usize + 1).min(source);
        self.starts.clear();
        self.weights.clear();
        self.count = 1;
        for position in 0..target {
            let center = (position as f64 + 0.5) * scale;
            let first = (center - support + 0.5) as usize; // negative becomes 0
            let end = ((center + support + 0.5) as usize).min(source);
            self.raw.clear();
            self.raw.extend((first..end).map(|x| (1.0 - ((x as f64 - center + 0.5) * inverse).abs()).max(0.0)));
            let sum: f64 = self.raw.iter().sum();
            let fixed = |w: &f64| (0.5 + w / sum * f64::from(1 << FRACTION_BITS)) as u32;
            let zeros = self.raw.iter().take_while(|w| fixed(w) == 0).count();
            let filled = self.weights.len();
            self.weights.extend(self.raw[zeros..].iter().map(fixed));
            while self.weights.len() > filled && self.weights.last() == Some(&0) {
                self.weights.pop();
            }
            self.count = self.count.max(self.weights.len() - filled);
            self.weights.resize(filled + widest, 0);
            self.starts.push(first + zeros);
        }
        self.compact(source, widest);
    }

    /// Brings the weights from `stride` to `count` per position and the windows inside the source.
    fn compact(&mut self, source: usize, stride: usize) {
        let count = self.count;
        for (position, start) in self.starts.iter_mut().enumerate() {
            self.weights.copy_within(position * stride..position * stride + count, position * count);
            let last = source - count;
            if *start > last {
                self.weights[position * count..(position + 1) * count].rotate_right(*start - last);
                *start = last;
            }
        }
        self.weights.truncate(self.starts.len() * count);
    }

    fn window(&self, position: usize) -> (usize, &[u32]) {
        (self.starts[position], &self.weights[position * self.count..(position + 1) * self.count])
    }
}

/// Filters and row buffers, reused from view to view.
#[derive(Default)]
pub(super) struct Resizer {
    columns: Filter,
    rows: Filter,
    /// Rows between the two passes: a ring of planar rows, or one packed row.
    between: Vec<u8>,
}

impl Resizer {
    /// Resizes `crop` of `image` to `size` and writes planes `[channel][row][column]`, mirrored as `flip` says.
    pub(super) fn run(&mut self, image: ImageRef, crop: CropBox, flip: Flip, size: Size, planes: &mut [u8]) {
        self.columns.compute(crop.width, size.width);
        self.rows.compute(crop.height, size.height);
        let source = |row: usize| {
            let at = ((crop.top + row) * image.width() + crop.left) * 3;
            &image.pixels()[at..at + 3 * crop.width]
        };
        if rows_pass_first(crop, size) {
            self.down_then_across(source, flip, size, planes);
        } else {
            self.across_then_down(source, flip, size, planes);
        }
    }

    /// Filters along each row, keeps the results in a ring, and mixes the ring's rows.
    fn across_then_down<'a>(&mut self, source: impl Fn(usize) -> &'a [u8], flip: Flip, size: Size, planes: &mut [u8]) {
        let depth = self.rows.count;
        let row_len = 3 * size.width;
        self.between.resize(depth * row_len, 0);
        let mut filtered = 0;
        for y in 0..size.height {
            let (first, weights) = self.rows.window(y);
            // Windows never move up, so the ring's oldest row is always one that no later window needs.
            while filtered < first + depth {
                let slot = &mut self.between[filtered % depth * row_len..][..row_len];
                let (red, rest) = slot.split_at_mut(size.width);
                let (green, blue) = rest.split_at_mut(size.width);
                filter_row(source(filtered), &self.columns, flip, [red, green, blue]);
                filtered += 1;
            }
            for (channel, target) in target_rows(planes, size, flip, y).into_iter().enumerate() {
                let at = |k: usize| (first + k) % depth * row_len + channel * size.width;
                mix_rows(|k| &self.between[at(k)..][..size.width], weights, target);
            }
        }
    }

    /// Mixes source rows and filters along the result.
    fn down_then_across<'a>(&mut self, source: impl Fn(usize) -> &'a [u8], flip: Flip, size: Size, planes: &mut [u8]) {
        self.between.resize(source(0).len(), 0);
        for y in 0..size.height {
            let (first, weights) = self.rows.window(y);
            mix_rows(|k| source(first + k), weights, &mut self.between);
            filter_row(&self.between, &self.columns, flip, target_rows(planes, size, flip, y));
        }
    }
}

/// True where Pillow (since 13.0) filters along columns before rows: the height shrinks by more than twice as many pixels
/// as the width. The order shows in the result because the intermediate is rounded to 8 bits.
fn rows_pass_first(crop: CropBox, size: Size) -> bool {
    crop.height > size.height && crop.height - size.height > 2 * crop.width.saturating_sub(size.width)
}

/// Row `y` of the three planes, counted from the bottom if the view is flipped.
fn target_rows(planes: &mut [u8], size: Size, flip: Flip, y: usize) -> [&mut [u8]; 3] {
    let row = if flip.vertical { size.height - 1 - y } else { y };
    let (red, rest) = planes.split_at_mut(size.area());
    let (green, blue) = rest.split_at_mut(size.area());
    [red, green, blue].map(|plane| &mut plane[row * size.width..][..size.width])
}

/// Filters one packed row to its three channels.
fn filter_row(source: &[u8], filter: &Filter, flip: Flip, mut out: [&mut [u8]; 3]) {
    let channels = out.each_mut().map(|channel| &mut **channel);
    match filter.count {
        1 => filter_row_by::<1>(source, filter, channels),
        2 => filter_row_by::<2>(source, filter, channels),
        3 => filter_row_by::<3>(source, filter, channels),
        4 => filter_row_by::<4>(source, filter, channels),
        5 => filter_row_by::<5>(source, filter, channels),
        _ => filter_row_by::<0>(source, filter, channels),
    }
    if flip.horizontal {
        out.into_iter().for_each(<[u8]>::reverse);
    }
}

/// [`filter_row`] for `N` weights per position; 0 stands for any count.
fn filter_row_by<const N: usize>(source: &[u8], filter: &Filter, [red, green, blue]: [&mut [u8]; 3]) {
    let count = if N == 0 { filter.count } else { N };
    let windows = filter.starts.iter().zip(filter.weights.chunks_exact(count));
    let targets = red.iter_mut().zip(green).zip(blue);
    for ((&start, weights), ((red, green), blue)) in windows.zip(targets) {
        let pixels = &source[3 * start..3 * (start + count)];
        let mut sums = [HALF; 3];
        for (pixel, &weight) in pixels.chunks_exact(3).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(pixel) {
                *sum += weight * u32::from(value);
            }
        }
        [*red, *green, *blue] = sums.map(|sum| (sum >> FRACTION_BITS) as u8);
    }
}

/// Weighted sum of as many rows as there are weights.
fn mix_rows<'a>(row: impl Fn(usize) -> &'a [u8], weights: &[u32], out: &mut [u8]) {
    match *weights {
        [_] => out.copy_from_slice(row(0)),
        [a, b] => mix([row(0), row(1)], [a, b], out),
        [a, b, c] => mix([row(0), row(1), row(2)], [a, b, c], out),
        _ => mix_many(row, weights, out),
    }
}

/// Weighted sum of `N` rows.
fn mix<const N: usize>(rows: [&[u8]; N], weights: [u32; N], out: &mut [u8]) {
    let rows = rows.map(|row| &row[..out.len()]);
    for (x, out) in out.iter_mut().enumerate() {
        let sum = (0..N).fold(HALF, |sum, k| sum + weights[k] * u32::from(rows[k][x]));
        *out = (sum >> FRACTION_BITS) as u8;
    }
}

/// Weighted sum of any number of rows, a block of columns at a time.
fn mix_many<'a>(row: impl Fn(usize) -> &'a [u8], weights: &[u32], out: &mut [u8]) {
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [HALF; BLOCK];
        for (k, &weight) in weights.iter().enumerate() {
            for (sum, &value) in sums.iter_mut().zip(&row(k)[block * BLOCK..][..out.len()]) {
                *sum += weight * u32::from(value);
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (sum >> FRACTION_BITS) as u8);
    }
}
