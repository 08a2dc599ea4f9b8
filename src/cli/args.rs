//! Commands and options, and how they become a configuration.

pub use super::download::DownloadArgs;
pub use super::inspect::InspectArgs;
pub use super::pack::{PackArgs, VerifyArgs};
pub use super::replay::ReplayArgs;
use crate::config::{CheckpointEvery, Config, Device, Overrides, Precision, presets};
use crate::nn::Backbone;
use crate::nonfinite::OnNan;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use toml::Value;

const EXAMPLES: &str = "\
Examples:
  disentangle train                                       the built-in shapes: nothing to download
  disentangle train --data photos/ --epochs 50            your own images: a folder or a .tar
  disentangle inspect photos/ --grid grid.png --views views.png
  disentangle download cifar10 --to data
  disentangle train --data data/cifar-10-binary.tar.gz --preset cifar10 --dry-run
  disentangle train --out runs/shapes --resume            go on where a run stopped
  disentangle pack photos/ photos.pack                    one file, read in place: train --data photos.pack
  disentangle eval runs/shapes                            scores of its newest checkpoint
  disentangle embed runs/shapes/checkpoint-epoch0020.safetensors --data photos/ --out embeddings

Exit codes: 0 done, 1 failed, 2 bad usage, 130 stopped by SIGINT (Ctrl-C), 143 by SIGTERM.
`disentangle COMMAND --help` explains a command; `train --help` lists all presets and configuration keys.";

/// Contrastive Disentangling: learns from unlabelled images, without labels, what makes them differ.
#[derive(Clone, Debug, Parser)]
#[command(name = "disentangle", bin_name = "disentangle", version, max_term_width = 120, after_help = EXAMPLES, subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Train on images, evaluate, and leave everything in a run folder.
    Train(Box<TrainArgs>),
    /// Score a trained model: k-means on pixels and features against the labels.
    Eval(EvalArgs),
    /// Write representations, clusters and labels of images as NumPy arrays and a table.
    Embed(EmbedArgs),
    /// Pack images into one file that opens at once and is read in place.
    Pack(PackArgs),
    /// Check every byte of a packed file.
    Verify(VerifyArgs),
    /// Show what a data set holds: counts, sizes, duplicates, bad files; draw it, and its augmented views.
    Inspect(InspectArgs),
    /// Fetch the archive of a published data set, checked and resumable.
    Download(DownloadArgs),
    /// Repeat a step that was not finite, from the report in its run's folder, and compare.
    Replay(ReplayArgs),
    /// Show version, machine, devices and presets.
    Info,
}

