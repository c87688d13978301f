//! Names of providers: asked for again in time, kept when they cannot be resolved, and raced over all their addresses.

mod common;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::origin::{DONE, FINISH, content, serve};
use common::{Client, Config, Dns, End, Ended, Gateway, JSON, Origin, PATIENCE, Response, Says, chat, text_of};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, getsockname, listen, socket};

/// Providers on the same port of several addresses; each answers with its own and counts its connections.
struct Providers {
    port: u16,
    connections: Vec<Arc<AtomicUsize>>,
}

impl Providers {
    /// `keep`: connections carry more than one request.
    fn start(addresses: &[&str], keep: bool) -> Providers {
        let listeners = (0..100).find_map(|_| {
            let first = TcpListener::bind((addresses[0], 0)).expect("a free port");
            let port = first.local_addr().expect("its address").port();
            let others = addresses[1..].iter().map(|address| TcpListener::bind((*address, port)));
            let all: std::io::Result<Vec<_>> = std::iter::once(Ok(first)).chain(others).collect();
            Some((port, all.ok()?))
        });
        let (port, listeners) = listeners.expect("a port that is free on all addresses");
        let connections = listeners.into_iter().map(|listener| {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = count.clone();
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let body = format!("{{\"served\":\"{}\"}}", stream.local_addr().expect("its address").ip());
                    thread::spawn(move || serve(stream, &body, keep));
                }
            });
            count
        });
        Providers { port, connections: connections.collect() }
    }

    fn counts(&self) -> Vec<usize> {
        self.connections.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }
}

/// A gateway whose only provider is `api.test`, resolved by `dns`.
fn gateway(dns: &Dns, port: u16, resolver: &str) -> Gateway {
    Gateway::start(&config(dns, &[format!("http://api.test:{port}/v1")], resolver))
}

fn config(dns: &Dns, urls: &[String], resolver: &str) -> Config {
    let servers = format!("[resolver]\nservers = [\"{}\"]\nttl_min = \"100ms\"\n{resolver}", dns.address);
    Config::new(urls).and(&servers)
}

fn ask(gateway: &Gateway) -> Response {
    gateway.connect().request("POST", "/v1/chat/completions", &JSON, &chat("m", false))
}

fn served_by(response: &Response) -> String {
    assert_eq!(response.head.status, 200, "{}", response.text());
    response.json()["served"].as_str().expect("an address").to_owned()
}

/// Asks until `done`; what is awaited happens in another thread of the gateway, and shows in its answers only.
fn ask_until(gateway: &Gateway, done: impl Fn(&Response) -> bool) -> Response {
    let start = Instant::now();
    loop {
        let response = ask(gateway);
        if done(&response) {
            return response;
        }
        assert!(start.elapsed() < PATIENCE, "still: {}", response.text());
        thread::yield_now();
    }
}

#[test]
fn a_name_is_asked_for_over_udp_and_over_tcp_where_that_is_not_enough() {
    let providers = Providers::start(&["127.0.0.1"], true);
    let dns = Dns::start();
    let ip: IpAddr = "127.0.0.1".parse().unwrap();
    dns.says("api.test", Says::Addresses(vec![ip], 60)).says("large.test", Says::Truncated(vec![ip], 60));
    for name in ["api.test", "large.test"] {
        let url = format!("http://{name}:{}/v1", providers.port);
        assert_eq!(served_by(&ask(&Gateway::start(&config(&dns, &[url], "")))), "127.0.0.1");
    }
    assert_eq!(dns.asked("api.test", true), 0);
    assert!(dns.asked("large.test", true) > 0);
}

#[test]
fn the_hosts_file_comes_before_name_servers() {
    let providers = Providers::start(&["127.0.0.1"], true);
    let dns = Dns::start();
    dns.has("localhost", &["127.0.0.9"]);
    let url = format!("http://localhost:{}/v1", providers.port);
    assert_eq!(served_by(&ask(&Gateway::start(&config(&dns, std::slice::from_ref(&url), "")))), "127.0.0.1");
    assert_eq!(dns.asked("localhost", false), 0);
    let library = Config::new(&[url]).and("[resolver]\nmethod = \"getaddrinfo\"");
    assert_eq!(served_by(&ask(&Gateway::start(&library))), "127.0.0.1");
}

