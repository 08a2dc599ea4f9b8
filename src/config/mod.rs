//! What a run is made of: one struct, its file form, its ranges.
//!
//! Values come in layers, later ones win: built-in defaults (`reference.toml`), preset (`presets.toml`), `--config` file,
//! command-line options, `--set key=value`. [`Overrides::resolve`] stacks them. A run's `config.toml` is the result in
//! full. In the file form "not given" is 0 (or an empty string), because TOML has no null and a later layer must be
//! able to take a value back.

mod checkpoint_every;
mod device;
mod layers;
mod precision;
mod presets;
mod validate;

pub use checkpoint_every::CheckpointEvery;
pub use device::Device;
pub use layers::Overrides;
pub(crate) use layers::did_you_mean;
pub use precision::Precision;
pub use presets::{Preset, presets};

use crate::data::augment::AugmentConfig;
use crate::data::source::{Cifar100Labels, Split};
use crate::nn::{Backbone, Stem};
use crate::nonfinite::OnNan;
use crate::optim::schedule::Schedule;
use crate::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use toml::{Table, Value};

/// Every key with its default and a line of description, in TOML: the built-in defaults are read from this text.
const REFERENCE: &str = include_str!("reference.toml");

/// The full configuration of a run. Units and ranges stand at the fields; [`Config::validate`] enforces them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the images come from: paths, or the word `shapes`; in files also a single string. At least one.
    #[serde(deserialize_with = "one_or_many")]
    pub data: Vec<String>,
    /// Which part of a data set that has parts.
    pub split: Split,
    /// Which of CIFAR-100's two labels to use.
    pub cifar100_labels: Cifar100Labels,
    /// The classes to take, of any source: names, `@FILE`, or a built-in list (`imagenet-10`); none takes all. In files
    /// also a single string with commas between.
    #[serde(default, deserialize_with = "separated_or_many")]
    pub classes: Vec<String>,
    /// Height and width of the network's input in pixels, 8 to 2048.
    pub image_size: usize,
    /// Largest packed copy with decoded pixels, in MiB; beyond it JPEGs are kept as they are and decoded at every use.
    pub cache_mib: usize,
    /// Share of images that may be lost before a run refuses to start, 0 to 1.
    pub max_bad: f64,

    /// The residual network.
    pub backbone: Backbone,
    /// Its first layers.
    pub stem: Stem,
    /// Channels of its first stage, 1 to 1024; 64 is the standard network.
    pub base_width: usize,
    /// Width d of the instance projection, 2 to 65536; `None` (0 in files): the batch size, as in the paper.
    #[serde(with = "zero_is_none")]
    pub projection_dim: Option<usize>,
    /// Number K of feature heads, 2 to 65536; `None` (0 in files): the batch size, as in the paper.
    #[serde(with = "zero_is_none")]
    pub feature_num: Option<usize>,

    /// Weight of the binary entropy in `L_inst + L_feat - alpha L_entropy`, 0 to 1000.
    pub alpha: f64,
    /// Temperature of the instance loss, 0.001 to 1000.
    pub temperature_instance: f64,
    /// Temperature of the feature loss, 0.001 to 1000.
    pub temperature_feature: f64,

    /// Images in a step (each gives two views), 2 to 65536.
    pub batch_size: usize,
    /// Passes over the data, 1 to 1,000,000.
    pub epochs: usize,
    /// Adam's learning rate before the schedule, above 0, to 10.
    pub learning_rate: f64,
    /// How the learning rate changes over the epochs.
    pub schedule: Schedule,
    /// Adam's decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Adam's decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Adam's constant in the denominator, 1.2e-38 (above 0 in single precision) to 1.
    pub adam_eps: f64,
    /// L2 penalty added to the gradient (as PyTorch's Adam), 0 to 1.
    pub weight_decay: f64,
    /// Largest global norm of the gradient, 0 (no clipping) to 1,000,000.
    pub clip_norm: f64,
    /// Seed of initial weights, sample order and augmentation, 0 to 2^63 - 1 (TOML's largest integer).
    pub seed: u64,

    /// Name of the preset the values started from.
    pub preset: String,
    /// Where to compute.
    pub device: Device,
    /// What a GPU computes in.
    #[serde(default)]
    pub precision: Precision,
    /// Worker threads, at most 4096; 0: one a core. Results do not depend on it.
    pub threads: usize,
    /// Folder of the run; empty: chosen from the preset's name.
    pub out: String,
    /// When checkpoints are written, besides the end and before an evaluation.
    pub checkpoint_every: CheckpointEvery,
    /// Checkpoints kept, the newest ones, and the best one as well; 0: all.
    pub keep: usize,
    /// What happens after a step that is not finite.
    #[serde(default)]
    pub on_nan: OnNan,
    /// Steps between lines of the log, at least 1.
    pub log_every: usize,

    /// How views are drawn.
    pub augment: AugmentConfig,
    /// How the representation is scored.
    pub eval: EvalConfig,
}

/// How the representation is scored (the `[eval]` table).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// Epochs between evaluations while training; 0: only at the end.
    pub every: usize,
    /// k of k-means, 2 to 65536; `None` (0 in files): the number of classes in the labels.
    #[serde(with = "zero_is_none")]
    pub clusters: Option<usize>,
    /// Restarts of k-means, 1 to 1000.
    pub restarts: usize,
    /// Seed of k-means, 0 to 2^63 - 1.
    pub seed: u64,
}