/// Options of `train`. All but `--config`, `--resume`, `--set` and `--dry-run` are configuration keys as well.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "`--help` also lists all presets and configuration keys.", after_long_help = train_manual())]
pub struct TrainArgs {
    /// Starting point of the configuration; without it `shapes`, or `images` if --data names your own.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Images: a folder (a subfolder per class, or unlabelled), a .tar or .tar.gz of one, CIFAR or STL-10 in the binary
    /// version, a .npy array, a list of files (.txt, .csv, .tsv), or `shapes`; several --data are joined.
    #[arg(long, value_name = "SRC")]
    pub data: Vec<String>,
    /// Take these classes only: names with commas between, @FILE with a name a line, or `imagenet-10`; '' takes all.
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1)]
    pub classes: Option<Vec<String>>,
    /// Folder for checkpoints, metrics and results [default: a new one under runs/, named after the preset].
    #[arg(long, value_name = "DIR")]
    pub out: Option<String>,
    /// TOML file of configuration keys, such as the config.toml of an earlier run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to compute [default: auto].
    #[arg(long, value_name = "auto|cpu|cuda[:N]")]
    pub device: Option<Device>,
    /// What a GPU computes in [default: bf16].
    #[arg(long)]
    pub precision: Option<Precision>,
    /// Residual network [default: the preset's].
    #[arg(long)]
    pub backbone: Option<Backbone>,
    /// Side of the network's input in pixels, 8 to 2048 [default: the preset's].
    #[arg(long, value_name = "PX")]
    pub image_size: Option<u32>,
    /// Images in a step, before the two views, 2 to 65536 [default: the preset's].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<u32>,
    /// Passes over the data [default: the preset's].
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
    /// Seed of weights, order and augmentation; the same seed gives the same bits [default: 42].
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: Option<i64>,
    /// Worker threads; results do not depend on it [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// When to write checkpoints besides the one at the end: a list of N epochs, steps, s, m, h, or `end` [default:
    /// 1epoch,10m].
    #[arg(long, value_name = "1epoch,500steps,10m")]
    pub checkpoint_every: Option<CheckpointEvery>,
    /// Checkpoints kept: so many of the newest, and the best; 0 keeps all [default: 2].
    #[arg(long, value_name = "N")]
    pub keep: Option<u32>,
    /// After a step whose loss, gradient or statistics are not finite: end the run; go on with the next batch from the state
    /// before it; or go back to the last checkpoint and leave the batch out [default: stop].
    #[arg(long, value_name = "stop|skip|rollback", hide_possible_values = true)]
    pub on_nan: Option<OnNan>,
    /// Go on from the newest checkpoint in the run folder, with its configuration.
    #[arg(long)]
    pub resume: bool,
    /// Share of images that may be lost, such as 1%, before a run refuses to start [default: 50%].
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_bad: Option<f64>,
    /// Set any configuration key; repeatable. The value is TOML, a bare word is a string; `augment.blur` may be just `blur`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the resolved configuration, the number of parameters and estimates of memory and time, and stop.
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `eval`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Scores are NMI (arithmetic mean), ARI and ACC (best assignment). Images without labels are \
clustered but not scored.\nExit codes: 0 done, 1 failed, 2 bad usage.")]
pub struct EvalArgs {
    /// A run folder (its newest checkpoint is taken) or a checkpoint.
    #[arg(value_name = "RUN_OR_CHECKPOINT")]
    pub model: PathBuf,
    /// Images to evaluate [default: those it was trained on].
    #[arg(long, value_name = "SRC")]
    pub data: Vec<String>,
    /// Print one JSON object on stdout instead of a table.
    #[arg(long)]
    pub json: bool,
    /// What `eval` and `embed` share.
    #[command(flatten)]
    pub common: InferenceArgs,
}

/// Options of `embed`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Writes h.npy (backbone), z.npy (projection), y.npy (feature heads), float32, one row an image, and \
a table of file names, labels and clusters in the same order.\nExit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct EmbedArgs {
    /// A checkpoint, or a run folder (its newest checkpoint is taken).
    #[arg(value_name = "CHECKPOINT")]
    pub model: PathBuf,
    /// Images to embed; several --data are joined.
    #[arg(long, value_name = "SRC", required = true)]
    pub data: Vec<String>,
    /// Folder for the arrays and the table; made if missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What `eval` and `embed` share.
    #[command(flatten)]
    pub common: InferenceArgs,
}

/// A share: `1%` or `0.01`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent, 100.0));
    let share = number.trim().parse::<f64>().map(|number| number / unit).ok();
    share.filter(|share| (0.0..=1.0).contains(share)).ok_or("expected a share, such as 1% or 0.01".into())
}

