//! Sockets under both sides: streams that are safe to cancel, buffers, deadlines, names and the runtime's face.
//!
//! Everything here lives on one worker and is `!Send`. It knows bytes and time, and no domain word.

pub mod alarm;
pub mod buf;
pub mod dns;
pub mod duplex;
pub mod heap;
pub mod moderator;
pub mod passage;
pub mod rt;
pub mod shortage;
pub mod socket;
pub mod stream;
pub mod timer;
pub mod tls;
