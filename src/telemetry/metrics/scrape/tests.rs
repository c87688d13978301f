//! What workers count comes out exactly, and in bounded pieces.

use super::super::cells::{Meter, SERIES_PER_ROUTE};
use super::*;
use crate::base::clock::UnixTime;
use crate::base::reject::Origin;
use crate::base::{Dialect, EndpointId, ListenerId, ModelId};
use crate::telemetry::{EndedBy, Exchange, Fault, Tokens};

/// The table in the repository.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/metrics.md");

fn names() -> Names {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Names::new(words(&["chat", "none", "quoted\"\\", "*"]), words(&["p/0", "p/1"]), words(&["127.0.0.1:1"]))
}

/// An exchange that took `micros` and was answered by endpoint 0.
fn exchange(model: u16, micros: u64) -> Exchange {
    let at = Instant(5);
    let mut exchange = Exchange::begin(UnixTime(1), at, Dialect::OpenAi, ListenerId(0), ([127, 0, 0, 1], 1).into());
    (exchange.model, exchange.endpoint) = (Some(ModelId(model)), Some(EndpointId(0)));
    (exchange.status, exchange.state, exchange.ended_by) = (200, State::Complete, EndedBy::Completion);
    exchange.timings.end = at + Duration::from_micros(micros);
    exchange
}

fn text(scraper: &mut Scraper, format: Format) -> String {
    let mut scrape = scraper.scrape(format, Facts::default());
    while scrape.step() {}
    scrape.take()
}

/// The value of the one line that begins with `start`.
fn value(text: &str, start: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(start)).collect();
    assert!(lines.len() <= 1, "{start}: {lines:?}");
    lines.first().map(|line| line.rsplit_once(' ').unwrap().1.to_owned())
}

#[test]
fn two_workers_add_up_to_exact_sums() {
    let boards = [(); 2].map(|()| Arc::new(Board::new(1, 2, 10)));
    let meters = boards.clone().map(Meter::new);
    for (at, micros) in [100, 1_000, 1_001, 2_000_000].into_iter().enumerate() {
        let mut exchange = exchange(0, micros);
        exchange.tokens = Tokens { output: Some(7), ..Tokens::default() };
        (exchange.request_bytes, exchange.answer_bytes, exchange.attempts) = (10, 100, 2);
        meters[at % 2].finish(&exchange);
    }
    boards[0].endpoints[1].open.add(3);
    boards[1].endpoints[1].open.add(4);
    boards[1].endpoints[1].open.sub(1);
    boards[0].listeners[0].accepted.add(5);
    let text = text(&mut Scraper::new(boards.to_vec(), names()), Format::Prometheus);
    let route = "{model=\"chat\",endpoint=\"p/0\",dialect=\"openai\",streamed=\"false\"";
    for (start, expected) in [
        (format!("ringway_requests_total{route},status=\"2xx\",state=\"complete\"}}"), "4"),
        (format!("ringway_request_duration_seconds_bucket{route},le=\"0.001\"}}"), "2"),
        (format!("ringway_request_duration_seconds_bucket{route},le=\"0.0025\"}}"), "3"),
        (format!("ringway_request_duration_seconds_bucket{route},le=\"1.0\"}}"), "3"),
        (format!("ringway_request_duration_seconds_bucket{route},le=\"2.5\"}}"), "4"),
        (format!("ringway_request_duration_seconds_bucket{route},le=\"+Inf\"}}"), "4"),
        (format!("ringway_request_duration_seconds_sum{route}}}"), "2.002101000"),
        (format!("ringway_request_duration_seconds_count{route}}}"), "4"),
        (format!("ringway_tokens_total{route},kind=\"output\"}}"), "28"),
        (format!("ringway_request_body_bytes_total{route}}}"), "40"),
        (format!("ringway_answer_body_bytes_total{route}}}"), "400"),
        (format!("ringway_retries_total{route}}}"), "4"),
        ("ringway_upstream_connections_open{endpoint=\"p/1\"}".into(), "6"),
        ("ringway_client_connections_accepted_total{listener=\"127.0.0.1:1\"}".into(), "5"),
        ("ringway_metric_routes".into(), "1"),
    ] {
        assert_eq!(value(&text, &start).as_deref(), Some(expected), "{start}\n{text}");
    }
    // What nobody measured has no line.
    assert_eq!(value(&text, "ringway_ttft_seconds_count"), None);
    assert_eq!(value(&text, "process_open_fds"), None);
}

