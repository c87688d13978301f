//! What passes between a client and its provider, and what does not, against a provider played by hand.

mod common;

use std::sync::Barrier;

use common::origin::{DONE, FINISH, ROLE, content};
use common::process::{KEY, PROVIDER_KEY};
use common::{Config, End, Framing, Gateway, JSON, Origin, chat, metric, metric_is};

const PATH: &str = "/v1/chat/completions";

fn gateway(origin: &Origin) -> Gateway {
    Gateway::start(&Config::new(&[origin.url()]))
}

fn renaming(origin: &Origin) -> Gateway {
    let route = "[[models]]\nname = \"*\"\nroute = [{ provider = \"mock\", model = \"the-provider's-own\" }]";
    Gateway::start(&Config::new(&[origin.url()]).models(route))
}

#[test]
fn a_connection_that_went_stale_is_replaced_once_and_only_once() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    for method in ["POST", "GET"] {
        let path = if method == "POST" { PATH } else { "/v1/files/f-1" };
        let body = if method == "POST" { chat("m", false) } else { Vec::new() };
        let mut client = gateway.connect();
        client.send_request(method, path, &JSON, &body);
        let mut kept = origin.accept();
        let first = kept.request();
        kept.answer("{}");
        assert_eq!(client.response(method).head.status, 200);

        // Closed after the second request was read: no look at the idle connection can have told.
        client.send_request(method, path, &JSON, &body);
        assert_eq!(kept.request().body, first.body);
        drop(kept);
        let mut fresh = origin.accept();
        assert_eq!(fresh.request().body, first.body, "{method}: the repeat is the same request");
        fresh.answer("{\"n\":2}");
        assert_eq!(client.response(method).text(), "{\"n\":2}");

        // Again, but this time the fresh one closes as well: there is no third.
        client.send_request(method, path, &JSON, &body);
        fresh.request();
        fresh.reset();
        let mut last = origin.accept();
        last.request();
        drop(last);
        let response = client.response(method);
        assert_eq!((response.head.status, response.json()["error"]["code"].as_str()), (502, Some("upstream_failed")));
        assert!(origin.is_left_alone(), "{method}: asked a third time");
    }
}

#[test]
fn an_answer_that_has_begun_is_never_asked_for_again() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    for begun in [
        "H",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut kept = origin.accept();
        kept.request();
        kept.answer("{}");
        client.response("POST");
        client.send_request("POST", PATH, &JSON, &chat("m", false));
        kept.request();
        kept.send(begun);
        drop(kept);
        let response = client.response("POST");
        assert_eq!(response.head.status, 502, "{begun:?}: {}", response.text());
        assert_eq!(response.head.get("x-ringway-error-origin"), Some("upstream"), "{begun:?}");
        assert!(origin.is_left_alone(), "{begun:?}: asked again");
    }
}

#[test]
fn a_malformed_answer_is_a_502_in_the_dialect_of_the_path() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        for path in [PATH, "/v1/messages"] {
            let mut client = gateway.connect();
            client.send_request("POST", path, &JSON, &chat("m", true));
            let mut peer = origin.accept();
            peer.request();
            peer.send(answer);
            let response = client.response("POST");
            assert_eq!(response.head.status, 502, "{answer:?}: {}", response.text());
            let body = response.json();
            assert!(body["error"]["message"].is_string(), "{answer:?}: {body}");
            assert_eq!(body["type"] == "error", path == "/v1/messages", "{answer:?}: {body}");
            // The client's connection is none the worse for it.
            assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200, "{answer:?}");
            peer.ended();
        }
    }
}

