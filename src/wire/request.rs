//! Reads the few fields of a JSON request that the relay decides by, and patches them in place.
//!
//! The body is never parsed as a whole and never written anew: every byte outside of the patches goes on as it came,
//! unknown fields, key order, odd numbers and odd escapes included. A field that could be read in two ways is refused.

mod glance;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json::text;
use crate::base::reject::Reject;

/// What a request says at its top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The model asked for, if one is named.
    pub model: Option<Model<'a>>,
    /// True if `stream` is `true`; anything else asks for an unstreamed answer.
    pub stream: bool,
    /// Where the value of `stream` lies; empty if there is none.
    stream_range: Range<usize>,
    stream_options: StreamOptions,
}

/// The `model` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model<'a> {
    /// The name, its escapes undone.
    pub name: Cow<'a, str>,
    /// Where its value lies in the body, quotes included.
    pub range: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum StreamOptions {
    Absent,
    Null(Range<usize>),
    Object {
        range: Range<usize>,
        empty: bool,
        include_usage: Option<(bool, Range<usize>)>,
    },
    /// Neither null nor an object: for the provider to refuse.
    Odd,
}

impl Scan<'_> {
    /// The same, no longer bound to the body that was scanned.
    pub fn into_owned(self) -> Scan<'static> {
        let Scan { model, stream, stream_range, stream_options } = self;
        let model = model.map(|Model { name, range }| Model { name: Cow::Owned(name.into_owned()), range });
        Scan { model, stream, stream_range, stream_options }
    }

    /// True if the client itself asked for the extra chunk with usage.
    pub fn asked_for_usage(&self) -> bool {
        matches!(self.stream_options, StreamOptions::Object { include_usage: Some((true, _)), .. })
    }
}

/// Why a request can't be routed by its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanError {
    /// Not JSON. Holds what was expected, with line and column.
    Syntax(String),
    /// JSON perhaps, but no object.
    NotAnObject,
    /// The field is there twice, perhaps spelled differently.
    Duplicate(&'static str),
    /// A name differs from `model` in case only, and some readers would take it for that (Go's `encoding/json`, ASP.NET).
    ModelSpelling,
    /// `model` is there but is no string.
    ModelType,
    /// `model` in the query is no UTF-8 when its percent signs are undone.
    ModelEncoding,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanError::Syntax(what) => write!(f, "The request body is not valid JSON: {what}."),
            ScanError::NotAnObject => f.write_str("The request body must be a JSON object."),
            ScanError::Duplicate(field) => {
                write!(f, "The request names '{field}' more than once; it is not clear which one counts.")
            }
            ScanError::ModelSpelling => f.write_str(
                "The request has a field that differs from 'model' in case only; it is not clear whether it counts.",
            ),
            ScanError::ModelType => f.write_str("'model' must be a string."),
            ScanError::ModelEncoding => f.write_str("'model' in the query is not valid percent-encoded UTF-8."),
        }
    }
}

impl std::error::Error for ScanError {}

impl From<ScanError> for Reject {
    fn from(error: ScanError) -> Reject {
        let (code, param) = match error {
            ScanError::Syntax(_) => ("invalid_json", None),
            ScanError::NotAnObject => ("invalid_json", None),
            ScanError::Duplicate(field) => ("duplicate_field", Some(field)),
            ScanError::ModelSpelling => ("ambiguous_field", Some("model")),
            ScanError::ModelType | ScanError::ModelEncoding => ("invalid_type", Some("model")),
        };
        let reject = Reject::client(400, code, error.to_string());
        match param {
            Some(param) => reject.with_param(param),
            None => reject,
        }
    }
}

/// Reads a whole JSON request. Takes any nesting and any size; time is linear, memory is constant.
///
/// # Errors
/// What is not exactly one JSON object, names a deciding field twice, has a `model` that is no string, or a field that
/// differs from it in case only.
pub fn scan(body: &[u8]) -> Result<Scan<'_>, ScanError> {
    if body.trim_ascii_start().first().is_some_and(|&first| first != b'{') {
        return Err(ScanError::NotAnObject);
    }
    let fields = match Fields::at_a_glance(body) {
        Some(fields) => fields,
        None => Fields::<'_, false>::of(body)?,
    };
    if let Some(duplicate) = fields.duplicate {
        return Err(ScanError::Duplicate(duplicate));
    }
    if fields.misspelt {
        return Err(ScanError::ModelSpelling);
    }
    let model = match fields.model {
        None => None,
        Some(raw) if raw.starts_with('"') => {
            let name = text(raw).ok_or(ScanError::ModelType)?;
            Some(Model { name, range: range_in(body, raw) })
        }
        Some(_) => return Err(ScanError::ModelType),
    };
    let stream_options = match fields.stream_options {
        None => StreamOptions::Absent,
        Some("null") => StreamOptions::Null(fields.stream_options.map_or(0..0, |raw| range_in(body, raw))),
        Some(raw) if raw.starts_with('{') => read_stream_options(body, raw)?,
        Some(_) => StreamOptions::Odd,
    };
    Ok(Scan {
        model,
        stream: fields.stream == Some("true"),
        stream_range: fields.stream.map_or(0..0, |raw| range_in(body, raw)),
        stream_options,
    })
}

