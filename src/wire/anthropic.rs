//! The Anthropic dialect: the Messages API and those who imitate it.
//!
//! Every event names its type twice, in the frame and in the data; the data counts, the frame stands in for it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chat::{Kind, Meaning, UpstreamFault, Usage, is_fault};
use super::json::{Object, Present, tag};
use crate::base::reject::Reject;

/// The status that an overloaded provider answers with.
pub(super) const OVERLOADED: u16 = 529;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Object<Message<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    content_block: Object<Block<'a>>,
    delta: Object<Delta>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    text: Present,
    thinking: Present,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Delta {
    text: Present,
    thinking: Present,
    partial_json: Present,
    signature: Present,
    citation: Present,
    stop_reason: Present,
}

/// What one event of an Anthropic stream means. `event` is the frame's event name.
///
/// Data that is no JSON object is [`Kind::Other`], except for no data at all, and in an event named `error`.
pub fn read_event(event: &[u8], data: &[u8]) -> Meaning {
    let data = data.trim_ascii();
    if data.is_empty() {
        return Meaning::of(Kind::Lifecycle);
    }
    let parsed = if data[0] == b'{' { serde_json::from_slice::<Event<'_>>(data).ok() } else { None };
    match parsed {
        Some(parsed) => parsed.meaning(event, data),
        None if event == b"error" => Meaning::fault(UpstreamFault::of_text(data, OVERLOADED)),
        None => Meaning::of(Kind::Other),
    }
}

impl Event<'_> {
    fn meaning(&self, event: &[u8], data: &[u8]) -> Meaning {
        let kind = self.kind.map_or(event, |kind| tag(kind).as_bytes());
        let usage = (self.usage).or_else(|| self.message.0.as_ref()?.usage).and_then(|raw| Usage::read(raw.get()));
        if let Some(error) = self.error.filter(|error| is_fault(Some(error))) {
            return Meaning { usage, ..Meaning::fault(UpstreamFault::read(error.get(), OVERLOADED)) };
        }
        if kind == b"error" || event == b"error" {
            // The whole event is the error object.
            let fault = UpstreamFault::read(&String::from_utf8_lossy(data), OVERLOADED);
            return Meaning { usage, ..Meaning::fault(fault) };
        }
        Meaning { kind: self.kind(kind), usage, error: None }
    }

    fn kind(&self, kind: &[u8]) -> Kind {
        match kind {
            b"content_block_delta" => self.delta.0.as_ref().map_or(Kind::Other, Delta::kind),
            b"content_block_start" => self.content_block.0.as_ref().map_or(Kind::Other, Block::kind),
            b"message_delta" if self.delta.0.as_ref().is_some_and(|delta| delta.stop_reason.0) => Kind::Finish,
            b"message_start" | b"message_delta" | b"content_block_stop" | b"ping" => Kind::Lifecycle,
            b"message_stop" => Kind::End,
            _ => Kind::Other,
        }
    }
}

impl Block<'_> {
    fn kind(&self) -> Kind {
        match self.kind.map_or("", tag) {
            "text" | "thinking" if !self.text.0 && !self.thinking.0 => Kind::Lifecycle,
            // Text given at once, or a block that says something by its start: tool_use, redacted_thinking, …
            _ => Kind::Content,
        }
    }
}

impl Delta {
    fn kind(&self) -> Kind {
        let parts = [self.text, self.thinking, self.partial_json, self.signature, self.citation];
        if parts.iter().any(|part| part.0) { Kind::Content } else { Kind::Lifecycle }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// `{"type":"error","error":{"type","message"}}`, with `request_id` if there is one. This dialect has no codes.
pub fn error_body(reject: &Reject, request_id: Option<&str>) -> Vec<u8> {
    let error = ErrorObject { kind: error_type(reject.status), message: &reject.message };
    // Strings alone: writing them into memory can't fail.
    serde_json::to_vec(&ErrorBody { kind: "error", error, request_id }).unwrap_or_default()
}

/// The event that ends a failed stream, whole. `message_stop` must not follow it.
pub fn error_event(reject: &Reject) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    super::sse::write_event(&mut out, Some("error"), &error_body(reject, None));
    out
}

#[cfg(test)]
mod tests;
