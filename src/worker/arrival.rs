//! How connections come to a worker: accepted here, or handed over by one that has notably more to do.
//!
//! The kernel spreads connections by a hash of their addresses, so that of two connections both come to the same of two
//! workers half of the time. Where each carries many requests at once, one core is full then and the other idle. So a worker
//! that has accepted a connection looks at what the others have, and hands it over as it is, before a byte was read: the
//! other serves it as if it had accepted it itself. Once served, a connection stays.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use monoio::net::TcpStream;

use super::gate::Gate;
use super::state::{Place, Worker};
use super::{connection, secure};
use crate::base::ListenerId;
use crate::base::clock::Instant;
use crate::config::{Config, Spread};
use crate::listener::{Acceptor, Entry};
use crate::mesh::inbox::Inbox;
use crate::net::rt::spawn;
use crate::net::socket::{attach, detach};
use crate::net::stream::Stream;
use crate::telemetry::metrics::board::Board;

/// Connections that may be on their way to one worker.
const INBOX: usize = 128;

/// A worker keeps what it accepts unless it has more than the idlest by more than this part of its own: with few
/// connections each counts, and hundreds spread evenly by themselves.
const SLACK: u64 = 8;

/// How many of the others are looked at: with two this is all; with very many, looking at all would cost more than it brings.
const LOOKED_AT: usize = 8;

/// So many connections may be handed over at once, and one more each so often. Where connections come and go by the thousand,
/// as many are on either worker at most times, and giving them away costs without bringing anything.
const AT_ONCE: u32 = 128;
const EVERY: Duration = Duration::from_millis(2);

/// A worker that has not come to its once-a-second duty for so long is given nothing.
const STUCK: Duration = Duration::from_secs(3);

/// A connection that another worker has accepted.
#[derive(Debug)]
pub struct Arrival {
    socket: OwnedFd,
    entry: Entry,
}

/// How often a worker hands connections over.
#[derive(Debug, Default)]
pub struct Pace(Cell<Instant>);

impl Pace {
    /// Whether it may now; if so, it is taken to.
    fn may(&self, now: Instant) -> bool {
        let due = self.0.get().max(now);
        let is_due = due - now <= EVERY * (AT_ONCE - 1);
        if is_due {
            self.0.set(due + EVERY);
        }
        is_due
    }
}

/// An inbox for each worker; none if each serves what it accepts.
pub fn inboxes(config: &Config) -> Vec<Inbox<Arrival>> {
    let workers = config.cores.len();
    match config.spread {
        Spread::Even if workers > 1 => (0..workers).map(|_| Inbox::new(INBOX)).collect(),
        _ => Vec::new(),
    }
}

/// Accepts what comes to `acceptor`, until it is closed.
pub(super) async fn accept(worker: Rc<Worker>, listener: usize, acceptor: Rc<Acceptor>, gate: Rc<Gate>) {
    let open = worker.config().listeners[listener].open;
    let listener = ListenerId(listener as u16);
    let mut scout = false;
    loop {
        let (tcp, peer) = match acceptor.accept().await {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return,
            Err(shortage) => {
                scout = gate.failed(&worker, &acceptor, shortage, scout).await;
                continue;
            }
        };
        let fd = tcp.as_raw_fd();
        let entry = Entry { listener, peer, open };
        match idler(&worker) {
            None => serve(&worker, tcp, entry, worker.take_place(listener)),
            Some(other) => hand_over(&worker, other, tcp, entry),
        }
        scout = gate.passed(&worker, &acceptor, fd, scout).await;
    }
}

/// Serves a connection here. Without a place it is closed, which tells the client at once; a silent queue would not.
fn serve(worker: &Rc<Worker>, tcp: TcpStream, entry: Entry, place: Option<Place>) {
    let Some(place) = place else { return };
    let worker = worker.clone();
    if worker.config().listeners[usize::from(entry.listener.0)].tls.is_some() {
        spawn(async move {
            let _place = place;
            worker.drain.unless_given_up(pin!(secure::serve(worker.clone(), tcp, entry))).await;
            worker.buffers.note_freed();
        });
        return;
    }
    let stream = Stream::new(tcp, None, worker.buffers.clone());
    spawn(connection::serve_in_place(worker, stream, entry, place));
}

