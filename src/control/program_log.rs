//! What the program says of itself, on standard error, by a thread that may wait for whoever reads it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::access_log::{show_time, write_string};
use crate::config::{Log, LogFormat, LogLevel};
use crate::telemetry::Reader;
use crate::telemetry::log::{self, Event, Level};

/// How long a thread without anything to do sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// For the journal of systemd: a priority before each, and no time, which it adds.
    Journal,
    /// For someone who looks on.
    Terminal,
    /// With time and level.
    Text,
    /// A JSON object each.
    Json,
}

/// The log's thread. Dropping it writes what was said up to now, which takes two seconds at most.
pub struct ProgramLog {
    stop: Arc<AtomicBool>,
    ended: Receiver<()>,
}

/// Has everything that is said written to standard error from now on, panics too. `None` if that is so already.
///
/// # Errors
/// If the thread cannot be made.
pub fn start(settings: Log) -> io::Result<Option<ProgramLog>> {
    let level = match settings.level {
        LogLevel::Error => Level::Error,
        LogLevel::Warn => Level::Warn,
        LogLevel::Info => Level::Info,
        LogLevel::Debug => Level::Debug,
    };
    let Some(reader) = log::open(level) else { return Ok(None) };
    let form = match settings.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
        LogFormat::Auto if is_journal() => Form::Journal,
        LogFormat::Auto if io::stderr().is_terminal() => Form::Terminal,
        LogFormat::Auto => Form::Text,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let (end, ended) = sync_channel(1);
    let stopped = stop.clone();
    std::thread::Builder::new().name("ringway-log".into()).spawn(move || {
        run(&reader, form, &stopped);
        // Nobody waits any more if it took too long.
        let _ = end.send(());
    })?;
    // The usual hook writes to standard error itself, on a worker's time.
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map_or("?".to_owned(), ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("a panic");
        log::error("panic", text).with("thread", thread.name().unwrap_or("?")).with("place", place).say();
    }));
    Ok(Some(ProgramLog { stop, ended }))
}

impl Drop for ProgramLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        log::wake();
        // Whoever does not read by now will not.
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

/// True if standard error goes to the journal: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let own = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    own.is_ok_and(|own| named == format!("{}:{}", own.dev(), own.ino()))
}

fn run(reader: &Reader<Event>, form: Form, stop: &AtomicBool) {
    let (mut lines, mut dropped) = (Vec::new(), 0);
    loop {
        let last = stop.load(Ordering::Acquire);
        while let Some(event) = reader.take() {
            write_line(&mut lines, form, &event);
        }
        if reader.dropped() > dropped {
            let count = reader.dropped() - dropped;
            dropped += count;
            let text = "messages were dropped, for nobody read them fast enough";
            write_line(&mut lines, form, &log::warn("log", text).with("count", count));
        }
        // A reader that is gone takes nothing from the gateway but its words.
        let _ = io::stderr().write_all(&lines);
        lines.clear();
        if last {
            return;
        }
        reader.sleep(IDLE);
    }
}

fn write_line(out: &mut Vec<u8>, form: Form, event: &Event) {
    // Writing to memory cannot fail.
    let _ = match form {
        Form::Journal => {
            let priority = match event.level {
                Level::Error => 3,
                Level::Warn => 4,
                Level::Info => 6,
                Level::Debug => 7,
            };
            writeln!(out, "<{priority}>ringway: {}", event.sentence())
        }
        Form::Terminal => writeln!(out, "ringway: {}", event.sentence()),
        Form::Text => {
            writeln!(out, "{} {:5} ringway: {}", show_time(event.at), event.level.as_str(), event.sentence())
        }
        Form::Json => {
            out.extend_from_slice(b"{\"time\":");
            write_string(out, &show_time(event.at));
            for (name, value) in [("level", event.level.as_str()), ("target", event.target), ("message", &event.text)]
                .into_iter()
                .chain(event.values.iter().map(|(name, value)| (*name, value.as_str())))
            {
                out.push(b',');
                write_string(out, name);
                out.push(b':');
                write_string(out, value);
            }
            out.write_all(b"}\n")
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::UnixTime;

    #[test]
    fn an_event_in_each_form() {
        let mut event = log::warn("upstream", "it \"failed\"\nbadly").with("endpoint", "p/0").with("count", 3);
        event.at = UnixTime(1_795_421_700_000_042);
        for (form, line) in [
            (Form::Journal, "<4>ringway: it \"failed\"\\nbadly endpoint=p/0 count=3\n"),
            (Form::Terminal, "ringway: it \"failed\"\\nbadly endpoint=p/0 count=3\n"),
            (Form::Text, "2026-11-23T08:15:00.000042Z warn  ringway: it \"failed\"\\nbadly endpoint=p/0 count=3\n"),
            (
                Form::Json,
                "{\"time\":\"2026-11-23T08:15:00.000042Z\",\"level\":\"warn\",\"target\":\"upstream\",\
                 \"message\":\"it \\\"failed\\\"\\nbadly\",\"endpoint\":\"p/0\",\"count\":\"3\"}\n",
            ),
        ] {
            let mut out = Vec::new();
            write_line(&mut out, form, &event);
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }
}
