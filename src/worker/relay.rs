//! A begun answer to the client: as it arrives, and the truth about how it ends.
//!
//! The upstream is read one buffer ahead of the client and no further: a client that does not read stops our
//! reads, and so its provider. What passes is forwarded in the turn in which it came.

mod pass;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::attempt::{Begun, faulted, miscoded, tokens};
use super::coded::Coded;
use super::connection::After;
use super::exchange::{Scene, Stop, Wait, cut, length};
use super::state::Worker;
use crate::base::clock::Instant;
use crate::base::reject::{Origin, Reject};
use crate::config::Model;
use crate::listener::client::Interrupt;
use crate::net::rt;
use crate::telemetry::metrics::cells::{Cell, Route};
use crate::telemetry::{EndedBy, Fault, Phase as RecordPhase, State};
use crate::upstream::{Connection, Phase};
use crate::wire;
use crate::wire::http1::{Framing, begin_chunk, end_chunk, last_chunk};

/// A stream that has said that it is complete gets this long to end its body as well.
const TRAILING: Duration = Duration::from_secs(1);

/// What we say in an answer's head beside the provider's fields, and a chunk's framing; should it be more, the buffer grows.
const OWN_FIELDS_BYTES: usize = 512;

/// The size line of a chunk and the ends of both its lines: 16 digits, CRLF, CRLF.
const CHUNK_FRAMING_BYTES_MAX: usize = 20;

/// Gives a begun answer to the client.
///
/// # Errors
/// [`Stop::Cut`] once bytes were sent that cannot be taken back.
pub async fn run(scene: &mut Scene<'_>, begun: Begun, model: &Model) -> Result<After, Stop> {
    let framing = client_framing(scene, &begun);
    let events = begun.answer.events().is_some();
    scene.record.phase = RecordPhase::Relay;
    let mut relay = Relay { scene, begun, model, framing, due: Instant::NEVER, quiet: false, failure: None, gap: None };
    if events {
        let record = &relay.scene.record;
        let route = Route::new(record.model, record.endpoint, record.dialect, true);
        let cell = relay.scene.worker.recorder.meter().cell(route);
        relay.gap = cell.map(|cell| (cell, record.timings.content));
    }
    relay.start_waiting(false);
    relay.check_whole()?;
    let after = relay.run().await?;
    let Relay { begun, .. } = relay;
    let_go(scene.worker, begun);
    if scene.client.is_http2() {
        scene.client.timer.set(scene.write_until(scene.worker.clock.now()));
        scene.client.flush().await?;
    }
    Ok(after)
}

/// The endpoint has no part any more in what the client still has to take.
fn let_go(worker: &Rc<Worker>, begun: Begun) {
    let Begun { connection, head, decoder, request_sent, .. } = begun;
    if request_sent && decoder.is_done() {
        if connection.is_to_end() {
            rt::spawn(see_out(worker.clone(), connection));
        } else if head.keep_alive {
            worker.upstreams.checkin(connection, worker.clock.now());
        }
    }
}

