//! Keys and secrets: where they come from, what they must be, who may call without one.

use super::*;

#[test]
fn listeners_without_keys_are_open_on_loopback_and_refused_elsewhere() {
    let keys = "[[keys]]\nname = \"a\"\nsecret = { env = \"TEAM_A_KEY\" }\n";
    let refused = "is not a loopback address";
    for (address, access, keys, expected) in [
        ("127.0.0.1:1", "", "", Ok(true)),
        ("127.9.9.9:1", "", "", Ok(true)),
        ("[::1]:1", "", "", Ok(true)),
        ("[::ffff:127.0.0.1]:1", "", "", Ok(true)),
        ("127.0.0.1:1", "open", "", Ok(true)),
        ("127.0.0.1:1", "keys", "", Err("lets no one in")),
        ("127.0.0.1:1", "", keys, Ok(false)),
        ("127.0.0.1:1", "keys", keys, Ok(false)),
        ("127.0.0.1:1", "open", keys, Ok(true)),
        ("0.0.0.0:1", "", "", Err(refused)),
        ("[::]:1", "", "", Err(refused)),
        ("10.0.0.1:1", "", "", Err(refused)),
        ("[::ffff:10.0.0.1]:1", "", "", Err(refused)),
        ("0.0.0.0:1", "keys", "", Err("lets no one in")),
        ("0.0.0.0:1", "open", "", Ok(true)),
        ("0.0.0.0:1", "", keys, Ok(false)),
        ("0.0.0.0:1", "keys", keys, Ok(false)),
        ("0.0.0.0:1", "open", keys, Ok(true)),
        ("0.0.0.0", "", keys, Err("is not an address")),
        ("0.0.0.0:65536", "", keys, Err("is not an address")),
        ("0.0.0.0:1", "opne", keys, Err("Did you mean \"open\"?")),
        ("0.0.0.0:1", "opne", "", Err("Did you mean \"open\"?")),
    ] {
        let access_line = if access.is_empty() { String::new() } else { format!("\naccess = \"{access}\"") };
        let text = replaced("\"127.0.0.1:8080\"", &format!("\"{address}\"{access_line}")) + keys;
        let case = format!("{address} {access} {keys:?}");
        match expected {
            Ok(open) => assert_eq!(sound(&text).listeners[0].open, open, "{case}"),
            Err(what) => assert!(only(&text).1.contains(what), "{case}: {}", report(&text)),
        }
    }
}

#[test]
fn a_faulty_key_does_not_make_the_gateway_keyless() {
    // One fault, not a second one that tells the operator to open the listener.
    let text = replaced("127.0.0.1:8080", "0.0.0.0:8080") + "[[keys]]\nname = \"a\"\nsecret = { env = \"NO_SUCH\" }\n";
    assert_eq!(only(&text).0, "keys[0].secret.env");
    assert_eq!(
        only(&format!("keys = []{}", replaced("127.0.0.1:8080", "0.0.0.0:8080"))).1,
        "is empty | at least one: [[keys]]"
    );
}

#[test]
fn two_listeners_need_two_addresses() {
    for (other, is_taken) in [
        ("127.0.0.1:8080", true),
        ("[::ffff:127.0.0.1]:8080", true),
        ("127.0.0.1:${PORT}", true),
        ("127.0.0.1:8081", false),
        ("[::1]:8080", false),
    ] {
        let text = around("", &format!("[[listeners]]\naddress = \"{other}\"\n"));
        match load(&text) {
            Ok(config) => assert!(!is_taken && config.listeners.len() == 2, "{other}"),
            Err(errors) => {
                assert!(is_taken && errors.render("").contains("is already the address of listeners[0]"), "{other}")
            }
        }
    }
    let free = OPEN.replace("8080", "0") + "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    assert_eq!(sound(&free).listeners.len(), 2);
}

