//! WebSockets from a client to a provider: nothing before the 101, everything after it, and the truth about how they end.

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::authority::server_config;
use common::pem::{Ca, Folder};
use common::process::{KEY as CLIENT_KEY, PROVIDER_KEY};
use common::websocket::{
    ACCEPT, BINARY, CLOSE, Frame, KEY, PING, PONG, TEXT, accept, frame, from_client, from_server, handshake, open,
    switched,
};
use common::{
    Authority, Client, Config, Ended, Gateway, Https, JSON, Origin, Peer, Records, chat, https, metric, metric_is,
    until_at_rest,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATH: &str = "/v1/realtime?model=m";
const DRIVERS: [&str; 2] = ["deferred", "epoll"];

fn gateway(origin: &Origin, more: &str) -> Gateway {
    Gateway::start(&Config::new(&[origin.url()]).and(more))
}

/// A gateway whose records are kept and whose figures can be read.
fn watched(origin: &Origin, more: &str) -> (Gateway, Records) {
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    (Gateway::start(&Config::new(&[origin.url()]).top(&top).admin().and(more)), records)
}

fn said(code: u16) -> Vec<u8> {
    code.to_be_bytes().to_vec()
}

/// The client is told so, and its connection ends in order.
fn closed_with(client: &mut Client, code: u16, words: &str) {
    let (got, reason) = from_server(client).close();
    assert!(got == code && reason.contains(words), "{got} {reason:?}");
    assert!(client.is_closed(), "its end follows: {:?}", client.held());
}

#[test]
fn both_sides_talk_as_they_like_until_they_close() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let (gateway, records) = watched(&origin, &format!("[ring]\ndriver = {driver:?}"));
        let mut client = gateway.connect();
        let more = "x-request-id: mine\r\nsec-websocket-protocol: realtime, other\r\nsec-websocket-extensions: x\r\n";
        client.send(handshake(PATH, more).as_bytes());
        let mut peer = origin.accept();
        let request = peer.head();
        assert_eq!(request.line, "GET /v1/realtime?model=m HTTP/1.1", "{driver}");
        assert_eq!(request.get("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()), "{request:?}");
        assert_ne!(request.get("sec-websocket-key"), Some(KEY), "a key of the gateway's own: {request:?}");
        assert_eq!(request.get("sec-websocket-protocol"), Some("realtime, other"), "{request:?}");
        assert_eq!(request.get("sec-websocket-extensions"), None, "{request:?}");
        assert_eq!(request.get("content-length").or(request.get("transfer-encoding")), None, "{request:?}");
        metric_is(&gateway, "ringway_websockets_open", &[], 1.0);
        peer.send(switched(&request, "sec-websocket-protocol: realtime\r\nx-own: kept\r\n"));
        let head = client.head();
        assert_eq!((head.status, head.get("sec-websocket-accept")), (101, Some(ACCEPT)), "{head:?}");
        assert_eq!(head.all("connection"), ["upgrade"], "{head:?}");
        assert_eq!((head.get("upgrade"), head.get("x-own")), (Some("websocket"), Some("kept")), "{head:?}");
        assert_eq!(head.get("sec-websocket-protocol"), Some("realtime"), "{head:?}");
        assert_eq!(head.get("x-request-id"), Some("mine"), "{head:?}");
        assert_eq!(head.get("content-length").or(head.get("transfer-encoding")), None, "{head:?}");

        let long: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        for (first, payload) in
            [(TEXT, &b"hello"[..]), (PING, b"?"), (BINARY, &long), (TEXT, b""), (0x01, b"in "), (0x80, b"two")]
        {
            // Which may be more than sockets hold.
            let sending = std::thread::scope(|scope| {
                let bytes = frame(true, first, payload);
                let mut socket = client.socket().try_clone().expect("the socket");
                scope.spawn(move || socket.write_all(&bytes).expect("the gateway reads"));
                from_client(&mut peer)
            });
            assert_eq!(sending, Frame(first, payload.to_vec()), "{driver}");
            let back = std::thread::scope(|scope| {
                let bytes = frame(false, first, payload);
                let mut socket = peer.socket().try_clone().expect("the socket");
                scope.spawn(move || socket.write_all(&bytes).expect("the gateway reads"));
                from_server(&mut client)
            });
            assert_eq!(back, Frame(first, payload.to_vec()), "{driver}");
        }
        let bytes = (5 + long.len() + 6) as f64;
        metric_is(&gateway, "ringway_websocket_bytes_total", &[("direction", "received")], bytes);
        metric_is(&gateway, "ringway_websocket_bytes_total", &[("direction", "sent")], bytes);

        client.send(&frame(true, CLOSE, &said(1000)));
        assert_eq!(from_client(&mut peer), Frame(CLOSE, said(1000)), "{driver}");
        peer.send(frame(false, CLOSE, &said(1000)));
        assert_eq!(from_server(&mut client), Frame(CLOSE, said(1000)), "{driver}");
        assert!(client.is_closed(), "{driver}");
        assert_eq!(peer.ended(), Ended::Fin, "{driver}");
        drop((client, peer));
        let record = records.of("mine");
        for (name, value) in [
            ("status", serde_json::json!(101)),
            ("upstream_status", 101.into()),
            ("state", "complete".into()),
            ("ended_by", "client".into()),
            ("websocket_end", "client_closed".into()),
            ("close_code", 1000.into()),
            ("messages_received", 4.into()),
            ("messages_sent", 4.into()),
            ("request_bytes", (bytes as u64).into()),
            ("answer_bytes", (bytes as u64).into()),
            ("model", "m".into()),
            ("endpoint", "mock/0".into()),
            ("reused", false.into()),
        ] {
            assert_eq!(record[name], value, "{driver} {name}: {record}");
        }
        assert!(record.get("error_code").is_none(), "{driver}: {record}");
        assert!(record["sent_bytes"].as_u64() > record["answer_bytes"].as_u64(), "{driver}: {record}");
        metric_is(&gateway, "ringway_websocket_ends_total", &[("reason", "client_closed")], 1.0);
        assert_eq!(metric(&gateway, "ringway_websocket_messages_total", &[]), 8.0, "{driver}");
        assert_eq!(metric(&gateway, "ringway_requests_total", &[("status", "1xx"), ("state", "complete")]), 1.0);
        assert_eq!(metric(&gateway, "ringway_websockets_open", &[]), 0.0, "{driver}");
        until_at_rest(&gateway);
        assert_eq!(metric(&gateway, "ringway_upstream_connections_idle", &[]), 0.0, "{driver}: none is kept");
    }
}

#[test]
fn frames_pass_byte_by_byte_and_many_at_once() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let gateway = gateway(&origin, &format!("[ring]\ndriver = {driver:?}"));
        let (mut client, mut peer) = open(&gateway, &origin, PATH);
        let frames = [(TEXT, &b"a"[..]), (PING, b""), (BINARY, &[7; 300]), (PONG, b"x")];
        let whole = |is_client| frames.map(|(first, payload)| frame(is_client, first, payload)).concat();
        for byte in whole(true) {
            client.send(&[byte]);
        }
        for byte in whole(false) {
            peer.send([byte]);
        }
        client.send(&whole(true).repeat(100));
        peer.send(whole(false).repeat(100));
        for _ in 0..101 {
            for (first, payload) in frames {
                assert_eq!(from_client(&mut peer), Frame(first, payload.to_vec()), "{driver}");
                assert_eq!(from_server(&mut client), Frame(first, payload.to_vec()), "{driver}");
            }
        }
    }
}

