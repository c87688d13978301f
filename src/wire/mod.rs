//! What goes over the wire, read and written: frames, events, bodies and errors of the APIs we relay.
//!
//! Everything here is pure: bytes in, meaning or bytes out. No IO, no clock, no configuration; the caller owns
//! the buffers and bounds them. Input from a peer may be anything at all: it is understood, passed on as
//! [`chat::Kind::Other`], or refused as a [`Reject`], and never panics. What to do about it is decided elsewhere.
//!
//! * [`http1`] reads and writes heads and bodies; [`http2`] turns its own heads into those, and counts frames;
//! * [`request`] and [`multipart`] find the model in what a client sends, and patch it in place;
//! * [`sse`] cuts an event stream into frames; [`chat`] says what a frame means, whatever its dialect, and [`openai`]
//!   and [`anthropic`] know the shapes;
//! * [`answer`] reads an unstreamed answer along;
//! * [`coding`] takes content codings off a body;
//! * [`websocket`] reads handshakes, and follows frames.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]

pub mod answer;
pub mod anthropic;
pub mod chat;
pub mod coding;
pub mod http1;
pub mod http2;
mod json;
pub mod multipart;
pub mod openai;
pub mod request;
pub mod sse;
pub mod websocket;

use crate::base::Dialect;
use crate::base::reject::Reject;
use chat::{Api, Meaning};

/// What one event of a stream means. `event` is the frame's event name (empty if it has none), `data` its data.
pub fn read_event(dialect: Dialect, event: &[u8], data: &[u8]) -> Meaning {
    match dialect {
        Dialect::OpenAi => openai::read_event(event, data),
        Dialect::Anthropic => anthropic::read_event(event, data),
    }
}

/// The JSON body of an answer that says no, in the dialect's shape.
pub fn error_body(dialect: Dialect, reject: &Reject) -> Vec<u8> {
    match dialect {
        Dialect::OpenAi => openai::error_body(reject),
        Dialect::Anthropic => anthropic::error_body(reject, None),
    }
}

/// The event that ends a stream which failed after its first content; whole, with its blank line.
pub fn error_event(dialect: Dialect, api: Api, reject: &Reject) -> Vec<u8> {
    match dialect {
        Dialect::OpenAi => openai::error_event(api, reject),
        Dialect::Anthropic => anthropic::error_event(reject),
    }
}
