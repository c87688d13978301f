//! HTTP/2 to providers: many exchanges over one connection, what is sent again and what is not, windows, and every end. What
//! independent servers make of it is in tests/sdk.

mod common;

use std::collections::BTreeMap;

use common::client::{Client, End};
use common::http2::{
    DATA, END_STREAM, FRAME_BYTES_MAX, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, Said, WINDOW_UPDATE, answer,
    field, frame, head, request,
};
use common::metrics::until_at_rest;
use common::origin::{DONE, FINISH, content};
use common::process::KEY;
use common::{Config, Gateway, JSON, Origin, PATIENCE, chat, metric_is};

const PATH: &str = "/v1/chat/completions";
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const WIDE: (u16, u32) = (INITIAL_WINDOW_SIZE, 0x7fff_ffff);
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const JSON_ANSWER: [(&str, &str); 1] = [("content-type", "application/json")];

/// A gateway in front of `origins`, with which it knows to speak HTTP/2.
fn config(origins: &[&Origin]) -> Config {
    let urls: Vec<String> = origins.iter().map(|origin| origin.url()).collect();
    Config::new(&urls).endpoint("key = { env = \"RINGWAY_TEST_PROVIDER_KEY\" }\nhttp2 = \"prior-knowledge\"")
}

fn send(gateway: &Gateway, body: &[u8]) -> Client {
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &JSON, body);
    client
}

/// A chat whose model tells which it is.
fn numbered(number: usize) -> Vec<u8> {
    chat(&format!("m-{number}"), false)
}

/// Answers with what was asked, so that no answer can pass for another's.
fn echo(origin: &mut Http2, stream: u32, body: &[u8]) {
    origin.send(&answer(stream, "200", &JSON_ANSWER, body));
}

fn is_echoed(client: &mut Client, body: &[u8]) {
    let response = client.response("POST");
    assert_eq!((response.head.status, response.text()), (200, String::from_utf8_lossy(body).into_owned()));
}

#[test]
fn requests_that_come_together_share_one_connection_from_the_first_on() {
    for driver in ["deferred", "epoll"] {
        let origin = Origin::start();
        let gateway = Gateway::start(&config(&[&origin]).and(&format!("[ring]\ndriver = {driver:?}")).admin());
        let bodies: Vec<Vec<u8>> = (0..50).map(numbered).collect();
        let mut clients: Vec<Client> = bodies.iter().map(|body| send(&gateway, body)).collect();
        let mut peer = origin.accept_http2(&[WIDE]);
        let mut begun = BTreeMap::new();
        let requests: Vec<(u32, Vec<u8>)> = (0..50).map(|_| peer.request(&mut begun)).collect();
        // The last is answered first.
        requests.iter().rev().for_each(|(stream, body)| echo(&mut peer, *stream, body));
        clients.iter_mut().zip(&bodies).for_each(|(client, body)| is_echoed(client, body));
        assert!(origin.is_left_alone(), "{driver}: more than one connection");
        metric_is(&gateway, "ringway_upstream_connections_open", &[], 1.0);
        until_at_rest(&gateway);
    }
}

#[test]
fn more_connections_are_made_as_streams_fill_and_never_more_streams_than_allowed() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let bodies: Vec<Vec<u8>> = (0..25).map(numbered).collect();
    let mut clients: Vec<Client> = bodies.iter().map(|body| send(&gateway, body)).collect();
    let allowed = [WIDE, (MAX_CONCURRENT_STREAMS, 10)];
    // The third carries the rest.
    let mut peers = Vec::new();
    for expected in [10, 10, 5] {
        let mut peer = origin.accept_http2(&allowed);
        let mut begun = BTreeMap::new();
        let requests: Vec<(u32, Vec<u8>)> = (0..expected).map(|_| peer.request(&mut begun)).collect();
        assert_eq!(begun.len(), 0, "more than {expected} at once");
        peers.push((peer, requests));
    }
    for (peer, requests) in &mut peers {
        requests.iter().for_each(|(stream, body)| echo(peer, *stream, body));
    }
    clients.iter_mut().zip(&bodies).for_each(|(client, body)| is_echoed(client, body));
    assert!(origin.is_left_alone(), "more than three connections");
    // What comes now finds room on the first.
    let mut client = send(&gateway, &numbered(99));
    let (peer, _) = &mut peers[0];
    let (stream, body) = peer.request(&mut BTreeMap::new());
    echo(peer, stream, &body);
    is_echoed(&mut client, &numbered(99));
}

