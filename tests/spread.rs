//! Connections over workers: each has its share, and one that was handed over is like any other.

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Instant;

use common::http2::{Http2, Said, request};
use common::metrics::ask;
use common::pem::{Ca, Folder};
use common::{Client, Config, Gateway, Https, JSON, Mock, PATIENCE, Records, chat, https, metric, metric_is, text_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATH: &str = "/v1/chat/completions";
const DRIVERS: [&str; 4] = ["deferred", "cooperative", "plain", "epoll"];
const HANDED_OVER: &str = "ringway_client_connections_handed_over_total";
/// Half of the connections that come while one is open come to its worker: that none of so many does, nobody will see.
const TRIES: usize = 100;

/// A gateway of two workers.
fn two(mock: &Mock, driver: &str, more: &str) -> Gateway {
    let config = Config::new(&[mock.url()]).top("cores = \"0-1\"").admin();
    Gateway::start(&config.and(&format!("[ring]\ndriver = {driver:?}\n{more}")))
}

/// False where there is one CPU only, and so one worker.
fn has_two_cores() -> bool {
    std::thread::available_parallelism().expect("a number of CPUs").get() > 1
}

/// The connections of each worker, once they are `count`.
fn connections(gateway: &Gateway, count: u64) -> Vec<u64> {
    let start = Instant::now();
    loop {
        let status: serde_json::Value = serde_json::from_str(&ask(gateway, "/status").1).expect("JSON");
        let workers = status["workers"].as_array().expect("workers");
        let connections: Vec<u64> =
            workers.iter().map(|worker| worker["client_connections"].as_u64().expect("a number")).collect();
        if connections.iter().sum::<u64>() == count {
            return connections;
        }
        assert!(start.elapsed() < PATIENCE, "{connections:?} instead of {count}");
        std::thread::yield_now();
    }
}

/// Opens connections to a gateway that has none until one was handed over, which is returned with the one beside it.
fn handed_over<T>(gateway: &Gateway, open: impl Fn(SocketAddr) -> T) -> (Client, T) {
    let mut first = gateway.connect();
    assert_eq!(first.request("GET", "/v1/models", &JSON, b"").head.status, 200);
    for _ in 0..TRIES {
        let before = metric(gateway, HANDED_OVER, &[]);
        let client = open(gateway.address());
        // Counted by the one before it is open at the other.
        connections(gateway, 2);
        if metric(gateway, HANDED_OVER, &[]) > before {
            return (first, client);
        }
        drop(client);
        connections(gateway, 1);
    }
    panic!("none of {TRIES} was handed over");
}

fn works(client: &mut Client) {
    assert_eq!(client.request("GET", "/v1/models", &JSON, b"").head.status, 200);
}

#[test]
fn of_eight_connections_each_of_two_workers_serves_four() {
    if !has_two_cores() {
        return;
    }
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let gateway = two(&mock, driver, "");
        for round in 0..4 {
            let (mut clients, mut http2) = (Vec::new(), Vec::new());
            for count in (2..=8).step_by(2) {
                clients.push(gateway.connect());
                works(clients.last_mut().expect("one"));
                let mut other = Http2::connect(gateway.address(), PATIENCE);
                other.send(&request(1, "GET", "/v1/models", &JSON, None));
                assert!(matches!(other.answer(1), Said::Answer(200, _)), "{driver}");
                http2.push(other);
                // A stream that is just ending counts.
                metric_is(&gateway, "ringway_http2_streams_open", &[], 0.0);
                assert_eq!(connections(&gateway, count), [count / 2; 2], "{driver}, round {round}");
            }
            // Whoever serves them goes on doing so.
            clients.iter_mut().for_each(works);
            for other in &mut http2 {
                other.send(&request(3, "GET", "/v1/models", &JSON, None));
                assert!(matches!(other.answer(3), Said::Answer(200, _)), "{driver}");
            }
            drop((clients, http2));
            connections(&gateway, 0);
        }
        assert!(metric(&gateway, HANDED_OVER, &[]) > 0.0, "{driver}: the kernel's hash does not do this");
        let accepted = metric(&gateway, "ringway_client_connections_accepted_total", &[]);
        assert_eq!(accepted, 4.0 * 8.0, "{driver}: each is counted once");
    }
}

#[test]
fn connections_stay_where_the_kernel_puts_them_if_told_so() {
    if !has_two_cores() {
        return;
    }
    let mock = Mock::start(&[]);
    let config = Config::new(&[mock.url()]).top("cores = \"0-1\"\nspread = \"kernel\"").admin();
    let gateway = Gateway::start(&config);
    // They are uneven sooner or later.
    let is_uneven = (0..TRIES).any(|_| {
        let mut clients = [gateway.connect(), gateway.connect()];
        clients.iter_mut().for_each(works);
        let connections = connections(&gateway, 2);
        drop(clients);
        self::connections(&gateway, 0);
        connections != [1, 1]
    });
    assert!(is_uneven);
    assert_eq!(metric(&gateway, HANDED_OVER, &[]), 0.0);
}

