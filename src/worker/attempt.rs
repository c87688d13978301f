//! Tries endpoints until one has begun to answer: the commit point.
//!
//! An attempt ends when the first content has come, or an unstreamed answer is whole or too large to hold. Up
//! to there nothing was said to the client, so every failure is still an honest status. After it nothing here
//! can run again: the plan is gone.

use std::future::poll_fn;
use std::pin::pin;

use super::answer::Answer;
use super::body::Body;
use super::coded;
use super::exchange::{Call, Scene, Stop, Wait, length, mark};
use super::intake::Intake;
use super::send::send;
use super::state::Worker;
use crate::base::EndpointId;
use crate::base::clock::Instant;
use crate::base::reject::Reject;
use crate::config::Model;
use crate::listener::client::Interrupt;
use crate::net::buf::Buffers;
use crate::net::rt;
use crate::routing::{Candidate, Plan};
use crate::telemetry::{Phase, State, Timings};
use crate::upstream::http1::{AnswerHead, Content, Interim};
use crate::upstream::pool::Used;
use crate::upstream::websocket::Upgrade;
use crate::upstream::{Connection, ErrorKind, Outstanding, Phase as Doing, UpstreamError};
use crate::wire::chat::UpstreamFault;
use crate::wire::coding::Fault;
use crate::wire::http1::Decoder;
use crate::wire::websocket::Nonce;

/// An unstreamed answer up to this size is held until it is whole, so that a failure in it is still a status.
pub const HOLD_BYTES_MAX: usize = 64 * 1024;

/// An answer that has begun.
pub struct Begun {
    /// The connection it comes on.
    pub connection: Box<Connection>,
    /// Its head.
    pub head: AnswerHead,
    /// Follows its body.
    pub decoder: Decoder,
    /// What it says.
    pub answer: Answer,
    /// Body bytes for the client that were not yet sent.
    pub out: Vec<u8>,
    /// The upstream's connection may carry another exchange, as far as the request goes.
    pub request_sent: bool,
    /// Bytes of the body that have come, framing included.
    pub received_bytes: u64,
    /// Counts as outstanding at the endpoint until the answer has ended.
    _outstanding: Outstanding,
}

/// How one try failed.
pub(super) enum Failed {
    /// Another endpoint, or the same one on a fresh connection, may be asked.
    Again(UpstreamError),
    /// It may not.
    Stop(Stop),
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Failed {
        Failed::Stop(stop)
    }
}

/// Sends `call` to the endpoints of `plan` in turn, until one has begun to answer.
///
/// # Errors
/// The last failure, as the client is to be told.
pub async fn run<'a>(scene: &mut Scene<'a>, call: &mut Call, model: &Model, mut plan: Plan<'a>) -> Result<Begun, Stop> {
    let worker = scene.worker;
    if scene.client.has_left().await {
        // Streams can be begun and reset by the thousand, and no provider is to be asked for the sake of those.
        return Err(Stop::ClientGone);
    }
    let mut last = None;
    while let Some(candidate) = plan.next(|endpoint| worker.upstreams.outstanding(endpoint), worker.random()) {
        scene.sent_model = candidate.model;
        // A body that is consumed as it is sent cannot be sent twice, so it gets no connection that may be stale.
        let is_streamed = matches!(call.body, Body::Streamed { .. });
        let mut used = if is_streamed { Used::Lively(worker.clock.now()) } else { Used::Any };
        let (mut repeats, mut refused) = (0, None);
        loop {
            scene.begin_attempt(candidate.endpoint);
            match once(scene, call, model, candidate, used).await {
                Ok(begun) => return Ok(begun),
                Err(Failed::Again(error)) if repeats < error.repeats() && !is_streamed => {
                    (used, repeats) = (Used::MadeSince(worker.clock.now()), repeats + 1);
                    refused = Some(error);
                }
                // That there is no room for another connection is not why the request failed.
                Err(Failed::Again(error)) if error.is_exhausted() && refused.is_some() => {
                    last = refused.map(|error| told(scene, Wait::Connect, model, &error));
                    break;
                }
                Err(Failed::Again(error))
                    if error.is_before_request()
                        || (!is_streamed && (error.is_refused() || error.is_unheard() && !scene.record.reused)) =>
                {
                    last = Some(told(scene, Wait::Connect, model, &error));
                    break;
                }
                Err(Failed::Again(error)) if call.nonce.is_some() => {
                    // Nothing but a handshake was sent.
                    last = Some(told(scene, Wait::FirstToken, model, &error));
                    break;
                }
                Err(Failed::Again(error)) => return Err(told(scene, Wait::FirstToken, model, &error)),
                Err(Failed::Stop(stop)) => return Err(stop),
            }
        }
        plan.rule_out(candidate.endpoint);
        if worker.clock.now() >= scene.total_until() {
            break;
        }
    }
    Err(last.unwrap_or_else(|| Stop::from(Reject::gateway(503, "no_endpoint", "No endpoint is left to ask."))))
}