#[test]
fn a_handshake_that_is_none_is_told_what_is_wrong() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let good = handshake(PATH, "");
    for (name, request, status, code) in [
        ("no key", good.replace("sec-websocket-key", "x-key"), 400, "malformed_request"),
        ("a short key", good.replace(KEY, "c2hvcnQ="), 400, "malformed_request"),
        ("version 8", good.replace("version: 13", "version: 8"), 426, "websocket_version"),
        ("no version", good.replace("sec-websocket-version", "x-version"), 426, "websocket_version"),
        ("no Connection", good.replace("connection: Upgrade", "connection: keep-alive"), 400, "malformed_request"),
        ("a body", handshake(PATH, "content-length: 2\r\n") + "{}", 400, "malformed_request"),
        ("a page", handshake(PATH, "origin: https://evil.example\r\n"), 403, "origin_not_allowed"),
        ("no API key", good.replace(JSON[0].1, "Basic eA=="), 401, "missing_api_key"),
        ("a wrong API key", good.replace(CLIENT_KEY, "sk-other"), 401, "invalid_api_key"),
        ("not below /v1", handshake("/realtime", ""), 404, "not_found"),
    ] {
        let mut client = gateway.connect();
        let response = client.send(request.as_bytes()).response("GET");
        let error = response.json()["error"]["code"].clone();
        assert_eq!((response.head.status, error.as_str()), (status, Some(code)), "{name}: {}", response.text());
        if status == 426 {
            assert_eq!(response.head.get("sec-websocket-version"), Some("13"), "{name}");
            assert_eq!(response.head.get("upgrade"), Some("websocket"), "{name}");
            assert!(response.head.all("connection").contains(&"upgrade"), "{name}: {:?}", response.head);
        }
        assert!(origin.is_left_alone(), "{name}");
    }
    // What is no GET, and what is HTTP/1.0, asks for no WebSocket at all.
    let mut client = gateway.connect();
    let body = String::from_utf8(chat("m", false)).expect("JSON");
    let post = handshake("/v1/chat/completions", &format!("content-length: {}\r\n", body.len())).replace("GET", "POST");
    client.send((post + &body).as_bytes());
    let mut peer = origin.accept();
    let request = peer.request();
    assert_eq!((request.get("upgrade"), request.get("sec-websocket-key")), (None, None), "{request:?}");
    peer.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);
}

#[test]
fn an_answer_that_switches_nothing_or_something_else_opens_nothing() {
    let origin = Origin::start();
    let (gateway, _) = watched(&origin, "");
    let long = "x".repeat(100_000);
    for (name, answer, status, text) in [
        ("a refusal", "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_owned(), 403, "no"),
        ("a long one", format!("HTTP/1.1 404 Not Found\r\ncontent-length: 100000\r\n\r\n{long}"), 404, long.as_str()),
        ("success", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(), 200, "{}"),
        (
            "another accept",
            "HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: eA==\r\n\r\n"
                .to_owned(),
            502,
            "upstream_malformed",
        ),
        (
            "no accept",
            "HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_owned(),
            502,
            "upstream_malformed",
        ),
        (
            "something else",
            "HTTP/1.1 101 S\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n".to_owned(),
            502,
            "upstream_malformed",
        ),
        ("an extension", "EXT".to_owned(), 502, "a WebSocket extension"),
        ("a protocol", "PROTOCOL".to_owned(), 502, "a subprotocol that was not offered"),
        ("nothing", String::new(), 502, "upstream_failed"),
        ("half of it", "HTTP/1.1 101 S\r\nupgr".to_owned(), 502, "upstream_failed"),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 502, "upstream_malformed"),
    ] {
        let mut client = gateway.connect();
        client.send(handshake(PATH, "sec-websocket-protocol: a\r\n").as_bytes());
        let mut peer = origin.accept();
        let request = peer.head();
        // Frames behind what opens nothing are nobody's.
        let behind = if status == 502 { frame(false, TEXT, b"lies") } else { Vec::new() };
        match answer.as_str() {
            "EXT" => peer.send(switched(&request, "sec-websocket-extensions: permessage-deflate\r\n")),
            "PROTOCOL" => peer.send(switched(&request, "sec-websocket-protocol: b\r\n")),
            answer => peer.send(answer),
        };
        peer.try_send(&behind[..if answer.len() > 30 { behind.len() } else { 0 }]);
        // Of what it lied about it may be closed by now.
        let _ = peer.socket().shutdown(std::net::Shutdown::Write);
        let response = client.response("GET");
        assert_eq!(response.head.status, status, "{name}: {}", response.text());
        assert!(response.text().contains(text), "{name}: {}", response.text());
        assert!(client.is_closed(), "{name}: what a client has sent ahead is no request");
        peer.ended();
    }
    until_at_rest(&gateway);
    assert_eq!(metric(&gateway, "ringway_upstream_connections_idle", &[]), 0.0, "none of these is kept");
    assert_eq!(metric(&gateway, "ringway_websockets_open", &[]), 0.0);
}

