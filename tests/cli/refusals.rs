//! Runs are not mixed: another configuration, other data, another version, a second process, a folder that is taken.

use serde_json::Value;

use crate::resume::{LONGER, start};
use crate::{Folder, TINY, copy_files};

#[test]
fn a_resumed_run_stays_the_same_run() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 2 --out run"));
    let before = (folder.names("run"), folder.read("run/config.toml"), folder.read("run/metrics.jsonl"));
    let shows = |words: &str, parts: &[&str], rows: &[&[&str]]| {
        let said = folder.refused(&format!("train --resume --out run {words}"), 2, parts);
        assert!(said.err.contains("the run has") && said.err.contains("asked for"), "{}", said.err);
        for row in rows {
            let found = said.err.lines().any(|line| line.split_whitespace().eq(row.iter().copied()));
            assert!(found, "no row {row:?} in {}", said.err);
        }
    };
    shows("--backbone resnet34", &["another backbone"], &[&["backbone", "\"resnet18\"", "\"resnet34\""]]);
    shows("--seed 1", &["another seed"], &[&["seed", "42", "1"]]);
    shows(
        "--set alpha=0.5 --batch-size 8",
        &["another alpha, batch_size"],
        &[&["alpha", "1.0", "0.5"], &["batch_size", "16", "8"]],
    );
    let other = ["other data", "64 images", "65 images"];
    shows("--data shapes:65", &other, &[&["images", "64", "65"]]);
    // What may be told is told by name, not by a file or a preset.
    folder.write("other.toml", "epochs = 7");
    shows("--config other.toml", &["another epochs", "--set KEY=VALUE"], &[&["epochs", "2", "7"]]);
    folder.refused("train --resume --out run --epochs 1", 2, &["2 epochs behind it", "epochs = 1 is less"]);
    folder.refused("train --resume --out elsewhere", 2, &["elsewhere holds no run"]);
    folder.refused("train --resume", 2, &["no run in runs/"]);
    folder.refused(&format!("{TINY} --epochs 2 --out run"), 2, &["run holds a run already", "--resume"]);
    let after = (folder.names("run"), folder.read("run/config.toml"), folder.read("run/metrics.jsonl"));
    assert!(before == after, "a refused command changed the run");
    // More epochs are what one resumes for.
    let said = folder.run("train --resume --out run --set epochs=3 --set learning_rate=1e-4");
    assert_eq!(said.code, 0, "{}", said.err);
    for part in ["epochs is 3, not 2: the cosine schedule changes", "learning_rate is 0.0001, not 0.001 from here on"] {
        assert!(said.err.contains(part), "no `{part}` in {}", said.err);
    }
    assert_eq!(folder.checkpoints("run").last().unwrap(), "checkpoint-epoch0003.safetensors");
    let rates = folder.metrics("run").into_iter().filter(|line| line["kind"] == "epoch");
    let rates: Vec<f64> = rates.map(|line| line["learning_rate"].as_f64().unwrap()).collect();
    // Half and a quarter of the way down a cosine of 2 and of 3 epochs.
    assert!((rates[1] - 0.5e-3).abs() < 1e-12 && (rates[2] - 0.25e-4).abs() < 1e-12, "{rates:?}");
    // It stays said.
    folder.done("train --resume --out run");
}

/// Whoever edits config.toml finds that the checkpoint remembers.
#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    folder.done(&format!("{TINY} --epochs 2 --seed 7 --out other"));
    let text = String::from_utf8(folder.read("run/config.toml")).unwrap();
    folder.write("run/config.toml", text.replace("base_width = 4 ", "base_width = 8 "));
    folder.refused("train --resume --out run", 2, &["another base_width"]);
    folder.write("run/config.toml", text);
    let foreign = "checkpoint-epoch0002.safetensors";
    folder.write(&format!("run/{foreign}"), folder.read(&format!("other/{foreign}")));
    folder.refused("train --resume --out run --epochs 3", 2, &["another seed"]);
    // Without run.json the checkpoint knows the data.
    std::fs::remove_file(folder.path("other/run.json")).unwrap();
    folder.refused("train --resume --out other --data shapes:70", 2, &["other data", "64 images", "70 images"]);
    assert!(!folder.path("other/run.json").exists());
}

#[test]
fn a_later_version_is_refused_by_name() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let whole = folder.read("run/run.json");
    let mut stamp: Value = serde_json::from_slice(&whole).unwrap();
    (stamp["format_version"], stamp["program"]) = (9.into(), "7.0.0".into());
    folder.write("run/run.json", stamp.to_string());
    for words in ["train --resume --out run", "eval run", "embed run --data shapes:8 --out out"] {
        folder.refused(words, 2, &["run/run.json", "run folder format 9", "disentangle 7.0.0"]);
    }
    folder.write("run/run.json", "{");
    let said = folder.run("train --resume --out run");
    assert!(said.code == 0 && said.err.contains("run.json is damaged"), "{}", said.err);
    assert!(folder.read("run/run.json") == whole, "it is made anew");
}

#[test]
fn an_existing_run_is_never_overwritten() {
    let folder = Folder::new();
    let words = format!("{TINY} --epochs 1");
    folder.done(&format!("{words} --out run"));
    for name in folder.names("run").iter().filter(|name| *name != "run.lock") {
        // A run that lost all its files but one, or a stranger's file of our name.
        folder.write(&format!("taken/{name}"), folder.read(&format!("run/{name}")));
        folder.refused(&format!("{words} --out taken"), 2, &["taken", "choose another --out"]);
        assert_eq!(folder.names("taken"), std::slice::from_ref(name));
        std::fs::remove_dir_all(folder.path("taken")).unwrap();
    }
    folder.write("taken/notes.txt", "mine");
    folder.done(&format!("{words} --out taken"));
    assert_eq!(folder.read("taken/notes.txt"), b"mine");
}

#[test]
fn the_second_process_on_a_run_is_refused() {
    let folder = Folder::new();
    let mut running = start(&folder, LONGER, "run", 3);
    let holder = format!("process {} writes this run", running.0.id());
    folder.refused("train --resume --out run", 2, &["run is in use", &holder]);
    folder.refused(&format!("{LONGER} --out run"), 2, &["holds a run already"]);
    // Reading it is no harm, once there is a checkpoint.
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    copy_files(&folder.path("run"), &folder.path("copy"));
    folder.done("train --resume --out copy --epochs 4");
    folder.done("train --resume --out run");
}
