//! One client connection: its requests in turn, one exchange each; or many at once ([`streams`](super::streams)).

use std::pin::pin;
use std::rc::Rc;

use super::exchange::write_until;
use super::state::{Place, Worker};
use super::{exchange, streams};
use crate::listener::Entry;
use crate::listener::client::Client;
use crate::listener::http1::Connection;
use crate::net::rt::CatchUnwind;
use crate::net::stream::Stream;
use crate::telemetry::log;
use crate::wire::http2::PREFACE;

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
///
/// No `async fn`: a future keeps room for all that is moved within it, and ten thousand of these wait.
pub fn serve(worker: Rc<Worker>, stream: Stream, entry: Entry) -> impl Future<Output = ()> {
    let mut served = Served::new(&worker, stream, entry);
    async move { served.run(&worker).await }
}

/// As [`serve`], in its place, unless the worker gives up before.
pub fn serve_in_place(worker: Rc<Worker>, stream: Stream, entry: Entry, place: Place) -> impl Future<Output = ()> {
    let mut served = Served::new(&worker, stream, entry);
    async move {
        // Captured where it is: what is moved takes its room twice.
        let _held = &place;
        worker.drain.unless_given_up(pin!(served.run(&worker))).await;
        worker.buffers.note_freed();
    }
}

/// A client that is being served.
struct Served {
    /// `None` once it has turned to HTTP/2.
    client: Option<Client>,
    is_http2: bool,
    entry: Entry,
}

impl Served {
    fn new(worker: &Worker, stream: Stream, entry: Entry) -> Served {
        let config = worker.config();
        let is_http2 = stream.protocol() == Some(b"h2");
        let connection = Connection::new(stream, config.client.half_close, config.limits.stream_bytes_max);
        Served { client: Some(Client::http1(connection, worker.timers.timer())), is_http2, entry }
    }

    async fn run(&mut self, worker: &Rc<Worker>) {
        if let Some(client) = &mut self.client
            && !self.is_http2
            && serve_one(worker, client, self.entry).await == Turns::Over
        {
            return;
        }
        if let Some(stream) = self.client.take().and_then(Client::into_stream) {
            Box::pin(streams::serve(worker.clone(), stream, self.entry)).await;
        }
    }
}

/// How a client's requests on a connection of their own have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// With the connection.
    Over,
    /// Before the first: it speaks HTTP/2.
    ToHttp2,
}

/// Serves the requests of `client`, one after another, to its end, or until it turns out to speak HTTP/2.
pub async fn serve_one(worker: &Rc<Worker>, client: &mut Client, entry: Entry) -> Turns {
    let listener = usize::from(entry.listener.0);
    client.lines = worker.lines[listener].clone();
    let may_turn = worker.config().listeners[listener].http2;
    serve_with(worker, client, entry, may_turn, async |worker, client| exchange::run(worker, client, entry).await).await
}

/// As [`serve_one`], each request by `exchange`, which makes nothing of one whose head is not whole.
async fn serve_with(
    worker: &Rc<Worker>,
    client: &mut Client,
    entry: Entry,
    may_turn: bool,
    exchange: impl AsyncFn(&Rc<Worker>, &mut Client) -> Option<After>,
) -> Turns {
    let config = worker.config();
    while client.wait_for_request(&worker.clock, config.client.keep_alive, || worker.drain.is_idle_over()).await {
        client.timer.set(worker.clock.now() + config.client.head);
        if may_turn && client.may_begin_http2() && Box::pin(begins_http2(client)).await {
            return Turns::ToHttp2;
        }
        client.answering = false;
        client.sent_bytes = 0;
        client.own = 0;
        // Boxed, as is all that is rare, so that a connection between two requests is small.
        let outcome = loop {
            match CatchUnwind::new(exchange(worker, client)).await {
                Ok(Some(after)) => break Ok(after),
                Err(panic) => break Err(panic),
                Ok(None) => {}
            }
            match CatchUnwind::new(exchange::await_head(worker, client, entry)).await {
                Ok(None) => {}
                Ok(Some(after)) => break Ok(after),
                Err(panic) => break Err(panic),
            }
        };
        let after = match outcome {
            Ok(after) => after,
            Err(panic) => {
                let id = worker.fallen.take();
                let event = log::error("worker", format!("an exchange panicked and was ended: {panic}"));
                let event = event.with("worker", worker.id.0);
                match &id {
                    Some(id) => event.with("request_id", id).say(),
                    None => event.say(),
                }
                Box::pin(exchange::apologise(worker, client, id)).await
            }
        };
        client.served += 1;
        match after {
            After::KeepAlive => {}
            After::Linger => {
                Box::pin(client.linger(worker.clock.now())).await;
                return Turns::Over;
            }
            After::Close => {
                client.abort();
                return Turns::Over;
            }
        }
    }
    let now = worker.clock.now();
    Box::pin(client.close(now, write_until(worker, now))).await;
    Turns::Over
}

