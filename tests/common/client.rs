//! A raw HTTP/1.1 client over a blocking socket. It shares no code with the gateway, takes nothing for granted and hides
//! nothing: chunk borders, the way a body ended, and the time at which each piece came stay visible.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// One connection.
pub struct Client {
    stream: TcpStream,
    /// Received, not yet consumed.
    buffer: Vec<u8>,
    address: SocketAddr,
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct Head {
    /// `HTTP/1.1`
    pub version: String,
    /// 100 to 599.
    pub status: u16,
    /// What follows the status.
    pub reason: String,
    /// Names in lower case, values trimmed, in order.
    pub headers: Vec<(String, String)>,
}

/// How a body was framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// None: HEAD, 1xx, 204, 304.
    None,
    /// `content-length`.
    Length(usize),
    /// Chunked, with the size of each chunk in order.
    Chunked(Vec<usize>),
    /// Up to the end of the connection.
    Close,
}

/// How a body ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Complete,
    /// The connection ended or broke before that.
    Cut,
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// Its body, chunks joined.
    pub body: Vec<u8>,
    /// How the body was framed.
    pub framing: Framing,
    /// How it ended.
    pub end: End,
    /// Trailers of a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// One event of an event stream.
#[derive(Debug, Clone)]
pub struct Event {
    /// The bytes as they came, with the blank line.
    pub raw: Vec<u8>,
    /// The `event:` field, if any.
    pub name: Option<String>,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
    /// When its last byte was read.
    pub at: Instant,
}

impl Head {
    /// The first value of `name` (in lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name` (in lower case).
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

impl Client {
    /// Connects; every read and write fails the test after [`PATIENCE`].
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        Client { stream, buffer: Vec::new(), address }
    }

    /// The socket, for what this client does not offer.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// What has been received and not been consumed.
    pub fn held(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads so many bytes as they are.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().is_some(), "ended after {} of {count} bytes: {:?}", self.buffer.len(), self.buffer);
        }
        self.buffer.drain(..count).collect()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Client {
        self.stream.write_all(bytes).unwrap_or_else(|error| panic!("sending {} bytes: {error}", bytes.len()));
        self
    }

    /// Sends bytes as they are; a peer that has already closed is no failure.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request with `content-length` (unless it is a GET or HEAD without a body) and the headers given.
    pub fn send_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> &mut Client {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !(body.is_empty() && matches!(method, "GET" | "HEAD")) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)
    }

    /// Sends a request and reads the whole answer to it.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send_request(method, path, headers, body).response(method)
    }

    /// Shuts down the sending side.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("half-close");
    }

    /// Reads a response's head, interim ones (1xx) included.
    ///
    /// # Panics
    /// If the connection ends first, or what comes is no head.
    pub fn head(&mut self) -> Head {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            let got = String::from_utf8_lossy(&self.buffer).into_owned();
            assert!(self.fill().is_some(), "the connection ended within a head: {got:?}");
        };
        let bytes: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let text = String::from_utf8(bytes).expect("a head in UTF-8");
        let mut lines = text[..end].split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let mut words = status_line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        assert!(version.starts_with("HTTP/1."), "not a status line: {status_line:?}");
        let status = words.next().and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let headers = lines.map(field).collect();
        Head { version, status, reason: words.next().unwrap_or_default().to_owned(), headers }
    }

    /// Reads the head of an answer, past interim ones.
    pub fn final_head(&mut self) -> Head {
        loop {
            let head = self.head();
            if head.status >= 200 {
                return head;
            }
        }
    }

    /// Reads a whole response to `method`, past interim ones.
    pub fn response(&mut self, method: &str) -> Response {
        let head = self.final_head();
        self.body(method, head)
    }

    /// Reads the body that follows `head`.
    pub fn body(&mut self, method: &str, head: Head) -> Response {
        let is_chunked = head.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = head.get("content-length").map(|value| value.parse().expect("a content-length"));
        assert!(!(is_chunked && length.is_some()), "framed twice: {head:?}");
        assert!(head.all("content-length").len() <= 1, "two lengths: {head:?}");
        let (mut body, mut trailers) = (Vec::new(), Vec::new());
        let (framing, end) = if method == "HEAD" || matches!(head.status, 100..200 | 204 | 304) {
            (Framing::None, End::Complete)
        } else if is_chunked {
            let mut sizes = Vec::new();
            let end = loop {
                match self.chunk() {
                    Some(Chunk::Data(data)) => {
                        sizes.push(data.len());
                        body.extend_from_slice(&data);
                    }
                    Some(Chunk::Last(fields)) => {
                        trailers = fields;
                        break End::Complete;
                    }
                    None => break End::Cut,
                }
            };
            (Framing::Chunked(sizes), end)
        } else if let Some(length) = length {
            while self.buffer.len() < length && self.fill().is_some() {}
            let end = if self.buffer.len() < length { End::Cut } else { End::Complete };
            body.extend(self.buffer.drain(..length.min(self.buffer.len())));
            (Framing::Length(length), end)
        } else {
            let end = loop {
                match self.fill_or_error() {
                    Ok(true) => {}
                    Ok(false) => break End::Complete,
                    Err(_) => break End::Cut,
                }
            };
            body.append(&mut self.buffer);
            (Framing::Close, end)
        };
        Response { head, body, framing, end, trailers }
    }

    /// Reads one chunk of a chunked body; `None` if the connection ended within it.
    ///
    /// # Panics
    /// If what comes is no chunk.
    pub fn chunk(&mut self) -> Option<Chunk> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        if size == 0 {
            let mut trailers = Vec::new();
            loop {
                match self.line()? {
                    line if line.is_empty() => return Some(Chunk::Last(trailers)),
                    line => trailers.push(field(&line)),
                }
            }
        }
        while self.buffer.len() < size + 2 {
            self.fill()?;
        }
        let data = self.buffer.drain(..size).collect();
        let end: Vec<u8> = self.buffer.drain(..2).collect();
        assert_eq!(end, b"\r\n", "a chunk of {size} bytes does not end in CRLF");
        Some(Chunk::Data(data))
    }

    /// Reads events as they arrive from a body that has been begun with `head`.
    pub fn events(self, head: &Head) -> Events {
        let is_chunked = head.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let left = head.get("content-length").map(|value| value.parse().expect("a content-length"));
        Events { client: self, is_chunked, left, held: Vec::new(), end: None, lump: 0 }
    }

    /// True if nothing more comes but the end of the connection, which may be a reset.
    pub fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && self.fill().is_none()
    }

    /// True if nothing comes for `quiet`: neither bytes nor the end.
    pub fn is_silent_for(&mut self, quiet: Duration) -> bool {
        self.stream.set_read_timeout(Some(quiet)).expect("a read timeout");
        let result = self.stream.peek(&mut [0]);
        self.buffer.is_empty()
            && matches!(result, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    /// Reads once. `None` at the end of the connection, in whichever way it ended.
    fn fill(&mut self) -> Option<usize> {
        let before = self.buffer.len();
        matches!(self.fill_or_error(), Ok(true)).then(|| self.buffer.len() - before)
    }

    fn fill_or_error(&mut self) -> std::io::Result<bool> {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came for {PATIENCE:?}; held: {:?}", String::from_utf8_lossy(&self.buffer))
            }
            Err(error) => Err(error),
        }
    }
}

