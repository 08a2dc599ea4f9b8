//! The program: parse, run, report.

use std::process::ExitCode;

use clap::Parser;
use disentangle::cli::{self, args::Cli};
use disentangle::log;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::say(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}
