//! Steps that are not finite, made for real: weights of a checkpoint are set so that the first batch norm's variance is infinite
//! in 32 bits for the one batch of an epoch that holds the bright picture, or so that no step is finite at all.

use disentangle::checkpoint::{self, Checkpoint, NamedTensor};
use serde_json::Value;

use super::{Folder, copy_files, encode};

/// 64 pictures, 4 steps an epoch; one of them is bright, the others are nearly black.
const RUN: &str = "train --data pictures --set base_width=4 --image-size 32 --batch-size 16 --set eval.restarts=1 \
                   --set schedule=constant --set keep=0 --checkpoint-every 1epoch";
/// Which one.
const BRIGHT: u32 = 37;

fn pictures(folder: &Folder) {
    let colour = |i: u32, x: u32, y: u32| {
        let pattern = [x * 12 + i * 31, y * 15 + i * 57, (x * y + i * 83) * 3].map(|v| v as u8);
        image::Rgb(if i == BRIGHT { pattern } else { pattern.map(|v| v / 128) })
    };
    for i in 0..64 {
        let picture = image::RgbImage::from_fn(32, 32, |x, y| colour(i, x, y));
        folder.write(&format!("pictures/{i:02}.png"), encode(picture, image::ImageFormat::Png));
    }
}

fn tensor<'a>(checkpoint: &'a mut Checkpoint, name: &str) -> &'a mut NamedTensor {
    checkpoint.tensors.iter_mut().find(|tensor| tensor.name == name).expect(name)
}

/// A run of one epoch, whose checkpoint is then changed.
fn prepared(folder: &Folder, change: impl Fn(&mut Checkpoint)) {
    pictures(folder);
    folder.done(&format!("{RUN} --epochs 1 --out base"));
    let path = folder.path("base/checkpoint-epoch0001.safetensors");
    let mut checkpoint = Checkpoint::load(&path).unwrap();
    change(&mut checkpoint);
    checkpoint.save(&path).unwrap();
}

/// Steps on the bright picture are not finite, all others are.
fn touchy(checkpoint: &mut Checkpoint) {
    // Eight updates by a tenth leave 0.43 of the first 1, and of the bright batch's variance a tenth of some.
    let running = &tensor(checkpoint, "backbone.bn1.running_var").data;
    let bright = running.iter().fold(0.0, |most: f64, &var| most.max((f64::from(var) - 0.9f64.powi(8)) / 0.1));
    let factor = (20.0 * f64::from(f32::MAX) / (0.19 * bright)).sqrt() as f32;
    tensor(checkpoint, "backbone.conv1.weight").data.iter_mut().for_each(|w| *w *= factor);
}

/// No step is finite.
fn hopeless(checkpoint: &mut Checkpoint) {
    tensor(checkpoint, "backbone.layer1.0.conv1.weight").data.fill(1e38);
}

fn begin(folder: &Folder, run: &str) {
    copy_files(&folder.path("base"), &folder.path(run));
}

/// Kind, step and what else is told of lines of a log.
fn kinds(folder: &Folder, run: &str) -> Vec<(String, u64)> {
    let line = |line: &std::collections::BTreeMap<String, Value>| {
        (line["kind"].as_str().unwrap().to_owned(), line["step"].as_u64().unwrap())
    };
    folder.metrics(run).iter().map(line).collect()
}

fn bad_steps(folder: &Folder, run: &str) -> Vec<u64> {
    kinds(folder, run).into_iter().filter(|(kind, _)| kind == "nonfinite").map(|(_, step)| step).collect()
}

/// Log, last checkpoint and what was left out, byte for byte.
fn assert_same(folder: &Folder, one: &str, other: &str) {
    let without_policy = |name: String| String::from_utf8(folder.read(&name)).unwrap().replace("rollback", "skip");
    for name in ["metrics.jsonl", "left-out.jsonl"] {
        assert_eq!(without_policy(format!("{one}/{name}")), without_policy(format!("{other}/{name}")), "{name}");
    }
    let last = |run: &str| folder.read(&format!("{run}/{}", folder.checkpoints(run).last().unwrap()));
    assert!(last(one) == last(other), "{one} and {other} end differently");
}

