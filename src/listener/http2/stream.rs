//! One request and its answer among the streams of a connection.
//!
//! The request is held as bytes: its head as HTTP/1.1 has it, then what has come of its body. What was asked for by
//! [`Stream::poll_fill`] is given back to the client's window when more is asked for: who does not read on holds its own
//! client up, and nobody else's. The last bytes of a body whose length was announced are not given out before the stream
//! has ended: if others follow, the request is malformed (RFC 9113 §8.1.1), and no provider may have taken it for whole.
//!
//! The answer is handed to the connection piece by piece; the connection sends what the client's windows allow. While
//! more than [`UNSENT_BYTES_MAX`] of it have not left, no more is taken, so that a client that does not read holds up its
//! own provider alone.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};

use super::super::client::Interrupt;
use crate::base::clock::Instant;
use crate::net::buf::Buffers;
use crate::net::duplex::{Home, Piece};
use crate::net::timer::Timer;
use crate::wire::http1::{Framing, Malformed};
use crate::wire::http2::{NOT_ONE_HEAD, OTHER_LENGTH, Pseudo, field_map, read_trailers, write_request};

/// What of one answer may wait for its client, in bytes, before no more is taken; a piece beyond it may be under way.
pub const UNSENT_BYTES_MAX: usize = 64 << 10;
/// How long a client has to take what was written last, or to end a request that was answered.
const LINGER: Duration = Duration::from_secs(2);

/// One stream: what comes on it, and what is sent.
pub struct Stream {
    /// The request.
    pub(in super::super) incoming: Incoming,
    /// The answer.
    pub(in super::super) outgoing: Outgoing,
    /// What may come of the body before it is asked for, in bytes.
    window: u32,
    /// Why the head was refused.
    fault: Option<Malformed>,
    /// True if no body was announced.
    bodiless: bool,
}

/// What comes on a stream: a head as HTTP/1.1 has it, and then a body.
pub struct Incoming {
    request: Vec<u8>,
    at: usize,
    body: RecvStream,
    /// Bytes of the body that were taken and not yet given back to the client's window.
    taken: usize,
    /// Bytes of the body that are still to come, where its length was announced.
    left: Option<u64>,
    /// The last of them, until the stream has ended.
    held: Bytes,
    /// True once all of the request has come.
    received: bool,
    trailers: Box<[u8]>,
    home: Rc<Home>,
}

/// What is sent on a stream.
pub struct Outgoing {
    respond: SendResponse<Piece>,
    /// There once the head of the answer was handed over.
    send: Option<SendStream<Piece>>,
    /// True once its end was.
    over: bool,
    status: StatusCode,
    /// Length of the head at the front of the next write.
    head: Option<usize>,
    /// True if the next write is the last.
    last: bool,
    trailers: Option<HeaderMap>,
    home: Rc<Home>,
}

impl Stream {
    /// Takes a request over, of whose body `window` bytes may come before more is asked for.
    pub(super) fn new(
        request: http::Request<RecvStream>,
        respond: SendResponse<Piece>,
        window: u32,
        buffers: &Rc<Buffers>,
    ) -> Stream {
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let mut head = buffers.take_little();
        let pseudo = Pseudo {
            method: parts.method.as_str(),
            scheme: parts.uri.scheme_str(),
            authority: parts.uri.authority().map(http::uri::Authority::as_str),
            path: parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
            protocol: parts.extensions.get().map(h2::ext::Protocol::as_str),
        };
        let lines = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let fault = write_request(&mut head, &pseudo, lines, ended).err();
        if fault.is_some() {
            head.clear();
        }
        let home = Home::new(buffers.clone());
        Stream {
            incoming: Incoming {
                request: head,
                at: 0,
                body,
                taken: 0,
                left: length,
                held: Bytes::new(),
                received: ended,
                trailers: Box::default(),
                home: home.clone(),
            },
            outgoing: Outgoing {
                respond,
                send: None,
                over: false,
                status: StatusCode::OK,
                head: None,
                last: false,
                trailers: None,
                home,
            },
            window,
            fault,
            bodiless: ended,
        }
    }

