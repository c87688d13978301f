//! What an answer says, before any fault of the wire: its events or its one body, in each dialect.
//!
//! Builders of one dialect each are in [`super::openai`] and [`super::anthropic`]; here is what they have in
//! common, and what a script does to a finished list of events.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::script::{At, Cut, Fault, LineEnd, Script};
use super::text::{Rng, id, mix, token};

/// Where the time an event left goes: the field, and 20 places for digits (spaces are legal before a JSON number).
pub(crate) const STAMP: &str = "\"x_sent_ns\":                   0";
/// How many of the bytes of [`STAMP`] are places for digits.
pub(crate) const STAMP_DIGITS: usize = 20;
/// Stands in a token's text where bytes follow that are not UTF-8.
const BAD_UTF8: &str = "@@bad-utf8@@";
/// Every answer was made at this second, so that equal seeds give equal bytes.
pub(crate) const CREATED: u64 = 1_760_000_000;

/// What a piece of a stream is, as faults count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Carries no content: role, message_start, ping.
    Lifecycle,
    /// Carries tokens.
    Content,
    /// Finish reason, usage.
    Finish,
    /// `[DONE]`, message_stop, response.completed.
    Done,
}

/// One event: its type, if the dialect names types, and its data.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub kind: Kind,
    pub name: Option<&'static str>,
    pub data: String,
}

/// Which API was asked, as far as the shape of answers and errors goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Completions,
    Responses,
    Messages,
    Other,
}

/// A request as far as an answer depends on it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub model: String,
    pub stream: bool,
    pub include_usage: bool,
    tokens_max: Option<u32>,
    prompt: Vec<u8>,
}

impl Ask {
    pub(crate) fn of(body: &Value) -> Ask {
        let tokens_max = ["max_completion_tokens", "max_output_tokens", "max_tokens"]
            .iter()
            .find_map(|key| body[*key].as_u64())
            .map(|max| u32::try_from(max).unwrap_or(u32::MAX));
        let prompt = ["messages", "input", "prompt"].iter().map(|key| body[*key].to_string()).collect::<String>();
        Ask {
            model: body["model"].as_str().unwrap_or("mock").to_owned(),
            stream: body["stream"].as_bool().unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            tokens_max,
            prompt: prompt.into_bytes(),
        }
    }
}

/// What the answer will say: fixed before it is put into a dialect.
#[derive(Debug)]
pub(crate) struct Says {
    pub id: String,
    pub call_id: String,
    pub reasoning: Vec<String>,
    /// The text of each content event.
    pub pieces: Vec<String>,
    /// True if the request's limit cut the answer short.
    pub limited: bool,
    pub tokens: u32,
    pub prompt_tokens: u32,
}

impl Says {
    pub(crate) fn new(script: &Script, ask: &Ask, id_prefix: &str) -> Says {
        let mut rng = Rng::new(mix(script.seed, &ask.prompt));
        let tokens = script.tokens.min(ask.tokens_max.unwrap_or(u32::MAX));
        let id = id(id_prefix, &mut rng);
        let call_id = self::id("call_", &mut rng);
        let reasoning = (0..script.reasoning).map(|_| token(&mut rng, script.token_bytes)).collect();
        let mut pieces: Vec<String> = Vec::new();
        for at in 0..tokens {
            let word = token(&mut rng, script.token_bytes);
            match pieces.last_mut() {
                Some(piece) if at % script.tokens_per_event != 0 => piece.push_str(&word),
                _ => pieces.push(word),
            }
        }
        match script.fault {
            Fault::Huge(bytes) => {
                if let Some(first) = pieces.first_mut() {
                    *first = "x".repeat(bytes as usize);
                }
            }
            Fault::BadUtf8(after) => {
                if let Some(piece) = pieces.get_mut(after as usize) {
                    piece.push_str(BAD_UTF8);
                }
            }
            _ => {}
        }
        Says {
            id,
            call_id,
            reasoning,
            pieces,
            limited: tokens < script.tokens,
            tokens: tokens + script.reasoning,
            prompt_tokens: script.prompt_tokens,
        }
    }

    pub(crate) fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// One write of a body: so long after the one before, these bytes.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub after: Duration,
    pub bytes: Vec<u8>,
    pub is_event: bool,
}

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    Stall,
    Cut(Cut),
}

/// A body as it will be played.
#[derive(Debug)]
pub(crate) struct Body {
    pub steps: VecDeque<Step>,
    pub end: End,
    /// Bytes of the whole body as announced, cut or not.
    pub bytes: u64,
}