/// One endpoint, once.
async fn once(
    scene: &mut Scene<'_>,
    call: &mut Call,
    model: &Model,
    candidate: Candidate<'_>,
    used: Used,
) -> Result<Begun, Failed> {
    let worker = scene.worker;
    let endpoint = candidate.endpoint;
    let outstanding = worker.upstreams.begin(endpoint);
    call.nonce = scene.intake.websocket.is_some().then(|| nonce(worker));
    let kept = if call.nonce.is_some() { None } else { worker.upstreams.checkout(endpoint, used) };
    let mut connection = match kept {
        Some(connection) => connection,
        None => connect(scene, model, endpoint, used).await?,
    };
    (scene.record.phase, scene.record.reused) = (Phase::Send, connection.reused);
    scene.record.timings.connected = scene.mark();
    let request_sent = send(scene, call, model, candidate, &mut connection).await?;
    scene.record.phase = Phase::FirstByte;
    scene.record.timings.sent = scene.mark();

    let due = worker.clock.now() + length(Wait::FirstToken, model);
    scene.wait_until(due);
    let to_head = scene.intake.is_head();
    let mut head = match upgrade(call, scene.intake) {
        Some(upgrade) => {
            let record = &mut scene.record;
            let on_first_byte = || {
                record.phase = Phase::AnswerHead;
                record.timings.first_byte = mark(worker);
            };
            let mut answer = Box::pin(connection.answer_to_upgrade(&worker.head_limits, upgrade, on_first_byte));
            let arrived = scene.client.watch(answer.as_mut()).await;
            drop(answer);
            match arrived {
                Ok(Ok(head)) => head,
                Ok(Err(error)) => return Err(Failed::Again(error)),
                Err(interrupt) => {
                    return Err(interrupted(scene, Wait::FirstToken, model, &mut connection, interrupt).into());
                }
            }
        }
        None => loop {
            let record = &mut scene.record;
            let on_first_byte = || {
                record.phase = Phase::AnswerHead;
                if record.timings.first_byte == Instant::NEVER {
                    record.timings.first_byte = mark(worker);
                }
            };
            let limits = &worker.head_limits;
            let arrived = scene.client.watch(pin!(connection.answer_head(limits, to_head, on_first_byte))).await;
            match arrived {
                Ok(Ok(Some(head))) => break head,
                // Boxed: few endpoints say anything ahead.
                Ok(Ok(None)) => {
                    Box::pin(pass_interim(scene, &mut connection)).await.map_err(Stop::from)?;
                    scene.wait_until(due);
                }
                Ok(Err(error)) => return Err(Failed::Again(error)),
                Err(interrupt) => {
                    return Err(interrupted(scene, Wait::FirstToken, model, &mut connection, interrupt).into());
                }
            }
        },
    };
    (scene.record.phase, scene.record.upstream_status) = (Phase::FirstContent, head.status);
    connection.allow_bulk(head.content != Content::Events);
    let answer = coded::begin(scene, call, candidate, &mut head);
    let mut begun = Begun {
        decoder: Decoder::response(head.framing),
        connection,
        head,
        answer,
        out: Vec::new(),
        request_sent,
        received_bytes: 0,
        _outstanding: outstanding,
    };
    let reached = begun.reach_commit_point(scene, model).await;
    scene.record.upstream_received_bytes = begun.received_bytes;
    if let Some(events) = begun.answer.events() {
        // What was told of usage counts, however this ends.
        scene.record.tokens = tokens(events.usage);
    }
    scene.record.timings.content = reached?;
    Ok(begun)
}

