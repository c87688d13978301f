//! Chunked bodies: the same content and the same end however they come, as a plain reader of the whole sees them; and
//! what is encoded is decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::head::is_token;
use ringway_fuzz::wire::http1::{Decoder, EXTENSION_BYTES_MAX, Framing, begin_chunk, end_chunk, last_chunk};
use ringway_fuzz::{Dice, cuts};

/// What came of a body.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It ended after so many bytes.
    Done(usize),
    /// More must come.
    Open,
    Malformed,
}

fuzz_target!(|data: &[u8]| {
    let (content, end, trailers) = decode([data]);
    for pieces in cuts(data) {
        let (cut_content, cut_end, cut_trailers) = decode(pieces);
        assert_eq!((&cut_content, &cut_end, &cut_trailers), (&content, &end, &trailers), "it depends on the pieces");
    }
    if data.len() < EXTENSION_BYTES_MAX as usize {
        let (plain_content, plain_end) = plain(data);
        assert_eq!((&content, &end), (&plain_content, &plain_end));
    }
    let mut dice = Dice::of(data);
    let (tail, content) = data.split_at(dice.roll(data.len() + 1));
    assert_round_trip(content, &trailers, tail);
});

/// What the gateway makes of the pieces: content, end, trailers.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, End, Vec<u8>) {
    let mut decoder = Decoder::request(Framing::Chunked);
    let (mut content, mut consumed) = (Vec::new(), 0);
    for mut piece in pieces {
        while !piece.is_empty() && !decoder.is_done() {
            let Ok(step) = decoder.decode(piece) else { return (content, End::Malformed, Vec::new()) };
            assert!(step.consumed > 0 || step.done, "no step forward");
            assert!(step.data.start <= step.data.end && step.data.end <= step.consumed);
            assert_eq!(step.done, decoder.is_done());
            content.extend_from_slice(&piece[step.data]);
            consumed += step.consumed;
            piece = &piece[step.consumed..];
        }
    }
    let trailers = decoder.trailers().to_vec();
    let end = if decoder.is_done() { End::Done(consumed) } else { End::Open };
    assert_eq!(decoder.eof().is_ok(), decoder.is_done());
    (content, end, trailers)
}

/// RFC 9112 §7.1, with the whole body in hand.
fn plain(data: &[u8]) -> (Vec<u8>, End) {
    let mut reader = Reader { data, at: 0 };
    let mut content = Vec::new();
    let end = match reader.body(&mut content) {
        Ok(()) => End::Done(reader.at),
        Err(end) => end,
    };
    (content, end)
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn body(&mut self, content: &mut Vec<u8>) -> Result<(), End> {
        loop {
            let size = self.size()?;
            self.extensions()?;
            self.exactly(b"\r\n")?;
            if size == 0 {
                return self.trailers();
            }
            let left = (self.data.len() - self.at) as u64;
            let run = size.min(left) as usize;
            content.extend_from_slice(&self.data[self.at..self.at + run]);
            self.at += run;
            if size > left {
                return Err(End::Open);
            }
            self.exactly(b"\r\n")?;
        }
    }

    fn peek(&self) -> Result<u8, End> {
        self.data.get(self.at).copied().ok_or(End::Open)
    }

    fn exactly(&mut self, bytes: &[u8]) -> Result<(), End> {
        for byte in bytes {
            if self.peek()? != *byte {
                return Err(End::Malformed);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn size(&mut self) -> Result<u64, End> {
        let start = self.at;
        while self.peek()?.is_ascii_hexdigit() {
            self.at += 1;
            if self.at - start > 16 {
                return Err(End::Malformed);
            }
        }
        let digits = std::str::from_utf8(&self.data[start..self.at]).expect("ASCII");
        u64::from_str_radix(digits, 16).map_err(|_| End::Malformed)
    }

    fn blanks(&mut self) -> Result<usize, End> {
        let start = self.at;
        while matches!(self.peek()?, b' ' | b'\t') {
            self.at += 1;
        }
        Ok(self.at - start)
    }

    fn token(&mut self) -> Result<(), End> {
        let start = self.at;
        while is_token(self.peek()?) {
            self.at += 1;
        }
        if self.at == start { Err(End::Malformed) } else { Ok(()) }
    }

    fn extensions(&mut self) -> Result<(), End> {
        // Blanks after a name alone are allowed: an equals sign might have followed.
        let mut name_alone = false;
        loop {
            let blanks = self.blanks()?;
            if self.peek()? != b';' {
                return if blanks > 0 && !name_alone { Err(End::Malformed) } else { Ok(()) };
            }
            self.at += 1;
            self.blanks()?;
            self.token()?;
            let name_end = self.at;
            self.blanks()?;
            name_alone = self.peek()? != b'=';
            if name_alone {
                self.at = name_end;
                continue;
            }
            self.at += 1;
            self.blanks()?;
            if self.peek()? != b'"' {
                self.token()?;
                continue;
            }
            self.at += 1;
            loop {
                let byte = self.peek()?;
                let is_text = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
                if !is_text {
                    return Err(End::Malformed);
                }
                self.at += 1;
                match byte {
                    b'"' => break,
                    b'\\' => {
                        let escaped = self.peek()?;
                        if escaped != b'\t' && (escaped < 0x20 || escaped == 0x7f) {
                            return Err(End::Malformed);
                        }
                        self.at += 1;
                    }
                    _ => {}
                }
            }
        }
    }

    fn trailers(&mut self) -> Result<(), End> {
        let mut sound = true;
        loop {
            if self.peek()? == b'\r' {
                self.at += 1;
                self.exactly(b"\n")?;
                // What the lines say is looked at when all are here.
                return if sound { Ok(()) } else { Err(End::Malformed) };
            }
            let start = self.at;
            while self.peek()? != b'\r' {
                if self.peek()? == b'\n' {
                    return Err(End::Malformed);
                }
                self.at += 1;
            }
            let line = &self.data[start..self.at];
            self.exactly(b"\r\n")?;
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
            sound &= colon > 0 && line[..colon].iter().copied().all(is_token);
            sound &= line[colon..].iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
        }
    }
}

/// What is encoded comes out again, trailers too, and nothing of what follows is touched.
fn assert_round_trip(content: &[u8], trailers: &[u8], tail: &[u8]) {
    for pieces in cuts(content) {
        let mut encoded = Vec::new();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            begin_chunk(&mut encoded, piece.len());
            encoded.extend_from_slice(piece);
            end_chunk(&mut encoded);
        }
        last_chunk(&mut encoded, trailers);
        let len = encoded.len();
        encoded.extend_from_slice(tail);
        for pieces in cuts(&encoded).into_iter().skip(1).take(2) {
            let (decoded, end, kept) = decode(pieces);
            assert_eq!((&decoded[..], end, &kept[..]), (content, End::Done(len), trailers));
        }
    }
}
