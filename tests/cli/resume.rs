//! A run that stopped and went on is the run that never stopped, to the bit.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Folder, PATIENCE, TINY, copy_files};

/// 4 epochs of 32 steps, long enough to be stopped in the middle, with everything kept.
pub const LONGER: &str = "train --data shapes:512 --set base_width=4 --image-size 32 --batch-size 16 --epochs 4 \
                      --set eval.every=1 --set eval.restarts=1 --set keep=0 --checkpoint-every 1epoch,20steps";

/// Compares two runs: the same files with the same bytes, but for where they lie, which process wrote them and when. `extra`
/// are files that only the second one may have.
#[track_caller]
pub fn assert_same_run(folder: &Folder, a: &str, b: &str, extra: &[String]) {
    let names = |run: &str| folder.names(run).into_iter().filter(|name| !extra.contains(name)).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    for name in names(a).iter().filter(|name| !["config.toml", "run.lock", "timing.jsonl"].contains(&name.as_str())) {
        assert!(folder.read(&format!("{a}/{name}")) == folder.read(&format!("{b}/{name}")), "{name} of {a} and {b}");
    }
    let steps =
        |run: &str| folder.lines(run, "timing.jsonl").into_iter().map(|mut line| (line.remove("kind"), step_of(&line)));
    assert!(steps(a).eq(steps(b)), "timing.jsonl of {a} and {b}");
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
    assert_same_run(&folder, "whole", "resumed", &[]);
    // With no checkpoint at all, from the beginning.
    copy_files(&folder.path("whole"), &folder.path("again"));
    for name in folder.names("again").iter().filter(|name| name.ends_with(".safetensors")) {
        std::fs::remove_file(folder.path("again").join(name)).unwrap();
    }
    let said = folder.run("train --resume --out again");
    assert!(said.code == 0 && said.err.contains("starting from the beginning"), "{}", said.err);
    assert_same_run(&folder, "whole", "again", &[]);
}

/// From every checkpoint, inside an epoch as well, with whatever may stand behind it in the logs.
#[test]
fn resumed_inside_an_epoch_is_uninterrupted() {
    let folder = Folder::new();
    let words = format!("{TINY} --epochs 2 --set eval.every=1 --keep 0 --checkpoint-every 3steps,1epoch");
    folder.done(&format!("{words} --out whole"));
    let checkpoints = folder.checkpoints("whole");
    let expected = ["0000-step000003", "0001-step000002", "0001", "0002"];
    assert!(expected.iter().all(|place| checkpoints.contains(&format!("checkpoint-epoch{place}.safetensors"))));
    for (first, checkpoint) in checkpoints.iter().enumerate() {
        copy_files(&folder.path("whole"), &folder.path("resumed"));
        // "-" comes before ".": the names of an epoch's steps before that of its beginning.
        let order = |name: &String| name.replace(".safetensors", "-");
        let later = checkpoints.iter().filter(|other| order(other) > order(checkpoint));
        later.for_each(|other| std::fs::remove_file(folder.path("resumed").join(other)).unwrap());
        folder.write(&format!("resumed/.writing-aB3xY{first}"), "half a checkpoint");
        folder.done("train --resume --out resumed");
        assert_same_run(&folder, "whole", "resumed", &[]);
        std::fs::remove_dir_all(folder.path("resumed")).unwrap();
    }
}

/// Killed between the checkpoint at an epoch's end and its evaluation, or between the files of the evaluation.
#[test]
fn an_evaluation_that_is_missing_is_made_up() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 2 --set eval.every=1 --out whole"));
    let log = String::from_utf8(folder.read("whole/metrics.jsonl")).unwrap();
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    let before = &lines[..lines.len() - 1];
    for (lines, results) in [(before, true), (before, false), (&lines[..], false)] {
        copy_files(&folder.path("whole"), &folder.path("resumed"));
        folder.write("resumed/metrics.jsonl", lines.concat());
        if !results {
            std::fs::remove_file(folder.path("resumed/results.json")).unwrap();
        }
        let timing = String::from_utf8(folder.read("resumed/timing.jsonl")).unwrap();
        folder.write("resumed/timing.jsonl", timing.split_inclusive('\n').take(lines.len()).collect::<String>());
        let said = folder.done("train --resume --out resumed");
        assert!(said.contains("k-means") && said.contains("weights "), "{said}");
        assert_same_run(&folder, "whole", "resumed", &[]);
    }
}

