//! A connection in use by one exchange, whichever HTTP its endpoint speaks: bytes of a request go in, bytes of an answer
//! come out, a head as HTTP/1.1 has it and then the body.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::http1::{Ahead, Ask, poll_answer};
use super::http2::Exchange;
use super::{Place, Slot};
use crate::net::stream::Stream;
use crate::wire::http1::HeadLimits;

/// A connection to an endpoint, in use by one exchange. It is large, and handed on more than once in each exchange: so it is
/// made in a box, and stays in it.
pub struct Connection {
    pub(super) carrier: Carrier,
    /// True if it had carried an exchange before.
    pub reused: bool,
    /// What came of an answer while the request was still being sent.
    pub(super) ahead: Ahead,
    pub(super) slot: Rc<Slot>,
}

/// What carries the exchange.
pub(super) enum Carrier {
    /// A connection of its own, to this address.
    Http1 { stream: Stream, peer: IpAddr, _place: Place },
    /// A stream among others.
    Http2(Exchange),
}

impl Carrier {
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Carrier::Http1 { stream, .. } => stream.input.bytes(),
            Carrier::Http2(exchange) => exchange.bytes(),
        }
    }
}

/// What answers come from.
pub(super) trait Source {
    fn bytes(&self) -> &[u8];
    fn consume(&mut self, n: usize);
    fn is_eof(&self) -> bool;
    fn poll_news(&mut self, cx: &mut Context<'_>, known: usize) -> bool;
}

impl Source for crate::net::stream::Input {
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }
    fn consume(&mut self, n: usize) {
        self.consume(n);
    }
    fn is_eof(&self) -> bool {
        self.is_eof()
    }
    fn poll_news(&mut self, cx: &mut Context<'_>, known: usize) -> bool {
        self.poll_news(cx, known)
    }
}

impl Source for Exchange {
    fn bytes(&self) -> &[u8] {
        self.bytes()
    }
    fn consume(&mut self, n: usize) {
        self.consume(n);
    }
    fn is_eof(&self) -> bool {
        self.is_eof()
    }
    fn poll_news(&mut self, cx: &mut Context<'_>, known: usize) -> bool {
        self.poll_news(cx, known)
    }
}

impl Drop for Connection {
    /// Closed here and now, whatever was under way: a provider that goes on generating goes on billing.
    fn drop(&mut self) {
        self.abort();
    }
}

impl Connection {
    /// A place on a connection that carries others; `reused` if it had carried an exchange before.
    pub(super) fn on_link(slot: &Rc<Slot>, exchange: Exchange, reused: bool) -> Box<Connection> {
        let carrier = Carrier::Http2(exchange);
        Box::new(Connection { carrier, reused, ahead: Ahead::default(), slot: slot.clone() })
    }

    /// A connection of its own, with nothing on it yet.
    pub(super) fn alone(slot: &Rc<Slot>, mut stream: Stream, peer: IpAddr, place: Place) -> Box<Connection> {
        stream.input.expect_little();
        let carrier = Carrier::Http1 { stream, peer, _place: place };
        Box::new(Connection { carrier, reused: false, ahead: Ahead::default(), slot: slot.clone() })
    }

