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
    let through = provider.get("proxy").and_then(|item| through(&item));
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
            proxy: None,
            http2: EndpointHttp2::Auto,
        };
        endpoints.push(item.section().and_then(|section| endpoint(section, base, &through)));
    }
    provider.finish();
    // At most 256 providers of 64 endpoints: the numbers fit.
    let ids = (first..endpoints.len()).map(|id| EndpointId(id as u16)).collect();
    Named {
        name: spoken,
        provider: name.map(|name| Provider { name, endpoints: ids, include_usage, passes_accept_encoding }),
    }
}

const HTTP2_WORDS: [(&str, EndpointHttp2); 3] = [
    ("auto", EndpointHttp2::Auto),
    ("never", EndpointHttp2::Never),
    ("prior-knowledge", EndpointHttp2::PriorKnowledge),
];

const AUTH_WORDS: [(&str, Auth); 3] = [("auto", Auth::Dialect), ("bearer", Auth::Bearer), ("x-api-key", Auth::XApiKey)];

/// Completes `base`, which has what the provider says of all its endpoints.
fn endpoint(mut endpoint: Section, base: Endpoint, providers: &Option<Through>) -> Option<Endpoint> {
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
    // What is wrong with the provider's is reported there.
    let through = match endpoint.get("proxy") {
        Some(item) => Some(through(&item)?),
        None => providers.clone(),
    };
    let http2 = endpoint.choice("http2", &HTTP2_WORDS).unwrap_or(EndpointHttp2::Auto);
    let reading = endpoint.reading;
    endpoint.finish();
    let url::Url { tls, host, port, authority, path } = url?;
    let proxy = match through {
        None | Some(Through::Nothing) => None,
        Some(Through::This(proxy)) => Some(proxy),
        Some(Through::Environment(at)) => environments(&at, reading, tls, &host, port)?,
    };
    let ca = ca.or(base.ca).filter(|_| tls);
    let client_certificate = client_certificate.or(base.client_certificate).filter(|_| tls);
    Some(Endpoint {
        tls,
        host,
        port,
        authority,
        base_path: path,
        key,
        auth,
        ca,
        client_certificate,
        proxy,
        http2,
        ..base
    })
}

/// What `proxy` says.
#[derive(Clone)]
enum Through {
    Nothing,
    This(Proxy),
    /// As the environment says; where that was said, for its faults.
    Environment(At),
}

/// The place of a value.
#[derive(Clone)]
struct At {
    at: usize,
    path: String,
}

fn through(item: &Item) -> Option<Through> {
    let text = item.text()?;
    match text.value.as_str() {
        "none" => Some(Through::Nothing),
        "env" => Some(Through::Environment(At { at: item.at, path: item.path.clone() })),
        url => match proxy::parse(url, false) {
            Ok(proxy) => Some(Through::This(proxy)),
            // Not quoted: it may hold a password.
            Err(what) => item.wrong(what, proxy::PROXY_FORM),
        },
    }
}

/// The proxy that the environment names for this endpoint, if any. The outer `None` is a fault, which is reported.
fn environments(at: &At, reading: &Reading, tls: bool, host: &str, port: u16) -> Option<Option<Proxy>> {
    match proxy::from_env(tls, host, port, |name| reading.sources.env(name)) {
        Ok(proxy) => Some(proxy),
        Err((name, what)) => {
            reading.report(at.at, &at.path, format!("the environment variable {name} {what}"), proxy::PROXY_FORM);
            None
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::tests::{OPEN, only, sound};

    /// The open configuration with lines beside its provider and beside its endpoint.
    fn proxied(provider: &str, endpoint: &str) -> String {
        let text = OPEN.replace("name = \"p\"", &format!("name = \"p\"\n{provider}"));
        text.replace("\n[[models]]", &format!("\n{endpoint}\n[[models]]"))
    }

    #[test]
    fn an_endpoint_is_dialled_at_its_proxy_and_its_own_word_wins() {
        let (p, q) = ("proxy = \"http://p.test:3128\"", "proxy = \"http://u:p@q.test\"");
        for (provider, endpoint, host, port) in [
            ("", "", "127.0.0.1", 9000),
            (p, "", "p.test", 3128),
            (p, q, "q.test", 80),
            ("", q, "q.test", 80),
            (p, "proxy = \"none\"", "127.0.0.1", 9000),
            (p, "proxy = \"env\"", "127.0.0.1", 9000),
            ("proxy = \"env\"", p, "p.test", 3128),
        ] {
            let config = sound(&proxied(provider, endpoint));
            assert_eq!(config.endpoints[0].dialled(), (host, port), "{provider} {endpoint}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_not_shown() {
        for (value, what) in [
            ("", "has no scheme"),
            ("environment", "has no scheme"),
            ("socks5://sk-marker@p", "has a scheme other than http"),
            ("${SECRET_URL}", "is an https URL, and proxies are spoken to in the clear"),
        ] {
            for (text, at) in [
                (proxied(&format!("proxy = \"{value}\""), ""), "providers[0].proxy"),
                (proxied("", &format!("proxy = \"{value}\"")), "providers[0].endpoints[0].proxy"),
            ] {
                let (path, report) = only(&text);
                assert_eq!(path, at);
                assert!(report.starts_with(what) && !report.contains("sk-marker"), "{value}: {report}");
            }
        }
    }
}
