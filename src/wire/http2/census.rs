//! Counts the frames that make work and carry nothing.
//!
//! The library acknowledges every PING and SETTINGS, and passes over empty, unknown and PRIORITY frames, without a
//! limit: each costs the peer a few bytes and us a look, or an answer. A bucket is therefore drained by one for each of
//! them and refilled with time. What carries something (HEADERS, DATA with content) is bounded elsewhere: by streams and
//! by flow control.

use std::fmt;
use std::time::Duration;

use crate::base::clock::Instant;

const HEADER_BYTES: usize = 9;

/// A bucket that was emptied is full again after this.
const REFILL: Duration = Duration::from_secs(10);

/// A peer that has sent more frames to no purpose than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood;

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more frames came that carry nothing than are allowed (RFC 9113 §10.5)")
    }
}

impl std::error::Error for Flood {}

/// Follows one direction of a connection from frame to frame.
#[derive(Debug, Clone)]
pub struct Census {
    /// Bytes of a payload to pass over before the next header.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
    max: u32,
    left: u32,
    /// When the bucket was last refilled.
    filled: Option<Instant>,
    /// A GOAWAY has begun.
    leaving: bool,
    /// A header has come; and then the whole frame.
    begun: bool,
    settled: bool,
}

impl Census {
    /// Of frames from the first one on; `max` empty ones at once, and as many each ten seconds.
    pub fn new(max: u32) -> Census {
        Census {
            skip: 0,
            header: [0; HEADER_BYTES],
            have: 0,
            max,
            left: max,
            filled: None,
            leaving: false,
            begun: false,
            settled: false,
        }
    }

    /// Looks at the next bytes of the connection, cut anywhere.
    ///
    /// # Errors
    /// [`Flood`], once the bucket is empty and another such frame has begun. Nothing more can be seen then.
    pub fn see(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        loop {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            self.settled |= self.begun && self.skip == 0;
            if bytes.is_empty() {
                return Ok(());
            }
            let part = (HEADER_BYTES - self.have).min(bytes.len());
            self.header[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            self.have += part;
            bytes = &bytes[part..];
            if self.have == HEADER_BYTES {
                self.have = 0;
                self.frame(&now)?;
            }
        }
    }

    /// True once the first frame has come whole: a peer's settings (RFC 9113 §3.4).
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// True once the peer has said that it takes no more streams (RFC 9113 §6.8).
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// A whole header has come.
    fn frame(&mut self, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        const GOAWAY: u8 = 7;
        self.leaving |= kind == GOAWAY;
        self.begun = true;
        self.count(kind, flags, self.skip, now)
    }

    /// Counts one frame, of `len` bytes.
    pub(super) fn count(&mut self, kind: u8, flags: u8, len: usize, now: &impl Fn() -> Instant) -> Result<(), Flood> {
        const END_STREAM: u8 = 1;
        const ACK: u8 = 1;
        let counts = match kind {
            // DATA: nothing in it, and not the end either.
            0 => len == 0 && flags & END_STREAM == 0,
            // HEADERS, PUSH_PROMISE, WINDOW_UPDATE.
            1 | 5 | 8 => false,
            // SETTINGS, PING: an acknowledgement answers one of ours.
            4 | 6 => flags & ACK == 0,
            // CONTINUATION with something in it; the library counts those of one head.
            9 => len == 0,
            // GOAWAY.
            7 => false,
            // PRIORITY, RST_STREAM, and whatever else there may be.
            _ => true,
        };
        if counts { self.spend(now()) } else { Ok(()) }
    }

    fn spend(&mut self, now: Instant) -> Result<(), Flood> {
        let since = self.filled.map_or(Duration::ZERO, |filled| now - filled);
        let refilled = (since.as_nanos() * u128::from(self.max) / REFILL.as_nanos()).min(u128::from(self.max));
        if refilled > 0 || self.filled.is_none() {
            self.left = self.max.min(self.left.saturating_add(refilled as u32));
            self.filled = Some(now);
        }
        self.left = self.left.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }
}
