//! The table in config/headers.md, driven row by row through the gateway.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::coding::encoded;
use common::https::{BOTH, client};
use common::origin::{DONE, FINISH, content};
use common::pem::{Ca, Folder};
use common::process::{KEY, PROVIDER_KEY};
use common::websocket;
use common::{Config, Gateway, Head, Https, JSON, Origin, chat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use Fate::{Kept, Removed, Said};

const PATH: &str = "/v1/chat/completions";
const PAGE: &str = "https://app.example";

/// What becomes of a header.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It arrives as it was sent.
    Kept,
    /// It does not arrive.
    Removed,
    /// It arrives once, with this value, whatever was sent.
    Said(&'static str),
}

/// As the table has it, as it is sent, and what becomes of it. What is sent as an empty value is not sent.
type Row = (&'static str, &'static str, &'static str, Fate);

const REQUESTS: &[Row] = &[
    ("authorization", "authorization", "Bearer sk-test-client", Said("Bearer sk-test-provider")),
    ("x-api-key", "x-api-key", "sk-test-client", Removed),
    ("api-key", "api-key", "1", Removed),
    ("x-goog-api-key", "x-goog-api-key", "1", Removed),
    ("cookie", "cookie", "a=b", Removed),
    ("host", "host", "", Said("ORIGIN")),
    ("content-length", "content-length", "", Said("LENGTH")),
    ("transfer-encoding", "transfer-encoding", "", Removed),
    ("connection", "connection", "keep-alive, x-named", Removed),
    ("connection", "x-named", "1", Removed),
    ("keep-alive", "keep-alive", "timeout=5", Removed),
    ("te", "te", "trailers", Removed),
    ("trailer", "trailer", "x-a", Removed),
    ("upgrade", "upgrade", "h2c", Removed),
    ("http2-settings", "http2-settings", "AAMAAABk", Removed),
    ("proxy-connection", "proxy-connection", "keep-alive", Removed),
    ("proxy-authenticate", "proxy-authenticate", "Basic", Removed),
    ("proxy-authorization", "proxy-authorization", "Basic eA==", Removed),
    ("expect", "expect", "100-continue", Removed),
    ("accept-encoding", "accept-encoding", "gzip, br", Said("identity")),
    ("content-encoding", "content-encoding", "", Removed),
    ("content-md5", "content-md5", "1", Kept),
    ("content-digest", "content-digest", "1", Kept),
    ("repr-digest", "repr-digest", "1", Kept),
    ("digest", "digest", "1", Kept),
    ("accept-ranges", "accept-ranges", "bytes", Kept),
    ("x-request-id", "x-request-id", "mine", Kept),
    ("traceparent", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Said("TRACE")),
    ("tracestate", "tracestate", "a=b", Kept),
    ("via", "via", "1.1 squid.internal", Said("1.1 ringway")),
    ("forwarded", "forwarded", "for=192.0.2.1", Removed),
    ("x-forwarded-*", "x-forwarded-for", "192.0.2.1", Removed),
    ("x-forwarded-*", "x-forwarded-host", "a", Removed),
    ("x-forwarded-*", "x-forwarded-proto", "https", Removed),
    ("x-forwarded-*", "X-Forwarded-Client-Cert", "1", Removed),
    ("x-real-ip", "X-Real-IP", "192.0.2.1", Removed),
    ("x-client-ip", "x-client-ip", "192.0.2.1", Removed),
    ("x-cluster-client-ip", "x-cluster-client-ip", "192.0.2.1", Removed),
    ("client-ip", "client-ip", "192.0.2.1", Removed),
    ("true-client-ip", "true-client-ip", "192.0.2.1", Removed),
    ("cf-connecting-ip", "CF-Connecting-IP", "192.0.2.1", Removed),
    ("fastly-client-ip", "fastly-client-ip", "192.0.2.1", Removed),
    ("origin", "origin", PAGE, Removed),
    ("referer", "referer", "https://app.example/secret", Removed),
    ("sec-*", "Sec-Fetch-Mode", "cors", Removed),
    ("sec-*", "sec-ch-ua", "x", Removed),
    ("access-control-*", "access-control-request-headers", "x", Removed),
    ("x-ringway-*", "X-Ringway-Debug", "1", Removed),
    // Look-alikes.
    ("", "Content_Length", "5", Removed),
    ("", "content-length_", "5", Kept),
    ("", "Transfer_Encoding", "chunked", Removed),
    ("", "X_Forwarded_For", "192.0.2.1", Removed),
    ("", "X-Forwarded_Proto", "https", Removed),
    ("", "x_api_key", "sk-1", Removed),
    ("", "api_key", "sk-1", Removed),
    // All else, and what looks alike.
    ("", "x-ringwa", "1", Kept),
    ("", "x-forwarded", "1", Kept),
    ("", "x-real-ips", "1", Kept),
    ("", "secret", "1", Kept),
    ("", "user-agent", "OpenAI/Python 1", Kept),
    ("", "anthropic-version", "2023-06-01", Kept),
    ("", "openai-organization", "org-1", Kept),
    ("", "content-type", "application/json", Kept),
    ("", "x-custom", "1", Kept),
];

/// Over HTTP in the clear, where only a provider can say it.
const HSTS: Row = ("strict-transport-security", "strict-transport-security", "max-age=1", Removed);

const ANSWERS: &[Row] = &[
    ("content-length", "content-length", "", Said("2")),
    ("transfer-encoding", "transfer-encoding", "chunked", Removed),
    ("connection", "connection", "keep-alive, x-named", Removed),
    ("connection", "x-named", "1", Removed),
    ("keep-alive", "keep-alive", "timeout=5", Removed),
    ("te", "te", "trailers", Removed),
    ("trailer", "trailer", "x-a", Removed),
    ("upgrade", "upgrade", "h2c", Removed),
    ("http2-settings", "http2-settings", "AAMAAABk", Removed),
    ("proxy-connection", "proxy-connection", "keep-alive", Removed),
    ("proxy-authenticate", "proxy-authenticate", "Basic", Removed),
    ("proxy-authorization", "proxy-authorization", "Basic eA==", Removed),
    ("content-encoding", "content-encoding", "", Removed),
    ("content-md5", "content-md5", "1", Kept),
    ("content-digest", "content-digest", "1", Kept),
    ("repr-digest", "repr-digest", "1", Kept),
    ("digest", "digest", "1", Kept),
    ("accept-ranges", "accept-ranges", "bytes", Kept),
    ("etag", "etag", "\"a\"", Kept),
    ("x-request-id", "x-request-id", "theirs", Said("mine")),
    ("x-ringway-upstream-request-id", "x-ringway-upstream-request-id", "", Said("theirs")),
    ("x-ringway-error-origin", "x-ringway-error-origin", "gateway", Said("upstream")),
    ("x-ringway-*", "X-Ringway-Debug", "1", Removed),
    ("sec-websocket-*", "Sec-WebSocket-Version", "8", Removed),
    ("date", "date", "", Said("NOW")),
    ("x-accel-buffering", "x-accel-buffering", "yes", Removed),
    ("x-accel-*", "X-Accel-Redirect", "/internal", Removed),
    ("x-sendfile", "X-Sendfile", "/etc/passwd", Removed),
    ("", "content_length", "5", Removed),
    ("", "Transfer_Encoding", "chunked", Removed),
    ("access-control-*", "access-control-allow-origin", "*", Said(PAGE)),
    ("access-control-*", "access-control-allow-methods", "*", Removed),
    ("access-control-*", "access-control-expose-headers", "", Said("x-request-id")),
    ("vary", "vary", "Accept", Said("Accept, origin")),
    HSTS,
    ("set-cookie", "set-cookie", "a=b", Removed),
    ("alt-svc", "alt-svc", "h3=\":443\"", Removed),
    ("clear-site-data", "Clear-Site-Data", "\"*\"", Removed),
    ("nel", "NEL", "{}", Removed),
    ("report-to", "report-to", "{}", Removed),
    ("reporting-endpoints", "reporting-endpoints", "a=\"https://b\"", Removed),
    // All else, and what looks alike.
    ("", "x-accel", "1", Kept),
    ("", "x-sendfiles", "1", Kept),
    ("", "nels", "1", Kept),
    ("", "access-control", "1", Kept),
    ("", "content-type", "application/json", Kept),
    ("", "server", "cloudflare", Kept),
    ("", "via", "1.1 google", Kept),
    ("", "cache-control", "max-age=0", Kept),
    ("", "retry-after", "7", Kept),
    ("", "x-ratelimit-remaining-requests", "9", Kept),
    ("", "openai-processing-ms", "5", Kept),
];

/// Of a refusal to a page that asked for what cannot be.
const OWN: &[Row] = &[
    ("content-type", "content-type", "", Said("application/json")),
    ("content-length", "content-length", "", Said("LENGTH")),
    ("connection", "connection", "", Removed),
    ("date", "date", "", Said("NOW")),
    ("cache-control", "cache-control", "", Said("no-store")),
    ("x-content-type-options", "x-content-type-options", "", Said("nosniff")),
    ("x-request-id", "x-request-id", "", Said("mine")),
    ("x-ringway-error-origin", "x-ringway-error-origin", "", Said("client")),
    ("retry-after", "retry-after", "", Removed),
    ("allow", "allow", "", Removed),
    ("accept-encoding", "accept-encoding", "", Removed),
    ("upgrade", "upgrade", "", Removed),
    ("sec-websocket-version", "sec-websocket-version", "", Removed),
    ("access-control-*", "access-control-allow-origin", "", Said(PAGE)),
    ("access-control-*", "access-control-expose-headers", "", Said("x-request-id")),
    ("vary", "vary", "", Said("origin")),
    HSTS,
];

/// Of a request for a WebSocket, in the place of those in [`REQUESTS`].
const HANDSHAKES: &[Row] = &[
    ("connection", "connection", "keep-alive, x-named, Upgrade", Said("upgrade")),
    ("upgrade", "upgrade", "websocket", Said("websocket")),
    ("sec-websocket-version", "sec-websocket-version", "13", Said("13")),
    ("sec-websocket-key", "sec-websocket-key", websocket::KEY, Said("KEY")),
    (
        "sec-websocket-protocol",
        "sec-websocket-protocol",
        "realtime, openai-insecure-api-key.sk-other",
        Said("realtime"),
    ),
    ("sec-websocket-extensions", "sec-websocket-extensions", "permessage-deflate", Removed),
];

/// Of an answer that agrees to one, in the place of those in [`ANSWERS`].
const SWITCHES: &[Row] = &[
    ("connection", "connection", "x-named, Upgrade", Said("upgrade")),
    ("upgrade", "upgrade", "WebSocket", Said("websocket")),
    ("sec-websocket-accept", "sec-websocket-accept", "", Said(websocket::ACCEPT)),
    ("sec-websocket-protocol", "sec-websocket-protocol", "realtime", Kept),
];

const CORS: &str = "[cors]\norigins = [\"https://app.example\"]\nexpose = [\"x-request-id\"]";

fn gateway(origin: &Origin, more: &str) -> Gateway {
    Gateway::start(&Config::new(&[origin.url()]).and(&format!("{CORS}\n{more}")))
}

/// A provider's answer with all of [`ANSWERS`].
fn answer_of_all() -> String {
    let mut head = "HTTP/1.1 418 Teapot\r\n".to_owned();
    sent(ANSWERS).for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    head + "\r\n2\r\n{}\r\n0\r\n\r\n"
}

/// The headers of `rows` that are sent.
fn sent(rows: &[Row]) -> impl Iterator<Item = (&str, &str)> {
    rows.iter().filter(|(_, _, value, _)| !value.is_empty()).map(|(_, name, value, _)| (*name, *value))
}

/// Holds what arrived against `rows`; `fill` says what the words in capitals stand for.
fn hold(rows: &[Row], arrived: &[(String, String)], fill: impl Fn(&str) -> String) {
    for (_, name, value, fate) in rows {
        let name = name.to_ascii_lowercase();
        let got: Vec<&str> = arrived.iter().filter(|(own, _)| *own == name).map(|(_, value)| value.as_str()).collect();
        let got = if name == "vary" { vec![got.join(", ")] } else { got.into_iter().map(str::to_owned).collect() };
        let expected = match fate {
            Kept => vec![(*value).to_owned()],
            Removed => vec![],
            Said("NOW") => {
                assert!(got.len() == 1 && is_now(&got[0]), "{name}: {got:?}");
                continue;
            }
            Said("TRACE") => {
                let [trace, span] = ["00-4bf92f3577b34da6a3ce929d0e0e4736-", "00f067aa0ba902b7"];
                assert!(got.len() == 1 && got[0].starts_with(trace) && !got[0].contains(span), "{name}: {got:?}");
                continue;
            }
            Said(value) => vec![fill(value)],
        };
        assert_eq!(got, expected, "{name}, {fate:?}");
    }
    let known: BTreeSet<String> = rows.iter().map(|(_, name, ..)| name.to_ascii_lowercase()).collect();
    let others: Vec<_> = arrived.iter().filter(|(name, _)| !known.contains(name)).collect();
    assert!(others.is_empty(), "not in the table: {others:?}");
}

/// True for the form of RFC 9110 §5.6.7 and a time within the last minute, as the standard tool reads it.
fn is_now(date: &str) -> bool {
    let read = std::process::Command::new("date").args(["-u", "+%s", "-d", date]).output().expect("date");
    let then: u64 = String::from_utf8_lossy(&read.stdout).trim().parse().unwrap_or(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    date.len() == 29 && date.ends_with(" GMT") && (now - 60..=now + 1).contains(&then)
}

#[test]
fn each_row_of_requests_is_kept() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let body = chat("m", false);
    let address = origin.address.to_string();
    let fill = |value: &str| value.replace("ORIGIN", &address).replace("LENGTH", &body.len().to_string());
    for chunked in [false, true] {
        let mut client = gateway.connect();
        let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: gateway.example\r\n");
        sent(REQUESTS).for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        if chunked {
            head += "transfer-encoding: chunked\r\n\r\n";
            client.send(head.as_bytes()).send(format!("{:x}\r\n", body.len()).as_bytes());
            client.send(&body).send(b"\r\n0\r\n\r\n");
        } else {
            head += &format!("content-length: {}\r\n\r\n", body.len());
            client.send(&[head.as_bytes(), &body].concat());
        }
        let mut peer = origin.accept();
        let seen = peer.request();
        hold(REQUESTS, &seen.headers, fill);
        assert!(!format!("{seen:?}").contains(KEY), "{seen:?}");
        peer.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(client.response("POST").head.status, 200);
    }
    // The other place of a key.
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/messages", &JSON, &body);
    let seen = origin.accept().request();
    assert_eq!((seen.get("x-api-key"), seen.get("authorization")), (Some(PROVIDER_KEY), None), "{seen:?}");
}

#[test]
fn each_row_of_answers_is_kept() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let mut headers = JSON.to_vec();
    headers.extend([("x-request-id", "mine"), ("origin", PAGE)]);
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &headers, &chat("m", false));
    let mut peer = origin.accept();
    peer.request();
    peer.send(answer_of_all());
    let response = client.response("POST");
    assert_eq!((response.head.status, response.text().as_str()), (418, "{}"));
    hold(ANSWERS, &response.head.headers, str::to_owned);
    assert!(!format!("{:?}", response.head).contains(PROVIDER_KEY), "{:?}", response.head);

    // What is said of a stream, and a date that is there.
    client.send_request("POST", PATH, &headers, &chat("m", true));
    peer.request();
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    peer.send(format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\ncontent-type: text/event-stream\r\nX-Accel-Buffering: yes\r\n"
    ));
    peer.send("transfer-encoding: chunked\r\n\r\n").chunk(content("a")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    let head = client.response("POST").head;
    assert_eq!((head.all("x-accel-buffering"), head.all("date")), (vec!["no"], vec![date]), "{head:?}");
    assert_eq!(head.get("x-ringway-error-origin"), None, "{head:?}");
}

