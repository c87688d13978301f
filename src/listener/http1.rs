//! One client connection: waiting for requests, noticing that the client left, writing answers.
//!
//! A read is under way on it at all times, during an answer too: that is how a client that leaves is noticed
//! within the same turn, and how a request sent ahead (pipelining) is already here when its turn comes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::time::Sleep;

use super::client::Interrupt;
use crate::base::clock::{Clock, Instant};
use crate::config::HalfClose;
use crate::net::alarm::Alarm;
use crate::net::socket::Socket;
use crate::net::stream::{Input, Output, Stream};
use crate::net::timer::Timer;

/// A connection that has had a request keeps its read buffer this long; after that it holds next to nothing.
const REST_AFTER: Duration = Duration::from_millis(500);
/// How often the kernel is asked about a client that we cannot read from, for it has sent too much ahead.
const ASK_AFTER: Duration = Duration::from_millis(2);
/// What is read and thrown away, at most, from a client that was refused while it was still sending.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// A client's connection, which carries its exchanges in turn.
pub struct Connection {
    pub(super) stream: Stream,
    half_close: HalfClose,
    /// Bytes of further requests that are read while an exchange is under way.
    ahead_max: usize,
    paused: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Takes a connection over.
    pub fn new(mut stream: Stream, half_close: HalfClose, ahead_max: usize) -> Connection {
        stream.input.allow_rest();
        Connection { stream, half_close, ahead_max, paused: None }
    }

    /// See [`Client::wait_for_request`](super::client::Client::wait_for_request).
    pub(super) async fn wait_for_request(
        &mut self,
        timer: &Timer,
        alarm: &Alarm,
        is_used: bool,
        clock: &Clock,
        keep_alive: Duration,
        ends: &impl Fn() -> bool,
    ) -> bool {
        if !self.stream.input.bytes().is_empty() {
            return true;
        }
        let now = clock.now();
        let until = now + keep_alive;
        if !is_used && !self.stream.is_secure() {
            // A connection opened ahead of need may wait long, and so may ten thousand.
            self.stream.input.rest().await;
        } else {
            timer.set(until.min(now + REST_AFTER));
            match self.fill_unless(timer, alarm, ends).await {
                Ok(open) => return open.unwrap_or(false),
                Err(_) if clock.now() < until && !ends() => {
                    // A ticket that waited for an answer to go with.
                    self.stream.output.speak(false);
                    self.stream.input.rest().await;
                }
                Err(_) => return false,
            }
        }
        timer.set(until);
        matches!(self.fill_unless(timer, alarm, ends).await, Ok(Ok(true)))
    }

    /// Waits for more bytes: false at the client's end.
    ///
    /// # Errors
    /// [`Interrupt::Deadline`] from the timer as it is set, or once `ends` says so; the inner error is the socket's.
    pub(super) async fn fill_unless(
        &mut self,
        timer: &Timer,
        alarm: &Alarm,
        ends: &impl Fn() -> bool,
    ) -> Result<io::Result<bool>, Interrupt> {
        alarm.ring();
        poll_fn(|cx| {
            // Bytes win over the deadline: they may have come together.
            if let Poll::Ready(outcome) = self.stream.input.poll_fill(cx) {
                return Poll::Ready(Ok(outcome));
            }
            if timer.poll_expired(cx) || ends() { Poll::Ready(Err(Interrupt::Deadline)) } else { Poll::Pending }
        })
        .await
    }

    /// The half that writes, and what is seen of the client meanwhile; `own` bytes of the input are the request under way.
    pub(super) fn apart<'c>(&'c mut self, timer: &'c Timer, own: usize) -> (&'c mut Output, Sight<'c>) {
        let Connection { stream, half_close, ahead_max, paused } = self;
        let Stream { input, output, socket } = stream;
        let held_max = own + *ahead_max;
        (output, Sight { input, socket, timer, half_close: *half_close, held_max, paused })
    }

    /// Closes so that the client can still read what was written last: ends our side, then reads on for a
    /// bounded while. Closing with unread bytes would be a reset, which may overtake the answer.
    pub(super) async fn linger(&mut self, timer: &Timer, alarm: &Alarm, now: Instant) {
        self.stream.output.speak(true);
        self.stream.socket.finish();
        timer.set(now + LINGER);
        // Short enough for a gateway that ends, and the client may not have read yet what was written last.
        timer.keep();
        let mut left = LINGER_BYTES_MAX;
        loop {
            let waiting = self.stream.input.bytes().len();
            self.stream.input.consume(waiting);
            left = left.saturating_sub(waiting);
            if left == 0 || !matches!(self.fill_unless(timer, alarm, &|| false).await, Ok(Ok(true))) {
                return;
            }
        }
    }
}

/// What is seen of the client.
pub(super) struct Sight<'c> {
    input: &'c mut Input,
    socket: &'c Socket,
    timer: &'c Timer,
    half_close: HalfClose,
    /// No more is read while the input holds this much.
    held_max: usize,
    paused: &'c mut Option<Pin<Box<Sleep>>>,
}

impl Sight<'_> {
    /// Looks out for the client's end while something else is going on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if self.timer.poll_expired(cx) {
            return Poll::Ready(Interrupt::Deadline);
        }
        loop {
            if !self.input.is_eof() && self.input.bytes().len() >= self.held_max {
                return self.poll_paused(cx);
            }
            // Also at the end: an error that came behind bytes is told by the read after them.
            match self.input.poll_fill(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(_)) => return Poll::Ready(Interrupt::ClientGone),
            }
        }
        // The client has ended its side, now or earlier.
        match self.half_close {
            HalfClose::Gone => Poll::Ready(Interrupt::ClientGone),
            HalfClose::Finish => Poll::Pending,
        }
    }

    /// As [`Sight::poll`], but reads nothing: what the client sends is for somebody else to take.
    pub(super) fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if self.timer.poll_expired(cx) { Poll::Ready(Interrupt::Deadline) } else { self.poll_paused(cx) }
    }

    /// The client has sent as much ahead as we take, so its end cannot be read: ask the kernel now and then, and see
    /// whether there is room again.
    fn poll_paused(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let sleep = self.paused.get_or_insert_with(|| Box::pin(monoio::time::sleep(ASK_AFTER)));
        while sleep.as_mut().poll(cx).is_ready() {
            if self.half_close == HalfClose::Gone && self.socket.is_peer_gone() {
                return Poll::Ready(Interrupt::ClientGone);
            }
            sleep.as_mut().reset(monoio::time::Instant::now() + ASK_AFTER);
        }
        Poll::Pending
    }
}
