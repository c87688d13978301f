//! Writing heads and chunks: appends to a `Vec<u8>` and never lets a value end its own line.

use std::fmt;

/// A name or value that would break out of its place in the message; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unwritable(&'static str);

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unwritable {}

/// Appends `METHOD base rest[?query] HTTP/1.1`, with base and rest joined as they are; no `?` for no query.
///
/// # Errors
/// [`Unwritable`] if a part holds a byte outside visible ASCII, or method or path is empty.
#[inline]
pub fn write_request_line(
    out: &mut Vec<u8>,
    method: &str,
    path_base: &str,
    path_rest: &str,
    query: Option<&str>,
) -> Result<(), Unwritable> {
    let is_visible = |part: &str| part.bytes().fold(true, |all, byte| all & (0x21..0x7f).contains(&byte));
    if method.is_empty() || path_base.len() + path_rest.len() == 0 {
        return Err(Unwritable("the method or the path is empty"));
    }
    if ![method, path_base, path_rest, query.unwrap_or_default()].into_iter().all(is_visible) {
        return Err(Unwritable("the request line would hold a space or a control byte"));
    }
    out.reserve(method.len() + path_base.len() + path_rest.len() + query.map_or(0, str::len) + 13);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path_base.as_bytes());
    out.extend_from_slice(path_rest.as_bytes());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

/// Appends `name: value`.
///
/// Lines that came from a peer are better copied with [`Fields::copy_to`](super::Fields::copy_to), which
/// need not check them again.
///
/// # Errors
/// [`Unwritable`] if the name is not a token, or the value holds a control byte other than tab.
#[inline]
pub fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), Unwritable> {
    // Folds without a branch become vector code.
    let is_token = name.bytes().fold(!name.is_empty(), |all, byte| all & super::fields::is_token_byte(byte));
    let is_text = value.iter().fold(true, |all, byte| all & ((*byte >= 0x20 && *byte != 0x7f) | (*byte == b'\t')));
    if !is_token {
        return Err(Unwritable("a field name is not a token"));
    }
    if !is_text {
        return Err(Unwritable("a field value holds a control byte"));
    }
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends `content-length: length`.
#[inline]
pub fn write_content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends the empty line that ends a head.
#[inline]
pub fn end_head(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the line that opens a chunk of `len` bytes. `len` is at least 1: an empty chunk would be the last.
#[inline]
pub fn begin_chunk(out: &mut Vec<u8>, len: usize) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    let mut line = [0; 18];
    let mut at = line.len();
    let mut rest = len;
    for byte in [b'\n', b'\r'] {
        at -= 1;
        line[at] = byte;
    }
    loop {
        at -= 1;
        line[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&line[at..]);
}

/// Appends the line end that closes a chunk.
#[inline]
pub fn end_chunk(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and `trailers`: whole lines, as [`Decoder::trailers`](super::Decoder::trailers)
/// gives them or as [`write_header`] wrote them; may be empty.
#[inline]
pub fn last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    debug_assert!(trailers.is_empty() || trailers.ends_with(b"\r\n"), "trailers are whole lines");
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

macro_rules! status_lines {
    ($($code:literal $reason:literal,)*) => {
        /// Appends an HTTP/1.1 status line with the registry's reason phrase, or none for an unregistered
        /// code. `status` is 100 to 999; anything else is written as 500.
        #[inline]
        pub fn write_status_line(out: &mut Vec<u8>, status: u16) {
            let line: &[u8] = match status {
                $($code => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n").as_bytes(),)*
                100..=999 => return write_unregistered(out, status),
                _ => return write_status_line(out, 500),
            };
            out.extend_from_slice(line);
        }

        #[cfg(test)]
        pub(super) const REGISTERED: &[(u16, &str)] = &[$(($code, $reason),)*];
    };
}

// IANA's registry of HTTP status codes.
status_lines! {
    200 "OK",
    100 "Continue", 101 "Switching Protocols", 102 "Processing", 103 "Early Hints", 201 "Created", 202 "Accepted",
    203 "Non-Authoritative Information", 204 "No Content", 205 "Reset Content", 206 "Partial Content",
    207 "Multi-Status", 208 "Already Reported", 226 "IM Used", 300 "Multiple Choices", 301 "Moved Permanently",
    302 "Found", 303 "See Other", 304 "Not Modified", 305 "Use Proxy", 307 "Temporary Redirect",
    308 "Permanent Redirect", 400 "Bad Request", 401 "Unauthorized", 402 "Payment Required", 403 "Forbidden",
    404 "Not Found", 405 "Method Not Allowed", 406 "Not Acceptable", 407 "Proxy Authentication Required",
    408 "Request Timeout", 409 "Conflict", 410 "Gone", 411 "Length Required", 412 "Precondition Failed",
    413 "Content Too Large", 414 "URI Too Long", 415 "Unsupported Media Type", 416 "Range Not Satisfiable",
    417 "Expectation Failed", 421 "Misdirected Request", 422 "Unprocessable Content", 423 "Locked",
    424 "Failed Dependency", 425 "Too Early", 426 "Upgrade Required", 428 "Precondition Required",
    429 "Too Many Requests", 431 "Request Header Fields Too Large", 451 "Unavailable For Legal Reasons",
    500 "Internal Server Error", 501 "Not Implemented", 502 "Bad Gateway", 503 "Service Unavailable",
    504 "Gateway Timeout", 505 "HTTP Version Not Supported", 506 "Variant Also Negotiates",
    507 "Insufficient Storage", 508 "Loop Detected", 511 "Network Authentication Required",
}

#[cold]
fn write_unregistered(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    // The space stays though no reason follows (RFC 9112 §4).
    out.extend_from_slice(b" \r\n");
}
