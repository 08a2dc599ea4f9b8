//! A disk that is really full: a tmpfs of a few MiB, mounted in a namespace of its own.

use std::process::{Command, Stdio};

use crate::disk::{RESUME, RUN, reference};
use crate::{Place, said};

/// Mounts 512 KiB, which two checkpoints nearly fill, runs the training there until the disk is full, enlarges the disk, goes on, and carries the run out.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=512k tmpfs "$DISK" || exit 99
cd "$DISK"
"$PROGRAM" $RUN; echo "first: $?" >&2
ls -l run >&2
mount -o remount,size=64m "$DISK" || exit 99
"$PROGRAM" $RESUME; echo "second: $?" >&2
cp -r run "$OUT"
"#;

#[test]
#[ignore = "mounts a tmpfs: needs root or user namespaces; .ci/run calls it where it may"]
fn a_full_tmpfs_ends_the_run_with_its_last_checkpoint_intact() {
    let place = Place::new();
    std::fs::create_dir(place.path("disk")).unwrap();
    let mut command = Command::new("unshare");
    // SAFETY: asks who we are.
    let options = if unsafe { libc::geteuid() } == 0 { "-m" } else { "-rm" };
    command.args([options, "sh", "-c", SCRIPT]).env("DISK", place.path("disk")).env("OUT", place.path("run"));
    command.env("PROGRAM", env!("CARGO_BIN_EXE_disentangle")).env("RUN", RUN).env("RESUME", RESUME);
    let said = said(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(), "unshare");
    assert_eq!(said.code, 0, "{}", said.err);
    for part in ["No space left", "first: 1", "checkpoint-epoch", "resuming after step", "second: 0"] {
        assert!(said.err.contains(part), "no `{part}` in {}", said.err);
    }
    reference().0.assert_same_run(&place, "tmpfs");
}
