//! Endpoints over https whose TLS fails while they answer: a record that was changed on the way, and an end that only the
//! socket tells of. Anyone on the way can end a connection, so without close_notify an end says nothing of what it ended.

use std::io::Write;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};

use crate::cell::Ends::{Cut, InBand, Long, Status, Whole};
use crate::cell::{Act, Cell, cell, play_secure};
use crate::common::authority::server_config;
use crate::common::origin::FINISH;
use crate::common::{Authority, Peer};
use crate::{answer, close, half, half_close, lead, reset, send};

/// A close_notify that nobody has sealed.
const FORGED_END: &[u8] = b"\x15\x03\x03\x00\x02\x01\x00";
/// The head of a record that is longer than any may be.
const TOO_LONG: &[u8] = b"\x17\x03\x03\xff\xff";

/// Plays `cells` with both versions of TLS.
fn play(cells: &[Cell]) {
    let authority = Authority::new("ours");
    let ca = format!("ca = {:?}", authority.file.display().to_string());
    for version in [&TLS12, &TLS13] {
        let secure: Arc<ServerConfig> = server_config(authority.sign("127.0.0.1", false), version);
        play_secure(cells, &ca, &secure);
    }
}

#[test]
fn tls_that_fails_before_the_answer_is_told_as_a_status_and_no_other_endpoint_is_asked() {
    let failed = Status(502, "upstream_failed", "upstream_error");
    let late = Status(504, "first_token_timeout", "timeout");
    play(&[
        cell("closed after the request", failed, |act| close(act.asked())),
        cell("half-closed after the request", failed, |act| half_close(act.asked())),
        cell("an end in the clear after the request", failed, |act| Some(clear(act.asked(), FORGED_END))),
        cell("a spoilt head", failed, |act| Some(spoilt(act.asked(), &answer(act)))),
        cell("closed in the head", failed, |act| close(send(act.asked(), "HTTP/1.1 200 OK\r\ncontent-le"))),
        cell("closed in the head's record", failed, |act| close(part(act.asked(), &answer(act)))),
        cell("silent in the head's record", late, |act| Some(part(act.asked(), &answer(act)))),
    ]);
}

#[test]
fn tls_that_fails_before_the_first_content_is_still_a_status() {
    let truncated = Status(502, "upstream_truncated", "truncated");
    let late = Status(504, "first_token_timeout", "timeout");
    let stuck = Status(504, "between_tokens_timeout", "timeout");
    play(&[
        cell("a spoilt record after the head", truncated, |act| Some(spoilt(act.begun(), &chunk(act.shape.lead())))),
        cell("a spoilt record before any content", truncated, |act| Some(spoilt(lead(act), &short_chunk(act)))),
        cell("a record that is too long", truncated, |act| Some(clear(lead(act), TOO_LONG))),
        cell("an end in the clear before any content", truncated, |act| Some(clear(lead(act), FORGED_END))),
        cell("silent in a record", late, |act| Some(part(lead(act), &short_chunk(act)))).unstreamed(stuck),
        cell("closed in a record", truncated, |act| close(part(lead(act), &short_chunk(act)))),
        cell("closed after the head", truncated, |act| close(act.begun())),
        cell("half-closed after the head", truncated, |act| half_close(act.begun())),
        cell("reset after the head", truncated, |act| reset(act.begun())),
        cell("closed between two chunks", truncated, |act| close(lead(act))),
        cell("closed in a chunk", truncated, |act| close(send(lead(act), "ff\r\nabc"))),
        cell("fewer bytes than announced", truncated, |act| {
            let body = act.shape.lead();
            close(send(act.asked(), &(act.head_of(body.len() + 10) + body)))
        }),
        cell("without a length, closed after the head", truncated, |act| close(endless(act, ""))),
        cell("without a length, closed before any content", truncated, |act| close(endless(act, act.shape.lead()))),
        cell("without a length, half-closed before any content", truncated, |act| {
            half_close(endless(act, act.shape.lead()))
        }),
        cell("without a length, an end in the clear before any content", truncated, |act| {
            half_close(clear(endless(act, act.shape.lead()), FORGED_END))
        }),
    ]);
}

