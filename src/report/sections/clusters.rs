//! Each cluster: its most central and its most doubtful images, and the classes in it.

use maud::{Markup, html};

use super::overview::class_of;
use crate::Result;
use crate::data::Dataset;
use crate::report::chart::{Axis, Chart, Line, Look};
use crate::report::cluster_count::{DIMENSIONS, Proposal};
use crate::report::clusters::{Cluster, Confusion, Member, confusion};
use crate::report::figure::{Figure, N, Svg};
use crate::report::findings::{Clustering, Count, Findings};
use crate::report::matrix;
use crate::report::page::{Part, Section, count};
use crate::report::theme;
use crate::report::thumbs::Thumbs;

/// Classes of a cluster that are named.
const NAMED: usize = 3;
/// Clusters that are shown with their images.
const SHOWN: usize = 40;
/// Units of an exported contact sheet's cells.
const CELL: f64 = 64.0;
const GAP: f64 = 4.0;

/// The section.
///
/// # Errors
/// If clusters and classes are too many to match.
pub fn section(findings: &Findings, dataset: &Dataset, thumbs: &Thumbs) -> Result<Section> {
    let mut parts = vec![Part::Html(html! { p { (findings.count.why()) } })];
    if let Count::Proposed(proposal) = &findings.count {
        parts.extend(curve(proposal).map(|figure| Part::Figures(vec![figure])));
    }
    let Some(clusters) = &findings.clusters else {
        parts.push(Part::Html(html! {
            p { "If you know how many groups to expect: " code { "disentangle report RUN --set eval.clusters=K" } "." }
        }));
        return Ok(Section::new("clusters", "Clusters", parts));
    };
    let of: Vec<Option<u32>> = findings.sample.iter().map(|&i| dataset.label(i)).collect();
    let confusion = match dataset.classes().len() {
        0 => None,
        classes => confusion(&clusters.labels, clusters.k, &of, classes)?,
    };
    if let Some(confusion) = &confusion {
        parts.push(Part::Figures(vec![draw_confusion(confusion, dataset)]));
    }
    let shown = clusters.k.min(SHOWN);
    let cards = html! {
        p.note {
            "k-means on the backbone's features h of " (count(findings.sample.len(), "image")) ". Central: nearest to the \
             cluster's centre. Doubtful: least confident. Confidence is 1 - a / b, a the distance to the own centre and b that to the \
             nearest other one: 1 at the centre, 0 half-way to another cluster."
        }
        div.cards {
            @for cluster in &clusters.described.clusters[..shown] {
                (card(cluster, confusion.as_ref(), findings, dataset, thumbs))
            }
        }
        @if shown < clusters.k { p.note { "The first " (shown) " of " (clusters.k) " clusters are shown." } }
    };
    let sheets = clusters.described.clusters[..shown].iter().map(|cluster| sheet(cluster, findings, thumbs)).collect();
    parts.push(Part::Pictures { shown: cards, figures: sheets });
    Ok(Section::new("clusters", "Clusters", parts))
}

/// The criterion over the numbers of clusters that were tried; `None` if none was.
pub fn curve(proposal: &Proposal) -> Option<Figure> {
    let (first, last) = (proposal.curve.first()?.clusters as f64, proposal.curve.last()?.clusters as f64);
    let line = |name: &str, look, value: &dyn Fn(usize) -> f64| Line {
        name: name.into(),
        points: (0..proposal.curve.len()).map(|i| (proposal.curve[i].clusters as f64, value(i))).collect(),
        look,
    };
    let threshold = proposal.threshold;
    let chart = Chart {
        x: Axis { label: "number of clusters K".into(), whole: true, ..Axis::default() },
        y: Axis { label: "silhouette".into(), include: vec![0.0], ..Axis::default() },
        lines: vec![
            line("images", Look::Series(0), &|i| proposal.curve[i].silhouette),
            line("no structure", Look::Series(7), &|i| proposal.curve[i].reference),
            line("difference", Look::Series(1), &|i| proposal.curve[i].gap),
            Line {
                name: "chance".into(),
                points: vec![(first, threshold), (last, threshold)],
                look: Look::Reference(0),
            },
        ],
    };
    Some(Figure {
        id: "cluster-number".into(),
        title: "How many clusters?".into(),
        caption: format!(
            "Mean silhouette of k-means for every K on {} (leading {DIMENSIONS} principal components of h), the same for points \
             of that spread without structure, and the difference, which has to exceed what chance gives. K is where it \
             is largest.",
            count(proposal.sample, "image")
        ),
        svg: chart.draw(),
        points: None,
    })
}

/// The classes in a cluster with their images, the largest first.
fn classes_in(cluster: &Cluster, confusion: &Confusion, dataset: &Dataset) -> Vec<(String, u64)> {
    let counts = &confusion.counts[cluster.index];
    let mut named: Vec<(String, u64)> =
        dataset.classes().iter().cloned().zip(counts.iter().copied()).filter(|c| c.1 > 0).collect();
    named.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    named
}

