//! HTTP/2 messages that could be taken for something else once they are written as HTTP/1.1: each is refused before an
//! origin hears of it, or is one request to it, and the one that was sent.
//!
//! An HTTP/2 field can hold any byte, says how long it is, and no body needs a length to be seen to end; HTTP/1.1 has to
//! find out all of this from the bytes themselves. What passes from the one to the other must leave no room for that.

mod messages;

use std::net::{Shutdown, SocketAddr};
use std::sync::{Mutex, mpsc};

use super::common::{Config, Gateway};
use super::peers::Peer;
use super::recorder::{Recorder, Reply, Seen, echo};
use super::requests::SMUGGLED;
use super::{PATIENCE, open_gateway, report};
use crate::common::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, PADDED, PING, PUSH_PROMISE, RST_STREAM, SETTINGS, Said,
    WINDOW_UPDATE, field, frame, head,
};
use messages::{Case, Fate, Message};

/// Who stands behind the gateway.
struct Origin<'a> {
    name: &'static str,
    /// What the gateway connects to.
    address: SocketAddr,
    /// What of it is recorded.
    recorder: &'a Recorder,
    /// Rows that it refuses by itself, though they are as they should be.
    refuses: &'static [&'static str],
}

impl Origin<'_> {
    fn refuses(&self, case: &Case) -> bool {
        self.refuses.iter().any(|refused| case.name == *refused)
    }

    /// True if the recorder itself is asked.
    fn is_recorder(&self) -> bool {
        self.address == self.recorder.address
    }
}

fn origin(recorder: &Recorder) -> Origin<'_> {
    Origin { name: "an origin", address: recorder.address, recorder, refuses: &[] }
}

/// Lines of a request that are the gateway's own to say.
const OWN: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "x-request-id", "traceparent", "accept-encoding", "via"];

/// Names of lines that are not passed on (config/headers.md).
const WITHHELD: [&str; 12] = [
    "te",
    "trailer",
    "expect",
    "cookie",
    "http2-settings",
    "proxy-authorization",
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-proto",
    // Look-alikes.
    "content_length",
    "transfer_encoding",
    "x_forwarded_for",
];

/// The lines of a message that go on, those of one name in their order.
fn lines_of(message: &Message) -> Vec<(String, String)> {
    let lines =
        message.lines.iter().map(|(name, value)| (name.escape_ascii().to_string(), value.escape_ascii().to_string()));
    let goes_on = |name: &str| !name.starts_with(':') && !OWN.contains(&name) && !WITHHELD.contains(&name);
    let mut lines: Vec<_> = lines.filter(|(name, _)| goes_on(name)).collect();
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}

/// The lines of the one head in `raw`, the gateway's own apart, and its host.
fn recorded(raw: &[u8]) -> Option<(Vec<(String, String)>, String)> {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (mut lines, mut host) = (Vec::new(), None);
    for line in raw[..end].split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = line[..colon].to_ascii_lowercase().escape_ascii().to_string();
        let value = line[colon + 1..].trim_ascii().escape_ascii().to_string();
        match &*name {
            "host" => host = Some(value),
            own if OWN.contains(&own) => {}
            _ => lines.push((name, value)),
        }
    }
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    Some((lines, host?))
}

/// What an origin is to understand of `message`, with another target if that is given.
fn meant(message: &Message, target: Option<&str>) -> Seen {
    let target = target.map_or_else(|| message.value(":path"), str::to_owned);
    Seen { method: message.value(":method"), target, body: message.data.concat() }
}

/// What its client is answered then.
fn echoed(seen: &Seen) -> Said {
    let text = format!("{} {}\n{}", seen.method, seen.target, String::from_utf8_lossy(&seen.body));
    Said::Answer(200, if seen.method == "HEAD" { Vec::new() } else { text.into_bytes() })
}

fn told(said: &Said) -> String {
    match said {
        Said::Answer(status, body) => format!("answered {status} {:?}", String::from_utf8_lossy(body)),
        said => format!("{said:?}"),
    }
}

