//! HTTP/1.1 heads and bodies as bytes: reads requests and responses, writes both, for the two sides of a proxy.
//!
//! It decides what a message is, by RFC 9110 and RFC 9112, and it decides once: what two readers could take
//! in two ways is refused with the rule that it breaks. It is not a connection: no sockets, no deadlines, no
//! order of messages. Heads borrow from the caller's buffer and nothing is allocated for them.
//!
//! Where the standard leaves a choice, this is ours:
//! - Lines end in CRLF; a bare LF or CR is refused, also where RFC 9112 §2.2 would let it pass.
//! - `Content-Length` comes once and is one number; equal repetitions are refused like unequal ones.
//! - `Transfer-Encoding` is one line that says `chunked`; never beside `Content-Length`, never in HTTP/1.0.
//! - `Host` is a name of letters, digits, `-._~`, or an address, and a port; never empty. The authority of an
//!   absolute-form target overrides it (RFC 9112 §3.2.2).
//! - A path holds no `.` or `..` segment, percent-encoded or not: its meaning would change under another base.

mod body;
mod encode;
mod fields;
mod known;
mod request;
mod response;
mod target;

#[cfg(test)]
mod tests;

use std::fmt;

pub use body::{Decoder, EXTENSION_BYTES_MAX, Piece, TRAILER_BYTES_MAX, permitted_trailers};
pub use encode::{
    Unwritable, begin_chunk, end_chunk, end_head, last_chunk, write_content_length, write_header, write_request_line,
    write_status_line,
};
pub(super) use fields::is_token_byte;
pub use fields::{Field, Fields, HeadSpace, MAX_HEADERS, list_tokens};
pub use known::Known;
pub use request::{METHOD_BYTES_MAX, RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use target::{Form, Target};

/// Bounds on a head. A head that passes one is refused at once, though its end has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Start line, fields and line ends together, in bytes.
    pub head_bytes_max: usize,
    /// Number of field lines; [`MAX_HEADERS`] bounds it further.
    pub headers_max: usize,
    /// The request target, in bytes.
    pub target_bytes_max: usize,
}

impl Default for HeadLimits {
    /// 64 KiB, 100 fields, a target of 8 KiB.
    fn default() -> HeadLimits {
        HeadLimits { head_bytes_max: 64 << 10, headers_max: 100, target_bytes_max: 8 << 10 }
    }
}

/// Says when a head that came in parts is worth parsing again, so that one sent a byte at a time does not cost
/// the square of its length. Make a new one for each head.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScan {
    scanned: usize,
    due: usize,
}

impl HeadScan {
    /// True if the end of a head may have come since the last call, or the bytes have doubled since they were
    /// last parsed. `buf` is all bytes since the head began; it has only grown.
    #[inline]
    pub fn is_due(&mut self, buf: &[u8]) -> bool {
        let from = self.scanned.saturating_sub(2);
        self.scanned = buf.len();
        let new = buf.get(from..).unwrap_or_default();
        let has_end =
            memchr::memchr_iter(b'\n', new).any(|at| matches!(new.get(..at), Some([.., b'\n', b'\r'] | [.., b'\n'])));
        let is_due = has_end || buf.len() >= self.due;
        if is_due {
            self.due = buf.len() * 2;
        }
        is_due
    }
}

/// The protocol version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of a message's body is known (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes; may be 0.
    Length(u64),
    /// Chunks, and then perhaps trailers.
    Chunked,
    /// All bytes until the peer closes; responses only.
    UntilClose,
}

/// Input that breaks a rule. The connection cannot be used further: where the next message begins is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The status to answer a client with: 400, 414, 417, 431, 501 or 505; 502 if a response was at fault.
    pub status: u16,
    /// The rule that was broken.
    pub reason: &'static str,
}

impl Malformed {
    pub(in crate::wire) const fn new(status: u16, reason: &'static str) -> Malformed {
        Malformed { status, reason }
    }

    pub(in crate::wire) const fn bad(reason: &'static str) -> Malformed {
        Malformed::new(400, reason)
    }

    /// The same fault in a response: whatever it was, to the client it is a bad gateway.
    const fn in_response(self) -> Malformed {
        Malformed::new(502, self.reason)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for Malformed {}
