//! TLS by rustls, driven by hand: bytes in, bytes out, no socket.
//!
//! A [`Session`] never waits, so there is nothing to cancel: the stream feeds it what was read and sends what
//! it has sealed. It stands on rustls' unbuffered connections, which decrypt where the bytes lie and keep no buffers
//! of their own: a buffered one holds 4 KiB for as long as it lives, and there may be many that wait.

mod client;
mod failure;
mod server;
mod tickets;

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus};
use rustls::{CommonState, HandshakeKind, ProtocolVersion};

pub use client::{ClientConfig, Identity, client_config, over_http1};
pub use failure::Failure;
pub use server::{
    ClientAuth, Faulty, Group, KeyPair, ServerConfig, ServerOptions, Tickets, Version, check_authorities,
    check_key_pair, server_config,
};

use super::buf::Buffers;

/// What sealing adds to a record at most: header, explicit nonce, content type, tag.
const SEAL_BYTES_MAX: usize = 5 + 8 + 1 + 16;
/// The most plaintext that one record holds.
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What may wait for the rest of its record, or of its handshake message. rustls itself takes messages up to this.
const PARTIAL_BYTES_MAX: usize = 64 * 1024 + RECORD_BYTES_MAX;

/// The application protocols that we speak, best first.
pub const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// All that is made of certificates, as workers use it.
#[derive(Debug, Default)]
pub struct Credentials {
    /// What each listener shows; `None` for one that speaks HTTP in the clear.
    pub listeners: Vec<Option<Arc<ServerConfig>>>,
    /// What each endpoint is shown, and must show; `None` for one without https.
    pub endpoints: Vec<Option<Arc<ClientConfig>>>,
}

/// One TLS session's state.
pub struct Session {
    connection: Connection,
    /// Sealed bytes that have come and are no whole record, or no whole handshake message, yet.
    partial: Vec<u8>,
    /// Sealed bytes that were not yet sent.
    unsent: Vec<u8>,
    /// The peer has said that nothing follows.
    closed: bool,
    /// What the peer sent could not be taken: nothing more goes in or out, but for what is unsent.
    failed: bool,
    /// We have.
    ended: bool,
    /// We do, with the next bytes.
    ends_next: bool,
    /// True until the first bytes of a client have come.
    is_fresh: bool,
}

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Why what has come cannot be taken.
#[derive(Debug)]
pub enum Broken {
    /// It does not begin as TLS does, but with a letter, as every HTTP request.
    NotTls,
    /// A broken record, a refused certificate, an alert. What the peer is to be told waits to be sent.
    Tls(rustls::Error),
    /// A handshake message longer than any that is of use.
    TooLong,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> io::Error {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
        match broken {
            Broken::NotTls => invalid("the peer does not speak TLS"),
            Broken::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            Broken::TooLong => invalid("a TLS handshake message is too long"),
        }
    }
}

