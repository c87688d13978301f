//! One connection, plain or TLS, read and written at the same time and safe to cancel.
//!
//! A read that was given to the kernel may already hold bytes when its future is dropped, and then they are
//! lost. So a connection has one *reader*, a small coroutine that lives as long as the connection: starting a
//! read hands it a buffer, waiting for the read is polling it, and giving up waiting is simply not polling.
//! The read stays under way and its bytes are there next time. To get the buffer back from a read that will
//! wait long (an idle connection), the read is *cancelled and awaited*.
//!
//! A TLS stream seals what is written into its session, from which it is sent; what the socket did not take stays there and
//! goes out before anything else. So it can be written to at once as well, and the session's own words travel with the
//! first bytes that follow them.
//!
//! [`Stream`] is made of two halves that can be borrowed apart: [`Input`], whose bytes are looked at in place
//! and consumed, and [`Output`], which writes buffers whole.

mod output;
mod reader;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use monoio::io::Splitable;
use monoio::net::TcpStream;

pub use output::Output;
use reader::Reader;

use super::buf::{Buffers, LITTLE_BYTES, READ_BYTES};
use super::rt;
use super::socket::{Socket, connect};
use super::tls::{Broken, Session};

/// Capacity of the read that an idle connection leaves with the kernel.
const IDLE_READ_BYTES: usize = 64;

/// A peer that has once said more than a little buffer holds is read with large ones so many times: one more read costs more than
/// the room.
const LARGE_FOR: u8 = 16;

/// A peer that has filled so many reads in a row sends something long, and more at a time is cheaper.
const FILLED_BEFORE_BULK: u8 = 4;

/// So many reads in a row may find their bytes already there; then others have their turn. Only epoll reads
/// without waiting: there a peer that sends without pause would have the worker to itself.
const AT_ONCE_MAX: u32 = 16;

/// A connection.
pub struct Stream {
    /// What the peer sends.
    pub input: Input,
    /// What we send.
    pub output: Output,
    /// The socket under both.
    pub socket: Socket,
}

impl Stream {
    /// Takes a connected socket over and sets TCP_NODELAY. `session` makes it a TLS stream, whose handshake is still to come
    /// ([`Stream::handshake`]).
    pub fn new(tcp: TcpStream, session: Option<Session>, buffers: Rc<Buffers>) -> Stream {
        // A socket that is already reset refuses the option; the first read tells.
        let _ = tcp.set_nodelay(true);
        let socket = Socket::beside(tcp.as_raw_fd());
        let session = session.map(|session| Rc::new(RefCell::new(session)));
        let (read, write) = tcp.into_split();
        let output = Output::new(write, session.clone(), socket.clone(), &buffers);
        Stream {
            input: Input {
                reader: Reader::new(read),
                socket: socket.clone(),
                session,
                bytes: Vec::new(),
                at: 0,
                eof: false,
                failed: None,
                at_once: 0,
                cancelable: false,
                adapts: false,
                large: 1,
                filled: 0,
                bulk: true,
                buffers,
            },
            output,
            socket,
        }
    }

    /// Connects to `address`. Dropping the future abandons the attempt, and resets what it may have made.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        connect(address).await
    }

    /// Makes a plain stream on which nothing has come that was not consumed a TLS stream whose handshake is still to come.
    pub fn secure(&mut self, session: Session) {
        debug_assert!(!self.input.reader.busy && self.input.bytes().is_empty() && !self.is_secure());
        let session = Rc::new(RefCell::new(session));
        self.input.session = Some(session.clone());
        self.output.make_secure(session, &self.input.buffers);
    }

    /// Runs the TLS handshake to its end; a plain stream returns at once. What the session has to say last, and its peer
    /// does not wait for, goes out with the first bytes that are written. Dropping the future is safe only if the stream is
    /// dropped too.
    ///
    /// # Errors
    /// The socket's error, or the reason for which the peer's certificate or messages were refused. If the peer does not
    /// speak TLS at all ([`Stream::is_secure`] is false then), the stream is a plain one from here on, and what it has said is
    /// there to be read.
    pub async fn handshake(&mut self) -> io::Result<()> {
        let Some(session) = self.input.session.clone() else {
            return Ok(());
        };
        if let Err(broken) = session.borrow_mut().begin(&self.input.buffers) {
            return Err(broken.into());
        }
        // A hello is little; who connects and says nothing holds no more than that.
        self.input.large = 0;
        loop {
            if !session.borrow().may_hold() {
                self.output.flush().await?;
            }
            if !session.borrow().is_handshaking() {
                self.input.large = 1;
                return Ok(());
            }
            match std::future::poll_fn(|cx| self.input.poll_record(cx)).await {
                Ok(true) => {}
                Ok(false) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the peer closed during the TLS handshake",
                    ));
                }
                Err(error) => {
                    if self.input.session.is_none() {
                        self.output.make_plain();
                        return Err(error);
                    }
                    // The alert tells the peer why.
                    let _ = self.output.flush().await;
                    return Err(error);
                }
            }
        }
    }

    /// True for a TLS stream.
    pub fn is_secure(&self) -> bool {
        self.input.session.is_some()
    }

    /// The application protocol that both sides have agreed on (RFC 7301).
    pub fn protocol(&self) -> Option<&'static [u8]> {
        self.input.session.as_ref().and_then(|session| session.borrow().protocol())
    }

    /// True if the TLS session goes on from an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.input.session.as_ref().is_some_and(|session| session.borrow().is_resumed())
    }
}

