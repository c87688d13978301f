//! The messages: each a name, what is sent, and what must become of it.

// With their paths, for tests/desync takes this file in by its path.
#[path = "messages/fields.rs"]
mod fields;
#[path = "messages/frames.rs"]
mod frames;

use super::super::requests::SMUGGLED;
use crate::common::http2::{DATA, END_STREAM, Said, field, frame, head};

/// What must become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The origin understands what the message says, and nothing else.
    Passed,
    /// The same, but for the target.
    PassedAs(&'static str),
    /// Ringway answers with this status, the origin sees nothing of it, and the connection goes on.
    Refused(u16),
    /// The stream is reset, the origin sees nothing of it, and the connection goes on.
    Reset,
    /// The connection is ended, and the origin sees nothing of it.
    Ended,
}

impl Fate {
    /// True if it is this refusal that was told.
    pub fn is_refusal(self, said: &Said) -> bool {
        match (self, said) {
            (Fate::Refused(status), Said::Answer(answered, _)) => status == *answered,
            (Fate::Reset, Said::Reset(reason)) => *reason != 0,
            (Fate::Ended, Said::Ended(reason)) => *reason != Some(0),
            _ => false,
        }
    }
}

use Fate::{Ended, Passed, PassedAs, Refused, Reset};

/// A name and a value.
type Line = (Vec<u8>, Vec<u8>);

/// A request: lines in any order, pseudo-header fields among them.
#[derive(Debug, Clone)]
pub struct Message {
    pub lines: Vec<Line>,
    /// The DATA frames.
    pub data: Vec<Vec<u8>>,
    pub trailers: Vec<Line>,
    /// True if no frame says that it is the last.
    pub open: bool,
}

/// How a message becomes frames.
pub type Frames = fn(&Message, u32) -> Vec<u8>;

/// A row of the table.
pub struct Case {
    pub name: String,
    pub message: Message,
    pub fate: Fate,
    frames: Frames,
}

impl Case {
    /// What is sent, as `stream`.
    pub fn bytes(&self, stream: u32) -> Vec<u8> {
        (self.frames)(&self.message, stream)
    }
}

const PATH: &str = "/v1/files";
/// A body that is read to its end before an origin hears of it; of seven bytes.
const JSON: &[u8] = b"{\"a\":1}";

impl Message {
    pub fn get() -> Message {
        let lines = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", PATH)];
        let lines = lines.map(|(name, value)| (name.into(), value.into())).to_vec();
        Message { lines, data: Vec::new(), trailers: Vec::new(), open: false }
    }

    /// With a body that streams through.
    pub fn post(body: impl AsRef<[u8]>) -> Message {
        Message::get().set(":method", "POST").with("content-type", "application/octet-stream").data(body)
    }

    /// With a body that is held and read.
    pub fn json(body: impl AsRef<[u8]>) -> Message {
        Message::get().set(":method", "POST").data(body)
    }

