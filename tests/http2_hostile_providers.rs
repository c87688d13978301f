//! HTTP/2 providers that mean harm, or have odd manners: their clients are told of a failure, other providers' clients notice nothing,
//! nothing leaks, and a connection does not end for what was odd about many exchanges of its life.

mod common;

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::io::Write;
use std::thread;

use common::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, PADDED, PING, RST_STREAM, SETTINGS, Said,
    WINDOW_UPDATE, answer, field, frame, head,
};
use common::origin::{DONE, FINISH, content};
use common::{Client, Config, Gateway, JSON, Mock, Origin, chat, until_at_rest};

const PATH: &str = "/v1/chat/completions";
const WIDE: (u16, u32) = (4, 0x7fff_ffff);
const JSON_ANSWER: [(&str, &str); 1] = [("content-type", "application/json")];

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What a provider may cost while it is there.
const ADDED_MAX: usize = 32 << 20;

/// A gateway that speaks HTTP/2 with `hostile`, and HTTP/1.1 with `mock` for model `other`.
fn gateway(hostile: &Origin, mock: &Mock, more: &str) -> Gateway {
    let models = format!(
        "[[providers]]\nname = \"other\"\n[[providers.endpoints]]\nurl = \"{}\"\n\
         [[models]]\nname = \"other\"\nroute = [{{ provider = \"other\" }}]\n\
         [[models]]\nname = \"*\"\nroute = [{{ provider = \"mock\" }}]",
        mock.url()
    );
    let more = format!("[client]\nrequests_max = 1000000\n{more}");
    Gateway::start(
        &Config::new(&[hostile.url()]).endpoint("http2 = \"prior-knowledge\"").models(&models).and(&more).admin(),
    )
}

fn serves(other: &mut Client, what: &str) {
    let response = other.request("POST", PATH, &JSON, &chat("other", false));
    assert_eq!(response.head.status, 200, "{what}");
}

fn resident(gateway: &Gateway) -> usize {
    let text = read_to_string(format!("/proc/{}/status", gateway.process.id())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn ok(stream: u32) -> Vec<u8> {
    head(stream, &[field(b":status", b"200"), field(b"content-type", b"application/json")].concat(), false)
}

fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// In how many ways one of the requests below is answered.
const MANNERS: usize = 9;

/// An answer in one of many manners, and the status that the client is to see.
fn in_manner(manner: usize, stream: u32, body: &[u8]) -> (Vec<u8>, u16) {
    let plain = answer(stream, "200", &JSON_ANSWER, body);
    let end = frame(DATA, END_STREAM, stream, b"");
    let bytes: Vec<u8> = match manner {
        0 => plain,
        1 => [ok(stream), frame(DATA, 0, stream, b"").repeat(3), frame(DATA, END_STREAM, stream, body)].concat(),
        2 => [ok(stream), body.iter().flat_map(|byte| frame(DATA, 0, stream, &[*byte])).collect(), end].concat(),
        // It wants no more of a request that has ended, which it may say.
        3 => [plain, reset(stream, NO_ERROR)].concat(),
        4 => [head(stream, &[field(b":status", b"103"), field(b"link", b"</a>")].concat(), false), plain].concat(),
        5 => {
            let padded = [&[7][..], body, &[0; 7]].concat();
            [
                frame(WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0]),
                ok(stream),
                frame(DATA, PADDED | END_STREAM, stream, &padded),
            ]
            .concat()
        }
        6 => return (reset(stream, INTERNAL_ERROR), 502),
        // For which the gateway has to reset the stream.
        7 => return (answer(stream, "200", &[JSON_ANSWER[0], ("content-length", "1")], body), 502),
        _ => return (answer(stream, "200", &[JSON_ANSWER[0], ("connection", "close")], body), 502),
    };
    (bytes, 200)
}

#[test]
fn one_connection_carries_ten_thousand_requests_whatever_is_odd_about_their_answers() {
    const CLIENTS: usize = 25;
    const ROUNDS: usize = 400;
    let (origin, mock) = (Origin::start(), Mock::start(&[]));
    let gateway = gateway(&origin, &mock, "");
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    // The first alone, so that there is a connection for the others.
    clients[0].send_request("POST", PATH, &JSON, &chat("m", false));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, _) = peer.request(&mut BTreeMap::new());
    peer.send(&in_manner(0, stream, b"{}").0);
    assert_eq!(clients[0].response("POST").head.status, 200);
    let provider = thread::spawn(move || {
        let (mut begun, mut resets) = (BTreeMap::new(), BTreeMap::<u32, u32>::new());
        for _ in 0..CLIENTS * ROUNDS {
            let (stream, body) = loop {
                let frame = peer.next();
                match frame.kind {
                    RST_STREAM => *resets.entry(frame.reason()).or_default() += 1,
                    HEADERS | CONTINUATION | DATA => {
                        let body: &mut Vec<u8> = begun.entry(frame.stream).or_default();
                        if frame.kind == DATA {
                            body.extend(&frame.payload);
                        }
                        if frame.ends() {
                            break (frame.stream, begun.remove(&frame.stream).unwrap_or_default());
                        }
                    }
                    _ => panic!("{frame:?}"),
                }
            };
            let model: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let number: usize = model["model"].as_str().and_then(|model| model.parse().ok()).expect("a number");
            peer.send(&in_manner(number % MANNERS, stream, &body).0);
        }
        (peer, resets)
    });
    for round in 0..ROUNDS {
        let number = |at: usize| round * CLIENTS + at;
        for (at, client) in clients.iter_mut().enumerate() {
            client.send_request("POST", PATH, &JSON, &chat(&number(at).to_string(), false));
        }
        for (at, client) in clients.iter_mut().enumerate() {
            let manner = number(at) % MANNERS;
            let head = client.final_head();
            let response = client.body("POST", head);
            let status = in_manner(manner, 1, b"{}").1;
            assert_eq!(response.head.status, status, "round {round}, manner {manner}: {}", response.text());
            if status == 200 {
                assert_eq!(response.json()["model"].as_str(), Some(&*number(at).to_string()), "another's answer");
            }
        }
    }
    let (peer, resets) = provider.join().expect("a provider that was asked ten thousand times");
    assert!(origin.is_left_alone(), "more than one connection");
    // Those that it could not but reset, and no other.
    let made = (CLIENTS * ROUNDS / MANNERS) as u32;
    let told: u32 = resets.values().sum();
    assert!((2 * made - 30..=2 * made + 30).contains(&told), "{resets:?}");
    drop(peer);
    until_at_rest(&gateway);
}

