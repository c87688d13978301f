//! Content codings (RFC 9110 §8.4): gzip, deflate, br and zstd taken off a body that comes in pieces.
//!
//! Decoding is incremental and bounded in every direction, for the other side may be a decompression bomb. A call of
//! [`Decoder::decode`] writes at most the room it is given and does a bounded amount of [work](Step::work), so a caller
//! can stop between two calls and go on later; the total and its ratio to what came are held to [`Caps`]. Memory for
//! one body, whatever it says of itself, and nothing before its first byte:
//!
//! | coding | window | memory |
//! |---|---|--:|
//! | `gzip`, `x-gzip`, `deflate` | 32 KiB | 50 KiB |
//! | `br` | at most 4 MiB (22 bits); large windows are off | 5 MiB |
//! | `zstd` | at most 8 MiB (RFC 9659) | 9 MiB |
//!
//! A body that asks for a larger window is [refused](Fault::Window). (Of a window the system gives only the pages that
//! were written.) Two codings over one another are undone, `gzip, br` say; three are not.
//!
//! `deflate` is the zlib format (RFC 1950) and, as some senders have it, the bare one (RFC 1951). The two cannot be
//! confused: what begins like zlib's header would be a stored block whose padding is not zero.
//!
//! A body is whole when its coding says so: checksum and length, where it has them, were seen and are right, and
//! nothing stands behind. gzip members and zstd frames may follow one another. A body of no bytes is whole.

use std::fmt;

use super::http1::list_tokens;

mod stage;

use stage::Stage;

/// More codings over one another are not undone.
pub const CODINGS_MAX: usize = 2;

/// Before so many bytes were decoded the ratio does not count: a short answer may well be a thousand equal letters.
pub const RATIO_GRACE_BYTES: u64 = 1 << 20;

/// A call stops once it has done so much, though there be room and input for more.
const WORK_PER_CALL: usize = 32 << 10;

/// Room between two codings.
const BETWEEN_BYTES: usize = 4 << 10;

/// What a request with an unknown coding is told that we take (RFC 9110 §12.5.3).
pub const TAKEN: &str = "gzip, deflate, br, zstd";

/// A content coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip` and `x-gzip` (RFC 1952).
    Gzip,
    /// `deflate` (RFC 1950), or the bare format (RFC 1951).
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

impl Coding {
    /// The coding of this name, in any case.
    pub fn of(name: &[u8]) -> Option<Coding> {
        let names: [(&[u8], Coding); 5] = [
            (b"gzip", Coding::Gzip),
            (b"x-gzip", Coding::Gzip),
            (b"deflate", Coding::Deflate),
            (b"br", Coding::Brotli),
            (b"zstd", Coding::Zstd),
        ];
        names.into_iter().find(|(own, _)| name.eq_ignore_ascii_case(own)).map(|(_, coding)| coding)
    }
}

/// The codings of a body in the order in which they were applied, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codings {
    first: Coding,
    second: Option<Coding>,
}

/// A body is coded in a way that cannot be undone here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl Codings {
    /// Reads the values of all `Content-Encoding` lines; `None` if the body is plain.
    ///
    /// # Errors
    /// A coding that is not known, or too many.
    pub fn read<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Result<Option<Codings>, Unknown> {
        let mut codings: Option<Codings> = None;
        for name in values.into_iter().flat_map(list_tokens) {
            if name.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            let coding = Coding::of(name).ok_or(Unknown)?;
            codings = Some(match codings {
                None => Codings { first: coding, second: None },
                Some(Codings { first, second: None }) => Codings { first, second: Some(coding) },
                Some(_) => return Err(Unknown),
            });
        }
        Ok(codings)
    }

    fn iter(self) -> impl Iterator<Item = Coding> {
        std::iter::once(self.first).chain(self.second)
    }
}

/// What a client said in `Accept-Encoding`, kept by value.
#[derive(Debug, Clone, Copy)]
pub struct Accepts {
    /// 0 is nothing said, and 255 too much to be kept.
    len: u8,
    bytes: [u8; Accepts::BYTES_MAX],
}

impl Accepts {
    /// What is longer is taken for a refusal of every coding, which is safe with any client.
    pub const BYTES_MAX: usize = 62;

