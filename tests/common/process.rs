//! The gateway and the simulated provider as processes of their own, on ports the kernel picks.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Client, PATIENCE};

/// The client key that [`Config::new`] lets in.
pub const KEY: &str = "sk-test-client";

/// The provider's key that [`Config::new`] puts in. It must never reach a client.
pub const PROVIDER_KEY: &str = "sk-test-provider";

/// The built `ringway`.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.stdin(Stdio::null());
    command
}

/// A configuration file under construction: one listener on a free port, the key [`KEY`], and a provider `mock` with the
/// endpoints given. Everything else is TOML as an operator would write it.
#[derive(Clone)]
pub struct Config {
    raw: Option<String>,
    top: String,
    listener: String,
    key: String,
    endpoints: Vec<String>,
    endpoint_lines: String,
    provider: String,
    models: String,
    rest: String,
}

impl Config {
    /// One worker; every model goes to `endpoints` under its own name.
    pub fn new(endpoints: &[String]) -> Config {
        Config {
            raw: None,
            top: "cores = \"0\"\n".into(),
            listener: String::new(),
            key: "[[keys]]\nname = \"test\"\nsecret = { env = \"RINGWAY_TEST_KEY\" }\nmodels = [\"*\"]\n".into(),
            endpoints: endpoints.to_vec(),
            endpoint_lines: "key = { env = \"RINGWAY_TEST_PROVIDER_KEY\" }\n".into(),
            provider: String::new(),
            models: "[[models]]\nname = \"*\"\nroute = [{ provider = \"mock\" }]\n".into(),
            rest: String::new(),
        }
    }

    /// Exactly this text.
    pub fn raw(text: &str) -> Config {
        Config { raw: Some(text.to_owned()), ..Config::new(&[]) }
    }

    /// Takes the place of `cores = "0"`.
    pub fn top(mut self, lines: &str) -> Config {
        self.top = format!("{lines}\n");
        self
    }

    /// Lines added to the listener: `access = "open"`.
    pub fn listener(mut self, lines: &str) -> Config {
        self.listener = format!("{lines}\n");
        self
    }

    /// Takes the place of the key [`KEY`].
    pub fn keys(mut self, lines: &str) -> Config {
        self.key = format!("{lines}\n");
        self
    }

    /// Lines added to the provider: `include_usage = false`.
    pub fn provider(mut self, lines: &str) -> Config {
        self.provider = format!("{lines}\n");
        self
    }

    /// Takes the place of the lines that each endpoint has beside its URL.
    pub fn endpoint(mut self, lines: &str) -> Config {
        self.endpoint_lines = format!("{lines}\n");
        self
    }

    /// Takes the place of the one default model.
    pub fn models(mut self, lines: &str) -> Config {
        self.models = format!("{lines}\n");
        self
    }

    /// Further tables, at the end of the file: `[limits]` and the like.
    pub fn and(mut self, lines: &str) -> Config {
        let _ = writeln!(self.rest, "{lines}");
        self
    }

    /// Adds an admin listener on a free port.
    pub fn admin(self) -> Config {
        self.and("[admin]\naddress = \"127.0.0.1:0\"")
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let Config { raw, top, listener, key, endpoints, endpoint_lines, provider, models, rest } = self;
        if let Some(raw) = raw {
            return raw.clone();
        }
        let mut text = format!("{top}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n{listener}\n{key}\n");
        let _ = writeln!(text, "[[providers]]\nname = \"mock\"\n{provider}");
        for url in endpoints {
            let _ = writeln!(text, "[[providers.endpoints]]\nurl = \"{url}\"\n{endpoint_lines}");
        }
        let _ = writeln!(text, "{models}\n{rest}");
        text
    }
}

/// A process whose lines are kept, killed when it is dropped.
pub struct Process {
    child: Child,
    lines: Arc<Lines>,
}

#[derive(Default)]
struct Lines {
    kept: Mutex<Kept>,
    more: Condvar,
}

