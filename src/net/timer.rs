//! Deadlines for connections: one cheap timer each, moved often and fired rarely.
//!
//! Lives on: every worker, one [`Timers`] each.
//!
//! A relayed request moves its deadline several times and almost never meets it, so moving one *later* must
//! cost a store and nothing else. Timers therefore sit lazily in a wheel of [`SLOTS`] slots of [`TICK`]: when a
//! slot comes round, a timer whose deadline has moved on is put into a later slot, and only one that is due
//! wakes its task. A timer fires up to one tick late, never early.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::base::clock::{Clock, Instant};

/// The wheel's step, and so the precision of a deadline.
pub const TICK: Duration = Duration::from_millis(4);
const TICK_NS: u64 = TICK.as_nanos() as u64;
/// Slots of the wheel; a deadline beyond the horizon (about four seconds) is looked at once per turn.
const SLOTS: u64 = 1024;
const UNSCHEDULED: u64 = u64::MAX;

/// All timers of one worker.
pub struct Timers {
    clock: Clock,
    wheel: RefCell<Wheel>,
    /// The tick that the driver sleeps towards; an earlier deadline has to wake it.
    sleeping_until: Cell<u64>,
    driver: RefCell<Option<Waker>>,
}

struct Wheel {
    slots: Vec<Vec<Rc<Entry>>>,
    /// The last tick that was served.
    served: u64,
    scheduled: usize,
}

