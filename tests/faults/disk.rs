//! Faults of the disk, each at a chosen operation of an unmodified program (see `faultfs`).

use std::sync::OnceLock;

use faultfs::{Kind, Operation};

use crate::{Place, Said};

/// 3 epochs of 4 steps, with a checkpoint every second step.
pub const RUN: &str = "train --data shapes:64 --set base_width=2 --image-size 16 --batch-size 16 --epochs 3 --device cpu --threads 2 \
                       --set eval.every=2 --set eval.restarts=1 --set report=false --checkpoint-every 2steps --out run";
pub const RESUME: &str = "train --resume --out run";

/// The same run on a disk without faults, and what it did.
pub fn reference() -> &'static (Place, Vec<Operation>) {
    static REFERENCE: OnceLock<(Place, Vec<Operation>)> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let place = Place::new();
        place.done(RUN);
        let record = place.record();
        (place, record)
    })
}

/// The run over a disk that does as `script` says goes on to the same end, with all `parts` in its words.
#[track_caller]
fn outlasted(script: &str, parts: &[&str]) -> Said {
    let place = Place::new();
    let said = place.run(RUN, script);
    said.expect(0, parts);
    reference().0.assert_same_run(&place, script);
    said
}

/// The run over a disk that does as `script` says stops, with all `parts` in its words and `checkpoints` that can be loaded or
/// more; without the fault it goes on to the same end.
#[track_caller]
fn stopped(script: &str, checkpoints: usize, parts: &[&str]) {
    let place = Place::new();
    place.run(RUN, script).expect(1, parts);
    assert!(place.checkpoints().len() >= checkpoints, "{script}: {:?}", place.checkpoints());
    place.done(RESUME);
    reference().0.assert_same_run(&place, script);
}

/// The number of the `nth` operation (from 0) of a kind on a file, by its last name.
fn number(kind: Kind, nth: usize, named: impl Fn(&str) -> bool) -> u64 {
    let fits = |operation: &&Operation| {
        operation.kind == kind && (named(operation.name()) || operation.target.is_some() && named(operation.new_name()))
    };
    reference().1.iter().filter(fits).nth(nth).expect("the run does it as often").number
}

/// The number of the rename that gives the `nth` checkpoint its name.
fn named(nth: usize) -> u64 {
    number(Kind::Rename, nth, |name| name.starts_with("checkpoint-"))
}

#[test]
fn log_lines_wait_for_the_disk() {
    let back = ["cannot write run/metrics.jsonl", "the run goes on", "run/metrics.jsonl can be written again"];
    outlasted("fail ENOSPC each write metrics.jsonl from 3 times 4", &back);
    outlasted("fail EIO each write metrics.jsonl from 1 times 1", &back);
    outlasted(
        "short 20 each write metrics.jsonl from 5 times 1; fail ENOSPC each write metrics.jsonl from 6 times 2",
        &back,
    );
    outlasted("fail EROFS each write timing.jsonl from 2 times 3", &["timing.jsonl", "the run goes on"]);
    outlasted("fail EIO each sync metrics.jsonl", &["cannot sync run/metrics.jsonl", "the run goes on"]);
}

#[test]
fn a_log_that_stays_unwritable_is_said_and_costs_no_step() {
    let place = Place::new();
    let said = place.run(RUN, "fail EIO each write metrics.jsonl from 3");
    said.expect(1, &["the run goes on", "run/metrics.jsonl lacks"]);
    let newest = "checkpoint-epoch0003.safetensors";
    assert_eq!(place.checkpoints(), reference().0.checkpoints());
    let bytes = |place: &Place| std::fs::read(place.path("run").join(newest)).unwrap();
    assert!(bytes(&place) == bytes(&reference().0), "the weights are those of the run whose log could be written");
    let resumed = place.run(RESUME, "");
    resumed.expect(0, &["lines of steps 3 to 12 are lost"]);
}

