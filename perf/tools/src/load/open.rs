//! Open loop: requests are due by the clock, whatever became of those before.

use std::collections::VecDeque;
use std::io;

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Failures, Meter};
use crate::clock::{now_ns, ns};
use crate::fleet::Fleet;
use crate::report::Durations;

/// A fixed rate over keep-alive connections. The generator never sleeps: it asks and lets others run in turn.
#[derive(Args)]
pub struct Open {
    #[command(flatten)]
    pub(super) common: Common,
    /// Requests per second.
    #[arg(long, default_value_t = 5000.0)]
    pub(super) rate: f64,
    /// Random arrivals (exponential gaps) instead of even ones.
    #[arg(long)]
    pub(super) poisson: bool,
    /// Seed of the arrivals.
    #[arg(long, default_value_t = 7)]
    pub(super) seed: u64,
    /// Connections; a request that finds none free waits, and its wait counts.
    #[arg(long, default_value_t = 64)]
    pub(super) connections: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 3.0)]
    pub(super) seconds: f64,
    /// How long to run before measuring.
    #[arg(long, default_value_t = 0.2)]
    pub(super) warm_up: f64,
}

/// How long to wait for the last answers.
const LAST_ANSWER_NS: u64 = 10_000_000_000;

impl Open {
    /// Offers the load.
    ///
    /// # Errors
    /// The target can't be reached, or a process under test does not exist.
    pub fn run(&self) -> io::Result<Value> {
        let lanes = self.common.lanes(self.connections);
        let mut fleet = Fleet::open(self.common.way()?, lanes, &self.common.request(false))?;
        let mut free: VecDeque<usize> = (0..fleet.len()).collect();
        let mut due_ns = vec![0; fleet.len()];
        let mut failures = Failures::default();
        let mut body_bytes = None;
        let (mut ready, mut turns) = (Vec::new(), Vec::new());
        let (mut latency, mut lateness) = (Durations::new(), Durations::new());
        let mut arrivals = Arrivals::new(self.rate, self.poisson, self.seed);
        let mut meter = None;

        let begin = now_ns();
        let measure_from = begin + ns(self.warm_up);
        let end = measure_from + ns(self.seconds);
        let mut next_due = begin + arrivals.next_gap_ns();
        loop {
            let now = now_ns();
            if meter.is_none() && now >= measure_from {
                meter = Some(Meter::start(&self.common.pids)?);
            }
            while next_due <= now && next_due < end {
                // The oldest free connection takes it, so that all stay in use.
                let Some(lane) = free.pop_front() else {
                    break;
                };
                due_ns[lane] = next_due;
                if next_due >= measure_from {
                    lateness.record(now_ns().saturating_sub(next_due));
                }
                fleet.send(lane)?;
                next_due += arrivals.next_gap_ns();
            }
            if next_due >= end && free.len() == fleet.len() {
                break;
            }
            if now > end + LAST_ANSWER_NS {
                failures.add_many("no answer within 10 s", (fleet.len() - free.len()) as u64);
                break;
            }
            fleet.wait(None, &mut ready)?;
            for &number in &ready {
                fleet.turn(number, &mut turns, |_, _, _| {})?;
                for (lane, turn) in turns.drain(..) {
                    if !failures.ends_exchange(turn) {
                        continue;
                    }
                    free.push_back(lane);
                    if failures.judge(turn, &mut body_bytes) && due_ns[lane] >= measure_from {
                        latency.record(now_ns() - due_ns[lane]);
                    }
                }
            }
        }
        let mut report = json!({
            "load": "open",
            "connections": self.connections,
            "rate": self.rate,
            "poisson": self.poisson,
            "requests": latency.count(),
            "errors": failures.count,
            "reasons": failures.reasons,
            "renewals": fleet.renewals,
            "body_bytes": body_bytes,
            "latency": latency.to_json(),
            "sent_late": lateness.to_json(),
        });
        if let Some(meter) = meter {
            meter.stop(&self.common.pids, latency.count(), &mut report)?;
        }
        Ok(report)
    }
}

/// Gaps between requests.
pub(super) struct Arrivals {
    mean_ns: f64,
    poisson: bool,
    state: u64,
}

impl Arrivals {
    pub(super) fn new(rate: f64, poisson: bool, seed: u64) -> Self {
        Arrivals { mean_ns: 1e9 / rate, poisson, state: seed }
    }

    pub(super) fn next_gap_ns(&mut self) -> u64 {
        if !self.poisson {
            return self.mean_ns as u64;
        }
        // SplitMix64 (Steele, Lea, Flood 2014); the upper 53 bits as a number in (0, 1].
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let uniform = ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64;
        (-uniform.ln() * self.mean_ns) as u64
    }
}
