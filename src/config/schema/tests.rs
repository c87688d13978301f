//! What the schema says and what `compile` does are the same: fields, defaults, bounds.

mod limits;

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::config::compile::tests::{OPEN, REFERENCE, around, load, only, replaced, sound};

/// Every bounded field: section, name, least and most (as the documentation writes them), and one past each; empty where
/// nothing can be written that lies below.
const BOUNDS: &[(&str, &str, [&str; 4])] = &[
    ("ring", "entries", ["256", "32768", "255", "32769"]),
    ("ring", "gather_us", ["0", "2000", "-1", "2001"]),
    ("timers", "connect", ["1ms", "5m", "0ms", "300001ms"]),
    ("timers", "first_token", ["1ms", "24h", "0ms", "86400001ms"]),
    ("timers", "between_tokens", ["1ms", "24h", "0ms", "86400001ms"]),
    ("timers", "total", ["1ms", "24h", "0ms", "86400001ms"]),
    ("http2", "streams_max", ["1", "1000", "0", "1001"]),
    ("http2", "stream_window", ["64KiB", "16MiB", "65535", "16777217"]),
    ("http2", "connection_window", ["64KiB", "1GiB", "65535", "1073741825"]),
    ("http2", "control_frames_max", ["10", "1000000", "9", "1000001"]),
    ("http2", "ping", ["0ms", "1h", "", "3600001ms"]),
    ("websocket", "message_bytes_max", ["1KiB", "1GiB", "1023", "1073741825"]),
    ("websocket", "idle", ["1ms", "24h", "0ms", "86400001ms"]),
    ("websocket", "total", ["0ms", "168h", "", "604800001ms"]),
    ("websocket", "connections_max", ["0", "1000000", "-1", "1000001"]),
    ("limits", "head_bytes_max", ["1KiB", "1MiB", "1023", "1048577"]),
    ("limits", "headers_max", ["8", "128", "7", "129"]),
    ("limits", "target_bytes_max", ["64B", "64KiB", "63", "65537"]),
    ("limits", "body_bytes_max", ["1KiB", "1GiB", "1023", "1073741825"]),
    ("limits", "event_bytes_max", ["1KiB", "64MiB", "1023", "67108865"]),
    ("limits", "stream_bytes_max", ["4KiB", "16MiB", "4095", "16777217"]),
    ("limits", "decoded_bytes_max", ["64KiB", "64GiB", "65535", "68719476737"]),
    ("limits", "decoded_ratio_max", ["2", "100000", "1", "100001"]),
    ("limits", "connections_max", ["1", "1000000", "0", "1000001"]),
    ("limits", "memory_max", ["16MiB", "1024GiB", "16777215", "1099511627777"]),
    ("client", "keep_alive", ["1ms", "1h", "0ms", "3600001ms"]),
    ("client", "requests_max", ["1", "1000000000", "0", "1000000001"]),
    ("client", "handshake", ["1ms", "5m", "0ms", "300001ms"]),
    ("client", "head", ["1ms", "5m", "0ms", "300001ms"]),
    ("client", "body", ["1ms", "1h", "0ms", "3600001ms"]),
    ("client", "write", ["1ms", "1h", "0ms", "3600001ms"]),
    ("client", "drain", ["1ms", "1h", "0ms", "3600001ms"]),
    ("client", "drain_delay", ["0ms", "1h", "", "3600001ms"]),
    ("cors", "max_age", ["1s", "24h", "999ms", "86400001ms"]),
    ("pool", "idle", ["1ms", "1h", "0ms", "3600001ms"]),
    ("pool", "connections_max", ["1", "1000000", "0", "1000001"]),
    ("admin", "series_max", ["1000", "10000000", "999", "10000001"]),
    ("pool", "idle_max", ["0", "100000", "-1", "100001"]),
    ("resolver", "timeout", ["10ms", "1m", "9ms", "60001ms"]),
    ("resolver", "ttl_min", ["100ms", "1h", "99ms", "3600001ms"]),
    ("resolver", "ttl_max", ["100ms", "24h", "99ms", "86400001ms"]),
    ("access_log", "rotate_bytes", ["0B", "1024GiB", "-1", "1099511627777"]),
    // Nothing is below it.
    ("access_log", "rotate_every", ["0ms", "744h", "2678400001ms", "2678400001ms"]),
    ("access_log", "keep", ["1", "10000", "0", "10001"]),
];

