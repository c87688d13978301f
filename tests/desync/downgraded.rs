//! Requests over HTTP/2: half of them whole messages of odd fields, half of them odd frames.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::PATIENCE;
use super::dice::Dice;
use super::downgrade::messages::{self, Fate, Message};
use super::http2::{Said, Wire, get};
use super::reader::{self, Read};
use super::recorder::Recorder;
use super::sent::{Distinct, futures, gateway};
use super::trial::{Trial, a_moment};
use super::view::View;
use super::{mutate, requests, stock};

const PART: u64 = 2;
const LANES: usize = 48;
/// Odd frames may keep the gateway waiting for more. On a busy machine an answer that is late is not judged, and counted so.
const QUIET: Duration = Duration::from_millis(100);
/// Inputs that one connection carries, at most.
const TURNS: usize = 400;
const CANARY: &str = "/v1/canary";

struct Part<'t> {
    trial: &'t Trial,
    seeds: Vec<messages::Case>,
    /// Those that the gateway sends on.
    sound: Vec<usize>,
    texts: Vec<Vec<u8>>,
    gateway: SocketAddr,
    recorder: Recorder,
    distinct: RefCell<Distinct>,
    rest: RefCell<Range<u64>>,
    /// Inputs whose answer was not seen, though an origin may have seen their request.
    unsure: RefCell<HashSet<u64>>,
}

/// What is sent, and what it means if that is known.
struct Input {
    bytes: Vec<u8>,
    /// `None` if it is frames of which we know too little; else `None` within if it must be refused.
    meant: Option<Option<View>>,
}

pub async fn run(trial: &Trial) {
    let recorder = Recorder::start(true).await;
    let gateway = gateway(recorder.address, "[http2]\ncontrol_frames_max = 1000000\n");
    let mut origins = trial.origins().await;
    let mut seeds = messages::all();
    seeds.retain(|case| case.bytes(1).len() <= mutate::BYTES_MAX);
    // What is sound is mutated more often, for it can be sent on.
    let sound: Vec<usize> = (0..seeds.len()).filter(|at| seeds[*at].fate == Fate::Passed).collect();
    let part = Part {
        trial,
        seeds,
        sound,
        texts: stock::texts(),
        gateway: gateway.address(),
        recorder,
        distinct: RefCell::default(),
        rest: RefCell::new(0..0),
        unsure: RefCell::default(),
    };
    for round in trial.rounds() {
        let end = round.end;
        *part.rest.borrow_mut() = round;
        futures(LANES, || part.lane()).await;
        part.settle().await;
        let fresh = std::mem::take(&mut part.distinct.borrow_mut().fresh);
        trial.judge(&mut origins, &fresh).await;
        trial.say(end);
    }
    trial.count("distinct requests sent on", part.distinct.borrow().len());
    trial.tell(&origins);
    let said = gateway.process.lines().join("\n");
    assert!(!said.contains("panicked"), "{said}");
}

