//! A step that was not finite, as a file: all that is needed to say what happened and to let it happen again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::search::Found;
use super::{Number, OnNan, Site};
use crate::atomic_file::write_atomically;
use crate::data::Dataset;
use crate::data::loader::Position;
use crate::loss::LossValues;
use crate::trainer::BadStep;
use crate::{Error, Result};

/// What `format` says.
const FORMAT: &str = "disentangle.nonfinite";
/// The layout's version: raised when a reader of the previous one would misunderstand.
const FORMAT_VERSION: u32 = 1;
/// The longest file that is read: a batch of 65,536 images with names of 1,000 bytes has less.
const MOST_BYTES: u64 = 80 << 20;
/// Samples that are named on the terminal.
const NAMED: usize = 6;

/// One image of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Its place in the data set, from 0.
    pub id: u64,
    /// Its file, or its place in one.
    pub name: String,
}

/// The loss and its parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    total: Number,
    instance: Number,
    feature: Number,
    entropy: Number,
}

/// What there is to say of a step that was not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// `disentangle.nonfinite`
    format: String,
    format_version: u32,
    /// Version of the program that wrote it.
    program: String,
    /// The epoch in progress, from 1.
    pub epoch: u64,
    /// The step in that epoch, from 1.
    pub step_in_epoch: u64,
    /// Batches since the beginning of the run, this one included.
    pub step: u64,
    /// What the run does after it.
    pub policy: OnNan,
    /// The kind of device.
    pub device: String,
    /// Of the step.
    pub loss: Loss,
    /// The gradient's norm before clipping; NaN also where a running statistic was not finite.
    pub grad_norm: Number,
    /// Whether the step once more, operation by operation, gave the same losses and norm.
    pub repeatable: bool,
    /// The first tensor that was not finite in the step once more.
    pub site: Option<Site>,
    /// Why the step could not be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsearched: Option<String>,
    /// Hash of the batch's views (XXH3, 128 bits).
    pub views: String,
    /// The batch.
    pub samples: Vec<Sample>,
}

/// Where the report of a step lies in a run's folder.
pub fn path_at(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("nonfinite-step{step:06}.json"))
}

/// Where the state before the step lies whose report is at `report`.
pub fn state_path(report: &Path) -> PathBuf {
    report.with_extension("safetensors")
}

impl From<LossValues> for Loss {
    fn from(LossValues { total, instance, feature, entropy }: LossValues) -> Loss {
        let [total, instance, feature, entropy] = [total, instance, feature, entropy].map(Number);
        Loss { total, instance, feature, entropy }
    }
}

/// A step as it was taken: which, on what, with what policy.
pub struct Taken<'a> {
    /// What was found when it was taken.
    pub bad: BadStep,
    /// Batches since the beginning of the run, this one included.
    pub step: u64,
    /// What the run does after it.
    pub policy: OnNan,
    /// The kind of device: [`Backend::NAME`](crate::backend::Backend::NAME).
    pub device: &'a str,
    /// The batch's images.
    pub samples: &'a [usize],
    /// And its views.
    pub views: &'a [u8],
}

impl Report {
    /// The report of a step and of what the [`search`](super::search()) found.
    pub fn new(taken: &Taken, found: &Found, dataset: &Dataset) -> Report {
        let Taken { bad, step, policy, device, samples, views } = *taken;
        let loss = Loss::from(bad.losses);
        let repeatable = loss == found.losses.into() && Number(bad.grad_norm) == Number(found.grad_norm);
        let sample = |&id: &usize| Sample { id: id as u64, name: dataset.name(id).to_owned() };
        Report {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: bad.position.epoch + 1,
            step_in_epoch: bad.position.step + 1,
            step,
            policy,
            device: device.to_owned(),
            loss,
            grad_norm: Number(bad.grad_norm),
            repeatable,
            site: found.site.clone(),
            unsearched: None,
            views: hash(views),
            samples: samples.iter().map(sample).collect(),
        }
    }

