//! Truthful streaming: what the provider said arrives when it was said and as it was said, and what went wrong is told.

mod common;

use common::{Config, End, Event, Events, Gateway, Head, JSON, Mock, chat, stream_chat, text_of};
use serde_json::Value;

/// Content at once, so that a test's time is its own.
const FAST: &str = "ttft=1ms,gap=1ms";

fn timers(timers: &str) -> String {
    format!("[timers]\n{timers}")
}

/// How a stream ended: its events, and whether a client could take it for whole.
struct Ended {
    events: Vec<Event>,
    errors: Vec<Value>,
    said_done: bool,
    end: End,
}

fn run_to_the_end(events: &mut Events) -> Ended {
    let all = events.all();
    let is_error = |event: &&Event| event.data.starts_with('{') && !event.json()["error"].is_null();
    let errors = all.iter().filter(is_error).map(|event| event.json()["error"].clone()).collect();
    let said_done = all.iter().any(|event| event.data == "[DONE]" || event.name.as_deref() == Some("message_stop"));
    let end = events.end().expect("the body has ended").clone();
    Ended { events: all, errors, said_done, end }
}

fn origin(head: &Head) -> &str {
    head.get("x-ringway-error-origin").unwrap_or("")
}

#[test]
fn an_event_is_not_held_back_for_the_next_one() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let (_, mut events) = stream_chat(gateway.address(), &format!("mock:{FAST},tokens=50,fault=stall@3"));
    let mut seen = Vec::new();
    // Nothing follows the third content: whoever waits for more shows two.
    while text_of(&seen).split_whitespace().count() < 3 {
        seen.push(events.next_event().expect("three contents, though a fourth never comes"));
    }
}

#[test]
fn the_head_and_the_first_content_leave_in_one_write() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for head in ["early", "late"] {
        let mut client = gateway.connect();
        let model = format!("mock:ttft=50ms,gap=1ms,tokens=3,head={head}");
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&model, true));
        client.head();
        let held = String::from_utf8_lossy(client.held()).into_owned();
        assert!(held.contains(r#""content":""#), "head={head}: with the head came {held:?}");
    }
}

#[test]
fn a_stream_arrives_byte_for_byte() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for script in [
        "",
        "split=1",
        "split=random,seed=7",
        "line-end=crlf",
        "line-end=cr",
        "line-end=crlf,split=1",
        "line-end=cr,split=1",
        "bom=on",
        "multi-line=on",
        "role=off",
        "reasoning=5",
        "tool=on",
        "fault=bad-utf8@2",
        "fault=huge@100000",
        "fault=huge@1000000",
        "framing=close",
        "gzip=on",
    ] {
        // Usage is asked for, so that the gateway has nothing to take out.
        let call = format!(
            r#"{{"model":"mock:{FAST},tokens=6,{script}","stream":true,"stream_options":{{"include_usage":true}},"messages":[]}}"#
        );
        let direct = mock.connect().request("POST", "/v1/chat/completions", &JSON, call.as_bytes());
        let through = gateway.connect().request("POST", "/v1/chat/completions", &JSON, call.as_bytes());
        assert_eq!((through.head.status, &through.end), (200, &End::Complete), "{script}: {}", through.text());
        assert!(
            through.body == direct.body,
            "{script}: {} bytes became {}:\n{}\n---\n{}",
            direct.body.len(),
            through.body.len(),
            direct.text().chars().take(2000).collect::<String>(),
            through.text().chars().take(2000).collect::<String>()
        );
        assert_eq!(through.head.get("content-type"), direct.head.get("content-type"), "{script}");
        assert_eq!(through.head.get("content-encoding"), direct.head.get("content-encoding"), "{script}");
    }
}

#[test]
fn usage_that_was_not_asked_for_is_not_shown() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    // The same model for both, since its name is part of every event.
    let mut without = JSON.to_vec();
    without.push(("x-mock-usage", "none"));
    for options in ["", r#""stream_options":{"include_usage":false},"#] {
        let call = format!(r#"{{"model":"mock:{FAST},tokens=6","stream":true,{options}"messages":[]}}"#);
        let plain = mock.connect().request("POST", "/v1/chat/completions", &without, call.as_bytes()).text();
        let shown = gateway.connect().request("POST", "/v1/chat/completions", &JSON, call.as_bytes()).text();
        // The provider was asked for usage, and says in every chunk that it has none yet: true, and harmless.
        assert_eq!(shown.replace(",\"usage\":null", ""), plain, "{options}");
        assert!(shown.ends_with("data: [DONE]\n\n"), "{shown}");
    }
}

