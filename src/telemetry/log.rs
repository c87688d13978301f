//! What the program says of itself: events from any thread, handed to the one that writes them.
//!
//! Lives on: every thread may say something; one reads. The queue is the program's only global besides its allocator: a
//! panic, a name that does not resolve and a taken port have nothing in common that could carry it to them. Nobody waits
//! here: what does not fit is dropped and counted, and what could be said ten thousand times a second is said through a
//! [`Limit`]. Without a reader ([`open`] was not called: tests, `demo`) events go to standard error as they come.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Queue, Reader, queue};
use crate::base::clock::UnixTime;

/// Events that wait to be written.
const QUEUE_EVENTS: usize = 1024;
/// A text or a value longer than this is cut, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// How often one kind of event is said, at most, in how many seconds.
const LIMIT: (u32, u64) = (5, 10);

static LOG: OnceLock<(Arc<Queue<Event>>, Level)> = OnceLock::new();

/// How important an event is, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed that should not have.
    Error,
    /// Something failed that can be lived with.
    Warn,
    /// What happens.
    Info,
    /// What happens, in more words.
    Debug,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// Something that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: UnixTime,
    /// How important it is.
    pub level: Level,
    /// Which part of the program says it.
    pub target: &'static str,
    /// A sentence for the person on call; holds no secret.
    pub text: String,
    /// What it is about, by name.
    pub values: Vec<(&'static str, String)>,
}

/// Opens the log: what is at least as important as `level` comes out of the reader from now on. `None` if it is open.
pub fn open(level: Level) -> Option<Reader<Event>> {
    let (events, reader) = queue(QUEUE_EVENTS);
    LOG.set((events, level)).ok().map(|()| reader)
}

/// Ends the reader's sleep, so that it looks whether it should end.
pub fn wake() {
    if let Some((events, _)) = LOG.get() {
        events.wake();
    }
}

/// Something failed that should not have.
pub fn error(target: &'static str, text: impl Into<String>) -> Event {
    event(Level::Error, target, text.into())
}

/// Something failed that can be lived with.
pub fn warn(target: &'static str, text: impl Into<String>) -> Event {
    event(Level::Warn, target, text.into())
}

/// What happens.
pub fn info(target: &'static str, text: impl Into<String>) -> Event {
    event(Level::Info, target, text.into())
}

/// What happens, in more words.
pub fn debug(target: &'static str, text: impl Into<String>) -> Event {
    event(Level::Debug, target, text.into())
}

fn event(level: Level, target: &'static str, mut text: String) -> Event {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    Event { at: now(), level, target, text, values: Vec::new() }
}

fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

impl Event {
    /// Names something that it is about.
    pub fn with(mut self, name: &'static str, value: impl Display) -> Event {
        let mut value = value.to_string();
        value.truncate(value.floor_char_boundary(TEXT_BYTES_MAX));
        self.values.push((name, value));
        self
    }

    /// Says it.
    pub fn say(self) {
        match LOG.get() {
            Some((_, level)) if self.level > *level => {}
            // A full queue counts it, which is said when there is room again.
            Some((events, _)) => drop(events.push(self)),
            None => eprintln!("ringway: {}", self.sentence()),
        }
    }

    /// Its text and values on one line, whatever they hold.
    pub fn sentence(&self) -> String {
        let mut line = String::with_capacity(self.text.len() + 64);
        let escaped = |line: &mut String, text: &str| {
            for letter in text.chars() {
                match letter.is_control() {
                    true => line.extend(letter.escape_default()),
                    false => line.push(letter),
                }
            }
        };
        escaped(&mut line, &self.text);
        for (name, value) in &self.values {
            // Writing to a string cannot fail.
            let _ = write!(line, " {name}=");
            let is_plain = !value.is_empty() && !value.contains([' ', '"', '=']);
            let quote = if is_plain { "" } else { "\"" };
            line.push_str(quote);
            escaped(&mut line, &value.replace('"', "'"));
            line.push_str(quote);
        }
        line
    }
}

/// Lets five events of a kind through in ten seconds, and counts those that it keeps back.
///
/// Lives on: every thread that says this kind of thing; three words. Threads that come at once may slip one more through.
#[derive(Debug, Default)]
pub struct Limit {
    /// Which ten seconds the count is of.
    window: AtomicU64,
    said: AtomicU32,
    kept_back: AtomicU64,
}

impl Limit {
    /// Nothing said yet.
    pub const fn new() -> Limit {
        Limit { window: AtomicU64::new(0), said: AtomicU32::new(0), kept_back: AtomicU64::new(0) }
    }

    /// Says what `event` makes, or counts it. The next that is said has the count with it.
    pub fn say(&self, event: impl FnOnce() -> Event) {
        let Some(kept_back) = self.lets_through(now()) else { return };
        let event = event();
        match kept_back {
            0 => event.say(),
            more => event.with("more_like_it", more).say(),
        }
    }

    /// How many were kept back since the last one, if one more may be said.
    fn lets_through(&self, now: UnixTime) -> Option<u64> {
        let window = now.0 / 1_000_000 / LIMIT.1;
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.said.store(0, Ordering::Relaxed);
        }
        if self.said.load(Ordering::Relaxed) >= LIMIT.0 {
            self.kept_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.said.fetch_add(1, Ordering::Relaxed);
        Some(self.kept_back.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_events_and_a_count() {
        let limit = Limit::new();
        let at = |second: u64| UnixTime(second * 1_000_000);
        let through = (0..10_000).filter(|_| limit.lets_through(at(100)).is_some()).count();
        assert_eq!(through, 5);
        assert_eq!(limit.lets_through(at(109)), None);
        assert_eq!(limit.lets_through(at(110)), Some(9_996));
        assert_eq!(limit.lets_through(at(110)), Some(0));
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let event =
            warn("upstream", "a\nb\u{1b}[2J é").with("endpoint", "p/0").with("why", "x \"y\"\n").with("none", "");
        assert_eq!(event.sentence(), "a\\nb\\u{1b}[2J é endpoint=p/0 why=\"x 'y'\\n\" none=\"\"");
        let long = "é".repeat(TEXT_BYTES_MAX);
        let event = info("x", long.as_str()).with("long", &long);
        assert_eq!((event.text.len(), event.values[0].1.len()), (TEXT_BYTES_MAX, TEXT_BYTES_MAX));
        assert!(Level::Error < Level::Debug);
    }
}
