//! The ground on which a group of faults is played: one gateway, the providers that fail, one that is asked when they
//! may be passed over, and one that has nothing to do with any of it and must not notice.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::{Client, Config, Gateway, JSON, Origin, PATIENCE, Peer, Records, chat, metric_is, until_at_rest};
use crate::shape::Shape;

/// The kinds of event loop that everything is played on: both ways of reading.
pub const DRIVERS: [&str; 2] = ["deferred", "epoll"];

/// What the others may be delayed by, beyond what the machine kept them and the gateway from running. A worker that waits
/// for faulty providers is late by a timer of each.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// Providers and models to play faults with, as the config has them.
#[derive(Default)]
pub struct Players {
    text: String,
    more: String,
}

impl Players {
    /// With these further tables in the config.
    pub fn with(more: String) -> Players {
        Players { text: String::new(), more }
    }

    /// A provider `name` at `url`, and the models `name`, which it alone serves, and `name+`, for which the backup
    /// provider is next. `timers` are the fields of the models' timers.
    pub fn add(&mut self, name: &str, url: &str, endpoint: &str, timers: &str) {
        let _ = write!(
            self.text,
            "[[providers]]\nname = \"{name}\"\n[[providers.endpoints]]\nurl = \"{url}\"\n{endpoint}\n\
             [[models]]\nname = \"{name}\"\ntimers = {{ {timers} }}\nroute = [{{ provider = \"{name}\" }}]\n\
             [[models]]\nname = \"{name}+\"\ntimers = {{ {timers} }}\n\
             route = [{{ provider = \"{name}\" }}, {{ provider = \"backup\" }}]\n"
        );
    }
}

