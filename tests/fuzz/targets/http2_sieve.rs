//! What of a peer's HTTP/2 frames reaches the library: the same, and the same fault, wherever the connection is cut and
//! however little room there is; and what passes are the frames that came, but for priorities and empty DATA.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::base::clock::Instant;
use ringway_fuzz::wire::http2::{Fault, PREFACE, Sieve};
use ringway_fuzz::{Dice, cuts};

const FRAME_BYTES_MAX: u32 = 16 << 10;

fuzz_target!(|data: &[u8]| {
    // How many frames may carry nothing, and whose they are.
    let [max, side, rest @ ..] = data else { return };
    let preface: &[u8] = if side & 1 == 0 { PREFACE } else { &[] };
    let sieve = match preface {
        [] => Sieve::of_server(u32::from(*max), FRAME_BYTES_MAX),
        _ => Sieve::of_client(u32::from(*max), FRAME_BYTES_MAX),
    };
    let bytes = [preface, rest].concat();
    let (whole, fault) = sift(&sieve, &[&bytes], None);
    for pieces in cuts(&bytes) {
        let (out, found) = sift(&sieve, &pieces, Some(Dice::of(data)));
        assert_eq!(found, fault, "{pieces:?}");
        // Of the frame in which the fault lies more or less may have passed.
        assert!(if fault.is_none() { out == whole } else { out.starts_with(&whole) || whole.starts_with(&out) });
    }
    let plain = plain(rest);
    assert!(plain.starts_with(&whole[preface.len().min(whole.len())..]), "no other bytes pass");
    if fault.is_none() {
        // All but what is held of a header.
        assert!(plain.len() - (whole.len() - preface.len()) < 9);
    }
});

/// What passes of `pieces`, and the fault that follows; with `dice`, with little room at times.
fn sift(sieve: &Sieve, pieces: &[&[u8]], mut dice: Option<Dice>) -> (Vec<u8>, Option<Fault>) {
    let (mut sieve, mut out) = (sieve.clone(), Vec::new());
    for piece in pieces {
        let mut piece = *piece;
        loop {
            let room = dice.as_mut().map_or(usize::MAX >> 1, |dice| dice.roll(24) + 1);
            let before = out.len();
            match sieve.pass(piece, room, |bytes| out.extend_from_slice(bytes), || Instant(1)) {
                Err(fault) => return (out, Some(fault)),
                Ok(seen) => {
                    assert!(out.len() - before <= room, "more than there is room for");
                    piece = &piece[seen..];
                    // It is asked again while it had something to say.
                    if piece.is_empty() && out.len() == before {
                        break;
                    }
                }
            }
        }
    }
    (out, None)
}

/// The frames of `bytes` without priorities and empty DATA, by a reader that has all of them and looks at nothing else.
fn plain(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [high, middle, low, kind, flags, a, b, c, d, rest @ ..] = bytes {
        let len = usize::from(*high) * 65_536 + usize::from(*middle) * 256 + usize::from(*low);
        let payload = &rest[..len.min(rest.len())];
        bytes = &rest[payload.len()..];
        match kind {
            2 => continue,
            0 if len == 0 && flags & 1 == 0 && [a & 0x7f, *b, *c, *d] != [0; 4] => continue,
            1 if flags & 32 != 0 => {
                let pad = usize::from(flags & 8 != 0);
                let shorter = (len.saturating_sub(5) as u32).to_be_bytes();
                out.extend_from_slice(&[shorter[1], shorter[2], shorter[3], *kind, flags & !32, *a, *b, *c, *d]);
                out.extend_from_slice(&payload[..pad.min(payload.len())]);
                out.extend_from_slice(payload.get(pad + 5..).unwrap_or_default());
            }
            _ => {
                out.extend_from_slice(&[*high, *middle, *low, *kind, *flags, *a, *b, *c, *d]);
                out.extend_from_slice(payload);
            }
        }
    }
    out.extend_from_slice(bytes);
    out
}