#[test]
fn a_run_stops_explains_and_repeats_itself() {
    let folder = Folder::new();
    prepared(&folder, touchy);
    begin(&folder, "run");
    let before = folder.read("run/checkpoint-epoch0001.safetensors");
    let said =
        folder.refused("train --resume --out run --epochs 3", 1, &["is not finite", "disentangle replay", "--on-nan"]);
    let [step] = bad_steps(&folder, "run")[..] else { panic!("{}", said.err) };
    assert!((5..=8).contains(&step));
    let (report, state) =
        (format!("run/nonfinite-step{step:06}.json"), format!("run/nonfinite-step{step:06}.safetensors"));
    for part in [
        &format!("step {step} (epoch 2, its step {})", step - 4),
        "forward, batch_norm of backbone.bn1",
        "backbone.bn1.running_var",
        "its images: ",
        ".png)",
    ] {
        assert!(said.err.contains(part), "no `{part}` in {}", said.err);
    }
    // The report names the bright picture; the state is that of the step before.
    let told = folder.json(&report);
    assert!(
        told["samples"].as_array().unwrap().iter().any(|s| s["name"].as_str().unwrap().contains("37.png")),
        "{told}"
    );
    assert_eq!((&told["policy"], &told["epoch"], &told["step"]), (&"stop".into(), &2.into(), &step.into()));
    let kept = folder.checkpoint(&state);
    assert_eq!((kept.meta.epoch, kept.meta.step, kept.meta.step_in_epoch), (1, step - 1, step - 5));
    if step == 5 {
        assert_eq!(kept.tensors, folder.checkpoint("run/checkpoint-epoch0001.safetensors").tensors);
    }
    assert!(before == folder.read("run/checkpoint-epoch0001.safetensors"), "the checkpoint has changed");
    // The same again.
    let said = folder.done(&format!("replay {report}"));
    assert!(said.contains("reproduced") && said.contains("backbone.bn1.running_var"), "{said}");
    folder.done(&format!("replay {report} --threads 1 --data pictures"));
    let (first, log) = (folder.read(&report), folder.read("run/metrics.jsonl"));
    let said = folder.refused("train --resume --out run", 1, &["is not finite"]);
    assert!(said.err.contains(&format!("stopped at step {step}")) && said.err.contains("the same happened before"));
    assert!(first == folder.read(&report) && log == folder.read("run/metrics.jsonl"));
    // What is not the same is told.
    let other = String::from_utf8(first).unwrap().replacen("\"views\": \"", "\"views\": \"0", 1);
    folder.write(&report, other);
    let said = folder.refused(&format!("replay {report}"), 1, &["not reproduced: 1 of its lines differ"]);
    assert!(said.out.starts_with("hash of the views: then 0"), "{}", said.out);
    folder.refused(&format!("replay {report} --data shapes:64"), 2, &["other data"]);
}

#[test]
fn a_batch_can_be_skipped() {
    let folder = Folder::new();
    prepared(&folder, touchy);
    begin(&folder, "skip");
    let said = folder.run("train --resume --out skip --epochs 3 --on-nan skip");
    assert_eq!(said.code, 0, "{}", said.err);
    let bad = bad_steps(&folder, "skip");
    assert!(bad.len() == 2 && (5..=8).contains(&bad[0]) && (9..=12).contains(&bad[1]), "{bad:?}");
    bad.iter().for_each(|step| assert!(said.err.contains(&format!("going on without the batch of step {step}"))));
    // Every step has a line, in order, and every epoch its own.
    let kinds = kinds(&folder, "skip");
    let steps: Vec<u64> =
        kinds.iter().filter(|(k, _)| k == "step" || k == "nonfinite").map(|(_, step)| *step).collect();
    assert_eq!(steps, (1..=12).collect::<Vec<_>>());
    for kind in ["epoch", "collapse"] {
        let ends: Vec<u64> = kinds.iter().filter(|(k, _)| k == kind).map(|(_, step)| *step).collect();
        assert_eq!(ends, [4, 8, 12], "{kind}");
    }
    let end = folder.checkpoint("skip/checkpoint-epoch0003.safetensors");
    assert_eq!((end.meta.step, end.meta.epoch), (10, 3), "Adam counts the steps that were made");
    assert!(end.tensors.iter().all(|tensor| tensor.data.iter().all(|x| x.is_finite())));

    // With checkpoints at every step; and killed before the first bad batch, with the batches already known.
    begin(&folder, "goes");
    folder.done("train --resume --out goes --epochs 3 --on-nan skip --checkpoint-every 1steps");
    assert_same(&folder, "skip", "goes");
    for (position, path) in checkpoint::list(&folder.path("goes")).unwrap() {
        if position.epoch > 1 || position.step > 0 && 4 + position.step >= bad[0] {
            std::fs::remove_file(path).unwrap();
        }
    }
    folder.done("train --resume --out goes");
    assert_same(&folder, "skip", "goes");

    // Back to the checkpoint and around it: where memory does not change by itself, the same run.
    begin(&folder, "back");
    let said = folder.run("train --resume --out back --epochs 3 --on-nan rollback");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.err.contains("going back to step 4") && said.err.contains("going back to step 8"), "{}", said.err);
    assert_same(&folder, "skip", "back");
    // Killed behind a rollback, before the next checkpoint.
    begin(&folder, "killed");
    std::fs::copy(folder.path("back/left-out.jsonl"), folder.path("killed/left-out.jsonl")).unwrap();
    folder.done("train --resume --out killed --epochs 3 --on-nan rollback");
    assert_same(&folder, "skip", "killed");
}

