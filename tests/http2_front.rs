//! HTTP/2 to clients: streams beside one another, events that leave when they are complete, windows, and every end.

mod common;

use std::time::{Duration, Instant};

use common::http2::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, HEADERS, Http2, PING, RST_STREAM, SETTINGS, Said, WINDOW_UPDATE, frame,
    request, status_of,
};
use common::origin::{DONE, FINISH, content};
use common::{Client, Config, Gateway, JSON, Mock, Origin, PATIENCE, Records, chat, metric_is};
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

const PATH: &str = "/v1/chat/completions";
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

fn connect(gateway: &Gateway) -> Http2 {
    Http2::connect(gateway.address(), PATIENCE)
}

fn post(stream: u32, body: &[u8]) -> Vec<u8> {
    request(stream, "POST", PATH, &JSON, Some(body))
}

fn signal(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.process.id() as i32), signal).expect("it runs");
}

/// The next frame of `stream`; other streams' are passed over.
fn next_of(http2: &mut Http2, stream: u32) -> Frame {
    loop {
        let frame = http2.next();
        if frame.stream == stream {
            return frame;
        }
    }
}

/// What comes of DATA on `stream`, up to `until` or its end.
fn data_of(http2: &mut Http2, stream: u32, until: &str) -> String {
    let mut text = String::new();
    while !text.contains(until) {
        let frame = next_of(http2, stream);
        assert_eq!(frame.kind, DATA, "{text}: {frame:?}");
        text += std::str::from_utf8(&frame.payload).expect("text");
        if frame.ends() {
            break;
        }
    }
    text
}

#[test]
fn a_hundred_streams_go_on_beside_one_another_and_one_more_is_refused() {
    for driver in ["deferred", "epoll"] {
        let origin = Origin::start();
        let more = format!("[ring]\ndriver = {driver:?}");
        let gateway = Gateway::start(&Config::new(&[origin.url()]).top("cores = \"0\"").and(&more).admin());
        let mut http2 = connect(&gateway);
        let streams: Vec<u32> = (0..100).map(|at| 2 * at + 1).collect();
        let mut peers = Vec::new();
        for stream in &streams {
            let mut id = JSON.to_vec();
            let text = stream.to_string();
            id.push(("x-request-id", &text));
            http2.send(&request(*stream, "POST", PATH, &id, Some(&chat("m", false))));
            let mut peer = origin.accept();
            assert_eq!(peer.request().get("x-request-id"), Some(text.as_str()));
            peers.push(peer);
        }
        metric_is(&gateway, "ringway_http2_streams_open", &[], 100.0);
        http2.send(&post(201, &chat("m", false)));
        let refused = next_of(&mut http2, 201);
        assert_eq!((refused.kind, refused.reason()), (RST_STREAM, REFUSED_STREAM), "{driver}");
        // The last is answered first.
        for (stream, peer) in streams.iter().zip(&mut peers).rev() {
            peer.answer(&format!("{{\"stream\":{stream}}}"));
            let answer = http2.answer(*stream);
            assert_eq!(answer, Said::Answer(200, format!("{{\"stream\":{stream}}}").into_bytes()), "{driver}");
        }
        // There is room again.
        http2.send(&post(203, &chat("m", false)));
        let mut peer = peers.swap_remove(0);
        peer.request();
        peer.answer("{}");
        assert_eq!(http2.answer(203), Said::Answer(200, b"{}".to_vec()), "{driver}");
        metric_is(&gateway, "ringway_http2_streams_open", &[], 0.0);
        metric_is(&gateway, "ringway_http2_connections_open", &[], 1.0);
    }
}

#[test]
fn each_event_leaves_when_it_is_complete() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let mut http2 = connect(&gateway);
    http2.send(&post(1, &chat("m", true)));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("0"));
    assert_eq!(data_after_head(&mut http2, 1), content("0"));
    for number in 1..20 {
        // Half an event is none yet; the other half ends it, and nothing else has to come.
        let event = content(&number.to_string());
        let (first, rest) = event.split_at(event.len() / 2);
        peer.chunk(first).chunk(rest);
        assert_eq!(data_of(&mut http2, 1, "\n\n"), event);
    }
    peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    let end = data_of(&mut http2, 1, "never");
    assert_eq!(end, format!("{FINISH}{DONE}"));
}

