//! What a run says while it runs: `metrics.jsonl` for programs, one line or bar on the terminal for people.

use crate::atomic_file::write_atomically;
use crate::eval::Evaluation;
use crate::{Error, Result};
use indicatif::{FormattedDuration, HumanCount, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Prints a line on stderr. That its reader has gone (`2>&1 | head`) is no error, and must not end a run (as the panic of
/// `eprintln!` would).
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// One line of `metrics.jsonl`, told apart by its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// After an optimiser step.
    Step(StepRecord),
    /// After an epoch.
    Epoch(EpochRecord),
    /// After an evaluation.
    Eval(EvalRecord),
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// The epoch in progress, from 1.
    pub epoch: u64,
    /// Steps since the beginning of the run, from 1.
    pub step: u64,
    /// `loss_instance + loss_feature - alpha * entropy`.
    pub loss: f64,
    /// The instance loss.
    pub loss_instance: f64,
    /// The feature loss.
    pub loss_feature: f64,
    /// Mean binary entropy of the heads, bits.
    pub entropy: f64,
    /// Adam's learning rate in this step.
    pub learning_rate: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Images a second, each view counted.
    pub views_per_s: f64,
    /// Seconds since training started; a resumed run goes on counting from its checkpoint's.
    pub seconds: f64,
}

/// One pass over the data; losses are means over its steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochRecord {
    /// The epoch just completed, from 1.
    pub epoch: u64,
    /// Steps since the beginning of the run.
    pub step: u64,
    /// `loss_instance + loss_feature - alpha * entropy`.
    pub loss: f64,
    /// The instance loss.
    pub loss_instance: f64,
    /// The feature loss.
    pub loss_feature: f64,
    /// Mean binary entropy of the heads, bits.
    pub entropy: f64,
    /// Adam's learning rate in this epoch.
    pub learning_rate: f64,
    /// Images a second, each view counted, over the epoch.
    pub views_per_s: f64,
    /// Seconds since training started.
    pub seconds: f64,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalRecord {
    /// Epochs completed.
    pub epoch: u64,
    /// Steps since the beginning of the run.
    pub step: u64,
    /// What was found.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Seconds the evaluation took.
    pub seconds: f64,
}

/// A record as it is written. JSON has no NaN and no infinity: they become `null`, and `non_finite` names them.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    non_finite: Vec<String>,
}

impl Record {
    /// The record as one line of JSON, without the newline.
    pub fn to_json(&self) -> String {
        let value = serde_json::to_value(self).expect("a struct of numbers is JSON");
        let line = Line { record: self, non_finite: nulls(&value, "") };
        serde_json::to_string(&line).expect("a struct of numbers is JSON")
    }
}

/// Dotted names of everything that is `null`.
fn nulls(value: &serde_json::Value, name: &str) -> Vec<String> {
    match value {
        serde_json::Value::Null => vec![name.to_owned()],
        serde_json::Value::Object(fields) => {
            let dot = if name.is_empty() { "" } else { "." };
            fields.iter().flat_map(|(key, value)| nulls(value, &format!("{name}{dot}{key}"))).collect()
        }
        _ => Vec::new(),
    }
}

/// The file `metrics.jsonl`: every record is on the way to the disk when [`MetricsLog::write`] returns.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

/// What [`truncate_after`] did, in lines, and where it left the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rewound {
    /// Lines kept.
    pub kept: usize,
    /// Lines of later steps, which the resumed run will write again.
    pub later: usize,
    /// Lines that are no records, such as the last one of a run that was killed.
    pub broken: usize,
    /// Seconds from the start of training to the last step that was kept.
    pub seconds: f64,
}

impl MetricsLog {
    /// Starts an empty log at `path`. [`Error::Io`] if that cannot be written.
    pub fn create(path: &Path) -> Result<MetricsLog> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        Ok(MetricsLog { path: path.to_path_buf(), file })
    }

    /// Goes on with the log at `path` (empty if there is none) as it stood after `step`: see [`truncate_after`].
    pub fn resume(path: &Path, step: u64) -> Result<(MetricsLog, Rewound)> {
        let rewound = if path.exists() { truncate_after(path, step)? } else { Rewound::default() };
        let file = File::options().append(true).create(true).open(path).map_err(Error::io("open", path))?;
        Ok((MetricsLog { path: path.to_path_buf(), file }, rewound))
    }

    /// Appends `record`. [`Error::Io`] if the disk refuses.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        // One write a line, so that a killed run leaves at most one broken line.
        self.file.write_all((record.to_json() + "\n").as_bytes()).map_err(Error::io("write", &self.path))
    }
}

