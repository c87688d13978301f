//! What happened: one record per exchange, for abnormal ends too. Memory only; the control plane writes it out.
//!
//! Lives on: every worker has a [`Recorder`]; the queue behind it is shared with the control plane, which drains it.

mod exchange;
pub mod log;
pub mod metrics;
mod queue;
pub mod trace;
mod websocket;

use std::sync::Arc;

pub use exchange::*;
use metrics::board::Board;
use metrics::cells::Meter;
pub use queue::*;
pub use websocket::*;

/// Records that wait to be written; when the writer lags more than this, records are dropped and counted.
const QUEUE_RECORDS: usize = 16 * 1024;

/// Said by whoever drops one: the writer may be waiting for its disk.
static DROPS: log::Limit = log::Limit::new();

/// Where records wait for the writer.
pub type Records = Queue<Exchange>;

/// Where records wait, and where they are taken.
pub fn records() -> (Arc<Records>, Reader<Exchange>) {
    queue(QUEUE_RECORDS)
}

/// One worker's recorder.
#[derive(Debug)]
pub struct Recorder {
    records: Option<Arc<Records>>,
    meter: Meter,
}

impl Recorder {
    /// A recorder that hands its records to `records`, where `None` keeps none, and counts on `board`.
    pub fn new(records: Option<Arc<Records>>, board: Arc<Board>) -> Recorder {
        Recorder { records, meter: Meter::new(board) }
    }

    /// Takes the record of a finished exchange. Never waits: a full queue drops it and counts that.
    pub fn record(&self, exchange: Exchange) {
        self.meter.finish(&exchange);
        if let Some(records) = &self.records
            && !records.push(exchange)
        {
            let text = "the access log is not written fast enough, and its records are dropped";
            DROPS.say(|| log::warn("access_log", text).with("dropped_so_far", records.dropped()));
        }
    }

    /// True if anyone wants to know of exchanges: then the time of each step is taken.
    pub fn is_on(&self) -> bool {
        self.records.is_some() || self.meter.is_on()
    }

    /// What exchanges are counted with.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// True if records are kept, strings and all.
    pub fn keeps_records(&self) -> bool {
        self.records.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{Instant, UnixTime};
    use crate::base::{Dialect, ListenerId};

    fn exchange() -> Exchange {
        let client = ([127, 0, 0, 1], 1).into();
        Exchange::begin(UnixTime(1), Instant(1), Dialect::OpenAi, ListenerId(0), client)
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (records, reader) = records();
        let recorder = Recorder::new(Some(records), Arc::new(Board::new(1, 1, 0)));
        for _ in 0..QUEUE_RECORDS {
            recorder.record(exchange());
        }
        assert_eq!(reader.dropped(), 0);
        recorder.record(exchange());
        assert_eq!(reader.dropped(), 1);
        assert_eq!(std::iter::from_fn(|| reader.take()).count(), QUEUE_RECORDS);
    }
}