#[test]
fn a_refused_request_is_sent_again_and_one_that_was_begun_is_not() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(1));
    let mut first = origin.accept_http2(&[WIDE]);
    let (stream, _) = first.request(&mut BTreeMap::new());
    first.send(&frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()));
    let mut second = origin.accept_http2(&[WIDE]);
    let (stream, body) = second.request(&mut BTreeMap::new());
    echo(&mut second, stream, &body);
    is_echoed(&mut client, &numbered(1));
    // Any other reason leaves open what was done.
    let mut client = send(&gateway, &numbered(2));
    let (stream, _) = first.request(&mut BTreeMap::new());
    first.send(&frame(RST_STREAM, 0, stream, &2_u32.to_be_bytes()));
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    assert!(origin.is_left_alone());
}

#[test]
fn what_is_refused_twice_goes_to_another_endpoint() {
    let (refusing, other) = (Origin::start(), Origin::start());
    let urls = [&refusing, &other].map(|origin| {
        format!(
            "[[providers]]\nname = \"p{}\"\n[[providers.endpoints]]\nurl = \"{}\"\nhttp2 = \"prior-knowledge\"\n",
            origin.address.port(),
            origin.url()
        )
    });
    let route = [&refusing, &other].map(|origin| format!("{{ provider = \"p{}\" }}", origin.address.port())).join(", ");
    let models = format!("{}[[models]]\nname = \"*\"\nroute = [{route}]", urls.concat());
    let gateway = Gateway::start(&config(&[&refusing]).models(&models));
    let mut client = send(&gateway, &numbered(1));
    for _ in 0..2 {
        let mut peer = refusing.accept_http2(&[WIDE]);
        let (stream, _) = peer.request(&mut BTreeMap::new());
        peer.send(&frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()));
    }
    let mut peer = other.accept_http2(&[WIDE]);
    let (stream, body) = peer.request(&mut BTreeMap::new());
    echo(&mut peer, stream, &body);
    is_echoed(&mut client, &numbered(1));
}

#[test]
fn after_goaway_what_was_not_looked_at_is_sent_again_and_the_rest_is_finished() {
    // A graceful end and one for a reason say the same of the streams beyond the last (RFC 9113 §6.8).
    for reason in [0_u32, 11] {
        let origin = Origin::start();
        let gateway = Gateway::start(&config(&[&origin]));
        let mut clients = vec![send(&gateway, &numbered(0))];
        let mut first = origin.accept_http2(&[WIDE]);
        let mut begun = BTreeMap::new();
        let mut requests = vec![first.request(&mut begun)];
        clients.push(send(&gateway, &numbered(1)));
        requests.push(first.request(&mut begun));
        let last = requests[0].0.to_be_bytes();
        first.send(&frame(GOAWAY, 0, 0, &[last, reason.to_be_bytes()].concat()));
        let mut second = origin.accept_http2(&[WIDE]);
        let (stream, body) = second.request(&mut BTreeMap::new());
        assert_eq!(body, numbered(1));
        echo(&mut second, stream, &body);
        is_echoed(&mut clients[1], &numbered(1));
        // What is new goes to the new one.
        let mut third = send(&gateway, &numbered(2));
        let (stream, body) = second.request(&mut BTreeMap::new());
        echo(&mut second, stream, &body);
        is_echoed(&mut third, &numbered(2));
        echo(&mut first, requests[0].0, &numbered(0));
        is_echoed(&mut clients[0], &numbered(0));
        // And the old one ends with its last.
        assert!(matches!(first.end(), Said::Ended(_)), "{reason}");
        assert!(origin.is_left_alone());
    }
}

