//! The client's side of one HTTP/2 connection (RFC 9113), without a socket: bytes come in, answers and bytes come out.
//!
//! It sends the same request on all streams. A stream is known by its slot, which is free again when its answer is whole; what
//! the peer does not allow (windows, concurrent streams) waits. What the protocol does not allow ends the connection.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::hpack::{self, Section};
use crate::http::{ChatRequest, Malformed};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// Nobody may send longer frames: neither side asks for more.
const FRAME_BYTES_MAX: usize = 16 * 1024;
const WINDOW_START: i64 = 65_535;
const WINDOW_MAX: i64 = (1 << 31) - 1;
/// What the peer may send before it hears from us; half of it read, it hears.
const STREAM_WINDOW: i64 = 1 << 20;
const CONNECTION_WINDOW: i64 = 16 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

const CANCEL: u32 = 8;

/// What every stream asks for.
#[derive(Debug)]
pub struct Request {
    section: Section,
    body: Vec<u8>,
}

impl Request {
    /// `request` in the encodings of HTTP/2.
    pub fn new(request: &ChatRequest) -> Self {
        Request { section: Section::new(&request.fields), body: request.body.clone() }
    }
}

/// What has come on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Came<'a> {
    /// A piece of the body.
    Body(&'a [u8]),
    /// The end; the slot is free again.
    Done {
        /// Its status.
        status: u16,
        /// Its body.
        body_bytes: u64,
    },
    /// No end; the slot is free again.
    Reset,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    request: Rc<Request>,
    slots: Vec<Slot>,
    next_id: u32,
    /// None until the peer's settings have come.
    peer: Option<Peer>,
    /// Started before the peer's settings came, or beyond the streams that it allows.
    waiting: VecDeque<usize>,
    /// Whose bodies wait for a window.
    blocked: VecDeque<usize>,
    under_way: usize,
    /// What the peer takes on the connection.
    window: i64,
    /// What the peer may still send on the connection.
    own_window: i64,
    /// Windows of streams begin shut.
    shut: bool,
    decoder: hpack::Decoder,
    /// The field section whose last frame has not come: its stream, its flags, its pieces.
    section: Option<(u32, u8, Vec<u8>)>,
    /// The beginning of a frame.
    held: Vec<u8>,
    out: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0 if it is free.
    id: u32,
    /// Nobody reads it.
    stalled: bool,
    /// Bytes of the request's body that have not left.
    unsent: usize,
    window: i64,
    own_window: i64,
    status: u16,
    body_bytes: u64,
}

#[derive(Debug)]
struct Peer {
    window: i64,
    streams_max: usize,
    has_table: bool,
}

