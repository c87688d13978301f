use super::*;

/// Input, output and cached input.
fn usage(input: u64, output: u64, cached: Option<u64>) -> Option<Usage> {
    Some(Usage { input: Some(input), output: Some(output), cached_input: cached, ..Usage::default() })
}

#[test]
fn a_chat_chunk_means_what_its_parts_say() {
    use Kind::*;
    for (name, choices, kind) in [
        ("role only", r#"[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]"#, Lifecycle),
        ("role and empty text", r#"[{"delta":{"role":"assistant","content":"","refusal":null}}]"#, Lifecycle),
        ("empty delta", r#"[{"delta":{}}]"#, Lifecycle),
        ("empty parts", r#"[{"delta":{"content":null,"tool_calls":[],"reasoning_content":"","audio":{}}}]"#, Lifecycle),
        ("no delta", r#"[{"index":0}]"#, Lifecycle),
        ("text", r#"[{"delta":{"content":"Hi"}}]"#, Content),
        ("a blank is text", r#"[{"delta":{"content":" "}}]"#, Content),
        ("half a surrogate pair", r#"[{"delta":{"content":"\ud83d"}}]"#, Content),
        ("text in parts", r#"[{"delta":{"content":[{"type":"text","text":"x"}]}}]"#, Content),
        ("reasoning_content", r#"[{"delta":{"content":null,"reasoning_content":"Hm"}}]"#, Content),
        ("reasoning", r#"[{"delta":{"reasoning":"Hm"}}]"#, Content),
        ("reasoning_details", r#"[{"delta":{"reasoning_details":[{"text":"Hm"}]}}]"#, Content),
        (
            "tool call",
            r#"[{"delta":{"tool_calls":[{"index":0,"id":"call_1","function":{"name":"f","arguments":""}}]}}]"#,
            Content,
        ),
        ("old function call", r#"[{"delta":{"function_call":{"name":"f"}}}]"#, Content),
        ("refusal", r#"[{"delta":{"refusal":"No"}}]"#, Content),
        ("audio", r#"[{"delta":{"audio":{"id":"a","data":"AA=="}}}]"#, Content),
        ("whole message", r#"[{"message":{"role":"assistant","content":"Hi"}}]"#, Content),
        ("second choice", r#"[{"delta":{}},{"index":1,"delta":{"content":"x"}}]"#, Content),
        ("completion text", r#"[{"text":"x","logprobs":null}]"#, Content),
        ("completion without text", r#"[{"text":""}]"#, Lifecycle),
        ("finish", r#"[{"delta":{},"finish_reason":"stop"}]"#, Finish),
        ("finish with text", r#"[{"delta":{"content":"x"},"finish_reason":"length"}]"#, Finish),
        ("no finish yet, as some write it", r#"[{"delta":{"content":""},"finish_reason":""}]"#, Lifecycle),
        ("no finish yet, as others write it", r#"[{"delta":{},"finish_reason":"null"}]"#, Lifecycle),
        ("delta of another type", r#"[{"delta":"x"},null,7]"#, Lifecycle),
        ("no choice", "[]", Lifecycle),
        ("choices null", "null", Lifecycle),
        ("choices an object", "{\"a\":[]}", Lifecycle),
        ("choices of another type", "7", Other),
    ] {
        let chunk =
            format!(r#"{{"id":"c","object":"chat.completion.chunk","model":"m","choices":{choices},"usage":null}}"#);
        assert_eq!(read_event(b"", chunk.as_bytes()), Meaning::of(kind), "{name}");
    }
}

#[test]
fn usage_is_found_wherever_it_is_put() {
    for (name, data, kind, expected) in [
        (
            "extra chunk",
            r#"{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}"#,
            Kind::Usage,
            usage(5, 2, Some(1)),
        ),
        (
            "choices null",
            r#"{"choices":null,"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
            Kind::Usage,
            usage(5, 2, None),
        ),
        ("no choices", r#"{"usage":{"prompt_tokens":5,"completion_tokens":2}}"#, Kind::Usage, usage(5, 2, None)),
        (
            "every chunk",
            r#"{"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
            Kind::Content,
            usage(5, 2, None),
        ),
        (
            "finish chunk",
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
            Kind::Finish,
            usage(5, 2, None),
        ),
        (
            "in the choice",
            r#"{"choices":[{"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":5,"completion_tokens":2}}]}"#,
            Kind::Finish,
            usage(5, 2, None),
        ),
        (
            "in the choice, null outside",
            r#"{"choices":[{"delta":{"content":"x"},"usage":{"prompt_tokens":5,"completion_tokens":2}}],"usage":null}"#,
            Kind::Content,
            usage(5, 2, None),
        ),
        (
            "cache hits",
            r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_cache_hit_tokens":4}}"#,
            Kind::Usage,
            usage(5, 2, Some(4)),
        ),
        ("no counts", r#"{"object":"chat.completion.chunk","choices":[],"usage":{}}"#, Kind::Lifecycle, None),
        (
            "responses",
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}},"error":null}}"#,
            Kind::End,
            usage(5, 2, Some(1)),
        ),
        (
            "responses, cut short",
            r#"{"type":"response.incomplete","response":{"usage":{"input_tokens":5,"output_tokens":2}}}"#,
            Kind::End,
            usage(5, 2, None),
        ),
        (
            "responses, not yet",
            r#"{"type":"response.created","response":{"usage":null,"error":null}}"#,
            Kind::Lifecycle,
            None,
        ),
        (
            "images",
            r#"{"type":"image_generation.completed","b64_json":"AA","usage":{"input_tokens":5,"output_tokens":2}}"#,
            Kind::Other,
            usage(5, 2, None),
        ),
        (
            "transcript",
            r#"{"type":"transcript.text.done","text":"x","usage":{"input_tokens":5,"output_tokens":2}}"#,
            Kind::End,
            usage(5, 2, None),
        ),
    ] {
        assert_eq!(read_event(b"", data.as_bytes()), Meaning { kind, usage: expected, error: None }, "{name}");
    }
}

#[test]
fn an_error_is_seen_in_every_shape() {
    for (name, event, data, status, message) in [
        ("OpenAI", "", r#"{"error":{"message":"m","type":"server_error","param":null,"code":null}}"#, 502, "m"),
        ("beside empty choices", "", r#"{"id":"x","choices":[],"error":{"code":429,"message":"m"}}"#, 429, "m"),
        (
            "beside a finish",
            "",
            r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}],"error":{"code":"server_error","message":"m"}}"#,
            502,
            "m",
        ),
        ("a text", "", r#"{"error":"m"}"#, 502, "m"),
        ("overloaded", "", r#"{"error":{"type":"overloaded_error","message":"m"}}"#, 503, "m"),
        (
            "responses",
            "error",
            r#"{"type":"error","code":"rate_limit_exceeded","message":"m","param":null,"sequence_number":3}"#,
            429,
            "m",
        ),
        (
            "responses, failed",
            "response.failed",
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
            502,
            "m",
        ),
        ("flat", "", r#"{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}"#, 400, "m"),
        ("named by the frame", "error", r#"{"message":"m"}"#, 502, "m"),
        ("named by the frame, no JSON", "error", "m", 502, "m"),
        ("error_code", "", r#"{"error_code":336100,"message":"m"}"#, 502, "m"),
        ("base_resp", "", r#"{"base_resp":{"status_code":1002,"status_msg":"rate limit"},"message":"m"}"#, 502, "m"),
    ] {
        let meaning = read_event(event.as_bytes(), data.as_bytes());
        assert_eq!(meaning.kind, Kind::Error, "{name}");
        let fault = meaning.error.expect(name);
        assert_eq!((fault.status, fault.message.as_str()), (status, message), "{name}");
    }
    for no_error in
        [r#""error":null"#, r#""error":"""#, r#""error":{}"#, r#""error":false"#, r#""base_resp":{"status_code":0}"#]
    {
        let chunk = format!(r#"{{"choices":[{{"delta":{{"content":"x"}}}}],{no_error}}}"#);
        assert_eq!(read_event(b"", chunk.as_bytes()), Meaning::of(Kind::Content), "{no_error}");
    }
}

#[test]
fn typed_events_are_told_apart() {
    use Kind::*;
    for (data, kind) in [
        (r#"{"type":"response.in_progress","response":{}}"#, Lifecycle),
        (r#"{"type":"response.output_item.added","item":{"type":"message","content":[]}}"#, Lifecycle),
        (r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f"}}"#, Content),
        (r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#, Lifecycle),
        (r#"{"type":"response.output_text.delta","delta":"x","sequence_number":4}"#, Content),
        (r#"{"type":"response.output_text.delta","delta":""}"#, Lifecycle),
        (r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#, Content),
        (r#"{"type":"response.reasoning_summary_text.delta","delta":"x"}"#, Content),
        (r#"{"type":"response.output_text.done","text":"x"}"#, Content),
        (r#"{"type":"response.something_new"}"#, Other),
        (r#"{"type":"speech.audio.delta","audio":"AA"}"#, Lifecycle),
        (r#"{"type":"image_generation.partial_image","b64_json":"AA"}"#, Other),
        (r#"{"anything":1}"#, Other),
    ] {
        assert_eq!(read_event(b"", data.as_bytes()), Meaning::of(kind), "{data}");
    }
}

#[test]
fn what_is_no_object_is_passed_on_untouched() {
    for (data, kind) in [
        (&b"[DONE]"[..], Kind::End),
        (b" [DONE]\r", Kind::End),
        (b"", Kind::Lifecycle),
        (b"  ", Kind::Lifecycle),
        (b"[]", Kind::Other),
        (b"null", Kind::Other),
        (b"hello", Kind::Other),
        (b"{\"choices\":", Kind::Other),
        (b"{\"choices\":[]} x", Kind::Other),
        (b"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}", Kind::Other),
        (b"\xff\xfe", Kind::Other),
    ] {
        assert_eq!(read_event(b"", data), Meaning::of(kind), "{:?}", String::from_utf8_lossy(data));
    }
    let deep =
        format!(r#"{{"choices":[{{"delta":{{"content":"x","x":{}1{}}}}}]}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read_event(b"", deep.as_bytes()).kind, Kind::Content);
}

#[test]
fn our_errors_have_the_dialects_shape() {
    let reject = Reject::client(404, "model_not_found", "no model \"x\"").with_param("model");
    let body = r#"{"error":{"message":"no model \"x\"","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#;
    assert_eq!(String::from_utf8(error_body(&reject)).unwrap(), body);
    assert_eq!(String::from_utf8(error_event(Api::Chat, &reject)).unwrap(), format!("data: {body}\n\n"));
    assert_eq!(
        String::from_utf8(error_event(Api::Responses, &Reject::upstream(502, "upstream_closed", "gone"))).unwrap(),
        "event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_closed\",\"message\":\"gone\",\"param\":null,\"sequence_number\":0}\n\n"
    );
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "server_error"),
    ] {
        assert_eq!(error_type(status), kind, "{status}");
    }
}

#[test]
fn our_error_events_read_back_as_errors() {
    for (status, code) in [(429, "rate_limit_exceeded"), (504, "first_token_timeout"), (502, "upstream_closed")] {
        for api in [Api::Chat, Api::Responses] {
            let bytes = error_event(api, &Reject::upstream(status, code, "m"));
            let frame = crate::wire::sse::Framer::new().next(&bytes).unwrap();
            let fault = read_event(frame.event, &frame.data).error.unwrap();
            assert_eq!((fault.status, fault.code.as_deref()), (status, Some(code)), "{api:?}");
        }
    }
}

#[test]
fn the_short_way_says_what_the_long_way_says() {
    let plain = r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi \"usage\""},"finish_reason":null}],"usage":null}"#;
    assert!(is_plain_text(plain.as_bytes()));
    for (name, from, to) in [
        ("as it is", "", ""),
        ("empty text", r#""Hi \"usage\"""#, r#""""#),
        ("a reason to finish", "null}]", r#""stop"}]"#),
        ("no word of finishing", r#","finish_reason":null"#, ""),
        ("usage", r#""usage":null"#, r#""usage":{"prompt_tokens":3,"completion_tokens":4}"#),
        ("usage in the choice", r#"null}]"#, r#"null,"usage":{"prompt_tokens":3}}]"#),
        ("an error beside it", r#","usage":null"#, r#","error":{"message":"m","code":429}"#),
        ("an old error", r#","usage":null"#, r#","error_code":17"#),
        ("another old error", r#","usage":null"#, r#","base_resp":{"status_code":1000}"#),
        ("a second choice that ends", "}],", r#"},{"index":1,"delta":{},"finish_reason":"stop"}],"#),
        ("white space", r#""content":""#, r#""content": ""#),
        ("cut off", r#","usage":null}"#, ""),
    ] {
        let event = plain.replacen(from, to, 1);
        let long = serde_json::from_str::<Event<'_>>(&event).ok().map(|parsed| parsed.meaning(b"", event.as_bytes()));
        let long = long.unwrap_or(Meaning::of(Kind::Other));
        assert_eq!(read_event(b"", event.as_bytes()), long, "{name}: {event}");
    }
}
