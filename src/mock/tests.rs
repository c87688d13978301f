//! The mock as a client sees it: raw sockets, so that every byte counts.

mod client;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use client::{Seen, head_end, receive};

use super::script::Script;
use super::stats::{State, monotonic_ns};
use super::{Mock, MockConfig};

/// Longer than anything here should take; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

fn mock(list: &str) -> Mock {
    let mut script = Script { ttft: Duration::ZERO, gap: Duration::ZERO, ..Script::default() };
    script.apply(list).expect("a script");
    start(MockConfig { script, ..MockConfig::default() })
}

fn start(config: MockConfig) -> Mock {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    Mock::spawn(listener, config).expect("a mock")
}

fn connect(mock: &Mock) -> TcpStream {
    let stream = TcpStream::connect(mock.addr()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: mock\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn chat(model: &str, stream: bool, headers: &str) -> String {
    let body = format!(
        "{{\"model\":\"{model}\",\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}"
    );
    post("/v1/chat/completions", headers, &body)
}

fn ask(mock: &Mock, request: &str) -> Seen {
    let mut stream = connect(mock);
    stream.write_all(request.as_bytes()).expect("sent");
    receive(&mut stream)
}

/// Waits for something that the mock will notice on its own.
fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_chat_stream_has_a_role_its_tokens_a_finish_and_done() {
    let mock = mock("tokens=5");
    let data = ask(&mock, &chat("mock", true, "")).data();
    assert_eq!(data.len(), 1 + 5 + 1 + 1, "{data:?}");
    let chunks: Vec<Value> = data[..7].iter().map(|data| serde_json::from_str(data).expect(data)).collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert!(chunks[1..6].iter().all(|chunk| chunk["choices"][0]["delta"]["content"].is_string()));
    assert_eq!(chunks[6]["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"] && chunk.get("usage").is_none()));
    assert_eq!(data[7], "[DONE]");
}

#[test]
fn streamed_and_unstreamed_answers_say_the_same() {
    let mock = mock("tokens=9,tokens-per-event=2");
    let whole = ask(&mock, &chat("mock", false, "")).json();
    assert_eq!(whole["usage"]["completion_tokens"], 9);
    let text: String = ask(&mock, &chat("mock", true, ""))
        .data()
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], text);
}

#[test]
fn usage_stands_where_the_script_puts_it() {
    let mock = mock("tokens=3");
    // Where usage with the whole sum is: the index of the chunk from the end ([DONE] is 0), and its pointer.
    for (usage, at, pointer, choices) in [
        ("final", 1, "/usage", "[]"),
        ("null-choices", 1, "/usage", "null"),
        ("finish", 1, "/usage", ""),
        ("every", 1, "/usage", ""),
        ("in-choice", 1, "/choices/0/usage", ""),
    ] {
        let data = ask(&mock, &chat(&format!("mock:usage={usage}"), true, "")).data();
        let chunk: Value = serde_json::from_str(&data[data.len() - 1 - at]).expect("JSON");
        let found = chunk.pointer(pointer).unwrap_or(&Value::Null);
        assert_eq!(
            (&found["prompt_tokens"], &found["completion_tokens"]),
            (&11.into(), &3.into()),
            "{usage}: {data:?}"
        );
        if !choices.is_empty() {
            assert_eq!(chunk["choices"].to_string(), choices, "{usage}");
        }
    }
    let none = ask(&mock, &chat("mock:usage=none", true, "")).text();
    assert!(!none.contains("\"usage\":"), "{none}");
    let body = "{\"model\":\"mock\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}";
    let asked = ask(&mock, &post("/v1/chat/completions", "", body)).data();
    assert!(asked[asked.len() - 2].contains("\"choices\":[],\"usage\":{"), "{asked:?}");
    assert!(asked[0].ends_with("\"usage\":null}"), "{asked:?}");
}

#[test]
fn an_anthropic_stream_keeps_its_order() {
    let mock = mock("tokens=2");
    let body = "{\"model\":\"mock\",\"max_tokens\":9,\"stream\":true,\"messages\":[]}";
    let seen = ask(&mock, &post("/v1/messages", "", body));
    let names: Vec<String> =
        seen.text().lines().filter_map(|line| line.strip_prefix("event: ").map(str::to_owned)).collect();
    let expected = "message_start ping content_block_start content_block_delta content_block_delta ping \
                    content_block_stop message_delta message_stop";
    assert_eq!(names.join(" "), expected);
    let data: Vec<Value> = seen.data().iter().map(|data| serde_json::from_str(data).expect(data)).collect();
    assert!(names.iter().zip(&data).all(|(name, data)| data["type"] == name.as_str()));
    assert_eq!(data[0]["message"]["usage"]["input_tokens"], 11);
    assert_eq!(data[7]["usage"]["output_tokens"], 2);
}

