//! The count of HTTP/2 frames that carry nothing: the same however the connection is cut, and that of a reader who has all
//! of it at once.
#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use ringway_fuzz::base::clock::Instant;
use ringway_fuzz::cuts;
use ringway_fuzz::wire::http2::{Census, Flood};

/// In which an empty bucket is filled.
const REFILL_NS: u64 = 10_000_000_000;

fuzz_target!(|data: &[u8]| {
    // How many are allowed, and how far the clock goes between two that count.
    let [max, step, rest @ ..] = data else { return };
    let max = u32::from(*max);
    let tick = u64::from(*step) * u64::from(*step) * 1_000_000;
    let counted = count(rest);

    let whole = watch(max, 0, &[rest]);
    assert_eq!(whole, (counted.min(max + 1), if counted > max { Err(Flood) } else { Ok(()) }));
    for pieces in cuts(rest) {
        assert_eq!(watch(max, 0, &pieces), whole);
    }

    let timed = watch(max, tick, &[rest]);
    for pieces in cuts(rest) {
        assert_eq!(watch(max, tick, &pieces), timed);
    }
    // Time lets more through, but no more than it fills.
    let (seen, verdict) = timed;
    let passed = u64::from(seen) - u64::from(verdict.is_err());
    let passed_ns = tick * u64::from(seen.saturating_sub(1));
    assert!(passed >= u64::from(counted.min(max)));
    assert!(passed <= u64::from(max) + passed_ns * u64::from(max) / REFILL_NS, "{passed} of {max} in {passed_ns} ns");
    assert_eq!(verdict.is_ok(), passed == u64::from(counted));
});

/// How often the clock was asked, which it is for each frame that counts, and what was said.
fn watch(max: u32, tick: u64, pieces: &[&[u8]]) -> (u32, Result<(), Flood>) {
    let mut census = Census::new(max);
    let asked = Cell::new(0);
    let now = || {
        asked.set(asked.get() + 1);
        Instant(1 + tick * u64::from(asked.get() - 1))
    };
    let verdict = pieces.iter().try_for_each(|piece| census.see(piece, now));
    (asked.get(), verdict)
}

/// The frames that count, of those whose header is there.
fn count(mut bytes: &[u8]) -> u32 {
    let mut count = 0;
    while let [high, middle, low, kind, flags, _, _, _, _, rest @ ..] = bytes {
        let len = usize::from(*high) * 65_536 + usize::from(*middle) * 256 + usize::from(*low);
        let is_flagged = flags & 1 == 1;
        count += u32::from(match kind {
            0 => len == 0 && !is_flagged,
            4 | 6 => !is_flagged,
            9 => len == 0,
            1 | 5 | 7 | 8 => false,
            _ => true,
        });
        bytes = rest.get(len..).unwrap_or_default();
    }
    count
}
