//! Happy eyeballs: several addresses, the first connection wins (RFC 8305 §5).

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::reach::Reach;
use crate::base::clock::{Clock, Instant};
use crate::net::timer::{Timer, Timers};

/// How long an attempt is alone before the next address is tried beside it: the recommended Connection Attempt Delay
/// (RFC 8305 §8).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Attempts under way at a time; the oldest gives way to a further one.
const ATTEMPTS_MAX: usize = 6;

/// A race under way. Dropping it abandons all attempts.
struct Race<'a, F, T>
where
    F: Future<Output = io::Result<T>>,
{
    running: Vec<Attempt<F>>,
    reach: &'a Reach,
    clock: &'a Clock,
}

struct Attempt<F> {
    address: IpAddr,
    since: Instant,
    connecting: Pin<Box<F>>,
}

/// Who won a race.
pub struct Won<T> {
    /// What its connecting came to.
    pub connected: T,
    /// The winner.
    pub address: IpAddr,
    /// Those that it has overtaken by more than the delay, and that are to be shunned if it proves to be good.
    pub slow: Vec<IpAddr>,
}

/// Connects to the first of `left` that answers, by `connect`. Who has failed is taken out of `left`, and so is the winner;
/// who was still under way then stands at the end of it. What was learned is told to `reach`. Bounding the whole is the
/// caller's; dropping the future abandons it.
///
/// # Errors
/// The last address's failure, once all have failed.
pub async fn race<F, T>(
    left: &mut Vec<IpAddr>,
    connect: impl Fn(IpAddr) -> F,
    reach: &Reach,
    clock: &Clock,
    timers: &Rc<Timers>,
) -> io::Result<Won<T>>
where
    F: Future<Output = io::Result<T>>,
{
    let timer = timers.timer();
    let mut race = Race { running: Vec::new(), reach, clock };
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    let won = poll_fn(|cx| {
        loop {
            match race.poll_running(cx) {
                Poll::Ready(Ok(winner)) => return Poll::Ready(Some(winner)),
                Poll::Ready(Err(error)) => {
                    last = error;
                    // At once, without the rest of the delay (§5).
                    timer.set(Instant::NEVER);
                    race.start(left, &connect, &timer);
                    // Others may have ended in the same turn, and will not wake anyone again.
                    if !race.running.is_empty() {
                        continue;
                    }
                }
                Poll::Pending => {}
            }
            if race.running.is_empty() || timer.poll_expired(cx) {
                if race.start(left, &connect, &timer) {
                    continue;
                }
                timer.set(Instant::NEVER);
                if race.running.is_empty() {
                    return Poll::Ready(None);
                }
            }
            return Poll::Pending;
        }
    })
    .await;
    match won {
        Some((connected, address)) => {
            let slow = race.slow().collect();
            left.extend(race.running.drain(..).map(|attempt| attempt.address));
            Ok(Won { connected, address, slow })
        }
        None => Err(last),
    }
}

impl<F, T> Race<'_, F, T>
where
    F: Future<Output = io::Result<T>>,
{
    /// The first that has come to an end, if one has. One that has failed is gone.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(T, IpAddr)>> {
        for at in 0..self.running.len() {
            if let Poll::Ready(ended) = self.running[at].connecting.as_mut().poll(cx) {
                let Attempt { address, .. } = self.running.remove(at);
                if ended.is_err() {
                    self.reach.failed(address, self.clock.now());
                }
                return Poll::Ready(ended.map(|connected| (connected, address)));
            }
        }
        Poll::Pending
    }

    /// Starts the next attempt; false if there is none.
    fn start(&mut self, left: &mut Vec<IpAddr>, connect: impl Fn(IpAddr) -> F, timer: &Timer) -> bool {
        if left.is_empty() {
            return false;
        }
        let now = self.clock.now();
        if self.running.len() >= ATTEMPTS_MAX {
            let given_up = self.running.remove(0);
            self.reach.failed(given_up.address, now);
        }
        let address = left.remove(0);
        self.running.push(Attempt { address, since: now, connecting: Box::pin(connect(address)) });
        timer.set(if left.is_empty() { Instant::NEVER } else { now + ATTEMPT_DELAY });
        true
    }

    /// Those under way that have had their time; those that began later may be as good as any.
    fn slow(&self) -> impl Iterator<Item = IpAddr> {
        let now = self.clock.now();
        let slow = self.running.iter().filter(move |attempt| now.since(attempt.since) >= ATTEMPT_DELAY);
        slow.map(|attempt| attempt.address)
    }
}

impl<F, T> Drop for Race<'_, F, T>
where
    F: Future<Output = io::Result<T>>,
{
    /// Given up from outside, as by the connect timer: who was silent until then is remembered.
    fn drop(&mut self) {
        let now = self.clock.now();
        self.slow().for_each(|address| self.reach.failed(address, now));
    }
}

#[cfg(test)]
mod tests;
