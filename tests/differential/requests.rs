//! The messages: each a name, its bytes, and what must become of it.

/// What must become of one message after the other on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The origin understands exactly this: method, target, body.
    Forwarded(&'static str, String, Vec<u8>),
    /// The same, and the connection ends after its answer.
    ForwardedLast(&'static str, String, Vec<u8>),
    /// Ringway refuses and closes; the origin sees nothing of it.
    Refused(u16),
    /// Ringway answers by itself and the connection goes on.
    Own(u16),
    /// Nothing whole came: once the client has ended its side, the connection ends without an answer.
    Unanswered,
}

use Outcome::{Forwarded, ForwardedLast, Own, Refused, Unanswered};

/// A row of the table.
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub outcomes: Vec<Outcome>,
}

/// Stands where a body is expected and must never be taken for a request.
pub const SMUGGLED: &str = "GET /v1/smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

const PATH: &str = "/v1/files";
/// Of a type that is not read, so that its body streams through.
const OPAQUE: &str = "Content-Type: application/octet-stream\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, family: &str, name: impl AsRef<str>, bytes: impl Into<Vec<u8>>, outcomes: Vec<Outcome>) {
        let name = format!("{family}: {}", name.as_ref());
        assert!(self.0.iter().all(|case| case.name != name), "two rows named {name}");
        self.0.push(Case { name, bytes: bytes.into(), outcomes });
    }

    /// A POST of opaque bytes with these fields and this body.
    fn post(&mut self, family: &str, name: impl AsRef<str>, fields: &[u8], body: &[u8], outcomes: Vec<Outcome>) {
        let head = [format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{OPAQUE}").as_bytes(), fields, b"\r\n"].concat();
        self.add(family, name, [&head[..], body].concat(), outcomes);
    }

    /// A GET with these fields.
    fn get(&mut self, family: &str, name: impl AsRef<str>, fields: &[u8], outcomes: Vec<Outcome>) {
        let bytes = [b"GET /v1/files HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n"].concat();
        self.add(family, name, bytes, outcomes);
    }
}

fn posted(body: impl AsRef<[u8]>) -> Vec<Outcome> {
    vec![Forwarded("POST", PATH.into(), body.as_ref().to_vec())]
}

fn got(target: &str) -> Vec<Outcome> {
    vec![Forwarded("GET", target.into(), Vec::new())]
}

fn refused(status: u16) -> Vec<Outcome> {
    vec![Refused(status)]
}

/// Every row.
pub fn all() -> Vec<Case> {
    let mut table = Table(Vec::new());
    lengths(&mut table);
    codings(&mut table);
    chunks(&mut table);
    line_ends(&mut table);
    spaces_and_bytes(&mut table);
    targets(&mut table);
    hosts(&mut table);
    start_lines(&mut table);
    options(&mut table);
    sizes(&mut table);
    several(&mut table);
    table.0
}

