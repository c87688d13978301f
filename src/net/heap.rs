//! What each thread holds of memory, counted where it is allocated (an unsafe island).
//!
//! Lives on: every thread, one number each. A worker's buffers are allocated and freed on its own thread, whichever part
//! of it, and whichever library, holds them: bodies, answers, what HTTP/2 keeps for streams, TLS records, the windows of
//! decoders. So what a worker holds is known in every moment, and nobody has to keep books beside it. Blocks below
//! [`COUNTED_BYTES`] do not count: they are what thousands of small things are made of, bounded by the number of
//! connections, and some of them, such as records on their way to the log, are freed on another thread.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// Blocks of this size or more count.
pub const COUNTED_BYTES: usize = 2 * 1024;

/// What blocks of this size leave behind is worth giving back.
const LARGE_BYTES: usize = 256 * 1024;

thread_local! {
    /// Bytes in such blocks. Below zero where a thread has freed what others had allocated.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// Bytes in large blocks that were freed, or moved to larger ones, since this was last asked for.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread holds in blocks that count.
#[inline]
pub fn held() -> usize {
    HELD.get().max(0) as usize
}

/// Bytes in large blocks that this thread has freed since the last call, and its allocator may have kept.
pub fn take_left() -> usize {
    LEFT.take()
}

#[cold]
fn leave(bytes: usize) {
    LEFT.set(LEFT.get().saturating_add(bytes));
}

#[inline]
fn note(more: isize) {
    HELD.set(HELD.get().wrapping_add(more));
}

/// Bytes that a library of another language holds for this thread, which asks no allocator of ours.
///
/// It belongs to the thread that made it.
#[derive(Debug, Default)]
pub struct Foreign(isize, std::marker::PhantomData<*const ()>);

impl Foreign {
    /// So many they are now.
    pub fn set(&mut self, bytes: usize) {
        let bytes = bytes as isize;
        note(bytes - std::mem::replace(&mut self.0, bytes));
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        note(-self.0);
    }
}

/// An allocator that counts for [`held`].
#[derive(Debug, Default)]
pub struct Counted<A>(pub A);

// SAFETY: every call is handed on as it came, and what it returns is handed back, so that whatever the allocator inside
// promises holds. Counting touches a number of this thread alone, which allocates nothing, needs no destructor, and is
// there from a thread's first instruction to its last.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { self.0.alloc(layout) };
        if layout.size() >= COUNTED_BYTES && !block.is_null() {
            note(layout.size() as isize);
        }
        block
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        if layout.size() >= COUNTED_BYTES && !block.is_null() {
            note(layout.size() as isize);
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() >= COUNTED_BYTES {
            note(-(layout.size() as isize));
            if layout.size() >= LARGE_BYTES {
                leave(layout.size());
            }
        }
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { self.0.realloc(block, layout, size) };
        if !moved.is_null() {
            let counted = |size: usize| if size >= COUNTED_BYTES { size as isize } else { 0 };
            note(counted(size) - counted(layout.size()));
            if layout.size() >= LARGE_BYTES {
                leave(layout.size());
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_from_the_bound_on_for_as_long_as_they_are_held() {
        let before = held();
        let small: Vec<u8> = Vec::with_capacity(COUNTED_BYTES - 1);
        assert_eq!(held(), before, "one short of it");
        let mut grown: Vec<u8> = Vec::with_capacity(COUNTED_BYTES);
        assert_eq!(held(), before + COUNTED_BYTES);
        grown.reserve_exact(10 * COUNTED_BYTES);
        assert_eq!(held(), before + 10 * COUNTED_BYTES);
        grown.shrink_to(1);
        assert_eq!(held(), before, "it is small again");
        drop((small, grown));
        let zeroed = vec![0_u8; 3 * COUNTED_BYTES];
        assert_eq!(held(), before + 3 * COUNTED_BYTES);
        drop(zeroed);
        assert_eq!(held(), before);
    }

    #[test]
    fn what_large_blocks_leave_behind_is_told_once() {
        take_left();
        drop(vec![0_u8; LARGE_BYTES - 1]);
        assert_eq!(take_left(), 0);
        let mut moved: Vec<u8> = Vec::with_capacity(LARGE_BYTES);
        moved.reserve_exact(2 * LARGE_BYTES);
        drop(moved);
        assert_eq!((take_left(), take_left()), (3 * LARGE_BYTES, 0));
    }

    #[test]
    fn what_other_languages_hold_counts_as_it_changes() {
        let before = held();
        let mut foreign = Foreign::default();
        foreign.set(9_000);
        foreign.set(5_000);
        assert_eq!(held(), before + 5_000);
        drop(foreign);
        assert_eq!(held(), before);
    }

    #[test]
    fn each_thread_has_its_own_and_what_it_frees_of_others_is_no_debt() {
        let block = vec![0_u8; 1 << 20];
        let there = std::thread::spawn(move || {
            drop(block);
            held()
        });
        assert_eq!(there.join().unwrap(), 0);
    }
}
