//! Clients that mean harm below HTTP: bent hellos, handshakes cut, records that no one may send, floods of what costs the sender
//! nothing. Each gets its alert or its end, nothing is left of it, and others are served meanwhile.
//!
//! What tests/tls_front.rs has is not repeated here: hellos cut, silence, garbage, HTTP in the clear. A hello on a listener in the
//! clear is a row of tests/differential.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use common::https::{BOTH, client};
use common::pem::{Ca, Folder};
use common::{Config, Gateway, Https, JSON, Origin, PATIENCE};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, ProtocolVersion};

const DRIVERS: [&str; 2] = ["deferred", "epoll"];

// Types of records (RFC 8446 §5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

// Alerts (RFC 8446 §6).
const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;
const USER_CANCELED: u8 = 90;
const NO_RENEGOTIATION: u8 = 100;

/// The longest that a record may hold.
const PLAIN_BYTES_MAX: usize = 1 << 14;

// --- the gateway ---

struct World {
    gateway: Gateway,
    _origin: Origin,
    authority: Ca,
    _folder: Folder,
}

impl World {
    fn new(more: &str) -> World {
        let (authority, folder, origin) = (Ca::new(), Folder::new(), Origin::start());
        folder.pair("first", &authority.sign(&["first.test"]));
        let path = |end: &str| folder.path(&format!("first.{end}")).display().to_string();
        let listener =
            format!("[listeners.tls]\ncertificates = [{{ chain = {:?}, key = {:?} }}]", path("pem"), path("key"));
        let gateway = Gateway::start(&Config::new(&[origin.url()]).listener(&listener).and(more));
        World { gateway, _origin: origin, authority, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    fn dial(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address()).expect("a connection");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    fn session(&self, config: &Arc<ClientConfig>) -> ClientConnection {
        ClientConnection::new(config.clone(), ServerName::try_from("first.test").expect("a name")).expect("a session")
    }

    /// Another client, who has been there before.
    fn other(&self) -> Https {
        Https::connect(self.address(), &client(&self.authority, BOTH), "first.test")
    }

    fn resident(&self) -> usize {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.gateway.process.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// Sockets that the gateway holds. Other descriptors come and go with files that it watches.
    fn sockets(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.gateway.process.id());
        let links = std::fs::read_dir(folder).expect("it runs").flatten().flat_map(|entry| entry.path().read_link());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    }

    /// Nothing is left of those who have gone: the gateway holds the sockets that it held.
    fn has_let_go(&self, sockets: usize) {
        let start = Instant::now();
        while self.sockets() > sockets {
            let held = self.sockets();
            assert!(start.elapsed() < PATIENCE, "{held} sockets are held, and {sockets} were before");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        let lines = self.gateway.process.lines();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:?}");
    }
}

/// Asks for what the gateway knows itself, and says how long that took.
fn serves(https: &mut Https) -> Duration {
    let start = Instant::now();
    let (head, _) = https.request("GET", "/v1/models", &JSON[..1], b"");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    start.elapsed()
}

/// All that comes until the connection ends.
fn rest_of(socket: &mut TcpStream, what: &str) -> Vec<u8> {
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => rest,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => rest,
        Err(error) => panic!("{what}: {error}, after {} bytes", rest.len()),
    }
}

/// The records in `bytes`: type and content.
fn records(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (content, after) = rest.split_at(length.min(rest.len()));
        all.push((*kind, content));
        bytes = after;
    }
    all
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("16 bits").to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], content].concat()
}

/// The alert in the clear that `bytes` end with.
fn last_alert(bytes: &[u8]) -> Option<u8> {
    match records(bytes).last() {
        Some((ALERT, [2, alert])) => Some(*alert),
        _ => None,
    }
}

// --- before there are keys ---

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }
}