#[test]
fn every_bound_holds_at_it_and_one_past_it() {
    for &(section, field, [min, max, below, above]) in BOUNDS {
        for (value, fits) in [(min, true), (max, true), (below, false), (above, false)] {
            if value.is_empty() {
                continue;
            }
            let value =
                if value.ends_with(|c: char| c.is_ascii_digit()) { value.to_owned() } else { format!("\"{value}\"") };
            // The greatest part needs the greatest whole.
            let whole = match (section, field) {
                (_, "idle_max") => "connections_max = 1000000\n",
                (_, "ttl_max") => "ttl_min = \"100ms\"\n",
                ("admin", _) => "address = \"127.0.0.1:0\"\n",
                ("cors", _) => "origins = [\"*\"]\n",
                ("access_log", _) => "path = \"a\"\n",
                _ => "",
            };
            let text = around("", &format!("[{section}]\n{whole}{field} = {value}\n"));
            if fits {
                sound(&text);
                continue;
            }
            let (path, what) = only(&text);
            assert_eq!(path, format!("{section}.{field}"));
            assert!(
                what.starts_with(&format!("{value} is out of range | at least {min}, at most {max}; default ")),
                "{what}"
            );
        }
    }
}

#[test]
fn every_bounded_field_is_in_the_table_and_documented_with_its_bounds() {
    let schema = schema();
    let mut listed: Vec<String> = BOUNDS.iter().map(|(section, field, _)| format!("{section}.{field}")).collect();
    let mut described = Vec::new();
    for section in
        ["ring", "timers", "limits", "client", "http2", "websocket", "cors", "pool", "admin", "resolver", "access_log"]
    {
        for (field, property) in properties(&schema, &format!("/definitions/{}", title(section))) {
            let unbounded = ["driver", "half_close", "address", "access", "method", "servers", "path", "compress"];
            let is_bounded = !unbounded.contains(&field.as_str());
            if is_bounded && (section != "cors" || field == "max_age") {
                described.push(format!("{section}.{field}"));
            }
            let description = property["description"].as_str().unwrap_or_default().to_owned();
            if let Some((_, _, [min, max, ..])) = BOUNDS.iter().find(|(s, f, _)| (*s, *f) == (section, field.as_str()))
            {
                let bounds = [format!("{min} to {max}")];
                assert!(bounds.iter().any(|bounds| description.contains(bounds)), "{section}.{field}: {description}");
            }
        }
    }
    listed.sort();
    described.sort();
    assert_eq!(listed, described);
}

