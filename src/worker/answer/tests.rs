//! What is held of a stream, and for how long.

use super::*;

const EVENT_BYTES_MAX: usize = 200;
const HOLD_BYTES_MAX: usize = 300;

fn events() -> Events {
    Events::new(Dialect::OpenAi, Api::Chat, false, EVENT_BYTES_MAX, HOLD_BYTES_MAX)
}

/// An event with content, so many bytes long with its blank line.
fn content(bytes: usize) -> String {
    let (start, end) = (r#"data: {"choices":[{"index":0,"delta":{"content":""#, "\"}}]}\n\n");
    format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len()))
}

#[test]
fn an_event_is_held_up_to_the_bound_and_a_longer_one_passes_in_pieces() {
    let mut stream = events();
    let mut out = Vec::new();
    // All of it but its end, which is what has to be held.
    let longest = content(EVENT_BYTES_MAX + 1);
    let (held, end) = longest.as_bytes().split_at(EVENT_BYTES_MAX);
    assert!(!stream.push(held, &mut out));
    assert!(out.is_empty() && !stream.committed && !stream.is_mid_event());
    assert!(stream.push(end, &mut out) && stream.committed);
    assert_eq!(String::from_utf8_lossy(&out), longest);
    assert_eq!(stream.contents, 1);

    let (mut stream, mut out) = (events(), Vec::new());
    let longer = content(EVENT_BYTES_MAX + 2);
    let (held, end) = longer.as_bytes().split_at(EVENT_BYTES_MAX + 1);
    stream.push(held, &mut out);
    assert!(stream.committed && stream.is_mid_event(), "one byte more is not held");
    assert_eq!(out, held);
    stream.push(end, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), longer);
    assert!(!stream.is_mid_event());
    // What has come to its end at once was never held.
    let (mut stream, mut out) = (events(), Vec::new());
    stream.push(content(10 * EVENT_BYTES_MAX).as_bytes(), &mut out);
    assert!(stream.committed && !stream.is_mid_event());
}

#[test]
fn what_is_no_content_is_held_up_to_the_bound_and_then_let_through() {
    let comment = |bytes: usize| format!(":{}\n\n", "x".repeat(bytes - 3));
    for (bytes, is_let_through) in [(HOLD_BYTES_MAX, false), (HOLD_BYTES_MAX + 1, true)] {
        let (mut stream, mut out) = (events(), Vec::new());
        stream.push(comment(100).as_bytes(), &mut out);
        stream.push(comment(bytes - 100).as_bytes(), &mut out);
        assert_eq!(out.len(), bytes);
        assert_eq!(stream.committed, is_let_through, "{bytes} bytes");
    }
}
