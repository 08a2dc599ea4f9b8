//! Small copies of images, all in one sheet that a page shows parts of, and one by one for figures.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::ExtendedColorType::Rgb8;
use image::ImageEncoder as _;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use maud::{Markup, html};
use rayon::prelude::*;

use crate::data::augment::{Size, resize};
use crate::data::loader::with_workspace;
use crate::data::{Dataset, ImageRef};
use crate::{Error, Result};

/// Side of a thumbnail in pixels, by how many there are: the sheet stays below ten million pixels, which phones show.
const SIDES: [(usize, usize); 3] = [(2_000, 64), (4_000, 48), (usize::MAX, 32)];
/// Pixels around a thumbnail that repeat its edge: browsers that scale the sheet mix in no other image.
const EDGE: usize = 1;
/// Qualities of a JPEG, the first of which that gives a link of at most [`LINK`] letters is taken.
const QUALITIES: [u8; 6] = [82, 70, 58, 46, 34, 22];
/// Letters in a link: Chromium shows nothing where there are more than 2 MiB.
const LINK: usize = 2_000_000;
/// Behind images that are not square.
const GROUND: u8 = 128;

/// Thumbnails of some images of a data set: squares of one size, in which each fits with its aspect kept.
pub struct Thumbs {
    side: usize,
    /// Image to tile.
    tiles: BTreeMap<usize, usize>,
    pixels: Vec<Vec<u8>>,
    names: Vec<String>,
    columns: usize,
}

impl Thumbs {
    /// Thumbnails of `images` (indices into `dataset`; repeated ones are kept once).
    ///
    /// # Errors
    /// If an image can no longer be read.
    pub fn new(dataset: &Dataset, images: impl IntoIterator<Item = usize>) -> Result<Thumbs> {
        let images: BTreeSet<usize> = images.into_iter().collect();
        let side = SIDES.into_iter().find(|(most, _)| images.len() <= *most).map_or(SIDES[0].1, |(_, side)| side);
        Thumbs::of_side(dataset, images, side)
    }

    /// As [`Thumbs::new`], `side` pixels each.
    pub fn of_side(dataset: &Dataset, images: BTreeSet<usize>, side: usize) -> Result<Thumbs> {
        let images: Vec<usize> = images.into_iter().collect();
        let pixels = images.par_iter().map(|&i| thumb(dataset, i, side)).collect::<Result<Vec<_>>>()?;
        dataset.check()?;
        let names = images.iter().map(|&i| dataset.name(i).to_owned()).collect();
        let columns = (images.len() as f64).sqrt().ceil().max(1.0) as usize;
        let tiles = images.into_iter().enumerate().map(|(tile, image)| (image, tile)).collect();
        Ok(Thumbs { side, tiles, pixels, names, columns })
    }

    /// The tile of `image`.
    ///
    /// # Panics
    /// If it is not among those asked for.
    pub fn tile(&self, image: usize) -> usize {
        self.tiles[&image]
    }

    /// Side of a thumbnail in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// RGB pixels of `image`, [`Thumbs::side`] squared. Panics as [`Thumbs::tile`].
    pub fn pixels(&self, image: usize) -> &[u8] {
        &self.pixels[self.tile(image)]
    }

    /// Tiles in a row of the sheet.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All tiles in one picture: pixels, row-major RGB, and its size.
    pub fn sheet(&self, edge: Edge) -> (Vec<u8>, Size) {
        let (edge, side) = (edge as usize, self.side);
        let stride = side + 2 * edge;
        let rows = self.pixels.len().div_ceil(self.columns).max(1);
        let size = Size { width: self.columns * stride, height: rows * stride };
        let mut sheet = vec![GROUND; 3 * size.area()];
        for (tile, pixels) in self.pixels.iter().enumerate() {
            let (x, y) = (tile % self.columns * stride, tile / self.columns * stride);
            for row in 0..stride {
                let from = row.saturating_sub(edge).min(side - 1) * side;
                let to = (y + row) * size.width + x;
                for column in 0..stride {
                    let from = 3 * (from + column.saturating_sub(edge).min(side - 1));
                    sheet[3 * (to + column)..][..3].copy_from_slice(&pixels[from..from + 3]);
                }
            }
        }
        (sheet, size)
    }

