//! CIFAR and STL-10: files of records.

use crate::inputs::{gzip, tar_entry, tar_of};
use crate::{Case, Ends};

const CIFAR10: usize = 3073;
const CIFAR100: usize = 3074;
const STL: usize = 3 * 96 * 96;

pub fn cases() -> Vec<Case> {
    [cifar(), stl10()].into_iter().flatten().collect()
}

/// A record of `bytes` bytes that begins with `labels`.
fn record(labels: &[u8], bytes: usize) -> Vec<u8> {
    let mut record = labels.to_vec();
    record.resize(bytes, 128);
    record
}

fn cifar() -> Vec<Case> {
    let mut cases = Vec::new();
    // Cut: alone there is nothing, after a whole record one is lost.
    for cut in [1, 2, 1024, 1025, 2048, CIFAR10 - 1] {
        let bytes = vec![0; cut];
        let says: &[&str] = &["no whole CIFAR record; data_batch_1.bin#0: record cut short"];
        let one = |content: Vec<u8>| vec![("data_batch_1.bin".to_owned(), content)];
        cases.push(Case::files(format!("CIFAR-10 of {cut} bytes"), one(bytes.clone()), "", Ends::Refused(says)));
        let two = [record(&[3], CIFAR10), bytes].concat();
        cases.push(Case::files(format!("CIFAR-10 with {cut} bytes more"), one(two), "", Ends::Quarantined(1)));
        let tar = tar_of(&[tar_entry(b"c/train.bin", b'0', b"", &vec![0; CIFAR100 + cut])]);
        cases.push(Case::file(
            format!("CIFAR-100 in tar.gz with {cut} bytes more"),
            "c.tgz",
            gzip(&tar),
            Ends::Quarantined(1),
        ));
    }
    for label in [10, 128, 255] {
        let bytes = [record(&[0], CIFAR10), record(&[label], CIFAR10)].concat();
        let files = vec![("x/test_batch.bin".to_owned(), bytes)];
        cases.push(Case::files(format!("CIFAR-10 label {label}"), files, "", Ends::Quarantined(1)));
    }
    for labels in [[20, 0], [0, 100], [255, 255]] {
        let bytes = [record(&[19, 99], CIFAR100), record(&labels, CIFAR100)].concat();
        let files = vec![("train.bin".to_owned(), bytes)];
        cases.push(Case::files(format!("CIFAR-100 labels {labels:?}"), files, "", Ends::Quarantined(1)));
    }
    let batch = || record(&[1], CIFAR10);
    let refused = |name: &str, files: Vec<(&str, Vec<u8>)>, says| {
        let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Case::files(name, files, "", Ends::Refused(says))
    };
    cases.extend([
        refused("CIFAR-10 of no bytes", vec![("data_batch_1.bin", vec![])], &["no CIFAR record in the batches"]),
        refused(
            "CIFAR-10 twice",
            vec![("a/data_batch_1.bin", batch()), ("b/data_batch_1.bin", batch())],
            &["two CIFAR"],
        ),
        refused("CIFAR-10 and -100", vec![("data_batch_1.bin", batch()), ("train.bin", batch())], &["two CIFAR"]),
        refused("CIFAR-10 for Python", vec![("c/data_batch_1", b"\x80\x02}q".to_vec())], &["Python edition"]),
        refused("CIFAR and STL-10", vec![("data_batch_1.bin", batch()), ("s/train_X.bin", vec![0; STL])], &["both"]),
    ]);
    let names = vec![
        ("batches.meta.txt".to_owned(), [&b"\xff\xfe\0cat\n"[..], &vec![b'x'; 1 << 20]].concat()),
        ("data_batch_1.bin".to_owned(), [batch(), vec![0; 9]].concat()),
    ];
    cases.push(Case::files("CIFAR-10 with names that are none", names, "", Ends::Quarantined(1)));
    cases
}

fn stl10() -> Vec<Case> {
    let mut cases = Vec::new();
    let set =
        |images: Vec<u8>, labels: Vec<u8>| vec![("train_X.bin".to_owned(), images), ("train_y.bin".to_owned(), labels)];
    for cut in [1, 96, 96 * 96, 2 * 96 * 96, STL - 1] {
        let says: &[&str] = &["no whole STL-10 image; train_X.bin#0: image cut short"];
        let alone = set(vec![0; cut], vec![1]);
        cases.push(Case::files(format!("STL-10 of {cut} bytes"), alone, "", Ends::Refused(says)));
        let after = set(vec![0; STL + cut], vec![1, 2]);
        cases.push(Case::files(format!("STL-10 with {cut} bytes more"), after, "", Ends::Quarantined(1)));
        let tar = tar_of(&[tar_entry(b"stl10_binary/test_X.bin", b'0', b"", &vec![0; STL + cut])]);
        cases.push(Case::file(
            format!("STL-10 in tar.gz with {cut} bytes more"),
            "s.tgz",
            gzip(&tar),
            Ends::Quarantined(1),
        ));
    }
    for label in [0, 11, 128, 255] {
        let files = set(vec![0; 2 * STL], vec![10, label]);
        cases.push(Case::files(format!("STL-10 label {label}"), files, "", Ends::Quarantined(1)));
    }
    for count in [0, 1, 3, 5000] {
        let files = set(vec![0; 2 * STL], vec![1; count]);
        let says: &[&str] = &["train_y.bin", "for 2 images in train_X.bin"];
        cases.push(Case::files(format!("STL-10 with {count} labels for 2 images"), files, "", Ends::Refused(says)));
    }
    cases.push(Case::files("STL-10 of no bytes", set(vec![], vec![]), "", Ends::Refused(&["no STL-10 image"])));
    let only = |name: &str| vec![(name.to_owned(), vec![0; STL])];
    cases.push(Case::files("STL-10 without labels", only("train_X.bin"), "", Ends::Noted));
    let says: &[&str] = &["train_X.bin and test_X.bin not there"];
    cases.push(Case::files("STL-10, unlabelled part only", only("unlabeled_X.bin"), "", Ends::Refused(says)));
    let twice = vec![("a/test_X.bin".to_owned(), vec![0; STL]), ("b/test_X.bin".to_owned(), vec![0; STL])];
    cases.push(Case::files("STL-10 twice", twice, "", Ends::Refused(&["two STL-10 data sets, in `a` and `b`"])));
    cases
}