/// All lines so far, and whether they are all there will be.
type Kept = (Vec<String>, bool);

impl Lines {
    /// Also after a test has failed with the lock held: whoever is dropped then still shows them, and a second panic would
    /// end the test before its other processes are killed.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for as long as `waiting`, up to [`PATIENCE`].
    fn wait_while(&self, waiting: impl FnMut(&mut Kept) -> bool) -> MutexGuard<'_, Kept> {
        let waited = self.more.wait_timeout_while(self.kept(), PATIENCE, waiting);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Process {
    /// Starts `command` and keeps what it writes: standard output if `output`, else standard error.
    fn start(mut command: Command, output: bool) -> Process {
        if output {
            command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        } else {
            command.stderr(Stdio::piped()).stdout(Stdio::null());
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pipe: Box<dyn Read + Send> = match output {
            true => Box::new(child.stdout.take().expect("a pipe")),
            false => Box::new(child.stderr.take().expect("a pipe")),
        };
        let lines = Arc::new(Lines::default());
        let kept = Arc::clone(&lines);
        // Reads to the end, so that the process never waits for a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                kept.kept().0.push(line);
                kept.more.notify_all();
            }
            kept.kept().1 = true;
            kept.more.notify_all();
        });
        Process { child, lines }
    }

    /// Waits for a line with `words` in it and returns all lines up to it.
    ///
    /// # Panics
    /// If the process ends first, or [`PATIENCE`] does.
    pub fn lines_until(&self, words: &str) -> Vec<String> {
        let has = |lines: &[String]| lines.iter().position(|line| line.contains(words));
        let kept = self.lines.wait_while(|kept| has(&kept.0).is_none() && !kept.1);
        match has(&kept.0) {
            Some(at) => kept.0[..=at].to_vec(),
            None if kept.1 => panic!("ended without \"{words}\":\n{}", kept.0.join("\n")),
            None => panic!("no \"{words}\" in {PATIENCE:?}:\n{}", kept.0.join("\n")),
        }
    }

    /// Waits until the lines are as `has` wants them, which is `what`.
    ///
    /// # Panics
    /// As [`Process::lines_until`].
    pub fn until(&self, what: &str, has: impl Fn(&[String]) -> bool) {
        let kept = self.lines.wait_while(|kept| !has(&kept.0) && !kept.1);
        assert!(has(&kept.0), "not {what} in {PATIENCE:?}:\n{}", kept.0.join("\n"));
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.kept().0.clone()
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended of itself.
    ///
    /// # Panics
    /// If it still runs after [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        let kept = self.lines.wait_while(|kept| !kept.1);
        assert!(kept.1, "still running after {PATIENCE:?}:\n{}", kept.0.join("\n"));
        drop(kept);
        self.child.wait().expect("its status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- process {} wrote:\n{}", self.child.id(), self.lines().join("\n"));
        }
    }
}

/// The addresses in the lines `… listening on http://127.0.0.1:PORT`, or https.
fn addresses(lines: &[String]) -> Vec<SocketAddr> {
    let urls = lines.iter().filter_map(|line| line.split_once("listening on http"));
    urls.map(|(_, rest)| {
        let rest = rest.trim_start_matches('s').trim_start_matches("://");
        let address = rest.split(|c: char| c.is_whitespace() || matches!(c, '/' | '"')).next().unwrap_or_default();
        address.parse().unwrap_or_else(|error| panic!("listening on \"{rest}\": {error}"))
    })
    .collect()
}

/// A running gateway.
pub struct Gateway {
    /// The process; its lines are those of standard error.
    pub process: Process,
    /// Where it listens, in the order of the config.
    pub addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    file: PathBuf,
}

impl Gateway {
    /// Starts `ringway serve` and waits until it is ready.
    pub fn start(config: &Config) -> Gateway {
        Gateway::start_by(config, |_| {})
    }