/// Waits until the provider has the request `id`.
fn until_seen(mock: &Mock, id: &str) {
    let (mut seen, start) = (mock.connect(), Instant::now());
    while seen.request("GET", &format!("/mock/requests/{id}"), &[], b"").head.status != 200 {
        assert!(start.elapsed() < PATIENCE, "{id} never reached the provider");
        std::thread::yield_now();
    }
}

#[test]
fn a_stream_that_is_reset_is_cancelled_upstream_within_5_ms_at_the_99th_percentile() {
    let now_us = || {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a monotonic clock");
        now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
    };
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[client]\nrequests_max = 100000"));
    for (phase, model, streams) in [
        ("before the head", "mock:fault=never", false),
        ("before the first content", "mock:ttft=3600s,head=early", true),
        ("between events", "mock:ttft=1ms,gap=1ms,tokens=50,fault=stall@3", true),
    ] {
        let mut http2 = connect(&gateway);
        let mut stream = 1;
        // The machine may take a core away for longer than the figure, but hardly in each of three hundreds.
        let held = (0..3).any(|hundred| {
            let mut took_us: Vec<i64> = (0..100)
                .map(|turn| {
                    let id = format!("{phase}-{hundred}-{turn}").replace(' ', "-");
                    http2.send(&post(stream, &chat(&format!("{model},id={id}"), streams)));
                    until_seen(&mock, &id);
                    if phase == "between events" {
                        while next_of(&mut http2, stream).kind != DATA {}
                    }
                    let left_us = now_us();
                    http2.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
                    stream += 2;
                    let path = format!("/mock/requests/{id}");
                    let record = mock.stats_when(&path, |record| record["state"] != "in_flight");
                    assert_eq!(record["state"], "cancelled", "{id}: {record}");
                    record["ended_us"].as_i64().expect("when it ended") - left_us
                })
                .collect();
            took_us.sort_unstable();
            eprintln!("{phase}: p50 {} µs, p99 {} µs", took_us[49], took_us[98]);
            took_us[98] <= 5_000
        });
        assert!(held, "{phase}: p99 above 5 ms in each of three hundreds");
        // The connection is none the worse.
        http2.send(&post(stream, &chat("mock:ttft=1ms,tokens=1", false)));
        assert!(matches!(http2.answer(stream), Said::Answer(200, _)));
    }
    mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0);
}

#[test]
fn a_connection_that_breaks_cancels_every_stream_of_it() {
    let mock = Mock::start(&[]);
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    let gateway = Gateway::start(&Config::new(&[mock.url()]).top(&top));
    let mut http2 = connect(&gateway);
    for stream in 0..20 {
        http2.send(&post(2 * stream + 1, &chat("mock:fault=never", stream % 2 == 0)));
    }
    mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 20);
    drop(http2);
    mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0 && stats["cancelled"] == 20);
    let left = records.when(|records| records.len() == 20);
    assert!(left.iter().all(|record| record["state"] == "client_gone" && record["http"] == "2"), "{left:?}");
}

#[test]
fn a_stream_that_is_not_read_holds_back_its_own_provider_only() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).and("[client]\nwrite = \"1h\""));
    // Its streams' windows stay shut once they are used up.
    let mut http2 = Http2::connect_with(gateway.address(), PATIENCE, 1000);
    http2.send(&post(1, &chat("m", true)));
    let mut stalled = origin.accept();
    stalled.request();
    stalled.begin_stream();
    let piece = content(&"x".repeat(10_000));
    stalled.socket().set_write_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let (mut taken, bound) = (0, 32 << 20);
    // What the kernels and the gateway hold is bounded, so it comes to a halt.
    while taken < bound && stalled.try_send(format!("{:x}\r\n{piece}\r\n", piece.len())) {
        taken += piece.len();
    }
    assert!(taken < bound, "the gateway reads on for a client that does not");
    for stream in (3..43).step_by(2) {
        http2.send(&post(stream, &chat("m", false)));
        let mut peer = origin.accept();
        peer.request();
        peer.answer("{}");
        assert_eq!(http2.answer(stream), Said::Answer(200, b"{}".to_vec()), "{stream}");
        peer.reset();
    }
    // Given a window, it goes on from where it stood.
    let mut seen = 0;
    while seen < 200_000 {
        http2.send(&frame(WINDOW_UPDATE, 0, 1, &100_000_u32.to_be_bytes()));
        let frame = next_of(&mut http2, 1);
        seen += if frame.kind == DATA { frame.payload.len() } else { 0 };
    }
    http2.send(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
    stalled.ended();
}

