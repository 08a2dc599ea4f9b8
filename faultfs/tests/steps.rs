//! The library under a program: what is numbered and recorded, what fails, where the program ends.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use faultfs::{Kind, Operation, Outcome};

/// A folder that counts, one beside it that does not, and a record.
struct Place(tempfile::TempDir);

/// What a program left.
struct Left {
    status: ExitStatus,
    out: String,
    record: Vec<Operation>,
}

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        ["root", "roots"].iter().for_each(|name| std::fs::create_dir(place.path(name)).unwrap());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn len(&self, name: &str) -> u64 {
        self.path(name).metadata().unwrap_or_else(|e| panic!("{name}: {e}")).len()
    }

    /// Runs the steps in the folder that counts.
    fn run(&self, script: &str, steps: &str) -> Left {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faultfs-steps"));
        command.current_dir(self.path("root")).args(steps.split_whitespace());
        let record = self.path("record");
        let _ = std::fs::remove_file(&record); // the last run's
        faultfs::attach(&mut command, &self.path("root"), script, Some(&record)).unwrap();
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Left {
            status: output.status,
            out: text(output.stdout) + &text(output.stderr),
            record: faultfs::read_record(&record).unwrap(),
        }
    }
}

fn kinds(record: &[Operation]) -> Vec<(Kind, &str)> {
    record.iter().map(|operation| (operation.kind, operation.path.to_str().unwrap())).collect()
}

#[test]
fn operations_below_the_folder_are_numbered_and_recorded_and_no_others() {
    let place = Place::new();
    let steps = "create:a append:a:10 gather:a:9 sync:a cut:a mkdir:b rename:a:b/c sync:b sync:. create:../roots/x \
                 append:../roots/x:4 create:b/../b/./d remove:b/d rename:b/c:../roots/c rename:nothing:e";
    let left = place.run("", steps);
    assert!(left.status.success(), "{}", left.out);
    use Kind::{Create, Mkdir, Remove, Rename, Sync, Truncate, Write};
    let expected = [
        (Create, "a"),
        (Write, "a"),
        (Write, "a"),
        (Sync, "a"),
        (Truncate, "a"),
        (Mkdir, "b"),
        (Rename, "a"),
        (Sync, "b"),
        (Sync, ""),
        (Create, "b/d"),
        (Remove, "b/d"),
        (Rename, "b/c"),
        (Rename, "nothing"),
    ];
    assert_eq!(kinds(&left.record), expected);
    assert!(left.record.iter().map(|operation| operation.number).eq(1..=13));
    assert_eq!((left.record[1].bytes, left.record[2].bytes, left.record[2].outcome), (10, 9, Outcome::Done(9)));
    assert_eq!((left.record[6].new_name(), left.record[6].target.clone()), ("c", Some("b/c".into())));
    assert_eq!(left.record[11].target, Some(PathBuf::new()), "out of the folder");
    assert_eq!(left.record[12].outcome, Outcome::Failed(libc::ENOENT));
    assert_eq!((place.len("roots/c"), place.len("roots/x")), (1, 4));
}

#[test]
fn operations_fail_and_are_cut_short_as_told() {
    let place = Place::new();
    let script = "fail ENOSPC each write a* from 3 times 1; fail EIO each sync *; fail EROFS each rename new; short 5 at 3; \
                  short 7 each write b; fail EACCES each mkdir *; fail EIO each create c; fail EIO each remove a";
    let steps = "create:a append:a:10 gather:a:20 append:a:3 append:a:4 sync:a rename:a:new create:b gather:b:20 mkdir:m create:c \
                 remove:a";
    let left = place.run(script, steps);
    let errors: Vec<&str> = left.out.lines().filter(|line| line.contains("error")).collect();
    let expected = [
        format!("append:a:3 error {}", libc::ENOSPC),
        format!("sync:a error {}", libc::EIO),
        format!("rename:a:new error {}", libc::EROFS),
        format!("mkdir:m error {}", libc::EACCES),
        format!("create:c error {}", libc::EIO),
        format!("remove:a error {}", libc::EIO),
    ];
    assert_eq!(errors, expected, "{}", left.out);
    assert!(left.out.contains("gather:a:20 5\n") && left.out.contains("gather:b:20 7\n"), "{}", left.out);
    assert_eq!((place.len("root/a"), place.len("root/b")), (19, 7));
    assert!(!place.path("root/m").exists() && !place.path("root/c").exists());
    assert_eq!(std::fs::read(place.path("root/a")).unwrap(), b"xxxxxxxxxxyyyyyxxxx");
}

