//! The fixed-answer mode: an upstream that costs less than the gateway under measurement.
//!
//! One answer is prebuilt and goes out with one write; streams get prebuilt events from one ticker, their
//! phases spread evenly over the gap, so that thousands of streams make a steady flow and not a burst. The
//! HTTP is the least that a correct client needs; it reads requests of `Content-Length` or chunked
//! bodies and trusts them. Files are [`super::transfer`]'s. No faults, no scripts: those are [`super::service`]'s.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

use super::Shared;
use super::answer::{Ask, STAMP, STAMP_DIGITS};
use super::openai;
use super::script::{Script, Usage};
use super::stats::{Connection, Exchange, State, monotonic_ns};
use super::transfer::{Block, Download, FILE_BYTES_MAX, PIECE_BYTES, Swallowed, Upload, is_upload};

/// Bytes of one request read at most; a longer one ends its connection.
const REQUEST_BYTES_MAX: usize = 64 << 20;
/// The golden ratio in 64 bits: multiples of it, wrapped, fall evenly into any range.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What is sent, made once.
pub(crate) struct Answers {
    whole: Vec<u8>,
    stream_head: Vec<u8>,
    event: Vec<u8>,
    tail: Vec<u8>,
    tail_with_usage: Vec<u8>,
    block: Block,
    tokens: u32,
    ttft_ns: u64,
    gap_ns: u64,
}

impl Answers {
    /// Answers for `script`'s timing, tokens, seed and stamp; the unstreamed body has `body_bytes` bytes.
    pub(crate) fn new(script: &Script, body_bytes: usize) -> Answers {
        let ask = Ask::of(&serde_json::json!({"model": "mock", "stream": true}));
        let one = |tokens, token_bytes| Script {
            seed: script.seed,
            tokens,
            token_bytes,
            stamp: script.stamp,
            usage: Usage::Final,
            role: false,
            ..Script::default()
        };
        let shortest = openai::chat(&one(1, 1), &ask).len();
        let padding = u32::try_from(body_bytes.saturating_sub(shortest)).unwrap_or(u32::MAX);
        let body = openai::chat(&one(1, 1 + padding), &ask);
        let whole = json_answer(&body);
        let chunk = |events: &[&str]| {
            let text: String = events.iter().map(|data| format!("data: {data}\n\n")).collect();
            format!("{:x}\r\n{text}\r\n", text.len())
        };
        let events = openai::chat_events(&one(1, script.token_bytes), &ask);
        let data: Vec<&str> = events.iter().map(|event| event.data.as_str()).collect();
        let content = if script.stamp {
            format!("{},{STAMP}}}", data[0].trim_end_matches('}').to_owned() + closing(data[0]))
        } else {
            data[0].to_owned()
        };
        Answers {
            whole: whole.into_bytes(),
            stream_head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                           transfer-encoding: chunked\r\n\r\n"
                .to_vec(),
            event: chunk(&[&content]).into_bytes(),
            tail: (chunk(&[data[1], data[3]]) + "0\r\n\r\n").into_bytes(),
            tail_with_usage: (chunk(&[data[1], data[2], data[3]]) + "0\r\n\r\n").into_bytes(),
            block: Block::new(),
            tokens: script.tokens,
            ttft_ns: nanos(script.ttft),
            gap_ns: nanos(script.gap).max(1),
        }
    }
}

fn json_answer(body: &str) -> String {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{body}", body.len())
}

/// The closing braces of an object but its last.
fn closing(data: &str) -> &str {
    let braces = data.len() - data.trim_end_matches('}').len();
    &data[data.len() - braces..data.len() - 1]
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Accepts for ever.
pub(crate) async fn accept(listener: TcpListener, answers: Answers, shared: Arc<Shared>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let answers = Rc::new(answers);
    let ticker = Rc::new(Ticker::default());
    tokio::task::spawn_local(Rc::clone(&ticker).run(Rc::clone(&answers), Clockwork::new()?));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (read, write) = stream.into_split();
        let peer = Peer {
            connection: shared.stats.connected(),
            shared: Arc::clone(&shared),
            answers: Rc::clone(&answers),
            ticker: Rc::clone(&ticker),
            write: Rc::new(write),
        };
        tokio::task::spawn_local(peer.serve(read));
    }
}

struct Peer {
    connection: Connection,
    shared: Arc<Shared>,
    answers: Rc<Answers>,
    ticker: Rc<Ticker>,
    write: Rc<OwnedWriteHalf>,
}