    /// Keeps the value of the header, if there is one; `repeated` if there is more than one line of it.
    #[inline]
    pub fn new(value: Option<&[u8]>, repeated: bool) -> Accepts {
        let mut accepts = Accepts { len: 0, bytes: [0; Accepts::BYTES_MAX] };
        if let Some(value) = value {
            match accepts.bytes.get_mut(..value.len()) {
                // A line without a coding accepts none.
                Some(place) if !value.is_empty() && !repeated => {
                    place.copy_from_slice(value);
                    accepts.len = value.len() as u8;
                }
                _ => accepts.len = u8::MAX,
            }
        }
        accepts
    }

    /// True if the client takes a body so coded. One that said nothing takes any (RFC 9110 §12.5.3).
    pub fn takes(&self, codings: Codings) -> bool {
        self.len == 0 || codings.iter().all(|coding| self.weighs(coding))
    }

    /// The codings among those that the client takes which can be undone here, in its own words, as the value of a
    /// header; `identity` if there is none.
    pub fn known(&self) -> String {
        let mut known = String::new();
        for element in self.elements() {
            let (name, weight) = parted(element);
            if Coding::of(name).is_some()
                && !is_zero(weight)
                && let Ok(element) = std::str::from_utf8(element)
            {
                if !known.is_empty() {
                    known.push_str(", ");
                }
                known.push_str(element);
            }
        }
        if known.is_empty() { "identity".into() } else { known }
    }

    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        list_tokens(self.bytes.get(..usize::from(self.len)).unwrap_or_default())
    }

    fn weighs(&self, coding: Coding) -> bool {
        let mut any = false;
        for element in self.elements() {
            let (name, weight) = parted(element);
            if Coding::of(name) == Some(coding) {
                return !is_zero(weight);
            }
            any |= name == b"*" && !is_zero(weight);
        }
        any
    }
}

/// An element of `Accept-Encoding`: its coding, and what follows.
fn parted(element: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b';', element).unwrap_or(element.len());
    let (name, rest) = element.split_at(at);
    (name.trim_ascii(), rest)
}

/// True for `;q=0`, `; q=0.000` and their like: not acceptable (RFC 9110 §12.4.2).
fn is_zero(weight: &[u8]) -> bool {
    let mut bytes = weight.iter().filter(|byte| !byte.is_ascii_whitespace());
    let start = [bytes.next(), bytes.next(), bytes.next()];
    matches!(start, [Some(b';'), Some(b'q' | b'Q'), Some(b'=')])
        && bytes.clone().next().is_some()
        && bytes.all(|byte| matches!(byte, b'0' | b'.'))
}

/// Bounds on what a body may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Decoded bytes, those between two codings included.
    pub bytes_max: u64,
    /// Decoded bytes for each that came, once [`RATIO_GRACE_BYTES`] were decoded.
    pub ratio_max: u32,
}

/// Why a body is not, or not further, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It breaks the rules of its coding, fails its checksum, or something stands behind its end.
    Corrupt,
    /// It ended before its coding did.
    Truncated,
    /// It asks for a larger window than it gets, or there is no memory.
    Window,
    /// It becomes larger than [`Caps::bytes_max`].
    Size,
    /// It grows by more than [`Caps::ratio_max`].
    Ratio,
}

impl Fault {
    /// True if not the body is at fault but a bound of ours stops the decoding.
    pub fn is_cap(self) -> bool {
        matches!(self, Fault::Window | Fault::Size | Fault::Ratio)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Corrupt => "it is not what its content-encoding says, or fails its checksum",
            Fault::Truncated => "its content-encoding was cut off before its end",
            Fault::Window => "its content-encoding asks for a larger window than this gateway grants",
            Fault::Size => "decoded it is larger than this gateway allows (limits.decoded_bytes_max)",
            Fault::Ratio => "it grows more in decoding than this gateway allows (limits.decoded_ratio_max)",
        })
    }
}

/// What a call of [`Decoder::decode`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// Bytes written to the front of the room.
    pub produced: usize,
    /// Roughly how many bytes were moved, those between two codings included.
    pub work: usize,
    /// True if another call may bring more, even without further input.
    pub more: bool,
}

/// Undoes the codings of one body.
pub struct Decoder {
    caps: Caps,
    /// The coding that was applied last.
    outer: Stage,
    inner: Option<Box<Inner>>,
    taken: u64,
    given: u64,
    fault: Option<Fault>,
}

/// The coding below, and what the one above has made for it.
struct Inner {
    stage: Stage,
    bytes: [u8; BETWEEN_BYTES],
    at: usize,
    end: usize,
    /// Bytes that the outer coding has made so far.
    taken: u64,
    /// True if the outer coding may bring more without further input.
    outer_more: bool,
}

