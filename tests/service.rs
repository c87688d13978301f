//! Under a service manager: what it is told, and the unit in `config/`.

mod common;

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::https::{BOTH, client};
use common::pem::{Ca, Folder, Pair};
use common::{Config, Dns, Gateway, Https, JSON, Mock, Origin, PATIENCE, chat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn signal(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.process.id().cast_signed()), signal).expect("a signal");
}

fn terminate(gateway: &Gateway) {
    signal(gateway, Signal::SIGTERM);
}

/// The next message, as its lines.
fn message(socket: &UnixDatagram) -> Vec<String> {
    socket.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    let mut bytes = [0; 4096];
    let length = socket.recv(&mut bytes).expect("a message to the service manager");
    String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
}

#[test]
fn the_service_manager_is_told_once_all_workers_accept_and_when_the_end_begins() {
    let origin = Origin::start();
    let folder = std::env::temp_dir().join(format!("ringway-notify-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&folder);
    let path = folder.join("socket");
    let _ = std::fs::remove_file(&path);
    let name = format!("ringway-service-{}", std::process::id());
    for (shown, socket) in [
        (path.display().to_string(), UnixDatagram::bind(&path).expect("a socket")),
        (
            format!("@{name}"),
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket"),
        ),
    ] {
        let config =
            Config::new(&[origin.url()]).top("cores = \"0-1\"").and("[client]\ndrain = \"7s\"\ndrain_delay = \"2s\"");
        let mut gateway = Gateway::start_by(&config, |command| {
            command.env("NOTIFY_SOCKET", &shown);
        });
        let ready = message(&socket);
        assert_eq!(ready[0], "READY=1", "{shown}: {ready:?}");
        assert!(ready[1].starts_with("STATUS=") && ready[1].contains("2 workers"), "{shown}: {ready:?}");
        assert_eq!(gateway.connect().request("GET", "/v1/models", &JSON, b"").head.status, 200);
        terminate(&gateway);
        let stopping = message(&socket);
        // Delay, drain, and twelve seconds for last words and last records.
        assert_eq!(stopping[..2], ["STOPPING=1", "EXTEND_TIMEOUT_USEC=21000000"], "{shown}: {stopping:?}");
        terminate(&gateway);
        assert_eq!(gateway.process.wait().code(), Some(1));
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn the_watchdog_hears_of_workers_that_are_not_stuck() {
    let name = format!("ringway-watchdog-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket");
    let gateway = Gateway::start_by(&Config::new(&[Origin::start().url()]), |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "100000");
    });
    assert_eq!(message(&socket)[0], "READY=1");
    for _ in 0..3 {
        assert_eq!(message(&socket), ["WATCHDOG=1"]);
    }
    drop(gateway);
}

#[test]
fn without_a_manager_that_listens_it_serves_all_the_same() {
    for socket in ["@ringway-nobody-listens-here", "/nowhere/at/all", "vsock:2:1"] {
        let gateway = Gateway::start_by(&Config::new(&[Origin::start().url()]), |command| {
            command.env("NOTIFY_SOCKET", socket);
        });
        assert_eq!(gateway.connect().request("GET", "/v1/models", &JSON, b"").head.status, 200, "{socket}");
        let said = gateway.process.lines().join("\n");
        assert!(said.contains("the service manager cannot be told"), "{socket}: {said}");
    }
}

/// The unit, with the program that is tested in the place of the installed one.
fn unit(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ringway.service");
    let text = std::fs::read_to_string(source).expect("the unit");
    let program = env!("CARGO_BIN_EXE_ringway");
    assert!(text.contains("/usr/local/bin/ringway"));
    std::fs::create_dir_all(folder).expect("a folder");
    let path = folder.join("ringway.service");
    std::fs::write(&path, text.replace("/usr/local/bin/ringway", program)).expect("a copy");
    path
}

/// What `systemd-analyze` says; the package systemd has it, also where systemd does not run.
fn analyze(args: &[&str], unit: Option<&Path>) -> String {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(args).args(unit).output().expect("systemd-analyze, of the package systemd");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "systemd-analyze {args:?}: {said}");
    said
}

#[test]
fn the_unit_is_sound_and_its_sandbox_tight() {
    let folder = std::env::temp_dir().join(format!("ringway-unit-{}", std::process::id()));
    let unit = unit(&folder);
    let said = analyze(&["verify", "--man=no"], Some(&unit));
    assert_eq!(said.trim(), "", "systemd would complain");
    // 0.0 to 10.0, in tenths; 1.5 as it is.
    analyze(&["security", "--offline=true", "--no-pager", "--threshold=17"], Some(&unit));
    let _ = std::fs::remove_dir_all(folder);
}

/// What the unit says `key` is, in `section`; as often as it does.
fn settings<'u>(section: &str, key: &str) -> Vec<&'u str> {
    let text = include_str!("../config/ringway.service");
    let lines = text.lines().skip_while(|line| line.trim_matches(['[', ']']) != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once('=')).filter(|(own, _)| *own == key).map(|(_, value)| value).collect()
}

#[test]
fn a_wrong_configuration_is_not_tried_again_and_all_else_without_end() {
    // Of other commands than the main one, the status decides nothing.
    for key in ["ExecCondition", "ExecStartPre", "ExecStartPost"] {
        assert!(settings("Service", key).is_empty(), "{key}");
    }
    assert_eq!(settings("Service", "ExecStart").len(), 1);
    assert!(settings("Service", "ExecStart")[0].contains("/ringway serve "));
    assert_eq!(settings("Service", "Restart"), ["on-failure"]);
    assert_eq!(settings("Unit", "StartLimitIntervalSec"), ["0"]);
    let last: Vec<&str> = settings("Service", "RestartPreventExitStatus")[0].split_whitespace().collect();
    let taken = Origin::start();
    for (config, is_tried_again) in [
        (Config::raw("no = \"configuration\""), false),
        (Config::raw("neither is this"), false),
        (Config::new(&["no URL".into()]), false),
        (Config::new(&[taken.url()]).keys("[[keys]]\nname = \"a\"\nsecret = { file = \"/nowhere/at/all\" }"), false),
        (Config::new(&[taken.url()]).and(&format!("[admin]\naddress = \"{}\"", taken.address)), true),
    ] {
        let (status, said) = Gateway::start_in_vain(&config);
        let code = status.code().expect("an exit code").to_string();
        assert_ne!(code, "0", "{said}");
        assert_eq!(!last.contains(&&*code), is_tried_again, "{code}: {said}");
    }
}

#[test]
fn the_time_to_stop_is_longer_than_a_drain() {
    let stop = settings("Service", "TimeoutStopSec")[0].strip_suffix('s').expect("a time");
    let defaults = include_str!("../config/ringway.toml");
    let drain = defaults.lines().find_map(|line| line.strip_prefix("drain = \"")?.split_once("s\"")).expect("a time").0;
    let [stop, drain] = [stop, drain].map(|seconds| seconds.parse::<u32>().expect("seconds"));
    assert!(stop >= drain + 12, "{stop} s for {drain} s, the last words and the last records");
}

#[test]
fn the_image_is_built_by_a_compiler_that_is_new_enough() {
    let image = include_str!("../config/Dockerfile").lines().find_map(|line| line.strip_prefix("FROM rust:"));
    let manifest = include_str!("../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = \""));
    let least = manifest.expect("a version").trim_end_matches('"');
    assert!(image.expect("a version").starts_with(&format!("{least}-")), "{image:?} for {least}");
}