#[test]
fn a_connection_that_dies_under_a_request_was_stale_only_if_it_said_nothing_since() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(0));
    let mut first = origin.accept_http2(&[WIDE]);
    let (stream, body) = first.request(&mut BTreeMap::new());
    echo(&mut first, stream, &body);
    is_echoed(&mut client, &numbered(0));
    let mut client = send(&gateway, &numbered(1));
    first.request(&mut BTreeMap::new());
    drop(first);
    let mut second = origin.accept_http2(&[WIDE]);
    let (stream, body) = second.request(&mut BTreeMap::new());
    assert_eq!(body, numbered(1));
    echo(&mut second, stream, &body);
    is_echoed(&mut client, &numbered(1));
    // Its endpoint was there, and may have begun.
    let mut client = send(&gateway, &numbered(2));
    second.request(&mut BTreeMap::new());
    second.send(&frame(PING, 0, 0, b"are you?"));
    while second.frame().expect("a frame").0 != PING {}
    drop(second);
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    assert!(origin.is_left_alone());
}

#[test]
fn a_stream_that_is_reset_is_told_and_the_others_go_on() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut streams = Vec::new();
    let mut begun = BTreeMap::new();
    let mut first = send(&gateway, &chat("m", true));
    let mut peer = origin.accept_http2(&[WIDE]);
    streams.push(peer.request(&mut begun).0);
    let mut second = send(&gateway, &chat("m", true));
    streams.push(peer.request(&mut begun).0);
    for stream in &streams {
        peer.send(&head_of_events(*stream));
        peer.send(&frame(DATA, 0, *stream, content("a").as_bytes()));
    }
    let heads = [first.head(), second.head()];
    let mut events = [first.events(&heads[0]), second.events(&heads[1])];
    for events in &mut events {
        assert_eq!(events.next_event().expect("an event").raw, content("a").as_bytes());
    }
    peer.send(&frame(RST_STREAM, 0, streams[0], &2_u32.to_be_bytes()));
    let told = events[0].next_event().expect("an event");
    assert!(told.data.contains("upstream_truncated"), "{told:?}");
    assert!(events[0].next_event().is_none());
    let rest = content("b") + FINISH + DONE;
    peer.send(&frame(DATA, END_STREAM, streams[1], rest.as_bytes()));
    let rest: Vec<u8> = events[1].all().into_iter().flat_map(|event| event.raw).collect();
    assert_eq!(String::from_utf8_lossy(&rest), content("b") + FINISH + DONE);
}

fn head_of_events(stream: u32) -> Vec<u8> {
    let block: Vec<u8> = [field(b":status", b"200"), field(b"content-type", b"text/event-stream")].concat();
    head(stream, &block, false)
}

#[test]
fn a_client_that_leaves_cancels_its_stream_alone() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let first = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let mut begun = BTreeMap::new();
    let (stream, _) = peer.request(&mut begun);
    let mut second = send(&gateway, &numbered(1));
    let (other, body) = peer.request(&mut begun);
    drop(first);
    let reset = peer.next();
    assert_eq!((reset.kind, reset.stream, reset.reason()), (RST_STREAM, stream, CANCEL));
    echo(&mut peer, other, &body);
    is_echoed(&mut second, &numbered(1));
}

#[test]
fn a_client_that_does_not_read_holds_up_its_own_stream_and_no_other() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut begun = BTreeMap::new();
    let _stalled = send(&gateway, &chat("m", true));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, _) = peer.request(&mut begun);
    peer.send(&head_of_events(stream));
    // As much as its window and the buffers on the way take; then nothing more is asked for.
    let event = format!("{}{}", content(&"x".repeat(8000)), content("y"));
    let (mut sent, mut window) = (0, 256 << 10);
    while window >= event.len() {
        while window >= event.len() {
            peer.send(&frame(DATA, 0, stream, event.as_bytes()));
            (sent, window) = (sent + event.len(), window - event.len());
        }
        // What comes within a moment; other streams show that the gateway is not merely slow.
        let mut client = send(&gateway, &numbered(1));
        let (other, body) = loop {
            let frame = peer.frame().expect("a frame");
            match frame {
                (WINDOW_UPDATE, _, of, payload) if of == stream => {
                    window += u32::from_be_bytes(payload[..4].try_into().expect("four bytes")) as usize;
                }
                (HEADERS, _, of, _) => drop(begun.insert(of, Vec::new())),
                (DATA, flags, of, payload) => {
                    let body = begun.get_mut(&of).expect("a head before");
                    body.extend(&payload);
                    if flags & END_STREAM != 0 {
                        break (of, begun.remove(&of).expect("a body"));
                    }
                }
                _ => {}
            }
        };
        echo(&mut peer, other, &body);
        is_echoed(&mut client, &numbered(1));
        assert!(sent < 32 << 20, "nothing holds it up");
    }
}

