//! Cuts a `text/event-stream` into frames (HTML Standard, 9.2.5 and 9.2.6), without holding or changing a byte.
//!
//! The relay sends the raw bytes of a frame on and reads its fields on the side, so `id`, `retry` and comments
//! need no names here: they travel in the raw bytes. This is not a client: nothing reconnects, and no UTF-8 is
//! decoded (a line break is one byte in UTF-8, so a character split by the network is whole again in its frame).

use std::borrow::Cow;

use memchr::{memchr, memchr2};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One frame at the start of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Raw bytes it takes in the buffer, line ends and closing blank line included; at least 1.
    pub len: usize,
    /// Value of the last `event` field; empty if there was none.
    pub event: &'a [u8],
    /// Values of all `data` fields, joined by LF; borrowed unless there were several.
    pub data: Cow<'a, [u8]>,
    /// True if there was a `data` field, though it be empty. Only such a frame is an event to a client; comments and
    /// blank lines alone are not.
    pub has_data: bool,
}

/// What [`Framer::pass`] allows to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes at the start of the buffer that belong to the event.
    pub len: usize,
    /// True if the event ends with them: the next byte starts a frame.
    pub ended: bool,
}

/// Finds frames in a buffer that the caller owns, fills at its end and empties at its start.
///
/// The first byte of the buffer is always the first byte of a frame: after [`next`](Framer::next) returned a frame, the
/// caller removes (or steps over) exactly `len` bytes before it calls again. Each byte is scanned once, however the stream is cut.
///
/// * LF, CR and CRLF end a line, in any mix. A CR that is the last byte so far ends its line at once, so that the
///   event leaves in the same turn; an LF that then follows is a frame of one byte without data.
/// * A comment line before the first field of an event is a frame of its own: a heartbeat is never held for the
///   blank line that some senders leave out.
#[derive(Debug, Clone)]
pub struct Framer {
    /// Bytes of the buffer already searched for a line end.
    scanned: usize,
    /// Where the line under way starts.
    line: usize,
    fields: Fields,
    /// True until the first frame is complete: only there may a byte order mark stand.
    first: bool,
    pass: Option<Pass>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Fields {
    event: (usize, usize),
    data: (usize, usize),
    data_lines: usize,
}

/// Where an event that passes in pieces stands; its earlier bytes are gone.
#[derive(Debug, Clone, Copy)]
struct Pass {
    /// The line under way has no byte yet.
    line_empty: bool,
    /// The last byte was a CR, so that an LF would belong to it.
    after_cr: bool,
}

impl Framer {
    /// A framer at the start of a stream.
    pub fn new() -> Framer {
        Framer { scanned: 0, line: 0, fields: Fields::default(), first: true, pass: None }
    }

