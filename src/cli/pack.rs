//! `pack` and `verify`: data sets in one file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::args::{PackArgs, VerifyArgs};
use super::data::{self, Progress};
use super::{interrupt, print};
use crate::config::Config;
use crate::data::{Encoding, GatherOptions, packed, source};
use crate::log::say;
use crate::{Error, Result, run};

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
