//! One usage record for every exchange, however it ends, with what the provider said that it cost.

mod common;

use common::origin::{DONE, FINISH, ROLE, content};
use common::{Config, Gateway, JSON, Mock, Origin, Records, chat};

const PATH: &str = "/v1/chat/completions";

/// A gateway that writes usage records, and those.
fn recorded(url: String, more: &str) -> (Gateway, Records) {
    let records = Records::new();
    let top = format!("cores = \"0\"\n{}", records.line());
    (Gateway::start(&Config::new(&[url]).top(&top).and(more)), records)
}

fn headers(id: &str) -> Vec<(&str, &str)> {
    JSON.iter().copied().chain([("x-request-id", id)]).collect()
}

#[test]
fn usage_is_read_from_every_shape_and_every_dialect() {
    let mock = Mock::start(&["--script", "ttft=1ms,gap=0ms,tokens=5,prompt-tokens=7"]);
    let (gateway, records) = recorded(mock.url(), "");
    let mut expected = Vec::new();
    for path in [PATH, "/v1/messages"] {
        for (stream, usage) in [
            (true, "asked"),
            (true, "final"),
            (true, "every"),
            (true, "finish"),
            (true, "null-choices"),
            (true, "in-choice"),
            (true, "none"),
            (false, "asked"),
        ] {
            let id = format!("{}-{stream}-{usage}", path.len());
            let mut headers = headers(&id);
            headers.push(("x-mock-usage", usage));
            let response = gateway.connect().request("POST", path, &headers, &chat("m", stream));
            assert_eq!(response.head.status, 200, "{id}: {}", response.text());
            // An Anthropic stream always reports something.
            let told = match (usage, path) {
                ("none", PATH) => (None, None),
                ("none", _) => (Some(0), Some(0)),
                _ => (Some(7), Some(5)),
            };
            expected.push((id, stream, told));
        }
    }
    // Too long to be held, and the usage is at its end.
    let id = "huge";
    let call = chat("mock:ttft=1ms,tokens=100000,token-bytes=20", false);
    let response = gateway.connect().request("POST", PATH, &headers(id), &call);
    assert!(response.body.len() > 1_000_000, "{}", response.body.len());
    expected.push((id.into(), false, (Some(7), Some(100_000))));

    let records = records.until(id);
    assert_eq!(records.len(), expected.len(), "{records:?}");
    for (record, (id, stream, tokens)) in records.iter().zip(expected) {
        assert_eq!(record["request_id"], id, "{record}");
        assert_eq!((record["state"].as_str(), &record["status"]), (Some("complete"), &200.into()), "{record}");
        assert_eq!(record["streamed"], stream, "{record}");
        assert_eq!((record["input_tokens"].as_u64(), record["output_tokens"].as_u64()), tokens, "{record}");
        assert_eq!((record["attempts"].as_u64(), record["key"].as_str()), (Some(1), Some("test")), "{record}");
    }
}

#[test]
fn every_end_has_one_record_with_its_state() {
    let origin = Origin::start();
    let more = "[timers]\nfirst_token = \"300ms\"\nbetween_tokens = \"300ms\"";
    let (gateway, records) = recorded(origin.url(), more);
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    let mut expected = Vec::new();
    let mut expect = |id: &str, state: &str, status: u16, contents: u64| {
        expected.push((id.to_owned(), state.to_owned(), u64::from(status), contents));
    };
    let begin = |id: &str, stream: bool| {
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &headers(id), &chat("m", stream));
        let mut peer = origin.accept();
        peer.request();
        if stream {
            peer.begin_stream().chunk(ROLE);
        }
        (client, peer)
    };

    let (mut client, mut peer) = begin("complete", true);
    peer.chunk(content("a") + &content("b")).chunk(FINISH).chunk(usage).chunk(DONE).send("0\r\n\r\n");
    client.response("POST");
    // The finish reason counts as content: it is the model's.
    expect("complete", "complete", 200, 3);
    drop(peer);

    let bad = [("authorization", "Bearer none"), JSON[1], ("x-request-id", "refused")];
    assert_eq!(gateway.connect().request("POST", PATH, &bad, &chat("m", true)).head.status, 401);
    expect("refused", "refused", 401, 0);

    assert_eq!(gateway.connect().request("POST", PATH, &headers("no-model"), b"{").head.status, 400);
    expect("no-model", "refused", 400, 0);

    let (client, mut peer) = begin("gone-before-content", true);
    drop(client);
    peer.ended();
    expect("gone-before-content", "client_gone", 0, 0);

    let (mut client, mut peer) = begin("gone-between-events", true);
    peer.chunk(content("a"));
    client.head();
    drop(client);
    peer.ended();
    expect("gone-between-events", "client_gone", 200, 1);

    let mut client = gateway.connect();
    client.send(
        format!(
            "POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\nx-request-id: gone-uploading\r\n\
             content-type: audio/wav\r\ncontent-length: 9\r\n\r\nRIFF",
            JSON[0].1
        )
        .as_bytes(),
    );
    let mut peer = origin.accept();
    peer.head();
    drop(client);
    peer.ended();
    expect("gone-uploading", "client_gone", 0, 0);

    for (id, stream) in [("cut-before-content", true), ("cut-before-head", false)] {
        let (mut client, peer) = begin(id, stream);
        drop(peer);
        assert_eq!(client.response("POST").head.status, 502);
        expect(id, if stream { "truncated" } else { "upstream_error" }, 502, 0);
    }

    let (mut client, mut peer) = begin("cut-after-content", true);
    peer.chunk(content("a")).chunk(usage);
    drop(peer);
    assert_eq!(client.response("POST").head.status, 200);
    expect("cut-after-content", "truncated", 200, 1);

    let (mut client, mut peer) = begin("error-after-content", true);
    peer.chunk(content("a")).chunk("data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}\n\n");
    client.response("POST");
    expect("error-after-content", "upstream_error", 200, 1);

    let (mut client, mut peer) = begin("error-before-content", true);
    peer.chunk("data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}\n\n");
    let status = client.response("POST").head.status;
    expect("error-before-content", "upstream_error", status, 0);

    let (mut client, mut peer) = begin("error-status", false);
    peer.send("HTTP/1.1 429 Slow Down\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(client.response("POST").head.status, 429);
    expect("error-status", "upstream_error", 429, 0);
    drop(peer);

    for (id, content_first) in [("late-first", false), ("late-next", true)] {
        let (mut client, mut peer) = begin(id, true);
        if content_first {
            peer.chunk(content("a"));
        }
        let status = client.response("POST").head.status;
        assert_eq!(status, if content_first { 200 } else { 504 });
        peer.ended();
        expect(id, "timeout", status, u64::from(content_first));
    }

    let url = "last";
    assert_eq!(gateway.connect().request("GET", "/v1/models", &headers(url), b"").head.status, 200);
    expect(url, "complete", 200, 0);

    let records = records.until(url);
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let number = |name: &str| record[name].as_u64().unwrap_or_default();
            (text("request_id"), text("state"), number("status"), number("content_events"))
        })
        .collect();
    assert_eq!(told, expected);
    let of = |id: &str| records.iter().find(|record| record["request_id"] == id).expect("a record").clone();
    assert_eq!((&of("complete")["input_tokens"], &of("complete")["output_tokens"]), (&3.into(), &1.into()));
    assert_eq!(of("cut-after-content")["output_tokens"], 1, "what was told before the end counts");
}
