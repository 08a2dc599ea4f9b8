//! What the logs of a run say: `metrics.jsonl`, and `timing.jsonl` for what depends on the clock.
//!
//! Read as they are, also while a run is writing them: a line that is no record is counted and left out.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::atomic_file::write_atomically;
use crate::log::CollapseRecord;
use crate::{Error, Result};

const METRICS: &str = "metrics.jsonl";
const TIMING: &str = "timing.jsonl";
/// Fields that are no measurements.
const POSITION: [&str; 4] = ["kind", "step", "epoch", "non_finite"];

/// One line of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `step`, `epoch`, `eval`, or another kind.
    pub kind: String,
    /// Steps since the beginning of the run.
    pub step: u64,
    /// Epoch in progress of a step, else epochs complete.
    pub epoch: u64,
    /// Numbers by dotted name, such as `backbone.nmi`; `None` where a value was not finite.
    pub values: Vec<(String, Option<f64>)>,
    /// Words by dotted name.
    pub words: Vec<(String, String)>,
}

/// The logs of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The lines of `metrics.jsonl`, in order.
    pub entries: Vec<Entry>,
    /// Seconds since training began and views a second, by step; empty where nothing tells.
    pub timing: Vec<Timing>,
    /// What each look for collapse found, in order.
    pub health: Vec<CollapseRecord>,
    /// Lines that are no records.
    pub unreadable: usize,
}

/// How fast a step was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Steps since the beginning of the run.
    pub step: u64,
    /// Seconds since training began.
    pub seconds: f64,
    /// Images a second, each view counted.
    pub views_per_s: f64,
}

impl History {
    /// The logs of the run in `folder`; empty if it has none. [`Error::Io`] if they are there and cannot be read.
    pub fn read(folder: &Path) -> Result<History> {
        let mut health = Vec::new();
        let (mut entries, broken) = lines(&folder.join(METRICS), &mut |entry, line| {
            health.extend((entry.kind == "collapse").then(|| serde_json::from_slice(line).ok()).flatten());
        })?;
        let (times, broken_times) = lines(&folder.join(TIMING), &mut |_, _| ())?;
        // Runs of an earlier version have their times among the metrics.
        let own = if times.is_empty() { &entries } else { &times };
        let timing = own.iter().filter(|entry| entry.kind == "step").filter_map(Timing::of).collect();
        for entry in &mut entries {
            entry.values.retain(|(name, _)| name != "seconds" && name != "views_per_s");
        }
        Ok(History { entries, timing, health, unreadable: broken + broken_times })
    }

    /// The entries of a kind.
    pub fn of(&self, kind: &str) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }

    /// A value by step in the entries of `kind`; NaN where it was not finite, so that a line has a gap there.
    pub fn series(&self, kind: &str, name: &str) -> Vec<(f64, f64)> {
        let point = |entry: &Entry| Some((entry.step as f64, entry.value(name)?.unwrap_or(f64::NAN)));
        self.of(kind).filter_map(point).collect()
    }

    /// [`History::series`] by epoch.
    pub fn by_epoch(&self, kind: &str, name: &str) -> Vec<(f64, f64)> {
        let point = |entry: &Entry| Some((entry.epoch as f64, entry.value(name)?.unwrap_or(f64::NAN)));
        self.of(kind).filter_map(point).collect()
    }

    /// Epochs complete and steps taken, as far as the log goes.
    pub fn end(&self) -> (u64, u64) {
        let epochs = self.of("epoch").map(|entry| entry.epoch).max().unwrap_or(0);
        (epochs, self.entries.iter().map(|entry| entry.step).max().unwrap_or(0))
    }

    /// Writes the metrics as a table: a line an entry, a column a value; what an entry lacks or was not finite is empty.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in self.entries.iter().flat_map(|entry| &entry.values) {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
        write_atomically(path, |file| {
            let mut table = csv::Writer::from_writer(file);
            table.write_record(["kind", "epoch", "step"].into_iter().chain(columns.iter().copied()))?;
            for entry in &self.entries {
                let own: BTreeMap<&str, Option<f64>> = entry.values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                let cell = |name: &&str| own.get(name).copied().flatten().map_or(String::new(), |v| v.to_string());
                let position = [entry.kind.clone(), entry.epoch.to_string(), entry.step.to_string()];
                table.write_record(position.into_iter().chain(columns.iter().map(cell)))?;
            }
            table.flush()
        })
    }
}

