//! The loads against a small blocking server: what they count must be what was sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::http::parse_target;

/// Answers every request on every connection with what `answer` writes, until the client closes.
fn serve(answer: impl Fn(&mut TcpStream, u64) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test process; connections end with their client.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || exchange(stream, &answer));
        }
    });
    address
}

fn exchange(mut stream: TcpStream, answer: &impl Fn(&mut TcpStream, u64)) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for number in 0.. {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        answer(&mut stream, number);
    }
}

fn common(address: SocketAddr) -> Common {
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
        h2: 0,
    }
}

fn fixed(stream: &mut TcpStream, _: u64) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok();
}

fn closed(address: SocketAddr, requests: u64) -> Value {
    let load =
        closed::Closed { common: common(address), connections: 3, seconds: 0.0, requests, warm_up: 0.0, once: false };
    load.run().unwrap()
}

#[test]
fn closed_loop_counts_every_answer() {
    let report = closed(serve(fixed), 100);
    assert_eq!((&report["requests"], &report["errors"]), (&json!(100), &json!(0)), "{report}");
    assert_eq!(report["latency"]["count"], 100);
    assert_eq!(report["body_bytes"], 2);
    assert!(report["cpu_ns"].as_u64().unwrap() > 0);
}

#[test]
fn wrong_answers_are_errors_and_not_requests() {
    for (name, reason, answer) in [
        ("status", "status 500", "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"),
        ("length", "answer of 3 bytes", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        ("framing", "bytes after the answer", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokok"),
        ("no HTTP", "not an HTTP head", "hello\r\n\r\n"),
    ] {
        // One connection: its first answer is good and sets the length, its second is not.
        let address = serve(move |stream, number| match number {
            0 => fixed(stream, number),
            _ => drop(stream.write_all(answer.as_bytes())),
        });
        let load = closed::Closed {
            common: common(address),
            connections: 1,
            seconds: 0.0,
            requests: 2,
            warm_up: 0.0,
            once: false,
        };
        let report = load.run().unwrap();
        assert_eq!((&report["requests"], &report["errors"]), (&json!(1), &json!(1)), "{name}: {report}");
        assert_eq!(report["reasons"][reason], 1, "{name}: {report}");
    }
}

#[test]
fn a_connection_closed_after_its_answer_is_renewed_without_an_error() {
    let address = serve(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").ok();
    });
    let report = closed(address, 12);
    assert_eq!((&report["requests"], &report["errors"]), (&json!(12), &json!(0)), "{report}");
    assert_eq!(report["renewals"], 12);
}

#[test]
fn open_loop_latency_counts_from_the_time_a_request_was_due() {
    // 20 ms an answer and one connection, at 200 requests a second: three of four requests queue ever longer.
    let address = serve(|stream, number| {
        std::thread::sleep(Duration::from_millis(20));
        fixed(stream, number);
    });
    let load = open::Open {
        common: common(address),
        rate: 200.0,
        poisson: false,
        seed: 1,
        connections: 1,
        seconds: 0.2,
        warm_up: 0.0,
    };
    let report = load.run().unwrap();
    assert_eq!(report["errors"], 0, "{report}");
    let requests = report["requests"].as_u64().unwrap();
    assert!((38..=40).contains(&requests), "{report}");
    // The last one was due at 200 ms and answered after 40 × 20 ms.
    assert!(report["latency"]["max_us"].as_f64().unwrap() > 500_000.0, "{report}");
}

#[test]
fn poisson_arrivals_have_the_rate_and_the_spread_asked_for() {
    let mut arrivals = open::Arrivals::new(5000.0, true, 7);
    let gaps: Vec<f64> = (0..100_000).map(|_| arrivals.next_gap_ns() as f64).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
    assert!((mean / 200_000.0 - 1.0).abs() < 0.02, "mean {mean}");
    assert!((deviation / mean - 1.0).abs() < 0.02, "deviation {deviation}");
}

/// A stream of events: `writes` has the ages of the events in milliseconds, with `|` between one write and the next.
fn stream_of(writes: &'static str, end: &'static str) -> SocketAddr {
    serve(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for ages_ms in writes.split('|') {
            let events: String = ages_ms
                .split_whitespace()
                .map(|age| now_ns() - age.parse::<u64>().unwrap() * 1_000_000)
                .map(|sent_ns| format!("data: {{\"x_sent_ns\":{sent_ns}}}\n\n"))
                .collect();
            let chunk = format!("{:x}\r\n{events}\r\n", events.len());
            stream.write_all(chunk.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        stream.write_all(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes()).unwrap();
    })
}

#[test]
fn streams_are_judged_event_by_event() {
    const END: &str = "data: [DONE]\n\n";
    for (name, writes, end, errors, reason) in [
        ("as sent", "0 | 0 | 0", END, 0, ""),
        ("held back", "0 | 40 0", END, 0, ""),
        ("an event lost", "0 | 0", END, 1, "missing event"),
        ("cut", "0 | 0 | 0", ": \n\n", 1, "no end mark"),
        ("failed inside", "0 | 0 | 0", "data: {\"error\":{}}\n\ndata: [DONE]\n\n", 1, "error event"),
    ] {
        let load = sse::Sse {
            common: common(stream_of(writes, end)),
            streams: 1,
            events: 3,
            gap_ms: 20.0,
            repeats: 1,
            stalled: None,
            starts_per_second: 2000.0,
        };
        let report = load.run().unwrap();
        assert_eq!(report["errors"], errors, "{name}: {report}");
        if errors > 0 {
            assert_eq!(report["reasons"][reason], 1, "{name}: {report}");
        }
        let held_back_us = if name == "held back" { 40_000.0 } else { 0.0 };
        assert!(report["delay"]["max_us"].as_f64().unwrap() >= held_back_us, "{name}: {report}");
    }
}

#[test]
fn streams_start_with_evenly_spread_phases() {
    for (streams, gap_ms, per_second) in
        [(200, 20.0, 2000.0), (4000, 500.0, 2000.0), (3, 20.0, 2000.0), (7, 10.0, 100.0)]
    {
        let gap_ns = gap_ms * 1e6;
        let starts = sse::start_offsets_ns(streams, gap_ns, per_second);
        assert!(starts.is_sorted(), "{streams} streams");
        let seconds = *starts.last().unwrap() as f64 / 1e9;
        assert!(streams as f64 <= per_second * (seconds + 0.1), "{streams} streams in {seconds} s");
        let mut phases: Vec<f64> = starts.iter().map(|&start| start as f64 % gap_ns).collect();
        phases.sort_by(f64::total_cmp);
        let slot = gap_ns / streams as f64;
        let widest = phases.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(widest < slot * 2.5, "{streams} streams: a hole of {} slots", widest / slot);
    }
}

#[test]
fn idle_connections_are_held_checked_and_weighed() {
    let idle = |address| idle::Idle { common: common(address), connections: 20, wave: 8, settle: 0.05 }.run().unwrap();
    let report = idle(serve(fixed));
    assert_eq!(report["errors"], 0, "{report}");
    assert!(report["held"]["rss_kib"].as_u64().unwrap() > 0, "{report}");

    // A server that hangs up on idle clients does not hold 20 connections cheaply: it holds none.
    let address = serve(|stream, number| {
        fixed(stream, number);
        stream.shutdown(std::net::Shutdown::Both).ok();
    });
    assert_ne!(idle(address)["errors"], 0);
}

#[test]
fn memory_given_back_is_a_part_of_the_growth() {
    for (before, held, after, expected) in [
        (100, 200, 100, 1.0),
        (100, 200, 150, 0.5),
        (100, 200, 200, 0.0),
        (100, 200, 250, 0.0),
        (100, 200, 50, 1.0),
        (100, 100, 100, 1.0),
    ] {
        assert_eq!(idle::given_back(before, held, after), expected, "{before} {held} {after}");
    }
}