/// A key whose value differs between two configurations, values as in TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key, such as `augment.blur`.
    pub key: String,
    /// The value in the configuration that was asked.
    pub mine: String,
    /// The value in the other one.
    pub theirs: String,
}

/// Keys that a resumed run may change and still compute the same numbers.
const FREE_ON_RESUME: [&str; 11] = [
    "preset",
    "device",
    "threads",
    "cache_mib",
    "max_bad", // the data are known by their fingerprint
    "out",
    "checkpoint_every",
    "keep",
    "on_nan", // as long as all is finite; and what was left out is kept
    "log_every",
    "eval", // the whole table
];

/// Keys that a resumed run takes on from an option or `--set` that names them: how long and how fast to descend. All others
/// say which network learns what from which images in which order, and belong to the run from its first step to its last.
const TOLD_ON_RESUME: [&str; 5] = ["epochs", "learning_rate", "schedule", "weight_decay", "clip_norm"];

impl Difference {
    /// True if the difference changes what is trained, so that a resumed run is no longer the uninterrupted one.
    pub fn changes_training(&self) -> bool {
        let top = self.key.split('.').next().unwrap_or(&self.key);
        !FREE_ON_RESUME.contains(&top)
    }

    /// True if a run may go on with the difference where the user asked for it by name.
    pub fn may_be_told(&self) -> bool {
        TOLD_ON_RESUME.contains(&self.key.as_str())
    }
}

impl Default for Config {
    /// The built-in defaults (`reference.toml`). `data` is empty, so they do not validate by themselves.
    fn default() -> Self {
        Config::deserialize(Value::Table(layers::defaults())).expect("reference.toml is tested")
    }
}

impl Config {
    /// Every key with its default and a description, as TOML: the manual of the configuration.
    pub fn reference() -> &'static str {
        REFERENCE
    }

    /// Reads a configuration file's text over the built-in defaults; `origin` names it in errors. The preset it names
    /// is not applied (the file is taken to be in full). Errors: [`Error::Usage`] for bad TOML, unknown keys, wrong
    /// types and values out of range.
    pub fn from_toml(text: &str, origin: &str) -> Result<Config> {
        let mut table = layers::defaults();
        layers::apply(&mut table, layers::parse(text, origin)?, origin)?;
        layers::finish(table)
    }

    /// [`Config::from_toml`] of the file at `path`; [`Error::Io`] if it cannot be read.
    pub fn from_file(path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Config::from_toml(&text, &path.display().to_string())
    }

    /// The configuration in full as TOML, with the comments of [`Config::reference`]. [`Config::from_toml`] reads it back.
    ///
    /// # Panics
    /// If a seed lies beyond TOML's integers, which [`Config::validate`] refuses; so do [`Config::diff`] and
    /// [`Overrides::resolve_over`].
    pub fn to_toml(&self) -> String {
        let mut values = self.leaves().into_iter();
        let mut text = String::new();
        for line in REFERENCE.lines() {
            match line.split_once(" = ") {
                // The struct's fields and the reference's keys come in the same order; a test compares them.
                Some((key, rest)) if !line.starts_with('#') => {
                    let value = values.next().map(|(_, value)| value).unwrap_or_default();
                    let comment = rest.split_once(" # ").map_or("", |(_, comment)| comment);
                    text += &format!("{:<29} # {comment}\n", format!("{key} = {value}"));
                }
                _ => text += &format!("{line}\n"),
            }
        }
        text
    }

    /// The keys whose values differ, in the order of the reference.
    pub fn diff(&self, other: &Config) -> Vec<Difference> {
        let pairs = self.leaves().into_iter().zip(other.leaves());
        let unequal = pairs.filter(|((_, mine), (_, theirs))| mine != theirs);
        unequal.map(|((key, mine), (_, theirs))| Difference { key, mine, theirs }).collect()
    }

    /// Width d of the instance projection.
    pub fn projection_dim(&self) -> usize {
        self.projection_dim.unwrap_or(self.batch_size)
    }

    /// Number K of feature heads.
    pub fn feature_num(&self) -> usize {
        self.feature_num.unwrap_or(self.batch_size)
    }

    /// The configuration as TOML values.
    fn to_table(&self) -> Table {
        Table::try_from(self).expect("a valid configuration has a TOML form")
    }

    /// Every dotted key with its value in TOML, in the order of the reference.
    fn leaves(&self) -> Vec<(String, String)> {
        let table = self.to_table();
        let value = |path: &str| layers::get(&table, path).map(Value::to_string).unwrap_or_default();
        layers::reference_keys().iter().map(|key| (key.clone(), value(key))).collect()
    }
}

/// A list of strings, for which a single one will do.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Strings {
    One(String),
    Many(Vec<String>),
}

/// `data = "x"` and `data = ["x", "y"]` alike.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Strings::deserialize(deserializer)? {
        Strings::One(source) => vec![source],
        Strings::Many(sources) => sources,
    })
}

/// `classes = "x,y"` and `classes = ["x", "y"]` alike.
fn separated_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Strings::deserialize(deserializer)? {
        Strings::One(names) => {
            names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
        }
        Strings::Many(names) => names,
    })
}

/// `None` is written as 0.
mod zero_is_none {
    use super::*;

    pub fn serialize<S: Serializer>(value: &Option<usize>, serializer: S) -> Result<S::Ok, S::Error> {
        value.unwrap_or(0).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
        Ok(Some(usize::deserialize(deserializer)?).filter(|&n| n > 0))
    }
}
