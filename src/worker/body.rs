//! A request's body: held whole if we must read it, streamed if not.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::coded::TURN_BYTES;
use super::exchange::{Scene, Stop, cut};
use super::intake::Media;
use super::state::Worker;
use crate::base::reject::Reject;
use crate::listener::client::Interrupt;
use crate::net::buf::READ_BYTES;
use crate::net::heap::{self, Foreign};
use crate::net::passage::Passage;
use crate::net::rt;
use crate::telemetry::State;
use crate::telemetry::log::{self, Limit};
use crate::wire::coding::{self, Caps, Fault};
use crate::wire::http1::{Decoder, Framing, Malformed};
use crate::wire::multipart::{Finder, FormError, Found, Watch};

/// So much of a body is held without asking whether there is memory for it.
const UNASKED_BYTES: usize = 64 << 10;

/// Room made for a body that was only announced; beyond it, room is made as the body comes.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// How often refusing for want of memory is said.
static FULL: Limit = Limit::new();

/// What of an encoded body is decoded at a time.
const PIECE_BYTES: usize = 16 << 10;

/// A form's model: its name, and where that lies in what was looked at.
pub type FormModel = (String, Range<usize>);

/// A request's body, as far as it has come.
pub enum Body {
    /// Whole, still where it was read: a part of the client's input.
    Here(Range<usize>),
    /// Whole, taken out of its chunks.
    Held(Vec<u8>),
    /// Still coming.
    Streamed {
        /// Follows it to its end.
        decoder: Decoder,
        /// What has come and was looked at already.
        ahead: Vec<u8>,
        /// Its whole length, where that was announced.
        length: Option<u64>,
        /// Looks at the rest of a form whose model was found.
        watch: Option<Box<Watch>>,
    },
}