#[test]
fn secrets_come_from_where_they_are_said_to_be_and_never_show() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let of_nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (secret, expected) in [
        (r#"{ env = "TEAM_A_KEY" }"#.to_owned(), Ok(())),
        (r#"{ env = "LONGEST" }"#.into(), Ok(())),
        (r#"{ file = "secrets/team-b" }"#.into(), Ok(())),
        (r#"{ file = "/etc/ringway/secrets/team-b" }"#.into(), Ok(())),
        (format!(r#"{{ hash = "sha256:{hash}" }}"#), Ok(())),
        (format!(r#"{{ hash = "sha256:{}" }}"#, hash.to_uppercase()), Ok(())),
        (r#""sk-marker""#.into(), Err("is a string, which does not say where")),
        (r#""${TEAM_A_KEY}""#.into(), Err("is a string, which does not say where")),
        ("{ }".into(), Err("says no source")),
        (r#"{ env = "TEAM_A_KEY", file = "x" }"#.into(), Err("says more than one source")),
        (r#"{ value = "sk-marker" }"#.into(), Err("allowed: env, file, hash")),
        (r#"{ env = "NO_SUCH" }"#.into(), Err("the environment variable NO_SUCH is not set")),
        (r#"{ env = "EMPTY" }"#.into(), Err("the environment variable EMPTY is empty")),
        (r#"{ env = "SPACED" }"#.into(), Err("holds no key")),
        (r#"{ env = "sk-marker" }"#.into(), Err("is not the name of an environment variable")),
        (r#"{ env = "" }"#.into(), Err("is not the name of an environment variable")),
        (r#"{ env = 1 }"#.into(), Err("expected a string")),
        (r#"{ file = "sk-marker" }"#.into(), Err("the file cannot be read: entity not found")),
        (r#"{ file = "" }"#.into(), Err("is not a path")),
        (r#"{ file = "empty" }"#.into(), Err("the file is empty")),
        (r#"{ file = "long" }"#.into(), Err("holds no key")),
        (format!(r#"{{ hash = "{hash}" }}"#), Err("is not a hash")),
        (format!(r#"{{ hash = "sha256:{}" }}"#, &hash[1..]), Err("is not a hash")),
        (format!(r#"{{ hash = "sha256:{hash}0" }}"#), Err("is not a hash")),
        (format!(r#"{{ hash = "sha256:é{}" }}"#, &hash[2..]), Err("is not a hash")),
        (r#"{ hash = "sk-marker" }"#.into(), Err("is not a hash")),
        (format!(r#"{{ hash = "{of_nothing}" }}"#), Err("is the hash of an empty secret")),
    ] {
        let text = around("", &format!("[[keys]]\nname = \"a\"\nsecret = {secret}\n"));
        match expected {
            Ok(()) => assert_eq!(sound(&text).keys.len(), 1),
            Err(what) => {
                let report = report(&text);
                assert!(report.contains(what), "{secret}: {report}");
                assert!(!report.contains("sk-marker") && !report.contains(&hash[2..]), "{secret}: {report}");
            }
        }
    }
}

#[test]
fn a_providers_key_may_also_be_a_value() {
    for (key, expected) in [
        (r#"{ value = "sk-marker" }"#, Ok("sk-marker")),
        (r#"{ value = "${DEEPSEEK_KEY}" }"#, Ok("sk-marker-deepseek")),
        (r#"{ env = "DEEPSEEK_KEY" }"#, Ok("sk-marker-deepseek")),
        (r#"{ file = "secrets/anthropic" }"#, Ok("sk-marker-anthropic")),
        (r#"{ value = "" }"#, Err("the value is empty")),
        (r#"{ value = "sk-marker\n" }"#, Err("holds no key")),
        (r#"{ value = "${NO_SUCH}" }"#, Err("NO_SUCH, which is not set")),
        (r#"{ vlue = "sk-marker" }"#, Err("Did you mean \"value\"?")),
        (r#"{ hash = "sk-marker" }"#, Err("is not a known field")),
        (r#""sk-marker""#, Err(r#"{ value = "…" }"#)),
        ("[]", Err("is a list")),
    ] {
        let text = replaced("9000/v1\"", &format!("9000/v1\"\nkey = {key}"));
        match expected {
            Ok(value) => {
                let config = sound(&text);
                assert_eq!(config.endpoints[0].key.as_ref().map(|key| key.expose()), Some(value));
                assert!(!format!("{config:?}").contains("sk-marker"));
            }
            Err(what) => {
                let report = report(&text);
                assert!(report.contains(what) && !report.contains("sk-marker"), "{key}: {report}");
            }
        }
    }
}

#[test]
fn two_keys_with_one_secret_are_refused() {
    let text = around(
        "",
        "[[keys]]\nname = \"a\"\nsecret = { env = \"TEAM_A_KEY\" }\n[[keys]]\nname = \"b\"\nsecret = { env = \"TEAM_A_TOO\" }\n",
    );
    assert_eq!(
        only(&text),
        ("keys[1].secret".into(), "is the same key as that of keys[0] | each key needs a secret of its own".into())
    );
}

#[test]
fn a_key_names_models_that_exist() {
    let default = "[[models]]\nname = \"*\"\nroute = [{ provider = \"p\" }]\n";
    for (models, default, expected) in [
        (r#"["m"]"#, "", Ok(Some(vec!["m".to_owned()]))),
        (r#"["*"]"#, "", Ok(None)),
        (r#"["m", "*"]"#, "", Ok(None)),
        (r#"["any"]"#, default, Ok(Some(vec!["any".to_owned()]))),
        (r#"["n"]"#, "", Err("\"n\" is not defined | defined: m. Did you mean \"m\"?")),
        ("[]", "", Err("is empty")),
        ("[1]", "", Err("expected a string")),
        (r#""m""#, "", Err("expected a list of model names")),
    ] {
        let text = around(
            "",
            &format!("{default}[[keys]]\nname = \"a\"\nsecret = {{ env = \"TEAM_A_KEY\" }}\nmodels = {models}\n"),
        );
        match expected {
            Ok(allowed) => assert_eq!(sound(&text).keys[0].models, allowed, "{models}"),
            Err(what) => assert!(only(&text).1.contains(what), "{models}: {}", report(&text)),
        }
    }
}
