//! Request heads: request line, framing, and what the connection does afterwards.

use super::fields::{self, Facts};
use super::{Fields, Form, Framing, HeadLimits, HeadSpace, Malformed, Target, Version, target};

/// A longer method is answered with 501 (RFC 9112 §3).
pub const METHOD_BYTES_MAX: usize = 32;

/// The head of a request, borrowed from the buffer it was read into.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'h, 'b> {
    /// The method: a token, case-sensitive, at most [`METHOD_BYTES_MAX`] bytes. May be `CONNECT`.
    pub method: &'b str,
    /// What is asked for.
    pub target: Target<'b>,
    /// Protocol version.
    pub version: Version,
    /// The field lines.
    pub fields: Fields<'h, 'b>,
    /// Host and port: the absolute or authority form's, else the Host field's; `None` only in HTTP/1.0.
    pub host: Option<&'b str>,
    /// Bytes of the buffer that the head takes, with empty lines before it. The body begins here.
    pub len: usize,
    /// How the body ends. Never [`Framing::UntilClose`].
    pub framing: Framing,
    /// True if the client will take another answer on this connection.
    pub keep_alive: bool,
    /// True if the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

/// Reads a request head from the front of `buf`; `None` if more bytes are needed.
///
/// Up to two empty lines before it are skipped (RFC 9112 §2.2). Bytes after the head are not looked at.
///
/// # Errors
/// 400 for what breaks the grammar or could be read in two ways; 414 and 431 as soon as a limit is passed,
/// complete or not; 417 for an expectation other than `100-continue`; 501 for a transfer coding other than
/// chunked or a very long method; 505 for a version other than 1.0 and 1.1.
#[inline]
pub fn parse_request<'h, 'b>(
    buf: &'b [u8],
    limits: &HeadLimits,
    space: &'h mut HeadSpace<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, Malformed> {
    let skipped = if buf.first() == Some(&b'\r') { skip_empty_lines(buf)? } else { 0 };
    let buf = buf.get(skipped..).unwrap_or_default();
    if buf.first() == Some(&b'\n') {
        return Err(fields::BARE_LF);
    }
    let HeadSpace { raw, known } = space;
    let room = limits.headers_max.min(raw.len());
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(buf, raw.get_mut(..room).unwrap_or_default());
    if let Some(method) = request.method
        && method.len() > METHOD_BYTES_MAX
    {
        return Err(LONG_METHOD);
    }
    if let Some(path) = request.path
        && path.len() > limits.target_bytes_max
    {
        return Err(LONG_TARGET);
    }
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) if len <= limits.head_bytes_max => len,
        Ok(httparse::Status::Complete(_)) => return Err(LONG_HEAD),
        Ok(httparse::Status::Partial) => {
            return check_incomplete(buf, &request, limits).map(|()| None);
        }
        Err(error) => return Err(fault(error, buf)),
    };
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
        return Ok(None);
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let target = Target::parse(method, path)?;
    let head = buf.get(..len).unwrap_or_default();
    let Facts { fields, host, length, chunked, close, keep_alive, expect_continue } =
        fields::read(head, request.headers, known, version == Version::Http10)?;

    let host = match host {
        Some(host) => {
            target::check_authority(host)?;
            std::str::from_utf8(host).ok()
        }
        None if version == Version::Http11 => {
            return Err(Malformed::bad("no Host in HTTP/1.1 (RFC 9112 §3.2)"));
        }
        None => None,
    };
    let host = if matches!(target.form, Form::Absolute | Form::Authority) { target.authority } else { host };
    let framing = match length {
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::None,
    };
    let keep_alive = !close && (version == Version::Http11 || keep_alive);
    let expect_continue = match expect_continue {
        // HTTP/1.0 has no expectations (RFC 9110 §10.1.1).
        Some(_) if version == Version::Http10 => false,
        Some(false) => {
            return Err(Malformed::new(417, "an expectation other than 100-continue (RFC 9110 §10.1.1)"));
        }
        Some(true) => !matches!(framing, Framing::None | Framing::Length(0)),
        None => false,
    };
    Ok(Some(RequestHead {
        method,
        target,
        version,
        fields,
        host,
        len: skipped + len,
        framing,
        keep_alive,
        expect_continue,
    }))
}

const LONG_METHOD: Malformed = Malformed::new(501, "the method is longer than any we know (RFC 9112 §3)");
const LONG_TARGET: Malformed = Malformed::new(414, "the target is longer than allowed (RFC 9110 §15.5.15)");
const LONG_HEAD: Malformed = Malformed::new(431, "the head is longer than allowed (RFC 6585 §5)");

/// How many bytes of empty lines come first. Half of a line end at the end of `buf` waits for the rest.
#[cold]
fn skip_empty_lines(buf: &[u8]) -> Result<usize, Malformed> {
    let mut at = 0;
    while let Some(b'\r') = buf.get(at) {
        match buf.get(at + 1) {
            Some(b'\n') if at < 4 => at += 2,
            Some(b'\n') => {
                return Err(Malformed::bad("more than two empty lines before a request (RFC 9112 §2.2)"));
            }
            Some(_) => {
                return Err(Malformed::bad("a CR without LF before a request (RFC 9112 §2.2)"));
            }
            None => break,
        }
    }
    // A lone CR stays: the parser calls it incomplete.
    Ok(at)
}

/// The limits, for a head whose end is not in sight.
fn check_incomplete(buf: &[u8], request: &httparse::Request<'_, '_>, limits: &HeadLimits) -> Result<(), Malformed> {
    if request.method.is_none() && buf.len() > METHOD_BYTES_MAX {
        return Err(LONG_METHOD);
    }
    if let (Some(method), None) = (request.method, request.path) {
        // One space lies between them.
        if buf.len().saturating_sub(method.len() + 1) > limits.target_bytes_max {
            return Err(LONG_TARGET);
        }
    }
    // Its end would be at least one byte more.
    if buf.len() >= limits.head_bytes_max { Err(LONG_HEAD) } else { Ok(()) }
}

#[cold]
fn fault(error: httparse::Error, buf: &[u8]) -> Malformed {
    match error {
        httparse::Error::TooManyHeaders => Malformed::new(431, "more fields than allowed (RFC 6585 §5)"),
        httparse::Error::Version => {
            let version = buf.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
            match version.strip_prefix(b"HTTP/") {
                // Told by the first byte that is not ours, wherever the network cuts what follows.
                Some([b'0' | b'2'..=b'9', ..] | [b'1', b'.', b'2'..=b'9', ..]) => {
                    Malformed::new(505, "a version other than HTTP/1.0 and HTTP/1.1 (RFC 9112 §2.3)")
                }
                _ => Malformed::bad("the request line does not end in a version (RFC 9112 §3)"),
            }
        }
        error => fields_fault(error),
    }
}

/// What httparse refuses in requests and responses alike.
pub(super) fn fields_fault(error: httparse::Error) -> Malformed {
    Malformed::bad(match error {
        httparse::Error::HeaderName => "a field name is not a token right before its colon (RFC 9112 §5)",
        httparse::Error::HeaderValue => "a field value holds a control byte (RFC 9110 §5.5)",
        httparse::Error::NewLine => "a line of the head does not end in CRLF (RFC 9112 §2.2)",
        httparse::Error::Token => "the request line is not method, target and version (RFC 9112 §3)",
        httparse::Error::Version => "the version is neither HTTP/1.0 nor HTTP/1.1 (RFC 9112 §2.3)",
        httparse::Error::Status => "the status line is malformed (RFC 9112 §4)",
        httparse::Error::TooManyHeaders => "more fields than allowed (RFC 6585 §5)",
    })
}