    /// The style rule that makes an element of class `t` show a tile of the sheet, `--w` CSS pixels wide.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sheet is larger than a JPEG can be.
    pub fn style(&self) -> Result<String> {
        let (sheet, size) = self.sheet(Edge::Repeated);
        let (side, stride) = (self.side, self.side + 2 * EDGE);
        let uri = jpeg_uri(&sheet, size.width, size.height)?;
        Ok(format!(
            ".t{{--side:{side};--s:calc(var(--w,64)/{side}*1px);display:inline-block;width:calc({side}*var(--s));\
             height:calc({side}*var(--s));background:url({uri}) calc((var(--x)*-{stride} - {EDGE})*var(--s)) \
             calc((var(--y)*-{stride} - {EDGE})*var(--s))/calc({}*var(--s)) calc({}*var(--s)) no-repeat;\
             print-color-adjust:exact;-webkit-print-color-adjust:exact}}",
            size.width, size.height
        ))
    }

    /// `image` in a page; `what` is said of it beside its name.
    pub fn html(&self, image: usize, what: &str) -> Markup {
        let tile = self.tile(image);
        let label = if what.is_empty() { self.names[tile].clone() } else { format!("{}: {what}", self.names[tile]) };
        let style = format!("--x:{};--y:{}", tile % self.columns, tile / self.columns);
        html! { i.t role="img" data-image=(image) style=(style) title=(label) aria-label=(label) {} }
    }

    /// `image` in a drawing, `side` units across, its corner at (`x`, `y`).
    pub fn svg(&self, image: usize, x: f64, y: f64, side: f64) -> Markup {
        let href = png_uri(self.pixels(image), self.side, self.side);
        html! { image data-image=(image) x=(x) y=(y) width=(side) height=(side) href=(href) {} }
    }
}

/// What is around the tiles of a sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Nothing.
    None = 0,
    /// Their outermost pixels once more.
    Repeated = EDGE as isize,
}

/// `pixels`, RGB, as a PNG's bytes.
pub fn png(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Into memory, and with a size that fits: nothing here can fail.
    PngEncoder::new(&mut bytes).write_image(pixels, width as u32, height as u32, Rgb8).expect("a picture in memory");
    bytes
}

/// `pixels`, RGB, as a JPEG in a link that holds it, as good as browsers take it.
///
/// # Errors
/// [`Error::Shape`] if it is larger than a JPEG can be (65,535 pixels a side).
pub fn jpeg_uri(pixels: &[u8], width: usize, height: usize) -> Result<String> {
    let mut uri = String::new();
    for quality in QUALITIES {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality)
            .write_image(pixels, width as u32, height as u32, Rgb8)
            .map_err(|e| Error::shape("jpeg", e.to_string()))?;
        uri = format!("data:image/jpeg;base64,{}", BASE64.encode(jpeg));
        if uri.len() <= LINK {
            break;
        }
    }
    Ok(uri)
}

/// [`png()`] as a link that holds it.
pub fn png_uri(pixels: &[u8], width: usize, height: usize) -> String {
    format!("data:image/png;base64,{}", BASE64.encode(png(pixels, width, height)))
}

/// Image `i` in the middle of a square, its aspect kept: enlarged by a whole number where that fills the square, so that
/// every pixel of a small picture is seen, otherwise resized.
fn thumb(dataset: &Dataset, i: usize, square: usize) -> Result<Vec<u8>> {
    let mut decoded = Vec::new();
    let image = dataset.image(i, &mut decoded)?;
    let longer = image.width().max(image.height());
    let side = |own: usize| (own * square / longer).max(1);
    let size = Size { width: side(image.width()), height: side(image.height()) };
    let mut pixels = vec![0; 3 * size.area()];
    if square.is_multiple_of(longer) {
        magnify(image, square / longer, &mut pixels);
    } else {
        with_workspace(|workspace| resize(image, size, &mut workspace.scratch, &mut pixels))?;
    }
    let mut tile = vec![GROUND; 3 * square * square];
    let (x, y) = ((square - size.width) / 2, (square - size.height) / 2);
    for (row, line) in pixels.chunks_exact(3 * size.width).enumerate() {
        tile[3 * ((y + row) * square + x)..][..line.len()].copy_from_slice(line);
    }
    Ok(tile)
}

/// Every pixel of `image` as `factor` x `factor` pixels.
fn magnify(image: ImageRef, factor: usize, out: &mut [u8]) {
    let width = image.width() * factor;
    for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
        let from = 3 * (at / width / factor * image.width() + at % width / factor);
        pixel.copy_from_slice(&image.pixels()[from..from + 3]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn the_largest_sheet_is_a_link_that_browsers_take() {
        let mut random = stream(1, Purpose::Probe, 0, 0, 0);
        // Noise on colours, as photographs at their worst have it, at the size of 2,000 tiles.
        let side = 45 * (64 + 2 * EDGE);
        let pixels: Vec<u8> = (0..3 * side * side).map(|_| (128.0 + 25.0 * random.normal()) as u8).collect();
        let uri = jpeg_uri(&pixels, side, side).unwrap();
        assert!(uri.len() <= LINK, "{} letters", uri.len());
    }
}
