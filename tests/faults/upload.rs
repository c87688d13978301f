//! Providers that fail while a request is still on its way to them.

use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Instant;

use nix::sys::socket::{setsockopt, sockopt};

use crate::cell::Ends::{self, Status};
use crate::cell::{BOUND, answer, ask, judge, record, timers};
use crate::common::{Client, Config, Gateway, JSON, Origin, Peer, Response, chat};
use crate::ground::{DRIVERS, Ground, Players};
use crate::shape::Shape;
use crate::{INTERIM, INTERIM_MAX};

const PIECE: usize = 1000;

/// An upload of `length` bytes that has begun. It passes through: nobody holds it.
fn begin(gateway: &Gateway, model: &str, id: &str, length: usize) -> Client {
    let mut client = gateway.connect();
    client.send(
        format!(
            "POST /v1/files?model={model} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\nx-request-id: {id}\r\n\
             content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n",
            JSON[0].1
        )
        .as_bytes(),
    );
    client
}

#[test]
fn interim_answers_count_while_the_request_is_sent_as_well() {
    let origin = Origin::start();
    for driver in DRIVERS {
        let ring = format!("[ring]\ndriver = \"{driver}\"");
        let gateway = Gateway::start(&Config::new(&[origin.url()]).and(&ring));
        for count in [INTERIM_MAX, INTERIM_MAX + 1] {
            let mut client = begin(&gateway, "m", "counted", (count + 1) * PIECE);
            let mut peer = origin.accept();
            peer.head();
            for turn in 0..count {
                let piece = [b'a' + (turn % 26) as u8; PIECE];
                // Refused, the client may be told before it has sent all.
                if client.try_send(&piece).is_err() {
                    break;
                }
                assert_eq!(peer.take(PIECE), piece, "{driver}, {count}, piece {turn}");
                peer.send(INTERIM);
            }
            if count == INTERIM_MAX {
                client.send(&[b'z'; PIECE]);
                peer.take(PIECE);
                peer.answer("{\"whole\":true}");
            }
            let response = client.response("POST");
            if count == INTERIM_MAX {
                assert_eq!((response.head.status, &*response.text()), (200, "{\"whole\":true}"), "{driver}");
            } else {
                let code = response.json()["error"]["code"].as_str().map(str::to_owned);
                assert_eq!((response.head.status, code.as_deref()), (502, Some("upstream_malformed")), "{driver}");
                peer.ended();
            }
        }
    }
}

#[test]
fn a_request_is_not_repeated_to_who_has_begun_to_answer_it_while_it_was_sent() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    // A used connection: closed without an answer, it would count as stale.
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
    let mut peer = origin.accept();
    setsockopt(peer.socket(), sockopt::RcvBuf, &(16 << 10)).expect("a small buffer");
    peer.request();
    peer.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);

    thread::scope(|scope| {
        scope.spawn(|| {
            peer.head();
            peer.send(INTERIM);
            // So much is sent only in many turns of the gateway's loop, in each of which it looks for an answer.
            peer.take(6 << 20);
            peer.reset();
        });
        ask(&mut client, "m", Shape::ALL[1], "begun", 16 << 20);
        let response = client.response("POST");
        assert_eq!((response.head.status, &response.json()["error"]["code"]), (502, &"upstream_failed".into()));
        assert!(origin.is_left_alone(), "asked again");
    });
}

/// Sends a body until it is refused or at its end, and reads the answer.
fn upload(ground: &Ground, name: &str, id: &str) -> (Client, Response) {
    const LENGTH: usize = 64 << 20;
    let client = begin(&ground.gateway, &format!("{name}%2B"), id, LENGTH);
    let mut out = client.socket().try_clone().expect("the socket");
    let sender = thread::spawn(move || {
        let piece = vec![7; 64 << 10];
        // The gateway reads on after its refusal, but only for a while.
        for _ in 0..LENGTH / piece.len() {
            if std::io::Write::write_all(&mut out, &piece).is_err() {
                return;
            }
        }
    });
    let answered = answer(client, Shape { anthropic: false, streamed: false }, &sync_channel(1).0);
    let _ = answered.0.socket().shutdown(std::net::Shutdown::Both);
    sender.join().expect("a client that sends");
    answered
}

#[test]
fn an_upload_whose_provider_fails_ends_in_time_and_is_sent_to_no_other() {
    let failed = Status(502, "upstream_failed", "upstream_error");
    let late = Status(504, "first_token_timeout", "timeout");
    type Play = fn(Peer);
    let faults: [(&str, Ends, Play); 5] = [
        ("closed before the request", failed, drop),
        ("closed in the body", failed, |mut peer| {
            peer.head();
            peer.take(200_000);
        }),
        ("reset in the body", failed, |mut peer| {
            peer.head();
            peer.take(200_000);
            peer.reset();
        }),
        ("stops reading", late, |mut peer| {
            peer.head();
            peer.take(200_000);
            peer.until_reset();
        }),
        ("interim answers without end", Status(502, "upstream_malformed", "upstream_error"), |mut peer| {
            peer.head();
            while peer.try_send(INTERIM) {}
        }),
    ];
    for driver in DRIVERS {
        let mut players = Players::default();
        for (number, (_, ends, fault)) in faults.iter().enumerate() {
            let (origin, fault): (_, Play) = (Origin::start(), *fault);
            players.add(&number.to_string(), &origin.url(), "", &timers(*ends, ""));
            origin.serve(fault);
        }
        let ground = Ground::start(driver, &players);
        thread::scope(|scope| {
            for (number, (name, ends, _)) in faults.iter().enumerate() {
                let ground = &ground;
                scope.spawn(move || {
                    let (what, id) = (format!("{name}, {driver}"), format!("upload-{number}"));
                    let begun = Instant::now();
                    let (_, response) = upload(ground, &number.to_string(), &id);
                    assert!(begun.elapsed() < BOUND, "{what}: took {:?}", begun.elapsed());
                    judge(&what, *ends, Shape { anthropic: false, streamed: false }, &response);
                    record(&what, *ends, &ground.records.of(&id), 1);
                    assert_eq!(ground.asked_backup(&id), 0, "{what}: another endpoint was asked");
                });
            }
        });
        ground.finish();
    }
}
