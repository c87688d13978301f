//! What HTTP/2 can be abused for: each abuse ends with the right error or is held within its bounds, another client is answered
//! while it goes on, and nothing of it is left. `perf/abuse` does the same at full size.

mod common;

use std::fs::read_to_string;
use std::time::Instant;

use common::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PING, RST_STREAM, SETTINGS, Said, WINDOW_UPDATE,
    field, frame, request,
};
use common::{Client, Config, Gateway, JSON, Mock, Origin, PATIENCE, chat, metric, metric_is, until_at_rest};

const PATH: &str = "/v1/chat/completions";
const FILE: &str = "/v1/files/file-1";
const PRIORITY: u8 = 2;
const DRIVERS: [&str; 2] = ["deferred", "epoll"];

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What one abuser may cost while it is there, and what may be left of it.
const ADDED_MAX: usize = 32 << 20;
const LEFT_MAX: usize = 8 << 20;

/// A gateway with two providers: one for model `other`, and one for all else.
struct World {
    gateway: Gateway,
    other: Client,
    before: usize,
    _mock: Mock,
}

impl World {
    fn new(abused: &str, driver: &str) -> World {
        let mock = Mock::start(&[]);
        let models = format!(
            "[[providers]]\nname = \"other\"\n[[providers.endpoints]]\nurl = \"{}\"\n\
             [[models]]\nname = \"other\"\nroute = [{{ provider = \"other\" }}]\n\
             [[models]]\nname = \"*\"\nroute = [{{ provider = \"mock\" }}]",
            mock.url()
        );
        let config = Config::new(&[abused.to_owned()]).models(&models).and(&format!("[ring]\ndriver = {driver:?}"));
        let gateway = Gateway::start(&config.admin());
        let mut world = World { other: gateway.connect(), gateway, before: 0, _mock: mock };
        world.serves("before all");
        world.before = world.resident();
        world
    }

    fn abuser(&self) -> Http2 {
        Http2::connect(self.gateway.address(), PATIENCE)
    }

    /// Another client is answered.
    fn serves(&mut self, what: &str) {
        let response = self.other.request("POST", PATH, &JSON, &chat("other", false));
        assert_eq!(response.head.status, 200, "{what}");
    }

    fn resident(&self) -> usize {
        let text = read_to_string(format!("/proc/{}/status", self.gateway.process.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    fn added(&self) -> usize {
        self.resident().saturating_sub(self.before)
    }

    /// The abuser has gone: nothing is under way, and its memory is given back.
    fn is_as_before(&mut self, what: &str) {
        until_at_rest(&self.gateway);
        metric_is(&self.gateway, "ringway_http2_connections_open", &[], 0.0);
        let start = Instant::now();
        while self.added() > LEFT_MAX {
            assert!(start.elapsed() < PATIENCE, "{what}: {} bytes are left", self.added());
            self.serves(what);
        }
        self.serves(what);
        let lines = self.gateway.process.lines();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{what}: {lines:?}");
    }
}

/// A request with a body, on a stream whose answer does not come.
fn begun(stream: u32) -> Vec<u8> {
    request(stream, "POST", PATH, &JSON, Some(&chat("mock:fault=never", false)))
}

/// The beginning of a head whose rest does not come.
fn open_head(stream: u32) -> Vec<u8> {
    let mut head = request(stream, "GET", "/v1/models", &JSON[..1], None);
    head[4] &= !END_HEADERS;
    head
}

#[test]
fn floods_end_with_the_right_error_and_nobody_else_notices() {
    type Make = fn(u32) -> Vec<u8>;
    // How it begins, and what then comes again and again, of the stream that is next.
    let cases: [(&str, Vec<u8>, Make, u32); 9] = [
        (
            "heads and resets",
            Vec::new(),
            |next| [request(next, "GET", FILE, &JSON[..1], None), reset(next)].concat(),
            ENHANCE_YOUR_CALM,
        ),
        ("windows that are too wide", Vec::new(), |next| [begun(next), widen(next)].concat(), ENHANCE_YOUR_CALM),
        (
            "windows by nothing",
            Vec::new(),
            |next| [begun(next), frame(WINDOW_UPDATE, 0, next, &[0; 4])].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "a head without end",
            open_head(1),
            |_| frame(CONTINUATION, 0, 1, &field(b"x-a", &[b'a'; 16_000])),
            ENHANCE_YOUR_CALM,
        ),
        ("a head without end, of nothing", open_head(1), |_| frame(CONTINUATION, 0, 1, b""), ENHANCE_YOUR_CALM),
        (
            "settings",
            begun(1),
            |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1, 0, 4, 0, 0, 0xff, 0xff]),
            ENHANCE_YOUR_CALM,
        ),
        ("pings", begun(1), |_| frame(PING, 0, 0, &[0; 8]), ENHANCE_YOUR_CALM),
        ("parts of a body that are none", open_body(1), |_| frame(DATA, 0, 1, b""), ENHANCE_YOUR_CALM),
        ("priorities", begun(1), |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]), ENHANCE_YOUR_CALM),
    ];
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let mut world = World::new(&mock.url(), driver);
        for (name, first, make, reason) in &cases {
            let what = format!("{driver}: {name}");
            let mut abuser = world.abuser();
            abuser.send(first);
            for round in 0..200 {
                abuser.send(&(0..100).flat_map(|at| make(2 * (100 * round + at) + 1)).collect::<Vec<u8>>());
                if round % 20 == 0 {
                    world.serves(&what);
                }
            }
            let added = world.added();
            assert!(added <= ADDED_MAX, "{what}: {added} bytes more");
            let end = abuser.end();
            // What is sent on after the end may be told by a reset that overtakes the reason.
            assert!(end == Said::Ended(Some(*reason)) || end == Said::Ended(None), "{what}: {end:?}");
            drop(abuser);
            world.is_as_before(&what);
        }
        assert!(metric(&world.gateway, "ringway_http2_connections_failed_total", &[]) >= cases.len() as f64);
    }
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Opens a window beyond what any may be, for which the gateway has to reset the stream itself.
fn widen(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
}