#[test]
fn a_switch_that_was_not_asked_for_is_refused_still() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
    let mut peer = origin.accept();
    peer.request();
    let accept = accept(KEY);
    peer.send(format!(
        "HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    ));
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_malformed".into()));
}

#[test]
fn until_the_101_endpoints_are_tried_in_turn_and_after_it_never() {
    let (gone, liar, good) = (Origin::start(), Origin::start(), Origin::start());
    let urls = [gone.url(), liar.url(), good.url()];
    drop(gone);
    let gateway = Gateway::start(&Config::new(&urls).admin());
    let (at_liar, at_good) = (std::thread::spawn(move || liar.accept_some_time()), good);
    let mut client = gateway.connect();
    client.send(handshake(PATH, "").as_bytes());
    // Which of the others is asked first is by chance.
    let serve = |mut peer: Peer, lies: bool| {
        let request = peer.head();
        if lies {
            peer.send("HTTP/1.1 101 S\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
            peer.ended();
        } else {
            peer.send(switched(&request, ""));
        }
        peer
    };
    let liar = std::thread::spawn(move || serve(at_liar.join().expect("a connection"), true));
    let mut peer = serve(at_good.accept(), false);
    assert_eq!(client.head().status, 101);
    client.send(&frame(true, TEXT, b"here"));
    assert_eq!(from_client(&mut peer), Frame(TEXT, b"here".to_vec()));
    peer.half_close();
    assert!(client.is_closed(), "nobody else is asked now");
    // It may never have been asked.
    drop((gateway, liar));
}

#[test]
fn nothing_of_a_client_goes_on_before_the_101_and_all_of_it_after() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let gateway = gateway(
            &origin,
            &format!(
                "[ring]\ndriver = {driver:?}\n[limits]\nstream_bytes_max = \"4KiB\"\n[websocket]\nmessage_bytes_max = \"64MiB\""
            ),
        );
        for size in [10, 30_000_000] {
            let mut client = gateway.connect();
            let early = frame(true, BINARY, &vec![5; size]);
            let whole = [handshake(PATH, "").as_bytes(), &early].concat();
            let mut socket = client.socket().try_clone().expect("the socket");
            let sender = std::thread::spawn(move || socket.write_all(&whole).expect("it is read in the end"));
            let mut peer = origin.accept();
            let request = peer.head();
            assert!(peer.is_quiet(), "{driver}");
            if size > 1_000_000 {
                assert!(!sender.is_finished(), "{driver}: more is read than may be held");
            }
            // An answer with frames right behind it.
            let behind = frame(false, TEXT, b"at once");
            peer.send([switched(&request, "").as_bytes(), &behind].concat());
            assert_eq!(client.head().status, 101, "{driver}");
            assert_eq!(from_server(&mut client), Frame(TEXT, b"at once".to_vec()), "{driver}");
            assert_eq!(from_client(&mut peer), Frame(BINARY, vec![5; size]), "{driver}");
            sender.join().expect("sent");
        }
        // Before it, an interim answer says nothing.
        let mut client = gateway.connect();
        client.send(&[handshake(PATH, "").as_bytes(), &frame(true, TEXT, b"early")].concat());
        let mut peer = origin.accept();
        let request = peer.head();
        peer.send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        assert!(peer.is_quiet(), "{driver}");
        peer.send(switched(&request, ""));
        assert_eq!(from_client(&mut peer), Frame(TEXT, b"early".to_vec()), "{driver}");
    }
}

