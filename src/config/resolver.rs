//! How names become addresses, compiled.

use core::net::SocketAddr;
use core::time::Duration;

/// How names become addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// Who is asked.
    pub method: Method,
    /// Name servers; empty for those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long the asking for one name may take in all. Default 5 s.
    pub timeout: Duration,
    /// A name is not asked for again sooner than this. Default 5 s.
    pub ttl_min: Duration,
    /// Nor later than this; never below `ttl_min`. Default 5 min.
    pub ttl_max: Duration,
}

/// Who is asked for a name's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Name servers, after `/etc/hosts`.
    Dns,
    /// The C library.
    Getaddrinfo,
}