#[test]
fn each_row_of_a_websocket_is_kept() {
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let with = |special: &[Row], rows: &[Row], without: &[&str]| -> Vec<Row> {
        let is_other = |row: &&Row| special.iter().all(|own| own.1 != row.1) && !without.contains(&row.1);
        special.iter().chain(rows.iter().filter(is_other)).copied().collect()
    };
    let requests = with(HANDSHAKES, REQUESTS, &["content-length"]);
    let mut head = "GET /v1/realtime?model=m HTTP/1.1\r\nhost: gateway.example\r\n".to_owned();
    sent(&requests).for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    let mut client = gateway.connect();
    client.send((head + "\r\n").as_bytes());
    let mut peer = origin.accept();
    let seen = peer.head();
    let key = seen.get("sec-websocket-key").expect("a key").to_owned();
    hold(&requests, &seen.headers, |value| value.replace("ORIGIN", &origin.address.to_string()).replace("KEY", &key));
    assert!(key != websocket::KEY && !format!("{seen:?}").contains("sk-other"), "{seen:?}");

    // There is no body that they could speak of, and no failure.
    let without = ["content-length", "transfer-encoding", "sec-websocket-version", "x-ringway-error-origin"];
    let answers = with(SWITCHES, ANSWERS, &without);
    let accept = websocket::accept(&key);
    let mut head = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {accept}\r\n");
    sent(&answers).for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    peer.send(head + "\r\n");
    let head = client.head();
    assert_eq!(head.status, 101);
    hold(&answers, &head.headers, str::to_owned);
}

