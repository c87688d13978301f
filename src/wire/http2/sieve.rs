//! What of a peer's frames reaches the library.
//!
//! The library decodes frames and keeps the states of streams, and answers most of what is wrong with them by one code.
//! What a header alone, or a setting, shows to be wrong is therefore found here, with the code that RFC 9113 has for it;
//! what comes before it passes still. And what RFC 9113 has taken out of HTTP/2 does not pass: priorities (§5.3.2), which
//! the library holds against older rules. Nor do empty parts of a body, of which it takes a hundred in a connection's life.

use std::fmt;

use super::{Census, PREFACE};
use crate::base::clock::Instant;

const HEADER_BYTES: usize = 9;
/// What a HEADERS frame holds of a priority, and a PRIORITY frame at all.
const PRIORITY_BYTES: usize = 5;
/// Streams of which it is remembered that their request has ended: those under way, but for very old ones.
const ENDED_MAX: usize = 128;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 32;

/// What a connection ends for (RFC 9113 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A frame that may not be there.
    Protocol,
    /// A window larger than any may be.
    FlowControl,
    /// More of a request that has ended.
    StreamClosed,
    /// A frame of another length than its kind has.
    FrameSize,
    /// More frames that carry nothing than are allowed.
    Flood,
}

impl Fault {
    /// Its code in a GOAWAY.
    pub fn code(self) -> u32 {
        match self {
            Fault::Protocol => 0x1,
            Fault::FlowControl => 0x3,
            Fault::StreamClosed => 0x5,
            Fault::FrameSize => 0x6,
            Fault::Flood => 0xb,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Protocol => "a frame that may not be there (RFC 9113 §6)",
            Fault::FlowControl => "a window larger than 2^31-1 bytes (RFC 9113 §6.5.2)",
            Fault::StreamClosed => "more of a request that has ended (RFC 9113 §5.1)",
            Fault::FrameSize => "a frame of another length than its kind has (RFC 9113 §4.2)",
            Fault::Flood => "more frames that carry nothing than are allowed (RFC 9113 §10.5)",
        })
    }
}

impl std::error::Error for Fault {}

/// Follows a peer's frames to the first fault among them.
#[derive(Debug, Clone)]
pub struct Sieve {
    census: Census,
    frame_bytes_max: usize,
    /// They come from a server.
    of_server: bool,
    /// The next header, as far as it has come; then what of it is still to be passed on.
    header: [u8; HEADER_BYTES],
    have: usize,
    passing: bool,
    /// Of the payload: bytes that pass, then bytes that do not, then the rest, which passes.
    before: usize,
    dropped: usize,
    rest: usize,
    /// The setting under way, if the payload is of SETTINGS.
    setting: Option<(usize, [u8; 6])>,
    /// The first frame has begun to come; and has come whole.
    begun: bool,
    settled: bool,
    /// A head is still to be continued.
    in_head: bool,
    ended: [u32; ENDED_MAX],
    ended_at: usize,
    /// A GOAWAY has begun.
    leaving: bool,
    fault: Option<Fault>,
}

impl Sieve {
    /// For a client whose preface is still to come; the maxima are those of [`Census`] and of a payload.
    pub fn of_client(control_frames_max: u32, frame_bytes_max: u32) -> Sieve {
        let before = PREFACE.len();
        Sieve { before, of_server: false, ..Sieve::of_server(control_frames_max, frame_bytes_max) }
    }

    /// For a server which may push nothing, and of which nothing has come; the maxima as above.
    pub fn of_server(control_frames_max: u32, frame_bytes_max: u32) -> Sieve {
        Sieve {
            // Which is shown headers only.
            census: Census::new(control_frames_max),
            frame_bytes_max: frame_bytes_max as usize,
            of_server: true,
            header: [0; HEADER_BYTES],
            have: 0,
            passing: false,
            before: 0,
            dropped: 0,
            rest: 0,
            setting: None,
            begun: false,
            settled: false,
            in_head: false,
            ended: [0; ENDED_MAX],
            ended_at: 0,
            leaving: false,
            fault: None,
        }
    }

