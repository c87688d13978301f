//! Reads that are given up, over real sockets.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use monoio::net::TcpListener;

use super::*;
use crate::base::clock::Clock;
use crate::net::buf::LARGE_BYTES;
use crate::net::rt::{EventLoop, Rung, spawn};
use crate::net::tls::{self, ClientConfig, KeyPair, ServerConfig, ServerOptions, Tickets, Version};

const IMPATIENCE: Duration = Duration::from_millis(20);
/// How many reads are given up on each connection; 10,000 on all.
const GIVEN_UP: usize = 100;
const CONNECTIONS: usize = 100;
/// More rounds than that and the reads are not given up at all.
const ROUNDS_MAX: u32 = 2000;

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let own = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let (chain, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let options = ServerOptions {
        certificates: &[KeyPair { chain: chain.as_bytes(), key: key.as_bytes() }],
        version: Version::Tls12,
        http2: false,
        groups: &[tls::Group::X25519],
        client_auth: None,
        tickets: &Tickets::new(Duration::from_secs(3600)).unwrap(),
    };
    let server = tls::server_config(&options, Clock::new().unix()).unwrap();
    (server, tls::client_config(Some(chain.as_bytes()), None, &[b"http/1.1"]).unwrap())
}

/// Sends numbered messages, each at a time that the reader cannot know and one half after the other, until it is told to
/// stop.
async fn chatter(mut stream: Stream, seed: usize, stop: Rc<Cell<bool>>) {
    stream.handshake().await.unwrap();
    for number in 0..ROUNDS_MAX {
        if stop.get() {
            return;
        }
        let wait = (seed + number as usize * 7) % 5;
        monoio::time::sleep(Duration::from_millis(15 + 5 * wait as u64)).await;
        let message = number.to_be_bytes();
        for half in message.chunks(2) {
            let (sent, _) = stream.output.write(half.to_vec()).await;
            if sent.is_err() {
                return;
            }
        }
    }
}

/// Reads numbers without patience until enough reads were given up; each number comes once and in order.
async fn impatient(mut stream: Stream) {
    stream.handshake().await.unwrap();
    let (mut given_up, mut next) = (0, 0_u32);
    while given_up < GIVEN_UP {
        assert!(next < ROUNDS_MAX, "only {given_up} reads were given up");
        match monoio::time::timeout(IMPATIENCE, stream.input.fill()).await {
            Err(_) => given_up += 1,
            Ok(filled) => assert!(filled.unwrap(), "ended after {next}"),
        }
        while let Some(number) = stream.input.bytes().first_chunk::<4>() {
            assert_eq!(u32::from_be_bytes(*number), next);
            stream.input.consume(4);
            next += 1;
        }
    }
}

