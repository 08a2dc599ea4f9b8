//! Bilinear resizing with antialiasing, bit for bit Pillow's `Image.resize(size, BILINEAR)` on RGB.
//!
//! A triangle filter, widened by the scale when shrinking, is applied along rows and then along columns. Both passes work
//! in fixed point with 22 fraction bits and round to 8 bits (`Resample.c`). Rows are filtered, a tile at a time, just before
//! a column needs them and kept in a ring of as many as the filter is tall, so that each source row is read once and the
//! intermediate stays in the first-level cache.

use super::filter::{FRACTION_BITS, Filter, HALF};
use super::tile::{ROWS, Tile};
use super::{CropBox, Flip, Size};

/// Columns whose sums are kept in registers by [`mix_many`].
const BLOCK: usize = 32;

/// The part of a picture that is resized.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// The whole picture, HWC.
    pub(super) pixels: &'a [u8],
    /// Its columns.
    pub(super) width: usize,
    /// Lies within it.
    pub(super) crop: CropBox,
}

impl<'a> Source<'a> {
    /// A row of the crop; past the end, the last one again.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [u8] {
        let at = 3 * ((self.crop.top + row.min(self.crop.height - 1)) * self.width + self.crop.left);
        &self.pixels[at..at + 3 * self.crop.width]
    }
}

/// Filters and row buffers, reused from view to view.
#[derive(Default)]
pub(super) struct Resizer {
    columns: Filter,
    rows: Filter,
    tile: Tile,
    /// Rows between the two passes: a ring of planar rows, or a tile of packed ones.
    between: Vec<u8>,
    /// A tile of planar rows on their way out.
    last: Vec<u8>,
}

impl Resizer {
    /// Resizes `source` to `size` and writes planes `[channel][row][column]`, mirrored as `flip` says.
    #[inline(always)]
    pub(super) fn run(&mut self, source: Source, flip: Flip, size: Size, planes: &mut [u8]) {
        self.columns.compute(source.crop.width, size.width);
        self.rows.compute(source.crop.height, size.height);
        if rows_pass_first(source.crop, size) {
            self.down_then_across(source, flip, size, planes);
        } else {
            self.across_then_down(source, flip, size, planes);
        }
    }

    /// Filters along rows, keeps the results in a ring, and mixes the ring's rows.
    #[inline(always)]
    fn across_then_down(&mut self, source: Source, flip: Flip, size: Size, planes: &mut [u8]) {
        // Whole tiles, of which a window touches so many.
        let depth = (self.rows.count + ROWS - 1).next_multiple_of(ROWS);
        let row_len = 3 * size.width;
        self.between.resize(depth * row_len, 0);
        let mut filtered = 0;
        for y in 0..size.height {
            let (first, weights) = self.rows.window(y);
            // Windows never move up, so the ring's oldest tile is always one that no later window needs.
            while filtered < first + weights.len() {
                let tile = &mut self.between[filtered % depth * row_len..][..ROWS * row_len];
                let rows = std::array::from_fn(|row| source.row(filtered + row));
                self.tile.filter(rows, &self.columns, flip.horizontal, size.width, tile);
                filtered += ROWS;
            }
            for (channel, target) in target_rows(planes, size, flip, y).into_iter().enumerate() {
                let at = |k: usize| (first + k) % depth * row_len + channel * size.width;
                mix_rows(|k| &self.between[at(k)..][..size.width], weights, target);
            }
        }
    }

    /// Mixes source rows and filters along the results.
    #[inline(always)]
    fn down_then_across(&mut self, source: Source, flip: Flip, size: Size, planes: &mut [u8]) {
        let source_len = source.row(0).len();
        self.between.resize(ROWS * source_len, 0);
        self.last.resize(ROWS * 3 * size.width, 0);
        for top in (0..size.height).step_by(ROWS) {
            let rows = ROWS.min(size.height - top);
            for (row, mixed) in self.between.chunks_exact_mut(source_len).enumerate().take(rows) {
                let (first, weights) = self.rows.window(top + row);
                mix_rows(|k| source.row(first + k), weights, mixed);
            }
            let mixed = std::array::from_fn(|row| &self.between[row * source_len..][..source_len]);
            self.tile.filter(mixed, &self.columns, flip.horizontal, size.width, &mut self.last);
            for (row, filtered) in self.last.chunks_exact(3 * size.width).enumerate().take(rows) {
                let targets = target_rows(planes, size, flip, top + row);
                for (target, channel) in targets.into_iter().zip(filtered.chunks_exact(size.width)) {
                    target.copy_from_slice(channel);
                }
            }
        }
    }
}

/// True where Pillow (since 13.0) filters along columns before rows: the height shrinks by more than twice as many pixels
/// as the width. The order shows in the result because the intermediate is rounded to 8 bits.
#[inline(always)]
fn rows_pass_first(crop: CropBox, size: Size) -> bool {
    crop.height > size.height && crop.height - size.height > 2 * crop.width.saturating_sub(size.width)
}

/// Row `y` of the three planes, counted from the bottom if the view is flipped.
#[inline(always)]
fn target_rows(planes: &mut [u8], size: Size, flip: Flip, y: usize) -> [&mut [u8]; 3] {
    let row = if flip.vertical { size.height - 1 - y } else { y };
    let (red, rest) = planes.split_at_mut(size.area());
    let (green, blue) = rest.split_at_mut(size.area());
    [red, green, blue].map(|plane| &mut plane[row * size.width..][..size.width])
}

/// Weighted sum of as many rows as there are weights.
#[inline(always)]
fn mix_rows<'a>(row: impl Fn(usize) -> &'a [u8], weights: &[u32], out: &mut [u8]) {
    match *weights {
        [_] => out.copy_from_slice(row(0)),
        [a, b] => mix([row(0), row(1)], [a, b], out),
        [a, b, c] => mix([row(0), row(1), row(2)], [a, b, c], out),
        _ => mix_many(row, weights, out),
    }
}

/// Weighted sum of `N` rows.
#[inline(always)]
fn mix<const N: usize>(rows: [&[u8]; N], weights: [u32; N], out: &mut [u8]) {
    let rows = rows.map(|row| &row[..out.len()]);
    for (x, out) in out.iter_mut().enumerate() {
        let sum = (0..N).fold(HALF, |sum, k| sum + weights[k] * u32::from(rows[k][x]));
        *out = (sum >> FRACTION_BITS) as u8;
    }
}

/// Weighted sum of any number of rows, a block of columns at a time.
#[inline(always)]
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
