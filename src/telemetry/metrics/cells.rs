//! What is counted for each route: model, endpoint, dialect, and whether events were streamed.
//!
//! A route gets its cell when the first exchange over it ends, and its histograms when there is a first value, so that
//! memory follows what is used: [`Cell::bytes`]. Their number is bounded; what comes later is counted together, as the
//! route [`Route::OTHER`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::board::{Board, Count};
use super::histogram::{Bounds, Histogram};
use super::{ADDED_BOUNDS, DURATION_BOUNDS, GAP_BOUNDS, TTFT_BOUNDS};
use crate::base::reject::Origin;
use crate::base::{Dialect, EndpointId, ModelId};
use crate::telemetry::{EndedBy, Exchange, State};

/// Classes of a status: none, and the first digit.
pub const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Kinds of tokens.
pub const TOKEN_KINDS: [&str; 5] = ["input", "output", "cached_input", "cache_creation_input", "reasoning_output"];

/// The most lines that one cell adds to a scrape.
pub const SERIES_PER_ROUTE: usize = State::ALL.len() * CLASSES.len()
    + TOKEN_KINDS.len()
    + 3
    + histogram_series(DURATION_BOUNDS)
    + histogram_series(ADDED_BOUNDS)
    + histogram_series(TTFT_BOUNDS)
    + histogram_series(GAP_BOUNDS);

/// Buckets, the one without a bound, sum and count, and quantiles.
const fn histogram_series(bounds: &Bounds) -> usize {
    bounds.len() + 3 + super::scrape::QUANTILES.len()
}

/// A way through the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    model: u16,
    endpoint: u16,
    /// Whether it is Anthropic's dialect, and whether events were streamed.
    kind: u16,
}

impl Route {
    const NONE: u16 = u16::MAX;
    const ANY: u16 = u16::MAX - 1;

    /// All routes beyond the bound.
    pub const OTHER: Route = Route { model: Route::ANY, endpoint: Route::ANY, kind: u16::MAX };

    /// A route of which model and endpoint may not be known.
    pub fn new(model: Option<ModelId>, endpoint: Option<EndpointId>, dialect: Dialect, streamed: bool) -> Route {
        Route {
            model: model.map_or(Route::NONE, |model| model.0),
            endpoint: endpoint.map_or(Route::NONE, |endpoint| endpoint.0),
            kind: u16::from(dialect == Dialect::Anthropic) << 1 | u16::from(streamed),
        }
    }

    /// The values of its four labels.
    pub fn labels<'n>(&self, names: &'n Names) -> [&'n str; 4] {
        if *self == Route::OTHER {
            return ["other"; 4];
        }
        let dialect = if self.kind & 2 == 0 { Dialect::OpenAi } else { Dialect::Anthropic };
        let named = |names: &'n [String], at: u16| names.get(usize::from(at)).map_or("none", String::as_str);
        [
            named(&names.models, self.model),
            named(&names.endpoints, self.endpoint),
            dialect.as_str(),
            if self.kind & 1 == 0 { "false" } else { "true" },
        ]
    }
}

/// The words that stand for numbers.
#[derive(Debug, Clone, Default)]
pub struct Names {
    models: Vec<String>,
    /// Endpoints, by [`EndpointId`].
    pub endpoints: Vec<String>,
    /// Listeners, in the order of the configuration.
    pub listeners: Vec<String>,
}

impl Names {
    /// `models` by [`ModelId`], the default route's (`*`) last if there is one.
    pub fn new(models: Vec<String>, endpoints: Vec<String>, listeners: Vec<String>) -> Names {
        let label = |name: String| match name.as_str() {
            "*" => "other".to_owned(),
            // Who names a model like this shall not share its figures with what we call so.
            "other" | "none" => format!("model {name}"),
            _ => name,
        };
        Names { models: models.into_iter().map(label).collect(), endpoints, listeners }
    }
}

/// What is counted for one route by one worker.
#[derive(Debug, Default)]
pub struct Cell {
    /// Exchanges that have ended, by state and class of status.
    pub outcomes: [[Count; CLASSES.len()]; State::ALL.len()],
    /// Tokens by kind.
    pub tokens: [Count; TOKEN_KINDS.len()],
    /// Body bytes of requests.
    pub received_bytes: Count,
    /// Body bytes of answers.
    pub sent_bytes: Count,
    /// Attempts after the first.
    pub retries: Count,
    /// Head to end.
    pub duration: Lazy,
    /// What we added.
    pub added: Lazy,
    /// Head to the first content of a stream.
    pub ttft: Lazy,
    /// Between two contents of a stream.
    pub gap: Lazy,
}