#[test]
fn tls_that_fails_after_the_first_content_is_told_in_band_and_never_ended() {
    let truncated = InBand("upstream_truncated", "truncated");
    let stuck = InBand("between_tokens_timeout", "timeout");
    let cut = Cut("truncated");
    play(&[
        cell("a spoilt record between two events", truncated, |act| Some(spoilt(act.committed(), &whole_chunk(act))))
            .unstreamed(cut),
        cell("a spoilt record in an event", truncated, |act| Some(spoilt(half(act), &whole_chunk(act))))
            .unstreamed(cut),
        cell("a spoilt record at the end", truncated, |act| Some(spoilt(act.committed(), &end_chunks(act))))
            .unstreamed(cut),
        cell("a record that is too long", truncated, |act| Some(clear(act.committed(), TOO_LONG))).unstreamed(cut),
        // What came before is sound, though it be read together.
        cell("content and nonsense at once", truncated, |act| {
            Some(at_once(act.begun(), &(chunk(act.shape.lead()) + &whole_chunk(act)), TOO_LONG))
        })
        .unstreamed(cut),
        cell("an end in the clear between two events", truncated, |act| Some(clear(act.committed(), FORGED_END)))
            .unstreamed(cut),
        cell("silent in a record", stuck, |act| Some(part(act.committed(), &whole_chunk(act))))
            .unstreamed(Cut("timeout")),
        cell("closed in a record", truncated, |act| close(part(act.committed(), &whole_chunk(act)))).unstreamed(cut),
        cell("closed between two events", truncated, |act| close(act.committed())).unstreamed(cut),
        cell("half-closed between two events", truncated, |act| half_close(act.committed())).unstreamed(cut),
        cell("reset between two events", truncated, |act| reset(act.committed())).unstreamed(cut),
        cell("closed in an event", truncated, |act| close(half(act))).unstreamed(cut),
        cell("closed in a chunk", truncated, |act| close(send(act.committed(), "ff\r\nabc"))).unstreamed(cut),
        cell("closed before the last chunk", truncated, |act| close(send(act.committed(), &chunk(&finish(act)))))
            .unstreamed(cut),
        cell("fewer bytes than announced", truncated, |act| {
            let body = act.shape.lead().to_owned() + &act.shape.content();
            let peer = send(act.asked(), &(act.head_of(body.len() + 10) + &body));
            act.until_client_has_content();
            close(peer)
        })
        .unstreamed(cut),
        cell("without a length, closed between two events", truncated, |act| close(long(act))).unstreamed(cut),
        // Nothing is missing but the word that nothing is. A stream of which only its own end is missing could be whole.
        cell("without a length, closed at its end", truncated, |act| close(send(long(act), &finish(act))))
            .unstreamed(cut),
        cell("without a length, half-closed at its end", truncated, |act| half_close(send(long(act), &finish(act))))
            .unstreamed(cut),
        cell("without a length, an end in the clear at its end", truncated, |act| {
            half_close(clear(send(long(act), &finish(act)), FORGED_END))
        })
        .unstreamed(cut),
        // The same of an answer that is short enough to be held.
        cell("short and without a length, closed at its end", truncated, |act| {
            close(endless(act, &(act.shape.short() + &finish(act))))
        })
        .unstreamed(Status(502, "upstream_truncated", "truncated")),
        cell("short and without a length, half-closed at its end", truncated, |act| {
            half_close(endless(act, &(act.shape.short() + &finish(act))))
        })
        .unstreamed(Status(502, "upstream_truncated", "truncated")),
    ]);
}

#[test]
fn an_answer_that_says_itself_where_it_ends_needs_no_end_of_tls() {
    play(&[
        cell("with a length, closed at its end", Whole, |act| close(send(act.asked(), &answer(act)))),
        cell("in chunks, half-closed at its end", Long, |act| half_close(send(act.committed(), &end_chunks(act)))),
        cell("without a length, ended as TLS does", Whole, |act| end(endless(act, &act.shape.whole()))),
        cell("long and without a length, ended as TLS does", Long, |act| end(send(long(act), &act.shape.end()))),
        cell("nonsense behind its end, sent at once", Whole, |act| Some(at_once(act.asked(), &answer(act), TOO_LONG))),
        // A stream has an end of its own.
        cell("without a length, closed at its end", Whole, |act| close(endless(act, &act.shape.whole())))
            .unstreamed(Status(502, "upstream_truncated", "truncated")),
        cell("long and without a length, closed at its end", Long, |act| close(send(long(act), &act.shape.end())))
            .unstreamed(Cut("truncated")),
    ]);
}

/// The next bytes, of which one was changed on the way.
fn spoilt(mut peer: Peer, text: &str) -> Peer {
    let mut records = peer.sealed(text);
    *records.last_mut().expect("a record") ^= 1;
    clear(peer, &records)
}

/// The next bytes' records as far as their middle.
fn part(mut peer: Peer, text: &str) -> Peer {
    let records = peer.sealed(text);
    clear(peer, &records[..records.len() / 2])
}

/// The next bytes, and behind them some that are sent beside the session, in one write.
fn at_once(mut peer: Peer, text: &str, beside: &[u8]) -> Peer {
    let records = [&*peer.sealed(text), beside].concat();
    clear(peer, &records)
}

/// Bytes that are sent beside the session.
fn clear(peer: Peer, bytes: &[u8]) -> Peer {
    peer.socket().write_all(bytes).expect("the gateway reads");
    peer
}

/// Ends the connection as TLS does.
fn end(mut peer: Peer) -> Option<Peer> {
    peer.close_notify();
    close(peer)
}

/// An answer whose end is the connection's, as far as `body`.
fn endless(act: &Act, body: &str) -> Peer {
    send(act.asked(), &format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\n\r\n{body}", act.shape.media()))
}

/// An answer whose end is the connection's, as far as content that the client has.
fn long(act: &Act) -> Peer {
    let peer = endless(act, &(act.shape.lead().to_owned() + &act.shape.content()));
    act.until_client_has_content();
    peer
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn whole_chunk(act: &Act) -> String {
    chunk(&act.shape.content())
}

/// Content that is held unless it is an event.
fn short_chunk(act: &Act) -> String {
    if act.shape.streamed { whole_chunk(act) } else { chunk("short") }
}

/// All that comes behind content.
fn end_chunks(act: &Act) -> String {
    chunk(&act.shape.end()) + "0\r\n\r\n"
}

/// The last that is said of the content, without what a stream ends with.
fn finish(act: &Act) -> String {
    match (act.shape.streamed, act.shape.anthropic) {
        (true, false) => FINISH.to_owned(),
        (true, true) => {
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n"
                .to_owned()
        }
        (false, _) => act.shape.end(),
    }
}
