//! A connection as a library of its own loop asks for one: tokio's IO traits, without its runtime.
//!
//! Reading takes what has come and starts the next read. Writing only *gathers*: what the library says in one turn,
//! of all the streams that it carries, leaves together when the owner of the connection takes it ([`Outbox::take`]) and
//! sends it. While what was gathered before has not left, no more than [`GATHER_BYTES_MAX`] is taken, and so a peer
//! that does not read holds up its own connection and no memory.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buf::Buffers;
use super::stream::{Input, Output};
use super::timer::Timer;
use crate::base::clock::{Clock, Instant};

/// What may be gathered before it has to be sent, in bytes.
pub const GATHER_BYTES_MAX: usize = 64 << 10;

/// Looks at bytes on their way in.
pub trait Sentry {
    /// Looks at the next bytes of the connection, cut anywhere, or at none; `put` is given what may pass, `room` bytes at
    /// most. Says how many were seen: all, unless there is no more room or it is to be asked again.
    ///
    /// `None` if nothing passes any more: reading waits then for ever, and whoever owns the connection is to end it.
    fn pass(&mut self, bytes: &[u8], room: usize, put: impl FnMut(&[u8])) -> Option<usize>;
}

/// Both directions of a connection.
pub struct Duplex<S> {
    input: Rc<RefCell<Input>>,
    out: Rc<Outbox>,
    sentry: S,
}

impl<S> Duplex<S> {
    /// Reads from `input`, which `sentry` looks at, and gathers in `out`.
    pub fn new(input: Rc<RefCell<Input>>, out: Rc<Outbox>, sentry: S) -> Duplex<S> {
        Duplex { input, out, sentry }
    }
}

