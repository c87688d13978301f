//! A non-blocking connection, plain or TLS 1.3; every peer is offered the same key exchange and cipher.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HTTP2: &[u8] = b"h2";

/// Where connections go, and how.
#[derive(Clone)]
pub struct Way {
    /// Address to connect to.
    pub address: SocketAddr,
    /// For https, what to trust and offer.
    pub tls: Option<Arc<ClientConfig>>,
    /// For HTTP/2, how.
    pub http2: Option<Multiplex>,
}

/// How requests share a connection over HTTP/2.
#[derive(Debug, Clone, Copy)]
pub struct Multiplex {
    /// Requests at a time on each connection.
    pub streams: usize,
    /// Flow control windows of streams begin shut, and those of the first so many requests stay so. None: nothing is held back.
    pub stalled: Option<usize>,
}

/// TLS 1.3 with X25519 and AES-128-GCM, the suite that RFC 8446 §9.1 makes mandatory; trusts the certificates in the PEM
/// file `ca`. Sessions are resumed only if `resume`. One protocol is offered, HTTP/2 if `http2`.
///
/// # Errors
/// The file can't be read or holds no certificate.
pub fn tls(ca: &Path, resume: bool, http2: bool) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(io::Error::other)? {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519];
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { HTTP2 } else { b"http/1.1" }.to_vec()];
    config.resumption = if resume { Resumption::store(Arc::new(Tickets::default())) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

/// A client's tickets, for one server. What rustls keeps by itself is eight for each server, and of many connections that
/// get theirs at once the others would have to shake hands in full.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

/// More than a load has connections.
const TICKETS_MAX: usize = 4096;

impl ClientSessionStore for Tickets {
    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() < TICKETS_MAX {
            tickets.push(ticket);
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    // One group is offered, and TLS 1.2 is not spoken.
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
}

/// One connection.
pub struct Channel {
    stream: TcpStream,
    session: Option<Box<ClientConnection>>,
}

impl Channel {
    /// Connects; a TLS handshake goes on with what is written and read.
    ///
    /// # Errors
    /// There is no connection within five seconds.
    pub fn connect(way: &Way) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&way.address, CONNECT_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let session = match &way.tls {
            Some(config) => {
                let name = ServerName::IpAddress(way.address.ip().into());
                Some(Box::new(ClientConnection::new(config.clone(), name).map_err(io::Error::other)?))
            }
            None => None,
        };
        Ok(Channel { stream, session })
    }

    /// The socket, for epoll.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes some of `bytes`; [`Channel::is_behind`] says whether what was taken has left.
    ///
    /// # Errors
    /// The socket's; nothing more can be taken now (`WouldBlock`).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.stream.write(bytes);
        };
        let taken = session.writer().write(bytes)?;
        self.flush()?;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Sends what is sealed and has not left.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while session.wants_write() {
            match session.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// True if the socket did not take all that was written.
    pub fn is_behind(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.wants_write())
    }

    /// Reads once; 0 at the peer's end. Over TLS `into` should have 64 KiB.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if there is nothing yet, which a handshake message is not; what TLS does not allow.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.stream.read(into);
        };
        // By itself a session asks the socket for 4 KiB at a time. Here the last quarter of the buffer takes what comes off the
        // wire; what that means, with the rest of a record that had begun before, finds room in the other three.
        let (plain, wire) = into.split_at_mut(into.len() / 4 * 3);
        let count = self.stream.read(wire)?;
        let (mut wire, mut filled) = (&wire[..count], 0);
        let mut end = count == 0;
        while !wire.is_empty() && !end {
            session.read_tls(&mut wire)?;
            session.process_new_packets().map_err(io::Error::other)?;
            match session.reader().read(&mut plain[filled..]) {
                // The peer has said that nothing follows.
                Ok(0) => end = true,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()?;
        if filled == 0 && !end { Err(ErrorKind::WouldBlock.into()) } else { Ok(filled) }
    }

    /// True unless the handshake is over and the peer has chosen another protocol than HTTP/2, or none.
    pub fn may_speak_http2(&self) -> bool {
        match &self.session {
            Some(session) => session.is_handshaking() || session.alpn_protocol() == Some(HTTP2),
            None => true,
        }
    }

    /// True if the handshake is over and took up an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Says that nothing follows. Closing is dropping.
    pub fn finish(&mut self) {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
            // A peer that has left does not hear it.
            let _ = self.flush();
        }
    }

    /// True if the peer has closed, or has sent bytes that nobody asked for. TLS may send tickets at any time.
    pub fn is_spoiled(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let seen = if self.session.is_some() { self.read(&mut bytes) } else { self.stream.peek(&mut bytes) };
        !matches!(seen, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}
