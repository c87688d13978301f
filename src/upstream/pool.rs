//! Connections to endpoints that wait for their next exchange, or carry several, bounded in number and age.
//!
//! An idle connection keeps a read under way, so one that the endpoint closes is seen at the next look and
//! never handed out; the race that remains is the attempt's to repeat.

use std::rc::Rc;
use std::time::Duration;

use super::http1::Ahead;
use super::http2::Link;
use super::{Connection, Slot, Upstreams};
use crate::base::EndpointId;
use crate::base::clock::Instant;

/// What was heard from so lately is taken for open.
const LIVELY: Duration = Duration::from_secs(1);

/// A connection that waits for its next exchange.
pub struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// Which connections an exchange takes that were used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// Any: what is sent over one that turns out stale can be sent again.
    Any,
    /// One that carries others as well and was heard from less than a second before.
    Lively(Instant),
    /// One that carries others as well and was made since.
    MadeSince(Instant),
}

impl Used {
    pub(super) fn takes(self, link: &Link) -> bool {
        match self {
            Used::Any => true,
            Used::Lively(now) => link.is_heard(now, LIVELY),
            Used::MadeSince(since) => link.is_made_since(since),
        }
    }
}

impl Upstreams {
    /// A place on a connection to `endpoint` that carries others, or the most recently used idle one that is still open.
    pub fn checkout(&self, endpoint: EndpointId, used: Used) -> Option<Box<Connection>> {
        let slot = self.slot(endpoint);
        if let Some(exchange) = slot.links.begin(used) {
            slot.board.reused.add(1);
            return Some(Connection::on_link(slot, exchange, true));
        }
        if used != Used::Any {
            return None;
        }
        let mut idle = slot.idle.borrow_mut();
        let found = std::iter::from_fn(|| idle.pop()).find_map(|mut kept| {
            // What the endpoint has closed meanwhile is closed by being dropped.
            kept.connection.is_quiet().then_some(kept.connection)
        });
        slot.board.reused.add(u64::from(found.is_some()));
        drop(idle);
        slot.note_idle();
        found
    }

    /// Keeps a connection whose exchange has ended; it is closed instead if too many are kept, if it
    /// leads to an address that its name no longer has, or if the endpoint has already closed it or said more than it was
    /// asked for. One that carries others is kept already.
    pub fn checkin(&self, mut connection: Box<Connection>, now: Instant) {
        let Some(peer) = connection.peer() else { return };
        let slot = Rc::clone(&connection.slot);
        let mut idle = slot.idle.borrow_mut();
        // One that is always busy would escape every sweep.
        let leads_there = slot.reach.leads_to(peer);
        if idle.len() < self.idle_max && leads_there && connection.is_quiet() {
            connection.reused = true;
            // The interim answers of the next exchange are counted anew.
            connection.ahead = Ahead::default();
            idle.push(Idle { connection, since: now });
            drop(idle);
            slot.note_idle();
        }
    }

    /// Closes what was closed by its endpoint, has been idle for too long, or leads to an address that its name no
    /// longer has.
    pub fn sweep(&self, now: Instant) {
        for slot in &self.slots {
            let mut idle = slot.idle.borrow_mut();
            let is_old = |since| now.since(since) >= self.idle;
            let leads_there = |peer| slot.reach.leads_to(peer);
            idle.retain_mut(|kept| {
                !is_old(kept.since) && kept.connection.peer().is_some_and(leads_there) && kept.connection.is_quiet()
            });
            slot.links.sweep(is_old, |link| leads_there(link.peer));
            for _ in self.idle_max..idle.len() + slot.links.idle() {
                slot.links.make_room();
            }
            drop(idle);
            slot.note_idle();
        }
    }
}

impl Slot {
    /// Counts what waits for its next exchange.
    pub(super) fn note_idle(&self) {
        self.board.idle.set((self.idle.borrow().len() + self.links.idle()) as u64);
    }
}
