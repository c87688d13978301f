//! Remembers whether anything of what a task also waits for has stirred.
//!
//! A task that waits for two things is woken by either and polls both. A relay waits for the next event and for its
//! client to leave, and it is nearly always the event: looking at the client each time would touch ten cache lines
//! that have gone cold since the last event. What rarely happens is therefore polled with an alarm for its waker, and
//! not at all until that has rung.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// One alarm. It serves the task that polled it last; by default it has rung, so that the first poll looks.
#[derive(Debug, Default)]
pub struct Alarm(Option<(Arc<Bell>, Waker)>);

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Alarm {
    /// Polls `look` if the alarm has rung since the last time that it was pending, or if another task asks; else it is
    /// pending still. `look` must leave the waker it is given with all that it waits for.
    pub fn poll<T>(&mut self, cx: &mut Context<'_>, look: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if self.0.as_ref().is_none_or(|(bell, _)| !bell.task.will_wake(cx.waker())) {
            let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: cx.waker().clone() });
            self.0 = Some((bell.clone(), Waker::from(bell)));
        }
        let Some((bell, waker)) = &self.0 else { return Poll::Pending };
        if !bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        bell.rung.store(false, Ordering::Release);
        let outcome = look(&mut Context::from_waker(waker));
        if outcome.is_ready() {
            self.ring();
        }
        outcome
    }

    /// Makes the next poll look; for whoever has polled the same thing with another waker.
    pub fn ring(&self) {
        if let Some((bell, _)) = &self.0 {
            bell.rung.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Task>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_looks_once_per_ring_and_passes_it_on() {
        let mut alarm = Alarm::default();
        let (task, other) = (Arc::new(Task::default()), Arc::new(Task::default()));
        let (waker, other_waker) = (Waker::from(task.clone()), Waker::from(other.clone()));
        let (mut left, mut looks) = (None, 0);
        let mut poll = |alarm: &mut Alarm, waker: &Waker, ready: bool, left: &mut Option<Waker>| {
            let outcome = alarm.poll(&mut Context::from_waker(waker), |cx| {
                looks += 1;
                *left = Some(cx.waker().clone());
                if ready { Poll::Ready(()) } else { Poll::Pending }
            });
            (outcome.is_ready(), looks)
        };
        assert_eq!(poll(&mut alarm, &waker, false, &mut left), (false, 1));
        assert_eq!(poll(&mut alarm, &waker, true, &mut left), (false, 1), "nothing has stirred");
        left.take().unwrap().wake();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(&mut alarm, &waker, false, &mut left), (false, 2));
        assert_eq!(poll(&mut alarm, &waker, false, &mut left), (false, 2));
        // Another task takes over.
        assert_eq!(poll(&mut alarm, &other_waker, false, &mut left), (false, 3));
        left.take().unwrap().wake();
        assert_eq!((task.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(poll(&mut alarm, &other_waker, true, &mut left), (true, 4));
        assert_eq!(poll(&mut alarm, &other_waker, true, &mut left), (true, 5), "what was ready is looked at again");
        assert_eq!(poll(&mut alarm, &other_waker, false, &mut left), (false, 6));
        alarm.ring();
        assert_eq!(poll(&mut alarm, &other_waker, false, &mut left), (false, 7));
    }
}
