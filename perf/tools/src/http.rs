//! Just enough HTTP/1.1 to be a client: build one request (in the terms of HTTP/2 as well), decode answers byte by byte.
//!
//! Written apart from the gateway's codec so that the two don't share a mistake.

use std::net::{SocketAddr, ToSocketAddrs};

/// Where requests go: `http://host:port/path`, or https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Address to connect to.
    pub address: SocketAddr,
    /// What the Host header says.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// True for https.
    pub tls: bool,
}

/// Parses an `http` or `https` URL; for clap.
///
/// # Errors
/// A sentence for the command line.
pub fn parse_target(url: &str) -> Result<Target, String> {
    let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("only http:// and https:// URLs".into()),
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let address = authority
        .to_socket_addrs()
        .map_err(|error| format!("{authority}: {error}"))?
        .next()
        .ok_or_else(|| format!("{authority}: no address"))?;
    Ok(Target { address, authority: authority.to_owned(), path: path.to_owned(), tls })
}

/// One request, ready to be sent.
#[derive(Debug)]
pub struct ChatRequest {
    /// Head and body as HTTP/1.1 has them.
    pub http1: Vec<u8>,
    /// The head as HTTP/2 has it.
    pub fields: Vec<(String, String)>,
    /// The body alone.
    pub body: Vec<u8>,
}

