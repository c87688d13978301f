//! The addresses of one endpoint as one worker sees them: what its name stands for, which to try first, and what became
//! of earlier tries.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::Upstreams;
use crate::base::clock::Instant;
use crate::net::dns::{Found, Missing, Names};

/// How long an address that failed is tried after all others.
const SHUN: Duration = Duration::from_secs(10);
/// How long the family that worked last is tried first (RFC 8305 §4 asks for history; a network may change).
const PREFER: Duration = Duration::from_secs(600);

/// Where an endpoint is to be reached.
pub struct Reach {
    /// True for a name, false for an IP literal, which never changes.
    is_name: bool,
    known: RefCell<Known>,
    waiting: RefCell<Vec<Waker>>,
    history: RefCell<History>,
    turn: Cell<usize>,
}

#[derive(Clone)]
enum Known {
    /// It is being asked for, for the first time.
    Asked,
    Missing(Missing),
    Addresses(Rc<[IpAddr]>),
}

/// What became of earlier tries. Bounded: it holds no more failures than there are addresses.
#[derive(Default)]
struct History {
    failed: Vec<(IpAddr, Instant)>,
    /// True if IPv6 worked last, and when.
    worked: Option<(bool, Instant)>,
}

impl Reach {
    /// `host` is a name or an IP literal.
    pub fn new(host: &str) -> Reach {
        let literal = host.parse::<IpAddr>();
        Reach {
            is_name: literal.is_err(),
            known: RefCell::new(literal.map_or(Known::Asked, |ip| Known::Addresses(Rc::new([ip])))),
            waiting: RefCell::default(),
            history: RefCell::default(),
            turn: Cell::new(0),
        }
    }

