//! Idle connections to endpoints, bounded in number and age.
//!
//! An idle connection keeps a read under way, so one that the endpoint closes is seen at the next look and
//! never handed out; the race that remains is the attempt's to repeat.

use std::rc::Rc;

use super::{Connection, Upstreams};
use crate::base::EndpointId;
use crate::base::clock::Instant;

/// A connection that waits for its next exchange.
pub struct Idle {
    connection: Connection,
    since: Instant,
}

impl Upstreams {
    /// The most recently used idle connection to `endpoint` that is still open.
    pub fn checkout(&self, endpoint: EndpointId) -> Option<Connection> {
        let slot = self.slot(endpoint);
        let mut idle = slot.idle.borrow_mut();
        let found = std::iter::from_fn(|| idle.pop()).find_map(|mut kept| {
            // What the endpoint has closed meanwhile is closed by being dropped.
            kept.connection.stream.input.is_quiet().then_some(kept.connection)
        });
        slot.board.reused.add(u64::from(found.is_some()));
        slot.board.idle.set(idle.len() as u64);
        found
    }

    /// Keeps a connection whose exchange has ended; it is closed instead if too many are kept, if it
    /// leads to an address that its name no longer has, or if the endpoint has already closed it or said more than it was
    /// asked for.
    pub fn checkin(&self, mut connection: Connection, now: Instant) {
        let slot = Rc::clone(&connection.slot);
        let mut idle = slot.idle.borrow_mut();
        // One that is always busy would escape every sweep.
        let leads_there = slot.reach.leads_to(connection.peer);
        if idle.len() < self.idle_max && leads_there && connection.stream.input.is_quiet() {
            connection.reused = true;
            idle.push(Idle { connection, since: now });
            slot.board.idle.set(idle.len() as u64);
        }
    }

    /// Closes what was closed by its endpoint, has been idle for too long, or leads to an address that its name no
    /// longer has.
    pub fn sweep(&self, now: Instant) {
        for slot in &self.slots {
            let mut idle = slot.idle.borrow_mut();
            idle.retain_mut(|kept| {
                now.since(kept.since) < self.idle
                    && slot.reach.leads_to(kept.connection.peer)
                    && kept.connection.stream.input.is_quiet()
            });
            slot.board.idle.set(idle.len() as u64);
        }
    }
}
