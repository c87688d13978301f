//! A mixed load for hours: streams, posts, uploads, faults, clients that leave in every phase, connections that come and go.
//!
//! Decides what is sent and which ends are expected of it; not whether memory stays flat (that is `perf/soak`). Each request
//! has an id of its own, `s<actor>-<number>`, so that its record can be found again.

mod actor;
mod menu;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use rustls::ClientConfig;
use serde_json::json;

use crate::channel;

use actor::{Actor, Tally};

/// Mixed load on a gateway in front of `ringway mock`.
#[derive(Args)]
pub struct Soak {
    /// The gateway's listener.
    #[arg(long)]
    address: SocketAddr,
    /// The gateway's TLS listener: half of the connections are made to it.
    #[arg(long, requires = "ca")]
    tls: Option<SocketAddr>,
    /// The certificate to trust there, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client key.
    #[arg(long)]
    key: String,
    /// How long.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Exchanges begun in a second, over all actors, at most.
    #[arg(long, default_value_t = 150.0)]
    rate: f64,
    /// Clients that act one after the other's clock, each with a connection of its own.
    #[arg(long, default_value_t = 128)]
    actors: u32,
    /// Connections that come, mostly wait, and go, at once.
    #[arg(long, default_value_t = 200)]
    idle: u32,
    /// Decides the order of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Where the gateway listens.
#[derive(Clone)]
struct Door {
    address: SocketAddr,
    /// For HTTPS, with what to trust. Sessions are resumed.
    tls: Option<(SocketAddr, Arc<ClientConfig>)>,
}

/// Ends that nobody expected and that are told in full.
const EXAMPLES_MAX: usize = 20;

impl Soak {
    /// Offers the load and prints what came of it. True if every end was an expected one.
    ///
    /// # Errors
    /// A thread can't be made; the certificate can't be read.
    pub fn run(&self) -> io::Result<bool> {
        let stop = AtomicBool::new(false);
        let tls = match (self.tls, &self.ca) {
            (Some(address), Some(ca)) => Some((address, channel::tls(ca, true, false)?)),
            _ => None,
        };
        let door = Door { address: self.address, tls };
        let tallies: Vec<Tally> = thread::scope(|scope| {
            let mut threads = Vec::new();
            for number in 0..self.actors {
                let actor = Actor::new(number, door.clone(), &self.key, self.seed);
                let pause = Duration::from_secs_f64(f64::from(self.actors) / self.rate);
                let stop = &stop;
                let act = move || actor.act(pause, stop);
                threads.push(thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, act)?);
            }
            let idler = Actor::new(self.actors, door.clone(), &self.key, self.seed);
            threads.push(thread::Builder::new().spawn_scoped(scope, || idler.idle(self.idle, &stop))?);
            thread::sleep(Duration::from_secs_f64(self.seconds));
            stop.store(true, Ordering::Relaxed);
            io::Result::Ok(threads.into_iter().map(|thread| thread.join().expect("an actor")).collect())
        })?;
        let mut kinds: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for tally in &tallies {
            for ((kind, end), count) in &tally.ends {
                *kinds.entry(kind).or_default().entry(end.clone()).or_default() += count;
            }
        }
        let unexpected: u64 = tallies.iter().map(|tally| tally.unexpected).sum();
        let examples: Vec<_> = tallies.iter().flat_map(|tally| &tally.examples).take(EXAMPLES_MAX).collect();
        println!(
            "{}",
            json!({
                "load": "soak",
                "requests": tallies.iter().map(|tally| tally.requests).collect::<Vec<_>>(),
                "anonymous": tallies.iter().map(|tally| tally.anonymous).sum::<u64>(),
                "connections": tallies.iter().map(|tally| tally.connections).sum::<u64>(),
                "ends": kinds,
                "unexpected": unexpected,
                "examples": examples,
            })
        );
        Ok(unexpected == 0)
    }
}
