//! Which of several equal endpoints: two at random, the one with fewer outstanding requests.
//!
//! Two choices keep the worst load exponentially lower than one random choice, and do not send every core to
//! the same least-loaded endpoint as a full comparison would (Mitzenmacher 2001).

use crate::base::EndpointId;

/// Picks one of `endpoints` that is not `excluded`; `None` if there is none. `random` is 64 uniform bits.
pub fn two_choices(
    endpoints: &[EndpointId],
    excluded: impl Fn(EndpointId) -> bool,
    outstanding: impl Fn(EndpointId) -> u32,
    random: u64,
) -> Option<EndpointId> {
    let left = endpoints.iter().filter(|endpoint| !excluded(**endpoint)).count() as u64;
    let nth = |n: u64| endpoints.iter().copied().filter(|endpoint| !excluded(*endpoint)).nth(n as usize);
    match left {
        0 => None,
        1 => nth(0),
        _ => {
            let first = ((random & 0xffff_ffff) * left) >> 32;
            // Drawn from the others, so the two always differ.
            let second = ((random >> 32) * (left - 1)) >> 32;
            let second = if second >= first { second + 1 } else { second };
            let (first, second) = (nth(first)?, nth(second)?);
            Some(if outstanding(second) < outstanding(first) { second } else { first })
        }
    }
}

/// A small generator of random bits for choices that need no secrecy (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole sequence follows from `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: [EndpointId; 4] = [EndpointId(0), EndpointId(1), EndpointId(2), EndpointId(3)];

    #[test]
    fn the_less_loaded_of_two_is_taken_and_the_most_loaded_never() {
        let mut rng = Rng::new(7);
        let load = [5, 1, 9, 3];
        let mut taken = [0; 4];
        for _ in 0..3000 {
            let chosen = two_choices(&FOUR, |_| false, |endpoint| load[usize::from(endpoint.0)], rng.bits()).unwrap();
            taken[usize::from(chosen.0)] += 1;
        }
        // Six pairs, each as likely: the lightest wins three of them, the heaviest none.
        assert_eq!(taken[2], 0, "{taken:?}");
        assert!(taken[1] > 1300 && taken[3] > 800 && taken[0] > 350, "{taken:?}");
    }

    #[test]
    fn equal_load_is_spread_evenly_and_what_was_tried_is_left_out() {
        let mut rng = Rng::new(11);
        let mut taken = [0_i32; 4];
        for _ in 0..4000 {
            let chosen = two_choices(&FOUR, |endpoint| endpoint.0 == 2, |_| 0, rng.bits()).unwrap();
            taken[usize::from(chosen.0)] += 1;
        }
        assert_eq!(taken[2], 0);
        for at in [0, 1, 3] {
            assert!((taken[at] - 1333).abs() < 200, "{taken:?}");
        }
        assert_eq!(two_choices(&FOUR, |endpoint| endpoint.0 != 1, |_| 0, rng.bits()), Some(EndpointId(1)));
        assert_eq!(two_choices(&FOUR, |_| true, |_| 0, rng.bits()), None);
        assert_eq!(two_choices(&[], |_| false, |_| 0, rng.bits()), None);
    }
}