/// The reading half: bytes that have come and are not yet consumed.
pub struct Input {
    reader: Reader,
    socket: Socket,
    session: Option<Rc<RefCell<Session>>>,
    bytes: Vec<u8>,
    at: usize,
    eof: bool,
    /// An error that came while something else was being done.
    failed: Option<io::Error>,
    /// Reads in a row that brought something without waiting.
    at_once: u32,
    /// True if a read that waits long may have to be given up: a client's, between requests.
    cancelable: bool,
    /// True if reads take little buffers where little is expected to come.
    adapts: bool,
    /// Reads that are still to take a large buffer.
    large: u8,
    /// Reads in a row that were filled.
    filled: u8,
    /// True if that lets them take the largest buffers.
    bulk: bool,
    buffers: Rc<Buffers>,
}

impl Input {
    /// From now on reads take little buffers, but for a while after one that was filled, and never the largest.
    pub fn expect_little(&mut self) {
        self.adapts = true;
        self.bulk = false;
        self.large = 0;
    }

    /// Lets reads take the largest buffers, or not, where all before were filled. Thousands of streams may stand still with one each.
    pub fn allow_bulk(&mut self, bulk: bool) {
        self.bulk = bulk;
    }

    /// Lets reads be given up by [`Input::rest`]. That costs a little on each, so only who rests asks for it.
    pub fn allow_rest(&mut self) {
        self.cancelable = true;
    }

    /// Bytes not yet consumed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Forgets the first `n` bytes; `n` is at most their number. The buffer goes back when nothing is left.
    pub fn consume(&mut self, n: usize) {
        self.at += n;
        debug_assert!(self.at <= self.bytes.len());
        if self.at >= self.bytes.len() {
            self.buffers.give(std::mem::take(&mut self.bytes));
            self.at = 0;
        }
    }

    /// True once the peer's end has been read, or an error, which may still have to be told.
    pub fn is_eof(&self) -> bool {
        self.eof
    }

