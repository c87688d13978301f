//! The measuring side of `perf/run` and `perf/soak`: loads that wrk and h2load lack, and a raw relay as the physical reference.
//!
//! Decides how a load is offered and what is counted; not which proxies are compared or what must hold (that is
//! `perf/run`). Every load prints one JSON object on stdout and exits with 1 if any request failed.

mod certificate;
mod channel;
mod clock;
mod events;
mod fleet;
mod hpack;
mod http;
mod http2;
mod load;
mod relay;
mod report;
mod soak;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "ringway-perf", about = "Load generator and raw byte relay for perf/run", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Offer one load to one address and print what came of it, as JSON.
    #[command(subcommand)]
    Load(Box<load::Command>),
    /// Offer a mixed load with faults and clients that leave, for long, and print how every exchange ended, as JSON.
    Soak(soak::Soak),
    /// Relay bytes without looking at them, on one monoio thread: what any proxy must spend at least.
    Relay {
        /// Address to listen on, then the address to connect to: `127.0.0.1:0=127.0.0.1:9000`. Repeatable.
        #[arg(long = "pair", value_parser = relay::parse_pair, required = true)]
        pairs: Vec<(SocketAddr, SocketAddr)>,
        /// Submission queue entries of the ring.
        #[arg(long, default_value_t = 1024)]
        entries: u32,
    },
    /// Write a certificate of its own for 127.0.0.1 to DIRECTORY: cert.pem, key.pem, and both.pem for those who want one file.
    Certificate {
        /// Where.
        directory: PathBuf,
    },
    /// Print the CPU nanoseconds and the memory of processes, as JSON.
    Cpu {
        /// Process to read; repeatable, the sum is printed.
        #[arg(long = "pid", required = true)]
        pids: Vec<u32>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Load(load) => load.run(),
        Command::Soak(soak) => soak.run(),
        Command::Relay { pairs, entries } => relay::run(&pairs, entries).map(|()| true),
        Command::Certificate { directory } => certificate::write(&directory).map(|()| true),
        Command::Cpu { pids } => print_usage(&pids),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ringway-perf: {error}");
            ExitCode::from(2)
        }
    }
}

fn print_usage(pids: &[u32]) -> io::Result<bool> {
    let memory = usage::memory(pids)?;
    println!(
        "{}",
        serde_json::json!({
            "cpu_ns": usage::cpu_ns(pids)?,
            "rss_kib": memory.rss_kib,
            "pss_kib": memory.pss_kib,
        })
    );
    Ok(true)
}