#[test]
fn a_form_is_sent_on_with_the_providers_name_for_the_model_and_nothing_else_changed() {
    let origin = Origin::start();
    let gateway = renaming(&origin);
    let file = |size: usize| {
        let data = "\u{1}\r\n-".repeat(size / 4);
        format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{data}\r\n")
    };
    let model = |name: &str| format!("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{name}\r\n");
    for (name, before, after) in [
        ("the model first", 0, 4),
        ("a file first", 4, 0),
        ("a large file first", 300_000, 0),
        ("a large file last", 0, 900_000),
    ] {
        for chunked in [false, true] {
            let form = |model_name: &str| format!("{}{}{}--b--\r\n", file(before), model(model_name), file(after));
            let body = form("whisper");
            let mut client = gateway.connect();
            let framing = match chunked {
                true => "transfer-encoding: chunked".to_owned(),
                false => format!("content-length: {}", body.len()),
            };
            client.send(
                format!(
                    "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
                     content-type: multipart/form-data; boundary=b\r\n{framing}\r\n\r\n",
                    JSON[0].1
                )
                .as_bytes(),
            );
            let sent = match chunked {
                true => body
                    .as_bytes()
                    .chunks(50_000)
                    .fold(Vec::new(), |mut sent, chunk| {
                        sent.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                        sent.extend_from_slice(chunk);
                        sent.extend_from_slice(b"\r\n");
                        sent
                    })
                    .into_iter()
                    .chain(*b"0\r\n\r\n")
                    .collect(),
                false => body.clone().into_bytes(),
            };
            // Both ends in one thread: what the sockets do not hold must be read while it is sent.
            let mut out = client.socket().try_clone().expect("the socket");
            let sender = std::thread::spawn(move || std::io::Write::write_all(&mut out, &sent).expect("it is read"));
            let mut peer = origin.accept();
            let seen = peer.request();
            sender.join().expect("sent");
            assert!(seen.text() == form("the-provider's-own"), "{name}, chunked: {chunked}");
            assert_eq!(seen.get("content-type"), Some("multipart/form-data; boundary=b"));
            peer.answer("{\"text\":\"\"}");
            assert_eq!(client.response("POST").head.status, 200, "{name}");
        }
    }
}

#[test]
fn a_query_can_name_the_model() {
    let origin = Origin::start();
    let gateway = renaming(&origin);
    let mut client = gateway.connect();
    client.send_request("GET", "/v1/files?a=%20&model=x%2Dy&b=", &JSON[..1], b"");
    let mut peer = origin.accept();
    let line = peer.request().line;
    assert!(line.starts_with("GET /v1/files?a=%20&model=the-provider") && line.ends_with("&b= HTTP/1.1"), "{line}");
    peer.answer("{}");
    assert_eq!(client.response("GET").head.status, 200);
}

#[test]
fn a_model_that_a_key_may_not_use_does_not_reach_the_provider_behind_one_that_it_may() {
    let origin = Origin::start();
    let key = "[[keys]]\nname = \"test\"\nsecret = { env = \"RINGWAY_TEST_KEY\" }\nmodels = [\"allowed\"]";
    let models = ["allowed", "forbidden"]
        .map(|name| format!("[[models]]\nname = \"{name}\"\nroute = [{{ provider = \"mock\" }}]\n"));
    let gateway = Gateway::start(&Config::new(&[origin.url()]).keys(key).models(&models.concat()));
    let text = ("content-type", "text/plain");
    let json = ("content-type", "application/json");
    let form = ("content-type", "multipart/form-data; boundary=b");
    let body = |model: &str| format!("{{\"model\":\"{model}\"}}");
    let part =
        |model: &str| format!("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n");
    let files = "/v1/audio/transcriptions?model=allowed";
    let chat = "/v1/chat/completions?model=allowed";
    for (name, path, types, body, status, code) in [
        ("as plain text", PATH, &[text][..], body("forbidden"), 403, "model_not_allowed"),
        ("as plain text with a query", chat, &[text], body("forbidden"), 400, "duplicate_field"),
        ("on an escaped path", "/v1/%63hat/completions", &[text], body("forbidden"), 403, "model_not_allowed"),
        ("in the body", chat, &[json], body("forbidden"), 400, "duplicate_field"),
        ("in a form", files, &[form], part("forbidden"), 400, "duplicate_field"),
        ("in a form's clothes", chat, &[form], body("forbidden"), 400, "invalid_multipart"),
        ("under two types", chat, &[text, json], body("allowed"), 400, "malformed_request"),
    ] {
        let headers = [&JSON[..1], types].concat();
        let response = gateway.connect().request("POST", path, &headers, body.as_bytes());
        let told = response.json()["error"].clone();
        assert_eq!((response.head.status, told["code"].as_str()), (status, Some(code)), "{name}: {told}");
        if status == 400 && !matches!(code, "malformed_request" | "invalid_multipart") {
            assert_eq!(told["param"], "model", "{name}");
        }
    }
    assert!(origin.is_left_alone(), "none of these may reach the provider");

    // Said twice but alike, or as text, the model that is allowed passes.
    for (path, types, body) in
        [(chat, json, body("allowed")), (PATH, text, body("allowed")), (files, form, part("allowed"))]
    {
        let mut client = gateway.connect();
        client.send_request("POST", path, &[JSON[0], types], body.as_bytes());
        let mut peer = origin.accept();
        let seen = peer.request();
        assert_eq!((seen.text(), seen.get("content-type")), (body, Some(types.1)), "{path}");
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        assert_eq!(client.response("POST").head.status, 200, "{path}");
    }
}

