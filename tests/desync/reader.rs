//! Messages as RFC 9112 has them, read by the plainest code there is, which shares none with the gateway. Where the RFC leaves
//! a choice it is the gateway's documented one: whatever could be read in two ways is a fault.

/// A message at the front of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<T> {
    /// A whole one, and how many bytes it took.
    Whole(T, usize),
    /// It may become one.
    Partial,
    /// It breaks this rule.
    Fault(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// As it stands in the request line.
    pub target: String,
    pub body: Vec<u8>,
    /// True if another may follow.
    pub keeps: bool,
}

impl Request {
    /// The target in origin form, as a proxy sends it on.
    pub fn origin_form(&self) -> String {
        let Some((_, rest)) = self.target.split_once("://").filter(|_| !self.target.starts_with('/')) else {
            return self.target.clone();
        };
        match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => rest[at..].to_owned(),
            Some(at) => format!("/{}", &rest[at..]),
            None => "/".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// True if only the connection's end says where it ends.
    pub until_close: bool,
    /// True if it says that the connection ends.
    pub closes: bool,
    /// What it says that an origin took the request for.
    pub seen: Option<String>,
}

/// What a head says.
struct Head {
    first: String,
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    close: bool,
    keep_alive: bool,
    seen: Option<String>,
    len: usize,
}

macro_rules! whole {
    ($read:expr) => {
        match $read {
            Read::Whole(value, len) => (value, len),
            Read::Partial => return Read::Partial,
            Read::Fault(why) => return Read::Fault(why),
        }
    };
}

/// The request at the front of `bytes`, up to two empty lines before it.
pub fn request(bytes: &[u8]) -> Read<Request> {
    let mut at = 0;
    while at < 4 && bytes[at..].starts_with(b"\r\n") {
        at += 2;
    }
    let (head, _) = whole!(head(&bytes[at..]));
    at += head.len;
    let words: Vec<&str> = head.first.split(' ').collect();
    let [method, target, version] = words[..] else { return Read::Fault("the request line") };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Read::Fault("the method");
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Read::Fault("the target");
    }
    let old = match version {
        "HTTP/1.1" => false,
        "HTTP/1.0" => true,
        _ => return Read::Fault("the version"),
    };
    if head.hosts > 1 || (head.hosts == 0 && !old) {
        return Read::Fault("not one Host");
    }
    if old && head.chunked {
        return Read::Fault("chunks in HTTP/1.0");
    }
    let body = match head.length {
        Some(_) if head.chunked => return Read::Fault("two framings"),
        Some(length) => match bytes.len() - at >= usize::try_from(length).unwrap_or(usize::MAX) {
            true => (bytes[at..at + length as usize].to_vec(), length as usize),
            false => return Read::Partial,
        },
        None if head.chunked => whole!(chunks(&bytes[at..])),
        None => (Vec::new(), 0),
    };
    let keeps = !head.close && (!old || head.keep_alive);
    let request = Request { method: method.to_owned(), target: target.to_owned(), body: body.0, keeps };
    Read::Whole(request, at + body.1)
}

/// The final response at the front of `bytes`, which are all that came, with the interim ones before it.
pub fn response(mut bytes: &[u8], to_head: bool) -> Read<Response> {
    let all = bytes.len();
    for _ in 0..64 {
        let (head, _) = whole!(head(bytes));
        let line = head.first.as_bytes();
        let old = match line.get(..9) {
            Some(b"HTTP/1.1 ") => false,
            Some(b"HTTP/1.0 ") => true,
            _ => return Read::Fault("the version"),
        };
        let status = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let Some(status) = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok()) else {
            return Read::Fault("the status");
        };
        if !(100..600).contains(&status) || !matches!(line.get(12), None | Some(b' ')) {
            return Read::Fault("the status");
        }
        if head.chunked && (head.length.is_some() || old) {
            return Read::Fault("two framings");
        }
        bytes = &bytes[head.len..];
        if status == 101 {
            return Read::Fault("switched protocols");
        }
        if status < 200 {
            // It has no body, whatever it says (RFC 9112 §6.3).
            continue;
        }
        let (body, len, until_close) = if to_head || matches!(status, 204 | 304) {
            (Vec::new(), 0, false)
        } else if head.chunked {
            let (body, len) = whole!(chunks(bytes));
            (body, len, false)
        } else if let Some(length) = head.length {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if bytes.len() < length {
                return Read::Partial;
            }
            (bytes[..length].to_vec(), length, false)
        } else {
            (bytes.to_vec(), bytes.len(), true)
        };
        let response = Response { status, body, until_close, closes: head.close, seen: head.seen };
        return Read::Whole(response, all - bytes.len() + len);
    }
    Read::Fault("too many interim answers")
}