impl Entry {
    /// The number called `name`: `None` if there is none, `Some(None)` if it was not finite.
    pub fn value(&self, name: &str) -> Option<Option<f64>> {
        self.values.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    fn parse(line: &[u8]) -> Option<Entry> {
        let fields: Map<String, Value> = serde_json::from_slice(line).ok()?;
        let number = |key: &str| fields.get(key).and_then(Value::as_u64);
        let kind = fields.get("kind")?.as_str()?.to_owned();
        let (step, epoch) = (number("step")?, number("epoch").unwrap_or(0));
        let (mut values, mut words) = (Vec::new(), Vec::new());
        for (key, value) in fields.iter().filter(|(key, _)| !POSITION.contains(&key.as_str())) {
            flatten(key, value, &mut values, &mut words);
        }
        Some(Entry { kind, step, epoch, values, words })
    }
}

impl Timing {
    fn of(entry: &Entry) -> Option<Timing> {
        let number = |name| entry.value(name).flatten();
        Some(Timing { step: entry.step, seconds: number("seconds")?, views_per_s: number("views_per_s")? })
    }
}

/// The entries of the log at `path`, each also given to `see` with its line, and how many lines are none. No log has none.
fn lines(path: &Path, see: &mut dyn FnMut(&Entry, &[u8])) -> Result<(Vec<Entry>, usize)> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()).collect();
    let entry = |line: &&[u8]| Entry::parse(line).inspect(|entry| see(entry, line));
    let entries: Vec<Entry> = lines.iter().filter_map(entry).collect();
    let broken = lines.len() - entries.len();
    Ok((entries, broken))
}

/// The numbers and words in `value`, by dotted name. Lists are known by a name of their entries, as factors are.
fn flatten(name: &str, value: &Value, values: &mut Vec<(String, Option<f64>)>, words: &mut Vec<(String, String)>) {
    match value {
        Value::Null => values.push((name.to_owned(), None)),
        Value::Number(number) => values.push((name.to_owned(), number.as_f64())),
        Value::String(text) => words.push((name.to_owned(), text.clone())),
        Value::Bool(truth) => words.push((name.to_owned(), truth.to_string())),
        Value::Object(fields) => fields.iter().for_each(|(key, v)| flatten(&format!("{name}.{key}"), v, values, words)),
        Value::Array(entries) => {
            for (i, entry) in entries.iter().enumerate() {
                let own = entry.get("factor").and_then(Value::as_str).map_or(i.to_string(), str::to_owned);
                flatten(&format!("{name}.{own}"), entry, values, words);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(History::read(folder.path()).unwrap(), History::default());
        let metrics = r#"{"kind":"step","epoch":1,"step":1,"loss":2.5,"seconds":9.0,"views_per_s":5.0}
{"kind":"step","epoch":1,"step":2,"loss":null,"non_finite":["loss"]}
{"kind":"epoch","epoch":1,"step":2,"loss":2.5}
{"kind":"eval","epoch":1,"step":2,"backbone":{"nmi":0.5},"factors":[{"factor":"hue","backbone":0.25}]}
{"kind":"collapse","epoch":1,"step":2,"warning":"all <heads> are constant"}
{"kind":"step","epoch":2,"st"#;
        std::fs::write(folder.path().join(METRICS), metrics).unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!((history.unreadable, history.end()), (1, (1, 2)));
        assert_eq!(history.timing, [Timing { step: 1, seconds: 9.0, views_per_s: 5.0 }]);
        let loss = history.series("step", "loss");
        assert!(loss[0] == (1.0, 2.5) && loss[1].1.is_nan() && loss.len() == 2);
        assert_eq!(history.by_epoch("eval", "backbone.nmi"), [(1.0, 0.5)]);
        assert_eq!(history.by_epoch("eval", "factors.hue.backbone"), [(1.0, 0.25)]);
        let warning = history.of("collapse").next().unwrap();
        assert_eq!(warning.words, [("warning".to_owned(), "all <heads> are constant".to_owned())]);
        std::fs::write(
            folder.path().join(TIMING),
            "{\"kind\":\"step\",\"step\":2,\"seconds\":1.5,\"views_per_s\":80}\n",
        )
        .unwrap();
        let history = History::read(folder.path()).unwrap();
        assert_eq!(history.timing, [Timing { step: 2, seconds: 1.5, views_per_s: 80.0 }]);
        let path = folder.path().join("metrics.csv");
        history.write_csv(&path).unwrap();
        let table = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            table.lines().take(3).collect::<Vec<_>>(),
            ["kind,epoch,step,loss,backbone.nmi,factors.hue.backbone", "step,1,1,2.5,,", "step,1,2,,,"]
        );
    }
}
