//! The admin listener: is it alive, should clients come, what does it count, what does it do.
//!
//! On hyper and the control thread, beside the workers: they are read, never asked. A scrape of a hundred thousand series
//! takes tens of milliseconds of CPU, which a worker on the same core would wait for; so it is written in bursts of
//! [`BURST`] with pauses of [`PAUSE`], one burst at a time however many clients there are.

mod status;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{Task, process};
use crate::base::clock::{Clock, Instant};
use crate::config::Config;
use crate::mesh::mailbox::Mailbox;
use crate::net::dns::{Found, Lookups, Names};
use crate::telemetry::Records;
use crate::telemetry::log;
use crate::telemetry::metrics::scrape::{Facts, NamesFacts, Scraper, WorkerFacts};
use crate::telemetry::metrics::text::Format;

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// From a connection, or the end of an answer, to the end of the next request's head.
const HEAD: Duration = Duration::from_secs(30);
/// Request line and headers together.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// A worker that has not come to its once-a-second duty for so long is stuck.
pub const STUCK: Duration = Duration::from_secs(5);
/// How often workers' CPU time is read.
const SAMPLE: Duration = Duration::from_secs(2);
/// How long a scrape is written before workers that wait for the core have it. An unoptimised build is ten times slower,
/// and nobody's stream waits for one.
const BURST: Duration = Duration::from_micros(if cfg!(debug_assertions) { 2_000 } else { 100 });
/// How long it then waits.
const PAUSE: Duration = Duration::from_millis(1);
/// Text of a scrape that may wait for its client, besides what is being written.
const PIECE_BYTES: usize = 32 * 1024;

const PATHS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/status"];

/// How far the gateway is: starting, ready, draining.
///
/// Lives on: the thread that starts and ends the gateway, which writes it; the control thread reads.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU8,
    started: OnceLock<Started>,
}

/// What is known once it has started.
#[derive(Debug)]
pub struct Started {
    /// Where it listens for clients.
    pub addresses: Vec<SocketAddr>,
    /// Its workers, by number.
    pub workers: Vec<WorkerInfo>,
}

