//! Encoded bodies: what is decoded depends on no cut and no room, stays within its caps, and comes to an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::wire::coding::{Caps, Codings, Decoder, Fault};
use ringway_fuzz::{Dice, cuts};

const CAPS: Caps = Caps { bytes_max: 64 << 10, ratio_max: 100 };

fuzz_target!(|data: &[u8]| {
    // The first line is a Content-Encoding, what follows it the body.
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let body = data.get(line + 1..).unwrap_or_default();
    let Ok(Some(codings)) = Codings::read([&data[..line]]) else { return };

    let (whole, end) = decode(codings, &[body], CAPS.bytes_max as usize);
    let room = 1 + Dice::of(data).roll(4096);
    for pieces in cuts(body) {
        let (content, cut_end) = decode(codings, &pieces, room);
        match (end, cut_end) {
            (Ok(()), _) | (_, Ok(())) => assert_eq!((&content, cut_end), (&whole, end)),
            // How far it came before its fault may differ, but not what came.
            _ => assert!(content.starts_with(&whole) || whole.starts_with(&content)),
        }
    }
});

fn decode(codings: Codings, pieces: &[&[u8]], room: usize) -> (Vec<u8>, Result<(), Fault>) {
    let (mut decoder, mut content, mut room) = (Decoder::new(codings, CAPS), Vec::new(), vec![0; room]);
    for mut piece in pieces.iter().copied() {
        let mut idle = 0;
        loop {
            let step = match decoder.decode(piece, &mut room) {
                Ok(step) => step,
                Err(fault) => {
                    assert_eq!(decoder.decode(piece, &mut room), Err(fault), "now and ever after");
                    assert_eq!(decoder.finish(), Err(fault));
                    return (content, Err(fault));
                }
            };
            content.extend_from_slice(&room[..step.produced]);
            // What a call has made beyond its cap is given with it.
            assert!(content.len() <= CAPS.bytes_max as usize + room.len());
            piece = &piece[step.consumed..];
            // Nothing in, nothing out: not for ever.
            idle = if step.consumed + step.produced == 0 { idle + 1 } else { 0 };
            assert!(idle < 64, "no step forward");
            if piece.is_empty() && !step.more {
                break;
            }
        }
    }
    (content, decoder.finish())
}
