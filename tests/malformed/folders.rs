//! Folders on disk: what is in them besides pictures.

use std::path::Path;

use crate::inputs::{good, write};
use crate::{Case, Ends, Input};

/// A good picture and what `make` adds.
fn beside(name: &str, ends: Ends, make: impl Fn(&Path) + Send + Sync + 'static) -> Case {
    Case::made(format!("folder: {name}"), ends, move |root| {
        write(root, "good.png", good());
        make(root);
        Input::of("")
    })
}

pub fn cases() -> Vec<Case> {
    let mut cases = everywhere();
    #[cfg(unix)]
    cases.extend(unix());
    cases
}

fn everywhere() -> Vec<Case> {
    let folder = |root: &Path, name: &str| std::fs::create_dir_all(root.join(name)).expect("a folder");
    let refused = |name: &str, files: &[(&str, &[u8])], says| {
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        Case::files(format!("folder: {name}"), files, "", Ends::Refused(says))
    };
    vec![
        beside("called like a picture", Ends::Noted, move |root| folder(root, "x.jpg")),
        beside("an empty class", Ends::Noted, move |root| folder(root, "empty")),
        beside("an empty class inside one", Ends::Noted, move |root| folder(root, "a/b/c")),
        beside("200 folders deep", Ends::Quarantined(1), |root| {
            write(root, &format!("{}x.jpg", "d/".repeat(200)), b"x")
        }),
        beside("hidden files", Ends::Noted, |root| write(root, ".x.png", good())),
        beside("hidden folders", Ends::Noted, |root| write(root, ".git/x.png", good())),
        beside("a note", Ends::Noted, |root| write(root, "README", b"text")),
        beside("an array among pictures", Ends::Noted, |root| write(root, "x.npy", b"\x93NUMPY")),
        beside("an archive among pictures", Ends::Noted, |root| write(root, "x.tar", [0; 1024])),
        beside("a picture of no bytes", Ends::Quarantined(1), |root| write(root, "x.jpg", b"")),
        beside("a picture of another format", Ends::Quarantined(1), |root| write(root, "x.bmp", b"BM")),
        beside("300 bad pictures", Ends::Quarantined(300), |root| {
            (0..300).for_each(|i| write(root, &format!("{i}.jpg"), [i as u8; 40]));
        }),
        beside("a picture of 2 GiB of nothing", Ends::Quarantined(1), |root| {
            let file = std::fs::File::create(root.join("x.jpg")).expect("a file");
            file.set_len(2 << 30).expect("a sparse file");
        }),
        refused("nothing", &[("x/.hidden", b"")], &["1 file: hidden"]),
        refused("notes only", &[("a.txt", b"x"), ("b", b"y")], &["2 files: not an image"]),
        refused("bad pictures only", &[("a.jpg", b"x"), ("b.png", b"")], &["none of the images can be used"]),
        refused("a batch file that is a folder", &[("data_batch_1.bin/x.txt", b"x")], &["no JPEG, PNG or WebP image"]),
        Case::made("folder: empty", Ends::Refused(&["it is empty"]), |_| Input::of("")),
        Case::made("folder: that is not there", Ends::Refused(&["does not exist"]), |_| Input::of("absent")),
    ]
}

/// A named pipe.
#[cfg(unix)]
pub fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo (of every Unix) makes no pipe");
}

#[cfg(unix)]
fn unix() -> Vec<Case> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let link = |name: &str, ends: Ends, to: &'static str, at: &'static str| {
        beside(name, ends, move |root| symlink(to, root.join(at)).expect("a link"))
    };
    let mut cases = vec![
        link("a link to itself", Ends::Quarantined(1), "x.png", "x.png"),
        link("a link to nowhere", Ends::Quarantined(1), "nowhere.png", "x.png"),
        link("a link to a device that never ends", Ends::Noted, "/dev/zero", "x.png"),
        link("a link to a device of nothing", Ends::Noted, "/dev/null", "x.png"),
        link("a link to this folder", Ends::Noted, ".", "again"),
        beside("links to each other", Ends::Quarantined(2), |root| {
            symlink("b.png", root.join("a.png")).expect("a link");
            symlink("a.png", root.join("b.png")).expect("a link");
        }),
        beside("links between two folders", Ends::Noted, |root| {
            ["a", "b"].iter().for_each(|name| write(root, &format!("{name}/x.png"), good()));
            symlink("../b", root.join("a/b")).expect("a link");
            symlink("../a", root.join("b/a")).expect("a link");
        }),
        beside("a pipe", Ends::Noted, |root| pipe(&root.join("x.png"))),
        beside("a link to a pipe", Ends::Noted, |root| {
            pipe(&root.join("p"));
            symlink("p", root.join("x.png")).expect("a link");
        }),
        beside("a socket", Ends::Noted, |root| {
            std::os::unix::net::UnixListener::bind(root.join("x.png")).expect("a socket");
        }),
        beside("labels that are a pipe, of an array", Ends::Noted, |root| {
            pipe(&root.join("x_labels.npy"));
            write(root, "x.npy", crate::inputs::npy("|u1", "(1, 2, 2)", &[0; 4]));
        }),
        Case::made("a pipe instead of data", Ends::Refused(&["neither a folder nor a regular file"]), |root| {
            pipe(&root.join("pipe.tar"));
            Input::of("pipe.tar")
        }),
        Case::made("a link to itself instead of data", Ends::Refused(&["loop.tar"]), |root| {
            symlink("loop.tar", root.join("loop.tar")).expect("a link");
            Input::of("loop.tar")
        }),
    ];
    // Such names exist on Linux; macOS refuses to make them.
    #[cfg(target_os = "linux")]
    cases.extend([
        beside("a bad picture under a name that is not UTF-8", Ends::Quarantined(1), |root| {
            std::fs::write(root.join(OsStr::from_bytes(b"\xff\xfe.jpg")), b"x").expect("a file");
        }),
        beside("names that differ in bytes only", Ends::Quarantined(2), |root| {
            for name in [&b"a\xe9.png"[..], b"a\xea.png"] {
                std::fs::write(root.join(OsStr::from_bytes(name)), b"x").expect("a file");
            }
        }),
        beside("an empty folder whose name is not UTF-8", Ends::Noted, |root| {
            std::fs::create_dir(root.join(OsStr::from_bytes(b"\xff"))).expect("a folder");
        }),
        // A regular file whose bytes cannot be read, for the superuser too.
        link("a file that cannot be read", Ends::Quarantined(1), "/proc/self/mem", "x.jpg"),
        link("a file without an extension that cannot be read", Ends::Noted, "/proc/self/mem", "x"),
    ]);
    cases
}
