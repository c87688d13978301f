//! The OpenAI dialect: chat completions, completions and responses, as OpenAI and its many imitators send them.
//!
//! Events are read for what they mean, never checked: a shape that we do not know is passed on untouched.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chat::{Api, Kind, Meaning, UpstreamFault, Usage, is_fault};
use super::json::{Object, Present, tag};
use crate::base::reject::Reject;

/// The status that an overloaded provider answers with.
pub(super) const OVERLOADED: u16 = 503;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    choices: Choices<'a>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// Responses API: the response so far.
    #[serde(borrow)]
    response: Object<Response<'a>>,
    /// Responses API and audio: the piece that an event adds.
    delta: Present,
    #[serde(borrow)]
    item: Object<Typed<'a>>,
    /// Older vLLM: `"error"`, with code and message beside it.
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    /// Old Baidu hosts.
    #[serde(borrow)]
    error_code: Option<&'a RawValue>,
    /// Old MiniMax hosts.
    base_resp: Object<BaseResp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BaseResp {
    status_code: super::json::Count,
}

/// All choices of a chunk, folded into what they say together.
#[derive(Default)]
struct Choices<'a> {
    count: usize,
    content: bool,
    finish: bool,
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice<'a> {
    delta: Object<Delta>,
    /// Some hosts send whole messages as chunks.
    message: Object<Delta>,
    /// Completions.
    text: Present,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    /// Old Kimi hosts.
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// Everything that a model can add to an answer; `role` is not among it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Delta {
    content: Present,
    reasoning_content: Present,
    reasoning: Present,
    reasoning_details: Present,
    thinking: Present,
    tool_calls: Present,
    function_call: Present,
    refusal: Present,
    audio: Present,
    images: Present,
}

impl Delta {
    fn is_content(&self) -> bool {
        [
            self.content,
            self.reasoning_content,
            self.reasoning,
            self.reasoning_details,
            self.thinking,
            self.tool_calls,
            self.function_call,
            self.refusal,
            self.audio,
            self.images,
        ]
        .iter()
        .any(|part| part.0)
    }
}

impl<'a> Choices<'a> {
    fn add(&mut self, choice: Choice<'a>) {
        let says_content = |delta: &Object<Delta>| delta.0.as_ref().is_some_and(Delta::is_content);
        self.count += 1;
        self.content |= choice.text.0 || says_content(&choice.delta) || says_content(&choice.message);
        // Some hosts write "" or "null" for "not yet".
        self.finish |= choice.finish_reason.is_some_and(|reason| !matches!(tag(reason), "" | "null"));
        self.usage = choice.usage.or(self.usage);
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Choices<'a>, D::Error> {
        from.deserialize_any(ChoicesVisitor)
    }
}

struct ChoicesVisitor;

impl<'de> Visitor<'de> for ChoicesVisitor {
    type Value = Choices<'de>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("choices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Choices<'de>, A::Error> {
        let mut choices = Choices::default();
        while let Some(Object(choice)) = elements.next_element::<Object<Choice<'de>>>()? {
            choices.add(choice.unwrap_or_default());
        }
        Ok(choices)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choices<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Choices::default())
    }

    fn visit_unit<E>(self) -> Result<Choices<'de>, E> {
        Ok(Choices::default())
    }
}

/// What one event of an OpenAI stream means. `event` is the frame's event name, empty in most streams.
///
/// Data that is no JSON object is [`Kind::Other`], except for `[DONE]`, for no data at all, and in an event named `error`.
pub fn read_event(event: &[u8], data: &[u8]) -> Meaning {
    let data = data.trim_ascii();
    if data == b"[DONE]" {
        return Meaning::of(Kind::End);
    }
    if data.is_empty() {
        return Meaning::of(Kind::Lifecycle);
    }
    if event.is_empty() && is_plain_text(data) {
        return Meaning::of(Kind::Content);
    }
    let parsed = if data[0] == b'{' { serde_json::from_slice::<Event<'_>>(data).ok() } else { None };
    match parsed {
        Some(parsed) => parsed.meaning(event, data),
        None if event == b"error" => Meaning::fault(UpstreamFault::of_text(data, OVERLOADED)),
        None => Meaning::of(Kind::Other),
    }
}

/// True for the chunk that nearly all are: some text, no reason to finish, nothing told of usage or failure.
///
/// Decided by spellings that cannot stand within a JSON string, where their quotes would be escaped. They are
/// those of compact JSON; any other is read in full, which says the same and takes ten times as long.
fn is_plain_text(data: &[u8]) -> bool {
    static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""delta":{"content":""#));
    static GOING_ON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""finish_reason":"#));
    static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""usage""#));
    static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""error"#));
    static OLD_ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br#""base_resp""#));
    let followed_by = |finder: &Finder<'_>, by: &[u8]| {
        // One place only, so that no second one says otherwise.
        let at = finder.find(data)? + finder.needle().len();
        let rest = data.get(at..)?;
        Some(rest.starts_with(by) && finder.find(rest).is_none())
    };
    let text = TEXT.find(data).and_then(|at| data.get(at + TEXT.needle().len()));
    text.is_some_and(|first| *first != b'"')
        && data.ends_with(b"}")
        && followed_by(&GOING_ON, b"null") == Some(true)
        && followed_by(&USAGE, b":null") != Some(false)
        && ERROR.find(data).is_none()
        && OLD_ERROR.find(data).is_none()
}