impl Decoder {
    /// For a body of which nothing has come. Allocates nothing yet for a single coding.
    pub fn new(codings: Codings, caps: Caps) -> Decoder {
        let (outer, inner) = match codings.second {
            Some(second) => (second, Some(codings.first)),
            None => (codings.first, None),
        };
        let inner = inner.map(|coding| {
            Box::new(Inner {
                stage: Stage::new(coding),
                bytes: [0; BETWEEN_BYTES],
                at: 0,
                end: 0,
                taken: 0,
                outer_more: false,
            })
        });
        Decoder { caps, outer: Stage::new(outer), inner, taken: 0, given: 0, fault: None }
    }

    /// Bytes that it holds beside what this program's own allocator gave it.
    pub fn foreign_bytes(&self) -> usize {
        self.outer.foreign_bytes() + self.inner.as_ref().map_or(0, |inner| inner.stage.foreign_bytes())
    }

    /// Decodes from the front of `input` into `room`, which is not empty. Call again with the bytes after
    /// [`Step::consumed`] while there are some or [`Step::more`] says so.
    ///
    /// # Errors
    /// What is wrong, now and ever after. What was decoded before it is given first.
    pub fn decode(&mut self, input: &[u8], room: &mut [u8]) -> Result<Step, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut step = Step::default();
        let outcome = self.advance(input, room, &mut step);
        if let Err(fault) = outcome {
            self.fault = Some(fault);
            if step.produced == 0 {
                return Err(fault);
            }
            // The fault is told by the next call.
            step.more = true;
        }
        Ok(step)
    }

    fn advance(&mut self, input: &[u8], room: &mut [u8], step: &mut Step) -> Result<(), Fault> {
        loop {
            let rest = input.get(step.consumed..).unwrap_or_default();
            let space = room.get_mut(step.produced..).unwrap_or_default();
            let mut moved = Step::default();
            let outcome = match &mut self.inner {
                None => self.outer.advance(rest, space, &mut moved),
                Some(inner) => inner.advance(&mut self.outer, rest, space, &mut moved),
            };
            step.consumed += moved.consumed;
            step.produced += moved.produced;
            step.work += moved.work;
            step.more = moved.more;
            self.taken += moved.consumed as u64;
            self.given += moved.produced as u64;
            outcome?;
            let given = self.given + self.inner.as_ref().map_or(0, |inner| inner.taken);
            if given > self.caps.bytes_max {
                return Err(Fault::Size);
            }
            if given > RATIO_GRACE_BYTES && given > self.taken.saturating_mul(u64::from(self.caps.ratio_max)) {
                return Err(Fault::Ratio);
            }
            let idle = moved == Step { more: moved.more, ..Step::default() };
            let full = step.produced == room.len();
            if full || idle || step.work >= WORK_PER_CALL || (step.consumed == input.len() && !step.more) {
                return Ok(());
            }
        }
    }

    /// Says that the body has ended.
    ///
    /// # Errors
    /// It was not whole, or something else is wrong with it.
    pub fn finish(&self) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let between = self.inner.as_ref().is_some_and(|inner| inner.at < inner.end || !inner.stage.is_whole());
        if between || !self.outer.is_whole() { Err(Fault::Truncated) } else { Ok(()) }
    }
}

impl Inner {
    /// One step of either coding.
    fn advance(&mut self, outer: &mut Stage, input: &[u8], room: &mut [u8], moved: &mut Step) -> Result<(), Fault> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            let mut above = Step::default();
            let outcome = outer.advance(input, &mut self.bytes, &mut above);
            self.end = above.produced;
            self.taken += above.produced as u64;
            self.outer_more = above.more || outcome.is_err();
            moved.consumed = above.consumed;
            moved.work = above.work;
            if above.produced == 0 {
                moved.more = self.outer_more;
                return outcome;
            }
            // A fault of the outer coding is sticky: it is told again once the bytes before it are through.
            let _ = outcome;
        }
        let below = self.bytes.get(self.at..self.end).unwrap_or_default();
        let mut step = Step::default();
        let outcome = self.stage.advance(below, room, &mut step);
        self.at += step.consumed;
        moved.produced = step.produced;
        moved.work += step.work;
        moved.more = step.more || self.at < self.end || self.outer_more;
        outcome
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("taken", &self.taken).field("given", &self.given).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