#[test]
fn the_schema_has_the_fields_that_compile_reads_and_their_defaults() {
    let schema = schema();
    // A field that no one knows, in every table: the hint lists what compile reads there.
    let whole = r#"x_x = 1
        ring = { x_x = 1 }
        listeners = [{ x_x = 1, tls = { x_x = 1, certificates = [{ x_x = 1 }] } }]
        keys = [{ x_x = 1, secret = { x_x = 1 } }]
        providers = [{ x_x = 1, client_certificate = { x_x = 1 }, endpoints = [{ x_x = 1, key = { x_x = 1 } }] }]
        models = [{ x_x = 1, route = [{ x_x = 1 }], timers = { x_x = 1 } }]
        timers = { x_x = 1 }
        limits = { x_x = 1 }
        client = { x_x = 1 }
        http2 = { x_x = 1 }
        websocket = { x_x = 1 }
        pool = { x_x = 1 }
        admin = { x_x = 1 }
        cors = { x_x = 1 }
        resolver = { x_x = 1 }
        access_log = { x_x = 1 }
        log = { x_x = 1 }
        trace = { x_x = 1 }"#;
    let errors = load(whole).expect_err("unknown fields");
    let hints: BTreeMap<&str, &str> = errors
        .iter()
        .filter_map(|error| Some((error.path.strip_suffix("x_x")?, error.allowed.strip_prefix("allowed: ")?)))
        .collect();
    for (path, pointer) in [
        ("", ""),
        ("ring.", "/definitions/Ring"),
        ("listeners[0].", "/definitions/Listener"),
        ("listeners[0].tls.", "/definitions/ListenerTls"),
        ("listeners[0].tls.certificates[0].", "/definitions/KeyPair"),
        ("providers[0].client_certificate.", "/definitions/KeyPair"),
        ("keys[0].", "/definitions/Key"),
        ("providers[0].", "/definitions/Provider"),
        ("providers[0].endpoints[0].", "/definitions/Endpoint"),
        ("models[0].", "/definitions/Model"),
        ("models[0].route[0].", "/definitions/Target"),
        ("models[0].timers.", "/definitions/Timers"),
        ("timers.", "/definitions/Timers"),
        ("limits.", "/definitions/Limits"),
        ("client.", "/definitions/Client"),
        ("http2.", "/definitions/Http2"),
        ("websocket.", "/definitions/Websocket"),
        ("pool.", "/definitions/Pool"),
        ("admin.", "/definitions/Admin"),
        ("cors.", "/definitions/Cors"),
        ("resolver.", "/definitions/Resolver"),
        ("access_log.", "/definitions/AccessLog"),
        ("log.", "/definitions/Log"),
        ("trace.", "/definitions/Trace"),
    ] {
        let fields: Vec<String> = properties(&schema, pointer).into_iter().map(|(field, _)| field).collect();
        assert_eq!(hints.get(path).copied(), Some(fields.join(", ").as_str()), "{path}");
        assert_eq!(schema.pointer(&format!("{pointer}/additionalProperties")), Some(&Value::Bool(false)), "{path}");
    }
    for (path, name) in [("keys[0].secret.", "Secret"), ("providers[0].endpoints[0].key.", "EndpointKey")] {
        let sources = schema.pointer(&format!("/definitions/{name}/oneOf")).and_then(Value::as_array);
        let sources: Vec<String> =
            sources.into_iter().flatten().filter_map(|one| one["required"][0].as_str().map(str::to_owned)).collect();
        assert_eq!(hints.get(path).copied(), Some(sources.join(", ").as_str()), "{path}");
    }

    // The defaults that editors are shown, written out, change nothing.
    let mut written = String::from(OPEN);
    let sections =
        ["ring", "timers", "limits", "client", "http2", "websocket", "pool", "admin", "resolver", "log", "trace"];
    for section in sections {
        written += &format!("[{section}]\n");
        for (field, property) in properties(&schema, &format!("/definitions/{}", title(section))) {
            if field == "address" {
                written += "address = \"127.0.0.1:0\"\n";
                continue;
            }
            let default = &property["default"];
            if field == "servers" {
                // Absent, it is the system's list.
                continue;
            }
            assert!(!default.is_null(), "{section}.{field} shows no default");
            written += &format!("{field} = {default}\n");
        }
    }
    let (written, silent) = (sound(&written), sound(&format!("{OPEN}[admin]\naddress = \"127.0.0.1:0\"\n")));
    assert_eq!(written.admin, silent.admin);
    assert_eq!((written.ring, written.limits), (silent.ring, silent.limits));
    assert_eq!((written.client, written.http2, written.pool), (silent.client, silent.http2, silent.pool));
    assert_eq!(written.websocket, silent.websocket);
    assert_eq!(written.resolver, silent.resolver);
    assert_eq!((written.log, written.trace_start), (silent.log, silent.trace_start));
    assert_eq!(written.models[0].timers, silent.models[0].timers);
}