    pub fn with(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Message {
        self.lines.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    fn first(mut self, name: &str, value: &str) -> Message {
        self.lines.insert(0, (name.into(), value.into()));
        self
    }

    pub fn set(mut self, name: &str, value: impl AsRef<[u8]>) -> Message {
        let line = self.lines.iter_mut().find(|line| line.0 == name.as_bytes()).expect("it is there");
        line.1 = value.as_ref().to_vec();
        self
    }

    fn without(mut self, name: &str) -> Message {
        self.lines.retain(|line| line.0 != name.as_bytes());
        self
    }

    fn data(mut self, bytes: impl AsRef<[u8]>) -> Message {
        self.data.push(bytes.as_ref().to_vec());
        self
    }

    fn trailer(mut self, name: &str, value: &str) -> Message {
        self.trailers.push((name.into(), value.into()));
        self
    }

    fn open(mut self) -> Message {
        self.open = true;
        self
    }

    /// The last line of this name.
    pub fn value(&self, name: &str) -> String {
        let line = self.lines.iter().rev().find(|line| line.0 == name.as_bytes());
        String::from_utf8(line.expect("it is there").1.clone()).expect("text")
    }

    /// Its head in HPACK.
    pub fn block(&self) -> Vec<u8> {
        block(&self.lines)
    }

    /// The frame or frames of the head.
    pub fn head(&self, stream: u32) -> Vec<u8> {
        head(stream, &block(&self.lines), !self.open && self.data.is_empty() && self.trailers.is_empty())
    }

    /// Those of the rest.
    pub fn rest(&self, stream: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, data) in self.data.iter().enumerate() {
            let ends = !self.open && self.trailers.is_empty() && at + 1 == self.data.len();
            bytes.extend(frame(DATA, if ends { END_STREAM } else { 0 }, stream, data));
        }
        if !self.trailers.is_empty() {
            bytes.extend(head(stream, &block(&self.trailers), !self.open));
        }
        bytes
    }
}

fn block(lines: &[Line]) -> Vec<u8> {
    lines.iter().flat_map(|(name, value)| field(name, value)).collect()
}

fn plainly(message: &Message, stream: u32) -> Vec<u8> {
    [message.head(stream), message.rest(stream)].concat()
}

struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, family: &str, name: impl AsRef<str>, message: Message, fate: Fate) {
        self.framed(family, name, message, fate, plainly);
    }

    fn framed(&mut self, family: &str, name: impl AsRef<str>, message: Message, fate: Fate, frames: Frames) {
        let name = format!("{family}: {}", name.as_ref());
        assert!(self.0.iter().all(|case| case.name != name), "two rows named {name}");
        self.0.push(Case { name, message, fate, frames });
    }
}

/// Every row.
pub fn all() -> Vec<Case> {
    let mut table = Table(Vec::new());
    bytes(&mut table);
    smuggling(&mut table);
    pseudo(&mut table);
    targets(&mut table);
    sizes(&mut table);
    fields::hosts(&mut table);
    fields::lengths(&mut table);
    fields::connections(&mut table);
    fields::names(&mut table);
    frames::trailers(&mut table);
    frames::frames(&mut table);
    table.0
}

/// One odd byte, everywhere.
fn bytes(table: &mut Table) {
    for byte in (0..=0x20).chain([0x7f, 0x80, 0x85, 0xa0, 0xc3, 0xff]) {
        let name = format!("{byte:#04x}");
        let within = |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        let is_text = matches!(byte, b'\t' | b' ' | 0x80..);
        let fate = if is_text { Passed } else { Ended };
        table.add("byte in a value", &name, Message::get().with("x-a", within("a", "b")), fate);
        let fate = if matches!(byte, b'\t' | b' ') { Refused(400) } else { fate };
        table.add("byte before a value", &name, Message::get().with("x-a", within("", "b")), fate);
        table.add("byte behind a value", &name, Message::get().with("x-a", within("a", "")), fate);
        table.add("byte in a name", &name, Message::get().with(within("x-a", "b"), "c"), Ended);
        table.add("byte in the method", &name, Message::get().set(":method", within("GE", "T")), Ended);
        // What is no UTF-8 is no HPACK to the library.
        let fate = if byte < 0x80 { Reset } else { Ended };
        table.add("byte in the path", &name, Message::get().set(":path", within("/v1/fi", "les")), fate);
        table.add("byte in the query", &name, Message::get().set(":path", within("/v1/files?", "x")), fate);
        table.add("byte in the authority", &name, Message::get().set(":authority", within("a", "b")), fate);
        table.add("byte in the scheme", &name, Message::get().set(":scheme", within("ht", "tp")), fate);
    }
    for byte in *b"\"(),/;<=>?@[\\]{}:" {
        let name = format!("{:?}", char::from(byte));
        // The library takes this one for a part of a name.
        let fate = if byte == b'"' { Refused(400) } else { Ended };
        table.add("separator in a name", &name, Message::get().with([b"x", &[byte][..], b"b"].concat(), "c"), fate);
        let method = [b"GE", &[byte][..], b"T"].concat();
        table.add("separator in the method", &name, Message::get().set(":method", method), Ended);
    }
}

