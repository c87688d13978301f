//! Answers of an origin that could be taken in two ways, and what must become of them.

/// What the client sees of the first answer, and whether its connection to the origin may carry another exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The client has it as it was meant: status, body.
    Passed(u16, &'static str),
    /// The same, but the origin's connection is not used again.
    PassedOnce(u16, &'static str),
    /// The client is told that the origin failed.
    Failed,
    /// It was begun; the client sees that it was cut.
    Cut,
}

use Fate::{Cut, Failed, Passed, PassedOnce};

pub struct Case {
    pub name: String,
    pub method: &'static str,
    pub bytes: Vec<u8>,
    /// What the origin sends on the same connection once the client has had its answer.
    pub late: &'static str,
    /// True if the origin ends the connection behind its answer.
    pub ends: bool,
    pub fate: Fate,
}

/// An answer that must never reach anybody.
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

/// Every row.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, method, bytes: Vec<u8>, late, ends, fate| {
        assert!(cases.iter().all(|case: &Case| case.name != name), "two rows named {name}");
        cases.push(Case { name: name.to_owned(), method, bytes, late, ends, fate });
    };
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    const HELLO: &str = "5\r\nhello\r\n0\r\n\r\n";
    let json = |fields: &str, rest: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}\r\n{rest}").into_bytes()
    };
    let text = |fields: &str, rest: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{fields}\r\n{rest}").into_bytes()
    };
    let hello = Passed(200, "hello");

    // Heads that are sound or are not, whatever follows.
    for (name, fields, rest, ends, fate) in [
        ("length", "Content-Length: 5\r\n", "hello", false, hello),
        ("length with zeros", "Content-Length: 0005\r\n", "hello", false, hello),
        ("length 0", "Content-Length: 0\r\n", "", false, Passed(200, "")),
        ("length twice, equal", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("length twice, shorter first", "Content-Length: 0\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("length twice, longer first", "Content-Length: 5\r\nContent-Length: 0\r\n", "hello", false, Failed),
        ("length as a list", "Content-Length: 5, 5\r\n", "hello", false, Failed),
        ("length with a sign", "Content-Length: +5\r\n", "hello", false, Failed),
        ("length below zero", "Content-Length: -5\r\n", "hello", false, Failed),
        ("length in hexadecimal", "Content-Length: 0x5\r\n", "hello", false, Failed),
        ("length beyond 64 bits", "Content-Length: 18446744073709551621\r\n", "hello", false, Failed),
        ("length empty", "Content-Length:\r\n", "hello", false, Failed),
        ("length with a point", "Content-Length: 5.0\r\n", "hello", false, Failed),
        ("length with a letter", "Content-Length: 5b\r\n", "hello", false, Failed),
        ("length, space before the colon", "Content-Length : 5\r\n", "hello", false, Failed),
        ("length folded", "Content-Length:\r\n 5\r\n", "hello", false, Failed),
        ("length in a fold", "X: y\r\n Content-Length: 5\r\n", "hello", false, Failed),
        ("length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", HELLO, false, Failed),
        ("chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", HELLO, false, Failed),
        ("chunks and length 0", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", HELLO, false, Failed),
        ("chunks", CHUNKED, HELLO, false, hello),
        ("chunks in upper case", "transfer-encoding: CHUNKED\r\n", HELLO, false, hello),
        ("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HELLO, false, Failed),
        ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n", HELLO, false, Failed),
        ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", HELLO, false, Failed),
        ("chunked, gzip", "Transfer-Encoding: chunked, gzip\r\n", HELLO, false, Failed),
        ("identity", "Transfer-Encoding: identity\r\n", "hello", true, Failed),
        ("identity with a length", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("xchunked", "Transfer-Encoding: xchunked\r\n", HELLO, false, Failed),
        ("coding empty", "Transfer-Encoding:\r\n", "hello", true, Failed),
        ("coding with a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", HELLO, false, Failed),
        ("coding with NUL", "Transfer-Encoding: chunked\0\r\n", HELLO, false, Failed),
        ("coding, space before the colon", "Transfer-Encoding : chunked\r\n", HELLO, false, Failed),
        ("coding folded", "Transfer-Encoding:\r\n chunked\r\n", HELLO, false, Failed),
        ("coding behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\n", HELLO, false, Failed),
        ("a bare LF in the head", "X: y\nContent-Length: 5\r\n", "hello", false, Failed),
        ("a bare CR in the head", "X: y\rContent-Length: 5\r\n", "hello", false, Failed),
        ("CR CR LF in the head", "Content-Length: 5\r\r\n", "hello", false, Failed),
        ("NUL in a value", "X: a\0b\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("a control byte in a value", "X: a\x01b\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("NUL in a name", "X\0: a\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("a space in a name", "X Y: a\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("a line without a colon", "X\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("a fold", "X: y\r\n z\r\nContent-Length: 5\r\n", "hello", false, Failed),
        ("close", "Content-Length: 5\r\nConnection: close\r\n", "hello", false, PassedOnce(200, "hello")),
        ("close in a list", "Content-Length: 5\r\nConnection: x, CLOSE\r\n", "hello", false, PassedOnce(200, "hello")),
        (
            "close, though it stays",
            "Content-Length: 5\r\nConnection: keep-alive, close\r\n",
            "hello",
            false,
            PassedOnce(200, "hello"),
        ),
        ("until the end", "", "hello", true, PassedOnce(200, "hello")),
        ("until the end, kept alive", "Connection: keep-alive\r\n", "hello", true, PassedOnce(200, "hello")),
        ("nominated length", "Content-Length: 5\r\nConnection: content-length\r\n", "hello", false, hello),
        ("nominated coding", "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", HELLO, false, hello),
        ("one byte behind", "Content-Length: 5\r\n", "hello!", false, PassedOnce(200, "hello")),
        ("CRLF behind", "Content-Length: 5\r\n", "hello\r\n", false, PassedOnce(200, "hello")),
        (
            "two answers",
            "Content-Length: 5\r\n",
            "helloHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
            false,
            PassedOnce(200, "hello"),
        ),
        ("an answer behind length 0", "Content-Length: 0\r\n", SMUGGLED, false, PassedOnce(200, "")),
        (
            "an interim answer behind",
            "Content-Length: 5\r\n",
            "helloHTTP/1.1 100 Continue\r\n\r\n",
            false,
            PassedOnce(200, "hello"),
        ),
        ("a byte behind chunks", CHUNKED, "5\r\nhello\r\n0\r\n\r\n0", false, PassedOnce(200, "hello")),
        (
            "an answer behind chunks",
            CHUNKED,
            "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
            false,
            PassedOnce(200, "hello"),
        ),
        ("chunks with an extension", CHUNKED, "5;a=\"b\"\r\nhello\r\n0\r\n\r\n", false, hello),
        ("chunks with a trailer", CHUNKED, "5\r\nhello\r\n0\r\nX-T: y\r\n\r\n", false, hello),
        ("chunks with a forbidden trailer", CHUNKED, "5\r\nhello\r\n0\r\nContent-Length: 8\r\n\r\n", false, hello),
    ] {
        add(name, "GET", text(fields, rest), "", ends, fate);
    }

    // Bodies that break their framing: seen where the answer passes at once, told where it is held.
    for (name, fields, rest) in [
        ("cut length", "Content-Length: 50\r\n", "hello"),
        ("cut chunk", CHUNKED, "50\r\nhello"),
        ("no last chunk", CHUNKED, "5\r\nhello\r\n"),
        ("cut last chunk", CHUNKED, "5\r\nhello\r\n0\r\n"),
        ("cut trailer", CHUNKED, "5\r\nhello\r\n0\r\nX: y\r\n"),
        ("chunk size with a sign", CHUNKED, "5\r\nhello\r\n+5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size 0x", CHUNKED, "5\r\nhello\r\n0x5\r\nhello\r\n0\r\n\r\n"),
        ("chunk size beyond 64 bits", CHUNKED, "5\r\nhello\r\n10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("chunk size with a space", CHUNKED, "5\r\nhello\r\n5 \r\nhello\r\n0\r\n\r\n"),
        ("chunk ended by a bare LF", CHUNKED, "5\r\nhello\n0\r\n\r\n"),
        ("chunk size ended by a bare LF", CHUNKED, "5\r\nhello\r\n5\nhello\r\n0\r\n\r\n"),
        ("chunk size ended by CR CR LF", CHUNKED, "5\r\nhello\r\n5\r\r\nhello\r\n0\r\n\r\n"),
        ("chunk too long", CHUNKED, "5\r\nhello!\r\n0\r\n\r\n"),
        ("chunk too short", CHUNKED, "6\r\nhello\r\n0\r\n\r\n"),
        ("last chunk ended by a bare LF", CHUNKED, "5\r\nhello\r\n0\n\n"),
        ("extension with a bare CR", CHUNKED, "5\r\nhello\r\n5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("answer as a trailer", CHUNKED, "5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"),
    ] {
        // A cut body is told from a slow one by the connection's end only, which comes after its beginning was passed on.
        let fate = if name.contains("cut") || name == "no last chunk" { Cut } else { Failed };
        add(&format!("{name}, passing"), "GET", text(fields, rest), "", true, fate);
        let rest = rest.replacen("hello", "{\"a\":", 1);
        add(&format!("{name}, held"), "GET", json(fields, &rest), "", true, Failed);
    }

    // Status lines.
    for (name, bytes, ends, fate) in [
        ("1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, PassedOnce(200, "hello")),
        (
            "1.0, kept alive",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
            false,
            hello,
        ),
        (
            "1.0 with chunks",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            Failed,
        ),
        ("1.2", "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("2.0", "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("lower case", "http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("0.9", "hello", true, Failed),
        ("no status", "HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("status 0", "HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("status 600", "HTTP/1.1 600 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("status with a letter", "HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("tab", "HTTP/1.1\t200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("NUL in the reason", "HTTP/1.1 200 O\0K\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("bare CR in the reason", "HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("no reason", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", false, hello),
        ("empty reason", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", false, hello),
        ("bare LF behind the status line", "HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("bare LFs throughout", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false, Failed),
        ("an empty line before", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, Failed),
        ("a request", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", false, Failed),
        ("a head that is cut", "HTTP/1.1 200 OK\r\nContent-Le", true, Failed),
        // Interim answers.
        ("continue", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, hello),
        (
            "early hints twice",
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            hello,
        ),
        (
            "switching protocols",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nhello",
            false,
            Failed,
        ),
        (
            "continue with a length",
            "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            Failed,
        ),
        (
            "continue with chunks",
            "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
            Failed,
        ),
        ("continue that is cut", "HTTP/1.1 100 Continue\r\n\r\n", true, Failed),
        // Bodies where none can be.
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n", false, Passed(204, "")),
        ("no content, length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false, Passed(204, "")),
        (
            "no content with a length",
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
            false,
            PassedOnce(204, ""),
        ),
        (
            "no content with chunks",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            PassedOnce(204, ""),
        ),
        (
            "no content, an answer behind",
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
            false,
            PassedOnce(204, ""),
        ),
        ("not modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, Passed(304, "")),
        (
            "not modified with a body",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
            false,
            PassedOnce(304, ""),
        ),
        (
            "not modified with chunks",
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            PassedOnce(304, ""),
        ),
        ("reset content", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", false, Passed(205, "")),
        // Refusals pass as they are, framing and all.
        ("a refusal", "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\n\r\nhello", false, Passed(429, "hello")),
        ("a refusal until the end", "HTTP/1.1 500 Internal Server Error\r\n\r\nhello", true, PassedOnce(500, "hello")),
        (
            "a refusal framed twice",
            "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
            false,
            Failed,
        ),
    ] {
        add(&format!("status line: {name}"), "GET", bytes.into(), "", ends, fate);
    }

    for (name, bytes, fate) in [
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Passed(200, "")),
        ("length and its body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", PassedOnce(200, "")),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Passed(200, "")),
        (
            "chunks and their body",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            PassedOnce(200, ""),
        ),
        ("neither", "HTTP/1.1 200 OK\r\n\r\n", Passed(200, "")),
        (
            "an answer behind",
            "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
            PassedOnce(200, ""),
        ),
        ("both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Failed),
    ] {
        add(&format!("to HEAD: {name}"), "HEAD", bytes.into(), "", false, fate);
    }

    // What comes once the exchange is over.
    for (name, late) in [
        ("a byte", "x"),
        ("CRLF", "\r\n"),
        ("an answer", SMUGGLED),
        ("a refusal", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"),
    ] {
        add(
            &format!("late: {name}"),
            "GET",
            text("Content-Length: 5\r\n", "hello"),
            late,
            false,
            PassedOnce(200, "hello"),
        );
    }
    cases
}
