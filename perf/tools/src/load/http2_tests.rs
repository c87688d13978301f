//! The loads over HTTP/2, against a server that knows just enough of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::*;
use crate::clock::now_ns;
use crate::http::parse_target;

const END_STREAM: u8 = 0x1;

/// Answers each request, when it is whole, with the frames that `answer` makes of its number and stream.
fn serve(answer: impl Fn(u64, u32) -> Vec<u8> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || converse(stream, &answer));
        }
    });
    address
}

/// Until the client leaves.
fn converse(mut stream: impl Read + Write, answer: &impl Fn(u64, u32) -> Vec<u8>) {
    stream.read_exact(&mut [0; 24]).unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).unwrap();
    let mut head = [0; 9];
    let mut number = 0;
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).unwrap();
        // The end of a request's body.
        if head[3] == 0 && head[4] == END_STREAM {
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            // What it has read of the connection's window it gives back.
            let window = frame(8, 0, 0, &(payload.len() as u32).to_be_bytes());
            if stream.write_all(&[answer(number, id), window].concat()).is_err() {
                return;
            }
            number += 1;
        }
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn head(id: u32) -> Vec<u8> {
    // END_HEADERS, `:status: 200`.
    frame(1, 0x4, id, &[0x88])
}

fn ok(_: u64, id: u32) -> Vec<u8> {
    [head(id), frame(0, END_STREAM, id, b"ok")].concat()
}

fn common(address: SocketAddr, h2: usize) -> Common {
    Common {
        url: parse_target(&format!("http://{address}/v1/chat/completions")).unwrap(),
        headers: Vec::new(),
        model: "mock".into(),
        body_bytes: 300,
        send: What::Chat,
        chunk_bytes: 0,
        pids: vec![std::process::id()],
        ca: None,
        resume: false,
        h2,
    }
}

fn closed(address: SocketAddr, h2: usize, requests: u64) -> Value {
    let common = common(address, h2);
    closed::Closed { common, connections: 2, seconds: 0.0, requests, warm_up: 0.0, once: false }.run().unwrap()
}

#[test]
fn closed_loop_counts_the_answers_of_all_streams() {
    let report = closed(serve(ok), 5, 1000);
    assert_eq!((&report["requests"], &report["errors"]), (&json!(1000), &json!(0)), "{report}");
    assert_eq!(report["body_bytes"], 2);
}

#[test]
fn wrong_answers_are_errors_and_not_requests() {
    for (name, reason, count, answer) in [
        ("status", "status 404", 1, frame(1, 0x5, 7, &[0x8d])),
        ("length", "answer of 3 bytes", 1, [head(7), frame(0, END_STREAM, 7, b"abc")].concat()),
        ("reset", "stream reset by the peer", 1, frame(3, 0, 7, &[0; 4])),
        // All that were under way on the connection are lost.
        ("gone", "the peer wants no more (GOAWAY)", 2, frame(7, 0, 0, &[0; 8])),
    ] {
        // The fourth request of the first connection, whose second stream is still unanswered then.
        let wrong = answer.clone();
        let address = serve(move |number, id| match (number, id) {
            (2, _) => Vec::new(),
            (3, 7) => wrong.clone(),
            (4.., _) => [ok(0, 5), ok(0, id)].concat(),
            _ => ok(number, id),
        });
        let load = closed::Closed {
            common: common(address, 2),
            connections: 1,
            seconds: 0.0,
            requests: 4,
            warm_up: 0.0,
            once: false,
        };
        // Nobody answers stream 5 unless the connection ends or another request comes.
        let load = if count == 1 { closed::Closed { requests: 5, ..load } } else { load };
        let report = load.run().unwrap();
        assert_eq!(report["reasons"][reason], count, "{name}: {report}");
        assert_eq!(report["errors"], count, "{name}: {report}");
    }
}

#[test]
fn streams_on_one_connection_are_told_apart() {
    let address = serve(|_, id| {
        let now = now_ns();
        let event = |age_ms: u64| format!("data: {{\"x_sent_ns\":{}}}\n\n", now - age_ms * 1_000_000);
        let text = format!("{}{}data: [DONE]\n\n", event(40), event(0));
        // Cut within an event.
        let (one, other) = text.split_at(10);
        [head(id), frame(0, 0, id, one.as_bytes()), frame(0, END_STREAM, id, other.as_bytes())].concat()
    });
    let load = sse::Sse {
        common: common(address, 3),
        streams: 6,
        events: 2,
        gap_ms: 20.0,
        repeats: 4,
        starts_per_second: 2000.0,
        stalled: None,
    };
    let report = load.run().unwrap();
    assert_eq!((&report["streams_done"], &report["events"]), (&json!(24), &json!(48)), "{report}");
    assert_eq!((&report["errors"], &report["lumps"]), (&json!(0), &json!(24)), "{report}");
}

#[test]
fn a_stream_that_nobody_reads_is_waited_for_by_nobody_and_must_be_alive() {
    let stream = |id| {
        let event = format!("data: {{\"x_sent_ns\":{}}}\n\ndata: [DONE]\n\n", now_ns());
        [head(id), frame(0, END_STREAM, id, event.as_bytes())].concat()
    };
    let load = |address, streams, stalled| {
        let load = sse::Sse {
            common: common(address, 3),
            streams,
            events: 1,
            gap_ms: 1.0,
            repeats: 1,
            starts_per_second: 2000.0,
            stalled: Some(stalled),
        };
        load.run().unwrap()
    };
    // Its window is shut, so that a server may send it a head and no more.
    let report = load(serve(move |_, id| if id == 1 { head(id) } else { stream(id) }), 3, 1);
    assert_eq!((&report["errors"], &report["delay"]["count"]), (&json!(0), &json!(2)), "{report}");
    let report = load(serve(move |_, id| if id == 1 { Vec::new() } else { stream(id) }), 3, 1);
    assert_eq!(report["reasons"]["a stream that nobody reads is not answered"], 1, "{report}");
    let report = load(serve(move |_, id| stream(id)), 3, 1);
    // It costs the connection, and so whoever else was begun on it by then.
    assert!(report["reasons"]["more than the window allows"].as_u64() >= Some(1), "{report}");
    // Another connection is told apart.
    let report = load(serve(move |_, id| stream(id)), 5, 0);
    assert_eq!((&report["delay"]["count"], &report["delay_beside"]["count"]), (&json!(3), &json!(2)), "{report}");
}

#[test]
fn idle_connections_have_one_request_each() {
    let idle = |h2, address| idle::Idle { common: common(address, h2), connections: 20, wave: 8, settle: 0.05 }.run();
    assert_eq!(idle(1, serve(ok)).unwrap()["errors"], 0);
    assert!(idle(2, serve(ok)).is_err());
    // A server that takes its leave does not hold them.
    let report = idle(1, serve(|_, id| [ok(0, id), frame(7, 0, 0, &[0; 8])].concat())).unwrap();
    assert_ne!(report["errors"], 0, "{report}");
}
