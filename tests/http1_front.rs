//! The listener against clients of every manner: split, pipelined, early refused, gone, or not speaking HTTP at all.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Client, Config, End, Framing, Gateway, JSON, Mock, Origin, Peer, chat};

const PATH: &str = "/v1/chat/completions";
const FAST: &str = "mock:ttft=1ms,gap=1ms,tokens=1";

fn post(body: &[u8], more: &str) -> Vec<u8> {
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/json\r\n{more}\
         content-length: {}\r\n\r\n",
        JSON[0].1,
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn a_request_split_at_any_byte_is_the_same_request() {
    let mock = Mock::start(&["--ttft", "0ms"]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and("[client]\nrequests_max = 100000"));
    let body = br#"{"model":"m","input":[1]}"#;
    let head = format!("POST /v1/rerank HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n", JSON[0].1);
    let whole = format!("{head}content-length: {}\r\n\r\n{}", body.len(), String::from_utf8_lossy(body));
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\n\r\n7;a=\"b\"\r\n{{\"model\r\n12\r\n\":\"m\",\"input\":[1]}}\r\n0\r\nx-t: 1\r\n\r\n"
    );
    for request in [whole, chunked] {
        let mut client = gateway.connect();
        for at in 1..request.len() {
            client.send(&request.as_bytes()[..at]);
            std::thread::yield_now();
            client.send(&request.as_bytes()[at..]);
            let response = client.response("POST");
            // What the provider does not know it sends back.
            assert_eq!((response.head.status, response.body.as_slice()), (200, body.as_slice()), "split at {at}");
        }
    }
}

#[test]
fn fifty_requests_in_one_write_are_answered_in_turn() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let mut all = Vec::new();
    for turn in 0..50 {
        match turn % 3 {
            0 => all.extend(post(&chat(&format!("{FAST},prompt-tokens={turn}"), false), "")),
            1 => all.extend(post(&chat(&format!("{FAST},seed={turn}"), true), "")),
            _ => all.extend(format!("GET /v1/models?{turn} HTTP/1.1\r\nhost: x\r\nx-api-key: sk-test-client\r\nx-request-id: {turn}\r\n\r\n").into_bytes()),
        }
    }
    for size in [all.len(), 777, 50] {
        let mut client = gateway.connect();
        let mut out = client.socket().try_clone().expect("the socket");
        let all = all.clone();
        let sender = std::thread::spawn(move || all.chunks(size).for_each(|piece| out.write_all(piece).expect("read")));
        for turn in 0..50 {
            let response = client.response("POST");
            assert_eq!((response.head.status, &response.end), (200, &End::Complete), "{turn}: {}", response.text());
            match turn % 3 {
                0 => assert_eq!(response.json()["usage"]["prompt_tokens"], turn, "{}", response.text()),
                1 => assert!(response.text().ends_with("data: [DONE]\n\n"), "{}", response.text()),
                _ => assert_eq!(response.head.get("x-request-id"), Some(turn.to_string().as_str())),
            }
        }
        sender.join().expect("sent");
    }
}

