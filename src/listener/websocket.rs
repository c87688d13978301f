//! An upgraded connection: bytes both ways, each way for itself.
//!
//! Not here: what the bytes mean (`wire::websocket`), and where they go (`worker`).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use super::client::{Carrier, Client};
use super::http2::{Incoming, Outgoing};
use crate::net::buf::Buffers;
use crate::net::socket::Socket;
use crate::net::stream::{Input, Output, Stream};
use crate::net::timer::Timer;

/// What a peer sends.
pub enum Receiving<'c> {
    /// On a connection of its own.
    Http1 {
        /// The half that reads.
        input: &'c mut Input,
        /// The socket below.
        socket: &'c Socket,
    },
    /// On a stream among others.
    Http2(&'c mut Incoming),
}

/// What a peer is sent.
pub enum Sending<'c> {
    /// On a connection of its own.
    Http1(&'c mut Output),
    /// On a stream among others.
    Http2(&'c mut Outgoing),
}

/// Both halves of a connection on which little is expected at a time, with long pauses.
pub fn halves(stream: &mut Stream) -> (Receiving<'_>, Sending<'_>) {
    let Stream { input, output, socket } = stream;
    input.expect_little();
    input.allow_rest();
    (Receiving::Http1 { input, socket }, Sending::Http1(output))
}

impl Client {
    /// Both halves of what the client's exchange goes over, and its timer.
    pub fn halves(&mut self) -> (Receiving<'_>, Sending<'_>, &Timer) {
        let (receiving, sending) = match &mut self.carrier {
            Carrier::Http1(connection) => halves(&mut connection.stream),
            Carrier::Http2(stream) => (Receiving::Http2(&mut stream.incoming), Sending::Http2(&mut stream.outgoing)),
        };
        (receiving, sending, &self.timer)
    }
}

impl Receiving<'_> {
    /// What has come and was not consumed.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Receiving::Http1 { input, .. } => input.bytes(),
            Receiving::Http2(incoming) => incoming.bytes(),
        }
    }

    /// Forgets the first `n` of [`Receiving::bytes`].
    pub fn consume(&mut self, n: usize) {
        match self {
            Receiving::Http1 { input, .. } => input.consume(n),
            Receiving::Http2(incoming) => incoming.consume(n),
        }
    }

    /// Ready when more has come, or with false at the peer's end, now and ever after.
    ///
    /// # Errors
    /// The connection's; told once.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self {
            Receiving::Http1 { input, .. } => input.poll_fill(cx),
            Receiving::Http2(incoming) => incoming.poll_fill(cx),
        }
    }

    /// Gives up the room that is held for what is to come, as far as can be, for it is not expected soon.
    pub async fn rest(&mut self) {
        if let Receiving::Http1 { input, .. } = self {
            input.rest().await;
        }
    }

    /// True if the peer has ended the connection, though bytes of it may be unread; of a stream that is known without
    /// asking. A system call.
    pub fn is_peer_gone(&self) -> bool {
        match self {
            Receiving::Http1 { socket, .. } => socket.is_peer_gone(),
            Receiving::Http2(_) => false,
        }
    }
}

impl Sending<'_> {
    /// Sends what the peer takes of `bytes` at once: `None` if that was all, else how many were taken. The rest, though there
    /// be none, needs [`Sending::write`].
    ///
    /// # Errors
    /// The peer is gone.
    pub fn write_now(&mut self, bytes: &[u8], buffers: &Buffers) -> Result<Option<usize>, Gone> {
        match self {
            Sending::Http1(output) => output.write_now(bytes).map_err(|_| Gone),
            Sending::Http2(outgoing) if outgoing.has_room() => {
                let mut piece = buffers.take_for(bytes.len());
                piece.extend_from_slice(bytes);
                outgoing.send(piece).map(|()| None).map_err(|_| Gone)
            }
            Sending::Http2(_) => Ok(Some(0)),
        }
    }

    /// Sends all of `bytes` and gives a buffer back. Dropping the future leaves the connection fit only for closing.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Gone> {
        match self {
            Sending::Http1(output) => match output.write(bytes).await {
                (Ok(()), buffer) => Ok(buffer),
                (Err(_), _) => Err(Gone),
            },
            Sending::Http2(outgoing) => {
                poll_fn(|cx| match outgoing.poll_room(cx) {
                    Poll::Ready(()) => Poll::Ready(Ok(())),
                    Poll::Pending => outgoing.poll_gone(cx).map(|()| Err(Gone)),
                })
                .await?;
                outgoing.send(bytes).map(|()| Vec::new()).map_err(|_| Gone)
            }
        }
    }

    /// Ready once the peer has given its stream up. On a connection of its own that is seen by reading.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Sending::Http1(_) => Poll::Pending,
            Sending::Http2(outgoing) => outgoing.poll_gone(cx),
        }
    }
}

/// The peer takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;