/// A request whose body does not come.
fn open_body(stream: u32) -> Vec<u8> {
    let mut head = request(stream, "POST", PATH, &JSON, None);
    head[4] &= !END_STREAM;
    head
}

#[test]
fn the_reason_is_told_to_who_stops_in_time() {
    // Each just beyond what is allowed, so that nothing is unread when the connection ends.
    let mock = Mock::start(&[]);
    let world = World::new(&mock.url(), "deferred");
    for (name, bytes, reason) in [
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(1001), ENHANCE_YOUR_CALM),
        ("a head without end", [open_head(1), frame(CONTINUATION, 0, 1, b"").repeat(1001)].concat(), ENHANCE_YOUR_CALM),
        ("a window by nothing", [begun(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(), PROTOCOL_ERROR),
    ] {
        let mut abuser = world.abuser();
        abuser.send(&bytes);
        assert_eq!(abuser.end(), Said::Ended(Some(reason)), "{name}");
    }
    // A stream's fault is the stream's.
    let mut abuser = world.abuser();
    abuser.send(&[begun(1), widen(1)].concat());
    assert_eq!(abuser.answer(1), Said::Reset(FLOW_CONTROL_ERROR));
    abuser.send(&request(3, "GET", "/v1/models", &JSON[..1], None));
    assert!(matches!(abuser.answer(3), Said::Answer(200, _)));
}

#[test]
fn what_is_reset_at_once_asks_no_provider() {
    for driver in DRIVERS {
        let origin = Origin::start();
        let mut world = World::new(&origin.url(), driver);
        const ROUNDS: usize = 10;
        for round in 0..ROUNDS as u32 {
            let mut abuser = world.abuser();
            let pairs =
                (0..50).flat_map(|at| [request(2 * at + 1, "GET", FILE, &JSON[..1], None), reset(2 * at + 1)].concat());
            abuser.send(&pairs.collect::<Vec<u8>>());
            abuser.send(&frame(PING, 0, 0, &round.to_be_bytes().repeat(2)));
            // It has read all of it.
            while abuser.frame().expect("it is open").0 != PING {}
        }
        world.is_as_before(driver);
        let mut asked = 0;
        while !origin.is_left_alone() {
            drop(origin.accept());
            asked += 1;
        }
        println!("{driver}: {asked} of {} were asked for", 50 * ROUNDS);
        // Where a read ends between the two, the provider is asked.
        assert!(asked <= 50 * ROUNDS / 8, "{driver}: {asked} connections for {} requests that were reset", 50 * ROUNDS);
    }
}

#[test]
fn streams_that_the_gateway_has_to_reset_are_cancelled_upstream() {
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let mut world = World::new(&mock.url(), driver);
        let mut abuser = world.abuser();
        let cancelled = |stats: &serde_json::Value| stats["cancelled"].as_u64().expect("a number");
        let before = cancelled(&mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0));
        for at in 0..20 {
            abuser.send(&begun(2 * at + 1));
        }
        mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 20);
        for at in 0..20 {
            abuser.send(&widen(2 * at + 1));
        }
        mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0 && cancelled(stats) == before + 20);
        world.serves(driver);
        drop(abuser);
        world.is_as_before(driver);
    }
}

