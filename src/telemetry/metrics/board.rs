//! What one worker counts, where the control thread can read it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

pub use super::count::Count;

use super::cells::{Cell, Route};
use crate::base::clock::Instant;
use crate::telemetry::{Phase, SocketEnd};

/// Phases of an exchange.
pub const PHASES: usize = Phase::ALL.len();
/// Whose fault an error was.
pub const ORIGINS: usize = 3;

/// Why clients are not accepted for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The process has no descriptors left for them.
    Descriptors,
    /// The system has no open files left.
    Files,
    /// The kernel has no memory left for sockets.
    Sockets,
    /// The worker holds more than it may.
    Memory,
}

impl Pause {
    /// All of them, as labels.
    pub const ALL: [&str; 4] = ["descriptors", "files", "sockets", "memory"];
}

/// How TLS handshakes ended.
#[derive(Debug, Default)]
pub struct Handshakes {
    full: Count,
    resumed: Count,
    failed: [Count; Handshakes::FAILURES.len()],
}

impl Handshakes {
    /// Why they may fail, as labels.
    pub const FAILURES: [&str; 7] =
        ["plain_http", "timeout", "closed", "certificate", "alert", "incompatible", "malformed"];

    /// Counts one that succeeded.
    pub fn note_done(&self, resumed: bool) {
        if resumed { &self.resumed } else { &self.full }.add(1);
    }

    /// Counts one that failed, for the reason at this place of [`Handshakes::FAILURES`].
    pub fn note_failed(&self, reason: usize) {
        self.failed[reason].add(1);
    }

    /// Every result and its count.
    pub fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let done = [("full", self.full.get()), ("resumed", self.resumed.get())];
        done.into_iter().chain(Handshakes::FAILURES.into_iter().zip(self.failed.iter().map(Count::get)))
    }
}

/// One worker's figures.
///
/// Lives on: the worker, its only writer; the control thread reads, which holds nothing up.
#[derive(Debug)]
// So that no two workers write to one cache line, nor to a pair that is fetched together.
#[repr(align(128))]
pub struct Board {
    /// Exchanges under way.
    pub in_flight: Count,
    /// When it last came to its once-a-second duty, on the gateway's clock.
    pub beat_ns: Count,
    /// How late it was then.
    pub lag_ns: Count,
    /// Reads and writes that were with the kernel then.
    pub ring_depth: Count,
    /// 1 once it accepts clients.
    pub accepting: Count,
    /// 1 once it has drained.
    pub ended: Count,
    /// Client connections that it accepted and another worker serves.
    pub handed_over: Count,
    /// What it held in buffers then, in bytes.
    pub memory: Count,
    /// What it may hold.
    pub memory_max: Count,
    /// Requests that were refused for want of it.
    pub memory_refusals: Count,
    /// Listeners whose clients wait.
    pub paused: Count,
    /// How often they had to begin to, by reason.
    pub pauses: [Count; Pause::ALL.len()],
    /// Exchanges that failed, by origin and phase.
    pub errors: [[Count; PHASES]; ORIGINS],
    /// Exchanges whose client left, by phase.
    pub cancelled: [Count; PHASES],
    /// TLS handshakes with clients.
    pub handshakes: Handshakes,
    /// Upgraded connections.
    pub websockets: SocketBoard,
    /// By listener.
    pub listeners: Box<[ListenerBoard]>,
    /// By endpoint.
    pub endpoints: Box<[Arc<EndpointBoard>]>,
    /// Routes that were seen for the first time.
    fresh: ArrayQueue<(Route, Arc<Cell>)>,
}

/// A worker's WebSockets.
#[derive(Debug, Default)]
pub struct SocketBoard {
    /// Those that are open or being opened.
    pub open: Count,
    /// From clients.
    pub received: WayBoard,
    /// To clients.
    pub sent: WayBoard,
    /// Those that have ended, by how.
    pub ends: [Count; SocketEnd::ALL.len()],
}

/// What has gone one way.
#[derive(Debug, Default)]
pub struct WayBoard {
    /// Messages, to their end.
    pub messages: Count,
    /// Bytes of messages.
    pub bytes: Count,
}

