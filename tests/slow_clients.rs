//! Clients that take their time: heads that come a byte at a time, and answers that nobody reads. Each costs next to nothing, is
//! gone at the limit, and nobody else notices. `perf/abuse` does the same at full size.

mod common;

use std::fs::read_to_string;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::http2::{Http2, request};
use common::{Client, Config, End, Gateway, JSON, Mock, PATIENCE, chat, metric_is};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

const DRIVERS: [&str; 2] = ["deferred", "epoll"];
const PATH: &str = "/v1/chat/completions";
const MANY: usize = 500;

/// What a connection may cost whose head is still to come.
const HEAD_BYTES_MAX: usize = 10 << 10;

const HEAD: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-client\r\n\r\n";

fn gateway(mock: &Mock, driver: &str, client: &str) -> Gateway {
    let more = format!("[client]\n{client}\n[ring]\ndriver = {driver:?}");
    Gateway::start(&Config::new(&[mock.url()]).and(&more).admin())
}

fn resident(gateway: &Gateway) -> usize {
    let text = read_to_string(format!("/proc/{}/status", gateway.process.id())).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// Another client asks, on a connection of its own, and is answered.
fn serves(other: &mut Client, what: &str) {
    let response = other.request("POST", PATH, &JSON, &chat("mock:ttft=0,tokens=1", false));
    assert_eq!((response.head.status, response.end), (200, End::Complete), "{what}: {}", response.head.status);
}

fn dial(gateway: &Gateway) -> TcpStream {
    let socket = TcpStream::connect(gateway.address()).expect("a connection");
    socket.set_nodelay(true).expect("TCP_NODELAY");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Sends the first `length` bytes of `head` on all of `sockets`, a byte at a time, and lets another client ask after each; the
/// bytes resident for each of them.
fn drip(gateway: &Gateway, sockets: &mut [TcpStream], head: &[u8], length: usize, before: usize) -> usize {
    let mut other = gateway.connect();
    for at in 0..length {
        for socket in &mut *sockets {
            socket.write_all(&head[at..=at]).expect("it is open");
        }
        // By then the gateway has read them: it comes behind.
        serves(&mut other, "beside slow heads");
    }
    resident(gateway).saturating_sub(before) / sockets.len()
}

#[test]
fn five_hundred_heads_that_come_a_byte_at_a_time_are_small_and_answered_in_the_end() {
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let gateway = gateway(&mock, driver, "head = \"5m\"");
        // What the first of its kind makes grow is not of each.
        serves(&mut gateway.connect(), driver);
        let before = resident(&gateway);
        let mut sockets: Vec<TcpStream> = (0..MANY).map(|_| dial(&gateway)).collect();
        let each = drip(&gateway, &mut sockets, HEAD, 20, before);
        println!("{driver}: {each} bytes for each");
        assert!(each <= HEAD_BYTES_MAX, "{driver}: {each} bytes for each head that has begun");
        for socket in &mut sockets {
            socket.write_all(&HEAD[20..]).expect("it is open");
        }
        for socket in &mut sockets {
            let mut status = [0; 12];
            socket.read_exact(&mut status).expect("an answer");
            assert_eq!(&status, b"HTTP/1.1 200", "{driver}");
        }
    }
}

#[test]
fn heads_of_connections_that_were_used_before_are_as_small() {
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let gateway = gateway(&mock, driver, "head = \"5m\"");
        serves(&mut gateway.connect(), driver);
        let before = resident(&gateway);
        let mut clients: Vec<Client> = (0..MANY).map(|_| gateway.connect()).collect();
        for client in &mut clients {
            assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200);
        }
        let mut sockets: Vec<TcpStream> =
            clients.iter().map(|client| client.socket().try_clone().expect("a socket")).collect();
        let each = drip(&gateway, &mut sockets, HEAD, 20, before);
        println!("{driver}: {each} bytes for each");
        assert!(each <= HEAD_BYTES_MAX, "{driver}: {each} bytes for each head that has begun");
    }
}

#[test]
fn prefaces_that_do_not_come_to_their_end_are_as_small() {
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let gateway = gateway(&mock, driver, "head = \"5m\"");
        serves(&mut gateway.connect(), driver);
        let before = resident(&gateway);
        let mut sockets: Vec<TcpStream> = (0..MANY).map(|_| dial(&gateway)).collect();
        let each = drip(&gateway, &mut sockets, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 20, before);
        println!("{driver}: {each} bytes for each");
        assert!(each <= HEAD_BYTES_MAX, "{driver}: {each} bytes for each preface that has begun");
    }
}