impl Part<'_> {
    async fn lane(&self) {
        while !self.trial.found_enough() {
            let mut wire = Wire::connect(self.gateway, QUIET).await;
            for _ in 0..TURNS {
                let Some(number) = self.rest.borrow_mut().next() else { return };
                let stream = wire.next_stream();
                let input = self.input(number, stream);
                let plain = get(stream + 2, CANARY);
                let exchange = wire.exchange(&input.bytes, &plain);
                let Ok(outcome) = tokio::time::timeout(PATIENCE, exchange).await else {
                    self.trial.find("the gateway goes on for ever", &input.bytes);
                    break;
                };
                self.trial.count("inputs", 1);
                if outcome.garbage {
                    self.trial.find("the gateway sends what is no frame, or two answers", &input.bytes);
                }
                self.judge(number, &input, &outcome.first);
                if outcome.canary.whole && outcome.canary.status == 200 {
                    // An odd frame may be one of the canary's stream.
                    let is_meant = Some(View::new("GET", CANARY.to_owned(), b""));
                    let meant = input.meant.as_ref().map(|_| is_meant);
                    self.judge(number, &Input { bytes: input.bytes.clone(), meant }, &outcome.canary);
                } else if outcome.goes_on && input.meant.is_some() {
                    self.trial
                        .find(&format!("the request behind it is not answered: {:?}", outcome.canary), &input.bytes);
                }
                if !outcome.goes_on {
                    self.trial.count("connections ended by an input", 1);
                    self.unsure.borrow_mut().insert(number);
                    break;
                }
            }
        }
    }

    fn judge(&self, number: u64, input: &Input, said: &Said) {
        let trial = self.trial;
        if !said.whole {
            self.unsure.borrow_mut().insert(number);
            trial.count(if said.reset { "requests whose stream was reset" } else { "requests without an answer" }, 1);
            return;
        }
        let told = std::str::from_utf8(&said.body).ok().and_then(View::read).filter(|_| said.status == 200);
        let Some((serial, view)) = told else {
            if said.status == 200 {
                // To a HEAD, or a list of models.
                self.unsure.borrow_mut().insert(number);
            }
            trial.note(&format!("requests that were answered with {}", said.status), &input.bytes);
            return;
        };
        let Some(sent) = self.recorder.log.borrow_mut().untold.remove(&serial) else {
            trial.find("a client gets an answer that another one had", &input.bytes);
            return;
        };
        match &input.meant {
            Some(None) => trial.find(&format!("the gateway sends on as {view:?} what is malformed"), &input.bytes),
            Some(Some(meant)) if *meant != view => {
                trial.find(&format!("the gateway sends {meant:?} on as {view:?}"), &input.bytes);
            }
            _ => {}
        }
        trial.count("requests that were sent on", 1);
        self.distinct.borrow_mut().add(sent, &view);
    }

    /// Every request that an origin saw was answered to a client, or belongs to an input whose answer was not waited for.
    async fn settle(&self) {
        for _ in 0..50 {
            a_moment().await;
        }
        let mut log = self.recorder.log.borrow_mut();
        let mut unsure = self.unsure.borrow_mut();
        for (_, bytes) in log.untold.drain() {
            let Read::Whole(request, _) = reader::request(&bytes) else { continue };
            let tag = tag(&bytes);
            // Of the inputs that are odd frames the tag may be one of what is odd.
            if tag.is_some_and(|tag| !unsure.remove(&tag)) {
                self.trial
                    .find("an origin was sent a request whose answer came to nobody, or was sent it twice", &bytes);
            } else {
                self.trial.count("requests that were sent on, the answer not seen", 1);
                let view = View::of(&request);
                self.distinct.borrow_mut().add(bytes, &view);
            }
        }
        unsure.clear();
        for (why, bytes) in log.faults.drain(..) {
            self.trial.find(&format!("an origin was sent what is no request: {why}"), &bytes);
        }
    }

    fn input(&self, number: u64, stream: u32) -> Input {
        let mut dice = Dice::of(self.trial.seed, PART, number);
        if dice.one_in(2) {
            let mut message = self.seed(&mut dice).message.clone();
            message.open = false;
            for _ in 0..*dice.pick(&[0, 1, 1, 1, 2, 2, 3, 4]) {
                self.mutate(&mut message, &mut dice);
            }
            let message = message.with("x-tag", format!("m{number}"));
            let meant = Some(meant(&message));
            return Input { bytes: [message.head(stream), message.rest(stream)].concat(), meant };
        }
        let mut frames = frames(&self.seed(&mut dice).bytes(stream));
        for _ in 0..*dice.pick(&[1, 1, 1, 2, 2, 3, 4]) {
            self.mutate_frames(&mut frames, stream, &mut dice);
        }
        Input { bytes: frames.concat(), meant: None }
    }

    fn seed(&self, dice: &mut Dice) -> &messages::Case {
        if dice.one_in(4) { dice.pick(&self.seeds) } else { &self.seeds[*dice.pick(&self.sound)] }
    }

    fn text(&self, dice: &mut Dice) -> Vec<u8> {
        let mut text = dice.pick(&self.texts).clone();
        if !dice.one_in(3) {
            while text.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                text.pop();
            }
        }
        text
    }

    /// A name and a value of a text that has both.
    fn line(&self, dice: &mut Dice) -> (Vec<u8>, Vec<u8>) {
        let text = self.text(dice);
        let split = text.iter().position(|byte| matches!(byte, b':' | 0x1f)).filter(|at| *at > 1);
        let (name, value) = split.map_or((&b"x-a"[..], &text[..]), |at| (&text[..at], &text[at + 1..]));
        let name = name.strip_prefix(b"\x1e").unwrap_or(name);
        let (name, value) = if dice.one_in(8) {
            (name.to_vec(), value.to_vec())
        } else {
            (name.trim_ascii().to_ascii_lowercase(), value.trim_ascii().to_vec())
        };
        (name, value)
    }

    fn mutate(&self, message: &mut Message, dice: &mut Dice) {
        let lines = message.lines.len();
        let at = dice.roll(lines.max(1));
        match dice.roll(14) {
            0 if lines > 0 => message.lines.push(message.lines[at].clone()),
            1 if lines > 0 => drop(message.lines.remove(at)),
            2 if lines > 0 => {
                let line = message.lines.remove(at);
                message.lines.insert(dice.roll(lines), line);
            }
            3..=5 => {
                let line = self.line(dice);
                message.lines.insert(dice.roll(lines + 1), line);
            }
            6 | 7 if lines > 0 => {
                let text = self.text(dice);
                let value = &mut message.lines[at].1;
                let from = dice.roll(value.len() + 1);
                value.splice(from..from, text);
            }
            8 if lines > 0 => {
                let odd = if dice.one_in(2) { dice.byte() } else { *dice.pick(b"\r\n\0 \t:/?#@%,;_-.0z") };
                let (name, value) = &mut message.lines[at];
                let part = if dice.one_in(3) { name } else { value };
                let from = dice.roll(part.len() + 1);
                let end = (from + dice.roll(2)).min(part.len());
                part.splice(from..end, [odd]);
            }
            9 if lines > 0 => message.lines[at].1 = self.text(dice),
            10 => {
                let data = if dice.one_in(2) { self.text(dice) } else { requests::SMUGGLED.as_bytes().to_vec() };
                message.data.insert(dice.roll(message.data.len() + 1), data);
            }
            11 => drop(message.data.pop()),
            12 => {
                let length: usize = message.data.iter().map(Vec::len).sum();
                let length = (length + dice.roll(3)).saturating_sub(dice.roll(2));
                message.lines.push((b"content-length".to_vec(), length.to_string().into_bytes()));
            }
            _ => {
                let line = self.line(dice);
                message.trailers.push(line);
            }
        }
    }

    fn mutate_frames(&self, frames: &mut Vec<Vec<u8>>, stream: u32, dice: &mut Dice) {
        if frames.is_empty() {
            return;
        }
        let at = dice.roll(frames.len());
        match dice.roll(12) {
            0 => frames.insert(at, frames[at].clone()),
            1 => drop(frames.remove(at)),
            2 => {
                let frame = frames.remove(at);
                frames.insert(dice.roll(frames.len() + 1), frame);
            }
            3 | 4 => {
                // Frames of another message, of this stream.
                let others = self::frames(&dice.pick(&self.seeds).bytes(stream));
                let from = dice.roll(others.len().max(1));
                frames.splice(at..at, others.into_iter().skip(from));
            }
            5 => {
                // Type and flags.
                let byte = 3 + dice.roll(2);
                let frame = &mut frames[at];
                if let Some(byte) = frame.get_mut(byte) {
                    *byte ^= 1 << dice.roll(6);
                }
            }
            6 => {
                // The stream.
                if let Some(byte) = frames[at].get_mut(8) {
                    *byte = byte.wrapping_add(*dice.pick(&[1, 2, 4, 254, 252]));
                }
            }
            7 => {
                // A length that is right again.
                let text = self.text(dice);
                let frame = &mut frames[at];
                let from = 9 + dice.roll(frame.len().saturating_sub(8).max(1));
                let from = from.min(frame.len());
                frame.splice(from..from, text);
                let length = (frame.len().saturating_sub(9) as u32).to_be_bytes();
                if frame.len() >= 9 {
                    frame[..3].copy_from_slice(&length[1..]);
                }
            }
            _ => {
                let frame = &mut frames[at];
                let from = dice.roll(frame.len().max(1));
                match dice.roll(3) {
                    _ if frame.is_empty() => {}
                    0 => frame[from] ^= 1 << dice.roll(8),
                    1 => frame[from] = dice.byte(),
                    _ => {
                        let byte = dice.byte();
                        frame.insert(from, byte);
                    }
                }
            }
        }
    }
}

