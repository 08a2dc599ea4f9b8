//! Image folders: layouts, what is left out, data sets made of them.

use disentangle::data::source::{self, Split};
use disentangle::data::{Dataset, ExclusionKind, GatherOptions, SourceOptions};
use tempfile::TempDir;

use crate::{excluded, load, load_with, names, png, refused, write};

/// A folder with a different picture under each name.
fn folder(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    files.iter().enumerate().for_each(|(i, name)| write(dir.path(), name, png(i as u8)));
    dir
}

#[test]
fn layouts() {
    let none: &[Option<u32>] = &[None, None];
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [Option<u32>]); // files, classes, label of each file
    let cases: &[Case] = &[
        (&["a.png", "b.png"], &[], none),
        (&["photos/a.png", "photos/b.png"], &[], none),
        (&["cat/a.png", "dog/a.png"], &["cat", "dog"], &[Some(0), Some(1)]),
        (&["set/v1/cat/a.png", "set/v1/dog/deep/er/a.png"], &["cat", "dog"], &[Some(0), Some(1)]),
        (&["a.png", "cat/a.png"], &["cat"], &[None, Some(0)]),
        (&["test/dog/a.png", "train/cat/a.png", "train/dog/a.png"], &["cat", "dog"], &[Some(1), Some(0), Some(1)]),
        (&["test/a.png", "train/a.png"], &[], none),
        (&["set/train/cat/a.png", "set/train/dog/a.png"], &["cat", "dog"], &[Some(0), Some(1)]),
        // Tiny ImageNet: its test part has no classes.
        (
            &["test/images/1.png", "train/n1/images/1.png", "train/n2/images/1.png"],
            &["n1", "n2"],
            &[None, Some(0), Some(1)],
        ),
        // Not only splits: then `train` is a class, as of vehicles.
        (&["bus/a.png", "train/a.png"], &["bus", "train"], &[Some(0), Some(1)]),
    ];
    for (files, classes, labels) in cases {
        let dir = folder(files);
        let data = load(dir.path()).unwrap();
        assert_eq!(names(&data), *files);
        assert_eq!(data.classes(), *classes, "{files:?}");
        assert_eq!((0..data.len()).map(|i| data.label(i)).collect::<Vec<_>>(), *labels, "{files:?}");
        assert_eq!(data.labels(), labels.iter().copied().collect(), "{files:?}");
        assert!(excluded(&data).is_empty() && data.factors().is_empty());
    }
}

#[test]
fn splits() {
    let dir = folder(&["train/a/1.png", "train/b/1.png", "train/b/2.png", "val/a/3.png", "val/c/1.png"]);
    let part = |split| load_with(dir.path(), &SourceOptions { split, ..Default::default() });
    assert_eq!(part(Split::All).unwrap().len(), 5);
    assert_eq!(names(&part(Split::Train).unwrap()), ["train/a/1.png", "train/b/1.png", "train/b/2.png"]);
    let test = part(Split::Test).unwrap();
    // Labels mean the same classes in every part.
    assert_eq!((test.classes(), test.labels()), (&["a", "b", "c"].map(String::from)[..], Some(vec![0, 2])));
    let flat = folder(&["a.png"]);
    let error = load_with(flat.path(), &SourceOptions { split: Split::Test, ..Default::default() }).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("no train and test folders"), "{error}");
}

#[test]
fn nothing_to_use() {
    let dir = tempfile::tempdir().unwrap();
    refused(&dir.path().join("absent"), 2, &["does not exist", "shapes"]);
    refused(dir.path(), 1, &["no JPEG, PNG or WebP image", "it is empty"]);
    write(dir.path(), "notes.txt", "text");
    write(dir.path(), "a.gif", "GIF89a");
    write(dir.path(), ".hidden.png", png(0));
    refused(dir.path(), 1, &["1 file: not an image", "1 file: gif images are not read", "1 file: hidden"]);
    write(dir.path(), "x.jpg", "no image");
    let error = load(dir.path()).err().unwrap().to_string();
    assert!(error.contains("none of the images can be used (a.gif: gif images"), "{error}");
    assert!(error.contains("x.jpg: not JPEG, PNG or WebP content)"), "{error}");
}