fn head(bytes: &[u8]) -> Read<Head> {
    let (mut at, mut first) = (0, None);
    let (mut length, mut chunked, mut hosts, mut close, mut keep_alive, mut seen) =
        (None, false, 0, false, false, None);
    loop {
        let (line, len) = whole!(line(&bytes[at..]));
        at += len;
        let Some(first) = &first else {
            if line.is_empty() {
                return Read::Fault("an empty line before it");
            }
            first = Some(String::from_utf8_lossy(line).into_owned());
            continue;
        };
        if line.is_empty() {
            let first = String::clone(first);
            return Read::Whole(Head { first, length, chunked, hosts, close, keep_alive, seen, len: at }, at);
        }
        let Some((name, value)) = field(line) else { return Read::Fault("a field") };
        match &*name.to_ascii_lowercase() {
            b"content-length" => {
                let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
                if length.is_some() || !digits {
                    return Read::Fault("the length");
                }
                length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            b"transfer-encoding" if chunked || !value.eq_ignore_ascii_case(b"chunked") => {
                return Read::Fault("the coding");
            }
            b"transfer-encoding" => chunked = true,
            b"host" => hosts += 1,
            b"x-seen" => seen = Some(String::from_utf8_lossy(value).into_owned()),
            b"connection" => {
                for option in value.split(|byte| *byte == b',') {
                    close |= option.trim_ascii().eq_ignore_ascii_case(b"close");
                    keep_alive |= option.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
    }
}

/// A line without its CRLF. No other control byte than a tab may be in it.
fn line(bytes: &[u8]) -> Read<&[u8]> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => return Read::Whole(&bytes[..at], at + 2),
            b'\r' if at + 1 == bytes.len() => return Read::Partial,
            b'\t' | 0x20..=0x7e | 0x80.. => {}
            _ => return Read::Fault("a control byte, or a line end that is none"),
        }
    }
    Read::Partial
}

/// A name that is a token, right before its colon; and a value without blanks around it.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    (!name.is_empty() && name.iter().copied().all(is_token)).then_some((name, &value[start..end]))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn chunks(bytes: &[u8]) -> Read<Vec<u8>> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let (size_line, len) = whole!(line(&bytes[at..]));
        at += len;
        let digits = size_line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = std::str::from_utf8(&size_line[..digits]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        let Some(size) = size.filter(|_| digits <= 16) else { return Read::Fault("a chunk's size") };
        // Of extensions only what could be taken for another size, or for the line's end, matters here.
        let rest = size_line[digits..].trim_ascii_start();
        if digits < size_line.len() && rest.first() != Some(&b';') {
            return Read::Fault("behind a chunk's size");
        }
        if size == 0 {
            break;
        }
        let Ok(size) = usize::try_from(size) else { return Read::Partial };
        let Some(end) = at.checked_add(size).filter(|end| *end <= bytes.len()) else { return Read::Partial };
        body.extend_from_slice(&bytes[at..end]);
        match &bytes[end..] {
            [b'\r', b'\n', ..] => at = end + 2,
            [] | [b'\r'] => return Read::Partial,
            _ => return Read::Fault("a chunk's end"),
        }
    }
    loop {
        let (trailer, len) = whole!(line(&bytes[at..]));
        at += len;
        if trailer.is_empty() {
            return Read::Whole(body, at);
        }
        if field(trailer).is_none() {
            return Read::Fault("a trailer");
        }
    }
}
