//! An HTTP/2 peer that sends any frame with any byte in any place, and reads no more of an answer than its status, its
//! body and how it ended. It knows no library: heads are literals that are neither indexed nor compressed.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// What a frame may hold unless its reader says otherwise (RFC 9113 §4.2).
pub const FRAME_BYTES_MAX: usize = 16 << 10;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("24 bits").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A field of a head, as a literal without indexing (RFC 7541 §6.2.2).
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        integer(&mut bytes, text.len());
        bytes.extend(text);
    }
    bytes
}

/// An integer after seven bits (RFC 7541 §5.1), the first of which says that what follows is not compressed.
fn integer(bytes: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else {
        bytes.push(number as u8);
        return;
    };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(128 | rest as u8);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// A head, in as many frames as it takes.
pub fn head(stream: u32, block: &[u8], ends: bool) -> Vec<u8> {
    let mut pieces = block.chunks(FRAME_BYTES_MAX).peekable();
    let (mut kind, mut flags, mut bytes) = (HEADERS, if ends { END_STREAM } else { 0 }, Vec::new());
    loop {
        let piece = pieces.next().unwrap_or_default();
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, flags | last, stream, piece));
        if last != 0 {
            return bytes;
        }
        (kind, flags) = (CONTINUATION, 0);
    }
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// True if it is the last of its stream.
    pub fn ends(&self) -> bool {
        matches!(self.kind, HEADERS | DATA) && self.flags & END_STREAM != 0
    }

    /// The reason of an RST_STREAM or a GOAWAY.
    pub fn reason(&self) -> u32 {
        word(&self.payload[if self.kind == GOAWAY { 4 } else { 0 }..])
    }
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It was answered, to the end.
    Answer(u16, Vec<u8>),
    /// It was reset, for this reason.
    Reset(u32),
    /// The connection has ended, for this reason if one was told.
    Ended(Option<u32>),
    /// Nothing comes.
    Silent,
}

/// One connection.
pub struct Http2 {
    pub stream: TcpStream,
    held: Vec<u8>,
    told: Option<u32>,
}

impl Http2 {
    /// Connects and sends what comes first. Windows are as wide as they may be, and the other side is to remember no field.
    pub fn connect(address: SocketAddr, patience: Duration) -> Http2 {
        Http2::connect_with(address, patience, 0x7fff_ffff)
    }

    /// As [`Http2::connect`], each stream with a window of its own of so many bytes.
    pub fn connect_with(address: SocketAddr, patience: Duration, stream_window: u32) -> Http2 {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(patience)).expect("a read timeout");
        stream.set_write_timeout(Some(patience)).expect("a write timeout");
        let mut http2 = Http2 { stream, held: Vec::new(), told: None };
        let [a, b, c, d] = stream_window.to_be_bytes();
        let settings = [[0, 1, 0, 0, 0, 0], [0, 4, a, b, c, d]].concat();
        let window = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
        let first = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &settings),
            frame(WINDOW_UPDATE, 0, 0, &window),
        ];
        http2.send(&first.concat());
        http2
    }

    /// The server's side of a connection that was accepted: reads what comes first, and sends `settings`. Its own windows are as
    /// wide as they may be.
    pub fn serve(stream: TcpStream, patience: Duration, settings: &[(u16, u32)]) -> Http2 {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(patience)).expect("a read timeout");
        stream.set_write_timeout(Some(patience)).expect("a write timeout");
        let mut http2 = Http2 { stream, held: Vec::new(), told: None };
        let preface = http2.take(24).unwrap_or_else(|said| panic!("no preface: {said:?}"));
        assert_eq!(preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let window = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
        http2.send(&[frame(SETTINGS, 0, 0, &payload), frame(WINDOW_UPDATE, 0, 0, &window)].concat());
        http2
    }

    /// The next request that is whole: its stream and its body. Of others that have begun, what came is kept in `begun`.
    pub fn request(&mut self, begun: &mut BTreeMap<u32, Vec<u8>>) -> (u32, Vec<u8>) {
        loop {
            let frame = self.next();
            assert!(matches!(frame.kind, HEADERS | CONTINUATION | DATA), "no part of a request: {frame:?}");
            let body = begun.entry(frame.stream).or_default();
            if frame.kind == DATA {
                body.extend(&frame.payload);
            }
            if frame.ends() {
                return (frame.stream, begun.remove(&frame.stream).unwrap_or_default());
            }
        }
    }

    /// Sends; a peer that has closed is no failure.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a byte at a time.
    pub fn drip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    }

    /// Ends this side.
    pub fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// What becomes of `stream`, interim answers passed over; of other streams nothing is kept.
    pub fn answer(&mut self, stream: u32) -> Said {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let (kind, flags, of, payload) = match self.frame() {
                Ok(frame) => frame,
                Err(said) => return said,
            };
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload)),
                GOAWAY => self.told = Some(word(&payload[4..])),
                RST_STREAM if of == stream => return Said::Reset(word(&payload)),
                HEADERS if of == stream && status < 200 => status = status_of(&payload),
                DATA if of == stream => body.extend(&payload),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && of == stream && flags & END_STREAM != 0 {
                return Said::Answer(status, body);
            }
        }
    }

    /// The connection's end, whatever comes before it: the reason that was told.
    pub fn end(&mut self) -> Said {
        // No stream has this number.
        self.answer(0x7fff_fffe)
    }

    /// The next frame that is not about the connection alone; SETTINGS and PING are acknowledged.
    ///
    /// # Panics
    /// If none comes.
    pub fn next(&mut self) -> Frame {
        self.try_next().unwrap_or_else(|said| panic!("no frame: {said:?}"))
    }

    /// As [`Http2::next`], unless none comes.
    pub fn try_next(&mut self) -> Result<Frame, Said> {
        loop {
            let (kind, flags, stream, payload) = self.frame()?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload)),
                SETTINGS | PING | WINDOW_UPDATE => {}
                GOAWAY => {
                    self.told = Some(word(&payload[4..]));
                    return Ok(Frame { kind, flags, stream, payload });
                }
                _ => return Ok(Frame { kind, flags, stream, payload }),
            }
        }
    }

    /// The next frame as it comes, of whatever kind.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub fn frame(&mut self) -> Result<(u8, u8, u32, Vec<u8>), Said> {
        let head: Vec<u8> = self.take(9)?;
        let length = word(&[0, head[0], head[1], head[2]]) as usize;
        let payload = self.take(length)?;
        assert!(head[4] & PADDED == 0 || head[3] > HEADERS, "the gateway pads nothing");
        Ok((head[3], head[4], word(&head[5..]), payload))
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, Said> {
        while self.held.len() < count {
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece) {
                Ok(count) if count > 0 => self.held.extend_from_slice(&piece[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(Said::Silent);
                }
                _ => return Err(Said::Ended(self.told)),
            }
        }
        Ok(self.held.drain(..count).collect())
    }
}