fn lengths(table: &mut Table) {
    // The body is five bytes; what follows it is a request.
    for (value, sound) in [
        (&b"5"[..], true),
        (b"05", true),
        (b"0000000000000000005", true),
        (b" 5", true),
        (b"5 ", true),
        (b"\t5\t ", true),
        (b"00000000000000000005", false),
        (b"+5", false),
        (b"-5", false),
        (b"-0", false),
        (b"5,5", false),
        (b"5, 5", false),
        (b"5,", false),
        (b",5", false),
        (b"5;", false),
        (b"5;x=y", false),
        (b"5 5", false),
        (b"5\t5", false),
        (b"0x5", false),
        (b"0b101", false),
        (b"0o5", false),
        (b"5h", false),
        (b"5.", false),
        (b"5.0", false),
        (b"5e0", false),
        (b"5_0", false),
        (b"5L", false),
        (b"", false),
        (b" ", false),
        (b"\"5\"", false),
        (b"'5'", false),
        (b"(5)", false),
        (b"five", false),
        (b"chunked", false),
        (b"NaN", false),
        (b"18446744073709551616", false),
        (b"18446744073709551621", false),
        (b"99999999999999999999999999", false),
        (b"5\0", false),
        (b"\x005", false),
        (b"5\x0b", false),
        (b"\x0c5", false),
        (b"5\x7f", false),
        (b"5\x85", false),
        (b"\xa05", false),
        ("５".as_bytes(), false),
        ("٥".as_bytes(), false),
        (b"5\r", false),
    ] {
        let name = format!("{:?}", String::from_utf8_lossy(value));
        let outcomes = if sound { posted("hello") } else { refused(400) };
        table.post("length", name, &[b"Content-Length: ", value, b"\r\n"].concat(), b"hello", outcomes);
    }
    for (name, fields, body, outcomes) in [
        ("zero", "Content-Length: 0\r\n", "", posted("")),
        ("zeros", "Content-Length: 000\r\n", "", posted("")),
        ("none", "", "", posted("")),
        ("twice, equal", "Content-Length: 5\r\nContent-Length: 5\r\n", "hello", refused(400)),
        ("twice, shorter first", "Content-Length: 0\r\nContent-Length: 5\r\n", "hello", refused(400)),
        ("twice, longer first", "Content-Length: 5\r\nContent-Length: 0\r\n", "hello", refused(400)),
        ("twice, one empty", "Content-Length: 5\r\nContent-Length:\r\n", "hello", refused(400)),
        ("twice, in other case", "Content-Length: 5\r\ncontent-length: 5\r\n", "hello", refused(400)),
        ("three times", "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 5\r\n", "hello", refused(400)),
        ("space before the colon", "Content-Length : 5\r\n", "hello", refused(400)),
        ("tab before the colon", "Content-Length\t: 5\r\n", "hello", refused(400)),
        ("without a colon", "Content-Length 5\r\n", "hello", refused(400)),
        ("folded", "Content-Length:\r\n 5\r\n", "hello", refused(400)),
        ("folded in the middle", "Content-Length: 5\r\n 0\r\n", "hello", refused(400)),
        ("behind a fold", "X: y\r\n Content-Length: 5\r\n", "hello", refused(400)),
        ("upper case", "CONTENT-LENGTH: 5\r\n", "hello", posted("hello")),
        ("without a space", "Content-Length:5\r\n", "hello", posted("hello")),
        // Other names: no body, and what was meant as one begins the next request, with a byte that no method holds.
        ("underscore", "Content_Length: 5\r\n", "he(lo", [posted(""), refused(400)].concat()),
        ("one letter more", "Content-Lengthx: 5\r\n", "he(lo", [posted(""), refused(400)].concat()),
        ("one letter less", "Content-Lengt: 5\r\n", "he(lo", [posted(""), refused(400)].concat()),
        ("prefixed", "X-Content-Length: 5\r\n", "he(lo", [posted(""), refused(400)].concat()),
        ("NUL in the name", "Content-Length\0: 5\r\n", "hello", refused(400)),
        ("NUL before the name", "\0Content-Length: 5\r\n", "hello", refused(400)),
        ("longer than the body", "Content-Length: 5000\r\n", "hello", vec![Unanswered]),
        ("shorter than the body", "Content-Length: 3\r\n", "hel(o", [posted("hel"), refused(400)].concat()),
        ("the body is a request", "Content-Length: 38\r\n", SMUGGLED, posted(SMUGGLED)),
        ("nominated by Connection", "Content-Length: 5\r\nConnection: content-length\r\n", "hello", posted("hello")),
    ] {
        table.post("length", name, fields.as_bytes(), body.as_bytes(), outcomes);
    }
    let get = format!("GET {PATH} HTTP/1.1\r\nHost: h\r\n{OPAQUE}Content-Length: 38\r\n\r\n");
    let body = SMUGGLED.as_bytes().to_vec();
    table.add("length", "of a GET", [&get, SMUGGLED].concat(), vec![Forwarded("GET", PATH.into(), body.clone())]);
    let head = get.replace("GET", "HEAD");
    table.add("length", "of a HEAD", [&head, SMUGGLED].concat(), vec![Forwarded("HEAD", PATH.into(), body.clone())]);
    let delete = get.replace("GET", "DELETE");
    table.add("length", "of a DELETE", [&delete, SMUGGLED].concat(), vec![Forwarded("DELETE", PATH.into(), body)]);
    let json = "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775808\r\n\r\n{}";
    table.add("length", "beyond 63 bits, of JSON", json, refused(413));
    let json = json.replace("9223372036854775808", "9999999999999999999");
    table.add("length", "the longest, of JSON", json, refused(413));
}

const HELLO: &[u8] = b"5\r\nhello\r\n0\r\n\r\n";

