//! W3C trace context (<https://www.w3.org/TR/trace-context/>): whose trace an exchange belongs to. Pure: text in and out.
//!
//! Not here: spans as records of their own, and whether a trace is sampled; that flag is passed on and never obeyed.

/// The length of a `traceparent` of version 00, in bytes.
const LEN: usize = 55;
/// The flags that are passed on: sampled, and that the trace's id is random (level 2).
const FLAGS: u8 = 0b11;
/// The flag of a trace that somebody records.
const SAMPLED: u8 = 1;
/// The most that `tracestate` may hold to be passed on: bytes, over all its lines, and members.
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;

/// An exchange's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace; never zero.
    pub id: u128,
    /// The exchange itself, which is what the endpoint is told as its parent; never zero.
    pub span: u64,
    /// What the client named as its own span; zero if the trace begins here.
    pub parent: u64,
    flags: u8,
}

impl Trace {
    /// A trace that begins here. `random` gives uniform bits.
    pub fn start(sampled: bool, mut random: impl FnMut() -> u64) -> Trace {
        // Zero means "none", and once in 2^64 the bits are just that.
        let id = u128::from(random()) << 64 | u128::from(random());
        Trace { id: id.max(1), span: random().max(1), parent: 0, flags: if sampled { SAMPLED } else { 0 } }
    }

    /// The trace that a client's `traceparent` names, gone on with in a span of our own; `None` if it is not valid.
    ///
    /// Versions to come are read as far as they look like version 00, as the specification asks (§3.3 "versioning").
    pub fn take_over(traceparent: &[u8], mut random: impl FnMut() -> u64) -> Option<Trace> {
        let (known, rest) = traceparent.split_at_checked(LEN)?;
        let dashes = [known[2], known[35], known[52]] == [b'-'; 3];
        let version = number(&known[..2])? as u8;
        let ends = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
        if !dashes || version == 0xff || !ends {
            return None;
        }
        let (id, parent) = (number(&known[3..35])?, number(&known[36..52])? as u64);
        let flags = number(&known[53..])? as u8 & FLAGS;
        (id != 0 && parent != 0).then(|| Trace { id, span: random().max(1), parent, flags })
    }

    /// Appends the field line for the endpoint.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        let mut line = *b"traceparent: 00-________________________________-________________-0_\r\n";
        line[16..32].copy_from_slice(&hex((self.id >> 64) as u64));
        line[32..48].copy_from_slice(&hex(self.id as u64));
        line[49..65].copy_from_slice(&hex(self.span));
        line[67] = b'0' + self.flags;
        out.extend_from_slice(&line);
    }
}

/// True if the lines of a `tracestate` are within what is passed on. What they say is for others to read.
pub fn is_state_passed<'a>(lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut bytes, mut members) = (0, 0);
    for line in lines {
        // The comma that would join it to the one before counts.
        bytes += line.len() + usize::from(members > 0);
        members += line.split(|byte| *byte == b',').count();
        if bytes > STATE_BYTES_MAX || members > STATE_MEMBERS_MAX {
            return false;
        }
    }
    true
}

/// A number of at most 32 hexadecimal digits, all in lower case.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// `bits` as sixteen hexadecimal digits in lower case.
pub fn hex(bits: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&hex_of_half((bits >> 32) as u32).to_be_bytes());
    digits[8..].copy_from_slice(&hex_of_half(bits as u32).to_be_bytes());
    digits
}

/// Eight digits at once: a request's ids are ten times this, and digit by digit it would show.
fn hex_of_half(bits: u32) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut spread = u64::from(bits);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One in each byte that holds ten or more.
    let letters = (spread + 6 * EACH) >> 4 & EACH;
    spread + u64::from(b'0') * EACH + letters * u64::from(b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

    fn taken(text: &str) -> Option<(u128, u64, u8)> {
        let trace = Trace::take_over(text.as_bytes(), || 7)?;
        assert_eq!(trace.span, 7);
        Some((trace.id, trace.parent, trace.flags))
    }

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let whole = Some((ID, PARENT, 1));
        for (text, expected) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", whole),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some((ID, PARENT, 0))),
            // Flags that nobody knows yet are not passed on; the one for random ids is.
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd", whole),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", Some((ID, PARENT, 3))),
            ("00-00000000000000000000000000000001-0000000000000001-00", Some((1, 1, 0))),
            // Versions to come: longer ones go on with a dash.
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", whole),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-will-be", whole),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", whole),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what", None),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-010", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A", None),
            ("0A-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", None),
            ("+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01,00-4bf92f3577b34da6a3ce929d0e0e4736", None),
            ("", None),
        ] {
            assert_eq!(taken(text), expected, "{text}");
        }
    }

    #[test]
    fn a_traceparent_cut_anywhere_or_with_any_other_byte_is_no_panic_and_mostly_none() {
        let whole = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for at in 0..LEN {
            assert_eq!(Trace::take_over(&whole[..at], || 1), None, "{at}");
            for byte in 0..=255 {
                let mut changed = *whole;
                changed[at] = byte;
                let is_hex = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let is_dash = byte == b'-';
                let taken = Trace::take_over(&changed, || 1).is_some();
                assert_eq!(taken, if matches!(at, 2 | 35 | 52) { is_dash } else { is_hex }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn what_is_sent_reads_back_with_our_span_as_the_parent() {
        let given = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for trace in [
            Trace::take_over(given, || 0xabcd).unwrap(),
            Trace::start(true, || u64::MAX),
            Trace::start(false, || 0),
            Trace::start(false, || 0x0123_4567_89ab_cdef),
        ] {
            let mut line = Vec::new();
            trace.write_line(&mut line);
            let value = line.strip_prefix(b"traceparent: ").and_then(|line| line.strip_suffix(b"\r\n")).unwrap();
            let next = Trace::take_over(value, || 1).unwrap();
            assert_eq!((next.id, next.parent, next.flags), (trace.id, trace.span, trace.flags));
        }
        assert_eq!(Trace::start(false, || 0).parent, 0);
    }

    #[test]
    fn a_state_is_passed_up_to_its_bounds() {
        let members = |count: usize| vec!["a=b"; count].join(",");
        for (name, lines, passed) in [
            ("none", vec![], true),
            ("one", vec!["rojo=00f067aa0ba902b7".to_owned()], true),
            ("32 members", vec![members(32)], true),
            ("33 members", vec![members(33)], false),
            ("over two lines", vec![members(30), members(2)], true),
            ("too many over two lines", vec![members(30), members(3)], false),
            ("512 bytes", vec!["x".repeat(512)], true),
            ("513 bytes", vec!["x".repeat(513)], false),
            ("512 with the comma between", vec!["x".repeat(256), "x".repeat(255)], true),
            ("513 with the comma between", vec!["x".repeat(256), "x".repeat(256)], false),
        ] {
            assert_eq!(is_state_passed(lines.iter().map(|line| line.as_bytes())), passed, "{name}");
        }
    }

    #[test]
    fn digits_are_those_of_the_formatter() {
        for at in 0..64 {
            for bits in [1 << at, !(1 << at), 0x0123_4567_89ab_cdef_u64.rotate_left(at)] {
                assert_eq!(std::str::from_utf8(&hex(bits)).unwrap(), format!("{bits:016x}"));
            }
        }
    }
}
