//! A little of OpenAI's Realtime protocol, over a WebSocket: a session, a conversation of text, and answers in deltas.
//!
//! Frames are tungstenite's, so that they share no bug with the gateway's own. What is said depends on the script of the
//! model in the query: `ttft`, `gap`, `tokens`, `seed`, and `fault=cut@N` (the connection ends after so many deltas),
//! `fault=close` (at once, without a Close).

use std::io::{self, Read, Write};
use std::time::Duration;

use aws_lc_rs::digest;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::answer::{Ask, Says};
use super::script::{At, Fault, Script};
use super::text::{Rng, base64, id};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A session that begins once its handshake was answered.
pub(crate) struct Session {
    pub script: Script,
    pub model: String,
}

/// The handshake of a request for a WebSocket: fields of the 101, and the model of the query.
pub(crate) fn handshake<B>(request: &Request<B>) -> Option<(HeaderMap, String)> {
    let get = |name: &str| request.headers().get(name)?.to_str().ok();
    let asks = get("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"));
    if request.method() != Method::GET || !asks || !request.uri().path().ends_with("/realtime") {
        return None;
    }
    let text = format!("{}{GUID}", get("sec-websocket-key")?);
    let accept = base64(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref());
    let mut fields = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(HeaderName::from_static(name), value);
        }
    };
    put("connection", "upgrade");
    put("upgrade", "websocket");
    put("sec-websocket-accept", &accept);
    let protocols = get("sec-websocket-protocol").unwrap_or_default();
    if protocols.split(',').any(|protocol| protocol.trim() == "realtime") {
        put("sec-websocket-protocol", "realtime");
    }
    let query = request.uri().query().unwrap_or_default();
    let model = query.split('&').find_map(|pair| pair.strip_prefix("model=")).unwrap_or("mock");
    Some((fields, unescape(model)))
}

/// `%2C` and its like undone.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        match piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => bytes.extend([&[byte], &piece.as_bytes()[2..]].concat()),
            None => bytes.extend([b"%", piece.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A socket that never waits.
struct AtOnce(TcpStream);

impl Read for AtOnce {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(bytes)
    }
}

impl Write for AtOnce {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection, and what it has come to.
struct Talk {
    socket: WebSocket<AtOnce>,
    session: Session,
    rng: Rng,
}

/// Speaks until the client closes; `ahead` came with the handshake.
pub(crate) async fn serve(stream: TcpStream, ahead: Vec<u8>, session: Session) {
    if matches!(session.script.fault, Fault::Close) {
        return;
    }
    let socket = WebSocket::from_partially_read(AtOnce(stream), ahead, Role::Server, None);
    let rng = Rng::new(session.script.seed);
    let mut talk = Talk { socket, session, rng };
    // How it failed is the client's affair.
    let _ = talk.run().await;
}

impl Talk {
    async fn run(&mut self) -> Result<(), Error> {
        let created = json!({"type": "session.created", "session": self.object()});
        self.say(created).await?;
        loop {
            match self.hear().await? {
                Message::Text(text) => self.answer(text.as_str()).await?,
                // Given back as it came.
                Message::Binary(bytes) => self.send(Message::Binary(bytes)).await?,
                _ => {}
            }
        }
    }

    /// The next message; pings and a Close are answered on the way.
    async fn hear(&mut self) -> Result<Message, Error> {
        loop {
            match self.socket.read() {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.get_ref().0.readable().await?;
                }
                heard => {
                    self.flush().await?;
                    return heard;
                }
            }
        }
    }

    async fn say(&mut self, mut event: Value) -> Result<(), Error> {
        event["event_id"] = id("event_", &mut self.rng).into();
        self.send(Message::text(event.to_string())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), Error> {
        match self.socket.write(message) {
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            wrote => wrote?,
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        loop {
            match self.socket.flush() {
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.get_ref().0.writable().await?;
                }
                flushed => return flushed,
            }
        }
    }

    fn object(&mut self) -> Value {
        json!({"type": "realtime", "object": "realtime.session", "id": id("sess_", &mut self.rng),
               "model": self.session.model, "output_modalities": ["text"]})
    }

    async fn answer(&mut self, text: &str) -> Result<(), Error> {
        let event: Value = serde_json::from_str(text).unwrap_or_default();
        match event["type"].as_str().unwrap_or_default() {
            "session.update" => {
                let mut session = self.object();
                for (name, value) in event["session"].as_object().into_iter().flatten() {
                    session[name] = value.clone();
                }
                self.say(json!({"type": "session.updated", "session": session})).await
            }
            "conversation.item.create" => {
                let mut item = event["item"].clone();
                if item["id"].is_null() && item.is_object() {
                    item["id"] = id("item_", &mut self.rng).into();
                }
                for word in ["conversation.item.added", "conversation.item.done"] {
                    self.say(json!({"type": word, "previous_item_id": null, "item": item})).await?;
                }
                Ok(())
            }
            "response.create" => self.respond().await,
            other => {
                let message = format!("Unknown event {other:?}.");
                let error = json!({"type": "invalid_request_error", "code": "unknown_event", "message": message,
                                   "param": null, "event_id": event["event_id"]});
                self.say(json!({"type": "error", "error": error})).await
            }
        }
    }

    /// An answer of text, in deltas.
    async fn respond(&mut self) -> Result<(), Error> {
        let script = self.session.script.clone();
        let says = Says::new(&script, &Ask::of(&json!({"model": self.session.model})), "resp_");
        let (item_id, text) = (format!("msg_{}", says.id), says.text());
        let response = |status: &str, output: Value, usage: Value| {
            json!({"object": "realtime.response", "id": says.id, "status": status, "status_details": null,
                   "output": output, "output_modalities": ["text"], "usage": usage})
        };
        let item = |status: &str, content: Value| {
            json!({"object": "realtime.item", "id": item_id, "type": "message", "status": status, "role": "assistant",
                   "content": content})
        };
        let part = |text: &str| json!({"type": "text", "text": text});
        let at = json!({"response_id": says.id, "item_id": item_id, "output_index": 0, "content_index": 0});
        let with = |word: &str, key: &str, value: Value| {
            let mut event = at.clone();
            (event["type"], event[key]) = (word.into(), value);
            event
        };
        self.say(json!({"type": "response.created", "response": response("in_progress", json!([]), Value::Null)}))
            .await?;
        self.say(with("response.output_item.added", "item", item("in_progress", json!([])))).await?;
        self.say(with("response.content_part.added", "part", part(""))).await?;
        let mut wait = script.ttft;
        for (at, piece) in says.pieces.iter().enumerate() {
            if matches!(script.fault, Fault::Cut(_, At::After(after)) if at >= after as usize) {
                return Err(Error::ConnectionClosed);
            }
            pause(wait).await;
            wait = script.gap;
            self.say(with("response.output_text.delta", "delta", piece.as_str().into())).await?;
        }
        self.say(with("response.output_text.done", "text", text.as_str().into())).await?;
        self.say(with("response.content_part.done", "part", part(&text))).await?;
        let done = item("completed", json!([part(&text)]));
        self.say(with("response.output_item.done", "item", done.clone())).await?;
        let (input, output) = (says.prompt_tokens, says.tokens);
        let usage = json!({"total_tokens": input + output, "input_tokens": input, "output_tokens": output});
        self.say(json!({"type": "response.done", "response": response("completed", json!([done]), usage)})).await
    }
}

async fn pause(wait: Duration) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}