fn bent(hello: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut hello = hello.to_vec();
    for _ in 0..1 + dice.roll(3) {
        let at = 5 + dice.roll(hello.len() - 5);
        match dice.roll(5) {
            0 => hello[at] ^= 1 << dice.roll(8),
            1 => hello[at] = [0, 1, 2, 0x7f, 0x80, 0xff][dice.roll(6)],
            2 => hello.insert(at, dice.roll(256) as u8),
            3 if hello.len() > 50 => drop(hello.drain(at..(at + 1 + dice.roll(16)).min(hello.len()))),
            _ => {
                let from = 5 + dice.roll(hello.len() - 5);
                let piece = hello[from..(from + 1 + dice.roll(64)).min(hello.len())].to_vec();
                hello.splice(at..at, piece);
            }
        }
    }
    // Lengths that are right again, so that not all are refused for them.
    if dice.roll(4) > 0 {
        let length = (hello.len() - 9) as u32;
        hello[6..9].copy_from_slice(&length.to_be_bytes()[1..]);
    }
    let length = u16::try_from(hello.len() - 5).expect("16 bits").to_be_bytes();
    hello[3..5].copy_from_slice(&length);
    hello
}

#[test]
fn a_bent_hello_gets_an_alert_or_a_handshake_and_leaves_nothing() {
    for driver in DRIVERS {
        let world = World::new(&format!("[ring]\ndriver = {driver:?}"));
        let mut other = world.other();
        let (sockets, mut dice) = (world.sockets(), Dice(7));
        let (mut refused, mut accepted, mut partial) = (0, 0, 0);
        for version in [&TLS12, &TLS13] {
            let config = client(&world.authority, &[version]);
            for number in 0..400 {
                let mut hello = Vec::new();
                world.session(&config).write_tls(&mut hello).expect("a hello");
                let hello = bent(&hello, &mut dice);
                let mut socket = world.dial();
                socket.write_all(&hello).expect("a hello");
                socket.shutdown(Shutdown::Write).expect("an end");
                let heard = rest_of(&mut socket, driver);
                match records(&heard).first() {
                    Some((ALERT, _)) => {
                        let alert = last_alert(&heard);
                        assert!(alert.is_some_and(|alert| alert != CLOSE_NOTIFY), "{driver}, {number}: {heard:02x?}");
                        refused += 1;
                    }
                    Some((HANDSHAKE, _)) => accepted += 1,
                    None => partial += 1,
                    Some(_) => panic!("{driver}, {number}: {heard:02x?}"),
                }
            }
            serves(&mut other);
        }
        println!("{driver}: {refused} refused, {accepted} answered, {partial} not whole");
        assert!(
            refused > 200 && accepted > 20,
            "{driver}: {refused} refused, {accepted} answered, {partial} not whole"
        );
        world.has_let_go(sockets);
    }
}

