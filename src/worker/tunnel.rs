//! An exchange whose connection becomes a WebSocket: what either side says goes to the other, until one has ended it.
//!
//! Frames are not taken apart: their headers are followed, so that rules and bounds hold and a Close of ours stands between
//! two frames. How a tunnel ends is told as it was: a Close is passed on, an end without a Close becomes an end without a
//! Close, and what we end ourselves ends with a Close that says why. A side that is in the middle of a frame, or takes
//! nothing, can be told nothing: its connection just ends.

mod judge;
mod way;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use super::attempt::{self, Begun};
use super::connection::After;
use super::exchange::{Call, Scene, Stop, cut};
use super::relay;
use super::state::Worker;
use crate::base::clock::Instant;
use crate::base::reject::{Origin, Reject};
use crate::config::Model;
use crate::listener::websocket::halves;
use crate::net::rt;
use crate::net::timer::Timer;
use crate::routing::Plan;
use crate::telemetry::metrics::board::Board;
use crate::telemetry::{EndedBy, Fault, Phase, State, WebSocket};
use crate::upstream::Connection;
use crate::wire::websocket::{Broken, Follower, Handshake, Role, write_close};
use judge::{Judge, LAST_WAIT, Limits, Look, Side, Verdict};
use way::{Common, Ended, Signs, Way};

/// Counts one WebSocket, from before its handshake goes out, for as long as it lives.
struct Place(Arc<Board>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.websockets.open.sub(1);
    }
}

impl Place {
    fn take(worker: &Worker) -> Result<Place, Reject> {
        let (open, max) = (&worker.board.websockets.open, worker.config().websocket.connections_max);
        if open.get() >= max {
            let text = format!("A worker of this gateway may have {max} WebSockets open, and has them.");
            let mut reject = Reject::gateway(503, "websockets_exhausted", text);
            reject.retry_after_s = Some(1);
            return Err(reject);
        }
        open.add(1);
        Ok(Place(worker.board.clone()))
    }
}

/// Asks the endpoints of `plan` for a WebSocket, and relays what passes over it; or the answer, if they agree to none.
///
/// # Errors
/// As with any exchange; how a WebSocket ended is in the record.
pub async fn run<'a>(
    scene: &mut Scene<'a>,
    mut call: Call,
    model: &Model,
    plan: Plan<'a>,
    handshake: &Handshake,
) -> Result<After, Stop> {
    let _place = Place::take(scene.worker)?;
    let begun = attempt::run(scene, &mut call, model, plan).await?;
    scene.give_back(call);
    let status = begun.head.status;
    if status == 101 {
        return open(scene, begun, handshake).await;
    }
    if scene.client.is_http2() && status < 300 {
        // There any success is a tunnel (RFC 8441 §4).
        let text = format!("The provider answered with status {status} and opened no WebSocket.");
        return Err(Stop::Reject(Reject::upstream(502, "upstream_no_websocket", text), State::UpstreamError));
    }
    relay::run(scene, begun, model).await
}

/// Tells the client that its connection is a WebSocket now, as its endpoint has said, and relays.
async fn open(scene: &mut Scene<'_>, mut begun: Begun, handshake: &Handshake) -> Result<After, Stop> {
    let worker = scene.worker;
    scene.record.phase = Phase::Relay;
    let mut head = worker.buffers.take();
    scene.write_switch(&mut head, &begun.head, &handshake.accept);
    scene.client.timer.set(scene.write_until(worker.clock.now()));
    worker.buffers.give(scene.client.write(head).await?);
    scene.record.timings.written = scene.mark();
    let relayed = converse(scene, &mut begun.connection).await;
    end(scene, begun.connection, relayed).await
}

/// How a tunnel came to its end, and what can still be said.
struct Relayed {
    verdict: Verdict,
    /// True if a Close of ours can still be said to the client, and to the upstream.
    can_be_told: [bool; 2],
    /// True if the upstream ended by an error.
    broke: bool,
    socket: WebSocket,
}

