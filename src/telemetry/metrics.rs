//! Every metric: its name, labels and meaning, declared once.
//!
//! Names are `ringway_<noun>_<unit>[_total]` in base units; what every process has is named as every exporter names it
//! (`process_…`). Labels come from closed sets: what the configuration names, and words of our own; never a key, a path, a
//! client or a text that a peer sent. Help says what to do when the figure moves.
//!
//! What one worker counts is its [`board::Board`], which the control thread reads while the worker goes on
//! ([`scrape::Scraper`]).

pub mod board;
mod bounds;
pub mod cells;
mod count;
pub mod histogram;
pub mod scrape;
pub mod text;

pub use bounds::{ADDED_BOUNDS, DURATION_BOUNDS, GAP_BOUNDS, TTFT_BOUNDS};
use histogram::Bounds;

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name; a counter's with `_total`, an info's with `_info`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it says, and what to do when it moves.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Always 1; its labels are what it says.
    Info,
    /// Counts up to each bound.
    Histogram(&'static Bounds),
    /// Quantiles since the start.
    Summary,
}

impl Kind {
    /// The word for it in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Info => "info",
            Kind::Histogram(_) => "histogram",
            Kind::Summary => "summary",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, bounds: &'static Bounds, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram(bounds), labels: ROUTE, help }
}

const fn summary(name: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Summary, labels: ROUTE, help }
}

/// Labels of what belongs to one way through the gateway: the model as configured (`other` for the default route, `none`
/// where no model was found), the endpoint that answered or failed last, the dialect, and whether events were streamed.
const ROUTE: &[&str] = &["model", "endpoint", "dialect", "streamed"];

/// See its help, as with all below.
pub const REQUESTS: Family = counter(
    "ringway_requests_total",
    &["model", "endpoint", "dialect", "streamed", "status", "state"],
    "Exchanges that have ended, by the class of the status that the client was sent (none: it left before) and how they \
     ended. If state upstream_error, truncated or timeout rises on one endpoint, suspect its provider; on all, suspect \
     the network between; gateway_error is ours: see the program log.",
);

/// Exchanges under way.
pub const IN_FLIGHT: Family = gauge(
    "ringway_requests_in_flight",
    &["worker"],
    "Exchanges that have begun and not ended, by worker. If one worker has far more than the others, a few clients \
     hold many requests on few connections: let them open more.",
);

/// The whole exchange.
pub const DURATION: Family = histogram(
    "ringway_request_duration_seconds",
    DURATION_BOUNDS,
    "Request head complete to the end of the answer. Mostly the model's own time: if it rises, look at the time to the \
     first token and between events first.",
);

/// The same as quantiles.
pub const DURATION_QUANTILE: Family = summary(
    "ringway_request_duration_quantile_seconds",
    "Quantiles of ringway_request_duration_seconds since the start, at most 1/128 too high. They do not add up over \
     instances: for a fleet, or a window of time, use the histogram.",
);

/// What Ringway added.
pub const ADDED: Family = histogram(
    "ringway_added_latency_seconds",
    ADDED_BOUNDS,
    "Time that Ringway itself took: from the request's head complete to the request sent to the endpoint, without waiting \
     for the client's body and for a connection; and from the first content in hand to the kernel having taken it for the \
     client. If it rises, suspect ringway_worker_busy_ratio and ringway_worker_loop_lag_seconds.",
);

/// The same as quantiles.
pub const ADDED_QUANTILE: Family = summary(
    "ringway_added_latency_quantile_seconds",
    "Quantiles of ringway_added_latency_seconds since the start, at most 1/128 too high.",
);

/// Time to the first token.
pub const TTFT: Family = histogram(
    "ringway_ttft_seconds",
    TTFT_BOUNDS,
    "Request head complete to the first content of a stream in hand. If it rises on one endpoint only, suspect the \
     provider; on all, suspect ringway_worker_busy_ratio.",
);

/// The same as quantiles.
pub const TTFT_QUANTILE: Family = summary(
    "ringway_ttft_quantile_seconds",
    "Quantiles of ringway_ttft_seconds since the start, at most 1/128 too high.",
);

/// Between events.
pub const GAP: Family = histogram(
    "ringway_event_gap_seconds",
    GAP_BOUNDS,
    "Between two arrivals of content in one stream. If it rises, the provider generates more slowly, or something between \
     here and there gathers events: compare endpoints.",
);

/// The same as quantiles.
pub const GAP_QUANTILE: Family = summary(
    "ringway_event_gap_quantile_seconds",
    "Quantiles of ringway_event_gap_seconds since the start, at most 1/128 too high.",
);

