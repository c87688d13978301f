//! Requests over HTTP/1.1: what the gateway sends on is what it was sent, and nobody takes it for anything else.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;
use super::common::{Config, Gateway};
use super::mutate::{self, Stock};
use super::origins::Sent;
use super::reader::{self, Read, Response};
use super::recorder::Recorder;
use super::stock;
use super::trial::{Trial, a_moment};
use super::view::View;

const PART: u64 = 1;
/// Inputs sent at once over one connection. What comes behind a refusal is sent again.
const TOGETHER: usize = 4;
/// Connections at a time.
const LANES: usize = 24;

/// What was sent on so far, by the hash of its bytes without what is different each time.
#[derive(Default)]
pub struct Distinct {
    known: HashSet<u64>,
    pub fresh: Vec<Sent>,
}

impl Distinct {
    pub fn add(&mut self, bytes: Vec<u8>, view: &View) {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(masked(&bytes));
        if self.known.insert(hash) {
            self.fresh.push(Sent { bytes, view: view.clone() });
        }
    }

    pub fn len(&self) -> u64 {
        self.known.len() as u64
    }
}

/// The bytes without the ids that the gateway gave them.
fn masked(bytes: &[u8]) -> Vec<&[u8]> {
    let own = |line: &&[u8]| !(line.starts_with(b"x-request-id: ") || line.starts_with(b"x-tag: "));
    bytes.split(|byte| *byte == b'\n').filter(own).collect()
}

/// The gateway, which lets in everybody and reads on when a client has ended its side.
pub fn gateway(origin: SocketAddr, more: &str) -> Gateway {
    let config = Config::new(&[format!("http://{origin}/v1")]).keys("").endpoint("").provider("include_usage = false");
    let rest = "[client]\nhalf_close = \"finish\"\nrequests_max = 1000000\n[trace]\nstart = \"never\"\n[log]\nlevel = \"info\"\n";
    Gateway::start(&config.and(&format!("{rest}{more}")))
}

struct Part<'t> {
    trial: &'t Trial,
    stock: Stock,
    gateway: SocketAddr,
    recorder: Recorder,
    distinct: RefCell<Distinct>,
    /// Inputs to be sent again.
    again: RefCell<VecDeque<u64>>,
    rest: RefCell<Range<u64>>,
}