fn card(
    cluster: &Cluster,
    confusion: Option<&Confusion>,
    findings: &Findings,
    dataset: &Dataset,
    thumbs: &Thumbs,
) -> Markup {
    let classes = confusion.map(|confusion| classes_in(cluster, confusion, dataset)).unwrap_or_default();
    let share = |n: u64| format!("{:.0} %", 100.0 * n as f64 / cluster.size.max(1) as f64);
    let named: Vec<String> = classes.iter().take(NAMED).map(|(name, n)| format!("{name} {}", share(*n))).collect();
    let more = if classes.len() > NAMED { ", ..." } else { "" };
    let tiles = |members: &[Member]| {
        html! {
            div.tiles {
                @for member in members {
                    @let i = findings.sample[member.image];
                    @let said = format!("{} confidence {:.2}", class_of(dataset, i), member.confidence);
                    (thumbs.html(i, said.trim()))
                }
            }
        }
    };
    html! {
        div.card data-cluster=(cluster.index) {
            h3 {
                svg.swatch viewBox="0 0 10 10" aria-hidden="true" {
                    path class={ "s" (theme::colour(cluster.index)) } stroke-width="9" stroke-linecap=(theme::mark(cluster.index))
                        d="M5 5h0" {}
                }
                "Cluster " (cluster.index) ": " (count(cluster.size, "image"))
            }
            p {
                @if !named.is_empty() { (named.join(", ")) (more) "; " }
                "mean confidence " (format!("{:.2}", cluster.confidence))
            }
            h4 { "most central" }
            (tiles(&cluster.central))
            h4 { "most doubtful" }
            (tiles(&cluster.doubtful))
        }
    }
}

/// A cluster's contact sheet as a figure of its own.
fn sheet(cluster: &Cluster, findings: &Findings, thumbs: &Thumbs) -> Figure {
    let rows = [("most central", &cluster.central), ("most doubtful", &cluster.doubtful)];
    let images = |members: &Vec<Member>| members.iter().map(|member| findings.sample[member.image]).collect();
    contact_sheet(
        format!("cluster-{:02}", cluster.index),
        format!("Cluster {}", cluster.index),
        &rows.map(|(caption, members)| (caption.to_owned(), images(members))),
        thumbs,
    )
}

/// Rows of images, each under its caption.
pub fn contact_sheet(id: String, title: String, rows: &[(String, Vec<usize>)], thumbs: &Thumbs) -> Figure {
    let columns = rows.iter().map(|(_, images)| images.len()).max().unwrap_or(1).max(4) as f64;
    let stride = CELL + GAP;
    let above = if rows.iter().all(|(caption, _)| caption.is_empty()) { GAP } else { 18.0 };
    let body = html! {
        @for (row, (caption, images)) in rows.iter().enumerate() {
            @let top = row as f64 * (CELL + above) + above;
            text class="tx" x=(N(GAP)) y=(N(top - 5.0)) { (caption) }
            @for (column, &image) in images.iter().enumerate() {
                (thumbs.svg(image, GAP + column as f64 * stride, top, CELL))
            }
        }
    };
    let svg = Svg { width: GAP + columns * stride, height: rows.len() as f64 * (CELL + above) + GAP, body };
    Figure { id, title, caption: String::new(), svg, points: None }
}

/// Classes against clusters, the clusters in the order that puts matching ones on the diagonal.
fn draw_confusion(confusion: &Confusion, dataset: &Dataset) -> Figure {
    let order = matched_order(&confusion.matched, dataset.classes().len());
    let classes = 0..dataset.classes().len();
    let counts: Vec<u64> =
        classes.flat_map(|class| order.iter().map(move |&cluster| confusion.counts[cluster][class])).collect();
    let columns: Vec<String> = order.iter().map(usize::to_string).collect();
    Figure {
        id: "confusion".into(),
        title: "Classes in the clusters".into(),
        caption: format!(
            "Images of each class (row) in each cluster (column); the stronger its colour, the larger its share of the class. \
             Clusters stand in the order of their matching with the classes: {:.1} % of {} lie on the diagonal; {:.1} % are of \
             the commonest class of their cluster.",
            100.0 * confusion.accuracy,
            count(confusion.images, "image"),
            100.0 * confusion.purity
        ),
        svg: matrix::draw(&counts, dataset.classes(), &columns, ["class", "cluster"]),
        points: None,
    }
}

/// Clusters in the order of the classes they are matched with; those without one follow.
fn matched_order(matched: &[Option<usize>], classes: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..matched.len()).collect();
    order.sort_by_key(|&cluster| matched[cluster].unwrap_or(classes));
    order
}

impl Clustering {
    /// Per row, how sure it is of its cluster.
    pub fn confidence(&self) -> &[f32] {
        &self.described.confidence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_follow_their_classes() {
        assert_eq!(matched_order(&[Some(1), None, Some(0)], 2), [2, 0, 1]);
    }
}