impl Scene<'_> {
    /// Receives as much of the body as must be known before the request can be routed: JSON to its end, a form
    /// up to its model, of anything else nothing. Returns a form's model too.
    ///
    /// # Errors
    /// Too large, too slow, malformed, or the client left; or this worker has no memory for it.
    pub async fn receive(&mut self) -> Result<(Body, Option<FormModel>), Stop> {
        self.find_room(0)?;
        let head_len = self.intake.head_len;
        let body_bytes_max = self.worker.config().limits.body_bytes_max;
        match (self.intake.framing, &self.intake.media) {
            (Framing::None | Framing::Length(0), _) => Ok((Body::Here(head_len..head_len), None)),
            (_, Media::Json | Media::Multipart(_)) if self.intake.encoding != Ok(None) => self.receive_encoded().await,
            (Framing::Length(length), Media::Json) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > body_bytes_max {
                    return Err(too_large(body_bytes_max).into());
                }
                self.say_continue().await?;
                let (whole, mut room) = (head_len + length, 0);
                while self.client.bytes().len() < whole {
                    let here = self.client.bytes().len();
                    if room < whole && room < here + READ_BYTES {
                        let more = (whole - here).min(here.max(RESERVE_BYTES_MAX));
                        self.find_room(more)?;
                        self.client.reserve(more);
                        room = here + more;
                    }
                    self.more().await?;
                }
                self.client.own = whole;
                Ok((Body::Here(head_len..head_len + length), None))
            }
            (_, Media::Json) => {
                let mut decoder = self.begin_decoding();
                self.say_continue().await?;
                let mut held = Vec::new();
                while !self.decode(&mut decoder, &mut held)? {
                    if held.len() > body_bytes_max {
                        return Err(too_large(body_bytes_max).into());
                    }
                    self.more().await?;
                }
                if held.len() > body_bytes_max {
                    return Err(too_large(body_bytes_max).into());
                }
                Ok((Body::Held(held), None))
            }
            (framing, Media::Multipart(boundary)) => {
                let mut finder = Finder::new(boundary);
                let mut decoder = self.begin_decoding();
                self.say_continue().await?;
                let length = announced(framing);
                let mut ahead = Vec::new();
                loop {
                    let done = self.decode(&mut decoder, &mut ahead)?;
                    let found = finder.find(&ahead).map_err(Reject::from)?;
                    let model = match found {
                        Found::Model { name, range } => Some((name.to_owned(), range)),
                        Found::NeedMore if !done => None,
                        // A form that never ends: a lenient provider may still read a model in it.
                        Found::NeedMore => return Err(Reject::from(FormError::Malformed).into()),
                        Found::Absent => return Ok((streamed(decoder, ahead, length), None)),
                    };
                    if model.is_some() {
                        // A second model may still follow, and the provider might take that one.
                        let watch = finder.watch(&ahead).map_err(Reject::from)?;
                        let mut body = streamed(decoder, ahead, length);
                        if let Body::Streamed { watch: place, .. } = &mut body {
                            *place = Some(Box::new(watch));
                        }
                        return Ok((body, model));
                    }
                    // The model may stand behind the files, so they are held up to the bound.
                    if ahead.len() > body_bytes_max {
                        return Err(too_large(body_bytes_max).into());
                    }
                    self.more().await?;
                }
            }
            (framing, Media::Other) => {
                let decoder = self.begin_decoding();
                self.say_continue().await?;
                Ok((streamed(decoder, Vec::new(), announced(framing)), None))
            }
        }
    }

    /// Refuses what this worker has no memory for.
    fn find_room(&self, more: usize) -> Result<(), Stop> {
        if self.worker.has_memory_for(more) { Ok(()) } else { Err(no_room(self.worker)) }
    }

    /// Makes room in `held`, a body, for `more` bytes.
    fn make_room(&self, held: &mut Vec<u8>, more: usize) -> Result<(), Stop> {
        if held.len() >= UNASKED_BYTES && held.capacity() - held.len() < more {
            let more = held.len().max(more);
            self.find_room(more)?;
            held.reserve_exact(more);
        }
        Ok(())
    }

    /// Waits for more of the body.
    pub(super) async fn more(&mut self) -> Result<(), Stop> {
        let within = self.worker.config().client.body;
        let since = self.worker.clock.now();
        self.client.timer.set((since + within).min(self.total_until()));
        let outcome = self.client.fill().await;
        self.record.waited += self.worker.clock.now() - since;
        match outcome {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) if self.intake.framing == Framing::UntilClose => {
                self.body_ended = true;
                Ok(())
            }
            Ok(_) => Err(Stop::ClientGone),
            Err(Interrupt::ClientGone) => Err(Stop::ClientGone),
            Err(Interrupt::Deadline) => Err(self.late(within)),
        }
    }

    /// Nothing more of the body came within its time.
    fn late(&self, within: Duration) -> Stop {
        if self.worker.drain.is_over() {
            let (reject, state) = cut();
            return Stop::Reject(reject, state);
        }
        too_slow(within).into()
    }

    /// Waits for more of the body, up to `most` bytes, and lets it into `passage`: how much, or 0 if only reading tells what there
    /// is. `None` once `early` says so.
    pub(super) async fn more_unseen(
        &mut self,
        passage: &mut Passage,
        most: u64,
        mut early: impl FnMut(&mut Context<'_>) -> bool,
    ) -> Result<Option<u64>, Stop> {
        let within = self.worker.config().client.body;
        let since = self.worker.clock.now();
        let timer = &self.client.timer;
        timer.set((since + within).min(self.total_until()));
        let mut fill = pin!(passage.fill(most));
        let outcome = poll_fn(|cx| match fill.as_mut().poll(cx) {
            Poll::Ready(came) => Poll::Ready(Ok(Some(came as u64))),
            Poll::Pending if early(cx) => Poll::Ready(Ok(None)),
            Poll::Pending if timer.poll_expired(cx) => Poll::Ready(Err(Interrupt::Deadline)),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.record.waited += self.worker.clock.now() - since;
        outcome.map_err(|_| self.late(within))
    }

    /// `n` bytes of the body have passed unseen.
    pub(super) fn skip(&mut self, decoder: &mut Decoder, n: u64) {
        decoder.skip(n);
        self.record.request_bytes += n;
        self.body_received = decoder.is_done();
    }

    /// Takes body bytes that have come out of the client's input; true at the body's end.
    pub(super) fn decode(&mut self, decoder: &mut Decoder, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let malformed =
            |malformed: Malformed| Stop::from(Reject::client(malformed.status, "malformed_body", malformed.reason));
        while !decoder.is_done() && !self.client.bytes().is_empty() {
            let piece = decoder.decode(self.client.bytes()).map_err(malformed)?;
            self.record.request_bytes += piece.data.len() as u64;
            self.make_room(out, piece.data.len())?;
            out.extend_from_slice(&self.client.bytes()[piece.data]);
            self.client.consume(piece.consumed);
        }
        if self.body_ended {
            decoder.eof().map_err(malformed)?;
        }
        self.body_received = decoder.is_done();
        Ok(decoder.is_done())
    }

    /// Leaves the head behind, since the body will be consumed as it comes.
    fn begin_decoding(&mut self) -> Decoder {
        self.client.consume(self.intake.head_len);
        self.head_consumed = true;
        let decoder = Decoder::request(self.intake.framing);
        // Though all of it may be here: what is not decoded must never be taken for the next request.
        self.body_received = decoder.is_done();
        decoder
    }

    /// Receives an encoded body to its end, and undoes its codings: its model must be read, and the provider is sent it
    /// plain.
    async fn receive_encoded(&mut self) -> Result<(Body, Option<FormModel>), Stop> {
        let limits = &self.worker.config().limits;
        let body_bytes_max = limits.body_bytes_max;
        let Ok(Some(codings)) = self.intake.encoding else {
            let taken = coding::TAKEN;
            let text = format!("The body's Content-Encoding is not known here: send it plain, or as one of {taken}.");
            return Err(Reject::client(415, "unsupported_content_encoding", text).into());
        };
        if announced(self.intake.framing).is_some_and(|length| length > body_bytes_max as u64) {
            return Err(too_large(body_bytes_max).into());
        }
        let bytes_max = limits.decoded_bytes_max.min(body_bytes_max);
        let caps = Caps { bytes_max: bytes_max as u64, ratio_max: limits.decoded_ratio_max };
        let mut undoing = coding::Decoder::new(codings, caps);
        let mut foreign = Foreign::default();
        let mut decoder = self.begin_decoding();
        self.say_continue().await?;
        let (mut came, mut held) = (0, Vec::new());
        loop {
            let mut encoded = Vec::new();
            let done = self.decode(&mut decoder, &mut encoded)?;
            came += encoded.len();
            // What comes to nothing may still come for ever.
            if came > body_bytes_max {
                return Err(too_large(body_bytes_max).into());
            }
            self.undo(&mut undoing, &encoded, &mut held).await?.map_err(|fault| unreadable(fault, bytes_max))?;
            foreign.set(undoing.foreign_bytes());
            if done {
                break;
            }
            self.more().await?;
        }
        undoing.finish().map_err(|fault| unreadable(fault, bytes_max))?;
        let model = match &self.intake.media {
            Media::Multipart(boundary) => form_model(boundary, &held)?,
            _ => None,
        };
        Ok((Body::Held(held), model))
    }

    /// Appends what `encoded` decodes to, a turn's worth at a time.
    async fn undo(
        &mut self,
        undoing: &mut coding::Decoder,
        encoded: &[u8],
        held: &mut Vec<u8>,
    ) -> Result<Result<(), Fault>, Stop> {
        let (mut at, mut more, mut budget) = (0, false, TURN_BYTES);
        while at < encoded.len() || more {
            if budget == 0 {
                budget = TURN_BYTES;
                self.client.timer.set(self.total_until());
                match self.client.watch(pin!(rt::later())).await {
                    Ok(()) => {}
                    Err(Interrupt::ClientGone) => return Err(Stop::ClientGone),
                    Err(Interrupt::Deadline) => {
                        let (reject, state) = cut();
                        return Err(Stop::Reject(reject, state));
                    }
                }
            }
            self.make_room(held, PIECE_BYTES)?;
            let len = held.len();
            held.resize(len + PIECE_BYTES, 0);
            let outcome = undoing.decode(&encoded[at..], &mut held[len..]);
            held.truncate(len + outcome.map_or(0, |step| step.produced));
            let step = match outcome {
                Ok(step) => step,
                Err(fault) => return Ok(Err(fault)),
            };
            at += step.consumed;
            more = step.more;
            budget = budget.saturating_sub(step.work + 64);
        }
        Ok(Ok(()))
    }

    /// Tells a client that waits for it to send the body; one that has begun to send does not wait.
    async fn say_continue(&mut self) -> Result<(), Stop> {
        let already = if self.head_consumed { 0 } else { self.intake.head_len };
        if !self.intake.expects_continue || self.client.bytes().len() > already {
            return Ok(());
        }
        self.client.timer.set(self.write_until(self.worker.clock.now()));
        self.client.say_continue().await.map_err(Stop::from)
    }
}

/// The model of a form that is here to its end.
fn form_model(boundary: &[u8], form: &[u8]) -> Result<Option<FormModel>, Reject> {
    let mut finder = Finder::new(boundary);
    match finder.find(form)? {
        Found::Model { name, range } => {
            let model = (name.to_owned(), range);
            // A second model may still follow, and the provider might take that one.
            finder.watch(form)?;
            Ok(Some(model))
        }
        // A form that never ends: a lenient provider may still read a model in it.
        Found::NeedMore => Err(FormError::Malformed.into()),
        Found::Absent => Ok(None),
    }
}

/// What the client is told of an encoded body that cannot be decoded, or not within the bounds.
fn unreadable(fault: Fault, bytes_max: usize) -> Stop {
    let text = format!("The body cannot be read: {fault}.");
    match fault {
        Fault::Corrupt | Fault::Truncated => Reject::client(400, "malformed_body", text),
        Fault::Size => too_large(bytes_max),
        Fault::Window | Fault::Ratio => Reject::client(413, "body_too_large", text),
    }
    .into()
}

fn announced(framing: Framing) -> Option<u64> {
    match framing {
        Framing::Length(length) => Some(length),
        _ => None,
    }
}

fn streamed(decoder: Decoder, ahead: Vec<u8>, length: Option<u64>) -> Body {
    if decoder.is_done() { Body::Held(ahead) } else { Body::Streamed { decoder, ahead, length, watch: None } }
}

#[cold]
fn no_room(worker: &Worker) -> Stop {
    // What others have freed may not have left the process yet.
    worker.buffers.collect_large();
    worker.board.memory_refusals.add(1);
    worker.board.memory.set(heap::held() as u64);
    FULL.say(|| {
        let text = "requests are refused: this worker holds as much as it may (limits.memory_max)";
        let mib = |bytes: usize| format!("{}MiB", bytes >> 20);
        let event = log::warn("worker", text).with("worker", worker.id.0);
        event.with("held", mib(heap::held())).with("memory_max", mib(worker.shared.memory_max))
    });
    let text = "Ringway holds as much of requests and answers as it may (limits.memory_max). Try again in a moment.";
    let mut reject = Reject::gateway(503, "memory_exhausted", text);
    reject.retry_after_s = Some(1);
    reject.into()
}

fn too_large(max: usize) -> Reject {
    Reject::client(
        413,
        "body_too_large",
        format!("The body is larger than {max} bytes, which is what this gateway takes."),
    )
}

fn too_slow(within: Duration) -> Reject {
    Reject::client(408, "body_timeout", format!("No byte of the body came within {within:?}."))
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Stop {
        Stop::Reject(reject, State::Refused)
    }
}
