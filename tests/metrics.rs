//! What the gateway counts is what happened.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use common::https::{BOTH, client};
use common::metrics::{Sample, ask, scrape, scrape_when, sum};
use common::origin::{DONE, FINISH, Peer, ROLE, content};
use common::pem::{Ca, Folder};
use common::{
    Config, Dns, Gateway, Https, JSON, Mock, Origin, PATIENCE, chat, metric, metric_is, stream_chat, until_at_rest,
};

const PATH: &str = "/v1/chat/completions";

fn signal(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.process.id() as i32), signal).expect("the gateway runs");
}

#[test]
fn known_traffic_has_exact_counts() {
    let mock = Mock::start(&[]);
    let models = "[[models]]\nname = \"named\"\nroute = [{ provider = \"mock\", model = \"mock:tokens=4,ttft=0ms,gap=1ms\" }]\n\
                  [[models]]\nname = \"*\"\nroute = [{ provider = \"mock\" }]\n";
    let gateway = Gateway::start(&Config::new(&[mock.url()]).models(models).admin());
    let body = chat("named", false);
    for _ in 0..3 {
        assert_eq!(gateway.connect().request("POST", PATH, &JSON, &body).head.status, 200);
    }
    let (_, mut events) = stream_chat(gateway.address(), "mock:tokens=7,ttft=0ms,gap=1ms");
    let answer: usize = events.all().iter().map(|event| event.raw.len()).sum();
    assert_eq!(gateway.connect().request("POST", PATH, &[], &body).head.status, 401);
    assert_eq!(gateway.connect().request("GET", "/nothing", &JSON, b"").head.status, 404);

    metric_is(&gateway, "ringway_requests_total", &[], 6.0);
    let samples = scrape(&gateway);
    let named = [("model", "named"), ("endpoint", "mock/0"), ("dialect", "openai"), ("streamed", "false")];
    let other = [("model", "other"), ("endpoint", "mock/0"), ("dialect", "openai"), ("streamed", "true")];
    let none = [("model", "none"), ("endpoint", "none"), ("dialect", "openai"), ("streamed", "false")];
    let is = |name: &str, route: &[(&str, &str)], more: &[(&str, &str)], value: f64| {
        let labels = [route, more].concat();
        assert_eq!(sum(&samples, name, &labels), value, "{name} {labels:?}");
    };
    for (route, status, state, count) in
        [(named, "2xx", "complete", 3.0), (other, "2xx", "complete", 1.0), (none, "4xx", "refused", 2.0)]
    {
        is("ringway_requests_total", &route, &[], count);
        is("ringway_requests_total", &route, &[("status", status), ("state", state)], count);
        is("ringway_request_duration_seconds_count", &route, &[], count);
        is("ringway_request_duration_seconds_bucket", &route, &[("le", "+Inf")], count);
        let answered = if state == "complete" { count } else { 0.0 };
        is("ringway_added_latency_seconds_count", &route, &[], answered);
    }
    is("ringway_ttft_seconds_count", &[], &[], 1.0);
    is("ringway_ttft_seconds_count", &other, &[], 1.0);
    is("ringway_tokens_total", &named, &[("kind", "output")], 12.0);
    is("ringway_tokens_total", &other, &[("kind", "output")], 7.0);
    is("ringway_request_body_bytes_total", &named, &[], (3 * body.len()) as f64);
    is("ringway_answer_body_bytes_total", &other, &[], answer as f64);
    is("ringway_errors_total", &[], &[("origin", "client"), ("phase", "admission")], 2.0);
    is("ringway_errors_total", &[], &[], 2.0);
    is("ringway_cancelled_total", &[], &[], 0.0);
    is("ringway_retries_total", &[], &[], 0.0);
    is("ringway_upstream_attempts_total", &[], &[("endpoint", "mock/0")], 4.0);
    let (opened, reused) = (
        metric(&gateway, "ringway_upstream_connections_opened_total", &[]),
        metric(&gateway, "ringway_upstream_connections_reused_total", &[]),
    );
    assert_eq!((opened + reused, opened >= 1.0), (4.0, true));
    is("ringway_client_connections_accepted_total", &[], &[("listener", &gateway.address().to_string())], 6.0);
    is("ringway_metric_routes", &[], &[], 3.0);
    until_at_rest(&gateway);
    // Its clients have gone.
    drop(events);
    metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
}