#[test]
fn a_body_goes_out_as_the_endpoints_window_allows() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let text = "x".repeat(1 << 20);
    let mut client = send(&gateway, format!("{{\"model\":\"m\",\"text\":{text:?}}}").as_bytes());
    let mut peer = origin.accept_http2(&[(INITIAL_WINDOW_SIZE, 10_000)]);
    let (mut body, mut stream) = (Vec::<u8>::new(), 0);
    let mut window = 0_usize;
    loop {
        let piece = peer.next();
        stream = piece.stream.max(stream);
        if piece.kind != DATA {
            assert_eq!(piece.kind, HEADERS);
            continue;
        }
        assert!(piece.payload.len() <= FRAME_BYTES_MAX);
        body.extend(&piece.payload);
        if piece.ends() {
            break;
        }
        // Until our settings had come, 65,535 bytes were allowed.
        assert!(body.len() <= window + 65_535, "more than was asked for");
        let more = piece.payload.len();
        peer.send(&frame(WINDOW_UPDATE, 0, stream, &(more as u32).to_be_bytes()));
        window += more;
    }
    assert_eq!(body.len(), text.len() + 23);
    echo(&mut peer, stream, b"{}");
    is_echoed(&mut client, b"{}");
}

#[test]
fn trailers_pass_in_both_directions() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let fields = [("content-type", "application/octet-stream"), ("authorization", &format!("Bearer {KEY}"))];
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    let mut open = request(1, "POST", "/v1/files", &fields, None);
    open[4] &= !END_STREAM;
    http2.send(&[open, frame(DATA, 0, 1, b"abc"), head(1, &field(b"x-sum", b"6"), true)].concat());
    let mut peer = origin.accept_http2(&[WIDE]);
    let mut heads = 0;
    let stream = loop {
        let frame = peer.next();
        heads += usize::from(frame.kind == HEADERS);
        if frame.ends() {
            assert_eq!((frame.kind, heads), (HEADERS, 2), "the trailers end it");
            break frame.stream;
        }
    };
    let block = [field(b":status", b"200"), field(b"content-type", b"text/plain")].concat();
    let trailers = [field(b"x-sum", b"7"), field(b"content-length", b"9")].concat();
    peer.send(&[head(stream, &block, false), frame(DATA, 0, stream, b"hello"), head(stream, &trailers, true)].concat());
    assert_eq!(http2.answer(1), Said::Answer(200, b"hello".to_vec()));
    // To a client of HTTP/1.1, behind the last chunk; and what must not be a trailer is left out.
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/files", &fields, b"abc");
    let (stream, _) = peer.request(&mut BTreeMap::new());
    peer.send(&[head(stream, &block, false), frame(DATA, 0, stream, b"hello"), head(stream, &trailers, true)].concat());
    let response = client.response("POST");
    assert_eq!((response.text().as_str(), response.end), ("hello", End::Complete));
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn early_hints_reach_the_client() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, body) = peer.request(&mut BTreeMap::new());
    let hint = [field(b":status", b"103"), field(b"link", b"</a.css>; rel=preload"), field(b"set-cookie", b"a=b")];
    peer.send(&head(stream, &hint.concat(), false));
    let hint = client.head();
    assert_eq!((hint.status, hint.get("link")), (103, Some("</a.css>; rel=preload")));
    assert_eq!(hint.get("set-cookie"), None);
    echo(&mut peer, stream, &body);
    is_echoed(&mut client, &body);
}

#[test]
fn an_endpoint_that_answers_before_it_has_all_is_heard() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = gateway.connect();
    let head = "host: x\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked";
    client.send(
        format!("POST /v1/files HTTP/1.1\r\nauthorization: Bearer {KEY}\r\n{head}\r\n\r\n3\r\nabc\r\n").as_bytes(),
    );
    let mut peer = origin.accept_http2(&[WIDE]);
    let stream = loop {
        let frame = peer.next();
        if frame.kind == DATA {
            break frame.stream;
        }
    };
    peer.send(&answer(stream, "413", &JSON_ANSWER, b"{\"error\":{}}"));
    let response = client.response("POST");
    assert_eq!((response.head.status, response.text().as_str()), (413, "{\"error\":{}}"));
    let reset = peer.next();
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, stream), "the rest is not sent");
}

