//! One blocking connection: requests out, answers decoded, nothing waited for without end.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::http::{Decoder, Malformed};

/// Longer than any timer of the gateway that the load waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the gateway.
pub struct Wire {
    stream: Stream,
    decoder: Decoder,
    /// Read and not yet decoded: nothing may follow an answer.
    piece: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As its framing says.
    Whole(u16),
    /// Before that; status 0 if even the head was not whole.
    Cut(u16),
    /// It is no HTTP, or nothing came for too long.
    Wrong(String),
}

impl End {
    /// As the menu names it.
    pub fn name(&self) -> String {
        match self {
            End::Whole(status) => status.to_string(),
            End::Cut(0) => "closed".to_owned(),
            End::Cut(status) => format!("{status} cut"),
            End::Wrong(why) => why.clone(),
        }
    }
}

impl Wire {
    /// Connects, over TLS if `tls` says how.
    ///
    /// # Errors
    /// The socket's; a handshake that fails.
    pub fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Wire> {
        let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let stream = match tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let name = ServerName::IpAddress(address.ip().into());
                let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                // With its ticket: to leave with something unread is to reset, and what was sent before might never be seen.
                while session.is_handshaking() || session.tls13_tickets_received() == 0 {
                    if session.complete_io(&mut socket)? == (0, 0) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Stream::Tls(Box::new(StreamOwned::new(session, socket)))
            }
        };
        Ok(Wire { stream, decoder: Decoder::new(), piece: vec![0; 16 << 10] })
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Reads an answer to its end, with `pause` before each read; `body` sees its bytes and says whether to go on.
    /// `None` if it said no.
    pub fn answer(&mut self, pause: Duration, mut body: impl FnMut(&[u8]) -> bool) -> Option<End> {
        self.decoder.reset();
        loop {
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read(&mut self.piece),
                Stream::Tls(stream) => stream.read(&mut self.piece),
            };
            let count = match read {
                Ok(0) if self.decoder.finish() => return Some(End::Whole(self.decoder.status)),
                Ok(0) => return Some(End::Cut(self.decoder.status)),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Some(End::Wrong("nothing came for a minute".to_owned()));
                }
                Err(_) => return Some(End::Cut(self.decoder.status)),
            };
            let mut goes_on = true;
            let taken = self.decoder.feed(&self.piece[..count], |bytes| goes_on &= body(bytes));
            match taken {
                Ok(taken) if taken < count => return Some(End::Wrong("bytes behind the answer".to_owned())),
                Ok(_) if self.decoder.is_done() => return Some(End::Whole(self.decoder.status)),
                Ok(_) if goes_on => {}
                Ok(_) => return None,
                Err(Malformed(why)) => return Some(End::Wrong(why.to_owned())),
            }
        }
    }

    /// True if it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// True if another request may follow.
    pub fn is_kept(&self) -> bool {
        self.decoder.is_done() && !self.decoder.close
    }
}
