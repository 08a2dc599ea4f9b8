//! The random part of the picture that a view shows.

use crate::rng::Stream;

/// Attempts before the central crop is taken, as in torchvision.
const ATTEMPTS: usize = 10;

/// A rectangle of source pixels. The resize sees nothing outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CropBox {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Columns, at least 1.
    pub width: usize,
}

impl CropBox {
    /// The whole of a picture.
    pub fn whole(width: usize, height: usize) -> Self {
        CropBox { top: 0, left: 0, height, width }
    }

    /// True if the box is not empty and lies within a picture of `width` x `height`.
    pub(super) fn fits(&self, width: usize, height: usize) -> bool {
        let within = |first: usize, len: usize, side: usize| len > 0 && first < side && len <= side - first;
        within(self.top, self.height, height) && within(self.left, self.width, width)
    }

    /// A random box, distributed as torchvision's `RandomResizedCrop.get_params`: its share of the area uniform in
    /// `scale`, its aspect (width over height) log-uniform in `ratio`, its place uniform. If ten attempts do not fit, the
    /// largest central box whose aspect lies in `ratio`.
    ///
    /// Draws the same count of numbers from the stream whatever the outcome.
    pub(super) fn sample(stream: &mut Stream, width: usize, height: usize, scale: [f64; 2], ratio: [f64; 2]) -> Self {
        let area = (width * height) as f64;
        let mut found = None;
        for _ in 0..ATTEMPTS {
            let target = area * stream.uniform_in(scale[0], scale[1]);
            let aspect = stream.uniform_in(ratio[0].ln(), ratio[1].ln()).exp();
            let w = (target * aspect).sqrt().round_ties_even() as usize;
            let h = (target / aspect).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                found = found.or(Some((w, h)));
            }
        }
        let (down, right) = (stream.uniform(), stream.uniform());
        match found {
            Some((w, h)) => {
                CropBox { top: place(down, height - h), left: place(right, width - w), height: h, width: w }
            }
            None => Self::central(width, height, ratio),
        }
    }

    /// torchvision's fallback.
    fn central(width: usize, height: usize, ratio: [f64; 2]) -> Self {
        let aspect = width as f64 / height as f64;
        let (mut w, mut h) = (width, height);
        if aspect < ratio[0] {
            h = ((width as f64 / ratio[0]).round_ties_even() as usize).clamp(1, height);
        } else if aspect > ratio[1] {
            w = ((height as f64 * ratio[1]).round_ties_even() as usize).clamp(1, width);
        }
        CropBox { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

/// Uniform integer in `0..=room` from a uniform number in [0, 1).
fn place(uniform: f64, room: usize) -> usize {
    ((uniform * (room + 1) as f64) as usize).min(room)
}