#[test]
fn a_full_disk_takes_what_fits_and_what_is_removed_makes_room() {
    let place = Place::new();
    let steps = "create:a append:a:10 create:b append:b:10 append:b:1 remove:a append:b:8 create:c append:c:9 rename:c:b append:b:5";
    let left = place.run("space 15", steps);
    let full = libc::ENOSPC;
    let expected = format!(
        "create:a 0\nappend:a:10 10\ncreate:b 0\nappend:b:10 5\nappend:b:1 error {full}\nremove:a 0\nappend:b:8 8\ncreate:c 0\n\
         append:c:9 2\nrename:c:b 0\nappend:b:5 5\n"
    );
    assert_eq!(left.out, expected);
    assert_eq!(place.len("root/b"), 7);
}

#[test]
fn the_program_ends_before_within_and_after() {
    for (moment, written, last) in [("before", 4, "rename"), ("within", 9, "x"), ("after", 14, "x")] {
        let place = Place::new();
        let left = place.run(&format!("kill {moment} 3"), "create:a append:a:4 append:a:10 append:a:1");
        assert_eq!(
            (left.status.signal(), left.out.as_str()),
            (Some(libc::SIGKILL), "create:a 0\nappend:a:4 4\n"),
            "{last}"
        );
        assert_eq!(place.len("root/a"), written, "{moment}");
        assert_eq!((left.record.len(), left.record[2].outcome), (3, Outcome::Killed));
    }
    for (moment, done) in [("before", false), ("within", false), ("after", true)] {
        let place = Place::new();
        let left = place.run(&format!("kill {moment} 2"), "create:a rename:a:b");
        assert_eq!(left.status.signal(), Some(libc::SIGKILL));
        assert_eq!((place.path("root/a").exists(), place.path("root/b").exists()), (!done, done), "{moment}");
    }
}

#[test]
fn a_power_cut_takes_what_was_not_synced() {
    let steps = "create:a append:a:10 sync:a append:a:5 create:b sync:. append:b:3 create:c rename:c:a remove:b mkdir:d create:e";
    let left = |script: &str| {
        let place = Place::new();
        assert_eq!(place.run(script, steps).status.signal(), Some(libc::SIGKILL));
        let names = std::fs::read_dir(place.path("root"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<(String, u64)> =
            names.map(|name| (name.clone(), place.len(&format!("root/{name}")))).collect();
        names.sort();
        names.into_iter().map(|(name, len)| format!("{name}:{len} ")).collect::<String>()
    };
    // All bytes and names that are left were synced: ten bytes of a, the names a and b.
    assert_eq!(left("cut before 12"), "a:10 b:0 ");
    assert_eq!(left("cut before 6"), "");
    assert_eq!(left("cut after 6"), "a:10 b:0 ");
    assert_eq!(left("cut within 7"), "a:10 b:0 ");
    assert_eq!(left("kill within 7"), "a:15 b:1 ");
    assert_eq!(left("kill before 11"), "a:0 ");
}

#[test]
fn threads_take_turns() {
    let place = Place::new();
    let left = place.run("", "threads:t:8");
    assert!(left.out.contains("threads:t:8 72"), "{}", left.out);
    assert!(left.record.iter().map(|operation| operation.number).eq(1..=32), "in order, none lost");
    let left = place.run("kill before 17", "threads:t:8");
    assert_eq!((left.status.signal(), left.record.len()), (Some(libc::SIGKILL), 17));
}

#[test]
fn what_is_not_understood_ends_the_program_before_it_begins() {
    let place = Place::new();
    for (script, part) in [("kill sometimes 3", "sometimes"), ("fail E at 1", "no error"), ("make tea", "not a rule")] {
        let left = place.run(script, "create:a");
        assert_eq!(left.status.code(), Some(faultfs::BAD_SCRIPT));
        assert!(left.out.contains(part) && left.out.starts_with("faultfs: "), "{}", left.out);
        assert!(!place.path("root/a").exists());
    }
}