#[test]
fn a_response_stream_is_numbered_and_ends_with_usage() {
    let mock = mock("tokens=2");
    let data = ask(&mock, &post("/v1/responses", "", "{\"model\":\"mock\",\"stream\":true,\"input\":\"hi\"}")).data();
    let events: Vec<Value> = data.iter().map(|data| serde_json::from_str(data).expect(data)).collect();
    assert!(events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at));
    assert_eq!(events[0]["type"], "response.created");
    let last = events.last().expect("events");
    assert_eq!((&last["type"], &last["response"]["usage"]["output_tokens"]), (&"response.completed".into(), &2.into()));
}

#[test]
fn the_other_calls_answer_in_shape() {
    let mock = mock("");
    for (path, body, pointer, expected) in [
        ("/v1/completions", "{\"model\":\"m\",\"prompt\":\"x\"}", "/object", Value::from("text_completion")),
        ("/v1/responses", "{\"model\":\"m\",\"input\":\"x\"}", "/status", "completed".into()),
        ("/v1/messages", "{\"model\":\"m\",\"messages\":[]}", "/stop_reason", "end_turn".into()),
        ("/v1/messages/count_tokens", "{\"model\":\"m\",\"messages\":[]}", "/input_tokens", 11.into()),
        ("/v1/embeddings", "{\"model\":\"m\",\"input\":[\"a\",\"b\"]}", "/data/1/index", 1.into()),
        ("/v1/chat/completions", "{\"model\":\"mock:tool=on\"}", "/choices/0/finish_reason", "tool_calls".into()),
        ("/v1/chat/completions", "{\"max_tokens\":3}", "/choices/0/finish_reason", "length".into()),
        ("/v1/chat/completions", "no JSON", "/error/message", "The body is not JSON.".into()),
        ("/v1/anything", "{\"a\":1e400}", "", Value::Null),
    ] {
        let seen = ask(&mock, &post(path, "", body));
        if pointer.is_empty() {
            assert_eq!(seen.text(), body, "an echo");
        } else {
            assert_eq!(seen.json().pointer(pointer), Some(&expected), "{path} {body}: {seen:?}");
        }
    }
    let list = ask(&mock, "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").json();
    assert_eq!(list["data"][0]["id"], "mock");
    assert_eq!(ask(&mock, "GET /v1/models/a/b HTTP/1.1\r\nhost: x\r\n\r\n").json()["id"], "a/b");
    let base64 = "{\"model\":\"m\",\"input\":\"a\",\"encoding_format\":\"base64\",\"dimensions\":3}";
    let embedding = ask(&mock, &post("/v1/embeddings", "", base64)).json();
    assert_eq!(embedding["data"][0]["embedding"].as_str().map(str::len), Some(16));
}

#[test]
fn the_same_seed_and_prompt_give_the_same_bytes() {
    let say = |list: &str, model: &str| ask(&mock(list), &chat(model, true, "")).text();
    assert_eq!(say("seed=7", "mock"), say("seed=7", "mock"));
    assert_ne!(say("seed=7", "mock"), say("seed=8", "mock"));
    assert_eq!(say("", "mock:seed=7").replace("mock:seed=7", "mock"), say("seed=7", "mock"));
}