pub async fn run(trial: &Trial) {
    let recorder = Recorder::start(true).await;
    let gateway = gateway(recorder.address, "");
    let mut origins = trial.origins().await;
    let part = Part {
        trial,
        stock: stock::requests(),
        gateway: gateway.address(),
        recorder,
        distinct: RefCell::default(),
        again: RefCell::default(),
        rest: RefCell::new(0..0),
    };
    for round in trial.rounds() {
        let end = round.end;
        *part.rest.borrow_mut() = round;
        futures(LANES, || part.lane()).await;
        settle(trial, &part.recorder).await;
        let fresh = std::mem::take(&mut part.distinct.borrow_mut().fresh);
        trial.judge(&mut origins, &fresh).await;
        trial.say(end);
    }
    trial.count("distinct requests sent on", part.distinct.borrow().len());
    trial.tell(&origins);
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

/// Runs so many of the same at a time.
pub async fn futures<F: Future<Output = ()>>(count: usize, make: impl Fn() -> F) {
    let mut all: Vec<_> = (0..count).map(|_| Some(Box::pin(make()))).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for slot in &mut all {
            if let Some(future) = slot {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(()) => *slot = None,
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
}

/// Once all clients have gone, no request may be left that nobody was answered for.
async fn settle(trial: &Trial, recorder: &Recorder) {
    for _ in 0..100 {
        if recorder.log.borrow().untold.is_empty() {
            break;
        }
        a_moment().await;
    }
    let mut log = recorder.log.borrow_mut();
    for (_, bytes) in log.untold.drain() {
        trial.find("an origin was sent a request whose answer came to nobody", &bytes);
    }
    for (why, bytes) in log.faults.drain(..) {
        trial.find(&format!("an origin was sent what is no request: {why}"), &bytes);
    }
}

const CANARY: &[u8] = b"GET /v1/canary HTTP/1.1\r\nHost: h\r\n\r\n";

impl Part<'_> {
    fn next(&self) -> Option<u64> {
        self.again.borrow_mut().pop_front().or_else(|| self.rest.borrow_mut().next())
    }

    async fn lane(&self) {
        while !self.trial.found_enough() {
            let inputs: Vec<u64> = (0..TOGETHER).map_while(|_| self.next()).collect();
            if inputs.is_empty() {
                return;
            }
            let (mut bytes, mut starts) = (Vec::new(), Vec::new());
            for input in &inputs {
                starts.push(bytes.len());
                bytes.extend(mutate::input(&self.stock, self.trial.seed, PART, *input));
                bytes.extend(CANARY);
            }
            let came = match tokio::time::timeout(PATIENCE, self.exchange(&bytes)).await {
                Ok(came) => came,
                Err(_) => {
                    self.trial.find("the gateway neither answers nor ends the connection", &bytes);
                    continue;
                }
            };
            let begun = self.judge(&bytes, &came);
            for (at, input) in inputs.iter().enumerate() {
                let end = starts.get(at + 1).copied().unwrap_or(bytes.len());
                if begun.iter().any(|begun| (starts[at]..end).contains(begun)) {
                    self.trial.count("inputs", 1);
                } else {
                    self.again.borrow_mut().push_back(*input);
                }
            }
        }
    }

    /// All that the gateway answers to these bytes and the end behind them.
    async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = loop {
            match TcpStream::connect(self.gateway).await {
                Ok(stream) => break stream,
                // All ports are taken for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let _ = stream.set_nodelay(true);
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut came = Vec::with_capacity(4 << 10);
        let _ = stream.read_to_end(&mut came).await;
        came
    }

    /// Checks the answers to `bytes`, and returns where in them the gateway began to read a request.
    fn judge(&self, bytes: &[u8], mut came: &[u8]) -> Vec<usize> {
        let trial = self.trial;
        let (mut at, mut begun) = (0, Vec::new());
        loop {
            begun.push(at);
            let read = reader::request(&bytes[at..]);
            let to_head = matches!(&read, Read::Whole(request, _) if request.method == "HEAD");
            if came.is_empty() {
                match read {
                    Read::Partial => trial.count("requests that were not ended: no answer", 1),
                    Read::Whole(..) | Read::Fault(_) if at < bytes.len() => {
                        trial.find("the gateway ended the connection without an answer", bytes);
                    }
                    _ => {}
                }
                return begun;
            }
            let (answer, len) = match reader::response(came, to_head) {
                Read::Whole(answer, len) => (answer, len),
                // To a HEAD that we take for something else: a refusal, whose body is not sent.
                Read::Partial if let Read::Whole(answer, len) = reader::response(came, true) => (answer, len),
                other => {
                    trial.find(
                        &format!("the gateway answers with what is none: {other:?} in {}", came.escape_ascii()),
                        bytes,
                    );
                    return begun;
                }
            };
            let all = came;
            came = &came[len..];
            let Some(told) = &answer.seen else {
                trial.note(&format!("requests that were answered with {}", answer.status), &bytes[at..]);
                if self.is_last(&answer, &read) {
                    // Of a malformed head it is not known that it was of a HEAD, and the refusal has a body.
                    let has_body = matches!(reader::response(all, false), Read::Whole(_, len) if len == all.len());
                    let is_body = to_head && has_body;
                    if !came.is_empty() && !is_body {
                        trial.find("the gateway answers behind its last answer", bytes);
                    }
                    return begun;
                }
                let Read::Whole(_, len) = read else {
                    trial.find(&format!("the gateway goes on behind what is no request: {read:?}"), bytes);
                    return begun;
                };
                at += len;
                continue;
            };
            let Some((number, view)) = View::read(told) else {
                trial.find(&format!("the origin's view was changed to {told}"), bytes);
                return begun;
            };
            let Some(sent) = self.recorder.log.borrow_mut().untold.remove(&number) else {
                trial.find("a client gets an answer that another one had", bytes);
                return begun;
            };
            let Read::Whole(request, len) = read else {
                trial.find(&format!("the gateway sends on what is no request: {read:?} as {view:?}"), &bytes[at..]);
                return begun;
            };
            if view != View::of(&request) {
                trial.find(&format!("the gateway sends {request:?} on as {view:?}"), &bytes[at..]);
                return begun;
            }
            trial.count("requests that were sent on", 1);
            self.distinct.borrow_mut().add(sent, &view);
            at += len;
            if answer.closes || !request.keeps {
                if !came.is_empty() {
                    trial.find("the gateway answers behind its last answer", bytes);
                }
                return begun;
            }
        }
    }

    fn is_last(&self, answer: &Response, read: &Read<reader::Request>) -> bool {
        answer.closes || answer.until_close || matches!(read, Read::Whole(request, _) if !request.keeps)
    }
}
