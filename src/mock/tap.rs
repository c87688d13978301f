//! The stream under hyper: it passes bytes on, and does to them what hyper cannot express.
//!
//! A [`Tap`] owns the socket; the service holds the [`Wire`] of the same connection and sets [`Edits`]
//! before it answers. The tap then rewrites the head, splits and delays writes, and ends the connection
//! as told. It also knows, better than the body does, when an answer has really left: when hyper asks
//! to flush, nothing is held back, and the body is done.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::script::{Cut, Split};
use super::stats::{Exchange, State};
use super::text::Rng;

/// Bytes held back at most before hyper is told to wait.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a request kept at most, to show its head as it came.
const READ_BYTES_MAX: usize = 64 * 1024;
/// hyper's last chunk.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What is done to the bytes of one answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edits {
    /// Goes out before the head: an interim answer.
    pub prefix: Option<&'static [u8]>,
    /// Added to the value of Content-Length.
    pub length_extra: u64,
    /// The status line says HTTP/1.1 though hyper was told HTTP/1.0 (to get a close-delimited body).
    pub as_http11: bool,
    /// The head leaves a byte at a time.
    pub head_gap: Option<Duration>,
    /// How the body is cut into writes, and the pause between them.
    pub pieces: Option<(Split, Duration)>,
    /// `pieces` does not concern the head.
    pub head_whole: bool,
    /// The chunked body ends with a trailer.
    pub trailers: bool,
    /// Decides `Split::Random`.
    pub seed: u64,
    /// The connection ends after the answer.
    pub end: Option<Cut>,
    /// Ending the connection is a fault that leaves the answer incomplete.
    pub incomplete: bool,
}

/// What tap and service of one connection share.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    exchange: RefCell<Option<Exchange>>,
    edits: RefCell<Option<Edits>>,
    /// The body has yielded all it had; once flushed, the answer is complete.
    finishing: Cell<bool>,
    /// The connection is to end as soon as all is flushed.
    cut: Cell<Option<Cut>>,
    /// What was read since the last answer, up to the end of a head; see [`Wire::raw_head`].
    read: RefCell<Vec<u8>>,
}

impl Wire {
    /// A new request; one that still waits for its flush is complete.
    pub(crate) fn begin(&self, exchange: Exchange) {
        if let Some(before) = self.exchange.replace(Some(exchange)) {
            before.end(State::Completed);
        }
        self.finishing.set(false);
    }

    pub(crate) fn with_exchange(&self, f: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = self.exchange.borrow_mut().as_mut() {
            f(exchange);
        }
    }

    /// The head of the current request as it came, or nothing if it cannot be told (pipelining, or too large).
    pub(crate) fn raw_head(&self) -> Vec<u8> {
        let read = self.read.borrow();
        memchr::memmem::find(&read, b"\r\n\r\n").map_or(Vec::new(), |end| read[..end].to_vec())
    }

    fn keep_read(&self, bytes: &[u8]) {
        let mut read = self.read.borrow_mut();
        if read.len() < READ_BYTES_MAX {
            read.extend_from_slice(bytes);
        }
    }

    /// To be called before the answer is given to hyper.
    pub(crate) fn edit(&self, edits: Edits) {
        *self.edits.borrow_mut() = Some(edits);
    }

    pub(crate) fn finish(&self) {
        self.finishing.set(true);
    }

    pub(crate) fn cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
    }

    /// The connection is gone; a request still open was cancelled.
    pub(crate) fn gone(&self) {
        drop(self.exchange.take());
    }

    fn end(&self, state: State) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end(state);
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// Bytes go straight through.
    Through,
    /// Bytes are gathered until the head is whole.
    Head,
    /// Bytes go through `held`, in pieces.
    Body,
}

/// A socket whose write side follows a script.
#[derive(Debug)]
pub(crate) struct Tap {
    io: TcpStream,
    wire: Rc<Wire>,
    phase: Phase,
    edits: Edits,
    held: Vec<u8>,
    /// How many bytes of `held` have been written.
    written: usize,
    /// How many bytes of `held`, from its start, belong to the head.
    head_bytes: usize,
    pause: Option<Pin<Box<Sleep>>>,
    rng: Rng,
}

impl Tap {
    pub(crate) fn new(io: TcpStream, wire: Rc<Wire>) -> Tap {
        Tap {
            io,
            wire,
            phase: Phase::Through,
            edits: Edits::default(),
            held: Vec::new(),
            written: 0,
            head_bytes: 0,
            pause: None,
            rng: Rng::new(0),
        }
    }

    /// The socket, once nothing is held.
    pub(crate) fn into_inner(self) -> TcpStream {
        debug_assert!(self.held.is_empty());
        self.io
    }

