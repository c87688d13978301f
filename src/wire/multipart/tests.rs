use proptest::prelude::*;

use super::*;

#[test]
fn a_content_type_names_its_boundary() {
    for (content_type, expected) in [
        ("multipart/form-data; boundary=abc", Some("abc")),
        ("Multipart/Form-Data;charset=utf-8;BOUNDARY=abc;x=y", Some("abc")),
        ("multipart/form-data; boundary=\"a b:c=d\";x=y", Some("a b:c=d")),
        ("multipart/form-data; x=\"a\\\";boundary=b\"; boundary=abc", Some("abc")),
        ("multipart/form-data; boundary=----WebKitFormBoundary7MA4;", Some("----WebKitFormBoundary7MA4")),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary", None),
        ("multipart/form-data; boundary=\"abc", None),
        ("multipart/form-data; boundary=\"a\\bc\"", None),
        ("multipart/form-data; boundary=\"abc \"", None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        ("multipart/form-data; boundary=a\u{e9}", None),
        ("multipart/mixed; boundary=abc", None),
        ("application/json", None),
        ("", None),
    ] {
        assert_eq!(boundary(content_type.as_bytes()), expected.map(str::as_bytes), "{content_type}");
    }
    for (len, fits) in [(70, true), (71, false)] {
        let content_type = format!("multipart/form-data; boundary={}", "b".repeat(len));
        assert_eq!(boundary(content_type.as_bytes()).is_some(), fits, "{len}");
    }
}

/// What a body tells once it has come whole, having come cut at every place and byte by byte.
fn find(body: &[u8]) -> Result<Option<(String, Range<usize>)>, FormError> {
    let told = |found: Found<'_>| match found {
        Found::NeedMore => None,
        Found::Absent => Some(None),
        Found::Model { name, range } => Some(Some((name.to_owned(), range))),
    };
    let whole = Finder::new(b"b").find(body).map(told);
    for cut in 0..=body.len() {
        let mut finder = Finder::new(b"b");
        match finder.find(&body[..cut]) {
            Err(error) => assert_eq!(whole, Err(error), "cut at {cut}"),
            Ok(_) => assert_eq!(finder.find(body).map(told), whole, "cut at {cut}"),
        }
    }
    let mut finder = Finder::new(b"b");
    let byte_by_byte = (0..=body.len()).map(|end| finder.find(&body[..end]).map(told));
    let mut last = Ok(None);
    for found in byte_by_byte {
        last = found;
        if last.is_err() {
            break;
        }
    }
    assert_eq!(last, whole, "byte by byte");
    whole.map(Option::flatten)
}

fn part(head: &str, value: &str) -> String {
    format!("--b\r\n{head}\r\n\r\n{value}\r\n")
}

const MODEL: &str = "Content-Disposition: form-data; name=\"model\"";

