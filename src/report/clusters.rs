//! What is in each cluster: its most central and its most doubtful images, and the classes they are of.

use crate::eval::Rows;
use crate::eval::metrics::assignment;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Cells of the largest table of which clusters and classes are matched one to one: that takes cubic time.
const ASSIGNABLE: usize = 1 << 24;

/// An image of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Number of the image.
    pub image: usize,
    /// Distance to the centre of its cluster, in the units of the embedding.
    pub distance: f64,
    /// See [`Clusters::confidence`].
    pub confidence: f32,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its number.
    pub index: usize,
    /// Images in it; may be 0.
    pub size: usize,
    /// Mean confidence of its images; 0 if it has none.
    pub confidence: f64,
    /// The images nearest to its centre, nearest first; the first of equals first.
    pub central: Vec<Member>,
    /// The images of least confidence, least first; the first of equals first.
    pub doubtful: Vec<Member>,
}

/// All clusters of an embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clusters {
    /// In the order of their numbers.
    pub clusters: Vec<Cluster>,
    /// How sure it is, per image, that it belongs to its cluster: `1 - a / b` with a the distance to its own centre and b
    /// that to the nearest other one, in 0..=1 (the simplified silhouette; Hruschka and others 2004). 1 at its centre, 0
    /// half-way to another, or nearer to the other. 1 if there is no other, 0 if both centres are where it is.
    pub confidence: Vec<f32>,
}

/// Describes the clusters with `centers` (k x `dim`) of `points` (n x `dim`, both row-major); `labels` says in which each
/// point is. `shown` central and `shown` doubtful images are named of each.
///
/// # Errors
/// [`Error::Shape`] if `points` are not one or more rows of `dim`, there is not one label a point, or a label has no
/// centre; [`Error::NonFinite`] for points or centres that are not finite.
pub fn clusters(points: &[f32], dim: usize, labels: &[u32], centers: &[f64], shown: usize) -> Result<Clusters> {
    let rows = Rows::new("clusters", points, dim)?;
    let count = centers.len() / dim;
    if labels.len() != rows.count || centers.len() != count * dim {
        let problem =
            format!("{} labels and {} numbers of centres for {} x {dim}", labels.len(), centers.len(), rows.count);
        return Err(Error::shape("clusters", problem));
    }
    if let Some(image) = labels.iter().position(|&label| label as usize >= count) {
        return Err(Error::shape("clusters", format!("image {image} is in cluster {} of {count}", labels[image])));
    }
    if let Some(at) = centers.iter().position(|c| !c.is_finite()) {
        return Err(Error::NonFinite(format!("clusters: centre {} is not finite", at / dim)));
    }
    let members: Vec<Member> = (0..rows.count)
        .into_par_iter()
        .map(|image| member(image, rows.row(image), labels[image] as usize, centers))
        .collect();
    let mut by_cluster = vec![Vec::new(); count];
    labels.iter().zip(&members).for_each(|(&label, &member)| by_cluster[label as usize].push(member));
    let clusters = by_cluster.into_iter().enumerate().map(|(index, members)| cluster(index, members, shown)).collect();
    Ok(Clusters { clusters, confidence: members.iter().map(|m| m.confidence).collect() })
}

fn member(image: usize, point: &[f32], label: usize, centers: &[f64]) -> Member {
    let (mut own, mut other) = (0.0, f64::INFINITY);
    for (cluster, center) in centers.chunks(point.len()).enumerate() {
        let squared: f64 = point.iter().zip(center).map(|(&p, c)| (f64::from(p) - c).powi(2)).sum();
        if cluster == label {
            own = squared.sqrt();
        } else {
            other = squared.sqrt().min(other);
        }
    }
    let confidence = if other > 0.0 { (1.0 - own / other).max(0.0) } else { 0.0 };
    Member { image, distance: own, confidence: confidence as f32 }
}