#[test]
fn headers_win_over_the_model_and_the_model_over_the_instance() {
    let mock = mock("tokens=2");
    for (model, headers, tokens) in [
        ("mock", "", 2),
        ("mock:tokens=3", "", 3),
        ("mock:tokens=3", "x-mock: tokens=4\r\n", 4),
        ("mock:tokens=3", "x-mock-tokens: 5\r\nx-mock: tokens=4\r\n", 5),
    ] {
        let seen = ask(&mock, &chat(model, false, headers));
        assert_eq!(seen.json()["usage"]["completion_tokens"], tokens, "{model} {headers}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name_in_the_dialect() {
    let mock = mock("");
    for (request, pointer) in [
        (chat("mock:speed=9", true, ""), "/error/message"),
        (chat("mock", true, "x-mock-speed: 9\r\n"), "/error/message"),
        (post("/v1/messages", "x-mock: speed=9\r\n", "{}"), "/error/message"),
    ] {
        let seen = ask(&mock, &request);
        let message = seen.json().pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
        assert_eq!(seen.status(), "400");
        assert!(message.starts_with("unknown key \"speed\"; keys: ttft, gap"), "{message}");
    }
}

#[test]
fn any_status_comes_with_its_error_and_retry_after() {
    let mock = mock("");
    let headers = "x-mock: status=429,retry-after=7,error-code=insufficient_quota\r\n";
    let seen = ask(&mock, &chat("mock", true, headers));
    assert_eq!(seen.status(), "429");
    assert!(seen.head.contains("retry-after: 7\r\n"), "{}", seen.head);
    assert_eq!(seen.json()["error"]["code"], "insufficient_quota");
    let seen = ask(&mock, &post("/v1/messages", "x-mock-status: 529\r\n", "{}"));
    assert_eq!((seen.status(), &seen.json()["error"]["type"]), ("529", &"overloaded_error".into()));
    let seen = ask(&mock, &chat("mock", false, "x-mock-status: 503\r\nx-mock-body: go, away\r\n"));
    assert_eq!((seen.status(), seen.text().as_str()), ("503", "go, away"));
}

#[test]
fn each_fault_does_on_the_wire_what_it_says() {
    let mock = mock("tokens=4,role=off");
    // Fault -> events that came, body whole, RST, what the last event holds.
    for (fault, events, whole, reset, last) in [
        ("none", 6, true, false, "[DONE]"),
        ("cut@2", 2, false, false, "content"),
        ("rst@2", 2, false, true, "content"),
        ("cut@0", 0, false, false, ""),
        ("cut-bytes@0", 0, false, false, ""),
        ("error@2", 3, true, false, "\"error\":{"),
        ("error@0", 1, true, false, "\"error\":{"),
        ("error@first", 1, true, false, "\"error\":{"),
        ("no-done", 5, true, false, "\"finish_reason\":\"stop\""),
        ("no-finish", 4, true, false, "content"),
        ("truncated", 6, false, false, "[DONE]"),
        ("huge@100000", 6, true, false, "[DONE]"),
    ] {
        let seen = ask(&mock, &chat(&format!("mock:fault={fault}"), true, ""));
        let data = seen.data();
        assert_eq!((data.len(), seen.whole, seen.error.is_some()), (events, whole, reset), "{fault}: {seen:?}");
        assert_eq!(seen.status(), "200", "{fault}");
        let found = data.last().map_or("", String::as_str);
        assert!(found.contains(last), "{fault}: {found}");
        assert!(!fault.starts_with("huge") || data[0].len() > 100_000);
    }
    let seen = eventually("all are counted", || Some(mock.stats()).filter(|seen| seen.in_flight == 0));
    assert_eq!((seen.requests, seen.cut, seen.cancelled, seen.completed), (12, 5, 0, 7));
}

#[test]
fn faults_of_single_bytes_and_bodies_do_what_they_say() {
    let mock = mock("tokens=4,role=off");
    let seen = ask(&mock, &chat("mock:fault=cut-bytes@77", true, ""));
    assert_eq!((seen.body.len(), seen.whole), (77, false));
    let seen = ask(&mock, &chat("mock:fault=bad-utf8@1", true, ""));
    assert_eq!(std::str::from_utf8(&seen.body).map_err(|error| error.error_len()), Err(Some(1)));
    let seen = ask(&mock, &chat("mock:fault=error-200", true, ""));
    assert_eq!((seen.status(), seen.json()["error"]["type"].as_str()), ("200", Some("server_error")));
    let seen = ask(&mock, &chat("mock:fault=long-length@9", false, ""));
    assert!(!seen.whole && seen.json()["id"].is_string(), "{seen:?}");
    assert!(seen.head.contains(&format!("content-length: {}\r\n", seen.body.len() + 9)), "{}", seen.head);
    let seen = ask(&mock, &chat("mock:fault=cut@10", false, ""));
    assert_eq!((seen.body.len(), seen.whole), (10, false));
    let seen = ask(&mock, &chat("mock:fault=close", false, ""));
    assert_eq!((seen.head.as_str(), seen.error), ("", None));
}

#[test]
fn every_shape_of_a_stream_reads_the_same_after_undoing_it() {
    let mock = mock("tokens=6,seed=3");
    let plain = ask(&mock, &chat("mock", true, "")).text();
    let undo_gzip = |body: Vec<u8>| {
        let mut text = String::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut text).expect("gzip");
        text
    };
    for (headers, head, undo) in [
        ("line-end=crlf", "", (|text| text.replace("\r\n", "\n")) as fn(String) -> String),
        ("line-end=cr", "", |text| text.replace('\r', "\n")),
        ("bom=on", "", |text| text.trim_start_matches('\u{feff}').to_owned()),
        ("multi-line=on", "", |text| text.replace("data: {\ndata: ", "data: {")),
        ("split=1", "", |text| text),
        ("split=7", "", |text| text),
        ("split=random", "", |text| text),
        ("drip=400/1ms", "", |text| text),
        ("head-gap=1us,split=1000", "", |text| text),
        ("framing=length", "content-length: ", |text| text),
        ("framing=close", "connection: close", |text| text),
        ("gzip=on", "content-encoding: gzip", |text| text),
        ("gzip=on,split=3", "content-encoding: gzip", |text| text),
        ("informational=103", "http/1.1 103 early hints\r\n", |text| text),
        ("trailers=on", "transfer-encoding: chunked", |text| text),
        ("trailers=on,split=2", "transfer-encoding: chunked", |text| text),
        ("head=late,ttft=1ms", "", |text| text),
    ] {
        let seen = ask(&mock, &chat("mock", true, &format!("x-mock: {headers}\r\n")));
        assert!(seen.whole && seen.head.contains(head), "{headers}: {}", seen.head);
        assert!(seen.head.contains("http/1.1 200 ok\r\n"), "{headers}: {}", seen.head);
        let text = if headers.contains("gzip") { undo_gzip(seen.body.clone()) } else { seen.text() };
        assert_eq!(undo(text), plain, "{headers}");
        let trailers = if headers.contains("trailers") { "x-mock-trailer: 1" } else { "" };
        assert_eq!(seen.trailers, trailers, "{headers}");
    }
}

#[test]
fn slow_heads_pieces_and_bodies_come_in_their_pieces() {
    let mock = mock("");
    // Each pause is so long that a reader would have to sleep for a second to see more than the bound.
    for (list, bytes_max) in [("head-gap=100ms", 10), ("split=1,split-gap=100ms", 10), ("split=7,split-gap=100ms", 70)]
    {
        let mut stream = connect(&mock);
        stream.write_all(chat(&format!("mock:{list}"), false, "").as_bytes()).expect("sent");
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).expect("a piece");
        assert!(count <= bytes_max && b"HTTP/1.1 200 OK\r\n".starts_with(&bytes[..count.min(17)]), "{list}: {count}");
    }
    let mut stream = connect(&mock);
    stream.write_all(chat("mock:drip=5/100ms", false, "").as_bytes()).expect("sent");
    let (mut raw, mut bytes) = (Vec::new(), [0; 4096]);
    while head_end(&raw).is_none() {
        let count = stream.read(&mut bytes).expect("a head");
        assert!(count > 0);
        raw.extend_from_slice(&bytes[..count]);
    }
    let count = stream.read(&mut bytes).expect("a drop");
    assert!(raw.len() > 100 && (1..=50).contains(&count), "{count}");
}

