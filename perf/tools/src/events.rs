//! Event streams as a client sees them: where an event ends, when it was sent, whether the stream ended.

use memchr::{memchr, memmem};

/// One event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An event stamped by its sender, CLOCK_MONOTONIC nanoseconds.
    Stamped(u64),
    /// An event without a stamp.
    Plain,
    /// An error object.
    Error,
    /// The end mark of the stream: `[DONE]`, or Anthropic's `message_stop`.
    Done,
}

/// Splits a body into events, wherever its bytes are cut.
#[derive(Debug, Default)]
pub struct Scanner {
    line: Vec<u8>,
    data: Vec<u8>,
}

const STAMP: &[u8] = b"\"x_sent_ns\":";

impl Scanner {
    /// Takes bytes as they came and reports each event whose last byte is among them.
    pub fn feed(&mut self, mut bytes: &[u8], mut event: impl FnMut(Event)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.line.is_empty() {
                Self::take_line(&mut self.data, line, &mut event);
            } else {
                self.line.extend_from_slice(line);
                let whole = std::mem::take(&mut self.line);
                Self::take_line(&mut self.data, &whole, &mut event);
                self.line = whole;
                self.line.clear();
            }
        }
        self.line.extend_from_slice(bytes);
    }

    /// Forgets a half-read event.
    pub fn reset(&mut self) {
        self.line.clear();
        self.data.clear();
    }

    fn take_line(data: &mut Vec<u8>, line: &[u8], event: &mut impl FnMut(Event)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(value) = line.strip_prefix(b"data:") {
            data.extend_from_slice(value);
        } else if line.is_empty() && !data.is_empty() {
            event(classify(data));
            data.clear();
        }
    }
}

fn classify(data: &[u8]) -> Event {
    let data = data.trim_ascii();
    // The stamp counts first: an end mark may carry one as well, and each stamped event must be counted.
    if let Some(stamp) = stamp(data) {
        Event::Stamped(stamp)
    } else if data == b"[DONE]" || memmem::find(data, b"\"message_stop\"").is_some() {
        Event::Done
    } else if data.starts_with(b"{\"error\"") {
        Event::Error
    } else {
        Event::Plain
    }
}

fn stamp(data: &[u8]) -> Option<u64> {
    let after = data[memmem::find(data, STAMP)? + STAMP.len()..].trim_ascii_start();
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&after[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let stream = "data: {\"choices\":[],\"x_sent_ns\":123456789}\n\n: keep-alive\n\nevent: x\r\ndata: {\"a\":1}\r\n\r\n\
                      data: {\"x_sent_ns\": 7,\"a\":\"\"}\n\ndata: {\"error\":{}}\n\ndata: [DONE]\n\n";
        let expected = [Event::Stamped(123_456_789), Event::Plain, Event::Stamped(7), Event::Error, Event::Done];
        for cut in 0..=stream.len() {
            let mut scanner = Scanner::default();
            let mut got = Vec::new();
            scanner.feed(&stream.as_bytes()[..cut], |event| got.push(event));
            scanner.feed(&stream.as_bytes()[cut..], |event| got.push(event));
            assert_eq!(got, expected, "cut at {cut}");
        }
    }

    #[test]
    fn an_event_counts_only_when_it_is_whole() {
        let mut scanner = Scanner::default();
        let mut got = Vec::new();
        scanner.feed(b"data: {\"x_sent_ns\":5}\n", |event| got.push(event));
        assert!(got.is_empty());
        scanner.feed(b"\n", |event| got.push(event));
        assert_eq!(got, [Event::Stamped(5)]);
    }
}
