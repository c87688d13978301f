//! One request, top to bottom: head, caller, body, route, attempt, relay; and every way it can end.

use std::borrow::Cow;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::body::Body;
use super::connection::After;
use super::intake::{Intake, Media, new_request_id};
use super::reply::{Refusal, refuse};
use super::state::Worker;
use super::{attempt, cors, drain, models, relay, tunnel};
use crate::base::Dialect;
use crate::base::clock::{Instant, UnixTime};
use crate::base::reject::{Origin, Reject};
use crate::config::Model;
use crate::listener::Entry;
use crate::listener::client::{Client, Interrupt};
use crate::routing::Plan;
use crate::telemetry::log;
use crate::telemetry::{EndedBy, Exchange, Fault, Phase, State, Word, Words};
use crate::wire::chat::takes_json;
use crate::wire::http1::{Framing, HeadScan};
use crate::wire::request::{self, Scan};
use crate::wire::websocket::Nonce;

/// The name of a model is kept no longer than that.
const MODEL_BYTES_MAX: usize = Words::BYTES_MAX[Word::Model as usize];

/// Why an exchange ends before its answer does.
#[derive(Debug)]
pub enum Stop {
    /// The client is told; nothing of an answer was sent yet.
    Reject(Reject, State),
    /// The client is not there any more.
    ClientGone,
    /// The client is there and does not take what it is sent.
    ClientStalled,
    /// An answer was begun and cannot be ended properly: the connection is closed so that this can be seen.
    Cut(State),
}

impl From<Interrupt> for Stop {
    /// What follows from a write to the client that did not get through.
    fn from(interrupt: Interrupt) -> Stop {
        match interrupt {
            Interrupt::ClientGone => Stop::ClientGone,
            Interrupt::Deadline => Stop::ClientStalled,
        }
    }
}

/// One exchange: who takes part and how far it has come. Recorded when it is dropped, however it ends.
pub struct Scene<'a> {
    pub worker: &'a Rc<Worker>,
    pub client: &'a mut Client,
    pub intake: &'a Intake,
    pub accepted: Instant,
    pub record: Exchange,
    /// False while bytes of the request's body are still to come.
    pub body_received: bool,
    /// True once a body whose length was not told has come to its end.
    pub body_ended: bool,
    /// True once the head was taken off the client's input.
    pub head_consumed: bool,
    /// How long the whole exchange may take.
    pub total: Duration,
    /// The model that was asked for.
    pub asked: Option<Cow<'a, str>>,
    /// The model that the endpoint was asked for, where that is another.
    pub sent_model: Option<&'a str>,
    /// True once the client was told that the connection is kept.
    pub promised: bool,
}

/// A request that is ready to be sent.
pub struct Call {
    pub body: Body,
    /// What its JSON says, if it is JSON.
    pub scan: Option<Scan<'static>>,
    /// Where the model's name lies in a form, if it is one.
    pub form_model: Option<Range<usize>>,
    /// True if the query names the model.
    pub query_model: bool,
    /// The path below `/v1`.
    pub path: Box<str>,
    /// The key of our own handshake, where it asks for a WebSocket.
    pub nonce: Option<Nonce>,
}

/// Serves the request at the front of the client's input, which holds at least a byte of it; `None` if its head is not whole.
pub async fn run(worker: &Rc<Worker>, client: &mut Client, entry: Entry) -> Option<After> {
    let intake = match client.head(&worker.head_limits, |head| Intake::read(worker, head, entry.open)) {
        Ok(intake) => intake?,
        Err(malformed) => {
            let reject = Reject::client(malformed.status, "malformed_request", malformed.reason);
            return Some(refuse_head(worker, client, entry, reject).await);
        }
    };
    let mut scene = Scene::open(worker, client, &intake, entry);
    // Pinned here: what is awaited as it is returned is copied once more.
    let outcome = pin!(scene.play()).await;
    Some(scene.end(outcome).await)
}

