//! Told to end, the gateway lets what is under way go on, and tells what it must cut; nothing is lost in silence.

mod common;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use common::origin::{DONE, FINISH, content};
use common::{Client, Config, End, Events, Gateway, JSON, Mock, Origin, Peer, chat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATH: &str = "/v1/chat/completions";
const DRIVERS: [&str; 4] = ["deferred", "cooperative", "plain", "epoll"];

fn gateway(origin: &Origin, drain: &str, more: &str) -> Gateway {
    Gateway::start(&Config::new(&[origin.url()]).and(&format!("[client]\ndrain = {drain:?}\n{more}")))
}

fn signal(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.process.id().cast_signed()), signal).expect("a signal");
}

/// Waits until no further client gets in.
fn until_closed(gateway: &Gateway) {
    let start = std::time::Instant::now();
    while TcpStream::connect(gateway.address()).is_ok() {
        assert!(start.elapsed() < common::PATIENCE, "still accepts");
        std::thread::yield_now();
    }
}

/// A stream that has brought one event.
fn stream(gateway: &Gateway, origin: &Origin, path: &str, first: &str) -> (Events, Peer) {
    let mut client = gateway.connect();
    client.send_request("POST", path, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(first);
    let head = client.head();
    let mut events = client.events(&head);
    assert_eq!(events.next_event().expect("an event").raw, first.as_bytes());
    (events, peer)
}

fn is_closed(client: &mut Client) -> bool {
    match std::io::Read::read(&mut client.socket(), &mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn an_idle_gateway_ends_at_once() {
    for sign in [Signal::SIGTERM, Signal::SIGINT] {
        let origin = Origin::start();
        let mut gateway = gateway(&origin, "1h", "");
        let (mut fresh, mut used) = (gateway.connect(), gateway.connect());
        assert_eq!(used.request("GET", "/v1/models", &JSON, b"").head.status, 200);
        signal(&gateway, sign);
        assert!(is_closed(&mut fresh) && is_closed(&mut used), "idle connections are closed");
        assert_eq!(gateway.process.wait().code(), Some(0), "{sign}");
        assert!(gateway.process.lines().iter().any(|line| line.contains(sign.as_str())), "{sign} is named");
    }
}

#[test]
fn what_is_under_way_is_finished_on_every_event_loop() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let mut gateway = gateway(&origin, "1h", &format!("[ring]\ndriver = {driver:?}"));
        let (mut events, mut peer) = stream(&gateway, &origin, PATH, &content("one"));
        let mut waiting = gateway.connect();
        waiting.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut answering = origin.accept();
        answering.request();
        signal(&gateway, Signal::SIGTERM);
        until_closed(&gateway);

        answering.answer("{\"choices\":[]}");
        let response = waiting.response("POST");
        assert_eq!((response.head.status, response.head.get("connection")), (200, Some("close")), "{driver}");
        peer.chunk(content("two")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
        let rest: Vec<String> = events.all().iter().map(|event| String::from_utf8_lossy(&event.raw).into()).collect();
        assert_eq!(rest, [content("two"), FINISH.to_owned(), DONE.to_owned()], "{driver}");
        assert_eq!(events.end(), Some(&End::Complete), "{driver}");
        assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
    }
}

#[test]
fn what_outlasts_the_deadline_is_cut_and_told_so() {
    const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
                         \"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    for driver in ["deferred", "epoll"] {
        let origin = Origin::start();
        let log = std::env::temp_dir().join(format!("ringway-drain-{}-{driver}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&log);
        let top = format!("cores = \"0\"\naccess_log = {{ path = {:?} }}", log.display().to_string());
        let more = format!("[client]\ndrain = \"50ms\"\n[ring]\ndriver = {driver:?}");
        let mut gateway = Gateway::start(&Config::new(&[origin.url()]).top(&top).and(&more));

        let (mut chat_events, mut chat_peer) = stream(&gateway, &origin, PATH, &content("one"));
        let (mut message_events, mut message_peer) = stream(&gateway, &origin, "/v1/messages", DELTA);
        let mut waiting = gateway.connect();
        waiting.send_request("POST", PATH, &JSON, &chat("m", false));
        let mut silent = origin.accept();
        silent.request();
        let mut uploading = gateway.connect();
        let key = JSON[0].1;
        uploading.send(
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {key}\r\ncontent-length: 9\r\n\r\n{{")
                .as_bytes(),
        );
        signal(&gateway, Signal::SIGTERM);

        for (events, said) in [(&mut chat_events, "\"shutting_down\""), (&mut message_events, "event: error")] {
            let rest = events.all();
            let text: String = rest.iter().map(|event| String::from_utf8_lossy(&event.raw)).collect();
            assert!(rest.len() == 1 && text.contains(said) && text.contains("being stopped"), "{driver}: {text}");
            assert_ne!(events.end(), Some(&End::Complete), "{driver}: a clean end would be a lie");
        }
        for client in [&mut waiting, &mut uploading] {
            let response = client.response("POST");
            assert_eq!((response.head.status, response.head.get("retry-after")), (503, Some("1")), "{driver}");
            assert_eq!(response.json()["error"]["code"], "shutting_down", "{driver}");
        }
        assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
        chat_peer.ended();
        message_peer.ended();
        silent.ended();
        let text = std::fs::read_to_string(&log).expect("the access log");
        let states: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
        assert_eq!(states.len(), 4, "{driver}: every exchange has its record: {text}");
        assert!(states.iter().all(|record| record["state"] == "gateway_error"), "{driver}: {text}");
        let _ = std::fs::remove_file(&log);
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let origin = Origin::start();
    let mut gateway = gateway(&origin, "1h", "");
    let (mut events, _peer) = stream(&gateway, &origin, PATH, &content("one"));
    signal(&gateway, Signal::SIGTERM);
    until_closed(&gateway);
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.process.wait().code(), Some(1));
    assert!(events.all().is_empty());
    assert_ne!(events.end(), Some(&End::Complete));
}

#[test]
fn a_request_that_is_just_arriving_is_served() {
    let origin = Origin::start();
    let mut gateway = gateway(&origin, "1h", "");
    let (mut used, mut fresh) = (gateway.connect(), gateway.connect());
    assert_eq!(used.request("GET", "/v1/models", &JSON, b"").head.status, 200);
    let request = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", JSON[0].1);
    for client in [&mut used, &mut fresh] {
        client.send(&request.as_bytes()[..1]);
    }
    signal(&gateway, Signal::SIGTERM);
    until_closed(&gateway);
    for client in [&mut used, &mut fresh] {
        let response = client.send(&request.as_bytes()[1..]).response("GET");
        assert_eq!((response.head.status, response.head.get("connection")), (200, Some("close")));
    }
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn a_request_is_answered_or_has_reached_no_provider() {
    const CLIENTS: usize = 64;
    for driver in ["deferred", "epoll"] {
        let mock = Mock::start(&["--ttft", "0ms"]);
        let config = Config::new(&[mock.url()]).and(&format!("[ring]\ndriver = {driver:?}"));
        let mut gateway = Gateway::start(&config);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
        for client in clients.iter_mut().step_by(2) {
            assert_eq!(client.request("GET", "/v1/models", &JSON, b"").head.status, 200);
        }
        // Requests are on their way before, while and after the connections are closed that have none.
        let process = Pid::from_raw(gateway.process.id().cast_signed());
        let mut sent = Vec::new();
        for (at, mut client) in clients.into_iter().enumerate() {
            if at == CLIENTS / 4 {
                kill(process, Signal::SIGTERM).expect("a signal");
            }
            let body = chat("mock:ttft=0ms,tokens=1", false);
            let head = format!(
                "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n",
                JSON[0].1,
                body.len()
            );
            if client.try_send(&[head.as_bytes(), &body].concat()).is_ok() {
                sent.push(client);
            }
        }
        let answered = sent.into_iter().filter_map(|client| {
            let mut text = Vec::new();
            // A reset is an end as well; what was read before it counts.
            let _ = client.socket().read_to_end(&mut text);
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 200 ") && text.ends_with('}'), "{driver}: {text}");
            (!text.is_empty()).then_some(())
        });
        let answered = answered.count();
        assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
        assert!(answered >= CLIENTS / 4, "{driver}: those before the signal are all answered, not only {answered}");
        assert_eq!(mock.stats("/mock/stats")["requests"], answered, "{driver}");
    }
}

#[test]
fn clients_may_come_for_a_while_where_load_balancers_need_one() {
    let origin = Origin::start();
    let config = Config::new(&[origin.url()]).admin().and("[client]\ndrain_delay = \"1h\"");
    let mut gateway = Gateway::start(&config);
    let ready = || Client::connect(gateway.admin()).request("GET", "/readyz", &[], b"").head.status;
    assert_eq!(ready(), 200);
    let mut kept = gateway.connect();
    let response = kept.request("GET", "/v1/models", &JSON, b"");
    assert_eq!((response.head.status, response.head.get("connection")), (200, None));
    signal(&gateway, Signal::SIGTERM);
    gateway.process.lines_until("clients may come for 3600s");
    let start = std::time::Instant::now();
    while ready() != 503 {
        assert!(start.elapsed() < common::PATIENCE, "it still calls itself ready");
    }
    // Each worker hears of it in its own time, so an answer or two may still keep the connection.
    let is_told = |client: &mut Client| loop {
        let response = client.request("GET", "/v1/models", &JSON, b"");
        assert_eq!(response.head.status, 200, "{:?}", response.head);
        if response.head.get("connection") == Some("close") {
            return client.is_closed();
        }
    };
    assert!(is_told(&mut kept) && is_told(&mut gateway.connect()), "an answered connection ends");
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.process.wait().code(), Some(1), "a second signal ends at once");

    let mut gateway = Gateway::start(&Config::new(&[origin.url()]).and("[client]\ndrain_delay = \"50ms\""));
    let (mut events, mut peer) = stream(&gateway, &origin, PATH, &content("one"));
    let mut idle = gateway.connect();
    signal(&gateway, Signal::SIGTERM);
    assert!(is_closed(&mut idle), "once the delay is over, idle connections are closed");
    until_closed(&gateway);
    peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    assert_eq!((events.all().len(), events.end()), (2, Some(&End::Complete)));
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn a_client_that_was_refused_may_read_that_though_the_deadline_passes() {
    /// A refused client is read from for two seconds; beyond half of that this machine is too slow to tell.
    const QUICK: std::time::Duration = std::time::Duration::from_secs(1);
    for driver in ["deferred", "epoll"] {
        let is_shown = (0..20).any(|_| {
            let origin = Origin::start();
            let mut gateway = gateway(&origin, "20ms", &format!("[ring]\ndriver = {driver:?}"));
            let (mut events, _peer) = stream(&gateway, &origin, PATH, &content("one"));
            let mut refused = gateway.connect();
            let start = std::time::Instant::now();
            refused.send(format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n").as_bytes());
            refused.send(&[b'x'; 4096]);
            let head = refused.head();
            assert_eq!(head.status, 401, "{driver}");
            signal(&gateway, Signal::SIGTERM);
            // The deadline has passed once this one was told.
            assert_eq!(events.all().len(), 1, "{driver}");
            // Read, not reset: else this client would lose the answer's body.
            let went_on = (0..64).all(|_| refused.try_send(&[b'x'; 65536]).is_ok());
            let in_time = start.elapsed() < QUICK;
            if in_time {
                assert!(went_on, "{driver}: reset");
                assert_eq!(refused.body("POST", head).json()["error"]["code"], "missing_api_key", "{driver}");
            }
            drop(refused);
            assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
            in_time
        });
        assert!(is_shown, "{driver}: never quick enough to tell");
    }
}
