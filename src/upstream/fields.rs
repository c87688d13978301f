//! Which field lines pass through the gateway, in each direction. config/headers.md has the table with the reasons, and
//! `tests/headers.rs` drives each of its rows.

use crate::wire::http1::{Field, Known};

/// The field lines of a request that an endpoint is sent as they came. Everything else is ours to say, belongs
/// to one connection, is the client's secret, or says where the client is.
#[inline]
pub fn is_request_field_passed(field: &Field<'_>) -> bool {
    match field.known {
        Known::Host
        | Known::ContentLength
        | Known::Expect
        | Known::AcceptEncoding
        | Known::Authorization
        | Known::XApiKey
        | Known::ApiKey
        | Known::XGoogApiKey
        | Known::Cookie
        | Known::Forwarded
        | Known::Origin
        | Known::Traceparent
        | Known::Via
        | Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedProto
        | Known::XRequestId => false,
        known if known.is_hop_by_hop() => false,
        Known::Other => !is_request_field_withheld(field.name.as_bytes()),
        _ => true,
    }
}

/// The field lines of an answer that a client is sent as they came.
#[inline]
pub fn is_answer_field_passed(field: &Field<'_>) -> bool {
    match field.known {
        Known::ContentLength
        | Known::SetCookie
        | Known::AltSvc
        | Known::StrictTransportSecurity
        | Known::XRequestId => false,
        known if known.is_hop_by_hop() => false,
        Known::Other => !is_answer_field_withheld(field.name.as_bytes()),
        _ => true,
    }
}

/// Names of fields that speak of a body's encoded bytes, and are wrong once it is decoded.
pub fn is_of_encoded_bytes(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] =
        [b"content-encoding", b"content-md5", b"content-digest", b"repr-digest", b"digest", b"accept-ranges"];
    NAMES.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Ours, what proxies in front of us tell of the client, and what browsers tell of a page. Of what has a name of its own in
/// [`Known`] only the look-alike with underscores comes here.
fn is_request_field_withheld(name: &[u8]) -> bool {
    match name.first().map(|first| first | 0x20) {
        Some(b'x') => {
            begins(name, b"x-ringway-")
                || begins(name, b"x-forwarded-")
                || is(name, b"x-real-ip")
                || is(name, b"x-client-ip")
                || is(name, b"x-cluster-client-ip")
                || is(name, b"x-api-key")
        }
        Some(b'a') => begins(name, b"access-control-") || is(name, b"api-key"),
        Some(b'c') => is(name, b"cf-connecting-ip") || is(name, b"client-ip") || is(name, b"content-length"),
        Some(b'f') => is(name, b"fastly-client-ip"),
        Some(b'r') => is(name, b"referer"),
        Some(b's') => begins(name, b"sec-"),
        Some(b't') => is(name, b"true-client-ip") || is(name, b"transfer-encoding"),
        _ => false,
    }
}

/// Ours, of a handshake on one hop, orders to a proxy in front of us, and what browsers would take for the gateway's own policy.
fn is_answer_field_withheld(name: &[u8]) -> bool {
    match name.first().map(|first| first | 0x20) {
        Some(b'x') => begins(name, b"x-ringway-") || begins(name, b"x-accel-") || is(name, b"x-sendfile"),
        Some(b'a') => begins(name, b"access-control-"),
        Some(b'c') => is(name, b"clear-site-data") || is(name, b"content-length"),
        Some(b'n') => is(name, b"nel"),
        Some(b'r') => is(name, b"report-to") || is(name, b"reporting-endpoints"),
        Some(b's') => begins(name, b"sec-websocket-"),
        Some(b't') => is(name, b"transfer-encoding"),
        _ => false,
    }
}

fn begins(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| is(start, prefix))
}

/// True if the names are the same to a server that makes variables of them, as CGI does: in any case, and with underscores for
/// hyphens.
fn is(name: &[u8], other: &[u8]) -> bool {
    let is_same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
    name.len() == other.len() && name.iter().zip(other).all(is_same)
}
