//! Many exchanges at once over one connection to an endpoint: HTTP/2 (RFC 9113), by the `h2` library.
//!
//! A connection is made of three: a [`Link`], which the pool keeps and exchanges are begun on; a [`Driver`], which its
//! worker runs beside them, and which reads and writes for all of them; and an [`Exchange`] for each request under way.
//!
//! To who works with it an exchange looks as one over HTTP/1.1 does: its answer is bytes, a head as HTTP/1.1 has it and
//! then the body, so that there is one reader of answers and not two ideas of what one is. What of an answer was not asked for
//! stays with the provider: its window is opened as more is asked for.

mod exchange;

pub use exchange::Exchange;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};

use super::links::Lead;
use super::{Means, Place};
use crate::base::clock::{Clock, Instant};
use crate::net::buf::Buffers;
use crate::net::duplex::{Duplex, Home, Outbox, Patience, Piece, Sentry, drive};
use crate::net::socket::Socket;
use crate::net::stream::{Output, Stream};
use crate::net::timer::Timer;
use crate::wire::http2::{Fault, Sieve};

/// Bytes of one answer that may come before they are asked for.
const STREAM_WINDOW: u32 = 256 << 10;
/// Of all answers together. A client that does not read must not hold up the answers of others.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Frames may be this long; what every peer must take (RFC 9113 §4.2), and enough.
const FRAME_BYTES_MAX: u32 = 16 << 10;
/// Names, values and 32 bytes for each field of an answer's head.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Exchanges on one connection at once, whatever the endpoint allows.
pub(super) const STREAMS_MAX: usize = 100;
/// Exchanges on one connection over its life, far below where the numbers of streams end (RFC 9113 §5.1.1).
const EXCHANGES_MAX: u32 = 1 << 29;
/// Exchanges on one connection over its life that we have given up. What is still on its way of each counts, for the library,
/// against a budget of half of [`CONNECTION_WINDOW`] which nothing refills, up to 256 bytes for each small frame; with its last
/// the connection would end for all. So many may leave a hundred frames each.
const GIVEN_UP_MAX: u32 = 1000;
/// What of one request may wait for its endpoint, in bytes, before no more is taken; a piece beyond it may be under way.
const UNSENT_BYTES_MAX: usize = 64 << 10;
/// Frames that carry nothing, at once; as many again each ten seconds.
const CONTROL_FRAMES_MAX: u32 = 10_000;
/// What an endpoint says nothing at all for makes its connection suspect, once a request was given up.
const SILENT: Duration = Duration::from_millis(500);
/// Streams that we have reset are remembered, so many and so long, for frames of theirs may still be under way.
const RESETS_MAX: usize = 4096;
/// See [`RESETS_MAX`].
const RESET_FOR: Duration = Duration::from_secs(5);
/// How long an endpoint has to take what is sent to it in one turn, [`GATHER_BYTES_MAX`](crate::net::duplex::GATHER_BYTES_MAX)
/// at most; the requests on their way have deadlines of their own.
const WRITE: Duration = Duration::from_secs(30);

/// A connection as the pool sees it: what exchanges are begun on.
pub struct Link {
    requests: SendRequest<Piece>,
    state: Rc<State>,
    /// The address at its other end.
    pub(super) peer: IpAddr,
    made: Instant,
    scheme: http::uri::Scheme,
    buffers: Rc<Buffers>,
    _place: Place,
}

/// What a link, its driver and its exchanges know of one another.
struct State {
    /// Exchanges under way.
    open: Cell<usize>,
    /// Exchanges that were ever begun.
    begun: Cell<u32>,
    /// Those that we have given up before their answers had ended.
    given_up_on: Cell<u32>,
    /// No more can begin.
    closed: Cell<bool>,
    /// Nobody is to begin one any more.
    unwanted: Cell<bool>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
    /// When something last came.
    heard: Cell<Option<Instant>>,
    /// The endpoint has said what it allows.
    settled: Cell<bool>,
    /// Why nothing is read any more.
    fault: Cell<Option<Fault>>,
    /// What came first is not HTTP/2.
    foreign: Cell<bool>,
    /// It was given up while it may have been working: it had not said that it was there, or took nothing.
    given_up: Cell<bool>,
    /// Until the endpoint has said how many exchanges it allows, others wait for that.
    lead: RefCell<Option<Lead>>,
    driver: RefCell<Option<Waker>>,
    clock: Clock,
}

/// Counts one exchange for as long as it lives.
struct Member(Rc<State>);

impl Drop for Member {
    fn drop(&mut self) {
        let state = &self.0;
        state.open.set(state.open.get() - 1);
        if state.open.get() == 0 {
            let now = state.clock.now();
            let quiet = now - state.idle_since.replace(now);
            if quiet >= SILENT
                && let Some(lead) = state.lead.take()
            {
                // It has said nothing in the time that the first had: others are not to wait for it as well.
                state.unwanted.set(true);
                lead.failed();
            }
            // It need not ask any more whether its endpoint is there.
            if let Some(waker) = state.driver.take() {
                waker.wake();
            }
        }
    }
}