    /// Why there is no head.
    pub(in super::super) fn fault(&self) -> Malformed {
        self.fault.unwrap_or(NOT_ONE_HEAD)
    }

    /// How the body ends, by what its head as HTTP/1.1 says.
    pub(in super::super) fn framing(&self, written: Framing) -> Result<Framing, Malformed> {
        match written {
            Framing::Chunked => Ok(Framing::UntilClose),
            Framing::Length(1..) if self.bodiless => Err(OTHER_LENGTH),
            // That nothing comes is known when the stream ends.
            Framing::Length(0) if !self.bodiless => Ok(Framing::UntilClose),
            framing => Ok(framing),
        }
    }

    /// Ready once the client has given the stream up, its connection has ended, or `timer` has run out.
    pub(in super::super) fn poll_interrupt(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Poll<Interrupt> {
        if timer.poll_expired(cx) {
            return Poll::Ready(Interrupt::Deadline);
        }
        self.outgoing.poll_gone(cx).map(|()| Interrupt::ClientGone)
    }

    /// Waits until all that was handed over has left, or `until`; what has not left then is given up. If the request was
    /// answered before its end came, waits for that as well where it can come unasked: until then the client has a stream to
    /// end, and many take it for a failed request if there is none.
    pub(in super::super) async fn settle(&mut self, timer: &Timer, now: Instant, until: Instant) {
        if self.outgoing.home.unsent() > 0 {
            timer.set(until);
            poll_fn(|cx| match self.outgoing.home.poll_unsent(0, cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => self.poll_interrupt(timer, cx).map(drop),
            })
            .await;
        }
        if self.outgoing.home.unsent() > 0 {
            self.outgoing.reset();
            return;
        }
        // The client's window is opened again when half of it is used.
        if self.outgoing.over
            && !self.incoming.received
            && self.incoming.left.unwrap_or(0) <= u64::from(self.window / 2)
        {
            timer.set(now + LINGER);
            poll_fn(|cx| match self.incoming.poll_end(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => self.poll_interrupt(timer, cx).map(drop),
            })
            .await;
        }
    }

    /// Lets what was handed over leave; then, if the answer was not ended, says so.
    pub(in super::super) async fn linger(&mut self, timer: &Timer, now: Instant) {
        timer.set(now + LINGER);
        timer.keep();
        self.settle(timer, now, now + LINGER).await;
        if !self.outgoing.over {
            self.outgoing.reset();
        }
    }
}

impl Incoming {
    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.request[self.at..]
    }

    pub(in super::super) fn consume(&mut self, n: usize) {
        self.at += n;
        debug_assert!(self.at <= self.request.len());
        if self.at >= self.request.len() {
            self.home.give(std::mem::take(&mut self.request));
            self.at = 0;
        }
    }

    pub(in super::super) fn reserve(&mut self, more: usize) {
        self.request.reserve_exact(more);
    }

    /// More of the body: false at its end, now and ever after.
    pub(in super::super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.received {
            return Poll::Ready(Ok(false));
        }
        self.give_back()?;
        loop {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.taken += data.len();
                    if self.completes(data.len()) && !self.body.is_end_stream() {
                        self.held = data;
                        continue;
                    }
                    self.push(&data);
                    if self.body.is_end_stream() {
                        self.give_back()?;
                    }
                    return Poll::Ready(Ok(true));
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(io::Error::other)?;
                    if let Some(trailers) = trailers {
                        self.trailers = read_trailers(&trailers).map_err(io::Error::other)?.into();
                    }
                    self.received = true;
                    self.give_back()?;
                    let held = std::mem::take(&mut self.held);
                    self.push(&held);
                    return Poll::Ready(Ok(!held.is_empty()));
                }
            }
        }
    }

    /// Field lines behind the request's body.
    pub(in super::super) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Opens the client's windows again by what was taken.
    fn give_back(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.taken) {
            0 => Ok(()),
            taken => self.body.flow_control().release_capacity(taken).map_err(io::Error::other),
        }
    }

    /// Counts bytes of the body; true if they are the last of those that were announced. The library takes no more.
    fn completes(&mut self, len: usize) -> bool {
        self.left = self.left.map(|left| left.saturating_sub(len as u64));
        self.left == Some(0)
    }

    fn push(&mut self, data: &[u8]) {
        if self.at > 0 && self.request.len() + data.len() > self.request.capacity() {
            self.request.drain(..self.at);
            self.at = 0;
        }
        self.request.extend_from_slice(data);
    }

    /// Ready once the request has ended; what comes of it is dropped, and no more is asked for.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.received {
            let data = ready!(self.body.poll_data(cx));
            self.received = !matches!(data, Some(Ok(_)));
        }
        Poll::Ready(())
    }
}

