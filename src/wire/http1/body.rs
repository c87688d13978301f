//! Bodies: which of the bytes that came are content, and when the content has ended (RFC 9112 §6, §7).
//!
//! A decoder holds nothing back and looks at no byte twice: it tells ranges of the caller's buffer.

use std::ops::Range;

use super::fields::{MAX_HEADERS, is_token_byte};
use super::{Framing, Known, Malformed};

/// How many bytes of chunk extensions may come ahead of the content that pays for them, one for one.
pub const EXTENSION_BYTES_MAX: u32 = 4096;

/// Bytes of trailers that a chunked body may have, line ends included.
pub const TRAILER_BYTES_MAX: usize = 8192;

/// What [`Decoder::decode`] found at the front of a buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Bytes that are done with: content and framing. Zero only if the buffer was empty or the body is done.
    pub consumed: usize,
    /// The part of the consumed bytes that is content; may be empty.
    pub data: Range<usize>,
    /// True if the body has ended with these bytes. What follows them belongs to the next message.
    pub done: bool,
}

/// Follows one body to its end.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// The status of a fault: 400 in a request, 502 in a response.
    fault_status: u16,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    Chunked(Chunked),
    Done(Vec<u8>),
}

impl Decoder {
    /// For the body of a request.
    pub fn request(framing: Framing) -> Decoder {
        Decoder::new(framing, 400)
    }

    /// For the body of a response.
    pub fn response(framing: Framing) -> Decoder {
        Decoder::new(framing, 502)
    }

    fn new(framing: Framing, fault_status: u16) -> Decoder {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done(Vec::new()),
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Chunked(Chunked {
                at: At::Size { digits: 0, size: 0 },
                extension_budget: EXTENSION_BYTES_MAX,
                trailers: Vec::new(),
            }),
        };
        Decoder { state, fault_status }
    }

    /// Takes bytes from the front of `buf`: the next unbroken run of content and the framing around it.
    /// Call again with the bytes after `consumed` until they are used up or the body is done.
    ///
    /// # Errors
    /// The chunked coding is malformed or passes a bound. Content before the fault is given first.
    #[inline]
    pub fn decode(&mut self, buf: &[u8]) -> Result<Piece, Malformed> {
        match &mut self.state {
            State::Length(left) => {
                let run = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= run as u64;
                let done = *left == 0;
                if done {
                    self.state = State::Done(Vec::new());
                }
                Ok(Piece { consumed: run, data: 0..run, done })
            }
            State::UntilClose => Ok(Piece { consumed: buf.len(), data: 0..buf.len(), done: false }),
            State::Done(_) => Ok(Piece { consumed: 0, data: 0..0, done: true }),
            State::Chunked(chunked) => {
                let status = self.fault_status;
                let piece = chunked.decode(buf).map_err(|fault| Malformed::new(status, fault.reason))?;
                if piece.done {
                    self.state = State::Done(std::mem::take(&mut chunked.trailers));
                }
                Ok(piece)
            }
        }
    }

    /// True if the body has ended.
    #[inline]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    /// Bytes of content still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done(_) => Some(0),
            State::UntilClose | State::Chunked(_) => None,
        }
    }

    /// Passes over the next `n` bytes of content, which went another way. Of a body whose length is announced only, and at most
    /// [`Decoder::remaining`].
    pub fn skip(&mut self, n: u64) {
        let State::Length(left) = &mut self.state else { return };
        *left = left.saturating_sub(n);
        if *left == 0 {
            self.state = State::Done(Vec::new());
        }
    }

    /// Says that the peer closed.
    ///
    /// # Errors
    /// The body was cut off before its end.
    pub fn eof(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Done(_) => Ok(()),
            State::UntilClose => {
                self.state = State::Done(Vec::new());
                Ok(())
            }
            State::Length(_) | State::Chunked(_) => {
                Err(Malformed::new(self.fault_status, "the body was cut off before its end (RFC 9112 §8)"))
            }
        }
    }

    /// The trailers of a chunked body that is done: whole lines, `name: value` and CRLF; empty if there are
    /// none. Names that must not be trailers (RFC 9110 §6.5.1) are left out.
    pub fn trailers(&self) -> &[u8] {
        match &self.state {
            State::Done(trailers) => trailers,
            _ => &[],
        }
    }
}

