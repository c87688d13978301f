//! `ringway demo`: gateway, simulated provider and client in one process, to be seen and measured at once.
//!
//! Everything is on loopback and nothing is configured. On a machine with several CPUs the gateway's worker has one
//! to itself; provider and client share the others.

mod client;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::check::RealSources;
use super::serve::{self, Running};
use crate::config::compile::{Sources, compile};
use crate::mock::script::Script;
use crate::mock::{Mock, MockConfig};
use crate::worker::Started;
use client::{Client, Seen};

/// How the provider behaves unless a request says otherwise: at the pace of a model.
const PACE: &str = "ttft=300ms,gap=25ms,tokens=60";
/// How it behaves while it is measured: at once, so that only what is added takes time; each event stamped.
const MEASURED: &str = "ttft=0,gap=20ms,tokens=50,stamp=on";
/// Makes the connections, the gateway's own too, that the measured streams then find open.
const WARM_UP: &str = "ttft=0,gap=20ms,tokens=2";
/// Time between the starts of two measured streams; with a gap of 20 ms this spreads their events evenly.
const STAGGER: Duration = Duration::from_millis(3);
/// Time before the first of them.
const SETTLE: Duration = Duration::from_millis(100);
/// How often straight and through take turns.
const ROUNDS: usize = 2;
/// The longest line that the answer is printed in.
const LINE_CHARS: usize = 76;

const HELP: &str = "\
Gateway, simulated provider and client are this one process. Nothing is
configured, stored or sent anywhere, and all of it is on 127.0.0.1. The figures
depend on the machine and on what else runs there; build with --release.

    ringway demo                        on port 8080, or a free one
    ringway demo --port 0 --no-load     just a gateway to try SDKs on

It then serves the model `mock`, without a key, until Ctrl-C. The provider does
what the header x-mock of a request says, faults included:

    -H 'x-mock: ttft=2s,gap=100ms'      a slow model
    -H 'x-mock: fault=cut@5'            the connection breaks after five tokens
    -H 'x-mock: status=429'             it refuses

`ringway mock --help` lists all of it.

Exit codes: 0 ended by Ctrl-C, 1 something failed.";

/// What `ringway demo` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct DemoArgs {
    /// Port on 127.0.0.1; if it is in use a free one is taken instead
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Streams to measure each way, half of them at a time
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(2..=2000))]
    streams: u16,
    /// Measure nothing
    #[arg(long)]
    no_load: bool,
}

/// Runs the demo until Ctrl-C.
pub fn run(args: DemoArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ringway demo: no runtime can be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        // Listened for before anything else, so that Ctrl-C means the same at every moment.
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return Err("signals cannot be listened for".to_owned());
        };
        tokio::select! {
            ended = show(&args) => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    });
    match ended {
        Ok(()) => {
            let _ = writeln!(io::stdout());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("ringway demo: {why}");
            ExitCode::FAILURE
        }
    }
}

/// All of it, from the first line to waiting for ever.
async fn show(args: &DemoArgs) -> Result<(), String> {
    let cores = Cores::share_out();
    let provider = provider()?;
    let running = gateway(args.port, provider.addr(), &cores)?;
    let (Some(address), Some(worker)) = (running.addresses.first().copied(), running.workers.first()) else {
        return Err("the gateway has no address".to_owned());
    };
    introduce(address, provider.addr(), worker, &cores)?;
    one_chat(address).await?;
    if !args.no_load {
        let streams = usize::from(args.streams);
        say(&format!(
            "\n{streams} streams straight to the provider and {streams} through the gateway, in turns,\n{} at a time, \
             an event each 20 ms …\n",
            streams.div_ceil(ROUNDS),
        ))?;
        let measured = measure(provider.addr(), address, streams, worker).await?;
        say(&measured.table(&cores, worker))?;
    }
    say(&to_try(address))?;
    std::future::pending().await
}

/// Which CPU the gateway has, and which are left for all else.
struct Cores {
    gateway: usize,
    others: Vec<usize>,
}

impl Cores {
    /// Gives the last CPU to the gateway and confines this thread, and those it starts from now on, to the others.
    /// With one CPU all share it.
    fn share_out() -> Cores {
        let mut others = RealSources.cores();
        let gateway = others.pop().unwrap_or(0);
        let mut set = CpuSet::new();
        let confined = !others.is_empty()
            && others.iter().all(|cpu| set.set(*cpu).is_ok())
            && sched_setaffinity(Pid::from_raw(0), &set).is_ok();
        Cores { gateway, others: if confined { others } else { Vec::new() } }
    }
}

fn provider() -> Result<Mock, String> {
    let mut script = Script::default();
    script.apply(PACE)?;
    let config = MockConfig { script, ..MockConfig::default() };
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| Mock::spawn(listener, config))
        .map_err(|error| format!("the simulated provider cannot be started: {error}"))
}