    /// Looks at the next bytes of the connection, cut anywhere; `put` is given what passes, `room` bytes at most. Says how
    /// many of them were seen: all, unless the room is full or a fault follows what has passed.
    ///
    /// # Errors
    /// The fault, now and ever after, once all before it has passed.
    pub fn pass(
        &mut self,
        bytes: &[u8],
        mut room: usize,
        mut put: impl FnMut(&[u8]),
        now: impl Fn() -> Instant,
    ) -> Result<usize, Fault> {
        let (mut seen, given) = (0, room);
        while self.fault.is_none() {
            if self.passing {
                let part = self.have.min(room);
                let from = HEADER_BYTES - self.have;
                put(&self.header[from..from + part]);
                room -= part;
                self.have -= part;
                self.passing = self.have > 0;
                if self.passing {
                    break;
                }
            }
            let payload = [&mut self.before, &mut self.dropped, &mut self.rest];
            let Some((kind, left)) = payload.into_iter().enumerate().find(|(_, left)| **left > 0) else {
                self.settled |= self.begun && self.have == 0;
                let part = (HEADER_BYTES - self.have).min(bytes.len() - seen);
                self.header[self.have..self.have + part].copy_from_slice(&bytes[seen..seen + part]);
                self.have += part;
                seen += part;
                if self.have < HEADER_BYTES {
                    break;
                }
                self.fault = self.frame(&now).err();
                continue;
            };
            let is_dropped = kind == 1;
            let part = (*left).min(bytes.len() - seen).min(if is_dropped { usize::MAX } else { room });
            if part == 0 {
                break;
            }
            *left -= part;
            let bytes = &bytes[seen..seen + part];
            self.fault = self.settings(bytes).err();
            seen += part;
            if !is_dropped && self.fault.is_none() {
                put(bytes);
                room -= part;
            }
        }
        match self.fault {
            Some(fault) if room == given => Err(fault),
            _ => Ok(seen),
        }
    }

    /// True once the first frame has come whole: a peer's settings (RFC 9113 §3.4).
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// True once the peer has said that it takes no more streams (RFC 9113 §6.8).
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// A whole header has come.
    fn frame(&mut self, now: &impl Fn() -> Instant) -> Result<(), Fault> {
        let [high, middle, low, kind, flags, stream @ ..] = self.header;
        let len = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        let has = |flag: u8| flags & flag != 0;
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first && (kind != SETTINGS || has(ACK)) || self.in_head && kind != CONTINUATION {
            return Err(Fault::Protocol);
        }
        self.census.count(kind, flags, len, now).map_err(|_| Fault::Flood)?;
        let priority = if kind == HEADERS && has(PRIORITIZED) { PRIORITY_BYTES } else { 0 };
        let padding = usize::from(matches!(kind, DATA | HEADERS) && has(PADDED));
        let is_sized = match kind {
            DATA | HEADERS => len >= padding + priority,
            PRIORITY => len == PRIORITY_BYTES,
            RST_STREAM | WINDOW_UPDATE => len == 4,
            SETTINGS if has(ACK) => len == 0,
            SETTINGS => len.is_multiple_of(6),
            PING => len == 8,
            GOAWAY => len >= 8,
            _ => true,
        };
        if !is_sized || len > self.frame_bytes_max {
            return Err(Fault::FrameSize);
        }
        match kind {
            DATA | HEADERS => {
                if stream != 0 && self.ended.contains(&stream) {
                    return Err(Fault::StreamClosed);
                }
                if has(END_STREAM) {
                    self.ended[self.ended_at] = stream;
                    self.ended_at = (self.ended_at + 1) % ENDED_MAX;
                }
            }
            PRIORITY if stream == 0 => return Err(Fault::Protocol),
            PUSH_PROMISE if self.of_server => return Err(Fault::Protocol),
            _ => {}
        }
        self.leaving |= kind == GOAWAY;
        match kind {
            HEADERS => self.in_head = !has(END_HEADERS),
            CONTINUATION => self.in_head &= !has(END_HEADERS),
            _ => {}
        }
        self.setting = (kind == SETTINGS).then_some((0, [0; 6]));
        (self.before, self.dropped, self.rest) = match kind {
            PRIORITY => (0, len, 0),
            _ => (padding, priority, len - padding - priority),
        };
        if priority > 0 {
            let [_, high, middle, low] = ((len - priority) as u32).to_be_bytes();
            self.header[..5].copy_from_slice(&[high, middle, low, kind, flags & !PRIORITIZED]);
        }
        // An empty part of a body, unpadded, says nothing, and the library counts them over the connection's whole life.
        let is_void = kind == DATA && len == 0 && stream != 0 && !has(END_STREAM);
        self.passing = kind != PRIORITY && !is_void;
        if !self.passing {
            self.have = 0;
        }
        Ok(())
    }

