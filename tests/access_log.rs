//! The access log: one line for every exchange, whatever happens to the exchange, the file, the disk or the process.

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::origin::{DONE, FINISH, ROLE, content};
use common::process::{KEY, PROVIDER_KEY};
use common::records::Records;
use common::{Config, Gateway, JSON, Mock, Origin, PATIENCE, chat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATH: &str = "/v1/chat/completions";

fn headers(id: &str) -> Vec<(&str, &str)> {
    JSON.iter().copied().chain([("x-request-id", id)]).collect()
}

fn signal(gateway: &Gateway, signal: Signal) {
    kill(Pid::from_raw(gateway.process.id() as i32), signal).expect("it runs");
}

/// A folder of a test's own, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringway-access-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a folder");
        Folder(path)
    }

    /// The table that has the log written here.
    fn table(&self, more: &str) -> String {
        format!("[access_log]\npath = {:?}\n{more}", self.log())
    }

    fn log(&self) -> PathBuf {
        self.0.join("access.jsonl")
    }

    /// All files of the log, the oldest first, as text.
    fn texts(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the folder");
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        // The file itself has the shortest name and the newest lines.
        files.rotate_left(1);
        files.iter().map(|file| text(file)).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(file: &Path) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    if file.extension().is_some_and(|ending| ending == "gz") {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("a whole archive");
        return text;
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// The lines of `text` that have their end.
fn whole_lines(text: &str) -> usize {
    text.matches('\n').count()
}

/// Every line of `texts` is a record; how often each request is among them.
fn counted(texts: &[String]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for text in texts {
        assert!(text.is_empty() || text.ends_with('\n'), "a line is split: {text:?}");
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            *counts.entry(record["request_id"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
    }
    counts
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

/// Sends requests on several connections until told to stop; the ids of all that were answered.
fn load(gateway: &Gateway, stop: &AtomicBool) -> Vec<String> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                scope.spawn(move || {
                    let (mut connection, mut sent) = (gateway.connect(), Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        let id = format!("{client}-{}", sent.len());
                        let response = connection.request("GET", "/v1/models", &headers(&id), b"");
                        assert_eq!(response.head.status, 200);
                        if response.head.get("connection") == Some("close") {
                            connection = gateway.connect();
                        }
                        sent.push(id);
                    }
                    sent
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    })
}

/// Has `work` done while requests come, ends the gateway, and checks that each answered request has one line.
fn one_line_each(mut gateway: Gateway, folder: &Folder, work: impl FnOnce(&Gateway)) {
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let load = scope.spawn(|| load(&gateway, &stop));
        work(&gateway);
        stop.store(true, Ordering::Relaxed);
        load.join().expect("the load")
    });
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.process.wait().code(), Some(0));
    let counts = counted(&folder.texts());
    assert!(sent.len() > 50, "{}", sent.len());
    assert_eq!(counts.values().sum::<u32>(), sent.len() as u32, "as many lines as requests");
    assert!(sent.iter().all(|id| counts.get(id) == Some(&1)), "each its own");
}

#[test]
fn a_line_says_who_what_where_and_when() {
    let origin = Origin::start();
    let records = Records::new();
    let models = "[[models]]\nname = \"m\"\nroute = [{ provider = \"mock\", model = \"big\" }]";
    let gateway =
        Gateway::start(&Config::new(&[origin.url()]).top(&format!("cores = \"0\"\n{}", records.line())).models(models));
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
    let path = format!("{PATH}?token=secret-in-query");
    let mut client = gateway.connect();
    let from = client.socket().local_addr().expect("an address");
    let mut peer = None;
    for id in ["one", "two"] {
        client.send_request("POST", &path, &headers(id), &chat("m", true));
        let peer = peer.get_or_insert_with(|| origin.accept());
        peer.request();
        peer.begin_stream().chunk(content("a")).chunk(FINISH).chunk(usage).chunk(DONE).send("0\r\n\r\n");
        assert_eq!(client.response("POST").head.status, 200);
    }
    for (id, reused) in [("one", false), ("two", true)] {
        let record = records.of(id);
        let expected = serde_json::json!({
            "listener": gateway.address().to_string(), "client": from.to_string(), "key": "test", "method": "POST",
            "path": PATH, "dialect": "openai", "api": "chat", "model": "m", "model_sent": "big", "endpoint": "mock/0",
            "attempts": 1, "reused": reused, "streamed": true, "status": 200, "upstream_status": 200,
            "state": "complete", "ended_by": "completion", "input_tokens": 3, "output_tokens": 1, "content_events": 2,
            "request_bytes": chat("m", true).len(),
        });
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&record[name], value, "{name}: {record}");
        }
        for absent in ["phase", "error_origin", "error_code", "parent_id"] {
            assert!(record.get(absent).is_none(), "{absent}: {record}");
        }
        let number = |name: &str| record[name].as_u64().unwrap_or_else(|| panic!("{name}: {record}"));
        // Steps in their order.
        let sent = number("attempt_us") + number("connect_us") + number("send_us");
        assert!(number("body_us") <= number("attempt_us"), "{record}");
        assert!(sent + number("first_byte_us") <= number("ttft_us") + 3, "{record}");
        assert!(number("ttft_us") <= number("written_us") && number("written_us") <= number("duration_us"), "{record}");
        // What is sent is more than what is in it.
        assert!(number("sent_bytes") > number("answer_bytes"), "{record}");
        assert!(number("upstream_sent_bytes") > number("request_bytes"), "{record}");
        assert!(number("upstream_received_bytes") > number("answer_bytes"), "{record}");
        let time = record["time"].as_str().expect("a time");
        assert!(time.len() == 27 && time.ends_with('Z') && time.starts_with("20"), "{time}");
    }
    let all: String = records.until("two").iter().map(Value::to_string).collect();
    for secret in [KEY, PROVIDER_KEY, "secret-in-query", "Bearer", "\"hi\""] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}