#[test]
fn what_comes_late_for_many_who_have_left_does_not_end_the_streams_of_those_who_stay() {
    let (origin, mock) = (Origin::start(), Mock::start(&[]));
    let gateway = gateway(&origin, &mock, "");
    let events = |stream| {
        head(stream, &[field(b":status", b"200"), field(b"content-type", b"text/event-stream")].concat(), false)
    };
    let mut stays = gateway.connect();
    stays.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, _) = peer.request(&mut BTreeMap::new());
    peer.send(&[events(stream), frame(DATA, 0, stream, content("a").as_bytes())].concat());
    let head = stays.head();
    let mut stays = stays.events(&head);
    assert_eq!(stays.next_event().expect("an event").raw, content("a").as_bytes());
    // What the library allows is used up by the 1,317th, on one connection.
    let mut second: Option<Http2> = None;
    for number in 0..1400 {
        let mut leaves = gateway.connect();
        leaves.send_request("POST", PATH, &JSON, &chat("m", true));
        if number == 1000 {
            second = Some(origin.accept_http2(&[WIDE]));
        }
        let peer = second.as_mut().unwrap_or(&mut peer);
        let (other, _) = peer.request(&mut BTreeMap::new());
        drop(leaves);
        let reset = peer.next();
        assert_eq!((reset.kind, reset.stream), (RST_STREAM, other), "{number}");
        // What was on its way.
        peer.send(&[events(other), frame(DATA, 0, other, b":").repeat(100)].concat());
    }
    // It has read all that.
    peer.send(&frame(PING, 0, 0, b"are you?"));
    while peer.frame().expect("it is open").0 != PING {}
    peer.send(&frame(DATA, END_STREAM, stream, (content("b") + FINISH + DONE).as_bytes()));
    let rest: Vec<u8> = stays.all().into_iter().flat_map(|event| event.raw).collect();
    assert_eq!(String::from_utf8_lossy(&rest), content("b") + FINISH + DONE);
    // The first goes with its last stream.
    assert_eq!(peer.end(), Said::Ended(Some(NO_ERROR)));
    drop(second);
    until_at_rest(&gateway);
}

