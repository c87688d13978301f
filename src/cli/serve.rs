//! `ringway serve`: puts configuration, workers and control plane together.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

use super::memory;
use super::notify::Manager;
use crate::admission::Keys;
use crate::admission::cors::Cors;
use crate::base::WorkerId;
use crate::base::clock::{Clock, UnixTime};
use crate::config::{self, Config, LogTarget};
use crate::control::access_log::{self, AccessLog, Reopener};
use crate::control::admin::{self, Progress, WorkerInfo};
use crate::control::credentials::{Loader, News};
use crate::control::{self, program_log, resolver, watch};
use crate::listener;
use crate::mesh::mailbox::Mailbox;
use crate::mesh::port::Port;
use crate::net::rt::Rung;
use crate::net::shortage::Shares;
use crate::net::tls::Credentials;
use crate::routing::Table;
use crate::telemetry::metrics::board::Board;
use crate::telemetry::metrics::cells::{Names, SERIES_PER_ROUTE};
use crate::telemetry::metrics::scrape::Scraper;
use crate::telemetry::{self, log};
use crate::worker::state::Shared;
use crate::worker::{self, Own, Started, ToWorker, arrival};

/// What may come behind `client.drain`: the last words of workers (3 s), then those of an access log whose disk is slow
/// (5 s) and of the program log whose reader is (2 s).
const AFTER_DRAIN: Duration = Duration::from_secs(12);

/// A gateway that accepts clients. It runs until the process ends.
pub struct Running {
    /// Where it listens, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Its workers.
    pub workers: Vec<Started>,
    /// Where operators look in, if they may.
    pub admin: Option<SocketAddr>,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
    access_log: Option<AccessLog>,
}

impl Running {
    /// Tells the workers to end: to take no more clients after `client.drain_delay`, to let what is under way go on for
    /// `client.drain` from then, and to tell those that are cut then.
    pub fn ring(&self) {
        self.progress.is_draining();
        let client = &self.shared.config.client;
        let close = self.shared.clock.now() + client.drain_delay;
        for port in &self.shared.ports {
            port.send(ToWorker::Drain { close, by: close + client.drain });
        }
    }

    /// Has the service manager told that all goes well, as often as it asks for.
    fn watch(&self, manager: &Arc<Manager>) -> io::Result<()> {
        let Some(within) = manager.watchdog() else { return Ok(()) };
        let (manager, shared) = (manager.clone(), self.shared.clone());
        let watch = move || loop {
            std::thread::sleep(within / 2);
            manager.watch(&shared.boards, shared.clock.now());
        };
        std::thread::Builder::new().name("ringway-watchdog".into()).spawn(watch).map(drop)
    }

    /// Returns when all workers have ended and the last records are written.
    pub fn wait(self) {
        for thread in self.threads {
            // One that has panicked has ended as well.
            let _ = thread.join();
        }
        if let Some(log) = self.access_log {
            log.finish();
        }
    }
}