#[test]
fn what_speaks_of_encoded_bytes_goes_with_the_encoding() {
    const NAMES: [&str; 6] =
        ["content-encoding", "content-md5", "content-digest", "repr-digest", "digest", "accept-ranges"];
    let origin = Origin::start();
    let gateway = gateway(&origin, "");
    let lines: String = NAMES[1..].iter().map(|name| format!("{name}: 1\r\n")).collect();
    let lines = format!("content-encoding: gzip\r\n{lines}");
    let body = encoded("gzip", &String::from_utf8(chat("m", false)).expect("JSON"));
    let mut client = gateway.connect();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\norigin: {PAGE}\r\n", JSON[0].1);
    let head = format!("{head}accept-encoding: br\r\n{lines}content-length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), &body].concat());
    let mut peer = origin.accept();
    let seen = peer.request();
    for name in NAMES {
        assert_eq!(seen.get(name), None, "{name}: {seen:?}");
    }
    let body = encoded("gzip", "{}");
    peer.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\netag: \"a\"\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    ));
    peer.send(body);
    let response = client.response("POST");
    assert_eq!(response.text(), "{}");
    for name in NAMES {
        assert_eq!(response.head.get(name), None, "{name}: {:?}", response.head);
    }
    assert_eq!(response.head.all("etag"), ["W/\"a\""], "{:?}", response.head);
    assert_eq!(response.head.all("vary").join(", "), "accept-encoding, origin", "{:?}", response.head);
}

#[test]
fn each_row_of_own_answers_is_kept() {
    let origin = Origin::start();
    let mut gateway = gateway(&origin, "[client]\ndrain = \"1ms\"");
    let page = [("x-request-id", "mine"), ("origin", PAGE)];
    let mut client = gateway.connect();
    let refused = client.request("GET", "/v1/models", &page, b"");
    assert_eq!(refused.head.status, 401);
    let length = refused.body.len().to_string();
    hold(OWN, &refused.head.headers, |value| value.replace("LENGTH", &length));

    let listed = client.request("GET", "/v1/models", &[JSON[0], page[0], page[1]], b"");
    let not_on_success = |(doc, ..): &&Row| *doc != "x-ringway-error-origin";
    let rows: Vec<Row> = OWN.iter().filter(not_on_success).copied().collect();
    hold(&rows, &listed.head.headers, |value| value.replace("LENGTH", &listed.body.len().to_string()));

    let names = |head: &Head| -> Vec<String> { head.headers.iter().map(|(name, _)| name.clone()).collect() };
    let documented = |name: &String| OWN.iter().any(|(_, own, ..)| own == name);
    let mut strange = gateway.connect();
    strange.send(b"CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n\r\n");
    let head = strange.head();
    assert_eq!((head.status, head.get("allow")), (405, Some("GET, HEAD, POST, PUT, PATCH, DELETE")), "{head:?}");
    assert!(names(&head).iter().all(documented), "{head:?}");

    let headers = [JSON[0], JSON[1], ("content-encoding", "compress")];
    let head = gateway.connect().request("POST", PATH, &headers, b"x").head;
    assert_eq!((head.status, head.get("accept-encoding")), (415, Some("gzip, deflate, br, zstd")), "{head:?}");
    assert!(names(&head).iter().all(documented), "{head:?}");

    let old = websocket::handshake("/v1/realtime", "").replace("version: 13", "version: 8");
    let mut outdated = gateway.connect();
    let head = outdated.send(old.as_bytes()).head();
    assert_eq!((head.status, head.get("upgrade")), (426, Some("websocket")), "{head:?}");
    assert_eq!(head.get("sec-websocket-version"), Some("13"), "{head:?}");
    assert!(names(&head).iter().all(documented), "{head:?}");

    let mut waiting = gateway.connect();
    waiting.send_request("POST", PATH, &JSON, &chat("m", false));
    let mut peer = origin.accept();
    peer.request();
    kill(Pid::from_raw(gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
    let head = waiting.response("POST").head;
    assert_eq!((head.get("retry-after"), head.get("connection")), (Some("1"), Some("close")), "{head:?}");
    assert!(names(&head).iter().all(documented), "{head:?}");
    drop((client, strange, outdated, waiting));
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn over_https_one_row_is_another() {
    let (authority, folder, origin) = (Ca::new(), Folder::new(), Origin::start());
    folder.pair("own", &authority.sign(&["gateway.test"]));
    let [chain, key] = ["own.pem", "own.key"].map(|name| folder.path(name).display().to_string());
    let listener = format!("[listeners.tls]\ncertificates = [{{ chain = {chain:?}, key = {key:?} }}]\nhsts = \"365d\"");
    let gateway = Gateway::start(&Config::new(&[origin.url()]).listener(&listener).and(CORS));
    let with_hsts = |rows: &[Row]| -> Vec<Row> {
        let rows = rows.iter().copied();
        rows.map(|row| if row.0 == HSTS.0 { (row.0, row.1, row.2, Said("max-age=31536000")) } else { row }).collect()
    };
    let fields = |head: &str| -> Vec<(String, String)> {
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
    };
    let page = [("x-request-id", "mine"), ("origin", PAGE)];
    let mut https = Https::connect(gateway.address(), &client(&authority, BOTH), "gateway.test");
    https.send_request("POST", PATH, &[&JSON[..], &page].concat(), &chat("m", false));
    let mut peer = origin.accept();
    peer.request();
    peer.send(answer_of_all());
    hold(&with_hsts(ANSWERS), &fields(&https.head_as_it_is()), str::to_owned);
    assert_eq!(https.take(2), b"{}");

    https.send_request("GET", "/v1/models", &page, b"");
    let head = https.head_as_it_is();
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    let seen = fields(&head);
    let length = seen.iter().find(|(name, _)| name == "content-length").map(|(_, length)| length.clone());
    hold(&with_hsts(OWN), &seen, |value| value.replace("LENGTH", &length.clone().unwrap_or_default()));

    // In the clear, where browsers ignore what only HTTPS may say, all other rows are kept.
    let clear = gateway.connect().request("GET", "/v1/models", &page, b"");
    assert_eq!(clear.head.status, 400);
    let id = clear.head.get("x-request-id").expect("an id").to_owned();
    let length = clear.body.len().to_string();
    let rows = OWN.iter().map(|row| if row.0 == "connection" { (row.0, row.1, "", Said("close")) } else { *row });
    let rows: Vec<Row> = rows.collect();
    hold(&rows, &clear.head.headers, |value| value.replace("LENGTH", &length).replace("mine", &id));
}

#[test]
fn the_table_names_what_is_driven_here() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/headers.md");
    let table = std::fs::read_to_string(&path).expect("the table");
    for (of, rows) in
        [("requests", REQUESTS), ("answers", ANSWERS), ("own", OWN), ("handshakes", HANDSHAKES), ("switches", SWITCHES)]
    {
        let lines = table.lines().filter_map(|line| line.strip_prefix(&format!("| {of} | "))?.split_once(" | "));
        let mut documented = BTreeSet::new();
        for (names, rest) in lines {
            let mut words: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
            if names.contains("x-request-id") {
                // Renamed to a name of ours.
                words.extend(rest.split('`').skip(1).step_by(2).filter(|word| word.starts_with("x-ringway-")));
            }
            for word in words {
                assert!(documented.insert(word.to_owned()), "{of}: {word} is there twice");
            }
        }
        let driven: BTreeSet<String> =
            rows.iter().map(|(doc, ..)| (*doc).to_owned()).filter(|doc| !doc.is_empty()).collect();
        assert_eq!(documented, driven, "{of}");
    }
}
