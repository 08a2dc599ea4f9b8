//! Occlusion maps: by how much a head's output falls when a square of the image is covered (Zeiler and Fergus 2014).
//!
//! A square in the image's mean colour moves over it by half its side; a pixel's value is the mean fall over the squares
//! that cover it. No superpixels, no model, nothing random: a check on LIME at a fiftieth of its cost.

use super::slic::Superpixels;
use super::{Network, mean_colour};
use crate::data::ImageRef;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The parameters of an occlusion map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occlusion {
    /// Squares that fit into the side of the image, at least 1.
    pub squares: usize,
}

impl Default for Occlusion {
    /// A sixth of the side: about the size of [`Slic`](super::slic::Slic)'s default superpixels.
    fn default() -> Self {
        Occlusion { squares: 6 }
    }
}

/// An occlusion map of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct OcclusionMap {
    /// The head.
    pub head: usize,
    /// Mean fall of its output per pixel, side x side, row-major, in -1..=1; negative where covering raises it.
    pub fall: Vec<f32>,
}

impl Occlusion {
    /// The maps of `heads` for `image` (the network's input).
    ///
    /// # Errors
    /// [`Error::Usage`] for a head that does not exist or no squares; [`Error::Shape`] if sizes do not fit; what the network
    /// says.
    pub fn map(&self, network: &mut Network, image: ImageRef, heads: &[usize]) -> Result<Vec<OcclusionMap>> {
        network.check(image, heads)?;
        if self.squares == 0 {
            return Err(Error::Usage("occlusion: at least one square must fit into the image".into()));
        }
        let (side, size) = (network.side, network.image_bytes());
        let square = (side / self.squares).max(1);
        let starts = starts(side, square);
        let places: Vec<(usize, usize)> = starts.iter().flat_map(|&y| starts.iter().map(move |&x| (x, y))).collect();
        let whole = network.answer(image.pixels())?;
        let cover = mean_colour(image, |_| true);
        let mut sums = vec![vec![0.0f64; side * side]; heads.len()];
        let mut counts = vec![0u32; side * side];
        for places in places.chunks(network.batch) {
            let mut pixels = image.pixels().repeat(places.len());
            for (pixels, &place) in pixels.chunks_mut(size).zip(places) {
                let pixels = pixels.as_chunks_mut::<3>().0;
                covered(side, square, place).for_each(|at| pixels[at] = cover);
            }
            let outputs = network.answer(&pixels)?;
            for (outputs, &place) in outputs.chunks(network.heads).zip(places) {
                for at in covered(side, square, place) {
                    counts[at] += 1;
                    for (sums, &head) in sums.iter_mut().zip(heads) {
                        sums[at] += f64::from(whole[head]) - f64::from(outputs[head]);
                    }
                }
            }
        }
        let mean = |sums: Vec<f64>| sums.iter().zip(&counts).map(|(s, &n)| (s / f64::from(n)) as f32).collect();
        Ok(heads.iter().zip(sums).map(|(&head, sums)| OcclusionMap { head, fall: mean(sums) }).collect())
    }
}

impl OcclusionMap {
    /// Pearson correlation, over the superpixels, of `weights` with the mean fall inside them: how far the two methods
    /// agree, in -1..=1. `None` if either does not vary.
    pub fn agreement(&self, superpixels: &Superpixels, weights: &[f64]) -> Option<f64> {
        let mut falls = vec![0.0; superpixels.count];
        superpixels.labels.iter().zip(&self.fall).for_each(|(&l, &fall)| falls[l as usize] += f64::from(fall));
        falls.iter_mut().zip(superpixels.sizes()).for_each(|(fall, size)| *fall /= size as f64);
        let centred = |v: &[f64]| {
            let mean = v.iter().sum::<f64>() / v.len() as f64;
            v.iter().map(|x| x - mean).collect::<Vec<_>>()
        };
        let (a, b) = (centred(&falls), centred(weights));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let lengths = (dot(&a, &a) * dot(&b, &b)).sqrt();
        (lengths > 0.0).then(|| (dot(&a, &b) / lengths).clamp(-1.0, 1.0))
    }
}

/// Where squares begin along a side: half a square apart, the last one at the end, so that every pixel is covered.
fn starts(side: usize, square: usize) -> Vec<usize> {
    let mut starts: Vec<usize> = (0..=side - square).step_by((square / 2).max(1)).collect();
    if starts.last() != Some(&(side - square)) {
        starts.push(side - square);
    }
    starts
}

/// The pixels of a square at (x, y).
fn covered(side: usize, square: usize, (x, y): (usize, usize)) -> impl Iterator<Item = usize> {
    (y..y + square).flat_map(move |y| (x..x + square).map(move |x| y * side + x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Image;

    #[test]
    fn every_pixel_is_covered() {
        for (side, square) in [(1, 1), (5, 1), (7, 3), (32, 5), (64, 10), (6, 6)] {
            let starts = starts(side, square);
            let covered = |at: usize| starts.iter().any(|&s| (s..s + square).contains(&at));
            assert!((0..side).all(covered) && starts.iter().all(|s| s + square <= side), "{side} {square}");
        }
    }

    #[test]
    fn what_a_head_looks_at_falls() {
        // Head 0: brightness of the pixel (9, 4); head 1: nothing. White on black, so that the mean is dark.
        let side = 24;
        let white = |i: usize| if i == 4 * side + 9 { [255; 3] } else { [0; 3] };
        let image = Image::new(side, side, (0..side * side).flat_map(white).collect()).unwrap();
        let mut shown = 0;
        let mut answer = |pixels: &[u8]| {
            shown = shown.max(pixels.len() / (side * side * 3));
            let one = |image: &[u8]| [f32::from(image[3 * (4 * side + 9)]) / 255.0, 0.5];
            Ok(pixels.chunks(side * side * 3).flat_map(one).collect())
        };
        let mut network = Network { side, heads: 2, batch: 7, answer: &mut answer };
        let maps = Occlusion::default().map(&mut network, image.as_ref(), &[1, 0]).unwrap();
        assert!(maps[0].head == 1 && maps[0].fall.iter().all(|&f| f == 0.0));
        let fall = |x: usize, y: usize| maps[1].fall[y * side + x];
        // Every square over the pixel takes all of its output; one that is a square away takes nothing.
        let cover = mean_colour(image.as_ref(), |_| true)[0];
        assert_eq!(fall(9, 4), (1.0 - f64::from(cover) / 255.0) as f32);
        assert!(fall(8, 3) > 0.0 && fall(15, 4) == 0.0 && fall(9, 12) == 0.0);
        let quarters = Superpixels {
            width: side,
            height: side,
            labels: (0..side * side).map(|i| (i % side / 12 + 2 * (i / side / 12)) as u32).collect(),
            count: 4,
        };
        assert!(maps[1].agreement(&quarters, &[1.0, 0.0, 0.0, 0.0]).unwrap() > 0.95);
        assert!(maps[1].agreement(&quarters, &[0.0, 1.0, 0.0, 0.0]).unwrap() < 0.0);
        assert!(maps[0].agreement(&quarters, &[1.0, 0.0, 0.0, 0.0]).is_none());
        assert!(Occlusion { squares: 0 }.map(&mut network, image.as_ref(), &[0]).is_err());
        assert!(matches!(Occlusion::default().map(&mut network, image.as_ref(), &[2]), Err(Error::Usage(_))));
        let tiny = Image::new(1, 1, vec![0; 3]).unwrap();
        assert!(matches!(Occlusion::default().map(&mut network, tiny.as_ref(), &[0]), Err(Error::Shape { .. })));
        assert!(shown <= 7);
    }
}
