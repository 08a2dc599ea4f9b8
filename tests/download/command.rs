//! `disentangle download`.

use crate::{Answer, Server, names};

/// Exit code, stdout, stderr of `disentangle download` with `words`, run in `folder`.
fn download(folder: &std::path::Path, words: &str) -> (i32, String, String) {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_disentangle"));
    command.current_dir(folder).arg("download").args(words.split_whitespace());
    let output = command.timeout(std::time::Duration::from_secs(20)).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap_or(-1), out, err)
}

#[test]
fn another_file_under_the_official_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::new([Answer::file(b"not the data set".to_vec())]);
    let (code, out, err) = download(folder.path(), &format!("cifar10 --to here --mirror {}", server.url("")));
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let error = err.lines().last().unwrap();
    let url = server.url("cifar-10-binary.tar.gz");
    for part in [&format!("error: {url}: it has 16 bytes"), "170052171", "--mirror", "here/cifar-10-binary.tar.gz"] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    assert!(names(&folder.path().join("here")).is_empty());
    assert!(server.requests()[0].starts_with("GET /cifar-10-binary.tar.gz "));
}

#[test]
fn bad_usage() {
    let folder = tempfile::tempdir().unwrap();
    for (words, part) in [
        ("cifar10", "--to"),
        ("cifar11 --to here", "cifar10"),
        ("stl10 --to here --mirror ../../etc", "http:// or https://"),
        ("cifar100 --to here --mirror file:///etc", "cifar-100-binary.tar.gz"),
    ] {
        let (code, _, err) = download(folder.path(), words);
        assert!(code == 2 && err.contains(part), "{words}: {code} {err}");
    }
    assert!(names(folder.path()).is_empty());
}
