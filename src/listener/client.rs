//! A client, whichever HTTP it speaks: what an exchange asks of it.
//!
//! One exchange sees one request come in and sends one answer, and the client may leave at any moment. How that looks on
//! the wire is for [`http1`](super::http1) and [`http2`](super::http2) to say: a connection of its own, or a stream among
//! many. Both hold the request as bytes, an HTTP/1.1 head and then the body; both take the answer as bytes, a head and
//! then the body, of which each writes what its HTTP has for it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::http1::Connection;
use super::http2::Stream;
use crate::base::clock::{Clock, Instant};
use crate::net::alarm::Alarm;
use crate::net::timer::Timer;
use crate::wire::http1::{Framing, HeadLimits, HeadSpace, Malformed, RequestHead, parse_request, write_status_line};
use crate::wire::http2::PREFACE;

/// A client.
pub struct Client {
    /// The one deadline of whatever is being waited for.
    pub timer: Timer,
    /// Requests answered so far.
    pub served: u32,
    /// True once a byte of the current exchange's answer was written: no other answer can be given then.
    pub answering: bool,
    /// Bytes written to it since this was set to zero.
    pub sent_bytes: u64,
    /// Bytes at the front of the input that are the request under way.
    pub own: usize,
    /// Field lines that every answer's head holds on this connection's listener.
    pub lines: Option<Rc<[u8]>>,
    /// Rings when the client stirs or the timer runs out.
    alarm: Alarm,
    pub(super) carrier: Carrier,
}

/// What carries the exchange.
pub(super) enum Carrier {
    Http1(Connection),
    // Boxed: it is larger, and a connection that waits for its next request is to be small.
    Http2(Box<Stream>),
}

/// Why waiting ended before what was waited for came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The client's connection is closed or reset, or its stream is.
    ClientGone,
    /// The timer ran out.
    Deadline,
}

impl Client {
    /// A client with a connection of its own.
    pub fn http1(connection: Connection, timer: Timer) -> Client {
        Client::new(Carrier::Http1(connection), timer)
    }

    /// A client's one request on a stream.
    pub fn http2(stream: Stream, timer: Timer) -> Client {
        Client::new(Carrier::Http2(Box::new(stream)), timer)
    }

    fn new(carrier: Carrier, timer: Timer) -> Client {
        Client {
            timer,
            served: 0,
            answering: false,
            sent_bytes: 0,
            own: 0,
            lines: None,
            alarm: Alarm::default(),
            carrier,
        }
    }

    /// True if nothing but the beginning of an HTTP/2 connection's first bytes has come on a fresh connection of its own.
    #[inline]
    pub fn may_begin_http2(&self) -> bool {
        let bytes = self.bytes();
        self.served == 0 && !self.is_http2() && bytes.iter().zip(PREFACE).all(|(byte, begins)| byte == begins)
    }

    /// The connection below, of which nothing was consumed; `None` for a stream among others.
    pub fn into_stream(self) -> Option<crate::net::stream::Stream> {
        match self.carrier {
            Carrier::Http1(connection) => Some(connection.stream),
            Carrier::Http2(_) => None,
        }
    }

    /// True for a stream of a connection that carries others.
    #[inline]
    pub fn is_http2(&self) -> bool {
        matches!(self.carrier, Carrier::Http2(_))
    }

    /// Waits for the first byte of a request; false if the client closes or `keep_alive` passes first, or once `ends` says
    /// so, which is asked when the task is woken. A stream brings one request.
    pub async fn wait_for_request(&mut self, clock: &Clock, keep_alive: Duration, ends: impl Fn() -> bool) -> bool {
        match &mut self.carrier {
            Carrier::Http1(connection) => {
                connection.wait_for_request(&self.timer, &self.alarm, self.served > 0, clock, keep_alive, &ends).await
            }
            Carrier::Http2(_) => self.served == 0,
        }
    }

