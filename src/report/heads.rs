//! What each feature head does over a set of images.

use crate::eval::collapse::CONSTANT_HEAD;
use crate::eval::{Covariance, Rows};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A head is saturated if this share of its outputs or more lie within [`SATURATED_OUTPUT`] of 0 or 1.
pub const SATURATED_SHARE: f64 = 0.99;
/// There the slope of the sigmoid, y (1 - y), is below a twenty-fifth of its largest: the head hardly learns any more.
pub const SATURATED_OUTPUT: f32 = 0.01;
/// Outputs above this count as on.
pub const ON: f32 = 0.5;
/// Heads whose correlation is at least this, or its negative at most, say the same.
pub const SAME: f64 = 0.9;

/// Heads a task works on: a cache line of outputs.
const BLOCK: usize = 16;

/// Whether a head still tells images apart, and still learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadState {
    /// Neither of the others.
    Alive,
    /// Dead: says the same about every image (standard deviation below [`CONSTANT_HEAD`]).
    Constant,
    /// Tells images apart, but its outputs are at the ends of the sigmoid ([`SATURATED_SHARE`]).
    Saturated,
}

/// An image and what a head says about it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Number of the image.
    pub image: usize,
    /// The head's output, in 0..=1.
    pub output: f32,
}

/// Another head and how alike it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similar {
    /// Number of the other head.
    pub head: usize,
    /// Pearson correlation of the outputs over the images, in -1..=1; negative if one is on where the other is off.
    pub correlation: f64,
}

/// One head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub index: usize,
    /// Mean output, in 0..=1.
    pub mean: f64,
    /// Standard deviation of the outputs over the images (division by n), at most 0.5.
    pub deviation: f64,
    /// Mean over the images of `-(y log2 y + (1 - y) log2(1 - y))` in bits, as in the loss: 1 if it never decides, 0 if it
    /// always does.
    pub entropy: f64,
    /// Share of the images it is on for (output above [`ON`]).
    pub on: f64,
    /// Whether it still works.
    pub state: HeadState,
    /// The images that turn it on most, most first; the first of equals first.
    pub most: Vec<Response>,
    /// The images that turn it on least, least first; the first of equals first.
    pub least: Vec<Response>,
    /// The heads most alike, by the size of the correlation; the first of equals first. Constant heads are like no other.
    pub similar: Vec<Similar>,
    /// Place in the order of most difference: the most active head first, then always the one least like all before it;
    /// constant heads last.
    pub place: usize,
    /// How like it is to the heads before it in that order: the largest size of a correlation, in 0..=1. It never falls along
    /// the order, so that every head from the first with [`SAME`] on says what one before it says. 1 for constant heads.
    pub repeats: f64,
}

/// How much of a head is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadOptions {
    /// Images that turn it on most, and as many that do least.
    pub images: usize,
    /// Heads most like it.
    pub similar: usize,
}

/// All `heads` with outputs `y` (n x heads, row-major, in 0..=1). Same result at any number of threads.
///
/// # Errors
/// [`Error::Shape`] if `y` is not one or more rows of `heads` or an output is not in 0..=1; [`Error::NonFinite`] naming the
/// first row with a number that is not finite.
pub fn heads(y: &[f32], heads: usize, options: HeadOptions) -> Result<Vec<Head>> {
    let rows = Rows::new("heads", y, heads)?;
    check_range(rows)?;
    let images: Vec<u32> = (0..rows.count as u32).collect();
    let covariance = Covariance::new(rows, &images);
    let deviations: Vec<f64> = covariance.variances().map(|v| v.max(0.0).sqrt()).collect();
    let different = different(&covariance.matrix, &deviations);
    let of_block = |(first, columns): (usize, Vec<Vec<f32>>)| {
        let one = |(offset, column): (usize, Vec<f32>)| {
            let index = first + offset;
            let similar = similar(&covariance.matrix, &deviations, index, options.similar);
            let (place, repeats) = different[index];
            let (mean, deviation) = (covariance.mean[index], deviations[index]);
            Head { similar, place, repeats, ..head(index, &column, mean, deviation, options.images) }
        };
        columns.into_iter().enumerate().map(one).collect::<Vec<_>>()
    };
    Ok(columns(rows).flat_map_iter(of_block).collect())
}

/// The head by itself.
fn head(index: usize, outputs: &[f32], mean: f64, deviation: f64, images: usize) -> Head {
    let share = |of: &dyn Fn(f32) -> bool| outputs.iter().filter(|&&y| of(y)).count() as f64 / outputs.len() as f64;
    let state = if deviation < CONSTANT_HEAD {
        HeadState::Constant
    } else if share(&|y| !(SATURATED_OUTPUT..=1.0 - SATURATED_OUTPUT).contains(&y)) >= SATURATED_SHARE {
        HeadState::Saturated
    } else {
        HeadState::Alive
    };
    Head {
        index,
        mean,
        deviation,
        entropy: outputs.iter().map(|&y| binary_entropy(f64::from(y))).sum::<f64>() / outputs.len() as f64,
        on: share(&|y| y > ON),
        state,
        most: extremes(outputs, images, |a, b| b.total_cmp(a)),
        least: extremes(outputs, images, f32::total_cmp),
        similar: Vec::new(),
        place: index,
        repeats: 0.0,
    }
}

