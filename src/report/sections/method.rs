//! How the report was made.

use maud::html;

use crate::data::Dataset;
use crate::report::findings::{Findings, MAPPED, SAMPLE};
use crate::report::page::{Part, Section, count, grouped};
use crate::report::run_files::RunFiles;

/// The section.
pub fn section(run: &RunFiles, looked_at: Option<(&Findings, &Dataset)>) -> Section {
    let html = html! {
        ul {
            li { "Curves: every line of metrics.jsonl and timing.jsonl in " code { (run.folder.display()) } "." }
            @if let Some((findings, dataset)) = looked_at {
                li {
                    "Network: " code { (findings.origin.network) } ", in inference mode: images squashed to its input, running statistics of \
                     batch norm."
                }
                li {
                    "Clusters, neighbours and heads: " (count(findings.sample.len(), "image")) " of " (grouped(dataset.len()))
                    " (at most " (grouped(SAMPLE)) ", drawn by seed " (run.config.eval.seed) "). Maps: at most " (grouped(MAPPED)) " of them."
                }
                li { "Scores: k-means on all images, as in results.json." }
            }
            li { "The same run and data give the same report. disentangle " (env!("CARGO_PKG_VERSION")) "." }
        }
    };
    Section::new("method", "How this was made", vec![Part::Html(html)])
}
