//! What a network made of a data set: embeddings of a sample of it, and everything that is read off them.

use std::collections::BTreeSet;

use super::cluster_count::{ClusterCount, Proposal};
use super::clusters::{Clusters, clusters};
use super::heads::{Head, HeadOptions, heads};
use super::information::{Disentanglement, Known, Reading, disentanglement, readings};
use super::neighbours::{Neighbours, choose, nearest};
use super::tsne::{Map, Tsne};
use crate::Result;
use crate::backend::Backend;
use crate::config::{Config, EvalConfig};
use crate::data::Dataset;
use crate::eval::cluster_on;
use crate::eval::embed::{Embeddings, embed_samples};
use crate::model::Model;
use crate::nn::Params;

/// Images that are looked at, at most: bounds the time a report takes.
pub const SAMPLE: usize = 10_000;
/// Images in a map, at most.
pub const MAPPED: usize = 2_000;
/// Images below which there is no map: three neighbours are no neighbourhood.
const MAPPABLE: usize = 5;
/// Images that a number of clusters is proposed from: fewer than `cluster` takes, for its time grows with their square.
const COUNTED: usize = 1_000;
/// Images in a cluster's contact sheet, of each kind.
const CONTACT: usize = 12;
/// Random images whose neighbours are shown.
const QUERIES: usize = 10;
/// Neighbours of each.
const NEAREST: usize = 9;
/// Random images that show what the data are.
const EXAMPLES: usize = 24;
/// Images that turn a head on most, and as many that do least.
const RESPONSES: usize = 6;
/// Heads that are most like a head.
const SIMILAR: usize = 3;
/// Heads whose images are shown: the most active ones.
pub const HEADS: usize = 256;

/// A network and its data, as far as a report speaks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The network, in words: its checkpoint.
    pub network: String,
    /// Whether these are the images it was trained on.
    pub images: Images,
}

/// Which images are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Those the network was trained on.
    TrainedOn,
    /// Others: the scores in the run's logs are not about them.
    Others,
}

/// What a network made of a data set. Rows are positions in the sample.
pub struct Findings {
    /// Of what.
    pub origin: Origin,
    /// The images looked at: indices into the data set, ascending.
    pub sample: Vec<usize>,
    /// Their embeddings.
    pub embeddings: Embeddings,
    /// How many clusters there are, and why.
    pub count: Count,
    /// k-means on the backbone's features; `None` without a number of clusters.
    pub clusters: Option<Clustering>,
    /// Likewise on the heads.
    pub clusters_y: Option<Clustering>,
    /// Maps in the plane; `None` for too few images.
    pub maps: Option<Maps>,
    /// Random images with their neighbours by the backbone's features.
    pub neighbours: Vec<Neighbours>,
    /// Images drawn at random: indices into the data set.
    pub examples: Vec<usize>,
    /// Every head; images are rows.
    pub heads: Vec<Head>,
    /// What the heads say of classes and factors; empty where nothing is known.
    pub readings: Vec<Reading>,
    /// How separately they hold the factors; `None` without factors.
    pub disentanglement: Option<Disentanglement>,
}

/// How many clusters are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// So many.
    Exactly(usize),
    /// As many as the points suggest.
    Auto,
}

/// Where a number of clusters comes from.
pub enum Count {
    /// The configuration gives it.
    Configured(usize),
    /// There are as many classes.
    Classes(usize),
    /// It was looked for in the features.
    Proposed(Proposal),
}

/// A clustering.
pub struct Clustering {
    /// How many clusters.
    pub k: usize,
    /// Per row, 0..k.
    pub labels: Vec<u32>,
    /// Each cluster, and how sure each row is of its own.
    pub described: Clusters,
}

/// Maps of a part of the sample.
pub struct Maps {
    /// Rows in them, ascending.
    pub rows: Vec<usize>,
    /// Of the backbone's features.
    pub h: Map,
    /// Of the heads.
    pub y: Map,
}

impl Count {
    /// The number for `points` (n x `dim`, the backbone's features): as configured, else that of the classes, else proposed.
    ///
    /// # Errors
    /// As [`ClusterCount::propose`].
    pub fn of(points: &[f32], dim: usize, dataset: &Dataset, config: &EvalConfig) -> Result<Count> {
        if let Some(k) = config.clusters {
            return Ok(Count::Configured(k));
        }
        match dataset.labels() {
            Some(labels) => Ok(Count::Classes(labels.into_iter().collect::<BTreeSet<_>>().len())),
            None => {
                let criterion = ClusterCount { sample: COUNTED, seed: config.seed, ..ClusterCount::default() };
                criterion.propose(points, dim).map(Count::Proposed)
            }
        }
    }

    /// The number that `points` suggest.
    ///
    /// # Errors
    /// As [`ClusterCount::propose`].
    pub fn proposed(points: &[f32], dim: usize, config: &EvalConfig) -> Result<Count> {
        let criterion = ClusterCount { seed: config.seed, ..ClusterCount::default() };
        criterion.propose(points, dim).map(Count::Proposed)
    }

    /// The number, if there is one.
    pub fn clusters(&self) -> Option<usize> {
        match self {
            Count::Configured(k) | Count::Classes(k) => Some(*k),
            Count::Proposed(proposal) => proposal.clusters,
        }
    }

    /// Why so many, for people.
    pub fn why(&self) -> String {
        match self {
            Count::Configured(k) => format!("{k} clusters, as asked for."),
            Count::Classes(k) => format!("{k} clusters: as many as there are classes."),
            Count::Proposed(proposal) => why(proposal),
        }
    }
}

