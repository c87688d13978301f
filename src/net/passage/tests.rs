//! Over real sockets, whose far ends are played by threads.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream as Far};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::net::buf::Buffers;
use crate::net::rt::{EventLoop, Rung};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `body` with two streams, and the far end of each.
fn with_streams<F: Future<Output = ()>>(rung: Rung, body: impl FnOnce([Stream; 2], [Far; 2]) -> F) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    EventLoop::climb_down(rung, 64).unwrap().block_on(async {
        let buffers = Rc::new(Buffers::default());
        let pair = async || {
            let near = Stream::new(Stream::connect(address).await.unwrap(), None, buffers.clone());
            (near, listener.accept().unwrap().0)
        };
        let ((from, sender), (to, receiver)) = (pair().await, pair().await);
        monoio::time::timeout(PATIENCE, body([from, to], [sender, receiver])).await.expect("in time");
    });
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|at| (at ^ at >> 8).to_le_bytes()).take(len).collect()
}

#[test]
fn everything_passes_in_order_however_slow_the_receiver_is() {
    with_streams(Rung::Deferred, |[from, to], [mut sender, mut receiver]| async move {
        let sent = pattern(8 << 20);
        let expected = sent.clone();
        let sender = thread::spawn(move || sender.write_all(&sent).map(|()| sender).unwrap());
        let receiver = thread::spawn(move || {
            let (mut got, mut piece) = (Vec::new(), [0; 3000]);
            while got.len() < 8 << 20 {
                let n = receiver.read(&mut piece).unwrap();
                assert!(n > 0, "ended after {}", got.len());
                got.extend_from_slice(&piece[..n]);
            }
            got
        });
        let mut passage = Passage::between(&from, &to).unwrap();
        let (mut left, mut waited) = (8 << 20, false);
        while left > 0 {
            let came = passage.fill(left).await as u64;
            assert!(0 < came && came <= left);
            left -= came;
            waited |= !passage.empty_now().unwrap();
            passage.empty().await.unwrap();
        }
        assert!(waited, "a receiver this slow leaves something inside");
        assert!(receiver.join().unwrap() == expected, "other bytes came out");
        sender.join().unwrap();
    });
}

#[test]
fn no_more_is_taken_than_is_asked_for() {
    with_streams(Rung::Deferred, |[mut from, to], [mut sender, mut receiver]| async move {
        sender.write_all(b"the messagethe next").unwrap();
        let mut passage = Passage::between(&from, &to).unwrap();
        assert_eq!(passage.fill(11).await, 11);
        passage.empty().await.unwrap();
        drop(passage);
        let mut got = [0; 11];
        receiver.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"the message");
        assert!(from.input.fill().await.unwrap());
        assert_eq!(from.input.bytes(), b"the next");
        // The sockets wait again, as the ring's must.
        assert!(Passage::between(&from, &to).is_none(), "something was read that was not consumed");
        from.input.consume(8);
        let more = from.input.fill();
        sender.write_all(b"!").unwrap();
        assert!(more.await.unwrap());
    });
}

#[test]
fn an_end_is_for_reading_to_tell() {
    with_streams(Rung::Deferred, |[mut from, to], [mut sender, receiver]| async move {
        let _open = receiver;
        sender.write_all(b"last").unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
        let mut passage = Passage::between(&from, &to).unwrap();
        assert_eq!(passage.fill(100).await, 4);
        passage.empty().await.unwrap();
        assert_eq!(passage.fill(100).await, 0);
        assert!(!from.input.fill().await.unwrap());
        assert!(Passage::between(&from, &to).is_none());
    });
}

#[test]
fn a_receiver_that_is_gone_is_an_error() {
    with_streams(Rung::Deferred, |[from, to], [mut sender, receiver]| async move {
        // With something unread, closing is a reset.
        to.socket.send_now(b"unread").unwrap();
        receiver.peek(&mut [0]).unwrap();
        drop(receiver);
        sender.write_all(b"in vain").unwrap();
        let mut passage = Passage::between(&from, &to).unwrap();
        assert_eq!(passage.fill(7).await, 7);
        assert!(passage.empty().await.is_err());
    });
}

#[test]
fn what_stayed_inside_comes_out_nowhere_else() {
    with_streams(Rung::Deferred, |[from, to], [mut sender, mut receiver]| async move {
        sender.write_all(b"left").unwrap();
        let mut passage = Passage::between(&from, &to).unwrap();
        assert_eq!(passage.fill(4).await, 4);
        drop(passage);
        sender.write_all(b"other").unwrap();
        let mut passage = Passage::between(&from, &to).unwrap();
        assert_eq!(passage.fill(5).await, 5);
        passage.empty().await.unwrap();
        drop(passage);
        let kept = || PIPES.with_borrow(Vec::len);
        assert_eq!(kept(), 1, "an empty pipe serves again");
        collect();
        assert_eq!(kept(), 1, "it has just been used");
        collect();
        assert_eq!(kept(), 0);
        to.socket.finish();
        let mut got = String::new();
        receiver.read_to_string(&mut got).unwrap();
        assert_eq!(got, "other");
    });
}

#[test]
fn there_is_none_while_a_read_is_under_way_and_none_on_epoll() {
    with_streams(Rung::Deferred, |[mut from, to], far| async move {
        let _open = far;
        from.input.allow_rest();
        assert!(from.input.is_quiet());
        assert!(Passage::between(&from, &to).is_none());
        from.input.stop().await;
        assert!(Passage::between(&from, &to).is_some());
    });
    with_streams(Rung::Epoll, |[from, to], far| async move {
        let _open = far;
        assert!(Passage::between(&from, &to).is_none());
    });
}

#[test]
fn a_read_that_is_stopped_keeps_what_it_brought() {
    with_streams(Rung::Deferred, |[mut from, to], [mut sender, receiver]| async move {
        let _open = receiver;
        from.input.allow_rest();
        assert!(from.input.is_quiet());
        sender.write_all(b"just now").unwrap();
        from.input.stop().await;
        if from.input.is_idle() {
            // The cancel came first.
            assert_eq!(Passage::between(&from, &to).unwrap().fill(3).await, 3);
        } else {
            assert!(from.input.fill().await.unwrap());
            assert_eq!(from.input.bytes(), b"just now");
        }
    });
}
