//! Providers behind an HTTP proxy, which the test plays by hand.

mod common;

use std::io::copy;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::authority::server_config;
use common::origin::{Peer, serve};
use common::websocket::{CLOSE, Frame, TEXT, frame, from_client, from_server, handshake, switched};
use common::{Authority, Client, Config, Dns, Gateway, JSON, Origin, Response, chat};
use rustls::version::TLS13;
use rustls::{ServerConnection, StreamOwned};

/// `user:p@ss`, as the URL has it and as it is sent.
const CREDENTIALS: [&str; 2] = ["user:p%40ss", "Basic dXNlcjpwQHNz"];

/// A gateway whose provider is at `url`, behind the proxy at `proxy`.
fn gateway(url: &str, proxy: SocketAddr) -> Gateway {
    Gateway::start(&config(url, &format!("http://{}@{proxy}", CREDENTIALS[0])))
}

fn config(url: &str, proxy: &str) -> Config {
    Config::new(&[url.to_owned()]).provider(&format!("proxy = \"{proxy}\"")).and("[timers]\nconnect = \"2s\"")
}

fn begin(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
    client
}

/// What the client is told when the proxy does as `play` does.
fn told(gateway: &Gateway, proxy: &Origin, play: impl FnOnce(Peer)) -> Response {
    let mut client = begin(gateway);
    let mut peer = proxy.accept();
    assert_eq!(peer.head().line, "CONNECT api.test:8000 HTTP/1.1");
    play(peer);
    client.response("POST")
}

#[test]
fn an_http_provider_is_reached_through_a_tunnel_and_its_name_is_the_proxys_to_resolve() {
    let (proxy, dns) = (Origin::start(), Dns::start());
    dns.has("proxy.test", &["127.0.0.1"]);
    let gateway = Gateway::start(
        &config("http://api.test:8000/v1", &format!("http://{}@proxy.test:{}/", CREDENTIALS[0], proxy.address.port()))
            .and(&format!("[resolver]\nservers = [\"{}\"]", dns.address.to_string().as_str())),
    );
    let mut client = gateway.connect();
    let mut tunnel = None;
    for round in 0..2 {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
        let peer = tunnel.get_or_insert_with(|| {
            let mut peer = proxy.accept();
            let asked = peer.head();
            assert_eq!(asked.line, "CONNECT api.test:8000 HTTP/1.1");
            let headers = asked.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let expected = [("host", "api.test:8000"), ("proxy-authorization", CREDENTIALS[1])];
            assert_eq!(headers.collect::<Vec<_>>(), expected);
            peer.send("HTTP/1.0 200 Connection established\r\nvia: test\r\n\r\n");
            peer
        });
        let request = peer.request();
        assert_eq!(
            (request.line.as_str(), request.get("host")),
            ("POST /v1/chat/completions HTTP/1.1", Some("api.test:8000"))
        );
        assert_eq!(request.get("proxy-authorization"), None, "the provider is not told");
        peer.answer("{}");
        assert_eq!(client.response("POST").head.status, 200, "round {round}");
    }
    assert!(proxy.is_left_alone(), "the tunnel is kept");
    assert_eq!(dns.asked("api.test", false), 0);
}

#[test]
fn an_agreement_may_come_in_many_ways_and_ends_with_its_head() {
    let proxy = Origin::start();
    let gateway = gateway("http://api.test:8000/v1", proxy.address);
    // A length or coding of a 2xx to CONNECT means nothing.
    for agreed in ["HTTP/1.1 200 Yes\r\n\r\n", "HTTP/1.1 299 Yes\r\ncontent-length: 5\r\n\r\n"] {
        let response = told(&gateway, &proxy, |mut peer| {
            peer.send(agreed);
            peer.request();
            peer.answer("{}");
        });
        assert_eq!((response.head.status, response.text().as_str()), (200, "{}"), "{agreed}");
    }
    // Interim answers, and an agreement that comes a byte at a time.
    let response = told(&gateway, &proxy, |mut peer| {
        for byte in "HTTP/1.1 100 Wait\r\n\r\n".repeat(32).bytes().chain("HTTP/1.1 200 Yes\r\n\r\n".bytes()) {
            peer.send([byte]);
        }
        peer.request();
        peer.answer("{}");
    });
    assert_eq!(response.head.status, 200, "{}", response.text());
}

