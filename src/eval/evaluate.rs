//! What a run learned: k-means on its embeddings against the labels, beside what pixels and random weights give.
//!
//! Where there are no labels there are no scores; figures that need none (spread of the features, activity of the heads)
//! are always there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::collapse::{HeadActivity, Spread, head_activity, spread};
use super::embed::{Embeddings, eval_pixels};
use super::kmeans::{self, KMeans};
use super::metrics::Scores;
use super::probe::{self, FactorScore};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::config::EvalConfig;
use crate::data::Dataset;
use crate::log::say;
use crate::{Error, Result};

/// Side in pixels at which raw pixels are clustered, at most: CIFAR's own size, on which the literature's figures for
/// raw-pixel k-means are.
const PIXELS_SIDE: usize = 32;

/// Scores that training has to beat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baselines {
    /// k-means on raw pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<Scores>,
    /// k-means on the backbone before training, its batch-norm statistics calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Scores>,
    /// How well each factor is read from the backbone before training.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untrained_factors: Vec<FactorScore>,
}

/// How well one factor is read, by the score of [`probe`](super::probe).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactorRow {
    /// What varies.
    pub factor: String,
    /// Accuracy of always answering the commonest value.
    pub chance: f64,
    /// Score on the backbone before training, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrained: Option<f64>,
    /// Score on the backbone's features h.
    pub backbone: f64,
    /// Score on the feature heads y.
    pub feature: f64,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Images evaluated: all of the data set.
    pub images: usize,
    /// k of k-means; absent where neither labels nor the user gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<usize>,
    /// Raw pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<Scores>,
    /// The backbone before training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrained: Option<Scores>,
    /// The backbone's features h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Scores>,
    /// The feature heads' outputs y.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<Scores>,
    /// Ground-truth factors, where the data set has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub factors: Vec<FactorRow>,
    /// Spread of h: collapse shows here without labels.
    pub spread: Spread,
    /// What the heads do.
    pub heads: HeadActivity,
}

/// Clusters and scores representations of one data set.
pub struct Evaluator<'a, B: Backend = Cpu<f32>> {
    backend: B,
    dataset: &'a Dataset,
    labels: Option<Vec<u32>>,
    config: &'a EvalConfig,
}

/// k-means as an evaluation does it, on a device, or on the CPU where the device lacks the memory: the same bits.
///
/// # Errors
/// As [`KMeans::fit_on`].
pub fn cluster_on<B: Backend>(
    backend: &B,
    points: &[f32],
    dim: usize,
    clusters: usize,
    config: &EvalConfig,
) -> Result<kmeans::Clustering> {
    let kmeans = KMeans { restarts: config.restarts, seed: config.seed, ..KMeans::new(clusters) };
    match kmeans.fit_on(backend, points, dim) {
        Err(Error::OutOfMemory { problem, .. }) => {
            say(&format!("clustering on the CPU: {problem}"));
            kmeans.fit(points, dim)
        }
        fitted => fitted,
    }
}

impl<'a> Evaluator<'a> {
    /// For `dataset`, with `config`'s k-means. Errors with [`Error::Usage`] if that asks for more clusters than there are
    /// images.
    pub fn new(dataset: &'a Dataset, config: &'a EvalConfig) -> Result<Self> {
        if let Some(clusters) = config.clusters.filter(|&clusters| clusters > dataset.len()) {
            let images = dataset.len();
            return Err(Error::Usage(format!("{images} images cannot form {clusters} clusters: ask for fewer")));
        }
        Ok(Evaluator { backend: Cpu::new(), dataset, labels: dataset.labels(), config })
    }
}

