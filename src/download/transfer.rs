//! The network's side: one file by HTTP, in as many requests as it takes.

use std::io::{ErrorKind, Read};
use std::thread::sleep;

use ureq::http::{HeaderMap, StatusCode, header};
use ureq::{Agent, Body};

use super::part::Part;
use super::{Event, Patience, RemoteFile};
use crate::{Error, Result};

/// Bytes taken from the network at a time.
const CHUNK: usize = 1 << 17;

/// The download of one file.
pub struct Transfer<'a> {
    file: &'a RemoteFile,
    patience: &'a Patience,
    agent: Agent,
    /// What the server calls the version it sends; `If-Range` keeps the rest of the file from being another version's.
    etag: Option<String>,
    resumed: bool,
}

/// Why a request did not bring the rest of the file.
enum Failure {
    /// It may do so next time.
    Passing(String),
    /// It will not.
    Final(String),
    /// This machine's side.
    Here(Error),
}

impl<'a> Transfer<'a> {
    /// Prepares; sends nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] if the address is none.
    pub fn new(file: &'a RemoteFile, patience: &'a Patience) -> Result<Self> {
        let uri: ureq::http::Uri =
            file.url.parse().map_err(|e| Error::Usage(format!("{}: not a web address ({e})", file.url)))?;
        let mut config = Agent::config_builder()
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .max_redirects(patience.redirects)
            .http_status_as_error(false)
            // The archive's own bytes: what is counted and digested.
            .accept_encoding("identity")
            .user_agent(concat!("disentangle/", env!("CARGO_PKG_VERSION")));
        // A proxy (`https_proxy` and its kin) is no way to this machine itself.
        if matches!(uri.host(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            config = config.proxy(None);
        }
        Ok(Transfer { file, patience, agent: config.build().into(), etag: None, resumed: false })
    }

    /// Whether some request went on where another one had stopped.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Fills `part` up to the file's size, asking again as often as the patience allows.
    pub fn run(&mut self, part: &mut Part, progress: &mut dyn FnMut(Event)) -> Result<()> {
        let (mut failures, mut best) = (0, part.len());
        while part.len() < self.file.bytes {
            let problem = match self.request(part, progress) {
                Ok(()) => continue,
                Err(Failure::Here(error)) => return Err(error),
                Err(Failure::Final(problem)) => return Err(self.error(problem)),
                Err(Failure::Passing(problem)) => problem,
            };
            // Only bytes never reached before count, or a server that always starts over could keep this going for ever.
            if part.len() >= best.saturating_add(Patience::PROGRESS) {
                failures = 0;
            }
            best = best.max(part.len());
            failures += 1;
            if failures >= self.patience.attempts {
                return Err(self.error(format!("{problem} ({failures} tries)")));
            }
            let pause = self.patience.pause.saturating_mul(1 << (failures - 1).min(5));
            progress(Event::Retrying(problem, pause));
            sleep(pause);
        }
        Ok(())
    }

    fn error(&self, problem: String) -> Error {
        Error::Network { url: self.file.url.clone(), problem }
    }

    /// Asks for what is missing and takes it in. `Ok` when the file's last byte came.
    fn request(&mut self, part: &mut Part, progress: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let mut request = self.agent.get(&self.file.url);
        if part.len() > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", part.len()));
            if let Some(etag) = &self.etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        let response = request.call().map_err(unreachable)?;
        let (head, body) = response.into_parts();
        self.judge(head.status, &head.headers, body.content_length(), part, progress)?;
        // A weak tag promises no equal bytes.
        let tag = head.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
        self.etag = tag.filter(|tag| !tag.starts_with("W/")).map(str::to_owned);
        self.take(body, part, progress)
    }

    /// `Ok` if the answer's body continues `part`, which is emptied if it has to be.
    fn judge(
        &mut self,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
        part: &mut Part,
        progress: &mut dyn FnMut(Event),
    ) -> Result<(), Failure> {
        let have = part.len();
        match status {
            StatusCode::OK => self.is_the_file(headers, length)?,
            StatusCode::PARTIAL_CONTENT => {
                let (start, total) = content_range(headers).unwrap_or_default();
                if total.is_some_and(|total| total != self.file.bytes) {
                    return Err(self.another_size(total.unwrap_or_default()));
                }
                if start == Some(have) {
                    self.resumed |= have > 0;
                    return Ok(());
                }
                restart(part, "the server sent another part than was asked for", progress)?;
                return Err(Failure::Passing("the server sent another part than was asked for".into()));
            }
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                restart(part, "the server has no more bytes than were there", progress)?;
                return Err(Failure::Passing(format!("the server's file ends before byte {have}")));
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(Failure::Final(format!("{status}: the file is not at this address")));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Passing(status.to_string()));
            }
            _ if status.is_server_error() => return Err(Failure::Passing(status.to_string())),
            _ => return Err(Failure::Final(format!("the server answered {status}"))),
        }
        if have > 0 {
            restart(part, "the server does not resume", progress)?;
        }
        Ok(())
    }

    /// Looks at a whole answer before anything that is on disk is given up for it.
    fn is_the_file(&self, headers: &HeaderMap, length: Option<u64>) -> Result<(), Failure> {
        if let Some(other) = length.filter(|&length| length != self.file.bytes) {
            return Err(self.another_size(other));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
            return Err(Failure::Final("a web page came in place of the file (a login page of this network?)".into()));
        }
        Ok(())
    }

    fn another_size(&self, bytes: u64) -> Failure {
        Failure::Final(format!("it has {bytes} bytes there, the published file {}: another file", self.file.bytes))
    }

    /// Adds a body to `part`.
    fn take(&self, mut body: Body, part: &mut Part, progress: &mut dyn FnMut(Event)) -> Result<(), Failure> {
        let mut reader = body.as_reader();
        let mut buffer = vec![0; CHUNK];
        loop {
            let missing = self.file.bytes - part.len();
            let n = match reader.read(&mut buffer) {
                Ok(0) if missing == 0 => return Ok(()),
                Ok(0) => return Err(self.broke_off("", part)),
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                // The file is there: how the connection ends is no matter.
                Err(_) if missing == 0 => return Ok(()),
                Err(e) => return Err(self.broke_off(&format!(": {}", reason(&ureq::Error::from(e))), part)),
            };
            if n as u64 > missing {
                restart(part, "more bytes came than the file has", progress)?;
                let problem = format!("more than the published {} bytes came: another file", self.file.bytes);
                return Err(Failure::Final(problem));
            }
            part.append(&buffer[..n]).map_err(Failure::Here)?;
            progress(Event::Received(part.len()));
        }
    }

    fn broke_off(&self, why: &str, part: &Part) -> Failure {
        Failure::Passing(format!("the connection broke off after {} of {} bytes{why}", part.len(), self.file.bytes))
    }
}

fn restart(part: &mut Part, reason: &str, progress: &mut dyn FnMut(Event)) -> Result<(), Failure> {
    progress(Event::Restarted(reason.into()));
    part.restart().map_err(Failure::Here)
}

/// First byte, and size of the whole where it is given: `bytes 100-199/200`.
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok(), total.trim().parse().ok()))
}

/// What became of a request that got no answer.
fn unreachable(error: ureq::Error) -> Failure {
    let problem = reason(&error);
    match error {
        ureq::Error::TooManyRedirects => Failure::Final("it is redirected in circles".into()),
        // TLS: a certificate that nobody trusts now will not be trusted in a minute.
        ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => Failure::Final(problem),
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
            Failure::Passing(problem)
        }
        _ => Failure::Final(problem),
    }
}

/// An error in words.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(e) if e.kind() == ErrorKind::UnexpectedEof => "the server closed the connection".into(),
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::Timeout(ureq::Timeout::PerRead | ureq::Timeout::RecvResponse) => "the server went silent".into(),
        ureq::Error::Timeout(_) => "no connection in time".into(),
        ureq::Error::HostNotFound => "no such host (is this machine online?)".into(),
        other => other.to_string(),
    }
}
