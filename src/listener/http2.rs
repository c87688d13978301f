//! One client connection that carries many exchanges at once: HTTP/2 (RFC 9113), by the `h2` library.
//!
//! The library knows compression, flow control and the states of streams; it never sees the socket. What it reads has
//! come, and passes a [`Sieve`] that knows what a frame may be; what it writes is gathered and leaves when the turn's
//! streams have had their say, in one write. Each new stream is handed out at once, to be served by a task of its own
//! ([`Stream`]).

mod stream;

pub use stream::{Incoming, Outgoing, Stream, UNSENT_BYTES_MAX};

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::server::{Builder, Connection};
use h2::{Ping, PingPong, Reason};

use crate::base::clock::{Clock, Instant};
use crate::net::buf::Buffers;
use crate::net::duplex::{Duplex, Outbox, Patience, Piece, Sentry, drive};
use crate::net::timer::Timer;
use crate::wire::http2::{Fault, Sieve};

/// How long a connection may take to end once it has nothing under way.
const LINGER: Duration = Duration::from_secs(2);
/// Frames may be this long; what every peer must take (RFC 9113 §4.2), and enough.
const FRAME_BYTES_MAX: u32 = 16 << 10;
/// Streams that we have reset and of which frames may still be under way.
const RESET_FOR: Duration = Duration::from_secs(5);

/// What a connection is allowed, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Streams that may be open at once.
    pub streams_max: u32,
    /// What may come of one request's body before it is asked for, in bytes.
    pub stream_window: u32,
    /// What may come of all together.
    pub connection_window: u32,
    /// Names, values and 32 bytes for each field of a head.
    pub head_bytes_max: u32,
    /// Frames that carry nothing, at once; as many again each ten seconds.
    pub control_frames_max: u32,
    /// From the connection to its preface.
    pub preface: Duration,
    /// Without any stream it is closed after this.
    pub keep_alive: Duration,
    /// With streams, a client that is silent for so long is asked whether it is there, and given up after as long again.
    pub ping: Duration,
    /// Requests before it is closed.
    pub requests_max: u32,
    /// How long a client has to take what is sent in one turn.
    pub write: Duration,
}

/// How far the gateway is with ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It is not.
    Not,
    /// What is under way goes on; nothing else is to begin.
    Begun,
    /// Whoever has nothing under way goes.
    IdleOver,
}

/// Why a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its client has closed it, or it was closed with nothing under way.
    Done,
    /// Its client broke the protocol, or the connection broke.
    Failed,
    /// Its client did not answer, or did not begin.
    Silent,
}

/// Looks at frames on their way in.
struct Watch {
    sieve: Sieve,
    clock: Clock,
    heard: Rc<Heard>,
}

/// What was found out by reading.
#[derive(Default)]
struct Heard {
    /// Bytes have come since this was last set to false.
    any: Cell<bool>,
    /// Why no more is read.
    fault: Cell<Option<Fault>>,
}

impl Sentry for Watch {
    fn pass(&mut self, bytes: &[u8], room: usize, put: impl FnMut(&[u8])) -> Option<usize> {
        if !bytes.is_empty() {
            self.heard.any.set(true);
        }
        let passed = self.sieve.pass(bytes, room, put, || self.clock.now());
        passed.map_err(|fault| self.heard.fault.set(Some(fault))).ok()
    }
}

