//! A run and its lives: each begins it or goes on with it, and ends well or by a kill.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use faultfs::{Operation, read_record};

use crate::order::in_checkpoint;

/// 3 epochs of 4 steps, with a checkpoint every second step.
const RUN: &str = "train --data shapes:64 --set base_width=4 --image-size 16 --batch-size 16 --epochs 3 --device cpu \
                   --set eval.every=2 --set eval.restarts=1 --set report=false --checkpoint-every 2steps --out run";

/// No life is longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a life ends.
#[derive(Clone, Copy, Debug)]
pub enum Kill {
    /// Before, within or after an operation.
    At(u64, &'static str),
    /// The same, and the power fails: what no fsync has put on the disk is gone.
    Cut(u64, &'static str),
    /// So long after its start.
    Time(Duration),
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The run is complete.
    Finished,
    /// It was killed, if at an operation perhaps inside the writing of a checkpoint.
    Killed { inside_checkpoint: bool },
}

/// A run's place, in memory where there is such a disk.
pub struct Lives(tempfile::TempDir);

impl Lives {
    pub fn new() -> Lives {
        let memory = Path::new("/dev/shm");
        let there = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        Lives(tempfile::tempdir_in(&there).or_else(|_| tempfile::tempdir()).unwrap())
    }

    /// The run's folder.
    pub fn folder(&self) -> PathBuf {
        self.0.path().join("work/run")
    }

    /// What the last life that was not killed by time did to the folder.
    pub fn record(&self) -> Vec<Operation> {
        read_record(&self.0.path().join("record")).unwrap()
    }

    /// Begins the run, or goes on where there is something to go on with; an error if that ends otherwise than it should.
    pub fn live(&self, threads: usize, kill: Option<&Kill>) -> Result<End, String> {
        let work = self.0.path().join("work");
        std::fs::create_dir_all(&work).unwrap();
        let words = if self.folder().join("config.toml").exists() { "train --resume --out run" } else { RUN };
        let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
        command.current_dir(&work).args(words.split_whitespace()).args(["--threads", &threads.to_string()]);
        let mut limit = PATIENCE;
        match kill {
            // As the program is.
            Some(&Kill::Time(time)) => limit = time,
            Some(Kill::At(number, moment)) => self.watch(&mut command, &format!("kill {moment} {number}")),
            Some(Kill::Cut(number, moment)) => self.watch(&mut command, &format!("cut {moment} {number}")),
            None => self.watch(&mut command, ""),
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() && started.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(1).min(limit.saturating_sub(started.elapsed())));
        }
        let _ = child.kill(); // it may have ended by itself
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        match (status.code(), status.signal(), kill) {
            (Some(0), _, _) => Ok(End::Finished),
            (_, Some(libc::SIGKILL), Some(Kill::Time(_))) => Ok(End::Killed { inside_checkpoint: false }),
            (_, Some(libc::SIGKILL), Some(_)) => {
                Ok(End::Killed { inside_checkpoint: in_checkpoint(&self.record(), &self.folder()) })
            }
            _ => Err(format!("`{words}` ended with {status}: {said}")),
        }
    }

    fn watch(&self, command: &mut Command, script: &str) {
        let record = self.0.path().join("record");
        let _ = std::fs::remove_file(&record); // an earlier life's
        faultfs::attach(command, &self.0.path().join("work"), script, Some(&record)).unwrap();
    }
}
