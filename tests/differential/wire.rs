//! A client that sends what it is told and reads answers as they are, without a panic: what is odd is for the caller.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// True if it comes from a recorder and not from someone in between.
    pub fn is_recorded(&self) -> bool {
        self.head.contains("x-recorder: yes")
    }

    /// True if it says that the connection ends.
    pub fn closes(&self) -> bool {
        self.head.to_ascii_lowercase().contains("\r\nconnection: close")
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// The connection has ended, between two answers.
    Ended,
    /// It ended within an answer.
    Cut,
    /// Nothing comes.
    Silent,
    /// What came is no answer.
    Garbage,
}

/// One connection.
pub struct Wire {
    pub stream: TcpStream,
    held: Vec<u8>,
}

impl Wire {
    pub fn connect(address: SocketAddr, patience: Duration) -> Wire {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(patience)).expect("a read timeout");
        stream.set_write_timeout(Some(patience)).expect("a write timeout");
        Wire { stream, held: Vec::new() }
    }

    /// Sends; a peer that has closed is no failure.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a byte at a time.
    pub fn drip(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    }

    pub fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next answer, interim ones passed over.
    pub fn answer(&mut self, to_head: bool) -> Result<Answer, Nothing> {
        loop {
            let answer = self.one(to_head)?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    fn one(&mut self, to_head: bool) -> Result<Answer, Nothing> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.held[..end]).into_owned();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let Some(status) = status else { return Err(Nothing::Garbage) };
        self.held.drain(..end + 4);
        let lower = head.to_ascii_lowercase();
        let value = |name: &str| lower.split("\r\n").find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        let mut body = Vec::new();
        if to_head || matches!(status, 100..=199 | 204 | 304) {
        } else if value("transfer-encoding:").is_some() {
            loop {
                let line = self.line()?;
                let Ok(size) = usize::from_str_radix(&line, 16) else { return Err(Nothing::Garbage) };
                let mut chunk = self.take(size + 2)?;
                if chunk.split_off(size) != b"\r\n" {
                    return Err(Nothing::Garbage);
                }
                body.extend(chunk);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = value("content-length:") {
            let Ok(length) = length.parse() else { return Err(Nothing::Garbage) };
            body = self.take(length)?;
        } else {
            while self.fill().is_ok() {}
            body = std::mem::take(&mut self.held);
        }
        Ok(Answer { status, head, body })
    }

    fn line(&mut self) -> Result<String, Nothing> {
        loop {
            if let Some(at) = self.held.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.held.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            self.fill()?;
        }
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, Nothing> {
        while self.held.len() < count {
            self.fill()?;
        }
        Ok(self.held.drain(..count).collect())
    }

    fn fill(&mut self) -> Result<(), Nothing> {
        let mut piece = [0; 16 << 10];
        match self.stream.read(&mut piece) {
            Ok(count) if count > 0 => {
                self.held.extend_from_slice(&piece[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Nothing::Silent),
            _ if self.held.is_empty() => Err(Nothing::Ended),
            _ => Err(Nothing::Cut),
        }
    }
}
