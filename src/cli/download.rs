//! `download`: a published data set's archive into a folder.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::DownloadArgs;
use super::print;
use crate::download::{Event, Fetched, Patience, fetch};
use crate::log::say;
use crate::{Error, Result};

/// Runs the command.
pub fn run(args: &DownloadArgs) -> Result<()> {
    let file = args.data_set.file(args.mirror.as_deref())?;
    say(&format!("{} ({:.0} MB) to {}", file.url, file.bytes as f64 / 1e6, args.to.display()));
    let mut display = Display::new(file.bytes);
    let fetched = fetch(&file, &args.to, &Patience::default(), &mut |event| display.show(event));
    display.bar.finish_and_clear();
    let by_hand = args.to.join(&file.name);
    let (path, how) = fetched.map_err(|error| match error {
        Error::Network { url, problem } => {
            let kept = match std::fs::metadata(args.to.join(format!("{}.part", file.name))) {
                Ok(part) => format!(" (it goes on from {:.1} MB)", part.len() as f64 / 1e6),
                Err(_) => String::new(),
            };
            let problem = format!(
                "{problem}; try again{kept}, give another address with --mirror URL, or get the file by other means and \
                 train with --data {}",
                by_hand.display()
            );
            Error::Network { url, problem }
        }
        other => other,
    })?;
    let what = match how {
        Fetched::AlreadyThere => "already there".to_owned(),
        Fetched::Downloaded { kept: 0 } => "downloaded".to_owned(),
        Fetched::Downloaded { kept } => format!("downloaded ({:.1} MB were there from before)", kept as f64 / 1e6),
    };
    let path = path.display();
    print(&format!(
        "{path}: {what}, {} bytes, MD5 {} as published\nnext:\n  disentangle train --data {path} --preset {}",
        file.bytes,
        file.md5,
        args.data_set.preset()
    ));
    Ok(())
}

/// A bar on the terminal, and a line for what goes wrong.
struct Display {
    bar: ProgressBar,
    receiving: bool,
}

impl Display {
    fn new(bytes: u64) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template(
            "{msg} [{bar:24}] {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  ETA {eta}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_message("checking");
        Display { bar, receiving: false }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Checked(bytes) => self.bar.set_position(bytes),
            Event::Received(bytes) => {
                self.bar.set_position(bytes);
                if !self.receiving {
                    // What was there already says nothing about the network's speed.
                    self.bar.reset_eta();
                    self.bar.set_message("downloading");
                    self.receiving = true;
                }
            }
            Event::Restarted(reason) => {
                self.receiving = false;
                self.say(&format!("starting over: {reason}"));
            }
            Event::Retrying(reason, pause) => {
                self.receiving = false;
                self.say(&format!("{reason}; trying again in {} s", pause.as_secs_f64().ceil()));
            }
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| say(text));
    }
}
