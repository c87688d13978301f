//! One way through a tunnel: what one side says, to the other, as it comes.
//!
//! Nothing is gathered: what has come is followed, and sent from where it was read. What the other side does not take at
//! once is copied, and no more is passed until it has left; meanwhile reading goes on up to a bound, so that an end is seen.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::base::clock::{Clock, Instant};
use crate::listener::websocket::{Gone, Receiving, Sending};
use crate::net::buf::Buffers;
use crate::telemetry::metrics::board::WayBoard;
use crate::wire::websocket::{Broken, Follower};

/// How one way has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// A Close has been passed on; nothing follows it.
    Closed,
    /// Its speaker has ended its connection without one, in order or by an error.
    Over { failed: bool },
    /// Its listener takes no more.
    NotTaken,
    /// Its speaker broke a rule.
    Broken(Broken),
    /// It was told to stop.
    Stopped,
}

/// What is to be known of a way while it is under way.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// Since when its listener lets something wait.
    pub waits: Cell<Option<Instant>>,
    /// When its speaker was seen to have ended, though something of it still waits.
    pub over: Cell<Option<Instant>>,
    /// True while its speaker has said so much ahead that no more is read of it.
    pub blind: Cell<bool>,
    /// True if the kernel is to be asked whether such a one is still there.
    pub asks: Cell<bool>,
    /// True if the room held for what is to come is to be given up.
    pub rests: Cell<bool>,
}

/// What both ways share.
pub(super) struct Common<'w> {
    pub clock: &'w Clock,
    pub buffers: &'w Buffers,
    /// What is read ahead of a listener that lets something wait, at most, in bytes; one read may come on top.
    pub held_max: usize,
    /// When something last came, from either side.
    pub life: Cell<Instant>,
    /// True once both are to stop where they can.
    pub stops: Cell<bool>,
}

/// One way.
pub(super) struct Way<'t> {
    from: Receiving<'t>,
    to: Sending<'t>,
    pub follower: Follower,
    signs: &'t Signs,
    board: &'t WayBoard,
    /// Bytes that were passed on.
    pub passed: u64,
    /// True once an error was met in reading.
    failed: bool,
}

impl<'t> Way<'t> {
    pub fn new(
        from: Receiving<'t>,
        to: Sending<'t>,
        follower: Follower,
        signs: &'t Signs,
        board: &'t WayBoard,
    ) -> Way<'t> {
        Way { from, to, follower, signs, board, passed: 0, failed: false }
    }

    /// Passes on what comes until it ends.
    pub async fn run(&mut self, common: &Common<'_>) -> Ended {
        loop {
            let (messages, payload) = (self.follower.messages(), self.follower.payload());
            let found = self.follower.follow(self.from.bytes());
            if found.bytes > 0 {
                self.board.messages.add(self.follower.messages() - messages);
                self.board.bytes.add(self.follower.payload() - payload);
                if self.pass(found.bytes, common).await.is_err() {
                    return Ended::NotTaken;
                }
            }
            if let Some(broken) = found.broken {
                return Ended::Broken(broken);
            }
            if self.follower.closed().is_some() {
                return Ended::Closed;
            }
            if found.bytes > 0 && !self.from.bytes().is_empty() && !common.stops.get() {
                // It has come while we wrote.
                continue;
            }
            if let Some(ended) = self.wait(common).await {
                return ended;
            }
        }
    }

    /// Waits until more has come; else, how it has ended.
    async fn wait(&mut self, common: &Common<'_>) -> Option<Ended> {
        loop {
            let Way { from, to, signs, failed, .. } = self;
            let came = poll_fn(|cx| {
                if common.stops.get() {
                    return Poll::Ready(Some(Err(Ended::Stopped)));
                }
                match from.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Some(Ok(()))),
                    Poll::Ready(Ok(false)) => return Poll::Ready(Some(Err(Ended::Over { failed: *failed }))),
                    Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(Ended::Over { failed: true }))),
                    Poll::Pending => {}
                }
                if to.poll_gone(cx).is_ready() {
                    return Poll::Ready(Some(Err(Ended::NotTaken)));
                }
                if signs.rests.take() { Poll::Ready(None) } else { Poll::Pending }
            })
            .await;
            match came {
                Some(Ok(())) => {
                    common.life.set(common.clock.now());
                    return None;
                }
                Some(Err(ended)) => return Some(ended),
                None => self.from.rest().await,
            }
        }
    }

    /// Passes the next `n` bytes on.
    async fn pass(&mut self, n: usize, common: &Common<'_>) -> Result<(), Gone> {
        let bytes = &self.from.bytes()[..n];
        let sent = self.to.write_now(bytes, common.buffers)?;
        self.passed += n as u64;
        let Some(sent) = sent else {
            self.from.consume(n);
            return Ok(());
        };
        let mut rest = common.buffers.take_for(n - sent);
        rest.extend_from_slice(&bytes[sent..]);
        self.from.consume(n);
        self.signs.waits.set(Some(common.clock.now()));
        let Way { from, to, signs, failed, .. } = self;
        let mut write = pin!(to.write(rest));
        let written = poll_fn(|cx| {
            if let Poll::Ready(written) = write.as_mut().poll(cx) {
                return Poll::Ready(written);
            }
            while signs.over.get().is_none() {
                signs.blind.set(from.bytes().len() >= common.held_max);
                if signs.blind.get() {
                    if signs.asks.take() && from.is_peer_gone() {
                        (*failed, _) = (true, signs.over.set(Some(common.clock.now())));
                    }
                    break;
                }
                match from.poll_fill(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(true)) => common.life.set(common.clock.now()),
                    Poll::Ready(ended) => {
                        *failed |= ended.is_err();
                        signs.over.set(Some(common.clock.now()));
                    }
                }
            }
            Poll::Pending
        })
        .await;
        self.signs.waits.set(None);
        self.signs.blind.set(false);
        common.buffers.give(written?);
        Ok(())
    }
}