impl Link {
    /// A new exchange, unless the connection carries as many as it may, or no more at all.
    pub(super) fn begin(self: &Rc<Link>) -> Option<Exchange> {
        let state = &self.state;
        // Before its endpoint has said what it allows, it carries the one that it was made for.
        let allowed = if state.lead.borrow().is_some() { 1 } else { self.allowed() };
        if !self.is_open() || state.open.get() >= allowed {
            return None;
        }
        state.open.set(state.open.get() + 1);
        state.begun.set(state.begun.get() + 1);
        Some(Exchange::new(self.clone(), Member(state.clone()), Home::new(self.buffers.clone())))
    }

    /// Exchanges that it may carry at once.
    fn allowed(&self) -> usize {
        self.requests.current_max_send_streams().min(STREAMS_MAX)
    }

    /// True if exchanges can begin on it, now or once others have ended.
    pub(super) fn is_open(&self) -> bool {
        let state = &self.state;
        let is_over = state.closed.get() || state.given_up.get();
        let is_used_up = state.begun.get() >= EXCHANGES_MAX || state.given_up_on.get() >= GIVEN_UP_MAX;
        !is_over && !state.unwanted.get() && !is_used_up
    }

    /// True for one that was made no earlier than `since`.
    pub(super) fn is_made_since(&self, since: Instant) -> bool {
        self.made >= since
    }

    /// True if something came from it no longer than `within` before `now`.
    pub(super) fn is_heard(&self, now: Instant, within: Duration) -> bool {
        self.state.heard.get().is_some_and(|heard| now - heard < within)
    }

    /// Since when nothing has been under way on it, if nothing is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.state.open.get() == 0).then(|| self.state.idle_since.get())
    }

    /// Lets it go: no exchange begins on it any more, and it ends with the last one.
    pub(super) fn let_go(&self) {
        self.state.unwanted.set(true);
    }
}

/// Reads and writes for all exchanges of a connection. Its worker runs it beside them.
pub struct Driver {
    connection: Connection<Duplex<Watch>, Piece>,
    pings: Option<PingPong>,
    out: Rc<Outbox>,
    output: Output,
    socket: Socket,
    state: Rc<State>,
    timer: Timer,
    write_timer: Timer,
    /// See [`Means::ping`].
    ping: Duration,
}

/// Follows frames on their way in.
struct Watch {
    sieve: Sieve,
    state: Rc<State>,
}

impl Sentry for Watch {
    fn pass(&mut self, bytes: &[u8], room: usize, put: impl FnMut(&[u8])) -> Option<usize> {
        let state = &self.state;
        let now = state.clock.now();
        if !bytes.is_empty() {
            if state.heard.get().is_none() && bytes.starts_with(b"HTTP/") {
                state.foreign.set(true);
            }
            state.heard.set(Some(now));
        }
        let passed = self.sieve.pass(bytes, room, put, || now);
        state.settled.set(state.settled.get() || self.sieve.is_settled());
        state.closed.set(state.closed.get() || self.sieve.is_leaving());
        passed.map_err(|fault| state.fault.set(Some(fault))).ok()
    }
}

/// Begins HTTP/2 on `stream`, over which it was agreed on, or is known to be spoken. `lead` is told when others can begin
/// exchanges on it as well.
///
/// # Errors
/// The connection's.
pub(super) async fn begin(
    stream: Stream,
    peer: IpAddr,
    place: Place,
    lead: Option<Lead>,
    means: &Means,
) -> io::Result<(Rc<Link>, Driver)> {
    let scheme = if stream.is_secure() { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP };
    let Stream { mut input, output, socket } = stream;
    input.expect_little();
    let out = Rc::new(Outbox::new(means.buffers.clone()));
    let made = means.clock.now();
    let state = Rc::new(State {
        open: Cell::new(0),
        begun: Cell::new(0),
        given_up_on: Cell::new(0),
        closed: Cell::new(false),
        unwanted: Cell::new(false),
        idle_since: Cell::new(made),
        heard: Cell::new(None),
        settled: Cell::new(false),
        fault: Cell::new(None),
        foreign: Cell::new(false),
        given_up: Cell::new(false),
        lead: RefCell::new(lead),
        driver: RefCell::default(),
        clock: means.clock.clone(),
    });
    let sieve = Sieve::of_server(CONTROL_FRAMES_MAX, FRAME_BYTES_MAX);
    let watch = Watch { sieve, state: state.clone() };
    let duplex = Duplex::new(Rc::new(RefCell::new(input)), out.clone(), watch);
    // It writes its preface and settings, which the outbox takes at once, and waits for nothing.
    let (requests, mut connection) = builder().handshake(duplex).await.map_err(io::Error::other)?;
    let pings = connection.ping_pong();
    let (timer, write_timer) = (means.timers.timer(), means.timers.timer());
    let driver =
        Driver { connection, pings, out, output, socket, state: state.clone(), timer, write_timer, ping: means.ping };
    let buffers = means.buffers.clone();
    let link = Link { requests, state, peer, made, scheme, buffers, _place: place };
    Ok((Rc::new(link), driver))
}