#[test]
fn every_abnormal_end_says_in_which_phase_and_whose_doing() {
    let origin = Origin::start();
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let records = Records::new();
    let config = Config::raw(&format!(
        "cores = \"0\"\n{}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n[[keys]]\nname = \"test\"\n\
         secret = {{ env = \"RINGWAY_TEST_KEY\" }}\n[[providers]]\nname = \"o\"\nendpoints = [{{ url = {:?} }}]\n\
         [[providers]]\nname = \"closed\"\nendpoints = [{{ url = \"http://{closed}\" }}]\n\
         [[providers]]\nname = \"silent\"\nendpoints = [{{ url = \"https://{}\" }}]\n\
         [[models]]\nname = \"*\"\nroute = [{{ provider = \"o\" }}]\n\
         [[models]]\nname = \"closed\"\nroute = [{{ provider = \"closed\" }}]\n\
         [[models]]\nname = \"silent\"\nroute = [{{ provider = \"silent\" }}]\n\
         [[models]]\nname = \"hasty\"\nroute = [{{ provider = \"o\" }}]\n\
         timers = {{ first_token = \"200ms\", between_tokens = \"200ms\" }}\n\
         [client]\ndrain = \"50ms\"\n",
        records.line(),
        origin.url(),
        silent.local_addr().expect("its address"),
    ));
    let mut gateway = Gateway::start(&config);
    let begin = |id: &str, model: &str, stream: bool| {
        let mut client = gateway.connect();
        client.send_request("POST", PATH, &headers(id), &chat(model, stream));
        client
    };
    let upload = |id: &str, path: &str, kind: &str| {
        let mut client = gateway.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\nx-request-id: {id}\r\ncontent-type: {kind}\r\n\
             content-length: 9\r\n\r\n{{\"a\"",
            JSON[0].1
        );
        client.send(head.as_bytes());
        client
    };

    // Clients that leave, phase by phase.
    drop(upload("gone-request_body", PATH, "application/json"));
    let client = begin("gone-connect", "silent", true);
    let (mut hello, _) = silent.accept().expect("the gateway connects");
    hello.read_exact(&mut [0; 16]).expect("a TLS hello");
    drop(client);
    let client = upload("gone-send", "/v1/files", "audio/wav");
    let mut peer = origin.accept();
    peer.head();
    drop(client);
    peer.ended();
    for (phase, stream, said) in [
        ("first_byte", true, ""),
        ("answer_head", true, "HTTP/1.1 200 OK\r\ncontent-ty"),
        ("first_content", false, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"),
    ] {
        let client = begin(&format!("gone-{phase}"), "m", stream);
        let mut peer = origin.accept();
        peer.request();
        peer.send(said);
        drop(client);
        peer.ended();
    }
    let mut client = begin("gone-relay", "m", true);
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(ROLE).chunk(content("a"));
    client.head();
    drop(client);
    peer.ended();

    // Refusals.
    let bad = [("authorization", "Bearer none"), JSON[1], ("x-request-id", "refused")];
    assert_eq!(gateway.connect().request("POST", PATH, &bad, &chat("m", true)).head.status, 401);
    gateway.connect().send(b"GET / HTTP/1.1\r\nbad head\r\n\r\n").response("GET");
    assert_eq!(gateway.connect().request("POST", "/v2/x", &headers("nowhere"), b"{}").head.status, 404);

    // Providers that fail.
    assert_eq!(begin("unreachable", "closed", true).response("POST").head.status, 502);
    let mut client = begin("broke-first_byte", "m", true);
    let mut peer = origin.accept();
    peer.request();
    drop(peer);
    assert_eq!(client.response("POST").head.status, 502);
    let mut client = begin("garbage", "m", true);
    let mut peer = origin.accept();
    peer.request();
    peer.send("SMTP ready\r\n\r\n");
    assert_eq!(client.response("POST").head.status, 502);
    let mut client = begin("cut", "m", true);
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("a"));
    let head = client.head();
    drop(peer);
    client.events(&head).all();
    let mut client = begin("limited", "m", false);
    let mut peer = origin.accept();
    peer.request();
    peer.send("HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.response("POST").head.status, 429);
    drop(peer);
    let mut client = begin("late", "hasty", true);
    let mut peer = origin.accept();
    peer.request();
    assert_eq!(client.response("POST").head.status, 504);
    peer.ended();
    let mut client = begin("stalled", "hasty", true);
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("a"));
    let head = client.head();
    client.events(&head).all();
    peer.ended();

    // And the gateway's own end.
    let mut client = begin("drained", "m", true);
    let mut peer = origin.accept();
    peer.request();
    peer.begin_stream().chunk(content("a"));
    let head = client.head();
    signal(&gateway, Signal::SIGTERM);
    client.events(&head).all();
    assert_eq!(gateway.process.wait().code(), Some(0));

    let all = records.until("drained");
    for (id, state, ended_by, phase, origin, code, status) in [
        ("gone-request_body", "client_gone", "client", "request_body", "", "", 0),
        ("gone-connect", "client_gone", "client", "connect", "", "", 0),
        ("gone-send", "client_gone", "client", "send", "", "", 0),
        ("gone-first_byte", "client_gone", "client", "first_byte", "", "", 0),
        ("gone-answer_head", "client_gone", "client", "answer_head", "", "", 0),
        ("gone-first_content", "client_gone", "client", "first_content", "", "", 0),
        ("gone-relay", "client_gone", "client", "relay", "", "", 200),
        ("refused", "refused", "gateway", "admission", "client", "invalid_api_key", 401),
        ("nowhere", "refused", "gateway", "admission", "client", "not_found", 404),
        ("unreachable", "upstream_error", "upstream", "connect", "upstream", "upstream_unreachable", 502),
        ("broke-first_byte", "upstream_error", "upstream", "first_byte", "upstream", "upstream_failed", 502),
        ("garbage", "upstream_error", "upstream", "answer_head", "upstream", "upstream_malformed", 502),
        ("cut", "truncated", "upstream", "relay", "upstream", "upstream_truncated", 200),
        ("limited", "upstream_error", "completion", "relay", "upstream", "upstream_status", 429),
        ("late", "timeout", "gateway", "first_byte", "upstream", "first_token_timeout", 504),
        ("stalled", "timeout", "gateway", "relay", "upstream", "between_tokens_timeout", 200),
        ("drained", "gateway_error", "gateway", "relay", "gateway", "shutting_down", 200),
    ] {
        let of_it: Vec<&Value> = all.iter().filter(|record| record["request_id"] == id).collect();
        let [record] = of_it[..] else { panic!("{id}: {of_it:?}") };
        let word = |name: &str| record[name].as_str().unwrap_or_default();
        let told = (word("state"), word("ended_by"), word("phase"), word("error_origin"), word("error_code"));
        assert_eq!(told, (state, ended_by, phase, origin, code), "{id}");
        assert_eq!(record["status"].as_u64().unwrap_or_default(), status, "{id}");
    }
    let unread: Vec<&Value> = all.iter().filter(|record| record["phase"] == "head").collect();
    assert_eq!(unread.len(), 1, "{all:?}");
    assert_eq!((&unread[0]["error_code"], &unread[0]["status"]), (&"malformed_request".into(), &400.into()));
    assert_eq!(all.len(), 18, "{all:?}");
}

#[test]
fn no_line_is_lost_or_split_where_files_are_set_aside_by_size_and_time() {
    let mock = Mock::start(&[]);
    let folder = Folder::new();
    let table = folder.table("rotate_bytes = 8192\nrotate_every = \"1s\"\nkeep = 10000\ncompress = true");
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&table));
    one_line_each(gateway, &folder, |_| {
        until("a dozen files, some compressed", || {
            let names = || std::fs::read_dir(&folder.0).expect("the folder").flatten().map(|entry| entry.path());
            names().count() > 12 && names().any(|name| name.extension().is_some_and(|ending| ending == "gz"))
        });
    });
    assert!(folder.texts().iter().all(|text| text.len() <= 8192));
}