#[test]
fn a_proxy_that_fails_is_told_from_a_provider_and_no_credentials_are_shown() {
    let proxy = Origin::start();
    let gateway = gateway("http://api.test:8000/v1", proxy.address);
    let long = |bytes: usize| {
        let rest = bytes - "HTTP/1.1 403 No\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 403 No\r\nx: {}\r\n\r\n", "a".repeat(rest))
    };
    for (sent, words) in [
        ("HTTP/1.1 407 Who?\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n".to_owned(), "status 407"),
        ("HTTP/1.1 403 No\r\ncontent-length: 4\r\n\r\nevil".to_owned(), "its proxy refused with status 403"),
        ("HTTP/1.1 302 Elsewhere\r\nlocation: http://evil.test/\r\n\r\n".to_owned(), "status 302"),
        ("HTTP/1.1 101 Other\r\n\r\n".to_owned(), "status 101"),
        ("HTTP/1.1 504 Late\r\n\r\n".to_owned(), "status 504"),
        ("HTTP/1.1 100 Wait\r\n\r\n".repeat(33), "too many interim answers"),
        ("SSH-2.0-OpenSSH_9\r\n".to_owned(), "its proxy: "),
        (String::new(), "its proxy closed the connection"),
        ("HTTP/1.1 200 Yes\r\n".to_owned(), "its proxy closed the connection"),
        ("HTTP/1.1 502 Bad\r\n\r\n".to_owned(), "status 502"),
        ("HTTP/1.1 200 Yes\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(), "behind its agreement"),
        (long(16 << 10), "status 403"),
        (long((16 << 10) + 1), "longer than allowed"),
        (format!("HTTP/1.1 200 Yes\r\nx: {}", "a".repeat(17 << 10)), "longer than allowed"),
    ] {
        let response = told(&gateway, &proxy, |mut peer| {
            let _ = peer.try_send(&sent);
        });
        let text = response.text();
        assert_eq!(response.head.status, 502, "{words}: {text}");
        assert_eq!(response.json()["error"]["code"], "proxy_failed", "{text}");
        assert_eq!(response.head.get("x-ringway-error-origin"), Some("upstream"));
        assert!(text.contains(words), "{words}: {text}");
        assert!(!text.contains("evil") && !text.contains("p@ss") && !text.contains(CREDENTIALS[1]), "{text}");
    }
    let lines = gateway.process.lines().join("\n");
    assert!(!lines.contains("ss@") && !lines.contains("dXNlcjpwQHNz"), "{lines}");
}

#[test]
fn a_proxy_that_is_silent_or_gone_costs_the_connect_timer_at_most() {
    let proxy = Origin::start();
    let gateway = gateway("http://api.test:8000/v1", proxy.address);
    for said in ["", "HTTP/1.1 200 Y"] {
        let start = Instant::now();
        let mut client = begin(&gateway);
        let mut peer = proxy.accept();
        peer.head();
        peer.send(said);
        let response = client.response("POST");
        assert_eq!(response.head.status, 504, "{}", response.text());
        assert!(
            response.text().contains("(behind a proxy) could not be connected to within 2s"),
            "{}",
            response.text()
        );
        assert!(start.elapsed() >= Duration::from_secs(2));
        // And the connection goes with the request.
        peer.ended();
    }
    drop(proxy);
    let response = begin(&gateway).response("POST");
    assert_eq!(response.head.status, 502, "{}", response.text());
    assert!(response.text().contains("its proxy: Connection refused"), "{}", response.text());
}

#[test]
fn an_endpoint_whose_proxy_refuses_is_passed_over() {
    let (proxy, provider) = (Origin::start(), Origin::start());
    let next = format!("[[providers.endpoints]]\nurl = \"{}\"\nproxy = \"none\"", provider.url());
    let gateway =
        Gateway::start(&config("http://api.test:8000/v1", &format!("http://{}", proxy.address)).endpoint(&next));
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    proxy.serve(move |mut peer| {
        peer.head();
        count.fetch_add(1, Ordering::SeqCst);
        peer.send("HTTP/1.1 403 No\r\n\r\n");
    });
    provider.serve(|mut peer| {
        while peer.next_request().is_some() {
            peer.answer("{}");
        }
    });
    let mut client = gateway.connect();
    // Which of the two is asked first is a matter of chance.
    for _ in 0..50 {
        client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
        assert_eq!(client.response("POST").head.status, 200);
    }
    assert!(refused.load(Ordering::SeqCst) > 0);
}

#[test]
fn which_endpoint_goes_through_which_proxy() {
    let provider = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let direct = provider.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in provider.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream, "{\"way\":\"direct\"}", false));
        }
    });
    let proxy = Origin::start();
    let at = format!("http://{}", proxy.address);
    for (name, of_provider, of_endpoint, env, proxied) in [
        ("none", "none", None, [("http_proxy", at.as_str()), ("no_proxy", "")], false),
        ("the provider's", at.as_str(), None, [("http_proxy", ""), ("no_proxy", "*")], true),
        ("the endpoint's own", at.as_str(), Some("none"), [("http_proxy", ""), ("no_proxy", "")], false),
        ("the environment's", "env", None, [("http_proxy", at.as_str()), ("no_proxy", "")], true),
        ("not upper case", "env", None, [("HTTP_PROXY", at.as_str()), ("no_proxy", "")], false),
        ("excepted", "env", None, [("http_proxy", at.as_str()), ("no_proxy", "127.0.0.0/8")], false),
    ] {
        let lines = of_endpoint.map_or(String::new(), |proxy| format!("proxy = \"{proxy}\""));
        let config = config(&format!("http://{direct}/v1"), of_provider).endpoint(&lines);
        let gateway = Gateway::start_by(&config, |command| {
            command.env_remove("http_proxy").env_remove("HTTP_PROXY").envs(env);
        });
        let mut client = begin(&gateway);
        if proxied {
            let mut peer = proxy.accept();
            assert_eq!(peer.head().line, format!("CONNECT {direct} HTTP/1.1"), "{name}");
            peer.send("HTTP/1.1 200 Yes\r\n\r\n").request();
            peer.answer("{\"way\":\"proxy\"}");
        }
        let way = if proxied { "proxy" } else { "direct" };
        assert_eq!(client.response("POST").json()["way"], way, "{name}");
        assert!(proxy.is_left_alone(), "{name}");
    }
}

