//! The client goes away, at any phase of an exchange, and the provider learns of it at once.

mod common;

use std::net::Shutdown;

use common::process::Mock;
use common::{Client, Config, Gateway, JSON, chat};
use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in microseconds, which the provider stamps its records with.
fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leave {
    /// FIN; what it had not read makes it an RST.
    Close,
    /// FIN only, the socket stays.
    HalfClose,
}

/// Brings an exchange named `id` into a phase, on the connection given, which is returned.
type Begin = fn(Client, &Mock, &str) -> Client;

/// The phases in which a client can leave, and how an exchange gets there.
const PHASES: &[(&str, Begin)] = &[
    ("before the head", |mut client, mock, id| {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&format!("mock:fault=never,id={id}"), true));
        wait_for(mock, id);
        client
    }),
    ("before the head, not streamed", |mut client, mock, id| {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&format!("mock:ttft=3600s,id={id}"), false));
        wait_for(mock, id);
        client
    }),
    ("before the first content", |mut client, mock, id| {
        let model = format!("mock:ttft=3600s,head=early,id={id}");
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&model, true));
        wait_for(mock, id);
        client
    }),
    ("between events", |mut client, _, id| {
        let model = format!("mock:ttft=1ms,gap=1ms,tokens=50,fault=stall@3,id={id}");
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&model, true));
        let head = client.head();
        let mut events = client.events(&head);
        events.next_event().expect("an event");
        events.into_client()
    }),
    ("with a pipelined request pending", |mut client, mock, id| {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&format!("mock:fault=never,id={id}"), true));
        wait_for(mock, id);
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat("mock", false));
        client
    }),
    ("with half a pipelined request pending", |mut client, mock, id| {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&format!("mock:fault=never,id={id}"), true));
        wait_for(mock, id);
        client.send(b"POST /v1/chat/completions HTT");
        client
    }),
    ("during the upload", |mut client, mock, id| {
        let head = format!(
            "POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
             x-mock-id: {id}\r\ncontent-length: 1000000\r\n\r\n",
            JSON[0].1
        );
        client.send(head.as_bytes()).send(&[7; 100_000]);
        wait_for(mock, id);
        client
    }),
];

/// Makes the connection one that has carried an exchange, with an endpoint waited for.
fn use_once(client: &mut Client) {
    let response = client.request("POST", "/v1/chat/completions", &JSON, &chat("mock:ttft=1ms,tokens=1", false));
    assert_eq!(response.head.status, 200, "{}", response.text());
}

fn wait_for(mock: &Mock, id: &str) {
    let mut seen = mock.connect();
    let path = format!("/mock/requests/{id}");
    let start = std::time::Instant::now();
    while seen.request("GET", &path, &[], b"").head.status != 200 {
        assert!(start.elapsed() < common::PATIENCE, "{id} never reached the provider");
        std::thread::yield_now();
    }
}

/// Lets the client of the exchange `id` leave and returns how long after it the provider saw that, in microseconds.
fn leave(mock: &Mock, client: Client, id: &str, how: Leave) -> i64 {
    let left_us = monotonic_us();
    let kept = match how {
        Leave::Close => {
            drop(client);
            None
        }
        Leave::HalfClose => {
            client.socket().shutdown(Shutdown::Write).expect("half-close");
            Some(client)
        }
    };
    let record = mock.stats_when(&format!("/mock/requests/{id}"), |record| record["state"] != "in_flight");
    drop(kept);
    assert_eq!(record["state"], "cancelled", "{id}: {record}");
    record["ended_us"].as_i64().expect("when it ended") - left_us
}

#[test]
fn a_client_that_leaves_in_any_phase_cancels_upstream() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for (phase, begin) in PHASES {
        for (turn, how) in [Leave::Close, Leave::HalfClose, Leave::Close, Leave::HalfClose].into_iter().enumerate() {
            let id = format!("{phase} {how:?} {turn}").replace([' ', ','], "-");
            let mut client = gateway.connect();
            if turn >= 2 {
                use_once(&mut client);
            }
            let client = begin(client, &mock, &id);
            leave(&mock, client, &id, how);
        }
    }
    // Whatever was cancelled, the gateway serves on, and nothing is left behind.
    let response =
        gateway.connect().request("POST", "/v1/chat/completions", &JSON, &chat("mock:ttft=1ms,tokens=1", false));
    assert_eq!(response.head.status, 200, "{}", response.text());
    mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0);
}

/// The machine may take a core away for longer than the figure, but hardly in each of three hundreds.
const HUNDREDS: usize = 3;

#[test]
fn a_client_that_leaves_is_noticed_within_5_ms_at_the_99th_percentile() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for (phase, begin) in PHASES {
        let held = (0..HUNDREDS).any(|hundred| {
            let mut took_us: Vec<i64> = (0..100)
                .map(|turn| {
                    let id = format!("{phase}-{hundred}-{turn}").replace([' ', ','], "-");
                    let client = begin(gateway.connect(), &mock, &id);
                    leave(&mock, client, &id, Leave::Close)
                })
                .collect();
            took_us.sort_unstable();
            eprintln!("{phase}: p50 {} µs, p99 {} µs, worst {} µs", took_us[49], took_us[98], took_us[99]);
            assert!(took_us[99] <= 1_000_000, "{phase}: one was noticed late only");
            took_us[98] <= 5_000
        });
        assert!(held, "{phase}: p99 above 5 ms in each of {HUNDREDS} hundreds, see above");
    }
}

#[test]
fn a_half_close_can_mean_that_the_client_still_reads() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[client]\nhalf_close = \"finish\""));
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat("mock:ttft=100ms,gap=1ms,tokens=5", true));
    client.half_close();
    let response = client.response("POST");
    assert_eq!(response.head.status, 200);
    assert!(response.text().ends_with("data: [DONE]\n\n"), "{}", response.text());
}
