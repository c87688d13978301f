//! The runtime's face: the ring and the ladder down from it, and panics that stop at one task.
//!
//! Which ring flags a kernel knows, whether a container's seccomp profile allows io_uring at all, and how much
//! memory may be locked cannot be asked, only tried. So each rung is really built, best first. The flags matter
//! more than anything else here: deferred task run with a single issuer saves 13 to 30 % of a relayed
//! request's CPU, and a ring without flags costs more than epoll.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monoio::io::AsyncReadRent;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use nix::sys::resource::{Resource, getrlimit};

/// How an event loop is driven, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// io_uring with deferred task run and a single issuer (Linux 6.1).
    Deferred,
    /// io_uring with cooperative task run (Linux 5.19).
    Cooperative,
    /// io_uring without flags (written for Linux 5.10).
    Plain,
    /// epoll.
    Epoll,
}

impl Rung {
    const LADDER: [Rung; 4] = [Rung::Deferred, Rung::Cooperative, Rung::Plain, Rung::Epoll];
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rung::Deferred => "io_uring (deferred task run, single issuer)",
            Rung::Cooperative => "io_uring (cooperative task run)",
            Rung::Plain => "io_uring (no flags)",
            Rung::Epoll => "epoll",
        })
    }
}

/// An event loop of this thread.
pub struct EventLoop {
    runtime: Either,
    /// The rung that it stands on.
    pub rung: Rung,
    /// Why the rungs above it could not be built, one sentence each.
    pub refused: Vec<String>,
}

enum Either {
    Ring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

impl EventLoop {
    /// Builds the best event loop from `best` down, with `entries` submission entries. It belongs to the
    /// calling thread: a single-issuer ring serves no other.
    ///
    /// # Errors
    /// If not even the last rung can be built.
    pub fn climb_down(best: Rung, entries: u32) -> io::Result<EventLoop> {
        let mut refused = Vec::new();
        for rung in Rung::LADDER.into_iter().filter(|rung| *rung >= best) {
            match build(rung, entries) {
                Ok(runtime) => {
                    return Ok(EventLoop { runtime, rung, refused });
                }
                Err(error) => refused.push(format!("{rung}: {}", why(&error, entries))),
            }
        }
        Err(io::Error::other(refused.join("; ")))
    }

    /// Runs `future`, and with it all tasks spawned meanwhile, until it ends.
    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match &mut self.runtime {
            Either::Ring(runtime) => runtime.block_on(future),
            Either::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

/// Why a ring of so many entries could not be built.
fn why(error: &io::Error, entries: u32) -> String {
    if error.raw_os_error() != Some(nix::libc::ENOMEM) {
        return error.to_string();
    }
    // Who has CAP_IPC_LOCK meets no limit, and has no memory left.
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map(|(soft, _)| soft >> 10).unwrap_or_default();
    format!(
        "{error}; the limit on locked memory (RLIMIT_MEMLOCK) is {limit} KiB, for all rings of this user together, and one \
         of ring.entries = {entries} does not fit: raise it (LimitMEMLOCK, ulimit -l), or grant CAP_IPC_LOCK"
    )
}

fn build(rung: Rung, entries: u32) -> io::Result<Either> {
    let mut ring = io_uring::IoUring::builder();
    match rung {
        Rung::Deferred => {
            ring.setup_single_issuer().setup_defer_taskrun();
        }
        Rung::Cooperative => {
            ring.setup_coop_taskrun().setup_taskrun_flag();
        }
        Rung::Plain => {}
        Rung::Epoll => {
            return Ok(Either::Epoll(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?));
        }
    }
    let build = |ring: io_uring::Builder| {
        RuntimeBuilder::<IoUringDriver>::new().with_entries(entries).uring_builder(ring).enable_timer().build()
    };
    let mut runtime = match build(ring.clone()) {
        // A ring torn down by a previous process is uncharged late, so locked memory may be short for a moment.
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOMEM) => {
            std::thread::sleep(Duration::from_millis(20));
            build(ring)?
        }
        built => built?,
    };
    // Built is not yet working: a profile may allow the set-up and deny the entering.
    runtime.block_on(one_read())?;
    Ok(Either::Ring(runtime))
}

/// Reads a byte that is already there, in bounded time.
async fn one_read() -> io::Result<()> {
    let (mut near, far) = std::os::unix::net::UnixStream::pair()?;
    near.write_all(b"!")?;
    let mut far = monoio::net::UnixStream::from_std(far)?;
    let read = async { far.read(Vec::with_capacity(1)).await.0 };
    let late = monoio::time::sleep(Duration::from_millis(100));
    let (mut read, mut late) = (pin!(read), pin!(late));
    let n = poll_fn(|cx| match read.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => late.as_mut().poll(cx).map(|()| Err(io::Error::other("the ring completes nothing"))),
    })
    .await?;
    if n == 1 { Ok(()) } else { Err(io::Error::other("the ring lost a byte")) }
}

/// The end of a socket pair on which another thread rings.
pub struct Ear(monoio::net::UnixStream);

impl Ear {
    /// Takes the end over, on the thread that will hear.
    ///
    /// # Errors
    /// If the event loop refuses it.
    pub fn new(end: std::os::unix::net::UnixStream) -> io::Result<Ear> {
        end.set_nonblocking(monoio::utils::is_legacy())?;
        Ok(Ear(monoio::net::UnixStream::from_std(end)?))
    }