/// Whether a client that has begun as HTTP/2 does goes on so; what it does else is for the reader of requests to judge.
async fn begins_http2(client: &mut Client) -> bool {
    while client.may_begin_http2() && client.bytes().len() < PREFACE.len() {
        client.rest().await;
        if !matches!(client.fill().await, Ok(Ok(true))) {
            return false;
        }
    }
    client.may_begin_http2()
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::admission::Keys;
    use crate::base::ListenerId;
    use crate::base::WorkerId;
    use crate::base::clock::Clock;
    use crate::config::HalfClose;
    use crate::config::compile::{Sources, compile};
    use crate::mesh::port::Port;
    use crate::net::rt::{EventLoop, Rung, spawn};
    use crate::routing::Table;
    use crate::telemetry::metrics::board::Board;
    use crate::worker::arrival;
    use crate::worker::state::Shared;

    struct Nothing;

    impl Sources for Nothing {
        fn env(&self, _: &str) -> Option<String> {
            None
        }
        fn file(&self, _: &Path) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }
        fn cores(&self) -> Vec<usize> {
            (0..64).collect()
        }
    }

    /// What so many workers share, of which none runs.
    pub fn shared(workers: usize) -> Arc<Shared> {
        let text = format!(
            "cores = '0-{}'\n\
             listeners = [{{ address = '127.0.0.1:0' }}]\n\
             providers = [{{ name = 'p', endpoints = [{{ url = 'http://127.0.0.1:9/v1' }}] }}]\n\
             models = [{{ name = '*', route = [{{ provider = 'p' }}] }}]",
            workers - 1
        );
        let config = compile(&text, Path::new("."), &Nothing).unwrap_or_else(|e| panic!("{}", e.render("test")));
        Arc::new(Shared {
            keys: Keys::new(&config),
            table: Table::new(&config),
            cors: None,
            credentials: Arc::default(),
            renewed: Vec::new(),
            ports: (0..workers).map(|_| Port::new().unwrap().0).collect(),
            names: Vec::new(),
            arrivals: arrival::inboxes(&config),
            boards: (0..workers).map(|_| Arc::new(Board::new(1, 1, 0))).collect(),
            lookups: Arc::default(),
            records: None,
            clock: Clock::new(),
            descriptors: Default::default(),
            memory_max: usize::MAX,
            seed: 1,
            config: Arc::new(config),
        })
    }

    fn pair() -> (TcpStream, Client, Rc<Worker>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        let worker = Worker::new(WorkerId(0), shared(1));
        let far = monoio::net::TcpStream::from_std(far).unwrap();
        let connection = Connection::new(Stream::new(far, None, worker.buffers.clone()), HalfClose::Gone, 1024);
        (near, Client::http1(connection, worker.timers.timer()), worker)
    }

    fn entry() -> Entry {
        Entry { listener: ListenerId(0), peer: "127.0.0.1:9".parse().unwrap(), open: true }
    }

    /// Serves one connection whose first exchange panics; what its client was sent, up to the end.
    async fn sent_by_a_panic(request: &str, answering: bool) -> String {
        sent_by_a_panic_of(None, request, answering).await
    }

    /// As [`sent_by_a_panic`], of an exchange that had found out its id.
    async fn sent_by_a_panic_of(id: Option<&str>, request: &str, answering: bool) -> String {
        let (mut near, mut client, worker) = pair();
        spawn(worker.timers.clone().drive());
        near.write_all(request.as_bytes()).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let runs = Cell::new(0);
        serve_with(&worker, &mut client, entry(), true, async |worker, client| {
            runs.set(runs.get() + 1);
            worker.fallen.replace(id.map(str::to_owned));
            if answering {
                client.write(b"HTTP/1.1 200 OK\r\n".to_vec()).await.unwrap();
            }
            if std::hint::black_box(true) {
                panic!("on purpose");
            }
            Some(After::KeepAlive)
        })
        .await;
        drop(client);
        assert_eq!(runs.get(), 1, "the connection ends with the exchange");
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_panic_ends_its_exchange_with_a_500_and_the_worker_goes_on() {
        let mut event_loop = EventLoop::climb_down(Rung::Epoll, 256).unwrap();
        event_loop.block_on(async {
            let openai = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n\r\n";
            let answer = sent_by_a_panic(openai, false).await;
            assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
            assert!(answer.contains("x-ringway-error-origin: gateway\r\n"), "{answer}");
            assert!(answer.contains("x-request-id: mine\r\n") && answer.contains("connection: close"), "{answer}");
            assert!(answer.contains("\"internal_error\"") && !answer.contains("on purpose"), "{answer}");

            let anthropic = sent_by_a_panic("POST /v1/messages HTTP/1.1\r\nhost: x\r\n\r\n", false).await;
            assert!(anthropic.contains("{\"type\":\"error\""), "{anthropic}");
            let head = sent_by_a_panic("HEAD /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", false).await;
            assert!(head.starts_with("HTTP/1.1 500 ") && head.ends_with("\r\n\r\n"), "{head}");

            // Which its record has as well, so one finds the other.
            let known = sent_by_a_panic_of(Some("known"), "GET /v1/x HTTP/1.1\r\nhost: x\r\n\r\n", false).await;
            assert!(known.contains("x-request-id: known\r\n"), "{known}");

            // Nothing can be said any more where an answer was begun.
            assert_eq!(sent_by_a_panic(openai, true).await, "HTTP/1.1 200 OK\r\n");
        });
    }

    /// Tells that it was dropped.
    struct Note(Rc<Cell<u32>>);

    impl Drop for Note {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn an_exchange_that_outlasts_even_its_last_words_is_dropped_in_order() {
        let mut event_loop = EventLoop::climb_down(Rung::Epoll, 256).unwrap();
        event_loop.block_on(async {
            let (mut near, mut client, worker) = pair();
            spawn(worker.timers.clone().drive());
            let place = worker.take_place(ListenerId(0)).unwrap();
            let (begun, dropped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (own, begins, drops) = (worker.clone(), begun.clone(), dropped.clone());
            spawn(async move {
                let _place = place;
                let stuck = serve_with(&own, &mut client, entry(), true, async |worker, client| {
                    let _record = Note(drops.clone());
                    begins.set(1);
                    client.timer.set(worker.clock.now() + std::time::Duration::from_secs(3600));
                    // Whatever its timer says.
                    std::future::poll_fn(|cx| {
                        let _ = client.timer.poll_expired(cx);
                        std::task::Poll::<()>::Pending
                    })
                    .await;
                    Some(After::Close)
                });
                own.drain
                    .unless_given_up(std::pin::pin!(async {
                        stuck.await;
                    }))
                    .await;
            });
            near.write_all(b"x").unwrap();
            while begun.get() == 0 {
                worker.timers.sleep_until(worker.clock.now()).await;
            }
            worker.timers.expire_all();
            worker.timers.sleep_until(worker.clock.now()).await;
            assert_eq!((dropped.get(), worker.connections()), (0, 1), "it goes on");
            crate::worker::drain::give_up(&worker).await;
            assert_eq!((dropped.get(), worker.connections()), (1, 0));
            assert_eq!(near.read(&mut [0]).unwrap_or(0), 0, "its connection ends");
        });
    }

    fn size_of_result<A, B, C, D, F>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_between_two_requests_is_small() {
        // Ten thousand of them wait at any time.
        assert!(size_of_result(serve_in_place) <= 1024, "{} bytes", size_of_result(serve_in_place));
    }
}
