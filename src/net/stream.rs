//! One connection, plain or TLS, read and written at the same time and safe to cancel.
//!
//! A read that was given to the kernel may already hold bytes when its future is dropped, and then they are
//! lost. So a connection has one *reader*, a small coroutine that lives as long as the connection: starting a
//! read hands it a buffer, waiting for the read is polling it, and giving up waiting is simply not polling.
//! The read stays under way and its bytes are there next time. To get the buffer back from a read that will
//! wait long (an idle connection), the read is *cancelled and awaited*.
//!
//! [`Stream`] is made of two halves that can be borrowed apart: [`Input`], whose bytes are looked at in place
//! and consumed, and [`Output`], which writes buffers whole.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use monoio::buf::IoBuf;
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;

use super::buf::{Buffers, LITTLE_BYTES};
use super::rt;
use super::socket::Socket;
use super::tls::Session;

/// Capacity of the read that an idle connection leaves with the kernel.
const IDLE_READ_BYTES: usize = 64;

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
    /// Takes a connected socket over and sets TCP_NODELAY. `session` makes it a TLS stream whose handshake is still to come.
    pub fn new(tcp: TcpStream, session: Option<Session>, buffers: Rc<Buffers>) -> Stream {
        // A socket that is already reset refuses the option; the first read tells.
        let _ = tcp.set_nodelay(true);
        let socket = Socket::beside(tcp.as_raw_fd());
        let session = session.map(|session| Rc::new(RefCell::new(session)));
        let (read, write) = tcp.into_split();
        Stream {
            input: Input {
                reader: Reader::new(read),
                socket: socket.clone(),
                session: session.clone(),
                bytes: Vec::new(),
                at: 0,
                eof: false,
                failed: None,
                at_once: 0,
                cancelable: false,
                events: false,
                little: false,
                buffers,
            },
            output: Output { half: write, session, socket: socket.clone() },
            socket,
        }
    }

    /// Connects to `address`. Dropping the future abandons the attempt and closes the socket.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_addr(address).await
    }

    /// Runs the TLS handshake to its end; a plain stream returns at once. Dropping the future is safe only if
    /// the stream is dropped too.
    ///
    /// # Errors
    /// The socket's error, or the reason for which the peer's certificate or messages were refused.
    pub async fn handshake(&mut self) -> io::Result<()> {
        let Some(session) = self.input.session.clone() else {
            return Ok(());
        };
        loop {
            self.output.flush_session().await?;
            if !session.borrow().is_handshaking() {
                return Ok(());
            }
            let grown = std::future::poll_fn(|cx| self.input.poll_record(cx)).await;
            if let Err(error) = grown {
                // The alert tells the peer why.
                let _ = self.output.flush_session().await;
                return Err(error);
            }
            if grown.is_ok_and(|open| !open) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed during the TLS handshake"));
            }
        }
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
    /// True if events are expected.
    events: bool,
    /// True if the next read is expected to bring little.
    little: bool,
    buffers: Rc<Buffers>,
}

impl Input {
    /// From now on events are expected, or no longer: reads take little buffers as long as what comes is little.
    pub fn expect_events(&mut self, events: bool) {
        self.events = events;
        self.little = events;
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

    /// True once the peer's end has been read.
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
        self.bytes.reserve(more);
    }

    /// True if the peer has neither sent anything nor closed since the last byte that was consumed. Leaves a
    /// read under way, which wakes nobody.
    pub fn is_quiet(&mut self) -> bool {
        !self.poll_news(&mut Context::from_waker(Waker::noop()), 0)
    }

