//! What HTTP/2 says in its own way (RFC 9113): heads as HTTP/1.1 heads, and frames as they pass.
//!
//! Everything behind the front door, and most providers, speak of a request as HTTP/1.1 does. So the head of an HTTP/2
//! request is *written as the HTTP/1.1 head that it would become*, and read by the one reader of requests
//! ([`http1`](super::http1)): there are not two ideas of what a request is. [`write_request`] refuses what the one
//! version can hold and the other would take for something else; the reader refuses the rest.
//!
//! Not here: compression, flow control and the states of streams, which are the library's; [`Sieve`] counts
//! frames beneath it, and holds back what it would take amiss.

mod census;
mod sieve;

use census::Census;
pub use sieve::{Fault, Sieve};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::http1::{
    Known, METHOD_BYTES_MAX, Malformed, is_token_byte, permitted_trailers, write_header, write_request_line,
};

/// What a connection in the clear begins with if its client knows that HTTP/2 is spoken (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The pseudo-header fields of a request (RFC 9113 §8.3.1), as they came.
#[derive(Debug, Clone, Copy)]
pub struct Pseudo<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:scheme`; not in a CONNECT.
    pub scheme: Option<&'a str>,
    /// `:authority`
    pub authority: Option<&'a str>,
    /// `:path`; not in a CONNECT, but for one that names a protocol.
    pub path: Option<&'a str>,
    /// `:protocol`: what a CONNECT asks for (RFC 8441 §4).
    pub protocol: Option<&'a str>,
}

/// Appends the head of a request as HTTP/1.1 has it, to the empty line. If `ends`, no body follows; else its length is
/// what the fields say, or it is said to come in chunks.
///
/// A CONNECT that asks for a WebSocket is written as the GET with an Upgrade that it stands for (RFC 8441 §5).
///
/// # Errors
/// 400 for what RFC 9113 calls malformed, and for all that would mean something else in HTTP/1.1; `out` is then in an
/// unknown state. What this passes may still be refused by the reader of HTTP/1.1.
pub fn write_request<'a>(
    out: &mut Vec<u8>,
    pseudo: &Pseudo<'a>,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ends: bool,
) -> Result<(), Malformed> {
    let opens = match pseudo.protocol {
        None => false,
        Some("websocket") if pseudo.method == "CONNECT" && !ends => true,
        Some("websocket") => {
            return Err(Malformed::bad("a WebSocket is asked for by a CONNECT that goes on (RFC 8441 §4)"));
        }
        Some(_) => {
            return Err(Malformed::new(501, "a :protocol other than websocket is not spoken here (RFC 8441 §4)"));
        }
    };
    let method = if opens { "GET" } else { pseudo.method };
    let target = match (method, pseudo.path) {
        ("CONNECT", None) => pseudo.authority.ok_or(Malformed::bad("CONNECT without :authority (RFC 9113 §8.5)"))?,
        (_, None) => return Err(Malformed::bad("no :path (RFC 9113 §8.3.1)")),
        // An absolute URI here would override the authority in HTTP/1.1.
        ("OPTIONS", Some("*")) => "*",
        (_, Some(path)) if path.starts_with('/') => path,
        _ => return Err(Malformed::bad(":path does not begin with a slash (RFC 9113 §8.3.1)")),
    };
    if pseudo.method.is_empty() || !pseudo.method.bytes().all(is_token_byte) {
        return Err(Malformed::bad(":method is not a token (RFC 9110 §9.1)"));
    }
    if pseudo.method.len() > METHOD_BYTES_MAX {
        return Err(Malformed::new(501, "the method is longer than any we know (RFC 9112 §3)"));
    }
    if pseudo.scheme.is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Malformed::bad(":scheme is neither http nor https (RFC 9110 §4.2)"));
    }
    write_request_line(out, method, "", target, None)
        .map_err(|_| Malformed::bad(":path holds a byte that no path may (RFC 3986 §3.3)"))?;
    let mut host = pseudo.authority;
    if let Some(authority) = pseudo.authority {
        check("host", authority.as_bytes())?;
        write(out, "host", authority.as_bytes())?;
    }
    let mut has_length = false;
    for (name, value) in fields {
        check(name, value)?;
        match Known::of(name.as_bytes()) {
            Known::Host => {
                let value = std::str::from_utf8(value).map_err(|_| HOST)?;
                // Equal ones are one (RFC 9113 §8.3.1); a lone one stands for the authority.
                match host.replace(value) {
                    None => write(out, name, value.as_bytes())?,
                    Some(known) if known.eq_ignore_ascii_case(value) => {}
                    Some(_) => return Err(HOST),
                }
                continue;
            }
            Known::ContentLength if opens => return Err(Malformed::bad("CONNECT with a length (RFC 9110 §9.3.6)")),
            Known::ContentLength => has_length = true,
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => {
                return Err(Malformed::bad("te is not \"trailers\" (RFC 9113 §8.2.2)"));
            }
            Known::Te => continue,
            known if is_of_a_connection(known) => return Err(OF_A_CONNECTION),
            // Without a meaning here, and ours below.
            _ if opens && name == "sec-websocket-key" => continue,
            _ => {}
        }
        write(out, name, value)?;
    }
    if opens {
        out.extend_from_slice(OPENS);
    } else if !ends && !has_length {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// What of a handshake HTTP/2 leaves out. Nobody looks at what answers this key.
const OPENS: &[u8] = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A head that the reader of HTTP/1.1 does not take for one whole head.
pub const NOT_ONE_HEAD: Malformed = Malformed::bad("the head is not that of one request (RFC 9113 §8.1)");
/// A body that is not as long as was announced.
pub const OTHER_LENGTH: Malformed = Malformed::bad("content-length is not what came as DATA (RFC 9113 §8.1.1)");

/// Appends the head of an answer as HTTP/1.1 has it, to the empty line; an interim one too. How the body ends is what the
/// fields say, or the stream's end.
///
/// # Errors
/// What RFC 9113 calls malformed; `out` is then in an unknown state.
pub fn write_response<'a>(
    out: &mut Vec<u8>,
    status: u16,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), Malformed> {
    if status == 101 {
        return Err(Malformed::bad("a switch of protocols, which HTTP/2 does not have (RFC 9113 §8.6)"));
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.extend_from_slice(b" \r\n");
    write_fields(out, fields)?;
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends fields as lines, each `name: value` and CRLF.
///
/// # Errors
/// What RFC 9113 calls malformed; `out` is then in an unknown state.
fn write_fields<'a>(out: &mut Vec<u8>, fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<(), Malformed> {
    for (name, value) in fields {
        check(name, value)?;
        if is_of_a_connection(Known::of(name.as_bytes())) {
            return Err(OF_A_CONNECTION);
        }
        write(out, name, value)?;
    }
    Ok(())
}

/// Trailers as lines, each `name: value` and CRLF, without those that must not be trailers (RFC 9110 §6.5.1).
///
/// # Errors
/// What RFC 9113 calls malformed.
pub fn read_trailers(trailers: &HeaderMap) -> Result<Vec<u8>, Malformed> {
    let mut lines = Vec::new();
    write_fields(&mut lines, trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))?;
    permitted_trailers(&lines)
}

/// True for a field that speaks of an HTTP/1.1 connection (RFC 9113 §8.2.2).
fn is_of_a_connection(known: Known) -> bool {
    use Known::*;
    matches!(known, Connection | KeepAlive | ProxyConnection | TransferEncoding | Upgrade)
}

const OF_A_CONNECTION: Malformed = Malformed::bad("a field of one HTTP/1.1 connection (RFC 9113 §8.2.2)");
const HOST: Malformed = Malformed::bad("host is not what :authority says (RFC 9113 §8.3.1)");

/// A name or value that HTTP/2 forbids (RFC 9113 §8.2.1).
fn check(name: &str, value: &[u8]) -> Result<(), Malformed> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Malformed::bad("a field name in upper case (RFC 9113 §8.2.1)"));
    }
    if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
        return Err(Malformed::bad("a field value with space around it (RFC 9113 §8.2.1)"));
    }
    Ok(())
}

fn write(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), Malformed> {
    write_header(out, name, value)
        .map_err(|_| Malformed::bad("a field name or value holds a byte that none may (RFC 9113 §8.2.1)"))
}

/// The fields of `lines`, each `name: value` and CRLF, as HTTP/2 sends them: names as they stand, values without the space
/// around them. Lines about an HTTP/1.1 connection are left out.
pub fn fields(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let known = Known::of(name);
        (!known.is_hop_by_hop()).then(|| (name, value[1..].trim_ascii()))
    })
}

/// As [`fields`], in the form in which the library takes them; what it cannot hold is left out. Ids of requests are marked as
/// not to be remembered (RFC 7541 §7.1.3): none comes twice, and each would push another field out of the table.
pub fn field_map(lines: &[u8]) -> HeaderMap {
    let shared = Bytes::copy_from_slice(lines);
    let mut map = HeaderMap::with_capacity(24);
    for (name, value) in fields(&shared) {
        let is_unique = name.ends_with(b"request-id");
        // Written by us, or taken from a head that was read.
        let Ok(name) = HeaderName::from_bytes(name) else { continue };
        let Ok(mut value) = HeaderValue::from_maybe_shared(shared.slice_ref(value)) else { continue };
        value.set_sensitive(is_unique);
        map.append(name, value);
    }
    map
}

#[cfg(test)]
mod tests;
