//! Text to [`Config`], or everything that is wrong with it.
//!
//! One function per section of the file. Each reads all of its fields before it gives up, so that every fault is
//! reported in one go; a section with a fault has no compiled form. Pure: the environment, files and CPUs are asked
//! for through [`Sources`].

mod admin;
mod clients;
mod cors;
mod logs;
mod providers;
mod resolver;
mod tls;
mod websocket;

use core::time::Duration;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use toml::de::DeTable;

use super::read::{Item, Reading, Section, Text};
use super::report::{Errors, quoted};
use super::schema::*;
use super::{
    AccessLog, Admin, Auth, ClientTimers, Config, Driver, Endpoint, EndpointHttp2, HalfClose, Http2, Key, Limits,
    Listener, Log, LogFormat, LogLevel, LogTarget, Model, ModelTimers, Pool, Provider, Proxy, Ring, Spread, Target,
    TraceStart, proxy, secrets, url, values,
};
use crate::base::{EndpointId, ModelId};

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

    /// Whether a certificate chain and its key, PEM both, can be used together now. Who cannot tell says yes.
    ///
    /// # Errors
    /// What is wrong, of the chain first or of the key second, as the end of a sentence that begins with the file.
    fn key_pair(&self, _chain: &str, _key: &str) -> Result<(), PemFault> {
        Ok(())
    }

    /// Whether certificates of authorities, and lists of revoked certificates, PEM both, can be read. Who cannot tell says yes.
    ///
    /// # Errors
    /// As [`Sources::key_pair`].
    fn authorities(&self, _authorities: &str, _revoked: Option<&str>) -> Result<(), PemFault> {
        Ok(())
    }
}

/// Which of two files is at fault, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemFault {
    /// The first.
    First(String),
    /// The second.
    Second(String),
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
    let spread = file.choice("spread", &[("even", Spread::Even), ("kernel", Spread::Kernel)]).unwrap_or(Spread::Even);
    let ring = ring(file.section("ring"));
    let (providers, endpoints) = providers::providers(&mut file).unwrap_or_default();
    let timers = providers::timers(file.section("timers"), None);
    let models = providers::models(&mut file, &providers, &timers);
    let keys = file.get("keys");
    // Faulty keys are keys all the same: that they are wrong is said elsewhere.
    let has_keys = keys.is_some();
    let keys = keys.map_or(Some(Vec::new()), |item| clients::keys(&item, models.as_deref()));
    let listeners = clients::listeners(&mut file, has_keys);
    let limits = limits(file.section("limits"));
    let client = clients::client(file.section("client"));
    let http2 = clients::http2(file.section("http2"));
    let websocket = websocket::websocket(file.section("websocket"));
    let pool = providers::pool(file.section("pool"));
    let admin = match file.get("admin") {
        Some(item) => item.section().and_then(admin::admin).map(Some),
        None => Some(None),
    };
    let cors = cors::cors(&mut file);
    let resolver = resolver::resolver(file.section("resolver"));
    let access_log = logs::access_log(&mut file);
    let log = logs::log(file.section("log"));
    let trace_start = logs::trace(file.section("trace"));
    file.finish();

    let (mut models, mut default_model) = (models?, None);
    if let Some(at) = models.iter().position(|model| model.name == "*") {
        default_model = Some(models.remove(at));
    }
    for (id, model) in (0..).zip(models.iter_mut().chain(&mut default_model)) {
        model.id = ModelId(id);
    }
    Some(Config {
        cores: cores?,
        spread,
        ring,
        listeners: listeners?,
        keys: keys?,
        providers: providers.into_iter().map(|named| named.provider).collect::<Option<_>>()?,
        endpoints: endpoints.into_iter().collect::<Option<_>>()?,
        models,
        default_model,
        limits,
        client,
        http2,
        websocket,
        pool,
        admin: admin?,
        cors: cors?,
        resolver: resolver?,
        access_log: access_log?,
        log,
        trace_start,
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

fn limits(mut limits: Section) -> Limits {
    let head_bytes_max = limits.size("head_bytes_max", LimitsSchema::HEAD_BYTES_MAX);
    let read = Limits {
        head_bytes_max,
        headers_max: limits.whole("headers_max", LimitsSchema::HEADERS_MAX) as usize,
        target_bytes_max: limits.size("target_bytes_max", LimitsSchema::TARGET_BYTES_MAX),
        body_bytes_max: limits.size("body_bytes_max", LimitsSchema::BODY_BYTES_MAX),
        event_bytes_max: limits.size("event_bytes_max", LimitsSchema::EVENT_BYTES_MAX),
        stream_bytes_max: limits.size("stream_bytes_max", LimitsSchema::STREAM_BYTES_MAX),
        decoded_bytes_max: limits.size("decoded_bytes_max", LimitsSchema::DECODED_BYTES_MAX),
        decoded_ratio_max: limits.whole("decoded_ratio_max", LimitsSchema::DECODED_RATIO_MAX) as u32,
        connections_max: limits.whole("connections_max", LimitsSchema::CONNECTIONS_MAX) as usize,
        memory_max: limits.size("memory_max", LimitsSchema::MEMORY_MAX),
    };
    let target_bytes_max =
        not_above(&mut limits, "target_bytes_max", read.target_bytes_max, "head_bytes_max", head_bytes_max);
    limits.finish();
    Limits { target_bytes_max, ..read }
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
