//! One HTTP/1.1 exchange over one connection: what is sent to an endpoint, and the head of its answer.
//!
//! Not here: bodies (`wire::http1::Decoder`), retries, and what becomes of the answer.

use super::connection::Source;
use super::fields::{is_answer_field_passed, is_of_encoded_bytes};
use super::websocket::Upgrade;
use super::{Connection, ErrorKind, Phase, Slot, UpstreamError};
use std::task::Context;

use crate::base::Dialect;
use crate::wire::coding::Codings;
use crate::wire::http1::{
    Framing, HeadLimits, HeadScan, HeadSpace, Known, ResponseHead, end_head, parse_response, write_content_length,
    write_header, write_request_line,
};

/// Interim answers (1xx) that are passed over before the real one; more are a fault.
pub(super) const INTERIM_MAX: u32 = 32;

/// What is to be asked, apart from the body.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a str,
    /// The path below `/v1`, with its slash.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The dialect, which decides how the key is sent.
    pub dialect: Dialect,
    /// The client's field lines that are passed on, whole.
    pub fields: &'a [u8],
    /// The id sent as `x-request-id`.
    pub request_id: &'a str,
    /// Framing of the body that follows.
    pub framing: Framing,
    /// The codings that are taken, for a provider that is told.
    pub accept_encoding: Option<&'a str>,
    /// What the connection is to become; only on one of its own.
    pub upgrade: Option<Upgrade<'a>>,
}

impl Slot {
    /// Appends the head of a request to this endpoint.
    ///
    /// # Errors
    /// The target holds a byte that cannot be sent.
    pub fn write_head(&self, out: &mut Vec<u8>, ask: &Ask<'_>) -> Result<(), &'static str> {
        write_request_line(out, ask.method, &self.base_path, ask.path, ask.query)
            .map_err(|_| "the request target holds a byte that cannot be sent")?;
        out.extend_from_slice(&self.lines[usize::from(ask.dialect == Dialect::Anthropic)]);
        if let Some(codings) = ask.accept_encoding {
            // Taken from a value that was parsed, or our own.
            let _ = write_header(out, "accept-encoding", codings.as_bytes());
        }
        match ask.framing {
            Framing::Length(length) => write_content_length(out, length),
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        if let Some(upgrade) = &ask.upgrade {
            upgrade.nonce.write_lines(out, upgrade.protocols);
        }
        write_header(out, "x-request-id", ask.request_id.as_bytes()).map_err(|_| "the request id cannot be sent")?;
        out.extend_from_slice(ask.fields);
        end_head(out);
        Ok(())
    }

    /// An error of this endpoint.
    pub fn error(&self, phase: Phase, kind: ErrorKind) -> UpstreamError {
        UpstreamError { endpoint: self.name.clone(), phase, kind }
    }
}

/// How an answer's body is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A `text/event-stream`.
    Events,
    /// JSON.
    Json,
    /// Anything else: passes through unread.
    Opaque,
}

/// How an answer's body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Plain,
    /// So that it can be read.
    Known(Codings),
    /// In another way, or only a part of it came (206).
    Unknown,
}

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// Status, 200 to 599.
    pub status: u16,
    /// How the body ends.
    pub framing: Framing,
    /// What Content-Length says; in answer to HEAD there is one though no body follows.
    pub announced: Option<u64>,
    /// True if the connection may be used again afterwards.
    pub keep_alive: bool,
    /// What the body is.
    pub content: Content,
    /// How it is encoded.
    pub encoding: Encoding,
    /// True if it says when it was made.
    pub dated: bool,
    /// Field lines for the client, whole; the endpoint's own request id among them, under another name.
    pub fields: Vec<u8>,
}

/// An interim answer that is the client's to see: any but 100, which answers what we never ask (RFC 9110 §15.2).
#[derive(Debug)]
pub struct Interim {
    /// 102 to 199.
    pub status: u16,
    /// Field lines, whole.
    pub fields: Vec<u8>,
}

