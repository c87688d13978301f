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
        ("in another case", part("Content-Disposition: form-data; name=\"moDel\"", "a"), FormError::Spelling),
        (
            "a second one in another case",
            part(MODEL, "a") + &part("Content-Disposition: x; name=MODEL", "a"),
            FormError::Spelling,
        ),
        (
            "in another case, for one that searches",
            part("Content-Disposition: form-data; name=\"x; name=Model\"", "a"),
            FormError::Malformed,
        ),
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
        (
            "a parameter without a value",
            part("Content-Disposition: form-data; x; name=model", "a"),
            FormError::Malformed,
        ),
        ("a parameter of two words", part("Content-Disposition: form-data; x name=model", "a"), FormError::Malformed),
        (
            "a parameter without a name",
            part("Content-Disposition: form-data; =x; name=model", "a"),
            FormError::Malformed,
        ),
        ("a delimiter in a head", format!("--b\r\nX: y\r\n{}--b--", part(MODEL, "a")), FormError::Malformed),
        ("a delimiter in a head that is not ended", part(MODEL, "a") + "--b\r\nX: y\r\n--b--", FormError::Malformed),
        ("a head that two LFs end", format!("--b\r\n{MODEL}\n\nb\r\n\r\na\r\n--b--"), FormError::Malformed),
        (
            "a second model behind two LFs",
            part(MODEL, "a") + &format!("--b\r\n{MODEL}\n\nb\r\n--b--"),
            FormError::Malformed,
        ),
        (
            "a second model that is never ended",
            part(MODEL, "a") + &format!("--b\r\n{MODEL}\n\nb"),
            FormError::Malformed,
        ),
        ("a bare CR in a head", part(&format!("{MODEL}\rX: y"), "a"), FormError::Malformed),
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

#[test]
fn a_name_that_a_simpler_reader_may_find_is_refused() {
    for disposition in [
        "name=model",
        "fname=\"model\"",
        "form-data; x-name=\"model\"",
        "form-data; name=x; NickName = 'model'",
        "form-data; name=\"x\"; y=\"; name=model\"",
        "form-data; name=\"x; name=model\"",
        "form-data; name=\"x\\\"; name=\\\"mod\\el\\\"\"",
        "form-data; name=x; filename=\"; name=model;\"",
    ] {
        let body = part(&format!("Content-Disposition: {disposition}"), "a") + "--b--";
        assert_eq!(find(body.as_bytes()).map(drop), Err(FormError::Malformed), "{disposition}");
    }
    for disposition in [
        "form-data; name=models",
        "form-data; name=x; filename=model",
        "form-data; name=x; filename=\"a name=model.wav\"",
        "form-data; name=\"model_name=\"",
        "form-data; name=\"the model\"",
        "form-data; n=name",
        "form-data; n=nam",
    ] {
        let body = part(&format!("Content-Disposition: {disposition}"), "a") + "--b--";
        assert_eq!(find(body.as_bytes()), Ok(None), "{disposition}");
    }
}

/// What is told of the rest of a form once the model was found in its first `known` bytes, cut as given by `cuts`.
fn watch(body: &[u8], known: usize, cuts: &[usize]) -> Result<(), FormError> {
    let mut finder = Finder::new(b"b");
    finder.find(&body[..known])?;
    let mut watch = finder.watch(&body[..known])?;
    let mut at = known;
    for &cut in cuts.iter().filter(|cut| **cut > known) {
        watch.push(&body[at..cut])?;
        assert!(watch.carry.len() <= 2 * PART_HEAD_BYTES_MAX + HEAD_END.len());
        at = cut;
    }
    watch.push(&body[at..])
}

/// The same for every way to cut the rest in two, and byte by byte.
fn watch_every_way(body: &[u8], known: usize) -> Result<(), FormError> {
    let whole = watch(body, known, &[]);
    for cut in known..=body.len() {
        assert_eq!(watch(body, known, &[cut]), whole, "cut at {cut} of {:?}", String::from_utf8_lossy(body));
        assert_eq!(watch(body, cut, &[]), whole, "looked at up to {cut} of {:?}", String::from_utf8_lossy(body));
    }
    let every: Vec<usize> = (known..=body.len()).collect();
    assert_eq!(watch(body, known, &every), whole, "byte by byte: {:?}", String::from_utf8_lossy(body));
    whole
}

