//! Which checkpoints are kept, what happens to damaged ones, and to a disk that refuses.

use crate::resume::assert_same_run;
use crate::{Folder, TINY, copy_files};

fn after(epoch: usize) -> String {
    format!("checkpoint-epoch{epoch:04}.safetensors")
}

#[test]
fn checkpoints_are_kept_as_asked() {
    let folder = Folder::new();
    let said = folder.done(&format!("{TINY} --epochs 6 --keep 2 --out two"));
    let means = folder.metrics("two").into_iter().filter(|line| line["kind"] == "epoch");
    let means: Vec<f64> = means.map(|line| line["loss"].as_f64().unwrap()).collect();
    let best = 1 + (0..6).min_by(|&a, &b| means[a].total_cmp(&means[b])).unwrap();
    let mut expected = vec![after(5), after(6)];
    expected.extend((best < 5).then(|| after(best)));
    expected.sort();
    assert_eq!(folder.checkpoints("two"), expected);
    assert!(said.contains("best checkpoint") && said.contains(&after(best)), "{said}");
    folder.done(&format!("{TINY} --epochs 3 --set checkpoint_every=0 --out last"));
    assert_eq!(folder.checkpoints("last"), [after(3)]);
    folder.done(&format!("{TINY} --epochs 5 --set checkpoint_every=2 --keep 0 --out second"));
    assert_eq!(folder.checkpoints("second"), [after(2), after(4), after(5)]);
    // Before what takes long.
    folder.done(&format!("{TINY} --epochs 3 --checkpoint-every end --keep 0 --set eval.every=2 --out evaluated"));
    assert_eq!(folder.checkpoints("evaluated"), [after(2), after(3)]);
    folder.done(&format!("{TINY} --epochs 2 --checkpoint-every 3steps --keep 0 --out steps"));
    let inside = ["checkpoint-epoch0000-step000003.safetensors", "checkpoint-epoch0001-step000002.safetensors"];
    assert_eq!(folder.checkpoints("steps"), [inside[0].into(), inside[1].into(), after(2)]);
}

#[test]
fn a_damaged_newest_is_reported_and_the_one_before_it_used() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 3 --keep 0 --out whole"));
    let whole = folder.read(&format!("whole/{}", after(2)));
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cut = &whole[..whole.len() - 9];
    for (damage, reason) in [
        (cut, "cut short or damaged"),
        (&flipped, "checksum mismatch"),
        (b"", "not a checkpoint"),
        (b"junk", "not a checkpoint"),
    ] {
        copy_files(&folder.path("whole"), &folder.path("run"));
        std::fs::remove_file(folder.path("run").join(after(3))).unwrap();
        folder.write(&format!("run/{}", after(2)), damage);
        for words in ["eval run", "embed run --data shapes:8 --out out", "train --resume --out run"] {
            let said = folder.run(words);
            assert_eq!(said.code, 0, "{words}: {}", said.err);
            let line = said.err.lines().find(|line| line.starts_with("damaged checkpoint: run/checkpoint-epoch0002"));
            let line = line.unwrap_or_else(|| panic!("{words}: {}", said.err));
            assert!(line.contains(reason) && line.contains(&format!("taking run/{}", after(1))), "{line}");
        }
        assert_same_run(&folder, "whole", "run", &[]);
    }
    for epoch in 1..=3 {
        folder.write(&format!("run/{}", after(epoch)), b"");
    }
    for words in ["eval run", "train --resume --out run"] {
        let reasons = [1, 2, 3].map(after);
        folder.refused(words, 1, &[&reasons[0], &reasons[1], &reasons[2], "not a checkpoint"]);
    }
}

/// A damaged checkpoint that the run does not write again must not count as one to keep.
#[test]
fn a_damaged_checkpoint_goes_when_there_is_a_new_one() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 3 --keep 0 --out run"));
    folder.write(&format!("run/{}", after(3)), b"");
    folder.write(&format!("run/{}", after(2)), b"");
    folder.done("train --resume --out run --checkpoint-every 3steps");
    assert_eq!(folder.checkpoints("run").len(), 4, "{:?}", folder.checkpoints("run"));
    (1..=3).filter(|&epoch| epoch != 2).for_each(|epoch| drop(folder.checkpoint(&format!("run/{}", after(epoch)))));
}