    /// Waits for the next ring, or several at once; false once nobody is left to ring. Must not be dropped while it waits.
    pub async fn hear(&mut self) -> bool {
        matches!(self.0.read(Vec::with_capacity(64)).await.0, Ok(1..))
    }
}

/// Starts a task on this thread's event loop.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    // Not joined: a connection's task ends by itself, and dropping the handle of a running task is sound on one thread.
    drop(monoio::spawn(task));
}

thread_local! {
    /// Who waits for others to have their turn, and the task that wakes them.
    static LATER: RefCell<(Vec<Waker>, Option<Waker>)> = const { RefCell::new((Vec::new(), None)) };
}

/// Wakes `waker` after the event loop has looked at its timers and sockets.
///
/// A task that woke itself would run again before all others (the runtime puts it in front), and while any task
/// is ready the loop neither fires timers nor, on a ring, takes completions. So [`wake_those_who_wait`] wakes it
/// off a timer, the shortest there is.
pub fn wake_later(waker: &Waker) {
    LATER.with_borrow_mut(|(waiting, by)| {
        waiting.push(waker.clone());
        if let Some(by) = by.take() {
            by.wake();
        }
    });
}

/// Waits until the event loop has looked at its timers and sockets, as [`wake_later`] has it.
pub async fn later() {
    let mut asked = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        wake_later(cx.waker());
        Poll::Pending
    })
    .await;
}

/// Serves [`wake_later`], for ever. Every event loop runs one.
pub async fn wake_those_who_wait() {
    loop {
        poll_fn(|cx| {
            LATER.with_borrow_mut(|(waiting, by)| match waiting.is_empty() {
                true => {
                    *by = Some(cx.waker().clone());
                    Poll::Pending
                }
                false => Poll::Ready(()),
            })
        })
        .await;
        monoio::time::sleep(Duration::from_millis(1)).await;
        let waiting = LATER.with_borrow_mut(|(waiting, _)| std::mem::take(waiting));
        waiting.into_iter().for_each(Waker::wake);
    }
}

thread_local! {
    /// Reads and writes that this thread has with the kernel.
    static OPERATIONS: Cell<u64> = const { Cell::new(0) };
}

/// A read or write that is with the kernel, or about to be given up, for as long as this lives.
pub struct Operation(());

impl Operation {
    /// Begins one.
    pub fn begin() -> Operation {
        OPERATIONS.set(OPERATIONS.get() + 1);
        Operation(())
    }

    /// How many this thread has.
    pub fn under_way() -> u64 {
        OPERATIONS.get()
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        OPERATIONS.set(OPERATIONS.get() - 1);
    }
}

/// A future whose panic ends it and nothing else.
///
/// The runtime does not catch panics: one would unwind through its loop and end the worker.
pub struct CatchUnwind<F>(Pin<Box<F>>);

impl<F: Future> CatchUnwind<F> {
    /// Guards `future`, which is boxed.
    pub fn new(future: F) -> CatchUnwind<F> {
        CatchUnwind(Box::pin(future))
    }
}

impl<F: Future> Future for CatchUnwind<F> {
    /// `Err` holds the panic's message.
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.0.as_mut();
        // Whatever the future held is dropped with it by its owner; shared state is made of Cells whose every
        // update is whole, so nothing half-done is left behind.
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a message".to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_that_this_kernel_has_runs_a_task() {
        for rung in Rung::LADDER {
            let mut event_loop = EventLoop::climb_down(rung, 256).unwrap();
            assert!(event_loop.rung >= rung);
            let answer = event_loop.block_on(async { monoio::spawn(async { 42 }).await });
            assert_eq!(answer, 42, "{rung}");
        }
    }

    #[test]
    fn a_ring_that_cannot_be_built_is_named_and_the_next_one_is_taken() {
        // 65536 entries are more than any kernel grants.
        let event_loop = EventLoop::climb_down(Rung::Deferred, 65536).unwrap();
        assert_eq!(event_loop.rung, Rung::Epoll);
        assert_eq!(event_loop.refused.len(), 3, "{:?}", event_loop.refused);
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_loop_goes_on() {
        let mut event_loop = EventLoop::climb_down(Rung::Epoll, 256).unwrap();
        let caught = event_loop.block_on(CatchUnwind::new(async {
            if std::hint::black_box(true) {
                panic!("at {}", "once");
            }
        }));
        assert_eq!(caught, Err("at once".to_owned()));
        assert_eq!(event_loop.block_on(CatchUnwind::new(async { 1 })), Ok(1));
    }
}
