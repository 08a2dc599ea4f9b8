//! Explanations drawn: regions outlined, the rest masked out, and an occlusion map over the image.

use super::occlusion::OcclusionMap;
use super::slic::{Superpixels, around};
use crate::Result;
use crate::data::{Image, ImageRef};

/// Outlines, as in the paper's Figure 8.
const YELLOW: [u8; 3] = [255, 230, 0];
/// Between a region and its outline's yellow, so that it shows on any ground.
const BLACK: [u8; 3] = [0, 0, 0];
/// Where covering lowers the output, and where it raises it.
const FALLS: [f32; 3] = [230.0, 40.0, 30.0];
const RISES: [f32; 3] = [40.0, 90.0, 230.0];
/// Small pictures are enlarged by a whole number to about this side, so that outlines are thin against their pixels.
const SIDE: usize = 224;

/// By which whole number pictures of `side` pixels are enlarged.
pub fn magnification(side: usize) -> usize {
    (SIDE / side.max(1)).max(1)
}

/// `image`, enlarged by [`magnification`].
pub fn plain(image: ImageRef) -> Result<Image> {
    enlarge(image, |at| pixel(image, at))
}

/// `image` with a yellow line around the superpixels `shown`.
pub fn outlined(image: ImageRef, superpixels: &Superpixels, shown: &[usize]) -> Result<Image> {
    let large = plain(image)?;
    let (width, factor) = (large.as_ref().width(), magnification(image.width()));
    let region = region(superpixels, shown);
    let inside = |at: usize| region[at / width / factor * image.width() + at % width / factor];
    let pixels = large.as_ref().pixels().len() / 3;
    // Distance from the edge, inside the region: 1 at the edge, 2 beside that, ...
    let edge: Vec<bool> = (0..pixels).map(|at| inside(at) && around(at, width, pixels).any(|n| !inside(n))).collect();
    let next = |at: usize, of: &[bool]| around(at, width, pixels).any(|n| of[n]);
    let second: Vec<bool> = (0..pixels).map(|at| inside(at) && !edge[at] && next(at, &edge)).collect();
    let colour = |at: usize| match () {
        () if edge[at] || second[at] => YELLOW,
        () if inside(at) && next(at, &second) => BLACK,
        () => pixel(large.as_ref(), at),
    };
    Image::new(width, pixels / width, (0..pixels).flat_map(colour).collect())
}

/// `image` with all but the superpixels `shown` black.
pub fn masked(image: ImageRef, superpixels: &Superpixels, shown: &[usize]) -> Result<Image> {
    let region = region(superpixels, shown);
    enlarge(image, |at| if region[at] { pixel(image, at) } else { BLACK })
}

/// An occlusion map over a grey `image`: red where covering lowers the output, blue where it raises it, full colour at
/// the largest change in the map.
pub fn occluded(image: ImageRef, map: &OcclusionMap) -> Result<Image> {
    let largest = map.fall.iter().fold(0.0f32, |a, f| a.max(f.abs()));
    let colour = |at: usize| {
        let [r, g, b] = pixel(image, at).map(f32::from);
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        let share = if largest > 0.0 { map.fall[at] / largest } else { 0.0 };
        let toward = if share > 0.0 { FALLS } else { RISES };
        toward.map(|t| (grey + 0.85 * share.abs() * (t - grey)).round() as u8)
    };
    enlarge(image, colour)
}

/// Whether each pixel is in one of the superpixels.
fn region(superpixels: &Superpixels, shown: &[usize]) -> Vec<bool> {
    superpixels.labels.iter().map(|&label| shown.contains(&(label as usize))).collect()
}

fn pixel(image: ImageRef, at: usize) -> [u8; 3] {
    image.pixels().as_chunks::<3>().0[at]
}

/// A picture of the size of `image` with the pixels `colour`, enlarged.
fn enlarge(image: ImageRef, colour: impl Fn(usize) -> [u8; 3]) -> Result<Image> {
    let factor = magnification(image.width());
    let (width, height) = (image.width() * factor, image.height() * factor);
    let at = |i: usize| i / width / factor * image.width() + i % width / factor;
    Image::new(width, height, (0..width * height).flat_map(|i| colour(at(i))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_outlined_and_the_rest_is_masked() {
        // Two halves, the left one shown; enlarged by 7.
        let side = 32;
        let image = Image::new(side, side, vec![100; side * side * 3]).unwrap();
        let labels = (0..side * side).map(|i| u32::from(i % side >= 16)).collect();
        let halves = Superpixels { width: side, height: side, labels, count: 2 };
        assert_eq!((magnification(32), magnification(224), magnification(500), magnification(100)), (7, 1, 1, 2));
        let at = |image: &Image, x: usize, y: usize| pixel(image.as_ref(), y * 224 + x);
        let line = outlined(image.as_ref(), &halves, &[0]).unwrap();
        // The line is two pixels wide, inside the region, where it meets the other half; the picture's own border has none.
        assert_eq!([108, 109, 110, 111, 112].map(|x| at(&line, x, 50)[0]), [100, 0, 255, 255, 100]);
        assert_eq!((at(&line, 0, 0), at(&line, 223, 223)), ([100; 3], [100; 3]));
        let mask = masked(image.as_ref(), &halves, &[0]).unwrap();
        assert_eq!((at(&mask, 111, 9), at(&mask, 112, 9)), ([100; 3], [0; 3]));
        assert_eq!(masked(image.as_ref(), &halves, &[]).unwrap().into_pixels(), vec![0; 224 * 224 * 3]);
        assert_eq!(outlined(image.as_ref(), &halves, &[0, 1]).unwrap(), plain(image.as_ref()).unwrap());
        let mut fall = vec![0.0; side * side];
        (fall[0], fall[1]) = (0.5, -0.25);
        let map = occluded(image.as_ref(), &OcclusionMap { head: 0, fall }).unwrap();
        let [red, blue, grey] = [at(&map, 3, 3), at(&map, 10, 3), at(&map, 20, 3)];
        assert!(red[0] > 200 && red[2] < 60 && blue[2] > blue[0] && grey == [100; 3], "{red:?} {blue:?} {grey:?}");
    }
}
