//! Reaching an endpoint: address, connection, proxy, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use super::http2::{self, Driver};
use super::links::Lead;
use super::pool::Used;
use super::proxy::Fault;
use super::race::{Won, race};
use super::{Connection, ErrorKind, Means, Phase, Place, Slot, UpstreamError, Upstreams};
use crate::base::EndpointId;
use crate::base::clock::Instant;
use crate::net::dns::Missing;
use crate::net::shortage::Shortage;
use crate::net::stream::Stream;
use crate::net::tls::{Failure, Session, over_http1};

impl Upstreams {
    /// Connects to `endpoint`: at its one address, or at the first of several that answers. While its name is being
    /// asked for, for the first time, that is waited for. One address whose TLS fails leaves the others their share of
    /// `within`; bounding the whole is the caller's, and dropping the future abandons the attempt. Where HTTP/2 is likely
    /// to be spoken it is not the only one to wait for a connection that is being made; `used` says which it takes that others
    /// have made. Whoever is given a driver has to run it.
    ///
    /// # Errors
    /// The last address's failure; no address at all; too many connections open.
    pub async fn connect(
        &self,
        endpoint: EndpointId,
        within: Duration,
        used: Used,
    ) -> Result<(Box<Connection>, Option<Driver>), UpstreamError> {
        let slot = self.slot(endpoint);
        let until = self.means.clock.now() + within;
        let lead = match slot.join_or_lead(used).await {
            Ok(exchange) => return Ok((Connection::on_link(slot, exchange, false), None)),
            Err(lead) => lead,
        };
        let (stream, peer, place) = match self.reach(slot, until, false).await {
            Ok(reached) => reached,
            Err(kind) => {
                lead.into_iter().for_each(Lead::failed);
                return Err(slot.error(Phase::Connect, kind));
            }
        };
        if !slot.links.is_spoken(stream.protocol()) {
            lead.into_iter().for_each(Lead::failed);
            return Ok((Connection::alone(slot, stream, peer, place), None));
        }
        let begun = http2::begin(stream, peer, place, lead, &self.means).await;
        let (link, driver) = begun.map_err(|error| slot.error(Phase::Connect, ErrorKind::Io(error)))?;
        let exchange = link.begin().expect("nothing is on it yet");
        slot.links.add(link);
        Ok((Connection::on_link(slot, exchange, false), Some(driver)))
    }

    /// As [`Upstreams::connect`], a connection over which HTTP/1.1 is spoken, for nobody else.
    ///
    /// # Errors
    /// As there; and if nothing but HTTP/2 is spoken with the endpoint.
    pub async fn connect_http1(
        &self,
        endpoint: EndpointId,
        within: Duration,
    ) -> Result<Box<Connection>, UpstreamError> {
        let slot = self.slot(endpoint);
        let fail = |kind| slot.error(Phase::Connect, kind);
        if slot.links.is_all() {
            return Err(fail(ErrorKind::OnlyHttp2));
        }
        let until = self.means.clock.now() + within;
        let (stream, peer, place) = self.reach(slot, until, true).await.map_err(fail)?;
        Ok(Connection::alone(slot, stream, peer, place))
    }

    /// A connection over which HTTP can be spoken, with `http1` in that version alone; the address at its other end, and its
    /// place among those that are allowed.
    async fn reach(&self, slot: &Rc<Slot>, until: Instant, http1: bool) -> Result<(Stream, IpAddr, Place), ErrorKind> {
        let addresses = slot.reach.addresses().await.map_err(|missing| slot.unresolved(missing))?;
        let is_full = || slot.board.open.get() >= self.connections_max as u64;
        if is_full() {
            // The one that nobody has used for longest makes room; the caller may not want a used one.
            let mut idle = slot.idle.borrow_mut();
            drop((!idle.is_empty()).then(|| idle.remove(0)));
            drop(idle);
            if is_full() {
                slot.links.make_room();
            }
            slot.note_idle();
        }
        if is_full() {
            return Err(ErrorKind::Exhausted);
        }
        let place = Place::take(slot);
        let (stream, peer) = match &*addresses {
            [only] => {
                let tcp = Stream::connect(SocketAddr::new(*only, slot.dialled.1)).await;
                let tcp = tcp.map_err(|error| slot.unreachable(error))?;
                (finish(slot, tcp, http1, &self.means).await?, *only)
            }
            several => {
                let order = slot.reach.order(several, self.means.clock.now());
                first(slot, order, until, http1, &self.means).await?
            }
        };
        slot.board.opened.add(1);
        Ok((stream, peer, place))
    }
}

