//! What a record has of a WebSocket.

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketEnd {
    /// The client sent the first Close.
    ClientClosed,
    /// The provider did.
    UpstreamClosed,
    /// The client ended its connection without a Close.
    ClientGone,
    /// The provider did.
    UpstreamGone,
    /// The client's frames broke a rule or the bound on messages.
    ClientBroke,
    /// The provider's did.
    UpstreamBroke,
    /// The client did not take what it was sent.
    ClientStalled,
    /// The provider did not.
    UpstreamStalled,
    /// Nothing came from either side for too long.
    Idle,
    /// It had lasted as long as any may.
    Total,
    /// The gateway ended.
    Shutdown,
}

impl SocketEnd {
    /// Every way.
    pub const ALL: [SocketEnd; 11] = [
        SocketEnd::ClientClosed,
        SocketEnd::UpstreamClosed,
        SocketEnd::ClientGone,
        SocketEnd::UpstreamGone,
        SocketEnd::ClientBroke,
        SocketEnd::UpstreamBroke,
        SocketEnd::ClientStalled,
        SocketEnd::UpstreamStalled,
        SocketEnd::Idle,
        SocketEnd::Total,
        SocketEnd::Shutdown,
    ];

    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            SocketEnd::ClientClosed => "client_closed",
            SocketEnd::UpstreamClosed => "upstream_closed",
            SocketEnd::ClientGone => "client_gone",
            SocketEnd::UpstreamGone => "upstream_gone",
            SocketEnd::ClientBroke => "client_broke_rules",
            SocketEnd::UpstreamBroke => "upstream_broke_rules",
            SocketEnd::ClientStalled => "client_stalled",
            SocketEnd::UpstreamStalled => "upstream_stalled",
            SocketEnd::Idle => "idle",
            SocketEnd::Total => "total",
            SocketEnd::Shutdown => "shutdown",
        }
    }
}

/// What an upgraded connection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// How it ended.
    pub end: SocketEnd,
    /// Code of the first Close, ours or the one that was passed on; none if that had none, or there was none.
    pub close_code: Option<u16>,
    /// Messages from the client.
    pub messages_received: u64,
    /// Messages to the client.
    pub messages_sent: u64,
}