/// Waits until the head that has begun to come may be whole, as long as the client's timer allows; what becomes of the connection
/// if it does not come.
///
/// Outside of any exchange, and with next to no room to read into: thousands may send theirs a byte at a time.
pub async fn await_head(worker: &Rc<Worker>, client: &mut Client, entry: Entry) -> Option<After> {
    let mut scan = HeadScan::default();
    // What is here was read, and is not a whole one.
    scan.is_due(client.bytes());
    let reject = loop {
        client.rest().await;
        match client.fill().await {
            Ok(Ok(true)) if scan.is_due(client.bytes()) => return None,
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                break Reject::client(400, "malformed_request", "The request ended within its head.");
            }
            Ok(Err(_)) | Err(Interrupt::ClientGone) => return Some(After::Close),
            // Half a head is no request yet.
            Err(Interrupt::Deadline) if worker.drain.is_over() => return Some(After::Close),
            Err(Interrupt::Deadline) => {
                let within = worker.config().client.head;
                let text = format!("The head of the request did not arrive within {within:?}.");
                break Reject::client(408, "head_timeout", text);
            }
        }
    };
    Some(Box::pin(refuse_head(worker, client, entry, reject)).await)
}

/// Answers for an exchange that panicked, under its `id` if that is known: 500 if nothing was answered yet.
pub async fn apologise(worker: &Rc<Worker>, client: &mut Client, id: Option<String>) -> After {
    if client.answering {
        return After::Close;
    }
    let reject = Reject::gateway(500, "internal_error", "Ringway failed while it served this request.");
    // Unless its body is streamed, the head of the request still stands at the front of the input.
    let intake = client.head(&worker.head_limits, |head| Intake::read(worker, head, false)).ok().flatten();
    let (dialect, request_id, is_head) = match &intake {
        Some(intake) => (intake.dialect, intake.request_id.clone(), intake.is_head()),
        None => (Dialect::OpenAi, new_request_id(worker), false),
    };
    let request_id = id.unwrap_or(request_id);
    let lines = intake.as_ref().map_or(&[][..], |intake| &intake.lines);
    let refusal = Refusal { reject: &reject, dialect, request_id: &request_id, is_head, close: true, lines };
    refuse(worker, client, &refusal).await
}

/// Says no to a head that could not be read to its end, and records that.
async fn refuse_head(worker: &Rc<Worker>, client: &mut Client, entry: Entry, reject: Reject) -> After {
    let (id, dialect) = (new_request_id(worker), Dialect::OpenAi);
    let lines = cors::lines_of_unread(worker, client.bytes());
    let refusal = Refusal { reject: &reject, dialect, request_id: &id, is_head: false, close: true, lines: &lines };
    let mut record = begin_record(worker, worker.clock.now(), dialect, entry);
    let after = refuse(worker, client, &refusal).await;
    if worker.recorder.is_on() {
        let now = worker.clock.now();
        (record.phase, record.state, record.status) = (Phase::Head, State::Refused, reject.status);
        record.fault = Some(Fault { origin: reject.origin, code: reject.code });
        record.sent_bytes = client.sent_bytes;
        (record.timings.written, record.timings.end) = (now, now);
        if worker.recorder.keeps_records() {
            record.words = Words::new([&id, "", "", "", ""]);
        }
        worker.recorder.record(record);
    }
    after
}

/// A new record; next to no cost if nobody keeps records.
fn begin_record(worker: &Worker, head: Instant, dialect: Dialect, entry: Entry) -> Exchange {
    let at = if worker.recorder.is_on() { worker.clock.unix() } else { UnixTime::default() };
    Exchange::begin(at, head, dialect, entry.listener, entry.peer)
}

