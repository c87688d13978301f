//! The rules of the house, each a sentence, and what breaks them.

use crate::source::{Name, Source};

/// A broken rule: where, what was found, the sentence, and what to do instead.
pub type Broken = String;

/// The rooms in layer order, lowest first. Nothing imports sideways inside a layer, but for what [`SIDEWAYS`] lists.
const LAYERS: &[(&str, &[&str])] = &[
    ("vocabulary", &["base", "config", "wire"]),
    ("decisions", &["admission", "routing", "journal", "cache", "jobs"]),
    ("mechanisms", &["net", "mesh", "telemetry"]),
    ("edges", &["listener", "upstream", "queue", "redis"]),
    ("the data plane", &["worker"]),
    ("the control plane", &["control"]),
    ("the simulated provider", &["mock"]),
    ("the command line", &["cli"]),
];

/// Imports inside a layer that are meant: who, whom.
const SIDEWAYS: &[(&str, &[&str])] =
    &[("wire", &["base"]), ("config", &["base"]), ("cache", &["journal"]), ("jobs", &["journal"])];

/// Rooms that may see less than all that lies below them: who, whom.
const NARROW: &[(&str, &[&str])] =
    &[("net", &["base"]), ("mesh", &["base"]), ("telemetry", &["base"]), ("mock", &["base"])];

/// Where an external crate may be named. A second home is a smell; a new one is a decision.
const HOMES: &[(&str, &[&str])] = &[
    ("axum", &["control"]),
    ("brotli_decompressor", &["wire/coding"]),
    ("clap", &["cli", "main.rs"]),
    ("crossbeam", &["mesh", "telemetry", "control"]),
    ("data_encoding", &["config/proxy.rs", "wire/websocket"]),
    ("flate2", &["mock", "wire/coding", "control"]),
    ("h2", &["listener", "upstream"]),
    ("hickory_resolver", &["control"]),
    ("http", &["listener", "upstream", "wire/http2.rs"]),
    ("http_body_util", &["mock", "control", "cli"]),
    ("httparse", &["wire/http1.rs"]),
    ("httpdate", &["worker/date.rs"]),
    ("hyper", &["mock", "control", "cli"]),
    ("io_uring", &["net/rt.rs"]),
    ("mimalloc", &["main.rs"]),
    ("monoio", &["net", "listener", "upstream", "queue", "redis", "worker"]),
    ("notify", &["control"]),
    ("nix", &["net", "mesh/wake.rs", "listener/mod.rs", "worker", "cli", "mock"]),
    ("papaya", &["cache/shard.rs", "admission/quota.rs"]),
    ("prost", &["wire/protobuf.rs"]),
    ("quanta", &["base/clock.rs"]),
    ("rustls", &["net/tls.rs"]),
    ("rustls_native_certs", &["net/tls.rs"]),
    ("schemars", &["config", "cli"]),
    ("tokio", &["mock", "control", "cli", "net/duplex.rs"]),
    ("toml", &["config"]),
    ("tungstenite", &["mock"]),
    ("webpki_roots", &["net/tls.rs"]),
    ("x509_parser", &["net/tls.rs"]),
    ("zstd_safe", &["wire/coding"]),
    // Peers and tools of the tests.
    ("brotli", &[]),
    ("hdrhistogram", &[]),
    ("monoio_http", &[]),
    ("proptest", &[]),
    ("rcgen", &[]),
];

/// What a pure room never names: no IO, no clock, no threads, no randomness of its own.
const IMPURE: &[&str] = &[
    "monoio",
    "tokio",
    "nix",
    "io_uring",
    "quanta",
    "crossbeam",
    "rand",
    "getrandom",
    "fastrand",
    "aws_lc_rs::rand",
    "std::net",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::base::clock::Clock",
];

/// The part of `std::net` that is plain values: an address is a word, a socket is not.
const ADDRESSES: &[&str] = &["SocketAddr", "SocketAddrV4", "SocketAddrV6", "IpAddr", "Ipv4Addr", "Ipv6Addr"];

/// The exchange and the files it is made of, and the admin API: where an internal error becomes a status code.
const EXCHANGE: &[&str] = &[
    "worker/exchange.rs",
    "worker/intake.rs",
    "worker/body.rs",
    "worker/attempt.rs",
    "worker/send.rs",
    "worker/relay.rs",
    "worker/tunnel.rs",
    "control/admin.rs",
];

/// Where the runtime's own timers are armed, which takes the runtime's own `Instant`; no decision reads it there.
const RUNTIME_TIMERS: &[&str] = &["net/timer.rs", "listener/http1.rs", "mock"];

/// Where `unsafe` may stand, each block with its argument.
const UNSAFE: &[&str] = &["net/buf.rs", "net/heap.rs", "net/socket.rs", "mesh/wake.rs"];

