use std::io::Write;

use proptest::prelude::*;

use super::*;

const CAPS: Caps = Caps { bytes_max: 256 << 20, ratio_max: 200 };
const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

fn single(coding: Coding) -> Codings {
    Codings { first: coding, second: None }
}

/// `parts` coded, each flushed before the next, as a server codes a stream; and where each part's bytes end.
fn encode(coding: Coding, parts: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
    let mut ends = Vec::new();
    let coded = match coding {
        Coding::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            for part in parts {
                writer.write_all(part).unwrap();
                writer.flush().unwrap();
                ends.push(writer.get_ref().len());
            }
            writer.finish().unwrap()
        }
        Coding::Deflate => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            for part in parts {
                writer.write_all(part).unwrap();
                writer.flush().unwrap();
                ends.push(writer.get_ref().len());
            }
            writer.finish().unwrap()
        }
        Coding::Brotli => {
            let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            for part in parts {
                writer.write_all(part).unwrap();
                writer.flush().unwrap();
                ends.push(writer.get_ref().len());
            }
            writer.into_inner()
        }
        Coding::Zstd => {
            let mut context = zstd_safe::CCtx::create();
            context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
            let mut coded = Vec::new();
            for part in parts {
                let mut source = InBuffer::around(part);
                run_zstd(&mut coded, |out| context.compress_stream2(out, &mut source, ZSTD_EndDirective::ZSTD_e_flush));
                ends.push(coded.len());
            }
            let mut nothing = InBuffer::around(&[]);
            run_zstd(&mut coded, |out| context.compress_stream2(out, &mut nothing, ZSTD_EndDirective::ZSTD_e_end));
            coded
        }
    };
    (coded, ends)
}

use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{InBuffer, OutBuffer};

