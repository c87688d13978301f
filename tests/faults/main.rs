//! The upstream fault matrix: every way in which a provider fails, in every shape of call, on both kinds of event loop.
//!
//! Of each cell it is shown that the exchange ends in bounded time, by the timer that is meant to end it; that the client
//! is told the truth in its dialect, as a status before the first content and in band after it; that another endpoint is
//! asked where the failed one cannot have begun to work, and only there; what the record says; that nothing is left of it
//! (connections on either side, descriptors); and that a stream and requests to another provider never notice.
//!
//! The tables below are the matrix. [`cell`] plays and judges a cell, [`ground`] is what it is played on.

#[path = "../common/mod.rs"]
mod common;

mod cell;
mod connect;
mod ground;
mod names;
mod shape;
mod tls;
mod upload;

use std::time::Duration;

use cell::Ends::{Cut, InBand, Long, Status, Whole};
use cell::{Act, cell, drip, play};
use common::Peer;
use nix::sys::socket::{setsockopt, sockopt};

/// An answer before the answer.
pub const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n";
/// Interim answers that are passed over before the real one.
pub const INTERIM_MAX: usize = 32;
/// The pace of what drips.
const DRIP: Duration = Duration::from_millis(20);
/// Slower than any short timer.
const SLOW_DRIP: Duration = Duration::from_secs(1);

#[test]
fn an_endpoint_that_fails_before_its_answer_is_told_as_a_status_and_no_other_is_asked() {
    let failed = Status(502, "upstream_failed", "upstream_error");
    let malformed = Status(502, "upstream_malformed", "upstream_error");
    let late = Status(504, "first_token_timeout", "timeout");
    play(&[
        cell("half-closed before the request", failed, |act| half_close(act.accept())),
        cell("reset before the request is read", failed, |act| {
            let peer = act.accept();
            peer.until_readable();
            reset(peer)
        }),
        cell("half-closed after the request", failed, |act| half_close(act.asked())),
        cell("closed after the request", failed, |act| close(act.asked())),
        cell("reset after the request", failed, |act| reset(act.asked())),
        cell("silent after the request", late, |act| Some(act.asked())),
        cell("never reads the request", late, |act| {
            let peer = act.accept();
            setsockopt(peer.socket(), sockopt::RcvBuf, &(16 << 10)).expect("a small buffer");
            // A reset, or what was not taken would be offered on and on.
            peer.until_reset();
            None
        })
        .padding(1 << 20),
        cell("closed in the head", failed, |act| close(send(act.asked(), "HTTP/1.1 200 OK\r\ncontent-le"))),
        cell("reset in the head", failed, |act| reset(send(act.asked(), "HTTP/1.1 200 OK\r\ncontent-le"))),
        cell("silent in the head", late, |act| Some(send(act.asked(), "HTTP/1.1 200 OK\r\ncontent-le"))),
        cell("a head that drips", late, |act| {
            let mut peer = act.asked();
            drip(&mut peer, b"HTTP/1.1 200 OK\r\nx: ", DRIP, b"y");
            Some(peer)
        }),
        cell("a head without end", malformed, |act| {
            let mut peer = send(act.asked(), "HTTP/1.1 200 OK\r\nx: ");
            while peer.try_send([b'y'; 4096]) {}
            Some(peer)
        }),
        cell("no HTTP", malformed, |act| Some(send(act.asked(), "SSH-2.0-OpenSSH_9.9\r\n"))),
        cell("one interim answer too many", malformed, |act| {
            Some(send(act.asked(), &(INTERIM.repeat(INTERIM_MAX + 1) + &answer(act))))
        }),
        cell("interim answers without end", malformed, |act| {
            let mut peer = act.asked();
            while peer.try_send(INTERIM) {}
            Some(peer)
        }),
        cell("interim answers that drip", late, |act| {
            let mut peer = act.asked();
            // More slowly, or they would be too many before the timer has run out.
            drip(&mut peer, b"", 5 * DRIP, INTERIM.as_bytes());
            Some(peer)
        }),
        cell("an interim answer and silence", late, |act| Some(send(act.asked(), INTERIM))),
        cell("an interim answer and an end", failed, |act| close(send(act.asked(), INTERIM))),
    ]);
}

