//! JSON answers: what is read along depends on no cut, and is what a parser of the whole reads.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::base::Dialect;
use ringway_fuzz::cuts;
use ringway_fuzz::wire::answer::{Answer, AnswerScan};
use ringway_fuzz::wire::chat::Usage;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

fuzz_target!(|data: &[u8]| {
    for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
        let whole = Answer::read(dialect, data);
        assert_eq!(Answer::read_error(dialect, data), whole.error);
        for pieces in cuts(data) {
            let mut scan = AnswerScan::new(dialect);
            pieces.iter().for_each(|piece| scan.push(piece));
            assert_eq!(scan.finish(), whole);
        }
        assert_parsed(data, &whole);
    }
});

fn assert_parsed(data: &[u8], answer: &Answer) {
    if serde_json::from_slice::<IgnoredAny>(data).is_err() {
        return;
    }
    assert!(answer.well_formed, "a parser takes it");
    // The scan does not look into strings, and the parser only at those it keeps.
    if std::str::from_utf8(data).is_err() {
        return;
    }
    // Keys with escapes are known to the parser only; of repeated ones the last counts for both.
    let Ok(Fields(fields)) = serde_json::from_slice::<Fields<'_>>(data) else {
        assert!(answer.usage.is_none() && answer.error.is_none(), "what has no fields says nothing");
        return;
    };
    let usage = fields.get("\"usage\"").filter(|usage| usage.len() < 8 * 1024);
    assert_eq!(answer.usage, usage.and_then(|usage| Usage::read(usage)));
    assert!(answer.error.is_none() || fields.contains_key("\"error\""));
}

/// The fields of an object, names and values as written.
struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Fields<'a>, D::Error> {
        from.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = HashMap::new();
        while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            fields.insert(name.get(), value.get());
        }
        Ok(Fields(fields))
    }
}