impl<'a, B: Backend> Evaluator<'a, B> {
    /// The same, clustering on another device: the result is the same to the bit.
    pub fn on<D: Backend>(self, backend: &D) -> Evaluator<'a, D> {
        let Evaluator { dataset, labels, config, .. } = self;
        Evaluator { backend: backend.clone(), dataset, labels, config }
    }

    /// k: given, or the number of classes that have images; `None` without either.
    pub fn clusters(&self) -> Option<usize> {
        let classes = || self.labels.as_ref().map(|labels| labels.iter().collect::<BTreeSet<_>>().len());
        self.config.clusters.or_else(classes)
    }

    /// The cluster of each row of `points` `[images, dim]`; `None` without a k. Errors if there are fewer images than clusters.
    pub fn cluster(&self, points: &[f32], dim: usize) -> Result<Option<Vec<u32>>> {
        let Some(clusters) = self.clusters() else { return Ok(None) };
        Ok(Some(cluster_on(&self.backend, points, dim, clusters, self.config)?.labels))
    }

    /// Agreement of k-means on `points` with the labels; `None` without labels.
    pub fn score(&self, points: &[f32], dim: usize) -> Result<Option<Scores>> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let clusters = self.cluster(points, dim)?;
        clusters.map(|clusters| Scores::new(labels, &clusters)).transpose()
    }

    /// Scores of raw pixels, at the network's input size or 32 px, whichever is smaller.
    pub fn score_pixels(&self, image_size: usize) -> Result<Option<Scores>> {
        if self.labels.is_none() {
            return Ok(None);
        }
        let side = image_size.min(PIXELS_SIDE);
        let mut pixels = vec![0; self.dataset.len() * side * side * 3];
        eval_pixels(self.dataset, |i| i, side, &mut pixels)?;
        let points: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 255.0).collect();
        self.score(&points, side * side * 3)
    }

    /// How well each ground-truth factor is read from `points`.
    pub fn read_factors(&self, points: &[f32], dim: usize) -> Result<Vec<FactorScore>> {
        let factors = self.dataset.factors();
        if factors.is_empty() || self.dataset.len() < 5 {
            return Ok(Vec::new());
        }
        let factors: Vec<_> = factors.iter().map(|f| probe::Factor { name: &f.name, values: &f.labels }).collect();
        probe::probe(points, dim, &factors, self.config.seed)
    }

    /// All scores of a trained network's embeddings.
    pub fn evaluate(&self, embeddings: &Embeddings, baselines: &Baselines) -> Result<Evaluation> {
        let Embeddings { h, y, h_dim, y_dim, .. } = embeddings;
        let (spread, heads) = embedding_figures(embeddings)?;
        let (from_h, from_y) = (self.read_factors(h, *h_dim)?, self.read_factors(y, *y_dim)?);
        let factors = from_h.into_iter().zip(from_y).map(|(h, y)| FactorRow {
            untrained: baselines.untrained_factors.iter().find(|f| f.factor == h.factor).map(|f| f.score),
            factor: h.factor,
            chance: h.chance,
            backbone: h.score,
            feature: y.score,
        });
        Ok(Evaluation {
            images: self.dataset.len(),
            clusters: self.clusters(),
            pixels: baselines.pixels,
            untrained: baselines.untrained,
            backbone: self.score(h, *h_dim)?,
            feature: self.score(y, *y_dim)?,
            factors: factors.collect(),
            spread,
            heads,
        })
    }
}

/// Figures of embeddings that need no labels.
pub fn embedding_figures(embeddings: &Embeddings) -> Result<(Spread, HeadActivity)> {
    Ok((spread(&embeddings.h, embeddings.h_dim)?, head_activity(&embeddings.y, embeddings.y_dim)?))
}

impl Evaluation {
    /// The evaluation as tables for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let rows = [
            ("raw pixels", self.pixels),
            ("untrained network", self.untrained),
            ("backbone", self.backbone),
            ("feature", self.feature),
        ];
        if rows.iter().any(|(_, scores)| scores.is_some()) {
            let head = format!("k-means, k = {}, {} images", self.clusters.unwrap_or(0), self.images);
            text += &format!("{head:<40}{:>6}{:>7}{:>7}\n", "NMI", "ARI", "ACC");
            for (name, scores) in rows {
                if let Some(Scores { nmi, ari, acc }) = scores {
                    text += &format!("  {name:<38}{nmi:>6.3}{ari:>7.3}{acc:>7.3}\n");
                }
            }
        } else {
            text += &format!("{} images without labels: no scores\n", self.images);
        }
        if !self.factors.is_empty() {
            let head = "factor score (0 chance, 1 perfect)";
            text += &format!("{head:<40}{:>10}{:>10}{:>9}\n", "untrained", "backbone", "feature");
            for row in &self.factors {
                let untrained = row.untrained.map_or("-".to_owned(), |s| format!("{s:.3}"));
                text += &format!("  {:<38}{untrained:>10}{:>10.3}{:>9.3}\n", row.factor, row.backbone, row.feature);
            }
        }
        let HeadActivity { mean, deviation, constant_heads } = self.heads;
        text += &format!(
            "features: effective rank {:.1}; heads: mean {mean:.3}, deviation over images {deviation:.3}, {constant_heads} constant\n",
            self.spread.effective_rank
        );
        text
    }
}
