//! What a gateway says of itself at its admin listener ([`super::Config::admin`]).

use std::thread;
use std::time::Instant;

use super::{Client, Gateway, PATIENCE};

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// With `_bucket`, `_sum` and the like.
    pub name: String,
    /// In order.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The sum of all series of the metric `name` that have `labels`; 0 if there is none.
pub fn metric(gateway: &Gateway, name: &str, labels: &[(&str, &str)]) -> f64 {
    sum(&scrape(gateway), name, labels)
}

/// Waits until [`metric`] is `value`. An exchange is counted when it is over, which its client may see a little earlier.
///
/// # Panics
/// If it is not within [`PATIENCE`].
pub fn metric_is(gateway: &Gateway, name: &str, labels: &[(&str, &str)], value: f64) {
    scrape_when(gateway, &format!("{name}{labels:?} is {value}"), |samples| sum(samples, name, labels) == value);
}

/// Waits until nothing is under way: no request, at no endpoint, and every connection to one is idle or closed.
///
/// # Panics
/// If something leaks for longer than [`PATIENCE`].
pub fn until_at_rest(gateway: &Gateway) {
    scrape_when(gateway, "nothing is under way", |samples| {
        let all = |name| sum(samples, name, &[]);
        all("ringway_requests_in_flight") == 0.0
            && all("ringway_upstream_requests_outstanding") == 0.0
            && all("ringway_upstream_connections_open") == all("ringway_upstream_connections_idle")
    });
}

/// As [`metric`], of a scrape that was taken before.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&Sample| labels.iter().all(|(label, value)| sample.label(label) == Some(value));
    samples.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value).sum()
}

/// All samples.
pub fn scrape(gateway: &Gateway) -> Vec<Sample> {
    samples(&ask(gateway, "/metrics").1)
}

/// Scrapes until `done` says yes.
///
/// # Panics
/// If it does not within [`PATIENCE`].
pub fn scrape_when(gateway: &Gateway, what: &str, done: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
    let start = Instant::now();
    loop {
        let text = ask(gateway, "/metrics").1;
        let samples = samples(&text);
        if done(&samples) {
            return samples;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{text}");
        thread::yield_now();
    }
}

/// Status and body of what the admin listener has at `path`.
pub fn ask(gateway: &Gateway, path: &str) -> (u16, String) {
    let response = Client::connect(gateway.admin()).request("GET", path, &[("connection", "close")], b"");
    (response.head.status, response.text())
}

/// Reads Prometheus text, comments left out.
pub fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

fn sample(line: &str) -> Sample {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line:?}"));
    let value = value.parse().unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let Some((name, rest)) = head.split_once('{') else {
        return Sample { name: head.to_owned(), labels: Vec::new(), value };
    };
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("open labels: {line:?}"));
    let mut labels = Vec::new();
    while let Some((label, after)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, other)) => text.push(other),
                    None => panic!("open escape: {line:?}"),
                },
                Some((at, '"')) => break at,
                Some((_, other)) => text.push(other),
                None => panic!("open quotes: {line:?}"),
            }
        };
        labels.push((label.to_owned(), text));
        rest = after[end + 1..].trim_start_matches(',');
    }
    Sample { name: name.to_owned(), labels, value }
}
