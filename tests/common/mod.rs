//! The harness of the whole-gateway tests: the built binary as a process, a config to start it with, and a raw client
//! that sees every byte, chunk and event as it arrives.
//!
//! Nothing here waits by the clock: processes say when they are ready, and every read has a deadline that fails the test.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod authority;
pub mod client;
pub mod coding;
pub mod dns;
pub mod http2;
pub mod https;
pub mod metrics;
pub mod origin;
pub mod pem;
pub mod process;
pub mod records;
pub mod websocket;

pub use authority::Authority;
pub use client::{Client, End, Event, Events, Framing, Head, Response};
pub use dns::{Dns, Says};
pub use https::Https;
pub use metrics::{metric, metric_is, until_at_rest};
pub use origin::{BlackHole, Ended, Origin, Peer};
pub use process::{Config, Gateway, Mock};
pub use records::Records;

use std::time::Duration;

/// How long a test waits for something that should come at once. Generous: it is only ever used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The headers of a JSON call that the gateway of [`Config::new`] lets in.
pub const JSON: [(&str, &str); 2] = [("authorization", "Bearer sk-test-client"), ("content-type", "application/json")];

/// A chat call for `model`.
pub fn chat(model: &str, stream: bool) -> Vec<u8> {
    serde_json::json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
        .to_string()
        .into_bytes()
}

/// Starts a streamed chat on a fresh connection to `address` and returns its head and what comes after.
pub fn stream_chat(address: std::net::SocketAddr, model: &str) -> (Head, Events) {
    let mut client = Client::connect(address);
    client.send_request("POST", "/v1/chat/completions", &JSON, &chat(model, true));
    let head = client.head();
    let events = client.events(&head);
    (head, events)
}

/// The text that a list of OpenAI chunks adds up to.
pub fn text_of(events: &[Event]) -> String {
    let chunks = events.iter().filter(|event| event.data.starts_with('{')).map(Event::json);
    chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}
