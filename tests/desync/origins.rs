//! The five origins, and what each of them makes of the bytes that the gateway sends.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::lenient::{self, Ways};
use super::reader::{self, Read};
use super::recorder::Recorder;
use super::view::View;

/// An origin takes no longer for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests sent ahead over one connection.
const AHEAD: usize = 48;

/// A request as the gateway sent it, and what it meant.
pub struct Sent {
    pub bytes: Vec<u8>,
    pub view: View,
}

/// What an origin has judged.
pub struct Origin {
    pub name: &'static str,
    address: SocketAddr,
    child: Option<Child>,
    /// Requests that it was sent, and those of which it saw what was meant.
    pub judged: u64,
    pub agreed: u64,
    /// Refusals by status, each with the first request that met with it.
    pub refused: BTreeMap<u16, (u64, Vec<u8>)>,
    pub findings: Vec<(String, Vec<u8>)>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// All five, within a `LocalSet`. Those that are proxies pass on what they understood to a recorder.
pub async fn start(folder: &Path, python: &Path) -> Vec<Origin> {
    let recorder = Recorder::start(false).await;
    let origin = |name, child, address| Origin {
        name,
        address,
        child,
        judged: 0,
        agreed: 0,
        refused: BTreeMap::new(),
        findings: Vec::new(),
    };
    let (child, address) = proxy(folder, "nginx", |port| nginx(folder, port, recorder.address)).await;
    let nginx = origin("nginx", Some(child), address);
    let (child, address) = proxy(folder, "haproxy", |port| haproxy(folder, port, recorder.address)).await;
    let haproxy = origin("HAProxy", Some(child), address);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/desync/origins");
    let (child, address) = script(Command::new("node").arg(scripts.join("node.js")));
    let node = origin("Node", Some(child), address);
    let (child, address) = script(Command::new(python).arg(scripts.join("h11_origin.py")));
    let h11 = origin("h11", Some(child), address);
    let mut all = vec![nginx, haproxy, node, h11];
    all.push(origin("lenient", None, lenient_origin().await));
    all
}

fn nginx(folder: &Path, port: u16, origin: SocketAddr) -> Command {
    let at = folder.display();
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log crit;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; keepalive_requests 1000000000; large_client_header_buffers 8 128k;\n\
         client_max_body_size 0; ignore_invalid_headers off; underscores_in_headers on;\n\
         upstream r {{ server {origin}; keepalive 16; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://r; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; }} }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).expect("a file for nginx");
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
    command
}

fn haproxy(folder: &Path, port: u16, origin: SocketAddr) -> Command {
    let text = format!(
        "global\n  maxconn 512\n  tune.bufsize 131072\n  tune.http.maxhdr 1000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  http-reuse always\n  server r {origin}\n"
    );
    let file = folder.join("haproxy.cfg");
    std::fs::write(&file, text).expect("a file for HAProxy");
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg(file);
    command
}

/// Starts a server on a port that is free.
async fn proxy(folder: &Path, name: &str, prepare: impl Fn(u16) -> Command) -> (Child, SocketAddr) {
    // Someone else may take the port between our probe and the peer's bind: then it ends, and another is tried.
    for _ in 0..8 {
        let probe = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = probe.local_addr().expect("its address");
        drop(probe);
        let mut command = prepare(address.port());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let start = Instant::now();
        while start.elapsed() < PATIENCE && child.try_wait().expect("its status").is_none() {
            if TcpStream::connect(address).await.is_ok() {
                return (child, address);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("{name} does not start; see {}", folder.display());
}

/// Starts a server that tells its port.
fn script(command: &mut Command) -> (Child, SocketAddr) {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error} (tests/run installs it)"));
    let mut line = String::new();
    let _ = BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line);
    let port = line.trim().parse().unwrap_or_else(|_| panic!("{command:?} tells no port: {line:?}"));
    (child, (Ipv4Addr::LOCALHOST, port).into())
}

/// Where a program lies: in the PATH, or where Debian puts servers.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install it (tests/run does)"))
}

/// Each connection to it is lenient in the next of the ways there are.
async fn lenient_origin() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    spawn_local(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve_leniently(stream, lenient::WAYS[number % lenient::WAYS.len()]));
            number += 1;
        }
    });
    address
}

async fn serve_leniently(mut stream: TcpStream, ways: Ways) {
    let _ = stream.set_nodelay(true);
    let mut held = Vec::new();
    loop {
        let (mut out, mut at) = (Vec::new(), 0);
        while let Some(message) = lenient::read(&held[at..], ways, |_| false, false) {
            at += message.len;
            let word = |at: usize| message.words.get(at).cloned().unwrap_or_default();
            let told = View::new(&word(0), word(1), &message.body).told(0);
            out.extend(format!("HTTP/1.1 200 OK\r\nx-seen: {told}\r\ncontent-length: 0\r\n\r\n").into_bytes());
        }
        held.drain(..at);
        if stream.write_all(&out).await.is_err() || !matches!(stream.read_buf(&mut held).await, Ok(1..)) {
            return;
        }
    }
}

