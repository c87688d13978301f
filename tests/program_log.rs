//! The program's own log: one line each in the form that its reader wants, few of them whatever happens, and nobody waits for
//! whoever reads them.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::{Child, Stdio};
use std::time::Instant;

use common::process::{KEY, PROVIDER_KEY, binary};
use common::{Client, Config, Gateway, JSON, PATIENCE, chat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATH: &str = "/v1/chat/completions";

/// A gateway whose only provider does not listen, started by hand with `stderr`.
struct Own {
    child: Child,
    file: std::path::PathBuf,
}

impl Own {
    fn start(name: &str, more: &str, stderr: impl Into<Stdio>, journal: Option<String>) -> Own {
        let file = std::env::temp_dir().join(format!("ringway-log-{name}-{}.toml", std::process::id()));
        std::fs::write(&file, unreachable(more).text()).expect("a file");
        let mut command = binary();
        command.args(["serve", "--config"]).arg(&file).stderr(stderr).stdout(Stdio::null());
        command.env("RINGWAY_TEST_KEY", KEY).env("RINGWAY_TEST_PROVIDER_KEY", PROVIDER_KEY);
        if let Some(journal) = journal {
            command.env("JOURNAL_STREAM", journal);
        }
        Own { child: command.spawn().expect("it starts"), file }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Its provider's port is closed.
fn unreachable(more: &str) -> Config {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    Config::new(&[format!("http://{closed}/v1")]).and(more)
}

fn address(line: &str) -> Option<SocketAddr> {
    line.split_once("listening on http://")?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_flood_of_failures_is_a_few_lines_with_the_request_in_them() {
    for (format, is_json) in [("text", false), ("json", true)] {
        let gateway = Gateway::start(&unreachable(&format!("[log]\nformat = {format:?}")));
        let mut client = gateway.connect();
        let begun = Instant::now();
        for number in 0..200 {
            let id = format!("flood-{number}");
            let headers: Vec<_> = JSON.iter().copied().chain([("x-request-id", id.as_str())]).collect();
            assert_eq!(client.request("POST", PATH, &headers, &chat("m", true)).head.status, 502);
        }
        gateway.process.lines_until("flood-4");
        let windows = begun.elapsed().as_secs() / 10 + 2;
        let lines = gateway.process.lines();
        let said: Vec<&String> = lines.iter().filter(|line| line.contains("flood-")).collect();
        assert!((5..=5 * windows as usize).contains(&said.len()), "{said:#?}");
        if !is_json {
            let (time, rest) = said[0].split_once(' ').expect("a time");
            assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
            assert!(rest.starts_with("warn  ringway: endpoint mock/0: "), "{rest}");
            assert!(rest.ends_with(" request_id=flood-0"), "{rest}");
            continue;
        }
        for line in &lines {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(["time", "level", "target", "message"].iter().all(|name| event[*name].is_string()), "{line}");
        }
        let event: Value = serde_json::from_str(said[0]).expect("JSON");
        let told = (&event["level"], &event["target"], &event["request_id"]);
        assert_eq!(told, (&"warn".into(), &"upstream".into(), &"flood-0".into()));
    }
}

#[test]
fn the_journal_gets_priorities_and_adds_the_times_itself() {
    let path = std::env::temp_dir().join(format!("ringway-journal-{}", std::process::id()));
    for (name, is_own) in [("journal", true), ("no-journal", false)] {
        let file = File::create(&path).expect("a file");
        let own = file.metadata().expect("metadata");
        let inode = if is_own { own.ino() } else { own.ino() + 1 };
        let stream = format!("{}:{inode}", own.dev());
        let _gateway = Own::start(name, "", file, Some(stream));
        let start = Instant::now();
        let text = loop {
            let text = std::fs::read_to_string(&path).expect("text");
            if text.contains("ringway: ready") && text.ends_with('\n') {
                break text;
            }
            assert!(start.elapsed() < PATIENCE, "{text}");
            std::thread::yield_now();
        };
        assert_eq!(text.lines().all(|line| line.starts_with("<6>ringway: ")), is_own, "{text}");
        assert_eq!(text.lines().all(|line| line.contains("Z info  ringway: ")), !is_own, "{text}");
    }
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_reader_that_does_not_read_delays_no_request_and_not_the_end() {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    let again = writer.try_clone().expect("a descriptor");
    let mut gateway = Own::start("blocked", "", writer, None);
    let mut lines = BufReader::new(File::from(reader));
    let mut found = None;
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        found = found.or(address(&line));
        if line.contains("ready") {
            break;
        }
    }
    // To the brim, through a description of its own that does not wait.
    let path = format!("/proc/self/fd/{}", again.as_raw_fd());
    let mut brim = File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(path).expect("the pipe");
    while brim.write(&[b'\n'; 4096]).is_ok() {}
    while brim.write(b"\n").is_ok() {}

    // Each of these would be told of.
    let mut client = Client::connect(found.expect("it listens"));
    let start = Instant::now();
    for _ in 0..50 {
        assert_eq!(client.request("POST", PATH, &JSON, &chat("m", true)).head.status, 502);
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    kill(Pid::from_raw(gateway.child.id() as i32), Signal::SIGTERM).expect("it runs");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = gateway.child.try_wait().expect("a child") {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "it waits for its reader");
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(0));
}
