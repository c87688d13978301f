//! What an upstream's answer says, read along while its bytes pass through.
//!
//! No sockets: body bytes in, bytes for the client out, and what was understood on the way. For an event stream
//! this decides the *commit point*: until the first content everything is held, since a failure up to there can
//! still become an honest status.

use super::coded::Coded;
use crate::base::Dialect;
use crate::wire;
use crate::wire::answer::AnswerScan;
use crate::wire::chat::{Api, Kind, UpstreamFault, Usage};
use crate::wire::sse::Framer;

/// Capacity that a buffer of one stream may keep unused between two reads, in bytes.
const SPARE_BYTES_MAX: usize = 4 << 10;

/// An event stream on its way to the client. Only whole events pass, so that whatever has to be said at the end
/// begins on a boundary.
#[derive(Debug)]
pub struct Events {
    dialect: Dialect,
    framer: Framer,
    /// Takes the extra usage chunk out that we, not the client, asked for.
    strip_usage: bool,
    event_bytes_max: usize,
    hold_bytes_max: usize,
    /// The event under way.
    partial: Vec<u8>,
    /// True once content has come.
    pub committed: bool,
    /// True once the stream has said that it is complete.
    pub ended: bool,
    /// True once a reason for finishing has come.
    pub finished: bool,
    /// True if content of a kind that we know was seen; then the stream's end is known to us as well.
    known: bool,
    /// True if content was seen that we cannot read.
    unknown: bool,
    /// True if the event that ends the stream may be a long one: it repeats the whole answer.
    long_end: bool,
    /// True if the last event passed in pieces and may have been the one that ends the stream.
    unread: bool,
    /// The failure that the stream itself told of.
    pub fault: Option<UpstreamFault>,
    /// What was used, as far as it was told.
    pub usage: Usage,
    /// Events with content so far.
    pub contents: u64,
    /// True if what came last held content.
    progress: bool,
}

impl Events {
    /// A stream of `dialect` of which nothing has come.
    pub fn new(dialect: Dialect, api: Api, strip_usage: bool, event_bytes_max: usize, hold_bytes_max: usize) -> Events {
        let long_end = dialect == Dialect::OpenAi && matches!(api, Api::Responses | Api::Other);
        Events {
            dialect,
            framer: Framer::new(),
            strip_usage,
            event_bytes_max,
            hold_bytes_max,
            partial: Vec::new(),
            committed: false,
            ended: false,
            finished: false,
            known: false,
            unknown: false,
            long_end,
            unread: false,
            fault: None,
            usage: Usage::default(),
            contents: 0,
            progress: false,
        }
    }

    /// Takes body bytes in and appends what may go to the client to `out`. True if content was among them.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        self.progress = false;
        let mut partial = std::mem::take(&mut self.partial);
        if partial.is_empty() {
            let taken = self.take_frames(bytes, out);
            partial.extend_from_slice(&bytes[taken..]);
        } else {
            partial.extend_from_slice(bytes);
            let taken = self.take_frames(&partial, out);
            partial.drain(..taken);
        }
        // A stream that stalls keeps what it holds here for long.
        if partial.capacity() > SPARE_BYTES_MAX && partial.len() < partial.capacity() / 4 {
            partial.shrink_to_fit();
        }
        self.partial = partial;
        self.let_through(out.len());
        self.progress
    }

    /// Something that talks this long without content is let through rather than held for ever.
    pub fn let_through(&mut self, held_bytes: usize) {
        self.committed |= held_bytes > self.hold_bytes_max && self.fault.is_none();
    }

    /// True if the stream may be called whole now that its body has properly ended.
    pub fn is_whole(&self) -> bool {
        self.fault.is_none()
            && self.partial_is_blank()
            && (self.ended || self.finished || self.unread || (self.unknown && !self.known))
    }

    /// True in the middle of an event that passes in pieces: nothing can be said to the client then.
    pub fn is_mid_event(&self) -> bool {
        self.framer.is_passing()
    }

    fn partial_is_blank(&self) -> bool {
        !self.framer.is_passing() && self.partial.trim_ascii().is_empty()
    }

    /// Takes whole frames off the front of `buf`; returns how many bytes they took.
    fn take_frames(&mut self, buf: &[u8], out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        loop {
            let rest = &buf[at..];
            if self.framer.is_passing() || rest.len() > self.event_bytes_max && self.framer.clone().next(rest).is_none()
            {
                self.contents += u64::from(!self.framer.is_passing());
                let passed = self.framer.pass(rest);
                self.committed = true;
                self.unread = self.long_end;
                self.progress = true;
                if self.fault.is_none() {
                    out.extend_from_slice(&rest[..passed.len]);
                }
                at += passed.len;
                if !passed.ended {
                    return at;
                }
                continue;
            }
            let Some(frame) = self.framer.next(rest) else { return at };
            at += frame.len;
            let raw = &rest[..frame.len];
            // After a failure nothing counts any more, least of all a [DONE].
            if self.fault.is_some() {
                continue;
            }
            if !frame.has_data {
                out.extend_from_slice(raw);
                continue;
            }
            let meaning = wire::read_event(self.dialect, frame.event, &frame.data);
            if let Some(usage) = meaning.usage {
                self.usage.merge(usage);
            }
            match meaning.kind {
                Kind::Error => {
                    self.fault = meaning.error;
                    if self.committed {
                        out.extend_from_slice(raw);
                    }
                    continue;
                }
                Kind::Usage if self.strip_usage => continue,
                Kind::Content => {
                    self.known = true;
                    // One of several choices may finish before the others.
                    self.finished = false;
                }
                Kind::Other => self.unknown = true,
                Kind::Finish => self.finished = true,
                Kind::End => self.ended = true,
                Kind::Usage | Kind::Lifecycle => {}
            }
            if matches!(meaning.kind, Kind::Content | Kind::Other | Kind::Finish) {
                self.contents += 1;
                self.progress = true;
            }
            self.unread = false;
            self.committed |= meaning.kind.commits();
            out.extend_from_slice(raw);
        }
    }
}