#[test]
fn bad_weights_are_not_taken_for_bad_batches() {
    let folder = Folder::new();
    prepared(&folder, hopeless);
    for (policy, words) in [("skip", "11 batches in a row"), ("rollback", "11 batches after the last checkpoint")] {
        begin(&folder, policy);
        let said = folder.refused(
            &format!("train --resume --out {policy} --epochs 5 --on-nan {policy} --checkpoint-every end"),
            1,
            &[words, "step 15"],
        );
        assert!(said.err.contains("there are 10 reports already"), "{}", said.err);
        let names = folder.names(policy);
        assert_eq!(names.iter().filter(|name| name.starts_with("nonfinite-") && name.ends_with(".json")).count(), 10);
        assert_eq!(folder.checkpoints(policy), ["checkpoint-epoch0001.safetensors"]);
        assert_eq!(bad_steps(&folder, policy), (5..=15).collect::<Vec<_>>(), "{policy}");
        folder.refused(&format!("train --resume --out {policy}"), 1, &[words]);
    }
}

/// A file that others wrote is checked before it is believed.
#[test]
fn damaged_reports_are_refused() {
    let folder = Folder::new();
    prepared(&folder, hopeless);
    begin(&folder, "run");
    folder.refused("train --resume --out run --epochs 2", 1, &["step 5 is not finite"]);
    let text = String::from_utf8(folder.read("run/nonfinite-step000005.json")).unwrap();
    std::fs::create_dir(folder.path("odd")).unwrap();
    let (report, state) = ("odd/nonfinite-step000005.json", "odd/nonfinite-step000005.safetensors");
    let good_state = folder.read("run/nonfinite-step000005.safetensors");
    folder.write(state, &good_state);
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} in {text}");
        text.replacen(from, to, 1)
    };
    let cases: Vec<(String, i32, &str)> = vec![
        (String::new(), 1, "no report of a step"),
        ("[]".into(), 1, "no report of a step"),
        ("{}".into(), 1, "no report of a step"),
        ("\u{0}\u{0}".into(), 1, "no report of a step"),
        ("[".repeat(100_000), 1, "no report of a step"),
        (text[..text.len() / 2].into(), 1, "no report of a step"),
        (changed("disentangle.nonfinite", "something.else"), 1, "no report of a step of this program"),
        (changed("\"format_version\": 1", "\"format_version\": 2"), 1, "report format 2, written by disentangle"),
        (changed("\"epoch\": 2", "\"epoch\": 0"), 1, "count from 1"),
        (changed("\"epoch\": 2", "\"epoch\": -1"), 1, "damaged report"),
        (changed("\"epoch\": 2", "\"epoch\": 18446744073709551615"), 1, "another step"),
        (changed("\"epoch\": 2", "\"epoch\": 3"), 1, "the state of another step"),
        (changed("\"step_in_epoch\": 1", "\"step_in_epoch\": 0"), 1, "count from 1"),
        (changed("\"step_in_epoch\": 1", "\"step_in_epoch\": 2"), 1, "the state of another step"),
        (changed("\"policy\": \"stop\"", "\"policy\": \"hope\""), 1, "damaged report"),
        (changed("\"loss\": {", "\"more\": 1, \"loss\": {"), 1, "damaged report"),
        (changed("\"NaN\"", "\"much\""), 1, "damaged report"),
        (changed("\"samples\": [", "\"samples\": [], \"more\": ["), 1, "damaged report"),
        (changed("\"name\": \"", "\"name\": \"../../../\u{7}"), 1, "no report of a step"),
        (changed("\"step\": 5", "\"step\": 500"), 1, "not reproduced"),
    ];
    for (text, code, part) in cases {
        folder.write(report, &text);
        folder.refused(&format!("replay {report}"), code, &[part]);
    }
    // Fewer images than a batch.
    let mut told: Value = serde_json::from_str(&text).unwrap();
    told["samples"].as_array_mut().unwrap().truncate(3);
    folder.write(report, told.to_string());
    folder.refused(&format!("replay {report}"), 1, &["with 3 images", "of 16 images"]);
    // The state.
    folder.write(report, &text);
    folder.done(&format!("replay {report}"));
    folder.write(state, &good_state[..good_state.len() / 2]);
    folder.refused(&format!("replay {report}"), 1, &["nonfinite-step000005.safetensors"]);
    folder.write(state, folder.read("run/checkpoint-epoch0001.safetensors"));
    folder.done(&format!("replay {report}"));
    std::fs::remove_file(folder.path(state)).unwrap();
    folder.refused(&format!("replay {report}"), 1, &["nonfinite-step000005.safetensors"]);
    folder.refused("replay nowhere.json", 1, &["nowhere.json"]);
    // What was left out is part of the run.
    folder.write("run/left-out.jsonl", "{}\n");
    folder.refused("train --resume --out run", 1, &["left-out.jsonl: line 1"]);
}

