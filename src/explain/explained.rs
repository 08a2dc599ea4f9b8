//! An image explained: both methods on all heads asked for, and the pictures of them.

use super::lime::{Explanation, Lime};
use super::occlusion::{Occlusion, OcclusionMap};
use super::slic::{Slic, Superpixels};
use super::{Network, pictures};
use crate::Result;
use crate::data::{Image, ImageRef};
use serde::{Deserialize, Serialize};

/// How images are explained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explainer {
    /// The superpixels.
    pub slic: Slic,
    /// Their weights.
    pub lime: Lime,
    /// The check.
    pub occlusion: Occlusion,
}

/// A superpixel, for those who have no picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Region {
    /// Its pixels.
    pub pixels: usize,
    /// Mean column and row of them, from the left and the top of the network's input.
    pub centre: [f64; 2],
}

/// A head's explanation, and how far the occlusion map agrees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// By LIME.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// See [`OcclusionMap::agreement`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
}

/// An image explained.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Its regions.
    pub superpixels: Superpixels,
    /// One per head asked for, in that order.
    pub heads: Vec<Checked>,
    /// Likewise.
    pub maps: Vec<OcclusionMap>,
}

impl Explainer {
    /// Explains the outputs of `heads` for `image` (the network's input); `number` and `progress` as in [`Lime::explain`].
    /// Errors as that and [`Slic::segment`].
    pub fn explain(
        &self,
        network: &mut Network,
        image: ImageRef,
        number: u64,
        heads: &[usize],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Explained> {
        let superpixels = self.slic.segment(image)?;
        let explanations = self.lime.explain(network, image, number, &superpixels, heads, progress)?;
        let maps = self.occlusion.map(network, image, heads)?;
        let checked = |(explanation, map): (Explanation, &OcclusionMap)| {
            let agreement = map.agreement(&superpixels, &explanation.weights);
            Checked { explanation, agreement }
        };
        let heads = explanations.into_iter().zip(&maps).map(checked).collect();
        Ok(Explained { superpixels, heads, maps })
    }
}

impl Explained {
    /// The superpixels, in their order.
    pub fn regions(&self) -> Vec<Region> {
        let mut sums = vec![[0.0; 2]; self.superpixels.count];
        for (at, &label) in self.superpixels.labels.iter().enumerate() {
            let (x, y) = (at % self.superpixels.width, at / self.superpixels.width);
            let sum = &mut sums[label as usize];
            *sum = [sum[0] + x as f64, sum[1] + y as f64];
        }
        let region = |(sum, pixels): ([f64; 2], usize)| Region { pixels, centre: sum.map(|s| s / pixels as f64) };
        sums.into_iter().zip(self.superpixels.sizes()).map(region).collect()
    }

    /// Of the explanation at `index`: the image outlined, with the rest masked out, and its occlusion map; all of one size.
    pub fn pictures(&self, image: ImageRef, index: usize) -> Result<[Image; 3]> {
        let shown = &self.heads[index].explanation.shown;
        Ok([
            pictures::outlined(image, &self.superpixels, shown)?,
            pictures::masked(image, &self.superpixels, shown)?,
            pictures::occluded(image, &self.maps[index])?,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    #[test]
    fn both_methods_find_the_region() {
        // A head that sees how much of the texture at (20..32, 6..18) is left, one that sees nothing.
        let side = 48;
        let mut random = stream(2, Purpose::Probe, 0, 0, 0);
        let pixels: Vec<u8> = (0..side * side * 3).map(|_| random.below(256) as u8).collect();
        let image = Image::new(side, side, pixels.clone()).unwrap();
        let inside = |i: usize| (20..32).contains(&(i % side)) && (6..18).contains(&(i / side));
        let mut answer = |images: &[u8]| {
            let left = |image: &[u8]| {
                let same = pixels.chunks(3).zip(image.chunks(3)).enumerate().filter(|(i, (a, b))| inside(*i) && a == b);
                same.count() as f32 / 144.0
            };
            Ok(images.chunks(side * side * 3).flat_map(|image| [0.5, left(image)]).collect())
        };
        let mut network = Network { side, heads: 2, batch: 64, answer: &mut answer };
        let explainer = Explainer { lime: Lime { samples: 500, ..Lime::default() }, ..Explainer::default() };
        let got = explainer.explain(&mut network, image.as_ref(), 0, &[1, 0], &mut |_| ()).unwrap();
        let [looks, blind] = &got.heads[..] else { panic!("{:?}", got.heads) };
        assert!(looks.agreement.unwrap() > 0.8 && looks.explanation.r2.unwrap() > 0.99, "{looks:?}");
        assert!(blind.agreement.is_none() && blind.explanation.r2.is_none());
        let regions = got.regions();
        assert_eq!(regions.iter().map(|r| r.pixels).sum::<usize>(), side * side);
        let [x, y] = regions[looks.explanation.shown[0]].centre;
        assert!((18.0..34.0).contains(&x) && (4.0..20.0).contains(&y), "{x} {y}");
        let most = (0..side * side).max_by(|&a, &b| got.maps[0].fall[a].total_cmp(&got.maps[0].fall[b])).unwrap();
        assert!(inside(most));
        let [outlined, masked, occluded] = got.pictures(image.as_ref(), 0).unwrap();
        assert!(outlined.as_ref().width() == 4 * side && masked != outlined && occluded != masked);
    }
}
