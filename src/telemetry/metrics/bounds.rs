//! Where the buckets of histograms end.

use super::histogram::Bounds;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Whole exchanges: from a refusal to half an hour of thinking.
pub const DURATION_BOUNDS: &Bounds = &[
    ("0.001", MS),
    ("0.0025", 2_500_000),
    ("0.005", 5 * MS),
    ("0.01", 10 * MS),
    ("0.025", 25 * MS),
    ("0.05", 50 * MS),
    ("0.1", 100 * MS),
    ("0.25", 250 * MS),
    ("0.5", 500 * MS),
    ("1.0", SECOND),
    ("2.5", 2_500 * MS),
    ("5.0", 5 * SECOND),
    ("10.0", 10 * SECOND),
    ("30.0", 30 * SECOND),
    ("60.0", 60 * SECOND),
    ("120.0", 120 * SECOND),
    ("300.0", 300 * SECOND),
    ("600.0", 600 * SECOND),
    ("1800.0", 1_800 * SECOND),
];

/// What the gateway adds: tens of microseconds, or something is wrong.
pub const ADDED_BOUNDS: &Bounds = &[
    ("1e-05", 10_000),
    ("2.5e-05", 25_000),
    ("5e-05", 50_000),
    ("0.0001", 100_000),
    ("0.00025", 250_000),
    ("0.0005", 500_000),
    ("0.001", MS),
    ("0.0025", 2_500_000),
    ("0.005", 5 * MS),
    ("0.01", 10 * MS),
    ("0.025", 25 * MS),
    ("0.05", 50 * MS),
    ("0.1", 100 * MS),
    ("0.3", 300 * MS),
    ("1.0", SECOND),
];

/// First tokens.
pub const TTFT_BOUNDS: &Bounds = &[
    ("0.01", 10 * MS),
    ("0.025", 25 * MS),
    ("0.05", 50 * MS),
    ("0.1", 100 * MS),
    ("0.15", 150 * MS),
    ("0.25", 250 * MS),
    ("0.4", 400 * MS),
    ("0.6", 600 * MS),
    ("1.0", SECOND),
    ("1.5", 1_500 * MS),
    ("2.5", 2_500 * MS),
    ("4.0", 4 * SECOND),
    ("6.0", 6 * SECOND),
    ("10.0", 10 * SECOND),
    ("20.0", 20 * SECOND),
    ("60.0", 60 * SECOND),
    ("120.0", 120 * SECOND),
];

/// Between two events of a stream.
pub const GAP_BOUNDS: &Bounds = &[
    ("0.0001", 100_000),
    ("0.001", MS),
    ("0.0025", 2_500_000),
    ("0.005", 5 * MS),
    ("0.01", 10 * MS),
    ("0.02", 20 * MS),
    ("0.03", 30 * MS),
    ("0.05", 50 * MS),
    ("0.075", 75 * MS),
    ("0.1", 100 * MS),
    ("0.15", 150 * MS),
    ("0.25", 250 * MS),
    ("0.5", 500 * MS),
    ("1.0", SECOND),
    ("2.5", 2_500 * MS),
    ("5.0", 5 * SECOND),
    ("10.0", 10 * SECOND),
    ("30.0", 30 * SECOND),
];
