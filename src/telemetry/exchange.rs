//! The record of one exchange: who, what, where, how it ended, and when each step was reached.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use super::WebSocket;
use super::trace::Trace;
use crate::base::clock::{Instant, UnixTime};
use crate::base::reject::Origin;
use crate::base::{Dialect, EndpointId, KeyId, ListenerId, ModelId};

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The answer reached its own end.
    Complete,
    /// Refused before an upstream was asked.
    Refused,
    /// The client left before the end.
    ClientGone,
    /// The upstream could not be reached, or answered with an error.
    UpstreamError,
    /// The upstream's answer broke off, or broke the rules.
    Truncated,
    /// One of the four timers ran out.
    Timeout,
    /// Ringway failed.
    GatewayError,
}

impl State {
    /// Every state.
    pub const ALL: [State; 7] = [
        State::Complete,
        State::Refused,
        State::ClientGone,
        State::UpstreamError,
        State::Truncated,
        State::Timeout,
        State::GatewayError,
    ];

    /// Whose doing it was that an exchange ended like this, if `origin` is whose fault it was.
    pub fn ended_by(self, origin: Origin) -> EndedBy {
        match (self, origin) {
            (State::Complete, _) => EndedBy::Completion,
            (State::ClientGone, _) => EndedBy::Client,
            (State::UpstreamError | State::Truncated, Origin::Upstream) => EndedBy::Upstream,
            _ => EndedBy::Gateway,
        }
    }

    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Complete => "complete",
            State::Refused => "refused",
            State::ClientGone => "client_gone",
            State::UpstreamError => "upstream_error",
            State::Truncated => "truncated",
            State::Timeout => "timeout",
            State::GatewayError => "gateway_error",
        }
    }
}

/// How far an exchange has come. Each begins where the one before ends; an exchange that tries another endpoint goes back
/// to [`Phase::Connect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The request's head is being read.
    Head,
    /// Who calls, what is asked for, and where it may go is being found out.
    Admission,
    /// The part of the request's body that must be known for that is being received.
    RequestBody,
    /// An endpoint's address is being found and a connection made, TLS included.
    Connect,
    /// The request is being sent to the endpoint; a body that is not held is received meanwhile.
    Send,
    /// The request is sent, and no byte of an answer has come.
    FirstByte,
    /// The answer's head is being read.
    AnswerHead,
    /// The answer's first content is waited for, or the rest of an unstreamed answer that is held.
    FirstContent,
    /// The answer is on its way to the client.
    Relay,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Phase; 9] = [
        Phase::Head,
        Phase::Admission,
        Phase::RequestBody,
        Phase::Connect,
        Phase::Send,
        Phase::FirstByte,
        Phase::AnswerHead,
        Phase::FirstContent,
        Phase::Relay,
    ];

    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Head => "head",
            Phase::Admission => "admission",
            Phase::RequestBody => "request_body",
            Phase::Connect => "connect",
            Phase::Send => "send",
            Phase::FirstByte => "first_byte",
            Phase::AnswerHead => "answer_head",
            Phase::FirstContent => "first_content",
            Phase::Relay => "relay",
        }
    }
}

/// Whose doing it was that an exchange ended when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// Nobody's: the answer, which may be an upstream's error, was given to its end.
    Completion,
    /// The client's: it left.
    Client,
    /// The upstream's: it failed, broke off, or told of an error.
    Upstream,
    /// Ours: a refusal, a timer, a client that would not read, a shutdown, a fault.
    Gateway,
}

impl EndedBy {
    /// Everyone.
    pub const ALL: [EndedBy; 4] = [EndedBy::Completion, EndedBy::Client, EndedBy::Upstream, EndedBy::Gateway];

    /// The word used in records.
    pub fn as_str(self) -> &'static str {
        match self {
            EndedBy::Completion => "completion",
            EndedBy::Client => "client",
            EndedBy::Upstream => "upstream",
            EndedBy::Gateway => "gateway",
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whose fault it was, as the client is told in `x-ringway-error-origin`.
    pub origin: Origin,
    /// What the client is told as the error's code. Not a closed set: a provider's own code may be passed on.
    pub code: Cow<'static, str>,
}

/// Tokens as the provider reported them; absent where it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the request.
    pub input: Option<u64>,
    /// Of the answer.
    pub output: Option<u64>,
    /// Part of the input that came from the provider's cache.
    pub cached_input: Option<u64>,
    /// Part of the input that the provider's cache was filled with.
    pub cache_creation_input: Option<u64>,
    /// Part of the output that was reasoning.
    pub reasoning_output: Option<u64>,
}