/// Serves the connection of `stream` until it ends: `accept` is given each request, `ending` asked whenever the task is
/// woken.
#[allow(clippy::too_many_arguments)]
pub async fn serve(
    stream: crate::net::stream::Stream,
    terms: &Terms,
    buffers: &Rc<Buffers>,
    clock: &Clock,
    timer: Timer,
    write_timer: Timer,
    ending: impl Fn() -> Ending,
    accept: impl FnMut(Stream),
) -> Ended {
    let crate::net::stream::Stream { mut input, mut output, socket } = stream;
    input.expect_little();
    let input = Rc::new(RefCell::new(input));
    let out = Rc::new(Outbox::new(buffers.clone()));
    let heard = Rc::new(Heard::default());
    let sieve = Sieve::of_client(terms.control_frames_max, FRAME_BYTES_MAX);
    let watch = Watch { sieve, clock: clock.clone(), heard: heard.clone() };
    let duplex = Duplex::new(input.clone(), out.clone(), watch);
    let work = async {
        // At the gateway's end its streams say their last words, and it goes with the last of them.
        timer.keep();
        timer.set(clock.now() + terms.preface);
        // Boxed, for a future keeps room for all that was ever in it, and thousands of connections may wait.
        let shaken = {
            let mut handshake = Box::pin(builder(terms).handshake::<_, Piece>(duplex));
            poll_fn(|cx| match handshake.as_mut().poll(cx) {
                Poll::Ready(Ok(connection)) => Poll::Ready(Ok(Box::new(connection))),
                // Opened ahead of need, and not needed.
                Poll::Ready(Err(_)) if !heard.any.get() => Poll::Ready(Err(Ended::Done)),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Ended::Failed)),
                Poll::Pending if ending() == Ending::IdleOver => Poll::Ready(Err(Ended::Done)),
                Poll::Pending if timer.poll_expired(cx) => Poll::Ready(Err(Ended::Silent)),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        match shaken {
            Err(ended) => ended,
            Ok(connection) => {
                let mut host = Host::new(connection, terms, clock, &timer, buffers, ending, accept, heard);
                poll_fn(|cx| host.poll(cx)).await
            }
        }
    };
    let expired = Cell::new(false);
    let patience = Patience { timer: &write_timer, clock, within: terms.write, expired: &expired };
    let ended = drive(pin!(work), &out, &mut output, &patience, |ended| ended != Ended::Done).await;
    if expired.get() {
        // The kernel is not to go on offering what it does not take.
        socket.reset();
        return ended;
    }
    // The last words must not be overtaken by a reset, which follows where bytes are unread.
    output.speak(true);
    socket.finish();
    if ended != Ended::Silent {
        timer.set(clock.now() + LINGER);
        poll_fn(|cx| {
            let mut input = input.borrow_mut();
            loop {
                let waiting = input.bytes().len();
                input.consume(waiting);
                match input.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending if timer.poll_expired(cx) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }
    ended
}

fn builder(terms: &Terms) -> Builder {
    let streams = terms.streams_max as usize;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(terms.streams_max)
        .initial_window_size(terms.stream_window)
        .initial_connection_window_size(terms.connection_window)
        .max_header_list_size(terms.head_bytes_max)
        .max_frame_size(FRAME_BYTES_MAX)
        // What was reset by either side is remembered for a while, for frames that cross; never more than are open.
        .max_concurrent_reset_streams(streams)
        .max_pending_accept_reset_streams(streams)
        // It counts those that are refused as well, over the connection's whole life.
        .max_local_error_reset_streams(Some((10 * streams).max(1000)))
        .reset_stream_duration(RESET_FOR)
        .enable_connect_protocol()
        .max_send_buffer_size(UNSENT_BYTES_MAX);
    builder
}

/// What becomes of a connection once it is open.
struct Host<'a, E, A> {
    connection: Box<Connection<Duplex<Watch>, Piece>>,
    pings: Option<PingPong>,
    terms: &'a Terms,
    clock: &'a Clock,
    timer: &'a Timer,
    buffers: &'a Rc<Buffers>,
    ending: E,
    accept: A,
    heard: Rc<Heard>,
    requests: u32,
    /// True if it had streams when the timer was set.
    busy: Option<bool>,
    /// True once it was told that nothing more is served.
    leaving: bool,
    /// A ping has not been answered yet.
    asked: bool,
    /// How it ends, once what was said last has been gathered.
    over: Option<Ended>,
}

impl<'a, E: Fn() -> Ending, A: FnMut(Stream)> Host<'a, E, A> {
    #[allow(clippy::too_many_arguments)]
    fn new(
        mut connection: Box<Connection<Duplex<Watch>, Piece>>,
        terms: &'a Terms,
        clock: &'a Clock,
        timer: &'a Timer,
        buffers: &'a Rc<Buffers>,
        ending: E,
        accept: A,
        heard: Rc<Heard>,
    ) -> Host<'a, E, A> {
        let pings = connection.ping_pong();
        Host {
            connection,
            pings,
            terms,
            clock,
            timer,
            buffers,
            ending,
            accept,
            heard,
            requests: 0,
            busy: None,
            leaving: false,
            asked: false,
            over: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.over {
            return self.finish(ended, cx);
        }
        let ending = (self.ending)();
        if !self.leaving && (ending != Ending::Not || self.requests >= self.terms.requests_max) {
            self.leaving = true;
            self.connection.graceful_shutdown();
        }
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.requests += 1;
                    (self.accept)(Stream::new(request, respond, self.terms.stream_window, self.buffers));
                    if self.requests == self.terms.requests_max && !self.leaving {
                        self.leaving = true;
                        self.connection.graceful_shutdown();
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Ended::Failed),
                Poll::Ready(None) => return Poll::Ready(Ended::Done),
                Poll::Pending => break,
            }
        }
        if let Some(fault) = self.heard.fault.get() {
            return self.end(Reason::from(fault.code()), Ended::Failed, cx);
        }
        let busy = self.connection.has_streams();
        if self.busy != Some(busy) {
            self.busy = Some(busy);
            self.wait(busy);
        }
        if !busy && ending == Ending::IdleOver {
            return self.leave(cx);
        }
        if let Some(pings) = self.pings.as_mut().filter(|_| self.asked)
            && pings.poll_pong(cx).is_ready()
        {
            self.asked = false;
        }
        while self.timer.poll_expired(cx) {
            if !busy {
                return self.leave(cx);
            }
            let heard = self.heard.any.replace(false);
            if !heard && self.asked {
                return Poll::Ready(Ended::Silent);
            }
            if !heard && let Some(pings) = &mut self.pings {
                self.asked = pings.send_ping(Ping::opaque()).is_ok();
                // It goes out with this turn.
                let _ = self.connection.poll_closed(cx);
            }
            self.wait(true);
        }
        Poll::Pending
    }

    /// Sets the timer for what is waited for now.
    fn wait(&mut self, busy: bool) {
        let now = self.clock.now();
        let until = match busy {
            true if self.terms.ping.is_zero() => Instant::NEVER,
            true => now + self.terms.ping,
            false if self.leaving => now + LINGER,
            false => now + self.terms.keep_alive,
        };
        self.timer.set(until);
    }

    /// Says that nothing more is served, with nothing under way.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.end(Reason::NO_ERROR, Ended::Done, cx)
    }

    fn end(&mut self, reason: Reason, ended: Ended, cx: &mut Context<'_>) -> Poll<Ended> {
        self.connection.abrupt_shutdown(reason);
        self.over = Some(ended);
        self.timer.set(self.clock.now() + self.terms.write);
        self.finish(ended, cx)
    }

    /// Ready once all is gathered that was said: a stream has ended for the library when it has the last frame in hand, for
    /// which there may be no room yet.
    fn finish(&mut self, ended: Ended, cx: &mut Context<'_>) -> Poll<Ended> {
        match self.connection.poll_closed(cx) {
            Poll::Ready(_) => Poll::Ready(ended),
            Poll::Pending if self.timer.poll_expired(cx) => Poll::Ready(Ended::Silent),
            Poll::Pending => Poll::Pending,
        }
    }
}
