//! Any bytes as the log of a run that is resumed after a step, which the first one tells.
#![no_main]

use disentangle::log::JsonLines;

libfuzzer_sys::fuzz_target!(init: disentangle_fuzz::start(), |bytes: &[u8]| {
    let Some((&step, text)) = bytes.split_first() else { return };
    let path = disentangle_fuzz::write("metrics.jsonl", text);
    let resume = || JsonLines::resume(&path, step.into()).expect("nothing that stands in a log ends a run").1;
    let first = resume();
    let kept = std::fs::read(&path).expect("it is there");
    assert_eq!(kept.split_inclusive(|&byte| byte == b'\n').count(), first.kept);
    assert!(kept.is_empty() || kept.ends_with(b"\n"));
    let mut lines = text.split_inclusive(|&byte| byte == b'\n');
    assert!(kept.split_inclusive(|&byte| byte == b'\n').all(|line| lines.any(|old| old == line)), "a line of its own");
    let second = resume();
    assert_eq!((second.kept, second.later, second.broken), (first.kept, 0, 0));
});
