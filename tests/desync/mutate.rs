//! One message made of others: bytes, lines, blanks, line ends, framing, chunks, pairs.

use super::dice::Dice;

/// A longer input only costs time.
pub const BYTES_MAX: usize = 4096;

/// What messages are made of.
pub struct Stock {
    pub seeds: Vec<Vec<u8>>,
    pub tokens: Vec<Vec<u8>>,
    /// Whole lines that frame a message, or seem to.
    pub framings: Vec<Vec<u8>>,
    /// Makes a message that is sound.
    pub compose: fn(&Stock, &mut Dice) -> Vec<u8>,
}

/// Bytes at which readers part ways.
const ODD: &[u8] = b"\0\x01\t\n\x0b\x0c\r\x1f \"#%'(),/:;<=>?@[\\]{|}\x7f\x80\x85\xa0\xc3\xff0159AFXafx+-_.*";
const LINE_ENDS: &[&[u8]] = &[
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\r\n ",
    b"\r\n\t",
    b"\r\n \r\n",
    b"\n\n",
    b"\r\n\r\n",
    b"\0\r\n",
    b" \r\n",
    b"\x0b\r\n",
    b"",
    b"\x85",
];
const BLANKS: &[&[u8]] = &[b" ", b"\t", b"  ", b" \t", b"\x0b", b"\x0c", b"\r\n ", b"\xa0", b"\0", b"", b"\r", b"\n "];
const SIZES: &[&[u8]] = &[
    b"0",
    b"00",
    b"1",
    b"5",
    b"05",
    b"26",
    b"+5",
    b"-1",
    b"0x5",
    b"5 ",
    b" 5",
    b"5\t",
    b"5;",
    b"5;a",
    b"5;a=b",
    b"5;a=\"",
    b"5;a=\"\r\n",
    b"5;\n",
    b"5\n",
    b"5\r",
    b"5_0",
    b"5,5",
    b"5.0",
    b"5h",
    b"g",
    b"ffffffffffffffff",
    b"10000000000000005",
    b"00000000000000000005",
    b"8000000000000000",
    b"7fffffff",
    b"100000005",
    b"fffffff0",
    b"0;",
    b"0 ",
    b"0\n",
    b"0\r\n\r\n",
];