#[test]
fn a_connection_that_was_handed_over_speaks_as_any_other() {
    if !has_two_cores() {
        return;
    }
    let mock = Mock::start(&[]);
    let stream = chat("mock:ttft=0ms,gap=0ms,tokens=20", true);
    for driver in DRIVERS {
        let gateway = two(&mock, driver, "");
        let (beside, mut client) = handed_over(&gateway, Client::connect);
        works(&mut client);
        client.send_request("POST", PATH, &JSON, &stream);
        let head = client.head();
        let mut events = client.events(&head);
        let text = text_of(&events.all());
        assert!(!text.is_empty(), "{driver}");
        // A large body, which takes many reads.
        let mut client = events.into_client();
        let large = [chat("mock:ttft=0ms,tokens=1", false), vec![b' '; 1 << 20]].concat();
        assert_eq!(client.request("POST", PATH, &JSON, &large).head.status, 200, "{driver}");
        drop((beside, client));
        connections(&gateway, 0);

        let (_beside, mut client) = handed_over(&gateway, |address| Http2::connect(address, PATIENCE));
        for stream_id in [1, 3, 5] {
            client.send(&request(stream_id, "POST", PATH, &JSON, Some(&stream)));
            let Said::Answer(200, body) = client.answer(stream_id) else { panic!("{driver}: no answer") };
            assert!(String::from_utf8_lossy(&body).ends_with("data: [DONE]\n\n"), "{driver}");
        }
    }
}

#[test]
fn a_connection_is_handed_over_before_its_tls_handshake() {
    if !has_two_cores() {
        return;
    }
    let mock = Mock::start(&[]);
    let (authority, folder) = (Ca::new(), Folder::new());
    folder.pair("own", &authority.sign(&["own.test"]));
    let pair = [folder.path("own.pem"), folder.path("own.key")].map(|path| path.display().to_string());
    let tls = format!("tls = {{ certificates = [{{ chain = {:?}, key = {:?} }}] }}", pair[0], pair[1]);
    let config = https::client(&authority, https::BOTH);
    for driver in ["deferred", "epoll"] {
        let listener = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{tls}\n");
        let gateway = two(&mock, driver, &listener);
        let secure = gateway.addresses[1];
        let (_beside, mut client) = handed_over(&gateway, |_| Https::connect(secure, &config, "own.test"));
        let (head, body) = client.request("POST", PATH, &JSON, &chat("mock:ttft=0ms,tokens=3", false));
        assert!(head.starts_with("http/1.1 200 "), "{driver}: {head}");
        assert!(!body.is_empty(), "{driver}");
        // The listener is told with it.
        let listener = [("listener", secure.to_string())];
        let listener = listener.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(metric(&gateway, "ringway_client_connections_open", &listener), 1.0, "{driver}");
    }
}

#[test]
fn the_address_of_a_client_goes_with_its_connection() {
    if !has_two_cores() {
        return;
    }
    let mock = Mock::start(&[]);
    for driver in ["deferred", "epoll"] {
        let records = Records::new();
        let top = format!("cores = \"0-1\"\n{}", records.line());
        let config = Config::new(&[mock.url()]).top(&top).admin().and(&format!("[ring]\ndriver = {driver:?}"));
        let gateway = Gateway::start(&config);
        let (_beside, mut client) = handed_over(&gateway, Client::connect);
        let own = client.socket().local_addr().expect("an address");
        let headers = [JSON[0], JSON[1], ("x-request-id", "handed-over")];
        let response = client.request("POST", PATH, &headers, &chat("mock:ttft=0ms,tokens=1", false));
        assert_eq!(response.head.status, 200, "{driver}");
        let record = records.of("handed-over");
        assert_eq!(record["client"], own.to_string(), "{driver}");
        assert_eq!(record["listener"], gateway.address().to_string(), "{driver}");
    }
}

#[test]
fn all_places_are_taken_before_a_connection_is_refused() {
    if !has_two_cores() {
        return;
    }
    let mock = Mock::start(&[]);
    for driver in ["deferred", "epoll"] {
        let gateway = two(&mock, driver, "[limits]\nconnections_max = 3");
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..6 {
            clients.push(gateway.connect());
            works(clients.last_mut().expect("one"));
        }
        for refused in 1..=4 {
            assert!(gateway.connect().is_closed(), "{driver}: a seventh");
            metric_is(&gateway, "ringway_client_connections_refused_total", &[], f64::from(refused));
        }
        clients.iter_mut().for_each(works);
        // A place is found wherever one is left.
        for at in 0..6 {
            drop(clients.remove(at));
            connections(&gateway, 5);
            clients.push(gateway.connect());
            works(clients.last_mut().expect("one"));
        }
        assert_eq!(connections(&gateway, 6), [3, 3], "{driver}");
    }
}

#[test]
fn what_comes_just_before_the_end_is_answered_whoever_serves_it() {
    const CLIENTS: usize = 32;
    if !has_two_cores() {
        return;
    }
    for driver in ["deferred", "epoll"] {
        let mock = Mock::start(&["--ttft", "0ms"]);
        let mut gateway = two(&mock, driver, "");
        let body = chat("mock:ttft=0ms,tokens=1", false);
        let clients: Vec<Client> = (0..CLIENTS)
            .map(|_| {
                let mut client = gateway.connect();
                client.send_request("POST", PATH, &JSON, &body);
                client
            })
            .collect();
        kill(Pid::from_raw(gateway.process.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        for client in clients {
            let mut text = Vec::new();
            client.socket().read_to_end(&mut text).expect("an answer and its end");
            let text = String::from_utf8_lossy(&text);
            assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with('}'), "{driver}: {text:?}");
        }
        assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
        assert_eq!(mock.stats("/mock/stats")["requests"], CLIENTS, "{driver}");
    }
}
