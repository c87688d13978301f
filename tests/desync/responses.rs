//! Answers of an origin: what a client gets is what was answered, told to be none, or cut; and the request behind it has its
//! own answer. A strict client and a lenient one count the same answers of the same lengths, over HTTP/1.1 and over HTTP/2.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::PATIENCE;
use super::dice::Dice;
use super::http2::{Said, Wire, get};
use super::lenient::{self, WAYS};
use super::mutate::{self, Stock};
use super::reader::{self, Read, Response};
use super::sent::{futures, gateway};
use super::stock;
use super::trial::Trial;

const PART: u64 = 3;
const LANES: usize = 32;
/// Inputs asked for over one connection.
const TOGETHER: usize = 4;

/// What the origin answers to one input.
struct Answer {
    bytes: Vec<u8>,
    to_head: bool,
    over_http2: bool,
    /// True if the origin ends the connection behind it.
    ends: bool,
    /// What it is by the RFC.
    read: Read<Response>,
    /// True if the body is said to be encoded, though it is not: then it cannot be read.
    coded: bool,
}

fn answer(stock: &Stock, seed: u64, number: u64) -> Answer {
    let bytes = mutate::input(stock, seed, PART, number);
    let mut dice = Dice::of(seed, PART + 100, number);
    let (to_head, over_http2) = (dice.one_in(8), dice.one_in(3));
    let read = reader::response(&bytes, to_head);
    let waits = !matches!(&read, Read::Whole(response, _) if !response.until_close);
    let coded = memchr::memmem::find(&bytes.to_ascii_lowercase(), b"content-encoding").is_some();
    Answer { bytes, to_head, over_http2, ends: waits || dice.one_in(4), read, coded }
}

fn canary(number: u64) -> String {
    format!("canary {number}")
}

struct Part<'t> {
    trial: &'t Trial,
    stock: Rc<Stock>,
    gateway: SocketAddr,
    again: RefCell<VecDeque<u64>>,
    rest: RefCell<Range<u64>>,
}

