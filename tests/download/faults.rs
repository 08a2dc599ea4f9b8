//! Servers and folders that do not do what they should.

use std::time::Duration;

use disentangle::Error;
use disentangle::download::{Event, RemoteFile};

use crate::{Answer, Case, MD5, NAME, Server, content, names, published};

#[test]
fn a_file_of_another_size() {
    for bytes in [299_999, 300_001] {
        let mut other = content();
        other.resize(bytes, 0);
        let server = Server::new([Answer::file(other)]);
        // The part survives: the fault is the server's.
        let mut case = Case::with_part(&content()[..50]);
        case.fails(&server, &[&format!("it has {bytes} bytes there, the published file 300000")]);
        assert_eq!(case.part(), Some(content()[..50].to_vec()));
    }
    let mut longer = content();
    longer.push(0);
    for answer in [Answer::file(longer.clone()).chunked(), Answer::file(longer).unframed()] {
        let mut case = Case::new();
        case.fails(&Server::new([answer]), &["more than the published 300000 bytes came"]);
        assert_eq!(case.part(), None);
    }
}

#[test]
fn a_file_of_another_content() {
    let mut other = content();
    other[250_000] ^= 0x10;
    let server = Server::new([Answer::file(other)]);
    let mut case = Case::new();
    case.fails(&server, &["300000 bytes came, but not of the published file", MD5, "thrown away"]);
    assert!(names(case.folder.path()).is_empty());
}

#[test]
fn a_wrong_file_in_pieces_is_downloaded_once_more_and_no_further() {
    let mut other = content();
    other[250_000] ^= 0x10;
    let whole = Answer::file(other).resumable();
    let server = Server::new([whole.clone().cut(9), whole.clone(), whole]);
    let mut case = Case::new();
    case.fails(&server, &["thrown away"]);
    assert_eq!(server.requests().len(), 3);
    assert!(names(case.folder.path()).is_empty());
}

#[test]
fn statuses() {
    for status in ["404 Not Found", "410 Gone", "403 Forbidden", "401 Unauthorized"] {
        let mut case = Case::new();
        case.fails(&Server::new([Answer::status(status, "no")]), &[status]);
        assert_eq!((case.retries(), case.part()), (0, None));
    }
    // An answer in part to a request for the whole, which says not even which part.
    let partly = || Answer::status("206 Partial Content", "no");
    Case::new().fails(&Server::new([partly(), partly(), partly()]), &["another part than was asked for (3 tries)"]);
    let busy = || Answer::status("503 Service Unavailable", "later");
    let mut case = Case::new();
    case.succeeds(&Server::new([Answer::status("500 Internal Server Error", "oops"), busy(), Answer::file(content())]));
    assert_eq!(case.retries(), 2);
    Case::new().fails(&Server::new([busy(), busy(), busy()]), &["503 Service Unavailable (3 tries)"]);
}

#[test]
fn a_web_page_in_place_of_the_file() {
    let page = || Answer::file(b"<html>log in</html>".to_vec()).header("Content-Type: text/html; charset=utf-8");
    let mut case = Case::with_part(&content()[..50]);
    case.fails(&Server::new([page().chunked()]), &["a web page came in place of the file"]);
    assert_eq!(case.part(), Some(content()[..50].to_vec()));
}

#[test]
fn redirections() {
    let there = Server::new([Answer::file(content()).resumable()]);
    let here = Server::new([Answer::redirect("/moved"), Answer::redirect(&there.url("elsewhere/x.bin"))]);
    let mut case = Case::with_part(&content()[..50]);
    case.succeeds(&here);
    assert_eq!(there.ranges(), [Some("bytes=50-".to_owned())]);
    let round = Server::new(vec![Answer::redirect(&format!("/{NAME}")); 8]);
    Case::new().fails(&round, &["redirected in circles"]);
    assert_eq!(round.requests().len(), 4);
    Case::new().fails(&Server::new([Answer::redirect("file:///etc/passwd")]), &[]);
}

#[test]
fn nobody_there_and_nobody_answering() {
    let gone = Server::new([]);
    let mut case = Case::with_part(&content()[..50]);
    // The listener went with the last of its answers.
    std::thread::sleep(Duration::from_millis(50));
    case.fails(&gone, &["refused", "(3 tries)"]);
    assert_eq!(case.part(), Some(content()[..50].to_vec()));
    let mute = Answer::file(content()).cut(0).then_silent(Duration::from_millis(800));
    let mut case = Case::new();
    case.patience.stall = Duration::from_millis(200);
    case.fails(&Server::new([mute.clone(), mute.clone(), mute]), &["the server went silent (3 tries)"]);
    let noise = || Answer::status("200 OK", "").header("no header");
    Case::new().fails(&Server::new([noise(), noise(), noise()]), &[]);
}

#[test]
fn names_do_not_lead_out_of_the_folder() {
    let server = Server::new([]);
    for name in ["../set", "a/b", "/etc/set", "..", ".", ""] {
        let error = Case::new().fetch_file(&RemoteFile { name: name.into(), ..published(&server) }).unwrap_err();
        assert!(matches!(error, Error::Usage(_)) && error.to_string().contains("plain file name"), "{error}");
    }
    // Nor does what the server calls the file.
    let named = Answer::file(content()).header("Content-Disposition: attachment; filename=\"../../evil\"");
    let mut case = Case::new();
    case.succeeds(&Server::new([named]));
    assert!(!case.folder.path().parent().unwrap().join("evil").exists());
}

#[cfg(unix)]
#[test]
fn a_link_in_place_of_the_part_is_not_followed() {
    let server = Server::new([]);
    let (mut case, outside) = (Case::new(), tempfile::tempdir().unwrap());
    let target = outside.path().join("target");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, case.path(&crate::part_name())).unwrap();
    assert!(case.fetch(&server).unwrap_err().to_string().contains("no regular file"));
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

#[test]
fn folders_that_cannot_be_written() {
    let server = Server::new([]);
    let mut case = Case::new();
    std::fs::create_dir(case.path(&crate::part_name())).unwrap();
    assert!(case.fetch(&server).unwrap_err().to_string().contains("no regular file"));
    let fetch = |folder: &std::path::Path| {
        disentangle::download::fetch(&published(&server), folder, &crate::patience(), &mut |_| ()).unwrap_err()
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = fetch(&folder.path().join("file/folder"));
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("cannot create the folder"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
        // Permissions do not bind the superuser, but nobody makes files in /proc.
        let root = std::fs::write(closed.join("probe"), "").is_ok();
        let error = fetch(if root && cfg!(target_os = "linux") { "/proc/self".as_ref() } else { &closed });
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("set.tar.gz.part"), "{error}");
    }
}

#[test]
fn a_second_download_of_the_same_file_stands_back() {
    let server = Server::new([Answer::file(content())]);
    let (case, file) = (Case::new(), published(&server));
    let fetch = |progress: &mut dyn FnMut(Event)| {
        disentangle::download::fetch(&file, case.folder.path(), &case.patience, progress)
    };
    let mut second = None;
    fetch(&mut |_| {
        second.get_or_insert_with(|| fetch(&mut |_| ()));
    })
    .unwrap();
    let error = second.unwrap().unwrap_err();
    assert!(error.to_string().contains("being written by another download"), "{error}");
}
