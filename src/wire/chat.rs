//! What an event or an answer of a language model means to the relay, whatever its dialect.
//!
//! It decides what commits an answer, what counts as a token, what ends a stream, and how the many shapes of usage
//! and errors read. It does not hold text, and it does not translate between dialects.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Count, Object, bounded, present, text};

/// Tokens as the provider reported them; `None` where it said nothing.
///
/// The counts are not made comparable: OpenAI's `input` includes what came from the cache, Anthropic's does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the request.
    pub input: Option<u64>,
    /// Tokens of the answer, reasoning included.
    pub output: Option<u64>,
    /// Input tokens read from the provider's cache.
    pub cached_input: Option<u64>,
    /// Input tokens written into the provider's cache.
    pub cache_creation_input: Option<u64>,
    /// Output tokens spent on reasoning.
    pub reasoning_output: Option<u64>,
    /// The provider's own sum.
    pub total: Option<u64>,
}

impl Usage {
    /// Takes over what `later` says. Reports within one answer are cumulative, so the later number counts,
    /// except that a zero takes no earlier number back.
    pub fn merge(&mut self, later: Usage) {
        for (mine, later) in [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.cached_input, later.cached_input),
            (&mut self.cache_creation_input, later.cache_creation_input),
            (&mut self.reasoning_output, later.reasoning_output),
            (&mut self.total, later.total),
        ] {
            if later.is_some_and(|later| later > 0) || mine.is_none() {
                *mine = later.or(*mine);
            }
        }
    }

    /// Reads the value of a `usage` field in any known shape; `None` if it holds no count.
    pub fn read(json: &str) -> Option<Usage> {
        let Object(shape) = serde_json::from_str::<Object<UsageShape>>(json).ok()?;
        let shape = shape?;
        let input_details = shape.prompt_tokens_details.0.or(shape.input_tokens_details.0).unwrap_or_default();
        let output_details = shape.completion_tokens_details.0.or(shape.output_tokens_details.0).unwrap_or_default();
        let usage = Usage {
            input: shape.prompt_tokens.0.or(shape.input_tokens.0),
            output: shape.completion_tokens.0.or(shape.output_tokens.0),
            cached_input: (input_details.cached_tokens.0)
                .or(shape.cache_read_input_tokens.0)
                .or(shape.prompt_cache_hit_tokens.0)
                .or(shape.cached_tokens.0),
            cache_creation_input: shape.cache_creation_input_tokens.0.or(input_details.cache_creation_tokens.0),
            reasoning_output: output_details.reasoning_tokens.0.or(shape.reasoning_tokens.0),
            total: shape.total_tokens.0,
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// Every name under which the dialects and their imitators report tokens.
#[derive(Deserialize, Default)]
#[serde(default)]
struct UsageShape {
    prompt_tokens: Count,
    completion_tokens: Count,
    input_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Object<Details>,
    completion_tokens_details: Object<Details>,
    input_tokens_details: Object<Details>,
    output_tokens_details: Object<Details>,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    /// DeepSeek.
    prompt_cache_hit_tokens: Count,
    /// Kimi.
    cached_tokens: Count,
    /// xAI and older hosts.
    reasoning_tokens: Count,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_creation_tokens: Count,
    reasoning_tokens: Count,
}

/// What one event means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// What it is to the relay.
    pub kind: Kind,
    /// The usage it reports, if it does; any kind may.
    pub usage: Option<Usage>,
    /// The failure it reports; `Some` exactly if `kind` is [`Kind::Error`].
    pub error: Option<UpstreamFault>,
}

impl Meaning {
    /// An event that says nothing but its kind.
    pub fn of(kind: Kind) -> Meaning {
        Meaning { kind, usage: None, error: None }
    }

    /// An event that reports a failure.
    pub fn fault(fault: UpstreamFault) -> Meaning {
        Meaning { kind: Kind::Error, usage: None, error: Some(fault) }
    }
}

/// What an event is to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nothing was generated yet or any more: roles, pings, empty deltas, starts and stops of blocks.
    Lifecycle,
    /// Text, reasoning, a tool call, a refusal or audio. The first one commits the answer.
    Content,
    /// Says why generation stopped, perhaps with the last content; commits too.
    Finish,
    /// Only usage: the extra chunk that `include_usage` asks for.
    Usage,
    /// The dialect's own end: `[DONE]`, `message_stop`, `response.completed` and their like.
    End,
    /// A failure told inside a stream.
    Error,
    /// Anything else, JSON or not: passed on at once, and taken for content.
    Other,
}

impl Kind {
    /// True if the client must see this event, so that the answer can't be replaced by another one any more.
    pub fn commits(self) -> bool {
        matches!(self, Kind::Content | Kind::Finish | Kind::End | Kind::Other)
    }
}

/// The API of a path below `/v1` in the OpenAI dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/responses` and what lies below it.
    Responses,
    /// Any other, Anthropic's included.
    Other,
}

impl Api {
    /// The API of a request path (without its query).
    pub fn of_path(path: &str) -> Api {
        match path.strip_prefix("/v1/") {
            Some("chat/completions") => Api::Chat,
            Some("completions") => Api::Completions,
            Some(rest) if rest == "responses" || rest.starts_with("responses/") => Api::Responses,
            _ => Api::Other,
        }
    }

    /// The word used for this API in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Api::Chat => "chat",
            Api::Completions => "completions",
            Api::Responses => "responses",
            Api::Other => "other",
        }
    }

    /// True if a streamed request may carry `stream_options.include_usage`.
    pub fn takes_include_usage(self) -> bool {
        matches!(self, Api::Chat | Api::Completions)
    }
}

