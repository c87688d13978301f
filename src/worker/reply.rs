//! What the client is sent in front of a body: status, fields, framing; and the answers that are Ringway's own.

use super::connection::After;
use super::exchange::{Scene, Stop, write_until};
use super::state::Worker;
use crate::base::Dialect;
use crate::base::reject::Reject;
use crate::listener::client::Client;
use crate::telemetry::{EndedBy, State};
use crate::upstream::http1::{AnswerHead, Content};
use crate::wire;
use crate::wire::coding;
use crate::wire::http1::{Framing, write_content_length, write_header};

/// What our own answers are: for this caller, now, and what they say they are.
const OWN: &[u8] = b"content-type: application/json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n";

impl Scene<'_> {
    /// Begins an answer in `out`: its head, for a body framed as `framing`.
    pub fn write_head(&mut self, out: &mut Vec<u8>, head: &AnswerHead, framing: Framing) {
        self.record.status = head.status;
        self.client.begin_head(out, head.status);
        out.extend_from_slice(&head.fields);
        if head.status >= 400 {
            out.extend_from_slice(b"x-ringway-error-origin: upstream\r\n");
        }
        if head.content == Content::Events {
            // nginx in front of us would else hold the events back.
            out.extend_from_slice(b"x-accel-buffering: no\r\n");
        }
        if !head.dated {
            self.worker.date.write(&self.worker.clock, out);
        }
        self.end_head(out, framing);
    }

    /// Begins an answer in `out` that makes the connection a WebSocket: its head, and `accept` in it where its HTTP knows
    /// that.
    pub fn write_switch(&mut self, out: &mut Vec<u8>, head: &AnswerHead, accept: &[u8]) {
        let is_http2 = self.client.is_http2();
        self.record.status = if is_http2 { 200 } else { 101 };
        self.client.begin_head(out, self.record.status);
        out.extend_from_slice(&head.fields);
        if !head.dated {
            self.worker.date.write(&self.worker.clock, out);
        }
        self.write_own(out);
        if !is_http2 {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ");
            out.extend_from_slice(accept);
            out.extend_from_slice(b"\r\n");
        }
        self.client.end_head(out);
    }

    /// What every answer says that a provider's does not.
    fn write_own(&self, out: &mut Vec<u8>) {
        // The id was checked when it was taken over.
        let _ = write_header(out, "x-request-id", self.intake.request_id.as_bytes());
        out.extend_from_slice(&self.intake.lines);
        if let Some(lines) = &self.client.lines {
            out.extend_from_slice(lines);
        }
    }

    fn end_head(&mut self, out: &mut Vec<u8>, framing: Framing) {
        match framing {
            Framing::Length(length) => write_content_length(out, length),
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        self.write_own(out);
        self.promised = self.keeps_alive() && framing != Framing::UntilClose;
        if self.client.is_http2() {
            // Not a word about the connection: it is not this exchange's.
        } else if !self.promised {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.intake.is_http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        self.client.end_head(out);
    }

    /// Answers with `json`, which no provider was asked for.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub async fn answer_ourselves(&mut self, json: Vec<u8>) -> Result<After, Stop> {
        self.record.status = 200;
        let mut out = Vec::with_capacity(384 + json.len());
        self.client.begin_head(&mut out, 200);
        out.extend_from_slice(OWN);
        self.worker.date.write(&self.worker.clock, &mut out);
        self.end_head(&mut out, Framing::Length(json.len() as u64));
        if !self.intake.is_head() {
            out.extend_from_slice(&json);
        }
        self.send_whole(out).await
    }

    /// Answers a browser's question before a page's request.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub async fn answer_preflight(&mut self) -> Result<After, Stop> {
        self.record.status = 204;
        let mut out = Vec::with_capacity(256 + self.intake.lines.len());
        self.client.begin_head(&mut out, 204);
        self.worker.date.write(&self.worker.clock, &mut out);
        self.end_head(&mut out, Framing::None);
        self.send_whole(out).await
    }

    async fn send_whole(&mut self, out: Vec<u8>) -> Result<After, Stop> {
        self.client.timer.set(self.write_until(self.worker.clock.now()));
        self.client.end_with_next(!self.keeps_alive());
        self.client.write(out).await.map_err(Stop::from)?;
        self.record.timings.written = self.mark();
        (self.record.state, self.record.ended_by) = (State::Complete, EndedBy::Completion);
        Ok(if self.keeps_alive() { After::KeepAlive } else { After::Linger })
    }
}

/// A no, and to whom.
pub struct Refusal<'a> {
    pub reject: &'a Reject,
    pub dialect: Dialect,
    pub request_id: &'a str,
    pub is_head: bool,
    pub close: bool,
    /// See [`Intake::lines`](super::intake::Intake::lines).
    pub lines: &'a [u8],
}

/// Says no in the shape of the path's dialect.
pub async fn refuse(worker: &Worker, client: &mut Client, refusal: &Refusal<'_>) -> After {
    let Refusal { reject, dialect, request_id, is_head, close, lines } = *refusal;
    let body = wire::error_body(dialect, reject);
    let mut out = Vec::with_capacity(384 + lines.len() + body.len());
    client.begin_head(&mut out, reject.status);
    out.extend_from_slice(OWN);
    worker.date.write(&worker.clock, &mut out);
    out.extend_from_slice(b"x-ringway-error-origin: ");
    out.extend_from_slice(reject.origin.as_str().as_bytes());
    out.extend_from_slice(b"\r\n");
    write_content_length(&mut out, body.len() as u64);
    // The id was checked when it was taken over; the number cannot break its line.
    let _ = write_header(&mut out, "x-request-id", request_id.as_bytes());
    out.extend_from_slice(lines);
    if let Some(seconds) = reject.retry_after_s {
        let _ = write_header(&mut out, "retry-after", seconds.to_string().as_bytes());
    }
    if reject.status == 415 {
        let _ = write_header(&mut out, "accept-encoding", coding::TAKEN.as_bytes());
    }
    if reject.status == 426 {
        out.extend_from_slice(b"sec-websocket-version: 13\r\n");
        if !client.is_http2() {
            out.extend_from_slice(b"upgrade: websocket\r\nconnection: upgrade\r\n");
        }
    }
    if reject.status == 405 {
        out.extend_from_slice(b"allow: GET, HEAD, POST, PUT, PATCH, DELETE\r\n");
    }
    if let Some(lines) = &client.lines {
        out.extend_from_slice(lines);
    }
    if close && !client.is_http2() {
        out.extend_from_slice(b"connection: close\r\n");
    }
    client.end_head(&mut out);
    client.end_with_next(close);
    if !is_head {
        out.extend_from_slice(&body);
    }
    client.timer.set(write_until(worker, worker.clock.now()));
    match client.write(out).await {
        Ok(_) if close => After::Linger,
        Ok(_) => After::KeepAlive,
        Err(_) => After::Close,
    }
}
