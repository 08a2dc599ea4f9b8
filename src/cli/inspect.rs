//! `inspect`: what a data set holds, before anything is trained on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use toml::Value;

use super::args::{classes, present, sources};
use super::data::{self, Progress};
use super::{print, use_threads};
use crate::config::{Config, Overrides};
use crate::data::{Dataset, ExclusionKind};
use crate::inspect::pictures::{Row, contact_sheet, views};
use crate::inspect::sheet::Sheet;
use crate::inspect::{Range, Report};
use crate::{Error, Result};

/// Classes, reasons and groups of duplicates that are named in the text; `--json` has all.
const NAMED: usize = 3;
/// Classes up to which each is listed with its images.
const CLASSES_LISTED: usize = 30;

/// Options of `inspect`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Every image is decoded once. The report goes to stdout; pictures replace files of the same name. The \
views are those of epoch 0 of a training run with the same options.\nExit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct InspectArgs {
    /// Images, as for `train --data`; several are joined.
    #[arg(value_name = "SRC", required = true)]
    pub data: Vec<String>,
    /// Take these classes only: names with commas between, @FILE with a name a line, or `imagenet-10`.
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1)]
    pub classes: Option<Vec<String>>,
    /// Print one JSON object on stdout, with all names, instead of the text.
    #[arg(long)]
    pub json: bool,
    /// Draw a contact sheet: a row a class, or evenly chosen images where there are no classes.
    #[arg(long, value_name = "PNG")]
    pub grid: Option<PathBuf>,
    /// Images in a row of the contact sheet.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub columns: u32,
    /// Rows of the contact sheet at most.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rows: u32,
    /// Draw some images beside the two augmented views of them that the network will see.
    #[arg(long, value_name = "PNG")]
    pub views: Option<PathBuf>,
    /// How many images.
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub samples: u32,
    /// Preset whose augmentation and size to use, as for `train`.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// TOML file of configuration keys, such as the config.toml of a run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Side of the views in pixels, 8 to 2048 [default: the preset's].
    #[arg(long, value_name = "PX")]
    pub image_size: Option<u32>,
    /// Seed of the augmentation [default: 42].
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: Option<i64>,
    /// Worker threads; results do not depend on it [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Set any configuration key, such as split=train or augment.blur=0.5; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl InspectArgs {
    /// What the options change in the configuration: see [`Overrides::resolve`].
    pub fn overrides(&self) -> Overrides {
        let given = [
            ("preset", self.preset.clone().map(Value::from)),
            ("data", sources(&self.data)),
            ("classes", classes(self.classes.as_deref())),
            ("image_size", self.image_size.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("threads", self.threads.map(Value::from)),
        ];
        Overrides { file: self.config.clone(), options: present(given), set: self.set.clone() }
    }
}

/// Everything there is to say, as `--json` prints it.
#[derive(Serialize)]
struct Output {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    grid: Option<Picture>,
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<Picture>,
}

/// A picture that was written, and what is on it.
#[derive(Serialize)]
struct Picture {
    path: String,
    rows: Vec<Row>,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<()> {
    // What is bad is what one wants to see: no share of it is too large.
    let config = Config { max_bad: 1.0, ..args.overrides().resolve()? };
    [&args.grid, &args.views].into_iter().flatten().try_for_each(|path| is_png(path))?;
    use_threads(Some(config.threads as u32));
    let dataset = data::load(&config)?;
    let progress = Progress::new("looking at images", dataset.len());
    let report = Report::of(&dataset, &*data::open(&config)?, &|| progress.step())?;
    drop(progress);
    let grid = args
        .grid
        .as_deref()
        .map(|path| write(path, contact_sheet(&dataset, args.rows as usize, args.columns as usize)?));
    let views = args.views.as_deref().map(|path| write(path, views(&dataset, &config, args.samples as usize)?));
    // Only now is it certain that all pixels were those of the data set.
    dataset.check()?;
    let output = Output { report, grid: grid.transpose()?, views: views.transpose()? };
    if args.json {
        print(&serde_json::to_string(&output).unwrap_or_default());
        return Ok(());
    }
    print(&text(&output.report));
    if let Some(grid) = &output.grid {
        print(&describe_grid(grid, &dataset, args.rows as usize));
    }
    if let Some(views) = &output.views {
        print(&format!(
            "views       {}: {} images beside their two views at {} px, preset {}, seed {}\n{}",
            views.path,
            views.rows.len(),
            config.image_size,
            config.preset,
            config.seed,
            list(views.rows.iter().map(|row| format!("{}  {}", row.caption, row.images.join(", "))))
        ));
    }
    Ok(())
}

/// Errors with [`Error::Usage`] unless `path` is named as what will be written.
fn is_png(path: &Path) -> Result<()> {
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("png") => Ok(()),
        _ => {
            Err(Error::Usage(format!("{}: pictures are written as PNG; give a name that ends in .png", path.display())))
        }
    }
}

