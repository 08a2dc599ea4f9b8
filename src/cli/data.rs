//! Loading the data set of a command, and saying what was found.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::config::Config;
use crate::data::source::{self, SourceOptions};
use crate::data::{Dataset, DatasetOptions, ExclusionKind, Source};
use crate::log::say;

/// Files that were set aside and are named on the terminal; the rest is counted.
const NAMED: usize = 3;

/// The sources of a configuration, listed but not decoded.
pub fn open(config: &Config) -> Result<Box<dyn Source>> {
    let options =
        SourceOptions { cifar100_labels: config.cifar100_labels, split: config.split, ..SourceOptions::default() };
    source::open_all(&config.data, &options)
}

/// Decodes the data set of a configuration and describes it on stderr.
pub fn load(config: &Config) -> Result<Dataset> {
    let source = open(config)?;
    let bar = progress("reading images", source.len());
    let options = DatasetOptions { cache_bytes: config.cache_mib << 20 };
    let dataset = Dataset::load(source, &options, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    let dataset = dataset?;
    say(&format!("data: {}", dataset.describe()));
    let bad = || dataset.excluded().iter().filter(|excluded| excluded.kind == ExclusionKind::Bad);
    for excluded in bad().take(NAMED) {
        say(&format!("  set aside {}: {}", excluded.name, excluded.reason));
    }
    if bad().count() > NAMED {
        say(&format!("  ... and {} more", bad().count() - NAMED));
    }
    Ok(dataset)
}

/// A bar over `images` on the terminal; nothing where nobody looks.
pub fn progress(what: &'static str, images: usize) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(images as u64) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{msg} [{bar:24}] {human_pos}/{human_len}  ETA {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.with_message(what)
}