#[test]
fn a_request_waits_for_the_first_answer() {
    let providers = Providers::start(&["127.0.0.1"], true);
    let dns = Dns::start();
    dns.says("api.test", Says::Silence);
    let gateway = gateway(&dns, providers.port, "timeout = \"3s\"");
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
    dns.wait_asked("api.test", 2);
    // The repetition, after a third of the time, is answered.
    dns.has("api.test", &["127.0.0.1"]);
    assert_eq!(served_by(&client.response("POST")), "127.0.0.1");
}

#[test]
fn why_a_name_has_no_address_is_told_at_once() {
    let providers = Providers::start(&["127.0.0.1"], true);
    let dns = Dns::start();
    for (says, told) in [
        (Says::NxDomain, "its name does not exist (NXDOMAIN)"),
        (Says::Addresses(Vec::new(), 60), "its name has no address"),
        (Says::Silence, "no name server answered in time"),
        (Says::ServFail, "the name servers failed"),
    ] {
        dns.says("api.test", says);
        let gateway = gateway(&dns, providers.port, "timeout = \"300ms\"");
        let start = Instant::now();
        let response = ask(&gateway);
        assert_eq!(response.head.status, 502, "{}", response.text());
        assert!(response.text().contains(told), "{told}: {}", response.text());
        // Long before the connect timer of 5 s.
        assert!(start.elapsed() < Duration::from_secs(4), "{told}: {:?}", start.elapsed());
        dns.has("api.test", &["127.0.0.1"]);
        assert_eq!(served_by(&ask_until(&gateway, |response| response.head.status == 200)), "127.0.0.1");
    }
}

#[test]
fn a_name_that_hangs_delays_no_other() {
    let providers = Providers::start(&["127.0.0.1"], true);
    let dns = Dns::start();
    dns.says("hangs.test", Says::Silence).has("api.test", &["127.0.0.1"]);
    let urls = ["api", "hangs"].map(|name| format!("http://{name}.test:{}/v1", providers.port));
    let two = "[[providers]]\nname = \"good\"\n[[providers.endpoints]]\nurl = \"URL\"\n\
               [[models]]\nname = \"good\"\nroute = [{ provider = \"good\" }]"
        .replace("URL", &urls[0]);
    let gateway = Gateway::start(&config(&dns, &urls[1..], "timeout = \"1m\"").and(&two));
    for _ in 0..3 {
        let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &chat("good", false));
        assert_eq!(served_by(&response), "127.0.0.1");
    }
}

#[test]
fn so_many_questions_are_under_way_and_the_next_waits_for_one_to_be_over() {
    // Two for each name: 256 in all, with that which is answered or without it.
    for (hanging, is_asked) in [(127, true), (128, false)] {
        let providers = Providers::start(&["127.0.0.1"], true);
        let dns = Dns::start();
        dns.has("z.test", &["127.0.0.1"]);
        let endpoint = |name: &str| format!("{{ url = \"http://{name}:{}/v1\" }}", providers.port);
        let names: Vec<String> = (0..hanging).map(|number| format!("h{number:03}.test")).collect();
        // Asked for in the order of their names.
        for name in &names {
            dns.says(name, Says::Silence);
        }
        let tables: String = names
            .chunks(64)
            .enumerate()
            .map(|(at, names)| {
                let endpoints: Vec<String> = names.iter().map(|name| endpoint(name)).collect();
                format!("[[providers]]\nname = \"h{at}\"\nendpoints = [{}]\n", endpoints.join(", "))
            })
            .collect();
        let gateway = Gateway::start(&Config::raw(&format!(
            "cores = \"0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n{tables}[[providers]]\nname = \"z\"\nendpoints = [{}]\n\
             [[models]]\nname = \"*\"\nroute = [{{ provider = \"z\" }}]\n[timers]\nconnect = \"1s\"\n\
             [resolver]\nservers = [\"{}\"]\ntimeout = \"1m\"",
            endpoint("z.test"),
            dns.address
        )));
        // The last of those that hang.
        dns.wait_asked(&names[hanging - 1], 2);
        match is_asked {
            true => assert_eq!(served_by(&ask_until(&gateway, |response| response.head.status == 200)), "127.0.0.1"),
            false => {
                let response = ask(&gateway);
                assert_eq!(response.head.status, 504, "{}", response.text());
                assert_eq!(dns.asked("z.test", false), 0);
            }
        }
    }
}

