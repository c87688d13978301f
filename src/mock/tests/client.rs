//! A client that takes nothing for granted: one answer as it stood on the wire.

use std::io::Read;
use std::net::TcpStream;

use serde_json::Value;

/// An answer as it stood on the wire.
#[derive(Debug)]
pub struct Seen {
    pub head: String,
    /// Chunks decoded, if it was chunked.
    pub body: Vec<u8>,
    /// The body as framed by the head came to its end.
    pub whole: bool,
    /// How the connection ended, if it did before the body.
    pub error: Option<std::io::ErrorKind>,
    pub trailers: String,
}

impl Seen {
    pub fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The data of each event, `[DONE]` included.
    pub fn data(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }
}

/// Reads one answer (interim ones are left in `head`).
pub fn receive(stream: &mut TcpStream) -> Seen {
    let mut seen = Seen { head: String::new(), body: Vec::new(), whole: false, error: None, trailers: String::new() };
    let mut raw: Vec<u8> = Vec::new();
    let mut closed = false;
    loop {
        if seen.head.is_empty()
            && let Some(end) = head_end(&raw)
        {
            seen.head = String::from_utf8(raw.drain(..end).collect()).expect("a head").to_ascii_lowercase();
        }
        if !seen.head.is_empty() {
            if seen.head.contains("transfer-encoding: chunked") {
                if let Some((body, trailers)) = dechunk(&raw, &mut seen.body) {
                    seen.body = body;
                    seen.trailers = trailers;
                    seen.whole = true;
                }
            } else if let Some(length) = seen.head.split("content-length: ").nth(1) {
                let length: usize = length.split("\r\n").next().and_then(|text| text.parse().ok()).expect("a length");
                seen.body = raw.clone();
                seen.whole = raw.len() == length;
            } else {
                seen.body = raw.clone();
                seen.whole = closed;
            }
        }
        if seen.whole || closed {
            return seen;
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => closed = true,
            Ok(count) => raw.extend_from_slice(&bytes[..count]),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{seen:?}");
                seen.error = Some(error.kind());
                closed = true;
            }
        }
    }
}

/// Where the head of the final answer ends.
pub fn head_end(raw: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let end = from + memchr::memmem::find(&raw[from..], b"\r\n\r\n")? + 4;
        if !raw[from..].starts_with(b"HTTP/1.1 1") {
            return Some(end);
        }
        from = end;
    }
}

/// The body and trailers if the last chunk came; else puts what came into `partial`.
fn dechunk(mut raw: &[u8], partial: &mut Vec<u8>) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    loop {
        partial.clone_from(&body);
        let line = memchr::memmem::find(raw, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..line]).ok()?, 16).expect("a chunk size");
        raw = &raw[line + 2..];
        if size == 0 {
            let end = if raw.starts_with(b"\r\n") { 0 } else { memchr::memmem::find(raw, b"\r\n\r\n")? };
            return raw
                .get(..end)
                .filter(|_| raw.len() >= 2)
                .map(|text| (body, String::from_utf8_lossy(text).into_owned()));
        }
        body.extend_from_slice(raw.get(..size)?);
        raw = raw.get(size + 2..)?;
    }
}
