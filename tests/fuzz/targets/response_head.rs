//! Response heads: what is accepted has one meaning, and no answer's end is in doubt on a connection that is used again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::Dice;
use ringway_fuzz::head::{self, Verdict};
use ringway_fuzz::wire::http1::{
    Framing, HeadLimits, HeadSpace, MAX_HEADERS, ResponseHead, Version, end_head, parse_response, write_content_length,
    write_status_line,
};

fuzz_target!(|data: &[u8]| {
    let limits = head::limits(data);
    let to_head = Dice::of(data).roll(4) == 0;
    let whole = verdict(data, &limits, to_head);
    head::assert_steady(data, &whole, |data| verdict(data, &limits, to_head));
    match &whole {
        Ok(None) => assert!(data.len() < limits.head_bytes_max, "{} bytes are held", data.len()),
        Ok(Some(_)) => {}
        Err(malformed) => assert_eq!(malformed.status, 502),
    }
    let mut space = HeadSpace::new();
    if let Ok(Some(head)) = parse_response(data, &limits, to_head, &mut space) {
        assert_sound(data, &limits, to_head, &head);
        assert_goes_on(&head);
    }
});

fn verdict(data: &[u8], limits: &HeadLimits, to_head: bool) -> Verdict {
    let mut space = HeadSpace::new();
    let head = parse_response(data, limits, to_head, &mut space)?;
    Ok(head.map(|head| (describe(&head), head.len)))
}

fn describe(head: &ResponseHead<'_, '_>) -> String {
    let ResponseHead { status, reason, version, fields, len, framing, keep_alive, is_interim } = head;
    let fields = fields.len();
    format!("{status} {reason:?} {version:?} {fields} {len} {framing:?} {keep_alive} {is_interim}")
}

fn assert_sound(data: &[u8], limits: &HeadLimits, to_head: bool, head: &ResponseHead<'_, '_>) {
    assert!(head.len <= limits.head_bytes_max);
    assert!(head.fields.len() <= limits.headers_max.min(MAX_HEADERS));
    let (line, fields) = head::split(&data[..head.len]);
    head::assert_same(&head.fields, &fields);

    let is_http10 = match &line[..9] {
        b"HTTP/1.0 " => true,
        b"HTTP/1.1 " => false,
        _ => panic!("{line:?}"),
    };
    assert_eq!(head.version == Version::Http10, is_http10);
    let status: u16 = std::str::from_utf8(&line[9..12]).expect("digits").parse().expect("a status");
    assert_eq!(status, head.status);
    assert!((100..=599).contains(&status) && matches!(line.get(12), None | Some(b' ')));

    let named = head::framing(&fields, head.version);
    let has_no_body = to_head || matches!(status, 100..=199 | 204 | 304);
    match head.framing {
        Framing::None => assert!(has_no_body),
        Framing::UntilClose => assert!(named.is_none() && !has_no_body && !head.keep_alive),
        framing => assert!(named == Some(framing) && !has_no_body),
    }
    assert_eq!(head.is_interim, (100..200).contains(&status) && status != 101);
    if head.keep_alive {
        assert!(!head::connection_says(&fields, "close") && status != 101);
        assert!(!is_http10 || head::connection_says(&fields, "keep-alive"));
        // A body that cannot be but is announced might come all the same.
        assert!(!matches!(status, 100..=199 | 204) || matches!(named, None | Some(Framing::Length(0))));
    }
}

/// What a client is sent is read there as it was here.
fn assert_goes_on(head: &ResponseHead<'_, '_>) {
    let mut out = Vec::new();
    write_status_line(&mut out, head.status);
    let has_body = matches!(head.framing, Framing::Length(_));
    if let Framing::Length(length) = head.framing {
        write_content_length(&mut out, length);
    }
    let fields = head::assert_passed_on(&head.fields, |field| {
        field.known.as_str() != "content-length"
            && !field.known.is_hop_by_hop()
            && !head.fields.connection_names(field.name.as_bytes())
    });
    out.extend_from_slice(&fields);
    end_head(&mut out);
    let limits = HeadLimits { head_bytes_max: usize::MAX, headers_max: MAX_HEADERS, target_bytes_max: 0 };
    let mut space = HeadSpace::new();
    match parse_response(&out, &limits, false, &mut space) {
        Ok(Some(again)) => {
            assert_eq!((again.status, again.len), (head.status, out.len()));
            assert!(!has_body || again.framing == head.framing);
        }
        // Our own line may be the one too many.
        Err(_) if head.fields.len() == MAX_HEADERS => {}
        other => panic!("{:?} cannot be read: {other:?}", String::from_utf8_lossy(&out)),
    }
}
