//! The deciding fields of an ordinary request, found without a parser.
//!
//! A body may be long, and all of it has to be seen to be JSON before anything is decided by it. What is taken here is JSON
//! as RFC 8259 has it, of which only strings and nesting are followed; whatever is out of the ordinary, the parser is asked:
//! what is no JSON, since it can say what and where, names with escapes, names that are there twice or look like a
//! deciding one, and nesting beyond [`DEPTH_MAX`].

use std::ops::Range;

use memchr::memchr2;

/// Objects and arrays within one another; one bit tells which each of them is.
const DEPTH_MAX: u32 = 64;

/// Calls `field` with the name of each field of the object that `body` is, as written, and where its value lies. `None` if
/// the parser is to be asked; `field` may say so too.
pub(super) fn fields(body: &[u8], mut field: impl FnMut(&[u8], Range<usize>) -> Option<()>) -> Option<()> {
    let mut reader = Reader { bytes: body, at: 0 };
    reader.space();
    reader.needs(b'{')?;
    reader.space();
    if reader.next_is(b'}') {
        return reader.end();
    }
    loop {
        let name = reader.at + 1;
        reader.string(false)?;
        let name = &body[name..reader.at - 1];
        reader.colon()?;
        let value = reader.at;
        reader.value()?;
        field(name, value..reader.at)?;
        reader.space();
        if !reader.next_is(b',') {
            reader.needs(b'}')?;
            return reader.end();
        }
        reader.space();
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// Goes behind the next byte if it is `byte`.
    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.byte() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn needs(&mut self, byte: u8) -> Option<()> {
        self.next_is(byte).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let is = self.bytes[self.at..].starts_with(word);
        self.at += word.len();
        is.then_some(())
    }

    fn colon(&mut self) -> Option<()> {
        self.space();
        self.needs(b':')?;
        self.space();
        Some(())
    }

    /// Nothing follows.
    fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.bytes.len()).then_some(())
    }

    fn value(&mut self) -> Option<()> {
        // The innermost is the lowest bit, which is set for an object.
        let (mut objects, mut depth) = (0_u64, 0);
        loop {
            match self.byte()? {
                b'"' => self.string(true)?,
                bracket @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    let object = bracket == b'{';
                    // Two behind the opening bracket stands the closing one, in ASCII.
                    if !self.next_is(bracket + 2) {
                        if depth == DEPTH_MAX {
                            return None;
                        }
                        (objects, depth) = (objects << 1 | u64::from(object), depth + 1);
                        if object {
                            self.string(true)?;
                            self.colon()?;
                        }
                        continue;
                    }
                }
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => self.number()?,
            }
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.space();
                let object = objects & 1 == 1;
                if self.next_is(b',') {
                    self.space();
                    if object {
                        self.string(true)?;
                        self.colon()?;
                    }
                    break;
                }
                self.needs(if object { b'}' } else { b']' })?;
                (objects, depth) = (objects >> 1, depth - 1);
            }
        }
    }

    /// A string, from its quote on to behind the other.
    fn string(&mut self, may_escape: bool) -> Option<()> {
        self.needs(b'"')?;
        loop {
            self.at = next_special(self.bytes, self.at);
            match self.byte()? {
                b'"' => break,
                b'\\' if may_escape => self.escape()?,
                _ => return None,
            }
        }
        self.at += 1;
        Some(())
    }

    fn escape(&mut self) -> Option<()> {
        let escaped = self.bytes.get(self.at + 1)?;
        self.at += match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => {
                let digits = self.bytes.get(self.at + 2..self.at + 6)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(6)?
            }
            _ => return None,
        };
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        self.next_is(b'-');
        if !self.next_is(b'0') {
            self.digits()?;
        }
        if self.next_is(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit at least.
    fn digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }
}

/// A string is first looked for its end within so many bytes: most are names, roles, words, for which a call would be dear.
const NEAR_BYTES: usize = 8;

