//! NumPy arrays written by hand.

use std::path::Path;

use disentangle::data::source::{self, Split};
use disentangle::data::{ExclusionKind, SourceOptions};

use crate::{excluded, image, load, load_with, names, npy, refused, write};

/// 0, 1, 2, ...
fn counting(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

fn labels_of(root: &Path) -> (Vec<Option<u32>>, Vec<String>) {
    let data = load(&root.join("images.npy")).unwrap();
    ((0..data.len()).map(|i| data.label(i)).collect(), data.classes().to_vec())
}

#[test]
fn shapes_of_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.npy");
    // Shape, and the pixel of image 1 at row 0, column 1.
    let cases: [(&[usize], [u8; 3]); 4] =
        [(&[2, 4, 5, 3], [63, 64, 65]), (&[2, 4, 5, 4], [84, 85, 86]), (&[2, 4, 5, 1], [21; 3]), (&[2, 4, 5], [21; 3])];
    for (shape, pixel) in cases {
        write(dir.path(), "set.npy", npy("|u1", shape, &counting(shape.iter().product())));
        let data = load(&path).unwrap();
        assert_eq!(data.describe(), "NumPy array, 2 images, unlabelled");
        assert_eq!((names(&data), data.size(1)), (vec!["set.npy#0", "set.npy#1"], (5, 4)));
        assert_eq!(image(&data, 1).as_ref().pixels()[3..6], pixel, "{shape:?}");
    }
    // What Python writes, to the byte, and the second version of the header.
    let mut plain = b"\x93NUMPY\x01\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 2, 3), }".to_vec();
    plain.resize(127, b' ');
    plain.extend(b"\nabcdef");
    write(dir.path(), "set.npy", &plain);
    assert_eq!(image(&load(&path).unwrap(), 0).as_ref().pixels(), b"abcdef");
    plain.splice(6..10, *b"\x02\0v\0\0\0");
    write(dir.path(), "set.npy", [&plain[..], b"more"].concat());
    let data = load(&path).unwrap();
    assert_eq!(image(&data, 0).as_ref().pixels(), b"abcdef");
    assert_eq!(excluded(&data), [("set.npy", ExclusionKind::Ignored, "4 bytes after the array")]);
    let test = SourceOptions { split: Split::Test, ..Default::default() };
    assert_eq!(load_with(&path, &test).err().unwrap().exit_code(), 2);
}

#[test]
fn labels_of_every_width() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "images.npy", npy("|u1", &[4, 2, 2, 3], &counting(48)));
    assert_eq!(labels_of(root), (vec![None; 4], vec![]));
    let values = [7i64, -1, 0, 7];
    let expected = (vec![Some(1), None, Some(0), Some(1)], vec!["0".to_string(), "7".to_string()]);
    for (descr, width) in [("|i1", 1), ("<i2", 2), (">i2", 2), ("<i4", 4), (">i4", 4), ("<i8", 8), (">i8", 8)] {
        let bytes = values.map(|v| match descr.starts_with('>') {
            true => v.to_be_bytes()[8 - width..].to_vec(),
            false => v.to_le_bytes()[..width].to_vec(),
        });
        write(root, "labels.npy", npy(descr, &[4], &bytes.concat()));
        assert_eq!(labels_of(root), expected, "{descr}");
        write(root, "labels.npy", npy(descr, &[4, 1], &bytes.concat()));
        assert_eq!(labels_of(root), expected, "{descr}, N,1");
    }
    // Unsigned and truth values have no -1; the order is that of numbers, not of text.
    write(root, "labels.npy", npy("<u2", &[4], &[10, 0, 2, 0, 0, 1, 2, 0]));
    assert_eq!(
        labels_of(root),
        (vec![Some(1), Some(0), Some(2), Some(0)], ["2", "10", "256"].map(String::from).to_vec())
    );
    write(root, "labels.npy", npy("|b1", &[4], &[1, 0, 0, 1]));
    assert_eq!(labels_of(root).0, [Some(1), Some(0), Some(0), Some(1)]);
    // A file for this array alone goes before `labels.npy`.
    write(root, "images_labels.npy", npy("|u1", &[4], &[5, 5, 5, 5]));
    assert_eq!(labels_of(root).1, ["5"]);
    let source = source::open(root.join("images.npy").to_str().unwrap(), &SourceOptions::default()).unwrap();
    assert_eq!(source.files(), [root.join("images.npy"), root.join("images_labels.npy")]);
}