#[test]
fn keep_alives_come_while_waiting() {
    let mock = mock("tokens=1");
    let seen = ask(&mock, &chat("mock:ttft=60ms,comments=10ms", true, ""));
    let text = seen.text();
    let before = text.split("\"content\":\" ").next().unwrap_or("");
    assert!(before.matches(": keep-alive\n\n").count() >= 2, "{text}");
    let seen = ask(&mock, &chat("mock:ttft=60ms,comments=10ms", false, ""));
    assert!(seen.body.starts_with(b"\n\n") && seen.json()["id"].is_string(), "{seen:?}");
}

#[test]
fn an_event_waits_for_its_time_and_says_when_it_left() {
    let mock = mock("tokens=3,stamp=on,ttft=20ms,gap=20ms");
    let before = monotonic_ns();
    let data = ask(&mock, &chat("mock", true, "")).data();
    let after = monotonic_ns();
    let times: Vec<u64> = data
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk["x_sent_ns"].as_u64())
        .collect();
    assert_eq!(times.len(), 5, "{data:?}");
    assert!(times[1] >= before + 20_000_000 && times[3] >= before + 60_000_000, "{times:?}");
    assert!(times.is_sorted() && times[4] <= after, "{times:?}");
}

#[test]
fn an_upload_comes_back_as_it_was_and_is_described() {
    let mock = mock("");
    let request = "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: a/b\r\ntransfer-encoding: chunked\r\n\
                   trailer: x-sum\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 9\r\n\r\n";
    let seen = ask(&mock, request);
    assert_eq!(seen.text(), "abcde");
    assert!(seen.head.contains("content-type: a/b\r\n"), "{}", seen.head);
    assert!(seen.head.contains("x-mock-request-trailer: x-sum: 9\r\n"), "{}", seen.head);

    let echo = ask(&mock, "GET /mock/echo-head HTTP/1.1\r\nHost: y\r\n\r\n").json();
    assert_eq!((&echo["method"], echo["headers"].to_string().as_str()), (&"GET".into(), "[[\"Host\",\"y\"]]"));

    let request = "POST /v1/x?a=b HTTP/1.1\r\nHost: x\r\nX-Mock-Echo: 1\r\nB: 2\r\na: 1\r\nB: 3\r\n\
                   Content-Length: 3\r\n\r\nabc";
    let echo = ask(&mock, request).json();
    let sha256_of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!((&echo["method"], &echo["target"]), (&"POST".into(), &"/v1/x?a=b".into()));
    assert_eq!((&echo["body_bytes"], &echo["body_sha256"]), (&3.into(), &sha256_of_abc.into()));
    let headers = "[[\"Host\",\"x\"],[\"X-Mock-Echo\",\"1\"],[\"B\",\"2\"],[\"a\",\"1\"],[\"B\",\"3\"],[\"Content-Length\",\"3\"]]";
    assert_eq!(echo["headers"].to_string(), headers);
}

