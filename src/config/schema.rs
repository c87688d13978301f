//! The file as written: its fields with meaning, unit, default and bounds.
//!
//! These types describe; editors get them as a JSON Schema ([`json_schema`]). `compile` reads the file itself, field
//! by field, so that one fault does not hide the next, and takes defaults and bounds from the constants here. Tests
//! hold the two together: same fields, same defaults, same bounds.

use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::Value;

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
/// environment. Durations are a number and a unit (`500ms`, `75s`, `30m`, `2h`); sizes are bytes, or a number and a
/// unit (`64KiB`, `32MiB`, `1GiB`). Relative paths start at the folder of this file.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Ringway")]
pub struct FileSchema {
    /// The CPUs to run on, one worker thread each: `auto` for all that the process may use, or a list such as
    /// `0-3,8`. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub cores: Option<String>,
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
    /// Connections kept to providers.
    pub pool: Option<PoolSchema>,
    /// File that usage records are appended to, one JSON object a line. Without it none are kept.
    #[schemars(length(min = 1))]
    pub usage_log: Option<String>,
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

/// One address that clients connect to.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Listener")]
pub struct ListenerSchema {
    /// IP address and port, `127.0.0.1:8080` or `[::]:8080`; port 0 takes a free one.
    pub address: String,
    /// Whether requests need a key here. Default: `keys`; without any keys `open`, which is allowed unsaid on
    /// loopback only.
    pub access: Option<AccessSchema>,
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

/// One provider: the endpoints that serve the same models under the same names.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Provider")]
pub struct ProviderSchema {
    /// Its name in routes, records and errors, 1 to 64 of letters, digits, `.`, `_` and `-`; unique.
    #[schemars(length(min = 1, max = NAME_BYTES_MAX))]
    pub name: String,
    /// Whether `stream_options.include_usage` may be put into streamed chat requests, to learn what they cost.
    /// Default true.
    #[schemars(extend("default" = true))]
    pub include_usage: Option<bool>,
    /// The header that carries the provider's key, for all its endpoints. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub auth: Option<AuthSchema>,
    /// PEM file of one more certificate authority to trust, for all its https endpoints.
    #[schemars(length(min = 1))]
    pub ca: Option<String>,
    /// Its URLs, 1 to 64. Requests are spread over them.
    #[schemars(length(min = 1, max = ENDPOINTS_MAX))]
    pub endpoints: Vec<EndpointSchema>,
}

/// One URL of a provider.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Endpoint")]
pub struct EndpointSchema {
    /// http or https URL whose path takes the place of the client's `/v1`; no user name, query or fragment; at most
    /// 2048 bytes.
    #[schemars(length(min = 1, max = super::url::URL_BYTES_MAX))]
    pub url: String,
    /// The provider's key, put in for the client's, 1 to 4096 visible ASCII characters. Without it no credentials are
    /// sent.
    pub key: Option<EndpointKeySchema>,
    /// The header that carries the key. Default: the provider's.
    pub auth: Option<AuthSchema>,
    /// PEM file of one more certificate authority to trust here; https only. Default: the provider's.
    #[schemars(length(min = 1))]
    pub ca: Option<String>,
}

/// Where a provider's key is to be found. Exactly one.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "EndpointKey")]
pub enum EndpointKeySchema {
    /// Name of the environment variable that holds it.
    Env(String),
    /// File that holds it; white space at its end does not count.
    File(String),
    /// The key itself; better kept out of this file.
    Value(String),
}

/// The header that carries a provider's key.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "kebab-case", rename = "Auth")]
pub enum AuthSchema {
    /// As the request's API has it: `x-api-key` for Anthropic's, else `Authorization: Bearer`.
    Auto,
    /// `Authorization: Bearer`.
    Bearer,
    /// `x-api-key`.
    XApiKey,
}

/// One model as clients name it.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Model")]
pub struct ModelSchema {
    /// What clients ask for, 1 to 256 bytes, unique; `*` takes every other name, and requests that name none.
    #[schemars(length(min = 1, max = MODEL_NAME_BYTES_MAX))]
    pub name: String,
    /// Who serves it, in order of preference, 1 to 16.
    #[schemars(length(min = 1, max = ROUTE_MAX))]
    pub route: Vec<TargetSchema>,
    /// When to give up on a provider. Default: `[timers]`, field by field.
    pub timers: Option<TimersSchema>,
}

/// One way to serve a model.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Target")]
pub struct TargetSchema {
    /// Name of one of `[[providers]]`.
    pub provider: String,
    /// The provider's name for the model, 1 to 256 bytes. Default: the name that the client used.
    #[schemars(length(min = 1, max = MODEL_NAME_BYTES_MAX))]
    pub model: Option<String>,
}

/// When to give up on a provider. Comments, keep-alives and lifecycle events are no content and stop no timer.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Timers")]
pub struct TimersSchema {
    /// To connect, TLS included: 1ms to 5m. Default 5s.
    #[schemars(extend("default" = "5s"))]
    pub connect: Option<HumanDuration>,
    /// From the request sent to the first content; for an answer that is not streamed, to its head: 1ms to 24h.
    /// Default 2m.
    #[schemars(extend("default" = "2m"))]
    pub first_token: Option<HumanDuration>,
    /// Between two contents of a stream, or two reads of another body: 1ms to 24h. Default 1m.
    #[schemars(extend("default" = "1m"))]
    pub between_tokens: Option<HumanDuration>,
    /// From the request accepted to the end of the answer: 1ms to 24h. Default 30m.
    #[schemars(extend("default" = "30m"))]
    pub total: Option<HumanDuration>,
}

impl TimersSchema {
    /// See the field.
    pub const CONNECT: Bound<Duration> = ms(1, 5 * SECOND, 5 * MINUTE);
    /// See the field.
    pub const FIRST_TOKEN: Bound<Duration> = ms(1, 120 * SECOND, 24 * HOUR);
    /// See the field.
    pub const BETWEEN_TOKENS: Bound<Duration> = ms(1, 60 * SECOND, 24 * HOUR);
    /// See the field.
    pub const TOTAL: Bound<Duration> = ms(1, 30 * MINUTE, 24 * HOUR);
}

/// Bounds on what clients and providers may send.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Limits")]
pub struct LimitsSchema {
    /// Request line and headers together: 1KiB to 1MiB. Default 64KiB.
    #[schemars(extend("default" = "64KiB"))]
    pub head_bytes_max: Option<ByteSize>,
    /// Number of header fields: 8 to 1000. Default 100.
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
    /// Client connections per worker: 1 to 1000000. Default 20000.
    #[schemars(range(min = LimitsSchema::CONNECTIONS_MAX.min, max = LimitsSchema::CONNECTIONS_MAX.max), extend("default" = 20_000))]
    pub connections_max: Option<u32>,
}

impl LimitsSchema {
    /// See the field.
    pub const HEAD_BYTES_MAX: Bound<u64> = between(KIB, 64 * KIB, MIB);
    /// See the field.
    pub const HEADERS_MAX: Bound<u64> = between(8, 100, 1000);
    /// See the field.
    pub const TARGET_BYTES_MAX: Bound<u64> = between(64, 8 * KIB, 64 * KIB);
    /// See the field.
    pub const BODY_BYTES_MAX: Bound<u64> = between(KIB, 32 * MIB, GIB);
    /// See the field.
    pub const EVENT_BYTES_MAX: Bound<u64> = between(KIB, 256 * KIB, 64 * MIB);
    /// See the field.
    pub const STREAM_BYTES_MAX: Bound<u64> = between(4 * KIB, 64 * KIB, 16 * MIB);
    /// See the field.
    pub const CONNECTIONS_MAX: Bound<u64> = between(1, 20_000, 1_000_000);
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
    /// How long exchanges under way may go on after SIGTERM or SIGINT: 1ms to 1h. Default 30s.
    #[schemars(extend("default" = "30s"))]
    pub drain: Option<HumanDuration>,
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
    pub const HEAD: Bound<Duration> = ms(1, 10 * SECOND, 5 * MINUTE);
    /// See the field.
    pub const BODY: Bound<Duration> = ms(1, 30 * SECOND, HOUR);
    /// See the field.
    pub const WRITE: Bound<Duration> = ms(1, MINUTE, HOUR);
    /// See the field.
    pub const DRAIN: Bound<Duration> = ms(1, 30 * SECOND, HOUR);
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

/// Connections kept to one endpoint by one worker.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Pool")]
pub struct PoolSchema {
    /// Idle connections kept: 0 to 100000, and not above `connections_max`. Default 256, or `connections_max` if that
    /// is less.
    #[schemars(range(min = PoolSchema::IDLE_MAX.min, max = PoolSchema::IDLE_MAX.max), extend("default" = 256))]
    pub idle_max: Option<u32>,
    /// An idle connection is closed after this: 1ms to 1h. Default 1m.
    #[schemars(extend("default" = "1m"))]
    pub idle: Option<HumanDuration>,
    /// Connections open at once, idle or not; more requests get 503: 1 to 1000000. Default 10000.
    #[schemars(range(min = PoolSchema::CONNECTIONS_MAX.min, max = PoolSchema::CONNECTIONS_MAX.max), extend("default" = 10_000))]
    pub connections_max: Option<u32>,
}

impl PoolSchema {
    /// See the field.
    pub const IDLE_MAX: Bound<u64> = between(0, 256, 100_000);
    /// See the field.
    pub const IDLE: Bound<Duration> = ms(1, MINUTE, HOUR);
    /// See the field.
    pub const CONNECTIONS_MAX: Bound<u64> = between(1, 10_000, 1_000_000);
}

/// A duration: a number and a unit, `500ms`, `75s`, `30m`, `2h`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(inline)]
pub struct HumanDuration(#[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h)$|\$\{"))] pub String);

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