/// When each step of an exchange was reached; [`Instant::NEVER`] for one that was not, and for all but `head` if nobody
/// records. Where several attempts were made, those of the last one, but for `first_attempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// The request's head was complete; for a head that never was, when the record was begun.
    pub head: Instant,
    /// As much of the body had come as must be known to choose an endpoint: all of a JSON body.
    pub body: Instant,
    /// The first attempt began.
    pub first_attempt: Instant,
    /// The last attempt began.
    pub attempt: Instant,
    /// It had a connection, new or kept.
    pub connected: Instant,
    /// The endpoint was sent the request, or began to answer before it had all of it.
    pub sent: Instant,
    /// The first byte of its answer came.
    pub first_byte: Instant,
    /// The first content was in hand; for an unstreamed answer, what can be sent of it.
    pub content: Instant,
    /// The kernel had taken the first bytes of the answer to the client, a refusal included.
    pub written: Instant,
    /// All was over.
    pub end: Instant,
}

impl Timings {
    /// Nothing reached but the head, `at`.
    pub fn begin(at: Instant) -> Timings {
        let never = Instant::NEVER;
        Timings {
            head: at,
            body: never,
            first_attempt: never,
            attempt: never,
            connected: never,
            sent: never,
            first_byte: never,
            content: never,
            written: never,
            end: never,
        }
    }

    /// From the head to `step`, if it was reached.
    pub fn to(&self, step: Instant) -> Option<Duration> {
        (step != Instant::NEVER).then(|| step - self.head)
    }

    /// From one step to a later one, if both were reached.
    pub fn between(earlier: Instant, later: Instant) -> Option<Duration> {
        (earlier != Instant::NEVER && later != Instant::NEVER).then(|| later - earlier)
    }

    /// From the head to the end.
    pub fn duration(&self) -> Duration {
        self.to(self.end).unwrap_or_default()
    }
}

/// The strings of a record, in one allocation. Each is cut to a bound; one that is absent is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    text: Box<str>,
    ends: [u16; 5],
}

/// A string of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The id that every answer carries as `x-request-id`; never empty.
    RequestId,
    /// The request's method.
    Method,
    /// The request's path; never the query, which may hold secrets.
    Path,
    /// The model that was asked for.
    Model,
    /// The model that the endpoint was asked for.
    SentModel,
}

impl Words {
    /// The longest that each may be, in bytes.
    pub const BYTES_MAX: [usize; 5] = [128, 32, 1024, 256, 256];

    /// Takes the strings in the order of [`Word`].
    pub fn new(words: [&str; 5]) -> Words {
        let mut ends = [0; 5];
        let cut: [&str; 5] = std::array::from_fn(|at| &words[at][..words[at].floor_char_boundary(Self::BYTES_MAX[at])]);
        let mut text = String::with_capacity(cut.iter().map(|word| word.len()).sum());
        for (word, end) in cut.into_iter().zip(&mut ends) {
            text.push_str(word);
            *end = text.len() as u16;
        }
        Words { text: text.into_boxed_str(), ends }
    }

    /// One of them.
    pub fn get(&self, word: Word) -> &str {
        let at = word as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.text[usize::from(start)..usize::from(self.ends[at])]
    }
}

/// One request and its one answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When its head was complete.
    pub at: UnixTime,
    /// Its strings; empty unless records are kept.
    pub words: Words,
    /// The trace it belongs to, if any.
    pub trace: Option<Trace>,
    /// Where the client connected to.
    pub listener: ListenerId,
    /// Where the client connected from.
    pub client: SocketAddr,
    /// The version of HTTP that the client spoke, `1.0`, `1.1` or `2`; empty while its head was not read.
    pub http: &'static str,
    /// The dialect of its path.
    pub dialect: Dialect,
    /// The API of its path.
    pub api: &'static str,
    /// Who called; nobody on an open listener.
    pub key: Option<KeyId>,
    /// The model as it is configured, once that is known.
    pub model: Option<ModelId>,
    /// The endpoint that answered, or failed last.
    pub endpoint: Option<EndpointId>,
    /// Endpoints and connections tried.
    pub attempts: u32,
    /// True if the last attempt went over a connection that had carried an exchange before.
    pub reused: bool,
    /// True for an event stream.
    pub streamed: bool,
    /// True if the answer is encoded and passed unread, or from some point on: tokens may have been missed.
    pub unread: bool,
    /// The status that the client was sent; 0 if it left before.
    pub status: u16,
    /// The status that the endpoint answered with; 0 if it did not.
    pub upstream_status: u16,
    /// How it ended.
    pub state: State,
    /// How far it had come when it ended: where it failed, or the client left.
    pub phase: Phase,
    /// Whose doing that was.
    pub ended_by: EndedBy,
    /// What went wrong, if anything did.
    pub fault: Option<Fault>,
    /// What the provider reported.
    pub tokens: Tokens,
    /// Events with content that were relayed, the finishing one included.
    pub content_events: u64,
    /// Body bytes of the request, without framing.
    pub request_bytes: u64,
    /// Body bytes of the upstream's answer that were relayed, without framing.
    pub answer_bytes: u64,
    /// Bytes written to the client: heads, bodies and framing; before TLS.
    pub sent_bytes: u64,
    /// Bytes written to endpoints, all attempts together: heads, bodies and framing; before TLS.
    pub upstream_sent_bytes: u64,
    /// Bytes of the answer's body as they came from the endpoint, framing included.
    pub upstream_received_bytes: u64,
    /// What it came to as a WebSocket, once it had become one.
    pub websocket: Option<Box<WebSocket>>,
    /// When what was reached.
    pub timings: Timings,
    /// How long the client's body was waited for.
    pub waited: Duration,
}

