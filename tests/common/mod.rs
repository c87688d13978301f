//! The harness of the whole-gateway tests: the built binary as a process, a config to start it with, and a raw client
//! that sees every byte, chunk and event as it arrives.
//!
//! Nothing here waits by the clock: processes say when they are ready, and every read has a deadline that fails the test.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod process;

pub use client::{Client, End, Event, Events, Framing, Head, Response};
pub use process::{Config, Gateway, Mock};

use std::time::Duration;

/// How long a test waits for something that should come at once. Generous: it is only ever used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);