#[derive(Debug)]
struct Chunked {
    at: At,
    extension_budget: u32,
    /// Trailer lines as they came, and at the end those that may be passed on. Nothing is allocated until
    /// there is one.
    trailers: Vec<u8>,
}

/// What the next byte is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The size of a chunk.
    Size { digits: u8, size: u64 },
    /// An extension.
    Extension { part: Extension, size: u64 },
    /// The LF after a size or its extensions.
    SizeLf { size: u64 },
    /// The content of a chunk.
    Data { left: u64 },
    /// The CR after a chunk's content.
    DataCr,
    /// The LF after it.
    DataLf,
    /// The first byte of a line after the last chunk.
    TrailerStart,
    /// Inside a trailer line.
    Trailer,
    /// The LF of a trailer line.
    TrailerLf,
    /// The LF of the empty line that ends the body.
    EndLf,
    /// The body has ended.
    End,
}

/// Parts of `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 §7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    /// Whitespace before a semicolon.
    Before,
    /// After a semicolon.
    NameStart,
    Name,
    /// Whitespace after a name: an equals sign, a semicolon or the end may follow.
    AfterName,
    /// After an equals sign.
    ValueStart,
    Token,
    Quoted,
    /// After a backslash inside quotes.
    Escaped,
    /// After the closing quote.
    AfterQuoted,
}

impl Chunked {
    #[inline]
    fn decode(&mut self, buf: &[u8]) -> Result<Piece, Malformed> {
        let mut at = 0;
        let mut data = 0..0;
        while let Some(byte) = buf.get(at) {
            if let At::Data { left } = self.at {
                if !data.is_empty() {
                    break;
                }
                let run = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len() - at);
                data = at..at + run;
                at += run;
                let left = left - run as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
                let paid = u32::try_from(run).unwrap_or(u32::MAX);
                self.extension_budget = self.extension_budget.saturating_add(paid).min(EXTENSION_BYTES_MAX);
                continue;
            }
            match self.step(*byte) {
                Ok(next) => self.at = next,
                // The byte stays, so the next call meets the fault again, with nothing before it.
                Err(_) if !data.is_empty() => break,
                Err(fault) => return Err(fault),
            }
            at += 1;
            if self.at == At::End {
                break;
            }
        }
        Ok(Piece { consumed: at, data, done: self.at == At::End })
    }

    /// What comes after `byte`, which is not content.
    #[inline]
    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == 16 {
                    return Err(Malformed::bad("a chunk size has more than 16 digits (RFC 9112 §7.1)"));
                }
                let digit = if byte <= b'9' { byte - b'0' } else { (byte | 0x20) - b'a' + 10 };
                At::Size { digits: digits + 1, size: size << 4 | u64::from(digit) }
            }
            (At::Size { digits: 1.., size }, b'\r') => At::SizeLf { size },
            (At::Size { digits: 1.., size }, b';' | b' ' | b'\t') => {
                self.spend_extension_byte()?;
                At::Extension { part: Extension::Before.then(byte)?, size }
            }
            (At::Size { .. }, _) => {
                return Err(Malformed::bad("a chunk size is not hexadecimal (RFC 9112 §7.1)"));
            }
            (At::Extension { part, size }, b'\r') => match part {
                Extension::Name | Extension::AfterName | Extension::Token | Extension::AfterQuoted => {
                    At::SizeLf { size }
                }
                _ => return Err(BAD_EXTENSION),
            },
            (At::Extension { part, size }, _) => {
                self.spend_extension_byte()?;
                At::Extension { part: part.then(byte)?, size }
            }
            (At::SizeLf { size: 0 }, b'\n') => At::TrailerStart,
            (At::SizeLf { size }, b'\n') => At::Data { left: size },
            (At::SizeLf { .. }, _) => {
                return Err(Malformed::bad("a chunk size does not end in CRLF (RFC 9112 §7.1)"));
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { digits: 0, size: 0 },
            (At::DataCr | At::DataLf, _) => {
                return Err(Malformed::bad("a chunk is not followed by CRLF (RFC 9112 §7.1)"));
            }
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::EndLf, b'\n') => {
                self.trailers = permitted_trailers(&self.trailers)?;
                At::End
            }
            (At::TrailerLf, b'\n') => self.keep_trailer_byte(byte, At::TrailerStart)?,
            (At::TrailerStart | At::Trailer, b'\n') | (At::EndLf | At::TrailerLf, _) => {
                return Err(Malformed::bad("a trailer line does not end in CRLF (RFC 9112 §7.1.2)"));
            }
            (At::Trailer, b'\r') => self.keep_trailer_byte(byte, At::TrailerLf)?,
            (At::TrailerStart | At::Trailer, _) => self.keep_trailer_byte(byte, At::Trailer)?,
            // Data is taken in runs, and nothing is read after the end.
            (At::Data { .. } | At::End, _) => self.at,
        })
    }

    fn keep_trailer_byte(&mut self, byte: u8, next: At) -> Result<At, Malformed> {
        if self.trailers.len() == TRAILER_BYTES_MAX {
            return Err(Malformed::bad("the trailers are longer than allowed (RFC 9112 §7.1.2)"));
        }
        self.trailers.push(byte);
        Ok(next)
    }

    fn spend_extension_byte(&mut self) -> Result<(), Malformed> {
        match self.extension_budget.checked_sub(1) {
            Some(left) => self.extension_budget = left,
            None => {
                return Err(Malformed::bad("the chunk extensions are longer than allowed (RFC 9112 §7.1.1)"));
            }
        }
        Ok(())
    }
}

