//! The usage records as JSON lines in a file, written by a thread of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use crate::config::Config;
use crate::telemetry::{Exchange, Records, Word};

/// How long a record may wait in memory.
const EVERY: Duration = Duration::from_millis(20);

/// One line of the log.
#[derive(Serialize)]
struct Line<'a> {
    /// Microseconds since 1970.
    at_us: u64,
    request_id: &'a str,
    dialect: &'static str,
    key: Option<&'a str>,
    model: Option<&'a str>,
    endpoint: Option<&'a str>,
    attempts: u32,
    streamed: bool,
    unread: bool,
    status: u16,
    state: &'static str,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cached_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    reasoning_output_tokens: Option<u64>,
    content_events: u64,
    request_bytes: u64,
    answer_bytes: u64,
    first_content_us: Option<u64>,
    duration_us: u64,
}

impl<'a> Line<'a> {
    fn new(exchange: &'a Exchange, config: &'a Config) -> Line<'a> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Line {
            at_us: exchange.at.0,
            request_id: exchange.words.get(Word::RequestId),
            dialect: exchange.dialect.as_str(),
            key: exchange.key.and_then(|key| config.keys.get(usize::from(key.0))).map(|key| key.name.as_str()),
            model: Some(exchange.words.get(Word::Model)).filter(|model| !model.is_empty()),
            endpoint: exchange
                .endpoint
                .and_then(|endpoint| config.endpoints.get(usize::from(endpoint.0)))
                .map(|endpoint| endpoint.name.as_str()),
            attempts: exchange.attempts,
            streamed: exchange.streamed,
            unread: exchange.unread,
            status: exchange.status,
            state: exchange.state.as_str(),
            input_tokens: exchange.tokens.input,
            output_tokens: exchange.tokens.output,
            cached_input_tokens: exchange.tokens.cached_input,
            cache_creation_input_tokens: exchange.tokens.cache_creation_input,
            reasoning_output_tokens: exchange.tokens.reasoning_output,
            content_events: exchange.content_events,
            request_bytes: exchange.request_bytes,
            answer_bytes: exchange.answer_bytes,
            first_content_us: exchange.timings.to(exchange.timings.content).map(micros),
            duration_us: micros(exchange.timings.duration()),
        }
    }
}

/// The log's thread.
pub struct UsageLog {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl UsageLog {
    /// Writes what has come up to now, and ends.
    pub fn finish(self) {
        drop(self.stop);
        // It has said on stderr what it could not write.
        let _ = self.thread.join();
    }
}

/// Appends every record to the file at `path` until it is finished.
///
/// # Errors
/// If the file cannot be opened for appending, or the thread cannot be made.
pub fn start(path: &Path, config: Arc<Config>, records: Arc<Records>) -> io::Result<UsageLog> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let (stop, stopped) = mpsc::sync_channel(0);
    let thread = std::thread::Builder::new().name("ringway-usage".into()).spawn(move || {
        let mut writer = Writer { out: BufWriter::new(file), failing: false, dropped: 0 };
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            writer.drain(&records, &config);
        }
        writer.drain(&records, &config);
    })?;
    Ok(UsageLog { stop, thread })
}

struct Writer {
    out: BufWriter<File>,
    failing: bool,
    dropped: u64,
}

impl Writer {
    fn drain(&mut self, records: &Records, config: &Config) {
        let mut written = Ok(());
        while let Some(exchange) = records.take() {
            written = written.and(self.write(&exchange, config));
        }
        let written = written.and(self.out.flush());
        // Said once, not for every line: a full disk must not fill the program's log as well.
        if let Err(error) = &written
            && !self.failing
        {
            eprintln!("ringway: the usage log cannot be written: {error}; records are lost until it can be");
        }
        self.failing = written.is_err();
        let dropped = records.dropped();
        if dropped > self.dropped {
            eprintln!("ringway: {} usage records were dropped, for the log lags behind", dropped - self.dropped);
            self.dropped = dropped;
        }
    }

    fn write(&mut self, exchange: &Exchange, config: &Config) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Line::new(exchange, config))?;
        self.out.write_all(b"\n")
    }
}
