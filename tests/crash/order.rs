//! What a run does to its folder, in which order, and which instants of that are worth a kill.

use std::ops::RangeInclusive;
use std::path::Path;

use faultfs::{Kind, Operation, Outcome};

use crate::Reference;
use crate::lives::Kill;

/// Moments at which to kill a run.
pub struct Instants {
    /// From the making of a checkpoint's temporary file until the folder that holds its name is on the disk, and the removals
    /// that follow.
    pub inside: Vec<Kill>,
    /// All others.
    pub other: Vec<Kill>,
    /// How many operations there are.
    pub operations: u32,
}

/// Every state that a kill can leave: before each operation and in the middle of each write. What is seen after an operation
/// is what is seen before the next; for those that order others both are tried.
pub fn instants(record: &[Operation]) -> Instants {
    let spans: Vec<_> = checkpoints(record).iter().map(|at| span(record, *at)).collect();
    let mut instants = Instants { inside: Vec::new(), other: Vec::new(), operations: record.len() as u32 };
    for (i, operation) in record.iter().enumerate() {
        let list = if spans.iter().any(|span| span.contains(&i)) { &mut instants.inside } else { &mut instants.other };
        list.push(Kill::At(operation.number, "before"));
        match operation.kind {
            Kind::Write => list.push(Kill::At(operation.number, "within")),
            Kind::Sync | Kind::Rename => list.push(Kill::At(operation.number, "after")),
            _ => {}
        }
    }
    instants
}

fn is_checkpoint(name: &str) -> bool {
    name.starts_with("checkpoint-") && name.ends_with(".safetensors")
}

/// Where checkpoints take their names.
fn checkpoints(record: &[Operation]) -> Vec<usize> {
    let named = |operation: &Operation| operation.kind == Kind::Rename && is_checkpoint(operation.new_name());
    (0..record.len()).filter(|&i| named(&record[i])).collect()
}

/// The operations that belong to the checkpoint which takes its name at `rename`.
fn span(record: &[Operation], rename: usize) -> RangeInclusive<usize> {
    let made = |operation: &Operation| operation.kind == Kind::Create && operation.path == record[rename].path;
    let begin = record[..rename].iter().rposition(made).expect("a file is made before it is renamed");
    let follows = |operation: &Operation| match operation.kind {
        Kind::Sync => operation.path.extension().is_none(),
        Kind::Remove => is_checkpoint(operation.name()),
        _ => false,
    };
    begin..=rename + record[rename + 1..].iter().take_while(|operation| follows(operation)).count()
}

/// Whether a life that ended with this record, leaving this folder, ended inside the writing of a checkpoint. Before the first
/// byte nobody can tell what is about to be written: that does not count.
pub fn in_checkpoint(record: &[Operation], folder: &Path) -> bool {
    let Some(last) = record.last().filter(|last| last.outcome == Outcome::Killed) else { return false };
    match last.kind {
        Kind::Rename => is_checkpoint(last.new_name()),
        Kind::Remove => is_checkpoint(last.name()),
        Kind::Sync if last.path.extension().is_none() && !last.name().starts_with('.') => {
            let renamed = record.iter().rfind(|operation| operation.kind != Kind::Sync);
            renamed.is_some_and(|operation| is_checkpoint(operation.new_name()))
        }
        _ => std::fs::read(folder.join(last.name()))
            .is_ok_and(|bytes| bytes.get(8..).is_some_and(|text| text.starts_with(b"{\"__metadata__\""))),
    }
}

#[test]
fn a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_older_ones_go() {
    let record = Reference::new().lives.record();
    assert!(record.iter().all(|operation| matches!(operation.outcome, Outcome::Done(_))));
    let found = checkpoints(&record);
    assert_eq!(found.len(), 6, "every second step: {found:?}");
    for &rename in &found {
        let (temporary, folder) = (&record[rename].path, record[rename].path.parent().unwrap());
        let before: Vec<Kind> = record[..rename].iter().filter(|o| o.path == *temporary).map(|o| o.kind).collect();
        let writes = before.len().saturating_sub(2);
        let expected: Vec<Kind> =
            [Kind::Create].into_iter().chain(vec![Kind::Write; writes]).chain([Kind::Sync]).collect();
        assert!(writes > 0 && before == expected, "{temporary:?}: {before:?}");
        for log in ["run/metrics.jsonl", "run/timing.jsonl"] {
            let last = record[..rename].iter().rfind(|o| o.path == Path::new(log)).map(|o| o.kind);
            assert_eq!(last, Some(Kind::Sync), "{log}: a checkpoint must not outlive the lines before it");
        }
        let behind = &record[rename + 1..];
        let synced =
            behind.iter().position(|o| o.kind == Kind::Sync && o.path == folder).expect("the folder is synced");
        let next = behind.iter().position(|o| o.kind == Kind::Rename || o.kind == Kind::Remove).unwrap_or(behind.len());
        assert!(
            synced < next,
            "something is renamed or removed before {:?} is sure to be found",
            record[rename].target
        );
    }
    // The run's own name as well.
    let outside = record.iter().position(|o| o.kind == Kind::Sync && o.path.as_os_str().is_empty());
    assert!(outside.is_some_and(|at| at < found[0]), "the folder that the run's lies in is not synced");
    // No checkpoint goes but after a younger one came.
    let first_removed = record.iter().position(|o| o.kind == Kind::Remove && is_checkpoint(o.name()));
    assert!(first_removed.is_none_or(|at| at > found[0]));
}

#[test]
fn nothing_but_logs_is_written_under_its_own_name() {
    let record = Reference::new().lives.record();
    let logs = ["metrics.jsonl", "timing.jsonl", "run.lock"];
    for operation in
        record.iter().filter(|operation| matches!(operation.kind, Kind::Create | Kind::Write | Kind::Truncate))
    {
        let name = operation.name();
        assert!(name.starts_with(".writing-") || logs.contains(&name), "{operation:?}");
    }
}
