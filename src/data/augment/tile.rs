//! Filtering along rows, eight rows at a time.
//!
//! Along a row every target pixel has its own window, which is a gather, and pixels are three bytes apart: nothing a vector
//! can hold. Across rows all windows are the same. So eight rows are turned into columns of eight numbers, a column is
//! weighted like one pixel, and the sums are turned back.

use super::filter::{FRACTION_BITS, Filter, HALF};

/// Rows of a tile.
pub(super) const ROWS: usize = 8;
/// Bytes of a row that move together, as a word.
const WORD: usize = 4;

/// One number from each row of a tile.
type Column = [u32; ROWS];

/// Buffers of [`Tile::filter`].
#[derive(Default)]
pub(super) struct Tile {
    /// The source's bytes, three columns to a pixel.
    columns: Vec<Column>,
    /// The target's bytes, [`WORD`] of a channel to a column.
    packed: Vec<Column>,
}

impl Tile {
    /// Filters [`ROWS`] packed rows and writes them to `out`: `[row][channel][column]`, `width` columns, mirrored if asked
    /// for.
    #[inline(always)]
    pub(super) fn filter(&mut self, rows: [&[u8]; ROWS], filter: &Filter, mirror: bool, width: usize, out: &mut [u8]) {
        self.read(rows);
        match filter.count {
            1 => self.weigh::<1>(filter, mirror, width),
            2 => self.weigh::<2>(filter, mirror, width),
            3 => self.weigh::<3>(filter, mirror, width),
            4 => self.weigh::<4>(filter, mirror, width),
            _ => self.weigh::<0>(filter, mirror, width),
        }
        self.write(width, out);
    }

    /// Turns rows into columns.
    #[inline(always)]
    fn read(&mut self, rows: [&[u8]; ROWS]) {
        let len = rows[0].len();
        self.columns.resize(len.next_multiple_of(WORD), [0; ROWS]);
        let (fours, last) = self.columns.split_at_mut(len / WORD * WORD);
        let fours = fours.as_chunks_mut::<WORD>().0;
        let sources = rows.map(|row| &row.as_chunks::<WORD>().0[..fours.len()]);
        for (at, columns) in fours.iter_mut().enumerate() {
            let mut words = [0; ROWS];
            for (word, source) in words.iter_mut().zip(sources) {
                *word = u32::from_le_bytes(source[at]);
            }
            for (byte, column) in columns.iter_mut().enumerate() {
                for (value, word) in column.iter_mut().zip(words) {
                    *value = word >> (8 * byte) & 0xff;
                }
            }
        }
        for (at, column) in last.iter_mut().enumerate().take(len % WORD) {
            for (value, row) in column.iter_mut().zip(rows) {
                *value = u32::from(row[len / WORD * WORD + at]);
            }
        }
    }

    /// Weighs each target column's window, by `N` weights; 0 stands for any count.
    #[inline(always)]
    fn weigh<const N: usize>(&mut self, filter: &Filter, mirror: bool, width: usize) {
        let words = width.div_ceil(WORD);
        self.packed.resize(3 * words, [0; ROWS]);
        let (red, rest) = self.packed.split_at_mut(words);
        let (green, blue) = rest.split_at_mut(words);
        for (word, ((red, green), blue)) in red.iter_mut().zip(green).zip(blue).enumerate() {
            let mut packed = [[0; ROWS]; 3];
            for byte in 0..WORD.min(width - word * WORD) {
                let x = word * WORD + byte;
                let (start, weights) = filter.window(if mirror { width - 1 - x } else { x });
                let count = if N == 0 { weights.len() } else { N };
                let window = &self.columns.as_chunks::<3>().0[start..start + count];
                let sums = weighted(window, &weights[..count]);
                for (packed, sums) in packed.iter_mut().zip(sums) {
                    for (packed, sum) in packed.iter_mut().zip(sums) {
                        *packed |= sum >> FRACTION_BITS << (8 * byte);
                    }
                }
            }
            [*red, *green, *blue] = packed;
        }
    }

    /// Turns the target's columns into rows.
    #[inline(always)]
    fn write(&self, width: usize, out: &mut [u8]) {
        let words = width.div_ceil(WORD);
        for (channel, packed) in self.packed.chunks_exact(words).enumerate() {
            for (row, out) in out.chunks_exact_mut(3 * width).enumerate() {
                let (fours, last) = out[channel * width..(channel + 1) * width].as_chunks_mut::<WORD>();
                for (four, packed) in fours.iter_mut().zip(packed) {
                    *four = packed[row].to_le_bytes();
                }
                last.copy_from_slice(&packed[words - 1][row].to_le_bytes()[..last.len()]);
            }
        }
    }
}

/// The weighted sums of pixels: three channels of eight rows.
#[inline(always)]
fn weighted(window: &[[Column; 3]], weights: &[u32]) -> [Column; 3] {
    let mut sums = [[HALF; ROWS]; 3];
    for (pixel, &weight) in window.iter().zip(weights) {
        for (sums, column) in sums.iter_mut().zip(pixel) {
            for (sum, value) in sums.iter_mut().zip(column) {
                *sum += weight * value;
            }
        }
    }
    sums
}
