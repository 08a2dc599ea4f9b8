//! What was trained, on what.

use maud::{Markup, html};

use crate::config::Config;
use crate::data::Dataset;
use crate::inspect::Range;
use crate::inspect::pictures::views;
use crate::report::figure::{Figure, Svg};
use crate::report::findings::{Findings, Images};
use crate::report::page::{Part, Section, count, facts, table};
use crate::report::run_files::RunFiles;
use crate::report::thumbs::{Thumbs, jpeg_uri};
use crate::{Result, run};

/// Classes up to which each is listed.
const CLASSES: usize = 40;
/// Images that are shown as the network saw them.
const VIEWED: usize = 6;

/// The configuration and how far the run came. `missing` says why there is nothing about the network, if so.
pub fn configuration(run: &RunFiles, missing: Option<&str>) -> Section {
    let Config { backbone, image_size, base_width, batch_size, learning_rate, seed, preset, alpha, .. } = &run.config;
    let mut list = vec![
        ("Progress", run.progress()),
        ("Network", format!("{backbone}, {base_width} channels in its first stage, {image_size} px")),
        ("Feature heads (K), projection (d)", format!("{}, {}", run.config.feature_num(), run.config.projection_dim())),
        ("Batch", format!("{}, two views each", count(*batch_size, "image"))),
        ("Adam", format!("learning rate {learning_rate}, {}", run.config.schedule)),
        ("Entropy weight (alpha)", alpha.to_string()),
        ("Seed, preset", format!("{seed}, {preset}")),
        ("Data", run.config.data.join(", ")),
    ];
    if let Some(last) = run.history.timing.last() {
        list.push(("Time", duration(last.seconds)));
    }
    let config = Config { out: String::new(), ..run.config.clone() }.to_toml();
    let html = html! {
        @if let Some(why) = missing {
            p.warning { "What the network learned is not shown: " (why) }
        }
        @if run.history.unreadable > 0 {
            p.warning { (count(run.history.unreadable, "line")) " of the logs could not be read and are left out." }
        }
        (facts(&list))
        details { summary { "The configuration in full" } pre { (config) } }
    };
    Section::new("configuration", "Configuration", vec![Part::Html(html)])
}

/// What the data set holds.
///
/// # Errors
/// If an image can no longer be read.
pub fn data(run: &RunFiles, dataset: &Dataset, findings: &Findings, thumbs: &Thumbs) -> Result<Section> {
    let examples = &findings.examples;
    let (width, height): (Vec<usize>, Vec<usize>) = (0..dataset.len()).map(|i| dataset.size(i)).unzip();
    let range = |values: &[usize]| match Range::of(values) {
        Range { min, max, .. } if min == max => min.to_string(),
        Range { min, median, max } => format!("{min} to {max} (median {median})"),
    };
    let list = [
        ("Data", dataset.describe()),
        ("Width", format!("{} px", range(&width))),
        ("Height", format!("{} px", range(&height))),
        ("Fingerprint", format!("{:08x}", run::stamp(dataset).fingerprint)),
    ];
    let (sheet, _) = views(dataset, &run.config, VIEWED)?;
    let size = sheet.size();
    let seen = jpeg_uri(sheet.pixels(), size.width, size.height)?;
    let views = Figure {
        id: "views".into(),
        title: "What the network saw".into(),
        caption: String::new(),
        svg: Svg {
            width: size.width as f64,
            height: size.height as f64,
            body: html! { image width=(size.width) height=(size.height) href=(seen) {} },
        },
        points: None,
    };
    let html = html! {
        @if findings.origin.images == Images::Others {
            p.warning { "These are not the images that the network was trained on. Scores and training curves are of those." }
        }
        (facts(&list))
        (classes(dataset))
        h3 { "Some of the images" }
        div.tiles { @for &i in examples { (thumbs.html(i, &class_of(dataset, i))) } }
        p.note { (count(examples.len(), "image")) ", drawn at random." }
        h3 { "What the network saw" }
        img.pixels src=(seen) width=(size.width) height=(size.height) alt="images beside their augmented views";
        p.note {
            "Of each image: as it is, then the two views of it in the first epoch, at the network's "
            (run.config.image_size) " px. Training sees views only."
        }
    };
    Ok(Section::new("data", "Data", vec![Part::Pictures { shown: html, figures: vec![views] }]))
}

/// The class of an image in words; empty without one.
pub fn class_of(dataset: &Dataset, i: usize) -> String {
    dataset.label(i).and_then(|label| dataset.classes().get(label as usize)).cloned().unwrap_or_default()
}

fn classes(dataset: &Dataset) -> Markup {
    let mut counts = vec![0usize; dataset.classes().len()];
    let mut without = 0;
    for i in 0..dataset.len() {
        match dataset.label(i) {
            Some(label) => counts[label as usize] += 1,
            None => without += 1,
        }
    }
    if counts.is_empty() {
        return html! { p { "The images have no classes: nothing here is scored against any." } };
    }
    let most = counts.iter().max().copied().unwrap_or(1).max(1);
    let row = |(name, n): (&String, &usize)| {
        let bar = html! { i.bar style={ "width:" (n * 80 / most) "px" } {} };
        vec![html! { (name) }, html! { (n) }, bar]
    };
    let rows: Vec<_> = dataset.classes().iter().zip(&counts).map(row).collect();
    html! {
        @if rows.len() <= CLASSES { (table(&["class", "images", ""], &rows)) }
        @else {
            @let Range { min, median, max } = Range::of(&counts);
            p { (rows.len()) " classes of " (min) " to " (max) " images, median " (median) "." }
        }
        @if without > 0 { p { (count(without, "image")) " without a class." } }
        p.note { "Classes are for looking and scoring; training never sees them." }
    }
}

/// Seconds for people.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
