//! Read buffers that go to the kernel and come back.
//!
//! Lives on: every worker, one each. A buffer is an ordinary `Vec` of [`READ_BYTES`] or [`LITTLE_BYTES`]; what is
//! pooled is the allocation. The kernel owns a buffer while a read is under way, so a connection holds one only then
//! and while it has bytes to work on.
//!
//! A stream waits for its next event with a little buffer: thousands of them, each with its first bytes in use, would
//! otherwise be strewn over memory at strides that share few places in the caches. What is on its way out is built in
//! a buffer from here as well and returned with the write, so that one that is still in the cache serves all streams.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};

use super::heap;

/// Capacity of a read buffer: one TLS record, or some fifty stream events.
pub const READ_BYTES: usize = 16 * 1024;

/// Capacity of a read that is expected to bring little: a few stream events.
pub const LITTLE_BYTES: usize = 2 * 1024;

/// Capacity for what several streams of one connection say in one turn, sealed.
pub const LARGE_BYTES: usize = 72 * 1024;

/// Large buffers kept when nobody needs them: one is in use at a time, mostly.
const LARGE_KEPT_MAX: usize = 8;

/// Buffers of each size kept when nobody needs them; what comes back beyond this is freed, so that a burst leaves no
/// memory behind.
const KEPT_MAX: usize = 128;

/// A worker that took so many buffers since the last look is busy, and would take what it gives back right again.
const BUSY: usize = 256;
/// So many bytes of large blocks freed are given back at once, however busy the worker is: nobody would take them right
/// again, and a process with a limit on its memory may need them elsewhere.
const LARGE_WORTH_COLLECTING: usize = 16 << 20;
/// So many buffers freed leave enough behind for the allocator to be asked to give memory back.
const WORTH_COLLECTING: usize = 64;
/// So many leave enough behind for a busy worker to ask as well, once hardly any more are freed: what they were for is over, and
/// others would not take them again.
const BURST: usize = 256;

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
    little: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    freed: Cell<usize>,
    /// Those of them that were known at the last look.
    known: Cell<usize>,
    taken: Cell<usize>,
    /// Bytes of large blocks that were freed and not yet given back.
    left: Cell<usize>,
}

