//! A connection to an endpoint that is to become a WebSocket: one of its own, over HTTP/1.1, made for it and never kept.
//!
//! Not here: what passes after the 101 (`worker`).

use super::http1::{AnswerHead, INTERIM_MAX};
use super::{Connection, ErrorKind, Phase, UpstreamError};
use crate::wire::http1::{HeadLimits, HeadScan, HeadSpace, parse_response};
use crate::wire::websocket::Nonce;

/// What an endpoint is asked to switch to.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade<'a> {
    /// The handshake's key.
    pub nonce: Nonce,
    /// The subprotocols that are offered, as a list; may be empty.
    pub protocols: &'a str,
}

impl Connection {
    /// Waits for the head of the answer to a request for `upgrade`, over interim ones, and consumes it: a 101 that agrees to
    /// it, or any other answer, after which the connection is good for nothing more. `on_first_byte` is called once, when
    /// anything of it is there. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection failed or closed, what came is not an HTTP/1.1 answer, or is a 101 that does not agree.
    pub async fn answer_to_upgrade(
        &mut self,
        limits: &HeadLimits,
        upgrade: Upgrade<'_>,
        on_first_byte: impl FnOnce(),
    ) -> Result<AnswerHead, UpstreamError> {
        let (mut scan, mut interim, mut on_first_byte) = (HeadScan::default(), 0, Some(on_first_byte));
        loop {
            if !self.bytes().is_empty()
                && let Some(tell) = on_first_byte.take()
            {
                tell();
            }
            while scan.is_due(self.bytes()) {
                let malformed = |reason| self.slot().error(Phase::Head, ErrorKind::Malformed(reason));
                let mut space = HeadSpace::new();
                let parsed = parse_response(self.bytes(), limits, false, &mut space);
                let Some(head) = parsed.map_err(|error| malformed(error.reason))? else { break };
                let len = head.len;
                if head.is_interim {
                    interim += 1;
                    if interim > INTERIM_MAX {
                        return Err(malformed("too many interim answers"));
                    }
                    self.consume(len);
                    scan = HeadScan::default();
                    continue;
                }
                let mut answer = AnswerHead::read(&head);
                if head.status == 101 {
                    let chosen = upgrade.nonce.check(&head, upgrade.protocols).map_err(malformed)?;
                    answer.fields.extend_from_slice(&chosen);
                }
                answer.keep_alive = false;
                self.consume(len);
                return Ok(answer);
            }
            let nothing_came = self.bytes().is_empty() && interim == 0;
            let phase = if nothing_came { Phase::FirstByte } else { Phase::Head };
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return Err(self.slot().error(phase, ErrorKind::Closed { reused: false })),
                Err(error) => return Err(self.io_error(phase, error)),
            }
        }
    }
}
