//! Idle connections: what each costs in memory, and whether it is given back.

use std::io;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Failures};
use crate::clock::{now_ns, ns, sleep_until};
use crate::fleet::{Fleet, Turn};
use crate::usage::{self, Memory};

/// Connections that make one request each and then stay open.
#[derive(Args)]
pub struct Idle {
    #[command(flatten)]
    pub(super) common: Common,
    /// Connections.
    #[arg(long, default_value_t = 9000)]
    pub(super) connections: usize,
    /// Requests under way at once while the connections are being opened.
    #[arg(long, default_value_t = 64)]
    pub(super) wave: usize,
    /// How long to leave the process alone before each reading of its memory.
    #[arg(long, default_value_t = 3.0)]
    pub(super) settle: f64,
}

const ANSWER_NS: u64 = 10_000_000_000;

impl Idle {
    /// Opens, holds, closes; reads memory at each stage.
    ///
    /// # Errors
    /// The target can't be reached, or a process under test does not exist.
    pub fn run(&self) -> io::Result<Value> {
        if self.common.h2 > 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an idle connection has one request: --h2 1"));
        }
        let mut failures = Failures::default();
        let mut body_bytes = None;
        // What the first requests allocate once and for all is no cost of an idle connection.
        let mut first = Fleet::open(self.common.way()?, self.wave, &self.common.request(false))?;
        exchange(&mut first, 0..self.wave, &mut failures, &mut body_bytes)?;
        drop(first);
        let before = self.settled()?;

        let mut fleet = Fleet::open(self.common.way()?, 0, &self.common.request(false))?;
        let begin = now_ns();
        while fleet.len() < self.connections {
            let from = fleet.len();
            let to = self.connections.min(from + self.wave);
            fleet.grow(to)?;
            exchange(&mut fleet, from..to, &mut failures, &mut body_bytes)?;
        }
        let opening_s = (now_ns() - begin) as f64 / 1e9;
        let held = self.settled()?;
        let closed_by_peer = (0..fleet.len()).filter(|&number| fleet.is_spoiled(number)).count();
        failures.add_many("idle connection closed", closed_by_peer as u64);
        // They must still work.
        if closed_by_peer == 0 {
            exchange(&mut fleet, 0..self.connections.min(self.wave), &mut failures, &mut body_bytes)?;
        }
        drop(fleet);
        let after = self.settled()?;

        let per_connection = |now: u64, then: u64| (now as f64 - then as f64) / self.connections as f64;
        Ok(json!({
            "load": "idle",
            "connections": self.connections,
            "errors": failures.count,
            "reasons": failures.reasons,
            "opening_s": opening_s,
            "before": memory_json(before),
            "held": memory_json(held),
            "after": memory_json(after),
            "kib_per_connection": per_connection(held.rss_kib, before.rss_kib),
            "pss_kib_per_connection": per_connection(held.pss_kib, before.pss_kib),
            "kept_kib_per_connection": per_connection(after.rss_kib, before.rss_kib),
            "given_back": given_back(before.rss_kib, held.rss_kib, after.rss_kib),
        }))
    }

    fn settled(&self) -> io::Result<Memory> {
        sleep_until(now_ns() + ns(self.settle));
        usage::memory(&self.common.pids)
    }
}

/// The part of the growth that is gone again, 0 to 1; 1 if nothing grew.
pub(super) fn given_back(before_kib: u64, held_kib: u64, after_kib: u64) -> f64 {
    let grown = held_kib.saturating_sub(before_kib);
    if grown == 0 {
        return 1.0;
    }
    (held_kib as f64 - after_kib as f64).clamp(0.0, grown as f64) / grown as f64
}

fn memory_json(memory: Memory) -> Value {
    json!({ "rss_kib": memory.rss_kib, "pss_kib": memory.pss_kib })
}

/// One request on each of the connections `numbers`.
fn exchange(
    fleet: &mut Fleet,
    numbers: std::ops::Range<usize>,
    failures: &mut Failures,
    body_bytes: &mut Option<u64>,
) -> io::Result<()> {
    let mut under_way = numbers.len() as u64;
    for number in numbers {
        fleet.send(number)?;
    }
    let give_up = now_ns() + ANSWER_NS;
    let (mut ready, mut turns) = (Vec::new(), Vec::new());
    while under_way > 0 {
        fleet.wait(Some(Duration::from_millis(100)), &mut ready)?;
        for &number in &ready {
            fleet.turn(number, &mut turns, |_, _, _| {})?;
            for (_, turn) in turns.drain(..) {
                if turn == Turn::Renewed {
                    failures.add("idle connection closed");
                } else if failures.ends_exchange(turn) {
                    failures.judge(turn, body_bytes);
                    under_way -= 1;
                }
            }
        }
        if now_ns() > give_up {
            failures.add_many("no answer within 10 s", under_way);
            break;
        }
    }
    Ok(())
}
