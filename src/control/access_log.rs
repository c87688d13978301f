//! The access log: a line of JSON for every exchange, on a thread of its own.
//!
//! Lives on: its thread, and while files are compressed on one more. Workers put records into a bounded queue and never
//! wait; when the disk is slow or full the queue fills, and what does not fit is dropped, counted, and said.

mod aside;
mod file;
mod line;
#[cfg(test)]
pub(crate) mod tempfolder;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::base::clock::{Clock, Instant, UnixTime};
use crate::config::{AccessLog as Settings, LogTarget};
use crate::telemetry::{Exchange, Reader, Records, log};
use file::{LogFile, Trouble};
use line::Lines;
pub use line::{FIELDS, Names, show_time, write_string};

/// How long a record may wait in memory while there is traffic: what comes meanwhile is written together. Long enough for
/// wakings to cost nothing, and short enough for what has gathered, a kilobyte each, to be in the cache still.
const GATHER: Duration = Duration::from_millis(5);
/// How long a thread without anything to do sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);
/// After a failed write, when it is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How often it is said that a file cannot be set aside.
const SAY_ROTATION_EVERY: Duration = Duration::from_secs(600);
/// How long the last lines may take. A reader that does not read keeps no process from ending.
const LAST_LINES: Duration = Duration::from_secs(5);

/// The log's threads.
pub struct AccessLog {
    reopener: Reopener,
    ended: Receiver<()>,
    packer: Option<Packer>,
}

/// What the log's thread is told.
///
/// Lives on: the thread that tells and the log's own; two flags.
#[derive(Default)]
struct Orders {
    reopen: AtomicBool,
    stop: AtomicBool,
}

/// Who moves the file away has it opened anew by this, from any thread, at any time.
#[derive(Clone)]
pub struct Reopener {
    records: Arc<Records>,
    orders: Arc<Orders>,
}

impl Reopener {
    /// Has the file opened anew. Lines that were recorded before go to the one that is open now.
    pub fn reopen(&self) {
        self.orders.reopen.store(true, Ordering::Release);
        self.records.wake();
    }
}

impl AccessLog {
    /// See [`Reopener`].
    pub fn reopener(&self) -> Reopener {
        self.reopener.clone()
    }

    /// Returns when what was recorded up to now is on the disk, or after some seconds if it cannot be written.
    pub fn finish(self) {
        self.reopener.orders.stop.store(true, Ordering::Release);
        self.reopener.records.wake();
        // It has said what it could not write.
        if self.ended.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Timeout) {
            let lost = self.reopener.records.len() as u64 + self.reopener.records.dropped();
            log::error("access_log", "the access log does not take its last lines").with("lost", lost).say();
        }
        if let Some(packer) = self.packer {
            packer.finish();
        }
    }
}

/// Appends every record of `reader` to the log until it is finished.
///
/// # Errors
/// If the file cannot be opened for appending, or a thread cannot be made.
pub fn start(
    settings: &Settings,
    names: Names,
    records: Arc<Records>,
    reader: Reader<Exchange>,
    clock: Clock,
) -> io::Result<AccessLog> {
    let file = LogFile::open(settings.clone(), clock.unix())?;
    let packer = match &settings.target {
        LogTarget::File(path) if settings.compress => Some(Packer::start(path.clone(), clock.clone())?),
        _ => None,
    };
    let orders = Arc::new(Orders::default());
    let (end, ended) = sync_channel(1);
    let due = packer.as_ref().map(|packer| packer.due.clone());
    let mut writer = Writer {
        lines: Lines::default(),
        names,
        file,
        reader,
        orders: orders.clone(),
        clock,
        due,
        told: 0,
        failing: false,
        said_at: None,
    };
    std::thread::Builder::new().name("ringway-access".into()).spawn(move || {
        writer.run();
        // Nobody waits any more if it took too long.
        let _ = end.send(());
    })?;
    Ok(AccessLog { reopener: Reopener { records, orders }, ended, packer })
}

/// The thread that compresses what was set aside.
struct Packer {
    due: SyncSender<()>,
    go_on: SyncSender<()>,
    ended: Receiver<()>,
}

impl Packer {
    fn start(path: PathBuf, clock: Clock) -> io::Result<Packer> {
        let (due, is_due) = sync_channel(1);
        let (go_on, stop) = sync_channel(0);
        let (end, ended) = sync_channel(1);
        std::thread::Builder::new().name("ringway-gzip".into()).spawn(move || {
            // At once too: the process before may have left something.
            loop {
                match aside::compress_all(&path, &stop, &clock) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        let text = format!("a file of the access log cannot be compressed: {error}");
                        log::warn("access_log", text).say();
                    }
                }
                if is_due.recv().is_err() {
                    break;
                }
            }
            let _ = end.send(());
        })?;
        Ok(Packer { due, go_on, ended })
    }

    /// Ends it. What it has not finished is compressed after the next start.
    fn finish(self) {
        drop((self.due, self.go_on));
        let _ = self.ended.recv_timeout(aside::NOTICE);
    }
}

