//! Disks that are full, read-only or broken, data that vanish, memory that must not grow: the run goes on where it can and says so,
//! or it stops with everything up to its last checkpoint intact, and ends in the same bytes once the fault is gone.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../crash/compare.rs"]
mod compare;
mod data;
mod disk;
mod memory;
mod real;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use disentangle::checkpoint::Checkpoint;
use faultfs::Operation;

use compare::differences;

/// No command here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder to run commands in, in memory where there is such a disk; `run` in it is the run's.
struct Place(tempfile::TempDir);

/// What a command left behind.
#[derive(Debug)]
struct Said {
    code: i32,
    err: String,
}

impl Place {
    fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let there = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        let place = Place(tempfile::tempdir_in(&there).or_else(|_| tempfile::tempdir()).unwrap());
        std::fs::create_dir(place.path("")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("work").join(name)
    }

    /// The program with `words`, separated by spaces, over a disk that does as `script` says.
    fn command(&self, words: &str, script: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
        command
            .current_dir(self.path(""))
            .args(words.split_whitespace())
            .env("DISENTANGLE_CACHE", self.path("../cache"));
        let record = self.path("../record");
        let _ = std::fs::remove_file(&record); // the last command's
        faultfs::attach(&mut command, &self.path(""), script, Some(&record)).unwrap();
        command
    }

    /// Runs a command to its end.
    fn run(&self, words: &str, script: &str) -> Said {
        said(self.command(words, script).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(), words)
    }

    /// As [`Place::run`], on a disk without faults; it ends well.
    #[track_caller]
    fn done(&self, words: &str) {
        let said = self.run(words, "");
        assert_eq!(said.code, 0, "{words}: {}", said.err);
    }

    /// What the last command did to the folder.
    fn record(&self) -> Vec<Operation> {
        faultfs::read_record(&self.path("../record")).unwrap()
    }

    /// The run's checkpoints, each of which can be loaded.
    #[track_caller]
    fn checkpoints(&self) -> Vec<String> {
        let entries =
            std::fs::read_dir(self.path("run")).map(|entries| entries.map(|entry| entry.unwrap().file_name()));
        let names = entries.into_iter().flatten().map(|name| name.into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("checkpoint-")).collect();
        names.iter().for_each(|name| drop(Checkpoint::load(&self.path("run").join(name)).unwrap()));
        names.sort();
        names
    }

    /// Fails unless the run in `other` left what this one left.
    #[track_caller]
    fn assert_same_run(&self, other: &Place, context: &str) {
        let found = differences(&self.path("run"), &other.path("run"));
        assert!(found.is_empty(), "{context}: {}", found.join("\n"));
    }

    /// The same, but for which checkpoints are kept beside the last one: one that could not be written is missing.
    #[track_caller]
    fn assert_same_end(&self, other: &Place, context: &str) {
        let mut found = differences(&self.path("run"), &other.path("run"));
        found.retain(|problem| !(problem.starts_with("checkpoint-") && problem.ends_with(" is only in one")));
        assert!(found.is_empty(), "{context}: {}", found.join("\n"));
        assert_eq!(self.checkpoints().last(), other.checkpoints().last(), "{context}");
    }
}

/// Waits for a command and takes its words. It neither panics nor is ended by a signal.
#[track_caller]
fn said(child: Child, words: &str) -> Said {
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        // SAFETY: a process that this test started and has not waited for.
        unsafe { libc::kill(id as i32, libc::SIGKILL) };
        panic!("{words}: hangs")
    });
    let output = output.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(!err.contains("panicked"), "{words}: {err}");
    Said { code: output.status.code().unwrap_or_else(|| panic!("{words}: {}: {err}", output.status)), err }
}

impl Said {
    /// Fails unless it ended with `code`, with all `parts` in its words, and if not well, why in its last line alone.
    #[track_caller]
    fn expect(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        parts.iter().for_each(|part| assert!(self.err.contains(part), "no `{part}` in {}", self.err));
        let errors = self.err.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, usize::from(code != 0), "{}", self.err);
        assert!(code == 0 || self.err.lines().last().is_some_and(|line| line.starts_with("error: ")), "{}", self.err);
    }
}

/// Starts a command and waits until its run has logged `lines` lines.
fn start(mut command: Command, log: &Path, lines: usize) -> Child {
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    let count = || std::fs::read(log).map_or(0, |bytes| bytes.split(|&byte| byte == b'\n').count());
    while count() <= lines {
        assert!(started.elapsed() < PATIENCE, "the run does not get on");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}
