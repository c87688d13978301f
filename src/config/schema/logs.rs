//! What is written down: the access log, the program's own log, and whose trace an exchange belongs to.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

/// A line of JSON for every exchange, however it ends. Without this table none is kept. Written by a thread of its own: a
/// disk that is slow or full delays no request; what does not fit into memory meanwhile is dropped and counted.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "AccessLog")]
pub struct AccessLogSchema {
    /// File that lines are appended to; `stdout` or `stderr` for these. SIGHUP opens it anew.
    #[schemars(length(min = 1))]
    pub path: String,
    /// The file is set aside before it would grow beyond this: 0B to 1024GiB; 0 never. Default 0B.
    #[schemars(extend("default" = "0B"))]
    pub rotate_bytes: Option<ByteSize>,
    /// The file is set aside at each multiple of this since 1970 in UTC, `24h` at midnight: 0ms to 744h; 0 never.
    /// Default 0ms.
    #[schemars(extend("default" = "0ms"))]
    pub rotate_every: Option<HumanDuration>,
    /// Files that were set aside and are kept; older ones are removed: 1 to 10000. Default 10.
    #[schemars(range(min = AccessLogSchema::KEEP.min, max = AccessLogSchema::KEEP.max), extend("default" = 10))]
    pub keep: Option<u32>,
    /// Whether files set aside are compressed (gzip), slowly, by a thread of its own. Default false.
    #[schemars(extend("default" = false))]
    pub compress: Option<bool>,
}

impl AccessLogSchema {
    /// See the field.
    pub const ROTATE_BYTES: Bound<u64> = between(0, 0, 1024 * GIB);
    /// See the field.
    pub const ROTATE_EVERY: Bound<Duration> = ms(0, 0, 744 * HOUR);
    /// See the field.
    pub const KEEP: Bound<u64> = between(1, 10, 10_000);
}

/// What the program says of itself, on standard error.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Log")]
pub struct LogSchema {
    /// How it is written. Default `auto`.
    #[schemars(extend("default" = "auto"))]
    pub format: Option<LogFormatSchema>,
    /// The least important that is said. Default `info`.
    #[schemars(extend("default" = "info"))]
    pub level: Option<LogLevelSchema>,
}

/// How the program's log is written.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "LogFormat")]
pub enum LogFormatSchema {
    /// Text; where it goes to the journal of systemd, with its priorities and without times, which that adds.
    Auto,
    /// Text with times.
    Text,
    /// A JSON object a line.
    Json,
}

/// How important something is.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "LogLevel")]
pub enum LogLevelSchema {
    /// Something failed that should not have.
    Error,
    /// Something failed that can be lived with.
    Warn,
    /// What happens.
    Info,
    /// What happens, in more words.
    Debug,
}

/// W3C trace context. A valid `traceparent` of a client is gone on with: the provider is told the same trace, with the
/// exchange as the parent.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Trace")]
pub struct TraceSchema {
    /// What becomes of a request without one. Default `unsampled`.
    #[schemars(extend("default" = "unsampled"))]
    pub start: Option<TraceStartSchema>,
}

/// What becomes of a request without a valid `traceparent`.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "TraceStart")]
pub enum TraceStartSchema {
    /// A trace begins with it; that it is recorded is not claimed.
    Unsampled,
    /// A trace begins with it, and whoever sees it is asked to record it.
    Sampled,
    /// It belongs to none.
    Never,
}
