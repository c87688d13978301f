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

/// Concurrent streams, one per connection or as many as `--h2` says, whose events are spread evenly over the gap.
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
    /// Streams one after the other in the place of each.
    #[arg(long, default_value_t = 1)]
    pub(super) repeats: u32,
    /// With --h2: the first so many streams are never read; their windows stay shut, those of the others are opened with the
    /// request. They are not counted, but must be alive at the end. Delays on connections without any are told apart.
    #[arg(long)]
    pub(super) stalled: Option<usize>,
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
    read: Read,
    /// It has no connection with streams that nobody reads, where there are such.
    is_beside: bool,
}

#[derive(Debug)]
struct Counts {
    delay: Durations,
    delay_beside: Durations,
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
        let mut way = self.common.way()?;
        match (&mut way.http2, self.stalled) {
            (Some(http2), stalled) => http2.stalled = stalled,
            (None, None) => {}
            (None, Some(_)) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "--stalled needs --h2")),
        }
        let stalled = self.stalled.unwrap_or(0);
        let mut streams: Vec<Stream> =
            (0..self.streams).map(|_| Stream { left: self.repeats, ..Stream::default() }).collect();
        if self.stalled.is_some() {
            let width = self.common.h2;
            streams.iter_mut().skip(stalled.max(1).div_ceil(width) * width).for_each(|stream| stream.is_beside = true);
        }
        let mut fleet = Fleet::open(way, self.streams, &self.common.request(true))?;
        let starts = start_offsets_ns(self.streams, self.gap_ms * 1e6, self.starts_per_second);
        let mut counts = Counts {
            delay: Durations::new(),
            delay_beside: Durations::new(),
            ttft: Durations::new(),
            events: 0,
            lumps: 0,
        };
        let mut failures = Failures::default();
        let mut missing = 0;
        let (mut next, mut running, mut peak, mut finished) = (0, 0_usize, 0, 0_u64);
        let (mut ready, mut turns) = (Vec::new(), Vec::new());

        let meter = Meter::start(&self.common.pids)?;
        let begin = now_ns();
        let nominal_ns = (self.gap_ms * 1e6) as u64 * self.events * u64::from(self.repeats);
        let give_up = begin + starts.last().copied().unwrap_or(0) + nominal_ns + GRACE_NS;
        while next < starts.len() || running > 0 {
            let now = now_ns();
            while next < starts.len() && begin + starts[next] <= now {
                streams[next].begin(now_ns());
                fleet.send(next)?;
                // Nobody waits for the end of a stream that is not read.
                running += usize::from(next >= stalled);
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
                fleet.turn(number, &mut turns, |lane, piece, now| streams[lane].take(piece, now, &mut counts))?;
                for (lane, turn) in turns.drain(..) {
                    if !failures.ends_exchange(turn) {
                        continue;
                    }
                    let stream = &mut streams[lane];
                    match turn {
                        Turn::Renewed | Turn::Stray => {}
                        Turn::Failed(reason) => failures.add(reason),
                        Turn::Done { .. } if lane < stalled => failures.add("a stream that nobody reads has ended"),
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
                    if lane < stalled {
                        continue;
                    }
                    missing += self.events.saturating_sub(stream.events);
                    stream.left -= 1;
                    if stream.left > 0 {
                        stream.begin(now_ns());
                        fleet.send(lane)?;
                    } else {
                        running -= 1;
                    }
                }
            }
        }
        let silent = (0..stalled).filter(|&lane| fleet.so_far(lane) != (200, 0)).count();
        failures.add_many("a stream that nobody reads is not answered", silent as u64);
        failures.add_many("missing event", missing);
        let mut report = json!({
            "load": "sse",
            "streams": self.streams,
            "streams_per_connection": self.common.h2,
            "stalled": self.stalled,
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
            "delay_beside": counts.delay_beside.to_json(),
            "ttft": counts.ttft.to_json(),
        });
        meter.stop(&self.common.pids, counts.events, &mut report)?;
        Ok(report)
    }
}

/// The stamps of one stream seen in one read.
#[derive(Default)]
struct Read {
    at_ns: u64,
    first_sent_ns: Option<u64>,
}

impl Stream {
    fn begin(&mut self, now: u64) {
        let Stream { left, is_beside, .. } = *self;
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.reset();
        *self = Stream { scanner, sent_ns: now, left, is_beside, ..Stream::default() };
    }

    /// Takes a piece that was read at `now`, which tells one read from another.
    fn take(&mut self, piece: &[u8], now: u64, counts: &mut Counts) {
        let Stream { scanner, sent_ns, events, errors, done, seen, read, is_beside, .. } = self;
        if read.at_ns != now {
            *read = Read { at_ns: now, first_sent_ns: None };
        }
        scanner.feed(piece, |event| {
            if !*seen {
                *seen = true;
                counts.ttft.record(now.saturating_sub(*sent_ns));
            }
            match event {
                Event::Stamped(stamp) => {
                    *events += 1;
                    counts.events += 1;
                    let delay = if *is_beside { &mut counts.delay_beside } else { &mut counts.delay };
                    delay.record(now.saturating_sub(stamp));
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
            let mut counts = Counts {
                delay: Durations::new(),
                delay_beside: Durations::new(),
                ttft: Durations::new(),
                events: 0,
                lumps: 0,
            };
            for (at, stamps_ms) in (100..).zip(reads_ms) {
                for stamp_ms in *stamps_ms {
                    let piece = format!("data: {{\"x_sent_ns\":{}}}\n\n", stamp_ms * MS);
                    stream.take(piece.as_bytes(), at * MS, &mut counts);
                }
            }
            assert_eq!(counts.lumps, lumps, "{name}");
        }
    }
}
