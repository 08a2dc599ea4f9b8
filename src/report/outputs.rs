//! What a report leaves: the page, its figures as SVG and PNG, the metrics as CSV, and TensorBoard's files.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::figure::Figure;
use super::findings::Findings;
use super::page::Page;
use super::run_files::RunFiles;
use super::sections::overview::class_of;
use super::thumbs::{Edge, Thumbs, png};
use super::{Subject, page};
use crate::atomic_file::write_atomically;
use crate::data::Dataset;
use crate::tensorboard::{Events, Projection, write_projector};
use crate::{Error, Result};

/// The page's name in the folder of a run.
pub const PAGE: &str = "report.html";
/// The metrics as a table, beside `metrics.jsonl`.
const CSV: &str = "metrics.csv";
/// The folder of TensorBoard's files in that of a run.
const TENSORBOARD: &str = "tensorboard";
/// Figures that TensorBoard gets as images: names begin so.
const IMAGES: [&str; 5] = ["views", "cluster-", "neighbours", "heads", "head-"];

/// Steps whose numbers TensorBoard gets, about: of longer runs every so many-th.
const STEPS: usize = 20_000;
/// Pixels of an image in the projector's sprite.
const SPRITE: usize = 32;

/// Where a report goes.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The page; [`PAGE`] in the folder of the run if not given.
    pub page: Option<PathBuf>,
    /// A folder for every figure as SVG and PNG, if wanted.
    pub figures: Option<PathBuf>,
}

/// Writes everything; gives the page's path.
///
/// # Errors
/// If an image can no longer be read or a file cannot be written.
pub fn write(run: &RunFiles, subject: &Subject, target: &Target) -> Result<PathBuf> {
    let page = page(run, subject)?;
    if let Some(folder) = &target.figures {
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        page.figures().try_for_each(|figure| figure.write(folder))?;
    }
    run.history.write_csv(&run.folder.join(CSV))?;
    write_tensorboard(run, subject, &page)?;
    let path = target.page.clone().unwrap_or_else(|| run.folder.join(PAGE));
    let html = page.html();
    write_atomically(&path, |file| file.write_all(html.as_bytes()))?;
    Ok(path)
}

/// Seconds since 1970 at which the run began, as far as its files tell.
fn began(run: &RunFiles) -> f64 {
    let written = std::fs::metadata(run.folder.join("config.toml")).and_then(|file| file.modified()).ok();
    written.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64())
}

/// Writes the folder that `tensorboard --logdir` takes.
fn write_tensorboard(run: &RunFiles, subject: &Subject, page: &Page) -> Result<()> {
    let folder = run.folder.join(TENSORBOARD);
    std::fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
    let start = began(run);
    let mut events = Events::new(start);
    let timing = &run.history.timing;
    let time = |step: u64| {
        let at = timing.partition_point(|t| t.step < step).min(timing.len().saturating_sub(1));
        start + timing.get(at).map_or(0.0, |t| t.seconds)
    };
    let every = (run.history.of("step").count() / STEPS).max(1) as u64;
    let written = |kind: &str, step: u64| kind != "step" || step.is_multiple_of(every);
    for entry in run.history.entries.iter().filter(|entry| written(&entry.kind, entry.step)) {
        for (name, value) in &entry.values {
            let Some(value) = value else { continue };
            events.scalar(time(entry.step), entry.step, &format!("{}/{name}", entry.kind), *value);
        }
    }
    for t in timing.iter().filter(|t| written("step", t.step)) {
        events.scalar(start + t.seconds, t.step, "step/views_per_s", t.views_per_s);
    }
    let (_, last) = run.history.end();
    for figure in page.figures().filter(|figure| IMAGES.iter().any(|name| figure.id.starts_with(name))) {
        let (png, size) = picture(figure)?;
        events.image(time(last), last, &format!("report/{}", figure.id), &png, size);
    }
    events.write(&folder)?;
    match subject {
        Subject::Seen { dataset, findings, .. } => projector(&folder, dataset, findings),
        Subject::Unseen(_) => Ok(()),
    }
}

/// A figure as a PNG with its size.
fn picture(figure: &Figure) -> Result<(Vec<u8>, [usize; 2])> {
    let png = figure.svg.png(&figure.title)?;
    // Width and height stand at a fixed place of every PNG (IHDR).
    let side = |at: usize| png.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let size = [side(16), side(20)];
    Ok((png, size))
}

/// The embeddings in the projector: the images of the maps.
fn projector(folder: &Path, dataset: &Dataset, findings: &Findings) -> Result<()> {
    let Some(maps) = &findings.maps else { return Ok(()) };
    let images: Vec<usize> = maps.rows.iter().map(|&row| findings.sample[row]).collect();
    let take = |values: &[f32], dim: usize| -> Vec<f32> {
        maps.rows.iter().flat_map(|&row| &values[row * dim..(row + 1) * dim]).copied().collect()
    };
    let embeddings = &findings.embeddings;
    let (h, y) = (take(&embeddings.h, embeddings.h_dim), take(&embeddings.y, embeddings.y_dim));
    let metadata: Vec<Vec<String>> = maps
        .rows
        .iter()
        .zip(&images)
        .map(|(&row, &i)| {
            let cluster = findings.clusters.as_ref().map_or(String::new(), |c| c.labels[row].to_string());
            vec![dataset.name(i).to_owned(), class_of(dataset, i), cluster]
        })
        .collect();
    // The projector counts tiles row by row, in the order of the points.
    let thumbs = Thumbs::of_side(dataset, images.iter().copied().collect(), SPRITE)?;
    let (sheet, size) = thumbs.sheet(Edge::None);
    let projections = [
        Projection { name: "h", values: &h, dim: embeddings.h_dim },
        Projection { name: "y", values: &y, dim: embeddings.y_dim },
    ];
    let sprite = png(&sheet, size.width, size.height);
    write_projector(folder, &projections, &["name", "class", "cluster"], &metadata, &sprite, SPRITE)
}
