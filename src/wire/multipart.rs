//! Finds the `model` field at the start of a `multipart/form-data` body (RFC 7578, RFC 2046 §5.1).
//!
//! The body is not held: the caller keeps its first bytes until the model is found and lets the rest pass, watched for
//! a second one. A field that another parser might read differently is refused, as a key may be bound to models.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::{memchr2_iter, memmem};

use super::http1::is_token_byte;
use crate::base::reject::Reject;

/// The longest value of `model`.
const MODEL_BYTES_MAX: usize = 1024;
/// The longest header block of a part.
const PART_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Ends the head of a part.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What the first bytes of a body tell of its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// No whole `model` field yet, and not the end.
    NeedMore,
    /// The body ended without one.
    Absent,
    /// The model, and where its value lies in the body.
    Model {
        /// The value as sent.
        name: &'a str,
        /// Its place.
        range: Range<usize>,
    },
}

/// Why the model of a form can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// Two fields named `model`.
    Duplicate,
    /// A field whose name differs from `model` in case only, which some readers would take for that.
    Spelling,
    /// A `model` that is a file, is named in two ways, is longer than 1 KiB or no UTF-8.
    Model,
    /// Not framed as its boundary says.
    Malformed,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FormError::Duplicate => "The form names 'model' more than once; it is not clear which one counts.",
            FormError::Spelling => {
                "The form has a field that differs from 'model' in case only; it is not clear whether it counts."
            }
            FormError::Model => "'model' must be a plain form field of at most 1 KiB of UTF-8.",
            FormError::Malformed => "The request body is not valid multipart/form-data.",
        })
    }
}

impl std::error::Error for FormError {}

impl From<FormError> for Reject {
    fn from(error: FormError) -> Reject {
        let message = error.to_string();
        match error {
            FormError::Duplicate => Reject::client(400, "duplicate_field", message).with_param("model"),
            FormError::Spelling => Reject::client(400, "ambiguous_field", message).with_param("model"),
            FormError::Model => Reject::client(400, "invalid_type", message).with_param("model"),
            FormError::Malformed => Reject::client(400, "invalid_multipart", message),
        }
    }
}

/// The boundary that a Content-Type names; `None` if it is no `multipart/form-data` or its boundary is none
/// (1 to 70 characters of RFC 2046's set, given once).
pub fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let mut parameters = Parameters(content_type);
    if !parameters.first().eq_ignore_ascii_case(b"multipart/form-data") {
        return None;
    }
    let mut found = None;
    while let Some((name, value)) = parameters.next()? {
        if name.eq_ignore_ascii_case(b"boundary") && found.replace(value).is_some() {
            return None;
        }
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    found.filter(|found| (1..=70).contains(&found.len()) && found.iter().all(allowed) && found.last() != Some(&b' '))
}

/// The parameters of a header value: `; name=value`, the value a token or quoted.
struct Parameters<'a>(&'a [u8]);

impl<'a> Parameters<'a> {
    /// What stands before the parameters.
    fn first(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| byte == b';').unwrap_or(self.0.len());
        let (first, rest) = self.0.split_at(end);
        self.0 = rest;
        first.trim_ascii()
    }

    /// The next name and value, the quotes gone but escapes kept; `None` inside at the end, outside if malformed.
    #[allow(clippy::type_complexity)]
    fn next(&mut self) -> Option<Option<(&'a [u8], &'a [u8])>> {
        loop {
            let rest = self.0.trim_ascii_start();
            if rest.is_empty() {
                return Some(None);
            }
            self.0 = rest.strip_prefix(b";")?.trim_ascii_start();
            if !self.0.is_empty() && !self.0.starts_with(b";") {
                break;
            }
        }
        let equals = self.0.iter().position(|&byte| byte == b'=')?;
        let name = self.0[..equals].trim_ascii_end();
        // In `x; name=model` some parsers pass over the x.
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return None;
        }
        let rest = self.0[equals + 1..].trim_ascii_start();
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let mut escaped = false;
            let end = quoted.iter().position(|&byte| {
                let end = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                end
            })?;
            self.0 = &quoted[end + 1..];
            return Some(Some((name, &quoted[..end])));
        }
        self.0 = rest;
        Some(Some((name, self.first())))
    }
}

