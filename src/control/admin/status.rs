//! What the gateway does just now, as JSON for people and scripts.

use serde_json::{Value, json};

use super::{Admin, DRAINING, READY};
use crate::telemetry::metrics::board::{Count, EndpointBoard};
use crate::telemetry::metrics::scrape::WorkerFacts;

impl Admin {
    /// All there is to say.
    pub(super) fn status(&mut self) -> Value {
        let facts = self.facts();
        let stage = match self.sources.progress.stage() {
            DRAINING => "draining",
            READY => "ready",
            _ => "starting",
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "stage": stage,
            "draining": facts.draining,
            "not_ready_because": self.readiness_now().err(),
            "uptime_seconds": facts.uptime.as_secs_f64(),
            "started_at": facts.process.started_s,
            "config": self.sources.config_path.as_ref().map(|path| path.display().to_string()),
            "workers": self.workers_now(&facts.workers),
            "listeners": self.listeners_now(),
            "endpoints": self.endpoints_now(),
            "names": &*self.known,
            "oldest_answer_seconds": facts.names.and_then(|names| names.oldest).map(|age| age.as_secs_f64()),
        })
    }

    fn workers_now(&self, facts: &[WorkerFacts]) -> Vec<Value> {
        let now = self.sources.clock.now();
        let boards = self.sources.scraper.boards();
        let mut workers = Vec::new();
        for (at, (worker, facts)) in self.sources.progress.workers().iter().zip(facts).enumerate() {
            let board = &boards[at];
            workers.push(json!({
                "worker": at,
                "core": worker.core,
                "pinned": worker.pinned,
                "event_loop": worker.rung,
                "client_connections": board.connections(),
                "in_flight": board.in_flight.get(),
                "ring_depth": board.ring_depth.get(),
                "busy_ratio": facts.busy,
                "cpu_seconds": facts.cpu.as_secs_f64(),
                "silent_for_seconds": board.silence(now).as_secs_f64(),
            }));
        }
        workers
    }

    fn listeners_now(&self) -> Vec<Value> {
        let addresses = self.sources.progress.addresses();
        let listeners = self.sources.config.listeners.iter().enumerate();
        let listeners = listeners.map(|(at, listener)| {
            let boards = || self.sources.scraper.boards().iter().map(|board| &board.listeners[at]);
            json!({
                "address": addresses.get(at).copied().unwrap_or(listener.address),
                "open": listener.open,
                "connections": boards().map(|board| board.open.get()).sum::<u64>(),
                "refused": boards().map(|board| board.refused.get()).sum::<u64>(),
            })
        });
        listeners.collect()
    }

    fn endpoints_now(&self) -> Vec<Value> {
        let now = self.sources.clock.now();
        let endpoints = self.sources.config.endpoints.iter().enumerate().map(|(at, endpoint)| {
            let boards = || self.sources.scraper.boards().iter().map(|board| &*board.endpoints[at]);
            let sum = |read: fn(&EndpointBoard) -> &Count| boards().map(|board| read(board).get()).sum::<u64>();
            let failed = boards().filter_map(EndpointBoard::last_failure).max_by_key(|(at, _)| *at);
            json!({
                "endpoint": endpoint.name,
                "connections": sum(|board| &board.open),
                "idle": sum(|board| &board.idle),
                "outstanding": sum(|board| &board.outstanding),
                "attempts": sum(|board| &board.attempts),
                "opened": sum(|board| &board.opened),
                "reused": sum(|board| &board.reused),
                "last_failure": failed.map(|(at, phase)| json!({
                    "phase": phase.as_str(),
                    "seconds_ago": (now - at).as_secs_f64(),
                })),
            })
        });
        endpoints.collect()
    }
}