#[test]
fn an_endpoint_that_speaks_http1_only_is_named() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept();
    peer.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    assert!(response.text().contains("it answers in HTTP/1, not in HTTP/2"), "{}", response.text());
}

#[test]
fn malformed_answers_are_refused() {
    type Case = (&'static str, Vec<(&'static str, &'static str)>, &'static [u8]);
    let cases: [Case; 6] = [
        ("a field of a connection", vec![("connection", "close")], b"{}"),
        ("a transfer coding", vec![("transfer-encoding", "chunked")], b"0\r\n\r\n"),
        ("a longer length", vec![("content-length", "3")], b"{}"),
        ("a shorter length", vec![("content-length", "1")], b"{}"),
        ("upper case", vec![("X-Upper", "1")], b"{}"),
        ("a line feed", vec![("x-line", "a\nset-cookie: b")], b"{}"),
    ];
    for (what, fields, body) in cases {
        let origin = Origin::start();
        let gateway = Gateway::start(&config(&[&origin]));
        let mut client = send(&gateway, &numbered(0));
        let mut peer = origin.accept_http2(&[WIDE]);
        let (stream, _) = peer.request(&mut BTreeMap::new());
        let fields = [JSON_ANSWER.to_vec(), fields].concat();
        peer.send(&answer(stream, "200", &fields, body));
        let response = client.response("POST");
        assert_eq!(response.head.status, 502, "{what}: {}", response.text());
    }
}

#[test]
fn an_endpoint_that_sends_frames_to_no_purpose_is_let_go() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    peer.request(&mut BTreeMap::new());
    // 10,000 at once are allowed, and 1,000 a second beyond.
    let flood = frame(SETTINGS, 0, 0, &[]).repeat(40_000);
    peer.send(&flood);
    let response = client.response("POST");
    assert_eq!(response.head.status, 502);
    assert!(matches!(peer.end(), Said::Ended(_)));
}

#[test]
fn an_endpoint_that_falls_silent_is_asked_and_given_up() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[http2]\nping = \"100ms\""));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    peer.request(&mut BTreeMap::new());
    // It answers the first and not the second.
    let mut asked = 0;
    while asked < 2 {
        let (kind, flags, _, payload) = peer.frame().expect("a frame");
        if kind == PING && flags == 0 {
            asked += 1;
            if asked == 1 {
                peer.send(&frame(PING, 1, 0, &payload));
            }
        }
    }
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    assert!(matches!(peer.end(), Said::Ended(_)));
}

#[test]
fn an_idle_connection_is_closed_with_a_word() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[pool]\nidle = \"1s\""));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, body) = peer.request(&mut BTreeMap::new());
    echo(&mut peer, stream, &body);
    is_echoed(&mut client, &body);
    assert_eq!(peer.end(), Said::Ended(Some(0)), "GOAWAY without an error");
}

#[test]
fn bodies_that_cannot_be_sent_twice_take_a_connection_that_is_known_to_live() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let mut begun = BTreeMap::new();
    let (slow, body) = peer.request(&mut begun);
    let fields = [("content-type", "application/octet-stream"), ("authorization", &format!("Bearer {KEY}"))];
    // It has just been heard from, and carries the upload as well.
    peer.send(&frame(PING, 0, 0, b"are you?"));
    while peer.frame().expect("a frame").0 != PING {}
    let mut upload = gateway.connect();
    upload.send_request("POST", "/v1/files", &fields, b"abc");
    let (stream, file) = peer.request(&mut begun);
    assert_eq!(file, b"abc");
    echo(&mut peer, stream, b"{}");
    is_echoed(&mut upload, b"{}");
    echo(&mut peer, slow, &body);
    is_echoed(&mut client, &body);
    assert!(origin.is_left_alone());
}

/// A chat of 900 KB, which no window of a test takes at once.
fn large() -> Vec<u8> {
    let mut body = numbered(1);
    let text = format!(",\"user\":\"{}\"}}", "x".repeat(900_000));
    body.pop();
    body.extend(text.into_bytes());
    body
}

