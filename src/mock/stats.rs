//! What the simulated provider saw: requests, connections, and how each named request ended.
//!
//! Lives on: every thread of the mock and the thread that owns the handle; one lock, held for a few
//! instructions. It records; it decides nothing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Distinct paths counted one by one; requests to further ones count under `other`.
const PATHS_MAX: usize = 256;
/// Named requests remembered; the oldest is forgotten first.
const RECORDS_MAX: usize = 65_536;

/// CLOCK_MONOTONIC in nanoseconds: the same clock in every process of one machine.
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// The counters at one moment. Requests to `/mock/…` control paths are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Requests whose head was read.
    pub requests: u64,
    /// The same by path, without queries.
    pub by_path: BTreeMap<String, u64>,
    /// Requests begun and not ended.
    pub in_flight: u64,
    /// Answers whose last byte was given to the kernel.
    pub completed: u64,
    /// Requests whose client left before that.
    pub cancelled: u64,
    /// Answers that a scripted fault ended.
    pub cut: u64,
    /// Longest time, in µs, from the last byte exchanged with a client that left to noticing that it did.
    pub cancelled_silent_us_max: u64,
    /// The same of the last cancelled request.
    pub cancelled_silent_us_last: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Requests that were not the first of their connection.
    pub reused: u64,
    /// Most requests seen on one connection.
    pub requests_per_connection_max: u64,
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Begun, not ended.
    InFlight,
    /// The answer's last byte was given to the kernel.
    Completed,
    /// The client left before that.
    Cancelled,
    /// A scripted fault ended it.
    Cut,
}

/// One named request. Times are CLOCK_MONOTONIC in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// The name it gave itself: `x-mock-id`, or `id=` in a script.
    pub id: String,
    /// How it stands.
    pub state: State,
    /// Its path, without the query.
    pub path: String,
    /// The connection it came on, numbered from 1 as accepted.
    pub connection: u64,
    /// When its head had been read.
    pub started_us: u64,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// If cancelled: the time in µs from the last byte exchanged with the client to noticing that it had left.
    pub silent_us: Option<u64>,
    /// Bytes given to the kernel, head included.
    pub bytes_out: u64,
    /// Events sent, comments not counted.
    pub events_out: u64,
}

#[derive(Debug, Default)]
struct Live {
    bytes_out: AtomicU64,
    events_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    counters: Snapshot,
    records: HashMap<String, (Record, Arc<Live>)>,
    order: VecDeque<String>,
    connections: u64,
    /// Raised by a reset, so that what began before it does not end after it.
    epoch: u64,
}

/// The counters and records of one mock.
#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<Inner>);

impl Stats {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().counters.clone()
    }

    pub(crate) fn record(&self, id: &str) -> Option<Record> {
        let inner = self.lock();
        let (record, live) = inner.records.get(id)?;
        Some(Record {
            bytes_out: live.bytes_out.load(Relaxed),
            events_out: live.events_out.load(Relaxed),
            ..record.clone()
        })
    }

    /// Forgets everything but the connections that are open.
    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        let connections_open = inner.counters.connections_open;
        inner.counters = Snapshot { connections_open, ..Snapshot::default() };
        inner.records.clear();
        inner.order.clear();
        inner.epoch += 1;
    }

    pub(crate) fn connected(self: &Arc<Stats>) -> Connection {
        let mut inner = self.lock();
        inner.connections += 1;
        inner.counters.connections_accepted += 1;
        inner.counters.connections_open += 1;
        Connection { stats: Arc::clone(self), number: inner.connections, requests: 0 }
    }
}

/// One open connection; dropping it counts it as closed.
#[derive(Debug)]
pub(crate) struct Connection {
    stats: Arc<Stats>,
    number: u64,
    requests: u64,
}

