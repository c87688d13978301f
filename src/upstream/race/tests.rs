use std::cell::RefCell;

use super::*;
use crate::net::rt::{EventLoop, Rung, spawn};

/// What an address does.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Answers after so many milliseconds.
    Answers(u64),
    /// Refuses after so many.
    Refuses(u64),
    /// Nothing, ever.
    Swallows,
}
use Does::{Answers, Refuses, Swallows};

fn ip(last: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, last as u8])
}

/// Does `work` on an event loop, with its clock, its timers and a name of which nothing is known.
fn on_a_loop<T>(work: impl AsyncFnOnce(&Clock, &Rc<Timers>, &Reach) -> T) -> T {
    let mut event_loop = EventLoop::climb_down(Rung::Deferred, 256).unwrap();
    event_loop.block_on(async {
        let clock = Clock::new();
        let timers = Timers::new(clock.clone());
        spawn(timers.clone().drive());
        work(&clock, &timers, &Reach::new("a.test")).await
    })
}

/// Races addresses that do as told: which one won, which were tried, in that order, and after how long.
fn play(does: &'static [Does]) -> (Option<usize>, Vec<usize>, Duration, Vec<IpAddr>) {
    on_a_loop(async |clock, timers, reach| {
        let tried = Rc::new(RefCell::new(Vec::new()));
        let mut left: Vec<IpAddr> = (0..does.len()).map(ip).collect();
        let connect = |address: IpAddr| {
            let tried = tried.clone();
            async move {
                let at = (0..does.len()).find(|at| ip(*at) == address).unwrap();
                tried.borrow_mut().push(at);
                match does[at] {
                    Answers(ms) => {
                        monoio::time::sleep(Duration::from_millis(ms)).await;
                        Ok(at)
                    }
                    Refuses(ms) => {
                        monoio::time::sleep(Duration::from_millis(ms)).await;
                        Err(io::Error::from(io::ErrorKind::ConnectionRefused))
                    }
                    Swallows => std::future::pending().await,
                }
            }
        };
        let start = clock.now();
        let won = race(&mut left, connect, reach, clock, timers).await;
        let took = clock.now().since(start);
        let won = won.ok().map(|Won { connected: at, address, slow }| {
            assert_eq!(address, ip(at));
            slow.into_iter().for_each(|address| reach.failed(address, clock.now()));
            // The winner may yet prove to be bad: who was under way is not lost.
            let started = tried.borrow();
            let under_way = started.iter().filter(|at| !left.contains(&ip(**at))).count();
            assert!(under_way >= 1 && !left.contains(&address), "{left:?}");
            at
        });
        let all: Vec<IpAddr> = (0..does.len()).map(ip).collect();
        let tried = tried.borrow().clone();
        (won, tried, took, reach.order(&all, clock.now()))
    })
}

#[test]
fn the_first_to_connect_wins_and_who_fails_makes_room_at_once() {
    // Delays are lower bounds: a busy machine is late, never early.
    for (name, does, won, tried, at_least_ms) in [
        ("one", &[Answers(1)][..], Some(0), &[0][..], 0),
        ("the first is good", &[Answers(1), Answers(1)], Some(0), &[0], 0),
        ("the first is refused", &[Refuses(0), Answers(1)], Some(1), &[0, 1], 0),
        ("the first swallows", &[Swallows, Answers(0)], Some(1), &[0, 1], 250),
        ("two swallow", &[Swallows, Swallows, Answers(0)], Some(2), &[0, 1, 2], 500),
        ("the first is late and wins nevertheless", &[Answers(280), Swallows], Some(0), &[0, 1], 280),
        ("a failure among silent ones", &[Swallows, Refuses(0), Answers(0)], Some(2), &[0, 1, 2], 250),
        ("all are refused", &[Refuses(0), Refuses(5), Refuses(0)], None, &[0, 1, 2], 0),
        ("none", &[], None, &[], 0),
    ] {
        let (winner, order, took, _) = play(does);
        assert_eq!((winner, order.as_slice()), (won, tried), "{name}");
        assert!(took >= Duration::from_millis(at_least_ms), "{name}: {took:?}");
    }
}

#[test]
fn who_failed_or_was_silent_is_tried_last_the_next_time() {
    assert_eq!(play(&[Swallows, Answers(0), Answers(0)]).3.last(), Some(&ip(0)));
    assert_eq!(play(&[Refuses(0), Answers(0), Answers(0)]).3.last(), Some(&ip(0)));
}

#[test]
fn attempts_under_way_are_bounded() {
    let mut event_loop = EventLoop::climb_down(Rung::Epoll, 256).unwrap();
    event_loop.block_on(async {
        let clock = Clock::new();
        let timers = Timers::new(clock.clone());
        let reach = Reach::new("a.test");
        let timer = timers.timer();
        let mut left: Vec<IpAddr> = (0..=ATTEMPTS_MAX).map(ip).collect();
        let mut race = Race { running: Vec::new(), reach: &reach, clock: &clock };
        let connect = |_| std::future::pending::<io::Result<()>>();
        for started in 1..=ATTEMPTS_MAX {
            assert!(race.start(&mut left, connect, &timer));
            assert_eq!(race.running.len(), started);
        }
        assert!(race.start(&mut left, connect, &timer));
        assert_eq!((race.running.len(), race.running[0].address), (ATTEMPTS_MAX, ip(1)), "the oldest gave way");
        assert!(!race.start(&mut left, connect, &timer));
    });
}

#[test]
fn who_ends_in_the_same_turn_as_one_that_fails_is_not_forgotten() {
    for (second, wins) in [(true, true), (false, false)] {
        on_a_loop(async |clock, timers, reach| {
            let mut left = vec![ip(0), ip(1)];
            // Neither ends before both have begun; then both do, and each wakes the race once.
            let begun = Rc::new((RefCell::new(Vec::<std::task::Waker>::new()), std::cell::Cell::new(0)));
            let connect = |address: IpAddr| {
                let begun = begun.clone();
                let mut is_new = true;
                poll_fn(move |cx| {
                    let (wakers, count) = &*begun;
                    if std::mem::take(&mut is_new) {
                        count.set(count.get() + 1);
                        wakers.borrow_mut().push(cx.waker().clone());
                        if count.get() == 2 {
                            wakers.borrow_mut().drain(..).for_each(std::task::Waker::wake);
                        }
                        return Poll::Pending;
                    }
                    match count.get() {
                        2 if address == ip(1) && second => Poll::Ready(Ok(1)),
                        2 => Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused))),
                        _ => Poll::Pending,
                    }
                })
            };
            let racing = race(&mut left, connect, reach, clock, timers);
            let won = monoio::time::timeout(Duration::from_secs(10), racing).await.expect("it was woken for both");
            assert_eq!(won.is_ok(), wins);
        });
    }
}
