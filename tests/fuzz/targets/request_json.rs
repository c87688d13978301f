//! JSON requests: the scan sees the model that a parser of the whole sees, refuses what two parsers could see in two
//! ways, and its patches change what they should and nothing else. And the same for the query.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::wire::request::{Scan, ScanError, query_model, rename_in_query, rewrite, scan};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The request as a provider's typed parser would read it. It refuses a field that is there twice.
#[derive(Deserialize)]
struct Typed {
    #[serde(default, deserialize_with = "present")]
    model: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    stream: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    stream_options: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Options {
    #[serde(default, deserialize_with = "present")]
    include_usage: Option<Value>,
}

/// A field that says null is there all the same.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fuzz_target!(|data: &[u8]| {
    let scanned = scan(data);
    let typed = serde_json::from_slice::<Typed>(data);
    match (&scanned, &typed) {
        (Ok(scan), Ok(typed)) => assert_alike(data, scan, typed),
        (Ok(_), Err(error)) => assert!(!error.to_string().contains("duplicate field"), "{error}"),
        (Err(error), Ok(typed)) => match error {
            ScanError::ModelType => assert!(!matches!(typed.model, None | Some(Value::String(_)))),
            ScanError::Duplicate(field) => {
                assert_eq!(*field, "stream_options.include_usage");
                let options = typed.stream_options.as_deref().map(RawValue::get).unwrap_or_default();
                assert!(serde_json::from_str::<Options>(options).is_err());
            }
            ScanError::ModelSpelling => {
                let object: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(data).expect("an object");
                assert!(object.keys().any(|name| name != "model" && name.eq_ignore_ascii_case("model")));
            }
            // A struct may be written as an array, which is not what an API takes.
            ScanError::NotAnObject => assert!(data.trim_ascii_start().starts_with(b"[")),
            error => panic!("{error:?}, but a parser takes it"),
        },
        (Err(_), Err(_)) => {}
    }
    if let Ok(scan) = &scanned {
        // The parser that reads names as bytes lets these stand in them; whoever reads on refuses them.
        let has_controls = data.iter().any(|byte| byte.is_ascii_control());
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        assert!(is_json || has_controls, "a parser refuses it");
        assert_patched(data, scan);
    }
    if let Ok(query) = std::str::from_utf8(data) {
        assert_renamed(query);
    }
});

fn assert_alike(data: &[u8], scan: &Scan<'_>, typed: &Typed) {
    assert_eq!(scan.model.as_ref().map(|model| &*model.name), typed.model.as_ref().and_then(Value::as_str));
    assert_eq!(scan.stream, typed.stream == Some(Value::Bool(true)));
    if let Some(model) = &scan.model {
        let written: String = serde_json::from_slice(&data[model.range.clone()]).expect("a string lies there");
        assert_eq!(written, model.name);
    }
    let options = typed.stream_options.as_deref().map(RawValue::get).filter(|options| options.starts_with('{'));
    if let Some(Ok(options)) = options.map(serde_json::from_str::<Options>) {
        assert_eq!(scan.asked_for_usage(), options.include_usage == Some(Value::Bool(true)));
    }
}

fn assert_patched(data: &[u8], scan: &Scan<'_>) {
    const NAME: &str = "a \"new\"\\/name\u{7}\u{e9}";
    for (model, include_usage) in [(None, false), (Some(NAME), false), (None, true), (Some(NAME), true)] {
        let patches = rewrite(scan, model, include_usage);
        let after: Vec<u8> = patches.pieces(data).flatten().copied().collect();
        assert_eq!(after.len(), patches.len_after(data.len()));
        if model.is_none() && !include_usage {
            assert_eq!(after, data);
        }
        // Read by a parser of the whole, if it can read it.
        let (Ok(mut before), Ok(mut after)) =
            (serde_json::from_slice::<Map<String, Value>>(data), serde_json::from_slice::<Map<String, Value>>(&after))
        else {
            assert!(serde_json::from_slice::<Map<String, Value>>(data).is_err(), "a patch broke it");
            continue;
        };
        let (named_before, named) = (before.remove("model"), after.remove("model"));
        match (model, &scan.model) {
            (Some(name), Some(_)) => assert_eq!(named, Some(Value::from(name))),
            _ => assert_eq!(named, named_before),
        }
        if include_usage && scan.stream {
            let (had, has) = (before.remove("stream_options"), after.remove("stream_options"));
            match (had, has) {
                (None | Some(Value::Null), Some(has)) => assert_eq!(has, serde_json::json!({"include_usage": true})),
                (Some(Value::Object(mut had)), Some(Value::Object(mut has))) => {
                    assert_eq!(has.remove("include_usage"), Some(Value::Bool(true)));
                    had.remove("include_usage");
                    assert_eq!(had, has);
                }
                (had, has) => assert_eq!(had, has),
            }
        }
        assert_eq!(before, after, "something else was changed");
    }
}

fn assert_renamed(query: &str) {
    let Ok(model) = query_model(query) else { return };
    for name in ["plain", "a b/c&d=e%+\u{e9}"] {
        let renamed = rename_in_query(query, name);
        let now = query_model(&renamed).expect("still one model");
        assert_eq!(now.as_deref(), model.as_ref().map(|_| name));
        let (before, after): (Vec<_>, Vec<_>) = (query.split('&').collect(), renamed.split('&').collect());
        assert_eq!(before.len(), after.len());
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(changed <= usize::from(model.is_some()));
    }
}
