//! One run: how many inputs, from which seed, what was found, and where that is written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::origins::{self, Origin, Sent};

/// Inputs between two looks at the origins.
const ROUND: u64 = 100_000;
/// More say nothing new.
const FINDINGS_MAX: usize = 50;

/// A run of one kind of input.
pub struct Trial {
    pub seed: u64,
    pub inputs: u64,
    folder: PathBuf,
    started: Instant,
    told: RefCell<Told>,
}

#[derive(Default)]
struct Told {
    counts: BTreeMap<String, u64>,
    /// The first input of each kind that is counted.
    examples: BTreeMap<String, Vec<u8>>,
    findings: Vec<String>,
}

/// Runs it to its end, and fails if anything was found.
pub fn run(what: &'static str, part: impl for<'t> FnOnce(&'t Trial) -> Pin<Box<dyn Future<Output = ()> + 't>>) {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\", no number")),
        Err(_) => default,
    };
    let folder = target().join("desync-findings");
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let trial = Trial {
        seed: number("DESYNC_SEED", 1),
        inputs: number("DESYNC_INPUTS", 6_000),
        folder,
        started: Instant::now(),
        told: RefCell::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, part(&trial));
    let told = trial.told.borrow();
    println!("{what}: seed {}, {:.0} s", trial.seed, trial.started.elapsed().as_secs_f64());
    for (name, count) in &told.counts {
        println!("  {count:>10} {name}");
    }
    if std::env::var_os("DESYNC_EXAMPLES").is_some() {
        for (name, bytes) in &told.examples {
            println!("--- {name}\n{}", bytes.escape_ascii());
        }
    }
    assert!(told.findings.is_empty(), "{} findings:\n{}", told.findings.len(), told.findings.join("\n"));
}

/// The folder that holds what was built.
fn target() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_ringway"));
    program.parent().and_then(Path::parent).expect("target/PROFILE/ringway").to_owned()
}

impl Trial {
    pub fn count(&self, name: &str, count: u64) {
        *self.told.borrow_mut().counts.entry(name.to_owned()).or_default() += count;
    }

    /// Counts one, and keeps the first as an example.
    pub fn note(&self, name: &str, bytes: &[u8]) {
        let mut told = self.told.borrow_mut();
        let count = told.counts.entry(name.to_owned()).or_default();
        *count += 1;
        if *count == 1 {
            told.examples.insert(name.to_owned(), bytes.to_vec());
        }
    }

    /// Writes down what must not be.
    pub fn find(&self, what: &str, bytes: &[u8]) {
        let mut told = self.told.borrow_mut();
        let number = told.findings.len();
        let file = self.folder.join(format!("{}-{}-{number}", self.seed, std::process::id()));
        if number < FINDINGS_MAX {
            let _ = std::fs::write(&file, bytes);
            println!("FOUND: {what:.2000}\n  {}: {:.2000}", file.display(), bytes.escape_ascii().to_string());
        }
        told.findings.push(format!("{what:.2000}: {}", file.display()));
    }

    pub fn found_enough(&self) -> bool {
        self.told.borrow().findings.len() >= FINDINGS_MAX
    }

    /// The inputs in rounds of at most so many.
    pub fn rounds(&self) -> impl Iterator<Item = std::ops::Range<u64>> + use<'_> {
        let starts = (0..self.inputs).step_by(ROUND as usize);
        starts.map(|start| start..(start + ROUND).min(self.inputs)).take_while(|_| !self.found_enough())
    }

    pub fn say(&self, done: u64) {
        let seconds = self.started.elapsed();
        if self.inputs > ROUND {
            println!("{done} of {} inputs, {:.0} a second", self.inputs, done as f64 / seconds.as_secs_f64());
        }
    }

    /// The five origins.
    pub async fn origins(&self) -> Vec<Origin> {
        let folder = std::env::temp_dir().join(format!("ringway-desync-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the origins");
        let venv = target().join("venv/bin/python");
        let python = if venv.is_file() { venv } else { PathBuf::from("python3") };
        origins::start(&folder, &python).await
    }

    /// Has each origin judge what was sent.
    pub async fn judge(&self, origins: &mut [Origin], all: &[Sent]) {
        let mut rest = origins.iter_mut();
        let mut next = || rest.next().expect("five origins").judge(all);
        let (a, b, c, d, e) = (next(), next(), next(), next(), next());
        tokio::join!(a, b, c, d, e);
        for origin in origins {
            for (what, bytes) in origin.findings.drain(..) {
                self.find(&what, &bytes);
            }
        }
    }

    pub fn tell(&self, origins: &[Origin]) {
        for origin in origins {
            self.count(&format!("judged by {}", origin.name), origin.judged);
            self.count(&format!("judged by {}: as it was meant", origin.name), origin.agreed);
            for (status, (count, first)) in &origin.refused {
                let name = format!("judged by {}: refused with {status}", origin.name);
                self.note(&name, first);
                self.count(&name, count - 1);
            }
        }
        let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("ringway-desync-{}", std::process::id())));
    }
}

/// Waits between two looks at something that another task changes.
pub async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
