//! What counting costs a worker, and how long a scrape of 100,000 series keeps a core at a time.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::base::clock::{Instant as Moment, UnixTime};
use ringway::base::{Dialect, EndpointId, ListenerId, ModelId};
use ringway::telemetry::metrics::board::Board;
use ringway::telemetry::metrics::cells::{Meter, Names, Route, SERIES_PER_ROUTE};
use ringway::telemetry::metrics::scrape::{Facts, Scraper};
use ringway::telemetry::metrics::text::Format;
use ringway::telemetry::{EndedBy, Exchange, State};

const WORKERS: usize = 2;
const SERIES: usize = 100_000;
const ENDPOINTS: usize = 64;

/// An exchange of `model` that ended well; the steps of no two take the same time.
fn exchange(model: usize, seed: u64) -> Exchange {
    let at = |micros: u64| Moment(1 + micros * 1_000);
    let client = ([127, 0, 0, 1], 1).into();
    let mut exchange = Exchange::begin(UnixTime(1), at(0), Dialect::OpenAi, ListenerId(0), client);
    (exchange.model, exchange.endpoint) = (Some(ModelId(model as u16)), Some(EndpointId((model % ENDPOINTS) as u16)));
    (exchange.status, exchange.state, exchange.ended_by) = (200, State::Complete, EndedBy::Completion);
    exchange.streamed = true;
    exchange.tokens.input = Some(900);
    exchange.tokens.output = Some(300);
    let timings = &mut exchange.timings;
    (timings.first_attempt, timings.connected, timings.sent) = (at(10), at(12), at(20 + seed % 20));
    let content = 200_000 + (seed * 7919) % 900_000;
    (timings.content, timings.written) = (at(content), at(content + 10 + seed % 50));
    timings.end = at(content + 1_000_000 + (seed * 104_729) % 20_000_000);
    exchange
}

/// All routes that fit, each with thousands of values of which the histograms are as wide as in life.
fn loaded() -> (Vec<Arc<Board>>, Scraper) {
    let routes = SERIES / SERIES_PER_ROUTE;
    let boards: Vec<Arc<Board>> = (0..WORKERS).map(|_| Arc::new(Board::new(1, ENDPOINTS, routes))).collect();
    let mut bytes = 0;
    for board in &boards {
        let meter = Meter::new(board.clone());
        for model in 0..routes {
            for seed in 0..200 {
                let exchange = exchange(model, seed);
                meter.finish(&exchange);
                let route = Route::new(exchange.model, exchange.endpoint, exchange.dialect, true);
                let cell = meter.cell(route).expect("counting");
                (0..10).for_each(|at| cell.gap(Duration::from_micros(5_000 + (seed * 31 + at * 7_001) % 90_000)));
                bytes += if seed == 199 { cell.bytes() } else { 0 };
            }
        }
    }
    println!("a route takes {} KiB at each worker, on average", bytes / (routes * WORKERS) / 1024);
    let names = Names::new(
        (0..routes).map(|at| format!("model-number-{at}")).collect(),
        (0..ENDPOINTS).map(|at| format!("provider/{at}")).collect(),
        vec!["127.0.0.1:8080".into()],
    );
    let mut scraper = Scraper::new(boards.clone(), names);
    scraper.look();
    (boards, scraper)
}

fn counting(c: &mut Criterion) {
    let board = Arc::new(Board::new(1, ENDPOINTS, 700));
    let meter = Meter::new(board);
    let exchanges: Vec<Exchange> = (0..700).map(|at| exchange(at, at as u64)).collect();
    let mut at = 0;
    c.bench_function("an exchange that ends, one route", |b| b.iter(|| meter.finish(black_box(&exchanges[0]))));
    c.bench_function("an exchange that ends, 700 routes in turn", |b| {
        b.iter(|| {
            at = (at + 1) % exchanges.len();
            meter.finish(black_box(&exchanges[at]));
        });
    });
    let cell = meter.cell(Route::new(Some(ModelId(0)), None, Dialect::OpenAi, true)).expect("counting");
    c.bench_function("an event of a stream", |b| b.iter(|| cell.gap(black_box(Duration::from_micros(20_123)))));
}

fn scraping(c: &mut Criterion) {
    let (boards, mut scraper) = loaded();
    let cells: usize = boards.iter().map(|board| board.routes_max()).sum();
    let mut lines = 0;
    // The least of many runs of each step: what it takes when nobody disturbs it.
    let mut steps: Vec<Duration> = Vec::new();
    for run in 0..20 {
        let mut scrape = scraper.scrape(Format::Prometheus, Facts::default());
        for at in 0.. {
            let begun = Instant::now();
            let more = scrape.step();
            let took = begun.elapsed();
            match steps.get_mut(at) {
                Some(least) => *least = took.min(*least),
                None => steps.push(took),
            }
            let text = scrape.take();
            lines += if run == 0 { text.lines().filter(|line| !line.starts_with('#')).count() } else { 0 };
            if !more {
                break;
            }
        }
    }
    let longest = steps.iter().max().copied().unwrap_or_default();
    let whole: Duration = steps.iter().sum();
    println!(
        "a scrape of {lines} series ({cells} cells at {WORKERS} workers): {} steps, the longest {longest:?}, all {whole:?}",
        steps.len()
    );
    c.bench_function("a scrape of 100,000 series, without pauses", |b| {
        b.iter(|| {
            let mut scrape = scraper.scrape(Format::Prometheus, Facts::default());
            while scrape.step() {
                black_box(scrape.take());
            }
        });
    });
}

criterion_group!(benches, counting, scraping);
criterion_main!(benches);
