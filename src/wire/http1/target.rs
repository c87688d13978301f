//! The request target and the Host field: what was asked for, and of whom (RFC 9112 §3.2).

use super::Malformed;

/// Which of the four forms a target has (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A path, perhaps with a query.
    Origin,
    /// A whole `http` or `https` URI.
    Absolute,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// A request target, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'b> {
    /// Its form.
    pub form: Form,
    /// The path: starts with `/`, or is `*`, or is empty for CONNECT. Never holds a dot segment.
    pub path: &'b str,
    /// What follows the first `?`, without it.
    pub query: Option<&'b str>,
    /// Host and port of the absolute or authority form.
    pub authority: Option<&'b str>,
}

const PATH: u8 = 1;
const QUERY: u8 = 2;
/// May begin a dot segment or an escape: look closer.
const CLOSER: u8 = 4;
const HOST: u8 = 8;

/// What each byte may stand in. Beyond RFC 3986 these are allowed, because browsers send them as they are:
/// in both `[` `]` `|`; in a query also `\` `^` `` ` `` `{` `}`.
static CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut at = b'!' as usize;
    while at < 0x7f {
        class[at] = match at as u8 {
            b'"' | b'#' | b'<' | b'>' => 0,
            b'\\' | b'^' | b'`' | b'{' | b'}' | b'?' => QUERY,
            b'.' => PATH | QUERY | CLOSER | HOST,
            b'%' => PATH | QUERY | CLOSER,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => PATH | QUERY | HOST,
            _ => PATH | QUERY,
        };
        at += 1;
    }
    class
};

impl<'b> Target<'b> {
    #[inline]
    pub(super) fn parse(method: &str, raw: &'b str) -> Result<Target<'b>, Malformed> {
        if method == "CONNECT" {
            check_authority(raw.as_bytes())?;
            return Ok(Target { form: Form::Authority, path: "", query: None, authority: Some(raw) });
        }
        if raw.starts_with('/') {
            let (path, query) = path_and_query(raw)?;
            return Ok(Target { form: Form::Origin, path, query, authority: None });
        }
        if raw == "*" {
            if method != "OPTIONS" {
                return Err(Malformed::bad("the target * is for OPTIONS only (RFC 9112 §3.2.4)"));
            }
            return Ok(Target { form: Form::Asterisk, path: "*", query: None, authority: None });
        }
        Target::absolute(method, raw)
    }

    #[cold]
    fn absolute(method: &str, raw: &'b str) -> Result<Target<'b>, Malformed> {
        let Some((scheme, rest)) = raw.split_once("://") else {
            return Err(Malformed::bad("the target is neither a path nor an absolute URI (RFC 9112 §3.2)"));
        };
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Malformed::bad("the target's scheme is neither http nor https (RFC 9110 §4.2)"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        check_authority(authority.as_bytes())?;
        let (path, query) = match rest.as_bytes().first() {
            // The empty path is `*` for OPTIONS (RFC 9112 §3.2.4), else `/` (RFC 9110 §4.2.3).
            None if method == "OPTIONS" => ("*", None),
            None => ("/", None),
            Some(b'/') => path_and_query(rest)?,
            _ => ("/", path_and_query(rest)?.1),
        };
        Ok(Target { form: Form::Absolute, path, query, authority: Some(authority) })
    }
}

#[inline]
fn path_and_query(raw: &str) -> Result<(&str, Option<&str>), Malformed> {
    let mut seen = 0;
    let mut end = raw.len();
    for (at, byte) in raw.bytes().enumerate() {
        let class = CLASS[byte as usize];
        if class & PATH == 0 {
            if byte != b'?' {
                return Err(Malformed::bad("the target's path holds a byte that no path may (RFC 3986 §3.3)"));
            }
            end = at;
            break;
        }
        seen |= class;
    }
    let path = raw.get(..end).unwrap_or_default();
    if seen & CLOSER != 0 {
        check_segments(path)?;
    }
    let Some(query) = raw.get(end + 1..) else {
        return Ok((path, None));
    };
    if !query.bytes().all(|byte| CLASS[byte as usize] & QUERY != 0) {
        return Err(Malformed::bad("the target's query holds a byte that no query may (RFC 3986 §3.4)"));
    }
    Ok((path, Some(query)))
}

/// Refuses broken escapes, encoded NUL, and the segments `.` and `..` however they are written. An encoded slash or
/// backslash parts segments as a slash does: some servers undo escapes before they look for segments.
fn check_segments(path: &str) -> Result<(), Malformed> {
    let (mut dots, mut others) = (0, 0);
    let mut bytes = path.bytes();
    loop {
        let plain = match bytes.next() {
            Some(b'%') => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => Some(high << 4 | low),
                _ => return Err(Malformed::bad("the target's path holds a broken escape (RFC 3986 §2.1)")),
            },
            byte => byte,
        };
        match plain {
            Some(0) => return Err(Malformed::bad("the target's path holds an encoded NUL (RFC 3986 §7.3)")),
            Some(b'/' | b'\\') | None => {
                if others == 0 && (dots == 1 || dots == 2) {
                    return Err(Malformed::bad("the target's path holds a dot segment (RFC 3986 §5.2.4)"));
                }
                (dots, others) = (0, 0);
            }
            Some(b'.') => dots += 1,
            Some(_) => others += 1,
        }
        if plain.is_none() {
            return Ok(());
        }
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Checks `host [":" port]`: letters, digits, `-._~`, or an address in brackets; the port up to 65535, or
/// empty after its colon.
#[inline]
pub(super) fn check_authority(value: &[u8]) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed::bad("Host is not a host and a port (RFC 9110 §7.2)");
    let (host_end, is_valid) = match value {
        [b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == b']').ok_or(BAD)?;
            let address = rest.get(..end).and_then(|inside| std::str::from_utf8(inside).ok()).unwrap_or_default();
            (end + 2, address.parse::<std::net::Ipv6Addr>().is_ok())
        }
        _ => {
            // The name ends at the first byte that is none of its own; only a port may follow.
            let end = value.iter().position(|byte| CLASS[*byte as usize] & HOST == 0);
            let end = end.unwrap_or(value.len());
            (end, end > 0)
        }
    };
    let is_port_valid = match value.get(host_end..) {
        Some([]) => true,
        Some([b':', port @ ..]) => {
            // Five digits at most, so that the sum cannot overflow.
            port.len() <= 5
                && port.iter().all(u8::is_ascii_digit)
                && port.iter().fold(0, |sum, byte| sum * 10 + u32::from(byte - b'0')) <= 65535
        }
        _ => false,
    };
    if is_valid && is_port_valid { Ok(()) } else { Err(BAD) }
}
