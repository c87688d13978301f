//! Events to one thread: bounded, in order; refused when full or closed, and then still the sender's.
//!
//! Lives on: any thread puts in, one takes out; neither waits. What is put in is taken out or dropped with the inbox, never
//! lost: who closes it knows by [`Inbox::coming`] whether something is still on its way.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

/// Room for some events.
#[derive(Debug)]
pub struct Inbox<T> {
    items: ArrayQueue<T>,
    /// Events that are being put in, wait, or are being taken; and [`CLOSED`].
    coming: AtomicUsize,
}

const CLOSED: usize = 1 << (usize::BITS - 1);

impl<T> Inbox<T> {
    /// Room for `bound` events, at least 1.
    pub fn new(bound: usize) -> Inbox<T> {
        Inbox { items: ArrayQueue::new(bound), coming: AtomicUsize::new(0) }
    }

    /// Puts an event in, behind all others.
    ///
    /// # Errors
    /// It is full or closed; the event comes back.
    pub fn put(&self, item: T) -> Result<(), T> {
        // Counted first: who closes the inbox afterwards sees that one is on its way, and who has closed it before is seen.
        let before = self.coming.fetch_add(1, Ordering::AcqRel);
        let put = if before & CLOSED == 0 { self.items.push(item) } else { Err(item) };
        if put.is_err() {
            self.coming.fetch_sub(1, Ordering::AcqRel);
        }
        put
    }

    /// Takes the oldest event and does `work` with it; until that is done it counts as coming.
    pub fn take<R>(&self, work: impl FnOnce(T) -> R) -> Option<R> {
        let done = work(self.items.pop()?);
        self.coming.fetch_sub(1, Ordering::AcqRel);
        Some(done)
    }

    /// Events that were not yet taken, those included that are just being put in.
    pub fn coming(&self) -> usize {
        self.coming.load(Ordering::Acquire) & !CLOSED
    }

    /// Refuses all events from now on.
    pub fn close(&self) {
        self.coming.fetch_or(CLOSED, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_in_order_and_one_beyond_the_bound_is_refused() {
        let inbox = Inbox::new(2);
        assert_eq!((inbox.put(1), inbox.put(2), inbox.put(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(inbox.coming(), 2);
        assert_eq!(inbox.take(|item| (item, inbox.coming())), Some((1, 2)), "it is coming until it was dealt with");
        assert_eq!(inbox.coming(), 1);
        assert_eq!(inbox.put(3), Ok(()));
        assert_eq!(
            (inbox.take(|item| item), inbox.take(|item| item), inbox.take(|item| item)),
            (Some(2), Some(3), None)
        );
        assert_eq!(inbox.coming(), 0);
    }

    #[test]
    fn a_closed_inbox_gives_back_what_comes_and_keeps_what_is_there() {
        let inbox = Inbox::new(2);
        assert_eq!(inbox.put(1), Ok(()));
        inbox.close();
        assert_eq!(inbox.put(2), Err(2));
        assert_eq!(inbox.coming(), 1);
        assert_eq!(inbox.take(|item| item), Some(1));
        assert_eq!(inbox.coming(), 0);
        assert_eq!(inbox.put(3), Err(3));
    }

    #[test]
    fn whatever_comes_while_it_is_closed_is_given_back_or_there_to_be_taken() {
        const SENDERS: usize = 3;
        for _ in 0..200 {
            let inbox = Inbox::new(8);
            let taken = std::thread::scope(|scope| {
                let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(|| inbox.put(()).is_ok())).collect();
                inbox.close();
                let mut taken = 0;
                while inbox.coming() > 0 {
                    taken += usize::from(inbox.take(|()| ()).is_some());
                }
                let put = senders.into_iter().map(|sender| sender.join().unwrap());
                assert_eq!(taken, put.filter(|put| *put).count());
                taken
            });
            assert!(taken <= SENDERS && inbox.coming() == 0);
        }
    }
}
