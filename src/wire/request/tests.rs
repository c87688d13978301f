use proptest::prelude::*;

use super::*;

fn patched(body: &str, model: Option<&str>, include_usage: bool) -> String {
    let scan = scan(body.as_bytes()).expect(body);
    let patches = rewrite(&scan, model, include_usage);
    let pieces: Vec<&[u8]> = patches.pieces(body.as_bytes()).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()), "{body}");
    let after = String::from_utf8(pieces.concat()).expect("patched at character boundaries");
    assert_eq!(patches.len_after(body.len()), after.len(), "{body}");
    assert_eq!(patches.is_empty(), after == body, "{body}");
    after
}

#[test]
fn the_deciding_fields_are_found() {
    for (body, model, stream, asked) in [
        ("{}", None, false, false),
        (r#" {"model":"a"} "#, Some("a"), false, false),
        (r#"{"messages":[{"model":"x","stream":true}],"model":"a","stream":true}"#, Some("a"), true, false),
        (r#"{"model":"a\/b\u4f60","stream":false}"#, Some("a/b你"), false, false),
        (r#"{"mod\u0065l":"a","stream":null}"#, Some("a"), false, false),
        (r#"{"model":"a","stream":"true"}"#, Some("a"), false, false),
        (r#"{"model":"a","stream":true,"stream_options":{"include_usage":true}}"#, Some("a"), true, true),
        (r#"{"model":"a","stream":true,"stream_options":{"include_usage":false}}"#, Some("a"), true, false),
        (r#"{"model":"a","stream":true,"stream_options":null}"#, Some("a"), true, false),
        (r#"{"model":"","temperature":1e400,"x":"\ud83d","\udc00":1,"model2":3}"#, Some(""), false, false),
    ] {
        let scan = scan(body.as_bytes()).expect(body);
        assert_eq!(scan.model.as_ref().map(|model| &*model.name), model, "{body}");
        assert_eq!((scan.stream, scan.asked_for_usage()), (stream, asked), "{body}");
    }
}

#[test]
fn a_model_that_only_some_readers_would_see_is_refused() {
    for body in [r#"{"model":"a","Model":"b"}"#, r#"{"MODEL":"b"}"#, r#"{"mod\u0045l":1,"model":"a"}"#] {
        assert_eq!(scan(body.as_bytes()), Err(ScanError::ModelSpelling), "{body}");
    }
    for body in [r#"{"x":{"Model":"b"}}"#, r#"{"stream_options":{"Model":1}}"#, r#"{"Models":1,"model ":2}"#] {
        assert!(scan(body.as_bytes()).is_ok(), "{body}");
    }
    assert_eq!(Reject::from(ScanError::ModelSpelling).code, "ambiguous_field");
}

#[test]
fn what_decides_nothing_is_not_looked_into() {
    for body in [&b"{\"x\":\"\xff\",\"model\":\"a\"}"[..], b"{\"include_usage\":\"\xff\",\"model\":\"a\"}"] {
        let model = scan(body).map(|scan| scan.model.map(|model| model.name.into_owned()));
        assert_eq!(model, Ok(Some("a".to_owned())), "{:?}", String::from_utf8_lossy(body));
    }
    assert!(scan(br#"{"include_usage":1,"include_usage":2}"#).is_ok());
}

#[test]
fn only_the_model_changes_and_only_if_it_differs() {
    for (body, model, expected) in [
        (r#"{"model":"a"}"#, None, r#"{"model":"a"}"#),
        (r#"{"model":"a"}"#, Some("a"), r#"{"model":"a"}"#),
        (r#"{"model":"\u0061"}"#, Some("a"), r#"{"model":"\u0061"}"#),
        (r#"{"model":"a"}"#, Some("bé"), r#"{"model":"bé"}"#),
        (r#"{"model" : "a" ,"x":1e400}"#, Some("q\"\\"), r#"{"model" : "q\"\\" ,"x":1e400}"#),
        (
            r#"{"z":1,"a":{"model":"x"},"model":"a","é":"\ud83d"}"#,
            Some("long/name"),
            r#"{"z":1,"a":{"model":"x"},"model":"long/name","é":"\ud83d"}"#,
        ),
        (r#"{"x":1}"#, Some("b"), r#"{"x":1}"#),
    ] {
        assert_eq!(patched(body, model, false), expected, "{body} {model:?}");
    }
}

#[test]
fn usage_is_asked_for_where_it_may_be() {
    for (body, expected) in [
        (r#"{"stream":true}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (r#"{"stream": true , "n":1}"#, r#"{"stream": true,"stream_options":{"include_usage":true} , "n":1}"#),
        (r#"{"stream":true,"stream_options":null}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (r#"{"stream":true,"stream_options":{}}"#, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        (r#"{"stream":true,"stream_options":{ }}"#, r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
        (
            r#"{"stream_options":{"x":1},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"x":1},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": null}}"#,
            r#"{"stream":true,"stream_options":{"include_usage": true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (r#"{"stream":true,"stream_options":7}"#, r#"{"stream":true,"stream_options":7}"#),
        (r#"{"stream":false,"stream_options":{}}"#, r#"{"stream":false,"stream_options":{}}"#),
        ("{}", "{}"),
    ] {
        assert_eq!(patched(body, None, true), expected, "{body}");
        assert_eq!(patched(body, None, false), body, "{body}");
    }
    let both = patched(r#"{"stream":true,"x":0,"model":"a"}"#, Some("b"), true);
    assert_eq!(both, r#"{"stream":true,"stream_options":{"include_usage":true},"x":0,"model":"b"}"#);
    let both = patched(r#"{"model":"a","x":0,"stream":true}"#, Some("b"), true);
    assert_eq!(both, r#"{"model":"b","x":0,"stream":true,"stream_options":{"include_usage":true}}"#);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (body, code, param, word) in [
        (r#"{"model":"a","model":"b"}"#, "duplicate_field", Some("model"), "'model'"),
        (r#"{"model":"a","m\u006fdel":"a"}"#, "duplicate_field", Some("model"), "'model'"),
        (r#"{"stream":true,"stream":false}"#, "duplicate_field", Some("stream"), "'stream'"),
        (
            r#"{"stream_options":null,"stream_options":{}}"#,
            "duplicate_field",
            Some("stream_options"),
            "'stream_options'",
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            "duplicate_field",
            Some("stream_options.include_usage"),
            "include_usage",
        ),
        (r#"{"model":1}"#, "invalid_type", Some("model"), "string"),
        (r#"{"model":null}"#, "invalid_type", Some("model"), "string"),
        (r#"{"model":"\ud83d"}"#, "invalid_type", Some("model"), "string"),
        ("[]", "invalid_json", None, "object"),
        (r#""model""#, "invalid_json", None, "object"),
        ("\u{feff}{}", "invalid_json", None, "object"),
        ("", "invalid_json", None, "line 1"),
        (" \n", "invalid_json", None, "line 2"),
        ("{", "invalid_json", None, "line 1 column 1"),
        (r#"{"model":"a"} x"#, "invalid_json", None, "line 1 column 15"),
        (r#"{"model":"a"}{}"#, "invalid_json", None, "trailing"),
        (r#"{"model":"a",}"#, "invalid_json", None, "trailing comma"),
        (r#"{'model':"a"}"#, "invalid_json", None, "key"),
        ("{\"a\":\"\n\"}", "invalid_json", None, "control character"),
        (r#"{"a":01}"#, "invalid_json", None, "number"),
    ] {
        let reject = Reject::from(scan(body.as_bytes()).expect_err(body));
        assert_eq!((reject.status, &*reject.code, reject.param), (400, code, param), "{body}");
        assert!(reject.message.contains(word), "{body}: {}", reject.message);
    }
}

#[test]
fn deep_nesting_is_harmless() {
    let deep = format!(r#"{{"x":{}1{},"model":"a"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(patched(&deep, Some("b"), true), deep.replace(r#""a""#, r#""b""#));
    for open in ["{\"model\":", "[", "{\"stream_options\":"] {
        assert!(scan(open.repeat(100_000).as_bytes()).is_err(), "{open}");
    }
    let options =
        format!(r#"{{"stream":true,"stream_options":{{"x":{}{}}}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(patched(&options, None, true).contains(r#"{"include_usage":true,"x""#));
}

#[test]
fn a_body_that_stays_allocates_no_patch() {
    let body = br#"{"model":"a","stream":true,"stream_options":{"include_usage":true}}"#;
    let patches = rewrite(&scan(body).unwrap(), Some("a"), true);
    assert!(patches.is_empty());
    let pieces: Vec<_> = patches.pieces(body).collect();
    assert!(matches!(pieces[..], [piece] if std::ptr::eq(piece, &body[..])));
}

#[test]
fn the_query_may_name_the_model() {
    for (query, expected) in [
        ("", Ok(None)),
        ("a=b&models=x", Ok(None)),
        ("model=gpt-4o", Ok(Some("gpt-4o"))),
        ("a&model=a%2Fb+c%c3%A9&z=%", Ok(Some("a/b cé"))),
        ("mod%65l=x", Ok(Some("x"))),
        ("model", Ok(Some(""))),
        ("model=a&model=a", Err(ScanError::Duplicate("model"))),
        ("model=a&mod%65l=b", Err(ScanError::Duplicate("model"))),
        ("model=a&Model=b", Err(ScanError::ModelSpelling)),
        ("mod%45l=b", Err(ScanError::ModelSpelling)),
        ("model=%ff", Err(ScanError::ModelEncoding)),
        ("model=%4", Err(ScanError::ModelEncoding)),
        ("model=%+1", Err(ScanError::ModelEncoding)),
    ] {
        assert_eq!(
            query_model(query).map(|model| model.map(Cow::into_owned)),
            expected.map(|model| model.map(String::from)),
            "{query}"
        );
    }
}

#[test]
fn a_body_and_a_query_must_name_the_same_model() {
    for (body, query, expected) in [
        (None, None, Ok(None)),
        (Some("a"), None, Ok(Some("a"))),
        (None, Some("a"), Ok(Some("a"))),
        (Some("a"), Some("a"), Ok(Some("a"))),
        (Some("a"), Some("b"), Err(ScanError::Duplicate("model"))),
        (Some("a"), Some("A"), Err(ScanError::Duplicate("model"))),
        (Some("a"), Some(""), Err(ScanError::Duplicate("model"))),
    ] {
        assert_eq!(one_model(body, query), expected, "{body:?} {query:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_scanned_without_panic(body in prop::collection::vec(any::<u8>(), 0..60), cut in 0..70usize) {
        let _ = scan(&body);
        let whole = br#"{"model":"a\u0062","stream":true,"stream_options":{"include_usage":false,"x":[1]}}"#;
        let mut broken = whole[..cut.min(whole.len())].to_vec();
        broken.extend_from_slice(&body);
        if let Ok(scan) = scan(&broken) {
            let patches = rewrite(&scan, Some("b"), true);
            let after: Vec<u8> = patches.pieces(&broken).flatten().copied().collect();
            prop_assert_eq!(after.len(), patches.len_after(broken.len()));
        }
    }

    #[test]
    fn a_patched_body_says_what_was_wanted_and_all_else_as_before(
        fields in prop::collection::btree_map("[a-z]{1,3}", prop::sample::select(vec!["1", "null", "[1,{\"model\":2}]", "\"é\\n\"", " {} "]), 0..4),
        model in "[a-z\"\\\\é/]{0,5}",
        options in prop::sample::select(vec!["", "null", "{}", "{\"include_usage\":false}", "{\"x\":1}"]),
    ) {
        let mut parts: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        parts.push("\"model\": \"old\"".into());
        parts.push("\"stream\":true".into());
        if !options.is_empty() {
            parts.insert(0, format!("\"stream_options\": {options}"));
        }
        let body = format!("{{{}}}", parts.join(" ,"));
        let after: serde_json::Value = serde_json::from_str(&patched(&body, Some(&model), true)).unwrap();
        let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
        expected["model"] = model.into();
        expected["stream_options"]["include_usage"] = true.into();
        prop_assert_eq!(after, expected);
    }
}

#[test]
fn a_model_in_the_query_is_renamed_in_place() {
    for (query, renamed) in [
        ("model=a", "model=big%2Fone"),
        ("x=1&model=a&y=%20", "x=1&model=big%2Fone&y=%20"),
        ("mod%65l=a", "mod%65l=big%2Fone"),
        ("models=a&model", "models=a&model=big%2Fone"),
        ("models=a&x", "models=a&x"),
        ("", ""),
    ] {
        assert_eq!(rename_in_query(query, "big/one"), renamed, "{query}");
    }
}
