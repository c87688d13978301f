//! Web pages of other origins: what their browsers are told, by every kind of answer.

mod common;

use common::origin::{DONE, FINISH, content};
use common::{Config, Framing, Gateway, Head, JSON, Origin, chat};

const PATH: &str = "/v1/chat/completions";
const PAGE: &str = "https://app.example";
const LISTED: &str = "[cors]\norigins = [\"https://app.example\", \"https://*.example.com\"]";

fn gateway(origin: &Origin, cors: &str) -> Gateway {
    Gateway::start(&Config::new(&[origin.url()]).and(cors))
}

fn asked(method: &str) -> [(&str, &str); 3] {
    [
        ("origin", PAGE),
        ("access-control-request-method", method),
        ("access-control-request-headers", "authorization,content-type,x-stainless-os"),
    ]
}

fn cors_lines(head: &Head) -> Vec<&str> {
    head.headers.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("access-control-")).collect()
}

/// Every `vary`, joined as a cache reads it.
fn vary(head: &Head) -> String {
    head.all("vary").join(", ")
}

#[test]
fn a_preflight_needs_no_key_and_reaches_no_provider() {
    let origin = Origin::start();
    let gateway = gateway(&origin, LISTED);
    let mut client = gateway.connect();
    for path in [PATH, "/v1/models", "/elsewhere"] {
        let response = client.request("OPTIONS", path, &asked("POST"), b"");
        let head = &response.head;
        assert_eq!((head.status, &response.framing), (204, &Framing::None), "{path}: {head:?}");
        for (name, value) in [
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
            ("access-control-allow-headers", "authorization,content-type,x-stainless-os"),
            ("access-control-max-age", "7200"),
        ] {
            assert_eq!(head.all(name), [value], "{path}: {head:?}");
        }
        let varies = "origin, access-control-request-method, access-control-request-headers";
        assert!(vary(head).starts_with(varies), "{head:?}");
        assert_eq!((head.get("content-length"), head.get("connection")), (None, None), "{head:?}");
    }
    // The connection goes on, and a page that is not listed is told nothing.
    let mut other = asked("POST");
    other[0].1 = "https://evil.test";
    let response = client.request("OPTIONS", PATH, &other, b"");
    assert_eq!((response.head.status, cors_lines(&response.head)), (204, vec![]), "{:?}", response.head);
    assert!(vary(&response.head).starts_with("origin, "), "{:?}", response.head);
    assert!(origin.is_left_alone());
}

#[test]
fn an_options_that_is_no_preflight_is_a_request_like_any_other() {
    let origin = Origin::start();
    for (cors, headers) in [
        (LISTED, vec![("origin", PAGE)]),
        (LISTED, vec![("access-control-request-method", "POST")]),
        (LISTED, vec![("origin", PAGE), ("origin", PAGE), ("access-control-request-method", "POST")]),
        ("", asked("POST").to_vec()),
    ] {
        let gateway = gateway(&origin, cors);
        let response = gateway.connect().request("OPTIONS", PATH, &headers, b"");
        assert_eq!(response.head.status, 401, "{cors} {headers:?}: {:?}", response.head);
        assert_eq!(response.json()["error"]["code"], "missing_api_key", "{cors} {headers:?}");
    }
}

