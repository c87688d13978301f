//! A client that does not read costs the gateway a bounded amount, however much the provider has to say.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Config, Gateway, JSON, Origin, PATIENCE, chat, websocket};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};

/// What `limits.stream_bytes_max` allows by default.
const STREAM_BYTES_MAX: u64 = 64 << 10;

/// What a stream's connections and tasks may cost beside its buffers.
const OVERHEAD_BYTES_MAX: u64 = 16 << 10;

const STREAMS: usize = 1000;

/// What may stay when all streams have ended: pooled buffers and the allocator's own.
const KEPT_BYTES_MAX: u64 = 12 << 20;

/// A provider that streams without end to whoever asks, and reports each stream that has stood still.
fn endless_provider(stalled: Sender<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, stalled) = (stream.expect("a client"), stalled.clone());
            let serve = move || stream_without_end(stream, &stalled);
            thread::Builder::new().stack_size(64 << 10).spawn(serve).expect("a thread");
        }
    });
    address
}

fn stream_without_end(mut stream: TcpStream, stalled: &Sender<()>) {
    // Little kernel memory, so that a thousand of these fit on any machine.
    let _ = setsockopt(&stream, sockopt::SndBuf, &(16 << 10));
    let mut request = [0; 4096];
    let _ = stream.read(&mut request);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let text = "word ".repeat(200);
    let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a write timeout");
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    while stream.write_all(event.as_bytes()).is_ok() {}
    let _ = stalled.send(());
    // The stream stays as it is until the gateway goes.
    stream.set_read_timeout(None).expect("no read timeout");
    let _ = stream.read(&mut request);
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB");
    kib << 10
}

#[test]
fn a_thousand_stalled_readers_cost_no_more_than_configured() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit on open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher limit on open files");
    let (stalled, stalls) = channel();
    let provider = endless_provider(stalled);
    let gateway = Gateway::start(&Config::new(&[format!("http://{provider}/v1")]));
    let before = resident(gateway.process.id());

    let body = chat("any", true);
    let clients: Vec<Client> = (0..STREAMS)
        .map(|_| {
            let mut client = gateway.connect();
            let _ = setsockopt(client.socket(), sockopt::RcvBuf, &(8 << 10));
            client.send_request("POST", "/v1/chat/completions", &JSON, &body);
            assert_eq!(client.head().status, 200);
            client
        })
        .collect();
    for stream in 0..STREAMS {
        stalls.recv_timeout(PATIENCE * 3).unwrap_or_else(|error| panic!("only {stream} streams stood still: {error}"));
    }

    let each = resident(gateway.process.id()).saturating_sub(before) / STREAMS as u64;
    let allowed = STREAM_BYTES_MAX + OVERHEAD_BYTES_MAX;
    assert!(each <= allowed, "{each} bytes for each stalled stream, {allowed} allowed");
    drop(clients);

    // Given back, too: what a thousand streams needed is not kept for the next thousand.
    let start = Instant::now();
    let left = loop {
        // The allocator returns memory when it is used.
        assert_eq!(gateway.connect().request("GET", "/v1/models", &JSON[..1], b"").head.status, 200);
        let left = resident(gateway.process.id()).saturating_sub(before);
        if left <= KEPT_BYTES_MAX || start.elapsed() > PATIENCE {
            break left;
        }
        thread::yield_now();
    };
    println!("{each} bytes for each stalled stream; {left} bytes kept after {:?}", start.elapsed());
    assert!(left <= KEPT_BYTES_MAX, "{left} bytes are kept after all streams have ended");
}

/// What a WebSocket may cost on which nobody speaks: two connections with tiny reads, and an exchange.
const IDLE_WEBSOCKET_BYTES_MAX: u64 = 16 << 10;

#[test]
fn a_thousand_websockets_on_which_nobody_speaks_are_small() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit on open files");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher limit on open files");
    let origin = Origin::start();
    let gateway = Gateway::start(&Config::new(&[origin.url()]));
    // What the first of its kind makes grow is not of each.
    let first = websocket::open(&gateway, &origin, "/v1/realtime");
    let before = resident(gateway.process.id());
    let tunnels: Vec<_> = (0..STREAMS)
        .map(|_| {
            let (mut client, mut peer) = websocket::open(&gateway, &origin, "/v1/realtime");
            for payload in [&b"hello"[..], &[7; 20_000]] {
                client.send(&websocket::frame(true, websocket::BINARY, payload));
                assert_eq!(websocket::from_client(&mut peer).1, payload);
                peer.send(websocket::frame(false, websocket::BINARY, payload));
                assert_eq!(websocket::from_server(&mut client).1, payload);
            }
            (client, peer)
        })
        .collect();
    let start = Instant::now();
    let each = loop {
        let each = resident(gateway.process.id()).saturating_sub(before) / STREAMS as u64;
        if each <= IDLE_WEBSOCKET_BYTES_MAX || start.elapsed() > PATIENCE {
            break each;
        }
        thread::yield_now();
    };
    println!("{each} bytes for each WebSocket at rest after {:?}", start.elapsed());
    assert!(each <= IDLE_WEBSOCKET_BYTES_MAX, "{each} bytes for each WebSocket at rest");
    drop((first, tunnels));
}
