//! Messages that are sound but odd: most of what chance makes of a message is refused, and what passes matters more.

use super::dice::Dice;
use super::mutate::Stock;

const METHODS: &[&str] = &[
    "GET", "GET", "GET", "POST", "POST", "POST", "POST", "POST", "PUT", "PUT", "HEAD", "HEAD", "DELETE", "PATCH",
    "OPTIONS",
];
const ODD_METHODS: &[&str] =
    &["get", "X", "M-SEARCH", "TRACE", "QUERY", "PRI", "A|B~C", "PROPFIND", "PATH", "CONNECTS"];
const PATHS: &[&str] = &[
    "/v1/files",
    "/v1/files",
    "/v1/files?",
    "/v1/files?a=b&c",
    "/v1//files//",
    "/v1/files;a=b",
    "/v1/%66iles",
    "/v1/a%2fb",
    "/v1/...",
    "/v1/@h:80",
    "/v1/files%20HTTP/1.1%0d%0aHost:%20x",
    "/v1/files?x=/../..",
    "/v1/*",
    "/v1/http://h/",
    "/v1/files?http://h/ ",
    "/v1/'(x)!$&+,=",
    "/v1/:80",
    "/v1/~",
    "/v1/files?a?b/c",
    "/v1/%C3%A4",
    "/v1/x/%2E%2E.",
    "/v1/a[b]|c",
    "/v1/files?model=m",
    "/v1/embeddings",
    "/v1/chat/completions",
    "/v1/files?\\^`{}",
];
const AUTHORITIES: &[&str] = &["", "", "", "", "", "http://h", "http://other:81", "https://h", "HTTP://[::1]:80"];
const HOSTS: &[&str] = &["h", "h:80", "[::1]:80", "127.0.0.1", "h:", "H-1.example"];
const NAMES: &[&str] = &[
    "X-A",
    "x",
    "X-Content-Length",
    "Content-Lengths",
    "Content_Length",
    "Transfer_Encoding",
    "Transfer-Encodings",
    "TE",
    "Trailer",
    "Content-Encoding",
    "Content-Language",
    "Content-Range",
    "X-Transfer-Encoding",
    "Accept",
    "Accept-Encoding",
    "Range",
    "If-Match",
    "If-None-Match",
    "User-Agent",
    "Cookie",
    "Via",
    "Forwarded",
    "X-Forwarded-For",
    "X-Host",
    "X-Original-URL",
    "X-HTTP-Method-Override",
    "Cache-Control",
    "Pragma",
    "Max-Forwards",
    "Keep-Alive",
    "Proxy-Connection",
    "Upgrade",
    "HTTP2-Settings",
    "Content-MD5",
    "Digest",
    "X-Request-Id",
    "Traceparent",
    "Date",
    "Server",
    "Location",
    "ETag",
    "Set-Cookie",
    "Content-Disposition",
    "!#$%&'*+-.^_`|~",
    "0",
    "Content-length2",
    "Transfer-Encoding-",
    "Connection2",
    "Host2",
    "Hos",
    "Length",
];
const VALUES: &[&str] = &[
    "",
    "a",
    "0",
    "5",
    "38",
    "chunked",
    "identity",
    "gzip",
    "trailers",
    "content-length",
    "close",
    "keep-alive",
    "\"",
    "\"a",
    "a, b,, c",
    "a: b",
    "Content-Length: 5",
    "a;b=c",
    "%0d%0aContent-Length: 5",
    "bytes=0-1",
    "\t a \t",
    "\u{e4}",
    "*",
    "HTTP/1.1",
    "a\tb",
    "GET /v1/smuggled HTTP/1.1",
    "websocket",
    "h2c",
    "\\",
    "\\r\\n",
    "W/\"a\"",
    "=?utf-8?q?=0d=0a?=",
    "99999999999999999999",
    "-1",
];
const EXTENSIONS: &[&str] = &["", "", "", "", ";a", ";a=b", " ; a = b", ";a=\"b;\\\"c\"", ";0=0;1", ";a=5"];
const BODIES: &[&str] = &[
    "",
    "hello",
    "{}",
    "{\"a\":1}",
    "0\r\n\r\n",
    "\r\n",
    "\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "GET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
    "{\"model\":\"m\",\"stream\":true}",
    "\n",
    "\0",
    "0",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];
const STATUSES: &[&str] = &[
    "200 OK",
    "200 OK",
    "200 OK",
    "201",
    "202 ",
    "203 x",
    "206 Partial",
    "205 Reset",
    "204 No Content",
    "304 Not Modified",
    "299 \u{e4}",
    "301 Moved",
    "400 Bad",
    "404 Not Found",
    "429 Slow",
    "500 Oh",
    "503 No",
    "599 x",
];
const INTERIMS: &[&str] = &["", "", "", "", "", "100 Continue", "103 Early Hints", "102 Processing", "199 x"];