fn codings(table: &mut Table) {
    for (value, status) in [
        (&b"chunked"[..], 0),
        (b"CHUNKED", 0),
        (b"Chunked", 0),
        (b" chunked", 0),
        (b"chunked ", 0),
        (b"\tchunked\t", 0),
        (b"chunke", 501),
        (b"chunkedd", 501),
        (b"xchunked", 501),
        (b"x-chunked", 501),
        (b"chunked1", 501),
        (b"identity", 501),
        (b"gzip", 501),
        (b"deflate", 501),
        (b"compress", 501),
        (b"gzip, chunked", 501),
        (b"identity, chunked", 501),
        (b"chunked, chunked", 400),
        (b"chunked,chunked", 400),
        (b"chunked, identity", 400),
        (b"chunked, gzip", 400),
        (b"chunked,", 400),
        (b",chunked", 400),
        (b", ,chunked", 400),
        (b"chunked;", 400),
        (b"chunked;q=1", 400),
        (b"chunked; foo=bar", 400),
        (b"\"chunked\"", 400),
        (b"'chunked'", 501),
        (b"(x) chunked", 400),
        (b"chunked chunked", 400),
        (b"chun ked", 400),
        (b"", 400),
        (b" ", 400),
        (b",", 400),
        (b"\x0bchunked", 400),
        (b"chunked\x0b", 400),
        (b"\x0cchunked", 400),
        (b"chunked\0", 400),
        (b"\0chunked", 400),
        (b"chun\0ked", 400),
        (b"chunked\x7f", 400),
        (b"chunked\xa0", 400),
        (b"\xffchunked", 400),
        ("ｃhunked".as_bytes(), 400),
        // Folds to k in Unicode.
        ("chun\u{212a}ed".as_bytes(), 400),
        (b"chunked\r", 400),
        (b"cow", 501),
        (b"trailers", 501),
        (b"100", 501),
    ] {
        let name = format!("{:?}", String::from_utf8_lossy(value));
        let outcomes = if status == 0 { posted("hello") } else { refused(status) };
        table.post("coding", name, &[b"Transfer-Encoding: ", value, b"\r\n"].concat(), HELLO, outcomes);
    }
    for (name, fields, outcomes) in [
        ("twice", format!("{CHUNKED}{CHUNKED}"), refused(400)),
        ("twice, then identity", format!("{CHUNKED}Transfer-Encoding: identity\r\n"), refused(501)),
        ("twice, first identity", format!("Transfer-Encoding: identity\r\n{CHUNKED}"), refused(501)),
        ("twice, one empty", format!("{CHUNKED}Transfer-Encoding:\r\n"), refused(400)),
        ("with a length", format!("{CHUNKED}Content-Length: 15\r\n"), refused(400)),
        ("behind a length", format!("Content-Length: 15\r\n{CHUNKED}"), refused(400)),
        ("with length 0", format!("Content-Length: 0\r\n{CHUNKED}"), refused(400)),
        ("with a bad length", format!("Content-Length: x\r\n{CHUNKED}"), refused(400)),
        ("with two lengths", format!("Content-Length: 15\r\n{CHUNKED}Content-Length: 15\r\n"), refused(400)),
        ("unknown, with a length", "Transfer-Encoding: x\r\nContent-Length: 15\r\n".into(), refused(501)),
        ("space before the colon", "Transfer-Encoding : chunked\r\n".into(), refused(400)),
        ("tab before the colon", "Transfer-Encoding\t: chunked\r\n".into(), refused(400)),
        ("vertical tab before the colon", "Transfer-Encoding\x0b: chunked\r\n".into(), refused(400)),
        ("NUL before the colon", "Transfer-Encoding\0: chunked\r\n".into(), refused(400)),
        ("folded", "Transfer-Encoding:\r\n chunked\r\n".into(), refused(400)),
        ("folded with a tab", "Transfer-Encoding:\r\n\tchunked\r\n".into(), refused(400)),
        ("folded list", "Transfer-Encoding: gzip,\r\n chunked\r\n".into(), refused(400)),
        ("behind a fold", "X: y\r\n Transfer-Encoding: chunked\r\n".into(), refused(400)),
        ("behind a bare LF", "X: y\nTransfer-Encoding: chunked\r\n".into(), refused(400)),
        ("behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\n".into(), refused(400)),
        ("ended by a bare LF", "Transfer-Encoding: chunked\n".into(), refused(400)),
        ("without a space", "Transfer-Encoding:chunked\r\n".into(), posted("hello")),
        ("in upper case", "TRANSFER-ENCODING: chunked\r\n".into(), posted("hello")),
        // Other names: no body, and the chunks begin the next request.
        ("underscore", "Transfer_Encoding: chunked\r\n".into(), [posted(""), refused(400)].concat()),
        ("plural", "Transfer-Encodings: chunked\r\n".into(), [posted(""), refused(400)].concat()),
        ("TE alone", "TE: chunked\r\n".into(), [posted(""), refused(400)].concat()),
        ("TE as well", format!("{CHUNKED}TE: trailers\r\n"), posted("hello")),
        ("nominated by Connection", format!("{CHUNKED}Connection: transfer-encoding\r\n"), posted("hello")),
        ("with a Content-Encoding", format!("{CHUNKED}Content-Encoding: chunked\r\n"), posted("hello")),
    ] {
        table.post("coding", name, fields.as_bytes(), HELLO, outcomes);
    }
    let http10 = format!("POST {PATH} HTTP/1.0\r\nHost: h\r\n{OPAQUE}");
    let hello = String::from_utf8_lossy(HELLO);
    for (name, fields) in [
        ("in 1.0", CHUNKED.to_owned()),
        ("in 1.0, kept alive", format!("{CHUNKED}Connection: keep-alive\r\n")),
        ("in 1.0, with a length", format!("{CHUNKED}Content-Length: 15\r\n")),
    ] {
        table.add("coding", name, format!("{http10}{fields}\r\n{hello}"), refused(400));
    }
    let get = format!("GET {PATH} HTTP/1.1\r\nHost: h\r\n{OPAQUE}{CHUNKED}\r\n{hello}");
    table.add("coding", "of a GET", get, vec![Forwarded("GET", PATH.into(), b"hello".to_vec())]);
}

