//! A number that one thread writes and any thread may read, at the cost of plain memory.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter or gauge.
///
/// Lives on: the thread that writes it; others only read. A load and a store, not one atomic step: with a second writer,
/// counts would be lost.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Zero.
    pub const fn new() -> Count {
        Count(AtomicU64::new(0))
    }

    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.set(self.own().wrapping_add(n));
    }

    /// Counts `n` more; who sees that sees all that this thread has counted before.
    pub fn add_last(&self, n: u64) {
        self.0.store(self.own().wrapping_add(n), Ordering::Release);
    }

    /// Takes `n` back from a gauge.
    pub fn sub(&self, n: u64) {
        self.set(self.own().wrapping_sub(n));
    }

    /// Puts `value` in its place.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// What its one writer has made of it.
    fn own(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
