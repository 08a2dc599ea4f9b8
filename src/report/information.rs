//! How much a feature head says about what is known of the images: mutual information in bits, and two accepted scores of
//! disentanglement made of it.
//!
//! A head's output y in 0..=1 is cut into [`BINS`] bins of equal width, as is usual for these scores (Locatello and others
//! 2019, appendix C); the range is fixed, so that a head that hardly moves says nothing instead of having its noise
//! stretched over all bins. With the shares p(b, v) of the images in bin b with value v, and its sums p(b) and p(v),
//!
//! ```text
//! I(y; v) = sum_bv p(b, v) log2( p(b, v) / (p(b) p(v)) ),     H(v) = -sum_v p(v) log2 p(v).
//! ```
//!
//! Counted on n images this is too large by about `(B - 1)(V - 1) / (2 n ln 2)` bits for B bins and V values that occur
//! (Miller 1955): what a head that knows nothing would show. That bias is given beside each figure, not subtracted.

use super::heads::columns;
use crate::data::Dataset;
use crate::eval::Rows;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Bins of equal width over 0..=1.
pub const BINS: usize = 20;

/// Something that is known of images: their class, or a factor they were made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is: `class`, `colour`, ...
    pub name: String,
    /// Its value for every image, any ids; `None` where it is not known.
    pub values: Vec<Option<u32>>,
}

impl Known {
    /// The class of the images of `dataset`; `None` if none has one.
    pub fn class(dataset: &Dataset) -> Option<Known> {
        let values: Vec<Option<u32>> = (0..dataset.len()).map(|i| dataset.label(i)).collect();
        values.iter().any(Option::is_some).then(|| Known { name: "class".into(), values })
    }

    /// The factors of `dataset`, in its order.
    pub fn factors(dataset: &Dataset) -> Vec<Known> {
        let known = |f: &crate::data::source::Factor| Known {
            name: f.name.clone(),
            values: f.labels.iter().map(|&label| Some(label)).collect(),
        };
        dataset.factors().iter().map(known).collect()
    }
}

/// What the heads say about one thing that is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What it is.
    pub name: String,
    /// Images of which it is known.
    pub images: usize,
    /// Distinct values among them.
    pub values: usize,
    /// H in bits: what a head could say at most.
    pub entropy: f64,
    /// I in bits, per head.
    pub bits: Vec<f64>,
    /// What I would be about if the head knew nothing, per head.
    pub bias: Vec<f64>,
    /// The head that says most, the first of equals.
    pub best: usize,
    /// The one that says most of the others.
    pub second: Option<usize>,
    /// How much more the best says than the second, as a share of the entropy; 0 if there is nothing to say.
    pub gap: f64,
}

/// Scores of how separately a code holds several factors, each in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disentanglement {
    /// Mutual information gap (Chen and others 2018, equation 6): the mean over the factors of [`Reading::gap`]. 1 if each
    /// factor is held by one head and no other; 0 also if two heads hold the same one.
    pub mig: f64,
    /// Modularity (Ridgeway and Mozer 2018, equation 2): the mean over the heads i of
    /// `1 - sum_{f != f_i} I_if^2 / (I_if_i^2 (F - 1))`, f_i the factor of which it says most. 1 if each head speaks of
    /// one factor only, however many heads do. Heads that say no more about any factor than a head that knows nothing
    /// take no part; absent if there are no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modularity: Option<f64>,
}

/// What each of the `heads` with outputs `y` (n x heads, row-major, in 0..=1) says about each thing `known`.
///
/// # Errors
/// [`Error::Shape`] if `y` is not one or more rows of `heads`, an output is not in 0..=1, or `known` has another number of
/// values; [`Error::NonFinite`] naming the first row with a number that is not finite.
pub fn readings(y: &[f32], heads: usize, known: &[Known]) -> Result<Vec<Reading>> {
    let rows = Rows::new("mutual information", y, heads)?;
    super::heads::check_range(rows)?;
    let reading = |known: &Known| {
        if known.values.len() != rows.count {
            let problem = format!("{} has {} values for {} images", known.name, known.values.len(), rows.count);
            return Err(Error::shape("mutual information", problem));
        }
        Ok(read(rows, known))
    };
    known.iter().map(reading).collect()
}