/// How a message is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    AtOnce,
    Drip,
    /// While another stream of the connection has sent half of its body.
    Beside,
}

const FIRST_HALF: &[u8] = b"<the first half>";
const SECOND_HALF: &[u8] = b"<the second half>";

/// Sends a row and a plain request behind it, and checks both the answers and what the origin understood.
fn check(gateway: &Gateway, origin: &Origin<'_>, case: &Case, number: usize, way: Way) -> Result<(), String> {
    let recorder = origin.recorder;
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    let stream = if way == Way::Beside { 3 } else { 1 };
    let other = Message::post(FIRST_HALF);
    if way == Way::Beside {
        http2.send(&[head(1, &other.block(), false), frame(DATA, 0, 1, FIRST_HALF)].concat());
        if !recorder.has_come(&[FIRST_HALF, b"\r\n"].concat()) {
            return Err("the other stream's body does not come".into());
        }
        recorder.take_raw();
    }
    let bytes = case.bytes(stream);
    if way == Way::Drip {
        http2.drip(&bytes)
    } else {
        http2.send(&bytes)
    }
    let said = http2.answer(stream);
    let mut expected = Vec::new();
    let is_right = match (case.fate, &said) {
        (Fate::Passed | Fate::PassedAs(_), Said::Answer(400..=599, _)) => origin.refuses(case),
        (Fate::Passed | Fate::PassedAs(_), said) => {
            let target = if let Fate::PassedAs(target) = case.fate { Some(target) } else { None };
            let seen = meant(&case.message, target);
            let is_right = !origin.refuses(case) && *said == echoed(&seen);
            expected.push(seen);
            is_right
        }
        (fate, said) => fate.is_refusal(said),
    };
    if !is_right {
        return Err(format!("{:?} expected, but {}", case.fate, told(&said)));
    }
    let (seen, raw) = (recorder.take(), recorder.take_raw());
    if seen != expected {
        return Err(format!("the origin understood {seen:?}, not {expected:?}"));
    }
    if expected.is_empty() != raw.is_empty() {
        return Err(format!("the origin was sent {:?}", String::from_utf8_lossy(&raw)));
    }
    if !expected.is_empty() {
        check_lines(origin, &case.message, &raw)?;
    }
    if way == Way::Beside {
        http2.send(&frame(DATA, END_STREAM, 1, SECOND_HALF));
        let seen = Seen { body: [FIRST_HALF, SECOND_HALF].concat(), ..meant(&other, None) };
        let (said, ended) = (http2.answer(1), case.fate == Fate::Ended);
        if if ended { !matches!(said, Said::Ended(_)) } else { said != echoed(&seen) } {
            return Err(format!("the other stream: {}", told(&said)));
        }
        let expected = if ended { vec![] } else { vec![seen] };
        let seen = recorder.take();
        if seen != expected {
            return Err(format!("of the other stream the origin understood {seen:?}"));
        }
        recorder.take_raw();
    }
    if case.fate == Fate::Ended {
        http2 = Http2::connect(gateway.address(), PATIENCE);
    }
    check_goes_on(&mut http2, recorder, stream + 2, number)
}

/// What else the origin was told is what the message says, and its host is the provider's.
fn check_lines(origin: &Origin<'_>, message: &Message, raw: &[u8]) -> Result<(), String> {
    let (lines, host) = recorded(raw).ok_or("no head")?;
    let sent = lines_of(message);
    let is_right = match origin.is_recorder() {
        true => lines == sent,
        // It may leave lines out.
        false => lines.iter().all(|line| sent.contains(line)),
    };
    if !is_right {
        return Err(format!("the origin was told {lines:?}, not {sent:?}"));
    }
    let hosts = [origin.address.to_string(), origin.recorder.address.to_string()];
    if hosts.contains(&host) { Ok(()) } else { Err(format!("the origin was told that it is {host}")) }
}

