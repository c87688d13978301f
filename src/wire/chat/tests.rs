use super::*;

#[test]
fn usage_reads_in_every_known_shape() {
    let none = Usage::default();
    for (name, json, expected) in [
        ("null", "null", None),
        ("empty", "{}", None),
        ("a text", r#""12""#, None),
        ("a list", "[1]", None),
        ("broken", r#"{"prompt_tokens":1"#, None),
        (
            "OpenAI",
            r#"{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":3,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}}"#,
            Some(Usage {
                input: Some(9),
                output: Some(4),
                total: Some(13),
                cached_input: Some(3),
                reasoning_output: Some(2),
                ..none
            }),
        ),
        (
            "details null",
            r#"{"prompt_tokens":9,"completion_tokens":0,"prompt_tokens_details":null}"#,
            Some(Usage { input: Some(9), output: Some(0), ..none }),
        ),
        (
            "responses",
            r#"{"input_tokens":9,"input_tokens_details":{"cached_tokens":1},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":13}"#,
            Some(Usage {
                input: Some(9),
                output: Some(4),
                total: Some(13),
                cached_input: Some(1),
                reasoning_output: Some(3),
                ..none
            }),
        ),
        (
            "DeepSeek",
            r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":1}"#,
            Some(Usage { input: Some(9), output: Some(4), cached_input: Some(8), ..none }),
        ),
        (
            "Anthropic",
            r#"{"input_tokens":9,"cache_creation_input_tokens":5,"cache_read_input_tokens":7,"output_tokens":4,"server_tool_use":{"web_search_requests":1}}"#,
            Some(Usage {
                input: Some(9),
                output: Some(4),
                cached_input: Some(7),
                cache_creation_input: Some(5),
                ..none
            }),
        ),
        (
            "written as fractions",
            r#"{"prompt_tokens":9.0,"completion_tokens":1e400}"#,
            Some(Usage { input: Some(9), ..none }),
        ),
        (
            "nonsense in one place",
            r#"{"prompt_tokens":-1,"completion_tokens":"4","total_tokens":99999999999999999999999,"input_tokens":7}"#,
            Some(Usage { input: Some(7), ..none }),
        ),
    ] {
        assert_eq!(Usage::read(json), expected, "{name}");
    }
}

#[test]
fn later_usage_counts_but_a_zero_takes_nothing_back() {
    let mut usage = Usage { input: Some(10), output: Some(1), ..Usage::default() };
    usage.merge(Usage { output: Some(15), input: Some(0), cached_input: Some(0), ..Usage::default() });
    assert_eq!(usage, Usage { input: Some(10), output: Some(15), cached_input: Some(0), ..Usage::default() });
    usage.merge(Usage::default());
    assert_eq!(usage.output, Some(15));
    usage.merge(Usage { output: Some(14), ..Usage::default() });
    assert_eq!(usage.output, Some(14));
}

#[test]
fn a_fault_gets_the_status_it_would_have_had() {
    for (json, status) in [
        (r#"{"message":"m","type":"server_error","code":null}"#, 502),
        (r#"{"message":"m","type":"requests","code":"rate_limit_exceeded"}"#, 429),
        (r#"{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}"#, 429),
        (r#"{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}"#, 400),
        (r#"{"message":"m","type":"invalid_request_error","code":"invalid_api_key"}"#, 401),
        (r#"{"message":"m","type":"invalid_request_error","code":"model_not_found"}"#, 404),
        (r#"{"message":"m","type":"overloaded_error"}"#, 529),
        (r#"{"message":"m","type":"authentication_error"}"#, 401),
        (r#"{"message":"m","type":"permission_error"}"#, 403),
        (r#"{"message":"m","type":"BadRequestError","code":400}"#, 400),
        (r#"{"message":"m","code":429}"#, 429),
        (r#"{"message":"m","code":"503"}"#, 503),
        (r#"{"message":"m","code":1302}"#, 502),
        (r#"{"message":"m","code":200}"#, 502),
        (r#"{"message":"m","status":"RESOURCE_EXHAUSTED"}"#, 429),
        (r#"{"message":"m","code":"upstream_timeout"}"#, 504),
        (r#"{"message":"m","status_code":404}"#, 404),
        (r#""overloaded""#, 502),
        ("true", 502),
        ("[1,2]", 502),
    ] {
        assert_eq!(UpstreamFault::read(json, 529).status, status, "{json}");
    }
}

#[test]
fn a_faults_texts_are_read_and_bounded() {
    let fault = UpstreamFault::read(r#"{"message":"a \"b\" \u4f60","type":"t","code":17}"#, 503);
    assert_eq!(
        (fault.message.as_str(), fault.kind.as_deref(), fault.code.as_deref()),
        ("a \"b\" 你", Some("t"), Some("17"))
    );
    let long = format!(r#"{{"message":"{0}","type":"{0}","code":{{"a":1}}}}"#, "é".repeat(3000));
    let fault = UpstreamFault::read(&long, 503);
    assert_eq!((fault.message.len(), fault.kind.map(|kind| kind.len()), fault.code), (1024, Some(128), None));
    assert_eq!(UpstreamFault::read(r#""gone""#, 503).message, "gone");
    assert_eq!(UpstreamFault::of_text(b"x\xff", 503).message, "x\u{fffd}");
}

#[test]
fn a_path_decides_its_api() {
    for (path, api) in [
        ("/v1/chat/completions", Api::Chat),
        ("/v1/completions", Api::Completions),
        ("/v1/responses", Api::Responses),
        ("/v1/responses/resp_1", Api::Responses),
        ("/v1/responsesx", Api::Other),
        ("/v1/embeddings", Api::Other),
        ("/v1/messages", Api::Other),
        ("/", Api::Other),
    ] {
        assert_eq!(Api::of_path(path), api, "{path}");
    }
}

#[test]
fn a_body_for_an_api_of_json_is_json_however_its_path_is_spelled() {
    for (path, json) in [
        ("/v1/chat/completions", true),
        ("/v1/completions", true),
        ("/v1/embeddings", true),
        ("/v1/responses", true),
        ("/v1/responses/resp_1/cancel", true),
        ("/v1/messages/count_tokens", true),
        ("/v1/chat/completions/", true),
        ("/v1//chat/completions", true),
        ("/v1/chat%2Fcompletions", true),
        ("/v1/%63hat/complet%69ons", true),
        ("/v1/Chat/Completions", true),
        ("/v1/messagesx", false),
        ("/v1/files", false),
        ("/v1/audio/transcriptions", false),
        ("/v1/%e", false),
        ("/v1/chat%252fcompletions", false),
        ("", false),
    ] {
        assert_eq!(takes_json(path), json, "{path}");
    }
}

#[test]
fn only_fresh_answers_are_judged_by_their_error() {
    for (method, path, judges) in [
        ("POST", "/v1/chat/completions", true),
        ("POST", "/v1/completions", true),
        ("POST", "/v1/embeddings", true),
        ("POST", "/v1/responses", true),
        ("POST", "/v1/messages", true),
        ("POST", "/v1/rerank", true),
        ("GET", "/v1/chat/completions", false),
        ("GET", "/v1/responses/resp_1", false),
        ("POST", "/v1/responses/resp_1/cancel", false),
        ("POST", "/v1/messages/batches", false),
        ("POST", "/v1/batches", false),
        ("GET", "/v1/fine_tuning/jobs/ftjob-1", false),
        ("POST", "/v1/files", false),
        ("POST", "/chat/completions", false),
    ] {
        assert_eq!(judges_answer(method, path), judges, "{method} {path}");
    }
}

#[test]
fn an_error_that_says_nothing_is_none() {
    for (json, fault) in [
        ("null", false),
        ("false", false),
        ("0", false),
        (r#""""#, false),
        ("{}", false),
        (r#"{"code":null,"message":null,"param":null}"#, false),
        (r#"{ "code" : null , "message" : "", "details":[ ], "inner":{} }"#, false),
        (r#"{"code":null,"message":"m"}"#, true),
        (r#"{"code":0}"#, true),
        (r#"{"\ud83d":1}"#, true),
        (r#""m""#, true),
        ("[1]", true),
        ("true", true),
    ] {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        assert_eq!(is_fault(Some(raw)), fault, "{json}");
    }
    assert!(!is_fault(None));
}