#[test]
fn a_name_that_moves_takes_new_connections_along_and_leaves_streams_alone() {
    let dns = Dns::start();
    dns.has("api.test", &["127.0.0.1"]);
    let old = Origin::start();
    let new = TcpListener::bind(("127.0.0.2", old.address.port())).expect("the same port on another address");
    thread::spawn(move || {
        for stream in new.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream, "{\"served\":\"127.0.0.2\"}", true));
        }
    });
    let gateway = gateway(&dns, old.address.port(), "ttl_max = \"200ms\"");

    // One stream under way, and one connection that waits for its next request.
    let mut streaming = gateway.connect();
    streaming.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", true));
    let mut under_way = old.accept();
    under_way.request();
    under_way.begin_stream().chunk(content("a"));
    let head = streaming.head();
    let mut events = streaming.events(&head);
    events.next_event().expect("an event");
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
    let mut idle = old.accept();
    idle.request();
    idle.answer("{}");
    assert_eq!(client.response("POST").head.status, 200);

    dns.has("api.test", &["127.0.0.2"]);
    // The idle connection to where the name no longer leads is closed, though its idle time is a minute.
    assert_eq!(idle.ended(), Ended::Fin);
    assert_eq!(served_by(&ask(&gateway)), "127.0.0.2");
    // The stream goes on to its end.
    under_way.chunk(content("b")).chunk(FINISH).chunk(DONE).send("0\r\n\r\n");
    assert_eq!(text_of(&events.all()), "b");
    assert_eq!(events.end(), Some(&End::Complete));
    // And its connection, the last to come free, takes no other request.
    assert_eq!(served_by(&ask(&gateway)), "127.0.0.2");
    assert_eq!(under_way.ended(), Ended::Fin);
}

#[test]
fn a_name_that_stops_resolving_stops_no_traffic_and_is_told_once() {
    let providers = Providers::start(&["127.0.0.1"], false);
    let dns = Dns::start();
    dns.has("api.test", &["127.0.0.1"]);
    let gateway = gateway(&dns, providers.port, "timeout = \"300ms\"");
    assert_eq!(served_by(&ask(&gateway)), "127.0.0.1");
    for (round, says) in [Says::NxDomain, Says::ServFail, Says::Silence].into_iter().enumerate() {
        dns.says("api.test", says.clone());
        let told = |words: &str| gateway.process.lines().iter().filter(|line| line.contains(words)).count();
        let wait_told = |words: &str| {
            let start = Instant::now();
            while told(words) < round + 1 {
                assert!(start.elapsed() < PATIENCE, "{words}: {:?}", gateway.process.lines());
                thread::yield_now();
            }
        };
        wait_told("does not resolve");
        // Another round goes by: two questions, each asked three times unless the answer is final.
        let questions = if matches!(says, Says::NxDomain) { 2 } else { 6 };
        dns.wait_asked("api.test", dns.asked("api.test", false) + questions);
        assert_eq!(served_by(&ask(&gateway)), "127.0.0.1", "{says:?}");
        assert_eq!(told("does not resolve"), round + 1, "{says:?}: {:?}", gateway.process.lines());
        assert_eq!(told("its last addresses stay in use"), round + 1);
        dns.has("api.test", &["127.0.0.1"]);
        wait_told("resolves again");
    }
}

#[test]
fn connections_are_spread_over_the_addresses_of_a_name() {
    let addresses = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    let providers = Providers::start(&addresses, false);
    let dns = Dns::start();
    dns.has("api.test", &addresses);
    let gateway = gateway(&dns, providers.port, "");
    for _ in 0..9 {
        served_by(&ask(&gateway));
    }
    assert_eq!(providers.counts(), [3, 3, 3]);
}

