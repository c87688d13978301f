//! What happened: one record per exchange, for abnormal ends too. Memory only; the control plane writes it out.
//!
//! Lives on: every worker has a [`Recorder`]; the queue behind it is shared with the control plane, which drains it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::base::clock::UnixTime;
use crate::base::{Dialect, EndpointId, KeyId};

/// Records that wait to be written; when the writer lags more than this, records are dropped and counted.
const QUEUE_RECORDS: usize = 16 * 1024;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The answer reached its own end.
    Complete,
    /// Refused before an upstream was asked.
    Refused,
    /// The client left before the end.
    ClientGone,
    /// The upstream could not be reached, or answered with an error.
    UpstreamError,
    /// The upstream's answer broke off, or broke the rules.
    Truncated,
    /// One of the four timers ran out.
    Timeout,
    /// Ringway failed.
    GatewayError,
}

impl State {
    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Refused => "refused",
            State::ClientGone => "client_gone",
            State::UpstreamError => "upstream_error",
            State::Truncated => "truncated",
            State::Timeout => "timeout",
            State::GatewayError => "gateway_error",
        }
    }
}

/// Tokens as the provider reported them; absent where it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the request.
    pub input: Option<u64>,
    /// Of the answer.
    pub output: Option<u64>,
    /// Part of the input that came from the provider's cache.
    pub cached_input: Option<u64>,
    /// Part of the input that the provider's cache was filled with.
    pub cache_creation_input: Option<u64>,
    /// Part of the output that was reasoning.
    pub reasoning_output: Option<u64>,
}

/// One request and its one answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When its head was complete.
    pub at: UnixTime,
    /// The id that every answer carries as `x-request-id`.
    pub request_id: String,
    /// The dialect of its path.
    pub dialect: Dialect,
    /// Who called; nobody on an open listener.
    pub key: Option<KeyId>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The endpoint that answered, or failed last.
    pub endpoint: Option<EndpointId>,
    /// Endpoints and connections tried.
    pub attempts: u32,
    /// True for an event stream.
    pub streamed: bool,
    /// The status that the client was sent; 0 if it left before.
    pub status: u16,
    /// How it ended.
    pub state: State,
    /// What the provider reported.
    pub tokens: Tokens,
    /// Events with content that were relayed, the finishing one included.
    pub content_events: u64,
    /// Body bytes of the request.
    pub request_bytes: u64,
    /// Body bytes of the upstream's answer that were relayed, without framing.
    pub answer_bytes: u64,
    /// From head complete to the first content in hand; for an unstreamed answer, to what can be sent of it.
    pub first_content: Option<Duration>,
    /// From head complete to the end.
    pub duration: Duration,
}

impl Exchange {
    /// The record of an exchange of which nothing is known yet. Its state is that of one that Ringway failed,
    /// which is what stays if it panics.
    pub fn begin(at: UnixTime, request_id: String, dialect: Dialect) -> Exchange {
        Exchange {
            at,
            request_id,
            dialect,
            key: None,
            model: None,
            endpoint: None,
            attempts: 0,
            streamed: false,
            status: 0,
            state: State::GatewayError,
            tokens: Tokens::default(),
            content_events: 0,
            request_bytes: 0,
            answer_bytes: 0,
            first_content: None,
            duration: Duration::ZERO,
        }
    }
}

/// Where records wait for the writer.
#[derive(Debug)]
pub struct Records {
    queue: ArrayQueue<Exchange>,
    dropped: AtomicU64,
}

impl Default for Records {
    fn default() -> Records {
        Records { queue: ArrayQueue::new(QUEUE_RECORDS), dropped: AtomicU64::new(0) }
    }
}

impl Records {
    /// The oldest record that was not yet taken.
    pub fn take(&self) -> Option<Exchange> {
        self.queue.pop()
    }

    /// How many records were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// One worker's recorder.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    records: Option<Arc<Records>>,
}

impl Recorder {
    /// A recorder that hands its records to `records`; `None` keeps none.
    pub fn new(records: Option<Arc<Records>>) -> Recorder {
        Recorder { records }
    }

    /// Takes the record of a finished exchange. Never waits: a full queue drops it and counts that.
    pub fn record(&self, exchange: Exchange) {
        if let Some(records) = &self.records
            && records.queue.push(exchange).is_err()
        {
            records.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True if records are kept.
    pub fn is_on(&self) -> bool {
        self.records.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        Exchange::begin(UnixTime(1), "r".into(), Dialect::OpenAi)
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let records = Arc::new(Records::default());
        let recorder = Recorder::new(Some(records.clone()));
        for _ in 0..QUEUE_RECORDS {
            recorder.record(exchange());
        }
        assert_eq!(records.dropped(), 0);
        recorder.record(exchange());
        assert_eq!(records.dropped(), 1);
        assert_eq!(std::iter::from_fn(|| records.take()).count(), QUEUE_RECORDS);
    }
}
