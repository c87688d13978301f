//! A bounded queue from those who must not wait to one thread that may.
//!
//! Lives on: every thread that has something to say, and the one that reads. A full queue drops and counts. The reader
//! sleeps while nothing comes; only then does saying something cost a system call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use crossbeam::sync::{Parker, Unparker};
use crossbeam::utils::CachePadded;

/// The end of those who say something.
#[derive(Debug)]
pub struct Queue<T> {
    items: ArrayQueue<T>,
    dropped: AtomicU64,
    /// True while the reader sleeps until something comes. Alone on its line, which so stays in every core's cache.
    asleep: CachePadded<AtomicBool>,
    reader: Unparker,
}

/// The reader's end.
#[derive(Debug)]
pub struct Reader<T> {
    queue: Arc<Queue<T>>,
    parker: Parker,
}

/// A queue that holds `bound` items.
pub fn queue<T>(bound: usize) -> (Arc<Queue<T>>, Reader<T>) {
    let parker = Parker::new();
    let queue = Arc::new(Queue {
        items: ArrayQueue::new(bound),
        dropped: AtomicU64::new(0),
        asleep: CachePadded::new(AtomicBool::new(false)),
        reader: parker.unparker().clone(),
    });
    (queue.clone(), Reader { queue, parker })
}

impl<T> Queue<T> {
    /// Puts `item` at the end, or drops and counts it: false. Never waits.
    pub fn push(&self, item: T) -> bool {
        if self.items.push(item).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        // Either the reader, who says first that it sleeps, sees the item, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.reader.unpark();
        }
        true
    }

    /// Ends the reader's sleep or pause.
    pub fn wake(&self) {
        self.reader.unpark();
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<T> Reader<T> {
    /// The oldest item that was not yet taken.
    pub fn take(&self) -> Option<T> {
        self.queue.items.pop()
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// See [`Queue::dropped`].
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Waits until there is an item, [`Queue::wake`] was called, or `within` has passed.
    pub fn sleep(&self, within: Duration) {
        self.queue.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.is_empty() {
            self.parker.park_timeout(within);
        }
        self.queue.asleep.store(false, Ordering::Relaxed);
    }

    /// Waits for `within`, whatever comes, unless [`Queue::wake`] is called.
    pub fn pause(&self, within: Duration) {
        self.parker.park_timeout(within);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (queue, reader) = queue(3);
        for item in 0..3 {
            queue.push(item);
        }
        assert_eq!((queue.dropped(), reader.len()), (0, 3));
        assert!(!queue.push(3));
        assert_eq!(reader.dropped(), 1);
        assert_eq!(std::iter::from_fn(|| reader.take()).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(reader.is_empty());
    }

    #[test]
    fn a_reader_that_sleeps_is_woken_by_every_item_and_by_a_call() {
        const ITEMS: u32 = 2000;
        let (queue, reader) = queue(ITEMS as usize);
        let (ask, asked) = std::sync::mpsc::sync_channel(0);
        let writer = std::thread::spawn(move || {
            for item in 0..ITEMS {
                // One at a time, each as the reader is about to sleep.
                asked.recv().unwrap();
                queue.push(item);
            }
            asked.recv().unwrap();
            queue.wake();
        });
        for item in 0..ITEMS {
            ask.send(()).unwrap();
            while reader.is_empty() {
                // A lost waking would stop the test here.
                reader.sleep(Duration::from_secs(3600));
            }
            assert_eq!(reader.take(), Some(item));
        }
        ask.send(()).unwrap();
        reader.sleep(Duration::from_secs(3600));
        writer.join().unwrap();
    }
}
