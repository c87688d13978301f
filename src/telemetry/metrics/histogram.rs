//! How long things took: exact counts in fixed buckets, and quantiles to within a hundredth.
//!
//! Two views of the same values. The fixed buckets add up over processes and are what dashboards compute with; but between
//! two bounds they know nothing. So the values are counted on a fine scale too, as an HDR histogram does: 128 steps to
//! each doubling, which makes a quantile read off it at most 1/128 (0.79 %) larger than the true one, and never smaller.
//!
//! Memory: a doubling that no value fell into takes a pointer, one that did 1 KiB ([`Histogram::bytes`]). What a gateway
//! measures of one thing mostly lies within ten doublings (a factor of a thousand).

use std::sync::OnceLock;
use std::time::Duration;

use super::count::Count;

/// Steps to each doubling; also the values below which every nanosecond has a step of its own.
const STEPS: usize = 128;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Values from here on count as the greatest below it: 39 hours in nanoseconds.
const VALUE_MAX: u64 = 1 << 47;
/// Doublings from [`STEPS`] to [`VALUE_MAX`], and one for what is below.
const OCTAVES: usize = (VALUE_MAX.trailing_zeros() - STEPS_LOG2) as usize + 1;

/// The upper bounds of a family's fixed buckets: as they are written, and in nanoseconds. A value that equals a bound is
/// within it.
pub type Bounds = [(&'static str, u64)];

/// The most bounds that a family may have.
pub const BOUNDS_MAX: usize = 20;

type Octave = Box<[Count; STEPS]>;

/// One writer's values.
///
/// Lives on: the worker that records; the control thread reads. Nothing is locked, so that a reader may see a value in
/// one view and not yet in the other.
#[derive(Debug)]
pub struct Histogram {
    octaves: [OnceLock<Octave>; OCTAVES],
    buckets: [Count; BOUNDS_MAX + 1],
    sum: Count,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { octaves: [const { OnceLock::new() }; OCTAVES], buckets: Default::default(), sum: Count::default() }
    }
}

/// Where a value is counted: which doubling, and which step of it.
fn place(value: u64) -> (usize, usize) {
    let value = value.min(VALUE_MAX - 1);
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(STEPS_LOG2);
    // The bits below the leading one; in the lowest doubling there is none to be left out.
    let step = value >> octave.saturating_sub(1);
    (octave as usize, step as usize % STEPS)
}

/// The greatest value that is counted there.
fn highest(octave: usize, step: usize) -> u64 {
    match octave {
        0 => step as u64,
        _ => (((STEPS + step + 1) as u64) << (octave - 1)) - 1,
    }
}

impl Histogram {
    /// Counts `value`, of a family with `bounds`.
    pub fn record(&self, bounds: &Bounds, value: Duration) {
        let value = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        let (octave, step) = place(value);
        self.octaves[octave].get_or_init(|| Box::new([const { Count::new() }; STEPS]))[step].add(1);
        let bucket = bounds.partition_point(|(_, bound)| *bound < value);
        self.buckets[bucket].add(1);
        self.sum.add(value);
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        let taken = self.octaves.iter().filter(|octave| octave.get().is_some()).count();
        size_of::<Histogram>() + taken * size_of::<[Count; STEPS]>()
    }
}

/// Several writers' values in fixed buckets, added up.
#[derive(Debug, Default)]
pub struct Total {
    buckets: [u64; BOUNDS_MAX + 1],
    sum: u64,
}

impl Total {
    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Total::default();
    }

    /// Adds what one writer has counted so far.
    pub fn add(&mut self, histogram: &Histogram) {
        self.buckets.iter_mut().zip(&histogram.buckets).for_each(|(own, count)| *own += count.get());
        self.sum = self.sum.wrapping_add(histogram.sum.get());
    }

    /// Values in the first `at` buckets and in this one.
    pub fn up_to(&self, at: usize) -> u64 {
        self.buckets[..=at].iter().sum()
    }

    /// All values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum in nanoseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }
}

/// Room in which several writers' values are added up on the fine scale: the doublings that any value fell into.
#[derive(Debug, Default)]
pub struct Quantiles(Vec<(usize, [u64; STEPS])>);

