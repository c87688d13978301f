//! WebSocket (RFC 6455): what a handshake says, and frames as they pass.
//!
//! A tunnel is no end of a WebSocket: it takes no message apart and unmasks nothing. What it has to know of the bytes that
//! pass is where frames begin, so that it can hold them to the rules and to a bound, count messages, and say its own last
//! word between two frames and never within one. That is a [`Follower`], one for each way.
//!
//! Extensions are neither offered nor taken over, so every frame is as RFC 6455 §5.2 has it.

mod frames;
mod handshake;

#[cfg(test)]
mod tests;

pub use frames::{Broken, CONTROL_BYTES_MAX, Follower, Passed, Role, write_close};
pub use handshake::{Handshake, Nonce, PROTOCOL_KEY};
