use super::*;
use proptest::prelude::*;

/// Feeds `parts` one after the other: content, bytes used in all, and whether the body ended.
fn feed<'a>(
    decoder: &mut Decoder,
    parts: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, usize, bool), Malformed> {
    let (mut content, mut used) = (Vec::new(), 0);
    for mut part in parts {
        while !part.is_empty() && !decoder.is_done() {
            let piece = decoder.decode(part)?;
            assert!(piece.consumed > 0, "no progress at {part:?}");
            assert!(piece.data.end <= piece.consumed && piece.consumed <= part.len());
            assert_eq!(piece.done, decoder.is_done());
            content.extend_from_slice(&part[piece.data]);
            used += piece.consumed;
            part = &part[piece.consumed..];
        }
    }
    Ok((content, used, decoder.is_done()))
}

#[test]
fn a_chunked_body_is_the_same_at_every_split() {
    for (name, body, content, trailers) in [
        ("7.1 empty", "0\r\n\r\n", "", ""),
        ("7.1 one chunk", "5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("7.1 two chunks", "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", "hello, world", ""),
        ("7.1 either case", "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
        ("7.1 leading zeros", "0000000000000005\r\nhello\r\n000\r\n\r\n", "hello", ""),
        ("7.1 content that looks like framing", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n", ""),
        ("7.1.1 extension", "5;a\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("7.1.1 extension with a value", "5;a=b;c=d\r\nhello\r\n0;e\r\n\r\n", "hello", ""),
        ("7.1.1 quoted value", "5;a=\"x;\\\"y\\\\\"\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("7.1.1 whitespace around the parts", "5 \t; a \t= b ; c\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("7.1.1 whitespace around a quoted value", "5;a= \"\" ;b\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("7.1.1 space after a name", "5;a \r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("7.1.2 trailer", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", "hello", "X-Sum: 1\r\n"),
        ("7.1.2 two trailers", "0\r\na:1\r\nb: 2 \r\n\r\n", "", "a: 1\r\nb: 2\r\n"),
        (
            "9110-6.5.1 forbidden trailers",
            "0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nAuthorization: y\r\nHost: z\r\nContent-Type: t\r\nSet-Cookie: c\r\n\
             ok: 1\r\nconnection: q\r\nX-Forwarded-For: f\r\nLocation: l\r\nIf-Match: m\r\nx-api-key: k\r\n\r\n",
            "",
            "ok: 1\r\n",
        ),
    ] {
        let check = |decoder: &mut Decoder, parts: &[&[u8]], at: &str| {
            let fed = feed(decoder, parts.iter().copied());
            assert_eq!(fed, Ok((content.as_bytes().to_vec(), body.len(), true)), "{name}: {at}");
            assert_eq!(decoder.trailers(), trailers.as_bytes(), "{name}: {at}");
            assert_eq!(decoder.eof(), Ok(()), "{name}: {at}");
        };
        let (whole, next) = (body.as_bytes(), b"GET / HTTP/1.1\r\n");
        let followed = [whole, next].concat();
        check(&mut Decoder::request(Framing::Chunked), &[&followed], "with the next message behind it");
        for end in 0..=whole.len() {
            check(&mut Decoder::request(Framing::Chunked), &[&whole[..end], &whole[end..]], &format!("split at {end}"));
            if end < whole.len() {
                let mut decoder = Decoder::response(Framing::Chunked);
                assert!(
                    matches!(feed(&mut decoder, [&whole[..end]]), Ok((_, used, false)) if used == end),
                    "{name}: {end}"
                );
                assert_eq!(decoder.eof().map_err(|cut| cut.status), Err(502), "{name}: cut off at {end}");
            }
        }
        check(&mut Decoder::request(Framing::Chunked), &whole.chunks(1).collect::<Vec<_>>(), "byte by byte");
    }
}

#[test]
fn a_broken_chunked_body_is_refused_after_its_sound_content() {
    for (name, body, content) in [
        ("7.1 no size", "\r\nhello\r\n", ""),
        ("7.1 not hexadecimal", "g\r\n", ""),
        ("7.1 prefix 0x", "0x5\r\nhello\r\n", ""),
        ("7.1 plus sign", "+5\r\nhello\r\n", ""),
        ("7.1 minus sign", "-5\r\nhello\r\n", ""),
        ("7.1 underscore", "1_0\r\n", ""),
        ("7.1 space before the size", " 5\r\nhello\r\n", ""),
        ("7.1 seventeen digits", "00000000000000005\r\nhello\r\n", ""),
        ("7.1 beyond 64 bits", "10000000000000000\r\n", ""),
        ("7.1 bare LF after the size", "5\nhello\r\n", ""),
        ("7.1 bare CR after the size", "5\rhello\r\n", ""),
        ("7.1 CR CR LF after the size", "5\r\r\nhello\r\n", ""),
        ("7.1 space after the size", "5 \r\nhello\r\n", ""),
        ("7.1 content too long", "5\r\nhelloX\r\n", "hello"),
        ("7.1 bare LF after the content", "5\r\nhello\n0\r\n\r\n", "hello"),
        ("7.1 bare CR after the content", "5\r\nhello\r0\r\n\r\n", "hello"),
        ("7.1 nothing after the content", "5\r\nhello0\r\n\r\n", "hello"),
        ("7.1 fault in the second chunk", "5\r\nhello\r\n2\r\nyoX", "helloyo"),
        ("7.1.1 no name", "5;\r\nhello\r\n", ""),
        ("7.1.1 no value", "5;a=\r\nhello\r\n", ""),
        ("7.1.1 open quote", "5;a=\"b\r\nhello\r\n", ""),
        ("7.1.1 text after a quote", "5;a=\"b\"c\r\nhello\r\n", ""),
        ("7.1.1 two equals signs", "5;a==b\r\nhello\r\n", ""),
        ("7.1.1 bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n", ""),
        ("7.1.1 bare LF in a quoted value", "5;a=\"\n\"\r\nhello\r\n", ""),
        ("7.1.1 bare CR in an extension", "5;a\rb\r\nhello\r\n", ""),
        ("7.1.1 NUL in an extension", "5;a\0\r\nhello\r\n", ""),
        ("7.1.1 no semicolon", "5 a\r\nhello\r\n", ""),
        ("7.1.1 trailing whitespace after a value", "5;a=b \r\nhello\r\n", ""),
        ("7.1.2 bare LF ends the body", "0\r\n\n", ""),
        ("7.1.2 bare CR ends the body", "0\r\n\rX", ""),
        ("7.1.2 bare LF after a trailer", "0\r\na: b\n\r\n", ""),
        ("7.1.2 bare CR in a trailer", "0\r\na: b\rc\r\n\r\n", ""),
        ("7.1.2 trailer without a colon", "1\r\nx\r\n0\r\nabc\r\n\r\n", "x"),
        ("7.1.2 folded trailer", "0\r\na: b\r\n c\r\n\r\n", ""),
        ("7.1.2 space before the colon", "0\r\na : b\r\n\r\n", ""),
        ("7.1.2 NUL in a trailer", "0\r\na: \0\r\n\r\n", ""),
    ] {
        let body = body.as_bytes();
        for split in 0..=body.len() {
            let (mut decoder, mut got, mut fault) = (Decoder::request(Framing::Chunked), Vec::new(), None);
            'parts: for mut part in [&body[..split], &body[split..]] {
                while !part.is_empty() {
                    match decoder.decode(part) {
                        Ok(piece) => {
                            assert!(!piece.done && piece.consumed > 0, "{name}");
                            got.extend_from_slice(&part[piece.data]);
                            part = &part[piece.consumed..];
                        }
                        Err(malformed) => {
                            fault = Some(malformed.status);
                            break 'parts;
                        }
                    }
                }
            }
            assert_eq!((fault, &*got), (Some(400), content.as_bytes()), "{name}: split at {split}");
            assert!(decoder.eof().is_err(), "{name}");
        }
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let status = |body: &str| {
        feed(&mut Decoder::request(Framing::Chunked), [body.as_bytes()]).map(|fed| fed.2).map_err(|it| it.status)
    };
    let extension = |len: usize| format!(";{}", "e".repeat(len - 1));
    let max = EXTENSION_BYTES_MAX as usize;
    assert_eq!(status(&format!("0{}\r\n\r\n", extension(max))), Ok(true));
    assert_eq!(status(&format!("0{}\r\n\r\n", extension(max + 1))), Err(400));
    // Content pays for extensions, byte for byte; small chunks with long ones run out.
    let chunk = |extension_len: usize| format!("4{}\r\nabcd\r\n", extension(extension_len));
    assert_eq!(status(&(chunk(4).repeat(5000) + "0\r\n\r\n")), Ok(true));
    assert_eq!(status(&(chunk(5).repeat(5000) + "0\r\n\r\n")), Err(400));
    // No chunk saves up for more than the bound.
    assert_eq!(status(&format!("2000\r\n{}\r\n0{}\r\n\r\n", "x".repeat(0x2000), extension(max + 1))), Err(400));

    let trailers = |bytes: usize| format!("0\r\nt:{}\r\n\r\n", "v".repeat(bytes - 4));
    assert_eq!(status(&trailers(TRAILER_BYTES_MAX)), Ok(true));
    assert_eq!(status(&trailers(TRAILER_BYTES_MAX + 1)), Err(400));
    let lines = |count: usize| format!("0\r\n{}\r\n", "t:v\r\n".repeat(count));
    assert_eq!(status(&lines(MAX_HEADERS)), Ok(true));
    assert_eq!(status(&lines(MAX_HEADERS + 1)), Err(400));
}

#[test]
fn other_bodies_end_where_their_framing_says() {
    for (name, framing, bytes, content, is_done, eof_is_sound) in [
        ("none", Framing::None, "next", "", true, true),
        ("length 0", Framing::Length(0), "next", "", true, true),
        ("length", Framing::Length(5), "hellonext", "hello", true, true),
        ("length, cut off", Framing::Length(5), "hell", "hell", false, false),
        ("until close", Framing::UntilClose, "hello", "hello", false, true),
    ] {
        for split in 0..=bytes.len() {
            let mut decoder = Decoder::response(framing);
            let (first, second) = bytes.as_bytes().split_at(split);
            let (got, used, done) = feed(&mut decoder, [first, second]).unwrap();
            assert_eq!((&*got, used, done), (content.as_bytes(), content.len(), is_done), "{name}: split at {split}");
            assert_eq!(decoder.eof().map_err(|cut| cut.status), if eof_is_sound { Ok(()) } else { Err(502) }, "{name}");
            assert_eq!(decoder.is_done(), eof_is_sound, "{name}");
        }
    }
    let mut decoder = Decoder::request(Framing::Length(5));
    assert_eq!(decoder.remaining(), Some(5));
    decoder.decode(b"he").unwrap();
    assert_eq!(decoder.remaining(), Some(3));
    assert_eq!(decoder.decode(b""), Ok(Piece { consumed: 0, data: 0..0, done: false }));
    assert_eq!(Decoder::request(Framing::Chunked).remaining(), None);
}

#[test]
fn the_end_is_told_together_with_the_last_content() {
    let mut decoder = Decoder::response(Framing::Chunked);
    let body = b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1";
    assert_eq!(decoder.decode(body), Ok(Piece { consumed: 15, data: 3..8, done: true }));
}

proptest! {
    #[test]
    fn a_written_body_reads_back_however_it_is_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        trailer in prop::option::of("[!-~]{1,20}"),
        cut in 1..64_usize,
    ) {
        let mut wire = Vec::new();
        for chunk in &chunks {
            begin_chunk(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            end_chunk(&mut wire);
        }
        let mut trailers = Vec::new();
        if let Some(value) = &trailer {
            write_header(&mut trailers, "x-sum", value.as_bytes()).unwrap();
        }
        last_chunk(&mut wire, &trailers);
        let mut decoder = Decoder::request(Framing::Chunked);
        prop_assert_eq!(feed(&mut decoder, wire.chunks(cut)), Ok((chunks.concat(), wire.len(), true)));
        prop_assert_eq!(decoder.trailers(), &*trailers);
    }

    #[test]
    fn no_bytes_panic_or_depend_on_how_they_are_cut(
        bytes in prop::collection::vec(prop_oneof![
            Just(b"\r\n".to_vec()), Just(b"5\r\nhello\r\n".to_vec()), Just(b"0\r\n".to_vec()), Just(b";a=\"b\"".to_vec()),
            Just(b"x: y\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..4),
        ], 0..10).prop_map(|parts| parts.concat()),
        cut in 1..8_usize,
    ) {
        let whole = feed(&mut Decoder::request(Framing::Chunked), [&*bytes]);
        let parts = feed(&mut Decoder::request(Framing::Chunked), bytes.chunks(cut));
        prop_assert_eq!(whole, parts);
    }
}