/// Looks for the model in a body that grows at its end; remembers which parts it has been through.
#[derive(Debug, Clone)]
pub struct Finder {
    /// `\r\n--boundary`.
    delimiter: Vec<u8>,
    /// Where to go on: just behind the last delimiter, or in front of the first one.
    at: usize,
    /// The first delimiter was seen.
    inside: bool,
    /// Bytes in which the next delimiter surely does not start.
    searched: usize,
    /// Where the model's value lies.
    model: Option<Range<usize>>,
}

impl Finder {
    /// A finder for the boundary that [`boundary`] found.
    pub fn new(boundary: &[u8]) -> Finder {
        Finder { delimiter: [b"\r\n--", boundary].concat(), at: 0, inside: false, searched: 0, model: None }
    }

    /// Looks at `body`, the form from its first byte as far as it has come. All of its whole parts are gone through, so
    /// that a second `model` among them is noticed; for what comes later there is [`Finder::watch`].
    ///
    /// # Errors
    /// [`FormError`]; bytes that come later can't mend it.
    pub fn find<'a>(&mut self, body: &'a [u8]) -> Result<Found<'a>, FormError> {
        let ended = loop {
            match self.part(body)? {
                Part::Unfinished => break false,
                Part::End => break true,
                Part::Model(range) => self.model = Some(range),
                Part::Other => {}
            }
        };
        if let Some(range) = self.model.clone() {
            let name = body.get(range.clone()).and_then(|name| std::str::from_utf8(name).ok());
            return Ok(Found::Model { name: name.ok_or(FormError::Model)?, range });
        }
        Ok(if ended { Found::Absent } else { Found::NeedMore })
    }

    /// Goes on behind `body`, which must be the one last given to [`find`](Finder::find): what comes later is given to
    /// the [`Watch`], so that a second `model` is noticed wherever it stands.
    ///
    /// # Errors
    /// Those of [`Watch::push`]: a part that has begun in `body` may be the second one already.
    pub fn watch(self, body: &[u8]) -> Result<Watch, FormError> {
        let Finder { delimiter, at, inside, .. } = self;
        let mut watch = match inside {
            true => Watch { delimiter, place: Place::Head, carry: Vec::new() },
            // The first delimiter needs no line end before it if the body starts with it.
            false => Watch { delimiter, place: Place::Value, carry: b"\r\n".to_vec() },
        };
        watch.push(body.get(at..).unwrap_or_default())?;
        Ok(watch)
    }

    /// Reads one part, or skips what stands before the first.
    fn part(&mut self, body: &[u8]) -> Result<Part, FormError> {
        if !self.inside {
            // The first delimiter needs no line end before it if the body starts with it.
            let first = &self.delimiter[2..];
            if body.len() < first.len() && first.starts_with(body) {
                return Ok(Part::Unfinished);
            }
            if body.starts_with(first) {
                self.at = first.len();
            } else {
                let Some(end) = self.delimiter_from(body, 0) else {
                    return Ok(Part::Unfinished);
                };
                self.at = end + self.delimiter.len();
            }
            self.inside = true;
            return Ok(Part::Other);
        }
        let (is_model, value) = match part_head(body.get(self.at..).unwrap_or_default(), &self.delimiter)? {
            PartHead::Unfinished => return Ok(Part::Unfinished),
            PartHead::Last => return Ok(Part::End),
            // Told by its head alone, as the watch does: its value may never come.
            PartHead::Whole { is_model: true, .. } if self.model.is_some() => return Err(FormError::Duplicate),
            PartHead::Whole { is_model, len } => (is_model, self.at + len),
        };
        // An empty value shares its line end with the head.
        let end = self.delimiter_from(body, value - 2);
        if is_model && end.unwrap_or(body.len().saturating_sub(self.delimiter.len())) > value + MODEL_BYTES_MAX {
            return Err(FormError::Model);
        }
        let Some(end) = end else {
            return Ok(Part::Unfinished);
        };
        self.at = end + self.delimiter.len();
        match is_model {
            // A part may end with its head, and then there is no place for a value.
            true if end < value => Err(FormError::Model),
            true => Ok(Part::Model(value..end)),
            false => Ok(Part::Other),
        }
    }

    /// Where the first delimiter at or behind `from` starts.
    fn delimiter_from(&mut self, body: &[u8], from: usize) -> Option<usize> {
        let from = from.max(self.searched);
        let found = memmem::find(body.get(from..)?, &self.delimiter).map(|at| from + at);
        self.searched = found.unwrap_or((body.len() + 1).saturating_sub(self.delimiter.len()).max(from));
        found
    }
}