/// Reads what the endpoint's window of 20,000 bytes lets through; the stream.
fn until_stuck(peer: &mut Http2) -> u32 {
    let mut came = 0;
    loop {
        let frame = peer.next();
        if frame.kind == DATA {
            came += frame.payload.len();
        }
        // Before the endpoint's settings had come, more was allowed.
        if came >= 20_000 {
            return frame.stream;
        }
    }
}

#[test]
fn an_answer_that_comes_with_the_end_of_the_request_is_not_lost() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &large());
    let mut peer = origin.accept_http2(&[(INITIAL_WINDOW_SIZE, 20_000)]);
    let stream = until_stuck(&mut peer);
    // It wants no more of the request, which is no error (RFC 9113 §8.1).
    let reset = frame(RST_STREAM, 0, stream, &0_u32.to_be_bytes());
    peer.send(&[answer(stream, "413", &JSON_ANSWER, b"{\"error\":{}}"), reset].concat());
    let response = client.response("POST");
    assert_eq!((response.head.status, response.text().as_str()), (413, "{\"error\":{}}"));
}

#[test]
fn what_is_refused_amid_its_body_is_sent_again() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &large());
    let mut first = origin.accept_http2(&[(INITIAL_WINDOW_SIZE, 20_000)]);
    let stream = until_stuck(&mut first);
    first.send(&frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()));
    let mut second = origin.accept_http2(&[WIDE]);
    let (stream, body) = second.request(&mut BTreeMap::new());
    assert_eq!(body, large());
    echo(&mut second, stream, b"{}");
    is_echoed(&mut client, b"{}");
}

#[test]
fn connections_that_end_take_a_request_sixteen_times_more_and_no_further() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut clients = [send(&gateway, &numbered(1)), send(&gateway, &numbered(2))];
    for _ in 0..17 {
        let mut peer = origin.accept_http2(&[WIDE]);
        let mut begun = BTreeMap::new();
        // Two on each, so that it is not this one request that it ends for.
        peer.request(&mut begun);
        peer.request(&mut begun);
        peer.send(&frame(GOAWAY, 0, 0, &[0; 8]));
    }
    for client in &mut clients {
        let response = client.response("POST");
        assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    }
    assert!(origin.is_left_alone());
}

#[test]
fn who_ends_the_connection_for_an_error_is_asked_once_more() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(1));
    for _ in 0..2 {
        let mut peer = origin.accept_http2(&[WIDE]);
        peer.request(&mut BTreeMap::new());
        peer.send(&frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]));
    }
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    assert!(origin.is_left_alone());
}

#[test]
fn who_was_given_up_for_its_silence_may_be_at_work_and_nothing_is_sent_again() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[http2]\nping = \"100ms\""));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, body) = peer.request(&mut BTreeMap::new());
    echo(&mut peer, stream, &body);
    is_echoed(&mut client, &body);
    let mut client = send(&gateway, &numbered(1));
    // It takes the request, and is not heard of again.
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    assert!(origin.is_left_alone());
}

#[test]
fn a_connection_that_says_nothing_takes_no_more_requests_than_one() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[timers]\nfirst_token = \"600ms\""));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, body) = peer.request(&mut BTreeMap::new());
    echo(&mut peer, stream, &body);
    is_echoed(&mut client, &body);
    // From here on nothing comes back.
    assert_eq!(send(&gateway, &numbered(1)).response("POST").head.status, 504);
    let mut client = send(&gateway, &numbered(2));
    let mut second = origin.accept_http2(&[WIDE]);
    let (stream, body) = second.request(&mut BTreeMap::new());
    echo(&mut second, stream, &body);
    is_echoed(&mut client, &numbered(2));
}

#[test]
fn nobody_waits_for_long_for_an_endpoint_that_never_says_what_it_allows() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[timers]\nfirst_token = \"600ms\""));
    let mut first = send(&gateway, &numbered(0));
    let silent = origin.accept();
    let mut second = send(&gateway, &numbered(1));
    assert_eq!(first.response("POST").head.status, 504);
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, body) = peer.request(&mut BTreeMap::new());
    echo(&mut peer, stream, &body);
    is_echoed(&mut second, &numbered(1));
    drop(silent);
}