struct Entry {
    deadline: Cell<Instant>,
    /// The tick whose slot holds this entry; any other slot that still lists it is out of date.
    tick: Cell<u64>,
    /// True if it is not made due before its time.
    kept: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// One deadline; fires at most once per [`Timer::set`].
pub struct Timer {
    timers: Rc<Timers>,
    entry: Rc<Entry>,
}

impl Timers {
    /// Timers that read `clock`. Somebody has to run [`Timers::drive`].
    pub fn new(clock: Clock) -> Rc<Timers> {
        let served = clock.now().0 / TICK_NS;
        Rc::new(Timers {
            clock,
            wheel: RefCell::new(Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), served, scheduled: 0 }),
            sleeping_until: Cell::new(UNSCHEDULED),
            driver: RefCell::new(None),
        })
    }

    /// A timer that is off.
    pub fn timer(self: &Rc<Timers>) -> Timer {
        let entry = Entry {
            deadline: Cell::new(Instant::NEVER),
            tick: Cell::new(UNSCHEDULED),
            kept: Cell::new(false),
            waker: RefCell::new(None),
        };
        Timer { timers: self.clone(), entry: Rc::new(entry) }
    }

    /// Waits until `until`; for the rare wait that has no timer of its own.
    pub async fn sleep_until(self: &Rc<Timers>, until: Instant) {
        let timer = self.timer();
        timer.set(until);
        poll_fn(|cx| if timer.poll_expired(cx) { Poll::Ready(()) } else { Poll::Pending }).await
    }

    /// Wakes every task that has a timer running, due or not.
    pub fn wake_all(&self) {
        self.running().into_iter().filter_map(|entry| entry.waker.borrow().clone()).for_each(Waker::wake);
    }

    /// Makes every running timer due now, but for those that were told to [keep](Timer::keep) their deadline.
    pub fn expire_all(&self) {
        let now = self.clock.now();
        for entry in self.running().into_iter().filter(|entry| !entry.kept.get()) {
            entry.deadline.set(now);
            entry.tick.set(UNSCHEDULED);
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn running(&self) -> Vec<Rc<Entry>> {
        let wheel = self.wheel.borrow();
        let entries = wheel.slots.iter().flatten();
        entries.filter(|entry| entry.deadline.get() != Instant::NEVER && Rc::strong_count(entry) > 1).cloned().collect()
    }

    /// Fires timers for ever. Sleeps while none is due, so an idle worker wakes once per horizon at most.
    pub async fn drive(self: Rc<Timers>) {
        let mut sleep = pin!(monoio::time::sleep(TICK));
        poll_fn(|cx| {
            loop {
                let now = self.clock.now();
                self.serve(now);
                let next = self.next_tick();
                self.sleeping_until.set(next);
                *self.driver.borrow_mut() = Some(cx.waker().clone());
                if next == UNSCHEDULED {
                    return Poll::<()>::Pending;
                }
                let wait = Duration::from_nanos((next * TICK_NS).saturating_sub(now.0));
                sleep.as_mut().reset(monoio::time::Instant::now() + wait);
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    /// Wakes what is due at `now` and moves what is not to a later slot.
    fn serve(&self, now: Instant) {
        let current = now.0 / TICK_NS;
        let mut due = Vec::new();
        {
            let mut wheel = self.wheel.borrow_mut();
            // After a long pause (a suspended machine) every slot is visited once, and holds what was due turns ago.
            let first = (wheel.served + 1).max((current + 1).saturating_sub(SLOTS));
            for tick in first..=current {
                let entries = std::mem::take(&mut wheel.slots[(tick % SLOTS) as usize]);
                wheel.scheduled -= entries.len();
                for entry in entries {
                    // It was moved to an earlier slot meanwhile, or nobody else holds it: its connection is gone.
                    let own = entry.tick.get();
                    if own != UNSCHEDULED && own > tick && own % SLOTS == tick % SLOTS {
                        // Of the slot's next turn: it was put in while this one was due and not yet served.
                        wheel.put(own, entry);
                        continue;
                    }
                    if own > tick || Rc::strong_count(&entry) == 1 {
                        continue;
                    }
                    if entry.deadline.get() <= now {
                        entry.tick.set(UNSCHEDULED);
                        due.push(entry);
                    } else {
                        let tick = slot_for(entry.deadline.get(), current);
                        entry.tick.set(tick);
                        if tick != UNSCHEDULED {
                            wheel.put(tick, entry);
                        }
                    }
                }
            }
            wheel.served = wheel.served.max(current);
        }
        for entry in due {
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// The next tick whose slot is not empty.
    fn next_tick(&self) -> u64 {
        let wheel = self.wheel.borrow();
        if wheel.scheduled == 0 {
            return UNSCHEDULED;
        }
        (wheel.served + 1..=wheel.served + SLOTS)
            .find(|tick| !wheel.slots[(tick % SLOTS) as usize].is_empty())
            .unwrap_or(UNSCHEDULED)
    }
}

impl Wheel {
    fn put(&mut self, tick: u64, entry: Rc<Entry>) {
        self.slots[(tick % SLOTS) as usize].push(entry);
        self.scheduled += 1;
    }
}

/// The tick at which a deadline is next looked at: rounded up, within the horizon; far ones share coarse ticks
/// so that they do not wake an idle worker one by one.
fn slot_for(deadline: Instant, current: u64) -> u64 {
    if deadline == Instant::NEVER {
        return UNSCHEDULED;
    }
    let tick = deadline.0.div_ceil(TICK_NS).max(current + 1);
    if tick < current + SLOTS { tick } else { (current + SLOTS - 1) & !0x7f }
}

impl Drop for Timer {
    /// The wheel may list the entry for seconds yet; the waker in it would keep the whole task's memory that long.
    fn drop(&mut self) {
        self.entry.waker.take();
    }
}

impl Timer {
    /// Moves the deadline. [`Instant::NEVER`] turns the timer off.
    pub fn set(&self, deadline: Instant) {
        self.entry.deadline.set(deadline);
        // The common case: it already sits in a slot that comes no later than the new deadline.
        if deadline.0 / TICK_NS >= self.entry.tick.get() || deadline == Instant::NEVER {
            return;
        }
        let mut wheel = self.timers.wheel.borrow_mut();
        let tick = slot_for(deadline, wheel.served.max(self.timers.clock.now().0 / TICK_NS));
        if tick >= self.entry.tick.get() {
            return;
        }
        self.entry.tick.set(tick);
        wheel.put(tick, self.entry.clone());
        if tick < self.timers.sleeping_until.get() {
            self.timers.sleeping_until.set(tick);
            if let Some(driver) = self.timers.driver.borrow_mut().take() {
                driver.wake();
            }
        }
    }

    /// From now on this timer's deadlines stand, whoever makes all others due.
    pub fn keep(&self) {
        self.entry.kept.set(true);
    }

    /// True once the deadline has passed; else the task of `cx` is woken when it does.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> bool {
        let deadline = self.entry.deadline.get();
        // Even of a timer that is off: it may be set before it is polled again.
        let mut waker = self.entry.waker.borrow_mut();
        match &*waker {
            Some(old) if old.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        // Only a timer that has left its slot can be due, so the clock is not read on every poll.
        self.entry.tick.get() == UNSCHEDULED && deadline <= self.timers.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn at(timers: &Timers, ms: u64) -> Instant {
        let _ = timers;
        Instant(ms * 1_000_000)
    }

    fn fresh() -> (Rc<Timers>, Arc<Count>, Waker) {
        let timers = Timers::new(Clock::new());
        timers.wheel.borrow_mut().served = 0;
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        (timers, count, waker)
    }

    #[test]
    fn a_timer_wakes_its_task_at_its_deadline_and_not_before() {
        let (timers, count, waker) = fresh();
        let timer = timers.timer();
        timer.set(at(&timers, 100));
        assert!(!timer.poll_expired(&mut Context::from_waker(&waker)));
        timers.serve(at(&timers, 99));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.serve(at(&timers, 104));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_deadline_that_moved_on_does_not_fire_at_its_old_place() {
        let (timers, count, waker) = fresh();
        let timer = timers.timer();
        timer.set(at(&timers, 100));
        let _ = timer.poll_expired(&mut Context::from_waker(&waker));
        timer.set(at(&timers, 300));
        timers.serve(at(&timers, 200));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.serve(at(&timers, 304));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_deadline_moved_earlier_fires_once_and_early() {
        let (timers, count, waker) = fresh();
        let timer = timers.timer();
        timer.set(at(&timers, 3000));
        let _ = timer.poll_expired(&mut Context::from_waker(&waker));
        timer.set(at(&timers, 100));
        timers.serve(at(&timers, 104));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        timers.serve(at(&timers, 4000));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(timers.wheel.borrow().scheduled, 0, "nothing is left in the wheel");
    }

    #[test]
    fn deadlines_beyond_the_horizon_are_kept() {
        let (timers, count, waker) = fresh();
        let timer = timers.timer();
        timer.set(at(&timers, 75_000));
        let _ = timer.poll_expired(&mut Context::from_waker(&waker));
        for ms in (0..75_000).step_by(500) {
            timers.serve(at(&timers, ms));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.serve(at(&timers, 75_004));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_pause_longer_than_the_horizon_loses_no_timer() {
        let (timers, count, waker) = fresh();
        let timer = timers.timer();
        timer.set(at(&timers, 100));
        let _ = timer.poll_expired(&mut Context::from_waker(&waker));
        timers.serve(at(&timers, 10_000));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        timer.set(at(&timers, 10_100));
        let _ = timer.poll_expired(&mut Context::from_waker(&waker));
        timers.serve(at(&timers, 10_104));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_timer_set_while_the_wheel_lags_behind_the_clock_is_not_lost() {
        let (timers, count, waker) = fresh();
        let timer = timers.timer();
        // The clock stands at tick 500, and the driver has slept since tick 300.
        timers.wheel.borrow_mut().served = 500;
        timer.set(at(&timers, 20_000));
        timers.wheel.borrow_mut().served = 300;
        let _ = timer.poll_expired(&mut Context::from_waker(&waker));
        for ms in (2_004..20_000).step_by(100) {
            timers.serve(at(&timers, ms));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        timers.serve(at(&timers, 20_004));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(timers.wheel.borrow().scheduled, 0, "nothing is left in the wheel");
    }

    #[test]
    fn all_timers_are_made_due_but_those_that_keep_their_deadline() {
        let (timers, count, waker) = fresh();
        let (plain, kept) = (timers.timer(), timers.timer());
        for timer in [&plain, &kept] {
            timer.set(timers.clock.now() + Duration::from_secs(3600));
            assert!(!timer.poll_expired(&mut Context::from_waker(&waker)));
        }
        kept.keep();
        timers.expire_all();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        let mut cx = Context::from_waker(&waker);
        assert!(plain.poll_expired(&mut cx) && !kept.poll_expired(&mut cx));
    }

    #[test]
    fn a_dropped_timer_leaves_the_wheel() {
        let (timers, _, _) = fresh();
        let timer = timers.timer();
        timer.set(at(&timers, 100));
        drop(timer);
        timers.serve(at(&timers, 104));
        assert_eq!(timers.wheel.borrow().scheduled, 0);
        assert_eq!(timers.next_tick(), UNSCHEDULED);
    }
}
