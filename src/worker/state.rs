//! All that one worker owns, and all that it was given.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::ToWorker;
use super::arrival::{Arrival, Pace};
use super::date::DateLine;
use super::drain::Drain;
use super::secure::Secured;
use crate::admission::Keys;
use crate::admission::cors::Cors;
use crate::base::clock::Clock;
use crate::base::{ListenerId, WorkerId};
use crate::config::schema::LimitsSchema;
use crate::config::{Config, Listener};
use crate::mesh::inbox::Inbox;
use crate::mesh::mailbox::Mailbox;
use crate::mesh::port::Port;
use crate::net::buf::Buffers;
use crate::net::dns::{Lookups, Names};
use crate::net::heap;
use crate::net::moderator::Moderator;
use crate::net::shortage::Shares;
use crate::net::timer::Timers;
use crate::net::tls::Credentials;
use crate::routing::Table;
use crate::routing::balance::Rng;
use crate::telemetry::metrics::board::Board;
use crate::telemetry::{Recorder, Records};
use crate::upstream::{Means, Upstreams};
use crate::wire::http1::{HeadLimits, MAX_HEADERS};

// Whoever may write a number of header fields into the configuration gets that many.
const _: () = assert!(LimitsSchema::HEADERS_MAX.max <= MAX_HEADERS as u64);

/// What all workers were given at start.
///
/// Lives on: every worker, immutable but for the mailboxes, inboxes and the record queue, whose ends are bounded and never wait,
/// and the boards, each written by its own worker alone.
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// Client keys.
    pub keys: Keys,
    /// Model names.
    pub table: Table,
    /// What browsers are told; `None` is nothing.
    pub cors: Option<Cors>,
    /// What is made of certificates, as it was at start.
    pub credentials: Arc<Credentials>,
    /// The same after files have changed, by worker.
    pub renewed: Vec<Mailbox<Arc<Credentials>>>,
    /// The control thread's way to each worker.
    pub ports: Vec<Port<ToWorker>>,
    /// Newly resolved names, by worker.
    pub names: Vec<Mailbox<Arc<Names>>>,
    /// Where connections come in that others have accepted, by worker; none if each worker serves what it accepts.
    pub arrivals: Vec<Inbox<Arrival>>,
    /// What is counted, by worker.
    pub boards: Vec<Arc<Board>>,
    /// How the asking for names went.
    pub lookups: Arc<Lookups>,
    /// Where usage records go; `None` keeps none.
    pub records: Option<Arc<Records>>,
    /// The clock that all workers read.
    pub clock: Clock,
    /// How far up descriptors may be used for what.
    pub descriptors: Shares,
    /// What each worker may hold in buffers, in bytes.
    pub memory_max: usize,
    /// Bits that differ from run to run.
    pub seed: u64,
}

/// One worker's own.
pub struct Worker {
    /// Which worker.
    pub id: WorkerId,
    /// What it was given.
    pub shared: Arc<Shared>,
    /// Its clock.
    pub clock: Clock,
    /// Its deadlines.
    pub timers: Rc<Timers>,
    /// Its read buffers.
    pub buffers: Rc<Buffers>,
    /// Its connections to providers.
    pub upstreams: Upstreams,
    /// Its recorder.
    pub recorder: Recorder,
    /// What it counts.
    pub board: Arc<Board>,
    /// Its pauses under many streams.
    pub moderator: Rc<Moderator>,
    /// How often it hands connections over.
    pub pace: Pace,
    /// How far it is with ending.
    pub drain: Drain,
    /// Its certificates.
    pub secured: Secured,
    /// What every answer's head holds, by listener.
    pub lines: Vec<Option<Rc<[u8]>>>,
    /// The date of its answers.
    pub date: DateLine,
    /// Bounds on heads.
    pub head_limits: HeadLimits,
    /// The id of an exchange that has panicked, for whoever tells its client.
    pub fallen: RefCell<Option<String>>,
    rng: RefCell<Rng>,
}

/// What the head of each answer of `listener` holds beside what it is about.
fn answer_lines(listener: &Listener) -> Option<Rc<[u8]>> {
    let hsts = listener.tls.as_ref()?.hsts?;
    Some(format!("strict-transport-security: max-age={}\r\n", hsts.as_secs()).into_bytes().into())
}

/// Counts one client connection for as long as it lives.
pub struct Place(Arc<Board>, ListenerId);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.listeners[usize::from(self.1.0)].open.sub(1);
    }
}

impl Worker {
    /// A worker's state; on the thread that will run it.
    pub fn new(id: WorkerId, shared: Arc<Shared>) -> Rc<Worker> {
        let limits = &shared.config.limits;
        let head_limits = HeadLimits {
            head_bytes_max: limits.head_bytes_max,
            headers_max: limits.headers_max,
            target_bytes_max: limits.target_bytes_max,
        };
        let board = shared.boards[usize::from(id.0)].clone();
        let (clock, timers) = (shared.clock.clone(), Timers::new(shared.clock.clone()));
        let buffers = Rc::<Buffers>::default();
        let ping = shared.config.http2.ping;
        let descriptors_max = shared.descriptors.providers;
        let means =
            Means { clock: clock.clone(), timers: timers.clone(), buffers: buffers.clone(), ping, descriptors_max };
        Rc::new(Worker {
            id,
            clock,
            timers,
            buffers,
            upstreams: Upstreams::new(&shared.config, &shared.credentials.endpoints, &board.endpoints, means),
            recorder: Recorder::new(shared.records.clone(), board.clone()),
            moderator: Moderator::new(shared.clock.clone(), shared.config.ring.gather),
            pace: Pace::default(),
            drain: Drain::default(),
            secured: Secured::new(shared.credentials.clone()),
            lines: shared.config.listeners.iter().map(answer_lines).collect(),
            date: DateLine::default(),
            head_limits,
            fallen: RefCell::default(),
            rng: RefCell::new(Rng::new(shared.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            board,
            shared,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// A place for one more client connection, if the bound allows it.
    pub fn take_place(&self, listener: ListenerId) -> Option<Place> {
        let counts = &self.board.listeners[usize::from(listener.0)];
        if self.connections() >= self.config().limits.connections_max {
            counts.refused.add(1);
            return None;
        }
        counts.accepted.add(1);
        counts.open.add(1);
        Some(Place(self.board.clone(), listener))
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        usize::try_from(self.board.connections()).unwrap_or(usize::MAX)
    }

    /// True if it holds more than it may.
    pub fn is_short_of_memory(&self) -> bool {
        heap::held() > self.shared.memory_max
    }

    /// True if it may hold so many bytes more.
    pub fn has_memory_for(&self, more: usize) -> bool {
        heap::held().saturating_add(more) <= self.shared.memory_max
    }

    /// Random bits for choices that need no secrecy.
    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().bits()
    }

    /// Takes newly resolved names over, if there are any.
    pub fn adopt_names(&self) {
        if let Some(names) = self.shared.names.get(usize::from(self.id.0)).and_then(Mailbox::take) {
            self.upstreams.adopt(&names);
        }
    }
}