/// Starts the gateway on `port`, or on a free one if that is in use, from a configuration like any other.
fn gateway(port: u16, provider: SocketAddr, cores: &Cores) -> Result<Running, String> {
    let start = |port: u16| {
        let text = format!(
            r#"
cores = "{core}"
[[listeners]]
address = "127.0.0.1:{port}"
[[providers]]
name = "simulated"
[[providers.endpoints]]
url = "http://{provider}/v1"
[[models]]
name = "mock"
route = [{{ provider = "simulated" }}]
"#,
            core = cores.gateway,
        );
        let config = compile(&text, Path::new(""), &Pinned(cores.gateway));
        serve::start(config.map_err(|errors| errors.render("the demo's configuration"))?)
    };
    match start(port) {
        Err(why) if port != 0 => {
            say(&format!("{why}.\nTaking a free port instead.\n\n"))?;
            start(0)
        }
        started => started,
    }
}

/// The surroundings of the demo's configuration: one CPU, and nothing else that it could depend on.
struct Pinned(usize);

impl Sources for Pinned {
    fn env(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn cores(&self) -> Vec<usize> {
        vec![self.0]
    }
}

fn introduce(address: SocketAddr, provider: SocketAddr, worker: &Started, cores: &Cores) -> Result<(), String> {
    let others = if cores.others.is_empty() { vec![cores.gateway] } else { cores.others.clone() };
    let others: Vec<String> = others.iter().map(usize::to_string).collect();
    say(&format!(
        "gateway    http://{address}   core {}, {}\nprovider   http://{provider}   core {}, simulated; this client runs \
         there too\n",
        cores.gateway,
        worker.rung,
        others.join(","),
    ))
}

/// Sends one chat through the gateway and prints its answer as it arrives.
async fn one_chat(gateway: SocketAddr) -> Result<(), String> {
    say("\nOne chat through the gateway, printed as it arrives (the provider makes it up):\n\n  ")?;
    let mut column = 0;
    let mut printed = Ok(());
    let each = |data: &[u8], _: u64| {
        let event: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
        let Some(text) = event["choices"][0]["delta"]["content"].as_str() else { return };
        let text = if column == 0 { text.trim_start() } else { text };
        column += text.chars().count();
        if column > LINE_CHARS {
            column = text.trim_start().chars().count();
            printed = printed.clone().and(say(&format!("\n  {}", text.trim_start())));
        } else {
            printed = printed.clone().and(say(text));
        }
    };
    let failed = |why: String| format!("the chat through the gateway failed: {why}");
    let mut client = Client::connect(gateway).await.map_err(|error| failed(error.to_string()))?;
    client.chat(&body("What is a gateway?"), PACE, each).await.map_err(failed)?;
    printed?;
    say("\n")
}

/// A streamed chat request.
fn body(prompt: &str) -> String {
    format!(r#"{{"model":"mock","stream":true,"messages":[{{"role":"user","content":"{prompt}"}}]}}"#)
}

/// What straight and through came to.
struct Measured {
    straight: Seen,
    through: Seen,
    /// What the gateway's thread had of its core for the streams through it, if the kernel tells.
    cpu: Option<Cpu>,
}

/// Time of one thread, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Cpu {
    /// It ran.
    run_ns: u64,
    /// It could have run, and something else had its core.
    wait_ns: u64,
}

/// Straight and through in turns, so that whatever else the machine does meets both.
async fn measure(
    provider: SocketAddr,
    gateway: SocketAddr,
    streams: usize,
    worker: &Started,
) -> Result<Measured, String> {
    let mut measured = Measured { straight: Seen::default(), through: Seen::default(), cpu: Some(Cpu::default()) };
    for round in 0..ROUNDS {
        let share = streams / ROUNDS + usize::from(round < streams % ROUNDS);
        let straight = warm_up(provider, share).await?;
        measured.straight.add(together(straight).await?);
        let through = warm_up(gateway, share).await?;
        let before = cpu(worker.thread);
        measured.through.add(together(through).await?);
        let after = cpu(worker.thread);
        measured.cpu = measured.cpu.zip(before.zip(after)).map(|(sum, (before, after))| Cpu {
            run_ns: sum.run_ns + after.run_ns.saturating_sub(before.run_ns),
            wait_ns: sum.wait_ns + after.wait_ns.saturating_sub(before.wait_ns),
        });
    }
    Ok(measured)
}

/// Opens `count` connections and has a short stream on each at the same time.
async fn warm_up(address: SocketAddr, count: usize) -> Result<Vec<Client>, String> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(async move {
            let mut client = Client::connect(address).await.map_err(|error| error.to_string())?;
            client.chat(&body("Warm up."), WARM_UP, |_, _| {}).await?;
            Ok::<_, String>(client)
        });
    }
    join(tasks).await
}

/// A measured stream on each of `clients`.
async fn together(clients: Vec<Client>) -> Result<Seen, String> {
    let mut tasks = JoinSet::new();
    for (at, mut client) in (0..).zip(clients) {
        tasks.spawn(async move {
            // The connections of the round before are still being closed.
            tokio::time::sleep(SETTLE + STAGGER * at).await;
            client.measure(&body("Tell me more."), MEASURED).await
        });
    }
    let mut sum = Seen::default();
    for seen in join(tasks).await? {
        sum.add(seen);
    }
    Ok(sum)
}

