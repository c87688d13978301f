//! The front door: who gets in, what is asked of whom, and one interpretation of every request or a 400.

mod common;

use common::process::{KEY, PROVIDER_KEY};
use common::{Client, Config, End, Framing, Gateway, JSON, Mock, chat, metric_is};
use serde_json::{Value, json};

const FAST: &str = "mock:ttft=1ms,gap=1ms,tokens=2";

fn call(client: &mut Client, headers: &[(&str, &str)], body: &[u8]) -> common::Response {
    client.request("POST", "/v1/chat/completions", headers, body)
}

#[test]
fn it_says_where_it_listens_and_that_it_is_ready() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let lines = gateway.process.lines_until("ringway: ready");
    assert!(gateway.address().port() != 0, "{lines:?}");
    assert!(!lines.join("\n").contains("sk-test"), "{lines:?}");
}

#[test]
fn a_second_gateway_on_a_taken_port_is_refused() {
    let mock = Mock::start(&[]);
    let first = Gateway::start(&Config::new(&[mock.url()]));
    let text = Config::new(&[mock.url()]).text().replace("127.0.0.1:0", &first.address().to_string());
    let (status, said) = Gateway::start_in_vain(&Config::raw(&text));
    assert!(!status.success(), "{said}");
    assert!(said.contains(&first.address().to_string()), "{said}");
    assert_eq!(call(&mut first.connect(), &JSON, &chat(FAST, false)).head.status, 200);
}

#[test]
fn without_keys_only_loopback_or_a_listener_that_says_open_is_allowed() {
    let mock = Mock::start(&[]);
    let text = Config::new(&[mock.url()]).keys("").text();
    let open = Gateway::start(&Config::raw(&text));
    assert_eq!(call(&mut open.connect(), &JSON[1..], &chat(FAST, false)).head.status, 200);
    let wide = text.replace("127.0.0.1:0", "0.0.0.0:0");
    let (status, said) = Gateway::start_in_vain(&Config::raw(&wide));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("access"), "{said}");
    let said_open = wide.replace("0.0.0.0:0\"", "0.0.0.0:0\"\naccess = \"open\"");
    Gateway::start(&Config::raw(&said_open));
}

#[test]
fn every_error_of_a_config_is_told_at_once() {
    let (status, said) = Gateway::start_in_vain(&Config::new(&["ftp://x".into()]).and("[limitz]\nx = 1"));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("limitz") && said.contains("limits") && said.contains("url"), "{said}");
}

#[test]
fn a_key_is_asked_for_in_either_header_and_errors_have_the_shape_of_the_path() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let bearer = format!("Bearer {KEY}");
    for (name, header, status) in [
        ("bearer", Some(("authorization", bearer.as_str())), 200),
        ("x-api-key", Some(("x-api-key", KEY)), 200),
        ("none", None, 401),
        ("empty", Some(("authorization", "")), 401),
        ("another scheme", Some(("authorization", "Basic c2stdGVzdC1jbGllbnQ=")), 401),
        ("a wrong one", Some(("x-api-key", "sk-wrong")), 401),
        ("a part of it", Some(("x-api-key", &KEY[..KEY.len() - 1])), 401),
        ("the provider's", Some(("x-api-key", PROVIDER_KEY)), 401),
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let headers: Vec<_> = header.into_iter().chain([JSON[1]]).collect();
            let response = gateway.connect().request("POST", path, &headers, &chat(FAST, false));
            assert_eq!(response.head.status, status, "{name} {path}: {}", response.text());
            assert!(response.head.get("x-request-id").is_some_and(|id| !id.is_empty()), "{name}: {:?}", response.head);
            if status == 401 {
                let body = response.json();
                assert!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{name}: {body}");
                assert_eq!(body["type"] == "error", path == "/v1/messages", "{name} {path}: {body}");
                assert_eq!(response.head.get("x-ringway-error-origin"), Some("client"), "{name}");
                assert!(!response.text().contains(KEY), "{name}: {}", response.text());
            }
        }
    }
}

