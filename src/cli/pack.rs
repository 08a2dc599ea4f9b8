//! `pack` and `verify`: data sets in one file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use super::args::{chosen, share};
use super::data::{self, Progress};
use super::{interrupt, print};
use crate::config::Config;
use crate::data::source::{Cifar100Labels, Split};
use crate::data::{Encoding, GatherOptions, SourceOptions, packed, source};
use crate::log::say;
use crate::{Error, Result, run};

/// Options of `pack`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The file is complete when it is there: until then it has another name. Images that cannot be used are \
listed in OUT.quarantine.jsonl.\nExit codes: 0 done, 1 failed, 2 bad usage, 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM."
)]
pub struct PackArgs {
    /// Images, as for `train --data`; several are joined.
    #[arg(value_name = "SRC", required = true)]
    pub sources: Vec<String>,
    /// File to write, such as images.pack.
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// How images are kept: `raw` decoded, fastest to read; `jpeg` as the JPEG files they were (others raw).
    #[arg(long, value_name = "KIND", default_value = "raw")]
    pub payload: Encoding,
    /// Shrink larger images until their short side has so many pixels; JPEGs are then written anew, quality 95.
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub resize_short: Option<u32>,
    /// Share of lost images, such as 1%, above which nothing is packed [default: 50%].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_bad: Option<f64>,
    /// Replace OUT if it exists.
    #[arg(long)]
    pub force: bool,
    /// Take these classes only: names with commas between, @FILE with a name a line, or `imagenet-10`.
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1)]
    pub classes: Vec<String>,
    /// Which part of a data set that has parts [default: all].
    #[arg(long)]
    pub split: Option<Split>,
    /// The class labels of CIFAR-100 [default: coarse].
    #[arg(long, value_name = "KIND")]
    pub cifar100_labels: Option<Cifar100Labels>,
    /// Worker threads; the file does not depend on it [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
}

/// Options of `verify`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 every byte is right, 1 damaged or no packed file, 2 bad usage.")]
pub struct VerifyArgs {
    /// A packed file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Worker threads [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
}

impl PackArgs {
    /// How to read the sources.
    pub fn source_options(&self) -> SourceOptions {
        SourceOptions {
            split: self.split.unwrap_or_default(),
            cifar100_labels: self.cifar100_labels.unwrap_or_default(),
            classes: chosen(&self.classes),
            ..SourceOptions::default()
        }
    }
}

/// Runs `pack`.
pub fn pack(args: &PackArgs) -> Result<()> {
    super::use_threads(args.threads);
    let out = args.out.as_path();
    check_target(out, args)?;
    let source = source::open_all(&args.sources, &args.source_options())?;
    say(&format!("packing {}", source.describe()));
    let options = GatherOptions {
        payload: args.payload,
        resize_short: args.resize_short.map(|short| short as usize),
        max_bad: args.max_bad.unwrap_or(Config::default().max_bad),
        stop: Some(interrupt::flag("stopping")?),
    };
    let clock = Instant::now();
    let progress = Progress::new("packing", source.len());
    let catalog = packed::pack(&*source, &options, out, &progress.callback())?;
    drop(progress);
    data::describe(&catalog);
    if !catalog.excluded.is_empty() {
        let list = beside(out, ".quarantine.jsonl");
        run::write_excluded(&list, &catalog.excluded)?;
        say(&format!("what was left out, and why: {}", list.display()));
    }
    let images = catalog.samples.len();
    let jpegs = catalog.samples.iter().filter(|sample| sample.encoding() == Some(Encoding::Jpeg)).count();
    let kept = match args.payload {
        Encoding::Raw => "decoded".to_string(),
        Encoding::Jpeg => format!("{jpegs} as JPEG, {} decoded", images - jpegs),
    };
    let seconds = clock.elapsed().as_secs_f64();
    print(&format!(
        "{images} images ({kept}), {:.1} MiB, in {seconds:.1} s ({:.0} a second)\nnext: disentangle train --data {}",
        catalog.payload_bytes() as f64 / f64::from(1 << 20),
        images as f64 / seconds,
        out.display()
    ));
    Ok(())
}

/// Errors with [`Error::Usage`] if the file is there already, or the folder is not.
fn check_target(out: &Path, args: &PackArgs) -> Result<()> {
    if out.is_dir() {
        return Err(Error::Usage(format!(
            "{} is a folder: name the file to write, such as images.pack",
            out.display()
        )));
    }
    if out.exists() && !args.force {
        return Err(Error::Usage(format!("{} exists: --force replaces it", out.display())));
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder.filter(|folder| !folder.is_dir()) {
        Some(folder) => Err(Error::Usage(format!("the folder {} does not exist: make it first", folder.display()))),
        None => Ok(()),
    }
}

/// `path` with `suffix` after its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Runs `verify`.
pub fn verify(args: &VerifyArgs) -> Result<()> {
    super::use_threads(args.threads);
    let progress = Progress::new("verifying", 0);
    let verified = packed::verify(&args.file, &progress.callback())?;
    drop(progress);
    if verified.problems.is_empty() {
        print(&format!("{}: every byte is right: {}", args.file.display(), verified.description));
        return Ok(());
    }
    print(&verified.problems.join("\n"));
    let places = match verified.problems.len() {
        1 => "1 place".to_string(),
        n => format!("{n} places"),
    };
    Err(Error::format(&args.file, format!("damaged in {places}, listed above: copy or pack it again")))
}
