//! One client connection: waiting for requests, noticing that the client left, writing answers.
//!
//! A read is under way on it at all times, during an answer too: that is how a client that leaves is noticed
//! within the same turn, and how a request sent ahead (pipelining) is already here when its turn comes.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use monoio::time::Sleep;

use crate::base::clock::{Clock, Instant};
use crate::config::HalfClose;
use crate::net::alarm::Alarm;
use crate::net::socket::Socket;
use crate::net::stream::{Input, Output, Stream};
use crate::net::timer::Timer;
use crate::wire::http1::{HeadLimits, HeadSpace, Malformed, RequestHead, parse_request};

/// A connection that has had a request keeps its read buffer this long; after that it holds next to nothing.
const REST_AFTER: Duration = Duration::from_millis(500);
/// How often the kernel is asked about a client that we cannot read from, for it has sent too much ahead.
const ASK_AFTER: Duration = Duration::from_millis(2);
/// What is read and thrown away, at most, from a client that was refused while it was still sending.
const LINGER_BYTES_MAX: usize = 64 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// A client connection.
pub struct Client {
    /// The connection.
    pub stream: Stream,
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
    half_close: HalfClose,
    /// Bytes of further requests that are read while an exchange is under way.
    ahead_max: usize,
    paused: Option<Pin<Box<Sleep>>>,
    /// Rings when the client stirs or the timer runs out.
    alarm: Alarm,
}

/// Why waiting ended before what was waited for came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// The client's connection is closed or reset.
    ClientGone,
    /// The timer ran out.
    Deadline,
}

impl Client {
    /// Takes a connection over.
    pub fn new(mut stream: Stream, timer: Timer, half_close: HalfClose, ahead_max: usize) -> Client {
        stream.input.allow_rest();
        Client {
            stream,
            timer,
            served: 0,
            answering: false,
            sent_bytes: 0,
            own: 0,
            lines: None,
            half_close,
            ahead_max,
            paused: None,
            alarm: Alarm::default(),
        }
    }

    /// Waits for the first byte of a request; false if the client closes or `keep_alive` passes first, or once `ends` says
    /// so, which is asked when the task is woken.
    pub async fn wait_for_request(&mut self, clock: &Clock, keep_alive: Duration, ends: impl Fn() -> bool) -> bool {
        if !self.stream.input.bytes().is_empty() {
            return true;
        }
        let now = clock.now();
        let until = now + keep_alive;
        if self.served == 0 && !self.stream.is_secure() {
            // A connection opened ahead of need may wait long, and so may ten thousand.
            self.stream.input.rest().await;
        } else {
            self.timer.set(until.min(now + REST_AFTER));
            match self.fill_unless(&ends).await {
                Ok(open) => return open.unwrap_or(false),
                Err(_) if clock.now() < until && !ends() => {
                    // A ticket that waited for an answer to go with.
                    self.stream.output.speak(false);
                    self.stream.input.rest().await;
                }
                Err(_) => return false,
            }
        }
        self.timer.set(until);
        matches!(self.fill_unless(&ends).await, Ok(Ok(true)))
    }

    /// Waits for more bytes of a request: false at the client's end.
    ///
    /// # Errors
    /// [`Interrupt::Deadline`] from the timer as it is set; the inner error is the socket's.
    pub async fn fill(&mut self) -> Result<io::Result<bool>, Interrupt> {
        self.fill_unless(&|| false).await
    }

    async fn fill_unless(&mut self, ends: &impl Fn() -> bool) -> Result<io::Result<bool>, Interrupt> {
        self.alarm.ring();
        poll_fn(|cx| {
            // Bytes win over the deadline: they may have come together.
            if let Poll::Ready(outcome) = self.stream.input.poll_fill(cx) {
                return Poll::Ready(Ok(outcome));
            }
            if self.timer.poll_expired(cx) || ends() { Poll::Ready(Err(Interrupt::Deadline)) } else { Poll::Pending }
        })
        .await
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
        Ok(parse_request(self.stream.input.bytes(), limits, &mut space)?.map(|head| read(&head)))
    }

    /// Runs `work` until it ends, the timer runs out, or the client leaves.
    ///
    /// # Errors
    /// What came first.
    pub async fn watch<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interrupt> {
        let mut work = pin!(work);
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
        let written = {
            let (output, mut watcher) = self.apart();
            let mut write = pin!(output.write(bytes));
            poll_fn(|cx| match write.as_mut().poll(cx) {
                Poll::Ready((result, bytes)) => Poll::Ready(result.map(|()| bytes).map_err(|_| Interrupt::ClientGone)),
                Poll::Pending => watcher.poll(cx).map(Err),
            })
            .await
        };
        self.sent_bytes += written.as_ref().map_or(0, |bytes| bytes.len() as u64);
        written
    }

    /// Writes what the client takes of `bytes` at once; `None` if that was all. See [`Output::write_now`].
    ///
    /// # Errors
    /// The client is gone.
    pub fn write_now(&mut self, bytes: &[u8]) -> Result<Option<usize>, Interrupt> {
        self.answering = true;
        let sent = self.stream.output.write_now(bytes).map_err(|_| Interrupt::ClientGone)?;
        self.sent_bytes += sent.unwrap_or(bytes.len()) as u64;
        Ok(sent)
    }

    /// Ready when the client has left or the timer has run out.
    pub fn poll_interrupt(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        self.apart().1.poll(cx)
    }

    fn apart(&mut self) -> (&mut Output, Watcher<'_>) {
        let Client { stream, timer, own, half_close, ahead_max, paused, alarm, .. } = self;
        let Stream { input, output, socket } = stream;
        let held_max = *own + *ahead_max;
        let sight = Sight { input, socket, timer, half_close: *half_close, held_max, paused };
        (output, Watcher { sight, alarm })
    }

    /// Closes so that the client can still read what was written last: ends our side, then reads on for a
    /// bounded while. Closing with unread bytes would be a reset, which may overtake the answer.
    pub async fn linger(&mut self, now: Instant) {
        self.stream.output.speak(true);
        self.stream.socket.finish();
        self.timer.set(now + LINGER);
        // Short enough for a gateway that ends, and the client may not have read yet what was written last.
        self.timer.keep();
        let mut left = LINGER_BYTES_MAX;
        loop {
            let waiting = self.stream.input.bytes().len();
            self.stream.input.consume(waiting);
            left = left.saturating_sub(waiting);
            if left == 0 || !matches!(self.fill().await, Ok(Ok(true))) {
                return;
            }
        }
    }
}

/// Looks out for the client's end while something else is going on.
struct Watcher<'c> {
    sight: Sight<'c>,
    alarm: &'c mut Alarm,
}

/// What is seen of the client.
struct Sight<'c> {
    input: &'c mut Input,
    socket: &'c Socket,
    timer: &'c Timer,
    half_close: HalfClose,
    /// No more is read while the input holds this much.
    held_max: usize,
    paused: &'c mut Option<Pin<Box<Sleep>>>,
}

impl Watcher<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        let Watcher { sight, alarm } = self;
        alarm.poll(cx, |cx| sight.poll(cx))
    }
}

impl Sight<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
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