    /// As [`Gateway::start`], with the command that starts it changed by `prepare`.
    pub fn start_by(config: &Config, prepare: impl FnOnce(&mut Command)) -> Gateway {
        let (mut command, file) = Gateway::command(config);
        prepare(&mut command);
        let process = Process::start(command, false);
        let addresses = addresses(&process.lines_until("ready: "));
        assert!(!addresses.is_empty(), "ready without a listener:\n{}", process.lines().join("\n"));
        let lines = process.lines();
        let admin = lines.iter().find_map(|line| line.split_once("admin: http://")?.1.split_once('/')?.0.parse().ok());
        Gateway { process, addresses, admin, file }
    }

    /// Starts `ringway serve` where it should refuse to, and returns how it ended and what it said.
    pub fn start_in_vain(config: &Config) -> (ExitStatus, String) {
        let (command, file) = Gateway::command(config);
        let mut process = Process::start(command, false);
        let status = process.wait();
        let _ = std::fs::remove_file(file);
        (status, process.lines().join("\n"))
    }

    fn command(config: &Config) -> (Command, PathBuf) {
        static FILES: AtomicU32 = AtomicU32::new(0);
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("ringway-test-{}-{number}.toml", std::process::id()));
        std::fs::write(&file, config.text()).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut command = binary();
        command.args(["serve", "--config"]).arg(&file);
        command.env("RINGWAY_TEST_KEY", KEY).env("RINGWAY_TEST_PROVIDER_KEY", PROVIDER_KEY);
        (command, file)
    }

    /// The first listener.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The admin listener of [`Config::admin`].
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("an [admin] table in the config")
    }

    /// Descriptors that the process holds.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("a running process").count()
    }

    /// A fresh connection to the first listener.
    pub fn connect(&self) -> Client {
        Client::connect(self.address())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A running simulated provider.
pub struct Mock {
    /// The process; its lines are those of standard output.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Mock {
    /// Starts `ringway mock` on a free port, with `args` added.
    pub fn start(args: &[&str]) -> Mock {
        let mut command = binary();
        command.args(["mock", "--address", "127.0.0.1:0"]).args(args);
        let process = Process::start(command, true);
        let address = addresses(&process.lines_until("listening on http://"))[0];
        Mock { process, address }
    }

    /// The URL that takes the place of a client's `/v1`.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// A fresh connection straight to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// What it counted, as the JSON it answers with at `path`.
    pub fn stats(&self, path: &str) -> serde_json::Value {
        let response = self.connect().request("GET", path, &[], b"");
        assert_eq!(response.head.status, 200, "{path}: {}", response.text());
        serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{path}: {error}: {}", response.text()))
    }

    /// Asks for its counters until `done` says yes. They change when the provider's own sockets tell it, which no
    /// client can see; asking again is the only way to wait for that.
    pub fn stats_when(&self, path: &str, done: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let start = Instant::now();
        loop {
            let stats = self.stats(path);
            if done(&stats) {
                return stats;
            }
            assert!(start.elapsed() < PATIENCE, "still {stats} after {PATIENCE:?}");
            thread::yield_now();
        }
    }
}

/// Runs `ringway` with `args` to its end.
///
/// # Panics
/// If it runs for longer than [`PATIENCE`].
pub fn run(args: &[&str]) -> Output {
    let mut command = binary();
    let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ringway starts");
    let drain = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.expect("a pipe").read_to_end(&mut bytes).expect("its output");
            bytes
        })
    };
    let stdout = drain(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = drain(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let start = Instant::now();
    while !(stdout.is_finished() && stderr.is_finished()) {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("ringway {args:?} still runs after {PATIENCE:?}");
        }
        thread::park_timeout(Duration::from_millis(2));
    }
    let status = child.wait().expect("its status");
    Output { status, stdout: stdout.join().expect("stdout"), stderr: stderr.join().expect("stderr") }
}
