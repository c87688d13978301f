//! What passes from one plain socket to another without being looked at: through a pipe, so that it is never copied to us
//! and back (splice(2)).
//!
//! Only on a ring, which tells by a poll when a socket has something, or has room; what is moved then is moved at once. The
//! polls are made on second descriptors of both sockets: so a passage borrows neither stream, and whoever holds them can
//! look out for their ends meanwhile. Nobody else may read the one, or write to the other, as long as it lasts.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;

use monoio::net::TcpStream;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

use super::rt;
use super::socket::without_waiting;
use super::stream::Stream;

/// What a pipe holds, in bytes, where the system grants it: it is the most that one turn moves.
const PIPE_BYTES: usize = 512 << 10;

/// Pipes kept when nobody needs them, for a moment.
const KEPT: usize = 16;

/// A message with less than this left to come is cheaper read and written: the descriptors and the polls cost more than the copies.
pub const WORTH_BYTES: u64 = 128 << 10;

thread_local! {
    /// Empty pipes of this worker.
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    /// One was taken since the last look.
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

/// Closes the pipes that nobody has needed since the last look; for a moment that can wait.
pub fn collect() {
    if !TAKEN.replace(false) {
        PIPES.take();
    }
}

struct Pipe {
    exit: OwnedFd,
    entry: OwnedFd,
}

impl Pipe {
    fn take() -> Option<Pipe> {
        TAKEN.set(true);
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        let (exit, entry) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        // Beyond what this user may have in pipes it stays as large as pipes are.
        let _ = fcntl(&entry, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32));
        Some(Pipe { exit, entry })
    }

    fn give_back(self) {
        PIPES.with_borrow_mut(|kept| {
            if kept.len() < KEPT {
                kept.push(self);
            }
        });
    }
}

/// A way from one socket to another.
pub struct Passage {
    from: TcpStream,
    to: TcpStream,
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    inside: usize,
}

/// A second descriptor of a stream's socket, which sends no end when it is closed.
fn end(stream: &Stream) -> Option<TcpStream> {
    let tcp = std::net::TcpStream::from(stream.socket.duplicate().ok()?);
    TcpStream::from_std(tcp).ok()
}

/// True if there can be a passage between the two, now or later: neither is sealed, and the event loop is a ring.
pub fn is_possible(from: &Stream, to: &Stream) -> bool {
    !monoio::utils::is_legacy() && !from.is_secure() && !to.is_secure()
}

impl Passage {
    /// A way from what `from` sends to what `to` receives; `None` if there can be none ([`is_possible`]), if something has been
    /// read that was not consumed, or may be, or if there are no descriptors left.
    pub fn between(from: &Stream, to: &Stream) -> Option<Passage> {
        if !is_possible(from, to) || !from.input.is_idle() {
            return None;
        }
        let (from, to) = (end(from)?, end(to)?);
        Some(Passage { from, to, pipe: Some(Pipe::take()?), inside: 0 })
    }

    /// Waits until something has come, and takes up to `most` bytes of it in; 0 if only reading can tell what there is, the end
    /// or an error mostly. Nothing may be inside. Dropping the future loses nothing.
    pub async fn fill(&mut self, most: u64) -> usize {
        debug_assert_eq!(self.inside, 0);
        let Some(pipe) = &self.pipe else { return 0 };
        let waiting = rt::Operation::begin();
        if self.from.readable(false).await.is_err() {
            return 0;
        }
        drop(waiting);
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIPE_BYTES);
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let moved = without_waiting(&self.from, |socket| splice(socket, None, &pipe.entry, None, most, flags));
        self.inside = moved.unwrap_or(0);
        self.inside
    }

    /// Sends on what the receiver takes at once; true if nothing is inside any more.
    ///
    /// # Errors
    /// The receiver's.
    pub fn empty_now(&mut self) -> io::Result<bool> {
        let Some(pipe) = &self.pipe else { return Ok(true) };
        if self.inside > 0 {
            let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
            let inside = self.inside;
            let moved = without_waiting(&self.to, |socket| splice(&pipe.exit, None, socket, None, inside, flags));
            self.inside -= match moved {
                Ok(moved) => moved,
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => 0,
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(self.inside == 0)
    }

    /// Sends on all that is inside. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The receiver's.
    pub async fn empty(&mut self) -> io::Result<()> {
        let _waiting = rt::Operation::begin();
        while !self.empty_now()? {
            self.to.writable(false).await?;
        }
        Ok(())
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        // What is still inside must not come out of another passage.
        if self.inside == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipe.give_back();
        }
    }
}

#[cfg(test)]
mod tests;
