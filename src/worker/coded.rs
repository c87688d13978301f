//! An answer that comes encoded: what the client is sent of it, and how it is read all the same.
//!
//! Providers are asked for `identity` unless their `accept_encoding = "pass"`, so that a stream costs neither them
//! nor us a coding, and each event passes as it is. Some encode without being asked. Then:
//!
//! | the answer | the client is sent | read |
//! |---|---|---|
//! | anything, in a coding that the client takes | what came, byte for byte, in the same turn | aside |
//! | a stream out of which usage is taken that we asked for | the events, decoded | on the way |
//! | anything, in a coding that the client does not take (`Accept-Encoding`; nothing said takes all) | the decoded body | on the way |
//! | a coding that is not known, more than two, or a range (206) | what came, byte for byte | no |
//!
//! *Byte for byte* cannot be cut between two events. So what is held until the first content is the encoded bytes
//! (`limits.stream_bytes_max`), and no error event can be put in: a stream that fails is cut, and the client sees that
//! the framing, and mostly the coding, has no end. *Decoded*, a stream is like any other: whole events, an error event
//! at a bad end. The head then says no `content-encoding`, its ETag is weak, digests of the encoded bytes are left out,
//! and it varies by `accept-encoding`.
//!
//! A body is whole if its coding says so too: one without its end, or with a wrong checksum, is truncated, though the
//! framing ended well. Of an answer with a length the last piece is then held back, so that this can be seen.
//!
//! Beyond `limits.decoded_bytes_max` or `decoded_ratio_max`, or a window larger than [`coding`] grants, an answer that
//! is read aside passes on unread, and the record says so; one that is sent decoded cannot go on, and ends as if it
//! were truncated. A turn of the event loop decodes [`TURN_BYTES`] at most; what is left over waits for the next, and
//! no more is read of the provider meanwhile.

use super::answer::{Answer, Events, ReadsUsage};
use super::exchange::{Call, Scene};
use crate::config::Limits;
use crate::net::heap::Foreign;
use crate::routing::Candidate;
use crate::upstream::http1::{AnswerHead, Content, Encoding};
use crate::wire::answer::AnswerScan;
use crate::wire::coding::{self, Caps, Codings, Fault};
use crate::wire::http1::Framing;

/// So much is decoded for one exchange in one turn of the event loop, in bytes: a millisecond, at worst.
pub const TURN_BYTES: usize = 256 << 10;

/// What is decoded at a time.
const PIECE_BYTES: usize = 8 << 10;

/// Capacity that the buffer for what is only read may keep.
const SPARE_BYTES_MAX: usize = 16 << 10;

/// What the configuration allows an encoded body to become.
pub fn caps(limits: &Limits) -> Caps {
    Caps { bytes_max: limits.decoded_bytes_max as u64, ratio_max: limits.decoded_ratio_max }
}

/// What the candidate's provider is told of codings, if it is told.
pub fn accept_encoding(scene: &Scene<'_>, call: &Call, candidate: Candidate<'_>) -> Option<String> {
    let provider = scene.worker.config().provider_of(candidate.endpoint);
    provider.passes_accept_encoding.then(|| match strips_usage(scene, call, candidate) {
        // It would have to be decoded for the client.
        true => "identity".into(),
        false => scene.intake.accepts.known(),
    })
}

/// True if we, and not the client, asked for the extra chunk with usage.
fn strips_usage(scene: &Scene<'_>, call: &Call, candidate: Candidate<'_>) -> bool {
    scene.worker.config().provider_of(candidate.endpoint).include_usage
        && scene.intake.api.takes_include_usage()
        && call.scan.as_ref().is_some_and(|scan| scan.stream && !scan.asked_for_usage())
}

/// The candidate's answer with this head, of which nothing has come. If the client is to be sent it decoded, the head
/// is made to say so.
pub fn begin(scene: &mut Scene<'_>, call: &Call, candidate: Candidate<'_>, head: &mut AnswerHead) -> Answer {
    if head.framing == Framing::None {
        return Answer::Opaque;
    }
    if head.encoding == Encoding::Unknown {
        scene.record.unread = true;
        return Answer::Opaque;
    }
    let limits = &scene.worker.config().limits;
    let streams = head.content == Content::Events && head.status < 300;
    let strip_usage = streams && strips_usage(scene, call, candidate);
    let plain = match head.content {
        Content::Events if streams => {
            scene.record.streamed = true;
            let (dialect, api) = (scene.intake.dialect, scene.intake.api);
            let events = Events::new(dialect, api, strip_usage, limits.event_bytes_max, limits.stream_bytes_max);
            Answer::Events(Box::new(events))
        }
        Content::Json => {
            let (dialect, reads_usage) = (scene.intake.dialect, scene.worker.recorder.is_on());
            match head.encoding {
                Encoding::Plain if head.status < 300 => Answer::Held(dialect, ReadsUsage(reads_usage)),
                _ => Answer::Json(Box::new(AnswerScan::new(dialect).with_usage(reads_usage))),
            }
        }
        _ => Answer::Opaque,
    };
    let Encoding::Known(codings) = head.encoding else { return plain };
    let takes = scene.intake.accepts.takes(codings);
    if takes && matches!(plain, Answer::Opaque) {
        return plain;
    }
    let passes = takes && !strip_usage;
    if !passes {
        head.forget_coding();
    }
    Answer::Coded(Box::new(Coded::new(codings, caps(limits), plain, passes)))
}

