//! Providers: connections to their endpoints, kept per worker; over each one HTTP/1.1 exchange, or many of HTTP/2.
//!
//! Lives on: every worker, one [`Upstreams`] each. It does not choose endpoints (`routing`) nor retry (`worker`).

pub mod connect;
mod connection;
pub mod fields;
pub mod http1;
pub mod http2;
mod links;
pub mod pool;
pub mod proxy;
pub mod race;
pub mod reach;
pub mod websocket;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::{Dialect, EndpointId};
use crate::config::{Auth, Config, Endpoint};
use crate::net::buf::Buffers;
use crate::net::dns::Missing;
use crate::net::shortage::Shortage;
use crate::net::timer::Timers;
use crate::net::tls::{ClientConfig, Failure};
use crate::telemetry::log::Limit;
use crate::telemetry::metrics::board::EndpointBoard;
pub use connection::Connection;
use reach::Reach;

/// The phase in which an exchange with an endpoint failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Finding an address, connecting, agreeing on TLS.
    Connect,
    /// Sending the request.
    Request,
    /// Waiting for the answer's first byte.
    FirstByte,
    /// Reading the answer's head.
    Head,
    /// Reading the answer's body.
    Body,
}

/// An endpoint that failed us.
#[derive(Debug)]
pub struct UpstreamError {
    /// Which one; its name holds no secret.
    pub endpoint: String,
    /// When.
    pub phase: Phase,
    /// How.
    pub kind: ErrorKind,
}

/// How an endpoint failed.
#[derive(Debug)]
pub enum ErrorKind {
    /// Its name has no address.
    Unresolved(Missing),
    /// It has as many connections as it may have from one worker.
    Exhausted,
    /// The proxy on the way to it failed.
    Proxy(proxy::Fault),
    /// The socket or TLS failed.
    Io(io::Error),
    /// It closed the connection; a reused one may simply have been stale.
    Closed {
        /// True if the connection had carried an exchange before.
        reused: bool,
    },
    /// It has said that it did nothing for this request (RFC 9113 §8.7).
    Refused {
        /// True if it has ended the connection with that, without an error and not for this request alone: it may well take the
        /// request on another one.
        leaving: bool,
    },
    /// A timer ran out.
    Timeout(Duration),
    /// It is spoken to in HTTP/2 alone, and was to be asked for a WebSocket.
    OnlyHttp2,
    /// What it sent is not HTTP, or breaks its rules.
    Malformed(&'static str),
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.phase {
            Phase::Connect => "connecting",
            Phase::Request => "sending the request",
            Phase::FirstByte => "waiting for an answer",
            Phase::Head => "reading the answer's head",
            Phase::Body => "reading the answer",
        };
        write!(f, "endpoint {}: ", self.endpoint)?;
        if let Some(shortage) = self.shortage() {
            return write!(f, "{shortage} (while {doing}): {}", shortage.remedy());
        }
        match &self.kind {
            ErrorKind::Unresolved(missing) => write!(f, "its name {missing} (while {doing})"),
            ErrorKind::Exhausted => write!(f, "all connections that it may have are in use"),
            ErrorKind::Proxy(fault) => write!(f, "{fault} (while {doing})"),
            ErrorKind::Io(error) => write!(f, "{error} (while {doing})"),
            ErrorKind::Closed { .. } => write!(f, "it closed the connection (while {doing})"),
            ErrorKind::Refused { .. } => write!(f, "it refused the request unseen (while {doing})"),
            ErrorKind::Timeout(after) => write!(f, "nothing came within {after:?} (while {doing})"),
            ErrorKind::OnlyHttp2 => {
                write!(f, "WebSockets go over HTTP/1.1, and it is spoken to with http2 = \"prior-knowledge\"")
            }
            ErrorKind::Malformed(why) => write!(f, "{why} (while {doing})"),
        }
    }
}

/// How often a request is sent again to an endpoint that ends its connections under it.
const REPEATS_MAX: u32 = 16;

impl UpstreamError {
    /// True if the provider cannot have begun work, so that another endpoint may be asked.
    pub fn is_before_request(&self) -> bool {
        self.phase == Phase::Connect
    }

    /// True if the endpoint has ended the connection for want of a certificate of ours, without having looked at the request.
    pub fn is_unheard(&self) -> bool {
        self.phase <= Phase::FirstByte && matches!(&self.kind, ErrorKind::Io(error) if Failure::refuses_us(error))
    }

    /// What this machine lacked for a connection to the endpoint, which may be as well as ever.
    pub fn shortage(&self) -> Option<Shortage> {
        match &self.kind {
            ErrorKind::Io(error) | ErrorKind::Proxy(proxy::Fault::Io(error)) if self.is_before_request() => {
                Shortage::of(error)
            }
            _ => None,
        }
    }

    /// True if the endpoint has as many connections as it may have.
    pub fn is_exhausted(&self) -> bool {
        matches!(self.kind, ErrorKind::Exhausted)
    }

    /// True if the endpoint has said that it did nothing for this request.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, ErrorKind::Refused { .. })
    }

    /// How often the request may be sent again over another connection to this endpoint. Once over one that had gone stale,
    /// closed before the first byte of an answer, and once if it refused that one request. Where connections end after a number of
    /// requests, many that come together may have to be sent again together, more than once.
    pub fn repeats(&self) -> u32 {
        match self.kind {
            ErrorKind::Refused { leaving: true } => REPEATS_MAX,
            ErrorKind::Refused { leaving: false } => 1,
            ErrorKind::Closed { reused: true } if self.phase <= Phase::FirstByte => 1,
            _ => 0,
        }
    }
}

