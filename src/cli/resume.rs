//! What a run is resumed with: its own configuration, data and network, changed only where that is harmless or asked for.

use std::path::Path;

use crate::checkpoint::{self, Checkpoint, DataStamp, Newest};
use crate::config::{Config, Difference, Overrides};
use crate::log::say;
use crate::optim::schedule::Schedule;
use crate::{Error, Result};

/// The saved configuration with what the command line may change; says what it does change. Errors with [`Error::Usage`] after
/// a table of what it may not.
pub fn config(overrides: &Overrides, saved: &Config, folder: &Path) -> Result<Config> {
    let config = overrides.resolve_over(saved)?;
    let changes: Vec<Difference> =
        config.diff(saved).into_iter().filter(|difference| difference.changes_training()).collect();
    // Where the data lie may change; that they are the same is known by their fingerprint.
    let allowed = |change: &Difference| change.key == "data" || (change.may_be_told() && overrides.names(&change.key));
    let (told, refused): (Vec<_>, Vec<_>) = changes.into_iter().partition(allowed);
    refuse(folder, &refused)?;
    for Difference { key, mine, theirs } in told.iter().filter(|change| change.key != "data") {
        let note = match (key.as_str(), config.schedule) {
            ("epochs", Schedule::Cosine) => {
                ": the cosine schedule changes with it, and so do the learning rates to come"
            }
            ("epochs", _) => "",
            _ => " from here on",
        };
        say(&format!("{key} is {mine}, not {theirs}{note}"));
    }
    Ok(config)
}

/// Errors with [`Error::Usage`] after a table if there is anything to refuse.
fn refuse(folder: &Path, refused: &[Difference]) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let rows = refused.iter().map(|change| [&change.key, &change.theirs, &change.mine].map(String::as_str));
    table(rows);
    let keys: Vec<&str> = refused.iter().map(|change| change.key.as_str()).collect();
    let hint = if refused.iter().all(Difference::may_be_told) { "say it with --set KEY=VALUE, or " } else { "" };
    Err(Error::Usage(format!(
        "{} cannot go on with another {}: {hint}leave it out, or start a new run with another --out",
        folder.display(),
        keys.join(", ")
    )))
}

/// Shows differences between a run and what was asked.
fn table<'a>(rows: impl Iterator<Item = [&'a str; 3]>) {
    let rows: Vec<[&str; 3]> = std::iter::once(["", "the run has", "asked for"]).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (key, theirs) = (width(0), width(1));
    rows.iter().for_each(|row| say(&format!("  {:key$}  {:theirs$}  {}", row[0], row[1], row[2])));
}

/// Errors with [`Error::Usage`] after a table if the run in `folder` was trained on other data than those at hand.
pub fn same_data(folder: &Path, then: &DataStamp, now: &DataStamp) -> Result<()> {
    if then.fingerprint == now.fingerprint && then.images == now.images {
        return Ok(());
    }
    let [images, fingerprints] =
        [[then, now].map(|data| data.images.to_string()), [then, now].map(|data| format!("{:08x}", data.fingerprint))];
    table(
        [
            ["data", &then.description, &now.description],
            ["images", &images[0], &images[1]],
            ["fingerprint", &fingerprints[0], &fingerprints[1]],
        ]
        .into_iter(),
    );
    Err(Error::Usage(format!(
        "{} was trained on other data (then: {}; now: {}): give it those, or start a new run with another --out",
        folder.display(),
        then.description,
        now.description
    )))
}

/// The newest checkpoint in a run's folder that is whole; says which newer ones are not.
pub fn newest(folder: &Path) -> Result<Option<Newest>> {
    let newest = checkpoint::load_newest(folder)?;
    if let Some(Newest { damaged, path, .. }) = &newest {
        let taken = path.display();
        damaged
            .iter()
            .for_each(|damaged| say(&format!("damaged checkpoint: {}; taking {taken} instead", damaged.reason)));
    }
    Ok(newest)
}

/// Checks that the checkpoint is of the run that `config` describes, and of these data.
pub fn same_run(config: &Config, folder: &Path, checkpoint: &Checkpoint, now: &DataStamp) -> Result<()> {
    let meta = &checkpoint.meta;
    same_data(folder, &meta.data, now)?;
    // What may be told was told when config.toml got it.
    let differs = |change: &Difference| change.changes_training() && !change.may_be_told() && change.key != "data";
    refuse(folder, &config.diff(&meta.config).into_iter().filter(differs).collect::<Vec<_>>())?;
    if (config.epochs as u64) < meta.epoch + u64::from(meta.step_in_epoch > 0) {
        return Err(Error::Usage(format!(
            "{} has {} epochs behind it: epochs = {} is less",
            folder.display(),
            meta.epoch,
            config.epochs
        )));
    }
    Ok(())
}
