//! What the network takes to be alike: random images, each with its nearest neighbours.

use maud::html;

use super::clusters::contact_sheet;
use super::overview::class_of;
use crate::data::Dataset;
use crate::report::findings::Findings;
use crate::report::page::{Part, Section, count};
use crate::report::thumbs::Thumbs;

/// The section; `None` for too few images.
pub fn section(findings: &Findings, dataset: &Dataset, thumbs: &Thumbs) -> Option<Section> {
    if findings.neighbours.is_empty() {
        return None;
    }
    let shown = html! {
        p.note {
            "First in each row an image drawn at random, then its nearest neighbours among "
            (count(findings.sample.len(), "image")) " by the cosine of the backbone's features h, the nearest first."
        }
        @for row in &findings.neighbours {
            @let query = findings.sample[row.image];
            div.row data-query=(query) {
                span.query { (thumbs.html(query, &class_of(dataset, query))) }
                @for neighbour in &row.nearest {
                    @let i = findings.sample[neighbour.image];
                    (thumbs.html(i, format!("{} cosine {:.3}", class_of(dataset, i), neighbour.cosine).trim()))
                }
            }
        }
    };
    let rows: Vec<(String, Vec<usize>)> = findings
        .neighbours
        .iter()
        .map(|row| {
            let all = std::iter::once(row.image).chain(row.nearest.iter().map(|neighbour| neighbour.image));
            (String::new(), all.map(|row| findings.sample[row]).collect())
        })
        .collect();
    let figure = contact_sheet("neighbours".into(), "Nearest neighbours".into(), &rows, thumbs);
    Some(Section::new("neighbours", "Nearest neighbours", vec![Part::Pictures { shown, figures: vec![figure] }]))
}
