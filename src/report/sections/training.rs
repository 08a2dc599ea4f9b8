//! How training went: losses, learning rate, gradient, speed, and signs of collapse.

use maud::html;

use crate::log::CollapseRecord;
use crate::report::chart::{Axis, Chart, Line, Look, Scale, joined_points, short};
use crate::report::figure::Figure;
use crate::report::history::Entry;
use crate::report::page::{Part, Section, count};
use crate::report::run_files::RunFiles;

/// Incidents that a page tells of one by one.
const INCIDENTS: usize = 20;

/// A curve over the steps.
struct Curve<'a> {
    id: &'static str,
    title: &'static str,
    unit: &'static str,
    key: &'a str,
    scale: Scale,
    include: Vec<f64>,
    about: String,
}

/// The section.
pub fn section(run: &RunFiles) -> Section {
    let config = &run.config;
    let clip = match config.clip_norm {
        0.0 => "Global norm over all weights; nothing is clipped.".to_owned(),
        clip => {
            format!("Global norm over all weights before clipping at {clip} (dashed), on a scale of equal factors.")
        }
    };
    let curve = |id, title, unit, key, about: &str| {
        let about = about.to_owned();
        Curve { id, title, unit, key, scale: Scale::Linear, include: Vec::new(), about }
    };
    let curves = [
        curve("loss", "Loss", "loss", "loss", "Instance loss + feature loss - alpha x entropy: what is minimised."),
        curve("loss-instance", "Instance loss", "nats", "loss_instance", "NT-Xent over the two views' projections z."),
        curve(
            "loss-feature",
            "Feature loss",
            "nats",
            "loss_feature",
            "NT-Xent over the heads: each against the others.",
        ),
        curve("entropy", "Entropy of the heads", "bits", "entropy", "Mean binary entropy of the heads, at most 1."),
        Curve {
            include: vec![0.0],
            ..curve("learning-rate", "Learning rate", "learning rate", "learning_rate", "Adam's, by the schedule.")
        },
        Curve { scale: Scale::Log, ..curve("gradient", "Norm of the gradient", "norm", "grad_norm", &clip) },
    ];
    let mut figures: Vec<Figure> = curves.iter().filter_map(|curve| draw(run, curve)).collect();
    figures.extend(throughput(run));
    figures.extend(health(run));
    let mut warnings = collapses(&run.history.health);
    warnings.extend(incidents(&run.history.entries));
    let text = html! {
        @if figures.is_empty() { p { "No step was logged." } }
        @for warning in warnings { p.warning { (warning) } }
    };
    Section::new("training", "Training", vec![Part::Html(text), Part::Figures(figures)])
}

/// A sentence for each time the representation had collapsed, from when to when.
fn collapses(health: &[CollapseRecord]) -> Vec<String> {
    let episodes = health.chunk_by(|a, b| a.health.collapsed.is_empty() == b.health.collapsed.is_empty());
    let tell = |episode: &[CollapseRecord]| {
        let (first, last) = (episode.first()?, episode.last()?);
        let when = match (first.epoch, last.epoch) {
            (first, last) if first == last => format!("after epoch {first}"),
            (first, last) => format!("from epoch {first} to epoch {last}"),
        };
        (!last.health.collapsed.is_empty()).then(|| format!("Collapse {when}: {}", last.health))
    };
    episodes.filter_map(tell).collect()
}

/// What the log holds besides measurements, at most [`INCIDENTS`] of it.
fn incidents(entries: &[Entry]) -> Vec<String> {
    let all: Vec<&Entry> =
        entries.iter().filter(|e| !["step", "epoch", "eval", "collapse"].contains(&&*e.kind)).collect();
    let mut said: Vec<String> = all.iter().take(INCIDENTS).map(|entry| describe(entry)).collect();
    if let Some(more @ 1..) = all.len().checked_sub(INCIDENTS) {
        said.push(format!("and {more} more in metrics.jsonl"));
    }
    said
}

/// A line of the log that is no measurement, in words.
fn describe(entry: &Entry) -> String {
    let said: Vec<String> = entry.words.iter().map(|(_, text)| text.clone()).collect();
    let numbers = entry.values.iter().filter_map(|(name, value)| Some(format!("{name} {}", short((*value)?))));
    let all: Vec<String> = said.into_iter().chain(numbers).collect();
    format!("{}, epoch {}, step {}: {}", entry.kind, entry.epoch, entry.step, all.join("; "))
}

fn steps_axis() -> Axis {
    Axis { label: "step".into(), whole: true, include: vec![0.0], ..Axis::default() }
}

