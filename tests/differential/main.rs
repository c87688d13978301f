//! Messages that two readers could take in two ways, through the gateway to a recording origin, to nginx and to HAProxy:
//! each is refused, or understood alike by all. And the answers of an origin that means harm: a client's next request
//! gets its own answer, never what is left of another. [`downgrade`] has the messages of HTTP/2.
//!
//! `cargo test --test differential -- --nocapture` shows besides what nginx and HAProxy make of each message by themselves.

#[path = "../common/mod.rs"]
mod common;
mod downgrade;
mod early;
mod peers;
mod recorder;
mod requests;
mod responses;
mod wire;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::process::KEY;
use common::{Config, Gateway};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use peers::Peer;
use recorder::{Recorder, Reply, Seen};
use requests::{Case, Outcome};
use responses::Fate;
use wire::{Nothing, Wire};

/// Nothing that is expected takes as long.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a peer has not said by then of a message that was sent to it directly, it does not say; for information only.
const QUIET: Duration = Duration::from_millis(200);

fn sentinel(number: usize) -> (String, Vec<u8>) {
    let target = format!("/v1/sentinel-{number}");
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes();
    (target, bytes)
}

fn open_gateway(origin: SocketAddr) -> Gateway {
    Gateway::start(&Config::new(&[format!("http://{origin}/v1")]).keys("").endpoint(""))
}

/// Fails with all that was found, not only the first.
fn report(what: &str, rows: usize, failures: &[String]) {
    println!("{what}: {rows} rows");
    assert!(failures.is_empty(), "{} of {rows} rows, {what}:\n{}", failures.len(), failures.join("\n"));
}

// --- requests ---

/// Sends a row and a request behind it, and checks both the answers and what the origin understood. With `lenient`, what
/// stands between us and the recorder may refuse by itself, which is no misunderstanding.
fn check(
    gateway: &Gateway,
    recorder: &Recorder,
    case: &Case,
    number: usize,
    drip: bool,
    lenient: bool,
) -> Result<(), String> {
    let (target, bytes) = sentinel(number);
    let mut wire = Wire::connect(gateway.address(), PATIENCE);
    let bytes = [&case.bytes[..], &bytes].concat();
    if drip {
        wire.drip(&bytes)
    } else {
        wire.send(&bytes)
    }
    let last = Outcome::Forwarded("GET", target, Vec::new());
    let ends = !matches!(case.outcomes.last(), Some(Outcome::Forwarded(..) | Outcome::Own(_)));
    let outcomes = case.outcomes.iter().chain((!ends).then_some(&last));
    let mut expected = Vec::new();
    for outcome in outcomes {
        if *outcome == Outcome::Unanswered {
            wire.half_close();
            break;
        }
        let to_head = matches!(outcome, Outcome::Forwarded("HEAD", ..));
        let answer = wire.answer(to_head).map_err(|nothing| format!("{nothing:?} instead of {outcome:?}"))?;
        let told =
            || format!("{outcome:?} expected, answered {} {:?}", answer.status, String::from_utf8_lossy(&answer.body));
        match outcome {
            Outcome::Forwarded(method, target, body) | Outcome::ForwardedLast(method, target, body) => {
                if lenient && !answer.is_recorded() && answer.status >= 400 {
                    continue;
                }
                let echo = format!("{method} {target}\n{}", String::from_utf8_lossy(body));
                if answer.status != 200 || !answer.is_recorded() || (!to_head && answer.body != echo.as_bytes()) {
                    return Err(told());
                }
                expected.push(Seen { method: (*method).into(), target: target.clone(), body: body.clone() });
            }
            Outcome::Refused(status) if answer.status == *status && answer.closes() => {}
            Outcome::Own(status) if answer.status == *status && !answer.is_recorded() => {
                // A connection may end with it; then nothing more is answered.
                if answer.closes() {
                    break;
                }
            }
            _ => return Err(told()),
        }
    }
    let rest = if ends { wire.answer(false).err() } else { Some(Nothing::Ended) };
    if !matches!(rest, Some(Nothing::Ended | Nothing::Cut)) {
        return Err(format!("the connection does not end, but: {rest:?}"));
    }
    let seen = recorder.take();
    if seen != expected {
        return Err(format!("the origin understood {seen:?}, not {expected:?}"));
    }
    Ok(())
}

fn check_all(name: &str, origin: SocketAddr, recorder: &Recorder, drip: bool, lenient: bool) {
    let gateway = open_gateway(origin);
    let cases = requests::all();
    assert!(cases.len() > 650, "{} rows", cases.len());
    let mut failures = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if drip && case.bytes.len() > 1000 {
            continue;
        }
        if let Err(failure) = check(&gateway, recorder, case, number, drip, lenient) {
            failures.push(format!("{name}: {}: {failure}", case.name));
            recorder.take();
        }
    }
    // Whatever came late counts too.
    let late = recorder.take();
    assert!(late.is_empty(), "{name}: {late:?}");
    report(name, cases.len(), &failures);
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn each_message_is_refused_or_understood_alike_by_an_origin() {
    let recorder = Recorder::start();
    check_all("an origin", recorder.address, &recorder, false, false);
}