#[test]
fn who_does_not_read_is_given_up_in_time() {
    let origin = Origin::start();
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    let config = Config::new(&[origin.url()]).top(&top).and("[client]\nwrite = \"100ms\"");
    let gateway = Gateway::start(&config);
    let mut http2 = Http2::connect_with(gateway.address(), PATIENCE, 1000);
    // One in the middle of its answer, and one whose answer is whole but for its taking.
    http2.send(&post(1, &chat("m", true)));
    let mut endless = origin.accept();
    endless.request();
    endless.begin_stream();
    let piece = content(&"x".repeat(10_000));
    while endless.try_send(format!("{:x}\r\n{piece}\r\n", piece.len())) {}
    http2.send(&post(3, &chat("m", false)));
    let mut whole = origin.accept();
    whole.request();
    whole.answer(&format!("{{\"x\":\"{}\"}}", "y".repeat(5000)));
    for _ in 0..2 {
        let reset = loop {
            let frame = http2.next();
            if frame.kind == RST_STREAM {
                break frame;
            }
        };
        assert_eq!(reset.reason(), INTERNAL_ERROR, "stream {}", reset.stream);
    }
    let stalled = records.when(|records| records.len() == 2);
    assert!(stalled.iter().all(|record| record["error_code"] == "client_stalled"), "{stalled:?}");
    // Who reads is served on the same connection.
    http2.send(&request(5, "GET", "/v1/models", &JSON[..1], None));
    assert!(matches!(http2.answer(5), Said::Answer(200, _)));
}

#[test]
fn an_answer_is_complete_once_it_has_left_and_not_before() {
    let origin = Origin::start();
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    let gateway = Gateway::start(&Config::new(&[origin.url()]).top(&top));
    let mut http2 = Http2::connect_with(gateway.address(), PATIENCE, 1000);
    for (stream, takes_all) in [(1, false), (3, true)] {
        http2.send(&post(stream, &chat("m", false)));
        let mut peer = origin.accept();
        peer.request();
        peer.answer(&format!("{{\"x\":\"{}\"}}", "y".repeat(5000)));
        while next_of(&mut http2, stream).kind != DATA {}
        if takes_all {
            http2.send(&frame(WINDOW_UPDATE, 0, stream, &10_000_u32.to_be_bytes()));
            while !next_of(&mut http2, stream).ends() {}
        } else {
            http2.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        let count = if takes_all { 2 } else { 1 };
        let record = records.when(|records| records.len() == count).pop().expect("a record");
        assert_eq!(record["state"], if takes_all { "complete" } else { "client_gone" }, "{record}");
    }
}

#[test]
fn a_prompt_of_a_mebibyte_need_not_wait_for_a_window() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let mut http2 = connect(&gateway);
    let (mut stream_window, mut connection_window) = (65_535_u32, 65_535_u32);
    while stream_window < 1 << 20 || connection_window < 1 << 20 {
        let (kind, flags, stream, payload) = http2.frame().expect("its settings");
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks(6) {
                    let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                    if setting[..2] == [0, 4] {
                        stream_window = value;
                    }
                }
                http2.send(&frame(SETTINGS, ACK, 0, &[]));
            }
            WINDOW_UPDATE if stream == 0 => {
                connection_window += u32::from_be_bytes(payload[..].try_into().expect("four bytes"));
            }
            _ => {}
        }
    }
    let prompt = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "p".repeat((1 << 20) - 100));
    http2.send(&post(1, prompt.as_bytes()));
    let mut peer = origin.accept();
    assert_eq!(peer.request().text(), prompt);
    peer.answer("{}");
    assert_eq!(http2.answer(1), Said::Answer(200, b"{}".to_vec()));
    // A body whose length nobody told, in many pieces, and its window is given back as it is read.
    let length = 4 << 20;
    let mut sent = 0;
    let head = request(3, "POST", "/v1/files", &[JSON[0], ("content-type", "application/octet-stream")], Some(b""));
    // Without the last frame, which is empty and ends it.
    http2.send(&head[..head.len() - 9]);
    let mut peer = origin.accept();
    let mut window = stream_window as usize;
    while sent < length {
        let piece = 16_000.min(length - sent);
        while window < piece {
            let (kind, _, stream, payload) = http2.frame().expect("a window");
            if kind == WINDOW_UPDATE && stream == 3 {
                window += u32::from_be_bytes(payload[..].try_into().expect("four bytes")) as usize;
            }
        }
        http2.send(&frame(DATA, 0, 3, &vec![b'u'; piece]));
        (sent, window) = (sent + piece, window - piece);
        if sent == piece {
            assert_eq!(peer.head().get("transfer-encoding"), Some("chunked"));
            let reader = peer.socket().try_clone().expect("a socket");
            std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
        }
    }
    http2.send(&frame(DATA, END_STREAM, 3, &[]));
    peer.answer("{}");
    assert_eq!(http2.answer(3), Said::Answer(200, b"{}".to_vec()));
}