fn read(rows: Rows, known: &Known) -> Reading {
    let mut distinct: Vec<u32> = known.values.iter().flatten().copied().collect();
    let images = distinct.len();
    distinct.sort_unstable();
    distinct.dedup();
    let ranks: Vec<Option<usize>> =
        known.values.iter().map(|v| v.map(|v| distinct.partition_point(|&other| other < v))).collect();
    let values = distinct.len();
    let of_block = |(_, columns): (usize, Vec<Vec<f32>>)| -> Vec<(f64, f64)> {
        let one = |column: &Vec<f32>| {
            let mut table = vec![0u64; BINS * values];
            for (&y, rank) in column.iter().zip(&ranks) {
                if let Some(rank) = rank {
                    table[bin(y) * values + rank] += 1;
                }
            }
            information(&table, values)
        };
        columns.iter().map(one).collect()
    };
    let (bits, bias): (Vec<f64>, Vec<f64>) = columns(rows).flat_map_iter(of_block).unzip();
    let mut counts = vec![0u64; values];
    ranks.iter().flatten().for_each(|&rank| counts[rank] += 1);
    let entropy = entropy(&counts);
    let top = |without: Option<usize>| {
        let heads = (0..bits.len()).filter(|&h| Some(h) != without);
        heads.reduce(|best, h| if bits[h] > bits[best] { h } else { best })
    };
    let best = top(None).unwrap_or(0);
    let second = top(Some(best));
    let ahead = bits[best] - second.map_or(0.0, |s| bits[s]);
    let gap = if entropy > 0.0 { (ahead / entropy).clamp(0.0, 1.0) } else { 0.0 };
    Reading { name: known.name.clone(), images, values, entropy, bits, bias, best, second, gap }
}

