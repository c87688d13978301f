use super::*;
use crate::wire::http1::{HeadLimits, HeadSpace, Malformed, parse_request, parse_response};

/// A frame with its payload masked by nothing, which is a mask as well.
fn frame(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let masked = if role == Role::Client { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => bytes.push(masked | len as u8),
        len @ 126..65536 => {
            bytes.push(masked | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(masked | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    if role == Role::Client {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    bytes
}

/// Follows `bytes` in pieces that end at `cuts`; how many pass, and what was broken.
fn followed(follower: &mut Follower, bytes: &[u8], cuts: &[usize]) -> (usize, Option<Broken>) {
    let mut at = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let passed = follower.follow(&bytes[at..end.max(at)]);
        at += passed.bytes;
        assert!(at <= end.max(at) && at <= bytes.len());
        if passed.broken.is_some() {
            return (at, passed.broken);
        }
    }
    (at, None)
}

const MAX: u64 = 70_000;

#[test]
fn frames_pass_however_they_are_cut() {
    for role in [Role::Client, Role::Server] {
        let whole = [
            frame(role, 0x81, b"hello"),
            frame(role, 0x82, &[7; 126]),
            frame(role, 0x01, b"one "),
            frame(role, 0x89, b"ping"),
            frame(role, 0x00, b""),
            frame(role, 0x8a, &[9; CONTROL_BYTES_MAX]),
            frame(role, 0x80, b"two"),
            frame(role, 0x81, b""),
            frame(role, 0x82, &[1; 300]),
            frame(role, 0x88, b"\x03\xe9bye"),
        ]
        .concat();
        let check = |cuts: &[usize]| {
            let mut follower = Follower::new(role, MAX);
            assert_eq!(followed(&mut follower, &whole, cuts), (whole.len(), None), "{role:?} {cuts:?}");
            assert_eq!(follower.messages(), 5, "{role:?} {cuts:?}");
            assert_eq!(follower.payload(), 5 + 126 + 4 + 3 + 300, "{role:?} {cuts:?}");
            assert_eq!(follower.closed(), Some(Some(1001)), "{role:?} {cuts:?}");
            assert!(follower.is_between_frames());
            // Nothing passes behind a Close.
            assert_eq!(follower.follow(&whole), Passed { bytes: 0, broken: None });
        };
        for at in 0..=whole.len() {
            check(&[at]);
            check(&[at / 2, at]);
        }
        check(&(0..whole.len()).collect::<Vec<_>>());
    }
}

#[test]
fn a_header_passes_whole_and_payload_as_it_comes() {
    for role in [Role::Client, Role::Server] {
        for len in [5, 126, 65_536] {
            let whole = frame(role, 0x82, &vec![1; len]);
            let header = whole.len() - len;
            let mut follower = Follower::new(role, MAX);
            for end in 0..header {
                assert_eq!(follower.follow(&whole[..end]), Passed { bytes: 0, broken: None }, "{role:?} {len} {end}");
                assert!(follower.is_between_frames());
            }
            assert_eq!(follower.follow(&whole[..header]).bytes, header);
            assert!(!follower.is_between_frames());
            assert_eq!(follower.follow(&whole[header..][..1]).bytes, 1);
            assert_eq!((follower.payload(), follower.messages()), (1, 0));
            assert_eq!(follower.follow(&whole[header + 1..]).bytes, len - 1);
            assert_eq!((follower.is_between_frames(), follower.messages()), (true, 1));
        }
    }
}

#[test]
fn what_breaks_a_rule_does_not_pass_and_what_came_before_does() {
    use Broken::*;
    let client = |bytes: &[u8]| (Role::Client, bytes.to_vec());
    let server = |bytes: &[u8]| (Role::Server, bytes.to_vec());
    let close = |role, payload: &[u8]| (role, frame(role, 0x88, payload));
    for (name, (role, bad), broken) in [
        ("a client's, not masked", client(b"\x81\x01a"), Mask),
        ("a server's, masked", server(b"\x81\x81\0\0\0\0a"), Mask),
        ("RSV1", server(b"\xc1\x00"), Reserved),
        ("RSV2", server(b"\xa1\x00"), Reserved),
        ("RSV3", server(b"\x91\x00"), Reserved),
        ("opcode 3", server(b"\x83\x00"), Opcode),
        ("opcode 7", server(b"\x87\x00"), Opcode),
        ("opcode 11", server(b"\x8b\x00"), Opcode),
        ("opcode 15", client(b"\x8f\x80\0\0\0\0"), Opcode),
        ("a ping in fragments", server(b"\x09\x00"), Control),
        ("a ping of 126", server(b"\x89\x7e\x00\x7e"), Control),
        ("a pong of 65536", client(b"\x8a\xff\0\0\0\0\0\x01\0\0"), Control),
        ("a Close in fragments", server(b"\x08\x00"), Control),
        ("a continuation of nothing", server(b"\x80\x00"), Fragment),
        ("and one that is not the last", server(b"\x00\x00"), Fragment),
        ("a length with its top bit", server(b"\x82\x7f\x80\0\0\0\0\0\0\0"), Length),
        ("a long length that is short", server(b"\x82\x7e\x00\x7d"), Length),
        ("and one that is middling", server(b"\x82\x7f\0\0\0\0\0\0\xff\xff"), Length),
        ("one byte too many", server(b"\x82\x7f\0\0\0\0\0\x01\x11\x71"), TooLarge),
        ("all the bytes there are", client(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0"), TooLarge),
        ("half a code", close(Role::Server, b"\x03"), Close),
        ("no code", close(Role::Client, b"\x00\x00"), Close),
        ("999", close(Role::Server, &999u16.to_be_bytes()), Close),
        ("1005", close(Role::Server, &1005u16.to_be_bytes()), Close),
        ("1006", close(Role::Client, &1006u16.to_be_bytes()), Close),
        ("1015", close(Role::Server, &1015u16.to_be_bytes()), Close),
        ("5000", close(Role::Server, &5000u16.to_be_bytes()), Close),
    ] {
        let before = [frame(role, 0x81, b"ok"), frame(role, 0x89, b"")].concat();
        let whole = [&before[..], &bad].concat();
        for at in 0..=whole.len() {
            let mut follower = Follower::new(role, MAX);
            assert_eq!(followed(&mut follower, &whole, &[at]), (before.len(), Some(broken)), "{name} {at}");
            assert_eq!((follower.messages(), follower.closed()), (1, None), "{name}");
            assert!(follower.is_between_frames(), "{name}");
        }
    }
    let mut follower = Follower::new(Role::Server, MAX);
    assert_eq!(follower.follow(b"\x01\x00\x81\x00").broken, Some(Fragment), "a message within another");
    assert_eq!(TooLarge.code(), 1009);
    assert_eq!(Mask.code(), 1002);
}

#[test]
fn a_message_is_bounded_over_all_its_frames() {
    for (name, sizes, fits) in [
        ("in one", vec![10], true),
        ("in two", vec![4, 6], true),
        ("in many", vec![0, 0, 10, 0], true),
        ("one more", vec![11], false),
        ("one more in the end", vec![4, 6, 1], false),
    ] {
        let mut follower = Follower::new(Role::Server, 10);
        let last = sizes.len() - 1;
        let frames = sizes.iter().enumerate().map(|(at, size)| {
            let first = if at == 0 { 2 } else { 0 } | if at == last { 0x80 } else { 0 };
            frame(Role::Server, first, &vec![0; *size])
        });
        let whole = frames.collect::<Vec<_>>().concat();
        let broken = follower.follow(&whole).broken;
        assert_eq!(broken, (!fits).then_some(Broken::TooLarge), "{name}");
        // The next message begins anew.
        assert!(!fits || follower.follow(&frame(Role::Server, 0x82, &[0; 10])).broken.is_none(), "{name}");
    }
}

#[test]
fn a_close_that_is_said_is_one_that_is_understood() {
    let long = "é".repeat(100);
    for (role, mask) in [(Role::Client, Some([1, 2, 3, 4])), (Role::Server, None)] {
        for (reason, len) in [("", 0), ("going away", 10), (long.as_str(), 122)] {
            let mut bytes = Vec::new();
            write_close(&mut bytes, 1001, reason, mask);
            let mut follower = Follower::new(role, 0);
            assert_eq!(follower.follow(&bytes), Passed { bytes: bytes.len(), broken: None }, "{reason}");
            assert_eq!(follower.closed(), Some(Some(1001)), "{reason}");
            assert_eq!(bytes.len(), 2 + mask.map_or(0, |_| 4) + 2 + len, "{reason}");
        }
    }
    let mut bytes = Vec::new();
    write_close(&mut bytes, 1001, "é", Some([1, 2, 3, 4]));
    let payload: Vec<u8> = bytes[6..].iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(payload, [&1001u16.to_be_bytes()[..], "é".as_bytes()].concat());
    for (payload, code) in [(&b""[..], None), (b"\x03\xe8", Some(1000)), (b"\x13\x87x", Some(4999))] {
        let mut follower = Follower::new(Role::Server, 0);
        follower.follow(&frame(Role::Server, 0x88, payload));
        assert_eq!(follower.closed(), Some(code));
    }
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: &str = "host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

fn read(request: &str) -> Option<Result<Handshake, Malformed>> {
    let mut space = HeadSpace::new();
    let head = parse_request(request.as_bytes(), &HeadLimits::default(), &mut space).expect("a head").expect("whole");
    Handshake::read(&head)
}

#[test]
fn a_good_handshake_is_read_with_what_browsers_put_into_it() {
    let begin = format!("GET /v1/realtime?model=m HTTP/1.1\r\n{GOOD}Sec-WebSocket-Key: {KEY}\r\n");
    let plain = read(&format!("{begin}\r\n")).expect("it asks").expect("it is good");
    // The example of RFC 6455 §1.3.
    assert_eq!(&plain.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((&*plain.protocols, &plain.credential), ("", &None));
    let browser = "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-1\r\n\
                   sec-websocket-protocol: openai-beta.realtime-v1\r\n";
    let browser = read(&format!("{begin}{browser}\r\n")).expect("it asks").expect("it is good");
    assert_eq!(&*browser.protocols, "realtime, openai-beta.realtime-v1");
    assert_eq!(browser.credential.as_deref(), Some(&b"sk-1"[..]));
}

#[test]
fn what_asks_for_no_websocket_is_none_and_what_asks_badly_is_told() {
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    for (name, request) in [
        ("no Upgrade", format!("GET / HTTP/1.1\r\nhost: x\r\n{key}\r\n")),
        ("another protocol", format!("GET / HTTP/1.1\r\n{}{key}\r\n", GOOD.replace("websocket", "h2c"))),
        ("another method", format!("POST / HTTP/1.1\r\n{GOOD}{key}\r\n")),
        ("another HTTP", format!("GET / HTTP/1.0\r\n{GOOD}{key}\r\n")),
    ] {
        assert_eq!(read(&request), None, "{name}");
    }
    let many = format!("Sec-WebSocket-Protocol: {}a\r\n", "a,".repeat(31));
    let good = format!("GET / HTTP/1.1\r\n{GOOD}{key}");
    assert!(read(&format!("{good}{many}\r\n")).expect("it asks").is_ok(), "32 protocols");
    for (name, request, status) in [
        ("no Connection", format!("{}\r\n", good.replace("keep-alive, Upgrade", "keep-alive")), 400),
        ("a body", format!("{good}content-length: 0\r\n\r\n"), 400),
        ("chunks", format!("{good}transfer-encoding: chunked\r\n\r\n"), 400),
        ("no version", format!("{}\r\n", good.replace("Version", "Versions")), 426),
        ("version 8", format!("{}\r\n", good.replace("13", "8")), 426),
        ("two versions", format!("{good}sec-websocket-version: 13\r\n\r\n"), 426),
        ("no key", format!("GET / HTTP/1.1\r\n{GOOD}\r\n"), 400),
        ("two keys", format!("{good}{key}\r\n"), 400),
        ("a key of 15 bytes", format!("{}\r\n", good.replace(KEY, "dGhlIHNhbXBsZSBub25j")), 400),
        ("a key of 17 bytes", format!("{}\r\n", good.replace(KEY, "dGhlIHNhbXBsZSBub25jZWU=")), 400),
        ("a key in other digits", format!("{}\r\n", good.replace(KEY, "dGhlIHNhbXBsZSBub25j-Q==")), 400),
        ("33 protocols", format!("{good}{many}sec-websocket-protocol: b\r\n\r\n"), 400),
        ("a protocol that is no token", format!("{good}sec-websocket-protocol: a b\r\n\r\n"), 400),
        (
            "two API keys",
            format!("{good}sec-websocket-protocol: openai-insecure-api-key.a, openai-insecure-api-key.b\r\n\r\n"),
            400,
        ),
    ] {
        assert_eq!(read(&request).map(|read| read.map_err(|bad| bad.status)), Some(Err(status)), "{name}");
    }
}

#[test]
fn a_101_is_checked_to_the_letter() {
    let nonce = Nonce::new(*b"the sample nonce");
    let mut lines = Vec::new();
    nonce.write_lines(&mut lines, "a, b");
    let lines = String::from_utf8(lines).expect("text");
    assert!(lines.contains(&format!("sec-websocket-key: {KEY}\r\n")), "{lines}");
    assert!(lines.ends_with("sec-websocket-protocol: a, b\r\n"), "{lines}");
    let good = "Upgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for (name, fields, chosen) in [
        ("plain", good.to_owned(), Some("")),
        ("a protocol", format!("{good}sec-websocket-protocol: b\r\n"), Some("sec-websocket-protocol: b\r\n")),
        ("no extensions", format!("{good}sec-websocket-extensions: \r\n"), Some("")),
        ("no Upgrade", good.replace("Upgrade: ", "Upgrades: "), None),
        ("another Upgrade", good.replace("WebSocket\r", "h2c\r"), None),
        ("no Connection", good.replace("Connection", "Connections"), None),
        ("no accept", good.replace("Accept", "Accepts"), None),
        ("another accept", good.replace("s3p", "s3q"), None),
        ("two of them", format!("{good}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), None),
        ("a protocol of its own", format!("{good}sec-websocket-protocol: c\r\n"), None),
        ("both", format!("{good}sec-websocket-protocol: a, b\r\n"), None),
        ("both in two lines", format!("{good}sec-websocket-protocol: a\r\nsec-websocket-protocol: b\r\n"), None),
        ("an extension", format!("{good}sec-websocket-extensions: permessage-deflate\r\n"), None),
    ] {
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        let mut space = HeadSpace::new();
        let head = parse_response(head.as_bytes(), &HeadLimits::default(), false, &mut space);
        let checked = nonce.check(&head.expect("a head").expect("whole"), "a, b");
        assert_eq!(checked.as_deref().ok(), chosen.map(str::as_bytes), "{name}: {checked:?}");
    }
}
