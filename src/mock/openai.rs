//! OpenAI's shapes: chat completions, completions, responses, embeddings, models, errors.
//!
//! Field order and presence follow the API reference, so that the official SDKs parse every answer.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::answer::{Api, Ask, CREATED, Event, Kind, Says, error_words};
use super::script::{Script, Usage};
use super::text::{Rng, base64, mix, quote};

const FINGERPRINT: &str = "fp_mock000001";
const ARGUMENTS: &[&str] = &["{\"city\"", ":\"Par", "is\"}"];

/// The error object of this family.
pub(crate) fn error(script: &Script, api: Api, status: u16) -> String {
    let (kind, code, message) = error_words(script, api, status);
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

/// The error event inside a stream of this family.
pub(crate) fn error_event(script: &Script, api: Api) -> Event {
    let status = if script.status >= 400 { script.status } else { 500 };
    if api == Api::Responses {
        let (_, code, message) = error_words(script, api, status);
        let data = json!({"type": "error", "code": code, "message": message, "param": null, "sequence_number": 1});
        return Event { kind: Kind::Done, name: Some("error"), data: data.to_string() };
    }
    Event { kind: Kind::Done, name: None, data: error(script, api, status) }
}

fn usage(says: &Says, tokens: u32) -> String {
    format!(
        "{{\"prompt_tokens\":{},\"completion_tokens\":{tokens},\"total_tokens\":{},\
         \"prompt_tokens_details\":{{\"cached_tokens\":0,\"audio_tokens\":0}},\
         \"completion_tokens_details\":{{\"reasoning_tokens\":{},\"audio_tokens\":0,\
         \"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}}",
        says.prompt_tokens,
        says.prompt_tokens + tokens,
        says.reasoning.len(),
    )
}

fn finish_reason(script: &Script, says: &Says) -> &'static str {
    match (script.tool, says.limited) {
        (true, _) => "tool_calls",
        (_, true) => "length",
        _ => "stop",
    }
}

/// A chat completion, unstreamed.
pub(crate) fn chat(script: &Script, ask: &Ask) -> String {
    let says = Says::new(script, ask, "chatcmpl-");
    let mut message = if script.tool {
        format!(
            "\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"annotations\":[],\"tool_calls\":[{{\"id\":{},\
             \"type\":\"function\",\"function\":{{\"name\":\"get_weather\",\"arguments\":{}}}}}]",
            quote(&says.call_id),
            quote(&ARGUMENTS.concat())
        )
    } else {
        format!("\"role\":\"assistant\",\"content\":{},\"refusal\":null,\"annotations\":[]", quote(&says.text()))
    };
    if !says.reasoning.is_empty() {
        let _ = write!(message, ",\"reasoning_content\":{}", quote(&says.reasoning.concat()));
    }
    let usage = match script.usage {
        Usage::None => String::new(),
        _ => format!("\"usage\":{},", usage(&says, says.tokens)),
    };
    format!(
        "{{\"id\":{},\"object\":\"chat.completion\",\"created\":{CREATED},\"model\":{},\
         \"choices\":[{{\"index\":0,\"message\":{{{message}}},\"logprobs\":null,\"finish_reason\":\"{}\"}}],\
         {usage}\"service_tier\":\"default\",\"system_fingerprint\":\"{FINGERPRINT}\"}}",
        quote(&says.id),
        quote(&ask.model),
        finish_reason(script, &says),
    )
}

