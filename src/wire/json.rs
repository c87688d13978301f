//! Lenient pieces of JSON: what a peer may have put in a place where its specification says something else.
//!
//! A field of another type than ours reads as absent, so that one odd field never hides the rest of an event. Values
//! are skipped, not built: a string is looked at only where its text matters.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// An object read as `T`; any other value is `None`.
pub(super) struct Object<T>(pub(super) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Object<T> {
        Object(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object<T>, D::Error> {
        from.deserialize_any(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Object(Some(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Object<T>, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Object(None))
    }

    fn visit_unit<E>(self) -> Result<Object<T>, E> {
        Ok(Object(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Object<T>, E> {
        Ok(Object(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Object<T>, E> {
        Ok(Object(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Object<T>, E> {
        Ok(Object(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Object<T>, E> {
        Ok(Object(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Object<T>, E> {
        Ok(Object(None))
    }
}

/// A whole number that is not negative, though it be written as `12.0`; any other value is `None`.
#[derive(Clone, Copy, Default)]
pub(super) struct Count(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Count, D::Error> {
        let raw = <&RawValue>::deserialize(from)?.get();
        let whole = raw.strip_suffix(".0").unwrap_or(raw);
        Ok(Count(whole.parse().ok()))
    }
}

/// Whether a field holds anything: false for null, `""`, `[]` and `{}`.
#[derive(Clone, Copy, Default)]
pub(super) struct Present(pub(super) bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Present, D::Error> {
        let raw = <&RawValue>::deserialize(from)?;
        Ok(Present(present(raw.get())))
    }
}

/// Whether a JSON value holds anything: false for null, `""`, `[]` and `{}`.
pub(super) fn present(json: &str) -> bool {
    match json.as_bytes() {
        b"null" | b"\"\"" => false,
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => !inner.iter().all(u8::is_ascii_whitespace),
        _ => true,
    }
}

/// The text of a string or number; `None` for any other value.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes() {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => Some(Cow::Borrowed(unquoted(json))),
        [b'"', ..] => serde_json::from_str(json).ok().map(Cow::Owned),
        [b'-' | b'0'..=b'9', ..] => Some(Cow::Borrowed(json)),
        _ => None,
    }
}

/// The text of a string that is expected to be one of a few plain words. One with an escape reads as no known word.
pub(super) fn tag(raw: &RawValue) -> &str {
    unquoted(raw.get())
}

fn unquoted(json: &str) -> &str {
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or("")
}

/// The longest start of `text` that takes at most `bytes_max` bytes.
pub(super) fn bounded(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
