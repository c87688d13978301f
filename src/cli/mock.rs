//! `ringway mock`: the simulated provider on its own.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use crate::mock::script::{self, Script};
use crate::mock::{Mock, MockConfig};

/// Run a simulated provider: OpenAI's and Anthropic's APIs, with settable timing and faults.
#[derive(Debug, clap::Args)]
#[command(after_long_help = script::help())]
pub struct MockArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub address: SocketAddr,
    /// Time to the first content event, or to an unstreamed answer, such as 50ms.
    #[arg(long)]
    pub ttft: Option<String>,
    /// Time between content events, such as 10ms.
    #[arg(long)]
    pub gap: Option<String>,
    /// Content tokens in an answer.
    #[arg(long)]
    pub tokens: Option<String>,
    /// Exact bytes of each token; 0 = words.
    #[arg(long)]
    pub token_bytes: Option<String>,
    /// Decides text and ids.
    #[arg(long)]
    pub seed: Option<String>,
    /// Where a chat stream reports usage.
    #[arg(long)]
    pub usage: Option<String>,
    /// What goes wrong, such as stall@3.
    #[arg(long)]
    pub fault: Option<String>,
    /// A keep-alive this often while waiting.
    #[arg(long)]
    pub comments: Option<String>,
    /// Anything else: key=value,key=value (the keys are listed below with --help).
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub script: Option<String>,
    /// Each event carries the time it left (x_sent_ns, CLOCK_MONOTONIC).
    #[arg(long)]
    pub stamp: bool,
    /// Answer any POST with one prebuilt answer at the least cost; faults and scripts of requests are off.
    #[arg(long)]
    pub fixed: bool,
    /// Bytes of the prebuilt answer's body.
    #[arg(long, default_value_t = 1024, requires = "fixed")]
    pub fixed_bytes: usize,
    /// Threads to serve with.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
}

impl MockArgs {
    /// The script these flags describe.
    ///
    /// # Errors
    /// A sentence about the first value that is not understood.
    pub fn script(&self) -> Result<Script, String> {
        let mut script = Script { stamp: self.stamp, ..Script::default() };
        if let Some(list) = &self.script {
            script.apply(list)?;
        }
        for (key, value) in [
            ("ttft", &self.ttft),
            ("gap", &self.gap),
            ("tokens", &self.tokens),
            ("token-bytes", &self.token_bytes),
            ("seed", &self.seed),
            ("usage", &self.usage),
            ("fault", &self.fault),
            ("comments", &self.comments),
        ] {
            if let Some(value) = value {
                script.set(key, value)?;
            }
        }
        Ok(script)
    }
}

/// Serves until killed. Prints one line, the address, when it can be connected to.
pub fn run(args: MockArgs) -> ExitCode {
    let script = match args.script() {
        Ok(script) => script,
        Err(problem) => {
            eprintln!("ringway mock: {problem}");
            return ExitCode::from(2);
        }
    };
    let config =
        MockConfig { script, threads: usize::from(args.threads), fixed: args.fixed.then_some(args.fixed_bytes) };
    let started = TcpListener::bind(args.address).and_then(|listener| Mock::spawn(listener, config));
    match started {
        Ok(mock) => {
            let mut out = std::io::stdout();
            let _ = writeln!(out, "ringway mock: listening on http://{}", mock.addr());
            let _ = out.flush();
            mock.join();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringway mock: cannot listen on {}: {error}", args.address);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: MockArgs,
    }

    #[test]
    fn flags_make_a_script_and_win_over_the_list() {
        for (line, expected) in [
            ("mock --tokens 3 --script tokens=9,gzip=on", Ok((3, true))),
            ("mock --script gzip=off", Ok((20, false))),
            ("mock --ttft soon", Err("ttft: \"soon\"")),
            ("mock --script speed=1", Err("unknown key \"speed\"")),
        ] {
            let args = Line::try_parse_from(line.split(' ')).map(|line| line.args).expect(line);
            match (args.script(), expected) {
                (Ok(script), Ok(expected)) => {
                    assert_eq!((script.tokens, script.gzip), expected, "{line}")
                }
                (Err(problem), Err(part)) => assert!(problem.contains(part), "{line}: {problem}"),
                (got, expected) => panic!("{line}: {got:?}, expected {expected:?}"),
            }
        }
    }
}