/// All endpoints as one worker sees them.
pub struct Upstreams {
    slots: Vec<Rc<Slot>>,
    idle_max: usize,
    idle: Duration,
    connections_max: usize,
    means: Means,
}

/// What connecting takes of its worker.
pub struct Means {
    /// The worker's clock.
    pub clock: Clock,
    /// Its deadlines.
    pub timers: Rc<Timers>,
    /// Its read buffers.
    pub buffers: Rc<Buffers>,
    /// With exchanges under way, an endpoint that is silent on an HTTP/2 connection for so long is asked whether it is there, and
    /// the connection is given up after as long again; zero for never.
    pub ping: Duration,
    /// From this number on a descriptor is not for an endpoint's connection.
    pub descriptors_max: RawFd,
}

/// One endpoint as one worker sees it.
pub struct Slot {
    /// Its name, for errors.
    pub name: String,
    /// How often its failures are said.
    pub complaints: Limit,
    /// The name in its certificate.
    host: String,
    /// The host and port that are connected to.
    dialled: (String, u16),
    tunnel: Option<proxy::Tunnel>,
    tls: RefCell<Option<Arc<ClientConfig>>>,
    base_path: String,
    /// The field lines that every request to it begins with, by dialect; they hold its key.
    lines: [Vec<u8>; 2],
    idle: RefCell<Vec<pool::Idle>>,
    /// Connections that carry many exchanges.
    links: links::Links,
    /// What is counted of it.
    board: Arc<EndpointBoard>,
    reach: Reach,
}

/// Counts one connection as open, or about to be, for as long as it lives.
struct Place(Rc<Slot>);

impl Place {
    fn take(slot: &Rc<Slot>) -> Place {
        slot.board.open.add(1);
        Place(slot.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.board.open.sub(1);
    }
}

/// Counts one request as outstanding at an endpoint for as long as it lives.
pub struct Outstanding(Rc<Slot>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.board.outstanding.sub(1);
    }
}

impl Upstreams {
    /// Slots for all endpoints of `config`, counted on `boards`; `tls` gives each https endpoint what it trusts.
    pub fn new(
        config: &Config,
        tls: &[Option<Arc<ClientConfig>>],
        boards: &[Arc<EndpointBoard>],
        means: Means,
    ) -> Upstreams {
        let slots = config.endpoints.iter().zip(tls).zip(boards).map(|((endpoint, tls), board)| {
            Rc::new(Slot {
                name: endpoint.name.clone(),
                complaints: Limit::new(),
                host: endpoint.host.clone(),
                dialled: (endpoint.dialled().0.to_owned(), endpoint.dialled().1),
                tunnel: endpoint.proxy.as_ref().map(|proxy| proxy::Tunnel::new(endpoint, proxy)),
                tls: RefCell::new(tls.clone()),
                base_path: endpoint.base_path.clone(),
                lines: [Dialect::OpenAi, Dialect::Anthropic].map(|dialect| own_lines(config, endpoint, dialect)),
                idle: RefCell::default(),
                links: links::Links::new(endpoint.http2),
                board: board.clone(),
                reach: Reach::new(endpoint.dialled().0),
            })
        });
        Upstreams {
            slots: slots.collect(),
            idle_max: config.pool.idle_max,
            idle: config.pool.idle,
            connections_max: config.pool.connections_max,
            means,
        }
    }

    /// Takes over what each https endpoint trusts and is shown, for connections from now on.
    pub fn renew(&self, tls: &[Option<Arc<ClientConfig>>]) {
        for (slot, tls) in self.slots.iter().zip(tls) {
            let before = slot.tls.replace(tls.clone());
            // One that is always busy would show what it was made with for ever.
            if before.zip(tls.as_ref()).is_some_and(|(before, now)| !Arc::ptr_eq(&before, now)) {
                slot.links.let_go();
            }
        }
    }

    /// The slot of `endpoint`.
    pub fn slot(&self, endpoint: EndpointId) -> &Rc<Slot> {
        &self.slots[usize::from(endpoint.0)]
    }

    /// Requests of this worker that `endpoint` has not yet answered to their end.
    pub fn outstanding(&self, endpoint: EndpointId) -> u32 {
        u32::try_from(self.slot(endpoint).board.outstanding.get()).unwrap_or(u32::MAX)
    }

    /// Counts an attempt, and its request as outstanding.
    pub fn begin(&self, endpoint: EndpointId) -> Outstanding {
        let slot = self.slot(endpoint);
        slot.board.attempts.add(1);
        slot.board.outstanding.add(1);
        Outstanding(slot.clone())
    }
}

/// Stands for this gateway and for all in front of it: who they are is not for providers to know (RFC 9110 §7.6.3 asks
/// for the line and allows a name that is not the host's, and one line for several).
const VIA: &str = "via: 1.1 ringway\r\n";

/// What we always say to an endpoint: who it is, who we are, and that we want to read along.
fn own_lines(config: &Config, endpoint: &Endpoint, dialect: Dialect) -> Vec<u8> {
    let mut lines = format!("host: {}\r\n{VIA}", endpoint.authority).into_bytes();
    if !config.providers[endpoint.provider].passes_accept_encoding {
        lines.extend_from_slice(b"accept-encoding: identity\r\n");
    }
    if let Some(key) = &endpoint.key {
        let as_bearer = match endpoint.auth {
            Auth::Bearer => true,
            Auth::XApiKey => false,
            Auth::Dialect => dialect == Dialect::OpenAi,
        };
        lines.extend_from_slice(if as_bearer { b"authorization: Bearer " } else { b"x-api-key: " });
        lines.extend_from_slice(key.expose().as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}
