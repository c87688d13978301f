//! One client connection: its requests in turn, one exchange each.

use std::rc::Rc;

use super::exchange;
use super::state::Worker;
use crate::listener::http1::Client;
use crate::net::rt::CatchUnwind;
use crate::net::stream::Stream;

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It waits for the next request.
    KeepAlive,
    /// It is closed, all that was written still being delivered.
    Linger,
    /// It is closed at once; the answer was cut or the client is gone.
    Close,
}

/// Serves a client until the connection ends.
pub async fn serve(worker: Rc<Worker>, stream: Stream, open: bool) {
    serve_with(worker, stream, async |worker, client| exchange::run(worker, client, open).await).await;
}

/// As [`serve`], each request by `exchange`.
async fn serve_with(worker: Rc<Worker>, stream: Stream, exchange: impl AsyncFn(&Rc<Worker>, &mut Client) -> After) {
    let config = worker.config();
    let mut client =
        Client::new(stream, worker.timers.timer(), config.client.half_close, config.limits.stream_bytes_max);
    while client.wait_for_request(&worker.clock, config.client.keep_alive).await {
        client.answering = false;
        // Boxed, as is all that is rare, so that a connection between two requests is small.
        let outcome = CatchUnwind::new(exchange(&worker, &mut client)).await;
        let after = match outcome {
            Ok(after) => after,
            Err(panic) => {
                eprintln!("ringway: worker {}: an exchange panicked and was ended: {panic}", worker.id.0);
                Box::pin(exchange::apologise(&worker, &mut client)).await
            }
        };
        client.served += 1;
        match after {
            After::KeepAlive => {}
            After::Linger => return Box::pin(client.linger(worker.clock.now())).await,
            After::Close => return client.stream.socket.abort(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_result<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_between_two_requests_is_small() {
        // Ten thousand of them wait at any time.
        assert!(size_of_result(serve) <= 1024, "{} bytes", size_of_result(serve));
    }
}
