//! Plays a body in time: events when they are due, keep-alives while waiting, and the end the script asks for.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::answer::{Body, End, STAMP, STAMP_DIGITS};
use super::stats::monotonic_ns;
use super::tap::Wire;

/// A body on its way to hyper.
pub(crate) struct Play {
    body: Body,
    wire: Rc<Wire>,
    /// When the last step was due; the next is due so long after.
    due: Instant,
    comments: Option<(Duration, &'static [u8])>,
    last_sent: Instant,
    gzip: Option<GzEncoder<Vec<u8>>>,
    sleep: Pin<Box<Sleep>>,
    exact: bool,
    done: bool,
}

/// What a body needs to know besides its steps.
pub(crate) struct How {
    /// When the request was read: the time from which the first step counts.
    pub since: Instant,
    /// A keep-alive of these bytes so often while waiting.
    pub comments: Option<(Duration, &'static [u8])>,
    /// The stream is compressed as it goes.
    pub gzip: bool,
    /// The length is announced.
    pub exact: bool,
}

impl Play {
    pub(crate) fn new(body: Body, wire: Rc<Wire>, how: How) -> Play {
        Play {
            done: how.exact && body.bytes == 0 && body.end == End::Clean,
            exact: how.exact,
            body,
            wire,
            due: how.since,
            comments: how.comments,
            last_sent: how.since,
            gzip: how.gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
            sleep: Box::pin(tokio::time::sleep_until(how.since)),
        }
    }

    fn frame(&mut self, bytes: Vec<u8>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.gzip {
            // Flushed after each piece, as a server that streams compressed must.
            Some(gzip) => match gzip.write_all(&bytes).and_then(|()| gzip.flush()) {
                Ok(()) => std::mem::take(gzip.get_mut()),
                Err(_) => return Poll::Ready(None),
            },
            None => bytes,
        };
        Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
    }
}

impl HttpBody for Play {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        loop {
            let due = match this.body.steps.front() {
                Some(step) => Some(this.due + step.after),
                None if this.done => return Poll::Ready(None),
                None => match this.body.end {
                    End::Clean => {
                        this.done = true;
                        return match this.gzip.take().map(GzEncoder::finish) {
                            Some(Ok(tail)) => Poll::Ready(Some(Ok(Frame::data(tail.into())))),
                            _ => Poll::Ready(None),
                        };
                    }
                    End::Cut(cut) => {
                        // The tap ends the connection when hyper has flushed; hyper drops us then.
                        this.wire.cut(cut);
                        return Poll::Pending;
                    }
                    End::Stall => None,
                },
            };
            let now = Instant::now();
            if let Some(due) = due.filter(|due| *due <= now)
                && let Some(mut step) = this.body.steps.pop_front()
            {
                this.due = due;
                this.last_sent = now;
                if step.is_event {
                    stamp(&mut step.bytes);
                    this.wire.with_exchange(|exchange| exchange.event());
                }
                if this.gzip.is_none() && this.body.end == End::Clean && this.body.steps.is_empty() {
                    this.done = true;
                }
                if step.bytes.is_empty() {
                    continue;
                }
                return this.frame(step.bytes);
            }
            // A stream that stalls keeps sending comments: that is what makes a stall hard to see.
            let comment_at = this.comments.map(|(every, bytes)| (this.last_sent + every, bytes));
            if let Some((at, bytes)) = comment_at
                && at <= now
            {
                this.last_sent = now;
                return this.frame(bytes.to_vec());
            }
            let wake = match (due, comment_at.map(|(at, _)| at)) {
                (Some(due), Some(comment)) => due.min(comment),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => return Poll::Pending,
            };
            this.sleep.as_mut().reset(wake);
            ready!(this.sleep.as_mut().poll(cx));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        if self.exact { SizeHint::with_exact(self.body.bytes) } else { SizeHint::default() }
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        // hyper drops a body when it has taken all of it (or wants none, as for HEAD). If the connection
        // failed instead, no flush follows, and the request still counts as cancelled.
        self.wire.finish();
    }
}

/// Puts the time into an event that has a place for it.
fn stamp(bytes: &mut [u8]) {
    let Some(at) = memchr::memmem::find(bytes, STAMP.as_bytes()) else {
        return;
    };
    let digits = format!("{:>STAMP_DIGITS$}", monotonic_ns());
    let end = at + STAMP.len();
    bytes[end - STAMP_DIGITS..end].copy_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_event_stays_json_and_carries_the_time() {
        let before = monotonic_ns();
        let mut bytes = format!("{{\"a\":1,{STAMP}}}").into_bytes();
        stamp(&mut bytes);
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        let sent = value["x_sent_ns"].as_u64().expect("a number");
        assert!(before <= sent && sent <= monotonic_ns());
    }
}
