//! What a data set holds, in numbers ([`Report`]) and in pictures ([`pictures`]): what one looks at before training on it.

pub mod pictures;
pub mod sheet;

use std::collections::{BTreeMap, HashMap, HashSet};

use md5::{Digest, Md5};
use rayon::prelude::*;
use serde::Serialize;

use crate::Result;
use crate::data::{Dataset, Excluded, ImageRef, Source};

/// Sizes that are listed.
const SIZES_LISTED: usize = 10;

/// A data set in numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// One phrase: kind, images, classes, what was left out.
    pub description: String,
    /// CRC-32 of names, labels, sizes and pixels: what a run records of its data.
    pub fingerprint: u32,
    /// Usable images.
    pub images: usize,
    /// Every class with its images, in the order of the labels.
    pub classes: Vec<ClassCount>,
    /// Images without a class.
    pub unlabelled: usize,
    /// Ground truth beside the class: names.
    pub factors: Vec<String>,
    /// Pictures as they are stored, by format, channels and bits a channel (`JPEG RGB 8`); records that are no picture files
    /// are not in it.
    pub kinds: BTreeMap<String, usize>,
    /// Widths in pixels.
    pub width: Range,
    /// Heights in pixels.
    pub height: Range,
    /// Different sizes.
    pub distinct_sizes: usize,
    /// The most frequent sizes, the most frequent first.
    pub sizes: Vec<SizeCount>,
    /// Images whose three channels are equal in every pixel.
    pub grey: usize,
    /// Mean of red, green and blue over all pixels of all images, in [0, 1].
    pub mean: [f64; 3],
    /// Standard deviation likewise, over the population.
    pub std: [f64; 3],
    /// Groups of images with the same pixels, by name.
    pub duplicates: Vec<Vec<String>>,
    /// Such groups whose images are not all of one class.
    pub conflicting_duplicates: usize,
    /// What was found and is not part of the data set.
    pub excluded: Vec<Excluded>,
}

/// A class and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// Its images.
    pub images: usize,
}

/// A size and how many images have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Images.
    pub images: usize,
}

/// Smallest, middle and largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The smallest.
    pub min: usize,
    /// The median (of an even count the upper one).
    pub median: usize,
    /// The largest.
    pub max: usize,
}

impl Range {
    /// Of `numbers`, at least one.
    ///
    /// # Panics
    /// Without any.
    pub fn of(numbers: &[usize]) -> Range {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        Range { min: numbers[0], median: numbers[numbers.len() / 2], max: numbers[numbers.len() - 1] }
    }
}

/// Lends image `i` of `dataset` to `f`: the one place here that knows how a data set gives its images.
pub fn with_image<R>(dataset: &Dataset, i: usize, f: impl FnOnce(ImageRef) -> R) -> Result<R> {
    Ok(f(dataset.image(i, &mut Vec::new())?))
}

impl Report {
    /// Looks at every image of `dataset` once, on all threads; the result does not depend on their number. `done` is called
    /// after each. `source`, which it was made of, says how the pictures are stored.
    ///
    /// # Errors
    /// If an image can no longer be read.
    pub fn of(dataset: &Dataset, source: &dyn Source, done: &(dyn Fn() + Sync)) -> Result<Report> {
        let facts: Vec<Facts> = (0..dataset.len())
            .into_par_iter()
            .map(|i| with_image(dataset, i, Facts::of).inspect(|_| done()))
            .collect::<Result<_>>()?;
        let size = |i| dataset.size(i);
        let mut sizes: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        (0..dataset.len()).for_each(|i| *sizes.entry(size(i)).or_default() += 1);
        let distinct_sizes = sizes.len();
        let mut sizes: Vec<SizeCount> =
            sizes.into_iter().map(|((width, height), images)| SizeCount { width, height, images }).collect();
        sizes.sort_by_key(|size| std::cmp::Reverse(size.images));
        sizes.truncate(SIZES_LISTED);
        let groups = duplicates(&facts);
        let conflicting =
            groups.iter().filter(|group| group.iter().any(|&i| dataset.label(i) != dataset.label(group[0]))).count();
        let (mean, std) = moments(&facts);
        Ok(Report {
            description: dataset.describe(),
            fingerprint: dataset.fingerprint(),
            images: dataset.len(),
            classes: classes(dataset),
            unlabelled: (0..dataset.len()).filter(|&i| dataset.label(i).is_none()).count(),
            factors: dataset.factors().iter().map(|factor| factor.name.clone()).collect(),
            kinds: kinds(dataset, source),
            width: Range::of(&(0..dataset.len()).map(|i| size(i).0).collect::<Vec<_>>()),
            height: Range::of(&(0..dataset.len()).map(|i| size(i).1).collect::<Vec<_>>()),
            distinct_sizes,
            sizes,
            grey: facts.iter().filter(|facts| facts.grey).count(),
            mean,
            std,
            duplicates: groups
                .iter()
                .map(|group| group.iter().map(|&i| dataset.name(i).to_owned()).collect())
                .collect(),
            conflicting_duplicates: conflicting,
            excluded: dataset.excluded().to_vec(),
        })
    }
}