#[test]
fn a_stream_that_breaks_upstream_says_so_and_is_reset() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let mut http2 = connect(&gateway);
    http2.send(&post(1, &chat("m", true)));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("one"));
    assert_eq!(data_after_head(&mut http2, 1), content("one"));
    peer.reset();
    let told = next_of(&mut http2, 1);
    assert!(told.kind == DATA && !told.ends(), "{told:?}");
    assert!(String::from_utf8_lossy(&told.payload).contains("\"upstream_truncated\""), "{told:?}");
    let end = next_of(&mut http2, 1);
    assert_eq!((end.kind, end.reason()), (RST_STREAM, INTERNAL_ERROR), "a clean end would be a lie");
}

#[test]
fn trailers_of_an_answer_arrive() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    let mut http2 = connect(&gateway);
    http2.send(&post(1, &chat("m", false)));
    let mut peer = origin.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n").chunk("body");
    peer.send("0\r\nx-sum: 7\r\n\r\n");
    let frames: Vec<Frame> = std::iter::from_fn(|| Some(next_of(&mut http2, 1))).take(3).collect();
    assert_eq!(frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [HEADERS, DATA, HEADERS]);
    assert!(frames[2].ends() && !frames[1].ends());
}

#[test]
fn a_gateway_that_ends_says_so_and_finishes_what_is_under_way() {
    for driver in ["deferred", "epoll"] {
        let origin = Origin::start();
        let more = format!("[ring]\ndriver = {driver:?}");
        let mut gateway = Gateway::start(&Config::new(&[origin.url()]).top("cores = \"0\"").and(&more));
        let (mut idle, mut used, mut busy) = (connect(&gateway), connect(&gateway), connect(&gateway));
        used.send(&request(1, "GET", "/v1/models", &JSON[..1], None));
        assert!(matches!(used.answer(1), Said::Answer(200, _)));
        idle.send(&frame(PING, 0, 0, &[7; 8]));
        while idle.frame().expect("an answer").0 != PING {}
        busy.send(&post(1, &chat("m", true)));
        let mut peer = origin.accept();
        peer.request();
        peer.begin_stream().chunk(content("one"));
        assert!(data_after_head(&mut busy, 1).contains("one"));
        signal(&gateway, Signal::SIGTERM);
        for http2 in [&mut idle, &mut used] {
            assert_eq!(http2.end(), Said::Ended(Some(NO_ERROR)), "{driver}: who has nothing under way goes");
        }
        let goaway = busy.next();
        assert_eq!((goaway.kind, goaway.reason()), (GOAWAY, NO_ERROR), "{driver}");
        peer.chunk(content("two")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        let mut rest = String::new();
        loop {
            let frame = busy.next();
            if frame.kind == DATA {
                rest += std::str::from_utf8(&frame.payload).expect("text");
                if frame.ends() {
                    break;
                }
            }
        }
        assert_eq!(rest, format!("{}{FINISH}{DONE}", content("two")), "{driver}");
        assert_eq!(busy.end(), Said::Ended(Some(NO_ERROR)), "{driver}");
        assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
    }
}

/// What comes of DATA first.
fn data_after_head(http2: &mut Http2, stream: u32) -> String {
    let head = next_of(http2, stream);
    assert_eq!((head.kind, status_of(&head.payload)), (HEADERS, 200));
    data_of(http2, stream, "\n\n")
}

#[test]
fn what_outlasts_the_deadline_is_told_so_and_reset() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&Config::new(&[origin.url()]).and("[client]\ndrain = \"50ms\""));
    let mut http2 = connect(&gateway);
    http2.send(&post(1, &chat("m", true)));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("one"));
    assert!(data_after_head(&mut http2, 1).contains("one"));
    http2.send(&post(3, &chat("m", false)));
    let mut silent = origin.accept();
    silent.request();
    signal(&gateway, Signal::SIGTERM);
    let (mut told, mut reset, mut answered) = (String::new(), None, None);
    while let Ok(frame) = http2.try_next() {
        match (frame.kind, frame.stream) {
            (DATA, 1) => told += std::str::from_utf8(&frame.payload).expect("text"),
            (RST_STREAM, 1) => reset = Some(frame.reason()),
            (HEADERS, 3) => answered = Some(status_of(&frame.payload)),
            _ => {}
        }
    }
    assert!(told.contains("\"shutting_down\""), "{told}");
    assert_eq!((reset, answered), (Some(INTERNAL_ERROR), Some(503)));
    assert_eq!(gateway.process.wait().code(), Some(0));
    peer.ended();
    silent.ended();
}