#[test]
fn events_of_a_stream_are_measured_one_from_the_other() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin());
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("0"));
    let head = client.head();
    let mut events = client.events(&head);
    events.next_event();
    metric_is(&gateway, "ringway_requests_in_flight", &[], 1.0);
    metric_is(&gateway, "ringway_upstream_requests_outstanding", &[("endpoint", "mock/0")], 1.0);
    metric_is(&gateway, "ringway_client_connections_open", &[], 1.0);
    for at in 1..=5 {
        peer.chunk(content(&at.to_string()));
        events.next_event().expect("an event");
        metric_is(&gateway, "ringway_event_gap_seconds_count", &[("streamed", "true")], f64::from(at));
    }
    // A comment is no content.
    peer.chunk(": still here\n\n").chunk(content("6"));
    events.next_event();
    peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    events.all();
    metric_is(&gateway, "ringway_requests_total", &[("state", "complete")], 1.0);
    until_at_rest(&gateway);
}

#[test]
fn what_is_asked_of_the_admin_listener_it_answers() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    assert_eq!(ask(&gateway, "/healthz"), (200, "ok\n".into()));
    assert_eq!(ask(&gateway, "/readyz"), (200, "ok\n".into()));
    let (status, text) = ask(&gateway, "/");
    assert_eq!(status, 404);
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert!(text.contains(path), "{text}");
        let mut client = common::Client::connect(gateway.admin());
        let response = client.request("HEAD", path, &[], b"");
        assert_eq!((response.head.status, response.body.len()), (200, 0), "{path}");
        let response = client.request("POST", path, &[], b"");
        assert_eq!((response.head.status, response.head.get("allow")), (405, Some("GET, HEAD")), "{path}");
    }
    scrape_when(&gateway, "workers have used CPU", |samples| {
        sum(samples, "ringway_worker_cpu_seconds_total", &[("worker", "0")]) > 0.0
    });
    let status: serde_json::Value = serde_json::from_str(&ask(&gateway, "/status").1).expect("JSON");
    assert_eq!((&status["stage"], &status["draining"]), (&"ready".into(), &false.into()), "{status:#}");
    assert_eq!(status["listeners"][0]["address"], gateway.address().to_string(), "{status:#}");
    assert_eq!(status["endpoints"][0]["endpoint"], "mock/0", "{status:#}");
    assert_eq!(status["workers"][0]["core"], 0, "{status:#}");
}

