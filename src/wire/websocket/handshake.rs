//! The handshake (RFC 6455 §4): what a client asks for, and whether a server has agreed to what we asked it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;

use crate::wire::http1::{
    Fields, Framing, Known, Malformed, RequestHead, ResponseHead, Version, is_token_byte, list_tokens,
};

/// A subprotocol that begins so ends in a key: browsers cannot set headers. It is taken for the client's key here, and
/// no provider is told of it.
pub const PROTOCOL_KEY: &[u8] = b"openai-insecure-api-key.";

/// Subprotocols beyond these are refused.
const PROTOCOLS_MAX: usize = 32;

/// What is appended to a key before it is hashed (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A well-formed handshake of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// What is to be answered as `Sec-WebSocket-Accept`.
    pub accept: [u8; 28],
    /// The subprotocols that a provider is offered, as a list; may be empty.
    pub protocols: Box<str>,
    /// The key that came among them.
    pub credential: Option<Box<[u8]>>,
}

impl Handshake {
    /// Reads the handshake of a request that has an `Upgrade`; `None` if it asks for no WebSocket.
    ///
    /// # Errors
    /// 426 for a version other than 13; 400 for all else that makes it none (RFC 6455 §4.2.1).
    pub fn read(head: &RequestHead<'_, '_>) -> Option<Result<Handshake, Malformed>> {
        // Of another method, and in HTTP/1.0, the field says nothing (RFC 9110 §7.8).
        let asks = head.method == "GET"
            && head.version == Version::Http11
            && has_token(&head.fields, Known::Upgrade, b"websocket");
        asks.then(|| read(head))
    }
}

fn read(head: &RequestHead<'_, '_>) -> Result<Handshake, Malformed> {
    let fields = &head.fields;
    if !has_token(fields, Known::Connection, b"upgrade") {
        return Err(Malformed::bad("Upgrade is not named in Connection (RFC 6455 §4.2.1)"));
    }
    if head.framing != Framing::None {
        return Err(Malformed::bad("a WebSocket handshake has no body (RFC 6455 §4.1)"));
    }
    if only(fields, b"sec-websocket-version") != Ok(Some(b"13")) {
        return Err(Malformed::new(426, "the WebSocket version spoken here is 13 (RFC 6455 §4.4)"));
    }
    let key = only(fields, b"sec-websocket-key").ok().flatten().filter(|key| is_key(key));
    let key = key.ok_or(Malformed::bad("Sec-WebSocket-Key is not 16 bytes in base64, once (RFC 6455 §4.1)"))?;
    let (mut protocols, mut credential) = (Vec::new(), None);
    let lines = fields.iter().filter(|field| field.name.eq_ignore_ascii_case("sec-websocket-protocol"));
    for protocol in lines.flat_map(|field| list_tokens(field.value)) {
        if !protocol.iter().copied().all(is_token_byte) || protocols.len() >= PROTOCOLS_MAX {
            return Err(Malformed::bad("Sec-WebSocket-Protocol is not a list of at most 32 tokens (RFC 6455 §4.1)"));
        }
        match protocol.get(..PROTOCOL_KEY.len()) {
            Some(begin) if begin.eq_ignore_ascii_case(PROTOCOL_KEY) => {
                let key = protocol.get(PROTOCOL_KEY.len()..).unwrap_or_default();
                if credential.replace(Box::from(key)).is_some() {
                    return Err(Malformed::bad("Sec-WebSocket-Protocol holds more than one key"));
                }
            }
            _ => protocols.push(std::str::from_utf8(protocol).unwrap_or_default()),
        }
    }
    Ok(Handshake { accept: accept(key), protocols: protocols.join(", ").into(), credential })
}

/// The key of a handshake of ours: made for one connection, of 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; 24]);

impl Nonce {
    /// The key of these bytes.
    pub fn new(random: [u8; 16]) -> Nonce {
        let mut key = [0; 24];
        BASE64.encode_mut(&random, &mut key);
        Nonce(key)
    }

    /// Appends what the head of our handshake says beside what every head does; `protocols` is a list, or empty.
    pub fn write_lines(&self, out: &mut Vec<u8>, protocols: &str) {
        out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n");
        out.extend_from_slice(b"sec-websocket-key: ");
        out.extend_from_slice(&self.0);
        out.extend_from_slice(b"\r\n");
        if !protocols.is_empty() {
            write_protocol(out, protocols);
        }
    }

    /// Whether a 101 agrees to a handshake with this key that offered `protocols`; the line with the one that was chosen, or
    /// nothing.
    ///
    /// # Errors
    /// What is wrong with it (RFC 6455 §4.2.2).
    pub fn check(&self, head: &ResponseHead<'_, '_>, protocols: &str) -> Result<Vec<u8>, &'static str> {
        let fields = &head.fields;
        if !has_token(fields, Known::Upgrade, b"websocket") || !has_token(fields, Known::Connection, b"upgrade") {
            return Err("it switched to something other than WebSocket");
        }
        if only(fields, b"sec-websocket-accept") != Ok(Some(&accept(&self.0))) {
            return Err("its Sec-WebSocket-Accept is not that of the key it was sent");
        }
        if fields.get_named(b"sec-websocket-extensions").is_some_and(|value| !value.is_empty()) {
            return Err("it chose a WebSocket extension, and none was offered");
        }
        let chosen = only(fields, b"sec-websocket-protocol").map_err(|()| "it chose more than one subprotocol")?;
        let mut line = Vec::new();
        if let Some(chosen) = chosen {
            let offered = list_tokens(protocols.as_bytes()).find(|offered| *offered == chosen);
            let offered = offered.and_then(|offered| std::str::from_utf8(offered).ok());
            write_protocol(&mut line, offered.ok_or("it chose a subprotocol that was not offered")?);
        }
        Ok(line)
    }
}

fn write_protocol(out: &mut Vec<u8>, protocols: &str) {
    out.extend_from_slice(b"sec-websocket-protocol: ");
    out.extend_from_slice(protocols.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What answers a key (RFC 6455 §4.2.2).
fn accept(key: &[u8]) -> [u8; 28] {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    let mut accept = [0; 28];
    if let Some(digest) = digest.as_ref().first_chunk::<20>() {
        BASE64.encode_mut(digest, &mut accept);
    }
    accept
}

/// 22 digits of base64 and two that fill up: 16 bytes.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key, [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(is_digit))
}

fn has_token(fields: &Fields<'_, '_>, known: Known, token: &[u8]) -> bool {
    let lines = fields.iter().filter(|field| field.known == known);
    lines.flat_map(|field| list_tokens(field.value)).any(|own| own.eq_ignore_ascii_case(token))
}

/// The value of the only line with this name, if there is one.
fn only<'b>(fields: &Fields<'_, 'b>, name: &[u8]) -> Result<Option<&'b [u8]>, ()> {
    let mut lines = fields.iter().filter(|field| field.name.as_bytes().eq_ignore_ascii_case(name));
    let first = lines.next().map(|field| field.value);
    if lines.next().is_some() { Err(()) } else { Ok(first) }
}
