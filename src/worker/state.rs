//! All that one worker owns, and all that it was given.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::ToWorker;
use super::drain::Drain;
use crate::admission::Keys;
use crate::base::clock::Clock;
use crate::base::{EndpointId, WorkerId};
use crate::config::Config;
use crate::mesh::mailbox::Mailbox;
use crate::mesh::port::Port;
use crate::net::buf::Buffers;
use crate::net::dns::{Names, Resolved};
use crate::net::moderator::Moderator;
use crate::net::timer::Timers;
use crate::net::tls::ClientConfig;
use crate::routing::Table;
use crate::routing::balance::Rng;
use crate::telemetry::{Recorder, Records};
use crate::upstream::Upstreams;
use crate::wire::http1::HeadLimits;

/// What all workers were given at start.
///
/// Lives on: every worker, immutable but for the mailboxes and the record queue, whose ends are bounded and never wait.
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// Client keys.
    pub keys: Keys,
    /// Model names.
    pub table: Table,
    /// What each https endpoint trusts, by endpoint.
    pub tls: Vec<Option<Arc<ClientConfig>>>,
    /// The control thread's way to each worker.
    pub ports: Vec<Port<ToWorker>>,
    /// Newly resolved names, by worker.
    pub names: Vec<Mailbox<Arc<Names>>>,
    /// Where usage records go; `None` keeps none.
    pub records: Option<Arc<Records>>,
    /// The clock that all workers read.
    pub clock: Clock,
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
    /// Its pauses under many streams.
    pub moderator: Rc<Moderator>,
    /// How far it is with ending.
    pub drain: Drain,
    /// Bounds on heads.
    pub head_limits: HeadLimits,
    resolved: RefCell<Resolved>,
    rng: RefCell<Rng>,
    connections: Rc<Cell<usize>>,
}

/// Counts one client connection for as long as it lives.
pub struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
        Rc::new(Worker {
            id,
            clock: shared.clock.clone(),
            timers: Timers::new(shared.clock.clone()),
            buffers: Rc::default(),
            upstreams: Upstreams::new(&shared.config, &shared.tls),
            recorder: Recorder::new(shared.records.clone()),
            moderator: Moderator::new(shared.clock.clone(), shared.config.ring.gather),
            drain: Drain::default(),
            head_limits,
            resolved: RefCell::default(),
            rng: RefCell::new(Rng::new(shared.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
            connections: Rc::default(),
            shared,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// A place for one more client connection, if the bound allows it.
    pub fn take_place(&self) -> Option<Place> {
        let taken = self.connections.get();
        if taken >= self.config().limits.connections_max {
            return None;
        }
        self.connections.set(taken + 1);
        Some(Place(self.connections.clone()))
    }

    /// Client connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Random bits for choices that need no secrecy.
    pub fn random(&self) -> u64 {
        self.rng.borrow_mut().bits()
    }

    /// The addresses of `endpoint` as far as they are known.
    pub fn addresses(&self, endpoint: EndpointId) -> Vec<SocketAddr> {
        let (host, port) = self.upstreams.host(endpoint);
        let mut resolved = self.resolved.borrow_mut();
        if let Some(names) = self.shared.names.get(usize::from(self.id.0)).and_then(Mailbox::take) {
            resolved.adopt(names);
        }
        resolved.addresses(host, port)
    }
}
