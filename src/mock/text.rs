//! Seeded text: the same seed and prompt give the same words and ids on every run and machine.

use std::fmt::Write as _;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to look random.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1; `bound` must not be 0. Slightly biased, which nobody here minds.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Mixes a prompt into a seed (FNV-1a), so that other questions get other answers.
pub(crate) fn mix(seed: u64, prompt: &[u8]) -> u64 {
    prompt
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Some longer than one byte per character, so that any split of the bytes meets a split character.
const WORDS: &[&str] = &[
    "the",
    "ring",
    "turns",
    "and",
    "each",
    "answer",
    "leaves",
    "when",
    "it",
    "is",
    "ready",
    "a",
    "word",
    "at",
    "time",
    "caf\u{e9}",
    "\u{4f60}\u{597d}",
    "\u{4e16}\u{754c}",
    "\u{1f44b}",
    "na\u{ef}ve",
    "quote\"d",
    "back\\slash",
    "never",
    "two",
    "streams",
    "wait",
    "for",
    "one",
    "clock",
    "here",
];

/// One token of text: a word with a space before it, or exactly `bytes` letters if that is not 0.
pub(crate) fn token(rng: &mut Rng, bytes: u32) -> String {
    if bytes == 0 {
        return format!(" {}", WORDS[rng.below(WORDS.len() as u64) as usize]);
    }
    (0..bytes).map(|_| char::from(b'a' + rng.below(26) as u8)).collect()
}

/// An id: `prefix` and 24 hex digits.
pub(crate) fn id(prefix: &str, rng: &mut Rng) -> String {
    format!("{prefix}{:016x}{:08x}", rng.next(), rng.next() as u32)
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Base64 with padding (RFC 4648 section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_test_vectors_of_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text, "{plain}");
        }
    }

    #[test]
    fn a_seed_decides_text_and_ids() {
        let say = |seed| {
            let mut rng = Rng::new(seed);
            (token(&mut rng, 0), token(&mut rng, 9), id("x-", &mut rng))
        };
        assert_eq!(say(7), say(7));
        assert_ne!(say(7), say(8));
        assert_eq!(say(7).1.len(), 9);
    }
}