/// Sends a request on `stream`: its head, and its body if it has one.
pub fn request(stream: u32, method: &str, path: &str, fields: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)] {
        block.extend(field(name.as_bytes(), value.as_bytes()));
    }
    for (name, value) in fields {
        block.extend(field(name.as_bytes(), value.as_bytes()));
    }
    let mut bytes = head(stream, &block, body.is_none());
    if let Some(body) = body {
        let mut pieces = body.chunks(FRAME_BYTES_MAX).peekable();
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            bytes.extend(frame(DATA, if last { END_STREAM } else { 0 }, stream, piece));
            if last {
                break;
            }
        }
    }
    bytes
}

/// An answer on `stream`: its head, and its body if it has one.
pub fn answer(stream: u32, status: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut block = field(b":status", status.as_bytes());
    for (name, value) in fields {
        block.extend(field(name.as_bytes(), value.as_bytes()));
    }
    let mut bytes = head(stream, &block, body.is_empty());
    let mut pieces = body.chunks(FRAME_BYTES_MAX).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
        bytes.extend(frame(DATA, flags, stream, piece));
    }
    bytes
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The status of an answer, which is the first field of its head.
pub fn status_of(block: &[u8]) -> u16 {
    let mut block = block;
    // A change of the table's size, of five bits.
    while block[0] & 0xe0 == 0x20 {
        assert_ne!(block[0], 0x3f, "no table is as large");
        block = &block[1..];
    }
    if block[0] & 0x80 != 0 {
        // In the static table.
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] & 0x7f) - 8];
    }
    let index = if block[0] & 0x40 != 0 { block[0] & 0x3f } else { block[0] & 0x0f };
    assert!((8..=14).contains(&index), "the first field is no status: {block:02x?}");
    let (length, text) = (usize::from(block[1] & 0x7f), &block[2..]);
    let digits = if block[1] & 0x80 == 0 { text[..3].to_vec() } else { digits(&text[..length]) };
    std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok()).expect("three digits")
}

/// Three digits in the code of RFC 7541, appendix B: 0, 1 and 2 are of five bits, the others of six.
fn digits(coded: &[u8]) -> Vec<u8> {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut take = |count: usize| bits.by_ref().take(count).fold(0, |sum, bit| sum << 1 | bit);
    let mut digit = || match take(5) {
        few @ 0..=2 => b'0' + few,
        half => b'3' + (half << 1 | take(1)) - 0b01_1001,
    };
    vec![digit(), digit(), digit()]
}
