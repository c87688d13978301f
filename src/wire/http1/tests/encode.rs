use super::*;

#[test]
fn a_request_line_joins_base_and_rest() {
    for (base, rest, query, expected) in [
        ("", "/v1/x", None, "POST /v1/x HTTP/1.1\r\n"),
        ("/api/v3", "/x", Some("a=b"), "POST /api/v3/x?a=b HTTP/1.1\r\n"),
        ("/api", "", Some(""), "POST /api? HTTP/1.1\r\n"),
    ] {
        let mut out = Vec::new();
        write_request_line(&mut out, "POST", base, rest, query).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn nothing_that_ends_its_own_line_is_written() {
    let mut out = b"before".to_vec();
    for bad in ["a b", "a\r", "a\nb", "\0", "a\x7f", "ä"] {
        assert!(write_request_line(&mut out, bad, "", "/", None).is_err(), "method {bad:?}");
        assert!(write_request_line(&mut out, "GET", bad, "/", None).is_err(), "base {bad:?}");
        assert!(write_request_line(&mut out, "GET", "", bad, None).is_err(), "rest {bad:?}");
        assert!(write_request_line(&mut out, "GET", "", "/", Some(bad)).is_err(), "query {bad:?}");
        assert!(write_header(&mut out, bad, b"v").is_err(), "name {bad:?}");
    }
    assert!(write_request_line(&mut out, "", "", "/", None).is_err());
    assert!(write_request_line(&mut out, "GET", "", "", None).is_err());
    for bad in ["", "a:", "(a)"] {
        assert!(write_header(&mut out, bad, b"v").is_err(), "name {bad:?}");
    }
    for bad in [&b"a\rb"[..], b"a\nb", b"\r\n", b"\0", b"\x1b", b"\x7f"] {
        assert!(write_header(&mut out, "name", bad).is_err(), "value {bad:?}");
    }
    assert_eq!(out, b"before");
    write_header(&mut out, "Name", "tab\t, space and \u{e4}".as_bytes()).unwrap();
    write_header(&mut out, "empty", b"").unwrap();
    assert_eq!(out, "beforeName: tab\t, space and \u{e4}\r\nempty: \r\n".as_bytes());
}

#[test]
fn every_status_line_reads_back_with_its_reason() {
    for status in 100..=599 {
        let mut out = Vec::new();
        write_status_line(&mut out, status);
        end_head(&mut out);
        let mut space = HeadSpace::new();
        let head = parse_response(&out, &limits(), true, &mut space).unwrap().unwrap();
        let registered = super::super::encode::REGISTERED.iter().find(|(code, _)| *code == status);
        assert_eq!((head.status, head.reason), (status, registered.map_or("", |(_, reason)| reason)));
    }
    for status in [0, 99, 1000] {
        let mut out = Vec::new();
        write_status_line(&mut out, status);
        assert_eq!(out, b"HTTP/1.1 500 Internal Server Error\r\n", "{status}");
    }
}

#[test]
fn numbers_are_written_exactly() {
    for (len, expected) in
        [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0xabc0, "abc0\r\n"), (usize::MAX, "ffffffffffffffff\r\n")]
    {
        let mut out = Vec::new();
        begin_chunk(&mut out, len);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
    let mut out = Vec::new();
    write_content_length(&mut out, u64::MAX);
    assert_eq!(out, b"content-length: 18446744073709551615\r\n");
}

#[test]
fn a_fault_names_its_rule() {
    let fault = parse_request(b"GET / HTTP/1.1\r\n\r\n", &limits(), &mut HeadSpace::new()).map(|_| ()).unwrap_err();
    assert_eq!(fault.to_string(), "no Host in HTTP/1.1 (RFC 9112 §3.2)");
}