impl Begun {
    /// Takes in what has come, into a buffer that is held only while there is something in it; true if content was among it.
    ///
    /// # Errors
    /// The body is not framed as it should be.
    pub fn digest(&mut self, buffers: &Buffers) -> Result<bool, UpstreamError> {
        if self.out.capacity() == 0 {
            self.out = buffers.take_for(self.connection.bytes().len());
        }
        let content = self.take_in();
        if self.out.is_empty() {
            buffers.give(std::mem::take(&mut self.out));
        }
        content
    }

    fn take_in(&mut self) -> Result<bool, UpstreamError> {
        let mut content = match &mut self.answer {
            Answer::Coded(coded) => coded.go_on(&mut self.out),
            _ => false,
        };
        while !self.decoder.is_done() && !self.connection.bytes().is_empty() {
            let bytes = self.connection.bytes();
            // At once, since growing step by step would make up to twice the room.
            self.out.reserve(bytes.len());
            let piece = self.decoder.decode(bytes).map_err(|malformed| {
                self.connection.slot().error(Doing::Body, ErrorKind::Malformed(malformed.reason))
            })?;
            content |= self.answer.push(&bytes[piece.data], &mut self.out);
            self.received_bytes += piece.consumed as u64;
            self.connection.consume(piece.consumed);
        }
        Ok(content)
    }

    /// The upstream has closed: is that the body's proper end?
    ///
    /// # Errors
    /// It is not.
    pub fn digest_end(&mut self) -> Result<(), UpstreamError> {
        match self.decoder.eof() {
            Ok(()) => Ok(()),
            Err(malformed) => Err(self.connection.slot().error(Doing::Body, ErrorKind::Malformed(malformed.reason))),
        }
    }

    /// Reads until the answer may be given to the client; when what that took had come.
    async fn reach_commit_point(&mut self, scene: &mut Scene<'_>, model: &Model) -> Result<Instant, Stop> {
        let wait = if self.answer.events().is_some() { Wait::FirstToken } else { Wait::BetweenTokens };
        let mut came = scene.mark();
        loop {
            self.digest(&scene.worker.buffers).map_err(|error| broken(&error))?;
            if self.is_committed()? {
                return Ok(came);
            }
            if wait == Wait::BetweenTokens {
                scene.start_timer(wait, model);
            }
            let more = async {
                match self.answer.is_behind() {
                    true => rt::later().await,
                    false => return self.connection.fill().await,
                }
                Ok(true)
            };
            let more = scene.client.watch(pin!(more)).await;
            match more {
                Ok(Ok(true)) => came = scene.mark(),
                Ok(Ok(false)) => self.digest_end().map_err(|error| broken(&error))?,
                Ok(Err(error)) => return Err(broken(&self.connection.io_error(Doing::Body, error))),
                Err(interrupt) => return Err(interrupted(scene, wait, model, &mut self.connection, interrupt)),
            }
        }
    }

    fn is_committed(&mut self) -> Result<bool, Stop> {
        if self.head.status < 300
            && let Some(fault) = self.coding_fault()
        {
            return Err(rejected(miscoded(fault)));
        }
        let done = self.is_done();
        if let Some(events) = self.answer.events_mut() {
            if events.committed {
                return Ok(true);
            }
            if let Some(fault) = events.fault.take() {
                return Err(faulted(fault));
            }
            if done {
                let text = "The provider's stream ended before any content.";
                return Err(Stop::Reject(Reject::upstream(502, "empty_stream", text), State::Truncated));
            }
            return Ok(false);
        }
        // Errors pass as they are, and bytes that mean nothing to us need not be held.
        let held = self.answer.is_json() && self.head.status < 300;
        if held && !done && self.out.len() <= HOLD_BYTES_MAX {
            return Ok(false);
        }
        if !done {
            self.answer.let_go(&self.out);
        }
        Ok(true)
    }

