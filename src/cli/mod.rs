//! The command line: a file a command.

pub mod args;
mod cluster;
mod compare;
mod data;
mod download;
mod dry_run;
mod embed;
mod eval;
mod explain;
pub mod info;
mod inspect;
mod interrupt;
mod pack;
mod report;
mod train;

use std::io::Write;

use self::args::{Cli, Command};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::Cuda;
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Device, Overrides};
use crate::data::Dataset;
use crate::eval::embed::{Embeddings, embed};
use crate::log::say;
use crate::model::Model;
use crate::nn::Params;
use crate::train::Outcome;
use crate::trainer::architecture;
use crate::{Error, Result, snapshot};

/// Exit code of a run that Ctrl-C stopped, after its checkpoint: what shells use for it.
pub const INTERRUPTED: u8 = 130;

/// Runs a command; the result is the exit code: 0 done, [`INTERRUPTED`] stopped. Errors carry their own codes.
pub fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Train(args) => Ok(match train::run(&args)? {
            Outcome::Finished => 0,
            Outcome::Interrupted => INTERRUPTED,
        }),
        Command::Eval(args) => eval::run(&args).map(|()| 0),
        Command::Embed(args) => embed::run(&args).map(|()| 0),
        Command::Explain(args) => explain::run(&args).map(|()| 0),
        Command::Report(args) => report::run(&args).map(|()| 0),
        Command::Cluster(args) => cluster::run(&args).map(|()| 0),
        Command::Compare(args) => compare::run(&args).map(|()| 0),
        Command::Pack(args) => pack::pack(&args).map(|()| 0),
        Command::Verify(args) => pack::verify(&args).map(|()| 0),
        Command::Inspect(args) => inspect::run(&args).map(|()| 0),
        Command::Download(args) => download::run(&args).map(|()| 0),
        Command::Info => {
            print(&info::info());
            Ok(0)
        }
    }
}

/// Writes to stdout; a reader that has gone (`| head`) is no error.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

/// A device that is open.
enum Opened {
    Cpu(Cpu<f32>),
    Cuda(Cuda),
}

/// The device a configuration asks for, and the number of threads, which is set for the whole process. Says which it is.
fn open(config: &Config) -> Result<Opened> {
    use_threads(Some(config.threads as u32));
    let cpu = |why: &str| {
        say(&format!("device: CPU{why}"));
        Opened::Cpu(Cpu::new())
    };
    let cuda = |ordinal: u32| -> Result<Opened> {
        let cuda = Cuda::new(ordinal as usize, config.precision)?;
        say(&format!("device: {}", cuda.describe()));
        Ok(Opened::Cuda(cuda))
    };
    match config.device {
        Device::Cpu => Ok(cpu("")),
        Device::Cuda(ordinal) => cuda(ordinal),
        Device::Auto => Ok(cuda(0).unwrap_or_else(|why| cpu(&format!(" ({why})")))),
    }
}

/// Runs the body on the device that a configuration asks for: the one place where devices part.
macro_rules! on_device {
    ($config:expr, $backend:ident => $body:expr) => {
        match $crate::cli::open($config)? {
            $crate::cli::Opened::Cpu($backend) => $body,
            $crate::cli::Opened::Cuda($backend) => $body,
        }
    };
}
use on_device;

/// Sets the number of worker threads of the process; one a core for `None` and 0.
fn use_threads(threads: Option<u32>) {
    // The pool can be set only once a process; a second command in one process (tests) keeps the first one's.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0) as usize).build_global();
}

/// Errors with [`Error::Usage`] if there are fewer `images` than a batch takes.
fn fills_a_batch(images: usize, config: &Config) -> Result<()> {
    let batch = config.batch_size;
    match images {
        0 | 1 => Err(Error::Usage("a single image cannot be trained on: a contrast needs two".into())),
        _ if images < batch => Err(Error::Usage(format!(
            "{images} images do not fill a batch of {batch}: add --batch-size {images}, or less"
        ))),
        _ => Ok(()),
    }
}

/// A trained network's checkpoint, with the configuration it was trained with, changed by the command line.
struct Trained {
    config: Config,
    checkpoint: Checkpoint,
    path: std::path::PathBuf,
}

/// Reads the network that `path` (a run folder or a checkpoint) means.
fn trained(path: &std::path::Path, overrides: &Overrides) -> Result<Trained> {
    let path = checkpoint::find(path)?;
    let checkpoint = Checkpoint::load(&path)?;
    let config = overrides.resolve_over(&checkpoint.meta.config)?;
    Ok(Trained { config, checkpoint, path })
}

impl Trained {
    /// What the network makes of a data set. Errors if the checkpoint does not fit the configuration.
    fn embed(&self, dataset: &Dataset) -> Result<Embeddings> {
        on_device!(&self.config, backend => self.embed_on(backend, dataset))
    }

    fn embed_on<B: Backend>(&self, backend: B, dataset: &Dataset) -> Result<Embeddings> {
        let (model, mut params) = self.model_on(backend)?;
        embed(&model, &mut params, dataset, self.config.image_size, &mut |_| ())
    }

    /// The network with its numbers on a device.
    fn model_on<B: Backend>(&self, backend: B) -> Result<(Model, Params<B>)> {
        let mut params = Params::new(backend, self.config.seed);
        let model = Model::new(&mut params, &architecture(&self.config))?;
        snapshot::restore_params(&mut params, &self.checkpoint)
            .map_err(|e| Error::format(&self.path, e.to_string()))?;
        Ok((model, params))
    }
}