#[test]
fn a_failure_before_the_first_content_is_a_real_status() {
    let mock = Mock::start(&[]);
    let gateway =
        Gateway::start(&Config::new(&[mock.url()]).and(&timers("first_token = \"300ms\"\nbetween_tokens = \"300ms\"")));
    for (script, status) in [
        ("fault=cut@first", 502),
        ("fault=rst@first", 502),
        ("fault=close", 502),
        ("fault=error@first", 0),
        ("fault=error-200", 0),
        ("fault=never", 504),
        ("fault=stall@first", 504),
        ("ttft=3600s,comments=20ms", 504),
        ("ttft=3600s,head=late", 504),
        ("status=429", 429),
        ("status=500", 500),
        ("status=529", 529),
    ] {
        for (path, stream) in [
            ("/v1/chat/completions", true),
            ("/v1/chat/completions", false),
            ("/v1/messages", true),
            ("/v1/messages", false),
        ] {
            let name = format!("{path} {script}, stream: {stream}");
            if !stream && matches!(script, "ttft=3600s,comments=20ms") {
                continue; // Keep-alives before JSON follow a head: the answer has begun.
            }
            // Timers and faults of a second exchange are those of a first one.
            let mut client = gateway.connect();
            assert_eq!(client.request("GET", "/v1/models", &JSON, b"").head.status, 200, "{name}");
            let response = client.request("POST", path, &JSON, &chat(&format!("mock:{FAST},{script}"), stream));
            if !stream && matches!(script, "fault=error@first" | "fault=error-200") {
                assert!(!response.json()["error"].is_null(), "{name}: {}", response.text());
                continue;
            }
            match status {
                0 => assert!(response.head.status >= 400, "{name}: {} {}", response.head.status, response.text()),
                status => assert_eq!(response.head.status, status, "{name}: {}", response.text()),
            }
            assert_eq!(response.end, End::Complete, "{name}");
            assert!(response.json()["error"]["message"].is_string(), "{name}: {}", response.text());
            assert_eq!(response.json()["type"] == "error", path == "/v1/messages", "{name}: {}", response.text());
            assert_eq!(origin(&response.head), "upstream", "{name}");
            assert!(response.head.get("x-request-id").is_some(), "{name}: {:?}", response.head);
        }
    }
}

#[test]
fn a_failure_after_the_first_content_is_told_in_the_stream_and_never_ends_it_cleanly() {
    let mock = Mock::start(&[]);
    let config = Config::new(&[mock.url()]).and(&timers("between_tokens = \"300ms\"\ntotal = \"5s\""));
    let gateway = Gateway::start(&config);
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for script in [
            "fault=cut@3",
            "fault=rst@3",
            "fault=cut-bytes@1500",
            "fault=rst-bytes@1500",
            "fault=error@3",
            "fault=no-finish",
            "fault=stall@3",
            "fault=stall@3,comments=20ms",
            "gap=100ms,tokens=100000",
        ] {
            let name = format!("{path} {script}");
            let mut client = gateway.connect();
            client.send_request("POST", path, &JSON, &chat_with_limit(&format!("mock:{FAST},{script}")));
            let head = client.head();
            assert_eq!(head.status, 200, "{name}");
            let ended = run_to_the_end(&mut client.events(&head));
            assert!(ended.events.len() > 2, "{name}: what came before the fault is delivered: {:?}", ended.events);
            assert!(!ended.said_done, "{name}: an end mark was invented");
            assert_eq!(ended.errors.len(), 1, "{name}: {:?}", ended.errors);
            assert!(ended.errors[0]["message"].is_string(), "{name}: {:?}", ended.errors);
            assert_eq!(ended.end, End::Cut, "{name}: a clean last chunk was invented");
            let last = ended.events.last().expect("an error event");
            assert!(last.data.contains("\"error\""), "{name}: something follows the error: {:?}", last.data);
            assert_eq!(last.name.as_deref() == Some("error"), path == "/v1/messages", "{name}: {last:?}");
        }
    }
}