/// Whether anybody wants to know what an answer has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadsUsage(pub bool);

/// An answer on its way to the client.
pub enum Answer {
    /// An event stream.
    Events(Box<Events>),
    /// An unstreamed JSON answer that is held, and read once it is whole, which takes a glance for most.
    Held(Dialect, ReadsUsage),
    /// One that is too large to hold, or is passed on whatever it says: read as it passes.
    Json(Box<AnswerScan>),
    /// Any of these, encoded.
    Coded(Box<Coded>),
    /// Bytes that mean nothing to us.
    Opaque,
}

impl Answer {
    /// Takes body bytes in and appends what may go to the client to `out`. True if content was among them.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Answer::Events(events) => events.push(bytes, out),
            Answer::Json(scan) => {
                scan.push(bytes);
                out.extend_from_slice(bytes);
                !bytes.is_empty()
            }
            Answer::Coded(coded) => coded.push(bytes, out),
            Answer::Held(..) | Answer::Opaque => {
                out.extend_from_slice(bytes);
                !bytes.is_empty()
            }
        }
    }

    /// It is held no longer, of which `out` has come: from here on it is read as it passes.
    pub fn let_go(&mut self, out: &[u8]) {
        if let Answer::Held(dialect, reads_usage) = *self {
            let mut scan = AnswerScan::new(dialect).with_usage(reads_usage.0);
            scan.push(out);
            *self = Answer::Json(Box::new(scan));
        }
    }

    /// The usage and the failure that an unstreamed JSON answer tells of, all of which has come, and is `body` if it was held.
    pub fn finish(&mut self, body: &[u8]) -> (Option<Usage>, Option<UpstreamFault>) {
        let told = match self {
            Answer::Held(dialect, ReadsUsage(true)) => Some(wire::answer::Answer::read(*dialect, body)),
            Answer::Held(dialect, ReadsUsage(false)) => {
                return (None, wire::answer::Answer::read_error(*dialect, body));
            }
            _ => self.scan_mut().map(AnswerScan::finish),
        };
        told.map_or((None, None), |told| (told.usage, told.error))
    }

    /// The event stream that it is, encoded or not.
    #[inline]
    pub fn events(&self) -> Option<&Events> {
        match self {
            Answer::Events(events) => Some(events),
            Answer::Coded(coded) => coded.plain().events(),
            _ => None,
        }
    }

    /// As [`Answer::events`].
    #[inline]
    pub fn events_mut(&mut self) -> Option<&mut Events> {
        match self {
            Answer::Events(events) => Some(events),
            Answer::Coded(coded) => coded.plain_mut().events_mut(),
            _ => None,
        }
    }

    /// True for an unstreamed JSON answer, encoded or not.
    #[inline]
    pub fn is_json(&self) -> bool {
        match self {
            Answer::Held(..) | Answer::Json(_) => true,
            Answer::Coded(coded) => coded.plain().is_json(),
            Answer::Events(_) | Answer::Opaque => false,
        }
    }

    /// What was read of an unstreamed JSON answer as it passed, encoded or not.
    #[inline]
    pub fn scan_mut(&mut self) -> Option<&mut AnswerScan> {
        match self {
            Answer::Json(scan) => Some(scan),
            Answer::Coded(coded) => coded.plain_mut().scan_mut(),
            _ => None,
        }
    }

    /// It, if it is encoded.
    #[inline]
    pub fn coded(&self) -> Option<&Coded> {
        match self {
            Answer::Coded(coded) => Some(coded),
            _ => None,
        }
    }

    /// True if something that has come waits for a further turn to be read.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.coded().is_some_and(Coded::is_behind)
    }
}

#[cfg(test)]
mod tests;