/// The last frame of a connection that a fault ends. No stream was begun by the other side.
fn goaway(code: u32) -> [u8; 17] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    frame[13..].copy_from_slice(&code.to_be_bytes());
    frame
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        // What is still on its way of streams that clients have left must not count against those who stay: it is remembered
        // which they were, and frames for others are no fault of the connection.
        .max_concurrent_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(None)
        .reset_stream_duration(RESET_FOR)
        // Until its settings have come, an endpoint is taken to allow as many as we would begin.
        .initial_max_send_streams(STREAMS_MAX)
        .max_send_buffer_size(UNSENT_BYTES_MAX);
    builder
}

/// How long an endpoint has said nothing while something was asked of it. It goes on while nothing is under way, for requests that
/// are given up one after the other would else begin it anew each time.
#[derive(Default)]
struct Silence {
    since: Option<Instant>,
    /// When it was asked whether it is there.
    asked: Option<Instant>,
}

impl Silence {
    /// Something is asked, or no longer.
    fn begin(&mut self, state: &State) {
        if self.was_broken(state) || self.since.is_none() {
            *self = Silence { since: Some(state.clock.now()), asked: None };
        }
    }

    /// True if something has come since: then another begins with that.
    fn was_broken(&mut self, state: &State) -> bool {
        let heard = state.heard.get().filter(|heard| self.since.is_some_and(|since| since < *heard));
        if heard.is_some() {
            *self = Silence { since: heard, asked: None };
        }
        heard.is_some()
    }

    /// When it has lasted too long for the next step.
    fn until(&self, ping: Duration) -> Instant {
        self.asked.or(self.since).map_or(Instant::NEVER, |since| since + ping)
    }
}

impl Driver {
    /// Runs until the connection ends: its endpoint closes or breaks it, or falls silent, or it was let go and nothing is
    /// under way.
    pub async fn run(self) {
        let Driver { mut connection, mut pings, out, mut output, socket, state, timer, write_timer, ping } = self;
        let (mut busy, mut silence) = (false, Silence::default());
        let work = poll_fn(|cx| {
            *state.driver.borrow_mut() = Some(cx.waker().clone());
            let ended = Pin::new(&mut connection).poll(cx).is_ready();
            if let Some(fault) = state.fault.get().filter(|_| !ended) {
                out.say_last(&goaway(fault.code()));
            }
            let is_over = state.closed.get() || state.given_up.get();
            if ended || state.fault.get().is_some() || is_over && state.open.get() == 0 {
                return Poll::Ready(());
            }
            if state.settled.get() && state.lead.borrow().is_some() {
                let lead = state.lead.take();
                lead.into_iter().for_each(|lead| lead.done(connection.max_concurrent_send_streams()));
            }
            let is_busy = state.open.get() > 0 && !ping.is_zero();
            if is_busy != busy {
                busy = is_busy;
                silence.begin(&state);
                // A question that was asked is waited for in any case.
                timer.set(if busy || silence.asked.is_some() { silence.until(ping) } else { Instant::NEVER });
            }
            if let Some(pings) = &mut pings {
                // Taken, so that another can be sent.
                let _ = pings.poll_pong(cx);
            }
            while (busy || silence.asked.is_some()) && timer.poll_expired(cx) {
                if silence.was_broken(&state) {
                    timer.set(if busy { silence.until(ping) } else { Instant::NEVER });
                    continue;
                }
                if silence.asked.is_some() {
                    state.given_up.set(true);
                    return Poll::Ready(());
                }
                silence.asked = Some(state.clock.now());
                // One that is still under way asks as well.
                let _ = pings.as_mut().map(|pings| pings.send_ping(Ping::opaque()));
                // It goes out with this turn.
                if Pin::new(&mut connection).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                timer.set(silence.until(ping));
            }
            Poll::Pending
        });
        let patience = Patience { timer: &write_timer, clock: &state.clock, within: WRITE, expired: &state.given_up };
        // Once it is over nobody waits for what is left.
        drive(pin!(work), &out, &mut output, &patience, |()| true).await;
        state.closed.set(true);
        state.lead.take().into_iter().for_each(Lead::failed);
        output.speak(true);
        socket.abort();
    }
}
