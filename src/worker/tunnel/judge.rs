//! When a tunnel is over, and why. No IO: what has happened comes in, with the time.

use std::time::Duration;

use super::way::{Ended, Signs};
use crate::base::clock::Instant;
use crate::telemetry::SocketEnd;
use crate::wire::websocket::Broken;

/// A side that is not yet done with what it was told, or has been seen to end, has this long.
pub(super) const LAST_WAIT: Duration = Duration::from_secs(1);
/// From one side's Close to the other's. That one may have a long message under way, which it is to end first.
const CLOSING: Duration = Duration::from_secs(10);
/// A tunnel on which nothing has come for so long gives its room up.
const REST_AFTER: Duration = Duration::from_millis(500);
/// How often the kernel is asked about a side of which no more is read.
const ASK_AFTER: Duration = Duration::from_millis(50);

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Upstream,
}

/// Why a tunnel is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// By this side's Close, to which the other has had its time to answer.
    Closed(Side),
    /// It has left without one.
    Gone(Side),
    /// It broke a rule.
    Broke(Side, Broken),
    /// It did not take what it was sent.
    Stalled(Side),
    Idle,
    Total,
    Shutdown,
}

/// A Close: code and reason.
pub(super) type Words = Option<(u16, &'static str)>;

impl Verdict {
    /// The word for it.
    pub fn end(self) -> SocketEnd {
        match self {
            Verdict::Closed(Side::Client) => SocketEnd::ClientClosed,
            Verdict::Closed(Side::Upstream) => SocketEnd::UpstreamClosed,
            Verdict::Gone(Side::Client) => SocketEnd::ClientGone,
            Verdict::Gone(Side::Upstream) => SocketEnd::UpstreamGone,
            Verdict::Broke(Side::Client, _) => SocketEnd::ClientBroke,
            Verdict::Broke(Side::Upstream, _) => SocketEnd::UpstreamBroke,
            Verdict::Stalled(Side::Client) => SocketEnd::ClientStalled,
            Verdict::Stalled(Side::Upstream) => SocketEnd::UpstreamStalled,
            Verdict::Idle => SocketEnd::Idle,
            Verdict::Total => SocketEnd::Total,
            Verdict::Shutdown => SocketEnd::Shutdown,
        }
    }

    /// What the client and the upstream are told, in this order (RFC 6455 §7.4.1): whoever broke a rule, which; the other,
    /// that nobody is left to talk to.
    pub fn words(self) -> [Words; 2] {
        const LEFT: Words = Some((1001, "the client broke the rules of WebSocket"));
        const FAILED: Words = Some((1011, "the provider failed"));
        match self {
            Verdict::Closed(_) | Verdict::Gone(_) => [None, None],
            Verdict::Broke(Side::Client, broken) => [Some((broken.code(), broken.as_str())), LEFT],
            Verdict::Broke(Side::Upstream, broken) => [FAILED, Some((broken.code(), broken.as_str()))],
            Verdict::Stalled(Side::Client) => [None, Some((1001, "the client does not read"))],
            Verdict::Stalled(Side::Upstream) => [FAILED, None],
            Verdict::Idle => [Some((1001, "nothing came for too long")); 2],
            Verdict::Total => [Some((1001, "open for as long as any may be")); 2],
            Verdict::Shutdown => [Some((1001, "the gateway is being stopped")); 2],
        }
    }

    /// True if nobody is to be waited for.
    pub fn is_abrupt(self) -> bool {
        self == Verdict::Gone(Side::Client)
    }
}

/// How long a tunnel may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub idle: Duration,
    /// When it is over whatever goes on.
    pub total: Instant,
    /// How long a side may let something wait.
    pub write: Duration,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Over(Verdict),
    /// Both ways are to be looked at once more.
    Again,
    /// Nothing, until then.
    Until(Instant),
}

/// Watches over one tunnel.
#[derive(Debug)]
pub(super) struct Judge {
    limits: Limits,
    /// Whose Close was the first, and when.
    first: Option<(Side, Instant)>,
    /// Since when the upstream takes nothing, though what it said may still be on its way.
    untaken: Option<Instant>,
    /// The last sign of life before its room was given up.
    rested: Instant,
}

impl Judge {
    pub fn new(limits: Limits) -> Judge {
        Judge { limits, first: None, untaken: None, rested: Instant::NEVER }
    }

    /// Whose Close was the first that was passed on.
    pub fn first(&self) -> Option<Side> {
        self.first.map(|(side, _)| side)
    }