/// Lays a stream out in time, and lets the script's fault strike it.
/// `error` is the event that reports an error in this dialect.
pub(crate) fn stream(script: &Script, mut events: Vec<Event>, error: Event) -> Body {
    let mut end = End::Clean;
    let position = |events: &[Event], at: At| match at {
        At::First => 0,
        At::After(count) => events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.kind == Kind::Content)
            .nth(count as usize)
            .map(|(index, _)| index)
            .or_else(|| events.iter().rposition(|event| event.kind == Kind::Content).map(|last| last + 1))
            .unwrap_or(events.len()),
    };
    match script.fault {
        Fault::Stall(at) => {
            events.truncate(position(&events, at));
            end = End::Stall;
        }
        Fault::Cut(cut, at) => {
            events.truncate(position(&events, at));
            end = End::Cut(cut);
        }
        Fault::Error(at) => {
            events.truncate(position(&events, at));
            events.push(error);
        }
        Fault::NoDone => events.retain(|event| event.kind != Kind::Done),
        Fault::NoFinish => events.retain(|event| matches!(event.kind, Kind::Lifecycle | Kind::Content)),
        Fault::Truncated => end = End::Cut(Cut::Fin),
        _ => {}
    }
    let mut waited = false;
    let mut steps: VecDeque<Step> = events
        .into_iter()
        .map(|event| {
            // What comes before the first content leaves at once; what follows the last, together with it.
            let after = match event.kind {
                Kind::Lifecycle => Duration::ZERO,
                _ if !waited => {
                    waited = true;
                    script.ttft
                }
                Kind::Content => script.gap,
                Kind::Finish | Kind::Done => Duration::ZERO,
            };
            Step { after, bytes: render(script, &event), is_event: true }
        })
        .collect();
    if script.bom
        && let Some(first) = steps.front_mut()
    {
        first.bytes.splice(0..0, *b"\xef\xbb\xbf");
    }
    cut_bytes(script, steps, end)
}

/// An unstreamed body, which comes when the first token would.
pub(crate) fn whole(script: &Script, bytes: Vec<u8>) -> Body {
    let announced = bytes.len() as u64;
    let limit = |at| match at {
        At::First => 0,
        At::After(bytes) => bytes as usize,
    };
    let (bytes_max, end) = match script.fault {
        Fault::Stall(at) => (limit(at), End::Stall),
        Fault::Cut(cut, at) => (limit(at), End::Cut(cut)),
        Fault::Truncated => (bytes.len().saturating_sub(1), End::Cut(Cut::Fin)),
        _ => (usize::MAX, End::Clean),
    };
    let mut bytes = bytes;
    if let Some(at) = memchr::memmem::find(&bytes, BAD_UTF8.as_bytes()) {
        bytes.splice(at..at + BAD_UTF8.len(), *b"\xff\xc3\x28");
    }
    let announced = announced.min(bytes.len() as u64);
    bytes.truncate(bytes_max);
    let steps = VecDeque::from([Step { after: script.ttft, bytes, is_event: false }]);
    Body { bytes: announced, ..cut_bytes(script, steps, end) }
}

/// Lets `cut-bytes` and `rst-bytes` strike.
fn cut_bytes(script: &Script, mut steps: VecDeque<Step>, end: End) -> Body {
    let bytes = steps.iter().map(|step| step.bytes.len() as u64).sum();
    let Fault::CutBytes(cut, mut left) = script.fault else {
        return Body { steps, end, bytes };
    };
    for at in 0..steps.len() {
        let size = steps[at].bytes.len() as u64;
        if size >= left {
            steps[at].bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            steps.truncate(at + 1);
            break;
        }
        left -= size;
    }
    Body { steps, end: End::Cut(cut), bytes }
}

/// One event as bytes, in the line ends and number of lines the script asks for.
fn render(script: &Script, event: &Event) -> Vec<u8> {
    let line_end = match script.line_end {
        LineEnd::Lf => "\n",
        LineEnd::Cr => "\r",
        LineEnd::CrLf => "\r\n",
    };
    let mut data = event.data.clone();
    if script.stamp && data.ends_with('}') {
        data.truncate(data.len() - 1);
        data = format!("{data},{STAMP}}}");
    }
    let mut text = event.name.map_or(String::new(), |name| format!("event: {name}{line_end}"));
    // The lines of an event are joined with a line feed, which JSON allows between its tokens.
    match data.strip_prefix('{').filter(|_| script.multi_line) {
        Some(rest) => text.push_str(&format!("data: {{{line_end}data: {rest}")),
        None => text.push_str(&format!("data: {data}")),
    }
    text.push_str(line_end);
    text.push_str(line_end);
    let mut bytes = text.into_bytes();
    if let Some(at) = memchr::memmem::find(&bytes, BAD_UTF8.as_bytes()) {
        bytes.splice(at..at + BAD_UTF8.len(), *b"\xff\xc3\x28");
    }
    bytes
}

/// Type and code of an error, as the dialect would have them for this status.
pub(crate) fn error_words(script: &Script, api: Api, status: u16) -> (String, Option<String>, String) {
    let (openai_type, openai_code, anthropic_type) = match status {
        400 | 413 | 422 => ("invalid_request_error", None, "invalid_request_error"),
        401 => ("invalid_request_error", Some("invalid_api_key"), "authentication_error"),
        403 => ("permission_error", None, "permission_error"),
        404 => ("invalid_request_error", Some("model_not_found"), "not_found_error"),
        429 => ("requests", Some("rate_limit_exceeded"), "rate_limit_error"),
        503 | 529 => ("server_error", Some("overloaded"), "overloaded_error"),
        _ => ("server_error", Some("server_error"), "api_error"),
    };
    let of_dialect = if api == Api::Messages { anthropic_type } else { openai_type };
    (
        script.error_type.clone().unwrap_or_else(|| of_dialect.to_owned()),
        script.error_code.clone().or_else(|| openai_code.map(str::to_owned)),
        script.error_message.clone().unwrap_or_else(|| "The script asked for this error.".to_owned()),
    )
}