/// Relays until one side has ended it, or a timer has.
async fn converse(scene: &mut Scene<'_>, connection: &mut Connection) -> Relayed {
    let worker = scene.worker;
    let (config, board) = (worker.config(), &worker.board.websockets);
    let now = worker.clock.now();
    let common = Common {
        clock: &worker.clock,
        buffers: &worker.buffers,
        held_max: config.limits.stream_bytes_max,
        life: Cell::new(now),
        stops: Cell::new(false),
    };
    let total = config.websocket.total;
    let mut judge = Judge::new(Limits {
        idle: config.websocket.idle,
        total: if total.is_zero() { Instant::NEVER } else { now + total },
        write: config.client.write,
    });
    let signs = <[Signs; 2]>::default();
    let max = config.websocket.message_bytes_max;
    let (from_client, to_client, timer) = scene.client.halves();
    let stream = connection.stream().expect("only a connection of its own is asked to switch");
    let (from_upstream, to_upstream) = halves(stream);
    let mut up = Way::new(from_client, to_upstream, Follower::new(Role::Client, max), &signs[0], &board.received);
    let mut down = Way::new(from_upstream, to_client, Follower::new(Role::Server, max), &signs[1], &board.sent);
    let (verdict, ended) = watch(worker, timer, &mut judge, &common, &signs, [&mut up, &mut down]).await;
    let can_carry = |way: &Way<'_>, ended: Option<Ended>| {
        ended.is_some_and(|ended| ended != Ended::NotTaken)
            && way.follower.is_between_frames()
            && way.follower.closed().is_none()
    };
    let code = match judge.first() {
        Some(Side::Client) => up.follower.closed().flatten(),
        Some(Side::Upstream) => down.follower.closed().flatten(),
        None => None,
    };
    let relayed = Relayed {
        verdict,
        can_be_told: [can_carry(&down, ended[1]), can_carry(&up, ended[0])],
        broke: ended[1] == Some(Ended::Over { failed: true }),
        socket: WebSocket {
            end: verdict.end(),
            close_code: code,
            messages_received: up.follower.messages(),
            messages_sent: down.follower.messages(),
        },
    };
    let record = &mut scene.record;
    (record.request_bytes, record.answer_bytes) = (up.follower.payload(), down.follower.payload());
    record.upstream_sent_bytes += up.passed;
    record.upstream_received_bytes = down.passed;
    let sent = down.passed;
    scene.client.sent_bytes += sent;
    relayed
}

