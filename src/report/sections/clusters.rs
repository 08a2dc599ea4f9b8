//! Each cluster: its most central and its most doubtful images, and the classes in it.

use maud::{Markup, html};

use super::overview::class_of;
use crate::data::Dataset;
use crate::eval::metrics::assignment;
use crate::report::figure::{Figure, N, Svg};
use crate::report::findings::{Clusters, Findings};
use crate::report::matrix;
use crate::report::page::{Part, Section, count};
use crate::report::theme;
use crate::report::thumbs::Thumbs;

/// Classes of a cluster that are named.
const NAMED: usize = 3;
/// Clusters that are shown with their images.
pub const SHOWN: usize = 40;
/// Units of an exported contact sheet's cells.
const CELL: f64 = 64.0;
const GAP: f64 = 4.0;

/// The section; `None` where there are no clusters.
pub fn section(findings: &Findings, dataset: &Dataset, thumbs: &Thumbs) -> Option<Section> {
    let clusters = findings.clusters.as_ref()?;
    let mut parts = vec![Part::Html(html! {
        p { (clusters.why) }
        p.note {
            "k-means on the backbone's features h of " (count(findings.sample.len(), "image"))
            ". Central: those with the greatest confidence. Doubtful: those with the least, nearly as close to another \
             cluster. " (clusters.confidence_is)
        }
    })];
    parts.extend(clusters.curve.clone().map(|curve| Part::Figures(vec![curve.draw()])));
    parts.extend(confusion(findings, clusters, dataset).map(|figure| Part::Figures(vec![figure])));
    let shown = clusters.k.min(SHOWN);
    let cards = html! {
        div.cards { @for cluster in 0..shown { (card(cluster, findings, clusters, dataset, thumbs)) } }
        @if shown < clusters.k { p.note { "The first " (shown) " of " (clusters.k) " clusters are shown." } }
    };
    let figures = (0..shown).map(|cluster| sheet(cluster, findings, clusters, thumbs)).collect();
    parts.push(Part::Pictures { shown: cards, figures });
    Some(Section::new("clusters", "Clusters", parts))
}

/// The classes in a cluster with their images, the largest first.
fn classes_in(cluster: usize, findings: &Findings, clusters: &Clusters, dataset: &Dataset) -> Vec<(String, usize)> {
    let mut counts = vec![0usize; dataset.classes().len()];
    for (row, &i) in findings.sample.iter().enumerate() {
        if let (true, Some(label)) = (clusters.labels[row] as usize == cluster, dataset.label(i)) {
            counts[label as usize] += 1;
        }
    }
    let mut named: Vec<(String, usize)> = dataset.classes().iter().cloned().zip(counts).filter(|c| c.1 > 0).collect();
    named.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    named
}

fn card(cluster: usize, findings: &Findings, clusters: &Clusters, dataset: &Dataset, thumbs: &Thumbs) -> Markup {
    let size = clusters.labels.iter().filter(|&&label| label as usize == cluster).count();
    let classes = classes_in(cluster, findings, clusters, dataset);
    let share = |n: usize| format!("{:.0} %", 100.0 * n as f64 / size.max(1) as f64);
    let named: Vec<String> = classes.iter().take(NAMED).map(|(name, n)| format!("{name} {}", share(*n))).collect();
    let more = if classes.len() > NAMED { ", ..." } else { "" };
    let tiles = |rows: &[usize]| {
        html! {
            div.tiles {
                @for &row in rows {
                    @let i = findings.sample[row];
                    @let said = [class_of(dataset, i), format!("confidence {:.2}", clusters.confidence[row])];
                    (thumbs.html(i, said.join(" ").trim()))
                }
            }
        }
    };
    html! {
        div.card data-cluster=(cluster) {
            h3 {
                svg.swatch viewBox="0 0 10 10" aria-hidden="true" { circle class={ "f" (theme::colour(cluster)) } cx="5" cy="5" r="5" {} }
                "Cluster " (cluster) ": " (count(size, "image"))
            }
            @if !named.is_empty() { p { (named.join(", ")) (more) } }
            h4 { "most central" }
            (tiles(&clusters.central[cluster]))
            @if !clusters.doubtful[cluster].is_empty() {
                h4 { "most doubtful" }
                (tiles(&clusters.doubtful[cluster]))
            }
        }
    }
}