#[test]
fn each_message_fares_the_same_byte_by_byte() {
    let recorder = Recorder::start();
    check_all("an origin, byte by byte", recorder.address, &recorder, true, false);
}

#[test]
fn each_message_is_refused_or_understood_alike_by_nginx() {
    let nginx = Peer::nginx();
    check_all(nginx.name, nginx.address, &nginx.recorder, false, true);
    print_alone(&nginx);
}

#[test]
fn each_message_is_refused_or_understood_alike_by_haproxy() {
    let haproxy = Peer::haproxy();
    check_all(haproxy.name, haproxy.address, &haproxy.recorder, false, true);
    print_alone(&haproxy);
}

/// What a peer makes of the messages that we refuse, or otherwise takes in another way. For information.
fn print_alone(peer: &Peer) {
    let mut others = 0;
    for (number, case) in requests::all().iter().enumerate() {
        let mut wire = Wire::connect(peer.address, QUIET);
        let last = format!("GET /v1/sentinel-{number} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        wire.send(&[&case.bytes[..], last.as_bytes()].concat());
        while wire.answer(false).is_ok() {}
        let seen: Vec<Seen> = peer.recorder.take();
        let ours: Vec<(&str, &str, &[u8])> = case
            .outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Forwarded(method, target, body) | Outcome::ForwardedLast(method, target, body) => {
                    Some((*method, &**target, &**body))
                }
                _ => None,
            })
            .collect();
        let theirs = seen.iter().filter(|seen| !seen.target.starts_with("/v1/sentinel"));
        let theirs: Vec<_> = theirs.map(|seen| (&*seen.method, &*seen.target, &*seen.body)).collect();
        if ours != theirs {
            others += 1;
            let theirs: Vec<_> =
                theirs.iter().map(|seen| format!("{} {:.80} ({} bytes)", seen.0, seen.1, seen.2.len())).collect();
            println!(
                "{} alone, {}: {}",
                peer.name,
                case.name,
                if theirs.is_empty() { "refused".into() } else { theirs.join(", ") }
            );
        }
    }
    println!("{} alone takes {others} messages in another way than Ringway", peer.name);
}

// --- requests behind early answers ---