struct Writer {
    lines: Lines,
    names: Names,
    file: LogFile,
    reader: Reader<Exchange>,
    orders: Arc<Orders>,
    clock: Clock,
    /// Where the thread that compresses hears that there is something.
    due: Option<SyncSender<()>>,
    /// Files set aside that it was told of.
    told: u64,
    /// True after a write that failed, until one succeeds.
    failing: bool,
    /// When it was said that a file cannot be set aside.
    said_at: Option<Instant>,
}

impl Writer {
    fn run(&mut self) {
        loop {
            let stop = self.orders.stop.load(Ordering::Acquire);
            let now = self.clock.unix();
            self.obey(now);
            let took = self.drain(now);
            if stop {
                return self.end();
            }
            match () {
                () if self.failing => self.reader.pause(RETRY),
                () if took => self.reader.pause(GATHER),
                () => {
                    self.reader.sleep(self.file.due_in(now).unwrap_or(IDLE).min(IDLE));
                    // What woke it seldom comes alone.
                    if !self.has_orders() {
                        self.reader.pause(GATHER);
                    }
                }
            }
        }
    }

    fn has_orders(&self) -> bool {
        self.orders.stop.load(Ordering::Acquire) || self.orders.reopen.load(Ordering::Acquire)
    }

    /// Opens the file anew if that was asked for, or sets it aside if its time is over.
    fn obey(&mut self, now: UnixTime) {
        if self.orders.reopen.swap(false, Ordering::AcqRel)
            && let Err(error) = self.file.reopen(now)
        {
            let text = format!("the access log cannot be opened anew: {error}; lines go on to the file that is open");
            log::error("access_log", text).say();
        }
        if let Err(trouble) = self.file.rotate_if_due(now) {
            self.note(Err(trouble));
        }
    }

    /// Writes what waits; true if there was anything.
    fn drain(&mut self, now: UnixTime) -> bool {
        // First what the disk did not take before.
        let flushed = self.file.flush();
        self.note(flushed);
        let (mut took, mut line) = (false, Vec::with_capacity(1024));
        // Not for ever: a queue that fills as fast must not keep orders waiting.
        let mut left = self.reader.len();
        while !self.failing && left > 0 {
            let Some(record) = self.reader.take() else { break };
            (took, left) = (true, left - 1);
            line.clear();
            self.lines.write(&mut line, &record, &self.names);
            if let Err(trouble) = self.file.push(&line, now) {
                self.note(Err(trouble));
            }
        }
        if !self.failing {
            let flushed = self.file.flush();
            self.note(flushed);
        }
        if self.file.rotations > self.told
            && let Some(due) = &self.due
            && let Err(TrySendError::Disconnected(())) = due.try_send(())
        {
            self.due = None;
        }
        self.told = self.file.rotations;
        took
    }

    /// Said once, not for every line: a full disk must not fill the program's log as well.
    fn note(&mut self, outcome: Result<(), Trouble>) {
        match outcome {
            Err(Trouble::Write(error)) => {
                if !self.failing {
                    let text = format!("the access log cannot be written: {error}; it is tried again and again");
                    log::error("access_log", text).say();
                }
                self.failing = true;
            }
            Err(Trouble::Rotate(error)) => {
                let now = self.clock.now();
                if self.said_at.is_none_or(|at| now - at >= SAY_ROTATION_EVERY) {
                    let text = format!("a file of the access log cannot be set aside, or an old one removed: {error}");
                    log::error("access_log", text).say();
                    self.said_at = Some(now);
                }
            }
            Ok(()) if self.failing => {
                log::info("access_log", "the access log can be written again").say();
                self.failing = false;
            }
            Ok(()) => {}
        }
    }

    fn end(&mut self) {
        while !self.failing && !self.reader.is_empty() {
            self.drain(self.clock.unix());
        }
        let lost = (self.file.unwritten() + self.reader.len()) as u64 + self.reader.dropped();
        if lost > 0 {
            log::error("access_log", "records of the access log are lost").with("lost", lost).say();
        }
        if !self.failing
            && let Err(error) = self.file.sync()
        {
            log::error("access_log", format!("the access log may not be on the disk: {error}")).say();
        }
    }
}