#[test]
fn a_file_is_set_aside_when_its_time_is_over_though_nothing_more_comes() {
    let mock = Mock::start(&[]);
    let folder = Folder::new();
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&folder.table("rotate_every = \"1s\"")));
    gateway.connect().request("GET", "/v1/models", &headers("only"), b"");
    until("it is set aside", || folder.texts().len() == 2);
    assert_eq!(counted(&folder.texts()[..1]).keys().collect::<Vec<_>>(), ["only"]);
    assert_eq!(folder.texts()[1], "");
}

#[test]
fn no_line_is_lost_or_split_where_the_file_is_moved_and_opened_anew() {
    let mock = Mock::start(&[]);
    let folder = Folder::new();
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&folder.table("")));
    one_line_each(gateway, &folder, |gateway| {
        for round in 0..8 {
            until("lines", || std::fs::metadata(folder.log()).is_ok_and(|file| file.len() > 0));
            std::fs::rename(folder.log(), folder.0.join(format!("access.jsonl.{round}"))).expect("it is moved");
            signal(gateway, Signal::SIGHUP);
            until("a new file", || folder.log().exists());
        }
    });
}

#[test]
fn the_file_may_be_moved_while_the_gateway_ends() {
    let origin = Origin::start();
    let folder = Folder::new();
    let mut gateway = Gateway::start(&Config::new(&[origin.url()]).and(&folder.table("")));
    let (mut under_way, mut idle) = (gateway.connect(), gateway.connect());
    idle.request("GET", "/v1/models", &headers("idle"), b"");
    under_way.send_request("POST", "/v1/chat/completions", &headers("last"), &chat("m", false));
    let mut peer = origin.accept();
    peer.request();
    signal(&gateway, Signal::SIGTERM);
    gateway.process.lines_until("SIGTERM: ending");
    until("the first line", || std::fs::metadata(folder.log()).is_ok_and(|file| file.len() > 0));
    std::fs::rename(folder.log(), folder.0.join("access.jsonl.0")).expect("it is moved");
    signal(&gateway, Signal::SIGHUP);
    until("a new file", || folder.log().exists());
    peer.answer("{}");
    assert_eq!(under_way.response("POST").head.status, 200);
    gateway.process.wait();
    assert_eq!(counted(&[text(&folder.log())]).keys().collect::<Vec<_>>(), ["last"]);
}

