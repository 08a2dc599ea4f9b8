//! A sheet of pictures: rows of cells on a neutral ground, a line of text above each row.

use std::path::Path;

use font8x8::{BASIC_FONTS, UnicodeFonts};

use crate::atomic_file::write_atomically;
use crate::data::ImageRef;
use crate::data::augment::{Size, resize};
use crate::data::loader::with_workspace;
use crate::{Error, Result};

/// Pixels above which no sheet is drawn.
const MAX_PIXELS: usize = 100_000_000;
/// Pixels between cells, and around them.
const GAP: usize = 6;
/// Pixels between groups, on top of that.
const GROUP_GAP: usize = 12;
/// Side of a letter: the font's 8 pixels, doubled.
const LETTER: usize = 16;
/// Behind the cells: dark enough to let the pictures shine, and neither black nor white as their borders often are.
const GROUND: u8 = 48;
/// The text.
const INK: u8 = 220;

/// Where things are on a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Cells in a row, at least 1.
    pub columns: usize,
    /// Cells that belong together, at least 1; a wider gap parts them from the next ones.
    pub group: usize,
    /// Rows, at least 1.
    pub rows: usize,
    /// Side of a cell in pixels, at least 1.
    pub cell: usize,
}

impl Layout {
    /// Pixels of the whole sheet.
    pub fn size(&self) -> Size {
        let (x, y) = self.origin(self.rows - 1, self.columns - 1);
        Size { width: x + self.cell + GAP, height: y + self.cell + GAP }
    }

    /// Column and row of pixels where the cell in (`row`, `column`) begins.
    pub fn origin(&self, row: usize, column: usize) -> (usize, usize) {
        let x = GAP + column * (self.cell + GAP) + column / self.group * GROUP_GAP;
        (x, (row + 1) * (GAP + LETTER + GAP) + row * self.cell)
    }
}

/// A sheet being drawn: `height x width x 3`, RGB.
pub struct Sheet {
    layout: Layout,
    size: Size,
    pixels: Vec<u8>,
}

impl Sheet {
    /// An empty sheet. Errors with [`Error::Usage`] if it would be too large to look at.
    pub fn new(layout: Layout) -> Result<Sheet> {
        let size = layout.size();
        if size.area() > MAX_PIXELS {
            let problem = format!(
                "a sheet of {} x {} pixels is too large: take fewer pictures, or smaller ones",
                size.width, size.height
            );
            return Err(Error::Usage(problem));
        }
        Ok(Sheet { layout, size, pixels: vec![GROUND; 3 * size.area()] })
    }

    /// The sheet as drawn so far.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Its size in pixels.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Writes `text` above a group, from its first `column` on: as much of it as fits.
    pub fn caption(&mut self, row: usize, column: usize, text: &str) {
        let (x, y) = self.layout.origin(row, column);
        let y = y - GAP - LETTER;
        let width = (self.layout.group * (self.layout.cell + GAP) - GAP).min(self.size.width - GAP - x);
        for (i, letter) in text.chars().take(width / LETTER).enumerate() {
            let glyph = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
            for (dy, dx) in (0..LETTER).flat_map(|dy| (0..LETTER).map(move |dx| (dy, dx))) {
                if glyph[dy / 2] >> (dx / 2) & 1 == 1 {
                    let at = 3 * ((y + dy) * self.size.width + x + i * LETTER + dx);
                    self.pixels[at..at + 3].fill(INK);
                }
            }
        }
    }

    /// Draws `image` in the middle of a cell with its aspect kept: enlarged by a whole number where that is possible (so
    /// that every pixel of a small picture is seen), otherwise resized to the cell.
    pub fn place(&mut self, row: usize, column: usize, image: ImageRef) -> Result<()> {
        let (width, height, cell) = (image.width(), image.height(), self.layout.cell);
        let longer = width.max(height);
        if cell / longer >= 2 || longer == cell {
            self.magnify(row, column, image, cell / longer);
            return Ok(());
        }
        let side = |own: usize| (own * cell + longer / 2).checked_div(longer).unwrap_or(1).max(1);
        let size = Size { width: side(width), height: side(height) };
        let mut pixels = vec![0; 3 * size.area()];
        with_workspace(|workspace| resize(image, size, &mut workspace.scratch, &mut pixels))?;
        self.magnify(row, column, ImageRef::new(size.width, size.height, &pixels)?, 1);
        Ok(())
    }

    /// Draws every pixel of `image`, which fits, as `factor` x `factor` pixels in the middle of a cell.
    fn magnify(&mut self, row: usize, column: usize, image: ImageRef, factor: usize) {
        let (x, y) = self.layout.origin(row, column);
        let x = x + (self.layout.cell - factor * image.width()) / 2;
        let y = y + (self.layout.cell - factor * image.height()) / 2;
        for (dy, line) in image.pixels().chunks_exact(3 * image.width()).enumerate() {
            let wide: Vec<u8> = line.as_chunks::<3>().0.iter().flat_map(|pixel| pixel.repeat(factor)).collect();
            for copy in 0..factor {
                let at = 3 * ((y + dy * factor + copy) * self.size.width + x);
                self.pixels[at..at + wide.len()].copy_from_slice(&wide);
            }
        }
    }

    /// Writes the sheet as a PNG, in one step.
    pub fn write_png(self, path: &Path) -> Result<()> {
        let (width, height) = (self.size.width as u32, self.size.height as u32);
        write_atomically(path, |out| {
            let encoder = image::codecs::png::PngEncoder::new(out);
            image::ImageEncoder::write_image(encoder, &self.pixels, width, height, image::ExtendedColorType::Rgb8)
                .map_err(std::io::Error::other)
        })
    }
}