#[test]
fn a_head_that_unpacks_to_megabytes_is_refused_and_costs_nothing() {
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let mut world = World::new(&mock.url(), driver);
        let mut abuser = world.abuser();
        let mut block: Vec<u8> = Vec::new();
        for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/v1/models")] {
            block.extend(field(name.as_bytes(), value.as_bytes()));
        }
        // Into the table once (RFC 7541 §6.2.1), then by one byte each time.
        let mut entry = field(b"x-a", &[b'a'; 3960]);
        entry[0] = 0x40;
        let bomb = [block.clone(), entry, vec![0xbe; 12_000]].concat();
        let mut said = Vec::new();
        for stream in (1..41).step_by(2) {
            abuser.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb));
            world.serves(driver);
            said.push(abuser.answer(stream));
            if matches!(said.last(), Some(Said::Ended(_))) {
                break;
            }
        }
        println!("{driver}: {said:?}");
        for said in &said {
            let is_refused =
                matches!(said, Said::Answer(431, _) | Said::Reset(_) | Said::Ended(Some(ENHANCE_YOUR_CALM)));
            assert!(is_refused, "{driver}: {said:?}");
        }
        assert!(world.added() <= ADDED_MAX, "{driver}: {} bytes more", world.added());
        drop(abuser);
        world.is_as_before(driver);
    }
}

#[test]
fn a_hundred_streams_whose_windows_stay_shut_are_held_within_their_bounds() {
    let mock = Mock::start(&[]);
    let crumbs: Vec<u8> = field(b"cookie", b"a").repeat(1400);
    let long = chat("mock:ttft=0,gap=0,tokens=100,token-bytes=2000", true);
    for driver in DRIVERS {
        for (name, extra, body) in [("cookies in crumbs", crumbs.as_slice(), &b"{}"[..]), ("long answers", b"", &long)]
        {
            let what = format!("{driver}: {name}");
            let mut world = World::new(&mock.url(), driver);
            let mut abuser = Http2::connect_with(world.gateway.address(), PATIENCE, 0);
            for stream in (1..201).step_by(2) {
                let mut block = Vec::new();
                let path = if extra.is_empty() { PATH } else { FILE };
                for (name, value) in [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)] {
                    block.extend(field(name.as_bytes(), value.as_bytes()));
                }
                for (name, value) in JSON {
                    block.extend(field(name.as_bytes(), value.as_bytes()));
                }
                block.extend_from_slice(extra);
                abuser.send(&common::http2::head(stream, &block, false));
                abuser.send(&frame(DATA, END_STREAM, stream, body));
                if stream % 20 == 1 {
                    world.serves(&what);
                }
            }
            // Each of them has been answered, as far as it can be.
            let mut heads = 0;
            while heads < 100 {
                let frame = abuser.next();
                assert_eq!(frame.kind, HEADERS, "{what}: {frame:?}");
                heads += 1;
            }
            for _ in 0..20 {
                world.serves(&what);
            }
            let added = world.added();
            println!("{what}: {added} bytes more");
            assert!(added <= ADDED_MAX, "{what}: {added} bytes more");
            drop(abuser);
            world.is_as_before(&what);
        }
    }
}

/// Connections to `port` that are over, and whose local ports are not free yet.
fn waiting_to(port: u16) -> usize {
    let table = read_to_string("/proc/net/tcp").expect("the kernel's list");
    let end = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2].ends_with(&end) && row[3] == "06").count()
}

#[test]
fn who_asks_and_leaves_uses_up_no_ports() {
    let mock = Mock::start(&[]);
    let port = mock.url().rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()?.parse().ok()).expect("a port");
    for driver in DRIVERS {
        let mut world = World::new(&mock.url(), driver);
        let before = waiting_to(port);
        for _ in 0..5 {
            let mut abuser = world.abuser();
            let streams = || (1..201).step_by(2);
            abuser.send(&streams().flat_map(begun).collect::<Vec<u8>>());
            // In whatever state they are: being connected to, asked, or waiting.
            abuser.send(&streams().flat_map(reset).collect::<Vec<u8>>());
            abuser.send(&frame(PING, 0, 0, &[1; 8]));
            while abuser.frame().expect("it is open").0 != PING {}
        }
        world.is_as_before(driver);
        let left = waiting_to(port).saturating_sub(before);
        println!("{driver}: {left} of 500");
        assert!(left <= 50, "{driver}: {left} of 500 requests leave a port in use");
    }
}
