//! The built binary's `demo`, as someone at a terminal meets it: what it prints works, and Ctrl-C ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than any of it takes on a busy machine; only a demo that hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(120);
const LAST_LINE: &str = "It stays up until Ctrl-C.";

/// A demo under way; killed if a test fails.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let (child, stdout) = spawn(args);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Demo { child, lines, seen: Vec::new() }
    }

    /// Reads on to the line that begins with `start`.
    fn line(&mut self, start: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("no line {start:?} ({error}): {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// What Ctrl-C does, and how it ended.
    fn interrupt(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("a running demo");
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        // Its end closes stdout, so this is bounded though waiting for a child is not.
        while self.lines.recv_timeout(PATIENCE).inspect_err(|error| assert_eq!(*error, DISCONNECTED)).is_ok() {}
        self.child.wait().expect("a child")
    }
}

const DISCONNECTED: std::sync::mpsc::RecvTimeoutError = std::sync::mpsc::RecvTimeoutError::Disconnected;

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &[&str]) -> (Child, ChildStdout) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .arg("demo")
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary");
    let stdout = child.stdout.take().expect("a pipe");
    (child, stdout)
}

/// The text between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text:?}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {rest:?}")).0
}

#[test]
fn what_it_prints_can_be_copied_and_works_though_the_port_was_taken() {
    let occupied = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = occupied.local_addr().expect("an address").port().to_string();
    let mut demo = Demo::start(&["--port", &taken, "--streams", "4"]);

    let address = between(&demo.line("gateway "), "http://", " ").to_owned();
    assert!(!address.ends_with(&format!(":{taken}")), "{address}");
    for (row, quantile) in [("time to first token", "p50"), ("way of each later event", "p50")] {
        let line = demo.line(row);
        assert!(line.contains(quantile) && line.matches(" µs").count() == 3, "{line}");
    }
    let curl = demo.line("curl -N ");
    let base_url = between(&demo.line("client = OpenAI("), "base_url=\"", "\"").to_owned();
    assert_eq!(base_url, format!("http://{address}/v1"));
    demo.line(LAST_LINE);

    let path = between(&curl, &format!("http://{address}"), " ").to_owned();
    let (header, body) = (between(&curl, "-H '", "'"), between(&curl, "-d '", "'"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{header}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(&address).expect("the gateway");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"content\":\""), "{answer}");
    assert!(answer.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{answer}");

    assert_eq!(demo.interrupt().code(), Some(0));
}

#[test]
fn ctrl_c_ends_it_properly_in_every_phase() {
    for phase in ["provider ", "One chat ", "4 streams straight ", LAST_LINE] {
        let args = ["--port", "0", "--streams", "4", "--no-load"];
        let args = if phase.starts_with('4') { &args[..4] } else { &args[..] };
        let mut demo = Demo::start(args);
        demo.line(phase);
        assert_eq!(demo.interrupt().code(), Some(0), "{phase}");
    }
}

#[test]
fn it_ends_when_nobody_reads_what_it_says() {
    let (mut child, stdout) = spawn(&["--port", "0"]);
    let mut first = String::new();
    let mut reader = BufReader::new(stdout);
    reader.read_line(&mut first).expect("a line");
    drop(reader);
    let mut told = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
    assert_eq!(child.wait().expect("a child").code(), Some(1), "{told}");
    assert!(told.contains("stdout is closed") && !told.contains("panicked"), "{told}");
}
