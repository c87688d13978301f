//! The harness tells the truth: what it reads is what was sent, and it sees what a lenient client would hide.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use common::{Client, End, Framing};

/// A peer that sends each of `pieces` when told to, then closes.
fn peer(pieces: Vec<&'static [u8]>) -> (SocketAddr, SyncSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let (go, told) = sync_channel::<()>(16);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).expect("a request");
        for piece in pieces {
            if told.recv().is_err() {
                return;
            }
            stream.write_all(piece).expect("the client reads");
        }
        let _ = told.recv();
    });
    (address, go)
}

#[test]
fn a_response_is_read_with_its_framing_and_its_end() {
    for (name, bytes, framing, end, body) in [
        ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Framing::Length(5), End::Complete, "hello"),
        ("too few bytes", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello", Framing::Length(9), End::Cut, "hello"),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nx-t: 1\r\n\r\n",
            Framing::Chunked(vec![3, 2]),
            End::Complete,
            "hello",
        ),
        (
            "no last chunk",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            Framing::Chunked(vec![5]),
            End::Cut,
            "hello",
        ),
        ("up to the end", "HTTP/1.0 200 OK\r\n\r\nhello", Framing::Close, End::Complete, "hello"),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n", Framing::None, End::Complete, ""),
        (
            "after an interim head",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n!",
            Framing::Length(1),
            End::Complete,
            "!",
        ),
    ] {
        let (address, go) = peer(vec![bytes.as_bytes()]);
        go.send(()).expect("the peer waits");
        drop(go);
        let response = Client::connect(address).request("GET", "/", &[], b"");
        assert_eq!((&response.framing, &response.end), (&framing, &end), "{name}");
        assert_eq!(response.text(), body, "{name}");
        if name == "chunks" {
            assert_eq!(response.trailers, [("x-t".to_owned(), "1".to_owned())]);
        }
    }
}

#[test]
fn events_are_seen_when_they_come_and_not_when_the_body_ends() {
    let (address, go) = peer(vec![
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"9\r\ndata: a\n\n\r\n",
        b"14\r\nevent: e\r\ndata:b\r\n\r\n\r\n",
        b"10\r\ndata: c\ndata: d\n\r\n1\r\n\r\r\n7\r\n: k\n\nda\r\n",
        b"0\r\n\r\n",
    ]);
    let mut client = Client::connect(address);
    client.send_request("GET", "/", &[], b"");
    go.send(()).expect("the peer waits");
    let head = client.head();
    let mut events = client.events(&head);

    go.send(()).expect("the peer waits");
    let first = events.next_event().expect("an event while the body goes on");
    assert_eq!((first.name, first.data.as_str()), (None, "a"));
    go.send(()).expect("the peer waits");
    let second = events.next_event().expect("an event while the body goes on");
    assert_eq!((second.name.as_deref(), second.data.as_str()), (Some("e"), "b"));
    assert!(second.at >= first.at);
    go.send(()).expect("the peer waits");
    assert_eq!(events.next_event().expect("two data lines").data, "c\nd");
    assert_eq!(events.next_event().expect("a comment").raw, b": k\n\n");
    assert_eq!(events.end(), None);

    go.send(()).expect("the peer waits");
    assert!(events.next_event().is_none());
    assert_eq!(events.end(), Some(&End::Complete));
    assert_eq!(events.rest(), b"da");
}

#[test]
fn a_status_is_read_however_it_is_written() {
    for (block, status) in [
        (&[0x88_u8][..], 200),
        (&[0x20, 0x8d], 404),
        (&[0x08, 0x03, b'4', b'3', b'1'], 431),
        (&[0x48, 0x03, b'4', b'1', b'7'], 417),
        // "405": 011010 00000 011011
        (&[0x48, 0x83, 0b0110_1000, 0b0000_1101, 0b1111_1111], 405),
        // "302", as in RFC 7541, C.6.1.
        (&[0x48, 0x82, 0x64, 0x02], 302),
    ] {
        assert_eq!(common::http2::status_of(block), status, "{block:02x?}");
    }
}