#[test]
fn records_that_may_not_come_first_get_their_alert_at_once() {
    let world = World::new("");
    let mut other = world.other();
    let sockets = world.sockets();
    let mut hello = Vec::new();
    world.session(&client(&world.authority, BOTH)).write_tls(&mut hello).expect("a hello");
    let claims = |kind: u8, length: u16| [&[kind, 3, 3][..], &length.to_be_bytes(), &[0; 64]].concat();
    let rows: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("data", record(DATA, &[0; 32]), &[UNEXPECTED_MESSAGE]),
        ("the hello as data", [&[DATA][..], &hello[1..]].concat(), &[UNEXPECTED_MESSAGE]),
        ("the hello as an alert", [&[ALERT][..], &hello[1..]].concat(), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
        (
            "the hello as a change of ciphers",
            [&[CHANGE_CIPHER_SPEC][..], &hello[1..]].concat(),
            &[DECODE_ERROR, UNEXPECTED_MESSAGE],
        ),
        ("a heartbeat", record(24, &[1, 0x40, 0, 0]), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
        ("no type", record(0, &[0; 32]), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
        ("another type", record(255, &[0; 32]), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
        (
            "a finished",
            record(HANDSHAKE, &[&[20, 0, 0, 32][..], &[7; 32]].concat()),
            &[DECODE_ERROR, UNEXPECTED_MESSAGE],
        ),
        ("a server's hello", record(HANDSHAKE, &[&[2][..], &hello[6..]].concat()), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
        ("a record too long", claims(HANDSHAKE, (1 << 14) + 2049), &[RECORD_OVERFLOW, DECODE_ERROR]),
        ("the longest length", claims(HANDSHAKE, u16::MAX), &[RECORD_OVERFLOW, DECODE_ERROR]),
        ("a message too long", record(HANDSHAKE, &[[1, 0xff, 0xff, 0xff], [3; 4]].concat()), &[]),
        ("nothing in it", record(HANDSHAKE, b""), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
    ];
    for (name, bytes, wanted) in rows {
        let mut socket = world.dial();
        socket.write_all(&bytes).expect("bytes");
        let heard = rest_of(&mut socket, name);
        let alert = last_alert(&heard);
        // The library says nothing of a message that claims too much, and ends.
        let is_told = alert.is_some_and(|alert| wanted.contains(&alert));
        assert!(is_told || (wanted.is_empty() && heard.is_empty()), "{name}: {alert:?}, {heard:02x?}");
    }
    // Once the first hello is answered, the alert is sealed.
    let (mut socket, start) = (world.dial(), Instant::now());
    socket.write_all(&hello.repeat(2)).expect("hellos");
    let heard = rest_of(&mut socket, "a hello twice");
    assert_eq!(records(&heard).last().map(|(kind, _)| *kind), Some(DATA), "{heard:02x?}");
    assert!(start.elapsed() < Duration::from_secs(5), "only the handshake's timer ends it");
    serves(&mut other);
    world.has_let_go(sockets);
}

/// The second flight of a client, behind a handshake that lacks nothing else; and the socket.
fn second_flight(world: &World, config: &Arc<ClientConfig>) -> (TcpStream, Vec<u8>) {
    let (mut session, mut socket) = (world.session(config), world.dial());
    session.write_tls(&mut socket).expect("a hello");
    loop {
        session.read_tls(&mut socket).expect("a flight");
        session.process_new_packets().expect("a sound one");
        let mut flight = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut flight).expect("a flight");
        }
        // A change of ciphers may come ahead of what it is waited for.
        if !flight.is_empty()
            && (!session.is_handshaking() || session.protocol_version() == Some(ProtocolVersion::TLSv1_2))
        {
            return (socket, flight);
        }
        socket.write_all(&flight).expect("a flight");
    }
}

#[test]
fn a_handshake_cut_or_bent_at_every_byte_of_its_second_half_leaves_nothing() {
    for driver in DRIVERS {
        let world = World::new(&format!("[ring]\ndriver = {driver:?}"));
        let mut other = world.other();
        let sockets = world.sockets();
        for version in [&TLS12, &TLS13] {
            // No session is gone on with.
            let fresh = || client(&world.authority, &[version]);
            let length = second_flight(&world, &fresh()).1.len();
            for at in 0..length {
                let (mut socket, flight) = second_flight(&world, &fresh());
                let what = format!("{driver}, {:?}, byte {at} of {length}", version.version);
                if at % 2 == 0 {
                    socket.write_all(&flight[..at]).expect("a part");
                    socket.shutdown(Shutdown::Write).expect("an end");
                    rest_of(&mut socket, &what);
                } else {
                    let mut flight = flight;
                    flight[at] ^= 0x55;
                    socket.write_all(&flight).expect("a flight");
                    socket.shutdown(Shutdown::Write).expect("an end");
                    let heard = rest_of(&mut socket, &what);
                    // What a length claims may still be waited for when the end comes.
                    let is_length = heard.is_empty();
                    assert!(is_length || !records(&heard).is_empty(), "{what}: {heard:02x?}");
                }
            }
            serves(&mut other);
        }
        world.has_let_go(sockets);
    }
}

// --- with keys ---

/// One direction of a session whose secrets are ours, to seal what no library would.
struct Seal {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    is_tls13: bool,
}

impl Seal {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), is_tls13: bool) -> Seal {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another cipher was agreed on") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("a key"));
        Seal { key, iv: iv.as_ref().try_into().expect("twelve bytes"), sequence, is_tls13 }
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        nonce
    }

    /// A record of this type and content, `padding` zeros behind them where the version has those.
    fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let nonce = self.nonce();
        let (mut inner, explicit, outer) = if self.is_tls13 {
            ([content, &[kind], &vec![0; padding]].concat(), &[][..], DATA)
        } else {
            (content.to_vec(), &nonce[4..], kind)
        };
        let length = (explicit.len() + inner.len() + 16) as u16;
        let head = [&[outer, 3, 3][..], &length.to_be_bytes()].concat();
        let aad = match self.is_tls13 {
            true => head.clone(),
            false => [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &(inner.len() as u16).to_be_bytes()].concat(),
        };
        let sealed = self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut inner);
        sealed.expect("it is sealed");
        self.sequence += 1;
        [&head[..], explicit, &inner].concat()
    }

    /// Type and content of a record of the other side; `None` if it is not sealed with these keys.
    fn open(&mut self, kind: u8, sealed: &[u8]) -> Option<(u8, Vec<u8>)> {
        let mut nonce = self.nonce();
        let (mut inner, aad) = if self.is_tls13 {
            let length = (sealed.len() as u16).to_be_bytes();
            (sealed.to_vec(), vec![kind, 3, 3, length[0], length[1]])
        } else {
            let (explicit, inner) = sealed.split_at_checked(8)?;
            nonce[4..].copy_from_slice(explicit);
            let length = (inner.len().checked_sub(16)? as u16).to_be_bytes();
            (inner.to_vec(), [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &length].concat())
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(aad), &mut inner).ok()?.to_vec();
        self.sequence += 1;
        if !self.is_tls13 {
            return Some((kind, plain));
        }
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        Some((plain[end], plain[..end].to_vec()))
    }
}