/// Where the first byte from `at` on lies that ends a string, begins an escape, or may not stand in a string.
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    let is_special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    let near = bytes.len().min(at + NEAR_BYTES);
    while at < near {
        if is_special(bytes[at]) {
            return at;
        }
        at += 1;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
    // The smallest of many is found many at a time.
    let least = rest[..end].iter().fold(u8::MAX, |least, &byte| least.min(byte));
    if least >= 0x20 { at + end } else { at + rest.iter().position(|&byte| byte < 0x20).unwrap_or(end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each value lies, as text.
    fn read(body: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        fields(body.as_bytes(), |name, value| {
            found.push((String::from_utf8_lossy(name).into_owned(), body[value].to_owned()));
            Some(())
        })?;
        Some(found)
    }

    #[test]
    fn what_is_taken_is_json_and_every_field_is_found() {
        for body in [
            r#"{}"#,
            " {\t}\r\n",
            r#"{"a":1}"#,
            r#"{"model":"m","stream":true,"n":-0.5e+10,"x":null,"y":false,"z":0}"#,
            r#"{ "a" : [ ] , "b" : { } , "c" : [ 1 , [ 2 , { "d" : [ ] } ] , "e" ] }"#,
            r#"{"a":"with \"quotes\" \\ \/ \b\f\n\r\t \u00e9 and a good deal of text behind them, é"}"#,
            r#"{"a":{"nested":{"deeper":"]}"}},"b":[{"c":"[{"},{"d":[]}]}"#,
            r#"{"":""}"#,
        ] {
            let parsed: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).expect(body);
            let found = read(body).expect(body);
            assert_eq!(found.len(), parsed.len(), "{body}");
            for (name, value) in found {
                assert_eq!(serde_json::from_str::<serde_json::Value>(&value).expect(body), parsed[&name], "{body}");
            }
        }
    }

    #[test]
    fn what_is_no_json_is_left_to_the_parser_wherever_it_breaks_off() {
        let whole =
            r#"{"a":[1,-2.5e3,{"b":"c\u00e9\n"},[]],"d":{"e":null,"f":[true,false]},"g":"a long string to see","h":0}"#;
        assert!(read(whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), None, "{}", &whole[..cut]);
        }
        for body in [
            r#"[]"#,
            r#""a""#,
            r#"{"a":1}}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a" 1}"#,
            r#"{"a":}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":+1}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":-}"#,
            r#"{"a":nul}"#,
            r#"{"a":True}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":[1}}"#,
            r#"{"a":{"b":1]}"#,
            r#"{"a":{"b"}}"#,
            r#"{"a":[}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12g4"}"#,
            "{\"a\":\"line\nbreak\"}",
            "{\"a\":\"a string that is long enough, and then a \u{1} in it\"}",
            "{\"a\":1}\u{c}",
        ] {
            assert_eq!(read(body), None, "{body}");
            assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(body).is_err(), "{body}");
        }
    }

    #[test]
    fn nesting_is_followed_to_its_bound_and_a_name_with_an_escape_not_at_all() {
        let nested =
            |depth: usize| format!(r#"{{"a":{}{}}}"#, "[{\"b\":".repeat(depth / 2) + "1", "}]".repeat(depth / 2));
        let depth = DEPTH_MAX as usize;
        assert!(read(&nested(depth)).is_some());
        assert_eq!(read(&nested(depth + 2)), None);
        assert_eq!(read(r#"{"mod\u0065l":"m"}"#), None);
        assert!(read(r#"{"a":{"mod\u0065l":"m"}}"#).is_some());
    }

    #[test]
    fn a_string_ends_where_it_ends_wherever_that_is() {
        for len in 0..100 {
            for special in ['"', '\\', '\n'] {
                let bytes = format!("{}{special}{}", "é".repeat(len / 2) + &"x".repeat(len % 2), "y\"".repeat(40));
                assert_eq!(next_special(bytes.as_bytes(), 0), len, "{special:?}");
            }
            assert_eq!(next_special(&vec![b'x'; len], 0), len, "no end");
        }
    }
}
