//! A tunnel through an HTTP proxy (CONNECT, RFC 9110 §9.3.6): asked for on a fresh connection to the proxy, and from its
//! agreement on the connection is the endpoint's.

use std::fmt;
use std::io;

use super::ErrorKind;
use super::http1::INTERIM_MAX;
use crate::config::{Endpoint, Proxy};
use crate::net::dns::Missing;
use crate::net::stream::Stream;
use crate::wire::http1::{HeadLimits, HeadSpace, parse_response};

/// Bounds on what a proxy answers with; it has little to say.
const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 16 << 10, headers_max: 64, target_bytes_max: 0 };

/// How a proxy failed us. Holds nothing that it said, nor what it was told.
#[derive(Debug)]
pub enum Fault {
    /// Its name has no address.
    Unresolved(Missing),
    /// The connection to it failed.
    Io(io::Error),
    /// It closed the connection instead of an answer.
    Closed,
    /// It answered with this status.
    Refused(u16),
    /// What it sent is not HTTP, or breaks its rules.
    Malformed(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unresolved(missing) => write!(f, "the name of its proxy {missing}"),
            Fault::Io(error) => write!(f, "its proxy: {error}"),
            Fault::Closed => write!(f, "its proxy closed the connection"),
            Fault::Refused(407) => write!(f, "its proxy refused our credentials (status 407)"),
            Fault::Refused(status) => write!(f, "its proxy refused with status {status}"),
            Fault::Malformed(why) => write!(f, "its proxy: {why}"),
        }
    }
}

/// How one endpoint is asked for at its proxy.
pub struct Tunnel {
    /// The whole request; it holds the credentials.
    request: Vec<u8>,
}

impl Tunnel {
    /// The way to `endpoint` through `proxy`.
    pub fn new(endpoint: &Endpoint, proxy: &Proxy) -> Tunnel {
        let Endpoint { host, port, .. } = endpoint;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n").into_bytes();
        if let Some(authorization) = &proxy.authorization {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(authorization.expose().as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Tunnel { request }
    }

    /// Asks for the tunnel on a fresh connection to the proxy. Bounding the time is the caller's.
    ///
    /// # Errors
    /// [`ErrorKind::Proxy`].
    pub async fn open(&self, stream: &mut Stream) -> Result<(), ErrorKind> {
        self.ask(stream).await.map_err(ErrorKind::Proxy)
    }

    async fn ask(&self, stream: &mut Stream) -> Result<(), Fault> {
        stream.output.write(self.request.clone()).await.0.map_err(Fault::Io)?;
        let mut interim = 0;
        loop {
            let mut space = HeadSpace::new();
            // As in answer to HEAD: whatever the fields say, nothing that follows a 2xx is a body.
            match parse_response(stream.input.bytes(), &LIMITS, true, &mut space) {
                Ok(Some(head)) if head.is_interim && interim < INTERIM_MAX => {
                    let len = head.len;
                    stream.input.consume(len);
                    interim += 1;
                    continue;
                }
                Ok(Some(head)) if head.is_interim => return Err(Fault::Malformed("too many interim answers")),
                Ok(Some(head)) => {
                    let (status, len) = (head.status, head.len);
                    stream.input.consume(len);
                    return match status {
                        // No endpoint speaks first: neither HTTP nor TLS lets it.
                        200..300 if !stream.input.bytes().is_empty() => {
                            Err(Fault::Malformed("bytes behind its agreement"))
                        }
                        200..300 => Ok(()),
                        _ => Err(Fault::Refused(status)),
                    };
                }
                Ok(None) => {}
                Err(malformed) => return Err(Fault::Malformed(malformed.reason)),
            }
            if !stream.input.fill().await.map_err(Fault::Io)? {
                return Err(Fault::Closed);
            }
        }
    }
}