    /// Waits with a tiny buffer for a peer that is likely to let us wait long; a read under way with a pooled one is
    /// given up for it.
    pub async fn rest(&mut self) {
        if self.bytes().is_empty() {
            self.bytes = Vec::new();
            self.at = 0;
        }
        if self.eof || self.reader.finished.is_some() {
            return;
        }
        if !self.reader.busy {
            return self.reader.start(Vec::with_capacity(IDLE_READ_BYTES), false);
        }
        if !self.reader.cancel() {
            return;
        }
        let (result, buffer) = std::future::poll_fn(|cx| self.reader.poll(cx)).await;
        match result {
            Err(error) if error.raw_os_error() == Some(nix::libc::ECANCELED) => {
                self.buffers.give(buffer);
                self.reader.start(Vec::with_capacity(IDLE_READ_BYTES), false);
            }
            // The read came to its end before the cancel: keep what it brought for the next poll.
            result => self.reader.keep((result, buffer)),
        }
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
        let buffer = if self.little { self.buffers.take_little() } else { self.buffers.take() };
        self.reader.start(buffer, self.session.is_none() && self.cancelable);
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
        if self.events {
            self.little = buffer.len() <= if self.little { LITTLE_BYTES - 1 } else { LITTLE_BYTES / 2 };
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
            let outcome = session.borrow_mut().receive(&buffer, &mut self.bytes);
            self.buffers.give(buffer);
            if let Err(error) = outcome {
                self.eof = true;
                return Poll::Ready(Err(error));
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

/// The writing half.
pub struct Output {
    half: OwnedWriteHalf<TcpStream>,
    session: Option<Rc<RefCell<Session>>>,
    socket: Socket,
}

impl Output {
    /// Sends what the socket takes of `bytes` at once, before the turn ends, rather than through the ring; how many that
    /// were. A TLS stream takes none: what is sealed has to be sent whole.
    ///
    /// For an event that comes alone this is cheaper than [`Output::write`], whose completion would cost another turn.
    /// Where many writes share a turn it is dearer: the ring hands them to the kernel together.
    ///
    /// # Errors
    /// The socket's error.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.session.is_some() { Ok(0) } else { self.socket.send_now(bytes) }
    }

    /// Writes all of `bytes` and gives the buffer back. Dropping the future leaves the connection fit only for closing.
    ///
    /// # Errors
    /// The socket's error; part of the bytes may have been sent.
    pub async fn write(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let Some(session) = &self.session else {
            return self.send(bytes).await;
        };
        let sealed = session.borrow_mut().send(&bytes);
        match sealed {
            Ok(sealed) => (self.send(sealed).await.0, bytes),
            Err(error) => (Err(error), bytes),
        }
    }

    /// Sends what the TLS session has to say for itself.
    async fn flush_session(&mut self) -> io::Result<()> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let sealed = session.borrow_mut().send(&[])?;
        if sealed.is_empty() { Ok(()) } else { self.send(sealed).await.0 }
    }

    async fn send(&mut self, mut bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let _operation = rt::Operation::begin();
        let total = bytes.len();
        let mut sent = 0;
        while sent < total {
            let (result, slice) = self.half.write(bytes.slice(sent..)).await;
            bytes = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), bytes),
                Ok(n) => sent += n,
                Err(error) => return (Err(error), bytes),
            }
        }
        (Ok(()), bytes)
    }
}

type Done = (io::Result<usize>, Vec<u8>);

/// A coroutine that runs one read after another.
struct Reader {
    // Boxed and erased, since the future of an async fn has no name that a struct could give; one allocation a
    // connection, one indirect call a poll.
    task: Pin<Box<dyn Future<Output = ()>>>,
    slot: Rc<Slot>,
    busy: bool,
    finished: Option<Done>,
}

#[derive(Default)]
struct Slot {
    start: Cell<Option<(Vec<u8>, bool)>>,
    done: Cell<Option<Done>>,
    canceller: Cell<Option<Canceller>>,
}

impl Reader {
    fn new(half: OwnedReadHalf<TcpStream>) -> Reader {
        let slot = Rc::new(Slot::default());
        Reader { task: Box::pin(read_on_demand(half, slot.clone())), slot, busy: false, finished: None }
    }

    fn start(&mut self, buffer: Vec<u8>, cancelable: bool) {
        debug_assert!(!self.busy);
        self.slot.start.set(Some((buffer, cancelable)));
        self.busy = true;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if let Some(done) = self.finished.take() {
            self.busy = false;
            return Poll::Ready(done);
        }
        let _never_ends = self.task.as_mut().poll(cx);
        match self.slot.done.take() {
            Some(done) => {
                self.busy = false;
                Poll::Ready(done)
            }
            None => Poll::Pending,
        }
    }

    /// Puts a read's result back for the next poll.
    fn keep(&mut self, done: Done) {
        self.finished = Some(done);
        self.busy = true;
    }

    /// Asks the kernel to give the read up; false if it cannot be.
    fn cancel(&mut self) -> bool {
        match self.slot.canceller.take() {
            Some(canceller) => {
                self.slot.canceller.set(Some(canceller.cancel()));
                true
            }
            None => false,
        }
    }
}

async fn read_on_demand(mut half: OwnedReadHalf<TcpStream>, slot: Rc<Slot>) {
    loop {
        // No waker is kept: whoever starts a read polls next.
        let (buffer, cancelable) = std::future::poll_fn(|_| match slot.start.take() {
            Some(start) => Poll::Ready(start),
            None => Poll::Pending,
        })
        .await;
        let operation = rt::Operation::begin();
        let done = if cancelable {
            let canceller = slot.canceller.take().unwrap_or_default();
            let handle = canceller.handle();
            slot.canceller.set(Some(canceller));
            half.cancelable_read(buffer, handle).await
        } else {
            slot.canceller.set(None);
            half.read(buffer).await
        };
        drop(operation);
        slot.done.set(Some(done));
    }
}