#[test]
fn whoever_breaks_a_rule_is_told_and_the_other_is_let_go() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let max = "[websocket]\nmessage_bytes_max = \"1KiB\"";
        let (gateway, records) = watched(&origin, &format!("{max}\n[ring]\ndriver = {driver:?}"));
        let ids = AtOnce::default();
        for (name, bad, code) in [
            ("not masked", frame(false, TEXT, b"a"), 1002),
            ("a reserved bit", frame(true, 0xc1, b"a"), 1002),
            ("an opcode", frame(true, 0x83, b"a"), 1002),
            ("a long ping", frame(true, PING, &[0; 126]), 1002),
            ("a continuation of nothing", frame(true, 0x80, b"a"), 1002),
            ("a Close without a code", frame(true, CLOSE, b"a"), 1002),
            ("too large", frame(true, BINARY, &[0; 1025]), 1009),
            ("too large in two", [frame(true, 0x02, &[0; 1000]), frame(true, 0x80, &[0; 25])].concat(), 1009),
        ] {
            let (mut client, mut peer) = ids.open(&gateway, &origin);
            let fits = frame(true, BINARY, &[1; 1024]);
            client.send(&[&fits[..], &bad].concat());
            assert_eq!(from_client(&mut peer), Frame(BINARY, vec![1; 1024]), "{driver} {name}");
            if name == "too large in two" {
                assert_eq!(from_client(&mut peer), Frame(0x02, vec![0; 1000]), "{driver} {name}");
            }
            closed_with(&mut client, code, if code == 1009 { "larger" } else { "RFC 6455" });
            let (told, reason) = from_client(&mut peer).close();
            assert!(told == 1001 && reason.contains("client"), "{driver} {name}: {told} {reason}");
            assert_eq!(peer.ended(), Ended::Fin, "{driver} {name}");
            let record = records.of(&ids.last());
            assert_eq!(record["websocket_end"], "client_broke_rules", "{driver} {name}: {record}");
            assert_eq!((&record["error_origin"], &record["close_code"]), (&"client".into(), &code.into()), "{record}");
        }
        for (name, bad, code) in [
            ("masked", frame(true, TEXT, b"a"), 1002),
            ("a reserved bit", frame(false, 0xc1, b"a"), 1002),
            ("a length of 64 bits", vec![BINARY, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
            ("a message in a message", [frame(false, 0x01, b""), frame(false, TEXT, b"")].concat(), 1002),
            ("too large", frame(false, BINARY, &[0; 1025]), 1009),
            ("far too large", vec![BINARY, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1009),
        ] {
            let (mut client, mut peer) = ids.open(&gateway, &origin);
            peer.send([frame(false, BINARY, &[1; 1024]), bad].concat());
            assert_eq!(from_server(&mut client), Frame(BINARY, vec![1; 1024]), "{driver} {name}");
            if name == "a message in a message" {
                assert_eq!(from_server(&mut client), Frame(0x01, vec![]), "{driver} {name}");
            }
            closed_with(&mut client, 1011, "the provider failed");
            let (told, _) = from_client(&mut peer).close();
            assert_eq!((told, peer.ended()), (code, Ended::Fin), "{driver} {name}");
            let record = records.of(&ids.last());
            assert_eq!(record["websocket_end"], "upstream_broke_rules", "{driver} {name}: {record}");
            assert_eq!((&record["state"], &record["error_origin"]), (&"truncated".into(), &"upstream".into()));
        }
        metric_is(&gateway, "ringway_websockets_open", &[], 0.0);
    }
}

/// Ids for WebSockets, one after another.
#[derive(Default)]
struct AtOnce(std::cell::Cell<u32>);

impl AtOnce {
    fn open(&self, gateway: &Gateway, origin: &Origin) -> (Client, Peer) {
        self.0.set(self.0.get() + 1);
        let mut client = gateway.connect();
        client.send(handshake(PATH, &format!("x-request-id: {}\r\n", self.last())).as_bytes());
        let mut peer = origin.accept();
        let request = peer.head();
        peer.send(switched(&request, ""));
        assert_eq!(client.head().status, 101);
        (client, peer)
    }

    fn last(&self) -> String {
        format!("id-{}", self.0.get())
    }
}

#[test]
fn an_end_without_a_close_is_told_as_that() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let (gateway, records) = watched(&origin, &format!("[ring]\ndriver = {driver:?}"));
        let ids = AtOnce::default();
        let end_of = |id: &AtOnce| {
            let record = records.of(&id.last());
            let word = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
            (word("websocket_end"), word("state"), word("ended_by"))
        };
        let words = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());

        let (mut client, mut peer) = ids.open(&gateway, &origin);
        peer.send(frame(false, TEXT, b"last")).half_close();
        assert_eq!(from_server(&mut client), Frame(TEXT, b"last".to_vec()), "{driver}");
        assert_eq!(client.socket().read(&mut [0]).expect("a FIN"), 0, "{driver}: and no Close");
        assert_eq!(end_of(&ids), words("upstream_gone", "truncated", "upstream"), "{driver}");

        let (mut client, peer) = ids.open(&gateway, &origin);
        peer.reset();
        assert!(client.is_closed(), "{driver}");
        assert_eq!(end_of(&ids), words("upstream_gone", "truncated", "upstream"), "{driver}");

        // In the middle of a frame.
        let (mut client, mut peer) = ids.open(&gateway, &origin);
        peer.send(&frame(false, TEXT, b"half")[..4]).half_close();
        assert_eq!(client.take(4), &frame(false, TEXT, b"half")[..4], "{driver}");
        assert!(client.is_closed(), "{driver}");

        for leaves in ["fin", "rst", "half a frame", "close unanswered"] {
            let (mut client, mut peer) = ids.open(&gateway, &origin);
            match leaves {
                "fin" => client.half_close(),
                "half a frame" => {
                    client.send(&frame(true, TEXT, b"half")[..8]);
                    assert_eq!(peer.take(8).len(), 8, "{driver}");
                    drop(client);
                }
                "close unanswered" => {
                    client.send(&frame(true, CLOSE, &said(1001)));
                    client.half_close();
                    assert_eq!(from_client(&mut peer), Frame(CLOSE, said(1001)), "{driver}");
                    peer.send(frame(false, CLOSE, &said(1001)));
                }
                _ => {
                    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                    let option = nix::sys::socket::sockopt::Linger;
                    nix::sys::socket::setsockopt(client.socket(), option, &linger).expect("SO_LINGER");
                    drop(client);
                }
            }
            peer.ended();
            let expected = match leaves {
                "close unanswered" => words("client_closed", "complete", "client"),
                _ => words("client_gone", "client_gone", "client"),
            };
            assert_eq!(end_of(&ids), expected, "{driver} {leaves}");
        }

        // Closed by the provider, which does not wait; the client learns of it, and of nothing else.
        let (mut client, mut peer) = ids.open(&gateway, &origin);
        peer.send(frame(false, CLOSE, &said(1013))).half_close();
        assert_eq!(from_server(&mut client), Frame(CLOSE, said(1013)), "{driver}");
        client.send(&frame(true, CLOSE, &said(1013)));
        assert!(client.is_closed(), "{driver}");
        assert_eq!(end_of(&ids), words("upstream_closed", "complete", "upstream"), "{driver}");
        until_at_rest(&gateway);
    }
}

#[test]
fn a_client_that_leaves_before_the_101_takes_its_handshake_with_it() {
    let origin = Origin::start();
    let (gateway, _) = watched(&origin, "");
    let mut client = gateway.connect();
    client.send(handshake(PATH, "").as_bytes());
    let mut peer = origin.accept();
    peer.head();
    drop(client);
    peer.ended();
    metric_is(&gateway, "ringway_websockets_open", &[], 0.0);
    until_at_rest(&gateway);
}

#[test]
fn silence_ends_a_tunnel_and_a_ping_is_none() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let (gateway, records) =
            watched(&origin, &format!("[websocket]\nidle = \"400ms\"\n[ring]\ndriver = {driver:?}"));
        let ids = AtOnce::default();
        let (mut client, mut peer) = ids.open(&gateway, &origin);
        let start = std::time::Instant::now();
        // Pings from one side only, for longer than either may be silent.
        while start.elapsed() < Duration::from_millis(1000) {
            client.send(&frame(true, PING, b""));
            assert_eq!(from_client(&mut peer), Frame(PING, vec![]), "{driver}");
            assert!(client.is_silent_for(Duration::from_millis(20)), "{driver}");
        }
        let quiet = std::time::Instant::now();
        closed_with(&mut client, 1001, "nothing came");
        assert!(quiet.elapsed() >= Duration::from_millis(350), "{driver}: after {:?}", quiet.elapsed());
        assert_eq!(from_client(&mut peer).close().0, 1001, "{driver}");
        assert_eq!(peer.ended(), Ended::Fin, "{driver}");
        let record = records.of(&ids.last());
        assert_eq!((&record["websocket_end"], &record["ended_by"]), (&"idle".into(), &"gateway".into()), "{record}");

        // In the middle of a frame nothing can be said.
        let (mut client, mut peer) = ids.open(&gateway, &origin);
        peer.send(&frame(false, TEXT, b"half")[..4]);
        client.take(4);
        assert!(client.is_closed(), "{driver}: no Close within a frame");
        assert_eq!(from_client(&mut peer).close().0, 1001, "{driver}");
    }
}

#[test]
fn a_tunnel_lasts_as_long_as_it_may_whatever_goes_on() {
    let origin = Origin::start();
    let (gateway, records) = watched(&origin, "[websocket]\ntotal = \"300ms\"");
    let ids = AtOnce::default();
    let (mut client, mut peer) = ids.open(&gateway, &origin);
    let mut socket = client.socket().try_clone().expect("the socket");
    let sender = std::thread::spawn(move || while socket.write_all(&frame(true, TEXT, b"on")).is_ok() {});
    let close = loop {
        match from_client(&mut peer) {
            Frame(TEXT, _) => {}
            close => break close,
        }
    };
    assert_eq!(close.close().0, 1001);
    drop(peer);
    assert_eq!(from_server(&mut client).close().0, 1001);
    drop(client);
    sender.join().expect("it ends");
    assert_eq!(records.of(&ids.last())["websocket_end"], "total");
}