/// A plain request is served, and nothing else has come before it.
fn check_goes_on(http2: &mut Http2, recorder: &Recorder, stream: u32, number: usize) -> Result<(), String> {
    let message = Message::get().set(":path", format!("/v1/sentinel-{number}"));
    http2.send(&message.head(stream));
    let (said, seen) = (http2.answer(stream), meant(&message, None));
    if said != echoed(&seen) {
        return Err(format!("the next request: {}", told(&said)));
    }
    let (understood, raw) = (recorder.take(), recorder.take_raw());
    let is_alone = raw.starts_with(format!("GET {} HTTP/1.1\r\n", seen.target).as_bytes())
        && raw.windows(4).position(|window| window == b"\r\n\r\n") == Some(raw.len() - 4);
    if understood != [seen] || !is_alone {
        return Err(format!("before the next request: {understood:?}, {:?}", String::from_utf8_lossy(&raw)));
    }
    Ok(())
}

fn check_all(origin: &Origin<'_>, way: Way) {
    let gateway = open_gateway(origin.address);
    let cases = messages::all();
    assert!(cases.len() > 900, "{} rows", cases.len());
    let mut failures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if way == Way::Drip && case.bytes(1).len() > 1000 {
            continue;
        }
        if let Err(failure) = check(&gateway, origin, case, number, way) {
            failures.push(format!("{}: {}: {failure}", origin.name, case.name));
            origin.recorder.forget();
        }
    }
    for refused in origin.refuses {
        assert!(cases.iter().any(|case| case.name == *refused), "no row {refused}");
    }
    // Whatever came late counts too.
    assert!(origin.recorder.take().is_empty() && origin.recorder.take_raw().is_empty());
    report(origin.name, cases.len(), &failures);
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn each_http2_message_is_refused_or_understood_alike_by_an_origin() {
    check_all(&origin(&Recorder::start()), Way::AtOnce);
}

#[test]
fn each_http2_message_fares_the_same_byte_by_byte() {
    check_all(&origin(&Recorder::start()), Way::Drip);
}

#[test]
fn each_http2_message_fares_the_same_beside_another_and_leaves_that_alone() {
    check_all(&origin(&Recorder::start()), Way::Beside);
}

#[test]
fn each_http2_message_is_refused_or_understood_alike_by_nginx() {
    let Peer { name, address, recorder, .. } = &Peer::nginx();
    check_all(&Origin { name, address: *address, recorder, refuses: NGINX_REFUSES }, Way::AtOnce);
}

#[test]
fn each_http2_message_is_refused_or_understood_alike_by_haproxy() {
    let Peer { name, address, recorder, .. } = &Peer::haproxy();
    check_all(&Origin { name, address: *address, recorder, refuses: HAPROXY_REFUSES }, Way::AtOnce);
}

// Sound, and forwarded as such, but not to their taste.
const NGINX_REFUSES: &[&str] = &["method: get", "connect: in lower case", "size: a field of several frames"];
const HAPROXY_REFUSES: &[&str] =
    &["method: PRI", "size: 99 fields, and the host", "size: a field of several frames", "size: a long name"];

// --- bodies that are never ended, or not as they should be ---

/// What a client does once the origin has seen the beginning of its request.
enum Then {
    Sends(Vec<u8>),
    /// Nothing.
    Waits,
    /// It closes its connection.
    Leaves,
    /// It ends its side.
    HalfCloses,
}

/// A request that has begun and never becomes whole.
struct Cut {
    name: &'static str,
    length: Option<&'static str>,
    then: Then,
    /// What its client is told, if it is there.
    fate: Option<Fate>,
}