    /// Looks at what has become of the two ways: the client's, and the upstream's. `life` is when anything last came.
    pub fn look(
        &mut self,
        now: Instant,
        ended: &[Option<Ended>; 2],
        signs: &[Signs; 2],
        life: Instant,
        is_shutdown: bool,
    ) -> Look {
        if let Some(verdict) = self.by_events(now, ended) {
            return Look::Over(verdict);
        }
        if is_shutdown {
            return Look::Over(Verdict::Shutdown);
        }
        let mut next = Instant::NEVER;
        let mut due = |at: Option<Instant>, within: Duration| {
            let due = at.map_or(Instant::NEVER, |at| at + within);
            next = next.min(due);
            due <= now
        };
        let [from_client, from_upstream] = signs;
        let closed = self.first.filter(|(_, at)| due(Some(*at), CLOSING));
        let verdict = match closed {
            Some((side, _)) => Some(Verdict::Closed(side)),
            None if due(Some(self.limits.total), Duration::ZERO) => Some(Verdict::Total),
            None if due(self.untaken, LAST_WAIT) => Some(Verdict::Gone(Side::Upstream)),
            None if due(from_client.over.get(), LAST_WAIT) => Some(Verdict::Gone(Side::Client)),
            None if due(from_client.waits.get(), self.limits.write) => Some(Verdict::Stalled(Side::Upstream)),
            None if due(from_upstream.waits.get(), self.limits.write) => Some(Verdict::Stalled(Side::Client)),
            None if due(Some(life), self.limits.idle) => Some(Verdict::Idle),
            None => None,
        };
        if let Some(verdict) = verdict {
            return Look::Over(verdict);
        }
        if self.rested != life && due(Some(life), REST_AFTER) {
            self.rested = life;
            signs.iter().for_each(|sign| sign.rests.set(true));
            return Look::Again;
        }
        for sign in signs.iter().filter(|sign| sign.blind.get()) {
            sign.asks.set(true);
            next = next.min(now + ASK_AFTER);
        }
        Look::Until(next)
    }