#[test]
fn a_client_that_falls_silent_is_asked_and_given_up() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[http2]\nping = \"100ms\"").admin());
    // One answers the pings and stays for as long as it does.
    let mut there = connect(&gateway);
    there.send(&post(1, &chat("mock:fault=never", false)));
    let mut pings = 0;
    while pings < 5 {
        let (kind, flags, _, payload) = there.frame().expect("it is open");
        match kind {
            SETTINGS if flags & ACK == 0 => there.send(&frame(SETTINGS, ACK, 0, &[])),
            PING if flags & ACK == 0 => {
                pings += 1;
                there.send(&frame(PING, ACK, 0, &payload));
            }
            _ => {}
        }
    }
    // Now it does not.
    while there.frame().is_ok() {}
    mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0 && stats["cancelled"] == 1);
    metric_is(&gateway, "ringway_http2_connections_failed_total", &[], 1.0);
}

#[test]
fn an_idle_connection_is_closed_in_time_and_a_used_up_one_after_its_last_request() {
    let mock = Mock::start(&[]);
    let more = "[client]\nkeep_alive = \"200ms\"\nhead = \"200ms\"\nrequests_max = 3";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(more));
    let mut idle = connect(&gateway);
    idle.send(&request(1, "GET", "/v1/models", &JSON[..1], None));
    assert!(matches!(idle.answer(1), Said::Answer(200, _)));
    assert_eq!(idle.end(), Said::Ended(Some(NO_ERROR)));
    // Half a preface is none.
    let mut half = Client::connect(gateway.address());
    half.send(b"PRI * HTTP/2.0\r\n\r\nS");
    assert!(half.is_closed() || half.response("GET").head.status >= 400);

    let mut used = connect(&gateway);
    for stream in [1, 3, 5] {
        used.send(&request(stream, "GET", "/v1/models", &JSON[..1], None));
    }
    let mut answers = 0;
    let mut told = None;
    while let Ok(frame) = used.try_next() {
        answers += u32::from(frame.ends());
        told = (frame.kind == GOAWAY).then(|| frame.reason()).or(told);
    }
    assert_eq!((answers, told), (3, Some(NO_ERROR)));
}