/// How an exchange ends, and how that is counted.
struct Case {
    name: &'static str,
    model: &'static str,
    /// What the client does: sends it all, or leaves within its body.
    sends: Sends,
    /// What the provider does with the request; it closes the connection unless it gives it back. `None`: it is not asked.
    provider: Option<fn(Peer) -> Option<Peer>>,
    /// Whether the client leaves then.
    leaves: bool,
    state: &'static str,
    cancelled: Option<&'static str>,
    error: Option<(&'static str, &'static str)>,
    failed: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Sends {
    Whole,
    Stream,
    HalfABody,
}

#[test]
fn every_end_is_counted_once_and_leaves_nothing_behind() {
    use Sends::{HalfABody, Stream, Whole};
    let origin = Origin::start();
    let models = "[[models]]\nname = \"m\"\nroute = [{ provider = \"mock\" }]\n\
                  [[models]]\nname = \"hasty\"\nroute = [{ provider = \"mock\" }]\n\
                  timers = { first_token = \"60ms\", between_tokens = \"60ms\" }\n\
                  [[models]]\nname = \"away\"\nroute = [{ provider = \"away\" }]\n";
    let away = "[[providers]]\nname = \"away\"\n[[providers.endpoints]]\nurl = \"http://127.0.0.1:1/v1\"";
    let gateway = Gateway::start(&Config::new(&[origin.url()]).models(models).and(away).admin());
    let case = Case {
        name: "",
        model: "m",
        sends: Whole,
        provider: Some(Some),
        leaves: false,
        state: "complete",
        cancelled: None,
        error: None,
        failed: None,
    };
    let cases = [
        Case {
            name: "an answer",
            provider: Some(|mut peer| {
                peer.answer("{}");
                Some(peer)
            }),
            ..case
        },
        Case {
            name: "a stream",
            sends: Stream,
            provider: Some(|mut peer| {
                peer.begin_stream().chunk(content("a")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
                Some(peer)
            }),
            ..case
        },
        Case {
            name: "no such model",
            model: "unknown",
            provider: None,
            state: "refused",
            error: Some(("client", "admission")),
            ..case
        },
        Case {
            name: "gone within its body",
            sends: HalfABody,
            provider: None,
            leaves: true,
            state: "client_gone",
            cancelled: Some("request_body"),
            ..case
        },
        Case {
            name: "gone before an answer",
            leaves: true,
            state: "client_gone",
            cancelled: Some("first_byte"),
            ..case
        },
        Case {
            name: "gone within the answer's head",
            provider: Some(|mut peer| {
                peer.send("HTTP/1.1 200 OK\r\ncontent-");
                Some(peer)
            }),
            leaves: true,
            state: "client_gone",
            cancelled: Some("answer_head"),
            ..case
        },
        Case {
            name: "gone before content",
            sends: Stream,
            provider: Some(|mut peer| {
                peer.begin_stream().chunk(ROLE);
                Some(peer)
            }),
            leaves: true,
            state: "client_gone",
            cancelled: Some("first_content"),
            ..case
        },
        Case {
            name: "gone within the stream",
            sends: Stream,
            provider: Some(|mut peer| {
                peer.begin_stream().chunk(content("a"));
                Some(peer)
            }),
            leaves: true,
            state: "client_gone",
            cancelled: Some("relay"),
            ..case
        },
        Case {
            name: "cannot be reached",
            model: "away",
            provider: None,
            state: "upstream_error",
            error: Some(("upstream", "connect")),
            failed: Some("connect"),
            ..case
        },
        Case {
            name: "closes without an answer",
            provider: Some(|_| None),
            state: "upstream_error",
            error: Some(("upstream", "first_byte")),
            failed: Some("first_byte"),
            ..case
        },
        Case {
            name: "does not speak HTTP",
            provider: Some(|mut peer| {
                peer.send("SSH-2.0\r\n\r\n");
                Some(peer)
            }),
            state: "upstream_error",
            error: Some(("upstream", "answer_head")),
            failed: Some("answer_head"),
            ..case
        },
        Case {
            name: "answers with an error",
            provider: Some(|mut peer| {
                peer.send("HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}");
                Some(peer)
            }),
            state: "upstream_error",
            error: Some(("upstream", "relay")),
            ..case
        },
        Case {
            name: "breaks off",
            sends: Stream,
            provider: Some(|mut peer| {
                peer.begin_stream().chunk(content("a"));
                None
            }),
            state: "truncated",
            error: Some(("upstream", "relay")),
            failed: Some("relay"),
            ..case
        },
        Case {
            name: "is silent",
            model: "hasty",
            state: "timeout",
            error: Some(("upstream", "first_byte")),
            failed: Some("first_byte"),
            ..case
        },
        Case {
            name: "falls silent",
            model: "hasty",
            sends: Stream,
            provider: Some(|mut peer| {
                peer.begin_stream().chunk(content("a"));
                Some(peer)
            }),
            state: "timeout",
            error: Some(("upstream", "relay")),
            failed: Some("relay"),
            ..case
        },
    ];
    for (at, case) in cases.iter().enumerate() {
        let before = scrape(&gateway);
        play(&gateway, &origin, case);
        let count = at as f64 + 1.0;
        let after = scrape_when(&gateway, case.name, |samples| sum(samples, "ringway_requests_total", &[]) == count);
        let grew = |name: &str, labels: &[(&str, &str)]| sum(&after, name, labels) - sum(&before, name, labels);
        let ends: Vec<_> = after.iter().filter(|end| end.name == "ringway_requests_total").collect();
        assert_eq!(grew("ringway_requests_total", &[("state", case.state)]), 1.0, "{}: {ends:?}", case.name);
        assert_eq!(grew("ringway_request_duration_seconds_count", &[]), 1.0, "{}", case.name);
        for (name, is_counted) in [
            ("ringway_cancelled_total", case.cancelled.is_some()),
            ("ringway_errors_total", case.error.is_some()),
            ("ringway_upstream_failures_total", case.failed.is_some()),
        ] {
            assert_eq!(grew(name, &[]), f64::from(u8::from(is_counted)), "{}: {name}", case.name);
        }
        if let Some(phase) = case.cancelled {
            assert_eq!(grew("ringway_cancelled_total", &[("phase", phase)]), 1.0, "{}", case.name);
        }
        if let Some((origin, phase)) = case.error {
            let labels = [("origin", origin), ("phase", phase)];
            assert_eq!(grew("ringway_errors_total", &labels), 1.0, "{}: {labels:?}", case.name);
        }
        if let Some(phase) = case.failed {
            assert_eq!(grew("ringway_upstream_failures_total", &[("phase", phase)]), 1.0, "{}", case.name);
        }
        until_at_rest(&gateway);
        metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
    }
}

fn play(gateway: &Gateway, origin: &Origin, case: &Case) {
    let mut client = gateway.connect();
    let body = chat(case.model, case.sends == Sends::Stream);
    if case.sends == Sends::HalfABody {
        let head =
            format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-length: 9\r\n\r\n{{", JSON[0].1);
        client.send(head.as_bytes());
        metric_is(gateway, "ringway_requests_in_flight", &[], 1.0);
        return;
    }
    client.send_request("POST", PATH, &JSON, &body);
    let peer = case.provider.and_then(|provider| {
        let mut peer = origin.accept();
        peer.request();
        provider(peer)
    });
    match case.leaves {
        true if case.cancelled == Some("relay") => drop(client.head()),
        // What the provider sent is to be there before the client's end is.
        true => until_read(origin),
        false => {
            let head = client.head();
            client.body("POST", head);
        }
    }
    drop(client);
    if case.leaves
        && let Some(mut peer) = peer
    {
        peer.ended();
    }
}

/// Waits until the gateway has read all that the provider has sent it; only the kernel knows.
fn until_read(origin: &Origin) {
    let port = format!(":{:04X}", origin.address.port());
    let start = Instant::now();
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of sockets");
        // Number, local and remote address, state (01 is established), bytes not yet acknowledged and not yet read.
        let mut sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let is_unread = sockets.any(|socket| {
            let is_ours = socket[1].ends_with(&port) || socket[2].ends_with(&port);
            is_ours && socket[3] == "01" && socket[4] != "00000000:00000000"
        });
        if !is_unread {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "the gateway does not read:\n{table}");
        std::thread::yield_now();
    }
}

#[test]
fn a_gateway_that_drains_is_not_ready_before_it_refuses_clients() {
    let origin = Origin::start();
    let mut gateway = Gateway::start(&Config::new(&[origin.url()]).admin());
    let mut client = gateway.connect();
    client.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("a"));
    let head = client.head();
    assert_eq!(metric(&gateway, "ringway_ready", &[]), 1.0);
    signal(&gateway, Signal::SIGTERM);
    until_refused(&gateway);
    let (status, why) = ask(&gateway, "/readyz");
    assert_eq!(status, 503);
    assert!(why.contains("draining"), "{why}");
    assert_eq!(ask(&gateway, "/healthz").0, 200);
    let samples = scrape(&gateway);
    for (name, value) in [("ringway_ready", 0.0), ("ringway_draining", 1.0), ("ringway_requests_in_flight", 1.0)] {
        assert_eq!(sum(&samples, name, &[]), value, "{name}");
    }
    assert_eq!(status_now(&gateway)["stage"], "draining");
    peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    client.events(&head).all();
    assert_eq!(gateway.process.wait().code(), Some(0));
}

#[test]
fn names_are_counted_and_shown() {
    let mock = Mock::start(&[]);
    let url = format!("http://localhost:{}/v1", mock.address.port());
    let gateway = Gateway::start(&Config::new(&[url, mock.url()]).admin());
    metric_is(&gateway, "ringway_dns_lookups_total", &[("result", "found")], 1.0);
    let samples = scrape(&gateway);
    for (name, value) in [("ringway_dns_names", 1.0), ("ringway_dns_names_failing", 0.0), ("ringway_ready", 1.0)] {
        assert_eq!(sum(&samples, name, &[]), value, "{name}");
    }
    let age = sum(&samples, "ringway_dns_answer_age_seconds", &[]);
    assert!((0.0..20.0).contains(&age), "{age}");
    let names = &status_now(&gateway)["names"]["localhost"];
    assert!(names.as_array().is_some_and(|names| names.contains(&"127.0.0.1".into())), "{names}");
}

/// Waits until no client is taken any more.
fn until_refused(gateway: &Gateway) {
    let start = Instant::now();
    while TcpStream::connect(gateway.address()).is_ok() {
        assert!(start.elapsed() < PATIENCE, "clients are still taken");
        std::thread::yield_now();
    }
}

fn status_now(gateway: &Gateway) -> serde_json::Value {
    serde_json::from_str(&ask(gateway, "/status").1).expect("JSON")
}

#[test]
fn scrapes_during_load_are_whole_and_never_go_back() {
    let mock = Mock::start(&[]);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
    let top = format!("cores = \"0-{}\"", cores - 1);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).top(&top).admin());
    let requests = 120;
    std::thread::scope(|scope| {
        let loads = [0, 1, 2].map(|_| {
            scope.spawn(|| {
                for at in 0..requests / 3 {
                    // A fresh connection each: the kernel spreads them over the workers.
                    let body = chat("mock:ttft=0ms,gap=0ms,tokens=3", at % 2 == 0);
                    assert_eq!(gateway.connect().request("POST", PATH, &JSON, &body).head.status, 200);
                }
            })
        });
        let (mut seen, mut scrapes) = (0.0, 0);
        while !loads.iter().all(|load| load.is_finished()) {
            let (status, text) = ask(&gateway, "/metrics");
            assert_eq!(status, 200);
            let count = sum(&common::metrics::samples(&text), "ringway_requests_total", &[]);
            assert!(count >= seen, "{count} after {seen}");
            (seen, scrapes) = (count, scrapes + 1);
        }
        assert!(scrapes > 0);
    });
    metric_is(&gateway, "ringway_requests_total", &[("state", "complete")], f64::from(requests));
    metric_is(&gateway, "ringway_request_duration_seconds_count", &[], f64::from(requests));
    until_at_rest(&gateway);
    assert_eq!(scrape(&gateway).iter().filter(|sample| sample.name == "ringway_requests_in_flight").count(), cores);
}

