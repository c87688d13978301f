//! Event streams: delay of every event, lumps, time to the first.

use std::io;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Failures, Meter};
use crate::clock::now_ns;
use crate::events::{Event, Scanner};
use crate::fleet::{Fleet, Turn};
use crate::report::Durations;

/// Concurrent streams, one per connection, whose events are spread evenly over the gap.
#[derive(Args)]
pub struct Sse {
    #[command(flatten)]
    pub(super) common: Common,
    /// Concurrent streams.
    #[arg(long, default_value_t = 200)]
    pub(super) streams: usize,
    /// Stamped events that each stream must bring.
    #[arg(long, default_value_t = 50)]
    pub(super) events: u64,
    /// The upstream's gap between events, over which starts are spread.
    #[arg(long, default_value_t = 20.0)]
    pub(super) gap_ms: f64,
    /// Streams one after the other on each connection.
    #[arg(long, default_value_t = 1)]
    pub(super) repeats: u32,
    /// Streams started per second, at most.
    #[arg(long, default_value_t = 2000.0)]
    pub(super) starts_per_second: f64,
}

/// Two stamped events in one read are a lump only if they were sent at least this far apart.
const LUMP_NS: u64 = 1_000_000;
/// A stream may be late by so much over its nominal length before the load gives up.
const GRACE_NS: u64 = 15_000_000_000;

#[derive(Default)]
struct Stream {
    scanner: Scanner,
    sent_ns: u64,
    events: u64,
    errors: u64,
    done: bool,
    seen: bool,
    left: u32,
}

#[derive(Debug)]
struct Counts {
    delay: Durations,
    ttft: Durations,
    events: u64,
    lumps: u64,
}

impl Sse {
    /// Offers the load.
    ///
    /// # Errors
    /// The target can't be reached, or a process under test does not exist.
    pub fn run(&self) -> io::Result<Value> {
        let mut fleet = Fleet::open(self.common.way()?, self.streams, self.common.request(true))?;
        let mut streams: Vec<Stream> =
            (0..self.streams).map(|_| Stream { left: self.repeats, ..Stream::default() }).collect();
        let starts = start_offsets_ns(self.streams, self.gap_ms * 1e6, self.starts_per_second);
        let mut counts = Counts { delay: Durations::new(), ttft: Durations::new(), events: 0, lumps: 0 };
        let mut failures = Failures::default();
        let mut missing = 0;
        let (mut next, mut running, mut peak, mut finished) = (0, 0_usize, 0, 0_u64);
        let mut ready = Vec::new();

        let meter = Meter::start(&self.common.pids)?;
        let begin = now_ns();
        let nominal_ns = (self.gap_ms * 1e6) as u64 * self.events * u64::from(self.repeats);
        let give_up = begin + starts.last().copied().unwrap_or(0) + nominal_ns + GRACE_NS;
        while next < starts.len() || running > 0 {
            let now = now_ns();
            while next < starts.len() && begin + starts[next] <= now {
                streams[next].begin(now_ns());
                fleet.send(next)?;
                running += 1;
                next += 1;
            }
            peak = peak.max(running);
            if now > give_up {
                failures.add_many("stream did not end", running as u64);
                break;
            }
            let pause = match starts.get(next) {
                // Below a millisecond epoll would wait too long or not at all: ask and let others run.
                Some(start) => (begin + start).checked_sub(now + 1_000_000).map(Duration::from_nanos),
                None => Some(Duration::from_millis(100)),
            };
            fleet.wait(pause, &mut ready)?;
            for &number in &ready {
                let stream = &mut streams[number];
                let mut read = Read::default();
                let turn = fleet.turn(number, |piece, now| stream.take(piece, now, &mut read, &mut counts))?;
                if !failures.ends_exchange(turn) {
                    continue;
                }
                match turn {
                    Turn::Waiting | Turn::Renewed | Turn::Stray => {}
                    Turn::Failed(reason) => failures.add(reason),
                    Turn::Done { status: 200, .. } => {
                        finished += 1;
                        if stream.errors > 0 {
                            failures.add("error event");
                        } else if !stream.done {
                            failures.add("no end mark");
                        }
                    }
                    Turn::Done { status, .. } => failures.add(&format!("status {status}")),
                }
                missing += self.events.saturating_sub(stream.events);
                stream.left -= 1;
                if stream.left > 0 {
                    stream.begin(now_ns());
                    fleet.send(number)?;
                } else {
                    running -= 1;
                }
            }
        }
        failures.add_many("missing event", missing);
        let mut report = json!({
            "load": "sse",
            "streams": self.streams,
            "gap_ms": self.gap_ms,
            "concurrent_max": peak,
            "streams_done": finished,
            "events": counts.events,
            "missing": missing,
            "lumps": counts.lumps,
            "errors": failures.count,
            "reasons": failures.reasons,
            "renewals": fleet.renewals,
            "delay": counts.delay.to_json(),
            "ttft": counts.ttft.to_json(),
        });
        meter.stop(&self.common.pids, counts.events, &mut report)?;
        Ok(report)
    }
}