#[test]
fn frames_that_carry_nothing_have_a_bound() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[http2]\ncontrol_frames_max = 50"));
    for (name, flood) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("unknown", frame(0xbb, 0, 0, &[1, 2, 3])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 7])),
    ] {
        // The settings that begin a connection count.
        for (count, floods) in [(49, false), (50, true)] {
            let mut http2 = connect(&gateway);
            // At once, so that time gives nothing back.
            http2.send(&flood.repeat(count));
            http2.send(&request(1, "GET", "/v1/models", &JSON[..1], None));
            let answer = http2.answer(1);
            assert_eq!(matches!(answer, Said::Answer(200, _)), !floods, "{count} {name}: {answer:?}");
        }
    }
    // Streams that are opened to be reset are bounded by the same, or by the library before.
    let mut http2 = connect(&gateway);
    for stream in 0..2000 {
        http2.send(&request(2 * stream + 1, "GET", "/v1/models", &JSON[..1], None));
        http2.send(&frame(RST_STREAM, 0, 2 * stream + 1, &CANCEL.to_be_bytes()));
    }
    let end = http2.end();
    assert!(matches!(end, Said::Ended(None | Some(ENHANCE_YOUR_CALM))), "{end:?}");
}

#[test]
fn where_it_is_not_spoken_it_is_refused_as_what_it_is() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).listener("http2 = false"));
    let mut client = Client::connect(gateway.address());
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.response("GET").head.status, 505);
    // And what begins alike and goes on otherwise is a request like any other.
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let started = Instant::now();
    let mut client = Client::connect(gateway.address());
    for byte in b"PRI /v1/models HTTP/1.1\r\nhost: x\r\n\r\n" {
        client.send(&[*byte]);
    }
    let status = client.response("GET").head.status;
    assert!(status >= 400 && started.elapsed() < PATIENCE, "{status}");
}

#[test]
fn a_connection_that_nobody_reads_from_is_not_kept() {
    let mock = Mock::start(&[]);
    let more =
        "[client]\nwrite = \"200ms\"\nkeep_alive = \"200ms\"\nrequests_max = 1000000\n[http2]\nstreams_max = 1000";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(more).admin());
    let mut http2 = connect(&gateway);
    // Refusals, which need no key: more of them than any buffers hold.
    let mut stream = 1;
    while stream < 400_000 {
        let requests: Vec<u8> =
            (0..50).flat_map(|at| request(stream + 2 * at, "GET", "/v1/models", &[], None)).collect();
        stream += 100;
        if std::io::Write::write_all(&mut http2.stream, &requests).is_err() {
            break;
        }
    }
    metric_is(&gateway, "ringway_http2_connections_failed_total", &[], 1.0);
    metric_is(&gateway, "ringway_http2_connections_open", &[], 0.0);
    metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
}

#[test]
fn bodies_that_have_come_take_no_room_in_the_connections_window() {
    let origin = Origin::start();
    let config = Config::new(&[origin.url()]).and("[http2]\nconnection_window = \"64KiB\"\nstream_window = \"64KiB\"");
    let gateway = Gateway::start(&config);
    let mut http2 = connect(&gateway);
    let prompt = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "p".repeat(15_000));
    let mut length = JSON.to_vec();
    let text = prompt.len().to_string();
    length.push(("content-length", &text));
    let mut peers = Vec::new();
    for stream in (1..41).step_by(2) {
        http2.send(&request(stream, "POST", PATH, &length, Some(prompt.as_bytes())));
        let mut peer = origin.accept();
        assert_eq!(peer.request().text(), prompt, "stream {stream}, none of the others answered yet");
        peers.push(peer);
    }
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.answer("{}");
        assert_eq!(http2.answer(2 * at as u32 + 1), Said::Answer(200, b"{}".to_vec()));
    }
}