/// Who should serve a new connection instead of this worker.
fn idler(worker: &Worker) -> Option<usize> {
    let Worker { shared, clock, .. } = worker;
    let (own, workers) = (usize::from(worker.id.0), shared.arrivals.len());
    let load = |at: usize| shared.boards[at].load() + shared.arrivals[at].coming() as u64;
    if workers == 0 {
        return None;
    }
    let here = load(own);
    if here == 0 {
        return None;
    }
    let connections_max = worker.config().limits.connections_max as u64;
    let is_full = |at: usize| shared.boards[at].connections() + shared.arrivals[at].coming() as u64 >= connections_max;
    // A place anywhere is better than none.
    let below = if is_full(own) { u64::MAX } else { here - here / SLACK };
    let is_able = |at: usize| turns(&shared.boards[at], clock.now()) && !is_full(at);
    // Not always the same eight.
    let from = if workers > LOOKED_AT + 1 { worker.random() as usize % (workers - 1) } else { 0 };
    let others = (0..LOOKED_AT.min(workers - 1)).map(|step| (own + 1 + (from + step) % (workers - 1)) % workers);
    let idler = others
        .map(|at| (load(at), at))
        .filter(|(load, at)| *load < below && is_able(*at))
        .min_by_key(|(load, _)| *load);
    idler.map(|(_, at)| at).filter(|_| is_full(own) || worker.pace.may(clock.now()))
}

/// True if a worker accepts, and its event loop is not stuck.
fn turns(board: &Board, now: Instant) -> bool {
    board.accepting.get() > 0 && board.silence(now) < STUCK
}

/// Hands a connection over, or serves it here if the other takes none.
fn hand_over(worker: &Rc<Worker>, other: usize, tcp: TcpStream, entry: Entry) {
    match worker.shared.arrivals[other].put(Arrival { socket: detach(tcp), entry }) {
        Ok(()) => {
            worker.board.handed_over.add(1);
            worker.shared.ports[other].ring();
        }
        Err(arrival) => serve_arrival(worker, arrival, worker.take_place(entry.listener)),
    }
}

/// Serves the connections that others have handed over.
pub(super) fn take_over(worker: &Rc<Worker>) {
    if let Some(inbox) = inbox(worker) {
        // More than it holds were not there when this worker was woken, and wake it again.
        for _ in 0..INBOX {
            // Open as soon as it is no longer coming: others would see it twice, or not at all.
            let taken = inbox.take(|arrival| (worker.take_place(arrival.entry.listener), arrival));
            let Some((place, arrival)) = taken else { return };
            serve_arrival(worker, arrival, place);
        }
    }
}

fn serve_arrival(worker: &Rc<Worker>, Arrival { socket, entry }: Arrival, place: Option<Place>) {
    // An event loop that cannot take it is out of memory: the connection is closed, as one would be that was accepted.
    if let Ok(tcp) = attach(socket) {
        serve(worker, tcp, entry, place);
    }
}

fn inbox(worker: &Worker) -> Option<&Inbox<Arrival>> {
    worker.shared.arrivals.get(usize::from(worker.id.0))
}

/// True if connections were handed over and are not yet served.
pub(super) fn is_coming(worker: &Worker) -> bool {
    inbox(worker).is_some_and(|inbox| inbox.coming() > 0)
}

/// Takes no more connections from others, and serves those that have come.
pub(super) fn close(worker: &Rc<Worker>) {
    inbox(worker).into_iter().for_each(Inbox::close);
    take_over(worker);
}

/// Closes a worker's inbox, and the connections in it, when its thread ends, however that ends: others would go on handing
/// connections to one that seems to be idle.
pub(super) struct ClosedAtEnd(pub(super) Rc<Worker>);

impl Drop for ClosedAtEnd {
    fn drop(&mut self) {
        if let Some(inbox) = inbox(&self.0) {
            inbox.close();
            while inbox.take(drop).is_some() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::base::WorkerId;
    use crate::net::rt::{EventLoop, Rung};
    use crate::worker::connection::tests::shared;

    /// The first of two workers, which have so many connections, and both accept.
    fn first(own: u64, other: u64) -> Rc<Worker> {
        first_of(&[own, other])
    }

    fn first_of(connections: &[u64]) -> Rc<Worker> {
        let worker = Worker::new(WorkerId(0), shared(connections.len()));
        for (board, connections) in worker.shared.boards.iter().zip(connections) {
            board.listeners[0].open.set(*connections);
            board.accepting.set(1);
            board.beat_ns.set(worker.clock.now().0);
        }
        worker
    }

    /// Runs `test` on an event loop, which a worker's parts need.
    fn on_a_loop(test: impl AsyncFnOnce()) {
        EventLoop::climb_down(Rung::Epoll, 256).unwrap().block_on(test());
    }

    fn connection() -> (TcpStream, monoio::net::TcpStream, Entry) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, peer) = listener.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        let far = monoio::net::TcpStream::from_std(far).unwrap();
        (near, far, Entry { listener: ListenerId(0), peer, open: true })
    }