fn chunks(table: &mut Table) {
    let long = "x".repeat(4095);
    for (name, body, whole) in [
        ("plain", "5\r\nhello\r\n0\r\n\r\n", true),
        ("two", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", true),
        ("leading zeros", "0005\r\nhello\r\n0\r\n\r\n", true),
        ("many zeros in the last", "5\r\nhello\r\n0000000\r\n\r\n", true),
        ("sixteen digits", "0000000000000005\r\nhello\r\n0\r\n\r\n", true),
        ("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", true),
        ("an extension without a value", "5;a\r\nhello\r\n0;b\r\n\r\n", true),
        ("blanks around an extension", "5 ; a = b\r\nhello\r\n0\r\n\r\n", true),
        ("a quoted extension", "5;a=\"b;\\\"c\"\r\nhello\r\n0\r\n\r\n", true),
        ("a long extension", &format!("5;{long}\r\nhello\r\n0\r\n\r\n"), true),
        ("a trailer", "5\r\nhello\r\n0\r\nX-T: y\r\n\r\n", true),
        ("a forbidden trailer", "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n", true),
        ("a forbidden coding", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", true),
        ("a forbidden host", "5\r\nhello\r\n0\r\nHost: other\r\n\r\n", true),
        ("seventeen digits", "00000000000000005\r\nhello\r\n0\r\n\r\n", false),
        ("more than 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", false),
        ("all bits and one", "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", false),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n", false),
        ("a minus", "-5\r\nhello\r\n0\r\n\r\n", false),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n", false),
        ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n", false),
        ("a point", "5.0\r\nhello\r\n0\r\n\r\n", false),
        ("h", "5h\r\nhello\r\n0\r\n\r\n", false),
        ("a leading space", " 5\r\nhello\r\n0\r\n\r\n", false),
        ("a leading tab", "\t5\r\nhello\r\n0\r\n\r\n", false),
        ("a trailing space", "5 \r\nhello\r\n0\r\n\r\n", false),
        ("a trailing tab", "5\t\r\nhello\r\n0\r\n\r\n", false),
        ("a space in the last", "5\r\nhello\r\n0 \r\n\r\n", false),
        ("no size", "\r\nhello\r\n0\r\n\r\n", false),
        ("a semicolon alone", ";\r\nhello\r\n0\r\n\r\n", false),
        ("an empty extension", "5;\r\nhello\r\n0\r\n\r\n", false),
        ("two semicolons", "5;;a\r\nhello\r\n0\r\n\r\n", false),
        ("an extension without a name", "5;=b\r\nhello\r\n0\r\n\r\n", false),
        ("an extension without an end", "5;a=\r\nhello\r\n0\r\n\r\n", false),
        ("an open quote", "5;a=\"b\r\nhello\r\n0\r\n\r\n", false),
        ("CRLF in quotes", "5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\n", false),
        ("a bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n", false),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n", false),
        ("NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n", false),
        ("a high byte in an extension", "5;ä\r\nhello\r\n0\r\n\r\n", false),
        ("a colon behind the size", "5:\r\nhello\r\n0\r\n\r\n", false),
        ("a comma behind the size", "5,\r\nhello\r\n0\r\n\r\n", false),
        ("NUL behind the size", "5\0\r\nhello\r\n0\r\n\r\n", false),
        ("a fullwidth digit", "５\r\nhello\r\n0\r\n\r\n", false),
        ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n", false),
        ("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n", false),
        ("CR CR LF behind the size", "5\r\r\nhello\r\n0\r\n\r\n", false),
        ("LF CR behind the size", "5\n\rhello\r\n0\r\n\r\n", false),
        ("a bare LF behind the content", "5\r\nhello\n0\r\n\r\n", false),
        ("a bare CR behind the content", "5\r\nhello\r0\r\n\r\n", false),
        ("nothing behind the content", "5\r\nhello0\r\n\r\n", false),
        ("content too long", "5\r\nhello!\r\n0\r\n\r\n", false),
        ("content too short", "6\r\nhello\r\n0\r\n\r\n", false),
        ("bare LFs throughout", "5\nhello\n0\n\n", false),
        ("a bare LF behind the last", "5\r\nhello\r\n0\n\r\n", false),
        ("a bare LF as the end", "5\r\nhello\r\n0\r\n\n", false),
        ("a bare CR as the end", "5\r\nhello\r\n0\r\n\rX", false),
        ("a trailer without a colon", "5\r\nhello\r\n0\r\nX\r\n\r\n", false),
        ("a trailer without a name", "5\r\nhello\r\n0\r\n: y\r\n\r\n", false),
        ("a trailer with a space", "5\r\nhello\r\n0\r\nX : y\r\n\r\n", false),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", false),
        ("NUL in a trailer", "5\r\nhello\r\n0\r\nX: \0\r\n\r\n", false),
        ("a bare LF in a trailer", "5\r\nhello\r\n0\r\nX: y\nZ: 1\r\n\r\n", false),
        ("a bare CR in a trailer", "5\r\nhello\r\n0\r\nX: y\rZ: 1\r\n\r\n", false),
        ("a request as a trailer", &format!("5\r\nhello\r\n0\r\n{SMUGGLED}"), false),
    ] {
        let outcomes = if whole { posted("hello") } else { refused(400) };
        table.post("chunks", name, CHUNKED.as_bytes(), body.as_bytes(), outcomes);
        // The same where the body is held and read: it must not get as far as to be no JSON.
        let held = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n{CHUNKED}\r\n");
        let json = body.replacen("hello", "{\"a\":", 1).replacen("\r\n0", "\r\n2\r\n1}\r\n0", 1);
        if whole && name == "plain" {
            let seen = Forwarded("POST", "/v1/chat/completions".into(), b"{\"a\":1}".to_vec());
            table.add("chunks, held", name, format!("{held}{json}"), vec![seen]);
        } else if !whole {
            table.add("chunks, held", name, format!("{held}{body}"), refused(400));
        }
    }
    let smuggled = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    table.post("chunks", "the content is a request", CHUNKED.as_bytes(), smuggled.as_bytes(), posted(SMUGGLED));
    let letters = "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n";
    table.post(
        "chunks",
        "digits of both cases",
        CHUNKED.as_bytes(),
        letters.as_bytes(),
        posted("01234567890123456789"),
    );
    table.post("chunks", "empty", CHUNKED.as_bytes(), b"0\r\n\r\n", posted(""));
    table.post("chunks", "cut in the size", CHUNKED.as_bytes(), b"5", vec![Refused(400)]);
}

fn line_ends(table: &mut Table) {
    for (name, bytes) in [
        ("bare LF throughout", "GET /v1/files HTTP/1.1\nHost: h\n\n"),
        ("bare LF behind the request line", "GET /v1/files HTTP/1.1\nHost: h\r\n\r\n"),
        ("bare LF behind the first field", "GET /v1/files HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
        ("bare LF behind the last field", "GET /v1/files HTTP/1.1\r\nHost: h\n\r\n"),
        ("bare LF as the empty line", "GET /v1/files HTTP/1.1\r\nHost: h\r\n\n"),
        ("bare LF behind an empty value", "GET /v1/files HTTP/1.1\r\nHost: h\r\nX:\nY: z\r\n\r\n"),
        ("LF LF within a value", "GET /v1/files HTTP/1.1\r\nHost: h\r\nX: y\n\nGET /v1/smuggled HTTP/1.1\r\n\r\n"),
        ("bare CR behind the request line", "GET /v1/files HTTP/1.1\rHost: h\r\n\r\n"),
        ("bare CR behind a field", "GET /v1/files HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"),
        ("bare CR in a value", "GET /v1/files HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"),
        ("bare CR as the empty line", "GET /v1/files HTTP/1.1\r\nHost: h\r\n\rX"),
        ("bare CRs throughout", "GET /v1/files HTTP/1.1\rHost: h\r\r"),
        ("CR CR LF behind the request line", "GET /v1/files HTTP/1.1\r\r\nHost: h\r\n\r\n"),
        ("CR CR LF behind a field", "GET /v1/files HTTP/1.1\r\nHost: h\r\r\n\r\n"),
        ("CR CR LF as the empty line", "GET /v1/files HTTP/1.1\r\nHost: h\r\n\r\r\n"),
        ("LF CR behind a field", "GET /v1/files HTTP/1.1\r\nHost: h\n\rX: y\r\n\r\n"),
        ("LF before the request", "\nGET /v1/files HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("CR before the request", "\rGET /v1/files HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("three empty lines before", "\r\n\r\n\r\nGET /v1/files HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a bare LF behind an empty line", "\r\n\nGET /v1/files HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fold of the first field", "GET /v1/files HTTP/1.1\r\n Host: h\r\n\r\n"),
        ("fold with a tab", "GET /v1/files HTTP/1.1\r\n\tHost: h\r\n\r\n"),
        ("fold of Host", "GET /v1/files HTTP/1.1\r\nHost:\r\n h\r\n\r\n"),
        ("fold of a field", "GET /v1/files HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n"),
        ("fold to nothing", "GET /v1/files HTTP/1.1\r\nHost: h\r\nX: y\r\n \r\n\r\n"),
        ("a line of a space", "GET /v1/files HTTP/1.1\r\nHost: h\r\n \r\n\r\n"),
        ("vertical tab for a line end", "GET /v1/files HTTP/1.1\r\nHost: h\x0bX: y\r\n\r\n"),
        ("form feed for a line end", "GET /v1/files HTTP/1.1\r\nHost: h\x0cX: y\r\n\r\n"),
        ("next line for a line end", "GET /v1/files HTTP/1.1\r\nHost: h\u{85}X: y\r\n\r\n"),
        ("line separator for a line end", "GET /v1/files HTTP/1.1\r\nHost: h\u{2028}X: y\r\n\r\n"),
    ] {
        table.add("line ends", name, bytes, refused(400));
    }
    for (name, before) in [("one empty line before", "\r\n"), ("two empty lines before", "\r\n\r\n")] {
        table.add("line ends", name, format!("{before}GET {PATH} HTTP/1.1\r\nHost: h\r\n\r\n"), got(PATH));
    }
    table.add("line ends", "a head that is not ended", "GET /v1/files HTTP/1.1\r\nHost: h\r\nX: y", refused(400));
}

fn spaces_and_bytes(table: &mut Table) {
    for (name, fields, sound) in [
        ("space before a colon", "X : y\r\n", false),
        ("tab before a colon", "X\t: y\r\n", false),
        ("space within a name", "X Y: z\r\n", false),
        ("no colon", "X\r\n", false),
        ("no name", ": y\r\n", false),
        ("a colon alone", ":\r\n", false),
        ("no value", "X:\r\n", true),
        ("blank value", "X: \t \r\n", true),
        ("blanks around", "X: \t y \t\r\n", true),
        ("colon in the value", "X: y: z\r\n", true),
        ("two colons", "X:: y\r\n", true),
        ("tab within a value", "X: y\tz\r\n", true),
        ("quotes left open", "X: \"y\r\n", true),
        ("a long list", "X: a, b,, c\r\nX: d\r\n", true),
    ] {
        table.get("fields", name, fields.as_bytes(), if sound { got(PATH) } else { refused(400) });
    }
    for byte in (0..=0x20).chain([0x7f, 0x80, 0x85, 0xa0, 0xc3, 0xff]) {
        let is_line_end = matches!(byte, b'\r' | b'\n');
        let value = [b"X: a", &[byte][..], b"b\r\n"].concat();
        let sound = matches!(byte, b'\t' | 0x20 | 0x80..);
        table.get("byte in a value", format!("{byte:#04x}"), &value, if sound { got(PATH) } else { refused(400) });
        let name = [b"A", &[byte][..], b"B: c\r\n"].concat();
        table.get("byte in a name", format!("{byte:#04x}"), &name, refused(400));
        let target = [b"GET /v1/fi", &[byte][..], b"les HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        table.add("byte in the target", format!("{byte:#04x}"), target, refused(400));
        if !is_line_end {
            let method = [b"GE", &[byte][..], b"T /v1/files HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
            table.add("byte in the method", format!("{byte:#04x}"), method, refused(400));
        }
    }
    for byte in *b"\"(),/;<=>?@[\\]{}" {
        let name = [b"A", &[byte][..], b"B: c\r\n"].concat();
        table.get("separator in a name", format!("{:?}", char::from(byte)), &name, refused(400));
    }
}

fn targets(table: &mut Table) {
    for (target, sound) in [
        ("/v1/files?x=/../y", true),
        ("/v1/files?", true),
        ("/v1/files?a?b", true),
        ("/v1/files?a=%0d%0aX:%20y", true),
        ("/v1/files?a=%zz", true),
        ("/v1//files", true),
        ("/v1/files//", true),
        ("/v1/files;x=y", true),
        ("/v1/files%20HTTP/1.1", true),
        ("/v1/files%0d%0aHost:%20x", true),
        ("/v1/%66iles", true),
        ("/v1/a%2fb", true),
        ("/v1/...", true),
        ("/v1/files:80", true),
        ("/v1/@h", true),
        ("/v1/..", false),
        ("/v1/../v1/files", false),
        ("/v1/./files", false),
        ("/v1/%2e%2e/files", false),
        ("/v1/.%2E/files", false),
        ("/v1/..%2ffiles", false),
        ("/v1/..%5cfiles", false),
        ("/v1/x%2f..", false),
        ("/../v1/files", false),
        ("/v1/files#x", false),
        ("/v1/files?x#y", false),
        ("/v1\\files", false),
        ("/v1/%00", false),
        ("/v1/%", false),
        ("/v1/%2", false),
        ("/v1/%g0", false),
        ("/v1/\"", false),
        ("/v1/<x>", false),
        ("/v1/ä", false),
        ("v1/files", false),
        ("*", false),
        ("h:80", false),
        ("http://", false),
        ("http:///v1/files", false),
        ("http:/v1/files", false),
        ("http://u@h/v1/files", false),
        ("http://h h/v1/files", false),
        ("ftp://h/v1/files", false),
        ("http://h/v1/../files", false),
        ("http://h:99999/v1/files", false),
        ("//h/v1/files/..", false),
    ] {
        let outcomes = if sound { got(target) } else { refused(400) };
        table.add("target", target, format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), outcomes);
    }
    // The absolute form is sent on as a path, with the host that the configuration names.
    for (target, path) in [
        ("http://h/v1/files", "/v1/files"),
        ("http://other:81/v1/files", "/v1/files"),
        ("https://h/v1/files?x", "/v1/files?x"),
        ("HTTP://h/v1/files", "/v1/files"),
    ] {
        table.add("target", target, format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), got(path));
    }
    for (name, target) in
        [("no path", "http://h"), ("outside", "/other"), ("v1 alone", "/v1"), ("two slashes", "//v1/x")]
    {
        table.add("target", name, format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"), vec![Own(404)]);
    }
    for (name, line) in [("asterisk", "OPTIONS * HTTP/1.1"), ("authority", "CONNECT h:80 HTTP/1.1")] {
        table.add("target", name, format!("{line}\r\nHost: h\r\n\r\n"), vec![Own(405)]);
    }
}

fn hosts(table: &mut Table) {
    for (name, fields, sound) in [
        ("a name", "Host: h\r\n", true),
        ("a port", "Host: h:8080\r\n", true),
        ("an empty port", "Host: h:\r\n", true),
        ("IPv6", "Host: [::1]:80\r\n", true),
        ("behind others", "X: y\r\nhOST: h\r\n", true),
        ("none", "", false),
        ("empty", "Host:\r\n", false),
        ("blank", "Host: \t\r\n", false),
        ("two", "Host: a\r\nHost: b\r\n", false),
        ("two, equal", "Host: a\r\nHost: a\r\n", false),
        ("two, one empty", "Host: a\r\nHost:\r\n", false),
        ("a list", "Host: a, b\r\n", false),
        ("a list without a space", "Host: a,b\r\n", false),
        ("two words", "Host: a b\r\n", false),
        ("user information", "Host: u@h\r\n", false),
        ("a password", "Host: u:p@h\r\n", false),
        ("a path", "Host: h/x\r\n", false),
        ("a query", "Host: h?x\r\n", false),
        ("a fragment", "Host: h#x\r\n", false),
        ("a backslash", "Host: h\\x\r\n", false),
        ("a URL", "Host: http://h\r\n", false),
        ("a quote", "Host: \"h\"\r\n", false),
        ("a semicolon", "Host: h;x\r\n", false),
        ("an escape", "Host: %68\r\n", false),
        ("a port that is none", "Host: h:x\r\n", false),
        ("a port too large", "Host: h:65536\r\n", false),
        ("two ports", "Host: h:1:2\r\n", false),
        ("a negative port", "Host: h:-1\r\n", false),
        ("an open bracket", "Host: [::1\r\n", false),
        ("empty brackets", "Host: []\r\n", false),
        ("a zone", "Host: [fe80::1%25eth0]\r\n", false),
        ("behind brackets", "Host: [::1]x\r\n", false),
        ("not ASCII", "Host: hä\r\n", false),
        ("space before the colon", "Host : h\r\n", false),
    ] {
        let bytes = format!("GET {PATH} HTTP/1.1\r\n{fields}\r\n");
        table.add("host", name, bytes, if sound { got(PATH) } else { refused(400) });
    }
    let both = format!("GET http://a{PATH} HTTP/1.1\r\nHost: b\r\n\r\n");
    table.add("host", "another in the target", both, got(PATH));
    let none = format!("GET http://a{PATH} HTTP/1.1\r\n\r\n");
    table.add("host", "only in the target", none, refused(400));
    table.add(
        "host",
        "none in 1.0",
        format!("GET {PATH} HTTP/1.0\r\n\r\n"),
        vec![ForwardedLast("GET", PATH.into(), vec![])],
    );
    let several =
        format!("GET {PATH} HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: a\r\nX-Host: b\r\nForwarded: host=c\r\n\r\n");
    table.add("host", "others claim one too", several, got(PATH));
}

fn start_lines(table: &mut Table) {
    for (name, line, status) in [
        ("0.9", "GET /v1/files", 400),
        ("0.9 with a version", "GET /v1/files HTTP/0.9", 505),
        ("1.2", "GET /v1/files HTTP/1.2", 505),
        ("2.0", "GET /v1/files HTTP/2.0", 505),
        ("3.0", "GET /v1/files HTTP/3.0", 505),
        ("2", "GET /v1/files HTTP/2", 505),
        ("1", "GET /v1/files HTTP/1", 400),
        ("1.", "GET /v1/files HTTP/1.", 400),
        ("1.10", "GET /v1/files HTTP/1.10", 400),
        ("1.01", "GET /v1/files HTTP/1.01", 400),
        ("01.1", "GET /v1/files HTTP/01.1", 505),
        ("11", "GET /v1/files HTTP/11", 400),
        ("lower case", "GET /v1/files http/1.1", 400),
        ("mixed case", "GET /v1/files Http/1.1", 400),
        ("another protocol", "GET /v1/files RTSP/1.0", 400),
        ("a longer name", "GET /v1/files XHTTP/1.1", 400),
        ("a minus", "GET /v1/files HTTP/-1.1", 400),
        ("trailing space", "GET /v1/files HTTP/1.1 ", 400),
        ("trailing tab", "GET /v1/files HTTP/1.1\t", 400),
        ("trailing word", "GET /v1/files HTTP/1.1 x", 400),
        ("two versions", "GET /v1/files HTTP/1.1 HTTP/1.1", 400),
        ("a space within", "GET /v1/files HTTP/ 1.1", 400),
        ("leading space", " GET /v1/files HTTP/1.1", 400),
        ("leading tab", "\tGET /v1/files HTTP/1.1", 400),
        ("two spaces first", "GET  /v1/files HTTP/1.1", 400),
        ("two spaces second", "GET /v1/files  HTTP/1.1", 400),
        ("tab first", "GET\t/v1/files HTTP/1.1", 400),
        ("tab second", "GET /v1/files\tHTTP/1.1", 400),
        ("form feed", "GET\x0c/v1/files HTTP/1.1", 400),
        ("no target", "GET HTTP/1.1", 400),
        ("no method", "/v1/files HTTP/1.1", 400),
        ("nothing but a version", "HTTP/1.1", 400),
        ("an answer", "HTTP/1.1 200 OK", 400),
        ("space in the target", "GET /v1/files x HTTP/1.1", 400),
        ("the preface of HTTP/2", "PRI * HTTP/2.0", 505),
        ("a method with a colon", "GET: /v1/files HTTP/1.1", 400),
        ("a method in quotes", "\"GET\" /v1/files HTTP/1.1", 400),
        ("a method of 33", "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG /v1/files HTTP/1.1", 501),
    ] {
        table.add("start line", name, format!("{line}\r\nHost: h\r\n\r\n"), refused(status));
    }
    for method in ["get", "GETT", "X", "PATCH", "PROPFIND", "M-SEARCH", "BREW"] {
        let outcomes = vec![Forwarded(method, PATH.into(), Vec::new())];
        table.add("method", method, format!("{method} {PATH} HTTP/1.1\r\nHost: h\r\n\r\n"), outcomes);
    }
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    table.add("start line", "a TLS hello", tls, refused(400));
    let http10 = |fields: &str| format!("GET {PATH} HTTP/1.0\r\nHost: h\r\n{fields}\r\n");
    table.add("start line", "1.0", http10(""), vec![ForwardedLast("GET", PATH.into(), vec![])]);
    table.add("start line", "1.0 kept alive", http10("Connection: keep-alive\r\n"), got(PATH));
}

fn options(table: &mut Table) {
    for (name, fields, outcomes) in [
        ("continue", "Expect: 100-continue\r\n", posted("hello")),
        ("continue in upper case", "Expect: 100-CONTINUE\r\n", posted("hello")),
        ("twice", "Expect: 100-continue\r\nExpect: 100-continue\r\n", posted("hello")),
        ("another", "Expect: 200-ok\r\n", refused(417)),
        ("empty", "Expect:\r\n", refused(417)),
        ("a list", "Expect: 100-continue, x\r\n", refused(417)),
        ("with a parameter", "Expect: 100-continue;x\r\n", refused(417)),
        ("with a space", "Expect: 100 continue\r\n", refused(417)),
        ("one known, one not", "Expect: 100-continue\r\nExpect: x\r\n", refused(417)),
        ("with a byte before", "Expect: y 100-continue\r\n", refused(417)),
    ] {
        table.post("expect", name, format!("Content-Length: 5\r\n{fields}").as_bytes(), b"hello", outcomes);
    }
    let last = || vec![ForwardedLast("POST", PATH.into(), b"hello".to_vec())];
    for (name, fields, outcomes) in [
        ("close", "Connection: close\r\n", last()),
        ("close in a list", "Connection: x, close\r\n", last()),
        ("close twice", "Connection: keep-alive\r\nConnection: close\r\n", last()),
        ("close in upper case", "Connection: CLOSE\r\n", last()),
        ("close in quotes", "Connection: \"close\"\r\n", posted("hello")),
        ("names Host", "Connection: host\r\n", posted("hello")),
        ("names Content-Type", "Connection: content-type\r\n", posted("hello")),
        ("names Authorization", "Connection: authorization\r\n", posted("hello")),
        ("names itself", "Connection: connection\r\n", posted("hello")),
        ("empty", "Connection:\r\n", posted("hello")),
        ("commas", "Connection: ,,\r\n", posted("hello")),
        ("Proxy-Connection", "Proxy-Connection: close\r\n", posted("hello")),
        ("Keep-Alive", "Keep-Alive: timeout=0, max=0\r\n", posted("hello")),
        ("upgrade to a web socket", "Connection: upgrade\r\nUpgrade: websocket\r\n", posted("hello")),
        (
            "upgrade to h2c",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            posted("hello"),
        ),
        ("upgrade without Connection", "Upgrade: h2c\r\n", posted("hello")),
        ("TE", "TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n", posted("hello")),
        ("a method override", "X-HTTP-Method-Override: DELETE\r\n", posted("hello")),
        ("a rewritten URL", "X-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\n", posted("hello")),
        ("two types", "Content-Type: text/plain\r\n", vec![Own(400)]),
    ] {
        table.post("connection", name, format!("Content-Length: 5\r\n{fields}").as_bytes(), b"hello", outcomes);
    }
}

fn sizes(table: &mut Table) {
    let lines = |count: usize| "X: y\r\n".repeat(count);
    table.get("size", "99 fields", lines(98).as_bytes(), got(PATH));
    table.get("size", "101 fields", lines(100).as_bytes(), refused(431));
    let value = |len: usize| format!("X: {}\r\n", "y".repeat(len));
    table.get("size", "a long field", value(6 << 10).as_bytes(), got(PATH));
    table.get("size", "a field beyond the head", value(70 << 10).as_bytes(), refused(431));
    let target = |len: usize| format!("GET /v1/{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(len - 4));
    table.add("size", "a long target", target(4 << 10), got(&format!("/v1/{}", "x".repeat((4 << 10) - 4))));
    table.add("size", "a target too long", target((8 << 10) + 1), refused(414));
    let many: String = (0..2000).map(|_| "1\r\nx\r\n").collect();
    let body = format!("{many}0\r\n\r\n");
    table.post("size", "many chunks", CHUNKED.as_bytes(), body.as_bytes(), posted("x".repeat(2000)));
    let extensions = format!("1;{}\r\nx\r\n0\r\n\r\n", "y".repeat(5000));
    table.post("size", "extensions too long", CHUNKED.as_bytes(), extensions.as_bytes(), refused(400));
    let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(1500));
    table.post("size", "trailers too long", CHUNKED.as_bytes(), trailers.as_bytes(), refused(400));
}

fn several(table: &mut Table) {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let post =
        |body: &str| format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{OPAQUE}Content-Length: {}\r\n\r\n{body}", body.len());
    let seen = |path: &str| Forwarded("GET", path.into(), Vec::new());
    let rows = [
        ("two", get("/v1/a") + &get("/v1/b"), vec![seen("/v1/a"), seen("/v1/b")]),
        (
            "ten",
            (0..10).map(|n| get(&format!("/v1/{n}"))).collect(),
            (0..10).map(|n| seen(&format!("/v1/{n}"))).collect(),
        ),
        ("a body between", post("hello") + &get("/v1/b"), [posted("hello"), vec![seen("/v1/b")]].concat()),
        (
            "an empty line between",
            post("hello") + "\r\n" + &get("/v1/b"),
            [posted("hello"), vec![seen("/v1/b")]].concat(),
        ),
        ("a bad one behind", get("/v1/a") + "GET /v1/b HTTP/1.1\r\n\r\n", vec![seen("/v1/a"), Refused(400)]),
        ("garbage behind", get("/v1/a") + "\0\0\0\0", vec![seen("/v1/a"), Refused(400)]),
        ("an answer behind", get("/v1/a") + "HTTP/1.1 200 OK\r\n\r\n", vec![seen("/v1/a"), Refused(400)]),
        ("a chunk behind", post("hello") + "0\r\n\r\n", [posted("hello"), refused(400)].concat()),
        ("half a one behind", get("/v1/a") + "GET /v1/b", vec![seen("/v1/a"), Refused(400)]),
        (
            "one behind a close",
            format!("GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n{SMUGGLED}"),
            vec![ForwardedLast("GET", PATH.into(), Vec::new())],
        ),
        ("one behind a refusal", format!("GET {PATH} HTTP/1.1\r\n\r\n{SMUGGLED}"), refused(400)),
        (
            "one behind both framings",
            format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{OPAQUE}Content-Length: 4\r\n{CHUNKED}\r\n0\r\n\r\n{SMUGGLED}"),
            refused(400),
        ),
        (
            "one within a length that chunks would end",
            format!("POST {PATH} HTTP/1.1\r\nHost: h\r\n{OPAQUE}Content-Length: 43\r\n\r\n0\r\n\r\n{SMUGGLED}"),
            posted(format!("0\r\n\r\n{SMUGGLED}")),
        ),
        (
            "one behind a GET with a length in another line's value",
            format!("GET {PATH} HTTP/1.1\r\nHost: h\r\nX: Content-Length: 38\r\n\r\n{}", get("/v1/b")),
            vec![seen(PATH), seen("/v1/b")],
        ),
    ];
    for (name, bytes, outcomes) in rows {
        table.add("several", name, bytes, outcomes);
    }
}
