//! Which web pages may call from a browser.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

/// Entries of `cors.origins`.
pub const ORIGINS_MAX: usize = 256;
/// Length of one origin, in bytes.
pub const ORIGIN_BYTES_MAX: usize = 300;
/// Names in `cors.headers` or `cors.expose`.
pub const CORS_HEADERS_MAX: usize = 128;
/// Length of one such name, in bytes.
pub const CORS_HEADER_BYTES_MAX: usize = 64;

/// Which web pages may call from a browser (CORS). Without this table none may: browsers keep every answer from them.
/// It tells browsers what to do and keeps no one else out; for that there are `[[keys]]`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Cors")]
pub struct CorsSchema {
    /// The pages' origins, 1 to 256: `https://app.example`, `http://localhost:5173`, `https://*.example.com` (any
    /// subdomain, not example.com itself), `null` (files and sandboxed frames), or `*` for all. Scheme, host and port
    /// must match exactly.
    #[schemars(length(min = 1, max = ORIGINS_MAX))]
    pub origins: Vec<String>,
    /// Request headers that pages may set, 1 to 128 names. Default: whatever the browser asks for, up to 4 KiB of names.
    #[schemars(length(min = 1, max = CORS_HEADERS_MAX))]
    pub headers: Option<Vec<String>>,
    /// Answer headers that pages may read, 1 to 128 names, or `["*"]` for all without `credentials`. Default: request
    /// ids, `x-ringway-*`, `retry-after` and the rate limits of OpenAI and Anthropic.
    #[schemars(length(min = 1, max = CORS_HEADERS_MAX))]
    pub expose: Option<Vec<String>>,
    /// How long a browser may remember what it was allowed: 1s to 24h. Default 2h, the most that Chromium takes.
    #[schemars(extend("default" = "2h"))]
    pub max_age: Option<HumanDuration>,
    /// Whether pages may call with the browser's own credentials: client certificates, cookies of a proxy in front.
    /// API keys that the page itself sends need it not. Not together with the origin `*`. Default false.
    #[schemars(extend("default" = false))]
    pub credentials: Option<bool>,
    /// Whether public pages may call a gateway on a private network (Private Network Access). Default false.
    #[schemars(extend("default" = false))]
    pub private_network: Option<bool>,
}

impl CorsSchema {
    /// See the field.
    pub const MAX_AGE: Bound<Duration> = ms(SECOND, 2 * HOUR, 24 * HOUR);
}
