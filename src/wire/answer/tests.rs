use proptest::prelude::*;

use super::*;

/// Reads `body` in one piece, byte by byte and cut in two at every place, and finds the same each time.
fn read(dialect: Dialect, body: &[u8]) -> Answer {
    let whole = Answer::read(dialect, body);
    let pieces = |cuts: &[usize]| {
        let mut scan = AnswerScan::new(dialect);
        let mut at = 0;
        for &cut in cuts {
            scan.push(&body[at..cut]);
            at = cut;
        }
        scan.push(&body[at..]);
        scan.finish()
    };
    for cut in 0..=body.len().min(600) {
        assert_eq!(pieces(&[cut]), whole, "cut at {cut} of {:?}", String::from_utf8_lossy(body));
    }
    let every: Vec<usize> = (0..=body.len()).collect();
    assert_eq!(pieces(&every), whole, "byte by byte: {:?}", String::from_utf8_lossy(body));
    whole
}

#[test]
fn usage_is_found_wherever_it_stands() {
    for (name, body, expected) in [
        (
            "at the end",
            r#"{"id":"x","choices":[{"message":{"content":"\"usage\":{}"}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
            Some((5, 2)),
        ),
        ("at the start", r#"{"usage":{"prompt_tokens":5,"completion_tokens":2},"choices":[]}"#, Some((5, 2))),
        (
            "with blanks",
            "{ \"usage\" :\n { \"prompt_tokens\" : 5 , \"completion_tokens\" : 2 } , \"a\" : 1 }\n",
            Some((5, 2)),
        ),
        (
            "behind keep-alive lines",
            "\n\n\r\n  {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}",
            Some((5, 2)),
        ),
        (
            "Anthropic",
            r#"{"type":"message","content":[{"type":"text","text":"}]\\"}],"usage":{"input_tokens":5,"output_tokens":2}}"#,
            Some((5, 2)),
        ),
        (
            "responses",
            r#"{"object":"response","error":null,"output":[],"usage":{"input_tokens":5,"output_tokens":2}}"#,
            Some((5, 2)),
        ),
        ("null", r#"{"usage":null}"#, None),
        ("deeper only", r#"{"a":{"usage":{"prompt_tokens":5,"completion_tokens":2}}}"#, None),
        ("in an array", r#"[{"usage":{"prompt_tokens":5,"completion_tokens":2}}]"#, None),
        ("a value, not a key", r#"{"a":"usage","b":{"prompt_tokens":5,"completion_tokens":2}}"#, None),
        (
            "a longer key",
            r#"{"usages":{"prompt_tokens":5,"completion_tokens":2},"usage_too":{"prompt_tokens":1}}"#,
            None,
        ),
        ("an escaped key", r#"{"usa\u0067e":{"prompt_tokens":5},"usage\"":{"prompt_tokens":5}}"#, None),
        (
            "twice: the last",
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":1},"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
            Some((5, 2)),
        ),
    ] {
        let answer = read(Dialect::OpenAi, body.as_bytes());
        let found = answer.usage.map(|usage| (usage.input.unwrap_or(0), usage.output.unwrap_or(0)));
        assert_eq!((found, answer.error, answer.well_formed), (expected, None, true), "{name}");
    }
}

#[test]
fn an_error_counts_unless_there_is_an_answer() {
    for (name, dialect, body, status) in [
        ("OpenAI", Dialect::OpenAi, r#"{"error":{"message":"m","type":"rate_limit_exceeded","code":null}}"#, Some(429)),
        (
            "Anthropic",
            Dialect::Anthropic,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
            Some(529),
        ),
        ("a text", Dialect::OpenAi, r#"{"error":"m"}"#, Some(502)),
        ("numeric code", Dialect::OpenAi, r#"{"error":{"code":404,"message":"m"},"user_id":"u"}"#, Some(404)),
        ("empty choices", Dialect::OpenAi, r#"{"choices":[ ],"error":{"code":503,"message":"m"}}"#, Some(503)),
        (
            "choices null",
            Dialect::OpenAi,
            r#"{"choices":null,"output": "","content":{},"error":{"code":503,"message":"m"}}"#,
            Some(503),
        ),
        ("an answer before", Dialect::OpenAi, r#"{"choices":[{"message":{}}],"error":{"code":503}}"#, None),
        ("an answer behind", Dialect::OpenAi, r#"{"error":{"code":503},"data":[1]}"#, None),
        ("content", Dialect::Anthropic, r#"{"content":[{"type":"text","text":""}],"error":{"type":"x"}}"#, None),
        ("null", Dialect::OpenAi, r#"{"error":null,"output":[]}"#, None),
        ("false", Dialect::OpenAi, r#"{"error":false}"#, None),
        ("all null", Dialect::OpenAi, r#"{"id":"x","error":{"code":null,"message":null,"param":null}}"#, None),
        (
            "a failed response",
            Dialect::OpenAi,
            r#"{"id":"resp_1","status": "failed","error":{"code":"server_error","message":"m"},"output":[]}"#,
            None,
        ),
        ("failed without an id", Dialect::OpenAi, r#"{"id":null,"status":"failed","error":{"code":503}}"#, Some(503)),
        ("another status", Dialect::OpenAi, r#"{"id":"x","status":"failed!","error":{"code":503}}"#, Some(503)),
        ("a number as status", Dialect::OpenAi, r#"{"status":503,"id":"x","error":"m"}"#, Some(502)),
        ("deeper", Dialect::OpenAi, r#"{"a":[{"error":{"code":503}}]}"#, None),
    ] {
        let answer = read(dialect, body.as_bytes());
        assert_eq!(answer.error.map(|fault| fault.status), status, "{name}");
        assert!(answer.well_formed, "{name}");
    }
}

#[test]
fn a_body_is_well_formed_if_it_is_one_whole_value() {
    for (body, well_formed) in [
        ("{}", true),
        ("[]", true),
        (" \r\n[1,{\"a\":[]}]\n", true),
        (r#""a \" b""#, true),
        ("12.5e-3", true),
        ("null ", true),
        ("", false),
        ("  ", false),
        ("{", false),
        (r#"{"a":"x"#, false),
        (r#"{"a":"x\"}"#, false),
        (r#"{"a":[1,2}"#, false),
        ("{}{}", false),
        ("{} x", false),
        ("1 2", false),
        ("\"a\"\"b\"", false),
        ("}", false),
        ("]{}", false),
        (",", false),
        ("<html>", false),
        ("\u{feff}{}", false),
    ] {
        assert_eq!(read(Dialect::OpenAi, body.as_bytes()).well_formed, well_formed, "{body:?}");
    }
}

#[test]
fn values_that_are_too_long_are_skipped_and_memory_stays_bounded() {
    let filler = "x".repeat(1 << 20);
    let body = format!(
        r#"{{"error":{{"message":"{filler}"}},"choices":"{filler}","{filler}":1,"usage":{{"prompt_tokens":5}}}}"#
    );
    let mut scan = AnswerScan::new(Dialect::OpenAi);
    for piece in body.as_bytes().chunks(1000) {
        scan.push(piece);
        assert!(scan.error.bytes.len() + scan.usage.bytes.len() <= 2 * VALUE_BYTES_MAX);
    }
    let answer = scan.finish();
    assert_eq!((answer.usage.and_then(|usage| usage.input), answer.error, answer.well_formed), (Some(5), None, true));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Answer::read(Dialect::OpenAi, deep.as_bytes()).well_formed);
}

#[test]
fn usage_that_nobody_wants_is_passed_over_and_the_rest_is_read() {
    for (body, error, well_formed) in [
        (&br#"{"usage":{"prompt_tokens":5},"error":{"message":"no"}}"#[..], true, true),
        (br#"{"usage":{"prompt_tokens":5},"choices":[{}]}"#, false, true),
        (br#"{"usage":{"prompt_tokens":5"#, false, false),
    ] {
        let mut scan = AnswerScan::new(Dialect::OpenAi).with_usage(false);
        scan.push(body);
        let answer = scan.finish();
        assert_eq!((answer.usage, answer.error.is_some(), answer.well_formed), (None, error, well_formed));
        assert_eq!(scan.usage.bytes.capacity(), 0);
        assert!(Answer::read(Dialect::OpenAi, body).usage.is_some() || !well_formed);
    }
}

#[test]
fn a_body_cut_short_reports_what_it_had() {
    let answer = read(Dialect::OpenAi, br#"{"usage":{"prompt_tokens":5},"choices":[{"#);
    assert_eq!((answer.usage.and_then(|usage| usage.input), answer.well_formed), (Some(5), false));
    let answer = read(Dialect::OpenAi, br#"{"choices":[],"usage":{"prompt_tokens":5"#);
    assert_eq!((answer.usage, answer.well_formed), (None, false));
}

#[test]
fn an_object_in_place_of_a_key_reads_the_same_however_it_is_cut() {
    let answer = read(Dialect::OpenAi, br#"{"error":{"message":"x"},{"usage":1}:[],"usage":{"prompt_tokens":1}}"#);
    assert_eq!(answer.error.map(|error| error.message), Some("x".into()));
    assert_eq!(answer.usage.and_then(|usage| usage.input), Some(1));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u32>().prop_map(Into::into),
        "[a-z\"\\\\{}\\[\\],:é\n]{0,8}".prop_map(Into::into),
        // Beyond what is looked at before a longer search begins.
        "[a-z]{20,40}[a-z\"\\\\{}]{0,40}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let keys = prop_oneof![Just("usage".to_owned()), Just("error".to_owned()), "[a-z\"\\\\]{0,9}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(keys, inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_answer_reads_as_a_parser_would(value in json(), tokens in any::<u32>(), with_usage in any::<bool>(), pretty in any::<bool>()) {
        let mut value = value;
        if let Some(object) = value.as_object_mut() {
            object.remove("usage");
            if with_usage {
                object.insert("usage".into(), serde_json::json!({ "prompt_tokens": tokens }));
            }
        }
        let expected = value.get("usage").map(|_| u64::from(tokens));
        let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        let answer = read(Dialect::OpenAi, &body);
        prop_assert!(answer.well_formed);
        prop_assert_eq!(answer.usage.and_then(|usage| usage.input), expected);
        for cut in 1..body.len() {
            let cut_short = matches!(body[0], b'{' | b'[' | b'"');
            let well_formed = Answer::read(Dialect::OpenAi, &body[..cut]).well_formed;
            prop_assert!(!cut_short || !well_formed, "cut at {}", cut);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(body in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\ue ".to_vec())], 0..60)) {
        read(Dialect::OpenAi, &body);
    }
}
