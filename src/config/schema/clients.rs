//! Who may connect, who may call, and how long they may take.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

/// One address that clients connect to.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Listener")]
pub struct ListenerSchema {
    /// IP address and port, `127.0.0.1:8080` or `[::]:8080`; port 0 takes a free one.
    pub address: String,
    /// Whether requests need a key here. Default: `keys`; without any keys `open`, which is allowed unsaid on
    /// loopback only.
    pub access: Option<AccessSchema>,
    /// Whether HTTP/2 is spoken here too, where clients ask for it: by ALPN, or with prior knowledge. Default true.
    #[schemars(extend("default" = true))]
    pub http2: Option<bool>,
    /// Speaks HTTPS here. Default: HTTP in the clear.
    pub tls: Option<ListenerTlsSchema>,
}

/// Whether requests need a key.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "Access")]
pub enum AccessSchema {
    /// One of `[[keys]]` is needed.
    Keys,
    /// Anyone who can connect may call.
    Open,
}

/// One client key. Clients send it as `Authorization: Bearer` or `x-api-key`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Key")]
pub struct KeySchema {
    /// Its name in usage records, 1 to 64 of letters, digits, `.`, `_` and `-`; unique.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX))]
    pub name: String,
    /// The key itself, 1 to 4096 visible ASCII characters; no two keys may share one.
    pub secret: SecretSchema,
    /// The models it may ask for, by the names clients use, 1 to 1000; `*` is any. Default `["*"]`.
    #[schemars(length(min = 1, max = KEY_MODELS_MAX), extend("default" = ["*"]))]
    pub models: Option<Vec<String>>,
}

/// Where a client key is to be found. Exactly one.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "Secret")]
pub enum SecretSchema {
    /// Name of the environment variable that holds it.
    Env(String),
    /// File that holds it; white space at its end does not count.
    File(String),
    /// Its SHA-256: `sha256:` and 64 hexadecimal digits.
    Hash(String),
}

/// Deadlines towards clients.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Client")]
pub struct ClientSchema {
    /// An idle connection is closed after this: 1ms to 1h. Default 75s.
    #[schemars(extend("default" = "75s"))]
    pub keep_alive: Option<HumanDuration>,
    /// Requests on one connection before it is closed: 1 to 1000000000. Default 1000.
    #[schemars(range(min = ClientSchema::REQUESTS_MAX.min, max = ClientSchema::REQUESTS_MAX.max), extend("default" = 1000))]
    pub requests_max: Option<u32>,
    /// From the connection to the end of its TLS handshake: 1ms to 5m. Default 10s.
    #[schemars(extend("default" = "10s"))]
    pub handshake: Option<HumanDuration>,
    /// From the first byte of a head to its last: 1ms to 5m. Default 10s.
    #[schemars(extend("default" = "10s"))]
    pub head: Option<HumanDuration>,
    /// Between two reads of a request body: 1ms to 1h. Default 30s.
    #[schemars(extend("default" = "30s"))]
    pub body: Option<HumanDuration>,
    /// A piece of an answer (some 64 KiB at most) that the client does not take within this ends the connection: 1ms to 1h.
    /// Default 1m.
    #[schemars(extend("default" = "1m"))]
    pub write: Option<HumanDuration>,
    /// How long exchanges under way may go on after SIGTERM or SIGINT: 1ms to 1h. What is cut then has three more
    /// seconds to be told; with both, the default stays below the 30 seconds that Kubernetes gives. Default 25s.
    #[schemars(extend("default" = "25s"))]
    pub drain: Option<HumanDuration>,
    /// How long clients may still come after SIGTERM or SIGINT, before `drain` begins: 0ms to 1h. Meanwhile `/readyz` says
    /// no and each answer ends its connection, so that load balancers and clients go elsewhere. Default 0s.
    #[schemars(extend("default" = "0s"))]
    pub drain_delay: Option<HumanDuration>,
    /// What a client means that shuts its sending side after a whole request; TCP cannot tell it from a close.
    /// Default `gone`.
    #[schemars(extend("default" = "gone"))]
    pub half_close: Option<HalfCloseSchema>,
}

impl ClientSchema {
    /// See the field.
    pub const KEEP_ALIVE: Bound<Duration> = ms(1, 75 * SECOND, HOUR);
    /// See the field.
    pub const REQUESTS_MAX: Bound<u64> = between(1, 1000, 1_000_000_000);
    /// See the field.
    pub const HANDSHAKE: Bound<Duration> = ms(1, 10 * SECOND, 5 * MINUTE);
    /// See the field.
    pub const HEAD: Bound<Duration> = ms(1, 10 * SECOND, 5 * MINUTE);
    /// See the field.
    pub const BODY: Bound<Duration> = ms(1, 30 * SECOND, HOUR);
    /// See the field.
    pub const WRITE: Bound<Duration> = ms(1, MINUTE, HOUR);
    /// See the field.
    pub const DRAIN: Bound<Duration> = ms(1, 25 * SECOND, HOUR);
    /// See the field.
    pub const DRAIN_DELAY: Bound<Duration> = ms(0, 0, HOUR);
}

/// Clients that send many requests at once over one connection.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Http2")]
pub struct Http2Schema {
    /// Requests under way at once on one connection: 1 to 1000. Default 100.
    #[schemars(range(min = Http2Schema::STREAMS_MAX.min, max = Http2Schema::STREAMS_MAX.max), extend("default" = 100))]
    pub streams_max: Option<u32>,
    /// What a client may send of one request's body before it is asked for: 64KiB to 16MiB. Default 1MiB.
    #[schemars(extend("default" = "1MiB"))]
    pub stream_window: Option<ByteSize>,
    /// What it may send of all of them together before they are asked for: 64KiB to 1GiB. Default 16MiB.
    #[schemars(extend("default" = "16MiB"))]
    pub connection_window: Option<ByteSize>,
    /// Frames that make work and carry nothing (PING, SETTINGS, RST_STREAM, PRIORITY, empty and unknown ones), at once and
    /// again each ten seconds; more end the connection: 10 to 1000000. Default 1000.
    #[schemars(range(min = Http2Schema::CONTROL_FRAMES_MAX.min, max = Http2Schema::CONTROL_FRAMES_MAX.max), extend("default" = 1000))]
    pub control_frames_max: Option<u32>,
    /// With requests under way, a client or a provider that is silent for this long is sent a PING, and given up after as long again:
    /// 0ms to 1h; 0ms sends none. Default 30s.
    #[schemars(extend("default" = "30s"))]
    pub ping: Option<HumanDuration>,
}

impl Http2Schema {
    /// See the field.
    pub const STREAMS_MAX: Bound<u64> = between(1, 100, 1000);
    /// See the field.
    pub const STREAM_WINDOW: Bound<u64> = between(64 << 10, 1 << 20, 16 << 20);
    /// See the field.
    pub const CONNECTION_WINDOW: Bound<u64> = between(64 << 10, 16 << 20, 1 << 30);
    /// See the field.
    pub const CONTROL_FRAMES_MAX: Bound<u64> = between(10, 1000, 1_000_000);
    /// See the field.
    pub const PING: Bound<Duration> = ms(0, 30 * SECOND, HOUR);
}

/// What a client's half-close means.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "HalfClose")]
pub enum HalfCloseSchema {
    /// The client is gone: the provider's work is cancelled at once.
    Gone,
    /// The client still reads: the answer is finished.
    Finish,
}
