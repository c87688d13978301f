//! Histograms as JSON, in microseconds.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Durations in nanoseconds, three digits, up to ten minutes.
#[derive(Debug, Clone)]
pub struct Durations(Histogram<u64>);

impl Durations {
    /// An empty one.
    pub fn new() -> Self {
        // The bounds are constants within hdrhistogram's range.
        Durations(Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds are sound"))
    }

    /// Counts one duration; longer ones count as ten minutes.
    pub fn record(&mut self, duration_ns: u64) {
        self.0.saturating_record(duration_ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Quantiles, mean and maximum in microseconds; null where nothing was counted.
    pub fn to_json(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let quantile = |q: f64| us(self.0.value_at_quantile(q) as f64);
        json!({
            "count": self.0.len(),
            "mean_us": us(self.0.mean()),
            "p50_us": quantile(0.50),
            "p90_us": quantile(0.90),
            "p99_us": quantile(0.99),
            "p999_us": quantile(0.999),
            "max_us": us(self.0.max() as f64),
        })
    }
}

fn us(nanoseconds: f64) -> f64 {
    (nanoseconds / 10.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_microseconds() {
        let mut durations = Durations::new();
        assert_eq!(durations.to_json(), Value::Null);
        for us in 1..=1000 {
            durations.record(us * 1000);
        }
        let summary = durations.to_json();
        for (name, expected) in [("p50_us", 500.0), ("p99_us", 990.0), ("p999_us", 999.0), ("max_us", 1000.0)] {
            let got = summary[name].as_f64().unwrap();
            assert!((got - expected).abs() <= expected * 0.002, "{name}: {got}");
        }
        assert_eq!(summary["count"], 1000);
    }
}
