//! Truthful streaming, step by step: a provider played by hand sends the next event only once the client has the last,
//! so nothing here depends on how fast anything is.

mod common;

use common::origin::{DONE, FINISH, PING, ROLE, START, STOP, content, delta};
use common::{BlackHole, Config, End, Gateway, JSON, Origin, Peer, chat};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

const PATH: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

fn gateway(origin: &Origin, timers: &str) -> Gateway {
    Gateway::start(&Config::new(&[origin.url()]).and(&format!("[timers]\n{timers}")))
}

/// A stream whose head the provider has sent, on either side.
fn begin(gateway: &Gateway, origin: &Origin, path: &str) -> (common::Client, Peer) {
    let mut client = gateway.connect();
    client.send_request("POST", path, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream();
    (client, peer)
}

#[test]
fn each_event_is_with_the_client_before_the_next_one_exists() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    for (path, lead, event) in
        [(PATH, ROLE, content as fn(&str) -> String), (MESSAGES, START, delta as fn(&str) -> String)]
    {
        let (mut client, mut peer) = begin(&gateway, &origin, path);
        peer.chunk(lead).chunk(event("0"));
        let head = client.head();
        let mut events = client.events(&head);
        assert_eq!(events.next_event().expect("what was held").raw, lead.as_bytes());
        assert_eq!(events.next_event().expect("the content").raw, event("0").as_bytes());
        for turn in 1..50 {
            let raw = match turn % 5 {
                0 => ": keep-alive\n\n".to_owned(),
                1 => event(&turn.to_string()).replace('\n', "\r\n"),
                _ => event(&turn.to_string()),
            };
            if turn % 5 == 2 {
                // In two chunks with a border inside the event.
                peer.chunk(&raw[..raw.len() / 2]).chunk(&raw[raw.len() / 2..]);
            } else if turn % 5 == 3 {
                // The chunk's end, and the next one's size, are still to come.
                peer.send(format!("{:x}\r\n{raw}", raw.len()));
            } else {
                peer.chunk(&raw);
            }
            let got = events.next_event().expect("an event while the provider waits");
            assert_eq!(String::from_utf8_lossy(&got.raw), raw, "{path}");
            assert_eq!(events.lump(), 1, "{path}: events of two times in one piece");
            if turn % 5 == 3 {
                peer.send("\r\n");
            }
        }
    }
}

#[test]
fn until_the_first_content_a_failure_is_still_a_status() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    for (path, lead) in [(PATH, ROLE), (MESSAGES, START)] {
        for how in ["FIN", "RST", "an error", "a clean end"] {
            let (mut client, mut peer) = begin(&gateway, &origin, path);
            peer.chunk(": hello\n\n").chunk(lead).chunk(PING);
            match how {
                "FIN" => drop(peer),
                "RST" => peer.reset(),
                "an error" => {
                    peer.chunk(
                        "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n",
                    );
                }
                _ => {
                    peer.send("0\r\n\r\n");
                }
            }
            let response = client.response("POST");
            // Had anything been passed on, this would be a 200.
            assert!(response.head.status >= 500, "{path} {how}: {} {}", response.head.status, response.text());
            assert_eq!(response.head.get("x-ringway-error-origin"), Some("upstream"), "{path} {how}");
            assert_eq!(response.json()["type"] == "error", path == MESSAGES, "{path} {how}: {}", response.text());
            assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200, "{path} {how}");
        }
    }
}

#[test]
fn what_was_held_the_head_and_the_first_content_come_in_one_read() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let (mut client, mut peer) = begin(&gateway, &origin, PATH);
    peer.chunk(": hello\n\n").chunk(ROLE).chunk(content("a"));
    let mut piece = [0; 4096];
    let count = client.socket().read(&mut piece).expect("an answer");
    let text = String::from_utf8_lossy(&piece[..count]).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains(": hello\n\n") && text.contains(ROLE) && text.contains(&content("a")), "{text}");
    client.try_send(b"").expect("open");
}

