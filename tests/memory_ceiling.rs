//! The ceiling on what a worker holds in buffers: above it new requests are refused, what is under way goes on, and what
//! was held is given back; and a limit on the memory of the whole process that is never met.

mod common;

use std::fs;

use common::http2::{self, Http2};
use common::metrics::{Sample, scrape_when, sum};
use common::origin;
use common::{Client, Config, Gateway, JSON, Mock, Origin, PATIENCE, Response, chat, metric, metric_is};

const MIB: usize = 1 << 20;

/// A chat of so many bytes.
fn long_chat(bytes: usize) -> Vec<u8> {
    let empty = serde_json::json!({"model": "mock", "messages": [{"role": "user", "content": ""}]}).to_string();
    let text = "x".repeat(bytes - empty.len());
    serde_json::json!({"model": "mock", "messages": [{"role": "user", "content": text}]}).to_string().into_bytes()
}

/// Sends all of a chat but its last byte.
fn all_but_the_end(gateway: &Gateway, body: &[u8]) -> Client {
    let mut client = gateway.connect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        common::process::KEY,
        body.len()
    );
    // Who is refused may be closed before all of it is sent.
    let _ = client.try_send(head.as_bytes()).and_then(|()| client.try_send(&body[..body.len() - 1]));
    client
}

fn is_refused(response: &Response) {
    assert_eq!(response.head.status, 503, "{}", response.text());
    let error = &response.json()["error"];
    assert_eq!(error["code"], "memory_exhausted", "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("limits.memory_max")), "{error}");
    assert_eq!(response.head.get("retry-after"), Some("1"));
    assert_eq!(response.head.get("x-ringway-error-origin"), Some("gateway"));
}

fn call(gateway: &Gateway, body: &[u8]) -> Response {
    gateway.connect().request("POST", "/v1/chat/completions", &JSON, body)
}

#[test]
fn bodies_are_held_up_to_the_ceiling_and_one_more_is_refused() {
    const EACH: usize = 4 * MIB;
    let mock = Mock::start(&[]);
    let config = Config::new(&[mock.url()]).admin().and("[limits]\nmemory_max = \"16MiB\"");
    let gateway = Gateway::start(&config);
    assert_eq!(metric(&gateway, "ringway_worker_memory_max_bytes", &[]), (16 * MIB) as f64);
    // Someone is being answered all the time.
    let mut streaming = gateway.connect();
    let body = chat("mock:ttft=1ms,gap=20ms,tokens=100", true);
    streaming.send_request("POST", "/v1/chat/completions", &JSON, &body);
    let head = streaming.head();
    let mut events = streaming.events(&head);
    assert!(events.next_event().is_some());

    let body = long_chat(EACH);
    let mut held = Vec::new();
    let mut refused = loop {
        let client = all_but_the_end(&gateway, &body);
        // Each is held, or refused, before the next one comes.
        let all = scrape_when(&gateway, "it is held or refused", |all| {
            sum(all, "ringway_memory_refusals_total", &[]) > 0.0
                || sum(all, "ringway_worker_memory_bytes", &[]) >= ((held.len() + 1) * EACH) as f64
        });
        if sum(&all, "ringway_memory_refusals_total", &[]) > 0.0 {
            break client;
        }
        held.push(client);
        assert!(held.len() < 4, "they do not fit into 16 MiB");
    };
    is_refused(&refused.response("POST"));
    assert!(held.len() >= 2, "{} of {EACH} bytes were held", held.len());
    gateway.process.lines_until("requests are refused: this worker holds as much as it may (limits.memory_max)");
    // What is small still finds room, and what is under way goes on.
    assert_eq!(call(&gateway, &chat("mock", false)).head.status, 200);
    assert!(events.all().len() > 90);
    for client in &mut held {
        client.send(&body[body.len() - 1..]);
        assert_eq!(client.response("POST").head.status, 200);
    }
    // As it is given back, there is room again.
    for _ in 0..8 {
        assert_eq!(call(&gateway, &body).head.status, 200);
    }
    drop(held);
    metric_is(&gateway, "ringway_memory_refusals_total", &[], 1.0);
}

#[test]
fn bodies_of_unknown_length_and_encoded_ones_are_bounded_too() {
    let mock = Mock::start(&[]);
    let limits = "[limits]\nmemory_max = \"16MiB\"\nbody_bytes_max = \"32MiB\"";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin().and(limits));
    let body = long_chat(20 * MIB);
    let chunked = |bytes: &[u8]| {
        let mut client = gateway.connect();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n",
            common::process::KEY,
        );
        let _ = client.try_send(head.as_bytes());
        for piece in bytes.chunks(64 << 10) {
            let sent = client
                .try_send(format!("{:x}\r\n", piece.len()).as_bytes())
                .and_then(|()| client.try_send(piece))
                .and_then(|()| client.try_send(b"\r\n"));
            if sent.is_err() {
                break;
            }
        }
        let _ = client.try_send(b"0\r\n\r\n");
        client.response("POST")
    };
    is_refused(&chunked(&body));
    assert_eq!(chunked(&long_chat(4 * MIB)).head.status, 200);
    // One that becomes six times as much, which is within what decoding may bring.
    let text: String = (0..20 * MIB as u64 / 12).map(|at| format!("{:06}words ", at * 7919 % 999_983)).collect();
    let text = serde_json::json!({"model": "mock", "messages": [{"role": "user", "content": text}]}).to_string();
    let encoded = [JSON[0], JSON[1], ("content-encoding", "gzip")];
    let gzip = common::coding::encoded("gzip", &text);
    is_refused(&gateway.connect().request("POST", "/v1/chat/completions", &encoded, &gzip));
    assert_eq!(call(&gateway, &long_chat(4 * MIB)).head.status, 200);
}