/// A gateway under test and all that watches it.
pub struct Ground {
    pub gateway: Gateway,
    pub records: Records,
    /// Requests that the backup provider was asked, by id.
    asked: Arc<Mutex<HashMap<String, usize>>>,
    /// Descriptors that an idle gateway holds.
    descriptors: usize,
    bystanders: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Ground {
    /// Starts everything; the bystanders are under way when this returns.
    pub fn start(driver: &str, players: &Players) -> Ground {
        let (steady, backup) = (Origin::start(), Origin::start());
        let records = Records::new();
        let config = Config::new(&[steady.url()]).top(&format!("cores = \"0\"\n{}", records.line())).and(&format!(
            "[[providers]]\nname = \"backup\"\n[[providers.endpoints]]\nurl = \"{}\"\n{}[ring]\ndriver = \"{driver}\"\n\
             [pool]\nidle = \"100ms\"\n{}",
            backup.url(),
            players.text,
            players.more,
        ));
        let gateway = Gateway::start(&config.admin());
        // The admin listener has its own: a first scrape makes what it keeps.
        until_at_rest(&gateway);
        let descriptors = gateway.descriptors();
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let asked_of = Arc::clone(&asked);
        backup.serve(move |peer| answer_as_backup(peer, &asked_of, || {}));
        let sent = Arc::<Sent>::default();
        let sent_by = Arc::clone(&sent);
        steady.serve(move |peer| answer_steadily(peer, &sent_by));
        let stop = Arc::new(AtomicBool::new(false));
        let address = gateway.address();
        let process = gateway.process.id();
        let begin = |watch: fn(_, Late, &AtomicBool)| {
            let (tell, told) = sync_channel(1);
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let bystander = thread::spawn(move || watch(address, Late::new(process, sent, tell), &stop));
            told.recv_timeout(PATIENCE).expect("a bystander that is served");
            bystander
        };
        let bystanders = vec![begin(read_steadily), begin(ask_steadily)];
        Ground { gateway, records, asked, descriptors, bystanders, stop }
    }

    /// How often the backup provider was asked for the request `id`.
    pub fn asked_backup(&self, id: &str) -> usize {
        self.asked.lock().expect("not poisoned").get(id).copied().unwrap_or(0)
    }

    /// Ends the group: nobody else was disturbed, and nothing is left of it.
    ///
    /// # Panics
    /// If that is not so.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for bystander in self.bystanders {
            bystander.join().expect("a bystander that was served all the time");
        }
        until_at_rest(&self.gateway);
        for open in ["ringway_upstream_connections_open", "ringway_client_connections_open"] {
            metric_is(&self.gateway, open, &[], 0.0);
        }
        let start = Instant::now();
        while self.gateway.descriptors() > self.descriptors {
            let held = self.gateway.descriptors();
            assert!(start.elapsed() < PATIENCE, "{held} descriptors are held, {} by an idle gateway", self.descriptors);
            thread::yield_now();
        }
        let said = self.gateway.process.lines().join("\n");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// Answers whatever is asked, in the shape that was asked for.
pub fn answer_as_backup(mut peer: Peer, asked: &Mutex<HashMap<String, usize>>, on_request: impl Fn()) {
    while let Some(request) = peer.next_request() {
        on_request();
        let id = request.get("x-request-id").unwrap_or_default().to_owned();
        *asked.lock().expect("not poisoned").entry(id).or_default() += 1;
        let shape = Shape::of(&request);
        let body = shape.whole();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\ncontent-length: {}", shape.media(), body.len());
        peer.send(format!("{head}\r\n\r\n{body}"));
    }
}

/// When each event of the steady stream had been sent.
type Sent = Mutex<VecDeque<(u64, Instant)>>;

/// A stream without end, or a plain answer.
fn answer_steadily(mut peer: Peer, sent: &Sent) {
    while let Some(request) = peer.next_request() {
        if !Shape::of(&request).streamed {
            peer.answer("{\"steady\":true}");
            continue;
        }
        peer.begin_stream();
        for number in 0_u64.. {
            let event = format!(
                "data: {{\"number\":{number},\"choices\":[{{\"index\":0,\
                 \"delta\":{{\"content\":\"x\"}}}}]}}\n\n"
            );
            if !peer.try_send(format!("{:x}\r\n{event}\r\n", event.len())) {
                return;
            }
            // Not before: this thread, too, may be kept waiting for a core.
            sent.lock().expect("not poisoned").push_back((number, Instant::now()));
            // The pace of a provider, not a wait for anything.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Judges how late something is.
struct Late {
    sent: Arc<Sent>,
    /// Where the kernel says how long a thread has waited for a core, and what it said last.
    waits: Vec<(PathBuf, u64)>,
    /// Told with every judgement, as long as somebody listens.
    under_way: SyncSender<()>,
}

impl Late {
    /// For the calling thread and all those of `process`.
    fn new(process: u32, sent: Arc<Sent>, under_way: SyncSender<()>) -> Late {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("a running process");
        let of_gateway = threads.map(|thread| thread.expect("a thread").path().join("schedstat"));
        let waits = of_gateway.chain(["/proc/thread-self/schedstat".into()]).map(|file| (file, 0)).collect();
        Late { sent, waits, under_way }
    }

    /// How long before `at` the event `number` had been sent.
    fn since_sent(&self, number: u64, at: Instant) -> Duration {
        let mut sent = self.sent.lock().expect("not poisoned");
        while let Some((earlier, time)) = sent.pop_front() {
            if earlier == number {
                return at.saturating_duration_since(time);
            }
        }
        // It is here before its sender came to note it.
        Duration::ZERO
    }

    /// # Panics
    /// If `delay` is too long, even if all of the threads' waiting since the last call was for its sake.
    fn judge(&mut self, what: &str, number: u64, delay: Duration) {
        let mut excused_ns = 0;
        for (file, waited_ns) in &mut self.waits {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let now_ns: u64 = text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
            excused_ns += now_ns.saturating_sub(std::mem::replace(waited_ns, now_ns));
        }
        let excused = Duration::from_nanos(excused_ns);
        let _ = self.under_way.try_send(());
        assert!(delay < DELAY_MAX + excused, "the bystander's {what} {number} took {delay:?} ({excused:?} excused)");
    }
}

/// Reads a steady stream until told to stop: every event, in order, none late.
fn read_steadily(address: SocketAddr, mut late: Late, stop: &AtomicBool) {
    let (head, mut events) = crate::common::stream_chat(address, "steady");
    assert_eq!(head.status, 200, "the bystander's stream");
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let event = events.next_event().unwrap_or_else(|| panic!("the bystander's stream ended: {:?}", events.end()));
        let json = event.json();
        assert_eq!(json["number"], count, "an event of the bystander's is missing");
        let delay = late.since_sent(count, event.at);
        late.judge("event", count, delay);
        count += 1;
    }
}

/// Asks the steady provider over and over until told to stop; every answer comes, and none late.
fn ask_steadily(address: SocketAddr, mut late: Late, stop: &AtomicBool) {
    let mut client = Client::connect(address);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        if count % 500 == 499 {
            client = Client::connect(address);
        }
        let asked = Instant::now();
        let response = client.request("POST", "/v1/chat/completions", &JSON, &chat("steady", false));
        assert_eq!(response.head.status, 200, "the bystander was told {}", response.text());
        late.judge("answer", count, asked.elapsed());
        count += 1;
        thread::sleep(Duration::from_millis(2));
    }
}
