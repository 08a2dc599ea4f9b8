//! The batches of a run on which no step was made: a file, so that a run that is stopped and resumed leaves out the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::atomic_file::write_atomically;
use crate::log::NonFiniteRecord;
use crate::{Error, Result};

/// In the run's folder: a JSON line a batch.
const FILE: &str = "left-out.jsonl";

/// The file and what it holds, by step (from 1, since the beginning of the run).
#[derive(Clone, Debug)]
pub struct LeftOutBatches {
    path: PathBuf,
    records: BTreeMap<u64, NonFiniteRecord>,
}

impl LeftOutBatches {
    /// Those of the run in `folder`; none if there is no such file. Errors if it cannot be read, or makes no sense: without it
    /// the run would not be the same.
    pub fn load(folder: &Path) -> Result<LeftOutBatches> {
        let path = folder.join(FILE);
        let mut records = BTreeMap::new();
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            for (i, line) in text.lines().enumerate() {
                let broken = |problem: String| Error::format(&path, format!("line {}: {problem}", i + 1));
                let record: NonFiniteRecord = serde_json::from_str(line).map_err(|e| broken(e.to_string()))?;
                if record.step == 0 || records.last_key_value().is_some_and(|(&last, _)| last >= record.step) {
                    return Err(broken("steps must count up, from 1".to_owned()));
                }
                records.insert(record.step, record);
            }
        }
        Ok(LeftOutBatches { path, records })
    }

    /// Adds a batch, on the disk when this returns.
    pub fn add(&mut self, record: NonFiniteRecord) -> Result<()> {
        self.records.insert(record.step, record);
        write_atomically(&self.path, |file| {
            self.records.values().try_for_each(|record| {
                serde_json::to_writer(&mut *file, record)?;
                writeln!(file)
            })
        })
    }

    /// What is known of a step, if it is left out.
    pub fn get(&self, step: u64) -> Option<&NonFiniteRecord> {
        self.records.get(&step)
    }

    /// How many are left out behind `step`.
    pub fn after(&self, step: u64) -> u64 {
        self.records.range(step + 1..).count() as u64
    }

    /// How many are left out one after the other, up to `step` inclusive.
    pub fn in_a_row(&self, step: u64) -> u64 {
        (1..=step).rev().take_while(|step| self.records.contains_key(step)).count() as u64
    }

    /// Epoch and step in it, both from 0, of each, with so many steps an epoch.
    pub fn positions(&self, steps_per_epoch: u64) -> BTreeSet<(u64, u64)> {
        let steps = steps_per_epoch.max(1);
        self.records.keys().map(|step| ((step - 1) / steps, (step - 1) % steps)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nonfinite::OnNan;

    #[test]
    fn what_is_left_out_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let record = |step| NonFiniteRecord {
            epoch: 1 + (step - 1) / 4,
            step,
            policy: OnNan::Skip,
            problem: "the loss is NaN".into(),
            report: (step < 7).then(|| format!("nonfinite-step{step:06}.json")),
        };
        let mut batches = LeftOutBatches::load(folder.path()).unwrap();
        assert_eq!(batches.in_a_row(5), 0);
        for step in [7, 5, 6] {
            batches.add(record(step)).unwrap();
        }
        let again = LeftOutBatches::load(folder.path()).unwrap();
        assert_eq!(again.records, batches.records);
        assert_eq!([4, 5, 6, 7, 8].map(|step| again.in_a_row(step)), [0, 1, 2, 3, 0]);
        assert_eq!(again.positions(4), BTreeSet::from([(1, 0), (1, 1), (1, 2)]));
        assert_eq!((again.get(7), again.get(8)), (Some(&record(7)), None));
        for (text, part) in [
            ("{", "line 1"),
            ("{\"epoch\":1,\"step\":1}", "line 1: missing field"),
            ("[]\n", "line 1"),
            ("\u{0}", "line 1"),
        ] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let message = LeftOutBatches::load(folder.path()).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains(FILE), "{message}");
        }
        let line = serde_json::to_string(&record(3)).unwrap();
        std::fs::write(folder.path().join(FILE), format!("{line}\n{line}\n")).unwrap();
        assert!(LeftOutBatches::load(folder.path()).unwrap_err().to_string().contains("line 2: steps must count up"));
    }
}