#[test]
fn a_process_that_is_killed_leaves_whole_lines_and_the_next_begins_its_own() {
    let mock = Mock::start(&[]);
    let folder = Folder::new();
    let config = Config::new(&[mock.url()]).and(&folder.table(""));
    let mut gateway = Gateway::start(&config);
    let mut client = gateway.connect();
    let mut sent = 0;
    // As it writes, as far as can be told from outside.
    until("lines", || {
        for _ in 0..50 {
            client.request("GET", "/v1/models", &headers(&sent.to_string()), b"");
            sent += 1;
        }
        whole_lines(&text(&folder.log())) > 200
    });
    signal(&gateway, Signal::SIGKILL);
    gateway.process.wait();
    let left = text(&folder.log());
    let whole = left.rfind('\n').map_or(0, |end| end + 1);
    assert!(counted(&[left[..whole].to_owned()]).len() > 200);

    // Half a line, as a crash may leave it.
    std::fs::write(folder.log(), format!("{}{{\"time\":\"20", &left[..whole])).expect("the file");
    let mut gateway = Gateway::start(&config);
    gateway.connect().request("GET", "/v1/models", &headers("after"), b"");
    signal(&gateway, Signal::SIGTERM);
    gateway.process.wait();
    let text = text(&folder.log());
    let (old, new) = text.split_at(whole);
    assert_eq!(old, &left[..whole]);
    let mut lines = new.lines();
    assert_eq!(lines.next(), Some("{\"time\":\"20"));
    assert_eq!(counted(&[lines.map(|line| line.to_owned() + "\n").collect()]).keys().collect::<Vec<_>>(), ["after"]);
}

