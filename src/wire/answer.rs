//! Reads an unstreamed JSON answer along while it passes: its `usage`, its `error`, and whether it came whole.
//!
//! A scanner of structure, not a validator: it follows strings and nesting and keeps two bounded values of the top
//! level. The body may be of any size and cut anywhere; it is neither held nor changed.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;
use serde_json::value::RawValue;

use super::chat::{UpstreamFault, Usage, is_fault};
use super::{anthropic, openai};
use crate::base::Dialect;

/// A `usage` or `error` that is longer is skipped.
const VALUE_BYTES_MAX: usize = 8 * 1024;

/// A string is first looked for its end within so many bytes.
const NEAR_BYTES: usize = 32;

/// What an answer said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The usage it reports.
    pub usage: Option<Usage>,
    /// The failure it reports; none if it holds an answer as well.
    pub error: Option<UpstreamFault>,
    /// True if the body was exactly one JSON value: its nesting closed and nothing but white space around it.
    pub well_formed: bool,
}

impl Answer {
    /// Reads a body that is held whole.
    pub fn read(dialect: Dialect, body: &[u8]) -> Answer {
        let mut scan = AnswerScan::new(dialect);
        scan.push(body);
        scan.finish()
    }

    /// The failure that a body reports which is held whole; as [`Answer::read`] has it, but for nearly all it takes a glance.
    pub fn read_error(dialect: Dialect, body: &[u8]) -> Option<UpstreamFault> {
        static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
        // Where there is no such name there can be no such field.
        NAME.find(body)?;
        Answer::read(dialect, body).error
    }
}

/// Reads a body piece by piece. Memory is constant: at most 8 KiB for each of the two values, none before they come.
#[derive(Debug, Clone)]
pub struct AnswerScan {
    dialect: Dialect,
    /// False if nobody wants to know the usage.
    reads_usage: bool,
    phase: Phase,
    /// Objects and arrays that are open.
    depth: u64,
    /// The top-level value is an object, so that it has fields.
    object: bool,
    string: Text,
    /// At the top level, where a key stands next.
    key_next: bool,
    key: Key,
    /// The field of the top level whose value is being read.
    field: Field,
    usage: Value,
    error: Value,
    id: Start,
    status: Start,
    /// Of the value of a field that holds an answer.
    start: Start,
    answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    Inside,
    /// In a top-level number or word.
    Word,
    After,
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Usage,
    Error,
    /// One of those that hold the answer itself.
    Answer,
    Id,
    Status,
    Other,
}

/// The key under way, as far as it can be one that we know.
#[derive(Debug, Clone, Copy, Default)]
struct Key {
    bytes: [u8; 8],
    len: usize,
}

impl Key {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().take(self.bytes.len() + 1) {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
            }
            self.len += 1;
        }
    }

    fn field(&self) -> Field {
        match self.bytes.get(..self.len) {
            Some(b"usage") => Field::Usage,
            Some(b"error") => Field::Error,
            Some(b"id") => Field::Id,
            Some(b"status") => Field::Status,
            Some(b"choices" | b"output" | b"content" | b"data") => Field::Answer,
            _ => Field::Other,
        }
    }
}

/// The raw bytes of a value, up to a bound.
#[derive(Debug, Clone, Default)]
struct Value {
    bytes: Vec<u8>,
    too_long: bool,
    /// Its end was seen.
    whole: bool,
}

impl Value {
    fn add(&mut self, bytes: &[u8], bytes_max: usize) {
        if self.bytes.len() + bytes.len() <= bytes_max && !self.too_long {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.too_long = true;
        }
    }

    fn json(&self) -> Option<&str> {
        (self.whole && !self.too_long).then(|| std::str::from_utf8(&self.bytes).ok())?.map(str::trim)
    }
}

/// The first bytes of a value, white space left out: enough to tell null and the empty ones from all others, and a word.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    bytes: [u8; 8],
    len: usize,
}