#[test]
fn a_head_has_its_time_from_the_first_byte_on_however_many_follow() {
    const LIMIT: Duration = Duration::from_millis(600);
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let gateway = gateway(&mock, driver, "head = \"600ms\"\nkeep_alive = \"5m\"");
        // With both, the bytes double several times, for which the head is looked at again.
        for first in ["GET /v1/models HTTP/1.1\r\nx: ", "PRI * HTTP/2.0\r\n\r\nS"] {
            let mut socket = dial(&gateway);
            socket.write_all(first.as_bytes()).expect("it is open");
            let start = Instant::now();
            socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a timeout");
            let mut said = Vec::new();
            let is_http1 = first.starts_with("GET");
            while start.elapsed() < PATIENCE {
                if is_http1 && said.is_empty() {
                    let _ = socket.write_all(b"a");
                }
                let mut piece = [0; 1024];
                match socket.read(&mut piece) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Ok(count @ 1..) => said.extend(&piece[..count]),
                    Ok(0) | Err(_) => break,
                }
            }
            let taken = start.elapsed();
            assert!(taken < PATIENCE, "{driver}, {first:?}: open after {taken:?}");
            // The gateway's clock began a little before ours.
            assert!(taken > LIMIT - Duration::from_millis(100), "{driver}, {first:?}: ended after {taken:?}");
            let said = String::from_utf8_lossy(&said);
            // What was so far the beginning of HTTP/2 is none of another version, whose time is not the matter.
            let status = if is_http1 { "HTTP/1.1 408 " } else { "HTTP/1.1 505 " };
            assert!(said.starts_with(status), "{driver}, {first:?}: {said:?}");
        }
        metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
    }
}

/// True once the connection was reset, without a byte of it being read.
fn is_reset(socket: &TcpStream) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::try_from(PATIENCE).expect("a short time")).expect("poll") > 0
}

#[test]
fn who_reads_nothing_is_reset_at_the_limit_so_that_the_kernel_keeps_nothing_for_it_either() {
    let mock = Mock::start(&[]);
    for driver in DRIVERS {
        let gateway = gateway(&mock, driver, "write = \"300ms\"");
        // More than the buffers of two kernels take.
        let body = chat("mock:ttft=0,gap=0,tokens=2000,token-bytes=10000", true);
        let clients: Vec<Client> = (0..3)
            .map(|_| {
                let mut client = gateway.connect();
                let _ = setsockopt(client.socket(), sockopt::RcvBuf, &(4 << 10));
                client.send_request("POST", PATH, &JSON, &body);
                client
            })
            .collect();
        let mut http2 = Http2::connect(gateway.address(), PATIENCE);
        let _ = setsockopt(&http2.stream, sockopt::RcvBuf, &(4 << 10));
        http2.send(&request(1, "POST", PATH, &JSON, Some(&body)));
        let mut other = gateway.connect();
        serves(&mut other, driver);
        for socket in clients.iter().map(Client::socket).chain([&http2.stream]) {
            assert!(is_reset(socket), "{driver}: it is not reset");
        }
        serves(&mut other, driver);
        drop(other);
        metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
        metric_is(&gateway, "ringway_requests_in_flight", &[], 0.0);
    }
}

#[test]
fn slowhttptest_finds_the_service_available_and_leaves_nothing() {
    let mock = Mock::start(&[]);
    let gateway = gateway(&mock, "deferred", "head = \"1s\"\nbody = \"1s\"\nwrite = \"1s\"\nkeep_alive = \"1s\"");
    let url = format!("http://{}/v1/models", gateway.address());
    // Slow heads, slow bodies, and slow reading; 300 of each at 300 a second. Who reads slowly has its answer in its own kernel.
    for (mode, ends) in [
        (&["-H", "-l", "30"][..], "No open connections left"),
        (&["-B", "-l", "30"], "No open connections left"),
        (&["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-l", "3"], ""),
    ] {
        let mut tool = Command::new("slowhttptest");
        tool.args(mode).args(["-c", "300", "-r", "300", "-i", "1", "-x", "8", "-p", "5", "-u", &url]);
        let child = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("slowhttptest, which tests/run installs");
        for _ in 0..20 {
            serves(&mut gateway.connect(), "beside slowhttptest");
        }
        let output = child.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        // It colours the words.
        assert!(text.contains("YES") && !text.contains("NO"), "{mode:?}: {text}");
        assert!(text.contains(ends), "{mode:?}: {text}");
        metric_is(&gateway, "ringway_client_connections_open", &[], 0.0);
    }
}
