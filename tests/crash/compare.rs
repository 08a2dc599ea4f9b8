//! Two run folders, byte for byte.

use std::collections::BTreeSet;
use std::path::Path;

/// Files that depend on the clock or on who runs.
const OWN: [&str; 2] = ["timing.jsonl", "run.lock"];

/// What is not in `found` as it is in `expected`, in words; nothing if they are equal.
pub fn differences(expected: &Path, found: &Path) -> Vec<String> {
    let (ours, theirs) = (names(expected), names(found));
    let mut problems: Vec<String> =
        ours.symmetric_difference(&theirs).map(|name| format!("{name} is only in one")).collect();
    for name in ours.intersection(&theirs) {
        let content = |folder: &Path| comparable(name, std::fs::read(folder.join(name)).unwrap());
        let (expected, found) = (content(expected), content(found));
        if expected != found {
            let at = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
            let around = |bytes: &[u8]| {
                String::from_utf8_lossy(&bytes[at.saturating_sub(30)..bytes.len().min(at + 30)]).into_owned()
            };
            problems.push(format!("{name} differs at byte {at}: {:?}, not {:?}", around(&found), around(&expected)));
        }
    }
    problems
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| !OWN.contains(&name.as_str())).collect()
}

/// The content without what a resumed run may change: the number of threads.
fn comparable(name: &str, content: Vec<u8>) -> Vec<u8> {
    if name != "config.toml" {
        return content;
    }
    let lines = content.split_inclusive(|&byte| byte == b'\n');
    lines.filter(|line| !line.starts_with(b"threads = ")).flatten().copied().collect()
}
