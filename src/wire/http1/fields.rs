//! The field lines of a head: classified in one pass, looked up without comparing names again.
//!
//! This pass also finds all that frames the message ([`Facts`]); what that means for a request or a response
//! is for `request` and `response` to say.

use std::mem::MaybeUninit;

use super::{Known, Malformed};

/// The most field lines a head may have, whatever the limits say.
pub const MAX_HEADERS: usize = 128;

/// The elements of a comma-separated list, without the whitespace around them; empty ones are left out
/// (RFC 9110 §5.6.1.2). Knows no quoted strings: it is for lists of tokens.
pub fn list_tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Room for one head's field lines; make it on the stack for each parse (4 KiB, not initialised).
pub struct HeadSpace<'b> {
    pub(super) raw: [MaybeUninit<httparse::Header<'b>>; MAX_HEADERS],
    pub(super) known: [Known; MAX_HEADERS],
}

impl HeadSpace<'_> {
    /// Empty room.
    #[inline]
    pub const fn new() -> Self {
        HeadSpace { raw: [const { MaybeUninit::uninit() }; MAX_HEADERS], known: [Known::Other; MAX_HEADERS] }
    }
}

impl Default for HeadSpace<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as sent: a token.
    pub name: &'b str,
    /// The value without surrounding whitespace: tab, space, visible ASCII and bytes from 0x80.
    pub value: &'b [u8],
    /// Which name it is.
    pub known: Known,
}

/// The field lines of a head, in order.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'h, 'b> {
    head: &'b [u8],
    raw: &'h [httparse::Header<'b>],
    known: &'h [Known],
    seen: u64,
    repeated: u64,
    nominates: bool,
}

impl<'h, 'b> Fields<'h, 'b> {
    /// Number of field lines.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// All lines, in order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Field<'b>> + use<'h, 'b> {
        let lines = self.raw.iter().zip(self.known);
        lines.map(|(raw, known)| Field { name: raw.name, value: raw.value, known: *known })
    }

    /// The value of the first line with this name. [`Fields::is_repeated`] says whether there are more.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&'b [u8]> {
        if self.seen & known.bit() == 0 {
            return None;
        }
        let at = self.known.iter().position(|at| *at == known)?;
        Some(self.raw.get(at)?.value)
    }

    /// The value of the first line with this name, in any case; for names that are not [`Known`].
    pub fn get_named(&self, name: &[u8]) -> Option<&'b [u8]> {
        let line = self.raw.iter().find(|raw| raw.name.as_bytes().eq_ignore_ascii_case(name))?;
        Some(line.value)
    }

    /// True if a known name has more than one line.
    #[inline]
    pub fn is_repeated(&self, known: Known) -> bool {
        self.repeated & known.bit() != 0
    }

    /// True if a `Connection` field nominates this name (RFC 9110 §7.6.1).
    #[inline]
    pub fn connection_names(&self, name: &[u8]) -> bool {
        self.nominates && self.search_connection(name)
    }

    /// Appends the lines that `keep` says yes to, as they were sent, in order. Neighbours are copied
    /// together, so this costs little more than asking `keep`.
    #[inline]
    pub fn copy_to(&self, out: &mut Vec<u8>, mut keep: impl FnMut(&Field<'b>) -> bool) {
        let mut run: Option<usize> = None;
        for field in self.iter() {
            let at = offset(self.head, field.name);
            match (keep(&field), run) {
                (true, None) => run = Some(at),
                (false, Some(start)) => {
                    out.extend_from_slice(self.head.get(start..at).unwrap_or_default());
                    run = None;
                }
                _ => {}
            }
        }
        if let Some(start) = run {
            // All but the empty line.
            out.extend_from_slice(self.head.get(start..self.head.len() - 2).unwrap_or_default());
        }
    }

    fn search_connection(&self, name: &[u8]) -> bool {
        let connection = self.iter().filter(|field| field.known == Known::Connection);
        connection.flat_map(|field| list_tokens(field.value)).any(|token| token.eq_ignore_ascii_case(name))
    }
}

/// What the fields say about framing and the connection, before the rules of a request or response.
#[derive(Debug)]
pub(super) struct Facts<'h, 'b> {
    pub(super) fields: Fields<'h, 'b>,
    pub(super) host: Option<&'b [u8]>,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// `None` without `Expect`; else whether it says `100-continue` and nothing else.
    pub(super) expect_continue: Option<bool>,
}

