//! Connections to one endpoint that carry many exchanges: those that are open, and those that are being made.
//!
//! When requests come together and there is no connection, the first makes one and the others wait to share it: a hundred
//! handshakes for a hundred requests would be slower for each of them. How many may wait for one is what the endpoint
//! was found to allow on one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::Slot;
use super::http2::{Exchange, Link, STREAMS_MAX};
use super::pool::Used;
use crate::base::clock::Instant;
use crate::config::EndpointHttp2;

/// The connections of one endpoint.
pub struct Links {
    /// Whether HTTP/2 is spoken.
    http2: EndpointHttp2,
    /// Where it is agreed on with each connection: what was agreed on last.
    agreed: Cell<Option<bool>>,
    /// The one that was made last at the end.
    open: RefCell<Vec<Rc<Link>>>,
    /// Those that are being made, or that cannot be shared yet.
    making: Cell<usize>,
    /// Requests that wait for them.
    waiting: Cell<usize>,
    wakers: RefCell<Vec<Waker>>,
    /// How often one was made that cannot be shared, or none.
    failures: Cell<u64>,
    /// Exchanges that a connection was found to carry at once.
    allowed: Cell<usize>,
}

/// Makes one connection while others wait for it.
pub struct Lead(Rc<Slot>);

impl Lead {
    /// It came about: it carries `allowed` exchanges.
    pub(super) fn done(self, allowed: usize) {
        self.0.links.allowed.set(allowed.clamp(1, STREAMS_MAX));
    }

    /// It did not, or carries one exchange only: who waits need not wait for the next as well.
    pub(super) fn failed(self) {
        let failures = &self.0.links.failures;
        failures.set(failures.get() + 1);
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let links = &self.0.links;
        links.making.set(links.making.get() - 1);
        links.wakers.take().into_iter().for_each(Waker::wake);
    }
}

/// Counts one request that waits.
struct Waiting<'a>(&'a Links);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

impl Links {
    /// None yet; `http2` says whether there will be any.
    pub(super) fn new(http2: EndpointHttp2) -> Links {
        Links {
            http2,
            agreed: Cell::new(None),
            open: RefCell::default(),
            making: Cell::new(0),
            waiting: Cell::new(0),
            wakers: RefCell::default(),
            failures: Cell::new(0),
            allowed: Cell::new(STREAMS_MAX),
        }
    }

    /// True if the next connection is likely to carry many exchanges.
    fn is_expected(&self, is_secure: bool) -> bool {
        match self.http2 {
            EndpointHttp2::Never => false,
            EndpointHttp2::Auto => is_secure && self.agreed.get() != Some(false),
            EndpointHttp2::PriorKnowledge => true,
        }
    }

    /// True if nothing else is spoken.
    pub(super) fn is_all(&self) -> bool {
        self.http2 == EndpointHttp2::PriorKnowledge
    }

    /// True if HTTP/2 is spoken on a connection on which `protocol` was agreed on.
    pub(super) fn is_spoken(&self, protocol: Option<&[u8]>) -> bool {
        let agreed = protocol == Some(b"h2");
        match self.http2 {
            EndpointHttp2::Never => false,
            EndpointHttp2::Auto => {
                self.agreed.set(Some(agreed));
                agreed
            }
            EndpointHttp2::PriorKnowledge => true,
        }
    }

    /// Takes over a connection that was made.
    pub(super) fn add(&self, link: Rc<Link>) {
        self.open.borrow_mut().push(link);
    }

    /// A place on a connection, if one is free. The connections that were made first are filled first, so that those that are
    /// needed no more come to rest.
    pub(super) fn begin(&self, used: Used) -> Option<Exchange> {
        let mut open = self.open.borrow_mut();
        if open.is_empty() {
            return None;
        }
        open.retain(|link| link.is_open());
        open.iter().filter(|link| used.takes(link)).find_map(Link::begin)
    }

    /// As [`Links::begin`], on one that is being made as well; `None` if the caller is to make one itself.
    async fn join(&self, used: Used) -> Option<Exchange> {
        let failures = self.failures.get();
        self.waiting.set(self.waiting.get() + 1);
        let _waiting = Waiting(self);
        poll_fn(|cx| {
            if let Some(exchange) = self.begin(used) {
                return Poll::Ready(Some(exchange));
            }
            // One of them is for the request that makes it.
            let places = self.making.get() * (self.allowed.get() - 1);
            if self.waiting.get() > places || self.failures.get() != failures {
                return Poll::Ready(None);
            }
            let mut wakers = self.wakers.borrow_mut();
            // Those that have given up stay listed until the connection is made, or is not.
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Lets go what has been idle since before `idle`, or leads elsewhere.
    pub(super) fn sweep(&self, idle: impl Fn(Instant) -> bool, leads_there: impl Fn(&Link) -> bool) {
        self.open.borrow_mut().retain(|link| {
            if link.idle_since().is_some_and(&idle) || !leads_there(link) {
                link.let_go();
            }
            link.is_open()
        });
    }

    /// Closes the one that has been idle for longest.
    pub(super) fn make_room(&self) {
        let mut open = self.open.borrow_mut();
        let idle = open.iter().enumerate().filter_map(|(at, link)| Some((link.idle_since()?, at)));
        let oldest = idle.min().map(|(_, at)| open.remove(at));
        drop(open);
        oldest.into_iter().for_each(|link| link.let_go());
    }

    /// Lets all go: from now on others are to be made.
    pub(super) fn let_go(&self) {
        self.open.take().iter().for_each(|link| link.let_go());
    }

    /// Those on which nothing is under way.
    pub(super) fn idle(&self) -> usize {
        self.open.borrow().iter().filter(|link| link.idle_since().is_some()).count()
    }
}

impl Slot {
    /// A place on a connection that others are making, once it can be had; or, if HTTP/2 is likely to be spoken, the lead in
    /// making one.
    pub(super) async fn join_or_lead(self: &Rc<Slot>, used: Used) -> Result<Exchange, Option<Lead>> {
        if !self.links.is_expected(self.tls.borrow().is_some()) {
            return Err(None);
        }
        match self.links.join(used).await {
            Some(exchange) => Ok(exchange),
            None => {
                self.links.making.set(self.links.making.get() + 1);
                Err(Some(Lead(self.clone())))
            }
        }
    }
}