fn cuts() -> Vec<Cut> {
    const FIVE: Option<&str> = Some("5");
    // As many bytes as the first frame has.
    const THREE: Option<&str> = Some("3");
    // Of which the first frame has none.
    const ZERO: Option<&str> = Some("0");
    let cut = |name, length, frames: Vec<Vec<u8>>, fate| Cut { name, length, then: Then::Sends(frames.concat()), fate };
    let data = |bytes: &str, flags| frame(DATA, flags, 1, bytes.as_bytes());
    let trailers = |name: &str, value: &str, ends| head(1, &field(name.as_bytes(), value.as_bytes()), ends);
    let reset = |code: u8| frame(RST_STREAM, 0, 1, &[0, 0, 0, code]);
    let (stream, connection) = (Some(Fate::Reset), Some(Fate::Ended));
    let again = || head(1, &Message::get().block(), true);
    vec![
        cut("less than announced", FIVE, vec![data("d", END_STREAM)], stream),
        cut("less than announced, an empty frame", FIVE, vec![data("", END_STREAM)], stream),
        cut("less than announced, trailers", FIVE, vec![trailers("x-t", "y", true)], stream),
        cut("more than announced", FIVE, vec![data("def", END_STREAM)], stream),
        cut("more than announced, not ended", FIVE, vec![data("def", 0)], stream),
        cut("more than announced, a request", FIVE, vec![data(SMUGGLED, END_STREAM)], stream),
        cut("more than announced, behind all of it", THREE, vec![data("d", END_STREAM)], stream),
        cut("more than announced, a request behind all of it", THREE, vec![data(SMUGGLED, END_STREAM)], stream),
        cut("more than announced, an empty frame between", THREE, vec![data("", 0), data("d", 0)], stream),
        cut("more than nothing", ZERO, vec![data("d", END_STREAM)], stream),
        cut("more than nothing, a request", ZERO, vec![data(SMUGGLED, 0)], stream),
        cut("a reset behind nothing", ZERO, vec![reset(8)], None),
        cut("a bad trailer behind nothing", ZERO, vec![trailers("connection", "close", true)], stream),
        cut("a bad trailer behind all of it", THREE, vec![trailers("connection", "close", true)], stream),
        cut("a reset", FIVE, vec![reset(8)], None),
        cut("a reset behind all of it", THREE, vec![reset(8)], None),
        cut("a reset for no reason behind all of it", THREE, vec![reset(0)], None),
        cut("a reset of what has no length", None, vec![reset(8)], None),
        cut("a reset for no reason of what has no length", None, vec![reset(0)], None),
        cut("a bad trailer", None, vec![trailers("transfer-encoding", "chunked", true)], stream),
        cut("trailers that do not end it", None, vec![trailers("x-t", "y", false)], stream),
        cut(
            "a late pseudo field",
            None,
            vec![head(1, &[field(b"x", b"y"), field(b":path", b"/v1/x")].concat(), true)],
            stream,
        ),
        cut("a second head", None, vec![head(1, &Message::get().with("te", "x").block(), true)], stream),
        cut("a second head that does not end it", None, vec![head(1, &Message::get().block(), false)], stream),
        cut("a line end in a trailer", None, vec![trailers("x-t", "y\r\nx-smuggled: z", true)], connection),
        cut("upper case in a trailer", None, vec![trailers("X-T", "y", true)], connection),
        cut("padding longer than its frame", None, vec![frame(DATA, END_STREAM | PADDED, 1, &[9, 1, 2])], connection),
        cut("content of no stream", None, vec![frame(DATA, END_STREAM, 0, b"d")], connection),
        cut("content of a stream that is not open", None, vec![frame(DATA, END_STREAM, 3, b"d")], connection),
        cut("a reset of a stream that is not open", None, vec![frame(RST_STREAM, 0, 3, &[0; 4])], connection),
        cut("a reset of two bytes", None, vec![frame(RST_STREAM, 0, 1, &[0; 2])], connection),
        cut(
            "a promise",
            None,
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &again()].concat())],
            connection,
        ),
        cut("a frame too long", None, vec![frame(DATA, 0, 1, &[b'd'; (16 << 10) + 1])], connection),
        cut("settings of a stream", None, vec![frame(SETTINGS, 0, 1, &[])], connection),
        cut("an answer to settings that holds some", None, vec![frame(SETTINGS, ACK, 0, &[0; 6])], connection),
        cut("a ping of no size", None, vec![frame(PING, 0, 0, &[])], connection),
        cut("a window of nothing", None, vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])], connection),
        cut("a stream's window of nothing", None, vec![frame(WINDOW_UPDATE, 0, 1, &[0; 4])], connection),
        cut("an HTTP/1.1 request", None, vec![SMUGGLED.as_bytes().to_vec()], connection),
        Cut { name: "the client leaves", length: FIVE, then: Then::Leaves, fate: None },
        Cut { name: "the client leaves behind all of it", length: THREE, then: Then::Leaves, fate: None },
        Cut { name: "the client leaves, no length", length: None, then: Then::Leaves, fate: None },
        Cut { name: "the client ends its side behind all of it", length: THREE, then: Then::HalfCloses, fate: None },
        Cut { name: "the client ends its side", length: None, then: Then::HalfCloses, fate: None },
    ]
}