#[test]
fn only_the_model_is_rewritten_and_only_if_the_names_differ() {
    let mock = Mock::start(&[]);
    let route = "[[models]]\nname = \"alias\"\nroute = [{ provider = \"mock\", model = \"the-real-one\" }]\n\
                 [[models]]\nname = \"*\"\nroute = [{ provider = \"mock\" }]";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).models(route));
    // The provider sends back what is no API of its own.
    for (sent, model, expected) in [
        (r#"{ "b":1e400,"a":[ 1 ],"model" : "same", "z":"\u00e9","b":2}"#, "same", "same"),
        (r#"{ "b":1e400,"a":{"model":"alias"},"model" : "alias", "z":"\u00e9"}"#, "alias", "the-real-one"),
        ("{\n\"model\":\"alias\"\n}", "alias", "the-real-one"),
        (r#"{"x":"\"model\":\"alias\"","model":"\u0061lias"}"#, r"\u0061lias", "the-real-one"),
    ] {
        let response = gateway.connect().request("POST", "/v1/rerank", &JSON, sent.as_bytes());
        assert_eq!(response.head.status, 200, "{sent}: {}", response.text());
        let at = sent.rfind(model).expect("the model");
        let wanted = format!("{}{expected}{}", &sent[..at], &sent[at + model.len()..]);
        assert_eq!(response.text(), wanted);
    }
}

#[test]
fn what_a_route_cannot_be_read_from_is_refused() {
    let mock = Mock::start(&[]);
    let only = "[[models]]\nname = \"mock\"\nroute = [{ provider = \"mock\" }]";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).models(only));
    for (body, status, code) in [
        (r#"{"model":"gpt-none","messages":[]}"#, 404, Some("model_not_found")),
        (r#"{"model":"mock","messages":[],"model":"mock"}"#, 400, None),
        (r#"{"model":"mock","messages":[],"mod\u0065l":"other"}"#, 400, None),
        (r#"{"model":7,"messages":[]}"#, 400, None),
        (r#"{"model":"mock","messages":["#, 400, None),
        (r#"{"model":"mock"} {"model":"x"}"#, 400, None),
    ] {
        let response = call(&mut gateway.connect(), &JSON, body.as_bytes());
        assert_eq!(response.head.status, status, "{body}: {}", response.text());
        let error = &response.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{body}: {error}");
        if let Some(code) = code {
            assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!("model")), "{body}");
        }
        assert_eq!(response.head.get("x-ringway-error-origin"), Some("client"), "{body}");
    }
    assert_eq!(mock.stats("/mock/stats")["requests"], 0, "nothing of this may reach a provider");
}

#[test]
fn the_provider_sees_its_own_key_and_no_header_of_this_hop() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let headers = [
        JSON[0],
        JSON[1],
        ("x-api-key", KEY),
        ("cookie", "session=1"),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic eA=="),
        ("accept-encoding", "gzip, br"),
        ("x-custom", "kept"),
        ("openai-organization", "org-1"),
    ];
    let response = call(&mut gateway.connect(), &headers, &chat("mock:echo=on", false));
    assert_eq!(response.head.status, 200, "{}", response.text());
    let echo = response.json();
    let seen = |name: &str| -> Vec<String> {
        let headers = echo["headers"].as_array().expect("headers");
        let of_name = headers.iter().filter(|pair| pair[0].as_str().is_some_and(|own| own.eq_ignore_ascii_case(name)));
        of_name.map(|pair| pair[1].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(seen("authorization"), [format!("Bearer {PROVIDER_KEY}")], "{echo}");
    assert_eq!(seen("host"), [mock.address.to_string()], "{echo}");
    assert_eq!(seen("accept-encoding"), ["identity"], "{echo}");
    assert_eq!(seen("x-custom"), ["kept"], "{echo}");
    assert_eq!(seen("openai-organization"), ["org-1"], "{echo}");
    for gone in ["x-api-key", "cookie", "x-hop", "keep-alive", "te", "proxy-authorization"] {
        assert_eq!(seen(gone), Vec::<String>::new(), "{gone}: {echo}");
    }
    assert!(!echo.to_string().contains(KEY), "{echo}");
    assert!(!format!("{:?}", response.head).contains(PROVIDER_KEY), "{:?}", response.head);

    let messages = gateway.connect().request("POST", "/v1/messages", &JSON, &chat("mock:echo=on", false)).json();
    let text = messages["headers"].to_string();
    assert!(text.contains("x-api-key") && text.contains(PROVIDER_KEY), "{text}");
}

#[test]
fn models_are_listed_from_the_config() {
    let models = "[[models]]\nname = \"b\"\nroute = [{ provider = \"mock\" }]\n\
                  [[models]]\nname = \"a\"\nroute = [{ provider = \"mock\" }]";
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).models(models));
    let response = gateway.connect().request("GET", "/v1/models", &JSON[..1], b"");
    let body = response.json();
    assert_eq!(body["object"], "list", "{body}");
    let ids: Vec<&Value> = body["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["b", "a"]);
    assert_eq!(mock.stats("/mock/stats")["requests"], 0);
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let mut client = gateway.connect();
    for tokens in 1..=5 {
        let model = format!("mock:ttft=1ms,gap=1ms,tokens={tokens}");
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat(&model, false));
    }
    for tokens in 1..=5 {
        let response = client.response("POST");
        assert_eq!(response.json()["usage"]["completion_tokens"], tokens, "{}", response.text());
    }
}

#[test]
fn head_http_1_0_absolute_form_and_expect_are_understood() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));

    let mut client = gateway.connect();
    let head = client.request("HEAD", "/v1/models", &JSON[..1], b"");
    assert_eq!((head.head.status, head.framing), (200, Framing::None));
    assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200, "no body came after HEAD");

    let body = String::from_utf8(chat(FAST, true)).expect("UTF-8");
    let post = |line: &str, more: &str| {
        format!(
            "{line}\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/json\r\n{more}content-length: {}\r\n\r\n",
            JSON[0].1,
            body.len()
        )
    };
    let old =
        gateway.connect().send((post("POST /v1/chat/completions HTTP/1.0", "") + &body).as_bytes()).response("POST");
    assert_eq!((old.head.status, &old.framing, &old.end), (200, &Framing::Close, &End::Complete), "{}", old.text());
    assert!(old.text().ends_with("data: [DONE]\n\n"), "{}", old.text());

    let line = format!("POST http://{}/v1/chat/completions HTTP/1.1", gateway.address());
    assert_eq!(gateway.connect().send((post(&line, "") + &body).as_bytes()).response("POST").head.status, 200);

    let mut patient = gateway.connect();
    patient.send(post("POST /v1/chat/completions HTTP/1.1", "expect: 100-continue\r\n").as_bytes());
    assert_eq!(patient.head().status, 100);
    assert_eq!(patient.send(body.as_bytes()).response("POST").head.status, 200);
    patient.send(post("POST /v1/chat/completions HTTP/1.1", "expect: miracles\r\n").as_bytes());
    assert_eq!(patient.head().status, 417);
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let smuggled = "GET /v1/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    for (name, head) in [
        ("two framings", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        ("two lengths", "content-length: 5\r\ncontent-length: 6\r\n"),
        ("a list of lengths", "content-length: 5, 6\r\n"),
        ("a sign", "content-length: +5\r\n"),
        ("an unknown coding", "transfer-encoding: gzip, chunked, identity\r\n"),
        ("chunked twice", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("space before the colon", "content-length : 5\r\n"),
        ("a folded line", "x-a: 1\r\n 2\r\ncontent-length: 5\r\n"),
        ("a bare line feed", "x-a: 1\ncontent-length: 5\r\n"),
        ("a NUL", "x-a: \0\r\n"),
        ("two hosts", "host: y\r\n"),
    ] {
        let mut client = gateway.connect();
        let bytes = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n0\r\n\r\n{smuggled}");
        client.send(bytes.as_bytes());
        let response = client.response("POST");
        assert!(matches!(response.head.status, 400 | 501), "{name}: {:?}", response.head);
        assert!(client.is_closed(), "{name}: the connection goes on");
    }
    assert_eq!(mock.stats("/mock/stats")["requests"], 0, "nothing of this may reach a provider");
}