impl<'a> Scene<'a> {
    fn open(worker: &'a Rc<Worker>, client: &'a mut Client, intake: &'a Intake, entry: Entry) -> Scene<'a> {
        worker.board.in_flight.add(1);
        let accepted = worker.clock.now();
        let mut record = begin_record(worker, accepted, intake.dialect, entry);
        record.key = intake.caller.as_ref().ok().copied().flatten();
        (record.api, record.trace) = (intake.api.as_str(), intake.trace);
        record.http = match intake.is_http10 {
            true => "1.0",
            false if client.is_http2() => "2",
            false => "1.1",
        };
        let body_received = match intake.framing {
            Framing::None => true,
            Framing::Length(_) => client.bytes().len() - intake.head_len >= body_len(intake.framing),
            Framing::Chunked | Framing::UntilClose => false,
        };
        Scene {
            worker,
            client,
            intake,
            accepted,
            record,
            body_received,
            body_ended: false,
            head_consumed: false,
            total: Duration::MAX,
            asked: None,
            sent_model: None,
            promised: false,
        }
    }

    /// The time of a step, if anyone wants to know it.
    pub fn mark(&self) -> Instant {
        mark(self.worker)
    }

    /// When the whole exchange must be over.
    pub fn total_until(&self) -> Instant {
        // Of a gateway whose end has come, whatever is set or looked at from now on is due.
        if self.worker.drain.is_over() { self.accepted } else { self.accepted + self.total }
    }

    /// The exchange as the list of what happens.
    async fn play(&mut self) -> Result<After, Stop> {
        let (worker, intake) = (self.worker, self.intake);
        if let Some(refusal) = &intake.refusal {
            return Err(refusal.clone().into());
        }
        if intake.preflight {
            // It comes without a key: browsers send those only once they were told that they may.
            return self.answer_preflight().await;
        }
        let key = intake.caller.clone()?;
        if let Some(answer) = models::answer(worker, intake, key) {
            return self.answer_ourselves(answer?).await;
        }
        let Some(path) = intake.path.strip_prefix("/v1").filter(|rest| rest.starts_with('/')) else {
            let text = format!("{} is not served here: the API begins at /v1/.", intake.path);
            return Err(Reject::client(404, "not_found", text).into());
        };
        self.record.phase = Phase::RequestBody;
        let (body, form_model) = self.receive().await?;
        self.record.phase = Phase::Admission;
        self.record.timings.body = self.mark();
        let scan = self.scan(&body)?;
        let query_model = match intake.query.as_deref() {
            Some(query) => request::query_model(query).map_err(Reject::from)?,
            None => None,
        };
        let named = scan.as_ref().and_then(|scan| scan.model.as_ref()).map(|model| &*model.name);
        if matches!(intake.media, Media::Multipart(_)) && form_model.is_none() && takes_json(&intake.path) {
            // What is no form of a model may well be JSON in a form's clothes, which nobody has read.
            let text = "A form sent to this path must name its model in a field of its own.";
            return Err(Reject::client(400, "model_missing", text).with_param("model").into());
        }
        let named = named.or(form_model.as_ref().map(|(name, _)| name.as_str()));
        let named = request::one_model(named, query_model.as_deref()).map_err(Reject::from)?;
        let config = worker.config();
        let Some(model) = worker.shared.table.find(config, named) else {
            return Err(unrouted(named).into());
        };
        if !worker.shared.keys.may_use(key, named.unwrap_or(&model.name)) {
            return Err(forbidden_model(named.unwrap_or("*")).into());
        }
        if worker.recorder.keeps_records() {
            self.asked = named.map(|named| match named == model.name {
                true => Cow::Borrowed(model.name.as_str()),
                false => Cow::Owned(named[..named.floor_char_boundary(MODEL_BYTES_MAX)].to_owned()),
            });
        }
        self.record.model = Some(model.id);
        self.total = model.timers.total;
        let query_model = query_model.is_some();
        let form_model = form_model.map(|(_, range)| range);
        let mut call = Call { body, scan, form_model, query_model, path: path.into(), nonce: None };
        if let Some(handshake) = &intake.websocket {
            return Box::pin(tunnel::run(self, call, model, Plan::new(config, model), handshake)).await;
        }
        let begun = attempt::run(self, &mut call, model, Plan::new(config, model)).await?;
        self.give_back(call);
        relay::run(self, begun, model).await
    }

    /// Reads what a JSON body says of itself.
    fn scan(&mut self, body: &Body) -> Result<Option<Scan<'static>>, Stop> {
        let bytes = match body {
            Body::Here(range) => {
                self.record.request_bytes = range.len() as u64;
                self.body_received = true;
                &self.client.bytes()[range.clone()]
            }
            Body::Held(bytes) => bytes,
            Body::Streamed { .. } => return Ok(None),
        };
        if bytes.is_empty() || self.intake.media != Media::Json {
            return Ok(None);
        }
        Ok(Some(request::scan(bytes).map_err(Reject::from)?.into_owned()))
    }

