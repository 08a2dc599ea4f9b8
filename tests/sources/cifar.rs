//! CIFAR records written by hand.

use disentangle::Error;
use disentangle::data::source::{Cifar100Labels, Split};
use disentangle::data::{Dataset, ExclusionKind, SourceOptions};

use crate::{excluded, image, load, load_with, names, refused, write};

/// A record with `labels`; the pixel at (x, y) is (x + shade, y, 200).
fn record(labels: &[u8], shade: u8) -> Vec<u8> {
    let mut bytes = labels.to_vec();
    for plane in 0..3 {
        bytes.extend((0..1024u32).map(|i| [(i % 32) as u8 + shade, (i / 32) as u8, 200][plane]));
    }
    bytes
}

fn labels(data: &Dataset) -> Vec<u32> {
    data.labels().unwrap()
}

#[test]
fn cifar10() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let cars = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    write(root, "cifar-10-batches-bin/batches.meta.txt", cars.join("\n") + "\n\n");
    // Batches count by number, not by spelling: 2 before 10.
    write(root, "cifar-10-batches-bin/data_batch_10.bin", record(&[3], 0));
    write(root, "cifar-10-batches-bin/data_batch_2.bin", [record(&[1], 5), record(&[9], 0)].concat());
    write(root, "cifar-10-batches-bin/test_batch.bin", record(&[0], 0));
    write(root, "cifar-10-batches-bin/readme.html", "<html>");
    let data = load(root).unwrap();
    assert_eq!(data.describe(), "CIFAR-10 binary, 4 images, 10 classes");
    assert_eq!(names(&data), ["data_batch_2.bin#0", "data_batch_2.bin#1", "data_batch_10.bin#0", "test_batch.bin#0"]);
    assert_eq!((labels(&data), data.classes()), (vec![1, 9, 3, 0], &cars.map(String::from)[..]));
    let image = image(&data, 0);
    let pixels = image.as_ref().pixels();
    for (x, y) in [(0, 0), (31, 0), (7, 19), (31, 31)] {
        assert_eq!(pixels[(y * 32 + x) * 3..][..3], [x as u8 + 5, y as u8, 200], "at ({x}, {y})");
    }
    let inner = load(&root.join("cifar-10-batches-bin")).unwrap();
    assert_eq!(inner.fingerprint(), data.fingerprint());
    let part = |split| names_of(&load_with(root, &SourceOptions { split, ..Default::default() }).unwrap());
    assert_eq!(part(Split::Test), ["test_batch.bin#0"]);
    assert_eq!(part(Split::Train).len(), 3);
}

fn names_of(data: &Dataset) -> Vec<String> {
    names(data).into_iter().map(String::from).collect()
}

#[test]
fn cifar100() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "train.bin", [record(&[19, 99], 0), record(&[2, 7], 0)].concat());
    write(dir.path(), "test.bin", record(&[0, 1], 0));
    write(dir.path(), "coarse_label_names.txt", "fish\nflowers\n");
    let coarse = load(dir.path()).unwrap();
    assert_eq!(coarse.describe(), "CIFAR-100 binary, 3 images, 20 classes");
    assert_eq!(names(&coarse), ["train.bin#0", "train.bin#1", "test.bin#0"]);
    assert_eq!(labels(&coarse), [19, 2, 0]);
    // Missing names are numbers.
    assert_eq!(coarse.classes()[..3], ["fish", "flowers", "2"]);
    assert_eq!((coarse.factors()[0].name.as_str(), &coarse.factors()[0].labels[..]), ("class", &[99, 7, 1][..]));
    let options = SourceOptions { cifar100_labels: Cifar100Labels::Fine, ..Default::default() };
    let fine = load_with(dir.path(), &options).unwrap();
    assert_eq!((fine.classes().len(), labels(&fine)), (100, vec![99, 7, 1]));
    assert_eq!((fine.factors()[0].name.as_str(), &fine.factors()[0].labels[..]), ("superclass", &[19, 2, 0][..]));
    assert_eq!(image(&coarse, 1), image(&fine, 1));
}

#[test]
fn bad_records_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let cut = &record(&[1], 0)[..1024];
    write(dir.path(), "data_batch_1.bin", [&record(&[4], 0)[..], &record(&[10], 0), &record(&[5], 0), cut].concat());
    write(dir.path(), "test_batch.bin", "");
    let data = load(dir.path()).unwrap();
    assert_eq!(names(&data), ["data_batch_1.bin#0", "data_batch_1.bin#2"]);
    assert_eq!(labels(&data), [4, 5]);
    let expected = [
        ("data_batch_1.bin#1", ExclusionKind::Bad, "class label 10, but there are only 10"),
        ("data_batch_1.bin#3", ExclusionKind::Bad, "record cut short after 1024 of 3073 bytes"),
    ];
    assert_eq!(excluded(&data), expected);
    assert!(data.describe().ends_with("2 images, 10 classes; 2 bad, set aside"));
}

#[test]
fn nothing_to_use() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "data_batch_1.bin", [9; 100]);
    refused(dir.path(), 1, &["data_batch_1.bin#0: record cut short after 100 of 3073 bytes"]);
    write(dir.path(), "c100/train.bin", record(&[0, 0], 0));
    refused(dir.path(), 1, &["two CIFAR data sets, in `c100` and ``"]);
    let python = tempfile::tempdir().unwrap();
    write(python.path(), "cifar-10-batches-py/data_batch_1", b"\x80\x02}q\x01");
    refused(python.path(), 1, &["Python edition", "binary version"]);
    let train_only = tempfile::tempdir().unwrap();
    write(train_only.path(), "data_batch_1.bin", record(&[0], 0));
    let test = SourceOptions { split: Split::Test, ..Default::default() };
    assert!(matches!(load_with(train_only.path(), &test), Err(Error::Format { .. })));
}