    /// Which step it was.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch - 1, step: self.step_in_epoch - 1 }
    }

    /// What happened, in a line.
    pub fn problem(&self) -> String {
        let Loss { total, instance, feature, entropy } = self.loss;
        let loss = if total.0.is_finite() {
            format!("the loss is finite ({total}), the gradient norm is {}", self.grad_norm)
        } else {
            format!("the loss is {total} (instance {instance}, feature {feature}, entropy {entropy})")
        };
        let site = match (&self.site, &self.unsearched) {
            (Some(site), _) => format!("first {site}"),
            (None, Some(why)) => format!("the step could not be repeated ({why})"),
            (None, None) => "nothing was found when the step was repeated".to_owned(),
        };
        let doubt = if self.repeatable {
            ""
        } else {
            "; repeated from the same state the step gave other numbers, which is no fault of the data: check the machine's memory"
        };
        format!("{loss}; {site}{doubt}")
    }

    /// What happened, on which images, in words.
    pub fn words(&self) -> String {
        let Report { epoch, step_in_epoch, step, samples, .. } = self;
        let ids: Vec<String> = samples.iter().take(NAMED).map(|s| format!("{} ({})", s.id, s.name)).collect();
        let more = samples.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        format!(
            "step {step} (epoch {epoch}, its step {step_in_epoch}) is not finite: {}\n  its images: {}{more}",
            self.problem(),
            ids.join(", ")
        )
    }

    /// Writes it at `path`. [`Error::Io`] if the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::format(path, e.to_string()))?;
        write_atomically(path, |file| writeln!(file, "{text}"))
    }

    /// Reads the report at `path`. Errors: [`Error::Io`]; [`Error::Format`], in one line, if it is no report, was written by a
    /// newer version, or makes no sense.
    pub fn load(path: &Path) -> Result<Report> {
        let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        if length > MOST_BYTES {
            return Err(Error::format(path, format!("{length} bytes are too many for a report of a step")));
        }
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Report::parse(&bytes).map_err(|problem| Error::format(path, problem))
    }

    /// Reads a report's bytes, or says in a line what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Report, String> {
        #[derive(Deserialize)]
        struct Header {
            format: String,
            format_version: u32,
            #[serde(default)]
            program: String,
        }
        let header: Header = serde_json::from_slice(bytes).map_err(|e| format!("no report of a step: {e}"))?;
        if header.format != FORMAT {
            return Err("no report of a step of this program".to_owned());
        }
        if header.format_version != FORMAT_VERSION {
            return Err(format!(
                "report format {}, written by disentangle {}; this is {}, which reads format {FORMAT_VERSION}",
                header.format_version,
                header.program.chars().take(20).collect::<String>(),
                env!("CARGO_PKG_VERSION")
            ));
        }
        let report: Report = serde_json::from_slice(bytes).map_err(|e| format!("damaged report of a step: {e}"))?;
        if report.epoch == 0 || report.step_in_epoch == 0 || report.step < report.step_in_epoch {
            return Err("damaged report of a step: epochs and steps count from 1".to_owned());
        }
        if report.samples.len() < 2 {
            return Err("damaged report of a step: a batch has two images or more".to_owned());
        }
        Ok(report)
    }

    /// What another report of the same step says differently, a line each; policy and program do not count.
    pub fn differences(&self, again: &Report) -> Vec<String> {
        let mut lines = Vec::new();
        let mut differ = |what: &str, then: String, now: String| {
            if then != now {
                lines.push(format!("{what}: then {then}, now {now}"));
            }
        };
        let site = |report: &Report| report.site.as_ref().map_or("nothing".to_owned(), Site::to_string);
        let ids = |report: &Report| format!("{:?}", report.samples.iter().map(|s| s.id).collect::<Vec<_>>());
        let names = |report: &Report| report.samples.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(", ");
        differ("step", self.step.to_string(), again.step.to_string());
        differ("samples", ids(self), ids(again));
        differ("names of samples", names(self), names(again));
        differ("hash of the views", self.views.clone(), again.views.clone());
        let parts = |Loss { total, instance, feature, entropy }: Loss| [total, instance, feature, entropy];
        let values = parts(self.loss).into_iter().zip(parts(again.loss));
        for (what, (then, now)) in ["loss", "instance loss", "feature loss", "entropy"].into_iter().zip(values) {
            differ(what, then.to_string(), now.to_string());
        }
        differ("gradient norm", self.grad_norm.to_string(), again.grad_norm.to_string());
        differ("first", site(self), site(again));
        lines
    }
}

/// XXH3 of bytes, as digits.
fn hash(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}
