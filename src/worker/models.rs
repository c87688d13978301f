//! `GET /v1/models`: what this gateway serves, answered by itself in the client's dialect.

use serde_json::{Value, json};

use super::intake::Intake;
use super::state::Worker;
use crate::base::KeyId;
use crate::base::reject::Reject;

/// The answer to a request for the models' list or for one of them; `None` if `intake` asks for something else.
pub fn answer(worker: &Worker, intake: &Intake, key: Option<KeyId>) -> Option<Result<Vec<u8>, Reject>> {
    let rest = intake.path.strip_prefix("/v1/models")?;
    if intake.websocket.is_some()
        || !matches!(&*intake.method, "GET" | "HEAD")
        || !(rest.is_empty() || rest.starts_with('/'))
    {
        return None;
    }
    let names = worker.config().models.iter().map(|model| model.name.as_str());
    let mut names = names.filter(|name| worker.shared.keys.may_use(key, name));
    let anthropic = intake.anthropic_client;
    Some(match rest.trim_start_matches('/') {
        "" => Ok(list(&names.collect::<Vec<_>>(), anthropic).to_string().into_bytes()),
        wanted => match names.find(|name| *name == wanted) {
            Some(name) => Ok(one(name, anthropic).to_string().into_bytes()),
            None => Err(super::exchange::unknown_model(wanted)),
        },
    })
}

fn list(names: &[&str], anthropic: bool) -> Value {
    let data: Vec<Value> = names.iter().map(|name| one(name, anthropic)).collect();
    if anthropic {
        json!({ "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last() })
    } else {
        json!({ "object": "list", "data": data })
    }
}

/// When a model was made is the provider's to know, so the epoch stands for unknown; both SDKs insist on the field.
fn one(name: &str, anthropic: bool) -> Value {
    if anthropic {
        json!({ "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z" })
    } else {
        json!({ "id": name, "object": "model", "created": 0, "owned_by": "ringway" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_gets_its_own_list() {
        assert_eq!(
            list(&["a"], false),
            json!({"object":"list","data":[{"id":"a","object":"model","created":0,"owned_by":"ringway"}]})
        );
        let anthropic = list(&["a", "b"], true);
        assert_eq!((&anthropic["first_id"], &anthropic["last_id"]), (&json!("a"), &json!("b")));
        assert_eq!(list(&[], true)["first_id"], Value::Null);
    }
}