/// System calls that the unit allows, by the sets that `systemd-analyze` knows.
fn allowed() -> BTreeSet<String> {
    fn members(set: &str, of: &mut BTreeSet<String>) {
        let said = analyze(&["syscall-filter", "--no-pager", set], None);
        for line in said.lines().skip(1).map(str::trim).filter(|line| !line.starts_with('#')) {
            if line.starts_with('@') {
                members(line, of);
            } else if !line.is_empty() {
                of.insert(line.to_owned());
            }
        }
    }
    let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
    for line in include_str!("../config/ringway.service").lines() {
        let Some(sets) = line.strip_prefix("SystemCallFilter=") else { continue };
        let (sets, into) = sets.strip_prefix('~').map_or((sets, &mut allowed), |sets| (sets, &mut denied));
        for set in sets.split_whitespace() {
            // One that stands for itself.
            if set.starts_with('@') {
                members(set, into);
            } else {
                into.insert(set.to_owned());
            }
        }
    }
    assert!(allowed.len() > 200 && denied.len() > 20, "{} allowed, {} denied", allowed.len(), denied.len());
    &allowed - &denied
}

/// Runs what `command` runs under `strace`, which stays in the background: signals go to the program itself.
fn trace_calls(command: &mut Command, trace: &Path) {
    let traced = std::mem::replace(command, Command::new("strace"));
    command.args(["-D", "-f", "-qq", "-o"]).arg(trace).arg(traced.get_program()).args(traced.get_args());
    for (name, value) in traced.get_envs() {
        command.env(name, value.expect("nothing is taken out"));
    }
}