impl Cell {
    /// Counts the time since the last content of a stream.
    pub fn gap(&self, gap: Duration) {
        self.gap.record(GAP_BOUNDS, gap);
    }

    fn finish(&self, exchange: &Exchange) {
        let tokens = &exchange.tokens;
        let told =
            [tokens.input, tokens.output, tokens.cached_input, tokens.cache_creation_input, tokens.reasoning_output];
        for (count, told) in self.tokens.iter().zip(told) {
            if let Some(told) = told {
                count.add(told);
            }
        }
        self.received_bytes.add(exchange.request_bytes);
        self.sent_bytes.add(exchange.answer_bytes);
        self.retries.add(u64::from(exchange.retries()));
        let timings = &exchange.timings;
        // How long people talk says nothing of how long answers take.
        if exchange.websocket.is_none() {
            self.duration.record(DURATION_BOUNDS, timings.duration());
        }
        if let Some(added) = exchange.added() {
            self.added.record(ADDED_BOUNDS, added);
        }
        if exchange.streamed
            && let Some(ttft) = timings.to(timings.content)
        {
            self.ttft.record(TTFT_BOUNDS, ttft);
        }
        // Last, so that whoever sees that it has ended sees what it has come to.
        let class = usize::from(exchange.status / 100).min(CLASSES.len() - 1);
        self.outcomes[exchange.state as usize][class].add_last(1);
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let histograms = [&self.duration, &self.added, &self.ttft, &self.gap];
        size_of::<Cell>() + histograms.iter().filter_map(|lazy| lazy.get()).map(Histogram::bytes).sum::<usize>()
    }
}

/// A histogram that is made for its first value.
#[derive(Debug, Default)]
pub struct Lazy(OnceLock<Box<Histogram>>);

impl Lazy {
    fn record(&self, bounds: &Bounds, value: Duration) {
        self.0.get_or_init(Box::default).record(bounds, value);
    }

    /// The histogram, if it had a value.
    pub fn get(&self) -> Option<&Histogram> {
        self.0.get().map(|histogram| &**histogram)
    }
}

/// One worker's cells.
#[derive(Debug)]
pub struct Meter {
    board: Arc<Board>,
    cells: RefCell<HashMap<Route, Arc<Cell>, BuildHasherDefault<RouteHasher>>>,
    routes_max: usize,
}

impl Meter {
    /// Counts on `board`.
    pub fn new(board: Arc<Board>) -> Meter {
        Meter { routes_max: board.routes_max(), board, cells: RefCell::default() }
    }

    /// True if exchanges are counted.
    pub fn is_on(&self) -> bool {
        self.routes_max > 0
    }

    /// The cell of `route`, or the one that it shares; `None` if exchanges are not counted.
    pub fn cell(&self, route: Route) -> Option<Arc<Cell>> {
        if !self.is_on() {
            return None;
        }
        let mut cells = self.cells.borrow_mut();
        if let Some(cell) = cells.get(&route) {
            return Some(cell.clone());
        }
        let route = if cells.len() < self.routes_max { route } else { Route::OTHER };
        let cell = cells.entry(route).or_insert_with(|| {
            let cell = Arc::new(Cell::default());
            self.board.show(route, cell.clone());
            cell
        });
        Some(cell.clone())
    }

    /// Counts an exchange that has ended.
    pub fn finish(&self, exchange: &Exchange) {
        let route = Route::new(exchange.model, exchange.endpoint, exchange.dialect, exchange.streamed);
        let Some(cell) = self.cell(route) else { return };
        let phase = exchange.phase as usize;
        if exchange.state == State::ClientGone {
            self.board.cancelled[phase].add(1);
        }
        if let Some(fault) = &exchange.fault {
            self.board.errors[fault.origin as usize][phase].add(1);
            // An answer that says so is an error, but no failure to answer.
            if fault.origin == Origin::Upstream
                && exchange.ended_by != EndedBy::Completion
                && let Some(endpoint) = exchange.endpoint
            {
                self.board.endpoints[usize::from(endpoint.0)].failed(exchange.phase, exchange.timings.end);
            }
        }
        cell.finish(exchange);
    }
}

/// Mixes the three numbers of a route, which no stranger chooses.
#[derive(Debug, Default)]
pub struct RouteHasher(u64);

impl Hasher for RouteHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u16(u16::from(*byte)));
    }

    fn write_u16(&mut self, number: u16) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
