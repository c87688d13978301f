//! Messages that were made of the corpora of `tests/differential` and `tests/fuzz` by chance, through the gateway: it refuses
//! each, or whoever reads what it sends on takes it for what the gateway does. [`sent`] and [`downgraded`] are requests, which
//! five origins judge; [`responses`] are answers, which two clients judge.
//!
//! `tests/desync/run INPUTS [SEED]` tries many; README.md beside it says how, and what was found.

#[path = "../common/mod.rs"]
mod common;
mod compose;
mod dice;
mod downgrade;
mod downgraded;
#[path = "../differential/early.rs"]
#[expect(dead_code, reason = "of the tables of others only the messages are needed")]
mod early;
mod http2;
mod lenient;
mod mutate;
mod origins;
mod reader;
mod recorder;
#[path = "../differential/requests.rs"]
#[expect(dead_code, reason = "as above")]
mod requests;
mod responses;
#[path = "../differential/responses.rs"]
#[expect(dead_code, reason = "as above")]
mod responses_seeds;
mod sent;
mod stock;
mod trial;
mod view;

use std::time::Duration;

/// An exchange takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn mutated_requests_are_refused_or_understood_alike_by_five_origins() {
    trial::run("requests over HTTP/1.1", |trial| Box::pin(sent::run(trial)));
}

#[test]
fn mutated_messages_of_http2_are_refused_or_understood_alike_by_five_origins() {
    trial::run("requests over HTTP/2", |trial| Box::pin(downgraded::run(trial)));
}

#[test]
fn mutated_answers_reach_their_client_as_they_were_or_not_at_all() {
    trial::run("answers", |trial| Box::pin(responses::run(trial)));
}
