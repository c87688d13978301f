//! Names to addresses, for every worker.
//!
//! Each name is asked for on its own, IPv6 and IPv4 beside each other, and again when the answer's time to live ends;
//! what is learned is published as a whole. A name that stops resolving keeps its last good addresses.

mod ask;
mod hosts;
mod roster;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::{Id, JoinSet};

use super::Task;
use crate::base::clock::{Clock, Instant};
use crate::config::{Method, Resolver};
use crate::net::dns::{Lookups, Missing, Names};
use crate::routing::balance::Rng;
use crate::telemetry::log;
use ask::{FAMILIES, NameServers, ask_library};
use roster::{Answer, Roster};

/// Questions under way at a time; one that hangs is over after `resolver.timeout`.
const ASKING_MAX: usize = 256;
/// The longest sleep between two looks at what is due; timers have a horizon.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// What the resolver is given beside the names.
pub struct Means {
    /// How to ask.
    pub config: Resolver,
    /// The process's clock.
    pub clock: Clock,
    /// Bits that differ from run to run.
    pub seed: u64,
    /// Where it counts.
    pub lookups: Arc<Lookups>,
}

/// Resolves `hosts` for ever, handing each new view to `publish`. IP literals need no resolving; without any name there
/// is nothing to do.
pub fn task(
    hosts: impl IntoIterator<Item = String>,
    means: Means,
    publish: impl Fn(Arc<Names>) + Send + Sync + 'static,
) -> Option<Task> {
    let hosts: BTreeSet<String> = hosts.into_iter().filter(|host| host.parse::<IpAddr>().is_err()).collect();
    if hosts.is_empty() {
        return None;
    }
    Some(Box::pin(async move {
        let roster = Roster::new(hosts, &means.config);
        means.lookups.names.store(roster.len() as u64, Relaxed);
        means.lookups.oldest.store(u64::MAX, Relaxed);
        let asker = match means.config.method {
            Method::Dns => Asker::Dns(Box::new(NameServers::new(&means.config))),
            Method::Getaddrinfo => Asker::Library(HashMap::new(), means.config.timeout),
        };
        let rng = Rng::new(means.seed);
        let (clock, lookups) = (means.clock, means.lookups);
        Control { roster, asker, asking: JoinSet::new(), of: HashMap::new(), clock, rng, lookups }.run(publish).await;
    }))
}

enum Asker {
    Dns(Box<NameServers>),
    /// By name, whether the library still goes on with it.
    Library(HashMap<usize, Arc<AtomicBool>>, Duration),
}

/// Answers to one question: IPv6's and IPv4's, as far as it was about them.
type Answers = [Option<Answer>; 2];

struct Control {
    roster: Roster,
    asker: Asker,
    asking: JoinSet<Answers>,
    /// Which name a question is about, also if it panics.
    of: HashMap<Id, usize>,
    clock: Clock,
    rng: Rng,
    lookups: Arc<Lookups>,
}

impl Control {
    async fn run(mut self, publish: impl Fn(Arc<Names>)) {
        let mut published = Names::new();
        loop {
            self.ask_what_is_due();
            let next = if self.asking.len() < ASKING_MAX { self.roster.earliest() } else { Instant::NEVER };
            let sleep = next.min(self.roster.held_until()).since(self.clock.now()).min(SLEEP_MAX);
            tokio::select! {
                Some(done) = self.asking.join_next_with_id() => {
                    self.hear(done);
                    // What has come together is published together.
                    while let Some(done) = self.asking.try_join_next_with_id() {
                        self.hear(done);
                    }
                }
                () = tokio::time::sleep(sleep) => {}
            }
            let names = self.roster.names(self.clock.now());
            if names != published {
                publish(Arc::new(names.clone()));
                published = names;
            }
        }
    }

    fn ask_what_is_due(&mut self) {
        let now = self.clock.now();
        if self.roster.earliest() > now {
            return;
        }
        if let Asker::Dns(servers) = &mut self.asker {
            servers.refresh();
        }
        // A round may be of two questions.
        while self.asking.len() + FAMILIES.len() <= ASKING_MAX {
            let answers = if matches!(self.asker, Asker::Dns(_)) { FAMILIES.len() } else { 1 };
            let Some((at, host)) = self.roster.next_due(now, answers) else { return };
            match &mut self.asker {
                Asker::Dns(servers) => {
                    let known = servers.in_hosts_file(host);
                    for (family, record) in FAMILIES.into_iter().enumerate() {
                        let known = known.as_ref().map(|known| known[family].clone());
                        let ask = servers.ask(host, record);
                        let question = async move {
                            let mut answers = [None, None];
                            answers[family] = match known {
                                Some(known) => known,
                                None => Some(ask.await),
                            };
                            answers
                        };
                        self.of.insert(self.asking.spawn(question).id(), at);
                    }
                }
                Asker::Library(busy, timeout) => {
                    let question = ask_library(host.to_owned(), *timeout, busy.entry(at).or_default().clone());
                    self.of.insert(self.asking.spawn(question).id(), at);
                }
            }
        }
    }

    fn hear(&mut self, done: Result<(Id, Answers), tokio::task::JoinError>) {
        let (id, answers) = match done {
            Ok(done) => done,
            Err(error) => {
                let failed = Answer::Missing(Missing::Failed, "the asking for it panicked".to_owned());
                (error.id(), [None, Some(failed)])
            }
        };
        let Some(at) = self.of.remove(&id) else { return };
        let Some(verdict) = self.roster.hear(at, answers, self.clock.now(), self.rng.bits()) else { return };
        self.lookups.count(verdict.missing);
        self.lookups.failing.store(self.roster.failing() as u64, Relaxed);
        self.lookups.oldest.store(self.roster.oldest().map_or(u64::MAX, |at| at.0), Relaxed);
        if let Some(line) = verdict.line {
            log::warn("resolver", line).say();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dns::Found;

    #[test]
    fn names_are_published_and_literals_need_no_task() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(8);
        let means = |method| Means {
            config: Resolver {
                method,
                servers: Vec::new(),
                timeout: Duration::from_secs(5),
                ttl_min: Duration::from_secs(5),
                ttl_max: Duration::from_secs(5),
            },
            clock: Clock::new(),
            seed: 7,
            lookups: Arc::default(),
        };
        assert!(task(["127.0.0.1".to_owned()], means(Method::Dns), |_| {}).is_none());
        for method in [Method::Dns, Method::Getaddrinfo] {
            let hosts = ["127.0.0.1", "localhost"].map(str::to_owned);
            let sender = sender.clone();
            let task = task(hosts, means(method), move |names| drop(sender.try_send(names))).unwrap();
            super::super::start(vec![task]).unwrap();
            let names = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(names.len(), 1);
            let Found::Addresses(addresses) = &names["localhost"] else { panic!("{names:?}") };
            assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        }
    }
}
