//! One client that goes through the menu, and the one that only keeps connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Door;
use super::menu::{Dish, Kind, MENU};
use super::wire::{End, Wire};

/// What an actor has done.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests whose head was sent, each of which must have a record.
    pub requests: u64,
    /// What must have a record and has no id: heads that can't be read.
    pub anonymous: u64,
    /// Connections made.
    pub connections: u64,
    /// How many ended how, by dish.
    pub ends: BTreeMap<(&'static str, String), u64>,
    /// Those that were wrong.
    pub unexpected: u64,
    /// Some of them.
    pub examples: Vec<String>,
}

/// A client.
pub struct Actor {
    number: u32,
    door: Door,
    key: String,
    random: u64,
    wire: Option<Wire>,
    tally: Tally,
}

impl Actor {
    pub fn new(number: u32, door: Door, key: &str, seed: u64) -> Actor {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(number + 1);
        Actor { number, door, key: key.to_owned(), random, wire: None, tally: Tally::default() }
    }

    /// Goes through the menu at random, one dish every `pause` at most, until told to stop.
    pub fn act(mut self, pause: Duration, stop: &AtomicBool) -> Tally {
        let menu: Vec<&Dish> = MENU.iter().filter(|dish| self.door.tls.is_some() || !dish.kind.needs_tls()).collect();
        let total: u32 = menu.iter().map(|dish| dish.weight).sum();
        let mut due = Instant::now() + pause.mul_f64(self.fraction());
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Between nothing and twice the pause; what was late is not made up for.
            due = Instant::now().max(due) + pause.mul_f64(2.0 * self.fraction());
            let mut at = self.below(total);
            let dish = menu.iter().find(|dish| match at.checked_sub(dish.weight) {
                Some(rest) => {
                    at = rest;
                    false
                }
                None => true,
            });
            if let Some(dish) = dish {
                self.serve(dish);
            }
        }
        self.tally
    }

    /// Keeps up to `most` connections that come and go, some after a request, most without another.
    pub fn idle(mut self, most: u32, stop: &AtomicBool) -> Tally {
        let mut kept: Vec<(Wire, Instant)> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            kept.retain(|(_, until)| *until > now);
            if (kept.len() as u32) < most
                && let Some(wire) = self.connect()
            {
                self.wire = Some(wire);
                if self.below(2) == 0 {
                    self.plain("idle", "GET", "/v1/models", &["200"]);
                }
                let until = now + Duration::from_secs_f64(20.0 * self.fraction() * self.fraction());
                kept.extend(self.wire.take().map(|wire| (wire, until)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.tally
    }

    fn serve(&mut self, dish: &'static Dish) {
        // Anything may come over a used connection or over a fresh one.
        if self.below(4) == 0 || self.wire.as_ref().is_none_or(|wire| !wire.is_kept()) {
            self.wire = self.connect();
        }
        if self.wire.is_none() {
            return self.note(dish.name, dish.ends, "not connected".to_owned());
        }
        match dish.kind {
            Kind::Chat => self.chat(dish, "/v1/chat/completions", 0, None),
            Kind::Messages => self.chat(dish, "/v1/messages", 0, None),
            Kind::LargeChat => {
                let bytes = 1 << (16 + self.below(6));
                self.chat(dish, "/v1/chat/completions", bytes, None);
            }
            Kind::LeaveSilent => self.chat(dish, "/v1/chat/completions", 0, Some(Leave::Later)),
            Kind::LeaveStream => {
                let bytes = self.below(10_000) as usize;
                self.chat(dish, "/v1/chat/completions", 0, Some(Leave::After(bytes)));
            }
            Kind::SlowReader => self.chat(dish, "/v1/chat/completions", 0, Some(Leave::Never)),
            Kind::Upload => self.upload(dish, false),
            Kind::LeaveUpload => self.upload(dish, true),
            Kind::LeaveHead => {
                // Over TLS it is cut short, not ended, and that is no request.
                self.tally.anonymous += u64::from(self.wire.as_ref().is_some_and(|wire| !wire.is_tls()));
                let sent = self.send(b"POST /v1/chat/completions HTT");
                self.wire = None;
                self.note(dish.name, dish.ends, if sent { "left" } else { "not sent" }.to_owned());
            }
            Kind::Garbage => {
                self.tally.anonymous += 1;
                self.wire = self.connect();
                let sent = self.send(b"\x16\x03\x01 what is this\r\n\r\n");
                self.read(dish.name, dish.ends, sent);
                self.wire = None;
            }
            Kind::Clear => {
                // There is no record of it: it never came to a request.
                self.wire = self.door.tls.as_ref().and_then(|(address, _)| Wire::connect(*address, None).ok());
                let sent = self.send(b"GET /v1/models HTTP/1.1\r\nhost: soak\r\n\r\n");
                self.read(dish.name, dish.ends, sent);
                self.wire = None;
            }
            Kind::LeaveHandshake => {
                self.wire = self.door.tls.as_ref().and_then(|(address, _)| Wire::connect(*address, None).ok());
                // A record that announces 512 bytes of a ClientHello.
                let sent = self.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
                self.wire = None;
                self.note(dish.name, dish.ends, if sent { "left" } else { "not sent" }.to_owned());
            }
            Kind::Churn => {
                self.wire = self.connect();
                if dish.ends == ["401"] {
                    let key = std::mem::replace(&mut self.key, "nobody's".to_owned());
                    self.plain(dish.name, "GET", "/v1/models", dish.ends);
                    self.key = key;
                } else {
                    self.plain(dish.name, "GET", "/v1/models", dish.ends);
                }
                self.wire = None;
            }
        }
    }

    fn chat(&mut self, dish: &'static Dish, path: &str, padding: usize, leave: Option<Leave>) {
        let script = dish.script.replace("{n}", &(1 + self.below(200)).to_string());
        let script = script.replace("{g}", &self.below(11).to_string());
        let padding = if padding > 0 { padding } else { self.below(2_000) as usize };
        let body = format!(
            "{{\"model\":\"{}\",\"stream\":{},\"max_tokens\":100000,\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
            dish.model,
            dish.stream,
            "p".repeat(padding)
        );
        let fields =
            format!("content-type: application/json\r\nx-mock: {script}\r\ncontent-length: {}\r\n", body.len());
        let mut request = self.head("POST", path, &fields);
        request.extend_from_slice(body.as_bytes());
        let sent = self.send(&request);
        match leave {
            None => self.read(dish.name, dish.ends, sent),
            Some(Leave::Later) => {
                std::thread::sleep(Duration::from_millis(u64::from(self.below(30))));
                self.wire = None;
                self.note(dish.name, dish.ends, if sent { "left" } else { "not sent" }.to_owned());
            }
            Some(Leave::After(most)) => {
                let mut seen = 0;
                let end = self.wire.as_mut().and_then(|wire| {
                    wire.answer(Duration::ZERO, |bytes| {
                        seen += bytes.len();
                        seen <= most
                    })
                });
                self.wire = None;
                self.note(dish.name, dish.ends, end.map_or("left".to_owned(), |end| end.name()));
            }
            Some(Leave::Never) => {
                let pause = Duration::from_millis(10);
                let end = self.wire.as_mut().and_then(|wire| wire.answer(pause, |_| true));
                self.settle(dish.name, dish.ends, end);
            }
        }
    }

    fn upload(&mut self, dish: &'static Dish, leaves: bool) {
        let length = 1 << (16 + self.below(6));
        let mut request = self.head(
            "POST",
            "/v1/files",
            &format!("content-type: application/octet-stream\r\ncontent-length: {length}\r\n"),
        );
        let body = vec![b'u'; if leaves { self.below(length) as usize } else { length as usize }];
        request.extend_from_slice(&body);
        // What comes back fills the sockets while this still sends, but never so much that both sides wait.
        let sent = self.send(&request);
        if leaves {
            self.wire = None;
            return self.note(dish.name, dish.ends, if sent { "left" } else { "not sent" }.to_owned());
        }
        self.read(dish.name, dish.ends, sent);
    }

    fn plain(&mut self, name: &'static str, method: &str, path: &str, ends: &'static [&'static str]) {
        let request = self.head(method, path, "");
        let sent = self.send(&request);
        self.read(name, ends, sent);
    }

    /// The head of the next request, which must have a record.
    fn head(&mut self, method: &str, path: &str, fields: &str) -> Vec<u8> {
        let id = format!("s{}-{}", self.number, self.tally.requests);
        self.tally.requests += 1;
        let key = &self.key;
        format!(
            "{method} {path} HTTP/1.1\r\nhost: soak\r\nauthorization: Bearer {key}\r\nx-request-id: {id}\r\n{fields}\r\n"
        )
        .into_bytes()
    }

    /// A connection, one in two over TLS where that is spoken.
    fn connect(&mut self) -> Option<Wire> {
        let wire = match self.door.tls.clone() {
            Some((address, config)) if self.below(2) == 0 => Wire::connect(address, Some(&config)),
            _ => Wire::connect(self.door.address, None),
        };
        self.tally.connections += 1;
        wire.ok()
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.wire.as_mut().is_some_and(|wire| wire.send(bytes).is_ok())
    }

    fn read(&mut self, name: &'static str, ends: &'static [&'static str], sent: bool) {
        let end = self.wire.as_mut().filter(|_| sent).and_then(|wire| wire.answer(Duration::ZERO, |_| true));
        self.settle(name, ends, end);
    }

    fn settle(&mut self, name: &'static str, ends: &'static [&'static str], end: Option<End>) {
        if self.wire.as_ref().is_some_and(|wire| !wire.is_kept()) {
            self.wire = None;
        }
        self.note(name, ends, end.map_or("not sent".to_owned(), |end| end.name()));
    }

    fn note(&mut self, name: &'static str, ends: &'static [&'static str], end: String) {
        if !ends.contains(&end.as_str()) {
            self.tally.unexpected += 1;
            if self.tally.examples.len() < 5 {
                let last = self.tally.requests.saturating_sub(1);
                self.tally.examples.push(format!("{name}: {end} (s{}-{last})", self.number));
            }
        }
        *self.tally.ends.entry((name, end)).or_default() += 1;
    }

    /// From 0 to `most`, without it.
    fn below(&mut self, most: u32) -> u32 {
        (self.fraction() * f64::from(most)) as u32
    }

    /// From 0 to 1, without it (splitmix64).
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// When a client leaves a chat.
enum Leave {
    /// After a while in which nothing came.
    Later,
    /// When it has so many bytes.
    After(usize),
    /// Not before the end, but it reads slowly.
    Never,
}
