//! HTTPS to clients: what rustls, curl and openssl get as independent clients, and what strangers get.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::https::{BOTH, client, client_as};
use common::origin::{DONE, FINISH, content};
use common::pem::{Ca, Folder};
use common::{Config, Ended, Gateway, Https, JSON, Origin, PATIENCE, chat, metric, metric_is};
use rustls::HandshakeKind;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};

const PATH: &str = "/v1/chat/completions";
const DRIVERS: [&str; 2] = ["deferred", "epoll"];

/// A gateway with HTTPS, its provider, and the authority behind its certificate.
struct World {
    gateway: Gateway,
    origin: Origin,
    authority: Ca,
    folder: Folder,
}

impl World {
    /// `tls` is added to the listener's table, `more` to the end of the file.
    fn new(tls: &str, more: &str) -> World {
        World::with(tls, |config| config.and(more))
    }

    fn with(tls: &str, change: impl FnOnce(Config) -> Config) -> World {
        let (authority, folder) = (Ca::new(), Folder::new());
        folder.pair("first", &authority.sign(&["first.test", "localhost", "127.0.0.1"]));
        folder.write("ca.pem", &authority.pem);
        World::of(authority, folder, &["first"], tls, change)
    }

    fn of(authority: Ca, folder: Folder, pairs: &[&str], tls: &str, change: impl FnOnce(Config) -> Config) -> World {
        let origin = Origin::start();
        let shown = |name: &&str| {
            let (chain, key) = (folder.path(&format!("{name}.pem")), folder.path(&format!("{name}.key")));
            format!("{{ chain = {:?}, key = {:?} }}", chain.display().to_string(), key.display().to_string())
        };
        let shown: Vec<String> = pairs.iter().map(shown).collect();
        // What stands before the table is the listener's own.
        let (own, tls) = tls.split_once("\n---\n").unwrap_or(("", tls));
        let listener = format!("{own}\n[listeners.tls]\ncertificates = [{}]\n{tls}", shown.join(", "));
        let gateway = Gateway::start(&change(Config::new(&[origin.url()]).listener(&listener)));
        World { gateway, origin, authority, folder }
    }

    fn connect(&self) -> Https {
        Https::connect(self.gateway.address(), &client(&self.authority, BOTH), "first.test")
    }

