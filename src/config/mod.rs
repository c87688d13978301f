//! What the operator asked for, proven sound.
//!
//! [`Config`] is the compiled form: immutable, shared by `Arc`, and free of anything that could still be
//! wrong. `schema` is the file as written; `compile` turns one into the other and reports every error at once.

pub mod compile;
pub mod cors;
mod logs;
mod proxy;
mod read;
pub mod report;
mod resolver;
pub mod schema;
mod secrets;
mod tls;
mod url;
mod values;
mod websocket;

pub use proxy::Proxy;
pub use resolver::{Method, Resolver};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use tls::{ClientAuth, KeyPair, ListenerTls, TlsGroup, TlsVersion};

use crate::base::{EndpointId, ModelId, Secret};

pub use logs::*;
pub use websocket::WebSocket;

/// A whole, sound configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// CPU numbers, one worker each; never empty.
    pub cores: Vec<usize>,
    /// Which worker serves a new connection.
    pub spread: Spread,
    /// How each worker's ring is built.
    pub ring: Ring,
    /// Addresses to accept clients on; never empty.
    pub listeners: Vec<Listener>,
    /// Who may call. Empty only where every listener is open or on loopback.
    pub keys: Vec<Key>,
    /// Providers, in the order of the file.
    pub providers: Vec<Provider>,
    /// All endpoints of all providers, indexed by [`EndpointId`].
    pub endpoints: Vec<Endpoint>,
    /// Models that clients may ask for. The default route is not among them.
    pub models: Vec<Model>,
    /// The model named `*`: takes names that match no other, and requests that name none.
    pub default_model: Option<Model>,
    /// Bounds on what clients and providers may send.
    pub limits: Limits,
    /// Deadlines towards clients.
    pub client: ClientTimers,
    /// Clients that send many requests at once over one connection.
    pub http2: Http2,
    /// What WebSockets are allowed.
    pub websocket: WebSocket,
    /// Bounds and idle time of the connections kept to endpoints, per worker and endpoint.
    pub pool: Pool,
    /// Where operators look in; `None` lets no one.
    pub admin: Option<Admin>,
    /// Which web pages may call from a browser; `None` is none.
    pub cors: Option<cors::Cors>,
    /// How names become addresses.
    pub resolver: Resolver,
    /// The access log; `None` keeps none.
    pub access_log: Option<AccessLog>,
    /// The program's own log.
    pub log: Log,
    /// What becomes of a request without a valid `traceparent`.
    pub trace_start: TraceStart,
}

impl Config {
    /// The provider of an endpoint.
    pub fn provider_of(&self, endpoint: EndpointId) -> &Provider {
        &self.providers[self.endpoints[usize::from(endpoint.0)].provider]
    }
}

/// How a worker's event loop is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// The highest rung of the ladder to try.
    pub driver: Driver,
    /// Submission queue entries, 256 to 32768, a power of two.
    pub entries: u32,
    /// How long events may be gathered under many streams; zero for not at all.
    pub gather: Duration,
}

/// A rung of the ladder, best first; a worker climbs down until one can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// Deferred task run and single issuer (Linux 6.1).
    Deferred,
    /// Cooperative task run (Linux 5.19).
    Cooperative,
    /// A ring without flags (Linux 5.10).
    Plain,
    /// No ring: epoll.
    Epoll,
}

/// Which worker serves a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The one that accepted it, or the idlest if that one has notably more to do.
    Even,
    /// The one to which the kernel gave it.
    Kernel,
}

/// One address that clients connect to.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// True if requests need no key here.
    pub open: bool,
    /// True if HTTP/2 is spoken too.
    pub http2: bool,
    /// HTTPS; `None` speaks HTTP in the clear.
    pub tls: Option<ListenerTls>,
}

/// The listener for operators and their tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen; port 0 takes a free one. Beyond loopback only where that was said to be meant.
    pub address: SocketAddr,
    /// The most series that the metrics of exchanges may make up. Default 100000.
    pub series_max: usize,
}

/// One client key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name in records; never the key itself.
    pub name: String,
    /// SHA-256 of the key.
    pub digest: [u8; 32],
    /// The models it may ask for; `None` is all.
    pub models: Option<Vec<String>>,
}

/// One provider.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in routes, records and errors.
    pub name: String,
    /// Its endpoints, never empty.
    pub endpoints: Vec<EndpointId>,
    /// Whether `stream_options.include_usage` may be put into streamed chat requests.
    pub include_usage: bool,
    /// True if it is told which codings the client takes, rather than that we want none.
    pub passes_accept_encoding: bool,
}

