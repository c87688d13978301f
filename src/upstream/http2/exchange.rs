//! One request and its answer among the streams of a connection to an endpoint.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, Uri};

use super::{Link, Member, SILENT, UNSENT_BYTES_MAX};
use crate::base::clock::Instant;
use crate::net::duplex::{Home, Piece};
use crate::wire::http1::Malformed;
use crate::wire::http2::{field_map, fields, read_trailers, write_response};

/// One exchange.
pub struct Exchange {
    link: Rc<Link>,
    /// The head, until the first write.
    request: Option<Box<Request<()>>>,
    /// Length of the head at the front of the first write.
    head: usize,
    /// True if the next write is the request's last.
    last: bool,
    trailers: Option<HeaderMap>,
    send: Option<SendStream<Piece>>,
    /// True once all of the request was handed over.
    sent: bool,
    /// True once its endpoint has shown that it wants no more of it.
    unwanted: bool,
    /// When the request was begun.
    begun: Instant,
    answer: Vec<u8>,
    at: usize,
    coming: Coming,
    /// Bytes of the body that were taken and not yet given back to the endpoint's window.
    taken: usize,
    /// Field lines behind the body, whole.
    answer_trailers: Vec<u8>,
    /// Once the endpoint has said that it did nothing for this request: whether with the end of the connection.
    refused: Option<bool>,
    home: Rc<Home>,
    _member: Member,
}

/// How much of the answer has come.
enum Coming {
    /// The request was not begun.
    Unasked,
    Head(ResponseFuture),
    Body(RecvStream),
    /// Its body has ended.
    Trailers(RecvStream),
    Over,
    /// An error that is still to be told.
    Failed(io::Error),
}

impl Exchange {
    /// One that is to be begun on `link`.
    pub(super) fn new(link: Rc<Link>, member: Member, home: Rc<Home>) -> Exchange {
        Exchange {
            link,
            request: None,
            head: 0,
            last: false,
            trailers: None,
            send: None,
            sent: false,
            unwanted: false,
            begun: Instant::NEVER,
            answer: Vec::new(),
            at: 0,
            coming: Coming::Unasked,
            taken: 0,
            answer_trailers: Vec::new(),
            refused: None,
            home,
            _member: member,
        }
    }

    pub(in super::super) fn bytes(&self) -> &[u8] {
        &self.answer[self.at..]
    }

    pub(in super::super) fn consume(&mut self, n: usize) {
        self.at += n;
        debug_assert!(self.at <= self.answer.len());
        if self.at >= self.answer.len() {
            self.home.give(std::mem::take(&mut self.answer));
            self.at = 0;
        }
    }

    pub(in super::super) fn is_eof(&self) -> bool {
        matches!(self.coming, Coming::Over | Coming::Failed(_))
    }

    /// True if all of the answer may be here, and its end is still to come.
    pub(in super::super) fn is_to_end(&self) -> bool {
        match &self.coming {
            Coming::Body(body) => !body.is_end_stream(),
            Coming::Trailers(_) => true,
            _ => false,
        }
    }

    pub(in super::super) fn refused(&self) -> Option<bool> {
        self.refused
    }

    /// True if the connection had carried others, and nothing has come of it since this request was begun: it may have been
    /// stale.
    pub(in super::super) fn is_unheard(&self) -> bool {
        let state = &self.link.state;
        // One that was given up was not closed under us: it may be at work.
        state.begun.get() > 1 && !state.given_up.get() && self.has_heard_nothing()
    }

    fn has_heard_nothing(&self) -> bool {
        self.link.state.heard.get().is_none_or(|heard| heard < self.begun)
    }

    /// Field lines behind the body, once it has ended.
    pub(in super::super) fn trailers(&self) -> &[u8] {
        &self.answer_trailers
    }

