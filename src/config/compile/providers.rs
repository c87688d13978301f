//! `[[providers]]`, `[[models]]`, `[timers]` and `[pool]`.

use std::collections::HashMap;
use std::path::PathBuf;

use super::*;

/// A provider as far as it could be compiled, under the name that routes use.
pub(super) struct Named {
    pub(super) name: Option<String>,
    pub(super) provider: Option<Provider>,
}

pub(super) fn providers(file: &mut Section) -> Option<(Vec<Named>, Vec<Option<Endpoint>>)> {
    let list = file.require("providers", "at least one [[providers]] with a name and endpoints")?;
    let (mut names, mut endpoints) = (HashMap::new(), Vec::new());
    let items = list.list(PROVIDERS_MAX, "[[providers]]")?;
    let mut providers = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let absent = Named { name: None, provider: None };
        providers.push(item.section().map_or(absent, |section| provider(section, at, &mut names, &mut endpoints)));
    }
    Some((providers, endpoints))
}

fn provider(
    mut provider: Section,
    at: usize,
    names: &mut HashMap<String, String>,
    endpoints: &mut Vec<Option<Endpoint>>,
) -> Named {
    let path = provider.path.clone();
    let item = provider.require("name", "a name for routes and records");
    // A name that breaks a rule still says which provider a route means.
    let spoken = item.as_ref().and_then(Item::quiet_text);
    let name = item.and_then(|item| plain_name(&item, &path, names));
    let include_usage = provider.boolean("include_usage", true);
    let passes_accept_encoding =
        provider.choice("accept_encoding", &[("identity", false), ("pass", true)]).unwrap_or(false);
    let auth = provider.choice("auth", &AUTH_WORDS).unwrap_or(Auth::Dialect);
    let ca = provider.get("ca").and_then(|item| authority_file(&item));
    let client_certificate = provider.get("client_certificate").and_then(|item| tls::key_pair(&item));
    let first = endpoints.len();
    let list = provider.require("endpoints", "at least one [[providers.endpoints]] with a url");
    for (number, item) in
        list.and_then(|list| list.list(ENDPOINTS_MAX, "[[providers.endpoints]]")).into_iter().flatten().enumerate()
    {
        let base = Endpoint {
            name: format!("{}/{number}", name.as_deref().unwrap_or_default()),
            provider: at,
            tls: false,
            host: String::new(),
            port: 0,
            authority: String::new(),
            base_path: String::new(),
            key: None,
            auth,
            ca: ca.clone(),
            client_certificate: client_certificate.clone(),
        };
        endpoints.push(item.section().and_then(|section| endpoint(section, base)));
    }
    provider.finish();
    // At most 256 providers of 64 endpoints: the numbers fit.
    let ids = (first..endpoints.len()).map(|id| EndpointId(id as u16)).collect();
    Named {
        name: spoken,
        provider: name.map(|name| Provider { name, endpoints: ids, include_usage, passes_accept_encoding }),
    }
}

const AUTH_WORDS: [(&str, Auth); 3] = [("auto", Auth::Dialect), ("bearer", Auth::Bearer), ("x-api-key", Auth::XApiKey)];

/// Completes `base`, which has what the provider says of all its endpoints.
fn endpoint(mut endpoint: Section, base: Endpoint) -> Option<Endpoint> {
    let url = endpoint.require("url", url::URL_FORM).and_then(|item| {
        match url::parse(&item.text()?.value) {
            Ok(url) => Some(url),
            // Not quoted: a URL may hold a key.
            Err(what) => item.wrong(what, url::URL_FORM),
        }
    });
    let key = endpoint.get("key").and_then(|item| secrets::endpoint_key(&item));
    let auth = endpoint.choice("auth", &AUTH_WORDS).unwrap_or(base.auth);
    let is_plain = url.as_ref().is_some_and(|url| !url.tls);
    let ca = endpoint.get("ca").and_then(|item| match is_plain {
        true => item.wrong("has no effect on an http URL", "https, or no ca"),
        false => authority_file(&item),
    });
    let client_certificate = endpoint.get("client_certificate").and_then(|item| match is_plain {
        true => item.wrong("has no effect on an http URL", "https, or no client_certificate"),
        false => tls::key_pair(&item),
    });
    endpoint.finish();
    let url::Url { tls, host, port, authority, path } = url?;
    let ca = ca.or(base.ca).filter(|_| tls);
    let client_certificate = client_certificate.or(base.client_certificate).filter(|_| tls);
    Some(Endpoint { tls, host, port, authority, base_path: path, key, auth, ca, client_certificate, ..base })
}

