//! A run that stopped and went on is the run that never stopped, to the bit.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Folder, PATIENCE, TINY, copy_files};

/// 4 epochs of 32 steps, long enough to be stopped in the middle, with everything kept.
const LONGER: &str = "train --data shapes:512 --set base_width=4 --image-size 32 --batch-size 16 --epochs 4 \
                      --set eval.every=1 --set eval.restarts=1 --set keep=0";

/// Compares the results of two runs.
#[track_caller]
fn assert_same_run(folder: &Folder, a: &str, b: &str, epochs: u64) {
    let last = |run: &str| folder.read(&format!("{run}/checkpoint-epoch{epochs:04}.safetensors"));
    assert!(last(a) == last(b), "{a} and {b} end in other weights");
    let (a_lines, b_lines) = (folder.metrics(a), folder.metrics(b));
    for (a, b) in a_lines.iter().zip(&b_lines) {
        assert_eq!(a, b);
    }
    assert_eq!(a_lines.len(), b_lines.len());
    for name in ["results.json", "baselines.json"] {
        assert_eq!(folder.json(&format!("{a}/{name}")), folder.json(&format!("{b}/{name}")), "{name}");
    }
}

#[test]
fn resumed_at_an_epoch_is_uninterrupted() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 3 --set eval.every=1 --set keep=0 --out whole"));
    copy_files(&folder.path("whole"), &folder.path("resumed"));
    for later in ["checkpoint-epoch0002.safetensors", "checkpoint-epoch0003.safetensors", "results.json"] {
        std::fs::remove_file(folder.path("resumed").join(later)).unwrap();
    }
    let said = folder.run("train --resume --out resumed --threads 1");
    assert!(said.code == 0 && said.err.contains("resuming after step 4"), "{}", said.err);
    assert_same_run(&folder, "whole", "resumed", 3);
    // With no checkpoint at all, from the beginning.
    copy_files(&folder.path("whole"), &folder.path("again"));
    for name in folder.names("again").iter().filter(|name| name.ends_with(".safetensors")) {
        std::fs::remove_file(folder.path("again").join(name)).unwrap();
    }
    let said = folder.run("train --resume --out again");
    assert!(said.code == 0 && said.err.contains("starting from the beginning"), "{}", said.err);
    assert_same_run(&folder, "whole", "again", 3);
}

/// A run in the background, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts [`LONGER`] and waits until it has logged `lines` lines.
fn start(folder: &Folder, out: &str, lines: usize) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
    command.current_dir(folder.path(".")).args(LONGER.split_whitespace()).args(["--out", out]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let running = Running(child);
    let started = Instant::now();
    let count =
        || std::fs::read(folder.path(out).join("metrics.jsonl")).map_or(0, |b| b.split(|&b| b == b'\n').count());
    while count() <= lines {
        assert!(started.elapsed() < PATIENCE, "the run does not get on");
        std::thread::sleep(Duration::from_millis(1));
    }
    running
}

fn signal(running: &Running, name: &str) {
    let status = Command::new("kill").args([name, &running.0.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// The newest checkpoint's position: (epoch, step, step in the epoch).
fn position(folder: &Folder, run: &str) -> (u64, u64, u64) {
    let newest = folder.names(run).into_iter().rfind(|name| name.ends_with(".safetensors")).unwrap();
    let meta = folder.checkpoint(&format!("{run}/{newest}")).meta;
    (meta.epoch, meta.step, meta.step_in_epoch)
}

fn step_of(line: &BTreeMap<String, Value>) -> u64 {
    line["step"].as_u64().unwrap()
}

#[test]
#[cfg(unix)]
fn stopped_or_killed_and_resumed_is_uninterrupted() {
    let folder = Folder::new();
    folder.done(&format!("{LONGER} --out whole"));

    // Ctrl-C in the second epoch: it ends after the step, with a checkpoint at that very step.
    let mut running = start(&folder, "stopped", 40);
    signal(&running, "-INT");
    let code = running.0.wait().unwrap().code();
    let mut err = String::new();
    std::io::Read::read_to_string(running.0.stderr.as_mut().unwrap(), &mut err).unwrap();
    assert_eq!(code, Some(130), "{err}");
    assert!(err.contains("stopping after this step") && err.contains("train --out stopped --resume"), "{err}");
    let (epoch, step, step_in_epoch) = position(&folder, "stopped");
    assert!((39..128).contains(&step) && epoch * 32 + step_in_epoch == step, "{epoch} {step} {step_in_epoch}");
    assert_eq!(folder.metrics("stopped").last().map(step_of), Some(step), "the log ends where the checkpoint does");
    folder.done("train --resume --out stopped");
    assert_same_run(&folder, "whole", "stopped", 4);

    // Killed in the second epoch or later: lines after the last checkpoint are written again, once.
    let mut running = start(&folder, "killed", 40);
    signal(&running, "-KILL");
    assert_eq!(running.0.wait().unwrap().code(), None);
    // The worst that can be left: half a line.
    let log = folder.read("killed/metrics.jsonl");
    folder.write("killed/metrics.jsonl", &log[..log.len() - 20]);
    folder.done("train --resume --out killed");
    assert_same_run(&folder, "whole", "killed", 4);
}

#[test]
fn the_clock_goes_on() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 2 --set keep=0 --out run"));
    std::fs::remove_file(folder.path("run/checkpoint-epoch0002.safetensors")).unwrap();
    // As if the first epoch had taken an hour.
    let text = String::from_utf8(folder.read("run/metrics.jsonl")).unwrap();
    let aged = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["seconds"] = (line["seconds"].as_f64().unwrap() + 3600.0).into();
        line.to_string() + "\n"
    });
    folder.write("run/metrics.jsonl", aged.collect::<String>());
    folder.done("train --resume --out run");
    let text = String::from_utf8(folder.read("run/metrics.jsonl")).unwrap();
    let steps = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seconds: Vec<f64> =
        steps.filter(|line| line["kind"] == "step").map(|line| line["seconds"].as_f64().unwrap()).collect();
    assert!(seconds.len() == 8 && seconds.is_sorted() && (3600.0..3700.0).contains(&seconds[7]), "{seconds:?}");
}

#[test]
fn a_resumed_run_stays_the_same_run() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 2 --out run"));
    let before = (folder.names("run"), folder.read("run/config.toml"), folder.read("run/metrics.jsonl"));
    folder.refused("train --resume --out run --backbone resnet34", 2, &["backbone", "resnet18", "resnet34"]);
    folder.refused("train --resume --out run --seed 1", 2, &["seed is 42"]);
    folder.refused(
        "train --resume --out run --set alpha=0.5 --batch-size 8",
        2,
        &["alpha is 1.0 in the run, not 0.5", "batch_size is 16"],
    );
    folder.refused("train --resume --out run --data shapes:65", 2, &["other data", "64 images", "65 images"]);
    folder.refused("train --resume --out elsewhere", 2, &["elsewhere holds no run"]);
    folder.refused("train --resume", 2, &["no run in runs/"]);
    folder.refused(&format!("{TINY} --epochs 2 --out run"), 2, &["run holds a run already", "--resume"]);
    let after = (folder.names("run"), folder.read("run/config.toml"), folder.read("run/metrics.jsonl"));
    assert!(before == after, "a refused command changed the run");
    // More epochs are what one resumes for.
    folder.done("train --resume --out run --epochs 3");
    assert_eq!(folder.names("run")[1..4].last().unwrap(), "checkpoint-epoch0003.safetensors");
}