fn cluster(index: usize, mut members: Vec<Member>, shown: usize) -> Cluster {
    let size = members.len();
    let confidence = members.iter().map(|m| f64::from(m.confidence)).sum::<f64>() / size.max(1) as f64;
    let mut first = |order: fn(&Member, &Member) -> std::cmp::Ordering| {
        // Stable, and the members are in the order of the images: the first of equals stays first.
        members.sort_by_key(|m| m.image);
        members.sort_by(order);
        members[..shown.min(size)].to_vec()
    };
    let central = first(|a, b| a.distance.total_cmp(&b.distance));
    let doubtful = first(|a, b| a.confidence.total_cmp(&b.confidence));
    Cluster { index, size, confidence, central, doubtful }
}

/// Clusters against classes, over the images that have a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// Images of each cluster (rows) and class (columns).
    pub counts: Vec<Vec<u64>>,
    /// The class each cluster is matched with, one to one so that most images agree (Hungarian algorithm); `None` for
    /// clusters without one, also where they share no image.
    pub matched: Vec<Option<usize>>,
    /// Share of the images whose cluster is matched with their class: ACC.
    pub accuracy: f64,
    /// Share of the images of the commonest class of their cluster.
    pub purity: f64,
    /// Images with a class.
    pub images: usize,
}