#[test]
fn an_upload_in_chunks_is_framed_anew_and_keeps_its_trailers() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    client.send(
        format!(
            "POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
             trailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n",
            JSON[0].1
        )
        .as_bytes(),
    );
    let mut peer = origin.accept();
    let head = peer.head();
    assert_eq!((head.get("transfer-encoding"), head.get("content-length")), (Some("chunked"), None), "{head:?}");
    client.send(b"000A\r\n0123456789\r\n0;z\r\nx-sum: 7\r\ncontent-length: 1\r\n\r\n");
    let sent = b"3\r\nabc\r\na\r\n0123456789\r\n0\r\nx-sum: 7\r\n\r\n";
    let seen = peer.take(sent.len());
    assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(sent));
    peer.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);
}

#[test]
fn an_endpoint_that_answers_before_an_upload_has_ended_is_heard() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    client.send(
        format!(
            "POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/octet-stream\r\n\
             content-length: 100000000\r\n\r\n0123456789",
            JSON[0].1
        )
        .as_bytes(),
    );
    let mut peer = origin.accept();
    peer.head();
    peer.send("HTTP/1.1 413 Too Much\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nmuch");
    let response = client.response("POST");
    assert_eq!((response.head.status, response.text().as_str()), (413, "much"));
    assert_eq!(response.head.get("connection"), Some("close"), "the rest of the body cannot be told from a request");
    assert_eq!(response.head.get("x-ringway-error-origin"), Some("upstream"));
    drop(client);
    peer.ended();
}

#[test]
fn expect_is_answered_by_the_gateway_and_not_passed_on() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    let body = chat("m", false);
    client.send(
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            JSON[0].1,
            body.len()
        )
        .as_bytes(),
    );
    assert_eq!(client.head().status, 100);
    client.send(&body);
    let mut peer = origin.accept();
    let seen = peer.request();
    assert_eq!((seen.get("expect"), &seen.body), (None, &body));
    peer.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);
}

#[test]
fn an_answer_to_head_tells_its_length_and_has_no_body() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    let mut peer = None;
    for (kind, length) in [("application/json", "content-length: 1234\r\n"), ("text/event-stream", "")] {
        client.send_request("HEAD", "/v1/files/f-1", &JSON[..1], b"");
        let peer = peer.get_or_insert_with(|| origin.accept());
        assert!(peer.request().line.starts_with("HEAD /v1/files/f-1 "));
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n"));
        let response = client.response("HEAD");
        assert_eq!((response.head.status, response.framing), (200, Framing::None), "{kind}");
        let told = response.head.get("content-length");
        assert_eq!(told, (!length.is_empty()).then_some("1234"), "{kind}");
    }
}