#[test]
fn a_refused_address_costs_nothing_and_is_tried_last_for_a_while() {
    let providers = Providers::start(&["127.0.0.1"], false);
    let dns = Dns::start();
    // Nobody listens on the first two.
    dns.has("api.test", &["::1", "127.0.0.2", "127.0.0.1"]);
    let gateway = gateway(&dns, providers.port, "");
    for _ in 0..6 {
        assert_eq!(served_by(&ask(&gateway)), "127.0.0.1");
    }
}

#[test]
fn ipv6_goes_first_where_both_work() {
    let providers = Providers::start(&["127.0.0.1", "::1"], false);
    let dns = Dns::start();
    dns.has("api.test", &["127.0.0.1", "::1"]);
    let gateway = gateway(&dns, providers.port, "");
    for _ in 0..5 {
        assert_eq!(served_by(&ask(&gateway)), "::1");
    }
}

/// An address on which connecting takes for ever: its queue is full, and nobody accepts.
struct BlackHole {
    address: SocketAddr,
    _listener: std::os::fd::OwnedFd,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// On [::1], at a free port.
    fn start() -> BlackHole {
        let flags = SockFlag::SOCK_CLOEXEC;
        let listener = socket(AddressFamily::Inet6, SockType::Stream, flags, None).expect("a socket");
        bind(listener.as_raw_fd(), &SockaddrIn6::from("[::1]:0".parse::<std::net::SocketAddrV6>().unwrap()))
            .expect("a free port");
        listen(&listener, Backlog::new(0).expect("a backlog")).expect("a listener");
        let bound: SockaddrIn6 = getsockname(listener.as_raw_fd()).expect("its address");
        let address = SocketAddr::from((bound.ip(), bound.port()));
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(stream);
            assert!(queued.len() < 100, "the queue is without end");
        }
        BlackHole { address, _listener: listener, _queued: queued }
    }
}

fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.process.id())).expect("its descriptors").count()
}

/// Waits until the gateway has no more than `at_most` descriptors open.
fn wait_for_descriptors(gateway: &Gateway, at_most: usize) {
    let start = Instant::now();
    while descriptors(gateway) > at_most {
        assert!(start.elapsed() < PATIENCE, "{} descriptors, not {at_most}", descriptors(gateway));
        thread::yield_now();
    }
}

#[test]
fn an_address_that_swallows_costs_a_quarter_second_and_no_descriptor() {
    for driver in ["deferred", "epoll"] {
        let hole = BlackHole::start();
        let listener = TcpListener::bind(("127.0.0.1", hole.address.port())).expect("the same port");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream, "{\"served\":\"127.0.0.1\"}", false));
            }
        });
        let dns = Dns::start();
        // As long as the name has only the swallowing address, the connect timer is all that ends the waiting.
        dns.has("api.test", &["::1"]);
        let url = format!("http://api.test:{}/v1", hole.address.port());
        let ring = format!("[ring]\ndriver = \"{driver}\"");
        let timers = "[timers]\nconnect = \"400ms\"";
        let gateway = Gateway::start(&config(&dns, &[url], "ttl_max = \"100ms\"").and(&ring).and(timers));
        let response = ask(&gateway);
        assert_eq!(response.head.status, 504, "{driver}: {}", response.text());
        dns.has("api.test", &["::1", "127.0.0.1"]);
        ask_until(&gateway, |response| response.head.status == 200);
        // Questions to the name server come and go.
        let enough = descriptors(&gateway) + 4;
        // Whether a connection waits for the silent address or finds it in bad memory, none keeps a descriptor.
        for _ in 0..40 {
            assert_eq!(served_by(&ask(&gateway)), "127.0.0.1", "{driver}");
        }
        // And those that are given up while they connect keep none either.
        dns.has("api.test", &["::1"]);
        ask_until(&gateway, |response| response.head.status == 504);
        let clients: Vec<Client> = (0..20)
            .map(|_| {
                let mut client = gateway.connect();
                client.send_request("POST", "/v1/chat/completions", &JSON, &chat("m", false));
                client
            })
            .collect();
        drop(clients);
        wait_for_descriptors(&gateway, enough);
    }
}
