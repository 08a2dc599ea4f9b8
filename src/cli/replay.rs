//! `replay`: a step that was not finite, once more.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::Value;

use super::args::{present, sources};
use super::{data, on_device, print, resume};
use crate::backend::Backend;
use crate::checkpoint::Checkpoint;
use crate::config::{Config, Device, Overrides, Precision};
use crate::data::Dataset;
use crate::data::loader::{LoaderConfig, draw_batch, steps_per_epoch};
use crate::log::say;
use crate::nonfinite::{Report, Taken, search, state_path};
use crate::trainer::BadStep;
use crate::{Error, Result, run};

/// Options of `replay`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Reads the state beside the report (the same name with .safetensors), draws the same batch, repeats the \
step operation by operation, and compares. Another kind of device rounds otherwise, and may differ.\n\
Exit codes: 0 the report was reproduced, 1 it was not, 2 bad usage."
)]
pub struct ReplayArgs {
    /// A report in a run's folder: nonfinite-stepNNNNNN.json.
    #[arg(value_name = "REPORT")]
    pub report: PathBuf,
    /// The images it was trained on, if they have moved; several --data are joined.
    #[arg(long, value_name = "SRC")]
    pub data: Vec<String>,
    /// Where to compute [default: the kind of device that the report is of].
    #[arg(long, value_name = "auto|cpu|cuda[:N]")]
    pub device: Option<Device>,
    /// What a GPU computes in [default: as it was trained].
    #[arg(long)]
    pub precision: Option<Precision>,
    /// Worker threads; results do not depend on it [default: all cores].
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
}

/// Runs the command. Errors with [`Error::Format`] if the report is not reproduced.
pub fn run(args: &ReplayArgs) -> Result<()> {
    let report = Report::load(&args.report)?;
    let path = state_path(&args.report);
    let checkpoint = Checkpoint::load(&path)?;
    let config = args.overrides(&report).resolve_over(&checkpoint.meta.config)?;
    let (position, meta) = (report.position(), &checkpoint.meta);
    if (position.epoch, position.step) != (meta.epoch, meta.step_in_epoch) {
        return Err(Error::format(&path, format!("the state of another step than that of {}", args.report.display())));
    }
    let dataset = data::load(&config)?;
    resume::same_data(&args.report, &checkpoint.meta.data, &run::stamp(&dataset))?;
    let steps = steps_per_epoch(dataset.len(), config.batch_size);
    if report.samples.len() != config.batch_size || position.step >= steps {
        let problem = format!(
            "a step of epoch {} with {} images: its run has {steps} steps an epoch, of {} images",
            report.epoch,
            report.samples.len(),
            config.batch_size
        );
        return Err(Error::format(&args.report, problem));
    }
    on_device!(&config, backend => repeat(&backend, &config, &checkpoint, &dataset, &report, [&args.report, &path]))
}

fn repeat<B: Backend>(
    backend: &B,
    config: &Config,
    checkpoint: &Checkpoint,
    dataset: &Dataset,
    report: &Report,
    [report_path, path]: [&Path; 2],
) -> Result<()> {
    let position = report.position();
    if B::NAME != report.device {
        say(&format!("the report is of a run on {}: here it may differ", report.device.escape_debug()));
    }
    let batch = draw_batch(dataset, &LoaderConfig::new(config, position), position)?;
    let found = search(backend, config, checkpoint, &batch.views).map_err(|e| match e {
        Error::Shape { .. } => Error::format(path, e.to_string()),
        e => e,
    })?;
    let again = Report::new(
        &Taken {
            bad: BadStep { position, losses: found.losses, grad_norm: found.grad_norm },
            step: position.epoch * steps_per_epoch(dataset.len(), config.batch_size) + position.step + 1,
            policy: report.policy,
            device: B::NAME,
            samples: &batch.samples,
            views: &batch.views,
        },
        &found,
        dataset,
    );
    let differences = report.differences(&again);
    if differences.is_empty() {
        print(&format!("{}\nreproduced: all of it is as the report says", again.words()));
        return Ok(());
    }
    print(&differences.join("\n"));
    Err(Error::format(report_path, format!("not reproduced: {} of its lines differ", differences.len())))
}

impl ReplayArgs {
    fn overrides(&self, report: &Report) -> Overrides {
        let kind = || match report.device.as_str() {
            "cuda" => Device::Cuda(0),
            _ => Device::Cpu,
        };
        let device = self.device.unwrap_or_else(kind);
        let given = [
            ("data", sources(&self.data)),
            ("device", Some(Value::from(String::from(device)))),
            ("precision", self.precision.map(|precision| Value::from(String::from(precision)))),
            ("threads", self.threads.map(Value::from)),
        ];
        Overrides { file: None, options: present(given), set: Vec::new() }
    }
}