#[test]
fn a_second_model_is_noticed_wherever_it_comes() {
    let first = part(MODEL, "allowed");
    let file = |data: &str| part("Content-Disposition: form-data; name=\"file\"; filename=\"a\"", data);
    let ok = Ok(());
    for (name, rest, told) in [
        ("nothing more", "--b--\r\n".to_owned(), ok),
        ("a file", file("RIFF\r\n-b\r\n--\r\n\0\r\r\n\r\n--") + "--b--", ok),
        ("the end cut off", file("data"), ok),
        ("a head cut off", format!("{}--b\r\n{MODEL}\r\n", file("data")), ok),
        ("directly behind", part(MODEL, "forbidden") + "--b--", Err(FormError::Duplicate)),
        ("the same name", part(MODEL, "allowed") + "--b--", Err(FormError::Duplicate)),
        ("behind a file", file("x") + &part(MODEL, "forbidden") + "--b--", Err(FormError::Duplicate)),
        ("behind an empty one", file("") + &part(MODEL, "forbidden"), Err(FormError::Duplicate)),
        ("its value not there", format!("{}--b\r\n{MODEL}\r\n\r\n", file("x")), Err(FormError::Duplicate)),
        (
            "behind a part without a value",
            format!("--b\r\nX: y\r\n\r\n{}", part(MODEL, "f")),
            Err(FormError::Duplicate),
        ),
        ("behind a part without a head", format!("--b\r\n\r\nz\r\n{}", part(MODEL, "f")), Err(FormError::Duplicate)),
        ("behind blanks", file("x") + &part(MODEL, "f").replace("--b\r", "--b \t\r"), Err(FormError::Duplicate)),
        ("only in a value", file(&format!("{MODEL}\r\n\r\nx")) + "--b--", ok),
        ("no place for its value", format!("--b\r\n{MODEL}\r\n\r\n--b--"), Err(FormError::Duplicate)),
        ("behind the end", format!("--b--\r\n{}", part(MODEL, "f")), ok),
        ("as a file", part(&format!("{MODEL}; filename=x"), "f"), Err(FormError::Model)),
        ("folded", part("Content-Disposition: form-data;\r\n name=model", "f"), Err(FormError::Malformed)),
        ("a longer boundary", file("x") + "--bc\r\n\r\n", Err(FormError::Malformed)),
    ] {
        assert_eq!(watch_every_way((first.clone() + &rest).as_bytes(), first.len() + 3), told, "{name}");
    }
    // A form whose model was not found yet is watched from its start.
    assert_eq!(watch(first.as_bytes(), 0, &[]), Err(FormError::Duplicate));
}

#[test]
fn what_is_kept_of_a_watched_form_is_bounded() {
    let first = part(MODEL, "allowed");
    for (name, rest, told) in [
        ("a large file", part("X: y", &"\r\n--".repeat(100_000)) + &part(MODEL, "f"), Err(FormError::Duplicate)),
        ("an endless head", format!("--b\r\nX: {}", "y".repeat(100_000)), Err(FormError::Malformed)),
        ("endless blanks", format!("--b{}", " ".repeat(100_000)), Err(FormError::Malformed)),
        ("the longest head", part(&format!("X: {}", "y".repeat(PART_HEAD_BYTES_MAX - 5)), "z") + "--b--", Ok(())),
        ("one byte more", part(&format!("X: {}", "y".repeat(PART_HEAD_BYTES_MAX - 4)), "z"), Err(FormError::Malformed)),
    ] {
        let body = first.clone() + &rest;
        for size in [5, 1000, usize::MAX] {
            let cuts: Vec<usize> =
                (1..).map_while(|n| size.checked_mul(n)).take_while(|cut| *cut < body.len()).collect();
            assert_eq!(watch(body.as_bytes(), first.len() + 3, &cuts), told, "{name}, pieces of {size}");
        }
    }
}

proptest! {
    #[test]
    fn a_watched_form_is_read_as_a_held_one(tokens in prop::collection::vec(prop::sample::select(vec![
        "--b", "--b\r\n", "\r\n--b\r\n", "\r\n", "\r\n\r\n", "--", MODEL, "x", " ", "\n", "\r", "X: y",
    ]), 0..20)) {
        let first = part(MODEL, "m");
        let body = first.clone() + "--b" + &tokens.concat();
        let watched = watch_every_way(body.as_bytes(), first.len() + 3);
        let held = Finder::new(b"b").find(body.as_bytes()).map(drop);
        prop_assert_eq!(watched, held);
    }

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