    /// More of the answer: its head, an interim one, or what comes of its body; false at its end, now and ever after.
    pub(in super::super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match &mut self.coming {
                Coming::Unasked => return Poll::Pending,
                Coming::Over => return Poll::Ready(Ok(false)),
                Coming::Failed(_) => {
                    let Coming::Failed(error) = std::mem::replace(&mut self.coming, Coming::Over) else { continue };
                    return Poll::Ready(Err(error));
                }
                Coming::Head(head) => {
                    if let Poll::Ready(Some(interim)) = head.poll_informational(cx) {
                        match interim {
                            Ok(interim) => return Poll::Ready(self.write_head(&interim).map(|()| true)),
                            Err(error) => return Poll::Ready(Err(self.fail(error))),
                        }
                    }
                    match ready!(std::pin::Pin::new(head).poll(cx)) {
                        Ok(response) => {
                            let (parts, body) = response.into_parts();
                            self.coming = Coming::Body(body);
                            let head = Response::from_parts(parts, ());
                            return Poll::Ready(self.write_head(&head).map(|()| true));
                        }
                        Err(error) => return Poll::Ready(Err(self.fail(error))),
                    }
                }
                Coming::Body(body) => {
                    let taken = std::mem::take(&mut self.taken);
                    if taken > 0 {
                        body.flow_control().release_capacity(taken).map_err(io::Error::other)?;
                    }
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(data)) if data.is_empty() => {}
                        Some(Ok(data)) => {
                            self.taken = data.len();
                            self.push(&data);
                            return Poll::Ready(Ok(true));
                        }
                        Some(Err(error)) => return Poll::Ready(Err(self.fail(error))),
                        None => {
                            let Coming::Body(body) = std::mem::replace(&mut self.coming, Coming::Over) else {
                                continue;
                            };
                            self.coming = Coming::Trailers(body);
                        }
                    }
                }
                Coming::Trailers(body) => match ready!(body.poll_trailers(cx)) {
                    Ok(trailers) => {
                        self.coming = Coming::Over;
                        self.answer_trailers = trailers
                            .as_ref()
                            .map_or(Ok(Vec::new()), read_trailers)
                            .map_err(|malformed| self.refuse(malformed))?;
                    }
                    Err(error) => return Poll::Ready(Err(self.fail(error))),
                },
            }
        }
    }

    /// True if more than `known` bytes are here, or the end, or an error, which is kept for the next
    /// [`Exchange::poll_fill`].
    pub(in super::super) fn poll_news(&mut self, cx: &mut Context<'_>, known: usize) -> bool {
        while self.bytes().len() <= known && !self.is_eof() {
            match self.poll_fill(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => self.coming = Coming::Failed(error),
            }
        }
        true
    }

    fn push(&mut self, data: &[u8]) {
        if self.at > 0 && self.answer.len() + data.len() > self.answer.capacity() {
            self.answer.drain(..self.at);
            self.at = 0;
        }
        self.answer.extend_from_slice(data);
    }

    fn write_head(&mut self, head: &Response<()>) -> io::Result<()> {
        let mut text = Vec::with_capacity(512);
        let lines = head.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        write_response(&mut text, head.status().as_u16(), lines).map_err(|malformed| self.refuse(malformed))?;
        self.push(&text);
        Ok(())
    }

    fn fail(&mut self, error: h2::Error) -> io::Error {
        self.coming = Coming::Over;
        // Neither has been looked at: the one was refused, the other begun after the last that counts (RFC 9113 §8.7).
        let refused = error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote() && (refused || error.is_go_away()) {
            // Graceful, and not for this request alone.
            let is_graceful = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
            self.refused = Some(is_graceful && self.link.state.begun.get() > 1);
        }
        if self.link.state.foreign.get() {
            return io::Error::new(io::ErrorKind::InvalidData, "it answers in HTTP/1, not in HTTP/2");
        }
        if let Some(fault) = self.link.state.fault.get() {
            return io::Error::new(io::ErrorKind::InvalidData, fault);
        }
        if error.is_io() {
            return error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
        }
        io::Error::other(error)
    }

    /// Takes over the head of the request, which is at the front of the first write.
    ///
    /// # Errors
    /// It cannot be said in HTTP/2.
    pub(in super::super) fn begin(&mut self, head: &[u8]) -> Result<(), &'static str> {
        let request = self.link.request(head).ok_or("the request target holds a byte that HTTP/2 has no place for")?;
        (self.request, self.head) = (Some(Box::new(request)), head.len());
        Ok(())
    }

    /// Says that the next write is the request's last.
    pub(in super::super) fn end_with_next(&mut self) {
        self.last = true;
    }

    /// Field lines behind the request's body, which is still to end.
    pub(in super::super) fn set_trailers(&mut self, lines: &[u8]) {
        self.trailers = (!lines.is_empty()).then(|| field_map(lines));
    }

    /// Ready once another piece is taken.
    pub(in super::super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.home.poll_unsent(UNSENT_BYTES_MAX - 1, cx)
    }

    /// Hands `bytes` to the connection: the head if it is the first write, then a part of the body.
    ///
    /// # Errors
    /// The connection takes no more, or the endpoint; [`Exchange::poll_fill`] tells why.
    pub(in super::super) fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.hand_over(bytes).map_err(|error| {
            let error = self.fail(error);
            let kind = error.kind();
            self.coming = Coming::Failed(error);
            io::Error::from(kind)
        })?;
        if self.unwanted { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn hand_over(&mut self, bytes: Vec<u8>) -> Result<(), h2::Error> {
        let head = std::mem::take(&mut self.head);
        let has_body = bytes.len() > head;
        let trailers = self.trailers.take_if(|_| self.last);
        let ends = self.last && trailers.is_none();
        if let Some(request) = self.request.take() {
            self.begun = self.link.state.clock.now();
            let over = ends && !has_body;
            let (answer, send) = self.link.requests.clone().send_request(*request, over)?;
            self.coming = Coming::Head(answer);
            self.send = Some(send);
            self.sent = over;
            if over {
                self.home.give(bytes);
                return Ok(());
            }
        }
        let Some(send) = &mut self.send else { return Ok(()) };
        let mut sent = Ok(());
        if has_body || ends {
            sent = send.send_data(self.home.piece(bytes, head), ends);
        }
        if let (Ok(()), Some(trailers)) = (&sent, trailers) {
            sent = send.send_trailers(trailers);
        }
        self.sent = sent.is_ok() && self.last;
        if sent.is_err() {
            // Its endpoint wants no more of it. Why, the answer tells, which may have come whole (RFC 9113 §8.1).
            (self.send, self.unwanted) = (None, true);
        }
        Ok(())
    }

    /// Ends the exchange for what its endpoint has said, and tells it so (RFC 9113 §8.1.1).
    fn refuse(&mut self, malformed: Malformed) -> io::Error {
        self.end(Reason::PROTOCOL_ERROR);
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }

    /// Gives the exchange up. If nothing at all has come since it was begun, which is a while ago, others are to go elsewhere.
    pub(in super::super) fn reset(&mut self) {
        let state = &self.link.state;
        let is_coming = !matches!(self.coming, Coming::Unasked | Coming::Over);
        if is_coming && self.has_heard_nothing() && state.clock.now() - self.begun >= SILENT {
            self.link.let_go();
        }
        // The library remembers for a while what it has reset, which is not needed of what has ended.
        if self.is_complete() {
            (self.send, self.coming) = (None, Coming::Over);
            return;
        }
        state.given_up_on.set(state.given_up_on.get() + u32::from(is_coming));
        self.end(Reason::CANCEL);
    }

    /// True if both sides have ended well.
    fn is_complete(&self) -> bool {
        let has_ended = matches!(&self.coming, Coming::Body(body) if body.is_end_stream());
        self.sent && self.home.unsent() == 0 && has_ended
    }

    fn end(&mut self, reason: Reason) {
        if let Some(mut send) = self.send.take() {
            send.send_reset(reason);
        }
        // Dropped, the library resets what is still to come.
        self.coming = Coming::Over;
    }
}

impl Link {
    /// The request of a head that we wrote.
    fn request(&self, head: &[u8]) -> Option<Request<()>> {
        let line_end = memchr::memchr(b'\n', head)?;
        let (line, lines) = head.split_at(line_end + 1);
        let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
        let (method, target) = (words.next()?, words.next()?);
        let authority = fields(lines).find(|(name, _)| name.eq_ignore_ascii_case(b"host"))?.1;
        let uri =
            Uri::builder().scheme(self.scheme.clone()).authority(authority).path_and_query(target).build().ok()?;
        // A part of it may have been taken for something else.
        uri.path_and_query().filter(|sent| sent.as_str().as_bytes() == target)?;
        let mut headers: HeaderMap = field_map(lines);
        headers.remove(http::header::HOST);
        let mut request = Request::new(());
        *request.method_mut() = http::Method::from_bytes(method).ok()?;
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = headers;
        Some(request)
    }
}