#[test]
fn a_pipe_that_nobody_reads_slows_no_request_and_is_told_of() {
    let mock = Mock::start(&[]);
    let folder = Folder::new();
    assert!(Command::new("mkfifo").arg(folder.log()).status().expect("mkfifo").success());
    let mut gateway = Gateway::start(&Config::new(&[mock.url()]).and(&folder.table("")));
    // More than pipe, buffer and queue hold, in batches of pipelined requests.
    const BATCH: usize = 500;
    let one = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\r\n", JSON[0].1);
    let (mut slowest, mut sent) = (Duration::ZERO, 0);
    for _ in 0..40 {
        let mut client = gateway.connect();
        let start = Instant::now();
        thread::scope(|scope| {
            let mut writer = client.socket().try_clone().expect("a socket");
            let all = one.repeat(BATCH);
            scope.spawn(move || std::io::Write::write_all(&mut writer, all.as_bytes()).expect("it is read"));
            for _ in 0..BATCH {
                assert_eq!(client.response("GET").head.status, 200);
            }
        });
        slowest = slowest.max(start.elapsed());
        sent += BATCH;
    }
    assert!(sent > 16 * 1024 + 1000 && slowest < PATIENCE / 2, "{slowest:?}");
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.process.wait().code(), Some(0));
    let said = gateway.process.lines().join("\n");
    for words in ["the access log is not written fast enough", "dropped_so_far=", "does not take its last lines lost="]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// Runs `command` where it can mount something of its own: in a user's namespace unless it is root's own.
fn with_small_disk(command: &mut Command, folder: &Path) {
    let script = format!("mount -t tmpfs -o size=256k none {} && exec \"$0\" \"$@\"", folder.display());
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        wrapped.env(name, value.unwrap_or_default());
    }
    *command = wrapped;
}

/// Runs into the wall that `fill` puts up for the log, and goes on once `relieve` has taken it away.
fn loses_no_line(mut gateway: Gateway, log: &Path, fill: impl FnOnce(&Gateway), relieve: impl FnOnce(&Gateway)) {
    let mut client = gateway.connect();
    let mut sent = 0;
    let mut request = |count: u32| {
        for _ in 0..count {
            let id = sent.to_string();
            assert_eq!(client.request("GET", "/v1/models", &headers(&id), b"").head.status, 200);
            sent += 1;
        }
        sent
    };
    request(10);
    // A read that meets the write under way may see the first part of it alone, which is no line yet.
    until("the first lines", || whole_lines(&text(log)) == 10);
    fill(&gateway);
    request(100);
    gateway.process.lines_until("the access log cannot be written");
    let sent = request(300);
    relieve(&gateway);
    gateway.process.lines_until("the access log can be written again");
    until("all lines", || whole_lines(&text(log)) == sent as usize);
    let counts = counted(&[text(log)]);
    assert!((0..sent).all(|id| counts.get(&id.to_string()) == Some(&1)));
    let said = gateway.process.lines().iter().filter(|line| line.contains("cannot be written")).count();
    assert_eq!(said, 1);
    signal(&gateway, Signal::SIGTERM);
    assert_eq!(gateway.process.wait().code(), Some(0));
}

/// Files that `gateway` writes may have `bytes` at most, or as many as they like; its right to change that is left to it.
fn limit_files(gateway: &Gateway, bytes: Option<u64>) {
    let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let process = gateway.process.id().to_string();
    let status = Command::new("prlimit").args(["--pid", &process, &format!("--fsize={bytes}:")]).status();
    assert!(status.expect("prlimit").success(), "no limit of {bytes} for {process}");
}

