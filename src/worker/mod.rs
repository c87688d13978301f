//! The data plane: where decisions meet IO. One pinned thread per core; a core never waits for another.
//!
//! Lives on: each worker's own thread; what it shares with others is said at [`Shared`].

mod answer;
pub mod arrival;
mod attempt;
mod body;
mod coded;
mod connection;
mod cors;
mod date;
mod drain;
mod exchange;
mod gate;
mod intake;
mod models;
mod relay;
mod reply;
mod secure;
mod send;
pub mod state;
mod streams;
mod tunnel;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::base::WorkerId;
use crate::base::clock::Instant;
use crate::config::Driver;
use crate::listener::Acceptor;
use crate::net::heap;
use crate::net::passage;
use crate::net::rt::{Ear, EventLoop, Operation, Rung, spawn, wake_those_who_wait};
use state::{Shared, Worker};

/// How often idle upstream connections are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// Accepts that wait on one listener's socket at a time.
pub const ACCEPTS: usize = 8;

/// What the control thread says to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToWorker {
    /// End: take no more clients from `close` on, finish what is under way, and cut what is not finished `by` then.
    Drain {
        /// Until when clients may still come.
        close: Instant,
        /// Until when what is under way may go on.
        by: Instant,
    },
}

/// What a worker says once it accepts clients.
#[derive(Debug, Clone)]
pub struct Started {
    /// Which worker.
    pub id: WorkerId,
    /// The rung of the ladder that its event loop stands on.
    pub rung: Rung,
    /// Why better ones could not be built.
    pub refused: Vec<String>,
    /// False if the thread could not be pinned to its core.
    pub pinned: bool,
    /// The worker's thread in the kernel's numbering.
    pub thread: i32,
}

/// What is its worker's alone from the start.
pub struct Own {
    /// One socket per listener.
    pub sockets: Vec<TcpListener>,
    /// Where it hears that there is a message for it.
    pub ear: UnixStream,
}

/// Starts the worker `id` on CPU `core`. It says so on `started`, or why it can't. Its thread ends when it has drained.
///
/// # Errors
/// If the thread cannot be made.
pub fn start(
    id: WorkerId,
    core: usize,
    own: Own,
    shared: Arc<Shared>,
    started: SyncSender<io::Result<Started>>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("ringway-{}", id.0)).spawn(move || {
        let pinned = pin_to(core);
        let ring = &shared.config.ring;
        let best = match ring.driver {
            Driver::Deferred => Rung::Deferred,
            Driver::Cooperative => Rung::Cooperative,
            Driver::Plain => Rung::Plain,
            Driver::Epoll => Rung::Epoll,
        };
        // The ring must be built on the thread that will use it.
        match EventLoop::climb_down(best, ring.entries) {
            Ok(mut event_loop) => {
                let (rung, refused) = (event_loop.rung, std::mem::take(&mut event_loop.refused));
                let thread = nix::unistd::gettid().as_raw();
                event_loop.block_on(run(id, own, rung, shared, move |ready| {
                    // Nobody waits any more if starting has failed elsewhere.
                    let _ = started.send(ready.map(|()| Started { id, rung, refused, pinned, thread }));
                }));
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        }
    })
}

fn pin_to(core: usize) -> bool {
    // Short pauses must be short: the usual slack adds 50 µs to each.
    let _ = nix::sys::prctl::set_timerslack(1_000);
    let mut set = CpuSet::new();
    set.set(core).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)).is_ok()
}

async fn run(id: WorkerId, own: Own, rung: Rung, shared: Arc<Shared>, ready: impl FnOnce(io::Result<()>)) {
    let worker = Worker::new(id, shared);
    let acceptors: io::Result<Vec<Rc<Acceptor>>> =
        own.sockets.into_iter().map(|socket| Acceptor::new(socket, rung == Rung::Epoll).map(Rc::new)).collect();
    let acceptors = match acceptors {
        Ok(acceptors) => acceptors,
        Err(error) => return ready(Err(error)),
    };
    let _arrivals = arrival::ClosedAtEnd(worker.clone());
    let ear = match Ear::new(own.ear) {
        Ok(ear) => ear,
        Err(error) => return ready(Err(error)),
    };
    spawn(wake_those_who_wait());
    spawn(worker.timers.clone().drive());
    spawn(worker.moderator.clone().run());
    spawn(sweep(worker.clone()));
    // Each waiting accept takes one connection per turn. On epoll only one task can wait for a socket, but that one goes
    // on for as long as there are connections.
    let accepts = if rung == Rung::Epoll { 1 } else { ACCEPTS };
    for (listener, acceptor) in acceptors.iter().enumerate() {
        let gate = Rc::<gate::Gate>::default();
        for _ in 0..accepts {
            spawn(arrival::accept(worker.clone(), listener, acceptor.clone(), gate.clone()));
        }
    }
    spawn(drain::hear(worker.clone(), ear));
    worker.board.beat_ns.set(worker.clock.now().0);
    worker.board.memory_max.set(worker.shared.memory_max as u64);
    worker.board.accepting.set(1);
    ready(Ok(()));
    drain::listen(worker.clone(), acceptors).await;
    worker.board.ended.set(1);
}

/// What is due once a second; that it is done shows that this worker is not stuck.
async fn sweep(worker: Rc<Worker>) {
    let board = worker.board.clone();
    let mut due = worker.clock.now();
    loop {
        let now = worker.clock.now();
        board.beat_ns.set(now.0);
        board.lag_ns.set((now - due).as_nanos() as u64);
        board.ring_depth.set(Operation::under_way());
        board.memory.set(heap::held() as u64);
        worker.upstreams.sweep(now);
        worker.buffers.collect();
        passage::collect();
        due = now + SWEEP;
        worker.timers.sleep_until(due).await;
    }
}
