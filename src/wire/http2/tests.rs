use super::*;
use crate::base::clock::Instant;
use crate::wire::http1::{Framing, HeadLimits, HeadSpace, parse_request};

const PLAIN: Pseudo<'static> = Pseudo {
    method: "POST",
    scheme: Some("https"),
    authority: Some("api.test"),
    path: Some("/v1/x?y=1"),
    protocol: None,
};

fn written(pseudo: &Pseudo<'_>, fields: &[(&str, &[u8])], ends: bool) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    write_request(&mut out, pseudo, fields.iter().copied(), ends).map_err(|malformed| malformed.reason)?;
    Ok(out)
}

fn as_text(head: Vec<u8>) -> String {
    String::from_utf8(head).unwrap()
}

/// Whether the writer and the reader both take it, and what the reader makes of it.
fn read(pseudo: &Pseudo<'_>, fields: &[(&str, &[u8])], ends: bool) -> Option<(String, Framing)> {
    let head = written(pseudo, fields, ends).ok()?;
    let mut space = HeadSpace::new();
    let read = parse_request(&head, &HeadLimits::default(), &mut space).ok()??;
    assert_eq!(read.len, head.len(), "{pseudo:?} {fields:?}: nothing stands behind it");
    Some((read.host.unwrap_or_default().to_owned(), read.framing))
}

#[test]
fn a_head_is_written_as_http_1_1_has_it() {
    let fields: [(&str, &[u8]); 3] = [("content-type", b"a/b"), ("te", b"trailers"), ("x-key", b"k")];
    assert_eq!(
        as_text(written(&PLAIN, &fields, true).unwrap()),
        "POST /v1/x?y=1 HTTP/1.1\r\nhost: api.test\r\ncontent-type: a/b\r\nx-key: k\r\n\r\n"
    );
    assert!(as_text(written(&PLAIN, &fields, false).unwrap()).ends_with("transfer-encoding: chunked\r\n\r\n"));
    assert_eq!(read(&PLAIN, &fields, true), Some(("api.test".into(), Framing::None)));
    assert_eq!(read(&PLAIN, &fields, false), Some(("api.test".into(), Framing::Chunked)));
    let with_length = [("content-length", &b"7"[..])];
    assert_eq!(read(&PLAIN, &with_length, false), Some(("api.test".into(), Framing::Length(7))));
    let by_host = Pseudo { authority: None, ..PLAIN };
    assert_eq!(read(&by_host, &[("host", b"other.test")], true), Some(("other.test".into(), Framing::None)));
    assert_eq!(read(&PLAIN, &[("host", b"API.test")], true), Some(("api.test".into(), Framing::None)));
    let options = Pseudo { method: "OPTIONS", path: Some("*"), ..PLAIN };
    assert!(read(&options, &[], true).is_some());
    let connect = Pseudo { method: "CONNECT", scheme: None, authority: Some("x:1"), path: None, protocol: None };
    assert_eq!(read(&connect, &[], true), Some(("x:1".into(), Framing::None)));
}