/// A cluster's contact sheet as a figure of its own.
fn sheet(cluster: usize, findings: &Findings, clusters: &Clusters, thumbs: &Thumbs) -> Figure {
    let rows = [("most central", &clusters.central[cluster]), ("most doubtful", &clusters.doubtful[cluster])];
    contact_sheet(
        format!("cluster-{cluster:02}"),
        format!("Cluster {cluster}"),
        &rows.map(|(caption, rows)| (caption.to_owned(), rows.iter().map(|&row| findings.sample[row]).collect())),
        thumbs,
    )
}

/// Rows of images, each under its caption.
pub fn contact_sheet(id: String, title: String, rows: &[(String, Vec<usize>)], thumbs: &Thumbs) -> Figure {
    let columns = rows.iter().map(|(_, images)| images.len()).max().unwrap_or(1).max(4) as f64;
    let stride = CELL + GAP;
    let body = html! {
        @for (row, (caption, images)) in rows.iter().enumerate() {
            @let top = row as f64 * (stride + 18.0);
            text class="tx" x=(N(GAP)) y=(N(top + 13.0)) { (caption) }
            @for (column, &image) in images.iter().enumerate() {
                (thumbs.svg(image, GAP + column as f64 * stride, top + 18.0, CELL))
            }
        }
    };
    let svg = Svg { width: GAP + columns * stride, height: rows.len() as f64 * (stride + 18.0), body };
    Figure { id, title, caption: String::new(), svg, points: None }
}

/// Classes against clusters, the clusters in the order that puts matching ones on the diagonal.
fn confusion(findings: &Findings, clusters: &Clusters, dataset: &Dataset) -> Option<Figure> {
    let classes = dataset.classes().len();
    if classes == 0 {
        return None;
    }
    let mut counts = vec![0u64; classes * clusters.k];
    for (row, &i) in findings.sample.iter().enumerate() {
        if let Some(label) = dataset.label(i) {
            counts[label as usize * clusters.k + clusters.labels[row] as usize] += 1;
        }
    }
    let order = matched_order(&counts, classes, clusters.k);
    let sorted: Vec<u64> = (0..classes)
        .flat_map(|class| order.iter().map(move |&c| (class, c)))
        .map(|(r, c)| counts[r * clusters.k + c])
        .collect();
    let columns: Vec<String> = order.iter().map(usize::to_string).collect();
    Some(Figure {
        id: "confusion".into(),
        title: "Classes in the clusters".into(),
        caption: format!(
            "Images of each class (row) in each cluster (column); a cell is the darker the larger its share of the class. \
             Clusters are in the order of the best matching with the classes. {}.",
            count(findings.sample.len(), "image")
        ),
        svg: matrix::draw(&sorted, dataset.classes(), &columns, ["class", "cluster"]),
        points: None,
    })
}

/// Clusters in the order of the classes they match best; those without one follow.
fn matched_order(counts: &[u64], classes: usize, k: usize) -> Vec<usize> {
    let profit: Vec<i64> = counts.iter().map(|&n| n as i64).collect();
    // A table too large to match is shown as it is.
    let matched = if classes.max(k) <= 512 { assignment(&profit, classes, k).ok() } else { None };
    let mut order: Vec<usize> = matched.into_iter().flat_map(|(_, columns)| columns).flatten().collect();
    let rest: Vec<usize> = (0..k).filter(|cluster| !order.contains(cluster)).collect();
    order.extend(rest);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_follow_their_classes() {
        assert_eq!(matched_order(&[0, 9, 1, 8, 0, 1], 2, 3), [1, 0, 2]);
        assert_eq!(matched_order(&[0, 9, 8, 0, 1, 1], 3, 2), [1, 0]);
    }
}