#[test]
fn floods_of_providers_end_with_the_right_error_and_their_clients_are_told() {
    type Make = fn(u32) -> Vec<u8>;
    let open: Make = |stream| {
        let mut head = ok(stream);
        head[4] &= !END_HEADERS;
        head
    };
    // How the answer begins, what then comes again and again, what the client is told, and the reason for which the gateway ends the
    // connection.
    let cases: [(&str, Make, Make, &str, u32); 10] = [
        ("settings", |_| Vec::new(), |_| frame(SETTINGS, 0, 0, b""), "upstream_failed", ENHANCE_YOUR_CALM),
        ("pings", |_| Vec::new(), |_| frame(PING, 0, 0, &[0; 8]), "upstream_failed", ENHANCE_YOUR_CALM),
        (
            "resets of what is no more",
            |stream| reset(stream, INTERNAL_ERROR),
            |stream| reset(stream, INTERNAL_ERROR),
            "upstream_failed",
            ENHANCE_YOUR_CALM,
        ),
        (
            "a head without end",
            open,
            |stream| frame(CONTINUATION, 0, stream, &field(b"x-a", &[b'a'; 16_000])),
            "upstream_failed",
            ENHANCE_YOUR_CALM,
        ),
        (
            "a head without end, of nothing",
            open,
            |stream| frame(CONTINUATION, 0, stream, b""),
            "upstream_failed",
            ENHANCE_YOUR_CALM,
        ),
        (
            "parts of a body that are none",
            ok,
            |stream| frame(DATA, 0, stream, b""),
            "upstream_truncated",
            ENHANCE_YOUR_CALM,
        ),
        ("priorities", ok, |stream| frame(2, 0, stream, &[0, 0, 0, 3, 7]), "upstream_truncated", ENHANCE_YOUR_CALM),
        ("unknown frames", ok, |stream| frame(0xbb, 0, stream, b"x"), "upstream_truncated", ENHANCE_YOUR_CALM),
        (
            "a window by nothing",
            ok,
            |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
            "upstream_truncated",
            PROTOCOL_ERROR,
        ),
        ("a head that unpacks to megabytes", bomb, |_| Vec::new(), "upstream_failed", ENHANCE_YOUR_CALM),
    ];
    for driver in ["deferred", "epoll"] {
        let (origin, mock) = (Origin::start(), Mock::start(&[]));
        let gateway = gateway(&origin, &mock, &format!("[ring]\ndriver = {driver:?}"));
        let mut other = gateway.connect();
        serves(&mut other, driver);
        let before = resident(&gateway);
        for (name, first, again, code, reason) in cases {
            let what = format!("{driver}: {name}");
            let mut client = gateway.connect();
            client.send_request("POST", PATH, &JSON, &chat("m", false));
            let mut peer = origin.accept_http2(&[WIDE]);
            let (stream, _) = peer.request(&mut BTreeMap::new());
            let mut writer = peer.stream.try_clone().expect("a socket");
            let flood = thread::spawn(move || {
                let _ = writer.write_all(&first(stream));
                // More than 10,000 at once, and 1,000 a second.
                let some = again(stream).repeat(100);
                for _ in 0..400 {
                    if some.is_empty() || writer.write_all(&some).is_err() {
                        break;
                    }
                }
            });
            serves(&mut other, &what);
            let response = client.response("POST");
            let told = response.json();
            assert_eq!((response.head.status, told["error"]["code"].as_str()), (502, Some(code)), "{what}: {told}");
            let end = peer.end();
            // The reason may be overtaken by a reset, where the provider goes on.
            assert!(end == Said::Ended(Some(reason)) || end == Said::Ended(None), "{what}: {end:?}");
            drop(peer);
            flood.join().expect("a flood");
            serves(&mut other, &what);
            until_at_rest(&gateway);
            let added = resident(&gateway).saturating_sub(before);
            assert!(added <= ADDED_MAX, "{what}: {added} bytes more");
        }
        let lines = gateway.process.lines();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{driver}: {lines:?}");
    }
}

/// A head whose one field of 4,000 bytes comes twelve thousand times, by a byte each.
fn bomb(stream: u32) -> Vec<u8> {
    let mut entry = field(b"x-a", &[b'a'; 3960]);
    entry[0] = 0x40;
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[field(b":status", b"200"), entry, vec![0xbe; 12_000]].concat())
}

#[test]
fn a_provider_that_resets_or_leaves_at_every_request_gets_each_once_or_so_and_takes_nobody_along() {
    for driver in ["deferred", "epoll"] {
        let (origin, mock) = (Origin::start(), Mock::start(&[]));
        let gateway = gateway(&origin, &mock, &format!("[ring]\ndriver = {driver:?}"));
        let mut other = gateway.connect();
        // Resets, or makes the gateway reset: on one connection, for as long as it likes.
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut peer = origin.accept_http2(&[WIDE]);
        for turn in 0..300 {
            let (stream, _) = loop {
                let frame = peer.next();
                if frame.kind == RST_STREAM {
                    assert_eq!(frame.reason(), PROTOCOL_ERROR, "{frame:?}");
                } else if frame.ends() {
                    break (frame.stream, ());
                }
            };
            peer.send(&in_manner(6 + turn % 3, stream, b"{}").0);
            let response = client.response("POST");
            assert_eq!(response.head.status, 502, "{driver}, {turn}: {}", response.text());
            if turn % 50 == 0 {
                serves(&mut other, driver);
            }
            client = gateway.connect();
            client.send_request("POST", PATH, &JSON, &chat("m", false));
        }
        // GOAWAY after GOAWAY, and all with a last stream that is lower than the one before.
        let (stream, _) = loop {
            let frame = peer.next();
            if frame.kind != RST_STREAM && frame.ends() {
                break (frame.stream, ());
            }
        };
        let goaway = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat());
        peer.send(&(0..1000).flat_map(|less| goaway(stream - less.min(stream))).collect::<Vec<u8>>());
        // The request was refused with that, and is sent again, elsewhere.
        let mut second = origin.accept_http2(&[WIDE]);
        let (stream, body) = second.request(&mut BTreeMap::new());
        second.send(&answer(stream, "200", &JSON_ANSWER, &body));
        assert_eq!(client.response("POST").head.status, 200, "{driver}");
        serves(&mut other, driver);
        drop((peer, second));
        until_at_rest(&gateway);
        assert!(origin.is_left_alone(), "{driver}");
    }
}