/// An encoded answer on its way to the client.
pub struct Coded {
    decoder: coding::Decoder,
    /// What the decoder has of memory that nobody else counts.
    foreign: Foreign,
    /// What the decoded body says.
    plain: Answer,
    /// True if the client is sent what came; else what was decoded.
    passes: bool,
    /// What has come and was not decoded yet.
    waiting: Vec<u8>,
    /// True if the decoder has more to give without further input.
    more: bool,
    /// What may still be decoded in this turn.
    budget: usize,
    /// Why decoding has stopped.
    stopped: Option<Fault>,
    /// Takes what is read and goes nowhere.
    sink: Vec<u8>,
}

impl Coded {
    fn new(codings: Codings, caps: Caps, plain: Answer, passes: bool) -> Coded {
        Coded {
            decoder: coding::Decoder::new(codings, caps),
            foreign: Foreign::default(),
            plain,
            passes,
            waiting: Vec::new(),
            more: false,
            budget: TURN_BYTES,
            stopped: None,
            sink: Vec::new(),
        }
    }

    /// What the decoded body says.
    pub fn plain(&self) -> &Answer {
        &self.plain
    }

    /// As [`Coded::plain`].
    pub fn plain_mut(&mut self) -> &mut Answer {
        &mut self.plain
    }

    /// True if the client is sent what came.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// True if something that has come waits for a further turn.
    pub fn is_behind(&self) -> bool {
        self.stopped.is_none() && (self.more || !self.waiting.is_empty())
    }

    /// True if the rest passes unread.
    pub fn is_unread(&self) -> bool {
        self.passes && self.stopped.is_some_and(Fault::is_cap)
    }

    /// What is wrong with the body so far; at its end, when `done`, also that it is not whole.
    pub fn fault(&self, done: bool) -> Option<Fault> {
        if self.is_unread() {
            return None;
        }
        let at_end = || (done && !self.is_behind()).then(|| self.decoder.finish().err())?;
        self.stopped.or_else(at_end)
    }

    /// A new turn: decodes what waits. True if content was among it.
    pub fn go_on(&mut self, out: &mut Vec<u8>) -> bool {
        self.budget = TURN_BYTES;
        if !self.is_behind() {
            return false;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.read(&waiting, out)
    }

    /// Takes body bytes in and appends what may go to the client to `out`. True if content was among them.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        if self.passes {
            out.extend_from_slice(bytes);
        }
        if self.stopped.is_some() {
            return self.is_unread() && !bytes.is_empty();
        }
        let content = if self.is_behind() {
            self.waiting.extend_from_slice(bytes);
            false
        } else {
            self.read(bytes, out)
        };
        if let Answer::Events(events) = &mut self.plain {
            events.let_through(if self.passes { out.len() } else { 0 });
        }
        content
    }

    fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let mut sink = std::mem::take(&mut self.sink);
        let (mut at, mut content) = (0, false);
        let mut piece = [0; PIECE_BYTES];
        while (at < bytes.len() || self.more) && self.budget > 0 {
            let step = match self.decoder.decode(&bytes[at..], &mut piece) {
                Ok(step) => step,
                Err(fault) => {
                    self.stop(fault);
                    break;
                }
            };
            self.foreign.set(self.decoder.foreign_bytes());
            at += step.consumed;
            self.more = step.more;
            // A call costs something though it brings nothing.
            self.budget = self.budget.saturating_sub(step.work + 64);
            content |= self.plain.push(&piece[..step.produced], if self.passes { &mut sink } else { &mut *out });
            sink.clear();
        }
        if self.stopped.is_none() && at < bytes.len() {
            self.waiting.extend_from_slice(&bytes[at..]);
        }
        if sink.capacity() <= SPARE_BYTES_MAX {
            self.sink = sink;
        }
        content | self.is_unread()
    }

    fn stop(&mut self, fault: Fault) {
        self.stopped = Some(fault);
        self.more = false;
        self.waiting = Vec::new();
        self.sink = Vec::new();
        if self.is_unread()
            && let Answer::Events(events) = &mut self.plain
        {
            // Whether content has come will never be known.
            events.committed = true;
        }
    }
}

#[cfg(test)]
mod tests;