async fn join<T: 'static>(mut tasks: JoinSet<Result<T, String>>) -> Result<Vec<T>, String> {
    let mut all = Vec::with_capacity(tasks.len());
    while let Some(one) = tasks.join_next().await {
        let one = one.map_err(|error| format!("a stream failed: {error}"))?;
        all.push(one.map_err(|why| format!("a stream failed: {why}"))?);
    }
    Ok(all)
}

/// What one of this process's threads has had so far; `None` where the kernel does not count it.
fn cpu(thread: i32) -> Option<Cpu> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
    let (run_ns, wait_ns) = (numbers.next()?, numbers.next()?);
    (run_ns > 0).then_some(Cpu { run_ns, wait_ns })
}

impl Measured {
    /// The summary as it is printed.
    fn table(mut self, cores: &Cores, worker: &Started) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let mut line = |name: &str, quantile: &str, straight: Option<u64>, through: Option<u64>| {
            if let (Some(straight), Some(through)) = (straight, through) {
                let added = (through as f64 - straight as f64) / 1e3;
                let (straight, through) = (straight as f64 / 1e3, through as f64 / 1e3);
                let _ = writeln!(out, "{name:<28}{quantile:>4}{straight:>10.0} µs{through:>10.0} µs{added:>+10.0} µs");
            }
        };
        for (name, straight, through) in [
            ("time to first token", &mut self.straight.ttft_ns, &mut self.through.ttft_ns),
            ("way of each later event", &mut self.straight.delay_ns, &mut self.through.delay_ns),
        ] {
            straight.sort_unstable();
            through.sort_unstable();
            line(name, "p50", quantile(straight, 50), quantile(through, 50));
            line("", "p99", quantile(straight, 99), quantile(through, 99));
        }
        let head = format!("\n{:<32}{:>13}{:>13}{:>13}\n", "", "straight", "through", "added");
        let mut notes = String::from("\n");
        match self.cpu {
            Some(Cpu { run_ns, wait_ns }) if self.through.events > 0 => {
                let each = run_ns as f64 / 1e3 / self.through.events as f64;
                let events = self.through.events;
                let _ = writeln!(
                    notes,
                    "CPU of the gateway's thread: {each:.1} µs an event ({events} events, their requests included).\n\
                     It waited {:.1} ms for its core while other programs had it; waiting shows in p99.",
                    wait_ns as f64 / 1e6,
                );
            }
            _ => notes.push_str("This kernel does not count the CPU time of threads.\n"),
        }
        notes.push_str("The provider answers at once here; \"added\" is the difference of the two percentiles.\n");
        if cores.others.is_empty() {
            notes.push_str("All parts share one core, so each waits for the others: the times say little.\n");
        } else if !worker.pinned {
            notes.push_str("The gateway's thread could not be pinned: all parts share all cores.\n");
        } else {
            let count = cores.others.len();
            let are = if count == 1 { "one core is" } else { "the other cores are" };
            let _ =
                writeln!(notes, "The gateway has one core; {are} shared by provider, client and whatever else runs.");
        }
        if cfg!(debug_assertions) {
            notes.push_str("This is a debug build, many times slower than `cargo run --release -- demo`.\n");
        }
        format!("{head}{out}{notes}")
    }
}

/// The value that `percent` of `sorted` do not pass.
fn quantile(sorted: &[u64], percent: usize) -> Option<u64> {
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

/// What can be copied into another terminal.
fn to_try(gateway: SocketAddr) -> String {
    let body = body("hello");
    format!(
        "\nTry it from another terminal:\n\n\
         curl -N http://{gateway}/v1/chat/completions -H 'content-type: application/json' -d '{body}'\n\n\
         or with the OpenAI SDK (pip install openai):\n\n\
         from openai import OpenAI\n\
         client = OpenAI(base_url=\"http://{gateway}/v1\", api_key=\"any\")\n\
         for chunk in client.chat.completions.create(model=\"mock\", stream=True, messages=[{{\"role\": \"user\", \
         \"content\": \"hello\"}}]):\n    \
         print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)\n\n\
         To see a provider fail in the middle, add -H 'x-mock: fault=cut@5' to curl.\n\
         It stays up until Ctrl-C.\n"
    )
}

/// Writes to stdout at once.
///
/// # Errors
/// Nobody reads any more.
fn say(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("stdout is closed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let hundred: Vec<u64> = (1..=100).collect();
        for (sorted, percent, expected) in [
            (&[][..], 50, None),
            (&[7], 99, Some(7)),
            (&[1, 2], 50, Some(1)),
            (&[1, 2, 3], 50, Some(2)),
            (&hundred, 50, Some(50)),
            (&hundred, 99, Some(99)),
            (&hundred, 100, Some(100)),
        ] {
            assert_eq!(quantile(sorted, percent), expected, "p{percent} of {}", sorted.len());
        }
    }
}
