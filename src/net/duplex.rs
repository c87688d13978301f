//! A connection as a library of its own loop asks for one: tokio's IO traits, without its runtime.
//!
//! Reading takes what has come and starts the next read. Writing only *gathers*: what the library says in one turn,
//! of all the streams that it carries, leaves together when the owner of the connection takes it ([`Outbox::take`]) and
//! sends it. While what was gathered before has not left, no more than [`GATHER_BYTES_MAX`] is taken, and so a peer
//! that does not read holds up its own connection and no memory.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buf::Buffers;
use super::stream::Input;

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