/// One listener's figures at one worker.
#[derive(Debug, Default)]
pub struct ListenerBoard {
    /// Connections that are open.
    pub open: Count,
    /// Connections taken.
    pub accepted: Count,
    /// Connections closed at once, for there were too many.
    pub refused: Count,
    /// Connections that speak HTTP/2.
    pub http2_open: Count,
    /// Streams on them.
    pub http2_streams: Count,
    /// Those that did not end well.
    pub http2_failed: Count,
}

/// One endpoint's figures at one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointBoard {
    /// Connections that are open or being made.
    pub open: Count,
    /// Connections that wait for their next exchange.
    pub idle: Count,
    /// Requests that are not answered to their end.
    pub outstanding: Count,
    /// Attempts.
    pub attempts: Count,
    /// Connections made.
    pub opened: Count,
    /// Attempts over a kept connection.
    pub reused: Count,
    /// TLS handshakes; one that was given up is none.
    pub handshakes: Handshakes,
    /// Attempts that it failed, by phase.
    pub failures: [Count; PHASES],
    /// When it last failed one, on the gateway's clock; 0 if it never did.
    pub failed_ns: Count,
    /// In which phase that was.
    pub failed_in: Count,
}

impl EndpointBoard {
    /// It failed an attempt that had come so far.
    pub fn failed(&self, phase: Phase, now: Instant) {
        self.failures[phase as usize].add(1);
        self.failed_in.set(phase as u64);
        self.failed_ns.set(now.0);
    }

    /// When it last failed an attempt, and in which phase.
    pub fn last_failure(&self) -> Option<(Instant, Phase)> {
        let phase = *Phase::ALL.get(usize::try_from(self.failed_in.get()).ok()?)?;
        (self.failed_ns.get() > 0).then(|| (Instant(self.failed_ns.get()), phase))
    }
}

impl Board {
    /// A board for so many listeners and endpoints. `routes_max` routes are told apart at most; with 0 none are counted.
    pub fn new(listeners: usize, endpoints: usize, routes_max: usize) -> Board {
        Board {
            in_flight: Count::new(),
            beat_ns: Count::new(),
            lag_ns: Count::new(),
            ring_depth: Count::new(),
            accepting: Count::new(),
            ended: Count::new(),
            handed_over: Count::new(),
            memory: Count::new(),
            memory_max: Count::new(),
            memory_refusals: Count::new(),
            paused: Count::new(),
            pauses: Default::default(),
            errors: Default::default(),
            cancelled: Default::default(),
            handshakes: Handshakes::default(),
            websockets: SocketBoard::default(),
            listeners: (0..listeners).map(|_| ListenerBoard::default()).collect(),
            endpoints: (0..endpoints).map(|_| Arc::default()).collect(),
            // One more, for those beyond the bound.
            fresh: ArrayQueue::new(routes_max + 1),
        }
    }

    /// How many routes are told apart at most.
    pub fn routes_max(&self) -> usize {
        self.fresh.capacity() - 1
    }

    /// Shows a route's cell to the control thread, once for each.
    pub(super) fn show(&self, route: Route, cell: Arc<Cell>) {
        // There is room for as many as are ever shown.
        let _ = self.fresh.push((route, cell));
    }

    /// The next cell that was shown and not yet taken.
    pub(super) fn take_fresh(&self) -> Option<(Route, Arc<Cell>)> {
        self.fresh.pop()
    }

    /// How long ago it came to its once-a-second duty; zero if it does not have to.
    pub fn silence(&self, now: Instant) -> Duration {
        match self.accepting.get() > 0 && self.ended.get() == 0 {
            true => now.since(Instant(self.beat_ns.get())),
            false => Duration::ZERO,
        }
    }

    /// Client connections that are open.
    pub fn connections(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.open.get()).sum()
    }

    /// What its clients keep it busy with, as far as connections tell: those that are open, and the streams on them.
    pub fn load(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.open.get() + listener.http2_streams.get()).sum()
    }
}