    /// The frame at the start of `buf`; `None` if its end has not come yet.
    ///
    /// Must not be called while an event [passes](Framer::is_passing).
    #[allow(clippy::should_implement_trait)] // It lends from its argument, as no iterator can.
    pub fn next<'a>(&mut self, buf: &'a [u8]) -> Option<Frame<'a>> {
        debug_assert!(self.pass.is_none(), "an event is passing in pieces");
        loop {
            let line_empty = self.scanned == self.line;
            if line_empty && self.line > 0 && buf.get(self.line - 1..=self.line) == Some(b"\r\n") {
                self.line += 1;
                self.scanned += 1;
            }
            let Some(at) = memchr2(b'\r', b'\n', buf.get(self.scanned..)?) else {
                self.scanned = buf.len();
                return None;
            };
            let end = self.scanned + at;
            let start = self.line.max(self.mark(&buf[..end]));
            let ends_frame = start == end || (buf[start] == b':' && self.fields.is_empty());
            if ends_frame {
                let crlf = buf[end..].starts_with(b"\r\n");
                return Some(self.complete(&buf[..end + 1 + usize::from(crlf)]));
            }
            self.fields.read(buf, start, end);
            self.line = end + 1;
            self.scanned = end + 1;
        }
    }

    /// Lets an event go on in pieces, unread, because it is too long to be held.
    ///
    /// Call it after [`next`](Framer::next) found no end in a buffer that is as long as it may get, and then, in place
    /// of `next`, with each new piece until [`Passed::ended`]. The caller removes `len` bytes each time; framing
    /// goes on right after the event.
    pub fn pass(&mut self, buf: &[u8]) -> Passed {
        let mut at = self.scanned.min(buf.len());
        let mut state = self.pass.unwrap_or_else(|| Pass {
            line_empty: self.line.max(self.mark(&buf[..at])) == at,
            after_cr: buf[..at].last() == Some(&b'\r'),
        });
        self.reset();
        while at < buf.len() {
            if std::mem::take(&mut state.after_cr) && state.line_empty && buf[at] == b'\n' {
                at += 1;
            }
            let Some(found) = memchr2(b'\r', b'\n', &buf[at..]) else {
                state.line_empty &= at == buf.len();
                break;
            };
            let end = at + found;
            if state.line_empty && found == 0 {
                let crlf = buf[end..].starts_with(b"\r\n");
                return Passed { len: end + 1 + usize::from(crlf), ended: true };
            }
            state = Pass { line_empty: true, after_cr: buf[end] == b'\r' };
            at = end + 1;
        }
        self.pass = Some(state);
        Passed { len: buf.len(), ended: false }
    }

    /// True while an event passes in pieces.
    pub fn is_passing(&self) -> bool {
        self.pass.is_some()
    }

    /// Length of the byte order mark at the start of the buffer.
    fn mark(&self, buf: &[u8]) -> usize {
        if self.first && buf.starts_with(BOM) { BOM.len() } else { 0 }
    }

    fn complete<'a>(&mut self, raw: &'a [u8]) -> Frame<'a> {
        let Fields { event, data, data_lines } = self.fields;
        let data = match data_lines {
            0 | 1 => Cow::Borrowed(&raw[data.0..data.1]),
            _ => Cow::Owned(join_data(raw, self.mark(raw))),
        };
        self.reset();
        Frame { len: raw.len(), event: &raw[event.0..event.1], data, has_data: data_lines > 0 }
    }

    fn reset(&mut self) {
        *self = Framer { first: false, ..Framer::new() };
    }
}

impl Default for Framer {
    fn default() -> Framer {
        Framer::new()
    }
}

impl Fields {
    fn is_empty(&self) -> bool {
        // An unknown field alone counts as nothing: what stands before the first known one may go ahead of it.
        self.data_lines == 0 && self.event == (0, 0)
    }

    /// Notes where the value of the field in `buf[start..end]`, a line that is not empty, lies.
    fn read(&mut self, buf: &[u8], start: usize, end: usize) {
        let (name, value) = split_field(&buf[start..end]);
        let span = (end - value.len(), end);
        match name {
            b"data" => {
                self.data = span;
                self.data_lines += 1;
            }
            b"event" => self.event = span,
            _ => {}
        }
    }
}

/// A line's field name and value; one space after the colon belongs to neither. A comment's name is empty.
fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = memchr(b':', line) else {
        return (line, &line[line.len()..]);
    };
    let value = &line[colon + 1..];
    (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
}

/// The values of all `data` fields of a frame, joined by LF. Only for frames that have several.
fn join_data(raw: &[u8], skip: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(raw.len());
    let mut lines = 0;
    // An empty line between the CR and the LF of a CRLF does no harm: it has no name.
    for line in raw[skip..].split(|&byte| byte == b'\r' || byte == b'\n') {
        let (name, value) = split_field(line);
        if name == b"data" {
            if lines > 0 {
                data.push(b'\n');
            }
            data.extend_from_slice(value);
            lines += 1;
        }
    }
    data
}

/// Appends one event with LF line ends: a `data` field for each line of `data`, and the blank line.
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, data: &[u8]) {
    if let Some(event) = event {
        debug_assert!(memchr2(b'\r', b'\n', event.as_bytes()).is_none(), "an event name is one line");
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(event.as_bytes());
        out.push(b'\n');
    }
    let mut rest = data;
    loop {
        let end = memchr2(b'\r', b'\n', rest);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { break };
        rest = &rest[end + 1 + usize::from(rest[end..].starts_with(b"\r\n"))..];
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests;
