//! The loads: closed loop, open loop, streams, idle connections.

mod closed;
mod idle;
mod open;
mod sse;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::channel::{self, Multiplex, Way};
use crate::clock::now_ns;
use crate::fleet::Turn;
use crate::http::{self, ChatRequest, Target};
use crate::usage;

/// A load to offer.
#[derive(Subcommand)]
pub enum Command {
    /// Closed loop: every connection sends its next request when it has its answer.
    Closed(closed::Closed),
    /// Open loop at a fixed rate; latency counts from the time at which a request was due.
    Open(open::Open),
    /// Event streams with evenly spread phases; delay of each event from its sender's stamp.
    Sse(sse::Sse),
    /// Idle connections: memory before, while they are held, and after.
    Idle(idle::Idle),
}

impl Command {
    /// Offers the load and prints the outcome. True if nothing failed.
    ///
    /// # Errors
    /// The target can't be reached at all, or a `--pid` does not exist.
    pub fn run(&self) -> io::Result<bool> {
        let outcome = match self {
            Command::Closed(load) => load.run()?,
            Command::Open(load) => load.run()?,
            Command::Sse(load) => load.run()?,
            Command::Idle(load) => load.run()?,
        };
        println!("{outcome}");
        Ok(outcome["errors"] == 0)
    }
}

/// What every load needs to know.
#[derive(Args)]
pub struct Common {
    /// Where requests go: http://host:port/path, or https.
    #[arg(long, value_parser = http::parse_target)]
    url: Target,
    /// A header to add, `Name: value`; repeatable.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Model named in the body.
    #[arg(long, default_value = "mock")]
    model: String,
    /// Length of the request body.
    #[arg(long, default_value_t = 1024)]
    body_bytes: usize,
    /// What is sent: a chat request; a file of --body-bytes octets; or a GET without a body.
    #[arg(long, value_enum, default_value_t)]
    send: What,
    /// Send a file in chunks of so many bytes. 0: with its length.
    #[arg(long, default_value_t = 0)]
    chunk_bytes: usize,
    /// Process under test, whose CPU time is read at both ends; repeatable.
    #[arg(long = "pid")]
    pids: Vec<u32>,
    /// PEM file of the certificates to trust, for https.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Take up earlier TLS sessions.
    #[arg(long)]
    resume: bool,
    /// Speak HTTP/2, in the clear too, with so many requests at a time on each connection. 0: HTTP/1.1.
    #[arg(long, default_value_t = 0)]
    h2: usize,
}

/// What a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum What {
    #[default]
    Chat,
    File,
    Get,
}

impl Common {
    fn way(&self) -> io::Result<Way> {
        let tls = match (self.url.tls, &self.ca) {
            (false, _) => None,
            (true, Some(ca)) => Some(channel::tls(ca, self.resume, self.h2 > 0)?),
            (true, None) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "an https URL needs --ca")),
        };
        let http2 = (self.h2 > 0).then_some(Multiplex { streams: self.h2, stalled: None });
        Ok(Way { address: self.url.address, tls, http2 })
    }

    /// How many requests can be under way on so many connections.
    fn lanes(&self, connections: usize) -> usize {
        connections * self.h2.max(1)
    }

    fn request(&self, stream: bool) -> ChatRequest {
        match self.send {
            What::Chat => http::chat_request(&self.url, &self.headers, &self.model, self.body_bytes, stream),
            What::File => http::file_request(&self.url, &self.headers, self.body_bytes, self.chunk_bytes),
            What::Get => http::get_request(&self.url, &self.headers),
        }
    }
}

/// Failures by reason.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    reasons: BTreeMap<String, u64>,
}

impl Failures {
    fn add(&mut self, reason: &str) {
        self.add_many(reason, 1);
    }

    fn add_many(&mut self, reason: &str, count: u64) {
        if count > 0 {
            self.count += count;
            *self.reasons.entry(reason.to_owned()).or_default() += count;
        }
    }

    /// True if the turn is an exchange's end. Counts bytes that nobody asked for.
    fn ends_exchange(&mut self, turn: Turn) -> bool {
        if turn == Turn::Stray {
            self.add("bytes that belong to no request");
        }
        matches!(turn, Turn::Done { .. } | Turn::Failed(_))
    }

    /// Adds what the outcome of a plain exchange has against it; true if it was good.
    ///
    /// `body_bytes` is the length every answer must have; the first answer sets it if nobody else has.
    fn judge(&mut self, turn: Turn, body_bytes: &mut Option<u64>) -> bool {
        match turn {
            Turn::Done { status: 200, body_bytes: got } if got == *body_bytes.get_or_insert(got) => return true,
            Turn::Done { status: 200, body_bytes: got } => self.add(&format!("answer of {got} bytes")),
            Turn::Done { status, .. } => self.add(&format!("status {status}")),
            Turn::Failed(reason) => self.add(reason),
            Turn::Renewed | Turn::Stray => {}
        }
        false
    }
}

/// CPU time over a stretch of the load: of the process under test, and of this generator.
struct Meter {
    started_ns: u64,
    tested_ns: u64,
    own_ns: u64,
}

impl Meter {
    fn start(pids: &[u32]) -> io::Result<Self> {
        Ok(Meter {
            tested_ns: usage::cpu_ns(pids)?,
            own_ns: usage::cpu_ns(&[std::process::id()])?,
            started_ns: now_ns(),
        })
    }

    /// Adds to `report` what was used since the start; `units` is what the time is divided by.
    fn stop(&self, pids: &[u32], units: u64, report: &mut Value) -> io::Result<()> {
        let seconds = (now_ns() - self.started_ns) as f64 / 1e9;
        let own_ns = usage::cpu_ns(&[std::process::id()])?.saturating_sub(self.own_ns);
        report["seconds"] = json!(seconds);
        report["per_second"] = json!(units as f64 / seconds);
        report["generator_cpu_ns"] = json!(own_ns);
        if !pids.is_empty() {
            // The scheduler brings a running thread's account up to date only at its tick: let it go to sleep.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let cpu_ns = usage::cpu_ns(pids)?.saturating_sub(self.tested_ns);
            report["cpu_ns"] = json!(cpu_ns);
            report["cpu_us_per_unit"] = json!(cpu_ns as f64 / 1e3 / units.max(1) as f64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod http2_tests;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod tls_tests;
