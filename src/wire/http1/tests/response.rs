use super::*;

fn verdict(buf: &[u8], request_was_head: bool, limits: &HeadLimits) -> Result<Option<(String, usize)>, u16> {
    match parse_response(buf, limits, request_was_head, &mut HeadSpace::new()) {
        Ok(Some(head)) => {
            let mut line = format!("{} {} {}", head.status, head.reason, word(head.framing));
            for (holds, word) in [
                (head.version == Version::Http10, " +1.0"),
                (head.keep_alive, " +keep"),
                (head.is_interim, " +interim"),
            ] {
                if holds {
                    line += word;
                }
            }
            Ok(Some((line, head.len)))
        }
        Ok(None) => Ok(None),
        Err(malformed) => Err(malformed.status),
    }
}

#[test]
fn a_sound_response_is_read_the_same_however_it_arrives() {
    const GET: bool = false;
    const HEAD: bool = true;
    for (name, head, request_was_head, expected) in [
        ("6.3 length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", GET, "200 OK len:3 +keep"),
        ("6.3 length 0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", GET, "200 OK len:0 +keep"),
        ("6.3 chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", GET, "200 OK chunked +keep"),
        ("6.3 until close", "HTTP/1.1 200 OK\r\n\r\n", GET, "200 OK close"),
        ("6.3 until close in 1.0", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", GET, "200 OK close +1.0"),
        ("6.3 HEAD, length", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", HEAD, "200 OK none +keep"),
        ("6.3 HEAD, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD, "200 OK none +keep"),
        ("6.3 HEAD, neither", "HTTP/1.1 200 OK\r\n\r\n", HEAD, "200 OK none +keep"),
        ("6.3 204", "HTTP/1.1 204 No Content\r\n\r\n", GET, "204 No Content none +keep"),
        ("6.3 204, length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", GET, "204 No Content none +keep"),
        (
            "6.3 204 that announces a body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
            GET,
            "204 No Content none",
        ),
        (
            "6.3 304 with a length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
            GET,
            "304 Not Modified none +keep",
        ),
        ("9110-15.2 100", "HTTP/1.1 100 Continue\r\n\r\n", GET, "100 Continue none +keep +interim"),
        ("9110-15.2 103", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", GET, "103 Early Hints none +keep +interim"),
        (
            "9110-15.2 101",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            GET,
            "101 Switching Protocols none",
        ),
        ("4 no reason", "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", GET, "200  len:3 +keep"),
        ("4 no reason and no space", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", GET, "200  len:3 +keep"),
        (
            "4 reason of many words",
            "HTTP/1.1 404 it is\tnot here\r\nContent-Length: 3\r\n\r\n",
            GET,
            "404 it is\tnot here len:3 +keep",
        ),
        ("4 reason not ASCII", "HTTP/1.1 404 Überall\r\nContent-Length: 3\r\n\r\n", GET, "404  len:3 +keep"),
        (
            "4 unregistered status",
            "HTTP/1.1 529 Overloaded\r\nContent-Length: 3\r\n\r\n",
            GET,
            "529 Overloaded len:3 +keep",
        ),
        ("9.6 close", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close\r\n\r\n", GET, "200 OK len:3"),
        ("9.3 1.0", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", GET, "200 OK len:3 +1.0"),
        (
            "9.3 1.0 with keep-alive",
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n",
            GET,
            "200 OK len:3 +1.0 +keep",
        ),
    ] {
        let head = head.as_bytes();
        let expected = Ok(Some((expected.to_string(), head.len())));
        for end in 0..head.len() {
            assert_eq!(verdict(&head[..end], request_was_head, &limits()), Ok(None), "{name}: first {end} bytes");
        }
        for rest in ["", "\n", "abc", "HTTP/1.1 500 Other\r\n\r\n"] {
            let buf = [head, rest.as_bytes()].concat();
            assert_eq!(verdict(&buf, request_was_head, &limits()), expected, "{name}: before {rest:?}");
        }
    }
}

#[test]
fn an_ambiguous_or_broken_response_is_a_bad_gateway() {
    let cases: &[(&str, &[u8])] = &[
        ("2.2 bare LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\n"),
        ("2.2 bare LF after a bare status", b"HTTP/1.1 200\nContent-Length: 3\r\n\r\n"),
        ("2.2 bare LF after a field", b"HTTP/1.1 200 OK\r\nContent-Length: 3\nX: y\r\n\r\n"),
        ("2.2 bare LF throughout", b"HTTP/1.1 200 OK\n\n"),
        ("2.2 bare LF before the empty line", b"HTTP/1.1 200 OK\n\r\n"),
        ("2.2 bare CR in a value", b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 3\r\n\r\n"),
        ("2.3 HTTP/2", b"HTTP/2 200 OK\r\n\r\n"),
        ("2.3 HTTP/1.2", b"HTTP/1.2 200 OK\r\n\r\n"),
        ("2.3 another protocol", b"ICY 200 OK\r\n\r\n"),
        ("4 empty line before", b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("4 status of two digits", b"HTTP/1.1 20 OK\r\n\r\n"),
        ("4 status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n"),
        ("4 status not a number", b"HTTP/1.1 2x0 OK\r\n\r\n"),
        ("9110-15 status 099", b"HTTP/1.1 099 Low\r\n\r\n"),
        ("9110-15 status 600", b"HTTP/1.1 600 High\r\n\r\n"),
        ("4 control byte in the reason", b"HTTP/1.1 200 O\x01K\r\n\r\n"),
        ("4 two spaces", b"HTTP/1.1  200 OK\r\n\r\n"),
        ("5.1 space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n"),
        ("5.2 folded line", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"),
        ("6.1 both", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("6.1 gzip, chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        ("6.1 identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n"),
        ("6.1 coding in 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("6.3 two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n"),
        ("6.3 two equal lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
        ("9110-8.6 negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        ("9110-8.6 bad length on 204", b"HTTP/1.1 204 OK\r\nContent-Length: x\r\n\r\n"),
    ];
    for (name, head) in cases {
        for request_was_head in [false, true] {
            assert_eq!(verdict(head, request_was_head, &limits()), Err(502), "{name}");
        }
    }
}

#[test]
fn limits_on_a_response_hold_at_the_bound_and_refuse_one_past_it() {
    let tight = HeadLimits { head_bytes_max: 60, headers_max: 2, target_bytes_max: 0 };
    let head = |fields: usize, pad: usize| {
        format!("HTTP/1.1 200 OK\r\n{}x:{}\r\n\r\n", "a:\r\n".repeat(fields - 1), "v".repeat(pad))
    };
    let pad = 60 - head(2, 0).len();
    for (name, head, is_refused) in [
        ("fields at the bound", head(2, 0), false),
        ("fields one past it", head(3, 0), true),
        ("bytes at the bound", head(2, pad), false),
        ("bytes one past it", head(2, pad + 1), true),
    ] {
        assert_eq!(verdict(head.as_bytes(), false, &tight).is_err(), is_refused, "{name}");
    }
    let endless = [b'v'; 60];
    let buf = [&b"HTTP/1.1 200 OK\r\nx:"[..], &endless].concat();
    assert_eq!(verdict(&buf[..59], false, &tight), Ok(None));
    assert_eq!(verdict(&buf[..60], false, &tight), Err(502));
}