#[test]
fn so_many_are_open_and_no_more() {
    let origin = Origin::start();
    let (gateway, _) = watched(&origin, "[websocket]\nconnections_max = 2");
    let (first, second) = (open(&gateway, &origin, PATH), open(&gateway, &origin, PATH));
    let mut third = gateway.connect();
    let response = third.send(handshake(PATH, "").as_bytes()).response("GET");
    assert_eq!((response.head.status, response.head.get("retry-after")), (503, Some("1")), "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "websockets_exhausted");
    assert!(origin.is_left_alone());
    drop(first);
    metric_is(&gateway, "ringway_websockets_open", &[], 1.0);
    let again = open(&gateway, &origin, PATH);
    drop((second, again));
    let none = gateway_without(&origin);
    assert_eq!(none.connect().send(handshake(PATH, "").as_bytes()).response("GET").head.status, 503);
}

fn gateway_without(origin: &Origin) -> Gateway {
    gateway(origin, "[websocket]\nconnections_max = 0")
}

#[test]
fn a_side_that_does_not_read_holds_up_its_own_tunnel_alone() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let gateway = gateway(&origin, &format!("[ring]\ndriver = {driver:?}"));
        let (mut slow, mut busy) = open(&gateway, &origin, PATH);
        let (mut client, mut peer) = open(&gateway, &origin, PATH);
        let piece: Vec<u8> = (0..100_000_u32).map(|at| (at % 253) as u8).collect();
        const PIECES: usize = 400;
        let bytes = frame(false, BINARY, &piece);
        let mut socket = busy.socket().try_clone().expect("the socket");
        let sender =
            std::thread::spawn(move || (0..PIECES).for_each(|_| socket.write_all(&bytes).expect("read in the end")));
        for _ in 0..50 {
            client.send(&frame(true, TEXT, b"?"));
            assert_eq!(from_client(&mut peer), Frame(TEXT, b"?".to_vec()), "{driver}");
            peer.send(frame(false, TEXT, b"!"));
            assert_eq!(from_server(&mut client), Frame(TEXT, b"!".to_vec()), "{driver}");
        }
        assert!(!sender.is_finished(), "{driver}: 40 MB are more than anybody holds");
        // The other way of the same tunnel is free.
        slow.send(&frame(true, TEXT, b"slow"));
        assert_eq!(from_client(&mut busy), Frame(TEXT, b"slow".to_vec()), "{driver}");
        for at in 0..PIECES {
            assert_eq!(from_server(&mut slow), Frame(BINARY, piece.clone()), "{driver} {at}");
        }
        sender.join().expect("sent");
    }
}

#[test]
fn who_takes_nothing_at_all_is_given_up() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let (gateway, records) = watched(&origin, &format!("[client]\nwrite = \"300ms\"\n[ring]\ndriver = {driver:?}"));
        let ids = AtOnce::default();
        let flood = |socket: &std::net::TcpStream, is_client| {
            let mut socket = socket.try_clone().expect("the socket");
            let bytes = frame(is_client, BINARY, &[0; 100_000]);
            std::thread::spawn(move || while socket.write_all(&bytes).is_ok() {})
        };
        let (client, mut peer) = ids.open(&gateway, &origin);
        let sent = flood(peer.socket(), false);
        let (code, reason) = from_client(&mut peer).close();
        assert!(code == 1001 && reason.contains("does not read"), "{driver}: {code} {reason}");
        drop(peer);
        sent.join().expect("it ends");
        assert_eq!(records.of(&ids.last())["websocket_end"], "client_stalled", "{driver}");
        drop(client);

        let (mut client, peer) = ids.open(&gateway, &origin);
        let sent = flood(client.socket(), true);
        assert_eq!(from_server(&mut client).close().0, 1011, "{driver}");
        let record = records.of(&ids.last());
        assert_eq!(
            (&record["websocket_end"], &record["error_code"]),
            (&"upstream_stalled".into(), &"upstream_stalled".into())
        );
        drop((client, peer));
        sent.join().expect("it ends");

        // One that leaves while its provider takes nothing is noticed all the same.
        let (client, peer) = ids.open(&gateway, &origin);
        let sent = flood(client.socket(), true);
        metric_is(&gateway, "ringway_websockets_open", &[], 1.0);
        client.socket().shutdown(std::net::Shutdown::Both).expect("open");
        records.of(&ids.last());
        sent.join().expect("it ends");
        drop(peer);
    }
}

#[test]
fn a_gateway_that_ends_lets_them_talk_and_then_says_so() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let records = Records::new();
        let top = format!("cores = \"0\"\n{}", records.line());
        let more = format!("[client]\ndrain = \"500ms\"\n[ring]\ndriver = {driver:?}");
        let mut gateway = Gateway::start(&Config::new(&[origin.url()]).top(&top).and(&more));
        let ids = AtOnce::default();
        let (mut client, mut peer) = ids.open(&gateway, &origin);
        kill(Pid::from_raw(gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        gateway.process.lines_until("SIGTERM");
        client.send(&frame(true, TEXT, b"still here"));
        assert_eq!(from_client(&mut peer), Frame(TEXT, b"still here".to_vec()), "{driver}");
        closed_with(&mut client, 1001, "being stopped");
        assert_eq!(from_client(&mut peer).close().0, 1001, "{driver}");
        drop((client, peer));
        assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
        let record = records.of(&ids.last());
        assert_eq!((&record["websocket_end"], &record["error_code"]), (&"shutdown".into(), &"shutting_down".into()));
    }
}

