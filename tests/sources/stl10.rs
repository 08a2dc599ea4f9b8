//! STL-10 files written by hand.

use disentangle::data::source::Split;
use disentangle::data::{Dataset, ExclusionKind, SourceOptions};

use crate::{excluded, image as picture, load, load_with, names, refused, write};

const SIDE: usize = 96;

/// An image whose pixel at (x, y) is (x, y, shade): planes R, G, B, each column after column.
fn image(shade: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(3 * SIDE * SIDE);
    for plane in 0..3 {
        for x in 0..SIDE {
            bytes.extend((0..SIDE).map(|y| [x as u8, y as u8, shade][plane]));
        }
    }
    bytes
}

fn images(shades: &[u8]) -> Vec<u8> {
    shades.iter().flat_map(|&shade| image(shade)).collect()
}

fn shade(data: &Dataset, i: usize) -> u8 {
    picture(data, i).as_ref().pixels()[2]
}

fn split(split: Split) -> SourceOptions {
    SourceOptions { split, ..Default::default() }
}

#[test]
fn planes_are_column_major_and_labels_start_at_1() {
    let dir = tempfile::tempdir().unwrap();
    let names10 = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];
    write(dir.path(), "stl10_binary/train_X.bin", images(&[1, 2]));
    write(dir.path(), "stl10_binary/train_y.bin", [10, 1]);
    write(dir.path(), "stl10_binary/test_X.bin", images(&[3]));
    write(dir.path(), "stl10_binary/test_y.bin", [4]);
    write(dir.path(), "stl10_binary/class_names.txt", names10.join("\n"));
    write(dir.path(), "stl10_binary/fold_indices.txt", "0 1\n");
    let data = load(dir.path()).unwrap();
    assert_eq!(data.describe(), "STL-10 binary, 3 images, 10 classes");
    assert_eq!(names(&data), ["train_X.bin#0", "train_X.bin#1", "test_X.bin#0"]);
    assert_eq!((data.labels(), data.classes()), (Some(vec![9, 0, 3]), &names10.map(String::from)[..]));
    for i in 0..3 {
        let image = picture(&data, i);
        let pixels = image.as_ref().pixels();
        for (x, y) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y))) {
            assert_eq!(pixels[(y * SIDE + x) * 3..][..3], [x as u8, y as u8, i as u8 + 1], "at ({x}, {y})");
        }
    }
    assert_eq!(load(&dir.path().join("stl10_binary")).unwrap().fingerprint(), data.fingerprint());
}

#[test]
fn the_unlabelled_part_comes_on_request() {
    let dir = tempfile::tempdir().unwrap();
    for (name, shades) in [("train_X.bin", &[1, 2][..]), ("test_X.bin", &[3]), ("unlabeled_X.bin", &[4, 5])] {
        write(dir.path(), name, images(shades));
    }
    write(dir.path(), "train_y.bin", [1, 2]);
    write(dir.path(), "test_y.bin", [3]);
    let cases = [
        (Split::All, &[1, 2, 3][..]),
        (Split::Train, &[1, 2]),
        (Split::Test, &[3]),
        (Split::Unlabeled, &[4, 5]),
        (Split::TrainUnlabeled, &[1, 2, 4, 5]),
        (Split::AllUnlabeled, &[1, 2, 3, 4, 5]),
    ];
    for (part, shades) in cases {
        let data = load_with(dir.path(), &split(part)).unwrap();
        assert_eq!((0..data.len()).map(|i| shade(&data, i)).collect::<Vec<_>>(), shades, "{part}");
        let labels: Vec<Option<u32>> = (0..data.len()).map(|i| data.label(i)).collect();
        let expected: Vec<Option<u32>> =
            shades.iter().map(|&shade| (shade < 4).then(|| u32::from(shade) - 1)).collect();
        assert_eq!(labels, expected, "{part}");
        let left_out = excluded(&data);
        match part {
            Split::All | Split::Train | Split::Test => {
                let [(name, ExclusionKind::Ignored, reason)] = left_out[..] else { panic!("{left_out:?}") };
                assert!(name == "unlabeled_X.bin" && reason.starts_with("2 images without labels"), "{reason}");
            }
            _ => assert!(left_out.is_empty()),
        }
    }
    assert!(load_with(dir.path(), &split(Split::Unlabeled)).unwrap().classes().is_empty());
    // Names and values of the configuration.
    assert_eq!(String::from(Split::TrainUnlabeled), "train+unlabeled");
    assert_eq!(Split::try_from("all+unlabeled".to_string()), Ok(Split::AllUnlabeled));
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "train_X.bin", [images(&[1, 2, 3]), vec![9; 1000]].concat());
    let unlabelled = load(root).unwrap();
    assert_eq!((unlabelled.len(), unlabelled.labels(), unlabelled.classes().len()), (3, None, 0));
    let expected = [
        ("train_y.bin", ExclusionKind::Ignored, "not there: train_X.bin is unlabelled"),
        ("train_X.bin#3", ExclusionKind::Bad, "image cut short after 1000 of 27648 bytes"),
        ("test_X.bin", ExclusionKind::Ignored, "not there: split = \"all\" lacks it"),
    ];
    assert_eq!(excluded(&unlabelled), expected);
    write(root, "train_y.bin", [0, 11, 10, 1]);
    let data = load(root).unwrap();
    assert_eq!((names(&data), data.labels()), (vec!["train_X.bin#2"], Some(vec![9])));
    assert_eq!(excluded(&data)[1].2, "label 11: they are 1 to 10");
    for labels in [&[1, 2, 3][..], &[1; 5], &[]] {
        write(root, "train_y.bin", labels);
        refused(root, 1, &["train_y.bin", "for 4 images in train_X.bin: copy or download it again"]);
    }
    let error = load_with(root, &split(Split::Unlabeled)).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("has no unlabeled_X.bin"), "{error}");
    let error = load_with(root, &split(Split::Test)).err().unwrap().to_string();
    assert!(error.contains("no STL-10 image in the parts asked for (test_X.bin not there)"), "{error}");
    write(root, "other/train_X.bin", image(0));
    refused(root, 1, &["two STL-10 data sets, in `` and `other`"]);
    write(root, "data_batch_1.bin", [0; 3073]);
    std::fs::remove_dir_all(root.join("other")).unwrap();
    refused(root, 1, &["both CIFAR and STL-10"]);
    let empty = tempfile::tempdir().unwrap();
    write(empty.path(), "train_X.bin", [0; 5]);
    refused(empty.path(), 1, &["no whole STL-10 image; train_X.bin#0: image cut short after 5 of 27648 bytes"]);
    // Sources without such a part say so.
    let cifar = tempfile::tempdir().unwrap();
    write(cifar.path(), "data_batch_1.bin", [0; 3073]);
    let error = load_with(cifar.path(), &split(Split::AllUnlabeled)).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("no unlabelled part"), "{error}");
}