/// A folder where a file should come makes its rename fail, as a full disk or one that went read-only would.
#[test]
fn a_disk_that_refuses_does_not_end_the_run() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let before = folder.read(&format!("run/{}", after(1)));
    for name in [after(2), after(3)] {
        folder.write(&format!("run/{name}/in the way"), "");
    }
    std::fs::remove_file(folder.path("run/results.json")).unwrap();
    folder.write("run/results.json/in the way", "");
    let said = folder.run("train --resume --out run --set epochs=3");
    assert_eq!(said.code, 1, "{}", said.err);
    let tried = said.err.lines().filter(|line| line.starts_with("not saved: cannot write run/checkpoint-epoch000"));
    let tried: Vec<&str> = tried.collect();
    assert!(tried.len() == 2 && tried.iter().all(|line| line.contains("trying again in")), "{}", said.err);
    let error = said.err.lines().last().unwrap();
    let parts = [
        after(3),
        format!("the newest checkpoint is run/{} of step 4", after(1)),
        "run/results.json could not".to_owned(),
    ];
    assert!(error.starts_with("error: ") && parts.iter().all(|part| error.contains(part)), "{error}");
    assert!(said.out.contains("k-means") && said.out.contains("weights "), "the results are shown: {}", said.out);
    assert!(folder.read(&format!("run/{}", after(1))) == before, "the good one stays");
    assert!(!folder.names("run").iter().any(|name| name.starts_with(".writing-")));
    // With room again, the run is whole.
    for name in [after(2), after(3), "results.json".to_owned()] {
        std::fs::remove_dir_all(folder.path("run").join(name)).unwrap();
    }
    folder.done("train --resume --out run");
    assert_eq!(folder.checkpoints("run").last(), Some(&after(3)));
    assert!(folder.json("run/results.json")["weights"].is_string());
}

/// Pixels that vanish while they are read: what was learned until then is saved.
#[test]
#[cfg(unix)]
fn data_that_vanish_leave_the_last_good_step() {
    use crate::resume::start;
    let folder = Folder::new();
    folder.pictures("photos", 64);
    folder.done("pack photos photos.pack");
    let words = TINY.replace("shapes:64", "photos.pack") + " --epochs 2000 --checkpoint-every end";
    let mut running = start(&folder, &words, "run", 6);
    let pack = std::fs::File::options().write(true).open(folder.path("photos.pack")).unwrap();
    pack.set_len(8192).unwrap();
    let status = running.0.wait().unwrap();
    let mut err = String::new();
    std::io::Read::read_to_string(running.0.stderr.as_mut().unwrap(), &mut err).unwrap();
    assert_eq!(status.code(), Some(1), "{err}");
    let [name] = &folder.checkpoints("run")[..] else { panic!("{:?} {err}", folder.names("run")) };
    let step = folder.checkpoint(&format!("run/{name}")).meta.step;
    assert_eq!(folder.metrics("run").iter().filter(|line| line["kind"] == "step").count() as u64, step);
    assert!(err.lines().last().unwrap().starts_with("error: ") && err.contains("photos.pack"), "{err}");
}

/// A file of a few kilobytes, whole by its checksums, that asks for a network of 26 GB.
#[test]
fn a_configuration_cannot_ask_for_more_than_its_file_holds() {
    let folder = Folder::new();
    folder.done(&format!("{TINY} --epochs 1 --out run"));
    let name = format!("run/{}", after(1));
    let mut checkpoint = folder.checkpoint(&name);
    checkpoint.meta.config.base_width = 1024;
    checkpoint.meta.config.backbone = disentangle::nn::Backbone::ResNet50;
    checkpoint.save(&folder.path(&name)).unwrap();
    for words in ["eval run", "embed run --data shapes:8 --out out"] {
        folder.refused(words, 1, &["checkpoint-epoch0001", "backbone.conv1.weight is [4, 3, 7, 7]", "another network"]);
    }
}
