//! Text to [`Config`], or everything that is wrong with it.
//!
//! One function per section of the file. Each reads all of its fields before it gives up, so that every fault is
//! reported in one go; a section with a fault has no compiled form. Pure: the environment, files and CPUs are asked
//! for through [`Sources`].

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use core::net::SocketAddr;

use toml::de::DeTable;

use super::read::{Item, Reading, Section, Text};
use super::report::{Errors, quoted};
use super::schema::*;
use super::{
    Auth, ClientTimers, Config, Driver, Endpoint, HalfClose, Key, Limits, Listener, Model, ModelTimers, Pool, Provider,
    Ring, Target, secrets, url, values,
};
use crate::base::EndpointId;

/// What a configuration may ask its surroundings.
pub trait Sources {
    /// An environment variable; `None` if it is not set or not UTF-8.
    fn env(&self, name: &str) -> Option<String>;
    /// The text of a file: a secret or a certificate.
    ///
    /// # Errors
    /// As the file system has it; the text is shown to the operator.
    fn file(&self, path: &Path) -> io::Result<String>;
    /// The CPUs that this process may run on.
    fn cores(&self) -> Vec<usize>;
}

/// Compiles the text of a configuration file.
///
/// * `base`: the folder of the file; relative paths start there.
///
/// # Errors Every fault of the file, with its place. If the text is not TOML only that is reported, for what the rest
/// means is then a guess.
pub fn compile(text: &str, base: &Path, sources: &dyn Sources) -> Result<Config, Errors> {
    let reading = Reading::new(sources, base);
    if text.len() > FILE_BYTES_MAX {
        reading.report(
            0,
            "",
            "is longer than a configuration may be",
            format!("at most {}", values::show_size(FILE_BYTES_MAX as u64)),
        );
        return Err(Errors::locate(text, reading.into_findings()));
    }
    let (document, faults) = DeTable::parse_recoverable(text);
    for fault in &faults {
        let at = fault.span().map_or(0, |span| span.start);
        reading.report(at, "", format!("is not TOML: {}", fault.message().replace('\n', ", ")), "");
    }
    let config = if faults.is_empty() { file(Section::root(&reading, document.get_ref())) } else { None };
    match (config, reading.into_findings()) {
        (Some(config), findings) if findings.is_empty() => Ok(config),
        (_, findings) => Err(Errors::locate(text, findings)),
    }
}

fn file(mut file: Section) -> Option<Config> {
    let cores = cores(&mut file);
    let ring = ring(file.section("ring"));
    let (providers, endpoints) = providers(&mut file).unwrap_or_default();
    let timers = timers(file.section("timers"), None);
    let models = models(&mut file, &providers, &timers);
    let keys = file.get("keys");
    // Faulty keys are keys all the same: that they are wrong is said elsewhere.
    let has_keys = keys.is_some();
    let keys = keys.map_or(Some(Vec::new()), |item| self::keys(&item, models.as_deref()));
    let listeners = listeners(&mut file, has_keys);
    let limits = limits(file.section("limits"));
    let client = client(file.section("client"));
    let pool = pool(file.section("pool"));
    let usage_log = match file.get("usage_log") {
        Some(item) => secrets::path(&item).map(Some),
        None => Some(None),
    };
    file.finish();

    let (mut models, mut default_model) = (models?, None);
    if let Some(at) = models.iter().position(|model| model.name == "*") {
        default_model = Some(models.remove(at));
    }
    Some(Config {
        cores: cores?,
        ring,
        listeners: listeners?,
        keys: keys?,
        providers: providers.into_iter().map(|named| named.provider).collect::<Option<_>>()?,
        endpoints: endpoints.into_iter().collect::<Option<_>>()?,
        models,
        default_model,
        limits,
        client,
        pool,
        usage_log: usage_log?,
    })
}

fn cores(file: &mut Section) -> Option<Vec<usize>> {
    const FORM: &str = r#""auto", or a list such as "0-3,8""#;
    let usable = file.reading.sources.cores();
    let text = match file.get("cores") {
        Some(item) if item.is_string() => Some(item.text()?),
        Some(item) => return item.wrong_type(FORM),
        None => None,
    };
    let Some(text) = text.filter(|text| text.value != "auto") else {
        if usable.is_empty() {
            return file.wrong("this process may run on no CPU", "");
        }
        return Some(usable);
    };
    let cores = match values::cpu_list(&text.value) {
        Ok(cores) => cores,
        Err(what) => return text.wrong(&what, FORM),
    };
    let unusable: Vec<usize> = cores.iter().copied().filter(|core| !usable.contains(core)).collect();
    if !unusable.is_empty() {
        let what = format!("names CPUs that this process may not run on: {}", values::show_cpus(&unusable));
        return text.wrong(&what, &format!("\"auto\", or some of {}", values::show_cpus(&usable)));
    }
    Some(cores)
}