/// The stamps seen in one read.
#[derive(Default)]
pub(super) struct Read {
    first_sent_ns: Option<u64>,
}

impl Stream {
    fn begin(&mut self, now: u64) {
        let left = self.left;
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.reset();
        *self = Stream { scanner, sent_ns: now, left, ..Stream::default() };
    }

    fn take(&mut self, piece: &[u8], now: u64, read: &mut Read, counts: &mut Counts) {
        let Stream { scanner, sent_ns, events, errors, done, seen, .. } = self;
        scanner.feed(piece, |event| {
            if !*seen {
                *seen = true;
                counts.ttft.record(now.saturating_sub(*sent_ns));
            }
            match event {
                Event::Stamped(stamp) => {
                    *events += 1;
                    counts.events += 1;
                    counts.delay.record(now.saturating_sub(stamp));
                    let first = *read.first_sent_ns.get_or_insert(stamp);
                    if stamp.saturating_sub(first) >= LUMP_NS {
                        counts.lumps += 1;
                        read.first_sent_ns = Some(stamp);
                    }
                }
                Event::Done => *done = true,
                Event::Error => *errors += 1,
                Event::Plain => {}
            }
        });
    }
}

/// When each stream starts, ascending, so that the starts taken modulo the gap are spread evenly over it while no
/// more than `starts_per_second` begin in a second.
pub(super) fn start_offsets_ns(streams: usize, gap_ns: f64, starts_per_second: f64) -> Vec<u64> {
    let count = streams as f64;
    let rounds = (count / starts_per_second / (gap_ns / 1e9)).ceil().max(1.0);
    (0..streams)
        .map(|number| {
            let at = number as f64 * rounds / count;
            // Each round through the gap is shifted by one slot, so that it falls between those before.
            (at * gap_ns + at.floor() * gap_ns / count) as u64
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lump_is_events_sent_apart_and_read_together() {
        const MS: u64 = 1_000_000;
        for (name, reads_ms, lumps) in [
            ("each in a read of its own", &[&[1][..], &[21], &[41]][..], 0),
            ("two sent together", &[&[1][..], &[21, 21]], 0),
            ("two sent apart", &[&[1][..], &[21, 41]], 1),
            ("three sent apart", &[&[1, 21, 41][..]], 2),
            ("two lumps", &[&[1, 21][..], &[41, 61]], 2),
        ] {
            let mut stream = Stream::default();
            let mut counts = Counts { delay: Durations::new(), ttft: Durations::new(), events: 0, lumps: 0 };
            for stamps_ms in reads_ms {
                let mut read = Read::default();
                for stamp_ms in *stamps_ms {
                    let piece = format!("data: {{\"x_sent_ns\":{}}}\n\n", stamp_ms * MS);
                    stream.take(piece.as_bytes(), 100 * MS, &mut read, &mut counts);
                }
            }
            assert_eq!(counts.lumps, lumps, "{name}");
        }
    }
}