/// A chat completion as chunks. `[DONE]` included.
pub(crate) fn chat_events(script: &Script, ask: &Ask) -> Vec<Event> {
    let says = Says::new(script, ask, "chatcmpl-");
    let placement = match script.usage {
        Usage::Asked if ask.include_usage => Usage::Final,
        Usage::Asked => Usage::None,
        placement => placement,
    };
    let head = format!(
        "{{\"id\":{},\"object\":\"chat.completion.chunk\",\"created\":{CREATED},\"model\":{},\
         \"service_tier\":\"default\",\"system_fingerprint\":\"{FINGERPRINT}\"",
        quote(&says.id),
        quote(&ask.model)
    );
    let mut sent = 0;
    let mut events = Vec::new();
    let mut chunk = |kind, delta: &str, tokens: u32, finish: Option<&str>| {
        sent += tokens;
        let in_choice = match (placement, finish) {
            (Usage::InChoice, Some(_)) => format!(",\"usage\":{}", usage(&says, says.tokens)),
            _ => String::new(),
        };
        let outside = match (placement, finish) {
            (Usage::Final, _) => ",\"usage\":null".to_owned(),
            (Usage::Every, _) => format!(",\"usage\":{}", usage(&says, sent)),
            (Usage::Finish, Some(_)) => format!(",\"usage\":{}", usage(&says, says.tokens)),
            _ => String::new(),
        };
        let finish = finish.map_or("null".to_owned(), quote);
        let data = format!(
            "{head},\"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\
             \"finish_reason\":{finish}{in_choice}}}]{outside}}}"
        );
        events.push(Event { kind, name: None, data });
    };
    if script.role {
        chunk(Kind::Lifecycle, "{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", 0, None);
    }
    for piece in &says.reasoning {
        chunk(Kind::Content, &format!("{{\"reasoning_content\":{}}}", quote(piece)), 1, None);
    }
    if script.tool {
        let first = format!(
            "{{\"tool_calls\":[{{\"index\":0,\"id\":{},\"type\":\"function\",\
             \"function\":{{\"name\":\"get_weather\",\"arguments\":\"\"}}}}]}}",
            quote(&says.call_id)
        );
        chunk(Kind::Content, &first, 0, None);
        for part in ARGUMENTS {
            let delta = format!("{{\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":{}}}}}]}}", quote(part));
            chunk(Kind::Content, &delta, 0, None);
        }
    } else {
        let total = says.tokens - says.reasoning.len() as u32;
        for (at, piece) in says.pieces.iter().enumerate() {
            let before = at as u32 * script.tokens_per_event;
            let tokens = script.tokens_per_event.min(total - before);
            chunk(Kind::Content, &format!("{{\"content\":{}}}", quote(piece)), tokens, None);
        }
    }
    // A tool call's tokens are not spread over its fragments; the last chunk has the whole sum.
    let rest = if script.tool { says.tokens - says.reasoning.len() as u32 } else { 0 };
    chunk(Kind::Finish, "{}", rest, Some(finish_reason(script, &says)));
    let choices = match placement {
        Usage::Final => Some("[]"),
        Usage::NullChoices => Some("null"),
        _ => None,
    };
    if let Some(choices) = choices {
        let data = format!("{head},\"choices\":{choices},\"usage\":{}}}", usage(&says, says.tokens));
        events.push(Event { kind: Kind::Finish, name: None, data });
    }
    events.push(done());
    events
}

fn done() -> Event {
    Event { kind: Kind::Done, name: None, data: "[DONE]".into() }
}

/// A legacy completion, unstreamed.
pub(crate) fn completion(script: &Script, ask: &Ask) -> String {
    let says = Says::new(script, ask, "cmpl-");
    completion_object(ask, &says, &says.text(), Some(finish_reason(script, &says)), true)
}

/// A legacy completion as chunks.
pub(crate) fn completion_events(script: &Script, ask: &Ask) -> Vec<Event> {
    let says = Says::new(script, ask, "cmpl-");
    let event = |kind, data| Event { kind, name: None, data };
    let mut events: Vec<Event> = says
        .pieces
        .iter()
        .map(|piece| event(Kind::Content, completion_object(ask, &says, piece, None, false)))
        .collect();
    let with_usage = ask.include_usage || !matches!(script.usage, Usage::Asked | Usage::None);
    let last = completion_object(ask, &says, "", Some(finish_reason(script, &says)), with_usage);
    events.push(event(Kind::Finish, last));
    events.push(done());
    events
}

fn completion_object(ask: &Ask, says: &Says, text: &str, finish: Option<&str>, with_usage: bool) -> String {
    let usage = if with_usage { format!(",\"usage\":{}", usage(says, says.tokens)) } else { String::new() };
    format!(
        "{{\"id\":{},\"object\":\"text_completion\",\"created\":{CREATED},\"model\":{},\
         \"choices\":[{{\"index\":0,\"text\":{},\"logprobs\":null,\"finish_reason\":{}}}]{usage}}}",
        quote(&says.id),
        quote(&ask.model),
        quote(text),
        finish.map_or("null".to_owned(), quote),
    )
}