#[test]
fn what_follows_an_early_answer_is_never_another_request() {
    let recorder = Recorder::start();
    // A port that is taken and that nobody listens on, and one where nobody answers.
    let taken = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(taken.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a free port");
    let down = getsockname::<SockaddrIn>(taken.as_raw_fd()).expect("its address").port();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().expect("its address").port();
    let provider = |name: &str, port: u16| {
        format!("[[providers]]\nname = \"{name}\"\n[[providers.endpoints]]\nurl = \"http://127.0.0.1:{port}/v1\"\n")
    };
    let model = |name: &str, provider: &str, more: &str| {
        format!("[[models]]\nname = \"{name}\"\nroute = [{{ provider = \"{provider}\" }}]\n{more}\n")
    };
    let text = [
        "cores = \"0\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\n".into(),
        "[[keys]]\nname = \"test\"\nsecret = { env = \"RINGWAY_TEST_KEY\" }\nmodels = [\"m\", \"down\", \"silent\"]\n"
            .into(),
        provider("up", recorder.address.port()),
        provider("down", down),
        provider("silent", silent),
        "[cors]\norigins = [\"https://app.example\"]\n".into(),
        model("m", "up", ""),
        model("other", "up", ""),
        model("down", "down", ""),
        model("silent", "silent", "timers = { first_token = \"50ms\" }"),
    ];
    let gateway = Gateway::start(&Config::raw(&text.concat()));
    let (mut failures, mut rows) = (Vec::new(), 0);
    for early in early::ALL {
        for (how, framing, with, later) in early::bodies() {
            // Without a body there is nothing to be refused for, and a second expectation would be another case.
            let needs_body = early.reads_body || early.fields.contains("Encoding");
            if needs_body && framing.is_empty() || early.fields.contains("Expect") && framing.contains("Expect") {
                continue;
            }
            rows += 1;
            let row = format!("{}, {how}", early.name);
            if let Err(failure) = check_early(&gateway, &recorder, early, rows, (&framing, &with, &later)) {
                failures.push(format!("{row}: {failure}"));
                recorder.take();
            }
        }
    }
    assert!(recorder.take().is_empty());
    report("early answers", rows, &failures);
}

fn check_early(
    gateway: &Gateway,
    recorder: &Recorder,
    early: &early::Early,
    number: usize,
    (framing, with, later): (&str, &str, &str),
) -> Result<(), String> {
    let mut wire = Wire::connect(gateway.address(), PATIENCE);
    let target = format!("/v1/files/sentinel-{number}?model=m");
    let follows = format!("{later}GET {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let first = format!("{}\r\nHost: h\r\n{}{framing}\r\n{with}", early.line, early.fields);
    let to_head = early.line.starts_with("HEAD");
    let is_whole = later.is_empty();
    // What comes later comes after the answer, unless the answer waits for it.
    let at_once = is_whole || early.reads_body || framing.contains("Expect");
    if at_once {
        wire.send((first + &follows).as_bytes())
    } else {
        wire.send(first.as_bytes())
    }
    let answer = wire.answer(to_head).map_err(|nothing| format!("{nothing:?}, not the early answer"))?;
    if answer.status != early.status || answer.is_recorded() {
        return Err(format!("answered {} {:?}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    if !at_once {
        wire.send(follows.as_bytes());
    }
    let mut expected = Vec::new();
    // Either the connection ends, or the one request behind it is answered, once.
    match wire.answer(false) {
        Err(Nothing::Ended | Nothing::Cut) => {}
        Ok(next) if !answer.closes() && next.is_recorded() && next.body == format!("GET {target}\n").as_bytes() => {
            expected.push(Seen { method: "GET".into(), target, body: Vec::new() });
        }
        other => return Err(format!("behind it: {other:?}")),
    }
    let seen = recorder.take();
    if seen == expected { Ok(()) } else { Err(format!("the origin understood {seen:?}")) }
}

#[test]
fn what_follows_a_head_or_body_that_came_too_slowly_or_is_too_large_is_not_read() {
    let recorder = Recorder::start();
    let text = "[client]\nhead = \"50ms\"\nbody = \"50ms\"\n[limits]\nbody_bytes_max = \"1KiB\"\nhead_bytes_max = \"2KiB\"\ntarget_bytes_max = \"64B\"";
    let config = Config::new(&[format!("http://{}/v1", recorder.address)]).keys("").endpoint("").and(text);
    let gateway = Gateway::start(&config);
    let filler = "x".repeat(2100);
    let smuggled = requests::SMUGGLED;
    let line = "POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n";
    let rows = [
        ("a slow head", 408, "GET /v1/files HTTP/1.1\r\nHost: h\r\nX: y".to_owned(), format!("\r\n\r\n{smuggled}")),
        ("a slow body", 408, format!("{line}Content-Length: 38\r\n\r\n"), smuggled.to_owned()),
        ("half a slow body", 408, format!("{line}Content-Length: 100\r\n\r\n{smuggled}"), smuggled.to_owned()),
        (
            "a slow chunk",
            408,
            format!("{line}Transfer-Encoding: chunked\r\n\r\n26\r\n"),
            format!("{smuggled}\r\n0\r\n\r\n"),
        ),
        (
            "a slow last chunk",
            408,
            format!("{line}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"),
            format!("0\r\n\r\n{smuggled}"),
        ),
        ("a long body", 413, format!("{line}Content-Length: 1025\r\n\r\n{smuggled}"), smuggled.to_owned()),
        (
            "a long body that waits",
            413,
            format!("{line}Content-Length: 1025\r\nExpect: 100-continue\r\n\r\n"),
            smuggled.to_owned(),
        ),
        (
            "long chunks",
            413,
            format!("{line}Transfer-Encoding: chunked\r\n\r\n834\r\n{filler}\r\n26\r\n{smuggled}"),
            format!("\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a long head",
            431,
            format!("GET /v1/files HTTP/1.1\r\nHost: h\r\nX: {filler}\r\n"),
            format!("\r\n{smuggled}"),
        ),
        ("a long target", 414, format!("GET /v1/{filler}"), format!(" HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}")),
        ("a long method", 501, "X".repeat(40), format!(" /v1/files HTTP/1.1\r\nHost: h\r\n\r\n{smuggled}")),
    ];
    let mut failures = Vec::new();
    for (name, status, first, later) in &rows {
        let mut wire = Wire::connect(gateway.address(), PATIENCE);
        wire.send(first.as_bytes());
        let answer = wire.answer(false);
        wire.send(later.as_bytes());
        let next = wire.answer(false);
        let is_right = answer.as_ref().is_ok_and(|answer| answer.status == *status && answer.closes());
        if !is_right || !matches!(next, Err(Nothing::Ended | Nothing::Cut)) || !recorder.take().is_empty() {
            failures.push(format!("{name}: {answer:?}, then {next:?}"));
        }
    }
    assert!(recorder.take().is_empty());
    report("slow and large", rows.len(), &failures);
}

// --- answers ---

/// What the origin is to do next, and what it did.
#[derive(Default)]
struct Script {
    reply: Option<(Vec<u8>, bool)>,
    /// The connections that the first and the second request came on.
    first: Option<(usize, TcpStream)>,
    second: Option<usize>,
}

#[test]
fn a_client_gets_its_own_answer_whatever_the_one_before_was() {
    let script = Arc::new(Mutex::new(Script::default()));
    let played = Arc::clone(&script);
    let origin = Recorder::answering(move |(number, stream), seen| {
        let mut script = played.lock().expect("not poisoned");
        if seen.target == "/v1/second" {
            script.second = Some(number);
            return Reply { bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond".to_vec(), ends: false };
        }
        script.first = Some((number, stream.try_clone().expect("the socket")));
        let (bytes, ends) = script.reply.take().unwrap_or_default();
        Reply { bytes, ends }
    });
    let gateway = open_gateway(origin.address);
    let cases = responses::all();
    assert!(cases.len() > 140, "{} rows", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        *script.lock().expect("not poisoned") =
            Script { reply: Some((case.bytes.clone(), case.ends)), ..Script::default() };
        if let Err(failure) = check_answer(&gateway, &script, case) {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    report("answers", cases.len(), &failures);
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn interim_answers_are_those_of_one_exchange_however_many_a_connection_carries() {
    // One before each answer; and every tenth the origin ends the connection when the next request has come over it.
    let origin = Recorder::answering(|(_, stream), seen| {
        if seen.target.ends_with("5") {
            // What closes now was sent nothing but the next request.
            let stream = stream.try_clone().expect("the socket");
            std::thread::spawn(move || {
                let _ = stream.peek(&mut [0]);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            });
        }
        let bytes = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        Reply { bytes: bytes.to_vec(), ends: false }
    });
    let gateway = open_gateway(origin.address);
    let mut wire = Wire::connect(gateway.address(), PATIENCE);
    for number in 0..100 {
        wire.send(format!("GET /v1/{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        let answer = wire.answer(false).unwrap_or_else(|nothing| panic!("request {number}: {nothing:?}"));
        assert_eq!((answer.status, &*answer.body), (200, &b"hello"[..]), "request {number}: {}", answer.head);
    }
}

fn check_answer(gateway: &Gateway, script: &Mutex<Script>, case: &responses::Case) -> Result<(), String> {
    let to_head = case.method == "HEAD";
    let mut wire = Wire::connect(gateway.address(), PATIENCE);
    wire.send(format!("{} /v1/first HTTP/1.1\r\nHost: h\r\n\r\n", case.method).as_bytes());
    let first = wire.answer(to_head);
    let (upstream, reusable) = match (case.fate, &first) {
        (Fate::Passed(status, body) | Fate::PassedOnce(status, body), Ok(answer))
            if answer.status == status && answer.body == body.as_bytes() =>
        {
            (
                answer.head.contains("x-ringway-error-origin: upstream") == (status >= 400),
                matches!(case.fate, Fate::Passed(..)),
            )
        }
        (Fate::Failed, Ok(answer)) if answer.status == 502 => {
            (answer.head.contains("x-ringway-error-origin: upstream"), false)
        }
        (Fate::Cut, Err(Nothing::Cut)) => (true, false),
        // A cut answer may be cut right behind a whole chunk.
        (Fate::Cut, Err(Nothing::Ended)) => (true, false),
        (fate, first) => return Err(format!("{fate:?} expected, the client got {first:?}")),
    };
    if !upstream {
        return Err(format!("it does not say whose fault it was: {first:?}"));
    }
    if !case.late.is_empty() {
        let script = script.lock().expect("not poisoned");
        let (_, stream) = script.first.as_ref().expect("the origin was asked");
        std::io::Write::write_all(&mut &*stream, case.late.as_bytes()).map_err(|error| format!("late: {error}"))?;
    }
    // The client's next request, on the same connection if that goes on.
    if first.as_ref().map_or(true, wire::Answer::closes) {
        wire = Wire::connect(gateway.address(), PATIENCE);
    }
    wire.send(b"GET /v1/second HTTP/1.1\r\nHost: h\r\n\r\n");
    let second = wire.answer(false).map_err(|nothing| format!("no second answer: {nothing:?}"))?;
    if second.status != 200 || second.body != b"second" {
        return Err(format!("the second answer is {} {:?}", second.status, String::from_utf8_lossy(&second.body)));
    }
    let script = script.lock().expect("not poisoned");
    let reused = script.first.as_ref().map(|(number, _)| *number) == script.second;
    if reused != reusable {
        return Err(format!("the connection to the origin was {}used again", if reused { "" } else { "not " }));
    }
    Ok(())
}