    /// An exchange over a fresh connection goes through.
    fn works(&self) {
        let (head, _) = self.connect().request("GET", "/v1/models", &JSON[..1], b"");
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
}

#[test]
fn every_event_loop_serves_both_versions_by_name() {
    for driver in ["deferred", "cooperative", "plain", "epoll"] {
        let world = World::new("", &format!("[ring]\ndriver = {driver:?}"));
        assert!(world.gateway.process.lines().iter().any(|line| line.contains("listening on https://127.0.0.1:")));
        for version in [&TLS12, &TLS13] {
            let mut https =
                Https::connect(world.gateway.address(), &client(&world.authority, &[version]), "first.test");
            assert_eq!(https.session().protocol_version(), Some(version.version));
            assert_eq!(https.session().alpn_protocol(), Some(&b"http/1.1"[..]), "{driver}");
            for turn in 0..3 {
                https.send_request("POST", PATH, &JSON, &chat("m", false));
                let mut peer = world.origin.accept();
                assert_eq!(peer.request().get("host"), Some(world.origin.address.to_string().as_str()));
                peer.answer("{\"choices\":[]}");
                let (head, body) = https.answer();
                assert!(head.starts_with("http/1.1 200 "), "{driver}, {turn}: {head}");
                assert_eq!(body, b"{\"choices\":[]}");
                assert!(!head.contains("strict-transport-security"), "{head}");
            }
        }
    }
}

#[test]
fn names_choose_the_certificate() {
    let (authority, folder) = (Ca::new(), Folder::new());
    let pairs = [&["first.test"][..], &["*.wild.test"], &["exact.wild.test"]].map(|names| authority.sign(names));
    for (name, pair) in ["a", "b", "c"].iter().zip(&pairs) {
        folder.pair(name, pair);
    }
    let world = World::of(authority, folder, &["a", "b", "c"], "", |config| config);
    let config = client(&world.authority, BOTH);
    for (name, shown) in [("first.test", 0), ("x.wild.test", 1), ("exact.wild.test", 2)] {
        let https = Https::connect(world.gateway.address(), &config, name);
        assert_eq!(https.session().peer_certificates().expect("certificates")[0], pairs[shown].der(), "{name}");
    }
    for name in ["other.test", "a.b.wild.test", "wild.test", "127.0.0.1"] {
        let error = Https::try_connect(world.gateway.address(), &config, name).err().expect("the first certificate");
        assert!(error.to_string().contains("not valid for name"), "{name}: {error}");
    }
}

#[test]
fn sessions_go_on_on_every_worker() {
    let world = World::with("", |config| config.top("cores = \"0-1\""));
    for version in [&TLS12, &TLS13] {
        let config = client(&world.authority, &[version]);
        for turn in 0..20 {
            let mut https = Https::connect(world.gateway.address(), &config, "first.test");
            let kind = if turn == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(https.session().handshake_kind(), Some(kind), "{:?}, {turn}", version.version);
            // The ticket comes with the answer.
            let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
            assert!(head.starts_with("http/1.1 200 "), "{head}");
        }
    }
}

/// A clock that stands still: its client takes no ticket for too old, so that the gateway alone decides.
#[derive(Debug)]
struct Still(UnixTime);

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[test]
fn keys_of_tickets_are_exchanged_though_nobody_comes() {
    let world = World::with("ticket_rotation = \"1s\"", Config::admin);
    let clients = [&TLS12, &TLS13].map(|version| {
        let mut config = client(&world.authority, &[version]).as_ref().clone();
        config.time_provider = Arc::new(Still(UnixTime::now()));
        Arc::new(config)
    });
    let kind = |config| {
        let mut https = Https::connect(world.gateway.address(), config, "first.test");
        let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        https.session().handshake_kind().expect("a handshake")
    };
    for config in &clients {
        assert_eq!(kind(config), HandshakeKind::Full);
        // The next one, unless this machine takes two seconds for it.
        let start = Instant::now();
        while kind(config) == HandshakeKind::Full {
            assert!(start.elapsed() < PATIENCE, "no session goes on");
        }
    }
    // Twice a key's second and as long as it may take until that is noticed, with time to spare, and no handshake that would
    // have the key exchanged. A gateway that is late notices before it answers.
    for _ in 0..3 {
        let mut admin = common::Client::connect(world.gateway.admin());
        assert!(admin.is_silent_for(Duration::from_secs(3)));
        metric(&world.gateway, "ringway_uptime_seconds", &[]);
    }
    for config in &clients {
        assert_eq!(kind(config), HandshakeKind::Full);
    }
}

#[test]
fn a_client_that_asks_for_nothing_gets_its_ticket_all_the_same() {
    let world = World::new("", "");
    let config = client(&world.authority, &[&TLS13]);
    let mut silent = Https::connect(world.gateway.address(), &config, "first.test");
    while silent.session().tls13_tickets_received() == 0 {
        let (connection, socket) = silent.parts();
        connection.read_tls(socket).expect("a ticket");
        connection.process_new_packets().expect("a ticket");
    }
    let https = Https::connect(world.gateway.address(), &config, "first.test");
    assert_eq!(https.session().handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn who_offers_no_protocol_speaks_http_1_1_and_who_offers_others_only_is_refused() {
    let world = World::with("", Config::admin);
    let address = world.gateway.address();
    for version in [&TLS12, &TLS13] {
        let offering = |protocols: &[&[u8]]| {
            let mut config = client(&world.authority, &[version]).as_ref().clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        for others in [&[&b"h3"[..]][..], &[b"h2c", b"spdy/3", b"HTTP/1.1"]] {
            let error = Https::try_connect(address, &offering(others), "first.test").err().expect("a refusal");
            let said = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            let refusal = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
            assert_eq!(said, Some(&refusal), "{:?}: {error}", version.version);
        }
        for (offered, agreed) in
            [(&[][..], None), (&[&b"http/1.1"[..]], Some(&b"http/1.1"[..])), (&[b"http/1.0"], Some(b"http/1.0"))]
        {
            let mut https = Https::connect(address, &offering(offered), "first.test");
            assert_eq!(https.session().alpn_protocol(), agreed, "{:?}", version.version);
            let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
            assert!(head.starts_with("http/1.1 200 "), "{offered:?}: {head}");
        }
        // Who can speak HTTP/2 does.
        let https = Https::connect(address, &offering(&[b"http/1.1", b"h2"]), "first.test");
        assert_eq!(https.session().alpn_protocol(), Some(&b"h2"[..]), "{:?}", version.version);
    }
    let handshakes = |result: &str, count: f64| {
        let labels = [("side", "client"), ("result", result)];
        metric_is(&world.gateway, "ringway_tls_handshakes_total", &labels, count);
    };
    handshakes("incompatible", 4.0);
    handshakes("full", 8.0);
    metric_is(&world.gateway, "ringway_tls_handshakes_total", &[("side", "client")], 12.0);
}

#[test]
fn where_http_2_is_not_spoken_it_is_not_agreed_on() {
    let world = World::new("http2 = false\n---\n", "");
    let offering = |protocols: &[&[u8]]| {
        let mut config = client(&world.authority, BOTH).as_ref().clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    };
    assert!(Https::try_connect(world.gateway.address(), &offering(&[b"h2"]), "first.test").is_err());
    let mut https = Https::connect(world.gateway.address(), &offering(&[b"h2", b"http/1.1"]), "first.test");
    assert_eq!(https.session().alpn_protocol(), Some(&b"http/1.1"[..]));
    let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[test]
fn curl_and_openssl_are_served() {
    let world = World::new("", "");
    let (address, ca) = (world.gateway.address(), world.folder.path("ca.pem"));
    for (versions, http) in [
        (&["--tlsv1.2", "--tls-max", "1.2"][..], "--http1.1"),
        (&["--tlsv1.3"], "--http1.1"),
        (&["--tlsv1.3"], "--http2"),
        (&["--tlsv1.3"], "--http1.0"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", http, "-H", "authorization: Bearer sk-test-client", "--cacert"]);
        let output = curl.arg(&ca).args(versions).arg(format!("https://{address}/v1/models")).output().expect("curl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{versions:?} {http}: {said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"object\":\"list\""), "{versions:?}: {output:?}");
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-quiet", "-verify_return_error", "-servername", "first.test", version, "-CAfile"]);
        let mut openssl = openssl
            .arg(&ca)
            .args(["-connect", &address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        let request =
            b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-client\r\nconnection: close\r\n\r\n";
        openssl.stdin.as_mut().expect("a pipe").write_all(request).expect("a request");
        let mut answer = String::new();
        openssl.stdout.take().expect("a pipe").read_to_string(&mut answer).expect("an answer");
        drop(openssl.stdin.take());
        openssl.wait().expect("its end");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{version}: {answer}");
    }
}

#[test]
fn http_in_the_clear_is_told_where_to_go() {
    for driver in DRIVERS {
        let world = World::new("hsts = \"365d\"", &format!("[ring]\ndriver = {driver:?}"));
        let mut plain = world.gateway.connect();
        let response = plain.request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
        assert_eq!(response.head.status, 400, "{driver}");
        assert_eq!(response.json()["error"]["code"], "https_required");
        assert!(response.text().contains(&format!("https://{}/", world.gateway.address())), "{}", response.text());
        assert_eq!(response.head.get("strict-transport-security"), None, "only HTTPS may say this");
        assert!(plain.is_closed(), "{driver}");
        world.works();
    }
}

#[test]
fn hsts_is_on_every_answer() {
    let world = World::new("hsts = \"365d\"", "");
    let line = "strict-transport-security: max-age=31536000\r\n";
    let mut https = world.connect();
    https.send_request("POST", PATH, &JSON, &chat("m", false));
    let mut peer = world.origin.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nstrict-transport-security: max-age=1\r\ncontent-length: 2\r\n\r\n{}");
    let (head, _) = https.answer();
    assert_eq!(head.matches("strict-transport-security").count(), 1, "the provider's is its own: {head}");
    assert!(head.contains(line), "{head}");
    for (method, path, key) in
        [("GET", "/v1/models", true), ("GET", "/v1/models", false), ("GET", "/nothing", true), ("TRACE x", "/", true)]
    {
        let (head, _) = https.request(method, path, if key { &JSON[..1] } else { &[] }, b"");
        assert!(head.contains(line), "{method} {path}: {head}");
    }
}

#[test]
fn strangers_disturb_nobody() {
    for driver in DRIVERS {
        let world = World::new("", &format!("[client]\nhandshake = \"100ms\"\n[ring]\ndriver = {driver:?}"));
        let mut steady = world.connect();
        let hello = hello(&world);
        let ended = |mut socket: TcpStream, what: &str| {
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut rest = Vec::new();
            match socket.read_to_end(&mut rest) {
                Ok(_) => rest,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
                Err(error) => panic!("{driver}, {what}: {error}"),
            }
        };
        let dial = || TcpStream::connect(world.gateway.address()).expect("a connection");
        // Silence, half a hello, and a whole one with nothing behind it: each until its time is over.
        for (what, bytes) in [("silence", &[][..]), ("half", &hello[..hello.len() / 2]), ("no finish", &hello)] {
            let mut socket = dial();
            socket.write_all(bytes).expect("a hello");
            let heard = ended(socket, what);
            assert_eq!(!heard.is_empty(), what == "no finish", "{driver}, {what}");
        }
        // Garbage, and a bent hello: told so by an alert, at once.
        let mut bent = hello.clone();
        bent[5] = 0x55;
        for (what, bytes) in [("garbage", &[0x80, 0x2e, 1, 3, 1, 0, 0x15][..]), ("zeros", &[0; 64]), ("bent", &bent)] {
            let mut socket = dial();
            socket.write_all(bytes).expect("bytes");
            let heard = ended(socket, what);
            assert_eq!(heard.first(), Some(&0x15), "{driver}, {what}: {heard:?}");
        }
        // Cut at every byte, and gone.
        for at in 0..hello.len() {
            let mut socket = dial();
            socket.write_all(&hello[..at]).expect("a part");
            socket.shutdown(Shutdown::Write).expect("an end");
            ended(socket, "cut");
        }
        let (head, _) = steady.request("GET", "/v1/models", &JSON[..1], b"");
        assert!(head.starts_with("http/1.1 200 "), "{driver}: {head}");
        world.works();
        let lines = world.gateway.process.lines();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{driver}: {lines:?}");
    }
}

/// A ClientHello of rustls.
fn hello(world: &World) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("first.test").expect("a name");
    let mut session = rustls::ClientConnection::new(client(&world.authority, BOTH), name).expect("a session");
    let mut hello = Vec::new();
    session.write_tls(&mut hello).expect("a hello");
    hello
}

#[test]
fn a_hello_in_any_pieces_is_one_hello() {
    let world = World::new("", "");
    let config = client(&world.authority, BOTH);
    for size in [1, 3, 100] {
        let name = rustls::pki_types::ServerName::try_from("first.test").expect("a name");
        let mut session = rustls::ClientConnection::new(config.clone(), name).expect("a session");
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("a hello");
        let mut socket = TcpStream::connect(world.gateway.address()).expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        for piece in hello.chunks(size) {
            socket.write_all(piece).expect("a piece");
        }
        while session.is_handshaking() {
            session.complete_io(&mut socket).expect("a handshake");
        }
    }
}

#[test]
fn a_client_that_leaves_without_a_word_cancels_its_request() {
    for driver in DRIVERS {
        for stream in [false, true] {
            let world = World::new("", &format!("[ring]\ndriver = {driver:?}"));
            let mut https = world.connect();
            https.send_request("POST", PATH, &JSON, &chat("m", stream));
            let mut peer = world.origin.accept();
            peer.request();
            if stream {
                peer.begin_stream().chunk(content("one"));
                https.head();
                assert_eq!(https.chunk().expect("an event"), content("one").as_bytes());
            }
            // The end of the connection, and no close_notify before it.
            https.socket().shutdown(Shutdown::Both).expect("an end");
            assert!(matches!(peer.ended(), Ended::Fin | Ended::Rst), "{driver}");
        }
    }
}

#[test]
fn each_event_arrives_at_once() {
    for driver in DRIVERS {
        let world = World::new("", &format!("[ring]\ndriver = {driver:?}"));
        for version in [&TLS12, &TLS13] {
            let mut https =
                Https::connect(world.gateway.address(), &client(&world.authority, &[version]), "first.test");
            https.send_request("POST", PATH, &JSON, &chat("m", true));
            let mut peer = world.origin.accept();
            peer.request();
            peer.begin_stream();
            for number in 0..50 {
                let event = content(&number.to_string());
                peer.chunk(&event);
                if number == 0 {
                    assert!(https.head().contains("text/event-stream"));
                }
                // The next is not sent before this one is here.
                assert_eq!(https.chunk().expect("an event"), event.as_bytes(), "{driver}");
            }
            peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
            while https.chunk().is_some() {}
            let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
            assert!(head.starts_with("http/1.1 200 "), "{driver}: {head}");
        }
    }
}

#[test]
fn large_bodies_pass_both_ways_and_a_slow_reader_loses_nothing() {
    for driver in DRIVERS {
        let world = World::new("", &format!("[ring]\ndriver = {driver:?}"));
        let mut https = world.connect();
        let padding = "x".repeat(5 << 20);
        let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": padding}]}).to_string();
        let origin = &world.origin;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut peer = origin.accept();
                assert_eq!(peer.request().body, body.as_bytes(), "{driver}: as it was sent");
                peer.begin_stream();
                for number in 0..20_000 {
                    peer.chunk(content(&format!("{number} {}", "y".repeat(300))));
                }
                peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
            });
            https.send_request("POST", PATH, &JSON, body.as_bytes());
            https.head();
            let mut text = Vec::new();
            let mut chunks = 0;
            while let Some(chunk) = https.chunk() {
                text.extend_from_slice(&chunk);
                chunks += 1;
                if chunks % 100 == 0 {
                    // Slower than the provider: the gateway's socket fills up and empties again.
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
            let text = String::from_utf8(text).expect("text");
            assert!(text.ends_with(DONE));
            let mut at = 0;
            for number in 0..20_000 {
                let found = text[at..].find(&format!("\"{number} ")).unwrap_or_else(|| panic!("{driver}: no {number}"));
                at += found;
            }
        });
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_turn() {
    let world = World::new("", "");
    let mut https = world.connect();
    let request = "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-client\r\n\r\n".repeat(50);
    https.send(request.as_bytes());
    for _ in 0..50 {
        let (head, _) = https.answer();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
}

#[test]
fn the_end_of_a_connection_is_said() {
    for driver in DRIVERS {
        let more = format!("[client]\nkeep_alive = \"50ms\"\n[ring]\ndriver = {driver:?}");
        let world = World::new("", &more);
        let mut idle = world.connect();
        assert!(idle.ends_properly(), "{driver}: idle for too long");
        let mut used = world.connect();
        used.request("GET", "/v1/models", &JSON[..1], b"");
        assert!(used.ends_properly(), "{driver}: idle for too long after a request");
        for (path, headers) in [("/v1/models", &JSON[..1]), ("/nothing", &[])] {
            let mut last = world.connect();
            let headers = [headers, &[("connection", "close")]].concat();
            last.request("GET", path, &headers, b"");
            assert!(last.ends_properly(), "{driver}: {path} was the last");
        }
        let mut relayed = world.connect();
        relayed.send_request("POST", PATH, &[&JSON[..], &[("connection", "close")]].concat(), &chat("m", true));
        let mut peer = world.origin.accept();
        peer.request();
        peer.begin_stream().chunk(content("one")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        relayed.answer();
        assert!(relayed.ends_properly(), "{driver}: the relayed answer was the last");
    }
}

#[test]
fn clients_show_who_they_are_where_they_must() {
    let ours = Ca::new();
    let theirs = Ca::new();
    let (own, wrong) = (ours.sign(&["client"]), theirs.sign(&["client"]));
    for (auth, without, with_wrong) in [("required", false, false), ("optional", true, false)] {
        let folder = Folder::new();
        let ca = folder.write("clients.pem", &ours.pem);
        let world = World::new(&format!("client_ca = {:?}\nclient_auth = {auth:?}", ca.display().to_string()), "");
        for version in [&TLS12, &TLS13] {
            for (pair, passes) in [(Some(&own), true), (None, without), (Some(&wrong), with_wrong)] {
                let config = client_as(&world.authority, &[version], pair);
                let asked = Https::try_connect(world.gateway.address(), &config, "first.test").and_then(|mut https| {
                    https.try_send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")?;
                    https.fill()
                });
                assert_eq!(asked.is_ok(), passes, "{auth}, {:?}: {asked:?}", version.version);
                if let Err(error) = asked {
                    assert!(error.to_string().contains("received fatal alert"), "{auth}: {error}");
                }
            }
        }
        world.gateway.process.lines();
    }
}

#[test]
fn a_gateway_that_ends_lets_tls_streams_finish() {
    use nix::sys::signal::{Signal, kill};
    for driver in DRIVERS {
        let mut world = World::new("", &format!("[ring]\ndriver = {driver:?}"));
        let (mut idle, mut https) = (world.connect(), world.connect());
        https.send_request("POST", PATH, &JSON, &chat("m", true));
        let mut peer = world.origin.accept();
        peer.request();
        peer.begin_stream().chunk(content("one"));
        https.head();
        https.chunk().expect("an event");
        let mut half = TcpStream::connect(world.gateway.address()).expect("a connection");
        half.write_all(&hello(&world)[..20]).expect("half a hello");
        kill(nix::unistd::Pid::from_raw(world.gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        assert!(idle.ends_properly(), "{driver}: idle ones are closed");
        half.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        match half.read(&mut [0; 16]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("{driver}: half a handshake is not closed: {other:?}"),
        }
        peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        while https.chunk().is_some() {}
        assert!(https.ends_properly(), "{driver}");
        assert_eq!(world.gateway.process.wait().code(), Some(0), "{driver}");
    }
}

#[test]
fn what_a_gateway_that_ends_has_to_cut_is_told_so_over_tls() {
    use nix::sys::signal::{Signal, kill};
    for driver in DRIVERS {
        let more = format!("[client]\ndrain = \"50ms\"\ndrain_delay = \"1ms\"\n[ring]\ndriver = {driver:?}");
        let mut world = World::new("", &more);
        let (mut streaming, mut waiting) = (world.connect(), world.connect());
        streaming.send_request("POST", PATH, &JSON, &chat("m", true));
        let mut peer = world.origin.accept();
        peer.request();
        peer.begin_stream().chunk(content("one"));
        streaming.head();
        streaming.chunk().expect("an event");
        waiting.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut silent = world.origin.accept();
        silent.request();
        kill(nix::unistd::Pid::from_raw(world.gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        let event = streaming.chunk().expect("a last event");
        assert!(String::from_utf8_lossy(&event).contains("\"shutting_down\""), "{driver}: {event:?}");
        assert!(
            streaming.ends_properly() && streaming.held().is_empty(),
            "{driver}: no last chunk, which would be a lie"
        );
        let (head, body) = waiting.answer();
        assert!(head.starts_with("http/1.1 503 ") && head.contains("connection: close"), "{driver}: {head}");
        assert!(String::from_utf8_lossy(&body).contains("\"shutting_down\""), "{driver}");
        assert!(waiting.ends_properly(), "{driver}: this answer is whole");
        assert_eq!(world.gateway.process.wait().code(), Some(0), "{driver}");
    }
}

#[test]
fn a_handshake_that_takes_too_long_is_counted_as_that_and_one_that_the_end_cuts_off_is_not() {
    use nix::sys::signal::{Signal, kill};
    let world = World::with("", |config| config.admin().and("[client]\nhandshake = \"50ms\""));
    let mut silent = TcpStream::connect(world.gateway.address()).expect("a connection");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(silent.read(&mut [0; 16]).expect("an end"), 0);
    metric_is(&world.gateway, "ringway_tls_handshakes_total", &[("side", "client"), ("result", "timeout")], 1.0);

    let world = World::with("", |config| config.admin().and("[client]\nhandshake = \"60s\"\ndrain = \"60s\""));
    let mut working = world.connect();
    working.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = world.origin.accept();
    peer.request();
    let mut silent = TcpStream::connect(world.gateway.address()).expect("a connection");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    metric_is(&world.gateway, "ringway_client_connections_open", &[], 2.0);
    kill(nix::unistd::Pid::from_raw(world.gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
    assert_eq!(silent.read(&mut [0; 16]).expect("an end"), 0);
    metric_is(&world.gateway, "ringway_client_connections_open", &[], 1.0);
    for result in ["timeout", "closed"] {
        let labels = [("side", "client"), ("result", result)];
        assert_eq!(metric(&world.gateway, "ringway_tls_handshakes_total", &labels), 0.0, "{result}");
    }
    drop(peer);
}

#[test]
fn many_hands_are_shaken_at_once() {
    let world = World::with("", |config| config.top("cores = \"0-1\""));
    let (config, start) = (client(&world.authority, BOTH), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let mut https = Https::connect(world.gateway.address(), &config, "first.test");
                    let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
                    assert!(head.starts_with("http/1.1 200 "), "{head}");
                }
            });
        }
    });
    println!("160 connections in {:?}", start.elapsed());
}

#[test]
fn check_and_serve_name_files_that_do_not_go_together() {
    let (authority, folder) = (Ca::new(), Folder::new());
    let (one, two) = (authority.sign(&["one.test"]), authority.sign(&["two.test"]));
    folder.write("a.pem", &one.chain);
    folder.write("a.key", &two.key);
    let listener = "[listeners.tls]\ncertificates = [{ chain = \"a.pem\", key = \"a.key\" }]";
    let text = Config::new(&["http://127.0.0.1:1/v1".into()]).listener(listener).keys("").endpoint("").text();
    let file = folder.write("ringway.toml", &text);
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for command in ["check", "serve"] {
        let output = common::process::run(&[command, "--config", file.to_str().expect("a path")]);
        assert_eq!(output.status.code(), Some(2), "{command}: {}", said(&output));
        let wanted = "listeners[0].tls.certificates[0].key  the file is the key of another certificate";
        assert!(said(&output).contains(wanted), "{command}: {}", said(&output));
    }
    folder.write("a.key", &one.key);
    let output = common::process::run(&["check", "--config", file.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_client_whose_session_is_broken_is_gone_however_its_bytes_are_cut() {
    for whole in [true, false] {
        let world = World::new("", "[client]\nhalf_close = \"finish\"");
        let mut https = world.connect();
        https.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut peer = world.origin.accept();
        peer.request();
        // A record of the next request, and one that nobody has sealed.
        let (session, socket) = https.parts();
        session.writer().write_all(b"GET /v1/models HTTP/1.1\r\n").expect("a record");
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).expect("a record");
        let broken = [&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat();
        if whole {
            bytes.extend_from_slice(&broken);
            socket.write_all(&bytes).expect("it is taken");
        } else {
            socket.write_all(&bytes).expect("it is taken");
            socket.write_all(&broken).expect("it is taken");
        }
        peer.ended();
    }
}
