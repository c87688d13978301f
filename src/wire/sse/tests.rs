use proptest::prelude::*;

use super::*;

type Event = (Vec<u8>, Vec<u8>);

/// Plain transcription of the standard: all bytes at once, one line after the other.
fn reference(stream: &[u8]) -> Vec<Event> {
    let stream = stream.strip_prefix(BOM).unwrap_or(stream);
    let mut lines = vec![Vec::new()];
    let mut bytes = stream.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte == b'\r' {
            bytes.next_if(|&&next| next == b'\n');
            lines.push(Vec::new());
        } else if byte == b'\n' {
            lines.push(Vec::new());
        } else {
            lines.last_mut().unwrap().push(byte);
        }
    }
    lines.pop(); // Not ended.
    let (mut events, mut event, mut data) = (Vec::new(), Vec::new(), None::<Vec<u8>>);
    for line in lines {
        if line.is_empty() {
            let event = std::mem::take(&mut event);
            if let Some(data) = data.take() {
                events.push((event, data));
            }
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let mut value = line.get(colon + 1..).unwrap_or_default();
        if value.first() == Some(&b' ') {
            value = &value[1..];
        }
        match &line[..colon] {
            b"event" => event = value.to_vec(),
            b"data" => match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    events
}

/// What a relay does with pieces of a stream, and what it sent on and understood.
#[derive(Default)]
struct Relay {
    framer: Framer,
    buf: Vec<u8>,
    sent: Vec<u8>,
    events: Vec<Event>,
    passed: usize,
}

impl Relay {
    fn feed(&mut self, piece: &[u8], event_bytes_max: usize) {
        self.buf.extend_from_slice(piece);
        let mut at = 0;
        loop {
            if self.framer.is_passing() {
                let passed = self.framer.pass(&self.buf[at..]);
                at += passed.len;
                self.passed += usize::from(passed.ended);
                if !passed.ended {
                    break;
                }
            }
            match self.framer.next(&self.buf[at..]) {
                Some(frame) => {
                    assert!(frame.len > 0);
                    at += frame.len;
                    if frame.has_data {
                        self.events.push((frame.event.to_vec(), frame.data.to_vec()));
                    } else {
                        assert!(frame.data.is_empty());
                    }
                }
                None if self.buf.len() - at > event_bytes_max => {
                    let passed = self.framer.pass(&self.buf[at..]);
                    assert_eq!(passed, Passed { len: self.buf.len() - at, ended: false });
                    at += passed.len;
                }
                None => break,
            }
        }
        self.sent.extend(self.buf.drain(..at));
    }

    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, event_bytes_max: usize) -> Relay {
        let mut relay = Relay::default();
        for piece in pieces {
            relay.feed(piece, event_bytes_max);
        }
        relay
    }
}

fn event(data: &str) -> Event {
    (Vec::new(), data.into())
}

#[test]
fn the_standards_examples_read_as_it_says() {
    let named = |name: &str, data: &str| (name.into(), data.into());
    for (name, stream, expected) in [
        (
            "three events",
            "data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\ndata: This is the third message.\n\n",
            vec![
                event("This is the first message."),
                event("This is the second message, it\nhas two lines."),
                event("This is the third message."),
            ],
        ),
        (
            "names",
            "event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n",
            vec![named("add", "73857293"), named("remove", "2153")],
        ),
        ("stocks", "data: YHOO\ndata: +2\ndata: 10\n\n", vec![event("YHOO\n+2\n10")]),
        (
            "comment and id",
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            vec![event("first event"), event("second event"), event(" third event")],
        ),
        ("empty data counts, an open block does not", "data\n\ndata\ndata\n\ndata:", vec![event(""), event("\n")]),
        ("one space goes", "data:test\n\ndata: test\n\n", vec![event("test"), event("test")]),
        ("a name alone is no event", "event: x\n\ndata: y\n\n", vec![event("y")]),
        ("unknown fields", "foo: bar\ndatax: 1\ndata: y\nretry: 7\nfoo\n\n", vec![event("y")]),
        ("byte order mark", "\u{feff}data: y\n\n", vec![event("y")]),
        ("byte order mark, several lines", "\u{feff}data: y\ndata: z\n\n", vec![event("y\nz")]),
        ("byte order mark alone on its line", "\u{feff}\ndata: y\n\n", vec![event("y")]),
        ("only the first mark counts", "data: x\n\n\u{feff}data: y\n\n", vec![event("x")]),
        ("comment between fields", "data: a\n: c\ndata: b\n\n", vec![event("a\nb")]),
        ("colon in the value", "data: {\"a\": 1}\n\n", vec![event("{\"a\": 1}")]),
    ] {
        assert_eq!(reference(stream.as_bytes()), expected, "the reference, {name}");
        let relay = Relay::run([stream.as_bytes()], usize::MAX);
        assert_eq!(relay.events, expected, "{name}");
    }
}

const STREAMS: [&str; 7] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"你好, 🌍\"}}]}\n\n: keep-alive\n\ndata: [DONE]\n\n",
    "data: a\r\n\r\ndata: b\r\ndata: ü\r\n\r\n\r\n",
    "data: a\r\rdata: b\rdata: c\r\r\r",
    "data: a\r\n\ndata: b\n\r\ndata: c\r\n\rdata: d\n\r",
    "\u{feff}event: ping\ndata: {}\n\nevent:x\r\ndata:\r\n\r\n",
    ": comment\r\n: another\rid: 7\n: third\nevent: a\ndata: b\n\n",
    "\n\n\r\r\ndata\n\ndata: x\n\ndata: cut off",
];

