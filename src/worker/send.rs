//! Sends a request to an endpoint: its head as that endpoint is to see it, and its body, whole or as it comes.
//!
//! The endpoint may answer before it has all of it; then sending ends, and the answer says why.

mod pass;

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;

use super::attempt::{Failed, interrupted, upgrade};
use super::body::Body;
use super::coded;
use super::exchange::{Call, Scene, Stop, Wait};
use crate::base::reject::Reject;
use crate::config::Model;
use crate::routing::Candidate;
use crate::upstream::Connection;
use crate::upstream::http1::Ask;
use crate::wire::http1::{Decoder, Framing, begin_chunk, end_chunk, last_chunk};
use crate::wire::multipart::Watch;
use crate::wire::request::{self, Patches};
use pass::Passed;

/// What we say in a request's head beside the client's fields; should it be more, the buffer grows.
const OWN_FIELDS_BYTES: usize = 512;

/// A request up to this size goes out in one write, head and body; a larger one in pieces of this size.
const WRITE_BYTES: usize = 128 * 1024;

/// Sends the request. False if the endpoint began to answer before it had all of it.
pub(super) async fn send(
    scene: &mut Scene<'_>,
    call: &mut Call,
    model: &Model,
    candidate: Candidate<'_>,
    connection: &mut Connection,
) -> Result<bool, Failed> {
    // Requests for streams seldom come together, and the one that comes alone goes out sooner and cheaper this way.
    let eager = call.scan.as_ref().is_some_and(|scan| scan.stream);
    let mut sender = Sender { scene, model, connection, eager, unread: false };
    let renamed = sender.write_head(call, candidate)?;
    match &mut call.body {
        body @ (Body::Here(_) | Body::Held(_)) => sender.send_whole(body, renamed).await,
        Body::Streamed { decoder, ahead, watch, .. } => {
            let Renamed { mut out, patches } = renamed;
            let mut first = std::mem::take(ahead);
            if let Some(patches) = patches {
                first = patches.pieces(&first).collect::<Vec<_>>().concat();
            }
            sender.send_stream(&mut out, first, decoder, watch).await
        }
    }
}

/// A request's head, and how its body is changed on the way.
struct Renamed {
    out: Vec<u8>,
    patches: Option<Patches>,
}

struct Sender<'s, 'a> {
    scene: &'s mut Scene<'a>,
    model: &'s Model,
    connection: &'s mut Connection,
    /// True if what the socket takes is sent without waiting for the turn's end.
    eager: bool,
    /// True if nothing of the client is read while we write, so that the rest may pass unseen.
    unread: bool,
}

impl Sender<'_, '_> {
    /// Writes the head for this candidate, whose name for the model may differ from the client's.
    fn write_head(&mut self, call: &Call, candidate: Candidate<'_>) -> Result<Renamed, Failed> {
        let scene = &*self.scene;
        let provider = scene.worker.config().provider_of(candidate.endpoint);
        let patches = match (&call.scan, &call.form_model, candidate.model) {
            (Some(scan), ..) => {
                let ask_for_usage = provider.include_usage && scene.intake.api.takes_include_usage();
                Some(request::rewrite(scan, candidate.model, ask_for_usage))
            }
            (None, Some(range), Some(name)) => Some(Patches::one(range.clone(), name.as_bytes().to_vec())),
            _ => None,
        };
        let framing = match &call.body {
            Body::Here(_) if scene.intake.framing == Framing::None => Framing::None,
            Body::Here(range) => Framing::Length(patched_len(&patches, range.len()) as u64),
            Body::Held(bytes) => Framing::Length(patched_len(&patches, bytes.len()) as u64),
            Body::Streamed { length: Some(length), ahead, .. } => {
                // Only what has come is patched.
                Framing::Length(length - ahead.len() as u64 + patched_len(&patches, ahead.len()) as u64)
            }
            Body::Streamed { .. } => Framing::Chunked,
        };
        let query = match (&call.query_model, candidate.model, scene.intake.query.as_deref()) {
            (true, Some(name), Some(query)) => Some(request::rename_in_query(query, name)),
            _ => None,
        };
        let accept_encoding = coded::accept_encoding(scene, call, candidate);
        let body_bytes = match (&call.body, framing) {
            (Body::Here(_) | Body::Held(_), Framing::Length(length)) => WRITE_BYTES.min(length as usize),
            _ => 0,
        };
        let head_bytes = scene.intake.fields.len() + call.path.len() + OWN_FIELDS_BYTES;
        let mut out = scene.worker.buffers.take_for(head_bytes + body_bytes);
        let ask = Ask {
            method: &scene.intake.method,
            path: &call.path,
            query: query.as_deref().or(scene.intake.query.as_deref()),
            dialect: scene.intake.dialect,
            fields: &scene.intake.fields,
            request_id: &scene.intake.request_id,
            framing,
            accept_encoding: accept_encoding.as_deref(),
            upgrade: upgrade(call, scene.intake),
        };
        self.connection
            .begin_request(&mut out, &ask)
            .map_err(|why| Stop::from(Reject::client(400, "malformed_request", why)))?;
        Ok(Renamed { out, patches })
    }