/// One worker.
#[derive(Debug)]
pub struct WorkerInfo {
    /// Its CPU.
    pub core: usize,
    /// True if it is pinned to that.
    pub pinned: bool,
    /// How its event loop is driven.
    pub rung: String,
    /// Its thread in the kernel's numbering.
    pub thread: i32,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Progress {
    /// Every worker accepts.
    pub fn is_ready(&self, started: Started) {
        // Only ever said once.
        let _ = self.started.set(started);
        let _ = self.stage.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The gateway was told to end. To be said before any worker is.
    pub fn is_draining(&self) {
        self.stage.store(DRAINING, Ordering::Release);
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    fn addresses(&self) -> &[SocketAddr] {
        self.started.get().map_or(&[], |started| &started.addresses)
    }

    fn workers(&self) -> &[WorkerInfo] {
        self.started.get().map_or(&[], |started| &started.workers)
    }
}

/// What the listener tells of.
pub struct Sources {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where it was read from, if from a file.
    pub config_path: Option<PathBuf>,
    /// The gateway's clock.
    pub clock: Clock,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// What is counted.
    pub scraper: Scraper,
    /// Records on their way to the log.
    pub records: Option<Arc<Records>>,
    /// Names as they are resolved.
    pub names: Arc<Mailbox<Arc<Names>>>,
    /// How the asking for them goes.
    pub lookups: Arc<Lookups>,
}

struct Admin {
    sources: Sources,
    since: Instant,
    started_s: u64,
    known: Arc<Names>,
    workers: Vec<WorkerFacts>,
    sampled: Instant,
}

/// What the connections share.
struct Shared {
    admin: Mutex<Admin>,
    /// Held while a scrape is written and while it pauses, so that many clients pause as one does.
    turn: Mutex<()>,
}

/// Listens on `address`; the socket that [`task`] takes, and where that is.
///
/// # Errors
/// The address is in use, not ours, or not allowed.
pub fn bind(address: SocketAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok((listener.local_addr()?, listener))
}

/// Serves the admin listener for ever.
pub fn task(listener: TcpListener, sources: Sources) -> Task {
    Box::pin(async move {
        if let Err(error) = serve(listener, sources).await {
            log::error("admin", format!("the admin listener has ended: {error}")).say();
        }
    })
}

async fn serve(listener: TcpListener, sources: Sources) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let now = sources.clock.now();
    let admin = Admin {
        since: now,
        started_s: sources.clock.unix().0 / 1_000_000,
        known: Arc::default(),
        workers: Vec::new(),
        sampled: now,
        sources,
    };
    let shared = Arc::new(Shared { admin: Mutex::new(admin), turn: Mutex::new(()) });
    let sampler = shared.clone();
    tokio::spawn(async move {
        loop {
            sampler.admin.lock().await.sample();
            tokio::time::sleep(SAMPLE).await;
        }
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: trying again at once would spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(|request| answer(request, shared.clone()));
            // How a connection failed is its client's affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(wire::Timer)
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(wire::Wire::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Answer>, Infallible> {
    let mut response = match (request.method(), request.uri().path()) {
        (&(Method::GET | Method::HEAD), path) => match path {
            "/healthz" => verdict(shared.admin.lock().await.health_now()),
            "/readyz" => verdict(shared.admin.lock().await.readiness_now()),
            "/status" => {
                let status = shared.admin.lock().await.status();
                plain(StatusCode::OK, "application/json", format!("{status:#}\n"))
            }
            "/metrics" => metrics(&request, &shared).await,
            _ => plain(StatusCode::NOT_FOUND, TEXT, format!("Not here. There are: {}\n", PATHS.join(" "))),
        },
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Only GET and HEAD.\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

const TEXT: &str = "text/plain; charset=utf-8";

fn plain(status: StatusCode, media: &'static str, text: String) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(Some(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn verdict(verdict: Result<(), String>) -> Response<Answer> {
    match verdict {
        Ok(()) => plain(StatusCode::OK, TEXT, "ok\n".into()),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

async fn metrics(request: &Request<Incoming>, shared: &Arc<Shared>) -> Response<Answer> {
    let accept: Vec<&str> = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::of_accept(&accept.join(","));
    let answer = match *request.method() == Method::HEAD {
        true => Answer::Whole(None),
        false => {
            let (pieces, answer) = mpsc::channel(1);
            tokio::spawn(write(shared.clone(), format, pieces));
            Answer::Pieces(answer)
        }
    };
    let mut response = Response::new(answer);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

/// Writes a scrape, as fast as its client takes it and workers are left alone.
async fn write(shared: Arc<Shared>, format: Format, pieces: mpsc::Sender<Bytes>) {
    let (clock, mut scrape) = {
        let mut admin = shared.admin.lock().await;
        let facts = admin.facts();
        (admin.sources.clock.clone(), admin.sources.scraper.scrape(format, facts))
    };
    let mut more = true;
    while more {
        {
            let _turn = shared.turn.lock().await;
            let until = clock.now() + BURST;
            while more && scrape.waiting() < PIECE_BYTES && clock.now() < until {
                more = scrape.step();
            }
            tokio::time::sleep(PAUSE).await;
        }
        // The turn is not held meanwhile: a client that reads slowly holds up itself only.
        if (scrape.waiting() >= PIECE_BYTES || !more) && pieces.send(scrape.take().into()).await.is_err() {
            return;
        }
    }
}

/// An answer's body.
enum Answer {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Bytes>),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Answer::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Answer::Pieces(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Answer::Pieces(_) => SizeHint::default(),
        }
    }
}

impl Admin {
    /// Whether the process lives: no worker is stuck.
    fn health(&self, now: Instant) -> Result<(), String> {
        let stuck = self.sources.scraper.boards().iter().enumerate();
        let stuck: Vec<String> = stuck
            .filter(|(_, board)| board.silence(now) > STUCK)
            .map(|(at, board)| format!("worker {at} is stuck: silent for {:?}", board.silence(now)))
            .collect();
        if stuck.is_empty() { Ok(()) } else { Err(stuck.join("\n")) }
    }

    fn health_now(&self) -> Result<(), String> {
        self.health(self.sources.clock.now())
    }

    fn readiness_now(&mut self) -> Result<(), String> {
        self.learn();
        self.readiness(self.sources.clock.now())
    }

    /// Whether clients should come.
    fn readiness(&self, now: Instant) -> Result<(), String> {
        match self.sources.progress.stage() {
            STARTING => Err("starting: not every worker accepts yet".into()),
            DRAINING => Err("draining: told to end, finishing what is under way".into()),
            // Right after start, or where no name server answers: every request would have to wait.
            _ if !self.has_address() => Err("no endpoint has an address yet: their names do not resolve".into()),
            _ => self.health(now),
        }
    }

    fn has_address(&self) -> bool {
        self.sources.config.endpoints.iter().any(|endpoint| {
            let (host, _) = endpoint.dialled();
            host.parse::<IpAddr>().is_ok() || matches!(self.known.get(host), Some(Found::Addresses(_)))
        })
    }

    /// Takes over what was resolved since.
    fn learn(&mut self) {
        if let Some(names) = self.sources.names.take() {
            self.known = names;
        }
    }

    /// Reads how much CPU time the workers have had since the last time.
    fn sample(&mut self) {
        self.sources.scraper.look();
        self.learn();
        let now = self.sources.clock.now();
        let passed = (now - self.sampled).as_secs_f64();
        self.sampled = now;
        let threads = self.sources.progress.workers().iter().map(|worker| worker.thread);
        self.workers.resize(self.sources.progress.workers().len(), WorkerFacts::default());
        for (thread, facts) in threads.zip(&mut self.workers) {
            // One that has ended keeps its last figure.
            let cpu = process::thread_cpu(thread).unwrap_or(facts.cpu);
            let ran = cpu.saturating_sub(facts.cpu).as_secs_f64();
            // Before the first look back there is none to compare with.
            facts.busy = if facts.cpu.is_zero() || passed <= 0.0 { 0.0 } else { (ran / passed).min(1.0) };
            facts.cpu = cpu;
        }
    }

    /// How names are resolved, if there are any.
    fn names_facts(&self, now: Instant) -> Option<NamesFacts> {
        let lookups = &self.sources.lookups;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let oldest = Some(Instant(read(&lookups.oldest))).filter(|at| *at != Instant::NEVER);
        (read(&lookups.names) > 0).then(|| NamesFacts {
            lookups: [
                read(&lookups.found),
                read(&lookups.no_name),
                read(&lookups.no_address),
                read(&lookups.no_answer),
                read(&lookups.failed),
            ],
            names: read(&lookups.names),
            failing: read(&lookups.failing),
            oldest: oldest.map(|at| now - at),
        })
    }

    fn facts(&mut self) -> Facts {
        self.learn();
        let now = self.sources.clock.now();
        let workers = self.sources.progress.workers().iter().enumerate();
        let workers = workers.map(|(at, worker)| WorkerFacts {
            cpu: process::thread_cpu(worker.thread).unwrap_or_default(),
            busy: self.workers.get(at).map_or(0.0, |facts| facts.busy),
        });
        let mut process = process::facts();
        process.started_s = Some(self.started_s);
        Facts {
            now,
            uptime: now - self.since,
            ready: self.readiness(now).is_ok(),
            draining: self.sources.progress.stage() == DRAINING,
            names: self.names_facts(now),
            log_dropped: self.sources.records.as_ref().map(|records| records.dropped()),
            workers: workers.collect(),
            process,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Proxy, fixture};
    use crate::net::dns::Missing;
    use crate::telemetry::metrics::board::Board;
    use crate::telemetry::metrics::cells::Names as Labels;

    fn admin() -> Admin {
        let clock = Clock::new();
        let boards = (0..2).map(|_| Arc::new(Board::new(1, 1, 1))).collect();
        let labels = Labels::new(vec!["m".into()], vec!["p0/0".into()], vec!["x".into()]);
        Admin {
            since: clock.now(),
            started_s: 1,
            known: Arc::default(),
            workers: Vec::new(),
            sampled: clock.now(),
            sources: Sources {
                config: Arc::new(fixture(&[1], &[("m", &[(0, None)])])),
                config_path: None,
                clock,
                progress: Arc::default(),
                scraper: Scraper::new(boards, labels),
                records: None,
                names: Arc::default(),
                lookups: Arc::default(),
            },
        }
    }

    #[test]
    fn a_worker_whose_loop_does_not_turn_is_stuck_and_one_that_has_ended_is_not() {
        let admin = admin();
        let now = Instant(0) + STUCK * 10;
        assert_eq!(admin.readiness(now), Err("starting: not every worker accepts yet".into()));
        admin.sources.progress.is_ready(Started { addresses: Vec::new(), workers: Vec::new() });
        let [first, second] = admin.sources.scraper.boards() else { panic!("two boards") };
        // One that does not accept yet has no duties.
        assert_eq!((admin.health(now), admin.readiness(now)), (Ok(()), Ok(())));
        [first, second].iter().for_each(|board| board.accepting.set(1));
        first.beat_ns.set(now.0);
        for (silent, is_stuck) in [(STUCK, false), (STUCK + Duration::from_nanos(1), true)] {
            second.beat_ns.set(now.0 - silent.as_nanos() as u64);
            assert_eq!(admin.health(now).is_err(), is_stuck, "{silent:?}");
        }
        assert_eq!(admin.readiness(now), Err("worker 1 is stuck: silent for 5.000000001s".into()));
        second.ended.set(1);
        assert_eq!(admin.health(now), Ok(()));
    }

    #[test]
    fn it_is_not_ready_while_no_endpoint_has_an_address() {
        let mut admin = admin();
        admin.sources.progress.is_ready(Started { addresses: Vec::new(), workers: Vec::new() });
        let mut config = fixture(&[2], &[("m", &[(0, None)])]);
        config.endpoints.iter_mut().for_each(|endpoint| endpoint.host = "api.test".into());
        config.endpoints[1].host = "two.test".into();
        admin.sources.config = Arc::new(config);
        let why = admin.readiness_now().unwrap_err();
        assert!(why.starts_with("no endpoint has an address"), "{why}");
        let found = |found| Arc::new(Names::from([("two.test".to_owned(), found)]));
        admin.sources.names.put(found(Found::Missing(Missing::NoAnswer)));
        assert!(admin.readiness_now().is_err());
        admin.sources.names.put(found(Found::Addresses(Arc::new([[127, 0, 0, 1].into()]))));
        assert_eq!(admin.readiness_now(), Ok(()));
    }

    #[test]
    fn behind_a_proxy_it_is_the_proxy_that_needs_an_address() {
        for (proxy, is_ready) in [("192.0.2.1", true), ("two.test", true), ("proxy.test", false)] {
            let mut admin = admin();
            admin.sources.progress.is_ready(Started { addresses: Vec::new(), workers: Vec::new() });
            let mut config = fixture(&[1], &[("m", &[(0, None)])]);
            config.endpoints[0].host = "api.test".into();
            config.endpoints[0].proxy = Some(Proxy { host: proxy.into(), port: 3128, authorization: None });
            admin.sources.config = Arc::new(config);
            let known = Found::Addresses(Arc::new([[127, 0, 0, 1].into()]));
            admin.sources.names.put(Arc::new(Names::from([("two.test".to_owned(), known)])));
            assert_eq!(admin.readiness_now().is_ok(), is_ready, "{proxy}");
        }
    }

    #[test]
    fn draining_is_for_good() {
        let admin = admin();
        admin.sources.progress.is_draining();
        admin.sources.progress.is_ready(Started { addresses: Vec::new(), workers: Vec::new() });
        assert!(admin.readiness(Instant(0)).unwrap_err().starts_with("draining"));
    }
}