fn check_cut(gateway: &Gateway, recorder: &Recorder, cut: &Cut, number: usize) -> Result<(), String> {
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    let ends = recorder.ends();
    let message = cut.length.iter().fold(Message::post(""), |message, length| message.with("content-length", length));
    let first: &[u8] = if cut.length == Some("0") { b"" } else { b"xyz" };
    http2.send(&[head(1, &message.block(), false), frame(DATA, 0, 1, first)].concat());
    // Of a body that may be whole its end is held back.
    let begun: &[u8] = if matches!(cut.length, Some("0" | "3")) { b"\r\n\r\n" } else { b"xyz" };
    if !recorder.has_come(begun) {
        return Err("the origin sees no beginning".into());
    }
    match &cut.then {
        Then::Sends(frames) => http2.send(frames),
        Then::Waits => {}
        Then::Leaves => drop(http2.stream.shutdown(Shutdown::Both)),
        Then::HalfCloses => http2.half_close(),
    }
    if let Some(fate) = cut.fate {
        let said = http2.answer(1);
        if !fate.is_refusal(&said) {
            return Err(format!("{fate:?} expected, but {}", told(&said)));
        }
    }
    if !recorder.has_ended(ends + 1) {
        return Err("the origin's connection does not end".into());
    }
    let (seen, raw) = (recorder.take(), recorder.take_raw());
    let raw = String::from_utf8_lossy(&raw).into_owned();
    let is_ended = raw.contains("chunked") && raw.ends_with("\r\n0\r\n\r\n");
    if !seen.is_empty() || is_ended || raw.matches("HTTP/1.1").count() != 1 {
        return Err(format!("the origin understood {seen:?} of {raw:?}"));
    }
    let ended = match cut.fate {
        Some(fate) => fate == Fate::Ended,
        None => matches!(cut.then, Then::Leaves | Then::HalfCloses),
    };
    if ended {
        http2 = Http2::connect(gateway.address(), PATIENCE);
    }
    check_goes_on(&mut http2, recorder, 3, number)
}

#[test]
fn a_body_that_is_not_ended_as_it_should_be_is_never_whole_to_an_origin() {
    let recorder = Recorder::start();
    let gateway = open_gateway(recorder.address);
    let (cuts, mut failures) = (cuts(), Vec::new());
    for (number, cut) in cuts.iter().enumerate() {
        if let Err(failure) = check_cut(&gateway, &recorder, cut, number) {
            failures.push(format!("{}: {failure}", cut.name));
            recorder.forget();
        }
    }
    report("cut bodies", cuts.len(), &failures);
}

#[test]
fn a_body_that_has_come_but_was_not_ended_is_waited_for_and_never_whole_to_an_origin() {
    let recorder = Recorder::start();
    let config = Config::new(&[format!("http://{}/v1", recorder.address)]).keys("").endpoint("");
    let gateway = Gateway::start(&config.and("[client]\nbody = \"50ms\""));
    for (number, length) in [Some("0"), Some("3"), Some("5"), None].into_iter().enumerate() {
        let cut = Cut { name: "it waits", length, then: Then::Waits, fate: Some(Fate::Refused(408)) };
        check_cut(&gateway, &recorder, &cut, number).unwrap_or_else(|failure| panic!("{length:?}: {failure}"));
    }
    for body in ["", "{}"] {
        let mut http2 = Http2::connect(gateway.address(), PATIENCE);
        let message = Message::json(body).with("content-length", body.len().to_string());
        http2.send(&[head(1, &message.block(), false), frame(DATA, 0, 1, body.as_bytes())].concat());
        let said = http2.answer(1);
        assert!(Fate::Refused(408).is_refusal(&said), "{}", told(&said));
        assert!(recorder.take_raw().is_empty());
    }
}

