//! Kept connections on one epoll instance, and the lanes on them, in each of which one request at a time is under way: over
//! HTTP/1.1 a connection is a lane, over HTTP/2 it has as many as asked for. All send the same request.
//!
//! Decides nothing about when to send: the loads do. Everything is non-blocking except connecting.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::channel::{Channel, Way};
use crate::clock::now_ns;
use crate::http::{ChatRequest, Decoder};
use crate::http2::{Came, Request, Session};

const READ_BYTES: usize = 64 * 1024;

/// What became of a lane whose connection was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The answer is whole.
    Done {
        /// Its status.
        status: u16,
        /// Its body, without chunk framing.
        body_bytes: u64,
    },
    /// The peer closed an idle connection: allowed, and repaired.
    Renewed,
    /// Bytes came on an idle connection, which has been opened anew.
    Stray,
    /// The exchange failed, with the reason.
    Failed(&'static str),
}

struct Connection {
    channel: Channel,
    line: Line,
    /// Bytes were left over by the socket, which tells when it takes more.
    is_behind: bool,
    /// There may be something to send.
    is_dirty: bool,
}

/// What is spoken on a connection.
enum Line {
    Http1 {
        decoder: Decoder,
        busy: bool,
        /// Bytes of the request not yet taken by the channel.
        unsent: usize,
    },
    Http2(Box<Session>),
}

/// Connections, and lanes by number.
pub struct Fleet {
    epoll: Epoll,
    way: Way,
    /// Lanes of each connection.
    width: usize,
    /// Every request has a connection of its own.
    fresh: bool,
    http1: Vec<u8>,
    http2: Rc<Request>,
    lanes: usize,
    connections: Vec<Connection>,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    ready: Vec<EpollEvent>,
    /// Connections opened anew because the peer closed them.
    pub renewals: u64,
    /// Answers over HTTP/1.1 that came over a resumed TLS session.
    pub resumed: u64,
}

impl Fleet {
    /// Opens connections the given way until there are `lanes`.
    ///
    /// # Errors
    /// A connection can't be opened within five seconds.
    pub fn open(way: Way, lanes: usize, request: &ChatRequest) -> io::Result<Self> {
        let mut fleet = Fleet {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            width: way.http2.map_or(1, |http2| http2.streams),
            way,
            fresh: false,
            http1: request.http1.clone(),
            http2: Rc::new(Request::new(request)),
            lanes: 0,
            connections: Vec::new(),
            dirty: Vec::new(),
            scratch: vec![0; READ_BYTES],
            ready: vec![EpollEvent::empty(); 1024],
            renewals: 0,
            resumed: 0,
        };
        fleet.grow(lanes)?;
        Ok(fleet)
    }

    /// Gives every request a connection of its own, closed by us when its answer is whole. For HTTP/1.1.
    pub fn use_once(&mut self) {
        self.fresh = true;
    }

    /// Opens connections until there are `lanes`.
    ///
    /// # Errors
    /// A connection can't be opened within five seconds.
    pub fn grow(&mut self, lanes: usize) -> io::Result<()> {
        for number in self.connections.len()..lanes.div_ceil(self.width) {
            let connection = self.connect(number)?;
            self.connections.push(connection);
        }
        self.lanes = lanes;
        Ok(())
    }