impl Session {
    /// With so many slots. If `shut`, windows of streams begin with nothing and are opened for streams that are read.
    pub fn new(request: Rc<Request>, slots: usize, shut: bool) -> Self {
        let mut session = Session {
            request,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            next_id: 1,
            peer: None,
            waiting: VecDeque::new(),
            blocked: VecDeque::new(),
            under_way: 0,
            window: WINDOW_START,
            own_window: CONNECTION_WINDOW,
            shut,
            decoder: hpack::Decoder::new(hpack::TABLE_BYTES),
            section: None,
            held: Vec::new(),
            out: PREFACE.to_vec(),
        };
        let window = if shut { 0 } else { STREAM_WINDOW };
        let mut settings = Vec::new();
        for (name, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, window as u32)] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        session.frame(SETTINGS, 0, 0, &settings);
        session.window_update(0, CONNECTION_WINDOW - WINDOW_START);
        session
    }

    /// Starts the request in a free slot; if `stalled`, its answer's window stays shut.
    pub fn start(&mut self, slot: usize, stalled: bool) {
        self.slots[slot].stalled = stalled;
        self.waiting.push_back(slot);
        self.start_waiting();
    }

    /// True if the slot's request has not been answered in full.
    pub fn is_busy(&self, slot: usize) -> bool {
        self.slots[slot].id != 0 || self.waiting.contains(&slot)
    }

    /// Status and body bytes of the answer that is under way in the slot; 0 before its head has come.
    pub fn so_far(&self, slot: usize) -> (u16, u64) {
        (self.slots[slot].status, self.slots[slot].body_bytes)
    }

    /// What has to be sent; the caller drains it.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Takes bytes as they came; `came` gets slots and what came on them.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn feed(&mut self, input: &[u8], mut came: impl FnMut(usize, Came<'_>)) -> Result<(), Malformed> {
        // Usually frames come whole; copy them only if they do not.
        if self.held.is_empty() {
            let used = self.take(input, &mut came)?;
            self.held.extend_from_slice(&input[used..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(input);
            let used = self.take(&held, &mut came)?;
            held.drain(..used);
            self.held = held;
        }
        Ok(())
    }

    /// Takes whole frames; returns how many bytes these were.
    fn take(&mut self, input: &[u8], came: &mut impl FnMut(usize, Came<'_>)) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some((head, rest)) = input[at..].split_first_chunk::<HEAD_BYTES>() {
            let bytes = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if bytes > FRAME_BYTES_MAX {
                return Err(Malformed("frame too long"));
            }
            let Some(payload) = rest.get(..bytes) else { break };
            let id = number(&head[5..]) & !(1 << 31);
            if self.peer.is_none() && head[3] != SETTINGS {
                return Err(Malformed("not HTTP/2"));
            }
            self.take_frame(head[3], head[4], id, payload, came)?;
            at += HEAD_BYTES + bytes;
        }
        Ok(at)
    }

    fn take_frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        came: &mut impl FnMut(usize, Came<'_>),
    ) -> Result<(), Malformed> {
        if self.section.is_some() && kind != CONTINUATION {
            return Err(Malformed("a frame within a field section"));
        }
        match kind {
            DATA => self.take_data(flags, id, payload, came)?,
            HEADERS => {
                let mut fields = unpadded(flags, payload)?;
                if flags & PRIORITY != 0 {
                    fields = fields.get(5..).ok_or(Malformed("frame too short"))?;
                }
                if flags & END_HEADERS != 0 {
                    self.take_section(id, flags, fields, came)?;
                } else {
                    self.section = Some((id, flags, fields.to_vec()));
                }
            }
            CONTINUATION => {
                let (own, first_flags, mut fields) = self.section.take().ok_or(Malformed("CONTINUATION of nothing"))?;
                fields.extend_from_slice(payload);
                if own != id || fields.len() > 4 * FRAME_BYTES_MAX {
                    return Err(Malformed("a field section of another stream, or endless"));
                }
                if flags & END_HEADERS != 0 {
                    self.take_section(id, first_flags, &fields, came)?;
                } else {
                    self.section = Some((id, first_flags, fields));
                }
            }
            RST_STREAM => {
                if let Some(slot) = self.slot(id) {
                    self.free(slot);
                    came(slot, Came::Reset);
                    self.start_waiting();
                }
            }
            SETTINGS if flags & ACK == 0 => self.take_settings(payload)?,
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            GOAWAY => return Err(Malformed("the peer wants no more (GOAWAY)")),
            PUSH_PROMISE => return Err(Malformed("a push, which was turned off")),
            WINDOW_UPDATE if payload.len() == 4 => self.take_window(id, i64::from(number(payload)))?,
            _ => {}
        }
        Ok(())
    }

    fn take_data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        came: &mut impl FnMut(usize, Came<'_>),
    ) -> Result<(), Malformed> {
        let bytes = payload.len() as i64;
        self.own_window -= bytes;
        let body = unpadded(flags, payload)?;
        let Some(slot) = self.slot(id) else {
            return Err(Malformed("DATA of no stream that is open"));
        };
        let own = &mut self.slots[slot];
        own.own_window -= bytes;
        if self.own_window < 0 || own.own_window < 0 {
            return Err(Malformed("more than the window allows"));
        }
        if own.status == 0 {
            return Err(Malformed("DATA before HEADERS"));
        }
        own.body_bytes += body.len() as u64;
        if !body.is_empty() {
            came(slot, Came::Body(body));
        }
        let own = &self.slots[slot];
        if flags & END_STREAM != 0 {
            self.end(slot, came);
        } else if !own.stalled && own.own_window < STREAM_WINDOW / 2 {
            let more = STREAM_WINDOW - own.own_window;
            self.slots[slot].own_window += more;
            self.window_update(id, more);
        }
        if self.own_window < CONNECTION_WINDOW / 2 {
            self.window_update(0, CONNECTION_WINDOW - self.own_window);
            self.own_window = CONNECTION_WINDOW;
        }
        Ok(())
    }

    fn take_section(
        &mut self,
        id: u32,
        flags: u8,
        fields: &[u8],
        came: &mut impl FnMut(usize, Came<'_>),
    ) -> Result<(), Malformed> {
        let mut status = 0;
        self.decoder.decode(fields, |name, value| {
            if name == b":status" {
                status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            }
        })?;
        let Some(slot) = self.slot(id) else {
            return Err(Malformed("HEADERS of no stream that is open"));
        };
        // Anything but an interim answer or trailers.
        if self.slots[slot].status == 0 && !(100..200).contains(&status) {
            if status == 0 {
                return Err(Malformed("an answer without a status"));
            }
            self.slots[slot].status = status;
        }
        if flags & END_STREAM != 0 {
            self.end(slot, came);
        }
        Ok(())
    }

    fn take_settings(&mut self, payload: &[u8]) -> Result<(), Malformed> {
        let peer = self.peer.get_or_insert(Peer { window: WINDOW_START, streams_max: usize::MAX, has_table: true });
        let window_before = peer.window;
        for setting in payload.chunks_exact(6) {
            let value = number(&setting[2..]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                HEADER_TABLE_SIZE => peer.has_table = value as usize >= hpack::TABLE_BYTES,
                MAX_CONCURRENT_STREAMS => peer.streams_max = value as usize,
                INITIAL_WINDOW_SIZE => peer.window = i64::from(value),
                _ => {}
            }
        }
        let more = peer.window - window_before;
        for slot in self.slots.iter_mut().filter(|slot| slot.id != 0) {
            slot.window += more;
        }
        self.frame(SETTINGS, ACK, 0, &[]);
        self.send_blocked();
        self.start_waiting();
        Ok(())
    }

    fn take_window(&mut self, id: u32, more: i64) -> Result<(), Malformed> {
        let window = match (id, self.slot(id)) {
            (0, _) => &mut self.window,
            (_, Some(slot)) => &mut self.slots[slot].window,
            // Of a stream that has ended meanwhile.
            (_, None) => return Ok(()),
        };
        *window += more;
        if *window > WINDOW_MAX {
            return Err(Malformed("a window beyond its bound"));
        }
        self.send_blocked();
        Ok(())
    }

    fn slot(&self, id: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id && id != 0)
    }

    fn end(&mut self, slot: usize, came: &mut impl FnMut(usize, Came<'_>)) {
        let Slot { id, unsent, status, body_bytes, .. } = self.slots[slot];
        if unsent > 0 {
            // Answered early: the rest is not wanted.
            self.frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        }
        self.free(slot);
        came(slot, Came::Done { status, body_bytes });
        self.start_waiting();
    }

    fn free(&mut self, slot: usize) {
        self.slots[slot] = Slot::default();
        self.blocked.retain(|&blocked| blocked != slot);
        self.under_way -= 1;
    }

    fn start_waiting(&mut self) {
        let Some(&Peer { window, streams_max, has_table }) = self.peer.as_ref() else { return };
        while self.under_way < streams_max {
            let Some(slot) = self.waiting.pop_front() else { break };
            let id = self.next_id;
            let request = Rc::clone(&self.request);
            let section = match (has_table, id) {
                (false, _) => &request.section.plain,
                (true, 1) => &request.section.first,
                (true, _) => &request.section.again,
            };
            self.frame(HEADERS, END_HEADERS, id, section);
            let stalled = self.slots[slot].stalled;
            self.slots[slot] = Slot {
                id,
                stalled,
                unsent: request.body.len(),
                window,
                own_window: if stalled { 0 } else { STREAM_WINDOW },
                ..Slot::default()
            };
            if self.shut && !stalled {
                self.window_update(id, STREAM_WINDOW);
            }
            self.next_id += 2;
            self.under_way += 1;
            self.blocked.push_back(slot);
            self.send_blocked();
        }
    }

    /// Sends as much of the waiting bodies as windows allow.
    fn send_blocked(&mut self) {
        let request = Rc::clone(&self.request);
        let mut rest = self.blocked.len();
        while rest > 0 && self.window > 0 {
            let Some(slot) = self.blocked.pop_front() else { break };
            let own = &mut self.slots[slot];
            let take = (own.unsent as i64).min(own.window).min(self.window).clamp(0, FRAME_BYTES_MAX as i64);
            let from = request.body.len() - own.unsent;
            own.window -= take;
            own.unsent -= take as usize;
            self.window -= take;
            let (id, is_last) = (own.id, own.unsent == 0);
            if take > 0 {
                let flags = if is_last { END_STREAM } else { 0 };
                self.frame(DATA, flags, id, &request.body[from..from + take as usize]);
            }
            if is_last {
                rest -= 1;
            } else {
                self.blocked.push_back(slot);
                // Only its own window holds it back if nothing went: it is done with for now.
                rest -= usize::from(take == 0);
            }
        }
    }

    fn window_update(&mut self, id: u32, more: i64) {
        self.frame(WINDOW_UPDATE, 0, id, &(more as u32).to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&id.to_be_bytes());
        self.out.extend_from_slice(payload);
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], Malformed> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (&padding, rest) = payload.split_first().ok_or(Malformed("frame too short"))?;
    let bytes = rest.len().checked_sub(usize::from(padding)).ok_or(Malformed("more padding than frame"))?;
    Ok(&rest[..bytes])
}

#[cfg(test)]
mod tests;