fn write(path: &Path, (sheet, rows): (Sheet, Vec<Row>)) -> Result<Picture> {
    sheet.write_png(path)?;
    Ok(Picture { path: path.display().to_string(), rows })
}

fn describe_grid(grid: &Picture, dataset: &Dataset, rows: usize) -> String {
    let shown: usize = grid.rows.iter().map(|row| row.images.len()).sum();
    let what = if dataset.classes().is_empty() {
        String::new()
    } else {
        let captions: Vec<&str> = grid.rows.iter().map(|row| row.caption.as_str()).collect();
        let more = if dataset.classes().len() > rows { " (--rows N for more of the classes)" } else { "" };
        format!("; rows from the top: {}{more}", captions.join(", "))
    };
    format!("grid        {}: {shown} of {} images{what}", grid.path, dataset.len())
}

/// The report for people.
fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "{name:<11} {value}").expect("a string grows");
    line("data", format!("{} (fingerprint {:08x})", report.description, report.fingerprint));
    line("images", report.images.to_string());
    if !report.classes.is_empty() {
        line("classes", class_lines(report));
    }
    if !report.factors.is_empty() {
        line("factors", report.factors.join(", "));
    }
    line("sizes", sizes(report));
    line(
        "colour",
        match report.grey {
            0 => "all in colour".into(),
            n if n == report.images => "all grey".into(),
            n => format!("{} in colour, {n} grey", report.images - n),
        },
    );
    if !report.kinds.is_empty() {
        let counts: Vec<String> = report.kinds.iter().map(|(kind, n)| format!("{n} {kind} bit")).collect();
        line("stored as", counts.join(", "));
    }
    let three = |values: [f64; 3]| values.map(|value| format!("{value:.4}")).join(" ");
    line("mean RGB", format!("{}  (0 to 1, over all pixels)", three(report.mean)));
    line("std RGB", three(report.std));
    line("duplicates", duplicates(report));
    for (kind, name) in [(ExclusionKind::Bad, "bad"), (ExclusionKind::Ignored, "ignored")] {
        let reasons = reasons(report, kind);
        if !reasons.is_empty() {
            line(name, reasons);
        }
    }
    text
}

fn class_lines(report: &Report) -> String {
    let unlabelled = match report.unlabelled {
        0 => String::new(),
        n => format!("; {n} images without a class"),
    };
    let counts: Vec<usize> = report.classes.iter().map(|class| class.images).collect();
    if counts.len() <= CLASSES_LISTED {
        let listed: Vec<String> =
            report.classes.iter().map(|class| format!("{} {}", class.name, class.images)).collect();
        return listed.join(", ") + &unlabelled;
    }
    let Range { min, median, max } = Range::of(&counts);
    format!("{}, of {min} to {max} images, median {median} (--json lists them){unlabelled}", counts.len())
}

fn sizes(report: &Report) -> String {
    let first = &report.sizes[0];
    if report.distinct_sizes == 1 {
        return format!("{} x {}, all", first.width, first.height);
    }
    let range = |Range { min, median, max }: Range| format!("{min} to {max}, median {median}");
    format!(
        "width {}; height {}; {} sizes, most often {} x {} ({} images)",
        range(report.width),
        range(report.height),
        report.distinct_sizes,
        first.width,
        first.height,
        first.images
    )
}

fn duplicates(report: &Report) -> String {
    let groups = &report.duplicates;
    if groups.is_empty() {
        return "none".into();
    }
    let surplus: usize = groups.iter().map(|group| group.len() - 1).sum();
    let conflicting = match report.conflicting_duplicates {
        0 => String::new(),
        n => format!(", {n} of them in different classes"),
    };
    let examples = groups.iter().take(NAMED).map(|group| group[..group.len().min(NAMED)].join(" = "));
    format!(
        "{surplus} images repeat another one's pixels ({} groups{conflicting})\n{}{}",
        groups.len(),
        list(examples),
        more(groups.len())
    )
}

/// What was left out, by reason: the most frequent ones, each with an example.
fn reasons(report: &Report, kind: ExclusionKind) -> String {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for excluded in report.excluded.iter().filter(|excluded| excluded.kind == kind) {
        by_reason.entry(&excluded.reason).or_default().push(&excluded.name);
    }
    if by_reason.is_empty() {
        return String::new();
    }
    let mut groups: Vec<(&str, Vec<&str>)> = by_reason.into_iter().collect();
    groups.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let total: usize = groups.iter().map(|(_, names)| names.len()).sum();
    let shown = groups.iter().take(NAMED).map(|(reason, names)| {
        let first = names[..names.len().min(NAMED)].join(", ");
        let others = if names.len() > NAMED { ", ..." } else { "" };
        format!("{} x {reason}: {first}{others}", names.len())
    });
    format!("{total}\n{}{}", list(shown), more(groups.len()))
}

/// Indented lines.
fn list(lines: impl Iterator<Item = String>) -> String {
    lines.map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// The line that says that a list of `n` goes on.
fn more(n: usize) -> String {
    if n > NAMED { format!("\n  ... and {} more (--json lists all)", n - NAMED) } else { String::new() }
}
