//! One client connection that carries many exchanges at once: a task for each, and one for the connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::connection;
use super::state::Worker;
use crate::base::ListenerId;
use crate::config::Config;
use crate::listener::Entry;
use crate::listener::client::Client;
use crate::listener::http2::{self, Ended, Ending, Terms};
use crate::net::rt::{CatchUnwind, spawn};
use crate::net::stream::Stream;
use crate::telemetry::log;
use crate::telemetry::metrics::board::{Board, ListenerBoard};

/// Serves a client that speaks HTTP/2 until the connection ends, and every exchange with it.
pub async fn serve(worker: Rc<Worker>, stream: Stream, entry: Entry) {
    let terms = terms(worker.config());
    let crowd = Rc::new(Crowd::new(worker.board.clone(), entry.listener));
    let accept = |stream| {
        let (worker, place) = (worker.clone(), crowd.clone().enter());
        let client = Client::http2(stream, worker.timers.timer());
        spawn(async move {
            let _place = place;
            // Its end as well: where the connection has panicked, even letting go of a stream may.
            let exchange = CatchUnwind::new(async {
                let mut client = client;
                connection::serve_one(&worker, &mut client, entry).await;
            });
            worker.drain.unless_given_up(pin!(async { drop(exchange.await) })).await;
        });
    };
    let ending = || match () {
        () if worker.drain.is_idle_over() => Ending::IdleOver,
        () if worker.drain.has_begun() => Ending::Begun,
        () => Ending::Not,
    };
    let (timer, write_timer) = (worker.timers.timer(), worker.timers.timer());
    let served = http2::serve(stream, &terms, &worker.buffers, &worker.clock, timer, write_timer, ending, accept);
    // What strangers send runs through much code that is not ours: should it panic, this connection ends and no other.
    let ended = CatchUnwind::new(served).await.unwrap_or_else(|panic| {
        let event = log::error("worker", format!("an HTTP/2 connection panicked and was ended: {panic}"));
        event.with("worker", worker.id.0).say();
        Ended::Failed
    });
    crowd.counts().http2_failed.add(u64::from(ended != Ended::Done));
    // They see that their client is gone, and leave their records.
    crowd.gone().await;
}

fn terms(config: &Config) -> Terms {
    let http2 = &config.http2;
    Terms {
        streams_max: http2.streams_max,
        stream_window: http2.stream_window,
        connection_window: http2.connection_window,
        head_bytes_max: u32::try_from(config.limits.head_bytes_max).unwrap_or(u32::MAX),
        control_frames_max: http2.control_frames_max,
        preface: config.client.head,
        keep_alive: config.client.keep_alive,
        ping: http2.ping,
        requests_max: config.client.requests_max,
        write: config.client.write,
    }
}

/// The exchanges of one connection; while it lives, the connection counts as open.
struct Crowd {
    present: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
    board: Arc<Board>,
    listener: ListenerId,
}

struct Member(Rc<Crowd>);

impl Crowd {
    fn new(board: Arc<Board>, listener: ListenerId) -> Crowd {
        let crowd = Crowd { present: Cell::new(0), waiting: RefCell::default(), board, listener };
        crowd.counts().http2_open.add(1);
        crowd
    }

    fn counts(&self) -> &ListenerBoard {
        &self.board.listeners[usize::from(self.listener.0)]
    }

    fn enter(self: Rc<Crowd>) -> Member {
        self.present.set(self.present.get() + 1);
        self.counts().http2_streams.add(1);
        Member(self)
    }

    /// Waits until nobody is left.
    async fn gone(&self) {
        poll_fn(|cx| {
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            if self.present.get() == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.counts().http2_open.sub(1);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.present.set(self.0.present.get() - 1);
        self.0.counts().http2_streams.sub(1);
        if let Some(waker) = self.0.waiting.take() {
            waker.wake();
        }
    }
}