impl Start {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            let Some(place) = self.bytes.get_mut(self.len) else {
                // There is more of it than there is room.
                self.len = self.bytes.len() + 1;
                return;
            };
            *place = byte;
            self.len += 1;
        }
    }

    /// True if it is something: not null, not empty.
    fn holds(&self) -> bool {
        !matches!(self.bytes.get(..self.len), Some(b"" | b"null" | b"[]" | b"{}" | b"\"\""))
    }

    fn is(&self, word: &[u8]) -> bool {
        self.bytes.get(..self.len) == Some(word)
    }
}

impl AnswerScan {
    /// A scan at the start of a body.
    pub fn new(dialect: Dialect) -> AnswerScan {
        AnswerScan {
            dialect,
            reads_usage: true,
            phase: Phase::Before,
            depth: 0,
            object: false,
            string: Text::Outside,
            key_next: false,
            key: Key::default(),
            field: Field::Other,
            usage: Value::default(),
            error: Value::default(),
            id: Start::default(),
            status: Start::default(),
            start: Start::default(),
            answered: false,
        }
    }

    /// With `reads_usage` false the usage is passed over, which is a good part of the work.
    pub fn with_usage(self, reads_usage: bool) -> AnswerScan {
        AnswerScan { reads_usage, ..self }
    }

    /// Reads the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut at = 0;
        // Where the bytes of a kept value start that are not yet added to it.
        let mut kept = 0;
        while at < bytes.len() && self.phase != Phase::Broken {
            if self.string != Text::Outside {
                at = self.text(bytes, at);
                continue;
            }
            if self.phase == Phase::Inside && self.depth > 1 {
                at = self.deep(bytes, at);
                continue;
            }
            let byte = bytes[at];
            at += 1;
            match byte {
                b'"' => {
                    self.begin_text();
                    if self.key_next {
                        self.key = Key::default();
                    }
                }
                b'{' | b'[' => self.open(byte),
                b'}' | b']' => {
                    if self.depth == 1 {
                        self.end_field(&bytes[kept..at - 1]);
                    }
                    self.close();
                }
                b':' if self.depth == 1 && self.key_next => {
                    self.begin_field();
                    kept = at;
                }
                b',' if self.depth == 1 => {
                    self.end_field(&bytes[kept..at - 1]);
                    self.key_next = self.object;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {
                    if self.phase == Phase::Word {
                        self.phase = Phase::After;
                    }
                }
                // The inside of numbers and words, and what has no business here.
                _ if self.phase == Phase::Inside => {}
                _ => self.outside(byte),
            }
        }
        if self.phase == Phase::Inside {
            self.keep(&bytes[kept..]);
        }
    }

