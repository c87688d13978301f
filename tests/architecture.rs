//! The architecture, held by a test: reads what every file of `src` names and fails with the sentence that was broken.
//!
//! The rules are in `architecture/rules.rs`. They speak of every room that the design has, built or not.

#[path = "architecture/rules.rs"]
mod rules;
#[path = "architecture/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use source::Source;

#[test]
fn the_house_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    read(&root, &root, &mut sources);
    assert!(sources.iter().any(|source| source.path == "lib.rs"), "no sources below {}", root.display());
    let broken = rules::check(&sources);
    assert!(broken.is_empty(), "{} broken:\n\n{}\n", broken.len(), broken.join("\n\n"));
}

fn read(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry of src").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read(root, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let below = path.strip_prefix(root).expect("below src").to_str().expect("a UTF-8 path");
            sources.push(Source::read(below, &text));
        }
    }
}

/// What the rules say of one made-up file.
fn verdict(path: &str, text: &str) -> Vec<String> {
    rules::check(&[Source::read(path, text)])
}

#[test]
fn each_sentence_can_be_broken() {
    // file, its text, words of the sentence it breaks
    for (path, text, sentence) in [
        // Layers.
        ("wire/chat.rs", "use crate::config::Config;", "nothing imports sideways"),
        ("wire/chat.rs", "use crate::routing;", "imports point down"),
        ("config/compile.rs", "fn f(_: crate::net::dns::Names) {}", "imports point down"),
        ("base/mod.rs", "pub use super::wire::sse;", "nothing imports sideways"),
        ("routing/mod.rs", "use crate::{base::EndpointId, admission::Ticket};", "nothing imports sideways"),
        ("jobs/mod.rs", "use crate::cache::key::CacheKey;", "nothing imports sideways"),
        ("net/tls.rs", "use crate::config::Config;", "net imports only base"),
        ("telemetry/mod.rs", "use crate::wire::chat::Usage;", "telemetry imports only base"),
        ("mock/script.rs", "use crate::wire::sse;", "mock imports only base"),
        ("listener/mod.rs", "use super::worker::state::WorkerState;", "imports point down"),
        ("worker/mod.rs", "use crate::cli;", "imports point down"),
        ("control/mod.rs", "use crate::mock::Mock;", "imports point down"),
        ("plugins/mod.rs", "", "has no layer"),
        // The six sentences with never.
        ("wire/sse.rs", "use std::fs;", "the pure layers never import"),
        ("routing/retry.rs", "use std::{io, net::{IpAddr, TcpStream}};", "the pure layers never import"),
        ("config/compile.rs", "fn f() { std::env::var(\"X\"); }", "the pure layers never import"),
        ("admission/quota.rs", "use crate::base::clock::{Clock, Instant};", "the pure layers never import"),
        ("routing/balance.rs", "use monoio::time::sleep;", "the pure layers never import"),
        ("config/mod.rs", "fn f() { std::time::SystemTime::now(); }", "the pure layers never import"),
        ("routing/mod.rs", "fn f() { aws_lc_rs::rand::fill(&mut [0]); }", "the pure layers never import"),
        ("worker/exchange.rs", "use crate::control::resolver;", "worker never imports control"),
        ("control/reload.rs", "use crate::worker::state::WorkerState;", "control knows workers only as inboxes"),
        ("mesh/inbox.rs", "use crate::worker::message::ToWorker;", "mesh never imports a domain type"),
        ("mesh/mailbox.rs", "use crate::routing::health;", "mesh never imports a domain type"),
        ("upstream/pool.rs", "use crate::listener::http1;", "listener and upstream never import each other"),
        ("listener/http1.rs", "use super::super::upstream as up;", "listener and upstream never import each other"),
        ("upstream/probe.rs", "fn f() { monoio::spawn(async {}); }", "only worker, control and cli spawn"),
        ("net/dns.rs", "use std::thread::spawn;", "only worker, control and cli spawn"),
        ("telemetry/mod.rs", "fn f() { Builder::new().spawn(run); }", "only worker, control and cli spawn"),
        ("upstream/mod.rs", "fn f() -> Reject { Reject::upstream(502, \"x\", \"y\") }", "turn an internal error"),
        (
            "listener/mod.rs",
            "fn f() -> Reject { reject::Reject::gateway(500, \"x\", \"y\") }",
            "turn an internal error",
        ),
        ("worker/state.rs", "fn f() -> Reject { Reject::gateway(503, \"x\", \"y\") }", "turn an internal error"),
        ("net/stream.rs", "impl From<Error> for Reject { }", "turn an internal error"),
        // Banned by name.
        ("worker/relay.rs", "fn f() { let t = std::time::Instant::now(); }", "take `now`"),
        ("cli/demo.rs", "fn f() { tokio::time::Instant::now(); }", "take `now`"),
        ("upstream/connect.rs", "fn f() { (host, 1).to_socket_addrs(); }", "net::dns"),
        ("worker/state.rs", "use std::sync::{Arc, Mutex};", "ask who shares it"),
        ("worker/state.rs", "struct S { s: std::sync::RwLock<u8> }", "ask who shares it"),
        ("control/sink.rs", "fn f() { let c = std::sync::mpsc::channel(); }", "say the bound"),
        ("control/sink.rs", "fn f() { let c = mpsc::channel::<u8>(); }", "say the bound"),
        ("control/sink.rs", "use crossbeam::channel::unbounded;", "say the bound"),
        ("mesh/inbox.rs", "use crossbeam::queue::SegQueue;", "say the bound"),
        ("worker/relay.rs", "fn f() { eprintln!(\"x\"); }", "standard error is written by one thread"),
        ("wire/http1.rs", "fn f() { x.unwrap(); }", "banned in wire"),
        ("wire/sse/lines.rs", "fn f() { x.expect(\"y\"); }", "banned in wire"),
        ("net/tls.rs", "fn f() { unsafe { x() } }", "unsafe lives in"),
        // Homes.
        ("listener/http1.rs", "use httparse::Request;", "httparse lives in wire/http1.rs only"),
        ("worker/mod.rs", "fn f(c: rustls::ClientConfig) {}", "rustls lives in net/tls.rs only"),
        ("worker/mod.rs", "use tokio::sync::oneshot;", "tokio lives in mock, control, cli, net/duplex.rs only"),
        ("upstream/mod.rs", "use hyper;", "hyper lives in"),
        ("worker/state.rs", "use crossbeam::queue::ArrayQueue;", "crossbeam lives in"),
        ("control/mod.rs", "use nix::unistd;", "nix lives in"),
        ("worker/mod.rs", "type T = quanta::Instant;", "quanta lives in base/clock.rs only"),
        ("listener/http1.rs", "use monoio_http::h1;", "it never ships"),
    ] {
        let broken = verdict(path, text);
        assert!(
            broken.iter().any(|broken| broken.contains(sentence)),
            "src/{path}: `{text}` should break \"{sentence}\", but broke {broken:?}"
        );
        let place = format!("src/{path}:");
        assert!(broken.iter().all(|broken| broken.starts_with(&place)), "{broken:?} should name src/{path}");
    }
}