/// One connection, and what has come over it.
struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Wire {
    async fn answer(&mut self, to_head: bool) -> Result<reader::Response, String> {
        loop {
            match reader::response(&self.held, to_head) {
                Read::Whole(answer, len) if !answer.until_close => {
                    self.held.drain(..len);
                    return Ok(answer);
                }
                Read::Fault(why) => return Err(format!("its answer: {why}: {:?}", self.held)),
                _ => {}
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.held)).await;
            match read {
                Err(_) => return Err("it says nothing".to_owned()),
                Ok(Ok(1..)) => {}
                // Some end an answer of theirs with the connection.
                Ok(_) => match reader::response(&self.held, to_head) {
                    Read::Whole(answer, _) => {
                        self.held.clear();
                        return Ok(answer);
                    }
                    _ => return Err("it ended the connection".to_owned()),
                },
            }
        }
    }
}

fn canary(number: usize) -> (View, Vec<u8>) {
    let (target, body) = (format!("/v1/canary-{number}"), b"{}");
    let bytes = format!("POST {target} HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{{}}").into_bytes();
    (View::new("POST", target, body), bytes)
}

impl Origin {
    /// Sends every request, and one behind it whose bytes are known, over connections that are kept; and checks that the
    /// origin saw these two and no others.
    pub async fn judge(&mut self, all: &[Sent]) {
        let mut at = 0;
        while at < all.len() {
            let mut wire = self.connect().await;
            while at < all.len() {
                let batch = &all[at..all.len().min(at + AHEAD)];
                let judged = self.judge_batch(&mut wire, batch).await;
                self.judged += judged as u64;
                self.agreed += judged as u64;
                at += judged;
                if judged < batch.len() {
                    // Who refuses one may not answer those before it: what failed is judged alone.
                    self.judge_alone(&all[at]).await;
                    at += 1;
                    break;
                }
            }
        }
    }

    async fn connect(&self) -> Wire {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.unwrap_or_else(|error| panic!("{} has ended: {error}", self.name));
        let _ = stream.set_nodelay(true);
        Wire { stream, held: Vec::new() }
    }

    /// Sends one, over a connection of its own, and counts what becomes of it.
    async fn judge_alone(&mut self, sent: &Sent) {
        self.judged += 1;
        let mut wire = self.connect().await;
        match wire.judge(&[&sent.bytes[..], &canary(0).1].concat(), sent, 0).await {
            Ok(()) => self.agreed += 1,
            Err(Failed::Refused(status)) => {
                self.refused.entry(status).or_insert_with(|| (0, sent.bytes.clone())).0 += 1;
            }
            Err(Failed::Other(what)) => {
                self.findings.push((format!("{}: {what}; meant was {:?}", self.name, sent.view), sent.bytes.clone()));
            }
        }
    }

    /// How many of these were seen as they were meant, up to the first that was not.
    async fn judge_batch(&self, wire: &mut Wire, batch: &[Sent]) -> usize {
        let numbered = batch.iter().enumerate();
        let bytes: Vec<u8> =
            numbered.clone().flat_map(|(at, sent)| [&sent.bytes[..], &canary(at).1].concat()).collect();
        for (at, sent) in numbered {
            if wire.judge(if at == 0 { &bytes } else { b"" }, sent, at).await.is_err() {
                return at;
            }
        }
        batch.len()
    }
}

/// Why an origin did not see what was meant.
enum Failed {
    /// It answered so by itself, and ended the connection: it saw nothing.
    Refused(u16),
    Other(String),
}

impl Wire {
    async fn send(&mut self, bytes: &[u8]) {
        let (mut reads, mut writes) = self.stream.split();
        let mut write = std::pin::pin!(writes.write_all(bytes));
        // It may answer, and stop reading, before it has all.
        loop {
            tokio::select! {
                biased;
                _ = &mut write => return,
                read = reads.read_buf(&mut self.held) => if !matches!(read, Ok(1..)) { return },
            }
        }
    }

    /// Sends `bytes`, and checks that the next two answers are to `sent` and to the canary of this number behind it.
    async fn judge(&mut self, bytes: &[u8], sent: &Sent, number: usize) -> Result<(), Failed> {
        self.send(bytes).await;
        let answer = self.answer(sent.view.method == "HEAD").await.map_err(Failed::Other)?;
        let Some((_, view)) = answer.seen.as_deref().and_then(View::read) else {
            return Err(if answer.status >= 400 {
                Failed::Refused(answer.status)
            } else {
                Failed::Other(format!("it answers {} by itself", answer.status))
            });
        };
        if view != sent.view {
            return Err(Failed::Other(format!("it saw {view:?}")));
        }
        if answer.closes {
            return Ok(());
        }
        let answer = self.answer(false).await.map_err(|why| Failed::Other(format!("behind it: {why}")))?;
        let view = answer.seen.as_deref().and_then(View::read).map(|(_, view)| view);
        if view.as_ref() != Some(&canary(number).0) {
            return Err(Failed::Other(format!("behind it, it saw {view:?} ({})", answer.status)));
        }
        Ok(())
    }
}