fn draw(run: &RunFiles, curve: &Curve) -> Option<Figure> {
    let points = run.history.series("step", curve.key);
    let (steps, missing) = (points.len(), points.iter().filter(|p| !p.1.is_finite()).count());
    let last = points.last()?.0;
    let mut lines = vec![Line { name: curve.title.to_lowercase(), points, look: Look::Series(0) }];
    let clip = run.config.clip_norm;
    if curve.key == "grad_norm" && clip > 0.0 {
        let points = vec![(0.0, clip), (last, clip)];
        lines.push(Line { name: "clipped at".into(), points, look: Look::Reference(0) });
    }
    let chart = Chart {
        x: steps_axis(),
        y: Axis { label: curve.unit.into(), scale: curve.scale, include: curve.include.clone(), ..Axis::default() },
        lines,
    };
    if chart.is_empty() {
        return None;
    }
    let gaps = match missing {
        0 => String::new(),
        n => format!(" {} not finite, left out.", count(n, "value")),
    };
    let caption = format!("{}{}{gaps}", curve.about, joined_note(steps));
    Some(Figure { id: curve.id.into(), title: curve.title.into(), caption, svg: chart.draw(), points: None })
}

/// What a caption says of points that were joined.
fn joined_note(points: usize) -> String {
    match joined_points(points) {
        1 => String::new(),
        n => format!(" Line: means of {n} steps; band: the least and the greatest of them."),
    }
}

fn throughput(run: &RunFiles) -> Option<Figure> {
    let timing = &run.history.timing;
    let mut speeds: Vec<f64> = timing.iter().map(|t| t.views_per_s).filter(|v| v.is_finite()).collect();
    speeds.sort_by(f64::total_cmp);
    let median = *speeds.get(speeds.len() / 2)?;
    let points = timing.iter().map(|t| (t.step as f64, t.views_per_s)).collect();
    let chart = Chart {
        x: steps_axis(),
        y: Axis { label: "views/s".into(), include: vec![0.0], ..Axis::default() },
        lines: vec![Line { name: "throughput".into(), points, look: Look::Series(2) }],
    };
    Some(Figure {
        id: "throughput".into(),
        title: "Throughput".into(),
        caption: format!(
            "Images a second, each of the two views counted, loading included; median {}.{}",
            short(median),
            joined_note(timing.len())
        ),
        svg: chart.draw(),
        points: None,
    })
}

/// Figures that need no labels, measured on a sample of images after each epoch: a single one is no curve.
fn health(run: &RunFiles) -> Vec<Figure> {
    let measures = [
        (
            "effective-rank",
            "Effective rank of h",
            "directions",
            "spread.effective_rank",
            "How many directions the backbone's features use (participation ratio of their covariance); near 1: collapsed.",
        ),
        (
            "head-deviation",
            "Activity of the heads",
            "deviation",
            "heads.deviation",
            "Mean over the heads of their standard deviation over the images; 0: every head says the same of every image.",
        ),
    ];
    let figure = |(id, title, unit, key, about): (&str, &str, &str, &str, &str)| {
        let points = run.history.by_epoch("collapse", key);
        let chart = Chart {
            x: Axis { label: "epoch".into(), whole: true, include: vec![0.0], ..Axis::default() },
            y: Axis { label: unit.into(), include: vec![0.0], ..Axis::default() },
            lines: vec![Line { name: title.into(), points, look: Look::Series(3) }],
        };
        let several = chart.lines[0].points.len() > 1 && !chart.is_empty();
        several.then(|| Figure {
            id: id.into(),
            title: title.into(),
            caption: about.into(),
            svg: chart.draw(),
            points: None,
        })
    };
    measures.into_iter().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::collapse::{Collapse, HeadActivity, Health, Spread};

    #[test]
    fn a_healthy_run_warns_of_nothing_and_a_collapse_is_told_once() {
        let record = |epoch, collapsed: &[Collapse]| CollapseRecord {
            epoch,
            step: 10 * epoch,
            health: Health {
                images: 100,
                spread: Spread { variance: 1.0, effective_rank: 1.5 },
                variance_share: 0.5,
                heads: HeadActivity { mean: 0.5, deviation: 0.1, constant_heads: 7 },
                collapsed: collapsed.to_vec(),
            },
        };
        let rank = [Collapse::Rank];
        assert_eq!(collapses(&[]), [""; 0]);
        assert_eq!(collapses(&[record(1, &[]), record(2, &[])]), [""; 0]);
        let told = collapses(&[record(1, &[]), record(2, &rank), record(3, &rank), record(4, &[]), record(5, &rank)]);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("Collapse from epoch 2 to epoch 3: the features of 100 images lie on a line"));
        assert!(told[1].starts_with("Collapse after epoch 5: "));

        let entry = |kind: &str| Entry { kind: kind.into(), step: 3, epoch: 1, values: vec![], words: vec![] };
        let mut entries: Vec<Entry> = ["step", "epoch", "eval", "collapse"].map(entry).into();
        assert_eq!(incidents(&entries), [""; 0]);
        entries.extend((0..INCIDENTS + 2).map(|_| entry("nonfinite")));
        let told = incidents(&entries);
        assert_eq!((told.len(), &*told[INCIDENTS]), (INCIDENTS + 1, "and 2 more in metrics.jsonl"));
    }
}
