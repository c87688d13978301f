//! Names that change, or stop being any, while requests are under way.

use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crate::cell::{Ends, answer, ask, judge, record, timers};
use crate::common::dns::{Dns, Says};
use crate::common::{Origin, PATIENCE};
use crate::ground::{DRIVERS, Ground, Players, answer_as_backup};
use crate::shape::Shape;

const NAME: &str = "moves.test";
const ADDRESSES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];

/// Providers at the same port of two addresses, and how many requests each has had.
fn two_addresses() -> (u16, [Arc<AtomicUsize>; 2]) {
    let (one, two) = (0..100)
        .find_map(|_| {
            let one = Origin::start();
            let two = TcpListener::bind((ADDRESSES[1], one.address.port())).ok()?;
            Some((one, Origin::from(two)))
        })
        .expect("a port that is free on both addresses");
    let port = one.address.port();
    let counts = [one, two].map(|origin| {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let asked = Mutex::new(HashMap::new());
        origin.serve(move |peer| {
            answer_as_backup(peer, &asked, || {
                counted.fetch_add(1, Ordering::SeqCst);
            });
        });
        count
    });
    (port, counts)
}

/// Waits for more requests than can come to where the name no longer leads: what is under way of each asker, and one more over
/// each connection that was idle when it moved.
fn wait_for_more(count: &AtomicUsize, what: &str) {
    let (start, before) = (Instant::now(), count.load(Ordering::SeqCst));
    while count.load(Ordering::SeqCst) < before + 3 * Shape::ALL.len() {
        assert!(start.elapsed() < PATIENCE, "no requests after {PATIENCE:?}: {what}");
        thread::yield_now();
    }
}

#[test]
fn a_name_that_changes_under_load_or_stops_resolving_costs_no_request() {
    for driver in DRIVERS {
        let (port, counts) = two_addresses();
        let dns = Dns::start();
        let is_at = |address: &str| dns.has(NAME, &[address]);
        is_at(ADDRESSES[0]);
        let mut players = Players::with(format!(
            "[resolver]\nservers = [\"{}\"]\nttl_min = \"100ms\"\nttl_max = \"100ms\"\ntimeout = \"300ms\"",
            dns.address
        ));
        players.add("named", &format!("http://{NAME}:{port}/v1"), "", &timers(Ends::Whole, ""));
        let ground = Ground::start(driver, &players);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            // Also when this thread fails, or the scope would wait for them without end.
            let stop_at_end = Stop(&stop);
            let askers: Vec<_> = Shape::ALL
                .into_iter()
                .map(|shape| {
                    let (ground, stop) = (&ground, &stop);
                    scope.spawn(move || ask_on(ground, shape, stop))
                })
                .collect();
            for round in 0..3 {
                for at in [1, 0] {
                    is_at(ADDRESSES[at]);
                    wait_for_more(&counts[at], &format!("{driver}, round {round}: it has moved to {}", ADDRESSES[at]));
                }
            }
            // Between two of them it resolves again, or the resolver would wait twice as long after each.
            let bad = [Says::NxDomain, Says::ServFail, Says::Silence, Says::Addresses(Vec::new(), 1)];
            for (number, says) in bad.into_iter().enumerate() {
                let (stays, moves) = (number % 2, (number + 1) % 2);
                dns.says(NAME, says.clone());
                dns.wait_asked(NAME, dns.asked(NAME, false) + 2);
                wait_for_more(&counts[stays], &format!("{driver}: the name server says {says:?}"));
                is_at(ADDRESSES[moves]);
                wait_for_more(&counts[moves], &format!("{driver}: it resolves again, after {says:?}"));
            }
            drop(stop_at_end);
            for asker in askers {
                asker.join().expect("an asker that was served all the time");
            }
        });
        ground.finish();
    }
}

/// Tells the askers to stop when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks over and over, each time to be served at the first attempt.
fn ask_on(ground: &Ground, shape: Shape, stop: &AtomicBool) {
    let mut client = ground.gateway.connect();
    let mut last = String::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        last = format!("{}-{number}", shape.name());
        ask(&mut client, "named+", shape, &last, 0);
        let (kept, response) = answer(client, shape, &sync_channel(1).0);
        judge(&last, Ends::Whole, shape, &response);
        assert_eq!(ground.asked_backup(&last), 0, "{last}: another endpoint was asked");
        client = if number % 100 == 99 { ground.gateway.connect() } else { kept };
    }
    for found in ground.records.until(&last) {
        let is_ours = found["request_id"].as_str().is_some_and(|id| id.starts_with(&shape.name()));
        // One whose connection was closed under it was sent again, to the same provider.
        if is_ours && found["attempts"] != 2 {
            record("named", Ends::Whole, &found, 1);
        }
    }
}

/// A name that was never any: told, and passed over where there is another endpoint.
#[test]
fn a_name_without_an_address_is_passed_over_and_told_only_if_it_is_the_last() {
    let unreachable = Ends::Status(502, "upstream_unreachable", "upstream_error");
    let silent = Ends::Status(504, "connect_timeout", "timeout");
    let cells = [
        ("nowhere.test", Says::NxDomain, unreachable),
        ("servfail.test", Says::ServFail, unreachable),
        ("empty.test", Says::Addresses(Vec::<IpAddr>::new(), 1), unreachable),
        ("silent.test", Says::Silence, silent),
    ];
    for driver in DRIVERS {
        let dns = Dns::start();
        // The resolver itself is patient: it is the connect timer that ends a request for a silent name.
        let mut players = Players::with(format!("[resolver]\nservers = [\"{}\"]\ntimeout = \"30s\"", dns.address));
        for (name, says, ends) in &cells {
            dns.says(name, says.clone());
            players.add(name, &format!("http://{name}:9/v1"), "", &timers(*ends, ""));
        }
        let ground = Ground::start(driver, &players);
        thread::scope(|scope| {
            for ((name, _, ends), shape) in cells.iter().flat_map(|cell| Shape::ALL.map(|shape| (cell, shape))) {
                let ground = &ground;
                scope.spawn(move || {
                    for (model, ends, attempts) in [(name.to_string(), *ends, 1), (format!("{name}+"), Ends::Whole, 2)]
                    {
                        let id = format!("{model}-{}", shape.name());
                        let mut client = ground.gateway.connect();
                        ask(&mut client, &model, shape, &id, 0);
                        let (_, response) = answer(client, shape, &sync_channel(1).0);
                        judge(&id, ends, shape, &response);
                        record(&id, ends, &ground.records.of(&id), attempts);
                        assert_eq!(ground.asked_backup(&id) as u64, attempts - 1, "{id}");
                    }
                });
            }
        });
        ground.finish();
    }
}
