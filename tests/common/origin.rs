//! A provider played by hand: the test itself accepts, reads and answers, so that what comes first is decided by the
//! order of its lines and not by a clock.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
use rustls::{ServerConfig, ServerConnection};

use super::PATIENCE;
use super::http2::Http2;

/// Where the played provider listens.
pub struct Origin {
    listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

/// One connection to the played provider.
pub struct Peer {
    stream: TcpStream,
    /// Of one that was made secure; rustls' own, which shares no code with the gateway's.
    session: Option<Box<ServerConnection>>,
    buffer: Vec<u8>,
}

/// A request as the provider sees it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `POST /v1/chat/completions HTTP/1.1`
    pub line: String,
    /// Names in lower case, values trimmed, in order.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// Trailers of a chunked body, as they came.
    pub trailers: String,
}

/// How the gateway ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// FIN.
    Fin,
    /// RST.
    Rst,
}

impl From<TcpListener> for Origin {
    fn from(listener: TcpListener) -> Origin {
        let address = listener.local_addr().expect("its address");
        Origin { listener, address }
    }
}

impl Origin {
    /// Listens on a free port.
    pub fn start() -> Origin {
        Origin::from(TcpListener::bind("127.0.0.1:0").expect("a free port"))
    }

    /// The URL that takes the place of a client's `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The gateway's next connection.
    pub fn accept(&self) -> Peer {
        assert!(is_readable(&self.listener, PATIENCE.as_millis() as u16), "the gateway does not connect");
        self.accept_some_time()
    }

    /// As [`Origin::accept`], but the connection may come at any time, or never.
    pub fn accept_some_time(&self) -> Peer {
        Peer::new(self.listener.accept().expect("a connection").0)
    }

    /// Hands every connection to `serve`, on a thread of its own, for as long as the test runs.
    pub fn serve(self, serve: impl Fn(Peer) + Send + Sync + 'static) {
        let serve = std::sync::Arc::new(serve);
        std::thread::spawn(move || {
            loop {
                let (peer, serve) = (self.accept_some_time(), std::sync::Arc::clone(&serve));
                std::thread::spawn(move || serve(peer));
            }
        });
    }

    /// As [`Origin::accept`], of HTTP/2 with these settings.
    pub fn accept_http2(&self, settings: &[(u16, u32)]) -> Http2 {
        let Peer { stream, .. } = self.accept();
        Http2::serve(stream, PATIENCE, settings)
    }

    /// True if no connection waits to be accepted.
    pub fn is_left_alone(&self) -> bool {
        !is_readable(&self.listener, 0)
    }
}

/// A listening socket whose queue is full: what comes is dropped without a word.
pub struct BlackHole {
    /// Where connections get lost.
    pub address: SocketAddr,
    _queued: Vec<TcpStream>,
    _listener: std::os::fd::OwnedFd,
}

impl BlackHole {
    /// One on a free port.
    pub fn new() -> BlackHole {
        let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        bind(listener.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
        listen(&listener, Backlog::new(0).expect("no queue")).expect("listening");
        let address: SockaddrIn = getsockname(listener.as_raw_fd()).expect("its address");
        let address = SocketAddr::from(SocketAddrV4::from(address));
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(stream);
        }
        BlackHole { address, _queued: queued, _listener: listener }
    }
}

