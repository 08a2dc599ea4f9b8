//! Opening the data set of a command, and saying what was found.

use std::io::IsTerminal;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt;
use crate::config::Config;
use crate::data::cache::{CACHE_VARIABLE, Cache, payload_for};
use crate::data::gather::check_bad;
use crate::data::source::{self, SourceOptions, Split};
use crate::data::{Catalog, Dataset, Encoding, ExclusionKind, GatherOptions, Source, packed};
use crate::log::say;
use crate::{Error, Result};

/// Files that were set aside and are named on the terminal; the rest is counted.
const NAMED: usize = 3;

/// The sources of a configuration, listed but not decoded.
pub fn open(config: &Config) -> Result<Box<dyn Source>> {
    source::open_all(&config.data, &source_options(config))
}

fn source_options(config: &Config) -> SourceOptions {
    SourceOptions {
        cifar100_labels: config.cifar100_labels,
        split: config.split,
        classes: config.classes.clone(),
        ..SourceOptions::default()
    }
}

/// The data set of a configuration, described on stderr: a packed file is opened in place, other images through their packed
/// copy in the cache.
pub fn load(config: &Config) -> Result<Dataset> {
    let options = source_options(config);
    let whole = options.split == Split::All && options.classes.is_empty();
    // A data set knows its files by their names in it; where it is, is known here.
    let at_data = |e| match e {
        Error::Format { .. } => Error::format(config.data.join(", "), e.to_string()),
        e => e,
    };
    let dataset = match &config.data[..] {
        [path] if whole && packed::is_packed(Path::new(path)) => Dataset::open(Path::new(path))?,
        _ => through_cache(config, open(config)?).map_err(at_data)?,
    };
    // Also for copies that were made under a milder rule.
    check_bad(dataset.catalog(), dataset.len() + dataset.catalog().bad(), config.max_bad).map_err(at_data)?;
    describe(dataset.catalog());
    interrupt::at_once()?;
    Ok(dataset)
}

fn through_cache(config: &Config, source: Box<dyn Source>) -> Result<Dataset> {
    let stop = Some(interrupt::flag("stopping")?);
    let options = GatherOptions { max_bad: config.max_bad, stop, ..GatherOptions::default() };
    let reading = Progress::new("reading images", source.len());
    if source.files().is_empty() {
        return Dataset::load(source, &options, &reading.callback());
    }
    let Some(cache) = Cache::of_user() else {
        say(&format!("no folder for packed copies (set {CACHE_VARIABLE}): holding the images in memory"));
        return Dataset::load(source, &options, &reading.callback());
    };
    let content = cache.content(&*source)?;
    let with = |payload| GatherOptions { payload, ..options };
    // The pixels are the same whichever way they are kept.
    let kept =
        [Encoding::Raw, Encoding::Jpeg].into_iter().find(|&payload| cache.path(content, &with(payload)).exists());
    let options = with(kept.unwrap_or_else(|| payload_for(&*source, (config.cache_mib as u64) << 20)));
    let path = cache.path(content, &options);
    if !path.exists() {
        say(&format!(
            "packing {}{} once, to {} ({CACHE_VARIABLE} moves it)",
            source.describe(),
            if options.payload == Encoding::Jpeg { ", as JPEGs," } else { "" },
            path.display()
        ));
    }
    match cache.open(&path, &*source, &options, &reading.callback()) {
        // A full or read-only disk must not keep anyone from training.
        Err(e @ Error::Io { .. }) => {
            say(&format!("no packed copy ({e}): holding the images in memory"));
            Dataset::load(source, &options, &reading.callback())
        }
        opened => opened,
    }
}

/// Says what a data set holds, and what was lost.
pub fn describe(catalog: &Catalog) {
    say(&format!("data: {}", catalog.describe()));
    let bad = || catalog.excluded.iter().filter(|excluded| excluded.kind == ExclusionKind::Bad);
    for excluded in bad().take(NAMED) {
        say(&format!("  set aside {}: {}", excluded.name, excluded.reason));
    }
    if bad().count() > NAMED {
        say(&format!("  ... and {} more", bad().count() - NAMED));
    }
}

/// A progress bar with ETA; none where stderr is no terminal. Goes away when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` images.
    pub fn new(doing: &'static str, total: usize) -> Progress {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total as u64) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg} [{bar:24}] {human_pos}/{human_len}  {per_sec}  ETA {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Progress(bar.with_message(doing))
    }

    /// What moves it on.
    pub fn callback(&self) -> impl Fn(usize, usize) + Sync + '_ {
        |done, _| self.0.set_position(done as u64)
    }

    /// One more.
    pub fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