#[test]
fn http_1_0_is_kept_alive_where_it_asks_and_can_be() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let request =
        |more: &str| String::from_utf8(post(&chat(FAST, false), more)).expect("UTF-8").replace("HTTP/1.1", "HTTP/1.0");
    let mut client = gateway.connect();
    for _ in 0..3 {
        let response = client.send(request("connection: keep-alive\r\n").as_bytes()).response("POST");
        assert!(matches!(response.framing, Framing::Length(_)), "{:?}", response.framing);
        assert_eq!(response.head.get("connection"), Some("keep-alive"), "{:?}", response.head);
    }
    let response = client.send(request("").as_bytes()).response("POST");
    assert_eq!((response.head.status, response.head.get("connection")), (200, Some("close")), "{:?}", response.head);
    assert!(client.is_closed());
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    let limit = 32 << 20;
    for (name, authorization, framing, size, status) in [
        ("no key, large", "", "content-length", 20 << 20, 401),
        ("too large", JSON[0].1, "content-length", limit + 1, 413),
        ("too large in chunks", JSON[0].1, "chunked", limit + 1, 413),
        ("no such path", JSON[0].1, "content-length", 5 << 20, 404),
    ] {
        let mut client = gateway.connect();
        let path = if status == 404 { "/metrics" } else { PATH };
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n");
        let framing = match framing {
            "chunked" => "transfer-encoding: chunked".to_owned(),
            _ => format!("content-length: {size}"),
        };
        client.send(format!("{head}{framing}\r\n\r\n").as_bytes());
        // A simple client: it sends everything and reads then, even if the connection ends under it.
        if framing.starts_with("transfer") {
            let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65536], b"\r\n"].concat();
            for _ in 0..=size / 65536 {
                if client.try_send(&chunk).is_err() {
                    break;
                }
            }
        } else {
            let _ = client.try_send(&vec![b'x'; size]);
        }
        let response = client.response("POST");
        assert_eq!(response.head.status, status, "{name}: {}", response.text());
        assert_eq!(response.head.get("connection"), Some("close"), "{name}: {:?}", response.head);
        assert!(client.is_closed(), "{name}");
    }
    // Asked first, it is told no before it has sent anything.
    let mut client = gateway.connect();
    client.send(
        format!("POST {PATH} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n").as_bytes(),
    );
    assert_eq!(client.head().status, 401);

    // A body that is here already does not cost the connection.
    let mut client = gateway.connect();
    for _ in 0..3 {
        let bytes = String::from_utf8(post(&chat(FAST, false), "")).expect("UTF-8").replace(JSON[0].1, "Bearer no");
        assert_eq!(client.send(bytes.as_bytes()).response("POST").head.status, 401);
    }
    assert_eq!(client.send(&post(&chat(FAST, false), "")).response("POST").head.status, 200);
}

/// Pseudo-random numbers that are the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

#[test]
fn garbage_is_answered_with_400_or_closed_and_leaves_nothing_behind() {
    let mock = Mock::start(&[]);
    let gateway = Gateway::start(&Config::new(&[mock.url()]));
    assert_eq!(gateway.connect().send(&post(&chat(FAST, false), "")).response("POST").head.status, 200);
    let before = gateway.descriptors();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let sound = post(&chat(FAST, true), "");
    for turn in 0..1000 {
        let mut bytes = sound.clone();
        match turn % 4 {
            // Noise, a request with bytes changed, a part of a request, two half requests.
            0 => bytes = (0..dice.roll(400) + 1).map(|_| dice.roll(256) as u8).collect(),
            1 => {
                for _ in 0..=dice.roll(4) {
                    let at = dice.roll(bytes.len());
                    bytes[at] = dice.roll(256) as u8;
                }
            }
            2 => bytes.truncate(dice.roll(sound.len())),
            _ => {
                bytes.truncate(dice.roll(sound.len()));
                bytes.extend_from_slice(&sound[dice.roll(sound.len())..]);
            }
        }
        let mut stream = TcpStream::connect(gateway.address()).expect("the gateway accepts");
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a read timeout");
        let _ = stream.write_all(&bytes);
        if dice.roll(2) == 0 {
            continue; // Dropped at once, at whatever phase it has come to.
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer));
    }
    mock.stats_when("/mock/stats", |stats| stats["in_flight"] == 0);
    let start = Instant::now();
    // Idle upstream connections may stay, up to the pool's bound; a client's socket may not.
    while sockets_of(&gateway) > 0 {
        assert!(start.elapsed() < common::PATIENCE, "{} descriptors, {before} before", gateway.descriptors());
        std::thread::yield_now();
    }
    assert_eq!(gateway.connect().send(&post(&chat(FAST, false), "")).response("POST").head.status, 200);
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