/// Serves the configuration file until the process is ended.
pub fn serve(path: &Path) -> ExitCode {
    let config = match super::check::load(path) {
        Ok(config) => config,
        Err(report) => {
            eprint!("{report}");
            return ExitCode::from(2);
        }
    };
    // Before there are other threads: they inherit that the signals are not for them.
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect::<SigSet>();
    // A log that has come to the limit of a file's size (RLIMIT_FSIZE) is a write that fails, and no reason to end. Nobody
    // waits for this one.
    let blocked = signals | Signal::SIGXFSZ;
    if let Err(error) = blocked.thread_block() {
        eprintln!("ringway: signals cannot be waited for: {error}");
        return ExitCode::FAILURE;
    }
    // Ended last: what is said on the way out is written too.
    let log = match program_log::start(config.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("ringway: the log's thread cannot be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = run(config, path, signals);
    drop(log);
    code
}

/// Serves until one of `signals` ends it, which are blocked.
fn run(config: Config, path: &Path, signals: SigSet) -> ExitCode {
    let cores = config.cores.clone();
    let (delay, drain) = (config.client.drain_delay, config.client.drain);
    // Detached: it ends with the process, or ends the process, also one that is stuck in starting.
    let (tell, told) = sync_channel(1);
    // Files may be moved away while the gateway ends as well.
    let reopener = Arc::new(OnceLock::<Reopener>::new());
    let on_hangup = reopener.clone();
    let waiter = std::thread::Builder::new().name("ringway-signals".into()).spawn(move || {
        let mut ending = false;
        loop {
            match signals.wait() {
                Ok(Signal::SIGHUP) => on_hangup.get().into_iter().for_each(Reopener::reopen),
                _ if ending => std::process::exit(1),
                first => {
                    ending = true;
                    // The only one ever, so there is room.
                    let _ = tell.send(first);
                }
            }
        }
    });
    if let Err(error) = waiter {
        log::error("serve", format!("signals cannot be waited for: {error}")).say();
        return ExitCode::FAILURE;
    }
    let manager = Arc::new(Manager::from_env());
    match start_from(config, Some(path)) {
        Ok(running) => {
            if let Some(log) = &running.access_log {
                let _ = reopener.set(log.reopener());
            }
            announce(&running, &cores);
            manager.ready(&workers(&running, &cores));
            if let Err(error) = running.watch(&manager) {
                log::error("serve", format!("the service manager's watchdog cannot be told: {error}")).say();
            }
            let signal = told.recv();
            running.ring();
            manager.stopping(delay + drain + AFTER_DRAIN, "finishing what is under way");
            let name = signal.ok().and_then(Result::ok).map_or("ended", Signal::as_str);
            let first = if delay.is_zero() { String::new() } else { format!("clients may come for {delay:?}, then ") };
            let text = format!("{name}: ending; {first}what is under way has {drain:?}, another signal ends at once");
            log::info("serve", text).say();
            running.wait();
            ExitCode::SUCCESS
        }
        Err(why) => {
            log::error("serve", why).say();
            ExitCode::FAILURE
        }
    }
}

/// Starts a gateway within this process and returns once every worker accepts.
///
/// # Errors
/// A sentence for the operator: a taken address, an unreadable authority, a thread or ring that cannot be made.
pub fn start(config: Config) -> Result<Running, String> {
    start_from(config, None)
}

fn start_from(config: Config, path: Option<&Path>) -> Result<Running, String> {
    let descriptors_max = raise_descriptor_limit();
    let workers = config.cores.len();
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for listener in &config.listeners {
        let (address, bound) =
            listener::bind_all(listener.address, workers).map_err(|error| cannot_listen(listener.address, &error))?;
        addresses.push(address);
        for (own, socket) in sockets.iter_mut().zip(bound) {
            own.push(socket);
        }
    }
    let (mut ports, mut ears) = (Vec::new(), Vec::new());
    for _ in 0..workers {
        let (port, ear) = Port::new().map_err(|error| format!("no socket pair can be had: {error}"))?;
        ports.push(port);
        ears.push(ear);
    }
    let admin = config.admin.as_ref().map(|admin| bind_admin(admin.address)).transpose()?;
    let admin_address = admin.as_ref().map(|(address, _)| *address);
    let config = Arc::new(config);
    let clock = Clock::new();
    let mut loader = Loader::new(config.clone());
    let credentials = credentials(&mut loader, clock.unix())?;
    let (shared, access_log) = share(config, clock, credentials, ports, &addresses, descriptors_max)?;
    let progress = Arc::new(Progress::default());
    let (sender, receiver) = sync_channel(workers);
    let mut threads = Vec::new();
    for ((id, core), (sockets, ear)) in (0..).zip(&shared.config.cores).zip(sockets.into_iter().zip(ears)) {
        let thread = worker::start(WorkerId(id), *core, Own { sockets, ear }, shared.clone(), sender.clone())
            .map_err(|error| format!("worker {id} cannot be started: {error}"))?;
        threads.push(thread);
    }
    let mut tasks = tasks(&shared, &progress, &addresses, admin, path);
    tasks.extend(certificates(loader, &shared));
    control::start(tasks).map_err(|error| format!("the control thread cannot be started: {error}"))?;
    let mut started = Vec::new();
    for _ in 0..workers {
        let one = receiver.recv().map_err(|_| "a worker ended while it started".to_owned())?;
        started.push(one.map_err(|error| format!("no event loop can be built: {error}"))?);
    }
    started.sort_by_key(|worker| worker.id);
    let workers = started.iter().zip(&shared.config.cores).map(|(worker, core)| WorkerInfo {
        core: *core,
        pinned: worker.pinned,
        rung: worker.rung.to_string(),
        thread: worker.thread,
    });
    progress.is_ready(admin::Started { addresses: addresses.clone(), workers: workers.collect() });
    Ok(Running { addresses, workers: started, admin: admin_address, shared, progress, threads, access_log })
}

/// What the control thread is to do.
fn tasks(
    shared: &Arc<Shared>,
    progress: &Arc<Progress>,
    addresses: &[SocketAddr],
    admin: Option<(SocketAddr, std::net::TcpListener)>,
    path: Option<&Path>,
) -> Vec<control::Task> {
    let config = &shared.config;
    let known = Arc::new(Mailbox::default());
    let told = known.clone();
    let hosts: Vec<String> = shared.config.endpoints.iter().map(|endpoint| endpoint.dialled().0.to_owned()).collect();
    let means = resolver::Means {
        config: shared.config.resolver.clone(),
        clock: shared.clock.clone(),
        seed: shared.seed,
        lookups: shared.lookups.clone(),
    };
    let publisher = shared.clone();
    let names = resolver::task(hosts, means, move |names| {
        for (mailbox, port) in publisher.names.iter().zip(&publisher.ports) {
            mailbox.put(names.clone());
            port.ring();
        }
        told.put(names);
    });
    let words = |words: &mut dyn Iterator<Item = &String>| words.cloned().collect();
    let admin = admin.map(|(_, listener)| {
        let labels = Names::new(
            words(&mut config.models.iter().chain(&config.default_model).map(|model| &model.name)),
            words(&mut config.endpoints.iter().map(|endpoint| &endpoint.name)),
            addresses.iter().map(SocketAddr::to_string).collect(),
        );
        let sources = admin::Sources {
            config: config.clone(),
            config_path: path.map(Path::to_path_buf),
            clock: shared.clock.clone(),
            progress: progress.clone(),
            scraper: Scraper::new(shared.boards.clone(), labels),
            records: shared.records.clone(),
            names: known,
            lookups: shared.lookups.clone(),
        };
        admin::task(listener, sources)
    });
    names.into_iter().chain(admin).collect()
}

/// Keeps the workers' certificates as their files are.
fn certificates(loader: Loader, shared: &Arc<Shared>) -> Option<control::Task> {
    let publisher = shared.clone();
    watch::task(loader, shared.clock.clone(), move |credentials| {
        for (mailbox, port) in publisher.renewed.iter().zip(&publisher.ports) {
            mailbox.put(credentials.clone());
            port.ring();
        }
    })
}

fn share(
    config: Arc<Config>,
    clock: Clock,
    credentials: Arc<Credentials>,
    ports: Vec<Port<ToWorker>>,
    addresses: &[SocketAddr],
    descriptors_max: u64,
) -> Result<(Arc<Shared>, Option<AccessLog>), String> {
    let mut records = None;
    let mut access_log = None;
    if let Some(settings) = &config.access_log {
        let (queue, reader) = telemetry::records();
        let names = access_log::Names::new(&config, addresses);
        let log = access_log::start(settings, names, queue.clone(), reader, clock.clone());
        access_log = Some(log.map_err(|error| format!("{} cannot be opened: {error}", shown(settings)))?);
        records = Some(queue);
    }
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let shared = Arc::new(Shared {
        keys: Keys::new(&config),
        table: Table::new(&config),
        cors: config.cors.as_ref().map(Cors::new),
        credentials,
        renewed: config.cores.iter().map(|_| Mailbox::default()).collect(),
        ports,
        names: config.cores.iter().map(|_| Mailbox::default()).collect(),
        arrivals: arrival::inboxes(&config),
        boards: config.cores.iter().map(|_| Arc::new(board(&config))).collect(),
        lookups: Arc::default(),
        records,
        clock,
        descriptors: Shares::of(descriptors_max, addresses.len() * config.cores.len() * worker::ACCEPTS),
        memory_max: memory::ceiling(&config.limits, config.cores.len()),
        seed: seed ^ (u64::from(std::process::id()) << 32),
        config,
    });
    Ok((shared, access_log))
}

/// The access log, in words.
fn shown(settings: &config::AccessLog) -> String {
    match &settings.target {
        LogTarget::File(path) => format!("the access log {}", path.display()),
        LogTarget::Stdout | LogTarget::Stderr => "the stream for the access log".to_owned(),
    }
}

fn board(config: &Config) -> Board {
    let routes_max = config.admin.as_ref().map_or(0, |admin| admin.series_max / SERIES_PER_ROUTE);
    Board::new(config.listeners.len(), config.endpoints.len(), routes_max)
}

/// What is made of the files that the configuration names.
fn credentials(loader: &mut Loader, now: UnixTime) -> Result<Arc<Credentials>, String> {
    let News { faults, .. } = loader.look(now);
    if faults.is_empty() { Ok(loader.credentials()) } else { Err(faults.join("; ")) }
}

fn bind_admin(address: SocketAddr) -> Result<(SocketAddr, std::net::TcpListener), String> {
    admin::bind(address).map_err(|error| format!("the admin listener: {}", cannot_listen(address, &error)))
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is already in use: another program, or another ringway, listens there")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

/// Two descriptors a stream add up, and the usual soft limit of 1024 is for programs that use select.
///
/// Returns the limit.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    // Not being allowed to changes nothing: accepting then pauses at the limit there is.
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() { soft } else { hard }
}

/// Says where the gateway listens and on what its workers stand.
pub fn announce(running: &Running, cores: &[usize]) {
    for (address, listener) in running.addresses.iter().zip(&running.shared.config.listeners) {
        let scheme = if listener.tls.is_some() { "https" } else { "http" };
        log::info("serve", format!("listening on {scheme}://{address}")).say();
    }
    if let Some(address) = running.admin {
        log::info("serve", format!("admin: http://{address}/status, /metrics, /healthz, /readyz")).say();
    }
    let mut said = BTreeSet::new();
    for refused in running.workers.iter().flat_map(|worker| &worker.refused).filter(|refused| said.insert(*refused)) {
        log::info("serve", format!("not available here: {refused}")).say();
    }
    if let Some(worker) = running.workers.iter().find(|worker| !worker.pinned) {
        log::warn("serve", format!("worker {} could not be pinned to its core", worker.id.0)).say();
    }
    log::info("serve", format!("ready: {}", workers(running, cores))).say();
}

/// `2 workers on cores 0,1, io_uring (…)`, or `…, 1 on io_uring (…), 1 on epoll` where there was not enough for all.
fn workers(running: &Running, cores: &[usize]) -> String {
    let count = running.workers.len();
    let plural = if count == 1 { "" } else { "s" };
    let cores: Vec<String> = cores.iter().map(usize::to_string).collect();
    let mut rungs = BTreeMap::new();
    running.workers.iter().for_each(|worker| *rungs.entry(worker.rung).or_insert(0) += 1);
    let rungs: Vec<String> = match rungs.len() {
        0 | 1 => rungs.keys().map(Rung::to_string).collect(),
        _ => rungs.iter().map(|(rung, workers)| format!("{workers} on {rung}")).collect(),
    };
    format!("{count} worker{plural} on core{plural} {}, {}", cores.join(","), rungs.join(", "))
}