#[test]
fn each_end_counts_once_by_state_class_origin_and_phase() {
    let board = Arc::new(Board::new(1, 2, 10));
    let meter = Meter::new(board.clone());
    for state in State::ALL {
        for (class, status) in [0, 200, 304, 404, 503].into_iter().enumerate() {
            let mut exchange = exchange(0, 1);
            (exchange.status, exchange.state, exchange.ended_by) = (status, state, EndedBy::Gateway);
            exchange.phase = Phase::ALL[class + 3];
            exchange.fault = Some(Fault { origin: Origin::Upstream, code: "x".into() });
            meter.finish(&exchange);
        }
    }
    let mut answered = exchange(0, 1);
    answered.fault = Some(Fault { origin: Origin::Upstream, code: "upstream_status".into() });
    answered.phase = Phase::Relay;
    meter.finish(&answered);
    let text = text(&mut Scraper::new(vec![board.clone()], names()), Format::Prometheus);
    let states = text.lines().filter(|line| line.starts_with("ringway_requests_total{"));
    assert_eq!(states.filter(|line| line.ends_with(" 1")).count(), 34, "{text}");
    for phase in Phase::ALL {
        let origin = format!("ringway_errors_total{{origin=\"upstream\",phase=\"{}\"}}", phase.as_str());
        let expected = match phase {
            Phase::Relay => 1,
            phase if phase >= Phase::Connect && phase < Phase::Relay => State::ALL.len(),
            _ => 0,
        };
        assert_eq!(value(&text, &origin), Some(expected.to_string()), "{origin}");
    }
    // An answer that says that it is an error is no failure to answer.
    let failures = board.endpoints[0].failures.iter().map(|count| count.get()).sum::<u64>();
    assert_eq!(failures, 35);
    assert_eq!(board.cancelled.iter().map(|count| count.get()).sum::<u64>(), 5);
}

#[test]
fn routes_are_told_apart_up_to_the_bound_and_counted_together_beyond() {
    let boards = [(); 2].map(|()| Arc::new(Board::new(1, 2, 3)));
    let meters = boards.clone().map(Meter::new);
    let mut scraper = Scraper::new(boards.to_vec(), names());
    // The bound is met exactly.
    [0, 1, 3].into_iter().for_each(|model| meters[0].finish(&exchange(model, 1)));
    let before = text(&mut scraper, Format::Prometheus);
    assert_eq!(value(&before, "ringway_metric_routes").as_deref(), Some("3"));
    assert!(!before.contains("endpoint=\"other\""), "{before}");
    // One past it; and a worker that has come to others first is held to the same bound.
    meters[0].finish(&exchange(2, 1));
    meters[1].finish(&exchange(2, 1));
    meters[1].finish(&exchange(0, 1));
    for _ in 0..2 {
        let after = text(&mut scraper, Format::Prometheus);
        let of = |model: &str, endpoint: &str, rest: &str| {
            let start = format!("ringway_requests_total{{model=\"{model}\",endpoint=\"{endpoint}\",{rest}");
            value(&after, &start)
        };
        assert_eq!(of("chat", "p/0", "").as_deref(), Some("2"));
        assert_eq!(of("other", "p/0", "").as_deref(), Some("1"), "the default route");
        assert_eq!(of("model none", "p/0", "").as_deref(), Some("1"));
        assert_eq!(of("other", "other", "dialect=\"other\",streamed=\"other\"").as_deref(), Some("2"));
        assert!(!after.contains("quoted"), "{after}");
        assert_eq!(value(&after, "ringway_metric_routes").as_deref(), Some("4"));
    }
}

#[test]
fn without_a_bound_of_routes_nothing_is_counted() {
    let board = Arc::new(Board::new(1, 2, 0));
    let meter = Meter::new(board.clone());
    assert!(!meter.is_on());
    meter.finish(&exchange(0, 1));
    assert!(board.take_fresh().is_none());
}