#[test]
fn a_page_may_open_one_where_it_is_listed_with_its_key_among_the_protocols() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "[cors]\norigins = [\"https://app.example\"]");
    let key = format!("realtime, openai-insecure-api-key.{CLIENT_KEY}, openai-beta.realtime-v1");
    let page = |from: &str, protocols: &str| {
        let lines = format!("origin: {from}\r\nsec-websocket-protocol: {protocols}\r\n");
        let line = format!("authorization: {}\r\n", JSON[0].1);
        handshake(PATH, &lines).replace(&line, "")
    };
    for from in ["https://app.example", "http://gateway.test"] {
        let mut client = gateway.connect();
        client.send(page(from, &key).as_bytes());
        let mut peer = origin.accept();
        let request = peer.head();
        assert_eq!(request.get("sec-websocket-protocol"), Some("realtime, openai-beta.realtime-v1"), "{from}");
        let seen = format!("{request:?}");
        assert!(!seen.contains(CLIENT_KEY) && !seen.contains("app.example"), "{seen}");
        assert_eq!(request.get("origin"), None, "{seen}");
        peer.send(switched(&request, "sec-websocket-protocol: realtime\r\n"));
        let head = client.head();
        assert_eq!((head.status, head.get("sec-websocket-protocol")), (101, Some("realtime")), "{from}");
    }
    for (from, protocols, status) in [
        ("https://evil.example", key.as_str(), 403),
        ("http://gateway.test:81", &key, 403),
        ("null", &key, 403),
        ("https://app.example", "realtime, openai-insecure-api-key.sk-wrong", 401),
        ("https://app.example", "realtime", 401),
    ] {
        let response = gateway.connect().send(page(from, protocols).as_bytes()).response("GET");
        assert_eq!(response.head.status, status, "{from} {protocols}: {}", response.text());
    }
    assert!(origin.is_left_alone());
}

#[test]
fn the_query_names_the_model_under_its_provider_s_name() {
    let origin = Origin::start();
    let models = "[[models]]\nname = \"talk\"\nroute = [{ provider = \"mock\", model = \"gpt realtime/1\" }]";
    let gateway = Gateway::start(&Config::new(&[origin.url()]).models(models));
    let mut client = gateway.connect();
    client.send(handshake("/v1/realtime?a=b&model=talk&c", "").as_bytes());
    let mut peer = origin.accept();
    let request = peer.head();
    assert_eq!(request.line, "GET /v1/realtime?a=b&model=gpt%20realtime%2F1&c HTTP/1.1");
    peer.send(switched(&request, ""));
    assert_eq!(client.head().status, 101);
    for (path, status, code) in [
        ("/v1/realtime?model=other", 404, "model_not_found"),
        ("/v1/realtime", 400, "model_missing"),
        ("/v1/realtime?model=talk&model=other", 400, "duplicate_field"),
    ] {
        let response = gateway.connect().send(handshake(path, "").as_bytes()).response("GET");
        let error = response.json()["error"]["code"].clone();
        assert_eq!((response.head.status, error.as_str()), (status, Some(code)), "{path}: {}", response.text());
    }
}

#[test]
fn over_tls_on_both_sides_and_in_http_1_1_to_a_provider_that_speaks_both() {
    let (authority, folder, theirs) = (Ca::new(), Folder::new(), Authority::new("theirs"));
    folder.pair("own", &authority.sign(&["gateway.test"]));
    let [chain, key] = ["own.pem", "own.key"].map(|name| folder.path(name).display().to_string());
    let listener = format!("[listeners.tls]\ncertificates = [{{ chain = {chain:?}, key = {key:?} }}]");
    let server = server_config(theirs.sign("127.0.0.1", false), &rustls::version::TLS13);
    let mut server = std::sync::Arc::unwrap_or_clone(server);
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let server = std::sync::Arc::new(server);
    for driver in DRIVERS {
        let origin = Origin::start();
        let endpoint = format!("ca = \"{}\"", theirs.file.display());
        let config = Config::new(&[origin.url().replace("http:", "https:")]).endpoint(&endpoint).listener(&listener);
        let gateway = Gateway::start(&config.and(&format!("[ring]\ndriver = {driver:?}")));
        let mut client = Https::connect(gateway.address(), &https::client(&authority, https::BOTH), "gateway.test");
        client.send(handshake(PATH, "").as_bytes());
        let mut peer = origin.accept().secure(&server);
        assert_eq!(peer.protocol(), Some(&b"http/1.1"[..]), "{driver}: nothing else was offered");
        let request = peer.head();
        peer.send(switched(&request, ""));
        assert!(client.head().starts_with("http/1.1 101 "), "{driver}");
        let long = vec![4; 200_000];
        for round in 0..3 {
            client.send(&frame(true, BINARY, &long));
            assert_eq!(from_client(&mut peer), Frame(BINARY, long.clone()), "{driver}");
            peer.send(frame(false, BINARY, &long));
            let back = common::websocket::read(false, |count| client.take(count));
            assert_eq!(back, Frame(BINARY, long.clone()), "{driver}");
            if round == 1 {
                // Long enough for the room on both sides to be given up.
                client.socket().set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
                assert!(client.fill().is_err(), "{driver}: it is silent");
                client.socket().set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
            }
        }
        peer.send(frame(false, CLOSE, &said(1000)));
        let close = common::websocket::read(false, |count| client.take(count));
        assert_eq!(close, Frame(CLOSE, said(1000)), "{driver}");
        client.send(&frame(true, CLOSE, &said(1000)));
        assert_eq!(from_client(&mut peer), Frame(CLOSE, said(1000)), "{driver}");
        assert!(client.ends_properly(), "{driver}");
    }
}

#[test]
fn an_endpoint_that_is_spoken_to_in_http_2_alone_is_passed_over() {
    let (only, both) = (Origin::start(), Origin::start());
    let endpoint = |origin: &Origin, more: &str| format!("{{ url = \"{}\"{more} }}", origin.url());
    let config = |endpoints: &str| {
        let tables = format!(
            "cores = \"0\"\nlisteners = [{{ address = \"127.0.0.1:0\", access = \"open\" }}]\n\
             providers = [{{ name = \"p\", endpoints = [{endpoints}] }}]\n\
             models = [{{ name = \"*\", route = [{{ provider = \"p\" }}] }}]\n"
        );
        Gateway::start(&Config::raw(&tables))
    };
    let prior = endpoint(&only, ", http2 = \"prior-knowledge\"");
    let gateway = config(&prior);
    let response = gateway.connect().send(handshake(PATH, "").as_bytes()).response("GET");
    assert_eq!((response.head.status, response.json()["error"]["code"].as_str()), (502, Some("upstream_unreachable")));
    assert!(response.text().contains("prior-knowledge"), "{}", response.text());
    let gateway = config(&format!("{prior}, {}", endpoint(&both, "")));
    for _ in 0..8 {
        open(&gateway, &both, PATH);
    }
    assert!(only.is_left_alone());
}

#[test]
fn a_tunnel_that_rests_wakes_up_with_every_byte() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let gateway = gateway(&origin, &format!("[ring]\ndriver = {driver:?}"));
        let (mut client, mut peer) = open(&gateway, &origin, PATH);
        for size in [1, 64, 65, 5000] {
            assert!(client.is_silent_for(Duration::from_millis(700)), "{driver}");
            client.send(&frame(true, BINARY, &vec![1; size]));
            assert_eq!(from_client(&mut peer), Frame(BINARY, vec![1; size]), "{driver}");
            peer.send(frame(false, BINARY, &vec![2; size]));
            assert_eq!(from_server(&mut client), Frame(BINARY, vec![2; size]), "{driver}");
        }
    }
}

