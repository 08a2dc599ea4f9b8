//! Line charts: axes with units, lines, lines to compare with, and how far single steps lie around a mean.

use maud::{Markup, html};

use super::figure::{N, Svg};
use super::theme;

/// Units across: what a phone is wide, so that letters keep their size there.
const WIDTH: f64 = 420.0;
const PLOT_HEIGHT: f64 = 190.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 40.0;
const LEGEND_LINE: f64 = 16.0;
/// Units that a letter of a legend takes on average.
const LETTER: f64 = 6.4;
/// Points that a line is drawn with at most; more are joined.
const POINTS: usize = 300;
/// Ticks an axis has, about.
const TICKS: f64 = 5.0;

/// How an axis counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal steps.
    #[default]
    Linear,
    /// Equal factors; values at or below 0 are left out.
    Log,
}

/// An axis.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// What it counts, with the unit.
    pub label: String,
    /// How.
    pub scale: Scale,
    /// Whether it counts things: no ticks between whole numbers.
    pub whole: bool,
    /// Values that are in it whatever the lines do.
    pub include: Vec<f64>,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// In a colour of the theme.
    Series(usize),
    /// Dashed, in the colour of text: something to compare with.
    Reference(usize),
}

/// A line through points, in the order of x. Where y is not finite it is interrupted.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend; without one it is not in it.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub look: Look,
}

/// A chart.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Line>,
}

/// Joined points: mean, least and greatest of those in it.
struct Joined {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

/// The points of `line`, neighbours joined where there are more than [`POINTS`]; parts are separated where y is not finite.
fn joined(line: &Line) -> Vec<Vec<Joined>> {
    let size = line.points.len().div_ceil(POINTS).max(1);
    let mut parts = vec![Vec::new()];
    for group in line.points.chunks(size) {
        let ys: Vec<f64> = group.iter().map(|p| p.1).filter(|y| y.is_finite()).collect();
        if ys.is_empty() {
            parts.push(Vec::new());
            continue;
        }
        let joined = Joined {
            x: group.iter().map(|p| p.0).sum::<f64>() / group.len() as f64,
            mean: ys.iter().sum::<f64>() / ys.len() as f64,
            low: ys.iter().copied().fold(f64::INFINITY, f64::min),
            high: ys.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        parts.last_mut().expect("never empty").push(joined);
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// How many neighbouring points of a line of `points` are joined in a drawing: what a caption has to say.
pub fn joined_points(points: usize) -> usize {
    points.div_ceil(POINTS).max(1)
}

/// The range of an axis and its ticks, on its scale.
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    step: f64,
}

/// Where an axis ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// At ticks.
    Ticks,
    /// At the least and the greatest value.
    Values,
}

impl Ruler {
    /// A ruler that covers all finite `values`.
    fn new(axis: &Axis, ends: Ends, values: impl Iterator<Item = f64>) -> Ruler {
        let scale = axis.scale;
        let values = values.chain(axis.include.iter().copied());
        let usable = values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0));
        let on_scale = usable.map(|v| if scale == Scale::Log { v.log10() } else { v });
        let (mut low, mut high) = on_scale.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        // A line that does not move lies in the middle.
        let least = if scale == Scale::Log { 0.1 } else { (high.abs() * 0.02).max(1e-12) };
        if high - low < least {
            (low, high) = (low - least / 2.0, high + least / 2.0);
        }
        let (mut ticks, step) = match scale {
            Scale::Linear => linear_ticks(low, high, axis.whole),
            Scale::Log => (log_ticks(low, high), 1.0),
        };
        match ends {
            Ends::Ticks => (low, high) = (ticks[0], ticks[ticks.len() - 1]),
            Ends::Values => ticks.retain(|tick| (low - step * 1e-9..=high + step * 1e-9).contains(tick)),
        }
        Ruler { scale, low, high, ticks, step }
    }

    /// Where `value` lies, 0 to 1; `None` if it has no place.
    fn place(&self, value: f64) -> Option<f64> {
        let value = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        };
        value.is_finite().then(|| (value - self.low) / (self.high - self.low))
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        let label = move |tick: f64| match self.scale {
            Scale::Linear => number(tick, self.step),
            Scale::Log => short(10f64.powf(tick)),
        };
        self.ticks.iter().map(move |&tick| ((tick - self.low) / (self.high - self.low), label(tick)))
    }
}

/// Round numbers from at most `low` to at least `high`, and what lies between them.
fn linear_ticks(low: f64, high: f64, whole: bool) -> (Vec<f64>, f64) {
    let step = step((high - low) / TICKS).max(if whole { 1.0 } else { 0.0 });
    let first = (low / step).floor() as i64;
    let last = (high / step).ceil() as i64;
    ((first..=last).map(|i| i as f64 * step).collect(), step)
}

