//! t-SNE maps of the backbone's features and of the heads.

use maud::html;
use serde_json::{Value, json};

use super::overview::class_of;
use crate::data::Dataset;
use crate::report::figure::Figure;
use crate::report::findings::Findings;
use crate::report::page::{Part, Section, count, grouped};
use crate::report::scatter::{self, Legend};
use crate::report::thumbs::Thumbs;

/// The section, and what the page's script shows of a point.
pub fn section(findings: &Findings, dataset: &Dataset, thumbs: &Thumbs) -> Option<(Section, Value)> {
    let maps = findings.maps.as_ref()?;
    let images: Vec<usize> = maps.rows.iter().map(|&row| findings.sample[row]).collect();
    let spaces = [
        ("h", "the backbone's features h", &maps.h, findings.clusters.as_ref()),
        ("y", "the feature heads y", &maps.y, findings.clusters_y.as_ref()),
    ];
    let mut figures = Vec::new();
    let mut places = serde_json::Map::new();
    for (name, what, map, clusters) in spaces {
        let at = scatter::place(&map.positions);
        let how = format!(
            "t-SNE of {what}, {} (perplexity {:.0}, KL divergence {:.2} nats). Near points are alike; distances between \
             far groups and the axes mean nothing.",
            count(images.len(), "image"),
            map.perplexity,
            map.kl_divergence
        );
        let mut figure = |id: &str, by: &str, groups: &[Option<u32>], names: &[String], legend, more: &str| {
            figures.push(Figure {
                id: format!("tsne-{name}-{id}"),
                title: format!("{}{by}", if name == "h" { "Backbone h" } else { "Feature heads y" }),
                caption: format!("{how}{more}{}", scatter::colours_note(names.len())),
                svg: scatter::draw(&at, groups, names, legend),
                points: Some(name),
            });
        };
        match clusters {
            Some(clusters) => {
                let groups: Vec<Option<u32>> = maps.rows.iter().map(|&row| Some(clusters.labels[row])).collect();
                let names: Vec<String> = (0..clusters.k).map(|c| c.to_string()).collect();
                let more = format!(" Colours and numbers: clusters of k-means on {name}, k = {}.", clusters.k);
                figure("cluster", ", by cluster", &groups, &names, Legend::Hidden, &more);
            }
            None => figure("plain", "", &vec![Some(0); images.len()], &[String::new()], Legend::Hidden, ""),
        }
        if !dataset.classes().is_empty() {
            let groups: Vec<Option<u32>> = images.iter().map(|&i| dataset.label(i)).collect();
            let unknown = if groups.contains(&None) { " Grey: without a class." } else { "" };
            figure(
                "class",
                ", by class",
                &groups,
                dataset.classes(),
                Legend::Shown,
                &format!(" Colours: classes.{unknown}"),
            );
        }
        let rounded: Vec<[f64; 2]> = at.iter().map(|p| p.map(|v| (v * 10.0).round() / 10.0)).collect();
        places.insert(name.to_owned(), json!(rounded));
    }
    let note = |row: usize, image: usize| {
        let cluster = findings.clusters.as_ref().map(|c| format!("cluster {}", c.labels[row]));
        let class = Some(class_of(dataset, image)).filter(|class| !class.is_empty());
        [class, cluster].into_iter().flatten().collect::<Vec<_>>().join(", ")
    };
    let points = json!({
        "columns": thumbs.columns(),
        "image": images,
        "tile": images.iter().map(|&i| thumbs.tile(i)).collect::<Vec<_>>(),
        "name": images.iter().map(|&i| dataset.name(i)).collect::<Vec<_>>(),
        "note": maps.rows.iter().zip(&images).map(|(&row, &i)| note(row, i)).collect::<Vec<_>>(),
        "maps": places,
    });
    let drawn = if images.len() < dataset.len() {
        format!("{} of {}, drawn at random", grouped(images.len()), count(dataset.len(), "image"))
    } else {
        format!("all {}", count(images.len(), "image"))
    };
    let text = html! { p { "Point at a dot, or tap it, to see its image. Shown: " (drawn) "." } };
    Some((Section::new("maps", "Maps", vec![Part::Html(text), Part::Figures(figures)]), points))
}