    /// Writes what is held, but for the last `keep` bytes, in the pieces the script asks for.
    fn drain(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<io::Result<()>> {
        loop {
            let left = self.held.len().saturating_sub(keep);
            if self.written >= left {
                if self.written == self.held.len() {
                    self.held.clear();
                    self.written = 0;
                    self.head_bytes = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let in_head = self.written < self.head_bytes;
            let (most, gap) = match (self.edits.head_gap, self.edits.pieces) {
                (Some(gap), _) if in_head => (1, Some(gap)),
                _ if in_head && self.edits.head_whole => (self.head_bytes - self.written, None),
                (_, Some((split, gap))) => match split {
                    Split::Every(bytes) => (bytes as usize, Some(gap)),
                    Split::Random => (1 + self.rng.below(64) as usize, Some(gap)),
                    Split::Off => (usize::MAX, None),
                },
                _ => (usize::MAX, None),
            };
            let end = left.min(self.written.saturating_add(most));
            let wrote = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held[self.written..end]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wire.with_exchange(|exchange| exchange.sent(wrote));
            self.written += wrote;
            match gap {
                Some(gap) if gap.is_zero() => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(gap) => self.pause = Some(Box::pin(tokio::time::sleep(gap))),
                None => {}
            }
        }
    }

    /// Once the head is whole: rewrites it, and goes on with the body.
    fn take_head(&mut self) {
        let Some(end) = memchr::memmem::find(&self.held, b"\r\n\r\n").map(|at| at + 4) else {
            return;
        };
        let body = self.held.split_off(end);
        let head = std::mem::take(&mut self.held);
        if let Some(prefix) = self.edits.prefix {
            self.held.extend_from_slice(prefix);
        }
        let head = if self.edits.as_http11 && head.starts_with(b"HTTP/1.0") {
            [b"HTTP/1.1", &head[8..]].concat()
        } else {
            head
        };
        self.held.extend(lengthen(&head, self.edits.length_extra));
        self.head_bytes = self.held.len();
        self.held.extend(body);
        self.phase = Phase::Body;
    }

    /// What follows when everything has left.
    fn settled(&mut self) -> io::Result<()> {
        let finished = self.wire.finishing.get();
        if finished {
            self.wire.finishing.set(false);
            self.wire.read.borrow_mut().clear();
            self.phase = Phase::Through;
            let edits = std::mem::take(&mut self.edits);
            self.wire.end(if edits.incomplete { State::Cut } else { State::Completed });
            if edits.end.is_some() {
                self.wire.cut.set(edits.end);
            }
        }
        if let Some(cut) = self.wire.cut.take() {
            self.wire.end(State::Cut);
            if cut == Cut::Rst {
                self.io.set_zero_linger()?;
            }
            // hyper drops the connection, and with it the socket.
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the script ends the connection"));
        }
        Ok(())
    }
}

/// Adds `extra` to the value of the Content-Length field of a head.
fn lengthen(head: &[u8], extra: u64) -> Vec<u8> {
    let field = b"content-length: ";
    let Some(at) = memchr::memmem::find(head, field).filter(|_| extra > 0) else {
        return head.to_vec();
    };
    let (before, after) = head.split_at(at + field.len());
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let length: u64 = after[..digits].iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    [before, (length + extra).to_string().as_bytes(), &after[digits..]].concat()
}

impl hyper::rt::Read for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = [0_u8; 16 * 1024];
        let bytes_max = space.len().min(cursor.remaining());
        let mut buf = ReadBuf::new(&mut space[..bytes_max]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        if !buf.filled().is_empty() {
            self.wire.with_exchange(Exchange::heard);
            self.wire.keep_read(buf.filled());
        }
        cursor.put_slice(buf.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(edits) = this.wire.edits.take() {
            this.rng = Rng::new(edits.seed);
            this.edits = edits;
            this.phase = Phase::Head;
        }
        match this.phase {
            Phase::Through if this.held.is_empty() => {
                let wrote = ready!(Pin::new(&mut this.io).poll_write(cx, bytes))?;
                this.wire.with_exchange(|exchange| exchange.sent(wrote));
                return Poll::Ready(Ok(wrote));
            }
            Phase::Head => {
                this.held.extend_from_slice(bytes);
                this.take_head();
            }
            Phase::Through | Phase::Body => {
                if this.held.len() > HELD_BYTES_MAX {
                    let keep = if this.edits.trailers { LAST_CHUNK.len() } else { 0 };
                    ready!(this.drain(cx, keep))?;
                    // What is kept moves to the front, so that `held` stays small.
                    this.held.drain(..this.written);
                    this.written = 0;
                    this.head_bytes = 0;
                }
                this.held.extend_from_slice(bytes);
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if matches!(this.phase, Phase::Body) {
            let mut keep = 0;
            if this.edits.trailers {
                if !this.wire.finishing.get() {
                    keep = LAST_CHUNK.len();
                } else if this.held.ends_with(LAST_CHUNK) {
                    this.edits.trailers = false;
                    this.held.truncate(this.held.len() - 2);
                    this.held.extend_from_slice(b"x-mock-trailer: 1\r\n\r\n");
                }
            }
            ready!(this.drain(cx, keep))?;
        }
        Poll::Ready(this.settled())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::lengthen;

    #[test]
    fn only_the_length_of_a_head_is_changed() {
        for (head, extra, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 95\r\n\r\n", 7, "HTTP/1.1 200 OK\r\ncontent-length: 102\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 95\r\n\r\n", 0, "HTTP/1.1 200 OK\r\ncontent-length: 95\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\n\r\n", 7, "HTTP/1.1 200 OK\r\n\r\n"),
        ] {
            assert_eq!(lengthen(head.as_bytes(), extra), expected.as_bytes(), "{head} {extra}");
        }
    }
}