    /// Sends the head and a body that is here; in one write if it is small.
    async fn send_whole(&mut self, body: &Body, renamed: Renamed) -> Result<bool, Failed> {
        let Renamed { mut out, patches } = renamed;
        // Where the next piece begins: the body is looked at anew after each write, for it lies in the client's input.
        let mut at = 0;
        loop {
            let bytes = match body {
                Body::Here(range) => &self.scene.client.bytes()[range.clone()],
                Body::Held(bytes) => bytes,
                Body::Streamed { .. } => &[],
            };
            let more = copy_from(&patches, bytes, &mut at, &mut out);
            if !more {
                self.connection.end_with_next();
            }
            let (sent, buffer) = self.write(out, more || at > WRITE_BYTES).await?;
            if !sent || !more {
                self.scene.worker.buffers.give(buffer);
                return Ok(sent);
            }
            out = buffer;
            out.clear();
        }
    }

    /// Sends the head, what has come of the body, and the rest as it comes.
    async fn send_stream(
        &mut self,
        out: &mut Vec<u8>,
        first: Vec<u8>,
        decoder: &mut Decoder,
        watch: &mut Option<Box<Watch>>,
    ) -> Result<bool, Failed> {
        let is_http2 = self.connection.is_http2();
        let chunked = decoder.remaining().is_none() && !is_http2;
        let mut piece = first;
        loop {
            let looked_at = piece.len();
            let done = self.scene.decode(decoder, &mut piece)?;
            if let Some(watch) = watch {
                watch.push(&piece[looked_at..]).map_err(|error| Stop::from(Reject::from(error)))?;
            }
            if !chunked {
                out.append(&mut piece);
            } else if !piece.is_empty() {
                begin_chunk(out, piece.len());
                out.append(&mut piece);
                end_chunk(out);
            }
            if done {
                let trailers = match decoder.trailers() {
                    [] => self.scene.client.trailers(),
                    lines => lines,
                };
                if chunked {
                    last_chunk(out, trailers);
                }
                self.connection.set_trailers(trailers);
                self.connection.end_with_next();
            }
            if !out.is_empty() || (done && is_http2) {
                let (sent, buffer) = self.write(std::mem::take(out), true).await?;
                if !sent {
                    return Ok(false);
                }
                *out = buffer;
                out.clear();
            }
            if done {
                return Ok(true);
            }
            if watch.is_none()
                && let Some(passage) = self.passage(decoder).await
            {
                match self.pass(passage, decoder).await? {
                    Passed::All => return Ok(true),
                    Passed::Answered => return Ok(false),
                    Passed::Some => {}
                }
            }
            // While we wrote, more may have been read already; waiting would then be for what comes after it.
            if self.scene.client.bytes().is_empty() && !self.more_or_answer().await? {
                return Ok(false);
            }
        }
    }

    /// Writes to the endpoint. With `early`, an answer that begins meanwhile ends the writing: false.
    async fn write(&mut self, mut bytes: Vec<u8>, early: bool) -> Result<(bool, Vec<u8>), Failed> {
        self.scene.record.upstream_sent_bytes += bytes.len() as u64;
        // What goes out in several writes would leave others, and an early answer, waiting for the last of them.
        if self.eager && !early {
            match self.connection.write_now(&mut bytes) {
                Ok(None) => return Ok((true, bytes)),
                Ok(Some(sent)) => drop(bytes.drain(..sent)),
                // As below.
                Err(_) => return Ok((false, Vec::new())),
            }
        }
        self.scene.start_timer(Wait::FirstToken, self.model);
        let limits = &self.scene.worker.head_limits;
        let written = {
            let write = pin!(self.connection.write(bytes, limits, early));
            match self.unread {
                true => self.scene.client.watch_unread(write).await,
                false => self.scene.client.watch(write).await,
            }
        };
        match written {
            Ok(Some((Ok(()), buffer))) => Ok((true, buffer)),
            // An endpoint that wants no more of a body may answer and close: the answer says why. If there is none,
            // reading it tells how the connection ended.
            Ok(Some((Err(_), _))) | Ok(None) => Ok((false, Vec::new())),
            Err(interrupt) => {
                Err(interrupted(self.scene, Wait::FirstToken, self.model, self.connection, interrupt).into())
            }
        }
    }

    /// Waits for more of the client's body; false if the endpoint answers first.
    async fn more_or_answer(&mut self) -> Result<bool, Failed> {
        let limits = &self.scene.worker.head_limits;
        let connection = &mut *self.connection;
        let mut more = pin!(self.scene.more());
        let outcome = poll_fn(|cx| match more.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|()| true)),
            Poll::Pending if connection.poll_early(limits, cx) => Poll::Ready(Ok(false)),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        Ok(outcome)
    }
}

fn patched_len(patches: &Option<Patches>, len: usize) -> usize {
    patches.as_ref().map_or(len, |patches| patches.len_after(len))
}

/// Appends the next piece of the patched body to `out`, from `at` on; true if more is left.
fn copy_from(patches: &Option<Patches>, body: &[u8], at: &mut usize, out: &mut Vec<u8>) -> bool {
    let total = patched_len(patches, body.len());
    let until = total.min(*at + WRITE_BYTES);
    let wanted: Range<usize> = *at..until;
    out.reserve(wanted.len());
    let mut append = |start: usize, piece: &[u8]| {
        let from = wanted.start.clamp(start, start + piece.len()) - start;
        let to = wanted.end.clamp(start, start + piece.len()) - start;
        out.extend_from_slice(&piece[from..to]);
    };
    match patches {
        None => append(0, body),
        Some(patches) => {
            let mut start = 0;
            for piece in patches.pieces(body) {
                append(start, piece);
                start += piece.len();
            }
        }
    }
    *at = until;
    until < total
}