enum Part {
    Unfinished,
    End,
    Model(Range<usize>),
    Other,
}

/// Watches the rest of a form whose model is known for another one, piece by piece as it passes.
///
/// Memory is constant: the head of one part (16 KiB at most, its blanks included) or the start of a delimiter.
#[derive(Debug, Clone)]
pub struct Watch {
    /// `\r\n--boundary`.
    delimiter: Vec<u8>,
    place: Place,
    /// The last bytes seen: of the head under way, or such as may begin a delimiter.
    carry: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind a delimiter.
    Head,
    /// In a value, or before the first part.
    Value,
    /// Behind the last delimiter, where nothing is read.
    End,
}

impl Watch {
    /// Looks at the next bytes of the form, cut anywhere.
    ///
    /// # Errors
    /// [`FormError::Duplicate`] as soon as the head of another part named `model` is whole;
    /// [`FormError::Malformed`] and [`FormError::Model`] for a head that might be read as one.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), FormError> {
        let mut rest = piece;
        while !rest.is_empty() && self.place != Place::End {
            rest = match self.place {
                Place::Head => self.head(rest)?,
                _ => self.value(rest),
            };
        }
        Ok(())
    }

    /// Goes on in the head of a part; returns what is behind it.
    fn head<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], FormError> {
        let before = self.carry.len();
        // A head that is longer than this is refused, so it need not be held whole.
        let room = (2 * PART_HEAD_BYTES_MAX + HEAD_END.len()).saturating_sub(before);
        self.carry.extend_from_slice(&piece[..piece.len().min(room)]);
        match part_head(&self.carry, &self.delimiter)? {
            PartHead::Unfinished => Ok(&piece[piece.len().min(room)..]),
            PartHead::Last => {
                self.place = Place::End;
                self.carry = Vec::new();
                Ok(&[])
            }
            PartHead::Whole { is_model: true, .. } => Err(FormError::Duplicate),
            PartHead::Whole { len, .. } => {
                self.place = Place::Value;
                // An empty value shares its line end with the head.
                self.carry = b"\r\n".to_vec();
                Ok(piece.get(len.saturating_sub(before)..).unwrap_or_default())
            }
        }
    }

    /// Goes on in a value; returns what is behind the delimiter that ends it.
    fn value<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        // A delimiter may have begun in what came before.
        let before = self.carry.len();
        self.carry.extend_from_slice(&piece[..piece.len().min(self.delimiter.len() - 1)]);
        let found = memmem::find(&self.carry, &self.delimiter).map(|at| at + self.delimiter.len() - before);
        let found = found.or_else(|| memmem::find(piece, &self.delimiter).map(|at| at + self.delimiter.len()));
        if let Some(behind) = found {
            self.place = Place::Head;
            self.carry.clear();
            return &piece[behind..];
        }
        let keep = self.delimiter.len() - 1;
        if piece.len() >= keep {
            self.carry.clear();
            self.carry.extend_from_slice(&piece[piece.len() - keep..]);
        } else {
            self.carry.drain(..self.carry.len().saturating_sub(keep));
        }
        &[]
    }
}

/// What stands behind a delimiter.
enum PartHead {
    Unfinished,
    /// Two hyphens: the delimiter was the last one.
    Last,
    /// The head of a part; `len` bytes with the empty line behind it.
    Whole {
        is_model: bool,
        len: usize,
    },
}