#[test]
fn a_connect_for_a_websocket_is_the_get_that_it_stands_for() {
    let opens = Pseudo { method: "CONNECT", protocol: Some("websocket"), ..PLAIN };
    let fields: [(&str, &[u8]); 3] =
        [("sec-websocket-version", b"13"), ("sec-websocket-key", b"x"), ("sec-websocket-protocol", b"realtime")];
    let head = written(&opens, &fields, false).unwrap();
    assert_eq!(
        as_text(head.clone()),
        "GET /v1/x?y=1 HTTP/1.1\r\nhost: api.test\r\nsec-websocket-version: 13\r\n\
         sec-websocket-protocol: realtime\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    let mut space = HeadSpace::new();
    let head = parse_request(&head, &HeadLimits::default(), &mut space).unwrap().unwrap();
    let handshake = crate::wire::websocket::Handshake::read(&head).unwrap().unwrap();
    assert_eq!((&*handshake.protocols, head.framing), ("realtime", Framing::None));

    let refused = |pseudo: &Pseudo<'_>, fields: &[(&str, &[u8])], ends| {
        write_request(&mut Vec::new(), pseudo, fields.iter().copied(), ends).map_err(|malformed| malformed.status)
    };
    for (name, pseudo, fields, ends, status) in [
        ("another protocol", Pseudo { protocol: Some("connect-udp"), ..opens }, &fields[..], false, 501),
        ("in capitals", Pseudo { protocol: Some("WebSocket"), ..opens }, &fields, false, 501),
        ("another method", Pseudo { method: "GET", ..opens }, &fields, false, 400),
        ("no path", Pseudo { path: None, ..opens }, &fields, false, 400),
        ("one that has ended", opens, &fields, true, 400),
        ("a length", opens, &[("content-length", b"0")], false, 400),
    ] {
        assert_eq!(refused(&pseudo, fields, ends), Err(status), "{name}");
    }
}

#[test]
fn no_byte_of_a_pseudo_field_can_make_another_line_or_request() {
    for byte in 0..=255_u8 {
        // What is no UTF-8 never gets this far.
        let Ok(text) = std::str::from_utf8(std::slice::from_ref(&byte)) else { continue };
        let (method, path, authority) = (format!("PO{text}ST"), format!("/v1/a{text}b"), format!("a{text}b"));
        for pseudo in [
            Pseudo { method: &method, ..PLAIN },
            Pseudo { path: Some(&path), ..PLAIN },
            Pseudo { authority: Some(&authority), ..PLAIN },
        ] {
            let what = format!("{byte:#04x} in {pseudo:?}");
            if read(&pseudo, &[("x", b"y")], true).is_none() {
                continue;
            }
            let head = as_text(written(&pseudo, &[("x", b"y")], true).unwrap());
            assert_eq!(head.matches("\r\n").count(), 4, "{what}");
            assert_eq!(head.matches(['\r', '\n', '\0']).count(), 8, "{what}");
            let line = head.split("\r\n").next().unwrap();
            assert_eq!(line.split(' ').count(), 3, "{what}");
            assert!(!(byte.is_ascii_control() || byte == b' '), "{what}");
        }
    }
}

#[test]
fn no_byte_of_a_field_can_make_another_line() {
    for byte in 0..=255_u8 {
        let value = [b"a", &[byte][..], b"b"].concat();
        let taken = read(&PLAIN, &[("x-a", &value), ("x-b", b"c")], true).is_some();
        let may = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        assert_eq!(taken, may, "value {byte:#04x}");
        let Ok(text) = std::str::from_utf8(std::slice::from_ref(&byte)) else { continue };
        let name = format!("x{text}a");
        let taken = read(&PLAIN, &[(&name, b"v")], true).is_some();
        assert_eq!(taken, is_token_byte(byte) && !byte.is_ascii_uppercase(), "name {byte:#04x}");
    }
}