#[test]
fn without_an_admin_table_nobody_can_look_in_and_beyond_loopback_it_must_be_said() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    assert!(!gateway.process.lines().iter().any(|line| line.contains("admin")));
    let (status, said) = Gateway::start_in_vain(&Config::new(&[mock.url()]).and("[admin]\naddress = \"0.0.0.0:0\""));
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("admin.address") && said.contains("access = \"open\""), "{said}");
    let open = Gateway::start(&Config::new(&[mock.url()]).and("[admin]\naddress = \"0.0.0.0:0\"\naccess = \"open\""));
    let mut client = common::Client::connect(([127, 0, 0, 1], open.admin().port()).into());
    assert_eq!(client.request("GET", "/healthz", &[], b"").head.status, 200);
}

#[test]
fn admin_clients_that_misbehave_harm_nobody() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    for (sent, status) in [
        ("\0\u{1}\r\n\r\n".to_owned(), 400),
        ("GET /healthz HTTP/9\r\n\r\n".to_owned(), 400),
        (format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(20_000)), 431),
    ] {
        let mut client = common::Client::connect(gateway.admin());
        let _ = client.try_send(sent.as_bytes());
        assert_eq!(client.head().status, status, "{:?}", &sent[..30.min(sent.len())]);
    }
    // One that asks for much and reads none of it, others that say nothing at all.
    let mut deaf = common::Client::connect(gateway.admin());
    (0..50).for_each(|_| drop(deaf.try_send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")));
    let silent: Vec<_> = (0..60).map(|_| common::Client::connect(gateway.admin())).collect();
    assert_eq!(ask(&gateway, "/healthz").0, 200);
    // At the bound of 64 connections further ones are closed at once.
    let rest: Vec<_> = (0..8).map(|_| common::Client::connect(gateway.admin())).collect();
    let mut last = common::Client::connect(gateway.admin());
    assert!(last.is_closed());
    assert_eq!(gateway.connect().request("GET", "/v1/models", &JSON, b"").head.status, 200);
    drop((silent, rest));
    let start = Instant::now();
    loop {
        let mut client = common::Client::connect(gateway.admin());
        if client.try_send(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").is_ok() && !client.is_closed() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "places are not given back");
    }
}

#[test]
fn workers_say_how_busy_they_are_and_what_they_have_with_the_kernel() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    let of = |samples: &[Sample], name: &str| sum(samples, name, &[("worker", "0")]);
    let depth = "ringway_worker_ring_depth";
    let before = metric(&gateway, depth, &[("worker", "0")]);
    const MORE: usize = 40;
    let mut clients: Vec<_> = (0..MORE).map(|_| gateway.connect()).collect();
    scrape_when(&gateway, "a read for each that says nothing", |samples| of(samples, depth) >= before + MORE as f64);
    // Half of them wait for an answer now.
    for client in clients.iter_mut().skip(MORE / 2) {
        client.send_request("POST", PATH, &JSON, &chat("mock:ttft=60s", true));
    }
    metric_is(&gateway, "ringway_requests_in_flight", &[], (MORE / 2) as f64);
    // What was counted before is more than a second old by then.
    let since = metric(&gateway, "ringway_uptime_seconds", &[]) + 2.0;
    scrape_when(&gateway, "a read for each that waits, and one for its answer", |samples| {
        let late = sum(samples, "ringway_worker_loop_lag_seconds", &[]);
        let depth = of(samples, depth);
        sum(samples, "ringway_uptime_seconds", &[]) > since + late && depth >= before + (MORE + MORE / 2) as f64
    });
    drop(clients);
    scrape_when(&gateway, "nobody is left", |samples| of(samples, depth) < before + (MORE / 4) as f64);

    const BUSY: f64 = 0.05;
    let (busy, stop) = ("ringway_worker_busy_ratio", AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    pipelined(&gateway, 50);
                }
            });
        }
        // Whatever the scrapes say, the load ends.
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            scrape_when(&gateway, "it has work", |samples| of(samples, busy) > BUSY)
        }));
        stop.store(true, Ordering::Relaxed);
        let samples = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(of(&samples, busy) <= 1.0, "{samples:?}");
    });
    scrape_when(&gateway, "it has none", |samples| of(samples, busy) < BUSY);
}