#[test]
fn every_field_of_the_schema_is_documented_and_in_the_reference() {
    let schema = schema();
    let mut pointers = vec![String::new()];
    let definitions = schema["definitions"].as_object().into_iter().flatten();
    pointers.extend(definitions.map(|(name, _)| format!("/definitions/{name}")));
    let mut count = 0;
    for pointer in pointers {
        for (field, property) in properties(&schema, &pointer) {
            count += 1;
            let text = property["description"].as_str().unwrap_or_default();
            assert!(text.len() > 20, "{pointer}/{field} has no description");
            let is_shown = [format!("{field} = "), format!("[{field}]"), format!("[[{field}]]"), format!(".{field}]")];
            assert!(is_shown.iter().any(|shown| REFERENCE.contains(shown)), "{field} is not in the reference");
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn lists_and_texts_have_their_bound() {
    let listener = |port: usize| format!("[[listeners]]\naddress = \"127.0.0.1:{port}\"\n");
    let target = |i: usize| format!("{{ provider = \"p\", model = \"{i}\" }},");
    let endpoint = "[[providers.endpoints]]\nurl = \"http://a\"\n";
    let model = |i: usize| format!("[[models]]\nname = \"m{i}\"\nroute = [{{ provider = \"p\" }}]\n");
    let provider = |i: usize| format!("[[providers]]\nname = \"p{i}\"\nendpoints = [{{ url = \"http://a\" }}]\n");
    let hash = |i: usize| format!("[[keys]]\nname = \"k{i}\"\nsecret = {{ hash = \"sha256:{i:064x}\" }}\n");
    let key_models = |count: usize| {
        format!("[[keys]]\nname = \"k\"\nsecret = {{ env = \"TEAM_A_KEY\" }}\nmodels = [{}]\n", "\"m\",".repeat(count))
    };
    let repeat = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    let name = |length: usize| "n".repeat(length);
    for (what, at, past) in [
        ("listeners", around("", &repeat(LISTENERS_MAX - 1, &listener)), around("", &repeat(LISTENERS_MAX, &listener))),
        (
            "route",
            replaced("{ provider = \"p\" }", &repeat(ROUTE_MAX, &target)),
            replaced("{ provider = \"p\" }", &repeat(ROUTE_MAX + 1, &target)),
        ),
        (
            "endpoints",
            replaced("[[models]]", &(endpoint.repeat(ENDPOINTS_MAX - 1) + "[[models]]")),
            replaced("[[models]]", &(endpoint.repeat(ENDPOINTS_MAX) + "[[models]]")),
        ),
        ("models", around("", &repeat(MODELS_MAX - 1, &model)), around("", &repeat(MODELS_MAX, &model))),
        ("providers", around("", &repeat(PROVIDERS_MAX - 1, &provider)), around("", &repeat(PROVIDERS_MAX, &provider))),
        ("keys", around("", &repeat(KEYS_MAX, &hash)), around("", &repeat(KEYS_MAX + 1, &hash))),
        ("key models", around("", &key_models(KEY_MODELS_MAX)), around("", &key_models(KEY_MODELS_MAX + 1))),
        (
            "model name",
            OPEN.replace("\"m\"", &format!("\"{}\"", name(MODEL_NAME_BYTES_MAX))),
            OPEN.replace("\"m\"", &format!("\"{}\"", name(MODEL_NAME_BYTES_MAX + 1))),
        ),
        (
            "name",
            OPEN.replace("\"p\"", &format!("\"{}\"", name(NAME_BYTES_MAX))),
            OPEN.replace("\"p\"", &format!("\"{}\"", name(NAME_BYTES_MAX + 1))),
        ),
        (
            "file",
            format!("{OPEN}#{}", " ".repeat(FILE_BYTES_MAX - OPEN.len() - 1)),
            format!("{OPEN}#{}", " ".repeat(FILE_BYTES_MAX - OPEN.len())),
        ),
    ] {
        assert!(load(&at).is_ok(), "{what} at its bound");
        assert!(load(&past).is_err(), "{what} past its bound");
    }
}

fn schema() -> Value {
    serde_json::from_str(&json_schema()).expect("JSON")
}

fn properties(schema: &Value, pointer: &str) -> Vec<(String, Value)> {
    let found = schema.pointer(&format!("{pointer}/properties")).and_then(Value::as_object);
    let mut fields: Vec<_> =
        found.into_iter().flatten().map(|(field, property)| (field.clone(), property.clone())).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

fn title(section: &str) -> String {
    section.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