/// Reads the parsed lines of `head`, which spans from its start line to its empty line.
///
/// # Errors
/// A line that does not end in CRLF; fields that frame the message in more than one way, or in an unknown one.
#[inline]
pub(super) fn read<'h, 'b>(
    head: &'b [u8],
    raw: &'h [httparse::Header<'b>],
    known_space: &'h mut [Known; MAX_HEADERS],
    is_http10: bool,
) -> Result<Facts<'h, 'b>, Malformed> {
    if !head.ends_with(b"\r\n\r\n") {
        return Err(BARE_LF);
    }
    let (mut seen, mut repeated, mut nominates) = (0_u64, 0_u64, false);
    let (mut host, mut length, mut chunked) = (None, None, false);
    let (mut close, mut keep_alive, mut expect_continue) = (false, false, None);
    for (line, slot) in raw.iter().zip(known_space.iter_mut()) {
        // httparse lets a bare LF end a line. Each name starts right after a line end, so one look at the
        // byte before that LF tells.
        let before = offset(head, line.name).checked_sub(2).and_then(|at| head.get(at));
        if before != Some(&b'\r') {
            return Err(BARE_LF);
        }
        let known = Known::of(line.name.as_bytes());
        *slot = known;
        repeated |= seen & known.bit();
        seen |= known.bit();
        match known {
            Known::ContentLength => length = Some(content_length(line.value)?),
            Known::TransferEncoding => {
                transfer_encoding(line.value)?;
                chunked = true;
            }
            Known::Host => host = Some(line.value),
            Known::Connection => {
                for token in list_tokens(line.value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        close = true;
                    } else if token.eq_ignore_ascii_case(b"keep-alive") {
                        keep_alive = true;
                    } else if !Known::of(token).is_hop_by_hop() {
                        nominates = true;
                    }
                }
            }
            Known::Expect => {
                let is_continue = line.value.eq_ignore_ascii_case(b"100-continue");
                expect_continue = Some(is_continue && expect_continue != Some(false));
            }
            _ => {}
        }
    }
    const ONCE: u64 = Known::bit(Known::ContentLength) | Known::bit(Known::TransferEncoding) | Known::bit(Known::Host);
    if repeated & ONCE != 0 {
        return Err(Malformed::bad(if repeated & Known::Host.bit() != 0 {
            "Host more than once (RFC 9112 §3.2)"
        } else if repeated & Known::ContentLength.bit() != 0 {
            "Content-Length more than once (RFC 9112 §6.3)"
        } else {
            "Transfer-Encoding more than once (RFC 9112 §6.1)"
        }));
    }
    if chunked && length.is_some() {
        return Err(Malformed::bad("Content-Length beside Transfer-Encoding (RFC 9112 §6.1)"));
    }
    if chunked && is_http10 {
        return Err(Malformed::bad("Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1)"));
    }
    let known = known_space.get(..raw.len()).unwrap_or_default();
    let fields = Fields { head, raw, known, seen, repeated, nominates };
    Ok(Facts { fields, host, length, chunked, close, keep_alive, expect_continue })
}

pub(super) const BARE_LF: Malformed = Malformed::bad("a line of the head ends in LF without CR (RFC 9112 §2.2)");

/// Where `part`, a piece of `whole`, begins in it.
fn offset(whole: &[u8], part: &str) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    // 19 digits always fit.
    if value.is_empty() || value.len() > 19 {
        return Err(Malformed::bad("Content-Length is empty or too large (RFC 9112 §6.3)"));
    }
    let mut length = 0;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(Malformed::bad("Content-Length is not one decimal number (RFC 9110 §8.6)"));
        }
        length = length * 10 + u64::from(byte - b'0');
    }
    Ok(length)
}

fn transfer_encoding(value: &[u8]) -> Result<(), Malformed> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let chunked = list_tokens(value).filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    let chunked_is_last = list_tokens(value).last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let all_tokens = list_tokens(value).all(|coding| coding.iter().all(|byte| is_token_byte(*byte)));
    if value.is_empty() || !all_tokens || list_tokens(value).next().is_none() {
        Err(Malformed::bad("Transfer-Encoding is not a list of codings (RFC 9112 §6.1)"))
    } else if chunked > 1 || (chunked == 1 && !chunked_is_last) {
        Err(Malformed::bad("chunked is not the last coding, once (RFC 9112 §6.1)"))
    } else if chunked == 1 && list_tokens(value).count() == 1 {
        Err(Malformed::bad("Transfer-Encoding has empty elements (RFC 9110 §5.6.1)"))
    } else {
        Err(Malformed::new(501, "a transfer coding other than chunked (RFC 9112 §6.1)"))
    }
}

/// True for the bytes of a token (RFC 9110 §5.6.2).
#[inline]
pub(in crate::wire) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[byte as usize]
}

static TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        table[at] = byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'"' | b'('
                    | b')'
                    | b','
                    | b'/'
                    | b':'
                    | b';'
                    | b'<'
                    | b'='
                    | b'>'
                    | b'?'
                    | b'@'
                    | b'['
                    | b'\\'
                    | b']'
                    | b'{'
                    | b'}'
            );
        at += 1;
    }
    table
};
