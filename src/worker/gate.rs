//! Whether one listener's clients are accepted here. They wait in the kernel's queue while this machine has nothing left
//! for them, and are accepted as soon as it has.
//!
//! A waiting accept fails at once where descriptors are out, whether a client has come or not, and as often as it is
//! tried. So one at a time, the scout, looks each [`AGAIN`] whether there seems to be room, and accepts one client after
//! another for as long as there is. The others join in once nobody waits any more.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::time::Duration;

use super::state::Worker;
use crate::base::clock::Instant;
use crate::listener::Acceptor;
use crate::net::heap;
use crate::net::shortage::Shortage;
use crate::telemetry::log::{self, Limit};
use crate::telemetry::metrics::board::Pause;

/// How often a listener that has paused is looked at.
const AGAIN: Duration = Duration::from_millis(50);

/// How often pausing is said.
static PAUSED: Limit = Limit::new();
/// How often going on is said.
static RESUMED: Limit = Limit::new();

/// One listener's gate at one worker.
#[derive(Debug, Default)]
pub struct Gate {
    /// Why it is closed, and since when.
    closed: Cell<Option<(Pause, Instant)>>,
    /// True while there is a scout.
    scouted: Cell<bool>,
}

impl Gate {
    /// An accept has failed, that of the `scout` perhaps. Returns when it may be tried again: true for the scout.
    pub async fn failed(&self, worker: &Worker, acceptor: &Acceptor, shortage: Shortage, scout: bool) -> bool {
        let pause = match shortage {
            Shortage::Descriptors => Pause::Descriptors,
            Shortage::Files => Pause::Files,
            Shortage::Sockets => Pause::Sockets,
        };
        self.wait(worker, acceptor, pause, scout).await
    }

    /// A client was accepted, by the `scout` perhaps, whose descriptor is `fd`. Returns when the next one may be: true for
    /// the scout.
    pub async fn passed(&self, worker: &Worker, acceptor: &Acceptor, fd: RawFd, scout: bool) -> bool {
        if fd >= worker.shared.descriptors.clients {
            return self.wait(worker, acceptor, Pause::Descriptors, scout).await;
        }
        if is_full(worker) {
            return self.wait(worker, acceptor, Pause::Memory, scout).await;
        }
        match self.closed.get() {
            None => false,
            Some(_) if scout && acceptor.has_waiting() => true,
            Some(_) if scout => {
                self.open(worker);
                false
            }
            // It was under way when the first was told to wait.
            Some((pause, _)) => self.wait(worker, acceptor, pause, false).await,
        }
    }

    #[cold]
    fn open(&self, worker: &Worker) {
        let Some((_, since)) = self.closed.take() else { return };
        self.scouted.set(false);
        worker.board.paused.sub(1);
        let after = worker.clock.now() - since;
        RESUMED.say(|| {
            let text = format!("clients are accepted again, after {:.1} s", after.as_secs_f64());
            log::info("worker", text).with("worker", worker.id.0)
        });
    }

    #[cold]
    fn close(&self, worker: &Worker, pause: Pause) {
        if self.closed.get().is_some() {
            return;
        }
        self.closed.set(Some((pause, worker.clock.now())));
        worker.board.paused.add(1);
        worker.board.pauses[pause as usize].add(1);
        PAUSED.say(|| {
            let (what, remedy) = match pause {
                Pause::Descriptors => (Shortage::Descriptors.to_string(), Shortage::Descriptors.remedy()),
                Pause::Files => (Shortage::Files.to_string(), Shortage::Files.remedy()),
                Pause::Sockets => (Shortage::Sockets.to_string(), Shortage::Sockets.remedy()),
                Pause::Memory => ("this worker has no memory left".into(), "raise limits.memory_max, if there is more"),
            };
            let text = format!("no more clients are accepted for now: {what} for them; {remedy}");
            log::warn("worker", text).with("worker", worker.id.0)
        });
    }

    async fn wait(&self, worker: &Worker, acceptor: &Acceptor, pause: Pause, scout: bool) -> bool {
        if scout {
            self.scouted.set(false);
        }
        self.close(worker, pause);
        loop {
            // Not a deadline of the worker's, which are all due when it ends.
            monoio::time::sleep(AGAIN).await;
            if self.closed.get().is_none() {
                return false;
            }
            if self.scouted.get() || !has_room(worker, acceptor) {
                continue;
            }
            if acceptor.has_waiting() {
                self.scouted.set(true);
                return true;
            }
            // There is room, and nobody who waits for it.
            self.open(worker);
            return false;
        }
    }
}

/// True if another client may be accepted, as far as can be told.
fn has_room(worker: &Worker, acceptor: &Acceptor) -> bool {
    !is_full(worker) && acceptor.next_descriptor().is_some_and(|fd| fd < worker.shared.descriptors.clients)
}

/// True if even clients that would be refused cost too much: what is under way has taken an eighth more than it may.
fn is_full(worker: &Worker) -> bool {
    let max = worker.shared.memory_max;
    heap::held() > max.saturating_add(max / 8)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::WorkerId;
    use crate::net::heap::COUNTED_BYTES;
    use crate::net::rt::{EventLoop, Rung};
    use crate::worker::connection::tests::shared;

    #[test]
    fn clients_are_accepted_up_to_an_eighth_above_the_memory_and_not_beyond() {
        EventLoop::climb_down(Rung::Epoll, 256).unwrap().block_on(async {
            let mut shared = shared(1);
            let max = (heap::held() + (8 << 20)) / 8 * 8;
            Arc::get_mut(&mut shared).unwrap().memory_max = max;
            let worker = Worker::new(WorkerId(0), shared);
            let at: Vec<u8> = Vec::with_capacity(max + max / 8 - heap::held());
            assert_eq!(heap::held(), max + max / 8);
            assert!(worker.is_short_of_memory() && !is_full(&worker));
            let past: Vec<u8> = Vec::with_capacity(COUNTED_BYTES);
            assert!(is_full(&worker));
            drop((at, past));
            assert!(!is_full(&worker));
        });
    }
}