impl Event<'_> {
    fn meaning(&self, event: &[u8], data: &[u8]) -> Meaning {
        if let Some(fault) = self.fault(event, data) {
            return Meaning { usage: self.usage(), ..Meaning::fault(fault) };
        }
        Meaning { kind: self.kind(), usage: self.usage(), error: None }
    }

    fn usage(&self) -> Option<Usage> {
        let response = self.response.0.as_ref().and_then(|response| response.usage);
        [self.usage, self.choices.usage, response].into_iter().flatten().find_map(|raw| Usage::read(raw.get()))
    }

    fn fault(&self, event: &[u8], data: &[u8]) -> Option<UpstreamFault> {
        let kind = self.kind.map_or("", tag);
        let response = self.response.0.as_ref().and_then(|response| response.error);
        let inner = [self.error, response].into_iter().find(|raw| is_fault(*raw)).flatten();
        if let Some(inner) = inner {
            return Some(UpstreamFault::read(inner.get(), OVERLOADED));
        }
        let told = event == b"error"
            || matches!(kind, "error" | "response.failed")
            || self.object.is_some_and(|object| tag(object) == "error")
            || is_fault(self.error_code)
            || self.base_resp.0.as_ref().and_then(|resp| resp.status_code.0).is_some_and(|code| code != 0);
        // The whole event is the error object.
        told.then(|| UpstreamFault::read(&String::from_utf8_lossy(data), OVERLOADED))
    }

    fn kind(&self) -> Kind {
        if self.choices.finish {
            return Kind::Finish;
        }
        if self.choices.content {
            return Kind::Content;
        }
        if self.choices.count > 0 {
            return Kind::Lifecycle;
        }
        if let Some(kind) = self.kind {
            return self.typed(tag(kind));
        }
        let chunk =
            self.object.is_some_and(|object| matches!(tag(object), "chat.completion.chunk" | "text_completion"));
        match self.usage {
            Some(usage) if Usage::read(usage.get()).is_some() => Kind::Usage,
            // Azure opens with a chunk of filter results without a choice.
            _ if chunk => Kind::Lifecycle,
            _ => Kind::Other,
        }
    }

    /// Typed events: the responses API, audio and images.
    fn typed(&self, kind: &str) -> Kind {
        match kind {
            "response.completed" | "response.incomplete" | "response.cancelled" => Kind::End,
            "transcript.text.done" | "speech.audio.done" => Kind::End,
            "response.created" | "response.queued" | "response.in_progress" | "ping" | "keepalive" => Kind::Lifecycle,
            "response.content_part.added" | "response.reasoning_summary_part.added" => Kind::Lifecycle,
            // A tool call starts with its name; a message or reasoning starts empty.
            "response.output_item.added" => match self.item.0.as_ref().and_then(|item| item.kind).map_or("", tag) {
                "message" | "reasoning" => Kind::Lifecycle,
                _ => Kind::Content,
            },
            _ if kind.ends_with(".delta") => {
                if self.delta.0 {
                    Kind::Content
                } else {
                    Kind::Lifecycle
                }
            }
            _ if kind.starts_with("response.") && kind.ends_with(".done") => Kind::Content,
            _ => Kind::Other,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorObject<'a>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'static str>,
    code: &'a str,
}

/// The `error` event of the responses API.
#[derive(Serialize)]
struct ErrorEvent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'a str,
    message: &'a str,
    param: Option<&'static str>,
    sequence_number: u64,
}

fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// `{"error":{"message","type","param","code"}}`.
pub fn error_body(reject: &Reject) -> Vec<u8> {
    let body = ErrorBody {
        error: ErrorObject {
            message: &reject.message,
            kind: error_type(reject.status),
            param: reject.param,
            code: &reject.code,
        },
    };
    // Strings and numbers alone: writing them into memory can't fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The event that ends a failed stream of `api`, whole. `[DONE]` must not follow it.
///
/// The `sequence_number` that the responses API wants is 0: the events before it are not counted.
pub fn error_event(api: Api, reject: &Reject) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    if api == Api::Responses {
        let event = ErrorEvent {
            kind: "error",
            code: &reject.code,
            message: &reject.message,
            param: reject.param,
            sequence_number: 0,
        };
        super::sse::write_event(&mut out, Some("error"), &serde_json::to_vec(&event).unwrap_or_default());
    } else {
        super::sse::write_event(&mut out, None, &error_body(reject));
    }
    out
}

#[cfg(test)]
mod tests;
