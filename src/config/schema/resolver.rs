//! How names become addresses.

use std::time::Duration;

use schemars::JsonSchema;

use super::*;

/// Entries of `resolver.servers`.
pub const SERVERS_MAX: usize = 8;

/// How the names of endpoints and proxies become addresses. A name that no longer resolves keeps its last addresses.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Resolver")]
pub struct ResolverSchema {
    /// `dns` asks name servers, after `/etc/hosts`, and asks again when an answer's time to live ends. `getaddrinfo`
    /// asks the C library, for what `/etc/nsswitch.conf` adds (mDNS, LDAP), every 30s, for it tells no time to live.
    /// Default `dns`.
    #[schemars(extend("default" = "dns"))]
    pub method: Option<MethodSchema>,
    /// Name servers to ask instead of those of `/etc/resolv.conf`, 1 to 8 of `address` or `address:port`; names are then
    /// taken as they are, without search domains. Not with `getaddrinfo`.
    #[schemars(length(min = 1, max = SERVERS_MAX))]
    pub servers: Option<Vec<String>>,
    /// How long the asking for one name may take, over all servers and repetitions: 10ms to 1m. Default 5s.
    #[schemars(extend("default" = "5s"))]
    pub timeout: Option<HumanDuration>,
    /// The least time after which a name is asked for again, whatever its time to live: 100ms to 1h. Default 5s.
    #[schemars(extend("default" = "5s"))]
    pub ttl_min: Option<HumanDuration>,
    /// The most time, and not below `ttl_min`: 100ms to 24h. Default 5m, or `ttl_min` if that is more.
    #[schemars(extend("default" = "5m"))]
    pub ttl_max: Option<HumanDuration>,
}

impl ResolverSchema {
    /// See the field.
    pub const TIMEOUT: Bound<Duration> = ms(10, 5 * SECOND, MINUTE);
    /// See the field.
    pub const TTL_MIN: Bound<Duration> = ms(100, 5 * SECOND, HOUR);
    /// See the field.
    pub const TTL_MAX: Bound<Duration> = ms(100, 5 * MINUTE, 24 * HOUR);
}

/// Who is asked for a name's addresses.
#[derive(Debug, Clone, JsonSchema)]
#[schemars(rename_all = "lowercase", rename = "Method")]
pub enum MethodSchema {
    /// Name servers.
    Dns,
    /// The C library.
    Getaddrinfo,
}
