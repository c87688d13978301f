//! Gathers events that come close together, so that they share one waking of the core.
//!
//! Lives on: every worker, one each.
//!
//! Hundreds of streams bring an event every hundred microseconds or so, each to a core that has just gone to
//! sleep. Then waking, not relaying, is most of what an event costs. So after a turn that relayed few events,
//! close behind the turn before, the worker stays away from the ring for a moment; what arrives meanwhile is
//! relayed in one turn. Network cards do the same with their interrupts. What this turn relayed has already
//! been sent, so only events that arrive during the pause are delayed, by at most its length. A gateway with
//! few streams never pauses; and by default none does, for delay is what users of streams feel.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::base::clock::{Clock, Instant};

/// A turn with this many events has shared its waking enough.
const ENOUGH: u32 = 8;

/// One worker's pauses.
pub struct Moderator {
    clock: Clock,
    pause: Duration,
    /// Events relayed in this turn.
    events: Cell<u32>,
    /// When the last turn that relayed something was over.
    last_turn: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
}

impl Moderator {
    /// Pauses of `pause`; zero for none. Somebody has to run [`Moderator::run`].
    pub fn new(clock: Clock, pause: Duration) -> Rc<Moderator> {
        let last_turn = Cell::new(clock.now());
        Rc::new(Moderator { clock, pause, events: Cell::new(0), last_turn, waker: RefCell::default() })
    }

    /// An event is being relayed.
    pub fn note(&self) {
        if self.pause.is_zero() {
            return;
        }
        self.events.set(self.events.get() + 1);
        // Woken now, it runs behind all tasks that this turn has already woken.
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Pauses the worker where that pays, for ever.
    pub async fn run(self: Rc<Moderator>) {
        poll_fn(|cx| {
            let events = self.events.replace(0);
            if events > 0 {
                let now = self.clock.now();
                let close = now.since(self.last_turn.get()) < self.pause * 3;
                if close && events < ENOUGH {
                    std::thread::sleep(self.pause);
                }
                self.last_turn.set(now);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::<()>::Pending
        })
        .await;
    }
}