/// The scores of heads with these `readings` of factors. `None` without a factor that varies.
pub fn disentanglement(readings: &[Reading]) -> Option<Disentanglement> {
    let varying: Vec<&Reading> = readings.iter().filter(|r| r.entropy > 0.0).collect();
    let heads = varying.first()?.bits.len();
    let mig = varying.iter().map(|r| r.gap).sum::<f64>() / varying.len() as f64;
    let speaking = (0..heads).filter(|&h| varying.iter().any(|r| r.bits[h] > 2.0 * r.bias[h]));
    let one = |h: usize| {
        let most = varying.iter().map(|r| r.bits[h]).fold(0.0, f64::max);
        let squares: f64 = varying.iter().map(|r| (r.bits[h] / most).powi(2)).sum();
        // The factor it says most of contributes 1 to the sum.
        if varying.len() > 1 { 1.0 - (squares - 1.0) / (varying.len() - 1) as f64 } else { 1.0 }
    };
    let scores: Vec<f64> = speaking.map(one).collect();
    let modularity = (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
    Some(Disentanglement { mig, modularity })
}

/// The bin of an output.
fn bin(y: f32) -> usize {
    ((y * BINS as f32) as usize).min(BINS - 1)
}

/// Mutual information of the rows and the columns (`columns` of them) of a table of counts, and its bias, in bits.
fn information(table: &[u64], columns: usize) -> (f64, f64) {
    if columns == 0 {
        return (0.0, 0.0);
    }
    let mut by_column = vec![0u64; columns];
    table.chunks(columns).for_each(|row| by_column.iter_mut().zip(row).for_each(|(c, v)| *c += v));
    let total = by_column.iter().sum::<u64>() as f64;
    let (mut bits, mut used) = (0.0, 0usize);
    for row in table.chunks(columns) {
        let in_row: u64 = row.iter().sum();
        used += usize::from(in_row > 0);
        for (&both, &in_column) in row.iter().zip(&by_column).filter(|(both, _)| **both > 0) {
            bits += both as f64 / total * (both as f64 * total / (in_row as f64 * in_column as f64)).log2();
        }
    }
    let values = by_column.iter().filter(|&&c| c > 0).count();
    let bias = (used.max(1) - 1) as f64 * (values.max(1) - 1) as f64 / (2.0 * total * std::f64::consts::LN_2);
    (bits.max(0.0), bias)
}

/// Entropy in bits of the distribution proportional to `counts`.
pub(super) fn entropy(counts: &[u64]) -> f64 {
    let total = counts.iter().sum::<u64>() as f64;
    counts.iter().filter(|&&c| c > 0).map(|&c| c as f64 / total).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    fn known(name: &str, values: impl IntoIterator<Item = u32>) -> Known {
        Known { name: name.into(), values: values.into_iter().map(Some).collect() }
    }

    /// Images with two factors of 4 and 2 values, each combination equally often, ids with gaps.
    fn factors(n: usize) -> [Known; 2] {
        assert!(n.is_multiple_of(8));
        [known("a", (0..n as u32).map(|i| 10 * (i % 4))), known("b", (0..n as u32).map(|i| 7 + i / 4 % 2))]
    }

    /// Value of the code for factor a, and for factor b.
    fn code(i: usize) -> [f32; 2] {
        [[0.05, 0.3, 0.6, 1.0][i % 4], [0.1, 0.9][i / 4 % 2]]
    }

    #[test]
    fn information_has_its_closed_forms() {
        let n = 800;
        let y: Vec<f32> = (0..n)
            .flat_map(|i| {
                let [a, b] = code(i);
                // Heads: a, b, constant, a's lower bit, an erring b: wrong on every fourth of either value.
                [a, b, 0.5, (i % 2) as f32, if i / 8 % 4 == 0 { 1.0 - b } else { b }]
            })
            .collect();
        let got = readings(&y, 5, &factors(n)).unwrap();
        let quarter = -(0.25f64 * 0.25f64.log2() + 0.75 * 0.75f64.log2());
        for (reading, expected) in got.iter().zip([[2.0, 0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0 - quarter]]) {
            for (head, (bits, expected)) in reading.bits.iter().zip(expected).enumerate() {
                // A sum of at most 20 x 4 terms of at most 2 bits.
                assert!((bits - expected).abs() < 80.0 * 2.0 * 2.3e-16, "{} {head}: {bits} {expected}", reading.name);
            }
        }
        assert_eq!((got[0].entropy, got[0].values, got[0].best, got[0].second), (2.0, 4, 0, Some(3)));
        assert_eq!((got[0].gap, got[1].best, got[1].entropy, got[1].images), (0.5, 1, 1.0, n));
        // (4 - 1)(4 - 1) / (2 n ln 2) and (1 - 1)...
        assert!((got[0].bias[0] - 9.0 / (2.0 * n as f64 * 2f64.ln())).abs() < 1e-15 && got[0].bias[2] == 0.0);
    }

    #[test]
    fn a_perfect_code_a_duplicated_one_and_one_that_mixes() {
        let n = 400;
        let scores = |code: &dyn Fn(usize) -> Vec<f32>| {
            let y: Vec<f32> = (0..n).flat_map(code).collect();
            disentanglement(&readings(&y, code(0).len(), &factors(n)).unwrap()).unwrap()
        };
        let near = |got: Disentanglement, mig: f64, modularity: f64| {
            assert!((got.mig - mig).abs() < 1e-12 && (got.modularity.unwrap() - modularity).abs() < 1e-12, "{got:?}");
        };
        near(scores(&|i| vec![code(i)[1], code(i)[0]]), 1.0, 1.0);
        near(scores(&|i| vec![code(i)[0], code(i)[1], code(i)[0], code(i)[1]]), 0.0, 1.0);
        near(scores(&|i| vec![code(i)[0], code(i)[1], code(i)[0], 0.5]), 0.5, 1.0);
        // One head holds both: 2 bits of a and 1 of b. Gaps: all of each entropy; modularity 1 - (1/2)^2.
        near(scores(&|i| vec![(0.05 + (i % 8) as f32 * 0.1), 0.5]), 1.0, 0.75);
        // Heads that hold both equally.
        let bit = |i: usize| (i % 2 != i / 4 % 2) as u32 as f32;
        let mixed: Vec<f32> = (0..n).flat_map(|i| [code(i)[1], bit(i)]).collect();
        let two = [known("a", (0..n as u32).map(|i| i % 2)), known("b", (0..n as u32).map(|i| i / 4 % 2))];
        let got = disentanglement(&readings(&mixed, 2, &two).unwrap()).unwrap();
        // a is read by no head alone; b by the first.
        assert!((got.mig - 0.5).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn noise_says_nothing_but_the_bias() {
        let n = 20_000;
        let mut random = stream(1, Purpose::Probe, 0, 0, 0);
        let y: Vec<f32> = (0..n * 10).map(|_| random.uniform() as f32).collect();
        let got = readings(&y, 10, &factors(n)).unwrap();
        for (reading, degrees) in got.iter().zip([19.0 * 3.0, 19.0]) {
            // 2 n ln 2 I is chi-squared: mean `degrees` (the bias), deviation sqrt(2 degrees).
            let unit = 1.0 / (2.0 * n as f64 * 2f64.ln());
            for (bits, bias) in reading.bits.iter().zip(&reading.bias) {
                assert!((bias / unit - degrees).abs() < 1e-9);
                assert!((bits - bias).abs() < 6.0 * (2.0f64 * degrees).sqrt() * unit, "{bits} {bias}");
            }
        }
        let scores = disentanglement(&got).unwrap();
        assert!(scores.mig < 0.005 && scores.modularity.is_none(), "{scores:?}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut class = known("class", (0..100).map(|i| i % 2));
        let y: Vec<f32> = (0..100).map(|i| if i < 50 { (i % 2) as f32 } else { 0.5 }).collect();
        class.values[50..].fill(None);
        let got = &readings(&y, 1, &[class.clone()]).unwrap()[0];
        assert_eq!((got.images, got.bits[0], got.second, got.gap), (50, 1.0, None, 1.0));
        class.values.fill(None);
        let nothing = readings(&y, 1, &[class.clone(), known("same", [3; 100])]).unwrap();
        assert!(nothing.iter().all(|r| r.bits == [0.0] && r.entropy == 0.0 && r.gap == 0.0));
        assert!(disentanglement(&nothing).is_none() && disentanglement(&[]).is_none());
        class.values.pop();
        assert!(readings(&y, 1, &[class]).unwrap_err().to_string().contains("class has 99 values for 100 images"));
        assert!(readings(&[0.5, f32::NAN], 1, &[]).is_err() && readings(&[0.5, 1.5], 1, &[]).is_err());
    }
}