fn why(proposal: &Proposal) -> String {
    let best = proposal.curve.iter().copied().reduce(|best, c| if c.gap > best.gap { c } else { best });
    match (proposal.clusters, best) {
        (Some(k), Some(best)) => format!(
            "{k} clusters are proposed: there the silhouette of k-means ({:.3}) exceeds that of points of the same spread \
             without structure ({:.3}) by most: {:.3}, which is more than chance gives ({:.3}).",
            best.silhouette, best.reference, best.gap, proposal.threshold
        ),
        (None, Some(best)) => format!(
            "No number of clusters is proposed: for none is the silhouette of k-means above that of points of the same spread \
             without structure by more than chance gives ({:.3}); nearest comes {} ({:.3}).",
            proposal.threshold, best.clusters, best.gap
        ),
        (_, None) => "No number of clusters is proposed: there are too few images.".into(),
    }
}

impl Clustering {
    /// k-means of `points` (n x `dim`, row-major) with `k` clusters, at most n; `shown` images are named of each.
    ///
    /// # Errors
    /// As [`KMeans::fit`](crate::eval::kmeans::KMeans::fit).
    pub fn of<B: Backend>(
        backend: &B,
        points: &[f32],
        dim: usize,
        k: usize,
        config: &EvalConfig,
        shown: usize,
    ) -> Result<Clustering> {
        let found = cluster_on(backend, points, dim, k, config)?;
        let described = clusters(points, dim, &found.labels, &found.centers, shown)?;
        Ok(Clustering { k, labels: found.labels, described })
    }
}

impl Findings {
    /// Looks at (a sample of) `dataset` through `model`.
    ///
    /// # Errors
    /// If an image can no longer be read, or the network gives numbers that are not finite.
    pub fn of<B: Backend>(
        model: &Model,
        params: &mut Params<B>,
        dataset: &Dataset,
        config: &Config,
        origin: Origin,
    ) -> Result<Findings> {
        let seed = config.eval.seed;
        let sample = drawn(dataset.len(), SAMPLE, seed);
        let embeddings = embed_samples(model, params, dataset, &sample, config.image_size, &mut |_| ())?;
        let Embeddings { h, y, h_dim, y_dim, .. } = &embeddings;
        let count = Count::of(h, *h_dim, dataset, &config.eval)?;
        let k = count.clusters().filter(|&k| k <= sample.len());
        let backend = params.backend().clone();
        let cluster = |points: &[f32], dim, shown| {
            k.map(|k| Clustering::of(&backend, points, dim, k, &config.eval, shown)).transpose()
        };
        let (clusters, clusters_y) = (cluster(h, *h_dim, CONTACT)?, cluster(y, *y_dim, 0)?);
        let queries = choose(sample.len(), QUERIES, seed);
        let known: Vec<Known> = known(dataset, &sample);
        let readings = readings(y, *y_dim, &known)?;
        let factors: Vec<Reading> = readings.iter().filter(|r| r.name != CLASS).cloned().collect();
        Ok(Findings {
            origin,
            maps: Maps::of(&embeddings, seed)?,
            neighbours: if sample.len() > 1 { nearest(h, *h_dim, &queries, NEAREST)? } else { Vec::new() },
            examples: drawn(dataset.len(), EXAMPLES, seed),
            heads: heads(y, *y_dim, HeadOptions { images: RESPONSES, similar: SIMILAR })?,
            disentanglement: disentanglement(&factors),
            readings,
            count,
            clusters,
            clusters_y,
            sample,
            embeddings,
        })
    }

    /// The heads whose images are shown: those that differ most first.
    pub fn shown_heads(&self) -> Vec<&Head> {
        let mut heads: Vec<&Head> = self.heads.iter().collect();
        heads.sort_by_key(|head| head.place);
        heads.truncate(HEADS);
        heads
    }

    /// Every image that a report shows: indices into the data set.
    pub fn shown(&self) -> Vec<usize> {
        let described = self.clusters.iter().flat_map(|c| &c.described.clusters);
        let clusters = described.flat_map(|c| c.central.iter().chain(&c.doubtful).map(|member| member.image));
        let mapped = self.maps.iter().flat_map(|maps| maps.rows.iter().copied());
        let near = self.neighbours.iter().flat_map(|n| [n.image].into_iter().chain(n.nearest.iter().map(|n| n.image)));
        let responses = self.shown_heads().into_iter().flat_map(|head| head.most.iter().chain(&head.least));
        let rows = clusters.chain(mapped).chain(near).chain(responses.map(|response| response.image));
        rows.map(|row| self.sample[row]).chain(self.examples.iter().copied()).collect()
    }
}

impl Maps {
    fn of(embeddings: &Embeddings, seed: u64) -> Result<Option<Maps>> {
        let Embeddings { h, y, h_dim, y_dim, .. } = embeddings;
        let rows = drawn(h.len() / h_dim, MAPPED, seed);
        if rows.len() < MAPPABLE {
            return Ok(None);
        }
        let map = |values: &[f32], dim: usize| {
            let points: Vec<f32> = rows.iter().flat_map(|&row| &values[row * dim..][..dim]).copied().collect();
            Tsne { seed, ..Tsne::default() }.map(&points, dim)
        };
        Ok(Some(Maps { h: map(h, *h_dim)?, y: map(y, *y_dim)?, rows }))
    }
}

/// The name under which [`Known::class`] stands among the readings.
pub const CLASS: &str = "class";

/// What is known of the images of a sample.
fn known(dataset: &Dataset, sample: &[usize]) -> Vec<Known> {
    let all = Known::class(dataset).into_iter().chain(Known::factors(dataset));
    all.map(|known| Known { name: known.name, values: sample.iter().map(|&i| known.values[i]).collect() }).collect()
}

/// `count` of `0..n` at random by the seed, all if there are no more, ascending.
fn drawn(n: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut drawn = choose(n, count, seed);
    drawn.sort_unstable();
    drawn
}
