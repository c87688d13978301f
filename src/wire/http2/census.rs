//! Counts the frames that make work and carry nothing.
//!
//! The library acknowledges every PING and SETTINGS, and passes over empty, unknown and PRIORITY frames, without a
//! limit: each costs the peer a few bytes and us a look, or an answer. A bucket is therefore drained by one for each of
//! them and refilled with time. What carries something (HEADERS, DATA with content) is bounded elsewhere: by streams and
//! by flow control.

use std::fmt;
use std::time::Duration;

use crate::base::clock::Instant;

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

/// The bucket of one direction of a connection.
#[derive(Debug, Clone)]
pub struct Census {
    max: u32,
    left: u32,
    /// When the bucket was last refilled.
    filled: Option<Instant>,
}

impl Census {
    /// A full one, for `max` frames at once, and as many each ten seconds.
    pub fn new(max: u32) -> Census {
        Census { max, left: max, filled: None }
    }

    /// Counts one frame, of `len` bytes.
    ///
    /// # Errors
    /// [`Flood`], once the bucket is empty and it is another such frame.
    pub fn count(&mut self, kind: u8, flags: u8, len: usize, now: &impl Fn() -> Instant) -> Result<(), Flood> {
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
