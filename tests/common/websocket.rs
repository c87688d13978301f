//! WebSockets byte by byte (RFC 6455), from either side. It shares no code with the gateway.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;

use super::origin::Request;
use super::{Client, Gateway, Head, JSON, Origin, Peer};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// The key that the test's clients send, and what answers it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What has a client's frames masked.
const MASK: [u8; 4] = [0x11, 0xa2, 0x33, 0xc4];

/// A frame: its first byte and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(pub u8, pub Vec<u8>);

impl Frame {
    /// The code and the reason of a Close.
    pub fn close(&self) -> (u16, String) {
        assert_eq!(self.0, CLOSE, "{self:?}");
        let (code, reason) = self.1.split_first_chunk().expect("a code");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("a reason in UTF-8"))
    }
}

/// A frame as a client sends it, or else a server.
pub fn frame(is_client: bool, first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = if is_client { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(masked | len as u8),
        len @ 126..65536 => {
            bytes.push(masked | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(masked | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    if is_client {
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        bytes.extend(payload);
    }
    bytes
}

/// Reads a frame that must be masked as a client's is, or not at all, by taking so many bytes at a time.
pub fn read(is_client: bool, mut take: impl FnMut(usize) -> Vec<u8>) -> Frame {
    let head = take(2);
    assert_eq!(head[1] & 0x80 != 0, is_client, "masked: {head:?}");
    let len = match head[1] & 0x7f {
        126 => usize::from(u16::from_be_bytes(take(2).try_into().expect("two bytes"))),
        127 => u64::from_be_bytes(take(8).try_into().expect("eight bytes")) as usize,
        len => usize::from(len),
    };
    let mask = if is_client { take(4) } else { vec![0; 4] };
    let payload = take(len);
    Frame(head[0], payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect())
}

/// What answers `key`.
pub fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref())
}

/// A handshake for `path`, with `more` lines.
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{more}\r\n",
        JSON[0].1
    )
}

/// A 101 to the handshake `request`, with `more` lines.
pub fn switched(request: &Request, more: &str) -> String {
    let accept = accept(request.get("sec-websocket-key").expect("a key"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
         {more}\r\n"
    )
}

/// A WebSocket for `path` through the gateway, from both ends.
pub fn open(gateway: &Gateway, origin: &Origin, path: &str) -> (Client, Peer) {
    let mut client = gateway.connect();
    client.send(handshake(path, "").as_bytes());
    let mut peer = origin.accept();
    let request = peer.head();
    peer.send(switched(&request, ""));
    let head: Head = client.head();
    assert_eq!(head.status, 101, "{head:?}");
    (client, peer)
}

/// What the client says next.
pub fn from_client(peer: &mut Peer) -> Frame {
    read(true, |count| peer.take(count))
}

/// What the provider, or the gateway, says next.
pub fn from_server(client: &mut Client) -> Frame {
    read(false, |count| client.take(count))
}
