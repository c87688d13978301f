//! Parses argv, runs one command, turns its result into an exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A page of 2 MiB is cleared, and in a virtual machine found, at its first touch: milliseconds in which a worker does
    // nothing else, each time that more connections come. A kernel without huge pages refuses, which is as good.
    let _ = nix::sys::prctl::set_thp_disable(true);
    ringway::cli::run()
}
