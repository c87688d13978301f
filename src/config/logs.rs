//! `[access_log]`, `[log]` and `[trace]`, compiled.

use std::path::PathBuf;
use std::time::Duration;

/// Where the access log goes, and when a file of it is set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// Where to.
    pub target: LogTarget,
    /// A file is set aside before it would grow beyond so many bytes.
    pub rotate_bytes: Option<u64>,
    /// A file is set aside at each multiple of this since 1970, UTC.
    pub rotate_every: Option<Duration>,
    /// Files set aside that are kept, 1 to 10000.
    pub keep: usize,
    /// Whether these are compressed.
    pub compress: bool,
}

/// Where an access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// To a file, at its end.
    File(PathBuf),
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
}

/// How the program's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// In what form.
    pub format: LogFormat,
    /// The least important that is said.
    pub level: LogLevel,
}

/// The form of the program's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text, for the journal of systemd if that reads it.
    Auto,
    /// Text with times.
    Text,
    /// A JSON object a line.
    Json,
}

/// How important something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed that should not have.
    Error,
    /// Something failed that can be lived with.
    Warn,
    /// What happens.
    Info,
    /// What happens, in more words.
    Debug,
}

/// What becomes of a request without a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceStart {
    /// A trace begins with it, unsampled.
    Unsampled,
    /// A trace begins with it, sampled.
    Sampled,
    /// It belongs to none.
    Never,
}
