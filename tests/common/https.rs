//! An HTTPS client on rustls' own blocking stream, which shares no code with the gateway's.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::PATIENCE;
use super::pem::{Ca, Pair};

/// Both versions of TLS.
pub const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];

/// What a client of TLS is: whom it trusts, what it speaks, who it is. Sessions of one go on from one another.
pub fn client(authority: &Ca, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    client_as(authority, versions, None)
}

/// As [`client`], with a certificate of its own.
pub fn client_as(
    authority: &Ca,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("an authority")).expect("an authority");
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(crypto).with_protocol_versions(versions).expect("versions");
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![own.der()], key).expect("a certificate")
        }
        None => builder.with_no_client_auth(),
    };
    // What it speaks.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// One connection.
pub struct Https {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl Https {
    /// Connects and shakes hands.
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Https {
        Https::try_connect(address, config, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// As [`Https::connect`], unless either side refuses the other. A server of TLS 1.3 that refuses a client's certificate
    /// is only heard when something is read.
    pub fn try_connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Https> {
        let mut tcp = TcpStream::connect_timeout(&address, PATIENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut session = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Https { stream: StreamOwned::new(session, tcp), buffer: Vec::new() })
    }

    /// The session.
    pub fn session(&self) -> &ClientConnection {
        &self.stream.conn
    }

    /// The session and the socket, for what this client does not offer.
    pub fn parts(&mut self) -> (&mut ClientConnection, &mut TcpStream) {
        (&mut self.stream.conn, &mut self.stream.sock)
    }

    /// The socket below it.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Https {
        self.try_send(bytes).unwrap_or_else(|error| panic!("sending {} bytes: {error}", bytes.len()));
        self
    }

    /// Sends bytes as they are, if the server still takes them.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Sends a request.
    pub fn send_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> &mut Https {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (request + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)
    }

    /// Reads an answer's head: status line and lower-case field lines.
    pub fn head(&mut self) -> String {
        self.head_as_it_is().to_ascii_lowercase()
    }

    /// Reads an answer's head.
    pub fn head_as_it_is(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n")).expect("a head in UTF-8")
    }

    /// Reads a whole answer: its head, and its body with a length or in chunks.
    pub fn answer(&mut self) -> (String, Vec<u8>) {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if let Some(length) = length {
            let body = self.take(length.trim().parse().expect("a length"));
            return (head, body);
        }
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk() {
            body.extend_from_slice(&chunk);
        }
        (head, body)
    }

    /// Reads a chunk; `None` for the last one.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = String::from_utf8(self.until(b"\r\n")).expect("a size");
        let size = usize::from_str_radix(line.trim(), 16).unwrap_or_else(|_| panic!("no size: {line:?}"));
        let chunk = self.take(size + 2);
        (size > 0).then(|| chunk[..size].to_vec())
    }

    /// Sends a request and reads its whole answer.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (String, Vec<u8>) {
        self.send_request(method, path, headers, body).answer()
    }

    /// Reads to the end: true for a proper one, with close_notify.
    pub fn ends_properly(&mut self) -> bool {
        loop {
            match self.fill() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end in {PATIENCE:?}"),
                Err(_) => return false,
            }
        }
    }

    /// What has been received and not been consumed.
    pub fn held(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads once.
    pub fn fill(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 64 << 10];
        let n = self.stream.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n)
    }

    /// Reads so many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let n = self.fill().unwrap_or_else(|error| panic!("after {} of {count} bytes: {error}", self.buffer.len()));
            assert!(n > 0, "ended after {} of {count} bytes", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return self.buffer.drain(..at + end.len()).collect();
            }
            let held = String::from_utf8_lossy(&self.buffer).into_owned();
            let n = self.fill().unwrap_or_else(|error| panic!("{error} after {held:?}"));
            assert!(n > 0, "ended after {held:?}");
        }
    }
}