#[test]
fn labels_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let images = root.join("images.npy");
    write(root, "images.npy", npy("|u1", &[2, 2, 2], &counting(8)));
    write(root, "labels.npy", npy("<i4", &[2], &[-7i32, 3].map(i32::to_le_bytes).concat()));
    let data = load(&images).unwrap();
    assert_eq!((names(&data), data.labels()), (vec!["images.npy#1"], Some(vec![0])));
    assert_eq!(
        excluded(&data),
        [("images.npy#0", ExclusionKind::Bad, "label -7: classes are 0 or more, and -1 is none")]
    );
    let refused = |descr: &str, shape: &[usize], bytes: &[u8], says: &str| {
        write(root, "labels.npy", npy(descr, shape, bytes));
        let error = load(&images).err().unwrap();
        let text = error.to_string();
        assert!(error.exit_code() == 1 && text.contains("labels.npy: ") && text.contains(says), "{text}");
    };
    refused("|u1", &[3], &[0; 3], "3 labels for 2 images in images.npy");
    refused("<f4", &[2], &[0; 8], "an array of <f4: labels are whole numbers");
    refused("|u1", &[2, 3], &[0; 6], "shape (2, 3): labels are N numbers");
    refused("<i8", &[2], &[0; 9], "needs 16 bytes, 9 are there");
    // Of a file that may be another array's, only a note.
    write(root, "other.npy", npy("|u1", &[2, 2, 2], &counting(8)));
    write(root, "labels.npy", npy("|u1", &[3], &[0; 3]));
    let data = load(&root.join("other.npy")).unwrap();
    let note = "3 labels for 2 images in other.npy: taken for another array's";
    assert_eq!((data.labels(), excluded(&data)), (None, vec![("labels.npy", ExclusionKind::Ignored, note)]));
}

#[test]
fn arrays_that_are_no_images() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    let cases: [(&str, &[usize], &str); 8] = [
        ("<f4", &[2, 2, 2, 3], "an array of <f4: images are uint8"),
        ("|i1", &[2, 2, 2, 3], "an array of |i1: images are uint8"),
        ("|u1", &[8, 3, 8, 8], "channels come last; save images.transpose(0, 2, 3, 1)"),
        ("|u1", &[8, 8, 3], "that of one image: save images[None]"),
        ("|u1", &[8, 8], "shape (8, 8): images are N,H,W,3 or N,H,W"),
        ("|u1", &[2, 8, 8, 2], "shape (2, 8, 8, 2): images are"),
        ("|u1", &[2, 0, 8, 3], "images without pixels"),
        ("|u1", &[0, 8, 8, 3], "no images"),
    ];
    for (descr, shape, says) in cases {
        let width = if descr == "<f4" { 4 } else { 1 };
        write(dir.path(), "x.npy", npy(descr, shape, &vec![0; shape.iter().product::<usize>() * width]));
        refused(&path, 1, &[says]);
    }
    let mut fortran = npy("|u1", &[2, 2, 2, 3], &[0; 24]);
    let at = fortran.windows(5).position(|w| w == b"False").unwrap();
    fortran.splice(at..at + 5, *b"True ");
    write(dir.path(), "x.npy", fortran);
    refused(&path, 1, &["in Fortran order: save numpy.ascontiguousarray(images)"]);
    let folder = dir.path().to_path_buf();
    refused(&folder, 1, &["1 file: a NumPy array: give the file itself"]);
}
