//! Several runs side by side: what they differ in, how they ended, and their curves over each other.

use maud::html;

use super::chart::{Axis, Chart, Line, Look};
use super::figure::Figure;
use super::page::{Page, Part, Section, count, table};
use super::run_files::RunFiles;
use crate::config::Difference;

/// What runs are compared in: title, kind of log entry and name of the value, in the order of the table.
const MEASURES: [(&str, &str, &str, &str); 8] = [
    ("nmi-backbone", "NMI, backbone", "eval", "backbone.nmi"),
    ("ari-backbone", "ARI, backbone", "eval", "backbone.ari"),
    ("acc-backbone", "ACC, backbone", "eval", "backbone.acc"),
    ("nmi-heads", "NMI, heads", "eval", "feature.nmi"),
    ("ari-heads", "ARI, heads", "eval", "feature.ari"),
    ("acc-heads", "ACC, heads", "eval", "feature.acc"),
    ("loss", "loss", "epoch", "loss"),
    ("effective-rank", "effective rank", "eval", "spread.effective_rank"),
];

/// Runs that differ in their seed alone.
pub struct Group {
    /// Its runs, as indices, in the order they were named.
    pub runs: Vec<usize>,
    /// What it is called.
    pub name: String,
}

/// Mean and spread of a value over the runs of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Runs that have it.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (division by n - 1); `None` for a single one.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of `values`; `None` without any.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        (n > 0).then(|| Spread { n, mean, deviation: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.deviation {
            Some(deviation) => write!(f, "{:.3} ± {deviation:.3}", self.mean),
            None => write!(f, "{:.3}", self.mean),
        }
    }
}

/// A comparison.
pub struct Comparison<'a> {
    runs: &'a [RunFiles],
    /// The groups, in the order of their first runs.
    pub groups: Vec<Group>,
    /// Keys that groups differ in, with each group's value.
    pub differences: Vec<(String, Vec<String>)>,
    /// Measures that some run has, with each group's spread.
    pub results: Vec<(&'static str, Vec<Option<Spread>>)>,
}

/// Whether a difference is one of what was computed: where a run lies and how often it said something is not.
fn matters(difference: &Difference) -> bool {
    let key = difference.key.as_str();
    key != "seed" && (difference.changes_training() || (key.starts_with("eval.") && key != "eval.every"))
}

/// The last finite value of a measure in a run.
fn last(run: &RunFiles, kind: &str, name: &str) -> Option<f64> {
    run.history.series(kind, name).into_iter().map(|(_, value)| value).rfind(|value| value.is_finite())
}

impl<'a> Comparison<'a> {
    /// Compares `runs`.
    pub fn new(runs: &'a [RunFiles]) -> Comparison<'a> {
        let mut groups: Vec<Group> = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            let same = |group: &&mut Group| !runs[group.runs[0]].config.diff(&run.config).iter().any(matters);
            match groups.iter_mut().find(same) {
                Some(group) => group.runs.push(i),
                None => groups.push(Group { runs: vec![i], name: run.name() }),
            }
        }
        for group in groups.iter_mut().filter(|group| group.runs.len() > 1) {
            group.name = format!("{} and {} more", group.name, group.runs.len() - 1);
        }
        let config = |group: &Group| &runs[group.runs[0]].config;
        let mut differences: Vec<(String, Vec<String>)> = Vec::new();
        for other in groups.iter().skip(1) {
            for difference in config(&groups[0]).diff(config(other)).into_iter().filter(matters) {
                if differences.iter().all(|(key, _)| *key != difference.key) {
                    differences.push((difference.key, Vec::new()));
                }
            }
        }
        for (key, values) in &mut differences {
            values.extend(groups.iter().map(|group| config(group).value(key)));
        }
        let spread = |group: &Group, kind, name| {
            let values: Vec<f64> = group.runs.iter().filter_map(|&i| last(&runs[i], kind, name)).collect();
            Spread::of(&values)
        };
        let results = MEASURES
            .iter()
            .map(|(_, title, kind, name)| (*title, groups.iter().map(|group| spread(group, kind, name)).collect()))
            .filter(|(_, spreads): &(_, Vec<Option<Spread>>)| spreads.iter().any(Option::is_some))
            .collect();
        Comparison { runs, groups, differences, results }
    }