pub async fn run(trial: &Trial) {
    let stock = Rc::new(stock::responses());
    let spoiled = Spoiled::default();
    let origin = start(Rc::clone(&stock), trial.seed, Rc::clone(&spoiled)).await;
    let gateway = gateway(origin, "[timers]\nfirst_token = \"5s\"\nbetween_tokens = \"5s\"\n");
    let part = Part { trial, stock, gateway: gateway.address(), again: RefCell::default(), rest: RefCell::new(0..0) };
    for round in trial.rounds() {
        let end = round.end;
        *part.rest.borrow_mut() = round;
        futures(LANES, || part.lane()).await;
        for bytes in spoiled.borrow_mut().drain(..) {
            trial.find("a connection is used again that is out of step", &bytes);
        }
        trial.say(end);
    }
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

/// Answers behind which the connection was used again though more, or less, than one answer had come over it.
type Spoiled = Rc<RefCell<Vec<Vec<u8>>>>;

/// An origin that answers what the target asks for.
async fn start(stock: Rc<Stock>, seed: u64, spoiled: Spoiled) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream, Rc::clone(&stock), seed, Rc::clone(&spoiled)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, stock: Rc<Stock>, seed: u64, spoiled: Spoiled) {
    let _ = stream.set_nodelay(true);
    // What was sent last, if it was not exactly one answer.
    let mut spoils = None;
    let mut held = Vec::with_capacity(4 << 10);
    loop {
        match reader::request(&held) {
            Read::Whole(request, len) => {
                held.drain(..len);
                spoiled.borrow_mut().extend(spoils.take());
                let (path, number) = request.target.rsplit_once('/').expect("a number");
                let number = number.parse().expect("a number");
                if path.ends_with("canary") {
                    let body = canary(number);
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    if stream.write_all((head + &body).as_bytes()).await.is_err() {
                        return;
                    }
                    continue;
                }
                let answer = answer(&stock, seed, number);
                let is_one = matches!(answer.read, Read::Whole(_, len) if len == answer.bytes.len());
                spoils = (!is_one).then(|| answer.bytes.clone());
                if stream.write_all(&answer.bytes).await.is_err() || answer.ends {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
            Read::Partial if matches!(stream.read_buf(&mut held).await, Ok(1..)) => {}
            _ => return,
        }
    }
}

impl Part<'_> {
    fn next(&self) -> Option<u64> {
        self.again.borrow_mut().pop_front().or_else(|| self.rest.borrow_mut().next())
    }

    async fn lane(&self) {
        let mut http2 = None;
        while !self.trial.found_enough() {
            let (mut inputs, mut alone) = (Vec::new(), None);
            while inputs.len() < TOGETHER
                && let Some(number) = self.next()
            {
                let answer = answer(&self.stock, self.trial.seed, number);
                if answer.over_http2 {
                    alone = Some((number, answer));
                    break;
                }
                inputs.push((number, answer));
            }
            if inputs.is_empty() && alone.is_none() {
                return;
            }
            if !inputs.is_empty() {
                self.over_http1(&inputs).await;
            }
            if let Some((number, answer)) = alone {
                self.over_http2(&mut http2, number, &answer).await;
            }
        }
    }

    async fn over_http1(&self, inputs: &[(u64, Answer)]) {
        let mut bytes = Vec::new();
        for (number, answer) in inputs {
            let method = if answer.to_head { "HEAD" } else { "GET" };
            bytes.extend(format!("{method} /v1/first/{number} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes());
            bytes.extend(format!("GET /v1/canary/{number} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes());
        }
        let Ok(came) = tokio::time::timeout(PATIENCE, self.exchange(&bytes)).await else {
            self.trial.find("the gateway neither answers nor ends the connection", &inputs[0].1.bytes);
            return;
        };
        let mut rest = &came[..];
        for (at, (number, answer)) in inputs.iter().enumerate() {
            self.trial.count("inputs", 1);
            if !self.judge(*number, answer, &mut rest) {
                if !rest.is_empty() {
                    self.trial.find(
                        &format!("behind its last answer the gateway sends {:?}", rest.escape_ascii().to_string()),
                        &answer.bytes,
                    );
                }
                self.again.borrow_mut().extend(inputs[at + 1..].iter().map(|(number, _)| number));
                return;
            }
        }
    }

    async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = loop {
            match TcpStream::connect(self.gateway).await {
                Ok(stream) => break stream,
                // All ports are taken for a moment.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        let _ = stream.set_nodelay(true);
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut came = Vec::with_capacity(4 << 10);
        let _ = stream.read_to_end(&mut came).await;
        came
    }

    /// Checks the answer and the canary's behind it. False if the connection ended with it.
    fn judge(&self, number: u64, answer: &Answer, rest: &mut &[u8]) -> bool {
        let Some(first) = self.one(answer, answer.to_head, rest) else { return false };
        self.compare(answer, first.status, &first.body, true);
        if first.closes {
            return false;
        }
        let Some(second) = self.one(answer, false, rest) else {
            self.trial.find("the request behind it gets no answer", &answer.bytes);
            return false;
        };
        if matches!(second.status, 502 | 504) {
            self.trial.note("requests behind one that were refused", &answer.bytes);
        } else if second.status != 200 || second.body != canary(number).as_bytes() {
            self.trial.find(
                &format!("the request behind it gets {} {:?}", second.status, String::from_utf8_lossy(&second.body)),
                &answer.bytes,
            );
        }
        !second.closes
    }

    /// The next answer, if it is whole and everybody takes it for the same one.
    fn one(&self, answer: &Answer, to_head: bool, rest: &mut &[u8]) -> Option<Response> {
        match reader::response(rest, to_head) {
            Read::Whole(response, len) => {
                let (one, after) = rest.split_at(len);
                *rest = after;
                for ways in WAYS {
                    let bodiless = |words: &[String]| {
                        to_head
                            || matches!(words.get(1).map_or("", |status| status), "204" | "304")
                            || words.get(1).is_some_and(|status| status.starts_with('1'))
                    };
                    let mut at = 0;
                    let taken = loop {
                        let Some(message) = lenient::read(&one[at..], ways, bodiless, false) else { break None };
                        at += message.len;
                        if !message.words.get(1).is_some_and(|status| status.starts_with('1')) {
                            break Some(message);
                        }
                    };
                    if at != len || taken.as_ref().is_none_or(|message| message.body != response.body) {
                        self.trial.find(
                            &format!("a lenient client takes {:?} for {taken:?}", one.escape_ascii().to_string()),
                            &answer.bytes,
                        );
                    }
                }
                Some(response)
            }
            Read::Partial => {
                if matches!(answer.read, Read::Whole(..)) && !answer.coded {
                    self.trial
                        .find(&format!("what is whole is cut: {:?}", rest.escape_ascii().to_string()), &answer.bytes);
                }
                self.trial.count("answers that were cut", 1);
                *rest = &[];
                None
            }
            Read::Fault(why) => {
                self.trial.find(
                    &format!("the gateway answers with what is none: {why}: {:?}", rest.escape_ascii().to_string()),
                    &answer.bytes,
                );
                *rest = &[];
                None
            }
        }
    }

    /// An answer that a client takes for a whole one is the origin's, or says that the origin failed.
    fn compare(&self, answer: &Answer, status: u16, body: &[u8], is_whole: bool) {
        match &answer.read {
            Read::Whole(meant, _) if is_whole && meant.status == status && meant.body == body => {
                self.trial.count("answers that were passed on", 1);
            }
            Read::Whole(meant, _) if matches!(status, 502 | 504) && is_whole => {
                let _ = meant;
                self.trial.note(&format!("sound answers that were refused with {status}"), &answer.bytes);
            }
            _ if matches!(status, 502 | 504) => {
                self.trial.count(&format!("answers that were refused with {status}"), 1)
            }
            Read::Whole(..) if !is_whole => {
                self.trial.find("what is whole is cut over HTTP/2", &answer.bytes);
            }
            read => {
                let what = format!("{read:?} becomes {status} {:?}", String::from_utf8_lossy(body));
                self.trial.find(&what, &answer.bytes);
            }
        }
    }

    async fn over_http2(&self, wire: &mut Option<Wire>, number: u64, answer: &Answer) {
        let connected = match wire {
            Some(connected) if connected.next_stream() < 1000 => connected,
            _ => wire.insert(Wire::connect(self.gateway, PATIENCE / 2).await),
        };
        let stream = connected.next_stream();
        let path = format!("/v1/first/{number}");
        let mut first = get(stream, &path);
        if answer.to_head {
            // GET and HEAD differ in the text of the first field.
            let fields = [(":method", "HEAD"), (":scheme", "http"), (":authority", "h"), (":path", &*path)];
            let block: Vec<u8> = fields
                .iter()
                .flat_map(|(name, value)| super::common::http2::field(name.as_bytes(), value.as_bytes()))
                .collect();
            first = super::common::http2::head(stream, &block, true);
        }
        let plain = get(stream + 2, &format!("/v1/canary/{number}"));
        let exchange = connected.exchange(&first, &plain);
        let Ok(outcome) = tokio::time::timeout(PATIENCE, exchange).await else {
            self.trial.find("the gateway goes on for ever", &answer.bytes);
            *wire = None;
            return;
        };
        self.trial.count("inputs", 1);
        if outcome.garbage || !outcome.goes_on {
            self.trial.find("the gateway ends the connection, or gives two answers", &answer.bytes);
            *wire = None;
        }
        let Said { status, body, whole, reset } = outcome.first;
        if whole {
            self.compare(answer, status, &body, true);
        } else if reset {
            self.trial.count("answers that were cut over HTTP/2", 1);
            if matches!(answer.read, Read::Whole(..)) && !answer.coded {
                self.trial.find("what is whole is cut over HTTP/2", &answer.bytes);
            }
        } else {
            self.trial.count("answers that were not waited for", 1);
        }
        let Said { status, body, whole, .. } = outcome.canary;
        if whole && matches!(status, 502 | 504) {
            self.trial.note("requests behind one that were refused", &answer.bytes);
        } else if !(whole && status == 200 && body == canary(number).as_bytes()) && wire.is_some() {
            self.trial.find(
                &format!("the request behind it gets {status} {:?}", String::from_utf8_lossy(&body)),
                &answer.bytes,
            );
        }
    }
}
