//! What a run says while it runs: `metrics.jsonl` and `timing.jsonl` for programs, one line or bar on the terminal for
//! people.
//!
//! Equal runs write equal bytes to `metrics.jsonl`: whatever the clock says goes to `timing.jsonl`.

mod lines;
mod progress;

pub use lines::{JsonLines, Rewound};
pub use progress::{Plan, Progress};

use crate::eval::Evaluation;
use crate::eval::collapse::Health;
use crate::nonfinite::OnNan;
use serde::{Deserialize, Serialize};
use std::io::Write;

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
    /// In place of an optimiser step.
    NonFinite(NonFiniteRecord),
    /// After an epoch.
    Collapse(CollapseRecord),
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
    /// Images a second, each view counted. Not in `metrics.jsonl`: see [`Timing`].
    #[serde(skip)]
    pub views_per_s: f64,
    /// Seconds since training started; a resumed run goes on counting from its checkpoint's. Not in `metrics.jsonl`.
    #[serde(skip)]
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
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Epochs completed.
    pub epoch: u64,
    /// Steps since the beginning of the run.
    pub step: u64,
    /// What was found.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// One line of `timing.jsonl`: how long what `metrics.jsonl` tells took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// `step`, `epoch`, `eval`, `collapse` or `nonfinite`, as in `metrics.jsonl`.
    pub kind: &'static str,
    /// Steps since the beginning of the run.
    pub step: u64,
    /// Seconds since training started, evaluations included; a resumed run goes on counting from its checkpoint's.
    pub seconds: f64,
    /// Images a second, each view counted: of a step, or over the part of an epoch that this process trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views_per_s: Option<f64>,
    /// Seconds that an evaluation or a look for collapse took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took: Option<f64>,
}

impl Timing {
    /// The record as one line of JSON, without the newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of numbers is JSON")
    }
}

/// How far the representation is from collapse, on a sample of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollapseRecord {
    /// Epochs completed.
    pub epoch: u64,
    /// Steps since the beginning of the run.
    pub step: u64,
    /// What was found.
    #[serde(flatten)]
    pub health: Health,
}

/// A batch on which no step was made, as it would not have been finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonFiniteRecord {
    /// The epoch in progress, from 1.
    pub epoch: u64,
    /// Batches since the beginning of the run, this one included.
    pub step: u64,
    /// What the run does after it.
    pub policy: OnNan,
    /// What was not finite, in words.
    pub problem: String,
    /// The report in the run's folder, unless there are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::collapse::{HeadActivity, Spread};
    use crate::eval::metrics::Scores;

    /// A step whose numbers follow from its position.
    pub(super) fn step(step: u64) -> StepRecord {
        let loss = step as f64 / 4.0;
        StepRecord {
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
        }
    }

    #[test]
    fn numbers_that_json_lacks_are_null_and_named() {
        assert_eq!(
            Record::Step(step(2)).to_json(),
            r#"{"kind":"step","epoch":1,"step":2,"loss":0.5,"loss_instance":0.5,"loss_feature":0.25,"entropy":1.0,"learning_rate":0.001,"grad_norm":2.0}"#
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
        let eval = Record::Eval(EvalRecord { epoch: 1, step: 10, evaluation });
        assert_eq!(
            eval.to_json(),
            r#"{"kind":"eval","epoch":1,"step":10,"images":100,"clusters":6,"backbone":{"nmi":null,"ari":0.5,"acc":null},"spread":{"variance":1.0,"effective_rank":2.0},"heads":{"mean":0.5,"deviation":0.25,"constant_heads":0},"non_finite":["backbone.acc","backbone.nmi"]}"#
        );
    }

    #[test]
    fn times_stand_apart() {
        let timing = Timing { kind: "step", step: 2, seconds: 3.0, views_per_s: Some(1234.5), took: None };
        assert_eq!(timing.to_json(), r#"{"kind":"step","step":2,"seconds":3.0,"views_per_s":1234.5}"#);
    }
}