/// The first of the addresses at which a connection can be made and finished.
async fn first(
    slot: &Slot,
    mut left: Vec<IpAddr>,
    until: Instant,
    http1: bool,
    means: &Means,
) -> Result<(Stream, IpAddr), ErrorKind> {
    let Means { clock, timers, .. } = means;
    loop {
        let connect = |ip| Stream::connect(SocketAddr::new(ip, slot.dialled.1));
        let won = race(&mut left, connect, &slot.reach, clock, timers).await;
        let Won { connected: tcp, address, slow } = won.map_err(|error| slot.unreachable(error))?;
        let finished = if left.is_empty() {
            finish(slot, tcp, http1, means).await
        } else {
            // One that falls silent must not use up the time of all.
            let share = until.since(clock.now()) / u32::try_from(left.len() + 1).unwrap_or(u32::MAX);
            let late = |_| Err(ErrorKind::Timeout(share));
            monoio::time::timeout(share, finish(slot, tcp, http1, means)).await.unwrap_or_else(late)
        };
        match finished {
            Ok(stream) => {
                let now = clock.now();
                slow.into_iter().for_each(|address| slot.reach.failed(address, now));
                slot.reach.worked(address, now);
                return Ok((stream, address));
            }
            Err(kind) => {
                slot.reach.failed(address, clock.now());
                if left.is_empty() {
                    return Err(kind);
                }
            }
        }
    }
}

/// Makes a stream of a connected socket: through the proxy if there is one, then TLS.
async fn finish(slot: &Slot, tcp: monoio::net::TcpStream, http1: bool, means: &Means) -> Result<Stream, ErrorKind> {
    if tcp.as_raw_fd() >= means.descriptors_max {
        return Err(slot.unreachable(Shortage::Descriptors.into()));
    }
    let tls = slot.tls.borrow().clone();
    let tls = if http1 { tls.map(|config| over_http1(&config)) } else { tls };
    let is_secure = tls.is_some();
    let session = tls.map(|config| Session::client(config, &slot.host)).transpose().map_err(ErrorKind::Io)?;
    let mut stream = match &slot.tunnel {
        None => Stream::new(tcp, session, means.buffers.clone()),
        Some(tunnel) => {
            let mut stream = Stream::new(tcp, None, means.buffers.clone());
            // Boxed: it holds a head, and few go through a proxy.
            Box::pin(tunnel.open(&mut stream)).await?;
            if let Some(session) = session {
                stream.secure(session);
            }
            stream
        }
    };
    let shaken = stream.handshake().await;
    if is_secure {
        let handshakes = &slot.board.handshakes;
        match &shaken {
            Ok(()) => handshakes.note_done(stream.is_resumed()),
            Err(error) => handshakes.note_failed(Failure::of(error) as usize),
        }
    }
    shaken.map_err(ErrorKind::Io)?;
    Ok(stream)
}

impl Slot {
    /// No connection came about within `after`: who kept us waiting, a proxy or who is behind it, is not known.
    pub fn unconnected(&self, after: Duration) -> UpstreamError {
        let mut error = self.error(Phase::Connect, ErrorKind::Timeout(after));
        if self.tunnel.is_some() {
            error.endpoint += " (behind a proxy)";
        }
        error
    }

    fn unresolved(&self, missing: Missing) -> ErrorKind {
        match self.tunnel {
            Some(_) => ErrorKind::Proxy(Fault::Unresolved(missing)),
            None => ErrorKind::Unresolved(missing),
        }
    }

    /// No connection could be made.
    fn unreachable(&self, error: io::Error) -> ErrorKind {
        match self.tunnel {
            Some(_) => ErrorKind::Proxy(Fault::Io(error)),
            None => ErrorKind::Io(error),
        }
    }
}