/// What would be another line, or another request, if it were written as it stands.
fn smuggling(table: &mut Table) {
    let request = format!("x\r\n\r\n{SMUGGLED}");
    for (name, text) in [
        ("a line", "x\r\nx-smuggled: y"),
        ("a line, bare LF", "x\nx-smuggled: y"),
        ("a line, bare CR", "x\rx-smuggled: y"),
        ("chunks", "x\r\ntransfer-encoding: chunked"),
        ("a length", "x\r\ncontent-length: 3"),
        ("a host", "x\r\nhost: other"),
        ("the end of the head", "x\r\n\r\n"),
        ("a request", &request),
        ("NUL", "x\0y"),
    ] {
        table.add("smuggled in a value", name, Message::json(JSON).with("x-a", text), Ended);
        table.add("smuggled in a name", name, Message::json(JSON).with(text, "z"), Ended);
        table.add("smuggled in the method", name, Message::json(JSON).set(":method", text), Ended);
        table.add("smuggled in the path", name, Message::json(JSON).set(":path", format!("/v1/{text}")), Reset);
        table.add("smuggled in the authority", name, Message::json(JSON).set(":authority", text), Reset);
        table.add("smuggled in the scheme", name, Message::json(JSON).set(":scheme", text), Reset);
        table.add("smuggled in the body", name, Message::post(text), Passed);
    }
    for (name, lines, fate) in [
        ("a request line in the method", [(":method", "GET /v1/smuggled HTTP/1.1")], Ended),
        ("a version in the path", [(":path", "/v1/files HTTP/1.1")], Reset),
        ("a version, escaped, in the path", [(":path", "/v1/files%20HTTP/1.1%0d%0aHost:%20x")], Passed),
        ("a URL in the scheme", [(":scheme", "http://other/v1/smuggled?")], Reset),
        ("a path in the authority", [(":authority", "h/v1/smuggled?")], Reset),
        ("a line in a name", [("transfer-encoding: chunked\r\nx", "y")], Ended),
        ("a colon in a name", [("transfer-encoding: chunked", "y")], Ended),
    ] {
        let known = [":method", ":path", ":scheme", ":authority"];
        let message = lines.into_iter().fold(Message::json(JSON), |message, (name, value)| {
            if known.contains(&name) { message.set(name, value) } else { message.with(name, value) }
        });
        table.add("smuggling", name, message, fate);
    }
}