/// All heads constant, all images alike: said once, with what it means; a healthy run says nothing.
#[test]
fn collapse_is_measured_and_said() {
    let folder = Folder::new();
    let shapes =
        RUN.replace("pictures", "shapes:128").replace("--image-size 32", "--image-size 32 --set learning_rate=1e-6");
    let said = folder.run(&format!("{shapes} --epochs 2 --out base"));
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(!said.err.contains("collapse"), "{}", said.err);
    let path = folder.path("base/checkpoint-epoch0002.safetensors");
    let (healthy, mut checkpoint) = (Checkpoint::load(&path).unwrap(), Checkpoint::load(&path).unwrap());
    tensor(&mut checkpoint, "feature_predictor.4.weight").data.fill(1e-5);
    checkpoint.save(&path).unwrap();
    let said = folder.run("train --resume --out base --epochs 4");
    assert_eq!(said.code, 0, "{}", said.err);
    let warnings: Vec<&str> = said.err.lines().filter(|line| line.contains("collapse")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("warning: epoch 3: collapse: 16 feature heads"),
        "{warnings:?}"
    );
    let heads = |line: &std::collections::BTreeMap<String, Value>| line["collapsed"].to_string();
    let records: Vec<_> = folder.metrics("base").into_iter().filter(|line| line["kind"] == "collapse").collect();
    assert_eq!(records.iter().map(heads).collect::<Vec<_>>(), ["[]", "[]", r#"["heads"]"#, r#"["heads"]"#]);
    assert_eq!(records[3]["images"], 64);
    // Not said again by the process that goes on; and that it is over is.
    let said = folder.run("train --resume --out base --epochs 5");
    assert!(said.code == 0 && !said.err.contains("collapse"), "{}", said.err);
    let mut checkpoint = Checkpoint::load(&folder.path("base/checkpoint-epoch0005.safetensors")).unwrap();
    let weight = &healthy.tensors.iter().find(|t| t.name == "feature_predictor.4.weight").unwrap().data;
    tensor(&mut checkpoint, "feature_predictor.4.weight").data.clone_from(weight);
    checkpoint.save(&folder.path("base/checkpoint-epoch0005.safetensors")).unwrap();
    let said = folder.run("train --resume --out base --epochs 6");
    assert!(said.code == 0 && said.err.contains("the collapse is over"), "{}", said.err);
}