/// One URL of a provider.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Name for logs and errors: `provider/0`, `provider/1`, …
    pub name: String,
    /// The provider it belongs to, an index into [`Config::providers`].
    pub provider: usize,
    /// True for https.
    pub tls: bool,
    /// Host as in the URL: a name in lower case, or an address (IPv6 without brackets).
    pub host: String,
    /// Port, from the URL or the scheme.
    pub port: u16,
    /// What the Host header says: host, and port unless it is the scheme's own.
    pub authority: String,
    /// Path that takes the place of the client's `/v1`; starts with `/` or is empty; never ends with `/`.
    pub base_path: String,
    /// The provider's key, put in for the client's.
    pub key: Option<Secret>,
    /// How the key is sent.
    pub auth: Auth,
    /// PEM file of one more certificate authority to trust here.
    pub ca: Option<PathBuf>,
    /// What it is shown if it asks who we are.
    pub client_certificate: Option<KeyPair>,
    /// The HTTP proxy that it is reached through.
    pub proxy: Option<Proxy>,
    /// Whether HTTP/2 is spoken with it.
    pub http2: EndpointHttp2,
}

/// Whether HTTP/2 is spoken with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointHttp2 {
    /// Over TLS, if it agrees (ALPN).
    Auto,
    /// Never.
    Never,
    /// It is known to speak it, in the clear too.
    PriorKnowledge,
}

impl Endpoint {
    /// The host and port that are connected to: the proxy's, if there is one.
    pub fn dialled(&self) -> (&str, u16) {
        self.proxy.as_ref().map_or((&self.host, self.port), |proxy| (&proxy.host, proxy.port))
    }
}

/// The header that carries an endpoint's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// As the request's dialect has it: `x-api-key` for Anthropic, else `Authorization: Bearer`.
    Dialect,
    /// `Authorization: Bearer`.
    Bearer,
    /// `x-api-key`.
    XApiKey,
}

/// What a connection that carries many requests at once is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    /// Requests under way at once. Default 100.
    pub streams_max: u32,
    /// Bytes of one request's body that may come before they are asked for. Default 1 MiB.
    pub stream_window: u32,
    /// Of all of them together. Default 16 MiB.
    pub connection_window: u32,
    /// Frames that carry nothing, at once and again each ten seconds. Default 1000.
    pub control_frames_max: u32,
    /// A silent client is asked whether it is there after this; zero for never. Default 30 s.
    pub ping: Duration,
}

/// One model as clients name it.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its number: an index into [`Config::models`]; the default route's is one more than the last.
    pub id: ModelId,
    /// Its name; `*` for the default route.
    pub name: String,
    /// Where it is served, in order of preference; never empty.
    pub route: Vec<Target>,
    /// Its four timers.
    pub timers: ModelTimers,
}

/// One way to serve a model.
#[derive(Debug, Clone)]
pub struct Target {
    /// Index into [`Config::providers`].
    pub provider: usize,
    /// The provider's name for the model; `None` keeps the client's.
    pub model: Option<String>,
}

/// When to give up on a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelTimers {
    /// To connect, TLS included. Default 5 s.
    pub connect: Duration,
    /// From the request sent to the first content; for an unstreamed answer, to its head. Default 120 s.
    pub first_token: Duration,
    /// Between two contents of a stream, or two reads of another body. Default 60 s.
    pub between_tokens: Duration,
    /// From the request accepted to the end of the answer. Default 30 min.
    pub total: Duration,
}

/// Bounds on what peers may send; each is a number of bytes unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers together. Default 64 KiB.
    pub head_bytes_max: usize,
    /// Number of header fields. Default 100.
    pub headers_max: usize,
    /// The request target. Default 8 KiB.
    pub target_bytes_max: usize,
    /// A JSON body, which is held whole. Default 32 MiB.
    pub body_bytes_max: usize,
    /// One event of a stream that is held until it is complete; a longer one passes in pieces, unread. Default 256 KiB.
    pub event_bytes_max: usize,
    /// What one stream may hold in buffers. Default 64 KiB; `event_bytes_max` comes on top only while such an event is under way.
    pub stream_bytes_max: usize,
    /// What an encoded body may become. Default 256 MiB.
    pub decoded_bytes_max: usize,
    /// Bytes that each byte of an encoded body may become. Default 200.
    pub decoded_ratio_max: u32,
    /// Client connections per worker. Default 20000.
    pub connections_max: usize,
    /// What one worker may hold in buffers, if the process may use as much. Default 2 GiB.
    pub memory_max: usize,
}

