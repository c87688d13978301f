//! Which name is due, what is known of it, and what the operator is told. Time and randomness are arguments.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::config::Resolver;
use crate::net::dns::{Found, Missing, Names};

/// Addresses kept of one name and family; a request tries no more anyway.
const ADDRESSES_MAX: usize = 16;
/// How soon after a first failure a name is asked for again; doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long the first addresses of a name wait for those of the other family (the Resolution Delay of RFC 8305 §3): who
/// connects knows both, unless one takes long.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// What asking for a name's addresses of one family brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, at least one, and how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// None, for the reason given; the text says more.
    Missing(Missing, String),
}

/// One name.
#[derive(Debug)]
struct Entry {
    host: String,
    /// Answers still to come in the round under way.
    pending: usize,
    /// The answers of the round under way, IPv6's and IPv4's.
    round: [Option<Answer>; 2],
    /// The last good ones.
    good: [Vec<IpAddr>; 2],
    good_at: Option<Instant>,
    /// Why the last whole round brought no address.
    missing: Option<Missing>,
    /// Rounds in a row that brought none.
    failures: u32,
}

/// What a finished round came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why it brought no address; `None` if it did.
    pub missing: Option<Missing>,
    /// What the operator is told: at the first failure and at the recovery from it.
    pub line: Option<String>,
}

/// All names.
#[derive(Debug)]
pub struct Roster {
    entries: Vec<Entry>,
    /// When each is to be asked for; one that is being asked for is not listed.
    due: BTreeSet<(Instant, usize)>,
    /// Names whose first addresses wait for those of the other family, and until when.
    held: BTreeSet<(Instant, usize)>,
    ttl_min: Duration,
    ttl_max: Duration,
}

impl Roster {
    /// All `hosts`, due at once.
    pub fn new(hosts: impl IntoIterator<Item = String>, config: &Resolver) -> Roster {
        let entry = |host| Entry {
            host,
            pending: 0,
            round: [None, None],
            good: [Vec::new(), Vec::new()],
            good_at: None,
            missing: None,
            failures: 0,
        };
        let entries: Vec<Entry> = hosts.into_iter().map(entry).collect();
        let due = (0..entries.len()).map(|at| (Instant(0), at)).collect();
        Roster { entries, due, held: BTreeSet::new(), ttl_min: config.ttl_min, ttl_max: config.ttl_max }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// A name that is due, which now counts as being asked for, in a round of `answers` answers.
    pub fn next_due(&mut self, now: Instant, answers: usize) -> Option<(usize, &str)> {
        let (due, at) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        let entry = &mut self.entries[at];
        entry.pending = answers;
        entry.round = [None, None];
        Some((at, &entry.host))
    }

    /// When the next name is due.
    pub fn earliest(&self) -> Instant {
        self.due.first().map_or(Instant::NEVER, |(due, _)| *due)
    }

    /// When there will be more for the workers, though no answer comes.
    pub fn held_until(&self) -> Instant {
        self.held.first().map_or(Instant::NEVER, |(until, _)| *until)
    }

    /// Takes one answer of the round under way in: IPv6's and IPv4's, as far as they have come. With the round's last
    /// answer comes the verdict, and the next round is fixed; `random` is 64 uniform bits.
    pub fn hear(&mut self, at: usize, answers: [Option<Answer>; 2], now: Instant, random: u64) -> Option<Verdict> {
        let entry = self.entries.get_mut(at)?;
        for ((answer, round), good) in answers.into_iter().zip(&mut entry.round).zip(&mut entry.good) {
            if let Some(Answer::Found(addresses, _)) = &answer {
                if entry.good_at.is_none() && entry.pending > 1 {
                    self.held.insert((now + RESOLUTION_DELAY, at));
                }
                // Without waiting for the round's end: the other family may yet take long.
                *good = addresses.iter().copied().take(ADDRESSES_MAX).collect();
                entry.good_at = Some(now);
            }
            *round = answer.or(round.take());
        }
        entry.pending = entry.pending.saturating_sub(1);
        if entry.pending > 0 {
            return None;
        }
        self.held.retain(|(_, held)| *held != at);
        let wait = match entry.finish() {
            Some(ttl) => hold(ttl, self.ttl_min, self.ttl_max, random),
            None => back_off(entry.failures, random),
        };
        self.due.insert((now + wait, at));
        Some(entry.verdict())
    }

    /// What workers are told.
    pub fn names(&mut self, now: Instant) -> Names {
        while self.held.first().is_some_and(|(until, _)| *until <= now) {
            self.held.pop_first();
        }
        let is_held = |at| self.held.iter().any(|(_, held)| *held == at);
        let known = self.entries.iter().enumerate().filter(|(at, _)| !is_held(*at));
        known.filter_map(|(_, entry)| Some((entry.host.clone(), entry.known()?))).collect()
    }

    /// Names whose last round brought no address.
    pub fn failing(&self) -> usize {
        self.entries.iter().filter(|entry| entry.failures > 0).count()
    }

    /// When the oldest answer in use was given.
    pub fn oldest(&self) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.good_at).min()
    }
}

