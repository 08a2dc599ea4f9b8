//! Stacking the layers of a configuration, with errors that name the key, where it stood, and the nearest right one.

use super::{Config, Preset, REFERENCE, presets};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::LazyLock;
use toml::{Table, Value};

/// What the user gave to change the defaults, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Command-line options as (dotted key, value); errors call them `--key-with-dashes`.
    pub options: Vec<(&'static str, Value)>,
    /// `key=value` texts of `--set`; the value is TOML, a bare word is a string, and the last part of a dotted key
    /// is enough where only one key ends in it.
    pub set: Vec<String>,
}

impl Overrides {
    /// The configuration of a new run: defaults < preset < file < options < `--set`, checked.
    ///
    /// The preset is what the strongest layer with the key `preset` names; without one it is `shapes` or, if other data
    /// are given, `images`. Errors: [`Error::Usage`] for unknown presets and keys, wrong types and values out of range,
    /// each with its origin; [`Error::Io`] if the file cannot be read.
    pub fn resolve(&self) -> Result<Config> {
        let layers = self.layers()?;
        let mut given = Table::new();
        layers.iter().for_each(|layer| merge(&mut given, layer.values.clone()));
        let named = given.get("preset").and_then(Value::as_str);
        let preset = presets::preset(named.unwrap_or_else(|| default_preset(given.get("data"))))?;
        stack(defaults(), Some(preset), layers)
    }

    /// The configuration of a run that goes on, or is evaluated: `saved` takes the place of the defaults, and a preset
    /// is applied only if one is named.
    pub fn resolve_over(&self, saved: &Config) -> Result<Config> {
        let layers = self.layers()?;
        let named = layers.iter().rev().find_map(|layer| layer.values.get("preset")?.as_str());
        let preset = named.map(presets::preset).transpose()?;
        stack(saved.to_table(), preset, layers)
    }

    /// Whether an option or `--set` names this very key.
    pub fn names(&self, key: &str) -> bool {
        let of_set = |text: &String| full_key(text.split('=').next().unwrap_or_default().trim()).ok();
        self.options.iter().any(|(option, _)| *option == key)
            || self.set.iter().filter_map(of_set).any(|name| name == key)
    }

    /// Everything above the preset, parsed.
    fn layers(&self) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
            let origin = path.display().to_string();
            layers.push(Layer { values: parse(&text, &origin)?, origin });
        }
        for (key, value) in &self.options {
            let origin = format!("--{}", key.rsplit('.').next().unwrap_or(key).replace('_', "-"));
            layers.push(Layer { values: nest(key, value.clone()), origin });
        }
        for text in &self.set {
            layers.push(Layer { values: parse_set(text)?, origin: "--set".to_owned() });
        }
        Ok(layers)
    }
}

/// Values and where they came from.
struct Layer {
    values: Table,
    origin: String,
}

/// Applies `preset`, then `layers`, to `table` and reads the result.
fn stack(mut table: Table, preset: Option<&Preset>, layers: Vec<Layer>) -> Result<Config> {
    if let Some(preset) = preset {
        apply(&mut table, preset.values.clone(), &format!("preset '{}'", preset.name))?;
        table.insert("preset".to_owned(), Value::String(preset.name.clone()));
    }
    for layer in layers {
        apply(&mut table, layer.values, &layer.origin)?;
    }
    finish(table)
}

/// `shapes` unless images were named.
fn default_preset(data: Option<&Value>) -> &'static str {
    let is_shapes = |value: &Value| value.as_str().is_none_or(|name| name == "shapes" || name.starts_with("shapes:"));
    let all_shapes = match data {
        Some(Value::Array(sources)) => sources.iter().all(is_shapes),
        Some(source) => is_shapes(source),
        None => true,
    };
    if all_shapes { "shapes" } else { "images" }
}

/// The built-in defaults.
pub(super) fn defaults() -> Table {
    static DEFAULTS: LazyLock<Table> = LazyLock::new(|| REFERENCE.parse().expect("reference.toml is tested"));
    DEFAULTS.clone()
}

/// Every dotted key, in the order of the reference.
pub(super) fn reference_keys() -> &'static [String] {
    static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let mut section = "";
        let mut keys = Vec::new();
        for line in REFERENCE.lines().filter(|line| !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, _)) = line.split_once(" = ") {
                keys.push(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
            }
        }
        keys
    });
    &KEYS
}

/// Parses TOML; an error is one line with `origin` and the line's number.
pub(super) fn parse(text: &str, origin: &str) -> Result<Table> {
    text.parse::<Table>().map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
        let line = 1 + before.matches('\n').count();
        Error::Usage(format!("{origin}, line {line}: {}", error.message().replace('\n', ", ")))
    })
}

/// Parses `key=value` of `--set`.
fn parse_set(text: &str) -> Result<Table> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(Error::Usage(format!("--set {text}: expected key=value, such as --set jitter_strength=1.0")));
    };
    let (key, value) = (full_key(key.trim())?, value.trim());
    // A bare word is no TOML value, so it is a string; so is what would be more than one value.
    let parsed = format!("value = {value}").parse::<Table>().ok().filter(|table| table.len() == 1);
    let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(value.to_owned()));
    Ok(nest(&key, value))
}

/// The dotted key that `name` stands for: itself, or the only key whose last part it is.
fn full_key(name: &str) -> Result<String> {
    let is_last_part = |key: &str| key.rsplit_once('.').is_some_and(|(_, last)| last == name);
    let keys = reference_keys();
    if keys.iter().any(|key| key == name) {
        return Ok(name.to_owned());
    }
    match keys.iter().filter(|key| is_last_part(key)).collect::<Vec<_>>()[..] {
        [] if keys.iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))) => {
            Ok(name.to_owned()) // a table
        }
        // Here already: what is no key must not be taken apart, however many dots it has.
        [] => Err(unknown_key(name, "--set")),
        [only] => Ok(only.clone()),
        ref several => {
            let names: Vec<String> = several.iter().map(|key| format!("'{key}'")).collect();
            Err(Error::Usage(format!("'{name}' in --set is ambiguous: {}", names.join(" or "))))
        }
    }
}

