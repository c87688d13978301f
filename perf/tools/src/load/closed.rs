//! Closed loop: as fast as the answers come.

use std::io;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Failures, Meter};
use crate::clock::{now_ns, ns};
use crate::fleet::Fleet;
use crate::report::Durations;

/// Keep-alive connections, each with one request under way at any time, or as many as `--h2` says.
#[derive(Args)]
pub struct Closed {
    #[command(flatten)]
    pub(super) common: Common,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(super) connections: usize,
    /// How long to measure. 0 with --requests: until these are done.
    #[arg(long, default_value_t = 3.0)]
    pub(super) seconds: f64,
    /// Stop after so many requests. 0: no limit.
    #[arg(long, default_value_t = 0)]
    pub(super) requests: u64,
    /// A connection for each request, closed when its answer is whole; one starts as one ends.
    #[arg(long)]
    pub(super) once: bool,
    /// How long to run before measuring.
    #[arg(long, default_value_t = 0.2)]
    pub(super) warm_up: f64,
}

/// An answer that takes longer than this is a failure, and ends the load.
const STALLED_NS: u64 = 10_000_000_000;

impl Closed {
    /// Offers the load.
    ///
    /// # Errors
    /// The target can't be reached, or a process under test does not exist.
    pub fn run(&self) -> io::Result<Value> {
        let lanes = self.common.lanes(self.connections);
        let mut fleet = Fleet::open(self.common.way()?, lanes, &self.common.request(false))?;
        if self.once {
            fleet.use_once();
        }
        let mut failures = Failures::default();
        let mut body_bytes = None;
        let mut sent_ns = vec![0; fleet.len()];
        let (mut ready, mut turns) = (Vec::new(), Vec::new());
        let mut latency = Durations::new();
        let mut meter = None;
        let by_count = self.seconds == 0.0 && self.requests > 0;

        let begin = now_ns();
        let measure_from = begin + ns(self.warm_up);
        let mut under_way = 0;
        let mut offered = 0;
        let mut last_answer = begin;
        if self.warm_up == 0.0 {
            meter = Some(Meter::start(&self.common.pids)?);
        }
        for (lane, sent) in sent_ns.iter_mut().enumerate() {
            if self.requests > 0 && offered == self.requests {
                break;
            }
            *sent = now_ns();
            fleet.send(lane)?;
            offered += 1;
            under_way += 1;
        }
        while under_way > 0 {
            fleet.wait(Some(Duration::from_millis(100)), &mut ready)?;
            let mut now = now_ns();
            if ready.is_empty() && now > last_answer + STALLED_NS {
                failures.add_many("no answer within 10 s", under_way);
                break;
            }
            if meter.is_none() && now >= measure_from {
                meter = Some(Meter::start(&self.common.pids)?);
                latency = Durations::new();
            }
            for &number in &ready {
                fleet.turn(number, &mut turns, |_, _, _| {})?;
                for (lane, turn) in turns.drain(..) {
                    if !failures.ends_exchange(turn) {
                        continue;
                    }
                    now = now_ns();
                    last_answer = now;
                    under_way -= 1;
                    if failures.judge(turn, &mut body_bytes) {
                        latency.record(now - sent_ns[lane]);
                    }
                    let within_time = by_count || now < measure_from + ns(self.seconds);
                    if within_time && (self.requests == 0 || offered < self.requests) {
                        sent_ns[lane] = now;
                        fleet.send(lane)?;
                        offered += 1;
                        under_way += 1;
                    }
                }
            }
        }
        let mut report = json!({
            "load": "closed",
            "connections": self.connections,
            "streams_per_connection": self.common.h2,
            "requests": latency.count(),
            "errors": failures.count,
            "reasons": failures.reasons,
            "renewals": fleet.renewals,
            "resumed": fleet.resumed,
            "body_bytes": body_bytes,
            "latency": latency.to_json(),
        });
        if let Some(meter) = meter {
            meter.stop(&self.common.pids, latency.count(), &mut report)?;
        }
        Ok(report)
    }
}
