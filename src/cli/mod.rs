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
mod probe;
mod replay;
mod report;
mod resume;
mod room;
mod train;

use std::io::Write;

use self::args::{Cli, Command};
use crate::backend::Backend;
use crate::backend::cpu::Cpu;
use crate::backend::cuda::{Cuda, engines};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Device, Overrides};
use crate::data::{Dataset, cache::Cache};
use crate::eval::embed::{Embeddings, embed};
use crate::log::say;
use crate::model::Model;
use crate::nn::Params;
use crate::run::RunStamp;
use crate::train::Outcome;
use crate::trainer::architecture;
use crate::{Error, Result, snapshot};

/// Runs a command; the result is the exit code: 0 done, 130 or 143 stopped by SIGINT or SIGTERM. Errors carry their own codes.
pub fn run(cli: Cli) -> Result<u8> {
    match command(cli) {
        Ok(Outcome::Finished) => Ok(0),
        Ok(Outcome::Interrupted) => Ok(interrupt::code()),
        Err(Error::Interrupted) => {
            say("stopped");
            Ok(interrupt::code())
        }
        Err(error) => Err(error),
    }
}

fn command(cli: Cli) -> Result<Outcome> {
    let done = match cli.command {
        Command::Train(args) => return train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Pack(args) => pack::pack(&args),
        Command::Verify(args) => pack::verify(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Download(args) => download::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Info => {
            print(&info::info());
            Ok(())
        }
    };
    done.map(|()| Outcome::Finished)
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
        let mut cuda = Cuda::new(ordinal as usize, config.precision)?;
        if let Some(cache) = Cache::of_user() {
            cuda = cuda.with_engines_in(cache.folder().join(engines::FILE));
        }
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
    let newest = checkpoint::find(path)?;
    let (checkpoint, path) = if path.is_dir() {
        RunStamp::read(path)?; // refuses a folder of a later version
        resume::newest(path)?.ok_or_else(|| Error::Usage(format!("{} holds no checkpoint", path.display())))?.into()
    } else {
        (Checkpoint::load(&newest)?, newest)
    };
    let config = overrides.resolve_over(&checkpoint.meta.config)?;
    Ok(Trained { config, checkpoint, path })
}

impl Trained {
    /// What the network makes of a data set. Errors if the checkpoint does not fit the configuration.
    fn embed<B: Backend>(&self, backend: B, dataset: &Dataset) -> Result<Embeddings> {
        let (model, mut params) = self.model_on(backend)?;
        embed(&model, &mut params, dataset, self.config.image_size, &mut |_| ())
    }

    /// The network with its numbers on a device.
    fn model_on<B: Backend>(&self, backend: B) -> Result<(Model, Params<B>)> {
        let tensors = self.checkpoint.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone()));
        let mut params = Params::for_tensors(backend, self.config.seed, tensors);
        let context = |e: Error| match e {
            Error::Shape { .. } => Error::format(&self.path, e.to_string()),
            e => e,
        };
        let model = Model::new(&mut params, &architecture(&self.config)).map_err(context)?;
        snapshot::restore_params(&mut params, &self.checkpoint).map_err(context)?;
        Ok((model, params))
    }
}