fn unknown_key(key: &str, origin: &str) -> Error {
    let hint = did_you_mean(key, reference_keys().iter().map(String::as_str));
    Error::Usage(format!("unknown key '{key}' in {origin}{hint}"))
}

/// `a.b` and v as `{ a = { b = v } }`.
fn nest(path: &str, value: Value) -> Table {
    let (first, value) = match path.split_once('.') {
        Some((first, rest)) => (first, Value::Table(nest(rest, value))),
        None => (path, value),
    };
    Table::from_iter([(first.to_owned(), value)])
}

/// The value at a dotted key.
pub(super) fn get<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((first, rest)) => get(table.get(first)?.as_table()?, rest),
        None => table.get(path),
    }
}

/// Overwrites leaf by leaf.
pub(super) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(table)) => merge(inner, table),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// Every dotted key of `table` with its value; an empty table counts as a value.
fn leaves(table: Table, prefix: &str) -> Vec<(String, Value)> {
    let leaf = |(key, value)| match value {
        Value::Table(inner) if !inner.is_empty() => leaves(inner, &format!("{prefix}{key}.")),
        value => vec![(format!("{prefix}{key}"), value)],
    };
    table.into_iter().flat_map(leaf).collect()
}

/// Merges `layer` into `table` after checking each key and type against the defaults.
pub(super) fn apply(table: &mut Table, layer: Table, origin: &str) -> Result<()> {
    for (key, value) in leaves(layer, "") {
        let defaults = defaults();
        let Some(default) = get(&defaults, &key) else {
            return Err(unknown_key(&key, origin));
        };
        let value = fit(&key, value, default).map_err(|problem| Error::Usage(format!("{origin}: {problem}")))?;
        merge(table, nest(&key, value));
    }
    Ok(())
}

/// `value` as the type of its key's default, or what is wrong with it in words.
fn fit(key: &str, value: Value, default: &Value) -> Result<Value, String> {
    let value = match (value, default) {
        (Value::Integer(n), Value::Float(_)) => Value::Float(n as f64),
        (Value::Integer(n), Value::String(_)) => Value::String(n.to_string()), // `backbone = 18`, `out = 2024`
        (Value::Float(x), Value::Integer(_)) if x.fract() == 0.0 && x.abs() < 1e15 => Value::Integer(x as i64), // 1e6
        (value, _) => value,
    };
    let fits = match (&value, default) {
        (Value::Integer(n), Value::Integer(_)) => *n >= 0,
        (Value::String(_), Value::Array(_)) => takes_strings(key),
        (value, default) => value.same_type(default),
    };
    if !fits {
        let expected = match default {
            Value::Integer(_) => "a whole number, 0 or more",
            Value::Float(_) => "a number",
            Value::String(_) => "a string",
            Value::Boolean(_) => "true or false",
            Value::Array(_) if takes_strings(key) => "a string or a list of strings",
            Value::Array(_) => "a list such as [0.1, 1.0]",
            _ => "a table of keys",
        };
        return Err(format!("{key} = {value}: expected {expected}, got {}", worded(&value)));
    }
    // The rest (names of choices, lengths of lists) is known to the struct's own deserialisation.
    let mut table = defaults();
    merge(&mut table, nest(key, value.clone()));
    match Config::deserialize(Value::Table(table)) {
        Ok(_) => Ok(value),
        Err(error) => Err(format!("{key} = {value}: {}", error.message().replace('\n', ", "))),
    }
}

/// Lists of names, for which a single string will do.
fn takes_strings(key: &str) -> bool {
    matches!(key, "data" | "classes")
}

/// A TOML type in words.
fn worded(value: &Value) -> &'static str {
    match value {
        Value::Integer(n) if *n < 0 => "a negative number",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::String(_) => "a string",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        Value::Datetime(_) => "a date",
    }
}

/// Reads and validates a complete table.
pub(super) fn finish(table: Table) -> Result<Config> {
    let config = Config::deserialize(Value::Table(table)).map_err(|error| Error::Usage(error.message().to_owned()))?;
    config.validate()?;
    Ok(config)
}

/// `: did you mean 'a' or 'b'?`, or nothing if no candidate is near `name`.
///
/// Near are small typing errors (in the whole key or its last part), a part of the word, and initials (`lr`).
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    let last = |key: &'a str| key.rsplit('.').next().unwrap_or(key);
    let likeness = |key: &'a str| {
        let initials: String = last(key).split('_').filter_map(|word| word.chars().next()).collect();
        let contained = name.len() > 2 && last(key).contains(name);
        let guess = if initials == name && name.len() > 1 || contained { 0.75 } else { 0.0 };
        let typed = |key| strsim::normalized_damerau_levenshtein(name, key);
        typed(key).max(typed(last(key))).max(guess)
    };
    let mut near: Vec<(f64, &str)> = candidates.map(|key| (likeness(key), key)).filter(|(l, _)| *l >= 0.6).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let best = near.first().map_or(0.0, |(l, _)| *l);
    let names: Vec<String> =
        near.iter().filter(|(l, _)| *l >= best - 0.05).map(|(_, key)| format!("'{key}'")).collect();
    if names.is_empty() { String::new() } else { format!(": did you mean {}?", names.join(" or ")) }
}
