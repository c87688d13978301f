//! Anthropic's shapes: messages, token counts, errors.

use serde_json::{Value, json};

use super::answer::{Api, Ask, Event, Kind, Says, error_words};
use super::script::{Script, Usage};
use super::text::quote;

const ARGUMENTS: &[&str] = &["", "{\"city\"", ": \"Paris\"}"];

/// The error object of this family.
pub(crate) fn error(script: &Script, status: u16) -> String {
    let (kind, _, message) = error_words(script, Api::Messages, status);
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_mock"}).to_string()
}

/// The error event inside a stream: what status 529 is outside one.
pub(crate) fn error_event(script: &Script) -> Event {
    let (kind, _, message) = error_words(script, Api::Messages, if script.status >= 400 { script.status } else { 529 });
    let data = json!({"type": "error", "error": {"type": kind, "message": message}});
    Event { kind: Kind::Done, name: Some("error"), data: data.to_string() }
}

fn stop_reason(script: &Script, says: &Says) -> &'static str {
    match (script.tool, says.limited) {
        (true, _) => "tool_use",
        (_, true) => "max_tokens",
        _ => "end_turn",
    }
}

fn usage(script: &Script, says: &Says, output_tokens: u32) -> Value {
    if script.usage == Usage::None {
        return json!({"input_tokens": 0, "output_tokens": 0});
    }
    json!({"input_tokens": says.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
           "output_tokens": output_tokens, "service_tier": "standard"})
}

/// A message, unstreamed.
pub(crate) fn message(script: &Script, ask: &Ask) -> String {
    let says = Says::new(script, ask, "msg_");
    let mut content = Vec::new();
    if !says.reasoning.is_empty() {
        content.push(json!({"type": "thinking", "thinking": says.reasoning.concat(), "signature": "bW9jaw=="}));
    }
    content.push(if script.tool {
        json!({"type": "tool_use", "id": says.call_id, "name": "get_weather", "input": {"city": "Paris"}})
    } else {
        json!({"type": "text", "text": says.text()})
    });
    json!({"id": says.id, "type": "message", "role": "assistant", "model": ask.model, "content": content,
           "stop_reason": stop_reason(script, &says), "stop_sequence": null,
           "usage": usage(script, &says, says.tokens)})
    .to_string()
}

/// A message as events, `message_start` to `message_stop`.
pub(crate) fn message_events(script: &Script, ask: &Ask) -> Vec<Event> {
    let says = Says::new(script, ask, "msg_");
    let mut events = Vec::new();
    let mut push = |kind, name, data: String| events.push(Event { kind, name: Some(name), data });
    let start = json!({"type": "message_start", "message": {
        "id": says.id, "type": "message", "role": "assistant", "model": ask.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(script, &says, 1)}});
    push(Kind::Lifecycle, "message_start", start.to_string());
    let ping = || "{\"type\":\"ping\"}".to_owned();
    push(Kind::Lifecycle, "ping", ping());
    let mut index = 0;
    let block_start = |index: u32, block: Value| {
        json!({"type": "content_block_start", "index": index, "content_block": block}).to_string()
    };
    let delta = |index: u32, kind: &str, key: &str, value: &str| {
        format!(
            "{{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{key}\":{}}}}}",
            quote(value)
        )
    };
    let stop = |index: u32| format!("{{\"type\":\"content_block_stop\",\"index\":{index}}}");
    if !says.reasoning.is_empty() {
        let block = json!({"type": "thinking", "thinking": "", "signature": ""});
        push(Kind::Lifecycle, "content_block_start", block_start(index, block));
        for piece in &says.reasoning {
            push(Kind::Content, "content_block_delta", delta(index, "thinking_delta", "thinking", piece));
        }
        let signature = delta(index, "signature_delta", "signature", "bW9jaw==");
        push(Kind::Lifecycle, "content_block_delta", signature);
        push(Kind::Lifecycle, "content_block_stop", stop(index));
        index += 1;
    }
    if script.tool {
        let block = json!({"type": "tool_use", "id": says.call_id, "name": "get_weather", "input": {}});
        push(Kind::Lifecycle, "content_block_start", block_start(index, block));
        for part in ARGUMENTS {
            push(Kind::Content, "content_block_delta", delta(index, "input_json_delta", "partial_json", part));
        }
    } else {
        push(Kind::Lifecycle, "content_block_start", block_start(index, json!({"type": "text", "text": ""})));
        for (at, piece) in says.pieces.iter().enumerate() {
            push(Kind::Content, "content_block_delta", delta(index, "text_delta", "text", piece));
            // Pings may stand anywhere; here is one in the middle.
            if at == says.pieces.len() / 2 {
                push(Kind::Lifecycle, "ping", ping());
            }
        }
    }
    push(Kind::Finish, "content_block_stop", stop(index));
    let mut last = json!({"type": "message_delta",
        "delta": {"stop_reason": stop_reason(script, &says), "stop_sequence": null}});
    if script.usage != Usage::None {
        last["usage"] = json!({"output_tokens": says.tokens});
    }
    push(Kind::Finish, "message_delta", last.to_string());
    push(Kind::Done, "message_stop", "{\"type\":\"message_stop\"}".to_owned());
    events
}

/// The answer of `count_tokens`.
pub(crate) fn count_tokens(script: &Script) -> String {
    json!({"input_tokens": script.prompt_tokens}).to_string()
}