#[test]
fn writes_that_are_cut_short_or_interrupted_are_gone_on_with() {
    let silent = |said: Said| assert!(!said.err.contains("cannot"), "{}", said.err);
    silent(outlasted("short 1000 each write *", &[]));
    silent(outlasted("fail EINTR each write * from 3 times 9", &[]));
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_tried_again() {
    let failed = ["not saved: cannot write run/checkpoint-epoch0000-step000002.safetensors", "trying again"];
    for back in 1..=3 {
        // The write, the file's fsync, the rename: the operations before the name is there.
        outlasted(&format!("fail ENOSPC at {}", named(0) - back), &failed[1..]);
    }
    outlasted(&format!("fail EIO at {}", named(0)), &failed);
    outlasted(&format!("fail EIO at {}", named(0) + 1), &["trying again"]);
    outlasted("fail EACCES each remove checkpoint-* times 1", &["old checkpoints stay"]);
    outlasted("fail EROFS each rename results.json times 1", &["cannot write run/results.json", "tries again"]);
    outlasted("fail EIO each rename baselines.json times 1", &["cannot write run/baselines.json", "tries again"]);
}

#[test]
fn a_disk_that_stays_broken_ends_the_run_with_its_last_checkpoint_intact() {
    let third = named(2);
    stopped(&format!("fail ENOSPC each write * from {}", writes_before(third)), 2, &["No space left", "error: "]);
    let from = |rule: &str| format!("{rule} from 3");
    stopped(&from("fail EROFS each rename checkpoint-*"), 2, &["not saved", "Read-only file system"]);
    stopped(&from("fail EIO each sync .writing-*"), 0, &["not saved", "Input/output error"]);
    stopped(&format!("space {}", bytes_before(third) - 1000), 2, &["No space left"]);
}

/// Writes before the operation `number`, and one more.
fn writes_before(number: u64) -> usize {
    1 + reference().1.iter().filter(|operation| operation.kind == Kind::Write && operation.number < number).count()
}

/// Bytes that the run writes before the operation `number`, until which it removes nothing.
fn bytes_before(number: u64) -> usize {
    reference().1.iter().filter(|operation| operation.number < number).map(|operation| operation.bytes).sum()
}

#[test]
fn a_folder_that_turns_read_only_ends_the_run_with_its_last_checkpoint_intact() {
    let from = named(1) + 2; // its folder is on the disk
    let place = Place::new();
    let said = place.run(RUN, &format!("fail EROFS each any * from {from}"));
    said.expect(1, &["Read-only file system", "not saved"]);
    assert_eq!(place.checkpoints().len(), 2);
    place.done(RESUME);
    reference().0.assert_same_run(&place, "read-only");
}

#[test]
fn a_run_that_cannot_begin_says_why_and_can_begin_later() {
    let config = number(Kind::Rename, 0, |name| name == "config.toml");
    for number in 1..=config + 1 {
        let place = Place::new();
        let said = place.run(RUN, &format!("fail EROFS at {number}"));
        if said.code == 0 {
            // Not all of them matter: what stands in the lock file is for people.
            reference().0.assert_same_run(&place, &format!("operation {number}"));
            continue;
        }
        said.expect(1, &["error: cannot ", "run", "Read-only file system"]);
        assert!(place.checkpoints().is_empty());
        place.done(if place.path("run/config.toml").exists() { RESUME } else { RUN });
        reference().0.assert_same_run(&place, &format!("operation {number}"));
    }
}

/// Any one operation fails once. `FAULTS=all` tries them all; else a few are.
#[test]
fn whatever_fails_once_the_run_ends_in_the_same_bytes() {
    let all = std::env::var("FAULTS").is_ok_and(|which| which == "all");
    let operations = &reference().1;
    let step = if all { 1 } else { operations.len().div_ceil(12) };
    let mut tried = 0;
    for operation in operations.iter().skip(3).step_by(step) {
        let place = Place::new();
        let said = place.run(RUN, &format!("fail EIO at {}", operation.number));
        if said.code != 0 {
            said.expect(1, &["Input/output error"]);
            place.done(if place.path("run/config.toml").exists() { RESUME } else { RUN });
        }
        reference().0.assert_same_end(&place, &format!("{operation:?}: {}", said.err));
        tried += 1;
    }
    println!("{tried} of {} operations failed once; all runs ended in the same bytes", operations.len());
}
