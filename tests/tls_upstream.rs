//! Endpoints over https: whom the gateway believes, shown with an authority of the test's own.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use common::authority::{Certificate, server_config, server_config_for_known_clients};
use common::{Authority, Client, Config, Gateway, JSON, chat};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

/// A provider over TLS that answers every request with `{"served":true}` and keeps its connections.
fn provider(certificate: Certificate, version: &'static SupportedProtocolVersion) -> SocketAddr {
    provider_of(server_config(certificate, version))
}

fn provider_of(config: Arc<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config) = (stream.expect("a client"), Arc::clone(&config));
            thread::spawn(move || {
                let session = ServerConnection::new(config).expect("a session");
                // A client that refuses the certificate ends this with an error, as it should.
                let _ = answer_all(StreamOwned::new(session, stream));
            });
        }
    });
    address
}

fn answer_all(mut stream: impl Read + Write) -> std::io::Result<()> {
    let (mut held, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&held).into_owned();
        let whole = text.split_once("\r\n\r\n").and_then(|(head, _)| {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let size = head.len() + 4 + length.unwrap_or(0);
            (held.len() >= size).then_some(size)
        });
        if let Some(size) = whole {
            held.drain(..size);
            let body = r#"{"served":true}"#;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            stream.flush()?;
            continue;
        }
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => held.extend_from_slice(&piece[..count]),
        }
    }
}

fn gateway(provider: SocketAddr, authority: Option<&Authority>) -> Gateway {
    let ca = authority.map_or(String::new(), |authority| format!("ca = \"{}\"", authority.file.display()));
    Gateway::start(&Config::new(&[format!("https://{provider}/v1")]).endpoint(&ca))
}

fn ask(client: &mut Client) -> common::Response {
    client.request("POST", "/v1/chat/completions", &JSON, &chat("any", false))
}

#[test]
fn a_certificate_is_believed_if_its_authority_name_and_time_are_right() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (name, certificate, version, trusted, status) in [
        ("good", ours.sign("127.0.0.1", false), &TLS13, Some(&ours), 200),
        ("good, TLS 1.2", ours.sign("127.0.0.1", false), &TLS12, Some(&ours), 200),
        ("expired", ours.sign("127.0.0.1", true), &TLS13, Some(&ours), 502),
        ("of another address", ours.sign("127.0.0.2", false), &TLS13, Some(&ours), 502),
        ("of another name", ours.sign("api.example.test", false), &TLS13, Some(&ours), 502),
        ("of an unknown authority", theirs.sign("127.0.0.1", false), &TLS13, Some(&ours), 502),
        ("without an authority in the config", ours.sign("127.0.0.1", false), &TLS13, None, 502),
    ] {
        let gateway = gateway(provider(certificate, version), trusted);
        let mut client = gateway.connect();
        for turn in 1..=3 {
            let response = ask(&mut client);
            assert_eq!(response.head.status, status, "{name}, turn {turn}: {}", response.text());
            match status {
                200 => assert_eq!(response.json()["served"], true, "{name}"),
                _ => {
                    assert_eq!(response.head.get("x-ringway-error-origin"), Some("upstream"), "{name}");
                    assert!(response.json()["error"]["message"].is_string(), "{name}: {}", response.text());
                }
            }
        }
    }
}

#[test]
fn an_endpoint_that_wants_a_certificate_of_ours_is_passed_over() {
    let authority = Authority::new("ours");
    for version in [&TLS12, &TLS13] {
        let demanding = server_config_for_known_clients(authority.sign("127.0.0.1", false), version, &authority);
        let demanding = provider_of(demanding);
        let lenient = provider(authority.sign("127.0.0.1", false), version);
        let urls = [demanding, lenient].map(|address| format!("https://{address}/v1"));
        let endpoint = format!("ca = {:?}", authority.file.display().to_string());
        let gateway = Gateway::start(&Config::new(&urls).endpoint(&endpoint));
        let mut client = gateway.connect();
        for turn in 1..=6 {
            let response = ask(&mut client);
            assert_eq!(response.head.status, 200, "{version:?}, turn {turn}: {}", response.text());
        }
    }
}

