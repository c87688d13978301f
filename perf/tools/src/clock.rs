//! CLOCK_MONOTONIC in nanoseconds: the clock that the simulated provider stamps its events with.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC. The same for every process on this machine.
pub fn now_ns() -> u64 {
    // The call cannot fail for this clock on Linux; 0 would show as an absurd delay rather than hide.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// Nanoseconds in `seconds`.
pub fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Sleeps until `due_ns`, or returns at once if it has passed.
pub fn sleep_until(due_ns: u64) {
    std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns())));
}