#[test]
fn a_client_that_leaves_is_noticed_in_every_silence() {
    let mock = mock("tokens=4,role=off");
    for (name, request, read_head) in [
        ("stalled", chat("mock:fault=stall@2", true, "x-mock-id: stalled\r\n"), true),
        ("never", chat("mock:fault=never", true, "x-mock-id: never\r\n"), false),
        ("ttft", chat("mock:ttft=1m", true, "x-mock-id: ttft\r\n"), true),
        ("unstreamed", chat("mock:ttft=1m", false, "x-mock-id: unstreamed\r\n"), false),
        ("drip", chat("mock:drip=1/20s", true, "x-mock-id: drip\r\n"), true),
        (
            "upload",
            "POST /v1/files HTTP/1.1\r\nhost: x\r\nx-mock-id: upload\r\ncontent-length: 9\r\n\r\nabc".into(),
            false,
        ),
    ] {
        let mut stream = connect(&mock);
        stream.write_all(request.as_bytes()).expect("sent");
        if read_head {
            assert!(stream.read(&mut [0; 16]).expect("a head") > 0, "{name}");
        }
        eventually("the request is seen", || mock.request(name));
        let left_us = monotonic_ns() / 1000;
        drop(stream);
        let record = eventually("it is over", || mock.request(name).filter(|seen| seen.state != State::InFlight));
        assert_eq!(record.state, State::Cancelled, "{name}");
        let noticed_us = record.ended_us.expect("an end").saturating_sub(left_us);
        // A millisecond on a quiet machine; the bound only tells noticing from a timer.
        assert!(noticed_us < 1_000_000, "{name}: noticed after {noticed_us} us");
        assert_eq!(record.events_out, if name == "stalled" { 2 } else { record.events_out }, "{name}");
    }
    let seen = mock.stats();
    assert_eq!((seen.requests, seen.cancelled, seen.in_flight), (6, 6, 0));
}

#[test]
fn connections_and_their_reuse_are_counted() {
    let mock = mock("");
    let mut stream = connect(&mock);
    for _ in 0..3 {
        stream.write_all(chat("mock", false, "").as_bytes()).expect("sent");
        assert!(receive(&mut stream).whole);
    }
    let stats = ask(&mock, "GET /mock/stats HTTP/1.1\r\nhost: x\r\n\r\n").json();
    assert_eq!((&stats["requests"], &stats["reused"]), (&3.into(), &2.into()));
    assert_eq!((&stats["connections_accepted"], &stats["requests_per_connection_max"]), (&2.into(), &3.into()));
    assert_eq!(stats["by_path"]["/v1/chat/completions"], 3);
    assert!(ask(&mock, &post("/mock/reset", "", "")).whole);
    assert_eq!(mock.stats().requests, 0);
    assert_eq!(ask(&mock, "GET /mock/requests/nobody HTTP/1.1\r\nhost: x\r\n\r\n").status(), "404");
}

