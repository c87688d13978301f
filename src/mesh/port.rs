//! Messages to a worker that may be asleep in its event loop.
//!
//! Lives on: the sender on any thread; the bell's far end is read by the worker, as any socket is, so that a worker to
//! which nobody speaks pays nothing.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use super::mailbox::Mailbox;

/// The way to one worker. A message that was not yet taken is replaced by the next.
#[derive(Debug)]
pub struct Port<T> {
    mailbox: Mailbox<T>,
    bell: UnixStream,
}

impl<T> Port<T> {
    /// A port, and the socket on which a byte comes for each message.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<(Port<T>, UnixStream)> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        Ok((Port { mailbox: Mailbox::default(), bell }, ear))
    }

    /// Puts a message in and wakes the worker.
    pub fn send(&self, message: T) {
        self.mailbox.put(message);
        self.ring();
    }

    /// Wakes the worker without a message: something else that it looks at has changed.
    pub fn ring(&self) {
        // A bell that takes no more has rung already; one without a far end rings for nobody.
        let _ = (&self.bell).write(&[1]);
    }

    /// Takes the newest message, if there is one that was not yet taken.
    pub fn take(&self) -> Option<T> {
        self.mailbox.take()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn each_message_rings_and_the_newest_counts() {
        let (port, mut ear) = Port::new().unwrap();
        assert_eq!(port.take(), None);
        port.send(1);
        port.send(2);
        ear.read_exact(&mut [0; 2]).unwrap();
        assert_eq!((port.take(), port.take()), (Some(2), None));
    }

    #[test]
    fn a_worker_that_hears_nothing_holds_nobody_up() {
        let (port, ear) = Port::new().unwrap();
        for message in 0..1_000_000 {
            port.send(message);
        }
        assert_eq!(port.take(), Some(999_999));
        drop(ear);
        port.send(0);
    }
}
