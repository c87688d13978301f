//! State between threads: the latest value wins, a slow reader skips.
//!
//! Lives on: written by one thread, read by another; neither waits.

use crossbeam::queue::ArrayQueue;

/// Room for one value.
#[derive(Debug)]
pub struct Mailbox<T> {
    slot: ArrayQueue<T>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Mailbox<T> {
        Mailbox { slot: ArrayQueue::new(1) }
    }
}

impl<T> Mailbox<T> {
    /// Puts a value in; one that was not yet taken is replaced.
    pub fn put(&self, value: T) {
        self.slot.force_push(value);
    }

    /// Takes the newest value, if there is one that was not yet taken.
    pub fn take(&self) -> Option<T> {
        self.slot.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_value_replaces_the_older() {
        let mailbox = Mailbox::default();
        mailbox.put(1);
        mailbox.put(2);
        assert_eq!(mailbox.take(), Some(2));
        assert_eq!(mailbox.take(), None);
    }
}
