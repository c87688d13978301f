//! A coroutine that runs one read after another; see the words on top of the stream.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use monoio::io::{AsyncReadRent, CancelableAsyncReadRent, Canceller, OwnedReadHalf};
use monoio::net::TcpStream;

use crate::net::rt;

/// How a read ended, and its buffer.
pub(super) type Done = (io::Result<usize>, Vec<u8>);

/// A coroutine that runs one read after another.
pub(super) struct Reader {
    // Boxed and erased, since the future of an async fn has no name that a struct could give; one allocation a
    // connection, one indirect call a poll.
    task: Pin<Box<dyn Future<Output = ()>>>,
    slot: Rc<Slot>,
    /// True while a read is under way, or done and not yet looked at.
    pub(super) busy: bool,
    /// A read's result that was put back.
    pub(super) finished: Option<Done>,
}

#[derive(Default)]
struct Slot {
    start: Cell<Option<(Vec<u8>, bool)>>,
    done: Cell<Option<Done>>,
    canceller: Cell<Option<Canceller>>,
}

impl Reader {
    /// A reader that does nothing yet.
    pub(super) fn new(half: OwnedReadHalf<TcpStream>) -> Reader {
        let slot = Rc::new(Slot::default());
        Reader { task: Box::pin(read_on_demand(half, slot.clone())), slot, busy: false, finished: None }
    }

    /// Hands a buffer to the kernel, at the next poll; a cancelable read can be given up.
    pub(super) fn start(&mut self, buffer: Vec<u8>, cancelable: bool) {
        debug_assert!(!self.busy);
        self.slot.start.set(Some((buffer, cancelable)));
        self.busy = true;
    }

    /// Ready once the read that was started has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if let Some(done) = self.finished.take() {
            self.busy = false;
            return Poll::Ready(done);
        }
        let _never_ends = self.task.as_mut().poll(cx);
        match self.slot.done.take() {
            Some(done) => {
                self.busy = false;
                Poll::Ready(done)
            }
            None => Poll::Pending,
        }
    }

    /// Puts a read's result back for the next poll.
    pub(super) fn keep(&mut self, done: Done) {
        self.finished = Some(done);
        self.busy = true;
    }

    /// Asks the kernel to give the read up; false if it cannot be.
    pub(super) fn cancel(&mut self) -> bool {
        match self.slot.canceller.take() {
            Some(canceller) => {
                self.slot.canceller.set(Some(canceller.cancel()));
                true
            }
            None => false,
        }
    }
}

async fn read_on_demand(mut half: OwnedReadHalf<TcpStream>, slot: Rc<Slot>) {
    loop {
        // No waker is kept: whoever starts a read polls next.
        let (buffer, cancelable) = std::future::poll_fn(|_| match slot.start.take() {
            Some(start) => Poll::Ready(start),
            None => Poll::Pending,
        })
        .await;
        let operation = rt::Operation::begin();
        let done = if cancelable {
            let canceller = slot.canceller.take().unwrap_or_default();
            let handle = canceller.handle();
            slot.canceller.set(Some(canceller));
            half.cancelable_read(buffer, handle).await
        } else {
            slot.canceller.set(None);
            half.read(buffer).await
        };
        drop(operation);
        slot.done.set(Some(done));
    }
}