impl Peer {
    async fn serve(mut self, mut read: OwnedReadHalf) {
        let mut buf: Vec<u8> = Vec::with_capacity(8192);
        loop {
            let request = match Request::parse(&buf) {
                Parsed::Whole(request) => request,
                Parsed::Upload { head_bytes, length } => {
                    if !self.swallow(Upload::new(length), head_bytes, &mut buf, &mut read).await {
                        return;
                    }
                    continue;
                }
                Parsed::Partial if buf.len() < REQUEST_BYTES_MAX => match read.read_buf(&mut buf).await {
                    Ok(bytes) if bytes > 0 => continue,
                    _ => return,
                },
                Parsed::Partial | Parsed::Malformed => return,
            };
            let bytes = request.bytes;
            if let Some(download) = Download::of_path(request.path).filter(|_| !request.is_post) {
                let exchange = self.connection.begin(request.path);
                if self.transfer(download, exchange).await.is_err() {
                    return;
                }
            } else if let Some(answer) = self.control(&request) {
                if self.send(answer.as_bytes()).await.is_err() {
                    return;
                }
            } else {
                let mut exchange = self.connection.begin(request.path);
                if request.stream {
                    let usage = request.usage;
                    if !self.stream(exchange, usage, &mut read).await {
                        return;
                    }
                } else {
                    if self.send(&self.answers.whole).await.is_err() {
                        return;
                    }
                    exchange.sent(self.answers.whole.len());
                    exchange.end(State::Completed);
                }
            }
            buf.drain(..bytes);
        }
    }

    /// The answer to anything but a POST of an API.
    fn control(&self, request: &Request<'_>) -> Option<String> {
        let body = match (request.is_post, request.path) {
            (true, "/mock/reset") => {
                self.shared.stats.reset();
                "{}".to_owned()
            }
            (true, _) => return None,
            (false, path) if path.ends_with("/models") => openai::models(),
            (false, _) => serde_json::to_string(&self.shared.stats.snapshot()).unwrap_or_default(),
        };
        Some(json_answer(&body))
    }