/// A session behind its handshake, sealed and opened by hand.
struct Hand {
    socket: TcpStream,
    out: Seal,
    back: Seal,
    held: Vec<u8>,
}

impl Hand {
    fn shake(world: &World, version: &'static rustls::SupportedProtocolVersion) -> Hand {
        let mut config = Arc::unwrap_or_clone(client(&world.authority, &[version]));
        config.enable_secret_extraction = true;
        let (mut session, mut socket) = (world.session(&Arc::new(config)), world.dial());
        while session.is_handshaking() {
            session.complete_io(&mut socket).expect("a handshake");
        }
        let is_tls13 = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        assert!(!session.wants_write(), "all is said");
        let secrets = session.dangerous_extract_secrets().expect("the secrets");
        Hand { socket, out: Seal::new(secrets.tx, is_tls13), back: Seal::new(secrets.rx, is_tls13), held: Vec::new() }
    }

    /// Sends a record; false once the other side has gone.
    fn send(&mut self, kind: u8, content: &[u8]) -> bool {
        let bytes = self.out.seal(kind, content, 0);
        self.socket.write_all(&bytes).is_ok()
    }

    /// The fatal alert that the connection ends with; `None` for an end without one.
    fn alert(&mut self, what: &str) -> Option<u8> {
        self.held.extend(rest_of(&mut self.socket, what));
        let held = std::mem::take(&mut self.held);
        let mut last = None;
        for (kind, sealed) in records(&held) {
            match self.back.open(kind, sealed) {
                Some((ALERT, alert)) if alert[..] != [1, NO_RENEGOTIATION] => last = alert.last().copied(),
                Some(_) => {}
                None => panic!("{what}: a record that is not sealed: {kind} {sealed:02x?}"),
            }
        }
        last
    }