impl Quantiles {
    /// For each of `quantiles`, 0.0 to 1.0 and ascending, the value in nanoseconds that this share of all values does not
    /// exceed, by the nearest-rank method; at most 1/128 above the true one. `None` without values.
    pub fn of<'h, const N: usize>(
        &mut self,
        histograms: impl Iterator<Item = &'h Histogram> + Clone,
        quantiles: [f64; N],
    ) -> Option<[u64; N]> {
        self.0.clear();
        let mut count = 0;
        for at in 0..OCTAVES {
            let mut own: Option<[u64; STEPS]> = None;
            for octave in histograms.clone().filter_map(|histogram| histogram.octaves[at].get()) {
                let own = own.get_or_insert([0; STEPS]);
                own.iter_mut().zip(octave.iter()).for_each(|(own, count)| *own += count.get());
            }
            if let Some(own) = own {
                count += own.iter().sum::<u64>();
                self.0.push((at, own));
            }
        }
        let mut steps = self.0.iter().flat_map(|(at, own)| own.iter().enumerate().map(|(step, n)| (*at, step, *n)));
        let (mut seen, mut value) = (0, None);
        let mut found = [0; N];
        for (found, quantile) in found.iter_mut().zip(quantiles) {
            let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
            while seen < rank {
                let (octave, step, n) = steps.next()?;
                seen += n;
                value = Some(highest(octave, step));
            }
            *found = value?;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &Bounds = &[("1e-06", 1_000), ("0.001", 1_000_000), ("1.0", 1_000_000_000)];

    fn recorded(values: impl IntoIterator<Item = u64>) -> Histogram {
        let histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.record(BOUNDS, Duration::from_nanos(value)));
        histogram
    }

    fn total(histograms: &[Histogram]) -> Total {
        let mut total = Total::default();
        histograms.iter().for_each(|histogram| total.add(histogram));
        total
    }

    fn quantile(histograms: &[Histogram], quantile: f64) -> Option<u64> {
        Quantiles::default().of(histograms.iter(), [quantile]).map(|[value]| value)
    }

    #[test]
    fn every_value_lies_in_its_step_and_steps_do_not_overlap() {
        let mut below = None;
        for octave in 0..OCTAVES {
            for step in 0..STEPS {
                let highest = highest(octave, step);
                let lowest = below.map_or(0, |below: u64| below + 1);
                assert_eq!(place(lowest), (octave, step), "{lowest}");
                assert_eq!(place(highest), (octave, step), "{highest}");
                assert!(highest - lowest <= lowest / 128, "{lowest} to {highest}");
                below = Some(highest);
            }
        }
        assert_eq!(below, Some(VALUE_MAX - 1));
        assert_eq!(place(u64::MAX), (OCTAVES - 1, STEPS - 1));
    }

    #[test]
    fn a_value_at_a_bound_is_within_it_and_one_past_is_not() {
        let total = total(&[recorded([0, 1_000, 1_001, 1_000_000, 1_000_001, 1_000_000_000, 1_000_000_001, u64::MAX])]);
        assert_eq!([0, 1, 2, 3].map(|at| total.up_to(at)), [2, 4, 6, 8]);
        assert_eq!(total.count(), 8);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values_to_within_a_hundredth() {
        let mut seed = 7_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        let uniform: Vec<u64> = (0..10_000).map(|_| random() % 1_000_000).collect();
        let long_tailed: Vec<u64> = (0..10_000).map(|_| 50_000 + (1 << (random() % 30))).collect();
        let two_humps: Vec<u64> =
            (0..1_000).map(|at| if at < 990 { 80_000 + at } else { 3_000_000_000 + at }).collect();
        for (name, mut values) in [
            ("one", vec![42]),
            ("two", vec![1, 1_000_000]),
            ("equal", vec![123_456; 777]),
            ("zeros", vec![0; 3]),
            ("uniform", uniform),
            ("long tail", long_tailed),
            ("two humps", two_humps),
        ] {
            values.sort_unstable();
            let histogram = [recorded(values.iter().copied())];
            let asked = [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0];
            let told = Quantiles::default().of(histogram.iter(), asked).unwrap();
            for (asked, told) in asked.into_iter().zip(told) {
                let rank = ((asked * values.len() as f64).ceil() as usize).max(1);
                let truth = values[rank - 1];
                assert!(told >= truth && told - truth <= truth / 128, "{name} {asked}: {told} for {truth}");
            }
            assert_eq!(total(&histogram).sum(), values.iter().sum::<u64>(), "{name}");
        }
        assert_eq!(quantile(&[recorded([])], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn it_agrees_with_hdrhistogram_at_two_digits() {
        let mut other = hdrhistogram::Histogram::<u64>::new(2).unwrap();
        let values: Vec<u64> = (1..5_000).map(|at| at * at * 37).collect();
        values.iter().for_each(|value| other.record(*value).unwrap());
        let histogram = [recorded(values)];
        for asked in [0.5, 0.9, 0.99, 0.999] {
            let (ours, theirs) = (quantile(&histogram, asked).unwrap(), other.value_at_quantile(asked));
            assert!(ours.abs_diff(theirs) <= theirs / 100, "{asked}: {ours}, {theirs}");
        }
    }

    #[test]
    fn writers_add_up_exactly() {
        let writers = [0, 1, 2].map(|worker| recorded((0..1_000).map(|value| value * 3 + worker)));
        let one = [recorded(0..3_000)];
        let (sum, alone) = (total(&writers), total(&one));
        assert_eq!((sum.count(), sum.sum(), sum.up_to(0)), (3_000, 2_999 * 1_500, 1_001));
        assert_eq!((alone.count(), alone.sum(), alone.up_to(0)), (3_000, 2_999 * 1_500, 1_001));
        for asked in [0.1, 0.5, 0.99] {
            assert_eq!(quantile(&writers, asked), quantile(&one, asked));
        }
    }

    #[test]
    fn memory_is_taken_for_what_was_seen_only() {
        let histogram = Histogram::default();
        assert!(histogram.bytes() < 1024, "{}", histogram.bytes());
        // From 100 µs to 100 ms.
        (100..100_000).for_each(|micros| histogram.record(BOUNDS, Duration::from_micros(micros)));
        assert_eq!(histogram.bytes(), size_of::<Histogram>() + 11 * 1024);
    }
}