/// Logarithms of round numbers from at most `low` to at least `high`: powers of ten, in short ranges also 2 and 5 times
/// these.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let within: &[f64] = if high - low < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = (low.floor() as i32 - 1)..=(high.ceil() as i32 + 1);
    let all: Vec<f64> = powers.flat_map(|e| within.iter().map(move |m| m.log10() + f64::from(e))).collect();
    let first = all.iter().rposition(|&t| t <= low + 1e-9).unwrap_or(0);
    let last = all.iter().position(|&t| t >= high - 1e-9).unwrap_or(all.len() - 1);
    // Fewer where there are very many decades, both ends among them.
    let stride = (last - first).div_ceil(8).max(1);
    let last = first + (last - first).div_ceil(stride) * stride;
    (first..=last).step_by(stride).map(|i| all.get(i).copied().unwrap_or(all[0] + i as f64)).collect()
}

/// 1, 2 or 5 times a power of ten, about `rough`.
fn step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= rough * 0.999).unwrap_or(10.0 * power)
}

/// `value`, a multiple of `step`, with the digits that the step asks for.
fn number(value: f64, step: f64) -> String {
    let largest = value.abs().max(step);
    if largest >= 1e5 {
        return short(value);
    }
    let digits = (-step.log10().floor()).max(0.0) as usize;
    if digits > 4 { format!("{value:.1e}") } else { format!("{:.digits$}", value + 0.0) }
}

/// A number with two or three digits: `0.012`, `3.4`, `1,200`, `25k`, `3.1M`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    match size {
        _ if !value.is_finite() => "-".into(),
        0.0 => "0".into(),
        s if s >= 1e6 => trim(format!("{:.1}", value / 1e6)) + "M",
        s if s >= 1e4 => trim(format!("{:.1}", value / 1e3)) + "k",
        s if s >= 100.0 => format!("{value:.0}"),
        s if s >= 1.0 => trim(format!("{value:.2}")),
        s if s >= 1e-3 => trim(format!("{value:.4}")),
        _ => format!("{value:.1e}"),
    }
}

impl Chart {
    /// True if no line has a point that can be drawn.
    pub fn is_empty(&self) -> bool {
        !self.lines.iter().any(|line| line.points.iter().any(|p| p.1.is_finite()))
    }

    /// The chart, drawn.
    pub fn draw(&self) -> Svg {
        let parts: Vec<(&Line, Vec<Vec<Joined>>)> = self.lines.iter().map(|line| (line, joined(line))).collect();
        let xs = self.lines.iter().flat_map(|line| line.points.iter().map(|p| p.0));
        let x = Ruler::new(&self.x, Ends::Values, xs);
        let bands = parts.iter().flat_map(|(_, parts)| parts.iter().flatten().flat_map(|j| [j.low, j.high]));
        let y = Ruler::new(&self.y, Ends::Ticks, bands);
        let (legend, top) = self.legend();
        let width = WIDTH - LEFT - RIGHT;
        let px = |v: f64| x.place(v).map(|t| LEFT + t * width);
        let py = |v: f64| y.place(v).map(|t| top + (1.0 - t) * PLOT_HEIGHT);
        let bottom = top + PLOT_HEIGHT;
        let body = html! {
            (legend)
            @for (at, label) in y.ticks() {
                @let v = bottom - at * PLOT_HEIGHT;
                path class="gr" d={ "M" (N(LEFT)) " " (N(v)) "h" (N(width)) } {}
                text class="tx tf" x=(N(LEFT - 6.0)) y=(N(v + 4.0)) text-anchor="end" { (label) }
            }
            @for (at, label) in x.ticks() {
                @let v = LEFT + at * width;
                path class="ax" d={ "M" (N(v)) " " (N(bottom)) "v4" } {}
                text class="tx tf" x=(N(v)) y=(N(bottom + 16.0)) text-anchor="middle" { (label) }
            }
            path class="ax" d={ "M" (N(LEFT)) " " (N(bottom)) "h" (N(width)) } {}
            text class="tx" x=(N(LEFT + width / 2.0)) y=(N(bottom + 33.0)) text-anchor="middle" { (self.x.label) }
            text class="tx" text-anchor="middle" transform={ "translate(11 " (N(top + PLOT_HEIGHT / 2.0)) ") rotate(-90)" } {
                (self.y.label)
            }
            @for (line, parts) in &parts { @for part in parts { (draw_part(line.look, part, &px, &py)) } }
        };
        Svg { width: WIDTH, height: bottom + BOTTOM, body }
    }

    /// The names of the lines, if there is more than one, and where the plot begins under them.
    fn legend(&self) -> (Markup, f64) {
        if self.lines.len() < 2 {
            return (html! {}, 8.0);
        }
        let (mut column, mut row) = (LEFT, 0.0);
        let mut entries = Vec::new();
        for line in self.lines.iter().filter(|line| !line.name.is_empty()) {
            let name: String = line.name.chars().take(48).collect();
            let size = 30.0 + LETTER * name.chars().count() as f64;
            if column > LEFT && column + size > WIDTH {
                (column, row) = (LEFT, row + 1.0);
            }
            entries.push((line.look, name, column, 10.0 + row * LEGEND_LINE));
            column += size;
        }
        let drawn = html! {
            @for (look, name, x, y) in entries {
                (stroke(look, &format!("M{} {}h16", N(x), N(y - 4.0))))
                text class="tx" x=(N(x + 21.0)) y=(N(y)) { (name) }
            }
        };
        (drawn, 10.0 + (row + 1.0) * LEGEND_LINE)
    }
}