impl Session {
    /// A client's session with `host`, whose certificate must name it: a DNS name or an IP address.
    ///
    /// # Errors
    /// If `host` is neither.
    pub fn client(config: Arc<ClientConfig>, host: &str) -> io::Result<Session> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is not a name that a certificate can hold"))
        })?;
        let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Session::new(Connection::Client(connection)))
    }

    /// A server's session.
    ///
    /// # Errors
    /// If the configuration cannot be used, which would be the same for every session.
    pub fn server(config: Arc<ServerConfig>) -> io::Result<Session> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Session::new(Connection::Server(connection)))
    }

    fn new(connection: Connection) -> Session {
        let is_fresh = matches!(connection, Connection::Server(_));
        Session {
            connection,
            partial: Vec::new(),
            unsent: Vec::new(),
            closed: false,
            failed: false,
            ended: false,
            ends_next: false,
            is_fresh,
        }
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(connection) => connection,
            Connection::Server(connection) => connection,
        }
    }

    /// True until both sides agree on keys.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// True if what the session has to say may wait for the first bytes that are sent: the handshake is over and the
    /// peer does not wait for it. A server's tickets, or a client's last flight.
    pub fn may_hold(&self) -> bool {
        !self.is_handshaking()
            && match &self.connection {
                Connection::Client(_) => true,
                Connection::Server(connection) => connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
            }
    }

    /// The application protocol that both sides have agreed on, if it is one that we speak (RFC 7301).
    pub fn protocol(&self) -> Option<&'static [u8]> {
        let agreed = self.common().alpn_protocol()?;
        PROTOCOLS.into_iter().find(|known| agreed == *known)
    }

    /// True if the session goes on from an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// True once the peer has said that nothing follows.
    pub fn closed_cleanly(&self) -> bool {
        self.closed
    }

    /// Takes what was read from the socket and appends its plaintext to `plain`. The bytes are overwritten, unless they
    /// turn out to be no TLS at all.
    ///
    /// # Errors
    /// See [`Broken`]. Nothing can be received after one; what is unsent then tells the peer why.
    pub fn receive(&mut self, sealed: &mut [u8], plain: &mut Vec<u8>, buffers: &Buffers) -> Result<(), Broken> {
        // What comes behind the peer's own end is nobody's, and is never taken.
        if self.closed || self.failed {
            return Ok(());
        }
        if std::mem::take(&mut self.is_fresh) && sealed.first().is_some_and(u8::is_ascii_alphabetic) {
            return Err(Broken::NotTls);
        }
        if self.partial.is_empty() {
            let taken = self.open(sealed, plain, buffers)?;
            if taken < sealed.len() && !self.closed {
                self.partial = sealed[taken..].to_vec();
            }
        } else {
            let before = std::mem::take(&mut self.partial);
            let mut joined = buffers.take_for(before.len() + sealed.len());
            joined.extend_from_slice(&before);
            joined.extend_from_slice(sealed);
            let taken = self.open(&mut joined, plain, buffers)?;
            if taken < joined.len() && !self.closed {
                self.partial = joined[taken..].to_vec();
            }
            buffers.give(joined);
        }
        self.failed = self.partial.len() > PARTIAL_BYTES_MAX;
        if self.failed { Err(Broken::TooLong) } else { Ok(()) }
    }

    fn open(&mut self, sealed: &mut [u8], plain: &mut Vec<u8>, buffers: &Buffers) -> Result<usize, Broken> {
        let mut turn = Turn { plain, unsent: &mut self.unsent, closed: &mut self.closed, buffers };
        let outcome = match &mut self.connection {
            Connection::Client(connection) => turn.advance(connection, sealed),
            Connection::Server(connection) => turn.advance(connection, sealed),
        };
        self.failed = outcome.is_err();
        outcome.map_err(Broken::Tls)
    }

    /// Lets the session say what it has to say of itself, which a client's has from the start.
    ///
    /// # Errors
    /// As [`Session::receive`].
    pub fn begin(&mut self, buffers: &Buffers) -> Result<(), Broken> {
        self.open(&mut [], &mut Vec::new(), buffers).map(drop)
    }

    /// Seals `plain` behind what already waits to be sent.
    ///
    /// # Errors
    /// If the session is closed for writing.
    pub fn seal(&mut self, plain: &[u8], buffers: &Buffers) -> io::Result<()> {
        let room = plain.len() + (plain.len() / RECORD_BYTES_MAX + 1) * SEAL_BYTES_MAX;
        self.write(room, buffers, |traffic, out| traffic.encrypt(plain, out))?;
        if std::mem::take(&mut self.ends_next) {
            self.end(buffers);
        }
        Ok(())
    }

    /// Says behind the next bytes that are sealed that nothing follows.
    pub fn end_with_next(&mut self) {
        self.ends_next = true;
    }

    /// Says behind what already waits to be sent that nothing follows; once.
    pub fn end(&mut self, buffers: &Buffers) {
        if std::mem::replace(&mut self.ended, true) || self.failed || self.is_handshaking() {
            return;
        }
        // A session that cannot say it any more has said, or been told, something worse.
        let _ = self.write(SEAL_BYTES_MAX + 2, buffers, |traffic, out| traffic.close(out));
    }

    fn write(
        &mut self,
        room: usize,
        buffers: &Buffers,
        seal: impl FnMut(&mut dyn Traffic, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        // rustls remembers a handshake message that it has seen a part of, and the part is gone.
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut nothing = Vec::new();
        let mut turn = Turn { plain: &mut nothing, unsent: &mut self.unsent, closed: &mut self.closed, buffers };
        match &mut self.connection {
            // What waits for its rest is shown again, for rustls remembers what it has seen of it.
            Connection::Client(connection) => turn.write(connection, &mut self.partial, room, seal),
            Connection::Server(connection) => turn.write(connection, &mut self.partial, room, seal),
        }
    }

    /// What is to be sent next.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent
    }

    /// Forgets the first `n` bytes of what was to be sent; the buffer goes back when nothing is left.
    pub fn sent(&mut self, n: usize, buffers: &Buffers) {
        if n >= self.unsent.len() {
            buffers.give(std::mem::take(&mut self.unsent));
        } else {
            self.unsent.drain(..n);
        }
    }

    /// All that is to be sent, for whoever sends it.
    pub fn take_unsent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unsent)
    }
}

