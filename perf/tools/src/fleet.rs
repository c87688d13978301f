//! Keep-alive connections that all send the same request, on one epoll instance.
//!
//! Decides nothing about when to send: the loads do. Everything is non-blocking except connecting.

use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::channel::{Channel, Way};
use crate::clock::now_ns;
use crate::http::Decoder;

const READ_BYTES: usize = 64 * 1024;

/// What became of a connection that was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The answer is not whole yet.
    Waiting,
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
    /// The exchange failed, with the reason; the connection has been opened anew.
    Failed(&'static str),
}

struct Connection {
    channel: Channel,
    decoder: Decoder,
    busy: bool,
    /// Bytes of the request not yet taken by the kernel.
    unsent: usize,
}

/// Connections by number.
pub struct Fleet {
    epoll: Epoll,
    way: Way,
    /// Every request has a connection of its own.
    fresh: bool,
    request: Vec<u8>,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    ready: Vec<EpollEvent>,
    /// Connections opened anew because the peer closed them.
    pub renewals: u64,
    /// Answers that came over a resumed TLS session.
    pub resumed: u64,
}

impl Fleet {
    /// Opens `count` connections the given way.
    ///
    /// # Errors
    /// A connection can't be opened within five seconds.
    pub fn open(way: Way, count: usize, request: Vec<u8>) -> io::Result<Self> {
        let mut fleet = Fleet {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            way,
            fresh: false,
            request,
            connections: Vec::with_capacity(count),
            scratch: vec![0; READ_BYTES],
            ready: vec![EpollEvent::empty(); 1024],
            renewals: 0,
            resumed: 0,
        };
        fleet.grow(count)?;
        Ok(fleet)
    }

    /// Gives every request a connection of its own, closed by us when its answer is whole.
    pub fn use_once(&mut self) {
        self.fresh = true;
    }

    /// Opens connections until there are `count`.
    ///
    /// # Errors
    /// A connection can't be opened within five seconds.
    pub fn grow(&mut self, count: usize) -> io::Result<()> {
        for number in self.connections.len()..count {
            let connection = self.connect(number)?;
            self.connections.push(connection);
        }
        Ok(())
    }

    fn connect(&self, number: usize) -> io::Result<Connection> {
        let channel = Channel::connect(&self.way)?;
        self.epoll.add(channel.socket(), EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        Ok(Connection { channel, decoder: Decoder::new(), busy: false, unsent: 0 })
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Sends the request on an idle connection.
    ///
    /// # Errors
    /// The connection is gone and can't be opened anew.
    pub fn send(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        connection.decoder.reset();
        connection.busy = true;
        connection.unsent = self.request.len();
        if self.flush(number).is_err() {
            // Closed by the peer while idle; a fresh connection takes the request.
            self.renew(number)?;
            self.connections[number].busy = true;
            self.connections[number].unsent = self.request.len();
            self.flush(number)?;
        }
        if self.is_behind(number) {
            self.interest(number, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
        }
        Ok(())
    }

    fn flush(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        while connection.unsent > 0 {
            let from = self.request.len() - connection.unsent;
            match connection.channel.write(&self.request[from..]) {
                Ok(taken) => connection.unsent -= taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        connection.channel.flush()
    }

    fn is_behind(&self, number: usize) -> bool {
        self.connections[number].unsent > 0 || self.connections[number].channel.is_behind()
    }

    fn interest(&self, number: usize, flags: EpollFlags) -> io::Result<()> {
        let mut event = EpollEvent::new(flags, number as u64);
        Ok(self.epoll.modify(self.connections[number].channel.socket(), &mut event)?)
    }

    fn renew(&mut self, number: usize) -> io::Result<()> {
        self.renewals += 1;
        let fresh = self.connect(number)?;
        // Closing the old socket takes it out of the epoll set.
        self.connections[number] = fresh;
        Ok(())
    }

    /// Waits for connections to become ready, in whole milliseconds. Without a timeout (or below a millisecond) it
    /// does not wait, but lets others run if there is nothing to do: the upstream shares our core.
    ///
    /// # Errors
    /// epoll failed.
    pub fn wait(&mut self, timeout: Option<Duration>, numbers: &mut Vec<usize>) -> io::Result<()> {
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

    /// Reads once from a ready connection. `body` gets each piece of the body and the time at which it was read.
    ///
    /// # Errors
    /// A connection that the peer closed can't be opened anew.
    pub fn turn(&mut self, number: usize, mut body: impl FnMut(&[u8], u64)) -> io::Result<Turn> {
        if self.is_behind(number) {
            if self.flush(number).is_err() {
                self.renew(number)?;
                return Ok(Turn::Failed("closed while the request was being sent"));
            }
            if !self.is_behind(number) {
                self.interest(number, EpollFlags::EPOLLIN)?;
            }
        }
        let connection = &mut self.connections[number];
        let count = match connection.channel.read(&mut self.scratch) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(Turn::Waiting);
            }
            Err(error) if error.kind() == ErrorKind::Other && connection.busy => {
                self.renew(number)?;
                return Ok(Turn::Failed("TLS failed"));
            }
            // A reset is an end like another; the decoder knows whether it came too early.
            Err(_) => 0,
        };
        let now = now_ns();
        let decoder = &mut connection.decoder;
        let turn = if count == 0 {
            match (connection.busy, decoder.finish()) {
                (true, false) => Turn::Failed("closed before the answer was whole"),
                (true, true) => Turn::Done { status: decoder.status, body_bytes: decoder.body_bytes },
                (false, _) => Turn::Renewed,
            }
        } else if !connection.busy {
            Turn::Stray
        } else {
            match decoder.feed(&self.scratch[..count], |piece| body(piece, now)) {
                Err(malformed) => Turn::Failed(malformed.0),
                Ok(used) if used < count => Turn::Failed("bytes after the answer"),
                Ok(_) if decoder.is_done() => Turn::Done { status: decoder.status, body_bytes: decoder.body_bytes },
                Ok(_) => return Ok(Turn::Waiting),
            }
        };
        connection.busy = false;
        if matches!(turn, Turn::Done { .. }) {
            self.resumed += u64::from(connection.channel.is_resumed());
            if self.fresh {
                connection.channel.finish();
                self.connections[number] = self.connect(number)?;
                return Ok(turn);
            }
        }
        if count == 0 || connection.decoder.close || matches!(turn, Turn::Failed(_) | Turn::Stray) {
            self.renew(number)?;
        }
        Ok(turn)
    }

    /// True if the peer has closed an idle connection, or sent bytes that nobody asked for.
    pub fn is_spoiled(&mut self, number: usize) -> bool {
        self.connections[number].channel.is_spoiled()
    }
}