fn give_back() {
    // SAFETY: the function takes no memory of ours; it may be called at any time on any thread, and
    // does nothing to blocks that are in use, nor anything at all where another allocator is in place.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

impl Buffers {
    /// An empty buffer of [`READ_BYTES`] capacity.
    pub fn take(&self) -> Vec<u8> {
        self.taken.set(self.taken.get() + 1);
        self.free.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(READ_BYTES))
    }

    /// An empty buffer of [`LITTLE_BYTES`] capacity.
    pub fn take_little(&self) -> Vec<u8> {
        self.taken.set(self.taken.get() + 1);
        self.little.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LITTLE_BYTES))
    }

    /// An empty buffer of [`LARGE_BYTES`] capacity. It goes back within the turn, or with the write that it was for.
    pub fn take_large(&self) -> Vec<u8> {
        self.taken.set(self.taken.get() + 1);
        self.large.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LARGE_BYTES))
    }

    /// An empty buffer with room for `room` bytes, one of the three sizes if it fits.
    pub fn take_for(&self, room: usize) -> Vec<u8> {
        match () {
            () if room <= LITTLE_BYTES => self.take_little(),
            () if room <= READ_BYTES => self.take(),
            () if room <= LARGE_BYTES => self.take_large(),
            () => Vec::with_capacity(room),
        }
    }

    /// Takes a buffer back. One that has grown or is of another size is freed.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let (mut free, kept_max) = match buffer.capacity() {
            READ_BYTES => (self.free.borrow_mut(), KEPT_MAX),
            LITTLE_BYTES => (self.little.borrow_mut(), KEPT_MAX),
            LARGE_BYTES => (self.large.borrow_mut(), LARGE_KEPT_MAX),
            // One that has grown leaves as much behind as so many.
            grown => return self.freed.set(self.freed.get() + grown / READ_BYTES),
        };
        if free.len() < kept_max {
            buffer.clear();
            free.push(buffer);
        } else {
            self.freed.set(self.freed.get() + 1);
        }
    }

    /// Counts a connection's state as freed, which is of the order of a buffer.
    pub fn note_freed(&self) {
        self.freed.set(self.freed.get() + 1);
    }

    /// Gives memory back to the system if much was freed since the last call; for a moment that can wait.
    ///
    /// The allocator returns pages only in passing, while others are allocated: after a burst an idle worker
    /// would keep all of them.
    pub fn collect(&self) {
        self.collect_large();
        let freed = self.freed.get();
        let fresh = freed - self.known.replace(freed);
        let is_past = freed >= BURST && fresh < WORTH_COLLECTING;
        if self.taken.replace(0) > BUSY && !is_past {
            return;
        }
        self.freed.set(0);
        self.known.set(0);
        if freed >= WORTH_COLLECTING {
            // A few kept buffers, strewn over the allocator's pages, would hold all of these.
            self.free.borrow_mut().clear();
            self.little.borrow_mut().clear();
            self.large.borrow_mut().clear();
            give_back();
        }
    }

    /// Gives memory back to the system if much was freed in large blocks since the last call: bodies, mostly.
    pub fn collect_large(&self) {
        self.left.set(self.left.get().saturating_add(heap::take_left()));
        if self.left.get() >= LARGE_WORTH_COLLECTING {
            self.left.set(0);
            give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_empty_and_bounded() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"left over");
        buffers.give(buffer);
        assert!(buffers.take().is_empty());

        for _ in 0..KEPT_MAX + 1 {
            buffers.give(Vec::with_capacity(READ_BYTES));
        }
        assert_eq!(buffers.free.borrow().len(), KEPT_MAX);
    }

    #[test]
    fn after_a_burst_nothing_is_kept_and_else_nothing_is_lost() {
        let buffers = Buffers::default();
        for _ in 0..KEPT_MAX + WORTH_COLLECTING - 1 {
            buffers.give(Vec::with_capacity(READ_BYTES));
        }
        buffers.collect();
        assert_eq!(buffers.free.borrow().len(), KEPT_MAX, "one short of a burst");
        for _ in 0..WORTH_COLLECTING {
            buffers.give(Vec::with_capacity(READ_BYTES));
        }
        buffers.collect();
        assert!(buffers.free.borrow().is_empty());
    }

    #[test]
    fn a_busy_worker_keeps_what_it_has_until_it_is_idle() {
        let buffers = Buffers::default();
        for _ in 0..=BUSY {
            buffers.give(buffers.take());
        }
        for _ in 0..KEPT_MAX + WORTH_COLLECTING {
            buffers.give(Vec::with_capacity(READ_BYTES));
        }
        buffers.collect();
        assert_eq!(buffers.free.borrow().len(), KEPT_MAX);
        buffers.collect();
        assert!(buffers.free.borrow().is_empty());
    }

    #[test]
    fn a_busy_worker_gives_back_what_a_burst_has_left_once_that_is_over() {
        let buffers = Buffers::default();
        let be_busy = || (0..=BUSY).for_each(|_| buffers.give(buffers.take()));
        for (freed, is_given_back) in [(BURST - 1, false), (BURST, true)] {
            for _ in 0..KEPT_MAX + freed {
                buffers.give(Vec::with_capacity(READ_BYTES));
            }
            be_busy();
            buffers.collect();
            assert_eq!(buffers.free.borrow().len(), KEPT_MAX, "{freed}: it may go on");
            be_busy();
            for _ in 0..WORTH_COLLECTING {
                buffers.note_freed();
            }
            buffers.collect();
            assert_eq!(buffers.free.borrow().len(), KEPT_MAX, "{freed}: it goes on");
            buffers.freed.set(freed);
            buffers.known.set(freed);
            be_busy();
            buffers.collect();
            assert_eq!(buffers.free.borrow().is_empty(), is_given_back, "{freed}");
            // Nothing of it is left for the next.
            buffers.collect();
            buffers.free.borrow_mut().clear();
        }
    }

    #[test]
    fn each_size_is_kept_by_itself() {
        let buffers = Buffers::default();
        buffers.give(buffers.take_little());
        assert_eq!((buffers.free.borrow().len(), buffers.little.borrow().len()), (0, 1));
        assert_eq!((buffers.take().capacity(), buffers.take_little().capacity()), (READ_BYTES, LITTLE_BYTES));
        assert!(buffers.little.borrow().is_empty());
    }

    #[test]
    fn a_grown_buffer_is_not_kept() {
        let buffers = Buffers::default();
        buffers.give(Vec::with_capacity(READ_BYTES * 2));
        assert!(buffers.free.borrow().is_empty());
        assert_eq!(buffers.freed.get(), 2);
    }
}
