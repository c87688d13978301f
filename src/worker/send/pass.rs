//! The rest of a long body that means nothing to us, from a plain connection to a plain one: nobody looks at it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::Sender;
use crate::listener::client::Interrupt;
use crate::net::passage::{self, Passage, WORTH_BYTES};
use crate::upstream::Connection;
use crate::wire::http1::Decoder;
use crate::worker::attempt::{Failed, interrupted};
use crate::worker::exchange::Wait;

/// How much has passed.
pub(super) enum Passed {
    /// The body, to its end.
    All,
    /// Only reading tells what there is now.
    Some,
    /// The endpoint has begun to answer.
    Answered,
}

impl Sender<'_, '_> {
    /// The way for what is still to come, if it is worth it and there is one now.
    pub(super) async fn passage(&mut self, decoder: &Decoder) -> Option<Passage> {
        if decoder.remaining().is_none_or(|left| left < WORTH_BYTES) {
            return None;
        }
        let to = Connection::stream(self.connection)?;
        let from = self.scene.client.stream()?;
        if !passage::is_possible(from, to) {
            return None;
        }
        // While the first bytes were written the client was read, to see whether it leaves. What that has brought goes
        // first.
        from.input.stop().await;
        self.unread = true;
        Passage::between(from, to)
    }

    pub(super) async fn pass(&mut self, mut passage: Passage, decoder: &mut Decoder) -> Result<Passed, Failed> {
        let limits = &self.scene.worker.head_limits;
        while let Some(left) = decoder.remaining().filter(|left| *left > 0) {
            let connection = &mut *self.connection;
            let came = self.scene.more_unseen(&mut passage, left, |cx| connection.poll_early(limits, cx)).await?;
            let came = match came {
                Some(0) => return Ok(Passed::Some),
                Some(came) => came,
                None => return Ok(Passed::Answered),
            };
            self.scene.skip(decoder, came);
            self.scene.record.upstream_sent_bytes += came;
            match passage.empty_now() {
                Ok(true) => {}
                Ok(false) => {
                    if !self.wait_for_endpoint(&mut passage).await? {
                        return Ok(Passed::Answered);
                    }
                }
                // It wants no more: its answer, or the connection's end, says why.
                Err(_) => return Ok(Passed::Answered),
            }
        }
        Ok(Passed::All)
    }

    /// False if the endpoint wants no more.
    async fn wait_for_endpoint(&mut self, passage: &mut Passage) -> Result<bool, Failed> {
        self.scene.start_timer(Wait::FirstToken, self.model);
        let limits = &self.scene.worker.head_limits;
        let connection = &mut *self.connection;
        let mut empty = pin!(passage.empty());
        let work = pin!(poll_fn(|cx| match empty.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.is_ok()),
            Poll::Pending if connection.poll_early(limits, cx) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }));
        let outcome: Result<bool, Interrupt> = self.scene.client.watch_unread(work).await;
        outcome.map_err(|interrupt| {
            interrupted(self.scene, Wait::FirstToken, self.model, self.connection, interrupt).into()
        })
    }
}
