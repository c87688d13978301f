//! A TLS listener's connection up to its first request: the handshake, in time; and the words for who speaks no TLS.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use monoio::net::TcpStream;

use super::connection::{self, After};
use super::cors;
use super::intake::new_request_id;
use super::reply::{Refusal, refuse};
use super::state::Worker;
use crate::config::HalfClose;
use crate::listener::Entry;
use crate::listener::client::Client;
use crate::listener::http1::Connection;
use crate::listener::plain::{self, Advice};
use crate::net::rt::CatchUnwind;
use crate::net::stream::Stream;
use crate::net::tls::{Credentials, Failure, Session};
use crate::telemetry::log;

/// One worker's view of the certificates.
pub struct Secured(RefCell<Arc<Credentials>>);

impl Secured {
    /// Begins with `credentials`.
    pub fn new(credentials: Arc<Credentials>) -> Secured {
        Secured(RefCell::new(credentials))
    }
}

/// Serves a client of a TLS listener until the connection ends.
pub async fn serve(worker: Rc<Worker>, tcp: TcpStream, entry: Entry) {
    // Boxed, and gone before the first request is waited for: a connection between two requests is small.
    if let Some(stream) = Box::pin(shake(&worker, tcp, usize::from(entry.listener.0))).await {
        connection::serve(worker, stream, entry).await;
    }
}

/// A session of its own for the client, or `None`, the connection having been ended.
async fn shake(worker: &Rc<Worker>, tcp: TcpStream, listener: usize) -> Option<Stream> {
    worker.renew();
    let config = worker.secured.0.borrow().listeners.get(listener).cloned().flatten()?;
    let session = Session::server(config).ok()?;
    let mut stream = Stream::new(tcp, Some(session), worker.buffers.clone());
    // What a stranger sends runs through much code that is not ours: should it panic, this connection ends and no other.
    let outcome = CatchUnwind::new(in_time(worker, &mut stream)).await;
    let handshakes = &worker.board.handshakes;
    match outcome {
        Ok(Ok(())) => {
            handshakes.note_done(stream.is_resumed());
            return Some(stream);
        }
        Ok(Err(_)) if !stream.is_secure() => {
            handshakes.note_failed(Failure::PlainHttp as usize);
            say_https(worker, stream, listener).await;
        }
        // The gateway's end is nobody's failure.
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
        Ok(Err(error)) => handshakes.note_failed(Failure::of(&error) as usize),
        Err(panic) => {
            handshakes.note_failed(Failure::Malformed as usize);
            let event = log::error("worker", format!("a TLS handshake panicked and was ended: {panic}"));
            event.with("worker", worker.id.0).say();
        }
    }
    None
}

/// The handshake, unless `client.handshake` passes first, or the gateway ends.
async fn in_time(worker: &Rc<Worker>, stream: &mut Stream) -> io::Result<()> {
    let timer = worker.timers.timer();
    timer.set(worker.clock.now() + worker.config().client.handshake);
    let mut handshake = pin!(stream.handshake());
    poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(outcome),
        Poll::Pending => match timer.poll_expired(cx) || worker.drain.is_idle_over() {
            true if worker.drain.is_idle_over() => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
            true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => Poll::Pending,
        },
    })
    .await
}

/// Tells a client that spoke HTTP in the clear which URL to use.
async fn say_https(worker: &Rc<Worker>, stream: Stream, listener: usize) {
    let config = worker.config();
    let address = config.listeners[listener].address;
    let Advice { reject, dialect, is_head } = plain::speak_https(stream.input.bytes(), &worker.head_limits, address);
    let (id, lines) = (new_request_id(worker), cors::lines_of_unread(worker, stream.input.bytes()));
    let mut client = Client::http1(Connection::new(stream, HalfClose::Finish, 0), worker.timers.timer());
    let refusal = Refusal { reject: &reject, dialect, request_id: &id, is_head, close: true, lines: &lines };
    if refuse(worker, &mut client, &refusal).await == After::Linger {
        client.linger(worker.clock.now()).await;
    }
}

impl Worker {
    /// Takes over certificates that have changed: for clients and endpoints that connect from now on.
    pub fn renew(&self) {
        let renewed = self.shared.renewed.get(usize::from(self.id.0)).and_then(|mailbox| mailbox.take());
        if let Some(credentials) = renewed {
            self.upstreams.renew(&credentials.endpoints);
            *self.secured.0.borrow_mut() = credentials;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::board::Handshakes;

    #[test]
    fn failures_are_counted_under_their_own_names() {
        assert_eq!(Failure::ALL.map(Failure::as_str), Handshakes::FAILURES);
    }
}
