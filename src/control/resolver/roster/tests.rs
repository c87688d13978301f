use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::config::Method;

const S: Duration = Duration::from_secs(1);

fn roster(hosts: &[&str]) -> Roster {
    let config =
        Resolver { method: Method::Dns, servers: Vec::new(), timeout: 5 * S, ttl_min: 5 * S, ttl_max: 300 * S };
    Roster::new(hosts.iter().map(|host| (*host).to_owned()), &config)
}

fn at(seconds: u64) -> Instant {
    Instant(0) + Duration::from_secs(seconds)
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn v6() -> IpAddr {
    IpAddr::V6(Ipv6Addr::LOCALHOST)
}

fn found(addresses: &[IpAddr]) -> Option<Answer> {
    Some(Answer::Found(addresses.to_vec(), 60 * S))
}

fn missing(missing: Missing) -> Option<Answer> {
    Some(Answer::Missing(missing, format!("because {missing:?}")))
}

/// Plays one round in two answers and returns its verdict.
fn round(roster: &mut Roster, now: Instant, v6: Option<Answer>, v4: Option<Answer>) -> Verdict {
    assert!(roster.next_due(now, 2).is_some(), "due at {now:?}");
    assert_eq!(roster.hear(0, [v6, None], now, 0), None);
    roster.hear(0, [None, v4], now, 0).expect("the round is over")
}

fn addresses(roster: &mut Roster) -> Vec<IpAddr> {
    match roster.names(at(5000)).get("a") {
        Some(Found::Addresses(addresses)) => addresses.to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn times_to_live_are_held_within_their_bounds_and_spread() {
    let all = u64::MAX;
    for (ttl, random, hold_ms) in [
        (0, 0, 5_000..=5_000),
        (5, 0, 5_000..=5_000),
        (60, 0, 60_000..=60_000),
        (60, all / 2, 62_999..=63_000),
        (60, all, 65_999..=66_000),
        (300, 0, 300_000..=300_000),
        (301, 0, 300_000..=300_000),
        (u64::from(u32::MAX), all, 329_999..=330_000),
    ] {
        let held = hold(Duration::from_secs(ttl), 5 * S, 300 * S, random).as_millis();
        assert!(hold_ms.contains(&held), "{ttl} s, {random:x}: {held} ms");
    }
}

#[test]
fn failures_are_asked_for_again_later_and_later() {
    let waits: Vec<u64> = (0..8).map(|failures| back_off(failures, 0).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(back_off(u32::MAX, u64::MAX).as_millis() / 100, 374);
}

#[test]
fn the_first_addresses_wait_a_moment_for_the_other_family_and_no_longer() {
    for (name, other_ms, published_ms) in [("soon", 20, 20), ("late", 2000, 50)] {
        let ms = |ms| Instant(0) + Duration::from_millis(ms);
        let mut roster = roster(&["a"]);
        assert_eq!(roster.next_due(ms(0), 2), Some((0, "a")));
        assert_eq!(roster.next_due(ms(0), 2), None, "it is being asked for");
        assert_eq!(roster.hear(0, [None, found(&[v4(1)])], ms(0), 0), None);
        assert_eq!(roster.held_until(), ms(50), "{name}");
        assert!(roster.names(ms(published_ms - 1)).is_empty(), "{name}");
        if published_ms < other_ms {
            assert_eq!(roster.names(ms(published_ms))["a"], Found::Addresses(Arc::new([v4(1)])), "{name}");
        }
        let verdict = roster.hear(0, [found(&[v6()]), None], ms(other_ms), 0);
        assert_eq!(verdict, Some(Verdict { missing: None, line: None }));
        assert_eq!(roster.names(ms(other_ms))["a"], Found::Addresses(Arc::new([v6(), v4(1)])), "{name}");
        assert_eq!((roster.held_until(), roster.earliest()), (Instant::NEVER, ms(other_ms + 60_000)));
    }
}

#[test]
fn a_name_is_missing_only_once_both_families_were_asked_for() {
    let mut roster = roster(&["a"]);
    roster.next_due(at(0), 2);
    roster.hear(0, [missing(Missing::NoName), None], at(0), 0);
    assert!(roster.names(at(0)).is_empty());
    let verdict = roster.hear(0, [None, missing(Missing::NoName)], at(0), 0).expect("over");
    assert_eq!(verdict.line.as_deref(), Some("the name a does not resolve: because NoName"));
    assert_eq!(roster.names(at(0))["a"], Found::Missing(Missing::NoName));
    assert_eq!(roster.failing(), 1);
}

#[test]
fn the_last_good_answer_is_kept_and_the_operator_is_told_twice() {
    let mut roster = roster(&["a"]);
    let good = |verdict: &Verdict| verdict.missing.is_none() && verdict.line.is_none();
    assert!(good(&round(&mut roster, at(0), missing(Missing::NoAddress), found(&[v4(1)]))));
    let first = round(&mut roster, at(100), missing(Missing::NoAnswer), missing(Missing::NoAnswer));
    let line = "the name a does not resolve: because NoAnswer; its last addresses stay in use";
    assert_eq!(first, Verdict { missing: Some(Missing::NoAnswer), line: Some(line.to_owned()) });
    assert_eq!(roster.earliest(), at(101));
    for again in 2..9 {
        let verdict = round(&mut roster, at(again * 100), missing(Missing::NoName), missing(Missing::NoName));
        assert_eq!(verdict, Verdict { missing: Some(Missing::NoName), line: None });
        assert_eq!(addresses(&mut roster), [v4(1)]);
    }
    assert_eq!((roster.oldest(), roster.failing()), (Some(at(0)), 1));
    let back = round(&mut roster, at(1000), missing(Missing::NoAddress), found(&[v4(2)]));
    assert_eq!(back.line.as_deref(), Some("the name a resolves again"));
    assert_eq!(addresses(&mut roster), [v4(2)]);
    assert_eq!((roster.oldest(), roster.failing()), (Some(at(1000)), 0));
}

#[test]
fn a_family_that_fails_keeps_its_addresses_and_one_that_is_gone_does_not() {
    for (answer, kept) in [
        (Missing::NoAnswer, vec![v6(), v4(2)]),
        (Missing::Failed, vec![v6(), v4(2)]),
        (Missing::NoAddress, vec![v4(2)]),
        (Missing::NoName, vec![v4(2)]),
    ] {
        let mut roster = roster(&["a"]);
        round(&mut roster, at(0), found(&[v6()]), found(&[v4(1)]));
        let verdict = round(&mut roster, at(100), missing(answer), found(&[v4(2)]));
        assert_eq!(verdict, Verdict { missing: None, line: None }, "{answer:?}");
        assert_eq!(addresses(&mut roster), kept, "{answer:?}");
    }
}

#[test]
fn a_name_that_hangs_keeps_no_other_waiting() {
    let mut roster = roster(&["a", "b"]);
    assert_eq!(roster.next_due(at(0), 2), Some((0, "a")));
    assert_eq!(roster.next_due(at(0), 1), Some((1, "b")));
    assert!(roster.hear(1, [None, found(&[v4(1)])], at(1), 0).is_some());
    assert_eq!(roster.earliest(), at(61));
    assert_eq!(roster.next_due(at(61), 2), Some((1, "b")));
}

#[test]
fn addresses_are_bounded() {
    let mut roster = roster(&["a"]);
    let many: Vec<IpAddr> = (0..=ADDRESSES_MAX as u8).map(v4).collect();
    round(&mut roster, at(0), missing(Missing::NoAddress), found(&many[..ADDRESSES_MAX]));
    assert_eq!(addresses(&mut roster), many[..ADDRESSES_MAX]);
    round(&mut roster, at(100), missing(Missing::NoAddress), found(&many));
    assert_eq!(addresses(&mut roster), many[..ADDRESSES_MAX]);
}

#[test]
fn a_family_is_not_gone_before_the_other_is_told_of() {
    let mut roster = roster(&["a"]);
    round(&mut roster, at(0), found(&[v6()]), found(&[v4(1)]));
    let verdict = round(&mut roster, at(100), missing(Missing::NoName), missing(Missing::NoName));
    assert_eq!(verdict.missing, Some(Missing::NoName));
    assert_eq!(addresses(&mut roster), [v6(), v4(1)]);
}

#[test]
fn a_name_that_is_missing_stays_so_while_it_is_asked_for_again() {
    let mut roster = roster(&["a"]);
    round(&mut roster, at(0), missing(Missing::NoName), missing(Missing::NoAnswer));
    assert!(roster.next_due(at(100), 2).is_some());
    assert_eq!(
        roster.names(at(0))["a"],
        Found::Missing(Missing::NoAnswer),
        "of two reasons the one to be mended first"
    );
}
