//! Upgraded connections.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

/// WebSockets, which are passed on to providers that speak them (OpenAI's Realtime API).
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Websocket")]
pub struct WebSocketSchema {
    /// One message, either way; whoever sends a longer one is closed with 1009: 1KiB to 1GiB. It is not held: this bounds what
    /// the other side has to hold. Default 16MiB.
    #[schemars(extend("default" = "16MiB"))]
    pub message_bytes_max: Option<ByteSize>,
    /// One on which nothing comes from either side, pings included, is closed with 1001 after this: 1ms to 24h. Default 10m.
    #[schemars(extend("default" = "10m"))]
    pub idle: Option<HumanDuration>,
    /// Every one is closed with 1001 after this, whatever goes on: 0ms to 168h; 0ms never closes. Default 0ms.
    #[schemars(extend("default" = "0ms"))]
    pub total: Option<HumanDuration>,
    /// Open at once per worker, handshakes included; more get 503: 0 to 1000000. Default 10000.
    #[schemars(range(min = WebSocketSchema::CONNECTIONS_MAX.min, max = WebSocketSchema::CONNECTIONS_MAX.max), extend("default" = 10_000))]
    pub connections_max: Option<u32>,
}

impl WebSocketSchema {
    /// See the field.
    pub const MESSAGE_BYTES_MAX: Bound<u64> = between(KIB, 16 * MIB, GIB);
    /// See the field.
    pub const IDLE: Bound<Duration> = ms(1, 10 * MINUTE, 24 * HOUR);
    /// See the field.
    pub const TOTAL: Bound<Duration> = ms(0, 0, 168 * HOUR);
    /// See the field.
    pub const CONNECTIONS_MAX: Bound<u64> = between(0, 10_000, 1_000_000);
}