    /// More of a payload has come, which may be of SETTINGS.
    fn settings(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let Some((at, entry)) = &mut self.setting else { return Ok(()) };
        for byte in bytes {
            entry[*at] = *byte;
            *at = (*at + 1) % entry.len();
            // SETTINGS_INITIAL_WINDOW_SIZE, beyond 2^31-1.
            if *at == 0 && entry[..2] == [0, 4] && entry[2] > 0x7f {
                return Err(Fault::FlowControl);
            }
            // SETTINGS_ENABLE_PUSH, which is not for a server to enable.
            if *at == 0 && self.of_server && entry[..2] == [0, 2] && entry[2..] != [0; 4] {
                return Err(Fault::Protocol);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, flags]);
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    fn setting(id: u16, value: u32) -> Vec<u8> {
        [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    /// What passes of a preface, empty SETTINGS and `frames`, and the fault; however it is cut.
    fn passed(frames: &[Vec<u8>]) -> (Vec<u8>, Option<Fault>) {
        let bytes = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, b""), frames.concat()].concat();
        let mut outcomes = Vec::new();
        for piece in [1, 2, 5, 9, 10, 24, 33, 1000, bytes.len()] {
            for room in [1, 3, 9, 14, 64, 1 << 20] {
                let (mut sieve, mut out, mut fault) = (Sieve::of_client(5, 16384), Vec::new(), None);
                let mut pieces = bytes.chunks(piece);
                let mut left: &[u8] = &[];
                loop {
                    let before = out.len();
                    match sieve.pass(left, room, |bytes| out.extend_from_slice(bytes), || Instant(1)) {
                        Ok(seen) => left = &left[seen..],
                        Err(found) => {
                            let again = sieve.pass(b"more", room, |_| panic!("no more"), || Instant(1));
                            assert_eq!(again, Err(found));
                            fault = Some(found);
                            break;
                        }
                    }
                    assert!(out.len() - before <= room);
                    if out.len() == before && left.is_empty() {
                        let Some(next) = pieces.next() else { break };
                        left = next;
                    }
                }
                outcomes.push((out, fault));
            }
        }
        // A setting is seen within a frame that has begun to pass.
        let is_same =
            |a: &(Vec<u8>, _), b: &(Vec<u8>, _)| a.1 == b.1 && (a.0 == b.0 || a.1 == Some(Fault::FlowControl));
        assert!(outcomes.windows(2).all(|two| is_same(&two[0], &two[1])), "{outcomes:?}");
        let (out, fault) = outcomes.swap_remove(0);
        let begin = PREFACE.len() + HEADER_BYTES;
        assert_eq!(out[..begin], bytes[..begin]);
        (out[begin..].to_vec(), fault)
    }

    #[test]
    fn frames_pass_as_they_are_but_for_priorities() {
        let plain = [
            frame(SETTINGS, 0, 0, &[setting(4, 0x7fff_ffff), setting(0x104, u32::MAX), setting(3, u32::MAX)].concat()),
            frame(SETTINGS, ACK, 0, b""),
            frame(HEADERS, PADDED, 1, b"\x02head\0\0"),
            frame(CONTINUATION, END_HEADERS, 1, b"more"),
            frame(DATA, PADDED, 1, b"\0data"),
            frame(DATA, END_STREAM, 1, b""),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            frame(RST_STREAM, 0, 1, &[0; 4]),
            frame(PING, 0, 0, &[7; 8]),
            frame(GOAWAY, 0, 0, &[7; 12]),
            frame(0x77, 0xff, 9, b"unknown"),
            frame(DATA, 0, 3, &[7; 16384]),
        ];
        assert_eq!(passed(&plain), (plain.concat(), None));
        let dropped = [
            frame(PRIORITY, 0, 1, &[7; 5]),
            frame(HEADERS, PRIORITIZED | END_HEADERS, 5, b"\0\0\0\x05\xffhead"),
            frame(PRIORITY, 0, 7, &[0, 0, 0, 7, 0]),
            frame(HEADERS, PRIORITIZED | PADDED | END_HEADERS, 7, b"\x01\0\0\0\0\0head\0"),
        ];
        let left = [frame(HEADERS, END_HEADERS, 5, b"head"), frame(HEADERS, PADDED | END_HEADERS, 7, b"\x01head\0")];
        assert_eq!(passed(&dropped), (left.concat(), None));
    }

    #[test]
    fn a_fault_ends_it_and_what_came_before_has_passed() {
        let (whole, ping) = (frame(HEADERS, END_HEADERS | END_STREAM, 1, b"head"), frame(PING, 0, 0, &[0; 8]));
        for (fault, wrong) in [
            (Fault::FrameSize, frame(DATA, PADDED, 3, b"")),
            (Fault::FrameSize, frame(DATA, 0, 3, &[0; 16385])),
            (Fault::FrameSize, frame(HEADERS, PADDED, 3, b"")),
            (Fault::FrameSize, frame(HEADERS, PADDED | PRIORITIZED, 3, &[0; 5])),
            (Fault::FrameSize, frame(HEADERS, PRIORITIZED, 3, &[0; 4])),
            (Fault::FrameSize, frame(PRIORITY, 0, 3, &[0; 4])),
            (Fault::FrameSize, frame(RST_STREAM, 0, 1, &[0; 5])),
            (Fault::FrameSize, frame(SETTINGS, 0, 0, &[0; 7])),
            (Fault::FrameSize, frame(SETTINGS, ACK, 0, &[0; 6])),
            (Fault::FrameSize, frame(PING, ACK, 0, &[0; 7])),
            (Fault::FrameSize, frame(GOAWAY, 0, 0, &[0; 7])),
            (Fault::FrameSize, frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
            (Fault::Protocol, frame(PRIORITY, 0, 0, &[0; 5])),
            (Fault::StreamClosed, frame(DATA, 0, 1, b"x")),
            (Fault::StreamClosed, frame(HEADERS, END_HEADERS | END_STREAM, 1, b"x")),
        ] {
            let found = passed(&[whole.clone(), ping.clone(), wrong.clone(), ping.clone()]);
            assert_eq!(found, ([&whole[..], &ping].concat(), Some(fault)), "{wrong:?}");
        }
        let settings = frame(SETTINGS, 0, 0, &[setting(1, 0), setting(4, 1 << 31)].concat());
        assert_eq!(passed(&[settings]).1, Some(Fault::FlowControl));
        let begun = frame(HEADERS, 0, 1, b"head");
        assert_eq!(passed(&[begun.clone(), frame(PRIORITY, 0, 1, &[0; 5])]), (begun, Some(Fault::Protocol)));
        // Five are allowed, of which the first SETTINGS are one.
        let pings = vec![ping.clone(); 5];
        assert_eq!(passed(&pings), (pings[..4].concat(), Some(Fault::Flood)));
    }

    /// What passes of empty SETTINGS and `frames` from a server, cut into pieces of `piece`, and the fault.
    fn passed_of_server(frames: &[Vec<u8>], piece: usize) -> (Vec<u8>, Option<Fault>) {
        let bytes = [frame(SETTINGS, 0, 0, b""), frames.concat()].concat();
        let (mut sieve, mut out) = (Sieve::of_server(5, 16384), Vec::new());
        for mut left in bytes.chunks(piece) {
            while !left.is_empty() {
                match sieve.pass(left, 1000, |bytes| out.extend_from_slice(bytes), || Instant(1)) {
                    Ok(seen) => left = &left[seen..],
                    Err(fault) => return (out.split_off(HEADER_BYTES), Some(fault)),
                }
            }
        }
        let fault = sieve.pass(b"", 1000, |_| {}, || Instant(1)).err();
        (out.split_off(HEADER_BYTES), fault)
    }

    #[test]
    fn a_server_pushes_nothing_and_begins_without_a_preface() {
        let ping = frame(PING, 0, 0, &[7; 8]);
        for piece in [1, 2, 9, 1000] {
            let plain = [frame(SETTINGS, 0, 0, &setting(2, 0)), frame(DATA, 0, 1, b"data"), ping.clone()];
            assert_eq!(passed_of_server(&plain, piece), (plain.concat(), None));
            let promise = [ping.clone(), frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02head"), ping.clone()];
            assert_eq!(passed_of_server(&promise, piece), (ping.clone(), Some(Fault::Protocol)));
            for value in [1, 2, 1 << 31] {
                let enabled = frame(SETTINGS, 0, 0, &[setting(1, 0), setting(2, value)].concat());
                assert_eq!(passed_of_server(&[enabled], piece).1, Some(Fault::Protocol), "{value}");
            }
        }
        let enabled = frame(SETTINGS, 0, 0, &setting(2, 1));
        assert_eq!(passed(&[enabled]).1, None, "a client may ask for it");
    }

    #[test]
    fn the_first_frame_and_a_goaway_are_seen_wherever_they_are_cut() {
        let (settings, goaway) = (frame(SETTINGS, 0, 0, &setting(3, 1)), frame(GOAWAY, 0, 0, &[0; 8]));
        let bytes = [settings.clone(), goaway].concat();
        for at in 0..=bytes.len() {
            let mut sieve = Sieve::of_server(5, 16384);
            let mut pass = |bytes: &[u8]| {
                assert_eq!(sieve.pass(bytes, 1000, |_| {}, || Instant(0)), Ok(bytes.len()));
                (sieve.is_settled(), sieve.is_leaving())
            };
            // A frame is known as soon as the nine bytes before its payload are here.
            assert_eq!(pass(&bytes[..at]), (at >= settings.len(), at >= settings.len() + HEADER_BYTES), "{at}");
            assert_eq!(pass(&bytes[at..]), (true, true), "{at}");
        }
    }

    #[test]
    fn settings_come_first() {
        for first in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, ACK, 0, b""), frame(0x77, 0, 0, b"")] {
            let (mut sieve, mut passed) = (Sieve::of_client(5, 16384), Vec::new());
            let bytes = [PREFACE.to_vec(), first].concat();
            let put = |bytes: &[u8]| passed.extend_from_slice(bytes);
            assert_eq!(sieve.pass(&bytes, 1000, put, || Instant(1)), Ok(PREFACE.len() + HEADER_BYTES));
            assert_eq!(passed, PREFACE);
            assert_eq!(sieve.pass(b"", 1000, |_| panic!("no more"), || Instant(1)), Err(Fault::Protocol));
        }
    }
}