/// Tokens.
pub const TOKENS: Family = counter(
    "ringway_tokens_total",
    &["model", "endpoint", "dialect", "streamed", "kind"],
    "Tokens as providers reported them; abnormal ends report none or few. cached_input and cache_creation_input are parts \
     of input or stand beside it, as the provider has it; reasoning_output is a part of output. A jump is a bill.",
);

/// Bytes from clients.
pub const RECEIVED_BYTES: Family = counter(
    "ringway_request_body_bytes_total",
    ROUTE,
    "Body bytes of requests. If it rises faster than requests, clients send longer contexts.",
);

/// Bytes to clients.
pub const SENT_BYTES: Family = counter(
    "ringway_answer_body_bytes_total",
    ROUTE,
    "Body bytes of answers relayed to clients. If it falls behind the tokens, answers are cut: see ringway_requests_total \
     by state.",
);

/// Retries.
pub const RETRIES: Family = counter(
    "ringway_retries_total",
    ROUTE,
    "Attempts after the first, counted where the last one went. If it rises, endpoints close kept connections under us \
     (shorten pool.idle) or cannot be reached (see ringway_upstream_failures_total).",
);

/// Errors.
pub const ERRORS: Family = counter(
    "ringway_errors_total",
    &["origin", "phase"],
    "Exchanges that failed, by whose fault it was and how far they had come. client: look at who calls; gateway: see the \
     program log; upstream: see ringway_upstream_failures_total for the endpoint.",
);

/// Clients that left.
pub const CANCELLED: Family = counter(
    "ringway_cancelled_total",
    &["phase"],
    "Exchanges whose client left, by how far they had come. If first_byte or first_content rises, clients lose patience: \
     compare their timeout with ringway_ttft_seconds.",
);

/// Client connections.
pub const CLIENTS_OPEN: Family = gauge(
    "ringway_client_connections_open",
    &["listener"],
    "Client connections that are open. The bound is limits.connections_max for each worker.",
);

/// Client connections taken.
pub const CLIENTS_ACCEPTED: Family = counter(
    "ringway_client_connections_accepted_total",
    &["listener"],
    "Client connections taken. If it rises like the requests, clients do not keep connections alive.",
);

/// Client connections refused.
pub const CLIENTS_REFUSED: Family = counter(
    "ringway_client_connections_refused_total",
    &["listener"],
    "Client connections closed at once, for a worker was at limits.connections_max. Any is too many: raise the bound, or \
     find who opens so many.",
);

/// Client connections that another worker serves.
pub const CLIENTS_HANDED_OVER: Family = counter(
    "ringway_client_connections_handed_over_total",
    &["worker"],
    "Client connections that each worker accepted and gave to one with fewer connections and streams, before it had read \
     anything of them. A quarter of those of few clients, 500 a second at most. If connections are uneven though it stays at \
     0, spread is \"kernel\".",
);

/// Pauses of accepting.
pub const ACCEPT_PAUSES: Family = counter(
    "ringway_accept_paused_total",
    &["reason"],
    "How often a listener of a worker stopped to accept clients for want of something; they wait in the kernel meanwhile. \
     descriptors: raise the limit of open files (LimitNOFILE), or lower limits.connections_max; files: raise fs.file-max; \
     sockets: the kernel has no memory for them; memory: see ringway_worker_memory_bytes. The program log says so too.",
);

/// Listeners that pause.
pub const ACCEPT_PAUSED: Family = gauge(
    "ringway_listeners_paused",
    &["worker"],
    "Listeners on which each worker accepts no clients now, for the reason that ringway_accept_paused_total tells. Above 0 \
     for long, new clients time out.",
);

/// HTTP/2 connections.
pub const HTTP2_OPEN: Family = gauge(
    "ringway_http2_connections_open",
    &["listener"],
    "Those of the client connections that speak HTTP/2. A few with many streams load one worker each: compare \
     ringway_worker_busy_ratio of the workers.",
);

/// Streams.
pub const HTTP2_STREAMS: Family = gauge(
    "ringway_http2_streams_open",
    &["listener"],
    "Requests under way on HTTP/2 connections. A connection has http2.streams_max at most; if clients come close to it, \
     they wait for themselves.",
);

/// HTTP/2 connections that did not end well.
pub const HTTP2_FAILED: Family = counter(
    "ringway_http2_connections_failed_total",
    &["listener"],
    "HTTP/2 connections that broke, or were ended because their client broke the protocol, sent too many frames that carry \
     nothing (http2.control_frames_max), or no longer answered (http2.ping). If it rises, look for one client behind it.",
);