/// Input number `input` of `part`.
pub fn input(stock: &Stock, seed: u64, part: u64, input: u64) -> Vec<u8> {
    let mut dice = Dice::of(seed, part, input);
    // Most have one fault or few: what is broken in many places is refused for the first.
    let (mut bytes, times) = if dice.one_in(2) {
        ((stock.compose)(stock, &mut dice), *dice.pick(&[0, 0, 1, 1, 1, 2, 3]))
    } else {
        (dice.pick(&stock.seeds).clone(), *dice.pick(&[1, 1, 1, 2, 2, 3, 4, 6]))
    };
    for _ in 0..times {
        mutate(&mut bytes, stock, &mut dice);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn mutate(bytes: &mut Vec<u8>, stock: &Stock, dice: &mut Dice) {
    match dice.roll(20) {
        0 => {
            let at = dice.roll(bytes.len() + 1);
            let odd = *dice.pick(ODD);
            bytes.insert(at, odd);
        }
        1 if !bytes.is_empty() => {
            let at = dice.roll(bytes.len());
            let odd = *dice.pick(ODD);
            bytes[at] = if dice.one_in(3) { dice.byte() } else { odd };
        }
        2 if !bytes.is_empty() => {
            let at = dice.roll(bytes.len());
            bytes[at] ^= 1 << dice.roll(8);
        }
        3 if !bytes.is_empty() => {
            let at = dice.roll(bytes.len());
            let most = if dice.one_in(4) { 40 } else { 2 };
            let end = (at + 1 + dice.roll(most)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let token = dice.pick(&stock.tokens).clone();
            let at = dice.roll(bytes.len() + 1);
            bytes.splice(at..at, token);
        }
        5 => {
            // At the head of a line, where a field or a size begins.
            let token = dice.pick(&stock.tokens).clone();
            let at = line_start(bytes, dice);
            bytes.splice(at..at, token);
        }
        6 | 7 => {
            let mut line = dice.pick(&stock.framings).clone();
            if dice.one_in(6) {
                let at = dice.roll(line.len() + 1);
                line.insert(at, *dice.pick(ODD));
            }
            let at = line_start(bytes, dice);
            bytes.splice(at..at, line);
        }
        8 => {
            let (start, end) = line(bytes, dice);
            let copy = bytes[start..end].to_vec();
            let at = line_start(bytes, dice);
            bytes.splice(at..at, copy);
        }
        9 => {
            let (start, end) = line(bytes, dice);
            bytes.drain(start..end);
        }
        10 => {
            let (start, end) = line(bytes, dice);
            let line: Vec<u8> = bytes.drain(start..end).collect();
            let at = line_start(bytes, dice);
            bytes.splice(at..at, line);
        }
        11 => {
            let ends: Vec<usize> = memchr::memmem::find_iter(bytes, b"\r\n").collect();
            if !ends.is_empty() {
                let new = *dice.pick(LINE_ENDS);
                if dice.one_in(8) {
                    // Throughout.
                    for at in ends.into_iter().rev() {
                        bytes.splice(at..at + 2, new.iter().copied());
                    }
                } else {
                    let at = *dice.pick(&ends);
                    bytes.splice(at..at + 2, new.iter().copied());
                }
            }
        }
        12 => {
            let places: Vec<usize> =
                (0..bytes.len()).filter(|at| matches!(bytes[*at], b' ' | b':' | b',' | b';')).collect();
            if !places.is_empty() {
                let at = *dice.pick(&places);
                let at = at + usize::from(bytes[at] != b' ' && dice.one_in(2));
                let end = at + usize::from(bytes.get(at) == Some(&b' ') && dice.one_in(2));
                bytes.splice(at..end, dice.pick(BLANKS).iter().copied());
            }
        }
        13 | 14 => number(bytes, dice),
        15 => {
            // The head of one, the tail of another.
            let other = dice.pick(&stock.seeds);
            let (at, from) = if dice.one_in(2) {
                (dice.roll(bytes.len() + 1), dice.roll(other.len() + 1))
            } else {
                (line_start(bytes, dice), line_start(other, dice))
            };
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        16 => {
            let other = dice.pick(&stock.seeds);
            bytes.extend_from_slice(other);
        }
        17 => {
            // One within another.
            let other = dice.pick(&stock.seeds);
            let at = line_start(bytes, dice);
            bytes.splice(at..at, other.iter().copied());
        }
        18 => {
            let (start, end) = line(bytes, dice);
            for byte in &mut bytes[start..end] {
                if byte.is_ascii_alphabetic() && dice.one_in(2) {
                    *byte ^= 0x20;
                }
            }
        }
        _ => {
            let (start, end) = line(bytes, dice);
            if let Some(colon) = memchr::memchr(b':', &bytes[start..end]) {
                // A name with another's value.
                let (other_start, other_end) = line(bytes, dice);
                let other = bytes[other_start..other_end].to_vec();
                let value = memchr::memchr(b':', &other).map_or(&other[..], |colon| &other[colon..]).to_vec();
                bytes.splice(start + colon..end, value);
            } else if !bytes.is_empty() {
                let at = dice.roll(bytes.len());
                let piece = bytes[at..(at + 1 + dice.roll(64)).min(bytes.len())].to_vec();
                let piece = piece.repeat(1 + dice.roll(4));
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes.truncate(2 * BYTES_MAX);
}

/// Another number in the place of one: one more or less, in another notation, or of another size.
fn number(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at].is_ascii_digit() && (*at == 0 || !bytes[at - 1].is_ascii_alphanumeric()))
        .collect();
    if starts.is_empty() {
        return;
    }
    let at = *dice.pick(&starts);
    let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let text = std::str::from_utf8(&bytes[at..at + digits]).unwrap_or_default();
    let new = match u64::from_str_radix(text, 16) {
        Ok(number) if dice.one_in(2) => {
            let number = match dice.roll(4) {
                0 => number.wrapping_add(1),
                1 => number.wrapping_sub(1),
                2 => number.wrapping_add(1 << 32),
                _ => dice.roll(48) as u64,
            };
            match dice.roll(4) {
                0 => format!("{number:X}"),
                1 => format!("0{number:x}"),
                2 => format!("{number}"),
                _ => format!("{number:x}"),
            }
            .into_bytes()
        }
        _ => dice.pick(SIZES).to_vec(),
    };
    bytes.splice(at..at + digits, new);
}

fn line_start(bytes: &[u8], dice: &mut Dice) -> usize {
    let mut starts = vec![0, bytes.len()];
    starts.extend(memchr::memchr_iter(b'\n', bytes).map(|at| at + 1));
    *dice.pick(&starts)
}

/// Where a line begins, and where the next does.
fn line(bytes: &[u8], dice: &mut Dice) -> (usize, usize) {
    let start = line_start(bytes, dice);
    let end = memchr::memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |at| start + at + 1);
    (start, end)
}

/// The tokens of a dictionary as libFuzzer reads it.
pub fn dictionary(text: &str) -> Vec<Vec<u8>> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix('"'));
    lines
        .map(|line| {
            let (mut token, mut rest) = (Vec::new(), line.as_bytes());
            while let [first, after @ ..] = rest {
                (rest, token) = match (first, after) {
                    (b'\\', [b'x', digits @ ..]) if digits.len() >= 2 => {
                        let byte =
                            std::str::from_utf8(&digits[..2]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                        token.push(byte.expect("two digits"));
                        (&digits[2..], token)
                    }
                    (b'\\', [escaped, after @ ..]) => {
                        token.push(*escaped);
                        (after, token)
                    }
                    _ => {
                        token.push(*first);
                        (after, token)
                    }
                };
            }
            token
        })
        .collect()
}
