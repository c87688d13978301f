//! How long a client may take that holds what others need.

use std::sync::Arc;

use super::*;
use crate::base::WorkerId;
use crate::net::heap::{self, COUNTED_BYTES};
use crate::net::rt::{EventLoop, Rung};
use crate::worker::connection::tests::shared;

#[test]
fn beyond_the_memory_that_there_is_a_write_has_a_second() {
    EventLoop::climb_down(Rung::Epoll, 256).unwrap().block_on(async {
        let mut shared = shared(1);
        let max = heap::held() + (8 << 20);
        Arc::get_mut(&mut shared).unwrap().memory_max = max;
        let worker = Worker::new(WorkerId(0), shared);
        let (now, within) = (worker.clock.now(), worker.config().client.write);
        assert!(within > drain::LAST_WRITE);
        let at: Vec<u8> = Vec::with_capacity(max - heap::held());
        assert_eq!(heap::held(), max, "no more and no less");
        assert!(!worker.is_short_of_memory() && worker.has_memory_for(0) && !worker.has_memory_for(1));
        assert_eq!(write_until(&worker, now), now + within);
        let past: Vec<u8> = Vec::with_capacity(COUNTED_BYTES);
        assert!(worker.is_short_of_memory());
        assert_eq!(write_until(&worker, now), now + drain::LAST_WRITE);
        drop((at, past));
        assert_eq!(write_until(&worker, now), now + within);
    });
}