#[test]
fn a_kept_connection_that_went_stale_without_a_word_is_replaced() {
    let authority = Authority::new("ours");
    let config = server_config(authority.sign("127.0.0.1", false), &TLS13);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    // Answers one request, reads a second, and closes the socket without close_notify.
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = StreamOwned::new(session, tcp.expect("a client"));
            let (mut held, mut asked) = (Vec::new(), 0);
            let mut piece = [0; 4096];
            while asked < 2 {
                let count = stream.read(&mut piece).expect("a request");
                held.extend_from_slice(&piece[..count]);
                // The test's requests end with their last brace.
                if held.last() == Some(&b'}') {
                    held.clear();
                    asked += 1;
                    if asked == 1 {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").expect("a client");
                        stream.flush().expect("a client");
                    }
                }
            }
        }
    });
    let gateway = gateway(address, Some(&authority));
    let mut client = gateway.connect();
    for turn in 1..=4 {
        let response = ask(&mut client);
        assert_eq!(response.head.status, 200, "turn {turn}: {}", response.text());
    }
}

#[test]
fn an_endpoint_that_does_not_speak_tls_is_a_failure_and_no_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.expect("a client").write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let authority = Authority::new("unused");
    let response = ask(&mut gateway(address, Some(&authority)).connect());
    assert_eq!(response.head.status, 502, "{}", response.text());
}

#[test]
fn a_name_is_resolved_and_checked() {
    let ours = Authority::new("named");
    let address = provider(ours.sign("localhost", false), &TLS13);
    let ca = format!("ca = \"{}\"", ours.file.display());
    let gateway = Gateway::start(&Config::new(&[format!("https://localhost:{}/v1", address.port())]).endpoint(&ca));
    assert_eq!(ask(&mut gateway.connect()).json()["served"], true);
}

/// What the gateway and a provider that speaks both agree on, and a request over it.
fn agreed(http2: &str, offered: &[&str]) -> (Option<String>, u16) {
    let authority = Authority::new("agreeing");
    let mut config = Arc::unwrap_or_clone(server_config(authority.sign("127.0.0.1", false), &TLS13));
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let provider = listener.local_addr().expect("its address");
    let lines = format!("ca = \"{}\"\n{http2}", authority.file.display());
    let gateway = Gateway::start(&Config::new(&[format!("https://{provider}/v1")]).endpoint(&lines));
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut session = ServerConnection::new(Arc::new(config)).expect("a session");
        while session.is_handshaking() {
            session.complete_io(&mut stream).expect("a handshake");
        }
        let agreed = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        if agreed.as_deref() != Some("h2") {
            let _ = answer_all(StreamOwned::new(session, stream));
        }
        agreed
    });
    let status = ask(&mut gateway.connect()).head.status;
    drop(gateway);
    (served.join().expect("what was agreed on"), status)
}

#[test]
fn http2_is_spoken_where_it_is_offered_and_wanted() {
    let name = |name: &str| Some(name.to_owned());
    // It closes without an answer, since it only looks at what was agreed on.
    assert_eq!(agreed("", &["h2", "http/1.1"]), (name("h2"), 502));
    assert_eq!(agreed("http2 = \"auto\"", &["http/1.1", "h2"]).0, name("http/1.1"), "the provider's preference");
    assert_eq!(agreed("http2 = \"auto\"", &["http/1.1"]), (name("http/1.1"), 200));
    assert_eq!(agreed("http2 = \"auto\"", &[]), (None, 200));
    assert_eq!(agreed("http2 = \"never\"", &["h2", "http/1.1"]), (name("http/1.1"), 200));
    assert_eq!(agreed("http2 = \"prior-knowledge\"", &["h2", "http/1.1"]).0, name("h2"));
}

#[test]
fn where_http2_is_not_spoken_after_all_those_who_waited_go_on_at_once() {
    let authority = Authority::new("waiting");
    let provider = provider(authority.sign("127.0.0.1", false), &TLS13);
    let gateway = gateway(provider, Some(&authority));
    let mut clients: Vec<Client> = (0..20).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat("any", false));
    }
    for client in &mut clients {
        assert_eq!(client.response("POST").text(), r#"{"served":true}"#);
    }
}
