//! A connection of HTTP/2 to the gateway that carries many inputs, each with a plain request and a PING behind it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::common::http2::{
    ACK, CONTINUATION, DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, field, frame,
    head, status_of,
};

/// What has become of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    pub status: u16,
    pub body: Vec<u8>,
    /// True if the answer has ended as it should.
    pub whole: bool,
    pub reset: bool,
}

impl Said {
    pub fn is_over(&self) -> bool {
        self.whole || self.reset
    }
}

/// How an exchange of two streams went on.
pub struct Outcome {
    pub first: Said,
    pub canary: Said,
    /// False if the connection has ended, or nothing came any more.
    pub goes_on: bool,
    /// True if the gateway said something that is no frame of HTTP/2.
    pub garbage: bool,
}

pub struct Wire {
    stream: TcpStream,
    held: Vec<u8>,
    next: u32,
    /// What has not come by then is waited for no longer: a frame whose length is wrong keeps all that follows.
    quiet: Duration,
}

impl Wire {
    pub async fn connect(address: SocketAddr, quiet: Duration) -> Wire {
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                // All ports are taken for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let _ = stream.set_nodelay(true);
        let mut wire = Wire { stream, held: Vec::new(), next: 1, quiet };
        let settings = [[0, 1, 0, 0, 0, 0], [0, 4, 0x7f, 0xff, 0xff, 0xff]].concat();
        let window = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
        let first = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(SETTINGS, 0, 0, &settings),
            frame(WINDOW_UPDATE, 0, 0, &window),
        ];
        let _ = wire.stream.write_all(&first.concat()).await;
        wire
    }

    /// The stream that the next input is to have.
    pub fn next_stream(&self) -> u32 {
        self.next
    }

    /// Sends the frames of an input and the plain request behind them, and waits for what becomes of both.
    pub async fn exchange(&mut self, bytes: &[u8], canary: &[u8]) -> Outcome {
        let (first, second) = (self.next, self.next + 2);
        self.next += 4;
        let ping = frame(PING, 0, 0, &u64::from(first).to_be_bytes());
        let _ = self.stream.write_all(&[bytes, canary, &ping].concat()).await;
        let mut outcome = Outcome { first: Said::default(), canary: Said::default(), goes_on: true, garbage: false };
        let mut is_read = false;
        while !(is_read && outcome.first.is_over() && outcome.canary.is_over()) {
            let Some(length) = self.frame_len() else {
                match tokio::time::timeout(self.quiet, self.stream.read_buf(&mut self.held)).await {
                    Ok(Ok(1..)) => continue,
                    Ok(_) => outcome.goes_on = false,
                    // It waits for the rest of a body: without it.
                    Err(_) if is_read && outcome.canary.is_over() => {
                        let _ = self.stream.write_all(&frame(RST_STREAM, 0, first, &8_u32.to_be_bytes())).await;
                    }
                    Err(_) => outcome.goes_on = false,
                }
                return outcome;
            };
            let all: Vec<u8> = self.held.drain(..length).collect();
            let (kind, flags, payload) = (all[3], all[4], &all[9..]);
            let stream = u32::from_be_bytes([all[5], all[6], all[7], all[8]]);
            let said = match stream {
                _ if stream == first => Some(&mut outcome.first),
                _ if stream == second => Some(&mut outcome.canary),
                _ => None,
            };
            match (kind, said) {
                (SETTINGS, _) if flags & ACK == 0 => {
                    let _ = self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
                }
                (PING, _) if flags & ACK == 0 => {
                    let _ = self.stream.write_all(&frame(PING, ACK, 0, payload)).await;
                }
                (PING, _) => is_read |= payload == u64::from(first).to_be_bytes(),
                (GOAWAY, _) => outcome.goes_on = false,
                (RST_STREAM, Some(said)) => said.reset = true,
                (HEADERS, Some(said)) if said.whole => outcome.garbage = true,
                // Trailers end it.
                (HEADERS, Some(said)) if said.status >= 200 => {
                    said.whole = flags & END_STREAM != 0;
                    outcome.garbage |= !said.whole;
                }
                (HEADERS, Some(said)) => {
                    said.status = status_of(payload);
                    said.whole = flags & END_STREAM != 0;
                }
                (DATA, Some(said)) if said.whole || said.status < 200 => outcome.garbage = true,
                (DATA, Some(said)) => {
                    said.body.extend(payload);
                    said.whole = flags & END_STREAM != 0;
                }
                (kind, _) if kind > CONTINUATION => outcome.garbage = true,
                _ => {}
            }
        }
        outcome
    }

    fn frame_len(&self) -> Option<usize> {
        let head = self.held.get(..9)?;
        let length = 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        (self.held.len() >= length).then_some(length)
    }
}

/// A GET without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", path)];
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect();
    head(stream, &block, true)
}