/// The field lines of `head` that are passed on.
fn passed_fields(head: &ResponseHead<'_, '_>) -> Vec<u8> {
    let mut fields = Vec::with_capacity(256);
    head.fields.copy_to(&mut fields, |field| {
        is_answer_field_passed(field) && !head.fields.connection_names(field.name.as_bytes())
    });
    fields
}

impl AnswerHead {
    pub(super) fn read(head: &ResponseHead<'_, '_>) -> AnswerHead {
        let mut fields = passed_fields(head);
        if let Some(id) = head.fields.get(Known::XRequestId) {
            // A value that was parsed can be written.
            let _ = write_header(&mut fields, "x-ringway-upstream-request-id", id);
        }
        let encoding = match head.fields.get(Known::ContentEncoding) {
            None => Encoding::Plain,
            Some(_) => encoding(head),
        };
        let media = head.fields.get(Known::ContentType).unwrap_or_default();
        let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let content = if media.eq_ignore_ascii_case(b"text/event-stream") {
            Content::Events
        } else if media.eq_ignore_ascii_case(b"application/json") {
            Content::Json
        } else {
            Content::Opaque
        };
        let announced = head.fields.get(Known::ContentLength);
        let announced = announced.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        AnswerHead {
            status: head.status,
            announced,
            framing: head.framing,
            keep_alive: head.keep_alive,
            content,
            encoding,
            dated: head.fields.get(Known::Date).is_some(),
            fields,
        }
    }

    /// The client is sent the body decoded: takes out what was said of the encoded one.
    pub fn forget_coding(&mut self) {
        let lines = std::mem::take(&mut self.fields);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let (name, value) = line.split_at(memchr::memchr(b':', line).unwrap_or(0));
            if is_of_encoded_bytes(name) {
                continue;
            }
            if name.eq_ignore_ascii_case(b"etag") {
                // Not the same bytes any more, but the same meaning (RFC 9110 §8.8.1).
                let value = value.trim_ascii_start().strip_prefix(b":").unwrap_or(value).trim_ascii();
                let weak = if value.starts_with(b"W/") { value.to_vec() } else { [b"W/", value].concat() };
                // A value that was parsed can be written.
                let _ = write_header(&mut self.fields, "etag", &weak);
                continue;
            }
            self.fields.extend_from_slice(line);
        }
        self.fields.extend_from_slice(b"vary: accept-encoding\r\n");
    }
}

fn encoding(head: &ResponseHead<'_, '_>) -> Encoding {
    let lines = head.fields.iter().filter(|field| field.known == Known::ContentEncoding);
    match Codings::read(lines.map(|field| field.value)) {
        Ok(None) => Encoding::Plain,
        Ok(Some(codings)) if head.status != 206 => Encoding::Known(codings),
        _ => Encoding::Unknown,
    }
}

/// What has been seen of an answer before its head was whole.
#[derive(Debug, Default)]
pub struct Ahead {
    scan: HeadScan,
    /// Interim answers (1xx) so far.
    interim: u32,
    /// Another one has come than may.
    flooded: bool,
    /// Those of them that are to be passed on.
    kept: Vec<Interim>,
}

impl Ahead {
    /// True if another interim answer has come than may.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// An interim answer has come; false if there were too many.
    fn keep(&mut self, head: &ResponseHead<'_, '_>) -> bool {
        self.scan = HeadScan::default();
        self.interim += 1;
        if head.status != 100 && self.interim <= INTERIM_MAX {
            self.kept.push(Interim { status: head.status, fields: passed_fields(head) });
        }
        self.interim <= INTERIM_MAX
    }
}

