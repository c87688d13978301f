//! A head read as plainly as can be: split at CRLF, every rule checked by itself.

use crate::Dice;
use crate::wire::http1::{Field, Fields, Framing, HeadLimits, Malformed, Version};

/// The start line and the field lines of a head that must be sound; `bytes` spans it up to its empty line.
///
/// # Panics
/// If it is not.
pub fn split(bytes: &[u8]) -> (&[u8], Vec<(&[u8], &[u8])>) {
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("ends with an empty line");
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    for line in &lines {
        assert!(!line.is_empty(), "an empty line within a head");
        let sound = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
        assert!(line.iter().all(sound), "a control byte in {line:?}");
    }
    let fields = lines[1..].iter().map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        assert!(!name.is_empty() && name.iter().copied().all(is_token), "not a name: {name:?}");
        (name, trim(value))
    });
    (lines[0], fields.collect())
}

/// RFC 9110 §5.6.2.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The values of `name`, in order.
pub fn values<'a>(fields: &[(&[u8], &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, value)| *value).collect()
}

/// The one framing that sound fields name: `None` if they name none.
///
/// # Panics
/// If they name two, or one in an odd way.
pub fn framing(fields: &[(&[u8], &[u8])], version: Version) -> Option<Framing> {
    match (&values(fields, "transfer-encoding")[..], &values(fields, "content-length")[..]) {
        ([], []) => None,
        ([coding], []) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"), "{coding:?}");
            assert_eq!(version, Version::Http11, "chunks in HTTP/1.0");
            Some(Framing::Chunked)
        }
        ([], [length]) => {
            let digits = std::str::from_utf8(length).expect("digits");
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits:?}");
            Some(Framing::Length(digits.parse().expect("a number")))
        }
        (codings, lengths) => panic!("framed twice: {codings:?} {lengths:?}"),
    }
}

/// True if a `connection` field holds `option`.
pub fn connection_says(fields: &[(&[u8], &[u8])], option: &str) -> bool {
    let values = values(fields, "connection");
    let mut options = values.iter().flat_map(|value| value.split(|byte| *byte == b',')).map(trim);
    options.any(|own| own.eq_ignore_ascii_case(option.as_bytes()))
}

/// The lines as the gateway's own reader gives them must be the plain reader's.
pub fn assert_same(read: &Fields<'_, '_>, plain: &[(&[u8], &[u8])]) {
    let read: Vec<_> = read.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
    assert_eq!(read, plain);
}

/// Lines that go on to the other side must be read there as they were here.
pub fn assert_passed_on(fields: &Fields<'_, '_>, keep: impl Fn(&Field<'_>) -> bool) -> Vec<u8> {
    let mut copied = Vec::new();
    fields.copy_to(&mut copied, |field| keep(field));
    let (_, plain) = split_lines(&copied);
    let kept: Vec<_> = fields.iter().filter(|field| keep(field)).collect();
    let kept: Vec<_> = kept.iter().map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec())).collect();
    assert_eq!(plain, kept);
    copied
}

#[allow(clippy::type_complexity)]
fn split_lines(lines: &[u8]) -> (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>) {
    let head = [b"x\r\n", lines, b"\r\n"].concat();
    let (first, fields) = split(&head);
    (first.to_vec(), fields.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

/// Limits small enough to be met.
pub fn limits(data: &[u8]) -> HeadLimits {
    let mut dice = Dice::of(data);
    HeadLimits {
        head_bytes_max: dice.pick(&[64, 256, 1024, 64 << 10]),
        headers_max: dice.pick(&[2, 8, 100, 1000]),
        target_bytes_max: dice.pick(&[8, 64, 8 << 10]),
    }
}

/// What came of a buffer: the head's description and length, nothing yet, or a refusal.
pub type Verdict = Result<Option<(String, usize)>, Malformed>;

/// Checks that what is known of the first bytes stays true when more come.
pub fn assert_steady(data: &[u8], whole: &Verdict, verdict: impl Fn(&[u8]) -> Verdict) {
    for end in crate::ends(data) {
        let early = verdict(&data[..end]);
        match (&early, whole) {
            (Ok(None), Ok(Some((_, len)))) => assert!(end < *len, "the end of the head was not seen at {end}"),
            (Ok(None), _) => {}
            (Ok(Some(_)), _) => assert_eq!(&early, whole, "another head after {end} bytes"),
            (Err(_), whole) => assert!(whole.is_err(), "refused after {end} bytes, and then not: {early:?} {whole:?}"),
        }
    }
}
