//! A limit on the memory of the whole process, as a container has one: under a load that asks for far more the gateway
//! refuses, the kernel never has to kill it, and afterwards it is as it was. `perf/cap` does the same at full size.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::http2::{self, Http2};
use common::metrics::{scrape_when, sum};
use common::{Client, Config, Gateway, JSON, Mock, PATIENCE, chat, metric, metric_is};
use nix::sys::socket::{setsockopt, sockopt};

const MIB: usize = 1 << 20;

/// What the process may use.
const CAP: usize = 128 * MIB;

/// A control group below our own, of either version; removed when it is dropped.
struct Group {
    folder: PathBuf,
    /// Version 2.
    unified: bool,
}

impl Group {
    /// `None` where none can be made, or without control over memory.
    fn new(name: &str) -> Option<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |mount: &str, path: &str| Path::new(mount).join(path.trim_start_matches('/')).join(name);
        let group = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next()?, parts.next()?) {
                ("memory", path) => Some(Group { folder: below("/sys/fs/cgroup/memory", path), unified: false }),
                ("", path) if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() => {
                    Some(Group { folder: below("/sys/fs/cgroup", path), unified: true })
                }
                _ => None,
            }
        })?;
        fs::create_dir(&group.folder).ok()?;
        let limit = if group.unified { "memory.max" } else { "memory.limit_in_bytes" };
        // Else it would swap instead of being killed, where there is swap.
        let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        fs::write(group.folder.join(limit), CAP.to_string()).ok()?;
        Some(group)
    }

    /// Lets the process that `command` starts begin in it.
    #[allow(unsafe_code)]
    fn hold(&self, command: &mut Command) {
        let processes = self.folder.join("cgroup.procs");
        // SAFETY: the one thread that there is between fork and exec opens, writes and closes a file whose name was made before;
        // this program's allocator is not locked by another thread that the child has not, for the C library sees to that.
        unsafe {
            command.pre_exec(move || fs::write(&processes, "0"));
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// How often the kernel has killed for want of memory.
    fn kills(&self) -> u64 {
        let events = self.read(if self.unified { "memory.events" } else { "memory.oom_control" });
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a count of kills");
        kills.trim().parse().expect("a number")
    }

    /// The most that was in use.
    fn peak(&self) -> usize {
        let peak = self.read(if self.unified { "memory.peak" } else { "memory.max_usage_in_bytes" });
        peak.trim().parse().unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A chat of so many bytes.
fn long_chat(bytes: usize) -> Vec<u8> {
    let text = "x".repeat(bytes);
    serde_json::json!({"model": "mock", "messages": [{"role": "user", "content": text}]}).to_string().into_bytes()
}

/// Sends half of a chat, and leaves it at that.
fn half(gateway: &Gateway, body: &[u8]) -> Client {
    let mut client = gateway.connect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        common::process::KEY,
        body.len()
    );
    // Who is refused may be closed before all of it is sent.
    let _ = client.try_send(head.as_bytes()).and_then(|()| client.try_send(&body[..body.len() / 2]));
    client
}

/// A stream of some MiB that nobody reads.
fn never_read(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    let _ = setsockopt(client.socket(), sockopt::RcvBuf, &(4 << 10));
    let body = chat("mock:ttft=0,gap=0,tokens=2000,token-bytes=1000", true);
    client.send_request("POST", "/v1/chat/completions", &JSON, &body);
    client
}

/// Many bodies on one connection, none of which ends.
fn crowd(gateway: &Gateway) -> Http2 {
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    let piece = [b' '; 16 << 10];
    for at in 0..100 {
        let mut head = http2::request(2 * at + 1, "POST", "/v1/chat/completions", &JSON, None);
        head[4] &= !http2::END_STREAM;
        http2.send(&head);
    }
    for _ in 0..10 {
        for at in 0..100 {
            http2.send(&http2::frame(0, 0, 2 * at + 1, &piece));
        }
    }
    http2
}

#[test]
fn under_a_load_that_asks_for_ten_times_the_limit_it_refuses_and_is_not_killed() {
    let Some(group) = Group::new(&format!("ringway-test-{}", std::process::id())) else {
        println!("no control group with a limit on memory can be made here: not tested");
        return;
    };
    let mock = Mock::start(&[]);
    let config = Config::new(&[mock.url()]).admin();
    let gateway = Gateway::start_by(&config, |command| group.hold(command));
    // It has seen the limit, and keeps half of it for what cannot be counted.
    gateway.process.lines_until("each of 1 workers may hold 64 MiB in buffers (limits.memory_max)");
    assert_eq!(metric(&gateway, "ringway_worker_memory_max_bytes", &[]), (CAP / 2) as f64);

    let body = long_chat(16 * MIB);
    let (mut bodies, mut crowds, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..6 {
        bodies.extend((0..20).map(|_| half(&gateway, &body)));
        crowds.push(crowd(&gateway));
        streams.extend((0..20).map(|_| never_read(&gateway)));
    }
    let refusals = |all: &[_]| sum(all, "ringway_memory_refusals_total", &[]);
    let all = scrape_when(&gateway, "some are refused", |all| refusals(all) > 0.0);
    println!("{} refused, {} MiB at most in use", refusals(&all), group.peak() / MIB);
    drop((bodies, crowds, streams));

    metric_is(&gateway, "ringway_requests_in_flight", &[], 0.0);
    scrape_when(&gateway, "memory is given back", |all| {
        sum(all, "ringway_worker_memory_bytes", &[]) < (16 * MIB) as f64
            && sum(all, "process_resident_memory_bytes", &[]) < (80 * MIB) as f64
    });
    let response = gateway.connect().request("POST", "/v1/chat/completions", &JSON, &body);
    assert_eq!(response.head.status, 200, "{}", response.text());
    assert_eq!(group.kills(), 0);
    // The group goes when nobody is left in it.
    drop(gateway);
    drop(group);
}