#[test]
fn every_cut_gives_the_same_events_and_bytes() {
    for stream in STREAMS {
        let stream = stream.as_bytes();
        let expected = reference(stream);
        let check = |name: String, relay: Relay| {
            assert_eq!(relay.events, expected, "{name} of {:?}", String::from_utf8_lossy(stream));
            assert_eq!([relay.sent, relay.buf].concat(), stream, "{name}");
        };
        check("bytes".into(), Relay::run(stream.chunks(1), usize::MAX));
        for first in 0..=stream.len() {
            let (head, tail) = stream.split_at(first);
            check(format!("cut at {first}"), Relay::run([head, tail], usize::MAX));
            for second in 0..=tail.len() {
                let (middle, tail) = tail.split_at(second);
                check(format!("cuts at {first} and {}", first + second), Relay::run([head, middle, tail], usize::MAX));
            }
        }
    }
}

#[test]
fn an_event_leaves_with_its_last_byte() {
    for (stream, frames) in [
        ("data: a\n\n", 1),
        ("data: a\r\n\r", 1),
        ("data: a\r\r", 1),
        (": heartbeat\n", 1),
        (": heartbeat\r", 1),
        ("\u{feff}: heartbeat\n", 1),
        ("data: a\n\n: h\n\n", 3),
        ("data: a\r\n", 0),
    ] {
        let mut relay = Relay::default();
        let mut count = 0;
        relay.buf = stream.into();
        while let Some(frame) = relay.framer.next(&relay.buf) {
            let len = frame.len;
            relay.buf.drain(..len);
            count += 1;
        }
        assert_eq!(count, frames, "{stream:?}");
        assert_eq!(relay.buf.is_empty(), frames > 0, "{stream:?}");
    }
}

#[test]
fn single_line_data_is_borrowed() {
    let stream = b"event: x\ndata: y\n\n".to_vec();
    let frame = Framer::new().next(&stream).unwrap();
    assert_eq!((frame.len, frame.event), (stream.len(), &b"x"[..]));
    assert!(matches!(frame.data, Cow::Borrowed(b"y")));
}

#[test]
fn an_oversize_event_passes_whole_and_framing_goes_on_behind_it() {
    for end in ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\r\n\n"] {
        let lines = format!("data: a{end}event: big{}data: {}{end}data: b{end}", &end[..end.len() / 2], "x".repeat(40));
        let stream = lines.as_bytes();
        for size in 1..=stream.len() {
            let relay = Relay::run(stream.chunks(size), 24);
            assert_eq!(relay.sent, stream, "{end:?}, pieces of {size}");
            assert!(relay.events.first() == Some(&event("a")), "{end:?}, pieces of {size}");
            assert!(relay.events.last() == Some(&event("b")), "{end:?}, pieces of {size}");
            // In one piece it is complete at once, and no bound is asked for.
            assert_eq!(relay.events.len() + relay.passed, 3, "{end:?}, pieces of {size}");
        }
        let relay = Relay::run(stream.chunks(1), 24);
        assert_eq!(relay.passed, 1, "{end:?}");
    }
}

#[test]
fn a_written_event_reads_back() {
    for (name, data, bytes, read) in [
        (None, "{}", "data: {}\n\n", "{}"),
        (Some("error"), "a\nb", "event: error\ndata: a\ndata: b\n\n", "a\nb"),
        (None, "a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n", "a\nb\nc\n"),
        (None, "", "data: \n\n", ""),
        (None, " a", "data:  a\n\n", " a"),
    ] {
        let mut out = Vec::new();
        write_event(&mut out, name, data.as_bytes());
        assert_eq!(String::from_utf8_lossy(&out), bytes, "{data:?}");
        assert_eq!(reference(&out), [(name.unwrap_or("").into(), read.into())], "{data:?}");
    }
}

proptest! {
    #[test]
    fn any_stream_cut_anywhere_reads_as_the_reference(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "data", "data:", "data: ", "event: e", ":", " ", "x", "é", "\n", "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "id: 1", "\u{feff}",
        ]), 0..40),
        cuts in prop::collection::vec(1..9usize, 0..60),
        event_bytes_max in prop_oneof![Just(usize::MAX), 4..30usize],
    ) {
        let stream = tokens.concat();
        let mut rest = stream.as_bytes();
        let mut relay = Relay::default();
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            relay.feed(piece, event_bytes_max);
            rest = tail;
        }
        relay.feed(rest, event_bytes_max);
        prop_assert_eq!([&relay.sent[..], &relay.buf].concat(), stream.as_bytes());
        let mut expected = reference(stream.as_bytes());
        if event_bytes_max == usize::MAX {
            prop_assert_eq!(&relay.events, &expected);
        } else {
            // Whatever was read is right and in order; what is missing was too long and passed unread.
            for event in &relay.events {
                let at = expected.iter().position(|expected| expected == event);
                prop_assert!(at.is_some(), "{:?} is none of the stream's events", event);
                expected.drain(..=at.unwrap_or_default());
            }
        }
    }

    #[test]
    fn any_bytes_are_framed_without_panic_and_none_is_lost(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..20)) {
        let relay = Relay::run(pieces.iter().map(Vec::as_slice), 32);
        prop_assert_eq!([relay.sent, relay.buf].concat(), pieces.concat());
    }
}
