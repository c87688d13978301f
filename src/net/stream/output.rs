//! The writing half of a stream.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use monoio::buf::IoBuf;
use monoio::io::{AsyncWriteRent, OwnedWriteHalf};
use monoio::net::TcpStream;

use crate::net::buf::Buffers;
use crate::net::rt;
use crate::net::socket::Socket;
use crate::net::tls::Session;

/// The writing half.
pub struct Output {
    half: OwnedWriteHalf<TcpStream>,
    session: Option<Rc<RefCell<Session>>>,
    /// Where a session's buffers come from.
    pool: Option<Rc<Buffers>>,
    /// True while a piece of what is sealed is under way, and for ever if that was given up: nothing may overtake it.
    sending: bool,
    socket: Socket,
}

impl Output {
    pub(super) fn new(
        half: OwnedWriteHalf<TcpStream>,
        session: Option<Rc<RefCell<Session>>>,
        socket: Socket,
        buffers: &Rc<Buffers>,
    ) -> Output {
        let pool = session.is_some().then(|| buffers.clone());
        Output { half, session, pool, sending: false, socket }
    }

    /// From now on what is written is sealed.
    pub(super) fn make_secure(&mut self, session: Rc<RefCell<Session>>, buffers: &Rc<Buffers>) {
        (self.session, self.pool) = (Some(session), Some(buffers.clone()));
    }

    /// The peer turned out to speak no TLS.
    pub(super) fn make_plain(&mut self) {
        self.session = None;
    }

    /// Sends what the socket takes of `bytes` at once, before the turn ends, rather than through the ring: `None` if that was
    /// all. Else it is how many of them were taken, and the rest, though there be none, needs [`Output::write`]: what a TLS
    /// stream takes is sealed, and has to be sent whole.
    ///
    /// For an event that comes alone this is cheaper than [`Output::write`], whose completion would cost another turn.
    /// Where many writes share a turn it is dearer: the ring hands them to the kernel together.
    ///
    /// # Errors
    /// The socket's error.
    pub fn write_now(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if self.session.is_some() {
            self.seal(bytes)?;
            return Ok(if self.flush_now()? { None } else { Some(bytes.len()) });
        }
        let sent = self.socket.send_now(bytes)?;
        Ok(if sent == bytes.len() { None } else { Some(sent) })
    }

    /// Writes all of `bytes` and gives the buffer back. Dropping the future leaves the connection fit only for closing.
    ///
    /// # Errors
    /// The socket's error; part of the bytes may have been sent.
    pub async fn write(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        if self.session.is_none() {
            return self.send(bytes).await;
        }
        // Nothing is sealed for nothing: a session that has said its last word takes no more, but what it said may wait.
        if !bytes.is_empty()
            && let Err(error) = self.seal(&bytes)
        {
            return (Err(error), bytes);
        }
        (self.send_sealed().await, bytes)
    }

    /// Says with the next bytes that are written that nothing follows them; a TLS stream only, a plain one says so by ending.
    pub fn end_with_next(&mut self) {
        if let Some(session) = &self.session {
            session.borrow_mut().end_with_next();
        }
    }

    /// Sends what the session has to say of itself, as far as the socket takes it at once, and with `end` that nothing
    /// follows. For the moment before a pause, or before the end; what cannot be said then is not worth waiting for.
    pub fn speak(&mut self, end: bool) {
        let (Some(session), Some(pool)) = (&self.session, &self.pool) else { return };
        if end {
            session.borrow_mut().end(pool);
        }
        // Whatever is wrong with the socket, who reads it next is told.
        let _ = self.flush_now();
    }

    fn seal(&self, bytes: &[u8]) -> io::Result<()> {
        match (&self.session, &self.pool) {
            (Some(session), Some(pool)) => session.borrow_mut().seal(bytes, pool),
            _ => Ok(()),
        }
    }

    /// Sends what the socket takes of what is sealed; true if nothing of it is left.
    fn flush_now(&mut self) -> io::Result<bool> {
        let (Some(session), Some(pool)) = (&self.session, &self.pool) else { return Ok(true) };
        let mut session = session.borrow_mut();
        if self.sending || session.unsent().is_empty() {
            return Ok(!self.sending);
        }
        let sent = self.socket.send_now(session.unsent())?;
        session.sent(sent, pool);
        Ok(session.unsent().is_empty())
    }

    /// Sends all that the session has to say, at once if the socket takes it.
    ///
    /// # Errors
    /// The socket's error.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.flush_now()? { Ok(()) } else { self.send_sealed().await }
    }

    /// Sends all that is sealed, through the ring.
    async fn send_sealed(&mut self) -> io::Result<()> {
        let Some(session) = self.session.clone() else { return Ok(()) };
        let sealed = session.borrow_mut().take_unsent();
        if sealed.is_empty() {
            return Ok(());
        }
        self.sending = true;
        let (result, sealed) = self.send(sealed).await;
        self.sending = false;
        if let Some(pool) = &self.pool {
            pool.give(sealed);
        }
        result
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
