//! Time as plain integers, and the clock that reads it.
//!
//! Pure modules take an [`Instant`] as an argument; only `net` and what stands above it may hold a [`Clock`].

use std::ops::{Add, Sub};
use std::time::Duration;

/// Monotonic time in nanoseconds since the process's clock was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// A time that never comes; a timer that is off.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// How long `earlier` lies back; zero if it lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// Wall time in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(pub u64);

/// Reads monotonic time from the CPU's counter; cheap to clone and to read.
#[derive(Debug, Clone)]
pub struct Clock {
    clock: quanta::Clock,
    zero: u64,
}

impl Clock {
    /// A clock whose zero is now. The first one of a process calibrates the counter, which takes
    /// some milliseconds; clone it instead of making more.
    pub fn new() -> Clock {
        let clock = quanta::Clock::new();
        let zero = clock.raw();
        Clock { clock, zero }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        Instant(self.clock.delta_as_nanos(self.zero, self.clock.raw()))
    }

    /// Wall time now.
    pub fn unix(&self) -> UnixTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixTime(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Instant(5).since(Instant(9)), Duration::ZERO);
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant(1) + Duration::MAX, Instant::NEVER);
        assert_eq!(Instant(7) - Instant(2), Duration::from_nanos(5));
    }

    #[test]
    fn the_clock_does_not_run_backwards() {
        let clock = Clock::new();
        let first = clock.now();
        assert!(clock.clone().now() >= first);
        assert!(clock.unix().0 > 1_600_000_000_000_000);
    }
}
