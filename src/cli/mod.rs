//! The command line: grammar and help. What a command does is in its own file.

pub mod check;
pub mod demo;
pub mod mock;
pub mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An io_uring, thread-per-core gateway for LLM APIs.
#[derive(Debug, Parser)]
#[command(name = "ringway", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
To see it work with nothing configured:

    ringway demo

To put it in front of a provider, write ten lines of TOML (config/minimal.toml shows them) and run:

    ringway check --config ringway.toml
    ringway serve --config ringway.toml

then point an OpenAI or Anthropic SDK at it by its base_url.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients as a configuration file says
    Serve {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration file: every error at once, exit code 2 if there is one
    Check {
        /// The configuration file (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the configuration's JSON Schema, for completion in editors
    Schema,
    /// See it work: gateway, simulated provider, one chat and a measurement, with nothing configured
    Demo(demo::DemoArgs),
    /// Run the simulated provider on its own
    Mock(Box<mock::MockArgs>),
}

/// Runs the command that the process was given; the result is its exit code.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve { config } => serve::serve(&config),
        Command::Check { config } => check::check(&config),
        Command::Schema => check::schema(),
        Command::Demo(args) => demo::run(args),
        Command::Mock(args) => mock::run(*args),
    }
}