/// Options of every command that uses a trained model.
#[derive(Clone, Debug, Default, Args)]
pub struct InferenceArgs {
    /// Take these classes only: names with commas between, @FILE with a name a line, or `imagenet-10`; '' takes all
    /// [default: as it was trained].
    #[arg(long, value_name = "LIST", value_delimiter = ',', num_args = 1)]
    pub classes: Option<Vec<String>>,
    /// Number of clusters [default: the number of classes in the labels].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub clusters: Option<u32>,
    /// Where to compute [default: auto].
    #[arg(long, value_name = "auto|cpu|cuda[:N]")]
    pub device: Option<Device>,
    /// What a GPU computes in [default: as it was trained].
    #[arg(long)]
    pub precision: Option<Precision>,
    /// Worker threads; results do not depend on it [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Set any configuration key for this evaluation, such as eval.restarts=20; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl TrainArgs {
    /// What the options change in the configuration: [`Overrides::resolve`] it, or on `--resume`
    /// [`Overrides::resolve_over`] the run's own.
    pub fn overrides(&self) -> Overrides {
        let number = |n: Option<u32>| n.map(Value::from);
        let name = |choice: Option<String>| choice.map(Value::from);
        let given = [
            ("preset", name(self.preset.clone())),
            ("data", sources(&self.data)),
            ("classes", classes(self.classes.as_deref())),
            ("out", name(self.out.clone())),
            ("device", name(self.device.map(String::from))),
            ("precision", name(self.precision.map(String::from))),
            ("backbone", name(self.backbone.map(String::from))),
            ("image_size", number(self.image_size)),
            ("batch_size", number(self.batch_size)),
            ("epochs", number(self.epochs)),
            ("seed", self.seed.map(Value::from)),
            ("threads", number(self.threads)),
            ("checkpoint_every", name(self.checkpoint_every.map(String::from))),
            ("on_nan", name(self.on_nan.map(String::from))),
            ("keep", number(self.keep)),
            ("max_bad", self.max_bad.map(Value::from)),
        ];
        Overrides { file: self.config.clone(), options: present(given), set: self.set.clone() }
    }
}

impl EvalArgs {
    /// What the options change in the model's configuration: see [`Overrides::resolve_over`].
    pub fn overrides(&self) -> Overrides {
        self.common.overrides(&self.data)
    }
}

impl EmbedArgs {
    /// What the options change in the model's configuration: see [`Overrides::resolve_over`].
    pub fn overrides(&self) -> Overrides {
        self.common.overrides(&self.data)
    }
}

impl InferenceArgs {
    fn overrides(&self, data: &[String]) -> Overrides {
        let given = [
            ("data", sources(data)),
            ("classes", classes(self.classes.as_deref())),
            ("eval.clusters", self.clusters.map(Value::from)),
            ("device", self.device.map(|device| Value::from(String::from(device)))),
            ("precision", self.precision.map(|precision| Value::from(String::from(precision)))),
            ("threads", self.threads.map(Value::from)),
        ];
        Overrides { file: None, options: present(given), set: self.set.clone() }
    }
}

/// `--data`, if given.
pub(super) fn sources(data: &[String]) -> Option<Value> {
    (!data.is_empty()).then(|| Value::from(data.to_vec()))
}

/// `--classes`, if given; an empty one takes back what was chosen before.
pub(super) fn classes(names: Option<&[String]>) -> Option<Value> {
    Some(Value::from(chosen(names?)))
}

