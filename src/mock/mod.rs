//! The simulated provider: OpenAI's and Anthropic's APIs with settable timing and every fault a wire can have.
//!
//! On hyper and tokio, so that it shares no bug with our own HTTP. It is not a model and not fast
//! (but for [`MockConfig::fixed`]); what it says is decided by a seed.
//!
//! * What an answer does is a [`script::Script`]: set per instance, in the model's name
//!   (`mock:ttft=200ms,gap=20ms,tokens=50,fault=stall@3`), in the header `x-mock: …`, or one header per
//!   key (`x-mock-ttft: 200ms`). One grammar for all; the reference is [`script::KEYS`] and [`script::FAULTS`].
//! * Paths are known by their ends: `/chat/completions`, `/completions`, `/responses`, `/embeddings`, `/models`,
//!   `/models/NAME`, `/messages`, `/messages/count_tokens`. Any other POST is echoed.
//! * A WebSocket at `/realtime` speaks a little of OpenAI's Realtime protocol; `realtime.rs` says which.
//! * `/mock/echo-head` (and `x-mock-echo: 1` anywhere) answers with the request as it came.
//! * `GET /mock/stats`, `GET /mock/requests/ID`, `POST /mock/reset`, `POST /mock/script` (a script on top of
//!   the configured one, from now on) are the controls.

mod answer;
mod anthropic;
mod fixed;
mod openai;
mod play;
mod realtime;
pub mod script;
mod service;
pub mod stats;
mod tap;
mod text;
mod transfer;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use script::{Fault, Script};
use service::Context;
use stats::{Record, Snapshot, Stats};

/// How a mock is set up.
#[derive(Debug, Clone)]
pub struct MockConfig {
    /// How answers behave unless a request says otherwise.
    pub script: Script,
    /// Threads, each with a runtime of its own; at least 1. Default 1.
    pub threads: usize,
    /// If set, scripts are off and any POST gets one prebuilt answer of so many bytes (at least 300), at the
    /// least cost; a streamed one gets prebuilt events of `script.tokens` tokens, one each `script.gap`. Files come and
    /// go as `transfer.rs` says.
    pub fixed: Option<usize>,
}

impl Default for MockConfig {
    fn default() -> MockConfig {
        MockConfig { script: Script::default(), threads: 1, fixed: None }
    }
}

/// What all threads of a mock share, and the handle with them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub configured: Script,
    pub script: Mutex<Script>,
    pub stats: Arc<Stats>,
}

/// A running mock. Dropping it closes its connections and joins its threads.
#[derive(Debug)]
pub struct Mock {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Mock {
    /// Serves `listener` on threads named `mock-0`, `mock-1`, …, and returns at once.
    ///
    /// # Errors
    /// If the listener cannot be shared or a thread or its runtime cannot be made.
    pub fn spawn(listener: TcpListener, config: MockConfig) -> io::Result<Mock> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            configured: config.script.clone(),
            script: Mutex::new(config.script.clone()),
            stats: Arc::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let mut mock = Mock { addr, shared, stop, threads: Vec::new() };
        for index in 0..config.threads.max(1) {
            let listener = listener.try_clone()?;
            let shared = Arc::clone(&mock.shared);
            let fixed = config.fixed.map(|bytes| fixed::Answers::new(&config.script, bytes));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
            let stopped = stopped.clone();
            let thread = std::thread::Builder::new().name(format!("mock-{index}")).spawn(move || {
                let tasks = tokio::task::LocalSet::new();
                // Whatever still runs when `stopped` comes true is dropped with `tasks`.
                runtime.block_on(tasks.run_until(async {
                    match fixed {
                        Some(answers) => until(stopped, fixed::accept(listener, answers, shared)).await,
                        None => until(stopped, accept(listener, shared)).await,
                    }
                }));
            })?;
            mock.threads.push(thread);
        }
        Ok(mock)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it saw so far.
    pub fn stats(&self) -> Snapshot {
        self.shared.stats.snapshot()
    }

    /// The last request that named itself `id`, if it is still remembered.
    pub fn request(&self, id: &str) -> Option<Record> {
        self.shared.stats.record(id)
    }

    /// Forgets all counts and requests, as `POST /mock/reset`.
    pub fn reset(&self) {
        self.shared.stats.reset();
    }

    /// Changes how answers behave from the next request on. No effect in fixed mode.
    pub fn set_script(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Waits until the mock's threads end, which they do only when the process is told to.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>, serving: impl Future<Output = io::Result<()>>) {
    tokio::select! {
        _ = stopped.wait_for(|stopped| *stopped) => {}
        _ = serving => {}
    }
}

/// Accepts for ever; a failure to accept (too many open files) is waited out.
async fn accept(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let connection = shared.stats.connected();
        if shared.script.lock().unwrap_or_else(PoisonError::into_inner).fault == Fault::Refuse {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let wire = Rc::new(tap::Wire::default());
        let context = Rc::new(Context {
            shared: Arc::clone(&shared),
            wire: Rc::clone(&wire),
            connection: RefCell::new(connection),
            session: RefCell::default(),
        });
        tokio::task::spawn_local(async move {
            let tap = tap::Tap::new(stream, Rc::clone(&wire));
            let service = hyper::service::service_fn(|request| Box::pin(service::serve(request, Rc::clone(&context))));
            // How a connection failed is the client's affair; what it left behind is counted here.
            let mut served = hyper::server::conn::http1::Builder::new().serve_connection(tap, service);
            if poll_fn(|cx| served.poll_without_shutdown(cx)).await.is_ok() {
                let hyper::server::conn::http1::Parts { io, read_buf, .. } = served.into_parts();
                let mut stream = io.into_inner();
                match context.session.take() {
                    Some(session) => realtime::serve(stream, read_buf.to_vec(), session).await,
                    None => drop(stream.shutdown().await),
                }
            }
            wire.gone();
        });
    }
}