#[test]
fn an_endpoint_has_said_what_it_allows_when_its_first_frame_is_whole() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut first = send(&gateway, &numbered(0));
    let mut second = send(&gateway, &numbered(1));
    let mut peer = origin.accept();
    // With the beginning of another, whose rest does not come.
    let begun = frame(WINDOW_UPDATE, 0, 0, &1000_u32.to_be_bytes());
    peer.send([frame(SETTINGS, 0, 0, &[]), begun[..7].to_vec()].concat());
    let bytes =
        peer.take_until(|bytes| bytes.windows(3).filter(|window| window == b"m-0" || window == b"m-1").count() == 2);
    assert!(!bytes.is_empty());
    peer.send(&begun[7..]);
    peer.send([answer(1, "200", &JSON_ANSWER, b"{}"), answer(3, "200", &JSON_ANSWER, b"{}")].concat());
    is_echoed(&mut first, b"{}");
    is_echoed(&mut second, b"{}");
}

#[test]
fn an_idle_connection_makes_room_for_another() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[pool]\nconnections_max = 1"));
    let mut client = send(&gateway, &numbered(0));
    let mut first = origin.accept_http2(&[WIDE]);
    let (stream, _) = first.request(&mut BTreeMap::new());
    first.send(&frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()));
    let mut second = origin.accept_http2(&[WIDE]);
    let (stream, body) = second.request(&mut BTreeMap::new());
    echo(&mut second, stream, &body);
    is_echoed(&mut client, &body);
    assert!(matches!(first.end(), Said::Ended(_)));
}

#[test]
fn that_there_is_no_room_is_not_why_a_request_failed_that_was_refused() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]).and("[pool]\nconnections_max = 1"));
    let mut begun = BTreeMap::new();
    let mut busy = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (other, body) = peer.request(&mut begun);
    let mut client = send(&gateway, &numbered(1));
    let (stream, _) = peer.request(&mut begun);
    peer.send(&frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()));
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
    echo(&mut peer, other, &body);
    is_echoed(&mut busy, &body);
}

#[test]
fn an_answer_whose_end_comes_behind_it_is_not_cancelled() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut client = send(&gateway, &numbered(0));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, _) = peer.request(&mut BTreeMap::new());
    let block =
        [field(b":status", b"200"), field(b"content-type", b"application/json"), field(b"content-length", b"2")];
    peer.send(&[head(stream, &block.concat(), false), frame(DATA, 0, stream, b"{}")].concat());
    is_echoed(&mut client, b"{}");
    peer.send(&[frame(DATA, END_STREAM, stream, b""), frame(PING, 0, 0, b"are you?")].concat());
    loop {
        match peer.frame().expect("a frame") {
            (PING, ..) => break,
            (kind, _, of, _) => assert!(kind != RST_STREAM, "stream {of} is reset"),
        }
    }
}

#[test]
fn frames_that_carry_nothing_are_not_counted_over_a_connections_whole_life() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut peer: Option<Http2> = None;
    for number in 0..150 {
        let mut client = send(&gateway, &numbered(number));
        let peer = peer.get_or_insert_with(|| origin.accept_http2(&[WIDE]));
        let (stream, body) = peer.request(&mut BTreeMap::new());
        let empty = frame(DATA, 0, stream, b"");
        let whole = answer(stream, "200", &JSON_ANSWER, &body);
        let (head, data) = whole.split_at(whole.len() - body.len() - 9);
        peer.send(&[head, &empty, data].concat());
        is_echoed(&mut client, &body);
    }
    assert!(origin.is_left_alone());
}

#[test]
fn those_who_leave_do_not_cut_off_those_who_stay() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let mut stays = send(&gateway, &chat("m", true));
    let mut peer = origin.accept_http2(&[WIDE]);
    let (stream, _) = peer.request(&mut BTreeMap::new());
    peer.send(&[head_of_events(stream), frame(DATA, 0, stream, content("a").as_bytes())].concat());
    let head = stays.head();
    let mut stays = stays.events(&head);
    assert_eq!(stays.next_event().expect("an event").raw, content("a").as_bytes());
    for _ in 0..300 {
        let leaves = send(&gateway, &chat("m", true));
        let (other, _) = peer.request(&mut BTreeMap::new());
        drop(leaves);
        let reset = peer.next();
        assert_eq!((reset.kind, reset.stream), (RST_STREAM, other));
        // What was on its way.
        let event = frame(DATA, 0, other, content("b").as_bytes());
        peer.send(&[head_of_events(other), event.repeat(8)].concat());
    }
    peer.send(&frame(DATA, END_STREAM, stream, (content("c") + FINISH + DONE).as_bytes()));
    assert_eq!(stays.next_event().expect("an event").raw, content("c").as_bytes());
    assert!(origin.is_left_alone());
}