/// The input that a request belongs to, if it says so.
fn tag(bytes: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(bytes, b"\r\nx-tag: m")? + 10;
    let digits: Vec<u8> = bytes[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = 9 + u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let (frame, rest) = bytes.split_at(length.min(bytes.len()));
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}

/// What a message says by RFC 9113 §8; `None` if it is malformed.
fn meant(message: &Message) -> Option<View> {
    let (mut regular, mut length) = (false, None);
    let (mut method, mut path, mut scheme, mut authority) = (None, None, None, None);
    let mut host: Option<String> = None;
    for (name, value) in &message.lines {
        let text = std::str::from_utf8(value).ok().map(str::to_owned);
        if name.first() == Some(&b':') {
            let slot = match &name[..] {
                b":method" => &mut method,
                b":path" => &mut path,
                b":scheme" => &mut scheme,
                b":authority" => &mut authority,
                _ => return None,
            };
            if regular || slot.replace(text?).is_some() {
                return None;
            }
            continue;
        }
        regular = true;
        check_line(name, value)?;
        match &name[..] {
            b"content-length" if length.is_some() || !value.iter().all(u8::is_ascii_digit) => return None,
            b"content-length" => length = Some(text?.parse::<usize>().ok()?),
            b"host" => {
                let text = text?;
                if host.replace(text.clone()).is_some_and(|host| !host.eq_ignore_ascii_case(&text)) {
                    return None;
                }
            }
            _ => {}
        }
    }
    for (name, value) in &message.trailers {
        // The library passes over those that it knows.
        if !matches!(&name[..], b":method" | b":path" | b":scheme" | b":authority" | b":status" | b":protocol") {
            check_line(name, value)?;
        }
    }
    let (method, path, _) = (method?, path?, scheme?);
    if let (Some(authority), Some(host)) = (&authority, &host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return None;
    }
    authority.or(host)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if method.is_empty() || !method.bytes().all(is_token) {
        return None;
    }
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    // It takes a fragment for none of the path.
    let path = path.split('#').next().unwrap_or_default().to_owned();
    let body = message.data.concat();
    if length.is_some_and(|length| length != body.len()) {
        return None;
    }
    Some(View::new(&method, path, &body))
}

fn check_line(name: &[u8], value: &[u8]) -> Option<()> {
    let is_token = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f);
    let around = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    let own = [&b"connection"[..], b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    let is_sound = !name.is_empty()
        && name.iter().all(is_token)
        && value.iter().all(is_text)
        && !around(value.first())
        && !around(value.last())
        && !own.contains(&name)
        && (name != b"te" || value.eq_ignore_ascii_case(b"trailers"));
    is_sound.then_some(())
}