/// Counts `labels` (cluster of each image, below `clusters`) against the class of each, below `classes`. `None` if no
/// image has a class.
///
/// # Errors
/// [`Error::Shape`] if lengths differ or an id is out of range; [`Error::Usage`] if there are too many clusters and
/// classes to match one to one.
pub fn confusion(labels: &[u32], clusters: usize, of: &[Option<u32>], classes: usize) -> Result<Option<Confusion>> {
    if labels.len() != of.len() {
        return Err(Error::shape("confusion", format!("{} clusters for {} classes", labels.len(), of.len())));
    }
    if clusters.saturating_mul(classes) > ASSIGNABLE {
        let problem = format!("{clusters} clusters and {classes} classes are too many to match one to one");
        return Err(Error::Usage(problem));
    }
    let mut counts = vec![vec![0u64; classes]; clusters];
    for (image, (&label, class)) in labels.iter().zip(of).enumerate() {
        let Some(class) = class else { continue };
        let cell = counts.get_mut(label as usize).and_then(|row| row.get_mut(*class as usize));
        let problem =
            || Error::shape("confusion", format!("image {image}: cluster {label} or class {class} is unknown"));
        *cell.ok_or_else(problem)? += 1;
    }
    let images: u64 = counts.iter().flatten().sum();
    if images == 0 {
        return Ok(None);
    }
    let profit: Vec<i64> = counts.iter().flatten().map(|&count| count as i64).collect();
    let (agreeing, mut matched) = assignment(&profit, clusters, classes)?;
    for (cluster, class) in matched.iter_mut().enumerate() {
        *class = class.filter(|&class| counts[cluster][class] > 0);
    }
    let commonest: u64 = counts.iter().map(|row| row.iter().max().copied().unwrap_or(0)).sum();
    let share = |count: f64| count / images as f64;
    let (accuracy, purity) = (share(agreeing as f64), share(commonest as f64));
    Ok(Some(Confusion { counts, matched, accuracy, purity, images: images as usize }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn central_and_doubtful_images_are_those_they_are() {
        // On a line: centres at 0 and 10; cluster 2 is empty, far away.
        let points = [1.0f32, 0.0, 4.0, -2.0, 9.0, 12.0, 6.0, 1.0, 5.0];
        let labels = [0, 0, 0, 0, 1, 1, 1, 0, 1];
        let got = clusters(&points, 1, &labels, &[0.0, 10.0, 1000.0], 3).unwrap();
        let images = |members: &[Member]| members.iter().map(|m| m.image).collect::<Vec<_>>();
        assert_eq!(got.clusters.iter().map(|c| c.size).collect::<Vec<_>>(), [5, 4, 0]);
        assert_eq!(images(&got.clusters[0].central), [1, 0, 7]);
        assert_eq!(images(&got.clusters[0].doubtful), [2, 3, 0]);
        assert_eq!(images(&got.clusters[1].central), [4, 5, 6]);
        assert_eq!(images(&got.clusters[1].doubtful), [8, 6, 5]);
        assert!(got.clusters[2].central.is_empty() && got.clusters[2].confidence == 0.0);
        // 1 - a / b: 1 - 1/9, 1, 1 - 4/6, 1 - 2/12, 1 - 1/9, 1 - 2/12, 1 - 4/6, 1 - 1/9, 0.
        let expected = [8.0 / 9.0, 1.0, 1.0 / 3.0, 5.0 / 6.0, 8.0 / 9.0, 5.0 / 6.0, 1.0 / 3.0, 8.0 / 9.0, 0.0];
        assert!(got.confidence.iter().zip(expected).all(|(a, b): (&f32, f64)| (f64::from(*a) - b).abs() < 1e-7));
        assert_eq!((got.clusters[0].central[1].distance, got.clusters[0].doubtful[0].distance), (1.0, 4.0));
        let mean = (8.0 / 9.0 + 1.0 + 1.0 / 3.0 + 5.0 / 6.0 + 8.0 / 9.0) / 5.0;
        assert!((got.clusters[0].confidence - mean).abs() < 1e-7);
    }

    #[test]
    fn a_single_cluster_and_equal_centres_have_a_confidence() {
        assert_eq!(clusters(&[1.0, 2.0], 1, &[0, 0], &[1.5], 1).unwrap().confidence, [1.0, 1.0]);
        assert_eq!(clusters(&[1.0, 1.0], 1, &[0, 1], &[1.0, 1.0], 1).unwrap().confidence, [0.0, 0.0]);
        // In a cluster that is not the nearest one.
        assert_eq!(clusters(&[1.0], 1, &[1], &[0.0, 9.0], 1).unwrap().confidence, [0.0]);
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(clusters(&[1.0, 2.0], 1, &[0], &[0.0], 1).is_err());
        assert!(clusters(&[1.0, 2.0], 1, &[0, 1], &[0.0], 1).unwrap_err().to_string().contains("image 1"));
        assert!(matches!(clusters(&[f32::NAN], 1, &[0], &[0.0], 1), Err(Error::NonFinite(_))));
        assert!(matches!(clusters(&[1.0], 1, &[0], &[f64::NAN], 1), Err(Error::NonFinite(_))));
    }

    #[test]
    fn confusion_is_counted_and_matched() {
        let labels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3];
        let classes = [1, 1, 0, 0, 0, 1, 1, 1, 9, 9].map(|c| (c < 9).then_some(c));
        let got = confusion(&labels, 4, &classes, 2).unwrap().unwrap();
        assert_eq!(got.counts, [[1, 2], [2, 1], [0, 2], [0, 0]]);
        // Two classes for four clusters: cluster 1 takes class 0, and one of the two with 2 of class 1 takes it.
        assert_eq!(got.matched[1], Some(0));
        assert_eq!((got.matched[0].is_some() as u8 + got.matched[2].is_some() as u8, got.matched[3]), (1, None));
        assert_eq!((got.accuracy, got.purity, got.images), (0.5, 0.75, 8));
        assert!(confusion(&labels, 4, &[None; 10], 2).unwrap().is_none());
        assert!(confusion(&labels, 4, &[None; 9], 2).is_err() && confusion(&labels, 3, &classes, 2).is_ok());
        assert!(confusion(&[3], 3, &[Some(0)], 2).is_err() && confusion(&[0], 3, &[Some(2)], 2).is_err());
        assert!(matches!(confusion(&[0], 1 << 13, &[Some(0)], 1 << 13), Err(Error::Usage(_))));
    }
}
