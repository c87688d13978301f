//! Response heads: status line, framing, and whether the connection can carry another request.

use super::fields::{self, Facts};
use super::request::fields_fault;
use super::{Fields, Framing, HeadLimits, HeadSpace, Malformed, Version};

/// The head of a response, borrowed from the buffer it was read into.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead<'h, 'b> {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Reason phrase; empty if there is none or if it is not ASCII.
    pub reason: &'b str,
    /// Protocol version.
    pub version: Version,
    /// The field lines.
    pub fields: Fields<'h, 'b>,
    /// Bytes of the buffer that the head takes. The body begins here.
    pub len: usize,
    /// How the body ends (RFC 9112 §6.3).
    pub framing: Framing,
    /// True if the connection can carry another request once the body has ended.
    pub keep_alive: bool,
    /// True for an interim answer (1xx but 101): another head follows it.
    pub is_interim: bool,
}

/// Reads a response head from the front of `buf`; `None` if more bytes are needed.
///
/// `request_was_head`: the response answers a HEAD request, so it has no body whatever its fields say. A 101
/// is given back as a last answer without a body; refuse it unless an upgrade was asked for.
///
/// # Errors
/// Always 502: what breaks the grammar, could be read in two ways, or passes a limit, complete or not.
#[inline]
pub fn parse_response<'h, 'b>(
    buf: &'b [u8],
    limits: &HeadLimits,
    request_was_head: bool,
    space: &'h mut HeadSpace<'b>,
) -> Result<Option<ResponseHead<'h, 'b>>, Malformed> {
    parse(buf, limits, request_was_head, space).map_err(Malformed::in_response)
}

#[inline]
fn parse<'h, 'b>(
    buf: &'b [u8],
    limits: &HeadLimits,
    request_was_head: bool,
    space: &'h mut HeadSpace<'b>,
) -> Result<Option<ResponseHead<'h, 'b>>, Malformed> {
    if let Some(b'\r' | b'\n') = buf.first() {
        return Err(Malformed::bad("an empty line before a response (RFC 9112 §4)"));
    }
    let HeadSpace { raw, known } = space;
    let room = limits.headers_max.min(raw.len());
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        buf,
        raw.get_mut(..room).unwrap_or_default(),
    );
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) if len <= limits.head_bytes_max => len,
        // An end still to come would be at least one byte more.
        Ok(httparse::Status::Partial) if buf.len() < limits.head_bytes_max => return Ok(None),
        Ok(_) => return Err(Malformed::bad("the head is longer than allowed")),
        Err(error) => return Err(fields_fault(error)),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Ok(None);
    };
    if !(100..=599).contains(&status) {
        return Err(Malformed::bad("the status is not within 100 to 599 (RFC 9110 §15)"));
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let head = buf.get(..len).unwrap_or_default();
    let Facts { fields, length, chunked, close, keep_alive, .. } =
        fields::read(head, response.headers, known, version == Version::Http10)?;

    let has_no_body = matches!(status, 100..=199 | 204);
    let framing = match length {
        _ if request_was_head || has_no_body || status == 304 => Framing::None,
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    // A body announced where none can be: the peer may well send it, and it would be read as the next head.
    let announces_what_cannot_be = has_no_body && (chunked || length.is_some_and(|length| length > 0));
    let keep_alive = !close
        && (version == Version::Http11 || keep_alive)
        && framing != Framing::UntilClose
        && !announces_what_cannot_be
        && status != 101;
    Ok(Some(ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        version,
        fields,
        len,
        framing,
        keep_alive,
        is_interim: status < 200 && status != 101,
    }))
}
