//! What all fuzz targets share: the gateway's pure layers, and ways to cut input into pieces.
//!
//! A target asserts what must hold for any input, against a reader of its own that is as plain as can be and reads the
//! whole input at once. That nothing panics is the least of it.

#[path = "../../../src/base/mod.rs"]
pub mod base;
#[path = "../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../src/wire/mod.rs"]
pub mod wire;

pub mod head;

/// Numbers that follow from the input, so that a finding can be repeated and a seed stays a plain file.
pub struct Dice(u64);

impl Dice {
    /// Dice thrown by `data`.
    pub fn of(data: &[u8]) -> Dice {
        // FNV-1a.
        Dice(
            data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)),
        )
    }

    /// 0 up to, not including, `sides`; `sides` is at least 1.
    pub fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len())]
    }
}

/// Several ways to cut `data`: byte by byte if it is short, in two, and in many pieces.
pub fn cuts(data: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut dice = Dice::of(data);
    let mut ways = Vec::new();
    if data.len() <= 256 {
        ways.push(data.chunks(1).collect());
    }
    for _ in 0..2 {
        let (first, rest) = data.split_at(dice.roll(data.len() + 1));
        ways.push(vec![first, rest]);
        let mut pieces = Vec::new();
        let longest = 1 + dice.roll(data.len() / 2 + 1);
        let mut rest = data;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + dice.roll(longest)).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        ways.push(pieces);
    }
    ways
}

/// Some places within `data` to end it at: all if it is short, else its line ends and a few others.
pub fn ends(data: &[u8]) -> Vec<usize> {
    if data.len() <= 48 {
        return (0..data.len()).collect();
    }
    let mut dice = Dice::of(data);
    let mut ends: Vec<usize> = (0..8).map(|_| dice.roll(data.len())).collect();
    let line_ends = data.iter().enumerate().filter(|(_, byte)| matches!(byte, b'\r' | b'\n')).map(|(at, _)| at);
    ends.extend(line_ends.take(16).flat_map(|at| [at, at + 1]).filter(|at| *at < data.len()));
    ends
}