#[test]
fn what_is_left_out_is_listed() {
    let dir = folder(&["a/1.png", "b/1.png"]);
    write(dir.path(), ".git/objects/1.png", png(9));
    write(dir.path(), "a/README", "text");
    write(dir.path(), "a/bad.png", &png(7)[..60]);
    write(dir.path(), "a/empty.jpeg", "");
    write(dir.path(), "a/no_extension", png(8));
    write(dir.path(), "b/old.gif", "GIF89a");
    let data = load(dir.path()).unwrap();
    assert_eq!(names(&data), ["a/1.png", "a/no_extension", "b/1.png"]);
    let left_out = excluded(&data);
    let expected = [
        (".git", ExclusionKind::Ignored, "hidden"),
        ("a/README", ExclusionKind::Ignored, "not an image"),
        ("b/old.gif", ExclusionKind::Bad, "gif images are not read: convert it to JPEG or PNG"),
    ];
    assert_eq!(left_out[..3], expected);
    assert_eq!(left_out[3].0, "a/bad.png");
    assert!(left_out[3].2.starts_with("damaged PNG: "), "{left_out:?}");
    assert_eq!(left_out[4], ("a/empty.jpeg", ExclusionKind::Bad, "the file is empty"));
    assert_eq!(data.describe(), "image folder, 3 images, 2 classes; 3 bad, set aside; 2 ignored");
}

#[cfg(unix)]
#[test]
fn links_end() {
    use std::os::unix::fs::symlink;
    let dir = folder(&["a/1.png", "b/1.png"]);
    let outside = folder(&["2.png"]);
    let root = dir.path();
    symlink(root, root.join("a/loop")).unwrap();
    symlink("self", root.join("self")).unwrap();
    symlink("absent.png", root.join("b/broken.png")).unwrap();
    symlink(root.join("b"), root.join("a_link_to_b")).unwrap();
    symlink(outside.path(), root.join("c")).unwrap();
    symlink(root.join("a/1.png"), root.join("c.png")).unwrap();
    let data = load(root).unwrap();
    assert_eq!(names(&data), ["a/1.png", "b/1.png", "c.png", "c/2.png"]);
    let left_out: Vec<(&str, ExclusionKind)> = excluded(&data).iter().map(|e| (e.0, e.1)).collect();
    let (bad, ignored) = (ExclusionKind::Bad, ExclusionKind::Ignored);
    assert_eq!(left_out, [("a/loop", ignored), ("a_link_to_b", ignored), ("b/broken.png", bad), ("self", bad)]);
}

#[cfg(target_os = "linux")]
#[test]
fn names_stay_apart_and_printable() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    for name in [&b"a\xe9.png"[..], b"a\xea.png", b"a\\xE9.png", b"a\n.png", "a\u{e9}.png".as_bytes()] {
        std::fs::write(dir.path().join(OsStr::from_bytes(name)), png(0)).unwrap();
    }
    let data = load(dir.path()).unwrap();
    assert_eq!(names(&data), ["a\\x0A.png", "a\\x5CxE9.png", "a\\xE9.png", "a\\xEA.png", "a\u{e9}.png"]);
}

#[test]
fn the_fingerprint_is_of_the_content() {
    let stamp = |dir: &TempDir| load(dir.path()).unwrap().fingerprint();
    let base = stamp(&folder(&["a/1.png", "b/2.png"]));
    assert_eq!(base, stamp(&folder(&["a/1.png", "b/2.png"])));
    assert_ne!(base, stamp(&folder(&["a/1.png", "b/3.png"])), "another name");
    assert_ne!(base, stamp(&folder(&["b/2.png", "a/1.png"])), "pictures exchanged");
    assert_ne!(base, stamp(&folder(&["a/1.png", "a/2.png"])), "another label");
}

#[test]
fn threads_and_progress() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let calls = std::sync::Mutex::new(Vec::new());
        let source = source::open("shapes:1300", &SourceOptions::default()).unwrap();
        let count = |done, total| calls.lock().unwrap().push((done, total));
        let data = pool.install(|| Dataset::load(source, &GatherOptions::default(), &count).unwrap());
        let mut calls = calls.into_inner().unwrap();
        calls.sort_unstable();
        assert_eq!(calls, (1..=1300).map(|done| (done, 1300)).collect::<Vec<_>>());
        data.fingerprint()
    };
    assert_eq!(run(1), run(3));
}