impl Entry {
    fn known(&self) -> Option<Found> {
        if self.good.iter().any(|family| !family.is_empty()) {
            return Some(Found::Addresses(self.good.iter().flatten().copied().collect::<Arc<[IpAddr]>>()));
        }
        self.missing.map(Found::Missing)
    }

    /// Ends the round: how long its answers hold, if there was an address among them.
    fn finish(&mut self) -> Option<Duration> {
        let found = self.round.iter().flatten().filter_map(|answer| match answer {
            Answer::Found(_, ttl) => Some(*ttl),
            Answer::Missing(..) => None,
        });
        let ttl = found.min()?;
        for (good, answer) in self.good.iter_mut().zip(&self.round) {
            // As the other family was told of, that this one is gone is meant. One that failed keeps what it had.
            if matches!(answer, Some(Answer::Missing(Missing::NoName | Missing::NoAddress, _))) {
                good.clear();
            }
        }
        Some(ttl)
    }

    /// Why the round brought nothing; `None` if it brought something. Of two reasons, the one to be mended first.
    fn fault(&self) -> Option<(Missing, &str)> {
        let mut worst: Option<(Missing, &str)> = None;
        for answer in self.round.iter().flatten() {
            let Answer::Missing(missing, text) = answer else { return None };
            if worst.is_none_or(|(worst, _)| rank(*missing) > rank(worst)) {
                worst = Some((*missing, text));
            }
        }
        worst
    }

    fn verdict(&mut self) -> Verdict {
        let host = &self.host;
        let fault = self.fault();
        let missing = fault.map(|(missing, _)| missing);
        let line = match fault {
            None => (self.failures > 0).then(|| format!("the name {host} resolves again")),
            Some((_, text)) => (self.failures == 0).then(|| {
                let kept = if self.good_at.is_some() { "; its last addresses stay in use" } else { "" };
                format!("the name {host} does not resolve: {text}{kept}")
            }),
        };
        self.failures = if missing.is_some() { self.failures.saturating_add(1) } else { 0 };
        self.missing = missing;
        Verdict { missing, line }
    }
}

fn rank(missing: Missing) -> u8 {
    match missing {
        Missing::NoName => 0,
        Missing::NoAddress => 1,
        Missing::NoAnswer => 2,
        Missing::Failed => 3,
    }
}

/// How long an answer counts: its time to live within the bounds, and up to a tenth more, so that names learned
/// together are not asked for together ever after. Never less than the time to live, or a name server that keeps
/// answers would give the same one again.
fn hold(ttl: Duration, min: Duration, max: Duration, random: u64) -> Duration {
    let ttl = ttl.clamp(min, max);
    ttl + share(ttl / 10, random)
}

/// How long after the failure that `failures` others came before: doubling, and up to a quarter more.
fn back_off(failures: u32, random: u64) -> Duration {
    let wait = RETRY.saturating_mul(1 << failures.min(8)).min(RETRY_MAX);
    wait + share(wait / 4, random)
}

/// A part of `whole`, by 64 uniform bits.
fn share(whole: Duration, random: u64) -> Duration {
    // 32 bits of it, so that the product fits.
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX) >> 16;
    Duration::from_nanos(((u128::from(nanos) * u128::from(random >> 32)) >> 16) as u64)
}

#[cfg(test)]
mod tests;
