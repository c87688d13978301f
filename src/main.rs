//! Parses argv, runs one command, turns its result into an exit code.

use std::process::ExitCode;

use ringway::net::heap::Counted;

#[global_allocator]
static ALLOCATOR: Counted<mimalloc::MiMalloc> = Counted(mimalloc::MiMalloc);

fn main() -> ExitCode {
    ringway::cli::run()
}
