//! Heads of HTTP/2 requests: what is written as an HTTP/1.1 head and read again is the request that came, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::head;
use ringway_fuzz::wire::http1::{Form, Framing, HeadLimits, HeadSpace, MAX_HEADERS, RequestHead, parse_request};
use ringway_fuzz::wire::http2::{Pseudo, write_request};

/// Between two lines, and between a name and its value: control bytes like others, but of no use in a finding.
const LINE: u8 = 0x1e;
const VALUE: u8 = 0x1f;

type Line<'a> = (&'a str, &'a [u8]);

fuzz_target!(|data: &[u8]| {
    let Some((flag, lines)) = data.split_first() else { return };
    let ends = flag & 1 == 0;
    let mut pseudo = Pseudo { method: "", scheme: None, authority: None, path: None, protocol: None };
    let mut fields = Vec::new();
    for line in lines.split(|byte| *byte == LINE) {
        let at = line.iter().position(|byte| *byte == VALUE).unwrap_or(line.len());
        let (name, value) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        // What is no text is no name, and no value of a pseudo-header field.
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let text = std::str::from_utf8(value).ok();
        match name {
            ":method" => pseudo.method = text.unwrap_or_default(),
            ":scheme" => pseudo.scheme = text,
            ":authority" => pseudo.authority = text,
            ":path" => pseudo.path = text,
            ":protocol" => pseudo.protocol = text,
            _ => fields.push((name, value)),
        }
    }
    check(&pseudo, &fields, ends);
});

fn check(pseudo: &Pseudo<'_>, fields: &[Line<'_>], ends: bool) {
    let must = is_plain(pseudo, fields);
    let mut out = Vec::new();
    if let Err(malformed) = write_request(&mut out, pseudo, fields.iter().copied(), ends) {
        assert!(matches!(malformed.status, 400 | 501) && !must, "{malformed:?}: {pseudo:?} {fields:?}");
        return;
    }
    let limits = HeadLimits::default();
    let mut space = HeadSpace::new();
    match parse_request(&out, &limits, &mut space) {
        Ok(Some(head)) => assert_same(&head, &out, pseudo, fields, ends),
        Ok(None) => panic!("a head without an end: {:?}", String::from_utf8_lossy(&out)),
        Err(malformed) => {
            assert!(matches!(malformed.status, 400 | 414 | 417 | 431 | 501), "{malformed:?}");
            let is_large = out.len() > limits.head_bytes_max || fields.len() + 2 > limits.headers_max;
            assert!(!must || is_large || malformed.status == 414, "{malformed:?}: {pseudo:?} {fields:?}");
        }
    }
}

/// True for a request that nobody could have anything against.
fn is_plain(pseudo: &Pseudo<'_>, fields: &[Line<'_>]) -> bool {
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_path =
        |path: &str| path.starts_with('/') && path.bytes().all(|byte| byte == b'/' || byte.is_ascii_lowercase());
    matches!(pseudo.method, "GET" | "POST")
        && pseudo.protocol.is_none()
        && matches!(pseudo.scheme, Some("http" | "https"))
        && pseudo.authority.is_some_and(is_word)
        && pseudo.path.is_some_and(is_path)
        && fields.iter().all(|(name, value)| {
            name.strip_prefix("x-").is_some_and(is_word) && std::str::from_utf8(value).is_ok_and(is_word)
        })
}

fn assert_same(head: &RequestHead<'_, '_>, out: &[u8], pseudo: &Pseudo<'_>, fields: &[Line<'_>], ends: bool) {
    assert_eq!(head.len, out.len(), "something stands behind the head");
    let (line, read) = head::split(out);
    head::assert_same(&head.fields, &read);

    // The request line says what the pseudo-header fields say.
    let target = pseudo.path.or(pseudo.authority).expect("one of them");
    let opens = pseudo.protocol.is_some();
    assert!(!opens || (pseudo.method, pseudo.protocol, ends) == ("CONNECT", Some("websocket"), false));
    let method = if opens { "GET" } else { pseudo.method };
    assert_eq!(line, format!("{method} {target} HTTP/1.1").as_bytes());
    assert_eq!(head.method, method);
    let query = head.target.query.map(|query| format!("?{query}")).unwrap_or_default();
    match head.target.form {
        Form::Origin => assert_eq!(format!("{}{query}", head.target.path), target),
        Form::Asterisk => assert_eq!((head.method, target), ("OPTIONS", "*")),
        Form::Authority => assert_eq!((head.method, head.target.authority), ("CONNECT", pseudo.authority)),
        Form::Absolute => panic!("a URI where a path was: {target}"),
    }
    assert!(pseudo.scheme.is_none_or(|scheme| scheme == "http" || scheme == "https"));

    // The host is the authority, and whoever names one names that.
    let hosts: Vec<&[u8]> = fields.iter().filter(|(name, _)| *name == "host").map(|(_, value)| *value).collect();
    let host = pseudo.authority.map(str::as_bytes).or(hosts.first().copied()).expect("a host");
    assert!(!host.is_empty() && !host.contains(&b'@'));
    assert_eq!(head.host.map(str::as_bytes), Some(host));
    assert!(hosts.iter().all(|other| other.eq_ignore_ascii_case(host)));

    // Every line that came, in order, and no other.
    let mut expected = vec![("host", host)];
    for (name, value) in fields {
        assert!(!name.contains(|letter: char| letter.is_ascii_uppercase() || letter == ':'), "{name}");
        assert!(*value == value.trim_ascii(), "{name}: {value:?}");
        match *name {
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
                panic!("a field of one connection: {name}")
            }
            "te" => assert!(value.eq_ignore_ascii_case(b"trailers")),
            "host" => {}
            "content-length" if opens => panic!("a tunnel with a length"),
            "sec-websocket-key" if opens => {}
            _ => expected.push((name, value)),
        }
    }
    if pseudo.authority.is_none() {
        // Where it came.
        let is_left_out = |name: &str| name == "te" || opens && name == "sec-websocket-key";
        let at = fields.iter().take_while(|(name, _)| *name != "host").filter(|(name, _)| !is_left_out(name)).count();
        expected[..=at].rotate_left(1);
    }
    let lengths = head::values(&read, "content-length");
    if opens {
        let key = b"AAAAAAAAAAAAAAAAAAAAAA==".as_slice();
        expected.extend([("connection", b"upgrade".as_slice()), ("upgrade", b"websocket"), ("sec-websocket-key", key)]);
    } else if !ends && lengths.is_empty() {
        expected.push(("transfer-encoding", b"chunked"));
    }
    let expected: Vec<(&[u8], &[u8])> = expected.into_iter().map(|(name, value)| (name.as_bytes(), value)).collect();
    assert_eq!(read, expected);
    assert!(read.len() <= MAX_HEADERS);

    let framing = head::framing(&read, head.version).unwrap_or(Framing::None);
    assert_eq!(framing, head.framing);
    assert_eq!(framing == Framing::None, (ends || opens) && lengths.is_empty());
    assert!(head.keep_alive);
}
