//! All workers' figures, added up and written as text, piece by piece.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::board::{Board, Count, EndpointBoard, Handshakes, ListenerBoard, Pause, WayBoard};
use super::cells::{CLASSES, Cell, Lazy, Names, Route, TOKEN_KINDS};
use super::histogram::{Quantiles, Total};
use super::text::{Format, Text, Value};
use super::*;
use crate::base::clock::Instant;
use crate::telemetry::{Phase, SocketEnd, State};

/// The quantiles of a summary, ascending: as they are written, and as they are.
pub const QUANTILES: [(&str, f64); 4] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999)];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// So many endpoints are written in one step.
const ENDPOINTS_PER_STEP: usize = 16;

/// Whose fault an error was, in the order of [`crate::base::reject::Origin`].
const ORIGIN_WORDS: [&str; 3] = ["client", "gateway", "upstream"];

/// How askings for a name end, in the order of [`NamesFacts::lookups`].
const LOOKUPS: [&str; 5] = ["found", "no_name", "no_address", "no_answer", "failed"];

/// What is known elsewhere than on the boards.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The gateway's clock.
    pub now: Instant,
    /// Since the start.
    pub uptime: Duration,
    /// Whether clients should come.
    pub ready: bool,
    /// Whether it was told to end.
    pub draining: bool,
    /// Records that were not written; `None` if none are kept.
    pub log_dropped: Option<u64>,
    /// How names are resolved; `None` if there are none.
    pub names: Option<NamesFacts>,
    /// By worker.
    pub workers: Vec<WorkerFacts>,
    /// The process, where the kernel tells.
    pub process: ProcessFacts,
}

/// One worker's thread as the kernel sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct WorkerFacts {
    /// CPU time.
    pub cpu: Duration,
    /// Share of the last seconds that it was running.
    pub busy: f64,
}

/// How names are resolved.
#[derive(Debug, Clone, Default)]
pub struct NamesFacts {
    /// Askings since the start: found, no such name, no address of it, no answer, failed otherwise.
    pub lookups: [u64; LOOKUPS.len()],
    /// Names that are asked for.
    pub names: u64,
    /// Those whose last asking failed.
    pub failing: u64,
    /// Age of the oldest answer in use.
    pub oldest: Option<Duration>,
}

/// The process as the kernel sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessFacts {
    /// CPU time of all threads.
    pub cpu: Option<Duration>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// The most that may be.
    pub fds_max: Option<u64>,
    /// When it started, in seconds since 1970.
    pub started_s: Option<u64>,
}