/// What one picture says.
struct Facts {
    /// Equal for equal pictures only; 32 bits of CRC would make two of 60,000 pictures equal by chance.
    digest: [u8; 16],
    pixels: u64,
    sum: [u64; 3],
    squares: [u64; 3],
    grey: bool,
}

impl Facts {
    fn of(image: ImageRef) -> Facts {
        let mut md5 = Md5::new();
        md5.update((image.width() as u64).to_le_bytes());
        md5.update(image.pixels());
        let (mut sum, mut squares, mut grey) = ([0; 3], [0; 3], true);
        let (pixels, _) = image.pixels().as_chunks::<3>();
        for pixel in pixels {
            for channel in 0..3 {
                let value = u64::from(pixel[channel]);
                sum[channel] += value;
                squares[channel] += value * value;
            }
            grey &= pixel[0] == pixel[1] && pixel[1] == pixel[2];
        }
        Facts { digest: md5.finalize().into(), pixels: pixels.len() as u64, sum, squares, grey }
    }
}

/// Mean and standard deviation of the channels, from exact sums.
fn moments(facts: &[Facts]) -> ([f64; 3], [f64; 3]) {
    let n: u128 = facts.iter().map(|facts| u128::from(facts.pixels)).sum();
    let total = |of: &dyn Fn(&Facts) -> u64| facts.iter().map(|facts| u128::from(of(facts))).sum::<u128>();
    let moments: [(f64, f64); 3] = std::array::from_fn(|channel| {
        let sum = total(&|facts| facts.sum[channel]);
        let squares = total(&|facts| facts.squares[channel]);
        // n^2 var = n sum(x^2) - sum(x)^2 in integers: no cancellation.
        let variance = (n * squares - sum * sum) as f64 / (n as f64 * n as f64);
        (sum as f64 / n as f64 / 255.0, variance.sqrt() / 255.0)
    });
    (moments.map(|(mean, _)| mean), moments.map(|(_, std)| std))
}

/// Groups of two and more pictures that are equal, each in order, by their first.
fn duplicates(facts: &[Facts]) -> Vec<Vec<usize>> {
    let mut by_digest: HashMap<[u8; 16], Vec<usize>> = HashMap::new();
    facts.iter().enumerate().for_each(|(i, facts)| by_digest.entry(facts.digest).or_default().push(i));
    let mut groups: Vec<Vec<usize>> = by_digest.into_values().filter(|group| group.len() > 1).collect();
    groups.sort();
    groups
}

fn classes(dataset: &Dataset) -> Vec<ClassCount> {
    let mut counts = vec![0; dataset.classes().len()];
    (0..dataset.len()).filter_map(|i| dataset.label(i)).for_each(|label| counts[label as usize] += 1);
    let named = dataset.classes().iter().cloned().zip(counts);
    named.map(|(name, images)| ClassCount { name, images }).collect()
}

/// How the pictures of `dataset` are stored; those of `source` that were left out do not count.
fn kinds(dataset: &Dataset, source: &dyn Source) -> BTreeMap<String, usize> {
    let used: HashSet<&str> = (0..dataset.len()).map(|i| dataset.name(i)).collect();
    let kind = |i| source.picture_kind(i).map(|kind| format!("{} {} {}", kind.format, kind.colour, kind.bits));
    let images = (0..source.len()).into_par_iter().filter(|&i| used.contains(&*source.name(i)));
    let found: Vec<String> = images.filter_map(kind).collect();
    let mut kinds = BTreeMap::new();
    found.into_iter().for_each(|kind| *kinds.entry(kind).or_default() += 1);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_duplicates_of_known_pictures() {
        let facts = |width: usize, pixels: &[u8]| {
            Facts::of(ImageRef::new(width, pixels.len() / 3 / width, pixels).expect("a picture"))
        };
        let grey = facts(1, &[10, 10, 10, 20, 20, 20]);
        let lying = facts(2, &[10, 10, 10, 20, 20, 20]);
        let colour = facts(1, &[10, 20, 30]);
        assert!(grey.grey && !colour.grey);
        let (mean, std) =
            moments(&[facts(2, &[0, 51, 255, 255, 51, 255]), facts(1, &[0, 51, 255]), facts(1, &[255, 51, 255])]);
        assert_eq!((mean, std), ([0.5, 0.2, 1.0], [0.5, 0.0, 0.0]));
        // Equal bytes of another shape are another picture.
        let all = [grey, lying, colour, facts(1, &[10, 10, 10, 20, 20, 20]), facts(1, &[10, 20, 30])];
        assert_eq!(duplicates(&all), [vec![0, 3], vec![2, 4]]);
        assert_eq!(Range::of(&[5, 1, 9, 7]), Range { min: 1, median: 7, max: 9 });
    }
}