    /// Goes on below the top level, where only strings and nesting count, up to a string that does not end here or back
    /// to the top. Nearly all of an answer is read here.
    fn deep(&mut self, bytes: &[u8], mut at: usize) -> usize {
        let mut depth = self.depth;
        while depth > 1 {
            at = skip_to(bytes, at, usize::MAX, |eight| {
                let small = eight | every(0x20);
                zeros(eight ^ every(b'"')) | zeros(small ^ every(b'{')) | zeros(small ^ every(b'}'))
            });
            let Some(&byte) = bytes.get(at) else { break };
            at += 1;
            match byte {
                b'"' => {
                    // Most strings are short keys and words, for which a call would be dear.
                    at = skip_to(bytes, at, NEAR_BYTES, |eight| {
                        zeros(eight ^ every(b'"')) | zeros(eight ^ every(b'\\'))
                    });
                    if bytes.get(at) != Some(&b'"') {
                        self.string = Text::Inside;
                        break;
                    }
                    at += 1;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
        }
        self.depth = depth;
        at
    }

    /// The end of the body, as far as it has come.
    pub fn finish(&mut self) -> Answer {
        if self.field == Field::Answer {
            self.answered |= self.start.holds();
        }
        // A response that failed is an answer of its own that can be asked for again by its id.
        self.answered |= self.id.holds() && self.status.is(b"\"failed\"");
        let usage = self.usage.json().and_then(Usage::read);
        let error = self.error.json().filter(|_| !self.answered).and_then(|json| {
            let raw = serde_json::from_str::<&RawValue>(json).ok()?;
            let overloaded = match self.dialect {
                Dialect::OpenAi => openai::OVERLOADED,
                Dialect::Anthropic => anthropic::OVERLOADED,
            };
            is_fault(Some(raw)).then(|| UpstreamFault::read(raw.get(), overloaded))
        });
        Answer { usage, error, well_formed: matches!(self.phase, Phase::After | Phase::Word) }
    }

    fn begin_text(&mut self) {
        match self.phase {
            Phase::Inside | Phase::Before => self.string = Text::Inside,
            _ => self.phase = Phase::Broken,
        }
    }

    /// Goes on in a string from `at`; returns where to go on from there.
    fn text(&mut self, bytes: &[u8], at: usize) -> usize {
        if self.string == Text::Escaped {
            // A key with an escape is none that we know.
            self.key.len = self.key.bytes.len() + 1;
            self.string = Text::Inside;
            return at + 1;
        }
        let end = memchr2(b'"', b'\\', &bytes[at..]).map_or(bytes.len(), |found| at + found);
        if self.key_next {
            self.key.add(&bytes[at..end]);
        }
        match bytes.get(end) {
            Some(b'"') => {
                self.string = Text::Outside;
                if self.phase == Phase::Before {
                    self.phase = Phase::After;
                }
                end + 1
            }
            Some(_) => {
                self.string = Text::Escaped;
                end + 1
            }
            None => end,
        }
    }

    fn open(&mut self, bracket: u8) {
        match self.phase {
            Phase::Before => {
                self.phase = Phase::Inside;
                self.object = bracket == b'{';
                self.key_next = self.object;
            }
            // Where a key belongs this is no JSON, and what stands below is not to be taken for a key.
            Phase::Inside => self.key_next = false,
            _ => self.phase = Phase::Broken,
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        if self.phase != Phase::Inside {
            self.phase = Phase::Broken;
            return;
        }
        self.depth -= 1;
        if self.depth == 0 {
            self.phase = Phase::After;
        }
    }

    /// A byte of a number or word that stands at the top, or what does not belong there.
    fn outside(&mut self, byte: u8) {
        let word = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        self.phase = match self.phase {
            Phase::Before | Phase::Word if word => Phase::Word,
            _ => Phase::Broken,
        };
    }

    fn begin_field(&mut self) {
        self.key_next = false;
        self.field = self.key.field();
        // Of a field that is there twice, the last one counts.
        if let Some(value) = self.value() {
            *value = Value::default();
        } else if let Some(start) = self.start() {
            *start = Start::default();
        }
    }

    fn end_field(&mut self, rest: &[u8]) {
        self.keep(rest);
        if let Some(value) = self.value() {
            value.whole = true;
        }
        if self.field == Field::Answer {
            self.answered |= self.start.holds();
        }
        self.field = Field::Other;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(value) = self.value() {
            value.add(bytes, VALUE_BYTES_MAX);
        } else if let Some(start) = self.start() {
            start.add(bytes);
        }
    }

    /// Where the field under way is kept, if all of it is.
    fn value(&mut self) -> Option<&mut Value> {
        match self.field {
            Field::Usage if self.reads_usage => Some(&mut self.usage),
            Field::Error => Some(&mut self.error),
            _ => None,
        }
    }

    /// Where the first bytes of the field under way are kept, if these are.
    fn start(&mut self) -> Option<&mut Start> {
        match self.field {
            Field::Answer => Some(&mut self.start),
            Field::Id => Some(&mut self.id),
            Field::Status => Some(&mut self.status),
            _ => None,
        }
    }
}

/// Where the first byte from `at` on lies that `find` marks in its eight, or at most `far` bytes further; or one of the
/// last seven bytes, which are not looked at.
fn skip_to(bytes: &[u8], mut at: usize, far: usize, find: impl Fn(u64) -> u64) -> usize {
    let until = at.saturating_add(far);
    while at < until
        && let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk)
    {
        let found = find(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += eight.len();
    }
    at
}

const fn every(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks the bytes that are zero by their highest bit; above the lowest one, others may be marked too.
/// (Hacker's Delight, 2nd edition, section 6-1.)
const fn zeros(eight: u64) -> u64 {
    eight.wrapping_sub(every(0x01)) & !eight & every(0x80)
}

#[cfg(test)]
mod tests;
