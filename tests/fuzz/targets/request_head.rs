//! Request heads: what is accepted has one meaning, whoever reads it and however it came, and what goes on keeps it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::head::{self, Verdict};
use ringway_fuzz::wire::http1::{
    Form, Framing, HeadLimits, HeadScan, HeadSpace, Known, MAX_HEADERS, METHOD_BYTES_MAX, RequestHead, Version,
    end_head, parse_request, write_content_length, write_request_line,
};
use ringway_fuzz::{cuts, wire};

fuzz_target!(|data: &[u8]| {
    let limits = head::limits(data);
    let whole = verdict(data, &limits);
    head::assert_steady(data, &whole, |data| verdict(data, &limits));
    match &whole {
        Ok(None) => assert!(data.len() < limits.head_bytes_max + 4, "{} bytes are held", data.len()),
        Ok(Some((_, len))) => assert_scan_is_due(data, *len),
        Err(malformed) => assert!(matches!(malformed.status, 400 | 414 | 417 | 431 | 501 | 505), "{malformed:?}"),
    }
    let mut space = HeadSpace::new();
    if let Ok(Some(head)) = parse_request(data, &limits, &mut space) {
        assert_sound(data, &limits, &head);
        assert_goes_on(&head);
    }
});

fn verdict(data: &[u8], limits: &HeadLimits) -> Verdict {
    let mut space = HeadSpace::new();
    let head = parse_request(data, limits, &mut space)?;
    Ok(head.map(|head| (describe(&head), head.len)))
}

fn describe(head: &RequestHead<'_, '_>) -> String {
    let RequestHead { method, target, version, fields, host, len, framing, keep_alive, expect_continue } = head;
    let fields = fields.len();
    format!("{method} {target:?} {version:?} {fields} {host:?} {len} {framing:?} {keep_alive} {expect_continue}")
}

/// A head that comes in pieces is parsed when its last byte has come.
fn assert_scan_is_due(data: &[u8], len: usize) {
    for pieces in cuts(data) {
        let (mut scan, mut held) = (HeadScan::default(), 0);
        for piece in pieces {
            let before = held;
            held += piece.len();
            let is_due = scan.is_due(&data[..held]);
            assert!(is_due || !(before < len && len <= held), "not parsed at its end");
        }
    }
}

fn assert_sound(data: &[u8], limits: &HeadLimits, head: &RequestHead<'_, '_>) {
    let mut bytes = &data[..head.len];
    for _ in 0..2 {
        bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    }
    assert!(bytes.len() <= limits.head_bytes_max);
    assert!(head.fields.len() <= limits.headers_max.min(MAX_HEADERS));
    let (line, fields) = head::split(bytes);
    head::assert_same(&head.fields, &fields);

    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("{line:?}") };
    assert_eq!(method, head.method.as_bytes());
    assert!((1..=METHOD_BYTES_MAX).contains(&method.len()) && method.iter().copied().all(head::is_token));
    assert!(target.len() <= limits.target_bytes_max && target.iter().all(u8::is_ascii_graphic));
    let is_http10 = match version {
        b"HTTP/1.0" => true,
        b"HTTP/1.1" => false,
        _ => panic!("{version:?}"),
    };
    assert_eq!(head.version == Version::Http10, is_http10);
    assert_eq!(head::framing(&fields, head.version).unwrap_or(Framing::None), head.framing);

    let hosts = head::values(&fields, "host");
    assert!(hosts.len() <= 1 && (is_http10 || hosts.len() == 1));
    let path = head.target.path;
    match head.target.form {
        Form::Origin => {
            let query = head.target.query.map(|query| format!("?{query}")).unwrap_or_default();
            assert_eq!(target, format!("{path}{query}").as_bytes());
            assert_eq!(head.host.map(str::as_bytes), hosts.first().copied());
        }
        Form::Absolute => assert!(head.host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '/', ',']))),
        Form::Authority => assert_eq!((head.method, head.target.authority), ("CONNECT", Some(head.host.unwrap()))),
        Form::Asterisk => assert_eq!((head.method, target), ("OPTIONS", &b"*"[..])),
    }
    assert!(path.is_empty() || path == "*" || path.starts_with('/'));
    assert_no_dots(path);

    let closes = head::connection_says(&fields, "close");
    let keeps = !closes && (!is_http10 || head::connection_says(&fields, "keep-alive"));
    assert_eq!(head.keep_alive, keeps);
    let expects = head::values(&fields, "expect");
    if head.expect_continue {
        assert!(!is_http10 && !expects.is_empty());
        assert!(expects.iter().all(|value| value.eq_ignore_ascii_case(b"100-continue")));
    }
    for field in head.fields.iter() {
        let known = Known::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(field.name));
        assert_eq!(field.known, known.map_or(Known::Other, |(known, _)| *known));
        let nominated = head::connection_says(&fields, field.name);
        assert!(!nominated || field.known.is_hop_by_hop() || head.fields.connection_names(field.name.as_bytes()));
    }
}

/// However often its escapes are undone, the path does not climb.
fn assert_no_dots(path: &str) {
    let mut plain = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digits = [bytes.next().expect("a digit"), bytes.next().expect("a digit")];
                u8::from_str_radix(std::str::from_utf8(&digits).expect("ASCII"), 16).expect("hexadecimal")
            }
            byte => byte,
        });
    }
    let mut segments = plain.split(|byte| matches!(byte, b'/' | b'\\'));
    assert!(!segments.any(|segment| matches!(segment, b"." | b"..")), "{path}");
    assert!(!plain.contains(&0), "{path}");
}

/// What an endpoint is sent is read there as it was here.
fn assert_goes_on(head: &RequestHead<'_, '_>) {
    if !matches!(head.target.form, Form::Origin | Form::Absolute) || head.target.path == "*" {
        return;
    }
    let mut out = Vec::new();
    let (method, path, query) = (head.method, head.target.path, head.target.query);
    if method == "CONNECT" {
        return;
    }
    write_request_line(&mut out, method, "", path, query).expect("what was read can be written");
    out.extend_from_slice(b"host: h\r\n");
    match head.framing {
        Framing::Length(length) => write_content_length(&mut out, length),
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
    let ours = out.iter().filter(|byte| **byte == b'\n').count() - 1;
    let own = [Known::Host, Known::ContentLength, Known::Expect];
    let fields = head::assert_passed_on(&head.fields, |field| {
        !own.contains(&field.known)
            && !field.known.is_hop_by_hop()
            && !head.fields.connection_names(field.name.as_bytes())
    });
    out.extend_from_slice(&fields);
    end_head(&mut out);
    let limits = HeadLimits { head_bytes_max: usize::MAX, headers_max: MAX_HEADERS, target_bytes_max: usize::MAX };
    let mut space = wire::http1::HeadSpace::new();
    let again = match parse_request(&out, &limits, &mut space) {
        Ok(Some(again)) => again,
        // Our own lines may be the ones too many.
        Err(malformed) if malformed.status == 431 && head.fields.len() + ours > MAX_HEADERS => return,
        other => panic!("{:?} cannot be read: {other:?}", String::from_utf8_lossy(&out)),
    };
    assert_eq!((again.method, again.target.path, again.target.query), (method, path, query));
    assert_eq!((again.framing, again.len, again.keep_alive), (head.framing, out.len(), true));
}
