//! Named starting points, read from `presets.toml`.

use super::layers;
use crate::{Error, Result};
use std::sync::LazyLock;
use toml::{Table, Value};

/// A named starting point.
#[derive(Clone, Debug)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: String,
    /// One line for `--help`.
    pub description: String,
    /// The values that differ from the built-in defaults, inherited ones included.
    pub(super) values: Table,
}

/// All presets, in the order of `presets.toml`.
pub fn presets() -> &'static [Preset] {
    static PRESETS: LazyLock<Vec<Preset>> =
        LazyLock::new(|| read(include_str!("presets.toml")).expect("presets.toml is tested"));
    &PRESETS
}

/// The preset called `name`; [`Error::Usage`] lists all names.
pub(super) fn preset(name: &str) -> Result<&'static Preset> {
    presets().iter().find(|preset| preset.name == name).ok_or_else(|| {
        let names: Vec<&str> = presets().iter().map(|preset| preset.name.as_str()).collect();
        let hint = layers::did_you_mean(name, names.iter().copied());
        Error::Usage(format!("unknown preset '{name}'{hint} (presets: {})", names.join(", ")))
    })
}

/// Parses the presets; a preset inherits from one that stands before it.
fn read(text: &str) -> Result<Vec<Preset>> {
    let broken = |problem: &str| Error::Usage(format!("presets.toml: {problem}"));
    let mut file = layers::parse(text, "presets.toml")?;
    let Some(Value::Array(entries)) = file.remove("preset") else { return Err(broken("no [[preset]]")) };
    let mut presets: Vec<Preset> = Vec::new();
    for entry in entries {
        let Value::Table(mut own) = entry else { return Err(broken("a preset is a table")) };
        let mut word = |key: &str| own.remove(key).and_then(|v| v.as_str().map(str::to_owned));
        let (name, description, inherits) = (word("name"), word("description"), word("inherits"));
        let (Some(name), Some(description)) = (name, description) else {
            return Err(broken("a preset needs name and description"));
        };
        let mut values = match inherits {
            None => Table::new(),
            Some(parent) => match presets.iter().find(|preset| preset.name == parent) {
                Some(preset) => preset.values.clone(),
                None => return Err(broken(&format!("'{name}' inherits from '{parent}', which is not above it"))),
            },
        };
        layers::merge(&mut values, own);
        presets.push(Preset { name, description, values });
    }
    Ok(presets)
}