/// Ready when an answer, or the connection's end, has begun to come while a request is still being sent. Interim
/// answers (1xx) are none and are kept for later, as long as they are not too many.
pub(super) fn poll_answer(
    input: &mut impl Source,
    ahead: &mut Ahead,
    limits: &HeadLimits,
    cx: &mut Context<'_>,
) -> bool {
    let mut known = 0;
    while input.poll_news(cx, known) {
        // The end and an error are news in any case.
        if !input.is_eof() && !ahead.scan.is_due(input.bytes()) {
            known = input.bytes().len();
            continue;
        }
        let mut space = HeadSpace::new();
        match parse_response(input.bytes(), limits, false, &mut space) {
            Ok(Some(head)) if head.is_interim && ahead.interim < INTERIM_MAX => {
                let len = head.len;
                ahead.keep(&head);
                input.consume(len);
                known = 0;
            }
            // Not yet to be told.
            Ok(None) if !input.is_eof() => known = input.bytes().len(),
            answer => {
                ahead.flooded = answer.is_ok_and(|head| head.is_some_and(|head| head.is_interim));
                return true;
            }
        }
    }
    false
}

impl Connection {
    /// Waits for the head of the answer and consumes it; `on_first_byte` is called once, when anything of it is there. `None` if
    /// interim answers have come that are to be passed on before ([`Connection::take_interim`]). Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The connection failed or closed, or what came is not an HTTP/1.1 answer.
    pub async fn answer_head(
        &mut self,
        limits: &HeadLimits,
        to_head: bool,
        on_first_byte: impl FnOnce(),
    ) -> Result<Option<AnswerHead>, UpstreamError> {
        // What was seen while the request was being sent has to be looked at again.
        self.ahead.scan = HeadScan::default();
        let (mut first, mut on_first_byte) = (true, Some(on_first_byte));
        loop {
            if !self.bytes().is_empty()
                && let Some(tell) = on_first_byte.take()
            {
                tell();
            }
            // They may have been kept while the one before was passed on, with the answer behind them.
            if !self.ahead.kept.is_empty() {
                return Ok(None);
            }
            // What comes first is mostly all of it.
            if !self.bytes().is_empty() && (std::mem::take(&mut first) || self.is_head_due()) {
                match self.next_head(limits, to_head)? {
                    Some(Some(head)) => return Ok(Some(head)),
                    Some(None) => continue,
                    None => {}
                }
            }
            let nothing_came = self.bytes().is_empty() && self.ahead.interim == 0;
            let phase = if nothing_came { Phase::FirstByte } else { Phase::Head };
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return Err(self.slot.error(phase, ErrorKind::Closed { reused: self.may_be_stale() })),
                Err(error) => return Err(self.io_error(phase, error)),
            }
        }
    }

    /// Interim answers that have come, in their order, to be passed on.
    pub fn take_interim(&mut self) -> Vec<Interim> {
        std::mem::take(&mut self.ahead.kept)
    }

    fn is_head_due(&mut self) -> bool {
        let Connection { carrier, ahead, .. } = self;
        ahead.scan.is_due(carrier.bytes())
    }

    /// `Some(None)` for an interim head.
    fn next_head(&mut self, limits: &HeadLimits, to_head: bool) -> Result<Option<Option<AnswerHead>>, UpstreamError> {
        let Connection { carrier, ahead, slot, .. } = self;
        let malformed = |why| Err(slot.error(Phase::Head, ErrorKind::Malformed(why)));
        let mut space = HeadSpace::new();
        let head = match parse_response(carrier.bytes(), limits, to_head, &mut space) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(error) => return malformed(error.reason),
        };
        let len = head.len;
        let answer = match head.status {
            _ if head.is_interim && !ahead.keep(&head) => return malformed("too many interim answers"),
            _ if head.is_interim => None,
            101 => return malformed("it switched protocols without being asked"),
            _ => Some(AnswerHead::read(&head)),
        };
        self.consume(len);
        Ok(Some(answer))
    }

    /// A socket's error, told apart from a reused connection that had been closed under us.
    pub fn io_error(&self, phase: Phase, error: std::io::Error) -> UpstreamError {
        // Over TLS, most who close a kept connection don't say so first.
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
        let kind = match (self.refused(), error.kind()) {
            (Some(leaving), _) => ErrorKind::Refused { leaving },
            (None, BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
                if phase <= Phase::FirstByte && self.may_be_stale() =>
            {
                ErrorKind::Closed { reused: true }
            }
            _ => ErrorKind::Io(error),
        };
        self.slot.error(phase, kind)
    }
}
