//! `report`: what a run learned, as a page and as figures.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::ModelArgs;
use super::{Trained, data, on_device, print, trained};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::log::say;
use crate::report::Subject;
use crate::report::findings::{Findings, Images, Origin};
use crate::report::outputs::{Target, write};
use crate::report::run_files::RunFiles;
use crate::report::thumbs::Thumbs;
use crate::trainer::Trainer;
use crate::{Error, Result, run};

/// Options of `report`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Writes RUN/report.html, a single file that needs no network; RUN/metrics.csv; and RUN/tensorboard/ for \
`tensorboard --logdir`. Each run of the command replaces them, also while the run is still training. A run without a checkpoint, or whose \
data are gone, gets the part that its logs give.\nExit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct ReportArgs {
    /// A run folder.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Images to look at [default: those it was trained on].
    #[arg(long, value_name = "SRC")]
    pub data: Vec<String>,
    /// Folder for every figure as SVG and PNG; made if missing.
    #[arg(long, value_name = "DIR")]
    pub figures: Option<PathBuf>,
    /// Where to write the page [default: report.html in the run folder].
    #[arg(long, value_name = "FILE.html")]
    pub out: Option<PathBuf>,
    /// What every command that uses a trained model has.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Runs the command.
pub fn run(args: &ReportArgs) -> Result<()> {
    if !args.run.is_dir() {
        return Err(Error::Usage(format!("{} is no folder: give the folder of a run", args.run.display())));
    }
    let run = RunFiles::read(&args.run)?;
    let target = Target { page: args.out.clone(), figures: args.figures.clone() };
    let path = match subject(args, &run)? {
        Ok((network, dataset)) => {
            on_device!(&network.config, backend => of_checkpoint(backend, &run, &network, &dataset, &target))?
        }
        Err(why) => {
            say(&format!("only the logs of {} can be shown: {why}", args.run.display()));
            write(&run, &Subject::Unseen(why), &target)?
        }
    };
    let figures = args.figures.as_ref().map(|folder| format!("\nfigures: {}", folder.display())).unwrap_or_default();
    print(&format!("report: {}{figures}", path.display()));
    Ok(())
}

/// The network of a run and its data, or why they cannot be looked at. Errors are those of what the command line asks for.
fn subject(args: &ReportArgs, run: &RunFiles) -> Result<Result<(Trained, Dataset), String>> {
    if run.checkpoint.is_none() {
        return Ok(Err("the run has no checkpoint (yet).".into()));
    }
    let network = match trained(&args.run, &args.model.overrides(&args.data)) {
        Err(e @ Error::Format { .. }) => return Ok(Err(format!("its checkpoint cannot be used: {e}."))),
        network => network?,
    };
    match data::load(&network.config) {
        // Data that were asked for must be there; a run's own may have been moved.
        Err(e) if args.data.is_empty() && !matches!(e, Error::Interrupted) => {
            Ok(Err(format!("its data cannot be read: {e}. Give them with --data.")))
        }
        dataset => Ok(Ok((network, dataset?))),
    }
}

fn of_checkpoint<B: Backend>(
    backend: B,
    files: &RunFiles,
    network: &Trained,
    dataset: &Dataset,
    target: &Target,
) -> Result<PathBuf> {
    let (model, mut params) = network.model_on(backend)?;
    let name = network.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let same = network.checkpoint.meta.data.fingerprint == run::stamp(dataset).fingerprint;
    let origin = Origin { network: name, images: if same { Images::TrainedOn } else { Images::Others } };
    write_found(files, dataset, Findings::of(&model, &mut params, dataset, &network.config, origin), target)
}

/// Writes what was found. A network that diverged leaves the logs to look at.
fn write_found(run: &RunFiles, dataset: &Dataset, findings: Result<Findings>, target: &Target) -> Result<PathBuf> {
    let findings = match findings {
        Err(e @ Error::NonFinite(_)) => return write(run, &Subject::Unseen(format!("{e}.")), target),
        findings => findings?,
    };
    let thumbs = Thumbs::new(dataset, findings.shown())?;
    write(run, &Subject::Seen { dataset, findings: &findings, thumbs: &thumbs }, target)
}

/// The report at the end of training, of the network as it is. What goes wrong is said and nothing else: the run has ended
/// well, and `disentangle report` may be tried again.
pub fn after_training<B: Backend>(trainer: &mut Trainer<B>, dataset: &Dataset, folder: &Path) {
    let network = format!("as it was after epoch {}", trainer.position.epoch);
    let origin = Origin { network, images: Images::TrainedOn };
    let made = RunFiles::read(folder).and_then(|run| {
        let findings = Findings::of(&trainer.model, &mut trainer.params, dataset, &trainer.config, origin);
        write_found(&run, dataset, findings, &Target::default())
    });
    match made {
        Ok(path) => print(&format!("report: {}", path.display())),
        Err(e) => say(&format!("no report: {e}")),
    }
}