/// Has `count` requests answered over one connection, all sent ahead.
fn pipelined(gateway: &Gateway, count: usize) {
    let one = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", JSON[0].1);
    let mut client = common::Client::connect(*gateway.addresses.last().expect("a listener"));
    std::thread::scope(|scope| {
        let mut writer = client.socket().try_clone().expect("a socket");
        let all = one.repeat(count);
        scope.spawn(move || writer.write_all(all.as_bytes()).expect("it is read"));
        for _ in 0..count {
            assert_eq!(client.response("GET").head.status, 200);
        }
    });
}

/// A pipe in `folder` that takes an access log until it is full, and the table that has it written there.
fn pipe_for_records(folder: &Folder) -> (PathBuf, String) {
    let path = folder.path("access.jsonl");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let table = format!("[access_log]\npath = {:?}", path.display().to_string());
    (path, table)
}

/// More requests than such a pipe, the buffer before it and the queue of records hold.
fn overflow(gateway: &Gateway) -> f64 {
    const BATCH: usize = 500;
    let batches = 40;
    (0..batches).for_each(|_| pipelined(gateway, BATCH));
    (batches * BATCH) as f64
}

#[test]
fn records_that_cannot_be_written_are_counted_and_no_others_are_missing() {
    let (mock, folder) = (Mock::start(&[]), Folder::new());
    let (pipe, table) = pipe_for_records(&folder);
    let mut gateway = Gateway::start(&Config::new(&[mock.url()]).and(&table).admin());
    let dropped = "ringway_log_records_dropped_total";
    metric_is(&gateway, dropped, &[], 0.0);
    let sent = overflow(&gateway);
    metric_is(&gateway, "ringway_requests_total", &[], sent);
    let lost = metric(&gateway, dropped, &[]);
    assert!(lost > 0.0 && lost < sent, "{lost} of {sent}");
    // Now somebody reads, to the end of the gateway.
    let lines = std::thread::spawn(move || BufReader::new(File::open(pipe).expect("the pipe")).lines().count());
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.process.wait().code(), Some(0));
    assert_eq!(lines.join().expect("lines") as f64, sent - lost, "of {sent}, {lost} lost");
}

