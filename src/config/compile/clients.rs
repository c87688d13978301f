//! `[[listeners]]`, `[[keys]]`, `[client]` and `[http2]`.

use std::collections::{HashMap, HashSet};

use core::net::SocketAddr;

use super::*;

pub(super) fn listeners(file: &mut Section, has_keys: bool) -> Option<Vec<Listener>> {
    let list = file.require("listeners", "at least one [[listeners]] with an address")?;
    let mut seen = HashMap::new();
    let items = list.list(LISTENERS_MAX, "[[listeners]]")?;
    all(items, |item| listener(item.section()?, has_keys, &mut seen))
}

fn listener(mut listener: Section, has_keys: bool, seen: &mut HashMap<SocketAddr, String>) -> Option<Listener> {
    let text = listener.require("address", r#"IP address and port, "127.0.0.1:8080""#).and_then(|item| item.text());
    let access_item = listener.get("access");
    let access = listener.choice("access", &[("keys", false), ("open", true)]);
    let http2 = listener.boolean("http2", true);
    let tls = listener.get("tls").map_or(Some(None), |item| tls::listener(item.section()?).map(Some));
    listener.finish();
    let text = text?;
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        return text
            .wrong("is not an address", r#"IP address and port: "127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080""#);
    };
    // Port 0 is a free port each time.
    let canonical = SocketAddr::new(address.ip().to_canonical(), address.port());
    if let (true, Some(first)) = (address.port() != 0, seen.insert(canonical, listener_path(&text))) {
        return text.wrong(&format!("is already the address of {first}"), "each listener needs an address of its own");
    }
    let with = |open| Some(Listener { address, open, http2, tls: tls? });
    let item = match (access_item, access) {
        // Said, but not a known word: reported by now.
        (Some(_), None) => return None,
        (_, Some(open)) if open || has_keys => return with(open),
        (Some(item), _) => item,
        (None, _) if has_keys => return with(false),
        (None, _) if canonical.ip().is_loopback() => return with(true),
        (None, _) => {
            return text.wrong(
                "is not a loopback address, and there are no [[keys]]",
                r#"add [[keys]], listen on 127.0.0.1, or say access = "open""#,
            );
        }
    };
    item.wrong(r#""keys" lets no one in, for there are no [[keys]]"#, r#"add [[keys]], or say access = "open""#)
}

/// `listeners[1].address` without its last part.
fn listener_path(text: &Text) -> String {
    text.item.path.trim_end_matches(".address").to_owned()
}

pub(super) fn keys(list: &Item, models: Option<&[Model]>) -> Option<Vec<Key>> {
    let models: Option<HashSet<&str>> = models.map(|models| models.iter().map(|model| model.name.as_str()).collect());
    let (mut names, mut digests) = (HashMap::new(), HashMap::new());
    let items = list.list(KEYS_MAX, "[[keys]]")?;
    all(items, |item| key(item.section()?, models.as_ref(), &mut names, &mut digests))
}

fn key(
    mut key: Section,
    known: Option<&HashSet<&str>>,
    names: &mut HashMap<String, String>,
    digests: &mut HashMap<[u8; 32], String>,
) -> Option<Key> {
    let path = key.path.clone();
    let name = key.require("name", "a name for usage records").and_then(|item| plain_name(&item, &path, names));
    let digest = key.require("secret", "where the key comes from").and_then(|item| {
        let digest = secrets::client_key(&item)?;
        match digests.insert(digest, path.clone()) {
            Some(first) => {
                item.wrong(&format!("is the same key as that of {first}"), "each key needs a secret of its own")
            }
            None => Some(digest),
        }
    });
    let models = key.get("models").map_or(Some(None), |item| key_models(&item, known));
    key.finish();
    Some(Key { name: name?, digest: digest?, models: models? })
}

/// The names of models that a key may ask for; `Some(None)` is all.
fn key_models(list: &Item, known: Option<&HashSet<&str>>) -> Option<Option<Vec<String>>> {
    let items = list.list(KEY_MODELS_MAX, r#"a list of model names, ["*"] for all"#)?;
    let names = all(items, |item| {
        let text = item.text()?;
        // With a default route, any name may be asked for; without sound models there is nothing to compare with.
        let is_known = known.is_none_or(|known| known.contains("*") || known.contains(text.value.as_str()));
        if text.value == "*" || is_known {
            return Some(text.value);
        }
        text.undefined(known.into_iter().flatten().copied())
    })?;
    Some(if names.iter().any(|name| name == "*") { None } else { Some(names) })
}

pub(super) fn http2(mut http2: Section) -> Http2 {
    let read = Http2 {
        streams_max: http2.whole("streams_max", Http2Schema::STREAMS_MAX) as u32,
        stream_window: http2.size("stream_window", Http2Schema::STREAM_WINDOW) as u32,
        connection_window: http2.size("connection_window", Http2Schema::CONNECTION_WINDOW) as u32,
        control_frames_max: http2.whole("control_frames_max", Http2Schema::CONTROL_FRAMES_MAX) as u32,
        ping: http2.duration("ping", Http2Schema::PING),
    };
    http2.finish();
    read
}

pub(super) fn client(mut client: Section) -> ClientTimers {
    let read = ClientTimers {
        keep_alive: client.duration("keep_alive", ClientSchema::KEEP_ALIVE),
        requests_max: client.whole("requests_max", ClientSchema::REQUESTS_MAX) as u32,
        handshake: client.duration("handshake", ClientSchema::HANDSHAKE),
        head: client.duration("head", ClientSchema::HEAD),
        body: client.duration("body", ClientSchema::BODY),
        write: client.duration("write", ClientSchema::WRITE),
        drain: client.duration("drain", ClientSchema::DRAIN),
        drain_delay: client.duration("drain_delay", ClientSchema::DRAIN_DELAY),
        half_close: client
            .choice("half_close", &[("gone", HalfClose::Gone), ("finish", HalfClose::Finish)])
            .unwrap_or(HalfClose::Gone),
    };
    client.finish();
    read
}