impl Exchange {
    /// The record of an exchange of which nothing is known yet. Its state is that of one that Ringway failed,
    /// which is what stays if it panics.
    pub fn begin(at: UnixTime, head: Instant, dialect: Dialect, listener: ListenerId, client: SocketAddr) -> Exchange {
        Exchange {
            at,
            words: Words::default(),
            trace: None,
            listener,
            client,
            http: "",
            dialect,
            api: "other",
            key: None,
            model: None,
            endpoint: None,
            attempts: 0,
            reused: false,
            streamed: false,
            unread: false,
            status: 0,
            upstream_status: 0,
            state: State::GatewayError,
            phase: Phase::Admission,
            ended_by: EndedBy::Gateway,
            fault: None,
            tokens: Tokens::default(),
            content_events: 0,
            request_bytes: 0,
            answer_bytes: 0,
            sent_bytes: 0,
            upstream_sent_bytes: 0,
            upstream_received_bytes: 0,
            websocket: None,
            timings: Timings::begin(head),
            waited: Duration::ZERO,
        }
    }

    /// What Ringway added to an exchange that came to an answer: from the head complete to the first attempt, from the
    /// connection there to the request sent, both without waiting for the client's body, and from the first content in
    /// hand to the kernel having taken it for the client.
    pub fn added(&self) -> Option<Duration> {
        let timings = &self.timings;
        let admitted = timings.to(timings.first_attempt)?;
        let sent = Timings::between(timings.connected, timings.sent)?;
        let answered = Timings::between(timings.content, timings.written)?;
        Some((admitted + sent).saturating_sub(self.waited) + answered)
    }

    /// Attempts after the first.
    pub fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_went_in_up_to_their_bounds() {
        let words = Words::new(["id", "GET", "/v1/x", "", "gpt"]);
        let all = [Word::RequestId, Word::Method, Word::Path, Word::Model, Word::SentModel];
        assert_eq!(all.map(|word| words.get(word)), ["id", "GET", "/v1/x", "", "gpt"]);
        assert_eq!(all.map(|word| Words::default().get(word).len()), [0; 5]);

        for (at, word) in all.into_iter().enumerate() {
            let max = Words::BYTES_MAX[at];
            let mut given = [""; 5];
            let (fits, long) = ("x".repeat(max), "x".repeat(max + 1));
            given[at] = &fits;
            assert_eq!(Words::new(given).get(word), fits, "{word:?}");
            given[at] = &long;
            assert_eq!(Words::new(given).get(word), fits, "{word:?}");
            // A character is not cut in two.
            let wide = format!("{}é", "x".repeat(max - 1));
            given[at] = &wide;
            assert_eq!(Words::new(given).get(word).len(), max - 1, "{word:?}");
        }
        assert!(Words::BYTES_MAX.iter().sum::<usize>() <= usize::from(u16::MAX));
    }

    #[test]
    fn a_step_that_was_not_reached_has_no_time() {
        let mut timings = Timings::begin(Instant(5));
        assert_eq!((timings.to(timings.body), timings.duration()), (None, Duration::ZERO));
        (timings.body, timings.end) = (Instant(7), Instant(9));
        assert_eq!(
            (timings.to(timings.body), timings.duration()),
            (Some(Duration::from_nanos(2)), Duration::from_nanos(4))
        );
        assert_eq!(Timings::between(timings.body, timings.end), Some(Duration::from_nanos(2)));
        assert_eq!(Timings::between(timings.body, timings.content), None);
    }
}