/// Where a family's lines come from.
enum Rows {
    One(fn(&Facts) -> Option<Value>),
    Worker(fn(&Board, Instant) -> Value),
    Thread(fn(&WorkerFacts) -> Value),
    Listener(fn(&ListenerBoard) -> &Count),
    Endpoint(fn(&EndpointBoard) -> &Count),
    /// By endpoint and phase.
    Failures,
    Special(fn(&Scrape, &Family, &mut Text)),
    Route(fn(&Cell) -> &Count),
    /// Counts by one or two more labels; those that are zero are left out.
    Split(fn(&mut Split<'_>)),
    Buckets(fn(&Cell) -> &Lazy),
    Quantiles(fn(&Cell) -> &Lazy),
}

/// Every metric, in the order in which they are written.
const ROWS: &[(&Family, Rows)] = &[
    (&BUILD, Rows::Special(|_, family, text| text.line(family, "", &[VERSION], None, Value::Whole(1)))),
    (&UPTIME, Rows::One(|facts| Some(seconds(facts.uptime)))),
    (&READY, Rows::One(|facts| Some(Value::Whole(facts.ready.into())))),
    (&DRAINING, Rows::One(|facts| Some(Value::Whole(facts.draining.into())))),
    (&REQUESTS, Rows::Split(requests)),
    (&IN_FLIGHT, Rows::Worker(|board, _| Value::Whole(board.in_flight.get()))),
    (&DURATION, Rows::Buckets(|cell| &cell.duration)),
    (&DURATION_QUANTILE, Rows::Quantiles(|cell| &cell.duration)),
    (&ADDED, Rows::Buckets(|cell| &cell.added)),
    (&ADDED_QUANTILE, Rows::Quantiles(|cell| &cell.added)),
    (&TTFT, Rows::Buckets(|cell| &cell.ttft)),
    (&TTFT_QUANTILE, Rows::Quantiles(|cell| &cell.ttft)),
    (&GAP, Rows::Buckets(|cell| &cell.gap)),
    (&GAP_QUANTILE, Rows::Quantiles(|cell| &cell.gap)),
    (&TOKENS, Rows::Split(tokens)),
    (&RECEIVED_BYTES, Rows::Route(|cell| &cell.received_bytes)),
    (&SENT_BYTES, Rows::Route(|cell| &cell.sent_bytes)),
    (&RETRIES, Rows::Route(|cell| &cell.retries)),
    (&ERRORS, Rows::Special(errors)),
    (&CANCELLED, Rows::Special(cancelled)),
    (&CLIENTS_OPEN, Rows::Listener(|listener| &listener.open)),
    (&CLIENTS_ACCEPTED, Rows::Listener(|listener| &listener.accepted)),
    (&CLIENTS_REFUSED, Rows::Listener(|listener| &listener.refused)),
    (&CLIENTS_HANDED_OVER, Rows::Worker(|board, _| Value::Whole(board.handed_over.get()))),
    (&ACCEPT_PAUSES, Rows::Special(pauses)),
    (&ACCEPT_PAUSED, Rows::Worker(|board, _| Value::Whole(board.paused.get()))),
    (&HTTP2_OPEN, Rows::Listener(|listener| &listener.http2_open)),
    (&HTTP2_STREAMS, Rows::Listener(|listener| &listener.http2_streams)),
    (&HTTP2_FAILED, Rows::Listener(|listener| &listener.http2_failed)),
    (&WEBSOCKETS_OPEN, Rows::Worker(|board, _| Value::Whole(board.websockets.open.get()))),
    (&WEBSOCKET_MESSAGES, Rows::Special(|scrape, family, text| both_ways(scrape, family, text, |way| &way.messages))),
    (&WEBSOCKET_BYTES, Rows::Special(|scrape, family, text| both_ways(scrape, family, text, |way| &way.bytes))),
    (&WEBSOCKET_ENDS, Rows::Special(websocket_ends)),
    (&ATTEMPTS, Rows::Endpoint(|endpoint| &endpoint.attempts)),
    (&OUTSTANDING, Rows::Endpoint(|endpoint| &endpoint.outstanding)),
    (&UPSTREAM_OPEN, Rows::Endpoint(|endpoint| &endpoint.open)),
    (&UPSTREAM_IDLE, Rows::Endpoint(|endpoint| &endpoint.idle)),
    (&UPSTREAM_OPENED, Rows::Endpoint(|endpoint| &endpoint.opened)),
    (&UPSTREAM_REUSED, Rows::Endpoint(|endpoint| &endpoint.reused)),
    (&UPSTREAM_FAILURES, Rows::Failures),
    (&TLS_HANDSHAKES, Rows::Special(handshakes)),
    (&DNS_LOOKUPS, Rows::Special(lookups)),
    (&DNS_NAMES, Rows::One(|facts| facts.names.as_ref().map(|names| Value::Whole(names.names)))),
    (&DNS_FAILING, Rows::One(|facts| facts.names.as_ref().map(|names| Value::Whole(names.failing)))),
    (&DNS_AGE, Rows::One(|facts| facts.names.as_ref().and_then(|names| names.oldest).map(seconds))),
    (&LOG_DROPPED, Rows::One(|facts| facts.log_dropped.map(Value::Whole))),
    (&WORKER_MEMORY, Rows::Worker(|board, _| Value::Whole(board.memory.get()))),
    (&WORKER_MEMORY_MAX, Rows::Worker(|board, _| Value::Whole(board.memory_max.get()))),
    (&MEMORY_REFUSALS, Rows::Worker(|board, _| Value::Whole(board.memory_refusals.get()))),
    (&WORKER_CPU, Rows::Thread(|worker| seconds(worker.cpu))),
    (&WORKER_BUSY, Rows::Thread(|worker| Value::Float(worker.busy))),
    (&WORKER_RING, Rows::Worker(|board, _| Value::Whole(board.ring_depth.get()))),
    (&WORKER_LAG, Rows::Worker(|board, _| Value::Nanos(board.lag_ns.get()))),
    (&WORKER_SILENCE, Rows::Worker(|board, now| seconds(board.silence(now)))),
    (
        &ROUTES,
        Rows::Special(|scrape, family, text| {
            text.line(family, "", &[], None, Value::Whole(scrape.routes.len() as u64));
        }),
    ),
    (&PROCESS_CPU, Rows::One(|facts| facts.process.cpu.map(seconds))),
    (&PROCESS_MEMORY, Rows::One(|facts| facts.process.memory_bytes.map(Value::Whole))),
    (&PROCESS_FDS, Rows::One(|facts| facts.process.fds.map(Value::Whole))),
    (&PROCESS_FDS_MAX, Rows::One(|facts| facts.process.fds_max.map(Value::Whole))),
    (&PROCESS_START, Rows::One(|facts| facts.process.started_s.map(Value::Whole))),
];

/// Every metric, in the order in which they are written.
pub fn families() -> impl Iterator<Item = &'static Family> {
    ROWS.iter().map(|(family, _)| *family)
}

fn seconds(duration: Duration) -> Value {
    Value::Nanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// Cells of each route, one for each worker that has one.
type Routes = BTreeMap<Route, Vec<Arc<Cell>>>;

/// All that is scraped.
///
/// Lives on: the control thread.
#[derive(Debug)]
pub struct Scraper {
    boards: Vec<Arc<Board>>,
    names: Arc<Names>,
    // Shared with the scrapes under way, and copied only where a route comes while there is one.
    routes: Arc<Routes>,
    routes_max: usize,
}

impl Scraper {
    /// Scrapes `boards`, one of each worker.
    pub fn new(boards: Vec<Arc<Board>>, names: Names) -> Scraper {
        let routes_max = boards.iter().map(|board| board.routes_max()).max().unwrap_or(0);
        Scraper { boards, names: Arc::new(names), routes: Arc::default(), routes_max }
    }

    /// The boards, by worker.
    pub fn boards(&self) -> &[Arc<Board>] {
        &self.boards
    }

    /// The words for numbers.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Takes routes over that workers have seen since.
    pub fn look(&mut self) {
        for board in &self.boards {
            while let Some((route, cell)) = board.take_fresh() {
                let routes = Arc::make_mut(&mut self.routes);
                // Each worker may have come to others first; together they are held to the same bound.
                let known = routes.contains_key(&route) || routes.len() < self.routes_max;
                routes.entry(if known { route } else { Route::OTHER }).or_default().push(cell);
            }
        }
    }

    /// Begins to write everything down.
    pub fn scrape(&mut self, format: Format, facts: Facts) -> Scrape {
        self.look();
        Scrape {
            boards: self.boards.clone(),
            names: self.names.clone(),
            routes: self.routes.clone(),
            facts,
            text: Text::new(format),
            total: Total::default(),
            quantiles: Quantiles::default(),
            row: 0,
            after: None,
            at: 0,
        }
    }
}

/// A scrape under way.
#[derive(Debug)]
pub struct Scrape {
    boards: Vec<Arc<Board>>,
    names: Arc<Names>,
    routes: Arc<Routes>,
    facts: Facts,
    text: Text,
    total: Total,
    quantiles: Quantiles,
    /// The next family.
    row: usize,
    /// The last route of it that was written.
    after: Option<Route>,
    /// How many endpoints of it were written.
    at: usize,
}

impl Scrape {
    /// Writes a little more, some microseconds' worth; false once all is written.
    pub fn step(&mut self) -> bool {
        let Some((family, rows)) = ROWS.get(self.row) else { return false };
        // What nobody measures is not mentioned.
        let is_absent = matches!(rows, Rows::One(read) if read(&self.facts).is_none());
        if self.after.is_none() && self.at == 0 && !is_absent {
            self.text.family(family);
        }
        let done = match rows {
            Rows::One(read) => {
                if let Some(value) = read(&self.facts) {
                    self.text.line(family, "", &[], None, value);
                }
                true
            }
            Rows::Worker(read) => {
                for (at, board) in self.boards.iter().enumerate() {
                    self.text.line(family, "", &[&at.to_string()], None, read(board, self.facts.now));
                }
                true
            }
            Rows::Thread(read) => {
                for (at, worker) in self.facts.workers.iter().enumerate() {
                    self.text.line(family, "", &[&at.to_string()], None, read(worker));
                }
                true
            }
            Rows::Listener(read) => {
                for (at, name) in self.names.listeners.iter().enumerate() {
                    let sum = self.boards.iter().map(|board| read(&board.listeners[at]).get()).sum();
                    self.text.line(family, "", &[name], None, Value::Whole(sum));
                }
                true
            }
            Rows::Endpoint(read) => self.endpoints(|text, name, boards| {
                let sum = boards.iter().map(|board| read(board).get()).sum();
                text.line(family, "", &[name], None, Value::Whole(sum));
            }),
            Rows::Failures => self.endpoints(|text, name, boards| {
                // Before there is an endpoint, none can fail.
                for phase in Phase::ALL.into_iter().filter(|phase| *phase >= Phase::Connect) {
                    let sum = boards.iter().map(|board| board.failures[phase as usize].get()).sum();
                    text.line(family, "", &[name, phase.as_str()], None, Value::Whole(sum));
                }
            }),
            Rows::Special(write) => {
                let mut text = std::mem::replace(&mut self.text, Text::new(Format::Prometheus));
                write(self, family, &mut text);
                self.text = text;
                true
            }
            rows => self.route(family, rows),
        };
        if done {
            self.row += 1;
            (self.after, self.at) = (None, 0);
            if self.row == ROWS.len() {
                self.text.end();
            }
        }
        true
    }

    /// Takes out what was written since the last time.
    pub fn take(&mut self) -> String {
        self.text.take()
    }

    /// Bytes that were written and not taken out.
    pub fn waiting(&self) -> usize {
        self.text.waiting()
    }

    /// Writes the next endpoints' lines; true after the last.
    fn endpoints(&mut self, write: impl Fn(&mut Text, &str, &[&EndpointBoard])) -> bool {
        let names = self.names.endpoints.iter().enumerate().skip(self.at).take(ENDPOINTS_PER_STEP);
        for (at, name) in names {
            let boards: Vec<&EndpointBoard> = self.boards.iter().map(|board| &*board.endpoints[at]).collect();
            write(&mut self.text, name, &boards);
        }
        self.at += ENDPOINTS_PER_STEP;
        self.at >= self.names.endpoints.len()
    }

    /// Writes the next route's lines; true after the last.
    fn route(&mut self, family: &Family, rows: &Rows) -> bool {
        let routes = self.routes.clone();
        let after = self.after.map_or(Bound::Unbounded, Bound::Excluded);
        let Some((route, cells)) = routes.range((after, Bound::Unbounded)).next() else { return true };
        self.after = Some(*route);
        let names = self.names.clone();
        let labels = route.labels(&names);
        match rows {
            Rows::Route(read) => {
                let sum = cells.iter().map(|cell| read(cell).get()).sum();
                self.text.line(family, "", &labels, None, Value::Whole(sum));
            }
            Rows::Split(write) => write(&mut Split { text: &mut self.text, family, labels, cells }),
            Rows::Buckets(read) => self.buckets(family, &labels, cells, *read),
            Rows::Quantiles(read) => self.summary(family, &labels, cells, *read),
            _ => {}
        }
        false
    }

    fn buckets(&mut self, family: &Family, labels: &[&str], cells: &[Arc<Cell>], read: fn(&Cell) -> &Lazy) {
        let Kind::Histogram(bounds) = family.kind else { return };
        self.total.clear();
        cells.iter().filter_map(|cell| read(cell).get()).for_each(|histogram| self.total.add(histogram));
        if self.total.count() == 0 {
            return;
        }
        let words = bounds.iter().map(|(word, _)| *word).chain(["+Inf"]);
        for (at, word) in words.enumerate() {
            let count = Value::Whole(self.total.up_to(at));
            self.text.line(family, "_bucket", labels, Some(("le", word)), count);
        }
        self.text.line(family, "_sum", labels, None, Value::Nanos(self.total.sum()));
        self.text.line(family, "_count", labels, None, Value::Whole(self.total.count()));
    }

    fn summary(&mut self, family: &Family, labels: &[&str], cells: &[Arc<Cell>], read: fn(&Cell) -> &Lazy) {
        let histograms = cells.iter().filter_map(|cell| read(cell).get());
        let Some(values) = self.quantiles.of(histograms, QUANTILES.map(|(_, quantile)| quantile)) else { return };
        for ((word, _), value) in QUANTILES.into_iter().zip(values) {
            self.text.line(family, "", labels, Some(("quantile", word)), Value::Nanos(value));
        }
    }
}

/// The counts of one route, by further labels.
struct Split<'s> {
    text: &'s mut Text,
    family: &'s Family,
    labels: [&'s str; 4],
    cells: &'s [Arc<Cell>],
}

impl Split<'_> {
    fn line(&mut self, more: &[&str], read: impl Fn(&Cell) -> u64) {
        let sum: u64 = self.cells.iter().map(|cell| read(cell)).sum();
        if sum > 0 {
            self.text.line(self.family, "", &[&self.labels, more].concat(), None, Value::Whole(sum));
        }
    }
}

fn requests(split: &mut Split<'_>) {
    for state in State::ALL {
        for (class, word) in CLASSES.iter().enumerate() {
            split.line(&[word, state.as_str()], |cell| cell.outcomes[state as usize][class].get());
        }
    }
}

fn tokens(split: &mut Split<'_>) {
    for (kind, word) in TOKEN_KINDS.iter().enumerate() {
        split.line(&[word], |cell| cell.tokens[kind].get());
    }
}

fn handshakes(scrape: &Scrape, family: &Family, text: &mut Text) {
    let clients = scrape.boards.iter().map(|board| &board.handshakes).collect();
    let endpoints = scrape.boards.iter().flat_map(|board| &board.endpoints);
    let upstreams = endpoints.map(|endpoint| &endpoint.handshakes).collect();
    for (side, of) in [("client", clients), ("upstream", upstreams)] as [(&str, Vec<&Handshakes>); 2] {
        let mut sums = Handshakes::default().results().collect::<Vec<_>>();
        for one in of {
            for ((_, sum), (_, count)) in sums.iter_mut().zip(one.results()) {
                *sum += count;
            }
        }
        for (result, sum) in sums {
            text.line(family, "", &[side, result], None, Value::Whole(sum));
        }
    }
}

fn lookups(scrape: &Scrape, family: &Family, text: &mut Text) {
    if let Some(names) = &scrape.facts.names {
        for (result, count) in LOOKUPS.into_iter().zip(names.lookups) {
            text.line(family, "", &[result], None, Value::Whole(count));
        }
    }
}

fn errors(scrape: &Scrape, family: &Family, text: &mut Text) {
    for (origin, word) in ORIGIN_WORDS.into_iter().enumerate() {
        for phase in Phase::ALL {
            let sum = scrape.boards.iter().map(|board| board.errors[origin][phase as usize].get()).sum();
            text.line(family, "", &[word, phase.as_str()], None, Value::Whole(sum));
        }
    }
}

fn both_ways(scrape: &Scrape, family: &Family, text: &mut Text, of: fn(&WayBoard) -> &Count) {
    let sockets = || scrape.boards.iter().map(|board| &board.websockets);
    let (received, sent) = (sockets().map(|own| of(&own.received).get()), sockets().map(|own| of(&own.sent).get()));
    text.line(family, "", &["received"], None, Value::Whole(received.sum()));
    text.line(family, "", &["sent"], None, Value::Whole(sent.sum()));
}

fn websocket_ends(scrape: &Scrape, family: &Family, text: &mut Text) {
    for end in SocketEnd::ALL {
        let sum = scrape.boards.iter().map(|board| board.websockets.ends[end as usize].get()).sum();
        text.line(family, "", &[end.as_str()], None, Value::Whole(sum));
    }
}

fn pauses(scrape: &Scrape, family: &Family, text: &mut Text) {
    for (at, reason) in Pause::ALL.into_iter().enumerate() {
        let sum = scrape.boards.iter().map(|board| board.pauses[at].get()).sum();
        text.line(family, "", &[reason], None, Value::Whole(sum));
    }
}

fn cancelled(scrape: &Scrape, family: &Family, text: &mut Text) {
    for phase in Phase::ALL {
        let sum = scrape.boards.iter().map(|board| board.cancelled[phase as usize].get()).sum();
        text.line(family, "", &[phase.as_str()], None, Value::Whole(sum));
    }
}

#[cfg(test)]
mod tests;