/// WebSockets.
pub const WEBSOCKETS_OPEN: Family = gauge(
    "ringway_websockets_open",
    &["worker"],
    "WebSockets that are open or being opened. The bound is websocket.connections_max for each worker.",
);

/// Messages over them.
pub const WEBSOCKET_MESSAGES: Family = counter(
    "ringway_websocket_messages_total",
    &["direction"],
    "Messages over WebSockets, counted when the last of their bytes has passed. If one direction stands still while the \
     other goes on, a side speaks and is not answered.",
);

/// Bytes of these.
pub const WEBSOCKET_BYTES: Family = counter(
    "ringway_websocket_bytes_total",
    &["direction"],
    "Bytes of these messages, as they pass and without framing. If it rises faster than the messages, these grow: see \
     websocket.message_bytes_max.",
);

/// Ends of WebSockets.
pub const WEBSOCKET_ENDS: Family = counter(
    "ringway_websocket_ends_total",
    &["reason"],
    "WebSockets that have ended, by how. upstream_gone and upstream_broke_rules are the provider's; client_gone is a client \
     that left without a Close, as most programs do that just end; idle: raise websocket.idle, or let clients ping.",
);

/// Attempts.
pub const ATTEMPTS: Family = counter(
    "ringway_upstream_attempts_total",
    &["endpoint"],
    "Attempts to have an endpoint answer. Compare endpoints of one provider: they should share the load.",
);

/// Outstanding requests.
pub const OUTSTANDING: Family = gauge(
    "ringway_upstream_requests_outstanding",
    &["endpoint"],
    "Requests that an endpoint has not answered to their end. If it rises on one endpoint only, that one has slowed down.",
);

/// Upstream connections.
pub const UPSTREAM_OPEN: Family = gauge(
    "ringway_upstream_connections_open",
    &["endpoint"],
    "Connections to an endpoint that are open or being made. The bound is pool.connections_max for each worker.",
);

/// Idle upstream connections.
pub const UPSTREAM_IDLE: Family = gauge(
    "ringway_upstream_connections_idle",
    &["endpoint"],
    "Connections to an endpoint that wait for their next request. If none are kept though requests come, the endpoint \
     closes them after each answer.",
);

/// New upstream connections.
pub const UPSTREAM_OPENED: Family = counter(
    "ringway_upstream_connections_opened_total",
    &["endpoint"],
    "Connections made to an endpoint, TLS included. If it rises like the attempts, none are reused: raise pool.idle, or ask \
     the provider why it closes them.",
);

/// Reused upstream connections.
pub const UPSTREAM_REUSED: Family = counter(
    "ringway_upstream_connections_reused_total",
    &["endpoint"],
    "Attempts that went over a kept connection. Its share of the attempts is the saving of handshakes.",
);

/// Failures of endpoints.
pub const UPSTREAM_FAILURES: Family = counter(
    "ringway_upstream_failures_total",
    &["endpoint", "phase"],
    "Attempts that an endpoint failed, by how far they had come: connect is name, network and TLS; send and first_byte \
     mostly a kept connection that had gone stale, which is tried again; first_content and relay an answer that broke off \
     or fell silent.",
);

/// Handshakes.
pub const TLS_HANDSHAKES: Family = counter(
    "ringway_tls_handshakes_total",
    &["side", "result"],
    "TLS handshakes with clients and with upstreams: full, resumed, or why not. If clients seldom resume, they connect anew \
     too often or their tickets expire; certificate and incompatible are settings at one end; plain_http is a client that \
     forgot the s.",
);

/// Askings for names.
pub const DNS_LOOKUPS: Family = counter(
    "ringway_dns_lookups_total",
    &["result"],
    "Askings for the address of an endpoint's name. Anything but found leaves the last good answer in use: see \
     ringway_dns_names_failing.",
);

/// Names.
pub const DNS_NAMES: Family =
    gauge("ringway_dns_names", &[], "Names of endpoints that are asked for; addresses need no asking.");

/// Names that fail.
pub const DNS_FAILING: Family = gauge(
    "ringway_dns_names_failing",
    &[],
    "Names whose last asking brought no address. Traffic goes on to the last known ones, so there is time: look at the name \
     servers, then at the name.",
);

