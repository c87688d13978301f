//! Upgraded connections.

use std::time::Duration;

/// What a WebSocket is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// Bytes of one message, either way. Default 16 MiB.
    pub message_bytes_max: u64,
    /// One on which nothing comes from either side is closed after this. Default 10 min.
    pub idle: Duration,
    /// All are closed after this; zero for never. Default zero.
    pub total: Duration,
    /// Open at once, per worker. Default 10000.
    pub connections_max: u64,
}