impl<S: Sentry + Unpin> AsyncRead for Duplex<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Duplex { input, sentry, .. } = self.get_mut();
        let mut input = input.borrow_mut();
        let before = buf.filled().len();
        loop {
            let seen = sentry.pass(input.bytes(), buf.remaining(), |bytes| buf.put_slice(bytes));
            let Some(seen) = seen else { return Poll::Pending };
            input.consume(seen);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if input.bytes().is_empty() && !ready!(input.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Unpin> AsyncWrite for Duplex<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.out.poll_room(cx).map_ok(|room| self.out.push(&bytes[..bytes.len().min(room)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut room = ready!(self.out.poll_room(cx))?;
        let mut taken = 0;
        for slice in slices {
            let part = slice.len().min(room);
            taken += self.out.push(&slice[..part]);
            room -= part;
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It leaves with the turn.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What is on its way out.
pub struct Outbox {
    bytes: RefCell<Vec<u8>>,
    /// Bytes that were taken last, which is what the next turn is likely to bring.
    expected: Cell<usize>,
    /// True once nothing can be sent any more.
    broken: Cell<bool>,
    blocked: Cell<Option<Waker>>,
    buffers: Rc<Buffers>,
}

impl Outbox {
    /// An empty one, its buffers from `buffers`.
    pub fn new(buffers: Rc<Buffers>) -> Outbox {
        Outbox {
            bytes: RefCell::default(),
            expected: Cell::new(0),
            broken: Cell::new(false),
            blocked: Cell::new(None),
            buffers,
        }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.borrow().is_empty()
    }

    /// Adds `frame` behind what the library has said, if it has said all that it had to: what is left of it would have found
    /// no room, and might be a part of a frame.
    pub fn say_last(&self, frame: &[u8]) {
        if GATHER_BYTES_MAX - self.bytes.borrow().len() >= frame.len() {
            self.push(frame);
        }
    }

    /// All that waits, to be sent now; who writes may go on.
    pub fn take(&self) -> Vec<u8> {
        self.wake();
        let bytes = self.bytes.take();
        self.expected.set(bytes.len());
        bytes
    }

    /// From now on writing fails.
    pub fn fail(&self) {
        self.broken.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.blocked.take() {
            waker.wake();
        }
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        if self.broken.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match GATHER_BYTES_MAX - self.bytes.borrow().len() {
            0 => {
                self.blocked.set(Some(cx.waker().clone()));
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Takes all of `bytes`, for which there must be room.
    fn push(&self, bytes: &[u8]) -> usize {
        let mut gathered = self.bytes.borrow_mut();
        if gathered.capacity() == 0 {
            *gathered = self.buffers.take_for(bytes.len().max(self.expected.get()));
        } else if gathered.len() + bytes.len() > gathered.capacity() {
            let mut larger = self.buffers.take_for(GATHER_BYTES_MAX);
            larger.extend_from_slice(&gathered);
            self.buffers.give(std::mem::replace(&mut *gathered, larger));
        }
        gathered.extend_from_slice(bytes);
        bytes.len()
    }
}

/// How long one write may take.
pub struct Patience<'a> {
    /// Told when.
    pub timer: &'a Timer,
    /// By which it is told.
    pub clock: &'a Clock,
    /// From the first byte of what was gathered to its last.
    pub within: Duration,
    /// Set when it has run out.
    pub expired: &'a Cell<bool>,
}

/// Does `work` and sends what it gathers in `out`, until the work is done and all is sent. A peer that takes nothing for
/// longer than `patience` allows counts as gone: nothing could ever tell it so. What the work came to may say that nobody is
/// there to take the rest (`is_gone`).
pub async fn drive<T: Copy>(
    mut work: Pin<&mut impl Future<Output = T>>,
    out: &Outbox,
    output: &mut Output,
    patience: &Patience<'_>,
    is_gone: impl Fn(T) -> bool,
) -> T {
    let buffers = &out.buffers;
    let mut done = None;
    loop {
        poll_fn(|cx| {
            if done.is_none()
                && let Poll::Ready(outcome) = work.as_mut().poll(cx)
            {
                done = Some(outcome);
            }
            if done.is_some() || !out.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let mut bytes = out.take();
        if let (true, Some(outcome)) = (bytes.is_empty(), done) {
            return outcome;
        }
        match output.write_now(&bytes) {
            Ok(None) => {
                buffers.give(bytes);
                continue;
            }
            Ok(Some(sent)) => drop(bytes.drain(..sent)),
            Err(_) => {
                out.fail();
                continue;
            }
        }
        // The peer is slow. Meanwhile its streams go on, as far as there is room to gather.
        patience.timer.set(patience.clock.now() + patience.within);
        let mut write = pin!(output.write(bytes));
        let result = poll_fn(|cx| {
            if let Poll::Ready((result, bytes)) = write.as_mut().poll(cx) {
                buffers.give(bytes);
                return Poll::Ready(result);
            }
            if done.is_none()
                && let Poll::Ready(outcome) = work.as_mut().poll(cx)
            {
                done = Some(outcome);
            }
            match done {
                Some(outcome) if is_gone(outcome) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                _ if patience.timer.poll_expired(cx) => {
                    patience.expired.set(true);
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                _ => Poll::Pending,
            }
        })
        .await;
        patience.timer.set(Instant::NEVER);
        if result.is_err() {
            out.fail();
            if let Some(outcome) = done {
                return outcome;
            }
        }
    }
}

/// Where the pieces of one stream come back to once they have left.
pub struct Home {
    unsent: Cell<usize>,
    /// A piece was given up before all of it had left.
    lost: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    buffers: Rc<Buffers>,
}

/// A part of what a stream says, on its way out.
pub struct Piece {
    bytes: Vec<u8>,
    at: usize,
    home: Rc<Home>,
}

impl Home {
    /// One of which nothing is under way; buffers go back to `buffers`.
    pub fn new(buffers: Rc<Buffers>) -> Rc<Home> {
        Rc::new(Home { unsent: Cell::new(0), lost: Cell::new(false), waiting: RefCell::default(), buffers })
    }

    /// `bytes` from `at` on, to be handed to the library; it counts as unsent until the library drops it.
    pub fn piece(self: &Rc<Home>, bytes: Vec<u8>, at: usize) -> Piece {
        self.unsent.set(self.unsent.get() + bytes.len());
        Piece { bytes, at, home: self.clone() }
    }

    /// Gives a buffer back.
    pub fn give(&self, buffer: Vec<u8>) {
        self.buffers.give(buffer);
    }

    /// Bytes of pieces that have not left.
    pub fn unsent(&self) -> usize {
        self.unsent.get()
    }

    /// True if a piece was given up before all of it had left: its stream was reset, or its connection has ended.
    pub fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Ready once no more than `max` bytes are unsent.
    pub fn poll_unsent(&self, max: usize, cx: &Context<'_>) -> Poll<()> {
        if self.unsent.get() <= max {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn advance(&mut self, n: usize) {
        self.at += n;
        assert!(self.at <= self.bytes.len(), "no further than its end");
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let home = &self.home;
        home.lost.set(home.lost.get() || self.at < self.bytes.len());
        home.unsent.set(home.unsent.get() - self.bytes.len());
        home.buffers.give(std::mem::take(&mut self.bytes));
        if let Some(waker) = home.waiting.take() {
            waker.wake();
        }
    }
}