/// Entropy in bits of a yes with probability `p`.
fn binary_entropy(p: f64) -> f64 {
    let term = |p: f64| if p > 0.0 { -p * p.log2() } else { 0.0 };
    term(p) + term(1.0 - p)
}

/// The first `count` images by `order` of their outputs, the first of equals first.
fn extremes(outputs: &[f32], count: usize, order: impl Fn(&f32, &f32) -> std::cmp::Ordering) -> Vec<Response> {
    let mut images: Vec<usize> = (0..outputs.len()).collect();
    let by = |a: &usize, b: &usize| order(&outputs[*a], &outputs[*b]).then(a.cmp(b));
    if (1..images.len()).contains(&count) {
        images.select_nth_unstable_by(count - 1, by);
    }
    images.truncate(count);
    images.sort_unstable_by(by);
    images.into_iter().map(|image| Response { image, output: outputs[image] }).collect()
}

/// Of two heads that are not constant.
fn correlation(covariance: &[f64], deviations: &[f64], a: usize, b: usize) -> f64 {
    (covariance[a * deviations.len() + b] / (deviations[a] * deviations[b])).clamp(-1.0, 1.0)
}

/// The `count` heads most like head `own`.
fn similar(covariance: &[f64], deviations: &[f64], own: usize, count: usize) -> Vec<Similar> {
    let alive = |head: usize| deviations[head] >= CONSTANT_HEAD;
    if !alive(own) {
        return Vec::new();
    }
    let like = |head: usize| Similar { head, correlation: correlation(covariance, deviations, own, head) };
    let mut all: Vec<Similar> = (0..deviations.len()).filter(|&head| head != own && alive(head)).map(like).collect();
    // Stable: the first of equals stays first.
    all.sort_by(|a, b| b.correlation.abs().total_cmp(&a.correlation.abs()));
    all.truncate(count);
    all
}

/// [`Head::place`] and [`Head::repeats`] of every head.
fn different(covariance: &[f64], deviations: &[f64]) -> Vec<(usize, f64)> {
    let mut placed = vec![(0, 1.0); deviations.len()];
    let (mut left, constant): (Vec<usize>, Vec<usize>) =
        (0..deviations.len()).partition(|&head| deviations[head] >= CONSTANT_HEAD);
    // With those that have a place.
    let mut likeness = vec![0.0f64; deviations.len()];
    for place in 0..left.len() {
        let order = |a: usize, b: usize| {
            likeness[a].total_cmp(&likeness[b]).then(deviations[b].total_cmp(&deviations[a])).then(a.cmp(&b))
        };
        let Some(at) = (0..left.len()).min_by(|&a, &b| order(left[a], left[b])) else { break };
        let next = left.swap_remove(at);
        placed[next] = (place, likeness[next]);
        for &head in &left {
            likeness[head] = likeness[head].max(correlation(covariance, deviations, next, head).abs());
        }
    }
    let living = placed.len() - constant.len();
    constant.iter().enumerate().for_each(|(i, &head)| placed[head].0 = living + i);
    placed
}

/// Outputs of the heads over a batch, a row a head: the paper's Figure 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Responses {
    /// Rows.
    pub heads: usize,
    /// Columns.
    pub images: usize,
    /// heads x images, row-major, in 0..=1.
    pub outputs: Vec<f32>,
}

/// The outputs of the `heads` over the `images` of `y` (n x heads, row-major), transposed.
///
/// # Errors
/// As [`heads`]; [`Error::Shape`] if `images` are not some of those of `y`.
pub fn transposed(y: &[f32], heads: usize, images: Range<usize>) -> Result<Responses> {
    let rows = Rows::new("heads", y, heads)?;
    check_range(rows)?;
    if images.is_empty() || images.end > rows.count {
        return Err(Error::shape("heads", format!("images {images:?} of {}", rows.count)));
    }
    let of_head = |head: usize| images.clone().map(move |image| rows.row(image)[head]);
    Ok(Responses { heads, images: images.len(), outputs: (0..heads).flat_map(of_head).collect() })
}

/// `Ok` if all outputs are in 0..=1.
pub(super) fn check_range(rows: Rows) -> Result<()> {
    match rows.values.par_iter().position_first(|y| !(0.0..=1.0).contains(y)) {
        None => Ok(()),
        Some(at) => {
            let (image, head, y) = (at / rows.dim, at % rows.dim, rows.values[at]);
            Err(Error::shape("heads", format!("output {y} of head {head} for image {image} is not in 0..=1")))
        }
    }
}