#[test]
fn usage_is_asked_for_where_the_provider_allows_and_shown_to_who_asked() {
    let origin = Origin::start();
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    for allowed in [true, false] {
        let gateway = Gateway::start(&Config::new(&[origin.url()]).provider(&format!("include_usage = {allowed}")));
        for (asked, options) in [
            (false, ""),
            (false, r#","stream_options":null"#),
            (false, r#","stream_options":{}"#),
            (false, r#","stream_options":{"x":1,"include_usage":false}"#),
            (true, r#","stream_options":{"include_usage":true}"#),
        ] {
            let sent = format!(r#"{{ "model":"m","stream":true{options} , "z" : 1e400 }}"#);
            let mut client = gateway.connect();
            client.send_request("POST", PATH, &JSON, sent.as_bytes());
            let mut peer = origin.accept();
            let seen = peer.request().text();
            if allowed && !asked {
                assert!(seen.contains(r#""include_usage":true"#), "{seen}");
                assert_eq!(seen.matches("stream_options").count(), 1, "{seen}");
                assert!(seen.ends_with(r#" , "z" : 1e400 }"#), "{seen}");
            } else {
                assert_eq!(seen, sent);
            }
            peer.begin_stream().chunk(ROLE).chunk(content("a")).chunk(FINISH).chunk(usage).chunk(DONE);
            peer.send("0\r\n\r\n");
            drop(peer);
            let response = client.response("POST");
            // Without our asking nothing is taken out, whatever the client said.
            let shown = if asked || !allowed { usage } else { "" };
            assert_eq!(response.text(), format!("{ROLE}{}{FINISH}{shown}{DONE}", content("a")), "{allowed} {options}");
            assert_eq!(response.end, End::Complete);
        }
    }
}

#[test]
fn what_a_provider_says_to_this_hop_or_of_itself_does_not_reach_the_client() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    let mut client = gateway.connect();
    let mut headers = JSON.to_vec();
    headers.extend([("x-request-id", "my-own.id"), ("X-Ringway-Error-Origin", "client"), ("x-ringway-debug", "1")]);
    headers.extend([("api-key", KEY), ("x-goog-api-key", KEY), ("Connection", "X-Secret"), ("x-secret", "1")]);
    client.send_request("POST", PATH, &headers, &chat("m", false));
    let mut peer = origin.accept();
    let seen = peer.request();
    assert_eq!(seen.get("x-request-id"), Some("my-own.id"), "{seen:?}");
    assert_eq!(seen.get("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()), "{seen:?}");
    let gone = ["x-ringway-error-origin", "x-ringway-debug", "api-key", "x-goog-api-key", "x-secret", "connection"];
    for name in gone {
        assert_eq!(seen.get(name), None, "{name}: {seen:?}");
    }
    assert!(!format!("{seen:?}").contains(KEY), "{seen:?}");
    peer.send(
        "HTTP/1.1 200 Fine\r\nContent-Type: application/json\r\nSet-Cookie: a=b\r\nAlt-Svc: h3\r\n\
         Strict-Transport-Security: max-age=1\r\nConnection: keep-alive, x-inner\r\nKeep-Alive: timeout=5\r\n\
         X-Inner: 1\r\nX-Request-Id: theirs\r\nX-Ringway-Error-Origin: gateway\r\nProxy-Authenticate: Basic\r\n\
         Upgrade: h2c\r\nRetry-After: 7\r\nx-ratelimit-remaining-requests: 9\r\nOpenAI-Processing-Ms: 5\r\n\
         transfer-encoding: chunked\r\nTrailer: x-cost\r\n\r\n2\r\n{}\r\n0\r\nx-cost: 3\r\n\r\n",
    );
    let response = client.response("POST");
    for name in [
        "set-cookie",
        "alt-svc",
        "strict-transport-security",
        "keep-alive",
        "x-inner",
        "x-ringway-error-origin",
        "proxy-authenticate",
        "upgrade",
    ] {
        assert_eq!(response.head.get(name), None, "{name}: {:?}", response.head);
    }
    for (name, value) in [
        ("retry-after", "7"),
        ("x-ratelimit-remaining-requests", "9"),
        ("openai-processing-ms", "5"),
        ("x-request-id", "my-own.id"),
        ("x-ringway-upstream-request-id", "theirs"),
    ] {
        assert_eq!(response.head.all(name), [value], "{:?}", response.head);
    }
    assert_eq!(response.text(), "{}");

    // An id that could not be a log field is not taken over, and one of our own is made.
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &[JSON[0], JSON[1], ("x-request-id", "a b")], &chat("m", false));
    let id = peer.request().get("x-request-id").expect("an id").to_owned();
    assert_eq!(id.len(), 32, "{id}");
    peer.answer("{}");
    assert_eq!(client.response("POST").head.get("x-request-id"), Some(id.as_str()));
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains(KEY) && !said.contains(PROVIDER_KEY), "{said}");
}

#[test]
fn the_key_goes_where_the_config_says() {
    let origin = Origin::start();
    for (auth, path, name, value) in [
        ("bearer", "/v1/messages", "authorization", format!("Bearer {PROVIDER_KEY}")),
        ("x-api-key", PATH, "x-api-key", PROVIDER_KEY.to_owned()),
        ("auto", "/v1/messages", "x-api-key", PROVIDER_KEY.to_owned()),
        ("auto", PATH, "authorization", format!("Bearer {PROVIDER_KEY}")),
    ] {
        let gateway = Gateway::start(&Config::new(&[origin.url()]).provider(&format!("auth = \"{auth}\"")));
        let mut client = gateway.connect();
        client.send_request("POST", path, &JSON, &chat("m", false));
        let mut peer = origin.accept();
        let seen = peer.request();
        let keys: Vec<_> = ["authorization", "x-api-key"].iter().filter(|name| seen.get(name).is_some()).collect();
        assert_eq!((keys, seen.get(name)), (vec![&name], Some(value.as_str())), "{auth} {path}");
        peer.answer("{}");
        client.response("POST");
    }
}

#[test]
fn two_endpoints_share_the_work_and_two_dead_ones_are_a_502_at_once() {
    let (one, other) = (Origin::start(), Origin::start());
    let both = Gateway::start(&Config::new(&[one.url(), other.url()]));
    let mut waiting = Vec::new();
    let mut seen = [0, 0];
    for _ in 0..20 {
        let mut client = both.connect();
        client.send_request("POST", PATH, &JSON, &chat("m", false));
        // Only one of them is asked: the one with fewer requests outstanding.
        let (at, peer) = loop {
            match [&one, &other].iter().position(|origin| !origin.is_left_alone()) {
                Some(at) => break (at, [&one, &other][at].accept()),
                None => std::thread::yield_now(),
            }
        };
        seen[at] += 1;
        waiting.push((client, peer));
    }
    assert_eq!(seen, [10, 10], "requests go where fewer are outstanding");

    let dead = [one.url(), other.url()];
    drop((one, other, waiting));
    let neither = Gateway::start(&Config::new(&dead));
    let began = std::time::Instant::now();
    let response = neither.connect().request("POST", PATH, &JSON, &chat("m", true));
    assert_eq!((response.head.status, response.json()["error"]["code"].as_str()), (502, Some("upstream_unreachable")));
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "a refusal needs no connect timer");
}

#[test]
fn an_endpoint_that_answers_an_upload_and_closes_is_heard() {
    let origin = Origin::start();
    let gateway = gateway(&origin);
    // Far more than sockets hold, so that the gateway is still writing when the connection breaks.
    let body = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "y".repeat(24 << 20));
    let mut client = gateway.connect();
    let mut out = client.socket().try_clone().expect("the socket");
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n{body}",
        JSON[0].1,
        body.len()
    );
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut out, request.as_bytes()).expect("read"));
    let mut peer = origin.accept();
    peer.head();
    peer.send("HTTP/1.1 413 Too Much\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nmuch");
    // With the body unread, this is an RST.
    drop(peer);
    let response = client.response("POST");
    assert_eq!((response.head.status, response.text().as_str()), (413, "much"), "{:?}", response.head);
    sender.join().expect("sent");
}

#[test]
fn taking_one_kept_connection_leaves_the_others() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin());
    // Nobody is answered before all three have asked, so each needs a connection of its own.
    let all = Barrier::new(3);
    origin.serve(move |mut peer| {
        while peer.next_request().is_some() {
            all.wait();
            peer.answer("{}");
        }
    });
    let mut clients: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    for round in 0..4 {
        for client in &mut clients {
            client.send_request("POST", PATH, &JSON, &chat("m", false));
        }
        for client in &mut clients {
            assert_eq!(client.response("POST").head.status, 200, "round {round}");
        }
        metric_is(&gateway, "ringway_upstream_connections_idle", &[], 3.0);
    }
    assert_eq!(metric(&gateway, "ringway_upstream_connections_opened_total", &[]), 3.0);
    assert_eq!(metric(&gateway, "ringway_upstream_connections_reused_total", &[]), 9.0);
}

#[test]
fn idle_connections_make_room_for_one_that_must_be_fresh() {
    let origin = Origin::start();
    let pool = "[pool]\nconnections_max = 1\nidle_max = 1";
    let gateway = Gateway::start(&Config::new(&[origin.url()]).and(pool));
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &JSON, &chat("m", false));
    let mut kept = origin.accept();
    kept.request();
    kept.answer("{}");
    client.response("POST");

    // A body that is streamed cannot be sent twice, so it gets no used connection.
    let upload = [JSON[0], ("content-type", "audio/wav")];
    client.send(format!("POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n", JSON[0].1).as_bytes());
    client.send(b"content-type: audio/wav\r\ncontent-length: 8\r\n\r\nRIFF");
    let mut fresh = origin.accept();
    fresh.head();
    kept.ended();

    // Now the one that there may be is in use.
    let response = gateway.connect().request("POST", "/v1/files", &upload, b"RIFF");
    assert_eq!(response.head.status, 503, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "upstream_connections_exhausted");
    assert_eq!(response.head.get("retry-after"), Some("1"));

    client.send(b"WAVE");
    assert_eq!(fresh.take(8), b"RIFFWAVE");
    fresh.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);
}