fn read_stream_options(body: &[u8], raw: &str) -> Result<StreamOptions, ScanError> {
    let fields = Fields::<'_, true>::of(raw.as_bytes())?;
    if fields.include_usage_twice {
        return Err(ScanError::Duplicate("stream_options.include_usage"));
    }
    let include_usage = fields.include_usage.map(|raw| (raw == "true", range_in(body, raw)));
    Ok(StreamOptions::Object { range: range_in(body, raw), empty: fields.count == 0, include_usage })
}

/// Where a value borrowed from `body` lies in it.
fn range_in(body: &[u8], raw: &str) -> Range<usize> {
    let start = raw.as_ptr().addr().saturating_sub(body.as_ptr().addr());
    start..start + raw.len()
}

/// The fields of an object that anything is decided by, unread: of `stream_options` if `IN_OPTIONS`, else of the request.
#[derive(Default)]
struct Fields<'a, const IN_OPTIONS: bool> {
    count: usize,
    model: Option<&'a str>,
    stream: Option<&'a str>,
    stream_options: Option<&'a str>,
    duplicate: Option<&'static str>,
    misspelt: bool,
    include_usage: Option<&'a str>,
    include_usage_twice: bool,
}

impl<'a> Fields<'a, false> {
    /// The fields of an ordinary request; `None` if a parser has to see it.
    fn at_a_glance(body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields::default();
        glance::fields(body, |name, value| {
            let place = match Name::of(name) {
                Name::Model => &mut fields.model,
                Name::Stream => &mut fields.stream,
                Name::StreamOptions => &mut fields.stream_options,
                Name::LikeModel => return None,
                Name::IncludeUsage | Name::Other => return Some(()),
            };
            let value = std::str::from_utf8(&body[value]).ok()?;
            place.replace(value).is_none().then_some(())
        })?;
        Some(fields)
    }
}

impl<'a, const IN_OPTIONS: bool> Fields<'a, IN_OPTIONS> {
    fn of(object: &'a [u8]) -> Result<Self, ScanError> {
        serde_json::from_slice(object).map_err(|error| ScanError::Syntax(error.to_string()))
    }
}

impl<'de: 'a, 'a, const IN_OPTIONS: bool> Deserialize<'de> for Fields<'a, IN_OPTIONS> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor<const IN_OPTIONS: bool>;

impl<'de, const IN_OPTIONS: bool> Visitor<'de> for FieldsVisitor<IN_OPTIONS> {
    type Value = Fields<'de, IN_OPTIONS>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            fields.count += 1;
            let (place, name) = match name {
                Name::Model => (&mut fields.model, "model"),
                Name::Stream => (&mut fields.stream, "stream"),
                Name::StreamOptions => (&mut fields.stream_options, "stream_options"),
                Name::IncludeUsage if IN_OPTIONS => {
                    fields.include_usage_twice |= fields.include_usage.is_some();
                    fields.include_usage = Some(map.next_value::<&RawValue>()?.get());
                    continue;
                }
                Name::LikeModel if !IN_OPTIONS => {
                    fields.misspelt = true;
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                // Elsewhere it is a field like any other.
                Name::IncludeUsage | Name::LikeModel | Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if place.replace(map.next_value::<&RawValue>()?.get()).is_some() {
                fields.duplicate = Some(name);
            }
        }
        Ok(fields)
    }
}

enum Name {
    Model,
    /// In another case.
    LikeModel,
    Stream,
    StreamOptions,
    IncludeUsage,
    Other,
}

impl Name {
    fn of(name: &[u8]) -> Name {
        match name {
            b"model" => Name::Model,
            b"stream" => Name::Stream,
            b"stream_options" => Name::StreamOptions,
            b"include_usage" => Name::IncludeUsage,
            name if name.eq_ignore_ascii_case(b"model") => Name::LikeModel,
            _ => Name::Other,
        }
    }
}

/// Reads a key as bytes, so that one with half a surrogate pair is merely unknown. Escapes are undone.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Name, D::Error> {
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Name;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a key")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<Name, E> {
        Ok(Name::of(name))
    }
}

/// Up to two replacements in a body, in order, that don't overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patches {
    list: [Option<Patch>; 2],
}

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The bytes of the body that go; empty for an insertion.
    pub range: Range<usize>,
    /// What comes in their place.
    pub bytes: Cow<'static, [u8]>,
}

impl Patches {
    /// True if the body goes on as it came.
    pub fn is_empty(&self) -> bool {
        self.list.iter().all(Option::is_none)
    }

    /// The replacements in the order of the body.
    pub fn iter(&self) -> impl Iterator<Item = &Patch> {
        self.list.iter().flatten()
    }