#[test]
fn a_route_adds_no_more_lines_than_it_is_reckoned_with_and_a_step_is_short() {
    let routes = 1_000;
    let board = Arc::new(Board::new(1, 500, routes));
    let meter = Meter::new(board.clone());
    for at in 0..routes {
        for state in State::ALL {
            for status in [0, 101, 200, 304, 404, 503] {
                let mut exchange = exchange((at / 2) as u16, 1 + at as u64);
                exchange.streamed = at % 2 == 0;
                (exchange.state, exchange.status) = (state, status);
                let some = Some(1);
                let timings = &mut exchange.timings;
                (timings.first_attempt, timings.connected, timings.sent) = (Instant(6), Instant(7), Instant(8));
                (timings.content, timings.written) = (Instant(9), Instant(10));
                exchange.tokens = Tokens {
                    input: some,
                    output: some,
                    cached_input: some,
                    cache_creation_input: some,
                    reasoning_output: some,
                };
                meter.finish(&exchange);
            }
        }
    }
    let names = Names::new(
        (0..routes / 2).map(|at| format!("model-{at}")).collect(),
        (0..500).map(|at| format!("p/{at}")).collect(),
        vec!["x".into()],
    );
    let mut scraper = Scraper::new(vec![board], names);
    let mut scrape = scraper.scrape(Format::OpenMetrics, Facts::default());
    let (mut lines, mut longest) = (0, 0);
    while scrape.step() {
        let piece = scrape.take();
        longest = longest.max(piece.lines().count());
        lines += piece.lines().filter(|line| line.contains("model=")).count();
    }
    let streamed = routes / 2;
    // Half of the routes have no time to a first token; none has had a gap.
    let expected = routes * (SERIES_PER_ROUTE - 18 - 3 - 4) - streamed * (17 + 3 + 4);
    assert_eq!(lines, expected);
    assert!(longest <= 16 * 6 + 3, "{longest}");
}

#[test]
fn a_scrape_goes_on_while_routes_come_and_shows_those_it_began_with() {
    let board = Arc::new(Board::new(1, 2, 10));
    let meter = Meter::new(board.clone());
    let mut scraper = Scraper::new(vec![board], names());
    meter.finish(&exchange(0, 1));
    let mut first = scraper.scrape(Format::Prometheus, Facts::default());
    first.step();
    meter.finish(&exchange(1, 1));
    let second = text(&mut scraper, Format::Prometheus);
    while first.step() {}
    let first = first.take();
    assert!(!first.contains("model none") && second.contains("model none"));
    assert_eq!(value(&first, "ringway_metric_routes").as_deref(), Some("1"));
}

#[test]
fn the_document_in_the_repository_has_every_metric() {
    let mut document = String::from(
        "# Metrics\n\nWhat `/metrics` of the admin listener says. Made from the declarations in \
         `src/telemetry/metrics.rs`; a test holds the two together (`UPDATE_METRICS=1 cargo test --lib \
         the_document_in_the_repository` writes it anew).\n\n\
         | label | values |\n|---|---|\n\
         | `model` | as configured; `other` for the default route; `none` where no model was found |\n\
         | `endpoint` | `provider/number`; `none` where it came to none |\n",
    );
    for (label, values) in [
        ("dialect", [Dialect::OpenAi, Dialect::Anthropic].map(Dialect::as_str).to_vec()),
        ("streamed", vec!["false", "true"]),
        ("status", CLASSES.to_vec()),
        ("state", State::ALL.map(State::as_str).to_vec()),
        ("phase", Phase::ALL.map(Phase::as_str).to_vec()),
        ("kind", TOKEN_KINDS.to_vec()),
        ("origin", ORIGIN_WORDS.to_vec()),
        ("side", vec!["client", "upstream"]),
        ("direction", vec!["received", "sent"]),
        ("reason", SocketEnd::ALL.map(SocketEnd::as_str).to_vec()),
        ("result` of `ringway_dns_lookups_total", LOOKUPS.to_vec()),
        (
            "result` of `ringway_tls_handshakes_total",
            Handshakes::default().results().map(|(result, _)| result).collect(),
        ),
    ] {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        document += &format!("| `{label}` | {} |\n", values.join(", "));
    }
    document += "| `worker`, `listener` | number from 0; address as configured |\n| `version` | the gateway's own |\n\n\
                 Beyond `admin.series_max` combinations of `model`, `endpoint`, `dialect` and `streamed`, all four are \
                 `other`.\n\n| metric | kind | labels | what it says, and what to do |\n|---|---|---|---|\n";
    for label in families().flat_map(|family| family.labels.iter()) {
        assert!(document.contains(&format!("`{label}`")), "{label} has values");
    }
    for family in families() {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (family.name, family.kind.as_str(), family.help);
        document += &format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(" "));
    }
    document += "\nUpper bounds of the buckets, in seconds; a value that equals a bound is within it:\n\n";
    for family in families() {
        if let Kind::Histogram(bounds) = family.kind {
            let bounds: Vec<&str> = bounds.iter().map(|(word, _)| *word).collect();
            document += &format!("- `{}`: {}\n", family.name, bounds.join(", "));
        }
    }
    if std::env::var_os("UPDATE_METRICS").is_some() {
        std::fs::write(DOCUMENT, &document).unwrap();
    }
    let written = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(written == document, "config/metrics.md is not what UPDATE_METRICS=1 writes");
}