fn chat_with_limit(model: &str) -> Vec<u8> {
    serde_json::json!({"model": model, "stream": true, "max_tokens": 100_000, "messages": [{"role": "user", "content": "hi"}]})
        .to_string()
        .into_bytes()
}

#[test]
fn a_stream_with_its_finish_but_without_its_end_mark_stays_without_it() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let mut client = gateway.connect();
        client.send_request("POST", path, &JSON, &chat_with_limit(&format!("mock:{FAST},tokens=3,fault=no-done")));
        let head = client.head();
        let ended = run_to_the_end(&mut client.events(&head));
        assert!(!ended.said_done, "{path}: an end mark was invented");
        assert!(ended.events.iter().any(|event| event.data.contains("stop")), "{path}: {:?}", ended.events);
    }
}

#[test]
fn a_body_that_lacks_only_its_last_chunk_is_whole_if_it_says_so_itself() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let (_, mut events) = stream_chat(gateway.address(), &format!("mock:{FAST},tokens=3,fault=truncated"));
    // `[DONE]` came: nothing is missing that the client could miss.
    let ended = run_to_the_end(&mut events);
    assert!(ended.said_done && ended.errors.is_empty(), "{:?}", ended.events);
    // JSON has no such mark.
    let whole = gateway.connect().request(
        "POST",
        "/v1/chat/completions",
        &JSON,
        &chat(&format!("mock:{FAST},fault=truncated,framing=chunked"), false),
    );
    assert!(whole.end == End::Cut || whole.head.status == 502, "{:?} {}", whole.head, whole.text());
}

#[test]
fn a_whole_answer_that_breaks_off_is_not_made_whole() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    for script in
        ["fault=cut-bytes@20", "fault=rst-bytes@20", "fault=long-length@50", "fault=cut-bytes@20,framing=chunked"]
    {
        let body = chat(&format!("mock:{FAST},{script}"), false);
        let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &body);
        assert!(
            response.end == End::Cut || response.head.status == 502,
            "{script}: {:?} {}",
            response.head,
            response.text()
        );
    }
}

#[test]
fn time_between_tokens_is_not_measured_by_comments_but_by_tokens() {
    let mock = Mock::start(&[]);
    let config = Config::new(&[mock.url()]).and(&timers("first_token = \"2s\"\nbetween_tokens = \"2s\""));
    let gateway = Gateway::start(&config);
    // Slow, but always in time: the stream takes longer than either timer.
    let (_, mut events) = stream_chat(gateway.address(), "mock:ttft=1s,gap=500ms,tokens=5");
    let ended = run_to_the_end(&mut events);
    assert!(ended.errors.is_empty() && ended.said_done && ended.end == End::Complete, "{:?}", ended.errors);
}

#[test]
fn the_next_endpoint_is_tried_when_one_does_not_connect() {
    let mock = Mock::start(&[]);
    // A port that was free a moment ago, and refuses.
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address");
    let gateway = Gateway::start(&Config::new(&[format!("http://{refusing}/v1"), mock.url()]));
    for _ in 0..20 {
        let (head, mut events) = stream_chat(gateway.address(), &format!("mock:{FAST},tokens=2"));
        assert_eq!(head.status, 200);
        assert!(run_to_the_end(&mut events).said_done);
    }
    let nowhere = Gateway::start(&Config::new(&[format!("http://{refusing}/v1")]));
    let response = nowhere.connect().request("POST", "/v1/chat/completions", &JSON, &chat("mock", true));
    assert_eq!((response.head.status, origin(&response.head)), (502, "upstream"), "{}", response.text());
}

#[test]
fn a_connection_closed_behind_our_back_costs_nobody_a_request() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let mut client = gateway.connect();
    for turn in 0..20 {
        let body = chat(&format!("mock:{FAST},tokens=1,close=silent"), false);
        let response = client.request("POST", "/v1/chat/completions", &JSON, &body);
        assert_eq!(response.head.status, 200, "turn {turn}: {}", response.text());
    }
}