fn run_zstd(coded: &mut Vec<u8>, mut call: impl FnMut(&mut OutBuffer<'_, [u8]>) -> zstd_safe::SafeResult) {
    loop {
        let mut room = [0; 4096];
        let mut out = OutBuffer::around(&mut room[..]);
        let left = call(&mut out).expect("zstd encodes");
        let made = out.pos();
        coded.extend_from_slice(&room[..made]);
        if left == 0 {
            return;
        }
    }
}

/// Feeds `pieces` one after another into a room of `room` bytes.
fn decode(codings: Codings, caps: Caps, pieces: &[&[u8]], room: usize) -> (Vec<u8>, Result<(), Fault>) {
    let mut decoder = Decoder::new(codings, caps);
    let mut decoded = Vec::new();
    for piece in pieces {
        if let Err(fault) = feed(&mut decoder, piece, room, &mut decoded) {
            assert_eq!(decoder.finish(), Err(fault), "what is wrong stays wrong");
            assert_eq!(decoder.decode(b"x", &mut [0; 8]), Err(fault));
            return (decoded, Err(fault));
        }
    }
    (decoded, decoder.finish())
}

fn feed(decoder: &mut Decoder, piece: &[u8], room: usize, decoded: &mut Vec<u8>) -> Result<(), Fault> {
    let mut room = vec![0; room];
    let (mut at, mut more) = (0, false);
    while at < piece.len() || more {
        let step = decoder.decode(&piece[at..], &mut room)?;
        assert!(step.consumed + step.produced > 0 || !step.more || step.work > 0, "a call without progress");
        at += step.consumed;
        more = step.more;
        decoded.extend_from_slice(&room[..step.produced]);
    }
    Ok(())
}

fn events() -> Vec<Vec<u8>> {
    let words = ["Grüße", "an", "die", "Welt", "深度", "求索", " ", "\\n", "1e400"];
    (0..24)
        .map(|at| {
            let word = words[at % words.len()];
            format!("data: {{\"id\":\"c{at}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n")
                .into_bytes()
        })
        .collect()
}

fn parts(events: &[Vec<u8>]) -> Vec<&[u8]> {
    events.iter().map(Vec::as_slice).collect()
}

/// The raw format, without zlib's header and checksum.
fn bare_deflate(parts: &[&[u8]]) -> Vec<u8> {
    let mut writer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    for part in parts {
        writer.write_all(part).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_was_coded_is_decoded_at_every_split_point() {
    let events = events();
    let plain = events.concat();
    let mut coded: Vec<(String, Codings, Vec<u8>)> = ALL
        .into_iter()
        .map(|coding| (format!("{coding:?}"), single(coding), encode(coding, &parts(&events)).0))
        .collect();
    coded.push(("bare deflate".into(), single(Coding::Deflate), bare_deflate(&parts(&events))));
    for (outer, inner) in
        [(Coding::Brotli, Coding::Gzip), (Coding::Zstd, Coding::Deflate), (Coding::Gzip, Coding::Zstd)]
    {
        let (below, ends) = encode(inner, &parts(&events));
        let mut from = 0;
        let cuts: Vec<&[u8]> = ends.iter().map(|end| &below[std::mem::replace(&mut from, *end)..*end]).collect();
        let (mut above, _) = encode(outer, &[cuts.concat().as_slice(), &below[from..]]);
        let codings = Codings { first: inner, second: Some(outer) };
        coded.push((format!("{inner:?}, {outer:?}"), codings, std::mem::take(&mut above)));
    }
    for (name, codings, coded) in coded {
        for at in 0..=coded.len() {
            let (decoded, end) = decode(codings, CAPS, &[&coded[..at], &coded[at..]], 512);
            assert_eq!((decoded == plain, end), (true, Ok(())), "{name} split at {at}");
        }
        for (pieces, room) in [(1, 4096), (1, 1), (7, 3), (coded.len(), 1)] {
            let pieces: Vec<&[u8]> = coded.chunks(pieces).collect();
            let (decoded, end) = decode(codings, CAPS, &pieces, room);
            assert_eq!((decoded == plain, end), (true, Ok(())), "{name} into {room}");
        }
    }
}

#[test]
fn what_was_flushed_is_decoded_before_anything_follows() {
    let events = events();
    for coding in ALL {
        let (coded, ends) = encode(coding, &parts(&events));
        let mut decoder = Decoder::new(single(coding), CAPS);
        let (mut from, mut decoded, mut wanted) = (0, Vec::new(), Vec::new());
        for (end, event) in ends.iter().zip(&events) {
            feed(&mut decoder, &coded[from..*end], 4096, &mut decoded).unwrap();
            wanted.extend_from_slice(event);
            assert!(decoded == wanted, "{coding:?}: an event was held back");
            from = *end;
        }
    }
}

#[test]
fn a_body_that_ends_before_its_coding_is_truncated_at_every_byte() {
    let events = events();
    for coding in ALL {
        let (coded, _) = encode(coding, &parts(&events[..4]));
        for at in 1..coded.len() {
            let (_, end) = decode(single(coding), CAPS, &[&coded[..at]], 4096);
            assert_eq!(end, Err(Fault::Truncated), "{coding:?} cut at {at} of {}", coded.len());
        }
    }
    let coded = bare_deflate(&parts(&events[..4]));
    for at in 1..coded.len() {
        let (_, end) = decode(single(Coding::Deflate), CAPS, &[&coded[..at]], 4096);
        assert_eq!(end, Err(Fault::Truncated), "bare deflate cut at {at}");
    }
    let (below, _) = encode(Coding::Gzip, &[b"whole"]);
    let (coded, _) = encode(Coding::Brotli, &[&below[..below.len() - 1]]);
    let both = Codings { first: Coding::Gzip, second: Some(Coding::Brotli) };
    assert_eq!(decode(both, CAPS, &[&coded], 64), (b"whole".to_vec(), Err(Fault::Truncated)));
}

#[test]
fn an_empty_body_and_a_body_of_nothing_are_whole() {
    for coding in ALL {
        assert_eq!(decode(single(coding), CAPS, &[], 64), (Vec::new(), Ok(())), "{coding:?}");
        let (coded, _) = encode(coding, &[]);
        assert_eq!(decode(single(coding), CAPS, &[&coded], 64), (Vec::new(), Ok(())), "{coding:?}");
    }
}

#[test]
fn a_wrong_checksum_a_wrong_length_and_bytes_behind_the_end_are_corrupt() {
    let text = b"{\"usage\":{\"prompt_tokens\":1}}";
    for (coding, at_end) in [(Coding::Gzip, 1), (Coding::Gzip, 8), (Coding::Deflate, 1), (Coding::Zstd, 1)] {
        let (mut coded, _) = encode(coding, &[text]);
        let at = coded.len() - at_end;
        coded[at] ^= 1;
        assert_eq!(decode(single(coding), CAPS, &[&coded], 64).1, Err(Fault::Corrupt), "{coding:?} -{at_end}");
    }
    for coding in ALL {
        let (mut coded, _) = encode(coding, &[text]);
        coded.extend_from_slice(b"\0\0");
        let (decoded, end) = decode(single(coding), CAPS, &[&coded], 64);
        assert_eq!((&decoded[..], end), (&text[..], Err(Fault::Corrupt)), "{coding:?} in one piece");
        let at = coded.len() - 2;
        let (decoded, end) = decode(single(coding), CAPS, &[&coded[..at], &coded[at..]], 64);
        assert_eq!((&decoded[..], end), (&text[..], Err(Fault::Corrupt)), "{coding:?} in two");
        assert!(decode(single(coding), CAPS, &[b"{\"error\":1}  "], 64).1.is_err(), "{coding:?} that is plain");
    }
}

#[test]
fn members_of_gzip_and_frames_of_zstd_follow_one_another() {
    for coding in [Coding::Gzip, Coding::Zstd] {
        let coded: Vec<u8> =
            [b"one ".as_slice(), b"", b"two"].iter().flat_map(|part| encode(coding, &[part]).0).collect();
        for at in 0..=coded.len() {
            let (decoded, end) = decode(single(coding), CAPS, &[&coded[..at], &coded[at..]], 64);
            assert_eq!((decoded.as_slice(), end), (b"one two".as_slice(), Ok(())), "{coding:?} split at {at}");
        }
    }
}

#[test]
fn the_caps_hold_at_the_bound_and_one_past_it() {
    let mebibyte = vec![b'a'; 1 << 20];
    let noise: Vec<u8> = (0..1 << 20)
        .scan(1_u32, |x, _| {
            Some({
                *x = x.wrapping_mul(1_664_525).wrapping_add(1);
                (*x >> 24) as u8
            })
        })
        .collect();
    for coding in ALL {
        let (coded, _) = encode(coding, &[&mebibyte]);
        let caps = |bytes_max| Caps { bytes_max, ratio_max: u32::MAX };
        assert_eq!(decode(single(coding), caps(1 << 20), &[&coded], 4096).1, Ok(()), "{coding:?} at the size");
        let (decoded, end) = decode(single(coding), caps((1 << 20) - 1), &[&coded], 4096);
        assert_eq!(end, Err(Fault::Size), "{coding:?} past the size");
        assert!(decoded.len() <= 1 << 20, "{coding:?}: {}", decoded.len());

        // A mebibyte is within the grace, a byte more is not.
        let narrow = Caps { ratio_max: 2, ..CAPS };
        assert_eq!(decode(single(coding), narrow, &[&coded], 4096).1, Ok(()), "{coding:?} within the grace");
        let (coded, _) = encode(coding, &[&mebibyte, b"b"]);
        assert_eq!(decode(single(coding), narrow, &[&coded], 4096).1, Err(Fault::Ratio), "{coding:?} past the grace");
        // At a ratio that fits exactly, and one below.
        let plain = [&noise[..], &mebibyte, &mebibyte, &mebibyte].concat();
        let (coded, _) = encode(coding, &[&plain]);
        let ratio = (plain.len().div_ceil(coded.len())) as u32;
        let at = Caps { ratio_max: ratio, ..CAPS };
        assert_eq!(decode(single(coding), at, &[&coded], 4096).1, Ok(()), "{coding:?} at the ratio");
        let below = Caps { ratio_max: ratio - 1, ..CAPS };
        assert_eq!(decode(single(coding), below, &[&coded], 4096).1, Err(Fault::Ratio), "{coding:?} past the ratio");
    }
}

/// `count` zeros, coded.
fn zeros(coding: Coding, count: usize) -> Vec<u8> {
    encode(coding, &[&vec![0; count]]).0
}

#[test]
fn a_bomb_is_stopped_after_the_grace_and_each_call_does_little() {
    for coding in ALL {
        let bomb = zeros(coding, 16 << 20);
        let mut decoder = Decoder::new(single(coding), CAPS);
        let (mut at, mut given, mut room) = (0, 0, vec![0; 16 << 10]);
        let end = loop {
            match decoder.decode(&bomb[at..], &mut room) {
                Ok(Step { consumed: 0, produced: 0, more: false, .. }) => panic!("{coding:?}: it went off"),
                Ok(step) => {
                    assert!(step.work <= WORK_PER_CALL + room.len() + BETWEEN_BYTES, "{coding:?}: {step:?}");
                    at += step.consumed;
                    given += step.produced;
                }
                Err(fault) => break fault,
            }
        };
        assert_eq!(end, Fault::Ratio, "{coding:?}");
        assert!(
            given as u64 <= RATIO_GRACE_BYTES.max(200 * at as u64) + room.len() as u64,
            "{coding:?}: {given} of {at}"
        );
    }
}

#[test]
fn a_bomb_within_a_bomb_counts_what_lies_between() {
    // A gibibyte of empty gzip members would come to nothing at all.
    let (member, _) = encode(Coding::Gzip, &[]);
    let members = member.repeat((4 << 20) / member.len());
    let both = Codings { first: Coding::Gzip, second: Some(Coding::Zstd) };
    let (bomb, _) = encode(Coding::Zstd, &[&members]);
    assert_eq!(decode(both, CAPS, &[&bomb], 4096), (Vec::new(), Err(Fault::Ratio)));
    let inner = zeros(Coding::Gzip, 8 << 20);
    let (bomb, _) = encode(Coding::Zstd, &[&inner]);
    assert_eq!(decode(both, CAPS, &[&bomb], 4096).1, Err(Fault::Ratio));
}

#[test]
fn a_window_that_is_too_large_is_refused_and_the_largest_is_not() {
    // A zstd frame header: magic, descriptor without a content size, window descriptor (exponent << 3).
    for (exponent, fault) in [(13, Err(Fault::Truncated)), (14, Err(Fault::Window)), (21, Err(Fault::Window))] {
        // Followed by the header of a raw block that is not the last.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 8, 0, 0, b'a'];
        assert_eq!(decode(single(Coding::Zstd), CAPS, &[&frame], 64).1, fault, "2^{}", 10 + exponent);
    }
    let coded = |bits| {
        let mut writer = brotli::CompressorWriter::new(Vec::new(), 4096, 5, bits);
        writer.write_all(&b"text ".repeat(1 << 10)).unwrap();
        writer.into_inner()
    };
    for (bits, end) in
        [(10, Ok(())), (16, Ok(())), (17, Ok(())), (22, Ok(())), (23, Err(Fault::Window)), (24, Err(Fault::Window))]
    {
        assert_eq!(decode(single(Coding::Brotli), CAPS, &[&coded(bits)], 4096).1, end, "2^{bits}");
    }
    // The reserved value, which announces the large windows of an extension.
    assert_eq!(decode(single(Coding::Brotli), CAPS, &[&[0x11, 0x1e, 0, 0]], 64).1, Err(Fault::Corrupt));
}

#[test]
fn codings_are_read_from_all_lines_in_order() {
    let one = |coding| Ok(Some(single(coding)));
    for (lines, codings) in [
        (&[][..], Ok(None)),
        (&["identity"], Ok(None)),
        (&["", " , "], Ok(None)),
        (&["gzip"], one(Coding::Gzip)),
        (&["X-GZip"], one(Coding::Gzip)),
        (&["Deflate"], one(Coding::Deflate)),
        (&["br"], one(Coding::Brotli)),
        (&["identity, zstd"], one(Coding::Zstd)),
        (&["gzip, br"], Ok(Some(Codings { first: Coding::Gzip, second: Some(Coding::Brotli) }))),
        (&["gzip", "gzip"], Ok(Some(Codings { first: Coding::Gzip, second: Some(Coding::Gzip) }))),
        (&["gzip, br, zstd"], Err(Unknown)),
        (&["gzip", "br", "gzip"], Err(Unknown)),
        (&["compress"], Err(Unknown)),
        (&["gzip;q=1"], Err(Unknown)),
        (&["gzip, aes128gcm"], Err(Unknown)),
    ] {
        assert_eq!(Codings::read(lines.iter().map(|line| line.as_bytes())), codings, "{lines:?}");
    }
}

#[test]
fn a_client_takes_what_it_said() {
    let long = "gzip, ".repeat(11);
    for (said, gzip, brotli, known) in [
        (None, true, true, "identity"),
        (Some("gzip, deflate, br, zstd"), true, true, "gzip, deflate, br, zstd"),
        (Some("gzip, deflate"), true, false, "gzip, deflate"),
        (Some("x-gzip;q=0.5, compress"), true, false, "x-gzip;q=0.5"),
        (Some("identity"), false, false, "identity"),
        (Some(""), false, false, "identity"),
        (Some("*"), true, true, "identity"),
        (Some("br;q=0, *"), true, false, "identity"),
        (Some("*;q=0, br ; q=0.001"), false, true, "br ; q=0.001"),
        (Some("gzip;q=0.000,br"), false, true, "br"),
        (Some("GZIP"), true, false, "GZIP"),
        (Some(&long), false, false, "identity"),
    ] {
        let accepts = Accepts::new(said.map(str::as_bytes), false);
        let takes = [Coding::Gzip, Coding::Brotli].map(|coding| accepts.takes(single(coding)));
        assert_eq!((takes, accepts.known().as_str()), ([gzip, brotli], known), "{said:?}");
    }
    assert!(!Accepts::new(Some(b"gzip"), true).takes(single(Coding::Gzip)), "two lines");
    let just = "gzip,".repeat(12) + "br";
    assert_eq!(just.len(), Accepts::BYTES_MAX);
    assert!(Accepts::new(Some(just.as_bytes()), false).takes(single(Coding::Brotli)), "as long as it may be");
    assert!(!Accepts::new(Some((just + ",").as_bytes()), false).takes(single(Coding::Brotli)), "one longer");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn noise_never_panics_and_always_ends(
        coding in 0..4_usize,
        second in 0..5_usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        piece in 1..600_usize,
        room in 1..5000_usize,
    ) {
        let first = ALL[coding];
        let events = events();
        let (mut coded, _) = encode(first, &parts(&events));
        let second = ALL.get(second).copied();
        if let Some(second) = second {
            coded = encode(second, &[&coded]).0;
        }
        for (at, byte) in &flips {
            let at = at.index(coded.len());
            coded[at] ^= byte;
        }
        coded.truncate(cut.index(coded.len() + 1));
        let pieces: Vec<&[u8]> = coded.chunks(piece).collect();
        let (decoded, end) = decode(Codings { first, second }, CAPS, &pieces, room);
        if flips.is_empty() && !coded.is_empty() {
            prop_assert!(end == Ok(()) || end == Err(Fault::Truncated));
            prop_assert!(events.concat().starts_with(&decoded));
        }
    }
}