/// Reads what stands behind a delimiter, as far as it has come.
fn part_head(rest: &[u8], delimiter: &[u8]) -> Result<PartHead, FormError> {
    if rest.starts_with(b"--") {
        return Ok(PartHead::Last);
    }
    // Blanks may follow the delimiter on its line.
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    if blanks >= PART_HEAD_BYTES_MAX {
        return Err(FormError::Malformed);
    }
    match rest[blanks..] {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => return Ok(PartHead::Unfinished),
        [b'-'] if blanks == 0 => return Ok(PartHead::Unfinished),
        _ => return Err(FormError::Malformed),
    }
    // The line end of the delimiter counts, so that a part without headers is found too.
    let head_bytes_max = PART_HEAD_BYTES_MAX + HEAD_END.len();
    let head = &rest[blanks..rest.len().min(blanks + head_bytes_max)];
    let len = memmem::find(head, HEAD_END);
    // RFC 2046 lets a part end with its head, and some readers end a head at two bare LFs: they would see parts here that
    // we do not, and need not wait for an end that never comes.
    if memmem::find(&head[..len.unwrap_or(head.len())], delimiter).is_some()
        || has_bare_line_end(&head[..len.map_or(head.len(), |len| len + 2)])
    {
        return Err(FormError::Malformed);
    }
    match len {
        Some(len) => Ok(PartHead::Whole { is_model: names_model(&head[..len])?, len: blanks + len + HEAD_END.len() }),
        None if head.len() == head_bytes_max => Err(FormError::Malformed),
        None => Ok(PartHead::Unfinished),
    }
}

/// True if a CR or an LF stands alone; a CR at the end may still get its LF.
fn has_bare_line_end(head: &[u8]) -> bool {
    memchr2_iter(b'\r', b'\n', head).any(|at| match head[at] {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        _ => head.get(at + 1).is_some_and(|next| *next != b'\n'),
    })
}

/// Whether the head of a part names the field `model`.
fn names_model(head: &[u8]) -> Result<bool, FormError> {
    let (mut is_model, mut may_be_model, mut dispositions) = (false, false, 0);
    for line in head.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(FormError::Malformed); // Folded: not all parsers would join it.
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        if !line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
            continue;
        }
        dispositions += 1;
        may_be_model |= may_name_model(&line[colon + 1..]);
        let mut parameters = Parameters(&line[colon + 1..]);
        parameters.first();
        let (mut names, mut file) = (0, false);
        while let Some((name, value)) = parameters.next().ok_or(FormError::Malformed)? {
            if name.eq_ignore_ascii_case(b"name") {
                names += 1;
                let value = unescape(value);
                if *value != *b"model" && value.eq_ignore_ascii_case(b"model") {
                    return Err(FormError::Spelling);
                }
                is_model |= *value == *b"model";
            }
            file |= name.eq_ignore_ascii_case(b"filename") || name.eq_ignore_ascii_case(b"filename*");
            if name.eq_ignore_ascii_case(b"name*") {
                return Err(FormError::Malformed); // RFC 7578 §4.2 forbids it, and not all parsers ignore it.
            }
        }
        if is_model && (file || names > 1) {
            return Err(FormError::Model);
        }
    }
    if dispositions > 1 || may_be_model && !is_model { Err(FormError::Malformed) } else { Ok(is_model) }
}

/// True if a reader that only searches a disposition for `name=`, or splits it without regard to quotes, may find
/// `model` behind it. `filename=model` is not meant.
fn may_name_model(disposition: &[u8]) -> bool {
    const NAME: &[u8] = b"name";
    const MODEL: &[u8] = b"model";
    memchr2_iter(b'n', b'N', disposition).any(|at| {
        let (before, from) = disposition.split_at(at);
        let Some((name, rest)) = from.split_at_checked(NAME.len()) else { return false };
        let is_filename = before.last_chunk().is_some_and(|before: &[u8; 4]| before.eq_ignore_ascii_case(b"file"));
        if is_filename || !name.eq_ignore_ascii_case(NAME) {
            return false;
        }
        let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else { return false };
        let start = value.iter().position(|byte| !b" \t\"'\\".contains(byte)).unwrap_or(value.len());
        // Escapes are undone for those who undo them.
        let value = unescape(&value[start..]);
        let goes_on = value.get(MODEL.len()).is_some_and(|byte| *byte != b'\'' && is_token_byte(*byte));
        value.get(..MODEL.len()).is_some_and(|value| value.eq_ignore_ascii_case(MODEL)) && !goes_on
    })
}

/// Undoes `\x` in a quoted value.
fn unescape(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'\\') {
        return Cow::Borrowed(value);
    }
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().copied().unwrap_or(byte) } else { byte });
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests;
