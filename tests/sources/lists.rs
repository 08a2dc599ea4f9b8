//! List files.

use std::path::Path;

use disentangle::data::{ExclusionKind, SourceOptions, source};

use crate::{excluded, image, load, names, png, refused, write};

/// A folder with pictures, some with odd names.
fn pictures() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in ["a.png", "b.png", "c d.png", "sub/e,f.png", "plain"].iter().enumerate() {
        write(dir.path(), name, png(i as u8));
    }
    dir
}

/// Names with the classes' names.
fn listed(path: &Path) -> Vec<(String, Option<String>)> {
    let data = load(path).unwrap();
    let class = |i: usize| data.label(i).map(|label| data.classes()[label as usize].clone());
    (0..data.len()).map(|i| (data.name(i).to_owned(), class(i))).collect()
}

#[test]
fn plain_lists() {
    let dir = pictures();
    let expected = |classes: [Option<&str>; 5]| -> Vec<(String, Option<String>)> {
        let names = ["b.png", "a.png", "c d.png", "sub/e,f.png", "plain"].map(String::from);
        names.into_iter().zip(classes.map(|class| class.map(String::from))).collect()
    };
    let cases = [
        ("b.png\na.png\nc d.png\nsub/e,f.png\nplain\n", [None; 5]),
        (
            "b.png 1\na.png 0\nc d.png 0\nsub/e,f.png 1\nplain 10",
            [Some("1"), Some("0"), Some("0"), Some("1"), Some("10")],
        ),
        (
            "\u{feff}# made by hand\r\n\r\npath label\r\nb.png,big cat\r\na.png , dog\r\nc d.png\tdog\r\nsub/e,f.png big cat\r\nplain\r\n",
            [Some("big cat"), Some("dog"), Some("dog"), Some("big cat"), None],
        ),
        ("b.png -1\na.png 3\nc d.png -1\nsub/e,f.png 3\nplain 3", [None, Some("3"), None, Some("3"), Some("3")]),
    ];
    for (text, classes) in cases {
        for name in ["list.txt", "LIST.LST"] {
            write(dir.path(), name, text);
            assert_eq!(listed(&dir.path().join(name)), expected(classes), "{text}");
        }
    }
    let data = load(&dir.path().join("list.txt")).unwrap();
    assert_eq!(data.describe(), "list of files, 5 images, 1 class");
    // Pixels come from the right file.
    assert_eq!((0..5).map(|i| image(&data, i).as_ref().pixels()[2]).collect::<Vec<_>>(), [1, 0, 2, 3, 4]);
}

#[test]
fn tables() {
    let dir = pictures();
    let (a, e) = (dir.path().join("a.png"), "sub/e,f.png");
    let absolute = a.to_str().unwrap();
    let expected = vec![(absolute.to_owned(), Some("x".to_owned())), (e.to_owned(), Some("y, z".to_owned()))];
    let tables = [
        ("t.csv", format!("{absolute},x,ignored\n\"{e}\",\"y, z\"\n")),
        ("t.csv", format!("id,Label,FileName\n7,x,{absolute}\n8,\"y, z\",\"{e}\"\n")),
        ("t.tsv", format!("{absolute}\tx\n\n# note\n{e}\ty, z\n")),
        ("t.tsv", format!("class\timage\nx\t{absolute}\ny, z\t{e}\n")),
    ];
    for (name, text) in tables {
        write(dir.path(), name, &text);
        assert_eq!(listed(&dir.path().join(name)), expected, "{text}");
    }
    write(dir.path(), "t.csv", "path\na.png\nb.png\n");
    assert_eq!(load(&dir.path().join("t.csv")).unwrap().labels(), None);
    // Numbers in the order of numbers, text in that of text.
    write(dir.path(), "t.csv", "a.png,10\nb.png,9\n");
    assert_eq!(load(&dir.path().join("t.csv")).unwrap().classes(), ["9", "10"]);
    write(dir.path(), "t.csv", "a.png,10\nb.png,9\nplain,x\n");
    assert_eq!(load(&dir.path().join("t.csv")).unwrap().classes(), ["10", "9", "x"]);
}

#[test]
fn lines_that_cannot_be_used() {
    let dir = pictures();
    write(
        dir.path(),
        "list.txt",
        "a.png 0\nmissing.png 1\nsub 0\na.png 0\nb.png 1\nb.png 0\nlist.txt 0\nnul\0.png 1\n/dev/null 0\n",
    );
    let data = load(&dir.path().join("list.txt")).unwrap();
    assert_eq!((names(&data), data.labels()), (vec!["a.png", "b.png"], Some(vec![0, 1])));
    let (bad, ignored) = (ExclusionKind::Bad, ExclusionKind::Ignored);
    let expected = [
        ("missing.png", bad, "line 2: no such file"),
        ("sub", bad, "line 3: a folder"),
        ("a.png", ignored, "line 4: listed in line 1 already"),
        ("b.png", bad, "line 6: another label than in line 5"),
        ("nul\\x00.png", bad, "line 8: a NUL byte in the path"),
        ("/dev/null", bad, "line 9: not a regular file"),
        ("list.txt", bad, "not JPEG, PNG or WebP content"),
    ];
    assert_eq!(excluded(&data), expected);
    let source = source::open(dir.path().join("list.txt").to_str().unwrap(), &SourceOptions::default()).unwrap();
    let files = ["list.txt", "a.png", "b.png", "list.txt"].map(|name| dir.path().join(name));
    assert_eq!(source.files(), files);
    for (text, says) in [
        (&b""[..], "a list without images (no line names one)"),
        (b"# nothing\n", "no line names one"),
        (b"x.png\n", "(x.png: line 1: no such file)"),
        (b"\xff\xfea\0", "a list in UTF-16"),
    ] {
        write(dir.path(), "bad.txt", text);
        refused(&dir.path().join("bad.txt"), 1, &[says]);
    }
}
