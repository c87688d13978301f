//! One cell of the matrix: a provider that fails in one way, asked in one shape, and all that is to be true afterwards.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde_json::Value;

use crate::common::{Client, End, JSON, Origin, PATIENCE, Peer, Response};
use crate::ground::{DRIVERS, Ground, Players};
use crate::shape::Shape;

/// The timer that a cell is about, in milliseconds; every other one is far longer than [`BOUND`].
const SHORT_MS: u64 = 300;

/// What an exchange may take whose short timer must end it, or which needs none.
pub const BOUND: Duration = Duration::from_secs(10);

/// How an exchange is to end for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// An honest status with this code, in the dialect's shape; the connection stays. Then the state of its record.
    Status(u16, &'static str, &'static str),
    /// The content, then an error event with this code, and neither an end mark nor a last chunk. Then the state.
    InBand(&'static str, &'static str),
    /// The content, and then the connection ends in the middle of the body. Then the state.
    Cut(&'static str),
    /// All of a short answer.
    Whole,
    /// All of a long answer.
    Long,
}

use Ends::{Cut, InBand, Long, Status, Whole};

/// A fault.
pub struct Cell {
    pub name: &'static str,
    pub streamed: Ends,
    pub whole: Ends,
    /// Timers that the expected end does not tell: `total = "2s"`.
    pub timers: &'static str,
    /// Padding of requests in the dialect of OpenAI, in bytes.
    pub padding: usize,
    pub play: fn(&Act) -> Option<Peer>,
}

/// A fault that ends alike in all shapes.
pub fn cell(name: &'static str, ends: Ends, play: fn(&Act) -> Option<Peer>) -> Cell {
    Cell { name, streamed: ends, whole: ends, timers: "", padding: 0, play }
}

impl Cell {
    /// Unstreamed it ends in another way.
    pub fn unstreamed(mut self, ends: Ends) -> Cell {
        self.whole = ends;
        self
    }

    pub fn timers(mut self, timers: &'static str) -> Cell {
        self.timers = timers;
        self
    }

    pub fn padding(mut self, bytes: usize) -> Cell {
        self.padding = bytes;
        self
    }

    fn ends(&self, shape: Shape) -> Ends {
        if shape.streamed { self.streamed } else { self.whole }
    }
}

/// The provider's side of one exchange.
pub struct Act {
    pub shape: Shape,
    origin: Origin,
    /// What it shows if it is asked over https.
    secure: Option<Arc<ServerConfig>>,
    client_has_content: Mutex<Receiver<()>>,
}

impl Act {
    /// The gateway's connection, no request read from it.
    pub fn accept(&self) -> Peer {
        let peer = self.origin.accept();
        match &self.secure {
            Some(config) => peer.secure(config),
            None => peer,
        }
    }

    /// The gateway's connection, the whole request read from it.
    pub fn asked(&self) -> Peer {
        let mut peer = self.accept();
        peer.request();
        peer
    }

    /// As [`Act::asked`], with the head of a chunked answer sent.
    pub fn begun(&self) -> Peer {
        let mut peer = self.asked();
        peer.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            self.shape.media()
        ));
        peer
    }

    /// As [`Act::begun`], with content sent that the client has.
    pub fn committed(&self) -> Peer {
        let mut peer = self.begun();
        peer.chunk(self.shape.lead()).chunk(self.shape.content());
        self.until_client_has_content();
        peer
    }

    /// The head of an answer that announces `length` bytes.
    pub fn head_of(&self, length: usize) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {length}\r\n\r\n", self.shape.media())
    }

    /// Waits until the client has been passed content: a reset may overtake what was sent before it.
    pub fn until_client_has_content(&self) {
        let told = self.client_has_content.lock().expect("not poisoned").recv_timeout(PATIENCE);
        told.expect("the client is sent content");
    }
}

/// Sends `bytes` one at a time, one every `pause`, and after them `last` over and over, for as long as the gateway reads.
pub fn drip(peer: &mut Peer, bytes: &[u8], pause: Duration, last: &[u8]) {
    for byte in bytes {
        thread::sleep(pause);
        if !peer.try_send([*byte]) {
            return;
        }
    }
    while !last.is_empty() && peer.try_send(last) {
        thread::sleep(pause);
    }
}

/// Plays all `cells` in all shapes at once, on each kind of event loop.
pub fn play(cells: &[Cell]) {
    play_as(cells, "http", "", None);
}