    /// What the ends of the two ways make of it.
    fn by_events(&mut self, now: Instant, ended: &[Option<Ended>; 2]) -> Option<Verdict> {
        let [up, down] = *ended;
        if let Some(Ended::Broken(broken)) = up {
            return Some(Verdict::Broke(Side::Client, broken));
        }
        if let Some(Ended::Broken(broken)) = down {
            return Some(Verdict::Broke(Side::Upstream, broken));
        }
        let closed = [up, down].map(|ended| ended == Some(Ended::Closed));
        if self.first.is_none() && closed != [false; 2] {
            self.first = Some((if closed[0] { Side::Client } else { Side::Upstream }, now));
        }
        let is_over = |ended: Option<Ended>| matches!(ended, Some(Ended::Over { .. }));
        let client_left = is_over(up) || down == Some(Ended::NotTaken);
        let upstream_left = is_over(down) || up == Some(Ended::NotTaken);
        if let Some((side, _)) = self.first {
            return (client_left || upstream_left || closed == [true; 2]).then_some(Verdict::Closed(side));
        }
        if client_left {
            return Some(Verdict::Gone(Side::Client));
        }
        if is_over(down) {
            return Some(Verdict::Gone(Side::Upstream));
        }
        if upstream_left {
            // What it said last, and why, may be on its way to the client yet.
            self.untaken.get_or_insert(now);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant(1_000_000_000) + Duration::from_millis(ms)
    }

    fn judge() -> Judge {
        Judge::new(Limits { idle: Duration::from_secs(60), total: at(100_000), write: Duration::from_secs(30) })
    }

    const OVER: Option<Ended> = Some(Ended::Over { failed: false });
    const CLOSED: Option<Ended> = Some(Ended::Closed);
    const NOT_TAKEN: Option<Ended> = Some(Ended::NotTaken);

    #[test]
    fn what_happens_is_told_as_what_it_was() {
        use Side::*;
        use Verdict::*;
        let broken = Some(Ended::Broken(Broken::Mask));
        for (name, ended, verdict) in [
            ("nothing", [None, None], None),
            ("the client left", [OVER, None], Some(Gone(Client))),
            ("and takes nothing", [None, NOT_TAKEN], Some(Gone(Client))),
            ("the upstream left", [None, OVER], Some(Gone(Upstream))),
            ("and takes nothing: it may have said why", [NOT_TAKEN, None], None),
            ("it had not", [NOT_TAKEN, OVER], Some(Gone(Upstream))),
            ("it had", [NOT_TAKEN, CLOSED], Some(Closed(Upstream))),
            ("the client closed", [CLOSED, None], None),
            ("and was answered", [CLOSED, CLOSED], Some(Closed(Client))),
            ("and was not", [CLOSED, OVER], Some(Closed(Client))),
            ("and did not wait", [CLOSED, NOT_TAKEN], Some(Closed(Client))),
            ("the upstream closed", [None, CLOSED], None),
            ("and was not answered", [OVER, CLOSED], Some(Closed(Upstream))),
            ("the client broke a rule", [broken, None], Some(Broke(Client, Broken::Mask))),
            ("the upstream did", [None, broken], Some(Broke(Upstream, Broken::Mask))),
            ("after the client's Close", [CLOSED, broken], Some(Broke(Upstream, Broken::Mask))),
        ] {
            let look = judge().look(at(0), &ended, &Default::default(), at(0), false);
            match verdict {
                Some(verdict) => assert_eq!(look, Look::Over(verdict), "{name}"),
                None => assert!(matches!(look, Look::Until(_)), "{name}: {look:?}"),
            }
        }
    }

    #[test]
    fn each_timer_holds_up_to_its_end_and_not_beyond() {
        use Side::*;
        let signs = |waits: [Option<u64>; 2], over: Option<u64>| {
            let signs: [Signs; 2] = Default::default();
            signs[0].waits.set(waits[0].map(at));
            signs[1].waits.set(waits[1].map(at));
            signs[0].over.set(over.map(at));
            signs
        };
        let none = [None::<Ended>; 2];
        let calm = || signs([None; 2], None);
        for (name, ended, signs, life, due, verdict) in [
            ("idle", none, calm(), 7, 60_007, Verdict::Idle),
            ("total", none, calm(), 90_000, 100_000, Verdict::Total),
            ("a Close that is not answered", [CLOSED, None], calm(), 0, 10_000, Verdict::Closed(Client)),
            ("the other's", [None, CLOSED], calm(), 0, 10_000, Verdict::Closed(Upstream)),
            (
                "an upstream that takes nothing",
                none,
                signs([Some(1), None], None),
                1,
                30_001,
                Verdict::Stalled(Upstream),
            ),
            ("a client that does not", none, signs([None, Some(2)], None), 2, 30_002, Verdict::Stalled(Client)),
            ("one that has left meanwhile", none, signs([Some(1), None], Some(3)), 2, 1003, Verdict::Gone(Client)),
            ("an upstream that refuses more", [NOT_TAKEN, None], calm(), 0, 1000, Verdict::Gone(Upstream)),
        ] {
            let ended: [Option<Ended>; 2] = ended;
            let mut judge = judge();
            // The first look finds what has ended, and the second that nothing more comes of a rest.
            let mut look = |ms| (0..2).map(|_| judge.look(at(ms), &ended, &signs, at(life), false)).last();
            look(0);
            assert!(matches!(look(due - 1), Some(Look::Until(until)) if until <= at(due)), "{name}");
            assert_eq!(look(due), Some(Look::Over(verdict)), "{name}");
        }
        let shutdown = judge().look(at(0), &none, &Default::default(), at(0), true);
        assert_eq!(shutdown, Look::Over(Verdict::Shutdown));
    }

    #[test]
    fn room_is_given_up_once_for_each_pause() {
        let (mut judge, signs, none) = (judge(), <[Signs; 2]>::default(), [None::<Ended>; 2]);
        assert_eq!(judge.look(at(499), &none, &signs, at(0), false), Look::Until(at(500)));
        assert!(!signs[0].rests.get());
        assert_eq!(judge.look(at(500), &none, &signs, at(0), false), Look::Again);
        assert!(signs[0].rests.take() && signs[1].rests.take());
        assert_eq!(judge.look(at(501), &none, &signs, at(0), false), Look::Until(at(60_000)));
        // Something has come.
        assert_eq!(judge.look(at(600), &none, &signs, at(600), false), Look::Until(at(1100)));
        assert_eq!(judge.look(at(1100), &none, &signs, at(600), false), Look::Again);
    }

    #[test]
    fn whoever_is_told_anything_is_told_with_a_code_that_may_be_sent() {
        use Side::*;
        let all = [
            Verdict::Broke(Client, Broken::TooLarge),
            Verdict::Broke(Upstream, Broken::Opcode),
            Verdict::Stalled(Client),
            Verdict::Stalled(Upstream),
            Verdict::Idle,
            Verdict::Total,
            Verdict::Shutdown,
            Verdict::Closed(Client),
            Verdict::Gone(Upstream),
        ];
        for verdict in all {
            for (code, reason) in verdict.words().into_iter().flatten() {
                assert!([1001, 1002, 1009, 1011].contains(&code) && reason.len() <= 123, "{verdict:?}");
            }
        }
        assert_eq!(Verdict::Broke(Client, Broken::TooLarge).words()[0].map(|(code, _)| code), Some(1009));
    }
}