    /// What has come of the request and was not consumed.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.carrier {
            Carrier::Http1(connection) => connection.stream.input.bytes(),
            Carrier::Http2(stream) => stream.incoming.bytes(),
        }
    }

    /// Forgets the first `n` of [`Client::bytes`].
    #[inline]
    pub fn consume(&mut self, n: usize) {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.stream.input.consume(n),
            Carrier::Http2(stream) => stream.incoming.consume(n),
        }
    }

    /// Makes room for `more` bytes beyond those not yet consumed, so that a large body is not moved as it grows.
    pub fn reserve(&mut self, more: usize) {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.stream.input.reserve(more),
            Carrier::Http2(stream) => stream.incoming.reserve(more),
        }
    }

    /// Gives back the room that it has for what comes next, as far as it can: who waits for it may do so for long.
    pub async fn rest(&mut self) {
        if let Carrier::Http1(connection) = &mut self.carrier {
            connection.stream.input.rest().await;
        }
    }

    /// Waits for more bytes of a request: false at the client's end, or that of its stream's request.
    ///
    /// # Errors
    /// [`Interrupt::Deadline`] from the timer as it is set; the inner error is the connection's.
    pub async fn fill(&mut self) -> Result<io::Result<bool>, Interrupt> {
        let Client { carrier, timer, alarm, .. } = self;
        match carrier {
            Carrier::Http1(connection) => connection.fill_unless(timer, alarm, &|| false).await,
            Carrier::Http2(stream) => {
                alarm.ring();
                poll_fn(|cx| {
                    // Bytes win over the deadline: they may have come together.
                    match stream.incoming.poll_fill(cx) {
                        Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
                        Poll::Pending if timer.poll_expired(cx) => Poll::Ready(Err(Interrupt::Deadline)),
                        Poll::Pending => Poll::Pending,
                    }
                })
                .await
            }
        }
    }

    /// Reads the head at the front of the input, if it is whole, and lets `read` make of it what it needs.
    ///
    /// # Errors
    /// The head is malformed or too large.
    pub fn head<T>(
        &self,
        limits: &HeadLimits,
        read: impl FnOnce(&RequestHead<'_, '_>) -> T,
    ) -> Result<Option<T>, Malformed> {
        let mut space = HeadSpace::new();
        let Some(mut head) = parse_request(self.bytes(), limits, &mut space)? else {
            return match &self.carrier {
                Carrier::Http1(_) => Ok(None),
                // It has come whole, or not at all.
                Carrier::Http2(stream) => Err(stream.fault()),
            };
        };
        if let Carrier::Http2(stream) = &self.carrier {
            head.framing = stream.framing(head.framing)?;
        }
        Ok(Some(read(&head)))
    }

    /// Tells a client that waits for it to send the body.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn say_continue(&mut self) -> Result<(), Interrupt> {
        self.say_interim(100, b"").await
    }

    /// Sends an interim answer (1xx) with these field lines, which a client of HTTP/1.0 would not understand.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub async fn say_interim(&mut self, status: u16, lines: &[u8]) -> Result<(), Interrupt> {
        if let Carrier::Http2(stream) = &mut self.carrier {
            return stream.outgoing.say_interim(status, lines);
        }
        let mut out = Vec::with_capacity(64 + lines.len());
        write_status_line(&mut out, status);
        out.extend_from_slice(lines);
        out.extend_from_slice(b"\r\n");
        // Given up on the way it is a beginning that nothing can follow.
        self.write(out).await?;
        // The real one may still be of any kind.
        self.answering = false;
        Ok(())
    }

    /// Begins the head of an answer in `out`, which is empty.
    #[inline]
    pub fn begin_head(&mut self, out: &mut Vec<u8>, status: u16) {
        match &mut self.carrier {
            Carrier::Http1(_) => write_status_line(out, status),
            Carrier::Http2(stream) => stream.outgoing.begin_head(status),
        }
    }

    /// Ends the head in `out`, which holds whole field lines since it was begun. The body follows.
    #[inline]
    pub fn end_head(&mut self, out: &mut Vec<u8>) {
        match &mut self.carrier {
            Carrier::Http1(_) => out.extend_from_slice(b"\r\n"),
            Carrier::Http2(stream) => stream.outgoing.end_head(out.len()),
        }
    }

    /// Says that the next write is the answer's last; with `close`, that of its connection too, where that is its own.
    #[inline]
    pub fn end_with_next(&mut self, close: bool) {
        match &mut self.carrier {
            Carrier::Http1(connection) if close => connection.stream.output.end_with_next(),
            Carrier::Http1(_) => {}
            Carrier::Http2(stream) => stream.outgoing.end_with_next(),
        }
    }

    /// How the end of an answer's body is shown whose length is not known before.
    pub fn open_framing(&self, is_http10: bool) -> Framing {
        if is_http10 || self.is_http2() { Framing::UntilClose } else { Framing::Chunked }
    }

    /// Field lines behind the request's body, once it has ended, where they are no part of it: whole, and only those that may
    /// be passed on.
    pub fn trailers(&self) -> &[u8] {
        match &self.carrier {
            Carrier::Http1(_) => &[],
            Carrier::Http2(stream) => stream.incoming.trailers(),
        }
    }

    /// Field lines behind the answer's body, which is still to end.
    pub fn set_trailers(&mut self, lines: &[u8]) {
        if let Carrier::Http2(stream) = &mut self.carrier {
            stream.outgoing.set_trailers(lines);
        }
    }

    /// Runs `work` until it ends, the timer runs out, or the client leaves. It is pinned by the caller: a future that is passed by
    /// value is copied twice.
    ///
    /// # Errors
    /// What came first.
    pub async fn watch<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Result<T, Interrupt> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_interrupt(cx).map(Err),
        })
        .await
    }

    /// Writes `bytes`, watching as [`Client::watch`] does, and gives the buffer back.
    ///
    /// # Errors
    /// What came first; a write that fails means that the client is gone.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Interrupt> {
        self.answering = true;
        let Client { carrier, timer, own, alarm, sent_bytes, .. } = self;
        match carrier {
            Carrier::Http1(connection) => {
                let (output, mut sight) = connection.apart(timer, *own);
                let written = {
                    let mut write = pin!(output.write(bytes));
                    poll_fn(|cx| match write.as_mut().poll(cx) {
                        Poll::Ready((result, bytes)) => {
                            Poll::Ready(result.map(|()| bytes).map_err(|_| Interrupt::ClientGone))
                        }
                        Poll::Pending => alarm.poll(cx, |cx| sight.poll(cx)).map(Err),
                    })
                    .await
                };
                *sent_bytes += written.as_ref().map_or(0, |bytes| bytes.len() as u64);
                written
            }
            Carrier::Http2(stream) => {
                poll_fn(|cx| match stream.outgoing.poll_room(cx) {
                    Poll::Ready(()) => Poll::Ready(Ok(())),
                    Poll::Pending => alarm.poll(cx, |cx| stream.poll_interrupt(timer, cx)).map(Err),
                })
                .await?;
                *sent_bytes += bytes.len() as u64;
                stream.outgoing.send(bytes).map(|()| Vec::new())
            }
        }
    }

    /// Writes what the client takes of `bytes` at once; `None` if that was all. See
    /// [`Output::write_now`](crate::net::stream::Output::write_now).
    ///
    /// # Errors
    /// The client is gone.
    pub fn write_now(&mut self, bytes: &mut Vec<u8>) -> Result<Option<usize>, Interrupt> {
        self.answering = true;
        match &mut self.carrier {
            Carrier::Http1(connection) => {
                let sent = connection.stream.output.write_now(bytes).map_err(|_| Interrupt::ClientGone)?;
                self.sent_bytes += sent.unwrap_or(bytes.len()) as u64;
                Ok(sent)
            }
            Carrier::Http2(stream) => {
                if !stream.outgoing.has_room() {
                    return Ok(Some(0));
                }
                self.sent_bytes += bytes.len() as u64;
                stream.outgoing.send(std::mem::take(bytes)).map(|()| None)
            }
        }
    }

    /// Waits until all that was written has left, as far as writing has not waited for that already; watches as
    /// [`Client::watch`] does.
    ///
    /// # Errors
    /// What came first.
    pub async fn flush(&mut self) -> Result<(), Interrupt> {
        let Client { carrier: Carrier::Http2(stream), timer, alarm, .. } = self else { return Ok(()) };
        poll_fn(|cx| match stream.outgoing.poll_left(cx) {
            Poll::Ready(left) => Poll::Ready(left),
            Poll::Pending => alarm.poll(cx, |cx| stream.poll_interrupt(timer, cx)).map(Err),
        })
        .await
    }

    /// True if it is known at once that the client has left: that its stream was reset, or went with its connection.
    #[inline]
    pub async fn has_left(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Http1(_) => false,
            Carrier::Http2(stream) => poll_fn(|cx| Poll::Ready(stream.outgoing.poll_gone(cx).is_ready())).await,
        }
    }

    /// Ready when the client has left or the timer has run out.
    pub fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let Client { carrier, timer, own, alarm, .. } = self;
        match carrier {
            Carrier::Http1(connection) => {
                let (_, mut sight) = connection.apart(timer, *own);
                alarm.poll(cx, |cx| sight.poll(cx))
            }
            Carrier::Http2(stream) => alarm.poll(cx, |cx| stream.poll_interrupt(timer, cx)),
        }
    }

    /// Runs `work` as [`Client::watch`] does, but reads nothing of the client meanwhile. For one with a connection of its own.
    ///
    /// # Errors
    /// As [`Client::watch`].
    pub async fn watch_unread<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Result<T, Interrupt> {
        // What the other way of watching waits for is not what this one does.
        self.alarm.ring();
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let Client { carrier, timer, own, alarm, .. } = &mut *self;
            match carrier {
                Carrier::Http1(connection) => {
                    let (_, mut sight) = connection.apart(timer, *own);
                    alarm.poll(cx, |cx| sight.poll_unread(cx)).map(Err)
                }
                Carrier::Http2(stream) => alarm.poll(cx, |cx| stream.poll_interrupt(timer, cx)).map(Err),
            }
        })
        .await;
        self.alarm.ring();
        outcome
    }

    /// What is below it, if its connection is of its own.
    pub fn stream(&mut self) -> Option<&mut crate::net::stream::Stream> {
        match &mut self.carrier {
            Carrier::Http1(connection) => Some(&mut connection.stream),
            Carrier::Http2(_) => None,
        }
    }

    /// Ends the exchange in the middle of its answer, so that the client cannot take that for whole.
    pub fn reset(&mut self) {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.stream.socket.reset(),
            Carrier::Http2(stream) => stream.outgoing.reset(),
        }
    }

    /// Ends at once: the client is gone.
    pub fn abort(&mut self) {
        match &mut self.carrier {
            Carrier::Http1(connection) => {
                // One that sent what its session cannot take is told so (RFC 8446 §6.2).
                connection.stream.output.speak(false);
                connection.stream.socket.abort();
            }
            Carrier::Http2(stream) => stream.outgoing.reset(),
        }
    }

    /// Ends so that the client can still read what was written last; a stream whose answer was not ended is reset then.
    pub async fn linger(&mut self, now: Instant) {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.linger(&self.timer, &self.alarm, now).await,
            Carrier::Http2(stream) => stream.linger(&self.timer, now).await,
        }
    }

    /// Ends where nothing is under way any more; what was written last may take until `until` to leave.
    pub async fn close(&mut self, now: Instant, until: Instant) {
        match &mut self.carrier {
            Carrier::Http1(connection) => connection.stream.output.speak(true),
            Carrier::Http2(stream) => stream.settle(&self.timer, now, until).await,
        }
    }
}
