//! Runs that are asked to stop, or to save.
#![cfg(unix)]

use std::io::Read;
use std::time::{Duration, Instant};

use crate::resume::{LONGER, Running, assert_same_run, signal, start, step_of};
use crate::{Folder, PATIENCE, TINY, copy_files};

/// Waits for the end: exit code, stdout and stderr.
fn end(mut running: Running) -> (Option<i32>, String, String) {
    let code = running.0.wait().unwrap().code();
    let (mut out, mut err) = (String::new(), String::new());
    running.0.stdout.as_mut().unwrap().read_to_string(&mut out).unwrap();
    running.0.stderr.as_mut().unwrap().read_to_string(&mut err).unwrap();
    (code, out, err)
}

/// Waits until it is true.
#[track_caller]
fn wait(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < PATIENCE, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_stop_leaves_a_checkpoint_of_the_last_step() {
    let folder = Folder::new();
    folder.done(&format!("{LONGER} --out whole"));
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let run = format!("stopped{name}");
        let running = start(&folder, LONGER, &run, 40);
        let before = folder.metrics_so_far(&run);
        signal(&running, name);
        let (ended, out, err) = end(running);
        assert_eq!(ended, Some(code), "{err}");
        assert!(err.contains("stopping after this step") && err.contains(&format!("--out {run} --resume")), "{err}");
        let newest = folder.checkpoints(&run).pop().unwrap();
        let checkpoint = folder.checkpoint(&format!("{run}/{newest}"));
        assert_eq!(out.trim(), format!("weights {}", checkpoint.weights_hash()));
        let step = checkpoint.meta.step;
        let of_epochs = checkpoint.meta.epoch * 32 + checkpoint.meta.step_in_epoch;
        assert!((before..128).contains(&step) && of_epochs == step, "{before} {step}");
        assert_eq!(folder.metrics(&run).last().map(step_of), Some(step), "the log ends where the checkpoint does");
        folder.done(&format!("train --resume --out {run}"));
        assert_same_run(&folder, "whole", &run, &[newest]);
    }
}

#[test]
fn usr1_leaves_a_checkpoint_and_goes_on() {
    let folder = Folder::new();
    let words = LONGER.replace("--checkpoint-every 1epoch,20steps", "--checkpoint-every end --set eval.every=0");
    let words = words.replace("--set eval.every=1 ", "");
    folder.done(&format!("{words} --out whole"));
    let running = start(&folder, &words, "asked", 10);
    signal(&running, "-USR1");
    let (code, _, err) = end(running);
    assert_eq!(code, Some(0), "{err}");
    let [first, last] = &folder.checkpoints("asked")[..] else { panic!("{err}") };
    assert!(err.contains(&format!("asked/{first}")), "{err}");
    assert!(folder.checkpoint(&format!("asked/{first}")).meta.step >= 10, "{first}");
    assert_eq!(last, "checkpoint-epoch0004.safetensors");
    assert_same_run(&folder, "whole", "asked", std::slice::from_ref(first));
}

#[test]
fn two_stops_end_at_once_and_lose_nothing() {
    let folder = Folder::new();
    folder.done(&format!("{LONGER} --out whole"));
    let running = start(&folder, LONGER, "twice", 45);
    signal(&running, "-TERM");
    signal(&running, "-TERM");
    let (code, _, err) = end(running);
    assert_eq!(code, Some(143), "{err}");
    folder.done("train --resume --out twice");
    // It may have come to its checkpoint.
    let whole = folder.names("whole");
    let extra: Vec<String> = folder.names("twice").into_iter().filter(|name| !whole.contains(name)).collect();
    assert!(extra.len() <= 1 && extra.iter().all(|name| name.contains("-step")), "{extra:?}");
    assert_same_run(&folder, "whole", "twice", &extra);
}

/// While an evaluation goes on all is saved: a stop does not wait for it, and the resumed run makes it up.
#[test]
fn a_stop_does_not_wait_for_an_evaluation() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    copy_files(&folder.path("run"), &folder.path("whole"));
    folder.done("train --resume --out whole --set epochs=2 --keep 0");
    // Minutes of k-means.
    let running = start(&folder, "train --resume --set epochs=2 --keep 0 --set eval.restarts=1000000", "run", 3);
    let (code, _, err) = end(running);
    assert!(code == Some(2) && err.contains("eval.restarts"), "restarts are limited: {err}");
    let words = "train --resume --set epochs=2 --keep 0 --set eval.clusters=60 --set eval.restarts=1000";
    let running = start(&folder, words, "run", 3);
    wait(|| folder.path("run/checkpoint-epoch0002.safetensors").exists());
    signal(&running, "-TERM");
    let (code, out, err) = end(running);
    assert_eq!(code, Some(143), "{err}");
    let weights = folder.checkpoint("run/checkpoint-epoch0002.safetensors").weights_hash();
    assert!(out.contains(&format!("weights {weights}")) && err.contains("go on with"), "{out} {err}");
    assert!(!folder.metrics("run").iter().any(|line| line["kind"] == "eval" && step_of(line) == 8));
    folder.done("train --resume --out run --set eval.clusters=0 --set eval.restarts=1");
    // The checkpoint says with which clusters it was to be evaluated; nothing else differs.
    let name = "checkpoint-epoch0002.safetensors".to_owned();
    assert!(
        ["whole", "run"]
            .map(|run| folder.checkpoint(&format!("{run}/{name}")).weights_hash())
            .iter()
            .all(|w| *w == weights)
    );
    assert_same_run(&folder, "whole", "run", &[name]);
}

/// Before the first step nothing is lost by ending at once.
#[test]
fn a_stop_before_training_ends_at_once() {
    let folder = Folder::new();
    // Baselines that take long.
    let words =
        TINY.replace("shapes:64", "shapes:2000").replace("eval.restarts=1", "eval.restarts=1000") + " --epochs 1";
    let running = {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_disentangle"));
        command.current_dir(folder.path(".")).args(words.split_whitespace()).args(["--out", "run"]);
        let piped = std::process::Stdio::piped;
        Running(command.stdout(piped()).stderr(piped()).spawn().unwrap())
    };
    wait(|| folder.path("run/timing.jsonl").exists());
    // A request to save is no reason to end.
    signal(&running, "-USR1");
    signal(&running, "-INT");
    let (code, _, err) = end(running);
    assert!(code == Some(130) && err.contains("--resume"), "{err}");
    let said = folder.run("train --resume --out run --set eval.restarts=1");
    assert!(said.code == 0 && said.err.contains("starting from the beginning"), "{}", said.err);
}