    fn connect(&self, number: usize) -> io::Result<Connection> {
        let channel = Channel::connect(&self.way)?;
        self.epoll.add(channel.socket(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        let line = match self.way.http2 {
            None => Line::Http1 { decoder: Decoder::new(), busy: false, unsent: 0 },
            Some(http2) => {
                Line::Http2(Box::new(Session::new(self.http2.clone(), http2.streams, http2.stalled.is_some())))
            }
        };
        Ok(Connection { channel, line, is_behind: false, is_dirty: false })
    }

    /// How many lanes there are.
    pub fn len(&self) -> usize {
        self.lanes
    }

    /// Sends the request on an idle lane: at once over HTTP/1.1, else together with others before the next wait or turn.
    ///
    /// # Errors
    /// The connection is gone and can't be opened anew.
    pub fn send(&mut self, lane: usize) -> io::Result<()> {
        let number = lane / self.width;
        let stalled = self.way.http2.and_then(|http2| http2.stalled).is_some_and(|stalled| lane < stalled);
        match &mut self.connections[number].line {
            Line::Http2(session) => {
                session.start(lane % self.width, stalled);
                self.soil(number);
                return Ok(());
            }
            Line::Http1 { decoder, busy, unsent } => {
                decoder.reset();
                (*busy, *unsent) = (true, self.http1.len());
            }
        }
        if self.flush(number).is_err() {
            // Closed by the peer while idle; a fresh connection takes the request.
            self.renew(number)?;
            if let Line::Http1 { busy, unsent, .. } = &mut self.connections[number].line {
                (*busy, *unsent) = (true, self.http1.len());
            }
            self.flush(number)?;
        }
        Ok(())
    }

    /// Remembers to flush the connection.
    fn soil(&mut self, number: usize) {
        if !std::mem::replace(&mut self.connections[number].is_dirty, true) {
            self.dirty.push(number);
        }
    }

    fn flush_dirty(&mut self) {
        while let Some(number) = self.dirty.pop() {
            self.connections[number].is_dirty = false;
            // A connection that is gone is readable, and its turn says so.
            let _ = self.flush(number);
        }
    }

    /// Writes what there is, as far as the socket takes it; from then on epoll tells when it takes more.
    fn flush(&mut self, number: usize) -> io::Result<()> {
        let Connection { channel, line, is_behind, .. } = &mut self.connections[number];
        let left = match line {
            Line::Http1 { unsent, .. } => {
                let from = self.http1.len() - *unsent;
                *unsent -= write(channel, &self.http1[from..])?;
                *unsent
            }
            Line::Http2(session) => {
                let taken = write(channel, session.out())?;
                session.out().drain(..taken);
                session.out().len()
            }
        };
        let still = left > 0 || channel.is_behind();
        if std::mem::replace(is_behind, still) != still {
            let flags = if still { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            self.epoll.modify(channel.socket(), &mut EpollEvent::new(flags, number as u64))?;
        }
        Ok(())
    }

    fn renew(&mut self, number: usize) -> io::Result<()> {
        self.renewals += 1;
        let fresh = self.connect(number)?;
        // Closing the old socket takes it out of the epoll set.
        self.connections[number] = fresh;
        self.dirty.retain(|&dirty| dirty != number);
        Ok(())
    }

    /// Waits for connections to become ready, in whole milliseconds. Without a timeout (or below a millisecond) it
    /// does not wait, but lets others run if there is nothing to do: the upstream shares our core.
    ///
    /// # Errors
    /// epoll failed.
    pub fn wait(&mut self, timeout: Option<Duration>, numbers: &mut Vec<usize>) -> io::Result<()> {
        self.flush_dirty();
        numbers.clear();
        let timeout_ms = timeout.map_or(0, |timeout| timeout.as_millis().min(10_000) as u16);
        let count = match self.epoll.wait(&mut self.ready, EpollTimeout::from(timeout_ms)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        numbers.extend(self.ready[..count].iter().map(|event| event.data() as usize));
        if count == 0 && timeout_ms == 0 {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Reads once from a ready connection. `body` gets lanes, each piece of a body, and the time at which it was read;
    /// `turns` gets lanes and what became of them. A connection on which something failed has been opened anew.
    ///
    /// # Errors
    /// A connection that the peer closed can't be opened anew.
    pub fn turn(
        &mut self,
        number: usize,
        turns: &mut Vec<(usize, Turn)>,
        mut body: impl FnMut(usize, &[u8], u64),
    ) -> io::Result<()> {
        self.flush_dirty();
        if self.connections[number].is_behind && self.flush(number).is_err() {
            return self.fail(number, "closed while the request was being sent", turns);
        }
        let Connection { channel, line, .. } = &mut self.connections[number];
        let read = channel.read(&mut self.scratch);
        if matches!(line, Line::Http2(_)) && !channel.may_speak_http2() {
            return self.fail(number, "the peer speaks no HTTP/2", turns);
        }
        let count = match read {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Other => return self.fail(number, "TLS failed", turns),
            // A reset is an end like another; the decoder knows whether it came too early.
            Err(_) => 0,
        };
        let now = now_ns();
        let input = &self.scratch[..count];
        match line {
            Line::Http1 { decoder, busy, .. } => {
                let turn = if count == 0 {
                    match (*busy, decoder.finish()) {
                        (true, false) => Turn::Failed("closed before the answer was whole"),
                        (true, true) => Turn::Done { status: decoder.status, body_bytes: decoder.body_bytes },
                        (false, _) => Turn::Renewed,
                    }
                } else if !*busy {
                    Turn::Stray
                } else {
                    match decoder.feed(input, |piece| body(number, piece, now)) {
                        Err(malformed) => Turn::Failed(malformed.0),
                        Ok(used) if used < count => Turn::Failed("bytes after the answer"),
                        Ok(_) if decoder.is_done() => {
                            Turn::Done { status: decoder.status, body_bytes: decoder.body_bytes }
                        }
                        Ok(_) => return Ok(()),
                    }
                };
                *busy = false;
                let is_done = matches!(turn, Turn::Done { .. });
                let is_over = count == 0 || decoder.close || matches!(turn, Turn::Failed(_) | Turn::Stray);
                turns.push((number, turn));
                self.resumed += u64::from(is_done && channel.is_resumed());
                if is_done && self.fresh {
                    channel.finish();
                    self.connections[number] = self.connect(number)?;
                } else if is_over {
                    self.renew(number)?;
                }
                Ok(())
            }
            Line::Http2(_) if count == 0 => self.fail(number, "closed before the answer was whole", turns),
            Line::Http2(session) => {
                let first = number * self.width;
                let fed = session.feed(input, |slot, came| match came {
                    Came::Body(piece) => body(first + slot, piece, now),
                    Came::Done { status, body_bytes } => turns.push((first + slot, Turn::Done { status, body_bytes })),
                    Came::Reset => turns.push((first + slot, Turn::Failed("stream reset by the peer"))),
                });
                match fed {
                    Ok(()) if session.out().is_empty() => Ok(()),
                    Ok(()) => {
                        self.soil(number);
                        Ok(())
                    }
                    Err(malformed) => self.fail(number, malformed.0, turns),
                }
            }
        }
    }

    /// Opens the connection anew; each of its busy lanes has failed.
    fn fail(&mut self, number: usize, reason: &'static str, turns: &mut Vec<(usize, Turn)>) -> io::Result<()> {
        let first = number * self.width;
        let before = turns.len();
        match &self.connections[number].line {
            Line::Http1 { busy, .. } if *busy => turns.push((number, Turn::Failed(reason))),
            Line::Http1 { .. } => {}
            Line::Http2(session) => {
                let busy = (0..self.width).filter(|&slot| session.is_busy(slot));
                turns.extend(busy.map(|slot| (first + slot, Turn::Failed(reason))));
            }
        }
        if turns.len() == before {
            turns.push((first, Turn::Renewed));
        }
        self.renew(number)
    }

    /// Status and body bytes of the answer that is under way in a lane over HTTP/2; 0 before its head has come.
    pub fn so_far(&self, lane: usize) -> (u16, u64) {
        match &self.connections[lane / self.width].line {
            Line::Http1 { .. } => (0, 0),
            Line::Http2(session) => session.so_far(lane % self.width),
        }
    }

    /// True if the peer has closed an idle connection, or sent bytes that nobody asked for. Over HTTP/2 it may always say
    /// something of the connection itself.
    pub fn is_spoiled(&mut self, lane: usize) -> bool {
        let Connection { channel, line, .. } = &mut self.connections[lane / self.width];
        match line {
            Line::Http1 { .. } => channel.is_spoiled(),
            Line::Http2(session) => match channel.read(&mut self.scratch) {
                Ok(0) => true,
                Ok(count) => session.feed(&self.scratch[..count], |_, _| {}).is_err(),
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            },
        }
    }
}

/// Writes until the socket takes no more; returns how much it took.
fn write(channel: &mut Channel, bytes: &[u8]) -> io::Result<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match channel.write(&bytes[at..]) {
            Ok(taken) => at += taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    channel.flush()?;
    Ok(at)
}