fn is_readable(socket: &impl AsFd, within_ms: u16) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(within_ms)).expect("poll") > 0
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        Peer { stream, session: None, buffer: Vec::new() }
    }

    /// Shakes hands as `config` says. What is sent from here on is sealed, and dropping it is a FIN without close_notify.
    pub fn secure(mut self, config: &Arc<ServerConfig>) -> Peer {
        let mut session = ServerConnection::new(Arc::clone(config)).expect("a session");
        while session.is_handshaking() {
            session.complete_io(&mut self.stream).expect("a handshake");
        }
        // However long what is sealed at once.
        session.set_buffer_limit(None);
        self.session = Some(Box::new(session));
        self
    }

    /// The application protocol that was agreed on.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.as_ref().expect("a secure connection").alpn_protocol()
    }

    /// What sending `bytes` would put on the wire, records and all; it counts as sent.
    pub fn sealed(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        let session = self.session.as_mut().expect("a secure connection");
        session.writer().write_all(bytes.as_ref()).expect("room");
        let mut records = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut records).expect("room");
        }
        records
    }

    /// Says that nothing follows, as TLS does.
    pub fn close_notify(&mut self) -> &mut Peer {
        self.session.as_mut().expect("a secure connection").send_close_notify();
        self.send("")
    }

    /// The socket, for what is not offered here.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads a request's head and leaves its body.
    pub fn head(&mut self) -> Request {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            assert!(self.fill(), "ended within a head: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let text = String::from_utf8(self.buffer.drain(..end + 4).collect()).expect("a head in UTF-8");
        let mut lines = text[..end].split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Request { line, headers: headers.collect(), body: Vec::new(), trailers: String::new() }
    }

    /// Reads a whole request.
    pub fn request(&mut self) -> Request {
        let mut request = self.head();
        if request.get("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line();
                let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
                if size == 0 {
                    break;
                }
                let chunk = self.take(size + 2);
                assert!(chunk.ends_with(b"\r\n"), "{line}: {chunk:?}");
                request.body.extend_from_slice(&chunk[..size]);
            }
            loop {
                match self.line() {
                    line if line.is_empty() => break,
                    line => request.trailers += &(line + "\n"),
                }
            }
        } else if let Some(length) = request.get("content-length") {
            let length = length.parse().expect("a length");
            request.body = self.take(length);
        }
        request
    }

    /// The next request, whenever it comes; `None` if the connection ends instead.
    pub fn next_request(&mut self) -> Option<Request> {
        self.stream.set_read_timeout(None).expect("no read timeout");
        let comes = !self.buffer.is_empty() || matches!(self.stream.peek(&mut [0]), Ok(1..));
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        comes.then(|| self.request())
    }

    /// Waits until something can be read, which is left unread.
    pub fn until_readable(&self) {
        assert!(is_readable(&self.stream, PATIENCE.as_millis() as u16), "the gateway sends nothing");
    }

    /// Waits until the gateway resets the connection, without reading anything of what it has sent.
    ///
    /// # Panics
    /// If it does not.
    pub fn until_reset(&self) {
        // Asked for nothing, the kernel tells of errors alone.
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let patience = PollTimeout::from(PATIENCE.as_millis() as u16);
        assert!(poll(&mut fds, patience).expect("poll") > 0, "the gateway does not reset the connection");
        assert!(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)), "{:?}", fds[0].revents());
    }

    /// True if the gateway has neither sent anything nor ended the connection.
    pub fn is_quiet(&self) -> bool {
        self.buffer.is_empty() && !is_readable(&self.stream, 0)
    }

    /// Sends a FIN; the gateway can still be read.
    pub fn half_close(&mut self) -> &mut Peer {
        self.stream.shutdown(Shutdown::Write).expect("open");
        self
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Peer {
        self.write(bytes.as_ref()).expect("the gateway reads");
        self
    }

    /// Sends bytes as they are; false if the gateway has closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write(bytes.as_ref()).is_ok()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some(session) = &mut self.session else { return self.stream.write_all(bytes) };
        let mut stream = rustls::Stream::new(&mut **session, &mut self.stream);
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Begins an event stream in chunks.
    pub fn begin_stream(&mut self) -> &mut Peer {
        self.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    }

    /// Sends a chunk.
    pub fn chunk(&mut self, data: impl AsRef<[u8]>) -> &mut Peer {
        let data = data.as_ref();
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        self.send(bytes)
    }

    /// Answers with JSON on a connection that is kept.
    pub fn answer(&mut self, json: &str) -> &mut Peer {
        let length = json.len();
        self.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
        ))
    }

    /// Waits until the gateway ends the connection, throwing away what still comes.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self) -> Ended {
        let mut rest = [0; 64 << 10];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return Ended::Fin,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the gateway keeps the connection open")
                }
                Err(_) => return Ended::Rst,
            }
        }
    }

    /// Ends the connection with an RST.
    pub fn reset(self) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &linger).expect("SO_LINGER");
    }

    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.fill(), "ended within a line: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Reads so many bytes as they are.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "ended after {} of {count} bytes", self.buffer.len());
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads until `enough` has come: all that was not read yet.
    pub fn take_until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        while !enough(&self.buffer) {
            assert!(self.fill(), "ended after {} bytes", self.buffer.len());
        }
        std::mem::take(&mut self.buffer)
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 << 10];
        let count = match &mut self.session {
            Some(session) => rustls::Stream::new(&mut **session, &mut self.stream).read(&mut piece),
            None => self.stream.read(&mut piece),
        };
        let count = count.unwrap_or_else(|error| panic!("reading the request: {error}"));
        self.buffer.extend_from_slice(&piece[..count]);
        count > 0
    }
}

impl Request {
    /// The first value of `name` (in lower case).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A chat chunk with content, as an event.
pub fn content(text: &str) -> String {
    format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
}

/// A chat chunk with a role and no content, as an event.
pub const ROLE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";

/// A chat chunk with a reason for finishing, as an event.
pub const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

/// The end of a chat stream, as an event.
pub const DONE: &str = "data: [DONE]\n\n";

/// A delta of Anthropic's with text, as an event.
pub fn delta(text: &str) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
         \"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    )
}

/// The beginning of an Anthropic stream, as an event.
pub const START: &str =
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3}}}\n\n";

/// A sign of life in an Anthropic stream, as an event.
pub const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// The end of an Anthropic stream, as an event.
pub const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Answers every request on `stream` with the JSON `body`, up to its end; with the first only, unless `keep`.
pub fn serve(stream: TcpStream, body: &str, keep: bool) {
    let mut peer = Peer::new(stream);
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!("content-type: application/json\r\nconnection: {connection}\r\ncontent-length: {}", body.len());
    while peer.next_request().is_some() {
        if !peer.try_send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")) || !keep {
            return;
        }
    }
}
