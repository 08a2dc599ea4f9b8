//! A server that gives one prepared answer a connection, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// No client here is silent for longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to answer to one request.
#[derive(Clone)]
pub struct Answer {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Whether a `Range` is answered with that range.
    resumable: bool,
    /// How the length of the body is announced.
    framing: Framing,
    /// Bytes of the body that really go out.
    sent: usize,
    /// Before the connection is closed.
    silence: Duration,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    Close,
}

impl Answer {
    /// 200 with `body`.
    pub fn file(body: Vec<u8>) -> Self {
        Answer::status("200 OK", body)
    }

    /// `status` with `body`.
    pub fn status(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let sent = body.len();
        let (headers, framing, silence) = (Vec::new(), Framing::Length, Duration::ZERO);
        Answer { status, headers, body, resumable: false, framing, sent, silence }
    }

    /// A redirection.
    pub fn redirect(to: &str) -> Self {
        Answer::status("302 Found", "").header(&format!("Location: {to}"))
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.into());
        self
    }

    pub fn resumable(mut self) -> Self {
        self.resumable = true;
        self
    }

    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// The end of the connection is the end of the body.
    pub fn unframed(mut self) -> Self {
        self.framing = Framing::Close;
        self
    }

    /// Closes the connection after so many bytes of the body.
    pub fn cut(mut self, sent: usize) -> Self {
        self.sent = sent;
        self
    }

    /// Says nothing for this time before it closes.
    pub fn then_silent(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// The answer to a request from byte `from` on.
    fn send(&self, stream: &mut TcpStream, from: Option<usize>) -> std::io::Result<()> {
        let (mut status, mut headers, mut body) = (self.status, self.headers.clone(), &self.body[..]);
        headers.push("Connection: close".into());
        let mut sent = self.sent;
        if let Some(from) = from.filter(|_| self.resumable) {
            status = if from < body.len() { "206 Partial Content" } else { "416 Range Not Satisfiable" };
            headers.push(format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len()));
            body = body.get(from..).unwrap_or_default();
            sent = sent.saturating_sub(from);
        }
        match self.framing {
            Framing::Length => headers.push(format!("Content-Length: {}", body.len())),
            Framing::Chunked => headers.push("Transfer-Encoding: chunked".into()),
            Framing::Close => {}
        }
        write!(stream, "HTTP/1.1 {status}\r\n{}\r\n\r\n", headers.join("\r\n"))?;
        let body = &body[..sent.min(body.len())];
        if self.framing == Framing::Chunked {
            for chunk in body.chunks(70_000) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            if self.sent == self.body.len() {
                stream.write_all(b"0\r\n\r\n")?;
            }
        } else {
            stream.write_all(body)?;
        }
        stream.flush()?;
        std::thread::sleep(self.silence);
        Ok(())
    }
}

/// The server. Answers are given in order; after the last one connections are refused.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answers, heard): (Vec<Answer>, _) = (answers.into_iter().collect(), Arc::clone(&requests));
        // A thread a connection: one that is kept silent must not hold up the next.
        let serve = move |answer: Answer, mut stream: TcpStream, request: String| {
            let from = request.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-'));
            let from = from.map(|from| from.parse().unwrap());
            // The client may have had enough before the end.
            std::thread::spawn(move || drop(answer.send(&mut stream, from)))
        };
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for answer in answers {
                let Ok((mut stream, _)) = listener.accept() else { break };
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let request = read_request(&mut stream);
                if request.is_empty() {
                    break; // the knock of `drop`
                }
                heard.lock().unwrap().push(request.clone());
                connections.push(serve(answer, stream, request));
            }
            drop(listener);
            connections.into_iter().for_each(|connection| connection.join().unwrap());
        });
        Server { address, requests, thread: Some(thread) }
    }

    /// Address of `name` here.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// What was asked so far: request line and headers, these in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The value of the `Range` header of each request.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let range = |request: &String| request.lines().find_map(|line| line.strip_prefix("range: ").map(str::to_owned));
        self.requests().iter().map(range).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends a wait for a connection that a failed test never made.
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Everything up to the empty line; header names in lower case.
fn read_request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let lower = |(i, line): (usize, &str)| match line.split_once(": ") {
        Some((name, value)) if i > 0 => format!("{}: {value}\r\n", name.to_ascii_lowercase()),
        _ => format!("{line}\r\n"),
    };
    text.lines().enumerate().map(lower).collect()
}