impl Connection {
    pub(crate) fn begin(&mut self, path: &str) -> Exchange {
        self.requests += 1;
        let mut inner = self.stats.lock();
        let counters = &mut inner.counters;
        counters.requests += 1;
        counters.in_flight += 1;
        counters.reused += u64::from(self.requests > 1);
        counters.requests_per_connection_max = counters.requests_per_connection_max.max(self.requests);
        if let Some(count) = counters.by_path.get_mut(path) {
            *count += 1;
        } else {
            let name = if counters.by_path.len() < PATHS_MAX { path } else { "other" };
            *counters.by_path.entry(name.to_owned()).or_default() += 1;
        }
        let epoch = inner.epoch;
        drop(inner);
        Exchange {
            stats: Arc::clone(&self.stats),
            epoch,
            connection: self.number,
            started_us: monotonic_ns() / 1000,
            last_io_us: monotonic_ns() / 1000,
            id: None,
            live: Arc::default(),
            ended: false,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stats.lock().counters.connections_open -= 1;
    }
}

/// One request in flight; dropped without [`Exchange::end`] it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Exchange {
    stats: Arc<Stats>,
    epoch: u64,
    connection: u64,
    started_us: u64,
    last_io_us: u64,
    id: Option<String>,
    live: Arc<Live>,
    ended: bool,
}

impl Exchange {
    /// Makes this request findable as `id`; a later request of the same name takes its place.
    pub(crate) fn name(&mut self, id: &str, path: &str) {
        let record = Record {
            id: id.to_owned(),
            state: State::InFlight,
            path: path.to_owned(),
            connection: self.connection,
            started_us: self.started_us,
            ended_us: None,
            silent_us: None,
            bytes_out: 0,
            events_out: 0,
        };
        let mut inner = self.stats.lock();
        if inner.records.insert(id.to_owned(), (record, Arc::clone(&self.live))).is_none() {
            inner.order.push_back(id.to_owned());
            if inner.order.len() > RECORDS_MAX
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.records.remove(&oldest);
            }
        }
        self.id = Some(id.to_owned());
    }

    pub(crate) fn heard(&mut self) {
        self.last_io_us = monotonic_ns() / 1000;
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.heard();
        self.live.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn event(&self) {
        self.live.events_out.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(mut self, state: State) {
        self.close(state);
    }

    fn close(&mut self, state: State) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now_us = monotonic_ns() / 1000;
        let silent_us = now_us.saturating_sub(self.last_io_us);
        let mut inner = self.stats.lock();
        if inner.epoch != self.epoch {
            return;
        }
        let counters = &mut inner.counters;
        counters.in_flight -= 1;
        match state {
            State::Completed => counters.completed += 1,
            State::Cut => counters.cut += 1,
            State::Cancelled | State::InFlight => {
                counters.cancelled += 1;
                counters.cancelled_silent_us_last = silent_us;
                counters.cancelled_silent_us_max = counters.cancelled_silent_us_max.max(silent_us);
            }
        }
        // A later request may have taken the name; its record is not ours to end.
        if let Some(id) = &self.id
            && let Some((record, live)) = inner.records.get_mut(id)
            && Arc::ptr_eq(live, &self.live)
        {
            record.state = state;
            record.ended_us = Some(now_us);
            record.silent_us = (state == State::Cancelled).then_some(silent_us);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close(State::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_ends_in_exactly_one_way() {
        let stats = Arc::new(Stats::default());
        let mut connection = stats.connected();
        for state in [State::Completed, State::Cut] {
            connection.begin("/a").end(state);
        }
        drop(connection.begin("/b"));
        let seen = stats.snapshot();
        assert_eq!((seen.requests, seen.in_flight, seen.completed, seen.cut, seen.cancelled), (3, 0, 1, 1, 1));
        assert_eq!((seen.by_path["/a"], seen.by_path["/b"], seen.reused), (2, 1, 2));
        drop(connection);
        assert_eq!(stats.snapshot().connections_open, 0);
    }

    #[test]
    fn what_began_before_a_reset_does_not_end_after_it() {
        let stats = Arc::new(Stats::default());
        let mut connection = stats.connected();
        let mut exchange = connection.begin("/a");
        exchange.name("x", "/a");
        stats.reset();
        assert_eq!(stats.record("x"), None);
        drop(exchange);
        assert_eq!(stats.snapshot(), Snapshot { connections_open: 1, ..Snapshot::default() });
    }

    #[test]
    fn a_name_belongs_to_the_last_request_that_took_it() {
        let stats = Arc::new(Stats::default());
        let mut connection = stats.connected();
        let mut first = connection.begin("/a");
        first.name("x", "/a");
        let mut second = connection.begin("/b");
        second.name("x", "/b");
        drop(first);
        let record = stats.record("x").map(|record| (record.path, record.state));
        assert_eq!(record, Some(("/b".to_owned(), State::InFlight)));
    }
}