/// The age of the oldest answer.
pub const DNS_AGE: Family = gauge(
    "ringway_dns_answer_age_seconds",
    &[],
    "Age of the oldest answer in use. If it grows beyond resolver bounds, a name has not resolved since.",
);

/// Records that were lost.
pub const LOG_DROPPED: Family = counter(
    "ringway_log_records_dropped_total",
    &[],
    "Records that were not written, for their writer lagged behind. Any is too many: look at the disk of the log.",
);

/// Memory of workers.
pub const WORKER_MEMORY: Family = gauge(
    "ringway_worker_memory_bytes",
    &["worker"],
    "What each worker held in buffers, a second ago at most: bodies, answers, TLS, HTTP/2, decoders, and those that are kept \
     for reuse. The bound is ringway_worker_memory_max_bytes.",
);

/// What it may be.
pub const WORKER_MEMORY_MAX: Family = gauge(
    "ringway_worker_memory_max_bytes",
    &["worker"],
    "What each worker may hold in buffers: limits.memory_max, or what follows from the memory that the process may use.",
);

/// Requests for which there was none.
pub const MEMORY_REFUSALS: Family = counter(
    "ringway_memory_refusals_total",
    &["worker"],
    "Requests that got 503 memory_exhausted, for a worker held as much as it may. Raise limits.memory_max, or the memory of \
     the machine or container; or lower limits.body_bytes_max, http2.connection_window or limits.connections_max.",
);

/// CPU time of workers.
pub const WORKER_CPU: Family = counter(
    "ringway_worker_cpu_seconds_total",
    &["worker"],
    "CPU time of each worker's thread, the kernel's part included. Its rate is the share of a core that it uses.",
);

/// How busy workers are.
pub const WORKER_BUSY: Family = gauge(
    "ringway_worker_busy_ratio",
    &["worker"],
    "Share of the last seconds that each worker was running, 0 to 1. Near 1 on all: add cores. Near 1 on one only: few \
     clients send most of the load over few connections.",
);

/// Operations in flight.
pub const WORKER_RING: Family = gauge(
    "ringway_worker_ring_depth",
    &["worker"],
    "Reads and writes that each worker has with the kernel, a second ago at most. About one for each open connection; \
     more means peers that do not take what they are sent.",
);

/// How late timers are.
pub const WORKER_LAG: Family = gauge(
    "ringway_worker_loop_lag_seconds",
    &["worker"],
    "How late each worker came to its once-a-second duty, the last time. If it rises, something holds up its loop: a \
     busy core, a neighbour, a very long body.",
);

/// How long ago workers turned.
pub const WORKER_SILENCE: Family = gauge(
    "ringway_worker_silence_seconds",
    &["worker"],
    "How long ago each worker last came to its once-a-second duty. Above 5, it is stuck and /healthz fails.",
);

/// Distinct ways through the gateway.
pub const ROUTES: Family = gauge(
    "ringway_metric_routes",
    &[],
    "Combinations of model, endpoint, dialect and streamed that are told apart. At the bound (admin.series_max), further \
     ones are counted under model other, endpoint other.",
);

/// Readiness.
pub const READY: Family =
    gauge("ringway_ready", &[], "1 if /readyz says so; where it does not, it says why. If it falls, look there.");

/// Draining.
pub const DRAINING: Family =
    gauge("ringway_draining", &[], "1 once the gateway was told to end and finishes what is under way.");

/// The build.
pub const BUILD: Family = Family {
    name: "ringway_build_info",
    kind: Kind::Info,
    labels: &["version"],
    help: "The version that runs. Two at once: a rollout is under way, or was forgotten.",
};

/// Uptime.
pub const UPTIME: Family =
    gauge("ringway_uptime_seconds", &[], "Since the start. If it falls, the process was restarted: see why.");

/// Process: CPU.
pub const PROCESS_CPU: Family =
    counter("process_cpu_seconds_total", &[], "CPU time of all threads, the kernel's part included.");

/// Process: memory.
pub const PROCESS_MEMORY: Family = gauge(
    "process_resident_memory_bytes",
    &[],
    "Memory in use. If it rises without the connections, report it with the configuration.",
);

/// Process: descriptors.
pub const PROCESS_FDS: Family = gauge(
    "process_open_fds",
    &[],
    "Open descriptors: about one for each client and upstream connection. Near process_max_fds, raise the limit of open \
     files.",
);

/// Process: most descriptors.
pub const PROCESS_FDS_MAX: Family = gauge("process_max_fds", &[], "The most descriptors that may be open.");

/// Process: start.
pub const PROCESS_START: Family =
    gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970.");