/// Waits for what only looking again can tell.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// A life with all in it that a system call is needed for: plain and https, a certificate that is renewed, names, a log that
/// is set aside by size and moved away.
fn live(driver: &str, trace: &Path, mock: &Mock, dns: &Dns) {
    // What is written all the time, the trace above all, stays out of the folder that is watched.
    let (authority, certificates, folder) = (Ca::new(), Folder::new(), Folder::new());
    certificates.pair("own", &authority.sign(&["first.test"]));
    let (chain, key) = (certificates.path("own.pem"), certificates.path("own.key"));
    let log = folder.path("access.jsonl");
    let port = mock.address.port();
    // Each way in which names are resolved; of the hosts file the library is not needed.
    let (names, resolver) = match driver {
        "epoll" => (vec!["localhost"], "method = \"getaddrinfo\"".to_owned()),
        _ => (vec!["localhost", "named.test"], format!("servers = [\"{}\"]", dns.address)),
    };
    let urls: Vec<String> = names.iter().map(|name| format!("http://{name}:{port}/v1")).collect();
    let config = Config::new(&urls).admin().and(&format!(
        "[access_log]\npath = {log:?}\nrotate_bytes = 4096\ncompress = true\n[ring]\ndriver = {driver:?}\n\
         [resolver]\n{resolver}\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\n[listeners.tls]\n\
         certificates = [{{ chain = {chain:?}, key = {key:?} }}]"
    ));
    let mut gateway = Gateway::start_by(&config, |command| trace_calls(command, trace));
    for stream in [false, true] {
        let body = chat("mock:tokens=2,ttft=1ms,gap=1ms", stream);
        let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &body);
        assert_eq!(response.head.status, 200, "{}", response.text());
    }
    if names.contains(&"named.test") {
        dns.wait_asked("named.test", 1);
    }
    let secure = |pair: &Pair| {
        let mut https = Https::connect(gateway.addresses[1], &client(&authority, BOTH), "first.test");
        assert!(https.session().peer_certificates().expect("certificates")[0] == pair.der());
        assert!(https.request("GET", "/v1/models", &JSON[..1], b"").0.starts_with("http/1.1 200 "));
    };
    let renewed = authority.sign(&["first.test"]);
    certificates.pair("own", &renewed);
    gateway.process.lines_until("files have changed; connections from now on go by them");
    secure(&renewed);
    let metrics = common::Client::connect(gateway.admin()).request("GET", "/metrics", &[], b"");
    assert_eq!(metrics.head.status, 200);
    let files = || std::fs::read_dir(&folder).expect("the folder").flatten().map(|entry| entry.path());
    let mut client = gateway.connect();
    until("a file is compressed", || {
        assert_eq!(client.request("GET", "/v1/models", &JSON[..1], b"").head.status, 200);
        files().any(|file| file.extension().is_some_and(|ending| ending == "gz"))
    });
    // In between two of the gateway's own.
    until("it is moved", || std::fs::rename(&log, folder.path("moved")).is_ok());
    signal(&gateway, Signal::SIGHUP);
    until("a new file", || log.exists());
    terminate(&gateway);
    // The tracer's end as well: it holds standard error to the last.
    assert_eq!(gateway.process.wait().code(), Some(0), "{driver}");
}

#[test]
fn every_system_call_of_a_life_is_one_that_the_unit_allows() {
    let allowed = allowed();
    assert!(allowed.contains("io_uring_setup") && allowed.contains("sched_setaffinity"));
    let (mock, dns) = (Mock::start(&["--ttft", "0ms"]), Dns::start());
    dns.has("named.test", &["127.0.0.1"]);
    for driver in ["deferred", "epoll"] {
        let folder = Folder::new();
        let trace = folder.path("calls");
        live(driver, &trace, &mock, &dns);
        let text = std::fs::read_to_string(&trace).expect("the trace");
        // `12345 openat(AT_FDCWD, …`; what was interrupted goes on in a line of its own.
        let calls = text.lines().filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('));
        let calls: BTreeSet<&str> = calls
            .map(|(name, _)| name)
            .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
            .collect();
        // It was such a life.
        for call in ["bind", "inotify_add_watch", "rename", "fsync", "fchmod", "unlink", "getrandom"] {
            assert!(calls.contains(call), "{driver}: no {call} in {calls:?}");
        }
        let refused: Vec<_> = calls.iter().filter(|name| !allowed.contains(**name)).collect();
        assert!(refused.is_empty(), "{driver}: the unit refuses {refused:?}");
    }
}