fn response_object(script: &Script, ask: &Ask, says: &Says, text: Option<&str>) -> Value {
    let output = text.map_or(json!([]), |text| json!([item(says, "completed", Some(text))]));
    let usage = text.filter(|_| script.usage != Usage::None).map(|_| {
        json!({"input_tokens": says.prompt_tokens, "input_tokens_details": {"cached_tokens": 0},
               "output_tokens": says.tokens, "output_tokens_details": {"reasoning_tokens": says.reasoning.len()},
               "total_tokens": says.prompt_tokens + says.tokens})
    });
    json!({
        "id": says.id, "object": "response", "created_at": CREATED, "model": ask.model,
        "status": if text.is_some() { "completed" } else { "in_progress" },
        "error": null, "incomplete_details": null, "instructions": null, "max_output_tokens": null,
        "output": output, "parallel_tool_calls": true, "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null}, "store": false, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
    })
}

fn item(says: &Says, status: &str, text: Option<&str>) -> Value {
    let content = text.map_or(json!([]), |text| json!([part(text)]));
    json!({"id": format!("msg_{}", says.id), "type": "message", "status": status, "role": "assistant", "content": content})
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// A response, unstreamed.
pub(crate) fn response(script: &Script, ask: &Ask) -> String {
    let says = Says::new(script, ask, "resp_");
    response_object(script, ask, &says, Some(&says.text())).to_string()
}

/// A response as typed events.
pub(crate) fn response_events(script: &Script, ask: &Ask) -> Vec<Event> {
    let says = Says::new(script, ask, "resp_");
    let (text, id) = (says.text(), format!("msg_{}", says.id));
    let mut events: Vec<Event> = Vec::new();
    let mut push = |kind, name: &'static str, mut data: Value| {
        data["type"] = name.into();
        data["sequence_number"] = events.len().into();
        events.push(Event { kind, name: Some(name), data: data.to_string() });
    };
    let begun = response_object(script, ask, &says, None);
    let at = json!({"item_id": id, "output_index": 0, "content_index": 0});
    let with = |key: &str, value: Value| {
        let mut data = at.clone();
        data[key] = value;
        data
    };
    let life = Kind::Lifecycle;
    push(life, "response.created", json!({"response": begun}));
    push(life, "response.in_progress", json!({"response": begun}));
    let item_at = |item: Value| json!({"output_index": 0, "item": item});
    push(life, "response.output_item.added", item_at(item(&says, "in_progress", None)));
    push(life, "response.content_part.added", with("part", part("")));
    for piece in &says.pieces {
        let mut delta = with("delta", piece.as_str().into());
        delta["logprobs"] = json!([]);
        push(Kind::Content, "response.output_text.delta", delta);
    }
    let mut whole = with("text", text.as_str().into());
    whole["logprobs"] = json!([]);
    push(Kind::Finish, "response.output_text.done", whole);
    push(Kind::Finish, "response.content_part.done", with("part", part(&text)));
    push(Kind::Finish, "response.output_item.done", item_at(item(&says, "completed", Some(&text))));
    let completed = response_object(script, ask, &says, Some(&text));
    push(Kind::Done, "response.completed", json!({"response": completed}));
    events
}

/// Embeddings: one per input, as floats or base64 of little-endian f32 as `encoding_format` asks.
pub(crate) fn embeddings(script: &Script, ask: &Ask, body: &Value) -> String {
    let inputs = match &body["input"] {
        // An array of numbers is one input given as tokens.
        Value::Array(inputs) if !inputs.first().is_some_and(Value::is_number) => inputs.clone(),
        one => vec![one.clone()],
    };
    let dimensions = body["dimensions"].as_u64().unwrap_or(16).clamp(1, 4096);
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let mut rng = Rng::new(mix(script.seed, input.to_string().as_bytes()));
            let floats: Vec<f32> = (0..dimensions).map(|_| rng.below(2001) as f32 / 1000.0 - 1.0).collect();
            let embedding = if body["encoding_format"] == "base64" {
                json!(base64(&floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>()))
            } else {
                json!(floats)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    json!({"object": "list", "data": data, "model": ask.model,
           "usage": {"prompt_tokens": script.prompt_tokens, "total_tokens": script.prompt_tokens}})
    .to_string()
}

/// The list of models.
pub(crate) fn models() -> String {
    json!({"object": "list", "data": [model_object("mock"), model_object("mock-large")]}).to_string()
}

/// One model; every name exists.
pub(crate) fn model(name: &str) -> String {
    model_object(name).to_string()
}

fn model_object(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": "ringway"})
}