/// Lines that a file may have, unit tests in it included.
const LINES_MAX: usize = 600;

/// Holds every source against every rule.
pub fn check(sources: &[Source]) -> Vec<Broken> {
    let mut broken: Vec<Broken> = sources.iter().filter_map(|source| room_is_on_the_map(source).err()).collect();
    broken.extend(sources.iter().filter(|source| source.path == "lib.rs").flat_map(|lib| map_is_current(lib, sources)));
    for source in sources.iter().filter(|source| !source.is_tests()) {
        if source.lines > LINES_MAX {
            broken.push(format!(
                "src/{}: has {} lines, more than {LINES_MAX}: look for the second noun, or move its tests to tests.rs",
                source.path, source.lines
            ));
        }
        for name in &source.names {
            let verdicts = [
                layers(source, name),
                pure(source, name),
                spawning(source, name),
                status_codes(source, name),
                bans(source, name),
                homes(source, name),
            ];
            for sentence in verdicts.into_iter().flatten() {
                broken.push(format!("src/{}:{}: `{}`: {sentence}", source.path, name.line, name.text()));
            }
        }
    }
    broken
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, rooms)| rooms.contains(&room))
}

fn listed<'a>(list: &'a [(&str, &'a [&'a str])], of: &str) -> Option<&'a [&'a str]> {
    list.iter().find(|(name, _)| *name == of).map(|(_, entries)| *entries)
}

fn room_is_on_the_map(source: &Source) -> Result<(), Broken> {
    match source.room() {
        "" => Ok(()),
        room if layer(room).is_some() => Ok(()),
        room => Err(format!("src/{}: the room `{room}` has no layer: give it one before it gets walls", source.path)),
    }
}

/// The map in `lib.rs` names every room that exists, on a line of its own layer, highest layer first.
fn map_is_current(lib: &Source, sources: &[Source]) -> Vec<Broken> {
    let mut broken = Vec::new();
    let lines: Vec<Vec<&str>> = lib
        .header
        .iter()
        .map(|line| line.split_whitespace().take_while(|word| layer(word).is_some()).collect())
        .filter(|rooms: &Vec<&str>| !rooms.is_empty())
        .collect();
    let mut above = LAYERS.len();
    for rooms in &lines {
        let layers: Vec<usize> = rooms.iter().filter_map(|room| layer(room)).collect();
        if layers.iter().any(|at| *at != layers[0] || *at >= above) {
            broken.push(format!("src/lib.rs: the map has `{}` out of layer order", rooms.join(" ")));
        }
        above = layers[0];
    }
    let mut rooms: Vec<&str> = sources.iter().map(Source::room).filter(|room| layer(room).is_some()).collect();
    rooms.sort_unstable();
    rooms.dedup();
    for room in rooms.into_iter().filter(|room| !lines.iter().any(|line| line.contains(room))) {
        broken.push(format!("src/lib.rs: the map does not show the room `{room}`"));
    }
    broken
}

/// Imports point down; some of them deserve words of their own.
fn layers(source: &Source, name: &Name) -> Option<String> {
    let from = source.room();
    let to = match name.segments.as_slice() {
        [krate, to, ..] if krate == "crate" => to.as_str(),
        _ => return None,
    };
    let (from_layer, to_layer) = (layer(from)?, layer(to)?);
    if from == to {
        return None;
    }
    let sentence = match (from, to) {
        ("worker", "control") => {
            "worker never imports control: a data plane that can name the control plane will one day wait for it".into()
        }
        ("control", "worker") => {
            let is_inbox = name.is_below("crate::worker::message") || name.is_below("crate::worker::ToWorker");
            return (!is_inbox).then(|| "control knows workers only as inboxes: send a `ToWorker`".into());
        }
        ("mesh", to) if to != "base" => {
            "mesh never imports a domain type: the room that gives the message its meaning owns it".into()
        }
        ("listener", "upstream") | ("upstream", "listener") => {
            "listener and upstream never import each other: what they share is in net".into()
        }
        _ => match listed(NARROW, from) {
            Some(only) if only.contains(&to) => return None,
            Some(only) => format!("{from} imports only {}", only.join(", ")),
            None if to_layer < from_layer => return None,
            None if listed(SIDEWAYS, from).is_some_and(|to_rooms| to_rooms.contains(&to)) => return None,
            None if to_layer == from_layer => format!("nothing imports sideways: {from} and {to} share a layer"),
            None => format!("imports point down: {to} ({}) lies above {from}", LAYERS[to_layer].0),
        },
    };
    Some(sentence)
}

