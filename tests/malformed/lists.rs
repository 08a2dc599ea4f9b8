//! List files.

use crate::inputs::good;
use crate::{Case, Ends};

/// A list beside a good picture; the first line of those that are to be kept names it.
fn list(name: &str, file: &str, text: impl AsRef<[u8]>, ends: Ends) -> Case {
    let files = vec![("good.png".to_owned(), good()), (file.to_owned(), text.as_ref().to_vec())];
    Case::files(format!("list: {name}"), files, file, ends)
}

pub fn cases() -> Vec<Case> {
    [lines(), whole(), tables(), special()].into_iter().flatten().collect()
}

/// One bad line among good ones.
fn lines() -> Vec<Case> {
    let lost =
        |name: &str, line: &[u8]| list(name, "list.txt", [b"good.png 1\n", line, b"\n"].concat(), Ends::Quarantined(1));
    let long = vec![b'x'; 5000];
    let deep = b"x/".repeat(3000);
    vec![
        lost("a missing file", b"missing.png 1"),
        lost("a missing absolute file", b"/nowhere/missing.png 1"),
        lost("a missing file above", b"../missing.png 1"),
        lost("a folder", b". 1"),
        lost("a folder above", b".. 1"),
        lost("the root", b"/ 1"),
        lost("itself", b"list.txt 1"),
        lost("a device that never ends", b"/dev/zero 1"),
        lost("a device of nothing", b"/dev/null 1"),
        lost("a file as a folder", b"good.png/x.png 1"),
        lost("a NUL", b"good\0.png 1"),
        lost("only NULs", &[0; 100]),
        lost("a name of 5,000 letters", &long),
        lost("3,000 folders", &deep),
        lost("a name that is not UTF-8", b"\xff\xfe.png 1"),
        lost("a control character", b"good.png\x1b[2J 1"),
        lost("another label for the same file", b"good.png 2"),
        lost("a web address", b"https://example.org/x.png 1"),
        lost("a drive of another system", b"C:\\x.png 1"),
        list("the same line twice", "list.txt", "good.png 1\ngood.png 1\n", Ends::Noted),
    ]
}

/// Nothing to use.
fn whole() -> Vec<Case> {
    let refused = |name: &str, text: &[u8], says| list(name, "list.txt", text, Ends::Refused(says));
    let nothing: &[&str] = &["a list without images (no line names one)"];
    let one_line = vec![b'x'; 2 << 20];
    let many: Vec<u8> = (0..20_000).flat_map(|i| format!("{i}.png {i}\n").into_bytes()).collect();
    vec![
        refused("of no bytes", b"", nothing),
        refused("of empty lines", b"\n\r\n  \n\t\n", nothing),
        refused("of comments", b"# a\n# b", nothing),
        refused("of a header", b"path label\n", nothing),
        refused("in UTF-16", b"\xff\xfea\0", &["UTF-16"]),
        refused("in UTF-16, big-endian", b"\xfe\xff\0a", &["UTF-16"]),
        refused("of NULs", &[0; 300], &["a NUL byte in the path"]),
        refused("of noise", &[0xaa; 3000], &["a list without images"]),
        list("of one line of 2 MiB", "list.txt", one_line, Ends::Refused(&[])),
        // A line of text, a path, a name, a reason and places in two tables for each line.
        list("of 20,000 missing files", "list.txt", many, Ends::Refused(&["no such file"])).heap(8 << 20, 200),
    ]
}

fn tables() -> Vec<Case> {
    vec![
        list("a quote that does not end", "t.csv", "good.png,1\n\"missing.png,1\n", Ends::Quarantined(1)),
        list("quotes inside", "t.csv", "good.png,1\nmis\"sing\".png,1\n", Ends::Quarantined(1)),
        list("an empty path", "t.csv", "good.png,1\n,1\n", Ends::Quarantined(1)),
        list("a NUL in a table", "t.csv", "good.png,1\n\0,1\n", Ends::Quarantined(1)),
        list("a header without paths", "t.csv", "label,id\ncat,3\n", Ends::Refused(&["no such file"])),
        list("a header alone", "t.csv", "path,label\n", Ends::Refused(&["no line names one"])),
        list("paths in a column that ends", "t.csv", "label,path\n1,good.png\n2\n", Ends::Quarantined(1)),
        list("10,000 columns", "t.csv", ["good.png,1\nx", &",".repeat(10_000)].concat(), Ends::Quarantined(1)),
        list("a table of quotes", "t.csv", "\"".repeat(9_999), Ends::Refused(&[])),
        list("a table of no bytes", "t.tsv", "", Ends::Refused(&["no line names one"])),
        list("a missing file in a table", "t.tsv", "good.png\t1\nmissing.png\t1\n", Ends::Quarantined(1)),
        list("a table in UTF-16", "t.tsv", b"\xff\xfeg\0", Ends::Refused(&["UTF-16"])),
    ]
}

/// What text alone cannot make.
fn special() -> Vec<Case> {
    #[cfg(unix)]
    {
        use crate::Input;
        use crate::inputs::write;
        use std::os::unix::fs::symlink;
        let made = |name: &str, line: &'static str, make: fn(&std::path::Path)| {
            Case::made(format!("list: {name}"), Ends::Quarantined(1), move |root| {
                make(root);
                write(root, "good.png", good());
                write(root, "list.txt", format!("good.png 1\n{line} 1\n"));
                Input::of("list.txt")
            })
        };
        vec![
            made("a pipe", "pipe.png", |root| crate::folders::pipe(&root.join("pipe.png"))),
            made("a link to a pipe", "link.png", |root| {
                crate::folders::pipe(&root.join("pipe"));
                symlink("pipe", root.join("link.png")).expect("a link");
            }),
            made("a link to itself", "loop.png", |root| symlink("loop.png", root.join("loop.png")).expect("a link")),
            made("a link to nowhere", "link.png", |root| symlink("nowhere", root.join("link.png")).expect("a link")),
            made("a link to a folder", "link.png", |root| symlink(".", root.join("link.png")).expect("a link")),
            made("a bad picture", "bad.png", |root| write(root, "bad.png", &good()[..30])),
            made("an empty picture", "empty.jpg", |root| write(root, "empty.jpg", b"")),
        ]
    }
    #[cfg(not(unix))]
    Vec::new()
}
