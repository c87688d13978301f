//! Answers that Ringway gives before it has all of a request: what is still to come of it must never be taken for the
//! next one.

use super::requests::SMUGGLED;

/// A request that is answered early, without framing and body.
pub struct Early {
    pub name: &'static str,
    pub status: u16,
    pub line: &'static str,
    pub fields: &'static str,
    /// True if the answer needs the body, so that it is early only before what follows.
    pub reads_body: bool,
}

const KEY: &str = "Authorization: Bearer sk-test-client\r\n";
const JSON: &str = "Authorization: Bearer sk-test-client\r\nContent-Type: application/json\r\n";
const OPAQUE: &str = "Authorization: Bearer sk-test-client\r\nContent-Type: application/octet-stream\r\n";

const fn early(name: &'static str, status: u16, line: &'static str, fields: &'static str) -> Early {
    Early { name, status, line, fields, reads_body: false }
}

const fn read(name: &'static str, status: u16, line: &'static str, fields: &'static str) -> Early {
    Early { name, status, line, fields, reads_body: true }
}

/// Every early answer, to be tried with each of [`BODIES`].
pub const ALL: &[Early] = &[
    early("no key", 401, "POST /v1/chat/completions HTTP/1.1", ""),
    early("a wrong key", 401, "POST /v1/files HTTP/1.1", "X-Api-Key: nope\r\n"),
    early("a wrong key, HEAD", 401, "HEAD /v1/files HTTP/1.1", "X-Api-Key: nope\r\n"),
    early("two keys", 400, "POST /v1/files HTTP/1.1", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
    early("two types", 400, "POST /v1/files HTTP/1.1", "Content-Type: a/b\r\nContent-Type: a/b\r\n"),
    early("a model of another's, in the query", 403, "POST /v1/files?model=other HTTP/1.1", OPAQUE),
    early("an unknown model, in the query", 404, "POST /v1/files?model=nope HTTP/1.1", OPAQUE),
    early("no model", 400, "POST /v1/files HTTP/1.1", OPAQUE),
    early("two models, in the query", 400, "POST /v1/files?model=m&model=m HTTP/1.1", OPAQUE),
    early("a path that is not served", 404, "POST /other HTTP/1.1", KEY),
    early("a path that is not served, GET", 404, "GET /other HTTP/1.1", KEY),
    early("asterisk", 405, "OPTIONS * HTTP/1.1", KEY),
    early("CONNECT", 405, "CONNECT h:1 HTTP/1.1", KEY),
    early("an encoded body", 415, "POST /v1/chat/completions HTTP/1.1", CODED),
    early("an expectation", 417, "POST /v1/files HTTP/1.1", "Expect: x\r\n"),
    early("a version", 505, "POST /v1/files HTTP/1.2", OPAQUE),
    early("no host twice", 400, "POST /v1/files HTTP/1.1", "Host: x\r\n"),
    early("models", 200, "GET /v1/models HTTP/1.1", KEY),
    early("models, HEAD", 200, "HEAD /v1/models HTTP/1.1", KEY),
    early("one model", 200, "GET /v1/models/m HTTP/1.1", KEY),
    early("no such model", 404, "GET /v1/models/nope HTTP/1.1", KEY),
    early("a preflight", 204, "OPTIONS /v1/files HTTP/1.1", PREFLIGHT),
    early("a preflight of a page that is not listed", 204, "OPTIONS /v1/files HTTP/1.1", STRANGE),
    early("nobody listens", 502, "POST /v1/files?model=down HTTP/1.1", OPAQUE),
    read("nobody listens, JSON's clothes", 400, "POST /v1/chat/completions?model=down HTTP/1.1", JSON),
    read("nobody answers", 504, "POST /v1/files?model=silent HTTP/1.1", OPAQUE),
    read("no JSON", 400, "POST /v1/chat/completions HTTP/1.1", JSON),
    read("no form", 400, "POST /v1/audio/transcriptions HTTP/1.1", FORM),
];

const PREFLIGHT: &str = "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n";
const STRANGE: &str = "Origin: https://evil.test\r\nAccess-Control-Request-Method: POST\r\n";
const CODED: &str = "Authorization: Bearer sk-test-client\r\nContent-Encoding: x-unknown\r\n";
const FORM: &str = "Authorization: Bearer sk-test-client\r\nContent-Type: multipart/form-data; boundary=b\r\n";

/// How the body of an early-answered request comes: name, framing, what comes with the head, what comes later.
pub fn bodies() -> Vec<(&'static str, String, String, String)> {
    let length = SMUGGLED.len();
    let chunk = format!("{length:x}\r\n{SMUGGLED}\r\n");
    let (first, rest) = SMUGGLED.split_at(10);
    vec![
        ("no body", String::new(), String::new(), String::new()),
        ("a body", format!("Content-Length: {length}\r\n"), SMUGGLED.into(), String::new()),
        ("a body to come", format!("Content-Length: {length}\r\n"), String::new(), SMUGGLED.into()),
        ("half a body", format!("Content-Length: {length}\r\n"), first.into(), rest.into()),
        ("the second half of a body", format!("Content-Length: {}\r\n", 2 * length), SMUGGLED.into(), SMUGGLED.into()),
        ("chunks", "Transfer-Encoding: chunked\r\n".into(), format!("{chunk}0\r\n\r\n"), String::new()),
        ("chunks to come", "Transfer-Encoding: chunked\r\n".into(), String::new(), format!("{chunk}0\r\n\r\n")),
        ("the last chunk to come", "Transfer-Encoding: chunked\r\n".into(), chunk.clone(), "0\r\n\r\n".into()),
        ("trailers to come", "Transfer-Encoding: chunked\r\n".into(), format!("{chunk}0\r\n"), "X: y\r\n\r\n".into()),
        (
            "a body that is announced by Expect",
            format!("Content-Length: {length}\r\nExpect: 100-continue\r\n"),
            String::new(),
            SMUGGLED.into(),
        ),
    ]
}