/// Lets both ways go on until the judge has found it over; then, for a moment, until both stand where they can stop.
async fn watch(
    worker: &Rc<Worker>,
    timer: &Timer,
    judge: &mut Judge,
    common: &Common<'_>,
    signs: &[Signs; 2],
    [up, down]: [&mut Way<'_>; 2],
) -> (Verdict, [Option<Ended>; 2]) {
    let (mut up, mut down) = (pin!(up.run(common)), pin!(down.run(common)));
    let (mut ended, mut over) = ([None; 2], None);
    poll_fn(|cx| {
        loop {
            if ended[0].is_none()
                && let Poll::Ready(how) = up.as_mut().poll(cx)
            {
                ended[0] = Some(how);
            }
            if ended[1].is_none()
                && let Poll::Ready(how) = down.as_mut().poll(cx)
            {
                ended[1] = Some(how);
            }
            let now = worker.clock.now();
            let until = match over {
                Some((verdict, until)) if now >= until || ended.iter().all(Option::is_some) => {
                    return Poll::Ready((verdict, ended));
                }
                Some((_, until)) => until,
                None => match judge.look(now, &ended, signs, common.life.get(), worker.drain.is_over()) {
                    Look::Over(verdict) => {
                        over = Some((verdict, if verdict.is_abrupt() { now } else { now + LAST_WAIT }));
                        common.stops.set(true);
                        continue;
                    }
                    Look::Again => continue,
                    Look::Until(until) => until,
                },
            };
            timer.set(until);
            if !timer.poll_expired(cx) {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Says what is to be said last, ends both connections, and writes down how that came.
async fn end(scene: &mut Scene<'_>, mut connection: Box<Connection>, relayed: Relayed) -> Result<After, Stop> {
    let Relayed { verdict, can_be_told, broke, mut socket } = relayed;
    let worker = scene.worker;
    worker.board.websockets.ends[socket.end as usize].add(1);
    let [to_client, to_upstream] = verdict.words();
    if let Some((code, reason)) = to_upstream.filter(|_| can_be_told[1]) {
        let [a, b, c, d, ..] = worker.random().to_ne_bytes();
        let mut close = Vec::new();
        write_close(&mut close, code, reason, Some([a, b, c, d]));
        scene.record.upstream_sent_bytes += close.len() as u64;
        // Who takes nothing now need not be told why.
        let _ = connection.write_now(&mut close);
    }
    let mut last = Vec::new();
    if let Some((code, reason)) = to_client.filter(|_| can_be_told[0]) {
        socket.close_code = socket.close_code.or(Some(code));
        write_close(&mut last, code, reason, None);
    }
    scene.record.websocket = Some(Box::new(socket));
    if matches!(verdict, Verdict::Gone(_)) {
        connection.abort();
    } else {
        rt::spawn(see_off(worker.clone(), connection));
    }
    account(scene, verdict)?;
    let is_mid_frame = !can_be_told[0] && !matches!(verdict, Verdict::Closed(_));
    if !(is_mid_frame || broke && scene.client.is_http2()) {
        scene.client.timer.set(scene.write_until(worker.clock.now()).min(worker.clock.now() + LAST_WAIT));
        scene.client.end_with_next(true);
        // If this does not get through, closing says the rest.
        let _ = scene.client.write(last).await;
    }
    Ok(After::Linger)
}

/// Writes down how a tunnel ended.
///
/// # Errors
/// The client's own ways to leave.
fn account(scene: &mut Scene<'_>, verdict: Verdict) -> Result<(), Stop> {
    let code = |broken: Broken| match broken {
        Broken::TooLarge => "websocket_message_too_large",
        _ => "websocket_protocol",
    };
    let (state, ended_by) = match verdict {
        Verdict::Closed(Side::Client) => (State::Complete, EndedBy::Client),
        Verdict::Closed(Side::Upstream) => (State::Complete, EndedBy::Upstream),
        Verdict::Idle | Verdict::Total => (State::Complete, EndedBy::Gateway),
        Verdict::Gone(Side::Client) => return Err(Stop::ClientGone),
        Verdict::Stalled(Side::Client) => return Err(Stop::ClientStalled),
        Verdict::Broke(Side::Client, broken) => {
            scene.record.fault = Some(Fault { origin: Origin::Client, code: code(broken).into() });
            (State::ClientGone, EndedBy::Gateway)
        }
        Verdict::Gone(Side::Upstream) => return failed(scene, "upstream_truncated", "it left without a Close"),
        Verdict::Broke(Side::Upstream, broken) => return failed(scene, code(broken), broken.as_str()),
        Verdict::Stalled(Side::Upstream) => return failed(scene, "upstream_stalled", "it does not read"),
        Verdict::Shutdown => {
            scene.fail(&cut().0, State::GatewayError);
            return Ok(());
        }
    };
    (scene.record.state, scene.record.ended_by) = (state, ended_by);
    Ok(())
}

/// The provider failed in the middle of a WebSocket.
fn failed(scene: &mut Scene<'_>, code: &'static str, how: &str) -> Result<(), Stop> {
    let name = scene.record.endpoint.map_or("", |endpoint| scene.worker.upstreams.slot(endpoint).name.as_str());
    let reject =
        Reject::upstream(502, code, format!("The provider failed: endpoint {name}: a WebSocket to it: {how}."));
    scene.fail(&reject, State::Truncated);
    Ok(())
}

/// Lets an endpoint end its side after ours, for a moment, so that what was said last is not overtaken by a reset.
async fn see_off(worker: Rc<Worker>, mut connection: Box<Connection>) {
    let timer = worker.timers.timer();
    timer.set(worker.clock.now() + LAST_WAIT);
    let Some(stream) = connection.stream() else { return };
    stream.output.speak(true);
    stream.socket.finish();
    let input = &mut stream.input;
    poll_fn(|cx| {
        while !timer.poll_expired(cx) {
            let waiting = input.bytes().len();
            input.consume(waiting);
            match input.poll_fill(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    })
    .await;
}