#[test]
fn what_the_design_allows_passes() {
    for (path, text) in [
        ("wire/mod.rs", "use crate::base::Dialect; use self::http1::Head; use super::wire::sse;"),
        ("config/mod.rs", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration;"),
        ("cache/flight.rs", "use crate::journal::Journal; use crate::wire::chat;"),
        ("base/clock.rs", "fn f() { quanta::Clock::new(); std::time::SystemTime::now(); }"),
        ("listener/http1.rs", "use crate::{net::buf, wire::http1, telemetry}; fn f() { Reject::client(400, a, b); }"),
        (
            "worker/exchange.rs",
            "use crate::{listener, upstream::pool, routing}; fn f() { Reject::upstream(502, a, b); }",
        ),
        ("worker/mod.rs", "fn f() { std::thread::Builder::new().spawn(run); nix::sched::sched_setaffinity(a, b); }"),
        ("admission/mod.rs", "fn f() -> Result<Ticket, Reject> { Err(Reject::gateway(503, a, b)) }"),
        ("control/resolver.rs", "use crate::worker::message::ToWorker; fn f() { (h, p).to_socket_addrs(); }"),
        ("mock/mod.rs", "use crate::base::clock::Clock; fn f() { tokio::spawn(g()); mpsc::channel(8); }"),
        ("net/rt.rs", "pub fn spawn(f: F) { monoio::spawn(f); } fn g() { io_uring::IoUring::builder(); }"),
        ("net/buf.rs", "unsafe impl IoBuf for Buf {}"),
        ("wire/http1.rs", "use httparse; fn f() { x.unwrap_or_default(); self.expect = 100; expect(b'x'); }"),
        ("main.rs", "use ringway::cli; fn main() { cli::run(); }"),
        // A word in a comment, a literal or a test breaks nothing.
        (
            "wire/sse.rs",
            "// use std::fs; x.unwrap()\n/* Instant::now /* unsafe */ */ const A: &str = \"std::fs \\\" tokio::x\";",
        ),
        (
            "wire/sse.rs",
            "const A: &[u8] = br#\"tokio::spawn(\"#; const B: char = '\"'; const C: u8 = b'\\''; fn f<'a>() {}",
        ),
        ("wire/sse.rs", "#[cfg(test)]\nmod tests { use std::fs; fn f() { x.unwrap(); } }"),
        ("wire/sse.rs", "#[cfg(all(test, unix))] #[allow(x)] fn f(a: [u8; 2]) -> u8 { a.unwrap() }"),
        ("wire/sse.rs", "#[cfg(test)]\nuse std::fs;\n#[test] fn f() { std::time::Instant::now(); }"),
        ("wire/sse/tests.rs", "use std::fs; fn f() { unsafe { x.unwrap() } }"),
    ] {
        assert_eq!(verdict(path, text), Vec::<String>::new(), "src/{path}: `{text}`");
    }
}

#[test]
fn what_follows_a_test_or_a_literal_is_still_read() {
    for text in [
        "#[cfg(test)]\nmod tests { fn f() { g({}); } }\nuse std::fs;",
        "#[cfg(test)]\nmod tests;\nuse std::fs;",
        "const A: char = '\\''; const B: &str = \"\\\\\"; use std::fs;",
        "const A: &str = r##\"\"#\"##; use std::fs;",
        "fn f<'a>(x: &'a str) -> char { 'a' } use std::fs;",
        "/* a /* b */ c */ use std::fs;",
        "use r#type::x; use std::fs;",
    ] {
        let broken = verdict("wire/sse.rs", text);
        let line = text.lines().count();
        assert!(
            matches!(broken.as_slice(), [one] if one.starts_with(&format!("src/wire/sse.rs:{line}: `std::fs`"))),
            "`{text}` gave {broken:?}"
        );
    }
}

#[test]
fn a_file_has_at_most_600_lines_but_for_tests() {
    let (bound, above) = ("\n".repeat(600), "\n".repeat(601));
    assert_eq!(verdict("wire/sse.rs", &bound), Vec::<String>::new());
    assert!(verdict("wire/sse.rs", &above)[0].contains("has 601 lines"));
    assert_eq!(verdict("wire/sse/tests.rs", &above), Vec::<String>::new());
}

#[test]
fn the_map_shows_every_room_in_layer_order() {
    let map = |text: &str, rooms: &[&str]| {
        let mut sources = vec![Source::read("lib.rs", text)];
        sources.extend(rooms.iter().map(|room| Source::read(&format!("{room}/mod.rs"), "")));
        rules::check(&sources)
    };
    let good = "//! The house:\n//!\n//! cli  the command line\n//! net  mesh  mechanisms\n//! wire  base   vocabulary";
    assert_eq!(map(good, &["cli", "net", "base"]), Vec::<String>::new());
    assert!(map(good, &["worker"])[0].contains("does not show the room `worker`"));
    for upside_down in ["//! base  x\n//! cli  y", "//! net  wire  x", "//! net  x\n//! mesh  y"] {
        assert!(map(upside_down, &[]).iter().any(|broken| broken.contains("out of layer order")), "{upside_down}");
    }
}