/// As [`play`], with providers that are asked over https, show what `secure` says and are believed by the line `ca`.
pub fn play_secure(cells: &[Cell], ca: &str, secure: &Arc<ServerConfig>) {
    play_as(cells, "https", ca, Some(secure));
}

fn play_as(cells: &[Cell], scheme: &str, endpoint: &str, secure: Option<&Arc<ServerConfig>>) {
    for driver in DRIVERS {
        let mut players = Players::default();
        let mut acts = Vec::new();
        for (number, cell) in cells.iter().enumerate() {
            for shape in Shape::ALL {
                let name = format!("{number}-{}", shape.name());
                let origin = Origin::start();
                let url = format!("{scheme}://{}/v1", origin.address);
                players.add(&name, &url, endpoint, &timers(cell.ends(shape), cell.timers));
                acts.push((name, cell, shape, origin));
            }
        }
        let ground = Ground::start(driver, &players);
        thread::scope(|scope| {
            for (name, cell, shape, origin) in acts {
                let ground = &ground;
                let what = format!("{}, {}, {driver}", cell.name, shape.name());
                let exchange = move || exchange(ground, &name, cell, shape, origin, secure.cloned());
                thread::Builder::new().name(what).spawn_scoped(scope, exchange).expect("a thread");
            }
        });
        ground.finish();
    }
}