fn pseudo(table: &mut Table) {
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", PATH)] {
        let get = Message::get;
        table.add("repeated", name, get().first(name, value), Reset);
        table.add("late", name, get().without(name).with("x-a", "b").with(name, value), Reset);
        table.add("repeated, late", name, get().with("x-a", "b").with(name, value), Reset);
        table.add("missing", name, get().without(name), if name == ":authority" { Refused(400) } else { Reset });
        let fate = match name {
            ":method" => Ended,
            ":scheme" => Refused(400),
            _ => Reset,
        };
        table.add("empty", name, get().set(name, ""), fate);
        table.add("blank", name, get().set(name, " "), if name == ":method" { Ended } else { Reset });
        table.add("in upper case", name, get().without(name).first(&name.to_ascii_uppercase(), value), Ended);
        let spaced = format!(" {value}");
        table.add("with a space", name, get().set(name, spaced), if name == ":method" { Ended } else { Reset });
    }
    table.add("repeated", "another :path", Message::get().first(":path", "/v1/smuggled"), Reset);
    table.add("repeated", "another :authority", Message::get().first(":authority", "other"), Reset);
    table.add("repeated", "another :method", Message::json(JSON).first(":method", "GET"), Reset);
    for (name, value, fate) in [
        (":status", "200", Reset),
        (":status", "x", Ended),
        (":protocol", "websocket", Reset),
        (":host", "h", Ended),
        (":path ", PATH, Ended),
        (":version", "HTTP/1.1", Ended),
        (":", "x", Ended),
        ("::path", PATH, Ended),
        ("path", PATH, Passed),
        ("method", "DELETE", Passed),
    ] {
        table.add(
            "unknown",
            format!("{name} {value}"),
            Message::get().first(name, value),
            if fate == Passed { Reset } else { fate },
        );
        table.add("unknown, behind", format!("{name} {value}"), Message::get().with(name, value), fate);
    }
    table.add("pseudo", "none", Message { lines: Vec::new(), ..Message::get() }, Reset);
    table.add("scheme", "https", Message::get().set(":scheme", "https"), Passed);
    for scheme in ["HTTP", "Https", "ftp", "h2c", "file", "httpsx", "x+y", "javascript"] {
        table.add("scheme", scheme, Message::get().set(":scheme", scheme), Refused(400));
    }
    // It is told to nobody, and without an authority the library does not tell us either.
    let alone = Message::get().without(":authority").with("host", "h").set(":scheme", "ftp");
    table.add("scheme", "ftp, without :authority", alone, Passed);
    for scheme in ["http:", "http://", "http/1.1"] {
        table.add("scheme", scheme, Message::get().set(":scheme", scheme), Reset);
    }
    for method in ["get", "X", "PATCH", "PROPFIND", "M-SEARCH", "BREW", "HEAD", "DELETE", "PRI"] {
        table.add("method", method, Message::get().set(":method", method), Passed);
    }
    table.add("method", "of 33", Message::get().set(":method", "X".repeat(33)), Refused(501));
    // CONNECT has an authority and nothing else (RFC 9113 §8.5).
    let connect = || Message::get().set(":method", "CONNECT").set(":authority", "h:80");
    let bare = || connect().without(":scheme").without(":path");
    table.add("connect", "as it should be", bare(), Refused(405));
    table.add("connect", "with a body", bare().data(SMUGGLED), Refused(405));
    table.add("connect", "with :scheme and :path", connect(), Reset);
    table.add("connect", "with :path", connect().without(":scheme"), Reset);
    table.add("connect", "with :scheme", connect().without(":path"), Reset);
    table.add("connect", "without :authority", bare().without(":authority"), Refused(400));
    table.add("connect", "without a port", bare().set(":authority", "h"), Refused(405));
    table.add("connect", "of a path", bare().set(":authority", PATH), Reset);
    // It asks for a WebSocket (RFC 8441), and has ended.
    table.add("connect", "with :protocol", connect().first(":protocol", "websocket"), Refused(400));
    table.add("connect", "with another :protocol", connect().first(":protocol", "connect-udp"), Refused(501));
    let length = connect().first(":protocol", "websocket").with("content-length", "5").data("hello");
    table.add("connect", "with :protocol and a length", length, Refused(400));
    let get = Message::get().with("upgrade", "websocket").with("sec-websocket-version", "13");
    table.add("connect", "with the fields of an Upgrade", get, Reset);
    table.add("connect", "in lower case", connect().set(":method", "connect"), Passed);
}