    async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write.try_write(bytes) {
                Ok(wrote) => bytes = &bytes[wrote..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.write.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn transfer(&self, mut download: Download, mut exchange: Exchange) -> io::Result<()> {
        self.send(download.head().as_bytes()).await?;
        while let Some(piece) = download.next(&self.answers.block) {
            self.send(piece.as_ref()).await?;
            exchange.sent(piece.as_ref().len());
        }
        exchange.end(State::Completed);
        Ok(())
    }

    /// Reads an upload to its end, whose head is at the start of `buf`, and answers with its length; false if the client
    /// left. Leaves in `buf` what came behind it.
    async fn swallow(
        &mut self,
        mut upload: Upload,
        head_bytes: usize,
        buf: &mut Vec<u8>,
        read: &mut OwnedReadHalf,
    ) -> bool {
        let exchange = self.connection.begin("/files");
        buf.drain(..head_bytes);
        let bytes = loop {
            match upload.feed(buf) {
                Swallowed::Whole { used, bytes } => {
                    buf.drain(..used);
                    break bytes;
                }
                Swallowed::Malformed => return false,
                Swallowed::Partial => buf.clear(),
            }
            buf.reserve(PIECE_BYTES);
            if !matches!(read.read_buf(buf).await, Ok(1..)) {
                return false;
            }
        };
        let answer = json_answer(&format!(r#"{{"object":"file","bytes":{bytes}}}"#));
        if self.send(answer.as_bytes()).await.is_err() {
            return false;
        }
        exchange.end(State::Completed);
        true
    }

    /// Hands a stream to the ticker and waits for its end; false if the client left.
    async fn stream(&self, exchange: Exchange, usage: bool, read: &mut OwnedReadHalf) -> bool {
        let done = Rc::new(Done::default());
        self.ticker.add(&self.answers, Rc::clone(&self.write), exchange, usage, Rc::clone(&done));
        let mut byte = [0];
        let left = tokio::select! {
            biased;
            () = done.notify.notified() => false,
            // A client that speaks before its stream has ended leaves the byte for later; here it is gone.
            _ = read.peek(&mut byte) => true,
        };
        if left {
            done.gone.set(true);
            // Counted now, not when the ticker comes round to it.
            drop(done.exchange.take());
        }
        !left && !done.failed.get()
    }
}

/// How a stream stands, between its connection and the ticker.
#[derive(Default)]
struct Done {
    notify: Notify,
    gone: Cell<bool>,
    failed: Cell<bool>,
    exchange: RefCell<Option<Exchange>>,
}

struct Stream {
    write: Rc<OwnedWriteHalf>,
    done: Rc<Done>,
    usage: bool,
    /// Content events sent.
    sent: u32,
    /// What the socket did not take last time.
    unsent: Vec<u8>,
}

/// All streams of a thread, by the time of their next event.
#[derive(Default)]
struct Ticker {
    due: RefCell<BinaryHeap<Reverse<(u64, usize)>>>,
    streams: RefCell<Vec<Option<Stream>>>,
    free: RefCell<Vec<usize>>,
    begun: Cell<u64>,
    earlier: Notify,
}

impl Ticker {
    fn add(&self, answers: &Answers, write: Rc<OwnedWriteHalf>, exchange: Exchange, usage: bool, done: Rc<Done>) {
        *done.exchange.borrow_mut() = Some(exchange);
        let stream = Stream { write, done, usage, sent: 0, unsent: answers.stream_head.clone() };
        let slot = match self.free.borrow_mut().pop() {
            Some(slot) => slot,
            None => {
                self.streams.borrow_mut().push(None);
                self.streams.borrow().len() - 1
            }
        };
        self.streams.borrow_mut()[slot] = Some(stream);
        let number = self.begun.replace(self.begun.get().wrapping_add(1));
        let part = number.wrapping_mul(GOLDEN) >> 32;
        // Due times lie on this stream's own phase of a common grid, whenever it began.
        let phase = ((u128::from(part) * u128::from(answers.gap_ns)) >> 32) as u64;
        let earliest = monotonic_ns() + answers.ttft_ns;
        let base = earliest - earliest % answers.gap_ns + phase;
        let first = if base < earliest { base + answers.gap_ns } else { base };
        let mut due = self.due.borrow_mut();
        let is_next = due.peek().is_none_or(|Reverse((next, _))| first < *next);
        due.push(Reverse((first, slot)));
        if is_next {
            self.earlier.notify_one();
        }
    }

    async fn run(self: Rc<Ticker>, answers: Rc<Answers>, clockwork: Clockwork) {
        let mut scratch = Vec::new();
        loop {
            let now = monotonic_ns();
            let next = self.due.borrow().peek().map(|Reverse(next)| *next);
            match next {
                Some((at, slot)) if at <= now => {
                    self.due.borrow_mut().pop();
                    let goes_on = self.send(&answers, slot, &mut scratch);
                    if goes_on {
                        self.due.borrow_mut().push(Reverse((at + answers.gap_ns, slot)));
                    } else {
                        self.streams.borrow_mut()[slot] = None;
                        self.free.borrow_mut().push(slot);
                    }
                }
                Some((at, _)) => {
                    tokio::select! {
                        () = clockwork.until(at) => {}
                        () = self.earlier.notified() => {}
                    }
                }
                None => self.earlier.notified().await,
            }
        }
    }

    /// Sends the next event of a stream; false when it has ended.
    fn send(&self, answers: &Answers, slot: usize, scratch: &mut Vec<u8>) -> bool {
        let mut streams = self.streams.borrow_mut();
        let Some(stream) = streams[slot].as_mut() else {
            return false;
        };
        if stream.done.gone.get() {
            return false;
        }
        scratch.clear();
        scratch.append(&mut stream.unsent);
        // A client that does not read gets no more put on top; its stream just takes longer.
        let blocked = stream.sent > 0 && !scratch.is_empty();
        let mut last = stream.sent > answers.tokens;
        if !blocked && !last {
            if stream.sent < answers.tokens {
                let from = scratch.len();
                scratch.extend_from_slice(&answers.event);
                stamp(&mut scratch[from..]);
            } else {
                let tail = if stream.usage { &answers.tail_with_usage } else { &answers.tail };
                scratch.extend_from_slice(tail);
                last = true;
            }
            stream.sent += 1;
        }
        let wrote = match stream.write.try_write(scratch) {
            Ok(wrote) => wrote,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                stream.done.failed.set(true);
                drop(stream.done.exchange.take());
                stream.done.notify.notify_one();
                return false;
            }
        };
        if let Some(exchange) = stream.done.exchange.borrow_mut().as_mut() {
            exchange.sent(wrote);
            exchange.event();
        }
        stream.unsent.extend_from_slice(&scratch[wrote..]);
        if last && stream.unsent.is_empty() {
            if let Some(exchange) = stream.done.exchange.take() {
                exchange.end(State::Completed);
            }
            stream.done.notify.notify_one();
            return false;
        }
        true
    }
}

/// Puts the time into an event that has a place for it.
fn stamp(bytes: &mut [u8]) {
    let Some(at) = memchr::memmem::find(bytes, STAMP.as_bytes()) else {
        return;
    };
    let end = at + STAMP.len();
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(monotonic_ns()).as_bytes();
    bytes[end - digits.len().min(STAMP_DIGITS)..end].copy_from_slice(digits);
}

/// A timer of nanoseconds; the runtime's own counts in milliseconds, which would bunch events.
struct Clockwork {
    timer: TimerFd,
    /// The same descriptor in the runtime. It reads like a pipe: eight bytes when the timer has run out.
    expired: pipe::Receiver,
}

impl Clockwork {
    fn new() -> io::Result<Clockwork> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let expired = pipe::Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
        Ok(Clockwork { timer, expired })
    }

    /// Until CLOCK_MONOTONIC shows `at` nanoseconds, or sooner: the caller looks at the clock.
    async fn until(&self, at: u64) {
        let at = TimeSpec::from_duration(Duration::from_nanos(at));
        // Setting it forgets an expiry that was not read, so the read below finds one only if `at` is past
        // already; else it takes the runtime's stale readiness away, and costs no more than reading each expiry.
        let set = self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
        if set.is_ok() && self.expired.try_read(&mut [0; 8]).is_err() {
            let _ = self.expired.readable().await;
        }
    }
}

/// As much of a request as matters.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    is_post: bool,
    path: &'a str,
    stream: bool,
    usage: bool,
    /// Head and body together.
    bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed<'a> {
    Whole(Request<'a>),
    /// The head of an upload; the length is missing where it comes in chunks.
    Upload {
        head_bytes: usize,
        length: Option<usize>,
    },
    Partial,
    Malformed,
}

impl Request<'_> {
    fn parse(buf: &[u8]) -> Parsed<'_> {
        let Some(head_bytes) = memchr::memmem::find(buf, b"\r\n\r\n").map(|at| at + 4) else {
            return Parsed::Partial;
        };
        let Ok(head) = std::str::from_utf8(&buf[..head_bytes]) else {
            return Parsed::Malformed;
        };
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or("").split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Parsed::Malformed;
        };
        let path = target.split('?').next().unwrap_or(target);
        let is_upload = method == "POST" && is_upload(path);
        let bytes_max = if is_upload { FILE_BYTES_MAX } else { REQUEST_BYTES_MAX };
        let mut length = Some(0);
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(match value.trim().parse::<usize>() {
                    Ok(length) if length <= bytes_max => length,
                    _ => return Parsed::Malformed,
                });
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                length = None;
            }
        }
        if is_upload {
            return Parsed::Upload { head_bytes, length };
        }
        let rest = &buf[head_bytes..];
        let length = match length {
            Some(length) => length,
            // Good enough for JSON, which holds no such line break.
            None if rest.starts_with(b"0\r\n\r\n") => 5,
            None => match memchr::memmem::find(rest, b"\r\n0\r\n\r\n") {
                Some(at) => at + 7,
                None => return Parsed::Partial,
            },
        };
        let Some(body) = rest.get(..length) else {
            return Parsed::Partial;
        };
        let says = |key: &[u8]| {
            memchr::memmem::find(body, key).is_some_and(|at| {
                let after = body[at + key.len()..].iter().filter(|byte| !byte.is_ascii_whitespace());
                after.copied().take(5).eq(*b":true")
            })
        };
        Parsed::Whole(Request {
            is_post: method == "POST",
            path,
            stream: says(b"\"stream\""),
            usage: says(b"\"include_usage\""),
            bytes: head_bytes + length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_whole_from_partial() {
        let whole = |path, stream, usage, bytes| Parsed::Whole(Request { is_post: true, path, stream, usage, bytes });
        for (text, expected) in [
            ("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", whole("/a", false, false, 41)),
            ("POST /a?b=c HTTP/1.1\r\n\r\nPOST", whole("/a", false, false, 24)),
            ("POST /a HTTP/1.1\r\nContent-Length: 17\r\n\r\n{\"stream\" : true}", whole("/a", true, false, 57)),
            ("POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{", Parsed::Partial),
            ("POST /a HTTP/1.1\r\n", Parsed::Partial),
            (
                "POST /v1/files HTTP/1.1\r\nContent-Length: 9\r\n\r\n",
                Parsed::Upload { head_bytes: 46, length: Some(9) },
            ),
            (
                "POST /v1/files HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Parsed::Upload { head_bytes: 55, length: None },
            ),
            ("POST /a HTTP/1.1\r\nContent-Length: x\r\n\r\n", Parsed::Malformed),
            ("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", Parsed::Partial),
        ] {
            assert_eq!(Request::parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_body_has_the_size_asked_for_and_events_are_json() {
        for (bytes, stamped) in [(1024, false), (4096, true)] {
            let answers = Answers::new(&Script { stamp: stamped, ..Script::default() }, bytes);
            let text = String::from_utf8(answers.whole).expect("text");
            assert_eq!(text.split_once("\r\n\r\n").map(|(_, body)| body.len()), Some(bytes));
            let mut event = answers.event;
            stamp(&mut event);
            let event = String::from_utf8(event).expect("text");
            let data = event.split("data: ").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("an event");
            let value: serde_json::Value = serde_json::from_str(data).expect(data);
            assert_eq!(value["x_sent_ns"].is_u64(), stamped);
            let size = usize::from_str_radix(event.split("\r\n").next().unwrap_or(""), 16).expect("a chunk size");
            assert_eq!(event.len(), size + format!("{size:x}").len() + 4);
        }
    }
}