/// A line in its look.
fn stroke(look: Look, d: &str) -> Markup {
    match look {
        Look::Series(i) => html! { path class={ "ln s" (theme::colour(i)) } d=(d) {} },
        Look::Reference(i) => {
            let dash = ["5 4", "1.5 3", "9 3 2 3", "2 6"][i % 4];
            html! { path class="rf" stroke-dasharray=(dash) d=(d) {} }
        }
    }
}

/// A part of a line: the band of the points that were joined, the line through their means, a dot where it is alone.
fn draw_part(look: Look, part: &[Joined], px: &dyn Fn(f64) -> Option<f64>, py: &dyn Fn(f64) -> Option<f64>) -> Markup {
    let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
        let mut d = String::new();
        for (x, y) in points {
            let (Some(x), Some(y)) = (px(x), py(y)) else { continue };
            d += &format!("{}{} {}", if d.is_empty() { "M" } else { "L" }, N(x), N(y));
        }
        d
    };
    let line = path(&mut part.iter().map(|j| (j.x, j.mean)));
    let band = part
        .iter()
        .any(|j| j.high > j.low)
        .then(|| path(&mut part.iter().map(|j| (j.x, j.high)).chain(part.iter().rev().map(|j| (j.x, j.low)))) + "Z");
    let colour = if let Look::Series(i) = look { theme::colour(i) } else { 7 };
    let few = matches!(look, Look::Series(_)) && part.len() <= 30;
    html! {
        @if let Some(band) = band { path class={ "f" (colour) } opacity="0.2" d=(band) {} }
        (stroke(look, &line))
        @if few {
            @for j in part {
                @if let (Some(x), Some(y)) = (px(j.x), py(j.mean)) {
                    circle class={ "f" (colour) } cx=(N(x)) cy=(N(y)) r="2.6" {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_count_in_round_numbers() {
        let labels = |scale, values: &[f64]| {
            let axis = Axis { scale, ..Axis::default() };
            Ruler::new(&axis, Ends::Ticks, values.iter().copied()).ticks().map(|(_, label)| label).collect::<Vec<_>>()
        };
        assert_eq!(labels(Scale::Linear, &[0.03, 0.97, f64::NAN]), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(Scale::Linear, &[1.0, 1200.0]), ["0", "500", "1000", "1500"]);
        assert_eq!(labels(Scale::Log, &[0.01, 90.0, -1.0]), ["0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(Scale::Log, &[1.0, 5.6]), ["1", "2", "5", "10"]);
        assert!((2..=10).contains(&labels(Scale::Log, &[1e-30, 1e30]).len()));
        assert_eq!(labels(Scale::Linear, &[]).len(), 6);
        let epochs = Axis { whole: true, include: vec![0.0, 1.0], ..Axis::default() };
        let ruler = Ruler::new(&epochs, Ends::Values, [1.0].into_iter());
        assert_eq!(ruler.ticks().collect::<Vec<_>>(), [(0.0, "0".into()), (1.0, "1".into())]);
        let steps = Ruler::new(&Axis { whole: true, ..Axis::default() }, Ends::Values, [0.0, 31.0].into_iter());
        assert_eq!((steps.high, steps.ticks.len()), (31.0, 4));
        assert!(labels(Scale::Linear, &[5.0; 3]).len() >= 2, "a constant has an axis");
        assert_eq!(
            [0.0, 0.0123, 3.456, 1234.0, 25_000.0, 3.14e6, 2e-5].map(short),
            ["0", "0.0123", "3.46", "1234", "25k", "3.1M", "2.0e-5"]
        );
    }

    #[test]
    fn many_points_are_joined_and_gaps_stay() {
        let points: Vec<(f64, f64)> =
            (0..3000).map(|i| (f64::from(i), if i / 10 == 150 { f64::NAN } else { f64::from(i % 10) })).collect();
        let line = Line { name: "a".into(), points, look: Look::Series(0) };
        let parts = joined(&line);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [150, 149]);
        let first = &parts[0][0];
        assert_eq!((first.x, first.mean, first.low, first.high), (4.5, 4.5, 0.0, 9.0));
        assert_eq!((joined_points(300), joined_points(301), joined_points(0)), (1, 2, 1));
        let chart = Chart { lines: vec![line.clone(), Line { name: "<b>".into(), ..line }], ..Chart::default() };
        let drawn = chart.draw().body.into_string();
        assert!(drawn.contains("&lt;b&gt;") && !drawn.contains("NaN"), "{drawn}");
        assert!(Chart::default().is_empty() && !chart.is_empty());
    }
}
