//! TLS by rustls, driven by hand: bytes in, bytes out, no socket.
//!
//! A [`Session`] never waits, so there is nothing to cancel: the stream feeds it what was read and writes what
//! it has to say.

use std::io::{self, Read, Write};
use std::sync::Arc;

pub use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConnection, RootCertStore};

/// One TLS session's state.
pub struct Session {
    connection: ClientConnection,
    closed: bool,
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
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Session { connection, closed: false })
    }

    /// True until both sides agree on keys.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// True once the peer has said that nothing follows.
    pub fn closed_cleanly(&self) -> bool {
        self.closed
    }

    /// Takes what was read from the socket and appends its plaintext to `plain`.
    ///
    /// # Errors
    /// A broken record, a refused certificate, an alert.
    pub fn receive(&mut self, mut sealed: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        // What comes behind the peer's own end is nobody's, and is never taken.
        while !sealed.is_empty() && !self.closed {
            if self.connection.read_tls(&mut sealed)? == 0 {
                break;
            }
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let ready = state.plaintext_bytes_to_read();
            self.closed |= state.peer_has_closed();
            if ready > 0 {
                let start = plain.len();
                plain.resize(start + ready, 0);
                self.connection.reader().read_exact(&mut plain[start..])?;
            }
        }
        Ok(())
    }

    /// Seals `plain` and returns all that is to be sent, the session's own messages included.
    ///
    /// # Errors
    /// If the session is closed for writing.
    pub fn send(&mut self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut sealed = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain;
        loop {
            // The session buffers a bounded amount, so large writes go in pieces.
            let n = if rest.is_empty() { 0 } else { self.connection.writer().write(rest)? };
            rest = &rest[n..];
            while self.connection.wants_write() {
                self.connection.write_tls(&mut sealed)?;
            }
            if rest.is_empty() {
                return Ok(sealed);
            }
        }
    }
}

/// What to trust when speaking to an endpoint: the system's authorities, else the bundled ones, and `extra_pem`
/// (a PEM file's contents) on top.
///
/// # Errors
/// If `extra_pem` holds no certificate or a broken one.
pub fn client_config(extra_pem: Option<&[u8]>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        // A container image may have no store at all.
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(pem) = extra_pem {
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            roots.add(certificate).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            found = true;
        }
        if !found {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
