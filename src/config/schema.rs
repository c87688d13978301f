//! The file as written: its fields with meaning, unit, default and bounds.
//!
//! These types describe; editors get them as a JSON Schema ([`json_schema`]). `compile` reads the file itself, field
//! by field, so that one fault does not hide the next, and takes defaults and bounds from the constants here. Tests
//! hold the two together: same fields, same defaults, same bounds.

mod admin;
mod clients;
mod cors;
mod logs;
mod providers;
mod resolver;
mod tls;
mod websocket;

use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

pub use admin::*;
pub use clients::*;
pub use cors::*;
pub use logs::*;
pub use providers::*;
pub use resolver::*;
pub use tls::*;
pub use websocket::*;

/// What a field is when it is absent, and the least and the most it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound<T> {
    /// The value of an absent field.
    pub default: T,
    /// The least value taken.
    pub min: T,
    /// The greatest value taken.
    pub max: T,
}

impl<T> Bound<T> {
    pub(super) fn map<U>(self, convert: impl Fn(T) -> U) -> Bound<U> {
        Bound { default: convert(self.default), min: convert(self.min), max: convert(self.max) }
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn between(min: u64, default: u64, max: u64) -> Bound<u64> {
    Bound { default, min, max }
}

const fn ms(min: u64, default: u64, max: u64) -> Bound<Duration> {
    Bound { default: Duration::from_millis(default), min: Duration::from_millis(min), max: Duration::from_millis(max) }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// The longest file taken, in bytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Entries of `[[listeners]]`.
pub const LISTENERS_MAX: usize = 64;
/// Entries of a listener's `certificates`.
pub const CERTIFICATES_MAX: usize = 1_000;
/// Entries of a listener's `groups`: all there are.
pub const GROUPS_MAX: usize = 4;
/// Entries of `[[keys]]`.
pub const KEYS_MAX: usize = 10_000;
/// Models that one key names.
pub const KEY_MODELS_MAX: usize = 1_000;
/// Entries of `[[providers]]`.
pub const PROVIDERS_MAX: usize = 256;
/// Entries of `[[providers.endpoints]]`, for one provider.
pub const ENDPOINTS_MAX: usize = 64;
/// Entries of `[[models]]`.
pub const MODELS_MAX: usize = 10_000;
/// Entries of a model's `route`.
pub const ROUTE_MAX: usize = 16;
/// Length of the name of a key or provider, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Length of the name of a model, in bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 256;
/// Length of a secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 4096;

/// The configuration of a Ringway gateway. Every string may hold `${NAME}` or `${NAME:-default}`, filled from the
/// environment. Durations are a number and a unit (`500ms`, `75s`, `30m`, `2h`, `7d`); sizes are bytes, or a number and a
/// unit (`64KiB`, `32MiB`, `1GiB`). Relative paths start at the folder of this file.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Ringway")]
pub struct FileSchema {
    /// The CPUs to run on, one worker thread each: `auto` for all that the process may use, or a list such as
    /// `0-3,8`. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub cores: Option<String>,
    /// Which worker serves a new connection. Default `even`.
    #[schemars(extend("default" = "even"))]
    pub spread: Option<SpreadSchema>,
    /// How each worker's event loop is built.
    pub ring: Option<RingSchema>,
    /// Addresses to accept clients on, 1 to 64.
    #[schemars(length(min = 1, max = LISTENERS_MAX))]
    pub listeners: Vec<ListenerSchema>,
    /// Who may call, at most 10000. Without keys, only loopback listeners and those with `access = "open"` are allowed.
    #[schemars(length(min = 1, max = KEYS_MAX))]
    pub keys: Option<Vec<KeySchema>>,
    /// Who answers, 1 to 256.
    #[schemars(length(min = 1, max = PROVIDERS_MAX))]
    pub providers: Vec<ProviderSchema>,
    /// What clients may ask for, and who serves it, 1 to 10000.
    #[schemars(length(min = 1, max = MODELS_MAX))]
    pub models: Vec<ModelSchema>,
    /// When to give up on a provider, for every model that does not say otherwise.
    pub timers: Option<TimersSchema>,
    /// Bounds on what clients and providers may send.
    pub limits: Option<LimitsSchema>,
    /// Deadlines towards clients.
    pub client: Option<ClientSchema>,
    /// Clients that send many requests at once over one connection.
    pub http2: Option<Http2Schema>,
    /// WebSockets, which are passed on to providers that speak them.
    pub websocket: Option<WebSocketSchema>,
    /// Connections kept to providers.
    pub pool: Option<PoolSchema>,
    /// Where operators and their tools look in. Without it nobody can, and nothing is measured.
    pub admin: Option<AdminSchema>,
    /// Which web pages may call from a browser. Without this table none may.
    pub cors: Option<CorsSchema>,
    /// How names become addresses.
    pub resolver: Option<ResolverSchema>,
    /// A line of JSON for every exchange.
    pub access_log: Option<AccessLogSchema>,
    /// What the program says of itself.
    pub log: Option<LogSchema>,
    /// W3C trace context: when a trace begins here.
    pub trace: Option<TraceSchema>,
}

/// Which worker serves a new connection.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "Spread")]
pub enum SpreadSchema {
    /// The one to which the kernel gave it, unless that has over an eighth more connections and streams than the one with
    /// the fewest: then that one.
    Even,
    /// The one to which the kernel gave it, by a hash of the addresses.
    Kernel,
}

/// How each worker's event loop is built.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Ring")]
pub struct RingSchema {
    /// The best kind of event loop to try; a worker falls back from it, kind by kind, to what can be built here.
    /// `auto` is `deferred`. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub driver: Option<DriverSchema>,
    /// Entries of the submission queue: a power of two, 256 to 32768. Default 1024.
    #[schemars(range(min = RingSchema::ENTRIES.min, max = RingSchema::ENTRIES.max), extend("default" = 1024))]
    pub entries: Option<u32>,
    /// Under many streams, how long a worker may gather events before it looks at the ring again, in microseconds:
    /// 0 to 2000. Costs up to that much delay for an event and saves CPU, since events then share one waking of
    /// the core. 0 turns it off. Default 0.
    #[schemars(range(min = RingSchema::GATHER_US.min, max = RingSchema::GATHER_US.max), extend("default" = 0))]
    pub gather_us: Option<u32>,
}

impl RingSchema {
    /// See the field.
    pub const ENTRIES: Bound<u64> = between(256, 1024, 32_768);
    /// See the field.
    pub const GATHER_US: Bound<u64> = between(0, 0, 2000);
}

/// A kind of event loop, best first.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "Driver")]
pub enum DriverSchema {
    /// The best that can be built.
    Auto,
    /// io_uring with deferred task run and a single issuer (Linux 6.1).
    Deferred,
    /// io_uring with cooperative task run (Linux 5.19).
    Cooperative,
    /// io_uring without flags (Linux 5.10).
    Plain,
    /// epoll, where io_uring is forbidden.
    Epoll,
}

/// Bounds on what clients and providers may send.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Limits")]
pub struct LimitsSchema {
    /// Request line and headers together: 1KiB to 1MiB. Default 64KiB.
    #[schemars(extend("default" = "64KiB"))]
    pub head_bytes_max: Option<ByteSize>,
    /// Number of header fields: 8 to 128. Default 100.
    #[schemars(range(min = LimitsSchema::HEADERS_MAX.min, max = LimitsSchema::HEADERS_MAX.max), extend("default" = 100))]
    pub headers_max: Option<u32>,
    /// The request target: 64B to 64KiB, and not above `head_bytes_max`. Default 8KiB, or `head_bytes_max` if that is
    /// less.
    #[schemars(extend("default" = "8KiB"))]
    pub target_bytes_max: Option<ByteSize>,
    /// A JSON body, which is held whole: 1KiB to 1GiB. Default 32MiB.
    #[schemars(extend("default" = "32MiB"))]
    pub body_bytes_max: Option<ByteSize>,
    /// One event of a stream, held until it is complete; a longer one passes in pieces, unread: 1KiB to 64MiB.
    /// Default 256KiB.
    #[schemars(extend("default" = "256KiB"))]
    pub event_bytes_max: Option<ByteSize>,
    /// What one stream may hold in buffers, an event under way aside: 4KiB to 16MiB. Default 64KiB.
    #[schemars(extend("default" = "64KiB"))]
    pub stream_bytes_max: Option<ByteSize>,
    /// What an encoded body (gzip, deflate, br, zstd) may become in all: 64KiB to 64GiB. A request beyond it, or whose
    /// body is then beyond `body_bytes_max`, gets 413; the rest of an answer passes unread, or is cut if the client is
    /// sent it decoded. Default 256MiB.
    #[schemars(extend("default" = "256MiB"))]
    pub decoded_bytes_max: Option<ByteSize>,
    /// Bytes that each byte of an encoded body may become, once it has become 1MiB: 2 to 100000. Beyond it, as for
    /// `decoded_bytes_max`. Default 200.
    #[schemars(range(min = LimitsSchema::DECODED_RATIO_MAX.min, max = LimitsSchema::DECODED_RATIO_MAX.max), extend("default" = 200))]
    pub decoded_ratio_max: Option<u32>,
    /// Client connections per worker: 1 to 1000000. Default 20000.
    #[schemars(range(min = LimitsSchema::CONNECTIONS_MAX.min, max = LimitsSchema::CONNECTIONS_MAX.max), extend("default" = 20_000))]
    pub connections_max: Option<u32>,
    /// What one worker may hold in buffers for all of its connections together: bodies, answers, TLS, HTTP/2, decoders. Beyond
    /// it new requests, and bodies that would need more, get 503, and what is under way goes on. All workers together hold no
    /// more than half of what the process may use (the limit of its cgroup, or the machine's memory), whatever is said here.
    /// 16MiB to 1024GiB. Default 2GiB.
    #[schemars(extend("default" = "2GiB"))]
    pub memory_max: Option<ByteSize>,
}

impl LimitsSchema {
    /// See the field.
    pub const HEAD_BYTES_MAX: Bound<u64> = between(KIB, 64 * KIB, MIB);
    /// See the field.
    pub const HEADERS_MAX: Bound<u64> = between(8, 100, 128);
    /// See the field.
    pub const TARGET_BYTES_MAX: Bound<u64> = between(64, 8 * KIB, 64 * KIB);
    /// See the field.
    pub const BODY_BYTES_MAX: Bound<u64> = between(KIB, 32 * MIB, GIB);
    /// See the field.
    pub const EVENT_BYTES_MAX: Bound<u64> = between(KIB, 256 * KIB, 64 * MIB);
    /// See the field.
    pub const STREAM_BYTES_MAX: Bound<u64> = between(4 * KIB, 64 * KIB, 16 * MIB);
    /// See the field.
    pub const DECODED_BYTES_MAX: Bound<u64> = between(64 * KIB, 256 * MIB, 64 * GIB);
    /// See the field.
    pub const DECODED_RATIO_MAX: Bound<u64> = between(2, 200, 100_000);
    /// See the field.
    pub const CONNECTIONS_MAX: Bound<u64> = between(1, 20_000, 1_000_000);
    /// See the field.
    pub const MEMORY_MAX: Bound<u64> = between(16 * MIB, 2 * GIB, 1024 * GIB);
}

/// A duration: a number and a unit, `500ms`, `75s`, `30m`, `2h`, `7d`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(inline)]
pub struct HumanDuration(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h|d)$|\$\{"))] pub String);

/// A number of bytes, plain or with a unit: `64KiB`, `32MiB`, `1GiB`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged, inline)]
pub enum ByteSize {
    /// Bytes.
    Bytes(u64),
    /// A number and a unit.
    Unit(#[schemars(regex(pattern = r"^[0-9]+(B|KiB|MiB|GiB)?$|\$\{"))] String),
}

/// The JSON Schema (draft 07, which TOML editors know) of the file; ends with a newline.
pub fn json_schema() -> String {
    let plain = RecursiveTransform(|schema: &mut Schema| {
        // Where a comment here breaks its lines means nothing.
        if let Some(Value::String(description)) = schema.get_mut("description") {
            *description = description.replace('\n', " ");
        }
        // TOML has no null: an optional field is absent.
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                schema.insert("type".into(), only);
            }
        }
        if let Some(Value::Array(options)) = schema.get_mut("anyOf") {
            options.retain(|option| option.get("type").is_none_or(|name| name != "null"));
            if let [Value::Object(only)] = options.as_slice() {
                let only = only.clone();
                schema.remove("anyOf");
                // Draft 07 ignores what stands beside a reference.
                if only.contains_key("$ref") {
                    schema.insert("allOf".into(), Value::Array(vec![Value::Object(only)]));
                    return;
                }
                for (key, value) in only {
                    // The field's own words stand before those of its type.
                    if schema.get(&key).is_none() {
                        schema.insert(key, value);
                    }
                }
            }
        }
    });
    let settings = SchemaSettings::draft07().with_transform(plain);
    let schema = settings.into_generator().into_root_schema_for::<FileSchema>();
    // A schema is a tree of plain JSON; alternate formatting indents it.
    format!("{:#}\n", schema.as_value())
}

#[cfg(test)]
mod tests;