/// Sends `noise` for as long as the gateway takes it.
fn make_noise(mut peer: Peer, noise: &'static str) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while peer.try_send(format!("{:x}\r\n{noise}\r\n", noise.len())) {
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

#[test]
fn comments_and_lifecycle_events_do_not_put_off_the_first_token() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "first_token = \"200ms\"");
    for (path, noise) in [(PATH, ": keep-alive\n\n"), (PATH, ROLE), (MESSAGES, PING), (MESSAGES, START)] {
        let (mut client, peer) = begin(&gateway, &origin, path);
        let provider = make_noise(peer, noise);
        let response = client.response("POST");
        assert_eq!(response.head.status, 504, "{noise:?}: {}", response.text());
        assert!(response.text().contains("first token"), "{noise:?}: {}", response.text());
        // It was closed, or it would never end.
        provider.join().expect("the provider");
    }
}

#[test]
fn comments_and_lifecycle_events_do_not_put_off_the_next_token() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "between_tokens = \"200ms\"");
    for (path, first, noise) in [
        (PATH, content("a"), ": keep-alive\n\n"),
        (PATH, content("a"), ROLE),
        (MESSAGES, delta("a"), PING),
        (MESSAGES, delta("a"), ": x\r\n\r\n"),
    ] {
        let (mut client, mut peer) = begin(&gateway, &origin, path);
        peer.chunk(first);
        let provider = make_noise(peer, noise);
        let response = client.response("POST");
        assert_eq!((response.head.status, &response.end), (200, &End::Cut), "{noise:?}");
        let text = response.text().replace("\r\n", "\n");
        let last = text.trim_end().rsplit("\n\n").next().unwrap_or_default().to_owned();
        assert!(last.contains("no further token within"), "{noise:?}: {last}");
        assert_eq!(last.starts_with("event: error\n"), path == MESSAGES, "{noise:?}: {last}");
        assert!(text.ends_with("\n\n") && !text.contains("[DONE]") && !text.contains("message_stop"), "{text}");
        provider.join().expect("the provider");
    }
}

#[test]
fn the_total_ends_a_stream_whose_tokens_are_all_in_time() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "total = \"400ms\"");
    let (mut client, mut peer) = begin(&gateway, &origin, PATH);
    peer.chunk(content("a"));
    let provider = make_noise(peer, "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n");
    let response = client.response("POST");
    assert_eq!((response.head.status, &response.end), (200, &End::Cut));
    let text = response.text();
    assert!(text.contains("The whole exchange took longer than") && !text.contains("[DONE]"), "{text}");
    provider.join().expect("the provider");

    // Before any content it is a status.
    let (mut client, peer) = begin(&gateway, &origin, PATH);
    let provider = make_noise(peer, ": x\n\n");
    let response = client.response("POST");
    assert_eq!(response.head.status, 504, "{}", response.text());
    assert!(response.text().contains("The whole exchange"), "{}", response.text());
    provider.join().expect("the provider");
}

#[test]
fn an_endpoint_that_does_not_connect_is_given_up_in_time() {
    let hole = BlackHole::new();
    let url = format!("http://{}/v1", hole.address);
    let timers = "[timers]\nconnect = \"200ms\"";
    let alone = Gateway::start(&Config::new(std::slice::from_ref(&url)).and(timers));
    let response = alone.connect().request("POST", PATH, &JSON, &chat("m", true));
    assert_eq!(response.head.status, 504, "{}", response.text());
    assert!(response.text().contains("could not be connected to within 200ms"), "{}", response.text());

    let origin = Origin::start();
    let backed = Gateway::start(&Config::new(&[url, origin.url()]).and(timers));
    for _ in 0..4 {
        let mut client = backed.connect();
        client.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut peer = origin.accept();
        peer.request();
        peer.send(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        );
        assert_eq!(client.response("POST").head.status, 200);
    }
}

#[test]
fn a_stream_that_finished_is_whole_though_it_does_not_say_done() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let (mut client, mut peer) = begin(&gateway, &origin, PATH);
    peer.chunk(content("a")).chunk(FINISH).send("0\r\n\r\n");
    let response = client.response("POST");
    assert_eq!((response.text(), response.end), (content("a") + FINISH, End::Complete));
    assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200);
}