/// A POST with a chat completion body of exactly `body_bytes`, or the shortest possible if that is less.
pub fn chat_request(target: &Target, headers: &[String], model: &str, body_bytes: usize, stream: bool) -> ChatRequest {
    let before = format!(r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":""#);
    let after = r#""}]}"#;
    let filling = body_bytes.saturating_sub(before.len() + after.len());
    let body = format!("{before}{}{after}", "lorem ipsum ".chars().cycle().take(filling).collect::<String>());
    let length = body.len().to_string();
    let lines = [("Content-Type", "application/json"), ("Content-Length", &length)];
    request(target, headers, "POST", &lines, body.as_bytes(), body.clone().into_bytes())
}

/// A POST of `bytes` octets, in chunks of `chunk_bytes` unless that is 0. Over HTTP/2 there are no chunks.
pub fn file_request(target: &Target, headers: &[String], bytes: usize, chunk_bytes: usize) -> ChatRequest {
    let body = vec![b'x'; bytes];
    let kind = ("Content-Type", "application/octet-stream");
    if chunk_bytes == 0 {
        let length = bytes.to_string();
        return request(target, headers, "POST", &[kind, ("Content-Length", &length)], &body, body.clone());
    }
    let mut framed = Vec::with_capacity(bytes + bytes / chunk_bytes * 16 + 16);
    for chunk in body.chunks(chunk_bytes) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    request(target, headers, "POST", &[kind, ("Transfer-Encoding", "chunked")], &framed, body)
}

/// A GET.
pub fn get_request(target: &Target, headers: &[String]) -> ChatRequest {
    request(target, headers, "GET", &[], &[], Vec::new())
}

/// A request with `own` fields besides those that all have; `framed` is its body as HTTP/1.1 has it.
fn request(
    target: &Target,
    headers: &[String],
    method: &str,
    own: &[(&str, &str)],
    framed: &[u8],
    body: Vec<u8>,
) -> ChatRequest {
    let mut lines: Vec<(&str, &str)> = vec![("User-Agent", "ringway-perf"), ("Accept", "*/*")];
    lines.extend(headers.iter().filter_map(|header| header.split_once(':')).map(|(name, value)| (name, value.trim())));
    lines.extend_from_slice(own);

    let mut http1 = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", target.path, target.authority);
    let mut fields = vec![
        (":method".to_owned(), method.to_owned()),
        (":scheme".to_owned(), if target.tls { "https" } else { "http" }.to_owned()),
        (":authority".to_owned(), target.authority.clone()),
        (":path".to_owned(), target.path.clone()),
    ];
    for (name, value) in lines {
        http1.push_str(&format!("{name}: {value}\r\n"));
        // What belongs to one hop is no field of HTTP/2.
        if name != "Transfer-Encoding" {
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    http1.push_str("\r\n");
    let mut http1 = http1.into_bytes();
    http1.extend_from_slice(framed);
    ChatRequest { http1, fields, body }
}

/// Why an answer can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    UntilClose,
    ChunkSize {
        size: u64,
        digits: u8,
        extension: bool,
    },
    ChunkData(u64),
    ChunkEnd,
    /// True while the trailer line is still empty.
    Trailer(bool),
    Done,
}

/// Decodes the answers of one connection, one after the other.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    head: Vec<u8>,
    /// Status of the current answer; 0 before its head is whole.
    pub status: u16,
    /// Body bytes of the current answer so far, without chunk framing.
    pub body_bytes: u64,
    /// The server will close after this answer.
    pub close: bool,
}

const HEAD_BYTES_MAX: usize = 16 * 1024;

impl Decoder {
    /// Ready for the head of an answer.
    pub fn new() -> Self {
        Decoder { state: State::Head, head: Vec::new(), status: 0, body_bytes: 0, close: false }
    }

    /// Ready for the next answer.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.status = 0;
        self.body_bytes = 0;
        self.close = false;
    }

    /// True when the answer is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The server closed: true if that was the proper end of the answer.
    pub fn finish(&mut self) -> bool {
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.is_done()
    }

    /// Takes bytes as they came; gives body bytes to `body`. Returns how many were used: fewer than given only
    /// when the answer became whole.
    pub fn feed(&mut self, input: &[u8], mut body: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match self.state {
                State::Done => break,
                State::Head => at += self.feed_head(rest)?,
                State::UntilClose => {
                    self.body_bytes += rest.len() as u64;
                    body(rest);
                    at = input.len();
                }
                State::Length(left) | State::ChunkData(left) => {
                    let take = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.body_bytes += take as u64;
                    body(&rest[..take]);
                    at += take;
                    let left = left - take as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::ChunkData(left),
                    };
                }
                State::ChunkSize { size, digits, extension } => {
                    at += 1;
                    self.state = chunk_size(rest[0], size, digits, extension)?;
                }
                State::ChunkEnd => {
                    at += 1;
                    match rest[0] {
                        b'\r' => {}
                        b'\n' => self.state = State::ChunkSize { size: 0, digits: 0, extension: false },
                        _ => return Err(Malformed("a chunk is longer than it said")),
                    }
                }
                State::Trailer(empty) => {
                    at += 1;
                    self.state = match rest[0] {
                        b'\r' => State::Trailer(empty),
                        b'\n' if empty => State::Done,
                        byte => State::Trailer(byte == b'\n'),
                    };
                }
            }
        }
        Ok(at)
    }

    /// Takes bytes up to the end of the head, or all.
    fn feed_head(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        // Usually the head comes whole; copy it only if it does not.
        let held = self.head.len();
        if held == 0 {
            if let Some(used) = self.parse_head(input)? {
                return Ok(used);
            }
            self.head.extend_from_slice(input);
        } else {
            self.head.extend_from_slice(input);
            let head = std::mem::take(&mut self.head);
            let parsed = self.parse_head(&head)?;
            self.head = head;
            if let Some(used) = parsed {
                self.head.clear();
                return Ok(used - held);
            }
        }
        if self.head.len() > HEAD_BYTES_MAX {
            return Err(Malformed("head too long"));
        }
        Ok(input.len())
    }

    fn parse_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let used = match response.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed("not an HTTP head")),
        };
        let status = response.code.unwrap_or(0);
        if (100..200).contains(&status) {
            return Ok(Some(used));
        }
        self.status = status;
        self.close = response.version == Some(0);
        let mut framing = if matches!(status, 204 | 304) { State::Done } else { State::UntilClose };
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).unwrap_or("");
                let length = text.trim().parse().map_err(|_| Malformed("bad content-length"))?;
                framing = if length == 0 { State::Done } else { State::Length(length) };
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = State::ChunkSize { size: 0, digits: 0, extension: false };
            } else if header.name.eq_ignore_ascii_case("connection") {
                self.close |= header.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.close |= framing == State::UntilClose;
        self.state = framing;
        Ok(Some(used))
    }
}