    #[test]
    fn a_worker_hands_over_what_comes_to_it_above_its_share() {
        on_a_loop(async || {
            for (own, other, hands_over) in [
                (0, 0, false),
                (1, 0, true),
                (1, 1, false),
                (0, 9, false),
                (7, 6, true),
                // From eight on one more is no matter, from sixteen on two are.
                (8, 7, false),
                (8, 6, true),
                (16, 14, false),
                (16, 13, true),
                (800, 700, false),
                (800, 699, true),
            ] {
                assert_eq!(idler(&first(own, other)), hands_over.then_some(1), "{own} here, {other} there");
            }
            assert_eq!(idler(&first_of(&[5, 4, 2, 3])), Some(2), "to the one with the fewest");
            assert_eq!(idler(&first_of(&[5])), None);
            // However many there are, each is found sooner or later, and itself never.
            let many: Vec<u64> = [3].into_iter().chain([0; 30]).collect();
            let worker = first_of(&many);
            let mut found: Vec<usize> = Vec::new();
            for _ in 0..2_000 {
                worker.pace.0.set(Instant(0));
                found.extend(idler(&worker));
            }
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.first(), Some(&1));
            assert_eq!(found.last(), Some(&30));
        });
    }

    #[test]
    fn a_burst_is_handed_over_and_then_one_each_two_milliseconds() {
        let (pace, start) = (Pace::default(), Instant(1_000_000_000));
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((0..200).filter(|_| pace.may(start)).count(), AT_ONCE as usize);
        assert!(!pace.may(at(1)));
        assert_eq!((0..9).filter(|_| pace.may(at(2))).count(), 1);
        assert_eq!((0..9).filter(|_| pace.may(at(8))).count(), 3);
        assert_eq!((0..200).filter(|_| pace.may(at(60_000))).count(), AT_ONCE as usize);
    }

    #[test]
    fn streams_and_what_is_on_its_way_count() {
        on_a_loop(async || {
            let worker = first(1, 1);
            worker.board.listeners[0].http2_streams.set(30);
            assert_eq!(idler(&worker), Some(1));
            worker.shared.boards[1].listeners[0].http2_streams.set(30);
            assert_eq!(idler(&worker), None);

            let worker = first(2, 0);
            let mut held = Vec::new();
            for coming in 1..=2 {
                let (near, far, entry) = connection();
                hand_over(&worker, 1, far, entry);
                assert_eq!(worker.shared.arrivals[1].coming(), coming);
                assert_eq!(idler(&worker), (coming < 2).then_some(1), "{coming} are coming");
                held.push(near);
            }
            assert_eq!(worker.board.handed_over.get(), 2);
        });
    }

    #[test]
    fn nothing_goes_to_a_worker_that_is_full_or_does_not_turn() {
        on_a_loop(async || {
            let max = shared(2).config.limits.connections_max as u64;
            assert_eq!(idler(&first(max, max - 1)), Some(1), "the last place anywhere");
            assert_eq!(idler(&first(max, max)), None);
            let full = first(max - 1, max);
            full.board.listeners[0].http2_streams.set(max);
            assert_eq!(idler(&full), None);

            let early = first(5, 0);
            early.shared.boards[1].accepting.set(0);
            assert_eq!(idler(&early), None, "it does not accept yet");
        });
    }

    #[test]
    fn a_worker_is_given_nothing_once_it_was_silent_for_three_seconds() {
        let (board, beat) = (Board::new(1, 1, 0), Instant(7_000_000_000));
        board.accepting.set(1);
        board.beat_ns.set(beat.0);
        assert!(turns(&board, beat + (STUCK - Duration::from_nanos(1))));
        assert!(!turns(&board, beat + STUCK));
        // It turns again.
        board.beat_ns.set((beat + STUCK).0);
        assert!(turns(&board, beat + STUCK));
        board.accepting.set(0);
        assert!(!turns(&board, beat + STUCK));
    }

    #[test]
    fn what_the_other_does_not_take_is_served_here() {
        on_a_loop(async || {
            let worker = first(2, 0);
            worker.shared.arrivals[1].close();
            let (_near, far, entry) = connection();
            hand_over(&worker, 1, far, entry);
            assert_eq!((worker.board.connections(), worker.board.handed_over.get()), (3, 0));

            let worker = first(1_000, 0);
            let mut held = Vec::new();
            // One more than there is room for.
            for _ in 0..=INBOX {
                let (near, far, entry) = connection();
                hand_over(&worker, 1, far, entry);
                held.push(near);
            }
            assert_eq!((worker.board.connections(), worker.board.handed_over.get()), (1_001, INBOX as u64));
        });
    }

    #[test]
    fn a_worker_that_ends_leaves_no_connection_behind() {
        on_a_loop(async || {
            let worker = first(1, 0);
            let (mut near, far, entry) = connection();
            hand_over(&worker, 1, far, entry);
            drop(ClosedAtEnd(Worker::new(WorkerId(1), worker.shared.clone())));
            assert_eq!(near.read(&mut [0]).unwrap(), 0, "it is closed");
            let (_near, far, entry) = connection();
            hand_over(&worker, 1, far, entry);
            assert_eq!(worker.board.connections(), 2, "and the next is served elsewhere");
        });
    }
}
