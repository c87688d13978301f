//! Endpoints that fail before a request could reach them: they are passed over, and told only if they were the last.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cell::Ends::{self, Status};
use crate::cell::{BOUND, answer, ask, drip, judge, record, timers};
use crate::common::authority::{Certificate, server_config};
use crate::common::{Authority, BlackHole, Origin, PATIENCE, Peer};
use crate::ground::{DRIVERS, Ground, Players};
use crate::shape::Shape;

/// An endpoint that cannot be connected to, and how its client is told if there is no other.
struct Fault {
    name: &'static str,
    url: String,
    ends: Ends,
    /// Connections to it that are open.
    open: Arc<AtomicUsize>,
}

/// An endpoint that lets `serve` have each connection.
fn fault(name: &'static str, scheme: &str, ends: Ends, serve: impl Fn(Peer) + Send + Sync + 'static) -> Fault {
    let (origin, open) = (Origin::start(), Arc::new(AtomicUsize::new(0)));
    let (url, counted) = (format!("{scheme}://{}/v1", origin.address), Arc::clone(&open));
    origin.serve(move |peer| {
        counted.fetch_add(1, Ordering::SeqCst);
        serve(peer);
        counted.fetch_sub(1, Ordering::SeqCst);
    });
    Fault { name, url, ends, open }
}

fn nothing_open() -> Arc<AtomicUsize> {
    Arc::default()
}