/// Deadlines towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTimers {
    /// An idle connection is closed after this. Default 75 s.
    pub keep_alive: Duration,
    /// Requests on one connection before it is closed. Default 1000.
    pub requests_max: u32,
    /// From the connection to the end of its TLS handshake. Default 10 s.
    pub handshake: Duration,
    /// From the first byte of a head to its last. Default 10 s.
    pub head: Duration,
    /// Between two reads of a request body. Default 30 s.
    pub body: Duration,
    /// A piece of an answer, some 64 KiB at most, that the client does not take within this ends the connection. Default 60 s.
    pub write: Duration,
    /// How long exchanges under way may go on once the process was told to end. Default 25 s.
    pub drain: Duration,
    /// How long clients may still come before that. Default 0 s.
    pub drain_delay: Duration,
    /// What a client means that shuts its sending side after a whole request. Default: it is gone.
    pub half_close: HalfClose,
}

/// What a client's half-close during an exchange means; TCP cannot tell it from a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// The client is gone: the upstream request is cancelled at once.
    Gone,
    /// The client still reads: the answer is finished.
    Finish,
}

/// Connections kept to one endpoint by one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept. Default 256.
    pub idle_max: usize,
    /// An idle connection is closed after this. Default 60 s.
    pub idle: Duration,
    /// Connections open at once, idle or not; more requests get 503. Default 10000.
    pub connections_max: usize,
}

/// A configuration for tests of other modules: `providers` by number of endpoints, `models` by name and route.
#[cfg(test)]
#[allow(clippy::type_complexity)] // a table of literals in tests
pub(crate) fn fixture(providers: &[u16], models: &[(&str, &[(usize, Option<&str>)])]) -> Config {
    let timers = ModelTimers {
        connect: Duration::from_secs(5),
        first_token: Duration::from_secs(120),
        between_tokens: Duration::from_secs(60),
        total: Duration::from_secs(1800),
    };
    let mut config = Config {
        cores: vec![0],
        spread: Spread::Even,
        ring: Ring { driver: Driver::Deferred, entries: 1024, gather: Duration::ZERO },
        listeners: vec![Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            open: true,
            http2: true,
            tls: None,
        }],
        keys: Vec::new(),
        providers: Vec::new(),
        endpoints: Vec::new(),
        models: Vec::new(),
        default_model: None,
        limits: Limits {
            head_bytes_max: 64 << 10,
            headers_max: 100,
            target_bytes_max: 8 << 10,
            body_bytes_max: 32 << 20,
            event_bytes_max: 256 << 10,
            stream_bytes_max: 64 << 10,
            decoded_bytes_max: 256 << 20,
            decoded_ratio_max: 200,
            connections_max: 20_000,
            memory_max: 2 << 30,
        },
        client: ClientTimers {
            keep_alive: Duration::from_secs(75),
            requests_max: 1000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            write: Duration::from_secs(60),
            drain: Duration::from_secs(25),
            drain_delay: Duration::ZERO,
            half_close: HalfClose::Gone,
        },
        http2: Http2 {
            streams_max: 100,
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            control_frames_max: 1000,
            ping: Duration::from_secs(30),
        },
        websocket: WebSocket {
            message_bytes_max: 16 << 20,
            idle: Duration::from_secs(600),
            total: Duration::ZERO,
            connections_max: 10_000,
        },
        pool: Pool { idle_max: 256, idle: Duration::from_secs(60), connections_max: 10_000 },
        admin: None,
        cors: None,
        resolver: Resolver {
            method: Method::Dns,
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(300),
        },
        access_log: None,
        log: Log { format: LogFormat::Auto, level: LogLevel::Info },
        trace_start: TraceStart::Unsampled,
    };
    for (provider, endpoints) in providers.iter().enumerate() {
        let first = config.endpoints.len() as u16;
        for at in 0..*endpoints {
            config.endpoints.push(Endpoint {
                name: format!("p{provider}/{at}"),
                provider,
                tls: false,
                host: "127.0.0.1".into(),
                port: 1,
                authority: "127.0.0.1:1".into(),
                base_path: "/v1".into(),
                key: None,
                auth: Auth::Dialect,
                ca: None,
                client_certificate: None,
                proxy: None,
                http2: EndpointHttp2::Auto,
            });
        }
        config.providers.push(Provider {
            name: format!("p{provider}"),
            endpoints: (first..first + endpoints).map(EndpointId).collect(),
            include_usage: true,
            passes_accept_encoding: false,
        });
    }
    for (at, (name, route)) in (0..).zip(models) {
        let target =
            |(provider, model): &(usize, Option<&str>)| Target { provider: *provider, model: model.map(str::to_owned) };
        config.models.push(Model {
            id: ModelId(at),
            name: (*name).to_owned(),
            route: route.iter().map(target).collect(),
            timers: timers.clone(),
        });
    }
    config
}
