//! k-means against the classes: at the end, over the epochs, beside what training has to beat and what the paper reports.

use maud::html;

use super::decimals;
use crate::eval::metrics::Scores;
use crate::report::chart::{Axis, Chart, Line, Look};
use crate::report::figure::Figure;
use crate::report::page::{Part, Section, count, table};
use crate::report::paper::Match;
use crate::report::run_files::RunFiles;

/// A row of the table.
struct Row {
    name: String,
    scores: Scores,
}

/// The section; `None` for a run that was never scored.
pub fn section(run: &RunFiles, paper: Option<&Match>) -> Option<Section> {
    let evaluation = run.evaluation.as_ref()?;
    evaluation.backbone?;
    let row = |name: &str, scores: Option<Scores>| scores.map(|scores| Row { name: name.into(), scores });
    let own = [
        row("raw pixels", evaluation.pixels.or(run.baselines.pixels)),
        row("untrained network", evaluation.untrained.or(run.baselines.untrained)),
        row("backbone h", evaluation.backbone),
        row("feature heads y", evaluation.feature),
    ];
    let mut rows: Vec<Row> = own.into_iter().flatten().collect();
    let mut note = String::new();
    match paper {
        Some(Match::Same(published)) => {
            let of = |what: &str, table: u32, [small, large]: &[Scores; 2]| {
                let name = |batch: u32| format!("paper: {what}, CD-{batch} (Table {table})");
                [Row { name: name(128), scores: *small }, Row { name: name(256), scores: *large }]
            };
            rows.push(Row { name: "paper: k-means on pixels (Table 2)".into(), scores: published.pixels });
            rows.extend(of("backbone", 2, &published.backbone));
            rows.extend(of("feature heads", 3, &published.feature));
            note = format!(
                " The paper's figures for {} are those of a ResNet-34 at 224 px after 1,000 epochs.",
                published.name
            );
        }
        Some(Match::Part(published)) => {
            note = format!(
                " The paper's figures for {} are for all its {} and are not shown beside these.",
                published.name,
                count(published.images, "image")
            );
        }
        None => {}
    }
    let cells: Vec<_> = rows
        .iter()
        .map(|Row { name, scores: Scores { nmi, ari, acc } }| {
            let mut row = vec![html! { (name) }];
            row.extend([nmi, ari, acc].map(|score| html! { (decimals(*score)) }));
            row
        })
        .collect();
    let epoch = run.history.of("eval").last().map(|entry| format!(" after epoch {}", entry.epoch)).unwrap_or_default();
    let text = html! {
        (table(&["", "NMI", "ARI", "ACC"], &cells))
        p.note {
            "k-means with k = " (evaluation.clusters.unwrap_or(0)) " on all " (count(evaluation.images, "image")) (epoch)
            ", best of " (run.config.eval.restarts) " restarts, against the classes, which training never sees. NMI: normalised mutual \
             information, ARI: adjusted Rand index (0 is chance), ACC: accuracy under the best matching of clusters and classes."
            (note)
        }
    };
    let figures = ["nmi", "ari", "acc"].into_iter().map(|score| over_epochs(run, score, paper)).collect();
    Some(Section::new("scores", "Scores", vec![Part::Html(text), Part::Figures(figures)]))
}

fn get(scores: &Scores, name: &str) -> f64 {
    match name {
        "nmi" => scores.nmi,
        "ari" => scores.ari,
        _ => scores.acc,
    }
}

/// One score over the epochs.
fn over_epochs(run: &RunFiles, score: &str, paper: Option<&Match>) -> Figure {
    let evaluated = |of: &str| run.history.by_epoch("eval", &format!("{of}.{score}"));
    let mut lines = vec![
        Line { name: "backbone h".into(), points: evaluated("backbone"), look: Look::Series(0) },
        Line { name: "feature heads y".into(), points: evaluated("feature"), look: Look::Series(1) },
    ];
    let end = run.config.epochs as f64;
    let mut level = |name: &str, value: f64| {
        let look = Look::Reference(lines.len() - 2);
        lines.push(Line { name: name.into(), points: vec![(0.0, value), (end, value)], look });
    };
    if let Some(scores) = run.baselines.pixels {
        level("raw pixels", get(&scores, score));
    }
    if let Some(scores) = run.baselines.untrained {
        level("untrained", get(&scores, score));
    }
    let mut cited = String::new();
    if let Some(Match::Same(published)) = paper {
        level("paper, backbone, CD-256", get(&published.backbone[1], score));
        level("paper, heads, CD-256", get(&published.feature[1], score));
        cited = " The paper's: Tables 2 and 3.".into();
    }
    let name = score.to_uppercase();
    let chart = Chart {
        x: Axis { label: "epoch".into(), whole: true, include: vec![0.0, end], ..Axis::default() },
        y: Axis { label: name.clone(), include: vec![0.0], ..Axis::default() },
        lines,
    };
    let evaluations = run.history.of("eval").count();
    Figure {
        id: format!("score-{score}"),
        title: format!("{name} over the epochs"),
        caption: format!(
            "{} (eval.every = {}); dashed: what training has to beat.{cited}",
            count(evaluations, "evaluation"),
            run.config.eval.every
        ),
        svg: chart.draw(),
        points: None,
    }
}