    /// The addresses. Waits while the name is being asked for, for the first time; bounding that is the caller's.
    ///
    /// # Errors
    /// There are none, and why.
    pub async fn addresses(&self) -> Result<Rc<[IpAddr]>, Missing> {
        poll_fn(|cx| match &*self.known.borrow() {
            Known::Addresses(addresses) => Poll::Ready(Ok(addresses.clone())),
            Known::Missing(missing) => Poll::Ready(Err(*missing)),
            Known::Asked => {
                let mut waiting = self.waiting.borrow_mut();
                // Those that have given up stay listed until the answer comes, in a few seconds at most.
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }

    /// True if `peer` is one of the addresses, as far as they are known.
    pub fn leads_to(&self, peer: IpAddr) -> bool {
        match &*self.known.borrow() {
            Known::Addresses(addresses) if self.is_name => addresses.contains(&peer),
            _ => true,
        }
    }

    fn adopt(&self, found: &Found) {
        let known = match found {
            Found::Addresses(addresses) => {
                if matches!(&*self.known.borrow(), Known::Addresses(known) if **known == **addresses) {
                    return;
                }
                self.history.borrow_mut().failed.retain(|(address, _)| addresses.contains(address));
                Known::Addresses(Rc::from(&**addresses))
            }
            Found::Missing(missing) => Known::Missing(*missing),
        };
        *self.known.borrow_mut() = known;
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// All of `addresses` in the order to try them.
    pub fn order(&self, addresses: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let mut history = self.history.borrow_mut();
        history.failed.retain(|(_, at)| now.since(*at) < SHUN);
        let v6_first = history.worked.filter(|(_, at)| now.since(*at) < PREFER).is_none_or(|(v6, _)| v6);
        let has_failed = |address: &IpAddr| history.failed.iter().any(|(failed, _)| failed == address);
        order(addresses, turn, v6_first, has_failed)
    }

    /// Remembers that a connection to `address` worked.
    pub fn worked(&self, address: IpAddr, now: Instant) {
        let mut history = self.history.borrow_mut();
        history.worked = Some((address.is_ipv6(), now));
        history.failed.retain(|(failed, _)| *failed != address);
    }

    /// Remembers that one did not, or was too slow.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut history = self.history.borrow_mut();
        history.failed.retain(|(failed, _)| *failed != address);
        history.failed.push((address, now));
    }
}

impl Upstreams {
    /// Takes newly resolved names over, and wakes who waited for them.
    pub fn adopt(&self, names: &Names) {
        for slot in self.slots.iter().filter(|slot| slot.reach.is_name) {
            if let Some(found) = names.get(&slot.dialled.0) {
                slot.reach.adopt(found);
            }
        }
    }
}

/// Both families in turn, IPv6 first or IPv4 (RFC 8305 §4); within each, `turn` says who is first, so that connections
/// are spread. Those that have failed come after all others.
fn order(addresses: &[IpAddr], turn: usize, v6_first: bool, has_failed: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let mut ordered = Vec::with_capacity(addresses.len());
    for failed in [false, true] {
        let of_family = |v6: bool| {
            let mut family: Vec<IpAddr> = addresses
                .iter()
                .copied()
                .filter(|address| address.is_ipv6() == v6 && has_failed(address) == failed)
                .collect();
            let shift = turn % family.len().max(1);
            family.rotate_left(shift);
            family
        };
        let (first, second) = (of_family(v6_first), of_family(!v6_first));
        for at in 0..first.len().max(second.len()) {
            ordered.extend(first.get(at));
            ordered.extend(second.get(at));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::rt::{EventLoop, Rung};
    use std::sync::Arc;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ips(list: &str) -> Vec<IpAddr> {
        list.split_whitespace().map(ip).collect()
    }

    fn addresses(list: &str) -> Found {
        Found::Addresses(Arc::from(ips(list)))
    }

    #[test]
    fn families_alternate_addresses_take_turns_and_failures_go_last() {
        for (name, given, turn, v6_first, failed, ordered) in [
            ("none", "", 0, true, "", ""),
            ("one", "1.1.1.1", 7, true, "", "1.1.1.1"),
            ("IPv6 first", "1.1.1.1 1.1.1.2 ::1 ::2", 0, true, "", "::1 1.1.1.1 ::2 1.1.1.2"),
            ("IPv4 first", "1.1.1.1 1.1.1.2 ::1 ::2", 0, false, "", "1.1.1.1 ::1 1.1.1.2 ::2"),
            ("next turn", "1.1.1.1 1.1.1.2 ::1 ::2", 1, true, "", "::2 1.1.1.2 ::1 1.1.1.1"),
            ("uneven", "1.1.1.1 1.1.1.2 1.1.1.3 ::1", 0, true, "", "::1 1.1.1.1 1.1.1.2 1.1.1.3"),
            ("turns of three", "1.1.1.1 1.1.1.2 1.1.1.3", 5, true, "", "1.1.1.3 1.1.1.1 1.1.1.2"),
            ("one failed", "1.1.1.1 1.1.1.2 ::1", 0, true, "::1", "1.1.1.1 1.1.1.2 ::1"),
            ("the rest still takes turns", "1.1.1.1 1.1.1.2 1.1.1.3", 1, true, "1.1.1.1", "1.1.1.3 1.1.1.2 1.1.1.1"),
            ("all failed", "1.1.1.1 ::1", 0, true, "::1 1.1.1.1", "::1 1.1.1.1"),
        ] {
            let failed = ips(failed);
            assert_eq!(order(&ips(given), turn, v6_first, |a| failed.contains(a)), ips(ordered), "{name}");
        }
    }

    #[test]
    fn what_worked_last_goes_first_and_what_failed_last_for_a_while() {
        let reach = Reach::new("a.test");
        let at = |seconds| Instant(0) + Duration::from_secs(seconds);
        let order = |seconds| reach.order(&ips("1.1.1.1 ::1"), at(seconds));
        assert_eq!(order(0), ips("::1 1.1.1.1"));
        reach.worked(ip("1.1.1.1"), at(0));
        assert_eq!(order(599), ips("1.1.1.1 ::1"));
        assert_eq!(order(600), ips("::1 1.1.1.1"));
        reach.failed(ip("::1"), at(700));
        reach.failed(ip("::1"), at(701));
        assert_eq!(reach.history.borrow().failed.len(), 1);
        assert_eq!(order(710), ips("1.1.1.1 ::1"));
        assert_eq!(order(711), ips("::1 1.1.1.1"));
        reach.failed(ip("::1"), at(800));
        reach.worked(ip("::1"), at(801));
        assert_eq!(order(802), ips("::1 1.1.1.1"), "it works again");
    }

    #[test]
    fn who_asks_before_the_first_answer_waits_for_it() {
        let mut event_loop = EventLoop::climb_down(Rung::Epoll, 256).unwrap();
        event_loop.block_on(async {
            let reach = Rc::new(Reach::new("a.test"));
            let (waiting, seen) = (reach.clone(), Rc::new(Cell::new(None)));
            let saw = seen.clone();
            let task = monoio::spawn(async move { saw.set(Some(waiting.addresses().await)) });
            monoio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(seen.take(), None);
            reach.adopt(&addresses("1.1.1.1"));
            task.await;
            assert_eq!(seen.take().unwrap().unwrap().to_vec(), ips("1.1.1.1"));
            assert!(reach.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn newer_answers_replace_older_ones_and_literals_stay() {
        let mut event_loop = EventLoop::climb_down(Rung::Epoll, 256).unwrap();
        event_loop.block_on(async {
            let reach = Reach::new("a.test");
            assert!(reach.leads_to(ip("9.9.9.9")), "nothing is known yet");
            reach.adopt(&Found::Missing(Missing::NoName));
            assert_eq!(reach.addresses().await, Err(Missing::NoName));
            for given in ["1.1.1.1 ::1", "1.1.1.2"] {
                reach.adopt(&addresses(given));
                assert_eq!(reach.addresses().await.unwrap().to_vec(), ips(given));
                assert!(ips(given).into_iter().all(|address| reach.leads_to(address)));
            }
            assert!(!reach.leads_to(ip("1.1.1.1")));
            let literal = Reach::new("::1");
            assert_eq!(literal.addresses().await.unwrap().to_vec(), ips("::1"));
            assert!(literal.leads_to(ip("::1")));
        });
    }
}