    /// Reads what is there, for a moment. False once the connection has ended.
    fn goes_on(&mut self, moment: Duration) -> bool {
        self.socket.set_read_timeout(Some(moment)).expect("a timeout");
        let mut piece = [0; 4096];
        let read = self.socket.read(&mut piece);
        self.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        match read {
            Ok(count) => {
                self.held.extend_from_slice(&piece[..count]);
                count > 0
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// What is sent behind a handshake, and with which of these alerts it ends; none where the library has none for it.
type Broken = (&'static str, fn(&mut Hand) -> Vec<u8>, &'static [u8]);

const BROKEN: &[Broken] = &[
    ("an empty alert", |hand| hand.out.seal(ALERT, b"", 0), &[DECODE_ERROR, UNEXPECTED_MESSAGE]),
    ("half an alert", |hand| hand.out.seal(ALERT, &[2], 0), &[DECODE_ERROR]),
    ("another type", |hand| hand.out.seal(99, b"x", 0), &[UNEXPECTED_MESSAGE, DECODE_ERROR]),
    ("a heartbeat", |hand| hand.out.seal(24, &[1, 0x40, 0], 0), &[UNEXPECTED_MESSAGE, DECODE_ERROR]),
    ("a byte too many", |hand| hand.out.seal(DATA, &[b'x'; PLAIN_BYTES_MAX + 1], 0), &[RECORD_OVERFLOW]),
    ("a length too long", |_| [&[DATA, 3, 3, 0xff, 0xff][..], &[0; 99]].concat(), &[RECORD_OVERFLOW, DECODE_ERROR]),
    ("a record that is not sealed", |_| record(DATA, &[7; 64]), &[BAD_RECORD_MAC]),
    ("a record too short to be sealed", |_| record(DATA, &[7; 4]), &[BAD_RECORD_MAC, DECODE_ERROR]),
    ("an empty record that is not sealed", |_| record(DATA, b""), &[BAD_RECORD_MAC, DECODE_ERROR]),
    ("a record twice", |hand| hand.out.seal(DATA, b"GET", 0).repeat(2), &[BAD_RECORD_MAC]),
    (
        "records in another order",
        |hand| {
            let (one, two) = (hand.out.seal(DATA, b"GET ", 0), hand.out.seal(DATA, b"/", 0));
            [two, one].concat()
        },
        &[BAD_RECORD_MAC],
    ),
    (
        "a bent record",
        |hand| {
            let mut bytes = hand.out.seal(DATA, b"GET / HTTP/1.1\r\n\r\n", 0);
            *bytes.last_mut().expect("a tag") ^= 1;
            bytes
        },
        &[BAD_RECORD_MAC],
    ),
    (
        "a finished",
        |hand| hand.out.seal(HANDSHAKE, &[&[20, 0, 0, 32][..], &[0; 32]].concat(), 0),
        &[UNEXPECTED_MESSAGE, DECODE_ERROR],
    ),
    ("a message of 16 MiB", |hand| hand.out.seal(HANDSHAKE, &[24, 0xff, 0xff, 0xff, 0], 0), &[]),
];

#[test]
fn records_that_break_a_session_get_their_alert_and_leave_nothing() {
    for driver in DRIVERS {
        let world = World::new(&format!("[ring]\ndriver = {driver:?}"));
        let mut other = world.other();
        let sockets = world.sockets();
        for version in [&TLS12, &TLS13] {
            for (name, make, wanted) in BROKEN {
                let what = format!("{driver}, {:?}, {name}", version.version);
                let mut hand = Hand::shake(&world, version);
                let bytes = make(&mut hand);
                hand.socket.write_all(&bytes).expect("it is taken");
                let alert = hand.alert(&what);
                let is_told = alert.is_some_and(|alert| wanted.contains(&alert));
                assert!(is_told || (wanted.is_empty() && alert.is_none()), "{what}: {alert:?}");
            }
            serves(&mut other);
        }
        // Only padding, which TLS 1.2 does not have, and at which the library ends without a word.
        let mut hand = Hand::shake(&world, &TLS13);
        let bytes = hand.out.seal(0, b"", 1000);
        hand.socket.write_all(&bytes).expect("it is taken");
        assert_eq!(hand.alert("only padding"), None, "{driver}");
        world.has_let_go(sockets);
    }
}

#[test]
fn what_costs_its_sender_nothing_is_not_taken_for_ever() {
    for driver in DRIVERS {
        let world = World::new(&format!("[ring]\ndriver = {driver:?}"));
        let mut other = world.other();
        let sockets = world.sockets();
        // A client's hello, again.
        let mut hello = Vec::new();
        world.session(&client(&world.authority, &[&TLS12])).write_tls(&mut hello).expect("a hello");
        let hello = hello[5..].to_vec();
        let rows: [(&str, _, u8, Vec<u8>); 4] = [
            ("warnings", &TLS12, ALERT, vec![1, NO_RENEGOTIATION]),
            ("warnings", &TLS13, ALERT, vec![1, USER_CANCELED]),
            ("renegotiation", &TLS12, HANDSHAKE, hello.clone()),
            ("a hello behind a handshake", &TLS13, HANDSHAKE, hello),
        ];
        for (name, version, kind, content) in rows {
            let what = format!("{driver}, {name}, {:?}", version.version);
            let mut hand = Hand::shake(&world, version);
            let mut sent = 0;
            while sent < 2000 && hand.send(kind, &content) {
                sent += 1;
                if !hand.goes_on(Duration::from_micros(1)) {
                    break;
                }
            }
            let alert = hand.alert(&what);
            println!("{what}: {sent} sent, {alert:?}");
            assert!(sent < 2000, "{what}: taken for ever");
            serves(&mut other);
        }
        world.has_let_go(sockets);
    }
}

#[test]
fn new_keys_asked_for_again_and_again_end_the_session_or_cost_no_memory() {
    let world = World::new("");
    let mut other = world.other();
    let (sockets, before) = (world.sockets(), world.resident());
    // Nothing but requests for new keys.
    let mut https = Https::connect(world.address(), &client(&world.authority, &[&TLS13]), "first.test");
    let (session, socket) = https.parts();
    let mut sent = 0;
    let ended = loop {
        session.refresh_traffic_keys().expect("TLS 1.3");
        if session.write_tls(socket).is_err() || sent == 100_000 {
            break sent < 100_000;
        }
        sent += 1;
    };
    assert!(ended, "taken for ever");
    drop(https);
    // With a byte of a body behind each: that is a client at work, which never reads what it asked for.
    let mut https = Https::connect(world.address(), &client(&world.authority, &[&TLS13]), "first.test");
    https.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-client\r\ncontent-length: 100000\r\n\r\n");
    let (session, socket) = https.parts();
    for turn in 0..20_000 {
        session.refresh_traffic_keys().expect("TLS 1.3");
        session.writer().write_all(b" ").expect("a byte");
        while session.wants_write() {
            session.write_tls(socket).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        }
    }
    serves(&mut other);
    let grown = world.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for a client that asks for new keys");
    drop(https);
    world.has_let_go(sockets);
}

#[test]
fn records_without_content_hold_no_timer_up() {
    for driver in DRIVERS {
        let timers = "[client]\nkeep_alive = \"200ms\"\nhead = \"200ms\"\nbody = \"200ms\"";
        let world = World::new(&format!("{timers}\n[ring]\ndriver = {driver:?}"));
        let sockets = world.sockets();
        // Parts of messages that are none pass as well.
        for (version, kind) in [(&TLS12, DATA), (&TLS12, HANDSHAKE), (&TLS13, DATA), (&TLS13, HANDSHAKE)] {
            for (name, first) in [
                ("an idle connection", &b""[..]),
                ("half a head", b"GET /v1/models HTTP/1.1\r\n"),
                (
                    "half a body",
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-test-client\r\ncontent-length: 99\r\n\r\n{",
                ),
            ] {
                let mut hand = Hand::shake(&world, version);
                if !first.is_empty() {
                    assert!(hand.send(DATA, first));
                }
                let start = Instant::now();
                while hand.send(kind, b"") && hand.goes_on(Duration::from_millis(5)) {
                    let taken = start.elapsed();
                    assert!(taken < PATIENCE / 2, "{driver}, {:?}, {name}: open after {taken:?}", version.version);
                }
            }
        }
        world.has_let_go(sockets);
    }
}

// --- many ---

#[test]
fn many_half_open_and_silent_connections_cost_little_and_keep_nobody_waiting() {
    const MANY: usize = 400;
    for driver in DRIVERS {
        let timers = "[client]\nhandshake = \"30s\"\nkeep_alive = \"30s\"";
        let world = World::new(&format!("{timers}\n[ring]\ndriver = {driver:?}"));
        let mut other = world.other();
        serves(&mut other);
        let (sockets, before) = (world.sockets(), world.resident());
        let config = client(&world.authority, BOTH);
        let (mut worst, mut half, mut silent) = (Duration::ZERO, Vec::new(), Vec::new());
        for _ in 0..MANY {
            // A hello that is answered, and half of one.
            let mut hello = Vec::new();
            world.session(&config).write_tls(&mut hello).expect("a hello");
            for length in [hello.len(), hello.len() / 2] {
                let mut socket = world.dial();
                socket.write_all(&hello[..length]).expect("a hello");
                half.push(socket);
            }
            silent.push(Https::connect(world.address(), &config, "first.test"));
            worst = worst.max(serves(&mut other));
        }
        let each = world.resident().saturating_sub(before) / (3 * MANY);
        println!("{driver}: {each} bytes for each of {}, the other waited {worst:?} at most", 3 * MANY);
        assert!(each < 40 << 10, "{driver}: {each} bytes for each");
        assert!(worst < Duration::from_secs(1), "{driver}: {worst:?}");
        drop((half, silent));
        world.has_let_go(sockets);
        serves(&mut other);
    }
}
