//! The rest of a long answer that means nothing to us, from a plain connection to a plain one: nobody looks at it.

use std::pin::pin;

use super::Relay;
use crate::listener::client::Interrupt;
use crate::net::passage::{self, Passage, WORTH_BYTES};
use crate::net::stream::Stream;
use crate::upstream::Connection;
use crate::wire::http1::Framing;
use crate::worker::answer::Answer;
use crate::worker::exchange::Stop;

impl Relay<'_, '_> {
    /// True if what is still to come may pass unseen, and is worth it.
    #[inline]
    pub(super) fn may_pass(&mut self) -> bool {
        matches!(self.begun.answer, Answer::Opaque)
            && matches!(self.framing, Framing::Length(_))
            && self.begun.decoder.remaining().is_some_and(|left| left >= WORTH_BYTES)
            && self.failure.is_none()
            && self.ends().is_some_and(|(from, to)| passage::is_possible(from, to))
    }

    /// The way for it, if there is one now.
    #[inline]
    pub(super) fn passage(&mut self) -> Option<Passage> {
        if !self.may_pass() {
            return None;
        }
        self.ends().and_then(|(from, to)| Passage::between(from, to))
    }

    /// Both connections, if they are of their own.
    fn ends(&mut self) -> Option<(&Stream, &Stream)> {
        Some((Connection::stream(&mut self.begun.connection)?, self.scene.client.stream()?))
    }

    /// Lets pass what comes, until all of it has come or only reading can tell what there is: then the usual way finds out.
    pub(super) async fn pass(&mut self, mut passage: Passage) -> Result<(), Stop> {
        while let Some(left) = self.begun.decoder.remaining().filter(|left| *left > 0) {
            if self.scene.worker.clock.now() >= self.scene.total_until() {
                break;
            }
            self.scene.wait_until(self.due);
            let came = match self.scene.client.watch(pin!(passage.fill(left))).await {
                Ok(0) | Err(Interrupt::Deadline) => break,
                Ok(came) => came as u64,
                Err(interrupt) => return Err(self.abandon(interrupt)),
            };
            self.begun.decoder.skip(came);
            self.begun.received_bytes += came;
            self.scene.record.answer_bytes += came;
            self.start_waiting(true);
            let all = passage.empty_now().map_err(|_| self.abandon(Interrupt::ClientGone))?;
            if !all {
                self.wait_for_client(&mut passage).await?;
            }
            self.scene.client.sent_bytes += came;
        }
        // What comes now is read, though it be much: else nobody would ever see what cannot pass.
        if !self.begun.decoder.is_done() {
            self.wait().await?;
        }
        Ok(())
    }

    async fn wait_for_client(&mut self, passage: &mut Passage) -> Result<(), Stop> {
        let now = self.scene.worker.clock.now();
        self.scene.client.timer.set(self.scene.write_until(now));
        match self.scene.client.watch(pin!(passage.empty())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.abandon(Interrupt::ClientGone)),
            Err(Interrupt::Deadline) if self.scene.worker.drain.is_over() => return Err(self.cut()),
            // A client that has stopped reading is as good as gone.
            Err(interrupt) => return Err(self.abandon(interrupt)),
        }
        // While the client was slow the upstream was not read, which is not its fault.
        self.due = self.due + (self.scene.worker.clock.now() - now);
        Ok(())
    }
}