    /// Length of the patched body.
    pub fn len_after(&self, body_len: usize) -> usize {
        self.iter().fold(body_len, |len, patch| len - patch.range.len() + patch.bytes.len())
    }

    /// The patched body in pieces, none of them empty. `body` must be the one that was scanned.
    pub fn pieces<'a>(&'a self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut pieces: [&[u8]; 5] = [&[]; 5];
        let mut at = 0;
        for (place, patch) in self.iter().enumerate() {
            pieces[2 * place] = body.get(at..patch.range.start).unwrap_or_default();
            pieces[2 * place + 1] = &patch.bytes;
            at = patch.range.end;
        }
        pieces[4] = body.get(at..).unwrap_or_default();
        pieces.into_iter().filter(|piece| !piece.is_empty())
    }

    /// A single one: `value` in place of `range`.
    pub fn one(range: Range<usize>, value: Vec<u8>) -> Patches {
        Patches { list: [Some(Patch { range, bytes: Cow::Owned(value) }), None] }
    }
}

/// What to change so that the provider sees `model` (if given) and, if `include_usage`, is asked for usage.
///
/// Usage is asked for in streamed requests only, where alone it is legal. A body that already says so is not patched,
/// and then nothing is allocated. A request without `model` gets none.
pub fn rewrite(scan: &Scan<'_>, model: Option<&str>, include_usage: bool) -> Patches {
    let model = match (&scan.model, model) {
        (Some(old), Some(new)) if old.name != new => {
            let name = serde_json::to_vec(new).unwrap_or_default(); // A string is always written.
            Some(Patch { range: old.range.clone(), bytes: Cow::Owned(name) })
        }
        _ => None,
    };
    let usage = if include_usage && scan.stream { ask_for_usage(scan) } else { None };
    let mut list = [model, usage];
    // An absent patch sorts first, which is as good as last.
    list.sort_by_key(|patch| patch.as_ref().map(|patch| patch.range.start));
    Patches { list }
}

fn ask_for_usage(scan: &Scan<'_>) -> Option<Patch> {
    let patch = |range: Range<usize>, text: &'static str| Some(Patch { range, bytes: Cow::Borrowed(text.as_bytes()) });
    match &scan.stream_options {
        StreamOptions::Absent => {
            let end = scan.stream_range.end;
            patch(end..end, r#","stream_options":{"include_usage":true}"#)
        }
        StreamOptions::Null(range) => patch(range.clone(), r#"{"include_usage":true}"#),
        StreamOptions::Object { include_usage: Some((true, _)), .. } | StreamOptions::Odd => None,
        StreamOptions::Object { include_usage: Some((false, range)), .. } => patch(range.clone(), "true"),
        StreamOptions::Object { range, empty, include_usage: None } => {
            let inside = range.start + 1;
            patch(inside..inside, if *empty { r#""include_usage":true"# } else { r#""include_usage":true,"# })
        }
    }
}

/// The `model` parameter of a query (the part behind `?`), decoded as a form is: `+` is a space.
///
/// # Errors
/// [`ScanError::Duplicate`], [`ScanError::ModelSpelling`] and [`ScanError::ModelEncoding`].
pub fn query_model(query: &str) -> Result<Option<Cow<'_, str>>, ScanError> {
    let mut model = None;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match percent_decode(name).as_deref() {
            Some("model") => {}
            Some(name) if name.eq_ignore_ascii_case("model") => return Err(ScanError::ModelSpelling),
            _ => continue,
        }
        let value = percent_decode(value).ok_or(ScanError::ModelEncoding)?;
        if model.replace(value).is_some() {
            return Err(ScanError::Duplicate("model"));
        }
    }
    Ok(model)
}

/// The model of a request that may name it in its body and in its query.
///
/// # Errors
/// [`ScanError::Duplicate`] if the two differ: the provider may go by the other one.
pub fn one_model<'a>(body: Option<&'a str>, query: Option<&'a str>) -> Result<Option<&'a str>, ScanError> {
    match (body, query) {
        (Some(body), Some(query)) if body != query => Err(ScanError::Duplicate("model")),
        _ => Ok(body.or(query)),
    }
}

/// The query with `name` as the value of its `model`, every other byte as it came.
pub fn rename_in_query(query: &str, name: &str) -> String {
    let mut renamed = String::with_capacity(query.len() + name.len());
    for (at, pair) in query.split('&').enumerate() {
        if at > 0 {
            renamed.push('&');
        }
        // A name alone is one with an empty value.
        let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode(key).as_deref() != Some("model") {
            renamed.push_str(pair);
            continue;
        }
        renamed.push_str(key);
        renamed.push('=');
        for byte in name.bytes() {
            // RFC 3986 §2.3: the unreserved characters stand for themselves.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                renamed.push(char::from(byte));
            } else {
                renamed.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    renamed
}

fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
