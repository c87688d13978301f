//! Forms: the model is found, or the form refused, wherever the network cuts it; and never is one model taken where
//! another reader might see a second.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::cuts;
use ringway_fuzz::wire::multipart::{Finder, FormError, Found, Watch, boundary};

/// `Ok(None)` if no model is named, or not yet.
type Verdict = Result<Option<String>, FormError>;

fuzz_target!(|data: &[u8]| {
    // The first line is a content type, what follows it the form.
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (content_type, body) = (&data[..line], data.get(line + 1..).unwrap_or_default());
    let delimiter = boundary(content_type).unwrap_or(b"b");
    assert!((1..=70).contains(&delimiter.len()) && !delimiter.contains(&b'\r') && !delimiter.contains(&b'\n'));

    let whole = held(delimiter, body);
    for pieces in cuts(body) {
        let (verdict, ended) = streamed(delimiter, &pieces);
        assert_eq!(verdict.is_err(), whole.is_err(), "{verdict:?} in pieces, {whole:?} as a whole");
        if !ended {
            assert_eq!(verdict.is_ok(), whole.is_ok());
        }
        if let (Ok(verdict), Ok(whole)) = (&verdict, &whole) {
            assert_eq!(verdict, whole);
        }
    }
    if let Ok(Some(name)) = &whole {
        assert_one(delimiter, body, name);
    }
});

/// With all of the form in hand.
fn held(delimiter: &[u8], body: &[u8]) -> Verdict {
    let mut finder = Finder::new(delimiter);
    match finder.find(body)? {
        Found::Model { name, range } => {
            assert_eq!(&body[range], name.as_bytes());
            finder.watch(body)?;
            Ok(Some(name.to_owned()))
        }
        Found::NeedMore | Found::Absent => Ok(None),
    }
}

/// As the gateway does it: held up to the model, then watched. True if the form has ended without a model.
fn streamed(delimiter: &[u8], pieces: &[&[u8]]) -> (Verdict, bool) {
    let (mut finder, mut body) = (Finder::new(delimiter), Vec::new());
    let mut watching: Option<(String, Watch)> = None;
    for piece in pieces {
        if let Some((_, watch)) = &mut watching {
            if let Err(error) = watch.push(piece) {
                return (Err(error), false);
            }
            continue;
        }
        body.extend_from_slice(piece);
        let name = match finder.find(&body) {
            Err(error) => return (Err(error), false),
            Ok(Found::Model { name, .. }) => name.to_owned(),
            Ok(Found::NeedMore) => continue,
            Ok(Found::Absent) => return (Ok(None), true),
        };
        match std::mem::replace(&mut finder, Finder::new(delimiter)).watch(&body) {
            Ok(watch) => watching = Some((name, watch)),
            Err(error) => return (Err(error), false),
        }
    }
    (Ok(watching.map(|(name, _)| name)), false)
}

/// Of the parts that a simple reader sees, one and only one says that it is the model.
fn assert_one(delimiter: &[u8], body: &[u8], name: &str) {
    let mark = [b"\r\n--", delimiter].concat();
    let body = [b"\r\n", body].concat();
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(found) = body[at..].windows(mark.len()).position(|window| window == mark) {
        at += found + mark.len();
        if body[at..].starts_with(b"--") {
            break;
        }
        starts.push(at);
    }
    let models = starts.iter().filter(|start| {
        let part = &body[**start..];
        // Wherever a lenient reader may see the end of the head.
        let ends = [&b"\r\n\r\n"[..], b"\n\n", b"\r\r", &mark];
        let end = ends.iter().filter_map(|end| part.windows(end.len()).position(|window| window == *end)).min();
        let Some(end) = end else { return false };
        let head = String::from_utf8_lossy(&part[..end]).to_ascii_lowercase();
        head.split("\r\n").filter(|line| line.starts_with("content-disposition:")).any(|line| {
            // Wherever in the line: some readers search.
            let is_named = line.contains("name=\"model\"") || line.ends_with("name=model");
            is_named && !line.contains("filename=")
        })
    });
    let models = models.count();
    assert!(models <= 1, "{models} models, {name:?} was taken");
    // A delimiter within the head of a part would end the part for one reader and not for another.
    let taken = starts.iter().filter(|start| {
        let part = &body[**start..];
        let head = part.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(part.len());
        part[..head].windows(mark.len()).any(|window| window == mark)
    });
    assert_eq!(taken.count(), 0, "a delimiter within a head");
}
