//! The demo's client: one streamed chat at a time over one kept connection, and what is measured on it.
//!
//! It reads raw bytes from a socket and costs the same whether the gateway is in between or not.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mock::stats::monotonic_ns;
use crate::wire::http1::{Decoder, HeadLimits, HeadSpace, parse_response};
use crate::wire::sse::Framer;

/// What an answer may hold unread before it is given up, in bytes.
const INPUT_BYTES_MAX: usize = 1 << 20;
/// How long one answer may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection to a provider, or to the gateway in front of it.
pub struct Client {
    stream: TcpStream,
    address: SocketAddr,
    input: Vec<u8>,
}

/// What was seen of measured streams; times in nanoseconds.
#[derive(Debug, Default)]
pub struct Seen {
    /// From the request written to the first content read, by stream.
    pub ttft_ns: Vec<u64>,
    /// From each further event leaving the provider to its being read.
    pub delay_ns: Vec<u64>,
    /// Events of every kind.
    pub events: u64,
}

impl Seen {
    /// Adds what another stream saw.
    pub fn add(&mut self, other: Seen) {
        self.ttft_ns.extend(other.ttft_ns);
        self.delay_ns.extend(other.delay_ns);
        self.events += other.events;
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// As the socket has it.
    pub async fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, address, input: Vec::with_capacity(16 * 1024) })
    }

    /// Asks for a streamed chat that behaves as `script` says (see `ringway mock --help`), and hands the data of
    /// each event to `each` with the time at which its last byte was read.
    ///
    /// # Errors
    /// A sentence about what went wrong.
    pub async fn chat(&mut self, body: &str, script: &str, mut each: impl FnMut(&[u8], u64)) -> Result<(), String> {
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             x-mock: {script}\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).await.map_err(|error| format!("it cannot be sent: {error}"))?;
        let mut decoder = self.head().await?;
        let mut framer = Framer::new();
        let mut events = Vec::new();
        let mut now = monotonic_ns();
        loop {
            let mut at = 0;
            while !decoder.is_done() && at < self.input.len() {
                let rest = &self.input[at..];
                let piece = decoder.decode(rest).map_err(|fault| format!("the answer is malformed: {fault}"))?;
                events.extend_from_slice(&rest[piece.data]);
                at += piece.consumed;
            }
            self.input.drain(..at);
            let mut taken = 0;
            while let Some(frame) = framer.next(&events[taken..]) {
                if frame.has_data {
                    each(&frame.data, now);
                }
                taken += frame.len;
            }
            events.drain(..taken);
            if decoder.is_done() {
                return Ok(());
            }
            now = self.fill().await?;
        }
    }

    /// One measured stream.
    ///
    /// # Errors
    /// As [`Client::chat`].
    pub async fn measure(&mut self, body: &str, script: &str) -> Result<Seen, String> {
        let mut seen = Seen::default();
        let asked = monotonic_ns();
        let each = |data: &[u8], now: u64| {
            seen.events += 1;
            if !has_content(data) {
                return;
            }
            if seen.ttft_ns.is_empty() {
                seen.ttft_ns.push(now.saturating_sub(asked));
            } else if let Some(sent) = sent_ns(data) {
                seen.delay_ns.push(now.saturating_sub(sent));
            }
        };
        self.chat(body, script, each).await?;
        if seen.ttft_ns.is_empty() { Err("the stream had no content".to_owned()) } else { Ok(seen) }
    }

    /// Reads the head of an answer.
    async fn head(&mut self) -> Result<Decoder, String> {
        loop {
            let mut space = HeadSpace::new();
            let parsed = parse_response(&self.input, &HeadLimits::default(), false, &mut space);
            if let Some(head) = parsed.map_err(|fault| format!("the answer is malformed: {fault}"))? {
                let (len, status, framing) = (head.len, head.status, head.framing);
                if status != 200 {
                    let text = String::from_utf8_lossy(&self.input[len..]).into_owned();
                    return Err(format!("the answer was {status}: {text}"));
                }
                self.input.drain(..len);
                return Ok(Decoder::response(framing));
            }
            self.fill().await?;
        }
    }

    /// Reads more; returns when it came.
    async fn fill(&mut self) -> Result<u64, String> {
        if self.input.len() >= INPUT_BYTES_MAX {
            return Err("the answer holds more than this client takes".to_owned());
        }
        let read = tokio::time::timeout(SILENCE, self.stream.read_buf(&mut self.input)).await;
        match read {
            Ok(Ok(0)) => Err("the answer broke off".to_owned()),
            Ok(Ok(_)) => Ok(monotonic_ns()),
            Ok(Err(error)) => Err(format!("the answer broke off: {error}")),
            Err(_) => Err(format!("nothing came for {SILENCE:?}")),
        }
    }
}

/// True if the data of an event brings text, by its bytes alone: parsing would cost more than what is measured.
fn has_content(data: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"content\":\"";
    memchr::memmem::find(data, FIELD).is_some_and(|at| data.get(at + FIELD.len()).is_some_and(|byte| *byte != b'"'))
}

/// When the provider says that it sent the event (CLOCK_MONOTONIC, nanoseconds).
fn sent_ns(data: &[u8]) -> Option<u64> {
    const FIELD: &[u8] = b"\"x_sent_ns\":";
    let at = memchr::memmem::find(data, FIELD)? + FIELD.len();
    let digits = data.get(at..)?.trim_ascii_start();
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_stamps_are_told_by_their_bytes() {
        for (data, content, sent) in [
            (r#"{"choices":[{"delta":{"role":"assistant","content":""}}],"x_sent_ns":        12}"#, false, Some(12)),
            (
                r#"{"choices":[{"delta":{"content":"a"}}],"x_sent_ns":1234567890123456789}"#,
                true,
                Some(1234567890123456789),
            ),
            (r#"{"choices":[{"delta":{"content":"\""}}]}"#, true, None),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"x_sent_ns":}"#, false, None),
            ("[DONE]", false, None),
        ] {
            assert_eq!((has_content(data.as_bytes()), sent_ns(data.as_bytes())), (content, sent), "{data}");
        }
    }
}
