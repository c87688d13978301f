//! Whole files, sound and faulty, in a small world of our own.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod keys;

const MINIMAL: &str = include_str!("../../../config/minimal.toml");
pub(in crate::config) const REFERENCE: &str = include_str!("../../../config/ringway.toml");

/// The least that compiles, without keys; its last line is at the top level of no table but `[[models]]`.
pub(in crate::config) const OPEN: &str = r#"
[[listeners]]
address = "127.0.0.1:8080"
[[providers]]
name = "p"
[[providers.endpoints]]
url = "http://127.0.0.1:9000/v1"
[[models]]
name = "m"
route = [{ provider = "p" }]
"#;

/// A small world of our own.
struct Fake;

impl Sources for Fake {
    fn env(&self, name: &str) -> Option<String> {
        let value = match name {
            "TEAM_A_KEY" => "sk-marker-team-a",
            "TEAM_A_TOO" => "sk-marker-team-a",
            "DEEPSEEK_KEY" => "sk-marker-deepseek",
            "LONGEST" => return Some("x".repeat(SECRET_BYTES_MAX)),
            "SPACED" => "sk-marker with space",
            "EMPTY" => "",
            "PORT" => "8080",
            "P" => "p",
            "SECRET_URL" => "https://sk-marker@host/",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn file(&self, path: &Path) -> io::Result<String> {
        let text = match path.to_str() {
            Some("/etc/ringway/secrets/team-b") => "sk-marker-team-b\r\n".to_owned(),
            Some("/etc/ringway/secrets/anthropic") => "sk-marker-anthropic\n".to_owned(),
            Some("/etc/ringway/empty") => "\n".to_owned(),
            Some("/etc/ringway/long") => "x".repeat(SECRET_BYTES_MAX + 1),
            Some("/etc/ringway/internal-ca.pem" | "/etc/ringway/gpu-1-ca.pem" | "/abs/ca.pem") => {
                "-----BEGIN CERTIFICATE-----\n".to_owned()
            }
            // What its name says, for `key_pair` and `authorities` to find.
            Some(path) if path.starts_with("/etc/ringway/tls/") => path.to_owned(),
            _ => return Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        Ok(text)
    }

    fn cores(&self) -> Vec<usize> {
        vec![0, 1, 2, 3, 8]
    }

    fn key_pair(&self, chain: &str, key: &str) -> Result<(), PemFault> {
        match (chain.contains("expired"), key.contains("other")) {
            (true, _) => Err(PemFault::First("holds nothing of use".into())),
            (_, true) => Err(PemFault::Second("is another's".into())),
            _ => Ok(()),
        }
    }

    fn authorities(&self, authorities: &str, revoked: Option<&str>) -> Result<(), PemFault> {
        match (authorities.contains("none"), revoked.is_some_and(|revoked| revoked.contains("none"))) {
            (true, _) => Err(PemFault::First("holds no certificate".into())),
            (_, true) => Err(PemFault::Second("holds no list".into())),
            _ => Ok(()),
        }
    }
}

pub(in crate::config) fn load(text: &str) -> Result<Config, Errors> {
    compile(text, Path::new("/etc/ringway"), &Fake)
}

pub(in crate::config) fn sound(text: &str) -> Config {
    load(text).unwrap_or_else(|errors| panic!("{}", errors.render("f.toml")))
}

fn report(text: &str) -> String {
    match load(text) {
        Ok(config) => panic!("compiled: {config:?}\nfrom: {text}"),
        Err(errors) => errors.render("f.toml"),
    }
}

/// The only error of `text`: its path and the text of both its lines.
pub(in crate::config) fn only(text: &str) -> (String, String) {
    let errors = load(text).expect_err(text);
    assert_eq!(errors.iter().len(), 1, "{}", errors.render("f.toml"));
    let error = errors.iter().next().map(|error| (error.path.clone(), format!("{} | {}", error.what, error.allowed)));
    error.unwrap_or_default()
}

/// `OPEN` with `top` before it and `end` after it.
pub(in crate::config) fn around(top: &str, end: &str) -> String {
    format!("{top}{OPEN}{end}")
}

pub(in crate::config) fn replaced(from: &str, to: &str) -> String {
    assert!(OPEN.contains(from), "{from}");
    OPEN.replacen(from, to, 1)
}

#[test]
fn the_ten_lines_of_the_readme_compile() {
    let config = sound(MINIMAL);
    assert_eq!(config.cores, [0, 1, 2, 3, 8]);
    assert_eq!((config.listeners.len(), config.listeners[0].open), (1, false));
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!((config.keys[0].name.as_str(), config.keys[0].models.as_ref()), ("team-a", None));
    assert_eq!(config.providers[0].endpoints, [EndpointId(0)]);
    let endpoint = &config.endpoints[0];
    assert_eq!((endpoint.name.as_str(), endpoint.provider, endpoint.auth), ("deepseek/0", 0, Auth::Dialect));
    assert_eq!((endpoint.tls, endpoint.host.as_str(), endpoint.port), (true, "api.deepseek.com", 443));
    assert_eq!((endpoint.authority.as_str(), endpoint.base_path.as_str()), ("api.deepseek.com", "/v1"));
    assert_eq!(endpoint.key.as_ref().map(|key| key.expose()), Some("sk-marker-deepseek"));
    let (model, target) = (&config.models[0], &config.models[0].route[0]);
    assert_eq!((model.name.as_str(), target.provider, target.model.as_deref()), ("chat", 0, Some("deepseek-chat")));
    assert!(config.default_model.is_none() && config.access_log.is_none());
}

#[test]
fn the_reference_compiles_to_what_its_comments_say() {
    let config = sound(REFERENCE);
    let log = config.access_log.as_ref().expect("an access log");
    assert_eq!(log.target, LogTarget::File("/etc/ringway/access.jsonl".into()));
    let rotation = (log.rotate_bytes, log.rotate_every, log.keep, log.compress);
    assert_eq!(rotation, (Some(256 << 20), Some(Duration::from_secs(24 * 3600)), 10, true));
    assert_eq!(config.listeners.iter().map(|listener| listener.open).collect::<Vec<_>>(), [false, false]);
    assert_eq!(config.keys[1].models.as_deref(), Some(&["chat".to_owned(), "claude".to_owned()][..]));
    // The digest of "test", from the standard tool.
    assert_eq!(config.keys[2].digest[..4], [0x9f, 0x86, 0xd0, 0x81]);
    let names: Vec<&str> = config.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["deepseek/0", "anthropic/0", "vllm/0", "vllm/1", "vllm/2"]);
    let [deepseek, anthropic, vllm_0, vllm_1, vllm_2] = &config.endpoints[..] else { panic!("five") };
    assert_eq!((deepseek.auth, anthropic.auth), (Auth::Dialect, Auth::XApiKey));
    assert_eq!(anthropic.key.as_ref().map(|key| key.expose()), Some("sk-marker-anthropic"));
    assert_eq!(vllm_0.key.as_ref().map(|key| key.expose()), Some("none"));
    assert_eq!(vllm_0.ca.as_deref(), Some(Path::new("/etc/ringway/internal-ca.pem")));
    assert_eq!(vllm_1.ca.as_deref(), Some(Path::new("/etc/ringway/gpu-1-ca.pem")));
    // An authority has no meaning without TLS.
    assert_eq!((vllm_2.tls, &vllm_2.ca, &vllm_2.key), (false, &None, &None));
    assert_eq!(config.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["chat", "claude"]);
    assert_eq!(config.default_model.as_ref().map(|model| model.name.as_str()), Some("*"));
    let chat = &config.models[0].timers;
    assert_eq!((chat.first_token, chat.between_tokens), (Duration::from_secs(30), Duration::from_secs(20)));
    assert_eq!((chat.connect, chat.total), (Duration::from_secs(5), Duration::from_secs(1800)));
}

#[test]
fn the_reference_shows_the_defaults() {
    let (shown, silent) = (sound(REFERENCE), sound(OPEN));
    assert_eq!(shown.cores, silent.cores);
    assert_eq!(shown.ring, silent.ring);
    assert_eq!(shown.limits, silent.limits);
    assert_eq!(shown.client, silent.client);
    assert_eq!(shown.pool, silent.pool);
    assert_eq!((shown.log, shown.trace_start), (silent.log, silent.trace_start));
    assert_eq!(shown.models[1].timers, silent.models[0].timers);
}

#[test]
fn a_file_with_many_faults_reports_them_all_with_their_places() {
    let text = r#"cores = "0-9"
usage = "x"
[ring]
driver = "defered"
entries = 1000
[[listeners]]
address = "0.0.0.0:8080"
acces = "open"
[[listeners]]
address = "localhost:8080"
[[providers]]
name = "anthropic-us"
[[providers.endpoints]]
url = "https://user:sk-marker@api.example.com/v1"
[[providers]]
name = "openai-eu"
auth = "basic"
endpoints = []
[[models]]
name = "chat"
route = [
  { provider = "openai-eu" },
  { provider = "anthropic-eu", modle = "x" },
]
[models.timers]
connect = 5
total = "25h"
[limits]
body_bytes_max = "32MB"
headers_max = 0
"#;
    let expected = r#"ringway: f.toml has 16 errors

  1:9    cores  "0-9" names CPUs that this process may not run on: 4-7,9
                          "auto", or some of 0-3,8
  2:1    usage  is not a known field
                          allowed: access_log, admin, client, cores, cors, http2, keys, limits, listeners, log, models, pool, providers, resolver, ring, spread, timers, trace, websocket
  4:10   ring.driver  "defered" is not known here
                          allowed: auto, cooperative, deferred, epoll, plain. Did you mean "deferred"?
  5:11   ring.entries  1000 is not a power of two
                          the nearest are 512 and 1024
  7:11   listeners[0].address  "0.0.0.0:8080" is not a loopback address, and there are no [[keys]]
                          add [[keys]], listen on 127.0.0.1, or say access = "open"
  8:1    listeners[0].acces  is not a known field
                          allowed: access, address, http2, tls. Did you mean "access"?
  10:11  listeners[1].address  "localhost:8080" is not an address
                          IP address and port: "127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080"
  14:7   providers[0].endpoints[0].url  has a user name; the provider's key belongs into `key`
                          a URL like "https://api.example.com/v1" or "http://127.0.0.1:8000/v1"
  17:8   providers[1].auth  "basic" is not known here
                          allowed: auto, bearer, x-api-key
  18:13  providers[1].endpoints  is empty
                          at least one: [[providers.endpoints]]
  23:16  models[0].route[1].provider  "anthropic-eu" is not defined
                          defined: anthropic-us, openai-eu. Did you mean "anthropic-us"?
  23:32  models[0].route[1].modle  is not a known field
                          allowed: model, provider. Did you mean "model"?
  26:11  models[0].timers.connect  is a whole number
                          expected a number and a unit: "500ms", "75s", "30m", "2h"
  27:9   models[0].timers.total  "25h" is out of range
                          at least 1ms, at most 24h; default 30m
  29:18  limits.body_bytes_max  "32MB" is not a size
                          bytes as a number, or a number and a unit: "64KiB", "32MiB", "1GiB"
  30:15  limits.headers_max  0 is out of range
                          at least 8, at most 128; default 100
"#;
    assert_eq!(report(text), expected);
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    let expected = r#"ringway: f.toml has 3 errors

  1:1  providers  is missing
                          at least one [[providers]] with a name and endpoints
  1:1  models  is missing
                          at least one [[models]] with a name and a route
  1:1  listeners  is missing
                          at least one [[listeners]] with an address
"#;
    assert_eq!(report(""), expected);
}

#[test]
fn text_that_is_no_toml_is_reported_at_every_break() {
    let text = "cores = auto\n[ring\nentries = 1\n[[keys]]\nsecret = sk-marker\n";
    let report = report(text);
    assert!(report.starts_with("ringway: f.toml has 3 errors\n\n  1:9   is not TOML: "), "{report}");
    assert!(report.contains("\n  2:6   is not TOML") && report.contains("\n  5:10  is not TOML"), "{report}");
    assert!(!report.contains("sk-marker"), "{report}");
}

#[test]
fn each_fault_of_a_plain_value_is_named() {
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    for (text, path, what) in [
        (around("cores = 4", ""), "cores", r#"is a whole number | expected "auto", or a list such as "0-3,8""#),
        (around("cores = \"0-\"", ""), "cores", "\"0-\" is not a list of CPUs"),
        (around("cores = \"${PORT}\"", ""), "cores", "\"${PORT}\" names a CPU above 1023"),
        (around("keys = 1", ""), "keys", "is a whole number | expected [[keys]]"),
        (around("ring = true", ""), "ring", "is true or false | expected a table"),
        (around("", "[access_log]\npath = \"\""), "access_log.path", "is not a path"),
        (around("", "[access_log]\nkeep = 1"), "access_log.path", "is missing"),
        (around("access_log = \"a\"", ""), "access_log", "is a string | expected a table"),
        (around("", "[trace]\nstart = \"always\""), "trace.start", "\"always\" is not known here"),
        (around("", "[log]\nlevel = \"trace\""), "log.level", "\"trace\" is not known here"),
        (
            around("", "[access_log]\npath = \"${NO_SUCH}\""),
            "access_log.path",
            "needs the environment variable NO_SUCH, which is not set",
        ),
        (around("", "[limits]\nheaders_max = 1.5"), "limits.headers_max", "is a number with a fraction"),
        (around("", "[limits]\nbody_bytes_max = -1"), "limits.body_bytes_max", "-1 is out of range"),
        (
            around("", "[limits]\nbody_bytes_max = 99999999999999999999999999999999999999999"),
            "limits.body_bytes_max",
            "out of range",
        ),
        (
            around("", "[client]\nhalf_close = \"Gone\""),
            "client.half_close",
            r#""Gone" is not known here | allowed: finish, gone. Did you mean "gone"?"#,
        ),
        (around("", "[client]\nkeep_alive = 1979-05-27"), "client.keep_alive", "is a date or time"),
        (around("", "[client]\n\"a b\" = 1"), "client.\"a b\"", "is not a known field"),
        (
            replaced("name = \"p\"", "name = \"p\"\ninclude_usage = \"yes\""),
            "providers[0].include_usage",
            "is a string | expected true or false",
        ),
        (replaced("name = \"m\"", "name = \"\""), "models[0].name", "\"\" is not a model's name"),
        (replaced("name = \"m\"", "name = \"a\\u0007\""), "models[0].name", "is not a model's name"),
        (replaced("name = \"m\"\n", ""), "models[0].name", "is missing"),
        (replaced("\"m\"", "[\"m\"]"), "models[0].name", "is a list | expected a string"),
        (replaced("[{ provider = \"p\" }]", "[]"), "models[0].route", "is empty"),
        (replaced("[{ provider = \"p\" }]", "[\"p\"]"), "models[0].route[0]", "is a string | expected a table"),
        (replaced("[{ provider = \"p\" }]", "[{ }]"), "models[0].route[0].provider", "is missing"),
        (
            replaced("[{ provider = \"p\" }]", "[{ provider = \"p\" }, { provider = \"${P}\" }]"),
            "models[0].route[1]",
            "is the same as models[0].route[0]",
        ),
        (
            replaced("url = \"http://127.0.0.1:9000/v1\"", "url = \"${SECRET_URL}\""),
            "providers[0].endpoints[0].url",
            "has a user name",
        ),
        (replaced("url = \"http://127.0.0.1:9000/v1\"", ""), "providers[0].endpoints[0].url", "is missing"),
        (
            replaced("9000/v1\"", "9000/v1\"\nca = \"/abs/ca.pem\""),
            "providers[0].endpoints[0].ca",
            "has no effect on an http URL",
        ),
        (
            replaced("name = \"p\"", "name = \"p\"\nca = \"gone.pem\""),
            "providers[0].ca",
            "the file cannot be read: entity not found",
        ),
        (
            replaced("name = \"p\"", "name = \"p\"\nca = \"secrets/team-b\""),
            "providers[0].ca",
            "the file holds no certificate",
        ),
        (
            replaced("[[providers.endpoints]]\n", "[providers.endpoints]\n"),
            "providers[0].endpoints",
            "is a table | expected [[providers.endpoints]]",
        ),
        (OPEN.replace("\"p\"", "\"p q\""), "providers[0].name", "\"p q\" is not a name"),
        (OPEN.replace("\"p\"", "\"\""), "providers[0].name", "\"\" is not a name"),
        (OPEN.replace("\"p\"", &format!("\"{long}\"")), "providers[0].name", "is not a name"),
    ] {
        let (at, error) = only(&text);
        assert_eq!(at, path, "{text}\n{error}");
        assert!(error.contains(what), "{path}: {error}\nnot: {what}");
    }
}

#[test]
fn names_are_unique_each_among_its_kind() {
    let twice = around("", "[[models]]\nname = \"m\"\nroute = [{ provider = \"p\" }]\n");
    assert_eq!(
        only(&twice),
        ("models[1].name".into(), "\"m\" is already the name of models[0] | a name of its own; \"m\" is taken".into())
    );
    let default_twice = around("", &"[[models]]\nname = \"*\"\nroute = [{ provider = \"p\" }]\n".repeat(2));
    assert_eq!(only(&default_twice).0, "models[2].name");
    let providers = around("", "[[providers]]\nname = \"${P}\"\nendpoints = [{ url = \"http://a\" }]\n");
    assert_eq!(
        only(&providers),
        (
            "providers[1].name".into(),
            "\"${P}\" is already the name of providers[0] | a name of its own; \"${P}\" is taken".into()
        )
    );
    // A key, a provider and a model may share one.
    sound(&OPEN.replace("\"m\"", "\"p\""));
}

#[test]
fn timers_fall_back_from_model_to_file_to_default() {
    let config = sound(&around("", "timers = { total = \"3s\" }\n[timers]\ntotal = \"2s\"\nconnect = \"1s\"\n"));
    let timers = &config.models[0].timers;
    let seconds = [timers.total, timers.connect, timers.between_tokens].map(|timer| timer.as_secs());
    assert_eq!(seconds, [3, 1, 60]);
}

#[test]
fn a_part_is_held_to_its_whole_and_a_default_yields() {
    let config = sound(&around("", "[limits]\nhead_bytes_max = \"1KiB\"\n[pool]\nconnections_max = 10\n"));
    assert_eq!((config.limits.target_bytes_max, config.pool.idle_max), (1024, 10));
    for (section, path) in [
        ("[limits]\nhead_bytes_max = 1024\ntarget_bytes_max = 1025\n", "limits.target_bytes_max"),
        ("[pool]\nconnections_max = 10\nidle_max = 11\n", "pool.idle_max"),
    ] {
        let text = around("", section);
        assert_eq!(only(&text).0, path);
        sound(&text.replace("1025", "1024").replace("11", "10"));
    }
}

#[test]
fn a_fault_that_repeats_itself_is_cut_short() {
    let text = around("", &"[[models]]\nname = \"m\"\n".repeat(2000));
    let errors = load(&text).expect_err("duplicates");
    assert_eq!(errors.iter().len(), 1000);
    assert!(errors.render("f.toml").starts_with("ringway: f.toml has 1000 or more errors\n"));
}

#[test]
fn nesting_without_end_is_refused_not_followed() {
    for open in ["[", "{a=", "[{a="] {
        let text = format!("cores = {}", open.repeat(FILE_BYTES_MAX / 8));
        assert!(load(&text).is_err(), "{open}");
    }
    for dotted in ["a.", "[a.", "cores = {a."] {
        let text = format!("{dotted}{}a = 1", "a.".repeat(FILE_BYTES_MAX / 4));
        assert!(load(&text).is_err(), "{dotted}");
        let text = format!("{dotted}{}a]\nx = 1", "a.".repeat(FILE_BYTES_MAX / 4));
        assert!(load(&text).is_err(), "{dotted}");
    }
}

#[test]
fn a_cut_or_a_slip_anywhere_never_panics_nor_shows_a_secret() {
    let text = format!(
        "{MINIMAL}[[providers]]\nname = \"q\"\n[[providers.endpoints]]\nurl = \"https://q/v1\"\nkey = {{ value = \"sk-marker-q\" }}\n"
    );
    sound(&text);
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
        let next = at + text[at..].chars().next().map_or(0, char::len_utf8);
        for slip in ["", "\"", "\n", "=", "[", "}", "${", "\\"] {
            let texts = [format!("{}{slip}", &text[..at]), format!("{}{slip}{}", &text[..at], &text[next..])];
            for text in texts {
                if let Err(errors) = load(&text) {
                    let report = errors.render("f.toml");
                    assert!(errors.iter().len() > 0, "{text}");
                    assert!(!report.contains("sk-marker"), "{text}\n{report}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn random_text_never_panics_and_an_error_has_a_reason(text in "\\PC{0,200}|[\\[\\]{}=\"'.#a-c0-9$\n -]{0,200}") {
        if let Err(errors) = load(&text) {
            prop_assert!(errors.iter().len() > 0);
            errors.render("f.toml");
        }
    }

    #[test]
    fn a_mutated_file_never_panics_and_an_error_has_a_reason(
        cuts in prop::collection::vec((0.0..1.0f64, 0.0..1.0f64, "[\\[\\]{}=\"'.#a-z0-9$:/*\n -]{0,8}"), 1..6),
    ) {
        let mut chars: Vec<char> = REFERENCE.chars().collect();
        for (at, length, insert) in cuts {
            let from = (at * chars.len() as f64) as usize;
            let to = (from + (length * length * 40.0) as usize).min(chars.len());
            chars.splice(from..to, insert.chars());
        }
        let text: String = chars.into_iter().collect();
        if let Err(errors) = load(&text) {
            prop_assert!(errors.iter().len() > 0, "{}", text);
            let report = errors.render("f.toml");
            prop_assert!(!report.contains("sk-marker"), "{}", report);
        }
    }
}