    fn seeds(&self, group: &Group) -> String {
        group.runs.iter().map(|&i| self.runs[i].config.seed.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The comparison for a terminal: a line a group.
    pub fn text(&self) -> String {
        let name_width = self.groups.iter().map(|group| group.name.chars().count()).max().unwrap_or(0).max(4);
        let mut text = format!("{:name_width$}  {:>4}", "runs", "n");
        for (title, _) in &self.results {
            text += &format!("  {title:>15}");
        }
        for (i, group) in self.groups.iter().enumerate() {
            text += &format!("\n{:name_width$}  {:>4}", group.name, group.runs.len());
            for (_, spreads) in &self.results {
                text += &format!("  {:>15}", spreads[i].map_or("-".into(), |spread| spread.to_string()));
            }
        }
        for (key, values) in &self.differences {
            text += &format!("\n{key}: {}", values.join(" | "));
        }
        text
    }

    /// The comparison as a page.
    pub fn page(&self) -> Page {
        let mut sections = vec![self.summary()];
        let figures: Vec<Figure> =
            MEASURES.iter().filter_map(|(id, title, kind, name)| self.curves(id, title, kind, name)).collect();
        if !figures.is_empty() {
            sections.push(Section::new("curves", "Curves", vec![Part::Figures(figures)]));
        }
        Page {
            title: format!("Comparison of {}", count(self.runs.len(), "run")),
            subtitle: format!(
                "In {}: runs that differ in their seed alone are one.",
                count(self.groups.len(), "group")
            ),
            sections,
            style: String::new(),
            points: None,
        }
    }

    fn summary(&self) -> Section {
        let names: Vec<&str> = self.groups.iter().map(|group| group.name.as_str()).collect();
        let head: Vec<&str> = std::iter::once("").chain(names).collect();
        let mut rows = vec![
            ("runs (n)", self.groups.iter().map(|group| group.runs.len().to_string()).collect::<Vec<_>>()),
            ("seeds", self.groups.iter().map(|group| self.seeds(group)).collect()),
        ];
        for (title, spreads) in &self.results {
            let cell = |spread: &Option<Spread>| match spread {
                Some(spread) => spread.to_string(),
                None => "-".into(),
            };
            rows.push((title, spreads.iter().map(cell).collect()));
        }
        let cells = |rows: &[(&str, Vec<String>)]| {
            let row = |(name, cells): &(&str, Vec<String>)| {
                std::iter::once(html! { (name) }).chain(cells.iter().map(|cell| html! { (cell) })).collect::<Vec<_>>()
            };
            table(&head, &rows.iter().map(row).collect::<Vec<_>>())
        };
        let differences: Vec<(&str, Vec<String>)> =
            self.differences.iter().map(|(key, values)| (key.as_str(), values.clone())).collect();
        let runs: Vec<_> = self
            .runs
            .iter()
            .map(|run| vec![html! { (run.folder.display()) }, html! { (run.config.seed) }, html! { (run.progress()) }])
            .collect();
        let body = html! {
            (cells(&rows))
            p.note {
                "Last values in the logs. Over several seeds: mean ± standard deviation (division by n - 1)."
            }
            h3 { "What they differ in" }
            @if differences.is_empty() { p { "In nothing but their seeds." } } @else { (cells(&differences)) }
            h3 { "The runs" }
            (table(&["folder", "seed", "progress"], &runs))
        };
        Section::new("summary", "Summary", vec![Part::Html(body)])
    }

    /// A measure over the epochs, a line a run in the colour of its group; `None` if no run has it.
    fn curves(&self, id: &str, title: &str, kind: &str, name: &str) -> Option<Figure> {
        let mut lines = Vec::new();
        for (colour, group) in self.groups.iter().enumerate() {
            for (place, &run) in group.runs.iter().enumerate() {
                let points = self.runs[run].history.by_epoch(kind, name);
                // One entry of the legend a group.
                let name = if place == 0 { group.name.clone() } else { String::new() };
                lines.push(Line { name, points, look: Look::Series(colour) });
            }
        }
        let chart = Chart {
            x: Axis { label: "epoch".into(), whole: true, include: vec![0.0], ..Axis::default() },
            y: Axis { label: title.into(), ..Axis::default() },
            lines,
        };
        (!chart.is_empty()).then(|| Figure {
            id: format!("curve-{id}"),
            title: title.into(),
            caption: "A line a run, a colour a group.".into(),
            svg: chart.draw(),
            points: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_by_hand() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[0.5]), Some(Spread { n: 1, mean: 0.5, deviation: None }));
        let spread = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.n, spread.mean, spread.deviation), (3, 2.0, Some(1.0)));
        assert_eq!(spread.to_string(), "2.000 ± 1.000");
    }
}
