//! Downloads from a server of our own on the loopback address: whole, broken off, resumed, refused, and spoilt.

mod command;
mod faults;
mod resume;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use disentangle::download::{Event, Fetched, Patience, RemoteFile, fetch};
use disentangle::{Error, Result};

use server::{Answer, Server};

/// The name of the file in all tests.
const NAME: &str = "set.tar.gz";

/// A file's content: larger than one read, no two stretches alike.
fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// MD5 of [`content`], by `md5sum`.
const MD5: &str = "14a1802113ce2773fe316b5a05dd3645";

/// What is published of [`content`], at `server`.
fn published(server: &Server) -> RemoteFile {
    RemoteFile { name: NAME.into(), url: server.url(NAME), bytes: content().len() as u64, md5: MD5.into() }
}

/// Tries three times in quick succession.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(10),
        stall: Duration::from_secs(10),
        attempts: 3,
        pause: Duration::from_millis(1),
        redirects: 3,
    }
}

/// A folder to download to, and what was seen on the way.
struct Case {
    folder: tempfile::TempDir,
    patience: Patience,
    events: Vec<Event>,
}

impl Case {
    fn new() -> Self {
        Case { folder: tempfile::tempdir().unwrap(), patience: patience(), events: Vec::new() }
    }

    /// A folder with a part of an earlier run.
    fn with_part(bytes: &[u8]) -> Self {
        let case = Case::new();
        std::fs::write(case.path(&part_name()), bytes).unwrap();
        case
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fetch(&mut self, server: &Server) -> Result<Fetched> {
        self.fetch_file(&published(server))
    }

    fn fetch_file(&mut self, file: &RemoteFile) -> Result<Fetched> {
        let events = &mut self.events;
        let (path, how) = fetch(file, self.folder.path(), &self.patience, &mut |event| events.push(event))?;
        assert_eq!(path, self.path(NAME));
        Ok(how)
    }

    /// Downloads, and holds the right file and nothing else.
    #[track_caller]
    fn succeeds(&mut self, server: &Server) -> Fetched {
        let how = self.fetch(server).unwrap();
        assert_eq!(names(self.folder.path()), [NAME]);
        assert!(std::fs::read(self.path(NAME)).unwrap() == content());
        how
    }

    /// Fails with a network error that names the address and has all `parts`; nothing has the file's name.
    #[track_caller]
    fn fails(&mut self, server: &Server, parts: &[&str]) {
        let error = self.fetch(server).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Network { .. }) && error.exit_code() == 1, "{error:?}");
        assert!(text.starts_with(&server.url(NAME)) && !text.contains('\n'), "{text}");
        parts.iter().for_each(|part| assert!(text.contains(part), "no `{part}` in: {text}"));
        assert!(!self.path(NAME).exists());
    }

    /// Bytes of the part that is left; `None` without one.
    fn part(&self) -> Option<Vec<u8>> {
        std::fs::read(self.path(&part_name())).ok()
    }

    fn restarts(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Restarted(_))).count()
    }

    fn retries(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Retrying(..))).count()
    }
}

fn part_name() -> String {
    format!("{NAME}.part")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_whole_download() {
    let server = Server::new([Answer::file(content()).resumable()]);
    let mut case = Case::new();
    assert_eq!(case.succeeds(&server), Fetched::Downloaded { kept: 0 });
    assert_eq!(case.events.last(), Some(&Event::Received(300_000)));
    let request = &server.requests()[0];
    assert!(request.starts_with(&format!("GET /{NAME} HTTP/1.1\r\n")) && !request.contains("range"), "{request}");
    assert!(request.contains("accept-encoding: identity") && request.contains("user-agent: disentangle/"));
}

#[test]
fn a_file_that_is_there_is_checked_and_not_asked_for() {
    let server = Server::new([]);
    let mut case = Case::new();
    std::fs::write(case.path(NAME), content()).unwrap();
    assert_eq!(case.succeeds(&server), Fetched::AlreadyThere);
    assert_eq!(case.events.last(), Some(&Event::Checked(300_000)));
    assert!(server.requests().is_empty());
}

#[test]
fn another_file_of_that_name_is_left_alone() {
    let server = Server::new([]);
    let mut flipped = content();
    flipped[1000] ^= 1;
    for (bytes, part) in [(vec![1, 2, 3], "3 bytes, published 300000"), (flipped, "published")] {
        let mut case = Case::new();
        std::fs::write(case.path(NAME), &bytes).unwrap();
        let error = case.fetch(&server).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(std::fs::read(case.path(NAME)).unwrap(), bytes);
    }
    let mut case = Case::new();
    std::fs::create_dir(case.path(NAME)).unwrap();
    assert!(case.fetch(&server).unwrap_err().to_string().contains("no regular file"));
    assert!(server.requests().is_empty());
}

#[test]
fn a_missing_folder_is_made() {
    let server = Server::new([Answer::file(content())]);
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/b");
    fetch(&published(&server), &folder, &patience(), &mut |_| ()).unwrap();
    assert_eq!(names(&folder), [NAME]);
}