fn targets(table: &mut Table) {
    for (path, fate) in [
        ("/v1/files?x=/../y", Passed),
        ("/v1/files?", Passed),
        ("/v1/files?a?b", Passed),
        ("/v1/files?a=%0d%0aX:%20y", Passed),
        ("/v1//files", Passed),
        ("/v1/files//", Passed),
        ("/v1/files;x=y", Passed),
        ("/v1/%66iles", Passed),
        ("/v1/a%2fb", Passed),
        ("/v1/...", Passed),
        ("/v1/files:80", Passed),
        ("/v1/@h", Passed),
        ("/v1/..", Refused(400)),
        ("/v1/../v1/files", Refused(400)),
        ("/v1/./files", Refused(400)),
        ("/v1/%2e%2e/files", Refused(400)),
        ("/v1/.%2E/files", Refused(400)),
        ("/v1/..%2ffiles", Refused(400)),
        ("/v1/..%5cfiles", Refused(400)),
        ("/../v1/files", Refused(400)),
        ("/v1\\files", Refused(400)),
        ("/v1/%00", Refused(400)),
        ("/v1/%", Refused(400)),
        ("/v1/%g0", Refused(400)),
        ("/v1/\"", Refused(400)),
        ("/v1/{x}", Refused(400)),
        ("/v1/ä", Refused(400)),
        ("/v1/<x>", Reset),
        ("v1/files", Reset),
        ("?x", Refused(400)),
        ("*", Refused(400)),
        ("*/v1/files", Reset),
        ("h:80", Reset),
        ("http://h/v1/files", Reset),
        ("http://other/v1/smuggled", Reset),
        ("https:/v1/files", Reset),
        ("@other/v1/files", Reset),
        ("//other/v1/files", Refused(404)),
        ("/", Refused(404)),
        ("/v1", Refused(404)),
        ("/other", Refused(404)),
        // The library reads no further than a fragment, so nobody does.
        ("/v1/files#x", PassedAs("/v1/files")),
        ("/v1/files?x#y", PassedAs("/v1/files?x")),
        ("/v1/files#/../../other", PassedAs("/v1/files")),
        ("#x", Refused(404)),
    ] {
        table.add("path", path, Message::get().set(":path", path), fate);
    }
    let options = |path: &str| Message::get().set(":method", "OPTIONS").set(":path", path);
    table.add("path", "asterisk of OPTIONS", options("*"), Refused(405));
    table.add("path", "more than an asterisk of OPTIONS", options("*x"), Reset);
    table.add("path", "a path of OPTIONS", options(PATH), Passed);
    table.add("path", "a URL of OPTIONS", options("http://h"), Reset);
    table.add("path", "empty of OPTIONS", options(""), Reset);
}

fn sizes(table: &mut Table) {
    let many = |count: usize| (0..count).fold(Message::get(), |message, at| message.with(format!("x-{at}"), "y"));
    let same = |count: usize| (0..count).fold(Message::get(), |message, _| message.with("x-a", "y"));
    table.add("size", "90 fields", many(90), Passed);
    table.add("size", "99 fields, and the host", many(99), Passed);
    table.add("size", "100 fields, and the host", many(100), Refused(431));
    table.add("size", "100 equal fields, and the host", same(100), Refused(431));
    table.add("size", "1000 fields", many(1000), Refused(431));
    table.add("size", "10000 fields", many(10_000), Refused(431));
    let long = |len: usize| Message::get().with("x-a", "y".repeat(len));
    table.add("size", "a field of 6 KiB", long(6 << 10), Passed);
    table.add("size", "a field of several frames", long(20 << 10), Passed);
    table.add("size", "a field larger than a head", long(66 << 10), Refused(431));
    table.add("size", "a field much larger than a head", long(1 << 20), Ended);
    table.add("size", "a long name", Message::get().with("x".repeat(6 << 10), "y"), Passed);
    table.add("size", "a name larger than any", Message::get().with("x".repeat(66 << 10), "y"), Ended);
    let path = |len: usize| Message::get().set(":path", format!("/v1/{}", "x".repeat(len - 4)));
    table.add("size", "a path of 4 KiB", path(4 << 10), Passed);
    table.add("size", "a path too long", path((8 << 10) + 1), Refused(414));
    table.add("size", "a path larger than a head", path(66 << 10), Refused(431));
    table.add("size", "a long authority", Message::get().set(":authority", "h".repeat(4 << 10)), Passed);
    let many = (0..500).fold(Message::post("x"), |message, _| message.data("x"));
    table.add("size", "many small frames", many, Passed);
}
