//! Commands and options, and how they become a configuration.

use crate::config::{Config, Device, Overrides, presets};
use crate::download::Published;
use crate::nn::Backbone;
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
  disentangle eval runs/shapes                            scores of its newest checkpoint
  disentangle embed runs/shapes/checkpoint-epoch0020.safetensors --data photos/ --out embeddings

Exit codes: 0 done, 1 failed, 2 bad usage.
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
    /// Show what a data set holds: counts, sizes, duplicates, bad files; draw it, and its augmented views.
    Inspect(InspectArgs),
    /// Fetch the archive of a published data set, checked and resumable.
    Download(DownloadArgs),
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
    /// Images: a folder (a subfolder per class, or unlabelled), a .tar or .tar.gz of one, CIFAR-10 or CIFAR-100 in the
    /// binary version, or `shapes`; several --data are joined.
    #[arg(long, value_name = "SRC")]
    pub data: Vec<String>,
    /// Folder for checkpoints, metrics and results [default: a new one under runs/, named after the preset].
    #[arg(long, value_name = "DIR")]
    pub out: Option<String>,
    /// TOML file of configuration keys, such as the config.toml of an earlier run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to compute [default: auto].
    #[arg(long)]
    pub device: Option<Device>,
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
    /// Go on from the newest checkpoint in the run folder, with its configuration.
    #[arg(long)]
    pub resume: bool,
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

/// Options of `inspect`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Every image is decoded once. The report goes to stdout; pictures replace files of the same name. The \
views are those of epoch 0 of a training run with the same options.\nExit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct InspectArgs {
    /// Images, as for `train --data`; several are joined.
    #[arg(value_name = "SRC", required = true)]
    pub data: Vec<String>,
    /// Print one JSON object on stdout, with all names, instead of the text.
    #[arg(long)]
    pub json: bool,
    /// Draw a contact sheet: a row a class, or evenly chosen images where there are no classes.
    #[arg(long, value_name = "PNG")]
    pub grid: Option<PathBuf>,
    /// Images in a row of the contact sheet.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub columns: u32,
    /// Rows of the contact sheet at most.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rows: u32,
    /// Draw some images beside the two augmented views of them that the network will see.
    #[arg(long, value_name = "PNG")]
    pub views: Option<PathBuf>,
    /// How many images.
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub samples: u32,
    /// Preset whose augmentation and size to use, as for `train`.
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// TOML file of configuration keys, such as the config.toml of a run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Side of the views in pixels, 8 to 2048 [default: the preset's].
    #[arg(long, value_name = "PX")]
    pub image_size: Option<u32>,
    /// Seed of the augmentation [default: 42].
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub seed: Option<i64>,
    /// Worker threads; results do not depend on it [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Set any configuration key, such as split=train or augment.blur=0.5; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Options of `download`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The archive stays packed: train on it with --data. A download that was stopped goes on where it \
stopped; the file gets its name only when its size and MD5 are the published ones. Proxies are taken from https_proxy \
and its kin.\nExit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct DownloadArgs {
    /// The data set.
    #[arg(value_name = "DATA_SET")]
    pub data_set: Published,
    /// Folder for the archive; made if missing.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Get it from here: the http:// or https:// address of a folder that holds the archive under its official name.
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
}

/// Options of every command that uses a trained model.
#[derive(Clone, Debug, Default, Args)]
pub struct InferenceArgs {
    /// Number of clusters [default: the number of classes in the labels].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub clusters: Option<u32>,
    /// Where to compute [default: auto].
    #[arg(long)]
    pub device: Option<Device>,
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
            ("out", name(self.out.clone())),
            ("device", name(self.device.map(String::from))),
            ("backbone", name(self.backbone.map(String::from))),
            ("image_size", number(self.image_size)),
            ("batch_size", number(self.batch_size)),
            ("epochs", number(self.epochs)),
            ("seed", self.seed.map(Value::from)),
            ("threads", number(self.threads)),
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

impl InspectArgs {
    /// What the options change in the configuration: see [`Overrides::resolve`].
    pub fn overrides(&self) -> Overrides {
        let given = [
            ("preset", self.preset.clone().map(Value::from)),
            ("data", sources(&self.data)),
            ("image_size", self.image_size.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("threads", self.threads.map(Value::from)),
        ];
        Overrides { file: self.config.clone(), options: present(given), set: self.set.clone() }
    }
}

impl InferenceArgs {
    fn overrides(&self, data: &[String]) -> Overrides {
        let given = [
            ("data", sources(data)),
            ("eval.clusters", self.clusters.map(Value::from)),
            ("device", self.device.map(|device| Value::from(String::from(device)))),
            ("threads", self.threads.map(Value::from)),
        ];
        Overrides { file: None, options: present(given), set: self.set.clone() }
    }
}

/// `--data`, if given.
fn sources(data: &[String]) -> Option<Value> {
    (!data.is_empty()).then(|| Value::from(data.to_vec()))
}

/// The keys that were given.
fn present<const N: usize>(given: [(&'static str, Option<Value>); N]) -> Vec<(&'static str, Value)> {
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
         Ctrl-C stops after the current step and leaves a checkpoint; --resume goes on from it.\n\
         Exit codes: 0 done, 1 failed, 2 bad usage.\n\n\
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
        assert!(help.contains("Exit codes: 0 done, 1 failed, 2 bad usage."));
    }
}