    /// The request is not needed any more: it cannot be sent again once an answer has begun.
    pub fn give_back(&mut self, call: Call) {
        if let Body::Here(range) = &call.body
            && !self.head_consumed
        {
            self.client.consume(range.end);
            self.client.own = 0;
            self.head_consumed = true;
        }
    }

    /// True if the connection can carry another request after this one. A gateway that begins to end keeps one all the same
    /// that it has promised, until idle ones are closed: the client may have sent its next request.
    ///
    /// Whether a connection of many streams goes on is not for one of them to say.
    pub fn keeps_alive(&self) -> bool {
        let drain = &self.worker.drain;
        if self.client.is_http2() {
            return self.body_received;
        }
        self.intake.keep_alive
            && self.body_received
            && (!drain.has_begun() || (self.promised && !drain.is_idle_over()))
            && self.client.served + 1 < self.worker.config().client.requests_max
    }

    /// Turns the outcome into what becomes of the connection, and settles the record.
    async fn end(&mut self, outcome: Result<After, Stop>) -> After {
        let after = match outcome {
            Ok(after) => after,
            Err(Stop::Reject(reject, state)) => {
                self.fail(&reject, state);
                self.record.status = reject.status;
                let refusal = Refusal {
                    reject: &reject,
                    dialect: self.intake.dialect,
                    request_id: &self.intake.request_id,
                    is_head: self.intake.is_head(),
                    close: !self.keeps_alive(),
                    lines: &self.intake.lines,
                };
                let after = refuse(self.worker, self.client, &refusal).await;
                self.record.timings.written = self.mark();
                after
            }
            Err(Stop::ClientGone) => {
                (self.record.state, self.record.ended_by) = (State::ClientGone, EndedBy::Client);
                After::Close
            }
            Err(Stop::ClientStalled) => {
                (self.record.state, self.record.ended_by) = (State::ClientGone, EndedBy::Gateway);
                self.record.fault = Some(Fault { origin: Origin::Client, code: "client_stalled".into() });
                // What it has not taken the kernel would go on offering, megabytes for minutes, to one that reads nothing.
                self.client.reset();
                After::Close
            }
            Err(Stop::Cut(state)) => {
                self.record.state = state;
                After::Linger
            }
        };
        if after == After::KeepAlive && !self.head_consumed {
            let end = self.intake.head_len + body_len(self.intake.framing);
            self.client.consume(end);
            self.head_consumed = true;
        }
        after
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let (worker, intake) = (self.worker, self.intake);
        worker.board.in_flight.sub(1);
        if std::thread::panicking() {
            worker.fallen.replace(Some(intake.request_id.clone()));
        }
        if !worker.recorder.is_on() {
            return;
        }
        let client = self.record.client;
        let empty = Exchange::begin(self.record.at, self.accepted, intake.dialect, self.record.listener, client);
        let mut record = std::mem::replace(&mut self.record, empty);
        record.timings.end = worker.clock.now();
        record.sent_bytes = self.client.sent_bytes;
        if std::thread::panicking() {
            record.fault = Some(Fault { origin: Origin::Gateway, code: "internal_error".into() });
            record.status = if self.client.answering { record.status } else { 500 };
        }
        if worker.recorder.keeps_records() {
            let asked = self.asked.as_deref().unwrap_or_default();
            let sent = if record.endpoint.is_some() { self.sent_model.unwrap_or(asked) } else { "" };
            record.words = Words::new([&intake.request_id, &intake.method, &intake.path, asked, sent]);
        }
        worker.recorder.record(record);
    }
}

/// The time of a step, if anyone wants to know it.
pub fn mark(worker: &Worker) -> Instant {
    if worker.recorder.is_on() { worker.clock.now() } else { Instant::NEVER }
}

fn body_len(framing: Framing) -> usize {
    match framing {
        Framing::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
        _ => 0,
    }
}

/// The model is named and unknown.
pub fn unknown_model(name: &str) -> Reject {
    let text = format!("The model {name:?} does not exist here.");
    Reject::client(404, "model_not_found", text).with_param("model")
}