#[test]
fn quantiles_are_those_of_what_happened() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]).admin());
    let mut client = gateway.connect();
    let start = Instant::now();
    client.send_request("POST", PATH, &JSON, &chat("m", true));
    let mut peer = origin.accept();
    peer.request();
    let asked = start.elapsed();
    peer.begin_stream().chunk(content("a"));
    let head = client.head();
    let mut events = client.events(&head);
    events.next_event().expect("an event");
    let first = start.elapsed();
    peer.chunk(content("b"));
    events.next_event().expect("an event");
    peer.chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    events.all();
    metric_is(&gateway, "ringway_requests_total", &[("state", "complete")], 1.0);
    let [all, asked, first] = [start.elapsed(), asked, first].map(|time| time.as_secs_f64());

    let samples = scrape(&gateway);
    for (name, count, at_most) in [
        ("request_duration", 1.0, all),
        ("added_latency", 1.0, all),
        ("ttft", 1.0, first),
        // From a to b, and from b to the finish: both after the provider was asked.
        ("event_gap", 2.0, all - asked),
    ] {
        let counted =
            |suffix: &str| sum(&samples, &format!("ringway_{name}_seconds_{suffix}"), &[("streamed", "true")]);
        let total = counted("sum");
        assert_eq!(counted("count"), count, "{name}");
        assert!(total > 0.0 && total <= at_most, "{name}: {total}, at most {at_most}");
        let quantiles = samples.iter().filter(|sample| sample.name == format!("ringway_{name}_quantile_seconds"));
        let (told, values): (Vec<_>, Vec<f64>) =
            quantiles.map(|sample| (sample.label("quantile"), sample.value)).unzip();
        assert_eq!(told, ["0.5", "0.9", "0.99", "0.999"].map(Some), "{name}");
        // Of one value each is that one; of two, the median is the lower and the others are the higher. None is below what it
        // stands for, nor more than a 128th above; a nanosecond is what is lost in adding.
        let together = if count == 1.0 { values[3] } else { values[0] + values[3] };
        assert!(
            (total - 1e-9..=total * (1.0 + 1.0 / 128.0) + 1e-9).contains(&together),
            "{name}: {values:?} of {total}"
        );
        let expected = if count == 1.0 { [together; 4] } else { [values[0], values[3], values[3], values[3]] };
        assert_eq!(values, expected, "{name}");
        assert!(values.is_sorted() && values[0] > 0.0, "{name}: {values:?}");
    }
    // One lies within the other.
    let total = |name: &str| sum(&samples, &format!("ringway_{name}_seconds_sum"), &[]);
    assert!(total("ttft") + total("event_gap") <= total("request_duration"), "{samples:?}");
}