/// Killed while the folder is made: what is there can be resumed, or begun again.
#[test]
fn a_folder_cut_short_is_never_stuck() {
    let folder = Folder::new();
    let words = format!("{TINY} --epochs 1");
    folder.done(&format!("{words} --out whole"));
    std::fs::create_dir(folder.path("empty")).unwrap();
    folder.refused("train --resume --out empty", 2, &["holds no run"]);
    assert!(folder.names("empty").is_empty());
    folder.write("locked/run.lock", "1\n");
    folder.write("locked/.writing-abc123", "half a configuration");
    for begun in ["empty", "locked"] {
        folder.done(&format!("{words} --out {begun}"));
        assert_same_run(&folder, "whole", begun, &[]);
    }
    for kept in [&["config.toml"][..], &["config.toml", "run.json"], &["config.toml", "run.json", "baselines.json"]] {
        let run = format!("kept{}", kept.len());
        kept.iter().for_each(|name| folder.write(&format!("{run}/{name}"), folder.read(&format!("whole/{name}"))));
        folder.refused(&format!("{words} --out {run}"), 2, &["holds a run already", "--resume"]);
        folder.done(&format!("train --resume --out {run}"));
        assert_same_run(&folder, "whole", &run, &[]);
    }
}

/// A run in the background, ended with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `words` and waits until it has logged `lines` lines.
pub fn start(folder: &Folder, words: &str, out: &str, lines: usize) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_disentangle"));
    command.current_dir(folder.path(".")).args(words.split_whitespace()).args(["--out", out]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
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

pub fn signal(running: &Running, name: &str) {
    let status = Command::new("kill").args([name, &running.0.id().to_string()]).status();
    assert!(status.unwrap().success());
}

pub fn step_of(line: &BTreeMap<String, Value>) -> u64 {
    line["step"].as_u64().unwrap()
}

#[test]
#[cfg(unix)]
fn killed_and_resumed_is_uninterrupted() {
    let folder = Folder::new();
    folder.done(&format!("{LONGER} --out whole"));
    // In the second epoch or later: lines after the last checkpoint are written again, once.
    let mut running = start(&folder, LONGER, "killed", 45);
    signal(&running, "-KILL");
    assert_eq!(running.0.wait().unwrap().code(), None);
    // The worst that can be left: half a line.
    for name in ["killed/metrics.jsonl", "killed/timing.jsonl"] {
        let log = folder.read(name);
        folder.write(name, &log[..log.len() - 20]);
    }
    folder.done("train --resume --out killed");
    assert_same_run(&folder, "whole", "killed", &[]);
}

#[test]
fn the_clock_goes_on() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 2 --set keep=0 --out run"));
    std::fs::remove_file(folder.path("run/checkpoint-epoch0002.safetensors")).unwrap();
    // As if the first epoch had taken an hour.
    let text = String::from_utf8(folder.read("run/timing.jsonl")).unwrap();
    let aged = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["seconds"] = (line["seconds"].as_f64().unwrap() + 3600.0).into();
        line.to_string() + "\n"
    });
    folder.write("run/timing.jsonl", aged.collect::<String>());
    folder.done("train --resume --out run");
    let text = String::from_utf8(folder.read("run/timing.jsonl")).unwrap();
    let steps = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seconds: Vec<f64> =
        steps.filter(|line| line["kind"] == "step").map(|line| line["seconds"].as_f64().unwrap()).collect();
    assert!(seconds.len() == 8 && seconds.is_sorted() && (3600.0..3700.0).contains(&seconds[7]), "{seconds:?}");
}