fn chunk_size(byte: u8, size: u64, digits: u8, extension: bool) -> Result<State, Malformed> {
    match (byte, extension) {
        (b'\n', _) if digits == 0 => Err(Malformed("empty chunk size")),
        (b'\n', _) if size == 0 => Ok(State::Trailer(true)),
        (b'\n', _) => Ok(State::ChunkData(size)),
        (_, true) | (b';' | b'\r' | b' ' | b'\t', false) => Ok(State::ChunkSize { size, digits, extension: true }),
        (byte, false) => {
            let digit = (byte as char).to_digit(16).ok_or(Malformed("bad chunk size"))?;
            if digits >= 15 {
                return Err(Malformed("chunk size too long"));
            }
            Ok(State::ChunkSize { size: size * 16 + u64::from(digit), digits: digits + 1, extension: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]], closed: bool) -> Result<(bool, u16, Vec<u8>, bool), Malformed> {
        let mut decoder = Decoder::new();
        let mut body = Vec::new();
        for piece in pieces {
            assert_eq!(decoder.feed(piece, |bytes| body.extend_from_slice(bytes))?, piece.len());
        }
        let done = if closed { decoder.finish() } else { decoder.is_done() };
        Ok((done, decoder.status, body, decoder.close))
    }

    #[test]
    fn answers_decode_the_same_wherever_they_are_split() {
        for (name, answer, closed, expected) in [
            ("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, (true, 200, "hello", false)),
            ("empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, (true, 200, "", false)),
            ("no content", "HTTP/1.1 204 No Content\r\n\r\n", false, (true, 204, "", false)),
            (
                "asks to close",
                "HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
                false,
                (true, 503, "no", true),
            ),
            (
                "chunked",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nb;x=y\r\n world,\r\nhi\r\n0\r\n\r\n",
                false,
                (true, 200, "hello world,\r\nhi", false),
            ),
            (
                "trailers",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\nz: w\r\n\r\n",
                false,
                (true, 200, "a", false),
            ),
            ("until close", "HTTP/1.1 200 OK\r\n\r\nabc", true, (true, 200, "abc", true)),
            ("cut short", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", true, (false, 200, "hel", false)),
            (
                "last chunk missing",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
                true,
                (false, 200, "a", false),
            ),
            (
                "interim answer",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                false,
                (true, 200, "x", false),
            ),
        ] {
            let expected = (expected.0, expected.1, expected.2.as_bytes().to_vec(), expected.3);
            let bytes = answer.as_bytes();
            for cut in 0..=bytes.len() {
                let got = decode(&[&bytes[..cut], &bytes[cut..]], closed);
                assert_eq!(got.as_ref(), Ok(&expected), "{name}, cut at {cut}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(&single, closed).as_ref(), Ok(&expected), "{name}, byte by byte");
        }
    }

    #[test]
    fn nonsense_is_an_error_and_not_an_answer() {
        for (name, answer) in [
            ("not HTTP", "SSH-2.0-x\r\n\r\n"),
            ("bad length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
            ("bad chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            ("empty chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n"),
            ("endless chunk size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1111111111111111111\r\n"),
            ("chunk too long", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"),
        ] {
            assert!(decode(&[answer.as_bytes()], false).is_err(), "{name}");
        }
    }

    #[test]
    fn bytes_after_the_answer_are_left_alone() {
        let mut decoder = Decoder::new();
        let two = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 ";
        assert_eq!(decoder.feed(two, |_| {}), Ok(two.len() - 9));
        assert!(decoder.is_done());
    }

    #[test]
    fn files_go_out_as_asked_for() {
        let target = parse_target("http://127.0.0.1:8080/v1/files").unwrap();
        for (bytes, chunk_bytes, head, body) in [
            (5, 0, "Content-Length: 5", "xxxxx"),
            (5, 2, "Transfer-Encoding: chunked", "2\r\nxx\r\n2\r\nxx\r\n1\r\nx\r\n0\r\n\r\n"),
            (0, 2, "Transfer-Encoding: chunked", "0\r\n\r\n"),
        ] {
            let request = file_request(&target, &[], bytes, chunk_bytes);
            let text = String::from_utf8(request.http1).unwrap();
            assert!(text.starts_with("POST /v1/files HTTP/1.1\r\n") && text.contains(head), "{text}");
            assert_eq!(text.split_once("\r\n\r\n").unwrap().1, body);
            assert_eq!(request.body.len(), bytes);
            assert!(request.fields.iter().all(|(name, _)| name != "transfer-encoding"));
        }
        let get = String::from_utf8(get_request(&target, &["X-A: b".into()]).http1).unwrap();
        assert!(get.starts_with("GET /v1/files ") && get.ends_with("X-A: b\r\n\r\n"), "{get}");
    }

    #[test]
    fn request_bodies_have_the_length_asked_for() {
        let target = parse_target("http://127.0.0.1:8080/v1/chat/completions").unwrap();
        assert_eq!(target.path, "/v1/chat/completions");
        for bytes in [200, 1024, 65_536] {
            let request = chat_request(&target, &["Authorization: Bearer x".into()], "mock", bytes, true);
            let text = String::from_utf8(request.http1).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!((body.len(), body.as_bytes()), (bytes, &request.body[..]));
            assert!(request.fields.contains(&("authorization".into(), "Bearer x".into())));
            assert!(request.fields.contains(&("content-length".into(), bytes.to_string())));
            assert!(head.contains(&format!("\r\nContent-Length: {bytes}")));
            assert!(head.contains("\r\nAuthorization: Bearer x\r\n"));
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&body["model"], &body["stream"]), (&"mock".into(), &true.into()));
        }
        assert!(
            parse_target("https://127.0.0.1:1/")
                .is_ok_and(|target| target.tls && !parse_target("http://127.0.0.1:1/").unwrap().tls)
        );
        assert!(parse_target("ftp://127.0.0.1:1/").is_err());
    }
}