/// The outputs of the heads, head by head, in blocks of them: `(first head, columns)`.
pub(super) fn columns(rows: Rows<'_>) -> impl IndexedParallelIterator<Item = (usize, Vec<Vec<f32>>)> {
    let blocks: Vec<usize> = (0..rows.dim).step_by(BLOCK).collect();
    blocks.into_par_iter().map(move |first| {
        let end = (first + BLOCK).min(rows.dim);
        let mut columns = vec![Vec::with_capacity(rows.count); end - first];
        for row in rows.values.chunks_exact(rows.dim) {
            columns.iter_mut().zip(&row[first..end]).for_each(|(column, &y)| column.push(y));
        }
        (first, columns)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: HeadOptions = HeadOptions { images: 3, similar: 2 };

    #[test]
    fn heads_are_told_by_their_outputs() {
        // Heads: on for every fourth image; the same the other way round, weaker; constant; undecided; saturated.
        let y: Vec<f32> = (0..100)
            .flat_map(|i| {
                let on = i % 4 == 3;
                [
                    if on { 0.9 } else { 0.1 },
                    if on { 0.25 } else { 0.75 },
                    0.501,
                    0.4 + 0.2 * (i / 4 % 2) as f32,
                    (i / 8 % 2) as f32,
                ]
            })
            .collect();
        let got = heads(&y, 5, OPTIONS).unwrap();
        let states: Vec<HeadState> = got.iter().map(|h| h.state).collect();
        use HeadState::{Alive, Constant, Saturated};
        assert_eq!(states, [Alive, Alive, Constant, Alive, Saturated]);
        // Outputs are f32: half a unit in their last place at most.
        let near = |a: f64, b: f64| (a - b).abs() < 1e-7;
        assert!(near(got[0].mean, 0.3) && near(got[0].deviation, 0.8 * 0.1875f64.sqrt()) && got[0].on == 0.25);
        assert!(near(got[0].entropy, -(0.1 * 0.1f64.log2() + 0.9 * 0.9f64.log2())), "{}", got[0].entropy);
        // 1 - 2 (y - 1/2)^2 / ln 2, near 1/2.
        assert!(got[4].entropy == 0.0 && near(got[2].entropy, 1.0 - 2e-6 / 2f64.ln()) && got[2].similar.is_empty());
        assert_eq!(got[0].most.iter().map(|r| r.image).collect::<Vec<_>>(), [3, 7, 11]);
        assert_eq!(got[0].least.iter().map(|r| r.image).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((got[1].most[0], got[1].least[0].image), (Response { image: 0, output: 0.75 }, 3));
        let [first, second] = got[0].similar[..] else { panic!("{:?}", got[0].similar) };
        assert!(first.head == 1 && near(first.correlation, -1.0) && second.correlation.abs() < 0.1);
        // The most active comes first, the constant one last, and before it whichever of heads 0 and 1 was not shown before.
        let mut order: Vec<&Head> = got.iter().collect();
        order.sort_by_key(|head| head.place);
        assert!(order[0].index == 4 && order[3].index < 2 && near(order[3].repeats, 1.0) && order[4].index == 2);
        assert!(order.is_sorted_by(|a, b| a.repeats <= b.repeats) && order[0].repeats == 0.0);
        assert_eq!(order.iter().map(|head| head.repeats < SAME).collect::<Vec<_>>(), [true, true, true, false, false]);
        // Three of the five heads are left to be like the first; of a head alone there is none.
        let all = heads(&y, 5, HeadOptions { images: 200, similar: 9 }).unwrap();
        assert_eq!((all[0].similar.len(), all[0].most.len()), (3, 100));
        assert!(heads(&[0.2, 0.9], 1, OPTIONS).unwrap()[0].similar.is_empty());
    }

    #[test]
    fn many_heads_at_any_number_of_threads() {
        let (n, k) = (333, 2 * BLOCK + 5);
        let y: Vec<f32> = (0..n * k).map(|i| ((i * 7919) % 1000) as f32 / 999.0).collect();
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| heads(&y, k, OPTIONS).unwrap())
        };
        let one = at(1);
        assert_eq!(one, at(3));
        for (index, head) in one.iter().enumerate() {
            let outputs: Vec<f32> = y.iter().skip(index).step_by(k).copied().collect();
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| outputs[b].total_cmp(&outputs[a]));
            assert_eq!(head.most.iter().map(|r| r.image).collect::<Vec<_>>(), order[..3], "{index}");
            assert!(head.index == index && head.most[0].output == outputs[order[0]]);
        }
    }

    #[test]
    fn a_batch_is_transposed() {
        let y = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7];
        let got = transposed(&y, 2, 1..4).unwrap();
        assert_eq!(got, Responses { heads: 2, images: 3, outputs: vec![0.2, 0.4, 0.6, 0.3, 0.5, 0.7] });
        assert!(transposed(&y, 2, 3..5).is_err() && transposed(&y, 2, 2..2).is_err());
    }

    #[test]
    fn bad_outputs_are_an_error() {
        let problem = heads(&[0.1, 0.2, 0.3, 1.5], 2, OPTIONS).unwrap_err().to_string();
        assert_eq!(problem, "heads: output 1.5 of head 1 for image 1 is not in 0..=1");
        assert!(matches!(heads(&[f32::NAN], 1, OPTIONS), Err(Error::NonFinite(_))));
        assert!(matches!(heads(&[0.5; 3], 2, OPTIONS), Err(Error::Shape { .. })));
    }
}