#[test]
fn a_full_disk_or_file_loses_no_line_that_memory_can_hold_and_is_told_of_once() {
    let mock = Mock::start(&[]);
    // A limit of the process is something that can be run into everywhere, and ends whoever does not expect its signal.
    let folder = Folder::new();
    let gateway = Gateway::start(&Config::new(&[mock.url()]).and(&folder.table("")));
    let length = || std::fs::metadata(folder.log()).expect("the log").len();
    let fill = |gateway: &Gateway| limit_files(gateway, Some(length() + 100));
    let relieve = |gateway: &Gateway| {
        assert!(!text(&folder.log()).ends_with('\n'), "it stops within a line");
        limit_files(gateway, None);
    };
    loses_no_line(gateway, &folder.log(), fill, relieve);

    // A disk takes the right to mount one.
    let folder = Folder::new();
    let mut probe = Command::new("true");
    with_small_disk(&mut probe, &folder.0);
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("with the limit only: no file system can be mounted here");
        return;
    }
    let config = Config::new(&[mock.url()]).and(&folder.table(""));
    let gateway = Gateway::start_by(&config, |command| with_small_disk(command, &folder.0));
    // The disk as the gateway sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{}", gateway.process.id(), folder.0.display()));
    let filler = disk.join("filler");
    // To the last byte, so that the log stops wherever its last page ends.
    let fill = |_: &Gateway| drop(std::fs::write(&filler, vec![b'x'; 256 << 10]));
    let relieve = |_: &Gateway| std::fs::remove_file(&filler).expect("room again");
    loses_no_line(gateway, &disk.join("access.jsonl"), fill, relieve);
}

#[test]
fn a_trace_is_gone_on_with_or_begun_and_the_provider_told_once() {
    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let long = "x=1,".repeat(32) + "y=2";
    for (start, made) in [("unsampled", Some("00")), ("sampled", Some("01")), ("never", None)] {
        let origin = Origin::start();
        let records = Records::new();
        let top = format!("cores = \"0\"\n{}", records.line());
        let config = Config::new(&[origin.url()]).top(&top).and(&format!("[trace]\nstart = {start:?}"));
        let gateway = Gateway::start(&config);
        let mut spans = Vec::new();
        for (id, given, parent, state, passed) in [
            ("none", vec![], None, vec![], 0),
            ("valid", vec![GIVEN], Some("00f067aa0ba902b7"), vec!["rojo=1, congo=2"], 1),
            ("two states", vec![GIVEN], Some("00f067aa0ba902b7"), vec!["rojo=1", "congo=2"], 2),
            ("long state", vec![GIVEN], Some("00f067aa0ba902b7"), vec![long.as_str()], 0),
            ("invalid", vec!["00-xyz-01"], None, vec!["rojo=1"], 0),
            ("upper case", vec![&GIVEN.to_uppercase()], None, vec!["rojo=1"], 0),
            ("two", vec![GIVEN, OTHER], None, vec!["rojo=1"], 0),
            ("twice the same", vec![GIVEN, GIVEN], None, vec![], 0),
            ("state alone", vec![], None, vec!["rojo=1"], 0),
        ] {
            let id = id.replace(' ', "-");
            let mut fields = headers(&id);
            fields.extend(given.iter().map(|value| ("TraceParent", *value)));
            fields.extend(state.iter().map(|value| ("tracestate", *value)));
            let mut client = gateway.connect();
            client.send_request("POST", PATH, &fields, &chat("m", false));
            let mut peer = origin.accept();
            let request = peer.request();
            peer.answer("{}");
            client.response("POST");
            drop(peer);

            let of = |name: &str| -> Vec<&str> {
                let own = request.headers.iter().filter(|(own, _)| own == name);
                own.map(|(_, value)| value.as_str()).collect()
            };
            assert_eq!(of("tracestate"), state[..passed], "{start} {id}");
            let record = records.of(&id);
            let sent = of("traceparent");
            if parent.is_none() && made.is_none() {
                assert!(sent.is_empty(), "{start} {id}: {sent:?}");
                assert!(record.get("trace_id").is_none() && record.get("span_id").is_none(), "{start} {id}");
                continue;
            }
            let [sent] = sent[..] else { panic!("{start} {id}: {sent:?}") };
            let parts: Vec<&str> = sent.split('-').collect();
            let [version, trace, span, flags] = parts[..] else { panic!("{sent}") };
            assert_eq!((version, trace.len(), span.len()), ("00", 32, 16), "{start} {id}");
            assert_eq!(flags, if parent.is_some() { "01" } else { made.unwrap_or_default() }, "{start} {id}");
            assert_eq!(trace == ID, parent.is_some(), "{start} {id}: {sent}");
            assert_eq!((&record["trace_id"], &record["span_id"]), (&trace.into(), &span.into()), "{start} {id}");
            assert_eq!(record["parent_id"].as_str(), parent, "{start} {id}");
            spans.push(span.to_owned());
        }
        let count = spans.len();
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), count, "each exchange has a span of its own");
    }
}
