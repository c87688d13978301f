use std::io::Write;

use super::*;
use crate::base::Dialect;
use crate::wire::chat::Api;

const CAPS: Caps = Caps { bytes_max: 64 << 20, ratio_max: 200 };
const HOLD_BYTES_MAX: usize = 4 << 10;

fn gzip() -> Codings {
    Codings::read([b"gzip".as_slice()]).expect("known").expect("one")
}

/// The parts in gzip, each flushed, and the end.
fn pieces(parts: &[String]) -> Vec<Vec<u8>> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut pieces: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| {
            writer.write_all(part.as_bytes()).unwrap();
            writer.flush().unwrap();
            std::mem::take(writer.get_mut())
        })
        .collect();
    pieces.push(writer.finish().unwrap());
    pieces
}

fn events(strip_usage: bool) -> Answer {
    Answer::Events(Box::new(Events::new(Dialect::OpenAi, Api::Chat, strip_usage, 1 << 20, HOLD_BYTES_MAX)))
}

fn chunk(content: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n")
}

const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n";
const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn what_passes_is_every_byte_and_what_it_says_is_known_in_the_same_turn() {
    let parts = [ROLE.to_owned(), chunk("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let pieces = pieces(&parts);
    let mut coded = Coded::new(gzip(), CAPS, events(false), true);
    let (mut out, mut told) = (Vec::new(), Vec::new());
    for piece in &pieces {
        let content = coded.push(piece, &mut out);
        let events = coded.plain().events().expect("a stream");
        told.push((content, events.committed, events.ended));
    }
    assert_eq!(out, pieces.concat());
    assert_eq!(
        told,
        [
            (false, false, false),
            (true, true, false),
            (true, true, false),
            (false, true, false),
            (false, true, true),
            (false, true, true)
        ]
    );
    let events = coded.plain().events().expect("a stream");
    assert_eq!(
        (events.usage.input, events.usage.output, events.contents, events.is_whole()),
        (Some(7), Some(2), 2, true)
    );
    assert_eq!((coded.fault(false), coded.fault(true)), (None, None));
}

#[test]
fn what_is_decoded_is_what_would_have_been_sent_plain() {
    let parts = [ROLE.to_owned(), chunk("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let mut coded = Coded::new(gzip(), CAPS, events(true), false);
    let mut out = Vec::new();
    for byte in pieces(&parts).concat() {
        coded.push(&[byte], &mut out);
    }
    let wanted = [ROLE, &chunk("a"), FINISH, DONE].concat();
    assert_eq!(String::from_utf8(out).unwrap(), wanted);
    assert_eq!(coded.plain().events().expect("a stream").usage.input, Some(7));
    assert_eq!(coded.fault(true), None);
}

#[test]
fn a_body_without_its_end_is_truncated_once_it_is_done() {
    let pieces = pieces(&[chunk("a"), FINISH.into(), DONE.into()]);
    for passes in [true, false] {
        let mut coded = Coded::new(gzip(), CAPS, events(false), passes);
        let mut out = Vec::new();
        for piece in &pieces[..pieces.len() - 1] {
            coded.push(piece, &mut out);
        }
        assert_eq!((coded.fault(false), coded.fault(true)), (None, Some(Fault::Truncated)));
        coded.push(b"\0\0\0\0\0\0\0\0\0\0", &mut out);
        assert_eq!(coded.fault(false), Some(Fault::Corrupt), "{passes}");
    }
}

#[test]
fn what_is_held_until_the_first_content_is_bounded_in_encoded_bytes() {
    // Comments that do not compress.
    let mut seed = 1_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!(": {seed:08x}\n\n")
    };
    let comments: Vec<String> = (0..4000).map(|_| noise()).collect();
    let mut coded = Coded::new(gzip(), CAPS, events(false), true);
    let mut out = Vec::new();
    for piece in pieces(&comments) {
        let before = out.len();
        coded.push(&piece, &mut out);
        let committed = coded.plain().events().expect("a stream").committed;
        assert_eq!(committed, out.len() > HOLD_BYTES_MAX, "{} bytes", out.len());
        if committed {
            assert!(before <= HOLD_BYTES_MAX);
            return;
        }
    }
    panic!("never let through: {} bytes", out.len());
}

#[test]
fn a_turn_decodes_so_much_and_the_rest_waits() {
    let words = format!("{{\"data\":\"{}\"}}", "lorem ipsum dolor sit amet ".repeat(40_000));
    let whole = pieces(std::slice::from_ref(&words)).concat();
    let plain = Answer::Json(Box::new(AnswerScan::new(Dialect::OpenAi)));
    let mut coded = Coded::new(gzip(), CAPS, plain, false);
    let mut out = Vec::new();
    coded.push(&whole, &mut out);
    let mut turns = 1;
    while coded.is_behind() {
        assert!(out.len() <= turns * (TURN_BYTES + PIECE_BYTES), "{} bytes in {turns} turns", out.len());
        assert_eq!(coded.fault(true), None, "what waits is not missing");
        coded.go_on(&mut out);
        turns += 1;
    }
    assert_eq!((turns, out.len()), (words.len().div_ceil(TURN_BYTES), words.len()));
    assert_eq!(coded.fault(true), None);
}

#[test]
fn beyond_the_caps_the_rest_passes_unread_or_fails() {
    let bomb = pieces(&[chunk("a"), format!(": {}\n\n", "0".repeat(2 << 20)), chunk("b")]);
    for (passes, fault, unread) in [(true, None, true), (false, Some(Fault::Ratio), false)] {
        let mut coded = Coded::new(gzip(), CAPS, events(false), passes);
        let mut out = Vec::new();
        for piece in &bomb {
            coded.push(piece, &mut out);
            while coded.is_behind() {
                coded.go_on(&mut out);
            }
        }
        assert_eq!((coded.fault(true), coded.is_unread()), (fault, unread));
        if passes {
            assert_eq!(out, bomb.concat(), "it passes all the same");
            assert!(coded.push(b"more", &mut out), "and what passes unread is taken for content");
            assert!(coded.plain().events().expect("a stream").committed);
        }
        assert!(coded.waiting.capacity() + coded.sink.capacity() <= SPARE_BYTES_MAX, "nothing is kept for it");
    }
}