mod over_http2 {
    use super::*;
    use common::PATIENCE;
    use common::http2::{DATA, END_STREAM, HEADERS, Http2, RST_STREAM, field, head, request, status_of};

    const CANCEL: u32 = 8;

    /// An extended CONNECT (RFC 8441 §4) with these pseudo-fields and fields.
    fn connect(stream: u32, pseudo: &[(&str, &str)], fields: &[(&str, &str)], ends: bool) -> Vec<u8> {
        let all = pseudo.iter().chain(fields);
        head(stream, &all.flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect::<Vec<_>>(), ends)
    }

    const PSEUDO: [(&str, &str); 5] = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", PATH),
        (":authority", "gateway.test"),
    ];
    const FIELDS: [(&str, &str); 3] =
        [JSON[0], ("sec-websocket-version", "13"), ("sec-websocket-protocol", "realtime")];

    /// A stream that is a WebSocket, and its provider.
    fn opened(http2: &mut Http2, stream: u32, origin: &Origin) -> Peer {
        http2.send(&connect(stream, &PSEUDO, &FIELDS, false));
        let mut peer = origin.accept();
        let request = peer.head();
        assert_eq!(request.line, "GET /v1/realtime?model=m HTTP/1.1");
        assert_eq!(request.get("sec-websocket-protocol"), Some("realtime"));
        assert_ne!(request.get("sec-websocket-key"), Some("AAAAAAAAAAAAAAAAAAAAAA=="), "one of its own: {request:?}");
        peer.send(switched(&request, "sec-websocket-protocol: realtime\r\n"));
        let frame = next_of(http2, stream);
        assert_eq!((frame.kind, frame.ends(), status_of(&frame.payload)), (HEADERS, false, 200), "{frame:?}");
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        assert!(!text.contains("upgrade") && !text.contains("accept"), "{text}");
        peer
    }

    fn next_of(http2: &mut Http2, stream: u32) -> common::http2::Frame {
        loop {
            let frame = http2.next();
            if frame.stream == stream {
                return frame;
            }
        }
    }

    /// Reads frames of WebSocket out of DATA.
    struct Reader {
        stream: u32,
        held: Vec<u8>,
        ended: bool,
    }

    impl Reader {
        fn of(stream: u32) -> Reader {
            Reader { stream, held: Vec::new(), ended: false }
        }

        fn next(&mut self, http2: &mut Http2) -> Frame {
            let Reader { stream, held, ended } = self;
            common::websocket::read(false, |count| {
                while held.len() < count {
                    let frame = next_of(http2, *stream);
                    assert_eq!(frame.kind, DATA, "{frame:?}");
                    held.extend(&frame.payload);
                    *ended |= frame.ends();
                }
                held.drain(..count).collect()
            })
        }

        /// True if the stream ends here as it should.
        fn ends(&mut self, http2: &mut Http2) -> bool {
            while !self.ended {
                let frame = next_of(http2, self.stream);
                self.ended = frame.ends();
                if frame.kind == RST_STREAM || !frame.payload.is_empty() {
                    return false;
                }
            }
            self.held.is_empty()
        }
    }

    fn data(stream: u32, bytes: &[u8], ends: bool) -> Vec<u8> {
        common::http2::frame(DATA, if ends { END_STREAM } else { 0 }, stream, bytes)
    }

    #[test]
    fn streams_are_tunnels_beside_one_another_and_beside_requests() {
        for driver in DRIVERS {
            let origin = Origin::start();
            let (gateway, records) = watched(&origin, &format!("[ring]\ndriver = {driver:?}"));
            let mut http2 = Http2::connect(gateway.address(), PATIENCE);
            let (mut first, mut second) = (opened(&mut http2, 1, &origin), opened(&mut http2, 3, &origin));
            let (mut of_first, mut of_second) = (Reader::of(1), Reader::of(3));
            let long = vec![9; 300_000];
            for (stream, peer, reader) in [(1, &mut first, &mut of_first), (3, &mut second, &mut of_second)] {
                let bytes = frame(true, BINARY, &long);
                http2.send(&bytes.chunks(16_000).flat_map(|piece| data(stream, piece, false)).collect::<Vec<_>>());
                assert_eq!(from_client(peer), Frame(BINARY, long.clone()), "{driver}");
                peer.send(frame(false, TEXT, stream.to_string().as_bytes()));
                assert_eq!(reader.next(&mut http2), Frame(TEXT, stream.to_string().into_bytes()), "{driver}");
                peer.send(frame(false, BINARY, &long));
                assert_eq!(reader.next(&mut http2), Frame(BINARY, long.clone()), "{driver}");
            }
            http2.send(&request(5, "GET", "/v1/models", &JSON, None));
            assert_eq!(status_of(&next_of(&mut http2, 5).payload), 200, "{driver}");
            assert!(next_of(&mut http2, 5).ends(), "{driver}");
            // A Close, its answer, and both ends of the stream.
            http2.send(&data(1, &frame(true, CLOSE, &said(1000)), false));
            assert_eq!(from_client(&mut first), Frame(CLOSE, said(1000)), "{driver}");
            first.send(frame(false, CLOSE, &said(1000)));
            assert_eq!(of_first.next(&mut http2), Frame(CLOSE, said(1000)), "{driver}");
            assert!(of_first.ends(&mut http2), "{driver}");
            http2.send(&data(1, b"", true));
            let record = records.when(|records| records.iter().any(|record| !record["websocket_end"].is_null()));
            let record = record.iter().find(|record| record["websocket_end"] == "client_closed").expect("its record");
            assert_eq!((&record["http"], &record["status"]), (&"2".into(), &200.into()), "{record}");
            assert_eq!(record["request_bytes"], 300_000, "{record}");
            // The other goes on.
            second.send(frame(false, TEXT, b"still"));
            assert_eq!(of_second.next(&mut http2), Frame(TEXT, b"still".to_vec()), "{driver}");
        }
    }

    #[test]
    fn ends_are_told_in_the_terms_of_streams() {
        for driver in DRIVERS {
            let origin = Origin::start();
            let (gateway, _) = watched(&origin, &format!("[ring]\ndriver = {driver:?}"));
            let mut http2 = Http2::connect(gateway.address(), PATIENCE);
            // The provider ends in order, without a Close: END_STREAM, for its FIN.
            let mut peer = opened(&mut http2, 1, &origin);
            peer.send(frame(false, TEXT, b"last")).half_close();
            let mut reader = Reader::of(1);
            assert_eq!(reader.next(&mut http2), Frame(TEXT, b"last".to_vec()), "{driver}");
            assert!(reader.ends(&mut http2), "{driver}");
            // By a reset: RST_STREAM.
            opened(&mut http2, 3, &origin).reset();
            assert_eq!(next_of(&mut http2, 3).kind, RST_STREAM, "{driver}");
            // In the middle of a frame: RST_STREAM as well, for it is no proper end.
            let mut peer = opened(&mut http2, 5, &origin);
            peer.send(&frame(false, TEXT, b"half")[..4]).half_close();
            assert_eq!(next_of(&mut http2, 5).payload.len(), 4, "{driver}");
            assert_eq!(next_of(&mut http2, 5).kind, RST_STREAM, "{driver}");
            // The client's reset and its end are the provider's end at once.
            let mut peer = opened(&mut http2, 7, &origin);
            http2.send(&common::http2::frame(RST_STREAM, 0, 7, &CANCEL.to_be_bytes()));
            peer.ended();
            let mut peer = opened(&mut http2, 9, &origin);
            http2.send(&data(9, b"", true));
            peer.ended();
            let mut peer = opened(&mut http2, 11, &origin);
            drop(http2);
            peer.ended();
            metric_is(&gateway, "ringway_websockets_open", &[], 0.0);
            until_at_rest(&gateway);
        }
    }

    #[test]
    fn a_broken_rule_is_told_on_its_stream() {
        let origin = Origin::start();
        let gateway = gateway(&origin, "");
        let mut http2 = Http2::connect(gateway.address(), PATIENCE);
        let mut peer = opened(&mut http2, 1, &origin);
        http2.send(&data(1, &frame(false, TEXT, b"not masked"), false));
        let mut reader = Reader::of(1);
        assert_eq!(reader.next(&mut http2).close().0, 1002);
        assert!(reader.ends(&mut http2));
        assert_eq!(from_client(&mut peer).close().0, 1001);
        peer.ended();
    }

    #[test]
    fn a_stream_that_does_not_read_holds_up_its_own_tunnel_alone() {
        for driver in DRIVERS {
            let origin = Origin::start();
            let gateway = gateway(&origin, &format!("[ring]\ndriver = {driver:?}"));
            let mut http2 = Http2::connect_with(gateway.address(), PATIENCE, 1000);
            let busy = opened(&mut http2, 1, &origin);
            let mut socket = busy.socket().try_clone().expect("the socket");
            let bytes = frame(false, BINARY, &vec![3; 100_000]);
            let sender = std::thread::spawn(move || while socket.write_all(&bytes).is_ok() {});
            let mut peer = opened(&mut http2, 3, &origin);
            peer.send(frame(false, TEXT, b"free"));
            assert_eq!(Reader::of(3).next(&mut http2), Frame(TEXT, b"free".to_vec()), "{driver}");
            assert!(!sender.is_finished(), "{driver}");
            // Given up while it is held up: its provider learns of it at once.
            http2.send(&common::http2::frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
            sender.join().expect("it ends");
        }
    }

    #[test]
    fn what_is_no_websocket_opens_no_stream() {
        let origin = Origin::start();
        let gateway = gateway(&origin, "");
        let with =
            |name: &str, value: &'static str| PSEUDO.map(|(own, old)| (own, if own == name { value } else { old }));
        let without = |name: &str| FIELDS.iter().copied().filter(|(own, _)| *own != name).collect::<Vec<_>>();
        let mut http2 = Http2::connect(gateway.address(), PATIENCE);
        let mut stream = 1;
        for (name, pseudo, fields, ends, status) in [
            ("another protocol", with(":protocol", "connect-udp"), FIELDS.to_vec(), false, 501),
            ("no version", PSEUDO, without("sec-websocket-version"), false, 426),
            ("no key", PSEUDO, without("authorization"), false, 401),
            ("one that has ended", PSEUDO, FIELDS.to_vec(), true, 400),
            ("an unknown place", with(":path", "/x"), FIELDS.to_vec(), false, 404),
            ("a page", PSEUDO, [&FIELDS[..], &[("origin", "https://evil.example")]].concat(), false, 403),
        ] {
            http2.send(&connect(stream, &pseudo, &fields, ends));
            let frame = next_of(&mut http2, stream);
            assert_eq!((frame.kind, status_of(&frame.payload)), (HEADERS, status), "{name}");
            stream += 2;
        }
        assert!(origin.is_left_alone());
        // What a provider calls success without switching would be a tunnel here.
        for (answer, status) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", 502),
            ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}", 403),
        ] {
            http2.send(&connect(stream, &PSEUDO, &FIELDS, false));
            let mut peer = origin.accept();
            peer.head();
            peer.send(answer);
            assert_eq!(status_of(&next_of(&mut http2, stream).payload), status);
            stream += 2;
        }
        // Even where the gateway itself has an answer.
        http2.send(&connect(stream, &with(":path", "/v1/models"), &FIELDS, false));
        let mut peer = origin.accept();
        assert_eq!(peer.head().line, "GET /v1/models HTTP/1.1");
        peer.send("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(status_of(&next_of(&mut http2, stream).payload), 404);
    }

    #[test]
    fn that_it_is_spoken_is_told_in_the_settings() {
        let origin = Origin::start();
        let gateway = gateway(&origin, "");
        let mut http2 = Http2::connect(gateway.address(), PATIENCE);
        let (kind, _, _, settings) = http2.frame().expect("SETTINGS first");
        assert_eq!(kind, common::http2::SETTINGS);
        assert!(settings.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]), "{settings:?}");
    }

    #[test]
    fn at_the_gateway_s_end_streams_are_closed_like_all_tunnels() {
        let origin = Origin::start();
        let mut gateway = gateway(&origin, "[client]\ndrain = \"200ms\"");
        let mut http2 = Http2::connect(gateway.address(), PATIENCE);
        let mut peer = opened(&mut http2, 1, &origin);
        kill(Pid::from_raw(gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        let mut reader = Reader::of(1);
        assert_eq!(reader.next(&mut http2).close().0, 1001);
        assert!(reader.ends(&mut http2));
        assert_eq!(from_client(&mut peer).close().0, 1001);
        http2.send(&data(1, b"", true));
        drop((http2, peer));
        assert_eq!(gateway.process.wait().code(), Some(0));
    }
}
