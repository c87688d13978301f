use super::*;
use crate::wire::sse::Framer;

/// A recorded answer with thinking, text and a tool call.
const STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":25,"cache_creation_input_tokens":3,"cache_read_input_tokens":11,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EqQ="}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_start
data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":15}}

event: message_stop
data: {"type":"message_stop"}

"#;

#[test]
fn a_whole_stream_reads_event_by_event() {
    use Kind::{Content, End, Finish, Lifecycle};
    let (mut rest, mut framer) = (STREAM.as_bytes(), Framer::new());
    let (mut kinds, mut usage) = (Vec::new(), Usage::default());
    while let Some(frame) = framer.next(rest) {
        let meaning = read_event(frame.event, &frame.data);
        kinds.push(meaning.kind);
        usage.merge(meaning.usage.unwrap_or_default());
        rest = &rest[frame.len..];
    }
    assert_eq!(
        kinds,
        [
            Lifecycle, Lifecycle, Lifecycle, Content, Content, Lifecycle, Lifecycle, Content, Content, Lifecycle,
            Content, Finish, End
        ]
    );
    let expected = Usage {
        input: Some(25),
        output: Some(15),
        cached_input: Some(11),
        cache_creation_input: Some(3),
        ..Usage::default()
    };
    assert_eq!(usage, expected);
}

#[test]
fn odd_events_are_taken_as_they_are() {
    use Kind::*;
    for (event, data, kind) in [
        ("content_block_delta", r#"{"delta":{"text":"x"}}"#, Content),
        ("", r#"{"type":"content_block_delta","delta":{"text":"x"}}"#, Content),
        ("content_block_start", r#"{"content_block":{"type":"text","text":"x"}}"#, Content),
        ("content_block_start", r#"{"content_block":{"type":"redacted_thinking","data":"AA"}}"#, Content),
        ("message_delta", r#"{"delta":{"stop_reason":null}}"#, Lifecycle),
        ("message_delta", r#"{"delta":"x"}"#, Lifecycle),
        ("content_block_delta", r#"{"delta":7}"#, Other),
        ("brand_new", r#"{"type":"brand_new"}"#, Other),
        ("message_stop", "{}", End),
        ("ping", "", Lifecycle),
        ("ping", "no JSON", Other),
        ("x", "{\"type\":\"ping\"", Other),
    ] {
        assert_eq!(read_event(event.as_bytes(), data.as_bytes()), Meaning::of(kind), "{event} {data}");
    }
}

#[test]
fn an_error_event_has_the_status_it_would_have_had() {
    for (event, data, status, message) in [
        ("error", r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, 529, "Overloaded"),
        ("error", r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#, 429, "m"),
        ("error", r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#, 502, "m"),
        ("error", r#"{"type":"error","error":{"type":"not_found_error","message":"m"}}"#, 404, "m"),
        ("error", r#"{"type":"error","error":{"type":"request_too_large","message":"m"}}"#, 413, "m"),
        ("", r#"{"error":{"type":"invalid_request_error","message":"m"}}"#, 400, "m"),
        ("error", r#"{"message":"m"}"#, 502, "m"),
        ("error", "m", 502, "m"),
    ] {
        let meaning = read_event(event.as_bytes(), data.as_bytes());
        let fault = meaning.error.expect(data);
        assert_eq!((meaning.kind, fault.status, fault.message.as_str()), (Kind::Error, status, message), "{data}");
    }
}

#[test]
fn our_errors_have_the_dialects_shape() {
    let reject = Reject::client(404, "model_not_found", "no model x");
    let body = r#"{"type":"error","error":{"type":"not_found_error","message":"no model x"}}"#;
    assert_eq!(String::from_utf8(error_body(&reject, None)).unwrap(), body);
    assert_eq!(String::from_utf8(error_event(&reject)).unwrap(), format!("event: error\ndata: {body}\n\n"));
    let with_id = String::from_utf8(error_body(&reject, Some("req_1"))).unwrap();
    assert_eq!(with_id, body.replace("x\"}}", "x\"},\"request_id\":\"req_1\"}"));
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ] {
        assert_eq!(error_type(status), kind, "{status}");
    }
}