#[test]
fn an_answer_that_fails_before_its_first_content_is_still_a_status() {
    let late = Status(504, "first_token_timeout", "timeout");
    let stuck = Status(504, "between_tokens_timeout", "timeout");
    let truncated = Status(502, "upstream_truncated", "truncated");
    play(&[
        cell("silent after the head", late, |act| Some(act.begun())).unstreamed(stuck),
        cell("silent before any content", late, |act| Some(lead(act))).unstreamed(stuck),
        cell("silent in the first content", late, |act| {
            let mut peer = lead(act);
            peer.chunk(&act.shape.content()[..20]);
            Some(peer)
        })
        .unstreamed(stuck),
        cell("a body that drips", late, |act| {
            let mut peer = send(act.asked(), &act.head_of(1 << 20));
            drip(&mut peer, act.shape.lead().as_bytes(), DRIP, b"x");
            Some(peer)
        })
        .unstreamed(Status(504, "total_timeout", "timeout")),
        cell("a body that drips too slowly", late, |act| {
            let mut peer = send(act.asked(), &act.head_of(1 << 20));
            drip(&mut peer, &act.shape.lead().as_bytes()[..1], SLOW_DRIP, b"x");
            Some(peer)
        })
        .unstreamed(stuck),
        cell("closed after the head", truncated, |act| close(act.begun())),
        cell("reset after the head", truncated, |act| reset(act.begun())),
        cell("half-closed after the head", truncated, |act| half_close(act.begun())),
        cell("closed before any content", truncated, |act| close(lead(act))),
        cell("reset before any content", truncated, |act| reset(lead(act))),
        cell("a chunk that is cut short", truncated, |act| close(send(lead(act), "ff\r\nabc"))),
        cell("no chunk", truncated, |act| Some(send(lead(act), "zz\r\n"))),
        cell("fewer bytes than announced", truncated, |act| {
            let body = act.shape.lead();
            close(send(act.asked(), &(act.head_of(body.len() + 10) + body)))
        }),
    ]);
}

#[test]
fn an_answer_that_fails_after_its_first_content_is_told_in_band_and_never_ended() {
    let stuck = InBand("between_tokens_timeout", "timeout");
    let truncated = InBand("upstream_truncated", "truncated");
    play(&[
        cell("silent between two events", stuck, |act| Some(act.committed())).unstreamed(Cut("timeout")),
        cell("silent in an event", stuck, |act| Some(half(act))).unstreamed(Cut("timeout")),
        cell("silent in a chunk", stuck, |act| Some(send(act.committed(), "ff\r\nabc"))).unstreamed(Cut("timeout")),
        cell("an event that drips", stuck, |act| {
            let mut peer = act.committed();
            drip(&mut peer, b"fffff\r\ndata: ", DRIP, b"x");
            Some(peer)
        })
        .unstreamed(Cut("timeout"))
        .timers("total = \"2s\""),
        cell("an event that drips too slowly", stuck, |act| {
            let mut peer = act.committed();
            drip(&mut peer, b"f", SLOW_DRIP, b"f");
            Some(peer)
        })
        .unstreamed(Cut("timeout")),
        cell("content for longer than the total", InBand("total_timeout", "timeout"), |act| {
            let mut peer = act.committed();
            let event = if act.shape.streamed { act.shape.content() } else { "z".to_owned() };
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            drip(&mut peer, b"", DRIP, chunk.as_bytes());
            Some(peer)
        })
        .unstreamed(Cut("timeout"))
        .timers("between_tokens = \"60s\", total = \"2s\""),
        cell("closed between two events", truncated, |act| close(act.committed())).unstreamed(Cut("truncated")),
        cell("reset between two events", truncated, |act| reset(act.committed())).unstreamed(Cut("truncated")),
        cell("half-closed between two events", truncated, |act| half_close(act.committed()))
            .unstreamed(Cut("truncated")),
        cell("closed in an event", truncated, |act| close(half(act))).unstreamed(Cut("truncated")),
        cell("reset in an event", truncated, |act| reset(half(act))).unstreamed(Cut("truncated")),
        cell("a chunk that is cut short", truncated, |act| close(send(act.committed(), "ff\r\nabc")))
            .unstreamed(Cut("truncated")),
        cell("no chunk", truncated, |act| Some(send(act.committed(), "zz\r\n"))).unstreamed(Cut("truncated")),
        cell("a chunk without its end", truncated, |act| Some(send(act.committed(), "3\r\n: xGARBAGE")))
            .unstreamed(Cut("truncated")),
        cell("fewer bytes than announced", truncated, |act| {
            let body = act.shape.lead().to_owned() + &act.shape.content();
            let peer = send(act.asked(), &(act.head_of(body.len() + 10) + &body));
            act.until_client_has_content();
            close(peer)
        })
        .unstreamed(Cut("truncated")),
        // An event that is too long to be held passes in pieces, and nothing can be said in the middle of it.
        cell("silent in an event too long to hold", Cut("timeout"), |act| Some(long_event(act)))
            .timers("between_tokens = \"2s\""),
        cell("closed in an event too long to hold", Cut("truncated"), |act| close(long_event(act))),
    ]);
}