/// Connections that the gateway holds open with clients, or has not yet closed.
fn sockets_of(gateway: &Gateway) -> usize {
    let port = format!(":{:04X} ", gateway.address().port());
    let inodes: Vec<String> = std::fs::read_to_string("/proc/net/tcp")
        .expect("the kernel's table")
        .lines()
        .filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Not listening.
            fields.get(1).is_some_and(|local| format!("{local} ").ends_with(&port)) && fields.get(3) != Some(&"0A")
        })
        .filter_map(|line| line.split_whitespace().nth(9).map(|inode| format!("socket:[{inode}]")))
        .collect();
    let held = std::fs::read_dir(format!("/proc/{}/fd", gateway.process.id())).expect("a running process");
    held.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| inodes.iter().any(|inode| link.to_str() == Some(inode)))
        .count()
}

type Begin = fn(&Gateway, &Origin) -> (Client, Peer);

/// Sends `request` and plays the provider until it has read it.
fn ask(gateway: &Gateway, origin: &Origin, request: Vec<u8>) -> (Client, Peer) {
    let client = gateway.connect();
    let mut out = client.socket().try_clone().expect("the socket");
    let sender = std::thread::spawn(move || out.write_all(&request).expect("the gateway reads"));
    let mut peer = origin.accept();
    peer.request();
    sender.join().expect("sent");
    (client, peer)
}

const PHASES: &[(&str, usize, Begin)] = &[
    ("a long prompt", 100, |gateway, origin| {
        let body = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "y".repeat(300_000));
        ask(gateway, origin, post(body.as_bytes(), ""))
    }),
    ("more requests than are read ahead", 100, |gateway, origin| {
        let (mut client, peer) = ask(gateway, origin, post(&chat("m", true), ""));
        client.send(&post(&[b' '; 100_000], ""));
        (client, peer)
    }),
    ("an unstreamed answer under way", 100, |gateway, origin| {
        let (client, mut peer) = ask(gateway, origin, post(&chat("m", false), ""));
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n{\"a\":");
        (client, peer)
    }),
    ("held comments", 100, |gateway, origin| {
        let (client, mut peer) = ask(gateway, origin, post(&chat("m", true), ""));
        peer.begin_stream().chunk(": x\n\n");
        (client, peer)
    }),
    ("a stalled write", 10, |gateway, origin| {
        let (client, mut peer) = ask(gateway, origin, post(&chat("m", true), ""));
        peer.begin_stream();
        peer.socket().set_write_timeout(Some(Duration::from_millis(50))).expect("a write timeout");
        let event = common::origin::content(&"x".repeat(60_000));
        while peer.try_send(format!("{:x}\r\n{event}\r\n", event.len())) {}
        (client, peer)
    }),
];

#[test]
fn a_client_that_leaves_is_noticed_behind_whatever_was_sent() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    for (name, tries, begin) in PHASES {
        let mut took: Vec<Duration> = (0..*tries)
            .map(|_| {
                let (client, mut peer) = begin(&gateway, &origin);
                let left = Instant::now();
                drop(client);
                peer.ended();
                left.elapsed()
            })
            .collect();
        took.sort_unstable();
        println!(
            "{name}: p50 {:?}, p99 {:?}, worst {:?}",
            took[tries / 2],
            took[tries * 99 / 100 - 1],
            took[tries - 1]
        );
        assert!(took[tries - 1] < Duration::from_secs(1), "{name}: noticed after {:?}", took[tries - 1]);
    }
}

#[test]
fn a_client_that_leaves_during_its_upload_ends_it() {
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    for _ in 0..20 {
        let mut client = gateway.connect();
        let head = "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\ncontent-length: 99999\r\n";
        client.send(format!("{head}authorization: {}\r\n\r\nRIFF", JSON[0].1).as_bytes());
        let mut peer = origin.accept();
        peer.head();
        drop(client);
        peer.ended();
    }
}