fn ring(mut ring: Section) -> Ring {
    let drivers = [
        ("auto", Driver::Deferred),
        ("deferred", Driver::Deferred),
        ("cooperative", Driver::Cooperative),
        ("plain", Driver::Plain),
        ("epoll", Driver::Epoll),
    ];
    let driver = ring.choice("driver", &drivers).unwrap_or(Driver::Deferred);
    let entries = ring.whole("entries", RingSchema::ENTRIES) as u32;
    if !entries.is_power_of_two()
        && let Some(item) = ring.get("entries")
    {
        let (below, above) = (entries.next_power_of_two() / 2, entries.next_power_of_two());
        item.wrong::<()>(&format!("{entries} is not a power of two"), &format!("the nearest are {below} and {above}"));
    }
    let gather = Duration::from_micros(ring.whole("gather_us", RingSchema::GATHER_US));
    ring.finish();
    Ring { driver, entries, gather }
}

fn listeners(file: &mut Section, has_keys: bool) -> Option<Vec<Listener>> {
    let list = file.require("listeners", "at least one [[listeners]] with an address")?;
    let mut seen = HashMap::new();
    let items = list.list(LISTENERS_MAX, "[[listeners]]")?;
    all(items, |item| listener(item.section()?, has_keys, &mut seen))
}