/// Holds a handshake until the gateway ends it.
fn handshake(config: Arc<ServerConfig>) -> impl Fn(Peer) {
    move |peer| {
        let stream = peer.socket().try_clone().expect("the socket");
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("a session"), stream);
        // The gateway does not believe it and says so.
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

/// Says `bytes` to whoever begins a handshake, and then nothing.
fn say(bytes: &'static [u8]) -> impl Fn(Peer) {
    move |mut peer| {
        peer.until_readable();
        peer.send(bytes);
        peer.ended();
    }
}

fn faults(ours: &Authority, theirs: &Authority) -> Vec<Fault> {
    let unreachable = Status(502, "upstream_unreachable", "upstream_error");
    let late = Status(504, "connect_timeout", "timeout");
    let shows = |name: &'static str, certificate: Certificate, version| {
        fault(name, "https", unreachable, handshake(server_config(certificate, version)))
    };
    vec![
        Fault { name: "refused", url: refusing(), ends: unreachable, open: nothing_open() },
        shows("a certificate of another name", ours.sign("api.example.test", false), &TLS13),
        shows("a certificate of another address", ours.sign("127.0.0.2", false), &TLS12),
        shows("an expired certificate", ours.sign("127.0.0.1", true), &TLS13),
        shows("an expired certificate, TLS 1.2", ours.sign("127.0.0.1", true), &TLS12),
        shows("an unknown authority", theirs.sign("127.0.0.1", false), &TLS13),
        fault("plain HTTP", "https", unreachable, say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")),
        fault("garbage", "https", unreachable, say(&[0x5a; 600])),
        fault("an alert", "https", unreachable, say(b"\x15\x03\x03\x00\x02\x02\x28")),
        fault("closed in the handshake", "https", unreachable, |mut peer| {
            peer.until_readable();
            peer.half_close().ended();
        }),
        fault("closed at once", "https", unreachable, drop),
        fault("reset in the handshake", "https", unreachable, |peer| {
            peer.until_readable();
            peer.reset();
        }),
        fault("a silent handshake", "https", late, |mut peer| {
            peer.ended();
        }),
        fault("a handshake that drips", "https", late, |mut peer| {
            peer.until_readable();
            drip(&mut peer, b"\x16\x03\x03\x40\x00", Duration::from_millis(20), b"\x02");
            peer.ended();
        }),
    ]
}

/// Where nobody listens, on a port that nobody else can take.
fn refusing() -> String {
    use std::os::fd::{AsRawFd, IntoRawFd};
    let taken = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(taken.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
    let port = getsockname::<SockaddrIn>(taken.as_raw_fd()).expect("its address").port();
    // Open for as long as the test runs.
    let _ = taken.into_raw_fd();
    format!("http://127.0.0.1:{port}/v1")
}

#[test]
fn an_endpoint_that_cannot_be_connected_to_is_passed_over_and_told_only_if_it_is_the_last() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let hole = BlackHole::new();
    let mut faults = faults(&ours, &theirs);
    faults.push(Fault {
        name: "a black hole",
        url: format!("http://{}/v1", hole.address),
        ends: Status(504, "connect_timeout", "timeout"),
        open: nothing_open(),
    });
    let ca = format!("ca = {:?}", ours.file.display().to_string());
    for driver in DRIVERS {
        let mut players = Players::default();
        for (number, fault) in faults.iter().enumerate() {
            let endpoint = if fault.url.starts_with("https") { &*ca } else { "" };
            players.add(&format!("{number}"), &fault.url, endpoint, &timers(fault.ends, ""));
        }
        let ground = Ground::start(driver, &players);
        thread::scope(|scope| {
            for (number, fault) in faults.iter().enumerate() {
                for shape in Shape::ALL {
                    let ground = &ground;
                    scope.spawn(move || {
                        alone(ground, number, fault, shape);
                        backed(ground, number, fault, shape);
                    });
                }
            }
        });
        ground.finish();
        for fault in &faults {
            let start = Instant::now();
            while fault.open.load(Ordering::SeqCst) > 0 {
                assert!(start.elapsed() < PATIENCE, "{}: connections are left", fault.name);
                thread::yield_now();
            }
        }
    }
}

/// Without another endpoint the client is told.
fn alone(ground: &Ground, number: usize, fault: &Fault, shape: Shape) {
    let what = format!("{}, {}, alone", fault.name, shape.name());
    let id = format!("alone-{number}-{}", shape.name());
    let mut client = ground.gateway.connect();
    let begun = Instant::now();
    ask(&mut client, &number.to_string(), shape, &id, 0);
    let (mut client, response) = answer(client, shape, &sync_channel(1).0);
    assert!(begun.elapsed() < BOUND, "{what}: took {:?}", begun.elapsed());
    judge(&what, fault.ends, shape, &response);
    record(&what, fault.ends, &ground.records.of(&id), 1);
    let next = client.request("GET", "/v1/models", &crate::common::JSON[..1], b"");
    assert_eq!(next.head.status, 200, "{what}: the connection is of no use any more");
}

/// With another endpoint the client does not notice.
fn backed(ground: &Ground, number: usize, fault: &Fault, shape: Shape) {
    let what = format!("{}, {}, backed", fault.name, shape.name());
    let id = format!("backed-{number}-{}", shape.name());
    let mut client = ground.gateway.connect();
    let begun = Instant::now();
    ask(&mut client, &format!("{number}+"), shape, &id, 0);
    let (_, response) = answer(client, shape, &sync_channel(1).0);
    assert!(begun.elapsed() < BOUND, "{what}: took {:?}", begun.elapsed());
    judge(&what, Ends::Whole, shape, &response);
    record(&what, Ends::Whole, &ground.records.of(&id), 2);
    assert_eq!(ground.asked_backup(&id), 1, "{what}");
}

/// A connection that is reset as soon as it is there may have failed before the request was sent, or with it: both are
/// honest, and which it is the gateway knows.
#[test]
fn an_endpoint_that_resets_at_once_is_passed_over_only_if_nothing_was_sent() {
    for driver in DRIVERS {
        let mut players = Players::default();
        let fault = fault("reset at connect", "http", Ends::Whole, Peer::reset);
        players.add("reset", &fault.url, "", &timers(Ends::Whole, ""));
        let ground = Ground::start(driver, &players);
        for turn in 0..50 {
            let shape = Shape::ALL[turn % Shape::ALL.len()];
            let (what, id) = (format!("{driver} {turn}"), format!("reset-{turn}"));
            let mut client = ground.gateway.connect();
            ask(&mut client, "reset+", shape, &id, 0);
            let (_, response) = answer(client, shape, &sync_channel(1).0);
            let (ends, attempts) = match response.head.status {
                200 => (Ends::Whole, 2),
                _ => (Status(502, "upstream_failed", "upstream_error"), 1),
            };
            judge(&what, ends, shape, &response);
            record(&what, ends, &ground.records.of(&id), attempts);
            assert_eq!(ground.asked_backup(&id), attempts as usize - 1, "{what}");
        }
        ground.finish();
    }
}