#[test]
fn a_websocket_goes_through_a_tunnel_of_its_own() {
    const PATH: &str = "/v1/realtime?model=m";
    let proxy = Origin::start();
    let gateway = gateway("http://api.test:8000/v1", proxy.address);
    let ask = || {
        let mut client = gateway.connect();
        client.send(handshake(PATH, "").as_bytes());
        let mut peer = proxy.accept();
        assert_eq!(peer.head().line, "CONNECT api.test:8000 HTTP/1.1");
        (client, peer)
    };
    // Two at once: none takes the other's tunnel.
    let mut open: Vec<(Client, Peer)> = (0..2)
        .map(|_| {
            let (mut client, mut peer) = ask();
            // A frame that is sent ahead is not for the proxy.
            client.send(&frame(true, TEXT, b"early"));
            peer.send("HTTP/1.1 200 Yes\r\n\r\n");
            let request = peer.head();
            assert_eq!(request.line, "GET /v1/realtime?model=m HTTP/1.1");
            assert_eq!((request.get("host"), request.get("proxy-authorization")), (Some("api.test:8000"), None));
            peer.send(switched(&request, ""));
            assert_eq!(client.head().status, 101);
            assert_eq!(from_client(&mut peer), Frame(TEXT, b"early".to_vec()));
            (client, peer)
        })
        .collect();
    for (client, peer) in &mut open {
        peer.send(frame(false, TEXT, b"back"));
        assert_eq!(from_server(client), Frame(TEXT, b"back".to_vec()));
        let close = 1000_u16.to_be_bytes();
        client.send(&frame(true, CLOSE, &close));
        assert_eq!(from_client(peer), Frame(CLOSE, close.to_vec()));
        peer.send(frame(false, CLOSE, &close));
        assert_eq!(from_server(client), Frame(CLOSE, close.to_vec()));
        assert!(client.is_closed());
        peer.ended();
    }
    // A tunnel that is refused, or in which nothing is said, is no WebSocket.
    for (sent, status, code) in [
        ("HTTP/1.1 403 No\r\n\r\n", 502, "proxy_failed"),
        ("HTTP/1.1 200 Yes\r\n\r\nHTTP/1.1 101 S\r\n\r\n", 502, "proxy_failed"),
        ("", 504, "connect_timeout"),
    ] {
        let (mut client, mut peer) = ask();
        peer.send(sent);
        let response = client.response("GET");
        assert_eq!((response.head.status, &response.json()["error"]["code"]), (status, &code.into()), "{sent}");
        peer.ended();
    }
    // Who leaves takes the tunnel along.
    let (client, mut peer) = ask();
    drop(client);
    peer.ended();
}

/// A proxy that does its work: one tunnel to `target`, whatever name was asked for.
fn tunnel_to(target: SocketAddr) -> (SocketAddr, thread::JoinHandle<String>) {
    let proxy = Origin::start();
    let address = proxy.address;
    let asked = thread::spawn(move || {
        let mut peer = proxy.accept();
        let line = peer.head().line;
        peer.send("HTTP/1.1 200 Yes\r\n\r\n");
        let near = peer.socket().try_clone().expect("a socket");
        let far = TcpStream::connect(target).expect("the provider");
        let (mut near_too, mut far_too) = (near.try_clone().expect("a socket"), far.try_clone().expect("a socket"));
        thread::spawn(move || copy(&mut &near, &mut far_too));
        thread::spawn(move || copy(&mut &far, &mut near_too));
        line
    });
    (address, asked)
}

#[test]
fn tls_is_spoken_with_the_provider_inside_the_tunnel() {
    for (certified, status) in [("api.test", 200), ("other.test", 502)] {
        let authority = Authority::new("proxied");
        let server = server_config(authority.sign(certified, false), &TLS13);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let provider = listener.local_addr().expect("its address");
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the proxy");
            let session = ServerConnection::new(server).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            let mut request = [0; 4096];
            // A gateway that refuses the certificate ends this with an error, as it should.
            if std::io::Read::read(&mut stream, &mut request).is_ok() {
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            }
        });
        let (proxy, asked) = tunnel_to(provider);
        let ca = format!("ca = \"{}\"", authority.file.display());
        let gateway = Gateway::start(&config("https://api.test/v1", &format!("http://{proxy}")).endpoint(&ca));
        let response = begin(&gateway).response("POST");
        assert_eq!(response.head.status, status, "{certified}: {}", response.text());
        assert_eq!(asked.join().expect("asked"), "CONNECT api.test:443 HTTP/1.1");
    }
}