/// Removes from the log at `path` what a run resumed after `step` will write again: lines of later steps, and broken
/// lines. The file is replaced as a whole, and only if something goes.
pub fn truncate_after(path: &Path, step: u64) -> Result<Rewound> {
    #[derive(Deserialize)]
    struct Position {
        kind: String,
        step: u64,
        seconds: Option<f64>,
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut rewound = Rewound::default();
    let mut kept = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        match serde_json::from_slice::<Position>(line) {
            Ok(position) if position.step > step => rewound.later += 1,
            Ok(position) if line.ends_with(b"\n") => {
                rewound.kept += 1;
                if position.kind == "step" {
                    rewound.seconds = position.seconds.unwrap_or(rewound.seconds);
                }
                kept.extend_from_slice(line);
            }
            _ => rewound.broken += 1,
        }
    }
    if kept.len() < bytes.len() {
        write_atomically(path, |file| file.write_all(&kept))?;
    }
    Ok(rewound)
}

/// What a run intends to do, for its progress display.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Epochs in the whole run.
    pub epochs: u64,
    /// Steps in the whole run.
    pub steps: u64,
    /// Steps taken before this process (a resumed run), else 0.
    pub steps_before: u64,
    /// Steps between plain lines, at least 1.
    pub log_every: u64,
}

/// The run on the terminal: a bar with loss, views/s and time left, or plain lines where stderr is no terminal.
#[derive(Debug)]
pub struct Progress {
    plan: Plan,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts the clock, and the bar if stderr is a terminal.
    pub fn new(plan: Plan) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] step {human_pos}/{human_len}  {msg}");
            let style = style.expect("the template is constant").progress_chars("=> ");
            ProgressBar::new(plan.steps).with_position(plan.steps_before).with_style(style)
        });
        Progress { plan, started: Instant::now(), bar }
    }

    /// Shows a step: moves the bar, or prints a line every `log_every` steps and at the last one.
    pub fn step(&self, record: &StepRecord) {
        let epoch = format!("epoch {}/{}", record.epoch, self.plan.epochs);
        let left = time_left(self.started.elapsed(), record.step, &self.plan);
        if let Some(bar) = &self.bar {
            bar.set_prefix(epoch);
            bar.set_message(figures(record, left));
            bar.set_position(record.step);
        } else if record.step.is_multiple_of(self.plan.log_every.max(1)) || record.step == self.plan.steps {
            say(&format!("{epoch}  step {}/{}  {}", record.step, self.plan.steps, figures(record, left)));
        }
    }

    /// Prints a line of its own, above the bar if there is one.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Leaves the display as it is and ends it.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Loss, speed and time left.
fn figures(record: &StepRecord, left: Option<Duration>) -> String {
    let speed = HumanCount(record.views_per_s.round() as u64);
    let left = left.map_or_else(|| "?".to_owned(), |left| FormattedDuration(left).to_string());
    format!("loss {:.4}  {speed} views/s  ETA {left}", record.loss)
}

