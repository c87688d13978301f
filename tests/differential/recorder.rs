//! An origin that writes down what it is sent, read by rules that leave no room: CRLF, one framing, no odd byte. What
//! breaks them stands in the record as a fault.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::PATIENCE;

/// A request as the origin understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// A running origin. It ends with the test.
pub struct Recorder {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
    raw: Arc<Raw>,
}

/// Every byte that came, of whatever connection, and how many connections have ended.
#[derive(Default)]
struct Raw {
    came: Mutex<(Vec<u8>, usize)>,
    more: Condvar,
}

/// What an origin sends for a request.
pub struct Reply {
    pub bytes: Vec<u8>,
    /// True if it ends the connection behind them.
    pub ends: bool,
}

impl Recorder {
    /// Answers each request with what it says.
    pub fn start() -> Recorder {
        Recorder::answering(|_, seen| echo(seen))
    }

    /// Answers as `reply` says, which is given the connection too, and its number.
    pub fn answering(reply: impl Fn((usize, &TcpStream), &Seen) -> Reply + Send + Sync + 'static) -> Recorder {
        let reply = Arc::new(reply);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let log = Arc::new(Mutex::new(Vec::new()));
        let raw = Arc::new(Raw::default());
        let kept = (Arc::clone(&log), Arc::clone(&raw));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let ((log, raw), reply) = (kept.clone(), Arc::clone(&reply));
                thread::spawn(move || serve(number, Tapped { stream, raw }, &log, &*reply));
            }
        });
        Recorder { address, log, raw }
    }

    /// What came since this was last asked.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.log.lock().expect("not poisoned"))
    }

    /// The bytes that came since this was last asked.
    pub fn take_raw(&self) -> Vec<u8> {
        std::mem::take(&mut self.raw.came.lock().expect("not poisoned").0)
    }

    /// Forgets what came.
    pub fn forget(&self) {
        self.take();
        self.take_raw();
    }

    /// How many connections have ended.
    pub fn ends(&self) -> usize {
        self.raw.came.lock().expect("not poisoned").1
    }

    /// Waits until these bytes are among those that came; false if they do not come.
    pub fn has_come(&self, bytes: &[u8]) -> bool {
        self.until(|came, _| came.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Waits until so many connections have ended; false if they do not.
    pub fn has_ended(&self, ends: usize) -> bool {
        self.until(|_, ended| ended == ends)
    }

    fn until(&self, holds: impl Fn(&[u8], usize) -> bool) -> bool {
        let came = self.raw.came.lock().expect("not poisoned");
        let waited = self.raw.more.wait_timeout_while(came, PATIENCE, |(bytes, ends)| !holds(bytes, *ends));
        !waited.expect("not poisoned").1.timed_out()
    }
}

/// A connection of which every byte is kept, and its end told.
struct Tapped {
    stream: TcpStream,
    raw: Arc<Raw>,
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.raw.came.lock().expect("not poisoned").1 += 1;
        self.raw.more.notify_all();
    }
}

/// Answers with what was understood.
pub fn echo(seen: &Seen) -> Reply {
    let answer = format!("{} {}\n{}", seen.method, seen.target, String::from_utf8_lossy(&seen.body));
    let length = answer.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nx-recorder: yes\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
    let answer = if seen.method == "HEAD" { String::new() } else { answer };
    Reply { bytes: (head + &answer).into_bytes(), ends: false }
}

fn serve(
    number: usize,
    mut tapped: Tapped,
    log: &Mutex<Vec<Seen>>,
    reply: &dyn Fn((usize, &TcpStream), &Seen) -> Reply,
) {
    let _ = tapped.stream.set_nodelay(true);
    let mut held = Vec::new();
    loop {
        let seen = match read(&mut tapped, &mut held) {
            Ok(seen) => seen,
            // Ended between two requests, or within one, which then never was one.
            Err(None) => return,
            Err(Some(fault)) => {
                log.lock().expect("not poisoned").push(Seen {
                    method: format!("FAULT: {fault}"),
                    target: String::from_utf8_lossy(&held).into_owned(),
                    body: Vec::new(),
                });
                return;
            }
        };
        log.lock().expect("not poisoned").push(seen.clone());
        let reply = reply((number, &tapped.stream), &seen);
        if tapped.stream.write_all(&reply.bytes).is_err() {
            return;
        }
        if reply.ends {
            // Others may hold the socket too.
            let _ = tapped.stream.shutdown(Shutdown::Write);
            return;
        }
    }
}

/// The next request, taken off `held`. The error is the rule that was broken, if one was.
fn read(stream: &mut Tapped, held: &mut Vec<u8>) -> Result<Seen, Option<&'static str>> {
    let end = loop {
        if let Some(at) = held.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        fill(stream, held)?;
    };
    let head: Vec<u8> = held[..end].to_vec();
    if head.windows(2).any(|two| (two[0] == b'\r') != (two[1] == b'\n')) || head.first() == Some(&b'\n') {
        return Err(Some("a bare CR or LF"));
    }
    if head.iter().any(|byte| (*byte < 0x20 && !b"\r\n\t".contains(byte)) || *byte == 0x7f) {
        return Err(Some("a control byte"));
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = words[..] else { return Err(Some("the request line")) };
    if method.is_empty() || target.is_empty() {
        return Err(Some("an empty method or target"));
    }
    let (mut length, mut chunked, mut hosts) = (None, false, 0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err(Some("a line without a colon")) };
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(Some("a space in a name"));
        }
        let value = value.trim_matches([' ', '\t']);
        match &*name.to_ascii_lowercase() {
            "content-length" if length.is_some() || !value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(Some("the length"));
            }
            "content-length" => length = Some(value.parse().map_err(|_| Some("the length"))?),
            "transfer-encoding" if chunked || value != "chunked" => return Err(Some("the coding")),
            "transfer-encoding" => chunked = true,
            "host" => hosts += 1,
            _ => {}
        }
    }
    if hosts != 1 || (chunked && length.is_some()) {
        return Err(Some("two framings, or not one host"));
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    held.drain(..end + 4);
    let mut body = Vec::new();
    if chunked {
        loop {
            let line = line(stream, held)?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| Some("a chunk's size"))?;
            if size == 0 {
                break;
            }
            body.extend(take(stream, held, size)?);
            if take(stream, held, 2)? != b"\r\n" {
                return Err(Some("a chunk's end"));
            }
        }
        while !line(stream, held)?.is_empty() {}
    } else {
        body = take(stream, held, length.unwrap_or(0))?;
    }
    Ok(Seen { method, target, body })
}

fn fill(tapped: &mut Tapped, held: &mut Vec<u8>) -> Result<(), Option<&'static str>> {
    let mut piece = [0; 16 << 10];
    match tapped.stream.read(&mut piece) {
        Ok(0) | Err(_) => Err(None),
        Ok(count) => {
            tapped.raw.came.lock().expect("not poisoned").0.extend_from_slice(&piece[..count]);
            tapped.raw.more.notify_all();
            held.extend_from_slice(&piece[..count]);
            Ok(())
        }
    }
}

fn take(stream: &mut Tapped, held: &mut Vec<u8>, count: usize) -> Result<Vec<u8>, Option<&'static str>> {
    while held.len() < count {
        fill(stream, held)?;
    }
    Ok(held.drain(..count).collect())
}

fn line(stream: &mut Tapped, held: &mut Vec<u8>) -> Result<String, Option<&'static str>> {
    loop {
        if let Some(at) = held.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = held.drain(..at + 2).collect();
            return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        fill(stream, held)?;
    }
}