fn unrouted(named: Option<&str>) -> Reject {
    match named {
        Some(name) => unknown_model(name),
        None => Reject::client(
            400,
            "model_missing",
            "The request names no model, and this gateway has no default route for such requests.",
        )
        .with_param("model"),
    }
}

fn forbidden_model(name: &str) -> Reject {
    Reject::client(403, "model_not_allowed", format!("This API key may not use the model {name:?}."))
        .with_param("model")
}

/// What a client is told whose exchange is cut.
pub fn cut() -> (Reject, State) {
    let mut reject =
        Reject::gateway(503, "shutting_down", "Ringway is being stopped, and this was not finished in time.");
    reject.retry_after_s = Some(1);
    (reject, State::GatewayError)
}

/// Which of a model's four timers is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For a connection.
    Connect,
    /// For the first content, or the head of an unstreamed answer.
    FirstToken,
    /// For the next content, or the next bytes of another body.
    BetweenTokens,
}

impl Scene<'_> {
    /// Notes in the record that the exchange fails.
    pub fn fail(&mut self, reject: &Reject, state: State) {
        self.record.state = state;
        self.record.ended_by = state.ended_by(reject.origin);
        self.record.fault = Some(Fault { origin: reject.origin, code: reject.code.clone() });
        if matches!(state, State::Truncated | State::Timeout) {
            self.complain(&reject.message);
        }
    }

    /// Says in the program's log how the endpoint failed: a few times, and how often. `how` is a sentence of ours; what
    /// providers say may repeat what clients said.
    pub fn complain(&self, how: &dyn std::fmt::Display) {
        let Some(endpoint) = self.record.endpoint else { return };
        let complaints = &self.worker.upstreams.slot(endpoint).complaints;
        complaints.say(|| log::warn("upstream", how.to_string()).with("request_id", &self.intake.request_id));
    }

    /// Starts one of the model's timers, within the total.
    pub fn start_timer(&self, wait: Wait, model: &Model) {
        self.wait_until(self.worker.clock.now() + length(wait, model));
    }

    /// Sets the deadline of what is being waited for, within the total.
    pub fn wait_until(&self, due: Instant) {
        self.client.timer.set(due.min(self.total_until()));
    }

    /// When a write that begins `now` must have got through.
    pub fn write_until(&self, now: Instant) -> Instant {
        write_until(self.worker, now)
    }

    /// What the client is told when the timer of `wait` has run out.
    pub fn timed_out(&self, wait: Wait, model: &Model, endpoint: &str) -> (Reject, State) {
        if self.worker.drain.is_over() {
            return cut();
        }
        if self.worker.clock.now() >= self.total_until() {
            let text = format!("The whole exchange took longer than {:?} (endpoint {endpoint}).", model.timers.total);
            return (Reject::upstream(504, "total_timeout", text), State::Timeout);
        }
        let after = length(wait, model);
        let reject = match wait {
            Wait::Connect => Reject::upstream(
                504,
                "connect_timeout",
                format!("Endpoint {endpoint} could not be connected to within {after:?}."),
            ),
            Wait::FirstToken => Reject::upstream(
                504,
                "first_token_timeout",
                format!("Endpoint {endpoint} gave no first token within {after:?}."),
            ),
            Wait::BetweenTokens => Reject::upstream(
                504,
                "between_tokens_timeout",
                format!("Endpoint {endpoint} gave no further token within {after:?}."),
            ),
        };
        (reject, State::Timeout)
    }
}

/// When a write to a client that begins `now` must have got through.
pub fn write_until(worker: &Worker, now: Instant) -> Instant {
    let within = worker.config().client.write;
    // Who does not read holds memory that others need.
    let is_urgent = worker.drain.is_over() || worker.is_short_of_memory();
    now + if is_urgent { within.min(drain::LAST_WRITE) } else { within }
}

/// How long one of the model's timers runs.
pub fn length(wait: Wait, model: &Model) -> Duration {
    match wait {
        Wait::Connect => model.timers.connect,
        Wait::FirstToken => model.timers.first_token,
        Wait::BetweenTokens => model.timers.between_tokens,
    }
}

#[cfg(test)]
mod tests;
