//! Event streams: every byte goes on, and the events are those of the standard, however the stream is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::base::Dialect;
use ringway_fuzz::wire::chat::Kind;
use ringway_fuzz::wire::read_event;
use ringway_fuzz::wire::sse::{Framer, write_event};
use ringway_fuzz::{Dice, cuts};

/// Name and data.
type Event = (Vec<u8>, Vec<u8>);

fuzz_target!(|data: &[u8]| {
    let expected = standard(data);
    for pieces in cuts(data) {
        let (sent, events) = relay(&pieces, usize::MAX);
        assert!(data.starts_with(&sent));
        assert_eq!(events, expected);

        // Events that are too long pass unread: which ones depends on the pieces, but no other event comes to be.
        let mut dice = Dice::of(data);
        let (sent, events) = relay(&pieces, 1 + dice.roll(64));
        assert!(data.starts_with(&sent));
        let mut all = expected.iter();
        assert!(events.iter().all(|event| all.any(|own| own == event)), "{events:?} {expected:?}");
    }
    for (name, data) in &expected {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            let meaning = read_event(dialect, name, data);
            assert_eq!(meaning.kind == Kind::Error, meaning.error.is_some());
        }
    }
    assert_written_is_read(data);
});

/// What a relay does with the pieces: the bytes that it has sent on, and the events it saw.
fn relay(pieces: &[&[u8]], event_bytes_max: usize) -> (Vec<u8>, Vec<Event>) {
    let (mut framer, mut held) = (Framer::new(), Vec::new());
    let (mut sent, mut events) = (Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut at = 0;
        loop {
            if framer.is_passing() {
                let passed = framer.pass(&held[at..]);
                at += passed.len;
                if !passed.ended {
                    assert_eq!(at, held.len());
                    break;
                }
                continue;
            }
            match framer.next(&held[at..]) {
                Some(frame) => {
                    assert!(frame.len > 0 && frame.len <= held.len() - at);
                    assert!(frame.has_data || frame.data.is_empty());
                    at += frame.len;
                    if frame.has_data {
                        events.push((frame.event.to_vec(), frame.data.to_vec()));
                    }
                }
                None if held.len() - at > event_bytes_max => {
                    let passed = framer.pass(&held[at..]);
                    assert!(passed.len == held.len() - at && !passed.ended);
                    at += passed.len;
                }
                None => break,
            }
        }
        sent.extend(held.drain(..at));
    }
    (sent, events)
}

/// HTML Standard, 9.2.6, with the whole stream in hand.
fn standard(stream: &[u8]) -> Vec<Event> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut lines, mut line, mut bytes) = (Vec::new(), Vec::new(), stream.iter().peekable());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                if *byte == b'\r' {
                    bytes.next_if(|next| **next == b'\n');
                }
                lines.push(std::mem::take(&mut line));
            }
            byte => line.push(*byte),
        }
    }
    let (mut events, mut name, mut data) = (Vec::new(), Vec::new(), None::<Vec<u8>>);
    for line in lines {
        if line.is_empty() {
            let name = std::mem::take(&mut name);
            events.extend(data.take().map(|data| (name, data)));
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match (&line[..colon], &mut data) {
            (b"event", _) => name = value.to_vec(),
            (b"data", Some(data)) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            (b"data", None) => data = Some(value.to_vec()),
            _ => {}
        }
    }
    events
}

/// An event that is written is one event again, its line ends told as LF.
fn assert_written_is_read(data: &[u8]) {
    let mut out = Vec::new();
    write_event(&mut out, Some("name"), data);
    let mut lines = Vec::with_capacity(data.len());
    let mut bytes = data.iter().peekable();
    while let Some(byte) = bytes.next() {
        if *byte == b'\r' {
            bytes.next_if(|next| **next == b'\n');
        }
        lines.push(if *byte == b'\r' { b'\n' } else { *byte });
    }
    assert_eq!(standard(&out), [(b"name".to_vec(), lines)]);
}
