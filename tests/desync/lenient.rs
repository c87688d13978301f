//! A reader that takes anything: any line end, blanks anywhere, folds, codings that only resemble chunked, numbers with
//! something around them. Real ones each are lenient in some of these ways; this one is in all of them at once.

/// A message as it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The words of its first line.
    pub words: Vec<String>,
    pub body: Vec<u8>,
    /// Bytes it took.
    pub len: usize,
}

/// Which of two framings wins, and which of several lengths.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    pub length_wins: bool,
    pub last_counts: bool,
}

/// Every way.
pub const WAYS: [Ways; 4] = [
    Ways { length_wins: false, last_counts: false },
    Ways { length_wins: false, last_counts: true },
    Ways { length_wins: true, last_counts: false },
    Ways { length_wins: true, last_counts: true },
];

/// The message at the front of `bytes`; `None` if more are needed. `bodiless` says of its first line whether it can have no
/// body; `to_end` whether one that says no length goes to the end of `bytes`.
pub fn read(bytes: &[u8], ways: Ways, bodiless: impl Fn(&[String]) -> bool, to_end: bool) -> Option<Message> {
    let mut at = bytes.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
    let (first, len) = line(&bytes[at..])?;
    at += len;
    let text = String::from_utf8_lossy(first).into_owned();
    let words: Vec<String> = text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let (mut lengths, mut chunked) = (Vec::new(), false);
    let mut name = String::new();
    loop {
        let (line, len) = line(&bytes[at..])?;
        at += len;
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(line).into_owned();
        // A fold goes on with the value before it.
        let value = match text.split_once(':') {
            Some((before, value)) if !text.starts_with(is_blank) => {
                name = before.trim_matches(is_blank).replace('_', "-").to_ascii_lowercase();
                value
            }
            _ => &text,
        };
        match &*name {
            "content-length" => {
                let digits = value.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit);
                lengths.extend(digits.collect::<String>().parse::<usize>());
            }
            "transfer-encoding" => chunked |= value.to_ascii_lowercase().contains("chunked"),
            _ => {}
        }
    }
    let length = if ways.last_counts { lengths.last() } else { lengths.first() };
    let (body, len) = match length {
        _ if bodiless(&words) => (Vec::new(), 0),
        Some(length) if ways.length_wins || !chunked => (bytes[at..].get(..*length)?.to_vec(), *length),
        _ if chunked => chunks(&bytes[at..])?,
        _ if to_end => (bytes[at..].to_vec(), bytes.len() - at),
        _ => (Vec::new(), 0),
    };
    Some(Message { words, body, len: at + len })
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\0' | '\r')
}

/// A line, whatever ends it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let after = match &bytes[end..] {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] => return None,
        _ => 1,
    };
    Some((&bytes[..end], end + after))
}

fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let (size, len) = line(&bytes[at..])?;
        at += len;
        let text = String::from_utf8_lossy(size).to_ascii_lowercase();
        let text = text.trim_matches(is_blank).trim_start_matches('+');
        let text = text.strip_prefix("0x").unwrap_or(text);
        let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
        let size = usize::from_str_radix(&digits, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        body.extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
        at += size;
        if bytes.get(at) == Some(&b'\r') {
            at += 1;
        }
        if bytes.get(at) == Some(&b'\n') {
            at += 1;
        }
    }
    loop {
        let (trailer, len) = line(&bytes[at..])?;
        at += len;
        if trailer.is_empty() {
            return Some((body, at));
        }
    }
}