/// The path of a readable PEM file with a certificate in it.
fn authority_file(item: &Item) -> Option<PathBuf> {
    const FORM: &str = "a PEM file of certificates; a relative path starts at the folder of this file";
    let path = secrets::path(item)?;
    match item.reading.sources.file(&path) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => Some(path),
        Ok(_) => item.wrong("the file holds no certificate", FORM),
        Err(error) => item.wrong(&format!("the file cannot be read: {error}"), FORM),
    }
}

pub(super) fn models(file: &mut Section, providers: &[Named], timers: &ModelTimers) -> Option<Vec<Model>> {
    let list = file.require("models", "at least one [[models]] with a name and a route")?;
    let mut names = HashMap::new();
    let items = list.list(MODELS_MAX, "[[models]]")?;
    all(items, |item| model(item.section()?, providers, timers, &mut names))
}

fn model(
    mut model: Section,
    providers: &[Named],
    defaults: &ModelTimers,
    names: &mut HashMap<String, String>,
) -> Option<Model> {
    let path = model.path.clone();
    let name = model.require("name", r#"what clients ask for, or "*""#).and_then(|item| {
        let text = model_name(&item)?;
        unique(&text, &path, names)
    });
    let list = model.require("route", r#"route = [{ provider = "…" }]"#);
    let mut seen = HashMap::new();
    let route = list.and_then(|list| list.list(ROUTE_MAX, r#"[{ provider = "…" }]"#)).and_then(|items| {
        all(items, |item| {
            let target = target(item.section()?, providers)?;
            match seen.insert((target.provider, target.model.clone()), item.path.clone()) {
                Some(first) => item.wrong(&format!("is the same as {first}"), "each way to serve a model once"),
                None => Some(target),
            }
        })
    });
    let timers = timers(model.section("timers"), Some(defaults));
    model.finish();
    // Numbered once all are known.
    Some(Model { id: ModelId(0), name: name?, route: route?, timers })
}

fn target(mut target: Section, providers: &[Named]) -> Option<Target> {
    let provider = target.require("provider", "the name of one of [[providers]]").and_then(|item| {
        let text = item.text()?;
        let found = providers.iter().position(|named| named.name.as_deref() == Some(&text.value));
        // Where the list of providers could not be read at all, that is the fault to mend.
        if found.is_none() && !providers.is_empty() {
            return text.undefined(providers.iter().filter_map(|named| named.name.as_deref()));
        }
        found
    });
    let model = target.get("model").map_or(Some(None), |item| model_name(&item).map(|text| Some(text.value)));
    target.finish();
    Some(Target { provider: provider?, model: model? })
}

pub(super) fn timers(mut timers: Section, defaults: Option<&ModelTimers>) -> ModelTimers {
    let or = |bound: Bound<_>, default: Option<_>| Bound { default: default.unwrap_or(bound.default), ..bound };
    let read = ModelTimers {
        connect: timers.duration("connect", or(TimersSchema::CONNECT, defaults.map(|d| d.connect))),
        first_token: timers.duration("first_token", or(TimersSchema::FIRST_TOKEN, defaults.map(|d| d.first_token))),
        between_tokens: timers
            .duration("between_tokens", or(TimersSchema::BETWEEN_TOKENS, defaults.map(|d| d.between_tokens))),
        total: timers.duration("total", or(TimersSchema::TOTAL, defaults.map(|d| d.total))),
    };
    timers.finish();
    read
}

pub(super) fn pool(mut pool: Section) -> Pool {
    let connections_max = pool.whole("connections_max", PoolSchema::CONNECTIONS_MAX) as usize;
    let idle_max = pool.whole("idle_max", PoolSchema::IDLE_MAX) as usize;
    let idle = pool.duration("idle", PoolSchema::IDLE);
    let idle_max = not_above(&mut pool, "idle_max", idle_max, "connections_max", connections_max);
    pool.finish();
    Pool { idle_max, idle, connections_max }
}