    /// True if all of the body has come and was read.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done() && !self.answer.is_behind()
    }

    /// Field lines behind the body, once all of it has come: whole, and only those that may be passed on.
    pub fn trailers(&self) -> &[u8] {
        match self.decoder.trailers() {
            [] => self.connection.trailers(),
            lines => lines,
        }
    }

    /// What is wrong with the content coding.
    pub fn coding_fault(&self) -> Option<Fault> {
        self.answer.coded()?.fault(self.decoder.is_done())
    }
}

impl Scene<'_> {
    /// Another endpoint, or another connection, is tried.
    fn begin_attempt(&mut self, endpoint: EndpointId) {
        let now = self.mark();
        let record = &mut self.record;
        if let Some(failed) = record.endpoint.replace(endpoint) {
            // The last one's failure counts as the exchange's own.
            let now = if now == Instant::NEVER { self.worker.clock.now() } else { now };
            self.worker.board.endpoints[usize::from(failed.0)].failed(record.phase, now);
        }
        let first = if record.attempts == 0 { now } else { record.timings.first_attempt };
        let (head, body) = (record.timings.head, record.timings.body);
        record.timings = Timings { body, first_attempt: first, attempt: now, ..Timings::begin(head) };
        record.attempts += 1;
        (record.phase, record.reused, record.upstream_status) = (Phase::Connect, false, 0);
    }
}

/// Passes on what an endpoint said ahead of its answer. Of a request that is then repeated the client may see more than one
/// (RFC 9110 §15.2); none of them commits it to anything.
///
/// # Errors
/// The client is gone, or did not take it in time: it is not the endpoint's fault then.
async fn pass_interim(scene: &mut Scene<'_>, connection: &mut Connection) -> Result<(), Interrupt> {
    let limits = &scene.worker.head_limits;
    for Interim { status, fields } in connection.take_interim() {
        if scene.intake.is_http10 {
            continue;
        }
        // The endpoint's time may run out meanwhile, which is then told behind it.
        scene.client.timer.set(scene.write_until(scene.worker.clock.now()));
        let mut said = pin!(scene.client.say_interim(status, &fields));
        let mut resets = false;
        let outcome = poll_fn(|cx| {
            let said = said.as_mut().poll(cx);
            if said.is_pending() && !resets && connection.poll_early(limits, cx) && connection.is_flooding() {
                // What it goes on to say would have to be held for a client that does not read.
                connection.reset();
                resets = true;
            }
            said
        });
        if let Err(interrupt) = outcome.await {
            connection.reset();
            return Err(interrupt);
        }
    }
    Ok(())
}

/// A key for one handshake.
fn nonce(worker: &Worker) -> Nonce {
    Nonce::new((u128::from(worker.random()) << 64 | u128::from(worker.random())).to_ne_bytes())
}

/// What a call asks an endpoint to switch to.
pub(super) fn upgrade<'c>(call: &Call, intake: &'c Intake) -> Option<Upgrade<'c>> {
    let (nonce, handshake) = call.nonce.zip(intake.websocket.as_ref())?;
    Some(Upgrade { nonce, protocols: &handshake.protocols })
}

/// Makes a connection within the connect timer.
async fn connect(
    scene: &mut Scene<'_>,
    model: &Model,
    endpoint: EndpointId,
    used: Used,
) -> Result<Box<Connection>, Failed> {
    let worker = scene.worker;
    scene.start_timer(Wait::Connect, model);
    // A certificate that was put in place a moment ago counts.
    worker.renew();
    // Boxed: it is large, and most exchanges go over a connection that was kept.
    let (within, http1) = (model.timers.connect, scene.intake.websocket.is_some());
    let mut work = Box::pin(async {
        match http1 {
            true => worker.upstreams.connect_http1(endpoint, within).await.map(|connection| (connection, None)),
            false => worker.upstreams.connect(endpoint, within, used).await,
        }
    });
    match scene.client.watch(work.as_mut()).await {
        Ok(Ok((connection, driver))) => {
            if let Some(driver) = driver {
                rt::spawn(driver.run());
            }
            Ok(connection)
        }
        Ok(Err(error)) => Err(Failed::Again(error)),
        Err(Interrupt::ClientGone) => Err(Stop::ClientGone.into()),
        Err(Interrupt::Deadline) => {
            let slot = worker.upstreams.slot(endpoint);
            Err(Failed::Again(slot.unconnected(model.timers.connect)))
        }
    }
}