#[test]
fn a_hundred_bodies_on_one_connection_are_held_to_it_as_well() {
    const STREAMS: u32 = 100;
    let mock = Mock::start(&[]);
    let limits = "[limits]\nmemory_max = \"16MiB\"";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin().and(limits));
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    let body = long_chat(MIB);
    // All of them but the last byte, side by side.
    let fields = [JSON[0], JSON[1]];
    for stream in 0..STREAMS {
        let mut head = http2::request(2 * stream + 1, "POST", "/v1/chat/completions", &fields, None);
        // The body is still to come.
        head[4] &= !http2::END_STREAM;
        http2.send(&head);
    }
    let piece = 16 << 10;
    let refused = || metric(&gateway, "ringway_memory_refusals_total", &[]);
    for at in (0..body.len() / 4).step_by(piece) {
        for stream in 0..STREAMS {
            http2.send(&http2::frame(0, 0, 2 * stream + 1, &body[at..at + piece]));
        }
    }
    scrape_when(&gateway, "some are refused", |all| sum(all, "ringway_memory_refusals_total", &[]) > 0.0);
    let resident = resident(gateway.process.id());
    assert!(resident < (96 * MIB) as u64, "{resident} bytes resident");
    let before = refused();
    println!("{before} of {STREAMS} bodies refused, {} MiB resident", resident >> 20);
    assert!(before < f64::from(STREAMS), "some fit");
    drop(http2);
    metric_is(&gateway, "ringway_requests_in_flight", &[], 0.0);
    assert_eq!(call(&gateway, &long_chat(4 * MIB)).head.status, 200);
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB");
    kib << 10
}

#[test]
fn while_streams_hold_all_of_it_the_next_is_refused_and_they_go_on() {
    let origin = Origin::start();
    let limits = "[limits]\nmemory_max = \"16MiB\"\nevent_bytes_max = \"8MiB\"";
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin().and(limits));
    let event = origin::content(&"word ".repeat(3 * MIB / 5));
    let (first, rest) = event.split_at(event.len() - 100);
    let mut streams = Vec::new();
    let stream = || {
        let mut client = gateway.connect();
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat("any", true));
        client
    };
    // An event is held until it is complete.
    let is_over = |all: &[Sample]| sum(all, "ringway_worker_memory_bytes", &[]) > (16 * MIB) as f64;
    loop {
        let mut client = stream();
        let mut peer = origin.accept();
        peer.request();
        peer.begin_stream().chunk(origin::content("begun")).chunk(first);
        let head = client.head();
        assert_eq!(head.status, 200);
        let mut events = client.events(&head);
        assert!(events.next_event().is_some());
        streams.push((events, peer));
        assert!(streams.len() < 8, "more than fit into 16 MiB");
        let at_least = (streams.len() * first.len()) as f64;
        let all = scrape_when(&gateway, "it is held", |all| sum(all, "ringway_worker_memory_bytes", &[]) >= at_least);
        if is_over(&all) {
            break;
        }
    }
    println!("{} streams with {} bytes each, then a refusal", streams.len(), first.len());
    is_refused(&stream().response("POST"));
    // Each comes to its end all the same, and then there is room again.
    for (events, peer) in &mut streams {
        peer.chunk(rest).chunk(origin::FINISH).chunk(origin::DONE).chunk("");
        assert!(events.next_event().is_some_and(|event| event.data.len() > MIB / 2));
        assert_eq!(events.all().last().map(|event| event.data.as_str()), Some("[DONE]"));
    }
    drop(streams);
    scrape_when(&gateway, "it is given back", |all| !is_over(all));
    let mut client = stream();
    let mut peer = origin.accept();
    peer.request();
    peer.answer("{}");
    assert_eq!(client.head().status, 200);
}