#[test]
fn a_stream_that_said_done_is_whole_though_its_connection_breaks() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    for (path, text) in [(PATH, content("a") + FINISH + DONE), (MESSAGES, delta("a") + STOP)] {
        for how in ["FIN", "RST", "silence", "comments"] {
            let (mut client, mut peer) = begin(&gateway, &origin, path);
            peer.chunk(&text);
            let mut noise = None;
            match how {
                "FIN" => drop(peer),
                "RST" => {
                    // Read first: an RST may overtake what it follows.
                    let head = client.head();
                    assert_eq!(head.status, 200);
                    peer.reset();
                    let response = client.body("POST", head);
                    assert_eq!(
                        (response.text().as_str(), response.end),
                        (text.as_str(), End::Complete),
                        "{path} {how}"
                    );
                    continue;
                }
                "silence" => {
                    noise = Some(std::thread::spawn(move || {
                        peer.ended();
                    }));
                }
                _ => noise = Some(make_noise(peer, ": x\n\n")),
            }
            let response = client.response("POST");
            let told = response.text().replace(": x\n\n", "");
            assert_eq!((told.as_str(), response.end), (text.as_str(), End::Complete), "{path} {how}");
            if let Some(noise) = noise {
                noise.join().expect("it is closed");
            }
        }
    }
}

#[test]
fn a_stream_that_breaks_its_framing_is_told_and_not_ended() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    for (name, broken) in [
        ("a bad chunk size", "zz\r\n".to_owned()),
        ("half an event, then a clean end", "3\r\ndat\r\n0\r\n\r\n".to_owned()),
        ("a chunk without its end", "3\r\n: xGARBAGE".to_owned()),
    ] {
        let (mut client, mut peer) = begin(&gateway, &origin, PATH);
        peer.chunk(content("a"));
        let head = client.head();
        peer.send(broken);
        let response = client.body("POST", head);
        assert_eq!((response.head.status, &response.end), (200, &End::Cut), "{name}");
        let text = response.text();
        let rest = text.strip_prefix(&content("a")).unwrap_or_else(|| panic!("{name}: {text}"));
        assert!(rest.contains("\"error\"") && rest.ends_with("\n\n"), "{name}: {rest}");
        assert!(!rest.contains("[DONE]") && rest.matches("data:").count() == 1, "{name}: {rest}");
        peer.ended();
    }
}

#[test]
fn a_client_that_does_not_read_stops_its_provider_and_loses_nothing() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    setsockopt(client.socket(), sockopt::RcvBuf, &(16 << 10)).expect("a small buffer");
    client.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    setsockopt(peer.socket(), sockopt::SndBuf, &(16 << 10)).expect("a small buffer");
    peer.request();
    peer.begin_stream();
    peer.socket().set_write_timeout(Some(Duration::from_millis(500))).expect("a write timeout");
    let event = content(&"x".repeat(1000));
    let framed = format!("{:x}\r\n{event}\r\n", event.len()).repeat(64);
    let (mut sent, most) = (0, 64 << 20);
    let mut stuck = None;
    while sent < most && stuck.is_none() {
        match peer.socket().write(&framed.as_bytes()[sent % framed.len()..]) {
            Ok(count) => sent += count,
            Err(error) => stuck = Some(error.kind()),
        }
    }
    assert!(matches!(stuck, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{sent} bytes were taken: {stuck:?}");
    // The gateway's own sockets hold what the kernel lets them; it must not be without bound.
    assert!(sent < most / 4, "{sent} bytes were taken from a provider whose client does not read");

    let provider = std::thread::spawn(move || {
        peer.socket().set_write_timeout(Some(common::PATIENCE)).expect("a write timeout");
        let rest = framed.len() - sent % framed.len();
        peer.send(&framed.as_bytes()[framed.len() - rest..]);
        peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        (sent + rest) / framed.len() * 64
    });
    setsockopt(client.socket(), sockopt::RcvBuf, &(1 << 20)).expect("a usual buffer");
    let head = client.head();
    let mut events = client.events(&head);
    let all = events.all();
    let whole = provider.join().expect("the provider");
    assert_eq!((all.len(), events.end()), (whole + 2, Some(&End::Complete)));
    assert!(all[..whole].iter().all(|got| got.raw == event.as_bytes()));
}