/// The names in a list that was split at its commas.
pub(super) fn chosen(names: &[String]) -> Vec<String> {
    names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The keys that were given.
pub(super) fn present<const N: usize>(given: [(&'static str, Option<Value>); N]) -> Vec<(&'static str, Value)> {
    given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// The presets, a line each.
pub fn preset_lines() -> String {
    let width = presets().iter().map(|preset| preset.name.len()).max().unwrap_or(0);
    presets().iter().map(|preset| format!("  {:width$}  {}\n", preset.name, preset.description)).collect()
}

/// What `train --help` says after the options.
fn train_manual() -> String {
    format!(
        "Values come in this order, later ones win: the defaults below, --preset, --config, options, --set.\n\
         An unknown key or a value out of range is an error that names it.\n\
         Signals: SIGINT (Ctrl-C) and SIGTERM stop after the current step and leave a checkpoint, from which --resume goes\n\
         on; a second one stops at once. SIGUSR1 leaves a checkpoint and goes on.\n\
         Exit codes: 0 done, 1 failed, 2 bad usage, 130 stopped by SIGINT, 143 by SIGTERM.\n\n\
         Presets:\n{}\n\
         Configuration keys and their defaults, as in a --config file:\n\n{}",
        preset_lines(),
        Config::reference()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    /// The configuration that `train` with these words runs with, or the message and exit code.
    fn train(words: &str) -> Result<Config, (String, i32)> {
        let line = format!("disentangle train {words}");
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|e| (e.to_string(), e.exit_code()))?;
        let Command::Train(args) = cli.command else { panic!("another command") };
        args.overrides().resolve().map_err(|e| (e.to_string(), e.exit_code().into()))
    }

    #[test]
    fn options_become_configuration() {
        Cli::command().debug_assert();
        assert_eq!(train("").unwrap().preset, "shapes");
        assert_eq!(
            train("--data a --classes cat,dog --classes @more.txt").unwrap().classes,
            ["cat", "dog", "@more.txt"]
        );
        assert_eq!(train("--data a --set classes=imagenet-10").unwrap().classes, ["imagenet-10"]);
        assert_eq!(train("--data a --set classes=cat,dog --classes=").unwrap().classes, ["cat", "dog"]);
        let config = train(
            "--data a --data b --preset cifar10 --backbone 50 --image-size 48 --batch-size 64 --epochs 3 --seed 9 \
             --threads 2 --device cpu --out here --set blur=0.5 --set stem=cifar --set epochs=4",
        )
        .unwrap();
        assert_eq!(
            (config.data, config.preset.as_str(), config.backbone),
            (vec!["a".into(), "b".into()], "cifar10", Backbone::ResNet50)
        );
        assert_eq!((config.image_size, config.batch_size, config.epochs, config.seed), (48, 64, 4, 9));
        assert_eq!((config.threads, config.device, config.out.as_str()), (2, Device::Cpu, "here"));
        assert_eq!((config.augment.blur, config.augment.crop_scale), (0.5, [0.2, 1.0]));
    }

    #[test]
    fn bad_usage_has_code_2_and_a_way_out() {
        for (words, expected) in [
            ("--batch-size 1", "batch_size = 1: must be 2 to 65536"),
            ("--preset cifar11 --data x", "did you mean 'cifar10'"),
            ("--set epoch=3", "unknown key 'epoch' in --set: did you mean 'epochs'?"),
            ("--backbone resnet19", "[possible values: resnet18, resnet34, resnet50]"),
            ("--epoch 3", "'--epochs'"),
            ("--seed -1", "--seed"),
            ("--preset cifar10", "give --data PATH"),
        ] {
            let (message, code) = train(words).unwrap_err();
            assert!(message.contains(expected) && code == 2, "{words}: {message}");
        }
    }

    #[test]
    fn a_model_is_used_with_its_own_configuration() {
        let trained = train("--data x.tar --set eval.restarts=3").unwrap();
        let words = ["disentangle", "eval", "runs/x", "--clusters", "6", "--json", "--set", "restarts=4"];
        let Command::Eval(args) = Cli::try_parse_from(words).unwrap().command else { panic!("another command") };
        let config = args.overrides().resolve_over(&trained).unwrap();
        assert_eq!((config.eval.clusters, config.eval.restarts, args.json), (Some(6), 4, true));
        assert_eq!((config.data, config.preset), (vec!["x.tar".to_owned()], trained.preset));
        let words = ["disentangle", "embed", "c.safetensors", "--out", "e"];
        assert_eq!(Cli::try_parse_from(words).unwrap_err().kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn help_needs_no_manual() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("train").unwrap().render_long_help().to_string();
        for line in Config::reference().lines().filter(|line| !line.is_empty()) {
            assert!(help.contains(line), "{line}");
        }
        assert!(presets().iter().all(|preset| help.contains(&preset.description)));
        assert!(help.contains("Exit codes: 0 done, 1 failed, 2 bad usage, 130 stopped by SIGINT, 143 by SIGTERM."));
    }
}