    /// Starts a read unless one is under way, and waits until bytes have come: `Ok(true)`, or the peer has
    /// ended its side: `Ok(false)`, now and ever after.
    ///
    /// # Errors
    /// The socket's error, or for TLS a broken record or an end without close_notify (truncation).
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let before = self.bytes.len() - self.at;
        loop {
            let open = ready!(self.poll_record(cx))?;
            if !open || self.bytes.len() - self.at > before {
                return Poll::Ready(Ok(open));
            }
        }
    }

    /// As [`Input::poll_fill`], as a future. Dropping it loses nothing.
    ///
    /// # Errors
    /// As [`Input::poll_fill`].
    pub async fn fill(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Starts a read unless one is under way, so that the kernel works while the caller does something else.
    /// What it brings is kept for the next [`Input::poll_fill`].
    pub fn arm(&mut self, cx: &mut Context<'_>) {
        if self.eof || self.reader.finished.is_some() {
            return;
        }
        if !self.reader.busy {
            self.start();
        }
        match self.reader.poll(cx) {
            Poll::Ready(done) => self.reader.keep(done),
            Poll::Pending => self.at_once = 0,
        }
    }

    /// True if more than `known` bytes are here, or the end, or an error, which is kept for the next
    /// [`Input::poll_fill`]. A TLS record that carries no plaintext is no news.
    pub fn poll_news(&mut self, cx: &mut Context<'_>, known: usize) -> bool {
        while self.bytes().len() <= known && !self.eof {
            match self.poll_record(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    return true;
                }
            }
        }
        true
    }

    /// Makes room for `more` bytes beyond those not yet consumed, so that a large body is not moved as it grows.
    pub fn reserve(&mut self, more: usize) {
        // Exactly: who asks for more than it needs is the caller.
        self.bytes.reserve_exact(more);
    }

    /// True if the peer has neither sent anything nor closed since the last byte that was consumed. Leaves a
    /// read under way, which wakes nobody.
    pub fn is_quiet(&mut self) -> bool {
        !self.poll_news(&mut Context::from_waker(Waker::noop()), 0)
    }

    /// Waits with a tiny buffer for a peer that is likely to let us wait long; a read under way with a pooled one is
    /// given up for it, and what has come is held in a little one if it fits.
    pub async fn rest(&mut self) {
        if self.bytes().is_empty() {
            self.bytes = Vec::new();
            self.at = 0;
        } else if self.bytes.capacity() > LITTLE_BYTES && self.bytes().len() <= LITTLE_BYTES {
            let mut little = self.buffers.take_little();
            little.extend_from_slice(self.bytes());
            self.buffers.give(std::mem::replace(&mut self.bytes, little));
            self.at = 0;
        }
        if self.eof || self.reader.finished.is_some() {
            return;
        }
        self.stop().await;
        if !self.reader.busy {
            self.reader.start(Vec::with_capacity(IDLE_READ_BYTES), false);
        }
    }

    /// Gives up a read under way, if it can be given up. What it has brought is there for the next poll.
    pub async fn stop(&mut self) {
        if self.reader.finished.is_some() || !self.reader.busy || !self.reader.cancel() {
            return;
        }
        let (result, buffer) = std::future::poll_fn(|cx| self.reader.poll(cx)).await;
        match result {
            Err(error) if error.raw_os_error() == Some(nix::libc::ECANCELED) => self.buffers.give(buffer),
            // The read came to its end before the cancel.
            result => self.reader.keep((result, buffer)),
        }
    }

    /// True if nothing is here that was not consumed, no end and no error, and no read is under way that could bring something.
    pub fn is_idle(&self) -> bool {
        self.bytes().is_empty() && !self.eof && self.failed.is_none() && !self.reader.busy
    }

    /// What a tiny read brought, and what has come behind it: without a turn of the loop for the rest.
    fn top_up(&mut self, tiny: &[u8]) -> Vec<u8> {
        let mut buffer = self.buffers.take_little();
        buffer.extend_from_slice(tiny);
        buffer.resize(LITTLE_BYTES, 0);
        match self.socket.receive_now(&mut buffer[tiny.len()..]) {
            Ok(more) => buffer.truncate(tiny.len() + more),
            Err(error) => {
                buffer.truncate(tiny.len());
                // The socket tells an error once; the end, again and again.
                self.failed = Some(error);
            }
        }
        buffer
    }

    fn start(&mut self) {
        let buffer = match self.large {
            0 => self.buffers.take_little(),
            _ if self.bulk && self.filled >= FILLED_BEFORE_BULK => self.buffers.take_large(),
            _ => self.buffers.take(),
        };
        self.reader.start(buffer, self.cancelable);
    }

    /// One read's worth: like `poll_fill`, but also returns when a TLS record brought no plaintext.
    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.eof {
            return Poll::Ready(Ok(false));
        }
        if self.at_once >= AT_ONCE_MAX {
            self.at_once = 0;
            rt::wake_later(cx.waker());
            return Poll::Pending;
        }
        if !self.reader.busy {
            self.start();
        }
        let Poll::Ready((result, mut buffer)) = self.reader.poll(cx) else {
            self.at_once = 0;
            return Poll::Pending;
        };
        self.at_once += 1;
        let is_filled = buffer.len() >= READ_BYTES;
        self.filled = if is_filled { self.filled.saturating_add(1) } else { 0 };
        if self.adapts {
            self.large = match buffer.len() {
                0..LITTLE_BYTES => self.large.saturating_sub(1),
                _ => LARGE_FOR,
            };
        }
        if buffer.len() == IDLE_READ_BYTES && buffer.capacity() == IDLE_READ_BYTES {
            buffer = self.top_up(&buffer);
        }
        let n = match result {
            Ok(n) => n,
            Err(error) => {
                self.eof = true;
                return Poll::Ready(Err(error));
            }
        };
        if n == 0 {
            self.eof = true;
            self.buffers.give(buffer);
            return Poll::Ready(match &self.session {
                Some(session) if !session.borrow().closed_cleanly() => {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed without the TLS close_notify"))
                }
                _ => Ok(false),
            });
        }
        if let Some(session) = self.session.clone() {
            if self.bytes.capacity() == 0 {
                self.bytes = self.buffers.take_for(buffer.len());
            } else if self.at > 0 {
                self.bytes.drain(..self.at);
                self.at = 0;
            }
            let outcome = session.borrow_mut().receive(&mut buffer, &mut self.bytes, &self.buffers);
            if let Err(Broken::NotTls) = outcome {
                self.session = None;
                self.buffers.give(std::mem::replace(&mut self.bytes, buffer));
                return Poll::Ready(Err(Broken::NotTls.into()));
            }
            self.buffers.give(buffer);
            if self.bytes.is_empty() {
                self.buffers.give(std::mem::take(&mut self.bytes));
            }
            if let Err(broken) = outcome {
                self.eof = true;
                if self.bytes().is_empty() {
                    return Poll::Ready(Err(broken.into()));
                }
                // What came before it is sound, though it was read with it, and is delivered first.
                self.failed = Some(broken.into());
                return Poll::Ready(Ok(true));
            }
            if session.borrow().closed_cleanly() {
                self.eof = true;
                // Plaintext that came before the close is delivered first.
                return Poll::Ready(Ok(!self.bytes().is_empty()));
            }
        } else if self.bytes.len() == self.at {
            self.buffers.give(std::mem::replace(&mut self.bytes, buffer));
            self.at = 0;
        } else {
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.extend_from_slice(&buffer);
            self.buffers.give(buffer);
        }
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests;