const BAD_EXTENSION: Malformed = Malformed::bad("a chunk extension is malformed (RFC 9112 §7.1.1)");

impl Extension {
    fn then(self, byte: u8) -> Result<Extension, Malformed> {
        use Extension::*;
        Ok(match (self, byte) {
            (Before, b' ' | b'\t') => Before,
            (Before | Name | AfterName | Token | AfterQuoted, b';') => NameStart,
            (NameStart, b' ' | b'\t') => NameStart,
            (NameStart | Name, _) if is_token_byte(byte) => Name,
            (Name | AfterName, b'=') => ValueStart,
            (Name | AfterName, b' ' | b'\t') => AfterName,
            (ValueStart, b' ' | b'\t') => ValueStart,
            (ValueStart, b'"') => Quoted,
            (ValueStart | Token, _) if is_token_byte(byte) => Token,
            // Whitespace after a value may only lead to the next semicolon.
            (Token | AfterQuoted, b' ' | b'\t') => Before,
            (Quoted, b'"') => AfterQuoted,
            (Quoted, b'\\') => Escaped,
            (Quoted | Escaped, b'\t' | b' '..=b'~' | 0x80..) => Quoted,
            _ => return Err(BAD_EXTENSION),
        })
    }
}

/// The lines of `raw`, each `name: value` and CRLF, that may be passed on as trailers, each written anew: without the names of
/// RFC 9110 §6.5.1.
///
/// # Errors
/// They are not all field lines, or more than [`MAX_HEADERS`].
pub fn permitted_trailers(raw: &[u8]) -> Result<Vec<u8>, Malformed> {
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    let mut whole = raw.to_vec();
    whole.extend_from_slice(b"\r\n");
    let mut space = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let lines = match httparse::parse_headers(&whole, &mut space) {
        Ok(httparse::Status::Complete((len, lines))) if len == whole.len() => lines,
        _ => return Err(Malformed::bad("a trailer is malformed (RFC 9112 §7.1.2)")),
    };
    let mut permitted = Vec::new();
    for line in lines {
        if !is_forbidden_trailer(line.name.as_bytes()) {
            permitted.extend_from_slice(line.name.as_bytes());
            permitted.extend_from_slice(b": ");
            permitted.extend_from_slice(line.value);
            permitted.extend_from_slice(b"\r\n");
        }
    }
    Ok(permitted)
}

/// Fields of framing, routing, authentication, request modifiers and content (RFC 9110 §6.5.1).
fn is_forbidden_trailer(name: &[u8]) -> bool {
    use Known::*;
    const PREFIXES: [&[u8]; 5] = [b"content-", b"x-forwarded-", b"access-control-", b"if-", b"proxy-"];
    const NAMES: [&[u8]; 9] = [
        b"age",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    let known = Known::of(name);
    known.is_hop_by_hop()
        || matches!(known, Host | Expect | Authorization | ApiKey | XApiKey | XGoogApiKey | Cookie | SetCookie)
        || matches!(known, CacheControl | Date | RetryAfter | Via | Forwarded | XRequestId | StrictTransportSecurity)
        || PREFIXES.iter().any(|prefix| name.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix)))
        || NAMES.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}