/// What a connection needs beside itself while it is driven.
struct Turn<'t> {
    plain: &'t mut Vec<u8>,
    unsent: &'t mut Vec<u8>,
    closed: &'t mut bool,
    buffers: &'t Buffers,
}

impl Turn<'_> {
    /// Makes room for `room` bytes behind what waits to be sent.
    fn room(&mut self, room: usize) -> &mut [u8] {
        if self.unsent.capacity() == 0 {
            *self.unsent = self.buffers.take_for(room);
        }
        let at = self.unsent.len();
        self.unsent.resize(at + room, 0);
        &mut self.unsent[at..]
    }

    /// Takes in all whole records of `sealed`; returns how many of its bytes are done with.
    fn advance<C: Records>(&mut self, connection: &mut C, sealed: &mut [u8]) -> Result<usize, rustls::Error> {
        let mut taken = 0;
        loop {
            let UnbufferedStatus { discard, state } = connection.process(&mut sealed[taken..]);
            let step = state.map(|state| self.step(state));
            taken += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::Blocked) => return Ok(taken),
                Err(error) => {
                    self.last_words(connection);
                    return Err(error);
                }
            }
        }
    }

    /// Seals by `seal` into at least `room` bytes.
    fn write<C: Records>(
        &mut self,
        connection: &mut C,
        partial: &mut Vec<u8>,
        mut room: usize,
        mut seal: impl FnMut(&mut dyn Traffic, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        // Each turn either takes one thing off the session's hands or is the last; a few suffice.
        for _ in 0..64 {
            let UnbufferedStatus { discard, state } = connection.process(partial);
            let outcome = match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let at = self.unsent.len();
                    let sealed = seal(&mut traffic, self.room(room));
                    self.unsent.truncate(at + *sealed.as_ref().unwrap_or(&0));
                    Some(sealed)
                }
                Ok(ConnectionState::Closed) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(state) => match self.step(state) {
                    Step::Again => None,
                    Step::Blocked => return Err(io::ErrorKind::NotConnected.into()),
                },
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            };
            partial.drain(..discard);
            match outcome {
                None => {}
                Some(Ok(_)) => return Ok(()),
                Some(Err(EncryptError::InsufficientSize(size))) => room = size.required_size,
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        Err(io::Error::other("the TLS session does not come to writing"))
    }

    /// The alert that a failed session leaves behind.
    fn last_words<C: Records>(&mut self, connection: &mut C) {
        while connection.has_words() {
            // With nothing to read it can only speak; reading on would meet the same fault again.
            let Ok(state) = connection.process(&mut []).state else { return };
            if matches!(self.step(state), Step::Blocked) {
                return;
            }
        }
    }

    fn step<D>(&mut self, state: ConnectionState<'_, '_, D>) -> Step {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    self.plain.extend_from_slice(record.payload);
                }
                Step::Again
            }
            ConnectionState::EncodeTlsData(mut data) => {
                let at = self.unsent.len();
                let mut room = 512;
                loop {
                    let outcome = data.encode(self.room(room));
                    self.unsent.truncate(at + *outcome.as_ref().unwrap_or(&0));
                    match outcome {
                        Ok(_) => return Step::Again,
                        Err(rustls::unbuffered::EncodeError::InsufficientSize(size)) => room = size.required_size,
                        Err(_) => return Step::Blocked,
                    }
                }
            }
            ConnectionState::TransmitTlsData(data) => {
                // It lies in `unsent`, before all that follows.
                data.done();
                Step::Again
            }
            ConnectionState::PeerClosed => {
                *self.closed = true;
                Step::Again
            }
            _ => Step::Blocked,
        }
    }
}

enum Step {
    /// There may be more.
    Again,
    /// Nothing more can be done with what is here.
    Blocked,
}

/// What both kinds of connection do alike.
trait Records {
    type Data;
    fn process<'c, 'i>(&'c mut self, sealed: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// True if it has something to say.
    fn has_words(&self) -> bool;
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, sealed: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(sealed)
    }
    fn has_words(&self) -> bool {
        self.wants_write()
    }
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, sealed: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(sealed)
    }
    fn has_words(&self) -> bool {
        self.wants_write()
    }
}

/// A connection that may be written to.
trait Traffic {
    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn close(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<D> Traffic for rustls::unbuffered::WriteTraffic<'_, D> {
    fn encrypt(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        rustls::unbuffered::WriteTraffic::encrypt(self, plain, out)
    }
    fn close(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(out)
    }
}

#[cfg(test)]
mod tests;
