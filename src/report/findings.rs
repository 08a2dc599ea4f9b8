//! What a network made of a data set: embeddings of a sample of it, and everything that is read off them.

use crate::Result;
use crate::backend::Backend;
use crate::config::{Config, EvalConfig};
use crate::data::Dataset;
use crate::data::sampler::Permutation;
use crate::eval::embed::{Embeddings, embed_some};
use crate::eval::kmeans::KMeans;
use crate::model::Model;
use crate::nn::Params;
use crate::report::chart::Chart;
use crate::report::figure::Figure;

/// Images that are looked at, at most: bounds the time a report takes.
pub const SAMPLE: usize = 10_000;
/// Images in a map, at most.
pub const MAPPED: usize = 2_000;
/// Images in a cluster's contact sheet, of each kind.
const CONTACT: usize = 12;
/// Random images whose neighbours are shown.
const QUERIES: usize = 10;
/// Neighbours of each.
const NEAREST: usize = 9;
/// Random images that show what the data are.
const EXAMPLES: usize = 24;

/// What a network made of a data set. Rows are positions in the sample.
pub struct Findings {
    /// The network, in words: its checkpoint.
    pub network: String,
    /// The images looked at: indices into the data set, in its order.
    pub sample: Vec<usize>,
    /// Their embeddings.
    pub embeddings: Embeddings,
    /// k-means on the backbone's features; `None` for too few images.
    pub clusters: Option<Clusters>,
    /// Likewise on the heads.
    pub clusters_y: Option<Clusters>,
    /// Maps in the plane; `None` for too few images.
    pub maps: Option<Maps>,
    /// Random images with their neighbours.
    pub neighbours: Vec<Neighbours>,
    /// Images drawn at random: indices into the data set.
    pub examples: Vec<usize>,
}

/// How many clusters are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// So many.
    Exactly(usize),
    /// As many as the points suggest.
    Auto,
}

/// A clustering.
pub struct Clusters {
    /// How many.
    pub k: usize,
    /// Per row, 0..k.
    pub labels: Vec<u32>,
    /// Per row, how sure it is of its cluster.
    pub confidence: Vec<f32>,
    /// Per cluster the rows with the greatest confidence, the greatest first.
    pub central: Vec<Vec<usize>>,
    /// Per cluster the rows with the least, the least first.
    pub doubtful: Vec<Vec<usize>>,
    /// Why so many, in words.
    pub why: String,
    /// What confidence is, in words.
    pub confidence_is: &'static str,
    /// The criterion over k, where k was proposed.
    pub curve: Option<Curve>,
}

impl Clusters {
    /// Clusters `points` (n x `dim`, row-major) by k-means; `None` if they are too few for the number to be proposed.
    ///
    /// # Errors
    /// As [`KMeans::fit`].
    pub fn of(points: &[f32], dim: usize, wanted: Wanted, config: &EvalConfig) -> Result<Option<Clusters>> {
        let Wanted::Exactly(k) = wanted else { return Ok(None) };
        let kmeans = KMeans { restarts: config.restarts, seed: config.seed, ..KMeans::new(k) };
        let clustering = kmeans.fit(points, dim)?;
        let confidence: Vec<f32> = points
            .chunks_exact(dim)
            .map(|row| {
                let distance = |center: &[f64]| {
                    center.iter().zip(row).map(|(c, &v)| (c - f64::from(v)).powi(2)).sum::<f64>().sqrt()
                };
                let mut all: Vec<f64> = clustering.centers.chunks_exact(dim).map(distance).collect();
                all.sort_by(f64::total_cmp);
                if all.len() > 1 && all[1] > 0.0 { (1.0 - all[0] / all[1]) as f32 } else { 0.0 }
            })
            .collect();
        let mut central = Vec::new();
        let mut doubtful = Vec::new();
        for cluster in 0..k {
            let mut rows: Vec<usize> =
                (0..confidence.len()).filter(|&r| clustering.labels[r] as usize == cluster).collect();
            rows.sort_by(|&a, &b| confidence[b].total_cmp(&confidence[a]).then(a.cmp(&b)));
            let few = (rows.len() / 2).min(CONTACT);
            doubtful.push(rows.iter().rev().take(few).copied().collect());
            rows.truncate(CONTACT);
            central.push(rows);
        }
        Ok(Some(Clusters {
            k,
            labels: clustering.labels,
            confidence,
            central,
            doubtful,
            why: format!("{k} clusters, as asked for."),
            confidence_is: "",
            curve: None,
        }))
    }
}

/// A criterion over k.
#[derive(Clone)]
pub struct Curve {
    /// The chart.
    pub chart: Chart,
    /// What it shows.
    pub caption: String,
}

impl Curve {
    /// The curve, drawn.
    pub fn draw(&self) -> Figure {
        Figure {
            id: "cluster-number".into(),
            title: "How many clusters?".into(),
            caption: self.caption.clone(),
            svg: self.chart.draw(),
            points: None,
        }
    }
}

/// Maps of a part of the sample.
pub struct Maps {
    /// Rows in them.
    pub rows: Vec<usize>,
    /// Of the backbone's features.
    pub h: Map,
    /// Of the heads.
    pub y: Map,
}

/// A map.
pub struct Map {
    /// A place a row.
    pub positions: Vec<[f64; 2]>,
    /// Kullback-Leibler divergence, nats.
    pub kl_divergence: f64,
    /// The perplexity used.
    pub perplexity: f64,
}

/// An image and those nearest to it.
pub struct Neighbours {
    /// Its row.
    pub query: usize,
    /// Rows and cosine similarities, the nearest first.
    pub nearest: Vec<(usize, f32)>,
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
        network: String,
    ) -> Result<Findings> {
        let order = Permutation::of_epoch(config.eval.seed, 0, dataset.len());
        let drawn = |count: usize| {
            let mut drawn: Vec<usize> = (0..count.min(dataset.len())).map(|i| order.at(i)).collect();
            drawn.sort_unstable();
            drawn
        };
        let sample = drawn(SAMPLE);
        let embeddings = embed_some(model, params, dataset, &sample, config.image_size)?;
        let k = dataset.labels().map(|l| l.into_iter().collect::<std::collections::BTreeSet<_>>().len());
        let wanted = config.eval.clusters.or(k).map_or(Wanted::Auto, Wanted::Exactly);
        let clusters = Clusters::of(&embeddings.h, embeddings.h_dim, wanted, &config.eval)?;
        let clusters_y = Clusters::of(&embeddings.y, embeddings.y_dim, wanted, &config.eval)?;
        Ok(Findings {
            network,
            clusters,
            clusters_y,
            maps: None,
            neighbours: Vec::new(),
            examples: drawn(EXAMPLES),
            sample,
            embeddings,
        })
    }

    /// Every image that a report shows: indices into the data set.
    pub fn shown(&self) -> Vec<usize> {
        let clusters = self.clusters.iter().flat_map(|c| c.central.iter().chain(&c.doubtful)).flatten().copied();
        let mapped = self.maps.iter().flat_map(|maps| maps.rows.iter().copied());
        let near = self.neighbours.iter().flat_map(|n| std::iter::once(n.query).chain(n.nearest.iter().map(|n| n.0)));
        let rows = clusters.chain(mapped).chain(near);
        rows.map(|row| self.sample[row]).chain(self.examples.iter().copied()).collect()
    }
}