#[test]
fn every_answer_to_a_listed_page_can_be_read_by_it() {
    let origin = Origin::start();
    let limits = "[limits]\nhead_bytes_max = \"1KiB\"\ntarget_bytes_max = \"512B\"\nbody_bytes_max = \"1KiB\"\n[client]\nhead = \"50ms\"";
    let gateway = gateway(&origin, &format!("{LISTED}\n{limits}"));
    let key = JSON[0].1;
    let line = format!("origin: {PAGE}\r\n");
    let long = "x".repeat(1100);
    for (name, request, status) in [
        ("no key", format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}content-length: 0\r\n\r\n"), 401),
        (
            "too large",
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{line}authorization: {key}\r\ncontent-length: 1025\r\n\r\n"),
            413,
        ),
        ("no such path", format!("GET /x HTTP/1.1\r\nhost: x\r\n{line}authorization: {key}\r\n\r\n"), 404),
        ("our own", format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{line}authorization: {key}\r\n\r\n"), 200),
        ("to HEAD", format!("HEAD /v1/models HTTP/1.1\r\nhost: x\r\n{line}authorization: {key}\r\n\r\n"), 200),
        ("malformed", format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{line}x y: z\r\n\r\n"), 400),
        ("a head too long", format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{line}x: {long}\r\n\r\n"), 431),
        ("a target too long", format!("GET /v1/{long} HTTP/1.1\r\nhost: x\r\n{line}\r\n"), 414),
        ("half a head", format!("GET /v1/models HTTP/1.1\r\nhost: x\r\n{line}x: "), 408),
    ] {
        let mut client = gateway.connect();
        client.send(request.as_bytes());
        let head = client.head();
        assert_eq!(head.status, status, "{name}: {head:?}");
        // What lies beyond the bound of a head is not looked at.
        let known = name != "a target too long";
        assert_eq!(head.get("access-control-allow-origin"), known.then_some(PAGE), "{name}: {head:?}");
        let exposed = head.get("access-control-expose-headers").unwrap_or_default();
        assert_eq!(
            exposed.contains("x-request-id, ") && exposed.contains(", retry-after, "),
            known,
            "{name}: {head:?}"
        );
        assert_eq!(vary(&head), "origin", "{name}: {head:?}");
        // The same from a page that is not listed: served alike, unreadable.
        let mut client = gateway.connect();
        client.send(request.replace(PAGE, "https://evil.test").as_bytes());
        let head = client.head();
        assert_eq!((head.status, cors_lines(&head), vary(&head)), (status, vec![], "origin".to_owned()), "{name}");
    }
    assert!(origin.is_left_alone());
}

#[test]
fn relayed_answers_say_our_policy_and_not_the_providers() {
    let origin = Origin::start();
    for (name, cors, page, allowed) in [
        ("listed", LISTED, Some(PAGE), Some(PAGE)),
        ("a subdomain", LISTED, Some("https://a.example.com"), Some("https://a.example.com")),
        ("not listed", LISTED, Some("https://evil.test"), None),
        ("no browser", LISTED, None, None),
        ("all", "[cors]\norigins = [\"*\"]", Some(PAGE), Some("*")),
        ("all, no browser", "[cors]\norigins = [\"*\"]", None, Some("*")),
        ("off", "", Some(PAGE), None),
    ] {
        let gateway = gateway(&origin, cors);
        let mut headers = JSON.to_vec();
        headers.extend(page.map(|page| ("origin", page)));
        headers.push(("referer", "https://app.example/secret"));
        headers.push(("sec-fetch-mode", "cors"));
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &headers, &chat("m", false));
        let mut peer = origin.accept();
        let seen = peer.request();
        for name in ["origin", "referer", "sec-fetch-mode"] {
            assert_eq!(seen.get(name), None, "the provider need not know the page: {seen:?}");
        }
        peer.send(
            "HTTP/1.1 429 Slow\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: https://theirs\r\n\
             ACCESS-CONTROL-Expose-Headers: x-theirs\r\nVary: Accept-Encoding\r\nretry-after: 1\r\n\
             content-length: 2\r\n\r\n{}",
        );
        let head = client.response("POST").head;
        assert_eq!(head.status, 429, "{name}: {head:?}");
        assert_eq!(
            head.all("access-control-allow-origin"),
            allowed.into_iter().collect::<Vec<_>>(),
            "{name}: {head:?}"
        );
        assert_eq!(cors_lines(&head).is_empty(), allowed.is_none(), "{name}: {head:?}");
        assert!(!format!("{head:?}").contains("theirs"), "{name}: {head:?}");
        // What the provider's answer varies with still counts.
        let ours = if cors == LISTED { ", origin" } else { "" };
        assert_eq!(vary(&head), format!("Accept-Encoding{ours}"), "{name}");

        // A stream, and a failure of the provider.
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &headers, &chat("m", true));
        peer.request();
        peer.begin_stream().chunk(content("one")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        let head = client.response("POST").head;
        assert_eq!((head.status, head.get("access-control-allow-origin")), (200, allowed), "{name}: {head:?}");
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &headers, &chat("m", false));
        peer.request();
        peer.send("no HTTP at all\r\n\r\n");
        let head = client.response("POST").head;
        assert_eq!((head.status, head.get("access-control-allow-origin")), (502, allowed), "{name}: {head:?}");
    }
}

#[test]
fn credentials_are_for_listed_pages_only() {
    let origin = Origin::start();
    let gateway = gateway(&origin, &format!("{LISTED}\ncredentials = true\nprivate_network = true"));
    let mut client = gateway.connect();
    let mut headers = asked("DELETE").to_vec();
    headers.push(("access-control-request-private-network", "true"));
    let head = client.request("OPTIONS", PATH, &headers, b"").head;
    assert_eq!(head.get("access-control-allow-credentials"), Some("true"), "{head:?}");
    assert_eq!(head.get("access-control-allow-private-network"), Some("true"), "{head:?}");
    let head = client.request("GET", "/v1/models", &[JSON[0], ("origin", PAGE)], b"").head;
    assert_eq!(head.get("access-control-allow-credentials"), Some("true"), "{head:?}");
    let head = client.request("GET", "/v1/models", &[JSON[0], ("origin", "null")], b"").head;
    assert_eq!((head.status, cors_lines(&head)), (200, vec![]), "{head:?}");
    let (status, said) =
        Gateway::start_in_vain(&Config::new(&[origin.url()]).and("[cors]\norigins = [\"*\"]\ncredentials = true"));
    assert!(status.code() == Some(2) && said.contains("every page on the web"), "{said}");
}