impl Outgoing {
    /// Ready once the client has given the stream up, or its connection has ended.
    pub(in super::super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.send {
            None => self.respond.poll_reset(cx),
            Some(send) => send.poll_reset(cx),
        };
        reset.map(drop)
    }

    pub(in super::super) fn say_interim(&mut self, status: u16, lines: &[u8]) -> Result<(), Interrupt> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::CONTINUE);
        *response.headers_mut() = field_map(lines);
        self.respond.send_informational(response).map_err(|_| Interrupt::ClientGone)
    }

    pub(in super::super) fn begin_head(&mut self, status: u16) {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    }

    pub(in super::super) fn end_head(&mut self, len: usize) {
        self.head = Some(len);
    }

    pub(in super::super) fn end_with_next(&mut self) {
        self.last = true;
    }

    pub(in super::super) fn set_trailers(&mut self, lines: &[u8]) {
        if !lines.is_empty() {
            self.trailers = Some(field_map(lines));
        }
    }

    /// True if another piece is taken.
    pub(in super::super) fn has_room(&self) -> bool {
        self.home.unsent() < UNSENT_BYTES_MAX
    }

    /// Ready once all that was handed over has left.
    ///
    /// # Errors
    /// The client did not take all of it.
    pub(in super::super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<Result<(), Interrupt>> {
        ready!(self.home.poll_unsent(0, cx));
        Poll::Ready(if self.home.is_lost() { Err(Interrupt::ClientGone) } else { Ok(()) })
    }

    /// Ready once another piece is taken.
    pub(in super::super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.home.poll_unsent(UNSENT_BYTES_MAX - 1, cx)
    }

    /// Hands `bytes` to the connection: a head if one was ended in them, then a part of the body.
    ///
    /// # Errors
    /// The client is gone.
    pub(in super::super) fn send(&mut self, bytes: Vec<u8>) -> Result<(), Interrupt> {
        let head = self.head.take().unwrap_or(0);
        let trailers = self.trailers.take_if(|_| self.last);
        let has_body = bytes.len() > head;
        let ends = self.last && trailers.is_none();
        if self.send.is_none() {
            let mut response = Response::new(());
            *response.status_mut() = self.status;
            *response.headers_mut() = field_map(&bytes[..head]);
            self.over = ends && !has_body;
            self.send = Some(self.respond.send_response(response, self.over).map_err(|_| Interrupt::ClientGone)?);
        }
        let Some(send) = self.send.as_mut().filter(|_| !self.over) else {
            self.home.give(bytes);
            return Ok(());
        };
        if has_body || ends {
            send.send_data(self.home.piece(bytes, head), ends).map_err(|_| Interrupt::ClientGone)?;
        }
        if let Some(trailers) = trailers {
            send.send_trailers(trailers).map_err(|_| Interrupt::ClientGone)?;
        }
        self.over = self.last;
        Ok(())
    }

    /// Gives the stream up.
    pub(in super::super) fn reset(&mut self) {
        self.respond.send_reset(Reason::INTERNAL_ERROR);
    }
}