// --- what follows the end ---

/// Frames of a stream whose request has ended: what becomes of them while its answer is awaited, and behind that.
fn late() -> Vec<(&'static str, Vec<u8>, Fate, Fate)> {
    let again = |ends| head(1, &Message::get().block(), ends);
    vec![
        ("content", frame(DATA, 0, 1, SMUGGLED.as_bytes()), Fate::Ended, Fate::Ended),
        ("the last content", frame(DATA, END_STREAM, 1, SMUGGLED.as_bytes()), Fate::Ended, Fate::Ended),
        ("empty content", frame(DATA, END_STREAM, 1, b""), Fate::Ended, Fate::Ended),
        ("trailers", head(1, &field(b"x-t", b"y"), true), Fate::Ended, Fate::Ended),
        ("another head", again(true), Fate::Ended, Fate::Ended),
        ("another head that does not end it", again(false), Fate::Ended, Fate::Ended),
        ("a head cut short", frame(HEADERS, END_HEADERS, 1, &[0, 3]), Fate::Ended, Fate::Ended),
    ]
}

fn check_late(
    gateway: &Gateway,
    recorder: &Recorder,
    (frames, fate): (&[u8], Fate),
    answer: Option<&mpsc::Sender<()>>,
    number: usize,
) -> Result<(), String> {
    let mut http2 = Http2::connect(gateway.address(), PATIENCE);
    let ends = recorder.ends();
    let message = Message::json("{}").set(":path", if answer.is_some() { "/v1/held" } else { "/v1/files" });
    http2.send(&[message.head(1), message.rest(1)].concat());
    let seen = meant(&message, None);
    if answer.is_none() {
        let said = http2.answer(1);
        if said != echoed(&seen) {
            return Err(format!("the answer: {}", told(&said)));
        }
    } else if !recorder.has_come(b"\r\n\r\n{}") {
        return Err("the origin sees no request".into());
    }
    http2.send(frames);
    let said = http2.answer(1);
    if let Some(answer) = answer {
        answer.send(()).expect("the origin waits");
        // Nobody waits for its answer any more.
        if !recorder.has_ended(ends + 1) {
            return Err("the origin's connection does not end".into());
        }
    }
    if !fate.is_refusal(&said) {
        return Err(format!("{fate:?} expected, but {}", told(&said)));
    }
    let understood = recorder.take();
    let raw = String::from_utf8_lossy(&recorder.take_raw()).into_owned();
    if understood != [seen] || raw.matches("HTTP/1.1").count() != 1 {
        return Err(format!("the origin understood {understood:?} of {raw:?}"));
    }
    if fate == Fate::Ended {
        http2 = Http2::connect(gateway.address(), PATIENCE);
    }
    check_goes_on(&mut http2, recorder, 3, number)
}

#[test]
fn what_follows_the_end_of_a_request_is_never_another() {
    let (free, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let recorder = Recorder::answering(move |_, seen| -> Reply {
        if seen.target == "/v1/held" {
            let _ = wait.lock().expect("not poisoned").recv_timeout(PATIENCE);
        }
        echo(seen)
    });
    let gateway = open_gateway(recorder.address);
    let (late, mut failures) = (late(), Vec::new());
    for (number, (name, frames, meanwhile, behind)) in late.iter().enumerate() {
        for (when, answer, fate) in [("meanwhile", Some(&free), *meanwhile), ("behind", None, *behind)] {
            if let Err(failure) = check_late(&gateway, &recorder, (frames, fate), answer, number) {
                failures.push(format!("{name}, {when}: {failure}"));
                recorder.forget();
            }
        }
    }
    report("frames behind the end", 2 * late.len(), &failures);
}