#[test]
fn thirty_two_interim_answers_pass_and_one_more_is_refused() {
    for (count, status) in [(32, 200), (33, 502)] {
        let origin = Origin::start();
        let gateway = Gateway::start(&config(&[&origin]));
        let mut client = send(&gateway, &numbered(0));
        let mut peer = origin.accept_http2(&[WIDE]);
        let (stream, _) = peer.request(&mut BTreeMap::new());
        let hint = head(stream, &[field(b":status", b"103"), field(b"link", b"</a>")].concat(), false);
        peer.send(&[hint.repeat(count), answer(stream, "200", &JSON_ANSWER, b"{}")].concat());
        let mut hints = 0;
        let answer = loop {
            let head = client.head();
            if head.status != 103 {
                break client.body("POST", head);
            }
            hints += 1;
        };
        assert_eq!(answer.head.status, status, "{count}: {}", answer.text());
        assert!(hints == 32 || status == 502 && hints <= 32, "{hints} of {count}");
    }
}

#[test]
fn a_hundred_requests_share_a_connection_and_no_more_whatever_the_endpoint_allows() {
    let origin = Origin::start();
    let gateway = Gateway::start(&config(&[&origin]));
    let bodies: Vec<Vec<u8>> = (0..101).map(numbered).collect();
    let mut clients: Vec<Client> = bodies.iter().map(|body| send(&gateway, body)).collect();
    let mut peers = Vec::new();
    for expected in [100, 1] {
        let mut peer = origin.accept_http2(&[WIDE, (MAX_CONCURRENT_STREAMS, 1000)]);
        let mut begun = BTreeMap::new();
        let requests: Vec<(u32, Vec<u8>)> = (0..expected).map(|_| peer.request(&mut begun)).collect();
        assert_eq!(begun.len(), 0, "more than {expected} at once");
        peers.push((peer, requests));
    }
    for (peer, requests) in &mut peers {
        requests.iter().for_each(|(stream, body)| echo(peer, *stream, body));
    }
    clients.iter_mut().zip(&bodies).for_each(|(client, body)| is_echoed(client, body));
    assert!(origin.is_left_alone());
}

#[test]
fn ten_thousand_frames_that_carry_nothing_may_come_at_once() {
    // The settings that begin a connection count; and a thousand more may come each second, while others are looked at.
    for (count, status) in [(9_999, 200), (40_000, 502)] {
        let origin = Origin::start();
        let gateway = Gateway::start(&config(&[&origin]));
        let mut client = send(&gateway, &numbered(0));
        let mut peer = origin.accept_http2(&[WIDE]);
        let (stream, _) = peer.request(&mut BTreeMap::new());
        let unknown = frame(0xbb, 0, 0, &[1]).repeat(count);
        peer.send(&[unknown, answer(stream, "200", &JSON_ANSWER, b"{}")].concat());
        assert_eq!(client.response("POST").head.status, status, "{count}");
    }
}

#[test]
fn an_answers_head_below_64_kib_is_taken_and_one_of_64_kib_is_not() {
    // As HTTP/2 counts: 32 bytes for each field beside its name and value. The library takes less than it announces.
    let others = ":status200content-typeapplication/json".len() + "x-a".len() + 3 * 32;
    for (bytes, status) in [((64 << 10) - 1, 200), (64 << 10, 502)] {
        let origin = Origin::start();
        let gateway = Gateway::start(&config(&[&origin]));
        let mut client = send(&gateway, &numbered(0));
        let mut peer = origin.accept_http2(&[WIDE]);
        let (stream, _) = peer.request(&mut BTreeMap::new());
        let long = "v".repeat(bytes - others);
        peer.send(&answer(stream, "200", &[JSON_ANSWER[0], ("x-a", &long)], b"{}"));
        let response = client.response("POST");
        assert_eq!(response.head.status, status, "{bytes}: {}", response.text());
    }
}