#[test]
fn every_dimension_has_a_limit_with_a_status_of_its_own() {
    let mock = Mock::start(&[]);
    let limits = "[limits]\nhead_bytes_max = 4096\nheaders_max = 20\ntarget_bytes_max = 256\nbody_bytes_max = 2048\n\
                  [client]\nhead = \"300ms\"\nbody = \"300ms\"\nrequests_max = 3";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(limits));
    let status = |bytes: String| gateway.connect().send(bytes.as_bytes()).response("GET").head.status;
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    let authorization = format!("authorization: {}\r\n", JSON[0].1);
    let many = |count: usize| (0..count).map(|at| format!("x-{at}: 1\r\n")).collect::<String>();

    assert_eq!(status(get(&format!("/v1/models?{}", "x".repeat(256 - 11)), &authorization)), 200);
    assert_eq!(status(get(&format!("/v1/models?{}", "x".repeat(257 - 11)), &authorization)), 414);
    assert_eq!(status(get("/v1/models", &(authorization.clone() + &many(18)))), 200);
    assert_eq!(status(get("/v1/models", &(authorization.clone() + &many(19)))), 431);
    assert_eq!(status(get("/v1/models", &format!("{authorization}x: {}\r\n", "y".repeat(4096)))), 431);

    let body = |size: usize| {
        let frame = r#"{"model":"mock:ttft=1ms","messages":[],"x":""}"#;
        format!("{}{}\"}}", &frame[..frame.len() - 2], "x".repeat(size - frame.len()))
    };
    assert_eq!(call(&mut gateway.connect(), &JSON, body(2048).as_bytes()).head.status, 200);
    assert_eq!(call(&mut gateway.connect(), &JSON, body(2049).as_bytes()).head.status, 413);

    // A head and a body that stop half way.
    let mut slow = gateway.connect();
    assert_eq!(slow.send(b"GET /v1/models HT").response("GET").head.status, 408);
    let mut slow = gateway.connect();
    slow.send(format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{authorization}content-type: application/json\r\ncontent-length: 9\r\n\r\n{{").as_bytes());
    assert_eq!(slow.response("POST").head.status, 408);

    let mut client = gateway.connect();
    for turn in 1..=3 {
        let response = client.request("GET", "/v1/models", &JSON[..1], b"");
        assert_eq!(response.head.get("connection") == Some("close"), turn == 3, "turn {turn}: {:?}", response.head);
    }
    assert!(client.is_closed());
}

#[test]
fn connections_above_the_bound_are_closed_and_a_place_that_is_left_is_taken_again() {
    let mock = Mock::start(&[]);
    for driver in ["deferred", "epoll"] {
        // The bound is a worker's, over all its listeners.
        let more = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[limits]\nconnections_max = 2\n[ring]\ndriver = {driver:?}"
        );
        let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&more).admin());
        let of = |at: usize| gateway.addresses[at].to_string();
        let connect = |at: usize| Client::connect(gateway.addresses[at]);
        let works = |client: &mut Client| {
            assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200, "{driver}");
        };
        let mut within = [connect(0), connect(1)];
        within.iter_mut().for_each(works);
        assert!(connect(1).is_closed(), "{driver}");
        within.iter_mut().for_each(works);
        let refused = "ringway_client_connections_refused_total";
        metric_is(&gateway, refused, &[("listener", &of(1))], 1.0);
        metric_is(&gateway, "ringway_client_connections_open", &[], 2.0);

        let [left, mut stays] = within;
        drop(left);
        metric_is(&gateway, "ringway_client_connections_open", &[], 1.0);
        let mut next = connect(0);
        works(&mut next);
        works(&mut stays);
        assert!(connect(0).is_closed(), "{driver}: one place was left, not two");
        metric_is(&gateway, refused, &[("listener", &of(0))], 1.0);
        metric_is(&gateway, refused, &[], 2.0);
        metric_is(&gateway, "ringway_client_connections_accepted_total", &[], 3.0);
    }
}

#[test]
fn an_early_answer_to_a_long_upload_reaches_the_client() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let mut client = gateway.connect();
    let size = 4 << 20;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n\r\n"
    );
    client.send(head.as_bytes());
    // No key: the answer comes before the body is sent. The upload may then break, but the answer must not be lost.
    for _ in 0..64 {
        if client.try_send(&vec![b'x'; size / 64]).is_err() {
            break;
        }
    }
    assert_eq!(client.response("POST").head.status, 401);
}

#[test]
fn an_idle_connection_is_closed_and_a_used_one_kept() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[client]\nkeep_alive = \"300ms\""));
    let mut client = gateway.connect();
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200);
    }
    assert!(client.is_closed(), "an idle connection is closed without a word");
}
