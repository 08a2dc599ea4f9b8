//! `compare`: several runs in one table and one page.

use std::path::PathBuf;

use clap::Args;

use super::print;
use crate::atomic_file::write_atomically;
use crate::report::compare::Comparison;
use crate::report::run_files::RunFiles;
use crate::{Error, Result};

/// Options of `compare`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Runs whose configurations differ in the seed alone are one group: mean and standard deviation over them.\n\
Exit codes: 0 done, 1 failed, 2 bad usage."
)]
pub struct CompareArgs {
    /// Folders of runs.
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// Page to write as well: one HTML file with the table and the curves over each other.
    #[arg(long, value_name = "FILE.html")]
    pub out: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &CompareArgs) -> Result<()> {
    for (i, run) in args.runs.iter().enumerate() {
        if args.runs[..i].contains(run) {
            return Err(Error::Usage(format!("{} is named twice", run.display())));
        }
    }
    let runs: Vec<RunFiles> = args.runs.iter().map(|folder| RunFiles::read(folder)).collect::<Result<_>>()?;
    let comparison = Comparison::new(&runs);
    print(&comparison.text());
    if let Some(out) = &args.out {
        let page = comparison.page().html();
        write_atomically(out, |file| file.write_all(page.as_bytes()))?;
        print(&format!("page: {}", out.display()));
    }
    Ok(())
}