/// Holds a scrape against what promtool knows of the format and of good names; and no series may come twice, which Prometheus
/// finds out and promtool does not.
fn lint(text: &str) {
    let mut seen = HashSet::new();
    for mut sample in common::metrics::samples(text) {
        sample.labels.sort();
        let series = (sample.name, sample.labels);
        assert!(!seen.contains(&series), "twice: {series:?}");
        seen.insert(series);
    }
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(promtool) => promtool,
        Err(error) => panic!("promtool: {error}; tests/run installs it (Debian package prometheus)"),
    };
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("its output");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).admin());
    lint(&ask(&gateway, "/metrics").1);
    let (_, mut events) = stream_chat(gateway.address(), "mock:tokens=3,ttft=0ms,gap=1ms");
    events.all();
    metric_is(&gateway, "ringway_requests_total", &[], 1.0);
    lint(&ask(&gateway, "/metrics").1);
}

#[test]
fn promtool_finds_nothing_to_complain_of_where_everything_has_happened() {
    let (mock, dns, folder, authority) = (Mock::start(&[]), Dns::start(), Folder::new(), Ca::new());
    dns.has("api.test", &["127.0.0.1"]);
    folder.pair("first", &authority.sign(&["first.test"]));
    let (_, table) = pipe_for_records(&folder);
    let shown = |name: &str| folder.path(name).display().to_string();
    let tls = format!(
        "[listeners.tls]\ncertificates = [{{ chain = {:?}, key = {:?} }}]",
        shown("first.pem"),
        shown("first.key")
    );
    let more = format!(
        "{table}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n[resolver]\nservers = [\"{}\"]\n\
         [[providers]]\nname = \"away\"\n[[providers.endpoints]]\nurl = \"http://127.0.0.1:1/v1\"\n\
         [[providers]]\nname = \"nameless\"\n[[providers.endpoints]]\nurl = \"http://nowhere.test/v1\"\n",
        dns.address
    );
    // Names that need care within quotes.
    let models = "[[models]]\nname = 'a\"b\\c'\nroute = [{ provider = \"mock\", model = \"mock:tokens=2,ttft=0ms\" }]\n\
                  [[models]]\nname = \"away\"\nroute = [{ provider = \"away\" }]\n\
                  [[models]]\nname = \"nameless\"\nroute = [{ provider = \"nameless\" }]\n\
                  [[models]]\nname = \"*\"\nroute = [{ provider = \"mock\" }]\n";
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(2));
    let url = format!("http://api.test:{}/v1", mock.address.port());
    let config = Config::new(&[url]).top(&format!("cores = \"0-{}\"", cores - 1)).listener(&tls).models(models);
    let gateway = Gateway::start(&config.and(&more).admin());

    let trusting = client(&authority, BOTH);
    for _ in 0..2 {
        let mut https = Https::connect(gateway.address(), &trusting, "first.test");
        let (head, _) = https.request("POST", PATH, &JSON, &chat("a\"b\\c", true));
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
    assert_eq!(gateway.connect().request("GET", "/v1/models", &JSON, b"").head.status, 400);
    let plain = gateway.addresses[1];
    for (model, status) in [("away", 502), ("nameless", 502), ("mock:tokens=2,ttft=0ms", 200)] {
        let response = common::Client::connect(plain).request("POST", PATH, &JSON, &chat(model, false));
        assert_eq!(response.head.status, status, "{model}: {}", response.text());
    }
    let (_, mut events) = stream_chat(plain, "mock:tokens=1000,ttft=0ms,gap=60s");
    events.next_event().expect("an event");
    drop(events);
    metric_is(&gateway, "ringway_cancelled_total", &[("phase", "relay")], 1.0);
    overflow(&gateway);

    for (name, labels) in [
        ("ringway_requests_total", &[("model", "a\"b\\c"), ("streamed", "true")][..]),
        ("ringway_requests_total", &[("state", "upstream_error")]),
        ("ringway_errors_total", &[("origin", "upstream")]),
        ("ringway_upstream_failures_total", &[("endpoint", "away/0"), ("phase", "connect")]),
        ("ringway_upstream_connections_reused_total", &[]),
        ("ringway_tls_handshakes_total", &[("side", "client"), ("result", "full")]),
        ("ringway_tls_handshakes_total", &[("side", "client"), ("result", "resumed")]),
        ("ringway_tls_handshakes_total", &[("side", "client"), ("result", "plain_http")]),
        ("ringway_dns_lookups_total", &[("result", "found")]),
        ("ringway_dns_lookups_total", &[("result", "no_name")]),
        ("ringway_dns_names_failing", &[]),
        ("ringway_log_records_dropped_total", &[]),
        ("ringway_event_gap_quantile_seconds", &[("quantile", "0.999")]),
        ("ringway_ttft_seconds_bucket", &[("le", "+Inf")]),
        ("ringway_worker_cpu_seconds_total", &[]),
    ] {
        scrape_when(&gateway, &format!("there is some {name}{labels:?}"), |samples| sum(samples, name, labels) > 0.0);
    }
    let text = ask(&gateway, "/metrics").1;
    let workers = |sample: &&Sample| sample.name == "ringway_worker_busy_ratio";
    assert_eq!(common::metrics::samples(&text).iter().filter(workers).count(), cores);
    lint(&text);
}