/// The fields of the timers under which `ends` is to come.
pub fn timers(ends: Ends, more: &str) -> String {
    let code = match ends {
        Status(_, code, _) | InBand(code, _) => code,
        // What cannot be told in the stream is between two tokens.
        Cut("timeout") => "between_tokens_timeout",
        Cut(_) | Whole | Long => "",
    };
    let timers = ["connect", "first_token", "between_tokens", "total"].map(|timer| {
        let is_short = code.strip_suffix("_timeout") == Some(timer);
        match (more.contains(timer), is_short) {
            (true, _) => String::new(),
            (false, true) => format!("{timer} = \"{SHORT_MS}ms\""),
            (false, false) => format!("{timer} = \"60s\""),
        }
    });
    timers.iter().map(String::as_str).chain([more]).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Plays one cell and checks everything about it.
fn exchange(ground: &Ground, name: &str, cell: &Cell, shape: Shape, origin: Origin, secure: Option<Arc<ServerConfig>>) {
    let (ends, id) = (cell.ends(shape), format!("id-{name}"));
    let what = format!("{}, {}", cell.name, shape.name());
    let (has_content, client_has_content) = sync_channel(1);
    let act = Act { shape, origin, secure, client_has_content: Mutex::new(client_has_content) };
    let mut client = ground.gateway.connect();
    thread::scope(|scope| {
        let provider = scope.spawn(|| (cell.play)(&act));
        // The backup provider is there to be asked, and must not be: the request may have begun to be worked on.
        let padding = if shape.anthropic { 0 } else { cell.padding };
        ask(&mut client, &format!("{name}+"), shape, &id, padding);
        let begun = Instant::now();
        let (mut client, response) = answer(client, shape, &has_content);
        let took = begun.elapsed();
        assert!(took < BOUND, "{what}: took {took:?}");
        judge(&what, ends, shape, &response);
        assert_eq!(ground.asked_backup(&id), 0, "{what}: another endpoint was asked");
        match ends {
            Status(..) | Whole | Long => {
                let next = client.request("GET", "/v1/models", &JSON[..1], b"");
                assert_eq!(next.head.status, 200, "{what}: the connection is of no use any more");
            }
            InBand(..) | Cut(_) => assert!(client.is_closed(), "{what}: the connection stays"),
        }
        record(&what, ends, &ground.records.of(&id), 1);
        let peer = provider.join().unwrap_or_else(|_| panic!("{what}: the provider failed"));
        if let Some(mut peer) = peer {
            // At once if the exchange failed; if not, the connection is swept when it was idle for long enough.
            peer.ended();
        }
        assert!(act.origin.is_left_alone(), "{what}: asked again");
    });
}

/// Sends a call for `model`.
pub fn ask(client: &mut Client, model: &str, shape: Shape, id: &str, padding: usize) {
    let body = serde_json::json!({
        "model": model, "stream": shape.streamed, "max_tokens": 9, "x": "p".repeat(padding),
        "messages": [{"role": "user", "content": "hi"}],
    });
    let headers: Vec<_> = JSON.into_iter().chain([("x-request-id", id)]).collect();
    client.send_request("POST", shape.path(), &headers, body.to_string().as_bytes());
}

/// Reads the answer to the end and says when its first content has come.
pub fn answer(mut client: Client, shape: Shape, has_content: &SyncSender<()>) -> (Client, Response) {
    let head = client.final_head();
    if head.status != 200 || !shape.streamed {
        let _ = has_content.try_send(());
        let response = client.body("POST", head);
        return (client, response);
    }
    let mut events = client.events(&head);
    let mut body = Vec::new();
    while let Some(event) = events.next_event() {
        body.extend_from_slice(&event.raw);
        if !event.data.is_empty() {
            let _ = has_content.try_send(());
        }
    }
    body.extend_from_slice(events.rest());
    let end = events.end().expect("it has ended").clone();
    let framing = crate::common::Framing::Chunked(Vec::new());
    let response = Response { head, body, framing, end, trailers: Vec::new() };
    (events.into_client(), response)
}

/// What an Anthropic error, which has no code, says instead.
fn phrase(code: &str) -> &str {
    match code {
        "connect_timeout" => "could not be connected to within",
        "first_token_timeout" => "gave no first token within",
        "between_tokens_timeout" => "gave no further token within",
        "total_timeout" => "The whole exchange took longer than",
        "upstream_unreachable" => "(while connecting)",
        "upstream_truncated" => "he provider",
        _ => "The provider failed",
    }
}

fn is_told(shape: Shape, code: &str, error: &Value) -> bool {
    let message = error["error"]["message"].as_str().unwrap_or_default();
    let has_shape = match shape.anthropic {
        true => error["type"] == "error" && error["error"]["type"].is_string(),
        false => error["error"]["code"] == code && error["error"]["type"].is_string(),
    };
    has_shape && message.contains(phrase(code))
}

/// The client was told the truth.
pub fn judge(what: &str, ends: Ends, shape: Shape, response: &Response) {
    let text = response.text();
    let started = format!("{}{}", shape.lead(), shape.content());
    match ends {
        Status(status, code, _) => {
            assert_eq!((response.head.status, &response.end), (status, &End::Complete), "{what}: {text}");
            let origin = response.head.get("x-ringway-error-origin");
            assert_eq!(origin, Some("upstream"), "{what}: {text}");
            assert!(is_told(shape, code, &response.json()), "{what}: {text}");
        }
        InBand(code, _) => {
            assert_eq!((response.head.status, &response.end), (200, &End::Cut), "{what}: {text}");
            let rest = text.strip_prefix(&started).unwrap_or_else(|| panic!("{what}: {text}"));
            // Other whole events may have passed before the fault.
            let last = rest.trim_end().rsplit("\n\n").next().unwrap_or_default();
            assert!(rest.ends_with("\n\n"), "{what}: {rest}");
            assert_eq!(last.starts_with("event: error\n"), shape.anthropic, "{what}: {rest}");
            let data = last.rsplit("data: ").next().unwrap_or_default();
            let error = serde_json::from_str(data).unwrap_or_else(|error| panic!("{what}: {error}: {rest}"));
            assert!(is_told(shape, code, &error), "{what}: {rest}");
            assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{what}: {text}");
        }
        Cut(_) => {
            assert_eq!((response.head.status, &response.end), (200, &End::Cut), "{what}");
            assert!(text.starts_with(&started), "{what}: {} bytes", text.len());
            assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{what}: an end was made up");
            assert!(!text.contains("\"error\""), "{what}: an error in the middle of something else");
        }
        Whole | Long => {
            let expected = if ends == Whole { shape.whole() } else { shape.long() };
            assert_eq!((response.head.status, &response.end), (200, &End::Complete), "{what}: {text}");
            assert!(text == expected, "{what}: {text}");
        }
    }
}

/// The record says the same.
pub fn record(what: &str, ends: Ends, record: &Value, attempts: u64) {
    let (status, state) = match ends {
        Status(status, _, state) => (status, state),
        InBand(_, state) | Cut(state) => (200, state),
        Whole | Long => (200, "complete"),
    };
    assert_eq!((&record["status"], record["state"].as_str()), (&status.into(), Some(state)), "{what}: {record}");
    assert_eq!(record["attempts"], attempts, "{what}: {record}");
}
