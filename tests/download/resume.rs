//! Downloads that go on where they, or others, stopped.

use std::time::Duration;

use disentangle::download::{Event, Fetched};

use crate::{Answer, Case, Server, content};

/// A `Range` header's value.
fn from(byte: usize) -> Option<String> {
    Some(format!("bytes={byte}-"))
}

#[test]
fn a_part_of_an_earlier_run_is_kept() {
    let server = Server::new([Answer::file(content()).resumable()]);
    let mut case = Case::with_part(&content()[..120_000]);
    assert_eq!(case.succeeds(&server), Fetched::Downloaded { kept: 120_000 });
    assert_eq!(server.ranges(), [from(120_000)]);
    assert!(case.events.contains(&Event::Checked(120_000)) && case.restarts() == 0);
}

#[test]
fn a_whole_part_needs_no_request() {
    let server = Server::new([]);
    assert_eq!(Case::with_part(&content()).succeeds(&server), Fetched::Downloaded { kept: 300_000 });
}

#[test]
fn a_server_that_does_not_resume_sends_all() {
    let server = Server::new([Answer::file(content())]);
    let mut case = Case::with_part(&content()[..120_000]);
    case.succeeds(&server);
    assert_eq!((server.ranges(), case.restarts()), (vec![from(120_000)], 1));
}

#[test]
fn a_part_longer_than_the_file_is_dropped() {
    let server = Server::new([Answer::file(content()).resumable()]);
    let mut case = Case::with_part(&vec![1; 300_001]);
    assert_eq!(case.succeeds(&server), Fetched::Downloaded { kept: 0 });
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_part_of_another_file_costs_a_second_download() {
    for part in [vec![7; 120_000], vec![7; 300_000]] {
        let whole = Answer::file(content()).resumable();
        let server = Server::new([whole.clone(), whole]);
        let mut case = Case::with_part(&part);
        case.succeeds(&server);
        let asked = if part.len() < 300_000 { vec![from(120_000), None] } else { vec![None] };
        assert_eq!((server.ranges(), case.restarts()), (asked, 1));
    }
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let whole = || Answer::file(content()).resumable().header("ETag: \"one\"");
    let server = Server::new([whole().cut(100_000), whole().cut(200_000), whole()]);
    let mut case = Case::new();
    case.succeeds(&server);
    assert_eq!(server.ranges(), [None, from(100_000), from(200_000)]);
    assert!(server.requests()[1].contains("if-range: \"one\""));
    assert_eq!((case.retries(), case.restarts()), (2, 0));
}

#[test]
fn a_weak_tag_is_not_relied_on() {
    let whole = || Answer::file(content()).resumable().header("ETag: W/\"one\"");
    let server = Server::new([whole().cut(100_000), whole()]);
    Case::new().succeeds(&server);
    assert!(server.requests()[1].contains("range: bytes=100000-") && !server.requests()[1].contains("if-range"));
}

#[test]
fn chunks_without_a_length_do_as_well() {
    let server = Server::new([Answer::file(content()).chunked().cut(140_000), Answer::file(content()).resumable()]);
    let mut case = Case::new();
    case.succeeds(&server);
    assert_eq!(server.ranges(), [None, from(140_000)]);
    Case::new().succeeds(&Server::new([Answer::file(content()).chunked()]));
    Case::new().succeeds(&Server::new([Answer::file(content()).unframed()]));
}

#[test]
fn silence_is_a_broken_connection() {
    let silent = Answer::file(content()).resumable().cut(100_000).then_silent(Duration::from_millis(1500));
    let server = Server::new([silent, Answer::file(content()).resumable()]);
    let mut case = Case::new();
    case.patience.stall = Duration::from_millis(500);
    case.succeeds(&server);
    assert_eq!(server.ranges(), [None, from(100_000)]);
    let reason = case.events.iter().find_map(|event| match event {
        Event::Retrying(reason, _) => Some(reason.as_str()),
        _ => None,
    });
    assert_eq!(reason, Some("the connection broke off after 100000 of 300000 bytes: the server went silent"));
}

#[test]
fn another_range_than_asked_for_is_not_appended() {
    let wrong = Answer::status("206 Partial Content", &content()[5..]).header("Content-Range: bytes 5-299999/300000");
    let unnamed = Answer::status("206 Partial Content", &content()[5..]);
    for answer in [wrong, unnamed] {
        let server = Server::new([answer, Answer::file(content())]);
        let mut case = Case::with_part(&content()[..120_000]);
        case.succeeds(&server);
        assert_eq!(server.ranges(), [from(120_000), None]);
    }
}

#[test]
fn a_server_whose_file_ends_before_the_part() {
    let short = Answer::file(content()[..100_000].to_vec()).resumable();
    let server = Server::new([short.clone(), short]);
    let mut case = Case::with_part(&content()[..120_000]);
    case.fails(&server, &["it has 100000 bytes there, the published file 300000: another file"]);
    assert_eq!((server.ranges(), case.part()), (vec![from(120_000), None], None));
}