/// A request, sometimes several.
pub fn request(stock: &Stock, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..*dice.pick(&[1, 1, 1, 2, 3]) {
        let version = if dice.one_in(12) { "HTTP/1.0" } else { "HTTP/1.1" };
        let methods = if dice.one_in(16) { ODD_METHODS } else { METHODS };
        let head =
            format!("{} {}{} {version}\r\n", dice.pick(methods), dice.pick(AUTHORITIES), dice.pick(PATHS).trim_end());
        bytes.extend(head.into_bytes());
        let mut lines = vec![format!("Host: {}", dice.pick(HOSTS))];
        if !dice.one_in(3) {
            lines.push("Content-Type: application/octet-stream".to_owned());
        }
        if dice.one_in(10) {
            lines.push("Expect: 100-continue".to_owned());
        }
        if dice.one_in(10) {
            lines.push(format!(
                "Connection: {}",
                dice.pick(&["close", "keep-alive", "x", "content-length", "upgrade", "te, close"])
            ));
        }
        finish(&mut bytes, lines, version == "HTTP/1.1", !dice.one_in(4), stock, dice);
    }
    bytes
}

/// An answer, sometimes with interim ones before it.
pub fn response(stock: &Stock, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    let interim = *dice.pick(INTERIMS);
    if !interim.is_empty() {
        bytes.extend(format!("HTTP/1.1 {interim}\r\nX-A: b\r\n\r\n").into_bytes());
    }
    let version = if dice.one_in(12) { "HTTP/1.0" } else { "HTTP/1.1" };
    let status = *dice.pick(STATUSES);
    bytes.extend(format!("{version} {status}\r\n").into_bytes());
    let mut lines = Vec::new();
    if !dice.one_in(3) {
        lines.push(format!("Content-Type: {}", dice.pick(&["text/plain", "application/json", "a/b", "text/html"])));
    }
    if dice.one_in(10) {
        lines.push(format!(
            "Connection: {}",
            dice.pick(&["close", "keep-alive", "x", "content-length", "transfer-encoding"])
        ));
    }
    let has_body = !status.starts_with("204") && !status.starts_with("304") && !dice.one_in(8);
    finish(&mut bytes, lines, version == "HTTP/1.1", has_body, stock, dice);
    bytes
}

/// Other lines, framing and body.
fn finish(bytes: &mut Vec<u8>, mut lines: Vec<String>, chunks: bool, has_body: bool, stock: &Stock, dice: &mut Dice) {
    for _ in 0..dice.roll(5) {
        let blank = *dice.pick(&["", " ", " ", "\t", " \t "]);
        lines.insert(dice.roll(lines.len() + 1), format!("{}:{blank}{}", dice.pick(NAMES), dice.pick(VALUES)));
    }
    let mut body = Vec::new();
    for _ in 0..dice.roll(4) {
        if dice.one_in(3) {
            let token: &Vec<u8> = dice.pick(&stock.tokens);
            body.extend_from_slice(token);
        } else {
            body.extend_from_slice(dice.pick(BODIES).as_bytes());
        }
    }
    let framed = if !has_body {
        Vec::new()
    } else if chunks && dice.one_in(2) {
        let name =
            *dice.pick(&["Transfer-Encoding:chunked", "transfer-encoding: CHUNKED", "Transfer-Encoding:\t chunked \t"]);
        lines.insert(dice.roll(lines.len() + 1), name.to_owned());
        chunked(&body, dice)
    } else {
        let zeros = "0".repeat(*dice.pick(&[0, 0, 0, 1, 8]));
        let line =
            format!("{}: {zeros}{}", dice.pick(&["Content-Length", "content-length", "CONTENT-LENGTH"]), body.len());
        lines.insert(dice.roll(lines.len() + 1), line);
        body
    };
    for line in lines {
        bytes.extend(line.into_bytes());
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"\r\n");
    bytes.extend(framed);
}

fn chunked(mut body: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !body.is_empty() {
        let (piece, rest) = body.split_at(1 + dice.roll(body.len()));
        let zeros = "0".repeat(*dice.pick(&[0, 0, 0, 1, 9]));
        let size = if dice.one_in(2) { format!("{:x}", piece.len()) } else { format!("{:X}", piece.len()) };
        bytes.extend(format!("{zeros}{size}{}\r\n", dice.pick(EXTENSIONS)).into_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
        body = rest;
    }
    bytes.extend(format!("{}{}\r\n", "0".repeat(1 + dice.roll(3)), dice.pick(EXTENSIONS)).into_bytes());
    for _ in 0..dice.roll(8).saturating_sub(5) {
        bytes.extend(format!("{}: {}\r\n", dice.pick(NAMES), dice.pick(VALUES)).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}