/// What the pure layers never name.
fn pure(source: &Source, name: &Name) -> Option<String> {
    let is_pure = layer(source.room()).is_some_and(|layer| layer <= 1);
    if !is_pure || source.path == "base/clock.rs" {
        return None;
    }
    let found = IMPURE.iter().find(|impure| name.is_below(impure))?;
    if *found == "std::net" && name.segments.get(2).is_some_and(|word| ADDRESSES.contains(&word.as_str())) {
        return None;
    }
    let sentence = "the pure layers never import monoio, tokio, nix or std::{net, fs, thread}, and never read a \
                    clock, a file or the environment: take it as an argument";
    Some(sentence.into())
}

/// Who may spawn. `net/rt.rs` holds the one spawn that catches panics, for those who may; `mock` is a program of its own.
fn spawning(source: &Source, name: &Name) -> Option<String> {
    let spawns = matches!(name.last(), "spawn" | "spawn_local" | "spawn_blocking" | "spawn_scoped");
    let may = ["worker", "control", "cli", "mock", "net/rt.rs", "queue/kafka.rs"];
    if !spawns || !(name.is_use || name.is_call()) || may.iter().any(|home| source.lives_in(home)) {
        return None;
    }
    Some("only worker, control and cli spawn anything: a mechanism that spawns hides a lifetime".into())
}

/// As far as names tell: who may say which kind of no.
fn status_codes(source: &Source, name: &Name) -> Option<String> {
    if source.path == "base/reject.rs" {
        return None;
    }
    // What a decision refuses is its verdict, and what wire cannot read is the client's fault: no internal errors.
    let (verdicts, malformed) =
        (["admission", "routing"].as_slice(), ["admission", "routing", "wire", "listener"].as_slice());
    let may = match () {
        () if name.ends_in("Reject::upstream") => &[],
        () if name.ends_in("Reject::gateway") => verdicts,
        () if name.ends_in("Reject::client") => malformed,
        () if name.last() == "Reject" && name.is_before_brace() && name.follows("for") => &malformed[..3],
        () => return None,
    };
    if may.iter().chain(EXCHANGE).any(|home| source.lives_in(home)) {
        return None;
    }
    let sentence = "only worker's exchange and control/admin.rs turn an internal error into a status code; listener \
                    answers malformed HTTP, and nothing else: return an error of your own";
    Some(sentence.into())
}

/// Names that are banned wherever they stand, each with its replacement.
fn bans(source: &Source, name: &Name) -> Option<String> {
    let is_in = |home: &str| source.lives_in(home);
    let is_lock = matches!(name.last(), "Mutex" | "RwLock") && name.is_below("std::sync");
    let sentence = match name.last() {
        _ if name.ends_in("Instant::now") && !RUNTIME_TIMERS.iter().any(|home| is_in(home)) => {
            "Instant::now is banned: take `now`, or read a base::clock::Clock"
        }
        "to_socket_addrs" | "ToSocketAddrs" if !is_in("control/resolver.rs") => {
            "to_socket_addrs is banned: it blocks; names are resolved in control and read through net::dns"
        }
        // The simulated provider is no part of the gateway: a lock there holds up nobody's stream.
        _ if is_lock && !is_in("mock") => {
            "std::sync locks are banned: ask who shares it, then see what threads may share"
        }
        // The simulated provider and the other commands answer whoever runs them.
        "eprintln" | "eprint" | "println" if !["cli", "mock", "telemetry/log.rs"].iter().any(|home| is_in(home)) => {
            "standard error is written by one thread: a worker that wrote there would wait for whoever reads it; say it \
             through telemetry::log"
        }
        "SegQueue" | "unbounded" | "unbounded_channel" => "unbounded channels are banned: say the bound",
        _ if name.ends_in("mpsc::channel") && name.is_call_without_arguments() => {
            "unbounded channels are banned: say the bound, as sync_channel does"
        }
        "unwrap" | "expect" if is_in("wire") && name.is_method_call() => {
            "unwrap and expect are banned in wire: what a peer sends never panics"
        }
        "unsafe" if !UNSAFE.iter().any(|home| is_in(home)) => {
            "unsafe lives in net/buf.rs, net/heap.rs, net/socket.rs and mesh/wake.rs only: find the safe way, or move it there with \
             its argument"
        }
        _ => return None,
    };
    Some(sentence.into())
}

fn homes(source: &Source, name: &Name) -> Option<String> {
    let homes = listed(HOMES, name.first())?;
    // A word alone is a variable or a field; a crate is named with a path or by `use`.
    let names_crate = name.is_use || name.segments.len() > 1;
    if !names_crate || homes.iter().any(|home| source.lives_in(home)) {
        return None;
    }
    Some(match homes {
        [] => format!("{} is a peer or tool of the tests: it never ships", name.first()),
        homes => format!("{} lives in {} only: use what that room offers", name.first(), homes.join(", ")),
    })
}