/// Time left if the rest goes at this process's mean speed; `None` before its first step.
fn time_left(elapsed: Duration, step: u64, plan: &Plan) -> Option<Duration> {
    let done = step.checked_sub(plan.steps_before).filter(|&done| done > 0)?;
    let seconds = elapsed.as_secs_f64() * plan.steps.saturating_sub(step) as f64 / done as f64;
    Duration::try_from_secs_f64(seconds.round()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::collapse::{HeadActivity, Spread};
    use crate::eval::metrics::Scores;

    /// A step whose numbers follow from its position.
    fn step(step: u64) -> Record {
        let loss = step as f64 / 4.0;
        Record::Step(StepRecord {
            epoch: 1 + step / 10,
            step,
            loss,
            loss_instance: 0.5,
            loss_feature: 0.25,
            entropy: 1.0,
            learning_rate: 1e-3,
            grad_norm: 2.0,
            views_per_s: 1234.4,
            seconds: 1.5 * step as f64,
        })
    }

    #[test]
    fn numbers_that_json_lacks_are_null_and_named() {
        assert_eq!(
            step(2).to_json(),
            r#"{"kind":"step","epoch":1,"step":2,"loss":0.5,"loss_instance":0.5,"loss_feature":0.25,"entropy":1.0,"learning_rate":0.001,"grad_norm":2.0,"views_per_s":1234.4,"seconds":3.0}"#
        );
        let bad = Scores { nmi: f64::NAN, ari: 0.5, acc: f64::INFINITY };
        let evaluation = Evaluation {
            images: 100,
            clusters: Some(6),
            pixels: None,
            untrained: None,
            backbone: Some(bad),
            feature: None,
            factors: Vec::new(),
            spread: Spread { variance: 1.0, effective_rank: 2.0 },
            heads: HeadActivity { mean: 0.5, deviation: 0.25, constant_heads: 0 },
        };
        let eval = Record::Eval(EvalRecord { epoch: 1, step: 10, evaluation, seconds: f64::NEG_INFINITY });
        assert_eq!(
            eval.to_json(),
            r#"{"kind":"eval","epoch":1,"step":10,"images":100,"clusters":6,"backbone":{"nmi":null,"ari":0.5,"acc":null},"spread":{"variance":1.0,"effective_rank":2.0},"heads":{"mean":0.5,"deviation":0.25,"constant_heads":0},"seconds":null,"non_finite":["backbone.acc","backbone.nmi","seconds"]}"#
        );
    }

    #[test]
    fn a_resumed_log_holds_every_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let write = |log: &mut MetricsLog, steps: std::ops::RangeInclusive<u64>| {
            steps.for_each(|n| log.write(&step(n)).unwrap());
        };
        write(&mut MetricsLog::create(&path).unwrap(), 1..=20);
        let uninterrupted = std::fs::read_to_string(&path).unwrap();
        // Killed in the middle of line 16, checkpoint at step 12.
        let torn: usize = uninterrupted.split_inclusive('\n').take(15).map(str::len).sum::<usize>() + 40;
        std::fs::write(&path, &uninterrupted[..torn]).unwrap();
        let (mut log, rewound) = MetricsLog::resume(&path, 12).unwrap();
        assert_eq!(rewound, Rewound { kept: 12, later: 3, broken: 1, seconds: 18.0 });
        write(&mut log, 13..=20);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), uninterrupted);
        assert_eq!(MetricsLog::resume(&path, 20).unwrap().1, Rewound { kept: 20, later: 0, broken: 0, seconds: 30.0 });
        // A whole line without its newline would swallow the next one.
        std::fs::write(&path, uninterrupted.trim_end()).unwrap();
        assert_eq!(MetricsLog::resume(&path, 20).unwrap().1, Rewound { kept: 19, later: 0, broken: 1, seconds: 28.5 });
        assert_eq!(MetricsLog::resume(&folder.path().join("new"), 20).unwrap().1, Rewound::default());
        assert!(MetricsLog::create(&folder.path().join("missing/x")).is_err());
    }

    #[test]
    fn time_left_counts_only_the_steps_of_this_process() {
        let plan = Plan { epochs: 2, steps: 100, steps_before: 50, log_every: 10 };
        let after = |step| time_left(Duration::from_secs(10), step, &plan);
        assert_eq!(
            [after(50), after(40), after(60), after(100)].map(|t| t.map(|t| t.as_secs())),
            [None, None, Some(40), Some(0)]
        );
        let Record::Step(record) = step(60) else { unreachable!() };
        assert_eq!(figures(&record, after(60)), "loss 15.0000  1,234 views/s  ETA 00:00:40");
        assert_eq!(figures(&StepRecord { loss: f64::NAN, ..record }, None), "loss NaN  1,234 views/s  ETA ?");
    }
}
