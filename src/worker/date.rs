//! The `date` line of answers, made anew once a second.
//!
//! Lives on: every worker, one each.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use crate::base::clock::{Clock, Instant, UnixTime};

const LINE_BYTES: usize = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".len();

/// A line that is right to the second.
#[derive(Debug)]
pub struct DateLine {
    /// From then on it has to be made anew.
    due: Cell<Instant>,
    line: Cell<[u8; LINE_BYTES]>,
}

impl Default for DateLine {
    fn default() -> DateLine {
        DateLine { due: Cell::default(), line: Cell::new([b' '; LINE_BYTES]) }
    }
}

impl DateLine {
    /// Appends the line.
    pub fn write(&self, clock: &Clock, out: &mut Vec<u8>) {
        let now = clock.now();
        if now >= self.due.get() {
            let unix = clock.unix();
            self.line.set(line(unix));
            self.due.set(now + Duration::from_micros(1_000_000 - unix.0 % 1_000_000));
        }
        out.extend_from_slice(&self.line.get());
    }
}

fn line(at: UnixTime) -> [u8; LINE_BYTES] {
    let mut line = [b' '; LINE_BYTES];
    // Beyond the year 9999 the format has no room; the clock is wrong then, and any date as good as another.
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at.0 / 1_000_000 % 253_402_300_800));
    line[..6].copy_from_slice(b"date: ");
    line[6..LINE_BYTES - 2].copy_from_slice(date.as_bytes());
    line[LINE_BYTES - 2..].copy_from_slice(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_has_the_form_that_http_wants() {
        // RFC 9110 §5.6.7 has the first.
        for (seconds, date) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (1_709_208_000, "Thu, 29 Feb 2024 12:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (253_402_300_800, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            let line = line(UnixTime(seconds * 1_000_000 + 999_999));
            assert_eq!(String::from_utf8_lossy(&line), format!("date: {date}\r\n"), "{seconds}");
        }
        assert!(line(UnixTime(u64::MAX)).starts_with(b"date: "));
    }

    #[test]
    fn the_line_is_kept_to_the_end_of_its_second() {
        let (clock, date) = (Clock::new(), DateLine::default());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        date.write(&clock, &mut first);
        let due = date.due.get();
        assert!(due - clock.now() <= Duration::from_secs(1));
        date.write(&clock, &mut second);
        assert!(date.due.get() > due || first == second);
        date.due.set(Instant(0));
        date.line.set([b'x'; LINE_BYTES]);
        date.write(&clock, &mut second);
        assert!(second.ends_with(b" GMT\r\n"), "made anew");
    }
}