/// A chunk of a chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Its bytes.
    Data(Vec<u8>),
    /// The last one, with the trailers.
    Last(Vec<(String, String)>),
}

/// The events of one response, as they arrive.
pub struct Events {
    client: Client,
    is_chunked: bool,
    left: Option<usize>,
    held: Vec<u8>,
    end: Option<End>,
    lump: usize,
}

impl Events {
    /// The next event, comments of their own included (an event without data). `None` when the body has ended; then
    /// [`Events::end`] says how, and [`Events::rest`] what stood after the last blank line.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = event_end(&self.held) {
                let raw: Vec<u8> = self.held.drain(..end).collect();
                self.lump += 1;
                return Some(Event::read(raw, Instant::now()));
            }
            self.lump = 0;
            if self.end.is_some() || !self.more() {
                return None;
            }
        }
    }

    /// All further events.
    pub fn all(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next_event()).collect()
    }

    /// How many events the last one shared its write with, itself included, as far as this side can see.
    pub fn lump(&self) -> usize {
        self.lump
    }

    /// How the body ended; `None` while it goes on.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Bytes after the last whole event.
    pub fn rest(&self) -> &[u8] {
        &self.held
    }

    /// Gives the connection back, to be used again or closed.
    pub fn into_client(self) -> Client {
        self.client
    }

    fn more(&mut self) -> bool {
        if self.is_chunked {
            match self.client.chunk() {
                Some(Chunk::Data(data)) => self.held.extend_from_slice(&data),
                Some(Chunk::Last(_)) => self.end = Some(End::Complete),
                None => self.end = Some(End::Cut),
            }
            return self.end.is_none();
        }
        if self.left == Some(0) {
            self.end = Some(End::Complete);
            return false;
        }
        if self.client.buffer.is_empty() {
            match self.client.fill_or_error() {
                Ok(true) => {}
                Ok(false) if self.left.is_none() => self.end = Some(End::Complete),
                Ok(false) | Err(_) => self.end = Some(End::Cut),
            }
        }
        let take = self.left.unwrap_or(usize::MAX).min(self.client.buffer.len());
        self.left = self.left.map(|left| left - take);
        self.held.extend(self.client.buffer.drain(..take));
        self.end.is_none()
    }
}

impl Event {
    fn read(raw: Vec<u8>, at: Instant) -> Event {
        let text = String::from_utf8_lossy(&raw).replace("\r\n", "\n").replace('\r', "\n");
        let (mut name, mut data) = (None, Vec::new());
        for line in text.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = Some(value.to_owned()),
                "data" => data.push(value.to_owned()),
                _ => {}
            }
        }
        Event { raw, name, data: data.join("\n"), at }
    }

    /// Its data as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error} in {:?}", self.data))
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The end of the first event: past the first blank line, whichever line ends the stream uses.
fn event_end(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    let mut at = 0;
    while at < bytes.len() {
        let length = match (bytes[at], bytes.get(at + 1)) {
            (b'\r', Some(b'\n')) => 2,
            (b'\r', None) => return None, // a line feed may follow
            (b'\r' | b'\n', _) => 1,
            _ => {
                at += 1;
                continue;
            }
        };
        let is_blank = at == line_start;
        at += length;
        line_start = at;
        if is_blank {
            return Some(at);
        }
    }
    None
}