fn listener(mut listener: Section, has_keys: bool, seen: &mut HashMap<SocketAddr, String>) -> Option<Listener> {
    let text = listener.require("address", r#"IP address and port, "127.0.0.1:8080""#).and_then(|item| item.text());
    let access_item = listener.get("access");
    let access = listener.choice("access", &[("keys", false), ("open", true)]);
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
    let item = match (access_item, access) {
        // Said, but not a known word: reported by now.
        (Some(_), None) => return None,
        (_, Some(open)) if open || has_keys => return Some(Listener { address, open }),
        (Some(item), _) => item,
        (None, _) if has_keys => {
            return Some(Listener { address, open: false });
        }
        (None, _) if canonical.ip().is_loopback() => {
            return Some(Listener { address, open: true });
        }
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

fn keys(list: &Item, models: Option<&[Model]>) -> Option<Vec<Key>> {
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

/// A provider as far as it could be compiled, under the name that routes use.
struct Named {
    name: Option<String>,
    provider: Option<Provider>,
}

fn providers(file: &mut Section) -> Option<(Vec<Named>, Vec<Option<Endpoint>>)> {
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
    let auth = provider.choice("auth", &AUTH_WORDS).unwrap_or(Auth::Dialect);
    let ca = provider.get("ca").and_then(|item| authority_file(&item));
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
        };
        endpoints.push(item.section().and_then(|section| endpoint(section, base)));
    }
    provider.finish();
    // At most 256 providers of 64 endpoints: the numbers fit.
    let ids = (first..endpoints.len()).map(|id| EndpointId(id as u16)).collect();
    Named { name: spoken, provider: name.map(|name| Provider { name, endpoints: ids, include_usage }) }
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
    let ca = endpoint.get("ca").and_then(|item| {
        if url.as_ref().is_some_and(|url| !url.tls) {
            return item.wrong("has no effect on an http URL", "https, or no ca");
        }
        authority_file(&item)
    });
    endpoint.finish();
    let url::Url { tls, host, port, authority, path } = url?;
    let ca = ca.or(base.ca).filter(|_| tls);
    Some(Endpoint { tls, host, port, authority, base_path: path, key, auth, ca, ..base })
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

fn models(file: &mut Section, providers: &[Named], timers: &ModelTimers) -> Option<Vec<Model>> {
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
    Some(Model { name: name?, route: route?, timers })
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

fn timers(mut timers: Section, defaults: Option<&ModelTimers>) -> ModelTimers {
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

fn limits(mut limits: Section) -> Limits {
    let head_bytes_max = limits.size("head_bytes_max", LimitsSchema::HEAD_BYTES_MAX);
    let read = Limits {
        head_bytes_max,
        headers_max: limits.whole("headers_max", LimitsSchema::HEADERS_MAX) as usize,
        target_bytes_max: limits.size("target_bytes_max", LimitsSchema::TARGET_BYTES_MAX),
        body_bytes_max: limits.size("body_bytes_max", LimitsSchema::BODY_BYTES_MAX),
        event_bytes_max: limits.size("event_bytes_max", LimitsSchema::EVENT_BYTES_MAX),
        stream_bytes_max: limits.size("stream_bytes_max", LimitsSchema::STREAM_BYTES_MAX),
        connections_max: limits.whole("connections_max", LimitsSchema::CONNECTIONS_MAX) as usize,
    };
    let target_bytes_max =
        not_above(&mut limits, "target_bytes_max", read.target_bytes_max, "head_bytes_max", head_bytes_max);
    limits.finish();
    Limits { target_bytes_max, ..read }
}

fn client(mut client: Section) -> ClientTimers {
    let read = ClientTimers {
        keep_alive: client.duration("keep_alive", ClientSchema::KEEP_ALIVE),
        requests_max: client.whole("requests_max", ClientSchema::REQUESTS_MAX) as u32,
        head: client.duration("head", ClientSchema::HEAD),
        body: client.duration("body", ClientSchema::BODY),
        write: client.duration("write", ClientSchema::WRITE),
        drain: client.duration("drain", ClientSchema::DRAIN),
        half_close: client
            .choice("half_close", &[("gone", HalfClose::Gone), ("finish", HalfClose::Finish)])
            .unwrap_or(HalfClose::Gone),
    };
    client.finish();
    read
}

fn pool(mut pool: Section) -> Pool {
    let connections_max = pool.whole("connections_max", PoolSchema::CONNECTIONS_MAX) as usize;
    let idle_max = pool.whole("idle_max", PoolSchema::IDLE_MAX) as usize;
    let idle = pool.duration("idle", PoolSchema::IDLE);
    let idle_max = not_above(&mut pool, "idle_max", idle_max, "connections_max", connections_max);
    pool.finish();
    Pool { idle_max, idle, connections_max }
}

/// Holds a field to another that it is a part of. A default yields; a value that was written is a fault.
fn not_above(section: &mut Section, field: &'static str, value: usize, whole: &str, whole_value: usize) -> usize {
    if value > whole_value
        && let Some(item) = section.get(field)
    {
        item.wrong::<()>(&format!("is above {whole}"), &format!("at most {whole_value}, which is {whole}"));
    }
    value.min(whole_value)
}

/// The name of a key or provider: it stands in records and logs, so it needs no quoting there.
fn plain_name(item: &Item, path: &str, names: &mut HashMap<String, String>) -> Option<String> {
    let text = item.text()?;
    let is_plain = text.value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !is_plain || !(1..=NAME_BYTES_MAX).contains(&text.value.len()) {
        return text.wrong("is not a name", &format!("1 to {NAME_BYTES_MAX} of letters, digits, `.`, `_` and `-`"));
    }
    unique(&text, path, names)
}

fn model_name<'r>(item: &Item<'r>) -> Option<Text<'r>> {
    let text = item.text()?;
    if !(1..=MODEL_NAME_BYTES_MAX).contains(&text.value.len()) || text.value.chars().any(char::is_control) {
        return text
            .wrong("is not a model's name", &format!("1 to {MODEL_NAME_BYTES_MAX} bytes, no control characters"));
    }
    Some(text)
}

/// The name, unless another table of its kind has it; `names` maps names to the paths of their tables.
fn unique(text: &Text, path: &str, names: &mut HashMap<String, String>) -> Option<String> {
    if let Some(first) = names.get(&text.value) {
        let allowed = format!("a name of its own; {} is taken", quoted(text.written));
        return text.wrong(&format!("is already the name of {first}"), &allowed);
    }
    names.insert(text.value.clone(), path.to_owned());
    Some(text.value.clone())
}

/// Reads every item, even after one has failed. `None` if one has.
fn all<'r, T>(items: Vec<Item<'r>>, mut read: impl FnMut(&Item<'r>) -> Option<T>) -> Option<Vec<T>> {
    let read: Vec<Option<T>> = items.iter().map(&mut read).collect();
    read.into_iter().collect()
}

#[cfg(test)]
pub(super) mod tests;