#[test]
fn the_model_is_found_among_the_parts() {
    let file = part(
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav",
        "RIFF\r\n-b\r\n--\r\n\0",
    );
    for (name, body, expected) in [
        ("alone", part(MODEL, "whisper-1") + "--b--\r\n", Some("whisper-1")),
        ("first", part(MODEL, "whisper-1") + &file + "--b--", Some("whisper-1")),
        ("last", file.clone() + &part(MODEL, "whisper-1") + "--b--", Some("whisper-1")),
        ("the rest not there yet", part(MODEL, "w") + "--b\r\nContent-", Some("w")),
        ("behind a preamble", format!("hello\r\n{}--b--", part(MODEL, "w")), Some("w")),
        (
            "other spelling",
            part("content-type: text/plain\r\ncontent-disposition:form-data;NAME=model", "w") + "--b--",
            Some("w"),
        ),
        ("escaped", part("Content-Disposition: form-data; name=\"mo\\del\"", "w") + "--b--", Some("w")),
        ("blanks behind the delimiter", part(MODEL, "w").replace("--b\r", "--b \t\r") + "--b--", Some("w")),
        ("empty", part(MODEL, "") + "--b--", Some("")),
        ("not UTF-8 elsewhere", part(MODEL, "é") + "--b--", Some("é")),
        ("absent", file.clone() + "--b--", None),
        ("no part", "--b--".into(), None),
        ("a part without a head", "--b\r\n\r\nmodel\r\n--b--".into(), None),
        ("a head without a value", "--b\r\nX: y\r\n\r\n--b--".into(), None),
        ("another name", part("Content-Disposition: form-data; name=\"model_id\"", "w") + "--b--", None),
        (
            "the name in a value",
            part("Content-Disposition: form-data; name=\"x\"; y=\"; name=model\"", "w") + "--b--",
            None,
        ),
    ] {
        let found = find(body.as_bytes()).expect(name);
        assert_eq!(found.as_ref().map(|(model, _)| model.as_str()), expected, "{name}");
        if let Some((model, range)) = found {
            assert_eq!(&body[range], model, "{name}");
        }
    }
    let unfinished = file + "--b\r\n" + MODEL;
    assert_eq!(Finder::new(b"b").find(unfinished.as_bytes()), Ok(Found::NeedMore));
    assert_eq!(Finder::new(b"b").find(b""), Ok(Found::NeedMore));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (name, body, error) in [
        ("two models", part(MODEL, "a") + &part(MODEL, "a") + "--b--", FormError::Duplicate),
        ("a model file", part(&format!("{MODEL}; filename=\"x\""), "a"), FormError::Model),
        ("two names", part("Content-Disposition: form-data; name=x; name=model", "a"), FormError::Model),
        (
            "another way to name",
            part("Content-Disposition: form-data; name=x; name*=utf-8''model", "a"),
            FormError::Malformed,
        ),
        (
            "two dispositions",
            part(&format!("{MODEL}\r\nContent-Disposition: form-data; name=x"), "a"),
            FormError::Malformed,
        ),
        ("a folded head", part("Content-Disposition: form-data;\r\n name=model", "a"), FormError::Malformed),
        ("an open quote", part("Content-Disposition: form-data; name=\"model", "a"), FormError::Malformed),
        ("too long", part(MODEL, &"a".repeat(1025)) + "--b--", FormError::Model),
        ("too long and no end", format!("--b\r\n{MODEL}\r\n\r\n{}", "a".repeat(1100)), FormError::Model),
        ("no place for a value", format!("--b\r\n{MODEL}\r\n\r\n--b--"), FormError::Model),
        ("a longer boundary", part("X: y", "a") + "--bc\r\n\r\n", FormError::Malformed),
        ("LF line ends", part(MODEL, "a").replace('\r', ""), FormError::Malformed),
    ] {
        // Ends with what makes it wrong, so that it is told before the next part comes.
        let body = if body.ends_with("\r\n") { body + "--b--" } else { body };
        assert_eq!(find(body.as_bytes()).map(drop), Err(error), "{name}");
    }
    let reject = Reject::from(FormError::Duplicate);
    assert_eq!((reject.status, &*reject.code, reject.param), (400, "duplicate_field", Some("model")));
    let invalid = [part(MODEL, "").trim_end().as_bytes(), b"\r\n\r\n\xff\r\n--b--"].concat();
    assert_eq!(Finder::new(b"b").find(&invalid), Err(FormError::Model));
    let head = format!("--b\r\nX: {}", "y".repeat(9000));
    assert_eq!(Finder::new(b"b").find(head.as_bytes()), Err(FormError::Malformed));
    assert_eq!(find(part(MODEL, &"a".repeat(1024)).as_bytes()).map(drop), Ok(()));
}

proptest! {
    #[test]
    fn any_bytes_are_searched_without_panic(tokens in prop::collection::vec(prop::sample::select(vec![
        "--b", "\r\n", "\r\n\r\n", "--", MODEL, "x", " ", "\"", ";", "=", "\n", "Content-Disposition:", "name=model", "\u{fffd}",
    ]), 0..30)) {
        let body = tokens.concat();
        if let Ok(Some((model, range))) = find(body.as_bytes()) {
            prop_assert_eq!(&body[range], model);
        }
    }
}
