//! The end of a worker: no new clients, what is under way goes on to a deadline, and what is cut then is told so.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::state::Worker;
use super::{ToWorker, arrival};
use crate::base::clock::Instant;
use crate::listener::Acceptor;
use crate::net::rt::Ear;

/// Connections that have come when the end begins are still taken, for as long as this at most.
const LAST_ACCEPTS: Duration = Duration::from_millis(100);
/// What is cut has this long to tell its client and to close. A client that is told before has its two seconds to read
/// that within it.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// What is left even then is dropped, and its record made, within this.
const GIVE_UP: Duration = Duration::from_millis(100);
/// One write of those last words.
pub const LAST_WRITE: Duration = Duration::from_secs(1);
/// How often a worker that ends looks whether it is alone.
const LOOK: Duration = Duration::from_millis(5);

/// How far a worker is with ending.
#[derive(Debug, Default)]
pub struct Drain {
    /// Until when clients may come, and what is under way go on.
    told: Cell<Option<(Instant, Instant)>>,
    waker: RefCell<Option<Waker>>,
    begun: Cell<bool>,
    idle_over: Cell<bool>,
    over: Cell<bool>,
    given_up: Cell<bool>,
}

impl Drain {
    /// Tells that this worker is to end, from when and by when; the first word counts.
    fn tell(&self, close: Instant, by: Instant) {
        self.told.set(self.told.get().or(Some((close, by))));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_told(&self, cx: &Context<'_>) -> Poll<(Instant, Instant)> {
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        self.told.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// True once a connection is closed after the answer under way.
    pub fn has_begun(&self) -> bool {
        self.begun.get()
    }

    /// True once connections are closed that have nothing under way.
    pub fn is_idle_over(&self) -> bool {
        self.idle_over.get()
    }

    /// True once the time for what is under way is over.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Does `work`, or returns in the middle of it once even the last words are over. Who called then drops it where it
    /// stands: what it holds is let go in order, and an exchange leaves its record.
    ///
    /// Lent, for what is moved into a future takes twice its room there.
    pub async fn unless_given_up(&self, mut work: Pin<&mut impl Future<Output = ()>>) {
        poll_fn(|cx| if self.given_up.get() { Poll::Ready(()) } else { work.as_mut().poll(cx) }).await
    }
}

/// Hears what the other threads have for this worker, until none is left to speak: newly resolved names, changed
/// certificates, connections, and the message to end.
pub async fn hear(worker: Rc<Worker>, mut ear: Ear) {
    loop {
        let is_open = ear.hear().await;
        worker.adopt_names();
        worker.renew();
        arrival::take_over(&worker);
        let message = worker.shared.ports.get(usize::from(worker.id.0)).and_then(|port| port.take());
        if let Some(ToWorker::Drain { close, by }) = message {
            worker.drain.tell(close, by);
        }
        if !is_open {
            // Nobody is left to say when.
            let now = worker.clock.now();
            return worker.drain.tell(now, now);
        }
    }
}

/// Waits for the message to end, and ends: returns once no client is left, or once those left had their last words.
pub async fn listen(worker: Rc<Worker>, acceptors: Vec<Rc<Acceptor>>) {
    let (close, by) = poll_fn(|cx| worker.drain.poll_told(cx)).await;
    drain(&worker, &acceptors, close, by).await;
}

async fn drain(worker: &Rc<Worker>, acceptors: &[Rc<Acceptor>], close: Instant, by: Instant) {
    let clock = &worker.clock;
    // From here on each answer ends its connection, so that clients which keep theirs go elsewhere in good time.
    worker.drain.begun.set(true);
    // Clients that send many requests at once are told so.
    worker.timers.wake_all();
    if close > clock.now() {
        worker.timers.sleep_until(close).await;
    }
    let last_accept = clock.now() + LAST_ACCEPTS;
    while acceptors.iter().any(|acceptor| acceptor.has_waiting()) && clock.now() < last_accept {
        worker.timers.sleep_until(clock.now() + LOOK).await;
    }
    acceptors.iter().for_each(|acceptor| acceptor.close());
    // What others have accepted has come as well; what they accept from here on they serve.
    arrival::close(worker);
    // What these accepts and their first reads have brought is seen in the next turn.
    worker.timers.sleep_until(clock.now() + LOOK).await;
    worker.drain.idle_over.set(true);
    // Who waits for a request looks again, and closes.
    worker.timers.wake_all();
    until_alone(worker, by).await;
    if worker.connections() > 0 {
        worker.drain.over.set(true);
        worker.timers.expire_all();
        until_alone(worker, clock.now() + LAST_WORDS).await;
    }
    give_up(worker).await;
}

/// Drops what is left of the connections.
pub(super) async fn give_up(worker: &Rc<Worker>) {
    if worker.connections() > 0 {
        worker.drain.given_up.set(true);
        worker.timers.wake_all();
        until_alone(worker, worker.clock.now() + GIVE_UP).await;
    }
}

async fn until_alone(worker: &Rc<Worker>, until: Instant) {
    while (worker.connections() > 0 || arrival::is_coming(worker)) && worker.clock.now() < until {
        worker.timers.sleep_until((worker.clock.now() + LOOK).min(until)).await;
    }
}