/// What the client is told of an endpoint that could not be reached or gave no answer.
fn told(scene: &Scene<'_>, wait: Wait, model: &Model, error: &UpstreamError) -> Stop {
    if !matches!(error.kind, ErrorKind::Timeout(_)) {
        scene.complain(error);
    }
    if let Some(shortage) = error.shortage() {
        let text = format!("No connection to a provider can be made: {shortage}.");
        let mut reject = Reject::gateway(503, shortage.code(), text);
        reject.retry_after_s = Some(1);
        return Stop::Reject(reject, State::GatewayError);
    }
    let code = match &error.kind {
        ErrorKind::Timeout(_) => return rejected(scene.timed_out(wait, model, &error.endpoint)),
        ErrorKind::Exhausted => {
            let mut reject = Reject::gateway(503, "upstream_connections_exhausted", sentence(error));
            reject.retry_after_s = Some(1);
            return Stop::Reject(reject, State::UpstreamError);
        }
        ErrorKind::Malformed(_) => "upstream_malformed",
        ErrorKind::Proxy(_) => "proxy_failed",
        _ if error.is_before_request() => "upstream_unreachable",
        _ => "upstream_failed",
    };
    Stop::Reject(Reject::upstream(502, code, sentence(error)), State::UpstreamError)
}

/// What the client is told of an answer that broke before any of it was passed on.
fn broken(error: &UpstreamError) -> Stop {
    Stop::Reject(Reject::upstream(502, "upstream_truncated", sentence(error)), State::Truncated)
}

/// What the client is told of an answer whose content coding is at fault.
pub fn miscoded(fault: Fault) -> (Reject, State) {
    let code = match fault {
        Fault::Truncated => "upstream_truncated",
        Fault::Corrupt => "upstream_malformed",
        Fault::Window | Fault::Size | Fault::Ratio => "upstream_encoding_refused",
    };
    (Reject::upstream(502, code, format!("The provider's answer cannot be read: {fault}.")), State::Truncated)
}

/// What the client is told of a failure that came as a success.
pub fn faulted(fault: UpstreamFault) -> Stop {
    let mut reject = Reject::upstream(fault.status, "upstream_error", fault.message);
    if let Some(code) = fault.code.or(fault.kind) {
        reject.code = code.into();
    }
    Stop::Reject(reject, State::UpstreamError)
}

/// The stop that follows from an interrupt while `connection` was waited for. The connection is reset: of a request that
/// its provider has not taken, the kernel would go on offering the rest, for minutes, to one that reads nothing.
pub(super) fn interrupted(
    scene: &Scene<'_>,
    wait: Wait,
    model: &Model,
    connection: &mut Connection,
    interrupt: Interrupt,
) -> Stop {
    connection.reset();
    match interrupt {
        Interrupt::ClientGone => Stop::ClientGone,
        Interrupt::Deadline => rejected(scene.timed_out(wait, model, &connection.slot().name)),
    }
}

fn rejected((reject, state): (Reject, State)) -> Stop {
    Stop::Reject(reject, state)
}

fn sentence(error: &UpstreamError) -> String {
    format!("The provider failed: {error}.")
}

/// Usage in the words of the record.
pub fn tokens(usage: crate::wire::chat::Usage) -> crate::telemetry::Tokens {
    crate::telemetry::Tokens {
        input: usage.input,
        output: usage.output,
        cached_input: usage.cached_input,
        cache_creation_input: usage.cache_creation_input,
        reasoning_output: usage.reasoning_output,
    }
}
