//! The images most alike to some, and the choice of some at random.

use crate::eval::Rows;
use crate::rng::{Purpose, stream};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Lengths are taken to be at least this, as in the loss.
const MIN_LENGTH: f64 = 1e-12;

/// An image and how alike it is to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Number of the image.
    pub image: usize,
    /// Cosine of the two embeddings, in -1..=1; 0 with one that is all zeros.
    pub cosine: f64,
}

/// An image and those most alike to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Number of the image.
    pub image: usize,
    /// The others, most alike first; the first of equals first.
    pub nearest: Vec<Neighbour>,
}

/// The `count` images most alike to each of `images` by the cosine of their `points` (n x `dim`, row-major), without itself.
///
/// # Errors
/// [`Error::Shape`] if `points` are not one or more rows of `dim` or an image is not one of them; [`Error::NonFinite`]
/// naming the first row with a number that is not finite.
pub fn nearest(points: &[f32], dim: usize, images: &[usize], count: usize) -> Result<Vec<Neighbours>> {
    let rows = Rows::new("neighbours", points, dim)?;
    if let Some(image) = images.iter().find(|&&image| image >= rows.count) {
        return Err(Error::shape("neighbours", format!("image {image} of {}", rows.count)));
    }
    let product = |a: usize, b: usize| {
        rows.row(a).iter().zip(rows.row(b)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
    };
    let lengths: Vec<f64> = (0..rows.count).into_par_iter().map(|i| product(i, i).sqrt().max(MIN_LENGTH)).collect();
    let of = |&image: &usize| {
        let cosine = |other: usize| Neighbour {
            image: other,
            cosine: (product(image, other) / (lengths[image] * lengths[other])).clamp(-1.0, 1.0),
        };
        let mut nearest: Vec<Neighbour> =
            (0..rows.count).into_par_iter().filter(|&other| other != image).map(cosine).collect();
        let order = |a: &Neighbour, b: &Neighbour| b.cosine.total_cmp(&a.cosine).then(a.image.cmp(&b.image));
        if (1..nearest.len()).contains(&count) {
            nearest.select_nth_unstable_by(count - 1, order);
        }
        nearest.truncate(count);
        nearest.sort_unstable_by(order);
        Neighbours { image, nearest }
    };
    Ok(images.iter().map(of).collect())
}

/// `count` of `0..n`, all if there are no more, each at most once: chosen at random by the seed, in random order.
pub fn choose(n: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut random = stream(seed, Purpose::Choice, 0, 0, 0);
    let mut all: Vec<usize> = (0..n).collect();
    for i in 0..count.min(n) {
        all.swap(i, i + random.below((n - i) as u32) as usize);
    }
    all.truncate(count);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_alike_come_first() {
        // Angles of 0, 90, 10, 190, 350 degrees at other lengths, and a point at the origin.
        let points: Vec<f32> = [(0.0f32, 2.0), (90.0, 1.0), (10.0, 9.0), (190.0, 1.0), (350.0, 0.1), (0.0, 0.0)]
            .into_iter()
            .flat_map(|(angle, length)| [length * angle.to_radians().cos(), length * angle.to_radians().sin()])
            .collect();
        let got = nearest(&points, 2, &[0, 3], 4).unwrap();
        let images = |i: usize| got[i].nearest.iter().map(|n| n.image).collect::<Vec<_>>();
        let cosine = |degrees: f64| degrees.to_radians().cos();
        assert_eq!(got[0].image, 0);
        assert!(images(0)[..2] == [2, 4] || images(0)[..2] == [4, 2]);
        assert!((got[0].nearest[0].cosine - cosine(10.0)).abs() < 1e-6);
        assert_eq!(images(1), [5, 1, 4, 0]);
        assert_eq!(got[1].nearest[0].cosine, 0.0);
        assert!((got[1].nearest[1].cosine - cosine(100.0)).abs() < 1e-6);
        assert_eq!(nearest(&points, 2, &[1], 99).unwrap()[0].nearest.len(), 5);
        // The first of equals first.
        let same = nearest(&[1.0; 12], 2, &[2], 3).unwrap();
        assert_eq!(same[0].nearest.iter().map(|n| n.image).collect::<Vec<_>>(), [0, 1, 3]);
        assert!(nearest(&[1.0], 1, &[0], 3).unwrap()[0].nearest.is_empty());
        assert!(nearest(&points, 2, &[6], 1).is_err() && nearest(&[f32::NAN], 1, &[0], 1).is_err());
    }

    #[test]
    fn images_are_chosen_by_the_seed() {
        let chosen = choose(1000, 50, 1);
        let mut sorted = chosen.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(
            sorted.len() == 50 && sorted[49] < 1000 && choose(1000, 50, 1) == chosen && choose(1000, 50, 2) != chosen
        );
        let mut all = choose(7, 99, 3);
        all.sort_unstable();
        assert!(all == [0, 1, 2, 3, 4, 5, 6] && choose(0, 3, 1).is_empty());
        // Each of 10 is among 3 of them in 3 of 10 draws: 6 deviations of 3,000 draws are 150.
        let mut counts = [0i32; 10];
        (0..3000).for_each(|seed| choose(10, 3, seed).into_iter().for_each(|i| counts[i] += 1));
        assert!(counts.iter().all(|c| (c - 900).abs() < 150), "{counts:?}");
    }
}