    /// What is below it, if it is of its own.
    pub fn stream(&mut self) -> Option<&mut Stream> {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => Some(stream),
            Carrier::Http2(_) => None,
        }
    }

    /// The address at its other end, if it is of its own.
    pub(super) fn peer(&self) -> Option<IpAddr> {
        match &self.carrier {
            Carrier::Http1 { peer, .. } => Some(*peer),
            Carrier::Http2(_) => None,
        }
    }

    /// True for one of its own on which nothing has come, not even its end.
    pub(super) fn is_quiet(&mut self) -> bool {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => stream.input.is_quiet(),
            Carrier::Http2(_) => false,
        }
    }

    /// The endpoint of this connection.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// True for a stream of a connection that carries others.
    #[inline]
    pub fn is_http2(&self) -> bool {
        matches!(self.carrier, Carrier::Http2(_))
    }

    /// Begins a request in `out`, which is empty: its head.
    ///
    /// # Errors
    /// The target holds a byte that cannot be sent.
    pub fn begin_request(&mut self, out: &mut Vec<u8>, ask: &Ask<'_>) -> Result<(), &'static str> {
        self.slot.write_head(out, ask)?;
        match &mut self.carrier {
            Carrier::Http1 { .. } => Ok(()),
            Carrier::Http2(exchange) => exchange.begin(out),
        }
    }

    /// Field lines behind the request's body, which is still to end, where they are no part of it.
    pub fn set_trailers(&mut self, lines: &[u8]) {
        if let Carrier::Http2(exchange) = &mut self.carrier {
            exchange.set_trailers(lines);
        }
    }

    /// Field lines behind the answer's body, once it has ended, where they are no part of it.
    pub fn trailers(&self) -> &[u8] {
        match &self.carrier {
            Carrier::Http1 { .. } => &[],
            Carrier::Http2(exchange) => exchange.trailers(),
        }
    }

    /// Says that the next write is the request's last.
    pub fn end_with_next(&mut self) {
        if let Carrier::Http2(exchange) = &mut self.carrier {
            exchange.end_with_next();
        }
    }

    /// Writes `bytes` and gives the buffer back; `None` if `early` and an answer began meanwhile, which ends the writing.
    pub async fn write(
        &mut self,
        bytes: Vec<u8>,
        limits: &HeadLimits,
        early: bool,
    ) -> Option<(io::Result<()>, Vec<u8>)> {
        let Connection { carrier, ahead, .. } = self;
        match carrier {
            Carrier::Http1 { stream, .. } => {
                let Stream { input, output, .. } = stream;
                let mut write = pin!(output.write(bytes));
                poll_fn(|cx| match write.as_mut().poll(cx) {
                    Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                    Poll::Pending if early && poll_answer(input, ahead, limits, cx) => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                })
                .await
            }
            Carrier::Http2(exchange) => {
                let has_room = poll_fn(|cx| match exchange.poll_room(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending if early && poll_answer(exchange, ahead, limits, cx) => Poll::Ready(false),
                    Poll::Pending => Poll::Pending,
                })
                .await;
                has_room.then(|| (exchange.send(bytes), Vec::new()))
            }
        }
    }

    /// Writes what is taken of `bytes` at once; `None` if that was all. See
    /// [`Output::write_now`](crate::net::stream::Output::write_now).
    ///
    /// # Errors
    /// The connection's.
    pub fn write_now(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => stream.output.write_now(bytes),
            Carrier::Http2(exchange) => exchange.send(std::mem::take(bytes)).map(|()| None),
        }
    }

    /// True once an answer, or the connection's end, has begun to come while the request is still being sent.
    pub fn poll_early(&mut self, limits: &HeadLimits, cx: &mut Context<'_>) -> bool {
        let Connection { carrier, ahead, .. } = self;
        match carrier {
            Carrier::Http1 { stream, .. } => poll_answer(&mut stream.input, ahead, limits, cx),
            Carrier::Http2(exchange) => poll_answer(exchange, ahead, limits, cx),
        }
    }

    /// True if [`Connection::poll_early`] has found more interim answers than may come.
    pub fn is_flooding(&self) -> bool {
        self.ahead.is_flooded()
    }

    /// Says whether what comes may be read in large pieces: a stream of events may stand still with one.
    pub fn allow_bulk(&mut self, bulk: bool) {
        if let Carrier::Http1 { stream, .. } = &mut self.carrier {
            stream.input.allow_bulk(bulk);
        }
    }

    /// What has come of the answer and was not consumed.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.carrier.bytes()
    }

    /// Forgets the first `n` of [`Connection::bytes`].
    #[inline]
    pub fn consume(&mut self, n: usize) {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => stream.input.consume(n),
            Carrier::Http2(exchange) => exchange.consume(n),
        }
    }

    /// Waits for more of the answer: false at its end, or the connection's.
    ///
    /// # Errors
    /// The connection's.
    pub async fn fill(&mut self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// As [`Connection::fill`].
    ///
    /// # Errors
    /// The connection's.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => stream.input.poll_fill(cx),
            Carrier::Http2(exchange) => exchange.poll_fill(cx),
        }
    }

    /// True if the end of the exchange comes by itself behind its answer: one that is dropped before would be cancelled.
    pub fn is_to_end(&self) -> bool {
        matches!(&self.carrier, Carrier::Http2(exchange) if exchange.is_to_end())
    }

    /// Lets the kernel work on the next read while the caller does something else.
    pub fn arm(&mut self, cx: &mut Context<'_>) {
        if let Carrier::Http1 { stream, .. } = &mut self.carrier {
            stream.input.arm(cx);
        }
    }

    /// Ends the exchange at once, even while something is under way.
    pub fn abort(&mut self) {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => stream.socket.abort(),
            Carrier::Http2(exchange) => exchange.reset(),
        }
    }

    /// As [`Connection::abort`], so that nothing is left that the kernel would go on sending.
    pub fn reset(&mut self) {
        match &mut self.carrier {
            Carrier::Http1 { stream, .. } => stream.socket.reset(),
            Carrier::Http2(exchange) => exchange.reset(),
        }
    }

    /// True if the connection had carried others before and may have been closed under this one: it was stale.
    pub(super) fn may_be_stale(&self) -> bool {
        match &self.carrier {
            Carrier::Http1 { .. } => self.reused,
            Carrier::Http2(exchange) => exchange.is_unheard(),
        }
    }

    /// Once the endpoint has said that it did nothing for this request: whether with the end of the connection.
    pub(super) fn refused(&self) -> Option<bool> {
        match &self.carrier {
            Carrier::Http1 { .. } => None,
            Carrier::Http2(exchange) => exchange.refused(),
        }
    }
}