/// Lets an exchange end whose answer is here, for a moment: its endpoint has done all that it was asked for, and is not to be told that
/// it was cancelled.
async fn see_out(worker: Rc<Worker>, mut connection: Box<Connection>) {
    let timer = worker.timers.timer();
    timer.set(worker.clock.now() + TRAILING);
    poll_fn(|cx| {
        while !timer.poll_expired(cx) {
            let waiting = connection.bytes().len();
            connection.consume(waiting);
            match connection.poll_fill(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// How the client is told where the body ends.
fn client_framing(scene: &Scene<'_>, begun: &Begun) -> Framing {
    if scene.intake.is_head() {
        // As a GET would have been answered, though nothing follows.
        return begun.head.announced.map_or(Framing::None, Framing::Length);
    }
    // Events may be taken out and put in, so their length is not known.
    let events = begun.answer.events().is_some();
    let decoded = begun.answer.coded().is_some_and(|coded| !coded.passes());
    match begun.head.framing {
        _ if matches!(begun.head.status, 204 | 304) => Framing::None,
        _ if events => scene.client.open_framing(scene.intake.is_http10),
        _ if begun.is_done() => Framing::Length(begun.out.len() as u64),
        Framing::Length(length) if !decoded => Framing::Length(length),
        _ => scene.client.open_framing(scene.intake.is_http10),
    }
}

struct Relay<'s, 'a> {
    scene: &'s mut Scene<'a>,
    begun: Begun,
    model: &'s Model,
    framing: Framing,
    /// When the next content must have come; once the stream is complete, when its body must have ended.
    due: Instant,
    /// True if what came last held no content, so that nothing excuses a timer that has run out.
    quiet: bool,
    /// Why the upstream's answer ended badly.
    failure: Option<(Reject, State)>,
    /// Where the time between two contents of a stream is counted, and when the last came.
    gap: Option<(Arc<Cell>, Instant)>,
}

impl Relay<'_, '_> {
    /// An unstreamed answer that is here to its end may turn out to be an error in the clothes of a success.
    fn check_whole(&mut self) -> Result<(), Stop> {
        if !self.begun.is_done() || self.begun.head.status >= 300 {
            return Ok(());
        }
        let (usage, error) = self.begun.answer.finish(&self.begun.out);
        if let Some(usage) = usage {
            self.scene.record.tokens = tokens(usage);
        }
        let judged = wire::chat::judges_answer(&self.scene.intake.method, &self.scene.intake.path);
        match error.filter(|_| judged) {
            Some(fault) => Err(faulted(fault)),
            None => Ok(()),
        }
    }

    async fn run(&mut self) -> Result<After, Stop> {
        let buffers = &self.scene.worker.buffers;
        let mut out = buffers.take_for(self.begun.head.fields.len() + OWN_FIELDS_BYTES + self.begun.out.len());
        self.scene.write_head(&mut out, &self.begun.head, self.framing);
        loop {
            // Whether an encoded body is whole must be known before its last piece goes out, where nothing comes behind it
            // that could say otherwise.
            while matches!(self.framing, Framing::Length(_))
                && self.begun.decoder.is_done()
                && self.begun.answer.is_behind()
                && self.failure.is_none()
            {
                self.wait().await?;
            }
            let over = self.is_over();
            self.frame(&mut out);
            if over && self.failure.is_none() && self.framing == Framing::Chunked {
                last_chunk(&mut out, self.begun.trailers());
            }
            let ends = over && self.failure.is_none();
            if ends {
                self.scene.client.set_trailers(self.begun.trailers());
                self.scene.client.end_with_next(self.ends_connection());
            }
            if !out.is_empty() || (ends && self.scene.client.is_http2()) {
                buffers.give(self.write(out).await?);
                if self.scene.record.timings.written == Instant::NEVER {
                    self.scene.record.timings.written = self.scene.mark();
                }
            }
            if over {
                return self.end().await;
            }
            match self.passage() {
                Some(passage) => self.pass(passage).await?,
                None => self.wait().await?,
            }
            out = buffers.take_for(self.begun.out.len() + CHUNK_FRAMING_BYTES_MAX);
        }
    }

    /// Moves what is ready for the client into `out`, framed.
    fn frame(&mut self, out: &mut Vec<u8>) {
        let ready = &mut self.begun.out;
        if ready.is_empty() {
            return;
        }
        self.scene.record.answer_bytes += ready.len() as u64;
        if self.framing == Framing::Chunked {
            out.reserve_exact(ready.len() + CHUNK_FRAMING_BYTES_MAX);
            begin_chunk(out, ready.len());
            out.append(ready);
            end_chunk(out);
        } else if out.is_empty() {
            std::mem::swap(out, ready);
        } else {
            out.append(ready);
        }
        self.scene.worker.buffers.give(std::mem::take(ready));
    }

    /// True when nothing more is to come of the upstream.
    fn is_over(&mut self) -> bool {
        if self.failure.is_some() {
            return true;
        }
        if self.has_fault() {
            // Its own error event has just been passed on; ours would say it twice.
            let text = "The provider reported an error within its stream.";
            self.failure = Some((Reject::upstream(502, "upstream_error", text), State::UpstreamError));
            return true;
        }
        if let Some(fault) = self.begun.coding_fault() {
            if matches!(self.framing, Framing::Length(_)) {
                // All of it has come, and it is not whole: the client must not take it for that.
                self.begun.out.clear();
            }
            self.failure = Some(miscoded(fault));
            return true;
        }
        if !self.begun.is_done() {
            return false;
        }
        let read = self.begun.answer.coded().is_none_or(|coded| !coded.is_unread());
        if let Some(events) = self.begun.answer.events()
            && read
            && !events.is_whole()
        {
            let text = "The provider's stream ended before it was complete.";
            self.failure = Some((Reject::upstream(502, "upstream_truncated", text), State::Truncated));
        }
        true
    }

    /// Content has come, or the stream's own end: the next thing to come gets its time.
    fn start_waiting(&mut self, content: bool) {
        let within = if self.has_ended() { TRAILING } else { length(Wait::BetweenTokens, self.model) };
        let now = self.scene.worker.clock.now();
        self.due = now + within;
        if content && let Some((cell, last)) = &mut self.gap {
            cell.gap(now - *last);
            *last = now;
        }
        self.scene.wait_until(self.due);
    }

    /// Waits for more of the answer, or finds that it has failed.
    async fn wait(&mut self) -> Result<(), Stop> {
        let ended = self.has_ended();
        self.scene.wait_until(self.due);
        loop {
            // Bytes that are there win over the timer, so a provider that always has some would never meet it.
            let now = self.scene.worker.clock.now();
            let outcome = if now >= self.scene.total_until() || self.quiet && now >= self.due {
                Err(Interrupt::Deadline)
            } else if self.begun.answer.is_behind() {
                self.scene.client.watch(pin!(rt::later())).await.map(|()| Ok(true))
            } else {
                self.scene.client.watch(pin!(self.begun.connection.fill())).await
            };
            let failed = match outcome {
                Ok(Ok(true)) => match self.begun.digest(&self.scene.worker.buffers) {
                    Ok(content) => {
                        self.quiet = !content;
                        if !ended && (content || self.has_ended()) {
                            self.start_waiting(content);
                        }
                        // A keep-alive of half an event, or an event that was taken out: nothing to write yet.
                        let over = self.begun.decoder.is_done() || self.has_fault();
                        if self.begun.out.is_empty() && !over && self.begun.coding_fault().is_none() {
                            continue;
                        }
                        return Ok(());
                    }
                    Err(error) => Some((format!("The provider failed: {error}."), State::Truncated)),
                },
                Ok(Ok(false)) => match self.begun.digest_end() {
                    Ok(()) => None,
                    Err(error) => Some((format!("The provider failed: {error}."), State::Truncated)),
                },
                Ok(Err(error)) => {
                    let error = self.begun.connection.io_error(Phase::Body, error);
                    Some((format!("The provider failed: {error}."), State::Truncated))
                }
                Err(Interrupt::ClientGone) => return Err(self.abandon(Interrupt::ClientGone)),
                Err(Interrupt::Deadline) if ended => None,
                Err(Interrupt::Deadline) => {
                    let endpoint = &self.begun.connection.slot().name;
                    self.failure = Some(self.scene.timed_out(Wait::BetweenTokens, self.model, endpoint));
                    return Ok(());
                }
            };
            match failed {
                // All content and the stream's own end are here: how the connection ended takes nothing away.
                _ if ended => {
                    self.begun.decoder = wire::http1::Decoder::response(Framing::None);
                    self.begun.head.keep_alive = false;
                }
                None => {}
                Some((text, state)) => {
                    self.failure = Some((Reject::upstream(502, "upstream_truncated", text), state));
                }
            }
            return Ok(());
        }
    }

    fn has_ended(&self) -> bool {
        self.begun.answer.events().is_some_and(|events| events.ended)
    }

    fn has_fault(&self) -> bool {
        self.begun.answer.events().is_some_and(|events| events.fault.is_some())
    }

    /// Writes to the client; if it does not take all at once, the kernel reads the upstream's next bytes meanwhile.
    async fn write(&mut self, mut out: Vec<u8>) -> Result<Vec<u8>, Stop> {
        if self.begun.answer.events().is_some() {
            self.scene.worker.moderator.note();
            match self.scene.client.write_now(&mut out).map_err(|interrupt| self.abandon(interrupt))? {
                None => return Ok(out),
                Some(sent) => drop(out.drain(..sent)),
            }
        }
        let now = self.scene.worker.clock.now();
        // Not cut short by the total: that the time is over is said between two writes, not by giving one up.
        self.scene.client.timer.set(self.scene.write_until(now));
        if !self.begun.decoder.is_done() && !self.may_pass() {
            let connection = &mut self.begun.connection;
            poll_fn(|cx| {
                connection.arm(cx);
                Poll::Ready(())
            })
            .await;
        }
        // A client that has stopped reading is as good as gone.
        let out = match self.scene.client.write(out).await {
            Ok(out) => out,
            Err(Interrupt::Deadline) if self.scene.worker.drain.is_over() => return Err(self.cut()),
            Err(interrupt) => return Err(self.abandon(interrupt)),
        };
        // While the client was slow the upstream was not read, which is not its fault.
        self.due = self.due + (self.scene.worker.clock.now() - now);
        Ok(out)
    }

    /// The client is gone, or as good as gone: the upstream is closed at once, for what it goes on generating is billed.
    fn abandon(&mut self, interrupt: Interrupt) -> Stop {
        self.begun.connection.abort();
        self.settle();
        interrupt.into()
    }

    /// The gateway ends, and this client did not take what it was to be sent.
    fn cut(&mut self) -> Stop {
        self.abandon(Interrupt::Deadline);
        self.scene.fail(&cut().0, State::GatewayError);
        if self.framing == Framing::UntilClose {
            // To this client an orderly end would say that the answer is whole.
            self.scene.client.reset();
        }
        Stop::Cut(State::GatewayError)
    }

    fn settle(&mut self) {
        self.scene.record.upstream_received_bytes = self.begun.received_bytes;
        self.scene.record.unread |= self.begun.answer.coded().is_some_and(Coded::is_unread);
        if let Some(events) = self.begun.answer.events() {
            self.scene.record.tokens = tokens(events.usage);
            self.scene.record.content_events = events.contents;
        }
    }

    /// All was sent that can be sent.
    async fn end(&mut self) -> Result<After, Stop> {
        self.settle();
        if let Some((reject, state)) = self.failure.take() {
            self.begun.connection.abort();
            self.scene.fail(&reject, state);
            let told = self.tell(&reject).await;
            if !told && self.framing == Framing::UntilClose {
                // To this client an orderly end would say that the answer is whole.
                self.scene.client.reset();
            }
            return Err(Stop::Cut(state));
        }
        self.scene.record.ended_by = EndedBy::Completion;
        self.scene.record.state = State::Complete;
        if self.begun.head.status >= 400 {
            self.scene.record.state = State::UpstreamError;
            self.scene.record.fault = Some(Fault { origin: Origin::Upstream, code: "upstream_status".into() });
        }
        if let Some(scan) = self.begun.answer.scan_mut()
            && self.scene.worker.recorder.is_on()
            && self.scene.record.tokens == Default::default()
            && let Some(usage) = scan.finish().usage
        {
            self.scene.record.tokens = tokens(usage);
        }
        Ok(if self.ends_connection() { After::Linger } else { After::KeepAlive })
    }

    /// True if the answer is the last on its connection.
    fn ends_connection(&self) -> bool {
        (self.framing == Framing::UntilClose && !self.scene.client.is_http2()) || !self.scene.keeps_alive()
    }

    /// Says in the stream that it failed, if there is a stream and it stands between two events; neither a
    /// [DONE] nor a last chunk follows. False if the client does not know of it.
    async fn tell(&mut self, reject: &Reject) -> bool {
        let Some(events) = self.begun.answer.events() else { return false };
        let passes = self.begun.answer.coded().is_some_and(Coded::passes);
        if events.fault.is_some() || events.is_mid_event() || events.ended || passes {
            return events.fault.is_some();
        }
        self.begun.out = wire::error_event(self.scene.intake.dialect, self.scene.intake.api, reject);
        let mut out = Vec::new();
        self.frame(&mut out);
        let now = self.scene.worker.clock.now();
        self.scene.client.timer.set(self.scene.write_until(now));
        // If even this does not get through, closing says the rest.
        self.scene.client.write(out).await.is_ok()
    }
}