#[test]
fn a_connection_closes_with_and_without_a_word() {
    let mock = mock("");
    for (close, announced) in [("announced", true), ("silent", false)] {
        let mut stream = connect(&mock);
        stream.write_all(chat(&format!("mock:close={close}"), false, "").as_bytes()).expect("sent");
        let seen = receive(&mut stream);
        assert!(seen.whole, "{close}");
        assert_eq!(seen.head.contains("connection: close"), announced, "{}", seen.head);
        assert_eq!(stream.read(&mut [0; 1]).expect("an end"), 0, "{close}");
    }
    eventually("both completed", || Some(mock.stats()).filter(|seen| seen.completed == 2));
}

#[test]
fn an_instance_may_refuse_and_change_its_mind() {
    let mock = mock("fault=refuse");
    let mut stream = connect(&mock);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    mock.set_script(Script { tokens: 2, ttft: Duration::ZERO, ..Script::default() });
    assert_eq!(ask(&mock, &chat("mock", false, "")).json()["usage"]["completion_tokens"], 2);
    assert!(ask(&mock, &post("/mock/script", "", "fault=refuse")).whole);
    assert_eq!(connect(&mock).read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn dropping_a_mock_ends_what_it_was_doing() {
    let mock = mock("fault=never");
    let mut stream = connect(&mock);
    stream.write_all(chat("mock", false, "").as_bytes()).expect("sent");
    eventually("the request is seen", || Some(mock.stats()).filter(|seen| seen.requests == 1));
    drop(mock);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn the_fixed_mode_answers_streams_and_notices_who_leaves() {
    let mut script = Script::default();
    script.apply("tokens=3,gap=2ms,ttft=0,stamp=on").expect("a script");
    let mock = start(MockConfig { script, threads: 2, fixed: Some(1024) });
    let mut stream = connect(&mock);
    for _ in 0..3 {
        stream.write_all(chat("any", false, "").as_bytes()).expect("sent");
        let seen = receive(&mut stream);
        assert_eq!((seen.body.len(), seen.json()["object"].as_str()), (1024, Some("chat.completion")));
    }
    for _ in 0..2 {
        stream.write_all(chat("any", true, "").as_bytes()).expect("sent");
        let data = receive(&mut stream).data();
        assert_eq!((data.len(), data.last().map(String::as_str)), (5, Some("[DONE]")), "{data:?}");
        let times = data.iter().filter(|data| data.contains("\"x_sent_ns\":")).count();
        assert_eq!(times, 3);
    }
    let slow = "tokens=3,gap=1m,ttft=1m";
    let mut script = Script::default();
    script.apply(slow).expect("a script");
    let silent = start(MockConfig { script, threads: 1, fixed: Some(1024) });
    let mut leaver = connect(&silent);
    leaver.write_all(chat("any", true, "").as_bytes()).expect("sent");
    eventually("the stream is seen", || Some(silent.stats()).filter(|seen| seen.in_flight == 1));
    drop(leaver);
    eventually("it was cancelled", || Some(silent.stats()).filter(|seen| seen.cancelled == 1));
    eventually("all five are seen to have ended", || Some(mock.stats()).filter(|seen| seen.completed == 5));
}

#[test]
fn the_fixed_mode_swallows_uploads_and_sends_files() {
    let mock = start(MockConfig { fixed: Some(1024), ..MockConfig::default() });
    let mut stream = connect(&mock);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for (rest, bytes) in [("Content-Length: 3\r\n\r\nabc", 3), (chunked, 5), ("Content-Length: 0\r\n\r\n", 0)] {
        stream.write_all(format!("POST /v1/files HTTP/1.1\r\nHost: x\r\n{rest}").as_bytes()).expect("sent");
        assert_eq!(receive(&mut stream).json()["bytes"], bytes, "{rest:?}");
    }
    for (id, bytes) in [("700000", 700_000), ("700000-chunked", 700_000), ("0-chunked", 0)] {
        let get = format!("GET /v1/files/{id}/content HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(get.as_bytes()).expect("sent");
        let seen = receive(&mut stream);
        assert_eq!((seen.status(), seen.body.len(), seen.whole), ("200", bytes, true), "{id}");
    }
    // One connection, and what follows is understood.
    stream.write_all(chat("any", false, "").as_bytes()).expect("sent");
    assert_eq!(receive(&mut stream).body.len(), 1024);
    eventually("all are seen to have ended", || Some(mock.stats()).filter(|seen| seen.completed == 7));
}
