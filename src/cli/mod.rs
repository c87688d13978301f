//! The command line: grammar and help. What a command does is in its own file.

pub mod check;
pub mod demo;
mod memory;
pub mod mock;
mod notify;
pub mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

// Lines of help are at most 79 characters: clap would fold longer ones in the middle of a table.
const HELP: &str = "\
To see it work with nothing configured:

    ringway demo

To put it in front of a provider, write some TOML and run it:

    ringway check --config ringway.toml
    ringway serve --config ringway.toml

config/minimal.toml in the source is the least, config/production.toml one
for the edge of a network, config/ringway.toml every field there is.

Then give an SDK the gateway's address:

    OpenAI(base_url=\"http://127.0.0.1:8080/v1\", api_key=\"a key of [[keys]]\")
    Anthropic(base_url=\"http://127.0.0.1:8080\", api_key=\"a key of [[keys]]\")

Exit codes: 0 done, 1 failed while running, 2 wrong command line or
configuration.";

const SERVE_HELP: &str = "\
The configuration names its keys and does not hold them: `{ env = \"NAME\" }`
takes a key from the environment, `{ file = \"PATH\" }` from a file. Client keys
can also be given as a hash: `printf %s KEY | sha256sum`.

    export TEAM_A_KEY=choose-one DEEPSEEK_KEY=sk-...
    ringway serve --config config/minimal.toml

It says on stderr where it listens and how its event loops are driven. An
address in use is refused, also if another ringway has it.

SIGTERM and SIGINT end it: no more clients are taken (after `client.drain_delay`,
which is 0s), what is under way goes on for `client.drain` (25s) at most, and
streams that are cut then end with an error event. A second signal ends it at
once.

Exit codes: 0 ended by a signal; 1 ended by a second one, or an address, an event
loop or the access log cannot be had; 2 the configuration is wrong (as `ringway
check` says).";

const CHECK_HELP: &str = "\
Each error has its line and column, the path of the key, what is wrong, what
is allowed and the nearest right name. Secrets and certificates are read as
`serve` would read them, so run it in the same environment. Nothing is
connected to.

    ringway check --config ringway.toml && ringway serve --config ringway.toml

Exit codes: 0 sound, one line on stdout; 2 wrong, the report on stderr.";

const SCHEMA_HELP: &str = "\
Editors with a TOML language server complete and check by it. Put it beside
the configuration and name it in the configuration's first line:

    ringway schema > ringway.schema.json
    #:schema ./ringway.schema.json";

/// An io_uring, thread-per-core gateway for LLM APIs.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients as a configuration file says
    #[command(after_help = SERVE_HELP)]
    Serve {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file: every error at once
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the configuration's JSON Schema, for completion in editors
    #[command(after_help = SCHEMA_HELP)]
    Schema,
    /// See it work and measure it, with nothing configured
    Demo(demo::DemoArgs),
    /// Run the simulated provider on its own
    Mock(Box<mock::MockArgs>),
}

/// Runs the command that the process was given; the result is its exit code.
pub fn run() -> ExitCode {
    // A page of 2 MiB is cleared, and in a virtual machine found, at its first touch: milliseconds in which a worker does
    // nothing else, each time that more connections come. A kernel without huge pages refuses, which is as good.
    let _ = nix::sys::prctl::set_thp_disable(true);
    match Cli::parse().command {
        Command::Serve { config } => serve::serve(&config),
        Command::Check { config } => check::check(&config),
        Command::Schema => check::schema(),
        Command::Demo(args) => demo::run(args),
        Command::Mock(args) => mock::run(*args),
    }
}