fn read_in_vain(rung: Rung, tls: bool) {
    let mut event_loop = EventLoop::climb_down(rung, 1024).unwrap();
    event_loop.block_on(async {
        let configs = tls.then(configs);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let done = Rc::new(Cell::new(0));
        for seed in 0..CONNECTIONS {
            let connect = Stream::connect(address);
            let (theirs, ours) = (connect.await.unwrap(), listener.accept().await.unwrap().0);
            let session = |(server, client): &(Arc<ServerConfig>, Arc<ClientConfig>)| {
                (Session::server(server.clone()).unwrap(), Session::client(client.clone(), "a.test").unwrap())
            };
            let (server, client) = configs.as_ref().map(session).unzip();
            let stop = Rc::new(Cell::new(false));
            let buffers = Rc::new(Buffers::default());
            spawn(chatter(Stream::new(theirs, client, buffers.clone()), seed, stop.clone()));
            let (ours, done) = (Stream::new(ours, server, buffers), done.clone());
            spawn(async move {
                impatient(ours).await;
                stop.set(true);
                done.set(done.get() + 1);
            });
        }
        let all = async {
            while done.get() < CONNECTIONS {
                monoio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        monoio::time::timeout(Duration::from_secs(100), all).await.expect("every reader has its numbers");
    });
}

#[test]
fn ten_thousand_reads_that_are_given_up_lose_no_byte_over_tls() {
    read_in_vain(Rung::Deferred, true);
}

#[test]
fn nor_with_epoll() {
    read_in_vain(Rung::Epoll, true);
}

#[test]
fn nor_in_the_clear() {
    read_in_vain(Rung::Deferred, false);
}

#[test]
fn what_came_before_a_broken_record_is_delivered_before_the_error() {
    let mut event_loop = EventLoop::climb_down(Rung::Deferred, 64).unwrap();
    event_loop.block_on(async {
        let (server, client) = configs();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (theirs, ours) = (Stream::connect(address).await.unwrap(), listener.accept().await.unwrap().0);
        let buffers = Rc::new(Buffers::default());
        let mut ours = Stream::new(ours, Some(Session::server(server).unwrap()), buffers.clone());
        let mut theirs = Stream::new(theirs, Some(Session::client(client, "a.test").unwrap()), buffers.clone());
        // A client's last words of the handshake go out with what it sends first.
        let begin = async {
            theirs.handshake().await.unwrap();
            theirs.output.write(b"first".to_vec()).await.0.unwrap();
        };
        monoio::join!(async { ours.handshake().await.unwrap() }, begin);
        assert!(!ours.input.bytes().is_empty() || ours.input.fill().await.unwrap());
        ours.input.consume(b"first".len());
        let session = theirs.input.session.clone().unwrap();
        session.borrow_mut().seal(b"sound", &buffers).unwrap();
        let records = [&*session.borrow_mut().take_unsent(), b"\x17\x03\x03\xff\xff"].concat();
        // In one write, so that they are read together.
        assert_eq!(theirs.socket.send_now(&records).unwrap(), records.len());
        assert!(ours.input.fill().await.unwrap());
        assert_eq!(ours.input.bytes(), b"sound");
        assert_eq!(ours.input.fill().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(!ours.input.fill().await.unwrap());
        assert_eq!(ours.input.bytes(), b"sound");
    });
}

#[test]
fn who_says_little_is_read_with_little_and_who_fills_that_with_more_for_a_while() {
    let mut event_loop = EventLoop::climb_down(Rung::Deferred, 64).unwrap();
    event_loop.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (theirs, ours) = (Stream::connect(address).await.unwrap(), listener.accept().await.unwrap().0);
        let buffers = Rc::new(Buffers::default());
        let (mut ours, theirs) = (Stream::new(ours, None, buffers.clone()), Stream::new(theirs, None, buffers));
        ours.input.expect_little();
        let mut sizes = Vec::new();
        for len in std::iter::once(LITTLE_BYTES - 1).chain([LITTLE_BYTES]).chain([1; LARGE_FOR as usize + 1]) {
            theirs.socket.send_now(&vec![b'x'; len]).unwrap();
            assert!(ours.input.fill().await.unwrap());
            assert_eq!(ours.input.bytes().len(), len);
            sizes.push(ours.input.bytes.capacity());
            ours.input.consume(len);
        }
        let large = [READ_BYTES; LARGE_FOR as usize];
        assert_eq!(sizes, [&[LITTLE_BYTES; 2][..], &large, &[LITTLE_BYTES]].concat());
    });
}

#[test]
fn who_fills_four_reads_in_a_row_is_read_in_the_largest_if_that_is_allowed() {
    let mut event_loop = EventLoop::climb_down(Rung::Deferred, 64).unwrap();
    event_loop.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (theirs, ours) = (Stream::connect(address).await.unwrap(), listener.accept().await.unwrap().0);
        let buffers = Rc::new(Buffers::default());
        let (mut ours, theirs) = (Stream::new(ours, None, buffers.clone()), Stream::new(theirs, None, buffers));
        for (bulk, fifth) in [(true, LARGE_BYTES), (false, READ_BYTES), (true, LARGE_BYTES)] {
            ours.input.allow_bulk(bulk);
            let mut sizes = Vec::new();
            for len in [READ_BYTES; FILLED_BEFORE_BULK as usize].into_iter().chain([1, 1]) {
                let mut rest = vec![b'x'; len];
                while !rest.is_empty() {
                    let sent = theirs.socket.send_now(&rest).unwrap();
                    rest.drain(..sent);
                }
                // All of it is there before it is read: what came over loopback is there once it was sent.
                assert!(ours.input.fill().await.unwrap());
                assert_eq!(ours.input.bytes().len(), len);
                sizes.push(ours.input.bytes.capacity());
                ours.input.consume(len);
            }
            assert_eq!(sizes, [&[READ_BYTES; FILLED_BEFORE_BULK as usize][..], &[fifth, READ_BYTES]].concat());
        }
    });
}