#[test]
fn what_is_one_thing_here_and_another_in_http_1_1_is_refused() {
    let with = |fields: &[(&str, &[u8])]| read(&PLAIN, fields, false).is_some();
    for (name, value) in [
        ("connection", &b"close"[..]),
        ("connection", b"x-api-key"),
        ("keep-alive", b"1"),
        ("proxy-connection", b"close"),
        ("transfer-encoding", b"chunked"),
        ("transfer-encoding", b"identity"),
        ("upgrade", b"websocket"),
        ("te", b"gzip"),
        ("te", b"trailers, deflate"),
        ("Content-Type", b"a/b"),
        ("x", b" a"),
        ("x", b"a\t"),
        ("", b"a"),
        (":path", b"/b"),
        ("x:y", b"a"),
        ("x ", b"a"),
        ("host", b"other.test"),
        ("host", b""),
        ("host", b"api.test, other.test"),
        ("content-length", b"+1"),
        ("content-length", b"1,1"),
        ("content-length", b""),
        ("content-length", b"0x1"),
        ("content-length", b"99999999999999999999"),
        ("expect", b"200-ok"),
    ] {
        assert!(!with(&[(name, value)]), "{name}: {:?}", String::from_utf8_lossy(value));
    }
    assert!(!with(&[("content-length", b"1"), ("content-length", b"1")]));
    assert!(!with(&[("content-length", b"1"), ("content-length", b"2")]));
    let by_host = Pseudo { authority: None, ..PLAIN };
    assert!(read(&by_host, &[], true).is_none(), "no host at all");
    assert!(read(&by_host, &[("host", b"a.test"), ("host", b"b.test")], true).is_none());
    for pseudo in [
        Pseudo { path: None, ..PLAIN },
        Pseudo { path: Some(""), ..PLAIN },
        Pseudo { path: Some("v1/x"), ..PLAIN },
        Pseudo { path: Some("*"), ..PLAIN },
        Pseudo { path: Some("http://other.test/v1"), ..PLAIN },
        Pseudo { path: Some("/v1/../x"), ..PLAIN },
        Pseudo { path: Some("/v1#x"), ..PLAIN },
        Pseudo { scheme: Some("ftp"), ..PLAIN },
        Pseudo { scheme: Some("HTTPS"), ..PLAIN },
        Pseudo { method: "", ..PLAIN },
        Pseudo { authority: Some(""), ..PLAIN },
        Pseudo { authority: Some(" api.test"), ..PLAIN },
        Pseudo { authority: Some("api.test\t"), ..PLAIN },
        Pseudo { authority: Some("user@api.test"), ..PLAIN },
        Pseudo { authority: Some("api.test:99999"), ..PLAIN },
        Pseudo { method: "CONNECT", scheme: None, authority: None, path: None, protocol: None },
    ] {
        assert!(read(&pseudo, &[], true).is_none(), "{pseudo:?}");
    }
}

#[test]
fn lines_become_fields_but_for_those_of_a_connection() {
    let lines = b"content-type: a/b\r\nX-Id:  7 \r\nconnection: close\r\ntransfer-encoding: chunked\r\nempty:\r\n\r\n";
    let fields: Vec<_> = fields(lines).collect();
    assert_eq!(fields, [(&b"content-type"[..], &b"a/b"[..]), (b"X-Id", b"7"), (b"empty", b"")]);
}

#[test]
fn frames_that_carry_nothing_are_counted() {
    let frames = [
        ((4, 0, 18), 1),
        ((4, 1, 0), 0),
        ((1, 4, 300), 0),
        ((0, 0, 70_000), 0),
        ((0, 0, 0), 1),
        ((0, 1, 0), 0),
        ((8, 0, 4), 0),
        ((6, 0, 8), 1),
        ((6, 1, 8), 0),
        ((2, 0, 5), 1),
        ((3, 0, 4), 1),
        ((9, 0, 0), 1),
        ((9, 4, 9), 0),
        ((7, 0, 8), 0),
        ((0x77, 0, 3), 1),
    ];
    let sum: u32 = frames.iter().map(|(_, counts)| counts).sum();
    for (max, floods) in [(sum, false), (sum - 1, true)] {
        let mut census = Census::new(max);
        let outcome =
            frames.iter().try_for_each(|((kind, flags, len), _)| census.count(*kind, *flags, *len, &|| Instant(1)));
        assert_eq!(outcome.is_err(), floods, "{max}");
    }
}

#[test]
fn the_bucket_is_refilled_with_time_and_no_further() {
    let mut census = Census::new(10);
    let mut taken =
        |at_ms: u64| (0..99).take_while(|_| census.count(6, 0, 8, &|| Instant(at_ms * 1_000_000)).is_ok()).count();
    assert_eq!(taken(5), 10);
    assert_eq!(taken(5 + 999), 0);
    assert_eq!(taken(5 + 1_000), 1);
    assert_eq!(taken(5 + 3_000), 2);
    assert_eq!(taken(5 + 60_000), 10);
}