/// True if a body sent to `path` (without its query) is JSON whatever its Content-Type says, so that its model can be
/// read: the APIs that generate from JSON and what lies below them. However a provider would find the path spelled
/// (escapes, case, repeated slashes), it counts as the plain one.
pub fn takes_json(path: &str) -> bool {
    const APIS: [&str; 9] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/rerank",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/audio/speech",
    ];
    let path = plain_path(path);
    let below = |api: &str| path.strip_prefix(api).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    APIS.into_iter().any(below)
}

/// `path` with escapes undone, slashes joined and letters small.
fn plain_path(path: &str) -> String {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let escaped = if *first == b'%' { digit(0).zip(digit(1)) } else { None };
        let (byte, taken) = escaped.map_or((*first, 1), |(high, low)| (high << 4 | low, 3));
        if byte != b'/' || plain.last() != Some(&b'/') {
            plain.push(byte.to_ascii_lowercase());
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// True if a success on `path` (without its query) is a freshly generated answer, in which an `error` in place of the
/// content tells of a failure. Elsewhere an `error` may be part of a healthy answer: why a batch or a fine-tuning job
/// failed, or a stored response.
pub fn judges_answer(method: &str, path: &str) -> bool {
    method == "POST"
        && matches!(
            path.strip_prefix("/v1/"),
            Some("chat/completions" | "completions" | "embeddings" | "responses" | "messages" | "rerank")
        )
}

/// A failure that a provider told of in a body or an event. Texts are bounded: 128 bytes, the message 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamFault {
    /// The HTTP status it would have had outside of a stream, 400 to 599; 502 if nothing tells.
    pub status: u16,
    /// The provider's code, if it gave one.
    pub code: Option<String>,
    /// The provider's `type`, if it gave one.
    pub kind: Option<String>,
    /// The provider's words; may be empty.
    pub message: String,
}

const LABEL_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Deserialize, Default)]
#[serde(default)]
struct FaultShape<'a> {
    #[serde(borrow)]
    code: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    status_code: Option<&'a RawValue>,
}

impl UpstreamFault {
    /// Reads the value of an `error` field: an object, a text, or anything else. `overloaded` is the dialect's status
    /// for an overloaded provider, 503 or 529.
    pub fn read(json: &str, overloaded: u16) -> UpstreamFault {
        let parsed = serde_json::from_str::<Object<FaultShape<'_>>>(json).ok();
        let Some(Object(Some(shape))) = parsed else {
            let message = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned());
            return UpstreamFault::new(None, None, message, overloaded);
        };
        let label = |raw: Option<&RawValue>| {
            raw.and_then(|raw| text(raw.get())).map(|text| bounded(&text, LABEL_BYTES_MAX).to_owned())
        };
        let (code, kind) = (label(shape.code), label(shape.kind));
        let message = shape.message.and_then(|raw| text(raw.get())).unwrap_or_default().into_owned();
        let mut fault = UpstreamFault::new(code, kind, message, overloaded);
        let numbers = [shape.code, shape.status, shape.status_code];
        let told = numbers.into_iter().flatten().find_map(|raw| text(raw.get())?.parse::<u16>().ok());
        let status = shape.status.and_then(|raw| text(raw.get()));
        if let Some(told) = told.filter(|told| (400..=599).contains(told)) {
            fault.status = told;
        } else if fault.status == 502 {
            let known = status.and_then(|status| status_of_label(&status, overloaded));
            fault.status = known.unwrap_or(502);
        }
        fault
    }

    /// A failure told in plain text.
    pub fn of_text(words: &[u8], overloaded: u16) -> UpstreamFault {
        UpstreamFault::new(None, None, String::from_utf8_lossy(words).into_owned(), overloaded)
    }

    fn new(code: Option<String>, kind: Option<String>, message: String, overloaded: u16) -> UpstreamFault {
        // The code is the finer one: a type of invalid_request_error often comes with a code that says more.
        let known = [&code, &kind].into_iter().flatten().find_map(|label| status_of_label(label, overloaded));
        let message =
            if message.len() > MESSAGE_BYTES_MAX { bounded(&message, MESSAGE_BYTES_MAX).to_owned() } else { message };
        UpstreamFault { status: known.unwrap_or(502), code, kind, message }
    }
}

/// The status that a `code` or `type` stands for. Providers spell them in many ways; a part of the word decides.
fn status_of_label(label: &str, overloaded: u16) -> Option<u16> {
    let label: String = label.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let parts: [(&[&str], u16); 12] = [
        (&["overload"], overloaded),
        (&["ratelimit", "quota", "toomanyrequests", "resourceexhausted", "throttl"], 429),
        (&["unavailable"], 503),
        (&["timeout", "timedout", "deadline"], 504),
        (&["authentication", "unauthorized", "unauthenticated", "apikey"], 401),
        (&["billing", "insufficientbalance"], 402),
        (&["permission", "forbidden"], 403),
        (&["notfound"], 404),
        (&["toolarge"], 413),
        (&["contextlength", "contentfilter", "contentpolicy"], 400),
        (&["servererror", "apierror", "internal"], 502),
        (&["invalid", "badrequest"], 400),
    ];
    parts.into_iter().find(|(words, _)| words.iter().any(|word| label.contains(word))).map(|(_, status)| status)
}

/// True if the value of an `error` field tells of a failure: not null, false, zero or empty, nor an object whose members
/// are all null or empty.
pub(super) fn is_fault(raw: Option<&RawValue>) -> bool {
    let Some(raw) = raw else { return false };
    if !present(raw.get()) || matches!(raw.get(), "false" | "0") {
        return false;
    }
    let members = serde_json::from_str::<HashMap<String, &RawValue>>(raw.get());
    members.map_or(true, |members| members.values().any(|member| present(member.get())))
}

#[cfg(test)]
mod tests;