#[test]
fn what_is_odd_or_slow_but_within_bounds_arrives_whole() {
    play(&[
        cell("as many interim answers as are allowed", Whole, |act| {
            Some(send(act.asked(), &(INTERIM.repeat(INTERIM_MAX) + &answer(act))))
        }),
        cell("a head and a body that drip in time", Whole, |act| {
            let mut peer = act.asked();
            // In all longer than the timer between two tokens.
            let pause = Duration::from_millis(if act.shape.streamed { 6 } else { 15 });
            drip(&mut peer, answer(act).as_bytes(), pause, b"");
            Some(peer)
        })
        .timers("between_tokens = \"1s\""),
        cell("more bytes than announced", Whole, |act| Some(send(act.asked(), &(answer(act) + "and more")))),
        cell("closed at its end", Whole, |act| close(send(act.asked(), &answer(act)))),
        cell("half-closed at its end", Whole, |act| half_close(send(act.asked(), &answer(act)))),
        cell("half-closed at the end of what it commits to", Long, |act| {
            let mut peer = act.committed();
            peer.chunk(act.shape.end()).send("0\r\n\r\n").half_close();
            Some(peer)
        }),
    ]);
}

/// A whole short answer.
fn answer(act: &Act) -> String {
    let body = act.shape.whole();
    act.head_of(body.len()) + &body
}

/// An answer that has begun and has no content yet.
fn lead(act: &Act) -> Peer {
    let mut peer = act.begun();
    peer.chunk(act.shape.lead());
    peer
}

/// An answer that has come to the middle of an event, after content.
fn half(act: &Act) -> Peer {
    let mut peer = act.committed();
    peer.chunk(&act.shape.content()[..20]);
    peer
}

/// An answer that has come to the middle of an event longer than the gateway holds.
fn long_event(act: &Act) -> Peer {
    let mut peer = act.committed();
    peer.chunk("data: ").chunk("y".repeat(400 << 10));
    peer
}

fn send(mut peer: Peer, text: &str) -> Peer {
    peer.send(text);
    peer
}

fn close(peer: Peer) -> Option<Peer> {
    drop(peer);
    None
}

fn half_close(mut peer: Peer) -> Option<Peer> {
    peer.half_close();
    Some(peer)
}

fn reset(peer: Peer) -> Option<Peer> {
    peer.reset();
    None
}
