//! What inputs are made of.

use std::path::Path;

use super::mutate::{BYTES_MAX, Stock, dictionary};
use super::{compose, early, requests, responses_seeds};

const LENGTHS: &[&str] =
    &["0", "1", "5", "05", "38", "5 ", "+5", "5, 5", "5,6", "0x5", "5;", "", "99999999999999999999", "-1", "4"];
const CODINGS: &[&str] = &[
    "chunked",
    "CHUNKED",
    " chunked",
    "chunked ",
    "\tchunked",
    "chunked, identity",
    "identity",
    "identity, chunked",
    "gzip, chunked",
    "chunked, chunked",
    "xchunked",
    "chunked;q=1",
    "\"chunked\"",
    "\x0bchunked",
    ",chunked",
    "chunked,",
    "chunked\0",
    "chunk\u{212a}ed",
    "",
];
const OTHERS: &[&str] = &[
    "Connection: close",
    "Connection: keep-alive",
    "Connection: content-length",
    "Connection: transfer-encoding",
    "Connection: host",
    "Connection: close, x-a",
    "Expect: 100-continue",
    "Expect: x",
    "Host: h",
    "Host: a",
    "Host : h",
    "Host: a, b",
    "TE: chunked",
    "TE: trailers",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Upgrade: h2c",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Trailer: content-length",
    "Content-Encoding: gzip",
    "Content-Type: application/json",
    "Content-Type: text/plain",
    "X-A: b",
    "X-A: b\r\n c",
    "Accept-Encoding: gzip",
    "Range: bytes=0-1",
    "X-HTTP-Method-Override: DELETE",
    "Keep-Alive: timeout=1",
    " ",
    "X",
    ":",
    "GET /v1/x HTTP/1.1",
    "HTTP/1.1 200 OK",
    "0",
    "5",
    "0\r\n",
    "5\r\nhello",
    "x-request-id: a",
    "Max-Forwards: 0",
];

fn framings() -> Vec<Vec<u8>> {
    let mut lines: Vec<String> = Vec::new();
    for name in
        ["Content-Length", "content-length", "Content-Length ", "Content_Length", "Content-Length\t", " Content-Length"]
    {
        lines.extend(LENGTHS.iter().map(|value| format!("{name}: {value}")));
    }
    for name in
        ["Transfer-Encoding", "transfer-encoding", "Transfer-Encoding ", "Transfer_Encoding", "\tTransfer-Encoding"]
    {
        lines.extend(CODINGS.iter().map(|value| format!("{name}: {value}")));
        lines.push(format!("{name}:\r\n chunked"));
        lines.push(format!("{name}:chunked"));
    }
    // As often as all the others together.
    for at in 0..lines.len() {
        lines.push(OTHERS[at % OTHERS.len()].to_owned());
    }
    lines.into_iter().map(|line| (line + "\r\n").into_bytes()).collect()
}

/// Files below `tests/fuzz`.
fn fuzz(path: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(path);
    let read = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if folder.is_file() {
        return vec![read(&folder)];
    }
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn tokens() -> Vec<Vec<u8>> {
    let mut tokens = Vec::new();
    for name in ["http", "chunks"] {
        let text = fuzz(&format!("dict/{name}.dict")).remove(0);
        tokens.extend(dictionary(&String::from_utf8(text).expect("text")));
    }
    tokens.extend(framings().into_iter().step_by(7));
    tokens
}

/// What requests are made of.
pub fn requests() -> Stock {
    let mut seeds: Vec<Vec<u8>> = requests::all().into_iter().map(|case| case.bytes).collect();
    for early in early::ALL {
        for (_, framing, with, later) in early::bodies() {
            let head = format!("{}\r\nHost: h\r\n{}{framing}\r\n", early.line, early.fields);
            seeds.push((head + &with + &later).into_bytes());
        }
    }
    seeds.extend(fuzz("corpus/request_head"));
    let chunked = b"POST /v1/files HTTP/1.1\r\nHost: h\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n";
    seeds.extend(fuzz("corpus/chunked_body").into_iter().map(|body| [&chunked[..], &body].concat()));
    seeds.retain(|seed| seed.len() <= BYTES_MAX / 2);
    // What is sound is mutated more often, for it can be sent on.
    let sound: Vec<_> = seeds.iter().filter(|seed| is_whole(seed)).cloned().collect();
    for _ in 0..5 {
        seeds.extend(sound.iter().cloned());
    }
    Stock { seeds, tokens: tokens(), framings: framings(), compose: compose::request }
}

fn is_whole(bytes: &[u8]) -> bool {
    matches!(super::reader::request(bytes), super::reader::Read::Whole(_, len) if len == bytes.len())
}

/// What answers are made of.
pub fn responses() -> Stock {
    let mut seeds: Vec<Vec<u8>> = responses_seeds::all().into_iter().map(|case| case.bytes).collect();
    seeds.extend(fuzz("corpus/response_head"));
    let chunked = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n";
    seeds.extend(fuzz("corpus/chunked_body").into_iter().map(|body| [&chunked[..], &body].concat()));
    seeds.retain(|seed| seed.len() <= BYTES_MAX / 2);
    Stock { seeds, tokens: tokens(), framings: framings(), compose: compose::response }
}

/// Odd texts for fields of HTTP/2.
pub fn texts() -> Vec<Vec<u8>> {
    let mut texts = tokens();
    texts.extend(framings().into_iter().step_by(5));
    let text = fuzz("dict/http2.dict").remove(0);
    texts.extend(dictionary(&String::from_utf8(text).expect("text")));
    texts
}
