//! Who answers, which models they serve, and when to give up on them.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

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
    /// What the provider is told of content codings. Default `identity`.
    #[schemars(extend("default" = "identity"))]
    pub accept_encoding: Option<AcceptEncodingSchema>,
    /// The header that carries the provider's key, for all its endpoints. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub auth: Option<AuthSchema>,
    /// PEM file of one more certificate authority to trust, for all its https endpoints.
    #[schemars(length(min = 1))]
    pub ca: Option<String>,
    /// What all its https endpoints are shown that ask who we are.
    pub client_certificate: Option<KeyPairSchema>,
    /// The HTTP proxy through which all its endpoints are reached, by CONNECT for https and http alike:
    /// `http://host:port` or `http://user:password@host:port`. `env` takes `https_proxy` or `HTTPS_PROXY` for https,
    /// `http_proxy` for http, and the exceptions in `no_proxy` or `NO_PROXY` (domains, addresses, networks such as
    /// `10.0.0.0/8`, each with `:port` or without, and `*`). `none` takes none. Default `none`.
    #[schemars(length(min = 1), extend("default" = "none"))]
    pub proxy: Option<String>,
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
    #[schemars(length(min = 1, max = crate::config::url::URL_BYTES_MAX))]
    pub url: String,
    /// The provider's key, put in for the client's, 1 to 4096 visible ASCII characters. Without it no credentials are
    /// sent.
    pub key: Option<EndpointKeySchema>,
    /// The header that carries the key. Default: the provider's.
    pub auth: Option<AuthSchema>,
    /// PEM file of one more certificate authority to trust here; https only. Default: the provider's.
    #[schemars(length(min = 1))]
    pub ca: Option<String>,
    /// What it is shown if it asks who we are; https only. Default: the provider's.
    pub client_certificate: Option<KeyPairSchema>,
    /// The HTTP proxy through which it is reached, or `none`. Default: the provider's.
    #[schemars(length(min = 1))]
    pub proxy: Option<String>,
    /// Whether it is spoken to in HTTP/2, many requests over one connection. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub http2: Option<EndpointHttp2Schema>,
}

/// Whether an endpoint is spoken to in HTTP/2.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "kebab-case", rename = "EndpointHttp2")]
pub enum EndpointHttp2Schema {
    /// Over TLS, if it agrees (ALPN).
    Auto,
    /// Never.
    Never,
    /// Always: it is known to speak it, in the clear too.
    PriorKnowledge,
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

/// What a provider is told of content codings.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "AcceptEncoding")]
pub enum AcceptEncodingSchema {
    /// That none is wanted: answers then cost neither side the coding, and an event passes as it is.
    Identity,
    /// Those of gzip, deflate, br and zstd that the client takes; none for a stream that usage is taken out of, since
    /// that would have to be decoded for the client.
    Pass,
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
